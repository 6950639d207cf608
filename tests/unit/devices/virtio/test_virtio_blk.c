/*
 * A disk as its driver sees it: on a real file where the data counts, on a
 * backend that keeps requests waiting where the order of events counts.
 */
#include "driver.h"

#include <fcntl.h>
#include <sys/stat.h>
#include "devices/virtio/virtio_blk.h"

#define DISK_SIZE MIB(8)
#define SECTORS	  (DISK_SIZE / 512)

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2, S_NONE = 0xee };

#define F_FLUSH (1ULL << 9)

/* Where the parts of a request lie. */
#define HEADER (DATA)
#define STATUS (DATA + 64)
#define RANGES (DATA + 128)
#define BUFFER (DATA + PAGE)

struct rig {
	struct driver d;
	struct virtio_blk *blk;
	char path[64];
	int fd; /* the host's view of the disk */
};

static void start_on(struct rig *rig, struct block *block, uint64_t without)
{
	struct virtio_blk_config config = { .name = "vda",
					    .num_queues = 1,
					    .queue_size = DRIVER_SIZE };
	struct err err = { "" };

	cr_assert_eq(
		virtio_blk_create(&rig->blk, &config, block, &rig->d.w.view, rig->d.loop, &err), 0,
		"%s", err.text);
	driver_start(&rig->d, virtio_blk_virtio(rig->blk), without);
}

static void rig_start(struct rig *rig, bool readonly)
{
	struct block *block;
	struct err err = { "" };

	driver_init(&rig->d);
	strcpy(rig->path, "/tmp/moat-test-XXXXXX");
	rig->fd = mkstemp(rig->path);
	cr_assert_geq(rig->fd, 0);
	for (uint64_t i = 0; i < SECTORS; i++) {
		unsigned char sector[512];

		memset(sector, (int)(i % 251), sizeof(sector));
		cr_assert_eq(pwrite(rig->fd, sector, 512, (off_t)(i * 512)), 512);
	}
	cr_assert_eq(block_file_create(&block, rig->path, readonly, rig->d.loop, &err), 0, "%s",
		     err.text);
	start_on(rig, block, 0);
}

static void rig_stop(struct rig *rig)
{
	cr_assert_eq(rig->d.refs_at_interrupt, 0, "data must be unpinned before it is reported");
	virtio_host_reset(rig->d.dev);
	virtio_blk_destroy(rig->blk);
	driver_finish(&rig->d);
	if (rig->path[0]) {
		close(rig->fd);
		unlink(rig->path);
	}
}

static void put_header(struct rig *rig, uint32_t type, uint64_t sector)
{
	struct {
		le32 type, reserved;
		le64 sector;
	} header = { le32_from(type), le32_from(0), le64_from(sector) };
	unsigned char none = S_NONE;

	poke(&rig->d.w, HEADER, &header, sizeof(header));
	poke(&rig->d.w, STATUS, &none, 1);
}

static unsigned status(struct rig *rig)
{
	unsigned char byte;

	peek(&rig->d.w, STATUS, &byte, 1);
	return byte;
}

/* One request with its data in one descriptor; returns the status byte. */
static unsigned request(struct rig *rig, uint32_t type, uint64_t sector, uint64_t data,
			uint32_t len)
{
	struct part part[3] = { { HEADER, 16, false },
				{ data, len, type == T_IN || type == T_GET_ID },
				{ STATUS, 1, true } };

	put_header(rig, type, sector);
	if (!len) {
		part[1] = part[2];
		driver_do(&rig->d, 0, part, 2);
	} else {
		driver_do(&rig->d, 0, part, 3);
	}
	return status(rig);
}

static unsigned char disk_byte(struct rig *rig, uint64_t at)
{
	unsigned char byte = 0;

	cr_assert_eq(pread(rig->fd, &byte, 1, (off_t)at), 1);
	return byte;
}

