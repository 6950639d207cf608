/* Features and configuration space: items 1 to 7 of the checklist. */
#include "tests/guests/iommu/test.h"
#include "tests/guests/arch.h"

static void offers_map_unmap(void)
{
	EXPECT(vdev_offered(&iommu.dev) & F_MAP_UNMAP);
}

static void offers_no_old_bypass(void)
{
	EXPECT(!(vdev_offered(&iommu.dev) & F_BYPASS));
}

static void has_page_sizes(void)
{
	EXPECT(vdev_config64(&iommu.dev, CONFIG_PAGE_SIZE_MASK) != 0);
}

static void bypass_initial(void)
{
	EXPECT_EQ(iommu.initial_bypass, has_word(arch_cmdline(), "bypass"));
}

static void bypass_over_device_reset(void)
{
	if (!iommu_has(F_BYPASS_CONFIG)) {
		skip("BYPASS_CONFIG isn't offered");
		return;
	}
	for (uint8_t bypass = 0; bypass <= 1; bypass++) {
		iommu_set_bypass(bypass);
		EXPECT_EQ(iommu_get_bypass(), bypass);
		EXPECT(vdev_reset(&iommu.dev));
		EXPECT_EQ(iommu_get_bypass(), bypass);
		EXPECT(iommu_start(iommu.features));
		EXPECT_EQ(iommu_get_bypass(), bypass);
	}
}

static void bypass_reads_0_or_1(void)
{
	static const uint8_t values[] = { 2, 3, 0x80, 0xfe, 0xff };

	if (!iommu_has(F_BYPASS_CONFIG)) {
		skip("BYPASS_CONFIG isn't offered");
		return;
	}
	for (uint8_t start = 0; start <= 1; start++) {
		for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
			iommu_set_bypass(start);
			iommu_set_bypass(values[i]);
			EXPECT(iommu_get_bypass() <= 1);
		}
	}
	/* Accesses of another width than the field's, which no driver may make. */
	vdev_write_config32(&iommu.dev, CONFIG_BYPASS, 0xffffff02);
	EXPECT(iommu_get_bypass() <= 1);
	EXPECT((vdev_config32(&iommu.dev, CONFIG_BYPASS) & 0xff) <= 1);
}

/* Only for the machine that starts with bypass: with the feature declined, and with no driver. */
static void initial_bypass_needs_no_driver(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory;

	if (!iommu.initial_bypass) {
		skip("bypass is initially 0");
		return;
	}
	iommu_set_bypass(1);
	EXPECT(iommu_start(iommu.features & ~F_BYPASS_CONFIG));
	memory = pages(1);
	disk_place(disk);
	EXPECT(disk_start(disk));
	EXPECT_LOADS(disk, memory, memory);
	EXPECT(vdev_reset(&iommu.dev));
	EXPECT_LOADS(disk, memory, memory);
}

static void device_reset_forgets_domains(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(1);

	EXPECT(disk_up(disk, 7));
	EXPECT_EQ(iommu_map_pages(7, DATA, memory, 1, MAP_RW), S_OK);
	EXPECT_LOADS(disk, DATA, memory);
	EXPECT(vdev_reset(&iommu.dev));
	EXPECT(iommu_start(iommu.features));
	iommu_post_events(NUM_EVENTS, FAULT_SIZE);
	/* The disk still runs, but has no access: to its ring to begin with. */
	disk_submit(disk, DISK_FLUSH, 0, NULL, 0);
	EXPECT_EQ(disk_outcome(disk, QUIET_MS) == IO_OK, false);
	EXPECT_FAULT(disk, FAULT_DOMAIN, FAULT_F_READ, disk->ring.desc.iova);
	/* The domain is gone, and its ID makes a new and empty one. */
	EXPECT_EQ(iommu_map_pages(7, FAR, memory, 1, MAP_RW), S_NOENT);
	EXPECT_EQ(iommu_unmap_pages(7, DATA, 1), S_NOENT);
	EXPECT(disk_up(disk, 7));
	EXPECT_REFUSES(disk, FAULT_MAPPING, DATA, memory);
	EXPECT_EQ(iommu_map_pages(7, DATA, memory, 1, MAP_RW), S_OK);
	EXPECT_LOADS(disk, DATA, memory);
}

static void page_sizes_from_the_granule_up(void)
{
	EXPECT_EQ(iommu.page_mask, ~(iommu.granule - 1));
}

