/* The serial port as Linux's amba-pl011 driver probes and uses it. */
#include "devices/serial/pl011.h"

#include <errno.h>
#include "tests/unit/devices/primecell/guest.h"

#define DR    0x00
#define RSR   0x04
#define FR    0x18
#define IBRD  0x24
#define FBRD  0x28
#define LCRH  0x2c
#define CR    0x30
#define IFLS  0x34
#define IMSC  0x38
#define RIS   0x3c
#define MIS   0x40
#define ICR   0x44
#define DMACR 0x48

#define DR_BE (1 << 10)
#define DR_OE (1 << 11)
#define RXFE  (1 << 4)
#define TXFF  (1 << 5)
#define RXFF  (1 << 6)
#define TXFE  (1 << 7)
#define BUSY  (1 << 3)

#define CTSM (1 << 1)
#define RX   (1 << 4)
#define TX   (1 << 5)
#define RT   (1 << 6)
#define BE   (1 << 9)
#define OE   (1 << 10)

#define UARTEN (1 << 0)
#define LBE    (1 << 7)
#define TXE    (1 << 8)
#define RXE    (1 << 9)
#define RTS    (1 << 11)
#define FEN    (1 << 4)

static struct pl011 *uart;
static struct {
	struct chardev dev;
	size_t len;
	char text[256];
	const char *typed;
} screen;
static unsigned room_calls;

static void screen_write(struct chardev *dev, const uint8_t *bytes, size_t len)
{
	/* Somebody types meanwhile; with the port's lock held this would hang. */
	if (screen.typed)
		pl011_input(uart, (const uint8_t *)screen.typed, 1);
	for (size_t i = 0; i < len; i++)
		screen.text[screen.len++ % (sizeof(screen.text) - 1)] = (char)bytes[i];
}

static void on_room(void *opaque)
{
	room_calls++;
	/* The port's lock isn't held: this would hang otherwise. */
	if (opaque)
		pl011_input(uart, opaque, 1);
}

static void setup(void)
{
	struct err err = { "" };

	guest_init();
	screen.dev.write = screen_write;
	cr_assert_eq(pl011_create(&uart, &bus, BASE, &wire.line, &screen.dev, &err), 0);
}

static void teardown(void)
{
	pl011_destroy(uart);
	guest_finish();
}

TestSuite(pl011, .init = setup, .fini = teardown, .timeout = 60);

static size_t type(const char *text)
{
	return pl011_input(uart, (const uint8_t *)text, strlen(text));
}

static void enable(uint32_t lcr_h)
{
	out(LCRH, lcr_h);
	out(CR, UARTEN | TXE | RXE);
}

Test(pl011, after_power_on_it_is_idle)
{
	expect_identity(0x00341011);
	cr_expect_eq(in(FR) & (RXFE | RXFF | TXFE | TXFF | BUSY), RXFE | TXFE);
	cr_expect_eq(in(CR), TXE | RXE);
	cr_expect_eq(in(IFLS), 0x12);
	cr_expect_eq(in(RIS), 0);
	cr_expect_eq(in(IMSC), 0);
	cr_expect_eq(in(DR), 0);
	cr_expect_not(wire.level);
}

Test(pl011, one_may_type_while_the_reader_of_the_output_pauses)
{
	enable(FEN);
	screen.typed = "x";
	out(DR, 'a');
	cr_expect_eq(in(DR), 'x');
	cr_expect_str_eq(screen.text, "a");
}

Test(pl011, output_arrives_in_order)
{
	/* An early console writes bytes, and doesn't enable the port. */
	for (const char *p = "Hello\n"; *p; p++)
		cr_assert(bus_write(&bus, BASE + DR, 1, (uint8_t)*p));
	enable(FEN);
	for (const char *p = "world\n"; *p; p++) {
		cr_assert_eq(in(FR) & (TXFF | BUSY), 0);
		cr_assert(bus_write(&bus, BASE + DR, 2, (uint8_t)*p));
	}
	cr_expect_str_eq(screen.text, "Hello\nworld\n");
}

