#include "tests/guests/arch.h"
#include "tests/guests/bench/bench.h"

#define DOMAIN	  1
#define MAX_DEPTH 32u
#define ROUNDS	  60u
#define ROUND_MS  30

/* In the control page: what each request that is under way has. */
#define SLOT_SIZE 128u
#define HEADER_AT 0u
#define HEADER	  16u
#define STATUS_AT 16u
#define TABLE_AT  64u /* its descriptors: header, data, status */
_Static_assert(MAX_DEPTH *SLOT_SIZE <= PAGE, "all slots in the control page");

/* Where a page is mapped for one I/O; addresses are used in turn. */
#define DYNAMIC	      0x100000000ull
#define DYNAMIC_PAGES 1024u

/* In 512-byte sectors, at the start of virtio-blk's config space. */
#define CONFIG_CAPACITY	  0
#define SECTORS_PER_BLOCK (PAGE / SECTOR)

enum mode { NONE, STATIC, DYNAMIC_MAPS, NUM_MODES };

static struct reader {
	struct disk *disk;
	uint64_t data; /* MAX_DEPTH pages */
	uint64_t blocks;
	uint64_t block[MAX_DEPTH]; /* that each slot reads */
	uint64_t iova[MAX_DEPTH];  /* ... to there */
	uint64_t next_iova;
	bool dynamic;
} readers[2];

static void write_desc(uint8_t *to, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	put64(to, addr);
	put32(to + 8, len);
	put16(to + 12, flags);
	put16(to + 14, next);
}

static void set_data(struct reader *r, unsigned slot, uint64_t iova)
{
	uint8_t *control = phys(r->disk->control_iova + slot * SLOT_SIZE);

	r->iova[slot] = iova;
	put64(control + TABLE_AT + DESC_SIZE, iova);
}

/* A slot's descriptors stay; of a request only the sector and the data's address are new. */
static void prepare(struct reader *r)
{
	for (unsigned i = 0; i < MAX_DEPTH; i++) {
		uint64_t at = r->disk->control_iova + i * SLOT_SIZE;
		uint8_t *table = phys(at + TABLE_AT);

		memset(phys(at), 0, SLOT_SIZE);
		put32(phys(at + HEADER_AT), DISK_LOAD);
		write_desc(table, at + HEADER_AT, HEADER, DESC_F_NEXT, 1);
		write_desc(table + DESC_SIZE, 0, PAGE, DESC_F_NEXT | DESC_F_WRITE, 2);
		write_desc(table + 2 * DESC_SIZE, at + STATUS_AT, 1, DESC_F_WRITE, 0);
		set_data(r, i, r->data + (uint64_t)i * PAGE);
		vring_write_desc(&r->disk->ring, (uint16_t)i, at + TABLE_AT, 3 * DESC_SIZE,
				 DESC_F_INDIRECT, 0);
	}
}

static void submit(struct reader *r, unsigned slot)
{
	uint8_t *control = phys(r->disk->control_iova + slot * SLOT_SIZE);

	r->block[slot] = random_below(r->blocks);
	put64(control + HEADER_AT + 8, r->block[slot] * SECTORS_PER_BLOCK);
	control[STATUS_AT] = 0xff;
	if (r->dynamic) {
		set_data(r, slot, DYNAMIC + r->next_iova++ % DYNAMIC_PAGES * PAGE);
		batch_map(0, DOMAIN, r->iova[slot], r->data + (uint64_t)slot * PAGE);
		request_send(1);
	}
	vring_offer(&r->disk->ring, (uint16_t)slot);
}

static void finish(struct reader *r, unsigned slot)
{
	const volatile uint8_t *control = phys(r->disk->control_iova + slot * SLOT_SIZE);
	const volatile uint64_t *number = phys(r->data + (uint64_t)slot * PAGE);

	if (r->dynamic) {
		batch_unmap(0, DOMAIN, r->iova[slot], 1);
		request_send(1);
	}
	if (control[STATUS_AT] != 0 || *number != r->block[slot])
		bail_out("a read failed, or read something else");
}

static void run_round(struct reader *r, enum mode mode, unsigned depth, unsigned round)
{
	static const char *const names[NUM_MODES] = { "reads none", "reads static",
						      "reads dynamic" };
	struct vring *ring = &r->disk->ring;
	uint64_t start = arch_ticks(), deadline = deadline_in(ROUND_MS), count = 0;
	unsigned under_way = depth;
	uint32_t id, len;

	r->dynamic = mode == DYNAMIC_MAPS;
	for (unsigned i = 0; i < depth; i++) {
		set_data(r, i, r->data + (uint64_t)i * PAGE);
		submit(r, i);
	}
	vring_kick(ring);
	while (under_way) {
		bool over = deadline_passed(deadline), more = false;

		while (vring_poll(ring, &id, &len)) {
			finish(r, id);
			count++;
			if (over) {
				under_way--;
			} else {
				submit(r, id);
				more = true;
			}
		}
		if (more)
			vring_kick(ring);
		else
			arch_relax();
	}
	const uint64_t value[] = { depth, round, count, arch_ticks() - start };

	report(names[mode], value, ARRAY_SIZE(value));
}

static void reader_init(struct reader *r, struct disk *disk)
{
	*r = (struct reader){
		.disk = disk,
		.data = pages(MAX_DEPTH),
		.blocks = vdev_config64(&disk->dev, CONFIG_CAPACITY) / SECTORS_PER_BLOCK,
	};
	prepare(r);
}

void bench_reads(struct disk *plain, struct disk *translated)
{
	disk_place(plain);
	if (!disk_start(plain) || disk_io_segs(plain, DISK_FLUSH, 0, NULL, 0) != IO_OK ||
	    !disk_up(translated, DOMAIN))
		bail_out("a disk doesn't start");
	reader_init(&readers[0], plain);
	reader_init(&readers[1], translated);
	/* A mapping for each page, as buffers come one by one. */
	for (unsigned i = 0; i < MAX_DEPTH; i++) {
		uint64_t page = readers[1].data + (uint64_t)i * PAGE;

		if (iommu_map_pages(DOMAIN, page, page, 1, MAP_RW) != S_OK)
			bail_out("MAP failed");
	}
	for (unsigned depth = 1; depth <= MAX_DEPTH; depth *= MAX_DEPTH) {
		for (unsigned round = 0; round < ROUNDS; round++) {
			for (enum mode mode = NONE; mode < NUM_MODES; mode++)
				run_round(&readers[mode != NONE], mode, depth, round);
		}
	}
}
