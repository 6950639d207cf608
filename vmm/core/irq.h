#ifndef VMM_CORE_IRQ_H
#define VMM_CORE_IRQ_H

/*
 * What a device knows of interrupts: handles. irqfd, GSI routes and ITS device
 * IDs hide behind them, in vmm/kvm.
 */

#include "vmm/base/types.h"

struct irq_line;

struct irq_line_ops {
	/* Drive the wire; a device calls it with its own lock held. Any thread. */
	void (*set)(struct irq_line *line, bool level);
	/* One edge (low, high, low). Any thread, no lock needed. */
	void (*pulse)(struct irq_line *line);
	/*
	 * Have the eventfd @trigger drive the wire high; the guest's end of
	 * interrupt drives it low and rings @resample. Both are borrowed until
	 * disconnect. For somebody who isn't us (VFIO), beside set and pulse.
	 * Several may share the wire. 0 or -errno.
	 */
	int (*connect)(struct irq_line *line, int trigger, int resample);
	void (*disconnect)(struct irq_line *line, int trigger);
};

/* A wire to the interrupt controller. Embedded in its implementation. */
struct irq_line {
	const struct irq_line_ops *ops;
	uint32_t gsi; /* the platform's interrupt number, for the tables */
};

static inline void irq_line_set(struct irq_line *line, bool level)
{
	line->ops->set(line, level);
}

static inline void irq_line_pulse(struct irq_line *line)
{
	line->ops->pulse(line);
}

struct msi_message {
	uint64_t address;
	uint32_t data;
};

/*
 * One message-signalled interrupt of a device (an MSI-X table entry). Opaque;
 * made by a sink.
 */
struct msi_vector;

struct msi_sink;

struct msi_sink_ops {
	/*
	 * Reserve a vector for the device with requester ID @rid. Returns 0,
	 * -ENOSPC when the platform's routes are used up, -errno.
	 */
	int (*alloc)(struct msi_sink *sink, uint32_t rid, struct msi_vector **ret_vector);
	/* Give it back; accepts NULL. */
	void (*free)(struct msi_sink *sink, struct msi_vector *vector);
	/*
	 * The guest set the entry's message and mask. Returns 0 or -errno from
	 * the host; the vector is then as good as masked.
	 */
	int (*update)(struct msi_sink *sink, struct msi_vector *vector,
		      const struct msi_message *message, bool masked);
	/* Raise it. Any thread; one write(2). Lost when masked: the caller keeps pending bits. */
	void (*fire)(struct msi_sink *sink, struct msi_vector *vector);
	/* The eventfd behind the vector, for irqfd users such as VFIO; borrows. */
	int (*eventfd)(struct msi_sink *sink, struct msi_vector *vector);
};

struct msi_sink {
	const struct msi_sink_ops *ops;
};

#endif