Test(pl011, the_transmitter_interrupts_when_a_byte_left)
{
	enable(FEN);
	out(IMSC, TX);
	cr_expect_not(wire.level, "nothing was sent yet");
	out(DR, 'x');
	cr_expect(wire.level);
	cr_expect_eq(in(MIS), TX);
	out(ICR, TX);
	cr_expect_not(wire.level);
	out(DR, 'y');
	cr_expect(wire.level);
	out(IMSC, 0);
	cr_expect_not(wire.level);
	cr_expect_eq(in(RIS), TX);
	cr_expect_eq(in(MIS), 0);
}

Test(pl011, input_interrupts_until_it_is_read)
{
	enable(FEN);
	out(IMSC, RX | RT);
	cr_expect_eq(type("ab"), 2);
	cr_expect(wire.level);
	cr_expect_eq(in(MIS), RT, "two bytes are below the trigger level");
	cr_expect_eq(in(FR) & (RXFE | RXFF), 0);
	cr_expect_eq(in(DR), 'a');
	cr_expect(wire.level);
	cr_expect_eq(in(DR), 'b');
	cr_expect_not(wire.level);
	cr_expect(in(FR)&RXFE);
	cr_expect_eq(in(DR), 0, "an empty FIFO gives nothing");
	cr_expect_eq(wire.rises, 1);
}

Test(pl011, the_trigger_level_is_a_part_of_32)
{
	static const unsigned level[] = { 4, 8, 16, 24, 28, 28, 28, 28 };

	enable(FEN);
	for (uint32_t i = 0; i < ARRAY_SIZE(level); i++) {
		out(IFLS, i << 3);
		for (unsigned n = 1; n <= 32; n++) {
			cr_assert_eq(type("x"), 1);
			cr_expect_eq(!!(in(RIS)&RX), n >= level[i], "%u bytes at IFLS %u", n, i);
		}
		cr_expect(in(FR)&RXFF);
		for (unsigned n = 32; n-- > 0;) {
			in(DR);
			cr_expect_eq(!!(in(RIS)&RX), n >= level[i], "%u bytes at IFLS %u", n, i);
		}
		cr_expect_eq(in(RIS)&RT, 0);
	}
	/* Without FIFOs one byte is all. */
	out(LCRH, 0);
	cr_expect_eq(type("ab"), 1);
	cr_expect_eq(in(RIS), RX | RT);
	cr_expect(in(FR)&RXFF);
}

Test(pl011, a_receiver_that_is_off_takes_nothing)
{
	pl011_on_room(uart, on_room, NULL);
	cr_expect_eq(type("early"), 0);
	pl011_break(uart);
	out(CR, UARTEN | TXE);
	cr_expect_eq(type("early"), 0);
	cr_expect_eq(room_calls, 0);
	out(CR, UARTEN | TXE | RXE);
	cr_expect_eq(room_calls, 1, "the person's bytes come when it is on");
	cr_expect_eq(in(RIS)&BE, 0);
	cr_expect(in(FR)&RXFE);
}

Test(pl011, a_paste_loses_nothing)
{
	static const char text[] = "0123456789abcdefghijklmnopqrstuvwxyz"
				   "0123456789abcdefghijklmnopqrstuvwxyz";
	char got[sizeof(text)] = "";
	size_t sent = 0, n = 0;

	pl011_on_room(uart, on_room, NULL);
	enable(FEN);
	while (n < sizeof(text) - 1) {
		sent += type(text + sent);
		cr_assert_leq(sent - n, 32);
		while (!(in(FR)&RXFE))
			got[n++] = (char)in(DR);
	}
	cr_expect_str_eq(got, text);
	cr_expect_eq(room_calls, 2, "once for each time that not all fitted");
}

Test(pl011, room_is_told_without_the_lock)
{
	enable(0);
	pl011_on_room(uart, on_room, "z");
	cr_expect_eq(type("ab"), 1);
	cr_expect_eq(in(DR), 'a');
	cr_expect_eq(room_calls, 1);
	cr_expect_eq(in(DR), 'z');
	cr_expect_eq(room_calls, 1);
}

