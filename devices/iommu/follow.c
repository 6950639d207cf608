/*
 * Keeping listeners (vmm/core/listener.h) equal to the books.
 *
 * Endpoints that share a listener are told apart nowhere on the host, so what
 * follows is a struct iommu_follower, one per listener: it has the domain to
 * which its endpoints are attached, at most one; while none is, what bypass says.
 *
 * A mapping for MMIO isn't forwarded: it is for message-signalled interrupts,
 * which the host has its own way for. One without permissions gives nothing.
 *
 * The listener is told of a mapping before the map has it, and of a removal after
 * the map has lost it: so a MAP that one listener refuses leaves no trace, and an
 * answer to UNMAP is given when all are done.
 */
#include "devices/iommu/internal.h"

#include <errno.h>

#define PERMISSIONS (VIRTIO_IOMMU_MAP_F_READ | VIRTIO_IOMMU_MAP_F_WRITE)

static bool forwarded(const struct iommu_mapping *mapping)
{
	return !(mapping->flags & VIRTIO_IOMMU_MAP_F_MMIO) && mapping->flags & PERMISSIONS;
}

static int status_of(int r)
{
	if (r == 0)
		return VIRTIO_IOMMU_S_OK;
	if (r == -ENOTSUP)
		return VIRTIO_IOMMU_S_UNSUPP;
	return r == -ENOMEM || r == -ENOSPC ? VIRTIO_IOMMU_S_NOMEM : VIRTIO_IOMMU_S_DEVERR;
}

/* The listener kept @op's ticket and may already have given it back. */
static struct dma_ticket *lend_ticket(struct iommu_op *op)
{
	if (!op)
		return NULL;
	atomic_fetch_add(&op->outside, 1);
	return &op->ticket;
}

static void settle_ticket(struct iommu_op *op, int r)
{
	if (op && r != DMA_LISTENER_PENDING)
		atomic_fetch_sub(&op->outside, 1);
}

static int tell_map(struct iommu_follower *f, uint64_t first, uint64_t last,
		    const struct iommu_mapping *mapping)
{
	return f->listener->ops->map(f->listener, IOVA(first), IOVA(last), GPA(mapping->phys),
				     mapping->flags & PERMISSIONS);
}

static void tell_unmap(struct iommu_follower *f, uint64_t first, uint64_t last, struct iommu_op *op)
{
	settle_ticket(
		op, f->listener->ops->unmap(f->listener, IOVA(first), IOVA(last), lend_ticket(op)));
}

static void tell_clear(struct iommu_follower *f, struct iommu_op *op)
{
	settle_ticket(op, f->listener->ops->clear(f->listener, lend_ticket(op)));
}

int iommu_follow_map_locked(struct iommu *iommu, struct iommu_domain *domain, uint64_t first,
			    uint64_t last, const struct iommu_mapping *mapping)
{
	if (!forwarded(mapping))
		return VIRTIO_IOMMU_S_OK;
	for (struct iommu_follower *f = iommu->followers; f; f = f->next) {
		if (f->domain != domain)
			continue;
		int r = tell_map(f, first, last, mapping);

		if (r == 0)
			continue;
		for (struct iommu_follower *undo = iommu->followers; undo != f; undo = undo->next) {
			if (undo->domain == domain)
				tell_unmap(undo, first, last, NULL);
		}
		return status_of(r);
	}
	return VIRTIO_IOMMU_S_OK;
}

void iommu_follow_unmap_locked(struct iommu *iommu, struct iommu_domain *domain, uint64_t first,
			       uint64_t last, const struct iommu_mapping *mapping,
			       struct iommu_op *op)
{
	if (!forwarded(mapping))
		return;
	for (struct iommu_follower *f = iommu->followers; f; f = f->next) {
		if (f->domain == domain)
			tell_unmap(f, first, last, op);
	}
}

