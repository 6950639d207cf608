/*
 * Listeners: after every request, what a listener was told equals the books, also
 * when it refuses.
 */

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include "devices/iommu/domain.h"
#include "vmm/base/log.h"

#define OK     VIRTIO_IOMMU_S_OK
#define DEVERR VIRTIO_IOMMU_S_DEVERR
#define UNSUPP VIRTIO_IOMMU_S_UNSUPP
#define NOMEM  VIRTIO_IOMMU_S_NOMEM

#define R      VIRTIO_IOMMU_MAP_F_READ
#define RW     (R | VIRTIO_IOMMU_MAP_F_WRITE)
#define MMIO   VIRTIO_IOMMU_MAP_F_MMIO
#define BYPASS VIRTIO_IOMMU_ATTACH_F_BYPASS

#define G	 0x1000ULL
#define MAX_TOLD 64

/* A listener that remembers, fails when asked to, and finishes removals late when asked to. */
struct fake {
	struct dma_listener listener;
	struct {
		uint64_t first, last, phys;
		uint8_t perm;
	} told[MAX_TOLD];
	unsigned count, calls, clears;
	bool identity;
	int fail;	  /* the errno of a refusal */
	unsigned fail_at; /* refuse the map or identity after so many, 0 = the next */
	unsigned fails;	  /* and those after it: so many in all, 0 = 1 */
	bool late;
	struct dma_ticket *ticket[8];
	unsigned tickets;
	unsigned audits;
};

static int fake_fails(struct fake *f)
{
	f->calls++;
	if (!f->fail)
		return 0;
	if (f->fail_at) {
		f->fail_at--;
		return 0;
	}
	int fail = f->fail;

	if (!f->fails || --f->fails == 0)
		f->fail = 0;
	return -fail;
}

static int fake_map(struct dma_listener *l, iova_t first, iova_t last, gpa_t phys, uint8_t perm)
{
	struct fake *f = container_of(l, struct fake, listener);
	int r = fake_fails(f);

	if (r < 0)
		return r;
	cr_assert(!f->identity && f->count < MAX_TOLD);
	for (unsigned i = 0; i < f->count; i++)
		cr_assert(f->told[i].last < first.v || last.v < f->told[i].first);
	f->told[f->count].first = first.v;
	f->told[f->count].last = last.v;
	f->told[f->count].phys = phys.v;
	f->told[f->count++].perm = perm;
	return 0;
}

static int fake_removed(struct fake *f, struct dma_ticket *ticket)
{
	if (!f->late || !ticket)
		return 0;
	f->ticket[f->tickets++] = ticket;
	return DMA_LISTENER_PENDING;
}

static int fake_unmap(struct dma_listener *l, iova_t first, iova_t last, struct dma_ticket *ticket)
{
	struct fake *f = container_of(l, struct fake, listener);
	unsigned i = 0;

	while (i < f->count && (f->told[i].first != first.v || f->told[i].last != last.v))
		i++;
	cr_assert_lt(i, f->count, "an unmap of what isn't mapped");
	f->told[i] = f->told[--f->count];
	return fake_removed(f, ticket);
}

static int fake_clear(struct dma_listener *l, struct dma_ticket *ticket)
{
	struct fake *f = container_of(l, struct fake, listener);

	f->count = 0;
	f->identity = false;
	f->clears++;
	return fake_removed(f, ticket);
}

static int fake_identity(struct dma_listener *l)
{
	struct fake *f = container_of(l, struct fake, listener);
	int r = fake_fails(f);

	cr_assert(!f->count && !f->identity);
	if (r == 0)
		f->identity = true;
	return r;
}

static uint64_t fake_audit(struct dma_listener *l, dma_listener_next_fn next, void *opaque)
{
	struct fake *f = container_of(l, struct fake, listener);
	uint64_t found = 0, differences = 0;
	iova_t first, last, before = { 0 };

	f->audits++;
	if (!next)
		return !f->identity;
	for (; next(opaque, &first, &last); before = last) {
		unsigned i = 0;

		cr_assert(!before.v || first.v > before.v, "ascending");
		while (i < f->count && (f->told[i].first != first.v || f->told[i].last != last.v))
			i++;
		found += i < f->count;
		differences += i == f->count;
	}
	return differences + (f->count - found) + f->identity;
}

