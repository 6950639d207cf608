/*
 * The request queue of virtio-iommu. The input is a list of requests, mostly
 * well-formed, over a small space of IDs and pages so that they meet; sometimes
 * raw bytes. They go through a ring in RAM and the real virtq, virtio and viommu
 * code. A naive model (an array of pages per domain) predicts every status, and
 * what each endpoint can reach is compared with the model at the end.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "devices/iommu/domain.h"
#include "devices/iommu/viommu.h"
#include "vmm/base/log.h"

#define PAGE	   4096ULL
#define RAM_PAGES  32
#define QSIZE	   4
#define DESC	   PAGE
#define AVAIL	   (2 * PAGE)
#define USED	   (3 * PAGE)
#define IN	   (4 * PAGE)
#define OUT	   (5 * PAGE)
#define IOVA_PAGES 16
#define DOMAINS	   4
#define ENDPOINTS  3
#define MSI_PAGE   14 /* of endpoint 0 */

#define CHECK(c)                                                                \
	do {                                                                    \
		if (!(c)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #c); \
			abort();                                                \
		}                                                               \
	} while (0)

struct page {
	int start; /* first page of its mapping, -1: none */
	int last;
	int phys; /* RAM page of this page, may be outside RAM */
	uint32_t flags;
};

static struct model {
	struct {
		bool exists, bypass;
		struct page page[IOVA_PAGES];
	} domain[DOMAINS];
	int attached[ENDPOINTS]; /* domain or -1 */
	bool bypass;
} m;

static struct {
	struct ram ram;
	struct dma_view identity, *view[ENDPOINTS];
	struct dma_port port[ENDPOINTS];
	struct iommu *iommu;
	struct loop *loop;
	struct viommu *viommu;
	struct virtio_dev *dev;
	uint16_t avail;
} e;

static uint8_t *at(uint64_t gpa)
{
	return (uint8_t *)e.ram.host + gpa;
}

static void create(void)
{
	const struct iommu_config config = { .granule = PAGE, .address_width = 32 };
	const struct iommu_resv msi = { IOMMU_RESV_MSI, MSI_PAGE * PAGE,
					(MSI_PAGE + 1) * PAGE - 1 };

	log_set_level(LOG_ERROR);
	e.ram.size = RAM_PAGES * PAGE;
	e.ram.host = aligned_alloc(PAGE, e.ram.size);
	memset(e.ram.host, 0, e.ram.size);
	e.ram.count = 1;
	e.ram.region[0] = (struct ram_region){ GPA(0), e.ram.size, 0, e.ram.host };
	dma_view_init_identity(&e.identity, &e.ram);
	CHECK(!iommu_create(&e.iommu, &config, &e.ram, NULL));
	for (unsigned i = 0; i < ENDPOINTS; i++) {
		CHECK(!iommu_add_endpoint(e.iommu, i, "fuzz", &msi, i == 0, &e.view[i], NULL));
		CHECK(!dma_port_init(&e.port[i], e.view[i]));
	}
	CHECK(!loop_create(&e.loop, "viommu", NULL));
	CHECK(!viommu_create(&e.viommu, "viommu", e.iommu, &e.identity, e.loop, NULL));
	e.dev = viommu_virtio(e.viommu);
}

static void activate(void)
{
	uint64_t features = virtio_offered_features(e.dev) & ~VIRTIO_F_EVENT_IDX;

	memset(e.ram.host, 0, 8 * PAGE);
	e.avail = 0;
	virtio_set_status(e.dev, 3);
	virtio_set_driver_features(e.dev, 0, (uint32_t)features);
	virtio_set_driver_features(e.dev, 1, (uint32_t)(features >> 32));
	virtio_set_status(e.dev, 11);
	virtio_set_queue_size(e.dev, 0, QSIZE);
	virtio_set_queue_addr(e.dev, 0, 0, false, DESC);
	virtio_set_queue_addr(e.dev, 0, 1, false, AVAIL);
	virtio_set_queue_addr(e.dev, 0, 2, false, USED);
	virtio_set_queue_enabled(e.dev, 0, true);
	virtio_set_status(e.dev, 15);
	m = (struct model){ .bypass = m.bypass };
	for (unsigned i = 0; i < ENDPOINTS; i++)
		m.attached[i] = -1;
}

