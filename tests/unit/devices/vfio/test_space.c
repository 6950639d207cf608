/* A space of the host's IOMMU as a listener, with a backend that remembers. */
#include "devices/vfio/space.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <errno.h>
#include <stdio.h>
#include "vmm/core/dma.h"

#define G	 0x1000ULL
#define MAX_MAPS 32

static char memory[64 * G];

static struct fake {
	struct vfio_space space;
	struct {
		uint64_t iova, size;
		char *host;
		uint8_t perm;
	} map[MAX_MAPS];
	unsigned count, room;
	int refuse; /* the errno when there is no room */
	bool keeps; /* fails to unmap */
} fake;

static int fake_map(struct vfio_space *s, uint64_t iova, uint64_t size, void *host, uint8_t perm)
{
	if (fake.count == fake.room)
		return -fake.refuse;
	fake.map[fake.count].iova = iova;
	fake.map[fake.count].size = size;
	fake.map[fake.count].host = host;
	fake.map[fake.count++].perm = perm;
	return 0;
}

static int fake_unmap(struct vfio_space *s, uint64_t iova, uint64_t size)
{
	if (fake.keeps)
		return -EIO;
	for (unsigned i = 0; i < fake.count; i++) {
		if (fake.map[i].iova == iova && fake.map[i].size == size) {
			fake.map[i] = fake.map[--fake.count];
			return 0;
		}
	}
	return -ENXIO;
}

static int fake_unmap_all(struct vfio_space *s)
{
	if (fake.keeps)
		return -EIO;
	fake.count = 0;
	return 0;
}

static bool fake_holds(struct vfio_space *s, uint64_t iova)
{
	for (unsigned i = 0; i < fake.count; i++) {
		if (fake.map[i].iova <= iova && iova - fake.map[i].iova < fake.map[i].size)
			return true;
	}
	return false;
}

static bool fake_empty(struct vfio_space *s, uint64_t iova, uint64_t size)
{
	for (unsigned i = 0; i < fake.count; i++) {
		if (fake.map[i].iova <= iova + (size - 1) &&
		    iova <= fake.map[i].iova + fake.map[i].size - 1) {
			fake_unmap(s, fake.map[i].iova, fake.map[i].size);
			return false;
		}
	}
	return true;
}

static const struct vfio_space_ops fake_ops = {
	.map = fake_map,
	.unmap = fake_unmap,
	.unmap_all = fake_unmap_all,
	.holds = fake_holds,
	.empty = fake_empty,
};

/* RAM at 0 (32 pages) and at 1 MiB (32 pages). */
static struct ram ram = {
	.count = 2,
	.region = { { { 0 }, 32 * G, 0, memory }, { { MIB(1) }, 32 * G, 32 * G, memory + 32 * G } },
};

/* Registers that the guest sees: one slot at a time. */

static char registers[4 * G], other_registers[4 * G];

static struct {
	struct mem_slots slots;
	uint64_t gpa;
	char *host; /* NULL: none */
} shown;

static void *slots_find(struct mem_slots *slots, gpa_t gpa, uint64_t size)
{
	if (!shown.host || gpa.v < shown.gpa || gpa.v + size > shown.gpa + sizeof(registers))
		return NULL;
	return shown.host + (gpa.v - shown.gpa);
}

static const struct mem_slots_ops slots_ops = { .find = slots_find };

static void show(uint64_t gpa, char *host)
{
	shown.gpa = gpa;
	shown.host = host;
	vfio_peers_follow(&fake.space);
}

static struct vfio_space_ops ops;

static void setup(void)
{
	ops = fake_ops;
	ops.maps_peers = true;
	shown.slots.ops = &slots_ops;
	fake = (struct fake){ .room = MAX_MAPS, .refuse = ENOSPC };
	fake.space = (struct vfio_space){
		.ops = &ops,
		.name = "fake",
		.ram = &ram,
		.slots = &shown.slots,
		.num_usable = 1,
		.usable = { { 0, UINT64_MAX } },
		.granule = G,
	};
	vfio_space_init(&fake.space);
	log_set_level(LOG_ERROR);
}

TestSuite(space, .init = setup);

static int map(uint64_t iova, uint64_t size, uint64_t phys)
{
	struct dma_listener *l = &fake.space.listener;

	return l->ops->map(l, IOVA(iova), IOVA(iova + size - 1), GPA(phys), DMA_READ);
}

static int identity(void)
{
	return fake.space.listener.ops->identity(&fake.space.listener);
}

static void clear(void)
{
	cr_assert_eq(fake.space.listener.ops->clear(&fake.space.listener, NULL), 0);
	cr_assert_eq(fake.count, 0);
}

