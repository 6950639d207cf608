/*
 * The requests. Each checks everything first, in the order in which the
 * specification names the errors, and changes something only when it can't fail
 * any more; so a refused request has no effect at all.
 *
 * A domain exists from the ATTACH that names it first to the DETACH of its last
 * endpoint, so a guest can't have more of them than endpoints. What it can have
 * many of, mappings, is bounded per domain and in all.
 */
#include "devices/iommu/internal.h"

#include <errno.h>
#include <stdlib.h>

/* Mappings that an UNMAP takes out of the map at a time. */
#define UNMAP_CHUNK 64

static struct iommu_domain **bucket(struct iommu *iommu, uint32_t id)
{
	return &iommu->domains[id % IOMMU_DOMAIN_BUCKETS];
}

static struct iommu_domain *find_domain_locked(struct iommu *iommu, uint32_t id)
{
	struct iommu_domain *domain = *bucket(iommu, id);

	while (domain && domain->id != id)
		domain = domain->next;
	return domain;
}

static struct iommu_domain *make_domain_locked(struct iommu *iommu, uint32_t id, bool bypass)
{
	struct iommu_domain *domain = calloc(1, sizeof(*domain));

	if (!domain)
		return NULL;
	domain->id = id;
	domain->bypass = bypass;
	domain->map.nodes = &iommu->nodes;
	domain->next = *bucket(iommu, id);
	*bucket(iommu, id) = domain;
	return domain;
}

/* Out of the books; devices may still look at it until @op's sections have ended. */
static void kill_domain_locked(struct iommu *iommu, struct iommu_domain *domain,
			       struct iommu_op *op)
{
	struct iommu_domain **link = bucket(iommu, domain->id);

	while (*link != domain)
		link = &(*link)->next;
	*link = domain->next;
	domain->next = op->dead;
	op->dead = domain;
	iommu->gone_domains++;
	iommu->gone_maps += domain->maps;
	iommu->gone_unmaps += domain->unmaps;
}

/* Count @ep in, and what happens in @domain from now on with it. */
static void join_domain_locked(struct iommu_endpoint *ep, struct iommu_domain *domain)
{
	domain->endpoints++;
	ep->maps -= domain->maps;
	ep->unmaps -= domain->unmaps;
}

static void leave_domain_locked(struct iommu *iommu, struct iommu_endpoint *ep, struct iommu_op *op)
{
	struct iommu_domain *domain = iommu_domain_of(ep);

	if (!domain)
		return;
	ep->maps += domain->maps;
	ep->unmaps += domain->unmaps;
	if (--domain->endpoints == 0)
		kill_domain_locked(iommu, domain, op);
}

/* Does a reserved region of @ep overlap [@first, @last]? */
static bool is_reserved(const struct iommu_endpoint *ep, uint64_t first, uint64_t last)
{
	for (unsigned i = 0; i < ep->num_resv; i++) {
		if (ep->resv[i].first <= last && first <= ep->resv[i].last)
			return true;
	}
	return false;
}

/* Does a reserved region of @ep overlap a mapping of @domain? */
static bool has_reserved_mapping(const struct iommu_endpoint *ep, const struct iommu_domain *domain)
{
	struct rangemap_entry entry;

	for (unsigned i = 0; i < ep->num_resv; i++) {
		if (rangemap_next(&domain->map, ep->resv[i].first, &entry) &&
		    entry.first <= ep->resv[i].last)
			return true;
	}
	return false;
}

