#include "tests/model/viommu.h"

#include <errno.h>
#include <string.h>

#define PAGE	   MODEL_PAGE
#define RAM_PAGES  MODEL_RAM_PAGES
#define ENDPOINTS  MODEL_ENDPOINTS
#define IOVA_PAGES 16
#define DOMAINS	   4
#define MSI_PAGE   14 /* of endpoint 0 */
#define PINS	   4

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

/* I/O in flight: an access of @ep to IOVA page @page; the domain it went through, -1: none. */
static struct pin {
	unsigned ep;
	int domain, page;
	bool identity; /* through no mapping */
	struct iovec iov;
	void *mapping;
	struct dma_list list;
} pins[PINS];

struct model_subject model_subject;
#define s model_subject

static const uint8_t *data;
static size_t left;

void model_input(const uint8_t *bytes, size_t size)
{
	data = bytes;
	left = size;
}

bool model_has_input(void)
{
	return left;
}

unsigned model_take(unsigned limit)
{
	if (!left)
		return 0;
	left--;
	return *data++ % limit;
}
#define take model_take

void model_create(void)
{
	const struct iommu_config config = { .granule = PAGE, .address_width = 32 };
	const struct iommu_resv msi = { IOMMU_RESV_MSI, MSI_PAGE * PAGE,
					(MSI_PAGE + 1) * PAGE - 1 };

	s.ram.size = RAM_PAGES * PAGE;
	s.ram.host = aligned_alloc(PAGE, s.ram.size);
	CHECK(s.ram.host);
	memset(s.ram.host, 0, s.ram.size);
	s.ram.count = 1;
	s.ram.region[0] = (struct ram_region){ GPA(0), s.ram.size, 0, s.ram.host };
	CHECK(!iommu_create(&s.iommu, &config, &s.ram, NULL));
	for (unsigned i = 0; i < ENDPOINTS; i++) {
		CHECK(!iommu_add_endpoint(s.iommu, i, "model", &msi, i == 0, &s.view[i], NULL));
		CHECK(!dma_port_init(&s.port[i], s.view[i]));
	}
}

void model_restart(void)
{
	m = (struct model){ .bypass = m.bypass };
	for (unsigned i = 0; i < ENDPOINTS; i++)
		m.attached[i] = -1;
}

/*
 * What the specification says.
 */

static bool has(uint64_t feature)
{
	return s.features & feature;
}

static void leave(unsigned ep)
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

static int attach(unsigned d, unsigned ep, uint32_t flags, bool reserved)
{
	bool bypass = flags & 1;

	if (reserved || flags > has(VIRTIO_IOMMU_F_BYPASS_CONFIG))
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
	leave(ep);
	m.attached[ep] = (int)d;
	return VIRTIO_IOMMU_S_OK;
}

static int detach(unsigned d, unsigned ep)
{
	if (ep >= ENDPOINTS)
		return VIRTIO_IOMMU_S_NOENT;
	if (m.attached[ep] != (int)d)
		return VIRTIO_IOMMU_S_INVAL;
	leave(ep);
	return VIRTIO_IOMMU_S_OK;
}

