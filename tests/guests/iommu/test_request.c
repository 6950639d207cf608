/* Requests in general: items 8 to 11, any layout, wrap-around. */
#include "tests/guests/iommu/test.h"

#define NUM_TYPES 5

/*
 * A valid request of each type that changes little: domain 1, to which disk 0 is
 * attached, and from which it is detached last. Returns its readable length.
 */
static unsigned fill(unsigned type)
{
	uint32_t endpoint = disks[0].endpoint;

	switch (type) {
	case T_ATTACH:
		return fill_attach(iommu.request, 1, endpoint, 0);
	case T_MAP:
		return fill_map(iommu.request, 1, DATA, DATA + PAGE - 1, iommu.granule * 16,
				MAP_RW);
	case T_UNMAP:
		return fill_unmap(iommu.request, 1, DATA, DATA + PAGE - 1);
	case T_PROBE:
		return fill_probe(iommu.request, endpoint);
	default:
		return fill_detach(iommu.request, 1, endpoint);
	}
}

static const uint8_t order[NUM_TYPES] = { T_ATTACH, T_MAP, T_UNMAP, T_PROBE, T_DETACH };

static unsigned reply_size(unsigned type)
{
	return TAIL_SIZE + (type == T_PROBE ? iommu.probe_size : 0);
}

static enum status send(unsigned out, unsigned in)
{
	uint32_t used = 0;
	bool sent = iommu_send(out, in, &used);

	return iommu_verdict(sent, used, in);
}

static void each_succeeds(void)
{
	for (unsigned i = 0; i < NUM_TYPES; i++)
		EXPECT_EQ(send(fill(order[i]), reply_size(order[i])), S_OK);
}

static void unknown_types(void)
{
	static const uint8_t types[] = { 0, 6, 7, 0x7f, 0x80, 0x85, 0xff };

	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		fill(T_ATTACH);
		iommu.request[0] = types[i];
		EXPECT_EQ(send(MAX_REQUEST, TAIL_SIZE), S_UNWRITTEN);
		EXPECT_EQ(send(ATTACH_SIZE, 64), S_UNWRITTEN);
		EXPECT_EQ(send(4, TAIL_SIZE), S_UNWRITTEN);
	}
	EXPECT_EQ(iommu_attach(1, disks[0].endpoint, 0), S_OK);
}

static void head_reserved_is_ignored(void)
{
	for (unsigned i = 0; i < NUM_TYPES; i++) {
		unsigned out = fill(order[i]);

		iommu.request[1] = 0xff;
		iommu.request[2] = 1;
		iommu.request[3] = 0x80;
		EXPECT_EQ(send(out, reply_size(order[i])), S_OK);
	}
}

/* iommu_verdict checks it; here also where the status is an error. */
static void tail_reserved_is_zero(void)
{
	EXPECT_EQ(iommu_attach(1, no_endpoint(), 0), S_NOENT);
	EXPECT(all_bytes(iommu.reply + 1, 0, TAIL_SIZE - 1));
	EXPECT_EQ(iommu_attach(1, disks[0].endpoint, 0), S_OK);
	EXPECT(all_bytes(iommu.reply + 1, 0, TAIL_SIZE - 1));
}

/* Every length of every type that is too short, from no byte at all. */
static void too_short(void)
{
	for (unsigned i = 0; i < NUM_TYPES; i++) {
		unsigned out = fill(order[i]);

		for (unsigned n = 0; n < out; n++) {
			fill(order[i]);
			EXPECT_EQ(send(n, reply_size(order[i])), S_UNWRITTEN);
		}
	}
	/* None of them was executed. */
	EXPECT_EQ(iommu_map_pages(1, DATA, 0, 1, MAP_READ), S_NOENT);
}

static void no_room_for_a_tail(void)
{
	for (unsigned i = 0; i < NUM_TYPES; i++) {
		unsigned out = fill(order[i]);

		for (unsigned in = 0; in < TAIL_SIZE; in++) {
			uint32_t used = 1;

			EXPECT(iommu_send(out, in, &used));
			EXPECT_EQ(used, 0);
			EXPECT(all_bytes(iommu.reply, UNTOUCHED, MAX_REPLY));
		}
	}
	EXPECT_EQ(iommu_map_pages(1, DATA, 0, 1, MAP_READ), S_NOENT);
}

