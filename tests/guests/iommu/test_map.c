/* MAP: items 14 and 29 to 35, 52. */
#include "tests/guests/iommu/test.h"

#define DOMAIN 1

static bool attached(void)
{
	return iommu_attach(DOMAIN, disks[0].endpoint, 0) == S_OK;
}

static void outside_input_range(void)
{
	uint64_t last = iommu.input_last;

	EXPECT(attached());
	/* The last page of the range, then the first one beyond it. */
	EXPECT_EQ(iommu_map(DOMAIN, last - PAGE + 1, last, 0, MAP_READ), S_OK);
	if (last == UINT64_MAX) {
		skip("input_range is the whole address space");
		return;
	}
	EXPECT(iommu_map(DOMAIN, last + 1, last + PAGE, 0, MAP_READ) != S_OK);
	EXPECT(iommu_map(DOMAIN, UINT64_MAX - PAGE + 1, UINT64_MAX, 0, MAP_READ) != S_OK);
	EXPECT_EQ(iommu_unmap(DOMAIN, last - PAGE + 1, last), S_OK);
	EXPECT(iommu_map(DOMAIN, last - PAGE + 1, last + PAGE, 0, MAP_READ) != S_OK);
	EXPECT(iommu_map(DOMAIN, 0, UINT64_MAX, 0, MAP_READ) != S_OK);
	/* None of these left anything. */
	EXPECT_EQ(iommu_map(DOMAIN, last - PAGE + 1, last, 0, MAP_READ), S_OK);
}

static void outside_input_range_status(void)
{
	uint64_t last = iommu.input_last;

	EXPECT(attached());
	if (last == UINT64_MAX) {
		skip("input_range is the whole address space");
		return;
	}
	EXPECT_EQ(iommu_map(DOMAIN, last + 1, last + PAGE, 0, MAP_READ), S_RANGE);
	EXPECT_EQ(iommu_map(DOMAIN, last - PAGE + 1, last + PAGE, 0, MAP_READ), S_RANGE);
}

static void alignment(void)
{
	uint64_t end = DATA + 4 * PAGE;

	EXPECT(attached());
	if (iommu.granule == 1) {
		skip("the granule is a byte");
		return;
	}
	for (uint64_t off = 1; off < iommu.granule; off *= 2) {
		EXPECT_EQ(iommu_map(DOMAIN, DATA + off, end - 1, PAGE, MAP_RW), S_RANGE);
		EXPECT_EQ(iommu_map(DOMAIN, DATA, end - 1, PAGE + off, MAP_RW), S_RANGE);
		EXPECT_EQ(iommu_map(DOMAIN, DATA, end - 1 - off, PAGE, MAP_RW), S_RANGE);
		EXPECT_EQ(iommu_map(DOMAIN, DATA, end - 1 + off, PAGE, MAP_RW), S_RANGE);
		EXPECT_EQ(iommu_map(DOMAIN, DATA + off, end - 1 + off, PAGE + off, MAP_RW),
			  S_RANGE);
	}
	EXPECT_EQ(iommu_map(DOMAIN, DATA, end, PAGE, MAP_RW), S_RANGE);
	EXPECT_EQ(iommu_map(DOMAIN, DATA, DATA, PAGE, MAP_RW), S_RANGE);
	/* Each of them would have overlapped this. */
	EXPECT_EQ(iommu_map(DOMAIN, DATA, end - 1, PAGE, MAP_RW), S_OK);
	EXPECT_EQ(iommu_unmap(DOMAIN, DATA, end - 1), S_OK);
}

static void empty_ranges(void)
{
	EXPECT(attached());
	EXPECT(iommu_map(DOMAIN, DATA, DATA - 1, PAGE, MAP_RW) != S_OK);
	EXPECT(iommu_map(DOMAIN, DATA + PAGE, DATA - 1, PAGE, MAP_RW) != S_OK);
	EXPECT(iommu_map(DOMAIN, DATA, 0, PAGE, MAP_RW) != S_OK);
	/* The physical range would wrap around. */
	EXPECT(iommu_map(DOMAIN, DATA, DATA + 2 * PAGE - 1, -(uint64_t)PAGE, MAP_RW) != S_OK);
	EXPECT_EQ(iommu_map(DOMAIN, DATA, DATA + 2 * PAGE - 1, PAGE, MAP_RW), S_OK);
}

static void overlap(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(8), other = pages(8);
	/* The mapping has pages 2 to 5. */
	static const struct {
		unsigned first, last;
	} bad[] = {
		{ 2, 5 }, { 2, 2 }, { 5, 5 }, { 3, 4 }, { 0, 2 }, { 5, 7 }, { 0, 7 }, { 1, 5 }
	};

	EXPECT(disk_up(disk, DOMAIN));
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA + 2 * PAGE, memory + 2 * PAGE, 4, MAP_RW), S_OK);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		EXPECT_EQ(iommu_map_pages(DOMAIN, DATA + bad[i].first * PAGE, other,
					  bad[i].last - bad[i].first + 1, MAP_RW),
			  S_INVAL);
	EXPECT_LOADS(disk, DATA + 2 * PAGE, memory + 2 * PAGE);
	EXPECT_LOADS(disk, DATA + 5 * PAGE, memory + 5 * PAGE);
	/* Beside it there is room on both sides. */
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, other, 2, MAP_RW), S_OK);
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA + 6 * PAGE, other + 6 * PAGE, 2, MAP_RW), S_OK);
	EXPECT_LOADS(disk, DATA + PAGE, other + PAGE);
	EXPECT_LOADS(disk, DATA + 6 * PAGE, other + 6 * PAGE);
}

