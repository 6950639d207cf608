#ifndef TESTS_UNIT_DEVICES_VIRTIO_DRIVER_H
#define TESTS_UNIT_DEVICES_VIRTIO_DRIVER_H

/*
 * A guest's driver for one virtio device, for tests: it negotiates, owns rings
 * in a struct world (scattered memory behind a fake IOMMU) and rings doorbells.
 * The device runs on a real loop; the driver waits for it with a time limit.
 */

#include <criterion/criterion.h>
#include <unistd.h>
#include "devices/virtio/virtio.h"
#include "ring.h"

/* Rings from the start of the world, two pages each; buffers from here on. */
#define DATA (WORLD_BASE + 16 * PAGE)
/* Entries of a ring, or fewer where the device has fewer. */
#define DRIVER_SIZE  128
#define DRIVER_RINGS 4

struct driver {
	struct world w;
	struct loop *loop;
	struct virtio_dev *dev;
	struct ring ring[DRIVER_RINGS];
	uint16_t next_desc[DRIVER_RINGS];
	_Atomic unsigned interrupts, config_interrupts;
	_Atomic int refs_at_interrupt; /* the most that were held when one came */
};

struct part {
	uint64_t addr;
	uint32_t len;
	bool write;
};

static void driver_notify_queue(void *transport, unsigned queue)
{
	struct driver *d = transport;

	(void)queue;
	if (d->w.refs > atomic_load(&d->refs_at_interrupt))
		atomic_store(&d->refs_at_interrupt, d->w.refs);
	atomic_fetch_add(&d->interrupts, 1);
}

static void driver_notify_config(void *transport)
{
	atomic_fetch_add(&((struct driver *)transport)->config_interrupts, 1);
}

static const struct virtio_transport_ops driver_transport_ops = {
	.notify_queue = driver_notify_queue,
	.notify_config = driver_notify_config,
};

/* The world and the loop, before the device is made. */
static inline void driver_init(struct driver *d)
{
	struct err err = { "" };

	memset(d, 0, sizeof(*d));
	world_init(&d->w, true);
	cr_assert_eq(loop_create(&d->loop, "test", &err), 0, "%s", err.text);
}

/* Negotiate all offered features but @without, set up the queues, DRIVER_OK. */
static inline void driver_start(struct driver *d, struct virtio_dev *dev, uint64_t without)
{
	uint64_t features = virtio_offered_features(dev) & ~without & ~VIRTIO_F_EVENT_IDX;
	uint8_t status = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER;

	d->dev = dev;
	virtio_set_transport(dev, &driver_transport_ops, d);
	virtio_set_status(dev, status);
	virtio_set_driver_features(dev, 0, (uint32_t)features);
	virtio_set_driver_features(dev, 1, (uint32_t)(features >> 32));
	status |= VIRTIO_STATUS_FEATURES_OK;
	virtio_set_status(dev, status);
	cr_assert_eq(virtio_get_status(dev), status);
	for (unsigned i = 0; i < dev->num_queues; i++) {
		struct ring *r = &d->ring[i];
		uint64_t addr[3];
		uint16_t size = MIN((uint16_t)DRIVER_SIZE, dev->queue_max_size[i]);

		*r = ring_make(&d->w, size, WORLD_BASE + 2 * PAGE * i);
		addr[0] = r->desc;
		addr[1] = r->avail;
		addr[2] = r->used;
		for (uint64_t at = 0; at < 2 * PAGE; at++)
			*world_byte(&d->w, r->desc + at) = 0;
		d->next_desc[i] = 0;
		virtio_set_queue_size(dev, i, size);
		for (unsigned k = 0; k < 3; k++) {
			virtio_set_queue_addr(dev, i, k, false, (uint32_t)addr[k]);
			virtio_set_queue_addr(dev, i, k, true, (uint32_t)(addr[k] >> 32));
		}
		virtio_set_queue_enabled(dev, i, true);
	}
	virtio_set_status(dev, status | VIRTIO_STATUS_DRIVER_OK);
}

/* After the device was destroyed. */
static inline void driver_finish(struct driver *d)
{
	loop_destroy(d->loop);
	world_finish(&d->w);
}

/* Make a chain available without ringing; at most the ring's size of descriptors are in use at a
 * time. */
static inline uint16_t driver_offer(struct driver *d, unsigned queue, const struct part *part,
				    unsigned count)
{
	struct ring *r = &d->ring[queue];
	uint16_t head = d->next_desc[queue];

	for (unsigned i = 0; i < count; i++) {
		uint16_t at = (uint16_t)((head + i) % r->size);

		ring_desc(r, at, part[i].addr, part[i].len,
			  (uint16_t)((part[i].write ? F_WRITE : 0) | (i + 1 < count ? F_NEXT : 0)),
			  (uint16_t)((at + 1) % r->size));
	}
	d->next_desc[queue] = (uint16_t)((head + count) % r->size);
	atomic_thread_fence(memory_order_seq_cst);
	ring_offer(r, head);
	return head;
}

/* Wait until the device has used @count chains of @queue in all. */
static inline void driver_wait(struct driver *d, unsigned queue, uint16_t count)
{
	for (int i = 0; i < 100000; i++) {
		if ((int16_t)(ring_used_idx(&d->ring[queue]) - count) >= 0) {
			atomic_thread_fence(memory_order_seq_cst);
			return;
		}
		usleep(200);
	}
	cr_assert(false, "used %u of %u chains", ring_used_idx(&d->ring[queue]), count);
}

static inline void driver_nothing(void *opaque)
{
	(void)opaque;
}

/* Wait until the loop has handled what it was told so far. */
static inline void driver_settle(struct driver *d)
{
	for (int i = 0; i < 5; i++) {
		loop_call(d->loop, driver_nothing, NULL);
		usleep(2000);
	}
}

/* Offer one chain, ring, wait for it. Returns the used length. */
static inline uint32_t driver_do(struct driver *d, unsigned queue, const struct part *part,
				 unsigned count)
{
	uint16_t before = ring_used_idx(&d->ring[queue]);
	uint16_t head = driver_offer(d, queue, part, count);
	uint32_t id, len;

	virtio_kick(d->dev, queue);
	driver_wait(d, queue, (uint16_t)(before + 1));
	ring_used(&d->ring[queue], before, &id, &len);
	cr_assert_eq(id, head);
	return len;
}

#endif
