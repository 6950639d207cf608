/*
 * The rules of domains and mappings, and what devices see of them. Numbers in the
 * names are items of the list in the checklist of virtio-iommu (HACKING.md)
 */
#include "tests/unit/devices/iommu/env.h"

TestSuite(domain, .init = setup, .fini = teardown);

Test(domain, spec_04_bypass_survives_device_reset_and_system_reset_restores_it)
{
	iommu_set_bypass(env.iommu, true);
	cr_assert_eq(iommu_reset(env.iommu, &env.op), OK);
	cr_assert(iommu_get_bypass(env.iommu));
	cr_assert_eq(peek(0, 0), 1);
	iommu_system_reset(env.iommu);
	cr_assert_not(iommu_get_bypass(env.iommu));
	cr_assert_eq(peek(0, 0), -1);
}

Test(domain, spec_07_reset_leaves_no_domain)
{
	attach(1, 8, 0);
	attach(2, 9, 0);
	map(1, 0, G - 1, 0, RW);
	cr_assert_eq(peek(0, 0), 1);
	cr_assert_eq(iommu_reset(env.iommu, &env.op), OK);
	cr_assert_eq(peek(0, 0), -1);
	cr_assert_eq(map(1, 0, G - 1, 0, RW), NOENT);
	cr_assert_eq(detach(1, 8), INVAL);
	/* The domain that is made anew has no mapping of the old one. */
	attach(1, 8, 0);
	cr_assert_eq(peek(0, 0), -1);
}

Test(domain, spec_12_unattached_is_blocked)
{
	cr_assert_eq(peek(0, 0), -1);
	cr_assert_not(poke(0, 0));
	cr_assert_eq(((uint8_t *)env.ram.host)[0], 1);
}

Test(domain, spec_13_bypass_is_identity)
{
	iommu_set_bypass(env.iommu, true);
	cr_assert_eq(peek(0, 5 * G), 6);
	cr_assert(poke(0, 5 * G));
	/* No RAM behind it: neither the hole nor beyond the end. */
	cr_assert_eq(peek(0, 32 * G), -1);
	cr_assert_eq(peek(0, MIB(1)), 33);
	cr_assert_eq(peek(0, UINT64_MAX), -1);
}

Test(domain, spec_13_bypass_domain_is_identity)
{
	cr_assert_eq(attach(3, 8, BYPASS), OK);
	cr_assert_eq(peek(0, 5 * G), 6);
	cr_assert(poke(0, 5 * G));
	cr_assert_eq(detach(3, 8), OK);
	cr_assert_eq(peek(0, 5 * G), -1);
}

Test(domain, bypass_change_reaches_a_warm_cache)
{
	iommu_set_bypass(env.iommu, true);
	cr_assert_eq(peek(0, 0), 1);
	iommu_set_bypass(env.iommu, false);
	cr_assert_eq(peek(0, 0), -1);
	iommu_set_bypass(env.iommu, true);
	cr_assert_eq(peek(0, 0), 1);
	attach(1, 8, 0);
	cr_assert_eq(peek(0, 0), -1, "an attached endpoint isn't in bypass");
}

Test(domain, spec_14_map_outside_input_range)
{
	attach(1, 9, 0);
	cr_assert_eq(map(1, 1ULL << 48, (1ULL << 48) + G - 1, 0, RW), RANGE);
	cr_assert_eq(map(1, (1ULL << 48) - G, (1ULL << 48) + G - 1, 0, RW), RANGE);
	cr_assert_eq(map(1, (1ULL << 48) - G, (1ULL << 48) - 1, 0, RW), OK);
	cr_assert_eq(peek(1, (1ULL << 48) - 1), 1);
}

Test(domain, spec_16_attach_unknown_flag)
{
	cr_assert_eq(attach(1, 8, 2), INVAL);
	cr_assert_eq(attach(1, 8, 0x80000000), INVAL);
	cr_assert_eq(iommu_attach(env.iommu, 1, 8, BYPASS, 0, &env.op), INVAL);
	cr_assert_eq(map(1, 0, G - 1, 0, R), NOENT, "the refused ATTACH made a domain");
}

Test(domain, spec_17_attach_unknown_endpoint)
{
	cr_assert_eq(attach(1, 7, 0), NOENT);
	cr_assert_eq(map(1, 0, G - 1, 0, R), NOENT);
}

