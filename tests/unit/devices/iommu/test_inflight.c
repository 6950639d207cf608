/*
 * UNMAP means unmapped, shown with a real disk device whose backend is slow: it
 * touches the guest's memory until the test lets its requests end. No answer to
 * UNMAP, DETACH or a reset comes earlier, and no byte is written later.
 */

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include "devices/iommu/domain.h"
#include "devices/virtio/virtio_blk.h"
#include "vmm/base/log.h"

#define PAGE	 4096ULL
#define PAGES	 64
#define QSIZE	 16
#define ENDPOINT 8
#define DOMAIN	 1
/* RAM and IOVA are different numbers everywhere: IOVA = RAM + SHIFT. */
#define SHIFT  0x40000000ULL
#define DESC   (1 * PAGE)
#define AVAIL  (2 * PAGE)
#define USED   (3 * PAGE)
#define HEADER (4 * PAGE) /* 16 bytes each, the status bytes behind */
#define STATUS (5 * PAGE)
#define BUFFER (8 * PAGE) /* two pages for each request */
#define OTHER  (40 * PAGE)

static struct env {
	struct ram ram;
	struct iommu *iommu;
	struct dma_view *view;
	struct loop *loop;
	struct virtio_blk *blk;
	struct virtio_dev *dev;
	uint16_t avail;
	/* The backend. */
	struct block block;
	struct block_request *held[QSIZE];
	unsigned count;
	_Atomic unsigned submitted;
	struct iommu_op op;
	_Atomic unsigned answers;
} env;

static uint8_t *at(uint64_t gpa)
{
	return (uint8_t *)env.ram.host + gpa;
}

static void slow_submit(struct block *block, struct block_request *request)
{
	env.held[env.count++] = request;
	atomic_fetch_add(&env.submitted, 1);
}

static void slow_nothing(struct block *block)
{
}

static const struct block_ops slow_ops = { slow_submit, slow_nothing, slow_nothing };

/* What the host's kernel does at the end of a read: it writes, then tells. */
static void release(void *opaque)
{
	unsigned count = env.count;

	env.count = 0;
	for (unsigned i = 0; i < count; i++) {
		for (unsigned k = 0; k < env.held[i]->iovcnt; k++)
			memset(env.held[i]->iov[k].iov_base, 0xdd, env.held[i]->iov[k].iov_len);
		env.held[i]->done(env.held[i], 0);
	}
	env.block.batch_done(env.block.opaque);
}

static void let_io_end(void)
{
	loop_call(env.loop, release, NULL);
}

static void op_done(struct iommu_op *op)
{
	atomic_fetch_add(&env.answers, 1);
}

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
}

static int map(uint64_t gpa, unsigned pages)
{
	return iommu_map(env.iommu, DOMAIN, gpa + SHIFT, gpa + SHIFT + pages * PAGE - 1, gpa, 3, 3);
}

static int unmap(uint64_t gpa, unsigned pages)
{
	return iommu_unmap(env.iommu, DOMAIN, gpa + SHIFT, gpa + SHIFT + pages * PAGE - 1, &env.op);
}

static int attach(void)
{
	struct iommu_op op = { .done = op_done };

	return iommu_attach(env.iommu, DOMAIN, ENDPOINT, 0, 0, &op);
}

static void map_rings(void)
{
	cr_assert_eq(attach(), 0);
	cr_assert_eq(map(DESC, 3), 0);
	cr_assert_eq(map(HEADER, 2), 0);
	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(map(BUFFER + 2 * PAGE * i, 2), 0);
	cr_assert_eq(map(OTHER, 1), 0);
}

