#include "devices/vfio/space.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/resource.h>
#include "vmm/core/dma.h"

static struct vfio_space *to_space(struct dma_listener *listener)
{
	return container_of(listener, struct vfio_space, listener);
}

/* Tell, once until there is room again, which limit of the host was met. */
static void report_limit(struct vfio_space *s, int error)
{
	struct rlimit limit;

	if (s->said_limit)
		return;
	s->said_limit = true;
	if (error == ENOSPC)
		log_limited(&s->log,
			    "%s: the host takes no more than %" PRIu64 " mappings for a device; "
			    "raise dma_entry_limit of its module vfio_iommu_type1",
			    s->name, s->count);
	else if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
		log_limited(&s->log,
			    "%s: the host pins no more memory for a device: locked memory is "
			    "limited to %" PRIu64 " KiB; raise it (ulimit -l, LimitMEMLOCK=)",
			    s->name, (uint64_t)limit.rlim_cur >> 10);
	else
		log_limited(&s->log, "%s: the host has no memory to map more for a device",
			    s->name);
}

static bool is_excessive(const struct vfio_space *s, uint64_t size)
{
	uint64_t most = 0;

	for (unsigned i = 0; i < s->ram->count; i++)
		most += VFIO_MAX_REPEATS * s->ram->region[i].size;
	return size > most - s->mapped;
}

int vfio_space_map_locked(struct vfio_space *s, uint64_t iova, uint64_t size, void *host,
			  uint8_t perm)
{
	if (is_excessive(s, size)) {
		if (!s->said_limit)
			log_limited(&s->log,
				    "%s: the guest maps its memory more than %u times over for a "
				    "device: refused",
				    s->name, VFIO_MAX_REPEATS);
		s->said_limit = true;
		return -ENOMEM;
	}
	int r = s->ops->map(s, iova, size, host, perm);

	if (r == 0) {
		s->count++;
		s->mapped += size;
	} else if (r == -ENOSPC || r == -ENOMEM) {
		report_limit(s, -r);
	} else {
		log_limited(&s->log,
			    "%s: the host refuses to map 0x%" PRIx64 ", %" PRIu64 " KiB: %s",
			    s->name, iova, size >> 10, strerror(-r));
	}
	return r;
}

void vfio_space_unmap_locked(struct vfio_space *s, uint64_t iova, uint64_t size)
{
	int r = s->ops->unmap(s, iova, size);

	if (r < 0)
		log_limited(&s->log,
			    "%s: the host fails to unmap 0x%" PRIx64 ", %" PRIu64 " KiB: %s",
			    s->name, iova, size >> 10, strerror(-r));
	s->count--;
	s->mapped -= size;
	s->said_limit = false;
}

static int space_map(struct dma_listener *listener, iova_t first, iova_t last, gpa_t phys,
		     uint8_t perm)
{
	struct vfio_space *s = to_space(listener);
	uint64_t size = last.v - first.v + 1;
	/* 0: the whole 64-bit space, which no RAM is behind. */
	void *host = size ? ram_ptr(s->ram, phys, size) : NULL;
	int r;

	pthread_mutex_lock(&s->lock);
	if (host)
		r = vfio_space_map_locked(s, first.v, size, host, perm);
	else
		r = vfio_peer_map_locked(s, first.v, size, phys.v, perm);
	pthread_mutex_unlock(&s->lock);
	return r;
}

static int space_unmap(struct dma_listener *listener, iova_t first, iova_t last,
		       struct dma_ticket *ticket)
{
	struct vfio_space *s = to_space(listener);

	pthread_mutex_lock(&s->lock);
	struct vfio_peer *peer = vfio_peer_find_locked(s, first.v);

	if (peer)
		vfio_peer_remove_locked(s, peer, true);
	else
		vfio_space_unmap_locked(s, first.v, last.v - first.v + 1);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static int space_clear(struct dma_listener *listener, struct dma_ticket *ticket)
{
	struct vfio_space *s = to_space(listener);

	pthread_mutex_lock(&s->lock);
	/* Also when nothing should be left: the host may have kept what it failed to unmap. */
	int r = s->ops->unmap_all(s);

	if (r < 0)
		log_limited(&s->log, "%s: the host fails to unmap everything: %s", s->name,
			    strerror(-r));
	while (s->peers)
		vfio_peer_remove_locked(s, s->peers, false);
	s->count = 0;
	s->mapped = 0;
	s->said_limit = false;
	pthread_mutex_unlock(&s->lock);
	return 0;
}

bool vfio_space_misses(const struct vfio_space *space, struct vfio_range *ret_range)
{
	for (unsigned i = 0; i < space->ram->count; i++) {
		const struct ram_region *region = &space->ram->region[i];
		uint64_t at = region->base.v, last = at + region->size - 1, end = last;
		bool reached = false;

		/* They ascend: up to where does what began at @at go on? */
		for (unsigned u = 0; u < space->num_usable && !reached && end == last; u++) {
			const struct vfio_range *usable = &space->usable[u];

			if (usable->last < at)
				continue;
			if (usable->first > at)
				end = MIN(last, usable->first - 1);
			else if (usable->last >= last)
				reached = true;
			else
				at = usable->last + 1;
		}
		if (reached)
			continue;
		*ret_range = (struct vfio_range){ at, end };
		return true;
	}
	return false;
}

static int space_identity(struct dma_listener *listener)
{
	struct vfio_space *s = to_space(listener);
	struct vfio_range missed;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	/* Not in part: a device that can't reach some of it would lose data there. */
	if (vfio_space_misses(s, &missed)) {
		log_limited(&s->log,
			    "%s: the host's IOMMU can't map the guest's memory at 0x%" PRIx64
			    "-0x%" PRIx64 ": bypass of the virtio-iommu refused",
			    s->name, missed.first, missed.last);
		r = -ENOTSUP;
	}
	for (unsigned i = 0; r == 0 && i < s->ram->count; i++) {
		const struct ram_region *region = &s->ram->region[i];

		r = vfio_space_map_locked(s, region->base.v, region->size, region->host,
					  DMA_READ | DMA_WRITE);
	}
	pthread_mutex_unlock(&s->lock);
	if (r < 0)
		space_clear(listener, NULL);
	return r;
}

static const struct dma_listener_ops space_listener_ops = {
	.map = space_map,
	.unmap = space_unmap,
	.clear = space_clear,
	.identity = space_identity,
	.audit = vfio_space_audit,
};

void vfio_space_init(struct vfio_space *space)
{
	space->listener.ops = &space_listener_ops;
	space->count = 0;
	space->mapped = 0;
	space->peers = NULL;
	space->num_peers = 0;
	pthread_mutex_init(&space->lock, NULL);
}

void vfio_space_finish(struct vfio_space *space)
{
	while (space->peers)
		vfio_peer_remove_locked(space, space->peers, false);
	pthread_mutex_destroy(&space->lock);
}
