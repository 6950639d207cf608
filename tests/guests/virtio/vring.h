#ifndef TESTS_GUESTS_VIRTIO_VRING_H
#define TESTS_GUESTS_VIRTIO_VRING_H

/*
 * The driver's side of a split virtqueue (virtio 1.3, 2.7), polled. Its three
 * parts may be anywhere in the device's address space, each page of them
 * anywhere in memory. Descriptors are taken in turn: whoever has no more of them
 * in flight than the queue has entries needs no free list.
 */

#include "tests/guests/virtio/virtio.h"

#define RING_PART_PAGES 8

/* Page i of the part, from the one that holds its first byte, is at @page[i] in memory. */
struct ring_part {
	uint64_t iova;
	uint64_t page[RING_PART_PAGES];
};

struct vring {
	struct vdev *dev;
	unsigned index;
	uint16_t size;
	bool event_idx;
	struct ring_part desc, avail, used;
	uint16_t next_desc, next_avail, next_used;
	uint16_t kicked; /* next_avail at the last kick */
};

/* A descriptor to be. */
struct seg {
	uint64_t addr;
	uint32_t len;
	bool write; /* by the device */
};

#define DESC_F_NEXT	1
#define DESC_F_WRITE	2
#define DESC_F_INDIRECT 4
#define DESC_SIZE	16

/* Bytes of the parts of a queue of @size. */
static inline uint32_t vring_desc_size(uint16_t size)
{
	return DESC_SIZE * (uint32_t)size;
}

static inline uint32_t vring_avail_size(uint16_t size)
{
	return 6 + 2 * (uint32_t)size;
}

static inline uint32_t vring_used_size(uint16_t size)
{
	return 6 + 8 * (uint32_t)size;
}

/* A part that is contiguous in memory from @addr, and seen by the device at @iova. */
struct ring_part ring_part_at(uint64_t addr, uint64_t iova);

/*
 * An empty queue in the parts that the caller placed. The device is told by
 * vring_enable, before DRIVER_OK.
 */
void vring_init(struct vring *ring, struct vdev *dev, unsigned index, uint16_t size);
void vring_enable(struct vring *ring);

/* Write descriptor @index of the ring, whatever its contents. */
void vring_write_desc(struct vring *ring, uint16_t index, uint64_t addr, uint32_t len,
		      uint16_t flags, uint16_t next);
/* Make @head available without looking at it. */
void vring_offer(struct vring *ring, uint16_t head);
/* A chain of @n segments; not yet visible to the device. Returns its head. */
uint16_t vring_add(struct vring *ring, const struct seg *seg, unsigned n);
/* The same in an indirect table of which @table is the memory and @iova the address. */
uint16_t vring_add_indirect(struct vring *ring, const struct ring_part *table,
			    const struct seg *seg, unsigned n);
/* avail.idx as it should be: what was added becomes visible. */
void vring_publish(struct vring *ring);
/* Publish, and notify the device if it wants to be. */
void vring_kick(struct vring *ring);

/* The next used element, if there is one. */
bool vring_poll(struct vring *ring, uint32_t *ret_id, uint32_t *ret_len);
/* The same, waiting for it; gives up after @ms, or when the device asks for a reset. */
bool vring_wait(struct vring *ring, unsigned ms, uint32_t *ret_id, uint32_t *ret_len);
/* used.idx, and how to break avail.idx. */
uint16_t vring_used_idx(struct vring *ring);
void vring_set_avail_idx(struct vring *ring, uint16_t idx);

#endif