static void set_desc(unsigned i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	uint8_t *d = at(DESC) + 16 * i;

	memcpy(d, &addr, 8);
	memcpy(d + 8, &len, 4);
	memcpy(d + 12, &flags, 2);
	memcpy(d + 14, &next, 2);
}

/* Send it, the readable part cut at @cut; returns the used length. */
static uint32_t send(const void *req, uint32_t len, uint32_t room, uint32_t cut)
{
	uint32_t used_len;
	unsigned n = 0;

	memcpy(at(IN), req, len);
	memset(at(OUT), 0xaa, 1024);
	cut = len ? cut % len : 0;
	if (cut) {
		set_desc(n, IN, cut, 1, (uint16_t)(n + 1));
		n++;
	}
	if (len) {
		set_desc(n, IN + cut, len - cut, room ? 1 : 0, (uint16_t)(n + 1));
		n++;
	}
	if (room)
		set_desc(n, OUT, room, 2, 0);
	memset(at(AVAIL) + 4 + 2 * (e.avail % QSIZE), 0, 2);
	e.avail++;
	atomic_store((_Atomic uint16_t *)(void *)(at(AVAIL) + 2), e.avail);
	virtio_kick(e.dev, 0);
	while (atomic_load((_Atomic uint16_t *)(void *)(at(USED) + 2)) != e.avail)
		sched_yield();
	memcpy(&used_len, at(USED) + 4 + 8 * ((e.avail - 1) % QSIZE) + 4, 4);
	return used_len;
}

/*
 * The model.
 */

static void model_leave(unsigned ep)
{
	int d = m.attached[ep];

	m.attached[ep] = -1;
	for (unsigned i = 0; i < ENDPOINTS; i++) {
		if (m.attached[i] == d)
			return;
	}
	if (d >= 0)
		m.domain[d].exists = false;
}

static int model_attach(unsigned d, unsigned ep, uint32_t flags, bool reserved)
{
	bool bypass = flags & 1;

	if (reserved || flags > 1)
		return VIRTIO_IOMMU_S_INVAL;
	if (ep >= ENDPOINTS)
		return VIRTIO_IOMMU_S_NOENT;
	if (m.domain[d].exists && m.domain[d].bypass != bypass)
		return VIRTIO_IOMMU_S_INVAL;
	if (m.attached[ep] == (int)d)
		return VIRTIO_IOMMU_S_OK;
	if (m.domain[d].exists && ep == 0 && m.domain[d].page[MSI_PAGE].start >= 0)
		return VIRTIO_IOMMU_S_UNSUPP;
	if (!m.domain[d].exists) {
		m.domain[d].exists = true;
		m.domain[d].bypass = bypass;
		for (int i = 0; i < IOVA_PAGES; i++)
			m.domain[d].page[i].start = -1;
	}
	model_leave(ep);
	m.attached[ep] = (int)d;
	return VIRTIO_IOMMU_S_OK;
}

static int model_detach(unsigned d, unsigned ep)
{
	if (ep >= ENDPOINTS)
		return VIRTIO_IOMMU_S_NOENT;
	if (m.attached[ep] != (int)d)
		return VIRTIO_IOMMU_S_INVAL;
	model_leave(ep);
	return VIRTIO_IOMMU_S_OK;
}

