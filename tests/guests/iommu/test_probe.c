/* PROBE and reserved regions: items 41 to 53. */
#include "tests/guests/iommu/test.h"

#define MAX_RESV 32

#define PROPERTY_RESV_MEM 1
#define RESV_MEM_LENGTH	  20u

static bool has_probe(void)
{
	if (!iommu_has(F_PROBE))
		skip("PROBE isn't offered");
	return iommu_has(F_PROBE);
}

/* A call for each property of @disk; false when the list is malformed. */
static bool walk(struct disk *disk, void (*each)(const uint8_t *property))
{
	uint32_t at = 0;

	if (iommu_probe(disk->endpoint) != S_OK)
		return false;
	while (at < iommu.probe_size) {
		const uint8_t *property = iommu.reply + at;

		if (at + 4 > iommu.probe_size)
			return all_bytes(property, 0, iommu.probe_size - at);
		if ((get16(property) & 0xfff) == 0)
			break;
		at += 4u + get16(property + 2);
		if (at > iommu.probe_size)
			return false;
		if (each)
			each(property);
	}
	return all_bytes(iommu.reply + at, 0, iommu.probe_size - at);
}

static bool walk_all(void (*each)(const uint8_t *property))
{
	bool good = true;

	for (unsigned i = 0; i < num_disks; i++)
		good = walk(&disks[i], each) && good;
	return good;
}

static void reserved_is_ignored(void)
{
	uint8_t before[MAX_REPLY];

	if (!has_probe())
		return;
	EXPECT_EQ(iommu_probe(disks[0].endpoint), S_OK);
	memcpy(before, iommu.reply, iommu.probe_size);
	for (unsigned i = 8; i < PROBE_SIZE; i++) {
		unsigned in = iommu.probe_size + TAIL_SIZE;
		uint32_t used = 0;

		fill_probe(iommu.request, disks[0].endpoint);
		iommu.request[i] = 0xff;

		bool sent = iommu_send(PROBE_SIZE, in, &used);

		EXPECT_EQ(iommu_verdict(sent, used, in), S_OK);
		EXPECT(equal(before, iommu.reply, iommu.probe_size));
	}
}

static void unknown_endpoint(void)
{
	if (!has_probe())
		return;
	EXPECT_EQ(iommu_probe(no_endpoint()), S_NOENT);
	EXPECT_EQ(iommu_probe(disks[0].endpoint), S_OK);
}

static void not_negotiated(void)
{
	if (!has_probe())
		return;
	EXPECT(iommu_start(iommu.features & ~F_PROBE));
	EXPECT_EQ(iommu_probe(disks[0].endpoint), S_UNWRITTEN);
	EXPECT_EQ(iommu_attach(1, disks[0].endpoint, 0), S_OK);
}

static void property_reserved(const uint8_t *property)
{
	EXPECT_EQ(get16(property) >> 12, 0);
}

static void property_reserved_is_zero(void)
{
	if (has_probe())
		EXPECT(walk_all(property_reserved));
}

static void property_length(const uint8_t *property)
{
	if (get16(property) == PROPERTY_RESV_MEM)
		EXPECT_EQ(get16(property + 2), RESV_MEM_LENGTH);
}

static void lengths_without_heads(void)
{
	if (has_probe())
		EXPECT(walk_all(property_length));
}

static void resv_is_sane(const uint8_t *property)
{
	EXPECT_EQ(get16(property), PROPERTY_RESV_MEM);
	EXPECT(property[4] == RESV_RESERVED || property[4] == RESV_MSI);
	EXPECT(get64(property + 8) <= get64(property + 16));
}

/* What a walk by length + 4 finds are regions that make sense, and nothing but zeroes follows. */
static void packed(void)
{
	if (has_probe())
		EXPECT(walk_all(resv_is_sane));
}