static void start_driver(void)
{
	const uint64_t ring[3] = { DESC + SHIFT, AVAIL + SHIFT, USED + SHIFT };
	uint64_t features = virtio_offered_features(env.dev) & ~VIRTIO_F_EVENT_IDX;

	memset(at(DESC), 0, 3 * PAGE);
	env.avail = 0;
	virtio_set_status(env.dev, 3);
	virtio_set_driver_features(env.dev, 0, (uint32_t)features);
	virtio_set_driver_features(env.dev, 1, (uint32_t)(features >> 32));
	virtio_set_status(env.dev, 11);
	virtio_set_queue_size(env.dev, 0, QSIZE);
	for (unsigned part = 0; part < 3; part++)
		virtio_set_queue_addr(env.dev, 0, part, false, (uint32_t)ring[part]);
	virtio_set_queue_enabled(env.dev, 0, true);
	virtio_set_status(env.dev, 15);
}

static void setup(void)
{
	static const struct virtio_blk_config config = {
		.name = "slow", .num_queues = 1, .queue_size = 256, .access_platform = true
	};

	log_set_level(LOG_ERROR);
	env.ram.size = PAGES * PAGE;
	env.ram.host = aligned_alloc(PAGE, env.ram.size);
	memset(env.ram.host, 0, env.ram.size);
	env.ram.count = 1;
	env.ram.region[0] = (struct ram_region){ GPA(0), env.ram.size, 0, env.ram.host };
	env.op.done = op_done;
	env.block.ops = &slow_ops;
	env.block.info = (struct block_info){ MIB(8), 512, 4096, false, false, false };
	cr_assert_eq(iommu_create(&env.iommu,
				  &(struct iommu_config){ .granule = PAGE, .address_width = 48 },
				  &env.ram, NULL),
		     0);
	cr_assert_eq(iommu_add_endpoint(env.iommu, ENDPOINT, "slow", NULL, 0, &env.view, NULL), 0);
	cr_assert_eq(loop_create(&env.loop, "slow", NULL), 0);
	cr_assert_eq(virtio_blk_create(&env.blk, &config, &env.block, env.view, env.loop, NULL), 0);
	env.dev = virtio_blk_virtio(env.blk);
	map_rings();
	start_driver();
}

static void teardown(void)
{
	let_io_end();
	virtio_host_reset(env.dev);
	virtio_blk_destroy(env.blk);
	loop_destroy(env.loop);
	iommu_destroy(env.iommu);
	free(env.ram.host);
}

TestSuite(inflight, .init = setup, .fini = teardown, .timeout = 60);

static void set_desc(unsigned i, uint64_t gpa, uint32_t len, uint16_t flags)
{
	uint64_t iova = gpa + SHIFT;
	uint16_t next = (uint16_t)(i + 1);

	memcpy(at(DESC) + 16 * i, &iova, 8);
	memcpy(at(DESC) + 16 * i + 8, &len, 4);
	memcpy(at(DESC) + 16 * i + 12, &flags, 2);
	memcpy(at(DESC) + 16 * i + 14, &next, 2);
}

/* A read of two pages into buffer @n; returns when the backend has it. */
static void start_read(unsigned n)
{
	unsigned before = env.submitted;
	uint16_t head = (uint16_t)(3 * n);

	memset(at(HEADER + 16 * n), 0, 16);
	*at(STATUS + n) = 0xee;
	set_desc(head, HEADER + 16 * n, 16, 1);
	set_desc(head + 1U, BUFFER + 2 * PAGE * n, 2 * PAGE, 3);
	set_desc(head + 2U, STATUS + n, 1, 2);
	memcpy(at(AVAIL) + 4 + 2 * (env.avail % QSIZE), &head, 2);
	atomic_store((_Atomic uint16_t *)(void *)(at(AVAIL) + 2), ++env.avail);
	virtio_kick(env.dev, 0);
	for (unsigned i = 0; env.submitted == before; i++) {
		cr_assert_lt(i, 5000, "the backend got nothing");
		nap();
	}
}

/* From now on the guest uses buffer @n for something else. */
static void reuse(unsigned n)
{
	memset(at(BUFFER + 2 * PAGE * n), 0x11, 2 * PAGE);
}

static void expect_untouched(unsigned n)
{
	for (unsigned i = 0; i < 10; i++)
		nap();
	for (uint64_t i = 0; i < 2 * PAGE; i++)
		cr_assert_eq(*at(BUFFER + 2 * PAGE * n + i), 0x11, "written after the answer");
}

