/*
 * One request of virtio-blk.
 *
 *	header copied and checked -> rounds -> status byte -> used ring
 *
 *	round:  virtq_map (pins the pages) -> block submit -> done -> unpin
 *
 * A request is served in one round when its pieces fit the slot, which is the
 * rule; more rounds follow when an IOMMU or the driver has scattered it wider.
 * Header and status byte may lie in any descriptors (2.7.4: no assumptions on
 * framing), so everything is addressed by offsets into the chain.
 *
 * Data is unpinned before the request appears in the used ring: the driver's next
 * UNMAP must find no reference of ours.
 *
 * Without VIRTIO_BLK_F_FLUSH the driver can't ask for durability, so a write is
 * followed by a flush before it is reported (5.2.6.2).
 */
#include "devices/virtio/virtio_blk_internal.h"

#include <errno.h>

/* Request types and status (5.2.6). */
enum blk_type {
	VIRTIO_BLK_T_IN = 0,
	VIRTIO_BLK_T_OUT = 1,
	VIRTIO_BLK_T_FLUSH = 4,
	VIRTIO_BLK_T_GET_ID = 8,
	VIRTIO_BLK_T_DISCARD = 11,
	VIRTIO_BLK_T_WRITE_ZEROES = 13,
};

enum blk_status {
	VIRTIO_BLK_S_OK = 0,
	VIRTIO_BLK_S_IOERR = 1,
	VIRTIO_BLK_S_UNSUPP = 2,
};

#define RANGE_F_UNMAP 1u

struct blk_wire_header {
	le32 type, reserved;
	le64 sector;
};
_Static_assert(sizeof(struct blk_wire_header) == 16, "5.2.6");

/* Bytes of one round: bounds how long a reset waits. */
#define ROUND_MAX MIB(4)

static struct virtq *slot_vq(const struct blk_slot *slot)
{
	return &slot->queue->blk->dev.queue[slot->queue->index].vq;
}

/*
 * The end of a request: status byte, used ring, slot free. The used length
 * counts the data only when all of it was written.
 */
static void slot_finish(struct blk_slot *slot, enum blk_status status)
{
	struct blk_queue *queue = slot->queue;
	struct virtq *vq = slot_vq(slot);
	uint8_t byte = (uint8_t)status;
	uint64_t len = 1;

	if (!slot->chain.in_bytes ||
	    virtq_write(vq, &slot->chain, slot->chain.in_bytes - 1, &byte, 1))
		len = 0; /* nowhere to put the status: all that can be said is that it's over */
	else if (status == VIRTIO_BLK_S_OK)
		len = slot->chain.in_bytes;
	virtq_push(vq, slot->chain.head, (uint32_t)MIN(len, UINT32_MAX));
	queue->unpublished = true;
	slot->next = queue->free;
	queue->free = slot;
	queue->blk->inflight--;
}

static void slot_fill_request(struct blk_slot *slot, enum block_op op, uint64_t offset,
			      uint64_t len)
{
	slot->request.op = op;
	slot->request.offset = offset;
	slot->request.len = len;
	slot->request.iov = slot->iov;
	slot->request.iovcnt = slot->list.count;
}

/*
 * Pin the next part of a read or write: as much as fits the slot. Returns 0 or
 * -EFAULT (reported by the IOMMU).
 */
static int slot_map_round(struct blk_slot *slot)
{
	bool in = slot->type == VIRTIO_BLK_T_IN;
	uint64_t start = slot->moved + (in ? 0 : sizeof(struct blk_wire_header));
	uint64_t len = MIN(slot->total - slot->moved, ROUND_MAX);
	int ret;

	for (;;) {
		ret = virtq_map(slot_vq(slot), &slot->chain, start, len, in ? DMA_WRITE : DMA_READ,
				&slot->list);
		if (ret != -ENOBUFS || len <= BLK_SECTOR)
			break;
		len = ALIGN_UP(len / 2, (uint64_t)BLK_SECTOR);
	}
	if (ret)
		return ret;
	slot->round = len;
	slot_fill_request(slot, in ? BLOCK_READ : BLOCK_WRITE, slot->offset + slot->moved, len);
	return 0;
}

