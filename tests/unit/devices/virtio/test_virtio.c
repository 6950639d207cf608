/* The status machine, queues and resets of the core, and the MMIO transport. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include "devices/virtio/virtio_mmio.h"
#include "testdev.h"

#define S_ACK	 VIRTIO_STATUS_ACKNOWLEDGE
#define S_DRIVER VIRTIO_STATUS_DRIVER
#define S_FOK	 VIRTIO_STATUS_FEATURES_OK
#define S_DOK	 VIRTIO_STATUS_DRIVER_OK
#define S_NEEDS	 VIRTIO_STATUS_NEEDS_RESET
#define S_ALL	 (S_ACK | S_DRIVER | S_FOK | S_DOK)

/* A transport that counts. */
struct counts {
	_Atomic unsigned queue[TEST_QUEUES], config, resets;
};

static void count_queue(void *opaque, unsigned queue)
{
	((struct counts *)opaque)->queue[queue]++;
}

static void count_config(void *opaque)
{
	((struct counts *)opaque)->config++;
}

static void count_reset(void *opaque)
{
	((struct counts *)opaque)->resets++;
}

static const struct virtio_transport_ops count_ops = { count_queue, count_config, count_reset };

static void set_features(struct virtio_dev *v, uint64_t features)
{
	virtio_set_driver_features(v, 0, (uint32_t)features);
	virtio_set_driver_features(v, 1, (uint32_t)(features >> 32));
}

static void set_queue(struct virtio_dev *v, unsigned queue, const struct ring *r)
{
	const uint64_t addr[] = { r->desc, r->avail, r->used };

	virtio_set_queue_size(v, queue, r->size);
	for (unsigned i = 0; i < 3; i++) {
		virtio_set_queue_addr(v, queue, i, false, (uint32_t)addr[i]);
		virtio_set_queue_addr(v, queue, i, true, (uint32_t)(addr[i] >> 32));
	}
	virtio_set_queue_enabled(v, queue, true);
}

/* A driver that does all of 3.1.1 with queue 0 at the start of the world. */
static struct ring bring_up(struct testdev *d)
{
	struct ring r = ring_make(&d->w, 8, WORLD_BASE);

	virtio_set_status(&d->v, S_ACK);
	virtio_set_status(&d->v, S_ACK | S_DRIVER);
	set_features(&d->v,
		     VIRTIO_F_VERSION_1 | (d->v.access_platform ? VIRTIO_F_ACCESS_PLATFORM : 0));
	virtio_set_status(&d->v, S_ACK | S_DRIVER | S_FOK);
	set_queue(&d->v, 0, &r);
	virtio_set_status(&d->v, S_ALL);
	cr_assert_eq(virtio_get_status(&d->v), S_ALL);
	testdev_sync(d);
	return r;
}

static void offer_one(struct ring *r)
{
	ring_desc(r, 0, WORLD_BASE + 20 * PAGE, 16, F_WRITE, 0);
	ring_offer(r, 0);
}

Test(virtio, accepts_only_features_that_it_offered)
{
	const uint64_t must = VIRTIO_F_VERSION_1 | VIRTIO_F_ACCESS_PLATFORM;
	const struct {
		uint64_t features;
		bool good;
	} row[] = {
		{ 0, false },
		{ VIRTIO_F_VERSION_1, false },
		{ VIRTIO_F_ACCESS_PLATFORM, false },
		{ must, true },
		{ must | TEST_FEATURE | VIRTIO_F_EVENT_IDX, true },
		{ must | TEST_FEATURE << 1, false },
		{ must | 1ULL << 34, false },
		{ ~0ULL, false },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(row); i++) {
		struct testdev *d = testdev_new(true);

		set_features(&d->v, row[i].features);
		virtio_set_driver_features(&d->v, 2, ~0U); /* there is no such word */
		virtio_set_status(&d->v, S_ACK | S_DRIVER | S_FOK);
		cr_assert_eq(virtio_get_status(&d->v) & S_FOK, row[i].good ? S_FOK : 0, "%u", i);
		/* A driver that doesn't look goes no further than a careful one. */
		virtio_set_status(&d->v, S_ALL);
		cr_assert_eq(virtio_get_status(&d->v) & S_DOK, row[i].good ? S_DOK : 0, "%u", i);
		testdev_sync(d);
		cr_assert_eq(d->activated, row[i].good);
		testdev_free(d);
	}
}

