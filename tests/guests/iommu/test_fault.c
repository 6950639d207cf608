/* Fault reports: items 54 to 60. */
#include "tests/guests/iommu/test.h"

#define DOMAIN 1

/* One fault of @disk, a write to @iova, which nothing is mapped at. */
static void cause(struct disk *disk, uint64_t iova)
{
	EXPECT_REFUSED(disk_io(disk, DISK_LOAD, 8, iova, SECTOR));
}

static void reserved_is_zero(void)
{
	struct fault fault;

	EXPECT(disk_up(&disks[0], DOMAIN));
	cause(&disks[0], DATA);
	REQUIRE(iommu_next_fault(FAULT_MS, &fault));
	EXPECT(all_bytes(fault.raw + 1, 0, 3));
	EXPECT(all_bytes(fault.raw + 12, 0, 4));
}

static void flags_are_defined(void)
{
	struct fault fault;

	EXPECT(disk_up(&disks[0], DOMAIN));
	cause(&disks[0], DATA);
	REQUIRE(iommu_next_fault(FAULT_MS, &fault));
	EXPECT_EQ(fault.flags & ~(FAULT_F_READ | FAULT_F_WRITE | FAULT_F_ADDRESS), 0);
}

static void endpoint_is_valid(void)
{
	struct fault fault;

	for (unsigned i = 0; i < num_disks; i++)
		EXPECT(disk_up(&disks[i], DOMAIN));
	for (unsigned i = 0; i < num_disks; i++) {
		cause(&disks[i], DATA + i * PAGE);
		REQUIRE(iommu_next_fault(FAULT_MS, &fault));
		/* There may be one for each piece of the access. */
		do {
			EXPECT_EQ(fault.endpoint, disks[i].endpoint);
			iommu_repost(&fault);
		} while (iommu_next_fault(QUIET_MS, &fault));
	}
}

static void address_where_given(void)
{
	static const uint64_t addresses[] = { DATA, DATA + 0xabc, FAR + 1, 0x123456789abcull };
	struct fault fault;

	EXPECT(disk_up(&disks[0], DOMAIN));
	for (unsigned i = 0; i < ARRAY_SIZE(addresses); i++) {
		cause(&disks[0], addresses[i]);
		REQUIRE(iommu_next_fault(FAULT_MS, &fault));
		do {
			if (fault.flags & FAULT_F_ADDRESS)
				EXPECT(fault.address - addresses[i] < SECTOR);
			iommu_repost(&fault);
		} while (iommu_next_fault(QUIET_MS, &fault));
	}
}

/* Reason, direction, endpoint and address of all that can go wrong with an access. */
static void says_what_happened(void)
{
	for (unsigned i = 0; i < num_disks; i++) {
		struct disk *disk = &disks[i];
		uint64_t memory = pages(2);

		EXPECT(disk_up(disk, DOMAIN + i));
		EXPECT_EQ(iommu_map_pages(DOMAIN + i, DATA, memory, 1, MAP_READ), S_OK);
		EXPECT_EQ(iommu_map_pages(DOMAIN + i, DATA + PAGE, memory, 1, 0), S_OK);
		EXPECT_REFUSED(disk_io(disk, DISK_LOAD, 8, FAR + 0x40, SECTOR));
		EXPECT_FAULT(disk, FAULT_MAPPING, FAULT_F_WRITE, FAR + 0x40);
		EXPECT_REFUSED(disk_io(disk, DISK_STORE, SCRATCH_SECTOR, FAR + 0x40, SECTOR));
		EXPECT_FAULT(disk, FAULT_MAPPING, FAULT_F_READ, FAR + 0x40);
		EXPECT_REFUSED(disk_io(disk, DISK_LOAD, 8, DATA + 7, SECTOR));
		EXPECT_FAULT(disk, FAULT_MAPPING, FAULT_F_WRITE, DATA + 7);
		EXPECT_REFUSED(disk_io(disk, DISK_STORE, SCRATCH_SECTOR, DATA + PAGE + 7, SECTOR));
		EXPECT_FAULT(disk, FAULT_MAPPING, FAULT_F_READ, DATA + PAGE + 7);
		EXPECT_EQ(iommu_detach(DOMAIN + i, disk->endpoint), S_OK);
		disk_submit(disk, DISK_FLUSH, 0, NULL, 0);
		EXPECT_FAULT_IN_PAGE(disk, FAULT_DOMAIN, FAULT_F_READ, disk->ring.desc.iova);
		EXPECT(disk_outcome(disk, QUIET_MS) != IO_OK);
	}
	EXPECT_NO_FAULT();
}

/*
 * Buffers of each size that is too short. A report may be left out, wait for a
 * better buffer or come in a shorter form, but never go on in the next buffer.
 */
static void short_buffers(void)
{
	static const uint32_t sizes[] = { 1, 4, 8, 12, 15, 16, 20, 23 };

	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct disk *disk = &disks[0];
		struct fault fault;
		unsigned written = 0;

		EXPECT(fresh());
		EXPECT(iommu_start(iommu.features));
		iommu_post_events(4, sizes[i]);
		EXPECT(disk_up(disk, DOMAIN));
		cause(disk, DATA);
		while (iommu_next_fault(QUIET_MS, &fault)) {
			EXPECT(fault.used <= sizes[i]);
			EXPECT(all_bytes(fault.raw + sizes[i], UNTOUCHED, 24));
			written += fault.used > 0;
			if (fault.used >= 12) {
				EXPECT_EQ(fault.reason, FAULT_MAPPING);
				EXPECT_EQ(fault.endpoint, disk->endpoint);
				EXPECT(!(fault.flags & FAULT_F_ADDRESS));
			}
		}
		EXPECT(written <= 1);
		EXPECT_EQ(iommu_attach(DOMAIN + 1, disk->endpoint, 0), S_OK);
	}
}

