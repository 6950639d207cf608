#include "tests/guests/virtio/disk.h"
#include "tests/guests/virtio/iommu.h"

#define HEADER	  16u
#define STATUS_AT 64u /* in the control page */
#define NO_STATUS 0xee

struct disk disks[MAX_DISKS];
unsigned num_disks;

void disks_find(void)
{
	struct vdev found[MAX_DISKS];
	unsigned n = vdev_find(VIRTIO_ID_BLOCK, found, MAX_DISKS);

	num_disks = 0;
	for (unsigned i = 0; i < n; i++) {
		if (!found[i].translated)
			continue;
		disks[num_disks++] =
			(struct disk){ .dev = found[i], .endpoint = found[i].endpoint };
	}
}

/* No two sectors of any two disks are alike, nor is a sector shifted by some bytes. */
uint8_t disk_byte(const struct disk *disk, uint64_t sector, unsigned offset)
{
	uint32_t x = (uint32_t)(sector * SECTOR + offset) + ((uint32_t)(disk - disks) << 24);

	x *= 2654435761u;
	x ^= x >> 15;
	return (uint8_t)(x * 2246822519u >> 24);
}

void disk_fill_pattern(const struct disk *disk, uint64_t sector, void *to, size_t size)
{
	uint8_t *bytes = to;

	for (size_t i = 0; i < size; i++)
		bytes[i] = disk_byte(disk, sector + i / SECTOR, i % SECTOR);
}

bool disk_pattern_at(const struct disk *disk, uint64_t sector, const void *at, size_t size)
{
	const uint8_t *bytes = at;

	for (size_t i = 0; i < size; i++) {
		if (bytes[i] != disk_byte(disk, sector + i / SECTOR, i % SECTOR))
			return false;
	}
	return true;
}

void disk_place(struct disk *disk)
{
	struct vring *ring = &disk->ring;

	disk->memory = pages(4);
	disk->table = NULL;
	disk->control_iova = disk->memory + 3 * PAGE;
	ring->desc = ring_part_at(disk->memory, disk->memory);
	ring->avail = ring_part_at(disk->memory + PAGE, disk->memory + PAGE);
	ring->used = ring_part_at(disk->memory + 2 * PAGE, disk->memory + 2 * PAGE);
}

bool disk_start(struct disk *disk)
{
	uint64_t features = F_VERSION_1 | F_ACCESS_PLATFORM | F_INDIRECT_DESC | F_EVENT_IDX;

	features &= vdev_offered(&disk->dev);
	disk->ring.event_idx = features & F_EVENT_IDX;
	if (!vdev_negotiate(&disk->dev, features))
		return false;
	vring_init(&disk->ring, &disk->dev, 0, DISK_QUEUE_SIZE);
	vring_enable(&disk->ring);
	vdev_add_status(&disk->dev, STATUS_DRIVER_OK);
	return true;
}

bool disk_map_own(const struct disk *disk, uint32_t domain)
{
	return iommu_map_pages(domain, disk->memory, disk->memory, 4, MAP_RW) == S_OK;
}

bool disk_up(struct disk *disk, uint32_t domain)
{
	disk_place(disk);
	/* A device starts some time after DRIVER_OK: with the first answer it has. */
	return iommu_attach(domain, disk->endpoint, 0) == S_OK && disk_map_own(disk, domain) &&
	       disk_start(disk) && disk_io_segs(disk, DISK_FLUSH, 0, NULL, 0) == IO_OK;
}

void disk_submit(struct disk *disk, enum disk_type type, uint64_t sector, const struct seg *data,
		 unsigned n)
{
	uint8_t *control = phys(disk->memory + 3 * PAGE);
	struct seg seg[DISK_QUEUE_SIZE];

	put32(control, type);
	put32(control + 4, 0);
	put64(control + 8, sector);
	control[STATUS_AT] = NO_STATUS;
	seg[0] = (struct seg){ disk->control_iova, HEADER, false };
	for (unsigned i = 0; i < n; i++) {
		seg[1 + i] = data[i];
		seg[1 + i].write = type == DISK_LOAD;
	}
	seg[1 + n] = (struct seg){ disk->control_iova + STATUS_AT, 1, true };
	if (disk->table)
		vring_add_indirect(&disk->ring, disk->table, seg, n + 2);
	else
		vring_add(&disk->ring, seg, n + 2);
	vring_kick(&disk->ring);
}

enum outcome disk_outcome(struct disk *disk, unsigned ms)
{
	const volatile uint8_t *control = phys(disk->memory + 3 * PAGE);
	uint32_t id, len;

	if (!vring_wait(&disk->ring, ms, &id, &len))
		return vdev_status(&disk->dev) & STATUS_NEEDS_RESET ? IO_NEEDS_RESET : IO_SILENT;
	return control[STATUS_AT] == NO_STATUS ? IO_ODD : (enum outcome)control[STATUS_AT];
}

enum outcome disk_io_segs(struct disk *disk, enum disk_type type, uint64_t sector,
			  const struct seg *seg, unsigned n)
{
	disk_submit(disk, type, sector, seg, n);

	enum outcome outcome = disk_outcome(disk, PATIENCE_MS);

	/* What a device may do about a fault; the next I/O shall work all the same. */
	if (outcome == IO_NEEDS_RESET)
		disk_start(disk);
	return outcome;
}

enum outcome disk_io(struct disk *disk, enum disk_type type, uint64_t sector, uint64_t iova,
		     uint32_t len)
{
	const struct seg seg = { .addr = iova, .len = len };

	return disk_io_segs(disk, type, sector, &seg, 1);
}
