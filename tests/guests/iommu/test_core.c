/* Rules of virtio's core that a hostile driver would break, for both kinds of device. */
#include "tests/guests/iommu/test.h"

#define DOMAIN 1

static void each_device(void (*fn)(struct vdev *dev))
{
	fn(&iommu.dev);
	for (unsigned i = 0; i < num_disks; i++)
		fn(&disks[i].dev);
}

static void unoffered_features(struct vdev *dev)
{
	uint64_t offered = vdev_offered(dev);

	EXPECT(vdev_reset(dev));
	vdev_add_status(dev, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
	vdev_accept(dev, offered);
	for (unsigned bit = 0; bit < 64; bit++) {
		uint64_t features = offered | 1ull << bit;

		if (offered == features)
			continue;
		dev->transport->set_features(dev, bit / 32, (uint32_t)(features >> (bit & 32)));
		vdev_add_status(dev, STATUS_FEATURES_OK);
		if (vdev_status(dev) & STATUS_FEATURES_OK) {
			EXPECT_EQ(bit, 64);
			return;
		}
		dev->transport->set_features(dev, bit / 32, (uint32_t)(offered >> (bit & 32)));
	}
	EXPECT(vdev_negotiate(dev, offered));
}

static void unoffered_features_refused(void)
{
	each_device(unoffered_features);
}

static void version_1(struct vdev *dev)
{
	EXPECT(!vdev_negotiate(dev, vdev_offered(dev) & ~F_VERSION_1));
	EXPECT(!vdev_negotiate(dev, 0));
	EXPECT(vdev_negotiate(dev, F_VERSION_1 | (vdev_offered(dev) & F_ACCESS_PLATFORM)));
}

static void version_1_needed(void)
{
	each_device(version_1);
}

static void access_platform(void)
{
	EXPECT(!(vdev_offered(&iommu.dev) & F_ACCESS_PLATFORM));
	for (unsigned i = 0; i < num_disks; i++) {
		EXPECT(vdev_offered(&disks[i].dev) & F_ACCESS_PLATFORM);
		EXPECT(!vdev_negotiate(&disks[i].dev,
				       vdev_offered(&disks[i].dev) & ~F_ACCESS_PLATFORM));
	}
}

static void features_frozen(struct vdev *dev)
{
	uint32_t bits;

	EXPECT(vdev_negotiate(dev, vdev_offered(dev)));
	vdev_accept(dev, 0);
	if (dev->transport->get_features(dev, 1, &bits))
		EXPECT_EQ(bits, (uint32_t)(vdev_offered(dev) >> 32));
	EXPECT(vdev_status(dev) & STATUS_FEATURES_OK);
}

static void features_freeze(void)
{
	each_device(features_frozen);
}

/* A request is waiting, and kicked for, all the time: it is served after DRIVER_OK and not before.
 */
static void iommu_before_driver_ok(void)
{
	uint64_t features = iommu.features;
	uint32_t id, used;

	EXPECT(iommu_start(features));
	EXPECT(vdev_negotiate(&iommu.dev, features));
	vring_init(&iommu.requests, &iommu.dev, REQUEST_QUEUE, iommu.requests.size);
	vring_enable(&iommu.requests);

	const struct seg seg[] = {
		{ (uintptr_t)iommu.request, fill_attach(iommu.request, 1, disks[0].endpoint, 0),
		  false },
		{ (uintptr_t)iommu.reply, TAIL_SIZE, true },
	};

	memset(iommu.reply, UNTOUCHED, PAGE);
	vring_add(&iommu.requests, seg, 2);
	vring_kick(&iommu.requests);
	delay(QUIET_MS);
	EXPECT_EQ(vring_used_idx(&iommu.requests), 0);
	EXPECT(all_bytes(iommu.reply, UNTOUCHED, PAGE));
	vdev_add_status(&iommu.dev, STATUS_DRIVER_OK);
	iommu.dev.transport->notify(&iommu.dev, REQUEST_QUEUE);
	EXPECT(vring_wait(&iommu.requests, FAULT_MS, &id, &used));
	EXPECT_EQ(iommu.reply[0], S_OK);
}

static void disk_before_driver_ok(void)
{
	struct disk *disk = &disks[0];
	uint64_t features = F_VERSION_1 | F_ACCESS_PLATFORM;
	const struct seg seg = { .addr = DATA, .len = PAGE };
	uint64_t memory = pages(1);

	disk_place(disk);
	EXPECT_EQ(iommu_attach(DOMAIN, disk->endpoint, 0), S_OK);
	EXPECT(disk_map_own(disk, DOMAIN));
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 1, MAP_RW), S_OK);
	memset(phys(memory), UNTOUCHED, PAGE);
	EXPECT(vdev_negotiate(&disk->dev, features & vdev_offered(&disk->dev)));
	disk->ring.event_idx = false;
	vring_init(&disk->ring, &disk->dev, 0, DISK_QUEUE_SIZE);
	vring_enable(&disk->ring);
	disk_submit(disk, DISK_LOAD, 8, &seg, 1);
	EXPECT_EQ(disk_outcome(disk, QUIET_MS), IO_SILENT);
	EXPECT(all_bytes(phys(memory), UNTOUCHED, PAGE));
	EXPECT_NO_FAULT();
	vdev_add_status(&disk->dev, STATUS_DRIVER_OK);
	disk->dev.transport->notify(&disk->dev, 0);
	EXPECT_EQ(disk_outcome(disk, FAULT_MS), IO_OK);
	EXPECT(disk_pattern_at(disk, 8, phys(memory), PAGE));
}

