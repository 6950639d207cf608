/* What a device can reach: items 12, 13, 27, and everything about translation. */
#include "tests/guests/iommu/test.h"
#include "tests/guests/arch.h"

#define DOMAIN 1
#define MANY   16u

static bool has_bypass(void)
{
	if (!iommu_has(F_BYPASS_CONFIG))
		skip("BYPASS_CONFIG isn't offered");
	return iommu_has(F_BYPASS_CONFIG);
}

static void unattached(void)
{
	for (unsigned i = 0; i < num_disks; i++) {
		struct disk *disk = &disks[i];
		uint64_t memory = pages(1);
		const struct seg seg = { .addr = memory, .len = PAGE };

		memset(phys(memory), UNTOUCHED, PAGE);
		disk_place(disk);
		EXPECT(disk_start(disk));
		disk_submit(disk, DISK_LOAD, 8, &seg, 1);
		EXPECT_FAULT_IN_PAGE(disk, FAULT_DOMAIN, FAULT_F_READ, disk->ring.desc.iova);
		EXPECT(disk_outcome(disk, QUIET_MS) != IO_OK);
		EXPECT_EQ(vring_used_idx(&disk->ring), 0);
		EXPECT(all_bytes(phys(memory), UNTOUCHED, PAGE));
	}
}

static void bypass_is_identity(void)
{
	if (!has_bypass())
		return;
	iommu_set_bypass(1);
	for (unsigned i = 0; i < num_disks; i++) {
		uint64_t memory = pages(1);

		disk_place(&disks[i]);
		EXPECT(disk_start(&disks[i]));
		EXPECT_LOADS(&disks[i], memory, memory);
		EXPECT_EQ(disk_io(&disks[i], DISK_STORE, 8, memory, PAGE), IO_OK);
	}
	EXPECT_NO_FAULT();
}

static void bypass_domain_is_identity(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(1);

	if (!has_bypass())
		return;
	EXPECT_EQ(iommu_attach(DOMAIN, disk->endpoint, ATTACH_BYPASS), S_OK);
	disk_place(disk);
	EXPECT(disk_start(disk));
	EXPECT_LOADS(disk, memory, memory);
	EXPECT_EQ(disk_io(disk, DISK_STORE, 8, memory, PAGE), IO_OK);
	/* Its own choice, not the configuration's. */
	iommu_set_bypass(1);
	EXPECT_LOADS(disk, memory, memory);
	iommu_set_bypass(0);
	EXPECT_LOADS(disk, memory, memory);
	EXPECT_EQ(iommu_detach(DOMAIN, disk->endpoint), S_OK);
	disk_submit(disk, DISK_FLUSH, 0, NULL, 0);
	EXPECT_FAULT_IN_PAGE(disk, FAULT_DOMAIN, FAULT_F_READ, disk->ring.desc.iova);
	EXPECT(disk_outcome(disk, QUIET_MS) != IO_OK);
}

/* config.bypass opens and closes the door for who isn't attached, and for nobody else. */
static void bypass_changes_at_once(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(1);

	if (!has_bypass())
		return;
	for (unsigned i = 0; i < 3; i++) {
		disk_place(disk);
		iommu_set_bypass(1);
		EXPECT(disk_start(disk));
		EXPECT_LOADS(disk, memory, memory);
		iommu_set_bypass(0);
		disk_submit(disk, DISK_FLUSH, 0, NULL, 0);
		EXPECT_FAULT_IN_PAGE(disk, FAULT_DOMAIN, FAULT_F_READ, disk->ring.desc.iova);
		EXPECT(disk_outcome(disk, QUIET_MS) != IO_OK);
	}
}

