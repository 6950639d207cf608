/*
 * virtio-iommu as a driver sees it: rings in a small RAM, no KVM. Numbers in
 * the names are items of the checklist of virtio-iommu (HACKING.md).
 */

#include <criterion/criterion.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>
#include "devices/iommu/domain.h"
#include "devices/iommu/viommu.h"
#include "vmm/base/log.h"

#define PAGE  4096ULL
#define PAGES 64
#define QSIZE 16
/* Guest layout, in pages: rings of queue q at 1 + 3q, then the buffers. */
#define DESC(q)	 ((1 + 3 * (q)) * PAGE)
#define AVAIL(q) ((2 + 3 * (q)) * PAGE)
#define USED(q)	 ((3 + 3 * (q)) * PAGE)
#define IN	 (16 * PAGE)
#define OUT	 (20 * PAGE)
#define TARGET	 (32 * PAGE)

#define NEXT  1
#define WRITE 2

#define ALL_FEATURES                                                                     \
	(VIRTIO_F_VERSION_1 | VIRTIO_IOMMU_F_INPUT_RANGE | VIRTIO_IOMMU_F_DOMAIN_RANGE | \
	 VIRTIO_IOMMU_F_MAP_UNMAP | VIRTIO_IOMMU_F_PROBE | VIRTIO_IOMMU_F_MMIO |         \
	 VIRTIO_IOMMU_F_BYPASS_CONFIG)

static struct env {
	struct ram ram;
	struct dma_view identity, *view;
	struct iommu *iommu;
	struct loop *loop;
	struct viommu *viommu;
	struct virtio_dev *dev;
	struct dma_port port; /* of endpoint 8 */
	uint16_t avail[2], used[2];
} env;

static uint8_t *at(uint64_t gpa)
{
	return (uint8_t *)env.ram.host + gpa;
}

static void nothing(void *opaque)
{
}

/* All that a driver does before DRIVER_OK. */
static void prepare(uint64_t features)
{
	struct virtio_dev *dev = env.dev;

	memset(env.ram.host, 0, 16 * PAGE);
	env.avail[0] = env.avail[1] = env.used[0] = env.used[1] = 0;
	virtio_set_status(dev, 1);
	virtio_set_status(dev, 3);
	virtio_set_driver_features(dev, 0, (uint32_t)features);
	virtio_set_driver_features(dev, 1, (uint32_t)(features >> 32));
	virtio_set_status(dev, 11);
	cr_assert(virtio_get_status(dev) & VIRTIO_STATUS_FEATURES_OK);
	for (unsigned q = 0; q < 2; q++) {
		virtio_set_queue_size(dev, q, QSIZE);
		virtio_set_queue_addr(dev, q, 0, false, DESC(q));
		virtio_set_queue_addr(dev, q, 1, false, AVAIL(q));
		virtio_set_queue_addr(dev, q, 2, false, USED(q));
		virtio_set_queue_enabled(dev, q, true);
	}
}

static void activate(uint64_t features)
{
	prepare(features);
	virtio_set_status(env.dev, 15);
	/* Activation is the loop's, and drops the faults of the time before it. */
	loop_call(env.loop, nothing, NULL);
}

static void setup(void)
{
	static const struct iommu_resv msi = { IOMMU_RESV_MSI, 0xfee00000, 0xfeefffff };
	const struct iommu_config config = { .granule = PAGE, .address_width = 48 };

	log_set_level(LOG_ERROR);
	env.ram.size = PAGES * PAGE;
	env.ram.host = aligned_alloc(PAGE, env.ram.size);
	memset(env.ram.host, 0, env.ram.size);
	env.ram.count = 1;
	env.ram.region[0] = (struct ram_region){ GPA(0), env.ram.size, 0, env.ram.host };
	dma_view_init_identity(&env.identity, &env.ram);
	cr_assert_eq(iommu_create(&env.iommu, &config, &env.ram, NULL), 0);
	cr_assert_eq(iommu_add_endpoint(env.iommu, 8, "disk0", &msi, 1, &env.view, NULL), 0);
	cr_assert_eq(dma_port_init(&env.port, env.view), 0);
	cr_assert_eq(loop_create(&env.loop, "viommu", NULL), 0);
	cr_assert_eq(viommu_create(&env.viommu, "viommu", env.iommu, &env.identity, env.loop, NULL),
		     0);
	env.dev = viommu_virtio(env.viommu);
	activate(ALL_FEATURES);
}

