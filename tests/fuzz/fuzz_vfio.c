/*
 * A passed-through PCI function between a hostile guest, a broken device and an unlucky host. The
 * first bytes build the device: BARs with what of them can be mapped, a ROM, capability lists with
 * whatever a list can have wrong, interrupts. Then the guest does as it likes to configuration
 * space, BARs and the MSI-X table, while the host rings interrupts, refuses calls, wants the
 * device back, and the machine is reset.
 *
 * Beyond what the sanitizers see. At first the guest sees no capability that it shouldn't. Always:
 * what is hidden reads as zero, and what isn't the device's is never written to it; the host is
 * asked for nothing outside of a region, nor for the MSI-X table (tests/fake_vfio.c); registers are
 * in the guest's reach only where a BAR is, while the function decodes and is awake; the host rings
 * only vectors that are there. In the end nothing is mapped, switched on or open.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "devices/vfio/pci_internal.h"
#include "tests/check.h"
#include "tests/fake_vfio.h"
#include "tests/fuzz/vfio_device.h"
#include "vmm/base/log.h"

#define ECAM	  UINT64_C(0xe0000000)
#define MEM32	  UINT64_C(0xc0000000)
#define MEM64	  UINT64_C(0x4000000000)
#define SLOT	  3
#define MAX_STEPS 192

static struct {
	struct fake_slots mem;
	struct fake_sink sink;
	struct fake_wire wire;
	struct bus mmio;
	struct pci_root *root;
	struct vfio_pci *vfio;
	bool refused;	/* the host refused something, at some time */
	bool both_were; /* MSI and MSI-X were on at once, which no host does */
} f;

static struct fuzz_device d;

static uint64_t take(unsigned bytes)
{
	return fuzz_take(&d.in, bytes);
}

/* A loop without a thread: what would be told to one is done at once. */
struct loop {
	struct {
		loop_fd_fn fn;
		void *opaque;
	} watch[1024];
};

static struct loop loop;

int loop_add_fd(struct loop *l, int fd, uint32_t events, loop_fd_fn fn, void *opaque)
{
	CHECK(fd >= 0 && (size_t)fd < ARRAY_SIZE(l->watch) && !l->watch[fd].fn);
	l->watch[fd].fn = fn;
	l->watch[fd].opaque = opaque;
	return 0;
}

void loop_remove_fd(struct loop *l, int fd)
{
	l->watch[fd].fn = NULL;
}

void loop_call(struct loop *l, loop_call_fn fn, void *opaque)
{
	fn(opaque);
}

/* The guest's accesses --------------------------------------------------- */

static uint32_t cfg(unsigned reg, unsigned size)
{
	uint64_t value;

	bus_read(&f.mmio, ECAM + (SLOT << 15) + reg, size, &value);
	return (uint32_t)value;
}

static void cfg_write(unsigned reg, unsigned size, uint64_t value)
{
	bus_write(&f.mmio, ECAM + (SLOT << 15) + reg, size, value);
}

static unsigned bar_reg(unsigned index)
{
	return index == PCI_ROM_BAR ? PCI_ROM_ADDRESS : PCI_BASE_ADDRESS_0 + 4 * index;
}

/* Where the guest has put a BAR. */
static uint64_t bar_at(unsigned index)
{
	uint64_t low = cfg(bar_reg(index), 4);

	if (index == PCI_ROM_BAR)
		return low & PCI_ROM_ADDRESS_MASK;
	if (low & PCI_BASE_ADDRESS_MEM_TYPE_64)
		low |= (uint64_t)cfg(bar_reg(index) + 4, 4) << 32;
	return low & PCI_BASE_ADDRESS_MEM_MASK;
}

/* The guest walks the lists: they end, and nothing is in them that it shouldn't see. */
static void check_lists(void)
{
	unsigned count = 0;

	for (unsigned at = cfg(PCI_CAPABILITY_LIST, 1); at; at = cfg(at + PCI_CAP_LIST_NEXT, 1)) {
		unsigned id = cfg(at, 1);

		CHECK(at >= PCI_STD_HEADER_SIZEOF && at % 4 == 0 && count++ < FUZZ_MAX_CAPS);
		CHECK(!id || fuzz_may_show(id));
	}
	count = 0;
	for (unsigned at = PCI_CFG_SPACE_SIZE; at; at = cfg(at, 4) >> 20) {
		unsigned id = cfg(at, 2);

		CHECK(at >= PCI_CFG_SPACE_SIZE && at % 4 == 0 && count++ < PCI_CONFIG_SIZE / 4);
		CHECK(!id || fuzz_may_show_ext(id));
	}
}