static const struct dma_listener_ops fake_ops = {
	.map = fake_map,
	.unmap = fake_unmap,
	.clear = fake_clear,
	.identity = fake_identity,
	.audit = fake_audit,
};

static struct {
	struct ram ram;
	struct iommu *iommu;
	struct iommu_op op;
	_Atomic unsigned done;
	/* a follows endpoint 8, b 16 to 18 (which the host can't tell apart); 24 has none. */
	struct fake a, b;
} env;

static void op_done(struct iommu_op *op)
{
	atomic_fetch_add(&env.done, 1);
}

static void setup_bypass(bool bypass)
{
	static const uint32_t endpoints[] = { 8, 16, 17, 18, 24 };
	struct iommu_config config = {
		.granule = G, .address_width = 48, .bypass = bypass, .audit = true
	};
	struct dma_view *view;

	log_set_level(LOG_ERROR);
	env.op.done = op_done;
	env.a.listener.ops = env.b.listener.ops = &fake_ops;
	cr_assert_eq(iommu_create(&env.iommu, &config, &env.ram, NULL), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(endpoints); i++)
		cr_assert_eq(iommu_add_endpoint(env.iommu, endpoints[i], "x", NULL, 0, &view, NULL),
			     0);
	cr_assert_eq(iommu_set_listener(env.iommu, 8, &env.a.listener), 0);
	cr_assert_eq(iommu_set_listener(env.iommu, 16, &env.b.listener), 0);
	cr_assert_eq(iommu_set_listener(env.iommu, 17, &env.b.listener), 0);
	cr_assert_eq(iommu_set_listener(env.iommu, 18, &env.b.listener), 0);
}

static void setup(void)
{
	setup_bypass(false);
}

static void teardown(void)
{
	/* Else a failed test would wait for what nobody ends any more. */
	env.a.late = env.b.late = false;
	iommu_destroy(env.iommu);
	cr_assert(!env.a.count && !env.a.identity, "the listener is left empty");
	cr_assert(!env.b.count && !env.b.identity);
}

TestSuite(listener, .init = setup, .fini = teardown);

static int attach_flags(uint32_t domain, uint32_t endpoint, uint32_t flags)
{
	return iommu_attach(env.iommu, domain, endpoint, flags, BYPASS, &env.op);
}

static int attach(uint32_t domain, uint32_t endpoint)
{
	return attach_flags(domain, endpoint, 0);
}

static int detach(uint32_t domain, uint32_t endpoint)
{
	return iommu_detach(env.iommu, domain, endpoint, &env.op);
}

static int map(uint32_t domain, uint64_t page, uint64_t pages, uint32_t flags)
{
	return iommu_map(env.iommu, domain, page * G, (page + pages) * G - 1, MIB(1) + page * G,
			 flags, RW | MMIO);
}

static int unmap(uint32_t domain, uint64_t page, uint64_t pages)
{
	return iommu_unmap(env.iommu, domain, page * G, (page + pages) * G - 1, &env.op);
}

/* True when @f was told of [@page, @page + @pages), the way map() above made it. */
static bool has(const struct fake *f, uint64_t page, uint64_t pages, uint8_t perm)
{
	for (unsigned i = 0; i < f->count; i++) {
		if (f->told[i].first == page * G)
			return f->told[i].last == (page + pages) * G - 1 &&
			       f->told[i].phys == MIB(1) + page * G && f->told[i].perm == perm;
	}
	return false;
}

