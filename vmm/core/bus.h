#ifndef VMM_CORE_BUS_H
#define VMM_CORE_BUS_H

/*
 * An address space of device registers: guest MMIO is one bus, x86 port I/O
 * another. Windows are sorted, never overlap, and are found by binary search
 * under a read lock that is dropped before the handler runs: an access costs a
 * VM exit anyway, and a handler may itself move windows (a BAR).
 *
 * A device outlives the vCPUs, so a handler that was found just before its
 * window was removed may still run once; it must tolerate that.
 */

#include <pthread.h>
#include "vmm/base/types.h"

struct bus_ops {
	/*
	 * The guest reads @size bytes (1, 2, 4 or 8) at @offset from the start of
	 * the window. Returns the value; the upper bytes are ignored. Called on a
	 * vCPU thread without locks. An offset or size that the device doesn't
	 * know reads as all ones or as zero, as its specification says.
	 */
	uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
	/* The guest writes. Unknown registers are ignored. Same context. */
	void (*write)(void *opaque, uint64_t offset, unsigned size, uint64_t value);
};

struct bus_window {
	uint64_t base;
	uint64_t size;
	const struct bus_ops *ops;
	void *opaque;
	const char *name; /* for --verbose; borrows */
};

/*
 * A doorbell: a guest store that wakes a thread without leaving the kernel.
 * KVM implements it (KVM_IOEVENTFD); without it the window's handler runs.
 */
struct doorbell {
	uint64_t addr; /* absolute on its bus */
	unsigned size; /* of the store: 2 or 4 bytes; 0 = any size */
	bool match;    /* only a store of @value rings */
	uint64_t value;
	int eventfd; /* borrows */
};

struct doorbell_ops {
	/* Returns 0 or -errno (the bus then serves the store by its window). */
	int (*attach)(void *opaque, bool port_io, const struct doorbell *bell);
	void (*detach)(void *opaque, bool port_io, const struct doorbell *bell);
};

struct bus {
	pthread_rwlock_t lock;	    /* protects windows, count and capacity */
	struct bus_window *windows; /* owns; ascending by base */
	size_t count, capacity;
	bool port_io;
	const struct doorbell_ops *doorbell_ops; /* borrows; NULL: no doorbells */
	void *doorbell_opaque;
};

/* Initialise an empty bus; @port_io tells x86 ports from MMIO. */
void bus_init(struct bus *bus, bool port_io);

/* Free what @bus owns; accepts a zeroed bus. */
void bus_finish(struct bus *bus);

/* Who implements doorbells; called once before the first bus_attach_doorbell. */
void bus_set_doorbells(struct bus *bus, const struct doorbell_ops *ops, void *opaque);

/*
 * Add a window (copied). Returns 0, -EEXIST when it overlaps another, -EINVAL
 * when it is empty or wraps around, -ENOMEM. Any thread.
 */
int bus_add(struct bus *bus, const struct bus_window *window);

/* Remove the window that starts at @base and has @opaque. Returns 0 or -ENOENT. */
int bus_remove(struct bus *bus, uint64_t base, const void *opaque);

/*
 * Serve one guest access of @size bytes (1 to 8) at @addr. An access that no
 * single window covers entirely, or whose size isn't a power of two (no device
 * has such a register), reads as all ones and writes nothing; the functions then
 * return false. Called on vCPU threads, any number at a time.
 */
bool bus_read(struct bus *bus, uint64_t addr, unsigned size, uint64_t *ret_value);
bool bus_write(struct bus *bus, uint64_t addr, unsigned size, uint64_t value);

/* As doorbell_ops; 0, or -ENOTSUP without an implementation. */
int bus_attach_doorbell(struct bus *bus, const struct doorbell *bell);
void bus_detach_doorbell(struct bus *bus, const struct doorbell *bell);

#endif
