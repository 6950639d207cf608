/* The ring parser against a driver that is correct, wrong, hostile, or remapped under it. */
#include <criterion/criterion.h>
#include <pthread.h>
#include "ring.h"

/* Ring at the start of the world, buffers from here on. */
#define DATA (WORLD_BASE + 32 * PAGE)

struct rig {
	struct world w;
	struct ring r;
	struct virtq vq;
	struct virtq_buf buf[VIRTQ_MAX_SIZE];
	struct virtq_chain chain;
};

static void rig_start_at(struct rig *rig, uint16_t size, bool event_idx, bool indirect,
			 bool scattered, uint64_t at)
{
	memset(rig, 0, sizeof(*rig));
	world_init(&rig->w, scattered);
	rig->r = ring_make(&rig->w, size, at);
	rig->chain.max = VIRTQ_MAX_SIZE;
	rig->chain.buf = rig->buf;

	struct virtq_config config = ring_config(&rig->r);

	virtq_start(&rig->vq, &config, &rig->w.port, event_idx, indirect);
	cr_assert_eq(rig->vq.state, VIRTQ_RUNNING);
}

static void rig_start(struct rig *rig, uint16_t size, bool event_idx, bool indirect)
{
	rig_start_at(rig, size, event_idx, indirect, false, WORLD_BASE);
}

static void rig_stop(struct rig *rig)
{
	virtq_stop(&rig->vq);
	cr_assert_eq(rig->vq.state, VIRTQ_STOPPED);
	world_finish(&rig->w);
}

static int pop(struct rig *rig)
{
	int result = virtq_pop(&rig->vq, &rig->chain);

	cr_assert_eq(atomic_load(&rig->w.port.active), 0, "a section was left open");
	return result;
}

/* The ring is broken for good: nothing is served although good buffers follow. */
static void expect_broken(struct rig *rig)
{
	cr_assert_eq(pop(rig), -EPROTO);
	cr_assert_eq(rig->vq.state, VIRTQ_BROKEN);
	ring_desc(&rig->r, 0, DATA, 16, 0, 0);
	ring_offer(&rig->r, 0);
	cr_assert_eq(pop(rig), -EPROTO);
	cr_assert_eq(virtq_push(&rig->vq, 0, 0), 0);
	cr_assert(!virtq_publish(&rig->vq));
	cr_assert_eq(ring_used_idx(&rig->r), 0);
	cr_assert_eq(rig->w.faults, 0);
	rig_stop(rig);
}

Test(virtq, serves_a_chain)
{
	struct rig rig;
	uint32_t id, len;

	rig_start(&rig, 8, false, false);
	cr_assert_eq(pop(&rig), 0);
	ring_desc(&rig.r, 5, DATA, 16, F_NEXT, 2);
	ring_desc(&rig.r, 2, DATA + 100, 512, F_NEXT | F_WRITE, 7);
	ring_desc(&rig.r, 7, DATA + 1000, 1, F_WRITE, 0xffff);
	ring_offer(&rig.r, 5);
	cr_assert_eq(pop(&rig), 1);
	cr_assert_eq(rig.chain.head, 5);
	cr_assert_eq(rig.chain.out, 1);
	cr_assert_eq(rig.chain.in, 2);
	cr_assert_eq(rig.chain.out_bytes, 16);
	cr_assert_eq(rig.chain.in_bytes, 513);
	cr_assert_eq(rig.buf[1].addr.v, DATA + 100);
	cr_assert_eq(rig.buf[2].len, 1);
	cr_assert_eq(pop(&rig), 0);

	cr_assert_eq(virtq_push(&rig.vq, 5, 513), 0);
	cr_assert_eq(ring_used_idx(&rig.r), 0, "pushed, not yet published");
	cr_assert(virtq_publish(&rig.vq));
	cr_assert_eq(ring_used_idx(&rig.r), 1);
	ring_used(&rig.r, 0, &id, &len);
	cr_assert_eq(id, 5);
	cr_assert_eq(len, 513);
	cr_assert(!virtq_publish(&rig.vq), "nothing new, no interrupt");
	rig_stop(&rig);
}