Test(virtio_blk, reads_into_scattered_memory, .timeout = 60)
{
	/* Everything is cut where no sane driver would, which 2.7.4 allows. */
	struct part part[] = { { HEADER, 3, false },
			       { HEADER + 3, 12, false },
			       { HEADER + 15, 1, false },
			       { BUFFER + 1, 1000, true },
			       { BUFFER + 2 * PAGE - 7, 2 * PAGE + 14, true },
			       { BUFFER + 8 * PAGE, 3 * 4096 - 1000 - 2 * 4096 - 14 + 1, true } };
	unsigned char got[PAGE * 10];
	static struct rig rig;

	rig_start(&rig, false);
	put_header(&rig, T_IN, 100);
	/* The last part carries the last data and the status byte. */
	cr_assert_eq(driver_do(&rig.d, 0, part, 6), 3 * 4096 + 1);
	peek(&rig.d.w, BUFFER, got, sizeof(got));
	cr_assert_eq(got[0], 0, "a byte in front of the buffer");
	cr_assert_eq(got[1], 100);
	cr_assert_eq(got[1 + 511], 100);
	cr_assert_eq(got[1 + 512], 101);
	cr_assert_eq(got[1001], 0, "a byte behind the piece");
	cr_assert_eq(got[2 * PAGE - 7], 101);
	cr_assert_eq(got[2 * PAGE - 7 + 2 * PAGE + 14], 0);
	cr_assert_eq(got[8 * PAGE + part[5].len - 2], 123, "the last byte of sector 123");
	cr_assert_eq(got[8 * PAGE + part[5].len - 1], S_OK);
	rig_stop(&rig);
}

Test(virtio_blk, written_data_is_on_the_host, .timeout = 60)
{
	unsigned char data[8192];
	static struct rig rig;

	rig_start(&rig, false);
	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (unsigned char)(i * 7 + i / 256);
	poke(&rig.d.w, BUFFER + 100, data, sizeof(data));
	cr_assert_eq(request(&rig, T_OUT, SECTORS - 16, BUFFER + 100, 8192), S_OK);
	cr_assert_eq(request(&rig, T_FLUSH, 0, 0, 0), S_OK);
	for (unsigned i = 0; i < sizeof(data); i++)
		cr_assert_eq(disk_byte(&rig, DISK_SIZE - 8192 + i), data[i]);
	cr_assert_eq(disk_byte(&rig, DISK_SIZE - 8193), (SECTORS - 17) % 251);
	rig_stop(&rig);
}

/* More pieces than a slot holds: served in rounds, and none is lost or doubled. */
Test(virtio_blk, request_larger_than_a_slot, .timeout = 60)
{
	struct part part[16] = { { HEADER, 16, false } };
	uint32_t each = 46 * 4096;
	static struct rig rig;

	rig_start(&rig, false);
	for (unsigned page = 0; page < 46; page++)
		for (unsigned i = 0; i < 4096; i += 64)
			poke(&rig.d.w, BUFFER + page * PAGE + i, &(uint8_t){ (uint8_t)page }, 1);
	for (unsigned i = 1; i <= 14; i++)
		part[i] = (struct part){ BUFFER, each, false };
	part[15] = (struct part){ STATUS, 1, true };
	put_header(&rig, T_OUT, 8);
	cr_assert_eq(driver_do(&rig.d, 0, part, 16), 1);
	cr_assert_eq(status(&rig), S_OK);
	for (uint64_t page = 0; page < 14 * 46; page++)
		cr_assert_eq(disk_byte(&rig, 4096 + page * 4096), page % 46);
	cr_assert_eq(disk_byte(&rig, 4096 + 14ULL * each), (8 + 14 * each / 512) % 251);
	rig_stop(&rig);
}

