#ifndef DEVICES_IOMMU_DOMAIN_H
#define DEVICES_IOMMU_DOMAIN_H

/*
 * The rules of virtio-iommu (virtio 1.3, 5.13.6) without virtio: endpoints,
 * domains, mappings. Requests are functions, their answers the statuses of
 * proto.h, as this is the only vocabulary in which they are defined. What it
 * can't do by itself is wait: see struct iommu_op.
 *
 * All functions may be called on any thread; they take the iommu's lock, which
 * is held for what listeners do, but never for a device's access to end. The virtio device calls
 * them from its loop.
 */

#include "devices/iommu/iommu.h"
#include "devices/iommu/proto.h"
#include "vmm/base/list.h"

struct iommu_domain;
struct iommu_endpoint;
struct iommu_mapping;

/* Not a status: the answer is OK, but it must not be given before op->done. */
#define IOMMU_PENDING 0x100

/* Bytes of properties that a PROBE answers with, room for IOMMU_MAX_RESV of them. */
#define IOMMU_PROBE_SIZE 512
_Static_assert(IOMMU_MAX_RESV * sizeof(struct virtio_iommu_probe_resv_mem) <= IOMMU_PROBE_SIZE,
	       "all properties of an endpoint fit");

/* Faults that wait for the guest's buffers; more are counted and dropped. */
#define IOMMU_MAX_FAULTS 64

/*
 * One operation that takes access away, and so may have to wait until no
 * device can use what it removed. The memory is the caller's from the call
 * until the answer: its return value, unless that is IOMMU_PENDING; then @status
 * at the time of @done, which is called exactly once, on any thread, without locks, possibly before
 * the call returns. It must not call back into the iommu.
 */
struct iommu_op {
	void (*done)(struct iommu_op *op);

	/* The answer when it is given later: OK, or what an ATTACH says (see there). */
	int status;

	/* removal.c's, under the iommu's lock. */
	struct list node; /* in iommu->pending */
	struct iommu *iommu;
	struct dma_ticket ticket; /* what listeners were given */
	_Atomic unsigned outside; /* tickets not yet done */
	uint64_t epoch;		  /* sections that began before it must have ended */
	bool sections;		  /* not yet known to have ended */
	bool marked;		  /* the last references of @removed will tell */
	bool blocked;		  /* wait for all endpoints that have no access now */
	uint8_t phases;		  /* of @endpoint: wait for references of these, a bit mask */
	struct iommu_endpoint *endpoint; /* borrows; or NULL */
	struct iommu_domain *dead;	 /* owns; linked by their next */
	struct iommu_mapping *removed;	 /* owns; linked by their next */
};

/* What the fault queue holds. */
struct iommu_fault {
	enum virtio_iommu_fault_reason reason;
	uint32_t flags; /* VIRTIO_IOMMU_FAULT_F_* */
	uint32_t endpoint;
	uint64_t address;
};

/*
 * ATTACH (5.13.6.3). Flag BYPASS makes or joins a bypass domain; @known_flags
 * are those that were negotiated. An endpoint that is attached elsewhere leaves
 * there as by DETACH, and nothing changes unless the answer is OK or pending:
 * INVAL (flags, or the domain is of the other kind), NOENT (endpoint), UNSUPP
 * (a reserved region of the endpoint overlaps a mapping of the domain, or the
 * endpoints with the same listener are attached elsewhere, and it isn't with them),
 * NOMEM. The one exception: when the endpoint's listener can't follow the domain, it is left
 * detached, and the answer is NOMEM, UNSUPP or DEVERR; others with the same listener stay
 * attached, but reach nothing until one of them is attached or detached and the listener can; an
 * ATTACH to where it is asks the listener again, and moves nothing whatever the answer.
 * Endpoints with one listener reach nothing either while they are in different domains, which is
 * how a guest moves them, unless all of these bypass. Every domain ID is in domain_range, so RANGE
 * doesn't occur.
 */
int iommu_attach(struct iommu *iommu, uint32_t domain, uint32_t endpoint, uint32_t flags,
		 uint32_t known_flags, struct iommu_op *op);

/*
 * DETACH (5.13.6.4): OK, pending, NOENT (endpoint), INVAL (not attached to @domain). While others
 * with the same listener are attached, the endpoint still reaches what they do: nobody can tell
 * its accesses from theirs.
 */
int iommu_detach(struct iommu *iommu, uint32_t domain, uint32_t endpoint, struct iommu_op *op);

/*
 * MAP (5.13.6.5) of [@first, @last], both inclusive. Never pending. OK; INVAL
 * (flags outside @known_flags, an empty range, a bypass domain, an overlap with
 * a mapping or a reserved region), NOENT (domain), RANGE (alignment,
 * input_range, or @phys beyond 64 bits), NOMEM (a limit, or the host), DEVERR (a
 * listener can't map it: no memory behind @phys, for one).
 */
int iommu_map(struct iommu *iommu, uint32_t domain, uint64_t first, uint64_t last, uint64_t phys,
	      uint32_t flags, uint32_t known_flags);

/*
 * UNMAP (5.13.6.6) of everything in [@first, @last]. OK, pending, NOENT
 * (domain), INVAL (bypass domain, empty range), RANGE (it would split a
 * mapping; nothing is removed then).
 */
int iommu_unmap(struct iommu *iommu, uint32_t domain, uint64_t first, uint64_t last,
		struct iommu_op *op);

/*
 * PROBE (5.13.6.7): the properties of @endpoint, zero-filled to
 * IOMMU_PROBE_SIZE bytes. OK or NOENT (@properties untouched).
 */
int iommu_probe(struct iommu *iommu, uint32_t endpoint, uint8_t properties[IOMMU_PROBE_SIZE]);

/*
 * Device reset: every endpoint detached, every domain gone; bypass stays
 * (5.13.4.2). OK or pending. Operations that are pending end before this does.
 */
int iommu_reset(struct iommu *iommu, struct iommu_op *op);

/*
 * config.bypass. New accesses see the new value when this returns; those under
 * way end as they began, as a register write has no answer that could wait. Nor has it one for
 * a listener that can't map all of memory: it reported that, and has nothing.
 */
void iommu_set_bypass(struct iommu *iommu, bool bypass);
bool iommu_get_bypass(struct iommu *iommu);

uint64_t iommu_page_size_mask(const struct iommu *iommu);
uint64_t iommu_input_last(const struct iommu *iommu);

/*
 * Have @fn called when a fault was queued; on the faulting device's thread, it
 * must only wake somebody. NULL: nobody listens. Control path.
 */
void iommu_set_fault_listener(struct iommu *iommu, void (*fn)(void *opaque), void *opaque);
/* Take the oldest fault. False when there is none. */
bool iommu_take_fault(struct iommu *iommu, struct iommu_fault *ret_fault);
/* Count @fault as one that the guest didn't get to see. */
void iommu_drop_fault(struct iommu *iommu, const struct iommu_fault *fault);

/*
 * With iommu_config.audit: a request may have changed something, so audit. Where there are many
 * mappings that isn't done each time, but so often that a request pays for 64 of them. No lock.
 */
void iommu_audit_request(struct iommu *iommu);

#endif