Test(domain, spec_18_endpoints_share_a_domain)
{
	attach(1, 8, 0);
	map(1, 0x10000, 0x10000 + G - 1, 2 * G, RW);
	cr_assert_eq(attach(1, 9, 0), OK);
	cr_assert_eq(peek(0, 0x10000), 3);
	cr_assert_eq(peek(1, 0x10000), 3);
	cr_assert_eq(detach(1, 8), OK);
	cr_assert_eq(peek(0, 0x10000), -1);
	cr_assert_eq(peek(1, 0x10000), 3);
}

Test(domain, spec_19_attach_with_the_other_kind)
{
	attach(1, 8, 0);
	attach(2, 9, BYPASS);
	cr_assert_eq(attach(1, 9, BYPASS), INVAL);
	cr_assert_eq(attach(2, 8, 0), INVAL);
	cr_assert_eq(attach(1, 8, BYPASS), INVAL);
	/* Nothing changed. */
	cr_assert_eq(peek(1, G), 2);
	cr_assert_eq(detach(1, 8), OK);
}

Test(domain, spec_20_attach_elsewhere_detaches)
{
	attach(1, 8, 0);
	map(1, 0, G - 1, 0, RW);
	cr_assert_eq(peek(0, 0), 1);
	cr_assert_eq(attach(2, 8, 0), OK);
	cr_assert_eq(peek(0, 0), -1);
	cr_assert_eq(map(1, G, 2 * G - 1, 0, RW), NOENT, "its last endpoint left");
	cr_assert_eq(detach(1, 8), INVAL);
	cr_assert_eq(detach(2, 8), OK);
}

Test(domain, attach_again_keeps_the_mappings)
{
	attach(1, 8, 0);
	map(1, 0, G - 1, 0, RW);
	cr_assert_eq(attach(1, 8, 0), OK);
	cr_assert_eq(peek(0, 0), 1);
}

Test(domain, spec_21_attach_with_a_mapping_in_a_reserved_region)
{
	attach(1, 9, 0);
	attach(2, 8, 0);
	map(2, 0, G - 1, 0, RW);
	cr_assert_eq(map(1, MSI_LAST + 1 - G, MSI_LAST, 0, RW), OK, "9 has no reserved region");
	cr_assert_eq(attach(1, 8, 0), UNSUPP);
	cr_assert_eq(peek(0, 0), 1, "still in its old domain");
	cr_assert_eq(unmap(1, 0, UINT64_MAX), OK);
	cr_assert_eq(map(1, MSI_FIRST - G, MSI_FIRST - 1, 0, RW), OK);
	cr_assert_eq(map(1, MSI_LAST + 1, MSI_LAST + G, 0, RW), OK);
	cr_assert_eq(attach(1, 8, 0), OK);
}

Test(domain, spec_25_26_detach_of_what_is_not_attached)
{
	cr_assert_eq(detach(1, 7), NOENT);
	cr_assert_eq(detach(1, 8), INVAL);
	attach(1, 8, 0);
	cr_assert_eq(detach(2, 8), INVAL);
	cr_assert_eq(detach(0, 8), INVAL);
	cr_assert_eq(detach(1, 9), INVAL);
	cr_assert_eq(detach(1, 8), OK);
	cr_assert_eq(detach(1, 8), INVAL);
}

Test(domain, spec_27_28_last_detach_destroys_the_domain)
{
	attach(1, 8, 0);
	map(1, 0, G - 1, 0, RW);
	cr_assert_eq(peek(0, 0), 1);
	cr_assert_eq(detach(1, 8), OK);
	cr_assert_eq(peek(0, 0), -1);
	cr_assert_eq(unmap(1, 0, G - 1), NOENT);
	cr_assert_eq(attach(1, 8, BYPASS), OK, "the ID is free, for either kind");
	detach(1, 8);
	cr_assert_eq(attach(1, 8, 0), OK);
	cr_assert_eq(peek(0, 0), -1);
}

