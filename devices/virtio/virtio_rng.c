/*
 * virtio-rng: every buffer of the driver is filled from the host's getrandom.
 *
 * Requests are served at once, up to CHUNK bytes of each: a shorter answer is
 * allowed (5.4.6.2 asks for at least one byte), and it bounds what one kick
 * costs. Everything but create and destroy runs on the loop's thread.
 */
#include "devices/virtio/virtio_rng.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/random.h>

#define QUEUE_SIZE 64
#define CHUNK	   4096u
/* Requests per turn of the loop. */
#define BUDGET 16

struct virtio_rng {
	struct virtio_dev dev;
	struct virtq_chain chain;
	struct virtq_buf buf[QUEUE_SIZE];
	unsigned char bytes[CHUNK];
};

static struct virtio_rng *to_rng(struct virtio_dev *dev)
{
	return container_of(dev, struct virtio_rng, dev);
}

/* Fill the chain in hand. Returns the bytes written; 0 when the guest didn't let us. */
static uint32_t fill(struct virtio_rng *rng, struct virtq *vq)
{
	size_t want = (size_t)MIN(rng->chain.in_bytes, (uint64_t)CHUNK), have = 0;

	while (have < want) {
		/* Blocks only on a host that has just been switched on. */
		ssize_t n = getrandom(rng->bytes + have, want - have, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		have += (size_t)n;
	}
	if (virtq_write(vq, &rng->chain, 0, rng->bytes, have))
		have = 0;
	/* What one guest got, nobody else needs. */
	explicit_bzero(rng->bytes, want);
	return (uint32_t)have;
}

/* As its namesakes in the other devices: true when the ring looked empty. */
static bool take(struct virtio_rng *rng, struct virtq *vq, unsigned *budget)
{
	for (; *budget; --*budget) {
		int ret = virtq_pop(vq, &rng->chain);

		if (ret == -EPROTO)
			virtio_needs_reset(&rng->dev, "malformed ring");
		if (ret == -EFAULT)
			virtq_enable_kicks(vq);
		if (ret <= 0)
			return ret == 0;
		virtq_push(vq, rng->chain.head, fill(rng, vq));
	}
	return false;
}

static void rng_kick(struct virtio_dev *dev, unsigned index)
{
	struct virtio_rng *rng = to_rng(dev);
	struct virtio_queue *queue = &dev->queue[index];
	unsigned budget = BUDGET;

	do {
		virtq_disable_kicks(&queue->vq);
	} while (take(rng, &queue->vq, &budget) && virtq_enable_kicks(&queue->vq));
	if (!budget)
		eventfd_write(queue->kick_fd, 1);
	if (budget < BUDGET)
		virtio_publish(dev, index);
}

/* No configuration, no state, and nothing in flight between two kicks. */
static const struct virtio_dev_ops rng_ops = {
	.kick = rng_kick,
	.quiesce = virtio_quiesced,
};

int virtio_rng_create(struct virtio_rng **ret_rng, const char *name, bool access_platform,
		      struct dma_view *view, struct loop *loop, struct err *err)
{
	struct virtio_rng *rng = calloc(1, sizeof(*rng));
	int ret;

	if (!rng)
		return err_set(err, ENOMEM, "%s: out of memory", name);
	rng->chain.buf = rng->buf;
	rng->chain.max = QUEUE_SIZE;
	rng->dev.ops = &rng_ops;
	rng->dev.id = VIRTIO_ID_RNG;
	rng->dev.name = name;
	rng->dev.device_features = VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
	rng->dev.num_queues = 1;
	rng->dev.queue_max_size[0] = QUEUE_SIZE;
	rng->dev.loop = loop;
	rng->dev.view = view;
	rng->dev.access_platform = access_platform;
	ret = virtio_init(&rng->dev, err);
	if (ret) {
		free(rng);
		return ret;
	}
	*ret_rng = rng;
	return 0;
}

void virtio_rng_destroy(struct virtio_rng *rng)
{
	if (!rng)
		return;
	virtio_finish(&rng->dev);
	free(rng);
}

struct virtio_dev *virtio_rng_virtio(struct virtio_rng *rng)
{
	return &rng->dev;
}
