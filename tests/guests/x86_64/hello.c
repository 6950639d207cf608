/*
 * The smallest useful guest: it looks at what it was given, says so over COM1 in
 * TAP, and ends as a word on its command line tells it: reset (the ACPI reset
 * register), keyboard (0xfe to port 0x64), triple (a triple fault); otherwise it
 * powers off. "reboot" with one of them: reset at the first boot, power off at
 * the second.
 */

#include "tests/guests/arch.h"
#include "tests/guests/x86_64/x86.h"

/* Outside every file and table: it tells boots of one machine apart. */
#define BOOT_COUNTER 0x80000
#define BOOT_MAGIC   0x6d6f6174626f6f74ull
#define LINE	     "moat guest: strings arrive whole\n"
#define INITRD_TEXT  "moat initrd contents"

static unsigned count_boot(void)
{
	volatile uint64_t *counter = phys(BOOT_COUNTER);

	if (counter[0] != BOOT_MAGIC) {
		counter[0] = BOOT_MAGIC;
		counter[1] = 0;
	}
	counter[1] = counter[1] + 1;
	return (unsigned)counter[1];
}

static void check_memory(const struct start_info *info)
{
	const struct start_memmap *map = phys(info->memmap);
	uint64_t ram = 0, end = 0;
	bool sorted = true;

	for (uint32_t i = 0; i < info->memmap_entries; i++) {
		sorted = sorted && map[i].addr >= end;
		end = map[i].addr + map[i].size;
		if (map[i].type == 1)
			ram += map[i].size;
	}
	check(sorted, "the memory map is sorted and has no overlaps");
	/* All of it but what a PC keeps for itself between 640 KiB and 1 MiB. */
	check(ram == (64 << 20) - 0x60000, "the memory map has 64 MiB of RAM");
	volatile uint64_t *last = phys((64 << 20) - 8);

	*last = 0x0123456789abcdefull;
	check(*last == 0x0123456789abcdefull, "the last word of RAM holds what was written");
}

static void check_initrd(const struct start_info *info)
{
	const struct start_module *module = phys(info->modlist);

	if (!has_word(phys(info->cmdline), "initrd")) {
		check(info->nr_modules == 0, "there is no module");
		return;
	}
	check(info->nr_modules == 1 && module->size == length(INITRD_TEXT) &&
		      equal(phys(module->paddr), INITRD_TEXT, module->size),
	      "the module is the initrd");
}

static void check_tables(void)
{
	check(acpi_find("FACP") != NULL, "RSDP, XSDT and FADT are good");
	check(acpi_find("APIC") != NULL, "the MADT is good");
	check(acpi_find("MCFG") != NULL, "the MCFG is good");
}

static void check_holes(void)
{
	volatile uint32_t *nobody = phys(0xd0000000);

	*nobody = 1;
	check(*nobody == 0xffffffff, "an address without a device reads as all ones");
	check(inb(0x700) == 0xff, "a port without a device reads as all ones");
}

void guest_main(void)
{
	const struct start_info *info = x86_start_info();
	const char *cmdline = arch_cmdline();
	unsigned boot = count_boot();

	print("moat guest: boot\n");
	outsb(0x3f8, LINE, length(LINE));
	check(info->magic == START_INFO_MAGIC && info->version == 1, "start_info is version 1");
	check(has_word(cmdline, "console=ttyS0"), "the command line starts with the default");
	check_memory(info);
	check_initrd(info);
	check_tables();
	check_holes();
	bool good = checks_done();

	print(good ? "moat guest: all good\n" : "moat guest: FAILED\n");
	if (!has_word(cmdline, "reboot") || boot < 2) {
		if (has_word(cmdline, "reset"))
			arch_reset();
		if (has_word(cmdline, "keyboard"))
			outb(0x64, 0xfe);
		if (has_word(cmdline, "triple"))
			__asm__ volatile("ud2");
	}
	arch_power_off();
}
