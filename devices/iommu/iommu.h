#ifndef DEVICES_IOMMU_IOMMU_H
#define DEVICES_IOMMU_IOMMU_H

/*
 * What the machine knows of the IOMMU: make one, give it endpoints, get the
 * view of memory that each endpoint's device uses. The rules of domains and
 * mappings are in domain.h; the virtio device that drives them is viommu.h.
 */

#include "vmm/base/err.h"
#include "vmm/core/dma.h"
#include "vmm/core/listener.h"
#include "vmm/core/ram.h"

struct iommu;

enum iommu_resv_subtype { IOMMU_RESV_RESERVED = 0, IOMMU_RESV_MSI = 1 }; /* as on the wire */

/* A range that never holds mappings (virtio 1.3, 5.13.6.7.3). */
struct iommu_resv {
	enum iommu_resv_subtype subtype;
	uint64_t first, last; /* inclusive */
};

/* Limits on what a guest can make us allocate; past them a request fails with NOMEM. */
#define IOMMU_DEFAULT_DOMAIN_MAPPINGS (1ULL << 20)
#define IOMMU_DEFAULT_TOTAL_MAPPINGS  (1ULL << 22) /* of a VM */
#define IOMMU_MAX_RESV		      16

struct iommu_config {
	uint64_t granule;	      /* bytes, a power of two, at least 4096 */
	unsigned address_width;	      /* bits of input_range: 32 to 64 */
	bool bypass;		      /* initial value of config.bypass */
	uint64_t max_domain_mappings; /* 0 = the default */
	struct iommu_quota *quota;    /* borrows; NULL: one of its own with the default */
	bool audit; /* audit the listeners after requests: iommu_audit_request says how often */
};

/* How many mappings the IOMMUs that share it may have together. Zeroed but for @max at first. */
struct iommu_quota {
	uint64_t max;
	_Atomic uint64_t used; /* removed mappings count while I/O in flight uses them */
};

/* What --verbose prints at exit, one per endpoint. */
struct iommu_endpoint_stats {
	uint32_t endpoint;
	const char *name;
	uint64_t faults, dropped_events, translated_bytes, cache_hits, cache_misses;
	/* Mappings made and removed in its domain while it was attached; there now. */
	uint64_t maps, unmaps, live_mappings;
};

/* One domain, or all that are gone. */
struct iommu_domain_stats {
	uint32_t domain;
	bool bypass;
	unsigned endpoints;		      /* attached to it */
	uint64_t maps, unmaps, live_mappings; /* mappings made and removed by requests, there now */
};

/* What all mappings need; the memory is kept for the next ones. */
struct iommu_memory {
	uint64_t live_mappings; /* and removed ones that I/O in flight still uses */
	uint64_t most_mappings; /* at any time so far */
	uint64_t bytes;
};

/* *@ret_iommu is owned by the caller; @ram is borrowed. 0, -EINVAL, -ENOMEM with words in @err. */
int iommu_create(struct iommu **ret_iommu, const struct iommu_config *config, struct ram *ram,
		 struct err *err);
/* All ports are closed and its virtio device is gone. Accepts NULL. */
void iommu_destroy(struct iommu *iommu);

/*
 * Add endpoint @id (a BDF, or 0x10000 and up for MMIO) with its reserved
 * regions (copied; they must not overlap). Control path, before the guest runs.
 * *@ret_view is borrowed from @iommu and lives as long. 0, -EEXIST, -EINVAL,
 * -ENOMEM with words in @err.
 */
int iommu_add_endpoint(struct iommu *iommu, uint32_t id, const char *name,
		       const struct iommu_resv *resv, unsigned num_resv, struct dma_view **ret_view,
		       struct err *err);

/*
 * Have @listener (borrowed until iommu_destroy) follow endpoint @id: whatever is
 * mapped for the endpoint is mapped there. Endpoints whose accesses the host
 * can't tell apart share one. It has what the domain maps that those of them are in which are
 * attached, also for the others; nothing while they are in different domains. Control path,
 * before the guest runs. 0 or the listener's -errno.
 */
int iommu_set_listener(struct iommu *iommu, uint32_t id, struct dma_listener *listener);

/* How the listeners compare with the books. */
struct iommu_audit {
	unsigned listeners;
	uint64_t mappings;    /* that they should hold, identity aside */
	uint64_t differences; /* 0 is right */
};

/*
 * Ask every listener whether the host holds just what the books say. It takes some system
 * calls for each mapping, during which requests wait. Any thread.
 */
void iommu_audit(struct iommu *iommu, struct iommu_audit *ret_audit);

/*
 * System reset: every endpoint detached, every domain gone, bypass at its
 * initial value. The devices were reset before, so nothing is referenced.
 */
void iommu_system_reset(struct iommu *iommu);

/* Fill @stats for endpoint number @index (0, 1, ...); false past the last. Any thread. */
bool iommu_get_stats(struct iommu *iommu, unsigned index, struct iommu_endpoint_stats *stats);

/* The same for domain number @index (0, 1, ...) of those that exist, in no order. Any thread. */
bool iommu_get_domain_stats(struct iommu *iommu, unsigned index, struct iommu_domain_stats *stats);

/* How many domains are gone; @stats are their sums. Any thread. */
uint64_t iommu_get_gone_domains(struct iommu *iommu, struct iommu_domain_stats *stats);

/* Fill @memory. Any thread. */
void iommu_get_memory(struct iommu *iommu, struct iommu_memory *memory);

#endif
