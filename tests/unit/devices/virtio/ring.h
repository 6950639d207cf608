#ifndef TESTS_UNIT_DEVICES_VIRTIO_RING_H
#define TESTS_UNIT_DEVICES_VIRTIO_RING_H

/*
 * The other side of a virtqueue, for tests and fuzzers: a small memory behind a
 * fake IOMMU with one page table (struct world), and a driver that writes rings
 * into it (struct ring). It shares no code with the parser.
 */

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "devices/virtio/virtq.h"

#define PAGE	   4096ULL
#define PAGES	   64
#define WORLD_BASE 0x7000000000ULL /* IOVA of the first page */

#define F_NEXT	   1
#define F_WRITE	   2
#define F_INDIRECT 4

struct world {
	struct dma_view view;
	_Atomic uint64_t epoch;
	struct dma_port port;
	unsigned char *mem; /* owns; PAGES pages */
	struct {
		unsigned page; /* of mem */
		uint8_t perm;  /* of enum dma_dir; 0 = not mapped */
	} map[PAGES];
	unsigned translations, faults;
	int refs;
	uint64_t fault_addr;
	enum dma_dir fault_dir;
};

static inline struct world *world_of(struct dma_port *port)
{
	return container_of(port->view, struct world, view);
}

static inline int world_translate(struct dma_port *port, iova_t iova, uint64_t len,
				  enum dma_dir dir, struct dma_piece *ret_piece)
{
	struct world *w = world_of(port);
	uint64_t page = (iova.v - WORLD_BASE) / PAGE, in = iova.v % PAGE;

	assert(atomic_load(&port->active)); /* only inside a section */
	assert(len);
	w->translations++;
	if (iova.v < WORLD_BASE || page >= PAGES || !(w->map[page].perm & dir))
		return -EFAULT;
	ret_piece->host = w->mem + w->map[page].page * PAGE + in;
	ret_piece->len = MIN(len, PAGE - in);
	ret_piece->mapping = &w->map[page];
	return 0;
}

static inline void world_ref(struct dma_port *port, void *mapping)
{
	assert(atomic_load(&port->active));
	world_of(port)->refs++;
}

static inline void world_unref(struct dma_port *port, void *mapping)
{
	assert(!atomic_load(&port->active));
	world_of(port)->refs--;
}

static inline void world_fault(struct dma_port *port, iova_t iova, enum dma_dir dir)
{
	struct world *w = world_of(port);

	assert(!atomic_load(&port->active)); /* a report may make system calls */
	w->faults++;
	w->fault_addr = iova.v;
	w->fault_dir = dir;
}

static inline int world_attach(struct dma_view *view, struct dma_port *port)
{
	return 0;
}

static inline void world_detach(struct dma_view *view, struct dma_port *port)
{
}

static const struct dma_view_ops world_ops = {
	.translate = world_translate,
	.ref = world_ref,
	.unref = world_unref,
	.fault = world_fault,
	.attach_port = world_attach,
	.detach_port = world_detach,
};

/* All pages mapped; @scattered: neighbours in IOVA space are never neighbours in memory. */
static inline void world_init(struct world *w, bool scattered)
{
	*w = (struct world){ .epoch = 1 };
	w->mem = aligned_alloc(PAGE, PAGES * PAGE);
	assert(w->mem);
	memset(w->mem, 0, PAGES * PAGE);
	for (unsigned i = 0; i < PAGES; i++) {
		w->map[i].page = scattered ? (i * 37 + 11) % PAGES : i;
		w->map[i].perm = DMA_READ | DMA_WRITE;
	}
	w->view = (struct dma_view){ .ops = &world_ops, .epoch = &w->epoch };
	dma_port_init(&w->port, &w->view);
}

static inline void world_finish(struct world *w)
{
	assert(!atomic_load(&w->port.active)); /* nobody forgot to leave a section */
	assert(w->refs == 0);
	dma_port_finish(&w->port);
	free(w->mem);
}

/* Change what IOVA page @page maps to, as an UNMAP and a MAP would. */
static inline void world_remap(struct world *w, unsigned page, unsigned to, uint8_t perm)
{
	w->map[page].page = to;
	w->map[page].perm = perm;
	atomic_fetch_add(&w->epoch, 1);
}

static inline unsigned char *world_byte(struct world *w, uint64_t iova)
{
	uint64_t at = iova - WORLD_BASE;

	return w->mem + w->map[at / PAGE].page * PAGE + at % PAGE;
}

/* The CPU's accesses: through the page table, whatever its permissions. */
static inline void poke(struct world *w, uint64_t iova, const void *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		*world_byte(w, iova + i) = ((const unsigned char *)buf)[i];
}

static inline void peek(struct world *w, uint64_t iova, void *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((unsigned char *)buf)[i] = *world_byte(w, iova + i);
}

static inline void poke16(struct world *w, uint64_t iova, uint16_t value)
{
	le16 wire = le16_from(value);

	poke(w, iova, &wire, sizeof(wire));
}

static inline uint16_t peek16(struct world *w, uint64_t iova)
{
	le16 wire;

	peek(w, iova, &wire, sizeof(wire));
	return le16_get(wire);
}

/* A driver's view of one queue. */
struct ring {
	struct world *w;
	uint16_t size, avail_idx;
	uint64_t desc, avail, used;
};

/* The parts one after the other from @at, in IOVA space. */
static inline struct ring ring_make(struct world *w, uint16_t size, uint64_t at)
{
	struct ring r = { .w = w, .size = size, .desc = at };

	r.avail = r.desc + 16ULL * size;
	r.used = ALIGN_UP(r.avail + 6 + 2ULL * size, 4);
	return r;
}

static inline struct virtq_config ring_config(const struct ring *r)
{
	return (struct virtq_config){ r->size, true, IOVA(r->desc), IOVA(r->avail), IOVA(r->used) };
}

/* Descriptor @index of the table at @table. */
static inline void put_desc(struct world *w, uint64_t table, unsigned index, uint64_t addr,
			    uint32_t len, uint16_t flags, uint16_t next)
{
	struct {
		le64 addr;
		le32 len;
		le16 flags, next;
	} wire = { le64_from(addr), le32_from(len), le16_from(flags), le16_from(next) };

	poke(w, table + 16ULL * index, &wire, sizeof(wire));
}

static inline void ring_desc(struct ring *r, unsigned index, uint64_t addr, uint32_t len,
			     uint16_t flags, uint16_t next)
{
	put_desc(r->w, r->desc, index, addr, len, flags, next);
}

/* Make @head available. */
static inline void ring_offer(struct ring *r, uint16_t head)
{
	poke16(r->w, r->avail + 4 + 2ULL * (r->avail_idx % r->size), head);
	poke16(r->w, r->avail + 2, ++r->avail_idx);
}

static inline uint16_t ring_used_idx(struct ring *r)
{
	return peek16(r->w, r->used + 2);
}

/* Used element number @index (free-running). */
static inline void ring_used(struct ring *r, uint16_t index, uint32_t *ret_id, uint32_t *ret_len)
{
	le32 wire[2];

	peek(r->w, r->used + 4 + 8ULL * (index % r->size), wire, sizeof(wire));
	*ret_id = le32_get(wire[0]);
	*ret_len = le32_get(wire[1]);
}

static inline void ring_set_used_event(struct ring *r, uint16_t event)
{
	poke16(r->w, r->avail + 4 + 2ULL * r->size, event);
}

static inline uint16_t ring_avail_event(struct ring *r)
{
	return peek16(r->w, r->used + 4 + 8ULL * r->size);
}

#endif
