/*
 * UNMAP means unmapped: what a removal waits for, and what it doesn't wait for.
 */
#include "tests/unit/devices/iommu/env.h"

TestSuite(removal, .init = setup, .fini = teardown);

Test(removal, unmap_waits_for_io_in_flight)
{
	struct io io;

	attach(1, 8, 0);
	map(1, 0, G - 1, 0, RW);
	cr_assert_eq(io_start(&io, 0, 0, 64, DMA_WRITE), 0);
	cr_assert_eq(unmap(1, 0, G - 1), IOMMU_PENDING);
	/* Gone for everybody else, while the I/O may go on. */
	cr_assert_eq(peek(0, 0), -1);
	cr_assert_eq(map(1, 0, G - 1, 5 * G, RW), OK);
	cr_assert_eq(peek(0, 0), 6);
	cr_assert_eq(env.done, 0);
	dma_unpin(&env.port[0], &io.list);
	cr_assert_eq(env.done, 1);
}

Test(removal, unmap_waits_only_for_its_own_mappings)
{
	struct io io;

	attach(1, 8, 0);
	map(1, 0, G - 1, 0, RW);
	map(1, G, 2 * G - 1, G, RW);
	io_start(&io, 0, 0, 64, DMA_READ);
	cr_assert_eq(unmap(1, G, 2 * G - 1), OK, "an unrelated I/O stalls nobody");
	dma_unpin(&env.port[0], &io.list);
}

Test(removal, unmap_waits_for_every_mapping_of_an_io)
{
	struct io a, b;

	attach(1, 8, 0);
	map(1, 0, G - 1, 0, RW);
	map(1, G, 2 * G - 1, 8 * G, RW);
	cr_assert_eq(io_start(&a, 0, G - 8, 16, DMA_READ), 0);
	cr_assert_eq(a.list.count, 2);
	io_start(&b, 0, G, 16, DMA_READ);
	cr_assert_eq(unmap(1, 0, 2 * G - 1), IOMMU_PENDING);
	dma_unpin(&env.port[0], &a.list);
	cr_assert_eq(env.done, 0);
	dma_unpin(&env.port[0], &b.list);
	cr_assert_eq(env.done, 1);
}

/*
 * Each mapping that falls idle looks after the UNMAP that waits for it: a driver
 * with much in flight must not make that take minutes, with the device's loop and
 * the IOMMU's lock held up.
 */
Test(removal, unmap_of_much_in_flight_ends_soon, .timeout = 60)
{
	enum { COUNT = 200000 };
	struct iovec *iov = calloc(COUNT, sizeof(*iov));
	void **mapping = calloc(COUNT, sizeof(*mapping));
	struct dma_list list = { .iov = iov, .mapping = mapping, .max = COUNT };

	cr_assert_eq(attach(1, 8, 0), OK);
	for (uint64_t i = 0; i < COUNT; i++)
		cr_assert_eq(map(1, i * G, i * G + G - 1, 0, RW), OK);
	cr_assert_eq(dma_map(&env.port[0], IOVA(0), COUNT * G, DMA_READ, &list), 0);
	cr_assert_eq(unmap(1, 0, UINT64_MAX), IOMMU_PENDING);
	dma_unpin(&env.port[0], &list);
	cr_assert_eq(env.done, 1);
	free(mapping);
	free(iov);
}

Test(removal, unmap_waits_for_a_section_and_leaving_completes_it)
{
	struct dma_piece piece;

	attach(1, 8, 0);
	map(1, 0, G - 1, 0, RW);
	dma_enter(&env.port[0]);
	cr_assert_eq(dma_translate(&env.port[0], IOVA(0), 8, DMA_READ, &piece), 0);
	cr_assert_eq(unmap(1, 0, G - 1), IOMMU_PENDING);
	cr_assert_eq(env.done, 0);
	dma_leave(&env.port[0]);
	cr_assert_eq(env.done, 1);
}

Test(removal, unmap_does_not_wait_for_a_younger_section)
{
	struct iommu_op second = { .done = op_done };

	attach(1, 8, 0);
	map(1, 0, G - 1, 0, RW);
	map(1, G, 2 * G - 1, 0, RW);
	dma_enter(&env.port[0]);
	cr_assert_eq(unmap(1, 0, G - 1), IOMMU_PENDING);
	dma_leave(&env.port[0]);
	cr_assert_eq(env.done, 1);
	dma_enter(&env.port[0]);
	dma_leave(&env.port[0]);
	cr_assert_eq(iommu_unmap(env.iommu, 1, G, 2 * G - 1, &second), OK);
}

Test(removal, a_reference_taken_in_an_old_section_is_waited_for)
{
	struct dma_piece piece;

	attach(1, 8, 0);
	map(1, 0, G - 1, 0, RW);
	dma_enter(&env.port[0]);
	dma_translate(&env.port[0], IOVA(0), 8, DMA_READ, &piece);
	cr_assert_eq(unmap(1, 0, G - 1), IOMMU_PENDING);
	env.view[0]->ops->ref(&env.port[0], piece.mapping);
	dma_leave(&env.port[0]);
	cr_assert_eq(env.done, 0);
	env.view[0]->ops->unref(&env.port[0], piece.mapping);
	cr_assert_eq(env.done, 1);
}

