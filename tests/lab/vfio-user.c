/*
 * A VFIO user in a guest, as DPDK would be: it has an NVMe controller to itself,
 * behind an IOMMU group and a Type1 container of the guest's own kernel, and
 * drives it from user space. What it maps goes through the guest's virtio-iommu to
 * whatever is behind that, and only the device can tell whether it got there, so
 * each mapping is tried by DMA.
 *
 *   vfio-user all BDF GROUP SERIAL         everything but the limit
 *   vfio-user limit BDF GROUP SERIAL MAX   more mappings than the host takes, which is MAX
 *   vfio-user peer BDF GROUP SERIAL        a device's registers mapped for its DMA
 *   vfio-user attach BDF GROUP SERIAL      domains come and go, for a group of any device
 *
 * It prints a guest's checks (guest-images/guest/init). The disk's last MiB is
 * overwritten.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define GIB(n) ((uint64_t)(n) << 30)

#define PAGE  KIB(4)
#define DEPTH 16
/* What the driver needs for itself is at one place of the device's address space, tests at another.
 */
#define OWN_IOVA  0x10000000ULL
#define TEST_IOVA 0x200000000ULL

/* NVM Express 1.4, 3.1 (registers), 5 and 6 (commands). */
enum {
	NVME_CAP = 0,
	NVME_CC = 0x14,
	NVME_CSTS = 0x1c,
	NVME_AQA = 0x24,
	NVME_ASQ = 0x28,
	NVME_ACQ = 0x30,
	NVME_DOORBELLS = 0x1000
};
enum { ADMIN_CREATE_SQ = 1, ADMIN_CREATE_CQ = 5, ADMIN_IDENTIFY = 6, IO_WRITE = 1, IO_READ = 2 };

struct command {
	uint32_t opcode_cid, nsid, cdw2, cdw3;
	uint64_t metadata, prp1, prp2;
	uint32_t cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};

struct completion {
	uint32_t result, reserved;
	uint16_t sq_head, sq_id, cid, status;
};

struct queue {
	unsigned id, tail, head;
	uint16_t phase;
	struct command *sq;
	volatile struct completion *cq;
};

/* The pages of struct user's own memory. */
enum { ADMIN_SQ, ADMIN_CQ, IO_SQ, IO_CQ, BUFFER, OWN_PAGES };

struct user {
	const char *bdf, *serial;
	char group[64];
	int container, group_fd, device;
	volatile uint8_t *bar;
	unsigned stride; /* of doorbells, in bytes */
	char *own;	 /* OWN_PAGES pages, at OWN_IOVA */
	struct queue admin, io;
	uint64_t last_lba;
	unsigned failures;
};

__attribute__((format(printf, 3, 4))) static bool check(struct user *u, bool good, const char *text,
							...)
{
	va_list args;

	printf("MOAT-GUEST: %s ", good ? "pass" : "FAIL");
	va_start(args, text);
	vprintf(text, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	u->failures += !good;
	return good;
}

static void die(const char *what)
{
	printf("MOAT-GUEST: FAIL %s: %s\n", what, strerror(errno));
	exit(1);
}

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

/* The container. */

static int map(struct user *u, uint64_t iova, void *memory, uint64_t size)
{
	struct vfio_iommu_type1_dma_map m = {
		.argsz = sizeof(m),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)memory,
		.iova = iova,
		.size = size,
	};

	return ioctl(u->container, VFIO_IOMMU_MAP_DMA, &m) < 0 ? -errno : 0;
}

/* How many bytes there were, or -errno. */
static int64_t unmap(struct user *u, uint64_t iova, uint64_t size)
{
	struct vfio_iommu_type1_dma_unmap m = {
		.argsz = sizeof(m),
		.iova = iova,
		.size = size,
	};

	return ioctl(u->container, VFIO_IOMMU_UNMAP_DMA, &m) < 0 ? -errno : (int64_t)m.size;
}

