/* The PCI transport as a driver finds it: through configuration space and BARs. */
#include <criterion/criterion.h>
#include "devices/virtio/virtio_pci.h"
#include "testdev.h"

#define ECAM  0xe0000000ULL
#define MEM32 0xc0000000ULL
#define MEM64 0x800000000ULL
#define SLOT  3

#define S_ACK	 VIRTIO_STATUS_ACKNOWLEDGE
#define S_DRIVER VIRTIO_STATUS_DRIVER
#define S_FOK	 VIRTIO_STATUS_FEATURES_OK
#define S_DOK	 VIRTIO_STATUS_DRIVER_OK
#define S_ALL	 (S_ACK | S_DRIVER | S_FOK | S_DOK)

/* An MSI sink that counts what it delivers, by the data of the message. */
struct msi_vector {
	struct msi_message message;
	bool masked;
};

struct sink {
	struct msi_sink sink;
	_Atomic unsigned fired[16];
	int allocated;
};

static int sink_alloc(struct msi_sink *sink, uint32_t rid, struct msi_vector **ret_vector)
{
	cr_assert_eq(rid, SLOT << 3);
	container_of(sink, struct sink, sink)->allocated++;
	*ret_vector = calloc(1, sizeof(**ret_vector));
	return 0;
}

static void sink_free(struct msi_sink *sink, struct msi_vector *vector)
{
	if (vector)
		container_of(sink, struct sink, sink)->allocated--;
	free(vector);
}

static int sink_update(struct msi_sink *sink, struct msi_vector *vector,
		       const struct msi_message *message, bool masked)
{
	vector->message = *message;
	vector->masked = masked;
	return 0;
}

static void sink_fire(struct msi_sink *sink, struct msi_vector *vector)
{
	if (!vector->masked)
		container_of(sink, struct sink, sink)->fired[vector->message.data % 16]++;
}

static const struct msi_sink_ops sink_ops = {
	.alloc = sink_alloc,
	.free = sink_free,
	.update = sink_update,
	.fire = sink_fire,
};

struct rig {
	struct testdev *d;
	struct bus bus;
	struct bells bells;
	struct sink sink;
	struct pci_root *root;
	struct virtio_pci *vp;
	/* What the driver found. */
	uint64_t bar0, msix_bar;
	unsigned cap[6], express, msix; /* offsets in configuration space */
	uint64_t common, notify, isr, device;
	uint32_t multiplier;
};

static uint32_t cfg_read(struct rig *rig, unsigned offset, unsigned size)
{
	uint64_t value = 0;

	cr_assert(bus_read(&rig->bus, ECAM + (SLOT << 15) + offset, size, &value));
	return (uint32_t)value;
}

static void cfg_write(struct rig *rig, unsigned offset, unsigned size, uint32_t value)
{
	cr_assert(bus_write(&rig->bus, ECAM + (SLOT << 15) + offset, size, value));
}

static uint64_t rd(struct rig *rig, uint64_t addr, unsigned size)
{
	uint64_t value = 0;

	cr_assert(bus_read(&rig->bus, addr, size, &value));
	return value;
}

static void wr(struct rig *rig, uint64_t addr, unsigned size, uint64_t value)
{
	if (!bells_ring(&rig->bells, addr, size, value))
		cr_assert(bus_write(&rig->bus, addr, size, value));
}

