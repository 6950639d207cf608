/*
 * virtio-blk: the device and its queues. What happens to a request is in
 * virtio_blk_request.c.
 *
 * Slots are preallocated, as many as the queue has entries, hence a driver can
 * make us allocate nothing.
 *
 * Everything but create, destroy and config_read runs on the loop's thread.
 */
#include "devices/virtio/virtio_blk_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>

static struct virtio_blk *to_blk(struct virtio_dev *dev)
{
	return container_of(dev, struct virtio_blk, dev);
}

/*
 * Take requests until the ring is empty, or the slots or *@budget are used up.
 * Returns true when the ring looked empty, false when there is no point in
 * looking again now.
 */
static bool queue_take(struct blk_queue *queue, struct virtq *vq, unsigned *budget)
{
	for (; *budget; --*budget) {
		struct blk_slot *slot = queue->free;

		queue->starved = !slot;
		if (!slot)
			return false;
		int ret = virtq_pop(vq, &slot->chain);

		if (ret == -EPROTO)
			virtio_needs_reset(&queue->blk->dev, "malformed ring");
		if (ret == -EFAULT)
			virtq_enable_kicks(vq);
		if (ret <= 0)
			return ret == 0;
		queue->free = slot->next;
		blk_slot_start(slot);
	}
	return false;
}

static void queue_run(struct blk_queue *queue)
{
	struct virtio_blk *blk = queue->blk;
	struct virtio_queue *vring = &blk->dev.queue[queue->index];
	unsigned budget = vring->vq.config.size;

	queue->starved = false;
	if (blk->dev.quiescing || vring->vq.state != VIRTQ_RUNNING)
		return;
	do {
		virtq_disable_kicks(&vring->vq);
		/* When it looks empty: ask for kicks, then look once more. */
	} while (queue_take(queue, &vring->vq, &budget) && virtq_enable_kicks(&vring->vq));
	/* Enough for one turn; others share the loop. Our own kick brings us back. */
	if (!budget)
		eventfd_write(vring->kick_fd, 1);
	blk->block->ops->flush_batch(blk->block);
}

static void blk_publish(struct virtio_blk *blk)
{
	for (unsigned i = 0; i < blk->dev.num_queues; i++) {
		if (!blk->queue[i].unpublished)
			continue;
		blk->queue[i].unpublished = false;
		virtio_publish(&blk->dev, i);
	}
}

/* The backend completed a batch: publish it, and use the slots that it freed. */
static void blk_batch_done(void *opaque)
{
	struct virtio_blk *blk = opaque;

	blk_publish(blk);
	for (unsigned i = 0; i < blk->dev.num_queues; i++)
		if (blk->queue[i].starved)
			queue_run(&blk->queue[i]);
	blk_publish(blk);
	if (blk->dev.quiescing && !blk->inflight)
		virtio_quiesced(&blk->dev);
}

static void blk_kick(struct virtio_dev *dev, unsigned queue)
{
	struct virtio_blk *blk = to_blk(dev);

	queue_run(&blk->queue[queue]);
	blk_publish(blk);
}

/* Requests in flight end by themselves, none of them waits for the guest. */
static void blk_quiesce(struct virtio_dev *dev)
{
	if (!to_blk(dev)->inflight)
		virtio_quiesced(dev);
}

static void blk_reset(struct virtio_dev *dev)
{
	struct virtio_blk *blk = to_blk(dev);

	for (unsigned i = 0; i < dev->num_queues; i++)
		blk->queue[i].starved = blk->queue[i].unpublished = false;
}

static void blk_config_read(struct virtio_dev *dev, unsigned offset, void *buf, unsigned len)
{
	memcpy(buf, (const char *)&to_blk(dev)->config + offset, len);
}

static const struct virtio_dev_ops blk_ops = {
	.kick = blk_kick,
	.config_read = blk_config_read,
	.quiesce = blk_quiesce,
	.reset = blk_reset,
};