Test(listener, follows_maps_and_unmaps_with_their_permissions)
{
	cr_assert_eq(attach(1, 8), OK);
	cr_assert_eq(map(1, 0, 1, R), OK);
	cr_assert_eq(map(1, 4, 2, RW), OK);
	cr_assert_eq(env.a.count, 2);
	cr_assert(has(&env.a, 0, 1, DMA_READ) && has(&env.a, 4, 2, DMA_READ | DMA_WRITE));
	cr_assert_eq(env.b.count, 0, "another domain's endpoint sees nothing of it");
	cr_assert_eq(unmap(1, 0, 16), OK);
	cr_assert_eq(env.a.count, 0);
}

Test(listener, mmio_and_maps_without_permission_stay_here)
{
	cr_assert_eq(attach(1, 8), OK);
	cr_assert_eq(map(1, 0, 1, R | MMIO), OK);
	cr_assert_eq(map(1, 1, 1, 0), OK);
	cr_assert_eq(env.a.calls, 0);
	cr_assert_eq(detach(1, 8), OK);
	cr_assert_eq(attach(2, 24), OK);
	cr_assert_eq(map(2, 0, 1, R | MMIO), OK);
	cr_assert_eq(attach(2, 8), OK, "nor are they replayed");
	cr_assert_eq(env.a.calls, 0);
	cr_assert_eq(unmap(2, 0, 1), OK, "nor unmapped, which the fake would refuse");
}

Test(listener, attach_replays_detach_clears)
{
	cr_assert_eq(attach(1, 24), OK);
	for (unsigned i = 0; i < 10; i++)
		cr_assert_eq(map(1, 3 * i, 2, RW), OK);
	cr_assert_eq(env.a.calls, 0);
	cr_assert_eq(attach(1, 8), OK);
	cr_assert_eq(env.a.count, 10);
	cr_assert_eq(attach(1, 16), OK);
	for (unsigned i = 0; i < 10; i++)
		cr_assert(has(&env.a, 3 * i, 2, RW) && has(&env.b, 3 * i, 2, RW));
	cr_assert_eq(unmap(1, 3, 2), OK);
	cr_assert(env.a.count == 9 && env.b.count == 9);
	cr_assert_eq(detach(1, 8), OK);
	cr_assert(env.a.count == 0 && env.b.count == 9);
	cr_assert_eq(attach(1, 8), OK);
	cr_assert_eq(env.a.count, 9);
	cr_assert_eq(attach(2, 8), OK, "a move to an empty domain");
	cr_assert(env.a.count == 0 && env.b.count == 9);
	struct iommu_op op = { .done = op_done };

	cr_assert_eq(iommu_reset(env.iommu, &op), OK);
	cr_assert(env.a.count == 0 && env.b.count == 0);
}

static struct iommu_audit audit(void)
{
	struct iommu_audit a;

	iommu_audit(env.iommu, &a);
	return a;
}

Test(listener, a_shared_listener_is_told_once)
{
	cr_assert_eq(attach(1, 16), OK);
	cr_assert_eq(map(1, 0, 1, RW), OK);
	unsigned calls = env.b.calls, clears = env.b.clears;

	cr_assert_eq(attach(1, 17), OK);
	cr_assert(env.b.calls == calls && env.b.clears == clears, "the first one isn't disturbed");
	cr_assert_eq(map(1, 1, 1, RW), OK);
	cr_assert_eq(env.b.count, 2);
}

Test(listener, what_shares_a_listener_joins_or_isnt_attached)
{
	cr_assert_eq(attach(1, 16), OK);
	cr_assert_eq(map(1, 0, 1, RW), OK);
	cr_assert_eq(attach(2, 17), UNSUPP);
	cr_assert_eq(attach_flags(3, 17, BYPASS), UNSUPP);
	cr_assert_eq(env.b.count, 1, "the first one isn't disturbed");
	cr_assert_eq(attach(1, 17), OK);
	cr_assert_eq(detach(1, 17), OK);
	cr_assert_eq(attach(2, 17), UNSUPP);
	cr_assert_eq(env.b.count, 1);
	cr_assert_eq(attach(2, 16), OK, "alone it may move");
	cr_assert_eq(env.b.count, 0);
	cr_assert_eq(attach(2, 17), OK);
	cr_assert_eq(attach(3, 17), OK, "from where the other is");
	cr_assert_eq(attach(4, 16), UNSUPP, "which follows, and goes nowhere else");
	cr_assert_eq(attach(4, 17), UNSUPP);
	cr_assert_eq(attach(3, 16), OK);
}