static int replay(struct iommu_follower *f, const struct iommu_domain *domain)
{
	struct rangemap_entry entry;
	uint64_t at = 0;

	while (rangemap_next(&domain->map, at, &entry)) {
		int r = forwarded(entry_mapping(&entry))
				? tell_map(f, entry.first, entry.last, entry_mapping(&entry))
				: 0;

		if (r < 0)
			return r;
		if (entry.last == UINT64_MAX)
			break;
		at = entry.last + 1;
	}
	return 0;
}

/* The domain of @f's endpoints other than @except; NULL when none is attached. */
static struct iommu_domain *attached_to_locked(struct iommu *iommu, const struct iommu_follower *f,
					       const struct iommu_endpoint *except)
{
	for (unsigned i = 0; i < iommu->num_endpoints; i++) {
		struct iommu_endpoint *ep = iommu->endpoint[i];

		if (ep->follower == f && ep != except && iommu_domain_of(ep))
			return iommu_domain_of(ep);
	}
	return NULL;
}

bool iommu_follower_elsewhere_locked(struct iommu *iommu, const struct iommu_endpoint *endpoint,
				     const struct iommu_domain *domain)
{
	const struct iommu_domain *other =
		endpoint->follower ? attached_to_locked(iommu, endpoint->follower, endpoint) : NULL;

	return other && other != domain;
}

int iommu_follow_access_locked(struct iommu *iommu, struct iommu_endpoint *endpoint,
			       struct iommu_op *op)
{
	struct iommu_follower *f = endpoint->follower;

	if (!f)
		return VIRTIO_IOMMU_S_OK;
	struct iommu_domain *domain = attached_to_locked(iommu, f, NULL);
	bool identity = domain ? domain->bypass : iommu->bypass;
	int r = 0;

	if (f->domain == domain && f->identity == identity)
		return VIRTIO_IOMMU_S_OK;
	if (!(f->identity && identity)) {
		if (f->domain || f->identity)
			tell_clear(f, op);
		if (identity)
			r = f->listener->ops->identity(f->listener);
		else if (domain)
			r = replay(f, domain);
		if (r < 0) {
			tell_clear(f, NULL);
			domain = NULL;
			identity = false;
		}
	}
	f->domain = domain;
	f->identity = identity;
	return status_of(r);
}

struct audit_walk {
	const struct iommu_domain *domain;
	uint64_t at;
	bool end;
	uint64_t count;
};

/* A dma_listener_next_fn: what the listener of this domain was told. */
static bool audit_next(void *opaque, iova_t *ret_first, iova_t *ret_last)
{
	struct audit_walk *walk = opaque;
	struct rangemap_entry entry;

	while (!walk->end && rangemap_next(&walk->domain->map, walk->at, &entry)) {
		walk->end = entry.last == UINT64_MAX;
		walk->at = entry.last + 1;
		if (!forwarded(entry_mapping(&entry)))
			continue;
		*ret_first = IOVA(entry.first);
		*ret_last = IOVA(entry.last);
		walk->count++;
		return true;
	}
	walk->end = true;
	return false;
}

void iommu_audit(struct iommu *iommu, struct iommu_audit *ret_audit)
{
	static const struct iommu_domain none;
	struct iommu_audit audit = { 0 };

	pthread_mutex_lock(&iommu->lock);
	for (struct iommu_follower *f = iommu->followers; f; f = f->next) {
		struct audit_walk walk = { .domain = f->domain ? f->domain : &none };

		audit.differences += f->listener->ops->audit(
			f->listener, f->identity ? NULL : audit_next, &walk);
		audit.mappings += walk.count;
		audit.listeners++;
	}
	pthread_mutex_unlock(&iommu->lock);
	*ret_audit = audit;
}

void iommu_audit_request(struct iommu *iommu)
{
	struct iommu_audit audit;

	if (!iommu->audit)
		return;
	pthread_mutex_lock(&iommu->lock);
	bool due = iommu->unaudited++ >= iommu->live_mappings / 64;

	if (due)
		iommu->unaudited = 0;
	pthread_mutex_unlock(&iommu->lock);
	if (due)
		iommu_audit(iommu, &audit);
}
