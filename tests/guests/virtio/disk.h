#ifndef TESTS_GUESTS_VIRTIO_DISK_H
#define TESTS_GUESTS_VIRTIO_DISK_H

/*
 * A virtio-blk device as an engine that does DMA wherever it is told to: loading
 * from the disk writes to memory, storing to it reads from memory. Its ring and
 * its control page (header and status byte) are four pages that stay out of the
 * way of what is being tested.
 */

#include "tests/guests/virtio/vring.h"

#define SECTOR	  512u
#define MAX_DISKS 4
/* Of its ring, and the most data segments of a request. */
#define DISK_QUEUE_SIZE 64
#define DISK_MAX_SEGS	(DISK_QUEUE_SIZE - 2)
/* Sectors with a known pattern, from sector 0: see disk_byte. */
#define PATTERN_SECTORS 512u
/* ... and some without, for what shall not arrive there. */
#define SCRATCH_SECTOR 1024u

enum disk_type { DISK_LOAD = 0, DISK_STORE = 1, DISK_FLUSH = 4 };

/* What becomes of an I/O. */
enum outcome {
	IO_OK = 0,
	IO_ERROR = 1, /* completed with IOERR */
	IO_UNSUPPORTED = 2,
	IO_SILENT = -1,	     /* not completed */
	IO_NEEDS_RESET = -2, /* not completed, and the device gave up */
	IO_ODD = -3,	     /* completed without a status */
};

struct disk {
	struct vdev dev;
	struct vring ring;
	uint32_t endpoint;
	uint64_t memory;       /* four pages: three of the ring, one of control */
	uint64_t control_iova; /* where the device sees the last one */
	/* Where requests put their descriptors: here, or (NULL) in the ring. Borrowed. */
	const struct ring_part *table;
};

extern struct disk disks[MAX_DISKS];
extern unsigned num_disks;

/* Find them, those that an IOMMU translates only. */
void disks_find(void);
/* Byte @offset of sector @sector's pattern. */
uint8_t disk_byte(const struct disk *disk, uint64_t sector, unsigned offset);
/* Do @size bytes at @at hold the pattern from @sector? */
bool disk_pattern_at(const struct disk *disk, uint64_t sector, const void *at, size_t size);
void disk_fill_pattern(const struct disk *disk, uint64_t sector, void *to, size_t size);

/* Four pages for the ring and the control page, seen by the device where they are. */
void disk_place(struct disk *disk);
/* Reset, negotiate, tell it the ring, DRIVER_OK. */
bool disk_start(struct disk *disk);
/* disk_place, ATTACH to @domain, MAP the four pages as identity, disk_start, a first FLUSH. */
bool disk_up(struct disk *disk, uint32_t domain);
/* Only the MAP of that, for a domain that the disk is to be attached to. */
bool disk_map_own(const struct disk *disk, uint32_t domain);

/*
 * Put a request with @n data segments into the ring and kick; several may be under way ...
 */
void disk_submit(struct disk *disk, enum disk_type type, uint64_t sector, const struct seg *seg,
		 unsigned n);
/* ... but only the status of the last one is known. Waits up to @ms. */
enum outcome disk_outcome(struct disk *disk, unsigned ms);
/* Both: the outcome of one I/O of one segment. */
enum outcome disk_io(struct disk *disk, enum disk_type type, uint64_t sector, uint64_t iova,
		     uint32_t len);
enum outcome disk_io_segs(struct disk *disk, enum disk_type type, uint64_t sector,
			  const struct seg *seg, unsigned n);

#endif
