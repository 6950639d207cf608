/* The serial port as Linux's 8250 driver probes and uses it. */
#include "devices/serial/uart16550.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/serial_reg.h>
#include "vmm/base/types.h"

#define BASE 0x3f8

static struct bus bus;
static struct uart16550 *uart;
static struct {
	struct irq_line line;
	bool level;
	unsigned rises, repeats;
} wire;
static struct {
	struct chardev dev;
	const char *typed;
	size_t len;
	char text[256];
} screen;
static unsigned room_calls;

static void wire_set(struct irq_line *line, bool level)
{
	wire.repeats += level == wire.level;
	wire.rises += level && !wire.level;
	wire.level = level;
}

static const struct irq_line_ops wire_ops = { .set = wire_set };

static void screen_write(struct chardev *dev, const uint8_t *bytes, size_t len)
{
	/* Somebody types meanwhile; with the port's lock held this would hang. */
	if (screen.typed)
		uart16550_input(uart, (const uint8_t *)screen.typed, 1);
	cr_assert_lt(screen.len + len, sizeof(screen.text));
	memcpy(screen.text + screen.len, bytes, len);
	screen.len += len;
}

static void on_room(void *opaque)
{
	room_calls++;
	/* The port's lock isn't held: this would hang otherwise. */
	if (opaque)
		uart16550_input(uart, opaque, 1);
}

static void setup(void)
{
	struct err err = { "" };

	bus_init(&bus, true);
	wire.line.ops = &wire_ops;
	screen.dev.write = screen_write;
	cr_assert_eq(uart16550_create(&uart, &bus, BASE, &wire.line, &screen.dev, &err), 0);
}

static void teardown(void)
{
	uart16550_destroy(uart);
	cr_expect_not(wire.level, "a port that goes lets go of its wire");
	cr_expect_eq(wire.repeats, 0, "the wire is driven on changes only");
	cr_expect_eq(bus.count, 0);
	bus_finish(&bus);
}

TestSuite(uart, .init = setup, .fini = teardown, .timeout = 60);

static uint8_t in(unsigned reg)
{
	uint64_t value = 0;

	cr_assert(bus_read(&bus, BASE + reg, 1, &value));
	return (uint8_t)value;
}

static void out(unsigned reg, uint8_t value)
{
	cr_assert(bus_write(&bus, BASE + reg, 1, value));
}

static size_t type(const char *text)
{
	return uart16550_input(uart, (const uint8_t *)text, strlen(text));
}

static void fifo_on(void)
{
	out(UART_FCR, UART_FCR_ENABLE_FIFO);
}

