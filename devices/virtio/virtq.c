/*
 * The split virtqueue parser (virtio 1.3, section 2.7).
 *
 * Three parts of guest memory make a queue, each at an IOVA of its own:
 *
 *	desc    size x { addr, len, flags, next }          the driver writes
 *	avail   flags, idx, size x head, used_event        the driver writes
 *	used    flags, idx, size x { id, len }, avail_event    we write
 *
 * Behind an IOMMU a part is contiguous only in IOVA space. It is translated
 * into a few segments of host memory, remembered together with the epoch of
 * that translation, and translated again when a section begins under another
 * epoch: the driver may unmap a ring under a live device. No host pointer is
 * used outside the section (dma_enter .. dma_leave) that validated its epoch.
 *
 * The driver may change any byte at any time. Each value is therefore fetched
 * exactly once, by an atomic load or by a copy that the compiler can't repeat,
 * and only the copy is checked and used.
 *
 * How the two sides meet, and which barrier each meeting needs:
 *
 *	driver: write desc, head; store-release avail.idx
 *	device: load-acquire avail.idx; read head, desc
 *
 *	device: write used element; store-release used.idx
 *	driver: load-acquire used.idx; read the element
 *
 *	device: store used.idx;    full fence; load used_event or avail.flags
 *	driver: store used_event or avail.flags;    full fence; load used.idx
 *
 *	device: store avail_event or used.flags;    full fence; load avail.idx
 *	driver: store avail.idx;   full fence; load avail_event or used.flags
 *
 * In the last two pairs at least one side sees the other's store, so an
 * interrupt or a kick is never lost between a check and going to sleep.
 */
#include "devices/virtio/virtq.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdatomic.h>

#define DESC_F_NEXT	1
#define DESC_F_WRITE	2
#define DESC_F_INDIRECT 4

#define AVAIL_F_NO_INTERRUPT 1
#define USED_F_NO_NOTIFY     1

/* avail and used begin alike; their entries follow. */
#define RING_FLAGS   0
#define RING_IDX     2
#define RING_ENTRIES 4

/* A driver must not make a longer chain (2.7.5.2). */
#define MAX_CHAIN_BYTES (1ULL << 32)

/* Indirect descriptors are fetched this many at a time. */
#define INDIRECT_WINDOW 16

struct wire_desc {
	le64 addr;
	le32 len;
	le16 flags;
	le16 next;
};
_Static_assert(sizeof(struct wire_desc) == 16, "virtio 1.3, 2.7.5");

struct wire_used_elem {
	le32 id;
	le32 len;
};
_Static_assert(sizeof(struct wire_used_elem) == 8, "virtio 1.3, 2.7.8");

/* A descriptor's private copy. */
struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

static struct desc desc_from_wire(const struct wire_desc *wire)
{
	return (struct desc){
		.addr = le64_get(wire->addr),
		.len = le32_get(wire->len),
		.flags = le16_get(wire->flags),
		.next = le16_get(wire->next),
	};
}

/*
 * Ring memory. All of these run inside a section with a current translation.
 */

/* The host address of byte @offset of @part; *@ret_len bytes follow in its segment. */
static unsigned char *part_at(const struct virtq_ring_part *part, uint64_t offset,
			      uint64_t *ret_len)
{
	for (unsigned i = 0; i < part->count; i++) {
		uint64_t in = offset - part->segment[i].offset;

		if (in < part->segment[i].len) {
			*ret_len = part->segment[i].len - in;
			return part->segment[i].host + in;
		}
	}
	/* Offsets follow from the checked queue size, never from guest memory. */
	assert(false && "offset outside the ring");
	return NULL;
}

/* A used element may straddle two pages: the entries begin 4 bytes into the part. */
static void part_write(const struct virtq_ring_part *part, uint64_t offset, const void *buf,
		       uint64_t len)
{
	for (uint64_t done = 0, here; done < len; done += here) {
		unsigned char *host = part_at(part, offset + done, &here);

		here = MIN(here, len - done);
		memcpy(host, (const unsigned char *)buf + done, here);
	}
}

/*
 * A 16-bit field that both sides access at any time. The parts are aligned in
 * IOVA space (virtq_start) and segments keep the alignment (part_translate), so
 * a field never straddles two segments.
 */
static _Atomic uint16_t *part_field(const struct virtq_ring_part *part, uint64_t offset)
{
	uint64_t len;

	return (_Atomic uint16_t *)(void *)part_at(part, offset, &len);
}

static uint16_t field_load(const struct virtq_ring_part *part, uint64_t offset, memory_order order)
{
	return le16toh(atomic_load_explicit(part_field(part, offset), order));
}

