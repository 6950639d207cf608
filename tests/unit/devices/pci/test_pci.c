/* The root bus as a guest sees it: by port, by ECAM, and with ill will. */
#include "devices/pci/pci.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>
#include "vmm/base/types.h"

#define ECAM  0xe0000000u
#define MEM32 0xc0000000u
#define MEM64 0x4000000000u
#define MAX_V 64

/* A sink that delivers as vmm/kvm does: what is fired while masked is lost. */
struct msi_vector {
	bool used;
	_Atomic bool masked;
	_Atomic unsigned delivered;
	unsigned lost, updates;
	struct msi_message message;
};

struct fake_sink {
	struct msi_sink sink;
	unsigned limit, in_use;
	int update_result;
	void (*before_fire)(void), (*after_fire)(void); /* called once */
	struct msi_vector vector[MAX_V];
};

static int fake_alloc(struct msi_sink *sink, uint32_t rid, struct msi_vector **ret_vector)
{
	struct fake_sink *s = container_of(sink, struct fake_sink, sink);

	for (unsigned i = 0; i < s->limit; i++) {
		if (!s->vector[i].used) {
			s->vector[i].used = true;
			s->vector[i].masked = true;
			s->in_use++;
			*ret_vector = &s->vector[i];
			return 0;
		}
	}
	return -ENOSPC;
}

static void fake_free(struct msi_sink *sink, struct msi_vector *v)
{
	struct fake_sink *s = container_of(sink, struct fake_sink, sink);

	if (!v)
		return;
	cr_assert(v->used, "freed twice");
	v->used = false;
	s->in_use--;
}

static int fake_update(struct msi_sink *sink, struct msi_vector *v,
		       const struct msi_message *message, bool masked)
{
	struct fake_sink *s = container_of(sink, struct fake_sink, sink);

	v->updates++;
	if (s->update_result < 0) {
		v->masked = true;
		return s->update_result;
	}
	v->message = *message;
	v->masked = masked;
	return 0;
}

static void fake_fire(struct msi_sink *sink, struct msi_vector *v)
{
	struct fake_sink *s = container_of(sink, struct fake_sink, sink);
	void (*before)(void) = s->before_fire, (*after)(void) = s->after_fire;

	s->before_fire = s->after_fire = NULL;
	if (before)
		before();
	if (v->masked)
		v->lost++;
	else
		v->delivered++;
	if (after)
		after();
}

static const struct msi_sink_ops fake_ops = {
	.alloc = fake_alloc,
	.free = fake_free,
	.update = fake_update,
	.fire = fake_fire,
};

static uint64_t bar_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0x600d0000u | offset;
}

static void bar_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
}

static const struct bus_ops bar_ops = { .read = bar_read, .write = bar_write };

/* One machine per test; Criterion gives each its own process. */
static struct bus mmio, pio;
static struct fake_sink sink;
static struct pci_root *root;
static struct pci_dev dev, other;

static void setup(void)
{
	struct pci_root_config config = {
		.mmio = &mmio,
		.pio = &pio,
		.msi = &sink.sink,
		.ecam_base = ECAM,
		.mem32_base = MEM32,
		.mem32_size = MIB(256),
		.mem64_base = MEM64,
		.mem64_size = GIB(64),
	};
	struct err err = { "" };

	bus_init(&mmio, false);
	bus_init(&pio, true);
	sink.sink.ops = &fake_ops;
	sink.limit = MAX_V;
	cr_assert_eq(pci_root_create(&root, &config, &err), 0, "%s", err.text);
}

static void teardown(void)
{
	pci_root_remove(root, &dev);
	pci_root_remove(root, &other);
	pci_root_destroy(root);
	cr_expect_eq(sink.in_use, 0);
	cr_expect_eq(mmio.count + pio.count, 0, "nothing stays on the buses");
	bus_finish(&mmio);
	bus_finish(&pio);
}

TestSuite(pci, .init = setup, .fini = teardown, .timeout = 60);

static uint64_t ecam_read(unsigned slot, unsigned reg, unsigned size)
{
	uint64_t value;

	bus_read(&mmio, ECAM + (slot << 15) + reg, size, &value);
	return value;
}

static void ecam_write(unsigned slot, unsigned reg, unsigned size, uint64_t value)
{
	bus_write(&mmio, ECAM + (slot << 15) + reg, size, value);
}

static uint64_t in(uint64_t port, unsigned size)
{
	uint64_t value;

	bus_read(&pio, port, size, &value);
	return value;
}

static void out(uint64_t port, unsigned size, uint64_t value)
{
	bus_write(&pio, port, size, value);
}