/* 16 to 18 in domain 1, which has page 0; 24 in domain 2, which has pages 0 and 1. */
static void attach_group(uint32_t flags)
{
	for (uint32_t id = 16; id <= 18; id++)
		cr_assert_eq(attach_flags(1, id, flags), OK);
	if (!flags)
		cr_assert_eq(map(1, 0, 1, R), OK);
	cr_assert_eq(attach(2, 24), OK);
	cr_assert_eq(map(2, 0, 1, RW), OK);
	cr_assert_eq(map(2, 1, 1, RW), OK);
}

static void nothing_is_told(void)
{
	cr_assert(!env.b.count && !env.b.identity);
	cr_assert_eq(audit().differences, 0);
}

static const uint32_t orders[][3] = {
	{ 16, 17, 18 }, { 16, 18, 17 }, { 17, 16, 18 },
	{ 17, 18, 16 }, { 18, 16, 17 }, { 18, 17, 16 },
};

/* Linux attaches the functions of a group one after the other, and never detaches. */
Test(listener, a_group_moves_in_any_order)
{
	attach_group(0);
	for (unsigned i = 0; i < ARRAY_SIZE(orders); i++) {
		cr_assert_eq(attach(2, orders[i][0]), OK);
		nothing_is_told();
		cr_assert_eq(map(1, 8, 1, RW), OK, "either domain goes on");
		cr_assert_eq(map(2, 8, 1, RW), OK);
		cr_assert_eq(unmap(1, 8, 1), OK);
		nothing_is_told();
		cr_assert_eq(attach(2, orders[i][1]), OK);
		nothing_is_told();
		cr_assert_eq(attach(2, orders[i][2]), OK);
		cr_assert_eq(env.b.count, 3, "what was mapped meanwhile, too");
		cr_assert(has(&env.b, 0, 1, RW) && has(&env.b, 1, 1, RW) && has(&env.b, 8, 1, RW));
		cr_assert_eq(unmap(2, 8, 1), OK);
		cr_assert(env.b.count == 2 && audit().differences == 0);
		/* Back, where nobody is any more. */
		for (unsigned j = 0; j < 3; j++)
			cr_assert_eq(attach(1, orders[i][j]), OK);
		cr_assert(!env.b.count);
		cr_assert_eq(map(1, 0, 1, R), OK);
		cr_assert(env.b.count == 1 && has(&env.b, 0, 1, R));
	}
}

Test(listener, a_group_that_turns_back_halfway)
{
	attach_group(0);
	cr_assert_eq(attach(2, 16), OK);
	cr_assert_eq(attach(2, 17), OK);
	cr_assert_eq(attach(1, 16), OK);
	nothing_is_told();
	cr_assert_eq(attach(1, 17), OK);
	cr_assert(env.b.count == 1 && has(&env.b, 0, 1, R));
}

Test(listener, a_group_moves_from_bypass_to_a_domain_and_back)
{
	attach_group(BYPASS);
	iommu_set_bypass(env.iommu, true);
	for (unsigned i = 0; i < ARRAY_SIZE(orders); i++) {
		cr_assert(env.b.identity);
		for (unsigned j = 0; j < 3; j++) {
			cr_assert_eq(attach(2, orders[i][j]), OK);
			if (j < 2)
				nothing_is_told();
		}
		cr_assert(env.b.count == 2 && !env.b.identity);
		for (unsigned j = 0; j < 3; j++) {
			cr_assert_eq(attach_flags(1, orders[i][j], BYPASS), OK);
			if (j < 2)
				nothing_is_told();
		}
		cr_assert_eq(audit().differences, 0);
	}
	unsigned clears = env.b.clears;

	for (uint32_t id = 16; id <= 18; id++)
		cr_assert_eq(attach_flags(4, id, BYPASS), OK);
	cr_assert(env.b.identity && env.b.clears == clears, "from bypass to bypass no gap");
}

