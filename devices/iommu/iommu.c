/*
 * Making and unmaking an IOMMU, its endpoints, its memory for mappings, and its
 * statistics.
 *
 * A mapping costs 32 bytes here and 21 to 56 in the domain's map. Both come from
 * slabs of the whole IOMMU that never shrink, so a guest that fills one domain
 * after another can't hold more than the limit on all mappings allows.
 */
#include "devices/iommu/internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdlib.h>
#include "vmm/base/barrier.h"

struct iommu_endpoint *iommu_find_endpoint_locked(struct iommu *iommu, uint32_t id)
{
	for (unsigned i = 0; i < iommu->num_endpoints; i++) {
		if (iommu->endpoint[i]->id == id)
			return iommu->endpoint[i];
	}
	return NULL;
}

struct iommu_mapping *iommu_alloc_mapping_locked(struct iommu *iommu)
{
	/* Relaxed: it is only counted. */
	uint64_t used = atomic_fetch_add_explicit(&iommu->quota->used, 1, memory_order_relaxed);
	struct iommu_mapping *mapping =
		used < iommu->quota->max ? slab_take(&iommu->mappings) : NULL;

	if (!mapping) {
		atomic_fetch_sub_explicit(&iommu->quota->used, 1, memory_order_relaxed);
		return NULL;
	}
	/* Atomic, as its last reference's end may still be looking for IOMMU_REFS_WAITED. */
	atomic_store_explicit(&mapping->refs, 0, memory_order_relaxed);
	atomic_store_explicit(&mapping->owner_refs, 0, memory_order_relaxed);
	atomic_store_explicit(&mapping->owner, 0, memory_order_relaxed);
	iommu->live_mappings++;
	iommu->most_mappings = MAX(iommu->most_mappings, iommu->live_mappings);
	return mapping;
}

void iommu_free_mapping_locked(struct iommu *iommu, struct iommu_mapping *mapping)
{
	slab_give(&iommu->mappings, mapping);
	iommu->live_mappings--;
	atomic_fetch_sub_explicit(&iommu->quota->used, 1, memory_order_relaxed);
}

int iommu_create(struct iommu **ret_iommu, const struct iommu_config *config, struct ram *ram,
		 struct err *err)
{
	if (config->granule < 4096 || config->granule & (config->granule - 1))
		return err_set(err, EINVAL, "an IOMMU granule of %" PRIu64 " bytes is impossible",
			       config->granule);
	if (config->address_width < 32 || config->address_width > 64)
		return err_set(err, EINVAL, "an IOMMU address width of %u bits is impossible",
			       config->address_width);
	int ret = barrier_prepare();

	if (ret)
		return err_set(err, -ret, "an IOMMU needs the host's membarrier: %s",
			       strerror(-ret));
	struct iommu *iommu = calloc(1, sizeof(*iommu));

	if (!iommu)
		return err_set(err, ENOMEM, "out of memory for an IOMMU");
	iommu->ram = ram;
	iommu->granule = config->granule;
	iommu->input_last = UINT64_MAX >> (64 - config->address_width);
	iommu->max_domain_mappings = config->max_domain_mappings ? config->max_domain_mappings
								 : IOMMU_DEFAULT_DOMAIN_MAPPINGS;
	iommu->own_quota.max = IOMMU_DEFAULT_TOTAL_MAPPINGS;
	iommu->quota = config->quota ? config->quota : &iommu->own_quota;
	iommu->initial_bypass = iommu->bypass = config->bypass;
	iommu->audit = config->audit;
	iommu->mappings.size = sizeof(struct iommu_mapping);
	iommu->nodes.size = RANGEMAP_NODE_BYTES;
	/* 0 means "nothing remembered" and "in no section". */
	atomic_init(&iommu->epoch, 1);
	pthread_mutex_init(&iommu->lock, NULL);
	pthread_mutex_init(&iommu->fault_lock, NULL);
	list_init(&iommu->ports);
	list_init(&iommu->pending);
	*ret_iommu = iommu;
	return 0;
}

