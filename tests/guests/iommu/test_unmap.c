/* UNMAP: items 36 to 40. */
#include "tests/guests/iommu/test.h"

#define DOMAIN 1

static bool attached(void)
{
	return iommu_attach(DOMAIN, disks[0].endpoint, 0) == S_OK;
}

/* map(first, last) and unmap(first, last) of the specification, in pages. */
static enum status map(unsigned first, unsigned last)
{
	return iommu_map_pages(DOMAIN, DATA + first * PAGE, first * PAGE, last - first + 1, MAP_RW);
}

static enum status unmap(unsigned first, unsigned last)
{
	return iommu_unmap_pages(DOMAIN, DATA + first * PAGE, last - first + 1);
}

/* Whether a mapping covers page @page: another one can't be made there then. */
static bool mapped(unsigned page)
{
	if (map(page, page) != S_OK)
		return true;
	EXPECT_EQ(unmap(page, page), S_OK);
	return false;
}

/* Are pages @first to @last all mapped, or all not? */
static bool all_mapped(unsigned first, unsigned last, bool wanted)
{
	bool good = true;

	for (unsigned page = first; page <= last; page++)
		good = mapped(page) == wanted && good;
	return good;
}

static void reserved(void)
{
	EXPECT(attached());
	for (unsigned i = 24; i < UNMAP_SIZE; i++) {
		enum status status = map(0, 0);

		/* INVAL allows to unmap or not. */
		EXPECT(status == S_OK || status == S_INVAL);
		fill_unmap(iommu.request, DOMAIN, DATA, DATA + PAGE - 1);
		iommu.request[i] = 1;
		status = iommu_request(UNMAP_SIZE);
		EXPECT(status == S_INVAL || status == S_OK);
		if (status == S_OK)
			EXPECT(!mapped(0));
	}
}

static void reserved_status(void)
{
	EXPECT(attached());
	EXPECT_EQ(map(0, 0), S_OK);
	for (unsigned i = 24; i < UNMAP_SIZE; i++) {
		fill_unmap(iommu.request, DOMAIN, DATA, DATA + PAGE - 1);
		iommu.request[i] = 0x80;
		EXPECT_EQ(iommu_request(UNMAP_SIZE), S_INVAL);
	}
	EXPECT(mapped(0));
}

static void no_domain(void)
{
	EXPECT_EQ(unmap(0, 0), S_NOENT);
	EXPECT(attached());
	EXPECT_EQ(iommu_unmap_pages(DOMAIN + 1, DATA, 1), S_NOENT);
	EXPECT_EQ(iommu_unmap(DOMAIN + 1, 0, UINT64_MAX), S_NOENT);
}

static void bypass_domain(void)
{
	if (!iommu_has(F_BYPASS_CONFIG)) {
		skip("BYPASS_CONFIG isn't offered");
		return;
	}
	EXPECT_EQ(iommu_attach(DOMAIN, disks[0].endpoint, ATTACH_BYPASS), S_OK);
	EXPECT_EQ(unmap(0, 0), S_INVAL);
	EXPECT_EQ(iommu_unmap(DOMAIN, 0, UINT64_MAX), S_INVAL);
}

/* Every range that cuts the mapping of pages 4 to 7, and the others stay too. */
static void split(void)
{
	EXPECT(attached());
	EXPECT_EQ(map(0, 1), S_OK);
	EXPECT_EQ(map(4, 7), S_OK);
	EXPECT_EQ(map(8, 8), S_OK);
	EXPECT_EQ(map(10, 11), S_OK);
	for (unsigned first = 0; first <= 12; first++) {
		for (unsigned last = first; last <= 12; last++) {
			bool cuts_4_7 = first <= 7 && last >= 4 && !(first <= 4 && last >= 7);

			if (!cuts_4_7)
				continue;
			EXPECT_EQ(unmap(first, last), S_RANGE);
		}
	}
	EXPECT(all_mapped(0, 1, true));
	EXPECT(all_mapped(4, 8, true));
	EXPECT(all_mapped(10, 11, true));
}