Test(domain, spec_29_map_alignment)
{
	attach(1, 8, 0);
	cr_assert_eq(map(1, 1, G - 1, 0, RW), RANGE);
	cr_assert_eq(map(1, 0, G - 2, 0, RW), RANGE);
	cr_assert_eq(map(1, 0, G, 0, RW), RANGE);
	cr_assert_eq(map(1, 0, G - 1, G / 2, RW), RANGE);
	cr_assert_eq(map(1, G, G - 1, 0, RW), INVAL, "an empty range");
	cr_assert_eq(map(1, 0, 2 * G - 1, UINT64_MAX - G + 1, RW), RANGE, "phys wraps");
	cr_assert_eq(peek(0, 0), -1);
}

Test(domain, spec_30_map_overlap)
{
	attach(1, 8, 0);
	cr_assert_eq(map(1, 2 * G, 4 * G - 1, 0, RW), OK);
	cr_assert_eq(map(1, 2 * G, 4 * G - 1, 0, RW), INVAL);
	cr_assert_eq(map(1, 3 * G, 5 * G - 1, 0, RW), INVAL);
	cr_assert_eq(map(1, 0, 3 * G - 1, 0, RW), INVAL);
	cr_assert_eq(map(1, 0, 8 * G - 1, 0, RW), INVAL);
	cr_assert_eq(map(1, 0, 2 * G - 1, 0, RW), OK);
	cr_assert_eq(map(1, 4 * G, 5 * G - 1, 0, RW), OK);
}

Test(domain, spec_31_map_unknown_flag)
{
	attach(1, 8, 0);
	cr_assert_eq(map(1, 0, G - 1, 0, 8), INVAL);
	cr_assert_eq(iommu_map(env.iommu, 1, 0, G - 1, 0, MMIO, RW), INVAL);
	cr_assert_eq(map(1, 0, G - 1, 0, RW | MMIO), OK);
	cr_assert_eq(peek(0, 0), -1, "an MMIO mapping is no RAM");
}

Test(domain, spec_32_33_map_needs_a_translating_domain)
{
	cr_assert_eq(map(1, 0, G - 1, 0, RW), NOENT);
	attach(1, 8, BYPASS);
	cr_assert_eq(map(1, 0, G - 1, 0, RW), INVAL);
}

Test(domain, spec_34_permissions)
{
	attach(1, 8, 0);
	map(1, 0, G - 1, 0, R);
	map(1, G, 2 * G - 1, G, W);
	map(1, 2 * G, 3 * G - 1, 2 * G, 0);
	for (int warm = 0; warm < 2; warm++) {
		cr_assert_eq(peek(0, 0), 1);
		cr_assert_not(poke(0, 0));
		cr_assert(poke(0, G));
		cr_assert_eq(peek(0, G), -1);
		cr_assert_eq(peek(0, 2 * G), -1);
		cr_assert_not(poke(0, 2 * G));
	}
	cr_assert_eq(((uint8_t *)env.ram.host)[0], 1);
}

Test(domain, spec_35_translation)
{
	attach(1, 8, 0);
	map(1, 0x700000, 0x700000 + 4 * G - 1, 3 * G, RW);
	for (uint64_t i = 0; i < 4; i++) {
		cr_assert_eq(peek(0, 0x700000 + i * G), (int)i + 4);
		cr_assert_eq(peek(0, 0x700000 + i * G + G - 1), (int)i + 4);
	}
	cr_assert_eq(peek(0, 0x700000 - 1), -1);
	cr_assert_eq(peek(0, 0x700000 + 4 * G), -1);
	/* For an endpoint that comes later too. */
	attach(1, 9, 0);
	cr_assert_eq(peek(1, 0x700000 + 2 * G), 6);
}

Test(domain, a_mapping_over_a_hole_reaches_only_ram)
{
	attach(1, 9, 0);
	map(1, 0, MIB(2) - 1, 0, RW);
	cr_assert_eq(peek(1, 31 * G), 32);
	cr_assert_eq(peek(1, 32 * G), -1);
	cr_assert_eq(peek(1, MIB(1) - 1), -1);
	cr_assert_eq(peek(1, MIB(1)), 33);
	uint8_t buf[2];

	cr_assert_eq(dma_read(&env.port[1], IOVA(32 * G - 1), buf, 2), -EFAULT);
	cr_assert_eq(map(1, MIB(2), MIB(2) + G - 1, UINT64_MAX - G + 1, RW), OK);
	cr_assert_eq(peek(1, MIB(2)), -1);
}

