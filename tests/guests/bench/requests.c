#include "tests/guests/arch.h"
#include "tests/guests/bench/bench.h"

/* Beside the domain of bench_reads. */
#define DOMAIN 2

#define MAX_SAMPLES 10000u
#define RANGE_PAGES 1000u
#define MAX_RANGES  100u
/* At most so long for each kind of request, and for making the mappings. */
#define MEASURE_MS 1500
#define FILL_MS	   15000

/*
 * Page i of those that stay mapped is at LIVE + 2 i pages; what is mapped and
 * unmapped meanwhile goes into the gaps. A range of pages without gaps is before
 * them.
 */
#define LIVE  0x200000000ull
#define RANGE 0x100000000ull

/* Steps through any of our numbers of pages, in an order without neighbours. */
#define STRIDE 611953u

/* What all mappings are of: nothing is read from it. */
static uint64_t target;
static uint32_t sample[MAX_SAMPLES];

uint64_t request_send(unsigned n)
{
	uint64_t ticks = batch_send(n);

	if (batch_count(n, S_OK) != n)
		bail_out("a request failed");
	return ticks;
}

static void sort(uint32_t *v, unsigned n)
{
	/* Shell's sort, with the gaps of Ciura. */
	static const unsigned gaps[] = { 1750, 701, 301, 132, 57, 23, 10, 4, 1 };

	for (unsigned g = 0; g < ARRAY_SIZE(gaps); g++) {
		for (unsigned i = gaps[g]; i < n; i++) {
			uint32_t moved = v[i];
			unsigned at = i;

			for (; at >= gaps[g] && v[at - gaps[g]] > moved; at -= gaps[g])
				v[at] = v[at - gaps[g]];
			v[at] = moved;
		}
	}
}

static void report_samples(const char *name, uint64_t live, uint32_t *v, unsigned n)
{
	sort(v, n);
	const uint64_t value[] = { live, v[n / 2], v[n - 1 - n / 100], n };

	report(name, value, ARRAY_SIZE(value));
}

/* Map pages @first to @end - 1 of those that stay. Returns how many there were in the time. */
static uint64_t fill(uint64_t first, uint64_t end)
{
	uint64_t deadline = deadline_in(FILL_MS), count = end - first, made = 0;

	while (made < count && !deadline_passed(deadline)) {
		unsigned n = count - made < BATCH_MAX ? (unsigned)(count - made) : BATCH_MAX;

		for (unsigned i = 0; i < n; i++, made++) {
			uint64_t page = first + made * STRIDE % count;

			batch_map(i, DOMAIN, LIVE + 2 * page * PAGE, target);
		}
		request_send(n);
	}
	return made;
}

/* @n different random gaps between @live mappings (or BATCH_MAX of them, when there are fewer). */
static void choose_gaps(uint64_t live, unsigned n, uint64_t *ret_iova)
{
	uint64_t each = (live > BATCH_MAX ? live : BATCH_MAX) / n;

	for (unsigned i = 0; i < n; i++) {
		uint64_t page = i * each + random_below(each);

		ret_iova[i] = LIVE + (2 * page + 1) * PAGE;
	}
}

/* @n MAPs at a time, then the UNMAPs of the same pages. */
static void measure_batches(uint64_t live, unsigned n, const char *map_name, const char *unmap_name)
{
	uint64_t deadline = deadline_in(MEASURE_MS), iova[BATCH_MAX];
	unsigned count = 0;
	uint32_t *map = sample, *unmap = sample + MAX_SAMPLES / 2;

	do {
		choose_gaps(live, n, iova);
		for (unsigned i = 0; i < n; i++)
			batch_map(i, DOMAIN, iova[i], target);
		map[count] = (uint32_t)request_send(n);
		for (unsigned i = 0; i < n; i++)
			batch_unmap(i, DOMAIN, iova[i], 1);
		unmap[count++] = (uint32_t)request_send(n);
	} while (count < MAX_SAMPLES / 2 && !deadline_passed(deadline));
	report_samples(map_name, live, map, count);
	report_samples(unmap_name, live, unmap, count);
}

/* One UNMAP of RANGE_PAGES mappings. */
static void measure_range(uint64_t live)
{
	uint64_t deadline = deadline_in(MEASURE_MS);
	unsigned count = 0;

	do {
		for (unsigned made = 0; made < RANGE_PAGES;) {
			unsigned n =
				RANGE_PAGES - made < BATCH_MAX ? RANGE_PAGES - made : BATCH_MAX;

			for (unsigned i = 0; i < n; i++, made++)
				batch_map(i, DOMAIN, RANGE + made * PAGE, target);
			request_send(n);
		}
		batch_unmap(0, DOMAIN, RANGE, RANGE_PAGES);
		sample[count++] = (uint32_t)request_send(1);
	} while (count < MAX_RANGES && !deadline_passed(deadline));
	report_samples("request unmap1000", live, sample, count);
}

void bench_requests(struct disk *disk)
{
	static const uint64_t sizes[] = { 1, 1000, 100000, 1000000 };
	uint64_t live = 0;

	target = pages(1);
	vdev_reset(&disk->dev);
	if (iommu_attach(DOMAIN, disk->endpoint, 0) != S_OK)
		bail_out("ATTACH failed");
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint64_t made = fill(live, sizes[i]);

		if (live + made < sizes[i]) {
			const uint64_t value[] = { sizes[i], live + made };

			report("gaveup", value, ARRAY_SIZE(value));
			return;
		}
		live = sizes[i];
		measure_batches(live, 1, "request map", "request unmap");
		measure_batches(live, BATCH_MAX, "request map64", "request unmap64");
		measure_range(live);
	}
}