static void teardown(void)
{
	dma_port_finish(&env.port);
	viommu_destroy(env.viommu);
	loop_destroy(env.loop);
	iommu_destroy(env.iommu);
	free(env.ram.host);
}

TestSuite(viommu, .init = setup, .fini = teardown);

static void set_desc(unsigned q, unsigned i, uint64_t addr, uint32_t len, uint16_t flags,
		     uint16_t next)
{
	uint8_t *d = at(DESC(q)) + 16 * i;

	memcpy(d, &addr, 8);
	memcpy(d + 8, &len, 4);
	memcpy(d + 12, &flags, 2);
	memcpy(d + 14, &next, 2);
}

static void make_available(unsigned q, uint16_t head)
{
	memcpy(at(AVAIL(q)) + 4 + 2 * (env.avail[q] % QSIZE), &head, 2);
	env.avail[q]++;
	atomic_store((_Atomic uint16_t *)(void *)(at(AVAIL(q)) + 2), env.avail[q]);
}

static void offer(unsigned q, uint16_t head)
{
	make_available(q, head);
	virtio_kick(env.dev, q);
}

static bool used_now(unsigned q)
{
	return atomic_load((_Atomic uint16_t *)(void *)(at(USED(q)) + 2)) != env.used[q];
}

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
}

/* Wait for the next used element; its length, its head in *@ret_head. */
static uint32_t wait_used(unsigned q, uint32_t *ret_head)
{
	uint32_t elem[2];

	for (unsigned i = 0; !used_now(q); i++) {
		cr_assert_lt(i, 20000, "no answer");
		nap();
	}
	memcpy(elem, at(USED(q)) + 4 + 8 * (env.used[q]++ % QSIZE), 8);
	if (ret_head)
		*ret_head = elem[0];
	return elem[1];
}

/* Give the loop the time to answer what it mustn't answer. */
static void expect_no_answer(unsigned q)
{
	for (int i = 0; i < 50; i++) {
		cr_assert_not(used_now(q));
		nap();
	}
}

/* Post @req with @room writable bytes at OUT, preset to 0xaa; one descriptor each. */
static void post(const void *req, uint32_t len, uint32_t room)
{
	memcpy(at(IN), req, len);
	memset(at(OUT), 0xaa, room + 16);
	set_desc(0, 0, IN, len, room ? NEXT : 0, 1);
	if (room)
		set_desc(0, 1, OUT, room, WRITE, 0);
	offer(0, 0);
}

static uint32_t request(const void *req, uint32_t len, uint32_t room)
{
	post(req, len, room);
	return wait_used(0, NULL);
}

/* The status of a request with a plain tail. */
static int status_of(const void *req, uint32_t len)
{
	static const uint8_t zero[3];

	cr_assert_eq(request(req, len, 4), 4);
	cr_assert_arr_eq(at(OUT + 1), zero, 3, "tail.reserved is zeroed");
	return at(OUT)[0];
}

static struct virtio_iommu_attach attach_req(uint32_t domain, uint32_t endpoint, uint32_t flags)
{
	return (struct virtio_iommu_attach){ .head.type = VIRTIO_IOMMU_T_ATTACH,
					     .domain = le32_from(domain),
					     .endpoint = le32_from(endpoint),
					     .flags = le32_from(flags) };
}

static int attach(uint32_t domain, uint32_t endpoint)
{
	struct virtio_iommu_attach req = attach_req(domain, endpoint, 0);

	return status_of(&req, sizeof(req));
}