/* Walk the capabilities as a driver does (4.1.4). */
static void find_caps(struct rig *rig)
{
	unsigned at = cfg_read(rig, 0x34, 1);

	rig->bar0 = (cfg_read(rig, 0x10, 4) & ~0xfU) | (uint64_t)cfg_read(rig, 0x14, 4) << 32;
	rig->msix_bar = cfg_read(rig, 0x18, 4) & ~0xfU;
	for (unsigned n = 0; at; at = cfg_read(rig, at + 1, 1), n++) {
		cr_assert_lt(n, 20, "the list has no end");
		cr_assert_eq(at % 4, 0);
		if (cfg_read(rig, at, 1) == 0x10)
			rig->express = at;
		if (cfg_read(rig, at, 1) == 0x11)
			rig->msix = at;
		if (cfg_read(rig, at, 1) != 0x09)
			continue;

		unsigned type = cfg_read(rig, at + 3, 1);

		cr_assert(type >= 1 && type <= 5 && !rig->cap[type]);
		rig->cap[type] = at;
		cr_assert_eq(cfg_read(rig, at + 4, 1), 0);
		cr_assert_eq(cfg_read(rig, at + 8, 4) % 4, 0);
		cr_assert_leq(cfg_read(rig, at + 8, 4) + cfg_read(rig, at + 12, 4), 0x4000);
	}
	rig->common = rig->bar0 + cfg_read(rig, rig->cap[1] + 8, 4);
	rig->notify = rig->bar0 + cfg_read(rig, rig->cap[2] + 8, 4);
	rig->multiplier = cfg_read(rig, rig->cap[2] + 16, 4);
	rig->isr = rig->bar0 + cfg_read(rig, rig->cap[3] + 8, 4);
	rig->device = rig->bar0 + cfg_read(rig, rig->cap[4] + 8, 4);
}

static void rig_start(struct rig *rig)
{
	struct err err = { "" };

	memset(rig, 0, sizeof(*rig));
	rig->d = testdev_new(true);
	rig->sink.sink.ops = &sink_ops;
	bus_init(&rig->bus, false);
	bus_set_doorbells(&rig->bus, &bells_ops, &rig->bells);

	const struct pci_root_config config = {
		.mmio = &rig->bus,
		.msi = &rig->sink.sink,
		.ecam_base = ECAM,
		.mem32_base = MEM32,
		.mem32_size = MIB(16),
		.mem64_base = MEM64,
		.mem64_size = MIB(16),
	};

	cr_assert_eq(pci_root_create(&rig->root, &config, &err), 0, "%s", err.text);
	cr_assert_eq(virtio_pci_create(&rig->vp, &rig->d->v, rig->root, SLOT, &err), 0, "%s",
		     err.text);
	cr_assert_eq(pci_root_assign(rig->root, &err), 0, "%s", err.text);
	cfg_write(rig, 0x04, 2, 6); /* memory, bus master */
	find_caps(rig);
}

static void rig_stop(struct rig *rig)
{
	rig->d->hold = false;
	virtio_host_reset(&rig->d->v);
	virtio_pci_destroy(rig->vp);
	cr_assert_eq(rig->bells.count, 0, "a doorbell outlived its device");
	cr_assert_eq(rig->sink.allocated, 0);
	pci_root_destroy(rig->root);
	testdev_free(rig->d);
	bus_finish(&rig->bus);
}

static void enable_msix(struct rig *rig)
{
	for (unsigned i = 0; i <= TEST_QUEUES; i++) {
		wr(rig, rig->msix_bar + 16 * i, 4, 0xfee00000);
		wr(rig, rig->msix_bar + 16 * i + 8, 4, 8 + i);
		wr(rig, rig->msix_bar + 16 * i + 12, 4, 0);
	}
	cfg_write(rig, rig->msix + 2, 2, 0x8000);
}

static struct ring bring_up(struct rig *rig)
{
	struct ring r = ring_make(&rig->d->w, 8, WORLD_BASE);
	uint64_t c = rig->common;