static void field_store(const struct virtq_ring_part *part, uint64_t offset, uint16_t value,
			memory_order order)
{
	atomic_store_explicit(part_field(part, offset), htole16(value), order);
}

/*
 * Descriptor @index. Each half is loaded once, as a whole: nothing goes back to guest memory
 * for a value that was checked, and no C library copies it in pieces (or twice, as memcpy may).
 */
static struct desc desc_load(const struct virtq_ring_part *part, unsigned index)
{
	uint64_t len;
	const _Atomic uint64_t *half =
		(const void *)part_at(part, sizeof(struct wire_desc) * index, &len);
	struct wire_desc wire;
	uint64_t copy[] = { atomic_load_explicit(&half[0], memory_order_relaxed),
			    atomic_load_explicit(&half[1], memory_order_relaxed) };

	memcpy(&wire, copy, sizeof(wire));
	return desc_from_wire(&wire);
}

static uint64_t used_event_offset(const struct virtq *vq)
{
	return RING_ENTRIES + 2ULL * vq->config.size;
}

static uint64_t avail_event_offset(const struct virtq *vq)
{
	return RING_ENTRIES + sizeof(struct wire_used_elem) * vq->config.size;
}

/*
 * Translation.
 */

/* 0, or -EFAULT with *@ret_fault the first address that can't be reached. */
static int part_translate(struct dma_port *port, struct virtq_ring_part *part, enum dma_dir dir,
			  iova_t *ret_fault)
{
	struct dma_piece piece;

	part->count = 0;
	for (uint64_t done = 0; done < part->len; done += piece.len) {
		iova_t at = IOVA(part->base.v + done);

		if (dma_translate(port, at, part->len - done, dir, &piece) < 0) {
			*ret_fault = at;
			return -EFAULT;
		}
		/* Mappings are pages; a translator that gives less has a bug. */
		assert(piece.len && piece.len <= part->len - done);
		assert((((uintptr_t)piece.host ^ at.v) & 15) == 0);

		unsigned n = part->count;

		/* Small mappings of adjacent memory make one segment. */
		if (n && part->segment[n - 1].host + part->segment[n - 1].len == piece.host) {
			part->segment[n - 1].len += piece.len;
			continue;
		}
		if (n == VIRTQ_MAX_SEGMENTS) {
			*ret_fault = at;
			return -EFAULT;
		}
		part->segment[n].offset = done;
		part->segment[n].len = piece.len;
		part->segment[n].host = piece.host;
		part->count++;
	}
	return 0;
}

/*
 * Begin a section with the ring translated. Returns 0 inside the section, or
 * -EFAULT outside it with the first address that can't be reached.
 */
static int ring_try_enter(struct virtq *vq, iova_t *ret_fault, enum dma_dir *ret_dir)
{
	enum dma_dir dir = DMA_READ;
	iova_t fault;

	dma_enter(vq->port);
	if (vq->epoch == vq->port->epoch)
		return 0;
	vq->epoch = 0;
	if (part_translate(vq->port, &vq->desc, DMA_READ, &fault) < 0 ||
	    part_translate(vq->port, &vq->avail, DMA_READ, &fault) < 0)
		goto refused;
	dir = DMA_WRITE;
	if (part_translate(vq->port, &vq->used, DMA_WRITE, &fault) < 0)
		goto refused;
	vq->epoch = vq->port->epoch;
	return 0;
refused:
	dma_leave(vq->port);
	*ret_fault = fault;
	*ret_dir = dir;
	return -EFAULT;
}

/* The same, and the fault is reported. */
static int ring_enter(struct virtq *vq)
{
	enum dma_dir dir;
	iova_t fault;

	if (!ring_try_enter(vq, &fault, &dir))
		return 0;
	dma_fault(vq->port, fault, dir);
	return -EFAULT;
}

/*
 * The same, silently: for what goes along with a look at the ring, which reports
 * by itself. The driver gets one report of one access.
 */
static bool ring_enter_quietly(struct virtq *vq)
{
	enum dma_dir dir;
	iova_t fault;

	return !ring_try_enter(vq, &fault, &dir);
}

static void ring_leave(struct virtq *vq)
{
	dma_leave(vq->port);
}

/*
 * Life.
 */

static bool part_init(struct virtq_ring_part *part, iova_t base, uint64_t len, uint64_t align)
{
	uint64_t last;

	*part = (struct virtq_ring_part){ .base = base, .len = len };
	return base.v % align == 0 && !__builtin_add_overflow(base.v, len - 1, &last);
}