static void attach(struct user *u)
{
	u->container = open("/dev/vfio/vfio", O_RDWR);
	if (u->container < 0)
		die("/dev/vfio/vfio");
	u->group_fd = open(u->group, O_RDWR);
	if (u->group_fd < 0)
		die(u->group);
	if (ioctl(u->group_fd, VFIO_GROUP_SET_CONTAINER, &u->container) < 0)
		die("VFIO_GROUP_SET_CONTAINER");
	if (ioctl(u->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0)
		die("VFIO_SET_IOMMU");
}

static void detach(struct user *u)
{
	close(u->group_fd);
	close(u->container);
}

/* The last address that can be mapped. */
static uint64_t last_iova(struct user *u)
{
	union {
		struct vfio_iommu_type1_info info;
		char bytes[4096];
	} room = { .info.argsz = sizeof(room) };
	const struct vfio_iommu_type1_info_cap_iova_range *ranges;

	if (ioctl(u->container, VFIO_IOMMU_GET_INFO, &room) < 0 ||
	    !(room.info.flags & VFIO_IOMMU_INFO_CAPS))
		die("VFIO_IOMMU_GET_INFO");
	for (uint32_t at = room.info.cap_offset; at; at = ranges->header.next) {
		ranges = (const void *)(room.bytes + at);
		if (ranges->header.id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)
			return ranges->iova_ranges[ranges->nr_iovas - 1].end;
	}
	die("no IOVA ranges");
	return 0;
}

static uint64_t region_offset(struct user *u, unsigned index)
{
	struct vfio_region_info info = { .argsz = sizeof(info), .index = index };

	if (ioctl(u->device, VFIO_DEVICE_GET_REGION_INFO, &info) < 0)
		die("VFIO_DEVICE_GET_REGION_INFO");
	return info.offset;
}

static void open_device(struct user *u)
{
	const uint16_t command = 0x6; /* memory, bus master */

	u->device = ioctl(u->group_fd, VFIO_GROUP_GET_DEVICE_FD, u->bdf);
	if (u->device < 0)
		die("VFIO_GROUP_GET_DEVICE_FD");
	if (pwrite(u->device, &command, 2,
		   (off_t)region_offset(u, VFIO_PCI_CONFIG_REGION_INDEX) + 4) != 2)
		die("the command register");
	u->bar = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, u->device,
		      (off_t)region_offset(u, VFIO_PCI_BAR0_REGION_INDEX));
	if (u->bar == MAP_FAILED)
		die("BAR 0");
}

/* The controller. */

static volatile uint32_t *reg32(struct user *u, unsigned offset)
{
	return (volatile uint32_t *)(u->bar + offset);
}

static volatile uint64_t *reg64(struct user *u, unsigned offset)
{
	return (volatile uint64_t *)(u->bar + offset);
}

/* The command's status; -1 when nothing comes for 10 s. */
static int submit(struct user *u, struct queue *q, struct command command)
{
	command.opcode_cid |= q->tail << 16;
	q->sq[q->tail] = command;
	q->tail = (q->tail + 1) % DEPTH;
	__sync_synchronize();
	*reg32(u, NVME_DOORBELLS + 2 * q->id * u->stride) = q->tail;
	for (unsigned i = 0; i < 10000; i++) {
		uint16_t status = q->cq[q->head].status;

		if ((status & 1) != q->phase) {
			nap();
			continue;
		}
		__sync_synchronize();
		q->head = (q->head + 1) % DEPTH;
		q->phase ^= q->head == 0;
		*reg32(u, NVME_DOORBELLS + (2 * q->id + 1) * u->stride) = q->head;
		return status >> 1;
	}
	return -1;
}

static int identify(struct user *u, unsigned what, uint64_t iova)
{
	return submit(u, &u->admin,
		      (struct command){ .opcode_cid = ADMIN_IDENTIFY,
					.nsid = what == 0,
					.prp1 = iova,
					.cdw10 = what });
}

