/* Requests of the disks that reach for what isn't mapped. */
#include "tests/guests/flood/flood.h"

struct flood_counts counts;

/* All of one kind, as requests that are under way together share a header. */
static bool disk_refused(struct disk *disk, unsigned n)
{
	enum disk_type type = counts.refused % 2 ? DISK_LOAD : DISK_STORE;
	uint32_t id, len;

	for (unsigned i = 0; i < n; i++) {
		uint64_t at = NOWHERE + counts.refused++ % PAGE * PAGE;
		const struct seg seg = { .addr = at, .len = SECTOR };

		disk_submit(disk, type, SCRATCH_SECTOR, &seg, 1);
	}
	for (unsigned i = 1; i < n; i++) {
		if (!vring_wait(&disk->ring, PATIENCE_MS, &id, &len))
			return false;
	}
	return disk_outcome(disk, PATIENCE_MS) == IO_ERROR;
}

bool disks_refused(unsigned n)
{
	for (unsigned i = 0; i < num_disks; i++) {
		if (!disk_refused(&disks[i], n))
			return false;
	}
	return true;
}

static bool without_buffers(unsigned rounds)
{
	while (rounds--) {
		if (!disks_refused(REFUSED_AT_ONCE))
			return false;
	}
	return true;
}

static bool take_reports(void)
{
	struct fault fault;

	while (iommu_next_fault(0, &fault)) {
		if (fault.used != FAULT_SIZE || fault.reason != FAULT_MAPPING ||
		    fault.address < NOWHERE)
			return false;
		counts.reports++;
		iommu_repost(&fault);
	}
	return true;
}

static bool with_buffers(unsigned rounds)
{
	iommu_post_events(NUM_EVENTS, FAULT_SIZE);
	while (rounds--) {
		if (!disks_refused(REFUSED_AT_ONCE) || !take_reports())
			return false;
	}
	return true;
}

const struct flood dma_floods[] = {
	{ "faults", "faults that nobody wants reports of", without_buffers },
	{ "faults", "faults that are reported", with_buffers },
	{ NULL, NULL, NULL },
};
