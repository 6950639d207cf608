/*
 * A hostile driver against the ring parser.
 *
 * The input's first bytes choose the shape (size, features, scattered or not);
 * the rest is a program: well-formed steps that reach deep states (offer a
 * descriptor, an indirect table), raw writes anywhere in the ring, remappings,
 * and the device's calls, in any order. What is checked, beyond what the
 * sanitizers see: a popped chain obeys every rule of virtq.h, no section stays
 * open, faults are reported outside sections, references balance, and memory
 * that the device may not write doesn't change.
 */
#include <stddef.h>
#include "tests/unit/devices/virtio/ring.h"

#define MAX_BUFS  32
#define MAX_STEPS 256

/* No mapping lets the device write to the last page of memory. */
#define CANARY_PAGE (PAGES - 1)

struct input {
	const uint8_t *data;
	size_t len;
};

static uint64_t take(struct input *in, unsigned bytes)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < bytes && in->len; i++, in->data++, in->len--)
		value |= (uint64_t)*in->data << (8 * i);
	return value;
}

struct state {
	struct world w;
	struct ring r;
	struct virtq vq;
	struct virtq_buf buf[MAX_BUFS];
	struct virtq_chain chain;
	bool popped;	/* chain is valid */
	bool can_unpop; /* nothing happened since the pop */
};

/* An address near something interesting, or anything at all. */
static uint64_t take_addr(struct input *in, const struct state *s)
{
	switch (take(in, 1) % 4) {
	case 0:
		return take(in, 8);
	case 1:
		return WORLD_BASE + PAGES * PAGE - take(in, 1);
	case 2:
		return s->r.desc + take(in, 2);
	default:
		return WORLD_BASE + take(in, 3) % (PAGES * PAGE);
	}
}

static void step_desc(struct state *s, struct input *in)
{
	bool indirect = take(in, 1) & 1;
	uint64_t table = indirect ? WORLD_BASE + 40 * PAGE : s->r.desc;
	uint64_t addr = take_addr(in, s);
	unsigned index = (unsigned)take(in, 1) % (indirect ? 40 : s->r.size);
	uint32_t len = (uint32_t)take(in, 1 + take(in, 1) % 4);

	put_desc(&s->w, table, index, addr, len, (uint16_t)(take(in, 1) % 8),
		 (uint16_t)take(in, 1));
}

/* A descriptor that refers to the table that step_desc fills. */
static void step_table(struct state *s, struct input *in)
{
	unsigned index = (unsigned)take(in, 1) % s->r.size;

	ring_desc(&s->r, index, WORLD_BASE + 40 * PAGE, 16 * (uint32_t)(take(in, 1) % 41),
		  F_INDIRECT, 0);
	ring_offer(&s->r, (uint16_t)index);
}

static void step_poke(struct state *s, struct input *in)
{
	uint64_t at = s->r.desc + take(in, 2) % (s->r.used + 8ULL * s->r.size + 6 - s->r.desc);
	uint8_t byte = (uint8_t)take(in, 1);

	poke(&s->w, at, &byte, 1);
}

static void step_remap(struct state *s, struct input *in)
{
	unsigned page = (unsigned)take(in, 1) % PAGES;
	unsigned to = (unsigned)take(in, 1) % PAGES;
	uint8_t perm = (uint8_t)(take(in, 1) % 4);

	if (to == CANARY_PAGE)
		perm &= DMA_READ;
	world_remap(&s->w, page, to, perm);
}

static void check_chain(const struct state *s)
{
	const struct virtq_chain *c = &s->chain;
	uint64_t bytes[2] = { 0, 0 };

	assert(c->out + c->in > 0 && c->out + c->in <= MIN((unsigned)s->r.size, c->max));
	for (unsigned i = 0; i < c->out + c->in; i++) {
		bytes[i >= c->out] += c->buf[i].len;
		assert(!c->buf[i].len || c->buf[i].addr.v + c->buf[i].len - 1 >= c->buf[i].addr.v);
	}
	assert(bytes[0] == c->out_bytes && bytes[1] == c->in_bytes);
	assert(bytes[0] + bytes[1] > 0 && bytes[0] + bytes[1] <= 1ULL << 32);
	assert(c->head < s->r.size);
}

static void step_pop(struct state *s, struct input *in)
{
	int result;

	s->chain.max = take(in, 1) % 4 ? MAX_BUFS : 2;
	result = virtq_pop(&s->vq, &s->chain);
	s->popped = s->can_unpop = result == 1;
	assert(result == 1 || result == 0 || result == -EPROTO || result == -EFAULT);
	assert((result == -EPROTO) == (s->vq.state == VIRTQ_BROKEN));
	if (s->popped)
		check_chain(s);
}