Test(virtio_blk, refuses_what_is_not_on_the_disk, .timeout = 60)
{
	static struct rig rig;

	rig_start(&rig, false);
	cr_assert_eq(request(&rig, T_IN, SECTORS, BUFFER, 512), S_IOERR);
	cr_assert_eq(request(&rig, T_IN, SECTORS - 1, BUFFER, 1024), S_IOERR);
	cr_assert_eq(request(&rig, T_OUT, SECTORS - 1, BUFFER, 1024), S_IOERR);
	cr_assert_eq(request(&rig, T_IN, UINT64_MAX, BUFFER, 512), S_IOERR);
	/* sector * 512 wraps around to 0 */
	cr_assert_eq(request(&rig, T_OUT, 1ULL << 55, BUFFER, 512), S_IOERR);
	cr_assert_eq(request(&rig, T_IN, 0, BUFFER, 511), S_IOERR);
	cr_assert_eq(request(&rig, T_OUT, 0, BUFFER, 513), S_IOERR);
	cr_assert_eq(disk_byte(&rig, 600), 1, "nothing was written");
	cr_assert_eq(request(&rig, T_IN, SECTORS - 1, BUFFER, 512), S_OK);
	struct stat st;
	fstat(rig.fd, &st);
	cr_assert_eq(st.st_size, DISK_SIZE);
	rig_stop(&rig);
}

Test(virtio_blk, readonly_disk_is_never_written, .timeout = 60)
{
	static struct rig rig;

	rig_start(&rig, true);
	cr_assert(virtio_offered_features(rig.d.dev) & (1ULL << 5));
	cr_assert_eq(request(&rig, T_OUT, 0, BUFFER, 512), S_IOERR);
	put_header(&rig, T_ZEROES, 0);
	cr_assert_eq(request(&rig, T_ZEROES, 0, RANGES, 16), S_UNSUPP);
	cr_assert_eq(request(&rig, T_DISCARD, 0, RANGES, 16), S_UNSUPP);
	cr_assert_eq(request(&rig, T_IN, 0, BUFFER, 512), S_OK);
	cr_assert_eq(request(&rig, T_FLUSH, 0, 0, 0), S_OK);
	cr_assert_eq(disk_byte(&rig, 512), 1);
	rig_stop(&rig);
}

Test(virtio_blk, get_id_and_unknown_types, .timeout = 60)
{
	char id[21] = "....................";
	static struct rig rig;

	rig_start(&rig, false);
	poke(&rig.d.w, BUFFER, id, sizeof(id));
	cr_assert_eq(request(&rig, T_GET_ID, 0, BUFFER, 20), S_OK);
	peek(&rig.d.w, BUFFER, id, sizeof(id));
	cr_assert_str_eq(id, "vda");
	cr_assert_eq(id[19], 0);
	cr_assert_eq(request(&rig, 7, 0, BUFFER, 512), S_UNSUPP);
	cr_assert_eq(request(&rig, UINT32_MAX, 0, BUFFER, 512), S_UNSUPP);
	rig_stop(&rig);
}

Test(virtio_blk, malformed_requests_cost_only_themselves, .timeout = 60)
{
	struct part short_header[] = { { HEADER, 15, false }, { STATUS, 1, true } };
	struct part no_status[] = { { HEADER, 16, false }, { BUFFER, 512, false } };
	struct part no_header[] = { { STATUS, 1, true } };
	static struct rig rig;

	rig_start(&rig, false);
	put_header(&rig, T_FLUSH, 0);
	driver_do(&rig.d, 0, short_header, 2);
	cr_assert_eq(status(&rig), S_IOERR);
	put_header(&rig, T_OUT, 0);
	cr_assert_eq(driver_do(&rig.d, 0, no_status, 2), 0);
	cr_assert_eq(disk_byte(&rig, 600), 1);
	driver_do(&rig.d, 0, no_header, 1);
	cr_assert_eq(status(&rig), S_IOERR);
	cr_assert_eq(request(&rig, T_IN, 0, BUFFER, 512), S_OK);
	cr_assert(!(virtio_get_status(rig.d.dev) & VIRTIO_STATUS_NEEDS_RESET));
	rig_stop(&rig);
}

