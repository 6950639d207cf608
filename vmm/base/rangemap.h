#ifndef VMM_BASE_RANGEMAP_H
#define VMM_BASE_RANGEMAP_H

/*
 * Disjoint intervals of 64-bit numbers, both ends inclusive, each with a
 * pointer; ordered, and built for millions of entries (24 bytes each at full
 * nodes, under 70 in the worst case).
 *
 * One writer at a time; rangemap_next and rangemap_find may run on any number of
 * other threads meanwhile, without a lock. They find what was there before or
 * after a concurrent change, never a mixture. The caller keeps the value alive
 * while readers use it (see vmm/core/dma.h for how the IOMMU does).
 */

#include <stdatomic.h>
#include "vmm/base/types.h"

struct rangemap_node;

/*
 * Memory for the nodes of all maps of one writer. Nodes go back to the pool,
 * and to the host only when the pool is finished: a reader that lost a race may
 * look at a node that was recycled, never at memory that is gone.
 */
struct rangemap_pool {
	struct rangemap_node *free;    /* linked through child 0 */
	unsigned num_free;	       /* in the list */
	struct rangemap_chunk *chunks; /* owns; the newest is carved from its front */
	unsigned carved;	       /* nodes already taken from the newest chunk */
};

/* Zero-initialised with @pool set is an empty map. */
struct rangemap {
	struct rangemap_pool *pool; /* borrows */
	uint64_t count;		    /* entries; the writer's */
	/* Odd while the writer changes something; a reader's walk counts only if it stayed put. */
	_Atomic uint64_t seq;
	_Atomic(struct rangemap_node *) root; /* NULL: empty */
};

struct rangemap_entry {
	uint64_t first, last; /* inclusive */
	void *value;
};

/* Free the pool's memory: no map of it is used any more. Accepts a zeroed pool. */
void rangemap_pool_finish(struct rangemap_pool *pool);

/*
 * The entry with the smallest @first among those that end at or after @at:
 * the one that contains @at, or else the next one. False when there is none.
 * Any thread.
 */
bool rangemap_next(const struct rangemap *map, uint64_t at, struct rangemap_entry *ret_entry);

/* The entry that contains @at. False when there is none. Any thread. */
bool rangemap_find(const struct rangemap *map, uint64_t at, struct rangemap_entry *ret_entry);

/*
 * Add [@first, @last] with @value. Returns 0; -EINVAL when @first > @last;
 * -EEXIST when it overlaps an entry; -ENOMEM. On failure nothing changed. Writer.
 */
int rangemap_insert(struct rangemap *map, uint64_t first, uint64_t last, void *value);

/*
 * Remove the entry that starts at @first and ends at @last. Returns its value, or
 * NULL when there is no such entry. Allocates nothing. Writer.
 */
void *rangemap_remove(struct rangemap *map, uint64_t first, uint64_t last);

/*
 * Remove everything, calling @fn (may be NULL) for each entry in order. Much
 * faster than removing one by one. There must be no concurrent reader.
 */
void rangemap_clear(struct rangemap *map, void (*fn)(void *value, void *opaque), void *opaque);

#endif
