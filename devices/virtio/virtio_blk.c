/*
 * virtio-blk: requests of the driver onto a block backend.
 *
 *	pop -> header copied and checked -> rounds -> status byte -> used ring
 *
 *	round:  virtq_map (pins the pages) -> block submit -> done -> unpin
 *
 * A request is served in one round when its pieces fit the slot, which is the
 * rule; more rounds follow when an IOMMU or the driver has scattered it wider.
 * Header and status byte may lie in any descriptors (2.7.4: no assumptions on
 * framing), so everything is addressed by offsets into the chain.
 *
 * Slots are preallocated, as many as the queue has entries, hence a driver can
 * make us allocate nothing. Data is unpinned before the request appears in the
 * used ring: the driver's next UNMAP must find no reference of ours.
 *
 * Without VIRTIO_BLK_F_FLUSH the driver can't ask for durability, so a write is
 * followed by a flush before it is reported (5.2.6.2).
 *
 * Everything but create, destroy and config_read runs on the loop's thread.
 */
#include "devices/virtio/virtio_blk.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#define SECTOR_SHIFT 9
#define SECTOR	     512u

/* Feature bits (5.2.3). */
#define VIRTIO_BLK_F_SEG_MAX	  (1ULL << 2)
#define VIRTIO_BLK_F_RO		  (1ULL << 5)
#define VIRTIO_BLK_F_BLK_SIZE	  (1ULL << 6)
#define VIRTIO_BLK_F_FLUSH	  (1ULL << 9)
#define VIRTIO_BLK_F_TOPOLOGY	  (1ULL << 10)
#define VIRTIO_BLK_F_MQ		  (1ULL << 12)
#define VIRTIO_BLK_F_DISCARD	  (1ULL << 13)
#define VIRTIO_BLK_F_WRITE_ZEROES (1ULL << 14)

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

#define ID_BYTES      20
#define RANGE_F_UNMAP 1u

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

struct blk_wire_header {
	le32 type, reserved;
	le64 sector;
};
_Static_assert(sizeof(struct blk_wire_header) == 16, "5.2.6");

/* A segment of DISCARD and WRITE_ZEROES. */
struct blk_wire_range {
	le64 sector;
	le32 num_sectors, flags;
};
_Static_assert(sizeof(struct blk_wire_range) == 16, "5.2.6");

/* The longest chain: the header, SEG_MAX pieces of data, the status byte. */
#define SEG_MAX	  254
#define CHAIN_MAX (SEG_MAX + 2)
/*
 * Host ranges of one round. It must hold the worst 512 bytes that a driver can
 * make (every descriptor one byte, some across a page), for a round moves at
 * least one sector; it should hold a common request (1 MiB in 4 KiB pages).
 */
#define PIECES_MAX 512
_Static_assert(PIECES_MAX >= 2 * CHAIN_MAX, "a sector must always fit");
/* Bytes of one round: bounds how long a reset waits. */
#define ROUND_MAX MIB(4)

#define RANGES_MAX 16
/* Per range, in sectors; zeroes may have to be written, a discard is quick. */
#define DISCARD_SECTORS_MAX (GIB(1) >> SECTOR_SHIFT)
#define ZEROES_SECTORS_MAX  (MIB(64) >> SECTOR_SHIFT)

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
	struct blk_wire_range range[RANGES_MAX]; /* our copy */
	struct dma_list list;
	struct virtq_buf buf[CHAIN_MAX];
	struct iovec iov[PIECES_MAX];
	void *mapping[PIECES_MAX];
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
	char id[ID_BYTES];
	bool ready;    /* dev is initialised */
	bool draining; /* quiesce waits for what is in flight: start nothing */
	unsigned inflight;
	struct blk_queue queue[VIRTIO_MAX_QUEUES];
};

static struct virtio_blk *to_blk(struct virtio_dev *dev)
{
	return container_of(dev, struct virtio_blk, dev);
}

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
		if (ret != -ENOBUFS || len <= SECTOR)
			break;
		len = ALIGN_UP(len / 2, (uint64_t)SECTOR);
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
			  le64_get(range->sector) << SECTOR_SHIFT,
			  (uint64_t)le32_get(range->num_sectors) << SECTOR_SHIFT);
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
		if (blk->draining && slot->moved)
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

static void slot_request_done(struct block_request *request, int result)
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
	uint64_t capacity = blk->block->info.size >> SECTOR_SHIFT;

	return bytes % SECTOR == 0 && sector <= capacity &&
	       bytes >> SECTOR_SHIFT <= capacity - sector;
}

/* Copy and check the segments of a discard or write-zeroes (5.2.6.2). */
static enum blk_status parse_ranges(struct blk_slot *slot)
{
	struct virtio_blk *blk = slot->queue->blk;
	bool discard = slot->type == VIRTIO_BLK_T_DISCARD;
	uint64_t len = slot->chain.out_bytes - sizeof(struct blk_wire_header);
	uint64_t max = discard ? DISCARD_SECTORS_MAX : ZEROES_SECTORS_MAX;

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
		    !range_ok(blk, le64_get(range->sector), (uint64_t)sectors << SECTOR_SHIFT))
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
	slot->offset = sector << SECTOR_SHIFT;
	return VIRTIO_BLK_S_OK;
}

