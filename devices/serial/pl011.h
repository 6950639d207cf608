#ifndef DEVICES_SERIAL_PL011_H
#define DEVICES_SERIAL_PL011_H

/* A PL011 serial port (Arm DDI 0183G, r1p5) with FIFOs of 32 bytes; one page of registers. */

#include "vmm/base/err.h"
#include "vmm/core/bus.h"
#include "vmm/core/irq.h"
#include "devices/serial/chardev.h"

struct pl011;

/*
 * Put a port on @bus at @base. @irq and @out (may be NULL: output is dropped)
 * are borrowed. *@ret_uart is owned by the caller. 0 or -errno with words in @err.
 */
int pl011_create(struct pl011 **ret_uart, struct bus *bus, uint64_t base, struct irq_line *irq,
		 struct chardev *out, struct err *err);

/* Take it off the bus and free; accepts NULL. vCPUs stopped, no more input. */
void pl011_destroy(struct pl011 *uart);

/* Registers and FIFO as after power-on. Any thread. */
void pl011_reset(struct pl011 *uart);

/*
 * Bytes typed by the person. Returns how many fit into the receive FIFO; none
 * while the guest has the receiver off or the port in loopback. Any thread.
 */
size_t pl011_input(struct pl011 *uart, const uint8_t *bytes, size_t len);

/* The line goes to break state for one character (BE). Any thread. */
void pl011_break(struct pl011 *uart);

/*
 * @fn(@opaque) is called once for each pl011_input that took less than all, when
 * the receiver is on and the guest has read the FIFO empty: on the vCPU's thread
 * (or a resetting one), without the port's lock. NULL = don't.
 */
void pl011_on_room(struct pl011 *uart, void (*fn)(void *opaque), void *opaque);

#endif