Test(virtq, unpop_gives_the_chain_again)
{
	struct rig rig;

	rig_start(&rig, 4, false, false);
	ring_desc(&rig.r, 3, DATA, 16, 0, 0);
	ring_offer(&rig.r, 3);
	cr_assert_eq(pop(&rig), 1);
	virtq_unpop(&rig.vq);
	rig.chain.head = 0;
	cr_assert_eq(pop(&rig), 1);
	cr_assert_eq(rig.chain.head, 3);
	cr_assert_eq(pop(&rig), 0);
	rig_stop(&rig);
}

/* Programmed addresses and sizes that can't be a queue. */
Test(virtq, refuses_impossible_configurations)
{
	const struct virtq_config good = { 8, true, IOVA(0x1000), IOVA(0x2002), IOVA(0x3004) };
	struct virtq_config bad[] = { good, good, good, good, good, good, good, good, good };
	struct virtq_chain chain = { 0 };
	struct world w;
	struct virtq vq = { 0 };

	world_init(&w, false);
	virtq_start(&vq, &good, &w.port, true, true);
	cr_assert_eq(vq.state, VIRTQ_RUNNING);
	bad[0].size = 0;
	bad[1].size = 6;
	bad[2].size = 2 * VIRTQ_MAX_SIZE;
	bad[3].desc = IOVA(0x1008);
	bad[4].driver = IOVA(0x2001);
	bad[5].device = IOVA(0x3002);
	bad[6].desc = IOVA(UINT64_MAX - 15);
	bad[7].driver = IOVA(UINT64_MAX - 1);
	bad[8].device = IOVA(UINT64_MAX - 3);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		virtq_start(&vq, &bad[i], &w.port, true, true);
		cr_assert_eq(vq.state, VIRTQ_BROKEN, "%u", i);
		cr_assert_eq(virtq_pop(&vq, &chain), -EPROTO);
		cr_assert_eq(virtq_push(&vq, 0, 0), 0);
		cr_assert(!virtq_publish(&vq));
		cr_assert(!virtq_enable_kicks(&vq));
		virtq_disable_kicks(&vq);
		virtq_stop(&vq);
	}
	world_finish(&w);
}

/* Malformed chains: each row writes up to three descriptors, and offers @head. */
struct bad_chain {
	const char *why;
	uint16_t head;
	struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} desc[3];
};

static const struct bad_chain bad_chains[] = {
	{ "head beyond the queue", 8, { { DATA, 16, 0, 0 } } },
	{ "next beyond the queue", 0, { { DATA, 16, F_NEXT, 8 } } },
	{ "next far beyond the queue", 0, { { DATA, 16, F_NEXT, 0xffff } } },
	{ "a descriptor that follows itself", 0, { { DATA, 16, F_NEXT, 0 } } },
	{ "a loop of two", 0, { { DATA, 16, F_NEXT, 1 }, { DATA, 16, F_NEXT, 0 } } },
	{ "readable after writable", 0, { { DATA, 16, F_NEXT | F_WRITE, 1 }, { DATA, 16, 0, 0 } } },
	{ "no bytes at all", 0, { { DATA, 0, F_NEXT, 1 }, { DATA, 0, F_WRITE, 0 } } },
	{ "a buffer that wraps around", 0, { { UINT64_MAX - 14, 16, 0, 0 } } },
	{ "more than 4 GiB",
	  0,
	  { { DATA, UINT32_MAX, F_NEXT, 1 }, { DATA, 1, F_NEXT, 2 }, { DATA, 1, 0, 0 } } },
	{ "NEXT and INDIRECT", 0, { { DATA, 16, F_NEXT | F_INDIRECT, 1 }, { DATA, 16, 0, 0 } } },
	{ "an empty indirect table", 0, { { DATA, 0, F_INDIRECT, 0 } } },
	{ "half a descriptor in a table", 0, { { DATA, 24, F_INDIRECT, 0 } } },
	{ "a table that is too large", 0, { { DATA, 16 * (VIRTQ_MAX_SIZE + 1), F_INDIRECT, 0 } } },
	{ "a table that wraps around", 0, { { UINT64_MAX - 15, 32, F_INDIRECT, 0 } } },
};