Test(space, a_mapping_reaches_the_memory_behind_it)
{
	struct dma_listener *l = &fake.space.listener;

	cr_assert_eq(map(GIB(5), 2 * G, MIB(1) + 3 * G), 0);
	cr_assert(fake.map[0].iova == GIB(5) && fake.map[0].size == 2 * G);
	cr_assert(fake.map[0].host == memory + 35 * G && fake.map[0].perm == DMA_READ);
	cr_assert_eq(l->ops->unmap(l, IOVA(GIB(5)), IOVA(GIB(5) + 2 * G - 1), NULL), 0);
	cr_assert(fake.count == 0 && fake.space.count == 0);
}

Test(space, what_is_not_memory_is_refused)
{
	cr_assert_eq(map(0, G, 32 * G), -EFAULT, "a hole");
	cr_assert_eq(map(0, 2 * G, 31 * G), -EFAULT, "memory, then a hole");
	cr_assert_eq(map(0, G, MIB(1) + 32 * G), -EFAULT, "beyond the end");
	cr_assert_eq(map(0, 0, 0), -EFAULT, "all of the 64-bit space");
	cr_assert_eq(map(0, G, UINT64_MAX - G + 1), -EFAULT);
	cr_assert_eq(fake.count, 0);
}

Test(space, the_limit_of_the_host_is_an_answer)
{
	fake.room = 2;
	cr_assert_eq(map(0, G, 0), 0);
	cr_assert_eq(map(G, G, 0), 0);
	cr_assert_eq(map(2 * G, G, 0), -ENOSPC);
	cr_assert(fake.space.said_limit);
	cr_assert_eq(fake.space.count, 2);
	clear();
	cr_assert_not(fake.space.said_limit, "the next time is told again");
	cr_assert_eq(map(2 * G, G, 0), 0);
	fake.room = 1;
	fake.refuse = ENOMEM;
	cr_assert_eq(map(3 * G, G, 0), -ENOMEM);
}

Test(space, identity_is_all_memory)
{
	cr_assert_eq(identity(), 0);
	cr_assert_eq(fake.count, 2);
	cr_assert(fake.map[0].iova == 0 && fake.map[0].size == 32 * G);
	cr_assert(fake.map[1].iova == MIB(1) && fake.map[1].host == memory + 32 * G);
	cr_assert_eq(fake.map[1].perm, DMA_READ | DMA_WRITE);
}

/* What the host can map, and the first part of memory that it can't; first > last: all of it. */
static const struct {
	unsigned count;
	struct vfio_range usable[3], missed;
} reach[] = {
	/* Gaps where there is no memory, like those around doorbells. */
	{ 3, { { 0, 40 * G - 1 }, { 50 * G, 60 * G }, { 70 * G, UINT64_MAX } }, { 1, 0 } },
	{ 2, { { 0, 32 * G - 1 }, { MIB(1), MIB(1) + 32 * G - 1 } }, { 1, 0 } },
	/* Two that touch. */
	{ 2, { { 0, 7 * G - 1 }, { 7 * G, MIB(2) } }, { 1, 0 } },
	/* A gap in the middle; one behind the other; both ends. */
	{ 2, { { 0, 5 * G - 1 }, { 7 * G, UINT64_MAX } }, { 5 * G, 7 * G - 1 } },
	{ 3,
	  { { 0, 5 * G - 1 }, { 6 * G, 8 * G - 1 }, { 9 * G, UINT64_MAX } },
	  { 5 * G, 6 * G - 1 } },
	{ 1, { { G, UINT64_MAX } }, { 0, G - 1 } },
	{ 1, { { 0, 31 * G - 1 } }, { 31 * G, 32 * G - 1 } },
	/* An aperture that ends within the upper part, between the two, before both. */
	{ 1, { { 0, MIB(1) + G - 1 } }, { MIB(1) + G, MIB(1) + 32 * G - 1 } },
	{ 1, { { 0, 100 * G } }, { MIB(1), MIB(1) + 32 * G - 1 } },
	{ 1, { { GIB(1), UINT64_MAX } }, { 0, 32 * G - 1 } },
};

Test(space, an_identity_that_would_miss_memory_is_refused)
{
	for (unsigned i = 0; i < ARRAY_SIZE(reach); i++) {
		struct vfio_range missed = { 1, 0 };
		bool misses = reach[i].missed.first <= reach[i].missed.last;

		fake.space.num_usable = reach[i].count;
		memcpy(fake.space.usable, reach[i].usable, sizeof(reach[i].usable));
		cr_assert_eq(vfio_space_misses(&fake.space, &missed), misses, "%u", i);
		cr_assert(missed.first == reach[i].missed.first &&
				  missed.last == reach[i].missed.last,
			  "%u", i);
		cr_assert_eq(identity(), misses ? -ENOTSUP : 0);
		cr_assert_eq(fake.count, misses ? 0 : 2);
		clear();
	}
}

