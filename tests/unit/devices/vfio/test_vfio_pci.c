/* A passed-through function as the guest and the host see it; the device is made up. */
#include "devices/vfio/vfio_pci.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "tests/fake_vfio.h"

#define ECAM  0xe0000000u
#define MEM32 0xc0000000u
#define MEM64 0x4000000000u
#define SLOT  3

/* The device: a 64-bit BAR 0 of 16 KiB with MSI-X in it, port I/O in BAR 2, a small BAR 3. */
#define BAR_SIZE 0x4000
#define TABLE	 0x2000
#define PBA	 0x2800
#define VECTORS	 70
#define CAP_PM	 0x40
#define CAP_BAD	 0x48 /* hidden */
#define CAP_MSI	 0x50
#define CAP_MSIX 0x70
#define CAP_EXP	 0x80

static struct fake_vfio dev;
static struct fake_slots mem;
static struct fake_sink sink;
static struct fake_wire wire; /* that INTA goes to */
/* What its regions hold. */
static uint8_t bar[BAR_SIZE], small[64], rom[KIB(2)];

static struct bus mmio;
static struct pci_root *root;
static struct vfio_pci *vfio;
static struct loop *loop;

static unsigned slots_shown(void)
{
	return fake_slots_shown(&mem);
}

/* The sink's vector whose eventfd the host rings for number @index of @kind. */
static struct msi_vector *behind(unsigned kind, unsigned index)
{
	return fake_sink_find(&sink, dev.irq[kind][index]);
}

/* The guest. */

static uint32_t cfg(unsigned reg, unsigned size)
{
	uint64_t value;

	bus_read(&mmio, ECAM + (SLOT << 15) + reg, size, &value);
	return (uint32_t)value;
}

static void cfg_write(unsigned reg, unsigned size, uint32_t value)
{
	bus_write(&mmio, ECAM + (SLOT << 15) + reg, size, value);
}

static uint64_t bar0(void)
{
	return (cfg(0x10, 4) & ~15u) | (uint64_t)cfg(0x14, 4) << 32;
}

static uint32_t bar_read(uint64_t offset, unsigned size)
{
	uint64_t value;

	bus_read(&mmio, bar0() + offset, size, &value);
	return (uint32_t)value;
}

static void entry_write(unsigned entry, unsigned reg, uint32_t value)
{
	bus_write(&mmio, bar0() + TABLE + 16 * entry + reg, 4, value);
}

static void entry_use(unsigned entry)
{
	entry_write(entry, 0, 0xfee00000);
	entry_write(entry, 8, 0x100 + entry);
	entry_write(entry, 12, 0);
}

static void msix_enable(void)
{
	cfg_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	cfg_write(CAP_MSIX + 2, 2, PCI_MSIX_FLAGS_ENABLE);
}

static void put(unsigned reg, unsigned size, uint32_t value)
{
	pci_config_put(dev.config, reg, size, value);
}

static void make_device(void)
{
	static const unsigned count[] = { 1, 4, VECTORS, 1, 1 };

	fake_vfio_init(&dev, &mem);
	dev.grows = true;
	memcpy(dev.count, count, sizeof(count));
	dev.region[VFIO_PCI_CONFIG_REGION_INDEX].size = PCI_CONFIG_SIZE;
	dev.region[0] = (struct vfio_region){ BAR_SIZE, 1, { { 0, BAR_SIZE } } };
	dev.region[2].size = 32;
	dev.region[3].size = sizeof(small);
	dev.bytes[0] = bar;
	dev.bytes[3] = small;
	dev.bytes[VFIO_PCI_ROM_REGION_INDEX] = rom;
	dev.pm_cap = CAP_PM;
	dev.exp_cap = CAP_EXP;
	put(PCI_VENDOR_ID, 4, 0x56781234);
	put(PCI_STATUS, 2, PCI_STATUS_CAP_LIST);
	put(PCI_CLASS_REVISION, 4, 0x01080203);
	put(PCI_HEADER_TYPE, 1, 0x80);
	put(PCI_BASE_ADDRESS_0, 4, 0x4);
	put(PCI_BASE_ADDRESS_2, 4, 0x1);
	put(PCI_ROM_ADDRESS, 4, 0xfff00001);
	put(PCI_INTERRUPT_PIN, 1, 3);
	put(PCI_CAPABILITY_LIST, 1, CAP_PM);
	put(CAP_PM, 2, PCI_CAP_ID_PM | CAP_BAD << 8);
	put(CAP_BAD, 4, PCI_CAP_ID_EA | CAP_MSI << 8 | 0xbad0000);
	put(CAP_MSI, 4, PCI_CAP_ID_MSI | CAP_MSIX << 8 | (PCI_MSI_FLAGS_64BIT | 2 << 1) << 16);
	put(CAP_MSIX, 4, PCI_CAP_ID_MSIX | CAP_EXP << 8 | (VECTORS - 1) << 16);
	put(CAP_MSIX + 4, 4, TABLE);
	put(CAP_MSIX + 8, 4, PBA);
	put(CAP_EXP, 4, PCI_CAP_ID_EXP | 2 << 16);
	put(CAP_EXP + PCI_EXP_DEVCAP, 4, PCI_EXP_DEVCAP_FLR);
	put(CAP_EXP + PCI_EXP_LNKSTA, 2, 0x1042);
	/* Extended: AER at 0x100, a serial number at 0x200, SR-IOV at 0x300. */
	put(0x100, 4, PCI_EXT_CAP_ID_ERR | 1 << 16 | 0x200u << 20);
	put(0x104, 4, 0xaaaa);
	put(0x200, 4, PCI_EXT_CAP_ID_DSN | 1 << 16 | 0x300u << 20);
	put(0x204, 4, 0x5e41a1);
	put(0x300, 4, PCI_EXT_CAP_ID_SRIOV | 1 << 16);
	put(0x308, 4, 0xbbbb);
}

