/*
 * Taking access away from devices that don't take part in any lock.
 *
 * Theory of operation
 *
 * A request takes mappings out of a map (or an endpoint out of a domain), then
 * calls iommu_op_start_locked. Three kinds of users may be left:
 *
 *  - Sections that began before: they may have found the mapping and be copying
 *    through it, or be about to reference it. They are short and make no system
 *    call, so we look for a moment (SPINS); a thread that lost its CPU inside
 *    one is asked, by on_leave, to call us when it leaves.
 *
 *  - References: I/O in flight. They can take as long as a disk does, so nobody
 *    spins. We leave a mark (IOMMU_REFS_WAITED, iommu_port.waited), and who drops
 *    a reference and finds it calls iommu_progress. The mark, not the dropping, is
 *    followed by a full barrier: it is made a million times less often.
 *
 *  - Translators outside of moat: a listener that isn't done with a removal has
 *    the operation's ticket; the last ticket that comes back calls iommu_progress.
 *
 * References are only taken inside sections, so a count can't rise again once
 * the older sections have ended: they are looked at in that order. Whatever an
 * operation waits for, the event ends in iommu_progress, which examines all
 * pending operations afresh. There are few; but one may have removed as many
 * mappings as its domain held, and each that falls idle leads here. So all are
 * marked once, and then only the first is looked at: until it is idle the
 * operation isn't ready, and its last reference tells.
 *
 * Memory: mappings, tree nodes of a dead domain and the domain itself are freed
 * when the sections have ended; a mapping with references, when they have.
 */
#include "devices/iommu/internal.h"

#include <stdlib.h>
#include "vmm/base/barrier.h"

/* Looks at all ports: 4 us with 16 of them (measured), longer than a section that has a CPU. */
#define SPINS 256

static void ticket_done(struct dma_ticket *ticket)
{
	struct iommu_op *op = container_of(ticket, struct iommu_op, ticket);
	struct iommu *iommu = op->iommu;

	/* Whoever looks next may give the answer, and @op is gone. */
	if (atomic_fetch_sub(&op->outside, 1) == 1)
		iommu_progress(iommu);
}

void iommu_op_init(struct iommu *iommu, struct iommu_op *op)
{
	void (*done)(struct iommu_op *) = op->done;

	*op = (struct iommu_op){ .done = done, .iommu = iommu, .ticket.done = ticket_done };
	list_init(&op->node);
}

/* No reference is left. Only once the sections that could take one have ended. */
static bool mapping_is_idle(const struct iommu_mapping *mapping)
{
	/* Acquire: pairs with mapping_put; uses end before memory is reused. */
	return !atomic_load_explicit(&mapping->owner_refs, memory_order_acquire) &&
	       !(atomic_load_explicit(&mapping->refs, memory_order_acquire) & ~IOMMU_REFS_WAITED);
}

/* Acquire: pairs with view_unref. */
static bool pins_are_zero(const struct iommu_endpoint *endpoint, unsigned phases)
{
	uint32_t pins = 0;

	list_for_each (it, &endpoint->ports) {
		struct iommu_port *port = container_of(it, struct iommu_port, in_endpoint);

		if (phases & 1)
			pins |= atomic_load_explicit(&port->pins[0], memory_order_acquire);
		if (phases & 2)
			pins |= atomic_load_explicit(&port->pins[1], memory_order_acquire);
	}
	return !pins;
}

/* The same; when false, dropping any of them from now on calls iommu_progress. */
static bool wait_for_pins_locked(struct iommu_endpoint *endpoint, unsigned phases)
{
	bool fresh = false;

	if (pins_are_zero(endpoint, phases))
		return true;
	list_for_each (it, &endpoint->ports) {
		struct iommu_port *port = container_of(it, struct iommu_port, in_endpoint);

		port->wanted = true;
		if (atomic_load_explicit(&port->waited, memory_order_relaxed))
			continue;
		atomic_store_explicit(&port->waited, true, memory_order_relaxed);
		fresh = true;
	}
	if (!fresh)
		return false;
	/* Pairs with barrier_light in view_unref. */
	barrier_heavy();
	return pins_are_zero(endpoint, phases);
}

void iommu_set_access_locked(struct iommu_endpoint *endpoint, struct iommu_domain *domain,
			     bool identity, struct iommu_op *op)
{
	uintptr_t old = atomic_load_explicit(&endpoint->access, memory_order_relaxed);
	uintptr_t phase = old & ACCESS_PHASE;

	/* From identity to identity nothing is taken away. */
	if (op && !(identity && old & ACCESS_IDENTITY)) {
		op->endpoint = endpoint;
		/*
		 * Count from now on in the other phase. If that one is still in
		 * use by an operation before this, go on in the same and wait for
		 * both: correct, though new references delay the answer.
		 */
		if (pins_are_zero(endpoint, 1u << (phase ^ 1))) {
			op->phases = (uint8_t)(1u << phase);
			phase ^= 1;
		} else {
			op->phases = 3;
		}
	}
	/* Release: a device that follows the pointer finds the domain initialised. */
	atomic_store_explicit(&endpoint->access,
			      (uintptr_t)domain | phase | (identity ? ACCESS_IDENTITY : 0),
			      memory_order_release);
}

static void leave_hook(struct dma_port *port)
{
	struct iommu_port *p = port->translator;

	iommu_progress(p->endpoint->iommu);
}

