/* Mappings: as many as there may be, and as often as can be. */
#include "tests/guests/arch.h"
#include "tests/guests/flood/flood.h"

/* Page i is mapped at FILL + 2 i pages, so that no two mappings are neighbours. */
#define FILL 0x200000000ull

/* Domains that nothing else is in. */
#define SHORT_LIVED 100u

/* To fill a domain is so much that it counts as so many rounds. */
#define ROUNDS_PER_FILL 50u

#define BATCHES_PER_ROUND 4u

/*
 * MAP in @domain, which has OWN_MAPPINGS, until there are @limit, then a batch more.
 * True when exactly those that fit were made and the others refused with NOMEM.
 */
static bool fill(uint32_t domain, uint64_t limit)
{
	uint64_t room = limit - OWN_MAPPINGS, end = room + BATCH_MAX, next = 0;

	while (next < end) {
		uint64_t first = next;
		unsigned n = 0, fit;

		while (n < BATCH_MAX && next < end)
			batch_map(n++, domain, FILL + 2 * next++ * PAGE, kept_page());
		batch_send(n);
		fit = first >= room ? 0 : next <= room ? n : (unsigned)(room - first);
		if (batch_count(n, S_OK) != fit || batch_count(n, S_NOMEM) != n - fit)
			return false;
	}
	return true;
}

/*
 * "limit=N" and "total=N" on the command line are what a domain and all of them may
 * have: one domain is full before the next one takes what is left. They are emptied
 * by UNMAP and by a reset in turn.
 */
static bool up_to_limits(unsigned rounds)
{
	uint64_t limit = word_value(arch_cmdline(), "limit=");
	uint64_t left = word_value(arch_cmdline(), "total=") - limit;

	for (unsigned i = 0; i <= rounds / ROUNDS_PER_FILL; i++) {
		/* The second disk's own mappings count, too. */
		if (!fill(DOMAIN, limit) || !fill(DOMAIN + 1, left))
			return false;
		for (uint32_t domain = DOMAIN; i % 2 && domain <= DOMAIN + 1; domain++) {
			if (iommu_unmap(domain, FILL, FILL + 2 * limit * PAGE - 1) != S_OK)
				return false;
		}
		if (i % 2 == 0 && !up())
			return false;
	}
	return true;
}

static bool map_batch(uint32_t domain)
{
	for (unsigned i = 0; i < BATCH_MAX; i++)
		batch_map(i, domain, FILL + 2 * i * PAGE, kept_page());
	batch_send(BATCH_MAX);
	return batch_count(BATCH_MAX, S_OK) == BATCH_MAX;
}

static bool come_and_go(unsigned rounds)
{
	for (unsigned n = 0; n < rounds * BATCHES_PER_ROUND; n++) {
		if (!map_batch(DOMAIN))
			return false;
		for (unsigned i = 0; i < BATCH_MAX; i++)
			batch_unmap(i, DOMAIN, FILL + 2 * i * PAGE, 1);
		batch_send(BATCH_MAX);
		if (batch_count(BATCH_MAX, S_OK) != BATCH_MAX)
			return false;
	}
	return true;
}

/* The last disk leaves a domain, which dies with its mappings, for the next one. */
static bool domains(unsigned rounds)
{
	struct disk *disk = &disks[num_disks - 1];

	if (!vdev_reset(&disk->dev))
		return false;
	while (rounds--) {
		if (iommu_attach(SHORT_LIVED + rounds, disk->endpoint, 0) != S_OK ||
		    !map_batch(SHORT_LIVED + rounds))
			return false;
	}
	return up();
}

const struct flood mapping_floods[] = {
	{ "mappings", "mappings up to the limits", up_to_limits },
	{ "mappings", "mappings that come and go", come_and_go },
	{ "mappings", "domains that come and go", domains },
	{ NULL, NULL, NULL },
};
