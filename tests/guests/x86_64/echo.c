/*
 * A guest to type at: it names each byte that arrives on COM1, and does what some
 * of them ask: o powers off, r resets, l prints lines for ever.
 */

#include "tests/guests/arch.h"
#include "tests/guests/x86_64/x86.h"

#define COM1	  0x3f8
#define COM1_LSR  (COM1 + 5)
#define LSR_DATA  0x01
#define LSR_BREAK 0x10

/* "<41>" for an A: it can't be mistaken for the terminal's own echo. */
static void print_byte(uint8_t byte)
{
	char text[] = "<00>\n";

	text[1] = "0123456789abcdef"[byte >> 4];
	text[2] = "0123456789abcdef"[byte & 15];
	print(text);
}

static void obey(uint8_t byte)
{
	print_byte(byte);
	switch (byte) {
	case 'o':
		arch_power_off();
		break;
	case 'r':
		arch_reset();
		break;
	case 'l':
		for (;;)
			print("moat guest: one line of many\n");
	}
}

void guest_main(void)
{
	print("moat guest: listening\n");
	for (;;) {
		uint8_t status = inb(COM1_LSR);

		if (!(status & LSR_DATA))
			continue;
		uint8_t byte = inb(COM1);

		if (status & LSR_BREAK)
			print("<break>\n");
		else
			obey(byte);
	}
}
