/*
 * A hostile guest in front of what is soldered to a board, Arm's PL011, PL031 and PL061 and the
 * PC's 16550A: any access anywhere to their registers, while a person types, presses the button,
 * and the machine resets.
 *
 * Beyond what the sanitizers see, after each step: each device keeps its
 * identity, each wire says what the masked interrupts say, and the serial ports
 * neither lose nor invent a byte: what was taken from the person is what the
 * guest reads, as long as it doesn't empty the FIFO itself, and what the guest sends is
 * what the person sees.
 */
#include <linux/serial_reg.h>
#include <stdlib.h>
#include "devices/gpio/pl061.h"
#include "devices/primecell/primecell.h"
#include "devices/rtc/pl031.h"
#include "devices/serial/pl011.h"
#include "devices/serial/uart16550.h"
#include "tests/check.h"
#include "tests/fuzz/input.h"
#include "vmm/base/log.h"
#include "vmm/base/types.h"

#define MAX_STEPS 512
#define UART	  UINT64_C(0x09000000)
#define RTC	  UINT64_C(0x09001000)
#define GPIO	  UINT64_C(0x09002000)

#define PORT UINT64_C(0x3f8)

#define PL011_DR   0x00
#define PL011_FR   0x18
#define PL011_RXFE (1 << 4)
#define PL011_MIS  0x40
#define RTC_MIS	   0x18
#define GPIO_MIS   0x418

struct wire {
	struct irq_line line;
	_Atomic bool level; /* the clock's changes on the loop's thread, too */
};

struct fuzz {
	struct bus bus, pio;
	struct wire wire[4];
	struct chardev out, screen;
	struct pl011 *uart;
	struct pl031 *rtc;
	struct pl061 *gpio;
	struct uart16550 *port;
	unsigned room, port_room; /* calls */
	/* What the 16550 sent. */
	unsigned sent;
	uint8_t last_sent;
	struct fuzz_input in;
};

/* One for all runs: a thread each would be most of their time. */
static struct loop *loop;

static void wire_set(struct irq_line *line, bool level)
{
	struct wire *w = container_of(line, struct wire, line);

	CHECK(w->level != level);
	w->level = level;
}

static const struct irq_line_ops wire_ops = { .set = wire_set };

static void print(struct chardev *dev, const uint8_t *bytes, size_t len)
{
	CHECK(len == 1);
}

static void on_room(void *opaque)
{
	struct fuzz *f = opaque;
	uint64_t fr;

	/* The lock is free, and there is room. */
	CHECK(bus_read(&f->bus, UART + PL011_FR, 4, &fr) && (fr & PL011_RXFE));
	f->room++;
}

/* One register of the 16550. */
static uint8_t in(struct fuzz *f, unsigned reg)
{
	uint64_t value;

	CHECK(bus_read(&f->pio, PORT + reg, 1, &value) && value <= UINT8_MAX);
	return (uint8_t)value;
}

/* Write it; a byte is sent when it should be, and no other. */
static void out(struct fuzz *f, unsigned reg, uint8_t value)
{
	bool sends = reg == UART_TX && !(in(f, UART_LCR) & UART_LCR_DLAB) &&
		     !(in(f, UART_MCR) & UART_MCR_LOOP);
	unsigned before = f->sent;

	CHECK(bus_write(&f->pio, PORT + reg, 1, value));
	CHECK(f->sent == before + sends && (!sends || f->last_sent == value));
}

static void show(struct chardev *dev, const uint8_t *bytes, size_t len)
{
	struct fuzz *f = container_of(dev, struct fuzz, screen);

	CHECK(len == 1);
	f->sent++;
	f->last_sent = bytes[0];
	/* The lock is free. */
	in(f, UART_SCR);
}

static void on_port_room(void *opaque)
{
	struct fuzz *f = opaque;

	/* The lock is free, and there is room. */
	CHECK(!(in(f, UART_LSR) & UART_LSR_DR));
	f->port_room++;
}

static uint64_t take(struct fuzz *f, unsigned bytes)
{
	return fuzz_take(&f->in, bytes);
}

static uint32_t reg(struct fuzz *f, uint64_t addr)
{
	uint64_t value;

	CHECK(bus_read(&f->bus, addr, 4, &value) && value <= UINT32_MAX);
	return (uint32_t)value;
}