Test(virtq, breaks_on_malformed_chains)
{
	for (unsigned i = 0; i < ARRAY_SIZE(bad_chains); i++) {
		const struct bad_chain *bad = &bad_chains[i];
		struct rig rig;

		rig_start(&rig, 8, false, true);
		for (unsigned d = 0; d < 3; d++)
			ring_desc(&rig.r, d, bad->desc[d].addr, bad->desc[d].len,
				  bad->desc[d].flags, bad->desc[d].next);
		/* A table full of zeroes where a row points to one: a chain of no bytes. */
		ring_offer(&rig.r, bad->head);
		cr_log_info("%s", bad->why);
		expect_broken(&rig);
	}
}

Test(virtq, breaks_on_indirect_without_the_feature)
{
	struct rig rig;

	rig_start(&rig, 8, false, false);
	ring_desc(&rig.r, 0, DATA, 16, F_INDIRECT, 0);
	put_desc(&rig.w, DATA, 0, DATA + 64, 16, 0, 0);
	ring_offer(&rig.r, 0);
	expect_broken(&rig);
}

Test(virtq, breaks_when_avail_idx_jumps)
{
	struct rig rig;

	rig_start(&rig, 8, false, false);
	ring_desc(&rig.r, 0, DATA, 16, 0, 0);
	poke16(&rig.w, rig.r.avail + 2, 9); /* one more than fits */
	expect_broken(&rig);

	rig_start(&rig, 8, false, false);
	poke16(&rig.w, rig.r.avail + 2, 0xffff); /* backwards */
	expect_broken(&rig);

	rig_start(&rig, 8, false, false);
	ring_desc(&rig.r, 0, DATA, 16, 0, 0);
	poke16(&rig.w, rig.r.avail + 2, 8); /* a full ring is fine */
	for (unsigned i = 0; i < 8; i++)
		cr_assert_eq(pop(&rig), 1);
	cr_assert_eq(pop(&rig), 0);
	rig_stop(&rig);
}

Test(virtq, accepts_the_longest_chain_and_no_longer)
{
	struct rig rig;

	rig_start(&rig, 8, false, true);
	for (unsigned i = 0; i < 8; i++)
		ring_desc(&rig.r, i, DATA + i, 1, i < 7 ? F_NEXT : 0, (uint16_t)(i + 1));
	ring_offer(&rig.r, 0);
	cr_assert_eq(pop(&rig), 1);
	cr_assert_eq(rig.chain.out, 8);

	/* The owner's array is a bound of its own. */
	virtq_unpop(&rig.vq);
	rig.chain.max = 7;
	expect_broken(&rig);

	/* An indirect table may be larger than the queue, a chain in it may not. */
	rig_start(&rig, 8, false, true);
	for (unsigned i = 0; i < 9; i++)
		put_desc(&rig.w, DATA, i, DATA + 0x800, 1, i < 8 ? F_NEXT : 0, (uint16_t)(i + 1));
	ring_desc(&rig.r, 0, DATA, 16 * 9, F_INDIRECT, 0);
	ring_offer(&rig.r, 0);
	expect_broken(&rig);
}

/* 2.7.5.3: a chain may end in a table, whose WRITE flag means nothing. */
Test(virtq, follows_an_indirect_table_across_pages)
{
	const uint64_t table =
		DATA + PAGE - 24 * 16; /* 24 entries here, the rest on the next page */
	struct rig rig;

	rig_start_at(&rig, 64, false, true, true, WORLD_BASE);
	/* Backwards through the table, so that the window moves the wrong way too. */
	for (unsigned i = 0; i < 40; i++)
		put_desc(&rig.w, table, i == 0 ? 0 : 40 - i, DATA + 0x4000 + i, 2,
			 (uint16_t)((i < 39 ? F_NEXT : 0) | (i >= 10 ? F_WRITE : 0)),
			 (uint16_t)(39 - i));
	ring_desc(&rig.r, 9, DATA + 0x5000, 100, F_NEXT, 3);
	ring_desc(&rig.r, 3, table, 40 * 16, F_INDIRECT | F_WRITE, 0);
	ring_offer(&rig.r, 9);
	cr_assert_eq(pop(&rig), 1);
	cr_assert_eq(rig.chain.head, 9);
	cr_assert_eq(rig.chain.out, 11);
	cr_assert_eq(rig.chain.in, 30);
	cr_assert_eq(rig.chain.out_bytes, 120);
	for (unsigned i = 0; i < 40; i++)
		cr_assert_eq(rig.buf[1 + i].addr.v, DATA + 0x4000 + i);
	rig_stop(&rig);
}