Test(pl011, switching_fifos_empties_them)
{
	pl011_on_room(uart, on_room, NULL);
	enable(FEN);
	cr_expect_eq(type("0123456789abcdef0123456789abcdefX"), 32);
	out(LCRH, FEN | 0x60);
	cr_expect_eq(in(FR)&RXFE, 0, "other bits of LCR_H change nothing");
	out(LCRH, 0);
	cr_expect(in(FR)&RXFE);
	cr_expect_eq(in(RIS) & (RX | RT), 0);
	cr_expect_eq(room_calls, 1);
}

Test(pl011, a_break_marks_its_own_character)
{
	enable(FEN);
	out(IMSC, BE);
	type("a");
	pl011_break(uart);
	type("h");
	cr_expect(wire.level);
	cr_expect_eq(in(DR), 'a');
	cr_expect_eq(in(RSR), 0);
	cr_expect_eq(in(DR), DR_BE);
	cr_expect_eq(in(RSR), DR_BE >> 8);
	out(RSR, 0xff);
	cr_expect_eq(in(RSR), 0);
	cr_expect_eq(in(DR), 'h');
	out(ICR, BE);
	cr_expect_not(wire.level);
}

Test(pl011, loopback_keeps_to_itself)
{
	enable(FEN);
	cr_expect_eq(in(FR)&7, 7, "the other end is there");
	out(CR, UARTEN | TXE | RXE | LBE);
	cr_expect_eq(in(FR)&0x107, 0);
	out(ICR, 0x7ff);
	out(CR, UARTEN | TXE | RXE | LBE | RTS);
	cr_expect_eq(in(FR)&0x107, 1, "RTS comes back as CTS");
	cr_expect_eq(in(RIS), CTSM);
	cr_expect_eq(type("in"), 0, "nothing comes in");
	for (unsigned i = 0; i < 33; i++)
		out(DR, 'a' + i % 26);
	cr_expect_eq(screen.len, 0, "nothing leaves");
	cr_expect(in(RIS)&OE, "an overrun is the guest's own");
	cr_expect_eq(in(RSR), 8);
	cr_expect_eq(in(DR), DR_OE | 'a');
	cr_expect_eq(in(DR), 'b', "told once");
	out(RSR, 0);
	cr_expect_eq(in(RSR), 0);
}

Test(pl011, registers_keep_their_width)
{
	static const struct {
		unsigned reg;
		uint32_t mask;
	} kept[] = { { 0x20, 0xff }, { IBRD, 0xffff }, { FBRD, 0x3f },	{ LCRH, 0xff },
		     { CR, 0xff87 }, { IFLS, 0x3f },   { IMSC, 0x7ff }, { DMACR, 7 } };

	for (unsigned i = 0; i < ARRAY_SIZE(kept); i++) {
		out(kept[i].reg, UINT32_MAX);
		cr_expect_eq(in(kept[i].reg), kept[i].mask, "%#x", kept[i].reg);
	}
	access_everything(0x00341011);
}

Test(pl011, a_reset_is_as_power_on)
{
	enable(FEN);
	out(IMSC, 0x7ff);
	type("abc");
	cr_expect(wire.level);
	pl011_reset(uart);
	cr_expect_not(wire.level);
	cr_expect_eq(in(CR), TXE | RXE);
	cr_expect_eq(in(LCRH), 0);
	cr_expect_eq(in(IMSC), 0);
	cr_expect_eq(in(RIS), 0);
	cr_expect(in(FR)&RXFE);
}

Test(pl011, an_occupied_address_is_an_error_with_words)
{
	struct pl011 *second = NULL;
	struct err err = { "" };

	cr_expect_eq(pl011_create(&second, &bus, BASE, &wire.line, NULL, &err), -EEXIST);
	cr_expect_null(second);
	cr_expect_neq(err.text[0], '\0');
	pl011_destroy(NULL);
}