static void overlap_changes_no_permission(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(1);

	EXPECT(disk_up(disk, DOMAIN));
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 1, MAP_READ), S_OK);
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 1, MAP_RW), S_INVAL);
	EXPECT_REFUSES(disk, FAULT_MAPPING, DATA, memory);
}

static void unknown_flags(void)
{
	EXPECT(attached());
	for (unsigned bit = 3; bit < 32; bit++)
		EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, 0, 1, MAP_RW | 1u << bit), S_INVAL);
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, 0, 1, ~0u), S_INVAL);
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, 0, 1, MAP_RW), S_OK);
}

static void mmio_flag(void)
{
	EXPECT(iommu_start(iommu.features & ~F_MMIO));
	EXPECT(attached());
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, 0, 1, MAP_RW | MAP_MMIO), S_INVAL);
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, 0, 1, MAP_MMIO), S_INVAL);
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, 0, 1, MAP_RW), S_OK);
	EXPECT(iommu_start(~0ull & ~F_BYPASS));
	EXPECT(attached());
	if (iommu_has(F_MMIO))
		EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, 0, 1, MAP_RW | MAP_MMIO), S_OK);
}

static void no_domain(void)
{
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, 0, 1, MAP_RW), S_NOENT);
	EXPECT(attached());
	EXPECT_EQ(iommu_map_pages(DOMAIN + 1, DATA, 0, 1, MAP_RW), S_NOENT);
	EXPECT_EQ(iommu_map_pages(DOMAIN + 64, DATA, 0, 1, MAP_RW), S_NOENT);
}

static void bypass_domain(void)
{
	if (!iommu_has(F_BYPASS_CONFIG)) {
		skip("BYPASS_CONFIG isn't offered");
		return;
	}
	EXPECT_EQ(iommu_attach(DOMAIN, disks[0].endpoint, ATTACH_BYPASS), S_OK);
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, 0, 1, MAP_RW), S_INVAL);
}

/* Loads write to memory: never without WRITE. Stores read it. */
static void permissions(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(4);

	EXPECT(disk_up(disk, DOMAIN));
	for (uint32_t flags = 0; flags <= MAP_RW; flags++)
		EXPECT_EQ(iommu_map_pages(DOMAIN, DATA + flags * PAGE, memory + flags * PAGE, 1,
					  flags),
			  S_OK);
	EXPECT_REFUSES(disk, FAULT_MAPPING, DATA, memory);
	EXPECT_REFUSES(disk, FAULT_MAPPING, DATA + MAP_READ * PAGE, memory + MAP_READ * PAGE);
	EXPECT_LOADS(disk, DATA + MAP_WRITE * PAGE, memory + MAP_WRITE * PAGE);
	EXPECT_LOADS(disk, DATA + MAP_RW * PAGE, memory + MAP_RW * PAGE);
	disk_fill_pattern(disk, 8, phys(memory + MAP_READ * PAGE), PAGE);
	EXPECT_EQ(disk_io(disk, DISK_STORE, 8, DATA + MAP_READ * PAGE, PAGE), IO_OK);
	EXPECT_EQ(disk_io(disk, DISK_STORE, 8, DATA + MAP_RW * PAGE, PAGE), IO_OK);
	EXPECT_REFUSED(disk_io(disk, DISK_STORE, SCRATCH_SECTOR, DATA, PAGE));
	EXPECT_FAULT(disk, FAULT_MAPPING, FAULT_F_READ, DATA);
}

static void write_only(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(1);

	EXPECT(disk_up(disk, DOMAIN));
	EXPECT_EQ(iommu_map_pages(DOMAIN, FAR, memory, 1, MAP_RW), S_OK);
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 1, MAP_WRITE), S_OK);
	disk_fill_pattern(disk, SCRATCH_SECTOR, phys(memory), PAGE);
	EXPECT_EQ(disk_io(disk, DISK_STORE, SCRATCH_SECTOR, FAR, PAGE), IO_OK);
	memset(phys(memory), UNTOUCHED, PAGE);
	EXPECT_REFUSED(disk_io(disk, DISK_STORE, SCRATCH_SECTOR, DATA, PAGE));
	EXPECT_FAULT(disk, FAULT_MAPPING, FAULT_F_READ, DATA);
	/* What was on the disk is still there. */
	EXPECT_EQ(disk_io(disk, DISK_LOAD, SCRATCH_SECTOR, FAR, PAGE), IO_OK);
	EXPECT(disk_pattern_at(disk, SCRATCH_SECTOR, phys(memory), PAGE));
}