Test(domain, spec_38_37_unmap_needs_a_translating_domain)
{
	cr_assert_eq(unmap(1, 0, G - 1), NOENT);
	attach(1, 8, BYPASS);
	cr_assert_eq(unmap(1, 0, G - 1), INVAL);
	attach(2, 9, 0);
	cr_assert_eq(unmap(2, G, G - 1), INVAL);
}

/* The seven examples of virtio 1.3, 5.13.6.6, scaled by the granule. */
struct range {
	int first, last;
};

static void example(struct range a, struct range b, struct range gone, int want, bool a_stays,
		    bool b_stays)
{
	cr_assert_eq(attach(5, 9, 0), OK);
	if (a.last >= 0)
		cr_assert_eq(map(5, a.first * G, (a.last + 1) * G - 1, 0, RW), OK);
	if (b.last >= 0)
		cr_assert_eq(map(5, b.first * G, (b.last + 1) * G - 1, 16 * G, RW), OK);
	cr_assert_eq(unmap(5, gone.first * G, (gone.last + 1) * G - 1), want);
	if (a.last >= 0)
		cr_assert_eq(peek(1, a.first * G) >= 0, a_stays);
	if (b.last >= 0)
		cr_assert_eq(peek(1, b.first * G) >= 0, b_stays);
	cr_assert_eq(detach(5, 9), OK);
}

Test(domain, spec_40_the_seven_examples)
{
	const struct range none = { 0, -1 };

	example(none, none, (struct range){ 0, 4 }, OK, false, false);
	example((struct range){ 0, 9 }, none, (struct range){ 0, 9 }, OK, false, false);
	example((struct range){ 0, 4 }, (struct range){ 5, 9 }, (struct range){ 0, 9 }, OK, false,
		false);
	example((struct range){ 0, 9 }, none, (struct range){ 0, 4 }, RANGE, true, false);
	example((struct range){ 0, 4 }, (struct range){ 5, 9 }, (struct range){ 0, 4 }, OK, false,
		true);
	example((struct range){ 0, 4 }, none, (struct range){ 0, 9 }, OK, false, false);
	example((struct range){ 0, 4 }, (struct range){ 10, 14 }, (struct range){ 0, 14 }, OK,
		false, false);
}

Test(domain, spec_39_unmap_split_refused)
{
	attach(1, 8, 0);
	for (uint64_t i = 0; i < 8; i += 2)
		map(1, i * G, (i + 2) * G - 1, i * G, RW);
	/* A range that cuts the first, the last, or lies inside of one mapping. */
	cr_assert_eq(unmap(1, G, 8 * G - 1), RANGE);
	cr_assert_eq(unmap(1, 0, 7 * G - 1), RANGE);
	cr_assert_eq(unmap(1, G, 2 * G - 1), RANGE);
	cr_assert_eq(unmap(1, 0, 0), RANGE);
	cr_assert_eq(unmap(1, 2 * G - 1, 2 * G - 1), RANGE);
	for (uint64_t i = 0; i < 8; i++)
		cr_assert_eq(peek(0, i * G), (int)i + 1, "nothing was removed");
	/* UNMAP has no alignment rule of its own. */
	map(1, 16 * G, 17 * G - 1, 0, RW);
	cr_assert_eq(unmap(1, 8 * G + 5, 18 * G + 17), OK);
	cr_assert_eq(peek(0, 16 * G), -1);
}

Test(domain, unmap_of_the_whole_address_space)
{
	iommu_destroy(NULL);
	teardown();
	setup_with(&(struct iommu_config){ .granule = G, .address_width = 64 });
	attach(1, 9, 0);
	cr_assert_eq(map(1, UINT64_MAX - G + 1, UINT64_MAX, 0, RW), OK);
	cr_assert_eq(map(1, 0, G - 1, G, RW), OK);
	cr_assert_eq(peek(1, UINT64_MAX), 1);
	uint8_t buf[2];

	cr_assert_eq(dma_read(&env.port[1], IOVA(UINT64_MAX), buf, 2), -EFAULT, "no wrap to 0");
	cr_assert_eq(unmap(1, 0, UINT64_MAX), OK);
	cr_assert_eq(peek(1, UINT64_MAX), -1);
	cr_assert_eq(map(1, 0, UINT64_MAX, 0, RW), OK);
	cr_assert_eq(peek(1, 3 * G), 4);
	cr_assert_eq(peek(1, UINT64_MAX), -1);
	cr_assert_eq(unmap(1, 0, UINT64_MAX - 1), RANGE);
	cr_assert_eq(unmap(1, 0, UINT64_MAX), OK);
	cr_assert_eq(peek(1, 3 * G), -1);
}

