/* A space of the host's IOMMU as a listener, with a backend that remembers. */
#include "devices/vfio/space.h"

#include <criterion/criterion.h>
#include <errno.h>
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
	fake.count = 0;
	return 0;
}

static const struct vfio_space_ops fake_ops = { fake_map, fake_unmap, fake_unmap_all };

/* RAM at 0 (32 pages) and at 1 MiB (32 pages). */
static struct ram ram = {
	.count = 2,
	.region = { { { 0 }, 32 * G, 0, memory }, { { MIB(1) }, 32 * G, 32 * G, memory + 32 * G } },
};

static void setup(void)
{
	fake = (struct fake){ .room = MAX_MAPS, .refuse = ENOSPC };
	fake.space = (struct vfio_space){
		.ops = &fake_ops,
		.name = "fake",
		.ram = &ram,
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

Test(space, identity_is_all_memory_that_the_host_can_address)
{
	cr_assert_eq(identity(), 0);
	cr_assert_eq(fake.count, 2);
	cr_assert(fake.map[0].iova == 0 && fake.map[0].size == 32 * G);
	cr_assert(fake.map[1].iova == MIB(1) && fake.map[1].host == memory + 32 * G);
	cr_assert_eq(fake.map[1].perm, DMA_READ | DMA_WRITE);
	clear();
	/* A gap in the first region, which doesn't end with a page; an end in the second. */
	fake.space.num_usable = 2;
	fake.space.usable[0] = (struct vfio_range){ 0, 5 * G + 7 };
	fake.space.usable[1] = (struct vfio_range){ 7 * G - 1, MIB(1) + G - 1 };
	cr_assert_eq(identity(), 0);
	cr_assert_eq(fake.count, 3);
	cr_assert(fake.map[0].iova == 0 && fake.map[0].size == 5 * G);
	cr_assert(fake.map[1].iova == 7 * G && fake.map[1].size == 25 * G &&
		  fake.map[1].host == memory + 7 * G);
	cr_assert(fake.map[2].iova == MIB(1) && fake.map[2].size == G);
}

Test(space, an_identity_that_fails_leaves_nothing)
{
	fake.room = 1;
	cr_assert_eq(identity(), -ENOSPC);
	cr_assert(fake.count == 0 && fake.space.count == 0);
}