static struct virtio_iommu_map map_req(uint32_t domain, uint64_t first, uint64_t last,
				       uint64_t phys, uint32_t flags)
{
	return (struct virtio_iommu_map){ .head.type = VIRTIO_IOMMU_T_MAP,
					  .domain = le32_from(domain),
					  .virt_start = le64_from(first),
					  .virt_end = le64_from(last),
					  .phys_start = le64_from(phys),
					  .flags = le32_from(flags) };
}

static int map(uint64_t first, uint64_t phys)
{
	struct virtio_iommu_map req = map_req(1, first, first + PAGE - 1, phys, 3);

	return status_of(&req, sizeof(req));
}

static struct virtio_iommu_unmap unmap_req(uint64_t first, uint64_t last)
{
	return (struct virtio_iommu_unmap){ .head.type = VIRTIO_IOMMU_T_UNMAP,
					    .domain = le32_from(1),
					    .virt_start = le64_from(first),
					    .virt_end = le64_from(last) };
}

static int unmap(uint64_t first, uint64_t last)
{
	struct virtio_iommu_unmap req = unmap_req(first, last);

	return status_of(&req, sizeof(req));
}

static bool poke(uint64_t iova)
{
	return !dma_write(&env.port, IOVA(iova), "x", 1);
}

/*
 * Features and configuration.
 */

static void config(struct virtio_iommu_config *c)
{
	virtio_config_read(env.dev, 0, c, sizeof(*c));
}

Test(viommu, spec_01_02_features)
{
	cr_assert_eq(virtio_offered_features(env.dev),
		     ALL_FEATURES | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX);
	cr_assert_eq(env.dev->id, 23);
}

Test(viommu, spec_03_config)
{
	struct virtio_iommu_config c;

	config(&c);
	cr_assert_eq(le64_get(c.page_size_mask), ~(PAGE - 1));
	cr_assert_eq(le64_get(c.input_start), 0);
	cr_assert_eq(le64_get(c.input_end), (1ULL << 48) - 1);
	cr_assert_eq(le32_get(c.domain_start), 0);
	cr_assert_eq(le32_get(c.domain_end), UINT32_MAX);
	cr_assert_eq(le32_get(c.probe_size), IOMMU_PROBE_SIZE);
	cr_assert_eq(c.bypass, 0);
}

Test(viommu, spec_05_bypass_reads_0_or_1)
{
	struct virtio_iommu_config c;
	uint8_t value;

	cr_assert_not(poke(TARGET));
	value = 1;
	virtio_config_write(env.dev, 36, &value, 1);
	config(&c);
	cr_assert_eq(c.bypass, 1);
	cr_assert(poke(TARGET));
	for (unsigned v = 2; v < 256; v++) {
		value = (uint8_t)v;
		virtio_config_write(env.dev, 36, &value, 1);
		config(&c);
		cr_assert_eq(c.bypass, 1);
	}
	/* Other fields are read-only. */
	uint8_t ff[36];

	memset(ff, 0xff, sizeof(ff));
	virtio_config_write(env.dev, 0, ff, sizeof(ff));
	config(&c);
	cr_assert_eq(le64_get(c.page_size_mask), ~(PAGE - 1));
	cr_assert_eq(c.bypass, 1);
}

Test(viommu, bypass_needs_the_feature)
{
	struct virtio_iommu_attach req = attach_req(1, 8, 1);
	struct virtio_iommu_config c;
	uint8_t one = 1;

	virtio_host_reset(env.dev);
	activate(ALL_FEATURES & ~VIRTIO_IOMMU_F_BYPASS_CONFIG);
	virtio_config_write(env.dev, 36, &one, 1);
	config(&c);
	cr_assert_eq(c.bypass, 0);
	cr_assert_eq(status_of(&req, sizeof(req)), VIRTIO_IOMMU_S_INVAL);
}