static void step_copy(struct state *s, struct input *in)
{
	unsigned char buf[256] = { 0 };
	uint64_t offset = take(in, 1 + take(in, 1) % 8), len = take(in, 1);
	bool fits_out = offset <= s->chain.out_bytes && len <= s->chain.out_bytes - offset;
	bool fits_in = offset <= s->chain.in_bytes && len <= s->chain.in_bytes - offset;

	if (!s->popped)
		return;
	assert((virtq_read(&s->vq, &s->chain, offset, buf, len) == -ERANGE) == !fits_out);
	assert((virtq_write(&s->vq, &s->chain, offset, buf, len) == -ERANGE) == !fits_in);
}

static void step_map(struct state *s, struct input *in)
{
	struct iovec iov[6];
	void *mapping[6];
	struct dma_list list = { .iov = iov, .mapping = mapping, .max = 6 };
	enum dma_dir dir = take(in, 1) & 1 ? DMA_READ : DMA_WRITE;
	uint64_t offset = take(in, 2), len = take(in, 2);

	if (!s->popped)
		return;
	if (virtq_map(&s->vq, &s->chain, offset, len, dir, &list) == 0) {
		assert(list.bytes == len);
		/* What is mapped can be touched to the last byte. */
		for (unsigned i = 0; dir == DMA_WRITE && i < list.count; i++)
			memset(iov[i].iov_base, 0x5a, iov[i].iov_len);
		dma_unpin(&s->w.port, &list);
	} else {
		assert(list.count == 0 && list.bytes == 0);
	}
	assert(s->w.refs == 0);
}

static void driver_step(struct state *s, struct input *in, unsigned what)
{
	switch (what) {
	case 0:
		step_desc(s, in);
		break;
	case 1:
		step_table(s, in);
		break;
	case 2:
		ring_offer(&s->r, (uint16_t)(take(in, 1) % s->r.size));
		break;
	case 3:
		step_poke(s, in);
		break;
	default:
		step_remap(s, in);
		break;
	}
}

static void step_push(struct state *s, struct input *in)
{
	uint16_t idx = s->vq.next_used;

	s->can_unpop = false;
	if (virtq_push(&s->vq, s->chain.head, (uint32_t)take(in, 2)) < 0)
		assert(s->vq.next_used == idx);
}

static void device_step(struct state *s, struct input *in, unsigned what)
{
	switch (what) {
	case 0:
	case 1:
		step_pop(s, in);
		break;
	case 2:
		if (s->can_unpop)
			virtq_unpop(&s->vq);
		s->popped = s->can_unpop = false;
		break;
	case 3:
		step_copy(s, in);
		break;
	case 4:
		step_map(s, in);
		break;
	case 5:
		step_push(s, in);
		break;
	case 6:
		virtq_publish(&s->vq);
		break;
	default:
		virtq_enable_kicks(&s->vq);
		virtq_disable_kicks(&s->vq);
		break;
	}
}

static void step(struct state *s, struct input *in)
{
	unsigned char *canary = s->w.mem + CANARY_PAGE * PAGE;
	unsigned what = (unsigned)take(in, 1) % 13;

	if (what < 5) {
		driver_step(s, in, what);
		return;
	}
	memset(canary, 0xc7, PAGE);
	device_step(s, in, what - 5);
	assert(!atomic_load(&s->w.port.active));
	for (unsigned i = 0; i < PAGE; i++)
		assert(canary[i] == 0xc7);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = { data, len };
	uint8_t shape = (uint8_t)take(&in, 1);
	struct state *s = calloc(1, sizeof(*s));

	world_init(&s->w, shape & 1);
	for (unsigned i = 0; i < PAGES; i++) {
		if (s->w.map[i].page == CANARY_PAGE)
			s->w.map[i].perm = DMA_READ;
	}
	/* 1 to 1024 entries, in the middle of a page. */
	s->r = ring_make(&s->w, (uint16_t)(1U << take(&in, 1) % 11), WORLD_BASE + 2032);

	struct virtq_config config = ring_config(&s->r);

	if (shape & 8) { /* whatever the registers hold */
		config.desc.v = take_addr(&in, s);
		config.driver.v = take_addr(&in, s);
		config.device.v = take_addr(&in, s);
		config.size = (uint16_t)take(&in, 2);
	}
	s->chain.buf = s->buf;
	virtq_start(&s->vq, &config, &s->w.port, shape & 2, shape & 4);
	if (config.size != s->r.size)
		virtq_pop(&s->vq, &s->chain);
	for (unsigned i = 0; config.size == s->r.size && in.len && i < MAX_STEPS; i++)
		step(s, &in);
	virtq_stop(&s->vq);
	world_finish(&s->w);
	free(s);
	return 0;
}
