/* A network card between a driver and a backend that plays the network. */
#include "driver.h"

#include <linux/if_tun.h>
#include "devices/virtio/virtio_net.h"

#define RX 0
#define TX 1

#define F_GUEST_CSUM (1ULL << 1)
#define F_GUEST_TSO  (7ULL << 7) /* TSO4, TSO6, ECN */
#define F_MRG_RXBUF  (1ULL << 15)
#define S_LINK_UP    1

/* Of a frame's header. */
#define F_NEEDS_CSUM 1
#define F_DATA_VALID 2
#define GSO_NONE     0
#define GSO_TCPV4    1
#define GSO_UDP	     3
#define GSO_TCPV6    4
#define GSO_ECN	     0x80

#define BUFFER(n) (DATA + PAGE * (n))

struct wire {
	struct net_backend net;
	unsigned char in[80][2048]; /* frames with headers, for the guest */
	size_t in_len[80];
	unsigned in_count, in_next;
	unsigned char big[NET_MAX_FRAME]; /* one more, after these */
	size_t big_len;
	unsigned char out[NET_MAX_FRAME]; /* the last one sent */
	size_t out_len;
	_Atomic unsigned sent;
	bool watched, full, destroyed;
	int refs_in_send;
	unsigned offload;
	struct world *w;
};

static struct wire *wire_of(struct net_backend *net)
{
	return container_of(net, struct wire, net);
}

static int wire_send(struct net_backend *net, const struct iovec *iov, unsigned iovcnt)
{
	struct wire *wire = wire_of(net);

	if (wire->full)
		return -EAGAIN;
	wire->refs_in_send = wire->w->refs;
	wire->out_len = 0;
	for (unsigned i = 0; i < iovcnt; i++) {
		cr_assert_leq(wire->out_len + iov[i].iov_len, sizeof(wire->out));
		memcpy(wire->out + wire->out_len, iov[i].iov_base, iov[i].iov_len);
		wire->out_len += iov[i].iov_len;
	}
	atomic_fetch_add(&wire->sent, 1);
	return 0;
}

static ssize_t wire_receive(struct net_backend *net, const struct iovec *iov, unsigned iovcnt)
{
	struct wire *wire = wire_of(net);
	const void *from = wire->big;
	size_t len = wire->big_len;

	if (wire->in_next < wire->in_count) {
		from = wire->in[wire->in_next];
		len = wire->in_len[wire->in_next++];
	} else {
		wire->big_len = 0;
	}
	if (!len)
		return -EAGAIN;
	cr_assert(iovcnt == 1 && iov->iov_len >= len);
	memcpy(iov->iov_base, from, len);
	return (ssize_t)len;
}

static void wire_watch(struct net_backend *net, bool on)
{
	wire_of(net)->watched = on;
}

static int wire_set_offload(struct net_backend *net, unsigned tun_flags)
{
	wire_of(net)->offload = tun_flags;
	return 0;
}

static void wire_destroy(struct net_backend *net)
{
	wire_of(net)->destroyed = true;
}

static const struct net_backend_ops wire_ops = {
	wire_send, wire_receive, wire_watch, wire_set_offload, wire_destroy,
};

struct rig {
	struct driver d;
	struct wire wire;
	struct virtio_net *vnet;
};

static void rig_start(struct rig *rig, bool offloads, uint64_t without)
{
	struct virtio_net_config config = { .name = "net0", .mac = { 2, 3, 4, 5, 6, 7 } };
	struct err err = { "" };

	memset(rig, 0, sizeof(*rig));
	driver_init(&rig->d);
	rig->wire.net.ops = &wire_ops;
	rig->wire.net.offloads = offloads;
	rig->wire.w = &rig->d.w;
	cr_assert_eq(virtio_net_create(&rig->vnet, &config, &rig->wire.net, &rig->d.w.view,
				       rig->d.loop, &err),
		     0, "%s", err.text);
	driver_start(&rig->d, virtio_net_virtio(rig->vnet), without);
	driver_settle(&rig->d);
}

static void rig_stop(struct rig *rig)
{
	virtio_host_reset(rig->d.dev);
	cr_assert(!rig->wire.watched, "nobody would take the frames");
	virtio_net_destroy(rig->vnet);
	cr_assert(rig->wire.destroyed);
	driver_finish(&rig->d);
}

/* Fill a frame of @len bytes, header included, that starts with @seed. */
static void make_frame(unsigned char *frame, size_t len, unsigned seed)
{
	memset(frame, 0, NET_HDR_SIZE);
	for (size_t i = NET_HDR_SIZE; i < len; i++)
		frame[i] = (unsigned char)(seed + i * 5 + i / 256);
}