/* What the driver reads of the disk: config space and features. */
static void blk_describe(struct virtio_blk *blk)
{
	const struct block_info *info = &blk->block->info;
	uint16_t queue_size = blk->dev.queue_max_size[0];
	uint32_t per_block = MAX(info->physical_block, info->logical_block) / info->logical_block;
	uint64_t features = VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_BLK_F_SEG_MAX |
			    VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_TOPOLOGY | VIRTIO_BLK_F_FLUSH;

	blk->config.capacity = le64_from(info->size >> BLK_SECTOR_SHIFT);
	/* A chain may not be longer than its queue (2.7.5.2). */
	blk->config.seg_max = le32_from(MIN((uint32_t)BLK_SEG_MAX, queue_size - 2u));
	blk->config.blk_size = le32_from(info->logical_block);
	blk->config.physical_block_exp = (uint8_t)__builtin_ctz(per_block);
	blk->config.min_io_size = le16_from((uint16_t)MIN(per_block, (uint32_t)UINT16_MAX));
	blk->config.num_queues = le16_from((uint16_t)blk->dev.num_queues);
	if (info->readonly)
		features |= VIRTIO_BLK_F_RO;
	if (blk->dev.num_queues > 1)
		features |= VIRTIO_BLK_F_MQ;
	if (info->discard) {
		features |= VIRTIO_BLK_F_DISCARD;
		blk->config.max_discard_sectors = le32_from(BLK_DISCARD_SECTORS_MAX);
		blk->config.max_discard_seg = le32_from(BLK_RANGES_MAX);
		blk->config.discard_sector_alignment = le32_from(info->physical_block / BLK_SECTOR);
	}
	if (info->write_zeroes) {
		features |= VIRTIO_BLK_F_WRITE_ZEROES;
		blk->config.max_write_zeroes_sectors = le32_from(BLK_ZEROES_SECTORS_MAX);
		blk->config.max_write_zeroes_seg = le32_from(BLK_RANGES_MAX);
		blk->config.write_zeroes_may_unmap = info->discard;
	}
	blk->dev.device_features = features;
	blk->dev.config_size = sizeof(blk->config);
}

static int queue_init(struct virtio_blk *blk, unsigned index)
{
	struct blk_queue *queue = &blk->queue[index];
	unsigned count = blk->dev.queue_max_size[index];

	/* Big, but the host gives memory only to slots that are used: the free list is a stack. */
	queue->slots = calloc(count, sizeof(*queue->slots));
	if (!queue->slots)
		return -ENOMEM;
	queue->blk = blk;
	queue->index = index;
	for (unsigned i = count; i-- > 0;) {
		struct blk_slot *slot = &queue->slots[i];

		slot->queue = queue;
		slot->request.done = blk_slot_done;
		slot->chain.max = BLK_CHAIN_MAX;
		slot->chain.buf = slot->buf;
		slot->list.iov = slot->iov;
		slot->list.mapping = slot->mapping;
		slot->list.max = BLK_PIECES_MAX;
		slot->next = queue->free;
		queue->free = slot;
	}
	return 0;
}

static int blk_init(struct virtio_blk *blk, const struct virtio_blk_config *config,
		    struct dma_view *view, struct loop *loop, struct err *err)
{
	struct virtio_dev *dev = &blk->dev;
	int ret = 0;

	assert(config->num_queues && config->num_queues <= VIRTIO_MAX_QUEUES);
	assert(config->queue_size >= 4 && config->queue_size <= VIRTQ_MAX_SIZE);
	assert(!(config->queue_size & (config->queue_size - 1)));

	dev->ops = &blk_ops;
	dev->id = VIRTIO_ID_BLOCK;
	dev->name = config->name;
	dev->num_queues = config->num_queues;
	dev->loop = loop;
	dev->view = view;
	dev->access_platform = config->access_platform;
	for (unsigned i = 0; i < dev->num_queues && !ret; i++) {
		dev->queue_max_size[i] = config->queue_size;
		ret = queue_init(blk, i);
	}
	if (ret)
		return err_set(err, -ret, "disk %s: out of memory", config->name);
	/* Not NUL-terminated when it is as long as the field (5.2.6.2). */
	memcpy(blk->id, config->name, strnlen(config->name, BLK_ID_BYTES));
	blk_describe(blk);
	return virtio_init(dev, err);
}

int virtio_blk_create(struct virtio_blk **ret_blk, const struct virtio_blk_config *config,
		      struct block *block, struct dma_view *view, struct loop *loop,
		      struct err *err)
{
	struct virtio_blk *blk = calloc(1, sizeof(*blk));
	int ret;

	if (!blk) {
		block->ops->destroy(block);
		return err_set(err, ENOMEM, "disk %s: out of memory", config->name);
	}
	blk->block = block;
	block->batch_done = blk_batch_done;
	block->opaque = blk;
	ret = blk_init(blk, config, view, loop, err);
	if (ret) {
		virtio_blk_destroy(blk);
		return ret;
	}
	*ret_blk = blk;
	return 0;
}

void virtio_blk_destroy(struct virtio_blk *blk)
{
	if (!blk)
		return;
	virtio_finish(&blk->dev);
	blk->block->ops->destroy(blk->block);
	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
		free(blk->queue[i].slots);
	free(blk);
}

struct virtio_dev *virtio_blk_virtio(struct virtio_blk *blk)
{
	return &blk->dev;
}