Test(virtio_blk, broken_ring_needs_a_reset_and_recovers_by_it, .timeout = 60)
{
	static struct rig rig;

	rig_start(&rig, false);
	ring_desc(&rig.d.ring[0], 0, HEADER, 16, F_NEXT, 0); /* a loop */
	ring_offer(&rig.d.ring[0], 0);
	virtio_kick(rig.d.dev, 0);
	for (int i = 0; i < 10000 && !rig.d.config_interrupts; i++)
		usleep(1000);
	cr_assert(virtio_get_status(rig.d.dev) & VIRTIO_STATUS_NEEDS_RESET);
	cr_assert_eq(rig.d.config_interrupts, 1);
	virtio_kick(rig.d.dev, 0);
	virtio_host_reset(rig.d.dev);
	cr_assert_eq(virtio_get_status(rig.d.dev), 0);
	driver_start(&rig.d, rig.d.dev, 0);
	cr_assert_eq(request(&rig, T_IN, 3, BUFFER, 512), S_OK);
	cr_assert_eq(*world_byte(&rig.d.w, BUFFER), 3);
	rig_stop(&rig);
}

Test(virtio_blk, hole_in_the_iommu_fails_one_request, .timeout = 60)
{
	uint64_t hole = (BUFFER - WORLD_BASE) / PAGE + 1;
	struct part status_in_hole[] = { { HEADER, 16, false }, { BUFFER + PAGE, 1, true } };
	static struct rig rig;

	rig_start(&rig, false);
	unsigned was = rig.d.w.map[hole].page;
	world_remap(&rig.d.w, (unsigned)hole, was, DMA_READ);
	cr_assert_eq(request(&rig, T_IN, 0, BUFFER, 3 * PAGE), S_IOERR);
	cr_assert_eq(rig.d.w.faults, 1);
	cr_assert_eq(rig.d.w.fault_addr, BUFFER + PAGE);
	cr_assert_eq(rig.d.w.fault_dir, DMA_WRITE);
	cr_assert_eq(request(&rig, T_OUT, 0, BUFFER, 3 * PAGE), S_OK, "it may be read");
	world_remap(&rig.d.w, (unsigned)hole, was, 0);
	cr_assert_eq(request(&rig, T_OUT, 0, BUFFER, 3 * PAGE), S_IOERR);
	put_header(&rig, T_FLUSH, 0);
	cr_assert_eq(driver_do(&rig.d, 0, status_in_hole, 2), 0, "the status went nowhere");
	cr_assert_eq(request(&rig, T_IN, 0, BUFFER, 512), S_OK);
	rig_stop(&rig);
}

static void put_range(struct rig *rig, unsigned index, uint64_t sector, uint32_t count,
		      uint32_t flags)
{
	struct {
		le64 sector;
		le32 count, flags;
	} range = { le64_from(sector), le32_from(count), le32_from(flags) };

	poke(&rig->d.w, RANGES + 16 * index, &range, sizeof(range));
}

Test(virtio_blk, discard_and_write_zeroes, .timeout = 60)
{
	static struct rig rig;

	rig_start(&rig, false);
	put_range(&rig, 0, 16, 8, 0);
	put_range(&rig, 1, 101, 3, 1); /* may unmap */
	cr_assert_eq(request(&rig, T_ZEROES, 0, RANGES, 32), S_OK);
	cr_assert_eq(disk_byte(&rig, 16 * 512 - 1), 15);
	cr_assert_eq(disk_byte(&rig, 16 * 512), 0);
	cr_assert_eq(disk_byte(&rig, 24 * 512 - 1), 0);
	cr_assert_eq(disk_byte(&rig, 24 * 512), 24);
	cr_assert_eq(disk_byte(&rig, 101 * 512), 0);
	cr_assert_eq(disk_byte(&rig, 104 * 512 - 1), 0);
	cr_assert_eq(disk_byte(&rig, 104 * 512), 104);

	struct stat before, after;

	fsync(rig.fd);
	fstat(rig.fd, &before);
	put_range(&rig, 0, 2048, 4096, 0);
	cr_assert_eq(request(&rig, T_DISCARD, 0, RANGES, 16), S_OK);
	fstat(rig.fd, &after);
	cr_assert_lt(after.st_blocks, before.st_blocks);
	cr_assert_eq(after.st_size, before.st_size);
	rig_stop(&rig);
}