Test(virtio, offers_access_platform_only_behind_an_iommu)
{
	struct testdev *d = testdev_new(false);

	cr_assert_eq(virtio_get_device_features(&d->v, 1), VIRTIO_F_VERSION_1 >> 32);
	cr_assert_eq(virtio_get_device_features(&d->v, 2), 0);
	set_features(&d->v, VIRTIO_F_VERSION_1 | VIRTIO_F_ACCESS_PLATFORM);
	virtio_set_status(&d->v, S_FOK);
	cr_assert_eq(virtio_get_status(&d->v), 0);
	testdev_free(d);
}

Test(virtio, freezes_features_and_keeps_status_bits)
{
	struct testdev *d = testdev_new(false);

	set_features(&d->v, VIRTIO_F_VERSION_1);
	virtio_set_status(&d->v, S_ACK | S_DRIVER | S_FOK);
	set_features(&d->v, VIRTIO_F_VERSION_1 | TEST_FEATURE);
	cr_assert_eq(virtio_get_driver_features(&d->v, 0), 0);
	/* Bits go away by a reset only, and NEEDS_RESET isn't the driver's. */
	virtio_set_status(&d->v, S_NEEDS);
	cr_assert_eq(virtio_get_status(&d->v), S_ACK | S_DRIVER | S_FOK);
	virtio_set_status(&d->v, 0);
	cr_assert_eq(virtio_get_status(&d->v), 0, "nothing ran: the reset is immediate");
	cr_assert_eq(virtio_get_driver_features(&d->v, 1), 0);
	cr_assert_eq(d->quiesced, 0);
	testdev_free(d);
}

Test(virtio, serves_nothing_before_driver_ok)
{
	struct testdev *d = testdev_new(false);
	struct counts counts = { 0 };
	struct ring r = ring_make(&d->w, 8, WORLD_BASE);

	virtio_set_transport(&d->v, &count_ops, &counts);
	set_features(&d->v, VIRTIO_F_VERSION_1);
	virtio_set_status(&d->v, S_ACK | S_DRIVER | S_FOK);
	set_queue(&d->v, 0, &r);
	offer_one(&r);
	virtio_kick(&d->v, 0);
	virtio_config_changed(&d->v);
	virtio_needs_reset(&d->v, "too early");
	testdev_sync(d);
	cr_assert_eq(d->kicks[0], 0);
	cr_assert_eq(ring_used_idx(&r), 0);
	cr_assert_eq(counts.config, 0);

	/* The kick wasn't lost; queues that weren't enabled stay silent. */
	virtio_set_status(&d->v, S_ALL);
	virtio_kick(&d->v, 1);
	virtio_kick(&d->v, TEST_QUEUES);
	virtio_kick(&d->v, UINT32_MAX);
	cr_assert(reaches(&d->served, 1));
	testdev_sync(d);
	cr_assert_eq(ring_used_idx(&r), 1);
	cr_assert_eq(counts.queue[0], 1);
	cr_assert_eq(d->kicks[1], 0);
	virtio_config_changed(&d->v);
	cr_assert_eq(counts.config, 1);
	testdev_free(d);
}