static void bypass_leaves_the_attached_alone(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(1), other = pages(1);

	if (!has_bypass())
		return;
	EXPECT(disk_up(disk, DOMAIN));
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 1, MAP_RW), S_OK);
	iommu_set_bypass(1);
	EXPECT_LOADS(disk, DATA, memory);
	EXPECT_REFUSES(disk, FAULT_MAPPING, other, other);
	/* Detached, it is in bypass mode: the mapping is gone, identity is there. */
	EXPECT_EQ(iommu_detach(DOMAIN, disk->endpoint), S_OK);
	EXPECT_LOADS(disk, other, other);
	EXPECT_EQ(iommu_attach(DOMAIN, disk->endpoint, 0), S_OK);
	disk_submit(disk, DISK_FLUSH, 0, NULL, 0);
	EXPECT_FAULT_IN_PAGE(disk, FAULT_MAPPING, FAULT_F_READ, disk->ring.desc.iova);
	EXPECT(disk_outcome(disk, QUIET_MS) != IO_OK);
}

/* MANY pages, each where it shouldn't be, in one long I/O that begins and ends inside of one. */
static void scattered(void)
{
	struct disk *disk = &disks[0];
	uint64_t page[MANY];
	const uint32_t start = SECTOR, len = MANY * PAGE - 2 * SECTOR;

	scattered_pages(page, MANY);
	EXPECT(disk_up(disk, DOMAIN));
	for (unsigned i = 0; i < MANY; i++) {
		memset(phys(page[i]), UNTOUCHED, PAGE);
		EXPECT_EQ(iommu_map_pages(DOMAIN, DATA + i * PAGE, page[i], 1, MAP_RW), S_OK);
	}
	EXPECT_EQ(disk_io(disk, DISK_LOAD, 1, DATA + start, len), IO_OK);
	EXPECT(all_bytes(phys(page[0]), UNTOUCHED, start));
	EXPECT(all_bytes(phys(page[MANY - 1] + PAGE - SECTOR), UNTOUCHED, SECTOR));
	for (unsigned i = 0; i < MANY; i++) {
		unsigned from = i ? 0 : start, to = i == MANY - 1 ? PAGE - SECTOR : PAGE;

		EXPECT(disk_pattern_at(disk, i * PAGE / SECTOR + from / SECTOR,
				       phys(page[i] + from), to - from));
	}
	/* The other direction: what is stored comes from the same places. */
	EXPECT_EQ(disk_io(disk, DISK_STORE, 1, DATA + start, len), IO_OK);
	for (unsigned i = 0; i < MANY; i++)
		memset(phys(page[i]), 0, PAGE);
	EXPECT_EQ(disk_io(disk, DISK_LOAD, 1, DATA + start, len), IO_OK);
	EXPECT(disk_pattern_at(disk, 8, phys(page[1]), PAGE));
}

/* Segments of odd lengths at odd addresses, every second one across a page boundary. */
static void many_segments(void)
{
	struct disk *disk = &disks[0];
	struct seg seg[DISK_MAX_SEGS];
	uint64_t page[MANY];
	uint8_t *got = phys(pages(4));
	unsigned n = 0;
	uint32_t total = 0;

	scattered_pages(page, MANY);
	EXPECT(disk_up(disk, DOMAIN));
	for (unsigned i = 0; i < MANY; i++)
		EXPECT_EQ(iommu_map_pages(DOMAIN, DATA + i * PAGE, page[i], 1, MAP_RW), S_OK);
	for (; n < MANY - 1; n++) {
		uint32_t len = 101 + 7 * n;

		seg[n] = (struct seg){ DATA + (n + 1) * PAGE - (n & 1 ? len / 2 : len), len, true };
		total += len;
	}
	/* Whole sectors in all. */
	seg[n] = (struct seg){ DATA + (MANY - 1) * PAGE + 1001, SECTOR - total % SECTOR, true };
	total += seg[n++].len;
	EXPECT_EQ(disk_io_segs(disk, DISK_LOAD, 3, seg, n), IO_OK);
	for (unsigned i = 0, at = 0; i < n; i++) {
		for (unsigned j = 0; j < seg[i].len; j++, at++) {
			uint64_t iova = seg[i].addr + j - DATA;

			got[at] = *(uint8_t *)phys(page[iova / PAGE] + iova % PAGE);
		}
	}
	EXPECT(disk_pattern_at(disk, 3, got, total));
}