Test(space, an_identity_that_fails_leaves_nothing)
{
	fake.room = 1;
	cr_assert_eq(identity(), -ENOSPC);
	cr_assert(fake.count == 0 && fake.space.count == 0);
}

/* A DETACH, a reset of the machine: the device reaches nothing any more. */
Test(space, what_the_host_failed_to_unmap_goes_with_the_rest)
{
	struct dma_listener *l = &fake.space.listener;

	cr_assert_eq(map(0, G, 0), 0);
	fake.keeps = true;
	cr_assert_eq(l->ops->unmap(l, IOVA(0), IOVA(G - 1), NULL), 0);
	cr_assert(fake.count == 1 && fake.space.count == 0);
	cr_assert_eq(l->ops->clear(l, NULL), 0);
	cr_assert_eq(fake.count, 1, "a host that fails at that, too");
	fake.keeps = false;
	clear();
}

/* Audits: the books say what map was told below; the host is changed behind their back. */

static const struct vfio_range *books;

static bool next_in_books(void *opaque, iova_t *ret_first, iova_t *ret_last)
{
	if (!books->last)
		return false;
	*ret_first = IOVA(books->first);
	*ret_last = IOVA(books++->last);
	return true;
}

static uint64_t audit(bool identity)
{
	static const struct vfio_range ranges[] = {
		{ G, 3 * G - 1 }, { 3 * G, 4 * G - 1 }, { GIB(4), GIB(4) + G - 1 }, { 0, 0 }
	};
	struct dma_listener *l = &fake.space.listener;

	books = ranges;
	return l->ops->audit(l, identity ? NULL : next_in_books, NULL);
}

static void map_books(void)
{
	cr_assert_eq(map(G, 2 * G, 0), 0);
	cr_assert_eq(map(3 * G, G, 4 * G), 0);
	cr_assert_eq(map(GIB(4), G, 0), 0);
	cr_assert_eq(audit(false), 0);
}

Test(audit, equal_books_have_no_differences, .init = setup)
{
	map_books();
	clear();
	cr_assert_eq(identity(), 0);
	cr_assert_eq(audit(true), 0);
}

Test(audit, what_the_host_lost_is_found, .init = setup)
{
	map_books();
	cr_assert_eq(fake_unmap(&fake.space, 3 * G, G), 0);
	cr_assert_eq(audit(false), 1);
}

Test(audit, the_end_of_a_mapping_counts_too, .init = setup)
{
	map_books();
	fake.map[0].size = G;
	cr_assert_eq(audit(false), 1);
}

Test(audit, what_the_host_kept_is_found_and_taken_away, .init = setup)
{
	map_books();
	cr_assert_eq(fake_map(&fake.space, 0, G, memory, DMA_READ), 0);
	cr_assert_eq(audit(false), 1, "before the first");
	cr_assert_eq(fake_map(&fake.space, MIB(1), G, memory, DMA_READ), 0);
	cr_assert_eq(audit(false), 1, "between two");
	cr_assert_eq(fake_map(&fake.space, UINT64_MAX - G + 1, G, memory, DMA_READ), 0);
	cr_assert_eq(audit(false), 1, "after the last");
	cr_assert_eq(audit(false), 0);
}

Test(audit, a_mapping_that_nobody_counted, .init = setup)
{
	map_books();
	fake.space.count++;
	cr_assert_eq(audit(false), 1);
}

Test(audit, an_empty_space_is_asked_for_as_a_whole, .init = setup)
{
	cr_assert_eq(fake_map(&fake.space, GIB(9), G, memory, DMA_READ), 0);
	static const struct vfio_range nothing = { 0, 0 };

	books = &nothing;
	cr_assert_eq(fake.space.listener.ops->audit(&fake.space.listener, next_in_books, NULL), 1);
	cr_assert_eq(fake.count, 0);
}

Test(audit, identity_is_all_memory, .init = setup)
{
	cr_assert_eq(identity(), 0);
	cr_assert_eq(fake_unmap(&fake.space, MIB(1), 32 * G), 0);
	cr_assert_eq(audit(true), 1);
}

/* Another device's registers. */

#define BAR (GIB(64) + 2 * G)

static void unmap(uint64_t iova, uint64_t size)
{
	struct dma_listener *l = &fake.space.listener;

	cr_assert_eq(l->ops->unmap(l, IOVA(iova), IOVA(iova + size - 1), NULL), 0);
}

