#ifndef DEVICES_VIRTIO_VIRTIO_BLK_INTERNAL_H
#define DEVICES_VIRTIO_VIRTIO_BLK_INTERNAL_H

/*
 * What the parts of virtio-blk share: virtio_blk.c (the device, its queues) and
 * virtio_blk_request.c (one request, from its header to its status byte). All of
 * it belongs to the loop's thread.
 */

#include "devices/virtio/virtio_blk.h"

#define BLK_SECTOR_SHIFT 9
#define BLK_SECTOR	 512u
#define BLK_ID_BYTES	 20

/* Feature bits (5.2.3). */
#define VIRTIO_BLK_F_SEG_MAX	  (1ULL << 2)
#define VIRTIO_BLK_F_RO		  (1ULL << 5)
#define VIRTIO_BLK_F_BLK_SIZE	  (1ULL << 6)
#define VIRTIO_BLK_F_FLUSH	  (1ULL << 9)
#define VIRTIO_BLK_F_TOPOLOGY	  (1ULL << 10)
#define VIRTIO_BLK_F_MQ		  (1ULL << 12)
#define VIRTIO_BLK_F_DISCARD	  (1ULL << 13)
#define VIRTIO_BLK_F_WRITE_ZEROES (1ULL << 14)

struct blk_wire_config {
	le64 capacity; /* in sectors of 512 bytes */
	le32 size_max, seg_max;
	le16 cylinders;
	uint8_t heads, sectors;
	le32 blk_size;
	uint8_t physical_block_exp, alignment_offset;
	le16 min_io_size; /* in logical blocks, as the next */
	le32 opt_io_size;
	uint8_t writeback, unused0;
	le16 num_queues;
	le32 max_discard_sectors, max_discard_seg, discard_sector_alignment;
	le32 max_write_zeroes_sectors, max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap, unused1[3];
};
_Static_assert(sizeof(struct blk_wire_config) == 60, "5.2.4");

/* A segment of DISCARD and WRITE_ZEROES. */
struct blk_wire_range {
	le64 sector;
	le32 num_sectors, flags;
};
_Static_assert(sizeof(struct blk_wire_range) == 16, "5.2.6");

/* The longest chain: the header, BLK_SEG_MAX pieces of data, the status byte. */
#define BLK_SEG_MAX   254
#define BLK_CHAIN_MAX (BLK_SEG_MAX + 2)
/*
 * Host ranges of one round. It must hold the worst 512 bytes that a driver can
 * make (every descriptor one byte, some across a page), for a round moves at
 * least one sector; it should hold a common request (1 MiB in 4 KiB pages).
 */
#define BLK_PIECES_MAX 512
_Static_assert(BLK_PIECES_MAX >= 2 * BLK_CHAIN_MAX, "a sector must always fit");
#define BLK_RANGES_MAX 16
/* Per range, in sectors; zeroes may have to be written, a discard is quick. */
#define BLK_DISCARD_SECTORS_MAX (GIB(1) >> BLK_SECTOR_SHIFT)
#define BLK_ZEROES_SECTORS_MAX	(MIB(64) >> BLK_SECTOR_SHIFT)

struct blk_queue;

/* One request in flight. */
struct blk_slot {
	struct block_request request;
	struct blk_queue *queue;
	struct blk_slot *next; /* in the free list */
	struct virtq_chain chain;
	uint32_t type;
	uint8_t status;
	bool write;	       /* modifies the disk */
	bool flushed;	       /* the flush that replaces the driver's was done */
	bool submitting;       /* inside block submit: done() only notes the result */
	bool completed;	       /* ... and this is where */
	uint64_t offset;       /* on the disk, bytes */
	uint64_t total, moved; /* data bytes; of ranges: count and index */
	uint64_t round;	       /* bytes of the round in flight */
	struct blk_wire_range range[BLK_RANGES_MAX]; /* our copy */
	struct dma_list list;
	struct virtq_buf buf[BLK_CHAIN_MAX];
	struct iovec iov[BLK_PIECES_MAX];
	void *mapping[BLK_PIECES_MAX];
};

struct blk_queue {
	struct virtio_blk *blk;
	unsigned index;
	struct blk_slot *slots; /* owns */
	struct blk_slot *free;
	bool starved;	  /* no slot was free; look again after a completion */
	bool unpublished; /* pushed since the last publish */
};

struct virtio_blk {
	struct virtio_dev dev;
	struct block *block;	       /* owns */
	struct blk_wire_config config; /* constant */
	char id[BLK_ID_BYTES];
	unsigned inflight;
	struct blk_queue queue[VIRTIO_MAX_QUEUES];
};

/*
 * Serve the request whose chain was popped into @slot: check it, move its data,
 * complete it. It may be in flight on return, or in the used ring already with
 * its slot on the queue's free list; the caller publishes.
 */
void blk_slot_start(struct blk_slot *slot);

/* The backend's callback for a slot's request: struct block_request.done. */
void blk_slot_done(struct block_request *request, int result);

#endif
