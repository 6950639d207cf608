/*
 * The guest that floods, for tests/guests/flood.sh. It needs a virtio-iommu and two
 * virtio-blk devices behind it, which are overwritten. Words on its command line:
 *
 *	faults mappings kicks resets config	what to flood with, one after the other
 *	rounds=N	how much; one round of each has come before
 *	limit=N total=N	mappings that a domain and all domains may have
 *	endless		faults until a byte comes from the console, instead of all that
 *
 * It says "started", after one round "settled", after the others "flooded", and each time
 * waits for a byte from the console, so that whoever is at the other end can have a
 * look at moat. After each flood every disk must still load what it has.
 */
#include "tests/guests/arch.h"
#include "tests/guests/flood/flood.h"

/* All that is ever taken from pages(): what moat's memory is of the guest's doesn't grow. */
#define POOL 512u

/* moat's log says one line of a kind a second, with how many it left out. */
#define LOG_MS 1100

static const struct flood *const all_floods[] = { dma_floods, mapping_floods, device_floods };

static uint64_t data[MAX_DISKS];

bool up(void)
{
	pages_reset();
	batch_init();
	for (unsigned i = 0; i < num_disks; i++) {
		data[i] = pages(1);
		if (!vdev_reset(&disks[i].dev))
			return false;
	}
	if (!iommu_start(~0ull & ~F_BYPASS))
		return false;
	iommu_set_bypass(0);
	for (unsigned i = 0; i < num_disks; i++) {
		if (!disk_up(&disks[i], DOMAIN + i) ||
		    iommu_map_pages(DOMAIN + i, DATA, data[i], 1, MAP_RW) != S_OK)
			return false;
	}
	return true;
}

bool disks_load(void)
{
	for (unsigned i = 0; i < num_disks; i++) {
		memset(phys(data[i]), UNTOUCHED, PAGE);
		if (disk_io(&disks[i], DISK_LOAD, 0, DATA, PAGE) != IO_OK ||
		    !disk_pattern_at(&disks[i], 0, phys(data[i]), PAGE))
			return false;
	}
	return true;
}

static bool disks_store(void)
{
	for (unsigned i = 0; i < num_disks; i++) {
		disk_fill_pattern(&disks[i], 0, phys(data[i]), PAGE);
		if (disk_io(&disks[i], DISK_STORE, 0, DATA, PAGE) != IO_OK)
			return false;
	}
	return true;
}

static void say(const char *what)
{
	print("# ");
	print(what);
	print("\n");
}

static void say_and_wait(const char *what)
{
	say(what);
	while (arch_input() == ARCH_NO_INPUT)
		arch_relax();
}

static bool run(const struct flood *flood, unsigned rounds)
{
	if (!up())
		return false;
	return flood->run(rounds) && disks_load();
}

/* A round of each is one check, after it each is one. */
static void run_all(unsigned rounds)
{
	bool good = true;

	for (unsigned i = 0; i < ARRAY_SIZE(all_floods); i++) {
		for (const struct flood *flood = all_floods[i]; flood->name; flood++) {
			if (!has_word(arch_cmdline(), flood->word))
				continue;
			if (rounds > 1)
				check(run(flood, rounds), flood->name);
			else
				good = run(flood, 1) && good;
		}
	}
	if (rounds == 1)
		check(good, "one round of each flood");
}

/* Have moat tell what it left out of its log. */
static void last_faults(void)
{
	bool good = up();

	delay(LOG_MS);
	good = good && disks_refused(1);
	check(good && disks_load(), "one more fault of each disk");
}

static void endless(void)
{
	bool good = up();

	say("flooding");
	while (good && arch_input() == ARCH_NO_INPUT)
		good = disks_refused(REFUSED_AT_ONCE);
	check(good && disks_load(), "faults without an end");
}

static void finish(void)
{
	print("# refused ");
	print_unsigned(counts.refused);
	print(" reports ");
	print_unsigned(counts.reports);
	print("\n");
	checks_done();
	say_and_wait("flooded");
	arch_power_off();
}

void guest_main(void)
{
	if (!iommu_find())
		bail_out("there is no virtio-iommu");
	disks_find();
	if (num_disks != 2)
		bail_out("there aren't two disks behind it");
	pages(POOL);
	if (!up() || !disks_store())
		bail_out("the devices don't start");
	if (has_word(arch_cmdline(), "endless")) {
		endless();
		finish();
	}
	say_and_wait("started");
	run_all(1);
	say_and_wait("settled");
	run_all((unsigned)word_value(arch_cmdline(), "rounds="));
	if (has_word(arch_cmdline(), "faults"))
		last_faults();
	finish();
}