Test(peers, registers_are_mapped_where_the_guest_sees_them, .init = setup)
{
	show(BAR, registers);
	cr_assert_eq(map(0, 2 * G, BAR + G), 0);
	cr_assert(fake.count == 1 && fake.map[0].host == registers + G);
	cr_assert_eq(map(4 * G, 4 * G, BAR + G), -EFAULT, "not all of it is there");
	unmap(0, 2 * G);
	cr_assert(fake.count == 0 && fake.space.count == 0 && !fake.space.peers);
}

Test(peers, a_backend_that_cannot_says_so, .init = setup)
{
	ops.maps_peers = false;
	show(BAR, registers);
	cr_assert_eq(map(0, G, BAR), -ENOTSUP);
	cr_assert_eq(map(0, G, BAR - G), -EFAULT);
	cr_assert_eq(fake.count, 0);
}

Test(peers, nothing_is_left_of_registers_that_went, .init = setup)
{
	show(BAR, registers);
	cr_assert_eq(map(0, G, BAR), 0);
	cr_assert_eq(map(GIB(1), G, 0), 0);
	show(0, NULL);
	cr_assert(fake.count == 1 && fake.map[0].iova == GIB(1), "memory stays");
	static const struct vfio_range both[] = { { 0, G - 1 }, { GIB(1), GIB(1) + G - 1 }, { 0 } };

	books = both;
	cr_assert_eq(fake.space.listener.ops->audit(&fake.space.listener, next_in_books, NULL), 0);
	show(GIB(65), registers);
	cr_assert_eq(fake.count, 1, "they are elsewhere now");
	show(BAR, other_registers);
	cr_assert(fake.count == 2 && fake.map[1].iova == 0 && fake.map[1].host == other_registers);
	show(BAR, registers);
	cr_assert(fake.count == 2 && fake.map[1].host == registers);
	unmap(0, G);
	show(0, NULL);
	cr_assert_eq(fake.count, 1);
}

Test(peers, what_is_unmapped_while_they_are_away_stays_so, .init = setup)
{
	show(BAR, registers);
	cr_assert_eq(map(0, G, BAR), 0);
	cr_assert_eq(map(G, G, BAR), 0);
	show(0, NULL);
	unmap(0, G);
	show(BAR, registers);
	cr_assert(fake.count == 1 && fake.map[0].iova == G && fake.space.count == 1);
	clear();
	show(0, NULL);
	show(BAR, registers);
	cr_assert_eq(fake.count, 0);
}

Test(peers, a_host_that_refuses_them_later_is_borne, .init = setup)
{
	show(BAR, registers);
	cr_assert_eq(map(0, G, BAR), 0);
	show(0, NULL);
	fake.room = 0;
	show(BAR, registers);
	cr_assert(fake.count == 0 && fake.space.count == 0);
	unmap(0, G);
	cr_assert_eq(fake.space.count, 0);
}

Test(peers, there_is_a_limit, .init = setup)
{
	char text[256] = "";

	show(BAR, registers);
	fake.space.num_peers = VFIO_MAX_PEERS;
	log_set_level(LOG_WARN);
	cr_redirect_stderr();
	cr_assert_eq(map(0, G, BAR), -ENOMEM);
	cr_assert(fgets(text, sizeof(text), cr_get_redirected_stderr()));
	cr_assert(strstr(text, "more than 1024 times"), "%s", text);
	fake.space.num_peers = 0;
}

/* Else a little memory of the guest's takes page tables of the host's without end. */
Test(space, memory_is_mapped_only_so_many_times)
{
	char text[200];

	for (unsigned i = 0; i < 2 * VFIO_MAX_REPEATS; i++)
		cr_assert_eq(map(i * 32 * G, 32 * G, i % 2 ? MIB(1) : 0), 0);
	fake.room = MAX_MAPS + 1;
	log_set_level(LOG_WARN);
	cr_redirect_stderr();
	cr_assert_eq(map(MIB(100), G, 0), -ENOMEM);
	cr_assert_eq(map(MIB(200), G, 0), -ENOMEM);
	fflush(stderr);
	cr_assert(fgets(text, sizeof(text), cr_get_redirected_stderr()));
	cr_expect_str_eq(text, "moat: fake: the guest maps its memory more than 16 times over for "
			       "a device: refused\n");
	cr_assert_eq(fake.count, 2 * VFIO_MAX_REPEATS);
	unmap(0, 32 * G);
	cr_assert_eq(map(MIB(100), G, 0), 0);
	cr_assert_eq(map(MIB(200), 32 * G, 0), -ENOMEM, "there is room for 31 pages");
	clear();
	cr_assert_eq(map(MIB(200), 32 * G, 0), 0);
}