Test(virtio, guards_queue_registers)
{
	struct testdev *d = testdev_new(false);
	struct virtio_dev *v = &d->v;

	cr_assert_eq(virtio_get_queue(v, 0).size, 64);
	cr_assert_eq(virtio_queue_max_size(v, 2), VIRTQ_MAX_SIZE);
	cr_assert_eq(virtio_queue_max_size(v, TEST_QUEUES), 0);
	for (unsigned i = 0; i < 4; i++)
		virtio_set_queue_size(v, 0, (const uint16_t[]){ 0, 3, 128, 0xffff }[i]);
	cr_assert_eq(virtio_get_queue(v, 0).size, 64);
	virtio_set_queue_size(v, 0, 16);
	virtio_set_queue_addr(v, 0, 0, true, 0x11223344);
	virtio_set_queue_addr(v, 0, 0, false, 0x55667780);
	virtio_set_queue_addr(v, 0, 2, false, 0xabc);
	virtio_set_queue_enabled(v, 0, true);
	virtio_set_queue_size(v, 0, 32);
	virtio_set_queue_addr(v, 0, 0, false, 1);

	struct virtq_config config = virtio_get_queue(v, 0);

	cr_assert_eq(config.size, 16);
	cr_assert_eq(config.desc.v, 0x1122334455667780);
	cr_assert_eq(config.driver.v, 0);
	cr_assert_eq(config.device.v, 0xabc);
	cr_assert(config.enabled);

	/* No such queue: nothing happens, zeroes are read. */
	virtio_set_queue_size(v, TEST_QUEUES, 8);
	virtio_set_queue_addr(v, 1000, 0, false, 1);
	virtio_set_queue_enabled(v, UINT32_MAX, true);
	cr_assert_eq(virtio_get_queue(v, UINT32_MAX).size, 0);

	bring_up(d);
	virtio_set_queue_enabled(v, 1, true);
	virtio_set_queue_enabled(v, 0, false);
	cr_assert(!virtio_get_queue(v, 1).enabled, "after DRIVER_OK queues are fixed");
	cr_assert(virtio_get_queue(v, 0).enabled);
	testdev_free(d);
}

Test(virtio, asks_for_a_reset_once)
{
	struct testdev *d = testdev_new(false);
	struct counts counts = { 0 };

	virtio_set_transport(&d->v, &count_ops, &counts);

	struct ring r = bring_up(d);

	ring_desc(&r, 0, WORLD_BASE, 16, F_NEXT, 0);
	ring_offer(&r, 0);
	virtio_kick(&d->v, 0);
	cr_assert(reaches(&counts.config, 1));
	cr_assert_eq(virtio_get_status(&d->v), S_ALL | S_NEEDS);
	for (unsigned i = 0; i < 100; i++)
		virtio_kick(&d->v, 0);
	testdev_sync(d);
	cr_assert_eq(counts.config, 1);
	cr_assert_eq(counts.queue[0], 0);

	/* And after the reset all is well again. */
	virtio_host_reset(&d->v);
	cr_assert_eq(virtio_get_status(&d->v), 0);
	poke16(&d->w, r.avail + 2, 0);
	poke16(&d->w, r.used + 2, 0);
	r = bring_up(d);
	offer_one(&r);
	virtio_kick(&d->v, 0);
	cr_assert(reaches(&d->served, 1));
	testdev_free(d);
}

Test(virtio, refuses_a_misaligned_ring)
{
	struct testdev *d = testdev_new(false);
	struct ring r = ring_make(&d->w, 8, WORLD_BASE);

	set_features(&d->v, VIRTIO_F_VERSION_1);
	virtio_set_status(&d->v, S_FOK);
	r.desc += 8;
	set_queue(&d->v, 0, &r);
	virtio_set_status(&d->v, S_FOK | S_DOK);
	testdev_sync(d);
	cr_assert(virtio_get_status(&d->v) & S_NEEDS);
	virtio_kick(&d->v, 0);
	testdev_sync(d);
	cr_assert_eq(d->kicks[0], 0);
	testdev_free(d);
}

static void *host_reset(void *opaque)
{
	struct testdev *d = opaque;

	virtio_wait_reset(&d->v);
	/* Whoever waited sees the finished reset. */
	cr_assert_eq(virtio_get_status(&d->v), 0);
	cr_assert_eq(d->resets, 1);
	return NULL;
}