Test(virtq, breaks_on_bad_indirect_tables)
{
	for (unsigned what = 0; what < 4; what++) {
		struct rig rig;

		rig_start(&rig, 8, false, true);
		put_desc(&rig.w, DATA, 0, DATA + 64, 16, F_NEXT, 1);
		if (what == 0) /* nested */
			put_desc(&rig.w, DATA, 1, DATA, 32, F_INDIRECT, 0);
		else if (what == 1) /* a loop */
			put_desc(&rig.w, DATA, 1, DATA + 64, 16, F_NEXT, 0);
		else if (what == 2) /* beyond the table, though the memory is there */
			put_desc(&rig.w, DATA, 1, DATA + 64, 16, F_NEXT, 3);
		else /* readable after the direct part's writable one */
			put_desc(&rig.w, DATA, 1, DATA + 64, 16, 0, 0);
		put_desc(&rig.w, DATA, 3, DATA + 64, 16, 0, 0);
		ring_desc(&rig.r, 0, DATA + 128, 16, F_NEXT | (what == 3 ? F_WRITE : 0), 1);
		ring_desc(&rig.r, 1, DATA, 32, F_INDIRECT, 0);
		ring_offer(&rig.r, 0);
		expect_broken(&rig);
	}
}

/* An unreachable table is a fault, not a broken ring; once it is mapped the chain is served. */
Test(virtq, reports_an_unreachable_indirect_table)
{
	struct rig rig;

	rig_start(&rig, 8, false, true);
	put_desc(&rig.w, DATA, 0, DATA + 64, 16, 0, 0);
	ring_desc(&rig.r, 0, DATA, 16, F_INDIRECT, 0);
	ring_offer(&rig.r, 0);
	world_remap(&rig.w, 32, 32, DMA_WRITE);
	cr_assert_eq(pop(&rig), -EFAULT);
	cr_assert_eq(rig.w.faults, 1);
	cr_assert_eq(rig.w.fault_addr, DATA);
	cr_assert_eq(rig.w.fault_dir, DMA_READ);
	cr_assert_eq(rig.vq.state, VIRTQ_RUNNING);
	world_remap(&rig.w, 32, 32, DMA_READ);
	cr_assert_eq(pop(&rig), 1);
	rig_stop(&rig);
}

/* All indices are 16 bits and wrap; the driver and we must agree on every slot. */
Test(virtq, wraps_around_at_65536)
{
	struct rig rig;
	uint32_t id, len;

	rig_start(&rig, 4, true, false);
	for (unsigned i = 0; i < 4; i++)
		ring_desc(&rig.r, i, DATA, 16, F_WRITE, 0);
	for (unsigned i = 0; i < 70000; i++) {
		uint16_t head = (uint16_t)(i * 7 % 4);

		ring_offer(&rig.r, head);
		ring_set_used_event(&rig.r, (uint16_t)i);
		if (virtq_pop(&rig.vq, &rig.chain) != 1 || rig.chain.head != head ||
		    virtq_push(&rig.vq, head, i) != 0 || !virtq_publish(&rig.vq))
			cr_assert_fail("round %u", i);
		ring_used(&rig.r, (uint16_t)i, &id, &len);
		if (id != head || len != i || ring_used_idx(&rig.r) != (uint16_t)(i + 1))
			cr_assert_fail("used element of round %u", i);
		if (virtq_enable_kicks(&rig.vq) || ring_avail_event(&rig.r) != (uint16_t)(i + 1))
			cr_assert_fail("avail_event of round %u", i);
	}
	rig_stop(&rig);
}

/* 2.7.7.2: an interrupt exactly when used.idx moves past used_event, in any batch, at any index. */
Test(virtq, interrupts_when_used_event_is_passed)
{
	struct rig rig;
	unsigned interrupts = 0;

	rig_start(&rig, 8, true, false);
	for (unsigned round = 0; round < 40000; round++) {
		uint16_t old = rig.vq.published_used;
		unsigned batch = 1 + round * 5 % 8;
		uint16_t event = (uint16_t)(old + round * 3 % 17 - 5);
		bool expect = false;

		for (unsigned i = 0; i < batch; i++) {
			virtq_push(&rig.vq, 0, 0);
			expect |= (uint16_t)(old + i) == event;
		}
		ring_set_used_event(&rig.r, event);
		if (virtq_publish(&rig.vq) != expect)
			cr_assert_fail("old %u batch %u event %u", old, batch, event);
		interrupts += expect;
	}
	cr_assert_gt(interrupts, 1000);
	rig_stop(&rig);
}