Test(viommu, spec_04_07_device_reset)
{
	uint8_t one = 1;

	virtio_config_write(env.dev, 36, &one, 1);
	cr_assert_eq(attach(1, 8), 0);
	cr_assert_not(poke(TARGET));
	virtio_host_reset(env.dev);
	cr_assert(poke(TARGET), "bypass is unchanged, nobody is attached");
	activate(ALL_FEATURES);
	cr_assert_eq(map(0, TARGET), VIRTIO_IOMMU_S_NOENT);
}

/*
 * Requests in general.
 */

Test(viommu, spec_08_a_driver_session)
{
	cr_assert_eq(attach(1, 8), 0);
	cr_assert_eq(map(0x100000, TARGET), 0);
	cr_assert(poke(0x100000 + 5));
	cr_assert_eq(at(TARGET)[5], 'x');
	cr_assert_eq(unmap(0x100000, 0x100fff), 0);
	cr_assert_not(poke(0x100000));
}

Test(viommu, spec_09_unknown_type_is_returned_unwritten)
{
	uint8_t req[72] = { 0 };

	for (unsigned type = 0; type < 256; type = type ? type + 25 : 6) {
		req[0] = (uint8_t)type;
		cr_assert_eq(request(req, sizeof(req), 4), 0);
		cr_assert_eq(at(OUT)[0], 0xaa);
	}
}

Test(viommu, spec_10_head_reserved_is_ignored)
{
	struct virtio_iommu_attach req = attach_req(1, 8, 0);

	memset(req.head.reserved, 0xff, 3);
	cr_assert_eq(status_of(&req, sizeof(req)), 0);
}

Test(viommu, spec_11_unparsable_is_returned_unwritten)
{
	struct virtio_iommu_attach req = attach_req(1, 8, 0);

	for (uint32_t len = 1; len < sizeof(req); len++) {
		cr_assert_eq(request(&req, len, 4), 0, "%u readable bytes", len);
		cr_assert_eq(at(OUT)[0], 0xaa);
	}
	for (uint32_t room = 0; room < 4; room++) {
		cr_assert_eq(request(&req, sizeof(req), room), 0, "%u writable bytes", room);
		cr_assert_eq(at(OUT)[0], 0xaa);
	}
	/* None of them did anything. */
	cr_assert_eq(map(0, TARGET), VIRTIO_IOMMU_S_NOENT);
	/* Longer than needed is fine. */
	uint8_t longer[100] = { 0 };

	memcpy(longer, &req, sizeof(req));
	cr_assert_eq(request(longer, sizeof(longer), 40), 4);
	cr_assert_eq(at(OUT)[0], 0);
	cr_assert_eq(at(OUT)[4], 0xaa);
}

Test(viommu, any_layout_of_head_and_tail)
{
	struct virtio_iommu_attach req = attach_req(1, 8, 0);

	/* The head cut into 8 descriptors, the tail into 4, one byte each. */
	memcpy(at(IN), &req, sizeof(req));
	memset(at(OUT), 0xaa, 16);
	for (unsigned i = 0; i < 8; i++)
		set_desc(0, i, IN + (i ? i + 12 : 0), i ? 1 : 13, NEXT, (uint16_t)(i + 1));
	for (unsigned i = 0; i < 4; i++)
		set_desc(0, 8 + i, OUT + 2 * i, 1, WRITE | (i < 3 ? NEXT : 0), (uint16_t)(9 + i));
	offer(0, 0);
	cr_assert_eq(wait_used(0, NULL), 4);
	for (unsigned i = 0; i < 8; i++)
		cr_assert_eq(at(OUT)[i], i % 2 ? 0xaa : 0);
	cr_assert_eq(map(0, TARGET), 0);
}

