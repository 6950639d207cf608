#include "tests/guests/virtio/vring.h"
#include "tests/guests/arch.h"

#define RING_FLAGS   0
#define RING_IDX     2
#define RING_ENTRIES 4

#define AVAIL_F_NO_INTERRUPT 1
#define USED_F_NO_NOTIFY     1

/* The status register is an exit, so it isn't looked at all the time. */
#define STATUS_CHECK_MS 20

struct ring_part ring_part_at(uint64_t addr, uint64_t iova)
{
	struct ring_part part = { .iova = iova };

	for (unsigned i = 0; i < RING_PART_PAGES; i++)
		part.page[i] = (addr & ~(uint64_t)(PAGE - 1)) + (uint64_t)i * PAGE;
	return part;
}

/* The memory of the byte at @offset. No field straddles two pages. */
static volatile void *part_at(const struct ring_part *part, uint32_t offset)
{
	uint64_t at = part->iova % PAGE + offset;

	return phys(part->page[at / PAGE] + at % PAGE);
}

static uint16_t part_get16(const struct ring_part *part, uint32_t offset)
{
	return *(volatile uint16_t *)part_at(part, offset);
}

static void part_put16(const struct ring_part *part, uint32_t offset, uint16_t value)
{
	*(volatile uint16_t *)part_at(part, offset) = value;
}

static uint32_t part_get32(const struct ring_part *part, uint32_t offset)
{
	return *(volatile uint32_t *)part_at(part, offset);
}

static void part_put32(const struct ring_part *part, uint32_t offset, uint32_t value)
{
	*(volatile uint32_t *)part_at(part, offset) = value;
}

static uint32_t used_event(const struct vring *ring)
{
	return RING_ENTRIES + 2 * (uint32_t)ring->size;
}

static uint32_t avail_event(const struct vring *ring)
{
	return RING_ENTRIES + 8 * (uint32_t)ring->size;
}

void vring_init(struct vring *ring, struct vdev *dev, unsigned index, uint16_t size)
{
	ring->dev = dev;
	ring->index = index;
	ring->size = size;
	ring->next_desc = ring->next_avail = ring->next_used = ring->kicked = 0;
	part_put16(&ring->avail, RING_FLAGS, AVAIL_F_NO_INTERRUPT);
	part_put16(&ring->avail, RING_IDX, 0);
	part_put16(&ring->used, RING_FLAGS, 0);
	part_put16(&ring->used, RING_IDX, 0);
}

void vring_enable(struct vring *ring)
{
	const struct queue_addr addr = { ring->desc.iova, ring->avail.iova, ring->used.iova };

	ring->dev->transport->queue_place(ring->dev, ring->index, ring->size, &addr);
	ring->dev->transport->queue_enable(ring->dev, ring->index);
}

static void write_desc(const struct ring_part *part, uint16_t index, uint64_t addr, uint32_t len,
		       uint16_t flags, uint16_t next)
{
	uint32_t at = DESC_SIZE * (uint32_t)index;

	part_put32(part, at, (uint32_t)addr);
	part_put32(part, at + 4, (uint32_t)(addr >> 32));
	part_put32(part, at + 8, len);
	part_put16(part, at + 12, flags);
	part_put16(part, at + 14, next);
}

void vring_write_desc(struct vring *ring, uint16_t index, uint64_t addr, uint32_t len,
		      uint16_t flags, uint16_t next)
{
	write_desc(&ring->desc, index, addr, len, flags, next);
}

void vring_offer(struct vring *ring, uint16_t head)
{
	uint32_t slot = ring->next_avail++ % ring->size;

	part_put16(&ring->avail, RING_ENTRIES + 2 * slot, head);
}

uint16_t vring_add(struct vring *ring, const struct seg *seg, unsigned n)
{
	uint16_t head = ring->next_desc;

	for (unsigned i = 0; i < n; i++) {
		uint16_t index = ring->next_desc;
		uint16_t flags = (uint16_t)((seg[i].write ? DESC_F_WRITE : 0) |
					    (i + 1 < n ? DESC_F_NEXT : 0));

		ring->next_desc = (uint16_t)((index + 1) % ring->size);
		write_desc(&ring->desc, index, seg[i].addr, seg[i].len, flags, ring->next_desc);
	}
	vring_offer(ring, head);
	return head;
}

uint16_t vring_add_indirect(struct vring *ring, const struct ring_part *table,
			    const struct seg *seg, unsigned n)
{
	uint16_t head = ring->next_desc;

	for (unsigned i = 0; i < n; i++) {
		uint16_t flags = (uint16_t)((seg[i].write ? DESC_F_WRITE : 0) |
					    (i + 1 < n ? DESC_F_NEXT : 0));

		write_desc(table, (uint16_t)i, seg[i].addr, seg[i].len, flags, (uint16_t)(i + 1));
	}
	ring->next_desc = (uint16_t)((head + 1) % ring->size);
	write_desc(&ring->desc, head, table->iova, DESC_SIZE * n, DESC_F_INDIRECT, 0);
	vring_offer(ring, head);
	return head;
}

void vring_set_avail_idx(struct vring *ring, uint16_t idx)
{
	/* The device must see the descriptors and the ring first (2.7.13.3). */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	part_put16(&ring->avail, RING_IDX, idx);
}

void vring_publish(struct vring *ring)
{
	vring_set_avail_idx(ring, ring->next_avail);
}

void vring_kick(struct vring *ring)
{
	uint16_t old = ring->kicked, new = ring->next_avail;
	bool wanted;

	vring_publish(ring);
	ring->kicked = new;
	/* Between avail.idx and the device's wish (2.7.13.4.1). */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (ring->event_idx) {
		uint16_t event = part_get16(&ring->used, avail_event(ring));

		wanted = (uint16_t)(new - event - 1) < (uint16_t)(new - old);
	} else {
		wanted = !(part_get16(&ring->used, RING_FLAGS) & USED_F_NO_NOTIFY);
	}
	if (wanted)
		ring->dev->transport->notify(ring->dev, ring->index);
}

uint16_t vring_used_idx(struct vring *ring)
{
	return part_get16(&ring->used, RING_IDX);
}

bool vring_poll(struct vring *ring, uint32_t *ret_id, uint32_t *ret_len)
{
	uint32_t at = RING_ENTRIES + 8 * (uint32_t)(ring->next_used % ring->size);

	if (vring_used_idx(ring) == ring->next_used)
		return false;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	*ret_id = part_get32(&ring->used, at);
	*ret_len = part_get32(&ring->used, at + 4);
	ring->next_used++;
	/* No interrupt, please: half a ring away from what the device uses next. */
	if (ring->event_idx)
		part_put16(&ring->avail, used_event(ring), (uint16_t)(ring->next_used + 0x8000));
	return true;
}

bool vring_wait(struct vring *ring, unsigned ms, uint32_t *ret_id, uint32_t *ret_len)
{
	uint64_t deadline = deadline_in(ms), look = deadline_in(STATUS_CHECK_MS);

	while (!vring_poll(ring, ret_id, ret_len)) {
		if (deadline_passed(deadline))
			return false;
		if (deadline_passed(look)) {
			if (vdev_status(ring->dev) & STATUS_NEEDS_RESET)
				return vring_poll(ring, ret_id, ret_len);
			look = deadline_in(STATUS_CHECK_MS);
		}
		arch_relax();
	}
	return true;
}