void iommu_destroy(struct iommu *iommu)
{
	if (!iommu)
		return;
	assert(list_empty(&iommu->ports));
	/* So that the reset leaves the listeners empty. */
	iommu->initial_bypass = false;
	iommu_set_bypass(iommu, false);
	iommu_system_reset(iommu);
	while (iommu->followers) {
		struct iommu_follower *next = iommu->followers->next;

		free(iommu->followers);
		iommu->followers = next;
	}
	for (unsigned i = 0; i < iommu->num_endpoints; i++) {
		free((char *)iommu->endpoint[i]->name);
		free(iommu->endpoint[i]);
	}
	free(iommu->endpoint);
	slab_finish(&iommu->nodes);
	slab_finish(&iommu->mappings);
	pthread_mutex_destroy(&iommu->fault_lock);
	pthread_mutex_destroy(&iommu->lock);
	free(iommu);
}

static int compare_resv(const void *a, const void *b)
{
	const struct iommu_resv *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

/* Copy @resv in ascending order. False when two overlap, one is empty, or two are MSI. */
static bool copy_resv(struct iommu_endpoint *ep, const struct iommu_resv *resv, unsigned num_resv)
{
	unsigned num_msi = 0;

	if (num_resv > IOMMU_MAX_RESV)
		return false;
	ep->num_resv = num_resv;
	if (num_resv)
		memcpy(ep->resv, resv, num_resv * sizeof(*resv));
	qsort(ep->resv, num_resv, sizeof(*resv), compare_resv);
	for (unsigned i = 0; i < num_resv; i++) {
		num_msi += ep->resv[i].subtype == IOMMU_RESV_MSI;
		if (ep->resv[i].first > ep->resv[i].last ||
		    (i && ep->resv[i].first <= ep->resv[i - 1].last))
			return false;
	}
	return num_msi <= 1;
}

static struct iommu_endpoint *make_endpoint(struct iommu *iommu, uint32_t id, const char *name)
{
	struct iommu_endpoint *ep = calloc(1, sizeof(*ep));

	if (!ep)
		return NULL;
	ep->name = strdup(name);
	if (!ep->name) {
		free(ep);
		return NULL;
	}
	ep->iommu = iommu;
	ep->id = id;
	list_init(&ep->ports);
	ep->view = (struct dma_view){
		.ops = &iommu_view_ops,
		.ram = iommu->ram,
		.epoch = &iommu->epoch,
	};
	return ep;
}

int iommu_add_endpoint(struct iommu *iommu, uint32_t id, const char *name,
		       const struct iommu_resv *resv, unsigned num_resv, struct dma_view **ret_view,
		       struct err *err)
{
	int ret = 0;
	struct iommu_endpoint *ep = make_endpoint(iommu, id, name);

	if (!ep)
		return err_set(err, ENOMEM, "out of memory for IOMMU endpoint %s", name);
	if (!copy_resv(ep, resv, num_resv)) {
		ret = err_set(err, EINVAL, "the reserved regions of IOMMU endpoint %s are unusable",
			      name);
		goto free_endpoint;
	}
	pthread_mutex_lock(&iommu->lock);
	struct iommu_endpoint **all = NULL;

	if (iommu_find_endpoint_locked(iommu, id))
		ret = err_set(err, EEXIST, "IOMMU endpoint 0x%" PRIx32 " (%s) exists twice", id,
			      name);
	else
		all = reallocarray(iommu->endpoint, iommu->num_endpoints + 1,
				   sizeof(struct iommu_endpoint *));
	if (!ret && !all)
		ret = err_set(err, ENOMEM, "out of memory for IOMMU endpoint %s", name);
	if (!ret) {
		iommu->endpoint = all;
		all[iommu->num_endpoints++] = ep;
		iommu_set_access_locked(ep, NULL, iommu->bypass, NULL);
		*ret_view = &ep->view;
	}
	pthread_mutex_unlock(&iommu->lock);
	if (!ret)
		return 0;
free_endpoint:
	free((char *)ep->name);
	free(ep);
	return ret;
}

int iommu_set_listener(struct iommu *iommu, uint32_t id, struct dma_listener *listener)
{
	int status = VIRTIO_IOMMU_S_NOMEM;

	pthread_mutex_lock(&iommu->lock);
	struct iommu_endpoint *ep = iommu_find_endpoint_locked(iommu, id);
	struct iommu_follower *f = iommu->followers;

	assert(ep && !iommu_domain_of(ep) && !ep->follower);
	while (f && f->listener != listener)
		f = f->next;
	if (!f) {
		f = calloc(1, sizeof(*f));
		if (f) {
			f->listener = listener;
			f->next = iommu->followers;
			iommu->followers = f;
		}
	}
	if (f) {
		ep->follower = f;
		status = iommu_follow_access_locked(iommu, ep, NULL);
	}
	pthread_mutex_unlock(&iommu->lock);
	return status == VIRTIO_IOMMU_S_OK ? 0 : status == VIRTIO_IOMMU_S_NOMEM ? -ENOMEM : -EIO;
}

struct waited_op {
	struct iommu_op op;
	_Atomic bool done;
};

static void waited_done(struct iommu_op *op)
{
	struct waited_op *waited = container_of(op, struct waited_op, op);

	/* Release: pairs with the load in iommu_system_reset; the op isn't used after it. */
	atomic_store_explicit(&waited->done, true, memory_order_release);
}

void iommu_system_reset(struct iommu *iommu)
{
	struct waited_op waited = { .op.done = waited_done };

	/*
	 * Nothing is referenced, so at most a device's thread is in the middle of
	 * a section.
	 */
	if (iommu_reset(iommu, &waited.op) == IOMMU_PENDING) {
		while (!atomic_load_explicit(&waited.done, memory_order_acquire))
			sched_yield();
	}
	iommu_set_bypass(iommu, iommu->initial_bypass);
}

static uint64_t get(_Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

bool iommu_get_stats(struct iommu *iommu, unsigned index, struct iommu_endpoint_stats *stats)
{
	pthread_mutex_lock(&iommu->lock);
	bool found = index < iommu->num_endpoints;

	if (found) {
		struct iommu_endpoint *ep = iommu->endpoint[index];
		const struct iommu_domain *domain = access_domain(atomic_load(&ep->access));

		*stats = (struct iommu_endpoint_stats){
			.endpoint = ep->id,
			.name = ep->name,
			.faults = get(&ep->faults),
			.dropped_events = get(&ep->dropped_events),
			.translated_bytes = ep->translated,
			.cache_hits = ep->hits,
			.cache_misses = ep->misses,
			.maps = ep->maps + (domain ? domain->maps : 0),
			.unmaps = ep->unmaps + (domain ? domain->unmaps : 0),
			.live_mappings = domain ? domain->map.count : 0,
		};
		list_for_each (it, &ep->ports) {
			struct dma_port *port =
				container_of(it, struct iommu_port, in_endpoint)->port;

			stats->translated_bytes += get(&port->translated);
			stats->cache_hits += get(&port->hits);
			stats->cache_misses += get(&port->misses);
		}
	}
	pthread_mutex_unlock(&iommu->lock);
	return found;
}

bool iommu_get_domain_stats(struct iommu *iommu, unsigned index, struct iommu_domain_stats *stats)
{
	const struct iommu_domain *found = NULL;

	pthread_mutex_lock(&iommu->lock);
	for (unsigned i = 0; i < IOMMU_DOMAIN_BUCKETS && !found; i++) {
		for (found = iommu->domains[i]; found && index; index--)
			found = found->next;
	}
	if (found)
		*stats = (struct iommu_domain_stats){
			.domain = found->id,
			.bypass = found->bypass,
			.endpoints = found->endpoints,
			.maps = found->maps,
			.unmaps = found->unmaps,
			.live_mappings = found->map.count,
		};
	pthread_mutex_unlock(&iommu->lock);
	return found;
}

uint64_t iommu_get_gone_domains(struct iommu *iommu, struct iommu_domain_stats *stats)
{
	pthread_mutex_lock(&iommu->lock);
	uint64_t gone = iommu->gone_domains;

	*stats = (struct iommu_domain_stats){ .maps = iommu->gone_maps,
					      .unmaps = iommu->gone_unmaps };
	pthread_mutex_unlock(&iommu->lock);
	return gone;
}

void iommu_get_memory(struct iommu *iommu, struct iommu_memory *memory)
{
	pthread_mutex_lock(&iommu->lock);
	*memory = (struct iommu_memory){
		.live_mappings = iommu->live_mappings,
		.most_mappings = iommu->most_mappings,
		.bytes = iommu->mappings.bytes + iommu->nodes.bytes,
	};
	pthread_mutex_unlock(&iommu->lock);
}