/* Linux detaches from domain 0 and takes the first domain for bypass. */
static void ranges_are_whole(void)
{
	EXPECT(iommu_has(F_INPUT_RANGE));
	EXPECT_EQ(iommu.input_first, 0);
	EXPECT(iommu.input_last >= UINT32_MAX);
	EXPECT(iommu_has(F_DOMAIN_RANGE));
	EXPECT_EQ(vdev_config32(&iommu.dev, CONFIG_DOMAIN_START), 0);
	EXPECT_EQ(vdev_config32(&iommu.dev, CONFIG_DOMAIN_END), UINT32_MAX);
	EXPECT_EQ(iommu_attach(0, disks[0].endpoint, 0), S_OK);
	EXPECT_EQ(iommu_attach(UINT32_MAX, disks[0].endpoint, 0), S_OK);
	EXPECT_EQ(iommu_map_pages(UINT32_MAX, DATA, pages(1), 1, MAP_READ), S_OK);
}

static void other_fields_are_read_only(void)
{
	for (unsigned at = 0; at < CONFIG_BYPASS; at += 4) {
		uint32_t old = vdev_config32(&iommu.dev, at);

		vdev_write_config32(&iommu.dev, at, ~old);
		EXPECT_EQ(vdev_config32(&iommu.dev, at), old);
	}
	EXPECT_EQ(vdev_config32(&iommu.dev, CONFIG_BYPASS) >> 8, 0);
}

const struct test config_tests[] = {
	{ "spec 1: MAP_UNMAP is offered", offers_map_unmap },
	{ "spec 2: the superseded BYPASS isn't offered", offers_no_old_bypass },
	{ "spec 3: page_size_mask has a bit", has_page_sizes },
	{ "spec 4: bypass is initially what the machine was told", bypass_initial },
	{ "spec 4: a device reset leaves bypass as it is", bypass_over_device_reset },
	{ "spec 5: bypass only ever reads 0 or 1", bypass_reads_0_or_1 },
	{ "spec 6: an initial bypass applies without BYPASS_CONFIG, and without a driver",
	  initial_bypass_needs_no_driver },
	{ "spec 7: a device reset leaves no attachment and no domain",
	  device_reset_forgets_domains },
	{ "moat: page_size_mask has every size from the granule up",
	  page_sizes_from_the_granule_up },
	{ "moat: domain_range is everything, input_range starts at 0", ranges_are_whole },
	{ "moat: config fields except bypass are read-only", other_fields_are_read_only },
	{ NULL, NULL },
};

static void left_bypass(void)
{
	EXPECT_EQ(iommu_get_bypass(), has_word(arch_cmdline(), "bypass"));
}

static void left_registers(void)
{
	EXPECT_EQ(vdev_status(&iommu.dev), 0);
	for (unsigned queue = 0; queue < 2; queue++)
		EXPECT(!iommu.dev.transport->queue_enabled(&iommu.dev, queue));
	for (unsigned i = 0; i < num_disks; i++) {
		EXPECT_EQ(vdev_status(&disks[i].dev), 0);
		EXPECT(!disks[i].dev.transport->queue_enabled(&disks[i].dev, 0));
	}
}

/* No fresh(): what the IOMMU lets through before a driver touches anything. */
static void left_access(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(1);

	disk_place(disk);
	EXPECT(disk_start(disk));
	if (has_word(arch_cmdline(), "bypass")) {
		EXPECT_LOADS(disk, memory, memory);
	} else {
		disk_submit(disk, DISK_FLUSH, 0, NULL, 0);
		EXPECT(disk_outcome(disk, QUIET_MS) != IO_OK);
	}
}

static void left_domains(void)
{
	EXPECT(fresh());
	EXPECT_EQ(iommu_map_pages(7, FAR, pages(1), 1, MAP_RW), S_NOENT);
	EXPECT_EQ(iommu_detach(7, disks[0].endpoint) == S_OK, false);
	EXPECT(disk_up(&disks[0], 7));
	EXPECT_REFUSES(&disks[0], FAULT_MAPPING, DATA, 0);
}

void prepare_system_reset(void)
{
	uint64_t memory = pages(1);

	if (iommu_has(F_BYPASS_CONFIG))
		iommu_set_bypass(!iommu.initial_bypass);
	disk_up(&disks[0], 7);
	iommu_map_pages(7, DATA, memory, 1, MAP_RW);
	loads(&disks[0], DATA, memory);
}

const struct test reset_tests[] = {
	{ "spec 4: a system reset restores the initial bypass", left_bypass },
	{ "core: a system reset leaves every device in its initial state", left_registers },
	{ "spec 4: access after a system reset is as bypass says", left_access },
	{ "spec 7: a system reset leaves no attachment and no domain", left_domains },
	{ NULL, NULL },
};
