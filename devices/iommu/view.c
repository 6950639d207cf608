/*
 * What a device does with its endpoint's view: translate, reference, report.
 * The first two run on device threads without a lock; removal.c says how they
 * and the removers get along.
 *
 * A translation's handle (dma_piece.mapping) is the mapping's address with two
 * tag bits: the phase under which the endpoint counts the reference, and a bit
 * that is always set, as identity accesses (bypass) have no mapping but are
 * counted too.
 */
#include "devices/iommu/internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "vmm/base/barrier.h"

#define HANDLE_PHASE ((uintptr_t)1)
#define HANDLE_SET   ((uintptr_t)2)
#define HANDLE_TAGS  ((uintptr_t)7)
_Static_assert(_Alignof(struct iommu_mapping) == HANDLE_TAGS + 1, "room for the tags");
_Static_assert(sizeof(struct iommu_mapping) == 32, "a guest can make millions of these");
_Static_assert(DMA_READ == VIRTIO_IOMMU_MAP_F_READ && DMA_WRITE == VIRTIO_IOMMU_MAP_F_WRITE,
	       "permissions are directions");

/* A stretch of IOVAs that is translated in one way. */
struct stretch {
	uint64_t first, last; /* inclusive */
	uint64_t phys;	      /* of first */
	struct iommu_mapping *mapping;
	uint8_t perm;
};

/* Narrow @s around @iova to what lies between reserved regions. False inside of one. */
static bool clip_reserved(const struct iommu_endpoint *ep, uint64_t iova, struct stretch *s)
{
	for (unsigned i = 0; i < ep->num_resv; i++) {
		const struct iommu_resv *resv = &ep->resv[i];

		if (resv->last < iova) {
			s->first = MAX(s->first, resv->last + 1);
		} else if (resv->first > iova) {
			s->last = MIN(s->last, resv->first - 1);
			break; /* they ascend */
		} else {
			return false;
		}
	}
	return true;
}

/* Why an access was refused; REFUSED_NOT when it wasn't. */
enum refused {
	REFUSED_NOT,
	REFUSED_DOMAIN,
	REFUSED_MAPPING,
	REFUSED_PERMISSION,
	REFUSED_RESERVED,
	REFUSED_MMIO,
	REFUSED_MEMORY,
};

/* Which stretch holds @iova, as far as the IOMMU is concerned. In a section. */
static enum refused find_stretch(const struct iommu_endpoint *ep, uintptr_t access, uint64_t iova,
				 enum dma_dir dir, struct stretch *s)
{
	const struct iommu_domain *domain = access_domain(access);
	struct rangemap_entry entry;

	if (access & ACCESS_IDENTITY) {
		*s = (struct stretch){ .last = UINT64_MAX, .perm = DMA_READ | DMA_WRITE };
		if (!clip_reserved(ep, iova, s))
			return REFUSED_RESERVED;
		s->phys = s->first;
		return REFUSED_NOT;
	}
	if (!domain)
		return REFUSED_DOMAIN;
	/* No mapping of the domain overlaps a reserved region of its endpoints. */
	if (!rangemap_find(&domain->map, iova, &entry))
		return clip_reserved(ep, iova, s) ? REFUSED_MAPPING : REFUSED_RESERVED;
	s->mapping = entry_mapping(&entry);
	s->first = entry.first;
	s->last = entry.last;
	s->phys = s->mapping->phys;
	s->perm = s->mapping->flags & (DMA_READ | DMA_WRITE);
	if (!(s->perm & dir))
		return REFUSED_PERMISSION;
	return s->mapping->flags & VIRTIO_IOMMU_MAP_F_MMIO ? REFUSED_MMIO : REFUSED_NOT;
}

/*
 * Narrow @s around @iova to the RAM region behind it and find its host address.
 * NULL when there is no RAM.
 */