static void build(struct fuzz *f)
{
	log_set_level(LOG_ERROR);
	if (!loop)
		CHECK(loop_create(&loop, "fuzz", NULL) == 0);
	bus_init(&f->bus, false);
	for (unsigned i = 0; i < ARRAY_SIZE(f->wire); i++)
		f->wire[i].line.ops = &wire_ops;
	bus_init(&f->pio, true);
	f->out.write = print;
	f->screen.write = show;
	CHECK(pl011_create(&f->uart, &f->bus, UART, &f->wire[0].line, &f->out, NULL) == 0);
	CHECK(pl031_create(&f->rtc, &f->bus, RTC, &f->wire[1].line, loop, NULL) == 0);
	CHECK(pl061_create(&f->gpio, &f->bus, GPIO, &f->wire[2].line, NULL) == 0);
	CHECK(uart16550_create(&f->port, &f->pio, PORT, &f->wire[3].line, &f->screen, NULL) == 0);
	pl011_on_room(f->uart, on_room, f);
	uart16550_on_room(f->port, on_port_room, f);
}

static void nothing(void *opaque)
{
}

static void check(struct fuzz *f)
{
	CHECK(reg(f, UART + 0xfe0) == 0x11 && reg(f, UART + 0xff0) == 0x0d);
	CHECK(reg(f, RTC + 0xfe0) == 0x31 && reg(f, RTC + 0xffc) == 0xb1);
	CHECK(reg(f, GPIO + 0xfe0) == 0x61 && reg(f, GPIO + 0xfe4) == 0x10);
	CHECK(f->wire[0].level == (reg(f, UART + PL011_MIS) != 0));
	CHECK(f->wire[2].level == (reg(f, GPIO + GPIO_MIS) != 0));
	CHECK((in(f, UART_LCR) & UART_LCR_DLAB) || !(in(f, UART_IER) & 0xf0));
	CHECK(!(in(f, UART_MCR) & 0xe0));
	/* An alarm may come between the two looks, but not between the next two. */
	if (f->wire[1].level != reg(f, RTC + RTC_MIS)) {
		loop_call(loop, nothing, NULL);
		CHECK(f->wire[1].level == reg(f, RTC + RTC_MIS));
	}
}

/* Type into an empty FIFO; the guest reads exactly what was taken. */
static void converse(struct fuzz *f, uint8_t how)
{
	uint8_t text[48];
	size_t len = how % sizeof(text), taken;
	unsigned room = f->room;

	for (unsigned i = 0; i < 32; i++)
		reg(f, UART + PL011_DR);
	CHECK(reg(f, UART + PL011_FR) & PL011_RXFE);
	for (size_t i = 0; i < len; i++)
		text[i] = (uint8_t)take(f, 1);
	room = f->room;
	taken = pl011_input(f->uart, text, len);
	CHECK(taken <= len && taken <= 32);
	for (size_t i = 0; i < taken; i++)
		CHECK((reg(f, UART + PL011_DR) & 0xff) == text[i]);
	CHECK(reg(f, UART + PL011_FR) & PL011_RXFE);
	CHECK(!taken || f->room - room == (taken < len));
}

/* The interrupt that the 16550 reports is the one that its wire tells of. */
static void check_port_irq(struct fuzz *f)
{
	bool level = f->wire[3].level;
	uint8_t iir = in(f, UART_IIR);

	CHECK(level == !(iir & UART_IIR_NO_INT));
	CHECK((iir & 0x30) == 0 && ((iir & 0xc0) == 0xc0 || !(iir & 0xc0)));
	if ((iir & UART_IIR_ID) != UART_IIR_THRI || iir & UART_IIR_NO_INT) {
		CHECK(f->wire[3].level == level);
		return;
	}
	/* The transmitter's is satisfied by the report, then what is less urgent has its turn. */
	level = f->wire[3].level;
	iir = in(f, UART_IIR);
	CHECK(level == !(iir & UART_IIR_NO_INT) && (iir & UART_IIR_ID) != UART_IIR_THRI);
}