void virtq_start(struct virtq *vq, const struct virtq_config *config, struct dma_port *port,
		 bool event_idx, bool indirect)
{
	uint64_t size = config->size;
	/* used_event and avail_event exist only when the feature was negotiated. */
	uint64_t event = event_idx ? 2 : 0;

	*vq = (struct virtq){
		.port = port,
		.state = VIRTQ_BROKEN,
		.config = *config,
		.event_idx = event_idx,
		.indirect = indirect,
	};
	if (size == 0 || size > VIRTQ_MAX_SIZE || (size & (size - 1)) != 0)
		return;
	if (!part_init(&vq->desc, config->desc, sizeof(struct wire_desc) * size, 16) ||
	    !part_init(&vq->avail, config->driver, RING_ENTRIES + 2 * size + event, 2) ||
	    !part_init(&vq->used, config->device,
		       RING_ENTRIES + sizeof(struct wire_used_elem) * size + event, 4))
		return;
	vq->state = VIRTQ_RUNNING;
}

void virtq_stop(struct virtq *vq)
{
	*vq = (struct virtq){ .state = VIRTQ_STOPPED };
}

/*
 * Chains.
 */

/* Append the buffer that @desc describes; false when the chain breaks a rule. */
static bool chain_add(const struct virtq *vq, struct virtq_chain *chain, const struct desc *desc)
{
	unsigned count = chain->out + chain->in;
	uint64_t end;

	/* A loop ends here too: the rules allow no more descriptors than the queue has. */
	if (count >= vq->config.size || count >= chain->max)
		return false;
	if (desc->len && __builtin_add_overflow(desc->addr, desc->len - 1, &end))
		return false;
	if (desc->flags & DESC_F_WRITE) {
		chain->in++;
		chain->in_bytes += desc->len;
	} else {
		if (chain->in)
			return false;
		chain->out++;
		chain->out_bytes += desc->len;
	}
	chain->buf[count].addr = IOVA(desc->addr);
	chain->buf[count].len = desc->len;
	return chain->out_bytes + chain->in_bytes <= MAX_CHAIN_BYTES;
}

/*
 * Follow the descriptors from chain->head. Inside the section. Returns 0 at the
 * end of the chain; 1 with *@ret_table when it ends in an indirect descriptor;
 * -EPROTO.
 */
static int walk_direct(struct virtq *vq, struct virtq_chain *chain, struct desc *ret_table)
{
	uint16_t index = chain->head;

	for (;;) {
		if (index >= vq->config.size)
			return -EPROTO;

		struct desc desc = desc_load(&vq->desc, index);

		if (desc.flags & DESC_F_INDIRECT) {
			if (!vq->indirect || (desc.flags & DESC_F_NEXT))
				return -EPROTO;
			*ret_table = desc;
			return 1;
		}
		if (!chain_add(vq, chain, &desc))
			return -EPROTO;
		if (!(desc.flags & DESC_F_NEXT))
			return 0;
		index = desc.next;
	}
}

/*
 * Follow the descriptors of the indirect table @table (2.7.5.3), which needn't
 * be contiguous. Outside the section: dma_read has its own. Its WRITE flag means
 * nothing. Returns 0, -EPROTO, or -EFAULT after reporting the fault.
 */
static int walk_indirect(struct virtq *vq, struct virtq_chain *chain, const struct desc *table)
{
	struct wire_desc window[INDIRECT_WINDOW];
	unsigned count = table->len / sizeof(struct wire_desc);
	unsigned first = 0, filled = 0;
	uint64_t end;

	if (table->len % sizeof(struct wire_desc) != 0 || count == 0 || count > VIRTQ_MAX_SIZE ||
	    __builtin_add_overflow(table->addr, table->len - 1, &end))
		return -EPROTO;
	for (unsigned index = 0;;) {
		if (index - first >= filled) {
			/* Drivers fill tables in order, so the window mostly moves on. */
			first = index;
			filled = MIN(count - first, (unsigned)INDIRECT_WINDOW);
			if (dma_read(vq->port, IOVA(table->addr + sizeof(window[0]) * first),
				     window, sizeof(window[0]) * filled) < 0)
				return -EFAULT;
		}

		struct desc desc = desc_from_wire(&window[index - first]);

		if (desc.flags & DESC_F_INDIRECT)
			return -EPROTO;
		if (!chain_add(vq, chain, &desc))
			return -EPROTO;
		if (!(desc.flags & DESC_F_NEXT))
			return 0;
		index = desc.next;
		if (index >= count)
			return -EPROTO;
	}
}