Test(uart, after_power_on_it_is_idle)
{
	cr_expect_eq(in(UART_IER), 0);
	cr_expect_eq(in(UART_IIR), UART_IIR_NO_INT);
	cr_expect_eq(in(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
	cr_expect_eq(in(UART_MSR), UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS);
	cr_expect_eq(in(UART_RX), 0);
	cr_expect_not(wire.level);
}

Test(uart, one_may_type_while_the_reader_of_the_output_pauses)
{
	screen.typed = "x";
	out(UART_TX, 'a');
	cr_expect_eq(in(UART_RX), 'x');
	cr_expect_str_eq(screen.text, "a");
}

/* The steps of autoconfig() in Linux's drivers/tty/serial/8250/8250_port.c. */
Test(uart, linux_recognises_a_16550a)
{
	out(UART_IER, 0);
	cr_expect_eq(in(UART_IER)&0x0f, 0);
	out(UART_IER, 0x0f);
	cr_expect_eq(in(UART_IER), 0x0f);
	out(UART_IER, 0);
	out(UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_RTS);
	cr_expect_eq(in(UART_MSR)&0xf0, UART_MSR_DCD | UART_MSR_CTS);
	out(UART_MCR, 0);
	out(UART_LCR, 0xbf);
	out(UART_FCR, 0);
	out(UART_LCR, 0);
	fifo_on();
	cr_expect_eq(in(UART_IIR) >> 6, 3);
	/* Not one of its successors: no EFR, no 64-byte FIFO, no UUE bit. */
	out(UART_LCR, UART_LCR_DLAB);
	cr_expect_neq(in(UART_EFR), 0);
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR7_64BYTE);
	cr_expect_eq(in(UART_IIR) >> 5, 6);
	out(UART_LCR, 0);
	out(UART_IER, UART_IERX_SLEEP | UART_IER_UUE);
	cr_expect_eq(in(UART_IER), 0);
	out(UART_SCR, 0xa5);
	cr_expect_eq(in(UART_SCR), 0xa5);
}

Test(uart, the_divisor_hides_behind_dlab)
{
	out(UART_LCR, UART_LCR_DLAB);
	out(UART_DLL, 0x0c);
	out(UART_DLM, 0x01);
	out(UART_LCR, UART_LCR_WLEN8);
	cr_expect_eq(in(UART_IER), 0);
	cr_expect_eq(screen.len, 0, "the divisor isn't printed");
	type("k");
	out(UART_LCR, UART_LCR_DLAB);
	cr_expect_eq(in(UART_DLL), 0x0c);
	cr_expect_eq(in(UART_DLM), 0x01);
	out(UART_LCR, 0);
	cr_expect_eq(in(UART_RX), 'k', "reading the divisor took no byte");
}

Test(uart, output_arrives_in_order)
{
	for (const char *p = "Hello\n"; *p; p++)
		out(UART_TX, (uint8_t)*p);
	cr_expect_str_eq(screen.text, "Hello\n");
	cr_expect(in(UART_LSR)&UART_LSR_THRE);
}

Test(uart, the_transmitter_asks_once_per_reason)
{
	out(UART_IER, UART_IER_THRI);
	cr_expect(wire.level, "allowing it raises it");
	cr_expect_eq(in(UART_IIR), UART_IIR_THRI);
	cr_expect_not(wire.level, "the read of IIR satisfies it");
	cr_expect_eq(in(UART_IIR), UART_IIR_NO_INT);
	out(UART_TX, 'x');
	cr_expect(wire.level);
	cr_expect_eq(in(UART_IIR), UART_IIR_THRI);
	/* Linux tests for this: allowed again means asked again. */
	out(UART_IER, 0);
	out(UART_IER, UART_IER_THRI);
	cr_expect_eq(in(UART_IIR), UART_IIR_THRI);
	/* Writing the same value again is no reason. */
	out(UART_IER, UART_IER_THRI);
	cr_expect_eq(in(UART_IIR), UART_IIR_NO_INT);
	cr_expect_eq(wire.rises, 3);
}

Test(uart, input_interrupts_until_it_is_read)
{
	fifo_on();
	out(UART_IER, UART_IER_RDI);
	cr_expect_eq(type("ab"), 2);
	cr_expect(wire.level);
	cr_expect_eq(in(UART_IIR), 0xc0 | UART_IIR_RDI);
	cr_expect(in(UART_LSR)&UART_LSR_DR);
	cr_expect_eq(in(UART_RX), 'a');
	cr_expect(wire.level);
	cr_expect_eq(in(UART_RX), 'b');
	cr_expect_not(wire.level);
	cr_expect_not(in(UART_LSR)&UART_LSR_DR);
}

Test(uart, below_the_trigger_level_it_is_a_time_out)
{
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_8);
	out(UART_IER, UART_IER_RDI);
	type("1234567");
	cr_expect_eq(in(UART_IIR), 0xc0 | UART_IIR_RX_TIMEOUT);
	type("8");
	cr_expect_eq(in(UART_IIR), 0xc0 | UART_IIR_RDI);
}

Test(uart, sources_have_their_priority)
{
	fifo_on();
	out(UART_IER, 0x0f);
	type("a");
	uart16550_break(uart);
	cr_expect_eq(in(UART_IIR)&0x0f, UART_IIR_RDI, "the break isn't the next byte yet");
	in(UART_RX);
	cr_expect_eq(in(UART_IIR)&0x0f, UART_IIR_RLSI);
	in(UART_LSR);
	cr_expect_eq(in(UART_IIR)&0x0f, UART_IIR_RDI);
	in(UART_RX);
	cr_expect_eq(in(UART_IIR)&0x0f, UART_IIR_THRI);
	cr_expect_eq(in(UART_IIR)&0x0f, UART_IIR_NO_INT);
	cr_expect_not(wire.level);
}

Test(uart, a_break_marks_its_own_byte)
{
	fifo_on();
	type("a");
	uart16550_break(uart);
	type("h");
	cr_expect_eq(in(UART_LSR) & (UART_LSR_BI | UART_LSR_FIFOE), UART_LSR_FIFOE);
	cr_expect_eq(in(UART_RX), 'a');
	cr_expect_eq(in(UART_LSR) & (UART_LSR_BI | UART_LSR_DR), UART_LSR_BI | UART_LSR_DR);
	cr_expect_eq(in(UART_LSR)&UART_LSR_BI, 0, "shown once");
	cr_expect_eq(in(UART_RX), 0);
	cr_expect_eq(in(UART_LSR) & (UART_LSR_BI | UART_LSR_FIFOE), 0);
	cr_expect_eq(in(UART_RX), 'h');
}