static void add_frame(struct rig *rig, size_t len, unsigned seed)
{
	struct wire *wire = &rig->wire;

	make_frame(wire->in[wire->in_count], len, seed);
	wire->in_len[wire->in_count++] = len;
}

static void do_readable(void *opaque)
{
	struct rig *rig = opaque;

	if (rig->wire.watched)
		rig->wire.net.readable(rig->wire.net.opaque);
}

/* As a level-triggered loop would, until nothing is watched or left. */
static void arrive(struct rig *rig)
{
	for (int i = 0; i < 4; i++)
		loop_call(rig->d.loop, do_readable, rig);
}

static void offer_rx(struct rig *rig, uint64_t addr, uint32_t len)
{
	struct part part = { addr, len, true };

	driver_offer(&rig->d, RX, &part, 1);
	virtio_kick(rig->d.dev, RX);
	driver_settle(&rig->d);
}

static void expect_used(struct rig *rig, unsigned queue, uint16_t index, uint32_t want)
{
	uint32_t id, len;

	ring_used(&rig->d.ring[queue], index, &id, &len);
	cr_assert_eq(len, want, "element %u: %u bytes, not %u", index, len, want);
}

static uint16_t num_buffers(struct rig *rig, uint64_t addr)
{
	return peek16(&rig->d.w, addr + 10);
}

Test(virtio_net, transmits_in_place, .timeout = 60)
{
	/* The header is cut, and shares a descriptor with the frame; pages are scattered. */
	struct part part[] = { { BUFFER(0) + 4090, 5, false },
			       { BUFFER(0) + 4095, 4000, false },
			       { BUFFER(9), 1, false } };
	static unsigned char frame[4006];
	static struct rig rig;

	rig_start(&rig, false, 0);
	make_frame(frame, sizeof(frame), 9);
	poke(&rig.d.w, BUFFER(0) + 4090, frame, 4005);
	poke(&rig.d.w, BUFFER(9), frame + 4005, 1);
	cr_assert_eq(driver_do(&rig.d, TX, part, 3), 0);
	cr_assert_eq(rig.wire.out_len, sizeof(frame));
	cr_assert_eq(memcmp(rig.wire.out, frame, sizeof(frame)), 0);
	cr_assert_gt(rig.wire.refs_in_send, 0, "the pages must be pinned while they are read");
	cr_assert_eq(rig.d.w.refs, 0);
	rig_stop(&rig);
}

Test(virtio_net, nonsense_is_not_sent, .timeout = 60)
{
	struct part only_header[] = { { BUFFER(0), 12, false } };
	struct part tiny[] = { { BUFFER(0), 1, false } };
	struct part writable[] = { { BUFFER(0), 100, true } };
	struct part huge[] = { { BUFFER(0), 16 * 4096, false }, { BUFFER(0), 4096, false } };
	struct part hole[] = { { WORLD_BASE - 4096, 100, false } };
	struct part good[] = { { BUFFER(0), 76, false } };
	static struct rig rig;

	rig_start(&rig, false, 0);
	driver_do(&rig.d, TX, only_header, 1);
	driver_do(&rig.d, TX, tiny, 1);
	driver_do(&rig.d, TX, writable, 1);
	driver_do(&rig.d, TX, huge, 2);
	driver_do(&rig.d, TX, hole, 1);
	cr_assert_eq(rig.wire.sent, 0);
	cr_assert_eq(rig.d.w.faults, 1);
	driver_do(&rig.d, TX, good, 1);
	cr_assert_eq(rig.wire.sent, 1);
	rig_stop(&rig);
}

static void do_writable(void *opaque)
{
	struct rig *rig = opaque;

	rig->wire.full = false;
	rig->wire.net.writable(rig->wire.net.opaque);
}

Test(virtio_net, full_backend_delays_and_keeps_the_order, .timeout = 60)
{
	static struct rig rig;

	rig_start(&rig, false, 0);
	rig.wire.full = true;
	for (unsigned i = 0; i < 3; i++) {
		struct part part = { BUFFER(i), 76, false };

		*world_byte(&rig.d.w, BUFFER(i) + 12) = (unsigned char)(i + 1);
		driver_offer(&rig.d, TX, &part, 1);
		virtio_kick(rig.d.dev, TX);
	}
	driver_settle(&rig.d);
	cr_assert_eq(ring_used_idx(&rig.d.ring[TX]), 0);
	cr_assert_eq(rig.d.w.refs, 0, "waiting without a bound must not hold references");
	loop_call(rig.d.loop, do_writable, &rig);
	driver_wait(&rig.d, TX, 3);
	cr_assert_eq(rig.wire.sent, 3);
	cr_assert_eq(rig.wire.out[12], 3);
	rig_stop(&rig);
}