static int attach_locked(struct iommu *iommu, uint32_t domain_id, struct iommu_endpoint *ep,
			 bool bypass, struct iommu_op *op)
{
	struct iommu_domain *domain = find_domain_locked(iommu, domain_id);

	if (domain && domain->bypass != bypass)
		return VIRTIO_IOMMU_S_INVAL;
	/* Its listener may have failed to follow another endpoint there: it is asked again. */
	if (domain && domain == iommu_domain_of(ep))
		return iommu_follow_access_locked(iommu, ep, NULL);
	if (domain && has_reserved_mapping(ep, domain))
		return VIRTIO_IOMMU_S_UNSUPP;
	if (iommu_follower_elsewhere_locked(iommu, ep, domain))
		return VIRTIO_IOMMU_S_UNSUPP;
	if (!domain)
		domain = make_domain_locked(iommu, domain_id, bypass);
	if (!domain)
		return VIRTIO_IOMMU_S_NOMEM;
	leave_domain_locked(iommu, ep, op);
	join_domain_locked(ep, domain);
	iommu_set_access_locked(ep, domain, bypass, op);
	op->status = iommu_follow_access_locked(iommu, ep, op);
	if (op->status != VIRTIO_IOMMU_S_OK) {
		/*
		 * The host can't: detached, as there is no way back to where it was. Those that
		 * share its listener are where they are, which the host is asked for once more.
		 */
		leave_domain_locked(iommu, ep, op);
		iommu_set_access_locked(ep, NULL, iommu->bypass, NULL);
		iommu_follow_access_locked(iommu, ep, op);
	}
	int status = op->status;

	return iommu_op_start_locked(iommu, op) == IOMMU_PENDING ? IOMMU_PENDING : status;
}

int iommu_attach(struct iommu *iommu, uint32_t domain, uint32_t endpoint, uint32_t flags,
		 uint32_t known_flags, struct iommu_op *op)
{
	int ret = VIRTIO_IOMMU_S_NOENT;

	if (flags & ~known_flags)
		return VIRTIO_IOMMU_S_INVAL;
	iommu_op_init(iommu, op);
	pthread_mutex_lock(&iommu->lock);
	struct iommu_endpoint *ep = iommu_find_endpoint_locked(iommu, endpoint);

	if (ep)
		ret = attach_locked(iommu, domain, ep, flags & VIRTIO_IOMMU_ATTACH_F_BYPASS, op);
	pthread_mutex_unlock(&iommu->lock);
	return ret;
}

int iommu_detach(struct iommu *iommu, uint32_t domain, uint32_t endpoint, struct iommu_op *op)
{
	int ret;

	iommu_op_init(iommu, op);
	pthread_mutex_lock(&iommu->lock);
	struct iommu_endpoint *ep = iommu_find_endpoint_locked(iommu, endpoint);

	if (!ep) {
		ret = VIRTIO_IOMMU_S_NOENT;
	} else if (!iommu_domain_of(ep) || iommu_domain_of(ep)->id != domain) {
		ret = VIRTIO_IOMMU_S_INVAL;
	} else {
		leave_domain_locked(iommu, ep, op);
		iommu_set_access_locked(ep, NULL, iommu->bypass, op);
		iommu_follow_access_locked(iommu, ep, op);
		ret = iommu_op_start_locked(iommu, op);
	}
	pthread_mutex_unlock(&iommu->lock);
	return ret;
}

/* Does [@first, @last] touch a region where an endpoint of @domain can't have mappings? */
static bool domain_reserves_locked(struct iommu *iommu, const struct iommu_domain *domain,
				   uint64_t first, uint64_t last)
{
	for (unsigned i = 0; i < iommu->num_endpoints; i++) {
		struct iommu_endpoint *ep = iommu->endpoint[i];

		if (iommu_domain_of(ep) == domain && is_reserved(ep, first, last))
			return true;
	}
	return false;
}

