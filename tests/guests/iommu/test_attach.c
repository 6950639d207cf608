/* ATTACH and DETACH: items 15 to 28, the life of a domain. */
#include "tests/guests/iommu/test.h"

static bool two_disks(void)
{
	if (num_disks < 2)
		skip("there is one disk only");
	return num_disks >= 2;
}

static bool bypass_domains(void)
{
	if (!iommu_has(F_BYPASS_CONFIG))
		skip("BYPASS_CONFIG isn't offered");
	return iommu_has(F_BYPASS_CONFIG);
}

static void attach_reserved(void)
{
	for (unsigned i = 16; i < ATTACH_SIZE; i++) {
		fill_attach(iommu.request, 1, disks[0].endpoint, 0);
		iommu.request[i] = 1;
		EXPECT_EQ(iommu_request(ATTACH_SIZE), S_INVAL);
	}
	/* Nothing was attached. */
	EXPECT_EQ(iommu_map_pages(1, DATA, 0, 1, MAP_READ), S_NOENT);
}

static void attach_flags(void)
{
	for (unsigned bit = 1; bit < 32; bit++)
		EXPECT_EQ(iommu_attach(1, disks[0].endpoint, 1u << bit), S_INVAL);
	EXPECT_EQ(iommu_attach(1, disks[0].endpoint, ~ATTACH_BYPASS), S_INVAL);
	EXPECT_EQ(iommu_attach(1, disks[0].endpoint, ~0u), S_INVAL);
	EXPECT_EQ(iommu_map_pages(1, DATA, 0, 1, MAP_READ), S_NOENT);
}

static void attach_unknown_endpoint(void)
{
	EXPECT_EQ(iommu_attach(1, no_endpoint(), 0), S_NOENT);
	EXPECT_EQ(iommu_attach(1, UINT32_MAX, 0), S_NOENT);
	EXPECT_EQ(iommu_attach(1, disks[0].endpoint ^ 0x80000000, 0), S_NOENT);
	EXPECT_EQ(iommu_map_pages(1, DATA, 0, 1, MAP_READ), S_NOENT);
}

static void attach_together(void)
{
	uint64_t memory = pages(1);

	if (!two_disks())
		return;
	EXPECT(disk_up(&disks[0], 1));
	EXPECT_EQ(iommu_map_pages(1, DATA, memory, 1, MAP_RW), S_OK);

	enum status status = iommu_attach(1, disks[1].endpoint, 0);

	if (status == S_UNSUPP) {
		skip("this device doesn't let endpoints share a domain");
		return;
	}
	EXPECT_EQ(status, S_OK);
	EXPECT(disk_up(&disks[1], 1));
	for (unsigned i = 0; i < 2; i++)
		EXPECT_LOADS(&disks[i], DATA, memory);
	/* One leaves, the other stays. */
	EXPECT_EQ(iommu_detach(1, disks[1].endpoint), S_OK);
	EXPECT_LOADS(&disks[0], DATA, memory);
}

static void attach_other_kind(void)
{
	if (!two_disks() || !bypass_domains())
		return;
	EXPECT_EQ(iommu_attach(1, disks[0].endpoint, 0), S_OK);
	EXPECT_EQ(iommu_attach(1, disks[1].endpoint, ATTACH_BYPASS), S_INVAL);
	EXPECT_EQ(iommu_attach(1, disks[0].endpoint, ATTACH_BYPASS), S_INVAL);
	EXPECT_EQ(iommu_attach(2, disks[1].endpoint, ATTACH_BYPASS), S_OK);
	EXPECT_EQ(iommu_attach(2, disks[0].endpoint, 0), S_INVAL);
	EXPECT_EQ(iommu_attach(2, disks[1].endpoint, 0), S_INVAL);
	/* A refused ATTACH doesn't detach. */
	EXPECT_EQ(iommu_detach(1, disks[0].endpoint), S_OK);
	EXPECT_EQ(iommu_detach(2, disks[1].endpoint), S_OK);
}

static void attach_elsewhere(void)
{
	struct disk *disk = &disks[0];
	uint64_t first = pages(1), second = pages(1);

	EXPECT(disk_up(disk, 1));
	EXPECT_EQ(iommu_map_pages(1, DATA, first, 1, MAP_RW), S_OK);
	EXPECT_LOADS(disk, DATA, first);
	EXPECT_EQ(iommu_attach(2, disk->endpoint, 0), S_OK);
	EXPECT(disk_map_own(disk, 2));
	EXPECT_EQ(iommu_map_pages(2, FAR, second, 1, MAP_RW), S_OK);
	EXPECT_LOADS(disk, FAR, second);
	EXPECT_REFUSES(disk, FAULT_MAPPING, DATA, first);
	/* It was the last one in its old domain. */
	EXPECT_EQ(iommu_unmap_pages(1, DATA, 1), S_NOENT);
}