	wr(rig, c + 0x14, 1, 0);
	wr(rig, c + 0x14, 1, S_ACK | S_DRIVER);
	wr(rig, c + 0x08, 4, 1);
	wr(rig, c + 0x0c, 4, 3);
	wr(rig, c + 0x14, 1, S_ACK | S_DRIVER | S_FOK);
	cr_assert(rd(rig, c + 0x14, 1) & S_FOK);
	wr(rig, c + 0x10, 2, 0);
	wr(rig, c + 0x16, 2, 1);
	cr_assert_eq(rd(rig, c + 0x18, 2), 8);
	wr(rig, c + 0x1a, 2, 2);
	cr_assert_eq(rd(rig, c + 0x1a, 2), 2);
	/* All three ways to write 64 bits: one store, two halves, halves reversed. */
	wr(rig, c + 0x20, 8, r.desc);
	wr(rig, c + 0x28, 4, (uint32_t)r.avail);
	wr(rig, c + 0x2c, 4, r.avail >> 32);
	wr(rig, c + 0x34, 4, r.used >> 32);
	wr(rig, c + 0x30, 4, (uint32_t)r.used);
	cr_assert_eq(rd(rig, c + 0x28, 8), r.avail);
	cr_assert_eq(rd(rig, c + 0x34, 4), r.used >> 32);
	wr(rig, c + 0x1c, 2, 1);
	wr(rig, c + 0x14, 1, S_ALL);
	return r;
}

static void offer_one(struct ring *r)
{
	ring_desc(r, 0, WORLD_BASE + 20 * PAGE, 16, F_WRITE, 0);
	ring_offer(r, 0);
}

static uint64_t bell_of(struct rig *rig, unsigned queue)
{
	wr(rig, rig->common + 0x16, 2, queue);
	return rig->notify + rig->multiplier * rd(rig, rig->common + 0x1e, 2);
}

Test(virtio_pci, looks_like_a_modern_express_endpoint)
{
	struct rig rig;

	rig_start(&rig);
	cr_assert_eq(cfg_read(&rig, 0x00, 4), 0x10421af4);
	cr_assert_eq(cfg_read(&rig, 0x08, 4), 0x01800001);
	cr_assert_geq(cfg_read(&rig, 0x2e, 2), 0x40);
	cr_assert_eq(cfg_read(&rig, 0x3d, 1), 0, "no interrupt pin");
	for (unsigned type = 1; type <= 5; type++)
		cr_assert(rig.cap[type]);
	cr_assert_eq(cfg_read(&rig, rig.express + 2, 1), 0x92, "an RCiEP, version 2");
	cr_assert_eq(cfg_read(&rig, rig.msix + 2, 2), TEST_QUEUES, "a vector each and one more");
	cr_assert_eq(rd(&rig, rig.common + 0x12, 2), TEST_QUEUES);
	rig_stop(&rig);
}

Test(virtio_pci, serves_a_driver)
{
	struct rig rig;

	rig_start(&rig);
	enable_msix(&rig);

	struct ring r = bring_up(&rig);

	offer_one(&r);
	wr(&rig, bell_of(&rig, 1), 2, 1);
	cr_assert(reaches(&rig.sink.fired[8 + 2], 1));
	cr_assert_eq(ring_used_idx(&r), 1);
	virtio_config_changed(&rig.d->v);
	cr_assert_eq(rig.sink.fired[8], 1);
	cr_assert_eq(rd(&rig, rig.common + 0x15, 1), 1);
	cr_assert_eq(rd(&rig, rig.isr, 1), 0, "with MSI-X the ISR status isn't used");

	/* The handler rings too, when the host has no doorbell to give. */
	offer_one(&r);
	cr_assert(bus_write(&rig.bus, bell_of(&rig, 1), 2, 1));
	cr_assert(reaches(&rig.sink.fired[8 + 2], 2));

	/* The driver polls the status until the reset is done (4.1.4.3.2). */
	rig.d->hold = true;
	wr(&rig, rig.common + 0x14, 1, 0);
	cr_assert(reaches(&rig.d->quiesced, 1));
	cr_assert_eq(rd(&rig, rig.common + 0x14, 1), S_ALL);
	loop_call(rig.d->loop, release_quiesce, &rig.d->v);
	cr_assert_eq(rd(&rig, rig.common + 0x14, 1), 0);
	cr_assert_eq(rd(&rig, rig.common + 0x10, 2), 0xffff, "vectors are forgotten");
	rig_stop(&rig);
}

