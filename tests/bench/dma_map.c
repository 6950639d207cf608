/*
 * What a translation costs on this host, without a guest: dma_map of a page that
 * the port remembers, of one that it doesn't, and the requests that make and
 * unmake mappings, with a thousand to a million of them.
 *
 * Absolute times are this machine's, so each goal is a ratio of two things
 * measured in the same run:
 *
 *  - a remembered page against a system call (getppid): at most a tenth;
 *  - dma_map and dma_unpin of a random page among a million against one step of a
 *    pointer chase over as much memory, in pages of the same kind: at most three;
 *  - map, unmap and lookup at a million against a thousand: at most three times,
 *    in the order of addresses, in which allocators hand them out and devices use
 *    them, and in random order, in which each is two cache misses and which
 *    therefore takes memory that answers within some 100 ns;
 *  - memory: at most 96 bytes for a mapping.
 *
 * Times are the best of several rounds: other programs only ever add.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "devices/iommu/domain.h"

#define PAGE	  4096ULL
#define RAM_BYTES (64ULL << 20)
#define DOMAIN	  1
#define ENDPOINT  8
#define SIZES	  4
#define MOST	  1000000
#define BATCH	  20000 /* operations of a round, at most */
#define ROUNDS	  20
#define SLOTS	  128 /* dma_map before dma_unpin */

static struct env {
	struct ram ram;
	struct iommu *iommu;
	struct dma_view *view;
	struct dma_port port;
	uint32_t *order; /* owns; a permutation of the pages of the largest size */
} env;

static uint64_t rnd_state = 88172645463325252ULL;

static uint64_t rnd(void)
{
	rnd_state ^= rnd_state << 13;
	rnd_state ^= rnd_state >> 7;
	rnd_state ^= rnd_state << 17;
	return rnd_state;
}

static double now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "dma_map: %s failed\n", what);
	exit(1);
}

static void no_waiting(struct iommu_op *op)
{
	must(false, "an UNMAP that nothing delays");
}

static void shuffle(uint32_t *v, uint64_t n, bool ordered)
{
	for (uint64_t i = 0; i < n; i++)
		v[i] = (uint32_t)i;
	for (uint64_t i = n - 1; i > 0 && !ordered; i--) {
		uint64_t j = rnd() % (i + 1);
		uint32_t t = v[i];

		v[i] = v[j];
		v[j] = t;
	}
}

static void map_page(uint64_t page)
{
	/* One page of a fresh IOVA in two, as allocators leave gaps. */
	uint64_t first = 2 * page * PAGE, phys = page * PAGE % RAM_BYTES;

	must(iommu_map(env.iommu, DOMAIN, first, first + PAGE - 1, phys, 3, 3) == 0, "MAP");
}

static void unmap_page(uint64_t page)
{
	struct iommu_op op = { .done = no_waiting };
	uint64_t first = 2 * page * PAGE;

	must(iommu_unmap(env.iommu, DOMAIN, first, first + PAGE - 1, &op) == 0, "UNMAP");
}

/* As a device does it: the list is that of a request's slot. */
static void touch_page(uint64_t page)
{
	static struct iovec iov;
	static void *mapping;
	static struct dma_list list = { .iov = &iov, .mapping = &mapping, .max = 1 };

	must(dma_map(&env.port, IOVA(2 * page * PAGE), 512, DMA_READ, &list) == 0, "dma_map");
	dma_unpin(&env.port, &list);
}

/* The time of one of @n calls of @fn over the @num pages at @pages, in ns. */
static double time_calls(void (*fn)(uint64_t page), const uint32_t *pages, uint64_t num, uint64_t n)
{
	double start = now_ns();

	for (uint64_t i = 0, k = 0; i < n; i++) {
		fn(pages[k]);
		k = k + 1 == num ? 0 : k + 1;
	}
	return (now_ns() - start) / (double)n;
}

static void keep_min(double *min, double value)
{
	if (*min == 0 || value < *min)
		*min = value;
}

/* A chase of pointers through as many cache lines as the IOMMU's mappings take. */
struct line {
	struct line *next;
	char pad[56];
};

static struct line *make_chase(uint64_t bytes)
{
	uint64_t n = bytes / sizeof(struct line);
	struct line *line = aligned_alloc(MIB(2), ALIGN_UP(bytes, MIB(2)));
	uint32_t *order = malloc(n * sizeof(*order));

	must(line && order, "allocating memory for the chase");
	madvise(line, ALIGN_UP(bytes, MIB(2)), MADV_HUGEPAGE);
	shuffle(order, n, false);
	for (uint64_t i = 0; i < n; i++)
		line[order[i]].next = &line[order[(i + 1) % n]];
	free(order);
	return line;
}

static double chase_ns(struct line **at)
{
	double start = now_ns();

	for (unsigned i = 0; i < BATCH; i++)
		*at = *(struct line *volatile *)&(*at)->next;
	return (now_ns() - start) / BATCH;
}

struct result {
	uint64_t mappings, bytes;
	double map, unmap, lookup;
	double chase; /* a step, in the same minute */
};