/* The next range of a discard or write-zeroes. */
static void slot_fill_range(struct blk_slot *slot)
{
	const struct blk_wire_range *range = &slot->range[slot->moved];

	slot->round = 1;
	slot->request.unmap = le32_get(range->flags) & RANGE_F_UNMAP;
	slot_fill_request(slot,
			  slot->type == VIRTIO_BLK_T_DISCARD ? BLOCK_DISCARD : BLOCK_WRITE_ZEROES,
			  le64_get(range->sector) << BLK_SECTOR_SHIFT,
			  (uint64_t)le32_get(range->num_sectors) << BLK_SECTOR_SHIFT);
}

/*
 * Prepare what comes next for @slot. Returns 1 when there is something to
 * submit, 0 when all is done, -errno on failure.
 */
static int slot_prepare(struct blk_slot *slot)
{
	struct virtio_blk *blk = slot->queue->blk;

	if (slot->moved < slot->total) {
		int ret = 0;

		/* A reset waits: what the driver gave up needn't be finished. */
		if (blk->dev.quiescing && slot->moved)
			return -ECANCELED;
		if (slot->type == VIRTIO_BLK_T_IN || slot->type == VIRTIO_BLK_T_OUT)
			ret = slot_map_round(slot);
		else
			slot_fill_range(slot);
		return ret ? ret : 1;
	}
	if (slot->type == VIRTIO_BLK_T_FLUSH ||
	    (slot->write && !virtio_has_feature(&blk->dev, VIRTIO_BLK_F_FLUSH))) {
		if (slot->flushed)
			return 0;
		slot->flushed = true;
		slot->round = 0;
		slot_fill_request(slot, BLOCK_FLUSH, 0, 0);
		return 1;
	}
	return 0;
}

/* Account for a finished round. */
static void slot_round_done(struct blk_slot *slot, int result)
{
	dma_unpin(&slot->queue->blk->dev.queue[slot->queue->index].port, &slot->list);
	if (result)
		slot->status = VIRTIO_BLK_S_IOERR;
	else
		slot->moved += slot->round;
}

/* Go on with @slot until something is in flight or it is finished. */
static void slot_run(struct blk_slot *slot)
{
	struct block *block = slot->queue->blk->block;

	while (slot->status == VIRTIO_BLK_S_OK) {
		int ret = slot_prepare(slot);

		if (ret < 0)
			slot->status = VIRTIO_BLK_S_IOERR;
		if (ret <= 0)
			break;
		/* A backend may complete within submit; a loop instead of a recursion. */
		slot->submitting = true;
		slot->completed = false;
		block->ops->submit(block, &slot->request);
		slot->submitting = false;
		if (!slot->completed)
			return;
	}
	slot_finish(slot, slot->status);
}

void blk_slot_done(struct block_request *request, int result)
{
	struct blk_slot *slot = container_of(request, struct blk_slot, request);

	slot_round_done(slot, result);
	if (slot->submitting)
		slot->completed = true;
	else
		slot_run(slot);
}

/* True when [sector, sector + bytes) lies on the disk and is whole sectors. */
static bool range_ok(const struct virtio_blk *blk, uint64_t sector, uint64_t bytes)
{
	uint64_t capacity = blk->block->info.size >> BLK_SECTOR_SHIFT;

	return bytes % BLK_SECTOR == 0 && sector <= capacity &&
	       bytes >> BLK_SECTOR_SHIFT <= capacity - sector;
}

/* Copy and check the segments of a discard or write-zeroes (5.2.6.2). */
static enum blk_status parse_ranges(struct blk_slot *slot)
{
	struct virtio_blk *blk = slot->queue->blk;
	bool discard = slot->type == VIRTIO_BLK_T_DISCARD;
	uint64_t len = slot->chain.out_bytes - sizeof(struct blk_wire_header);
	uint64_t max = discard ? BLK_DISCARD_SECTORS_MAX : BLK_ZEROES_SECTORS_MAX;