/* More than one turn's worth: the card comes back by itself. */
Test(virtio_net, serves_all_without_another_kick, .timeout = 60)
{
	struct part part = { BUFFER(0), 76, false };
	static struct rig rig;

	rig_start(&rig, false, 0);
	for (unsigned round = 1; round <= 10; round++) {
		for (unsigned i = 0; i < DRIVER_SIZE; i++)
			driver_offer(&rig.d, TX, &part, 1);
		virtio_kick(rig.d.dev, TX);
		driver_wait(&rig.d, TX, (uint16_t)(round * DRIVER_SIZE));
	}
	cr_assert_eq(rig.wire.sent, 10 * DRIVER_SIZE);
	rig_stop(&rig);
}

Test(virtio_net, receives_into_one_buffer, .timeout = 60)
{
	unsigned char got[1000];
	static struct rig rig;

	rig_start(&rig, false, 0);
	offer_rx(&rig, BUFFER(0) + 4000, 1526);
	cr_assert_eq(rig.d.w.refs, 0, "a posted buffer must hold no reference");
	add_frame(&rig, 1000, 3);
	arrive(&rig);
	driver_wait(&rig.d, RX, 1);
	expect_used(&rig, RX, 0, 1000);
	peek(&rig.d.w, BUFFER(0) + 4000, got, sizeof(got));
	cr_assert_eq(num_buffers(&rig, BUFFER(0) + 4000), 1);
	cr_assert_eq(memcmp(got + 12, rig.wire.in[0] + 12, 988), 0);
	cr_assert_gt(rig.d.interrupts, 0);
	rig_stop(&rig);
}

/* A backend needn't tell twice of frames that the card left because they were many. */
Test(virtio_net, receives_all_without_another_call, .timeout = 60)
{
	enum { FRAMES = ARRAY_SIZE(((struct wire *)NULL)->in) };
	static struct rig rig;

	rig_start(&rig, false, 0);
	for (unsigned i = 0; i < FRAMES; i++)
		offer_rx(&rig, BUFFER(0), 1526);
	for (unsigned i = 0; i < FRAMES; i++)
		add_frame(&rig, 100, i);
	loop_call(rig.d.loop, do_readable, &rig);
	driver_wait(&rig.d, RX, FRAMES);
	rig_stop(&rig);
}

/* No buffer: the frame waits, the backend isn't polled in vain, and a kick brings it. */
Test(virtio_net, starved_receiver_loses_nothing, .timeout = 60)
{
	static struct rig rig;

	rig_start(&rig, false, 0);
	add_frame(&rig, 500, 1);
	add_frame(&rig, 600, 2);
	arrive(&rig);
	cr_assert(!rig.wire.watched);
	cr_assert_eq(ring_used_idx(&rig.d.ring[RX]), 0);
	offer_rx(&rig, BUFFER(0), 1526);
	driver_wait(&rig.d, RX, 1);
	expect_used(&rig, RX, 0, 500);
	offer_rx(&rig, BUFFER(1), 1526);
	driver_wait(&rig.d, RX, 2);
	expect_used(&rig, RX, 1, 600);
	cr_assert_eq(*world_byte(&rig.d.w, BUFFER(1) + 12), rig.wire.in[1][12]);
	rig_stop(&rig);
}

/* A frame over several buffers appears at once, with their number, or not at all. */
Test(virtio_net, mergeable_buffers_are_published_together, .timeout = 60)
{
	static unsigned char got[40000];
	static struct rig rig;

	rig_start(&rig, true, 0);
	add_frame(&rig, 200, 7);
	rig.wire.big_len = 9000;
	make_frame(rig.wire.big, 9000, 1);
	for (unsigned i = 0; i < 3; i++)
		offer_rx(&rig, BUFFER(4 * i) + 100, 4000);
	arrive(&rig);
	/* The small frame took one; two are too few for the other, which waits. */
	driver_settle(&rig.d);
	cr_assert_eq(ring_used_idx(&rig.d.ring[RX]), 1);
	cr_assert_eq(num_buffers(&rig, BUFFER(0) + 100), 1);
	offer_rx(&rig, BUFFER(12) + 100, 4000);
	driver_wait(&rig.d, RX, 4);
	cr_assert_eq(ring_used_idx(&rig.d.ring[RX]), 4);
	expect_used(&rig, RX, 1, 4000);
	expect_used(&rig, RX, 2, 4000);
	expect_used(&rig, RX, 3, 1000);
	cr_assert_eq(num_buffers(&rig, BUFFER(4) + 100), 3);
	peek(&rig.d.w, BUFFER(4) + 100, got, 4000);
	peek(&rig.d.w, BUFFER(8) + 100, got + 4000, 4000);
	peek(&rig.d.w, BUFFER(12) + 100, got + 8000, 1000);
	cr_assert_eq(memcmp(got + 12, rig.wire.big + 12, 8988), 0);
	rig_stop(&rig);
}

