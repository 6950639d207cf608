/* The same device with fewer features, negotiated anew at each device reset. */
#include "tests/guests/iommu/test.h"

#define DOMAIN 1

/* A driver's session that needs no more than MAP_UNMAP. */
static bool session_works(void)
{
	uint32_t endpoint = disks[0].endpoint;

	return iommu_attach(DOMAIN, endpoint, 0) == S_OK &&
	       iommu_map_pages(DOMAIN, DATA, 0, 2, MAP_READ) == S_OK &&
	       iommu_map_pages(DOMAIN, DATA + PAGE, 0, 1, MAP_READ) == S_INVAL &&
	       iommu_unmap_pages(DOMAIN, DATA, 1) == S_RANGE &&
	       iommu_unmap_pages(DOMAIN, DATA, 2) == S_OK && iommu_detach(DOMAIN, endpoint) == S_OK;
}

static void subsets_of_features(void)
{
	static const uint64_t optional[] = { F_INPUT_RANGE,   F_DOMAIN_RANGE,  F_PROBE,	   F_MMIO,
					     F_BYPASS_CONFIG, F_INDIRECT_DESC, F_EVENT_IDX };

	const unsigned all = (1u << ARRAY_SIZE(optional)) - 1;

	/* Two neighbours, one, all but one, all but two: 28 negotiations instead of 128. */
	for (unsigned i = 0; i < 4 * ARRAY_SIZE(optional); i++) {
		unsigned bit = i / 4;
		const unsigned subsets[] = { bit ? 3u << bit & all : 0, 1u << bit,
					     all & ~(1u << bit), all & ~(3u << bit) };
		uint64_t features = F_MAP_UNMAP;

		for (unsigned j = 0; j < ARRAY_SIZE(optional); j++) {
			if (subsets[i % 4] & 1u << j)
				features |= optional[j];
		}
		pages_reset();
		REQUIRE(iommu_start(features));
		if (!session_works())
			EXPECT_EQ(subsets[i % 4], -1);
	}
}

static void without_map_unmap(void)
{
	EXPECT(iommu_start(iommu.features & ~F_MAP_UNMAP));
	EXPECT_EQ(iommu_attach(DOMAIN, disks[0].endpoint, 0), S_OK);
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, 0, 1, MAP_READ), S_UNWRITTEN);
	EXPECT_EQ(iommu_unmap_pages(DOMAIN, DATA, 1), S_UNWRITTEN);
	EXPECT_EQ(iommu_detach(DOMAIN, disks[0].endpoint), S_OK);
}

static void without_bypass_config(void)
{
	if (!iommu_has(F_BYPASS_CONFIG)) {
		skip("BYPASS_CONFIG isn't offered");
		return;
	}
	EXPECT(iommu_start(iommu.features & ~F_BYPASS_CONFIG));
	iommu_set_bypass(1);
	EXPECT_EQ(iommu_get_bypass(), 0);
	EXPECT_EQ(iommu_attach(DOMAIN, disks[0].endpoint, ATTACH_BYPASS), S_INVAL);
	EXPECT_EQ(iommu_attach(DOMAIN, disks[0].endpoint, 0), S_OK);
}

/* The ranges are what the device offers, whatever the driver takes of it. */
static void without_input_range(void)
{
	uint64_t last = iommu.input_last;

	EXPECT(iommu_start(iommu.features & ~(F_INPUT_RANGE | F_DOMAIN_RANGE)));
	EXPECT_EQ(iommu_attach(DOMAIN, disks[0].endpoint, 0), S_OK);
	if (last != UINT64_MAX)
		EXPECT(iommu_map(DOMAIN, last + 1, last + PAGE, 0, MAP_READ) != S_OK);
	EXPECT_EQ(iommu_map(DOMAIN, last - PAGE + 1, last, 0, MAP_READ), S_OK);
}

/* The queue's own features, with faults and I/O too: the events' ring, the disks' rings. */
static void plain_rings(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory;

	EXPECT(iommu_start(iommu.features & ~(F_EVENT_IDX | F_INDIRECT_DESC)));
	iommu_post_events(NUM_EVENTS, FAULT_SIZE);
	memory = pages(1);
	EXPECT(disk_up(disk, DOMAIN));
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 1, MAP_RW), S_OK);
	for (unsigned i = 0; i < NUM_EVENTS; i++) {
		EXPECT_LOADS(disk, DATA, memory);
		EXPECT_REFUSES(disk, FAULT_MAPPING, FAR + i * PAGE, 0);
	}
}

const struct test feature_tests[] = {
	{ "core: subsets of the optional features", subsets_of_features },
	{ "core: rings without EVENT_IDX and INDIRECT_DESC", plain_rings },
	{ "spec 14: input_range holds also when it isn't negotiated", without_input_range },
	{ "moat: MAP and UNMAP without MAP_UNMAP are unknown requests", without_map_unmap },
	{ "moat: without BYPASS_CONFIG bypass can't be changed or used", without_bypass_config },
	{ NULL, NULL },
};
