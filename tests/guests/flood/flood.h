#ifndef TESTS_GUESTS_FLOOD_FLOOD_H
#define TESTS_GUESTS_FLOOD_FLOOD_H

/*
 * A guest that does what it may, as often as it can. Disk i is attached to domain
 * DOMAIN + i, where its first page of data is at DATA.
 */

#include "tests/guests/virtio/batch.h"
#include "tests/guests/virtio/disk.h"

#define DOMAIN 1u

/* IOVAs that no identity mapping of a ring covers: all our memory is below. */
#define DATA	0xa0000000ull
#define NOWHERE 0xb0000000ull

/* What disk_up and its page of data take of a domain's mappings. */
#define OWN_MAPPINGS 2u

/*
 * A flood of @rounds rounds. It begins and ends with devices that are up. False when
 * something was answered as it shouldn't.
 */
struct flood {
	const char *word, *name;
	bool (*run)(unsigned rounds);
};

extern const struct flood dma_floods[], mapping_floods[], device_floods[];

/* All devices from scratch: bypass off, no event buffers, every disk reaches DATA. */
bool up(void);

/* Has every disk load what it has, and compares. */
bool disks_load(void);

/* Requests of @disk that the IOMMU refuses, and fault reports that arrived, since the start. */
struct flood_counts {
	uint64_t refused, reports;
};

extern struct flood_counts counts;

/* So many fit into its queue, with three descriptors each. */
#define REFUSED_AT_ONCE (DISK_QUEUE_SIZE / 3)

/* Have each disk try @n requests at once, all of which the IOMMU refuses. */
bool disks_refused(unsigned n);

#endif