/* An IOMMU with larger granules than the usual says so and keeps to them. */
Test(domain, spec_3_29_a_granule_of_64k)
{
	const uint64_t g = KIB(64);

	teardown();
	setup_with(&(struct iommu_config){ .granule = g, .address_width = 48 });
	cr_assert_eq(iommu_page_size_mask(env.iommu), ~(g - 1));
	attach(1, 9, 0);
	cr_assert_eq(map(1, G, G + g - 1, 0, RW), RANGE);
	cr_assert_eq(map(1, g, g + G - 1, 0, RW), RANGE);
	cr_assert_eq(map(1, g, 2 * g - 1, G, RW), RANGE);
	cr_assert_eq(peek(1, g), -1);
	cr_assert_eq(map(1, g, 2 * g - 1, 0, RW), OK);
	cr_assert_eq(peek(1, g + 3 * G), 4);
	cr_assert_eq(peek(1, 2 * g), -1);
	cr_assert_eq(unmap(1, g, g + G - 1), RANGE, "a part of the granule");
	cr_assert_eq(unmap(1, g, 2 * g - 1), OK);
	cr_assert_eq(peek(1, g + 3 * G), -1);
}

Test(domain, spec_42_44_45_46_48_probe)
{
	uint8_t p[IOMMU_PROBE_SIZE], zero[IOMMU_PROBE_SIZE] = { 0 };
	struct virtio_iommu_probe_resv_mem mem;

	memset(p, 0xff, sizeof(p));
	cr_assert_eq(iommu_probe(env.iommu, 7, p), NOENT);
	cr_assert_eq(p[0], 0xff);
	cr_assert_eq(iommu_probe(env.iommu, 8, p), OK);
	memcpy(&mem, p, sizeof(mem));
	cr_assert_eq(le16_get(mem.type), 1);
	cr_assert_eq(le16_get(mem.length), 20);
	cr_assert_eq(mem.subtype, 1);
	cr_assert_eq(le64_get(mem.start), MSI_FIRST);
	cr_assert_eq(le64_get(mem.end), MSI_LAST);
	cr_assert_arr_eq(mem.reserved, zero, 3);
	cr_assert_arr_eq(p + 24, zero, sizeof(p) - 24);
	cr_assert_eq(iommu_probe(env.iommu, 9, p), OK);
	cr_assert_arr_eq(p, zero, sizeof(p));
}

Test(domain, spec_50_51_unusable_reserved_regions)
{
	const struct iommu_resv two_msi[] = { { IOMMU_RESV_MSI, 0, 9 },
					      { IOMMU_RESV_MSI, 20, 29 } };
	const struct iommu_resv overlap[] = { { IOMMU_RESV_RESERVED, 20, 29 },
					      { IOMMU_RESV_MSI, 0, 20 } };
	const struct iommu_resv empty = { IOMMU_RESV_MSI, 1, 0 };
	struct dma_view *view;

	cr_assert_eq(iommu_add_endpoint(env.iommu, 1, "a", two_msi, 2, &view, NULL), -EINVAL);
	cr_assert_eq(iommu_add_endpoint(env.iommu, 1, "a", overlap, 2, &view, NULL), -EINVAL);
	cr_assert_eq(iommu_add_endpoint(env.iommu, 1, "a", &empty, 1, &view, NULL), -EINVAL);
	cr_assert_eq(iommu_add_endpoint(env.iommu, 8, "a", NULL, 0, &view, NULL), -EEXIST);
}