Test(virtq, honours_the_no_interrupt_flag)
{
	struct rig rig;

	rig_start(&rig, 8, false, false);
	poke16(&rig.w, rig.r.avail, 1);
	virtq_push(&rig.vq, 0, 0);
	cr_assert(!virtq_publish(&rig.vq));
	poke16(&rig.w, rig.r.avail, 0);
	virtq_push(&rig.vq, 0, 0);
	cr_assert(virtq_publish(&rig.vq));
	cr_assert_eq(ring_used_idx(&rig.r), 2);
	rig_stop(&rig);
}

Test(virtq, asks_for_kicks)
{
	struct rig rig;

	rig_start(&rig, 8, false, false);
	virtq_disable_kicks(&rig.vq);
	cr_assert_eq(peek16(&rig.w, rig.r.used), 1);
	cr_assert(!virtq_enable_kicks(&rig.vq));
	cr_assert_eq(peek16(&rig.w, rig.r.used), 0);
	ring_desc(&rig.r, 0, DATA, 16, 0, 0);
	ring_offer(&rig.r, 0);
	cr_assert(virtq_enable_kicks(&rig.vq), "a buffer came meanwhile");
	rig_stop(&rig);

	rig_start(&rig, 8, true, false);
	ring_desc(&rig.r, 0, DATA, 16, 0, 0);
	ring_offer(&rig.r, 0);
	cr_assert_eq(pop(&rig), 1);
	virtq_disable_kicks(&rig.vq);
	cr_assert_eq(peek16(&rig.w, rig.r.used), 0, "with EVENT_IDX the flags stay 0");
	cr_assert_eq(ring_avail_event(&rig.r), 0, "and avail_event stays behind");
	cr_assert(!virtq_enable_kicks(&rig.vq));
	cr_assert_eq(ring_avail_event(&rig.r), 1);
	rig_stop(&rig);
}

/*
 * The largest ring in pages that lie anywhere, at an offset that makes every
 * part straddle pages, used elements included.
 */
Test(virtq, serves_a_scattered_ring)
{
	struct rig rig;
	uint32_t id, len;

	rig_start_at(&rig, VIRTQ_MAX_SIZE, true, false, true, WORLD_BASE + 16);
	rig.r.avail += 2;
	rig.r.used += 4;

	struct virtq_config config = ring_config(&rig.r);

	virtq_start(&rig.vq, &config, &rig.w.port, true, false);
	for (unsigned i = 0; i < VIRTQ_MAX_SIZE; i++) {
		ring_desc(&rig.r, i, DATA + i, 1, F_WRITE, 0);
		ring_offer(&rig.r, (uint16_t)(i * 5 % VIRTQ_MAX_SIZE));
	}
	for (unsigned i = 0; i < VIRTQ_MAX_SIZE; i++) {
		cr_assert_eq(pop(&rig), 1);
		cr_assert_eq(rig.buf[0].addr.v, DATA + i * 5 % VIRTQ_MAX_SIZE);
		cr_assert_eq(virtq_push(&rig.vq, rig.chain.head, 0xa5000000 + i), 0);
	}
	cr_assert_gt(rig.vq.desc.count, 4, "the table must really be scattered");
	cr_assert_geq(rig.vq.used.count, 3);
	virtq_publish(&rig.vq);
	cr_assert_eq(ring_used_idx(&rig.r), VIRTQ_MAX_SIZE);
	for (unsigned i = 0; i < VIRTQ_MAX_SIZE; i++) {
		ring_used(&rig.r, (uint16_t)i, &id, &len);
		cr_assert_eq(id, i * 5 % VIRTQ_MAX_SIZE);
		cr_assert_eq(len, 0xa5000000 + i);
	}
	rig_stop(&rig);
}