static int model_map(unsigned d, int first, int last, int phys, uint32_t flags, int off)
{
	if (flags & ~7u || first > last)
		return VIRTIO_IOMMU_S_INVAL;
	if (!m.domain[d].exists)
		return VIRTIO_IOMMU_S_NOENT;
	if (m.domain[d].bypass)
		return VIRTIO_IOMMU_S_INVAL;
	if (off)
		return VIRTIO_IOMMU_S_RANGE;
	if (m.attached[0] == (int)d && first <= MSI_PAGE && last >= MSI_PAGE)
		return VIRTIO_IOMMU_S_INVAL;
	for (int i = first; i <= last; i++) {
		if (m.domain[d].page[i].start >= 0)
			return VIRTIO_IOMMU_S_INVAL;
	}
	for (int i = first; i <= last; i++)
		m.domain[d].page[i] = (struct page){ first, last, phys + i - first, flags };
	return VIRTIO_IOMMU_S_OK;
}

static int model_unmap(unsigned d, int first, int last, bool reserved)
{
	if (reserved)
		return VIRTIO_IOMMU_S_INVAL;
	if (!m.domain[d].exists)
		return VIRTIO_IOMMU_S_NOENT;
	if (m.domain[d].bypass || first > last)
		return VIRTIO_IOMMU_S_INVAL;
	for (int i = first; i <= last; i++) {
		struct page *p = &m.domain[d].page[i];

		if (p->start >= 0 && (p->start < first || p->last > last))
			return VIRTIO_IOMMU_S_RANGE;
	}
	for (int i = first; i <= last; i++)
		m.domain[d].page[i].start = -1;
	return VIRTIO_IOMMU_S_OK;
}

/* The RAM page that endpoint @ep reaches at IOVA page @i, or -1. */
static int model_reach(unsigned ep, int i, enum dma_dir dir)
{
	int d = m.attached[ep];

	if (d < 0 ? m.bypass : m.domain[d].bypass)
		return ep == 0 && i == MSI_PAGE ? -1 : i;
	if (d < 0)
		return -1;
	const struct page *p = &m.domain[d].page[i];

	if (p->start < 0 || !(p->flags & dir) || p->flags & 4 || p->phys >= RAM_PAGES)
		return -1;
	return p->phys;
}

static void compare(void)
{
	struct iommu_fault fault;
	struct dma_piece piece;

	for (unsigned ep = 0; ep < ENDPOINTS; ep++) {
		for (int i = 0; i < 2 * IOVA_PAGES; i++) {
			enum dma_dir dir = i & 1 ? DMA_WRITE : DMA_READ;
			int want = model_reach(ep, i / 2, dir);

			dma_enter(&e.port[ep]);
			int ret = dma_translate(&e.port[ep], IOVA((uint64_t)(i / 2) * PAGE + 7), 1,
						dir, &piece);
			dma_leave(&e.port[ep]);
			CHECK(ret == (want < 0 ? -EFAULT : 0));
			CHECK(ret || piece.host == at((uint64_t)want * PAGE + 7));
		}
	}
	while (iommu_take_fault(e.iommu, &fault))
		;
}

/*
 * The input.
 */

static const uint8_t *data;
static size_t left;

static unsigned take(unsigned limit)
{
	if (!left)
		return 0;
	left--;
	return *data++ % limit;
}

static void expect(uint32_t used, uint32_t want_used, int status)
{
	CHECK(used == want_used);
	CHECK(at(OUT)[used - 4] == status);
	CHECK(at(OUT)[used - 3] == 0 && at(OUT)[used - 2] == 0 && at(OUT)[used - 1] == 0);
	CHECK(at(OUT)[used] == 0xaa);
}

static void do_attach(void)
{
	unsigned d = take(DOMAINS), ep = take(ENDPOINTS + 1), flags = take(8) / 3;
	struct virtio_iommu_attach req = { .head.type = VIRTIO_IOMMU_T_ATTACH,
					   .domain = le32_from(d),
					   .endpoint = le32_from(ep),
					   .flags = le32_from(flags) };

	req.reserved[3] = take(16) == 15;
	expect(send(&req, sizeof(req), 4, take(20)), 4,
	       model_attach(d, ep, flags, req.reserved[3]));
}

