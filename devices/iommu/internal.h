#ifndef DEVICES_IOMMU_INTERNAL_H
#define DEVICES_IOMMU_INTERNAL_H

/*
 * What the parts of the IOMMU share: iommu.c (making one, statistics), domain.c
 * (requests), removal.c (waiting for devices), view.c (what devices do).
 *
 * Locking. iommu->lock protects everything here, with these exceptions, which
 * device threads use inside their sections: endpoint->access, a domain's map
 * (one writer under the lock, readers without), reference counts, and the words
 * of dma_port. iommu->fault_lock protects the fault queue, and nests inside.
 */

#include <pthread.h>
#include <stdatomic.h>
#include "devices/iommu/domain.h"
#include "vmm/base/log.h"
#include "vmm/base/rangemap.h"

/* In iommu_mapping.refs: somebody waits for all references; who drops one calls iommu_progress. */
#define IOMMU_REFS_WAITED 0x80000000u

/*
 * One mapping; where it ends is in the domain's map. 32 bytes, from a slab.
 *
 * The port that references it first owns it: its thread alone changes owner_refs,
 * which takes no locked instruction. Other ports' references are in refs, and so
 * are the owner's when owner_refs is full: what counts is the sum.
 */
struct iommu_mapping {
	struct rangemap_item item;
	uint64_t phys;
	_Atomic uint32_t refs; /* and IOMMU_REFS_WAITED */
	_Atomic uint16_t owner_refs;
	_Atomic uint8_t owner;	    /* iommu_port.number; 0: nobody yet */
	uint8_t flags;		    /* VIRTIO_IOMMU_MAP_F_* */
	struct iommu_mapping *next; /* in an op's removed list */
};

struct iommu_domain {
	struct iommu_domain *next; /* in its bucket, or in an op's dead list */
	uint32_t id;
	bool bypass;
	unsigned endpoints; /* attached */
	struct rangemap map;
	uint64_t maps, unmaps; /* mappings made and removed */
};

/*
 * endpoint->access in one word, so that a device reads a consistent state:
 * the domain's address, or 0; whether accesses are identity (bypass); and the
 * phase under which references are counted.
 *
 * Phases separate the references of an endpoint's earlier attachment from those
 * of the present one, so that the answer to an ATTACH doesn't wait for I/O that
 * the new domain allows. They alternate; see endpoint_set_access.
 */
#define ACCESS_PHASE	((uintptr_t)1)
#define ACCESS_IDENTITY ((uintptr_t)2)
#define ACCESS_DOMAIN	(~(uintptr_t)7)

struct iommu_endpoint {
	struct dma_view view;
	struct iommu *iommu; /* borrows */
	const char *name;    /* owns */
	uint32_t id;
	unsigned num_resv;
	struct iommu_resv resv[IOMMU_MAX_RESV]; /* ascending, never changed */
	struct list ports;
	struct iommu_follower *follower; /* borrows; NULL: nobody outside follows it */
	_Atomic uintptr_t access;
	struct log_limit log;
	_Atomic uint64_t faults, dropped_events;
	/* Of ports that are gone; the present ones count for themselves. */
	uint64_t translated, hits, misses;
	/* Of its former domains; minus what the present one had when it came (modulo 2^64). */
	uint64_t maps, unmaps;
};

/* A listener and what it was told: @domain's mappings, or all of memory, or nothing. */
struct iommu_follower {
	struct iommu_follower *next;
	struct dma_listener *listener; /* borrows */
	struct iommu_domain *domain;
	bool identity;
};

/* The IOMMU's side of a dma_port. */
struct iommu_port {
	struct list in_endpoint, in_iommu;
	struct dma_port *port;		 /* borrows */
	struct iommu_endpoint *endpoint; /* borrows */
	uint8_t number; /* for iommu_mapping.owner; 0: too many ports, it never owns */
	/* How many references it has, by phase. Only its thread changes them. */
	_Atomic uint32_t pins[2];
	_Atomic bool waited; /* somebody waits for pins; who drops one calls iommu_progress */
	bool wanted;	     /* waited, in the present look at all operations */
};

#define IOMMU_DOMAIN_BUCKETS 64

struct iommu {
	struct ram *ram; /* borrows */
	uint64_t granule, input_last, max_domain_mappings;
	struct iommu_quota *quota; /* borrows, or own_quota */
	struct iommu_quota own_quota;
	bool initial_bypass, audit;
	uint64_t unaudited; /* requests since the last audit */
	/* Raised by every removal; device threads compare it with what they remember. */
	_Atomic uint64_t epoch;

