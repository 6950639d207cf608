#ifndef VMM_CORE_RAM_H
#define VMM_CORE_RAM_H

/*
 * Guest memory: one memfd, mapped once, seen by the guest in up to
 * RAM_MAX_REGIONS ranges. This is the only door from a guest-physical address
 * to a pointer: checked, overflow-safe, and closed for the holes where MMIO is.
 *
 * The region table is written before the vCPUs start and never afterwards, so
 * every function but ram_create and ram_destroy may run on any thread.
 */

#include "vmm/base/err.h"
#include "vmm/base/types.h"

#define RAM_MAX_REGIONS 4

struct ram_region {
	gpa_t base;
	uint64_t size;	 /* bytes, a multiple of 4 KiB */
	uint64_t offset; /* in the memfd */
	void *host;
};

struct ram {
	int fd; /* owns; the memfd */
	uint64_t size;
	void *host; /* owns; the mapping of the whole memfd */
	unsigned count;
	struct ram_region region[RAM_MAX_REGIONS]; /* ascending by base */
};

/* Where the guest sees its memory: decided by arch (arch_map_init). */
struct ram_layout {
	unsigned count;
	struct {
		gpa_t base;
		uint64_t size;
	} region[RAM_MAX_REGIONS];
};

/*
 * Create the memory that @layout describes. *@ret_ram is owned by the caller.
 * Returns 0, -ENOMEM or the errno of memfd_create, ftruncate or mmap with the
 * words in @err.
 */
int ram_create(struct ram **ret_ram, const struct ram_layout *layout, struct err *err);

/* Unmap and close. Accepts NULL. No thread may use @ram any more. */
void ram_destroy(struct ram *ram);

/*
 * The host address of guest range [@gpa, @gpa + @len), or NULL when any byte of
 * it is outside one region (@len 0: when @gpa itself is).
 */
void *ram_ptr(const struct ram *ram, gpa_t gpa, uint64_t len);

/*
 * The longest part of [@gpa, @gpa + @len) that starts at @gpa and lies in one
 * region: its host address, with *@ret_len <= @len set. NULL when @gpa isn't RAM.
 */
void *ram_span(const struct ram *ram, gpa_t gpa, uint64_t len, uint64_t *ret_len);

/*
 * Copy into guest memory, across adjacent regions if need be.
 * Returns 0, or -EFAULT (nothing copied) when a byte isn't RAM.
 */
int ram_write(const struct ram *ram, gpa_t gpa, const void *buf, uint64_t len);

#endif