Test(removal, detach_from_a_shared_domain_waits_for_its_own_io_only)
{
	struct io mine, other;

	attach(1, 8, 0);
	attach(1, 9, 0);
	map(1, 0, G - 1, 0, RW);
	io_start(&mine, 0, 0, 64, DMA_READ);
	io_start(&other, 1, 0, 64, DMA_READ);
	cr_assert_eq(detach(1, 8), IOMMU_PENDING);
	cr_assert_eq(peek(0, 0), -1);
	cr_assert_eq(peek(1, 0), 1);
	dma_unpin(&env.port[0], &mine.list);
	cr_assert_eq(env.done, 1);
	dma_unpin(&env.port[1], &other.list);
}

Test(removal, last_detach_waits_for_io_and_frees)
{
	struct io io;

	attach(1, 8, 0);
	map(1, 0, G - 1, 0, RW);
	io_start(&io, 0, 0, 64, DMA_READ);
	cr_assert_eq(detach(1, 8), IOMMU_PENDING);
	dma_unpin(&env.port[0], &io.list);
	cr_assert_eq(env.done, 1);
}

Test(removal, attach_elsewhere_is_not_delayed_by_new_io)
{
	struct iommu_op second = { .done = op_done };
	struct io old, new;

	attach(1, 8, 0);
	map(1, 0, G - 1, 0, RW);
	attach(2, 9, 0);
	map(2, 0, G - 1, G, RW);
	io_start(&old, 0, 0, 64, DMA_READ);
	cr_assert_eq(iommu_attach(env.iommu, 2, 8, 0, 0, &second), IOMMU_PENDING);
	/* The new domain works at once, and its I/O counts for itself. */
	cr_assert_eq(peek(0, 0), 2);
	cr_assert_eq(io_start(&new, 0, 0, 64, DMA_READ), 0);
	dma_unpin(&env.port[0], &old.list);
	cr_assert_eq(env.done, 1);
	dma_unpin(&env.port[0], &new.list);
	cr_assert_eq(env.done, 1);
}

Test(removal, bypass_io_is_waited_for_by_attach)
{
	struct io io;

	iommu_set_bypass(env.iommu, true);
	cr_assert_eq(io_start(&io, 0, 0, 64, DMA_WRITE), 0);
	cr_assert_eq(attach(1, 8, 0), IOMMU_PENDING);
	dma_unpin(&env.port[0], &io.list);
	cr_assert_eq(env.done, 1);
	/* From bypass to bypass nothing is taken away. */
	detach(1, 8);
	io_start(&io, 0, 0, 64, DMA_WRITE);
	cr_assert_eq(attach(2, 8, BYPASS), OK);
	dma_unpin(&env.port[0], &io.list);
}

Test(removal, reset_waits_for_io_and_ends_after_what_was_pending)
{
	struct iommu_op reset = { .done = op_done };
	struct io io;

	attach(1, 8, 0);
	map(1, 0, G - 1, 0, RW);
	map(1, G, 2 * G - 1, 0, RW);
	io_start(&io, 0, G - 8, 16, DMA_READ);
	cr_assert_eq(unmap(1, 0, G - 1), IOMMU_PENDING);
	cr_assert_eq(iommu_reset(env.iommu, &reset), IOMMU_PENDING);
	cr_assert_eq(env.done, 0);
	dma_unpin(&env.port[0], &io.list);
	cr_assert_eq(env.done, 2);
}

Test(removal, failed_map_leaves_no_reference)
{
	struct io io;

	attach(1, 8, 0);
	map(1, 0, G - 1, 0, RW);
	cr_assert_eq(io_start(&io, 0, G - 8, 16, DMA_READ), -EFAULT);
	cr_assert_eq(io.list.count, 0);
	cr_assert_eq(unmap(1, 0, G - 1), OK);
}

/* A device hammers a page that the guest maps and unmaps; freed RAM must never change. */
struct hammer {
	_Atomic bool stop;
	_Atomic uint64_t ok;
};

static void *hammer(void *opaque)
{
	struct hammer *h = opaque;
	struct io io;

	while (!atomic_load(&h->stop)) {
		if (!io_start(&io, 0, 0, 8, DMA_WRITE)) {
			atomic_store((_Atomic uint64_t *)io.iov[0].iov_base, 0xdead);
			dma_unpin(&env.port[0], &io.list);
			atomic_fetch_add(&h->ok, 1);
		}
		if (poke(0, 64))
			atomic_fetch_add(&h->ok, 1);
	}
	return NULL;
}

Test(removal, no_write_after_unmap_was_answered)
{
	static struct hammer h;
	_Atomic uint64_t *word = env.ram.host;
	pthread_t thread;
	unsigned rounds = 0, pending = 0;

	attach(1, 8, 0);
	pthread_create(&thread, NULL, hammer, &h);
	for (; rounds < 20000 || (h.ok < 100 && rounds < 2000000); rounds++) {
		cr_assert_eq(map(1, 0, G - 1, 0, RW), OK);
		if (rounds % 64 == 0)
			sched_yield();
		unsigned before = env.done;

		if (unmap(1, 0, G - 1) == IOMMU_PENDING) {
			pending++;
			while (env.done == before)
				sched_yield();
		}
		/* The page is the guest's again. */
		atomic_store(word, rounds);
		cr_assert_eq(atomic_load(word), rounds);
		if (rounds % 256 == 0)
			sched_yield();
		cr_assert_eq(atomic_load(word), rounds);
	}
	atomic_store(&h.stop, true);
	pthread_join(thread, NULL);
	cr_assert_gt(h.ok, 0);
}