/* A page of the disk, at its end. */
static int transfer(struct user *u, unsigned opcode, uint64_t iova)
{
	uint64_t lba = u->last_lba - 7;

	return submit(u, &u->io,
		      (struct command){ .opcode_cid = opcode,
					.nsid = 1,
					.prp1 = iova,
					.cdw10 = (uint32_t)lba,
					.cdw11 = (uint32_t)(lba >> 32),
					.cdw12 = 7 });
}

static void init_queue(struct user *u, struct queue *q, unsigned id, unsigned page)
{
	*q = (struct queue){ .id = id,
			     .phase = 1,
			     .sq = (void *)(u->own + page * PAGE),
			     .cq = (void *)(u->own + (page + 1) * PAGE) };
}

static bool wait_ready(struct user *u, uint32_t ready)
{
	for (unsigned i = 0; i < 10000; i++) {
		if ((*reg32(u, NVME_CSTS) & 1) == ready)
			return true;
		nap();
	}
	return false;
}

static bool start_controller(struct user *u)
{
	const uint32_t queue = (DEPTH - 1) << 16 | 1;
	uint64_t *blocks = (uint64_t *)(u->own + BUFFER * PAGE);

	*reg32(u, NVME_CC) = 0;
	if (!wait_ready(u, 0))
		return false;
	memset(u->own, 0, OWN_PAGES * PAGE);
	init_queue(u, &u->admin, 0, ADMIN_SQ);
	init_queue(u, &u->io, 1, IO_SQ);
	u->stride = 4U << (*reg64(u, NVME_CAP) >> 32 & 0xf);
	*reg32(u, NVME_AQA) = (DEPTH - 1) << 16 | (DEPTH - 1);
	*reg64(u, NVME_ASQ) = OWN_IOVA + ADMIN_SQ * PAGE;
	*reg64(u, NVME_ACQ) = OWN_IOVA + ADMIN_CQ * PAGE;
	*reg32(u, NVME_CC) = 4 << 20 | 6 << 16 | 1;
	if (!wait_ready(u, 1))
		return false;
	if (submit(u, &u->admin,
		   (struct command){ .opcode_cid = ADMIN_CREATE_CQ,
				     .prp1 = OWN_IOVA + IO_CQ * PAGE,
				     .cdw10 = queue,
				     .cdw11 = 1 }) != 0 ||
	    submit(u, &u->admin,
		   (struct command){ .opcode_cid = ADMIN_CREATE_SQ,
				     .prp1 = OWN_IOVA + IO_SQ * PAGE,
				     .cdw10 = queue,
				     .cdw11 = 1 << 16 | 1 }) != 0)
		return false;
	if (identify(u, 0, OWN_IOVA + BUFFER * PAGE) != 0)
		return false;
	u->last_lba = blocks[0] - 1;
	return true;
}

/* Does the device write what it is to the page @memory when told that it is at @iova? */
static bool device_reaches(struct user *u, uint64_t iova, char *memory)
{
	memset(memory, 0, PAGE);
	identify(u, 1, iova);
	return memcmp(memory + 4, u->serial, strlen(u->serial)) == 0;
}

/* The tests. */

/* Memory of @size bytes, in pages of that size when the guest has them. */
static char *allocate(uint64_t size, bool *ret_huge)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	int log = __builtin_ctzll(size);
	void *p = MAP_FAILED;

	if (size > PAGE)
		p = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 flags | MAP_HUGETLB | log << MAP_HUGE_SHIFT, -1, 0);
	*ret_huge = p != MAP_FAILED;
	if (p == MAP_FAILED)
		p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (p == MAP_FAILED)
		die("memory");
	return p;
}