/* One buffer of several descriptors is one buffer. */
static void buffer_in_pieces(void)
{
	uint64_t memory;
	struct seg seg[8];
	uint32_t id, used;

	EXPECT(fresh());
	EXPECT(iommu_start(iommu.features));
	memory = pages(1);
	memset(phys(memory), UNTOUCHED, PAGE);
	for (unsigned i = 0; i < 8; i++)
		seg[i] = (struct seg){ memory + 16 * i, 3, true };
	vring_add(&iommu.events, seg, 8);
	vring_kick(&iommu.events);
	EXPECT(disk_up(&disks[0], DOMAIN));
	cause(&disks[0], DATA);
	REQUIRE(vring_wait(&iommu.events, FAULT_MS, &id, &used));
	EXPECT_EQ(used, FAULT_SIZE);
	for (unsigned i = 0; i < 8; i++)
		memcpy(iommu.event + 3 * i, phys(memory + 16 * i), 3);
	EXPECT_EQ(iommu.event[0], FAULT_MAPPING);
	EXPECT_EQ(get32(iommu.event + 8), disks[0].endpoint);
}

/* A hundred faults and no buffer: dropped or kept, but the device goes on, and so do reports. */
static void no_buffer(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory;
	struct fault fault;

	EXPECT(fresh());
	EXPECT(iommu_start(iommu.features));
	memory = pages(1);
	EXPECT(disk_up(disk, DOMAIN));
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 1, MAP_RW), S_OK);
	for (unsigned i = 0; i < 100; i++)
		cause(disk, FAR + i * PAGE);
	EXPECT_LOADS(disk, DATA, memory);
	/* All that was kept comes out whole. Each takes a turn of the host's threads. */
	iommu_post_events(NUM_EVENTS, FAULT_SIZE);
	while (iommu_next_fault(10 * QUIET_MS, &fault)) {
		EXPECT_EQ(fault.used, FAULT_SIZE);
		EXPECT_EQ(fault.endpoint, disk->endpoint);
		EXPECT_EQ(fault.reason, FAULT_MAPPING);
		iommu_repost(&fault);
	}
	/* Then new ones come again. */
	cause(disk, DATA + PAGE);
	EXPECT_FAULT(disk, FAULT_MAPPING, FAULT_F_WRITE, DATA + PAGE);
}

/* A report that waits comes when there is a buffer, and only the newest are dropped. */
static void kept_reports(void)
{
	struct disk *disk = &disks[0];

	EXPECT(fresh());
	EXPECT(iommu_start(iommu.features));
	EXPECT(disk_up(disk, DOMAIN));
	for (unsigned i = 0; i < NUM_EVENTS; i++)
		cause(disk, FAR + i * PAGE);
	iommu_post_events(NUM_EVENTS, FAULT_SIZE);
	for (unsigned i = 0; i < NUM_EVENTS; i++)
		EXPECT_FAULT(disk, FAULT_MAPPING, FAULT_F_WRITE, FAR + i * PAGE);
	EXPECT_NO_FAULT();
}

static bool asks_for_reset(struct vdev *dev)
{
	uint64_t deadline = deadline_in(FAULT_MS);

	while (!(vdev_status(dev) & STATUS_NEEDS_RESET)) {
		if (deadline_passed(deadline))
			return false;
	}
	return true;
}

/* Errors that are no endpoint's: the device can't go on with its own queues. */
static void needs_reset(void)
{
	struct vring *ring = &iommu.requests;

	vring_offer(ring, 0xfff0);
	vring_publish(ring);
	iommu.dev.transport->notify(&iommu.dev, REQUEST_QUEUE);
	EXPECT(asks_for_reset(&iommu.dev));
	REQUIRE(fresh());
	EXPECT(!(vdev_status(&iommu.dev) & STATUS_NEEDS_RESET));
	EXPECT_EQ(iommu_attach(DOMAIN, disks[0].endpoint, 0), S_OK);
}

const struct test fault_tests[] = {
	{ "spec 54: a report's reserved bytes are zero", reserved_is_zero },
	{ "spec 55: a report's undefined flags are zero", flags_are_defined },
	{ "spec 56: a report names the endpoint", endpoint_is_valid },
	{ "spec 57: a report's address, where given, is right", address_where_given },
	{ "spec 58: a report isn't split over short buffers", short_buffers },
	{ "spec 58: a report fills a buffer of several descriptors", buffer_in_pieces },
	{ "spec 59: faults without a buffer hold up nothing", no_buffer },
	{ "spec 60: an error of no endpoint asks for a reset", needs_reset },
	{ "moat: reason, direction, endpoint and address of each fault", says_what_happened },
	{ "moat: reports wait for buffers, in order", kept_reports },
	{ NULL, NULL },
};