Test(virtio_blk, wrong_ranges_change_nothing, .timeout = 60)
{
	static struct rig rig;

	rig_start(&rig, false);
	put_range(&rig, 0, 0, 8, 2);
	cr_assert_eq(request(&rig, T_ZEROES, 0, RANGES, 16), S_UNSUPP, "a reserved flag");
	put_range(&rig, 0, 0, 8, 1);
	cr_assert_eq(request(&rig, T_DISCARD, 0, RANGES, 16), S_UNSUPP, "5.2.6.2");
	put_range(&rig, 0, 0, 8, 0);
	cr_assert_eq(request(&rig, T_ZEROES, 0, RANGES, 15), S_IOERR);
	cr_assert_eq(request(&rig, T_ZEROES, 0, 0, 0), S_IOERR);
	cr_assert_eq(request(&rig, T_ZEROES, 0, RANGES, 16 * 17), S_IOERR, "too many");
	/* A good range in front of a bad one isn't executed. */
	put_range(&rig, 1, SECTORS - 1, 2, 0);
	cr_assert_eq(request(&rig, T_ZEROES, 0, RANGES, 32), S_IOERR);
	put_range(&rig, 1, UINT64_MAX, 2, 0);
	cr_assert_eq(request(&rig, T_ZEROES, 0, RANGES, 32), S_IOERR);
	put_range(&rig, 1, 0, UINT32_MAX, 0);
	cr_assert_eq(request(&rig, T_ZEROES, 0, RANGES, 32), S_IOERR);
	cr_assert_eq(disk_byte(&rig, 512), 1);
	rig_stop(&rig);
}

Test(virtio_blk, many_requests_at_once, .timeout = 60)
{
	static struct rig rig;
	unsigned char none[10];

	rig_start(&rig, false);
	memset(none, S_NONE, sizeof(none));
	for (unsigned round = 0; round < 50; round++) {
		poke(&rig.d.w, BUFFER, none, sizeof(none));
		for (unsigned i = 0; i < 10; i++) {
			uint64_t at = BUFFER + PAGE * (1 + i);
			struct part part[] = { { at, 16, false },
					       { at + 16, 512, true },
					       { BUFFER + i, 1, true } };

			put_header(&rig, T_IN, round * 10 + i);
			unsigned char header[16];
			peek(&rig.d.w, HEADER, header, 16);
			poke(&rig.d.w, at, header, 16);
			driver_offer(&rig.d, 0, part, 3);
		}
		virtio_kick(rig.d.dev, 0);
		driver_wait(&rig.d, 0, (uint16_t)(10 * (round + 1)));
		for (unsigned i = 0; i < 10; i++) {
			cr_assert_eq(*world_byte(&rig.d.w, BUFFER + i), S_OK);
			cr_assert_eq(*world_byte(&rig.d.w, BUFFER + PAGE * (1 + i) + 16),
				     (round * 10 + i) % 251);
		}
	}
	rig_stop(&rig);
}

/*
 * A backend that waits to be told.
 */

struct slow {
	struct block block;
	struct block_request *held[8];
	unsigned count;
	enum block_op seen[16];
	_Atomic unsigned submitted;
	bool immediate;
	int result;
};

static void slow_submit(struct block *block, struct block_request *request)
{
	struct slow *slow = container_of(block, struct slow, block);

	slow->seen[slow->submitted % 16] = request->op;
	if (slow->immediate)
		request->done(request, slow->result);
	else
		slow->held[slow->count++] = request;
	atomic_fetch_add(&slow->submitted, 1);
}

static void slow_flush(struct block *block)
{
}

static const struct block_ops slow_ops = { slow_submit, slow_flush, slow_flush };

