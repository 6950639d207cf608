/*
 * virtio-iommu through its rings: requests that the model (tests/model) predicts,
 * from a driver that lays them out in all the ways it may: head and tail divided,
 * direct or by an indirect table, with or without EVENT_IDX; I/O in flight, so
 * that answers are late; event buffers of any size, and faults to fill them.
 * After each input the device is reset, sometimes with an answer still due.
 */
#include <errno.h>
#include <string.h>
#include "devices/iommu/viommu.h"
#include "tests/model/viommu.h"
#include "vmm/base/log.h"

#define PAGE  MODEL_PAGE
#define QSIZE 8
#define s     model_subject
#define take  model_take
/* In RAM: the rings of queue q, then what they point to. */
#define DESC(q)	 ((1 + 3 * (q)) * PAGE)
#define AVAIL(q) ((2 + 3 * (q)) * PAGE)
#define USED(q)	 ((3 + 3 * (q)) * PAGE)
#define IN	 (8 * PAGE)
#define OUT	 (9 * PAGE)
#define TABLE	 (10 * PAGE)
#define EVENT	 (11 * PAGE)
#define NEXT	 1
#define WRITE	 2
#define INDIRECT 4
/* Turns of the loop after which an answer that isn't there waits for I/O in flight. */
#define PATIENCE 4

static struct {
	struct dma_view identity;
	struct loop *loop;
	struct viommu *viommu;
	struct virtio_dev *dev;
	uint16_t avail[2], used[2];
	unsigned layout; /* of requests; from the input */
} e;

static uint8_t *at(uint64_t gpa)
{
	return (uint8_t *)s.ram.host + gpa;
}

static void set_desc(uint64_t table, unsigned i, uint64_t addr, uint32_t len, uint16_t flags)
{
	uint16_t next = (uint16_t)(i + 1);
	uint8_t *d = at(table) + 16 * i;

	memcpy(d, &addr, 8);
	memcpy(d + 8, &len, 4);
	memcpy(d + 12, &flags, 2);
	memcpy(d + 14, &next, 2);
}

static void offer(unsigned q, uint16_t head)
{
	memcpy(at(AVAIL(q)) + 4 + 2 * (e.avail[q] % QSIZE), &head, 2);
	e.avail[q]++;
	atomic_store((_Atomic uint16_t *)(void *)(at(AVAIL(q)) + 2), e.avail[q]);
	virtio_kick(e.dev, q);
}

static bool is_used(unsigned q)
{
	return atomic_load((_Atomic uint16_t *)(void *)(at(USED(q)) + 2)) != e.used[q];
}

static void nothing(void *opaque)
{
}

/* Let the loop have a turn: what it knew before is done. */
static void turn(void)
{
	loop_call(e.loop, nothing, NULL);
}

static uint32_t used_len(unsigned q)
{
	uint32_t len;

	memcpy(&len, at(USED(q)) + 4 + 8 * (e.used[q]++ % QSIZE) + 4, 4);
	return len;
}

/* Lay @req out; the number of descriptors used in @table. */
static unsigned lay_out(uint64_t table, uint32_t len, uint32_t room, uint32_t cut)
{
	uint32_t tail = e.layout & 2 && room > 1 ? 1 + cut % (room - 1) : 0;
	unsigned n = 0;

	cut = len ? cut % len : 0;
	if (cut)
		set_desc(table, n++, IN, cut, NEXT);
	if (len)
		set_desc(table, n++, IN + cut, len - cut, room ? NEXT : 0);
	if (tail)
		set_desc(table, n++, OUT, tail, WRITE | NEXT);
	if (room)
		set_desc(table, n++, OUT + tail, room - tail, WRITE);
	return n;
}

static uint32_t send(const void *req, uint32_t len, uint32_t room, uint32_t cut)
{
	memcpy(at(IN), req, len);
	memset(at(OUT), 0xaa, 1024);
	if (e.layout & 1)
		set_desc(DESC(0), 0, TABLE, 16 * lay_out(TABLE, len, room, cut), INDIRECT);
	else
		lay_out(DESC(0), len, room, cut);
	offer(0, 0);
	for (unsigned i = 0; !is_used(0); i++) {
		if (i == PATIENCE)
			model_release();
		turn();
	}
	return used_len(0);
}

static uint8_t bypass(uint8_t value)
{
	virtio_config_write(e.dev, 36, &value, 1);
	virtio_config_read(e.dev, 36, &value, 1);
	return value;
}