Test(domain, spec_52_map_in_a_reserved_region)
{
	attach(1, 8, 0);
	cr_assert_eq(map(1, MSI_FIRST, MSI_FIRST + G - 1, 0, RW | MMIO), INVAL);
	cr_assert_eq(map(1, 0, (1ULL << 32) - 1, 0, RW), INVAL);
	cr_assert_eq(map(1, MSI_LAST + 1 - G, MSI_LAST + G, 0, RW), INVAL);
	cr_assert_eq(map(1, MSI_FIRST - G, MSI_FIRST - 1, 0, RW), OK);
	cr_assert_eq(map(1, MSI_LAST + 1, MSI_LAST + G, 0, RW), OK);
}

Test(domain, spec_53_a_reserved_region_is_never_ram)
{
	const struct iommu_resv resv = { IOMMU_RESV_MSI, 4 * G, 5 * G - 1 };
	struct dma_view *view;
	struct dma_port port;
	uint8_t buf[16];

	cr_assert_eq(iommu_add_endpoint(env.iommu, 1, "a", &resv, 1, &view, NULL), 0);
	dma_port_init(&port, view);
	iommu_set_bypass(env.iommu, true);
	cr_assert_eq(dma_read(&port, IOVA(3 * G), buf, 1), 0);
	cr_assert_eq(dma_read(&port, IOVA(5 * G), buf, 1), 0);
	cr_assert_eq(dma_write(&port, IOVA(4 * G), buf, 1), -EFAULT);
	cr_assert_eq(dma_write(&port, IOVA(5 * G - 1), buf, 2), -EFAULT);
	cr_assert_eq(dma_read(&port, IOVA(4 * G - 8), buf, 16), -EFAULT);
	dma_port_finish(&port);
}

static void expect_fault(enum virtio_iommu_fault_reason reason, uint32_t flags, uint32_t endpoint,
			 uint64_t address)
{
	struct iommu_fault f;

	cr_assert(iommu_take_fault(env.iommu, &f));
	cr_assert_eq(f.reason, reason);
	cr_assert_eq(f.flags, flags | VIRTIO_IOMMU_FAULT_F_ADDRESS);
	cr_assert_eq(f.endpoint, endpoint);
	cr_assert_eq(f.address, address);
}

Test(domain, spec_55_56_faults_say_what_happened)
{
	struct iommu_fault f;

	peek(0, 0x1234);
	expect_fault(VIRTIO_IOMMU_FAULT_R_DOMAIN, VIRTIO_IOMMU_FAULT_F_READ, 8, 0x1234);
	attach(1, 8, 0);
	poke(0, 0x5678);
	expect_fault(VIRTIO_IOMMU_FAULT_R_MAPPING, VIRTIO_IOMMU_FAULT_F_WRITE, 8, 0x5678);
	map(1, 0, G - 1, 0, R);
	poke(0, 0x10);
	expect_fault(VIRTIO_IOMMU_FAULT_R_MAPPING, VIRTIO_IOMMU_FAULT_F_WRITE, 8, 0x10);
	map(1, G, 2 * G - 1, GIB(1), RW);
	peek(0, G);
	expect_fault(VIRTIO_IOMMU_FAULT_R_UNKNOWN, VIRTIO_IOMMU_FAULT_F_READ, 8, G);
	/* The address is that of the hole, not of the buffer's start. */
	uint8_t buf[32];

	dma_read(&env.port[0], IOVA(G - 16), buf, 32);
	expect_fault(VIRTIO_IOMMU_FAULT_R_UNKNOWN, VIRTIO_IOMMU_FAULT_F_READ, 8, G);
	cr_assert_not(iommu_take_fault(env.iommu, &f));
}

Test(domain, spec_59_faults_beyond_the_limit_are_counted)
{
	struct iommu_endpoint_stats stats;
	struct iommu_fault f;
	unsigned n = 0;

	for (unsigned i = 0; i < IOMMU_MAX_FAULTS + 10; i++)
		peek(0, i * G);
	while (iommu_take_fault(env.iommu, &f))
		cr_assert_eq(f.address, n++ * G, "the oldest are kept");
	cr_assert_eq(n, IOMMU_MAX_FAULTS);
	cr_assert(iommu_get_stats(env.iommu, 0, &stats));
	cr_assert_eq(stats.faults, IOMMU_MAX_FAULTS + 10);
	cr_assert_eq(stats.dropped_events, 10);
	cr_assert_str_eq(stats.name, "disk0");
	cr_assert_not(iommu_get_stats(env.iommu, 2, &stats));
}