static void check_hidden(void)
{
	for (unsigned at = 0; at < PCI_CONFIG_SIZE && !d.dev.released; at += 4) {
		uint32_t value = 0;

		if (d.zero[at] || d.zero[at + 1] || d.zero[at + 2] || d.zero[at + 3])
			value = cfg(at, 4);
		for (unsigned i = 0; i < 4; i++)
			CHECK(!d.zero[at + i] || !(value >> 8 * i & 0xff));
	}
}

/* After each step ---------------------------------------------------------- */

/* Where BAR @index is on the bus; NULL: nowhere. */
static const struct bus_window *window_of(unsigned index)
{
	uint64_t at = bar_at(index);

	for (size_t i = 0; i < f.mmio.count; i++) {
		const struct bus_window *w = &f.mmio.windows[i];

		if (w->base != ECAM && ((struct vfio_bar *)w->opaque)->index == index) {
			CHECK(w->base == at && w->size == d.dev.region[index].size);
			return w;
		}
	}
	return NULL;
}

static bool is_shown(const struct fake_map *map, uint64_t gpa)
{
	for (unsigned i = 0; i < ARRAY_SIZE(f.mem.slot); i++) {
		if (f.mem.slot[i].size == map->size && f.mem.slot[i].host == map->host &&
		    f.mem.slot[i].gpa == gpa)
			return true;
	}
	return false;
}

static void check_registers(void)
{
	bool on = !d.dev.released && cfg(PCI_COMMAND, 2) & PCI_COMMAND_MEMORY &&
		  !fake_vfio_sleeps(&d.dev);
	unsigned windows = 0, shown = 0;

	if (!on) {
		CHECK(f.mmio.count == 1 && fake_slots_shown(&f.mem) == 0);
		return;
	}
	CHECK(f.refused || d.dev.config[PCI_COMMAND] & PCI_COMMAND_MEMORY);
	for (unsigned i = 0; i < PCI_NUM_WINDOWS; i++)
		windows += d.dev.region[i].size && window_of(i);
	CHECK(f.mmio.count == 1 + windows);
	for (unsigned i = 0; i < ARRAY_SIZE(d.dev.map); i++) {
		const struct fake_map *map = &d.dev.map[i];

		if (!map->host || !window_of(map->index))
			continue;
		bool seen = is_shown(map, bar_at(map->index) + map->offset);

		shown += seen;
		CHECK(seen || f.refused);
	}
	CHECK(shown == fake_slots_shown(&f.mem));
}

static void check_irqs(void)
{
	for (unsigned kind = MSI; kind <= MSIX; kind++) {
		for (unsigned i = 0; i < d.dev.room[kind]; i++) {
			int fd = d.dev.irq[kind][i];

			CHECK(fd < 0 || fake_sink_find(&f.sink, fd));
		}
	}
	CHECK(!d.dev.room[INTX] || d.dev.irq[INTX][0] == f.wire.trigger);
	CHECK((f.wire.trigger >= 0) == (d.dev.room[INTX] != 0));
	if (!d.dev.released)
		return;
	CHECK(!d.dev.room[INTX] && !d.dev.room[MSI] && !d.dev.room[MSIX]);
	CHECK(fake_vfio_mapped(&d.dev) == 0);
	CHECK((f.mem.dropped == FUZZ_KEEPER) == d.dev.host.keeper_is_own);
}

/* An entry that the guest uses is one that the host rings. */
static void check_entry(unsigned index)
{
	uint32_t control = cfg(d.msix + PCI_MSIX_FLAGS, 2);
	uint64_t entry = d.dev.guarded[0].first + index * PCI_MSIX_ENTRY_SIZE;
	uint64_t low, high, bits, mask;

	if (!d.disjoint || f.refused || f.both_were || d.dev.released ||
	    (control & (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL)) != PCI_MSIX_FLAGS_ENABLE)
		return;
	entry += bar_at(d.dev.guarded[0].bar);
	if (!bus_read(&f.mmio, entry, 4, &low) || !bus_read(&f.mmio, entry + 4, 4, &high) ||
	    !bus_read(&f.mmio, entry + 8, 4, &bits) || !bus_read(&f.mmio, entry + 12, 4, &mask) ||
	    mask & 1 || !window_of(d.dev.guarded[0].bar))
		return;
	struct msi_vector *v = fake_sink_find(&f.sink, d.dev.irq[MSIX][index]);

	CHECK(v && !v->masked);
	CHECK(v->message.address == (high << 32 | low) && v->message.data == bits);
}