Test(viommu, spec_15_24_36_reserved_fields)
{
	struct virtio_iommu_attach a = attach_req(1, 8, 0);
	struct virtio_iommu_unmap u = unmap_req(0, PAGE - 1);
	struct virtio_iommu_detach d = { .head.type = VIRTIO_IOMMU_T_DETACH,
					 .domain = le32_from(1),
					 .endpoint = le32_from(8) };

	a.reserved[3] = 1;
	cr_assert_eq(status_of(&a, sizeof(a)), VIRTIO_IOMMU_S_INVAL);
	cr_assert_eq(attach(1, 8), 0);
	u.reserved[0] = 1;
	cr_assert_eq(status_of(&u, sizeof(u)), VIRTIO_IOMMU_S_INVAL);
	memset(d.reserved, 0xff, sizeof(d.reserved));
	cr_assert_eq(status_of(&d, sizeof(d)), 0);
}

Test(viommu, spec_31_mmio_needs_the_feature)
{
	struct virtio_iommu_map req = map_req(1, 0, PAGE - 1, TARGET, 4);

	attach(1, 8);
	cr_assert_eq(status_of(&req, sizeof(req)), 0);
	virtio_host_reset(env.dev);
	activate(ALL_FEATURES & ~VIRTIO_IOMMU_F_MMIO);
	attach(1, 8);
	cr_assert_eq(status_of(&req, sizeof(req)), VIRTIO_IOMMU_S_INVAL);
}

Test(viommu, spec_39_unmap_split_refused)
{
	struct virtio_iommu_map req = map_req(1, 0, 4 * PAGE - 1, TARGET, 3);

	attach(1, 8);
	cr_assert_eq(status_of(&req, sizeof(req)), 0);
	cr_assert_eq(unmap(0, PAGE - 1), VIRTIO_IOMMU_S_RANGE);
	cr_assert(poke(0));
}

/*
 * PROBE.
 */

static struct virtio_iommu_probe probe_req(uint32_t endpoint)
{
	struct virtio_iommu_probe req = { .head.type = VIRTIO_IOMMU_T_PROBE,
					  .endpoint = le32_from(endpoint) };

	/* 41: ignored. */
	memset(req.reserved, 0xff, sizeof(req.reserved));
	return req;
}

Test(viommu, spec_41_45_46_48_probe)
{
	const uint8_t zero[IOMMU_PROBE_SIZE] = { 0 };
	struct virtio_iommu_probe req = probe_req(8);

	cr_assert_eq(request(&req, sizeof(req), IOMMU_PROBE_SIZE + 4), IOMMU_PROBE_SIZE + 4);
	cr_assert_eq(at(OUT)[0], 1);
	cr_assert_eq(at(OUT)[2], 20);
	cr_assert_eq(at(OUT)[4], 1);
	cr_assert_arr_eq(at(OUT + 24), zero, IOMMU_PROBE_SIZE + 4 - 24);
}

Test(viommu, spec_42_probe_unknown_endpoint)
{
	struct virtio_iommu_probe req = probe_req(7);

	cr_assert_eq(request(&req, sizeof(req), IOMMU_PROBE_SIZE + 4), IOMMU_PROBE_SIZE + 4);
	cr_assert_eq(at(OUT + IOMMU_PROBE_SIZE)[0], VIRTIO_IOMMU_S_NOENT);
	cr_assert_eq(at(OUT)[0], 0, "no property");
}

Test(viommu, spec_43_probe_needs_the_feature)
{
	struct virtio_iommu_probe req = probe_req(8);

	virtio_host_reset(env.dev);
	activate(ALL_FEATURES & ~VIRTIO_IOMMU_F_PROBE);
	cr_assert_eq(request(&req, sizeof(req), IOMMU_PROBE_SIZE + 4), 0);
	cr_assert_eq(at(OUT)[0], 0xaa);
	cr_assert_eq(at(OUT + IOMMU_PROBE_SIZE)[0], 0xaa);
}

Test(viommu, spec_09_map_and_unmap_need_the_feature)
{
	struct virtio_iommu_map map = map_req(1, 0, PAGE - 1, TARGET, 3);
	struct virtio_iommu_unmap unmap = unmap_req(0, PAGE - 1);

	virtio_host_reset(env.dev);
	activate(ALL_FEATURES & ~VIRTIO_IOMMU_F_MAP_UNMAP);
	attach(1, 8);
	cr_assert_eq(request(&map, sizeof(map), 4), 0);
	cr_assert_eq(request(&unmap, sizeof(unmap), 4), 0);
	cr_assert_eq(at(OUT)[0], 0xaa);
}