/* As converse, on the 16550, with and without FIFOs. */
static void converse_port(struct fuzz *f, uint8_t how)
{
	uint8_t text[32], fcr = how & 0x80 ? UART_FCR_ENABLE_FIFO | (how & 0x60) << 1 : 0;
	size_t len = how % sizeof(text), room_for = fcr ? 16 : 1;

	out(f, UART_LCR, UART_LCR_WLEN8);
	out(f, UART_MCR, 0);
	out(f, UART_FCR, fcr | UART_FCR_CLEAR_RCVR);
	CHECK(!(in(f, UART_LSR) & UART_LSR_DR));
	for (size_t i = 0; i < len; i++)
		text[i] = (uint8_t)take(f, 1);
	unsigned room = f->port_room;
	size_t taken = uart16550_input(f->port, text, len);

	CHECK(taken == MIN(len, room_for));
	for (size_t i = 0; i < taken; i++) {
		CHECK(in(f, UART_LSR) & UART_LSR_DR);
		check_port_irq(f);
		CHECK(in(f, UART_RX) == text[i]);
	}
	CHECK(!(in(f, UART_LSR) & UART_LSR_DR));
	CHECK(f->port_room - room == (taken < len));
}

static void person_at_port(struct fuzz *f, uint8_t how)
{
	switch (how % 4) {
	case 0:
		uart16550_input(f->port, &how, 1);
		break;
	case 1:
		uart16550_break(f->port);
		break;
	case 2:
		check_port_irq(f);
		break;
	default:
		uart16550_reset(f->port);
		CHECK(!f->wire[3].level && !in(f, UART_IER) && !in(f, UART_LCR));
	}
}

static void person(struct fuzz *f, uint8_t how)
{
	uint8_t byte = how;

	switch (how % 6) {
	case 0:
		pl011_input(f->uart, &byte, 1);
		break;
	case 1:
		pl011_break(f->uart);
		break;
	case 2:
		pl061_press(f->gpio, how >> 4 & 7);
		break;
	case 3:
		pl011_reset(f->uart);
		break;
	case 4:
		pl031_reset(f->rtc);
		break;
	default:
		pl061_reset(f->gpio);
	}
}

static void step(struct fuzz *f)
{
	uint8_t op = (uint8_t)take(f, 1), how = (uint8_t)take(f, 1);

	switch (op % 12) {
	case 0: /* Anywhere, also across two windows. */
		fuzz_access(&f->in, &f->bus, UART + take(f, 2) % (3 * PRIMECELL_SIZE), how);
		break;
	case 1:
	case 2: /* Registers, as a driver accesses them. */
		fuzz_access(&f->in, &f->bus, UART + (take(f, 1) & 0x7c), how & 0xfd);
		break;
	case 3: /* The clock, near now, so that alarms go off. */
		bus_write(&f->bus, RTC + (how & 0x1c), 4,
			  reg(f, RTC) + (op & 8 ? take(f, 4) : how >> 7));
		break;
	case 4:
		fuzz_access(&f->in, &f->bus, RTC + (take(f, 1) & 0x1c), how & 0xfd);
		break;
	case 5:
		fuzz_access(&f->in, &f->bus, GPIO + (op & 8 ? 0x400 : 0) + (take(f, 1) & 0xfc),
			    how & 0xfd);
		break;
	case 6:
		person(f, how);
		break;
	case 7:
		converse(f, how);
		break;
	case 8: /* Anywhere around the 16550, in any size. */
		fuzz_access(&f->in, &f->pio, PORT - 8 + (how >> 3), how);
		break;
	case 9:
		out(f, how & 7, (uint8_t)take(f, 1));
		break;
	case 10:
		if (how & 8)
			person_at_port(f, how >> 4);
		else
			in(f, how & 7);
		break;
	default:
		converse_port(f, how);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz *f = calloc(1, sizeof(*f));

	CHECK(f);
	f->in = (struct fuzz_input){ data, size };
	build(f);
	for (unsigned i = 0; i < MAX_STEPS && f->in.left; i++) {
		step(f);
		check(f);
	}
	pl011_destroy(f->uart);
	pl031_destroy(f->rtc);
	pl061_destroy(f->gpio);
	uart16550_destroy(f->port);
	for (unsigned i = 0; i < ARRAY_SIZE(f->wire); i++)
		CHECK(!f->wire[i].level);
	CHECK(f->bus.count == 0 && f->pio.count == 0);
	bus_finish(&f->bus);
	bus_finish(&f->pio);
	free(f);
	return 0;
}