/* DRIVER_OK counts only after FEATURES_OK. */
static void driver_ok_without_features_ok(void)
{
	uint64_t features = iommu.features;

	EXPECT(vdev_reset(&iommu.dev));
	vdev_add_status(&iommu.dev, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
	vring_init(&iommu.requests, &iommu.dev, REQUEST_QUEUE, iommu.requests.size);
	vring_enable(&iommu.requests);
	vdev_add_status(&iommu.dev, STATUS_DRIVER_OK);

	const struct seg seg[] = {
		{ (uintptr_t)iommu.request, fill_attach(iommu.request, 1, disks[0].endpoint, 0),
		  false },
		{ (uintptr_t)iommu.reply, TAIL_SIZE, true },
	};

	memset(iommu.reply, UNTOUCHED, PAGE);
	vring_add(&iommu.requests, seg, 2);
	vring_kick(&iommu.requests);
	delay(QUIET_MS);
	EXPECT(all_bytes(iommu.reply, UNTOUCHED, PAGE));
	EXPECT(iommu_start(features));
	EXPECT_EQ(iommu_map_pages(1, DATA, 0, 1, MAP_READ), S_NOENT);
}

static void registers_after_reset(struct vdev *dev)
{
	uint16_t max;
	uint32_t bits;

	EXPECT(vdev_reset(dev));
	max = dev->transport->queue_max(dev, 0);
	EXPECT(max >= 64);
	EXPECT(vdev_negotiate(dev, vdev_offered(dev)));
	dev->transport->queue_place(dev, 0, 16, &(struct queue_addr){ PAGE, PAGE, PAGE });
	dev->transport->queue_enable(dev, 0);
	EXPECT(dev->transport->queue_enabled(dev, 0));
	EXPECT(vdev_reset(dev));
	EXPECT_EQ(vdev_status(dev), 0);
	EXPECT(!dev->transport->queue_enabled(dev, 0));
	EXPECT_EQ(dev->transport->queue_max(dev, 0), max);
	for (unsigned word = 0; word < 2; word++) {
		if (dev->transport->get_features(dev, word, &bits))
			EXPECT_EQ(bits, 0);
	}
}

static void state_after_reset(void)
{
	each_device(registers_after_reset);
}

static void no_such_queue(struct vdev *dev)
{
	EXPECT_EQ(dev->transport->queue_max(dev, 77), 0);
	EXPECT(!dev->transport->queue_enabled(dev, 77));
	dev->transport->queue_place(dev, 77, 16, &(struct queue_addr){ PAGE, PAGE, PAGE });
	dev->transport->queue_enable(dev, 77);
	EXPECT(!dev->transport->queue_enabled(dev, 77));
}

static void queues_that_arent(void)
{
	each_device(no_such_queue);
	for (unsigned i = 0; i < 300; i++)
		iommu.dev.transport->notify(&iommu.dev, i & 1 ? EVENT_QUEUE : REQUEST_QUEUE);
	EXPECT_EQ(iommu_attach(DOMAIN, disks[0].endpoint, 0), S_OK);
}

/*
 * Rings that break the rules (2.7). Each leaves a device that asks for a reset,
 * after which it is as good as new.
 */

enum breakage {
	HEAD_TOO_LARGE,
	INDEX_TOO_FAR,
	LOOP,
	NEXT_TOO_LARGE,
	READABLE_AFTER_WRITABLE,
	ADDRESS_OVERFLOW,
	INDIRECT_WITH_NEXT,
	INDIRECT_EMPTY,
	INDIRECT_ODD_SIZE,
	INDIRECT_NESTED,
	INDIRECT_NEXT_TOO_LARGE,
	NUM_BREAKAGES,
};

static void break_ring(struct vring *ring, enum breakage how)
{
	uint64_t at = ring->desc.iova;
	/* A table in a spare part of the ring's own page, which every device may read. */
	uint16_t spare = (uint16_t)(ring->size / 2);
	uint64_t table = at + spare * DESC_SIZE;

	switch (how) {
	case HEAD_TOO_LARGE:
		vring_offer(ring, ring->size);
		break;
	case INDEX_TOO_FAR:
		vring_set_avail_idx(ring, (uint16_t)(ring->next_avail + ring->size + 1));
		return;
	case LOOP:
		vring_write_desc(ring, 0, at, 1, DESC_F_NEXT, 1);
		vring_write_desc(ring, 1, at, 1, DESC_F_NEXT, 0);
		vring_offer(ring, 0);
		break;
	case NEXT_TOO_LARGE:
		vring_write_desc(ring, 0, at, 1, DESC_F_NEXT, ring->size);
		vring_offer(ring, 0);
		break;
	case READABLE_AFTER_WRITABLE:
		vring_write_desc(ring, 0, at, 1, DESC_F_NEXT | DESC_F_WRITE, 1);
		vring_write_desc(ring, 1, at, 1, 0, 0);
		vring_offer(ring, 0);
		break;
	case ADDRESS_OVERFLOW:
		vring_write_desc(ring, 0, UINT64_MAX - 10, 100, 0, 0);
		vring_offer(ring, 0);
		break;
	case INDIRECT_WITH_NEXT:
		vring_write_desc(ring, spare, at, 1, 0, 0);
		vring_write_desc(ring, 0, table, DESC_SIZE, DESC_F_INDIRECT | DESC_F_NEXT, 1);
		vring_offer(ring, 0);
		break;
	case INDIRECT_EMPTY:
		vring_write_desc(ring, 0, table, 0, DESC_F_INDIRECT, 0);
		vring_offer(ring, 0);
		break;
	case INDIRECT_ODD_SIZE:
		vring_write_desc(ring, spare, at, 1, 0, 0);
		vring_write_desc(ring, 0, table, DESC_SIZE + 1, DESC_F_INDIRECT, 0);
		vring_offer(ring, 0);
		break;
	case INDIRECT_NESTED:
		vring_write_desc(ring, spare, table, DESC_SIZE, DESC_F_INDIRECT, 0);
		vring_write_desc(ring, 0, table, DESC_SIZE, DESC_F_INDIRECT, 0);
		vring_offer(ring, 0);
		break;
	case INDIRECT_NEXT_TOO_LARGE:
		vring_write_desc(ring, spare, at, 1, DESC_F_NEXT, 1);
		vring_write_desc(ring, 0, table, DESC_SIZE, DESC_F_INDIRECT, 0);
		vring_offer(ring, 0);
		break;
	default:
		break;
	}
	vring_publish(ring);
}

static bool broken(struct vring *ring)
{
	uint64_t deadline = deadline_in(FAULT_MS);

	ring->dev->transport->notify(ring->dev, ring->index);
	while (!(vdev_status(ring->dev) & STATUS_NEEDS_RESET)) {
		if (deadline_passed(deadline))
			return false;
	}
	return true;
}

static void broken_iommu_rings(void)
{
	for (unsigned how = 0; how < NUM_BREAKAGES; how++) {
		EXPECT(fresh());
		break_ring(&iommu.requests, (enum breakage)how);
		if (!broken(&iommu.requests))
			EXPECT_EQ(how, NUM_BREAKAGES);
	}
	EXPECT(fresh());
	EXPECT_EQ(iommu_attach(DOMAIN, disks[0].endpoint, 0), S_OK);
}

static void broken_disk_rings(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory;

	for (unsigned how = 0; how < NUM_BREAKAGES; how++) {
		EXPECT(fresh());
		EXPECT(disk_up(disk, DOMAIN));
		break_ring(&disk->ring, (enum breakage)how);
		if (!broken(&disk->ring))
			EXPECT_EQ(how, NUM_BREAKAGES);
	}
	EXPECT(fresh());
	memory = pages(1);
	EXPECT(disk_up(disk, DOMAIN));
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 1, MAP_RW), S_OK);
	EXPECT_LOADS(disk, DATA, memory);
}

