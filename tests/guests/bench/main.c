/*
 * The guest that measures a virtio-iommu and what it costs a disk's I/O. It needs
 * one and two virtio-blk devices, one of them translated, both with the same
 * contents (bench.h). What it prints is for tests/bench/compare; "ticks N" in the
 * first and the last line tell how fast its clock is. The word "idle" on the
 * command line: have the devices started and used once, then do nothing for ever.
 */
#include "tests/guests/arch.h"
#include "tests/guests/bench/bench.h"

static uint64_t random_state = 88172645463325252ull;

uint64_t random_below(uint64_t limit)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % limit;
}

void report(const char *name, const uint64_t *value, unsigned n)
{
	print(name);
	for (unsigned i = 0; i < n; i++) {
		print(" ");
		print_unsigned(value[i]);
	}
	print("\n");
}

static void report_clock(void)
{
	const uint64_t ticks = arch_ticks();

	report("ticks", &ticks, 1);
}

static bool find_disks(struct disk *ret_plain, struct disk *ret_translated)
{
	struct vdev found[MAX_DISKS];
	unsigned n = vdev_find(VIRTIO_ID_BLOCK, found, MAX_DISKS), plain = 0, translated = 0;

	for (unsigned i = 0; i < n; i++) {
		struct disk disk = { .dev = found[i], .endpoint = found[i].endpoint };

		/* Some tables name the others too. */
		if (vdev_offered(&found[i]) & F_ACCESS_PLATFORM) {
			*ret_translated = disk;
			translated++;
		} else {
			*ret_plain = disk;
			plain++;
		}
	}
	return plain == 1 && translated == 1;
}

void guest_main(void)
{
	static struct disk plain, translated;

	if (!iommu_find() || !iommu_start(~0ull & ~F_BYPASS))
		bail_out("there is no virtio-iommu, or it doesn't start");
	if (!find_disks(&plain, &translated))
		bail_out("there aren't a disk that is translated and one that isn't");
	batch_init();
	if (has_word(arch_cmdline(), "idle")) {
		if (!disk_up(&translated, 1))
			bail_out("the disk doesn't start");
		print("idle\n");
		arch_idle();
	}
	report_clock();
	bench_reads(&plain, &translated);
	bench_requests(&translated);
	report_clock();
	arch_power_off();
}