/* A buffer that the IOMMU took away: the frame vanishes, its buffers come back empty. */
Test(virtio_net, hole_in_a_receive_buffer, .timeout = 60)
{
	static struct rig rig;

	rig_start(&rig, true, 0);
	offer_rx(&rig, BUFFER(0), 400);
	offer_rx(&rig, BUFFER(1), 4096);
	offer_rx(&rig, BUFFER(2), 4096);
	world_remap(&rig.d.w, (unsigned)((BUFFER(1) - WORLD_BASE) / PAGE), 5, DMA_READ);
	add_frame(&rig, 600, 1);
	add_frame(&rig, 300, 2);
	arrive(&rig);
	driver_wait(&rig.d, RX, 3);
	cr_assert_eq(rig.d.w.faults, 1);
	expect_used(&rig, RX, 0, 0);
	expect_used(&rig, RX, 1, 0);
	expect_used(&rig, RX, 2, 300);
	cr_assert_eq(num_buffers(&rig, BUFFER(2)), 1);
	rig_stop(&rig);
}

Test(virtio_net, small_buffers_without_mergeable_are_not_overrun, .timeout = 60)
{
	static struct rig rig;

	rig_start(&rig, false, F_MRG_RXBUF);
	*world_byte(&rig.d.w, BUFFER(0) + 100) = 0xaa;
	offer_rx(&rig, BUFFER(0), 100);
	offer_rx(&rig, BUFFER(1), 1526);
	add_frame(&rig, 600, 1);
	add_frame(&rig, 601, 2);
	arrive(&rig);
	driver_wait(&rig.d, RX, 2);
	expect_used(&rig, RX, 0, 0);
	expect_used(&rig, RX, 1, 601);
	cr_assert_eq(*world_byte(&rig.d.w, BUFFER(0) + 100), 0xaa);
	rig_stop(&rig);
}

/* Buffers of one byte, or none that may be written, can hold no frame and cost little. */
Test(virtio_net, absurd_receive_buffers, .timeout = 60)
{
	struct part readable = { BUFFER(0), 2000, false };
	static struct rig rig;

	rig_start(&rig, true, 0);
	driver_offer(&rig.d, RX, &readable, 1);
	offer_rx(&rig, BUFFER(0), 11); /* less than a header */
	offer_rx(&rig, BUFFER(1), 2000);
	for (unsigned i = 0; i < 3; i++)
		add_frame(&rig, 100, i);
	arrive(&rig);
	driver_wait(&rig.d, RX, 3);
	expect_used(&rig, RX, 0, 0);
	expect_used(&rig, RX, 1, 0);
	expect_used(&rig, RX, 2, 100);
	rig_stop(&rig);
}

/* A frame that all buffers together can't hold would wait for ever, and the next ones too. */
Test(virtio_net, a_frame_larger_than_the_ring_is_dropped, .timeout = 60)
{
	static struct rig rig;

	for (unsigned parts = 1; parts <= 2; parts++) {
		const struct part part[] = { { BUFFER(0), 60, true }, { BUFFER(1), 40, true } };
		unsigned chains = DRIVER_SIZE / parts;

		rig_start(&rig, true, 0);
		rig.wire.big_len = 60000;
		make_frame(rig.wire.big, 60000, 1);
		for (unsigned i = 0; i < chains; i++)
			driver_offer(&rig.d, RX, part, parts);
		arrive(&rig);
		driver_wait(&rig.d, RX, (uint16_t)chains);
		for (unsigned i = 0; i < chains; i++)
			expect_used(&rig, RX, i, 0);
		add_frame(&rig, 80, 7);
		offer_rx(&rig, BUFFER(2), 2000);
		arrive(&rig);
		driver_wait(&rig.d, RX, (uint16_t)(chains + 1));
		rig_stop(&rig);
	}
}