/* A byte before the mapping and a byte after it, in both directions; exact fits work. */
static void one_byte_off(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(3) + PAGE;
	const uint64_t first = DATA, last = DATA + PAGE - 1;

	EXPECT(disk_up(disk, DOMAIN));
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 1, MAP_RW), S_OK);
	memset(phys(memory - PAGE), UNTOUCHED, 3 * PAGE);
	EXPECT_EQ(disk_io(disk, DISK_LOAD, 8, first, SECTOR), IO_OK);
	EXPECT_EQ(disk_io(disk, DISK_LOAD, 8, last + 1 - SECTOR, SECTOR), IO_OK);
	EXPECT_REFUSED(disk_io(disk, DISK_LOAD, 8, first - 1, SECTOR));
	EXPECT_FAULT(disk, FAULT_MAPPING, FAULT_F_WRITE, first - 1);
	EXPECT_REFUSED(disk_io(disk, DISK_LOAD, 8, last + 2 - SECTOR, SECTOR));
	EXPECT_FAULT(disk, FAULT_MAPPING, FAULT_F_WRITE, last + 1);
	EXPECT(all_bytes(phys(memory - PAGE), UNTOUCHED, PAGE));
	EXPECT(all_bytes(phys(memory + PAGE), UNTOUCHED, PAGE));
	EXPECT_REFUSED(disk_io(disk, DISK_STORE, SCRATCH_SECTOR, first - 1, SECTOR));
	EXPECT_FAULT(disk, FAULT_MAPPING, FAULT_F_READ, first - 1);
	EXPECT_REFUSED(disk_io(disk, DISK_STORE, SCRATCH_SECTOR, last + 2 - SECTOR, SECTOR));
	EXPECT_FAULT(disk, FAULT_MAPPING, FAULT_F_READ, last + 1);
	EXPECT_LOADS(disk, DATA, memory);
	EXPECT_NO_FAULT();
}

/* A hole in the middle of an I/O. */
static void hole_inside(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(3);

	EXPECT(disk_up(disk, DOMAIN));
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 1, MAP_RW), S_OK);
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA + 2 * PAGE, memory + 2 * PAGE, 1, MAP_RW), S_OK);
	memset(phys(memory + PAGE), UNTOUCHED, PAGE);
	EXPECT_REFUSED(disk_io(disk, DISK_LOAD, 8, DATA, 3 * PAGE));
	EXPECT_FAULT(disk, FAULT_MAPPING, FAULT_F_WRITE, DATA + PAGE);
	EXPECT(all_bytes(phys(memory + PAGE), UNTOUCHED, PAGE));
}

static void read_only_inside(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(3);

	EXPECT(disk_up(disk, DOMAIN));
	for (unsigned i = 0; i < 3; i++)
		EXPECT_EQ(iommu_map_pages(DOMAIN, DATA + i * PAGE, memory + i * PAGE, 1,
					  i == 1 ? MAP_READ : MAP_RW),
			  S_OK);
	memset(phys(memory + PAGE), UNTOUCHED, PAGE);
	EXPECT_REFUSED(disk_io(disk, DISK_LOAD, 8, DATA, 3 * PAGE));
	EXPECT_FAULT(disk, FAULT_MAPPING, FAULT_F_WRITE, DATA + PAGE);
	EXPECT(all_bytes(phys(memory + PAGE), UNTOUCHED, PAGE));
}

/* The first and the last page that can be mapped. */
static void ends_of_the_address_space(void)
{
	struct disk *disk = &disks[0];
	const uint64_t iova[] = { 0, iommu.input_last - PAGE + 1 };
	uint64_t memory = pages(1);

	EXPECT(disk_up(disk, DOMAIN));
	for (unsigned i = 0; i < ARRAY_SIZE(iova); i++) {
		EXPECT_EQ(iommu_map_pages(DOMAIN, iova[i], memory, 1, MAP_RW), S_OK);
		EXPECT_LOADS(disk, iova[i], memory);
		EXPECT_EQ(iommu_unmap_pages(DOMAIN, iova[i], 1), S_OK);
		EXPECT_REFUSES(disk, FAULT_MAPPING, iova[i], memory);
	}
}