/* BAR 0: 16 KiB of 64 bits; BAR 2: MSI-X with 4 vectors; at slot 3. */
static void add_dev(void)
{
	struct err err = { "" };

	pci_dev_init(&dev, 0x1af4, 0x1042, 1, 0x010000, 0x1af4, 0x1100);
	pci_dev_set_bar(&dev, 0, KIB(16), PCI_BAR_MEM64, &bar_ops, &dev);
	pci_dev_set_msix(&dev, 2, 4);
	cr_assert_eq(pci_root_add(root, &dev, 3, &err), 0, "%s", err.text);
	cr_assert_eq(pci_root_assign(root, &err), 0, "%s", err.text);
}

static void decode_on(void)
{
	ecam_write(3, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

Test(pci, the_host_bridge_is_there_and_nothing_else)
{
	cr_expect_eq(ecam_read(0, PCI_VENDOR_ID, 4), 0x00081b36);
	cr_expect_eq(ecam_read(0, PCI_CLASS_REVISION, 4) >> 8, 0x060000);
	cr_expect_eq(ecam_read(0, PCI_HEADER_TYPE, 1), 0);
	for (unsigned devfn = 1; devfn < 256; devfn++) {
		uint64_t value;

		bus_read(&mmio, ECAM + (devfn << 12), 4, &value);
		cr_expect_eq(value, 0xffffffff, "devfn %u", devfn);
		bus_write(&mmio, ECAM + (devfn << 12) + 4, 4, 0xffffffff);
	}
	cr_expect_eq(ecam_read(0, 0x100, 4), 0, "no extended capabilities");
	cr_expect_eq(ecam_read(0, 0xffc, 4), 0);
}

Test(pci, both_mechanisms_show_the_same_bytes)
{
	add_dev();
	for (unsigned reg = 0; reg < 256; reg += 4) {
		out(0xcf8, 4, 0x80000000u | 3 << 11 | reg);
		for (unsigned size = 1; size <= 4; size *= 2) {
			for (unsigned at = 0; at < 4; at += size)
				cr_expect_eq(in(0xcfc + at, size), ecam_read(3, reg + at, size));
		}
	}
}

Test(pci, the_address_port_is_a_register_for_double_words_only)
{
	out(0xcf8, 4, 0x80000000u);
	out(0xcf8, 1, 0xff);
	out(0xcf8, 2, 0xffff);
	out(0xcf9, 1, 0x06);
	out(0xcfa, 2, 0x1234);
	cr_expect_eq(in(0xcf8, 4), 0x80000000u);
	cr_expect_eq(in(0xcf8, 1), 0xff);
	cr_expect_eq(in(0xcf8, 2), 0xffff);
	/* Across the end of one register and the start of the other. */
	cr_expect_eq(in(0xcfa, 4), 0xffffffff);
	cr_expect_eq(in(0xcfc, 4), 0x00081b36);
	cr_expect_eq(in(0xcfd, 2), 0x081b, "bytes inside the double word");
	cr_expect_eq(in(0xcfe, 4), 0xffffffff, "beyond the double word");
	/* Without the enable bit, on another bus, another function. */
	out(0xcf8, 4, 0);
	cr_expect_eq(in(0xcfc, 4), 0xffffffff);
	out(0xcf8, 4, 0x80010000u);
	cr_expect_eq(in(0xcfc, 4), 0xffffffff);
	out(0xcf8, 4, 0x80000100u);
	cr_expect_eq(in(0xcfc, 4), 0xffffffff);
	out(0xcf8, 4, 0xffffffffu);
	cr_expect_eq(in(0xcf8, 4), 0x80fffffcu, "reserved bits read as zero");
}

Test(pci, accesses_that_cross_a_double_word_do_nothing)
{
	add_dev();
	cr_expect_eq(ecam_read(3, 3, 2), 0xffff);
	cr_expect_eq(ecam_read(3, 2, 4), 0xffffffff);
	cr_expect_eq(ecam_read(3, 0, 8), UINT64_MAX);
	ecam_write(3, 0x3b, 2, 0x5555);
	ecam_write(3, 0x38, 8, UINT64_MAX);
	cr_expect_eq(ecam_read(3, PCI_INTERRUPT_LINE, 1), 0);
}

Test(pci, only_writable_bits_change)
{
	add_dev();
	uint64_t status = ecam_read(3, PCI_STATUS, 2);

	cr_expect(status & PCI_STATUS_CAP_LIST);
	cr_expect_eq(ecam_read(3, PCI_COMMAND, 2), 0, "decoding is the guest's to switch on");
	for (unsigned reg = 0; reg < 4096; reg += 4) {
		if (reg != PCI_BASE_ADDRESS_0 && reg != PCI_BASE_ADDRESS_1 &&
		    reg != PCI_BASE_ADDRESS_2 && reg != dev.msix.cap)
			ecam_write(3, reg, 4, 0xffffffff);
	}
	cr_expect_eq(ecam_read(3, PCI_VENDOR_ID, 4), 0x10421af4);
	cr_expect_eq(ecam_read(3, PCI_STATUS, 2), status);
	cr_expect_eq(ecam_read(3, PCI_COMMAND, 2),
		     PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
	cr_expect_eq(ecam_read(3, PCI_INTERRUPT_LINE, 1), 0xff);
	cr_expect_eq(ecam_read(3, PCI_INTERRUPT_PIN, 1), 0);
	cr_expect_eq(ecam_read(3, PCI_BASE_ADDRESS_3, 4), 0, "no BAR, no bits");
	cr_expect_eq(ecam_read(3, PCI_ROM_ADDRESS, 4), 0);
	cr_expect_eq(ecam_read(3, 0x800, 4), 0);
	ecam_write(3, PCI_COMMAND, 1, 0);
	cr_expect_eq(ecam_read(3, PCI_COMMAND, 2), PCI_COMMAND_INTX_DISABLE, "one byte only");
}

Test(pci, bars_are_sized_as_the_specification_says)
{
	add_dev();
	uint64_t low = ecam_read(3, PCI_BASE_ADDRESS_0, 4);
	uint64_t high = ecam_read(3, PCI_BASE_ADDRESS_1, 4);

	ecam_write(3, PCI_BASE_ADDRESS_0, 4, 0xffffffff);
	ecam_write(3, PCI_BASE_ADDRESS_1, 4, 0xffffffff);
	cr_expect_eq(ecam_read(3, PCI_BASE_ADDRESS_0, 4), 0xffffc004);
	cr_expect_eq(ecam_read(3, PCI_BASE_ADDRESS_1, 4), 0xffffffff);
	ecam_write(3, PCI_BASE_ADDRESS_0, 4, low);
	ecam_write(3, PCI_BASE_ADDRESS_1, 4, high);
	cr_expect_eq(ecam_read(3, PCI_BASE_ADDRESS_0, 4), low);
	ecam_write(3, PCI_BASE_ADDRESS_2, 4, 0xffffffff);
	cr_expect_eq(ecam_read(3, PCI_BASE_ADDRESS_2, 4), 0xfffff000);
}

/* The value at the BAR, or all ones when it isn't there. */
static bool bar_at(uint64_t base)
{
	uint64_t value;

	return bus_read(&mmio, base + 8, 4, &value) && value == 0x600d0008;
}

Test(pci, a_bar_is_decoded_where_and_when_the_guest_wants)
{
	add_dev();
	cr_expect_not(bar_at(MEM64), "not before the guest enables it");
	decode_on();
	cr_expect(bar_at(MEM64));
	ecam_write(3, PCI_BASE_ADDRESS_1, 4, 0x41);
	cr_expect_not(bar_at(MEM64));
	cr_expect(bar_at(MEM64 + GIB(4)));
	/* Its lower half too; the bits below its size don't count. */
	ecam_write(3, PCI_BASE_ADDRESS_0, 4, 0x00107ff0);
	cr_expect(bar_at(MEM64 + GIB(4) + 0x104000));
	ecam_write(3, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
	cr_expect_not(bar_at(MEM64 + GIB(4) + 0x104000));
}

Test(pci, a_bar_on_top_of_something_else_waits_until_that_is_gone)
{
	struct err err;

	add_dev();
	pci_dev_init(&other, 1, 2, 0, 0xff0000, 0, 0);
	pci_dev_set_bar(&other, 0, KIB(64), PCI_BAR_MEM32, &bar_ops, &other);
	cr_assert_eq(pci_root_add(root, &other, 5, &err), 0);
	decode_on();
	ecam_write(5, PCI_BASE_ADDRESS_0, 4, 0xd0000000);
	ecam_write(5, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	cr_expect(bar_at(0xd0000000));

	/* Over ECAM: configuration space must stay reachable. */
	ecam_write(3, PCI_BASE_ADDRESS_1, 4, 0);
	ecam_write(3, PCI_BASE_ADDRESS_0, 4, ECAM);
	cr_expect_eq(ecam_read(3, PCI_VENDOR_ID, 2), 0x1af4);
	/* Over another function: who was there first stays. */
	ecam_write(3, PCI_BASE_ADDRESS_0, 4, 0xd0008000);
	cr_expect_eq(dev.bar[0].mapped_at, 0);
	ecam_write(5, PCI_BASE_ADDRESS_0, 4, 0xd0100000);
	cr_expect_eq(dev.bar[0].mapped_at, 0xd0008000);
	cr_expect(bar_at(0xd0008000));
	/* At zero, and at the very top. */
	ecam_write(3, PCI_BASE_ADDRESS_0, 4, 0);
	cr_expect_eq(dev.bar[0].mapped_at, 0);
	ecam_write(3, PCI_BASE_ADDRESS_0, 4, 0xffffffff);
	ecam_write(3, PCI_BASE_ADDRESS_1, 4, 0xffffffff);
	cr_expect(bar_at(UINT64_MAX - KIB(16) + 1));
}

static struct {
	unsigned bar;
	uint64_t base;
	bool mapped;
} moves[8];
static unsigned num_moves;

static void on_moved(void *opaque, unsigned bar, uint64_t base, bool mapped)
{
	cr_assert_eq(opaque, &dev);
	moves[num_moves].bar = bar;
	moves[num_moves].base = base;
	moves[num_moves++].mapped = mapped;
}

Test(pci, the_device_learns_of_each_move)
{
	add_dev();
	dev.bar[0].moved = on_moved;
	decode_on();
	decode_on();
	ecam_write(3, PCI_BASE_ADDRESS_0, 4, 0x00100000);
	pci_root_remove(root, &dev);
	cr_assert_eq(num_moves, 4);
	cr_expect(moves[0].base == MEM64 && moves[0].mapped);
	cr_expect(moves[1].base == MEM64 && !moves[1].mapped);
	cr_expect(moves[2].base == MEM64 + 0x100000 && moves[2].mapped);
	cr_expect(moves[3].base == MEM64 + 0x100000 && !moves[3].mapped);
}

Test(pci, addresses_are_aligned_disjoint_and_in_their_windows)
{
	static struct pci_dev devs[20];
	struct {
		uint64_t base, size;
	} range[60];
	unsigned n = 0;
	struct err err;

	for (unsigned i = 0; i < 20; i++) {
		pci_dev_init(&devs[i], 1, 2, 0, 0xff0000, 0, 0);
		pci_dev_set_bar(&devs[i], 0, KIB(4) << i % 10, PCI_BAR_MEM64, &bar_ops, &devs[i]);
		pci_dev_set_bar(&devs[i], 2, 16u << i % 14, PCI_BAR_MEM32, &bar_ops, &devs[i]);
		cr_assert_eq(pci_root_add(root, &devs[i], i + 1, &err), 0);
	}
	cr_assert_eq(pci_root_assign(root, &err), 0);
	for (unsigned i = 0; i < 20; i++) {
		uint64_t wide = ecam_read(i + 1, PCI_BASE_ADDRESS_0, 4) & ~0xfu;
		uint64_t low = ecam_read(i + 1, PCI_BASE_ADDRESS_2, 4) & ~0xfu;

		wide |= ecam_read(i + 1, PCI_BASE_ADDRESS_1, 4) << 32;
		cr_expect(wide >= MEM64 && wide + devs[i].bar[0].size <= MEM64 + GIB(64));
		cr_expect(low >= MEM32 && low + devs[i].bar[2].size <= MEM32 + MIB(256));
		cr_expect_eq(wide % devs[i].bar[0].size, 0);
		cr_expect_eq(low % KIB(4), 0, "no two BARs share a page");
		range[n].base = wide;
		range[n++].size = devs[i].bar[0].size;
		range[n].base = low;
		range[n++].size = MAX(devs[i].bar[2].size, KIB(4));
	}
	for (unsigned i = 0; i < n; i++) {
		for (unsigned j = 0; j < i; j++)
			cr_expect(range[i].base + range[i].size <= range[j].base ||
				  range[j].base + range[j].size <= range[i].base);
	}
	for (unsigned i = 0; i < 20; i++)
		pci_root_remove(root, &devs[i]);
}

Test(pci, a_bar_that_fits_nowhere_is_reported_by_name)
{
	struct err err = { "" };

	pci_dev_init(&other, 1, 2, 0, 0xff0000, 0, 0);
	pci_dev_set_bar(&other, 1, GIB(1), PCI_BAR_MEM32, &bar_ops, &other);
	cr_assert_eq(pci_root_add(root, &other, 0x1f, &err), 0);
	cr_expect_eq(pci_root_assign(root, &err), -ENOSPC);
	cr_expect_not_null(strstr(err.text, "00:1f.0"), "%s", err.text);
}

Test(pci, slots_are_taken_once_and_end)
{
	static struct pci_dev devs[PCI_NUM_SLOTS];
	struct err err = { "" };

	for (unsigned i = 1; i < PCI_NUM_SLOTS; i++) {
		pci_dev_init(&devs[i], 1, 2, 0, 0xff0000, 0, 0);
		cr_assert_eq(pci_root_add(root, &devs[i], i, &err), 0);
	}
	pci_dev_init(&other, 1, 2, 0, 0xff0000, 0, 0);
	cr_expect_eq(pci_root_add(root, &other, 7, &err), -EBUSY);
	cr_expect_eq(pci_root_add(root, &other, 0, &err), -EBUSY);
	cr_expect_eq(pci_root_add(root, &other, 32, &err), -EBUSY);
	pci_root_remove(root, &other);
	for (unsigned i = 1; i < PCI_NUM_SLOTS; i++)
		pci_root_remove(root, &devs[i]);
	cr_expect_eq(ecam_read(7, 0, 4), 0xffffffff);
}

/* Register @reg of function 1 of slot 3. */
static uint64_t fn1_read(unsigned reg, unsigned size)
{
	return ecam_read(3, reg + (1 << 12), size);
}

Test(pci, a_slot_has_functions)
{
	struct err err = { "" };

	add_dev();
	cr_expect_eq(ecam_read(3, PCI_HEADER_TYPE, 1), 0);
	pci_dev_init(&other, 0x1234, 0x5678, 0, 0, 0, 0);
	pci_dev_set_bar(&other, 0, KIB(4), 0, &bar_ops, &other);
	cr_assert_eq(pci_root_add_function(root, &other, 3, 0, &err), -EBUSY);
	cr_assert_eq(pci_root_add_function(root, &other, 3, 8, &err), -EBUSY);
	cr_assert_eq(pci_root_add_function(root, &other, 3, 1, &err), 0, "%s", err.text);
	cr_assert_eq(pci_root_assign(root, &err), 0);
	cr_expect_eq(other.rid, 3 << 3 | 1);
	cr_expect_eq(fn1_read(0, 4), 0x56781234);
	cr_expect_eq(ecam_read(3, (2 << 12), 4), UINT32_MAX, "there is no third");
	cr_expect_eq(ecam_read(3, PCI_HEADER_TYPE, 1), 0x80, "who looks at 0 learns of 1");
	pci_dev_reset(&dev);
	cr_expect_eq(ecam_read(3, PCI_HEADER_TYPE, 1), 0x80);
	/* Each decodes by its own command register. */
	ecam_write(3, PCI_COMMAND + (1 << 12), 2, PCI_COMMAND_MEMORY);
	cr_expect(other.bar[0].mapped_at && !dev.bar[0].mapped_at);
	cr_expect_eq(other.bar[0].mapped_at, fn1_read(PCI_BASE_ADDRESS_0, 4));
	pci_root_remove(root, &other);
	cr_expect_eq(fn1_read(0, 4), UINT32_MAX);
}

Test(pci, a_rom_is_decoded_when_both_bits_say_so)
{
	struct err err = { "" };
	uint64_t value;

	pci_dev_init(&dev, 0x1af4, 0x1042, 1, 0x010000, 0x1af4, 0x1100);
	pci_dev_set_bar(&dev, PCI_ROM_BAR, KIB(64), 0, &bar_ops, &dev);
	cr_assert_eq(pci_root_add(root, &dev, 3, &err), 0);
	cr_assert_eq(pci_root_assign(root, &err), 0);
	uint64_t at = ecam_read(3, PCI_ROM_ADDRESS, 4);

	cr_expect(at && !(at & (KIB(64) - 1)), "it has an address and is off");
	ecam_write(3, PCI_ROM_ADDRESS, 4, 0xfffff800);
	cr_expect_eq(ecam_read(3, PCI_ROM_ADDRESS, 4), 0xffff0000, "its size");
	ecam_write(3, PCI_ROM_ADDRESS, 4, at | PCI_ROM_ADDRESS_ENABLE);
	cr_expect_eq(dev.bar[PCI_ROM_BAR].mapped_at, 0);
	decode_on();
	cr_expect_eq(dev.bar[PCI_ROM_BAR].mapped_at, at);
	bus_read(&mmio, at + 0x20, 4, &value);
	cr_expect_eq(value, 0x600d0020);
	ecam_write(3, PCI_ROM_ADDRESS, 4, at);
	cr_expect_eq(dev.bar[PCI_ROM_BAR].mapped_at, 0);
}

Test(pci, capabilities_form_a_chain)
{
	static const uint8_t body[] = { 0xaa, 0xbb, 0xcc };
	struct err err;

	pci_dev_init(&other, 1, 2, 0, 0xff0000, 0, 0);
	unsigned first = pci_dev_add_cap(&other, 9, body, 5);
	unsigned second = pci_dev_add_cap(&other, 9, body, 4);

	cr_assert_eq(pci_root_add(root, &other, 1, &err), 0);
	cr_expect_eq(first, 0x40);
	cr_expect_eq(second, 0x48, "aligned to a double word");
	cr_expect_eq(ecam_read(1, PCI_CAPABILITY_LIST, 1), 0x40);
	cr_expect_eq(ecam_read(1, 0x40, 4), 0xbbaa4809);
	cr_expect_eq(ecam_read(1, 0x44, 4), 0x000000cc);
	cr_expect_eq(ecam_read(1, 0x48, 4), 0xbbaa0009);
}

static unsigned num_reading, num_written;

static void on_reading(struct pci_dev *d, unsigned offset, unsigned size)
{
	/* Without the root's lock: taking it must not hang. */
	pci_root_lock(d->root);
	d->config[0x80] = (uint8_t)++num_reading;
	pci_root_unlock(d->root);
}

static void on_written(struct pci_dev *d, unsigned offset, unsigned size, uint32_t value)
{
	pci_root_lock(d->root);
	num_written += offset == 0x3c && size == 1 && d->config[0x3c] == 0x42;
	pci_root_unlock(d->root);
}

Test(pci, hooks_come_before_reads_and_after_writes)
{
	add_dev();
	dev.config_reading = on_reading;
	dev.config_written = on_written;
	cr_expect_eq(ecam_read(3, 0x80, 1), 1);
	cr_expect_eq(ecam_read(3, 0x80, 1), 2);
	ecam_write(3, 0x3c, 1, 0x42);
	cr_expect_eq(num_written, 1);
}

/* MSI-X. */

#define TABLE MEM32

static void table_write(unsigned entry, unsigned reg, uint32_t value)
{
	bus_write(&mmio, TABLE + entry * 16 + reg, 4, value);
}

static uint64_t table_read(uint64_t offset, unsigned size)
{
	uint64_t value;

	bus_read(&mmio, TABLE + offset, size, &value);
	return value;
}

static void control_write(uint16_t value)
{
	ecam_write(3, dev.msix.cap + PCI_MSIX_FLAGS, 2, value);
}

/* Entry 0 unmasked with a message, MSI-X on, as Linux leaves it. */
static void msix_on(void)
{
	add_dev();
	decode_on();
	control_write(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	table_write(0, 0, 0xfee01000);
	table_write(0, 4, 0);
	table_write(0, 8, 0x4021);
	table_write(0, 12, 0);
	control_write(PCI_MSIX_FLAGS_ENABLE);
}

Test(pci, msix_looks_as_specified)
{
	add_dev();
	decode_on();
	cr_expect_eq(ecam_read(3, dev.msix.cap, 1), PCI_CAP_ID_MSIX);
	cr_expect_eq(ecam_read(3, dev.msix.cap + 2, 2), 3, "the table's size less one, disabled");
	cr_expect_eq(ecam_read(3, dev.msix.cap + 4, 4), 2);
	cr_expect_eq(ecam_read(3, dev.msix.cap + 8, 4), 0x802);
	for (unsigned i = 0; i < 4; i++)
		cr_expect_eq(table_read(i * 16 + 12, 4), 1, "masked after power-on");
	control_write(0xffff);
	cr_expect_eq(ecam_read(3, dev.msix.cap + 2, 2), 0xc003);
	cr_expect_eq(ecam_read(3, dev.msix.cap + 8, 4), 0x802);
}

Test(pci, an_unmasked_vector_is_delivered_with_its_message)
{
	msix_on();
	pci_msix_fire(&dev, 0);
	cr_expect_eq(sink.vector[0].delivered, 1);
	cr_expect_eq(sink.vector[0].message.address, 0xfee01000);
	cr_expect_eq(sink.vector[0].message.data, 0x4021);
	pci_msix_fire(&dev, 4);
	pci_msix_fire(&dev, UINT32_MAX);
	cr_expect(pci_msix_enabled(&dev));
}

Test(pci, the_sink_is_told_only_of_changes)
{
	msix_on();
	cr_expect_eq(sink.vector[0].updates, 1, "the masked writes before cost nothing");
	table_write(0, 0, 0xfee01000);
	table_write(0, 12, 0);
	control_write(PCI_MSIX_FLAGS_ENABLE);
	cr_expect_eq(sink.vector[0].updates, 1);
	/* How Linux moves an interrupt to another CPU. */
	table_write(0, 12, 1);
	table_write(0, 0, 0xfee02000);
	table_write(0, 8, 0x4022);
	table_write(0, 12, 0);
	cr_expect_eq(sink.vector[0].updates, 3);
	cr_expect_eq(sink.vector[0].message.address, 0xfee02000);
	/* Moving one that isn't masked is allowed, if unwise. */
	table_write(0, 0, 0xfee03000);
	cr_expect_eq(sink.vector[0].message.address, 0xfee03000);
	cr_expect_eq(sink.vector[1].updates, 0);
}

Test(pci, what_fires_while_masked_is_pending_and_comes_later)
{
	msix_on();
	table_write(0, 12, 1);
	pci_msix_fire(&dev, 0);
	pci_msix_fire(&dev, 0);
	pci_msix_fire(&dev, 2);
	cr_expect_eq(sink.vector[0].delivered, 0);
	cr_expect_eq(table_read(0x800, 4), 5);
	cr_expect_eq(table_read(0x800, 8), 5);
	bus_write(&mmio, TABLE + 0x800, 8, 0);
	cr_expect_eq(table_read(0x800, 4), 5, "pending bits are read-only");
	table_write(0, 12, 0);
	cr_expect_eq(sink.vector[0].delivered, 1, "two are merged into one");
	cr_expect_eq(table_read(0x800, 4), 4);
	cr_expect_eq(sink.vector[0].lost, 0);
}

Test(pci, the_function_mask_covers_all_vectors)
{
	msix_on();
	control_write(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	pci_msix_fire(&dev, 0);
	cr_expect_eq(sink.vector[0].delivered, 0);
	cr_expect_eq(table_read(0x800, 4), 1);
	control_write(PCI_MSIX_FLAGS_ENABLE);
	cr_expect_eq(sink.vector[0].delivered, 1);
}

Test(pci, nothing_fires_or_stays_pending_while_msix_is_off)
{
	msix_on();
	table_write(0, 12, 1);
	pci_msix_fire(&dev, 0);
	control_write(0);
	cr_expect_not(pci_msix_enabled(&dev));
	cr_expect_eq(table_read(0x800, 4), 0);
	pci_msix_fire(&dev, 0);
	table_write(0, 12, 0);
	control_write(PCI_MSIX_FLAGS_ENABLE);
	cr_expect_eq(sink.vector[0].delivered, 0);
	pci_msix_fire(&dev, 0);
	cr_expect_eq(sink.vector[0].delivered, 1);
}

Test(pci, the_table_takes_double_and_quad_words)
{
	add_dev();
	decode_on();
	bus_write(&mmio, TABLE + 16, 8, 0x12345678fee0abcf);
	cr_expect_eq(table_read(16, 8), 0x12345678fee0abcc, "the address is one of a double word");
	cr_expect_eq(table_read(20, 4), 0x12345678);
	bus_write(&mmio, TABLE + 24, 8, 0x00000000000055aa);
	cr_expect_eq(table_read(24, 4), 0x55aa);
	cr_expect_eq(table_read(28, 4), 0);
	bus_write(&mmio, TABLE + 28, 4, 0xffffffff);
	cr_expect_eq(table_read(28, 4), 1, "reserved bits read as zero");
	/* Other widths and alignments change nothing. */
	bus_write(&mmio, TABLE + 24, 1, 0xff);
	bus_write(&mmio, TABLE + 24, 2, 0xffff);
	bus_write(&mmio, TABLE + 22, 4, 0xffffffff);
	bus_write(&mmio, TABLE + 20, 8, UINT64_MAX);
	cr_expect_eq(table_read(24, 4), 0x55aa);
	cr_expect_eq(table_read(20, 4), 0x12345678);
	cr_expect_eq(table_read(24, 1), 0);
	/* Past the last entry there is nothing. */
	bus_write(&mmio, TABLE + 64, 4, 0xffffffff);
	cr_expect_eq(table_read(64, 4), 0);
	cr_expect_eq(table_read(0xff8, 8), 0);
}

Test(pci, a_message_that_the_host_refuses_leaves_the_vector_pending)
{
	add_dev();
	decode_on();
	control_write(PCI_MSIX_FLAGS_ENABLE);
	sink.update_result = -EINVAL;
	table_write(0, 0, 0xdead0000);
	table_write(0, 12, 0);
	pci_msix_fire(&dev, 0);
	cr_expect_eq(table_read(0x800, 4), 1);
	sink.update_result = 0;
	table_write(0, 0, 0xfee00000);
	cr_expect_eq(sink.vector[0].delivered, 1);
}

Test(pci, without_vectors_a_function_is_refused_and_keeps_none)
{
	struct err err = { "" };

	sink.limit = 3;
	pci_dev_init(&other, 1, 2, 0, 0xff0000, 0, 0);
	pci_dev_set_msix(&other, 0, 4);
	cr_expect_eq(pci_root_add(root, &other, 1, &err), -ENOSPC);
	cr_expect_neq(err.text[0], '\0');
	cr_expect_eq(sink.in_use, 0);
	sink.limit = 4;
	cr_expect_eq(pci_root_add(root, &other, 1, &err), 0);
	cr_expect_eq(sink.in_use, 4);
}

Test(pci, a_reset_is_as_power_on)
{
	uint8_t before[256], after[256];

	add_dev();
	for (unsigned i = 0; i < 256; i++)
		before[i] = (uint8_t)ecam_read(3, i, 1);
	decode_on();
	ecam_write(3, PCI_BASE_ADDRESS_0, 4, 0x00100000);
	control_write(PCI_MSIX_FLAGS_ENABLE);
	ecam_write(3, PCI_INTERRUPT_LINE, 1, 11);
	table_write(0, 0, 0xfee01000);
	table_write(0, 12, 0);
	pci_msix_fire(&dev, 1);
	pci_dev_reset(&dev);
	for (unsigned i = 0; i < 256; i++)
		after[i] = (uint8_t)ecam_read(3, i, 1);
	cr_expect_arr_eq(before, after, 256);
	cr_expect_eq(mmio.count, 1, "only ECAM is left");
	cr_expect(sink.vector[0].masked);
	pci_msix_fire(&dev, 0);
	decode_on();
	cr_expect(bar_at(MEM64));
	cr_expect_eq(table_read(0, 8), 0);
	cr_expect_eq(table_read(12, 4), 1);
	cr_expect_eq(table_read(0x800, 8), 0);
	cr_expect_eq(sink.vector[0].delivered, 0);
}

/*
 * The guest's other vCPU masks the vector in the middle of a fire: between
 * pci_msix_fire's look at the mask and the sink's. fake_fire calls these.
 */
static void mask_entry(void)
{
	table_write(0, 12, 1);
}

static void unmask_entry(void)
{
	table_write(0, 12, 0);
}

Test(pci, a_mask_in_the_middle_of_a_fire_leaves_it_pending)
{
	msix_on();
	sink.before_fire = mask_entry;
	pci_msix_fire(&dev, 0);
	cr_expect_eq(sink.vector[0].lost, 1, "the sink lost it");
	cr_expect_eq(table_read(0x800, 4), 1, "but the table didn't");
	unmask_entry();
	cr_expect_eq(sink.vector[0].delivered, 1);
	cr_expect_eq(table_read(0x800, 4), 0);
}

Test(pci, a_mask_and_unmask_in_the_middle_of_a_fire_is_noticed)
{
	msix_on();
	sink.before_fire = mask_entry;
	sink.after_fire = unmask_entry;
	pci_msix_fire(&dev, 0);
	cr_expect_eq(sink.vector[0].lost, 1);
	cr_expect_eq(sink.vector[0].delivered, 1, "fired again, though it looks open as before");
}

/*
 * The other half can't be scripted: a fire that finds the vector masked while
 * the guest unmasks it. Each round lets one thread fire and this one unmask at
 * the same moment; afterwards there must be a delivery and no pending bit.
 */
static _Atomic unsigned round_started, round_fired;

static void *firer(void *opaque)
{
	for (unsigned i = 1;; i++) {
		unsigned now;

		while ((now = round_started) < i)
			sched_yield();
		if (now == UINT32_MAX)
			return NULL;
		pci_msix_fire(&dev, 0);
		round_fired = i;
	}
}

Test(pci, no_interrupt_is_lost_to_an_unmask)
{
	struct msi_vector *v = &sink.vector[0];
	time_t end = time(NULL) + 3;
	unsigned lost = 0;
	pthread_t thread;

	msix_on();
	cr_assert_eq(pthread_create(&thread, NULL, firer, NULL), 0);
	for (unsigned i = 1; i <= 300000 && !lost && time(NULL) < end; i++) {
		unsigned before = v->delivered;

		mask_entry();
		round_started = i;
		/* Sweep the unmask over the time that the fire takes. */
		for (volatile unsigned spin = 0; spin < i % 128; spin++)
			;
		unmask_entry();
		while (round_fired < i)
			sched_yield();
		lost += v->delivered == before || table_read(0x800, 4) != 0;
	}
	round_started = UINT32_MAX;
	pthread_join(thread, NULL);
	cr_expect_eq(lost, 0);
}