/* The cut may be a byte wide: UNMAP has no alignment. */
static void split_by_a_byte(void)
{
	uint64_t first = DATA + 4 * PAGE, last = DATA + 8 * PAGE - 1;

	EXPECT(attached());
	EXPECT_EQ(map(2, 3), S_OK);
	EXPECT_EQ(map(4, 7), S_OK);
	EXPECT_EQ(map(8, 9), S_OK);
	EXPECT_EQ(iommu_unmap(DOMAIN, first + 1, last), S_RANGE);
	EXPECT_EQ(iommu_unmap(DOMAIN, first, last - 1), S_RANGE);
	EXPECT_EQ(iommu_unmap(DOMAIN, first, last + 1), S_RANGE);
	EXPECT_EQ(iommu_unmap(DOMAIN, first - 1, last), S_RANGE);
	EXPECT_EQ(iommu_unmap(DOMAIN, first + 5, first + 5), S_RANGE);
	EXPECT_EQ(iommu_unmap(DOMAIN, 0, last - 1), S_RANGE);
	EXPECT_EQ(iommu_unmap(DOMAIN, first + 1, UINT64_MAX), S_RANGE);
	EXPECT(all_mapped(2, 9, true));
	EXPECT_EQ(iommu_unmap(DOMAIN, first, last), S_OK);
	EXPECT(all_mapped(4, 7, false));
	EXPECT(all_mapped(2, 3, true));
	EXPECT(all_mapped(8, 9, true));
}

/* The mapping that would be split comes last, behind many that wouldn't. */
static void refused_unmap_is_atomic(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(1);
	const unsigned n = 200;

	EXPECT(disk_up(disk, DOMAIN));
	for (unsigned i = 0; i < n; i++)
		EXPECT_EQ(iommu_map_pages(DOMAIN, DATA + i * PAGE, memory, 1, MAP_RW), S_OK);
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA + n * PAGE, memory, 2, MAP_RW), S_OK);
	EXPECT_EQ(unmap(0, n), S_RANGE);
	for (unsigned i = 0; i <= n; i += i < 4 ? 1 : 28)
		EXPECT_LOADS(disk, DATA + i * PAGE, memory);
	EXPECT_LOADS(disk, DATA + n * PAGE, memory);
	EXPECT_EQ(unmap(0, n + 1), S_OK);
	EXPECT_REFUSES(disk, FAULT_MAPPING, DATA, memory);
	EXPECT_REFUSES(disk, FAULT_MAPPING, DATA + (n - 1) * PAGE, memory);
	EXPECT_REFUSES(disk, FAULT_MAPPING, DATA + n * PAGE, memory);
}

/* The specification's sequences, each from a blank address space. */
static void seven_examples(void)
{
	EXPECT(attached());
	EXPECT_EQ(unmap(0, 4), S_OK); /* 1 */
	EXPECT(all_mapped(0, 14, false));

	EXPECT_EQ(map(0, 9), S_OK); /* 2 */
	EXPECT_EQ(unmap(0, 9), S_OK);
	EXPECT(all_mapped(0, 14, false));

	EXPECT_EQ(map(0, 4), S_OK); /* 3 */
	EXPECT_EQ(map(5, 9), S_OK);
	EXPECT_EQ(unmap(0, 9), S_OK);
	EXPECT(all_mapped(0, 14, false));

	EXPECT_EQ(map(0, 9), S_OK); /* 4 */
	EXPECT_EQ(unmap(0, 4), S_RANGE);
	EXPECT(all_mapped(0, 9, true));
	EXPECT_EQ(unmap(0, 9), S_OK);

	EXPECT_EQ(map(0, 4), S_OK); /* 5 */
	EXPECT_EQ(map(5, 9), S_OK);
	EXPECT_EQ(unmap(0, 4), S_OK);
	EXPECT(all_mapped(0, 4, false));
	EXPECT(all_mapped(5, 9, true));
	EXPECT_EQ(unmap(5, 9), S_OK);

	EXPECT_EQ(map(0, 4), S_OK); /* 6 */
	EXPECT_EQ(unmap(0, 9), S_OK);
	EXPECT(all_mapped(0, 14, false));

	EXPECT_EQ(map(0, 4), S_OK); /* 7 */
	EXPECT_EQ(map(10, 14), S_OK);
	EXPECT_EQ(unmap(0, 14), S_OK);
	EXPECT(all_mapped(0, 14, false));
}