/* I/O under way when the disk is reset: nothing is written after the reset is over. */
static void disk_reset_under_io(void)
{
	struct disk *disk = &disks[0];
	uint64_t memory = pages(64);
	const struct seg seg = { .addr = DATA, .len = 64 * PAGE };

	EXPECT_EQ(iommu_attach(DOMAIN, disk->endpoint, 0), S_OK);
	EXPECT_EQ(iommu_map_pages(DOMAIN, DATA, memory, 64, MAP_RW), S_OK);
	for (unsigned i = 0; i < 5; i++) {
		disk_place(disk);
		EXPECT(disk_map_own(disk, DOMAIN));
		EXPECT(disk_start(disk));
		disk_submit(disk, DISK_LOAD, 0, &seg, 1);
		EXPECT(vdev_reset(&disk->dev));

		uint16_t used = vring_used_idx(&disk->ring);

		memset(phys(memory), UNTOUCHED, 64 * PAGE);
		delay(1);
		EXPECT(all_bytes(phys(memory), UNTOUCHED, 64 * PAGE));
		EXPECT_EQ(vring_used_idx(&disk->ring), used);
	}
}

const struct test core_tests[] = {
	{ "core: FEATURES_OK is refused for a feature that isn't offered",
	  unoffered_features_refused },
	{ "core: features can't change after FEATURES_OK", features_freeze },
	{ "core: the IOMMU serves nothing before DRIVER_OK", iommu_before_driver_ok },
	{ "core: a disk serves nothing before DRIVER_OK", disk_before_driver_ok },
	{ "core: state after a device reset", state_after_reset },
	{ "core: queues that don't exist", queues_that_arent },
	{ "core: nothing is written after a reset of a disk under I/O", disk_reset_under_io },
	{ "core: a request queue that breaks the rules", broken_iommu_rings },
	{ "core: a disk's queue that breaks the rules", broken_disk_rings },
	{ "moat: DRIVER_OK without FEATURES_OK starts nothing", driver_ok_without_features_ok },
	{ "moat: FEATURES_OK needs VERSION_1", version_1_needed },
	{ "moat: FEATURES_OK of a translated device needs ACCESS_PLATFORM", access_platform },
	{ NULL, NULL },
};
