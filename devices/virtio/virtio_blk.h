#ifndef DEVICES_VIRTIO_VIRTIO_BLK_H
#define DEVICES_VIRTIO_VIRTIO_BLK_H

/* virtio-blk (virtio 1.3, section 5.2). */

#include "devices/block/block.h"
#include "devices/virtio/virtio.h"

struct virtio_blk;

struct virtio_blk_config {
	const char *name;    /* the serial (get-ID), up to 20 bytes; borrows */
	unsigned num_queues; /* 1 to VIRTIO_MAX_QUEUES */
	uint16_t queue_size; /* a power of two from 4 to VIRTQ_MAX_SIZE */
	bool access_platform;
};

/*
 * A disk over @block (owned from here on, also on failure) whose DMA goes
 * through @view (borrows). *@ret_blk is owned by the caller. 0 or -errno with
 * words in @err.
 */
int virtio_blk_create(struct virtio_blk **ret_blk, const struct virtio_blk_config *config,
		      struct block *block, struct dma_view *view, struct loop *loop,
		      struct err *err);
/* After its transport; accepts NULL. */
void virtio_blk_destroy(struct virtio_blk *blk);
struct virtio_dev *virtio_blk_virtio(struct virtio_blk *blk);

#endif