static void attach_same_again(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(1);

	EXPECT(disk_up(disk, 1));
	EXPECT_EQ(iommu_map_pages(1, DATA, memory, 1, MAP_RW), S_OK);
	EXPECT_EQ(iommu_attach(1, disk->endpoint, 0), S_OK);
	EXPECT_LOADS(disk, DATA, memory);
	EXPECT_EQ(iommu_detach(1, disk->endpoint), S_OK);
	EXPECT_EQ(iommu_unmap_pages(1, DATA, 1), S_NOENT);
}

/* Endpoints with the same reserved regions are compatible, mappings or not. */
static void attach_compatible(void)
{
	if (!two_disks())
		return;
	for (unsigned i = 0; i < num_disks; i++) {
		EXPECT_EQ(iommu_attach(1, disks[i].endpoint, 0), S_OK);
		EXPECT_EQ(iommu_map_pages(1, DATA + i * PAGE, 0, 1, MAP_READ), S_OK);
	}
}

static void attached_if_not_rejected(void)
{
	static const uint32_t domains[] = { 1, 0, 0x7fffffff, UINT32_MAX, 1 };
	struct disk *disk = &disks[0];
	uint64_t memory = pages(1);

	for (unsigned i = 0; i < ARRAY_SIZE(domains); i++) {
		EXPECT(disk_up(disk, domains[i]));
		EXPECT_EQ(iommu_map_pages(domains[i], DATA, memory, 1, MAP_RW), S_OK);
		EXPECT_LOADS(disk, DATA, memory);
	}
	/* Rejected ones change nothing. */
	EXPECT_EQ(iommu_attach(5, disk->endpoint, 0x10), S_INVAL);
	EXPECT_EQ(iommu_attach(5, no_endpoint(), 0), S_NOENT);
	EXPECT_LOADS(disk, DATA, memory);
}

static void attach_creates(void)
{
	EXPECT_EQ(iommu_map_pages(9, DATA, 0, 1, MAP_READ), S_NOENT);
	EXPECT_EQ(iommu_unmap_pages(9, DATA, 1), S_NOENT);
	EXPECT_EQ(iommu_attach(9, disks[0].endpoint, 0), S_OK);
	EXPECT_EQ(iommu_map_pages(9, DATA, 0, 1, MAP_READ), S_OK);
	EXPECT_EQ(iommu_unmap_pages(9, DATA, 1), S_OK);
}

static void detach_reserved(void)
{
	for (unsigned i = 12; i < DETACH_SIZE; i++) {
		EXPECT_EQ(iommu_attach(1, disks[0].endpoint, 0), S_OK);
		fill_detach(iommu.request, 1, disks[0].endpoint);
		iommu.request[i] = 0xff;
		EXPECT_EQ(iommu_request(DETACH_SIZE), S_OK);
		EXPECT_EQ(iommu_map_pages(1, DATA, 0, 1, MAP_READ), S_NOENT);
	}
}

static void detach_unknown_endpoint(void)
{
	EXPECT_EQ(iommu_attach(1, disks[0].endpoint, 0), S_OK);
	EXPECT_EQ(iommu_detach(1, no_endpoint()), S_NOENT);
	EXPECT_EQ(iommu_detach(2, no_endpoint()), S_NOENT);
	EXPECT_EQ(iommu_detach(1, disks[0].endpoint), S_OK);
}

/* A device may answer as it likes; what it may not is to detach. */
static void detach_elsewhere(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(1);

	iommu_detach(1, disk->endpoint);
	EXPECT(disk_up(disk, 1));
	EXPECT_EQ(iommu_map_pages(1, DATA, memory, 1, MAP_RW), S_OK);
	iommu_detach(2, disk->endpoint);
	EXPECT_LOADS(disk, DATA, memory);
	if (num_disks > 1) {
		EXPECT_EQ(iommu_attach(2, disks[1].endpoint, 0), S_OK);
		iommu_detach(2, disk->endpoint);
		EXPECT_LOADS(disk, DATA, memory);
	}
}

static void detach_elsewhere_status(void)
{
	EXPECT_EQ(iommu_detach(1, disks[0].endpoint), S_INVAL);
	EXPECT_EQ(iommu_attach(1, disks[0].endpoint, 0), S_OK);
	EXPECT_EQ(iommu_detach(2, disks[0].endpoint), S_INVAL);
	EXPECT_EQ(iommu_detach(1, disks[0].endpoint), S_OK);
	EXPECT_EQ(iommu_detach(1, disks[0].endpoint), S_INVAL);
}

static void detach_ends_access(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(1);

	EXPECT(disk_up(disk, 1));
	EXPECT_EQ(iommu_map_pages(1, DATA, memory, 1, MAP_RW), S_OK);
	EXPECT_LOADS(disk, DATA, memory);
	EXPECT_EQ(iommu_detach(1, disk->endpoint), S_OK);
	memset(phys(memory), UNTOUCHED, PAGE);

	const struct seg seg = { .addr = DATA, .len = PAGE };

	disk_submit(disk, DISK_LOAD, 8, &seg, 1);
	EXPECT_FAULT(disk, FAULT_DOMAIN, FAULT_F_READ, disk->ring.desc.iova);
	EXPECT(disk_outcome(disk, QUIET_MS) != IO_OK);
	EXPECT(all_bytes(phys(memory), UNTOUCHED, PAGE));
}