Test(viommu, spec_47_probe_with_a_short_buffer)
{
	const uint32_t rooms[] = { 4, 5, 28, IOMMU_PROBE_SIZE, IOMMU_PROBE_SIZE + 3 };
	struct virtio_iommu_probe req = probe_req(8);

	for (unsigned i = 0; i < ARRAY_SIZE(rooms); i++) {
		cr_assert_eq(request(&req, sizeof(req), rooms[i]), rooms[i]);
		cr_assert_eq(at(OUT + rooms[i] - 4)[0], VIRTIO_IOMMU_S_INVAL);
		cr_assert_eq(at(OUT + rooms[i])[0], 0xaa);
		if (rooms[i] > 4)
			cr_assert_eq(at(OUT)[0], 0, "no property");
	}
}

/*
 * Replies that wait.
 */

static void pin(struct dma_list *list, uint64_t iova)
{
	static struct iovec iov[4];
	static void *mapping[4];

	*list = (struct dma_list){ .iov = iov, .mapping = mapping, .max = 4 };
	cr_assert_eq(dma_map(&env.port, IOVA(iova), 64, DMA_WRITE, list), 0);
}

Test(viommu, unmap_is_answered_after_the_io_and_others_go_on)
{
	struct virtio_iommu_unmap req = unmap_req(0, PAGE - 1);
	struct virtio_iommu_map other = map_req(1, PAGE, 2 * PAGE - 1, TARGET, 3);
	struct dma_list list;
	uint32_t head;

	attach(1, 8);
	map(0, TARGET);
	pin(&list, 0);
	/* Its tail in two pieces, in other descriptors than the next request's. */
	memcpy(at(IN + 512), &req, sizeof(req));
	memset(at(OUT + 512), 0xaa, 16);
	set_desc(0, 4, IN + 512, sizeof(req), NEXT, 5);
	set_desc(0, 5, OUT + 512, 1, NEXT | WRITE, 6);
	set_desc(0, 6, OUT + 516, 3, WRITE, 0);
	offer(0, 4);
	expect_no_answer(0);
	cr_assert_not(poke(0));
	cr_assert_eq(status_of(&other, sizeof(other)), 0);
	cr_assert_eq(at(OUT + 512)[0], 0xaa);
	dma_unpin(&env.port, &list);
	cr_assert_eq(wait_used(0, &head), 4);
	cr_assert_eq(head, 4);
	cr_assert_eq(at(OUT + 512)[0], 0);
	cr_assert_eq(at(OUT + 516)[0], 0);
}

Test(viommu, reset_waits_for_io_and_drops_the_reply)
{
	struct virtio_iommu_unmap req = unmap_req(0, PAGE - 1);
	struct dma_list list;

	attach(1, 8);
	map(0, TARGET);
	pin(&list, 0);
	post(&req, sizeof(req), 4);
	expect_no_answer(0);
	virtio_set_status(env.dev, 0);
	nap();
	cr_assert_neq(virtio_get_status(env.dev), 0, "the device may still write");
	dma_unpin(&env.port, &list);
	virtio_wait_reset(env.dev);
	cr_assert_eq(virtio_get_status(env.dev), 0);
	cr_assert_not(used_now(0));
	cr_assert_eq(at(OUT)[0], 0xaa);
	activate(ALL_FEATURES);
	cr_assert_eq(attach(1, 8), 0);
}

/*
 * Events.
 */

static void offer_event_buffer(unsigned i, uint32_t len)
{
	memset(at(OUT + PAGE + 64 * i), 0xaa, 64);
	set_desc(1, i, OUT + PAGE + 64 * i, len, WRITE, 0);
	offer(1, (uint16_t)i);
}