/*
 * Send iommu.request's @out bytes and a tail cut into descriptors of @out_step
 * and @in_step bytes, which lie backwards in memory with gaps between, direct or
 * in an indirect table.
 */
static enum status send_cut(unsigned out, unsigned in, unsigned out_step, unsigned in_step,
			    bool indirect)
{
	struct seg seg[MAX_REQUEST + 16];
	uint8_t *scratch = phys(pages(4)), *at = scratch + 4 * PAGE;
	unsigned n = 0;
	uint32_t id, used;

	for (unsigned done = 0, len; done < out; done += len) {
		len = out - done < out_step ? out - done : out_step;
		at -= len + 1;
		memcpy(at, iommu.request + done, len);
		seg[n++] = (struct seg){ (uintptr_t)at, len, false };
	}

	unsigned outs = n;

	for (unsigned done = 0, len; done < in; done += len) {
		len = in - done < in_step ? in - done : in_step;
		at -= len + 1;
		memset(at, UNTOUCHED, len);
		seg[n++] = (struct seg){ (uintptr_t)at, len, true };
	}

	uint64_t table = pages(1);
	struct ring_part part = ring_part_at(table, table);
	uint16_t head = indirect ? vring_add_indirect(&iommu.requests, &part, seg, n)
				 : vring_add(&iommu.requests, seg, n);

	vring_kick(&iommu.requests);
	if (!vring_wait(&iommu.requests, PATIENCE_MS, &id, &used) || id != head)
		return S_LOST;
	memset(iommu.reply, UNTOUCHED, MAX_REPLY);
	for (unsigned i = outs, done = 0; i < n; done += seg[i++].len)
		memcpy(iommu.reply + done, phys(seg[i].addr), seg[i].len);
	return iommu_verdict(true, used, in);
}

static void any_layout(bool indirect)
{
	static const unsigned out_steps[] = { 1, 2, 3, 4, 5, 7, 8, 13, 20, 27, 35, 36 };
	uint64_t memory = pages(1);

	EXPECT_EQ(iommu_attach(1, disks[0].endpoint, 0), S_OK);
	for (unsigned i = 0; i < ARRAY_SIZE(out_steps); i++) {
		for (unsigned in_step = 1; in_step <= TAIL_SIZE; in_step++) {
			unsigned out_step = out_steps[i];

			fill_map(iommu.request, 1, DATA, DATA + PAGE - 1, memory, MAP_RW);
			EXPECT_EQ(send_cut(MAP_SIZE, TAIL_SIZE, out_step, in_step, indirect), S_OK);
			/* It was really made: this overlaps, and this removes it. */
			EXPECT_EQ(iommu_map_pages(1, DATA, memory, 1, MAP_RW), S_INVAL);
			fill_unmap(iommu.request, 1, DATA, DATA + PAGE - 1);
			EXPECT_EQ(send_cut(UNMAP_SIZE, TAIL_SIZE, out_step, in_step, indirect),
				  S_OK);
		}
	}
}

static void any_layout_direct(void)
{
	any_layout(false);
}

static void any_layout_indirect(void)
{
	if (!iommu_has(F_INDIRECT_DESC)) {
		skip("INDIRECT_DESC isn't offered");
		return;
	}
	any_layout(true);
}

/* The properties too: an answer over more descriptors than any other. */
static void probe_in_pieces(void)
{
	uint8_t whole[MAX_REPLY];
	unsigned in = iommu.probe_size + TAIL_SIZE;

	if (!iommu_has(F_PROBE)) {
		skip("PROBE isn't offered");
		return;
	}
	EXPECT_EQ(iommu_probe(disks[0].endpoint), S_OK);
	memcpy(whole, iommu.reply, in);
	for (unsigned step = 5; step < in; step = step * 2 + 1) {
		fill_probe(iommu.request, disks[0].endpoint);
		EXPECT_EQ(send_cut(PROBE_SIZE, in, step, step, false), S_OK);
		EXPECT(equal(whole, iommu.reply, in));
	}
}