/* Offer an event buffer of @room bytes and wait for it; the used length. */
static uint32_t get_event(uint32_t room)
{
	memset(at(EVENT), 0xaa, 64);
	set_desc(DESC(1), 0, EVENT, room, WRITE);
	offer(1, 0);
	while (!is_used(1))
		turn();
	uint32_t len = used_len(1);

	CHECK(len == (room >= 24 ? 24 : room >= 16 ? 16 : 0));
	CHECK(*at(EVENT + len) == 0xaa);
	return len;
}

/* An access that nothing allows (the page is beyond all mappings), and its report. */
static void fault_event(void)
{
	uint64_t iova = (1ULL << 31) + take(256);
	unsigned ep = take(MODEL_ENDPOINTS);
	struct virtio_iommu_fault fault;

	CHECK(dma_write(&s.port[ep], IOVA(iova), "x", 1) == -EFAULT);
	get_event(1 + take(40));
	/* Again, in full; older ones come first. */
	CHECK(dma_write(&s.port[ep], IOVA(iova + 1), "x", 1) == -EFAULT);
	do {
		get_event(24);
		memcpy(&fault, at(EVENT), sizeof(fault));
	} while (le64_get(fault.address) != iova + 1);
	CHECK(le32_get(fault.endpoint) == ep);
	CHECK(le32_get(fault.flags) == (VIRTIO_IOMMU_FAULT_F_WRITE | VIRTIO_IOMMU_FAULT_F_ADDRESS));
	CHECK(!fault.reserved[0] && !le32_get(fault.reserved1));
}

static void create(void)
{
	log_set_level(LOG_ERROR);
	model_create();
	s.send = send;
	s.out = at(OUT);
	s.bypass = bypass;
	dma_view_init_identity(&e.identity, &s.ram);
	CHECK(!loop_create(&e.loop, "viommu", NULL));
	CHECK(!viommu_create(&e.viommu, "viommu", s.iommu, &e.identity, e.loop, NULL));
	e.dev = viommu_virtio(e.viommu);
}

static void activate(unsigned choice)
{
	const uint64_t optional[] = { VIRTIO_IOMMU_F_PROBE, VIRTIO_IOMMU_F_MMIO,
				      VIRTIO_IOMMU_F_BYPASS_CONFIG, VIRTIO_F_EVENT_IDX };

	s.features = virtio_offered_features(e.dev);
	for (unsigned i = 0; i < ARRAY_SIZE(optional); i++) {
		if (choice & 1u << i)
			s.features &= ~optional[i];
	}
	e.layout = choice >> 4;
	memset(s.ram.host, 0, 12 * PAGE);
	memset(e.avail, 0, sizeof(e.avail));
	memset(e.used, 0, sizeof(e.used));
	virtio_set_status(e.dev, 3);
	virtio_set_driver_features(e.dev, 0, (uint32_t)s.features);
	virtio_set_driver_features(e.dev, 1, (uint32_t)(s.features >> 32));
	virtio_set_status(e.dev, 11);
	for (unsigned q = 0; q < 2; q++) {
		virtio_set_queue_size(e.dev, q, QSIZE);
		virtio_set_queue_addr(e.dev, q, 0, false, DESC(q));
		virtio_set_queue_addr(e.dev, q, 1, false, AVAIL(q));
		virtio_set_queue_addr(e.dev, q, 2, false, USED(q));
		virtio_set_queue_enabled(e.dev, q, true);
	}
	virtio_set_status(e.dev, 15);
	/* Activation is the loop's, and drops the faults of the time before it. */
	turn();
	model_restart();
}

/* Reset; with I/O in flight it isn't over before that. */
static void reset(void)
{
	virtio_set_status(e.dev, 0);
	for (unsigned i = 0; i < PATIENCE; i++)
		turn();
	model_release();
	virtio_wait_reset(e.dev);
	CHECK(virtio_get_status(e.dev) == 0);
	model_restart();
	model_compare(0);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	if (!e.viommu)
		create();
	model_input(input, size);
	activate(take(256));
	for (unsigned n = 0; model_has_input() && n < 200; n++) {
		unsigned what = take(16);

		if (what == 15)
			e.layout = take(4);
		else if (what == 14)
			model_compare(0);
		else if (what == 13)
			model_release();
		else
			model_step();
	}
	model_compare(0);
	if (size % 4 == 1)
		fault_event();
	reset();
	return 0;
}