static void partly_covered(void)
{
	EXPECT(attached());
	EXPECT_EQ(map(3, 4), S_OK);
	EXPECT_EQ(map(6, 6), S_OK);
	EXPECT_EQ(map(9, 9), S_OK);
	/* Holes before, between and after. */
	EXPECT_EQ(unmap(1, 8), S_OK);
	EXPECT(all_mapped(0, 8, false));
	EXPECT(mapped(9));
	EXPECT_EQ(unmap(0, 8), S_OK);
	EXPECT(mapped(9));
	EXPECT_EQ(iommu_unmap(DOMAIN, 0, UINT64_MAX), S_OK);
	EXPECT(all_mapped(0, 14, false));
	EXPECT_EQ(iommu_unmap(DOMAIN, 0, UINT64_MAX), S_OK);
}

/* Its ends may be anywhere outside of mappings. */
static void unaligned_ends(void)
{
	EXPECT(attached());
	EXPECT_EQ(map(4, 4), S_OK);
	EXPECT_EQ(iommu_unmap(DOMAIN, DATA + PAGE + 1, DATA + 6 * PAGE + 7), S_OK);
	EXPECT(all_mapped(0, 7, false));
	EXPECT_EQ(iommu_unmap(DOMAIN, DATA + 3, DATA + 3), S_OK);
}

static void unmapped_is_dead(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(3);

	EXPECT(disk_up(disk, DOMAIN));
	for (unsigned i = 0; i < 3; i++) {
		EXPECT_EQ(iommu_map_pages(DOMAIN, DATA + i * PAGE, memory + i * PAGE, 1, MAP_RW),
			  S_OK);
		EXPECT_LOADS(disk, DATA + i * PAGE, memory + i * PAGE);
	}
	EXPECT_EQ(unmap(1, 1), S_OK);
	EXPECT_REFUSES(disk, FAULT_MAPPING, DATA + PAGE, memory + PAGE);
	EXPECT_LOADS(disk, DATA, memory);
	EXPECT_LOADS(disk, DATA + 2 * PAGE, memory + 2 * PAGE);
	/* Another page in its place. */
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA + PAGE, memory, 1, MAP_RW), S_OK);
	EXPECT_LOADS(disk, DATA + PAGE, memory);
}

static void empty_range(void)
{
	EXPECT(attached());
	EXPECT_EQ(map(0, 0), S_OK);
	iommu_unmap(DOMAIN, DATA + PAGE, DATA - 1);
	EXPECT(mapped(0));
	EXPECT_EQ(unmap(0, 0), S_OK);
}

const struct test unmap_tests[] = {
	{ "spec 36: UNMAP with a reserved byte set is INVAL, or done", reserved },
	{ "moat: UNMAP with a reserved byte set is INVAL, and not done", reserved_status },
	{ "spec 37: UNMAP in no domain is NOENT", no_domain },
	{ "spec 38: UNMAP in a bypass domain is INVAL", bypass_domain },
	{ "spec 39: UNMAP that would split a mapping is RANGE and removes nothing", split },
	{ "spec 39: a byte is enough to split", split_by_a_byte },
	{ "spec 39: a refused UNMAP removes none of many mappings before the split",
	  refused_unmap_is_atomic },
	{ "spec 40: the specification's seven examples", seven_examples },
	{ "spec 40: UNMAP with holes removes what there is", partly_covered },
	{ "spec 40: UNMAP's ends need no alignment", unaligned_ends },
	{ "spec 40: what was unmapped is inaccessible at once, its neighbours aren't",
	  unmapped_is_dead },
	{ "moat: UNMAP of a range that ends before it starts removes nothing", empty_range },
	{ NULL, NULL },
};