/* 4.1.4.3.1: the old status until the I/O in flight has ended. */
Test(virtio, resets_when_the_device_is_quiet)
{
	struct testdev *d = testdev_new(false);
	struct counts counts = { 0 };
	pthread_t waiter;

	virtio_set_transport(&d->v, &count_ops, &counts);

	struct ring r = bring_up(d);

	testdev_sync(d);
	unsigned kicks = d->kicks[0];

	d->hold = true;
	virtio_set_status(&d->v, 0);
	cr_assert(reaches(&d->quiesced, 1));
	cr_assert_eq(virtio_get_status(&d->v), S_ALL);
	cr_assert_eq(pthread_create(&waiter, NULL, host_reset, d), 0);

	/* Nothing that the driver does meanwhile has an effect. */
	virtio_set_status(&d->v, 0);
	virtio_set_status(&d->v, S_ALL);
	set_features(&d->v, ~0ULL);
	virtio_set_queue_enabled(&d->v, 1, true);
	offer_one(&r);
	virtio_kick(&d->v, 0);
	virtio_needs_reset(&d->v, "during a reset");
	testdev_sync(d);
	cr_assert_eq(d->kicks[0], kicks);
	cr_assert_eq(d->quiesced, 1);
	cr_assert_eq(d->resets, 0);
	cr_assert_eq(counts.resets, 0);
	cr_assert_eq(virtio_get_status(&d->v), S_ALL);

	loop_call(d->loop, release_quiesce, &d->v);
	pthread_join(waiter, NULL);
	cr_assert_eq(counts.resets, 1);
	cr_assert_eq(virtio_get_queue(&d->v, 0).size, 64);
	cr_assert(!virtio_get_queue(&d->v, 0).enabled);
	cr_assert_eq(d->v.queue[0].vq.state, VIRTQ_STOPPED);

	/* A kick from before the reset is one with that of the next driver's start. */
	d->hold = false;
	bring_up(d);
	testdev_sync(d);
	cr_assert_eq(d->kicks[0], kicks + 1);
	cr_assert_eq(d->activated, 2);
	testdev_free(d);
}

/* Start, kick and reset as fast as it goes: each activation meets its reset. */
Test(virtio, survives_restarts)
{
	struct testdev *d = testdev_new(false);

	for (unsigned i = 0; i < 500; i++) {
		set_features(&d->v, VIRTIO_F_VERSION_1);
		virtio_set_status(&d->v, S_FOK);
		virtio_set_queue_enabled(&d->v, 0, true);
		virtio_set_status(&d->v, S_FOK | S_DOK);
		virtio_kick(&d->v, 0);
		virtio_host_reset(&d->v);
		cr_assert_eq(virtio_get_status(&d->v), 0);
		cr_assert_eq(d->activated, i + 1);
		cr_assert_eq(d->resets, i + 1);
	}
	testdev_free(d);
}

Test(virtio, bounds_config_space)
{
	struct testdev *d = testdev_new(false);
	uint8_t buf[8], zero[8] = { 0 };

	virtio_config_read(&d->v, 8, buf, 4);
	cr_assert_arr_eq(buf, d->config + 8, 4);
	virtio_config_read(&d->v, 10, buf, 8);
	cr_assert_arr_eq(buf, d->config + 10, 2);
	cr_assert_arr_eq(buf + 2, zero, 6, "what lies beyond reads as zero");
	for (unsigned i = 0; i < 4; i++) {
		uint64_t offset = (const uint64_t[]){ 12, 4096, UINT32_MAX + 1ULL, UINT64_MAX }[i];

		memset(buf, 0xff, sizeof(buf));
		virtio_config_read(&d->v, offset, buf, 8);
		cr_assert_arr_eq(buf, zero, 8);
		virtio_config_write(&d->v, offset, buf, 8);
	}
	virtio_config_write(&d->v, 9, zero, 4);
	cr_assert_eq(d->config[9], 0x19, "a write that reaches beyond is ignored");
	virtio_config_write(&d->v, 8, zero, 4);
	cr_assert_eq(d->config[11], 0);
	testdev_free(d);
}

Test(virtio, finish_accepts_a_zeroed_device)
{
	struct virtio_dev zero = { 0 };

	virtio_finish(&zero);
	cr_assert(fcntl(0, F_GETFD) >= 0 || errno == EBADF);
}

/*
 * MMIO.
 */

#define BASE 0xd0000000ULL

struct mmio_rig {
	struct testdev *d;
	struct bus bus;
	struct bells bells;
	struct irq_line irq;
	_Atomic unsigned pulses;
	struct virtio_mmio *vm;
};

static void irq_set(struct irq_line *line, bool level)
{
	cr_assert_fail("the interrupt is an edge");
}