Test(virtio_pci, shows_the_isr_without_msix)
{
	struct rig rig;

	rig_start(&rig);

	struct ring r = bring_up(&rig);

	offer_one(&r);
	wr(&rig, bell_of(&rig, 1), 2, 1);
	cr_assert(reaches(&rig.d->served, 1));
	testdev_sync(rig.d);
	virtio_config_changed(&rig.d->v);
	cr_assert_eq(rd(&rig, rig.isr, 1), 3);
	cr_assert_eq(rd(&rig, rig.isr, 1), 0, "reading clears");
	rig_stop(&rig);
}

Test(virtio_pci, checks_vectors_and_selectors)
{
	struct rig rig;

	rig_start(&rig);

	uint64_t c = rig.common;

	wr(&rig, c + 0x10, 2, TEST_QUEUES);
	cr_assert_eq(rd(&rig, c + 0x10, 2), TEST_QUEUES);
	wr(&rig, c + 0x10, 2, TEST_QUEUES + 1);
	cr_assert_eq(rd(&rig, c + 0x10, 2), 0xffff);
	wr(&rig, c + 0x16, 2, 0xfffe);
	wr(&rig, c + 0x1a, 2, 0);
	cr_assert_eq(rd(&rig, c + 0x1a, 2), 0xffff);
	cr_assert_eq(rd(&rig, c + 0x18, 2), 0, "size 0 says that the queue isn't there");
	wr(&rig, c + 0x1c, 2, 1);
	cr_assert_eq(rd(&rig, c + 0x1c, 2), 0);
	wr(&rig, c + 0x00, 4, 7);
	cr_assert_eq(rd(&rig, c + 0x04, 4), 0);
	wr(&rig, c + 0x00, 4, 1);
	cr_assert_eq(rd(&rig, c + 0x04, 4), 3);
	/* Reads of any width are put together from the fields; partial writes are dropped. */
	wr(&rig, c + 0x16, 2, 2);
	cr_assert_eq(rd(&rig, c + 0x16, 4), 2U | VIRTQ_MAX_SIZE << 16);
	cr_assert_eq(rd(&rig, c + 0x12, 8),
		     TEST_QUEUES | 2ULL << 32 | (uint64_t)VIRTQ_MAX_SIZE << 48);
	wr(&rig, c + 0x17, 1, 0xff);
	wr(&rig, c + 0x20, 2, 0xffff);
	cr_assert_eq(rd(&rig, c + 0x16, 2), 2);
	cr_assert_eq(rd(&rig, c + 0x20, 8), 0);
	/* Past the structure there is nothing. */
	cr_assert_eq(rd(&rig, c + 0x38, 8), 0);
	cr_assert_eq(rd(&rig, rig.device + 8, 8), 0x1b1a1918);
	rig_stop(&rig);
}

Test(virtio_pci, moves_its_doorbells_with_the_bar)
{
	struct rig rig;

	rig_start(&rig);
	enable_msix(&rig);

	struct ring r = bring_up(&rig);
	uint64_t old = bell_of(&rig, 1);

	cr_assert_eq(rig.bells.count, TEST_QUEUES);
	cfg_write(&rig, 0x04, 2, 0);
	cr_assert_eq(rig.bells.count, 0, "no decoding, no doorbells");
	cr_assert(!bells_ring(&rig.bells, old, 2, 1));
	cfg_write(&rig, 0x10, 4, (uint32_t)(MEM64 + 0x100000));
	cfg_write(&rig, 0x04, 2, 6);
	find_caps((memset(rig.cap, 0, sizeof(rig.cap)), &rig));
	cr_assert_eq(rig.bar0, MEM64 + 0x100000);
	cr_assert_eq(rig.bells.count, TEST_QUEUES);
	cr_assert_neq(bell_of(&rig, 1), old);
	offer_one(&r);
	cr_assert(bells_ring(&rig.bells, bell_of(&rig, 1), 2, 1));
	cr_assert(reaches(&rig.sink.fired[8 + 2], 1));

	/* A machine reset puts it back where it was assigned. */
	virtio_host_reset(&rig.d->v);
	virtio_pci_reset(rig.vp);
	cr_assert_eq(rig.bells.count, 0);
	cfg_write(&rig, 0x04, 2, 6);
	find_caps((memset(rig.cap, 0, sizeof(rig.cap)), &rig));
	cr_assert_eq(bell_of(&rig, 1), old);
	rig_stop(&rig);
}