static enum blk_status parse_get_id(struct blk_slot *slot)
{
	uint64_t len = MIN(slot->chain.in_bytes - 1, (uint64_t)ID_BYTES);

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

static void slot_start(struct blk_slot *slot)
{
	slot->type = UINT32_MAX;
	slot->write = slot->flushed = slot->submitting = slot->completed = false;
	slot->offset = slot->total = slot->moved = slot->round = 0;
	slot->request.unmap = false;
	slot->queue->blk->inflight++;
	slot->status = (uint8_t)slot_parse(slot);
	slot_run(slot);
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
		slot_start(slot);
	}
	return false;
}

static void queue_run(struct blk_queue *queue)
{
	struct virtio_blk *blk = queue->blk;
	struct virtio_queue *vring = &blk->dev.queue[queue->index];
	unsigned budget = vring->vq.config.size;

	queue->starved = false;
	if (blk->draining || vring->vq.state != VIRTQ_RUNNING)
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
	if (blk->draining && !blk->inflight) {
		blk->draining = false;
		virtio_quiesced(&blk->dev);
	}
}

static void blk_kick(struct virtio_dev *dev, unsigned queue)
{
	struct virtio_blk *blk = to_blk(dev);

	queue_run(&blk->queue[queue]);
	blk_publish(blk);
}

/* Buffers that were made available before DRIVER_OK have no kick of their own. */
static void blk_activate(struct virtio_dev *dev)
{
	for (unsigned i = 0; i < dev->num_queues; i++)
		blk_kick(dev, i);
}

/* Requests in flight end by themselves, none of them waits for the guest. */
static void blk_quiesce(struct virtio_dev *dev)
{
	struct virtio_blk *blk = to_blk(dev);

	blk->draining = blk->inflight > 0;
	if (!blk->draining)
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
	.activate = blk_activate,
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

	blk->config.capacity = le64_from(info->size >> SECTOR_SHIFT);
	/* A chain may not be longer than its queue (2.7.5.2). */
	blk->config.seg_max = le32_from(MIN((uint32_t)SEG_MAX, queue_size - 2u));
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
		blk->config.max_discard_sectors = le32_from(DISCARD_SECTORS_MAX);
		blk->config.max_discard_seg = le32_from(RANGES_MAX);
		blk->config.discard_sector_alignment = le32_from(info->physical_block / SECTOR);
	}
	if (info->write_zeroes) {
		features |= VIRTIO_BLK_F_WRITE_ZEROES;
		blk->config.max_write_zeroes_sectors = le32_from(ZEROES_SECTORS_MAX);
		blk->config.max_write_zeroes_seg = le32_from(RANGES_MAX);
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
		slot->request.done = slot_request_done;
		slot->chain.max = CHAIN_MAX;
		slot->chain.buf = slot->buf;
		slot->list.iov = slot->iov;
		slot->list.mapping = slot->mapping;
		slot->list.max = PIECES_MAX;
		slot->next = queue->free;
		queue->free = slot;
	}
	return 0;
}

static int blk_init(struct virtio_blk *blk, const struct virtio_blk_config *config,
		    struct dma_view *view, struct loop *loop, struct err *err)
{
	struct virtio_dev *dev = &blk->dev;
	uint16_t queue_size = config->queue_size ? config->queue_size : 256;
	int ret = 0;

	dev->ops = &blk_ops;
	dev->id = VIRTIO_ID_BLOCK;
	dev->name = config->name;
	dev->num_queues = config->num_queues ? config->num_queues : 1;
	dev->loop = loop;
	dev->view = view;
	dev->access_platform = config->access_platform;
	if (dev->num_queues > VIRTIO_MAX_QUEUES)
		return err_set(err, EINVAL, "disk %s: at most %d queues", config->name,
			       VIRTIO_MAX_QUEUES);
	if (queue_size < 4 || queue_size > VIRTQ_MAX_SIZE || queue_size & (queue_size - 1))
		return err_set(err, EINVAL,
			       "disk %s: a queue's size must be a power of two from 4 to %d",
			       config->name, VIRTQ_MAX_SIZE);
	for (unsigned i = 0; i < dev->num_queues && !ret; i++) {
		dev->queue_max_size[i] = queue_size;
		ret = queue_init(blk, i);
	}
	if (ret)
		return err_set(err, -ret, "disk %s: out of memory", config->name);
	/* Not NUL-terminated when it is as long as the field (5.2.6.2). */
	memcpy(blk->id, config->name, strnlen(config->name, ID_BYTES));
	blk_describe(blk);
	ret = virtio_init(dev, err);
	blk->ready = !ret;
	return ret;
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
	if (blk->ready)
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