/* Remapped under a live device: the old page is never touched after the epoch moved. */
Test(virtq, translates_again_when_the_epoch_moves)
{
	unsigned char before[PAGE];
	unsigned translations;
	struct rig rig;

	rig_start(&rig, 8, false, false);
	ring_desc(&rig.r, 0, DATA, 16, 0, 0);
	ring_offer(&rig.r, 0);
	cr_assert_eq(pop(&rig), 1);
	translations = rig.w.translations;
	ring_offer(&rig.r, 0);
	cr_assert_eq(pop(&rig), 1);
	virtq_push(&rig.vq, 0, 1);
	virtq_publish(&rig.vq);
	cr_assert_eq(rig.w.translations, translations, "one translation per epoch");

	/* The page moves with its contents; the old one becomes poison. */
	memcpy(rig.w.mem + 50 * PAGE, rig.w.mem, PAGE);
	memset(rig.w.mem, 0xee, PAGE);
	memcpy(before, rig.w.mem, PAGE);
	world_remap(&rig.w, 0, 50, DMA_READ | DMA_WRITE);
	ring_desc(&rig.r, 1, DATA + 7, 77, 0, 0);
	ring_offer(&rig.r, 1);
	cr_assert_eq(pop(&rig), 1);
	cr_assert_eq(rig.buf[0].len, 77);
	virtq_push(&rig.vq, 1, 2);
	virtq_publish(&rig.vq);
	virtq_disable_kicks(&rig.vq);
	cr_assert_eq(ring_used_idx(&rig.r), 2);
	cr_assert_arr_eq(rig.w.mem, before, PAGE);
	rig_stop(&rig);
}

Test(virtq, survives_an_unmapped_ring)
{
	uint32_t id, len;
	struct rig rig;

	rig_start(&rig, 8, false, false);
	ring_desc(&rig.r, 0, DATA, 16, 0, 0);
	ring_desc(&rig.r, 1, DATA, 32, 0, 0);
	ring_offer(&rig.r, 0);
	ring_offer(&rig.r, 1);
	cr_assert_eq(pop(&rig), 1);
	world_remap(&rig.w, 0, 0, 0);
	cr_assert_eq(pop(&rig), -EFAULT);
	cr_assert_eq(rig.w.faults, 1);
	cr_assert_eq(rig.w.fault_addr, rig.r.desc);
	cr_assert_eq(rig.w.fault_dir, DMA_READ);
	cr_assert_eq(virtq_push(&rig.vq, 0, 16), -EFAULT);
	cr_assert(!virtq_publish(&rig.vq));
	/* What goes along with a look at the ring doesn't report once more. */
	unsigned reported = rig.w.faults;

	cr_assert(!virtq_enable_kicks(&rig.vq));
	virtq_disable_kicks(&rig.vq);
	cr_assert_eq(rig.w.faults, reported);
	cr_assert_eq(ring_used_idx(&rig.r), 0);

	/* Readable only: the used ring is what can't be reached now. */
	world_remap(&rig.w, 0, 0, DMA_READ);
	cr_assert_eq(pop(&rig), -EFAULT);
	cr_assert_eq(rig.w.fault_addr, rig.r.used);
	cr_assert_eq(rig.w.fault_dir, DMA_WRITE);

	/* Back again: the queue goes on, and the lost element left no gap. */
	cr_assert_eq(rig.vq.state, VIRTQ_RUNNING);
	world_remap(&rig.w, 0, 0, DMA_READ | DMA_WRITE);
	cr_assert_eq(pop(&rig), 1);
	cr_assert_eq(rig.chain.out_bytes, 32);
	cr_assert_eq(virtq_push(&rig.vq, 1, 32), 0);
	cr_assert(virtq_publish(&rig.vq));
	cr_assert_eq(ring_used_idx(&rig.r), 1);
	ring_used(&rig.r, 0, &id, &len);
	cr_assert_eq(id, 1);
	rig_stop(&rig);
}