/* Mappings come and go under a busy device: each I/O finds what is there. */
static void map_and_unmap_for_each_io(void)
{
	struct disk *disk = &disks[0];
	uint64_t page[MANY];

	scattered_pages(page, MANY);
	EXPECT(disk_up(disk, DOMAIN));
	for (unsigned i = 0; i < 50; i++) {
		uint64_t memory = page[i * 7 % MANY];

		EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 1, MAP_RW), S_OK);
		EXPECT_LOADS(disk, DATA, memory);
		EXPECT_EQ(iommu_unmap_pages(DOMAIN, DATA, 1), S_OK);
	}
	EXPECT_REFUSES(disk, FAULT_MAPPING, DATA, page[0]);
}

/*
 * Put a ring part of @size bytes at @iova, which isn't page-aligned, and each of
 * its pages elsewhere in memory.
 */
static void scatter_part(struct ring_part *part, uint64_t iova, uint32_t size, uint32_t flags)
{
	unsigned n = (unsigned)((iova % PAGE + size + PAGE - 1) / PAGE);

	*part = (struct ring_part){ .iova = iova };
	scattered_pages(part->page, n);
	for (unsigned i = 0; i < n; i++)
		EXPECT_EQ(iommu_map_pages(DOMAIN, (iova & ~(uint64_t)(PAGE - 1)) + i * PAGE,
					  part->page[i], 1, flags),
			  S_OK);
}

static bool start_scattered(struct disk *disk)
{
	disk_place(disk);
	if (iommu_attach(DOMAIN, disk->endpoint, 0) != S_OK || !disk_map_own(disk, DOMAIN))
		return false;
	/* No more permission than a device needs. */
	scatter_part(&disk->ring.desc, FAR + PAGE / 2 + 16, vring_desc_size(DISK_QUEUE_SIZE) + PAGE,
		     MAP_READ);
	scatter_part(&disk->ring.avail, FAR + 0x20fc2, vring_avail_size(DISK_QUEUE_SIZE), MAP_READ);
	scatter_part(&disk->ring.used, FAR + 0x40f3c, vring_used_size(DISK_QUEUE_SIZE), MAP_RW);
	return disk_start(disk);
}

static void scattered_ring(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(1);

	EXPECT(start_scattered(disk));
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 1, MAP_RW), S_OK);
	/* All descriptors, all entries, several times. */
	for (unsigned i = 0; i < 2 * DISK_QUEUE_SIZE; i++)
		EXPECT_LOADS(disk, DATA, memory);
	EXPECT_NO_FAULT();
}

static void scattered_indirect(void)
{
	struct disk *disk = &disks[0];
	struct seg seg[DISK_MAX_SEGS];
	struct ring_part table;
	uint64_t memory = pages(8);

	EXPECT(start_scattered(disk));
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 8, MAP_RW), S_OK);
	scatter_part(&table, FAR + 0x60f00, DESC_SIZE * DISK_QUEUE_SIZE, MAP_READ);
	disk->table = &table;
	for (unsigned n = 1; n <= DISK_MAX_SEGS; n += n < 8 ? 1 : 9) {
		memset(phys(memory), UNTOUCHED, 8 * PAGE);
		for (unsigned i = 0; i < n; i++)
			seg[i] = (struct seg){ .addr = DATA + i * SECTOR, .len = SECTOR };
		EXPECT_EQ(disk_io_segs(disk, DISK_LOAD, n, seg, n), IO_OK);
		EXPECT(disk_pattern_at(disk, n, phys(memory), n * SECTOR));
		EXPECT(all_bytes(phys(memory + n * SECTOR), UNTOUCHED, 8 * PAGE - n * SECTOR));
	}
	EXPECT_NO_FAULT();
	/* The table's second page goes away. */
	EXPECT_EQ(iommu_unmap_pages(DOMAIN, FAR + 0x61000, 1), S_OK);
	disk_submit(disk, DISK_LOAD, 0, seg, DISK_MAX_SEGS);
	EXPECT_FAULT_IN_PAGE(disk, FAULT_MAPPING, FAULT_F_READ, FAR + 0x61000);
	EXPECT(disk_outcome(disk, QUIET_MS) != IO_OK);
}

