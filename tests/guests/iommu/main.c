/*
 * The guest that tests a virtio-iommu. Words on its command line:
 *
 *	bypass		config.bypass is expected to be 1 initially, else 0
 *	reboot		the machine starts again in place when it is reset
 *	foreign		not moat's devices: an I/O that was refused may be answered in
 *			any way, and reported or not, except in tests of moat's own
 *			choices
 *	only=N		no test but number N
 *
 * At least one, better two virtio-blk devices with 256 KiB or more must sit
 * behind the IOMMU; they are overwritten. The last line is "exit N", N as a
 * process's exit status; then the machine is switched off.
 */
#include "tests/guests/iommu/test.h"
#include "tests/guests/arch.h"

#define MARK_MAGIC 0x7265626f6f746564ull

/* What a boot leaves for the next one, in the kept page. */
struct mark {
	uint64_t magic;
	uint32_t boots, resetting; /* resetting: the last boot ended as it should */
	uint32_t checks, failures;
	uint8_t initial_bypass;
};

static const struct test *current;
static bool failed;
static const char *skipped;
static struct fault last_fault;

static const struct test *const all_tests[] = {
	core_tests, config_tests, feature_tests, request_tests, attach_tests,
	map_tests,  unmap_tests,  probe_tests,	 dma_tests,	fault_tests,
};

static struct mark *mark(void)
{
	return phys(kept_page());
}

void expect_failed(const char *file, int line, const char *what)
{
	failed = true;
	print("# ");
	print(current->name);
	print(": ");
	print(file);
	print(":");
	print_unsigned((unsigned)line);
	print(": ");
	print(what);
	print("\n");
}

bool expect_equal(const char *file, int line, const char *what, int64_t got, int64_t wanted)
{
	if (got == wanted)
		return true;
	expect_failed(file, line, what);
	print("#\tis ");
	print_hex((uint64_t)got);
	print(", expected ");
	print_hex((uint64_t)wanted);
	print("\n");
	return false;
}

void skip(const char *why)
{
	skipped = why;
}

/* Are only the specification's demands to be met here? */
static bool lenient(void)
{
	return has_word(arch_cmdline(), "foreign") && !equal(current->name, "moat", 4);
}

bool refused(enum outcome outcome)
{
	return outcome != IO_OK || lenient();
}

static bool same_fault(const struct fault *a, const struct fault *b)
{
	return a->reason == b->reason && a->flags == b->flags && a->endpoint == b->endpoint &&
	       a->address == b->address;
}

/*
 * The next report. A device may repeat an access that failed (it looks at an
 * unreachable ring again, say), so one like the last is only taken when no other
 * comes.
 */
static bool next_fault(unsigned ms, struct fault *ret_fault)
{
	bool found = iommu_next_fault(ms, ret_fault), again = false;

	while (found && same_fault(ret_fault, &last_fault)) {
		iommu_repost(ret_fault);
		again = true;
		found = iommu_next_fault(ms, ret_fault);
	}
	if (found)
		iommu_repost(ret_fault);
	last_fault = *ret_fault;
	return found || again;
}

void expect_fault_in(const char *file, int line, const struct disk *disk, uint8_t reason,
		     uint32_t direction, uint64_t address, uint64_t size)
{
	struct fault fault = last_fault;

	if (lenient()) {
		any_fault();
		return;
	}
	if (!next_fault(FAULT_MS, &fault)) {
		expect_failed(file, line, "no fault was reported");
		return;
	}
	expect_equal(file, line, "fault.used", fault.used, FAULT_SIZE);
	expect_equal(file, line, "fault.reason", fault.reason, reason);
	expect_equal(file, line, "fault.flags", fault.flags & ~FAULT_F_ADDRESS, direction);
	expect_equal(file, line, "fault.endpoint", fault.endpoint, disk->endpoint);
	/* A report may leave the address out (item 57). */
	if (fault.flags & FAULT_F_ADDRESS && fault.address - address >= size)
		expect_equal(file, line, "fault.address", (int64_t)fault.address, (int64_t)address);
}

bool any_fault(void)
{
	struct fault fault;
	bool any = false;

	while (iommu_next_fault(QUIET_MS, &fault)) {
		iommu_repost(&fault);
		any = any || !same_fault(&fault, &last_fault);
	}
	return any;
}

bool loads(struct disk *disk, uint64_t iova, uint64_t memory)
{
	memset(phys(memory), UNTOUCHED, PAGE);
	return disk_io(disk, DISK_LOAD, 8, iova, PAGE) == IO_OK &&
	       disk_pattern_at(disk, 8, phys(memory), PAGE);
}

void expect_refuses(const char *file, int line, struct disk *disk, uint8_t reason, uint64_t iova,
		    uint64_t memory)
{
	if (memory)
		memset(phys(memory), UNTOUCHED, PAGE);
	if (!refused(disk_io(disk, DISK_LOAD, 8, iova, PAGE)))
		expect_failed(file, line, "the access succeeded");
	expect_fault_in(file, line, disk, reason, FAULT_F_WRITE, iova, 1);
	if (memory && !all_bytes(phys(memory), UNTOUCHED, PAGE))
		expect_failed(file, line, "memory was written");
}