static void test_size(struct user *u, uint64_t size, const char *name)
{
	bool huge;
	char *memory = allocate(size, &huge), *end = memory + size - PAGE;
	const uint64_t last = TEST_IOVA + size - PAGE;
	const char *pages = huge ? "one page" : "pages of 4 KiB";

	check(u, map(u, TEST_IOVA, memory, size) == 0, "%s in %s are mapped", name, pages);
	check(u, device_reaches(u, TEST_IOVA, memory) && device_reaches(u, last, end),
	      "the device reaches both ends of %s", name);
	/* The host looks at what is pinned. */
	sleep(2);
	check(u, unmap(u, TEST_IOVA, size) == (int64_t)size, "%s are unmapped", name);
	check(u, !device_reaches(u, TEST_IOVA, memory) && !device_reaches(u, last, end),
	      "the device reaches neither then");
	munmap(memory, size);
}

/* What a Type1 v2 container promises. */
static void test_rules(struct user *u)
{
	const uint64_t last = last_iova(u) - PAGE + 1;
	bool huge;
	char *memory = allocate(MIB(2), &huge);

	check(u, map(u, TEST_IOVA, memory, MIB(2)) == 0, "a mapping to try the rules with");
	check(u, map(u, TEST_IOVA + PAGE, memory, PAGE) == -EEXIST, "no mapping over another");
	check(u, unmap(u, TEST_IOVA + PAGE, PAGE) == -EINVAL, "no mapping is split");
	check(u, device_reaches(u, TEST_IOVA + PAGE, memory + PAGE), "it stays as it was");
	check(u, unmap(u, TEST_IOVA, MIB(2)) == (int64_t)MIB(2), "it is unmapped");
	check(u, unmap(u, TEST_IOVA, MIB(2)) <= 0, "nothing is left to unmap");
	check(u, map(u, last, memory, PAGE) == 0 && device_reaches(u, last, memory),
	      "the device reaches the last page of its addresses, 0x%llx",
	      (unsigned long long)last);
	check(u, unmap(u, last, PAGE) == (int64_t)PAGE, "that is unmapped");
	check(u, map(u, last, memory, 2 * PAGE) < 0, "no mapping past the last page");
	munmap(memory, MIB(2));
}

/* Secrets in memory that isn't mapped any more don't come out, and nothing gets in. */
static void test_isolation(struct user *u)
{
	const uint64_t own = OWN_IOVA + BUFFER * PAGE;
	char *buffer = u->own + BUFFER * PAGE, secret[PAGE];
	bool huge;
	char *memory = allocate(PAGE, &huge);

	memset(secret, 'S', sizeof(secret));
	memcpy(memory, secret, PAGE);
	memset(buffer, 'D', PAGE);
	check(u, transfer(u, IO_WRITE, own) == 0, "a page is written to the disk");
	map(u, TEST_IOVA, memory, PAGE);
	unmap(u, TEST_IOVA, PAGE);
	printf("status of a write from unmapped memory: 0x%x\n", transfer(u, IO_WRITE, TEST_IOVA));
	memset(buffer, 0, PAGE);
	check(u, transfer(u, IO_READ, own) == 0 && !memchr(buffer, 'S', PAGE),
	      "the disk can't read what was unmapped");
	printf("status of a read to unmapped memory: 0x%x\n", transfer(u, IO_READ, TEST_IOVA));
	check(u, memcmp(memory, secret, PAGE) == 0, "the disk can't write it either");
	/* The check can fail: the same with the page mapped. */
	map(u, TEST_IOVA, memory, PAGE);
	transfer(u, IO_WRITE, TEST_IOVA);
	check(u, transfer(u, IO_READ, own) == 0 && memcmp(buffer, secret, PAGE) == 0,
	      "it can when it is mapped");
	unmap(u, TEST_IOVA, PAGE);
	munmap(memory, PAGE);
}

/* Each container is a new domain that the group is attached to, and leaves. */
static void test_attach(struct user *u)
{
	const unsigned cycles = 100;
	unsigned good = 0;
	bool huge;
	char *memory = allocate(MIB(2), &huge);

	for (unsigned i = 0; i < cycles; i++) {
		attach(u);
		good += map(u, TEST_IOVA, memory, MIB(2)) == 0 &&
			(i % 2 || unmap(u, TEST_IOVA, MIB(2)) == (int64_t)MIB(2));
		detach(u);
	}
	check(u, good == cycles, "%u times a domain is attached, used and left", cycles);
	munmap(memory, MIB(2));
}

