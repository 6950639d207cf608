#ifndef TESTS_UNIT_DEVICES_VIRTIO_TESTDEV_H
#define TESTS_UNIT_DEVICES_VIRTIO_TESTDEV_H

/*
 * A small virtio device for tests of the core and of the transports: it returns
 * every buffer as it is, records what the core asks of it, and can take its time
 * to quiesce. With it a bus that records doorbells.
 */

#include <criterion/criterion.h>
#include <unistd.h>
#include "devices/virtio/virtio.h"
#include "ring.h"

#define TEST_QUEUES  3
#define TEST_CONFIG  12
#define TEST_FEATURE 1ULL

struct testdev {
	struct virtio_dev v;
	struct world w;
	struct loop *loop;
	uint8_t config[TEST_CONFIG];
	_Atomic bool hold; /* quiesce doesn't end by itself */
	_Atomic unsigned activated, kicks[TEST_QUEUES], served, quiesced, resets;
	_Atomic bool kick_after_quiesce;
};

static inline struct testdev *testdev_of(struct virtio_dev *v)
{
	return container_of(v, struct testdev, v);
}

static inline void testdev_activate(struct virtio_dev *v)
{
	cr_assert(loop_is_current(v->loop));
	testdev_of(v)->activated++;
}

static inline void testdev_kick(struct virtio_dev *v, unsigned queue)
{
	struct testdev *d = testdev_of(v);
	struct virtq *vq = &v->queue[queue].vq;
	struct virtq_buf buf[8];
	struct virtq_chain chain = { .max = 8, .buf = buf };
	int result;

	cr_assert(loop_is_current(v->loop));
	d->kicks[queue]++;
	if (d->quiesced > d->resets)
		d->kick_after_quiesce = true;
	while ((result = virtq_pop(vq, &chain)) > 0) {
		virtq_push(vq, chain.head, (uint32_t)chain.in_bytes);
		d->served++;
	}
	if (result == -EPROTO)
		virtio_needs_reset(v, "malformed ring");
	virtio_publish(v, queue);
}

static inline void testdev_config_read(struct virtio_dev *v, unsigned offset, void *buf,
				       unsigned len)
{
	cr_assert(offset <= TEST_CONFIG && len <= TEST_CONFIG - offset);
	memcpy(buf, testdev_of(v)->config + offset, len);
}

static inline void testdev_config_write(struct virtio_dev *v, unsigned offset, const void *buf,
					unsigned len)
{
	cr_assert(offset <= TEST_CONFIG && len <= TEST_CONFIG - offset);
	memcpy(testdev_of(v)->config + offset, buf, len);
}

static inline void testdev_quiesce(struct virtio_dev *v)
{
	struct testdev *d = testdev_of(v);

	cr_assert(loop_is_current(v->loop));
	d->quiesced++;
	if (!d->hold)
		virtio_quiesced(v);
}

static inline void testdev_reset(struct virtio_dev *v)
{
	cr_assert(loop_is_current(v->loop));
	testdev_of(v)->resets++;
}

static const struct virtio_dev_ops testdev_ops = {
	.activate = testdev_activate,
	.kick = testdev_kick,
	.config_read = testdev_config_read,
	.config_write = testdev_config_write,
	.quiesce = testdev_quiesce,
	.reset = testdev_reset,
};

static inline struct testdev *testdev_new(bool access_platform)
{
	struct testdev *d = calloc(1, sizeof(*d));
	struct err err = { "" };

	world_init(&d->w, true);
	cr_assert_eq(loop_create(&d->loop, "test", &err), 0, "%s", err.text);
	d->v = (struct virtio_dev){
		.ops = &testdev_ops,
		.id = VIRTIO_ID_BLOCK,
		.name = "test",
		.device_features = TEST_FEATURE | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC,
		.config_size = TEST_CONFIG,
		.num_queues = TEST_QUEUES,
		.queue_max_size = { 64, 8, VIRTQ_MAX_SIZE },
		.loop = d->loop,
		.view = &d->w.view,
		.access_platform = access_platform,
	};
	for (unsigned i = 0; i < TEST_CONFIG; i++)
		d->config[i] = (uint8_t)(0x10 + i);
	cr_assert_eq(virtio_init(&d->v, &err), 0, "%s", err.text);
	return d;
}

static inline void testdev_free(struct testdev *d)
{
	d->hold = false;
	virtio_host_reset(&d->v);
	cr_assert(!d->kick_after_quiesce);
	virtio_finish(&d->v);
	loop_destroy(d->loop);
	world_finish(&d->w);
	free(d);
}

static inline void testdev_nop(void *opaque)
{
}

/* Wait until the loop has done what was asked of it before. */
static inline void testdev_sync(struct testdev *d)
{
	/* Twice: a kick's eventfd may be seen only in the turn after the call. */
	loop_call(d->loop, testdev_nop, NULL);
	loop_call(d->loop, testdev_nop, NULL);
}

/* True when @counter reaches @want within twenty seconds. */
static inline bool reaches(_Atomic unsigned *counter, unsigned want)
{
	for (unsigned i = 0; i < 20000 && *counter < want; i++)
		usleep(1000);
	return *counter >= want;
}

static inline void release_quiesce(void *opaque)
{
	virtio_quiesced(opaque);
}

/*
 * Doorbells.
 */

#define MAX_BELLS 16

struct bells {
	unsigned count;
	struct doorbell bell[MAX_BELLS];
};

static inline int bells_attach(void *opaque, bool port_io, const struct doorbell *bell)
{
	struct bells *b = opaque;

	cr_assert(!port_io);
	cr_assert_lt(b->count, MAX_BELLS);
	b->bell[b->count++] = *bell;
	return 0;
}

static inline void bells_detach(void *opaque, bool port_io, const struct doorbell *bell)
{
	struct bells *b = opaque;

	for (unsigned i = 0; i < b->count; i++) {
		const struct doorbell *x = &b->bell[i];

		if (x->addr == bell->addr && x->size == bell->size && x->match == bell->match &&
		    x->value == bell->value && x->eventfd == bell->eventfd) {
			b->bell[i] = b->bell[--b->count];
			return;
		}
	}
	cr_assert_fail("detached a doorbell that isn't attached");
}

static const struct doorbell_ops bells_ops = { bells_attach, bells_detach };

/* What KVM does with a store: true when it rang. */
static inline bool bells_ring(const struct bells *b, uint64_t addr, unsigned size, uint64_t value)
{
	const uint64_t one = 1;

	for (unsigned i = 0; i < b->count; i++) {
		const struct doorbell *x = &b->bell[i];

		if (x->addr == addr && (!x->size || x->size == size) &&
		    (!x->match || x->value == value))
			return write(x->eventfd, &one, sizeof(one)) == sizeof(one);
	}
	return false;
}

#endif
