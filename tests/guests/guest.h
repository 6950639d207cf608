#ifndef TESTS_GUESTS_GUEST_H
#define TESTS_GUESTS_GUEST_H

/*
 * What every bare-metal guest needs: COM1, TAP, the ACPI tables, power. Runs in
 * ring 3 with all ports and the first 4 GiB at hand (start.S), without a libc.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

/* Each guest has one; when it returns, the guest spins. */
void guest_main(const struct start_info *info);

static inline void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
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

/* Guest-physical address as a pointer; below 4 GiB. */
static inline void *phys(uint64_t addr)
{
	return (void *)(uintptr_t)addr;
}

void print(const char *text);
void print_hex(uint64_t value);

/* "ok N - @what" or "not ok N - @what"; TAP's numbers count from 1. Returns @good. */
bool check(bool good, const char *what);
/* The plan line at the end, "1..N". True when every check was good. */
bool checks_done(void);

/* True when @word is one of the words of @line. */
bool has_word(const char *line, const char *word);
size_t length(const char *text);
bool equal(const void *a, const void *b, size_t size);

/* The table with @signature, checksum verified, or NULL. @rsdp as start_info has it. */
const uint8_t *acpi_find(uint64_t rsdp, const char *signature);
uint32_t get32(const uint8_t *at);
uint64_t get64(const uint8_t *at);

/*
 * Sleep state 5 through the FADT's sleep control register and the DSDT's _S5,
 * and the FADT's reset register. False when the tables don't say how; otherwise
 * they return only if the machine ignores the write.
 */
bool acpi_power_off(uint64_t rsdp);
bool acpi_reset(uint64_t rsdp);

#endif
