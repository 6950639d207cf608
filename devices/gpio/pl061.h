#ifndef DEVICES_GPIO_PL061_H
#define DEVICES_GPIO_PL061_H

/* A PL061 (Arm DDI 0190B): eight lines, each an input with an interrupt or an output. One page. */

#include "vmm/base/err.h"
#include "vmm/core/bus.h"
#include "vmm/core/irq.h"

#define PL061_NUM_LINES 8

struct pl061;

/*
 * Put a controller on @bus at @base, nothing pressed. @irq is borrowed; *@ret_gpio
 * is owned by the caller. 0 or -errno with words in @err.
 */
int pl061_create(struct pl061 **ret_gpio, struct bus *bus, uint64_t base, struct irq_line *irq,
		 struct err *err);

/* Take it off the bus and free; accepts NULL. vCPUs stopped. */
void pl061_destroy(struct pl061 *gpio);

/* Registers as after power-on, nothing pressed. Any thread. */
void pl061_reset(struct pl061 *gpio);

/*
 * Press the button on input @line (below PL061_NUM_LINES): it goes high, and low
 * again when the guest has read it high. A press while it is still high adds
 * nothing. Any thread.
 */
void pl061_press(struct pl061 *gpio, unsigned line);

#endif
