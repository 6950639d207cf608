#ifndef TESTS_GUESTS_ARCH_H
#define TESTS_GUESTS_ARCH_H

/*
 * The seam: all that a guest asks of the architecture it was built for. The
 * entry (assembly) prepares memory, identity-mapped and with device memory
 * accessible, fills in what these functions answer from, and calls guest_main.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARCH_MAX_MMIO 32

struct arch_platform {
	uint64_t ram_start, ram_end;	/* free RAM, page-aligned, at least 16 MiB */
	uint64_t ecam;			/* configuration space of bus 0, or 0 */
	uint64_t pci_mem, pci_mem_size; /* where BARs may be put */
	unsigned num_mmio;		/* virtio-mmio devices that the tables name */
	uint64_t mmio[ARCH_MAX_MMIO];	/* ... and their registers */
};

const struct arch_platform *arch_platform(void);
const char *arch_cmdline(void);

void arch_print(const char *text, size_t len);

/* The next byte that somebody typed at the console, or one of these. */
#define ARCH_NO_INPUT (-1)
#define ARCH_BREAK    (-2)
int arch_input(void);

/* They return only when the machine ignores them. */
void arch_power_off(void);
void arch_reset(void);

/* Do nothing for good, without the host's processor doing anything either. */
_Noreturn void arch_idle(void);

/* A clock, and a number of its ticks that lasts a millisecond or longer. */
uint64_t arch_ticks(void);
uint64_t arch_ticks_per_ms(void);
/* A hint that the CPU only waits. */
void arch_relax(void);

/* Device registers: one access of exactly this size each. */
uint8_t arch_read8(uint64_t addr);
uint16_t arch_read16(uint64_t addr);
uint32_t arch_read32(uint64_t addr);
void arch_write8(uint64_t addr, uint8_t value);
void arch_write16(uint64_t addr, uint16_t value);
void arch_write32(uint64_t addr, uint32_t value);

#endif