/* Each index of the ring, and the 16-bit counters, come round. */
static void wrap_around(void)
{
	const unsigned batch = iommu.requests.size / 2, total = 66000;
	const struct seg seg[] = {
		{ (uintptr_t)iommu.request, UNMAP_SIZE, false },
		{ (uintptr_t)iommu.reply, TAIL_SIZE, true },
	};
	unsigned done = 0;

	EXPECT_EQ(iommu_attach(1, disks[0].endpoint, 0), S_OK);
	fill_unmap(iommu.request, 1, DATA, DATA + PAGE - 1);
	while (done < total) {
		uint16_t head[128];

		REQUIRE(batch <= ARRAY_SIZE(head));
		for (unsigned i = 0; i < batch; i++)
			head[i] = vring_add(&iommu.requests, seg, 2);
		vring_kick(&iommu.requests);
		for (unsigned i = 0; i < batch; i++, done++) {
			uint32_t id, used;

			REQUIRE(vring_wait(&iommu.requests, PATIENCE_MS, &id, &used));
			REQUIRE(id == head[i] && used == TAIL_SIZE);
		}
	}
	EXPECT_EQ(vring_used_idx(&iommu.requests), (uint16_t)(done + 1));
	EXPECT_EQ(iommu_unmap_pages(1, DATA, 1), S_OK);
}

/* A queue that is full to the last descriptor. */
static void full_queue(void)
{
	unsigned n = iommu.requests.size;
	uint8_t *replies = phys(pages(1 + n * TAIL_SIZE / PAGE));
	uint32_t id, used;

	EXPECT_EQ(iommu_attach(1, disks[0].endpoint, 0), S_OK);
	fill_unmap(iommu.request, 1, DATA, DATA + PAGE - 1);
	memset(replies, UNTOUCHED, n * TAIL_SIZE);
	for (unsigned i = 0; i < n / 2; i++) {
		const struct seg seg[] = {
			{ (uintptr_t)iommu.request, UNMAP_SIZE, false },
			{ (uintptr_t)(replies + i * TAIL_SIZE), TAIL_SIZE, true },
		};

		vring_add(&iommu.requests, seg, 2);
	}
	vring_kick(&iommu.requests);
	for (unsigned i = 0; i < n / 2; i++)
		REQUIRE(vring_wait(&iommu.requests, PATIENCE_MS, &id, &used) && used == TAIL_SIZE);
	EXPECT(all_bytes(replies, 0, n / 2 * TAIL_SIZE));
	EXPECT(all_bytes(replies + n / 2 * TAIL_SIZE, UNTOUCHED, n / 2 * TAIL_SIZE));
}

/* Broken requests among good ones hold up nobody. */
static void rubbish_among_good(void)
{
	EXPECT_EQ(iommu_attach(1, disks[0].endpoint, 0), S_OK);
	for (unsigned i = 0; i < 100; i++) {
		uint64_t iova = DATA + (uint64_t)i * PAGE;

		fill(T_UNMAP);
		iommu.request[0] = (uint8_t)(6 + i % 200);
		EXPECT_EQ(send(UNMAP_SIZE, TAIL_SIZE), S_UNWRITTEN);
		EXPECT_EQ(iommu_map_pages(1, iova, 0, 1, MAP_READ), S_OK);
		fill(T_UNMAP);
		EXPECT_EQ(send(i % UNMAP_SIZE, TAIL_SIZE), S_UNWRITTEN);
	}
	EXPECT_EQ(iommu_unmap_pages(1, DATA, 100), S_OK);
}

const struct test request_tests[] = {
	{ "spec 8: each request that succeeds has status OK", each_succeeds },
	{ "spec 9: an unknown type is returned unwritten", unknown_types },
	{ "spec 10: the head's reserved bytes are ignored", head_reserved_is_ignored },
	{ "spec 10: the tail's reserved bytes are zero", tail_reserved_is_zero },
	{ "spec 11: a request of any shorter length is returned unwritten", too_short },
	{ "spec 11: a request without a whole tail is returned unwritten", no_room_for_a_tail },
	{ "spec 11: after broken requests good ones are served", rubbish_among_good },
	{ "core: head and tail in any pieces", any_layout_direct },
	{ "core: head and tail in any pieces, indirect", any_layout_indirect },
	{ "core: the answer to a PROBE in pieces", probe_in_pieces },
	{ "core: the ring's indices wrap around", wrap_around },
	{ "core: a queue full of requests", full_queue },
	{ NULL, NULL },
};