static void *stretch_host(const struct ram *ram, uint64_t iova, struct stretch *s)
{
	uint64_t back = iova - s->first, ahead = s->last - iova;
	uint64_t gpa = s->phys + back;

	for (unsigned i = 0; i < ram->count; i++) {
		const struct ram_region *region = &ram->region[i];
		uint64_t offset = gpa - region->base.v;

		if (gpa < region->base.v || offset >= region->size)
			continue;
		back = MIN(back, offset);
		ahead = MIN(ahead, region->size - offset - 1);
		s->first = iova - back;
		s->last = iova + ahead;
		s->phys = gpa - back;
		return ram_ptr(ram, GPA(s->phys), back + ahead + 1);
	}
	return NULL;
}

static int view_translate(struct dma_port *port, iova_t iova, uint64_t len, enum dma_dir dir,
			  struct dma_piece *ret_piece)
{
	struct iommu_port *p = port->translator;
	struct iommu_endpoint *ep = p->endpoint;
	/* Acquire: pairs with the release in iommu_set_access_locked. */
	uintptr_t access = atomic_load_explicit(&ep->access, memory_order_acquire);
	struct stretch s = { 0 };

	if (find_stretch(ep, access, iova.v, dir, &s) != REFUSED_NOT)
		return -EFAULT;
	unsigned char *host = stretch_host(port->view->ram, iova.v, &s);

	if (!host)
		return -EFAULT;
	uintptr_t phase = access & ACCESS_PHASE ? HANDLE_PHASE : 0;
	void *handle = (void *)((uintptr_t)s.mapping | HANDLE_SET | phase);
	/* Both fit: the stretch lies in one region of RAM. */
	uint64_t ahead = s.last - iova.v + 1;

	dma_cache_fill(port, iova, s.first, s.last, host, handle, s.perm);
	ret_piece->host = host + (iova.v - s.first);
	ret_piece->len = MIN(len, ahead);
	ret_piece->mapping = handle;
	return 0;
}

static struct iommu_mapping *handle_mapping(void *handle)
{
	return (struct iommu_mapping *)((uintptr_t)handle & ~HANDLE_TAGS);
}

static _Atomic uint32_t *handle_pins(struct iommu_port *p, void *handle)
{
	return &p->pins[(uintptr_t)handle & HANDLE_PHASE ? 1 : 0];
}

/* Add @n to a count that only this thread changes. */
#define COUNT(count, n, order)                                                                    \
	atomic_store_explicit((count), atomic_load_explicit((count), memory_order_relaxed) + (n), \
			      (order))

/* Count a reference of @p. False when that takes a locked instruction. */
static bool add_owner_ref(const struct iommu_port *p, struct iommu_mapping *mapping)
{
	uint8_t owner = atomic_load_explicit(&mapping->owner, memory_order_relaxed);

	if (!p->number)
		return false;
	if (owner != p->number && (owner || !atomic_compare_exchange_strong_explicit(
						    &mapping->owner, &owner, p->number,
						    memory_order_relaxed, memory_order_relaxed)))
		return false;
	uint16_t refs = atomic_load_explicit(&mapping->owner_refs, memory_order_relaxed);

	if (refs == UINT16_MAX)
		return false;
	atomic_store_explicit(&mapping->owner_refs, (uint16_t)(refs + 1), memory_order_relaxed);
	return true;
}

/* Relaxed all of it: who looks at the counts has seen the section end. */
static void view_ref(struct dma_port *port, void *handle)
{
	struct iommu_port *p = port->translator;
	struct iommu_mapping *mapping = handle_mapping(handle);

	COUNT(handle_pins(p, handle), 1, memory_order_relaxed);
	if (mapping && !add_owner_ref(p, mapping))
		atomic_fetch_add_explicit(&mapping->refs, 1, memory_order_relaxed);
}

/*
 * Drop a reference of @p. True when somebody waits for it. The mapping may be
 * gone the moment the count drops; then what is read of it belongs to another
 * one, and iommu_progress is called for nothing.
 */