static void machine_reset(void)
{
	vfio_pci_quiet(vfio);
	vfio_pci_reset(vfio);
	vfio_pci_restart(vfio);
}

static int create(struct err *err)
{
	return vfio_pci_create(&vfio, "dev", &dev.host, root, SLOT, 0, &mem.slots, &wire.line, loop,
			       err);
}

static void setup(void)
{
	struct pci_root_config config = {
		.mmio = &mmio,
		.msi = &sink.sink,
		.ecam_base = ECAM,
		.mem32_base = MEM32,
		.mem32_size = MIB(16),
		.mem64_base = MEM64,
		.mem64_size = MIB(16),
	};

	log_set_level(LOG_ERROR);
	make_device();
	fake_slots_init(&mem);
	fake_sink_init(&sink);
	fake_wire_init(&wire);
	bus_init(&mmio, false);
	cr_assert_eq(pci_root_create(&root, &config, NULL), 0);
	cr_assert_eq(loop_create(&loop, "vfio", NULL), 0);
}

static void setup_device(void)
{
	setup();
	cr_assert_eq(create(NULL), 0);
	cr_assert_eq(pci_root_assign(root, NULL), 0);
}

static void teardown(void)
{
	vfio_pci_destroy(vfio);
	loop_destroy(loop);
	pci_root_destroy(root);
	bus_finish(&mmio);
	cr_assert_eq(fake_sink_used(&sink), 0);
	cr_assert_eq(fake_vfio_mapped(&dev), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(dev.room); i++)
		cr_assert_eq(dev.room[i], 0, "the host rings nothing any more");
	cr_assert_eq(wire.trigger, -1);
}

/* Those in vfio_made create the device themselves, with something changed. */
TestSuite(vfio_pci, .init = setup_device, .fini = teardown);
TestSuite(vfio_made, .init = setup, .fini = teardown);

Test(vfio_pci, capabilities_are_filtered)
{
	cr_expect_eq(cfg(PCI_VENDOR_ID, 4), 0x56781234);
	cr_expect_eq(cfg(PCI_CLASS_REVISION, 4), 0x01080203);
	cr_expect_eq(cfg(PCI_HEADER_TYPE, 1), 0, "one function");
	cr_expect_eq(cfg(PCI_ROM_ADDRESS, 4), 0);
	cr_expect_eq(cfg(PCI_CAPABILITY_LIST, 1), CAP_PM);
	cr_expect_eq(cfg(CAP_PM + 1, 1), CAP_MSI);
	cr_expect_eq(cfg(CAP_BAD, 4), 0);
	cr_expect_eq(cfg(CAP_MSI + 1, 1), CAP_MSIX);
	cr_expect_eq(cfg(CAP_MSIX + 1, 1), CAP_EXP);
	cr_expect_eq(cfg(CAP_EXP + 1, 1), 0);
	cr_expect_eq(cfg(CAP_EXP + 2, 2), PCI_EXP_TYPE_RC_END << 4 | 2);
	cr_expect_eq(cfg(CAP_EXP + PCI_EXP_LNKSTA, 2), 0, "there is no link");
	cr_expect_eq(cfg(0x100, 4), 0x200u << 20, "a null capability");
	cr_expect_eq(cfg(0x104, 4), 0);
	cr_expect_eq(cfg(0x200, 4), PCI_EXT_CAP_ID_DSN | 1 << 16);
	cr_expect_eq(cfg(0x204, 4), 0x5e41a1);
	cr_expect_eq(cfg(0x300, 4), 0);
	cr_expect_eq(cfg(0x308, 4), 0);
	cfg_write(0x308, 4, 1);
	cr_expect_eq(pci_config_get(dev.config, 0x308, 4), 0xbbbb, "nor is it written");
}