/* Everything with @n live mappings; the domain is empty before and after. */
static void measure(uint64_t n, bool ordered, struct result *r)
{
	uint64_t lookups = MIN(n, BATCH), churn = MIN(n / 10, BATCH);
	struct iommu_op op = { .done = no_waiting };
	struct iommu_memory memory;

	*r = (struct result){ .mappings = n };
	shuffle(env.order, n, ordered);
	for (uint64_t i = 0; i < n; i++)
		map_page(env.order[i]);
	iommu_get_memory(env.iommu, &memory);
	r->bytes = memory.bytes;
	struct line *chase = make_chase(r->bytes), *at = chase;

	for (unsigned round = 0; round < ROUNDS; round++) {
		/* Other pages each time, so that no round finds what the last one left. */
		const uint32_t *pages = env.order + rnd() % (n - lookups + 1);

		keep_min(&r->lookup, time_calls(touch_page, pages, lookups, BATCH));
		keep_min(&r->chase, chase_ns(&at));
		pages = env.order + rnd() % (n - churn + 1);
		keep_min(&r->unmap, time_calls(unmap_page, pages, churn, churn));
		keep_min(&r->map, time_calls(map_page, pages, churn, churn));
	}
	free(chase);
	must(iommu_unmap(env.iommu, DOMAIN, 0, UINT64_MAX, &op) == 0, "UNMAP of everything");
}

static double getppid_ns(void)
{
	double start = now_ns();

	for (unsigned i = 0; i < SLOTS; i++)
		syscall(SYS_getppid);
	return (now_ns() - start) / SLOTS;
}

/* dma_map and dma_unpin, each alone, of a page that the port remembers; a system call. */
struct cached {
	double map, unpin, getppid;
};

static void measure_cached(struct cached *c)
{
	struct iovec iov[SLOTS];
	void *mapping[SLOTS];
	struct dma_list list = { .iov = iov, .mapping = mapping, .max = SLOTS };

	*c = (struct cached){ 0 };
	map_page(0);
	for (unsigned round = 0; round < ROUNDS * 100; round++) {
		double start = now_ns();

		for (unsigned i = 0; i < SLOTS; i++)
			must(!dma_map(&env.port, IOVA(0), 512, DMA_READ, &list), "dma_map");
		double middle = now_ns();

		dma_unpin(&env.port, &list);
		keep_min(&c->map, (middle - start) / SLOTS);
		keep_min(&c->unpin, (now_ns() - middle) / SLOTS);
		keep_min(&c->getppid, getppid_ns());
	}
	unmap_page(0);
}

static void create(uint64_t most)
{
	const struct iommu_config config = { .granule = PAGE, .address_width = 48 };
	struct iommu_op op = { .done = no_waiting };

	env.order = malloc(most * sizeof(*env.order));
	env.ram.host =
		mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(env.order && env.ram.host != MAP_FAILED, "allocating memory");
	env.ram.size = RAM_BYTES;
	env.ram.count = 1;
	env.ram.region[0] = (struct ram_region){ GPA(0), RAM_BYTES, 0, env.ram.host };
	must(!iommu_create(&env.iommu, &config, &env.ram, NULL), "making an IOMMU");
	must(!iommu_add_endpoint(env.iommu, ENDPOINT, "bench", NULL, 0, &env.view, NULL),
	     "adding an endpoint");
	must(!dma_port_init(&env.port, env.view), "opening a port");
	must(!iommu_attach(env.iommu, DOMAIN, ENDPOINT, 0, 0, &op), "ATTACH");
}

static void destroy(void)
{
	dma_port_finish(&env.port);
	iommu_destroy(env.iommu);
	munmap(env.ram.host, RAM_BYTES);
	free(env.order);
}

static bool goal(const char *what, double value, double limit, const char *unit)
{
	printf("%-58s %8.2f %-5s (goal: at most %g)%s\n", what, value, unit, limit,
	       value <= limit ? "" : "  MISSED");
	return value <= limit;
}

static void measure_sizes(const char *title, bool ordered, struct result r[SIZES])
{
	static const uint64_t sizes[SIZES] = { 1000, 10000, 100000, MOST };

	printf("%s\n%10s %10s %10s %10s %10s %12s\n", title, "mappings", "MAP ns", "UNMAP ns",
	       "lookup ns", "chase ns", "bytes each");
	for (unsigned i = 0; i < SIZES; i++) {
		measure(sizes[i], ordered, &r[i]);
		printf("%10" PRIu64 " %10.1f %10.1f %10.1f %10.1f %12.1f\n", r[i].mappings,
		       r[i].map, r[i].unmap, r[i].lookup, r[i].chase,
		       (double)r[i].bytes / (double)r[i].mappings);
	}
	printf("\n");
}

static bool million_goals(const char *order, const struct result r[SIZES])
{
	const struct result *small = &r[0], *big = &r[SIZES - 1];
	bool ok;

	printf("%s\n", order);
	ok = goal("MAP: a million / a thousand", big->map / small->map, 3, "");
	ok &= goal("UNMAP: a million / a thousand", big->unmap / small->unmap, 3, "");
	ok &= goal("lookup: a million / a thousand", big->lookup / small->lookup, 3, "");
	return ok;
}

int main(void)
{
	struct result ordered[SIZES], random[SIZES];
	const struct result *big = &random[SIZES - 1];
	struct cached c;
	bool ok;

	create(MOST);
	measure_sizes("in the order of addresses", true, ordered);
	/* A new one, as memory once taken is kept. */
	destroy();
	create(MOST);
	measure_sizes("in random order", false, random);
	measure_cached(&c);
	printf("getppid %.1f ns; a remembered page: dma_map %.1f ns, dma_unpin %.1f ns\n\n",
	       c.getppid, c.map, c.unpin);
	ok = goal("dma_map of a remembered page / getppid", c.map / c.getppid, 0.1, "");
	ok &= goal("random page among a million / step of the chase", big->lookup / big->chase, 3,
		   "");
	ok &= goal("memory for a mapping", (double)big->bytes / (double)big->mappings, 96, "bytes");
	ok &= million_goals("in the order of addresses", ordered);
	ok &= million_goals("in random order", random);
	destroy();
	return ok ? 0 : 1;
}