	pthread_mutex_t lock;
	bool bypass;
	unsigned num_endpoints;
	struct iommu_endpoint **endpoint; /* owns, with what it points to */
	struct iommu_domain *domains[IOMMU_DOMAIN_BUCKETS];
	struct iommu_follower *followers; /* owns; by their next */
	struct list ports;		  /* struct iommu_port.in_iommu */
	struct list pending;		  /* struct iommu_op.node, oldest first */

	/* Memory for mappings and nodes: grows to what the limits allow, is recycled. */
	uint64_t live_mappings; /* and removed ones that are still referenced */
	uint64_t most_mappings; /* there ever were */
	struct slab mappings, nodes;

	uint64_t gone_domains, gone_maps, gone_unmaps; /* of domains that are gone */

	pthread_mutex_t fault_lock;
	unsigned fault_head, num_faults;
	struct iommu_fault fault[IOMMU_MAX_FAULTS];
	void (*fault_fn)(void *opaque);
	void *fault_opaque;
};

/* The domain of an access word, NULL for none. */
static inline struct iommu_domain *access_domain(uintptr_t access)
{
	return (struct iommu_domain *)(access & ACCESS_DOMAIN);
}

/* Endpoint @id, or NULL. Lock held. */
struct iommu_endpoint *iommu_find_endpoint_locked(struct iommu *iommu, uint32_t id);

/* The mapping of an entry of a domain's map. */
static inline struct iommu_mapping *entry_mapping(const struct rangemap_entry *entry)
{
	return container_of(entry->item, struct iommu_mapping, item);
}

/* Memory for a mapping, or NULL (also when the quota is used up); and back. Lock held. */
struct iommu_mapping *iommu_alloc_mapping_locked(struct iommu *iommu);
void iommu_free_mapping_locked(struct iommu *iommu, struct iommu_mapping *mapping);

/*
 * Give @endpoint access through @domain, or (NULL) identity or none. When @op
 * isn't NULL and access was taken away, make it wait for the endpoint's earlier
 * references. The caller raises the epoch through iommu_op_start_locked. Lock
 * held.
 */
void iommu_set_access_locked(struct iommu_endpoint *endpoint, struct iommu_domain *domain,
			     bool identity, struct iommu_op *op);

/* The domain that @endpoint is attached to, or NULL. Lock held. */
static inline struct iommu_domain *iommu_domain_of(const struct iommu_endpoint *endpoint)
{
	return access_domain(atomic_load_explicit(&endpoint->access, memory_order_relaxed));
}

/*
 * What listeners are told (follow.c). Lock held.
 *
 * A new mapping of @domain: OK, or NOMEM or DEVERR with every listener as it was.
 */
int iommu_follow_map_locked(struct iommu *iommu, struct iommu_domain *domain, uint64_t first,
			    uint64_t last, const struct iommu_mapping *mapping);
/* A mapping of @domain is gone; @op (NULL: don't return before they are done) waits. */
void iommu_follow_unmap_locked(struct iommu *iommu, struct iommu_domain *domain, uint64_t first,
			       uint64_t last, const struct iommu_mapping *mapping,
			       struct iommu_op *op);
/*
 * @endpoint's access is what it shall be: have its listener forget what it had
 * and learn that, or nothing while endpoints that share it are in different domains. @op as
 * above. OK, or NOMEM, UNSUPP or DEVERR with the listener empty.
 */
int iommu_follow_access_locked(struct iommu *iommu, struct iommu_endpoint *endpoint,
			       struct iommu_op *op);
/*
 * True when an ATTACH of @endpoint to @domain (NULL: a new one) would part it from the endpoints
 * that share its listener: some are attached, none of them to @domain or to where it is now.
 */
bool iommu_follower_elsewhere_locked(struct iommu *iommu, const struct iommu_endpoint *endpoint,
				     const struct iommu_domain *domain);

/* Prepare @op: nothing to wait for yet. */
void iommu_op_init(struct iommu *iommu, struct iommu_op *op);
/*
 * What @op removes is out of the maps: raise the epoch, wait briefly for
 * sections. Returns OK when nothing can touch it any more, else IOMMU_PENDING.
 * Lock held.
 */
int iommu_op_start_locked(struct iommu *iommu, struct iommu_op *op);
/* A section or the last reference that somebody waits for ended. Lock NOT held. */
void iommu_progress(struct iommu *iommu);

/* A view's operations (view.c). */
extern const struct dma_view_ops iommu_view_ops;

#endif