/* True when no port is in a section that began before @epoch. With @ask, have the others tell. */
static bool sections_ended(struct iommu *iommu, uint64_t epoch, bool ask)
{
	bool ended = true;

	list_for_each (it, &iommu->ports) {
		struct dma_port *port = container_of(it, struct iommu_port, in_iommu)->port;
		/* seq_cst: pairs with the stores in dma_enter and dma_leave. */
		uint64_t active = atomic_load(&port->active);

		if (!active || active >= epoch)
			continue;
		if (ask)
			atomic_store_explicit(&port->on_leave, leave_hook, memory_order_relaxed);
		ended = false;
	}
	if (ended || !ask)
		return ended;
	/* Then look again: pairs with dma_leave, which clears, then looks at on_leave. */
	barrier_heavy();
	return sections_ended(iommu, epoch, false);
}

struct removal {
	struct iommu *iommu;
	struct iommu_op *op;
};

static void bury_mapping(struct rangemap_item *item, void *opaque)
{
	struct removal *r = opaque;
	struct iommu_mapping *mapping = container_of(item, struct iommu_mapping, item);

	if (mapping_is_idle(mapping)) {
		iommu_free_mapping_locked(r->iommu, mapping);
		return;
	}
	mapping->next = r->op->removed;
	r->op->removed = mapping;
}

/* Have the last reference of each removed mapping tell; the sections have ended. */
static void mark_removed_locked(struct iommu_op *op)
{
	for (struct iommu_mapping *mapping = op->removed; mapping; mapping = mapping->next)
		atomic_fetch_or_explicit(&mapping->refs, IOMMU_REFS_WAITED, memory_order_relaxed);
	/* Pairs with barrier_light in mapping_put: who didn't see the mark is seen here. */
	if (op->removed)
		barrier_heavy();
	op->marked = true;
}

/* Free removed mappings up to one that is referenced. True when none is left. */
static bool free_removed_locked(struct iommu *iommu, struct iommu_op *op)
{
	while (op->removed && mapping_is_idle(op->removed)) {
		struct iommu_mapping *mapping = op->removed;

		op->removed = mapping->next;
		iommu_free_mapping_locked(iommu, mapping);
	}
	return !op->removed;
}

/* True when no endpoint without access has a reference left from when it had. */
static bool blocked_are_idle_locked(struct iommu *iommu)
{
	bool idle = true;

	for (unsigned i = 0; i < iommu->num_endpoints; i++) {
		struct iommu_endpoint *ep = iommu->endpoint[i];
		uintptr_t access = atomic_load_explicit(&ep->access, memory_order_relaxed);

		if (!(access & ~ACCESS_PHASE))
			idle &= wait_for_pins_locked(ep, 3);
	}
	return idle;
}

/* True when nothing that @op removed can be touched any more. */
static bool op_ready_locked(struct iommu *iommu, struct iommu_op *op)
{
	if (op->sections) {
		if (!sections_ended(iommu, op->epoch, true))
			return false;
		op->sections = false;
		struct removal r = { iommu, op };

		while (op->dead) {
			struct iommu_domain *domain = op->dead;

			op->dead = domain->next;
			rangemap_clear(&domain->map, bury_mapping, &r);
			free(domain);
		}
	}
	bool ready = free_removed_locked(iommu, op);

	if (!ready && !op->marked) {
		mark_removed_locked(op);
		ready = free_removed_locked(iommu, op);
	}
	if (op->endpoint && wait_for_pins_locked(op->endpoint, op->phases))
		op->endpoint = NULL;
	ready &= !op->endpoint;
	if (op->blocked && blocked_are_idle_locked(iommu))
		op->blocked = false;
	return ready && !op->blocked && !atomic_load(&op->outside);
}

/* Sections that began without a fence become visible, later ones have it. */
static void fence_sections_locked(struct iommu *iommu)
{
	bool heavy = false;

	list_for_each (it, &iommu->ports)
		heavy |= dma_port_fence(container_of(it, struct iommu_port, in_iommu)->port);
	if (heavy)
		barrier_heavy();
}

int iommu_op_start_locked(struct iommu *iommu, struct iommu_op *op)
{
	/* seq_cst: pairs with the load in dma_enter. */
	op->epoch = atomic_fetch_add(&iommu->epoch, 1) + 1;
	op->sections = true;
	op->marked = false;
	fence_sections_locked(iommu);
	for (unsigned i = 0; i < SPINS && !sections_ended(iommu, op->epoch, false); i++)
		;
	if (op_ready_locked(iommu, op))
		return VIRTIO_IOMMU_S_OK;
	list_add_tail(&iommu->pending, &op->node);
	return IOMMU_PENDING;
}

void iommu_progress(struct iommu *iommu)
{
	struct list ready;

	list_init(&ready);
	pthread_mutex_lock(&iommu->lock);
	list_for_each (it, &iommu->ports)
		container_of(it, struct iommu_port, in_iommu)->wanted = false;
	list_for_each_safe (it, &iommu->pending) {
		struct iommu_op *op = container_of(it, struct iommu_op, node);

		if (op_ready_locked(iommu, op)) {
			list_del(&op->node);
			list_add_tail(&ready, &op->node);
		}
	}
	list_for_each (it, &iommu->ports) {
		struct iommu_port *port = container_of(it, struct iommu_port, in_iommu);

		if (!port->wanted)
			atomic_store_explicit(&port->waited, false, memory_order_relaxed);
	}
	pthread_mutex_unlock(&iommu->lock);
	while (!list_empty(&ready)) {
		struct iommu_op *op = container_of(ready.next, struct iommu_op, node);

		/* Unlinked first: done may reuse it. */
		list_del(&op->node);
		op->done(op);
	}
}