Test(viommu, spec_54_to_57_fault_event)
{
	struct virtio_iommu_fault fault;

	offer_event_buffer(0, 24);
	cr_assert_not(poke(0x123456));
	cr_assert_eq(wait_used(1, NULL), 24);
	memcpy(&fault, at(OUT + PAGE), sizeof(fault));
	cr_assert_eq(fault.reason, VIRTIO_IOMMU_FAULT_R_DOMAIN);
	cr_assert_eq(le32_get(fault.flags), 0x102);
	cr_assert_eq(le32_get(fault.endpoint), 8);
	cr_assert_eq(le32_get(fault.reserved1), 0);
	cr_assert_eq(le64_get(fault.address), 0x123456);
	cr_assert_eq(fault.reserved[0] | fault.reserved[1] | fault.reserved[2], 0);
}

Test(viommu, spec_58_short_event_buffers)
{
	struct virtio_iommu_fault fault;
	uint32_t head;

	offer_event_buffer(0, 8);
	offer_event_buffer(1, 23);
	poke(0x123456);
	cr_assert_eq(wait_used(1, &head), 0, "too short for any form");
	cr_assert_eq(head, 0);
	cr_assert_eq(at(OUT + PAGE)[0], 0xaa);
	cr_assert_eq(wait_used(1, &head), 16, "the form without an address");
	memcpy(&fault, at(OUT + PAGE + 64), sizeof(fault));
	cr_assert_eq(le32_get(fault.flags), 0x002);
	cr_assert_eq(le32_get(fault.endpoint), 8);
	cr_assert_eq(at(OUT + PAGE + 64)[16], 0xaa);
}

Test(viommu, spec_59_a_fault_waits_for_a_buffer)
{
	poke(0x1000);
	expect_no_answer(1);
	offer_event_buffer(0, 24);
	cr_assert_eq(wait_used(1, NULL), 24);
}

Test(viommu, spec_60_a_broken_ring_needs_a_reset)
{
	/* The head is no descriptor. */
	offer(0, QSIZE);
	for (int i = 0; i < 10000 && !(virtio_get_status(env.dev) & 64); i++)
		nap();
	cr_assert(virtio_get_status(env.dev) & VIRTIO_STATUS_NEEDS_RESET);
	virtio_host_reset(env.dev);
	activate(ALL_FEATURES);
	cr_assert_eq(attach(1, 8), 0);
}

/* They have no kick of their own (3.1.1). */
Test(viommu, requests_made_available_before_driver_ok)
{
	const struct virtio_iommu_probe req = { .head.type = VIRTIO_IOMMU_T_PROBE,
						.endpoint = le32_from(8) };

	virtio_host_reset(env.dev);
	prepare(ALL_FEATURES);
	memcpy(at(IN), &req, sizeof(req));
	set_desc(0, 0, IN, sizeof(req), NEXT, 1);
	set_desc(0, 1, OUT, IOMMU_PROBE_SIZE + 4, WRITE, 0);
	make_available(0, 0);
	virtio_set_status(env.dev, 15);
	cr_assert_eq(wait_used(0, NULL), IOMMU_PROBE_SIZE + 4);
}

Test(viommu, a_batch_of_requests)
{
	struct virtio_iommu_map req;

	attach(1, 8);
	for (unsigned i = 0; i < 8; i++) {
		req = map_req(1, i * PAGE, (i + 1) * PAGE - 1, TARGET, 3);
		memcpy(at(IN + 64 * i), &req, sizeof(req));
		set_desc(0, 2 * i, IN + 64 * i, sizeof(req), NEXT, (uint16_t)(2 * i + 1));
		set_desc(0, 2 * i + 1, OUT + 4 * i, 4, WRITE, 0);
		offer(0, (uint16_t)(2 * i));
	}
	for (unsigned i = 0; i < 8; i++)
		cr_assert_eq(wait_used(0, NULL), 4);
	for (unsigned i = 0; i < 8; i++)
		cr_assert(poke(i * PAGE));
}