/* Copies don't depend on how the driver cut a message (2.7.4). */
Test(virtq, copies_across_buffers)
{
	unsigned char text[64], back[64];
	struct rig rig;

	rig_start_at(&rig, 8, false, false, true, WORLD_BASE);
	for (unsigned i = 0; i < sizeof(text); i++)
		text[i] = (unsigned char)(i + 1);
	ring_desc(&rig.r, 0, DATA + PAGE - 5, 10, F_NEXT, 1); /* over a page's end */
	ring_desc(&rig.r, 1, DATA, 0, F_NEXT, 2);
	ring_desc(&rig.r, 2, DATA + 0x3000, 6, F_NEXT, 3);
	ring_desc(&rig.r, 3, DATA + 0x4000, 3, F_NEXT | F_WRITE, 4);
	ring_desc(&rig.r, 4, DATA + 0x5fff, 5, F_WRITE, 0);
	poke(&rig.w, DATA + PAGE - 5, text, 10);
	poke(&rig.w, DATA + 0x3000, text + 10, 6);
	ring_offer(&rig.r, 0);
	cr_assert_eq(pop(&rig), 1);

	for (unsigned offset = 0; offset <= 16; offset++) {
		for (unsigned len = 0; len <= 17; len++) {
			int want = offset + len <= 16 ? 0 : -ERANGE;

			memset(back, 0, sizeof(back));
			cr_assert_eq(virtq_read(&rig.vq, &rig.chain, offset, back, len), want);
			if (!want)
				cr_assert_arr_eq(back, text + offset, len);
			cr_assert_eq(back[len], 0);
		}
	}
	cr_assert_eq(virtq_read(&rig.vq, &rig.chain, UINT64_MAX, back, 2), -ERANGE);
	cr_assert_eq(virtq_read(&rig.vq, &rig.chain, 1, back, UINT64_MAX), -ERANGE);

	cr_assert_eq(virtq_write(&rig.vq, &rig.chain, 1, text, 7), 0);
	cr_assert_eq(virtq_write(&rig.vq, &rig.chain, 1, text, 8), -ERANGE);
	peek(&rig.w, DATA + 0x4001, back, 2);
	peek(&rig.w, DATA + 0x5fff, back + 2, 5);
	cr_assert_arr_eq(back, text, 7);

	/* A hole stops the copy and is reported. */
	world_remap(&rig.w, 32 + 6, 0, 0);
	cr_assert_eq(virtq_write(&rig.vq, &rig.chain, 0, text, 8), -EFAULT);
	cr_assert_eq(rig.w.faults, 1);
	cr_assert_eq(rig.w.fault_addr, DATA + 0x6000);
	rig_stop(&rig);
}

Test(virtq, maps_all_or_nothing)
{
	struct iovec iov[4] = { { 0 } };
	void *mapping[4];
	struct dma_list list = { .iov = iov, .mapping = mapping, .max = 4 };
	struct rig rig;

	rig_start_at(&rig, 8, false, false, true, WORLD_BASE);
	ring_desc(&rig.r, 0, DATA + PAGE - 100, 200, F_NEXT | F_WRITE, 1); /* two pieces */
	ring_desc(&rig.r, 1, DATA + 0x3000, 50, F_NEXT | F_WRITE, 2);
	ring_desc(&rig.r, 2, DATA + 0x5000 - 10, 20, F_WRITE, 0); /* two pieces */
	ring_offer(&rig.r, 0);
	cr_assert_eq(pop(&rig), 1);
	cr_assert_eq(virtq_map(&rig.vq, &rig.chain, 150, 100, DMA_WRITE, &list), 0);
	cr_assert_eq(list.count, 2);
	cr_assert_eq(list.bytes, 100);
	cr_assert_eq(iov[0].iov_base, world_byte(&rig.w, DATA + PAGE + 50));
	cr_assert_eq(iov[0].iov_len, 50);
	cr_assert_eq(rig.w.refs, 2);

	/* Three more pieces don't fit, and a hole is no better. */
	cr_assert_eq(virtq_map(&rig.vq, &rig.chain, 200, 70, DMA_WRITE, &list), -ENOBUFS);
	world_remap(&rig.w, 32 + 5, 0, 0);
	cr_assert_eq(virtq_map(&rig.vq, &rig.chain, 250, 20, DMA_WRITE, &list), -EFAULT);
	cr_assert_eq(rig.w.fault_addr, DATA + 0x5000);
	cr_assert_eq(virtq_map(&rig.vq, &rig.chain, 200, 71, DMA_WRITE, &list), -ERANGE);
	cr_assert_eq(virtq_map(&rig.vq, &rig.chain, 0, 1, DMA_READ, &list), -ERANGE);
	cr_assert_eq(list.count, 2);
	cr_assert_eq(list.bytes, 100);
	cr_assert_eq(iov[1].iov_len, 50);
	cr_assert_eq(rig.w.refs, 2, "what failed gave its references back");
	dma_unpin(&rig.w.port, &list);
	cr_assert_eq(rig.w.refs, 0);
	rig_stop(&rig);
}