Test(listener, a_detach_halfway_leaves_what_the_rest_agrees_on)
{
	attach_group(0);
	cr_assert_eq(attach(2, 17), OK);
	cr_assert_eq(detach(1, 16), OK);
	nothing_is_told();
	cr_assert_eq(detach(1, 18), OK);
	cr_assert_eq(env.b.count, 2, "17 is alone, in domain 2");
	cr_assert_eq(attach(2, 18), OK);
	cr_assert_eq(detach(2, 17), OK);
	cr_assert_eq(detach(2, 18), OK);
	nothing_is_told();
}

/* What the host refused of a domain is gone from it: the rest of the group asks once more. */
Test(listener, an_attach_to_where_it_is_tries_again)
{
	attach_group(0);
	cr_assert_eq(attach(2, 16), OK);
	cr_assert_eq(attach(2, 17), OK);
	env.b.fail = ENOSPC;
	env.b.fails = 3;
	cr_assert_eq(attach(2, 18), NOMEM);
	nothing_is_told();
	cr_assert_eq(attach(2, 16), NOMEM, "it isn't OK while it reaches nothing");
	nothing_is_told();
	cr_assert_eq(attach(2, 16), OK);
	cr_assert(env.b.count == 2 && has(&env.b, 0, 1, RW) && has(&env.b, 1, 1, RW));
	unsigned calls = env.b.calls;

	cr_assert_eq(attach(2, 17), OK);
	cr_assert_eq(env.b.calls, calls, "nothing to do");
	cr_assert_eq(audit().differences, 0);
}

Test(listener, a_reset_halfway_gives_nothing)
{
	struct iommu_op op = { .done = op_done };

	attach_group(0);
	cr_assert_eq(attach(2, 16), OK);
	unsigned calls = env.b.calls;

	cr_assert_eq(iommu_reset(env.iommu, &op), OK);
	nothing_is_told();
	cr_assert_eq(env.b.calls, calls, "not even for a moment");
}

/* Whatever step of the last replay fails; then it is tried for the others, also in vain. */
Test(listener, a_group_whose_last_replay_fails_has_nothing_until_it_works)
{
	attach_group(0);
	for (unsigned step = 0; step < 2; step++) {
		cr_assert_eq(attach(2, 16), OK);
		cr_assert_eq(attach(2, 17), OK);
		env.b.fail = ENOSPC;
		env.b.fail_at = step;
		env.b.fails = 2;
		cr_assert_eq(attach(2, 18), NOMEM);
		nothing_is_told();
		cr_assert_eq(detach(2, 18), VIRTIO_IOMMU_S_INVAL, "it is detached");
		cr_assert_eq(map(2, 5, 1, RW), OK);
		cr_assert_eq(unmap(2, 5, 1), OK);
		nothing_is_told();
		if (step) {
			cr_assert_eq(attach(2, 18), OK, "again");
			cr_assert_eq(env.b.count, 2);
		}
		/* As Linux does, each back to where it was. */
		for (uint32_t id = 16; id <= 18; id++)
			cr_assert_eq(attach(1, id), OK);
		cr_assert_eq(audit().differences, 0);
	}
}

Test(listener, a_groups_first_move_waits_for_what_it_had)
{
	attach_group(0);
	env.b.late = true;
	cr_assert_eq(attach(2, 16), IOMMU_PENDING);
	cr_assert_eq(env.b.tickets, 1);
	cr_assert_eq(atomic_load(&env.done), 0);
	dma_ticket_done(env.b.ticket[0]);
	cr_assert_eq(atomic_load(&env.done), 1);
	env.b.late = false;
}