/* 4.1.4.9: the whole BAR through configuration space, and nothing but the BAR. */
Test(virtio_pci, reaches_the_bar_through_config_space)
{
	struct rig rig;

	rig_start(&rig);

	unsigned cap = rig.cap[5];
	uint32_t common = (uint32_t)(rig.common - rig.bar0);

	cfg_write(&rig, cap + 4, 1, 0);
	cfg_write(&rig, cap + 8, 4, common + 0x12);
	cfg_write(&rig, cap + 12, 4, 2);
	cr_assert_eq(cfg_read(&rig, cap + 16, 2), TEST_QUEUES);
	cfg_write(&rig, cap + 8, 4, common + 0x14);
	cfg_write(&rig, cap + 12, 4, 1);
	cfg_write(&rig, cap + 16, 1, S_ACK);
	cr_assert_eq(rd(&rig, rig.common + 0x14, 1), S_ACK);
	cr_assert_eq(cfg_read(&rig, cap + 16, 1), S_ACK);
	cfg_write(&rig, cap + 8, 4, (uint32_t)(rig.device - rig.bar0) + 4);
	cfg_write(&rig, cap + 12, 4, 4);
	cfg_write(&rig, cap + 16, 4, 0xddccbbaa);
	cr_assert_eq(rig.d->config[4], 0xaa);
	cr_assert_eq(rig.d->config[7], 0xdd);

	/* Nonsense: other BARs, bad widths, misaligned, out of range, wrapping around. */
	const uint32_t bad[][3] = {
		{ 2, 0, 4 },
		{ 255, 0, 4 },
		{ 0, 0, 0 },
		{ 0, 0, 3 },
		{ 0, 0, 8 },
		{ 0, 0, UINT32_MAX },
		{ 0, 2, 4 },
		{ 0, 0x4000, 4 },
		{ 0, 0x3ffd, 4 },
		{ 0, UINT32_MAX, 1 },
		{ 0, UINT32_MAX - 3, 4 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		cfg_write(&rig, cap + 4, 1, bad[i][0]);
		cfg_write(&rig, cap + 8, 4, bad[i][1]);
		cfg_write(&rig, cap + 12, 4, bad[i][2]);
		cfg_write(&rig, cap + 16, 4, 0x12345678);
		cr_assert_eq(cfg_read(&rig, cap + 16, 4), 0x12345678, "it is plain storage then");
	}
	rig_stop(&rig);
}

Test(virtio_pci, survives_nonsense)
{
	const uint64_t values[] = { 0, 1, 15, 0x80, 0xff, 0xffff, UINT32_MAX, UINT64_MAX };
	struct rig rig;
	uint64_t value;

	rig_start(&rig);
	for (uint64_t offset = 0; offset < 0x4000; offset += offset % 0x1000 < 0x50 ? 1 : 0x7b) {
		for (unsigned i = 0; i < ARRAY_SIZE(values) * 4; i++) {
			bus_write(&rig.bus, rig.bar0 + offset, 1U << i % 4, values[i / 4]);
			bus_read(&rig.bus, rig.bar0 + offset, 1U << i % 4, &value);
		}
	}
	for (unsigned offset = 0x40; offset < 0x100; offset++) {
		for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
			bus_write(&rig.bus, ECAM + (SLOT << 15) + offset, 1, values[i]);
			bus_read(&rig.bus, ECAM + (SLOT << 15) + offset, 4, &value);
		}
	}
	virtio_host_reset(&rig.d->v);
	rig_stop(&rig);
}
