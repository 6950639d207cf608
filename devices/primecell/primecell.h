#ifndef DEVICES_PRIMECELL_PRIMECELL_H
#define DEVICES_PRIMECELL_PRIMECELL_H

/*
 * What Arm's PrimeCells have in common: a page of 32-bit registers with an
 * identity at its end, a lock, one interrupt that is a function of the state.
 *
 * A register may be accessed with 1, 2 or 4 bytes at its own offset: drivers use
 * all three. Any other access reads as zero and writes nothing.
 */

#include <pthread.h>
#include "vmm/base/err.h"
#include "vmm/core/bus.h"
#include "vmm/core/irq.h"

#define PRIMECELL_SIZE 4096

struct primecell;

struct primecell_ops {
	const char *name; /* of the window, and in errors */
	uint32_t id; /* what the four peripheral identification registers hold, low byte first */
	/*
	 * The guest reads or writes the register at offset @reg (a multiple of 4,
	 * below 0xfe0). Unknown ones read as zero and ignore writes. On the vCPU's
	 * thread, the lock held.
	 */
	uint32_t (*read)(struct primecell *cell, unsigned reg);
	void (*write)(struct primecell *cell, unsigned reg, uint32_t value);
	/* Whether the interrupt is wanted. Any thread, the lock held. */
	bool (*interrupt)(const struct primecell *cell);
	/* After each guest access, without the lock, on the vCPU's thread. May be NULL. */
	void (*accessed)(struct primecell *cell);
};

/* Embedded in the device. */
struct primecell {
	const struct primecell_ops *ops;
	struct bus *bus; /* borrows */
	uint64_t base;
	struct irq_line *irq; /* borrows */
	pthread_mutex_t lock; /* protects the device's state and what follows */
	bool level;	      /* of the interrupt wire */
};

/*
 * Put @cell on @bus at @base. @ops, @bus and @irq are borrowed until
 * primecell_finish. The device is ready before: the guest may access it at once.
 * Returns 0, or -errno of bus_add with words in @err; @cell is then unused.
 */
int primecell_init(struct primecell *cell, const struct primecell_ops *ops, struct bus *bus,
		   uint64_t base, struct irq_line *irq, struct err *err);

/* Take it off the bus and lower its wire. vCPUs stopped; nobody else uses it. */
void primecell_finish(struct primecell *cell);

/* Around every change of state from outside; the unlock drives the wire. Any thread. */
void primecell_lock(struct primecell *cell);
void primecell_unlock(struct primecell *cell);

#endif