/* The list goes down again, so that a shown one has no next one above it. */
Test(vfio_made, nothing_hidden_shows_behind_a_capability)
{
	put(0x100, 4, PCI_EXT_CAP_ID_ERR | 1 << 16 | 0x300u << 20);
	put(0x300, 4, PCI_EXT_CAP_ID_DSN | 1 << 16 | 0x200u << 20);
	put(0x308, 4, 0x5e41a1);
	put(0x200, 4, PCI_EXT_CAP_ID_VNDR | 1 << 16 | 0x280u << 20);
	put(0x204, 4, 16u << 20 | 7);
	put(0x20c, 4, 0x0e5);
	put(0x210, 4, 0xaaaa);
	/* And back to the first. */
	put(0x280, 4, PCI_EXT_CAP_ID_ATS | 1 << 16 | 0x100u << 20);
	put(0x284, 4, 0xbbbb);
	put(0x30c, 4, 0xcccc);
	cr_assert_eq(create(NULL), 0);
	cr_expect_eq(cfg(0x100, 4), 0x300u << 20);
	cr_expect_eq(cfg(0x300, 4), PCI_EXT_CAP_ID_DSN | 1 << 16 | 0x200u << 20);
	cr_expect_eq(cfg(0x308, 4), 0x5e41a1);
	cr_expect_eq(cfg(0x30c, 4), 0);
	cr_expect_eq(cfg(0x200, 4), PCI_EXT_CAP_ID_VNDR | 1 << 16);
	cr_expect_eq(cfg(0x20c, 4), 0x0e5);
	cr_expect_eq(cfg(0x210, 4), 0);
	cr_expect_eq(cfg(0x284, 4), 0);
}

/* One that claims all the rest, with hidden ones in it: 400 on the way and one in the last word. */
Test(vfio_made, nothing_hidden_shows_within_a_capability)
{
	unsigned at;

	put(0x100, 4, PCI_EXT_CAP_ID_VNDR | 1 << 16 | 0x140u << 20);
	put(0x104, 4, 0xf00u << 20 | 7);
	put(0x13c, 4, 0x0e5);
	for (at = 0x140; at < 0x140 + 400 * 8; at += 8) {
		put(at, 4, PCI_EXT_CAP_ID_ATS | 1 << 16 | (at + 8) << 20);
		put(at + 4, 4, 0xbbbb);
	}
	put(at, 4, PCI_EXT_CAP_ID_VNDR | 1 << 16 | 0xffcu << 20);
	put(at + 4, 4, (0x1000 - at) << 20 | 8);
	put(at + 8, 4, 0x0e5);
	put(0xffc, 4, PCI_EXT_CAP_ID_ATS | 1 << 16);
	cr_assert_eq(create(NULL), 0);
	cr_expect_eq(cfg(0x100, 4), PCI_EXT_CAP_ID_VNDR | 1 << 16 | at << 20);
	cr_expect_eq(cfg(0x13c, 4), 0x0e5);
	for (unsigned hidden = 0x140; hidden < at; hidden += 4)
		cr_expect_eq(cfg(hidden, 4), 0);
	cr_expect_eq(cfg(at, 4), PCI_EXT_CAP_ID_VNDR | 1 << 16);
	cr_expect_eq(cfg(at + 8, 4), 0x0e5);
	cr_expect_eq(cfg(0xffc, 4), 0);
}

/* Its own length would be past the end. */
Test(vfio_made, a_capability_in_the_last_word_is_hidden)
{
	put(0x100, 4, PCI_EXT_CAP_ID_ERR | 1 << 16 | 0xffcu << 20);
	put(0xffc, 4, PCI_EXT_CAP_ID_VNDR | 1 << 16);
	cr_assert_eq(create(NULL), 0);
	cr_expect_eq(cfg(0x100, 4), 0);
	cr_expect_eq(cfg(0xffc, 4), 0);
}

Test(vfio_pci, what_is_the_devices_is_read_and_written_there)
{
	put(0xc0, 4, 0x11223344);
	cr_expect_eq(cfg(0xc0, 4), 0x11223344);
	put(0xc0, 4, 0x55667788);
	cr_expect_eq(cfg(0xc2, 2), 0x5566);
	cfg_write(0xc1, 1, 0x99);
	cr_expect_eq(pci_config_get(dev.config, 0xc0, 4), 0x55669988);
	/* A write over both kinds changes only the device's bytes there. */
	cfg_write(CAP_EXP + PCI_EXP_DEVCTL, 4, 0x00001234);
	cr_expect_eq(pci_config_get(dev.config, CAP_EXP + PCI_EXP_DEVCTL, 2), 0x1234);
	cfg_write(CAP_EXP, 4, 0);
	cr_expect_eq(pci_config_get(dev.config, CAP_EXP, 1), PCI_CAP_ID_EXP);
}