	if (!virtio_has_feature(&blk->dev,
				discard ? VIRTIO_BLK_F_DISCARD : VIRTIO_BLK_F_WRITE_ZEROES))
		return VIRTIO_BLK_S_UNSUPP;
	if (!len || len % sizeof(slot->range[0]) || len > sizeof(slot->range))
		return VIRTIO_BLK_S_IOERR;
	if (virtq_read(slot_vq(slot), &slot->chain, sizeof(struct blk_wire_header), slot->range,
		       len))
		return VIRTIO_BLK_S_IOERR;
	slot->total = len / sizeof(slot->range[0]);
	for (uint64_t i = 0; i < slot->total; i++) {
		const struct blk_wire_range *range = &slot->range[i];
		uint32_t flags = le32_get(range->flags), sectors = le32_get(range->num_sectors);

		if (flags & ~RANGE_F_UNMAP || (discard && flags))
			return VIRTIO_BLK_S_UNSUPP;
		if (sectors > max ||
		    !range_ok(blk, le64_get(range->sector), (uint64_t)sectors << BLK_SECTOR_SHIFT))
			return VIRTIO_BLK_S_IOERR;
	}
	slot->write = true;
	return VIRTIO_BLK_S_OK;
}

static enum blk_status parse_transfer(struct blk_slot *slot, uint64_t sector)
{
	struct virtio_blk *blk = slot->queue->blk;

	if (slot->type == VIRTIO_BLK_T_OUT) {
		if (blk->block->info.readonly)
			return VIRTIO_BLK_S_IOERR;
		slot->total = slot->chain.out_bytes - sizeof(struct blk_wire_header);
		slot->write = true;
	} else {
		slot->total = slot->chain.in_bytes - 1;
	}
	if (!range_ok(blk, sector, slot->total))
		return VIRTIO_BLK_S_IOERR;
	slot->offset = sector << BLK_SECTOR_SHIFT;
	return VIRTIO_BLK_S_OK;
}

static enum blk_status parse_get_id(struct blk_slot *slot)
{
	uint64_t len = MIN(slot->chain.in_bytes - 1, (uint64_t)BLK_ID_BYTES);

	if (virtq_write(slot_vq(slot), &slot->chain, 0, slot->queue->blk->id, len))
		return VIRTIO_BLK_S_IOERR;
	return VIRTIO_BLK_S_OK;
}

/* Copy the header and check what it asks. */
static enum blk_status slot_parse(struct blk_slot *slot)
{
	struct virtio_blk *blk = slot->queue->blk;
	struct blk_wire_header header;

	if (!slot->chain.in_bytes) {
		log_limited(&blk->dev.log, "%s: a disk request without a status byte",
			    blk->dev.name);
		return VIRTIO_BLK_S_IOERR;
	}
	if (virtq_read(slot_vq(slot), &slot->chain, 0, &header, sizeof(header)))
		return VIRTIO_BLK_S_IOERR;
	slot->type = le32_get(header.type);
	switch (slot->type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		return parse_transfer(slot, le64_get(header.sector));
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return parse_ranges(slot);
	case VIRTIO_BLK_T_GET_ID:
		return parse_get_id(slot);
	case VIRTIO_BLK_T_FLUSH:
		return VIRTIO_BLK_S_OK;
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
}

void blk_slot_start(struct blk_slot *slot)
{
	slot->type = UINT32_MAX;
	slot->write = slot->flushed = slot->submitting = slot->completed = false;
	slot->offset = slot->total = slot->moved = slot->round = 0;
	slot->request.unmap = false;
	slot->queue->blk->inflight++;
	slot->status = (uint8_t)slot_parse(slot);
	slot_run(slot);
}