Test(virtio_net, offloads_follow_the_driver, .timeout = 60)
{
	static struct rig rig;

	rig_start(&rig, true, 0);
	cr_assert_eq(rig.wire.offload, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN);
	virtio_host_reset(rig.d.dev);
	driver_start(&rig.d, rig.d.dev, F_GUEST_CSUM);
	driver_settle(&rig.d);
	cr_assert_eq(rig.wire.offload, 0, "segments without checksums");
	rig_stop(&rig);
	rig_start(&rig, false, 0);
	cr_assert_eq(rig.wire.offload, 0);
	cr_assert_eq(virtio_offered_features(rig.d.dev) & 0x3f83, 0);
	rig_stop(&rig);
}

/* 5.1.6.4.1: what a tap still holds of the driver before isn't for this one. */
Test(virtio_net, header_says_only_what_was_negotiated, .timeout = 60)
{
	static const struct {
		uint8_t flags, gso;
		bool without_csum, with_all; /* the frame arrives */
	} cases[] = {
		{ F_DATA_VALID, GSO_NONE, true, true },
		{ F_NEEDS_CSUM, GSO_NONE, false, true },
		{ F_NEEDS_CSUM, GSO_TCPV4, false, true },
		{ F_NEEDS_CSUM, GSO_TCPV6 | GSO_ECN, false, true },
		{ F_NEEDS_CSUM, GSO_UDP, false, false },
	};
	static struct rig rig;

	for (unsigned all = 0; all < 2; all++) {
		unsigned arrived = 0;

		rig_start(&rig, true, all ? 0 : F_GUEST_CSUM | F_GUEST_TSO);
		for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
			bool wanted = all ? cases[i].with_all : cases[i].without_csum;

			offer_rx(&rig, BUFFER(i), 1526);
			add_frame(&rig, 500, i);
			rig.wire.in[i][0] = cases[i].flags;
			rig.wire.in[i][1] = cases[i].gso;
			arrive(&rig);
			driver_settle(&rig.d);
			cr_assert_eq(ring_used_idx(&rig.d.ring[RX]), arrived + wanted,
				     "case %u, all %u", i, all);
			if (wanted)
				cr_expect_eq(*world_byte(&rig.d.w, BUFFER(arrived)),
					     all ? cases[i].flags : 0);
			arrived += wanted;
		}
		rig_stop(&rig);
	}
}

/* A reset in the middle of a frame: the next driver gets none of it. */
Test(virtio_net, reset_forgets_a_half_delivered_frame, .timeout = 60)
{
	static struct rig rig;

	rig_start(&rig, true, 0);
	rig.wire.big_len = 5000;
	make_frame(rig.wire.big, 5000, 1);
	offer_rx(&rig, BUFFER(0), 4000);
	arrive(&rig);
	virtio_host_reset(rig.d.dev);
	driver_start(&rig.d, rig.d.dev, 0);
	driver_settle(&rig.d);
	offer_rx(&rig, BUFFER(0), 4000);
	add_frame(&rig, 90, 2);
	arrive(&rig);
	driver_wait(&rig.d, RX, 1);
	expect_used(&rig, RX, 0, 90);
	rig_stop(&rig);
}

static void do_lost(void *opaque)
{
	struct rig *rig = opaque;

	rig->wire.net.lost(rig->wire.net.opaque);
}

Test(virtio_net, lost_backend_pulls_the_cable, .timeout = 60)
{
	struct part part = { BUFFER(0), 76, false };
	unsigned char config[8];
	static struct rig rig;

	rig_start(&rig, false, 0);
	virtio_config_read(rig.d.dev, 0, config, 8);
	cr_assert_eq(memcmp(config, (char[]){ 2, 3, 4, 5, 6, 7, S_LINK_UP, 0 }, 8), 0);
	rig.wire.full = true;
	driver_offer(&rig.d, TX, &part, 1);
	virtio_kick(rig.d.dev, TX);
	driver_settle(&rig.d);
	loop_call(rig.d.loop, do_lost, &rig);
	driver_wait(&rig.d, TX, 1); /* what waited comes back, unsent */
	cr_assert_eq(rig.wire.sent, 0);
	cr_assert_eq(rig.d.config_interrupts, 1);
	virtio_config_read(rig.d.dev, 6, config, 2);
	cr_assert_eq(config[0], 0);
	driver_do(&rig.d, TX, &part, 1);
	rig_stop(&rig);
}
