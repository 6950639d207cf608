/*
 * Devices in full flight while the guest maps, unmaps, moves endpoints between
 * domains, toggles bypass and resets: a plain program, so that it runs under
 * thread sanitizer too (Criterion's processes can't).
 *
 *	removals [SECONDS]
 *
 * Four device threads, two of them on one endpoint, map pages, write to them
 * at leisure, unpin. Two guest threads own half of the IOVA pages each. The
 * moment an UNMAP, a DETACH or a reset was answered, the guest writes the page
 * itself and looks at it a while later: a device that still writes is found by
 * the value, and by the sanitizer as a race, as all of these are plain accesses.
 * What orders them is nothing but the protocol under test.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "devices/iommu/domain.h"
#include "tests/check.h"
#include "vmm/base/log.h"

#define PAGE	       4096ULL
#define PAGES	       32
#define GUESTS	       2
#define DEVICES	       4
#define ENDPOINTS      3
#define DOMAIN	       7
#define SLICE	       64 /* each device writes its own part of a page */
#define IN_FLIGHT      4
#define SECTION_WRITES 10000

/* Endpoint 0 has two devices' threads; which domain events hit which is up to chance. */
static const unsigned endpoint_of[DEVICES] = { 0, 0, 1, 2 };

static struct {
	struct ram ram;
	struct iommu *iommu;
	struct dma_view *view[ENDPOINTS];
	struct dma_port port[DEVICES];
	_Atomic bool stop;
	/* Requests as one queue serves them: one at a time, except that answers may wait. */
	pthread_rwlock_t domain; /* written by who resets or detaches everybody */
	_Atomic uint64_t ios, refused, unmaps, parked, resets;
} s;

struct rng {
	uint64_t state;
};

static unsigned rnd(struct rng *rng, unsigned limit)
{
	rng->state ^= rng->state << 13;
	rng->state ^= rng->state >> 7;
	rng->state ^= rng->state << 17;
	return (unsigned)(rng->state >> 20) % limit;
}

/*
 * Devices.
 */

struct io {
	struct iovec iov[4];
	void *mapping[4];
	struct dma_list list;
};

static void io_write(const struct io *io, unsigned char value)
{
	for (unsigned i = 0; i < io->list.count; i++)
		memset(io->iov[i].iov_base, value, MIN(io->iov[i].iov_len, SLICE));
}

static void io_end(unsigned device, struct io *io, unsigned char value)
{
	if (!io->list.count)
		return;
	/* Up to the last moment. */
	io_write(io, value);
	dma_unpin(&s.port[device], &io->list);
	atomic_fetch_add_explicit(&s.ios, 1, memory_order_relaxed);
}

static void io_start(unsigned device, struct io *io, struct rng *rng)
{
	io->list = (struct dma_list){ .iov = io->iov, .mapping = io->mapping, .max = 4 };
	for (unsigned n = 1 + rnd(rng, 3); n; n--) {
		uint64_t iova = rnd(rng, PAGES) * PAGE + device * SLICE;

		if (dma_map(&s.port[device], IOVA(iova), SLICE, DMA_WRITE, &io->list))
			atomic_fetch_add_explicit(&s.refused, 1, memory_order_relaxed);
	}
	io_write(io, (unsigned char)(0x80 | device));
}

/* A long section: what it has translated may be used until its end. */
static void write_in_section(unsigned device, struct rng *rng)
{
	struct dma_port *port = &s.port[device];
	uint64_t iova = rnd(rng, PAGES) * PAGE + device * SLICE;
	struct dma_piece piece;

	dma_enter(port);
	if (!dma_translate(port, IOVA(iova), SLICE, DMA_WRITE, &piece)) {
		for (unsigned n = 0; n < SECTION_WRITES; n++)
			((volatile unsigned char *)piece.host)[n % piece.len] = (unsigned char)n;
	}
	dma_leave(port);
}

