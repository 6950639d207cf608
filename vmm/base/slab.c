#include "vmm/base/slab.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#define FIRST_CHUNK KIB(64)
#define LAST_CHUNK  MIB(2) /* also the size of a huge page */

/* At the start of its memory; objects follow from the next cache line on. */
struct slab_chunk {
	struct slab_chunk *next;
	size_t bytes;
};

#define CHUNK_HEAD 64
_Static_assert(sizeof(struct slab_chunk) <= CHUNK_HEAD, "the head fits in its cache line");

static _Atomic(void *) *link_of(const struct slab *slab, void *object)
{
	return (_Atomic(void *) *)(void *)((char *)object + slab->size - sizeof(void *));
}

/*
 * Late readers may look, but believe nothing: release, so that who sees the link
 * also sees what the owner did before, such as to say that the object has changed.
 */
static void push(struct slab *slab, void *object)
{
	atomic_store_explicit(link_of(slab, object), slab->free, memory_order_release);
	slab->free = object;
	slab->num_free++;
}

static bool can_carve(const struct slab *slab)
{
	return slab->chunks && slab->chunks->bytes - slab->at >= slab->size;
}

static void *carve(struct slab *slab)
{
	void *object = (char *)slab->chunks + slab->at;

	slab->at += slab->size;
	return object;
}

static int grow(struct slab *slab)
{
	size_t bytes = MIN(MAX(slab->bytes, FIRST_CHUNK), LAST_CHUNK);
	struct slab_chunk *chunk = aligned_alloc(bytes, bytes);

	if (!chunk)
		return -ENOMEM;
	if (bytes == LAST_CHUNK)
		madvise(chunk, bytes, MADV_HUGEPAGE); /* only a wish */
	while (can_carve(slab))
		push(slab, carve(slab));
	chunk->next = slab->chunks;
	chunk->bytes = bytes;
	slab->chunks = chunk;
	slab->at = CHUNK_HEAD;
	slab->bytes += bytes;
	return 0;
}

int slab_reserve(struct slab *slab, unsigned n)
{
	if (slab->num_free >= n)
		return 0;
	uint64_t more = n - slab->num_free;

	if (slab->chunks && (slab->chunks->bytes - slab->at) / slab->size >= more)
		return 0;
	/* No chunk is as small as n objects; what the present one still has is kept. */
	return grow(slab);
}

void *slab_take(struct slab *slab)
{
	void *object = slab->free;

	if (object) {
		slab->free = atomic_load_explicit(link_of(slab, object), memory_order_relaxed);
		slab->num_free--;
		/* So that the next caller doesn't wait for it. */
		if (slab->free)
			__builtin_prefetch(link_of(slab, slab->free), 1);
		return object;
	}
	if (!can_carve(slab) && grow(slab))
		return NULL;
	return carve(slab);
}

void slab_give(struct slab *slab, void *object)
{
	push(slab, object);
}

void slab_finish(struct slab *slab)
{
	while (slab->chunks) {
		struct slab_chunk *next = slab->chunks->next;

		free(slab->chunks);
		slab->chunks = next;
	}
	*slab = (struct slab){ .size = slab->size };
}