static void translation(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(16);

	EXPECT(disk_up(disk, DOMAIN));
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 16, MAP_RW), S_OK);
	for (unsigned i = 0; i < 16; i++) {
		uint64_t offset = i * (PAGE + 37);

		memset(phys(memory), UNTOUCHED, 16 * PAGE);
		EXPECT_EQ(disk_io(disk, DISK_LOAD, i, DATA + offset, SECTOR), IO_OK);
		EXPECT(disk_pattern_at(disk, i, phys(memory + offset), SECTOR));
		EXPECT(all_bytes(phys(memory), UNTOUCHED, offset));
		EXPECT(all_bytes(phys(memory + offset + SECTOR), UNTOUCHED,
				 16 * PAGE - offset - SECTOR));
	}
}

/* Attached before the MAP, or after it: the same mapping, the same memory. */
static void now_or_later(void)
{
	uint64_t memory = pages(1);

	if (num_disks < 2) {
		skip("there is one disk only");
		return;
	}
	EXPECT(disk_up(&disks[0], DOMAIN));
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 1, MAP_RW), S_OK);
	EXPECT_LOADS(&disks[0], DATA, memory);
	EXPECT(disk_up(&disks[1], DOMAIN));
	EXPECT_LOADS(&disks[1], DATA, memory);
	EXPECT_EQ(iommu_map_pages(DOMAIN, FAR, memory, 1, MAP_RW), S_OK);
	EXPECT_LOADS(&disks[0], FAR, memory);
	EXPECT_LOADS(&disks[1], FAR, memory);
}

/* A mapping that was absent a moment ago is there at once: nothing negative is remembered. */
static void map_after_a_fault(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(1);

	EXPECT(disk_up(disk, DOMAIN));
	EXPECT_REFUSES(disk, FAULT_MAPPING, DATA, memory);
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 1, MAP_RW), S_OK);
	EXPECT_LOADS(disk, DATA, memory);
}

/* The same range in two domains, of two endpoints. */
static void domains_are_apart(void)
{
	uint64_t memory[2] = { pages(1), pages(1) };

	if (num_disks < 2) {
		skip("there is one disk only");
		return;
	}
	for (unsigned i = 0; i < 2; i++) {
		EXPECT(disk_up(&disks[i], DOMAIN + i));
		EXPECT_EQ(iommu_map_pages(DOMAIN + i, DATA, memory[i], 1, MAP_RW), S_OK);
	}
	EXPECT_LOADS(&disks[0], DATA, memory[0]);
	EXPECT_LOADS(&disks[1], DATA, memory[1]);
	EXPECT(disk_pattern_at(&disks[0], 8, phys(memory[0]), PAGE));
	EXPECT_EQ(iommu_unmap_pages(DOMAIN, DATA, 1), S_OK);
	EXPECT_REFUSES(&disks[0], FAULT_MAPPING, DATA, memory[0]);
	EXPECT_LOADS(&disks[1], DATA, memory[1]);
}

static void whole_address_space(void)
{
	struct disk *disk = &disks[0];
	struct resv resv[1];

	EXPECT(attached());
	if (iommu_has(F_PROBE) && iommu_probe(disk->endpoint) == S_OK && iommu_reserved(resv, 1)) {
		/* From behind the last reserved region to the end. */
		EXPECT_EQ(iommu_map(DOMAIN, 1ull << 32, iommu.input_last, 0, MAP_RW), S_OK);
		EXPECT_EQ(iommu_unmap(DOMAIN, 0, UINT64_MAX), S_OK);
		EXPECT_EQ(iommu_map(DOMAIN, 1ull << 32, iommu.input_last, 0, MAP_RW), S_OK);
		return;
	}
	EXPECT_EQ(iommu_map(DOMAIN, 0, iommu.input_last, 0, MAP_RW), S_OK);
}

const struct test map_tests[] = {
	{ "spec 14: MAP outside input_range fails", outside_input_range },
	{ "moat: MAP outside input_range is RANGE", outside_input_range_status },
	{ "spec 29: MAP off the granule is RANGE", alignment },
	{ "moat: MAP of an empty or impossible range fails", empty_ranges },
	{ "spec 30: MAP over a mapping is INVAL, beside it is fine", overlap },
	{ "spec 30: a refused MAP doesn't change the mapping", overlap_changes_no_permission },
	{ "spec 31: MAP with an unknown flag is INVAL", unknown_flags },
	{ "spec 31: MAP with MMIO is INVAL when it isn't negotiated", mmio_flag },
	{ "spec 32: MAP in no domain is NOENT", no_domain },
	{ "spec 33: MAP in a bypass domain is INVAL", bypass_domain },
	{ "spec 34: no write without WRITE, no access without either", permissions },
	{ "moat: no read through a WRITE-only mapping", write_only },
	{ "spec 35: an access reaches VA - virt_start + phys_start", translation },
	{ "spec 35: a mapping serves endpoints attached before and after it", now_or_later },
	{ "spec 35: a mapping serves at once what faulted before it", map_after_a_fault },
	{ "spec 35: domains are apart", domains_are_apart },
	{ "core: a mapping as large as the address space", whole_address_space },
	{ NULL, NULL },
};
