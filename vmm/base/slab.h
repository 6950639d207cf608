#ifndef VMM_BASE_SLAB_H
#define VMM_BASE_SLAB_H

/*
 * Memory for millions of objects of one size, of which a guest decides how many
 * there are.
 *
 * Objects come from chunks that double in size up to 2 MiB (then they are huge
 * pages where the host has them: a random access among a million objects misses
 * the cache as it is, and shouldn't miss the TLB too). They go back to the slab,
 * and to the host only when all of it does: a reader without a lock that lost a
 * race may look at an object that was recycled, never at memory that is gone.
 *
 * One thread at a time, or the caller's lock.
 */

#include "vmm/base/types.h"

/* Zeroed but for @size it is empty. */
struct slab {
	size_t size;		   /* of an object: a multiple of 16, at most 1 KiB */
	void *free;		   /* linked through the last pointer in each */
	uint64_t num_free;	   /* in that list */
	struct slab_chunk *chunks; /* owns; the newest is carved from its front */
	size_t at;		   /* how far the newest chunk is carved, in bytes */
	uint64_t bytes;		   /* taken from the host */
};

/* See to it that the next @n (at most 32) calls of slab_take succeed. 0 or -ENOMEM. */
int slab_reserve(struct slab *slab, unsigned n);

/*
 * An object with whatever an earlier use left in it, aligned to @size when that
 * is a power of two up to 64; NULL without memory. Only its last pointer was ever
 * changed by the slab, atomically.
 */
void *slab_take(struct slab *slab);

/* Give an object back, for the next slab_take. */
void slab_give(struct slab *slab, void *object);

/* Free everything: no object is used any more. The slab is empty then. */
void slab_finish(struct slab *slab);

#endif