static void slow_release(void *opaque)
{
	struct slow *slow = opaque;
	unsigned count = slow->count;

	slow->count = 0;
	for (unsigned i = 0; i < count; i++)
		slow->held[i]->done(slow->held[i], slow->result);
	slow->block.batch_done(slow->block.opaque);
}

static void slow_start(struct rig *rig, struct slow *slow, uint64_t without)
{
	memset(rig, 0, sizeof(*rig));
	slow->block.ops = &slow_ops;
	slow->block.info = (struct block_info){ DISK_SIZE, 512, 4096, false, false, false };
	driver_init(&rig->d);
	start_on(rig, &slow->block, without);
}

static void slow_wait(struct slow *slow, unsigned submitted)
{
	for (int i = 0; i < 20000 && atomic_load(&slow->submitted) < submitted; i++)
		usleep(1000);
	cr_assert_eq(atomic_load(&slow->submitted), submitted);
}

static void offer(struct rig *rig, uint32_t type)
{
	struct part part[] = { { HEADER, 16, false },
			       { BUFFER, 1024, type == T_IN },
			       { STATUS, 1, true } };

	put_header(rig, type, 0);
	driver_offer(&rig->d, 0, part, 3);
	virtio_kick(rig->d.dev, 0);
}

/* While a request is in flight the status register must not say that memory is free. */
Test(virtio_blk, reset_waits_for_io_in_flight, .timeout = 60)
{
	static struct rig rig;
	static struct slow slow;

	slow_start(&rig, &slow, 0);
	offer(&rig, T_IN);
	slow_wait(&slow, 1);
	cr_assert_gt(rig.d.w.refs, 0);
	virtio_set_status(rig.d.dev, 0);
	driver_settle(&rig.d);
	cr_assert_neq(virtio_get_status(rig.d.dev), 0);
	loop_call(rig.d.loop, slow_release, &slow);
	virtio_wait_reset(rig.d.dev);
	cr_assert_eq(virtio_get_status(rig.d.dev), 0);
	cr_assert_eq(rig.d.w.refs, 0);
	/* And it works again. */
	driver_start(&rig.d, rig.d.dev, 0);
	offer(&rig, T_IN);
	slow_wait(&slow, 2);
	loop_call(rig.d.loop, slow_release, &slow);
	driver_wait(&rig.d, 0, 1);
	cr_assert_eq(status(&rig), S_OK);
	rig_stop(&rig);
}

Test(virtio_blk, host_errors_reach_the_driver, .timeout = 60)
{
	static struct rig rig;
	static struct slow slow;

	slow_start(&rig, &slow, 0);
	slow.result = -EIO;
	offer(&rig, T_IN);
	slow_wait(&slow, 1);
	cr_assert_eq(ring_used_idx(&rig.d.ring[0]), 0);
	cr_assert_eq(status(&rig), S_NONE);
	loop_call(rig.d.loop, slow_release, &slow);
	driver_wait(&rig.d, 0, 1);
	cr_assert_eq(status(&rig), S_IOERR);
	slow.immediate = true;
	offer(&rig, T_OUT);
	driver_wait(&rig.d, 0, 2);
	cr_assert_eq(status(&rig), S_IOERR);
	rig_stop(&rig);
}

/* A driver that can't flush relies on a write being durable when it is reported (5.2.6.2). */
Test(virtio_blk, without_flush_writes_are_durable, .timeout = 60)
{
	static struct rig rig;
	static struct slow slow;

	slow_start(&rig, &slow, F_FLUSH);
	offer(&rig, T_OUT);
	slow_wait(&slow, 1);
	cr_assert_eq(slow.seen[0], BLOCK_WRITE);
	loop_call(rig.d.loop, slow_release, &slow);
	slow_wait(&slow, 2);
	cr_assert_eq(slow.seen[1], BLOCK_FLUSH);
	cr_assert_eq(ring_used_idx(&rig.d.ring[0]), 0, "not yet");
	loop_call(rig.d.loop, slow_release, &slow);
	driver_wait(&rig.d, 0, 1);
	cr_assert_eq(status(&rig), S_OK);
	rig_stop(&rig);
}