static void short_buffer(void)
{
	static const unsigned rooms[] = { TAIL_SIZE, 5, 24, 28, 100 };

	if (!has_probe())
		return;
	for (unsigned i = 0; i <= ARRAY_SIZE(rooms); i++) {
		unsigned in = i < ARRAY_SIZE(rooms) ? rooms[i] : iommu.probe_size + TAIL_SIZE - 1;
		unsigned out = fill_probe(iommu.request, disks[0].endpoint);
		uint32_t used = 0;
		bool sent = iommu_send(out, in, &used);

		EXPECT_EQ(iommu_verdict(sent, used, in), S_INVAL);
		/* No property: nothing, or a list that is empty. */
		EXPECT(all_bytes(iommu.reply, 0, in - TAIL_SIZE) ||
		       all_bytes(iommu.reply, UNTOUCHED, in - TAIL_SIZE));
	}
	EXPECT_EQ(iommu_probe(disks[0].endpoint), S_OK);
}

/* walk() checks it, as does this for an endpoint that doesn't exist. */
static void rest_is_zero(void)
{
	if (has_probe())
		EXPECT(walk_all(NULL));
}

static void resv_reserved(const uint8_t *property)
{
	if (get16(property) == PROPERTY_RESV_MEM)
		EXPECT(all_bytes(property + 5, 0, 3));
}

static void resv_reserved_is_zero(void)
{
	if (has_probe())
		EXPECT(walk_all(resv_reserved));
}

static void one_msi_region(void)
{
	struct resv resv[MAX_RESV];

	if (!has_probe())
		return;
	for (unsigned i = 0; i < num_disks; i++) {
		unsigned msi = 0, n;

		EXPECT_EQ(iommu_probe(disks[i].endpoint), S_OK);
		n = iommu_reserved(resv, MAX_RESV);
		for (unsigned j = 0; j < n; j++)
			msi += resv[j].subtype == RESV_MSI;
		EXPECT(msi <= 1);
	}
}

static void has_msi_region(void)
{
	struct resv resv[MAX_RESV];

	if (!has_probe())
		return;
	EXPECT_EQ(iommu_probe(disks[0].endpoint), S_OK);
	EXPECT(iommu_reserved(resv, MAX_RESV) == 1 && resv[0].subtype == RESV_MSI);
}

static void no_overlaps(void)
{
	struct resv resv[MAX_RESV];

	if (!has_probe())
		return;
	for (unsigned i = 0; i < num_disks; i++) {
		EXPECT_EQ(iommu_probe(disks[i].endpoint), S_OK);

		unsigned n = iommu_reserved(resv, MAX_RESV);

		for (unsigned a = 0; a < n; a++) {
			for (unsigned b = a + 1; b < n; b++)
				EXPECT(resv[a].last < resv[b].first ||
				       resv[b].last < resv[a].first);
		}
	}
}

/* Reserved regions of disk 0. 0 with the test skipped when it has none. */
static unsigned regions(struct resv *ret_resv)
{
	unsigned n = 0;

	if (!has_probe())
		return 0;
	EXPECT_EQ(iommu_probe(disks[0].endpoint), S_OK);
	n = iommu_reserved(ret_resv, MAX_RESV);
	if (!n)
		skip("no endpoint has a reserved region");
	return n;
}

/* @wanted: INVAL, or OK for any status but that. */
static void map_over_a_region(enum status wanted)
{
	struct resv resv[MAX_RESV];
	unsigned n = regions(resv);

	for (unsigned i = 0; i < n; i++) {
		uint64_t first = resv[i].first & ~(uint64_t)(PAGE - 1);
		uint64_t last = resv[i].last | (PAGE - 1);
		const uint64_t bad[][2] = {
			{ first, last },
			{ first, first + PAGE - 1 },
			{ last - PAGE + 1, last },
			{ first - PAGE, first + PAGE - 1 },
			{ last - PAGE + 1, last + PAGE },
			{ first - PAGE, last + PAGE },
		};

		EXPECT_EQ(iommu_attach(1, disks[0].endpoint, 0), S_OK);
		for (unsigned j = 0; j < ARRAY_SIZE(bad); j++) {
			enum status status = iommu_map(1, bad[j][0], bad[j][1], 0, MAP_RW);

			EXPECT(wanted == S_OK ? status != S_OK : status == wanted);
		}
		EXPECT_EQ(iommu_map(1, first - PAGE, first - 1, 0, MAP_RW), S_OK);
		EXPECT_EQ(iommu_map(1, last + 1, last + PAGE, 0, MAP_RW), S_OK);
		EXPECT_EQ(iommu_unmap(1, 0, UINT64_MAX), S_OK);
	}
}

