/*
 * A hostile guest on the root bus: any access to ECAM, to ports 0xcf8 and 0xcfc,
 * to MSI-X tables and to wherever the BARs are, with interrupts fired and
 * functions reset in between.
 *
 * Beyond what the sanitizers see, after each step: functions keep their
 * identity, windows don't overlap, each BAR is on the bus where it says and only
 * while decoding is on, and no interrupt is lost: with one thread, every fire on
 * an enabled function is a delivery or a pending bit.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include "devices/pci/pci.h"
#include "tests/check.h"
#include "tests/fuzz/input.h"
#include "vmm/base/log.h"
#include "vmm/base/types.h"

#define NUM_DEVS    3
#define NUM_VECTORS 64
#define MAX_STEPS   256
#define ECAM	    UINT64_C(0xe0000000)

struct msi_vector {
	bool used, masked;
	unsigned delivered;
};

struct fuzz {
	struct msi_sink sink;
	struct msi_vector vector[NUM_VECTORS];
	unsigned in_use;
	bool refuse; /* the host refuses messages */
	struct bus mmio, pio;
	struct pci_root *root;
	struct pci_dev dev[NUM_DEVS];
	struct fuzz_input in;
};

static int fuzz_alloc(struct msi_sink *sink, uint32_t rid, struct msi_vector **ret_vector)
{
	struct fuzz *f = container_of(sink, struct fuzz, sink);

	for (unsigned i = 0; i < NUM_VECTORS; i++) {
		if (!f->vector[i].used) {
			f->vector[i] = (struct msi_vector){ .used = true, .masked = true };
			f->in_use++;
			*ret_vector = &f->vector[i];
			return 0;
		}
	}
	return -ENOSPC;
}

static void fuzz_free(struct msi_sink *sink, struct msi_vector *v)
{
	struct fuzz *f = container_of(sink, struct fuzz, sink);

	CHECK(v && v->used);
	v->used = false;
	f->in_use--;
}

static int fuzz_update(struct msi_sink *sink, struct msi_vector *v,
		       const struct msi_message *message, bool masked)
{
	struct fuzz *f = container_of(sink, struct fuzz, sink);

	CHECK(v->used);
	v->masked = masked || f->refuse;
	return f->refuse && !masked ? -EINVAL : 0;
}

static void fuzz_fire(struct msi_sink *sink, struct msi_vector *v)
{
	CHECK(v->used && !v->masked);
	v->delivered++;
}

static const struct msi_sink_ops sink_ops = {
	.alloc = fuzz_alloc,
	.free = fuzz_free,
	.update = fuzz_update,
	.fire = fuzz_fire,
};

static uint64_t reg_read(void *opaque, uint64_t offset, unsigned size)
{
	CHECK(offset + size <= ((struct pci_dev *)opaque)->bar[0].size);
	return offset;
}

static void reg_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	CHECK(offset + size <= ((struct pci_dev *)opaque)->bar[0].size);
}

static const struct bus_ops reg_ops = { .read = reg_read, .write = reg_write };

/* A hook that, like VIRTIO_PCI_CAP_PCI_CFG, takes the root's lock. */
static void hook(struct pci_dev *dev, unsigned offset, unsigned size)
{
	pci_root_lock(dev->root);
	CHECK(offset + size <= PCI_CONFIG_SIZE);
	pci_root_unlock(dev->root);
}

static void written_hook(struct pci_dev *dev, unsigned offset, unsigned size, uint32_t value)
{
	hook(dev, offset, size);
}

static void moved(void *opaque, unsigned bar, uint64_t base, bool mapped)
{
	CHECK(bar == 0 && ((struct pci_dev *)opaque)->bar[0].mapped_at == base);
}

static uint64_t take(struct fuzz *f, unsigned bytes)
{
	return fuzz_take(&f->in, bytes);
}

static void build(struct fuzz *f)
{
	struct pci_root_config config = {
		.mmio = &f->mmio,
		.pio = &f->pio,
		.msi = &f->sink,
		.ecam_base = ECAM,
		.mem32_base = 0xc0000000,
		.mem32_size = MIB(1),
		.mem64_base = GIB(64),
		.mem64_size = MIB(1),
	};

	f->sink.ops = &sink_ops;
	bus_init(&f->mmio, false);
	bus_init(&f->pio, true);
	CHECK(pci_root_create(&f->root, &config, NULL) == 0);
	for (unsigned i = 0; i < NUM_DEVS; i++) {
		struct pci_dev *d = &f->dev[i];

		pci_dev_init(d, 0x1af4, (uint16_t)(0x1040 + i), 1, 0xff0000, 0, 0);
		pci_dev_set_bar(d, 0, KIB(16) << i, i == 1 ? PCI_BAR_MEM32 : PCI_BAR_MEM64,
				&reg_ops, d);
		d->bar[0].moved = moved;
		pci_dev_set_msix(d, 2 + i, 1 + i * 4);
		d->config_reading = hook;
		d->config_written = written_hook;
		CHECK(pci_root_add(f->root, d, i + 1, NULL) == 0);
	}
	CHECK(pci_root_assign(f->root, NULL) == 0);
}

