#ifndef VMM_CORE_MEMSLOT_H
#define VMM_CORE_MEMSLOT_H

/*
 * Host memory that the guest sees besides its RAM: the registers of a device
 * that is passed through. The guest's accesses go there without an exit; no
 * emulated device can reach it (ram.h doesn't know it).
 */

#include "vmm/base/types.h"

struct mem_slots;

struct mem_slots_ops {
	/*
	 * Show the guest @size bytes at @host (borrowed until removed) at @gpa; all
	 * three are multiples of the host's page size. *@ret_slot names it. 0;
	 * -EEXIST when something else of this kind, or RAM, is there; -ENOSPC;
	 * another -errno of the host. Any thread.
	 */
	int (*add)(struct mem_slots *slots, gpa_t gpa, uint64_t size, void *host,
		   unsigned *ret_slot);
	/* When it returns, the guest can't reach it any more. Any thread. */
	void (*remove)(struct mem_slots *slots, unsigned slot);
	/*
	 * The VM was told of the file @fd, through which a device does DMA, and keeps it
	 * open: have it drop the file. Any thread.
	 */
	void (*drop_file)(struct mem_slots *slots, int fd);
	/*
	 * The host's address of what the guest sees at [@gpa, @gpa + @size), or NULL when that
	 * isn't all in one slot. Any thread.
	 */
	void *(*find)(struct mem_slots *slots, gpa_t gpa, uint64_t size);
};

/* Embedded in its implementation. */
struct mem_slots {
	const struct mem_slots_ops *ops;
	/*
	 * Called after something was added, and when something was removed, before remove
	 * returns: for who else uses what is shown. Set before the vCPUs run; NULL = nobody.
	 * Comes with locks of the caller of add and remove, none of the slots' own.
	 */
	void (*changed)(void *opaque);
	void *changed_opaque;
};

#endif