static int map_locked(struct iommu *iommu, struct iommu_domain *domain, uint64_t first,
		      uint64_t last, uint64_t phys, uint32_t flags)
{
	uint64_t end;

	/* The last page of the address space ends at 2^64, which is aligned. */
	if ((first | phys | (last + 1)) & (iommu->granule - 1))
		return VIRTIO_IOMMU_S_RANGE;
	if (last > iommu->input_last || __builtin_add_overflow(phys, last - first, &end))
		return VIRTIO_IOMMU_S_RANGE;
	if (domain_reserves_locked(iommu, domain, first, last))
		return VIRTIO_IOMMU_S_INVAL;
	bool full = domain->map.count >= iommu->max_domain_mappings ||
		    atomic_load_explicit(&iommu->quota->used, memory_order_relaxed) >=
			    iommu->quota->max;
	struct rangemap_entry next;

	/*
	 * What is wrong with the request is told before that there is no room, and
	 * listeners don't hear of it. Without either the insertion finds out.
	 */
	if ((full || iommu->followers) && rangemap_next(&domain->map, first, &next) &&
	    next.first <= last)
		return VIRTIO_IOMMU_S_INVAL;
	struct iommu_mapping *mapping = full ? NULL : iommu_alloc_mapping_locked(iommu);

	if (!mapping)
		return VIRTIO_IOMMU_S_NOMEM;
	mapping->phys = phys;
	mapping->flags = (uint8_t)flags;
	int status = iommu_follow_map_locked(iommu, domain, first, last, mapping);

	if (status != VIRTIO_IOMMU_S_OK) {
		iommu_free_mapping_locked(iommu, mapping);
		return status;
	}
	/* No mapping is remembered as absent, so the epoch stays. */
	int ret = rangemap_insert(&domain->map, first, last, &mapping->item);

	if (ret) {
		iommu_follow_unmap_locked(iommu, domain, first, last, mapping, NULL);
		iommu_free_mapping_locked(iommu, mapping);
		return ret == -EEXIST ? VIRTIO_IOMMU_S_INVAL : VIRTIO_IOMMU_S_NOMEM;
	}
	domain->maps++;
	return VIRTIO_IOMMU_S_OK;
}

int iommu_map(struct iommu *iommu, uint32_t domain_id, uint64_t first, uint64_t last, uint64_t phys,
	      uint32_t flags, uint32_t known_flags)
{
	int ret;

	if (flags & ~known_flags || first > last)
		return VIRTIO_IOMMU_S_INVAL;
	pthread_mutex_lock(&iommu->lock);
	struct iommu_domain *domain = find_domain_locked(iommu, domain_id);

	if (!domain)
		ret = VIRTIO_IOMMU_S_NOENT;
	else if (domain->bypass)
		ret = VIRTIO_IOMMU_S_INVAL;
	else
		ret = map_locked(iommu, domain, first, last, phys, flags);
	pthread_mutex_unlock(&iommu->lock);
	return ret;
}

/* @entry was taken out of @domain's map: the rest of what it means. */
static void remove_mapping_locked(struct iommu *iommu, struct iommu_domain *domain,
				  const struct rangemap_entry *entry, struct iommu_op *op)
{
	struct iommu_mapping *mapping = entry_mapping(entry);

	iommu_follow_unmap_locked(iommu, domain, entry->first, entry->last, mapping, op);
	mapping->next = op->removed;
	op->removed = mapping;
	domain->unmaps++;
}

static int unmap_locked(struct iommu *iommu, struct iommu_domain *domain, uint64_t first,
			uint64_t last, struct iommu_op *op)
{
	struct rangemap_entry entry = { first, last, NULL }, removed[UNMAP_CHUNK];
	unsigned n;

	/* Most often it is exactly what a MAP made. */
	entry.item = rangemap_remove(&domain->map, first, last);
	if (entry.item) {
		remove_mapping_locked(iommu, domain, &entry, op);
		return iommu_op_start_locked(iommu, op);
	}
	if (!rangemap_next(&domain->map, first, &entry) || entry.first > last)
		return VIRTIO_IOMMU_S_OK;
	/* Only a mapping that reaches over an end of the range could be split. */
	if (entry.first < first || entry.last > last)
		return VIRTIO_IOMMU_S_RANGE;
	struct rangemap_entry end = entry;

	if (entry.last < last && rangemap_find(&domain->map, last, &end) && end.last > last)
		return VIRTIO_IOMMU_S_RANGE;
	while ((n = rangemap_remove_range(&domain->map, first, last, removed,
					  ARRAY_SIZE(removed)))) {
		for (unsigned i = 0; i < n; i++)
			remove_mapping_locked(iommu, domain, &removed[i], op);
	}
	return iommu_op_start_locked(iommu, op);
}