static void check_msi(void)
{
	uint32_t control = cfg(d.msi + PCI_MSI_FLAGS, 2);
	unsigned wanted = MIN(1u << ((control & PCI_MSI_FLAGS_QSIZE) >> 4), d.dev.count[MSI]);

	if (!d.disjoint || f.refused || f.both_were || d.dev.released)
		return;
	CHECK(d.dev.room[MSI] == (control & PCI_MSI_FLAGS_ENABLE ? wanted : 0));
}

static void check(uint8_t which)
{
	check_registers();
	check_irqs();
	if (d.msix && d.msi)
		f.both_were |= cfg(d.msix + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_ENABLE &&
			       cfg(d.msi + PCI_MSI_FLAGS, 2) & PCI_MSI_FLAGS_ENABLE;
	if (d.msix)
		check_entry(which % d.dev.count[MSIX]);
	if (d.msi)
		check_msi();
}

/* What happens ------------------------------------------------------------- */

static void move_bar(uint8_t how)
{
	unsigned index = how % PCI_NUM_WINDOWS;
	uint64_t to = MEM32 + take(1) * KIB(64);

	if (how & 0x40)
		to = how & 0x80 ? ECAM : take(4);
	cfg_write(bar_reg(index), 4, how & 0x20 ? UINT32_MAX : to | (index == PCI_ROM_BAR));
	if (how & 0x10 && index < PCI_NUM_BARS - 1)
		cfg_write(bar_reg(index + 1), 4, how & 0x20 ? 0x40 : 0);
}

static void write_table(uint8_t how)
{
	uint64_t table = bar_at(d.dev.guarded[how >> 7].bar % PCI_NUM_WINDOWS) +
			 d.dev.guarded[how >> 7].first;

	if (!d.msix)
		return;
	if (how & 0x20) /* Anything, also across its ends. */
		fuzz_access(&d.in, &f.mmio,
			    table - 16 + take(2) % (32 + 16 * (uint64_t)d.dev.count[MSIX]), how);
	else if (how & 0x10) /* Have an entry unmasked. */
		bus_write(&f.mmio, table + 16 * (take(1) % d.dev.count[MSIX]) + 12, 4, 0);
	else
		bus_write(&f.mmio, table + 16 * (take(1) % d.dev.count[MSIX]) + (how & 0xc), 4,
			  take(1));
}

/* A register of a capability that the device has. */
static void write_cap(uint8_t how)
{
	unsigned size = 1u << (how & 3);

	if (!d.num_caps || size > 4)
		return;
	const struct fuzz_cap *c = &d.cap[(how >> 2) % d.num_caps];
	unsigned reg = (unsigned)take(1) % 0x40;

	cfg_write((c->at + reg) & ~(size - 1), size, take(size));
}

static void write_power(uint8_t how)
{
	if (d.dev.pm_cap)
		cfg_write(d.dev.pm_cap + PCI_PM_CTRL, 1 + (how >> 7), how & 3);
}

static void function_reset(uint8_t how)
{
	if (how & 1 && d.dev.exp_cap)
		cfg_write(d.dev.exp_cap + PCI_EXP_DEVCTL, 2, PCI_EXP_DEVCTL_BCR_FLR);
	else if (d.dev.af_cap)
		cfg_write(d.dev.af_cap + PCI_AF_CTRL, 1, PCI_AF_CTRL_FLR);
}

static void enable_irqs(uint8_t how)
{
	if (how & 1 && d.msix)
		cfg_write(d.msix + PCI_MSIX_FLAGS, 2, (how & 6u) << 13);
	else if (d.msi)
		cfg_write(d.msi + PCI_MSI_FLAGS, 2, (how >> 1 & 1) | (how & 0x70));
}

/* The host rings what it was given. */
static void ring(uint8_t how)
{
	unsigned kind = how % FAKE_KINDS;
	unsigned index = kind == MSI || kind == MSIX ? (unsigned)take(1) : 0;
	int fd = d.dev.irq[kind][index];

	if (fd < 0)
		return;
	eventfd_write(fd, 1);
	if (kind == ERR || kind == REQ) {
		CHECK(loop.watch[fd].fn);
		loop.watch[fd].fn(loop.watch[fd].opaque, 1);
	}
}

/* The machine's, or the device's own state changes. */
static void surprise(uint8_t how)
{
	unsigned at = (unsigned)take(2) % PCI_CONFIG_SIZE;

	if (how & 1) {
		vfio_pci_quiet(f.vfio);
		vfio_pci_reset(f.vfio);
		vfio_pci_restart(f.vfio);
		if (!d.dev.released)
			check_lists();
	} else if (d.zero[at]) {
		d.dev.config[at] ^= (uint8_t)(how | 2);
		check_hidden();
	}
}

/* What is refused from now on, bit by bit. */
static void refuse(uint64_t bits)
{
	f.refused |= bits != 0;
	for (unsigned i = 0; i < FAKE_NUM_CALLS; i++)
		d.dev.refuse[i] = bits >> i & 1 ? EIO : 0;
	f.mem.refuse = bits & 0x80 ? ENOSPC : 0;
	f.sink.refuse = bits & 0x100 ? EINVAL : 0;
	f.wire.refuse = bits & 0x200 ? EINVAL : 0;
	f.sink.full = bits & 0x400;
	d.dev.max_irqs = bits & 0x800 ? 2 : 0;
}

static void step(uint8_t op, uint8_t how)
{
	switch (op % 12) {
	case 0:
		fuzz_access(&d.in, &f.mmio, ECAM + (SLOT << 15) + take(2) % PCI_CONFIG_SIZE, how);
		break;
	case 1:
		write_cap(how);
		break;
	case 2:
		cfg_write(PCI_COMMAND, 1 + (how >> 7), how);
		break;
	case 3:
		move_bar(how);
		break;
	case 4: { /* Wherever a BAR is, or where it is not. */
		unsigned index = (how >> 3) % PCI_NUM_WINDOWS;

		fuzz_access(&d.in, &f.mmio,
			    bar_at(index) + take(3) % (d.dev.region[index].size + 8), how);
		break;
	}
	case 5:
		write_table(how);
		break;
	case 6:
		enable_irqs(how);
		break;
	case 7:
		write_power(how);
		break;
	case 8:
		function_reset(how);
		break;
	case 9:
		ring(how);
		break;
	case 10:
		refuse(how & 0x40 ? take(2) : 0);
		break;
	default:
		surprise(how);
	}
}

static void run(void)
{
	check_lists();
	check_hidden();
	for (unsigned i = 0; i < MAX_STEPS && d.in.left; i++) {
		uint8_t op = (uint8_t)take(1), how = (uint8_t)take(1);

		step(op, how);
		check(how);
	}
}

/* What an eventfd would get as its number now. */
static int next_fd(void)
{
	int fd = dup(STDERR_FILENO);

	CHECK(fd >= 0);
	close(fd);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct pci_root_config config = {
		.mmio = &f.mmio,
		.msi = &f.sink.sink,
		.ecam_base = ECAM,
		.mem32_base = MEM32,
		.mem32_size = MIB(16),
		.mem64_base = MEM64,
		.mem64_size = GIB(64),
	};
	int fd = next_fd();

	log_set_level(LOG_ERROR);
	memset(&f, 0, sizeof(f));
	memset(&d, 0, sizeof(d));
	d.in = (struct fuzz_input){ bytes, size };
	fake_slots_init(&f.mem);
	fake_sink_init(&f.sink);
	fake_wire_init(&f.wire);
	if (fuzz_device_build(&d, &f.mem))
		refuse(take(2));
	bus_init(&f.mmio, false);
	CHECK(pci_root_create(&f.root, &config, NULL) == 0);
	if (vfio_pci_create(&f.vfio, "dev", &d.dev.host, f.root, SLOT, 0, &f.mem.slots,
			    &f.wire.line, &loop, NULL) == 0 &&
	    pci_root_assign(f.root, NULL) == 0)
		run();
	vfio_pci_destroy(f.vfio);
	CHECK(fake_slots_shown(&f.mem) == 0 && fake_vfio_mapped(&d.dev) == 0);
	CHECK(fake_sink_used(&f.sink) == 0 && f.wire.trigger == -1);
	for (unsigned i = 0; i < FAKE_KINDS; i++)
		CHECK(!d.dev.room[i]);
	pci_root_destroy(f.root);
	CHECK(f.mmio.count == 0);
	bus_finish(&f.mmio);
	CHECK(next_fd() == fd);
	return 0;
}
