/*
 * A guest that floods: faults, mappings, kicks, resets, config writes, as fast as
 * it can. moat's memory stays where it was, the log stays readable, and what had
 * to be dropped is counted.
 */

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
#include "devices/iommu/domain.h"
#include "devices/iommu/viommu.h"
#include "vmm/base/log.h"

#define PAGE	 4096ULL
#define ENDPOINT 8
#define FLOOD	 100000
/* For what the allocator, the C library and Criterion may take meanwhile. */
#ifdef __SANITIZE_ADDRESS__
#define SLACK MIB(300) /* and its quarantine of what was freed */
#else
#define SLACK MIB(2)
#endif

static struct env {
	struct ram ram;
	struct dma_view identity, *view;
	struct dma_port port;
	struct iommu *iommu;
	struct loop *loop;
	struct viommu *viommu;
	struct virtio_dev *dev;
} env;

static void start_driver(void)
{
	uint64_t features = virtio_offered_features(env.dev);

	virtio_set_status(env.dev, 3);
	virtio_set_driver_features(env.dev, 0, (uint32_t)features);
	virtio_set_driver_features(env.dev, 1, (uint32_t)(features >> 32));
	virtio_set_status(env.dev, 11);
	for (unsigned q = 0; q < 2; q++) {
		virtio_set_queue_size(env.dev, q, 16);
		for (unsigned part = 0; part < 3; part++)
			virtio_set_queue_addr(env.dev, q, part, false,
					      (uint32_t)((1 + 3 * q + part) * PAGE));
		virtio_set_queue_enabled(env.dev, q, true);
	}
	virtio_set_status(env.dev, 15);
}

static void setup(void)
{
	const struct iommu_config config = { .granule = PAGE, .address_width = 48 };

	/* Else the kernel fills up what was asked for in huge pages when it comes to that. */
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	env.ram.size = 16 * PAGE;
	env.ram.host = aligned_alloc(PAGE, env.ram.size);
	memset(env.ram.host, 0, env.ram.size);
	env.ram.count = 1;
	env.ram.region[0] = (struct ram_region){ GPA(0), env.ram.size, 0, env.ram.host };
	dma_view_init_identity(&env.identity, &env.ram);
	cr_assert_eq(iommu_create(&env.iommu, &config, &env.ram, NULL), 0);
	cr_assert_eq(iommu_add_endpoint(env.iommu, ENDPOINT, "flood", NULL, 0, &env.view, NULL), 0);
	cr_assert_eq(dma_port_init(&env.port, env.view), 0);
	cr_assert_eq(loop_create(&env.loop, "viommu", NULL), 0);
	cr_assert_eq(viommu_create(&env.viommu, "viommu", env.iommu, &env.identity, env.loop, NULL),
		     0);
	env.dev = viommu_virtio(env.viommu);
	start_driver();
}

static void teardown(void)
{
	virtio_host_reset(env.dev);
	dma_port_finish(&env.port);
	viommu_destroy(env.viommu);
	loop_destroy(env.loop);
	iommu_destroy(env.iommu);
	free(env.ram.host);
}

TestSuite(flood, .init = setup, .fini = teardown, .timeout = 120);

/* Resident memory in bytes. */
static uint64_t resident(void)
{
	unsigned long total, pages;
	FILE *f = fopen("/proc/self/statm", "r");

	cr_assert(f && fscanf(f, "%lu %lu", &total, &pages) == 2);
	fclose(f);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static unsigned count_lines(int fd)
{
	unsigned lines = 0;
	char buf[4096];
	ssize_t n;

	lseek(fd, 0, SEEK_SET);
	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			lines += buf[i] == '\n';
	}
	return lines;
}