static void expect_no_answer(void)
{
	for (unsigned i = 0; i < 20; i++)
		nap();
	cr_assert_eq(env.answers, 0);
}

static void expect_answers(unsigned n)
{
	for (unsigned i = 0; env.answers < n; i++) {
		cr_assert_lt(i, 5000, "no answer");
		nap();
	}
}

Test(inflight, unmap_is_answered_after_the_read_and_not_before)
{
	start_read(0);
	cr_assert_eq(unmap(BUFFER, 2), IOMMU_PENDING);
	expect_no_answer();
	let_io_end();
	expect_answers(1);
	cr_assert_eq(*at(BUFFER), 0xdd, "the read had its memory to the end");
	reuse(0);
	expect_untouched(0);
}

Test(inflight, unmap_of_other_memory_is_answered_at_once)
{
	start_read(0);
	cr_assert_eq(unmap(OTHER, 1), VIRTIO_IOMMU_S_OK);
	/* Also memory that another read has been through. */
	start_read(1);
	let_io_end();
	start_read(2);
	cr_assert_eq(unmap(BUFFER + 2 * PAGE, 2), VIRTIO_IOMMU_S_OK);
	cr_assert_eq(unmap(BUFFER, 2), VIRTIO_IOMMU_S_OK);
}

Test(inflight, unmap_of_several_reads_waits_for_the_last)
{
	start_read(0);
	start_read(1);
	cr_assert_eq(unmap(BUFFER, 4), IOMMU_PENDING);
	cr_assert_eq(map(BUFFER, 2), 0, "the addresses are free at once");
	expect_no_answer();
	let_io_end();
	expect_answers(1);
}

Test(inflight, detach_is_answered_after_the_read)
{
	start_read(0);
	cr_assert_eq(iommu_detach(env.iommu, DOMAIN, ENDPOINT, &env.op), IOMMU_PENDING);
	expect_no_answer();
	let_io_end();
	expect_answers(1);
	reuse(0);
	expect_untouched(0);
}

Test(inflight, reset_of_the_iommu_is_done_after_the_read)
{
	start_read(0);
	start_read(1);
	cr_assert_eq(iommu_reset(env.iommu, &env.op), IOMMU_PENDING);
	expect_no_answer();
	let_io_end();
	expect_answers(1);
	reuse(0);
	reuse(1);
	expect_untouched(0);
	expect_untouched(1);
}

Test(inflight, reset_of_the_device_is_done_after_the_read)
{
	start_read(0);
	virtio_set_status(env.dev, 0);
	for (unsigned i = 0; i < 20; i++)
		nap();
	cr_assert_neq(virtio_get_status(env.dev), 0, "the device may still write");
	let_io_end();
	virtio_wait_reset(env.dev);
	cr_assert_eq(virtio_get_status(env.dev), 0);
	reuse(0);
	expect_untouched(0);
	/* Nothing holds the memory any more, and the device works again. */
	cr_assert_eq(unmap(BUFFER, 2), VIRTIO_IOMMU_S_OK);
	cr_assert_eq(map(BUFFER, 2), VIRTIO_IOMMU_S_OK);
	start_driver();
	start_read(0);
}

static void *reset_system(void *opaque)
{
	/* As the machine does it: the sources of DMA, then the IOMMU. */
	virtio_host_reset(env.dev);
	iommu_system_reset(env.iommu);
	atomic_fetch_add(&env.answers, 1);
	return NULL;
}

Test(inflight, reset_of_the_system_is_done_after_the_read)
{
	pthread_t thread;

	start_read(0);
	start_read(1);
	cr_assert_eq(unmap(BUFFER, 2), IOMMU_PENDING);
	pthread_create(&thread, NULL, reset_system, NULL);
	expect_no_answer();
	let_io_end();
	expect_answers(2);
	pthread_join(thread, NULL);
	reuse(0);
	reuse(1);
	expect_untouched(0);
	expect_untouched(1);
	cr_assert_eq(map(BUFFER, 2), VIRTIO_IOMMU_S_NOENT, "no domain is left");
}
