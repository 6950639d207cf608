#include "vmm/machine_state.h"

#include <errno.h>
#include <string.h>

/*
 * What is soldered to the board: the serial port with the console behind it, and on
 * arm a clock and a power button. Which there are, and where, arch_board says.
 */

/* The console: a loop reads the terminal into the serial port, which writes back. */

static size_t console_input(void *opaque, const uint8_t *bytes, size_t len)
{
	struct machine *m = opaque;

	return m->pl011 ? pl011_input(m->pl011, bytes, len) : uart16550_input(m->uart, bytes, len);
}

static void console_break(void *opaque)
{
	struct machine *m = opaque;

	if (m->pl011)
		pl011_break(m->pl011);
	else
		uart16550_break(m->uart);
}

static int wire(struct machine *m, const char *name, uint32_t gsi, struct irq_line **ret_irq,
		struct err *err)
{
	int r = vm_irq_line(m->vm, gsi, ret_irq);

	if (r < 0)
		return err_set(err, -r, "%s: no interrupt line %u: %s", name, gsi, strerror(-r));
	return 0;
}

static int create_serial(struct machine *m, const struct arch_board *board, struct err *err)
{
	struct chardev *out = console_chardev(m->console);
	struct irq_line *irq;
	int r = wire(m, "serial port", board->serial.gsi, &irq, err);

	if (r < 0)
		return r;
	switch (board->serial_kind) {
	case ARCH_SERIAL_16550:
		r = uart16550_create(&m->uart, &m->pio, board->serial.base, irq, out, err);
		if (!r)
			uart16550_on_room(m->uart, console_room, m->console);
		break;
	case ARCH_SERIAL_PL011:
		r = pl011_create(&m->pl011, &m->mmio, board->serial.base, irq, out, err);
		if (!r)
			pl011_on_room(m->pl011, console_room, m->console);
		break;
	}
	return r;
}

static int create_console(struct machine *m, const struct arch_board *board, struct err *err)
{
	static const struct console_hooks hooks = { .input = console_input,
						    .brk = console_break,
						    .quit = machine_quit };
	int r = console_create(&m->console, m->config->console, m->config->console_file, err);

	if (!r)
		r = create_serial(m, board, err);
	return r < 0 ? r : console_start(m->console, m->board_loop, &hooks, m, err);
}

/* The clock and the button; a board without the GPIO has the button on a wire of its own. */
static int create_primecells(struct machine *m, const struct arch_board *board, struct err *err)
{
	struct irq_line *irq;
	int r = 0;

	if (board->rtc.base) {
		r = wire(m, "real-time clock", board->rtc.gsi, &irq, err);
		if (!r)
			r = pl031_create(&m->rtc, &m->mmio, board->rtc.base, irq, m->board_loop,
					 err);
	}
	if (r < 0)
		return r;
	m->power_button_line = board->power_button;
	if (!board->gpio.base)
		return wire(m, "power button", board->power_button, &m->power_button, err);
	r = wire(m, "power button", board->gpio.gsi, &irq, err);
	return r < 0 ? r : pl061_create(&m->gpio, &m->mmio, board->gpio.base, irq, err);
}

int machine_create_board(struct machine *m, struct err *err)
{
	struct arch_board board;
	int r = loop_create(&m->board_loop, "board", err);

	if (r < 0)
		return r;
	arch_board(m->arch, &board);
	r = create_primecells(m, &board, err);
	return r < 0 ? r : create_console(m, &board, err);
}

void machine_reset_board(struct machine *m)
{
	if (m->pl011)
		pl011_reset(m->pl011);
	if (m->uart)
		uart16550_reset(m->uart);
	if (m->rtc)
		pl031_reset(m->rtc);
	if (m->gpio)
		pl061_reset(m->gpio);
}

void machine_destroy_board(struct machine *m)
{
	pl061_destroy(m->gpio);
	pl031_destroy(m->rtc);
	pl011_destroy(m->pl011);
	uart16550_destroy(m->uart);
	console_destroy(m->console);
	loop_destroy(m->board_loop);
}

void machine_press_power_button(struct machine *m)
{
	if (m->gpio)
		pl061_press(m->gpio, m->power_button_line);
	else
		irq_line_pulse(m->power_button);
}