/* Without an IOMMU neighbours merge into one piece; a failure must take that back too. */
Test(virtq, maps_all_or_nothing_without_an_iommu)
{
	const struct ram_layout layout = { 1, { { GPA(0), 4 * PAGE } } };
	struct virtq_buf buf[] = { { IOVA(0), 100 }, { IOVA(100), 50 }, { IOVA(1ULL << 40), 50 } };
	struct virtq_chain chain = { .in = 3, .in_bytes = 200, .max = 3, .buf = buf };
	struct iovec iov[4];
	void *mapping[4];
	struct dma_list list = { .iov = iov, .mapping = mapping, .max = 4 };
	struct dma_view view;
	struct dma_port port;
	struct virtq vq = { .port = &port };
	struct err err = { "" };
	struct ram *ram;

	cr_assert_eq(ram_create(&ram, &layout, &err), 0, "%s", err.text);
	dma_view_init_identity(&view, ram);
	cr_assert_eq(dma_port_init(&port, &view), 0);
	cr_assert_eq(virtq_map(&vq, &chain, 0, 80, DMA_WRITE, &list), 0);
	cr_assert_eq(virtq_map(&vq, &chain, 80, 120, DMA_WRITE, &list), -EFAULT);
	cr_assert_eq(list.count, 1);
	cr_assert_eq(list.bytes, 80);
	cr_assert_eq(iov[0].iov_len, 80);
	dma_unpin(&port, &list);
	dma_port_finish(&port);
	ram_destroy(ram);
}

/*
 * A second vCPU rewrites a descriptor all the time, eight bytes at once. Whatever
 * is popped must be one of the versions: flags of one with the length of another
 * would mean that the descriptor was read twice.
 */
struct flipper {
	struct rig *rig;
	_Atomic bool stop;
};

static void *flip(void *opaque)
{
	struct flipper *f = opaque;
	volatile uint64_t *word = (volatile uint64_t *)world_byte(&f->rig->w, f->rig->r.desc);

	/* The second word of descriptor 0: len, flags, next. */
	while (!atomic_load(&f->stop)) {
		word[1] = 16;					    /* 16 bytes, the end */
		word[1] = 32 | (uint64_t)F_WRITE << 32;		    /* 32 writable ones */
		word[1] = 64 | (uint64_t)F_NEXT << 32 | 1ULL << 48; /* 64 and descriptor 1 */
	}
	return NULL;
}

Test(virtq, copies_a_descriptor_once)
{
	struct flipper f = { 0 };
	unsigned seen[3] = { 0 };
	pthread_t thread;
	struct rig rig;

	rig_start(&rig, 8, false, false);
	ring_desc(&rig.r, 0, DATA, 16, 0, 0);
	ring_desc(&rig.r, 1, DATA, 1, F_WRITE, 0);
	f.rig = &rig;
	cr_assert_eq(pthread_create(&thread, NULL, flip, &f), 0);
	for (unsigned i = 0; i < 200000; i++) {
		ring_offer(&rig.r, 0);
		if (virtq_pop(&rig.vq, &rig.chain) != 1)
			cr_assert_fail("round %u", i);

		struct virtq_chain *c = &rig.chain;

		if (c->out == 1 && c->in == 0 && c->out_bytes == 16)
			seen[0]++;
		else if (c->out == 0 && c->in == 1 && c->in_bytes == 32)
			seen[1]++;
		else if (c->out == 1 && c->in == 1 && c->out_bytes == 64 && c->in_bytes == 1)
			seen[2]++;
		else
			cr_assert_fail("out %u in %u: a torn or twice-read descriptor", c->out,
				       c->in);
	}
	atomic_store(&f.stop, true);
	pthread_join(thread, NULL);
	cr_assert(seen[0] + seen[1] + seen[2] == 200000);
	rig_stop(&rig);
}