static void do_detach(void)
{
	unsigned d = take(DOMAINS), ep = take(ENDPOINTS + 1);
	struct virtio_iommu_detach req = { .head.type = VIRTIO_IOMMU_T_DETACH,
					   .domain = le32_from(d),
					   .endpoint = le32_from(ep) };

	expect(send(&req, sizeof(req), 4, take(20)), 4, model_detach(d, ep));
}

static void do_map(void)
{
	unsigned d = take(DOMAINS), first = take(IOVA_PAGES), last = take(IOVA_PAGES);
	unsigned phys = take(RAM_PAGES + 8), flags = take(9), off = take(16) == 15;
	struct virtio_iommu_map req = { .head.type = VIRTIO_IOMMU_T_MAP,
					.domain = le32_from(d),
					.virt_start = le64_from(first * PAGE),
					.virt_end = le64_from((last + 1) * PAGE - 1),
					.phys_start = le64_from(phys * PAGE + off),
					.flags = le32_from(flags) };

	expect(send(&req, sizeof(req), 4, take(36)), 4,
	       model_map(d, (int)first, (int)last, (int)phys, flags, (int)off));
}

static void do_unmap(void)
{
	unsigned d = take(DOMAINS), first = take(IOVA_PAGES), last = take(IOVA_PAGES);
	struct virtio_iommu_unmap req = { .head.type = VIRTIO_IOMMU_T_UNMAP,
					  .domain = le32_from(d),
					  .virt_start = le64_from(first * PAGE),
					  .virt_end = le64_from((last + 1) * PAGE - 1) };

	req.reserved[0] = take(16) == 15;
	expect(send(&req, sizeof(req), 4, take(28)), 4,
	       model_unmap(d, (int)first, (int)last, req.reserved[0]));
}

static void do_probe(void)
{
	unsigned ep = take(ENDPOINTS + 1), room = IOMMU_PROBE_SIZE + 4;
	struct virtio_iommu_probe req = { .head.type = VIRTIO_IOMMU_T_PROBE,
					  .endpoint = le32_from(ep) };
	int want = ep < ENDPOINTS ? VIRTIO_IOMMU_S_OK : VIRTIO_IOMMU_S_NOENT;

	if (take(4) == 3) {
		room = 4 + take(250) * 2;
		want = VIRTIO_IOMMU_S_INVAL;
	}
	expect(send(&req, sizeof(req), room, take(72)), room, want);
}

/* Any bytes at all, cut too short to be a request or of no type: never answered. */
static void do_raw(void)
{
	uint8_t req[80];
	unsigned len = take(81), room = take(8);

	for (unsigned i = 0; i < len; i++)
		req[i] = (uint8_t)take(256);
	if (len)
		req[0] = room < 4 ? req[0] : (uint8_t)(6 + req[0] % 250);
	if (!len && !room)
		return;
	CHECK(send(req, len, room, take(80)) == 0);
	CHECK(at(OUT)[0] == 0xaa);
}

static void do_bypass(void)
{
	uint8_t value = (uint8_t)take(3);

	virtio_config_write(e.dev, 36, &value, 1);
	if (value < 2)
		m.bypass = value;
	virtio_config_read(e.dev, 36, &value, 1);
	CHECK(value == m.bypass);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	if (!e.viommu)
		create();
	data = input;
	left = size;
	activate();
	for (unsigned n = 0; left && n < 200; n++) {
		switch (take(16)) {
		case 0 ... 2:
			do_attach();
			break;
		case 3:
			do_detach();
			break;
		case 4 ... 8:
			do_map();
			break;
		case 9 ... 11:
			do_unmap();
			break;
		case 12:
			do_probe();
			break;
		case 13:
			do_raw();
			break;
		case 14:
			do_bypass();
			break;
		default:
			compare();
		}
	}
	compare();
	virtio_host_reset(e.dev);
	for (unsigned i = 0; i < ENDPOINTS; i++)
		m.attached[i] = -1;
	compare();
	return 0;
}