static void last_detach_destroys(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(1);

	EXPECT(disk_up(disk, 3));
	EXPECT_EQ(iommu_map_pages(3, DATA, memory, 1, MAP_RW), S_OK);
	EXPECT_EQ(iommu_detach(3, disk->endpoint), S_OK);
	EXPECT_EQ(iommu_map_pages(3, FAR, memory, 1, MAP_RW), S_NOENT);
	EXPECT_EQ(iommu_unmap_pages(3, DATA, 1), S_NOENT);
	EXPECT(disk_up(disk, 3));
	EXPECT_REFUSES(disk, FAULT_MAPPING, DATA, memory);
	/* It isn't only inaccessible: the range is free. */
	EXPECT_EQ(iommu_map_pages(3, DATA, memory, 1, MAP_RW), S_OK);
	EXPECT_LOADS(disk, DATA, memory);
}

static void freed_id_of_the_other_kind(void)
{
	if (!bypass_domains())
		return;
	EXPECT_EQ(iommu_attach(3, disks[0].endpoint, 0), S_OK);
	EXPECT_EQ(iommu_detach(3, disks[0].endpoint), S_OK);
	EXPECT_EQ(iommu_attach(3, disks[0].endpoint, ATTACH_BYPASS), S_OK);
	EXPECT_EQ(iommu_detach(3, disks[0].endpoint), S_OK);
	EXPECT_EQ(iommu_attach(3, disks[0].endpoint, 0), S_OK);
}

static void domain_lives_with_its_endpoints(void)
{
	uint64_t memory = pages(1);

	if (!two_disks())
		return;
	EXPECT(disk_up(&disks[0], 1));
	EXPECT(disk_up(&disks[1], 1));
	EXPECT_EQ(iommu_map_pages(1, DATA, memory, 1, MAP_RW), S_OK);
	EXPECT_EQ(iommu_detach(1, disks[0].endpoint), S_OK);
	EXPECT_LOADS(&disks[1], DATA, memory);
	EXPECT_EQ(iommu_attach(1, disks[0].endpoint, 0), S_OK);
	EXPECT_LOADS(&disks[0], DATA, memory);
	EXPECT_EQ(iommu_detach(1, disks[1].endpoint), S_OK);
	EXPECT_EQ(iommu_detach(1, disks[0].endpoint), S_OK);
	EXPECT_EQ(iommu_unmap_pages(1, DATA, 1), S_NOENT);
}

static void many_lives(void)
{
	for (uint32_t i = 0; i < 70; i++) {
		uint32_t domain = i * 0x01000193u;

		EXPECT_EQ(iommu_attach(domain, disks[0].endpoint, 0), S_OK);
		EXPECT_EQ(iommu_map_pages(domain, DATA, 0, 1, MAP_READ), S_OK);
		if (i % 3)
			EXPECT_EQ(iommu_detach(domain, disks[0].endpoint), S_OK);
	}
}

const struct test attach_tests[] = {
	{ "spec 15: ATTACH with a reserved byte set is INVAL", attach_reserved },
	{ "spec 16: ATTACH with an unknown flag is INVAL", attach_flags },
	{ "spec 17: ATTACH of an unknown endpoint is NOENT", attach_unknown_endpoint },
	{ "spec 18: endpoints share a domain", attach_together },
	{ "spec 19: ATTACH to a domain of the other kind is INVAL", attach_other_kind },
	{ "spec 20: ATTACH elsewhere detaches first", attach_elsewhere },
	{ "moat: ATTACH to the same domain again changes nothing", attach_same_again },
	{ "spec 21: endpoints with the same properties share a domain", attach_compatible },
	{ "spec 22: an ATTACH that isn't rejected attaches", attached_if_not_rejected },
	{ "spec 23: ATTACH creates the domain", attach_creates },
	{ "spec 24: DETACH ignores its reserved bytes", detach_reserved },
	{ "spec 25: DETACH of an unknown endpoint is NOENT", detach_unknown_endpoint },
	{ "spec 26: DETACH from another domain leaves the endpoint attached", detach_elsewhere },
	{ "moat: DETACH from another domain is INVAL", detach_elsewhere_status },
	{ "spec 27: no access through a domain after DETACH", detach_ends_access },
	{ "spec 28: the last DETACH destroys the domain and its mappings", last_detach_destroys },
	{ "spec 28: a freed domain ID is free for either kind", freed_id_of_the_other_kind },
	{ "spec 28: a domain lives as long as one endpoint is attached",
	  domain_lives_with_its_endpoints },
	{ "spec 28: many domains, one after another", many_lives },
	{ NULL, NULL },
};