uint32_t no_endpoint(void)
{
	uint32_t id = 0x00ffffff;

	for (unsigned i = 0; i < num_disks; i++) {
		if (disks[i].endpoint == id)
			id--;
	}
	return id;
}

bool fresh(void)
{
	bool good = true;

	pages_reset();
	for (unsigned i = 0; i < num_disks; i++)
		good = vdev_reset(&disks[i].dev) && good;
	good = good && iommu_start(~0ull & ~F_BYPASS);
	if (!good)
		return false;
	if (iommu_has(F_BYPASS_CONFIG))
		iommu_set_bypass(0);
	iommu_post_events(NUM_EVENTS, FAULT_SIZE);
	last_fault = (struct fault){ 0 };
	return true;
}

/* Everything else relies on what it puts on the disks. */
static void write_patterns(void)
{
	uint64_t memory = pages(PATTERN_SECTORS * SECTOR / PAGE);

	REQUIRE(iommu_has(F_MAP_UNMAP));
	for (unsigned i = 0; i < num_disks; i++) {
		struct disk *disk = &disks[i];

		REQUIRE(disk_up(disk, 1 + i));
		EXPECT_EQ(iommu_map_pages(1 + i, DATA, memory, PATTERN_SECTORS * SECTOR / PAGE,
					  MAP_RW),
			  S_OK);
		disk_fill_pattern(disk, 0, phys(memory), PATTERN_SECTORS * SECTOR);
		EXPECT_EQ(disk_io(disk, DISK_STORE, 0, DATA, PATTERN_SECTORS * SECTOR), IO_OK);
		memset(phys(memory), 0, PATTERN_SECTORS * SECTOR);
		EXPECT_EQ(disk_io(disk, DISK_LOAD, 0, DATA, PATTERN_SECTORS * SECTOR), IO_OK);
		EXPECT(disk_pattern_at(disk, 0, phys(memory), PATTERN_SECTORS * SECTOR));
		/* For IOMMUs that forget nothing when they are reset. */
		EXPECT(vdev_reset(&disk->dev));
		EXPECT_EQ(iommu_detach(1 + i, disk->endpoint), S_OK);
	}
}

static const struct test patterns = { "what a disk stores it loads again", write_patterns };

static uint64_t only(void)
{
	return word_value(arch_cmdline(), "only=");
}

/* Those that aren't to be run are counted. */
static bool is_chosen(void)
{
	unsigned checks, failures;

	checks_get(&checks, &failures);
	if (!only() || only() == checks + 1)
		return true;
	checks_set(checks + 1, failures);
	return false;
}

static void run(const struct test *test)
{
	/* Everything relies on what the first one leaves. */
	if (test != &patterns && !is_chosen())
		return;
	current = test;
	failed = false;
	skipped = NULL;
	if (!fresh())
		expect_failed(__FILE_NAME__, __LINE__, "the devices don't start");
	else
		test->run();
	if (skipped && !failed)
		check_skip(test->name, skipped);
	else
		check(!failed, test->name);
}

static void run_all(const struct test *test)
{
	for (; test->name; test++)
		run(test);
}

static void finish(void)
{
	bool good = checks_done();

	print(good ? "exit 0\n" : "exit 1\n");
	arch_power_off();
}

static void first_boot(void)
{
	*mark() = (struct mark){ .magic = MARK_MAGIC, .boots = 1 };
	run(&patterns);
	for (unsigned i = 0; i < ARRAY_SIZE(all_tests); i++)
		run_all(all_tests[i]);
	checks_get(&mark()->checks, &mark()->failures);
	if (!has_word(arch_cmdline(), "reboot") || (only() && only() <= mark()->checks)) {
		finish();
		return;
	}
	if (!fresh())
		bail_out("the devices don't start before the system reset");
	prepare_system_reset();
	mark()->resetting = 1;
	mark()->initial_bypass = iommu.initial_bypass;
	arch_reset();
	bail_out("the machine ignores its reset register");
}

static void second_boot(void)
{
	if (!mark()->resetting || mark()->boots != 1)
		bail_out("the machine was reset unexpectedly");
	mark()->boots++;
	checks_set(mark()->checks, mark()->failures);
	/* Not run(): these look at what they find. */
	for (const struct test *test = reset_tests; test->name; test++) {
		current = test;
		failed = false;
		test->run();
		check(!failed, test->name);
	}
	finish();
}

void guest_main(void)
{
	print("# moat guest: virtio-iommu\n");
	if (!iommu_find())
		bail_out("there is no virtio-iommu");
	disks_find();
	if (num_disks == 0)
		bail_out("there is no virtio-blk behind it");
	if (iommu.granule == 0 || iommu.granule > PAGE)
		bail_out("its granule isn't a page or less");
	print("# ");
	print(iommu.dev.transport->name);
	print(" virtio-iommu, disks on");
	for (unsigned i = 0; i < num_disks; i++) {
		print(" ");
		print(disks[i].dev.transport->name);
	}
	print("\n");
	if (mark()->magic == MARK_MAGIC)
		second_boot();
	else
		first_boot();
}