Test(listener, a_refused_map_is_undone_everywhere)
{
	static const struct {
		int error, status;
	} refusals[] = { { ENOMEM, NOMEM }, { ENOSPC, NOMEM }, { EFAULT, DEVERR } };

	cr_assert_eq(attach(1, 8), OK);
	cr_assert_eq(attach(1, 16), OK);
	for (unsigned i = 0; i < 2 * ARRAY_SIZE(refusals); i++) {
		struct fake *refuses = i % 2 ? &env.a : &env.b;

		refuses->fail = refusals[i / 2].error;
		cr_assert_eq(map(1, 7, 1, RW), refusals[i / 2].status);
		cr_assert(env.a.count == 0 && env.b.count == 0);
		cr_assert_eq(map(1, 7, 1, RW), OK, "nothing of it stayed in the books");
		cr_assert(env.a.count == 1 && env.b.count == 1);
		cr_assert_eq(unmap(1, 7, 1), OK);
	}
}

/* Whatever step of the replay fails: detached, empty, and it works again later. */
Test(listener, a_refused_replay_leaves_the_endpoint_detached)
{
	cr_assert_eq(attach(1, 24), OK);
	for (unsigned i = 0; i < 5; i++)
		cr_assert_eq(map(1, i, 1, RW), OK);
	for (unsigned step = 0; step < 5; step++) {
		cr_assert_eq(attach(2, 8), OK);
		cr_assert_eq(map(2, 20, 1, RW), OK);
		env.a.fail = ENOSPC;
		env.a.fail_at = step;
		cr_assert_eq(attach(1, 8), NOMEM);
		cr_assert_eq(env.a.count, 0);
		cr_assert_eq(map(2, 21, 1, RW), VIRTIO_IOMMU_S_NOENT, "its old domain is gone");
		cr_assert_eq(detach(1, 8), VIRTIO_IOMMU_S_INVAL);
		cr_assert_eq(map(1, 30, 1, RW), OK, "the others go on");
		cr_assert_eq(env.a.count, 0);
		cr_assert_eq(unmap(1, 30, 1), OK);
		cr_assert_eq(attach(1, 8), OK);
		cr_assert_eq(env.a.count, 5);
		cr_assert_eq(detach(1, 8), OK);
	}
}

Test(listener, bypass_is_identity)
{
	iommu_set_bypass(env.iommu, true);
	cr_assert(env.a.identity && env.b.identity);
	cr_assert_eq(attach(1, 8), OK);
	cr_assert(!env.a.identity && env.b.identity);
	cr_assert_eq(map(1, 0, 1, RW), OK);
	cr_assert_eq(env.a.count, 1);
	cr_assert_eq(attach_flags(2, 8, BYPASS), OK);
	cr_assert(env.a.identity && env.a.count == 0);
	unsigned clears = env.b.clears;

	cr_assert_eq(attach_flags(2, 16, BYPASS), OK);
	cr_assert(env.b.identity && env.b.clears == clears, "from identity to identity no gap");
	cr_assert_eq(attach(3, 8), OK);
	cr_assert(!env.a.identity);
	cr_assert_eq(detach(3, 8), OK);
	cr_assert(env.a.identity);
	iommu_set_bypass(env.iommu, false);
	cr_assert(!env.a.identity && env.b.identity, "the bypass domain stays");
	iommu_system_reset(env.iommu);
	cr_assert(!env.a.identity && !env.b.identity);
}

Test(listener, an_identity_that_the_host_refuses)
{
	env.a.fail = ENOMEM;
	cr_assert_eq(attach_flags(2, 8, BYPASS), NOMEM);
	cr_assert(!env.a.identity);
	env.a.fail = ENOTSUP;
	cr_assert_eq(attach_flags(2, 8, BYPASS), UNSUPP, "memory that it can't map");
	cr_assert(!env.a.identity);
	cr_assert_eq(attach_flags(2, 8, BYPASS), OK);
	cr_assert(env.a.identity);
	cr_assert_eq(detach(2, 8), OK);
	env.a.fail = ENOTSUP;
	iommu_set_bypass(env.iommu, true);
	cr_assert(!env.a.identity && env.b.identity);
	cr_assert_eq(audit().differences, 0);
}

static void setup_open(void)
{
	setup_bypass(true);
}

TestSuite(listener_open, .init = setup_open, .fini = teardown);