Test(domain, mapping_limits)
{
	static struct iommu_quota quota = { .max = 5 };

	teardown();
	setup_with(&(struct iommu_config){
		.granule = G, .address_width = 48, .max_domain_mappings = 3, .quota = &quota });
	attach(1, 8, 0);
	attach(2, 9, 0);
	for (uint64_t i = 0; i < 3; i++)
		cr_assert_eq(map(1, i * G, (i + 1) * G - 1, 0, RW), OK);
	cr_assert_eq(map(1, 3 * G, 4 * G - 1, 0, RW), NOMEM);
	cr_assert_eq(map(1, 0, G - 1, 0, RW), INVAL, "what is wrong comes before what is full");
	cr_assert_eq(map(2, 0, G - 1, 0, RW), OK);
	cr_assert_eq(map(2, G, 2 * G - 1, 0, RW), OK);
	cr_assert_eq(map(2, 2 * G, 3 * G - 1, 0, RW), NOMEM);
	unmap(1, 0, G - 1);
	cr_assert_eq(map(2, 2 * G, 3 * G - 1, 0, RW), OK);
	detach(2, 9);
	attach(2, 9, 0);
	cr_assert_eq(map(2, 0, G - 1, 0, RW), OK);
	cr_assert_eq(quota.used, 3);
}

Test(domain, by_default_a_domain_holds_two_to_the_twenty)
{
	struct iommu_memory memory;

	attach(1, 9, 0); /* which has no reserved region */
	for (uint64_t i = 0; i < 1 << 20; i++)
		cr_assert_eq(map(1, 2 * i * G, 2 * i * G + G - 1, 0, R), OK);
	cr_assert_eq(map(1, 1ULL << 40, (1ULL << 40) + G - 1, 0, R), NOMEM);
	iommu_get_memory(env.iommu, &memory);
	cr_assert_eq(memory.live_mappings, 1 << 20);
	cr_assert_leq(memory.bytes, 96ULL << 20);
	/* What is removed is used again: no pattern makes it grow. */
	for (unsigned round = 0; round < 3; round++) {
		for (uint64_t i = round; i < 1 << 20; i += 3)
			cr_assert_eq(unmap(1, 2 * i * G, 2 * i * G + G - 1), OK);
		for (uint64_t i = round; i < 1 << 20; i += 3)
			cr_assert_eq(map(1, 2 * i * G, 2 * i * G + G - 1, 0, R), OK);
	}
	iommu_get_memory(env.iommu, &memory);
	cr_assert_leq(memory.bytes, 96ULL << 20);
	cr_assert_eq(unmap(1, 0, UINT64_MAX), OK);
}

Test(domain, counters_outlive_the_domain)
{
	struct iommu_endpoint_stats ep;
	struct iommu_domain_stats d;

	attach(1, 8, 0);
	map(1, 0, G - 1, 0, RW);
	map(1, G, 2 * G - 1, 0, RW);
	attach(1, 9, 0);
	map(1, 2 * G, 3 * G - 1, 0, RW);
	unmap(1, 0, G - 1);
	cr_assert(iommu_get_domain_stats(env.iommu, 0, &d));
	cr_assert(d.domain == 1 && !d.bypass && d.endpoints == 2);
	cr_assert(d.maps == 3 && d.unmaps == 1 && d.live_mappings == 2);
	cr_assert_not(iommu_get_domain_stats(env.iommu, 1, &d));
	cr_assert_eq(iommu_get_gone_domains(env.iommu, &d), 0);
	detach(1, 8);
	map(1, 3 * G, 4 * G - 1, 0, RW);
	detach(1, 9);
	cr_assert_not(iommu_get_domain_stats(env.iommu, 0, &d));
	cr_assert_eq(iommu_get_gone_domains(env.iommu, &d), 1);
	cr_assert(d.maps == 4 && d.unmaps == 1);
	/* Each has what happened while it was attached. */
	iommu_get_stats(env.iommu, 0, &ep);
	cr_assert(ep.maps == 3 && ep.unmaps == 1 && ep.live_mappings == 0);
	iommu_get_stats(env.iommu, 1, &ep);
	cr_assert(ep.maps == 2 && ep.unmaps == 1 && ep.live_mappings == 0);
}