/*
 * One part of the ring is unmapped under the live device: it is told, serves
 * nothing and touches the old memory no more.
 */
static void unmapped_part(const struct ring_part *part, uint32_t direction)
{
	struct disk *disk = &disks[0];
	uint64_t first = part->iova & ~(uint64_t)(PAGE - 1);
	uint64_t memory = pages(1);
	const struct seg seg = { .addr = DATA, .len = PAGE };

	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 1, MAP_RW), S_OK);
	EXPECT_LOADS(disk, DATA, memory);

	uint16_t used = vring_used_idx(&disk->ring);

	memset(phys(memory), UNTOUCHED, PAGE);
	EXPECT_EQ(iommu_unmap_pages(DOMAIN, first, 1), S_OK);
	disk_submit(disk, DISK_LOAD, 8, &seg, 1);
	EXPECT_FAULT_IN_PAGE(disk, FAULT_MAPPING, direction, first);
	EXPECT(disk_outcome(disk, QUIET_MS) != IO_OK);
	EXPECT_EQ(vring_used_idx(&disk->ring), used);
	/* A new start, the ring elsewhere. */
	EXPECT_EQ(iommu_unmap_pages(DOMAIN, DATA, 1), S_OK);
	EXPECT(disk_up(disk, DOMAIN));
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 1, MAP_RW), S_OK);
	EXPECT_LOADS(disk, DATA, memory);
}

static void ring_unmapped(void)
{
	struct disk *disk = &disks[0];

	EXPECT(start_scattered(disk));
	unmapped_part(&disk->ring.desc, FAULT_F_READ);
	REQUIRE(fresh());
	EXPECT(start_scattered(disk));
	unmapped_part(&disk->ring.avail, FAULT_F_READ);
	REQUIRE(fresh());
	EXPECT(start_scattered(disk));
	unmapped_part(&disk->ring.used, FAULT_F_WRITE);
}

static void ring_mapped_again(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(1);
	const struct seg seg = { .addr = DATA, .len = PAGE };

	EXPECT(disk_up(disk, DOMAIN));
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 1, MAP_RW), S_OK);
	EXPECT_LOADS(disk, DATA, memory);
	EXPECT_EQ(iommu_unmap_pages(DOMAIN, disk->memory, 4), S_OK);
	disk_submit(disk, DISK_LOAD, 8, &seg, 1);
	EXPECT_FAULT_IN_PAGE(disk, FAULT_MAPPING, FAULT_F_READ, disk->memory);
	EXPECT(disk_map_own(disk, DOMAIN));
	disk->dev.transport->notify(&disk->dev, 0);
	EXPECT_EQ(disk_outcome(disk, FAULT_MS), IO_OK);
	EXPECT(disk_pattern_at(disk, 8, phys(memory), PAGE));
}

/* The ring moves to other memory at the same IOVA: the device follows. */
static void ring_moved(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(1), old = 0, new = pages(4);

	EXPECT(disk_up(disk, DOMAIN));
	old = disk->memory;
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 1, MAP_RW), S_OK);
	EXPECT_LOADS(disk, DATA, memory);
	EXPECT_EQ(iommu_unmap_pages(DOMAIN, old, 4), S_OK);
	memcpy(phys(new), phys(old), 4 * PAGE);
	memset(phys(old), UNTOUCHED, 4 * PAGE);
	EXPECT_EQ(iommu_map_pages(DOMAIN, old, new, 4, MAP_RW), S_OK);
	disk->memory = new;
	disk->ring.desc = ring_part_at(new, old);
	disk->ring.avail = ring_part_at(new + PAGE, old + PAGE);
	disk->ring.used = ring_part_at(new + 2 * PAGE, old + 2 * PAGE);
	for (unsigned i = 0; i < DISK_QUEUE_SIZE; i++)
		EXPECT_LOADS(disk, DATA, memory);
	EXPECT(all_bytes(phys(old), UNTOUCHED, 4 * PAGE));
}