/* How many of @count pages the device reaches. */
static unsigned count_reached(struct user *u, char *memory, unsigned count)
{
	unsigned n = 0;

	for (unsigned i = 0; i < count; i++)
		n += device_reaches(u, TEST_IOVA + i * PAGE, memory + i * PAGE);
	return n;
}

/*
 * Registers for a device to reach: the guest's kernel has them mapped, whatever the host can. It
 * looks at its side meanwhile.
 */
static void test_peer(struct user *u)
{
	check(u, map(u, TEST_IOVA, (void *)u->bar, PAGE) == 0, "registers are mapped");
	printf("peer mapped\n");
	fflush(stdout);
	sleep(5);
	check(u, unmap(u, TEST_IOVA, PAGE) == (int64_t)PAGE, "they are unmapped");
}

/* The guest's books have it all, the host's only what it takes: the device tells. */
static void test_limit(struct user *u, unsigned max)
{
	const unsigned count = 2 * max;
	unsigned mapped = 0, n;
	char *memory = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);

	if (memory == MAP_FAILED)
		die("memory");
	for (unsigned i = 0; i < count; i++)
		mapped += map(u, TEST_IOVA + i * PAGE, memory + i * PAGE, PAGE) == 0;
	printf("%u of %u mappings made\n", mapped, count);
	fflush(stdout);
	/* The host compares its books. */
	sleep(4);
	n = count_reached(u, memory, count);
	/* The driver's own memory takes a mapping for each stretch of its pages. */
	check(u, n < max && n >= max - OWN_PAGES,
	      "of %u pages the device reaches those that the host took, %u to %u: %u", count,
	      max - OWN_PAGES, max - 1, n);
	unmap(u, TEST_IOVA, count * PAGE);
	check(u, count_reached(u, memory, count) == 0, "it reaches none when all are unmapped");
	for (unsigned i = 0; i < max / 2; i++)
		map(u, TEST_IOVA + i * PAGE, memory + i * PAGE, PAGE);
	n = count_reached(u, memory, max / 2);
	check(u, n == max / 2, "mapped again, it reaches all: %u of %u", n, max / 2);
	unmap(u, TEST_IOVA, count * PAGE);
	munmap(memory, count * PAGE);
}

int main(int argc, char **argv)
{
	struct user u = { 0 };

	bool limit = argc > 1 && strcmp(argv[1], "limit") == 0;
	bool peer = argc > 1 && strcmp(argv[1], "peer") == 0;
	bool only_attach = argc > 1 && strcmp(argv[1], "attach") == 0;

	if (argc < 5 || limit != (argc > 5)) {
		fprintf(stderr, "usage: vfio-user all|limit|peer|attach BDF GROUP SERIAL [MAX]\n");
		return 2;
	}
	u.bdf = argv[2];
	u.serial = argv[4];
	snprintf(u.group, sizeof(u.group), "/dev/vfio/%s", argv[3]);
	if (!limit && !peer)
		test_attach(&u);
	if (only_attach)
		return u.failures != 0;
	attach(&u);
	open_device(&u);
	u.own = mmap(NULL, OWN_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (u.own == MAP_FAILED || map(&u, OWN_IOVA, u.own, OWN_PAGES * PAGE) != 0)
		die("the driver's own memory");
	if (!check(&u, start_controller(&u), "a driver in user space starts the controller"))
		return 1;
	if (limit) {
		test_limit(&u, (unsigned)atoi(argv[5]));
	} else if (peer) {
		test_peer(&u);
	} else {
		test_size(&u, PAGE, "4 KiB");
		test_size(&u, MIB(2), "2 MiB");
		test_size(&u, GIB(1), "1 GiB");
		test_rules(&u);
		test_isolation(&u);
	}
	close(u.device);
	detach(&u);
	return u.failures != 0;
}