int iommu_unmap(struct iommu *iommu, uint32_t domain_id, uint64_t first, uint64_t last,
		struct iommu_op *op)
{
	int ret;

	iommu_op_init(iommu, op);
	pthread_mutex_lock(&iommu->lock);
	struct iommu_domain *domain = find_domain_locked(iommu, domain_id);

	if (!domain)
		ret = VIRTIO_IOMMU_S_NOENT;
	else if (domain->bypass || first > last)
		ret = VIRTIO_IOMMU_S_INVAL;
	else
		ret = unmap_locked(iommu, domain, first, last, op);
	pthread_mutex_unlock(&iommu->lock);
	return ret;
}

int iommu_probe(struct iommu *iommu, uint32_t endpoint, uint8_t properties[IOMMU_PROBE_SIZE])
{
	pthread_mutex_lock(&iommu->lock);
	const struct iommu_endpoint *ep = iommu_find_endpoint_locked(iommu, endpoint);

	pthread_mutex_unlock(&iommu->lock);
	if (!ep)
		return VIRTIO_IOMMU_S_NOENT;
	/* Reserved regions never change. The rest is zeroes, that is property NONE. */
	memset(properties, 0, IOMMU_PROBE_SIZE);
	for (unsigned i = 0; i < ep->num_resv; i++) {
		struct virtio_iommu_probe_resv_mem mem = {
			.type = le16_from(VIRTIO_IOMMU_PROBE_T_RESV_MEM),
			.length = le16_from(sizeof(mem) - sizeof(mem.type) - sizeof(mem.length)),
			.subtype = (uint8_t)ep->resv[i].subtype,
			.start = le64_from(ep->resv[i].first),
			.end = le64_from(ep->resv[i].last),
		};

		memcpy(properties + i * sizeof(mem), &mem, sizeof(mem));
	}
	return VIRTIO_IOMMU_S_OK;
}

int iommu_reset(struct iommu *iommu, struct iommu_op *op)
{
	iommu_op_init(iommu, op);
	pthread_mutex_lock(&iommu->lock);
	for (unsigned i = 0; i < iommu->num_endpoints; i++) {
		struct iommu_endpoint *ep = iommu->endpoint[i];

		leave_domain_locked(iommu, ep, op);
		/*
		 * Without a phase of its own: references to mappings are waited for
		 * with these, and an endpoint that is now blocked takes no new ones.
		 */
		iommu_set_access_locked(ep, NULL, iommu->bypass, NULL);
	}
	/* Only now: the last of those that share a listener isn't given what is its own. */
	for (unsigned i = 0; i < iommu->num_endpoints; i++)
		iommu_follow_access_locked(iommu, iommu->endpoint[i], op);
	op->blocked = true;
	int ret = iommu_op_start_locked(iommu, op);

	pthread_mutex_unlock(&iommu->lock);
	return ret;
}

void iommu_set_bypass(struct iommu *iommu, bool bypass)
{
	pthread_mutex_lock(&iommu->lock);
	if (iommu->bypass != bypass) {
		iommu->bypass = bypass;
		for (unsigned i = 0; i < iommu->num_endpoints; i++) {
			struct iommu_endpoint *ep = iommu->endpoint[i];

			if (iommu_domain_of(ep))
				continue;
			iommu_set_access_locked(ep, NULL, bypass, NULL);
			iommu_follow_access_locked(iommu, ep, NULL);
		}
		atomic_fetch_add(&iommu->epoch, 1);
	}
	pthread_mutex_unlock(&iommu->lock);
}

bool iommu_get_bypass(struct iommu *iommu)
{
	pthread_mutex_lock(&iommu->lock);
	bool bypass = iommu->bypass;

	pthread_mutex_unlock(&iommu->lock);
	return bypass;
}

uint64_t iommu_page_size_mask(const struct iommu *iommu)
{
	return ~(iommu->granule - 1);
}

uint64_t iommu_input_last(const struct iommu *iommu)
{
	return iommu->input_last;
}