/* A ring that may only be read can't be answered in. */
static void read_only_used_ring(void)
{
	struct disk *disk = &disks[0];

	disk_place(disk);
	EXPECT_EQ(iommu_attach(DOMAIN, disk->endpoint, 0), S_OK);
	EXPECT_EQ(iommu_map_pages(DOMAIN, disk->memory, disk->memory, 4, MAP_READ), S_OK);
	EXPECT(disk_start(disk));
	disk_submit(disk, DISK_FLUSH, 0, NULL, 0);
	EXPECT_FAULT_IN_PAGE(disk, FAULT_MAPPING, FAULT_F_WRITE, disk->ring.used.iova);
	EXPECT(disk_outcome(disk, QUIET_MS) != IO_OK);
	EXPECT_EQ(vring_used_idx(&disk->ring), 0);
}

/* What is mapped to no memory at all, or to a device. */
static void no_memory_behind(void)
{
	struct disk *disk = &disks[0];

	EXPECT(disk_up(disk, DOMAIN));
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, arch_platform()->pci_mem, 1, MAP_RW), S_OK);
	EXPECT_REFUSES(disk, FAULT_UNKNOWN, DATA, 0);
	EXPECT_EQ(iommu_map_pages(DOMAIN, FAR, pages(1), 1, MAP_RW | MAP_MMIO), S_OK);
	EXPECT_REFUSES(disk, FAULT_UNKNOWN, FAR, 0);
}

/* I/O in flight when the IOMMU is reset: it ends, then nothing is written any more. */
static void reset_under_io(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(64);
	const struct seg seg = { .addr = DATA, .len = 64 * PAGE };

	for (unsigned i = 0; i < 5; i++) {
		EXPECT(disk_up(disk, DOMAIN));
		EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 64, MAP_RW), S_OK);
		disk_submit(disk, DISK_LOAD, 0, &seg, 1);
		EXPECT(vdev_reset(&iommu.dev));
		memset(phys(memory), UNTOUCHED, 64 * PAGE);
		delay(1);
		EXPECT(all_bytes(phys(memory), UNTOUCHED, 64 * PAGE));
		REQUIRE(fresh());
		memory = pages(64);
	}
}

const struct test dma_tests[] = {
	{ "spec 12: an unattached endpoint is blocked", unattached },
	{ "spec 13: with bypass every access is allowed, untranslated", bypass_is_identity },
	{ "spec 13: a bypass domain's endpoints are in bypass mode", bypass_domain_is_identity },
	{ "spec 13: bypass opens and closes at once", bypass_changes_at_once },
	{ "spec 13: bypass concerns only who isn't attached", bypass_leaves_the_attached_alone },
	{ "spec 35: an I/O over many scattered pages", scattered },
	{ "spec 35: many segments across page boundaries", many_segments },
	{ "spec 35: nothing is accessible a byte before or after a mapping", one_byte_off },
	{ "spec 34: a read-only page in the middle of an I/O", read_only_inside },
	{ "spec 35: a hole in the middle of an I/O", hole_inside },
	{ "spec 35: the first and the last page of the address space", ends_of_the_address_space },
	{ "spec 27: nothing is written after a reset of the IOMMU under I/O", reset_under_io },
	{ "core: MAP and UNMAP for each I/O", map_and_unmap_for_each_io },
	{ "core: a ring scattered in memory", scattered_ring },
	{ "core: an indirect table scattered in memory", scattered_indirect },
	{ "core: a ring that is unmapped under a live device", ring_unmapped },
	{ "core: a ring that moves in memory", ring_moved },
	{ "core: a ring without permission to write", read_only_used_ring },
	{ "moat: a ring that is mapped again is served again", ring_mapped_again },
	{ "moat: a mapping to no memory or to MMIO is refused", no_memory_behind },
	{ NULL, NULL },
};