static bool mapping_put(const struct iommu_port *p, struct iommu_mapping *mapping)
{
	/* A port without a number owns nothing: 0 says that nobody does. */
	bool owns = p->number &&
		    atomic_load_explicit(&mapping->owner, memory_order_relaxed) == p->number;
	uint16_t owner_refs = atomic_load_explicit(&mapping->owner_refs, memory_order_relaxed);
	uint32_t refs;

	/* Release: the access is over; pairs with the acquire in mapping_is_idle. */
	if (owns && owner_refs) {
		atomic_store_explicit(&mapping->owner_refs, (uint16_t)(owner_refs - 1),
				      memory_order_release);
		/* Pairs with barrier_heavy between setting WAITED and looking again. */
		barrier_light();
		refs = atomic_load_explicit(&mapping->refs, memory_order_relaxed);
	} else {
		refs = atomic_fetch_sub_explicit(&mapping->refs, 1, memory_order_release);
	}
	return refs & IOMMU_REFS_WAITED;
}

static void view_unref(struct dma_port *port, void *handle)
{
	struct iommu_port *p = port->translator;
	struct iommu_mapping *mapping = handle_mapping(handle);
	bool tell = mapping && mapping_put(p, mapping);

	/* Release and barrier: as in mapping_put, for pins_are_zero. */
	COUNT(handle_pins(p, handle), -1, memory_order_release);
	barrier_light();
	if (tell || atomic_load_explicit(&p->waited, memory_order_relaxed))
		iommu_progress(p->endpoint->iommu);
}

/* A number that no other port has; 0 when there is none. Lock held. */
static uint8_t free_number_locked(struct iommu *iommu)
{
	bool used[UINT8_MAX + 1] = { false };

	list_for_each (it, &iommu->ports)
		used[container_of(it, struct iommu_port, in_iommu)->number] = true;
	for (unsigned i = 1; i <= UINT8_MAX; i++) {
		if (!used[i])
			return (uint8_t)i;
	}
	return 0;
}

static int view_attach_port(struct dma_view *view, struct dma_port *port)
{
	struct iommu_endpoint *ep = container_of(view, struct iommu_endpoint, view);
	struct iommu *iommu = ep->iommu;
	struct iommu_port *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->port = port;
	p->endpoint = ep;
	port->translator = p;
	pthread_mutex_lock(&iommu->lock);
	p->number = free_number_locked(iommu);
	list_add_tail(&ep->ports, &p->in_endpoint);
	list_add_tail(&iommu->ports, &p->in_iommu);
	pthread_mutex_unlock(&iommu->lock);
	return 0;
}

static void view_detach_port(struct dma_view *view, struct dma_port *port)
{
	struct iommu_port *p = port->translator;
	struct iommu_endpoint *ep = p->endpoint;
	struct iommu *iommu = ep->iommu;

	assert(!atomic_load(&p->pins[0]) && !atomic_load(&p->pins[1]));
	pthread_mutex_lock(&iommu->lock);
	list_del(&p->in_endpoint);
	list_del(&p->in_iommu);
	ep->translated += atomic_load_explicit(&port->translated, memory_order_relaxed);
	ep->hits += atomic_load_explicit(&port->hits, memory_order_relaxed);
	ep->misses += atomic_load_explicit(&port->misses, memory_order_relaxed);
	pthread_mutex_unlock(&iommu->lock);
	port->translator = NULL;
	free(p);
}

/*
 * Faults.
 */

static const char *const refused_words[] = {
	/* REFUSED_NOT: the guest changed something between the access and the report. */
	[REFUSED_NOT] = "not mapped by the guest at that moment",
	[REFUSED_DOMAIN] = "not attached to a domain",
	[REFUSED_MAPPING] = "not mapped by the guest",
	[REFUSED_PERMISSION] = "mapped by the guest without this permission",
	[REFUSED_RESERVED] = "in a reserved region",
	[REFUSED_MMIO] = "mapped as MMIO",
	[REFUSED_MEMORY] = "no memory behind it",
};

static enum virtio_iommu_fault_reason fault_reason(enum refused why)
{
	switch (why) {
	case REFUSED_DOMAIN:
		return VIRTIO_IOMMU_FAULT_R_DOMAIN;
	case REFUSED_NOT:
	case REFUSED_MAPPING:
	case REFUSED_PERMISSION:
		return VIRTIO_IOMMU_FAULT_R_MAPPING;
	default:
		return VIRTIO_IOMMU_FAULT_R_UNKNOWN;
	}
}

