#ifndef VMM_BASE_RANGEMAP_H
#define VMM_BASE_RANGEMAP_H

/*
 * Disjoint intervals of 64-bit numbers, both ends inclusive, each with an item of
 * the caller's; ordered, and built for millions of entries (21 bytes each at full
 * nodes, under 56 in the worst case, beside the item).
 *
 * One writer at a time; rangemap_next and rangemap_find may run on any number of
 * other threads meanwhile, without a lock. They find what was there before or
 * after a concurrent change, never a mixture. The caller keeps the item that was
 * found alive while readers use it (see vmm/core/dma.h for how the IOMMU does),
 * and the memory of one that was removed may be used for another item, but not
 * for anything else: a reader that lost a race may look at its @first.
 */

#include <stdatomic.h>
#include "vmm/base/slab.h"

/* The start of what the caller keeps for an entry. */
struct rangemap_item {
	_Atomic uint64_t first; /* rangemap_insert sets it */
};

struct rangemap_node;

#define RANGEMAP_NODE_BYTES 1024

/* Zero-initialised with @nodes set is an empty map. */
struct rangemap {
	struct slab *nodes; /* borrows; of RANGEMAP_NODE_BYTES, for all maps of one writer */
	uint64_t count;	    /* entries; the writer's */
	/* Odd while the writer changes something; a reader's walk counts only if it stayed put. */
	_Atomic uint64_t seq;
	_Atomic(struct rangemap_node *) root; /* NULL: empty */
};

struct rangemap_entry {
	uint64_t first, last; /* inclusive */
	struct rangemap_item *item;
};

/*
 * The entry with the smallest @first among those that end at or after @at:
 * the one that contains @at, or else the next one. False when there is none.
 * Any thread.
 */
bool rangemap_next(const struct rangemap *map, uint64_t at, struct rangemap_entry *ret_entry);

/* The entry that contains @at. False when there is none. Any thread. */
bool rangemap_find(const struct rangemap *map, uint64_t at, struct rangemap_entry *ret_entry);

/*
 * Add [@first, @last] with @item, which the map borrows. Returns 0; -EINVAL when
 * @first > @last; -EEXIST when it overlaps an entry; -ENOMEM. On failure nothing
 * changed. Writer.
 */
int rangemap_insert(struct rangemap *map, uint64_t first, uint64_t last,
		    struct rangemap_item *item);

/*
 * Remove the entry that starts at @first and ends at @last. Returns its item, or
 * NULL when there is no such entry. Allocates nothing. Writer.
 */
struct rangemap_item *rangemap_remove(struct rangemap *map, uint64_t first, uint64_t last);

/*
 * Remove the first entries of those that end within [@first, @last], at most @max
 * of them: as many as are stored together, so that each costs little. Returns how
 * many, now at ret_entry[0] and up in order; 0 when none is left. Writer.
 */
unsigned rangemap_remove_range(struct rangemap *map, uint64_t first, uint64_t last,
			       struct rangemap_entry *ret_entry, unsigned max);

/*
 * Remove everything, calling @fn (may be NULL) for each entry in order. Much
 * faster than removing one by one. There must be no concurrent reader.
 */
void rangemap_clear(struct rangemap *map, void (*fn)(struct rangemap_item *item, void *opaque),
		    void *opaque);

#endif
