/*
 * Does the host's IOMMU hold what our books say, and nothing else?
 *
 * Neither Type1 nor iommufd lists its mappings, but both tell them apart by what they refuse:
 * a map where something is mapped, and an unmap that finds nothing, or would cut something in
 * two. So of each mapping the first and the last page are asked for, and of all that lies
 * between mappings that it is empty. That is as the kernel's books have it; how long each
 * mapping is is compared with what the host unmapped when it is unmapped. What is found where
 * nothing should be is taken away: it is memory that the guest doesn't let the device reach.
 */
#include "devices/vfio/space.h"

#include <inttypes.h>

#define MAX_REPORTS 8

struct audit {
	struct vfio_space *space;
	uint64_t differences, mappings;
	uint64_t at; /* the end of the last mapping */
	bool end;    /* that was the end of the address space */
};

static void report(struct audit *a, const char *what, uint64_t first, uint64_t last)
{
	if (a->differences++ < MAX_REPORTS)
		log_error("audit: %s: the host %s at 0x%" PRIx64 "-0x%" PRIx64, a->space->name,
			  what, first, last);
}

static void audit_empty(struct audit *a, uint64_t first, uint64_t last)
{
	uint64_t half = UINT64_MAX / 2;

	/* The whole space has a size that isn't a number. */
	if (first == 0 && last == UINT64_MAX) {
		audit_empty(a, 0, half);
		audit_empty(a, half + 1, UINT64_MAX);
		return;
	}
	if (!a->space->ops->empty(a->space, first, last - first + 1))
		report(a, "held memory that the device may not reach,", first, last);
}

static void audit_mapping(struct audit *a, uint64_t first, uint64_t last)
{
	const struct vfio_peer *peer = vfio_peer_find_locked(a->space, first);
	uint64_t last_page = ALIGN_DOWN(last, a->space->granule);

	/* Registers that aren't there now. */
	if (peer && !peer->host)
		return;

	if (first > a->at)
		audit_empty(a, a->at, first - 1);
	if (!a->space->ops->holds(a->space, first) ||
	    (last_page != first && !a->space->ops->holds(a->space, last_page)))
		report(a, "doesn't hold all of the mapping", first, last);
	a->mappings++;
	a->end = last == UINT64_MAX;
	a->at = last + 1;
}

uint64_t vfio_space_audit(struct dma_listener *listener, dma_listener_next_fn next, void *opaque)
{
	struct audit a = { .space = container_of(listener, struct vfio_space, listener) };
	iova_t first, last;

	pthread_mutex_lock(&a.space->lock);
	if (next) {
		while (next(opaque, &first, &last))
			audit_mapping(&a, first.v, last.v);
	} else {
		for (unsigned i = 0; i < a.space->ram->count; i++) {
			const struct ram_region *region = &a.space->ram->region[i];

			audit_mapping(&a, region->base.v, region->base.v + region->size - 1);
		}
	}
	if (!a.end)
		audit_empty(&a, a.at, UINT64_MAX);
	if (a.mappings != a.space->count) {
		log_error("audit: %s: %" PRIu64 " mappings were made on the host, %" PRIu64
			  " are in the books",
			  a.space->name, a.space->count, a.mappings);
		a.differences++;
	}
	pthread_mutex_unlock(&a.space->lock);
	return a.differences;
}