static int map(unsigned d, int first, int last, int phys, uint32_t flags, int off)
{
	if (flags & ~(has(VIRTIO_IOMMU_F_MMIO) ? 7u : 3u) || first > last)
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

static int unmap(unsigned d, int first, int last, bool reserved)
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
static int reach(unsigned ep, int i, enum dma_dir dir)
{
	int d = m.attached[ep];

	if (d < 0 ? m.bypass : m.domain[d].bypass)
		return (ep == 0 && i == MSI_PAGE) || i >= RAM_PAGES ? -1 : i;
	if (d < 0 || i >= IOVA_PAGES)
		return -1;
	const struct page *p = &m.domain[d].page[i];

	if (p->start < 0 || !(p->flags & dir) || p->flags & 4 || p->phys >= RAM_PAGES)
		return -1;
	return p->phys;
}

static void compare_page(unsigned ep, int page, enum dma_dir dir, unsigned offset)
{
	int want = reach(ep, page, dir);
	struct dma_piece piece;

	dma_enter(&s.port[ep]);
	int ret = dma_translate(&s.port[ep], IOVA((uint64_t)page * PAGE + offset), 1, dir, &piece);

	dma_leave(&s.port[ep]);
	CHECK(ret == (want < 0 ? -EFAULT : 0));
	CHECK(ret || piece.host == (char *)s.ram.host + (uint64_t)want * PAGE + offset);
}

void model_compare(unsigned count)
{
	for (unsigned ep = 0; ep < ENDPOINTS; ep++) {
		for (int i = 0; !count && i < 2 * IOVA_PAGES; i++)
			compare_page(ep, i / 2, i & 1 ? DMA_WRITE : DMA_READ, 7);
		for (unsigned i = 0; i < count; i++)
			compare_page(ep, (int)take(IOVA_PAGES + 1), take(2) ? DMA_WRITE : DMA_READ,
				     16 * take(256));
	}
}

/*
 * I/O in flight.
 */

static void pin(void)
{
	unsigned ep = take(ENDPOINTS);
	int page = (int)take(IOVA_PAGES), want = reach(ep, page, DMA_WRITE);

	for (struct pin *p = pins; p < pins + PINS; p++) {
		if (p->list.count)
			continue;
		*p = (struct pin){ .ep = ep, .domain = m.attached[ep], .page = page };
		p->identity = p->domain < 0 || m.domain[p->domain].bypass;
		p->list = (struct dma_list){ .iov = &p->iov, .mapping = &p->mapping, .max = 1 };
		CHECK(dma_map(&s.port[ep], IOVA((uint64_t)page * PAGE), 8, DMA_WRITE, &p->list) ==
		      (want < 0 ? -EFAULT : 0));
		return;
	}
}

static bool unpin(struct pin *p)
{
	bool any = p->list.count;

	if (any)
		dma_unpin(&s.port[p->ep], &p->list);
	return any;
}

bool model_release(void)
{
	bool any = false;

	for (unsigned i = 0; i < PINS; i++)
		any |= unpin(&pins[i]);
	return any;
}

/*
 * Requests, sent and predicted.
 */

static void expect(uint32_t used, uint32_t want_used, int status)
{
	CHECK(used == want_used);
	CHECK(s.out[used - 4] == status);
	CHECK(s.out[used - 3] == 0 && s.out[used - 2] == 0 && s.out[used - 1] == 0);
	CHECK(s.out[used] == 0xaa);
}

static void do_attach(void)
{
	unsigned d = take(DOMAINS), ep = take(ENDPOINTS + 1), flags = take(8) / 3;
	struct virtio_iommu_attach req = { .head.type = VIRTIO_IOMMU_T_ATTACH,
					   .domain = le32_from(d),
					   .endpoint = le32_from(ep),
					   .flags = le32_from(flags) };

	req.reserved[3] = take(16) == 15;
	uint32_t used = s.send(&req, sizeof(req), 4, take(20));

	expect(used, 4, attach(d, ep, flags, req.reserved[3]));
}

static void do_detach(void)
{
	unsigned d = take(DOMAINS), ep = take(ENDPOINTS + 1);
	struct virtio_iommu_detach req = { .head.type = VIRTIO_IOMMU_T_DETACH,
					   .domain = le32_from(d),
					   .endpoint = le32_from(ep) };
	uint32_t used = s.send(&req, sizeof(req), 4, take(20));
	bool same = m.domain[d].bypass && m.bypass; /* identity before and after */
	int status = detach(d, ep);

	expect(used, 4, status);
	/* Answered: nothing of what was taken away may be in flight any more. */
	for (unsigned i = 0; status == VIRTIO_IOMMU_S_OK && !same && i < PINS; i++)
		CHECK(!pins[i].list.count || pins[i].ep != ep || pins[i].domain != (int)d);
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
	uint32_t used = s.send(&req, sizeof(req), 4, take(36));

	expect(used, 4, map(d, (int)first, (int)last, (int)phys, flags, (int)off));
}

static void do_unmap(void)
{
	unsigned d = take(DOMAINS), first = take(IOVA_PAGES), last = take(IOVA_PAGES);
	struct virtio_iommu_unmap req = { .head.type = VIRTIO_IOMMU_T_UNMAP,
					  .domain = le32_from(d),
					  .virt_start = le64_from(first * PAGE),
					  .virt_end = le64_from((last + 1) * PAGE - 1) };

	req.reserved[0] = take(16) == 15;
	uint32_t used = s.send(&req, sizeof(req), 4, take(28));
	int status = unmap(d, (int)first, (int)last, req.reserved[0]);

	expect(used, 4, status);
	for (unsigned i = 0; status == VIRTIO_IOMMU_S_OK && i < PINS; i++)
		CHECK(!pins[i].list.count || pins[i].identity || pins[i].domain != (int)d ||
		      pins[i].page < (int)first || pins[i].page > (int)last);
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
	uint32_t used = s.send(&req, sizeof(req), room, take(72));

	if (!has(VIRTIO_IOMMU_F_PROBE)) {
		CHECK(used == 0 && s.out[0] == 0xaa);
		return;
	}
	expect(used, room, want);
	/* Endpoint 0 has one reserved region, the others none. */
	CHECK(room < 8 || s.out[0] == (want == VIRTIO_IOMMU_S_OK && ep == 0));
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
	CHECK(s.send(req, len, room, take(80)) == 0);
	CHECK(s.out[0] == 0xaa);
}

static void do_bypass(void)
{
	uint8_t value = (uint8_t)take(3), now = s.bypass(value);

	if (value < 2 && has(VIRTIO_IOMMU_F_BYPASS_CONFIG))
		m.bypass = value;
	CHECK(now == m.bypass);
}

void model_step(void)
{
	struct iommu_fault fault;

	switch (take(18)) {
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
	case 15:
	case 16:
		pin();
		break;
	default:
		unpin(&pins[take(PINS)]);
	}
	/* Of I/O that was refused. */
	while (iommu_take_fault(s.iommu, &fault))
		;
}