Test(vfio_pci, the_devices_memory_decoding_stays_on)
{
	cr_expect_eq(pci_config_get(dev.config, PCI_COMMAND, 2), PCI_COMMAND_MEMORY);
	cr_expect_eq(cfg(PCI_COMMAND, 2), 0);
	cfg_write(PCI_COMMAND, 2, PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
	cr_expect_eq(pci_config_get(dev.config, PCI_COMMAND, 2),
		     PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE | PCI_COMMAND_MEMORY);
	cfg_write(PCI_COMMAND, 2, 0);
	cr_expect_eq(pci_config_get(dev.config, PCI_COMMAND, 2), PCI_COMMAND_MEMORY);
}

Test(vfio_pci, a_bar_is_memory_of_the_guest_except_for_the_table)
{
	uint64_t base = bar0();

	cr_assert_eq(base, MEM64);
	cfg_write(0x10, 4, 0xffffffff);
	cr_expect_eq(cfg(0x10, 4), ~(BAR_SIZE - 1u) | 4);
	cfg_write(0x10, 4, (uint32_t)base);
	cr_expect_eq(cfg(0x18, 4), 0, "port I/O isn't shown");
	cr_expect_eq(slots_shown(), 0);
	cfg_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	cr_assert_eq(slots_shown(), 2);
	cr_expect(mem.slot[0].gpa == base && mem.slot[0].size == TABLE);
	cr_expect(mem.slot[0].host == bar);
	cr_expect(mem.slot[1].gpa == base + 0x3000 && mem.slot[1].size == 0x1000);
	cr_expect(mem.slot[1].host == bar + 0x3000);
	/* Where it moves, they move. */
	cfg_write(0x10, 4, (uint32_t)base + 0x10000);
	cr_assert_eq(slots_shown(), 2);
	cr_expect(mem.slot[0].gpa == base + 0x10000 && mem.slot[1].gpa == base + 0x13000);
	cfg_write(PCI_COMMAND, 2, 0);
	cr_expect_eq(slots_shown(), 0);
}

Test(vfio_pci, accesses_that_trap)
{
	cfg_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	/* In the table's page, but behind the table and the pending bits: the device's. */
	bar[0x2f00] = 0x77;
	cr_expect_eq(bar_read(0x2f00, 1), 0x77);
	bus_write(&mmio, bar0() + 0x2f01, 1, 0x78);
	cr_expect_eq(bar[0x2f01], 0x78);
	/* The table is ours. */
	bar[TABLE] = 0x99;
	cr_expect_eq(bar_read(TABLE, 4), 0);
	entry_write(0, 0, 0xfee00000);
	cr_expect_eq(bar_read(TABLE, 4), 0xfee00000);
	cr_expect_eq(bar[TABLE], 0x99);
	/* What lies across its end is nobody's. */
	bus_write(&mmio, bar0() + TABLE - 2, 4, 0x55555555);
	cr_expect(!bar[TABLE - 1] && bar[TABLE] == 0x99);
	cr_expect_eq(bar_read(TABLE - 2, 4), 0);
	/* A BAR that is too small to be mapped works too. */
	uint64_t value, base = cfg(0x1c, 4) & ~15u;

	small[8] = 0x42;
	bus_read(&mmio, base + 8, 4, &value);
	cr_expect_eq(value, 0x42);
}

Test(vfio_pci, a_refused_slot_is_slow_but_works)
{
	mem.refuse = EEXIST;
	cfg_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	bar[8] = 0x33;
	cr_expect_eq(bar_read(8, 1), 0x33);
	mem.refuse = 0;
	cfg_write(PCI_COMMAND, 2, 0);
	cfg_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	cr_expect_eq(slots_shown(), 2);
}

Test(vfio_pci, a_sleeping_device_has_no_registers)
{
	cfg_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	cfg_write(CAP_PM + PCI_PM_CTRL, 2, 3);
	cr_expect_eq(slots_shown(), 0);
	cr_expect_not(dev.power_saw_slots, "they were gone before it slept");
	cfg_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	cr_expect_eq(slots_shown(), 0);
	cfg_write(CAP_PM + PCI_PM_CTRL, 2, 0);
	cr_expect_eq(slots_shown(), 2);
}

Test(vfio_pci, msix_entries_are_switched_on_when_used)
{
	msix_enable();
	cr_expect_eq(fake_sink_used(&sink), 0);
	entry_use(3);
	cr_assert_eq(dev.room[MSIX], 4);
	cr_expect_eq(dev.irq[MSIX][0], -1);
	cr_assert(behind(MSIX, 3));
	cr_expect_eq(behind(MSIX, 3)->message.data, 0x103);
	cr_expect_not(behind(MSIX, 3)->masked);
	unsigned calls = dev.set_calls;

	entry_use(1);
	entry_use(69);
	cr_expect_eq(dev.set_calls, calls + 2, "nothing else was touched");
	cr_assert(behind(MSIX, 1) && behind(MSIX, 69) && behind(MSIX, 3));
	entry_write(3, 12, 1);
	cr_expect(behind(MSIX, 3)->masked);
	entry_write(3, 12, 0);
	cr_expect_eq(dev.set_calls, calls + 2, "masking is no matter of the host");
	cfg_write(CAP_MSIX + 2, 2, 0);
	cr_expect_eq(dev.room[MSIX], 0);
	cfg_write(CAP_MSIX + 2, 2, PCI_MSIX_FLAGS_ENABLE);
	cr_expect(behind(MSIX, 1) && behind(MSIX, 3) && behind(MSIX, 69), "and all come back");
}

Test(vfio_made, a_host_that_cannot_add_entries)
{
	uint64_t count;

	dev.grows = false;
	cr_assert_eq(create(NULL), 0);
	cr_assert_eq(pci_root_assign(root, NULL), 0);
	msix_enable();
	entry_use(1);
	entry_use(0);
	cr_assert(behind(MSIX, 0) && behind(MSIX, 1));
	cr_expect_lt(read(behind(MSIX, 1)->eventfd, &count, 8), 0, "room for it there was");
	entry_use(5);
	cr_assert(behind(MSIX, 0) && behind(MSIX, 1) && behind(MSIX, 5));
	cr_expect_eq(read(behind(MSIX, 1)->eventfd, &count, 8), 8, "what may have been lost");
}

Test(vfio_made, a_host_short_of_vectors_keeps_those_it_has)
{
	dev.grows = false;
	dev.max_irqs = 4;
	cr_assert_eq(create(NULL), 0);
	cr_assert_eq(pci_root_assign(root, NULL), 0);
	msix_enable();
	entry_use(1);
	entry_use(0);
	for (unsigned i = VECTORS; i-- > 5;)
		entry_use(i);
	cr_assert(behind(MSIX, 0) && behind(MSIX, 1));
	/* All at once: it gets what there is. */
	cfg_write(CAP_MSIX + 2, 2, 0);
	unsigned calls = dev.set_calls;

	msix_enable();
	cr_expect_eq(dev.set_calls, calls + 3, "wire off, a try, what there is");
	cr_expect_eq(dev.room[MSIX], 4);
	cr_assert(behind(MSIX, 0) && behind(MSIX, 1));
	calls = dev.set_calls;

	cfg_write(CAP_MSIX + 2, 2, PCI_MSIX_FLAGS_ENABLE);
	cr_expect_leq(dev.set_calls, calls + 3, "off, a try, on again; not for each of 65");
	dev.max_irqs = 0;
	cfg_write(CAP_MSIX + 2, 2, PCI_MSIX_FLAGS_ENABLE);
	cr_assert(behind(MSIX, 0) && behind(MSIX, 1) && behind(MSIX, 5) && behind(MSIX, 6));
}

Test(vfio_pci, an_entry_without_a_vector_keeps_none_from_the_others)
{
	dev.max_irqs = 4;
	msix_enable();
	entry_use(0);
	for (unsigned i = 60; i < VECTORS; i++)
		entry_use(i);
	unsigned calls = dev.set_calls;

	entry_use(2);
	cr_expect(behind(MSIX, 0) && behind(MSIX, 2) && !behind(MSIX, 60));
	cr_expect_eq(dev.set_calls, calls + 2, "it, and one of those that wait");
}

Test(vfio_pci, a_refused_message_is_tried_anew)
{
	msix_enable();
	sink.refuse = EINVAL;
	entry_use(0);
	cr_expect_not(behind(MSIX, 0));
	cr_expect_eq(fake_sink_used(&sink), 0);
	sink.refuse = 0;
	entry_use(0);
	cr_expect(behind(MSIX, 0));
}

Test(vfio_pci, pending_bits_are_what_was_rung_while_masked)
{
	msix_enable();
	entry_use(2);
	entry_use(65);
	entry_write(2, 12, 1);
	entry_write(65, 12, 1);
	cr_expect_eq(bar_read(PBA, 4), 0);
	eventfd_write(behind(MSIX, 65)->eventfd, 1);
	cr_expect_eq(bar_read(PBA, 4), 0);
	cr_expect_eq(bar_read(PBA + 8, 4), 2);
	eventfd_write(behind(MSIX, 2)->eventfd, 1);
	cr_expect_eq(bar_read(PBA, 4), 4);
	cfg_write(CAP_MSIX + 2, 2, 0);
	cr_expect_eq(bar_read(PBA, 4), 0, "off forgets them");
}

Test(vfio_pci, a_host_without_interrupts_is_survived)
{
	dev.refuse[FAKE_SET_IRQS] = ENOSPC;
	msix_enable();
	entry_use(0);
	cr_expect_eq(dev.room[MSIX], 0);
	dev.refuse[FAKE_SET_IRQS] = 0;
	entry_use(1);
	cr_expect(behind(MSIX, 0) && behind(MSIX, 1), "the next try takes all");
}

Test(vfio_pci, msi)
{
	cfg_write(CAP_MSI + PCI_MSI_ADDRESS_LO, 4, 0xfee01003);
	cfg_write(CAP_MSI + PCI_MSI_ADDRESS_HI, 4, 1);
	cfg_write(CAP_MSI + PCI_MSI_DATA_64, 2, 0x4f);
	cr_expect_eq(dev.room[MSI], 0);
	cfg_write(CAP_MSI + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE | 1 << 4);
	cr_assert_eq(dev.room[MSI], 2);
	cr_expect_eq(behind(MSI, 0)->message.address, 0x1fee01000);
	cr_expect(behind(MSI, 0)->message.data == 0x4e && behind(MSI, 1)->message.data == 0x4f);
	cr_expect_not(behind(MSI, 1)->masked);
	cfg_write(CAP_MSI + PCI_MSI_DATA_64, 2, 0x60);
	cr_expect_eq(behind(MSI, 1)->message.data, 0x61);
	/* 32 are asked for, the host has 4. */
	cfg_write(CAP_MSI + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE | 5 << 4);
	cr_expect_eq(dev.room[MSI], 4);
	cfg_write(CAP_MSI + PCI_MSI_FLAGS, 2, 0);
	cr_expect_eq(dev.room[MSI], 0);
	cr_expect_eq(fake_sink_used(&sink), 0);
}

Test(vfio_pci, msi_on_a_host_short_of_vectors)
{
	dev.max_irqs = 3;
	cfg_write(CAP_MSI + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE | 2 << 4);
	cr_expect_eq(dev.room[MSI], 3);
	cr_expect(behind(MSI, 0) && behind(MSI, 2));
	cfg_write(CAP_MSI + PCI_MSI_FLAGS, 2, 0);
	cr_expect_eq(dev.room[MSI], 0);
	cr_expect_eq(fake_sink_used(&sink), 0);
}

Test(vfio_pci, the_wire_is_connected_while_nothing_else_is)
{
	cr_expect_eq(cfg(PCI_INTERRUPT_PIN, 1), 1, "INTA");
	cr_assert_eq(dev.room[INTX], 1);
	cr_expect_eq(dev.irq[INTX][0], wire.trigger);
	cr_expect_eq(dev.unmask_fd, wire.resample, "the guest's end of interrupt unmasks");
	msix_enable();
	cr_expect(!dev.room[INTX] && wire.trigger < 0);
	entry_use(0);
	cfg_write(CAP_MSIX + 2, 2, 0);
	cr_expect(dev.room[INTX] == 1 && dev.irq[INTX][0] == wire.trigger && wire.trigger >= 0);
	cfg_write(CAP_MSI + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE);
	cr_expect(!dev.room[INTX] && wire.trigger < 0 && dev.room[MSI] == 1);
	cfg_write(CAP_MSI + PCI_MSI_FLAGS, 2, 0);
	cr_expect(dev.room[INTX] == 1 && wire.trigger >= 0);
	msix_enable();
	machine_reset();
	cr_expect(dev.room[INTX] == 1 && wire.trigger >= 0);
	/* It may have been masked on the host, by an interrupt that the guest won't answer. */
	unsigned calls = dev.set_calls;

	machine_reset();
	cr_expect_eq(dev.set_calls, calls + 2, "off and on");
	cr_expect(dev.room[INTX] == 1 && wire.trigger >= 0);
}

Test(vfio_made, without_a_wire)
{
	put(PCI_INTERRUPT_PIN, 1, 0);
	cr_assert_eq(create(NULL), 0);
	cr_expect_eq(cfg(PCI_INTERRUPT_PIN, 1), 0);
	cr_expect_eq(wire.trigger, -1);
}

Test(vfio_pci, a_function_level_reset_resets_our_half_too)
{
	msix_enable();
	entry_use(0);
	cfg_write(CAP_EXP + PCI_EXP_DEVCTL, 2, PCI_EXP_DEVCTL_BCR_FLR);
	cr_expect_eq(dev.flrs, 1, "the host does the device's");
	cr_expect_eq(cfg(PCI_COMMAND, 2), 0);
	cr_expect_eq(cfg(CAP_MSIX + 2, 2), VECTORS - 1);
	cr_expect_eq(dev.room[MSIX], 0);
	cr_expect_eq(slots_shown(), 0);
	cr_expect_eq(pci_config_get(dev.config, PCI_COMMAND, 2), PCI_COMMAND_MEMORY);
}

/* Linux's vfio-pci does nothing then, and a touch of what sleeps would end us. */
Test(vfio_made, a_reset_that_the_function_has_not)
{
	put(CAP_EXP + PCI_EXP_DEVCAP, 4, 0);
	cr_assert_eq(create(NULL), 0);
	cr_assert_eq(pci_root_assign(root, NULL), 0);
	msix_enable();
	cfg_write(CAP_EXP + PCI_EXP_DEVCTL, 2, PCI_EXP_DEVCTL_BCR_FLR);
	cr_expect_eq(cfg(PCI_COMMAND, 2), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	cr_expect_eq(slots_shown(), 2);
	cfg_write(CAP_PM + PCI_PM_CTRL, 2, 3);
	cfg_write(CAP_EXP + PCI_EXP_DEVCTL, 2, PCI_EXP_DEVCTL_BCR_FLR);
	cfg_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	cr_expect_eq(slots_shown(), 0);
}

Test(vfio_pci, a_sleeper_that_no_reset_wakes)
{
	cfg_write(CAP_PM + PCI_PM_CTRL, 2, 3);
	dev.stays_asleep = true;
	dev.refuse[FAKE_RESET] = EPERM;
	cfg_write(CAP_EXP + PCI_EXP_DEVCTL, 2, PCI_EXP_DEVCTL_BCR_FLR);
	cfg_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	cr_expect_eq(slots_shown(), 0);
	machine_reset();
	cfg_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	cr_expect_eq(slots_shown(), 0);
	dev.stays_asleep = false;
	machine_reset();
	cr_expect_eq(pci_config_get(dev.config, CAP_PM + PCI_PM_CTRL, 2), 0);
	cfg_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	cr_expect_eq(slots_shown(), 2);
}

Test(vfio_pci, a_reset_wakes_a_sleeper_that_did_not_obey)
{
	cfg_write(CAP_PM + PCI_PM_CTRL, 2, 3);
	dev.stays_asleep = true;
	machine_reset();
	cfg_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	cr_expect_eq(slots_shown(), 2, "the host's reset did it");
}

Test(vfio_pci, a_sleeper_that_cannot_tell)
{
	cfg_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	dev.refuse[FAKE_READ] = EIO;
	cfg_write(CAP_PM + PCI_PM_CTRL, 2, 3);
	cr_expect_eq(slots_shown(), 0);
	dev.refuse[FAKE_READ] = 0;
	cfg_write(CAP_PM + PCI_PM_CTRL, 2, 0);
	cr_expect_eq(slots_shown(), 2);
}

Test(vfio_pci, a_machine_reset)
{
	msix_enable();
	entry_use(0);
	cfg_write(CAP_MSI + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE);
	cfg_write(CAP_PM + PCI_PM_CTRL, 2, 3);
	vfio_pci_quiet(vfio);
	cr_expect_eq(pci_config_get(dev.config, PCI_COMMAND, 2), PCI_COMMAND_MEMORY,
		     "no DMA before any function is reset");
	cr_expect_eq(dev.resets, 0);
	vfio_pci_reset(vfio);
	cr_expect_eq(dev.room[INTX], 0, "quiet, until all are reset");
	vfio_pci_restart(vfio);
	cr_expect_eq(dev.resets, 1);
	cr_expect_eq(pci_config_get(dev.config, PCI_COMMAND, 2), PCI_COMMAND_MEMORY);
	cr_expect(dev.room[MSI] == 0 && dev.room[MSIX] == 0);
	cr_expect_eq(bar0(), MEM64);
	cfg_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	cr_expect_eq(slots_shown(), 2);
}

/* A device that the host can't reset is at least quiet, and works on. */
Test(vfio_pci, a_reset_that_the_host_refuses)
{
	dev.refuse[FAKE_RESET] = EPERM;
	msix_enable();
	entry_use(0);
	machine_reset();
	cr_expect_eq(dev.resets, 1);
	cr_expect(dev.room[MSIX] == 0 && dev.room[INTX] == 1);
	cr_expect_eq(pci_config_get(dev.config, PCI_COMMAND, 2), PCI_COMMAND_MEMORY);
	msix_enable();
	entry_use(0);
	cr_expect(behind(MSIX, 0));
}

/* On the loop's thread, after what it was told before. */
static void nothing(void *opaque)
{
}

/* With iommufd KVM has the device's own file, which would keep the device. */
Test(vfio_pci, the_host_takes_the_device_back)
{
	dev.host.keeper_is_own = true;
	dev.host.keeper_fd = 77;
	msix_enable();
	entry_use(0);
	cr_assert_eq(dev.room[REQ], 1);
	eventfd_write(dev.irq[REQ][0], 1);
	for (unsigned i = 0; i < 1000 && !dev.released; i++)
		loop_call(loop, nothing, NULL);
	cr_assert(dev.released);
	cr_expect_eq(mem.dropped, 77);
	cr_expect_eq(cfg(PCI_VENDOR_ID, 4), UINT32_MAX);
	cfg_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	cr_expect_eq(slots_shown(), 0);
	machine_reset();
	cr_expect_eq(dev.resets, 0);
}

Test(vfio_pci, an_error_is_only_told)
{
	cr_assert_eq(dev.room[ERR], 1);
	eventfd_write(dev.irq[ERR][0], 1);
	loop_call(loop, nothing, NULL);
	cr_expect_eq(cfg(PCI_VENDOR_ID, 4), 0x56781234);
	cr_expect_not(dev.released);
}

/* The expansion ROM, which can be read and not written. */
Test(vfio_made, a_rom_is_read_through)
{
	uint64_t value;

	dev.region[VFIO_PCI_ROM_REGION_INDEX].size = sizeof(rom);
	rom[5] = 0x5a;
	cr_assert_eq(create(NULL), 0);
	cr_assert_eq(pci_root_assign(root, NULL), 0);
	uint32_t at = cfg(PCI_ROM_ADDRESS, 4);

	cfg_write(PCI_ROM_ADDRESS, 4, at | PCI_ROM_ADDRESS_ENABLE);
	cfg_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	cr_assert(bus_read(&mmio, at + 5, 1, &value));
	cr_expect_eq(value, 0x5a);
	bus_write(&mmio, at + 5, 1, 0x11);
	cr_expect_eq(rom[5], 0x5a);
}

Test(vfio_made, a_rom_of_an_odd_size_is_not_shown)
{
	dev.region[VFIO_PCI_ROM_REGION_INDEX].size = KIB(3);
	cr_assert_eq(create(NULL), 0);
	cr_assert_eq(pci_root_assign(root, NULL), 0);
	cr_expect_eq(cfg(PCI_ROM_ADDRESS, 4), 0);
}

/* Function 1 of a slot has INTB. */
Test(vfio_made, a_second_function_has_the_next_pin)
{
	struct pci_dev first;

	pci_dev_init(&first, 1, 2, 0, 0, 0, 0);
	cr_assert_eq(pci_root_add(root, &first, SLOT, NULL), 0);
	cr_assert_eq(vfio_pci_create(&vfio, "dev", &dev.host, root, SLOT, 1, &mem.slots, &wire.line,
				     loop, NULL),
		     0);
	cr_expect_eq(cfg((1 << 12) + PCI_INTERRUPT_PIN, 1), 2);
	cr_expect_eq(cfg(PCI_HEADER_TYPE, 1), 0x80);
	vfio_pci_destroy(vfio);
	vfio = NULL;
	pci_root_remove(root, &first);
}

/* What a broken device says of itself must not hurt. */

Test(vfio_made, a_capability_list_in_a_loop)
{
	put(CAP_EXP + 1, 1, CAP_PM);
	put(0x300, 4, PCI_EXT_CAP_ID_DSN | 1 << 16 | 0x200u << 20);
	cr_assert_eq(create(NULL), 0);
}

/* The first counts, as on the host: its table isn't shown as memory. */
Test(vfio_made, two_msix_capabilities)
{
	put(CAP_EXP + 1, 1, 0xc0);
	put(0xc0, 4, PCI_CAP_ID_MSIX | 3 << 16);
	put(0xc4, 4, 0);
	put(0xc8, 4, 0x40);
	cr_assert_eq(create(NULL), 0);
	cr_assert_eq(pci_root_assign(root, NULL), 0);
	cr_expect_eq(cfg(CAP_EXP + 1, 1), 0, "the second isn't shown");
	cr_expect_eq(cfg(0xc0, 4), 0);
	cfg_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	cr_assert_eq(slots_shown(), 2);
	cr_expect(mem.slot[0].host == bar && mem.slot[0].size == TABLE);
}

/* One that another lies on isn't whole; what is emulated of it would be of both. */
Test(vfio_made, a_capability_on_top_of_another)
{
	put(CAP_MSIX + 1, 1, CAP_MSI + 4);
	put(CAP_MSI + 4, 2, PCI_CAP_ID_VNDR | CAP_EXP << 8);
	cr_assert_eq(create(NULL), 0);
	cr_expect_eq(cfg(CAP_PM + 1, 1), CAP_MSIX);
	cr_expect_eq(cfg(CAP_MSI, 4), 0);
	cr_expect_eq(cfg(CAP_MSIX + 1, 1), CAP_MSI + 4);
	cfg_write(CAP_MSI + 4, 4, UINT32_MAX);
	cr_expect_eq(cfg(CAP_MSI + 4, 2), PCI_CAP_ID_VNDR | CAP_EXP << 8);
}

Test(vfio_made, a_capability_at_the_end)
{
	put(CAP_PM + 1, 1, 0xfc);
	put(0xfc, 4, PCI_CAP_ID_EXP | 2 << 16);
	cr_assert_eq(create(NULL), 0);
	cr_expect_eq(cfg(0xfc, 1), 0);
}

Test(vfio_made, msix_outside_its_bar)
{
	struct err err;

	put(CAP_MSIX + 4, 4, 0x100000);
	cr_assert_lt(create(&err), 0);
	cr_assert(strstr(err.text, "0000:01:00.0: its MSI-X table"), "%s", err.text);
}

Test(vfio_made, a_bridge_is_refused)
{
	struct err err;

	put(PCI_HEADER_TYPE, 1, PCI_HEADER_TYPE_BRIDGE);
	cr_assert_eq(create(&err), -EINVAL);
	cr_assert(strstr(err.text, "0000:01:00.0 is a bridge"), "%s", err.text);
}

Test(vfio_made, conventional_configuration_space)
{
	dev.region[VFIO_PCI_CONFIG_REGION_INDEX].size = PCI_CFG_SPACE_SIZE;
	cr_assert_eq(create(NULL), 0);
	cr_expect_eq(cfg(0x100, 4), 0);
}