static void irq_pulse(struct irq_line *line)
{
	container_of(line, struct mmio_rig, irq)->pulses++;
}

static const struct irq_line_ops irq_ops = { irq_set, irq_pulse };

static void mmio_start(struct mmio_rig *rig)
{
	struct err err = { "" };

	*rig = (struct mmio_rig){ .irq.ops = &irq_ops };
	rig->d = testdev_new(true);
	bus_init(&rig->bus, false);
	bus_set_doorbells(&rig->bus, &bells_ops, &rig->bells);
	cr_assert_eq(
		virtio_mmio_create(&rig->vm, &rig->d->v, &rig->bus, GPA(BASE), &rig->irq, &err), 0,
		"%s", err.text);
}

static void mmio_stop(struct mmio_rig *rig)
{
	uint64_t value;

	rig->d->hold = false;
	virtio_host_reset(&rig->d->v);
	virtio_mmio_destroy(rig->vm);
	cr_assert_eq(rig->bells.count, 0);
	cr_assert(!bus_read(&rig->bus, BASE, 4, &value));
	testdev_free(rig->d);
	bus_finish(&rig->bus);
}

static uint32_t rd(struct mmio_rig *rig, uint64_t offset)
{
	uint64_t value = 0;

	cr_assert(bus_read(&rig->bus, BASE + offset, 4, &value));
	return (uint32_t)value;
}

static void wr(struct mmio_rig *rig, uint64_t offset, uint32_t value)
{
	if (!bells_ring(&rig->bells, BASE + offset, 4, value))
		cr_assert(bus_write(&rig->bus, BASE + offset, 4, value));
}

static struct ring mmio_bring_up(struct mmio_rig *rig)
{
	struct ring r = ring_make(&rig->d->w, 8, WORLD_BASE);
	const uint64_t addr[] = { r.desc, r.avail, r.used };

	wr(rig, 0x70, 0);
	wr(rig, 0x70, S_ACK | S_DRIVER);
	wr(rig, 0x24, 1);
	wr(rig, 0x20, 3); /* VERSION_1, ACCESS_PLATFORM */
	wr(rig, 0x24, 0);
	wr(rig, 0x20, 0);
	wr(rig, 0x70, S_ACK | S_DRIVER | S_FOK);
	cr_assert_eq(rd(rig, 0x70), S_ACK | S_DRIVER | S_FOK);
	wr(rig, 0x30, 1);
	cr_assert_eq(rd(rig, 0x34), 8);
	wr(rig, 0x38, 8);
	for (unsigned i = 0; i < 3; i++) {
		wr(rig, 0x80 + 16 * i, (uint32_t)addr[i]);
		wr(rig, 0x84 + 16 * i, (uint32_t)(addr[i] >> 32));
	}
	wr(rig, 0x44, 1);
	cr_assert_eq(rd(rig, 0x44), 1);
	wr(rig, 0x70, S_ALL);
	return r;
}

Test(virtio_mmio, shows_its_registers)
{
	struct mmio_rig rig;

	mmio_start(&rig);
	cr_assert_eq(rd(&rig, 0x00), 0x74726976);
	cr_assert_eq(rd(&rig, 0x04), 2);
	cr_assert_eq(rd(&rig, 0x08), VIRTIO_ID_BLOCK);
	wr(&rig, 0x14, 1);
	cr_assert_eq(rd(&rig, 0x10), 3);
	wr(&rig, 0x14, 2);
	cr_assert_eq(rd(&rig, 0x10), 0);
	wr(&rig, 0x14, 0);
	cr_assert_eq(rd(&rig, 0x10), TEST_FEATURE | 3U << 28);
	wr(&rig, 0x30, 99);
	cr_assert_eq(rd(&rig, 0x34), 0, "no such queue");
	wr(&rig, 0xac, 0); /* SHMSel: no shared memory whatever the ID */
	for (unsigned i = 0xb0; i <= 0xbc; i += 4)
		cr_assert_eq(rd(&rig, i), UINT32_MAX);
	mmio_stop(&rig);
}