static void *device_thread(void *opaque)
{
	unsigned device = (unsigned)(uintptr_t)opaque;
	struct rng rng = { 0x9e3779b97f4a7c15 * (device + 1) };
	struct io io[IN_FLIGHT] = { 0 };
	unsigned char byte[SLICE] = { 1, 2, 3 };

	while (!atomic_load_explicit(&s.stop, memory_order_relaxed)) {
		unsigned i = rnd(&rng, IN_FLIGHT);

		io_end(device, &io[i], (unsigned char)device);
		/* A lull, in which sections go without their fence; and a burst of copies. */
		for (unsigned n = rnd(&rng, 4) ? 0 : rnd(&rng, 400); n; n--)
			dma_write(&s.port[device], IOVA(rnd(&rng, PAGES) * PAGE + device * SLICE),
				  byte, sizeof(byte));
		write_in_section(device, &rng);
		io_start(device, &io[i], &rng);
		if (!rnd(&rng, 16))
			sched_yield();
	}
	for (unsigned i = 0; i < IN_FLIGHT; i++)
		io_end(device, &io[i], 0);
	return NULL;
}

/*
 * The guest.
 */

struct waited {
	struct iommu_op op;
	_Atomic bool done;
};

static void op_done(struct iommu_op *op)
{
	struct waited *w = container_of(op, struct waited, op);

	/* Release: pairs with the load in wait_for. */
	atomic_store_explicit(&w->done, true, memory_order_release);
}

static void wait_for(struct waited *w, int ret)
{
	if (ret != IOMMU_PENDING) {
		CHECK(ret == VIRTIO_IOMMU_S_OK);
		return;
	}
	atomic_fetch_add_explicit(&s.parked, 1, memory_order_relaxed);
	while (!atomic_load_explicit(&w->done, memory_order_acquire))
		sched_yield();
}

static unsigned char *ram_page(unsigned page)
{
	return (unsigned char *)s.ram.host + page * PAGE;
}

/* @page is the guest's alone: nobody writes it. */
static void use_page(unsigned page, unsigned char value)
{
	memset(ram_page(page), value, PAGE);
	sched_yield();
	for (unsigned i = 0; i < PAGE; i++)
		CHECK(ram_page(page)[i] == value);
}

static void map_page(unsigned page)
{
	CHECK(iommu_map(s.iommu, DOMAIN, page * PAGE, page * PAGE + PAGE - 1, page * PAGE, 3, 3) ==
	      VIRTIO_IOMMU_S_OK);
}

static void unmap_pages(unsigned first, unsigned last)
{
	struct waited w = { .op.done = op_done };

	wait_for(&w, iommu_unmap(s.iommu, DOMAIN, first * PAGE, last * PAGE + PAGE - 1, &w.op));
	atomic_fetch_add_explicit(&s.unmaps, 1, memory_order_relaxed);
}

static void attach_all(void)
{
	for (unsigned ep = 0; ep < ENDPOINTS; ep++) {
		struct waited w = { .op.done = op_done };

		wait_for(&w, iommu_attach(s.iommu, DOMAIN, ep, 0, 0, &w.op));
	}
}

/* Take everything away in one of the ways there are; afterwards all RAM is the guest's. */
static void disrupt(struct rng *rng)
{
	struct waited w[ENDPOINTS] = { 0 };
	int ret[ENDPOINTS];

	for (unsigned ep = 0; ep < ENDPOINTS; ep++)
		w[ep].op.done = op_done;
	switch (rnd(rng, 3)) {
	case 0:
		wait_for(&w[0], iommu_reset(s.iommu, &w[0].op));
		break;
	case 1:
		/* All at once, then wait: operations are pending together. */
		for (unsigned ep = 0; ep < ENDPOINTS; ep++)
			ret[ep] = iommu_detach(s.iommu, DOMAIN, ep, &w[ep].op);
		for (unsigned ep = 0; ep < ENDPOINTS; ep++)
			wait_for(&w[ep], ret[ep]);
		break;
	default:
		for (unsigned ep = 0; ep < ENDPOINTS; ep++)
			ret[ep] = iommu_attach(s.iommu, DOMAIN + 1 + ep, ep, 0, 0, &w[ep].op);
		for (unsigned ep = 0; ep < ENDPOINTS; ep++)
			wait_for(&w[ep], ret[ep]);
	}
	for (unsigned page = 0; page < PAGES; page++)
		use_page(page, (unsigned char)page);
	attach_all();
	for (unsigned page = 0; page < PAGES; page++)
		map_page(page);
	atomic_fetch_add_explicit(&s.resets, 1, memory_order_relaxed);
}