static void queue_fault(struct iommu *iommu, const struct iommu_fault *fault)
{
	pthread_mutex_lock(&iommu->fault_lock);
	bool room = iommu->num_faults < IOMMU_MAX_FAULTS;

	if (room) {
		unsigned tail = (iommu->fault_head + iommu->num_faults++) % IOMMU_MAX_FAULTS;

		iommu->fault[tail] = *fault;
		if (iommu->fault_fn)
			iommu->fault_fn(iommu->fault_opaque);
	}
	pthread_mutex_unlock(&iommu->fault_lock);
	if (!room)
		iommu_drop_fault(iommu, fault);
}

static void view_fault(struct dma_port *port, iova_t iova, enum dma_dir dir)
{
	struct iommu_port *p = port->translator;
	struct iommu_endpoint *ep = p->endpoint;
	struct stretch s = { 0 };
	char where[32] = "";

	/* Look again for the reason, in a section, as the domain may be going away. */
	dma_enter(port);
	uintptr_t access = atomic_load_explicit(&ep->access, memory_order_acquire);
	const struct iommu_domain *domain = access_domain(access);
	enum refused why = find_stretch(ep, access, iova.v, dir, &s);

	if (why == REFUSED_NOT && !stretch_host(port->view->ram, iova.v, &s))
		why = REFUSED_MEMORY;
	uint32_t id = domain ? domain->id : 0;

	dma_leave(port);
	if (domain)
		snprintf(where, sizeof(where), " (domain %" PRIu32 ")", id);
	struct iommu_fault fault = {
		.reason = fault_reason(why),
		.flags =
			VIRTIO_IOMMU_FAULT_F_ADDRESS |
			(dir == DMA_WRITE ? VIRTIO_IOMMU_FAULT_F_WRITE : VIRTIO_IOMMU_FAULT_F_READ),
		.endpoint = ep->id,
		.address = iova.v,
	};

	atomic_fetch_add_explicit(&ep->faults, 1, memory_order_relaxed);
	log_limited(&ep->log, "endpoint 0x%" PRIx32 " (%s): DMA %s 0x%" PRIx64 " refused: %s%s",
		    ep->id, ep->name, dir == DMA_WRITE ? "write to" : "read from", iova.v,
		    refused_words[why], where);
	queue_fault(ep->iommu, &fault);
}

void iommu_set_fault_listener(struct iommu *iommu, void (*fn)(void *opaque), void *opaque)
{
	pthread_mutex_lock(&iommu->fault_lock);
	iommu->fault_fn = fn;
	iommu->fault_opaque = opaque;
	pthread_mutex_unlock(&iommu->fault_lock);
}

bool iommu_take_fault(struct iommu *iommu, struct iommu_fault *ret_fault)
{
	pthread_mutex_lock(&iommu->fault_lock);
	bool found = iommu->num_faults > 0;

	if (found) {
		*ret_fault = iommu->fault[iommu->fault_head];
		iommu->fault_head = (iommu->fault_head + 1) % IOMMU_MAX_FAULTS;
		iommu->num_faults--;
	}
	pthread_mutex_unlock(&iommu->fault_lock);
	return found;
}

void iommu_drop_fault(struct iommu *iommu, const struct iommu_fault *fault)
{
	pthread_mutex_lock(&iommu->lock);
	struct iommu_endpoint *ep = iommu_find_endpoint_locked(iommu, fault->endpoint);

	if (ep)
		atomic_fetch_add_explicit(&ep->dropped_events, 1, memory_order_relaxed);
	pthread_mutex_unlock(&iommu->lock);
}

const struct dma_view_ops iommu_view_ops = {
	.translate = view_translate,
	.ref = view_ref,
	.unref = view_unref,
	.fault = view_fault,
	.attach_port = view_attach_port,
	.detach_port = view_detach_port,
};