Test(virtio_mmio, serves_a_driver)
{
	struct mmio_rig rig;

	mmio_start(&rig);
	cr_assert_eq(rig.bells.count, TEST_QUEUES);

	struct ring r = mmio_bring_up(&rig);

	offer_one(&r);
	wr(&rig, 0x50, 1);
	cr_assert(reaches(&rig.pulses, 1));
	cr_assert_eq(ring_used_idx(&r), 1);
	cr_assert_eq(rd(&rig, 0x60), 1);
	virtio_config_changed(&rig.d->v);
	cr_assert_eq(rd(&rig, 0x60), 3);
	cr_assert_eq(rd(&rig, 0xfc), 1);
	wr(&rig, 0x64, 1);
	cr_assert_eq(rd(&rig, 0x60), 2, "an acknowledgement clears what it names");

	/* Without KVM's help the handler rings; a queue that isn't there is ignored. */
	offer_one(&r);
	cr_assert(bus_write(&rig.bus, BASE + 0x50, 4, 77));
	cr_assert(bus_write(&rig.bus, BASE + 0x50, 4, 1));
	cr_assert(reaches(&rig.pulses, 3));

	/* A reset clears the transport's registers too. */
	wr(&rig, 0x70, 0);
	cr_assert_eq(rd(&rig, 0x60), 0);
	cr_assert_eq(rd(&rig, 0x34), 64, "QueueSel is 0 again");
	mmio_stop(&rig);
}

static void *release_later(void *opaque)
{
	struct testdev *d = opaque;

	cr_assert(reaches(&d->quiesced, 1));
	usleep(20000);
	cr_assert_eq(d->resets, 0);
	loop_call(d->loop, release_quiesce, &d->v);
	return NULL;
}

Test(virtio_mmio, holds_the_vcpu_until_the_reset_is_done)
{
	struct mmio_rig rig;
	pthread_t thread;

	mmio_start(&rig);
	mmio_bring_up(&rig);
	rig.d->hold = true;
	cr_assert_eq(pthread_create(&thread, NULL, release_later, rig.d), 0);
	wr(&rig, 0x70, 0);
	cr_assert_eq(rig.d->resets, 1);
	cr_assert_eq(rd(&rig, 0x70), 0);
	pthread_join(thread, NULL);
	mmio_stop(&rig);
}

Test(virtio_mmio, checks_widths)
{
	struct mmio_rig rig;
	uint64_t value;

	mmio_start(&rig);
	for (unsigned size = 1; size <= 8; size *= 2) {
		cr_assert(bus_read(&rig.bus, BASE, size, &value));
		cr_assert_eq(value, size == 4 ? 0x74726976 : 0);
		memcpy(&value, rig.d->config, 8);

		uint64_t want = size == 8 ? value : value & ((1ULL << 8 * size) - 1);

		cr_assert(bus_read(&rig.bus, BASE + 0x100, size, &value));
		cr_assert_eq(value, want);
	}
	bus_write(&rig.bus, BASE + 0x70, 1, S_ACK);
	bus_write(&rig.bus, BASE + 0x6e, 4, ~0U);
	cr_assert_eq(rd(&rig, 0x70), 0);
	bus_write(&rig.bus, BASE + 0x106, 2, 0xaabb);
	cr_assert_eq(rig.d->config[6], 0xbb);
	cr_assert_eq(rig.d->config[7], 0xaa);
	mmio_stop(&rig);
}

/* Every register, every width, every kind of value, running and not. */
Test(virtio_mmio, survives_nonsense)
{
	const uint64_t values[] = { 0, 1, 15, 0x80, 0xff, 0xffff, 0x10000, UINT32_MAX, UINT64_MAX };
	struct mmio_rig rig;
	uint64_t value;

	mmio_start(&rig);
	for (unsigned round = 0; round < 2; round++) {
		for (uint64_t offset = 0; offset < 0x120; offset++) {
			if (round)
				mmio_bring_up(&rig);
			for (unsigned i = 0; i < ARRAY_SIZE(values) * 4; i++) {
				bus_write(&rig.bus, BASE + offset, 1U << i % 4, values[i / 4]);
				bus_read(&rig.bus, BASE + offset, 1U << i % 4, &value);
			}
		}
	}
	mmio_bring_up(&rig);
	mmio_stop(&rig);
}