static void *guest_thread(void *opaque)
{
	unsigned guest = (unsigned)(uintptr_t)opaque, base = guest * PAGES / GUESTS;
	struct rng rng = { 0xdeadbeef12345 + guest };

	while (!atomic_load_explicit(&s.stop, memory_order_relaxed)) {
		if (!rnd(&rng, 50)) {
			pthread_rwlock_wrlock(&s.domain);
			disrupt(&rng);
			pthread_rwlock_unlock(&s.domain);
		}
		pthread_rwlock_rdlock(&s.domain);
		unsigned first = base + rnd(&rng, PAGES / GUESTS);
		unsigned last = first + rnd(&rng, 3);

		last = MIN(last, base + PAGES / GUESTS - 1);

		unmap_pages(first, last);
		for (unsigned page = first; page <= last; page++)
			use_page(page, (unsigned char)rng.state);
		for (unsigned page = first; page <= last; page++)
			map_page(page);
		pthread_rwlock_unlock(&s.domain);
		/* Sometimes long enough for devices to leave their fences out. */
		if (!rnd(&rng, 8))
			nanosleep(&(struct timespec){ .tv_nsec = 300000 }, NULL);
	}
	return NULL;
}

static void create(void)
{
	const struct iommu_config config = { .granule = PAGE, .address_width = 48 };

	log_set_level(LOG_ERROR);
	pthread_rwlock_init(&s.domain, NULL);
	s.ram.size = PAGES * PAGE;
	s.ram.host = aligned_alloc(PAGE, s.ram.size);
	CHECK(s.ram.host);
	memset(s.ram.host, 0, s.ram.size);
	s.ram.count = 1;
	s.ram.region[0] = (struct ram_region){ GPA(0), s.ram.size, 0, s.ram.host };
	CHECK(!iommu_create(&s.iommu, &config, &s.ram, NULL));
	for (unsigned ep = 0; ep < ENDPOINTS; ep++)
		CHECK(!iommu_add_endpoint(s.iommu, ep, "stress", NULL, 0, &s.view[ep], NULL));
	for (unsigned i = 0; i < DEVICES; i++)
		CHECK(!dma_port_init(&s.port[i], s.view[endpoint_of[i]]));
	attach_all();
	for (unsigned page = 0; page < PAGES; page++)
		map_page(page);
}

static void destroy(void)
{
	struct iommu_memory memory;

	for (unsigned i = 0; i < DEVICES; i++)
		dma_port_finish(&s.port[i]);
	unmap_pages(0, PAGES - 1);
	iommu_get_memory(s.iommu, &memory);
	CHECK(memory.live_mappings == 0);
	iommu_destroy(s.iommu);
	free(s.ram.host);
	pthread_rwlock_destroy(&s.domain);
}

int main(int argc, char **argv)
{
	struct timespec nap = { .tv_sec = argc > 1 ? atoi(argv[1]) : 2 };
	pthread_t device[DEVICES], guest[GUESTS];

	create();
	for (uintptr_t i = 0; i < DEVICES; i++)
		CHECK(!pthread_create(&device[i], NULL, device_thread, (void *)i));
	for (uintptr_t i = 0; i < GUESTS; i++)
		CHECK(!pthread_create(&guest[i], NULL, guest_thread, (void *)i));
	nanosleep(&nap, NULL);
	/* On a busy machine what this is about may come late. */
	for (unsigned i = 0; i < 600 && !(s.parked && s.resets); i++)
		nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
	atomic_store(&s.stop, true);
	/* The guest's waits need the devices, which end their I/O when they stop. */
	for (unsigned i = 0; i < DEVICES; i++)
		pthread_join(device[i], NULL);
	for (unsigned i = 0; i < GUESTS; i++)
		pthread_join(guest[i], NULL);
	destroy();
	printf("%lu I/Os, %lu pieces refused, %lu unmaps, %lu resets and the like, %lu parked\n",
	       (unsigned long)s.ios, (unsigned long)s.refused, (unsigned long)s.unmaps,
	       (unsigned long)s.resets, (unsigned long)s.parked);
	CHECK(s.ios && s.unmaps && s.parked && s.resets);
	return 0;
}
