/* rangemap against a naive model, at its edges, and with readers beside the writer. */

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include "vmm/base/rangemap.h"

struct fixture {
	struct slab nodes;
	struct rangemap map;
};

/* The item that an entry of number x gets. */
static struct rangemap_item items[1 << 20];

static void fixture_init(struct fixture *f)
{
	*f = (struct fixture){ .nodes.size = RANGEMAP_NODE_BYTES };
	f->map.nodes = &f->nodes;
}

static void fixture_finish(struct fixture *f)
{
	rangemap_clear(&f->map, NULL, NULL);
	slab_finish(&f->nodes);
}

static struct rangemap_item *item_of(uint64_t x)
{
	return &items[x];
}

static uint64_t rnd(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

Test(rangemap, empty_finds_nothing)
{
	struct rangemap_entry e;
	struct fixture f;

	fixture_init(&f);
	cr_assert_not(rangemap_next(&f.map, 0, &e));
	cr_assert_not(rangemap_find(&f.map, UINT64_MAX, &e));
	cr_assert_null(rangemap_remove(&f.map, 0, 0));
	fixture_finish(&f);
}

Test(rangemap, whole_address_space_is_one_entry)
{
	struct rangemap_entry e;
	struct fixture f;

	fixture_init(&f);
	cr_assert_eq(rangemap_insert(&f.map, 0, UINT64_MAX, item_of(7)), 0);
	cr_assert(rangemap_find(&f.map, 0, &e));
	cr_assert(rangemap_find(&f.map, UINT64_MAX, &e));
	cr_assert(e.first == 0 && e.last == UINT64_MAX && e.item == item_of(7));
	cr_assert_eq(rangemap_insert(&f.map, 5, 5, item_of(1)), -EEXIST);
	cr_assert_eq(rangemap_remove(&f.map, 0, UINT64_MAX), item_of(7));
	cr_assert_eq(f.map.count, 0);
	fixture_finish(&f);
}

Test(rangemap, neighbours_touch_but_never_overlap)
{
	struct rangemap_entry e;
	struct fixture f;

	fixture_init(&f);
	cr_assert_eq(rangemap_insert(&f.map, 10, 19, item_of(1)), 0);
	cr_assert_eq(rangemap_insert(&f.map, 20, 29, item_of(2)), 0);
	cr_assert_eq(rangemap_insert(&f.map, 0, 9, item_of(0)), 0);
	cr_assert_eq(rangemap_insert(&f.map, 0, 40, item_of(3)), -EEXIST);
	cr_assert_eq(rangemap_insert(&f.map, 29, 30, item_of(3)), -EEXIST);
	cr_assert_eq(rangemap_insert(&f.map, 9, 9, item_of(3)), -EEXIST);
	cr_assert_eq(rangemap_insert(&f.map, 31, 30, item_of(3)), -EINVAL);
	/* One byte past an entry belongs to the next. */
	cr_assert(rangemap_find(&f.map, 19, &e) && e.item == item_of(1));
	cr_assert(rangemap_find(&f.map, 20, &e) && e.item == item_of(2));
	cr_assert_not(rangemap_find(&f.map, 30, &e));
	fixture_finish(&f);
}

Test(rangemap, remove_needs_the_exact_entry)
{
	struct fixture f;

	fixture_init(&f);
	rangemap_insert(&f.map, 10, 19, item_of(1));
	cr_assert_null(rangemap_remove(&f.map, 10, 18));
	cr_assert_null(rangemap_remove(&f.map, 11, 19));
	cr_assert_null(rangemap_remove(&f.map, 10, 20));
	cr_assert_eq(f.map.count, 1);
	fixture_finish(&f);
}

/*
 * The model: cell i of SPACE is owned by the entry whose index it holds. Entries
 * are scaled so that the last one ends at 2^64 - 1.
 */
#define SPACE 4096
#define SCALE (UINT64_MAX / SPACE + 1)

static void check_all(struct fixture *f, const int *first, const int *last)
{
	struct rangemap_entry e;
	uint64_t n = 0, at = 0;

	/* Iteration sees the model's entries, in order, and no others. */
	for (int i = 0; i < SPACE; i++) {
		if (first[i] != i)
			continue;
		cr_assert(rangemap_next(&f->map, at, &e));
		cr_assert_eq(e.first, (uint64_t)i * SCALE);
		cr_assert_eq(e.last, (uint64_t)last[i] * SCALE + (SCALE - 1));
		cr_assert_eq(e.item, item_of((uint64_t)i));
		at = e.last + 1;
		n++;
	}
	cr_assert_eq(f->map.count, n);
	if (at)
		cr_assert_not(rangemap_next(&f->map, at, &e));
}

/* Remove what ends in cells @a to @b, at most @max at a time; the model says what that is. */
static void remove_range(struct fixture *f, int *first, const int *last, int a, int b, unsigned max)
{
	struct rangemap_entry e[64];
	unsigned left = 0, n = 0;

	for (int i = a; i <= b; i++) {
		if (first[i] < 0 || last[first[i]] != i)
			continue;
		if (!left) {
			left = rangemap_remove_range(&f->map, (uint64_t)a * SCALE,
						     (uint64_t)b * SCALE + (SCALE - 1), e, max);
			cr_assert(left >= 1 && left <= max);
			n = 0;
		}
		cr_assert_eq(e[n].first, (uint64_t)first[i] * SCALE);
		cr_assert_eq(e[n].last, (uint64_t)i * SCALE + (SCALE - 1));
		cr_assert_eq(e[n++].item, item_of((uint64_t)first[i]));
		left--;
		for (int k = first[i]; k <= i; k++)
			first[k] = -1;
	}
	cr_assert_eq(left, 0);
	cr_assert_eq(rangemap_remove_range(&f->map, (uint64_t)a * SCALE,
					   (uint64_t)b * SCALE + (SCALE - 1), e, max),
		     0);
}

static void model_run(uint64_t seed, unsigned steps, int max_len, unsigned remove_percent)
{
	/* first[i]: the first cell of the entry that owns cell i, or -1. */
	static int first[SPACE], last[SPACE];
	struct rangemap_entry e;
	struct fixture f;

	fixture_init(&f);
	for (int i = 0; i < SPACE; i++)
		first[i] = -1;
	for (unsigned step = 0; step < steps; step++) {
		int a = (int)(rnd(&seed) % SPACE);
		int b = a + (int)(rnd(&seed) % (uint64_t)max_len);

		if (b >= SPACE)
			b = SPACE - 1;
		bool found = rangemap_find(&f.map, (uint64_t)a * SCALE + SCALE / 2, &e);

		cr_assert_eq(found, first[a] >= 0, "seed step %u", step);
		if (step % 64 == 0) {
			int end = b + (int)(rnd(&seed) % (SPACE / 8));
			unsigned max = 1 + (unsigned)(rnd(&seed) % 64);

			remove_range(&f, first, last, a, MIN(end, SPACE - 1), max);
			continue;
		}
		/* A full table turns to emptying, so that every size is visited. */
		if (rnd(&seed) % 100 < (step / 4000 % 2 ? 100 - remove_percent : remove_percent)) {
			if (!found)
				continue;
			int s = first[a];
			int l = last[s];

			cr_assert_eq(rangemap_remove(&f.map, e.first, e.last),
				     item_of((uint64_t)s));
			for (int i = s; i <= l; i++)
				first[i] = -1;
		} else {
			bool free_cells = true;

			for (int i = a; i <= b; i++)
				free_cells &= first[i] < 0;
			int ret = rangemap_insert(&f.map, (uint64_t)a * SCALE,
						  (uint64_t)b * SCALE + (SCALE - 1),
						  item_of((uint64_t)a));

			cr_assert_eq(ret, free_cells ? 0 : -EEXIST);
			for (int i = a; !ret && i <= b; i++)
				first[i] = a;
			if (!ret)
				last[a] = b;
		}
		if (step % 500 == 0)
			check_all(&f, first, last);
	}
	check_all(&f, first, last);
	fixture_finish(&f);
}

Test(rangemap, random_operations_agree_with_a_table)
{
	model_run(1, 40000, 1, 20);
	model_run(2, 40000, 3, 30);
	model_run(3, 20000, 100, 30);
}

/* Orders in which allocators and attackers fill and empty a map. */
Test(rangemap, ordered_fills_and_drains)
{
	const uint64_t n = 60000;
	struct rangemap_entry e;
	struct fixture f;

	fixture_init(&f);
	for (unsigned order = 0; order < 4; order++) {
		for (uint64_t i = 0; i < n; i++) {
			uint64_t k = order & 1 ? n - 1 - i : i;

			cr_assert_eq(rangemap_insert(&f.map, k * 8, k * 8 + 3, item_of(k)), 0);
		}
		for (uint64_t i = 0; i < n; i += 7) {
			cr_assert(rangemap_find(&f.map, i * 8 + 3, &e) && e.item == item_of(i));
			cr_assert_not(rangemap_find(&f.map, i * 8 + 4, &e));
		}
		for (uint64_t i = 0; i < n; i++) {
			uint64_t k = order & 2 ? n - 1 - i : i;

			cr_assert_eq(rangemap_remove(&f.map, k * 8, k * 8 + 3), item_of(k));
		}
		cr_assert_not(rangemap_next(&f.map, 0, &e));
	}
	fixture_finish(&f);
}

Test(rangemap, a_million_entries_are_small)
{
	const uint64_t n = 1000000;
	struct fixture f;

	for (unsigned order = 0; order < 3; order++) {
		fixture_init(&f);
		for (uint64_t i = 0; i < n; i++) {
			/* Ascending, descending, and scattered (an odd factor permutes 2^20). */
			uint64_t k = order == 0	  ? i
				     : order == 1 ? n - 1 - i
						  : i * 0x9e375 % (1 << 20);

			cr_assert_eq(rangemap_insert(&f.map, k << 12, (k << 12) + 4095, item_of(k)),
				     0);
		}
		uint64_t each = f.nodes.bytes / n;

		cr_assert_leq(each, order < 2 ? 24 : 36, "order %u: %lu bytes an entry", order,
			      each);
		fixture_finish(&f);
	}
}

Test(rangemap, memory_is_reused_after_a_drain)
{
	struct fixture f;
	uint64_t bytes = 0, seed = 9;

	fixture_init(&f);
	for (unsigned round = 0; round < 20; round++) {
		for (uint64_t i = 0; i < 5000; i++) {
			uint64_t k = rnd(&seed) % 100000;

			rangemap_insert(&f.map, k, k, item_of(k));
		}
		struct rangemap_entry e;

		while (rangemap_next(&f.map, 0, &e))
			rangemap_remove(&f.map, e.first, e.last);
		if (round == 1)
			bytes = f.nodes.bytes;
		cr_assert(round < 2 || f.nodes.bytes <= bytes);
	}
	fixture_finish(&f);
}

static void count_entry(struct rangemap_item *item, void *opaque)
{
	uint64_t *next = opaque;

	cr_assert_eq(item, item_of(*next));
	(*next)++;
}

Test(rangemap, clear_visits_everything_in_order)
{
	uint64_t next = 0;
	struct fixture f;

	fixture_init(&f);
	for (uint64_t i = 0; i < 10000; i++)
		rangemap_insert(&f.map, i * 2, i * 2, item_of(i));
	rangemap_clear(&f.map, count_entry, &next);
	cr_assert_eq(next, 10000);
	cr_assert_eq(f.map.count, 0);
	fixture_finish(&f);
}

/*
 * Readers beside a writer: even keys are always there, odd ones come and go. A
 * reader must find each even key, with its own value, at any time.
 */
#define KEYS 2000

struct race {
	struct fixture f;
	_Atomic bool stop;
	_Atomic uint64_t wrong, looked;
};

static void *reader(void *opaque)
{
	struct race *race = opaque;
	uint64_t seed = (uintptr_t)&seed | 1;

	while (!atomic_load(&race->stop)) {
		uint64_t k = rnd(&seed) % KEYS * 2;
		struct rangemap_entry e;

		if (!rangemap_find(&race->f.map, k * 16 + 5, &e) || e.item != item_of(k) ||
		    e.first != k * 16 || e.last != k * 16 + 15)
			atomic_fetch_add(&race->wrong, 1);
		if (rangemap_find(&race->f.map, (k + 1) * 16, &e) && e.item != item_of(k + 1))
			atomic_fetch_add(&race->wrong, 1);
		atomic_fetch_add(&race->looked, 1);
	}
	return NULL;
}

Test(rangemap, readers_never_see_a_change_in_the_middle)
{
	static struct race race;
	uint64_t seed = 5;
	pthread_t thread[2];

	fixture_init(&race.f);
	for (uint64_t k = 0; k < KEYS * 2; k += 2)
		rangemap_insert(&race.f.map, k * 16, k * 16 + 15, item_of(k));
	for (int i = 0; i < 2; i++)
		pthread_create(&thread[i], NULL, reader, &race);
	for (unsigned i = 0; i < 300000 || atomic_load(&race.looked) < 1000; i++) {
		uint64_t k = rnd(&seed) % KEYS * 2 + 1;

		if (rangemap_insert(&race.f.map, k * 16, k * 16 + 15, item_of(k)))
			rangemap_remove(&race.f.map, k * 16, k * 16 + 15);
	}
	atomic_store(&race.stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	cr_assert_eq(race.wrong, 0);
	fixture_finish(&race.f);
}