static void check_bar(struct fuzz *f, const struct pci_dev *d, const struct pci_bar *bar)
{
	unsigned found = 0;

	for (size_t i = 0; i < f->mmio.count; i++) {
		const struct bus_window *w = &f->mmio.windows[i];

		if (w->ops == bar->ops && w->opaque == bar->opaque) {
			CHECK(w->base == bar->mapped_at && w->size == bar->size);
			found++;
		}
	}
	CHECK(found == (bar->mapped_at != 0));
	CHECK(!found || (d->config[PCI_COMMAND] & PCI_COMMAND_MEMORY));
}

static void check(struct fuzz *f)
{
	for (size_t i = 1; i < f->mmio.count; i++) {
		const struct bus_window *below = &f->mmio.windows[i - 1];

		CHECK(f->mmio.windows[i].base - below->base >= below->size);
	}
	for (unsigned i = 0; i < NUM_DEVS; i++) {
		struct pci_dev *d = &f->dev[i];
		uint64_t id;

		CHECK(bus_read(&f->mmio, ECAM + ((i + 1) << 15), 4, &id));
		CHECK(id == (0x10401af4 | i << 16));
		for (unsigned b = 0; b < PCI_NUM_BARS; b++) {
			if (d->bar[b].size)
				check_bar(f, d, &d->bar[b]);
		}
	}
}

static void fire(struct fuzz *f, struct pci_dev *d, unsigned index)
{
	if (index >= d->msix.count || !pci_msix_enabled(d)) {
		pci_msix_fire(d, index);
		return;
	}
	struct pci_msix_entry *e = &d->msix.entry[index];
	unsigned before = e->vector->delivered;

	pci_msix_fire(d, index);
	CHECK((e->vector->delivered == before + 1) != e->pending);
}

static void step(struct fuzz *f)
{
	uint8_t op = (uint8_t)take(f, 1), how = (uint8_t)take(f, 1);
	struct pci_dev *d = &f->dev[how >> 4 & 3 ? (how >> 4 & 3) - 1 : 0];

	switch (op % 8) {
	case 0: /* Any register of any function. */
		fuzz_access(&f->in, &f->mmio, ECAM + take(f, 3) % MIB(1), how);
		break;
	case 1: /* The first registers of a function that is there. */
		fuzz_access(&f->in, &f->mmio, ECAM + ((uint64_t)d->rid << 12) + take(f, 1), how);
		break;
	case 2:
		fuzz_access(&f->in, &f->pio, 0xcf8 + take(f, 1) % 8, how);
		break;
	case 3: /* The address that a sane guest would write, then data. */
		bus_write(&f->pio, 0xcf8, 4, 0x80000000 | (uint64_t)d->rid << 8 | take(f, 1));
		fuzz_access(&f->in, &f->pio, 0xcfc + (how >> 6), how);
		break;
	case 4: { /* Wherever a BAR is, or where it is not. */
		const struct pci_bar *bar = &d->bar[op >> 3 & 1 ? d->msix.bar : 0];

		fuzz_access(&f->in, &f->mmio, bar->mapped_at + take(f, 2) % (bar->size + 8), how);
		break;
	}
	case 5: /* The table and the pending bits. */
		fuzz_access(&f->in, &f->mmio,
			    d->bar[d->msix.bar].mapped_at + (op & 8 ? 0x800 : 0) + take(f, 1), how);
		break;
	case 6:
		fire(f, d, op >> 3);
		break;
	default:
		if (op & 8)
			f->refuse = !f->refuse;
		else
			pci_dev_reset(d);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz *f = calloc(1, sizeof(*f));

	CHECK(f);
	log_set_level(LOG_ERROR);
	f->in = (struct fuzz_input){ data, size };
	build(f);
	for (unsigned i = 0; i < MAX_STEPS && f->in.left; i++) {
		step(f);
		check(f);
	}
	for (unsigned i = 0; i < NUM_DEVS; i++)
		pci_root_remove(f->root, &f->dev[i]);
	pci_root_destroy(f->root);
	CHECK(f->in_use == 0 && f->mmio.count == 0 && f->pio.count == 0);
	bus_finish(&f->mmio);
	bus_finish(&f->pio);
	free(f);
	return 0;
}
