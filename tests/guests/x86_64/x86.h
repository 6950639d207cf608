#ifndef TESTS_GUESTS_X86_64_X86_H
#define TESTS_GUESTS_X86_64_X86_H

/*
 * The x86_64 side of the bare-metal guests: PVH's gifts, ports, ACPI tables. The
 * code runs in ring 3 with all ports and the first 4 GiB at hand (start.S).
 */

#include "tests/guests/guest.h"

/* x86/HVM direct boot ABI: what EBX pointed to. */
struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist, cmdline, rsdp, memmap;
	uint32_t memmap_entries, reserved;
};

struct start_module {
	uint64_t paddr, size, cmdline, reserved;
};

struct start_memmap {
	uint64_t addr, size;
	uint32_t type, reserved;
};

#define START_INFO_MAGIC 0x336ec578
#define MEMMAP_RAM	 1

const struct start_info *x86_start_info(void);

static inline void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outw(uint16_t port, uint16_t value)
{
	__asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

/* @count bytes to one port with one instruction: a single exit with a count. */
static inline void outsb(uint16_t port, const void *data, size_t count)
{
	__asm__ volatile("rep outsb" : "+S"(data), "+c"(count) : "d"(port) : "memory");
}

/* The table with @signature, checksum verified, or NULL. */
const uint8_t *acpi_find(const char *signature);

/*
 * How to switch off and to reset, read from the FADT and the DSDT once, as tests
 * may overwrite memory. False when the tables don't say.
 */
struct acpi_power {
	uint16_t off_port, off_value;
	bool off_word; /* a 16-bit register (PM1a) */
	uint16_t reset_port;
	uint8_t reset_value;
};
bool acpi_find_power(struct acpi_power *ret_power);

#endif