Test(uart, a_paste_loses_nothing)
{
	static const char text[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	char got[sizeof(text)] = "";
	size_t sent = 0, n = 0;

	uart16550_on_room(uart, on_room, NULL);
	fifo_on();
	while (n < sizeof(text) - 1) {
		sent += type(text + sent);
		cr_assert_leq(sent - n, 16);
		while (in(UART_LSR)&UART_LSR_DR)
			got[n++] = (char)in(UART_RX);
	}
	cr_expect_str_eq(got, text);
	cr_expect_eq(room_calls, 2, "once for each time that not all fitted");
}

Test(uart, room_is_told_without_the_lock)
{
	uart16550_on_room(uart, on_room, "z");
	cr_expect_eq(type("ab"), 1, "without FIFO mode there is one register");
	cr_expect_eq(in(UART_RX), 'a');
	cr_expect_eq(room_calls, 1);
	cr_expect_eq(in(UART_RX), 'z');
	cr_expect_eq(room_calls, 1);
}

Test(uart, clearing_the_fifo_makes_room)
{
	uart16550_on_room(uart, on_room, NULL);
	fifo_on();
	cr_expect_eq(type("0123456789abcdefX"), 16);
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
	cr_expect_eq(room_calls, 1);
	cr_expect_not(in(UART_LSR)&UART_LSR_DR);
	/* Switching the FIFO off empties it as well. */
	type("abc");
	out(UART_FCR, 0);
	cr_expect_not(in(UART_LSR)&UART_LSR_DR);
	cr_expect_eq(in(UART_IIR), UART_IIR_NO_INT);
}

Test(uart, loopback_keeps_to_itself)
{
	uart16550_on_room(uart, on_room, NULL);
	fifo_on();
	out(UART_MCR, UART_MCR_LOOP);
	out(UART_TX, 'L');
	cr_expect_eq(screen.len, 0, "nothing leaves");
	cr_expect_eq(type("in"), 0, "nothing comes in");
	cr_expect_eq(in(UART_RX), 'L');
	cr_expect_eq(room_calls, 0);
	for (unsigned i = 0; i < 17; i++)
		out(UART_TX, (uint8_t)('a' + i));
	cr_expect(in(UART_LSR)&UART_LSR_OE, "an overrun is the guest's own");
	cr_expect_eq(in(UART_RX), 'a');
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
	out(UART_MCR, 0);
	cr_expect_eq(room_calls, 1, "the person's bytes come when it is over");
}

Test(uart, modem_deltas_interrupt_until_read)
{
	out(UART_IER, UART_IER_MSI);
	out(UART_MCR, UART_MCR_LOOP);
	in(UART_MSR);
	cr_expect_not(wire.level);
	out(UART_MCR, UART_MCR_LOOP | UART_MCR_DTR | UART_MCR_OUT1);
	cr_expect(wire.level);
	cr_expect_eq(in(UART_IIR)&0x0f, UART_IIR_MSI);
	cr_expect_eq(in(UART_MSR), UART_MSR_DSR | UART_MSR_RI | UART_MSR_DDSR,
		     "a ring that begins is no trailing edge");
	cr_expect_not(wire.level);
	out(UART_MCR, UART_MCR_LOOP | UART_MCR_DTR);
	cr_expect_eq(in(UART_MSR), UART_MSR_DSR | UART_MSR_TERI);
}

Test(uart, wide_accesses_are_ignored)
{
	uint64_t value;

	bus_write(&bus, BASE, 4, 0x41414141);
	bus_write(&bus, BASE + UART_SCR - 1, 2, 0xffff);
	cr_expect_eq(screen.len, 0);
	cr_expect_eq(in(UART_SCR), 0);
	bus_read(&bus, BASE, 2, &value);
	cr_expect_eq(value, 0xffff);
}

Test(uart, a_reset_is_as_power_on)
{
	fifo_on();
	out(UART_IER, 0x0f);
	out(UART_MCR, UART_MCR_LOOP);
	out(UART_LCR, 0x83);
	type("abc");
	uart16550_reset(uart);
	cr_expect_not(wire.level);
	cr_expect_eq(in(UART_LCR), 0);
	cr_expect_eq(in(UART_IER), 0);
	cr_expect_eq(in(UART_MCR), 0);
	cr_expect_eq(in(UART_IIR), UART_IIR_NO_INT);
	cr_expect_eq(in(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
}

Test(uart, an_occupied_address_is_an_error_with_words)
{
	struct uart16550 *second = NULL;
	struct err err = { "" };

	cr_expect_eq(uart16550_create(&second, &bus, BASE + 4, &wire.line, NULL, &err), -EEXIST);
	cr_expect_null(second);
	cr_expect_neq(err.text[0], '\0');
	uart16550_destroy(NULL);
}