static void map_over_a_region_fails(void)
{
	map_over_a_region(S_OK);
}

static void map_over_a_region_status(void)
{
	map_over_a_region(S_INVAL);
}

/*
 * An access there reaches no memory, and hurts nobody else: an IOMMU that
 * delivers it as an interrupt message may well complete it.
 */
static void region_access(void)
{
	struct disk *disk = &disks[0];
	struct resv resv[MAX_RESV];
	unsigned n = regions(resv);
	uint64_t memory = pages(1);

	for (unsigned i = 0; i < n; i++) {
		REQUIRE(fresh());
		memory = pages(1);
		EXPECT(disk_up(disk, 1));
		EXPECT_EQ(iommu_map_pages(1, DATA, memory, 1, MAP_RW), S_OK);
		disk_io(disk, DISK_LOAD, 8, resv[i].first, SECTOR);
		disk_io(disk, DISK_STORE, 16, resv[i].first, SECTOR);
		EXPECT_LOADS(disk, DATA, memory);
		if (num_disks > 1) {
			EXPECT(disk_up(&disks[1], 1));
			EXPECT_LOADS(&disks[1], DATA, memory);
		}
		/* Put back what the second one may have changed. */
		disk_fill_pattern(disk, 16, phys(memory), SECTOR);
		EXPECT_EQ(disk_io(disk, DISK_STORE, 16, DATA, SECTOR), IO_OK);
	}
}

static void region_access_faults(void)
{
	struct disk *disk = &disks[0];
	struct resv resv[MAX_RESV];
	unsigned n = regions(resv);

	EXPECT(disk_up(disk, 1));
	for (unsigned i = 0; i < n; i++) {
		EXPECT_REFUSES(disk, FAULT_UNKNOWN, resv[i].first, 0);
		EXPECT_REFUSES(disk, FAULT_UNKNOWN, resv[i].last - PAGE + 1, 0);
	}
}

const struct test probe_tests[] = {
	{ "spec 41: PROBE ignores its reserved bytes", reserved_is_ignored },
	{ "spec 42: PROBE of an unknown endpoint is NOENT", unknown_endpoint },
	{ "spec 43: PROBE that isn't negotiated is returned unwritten", not_negotiated },
	{ "spec 44: a property's reserved bits are zero", property_reserved_is_zero },
	{ "spec 45: a property's length doesn't count its head", lengths_without_heads },
	{ "spec 46: properties follow each other without gaps", packed },
	{ "spec 47: PROBE with too little room is INVAL, without a property", short_buffer },
	{ "spec 48: what properties don't fill is zero", rest_is_zero },
	{ "spec 49: a reserved region's reserved bytes are zero", resv_reserved_is_zero },
	{ "spec 50: an endpoint has one MSI region at most", one_msi_region },
	{ "spec 51: an endpoint's reserved regions don't overlap", no_overlaps },
	{ "spec 52: MAP over a reserved region fails, beside it is fine", map_over_a_region_fails },
	{ "spec 53: an access to a reserved region affects nobody else", region_access },
	{ "moat: each emulated endpoint has an MSI region", has_msi_region },
	{ "moat: MAP over a reserved region is INVAL", map_over_a_region_status },
	{ "moat: an access to a reserved region is refused", region_access_faults },
	{ NULL, NULL },
};
