/*
 * Keeping listeners (vmm/core/listener.h) equal to the books.
 *
 * Endpoints that share a listener are told apart nowhere on the host, so what
 * follows is a struct iommu_follower, one per listener: it has the domain to
 * which its endpoints are attached; while none is, what bypass says.
 *
 * A guest moves such endpoints one after the other (Linux attaches each to the
 * new domain, without a DETACH). While they disagree the listener has nothing:
 * either domain's mappings would let an endpoint reach what only the other one
 * may. The ATTACH that makes them agree replays. An endpoint that is nowhere
 * isn't moved, so it can only join the others.
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

bool iommu_follower_elsewhere_locked(struct iommu *iommu, const struct iommu_endpoint *endpoint,
				     const struct iommu_domain *domain)
{
	const struct iommu_domain *own = iommu_domain_of(endpoint);
	bool elsewhere = false;

	for (unsigned i = 0; endpoint->follower && i < iommu->num_endpoints; i++) {
		const struct iommu_endpoint *ep = iommu->endpoint[i];
		const struct iommu_domain *other = iommu_domain_of(ep);

		if (ep == endpoint || ep->follower != endpoint->follower || !other)
			continue;
		/* It follows that one, or goes before it. */
		if (other == domain || other == own)
			return false;
		elsewhere = true;
	}
	return elsewhere;
}

/*
 * What @f shall have: true with all of memory; false with a domain's mappings, or (NULL) with
 * nothing. Unattached endpoints count only when all are.
 */
static bool wanted_locked(struct iommu *iommu, const struct iommu_follower *f,
			  struct iommu_domain **ret_domain)
{
	struct iommu_domain *domain = NULL;
	bool attached = false, agree = true, identity = true;

	for (unsigned i = 0; i < iommu->num_endpoints; i++) {
		const struct iommu_endpoint *ep = iommu->endpoint[i];
		struct iommu_domain *of = iommu_domain_of(ep);

		if (ep->follower != f || !of)
			continue;
		agree = !attached || (agree && of == domain);
		identity = identity && of->bypass;
		domain = of;
		attached = true;
	}
	if (!attached)
		identity = iommu->bypass;
	*ret_domain = agree && !identity ? domain : NULL;
	return identity;
}

int iommu_follow_access_locked(struct iommu *iommu, struct iommu_endpoint *endpoint,
			       struct iommu_op *op)
{
	struct iommu_follower *f = endpoint->follower;
	struct iommu_domain *domain;
	int r = 0;

	if (!f)
		return VIRTIO_IOMMU_S_OK;
	bool identity = wanted_locked(iommu, f, &domain);

	if (f->domain == domain && f->identity == identity)
		return VIRTIO_IOMMU_S_OK;
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