/* The next available head, inside the section: 1 with *@ret_head, 0 when none, -EPROTO. */
static int next_head(struct virtq *vq, uint16_t *ret_head)
{
	uint16_t mask = (uint16_t)(vq->config.size - 1);
	/* Pairs with the driver's release store after it filled the ring. */
	uint16_t idx = field_load(&vq->avail, RING_IDX, memory_order_acquire);
	uint16_t pending = (uint16_t)(idx - vq->next_avail);

	if (pending == 0)
		return 0;
	if (pending > vq->config.size)
		return -EPROTO;
	*ret_head = field_load(&vq->avail, RING_ENTRIES + 2ULL * (vq->next_avail & mask),
			       memory_order_relaxed);
	return 1;
}

static int broken(struct virtq *vq)
{
	vq->state = VIRTQ_BROKEN;
	return -EPROTO;
}

int virtq_pop(struct virtq *vq, struct virtq_chain *chain)
{
	struct desc table;

	if (vq->state != VIRTQ_RUNNING)
		return vq->state == VIRTQ_BROKEN ? -EPROTO : 0;

	int result = ring_enter(vq);

	if (result < 0)
		return result;
	chain->out = chain->in = 0;
	chain->out_bytes = chain->in_bytes = 0;
	result = next_head(vq, &chain->head);
	if (result <= 0) {
		ring_leave(vq);
		return result < 0 ? broken(vq) : 0;
	}
	result = walk_direct(vq, chain, &table);
	chain->slots = chain->out + chain->in + (result > 0);
	ring_leave(vq);
	if (result > 0)
		result = walk_indirect(vq, chain, &table);
	if (result == -EFAULT)
		return result;
	if (result < 0 || chain->out_bytes + chain->in_bytes == 0)
		return broken(vq);
	vq->next_avail++;
	return 1;
}

void virtq_unpop(struct virtq *vq)
{
	if (vq->state == VIRTQ_RUNNING)
		vq->next_avail--;
}

int virtq_push(struct virtq *vq, uint16_t head, uint32_t len)
{
	struct wire_used_elem elem = { le32_from(head), le32_from(len) };
	uint16_t mask = (uint16_t)(vq->config.size - 1);

	if (vq->state != VIRTQ_RUNNING)
		return 0;
	if (ring_enter(vq) < 0)
		return -EFAULT;
	part_write(&vq->used, RING_ENTRIES + sizeof(elem) * (vq->next_used & mask), &elem,
		   sizeof(elem));
	ring_leave(vq);
	vq->next_used++;
	return 0;
}

/*
 * Notifications.
 */

bool virtq_publish(struct virtq *vq)
{
	uint16_t old = vq->published_used, new = vq->next_used;
	bool notify;

	if (vq->state != VIRTQ_RUNNING || old == new)
		return false;
	if (ring_enter(vq) < 0)
		return false;
	/* Pairs with the driver's acquire load: the elements are visible before it. */
	field_store(&vq->used, RING_IDX, new, memory_order_release);
	vq->published_used = new;
	/* Pairs with the driver's fence between asking for interrupts and looking at used.idx. */
	atomic_thread_fence(memory_order_seq_cst);
	if (vq->event_idx) {
		uint16_t event =
			field_load(&vq->avail, used_event_offset(vq), memory_order_relaxed);

		/* Did used.idx just move past used_event (2.7.7.2)? Modulo 65536. */
		notify = (uint16_t)(new - event - 1) < (uint16_t)(new - old);
	} else {
		notify = !(field_load(&vq->avail, RING_FLAGS, memory_order_relaxed) &
			   AVAIL_F_NO_INTERRUPT);
	}
	ring_leave(vq);
	return notify;
}

bool virtq_enable_kicks(struct virtq *vq)
{
	if (vq->state != VIRTQ_RUNNING || !ring_enter_quietly(vq))
		return false;
	if (vq->event_idx)
		field_store(&vq->used, avail_event_offset(vq), vq->next_avail,
			    memory_order_relaxed);
	else
		field_store(&vq->used, RING_FLAGS, 0, memory_order_relaxed);
	/* Pairs with the driver's fence between storing avail.idx and deciding to kick. */
	atomic_thread_fence(memory_order_seq_cst);

	bool more = field_load(&vq->avail, RING_IDX, memory_order_relaxed) != vq->next_avail;

	ring_leave(vq);
	return more;
}

void virtq_disable_kicks(struct virtq *vq)
{
	if (vq->state != VIRTQ_RUNNING || vq->event_idx)
		return;
	if (!ring_enter_quietly(vq))
		return;
	field_store(&vq->used, RING_FLAGS, USED_F_NO_NOTIFY, memory_order_relaxed);
	ring_leave(vq);
}