Test(listener_open, initial_bypass)
{
	cr_assert(env.a.identity && env.b.identity);
}

/* The answer waits for the listener's ticket. */
Test(listener, a_late_removal_delays_the_answer)
{
	cr_assert_eq(attach(1, 8), OK);
	cr_assert_eq(attach(1, 16), OK);
	cr_assert_eq(map(1, 0, 1, RW), OK);
	cr_assert_eq(map(1, 1, 1, RW), OK);
	env.a.late = env.b.late = true;
	cr_assert_eq(unmap(1, 0, 2), IOMMU_PENDING);
	cr_assert(env.a.tickets == 2 && env.b.tickets == 2);
	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(atomic_load(&env.done), 0);
		dma_ticket_done(env.a.ticket[i]);
		cr_assert_eq(atomic_load(&env.done), 0);
		dma_ticket_done(env.b.ticket[i]);
	}
	cr_assert_eq(atomic_load(&env.done), 1);
	cr_assert_eq(env.op.status, OK);
	env.a.tickets = env.b.tickets = 0;
	env.b.late = false;
	cr_assert_eq(map(1, 0, 1, RW), OK);
	cr_assert_eq(detach(1, 8), IOMMU_PENDING);
	dma_ticket_done(env.a.ticket[0]);
	cr_assert_eq(atomic_load(&env.done), 2);
	env.a.late = false;
}

/* An ATTACH whose replay fails says so also when its answer has to wait. */
Test(listener, a_late_answer_keeps_its_status)
{
	cr_assert_eq(attach(1, 24), OK);
	cr_assert_eq(map(1, 0, 1, RW), OK);
	cr_assert_eq(attach(2, 8), OK);
	env.a.late = true;
	env.a.fail = ENOSPC;
	cr_assert_eq(attach(1, 8), IOMMU_PENDING);
	cr_assert_eq(env.a.tickets, 1);
	dma_ticket_done(env.a.ticket[0]);
	cr_assert_eq(atomic_load(&env.done), 1);
	cr_assert_eq(env.op.status, NOMEM);
	env.a.late = false;
}

/* Audits. */

Test(listener, an_audit_asks_for_what_was_forwarded)
{
	cr_assert_eq(attach(1, 8), OK);
	cr_assert_eq(attach_flags(2, 16, BYPASS), OK);
	cr_assert_eq(map(1, 0, 1, RW), OK);
	cr_assert_eq(map(1, 5, 2, R), OK);
	cr_assert_eq(map(1, 9, 1, RW | MMIO), OK);
	cr_assert_eq(map(1, 11, 1, 0), OK);
	struct iommu_audit a = audit();

	cr_assert(a.listeners == 2 && a.mappings == 2 && a.differences == 0);
	env.a.count--;
	cr_assert_eq(audit().differences, 1);
	env.a.count++;
	env.b.identity = false;
	cr_assert_eq(audit().differences, 1);
	env.b.identity = true;
	cr_assert_eq(detach(1, 8), OK);
	cr_assert_eq(audit().differences, 0);
	env.a.count = 1;
	cr_assert_eq(audit().differences, 1, "nothing is attached");
	env.a.count = 0;
}

Test(listener, a_debug_build_audits_for_no_more_than_64_mappings_a_request)
{
	iommu_audit_request(env.iommu);
	iommu_audit_request(env.iommu);
	cr_assert_eq(env.a.audits, 2);
	cr_assert_eq(attach(1, 24), OK);
	for (unsigned i = 0; i < 640; i++)
		cr_assert_eq(map(1, 2 * i, 1, RW), OK);
	for (unsigned i = 0; i < 22; i++)
		iommu_audit_request(env.iommu);
	cr_assert_eq(env.a.audits, 4);
}

Test(listener, what_a_host_cannot_map_at_all_is_not_supported)
{
	cr_assert_eq(attach(1, 8), OK);
	env.a.fail = ENOTSUP;
	cr_assert_eq(map(1, 0, 1, RW), UNSUPP);
	cr_assert_eq(map(1, 0, 1, RW), OK);
}