Test(flood, faults_are_counted_dropped_and_logged_now_and_then)
{
	int log = memfd_create("log", 0), err = dup(STDERR_FILENO);
	struct iommu_endpoint_stats stats;
	uint64_t before = resident();
	double start = seconds();

	dup2(log, STDERR_FILENO);
	for (unsigned i = 0; i < FLOOD; i++)
		cr_expect_neq(dma_write(&env.port, IOVA(i * PAGE), "x", 1), 0);
	dup2(err, STDERR_FILENO);
	double took = seconds() - start;

	iommu_get_stats(env.iommu, 0, &stats);
	cr_assert_eq(stats.faults, FLOOD);
	/* Nobody offers event buffers: what doesn't fit into the queue (and one in hand) is lost.
	 */
	cr_assert_geq(stats.dropped_events, FLOOD - IOMMU_MAX_FAULTS - 1);
	cr_assert_leq(stats.dropped_events, FLOOD);
	unsigned lines = count_lines(log);

	cr_assert_geq(lines, 1);
	cr_assert_leq(lines, LOG_LIMIT_BURST + 2 + (unsigned)took, "%u lines in %.1f s", lines,
		      took);
	cr_assert_leq(resident(), before + SLACK);
}

Test(flood, mappings_end_at_the_limit)
{
	struct iommu_op op = { 0 };
	struct iommu_memory memory;
	uint64_t i = 0;

	cr_assert_eq(iommu_attach(env.iommu, 1, ENDPOINT, 0, 0, &op), 0);
	while (iommu_map(env.iommu, 1, i * PAGE, i * PAGE + PAGE - 1, 0, 3, 3) == 0)
		i++;
	cr_assert_eq(i, IOMMU_DEFAULT_DOMAIN_MAPPINGS);
	uint64_t full = resident();

	for (unsigned n = 0; n < FLOOD; n++, i++)
		cr_assert_eq(iommu_map(env.iommu, 1, i * PAGE, i * PAGE + PAGE - 1, 0, 3, 3),
			     VIRTIO_IOMMU_S_NOMEM);
	cr_assert_leq(resident(), full + SLACK);
	iommu_get_memory(env.iommu, &memory);
	cr_assert_leq(memory.bytes, 96 * IOMMU_DEFAULT_DOMAIN_MAPPINGS);
	/* Domains come and go with their mappings; what they leave is used again. */
	for (unsigned n = 0; n < FLOOD; n++) {
		cr_assert_eq(iommu_attach(env.iommu, 2 + n, ENDPOINT, 0, 0, &op), 0);
		for (uint64_t k = 0; k < 10; k++)
			cr_assert_eq(
				iommu_map(env.iommu, 2 + n, k * PAGE, k * PAGE + PAGE - 1, 0, 3, 3),
				0);
	}
	cr_assert_leq(resident(), full + SLACK);
}

Test(flood, kicks)
{
	uint64_t before = resident();

	for (unsigned i = 0; i < FLOOD; i++)
		virtio_kick(env.dev, i % 2);
	cr_assert_leq(resident(), before + SLACK);
	cr_assert_not(virtio_get_status(env.dev) & VIRTIO_STATUS_NEEDS_RESET);
}

Test(flood, resets_in_a_loop)
{
	uint64_t before = resident();

	for (unsigned i = 0; i < FLOOD / 50; i++) {
		virtio_set_status(env.dev, 0);
		virtio_wait_reset(env.dev);
		start_driver();
		virtio_kick(env.dev, 0);
	}
	cr_assert_leq(resident(), before + SLACK);
	cr_assert_eq(virtio_get_status(env.dev), 15);
}

Test(flood, config_writes)
{
	struct iommu_endpoint_stats stats;
	uint64_t before = resident();

	for (unsigned i = 0; i < FLOOD; i++) {
		uint8_t value = (uint8_t)i;

		virtio_config_write(env.dev, i % 40, &value, 1);
		value = i & 1;
		virtio_config_write(env.dev, 36, &value, 1);
	}
	cr_assert_leq(resident(), before + SLACK);
	cr_assert_eq(dma_write(&env.port, IOVA(15 * PAGE), "x", 1), 0, "the last one allowed it");
	iommu_get_stats(env.iommu, 0, &stats);
	cr_assert_eq(stats.faults, 0);
}
