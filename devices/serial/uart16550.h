#ifndef DEVICES_SERIAL_UART16550_H
#define DEVICES_SERIAL_UART16550_H

/* A 16550A serial port with FIFOs and interrupts, 8 byte-wide registers. */

#include "vmm/base/err.h"
#include "vmm/core/bus.h"
#include "vmm/core/irq.h"
#include "devices/serial/chardev.h"

struct uart16550;

/*
 * Put a port on @bus at @base. @irq and @out (may be NULL: output is dropped)
 * are borrowed. *@ret_uart is owned by the caller. 0 or -errno with words in @err.
 */
int uart16550_create(struct uart16550 **ret_uart, struct bus *bus, uint64_t base,
		     struct irq_line *irq, struct chardev *out, struct err *err);

/* Take it off the bus and free; accepts NULL. vCPUs stopped, no more input. */
void uart16550_destroy(struct uart16550 *uart);

/* Registers and FIFO as after power-on. Any thread. */
void uart16550_reset(struct uart16550 *uart);

/*
 * Bytes typed by the person. Returns how many fit into the receive FIFO; none
 * while the guest has the port in loopback. Any thread.
 */
size_t uart16550_input(struct uart16550 *uart, const uint8_t *bytes, size_t len);

/* The line goes to break state for one character (BI). Any thread. */
void uart16550_break(struct uart16550 *uart);

/*
 * @fn(@opaque) is called once for each uart16550_input that took less than all,
 * when the guest has read the FIFO empty: on the vCPU's thread (or a resetting
 * one), without the port's lock. NULL = don't.
 */
void uart16550_on_room(struct uart16550 *uart, void (*fn)(void *opaque), void *opaque);

#endif
