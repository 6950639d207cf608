/*
 * A guest to type at: it names each byte that arrives on the console, and does what
 * some of them ask: o powers off, r resets, l prints lines for ever. The word "off"
 * on the command line: power off without being asked.
 */

#include "tests/guests/arch.h"
#include "tests/guests/guest.h"

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
	if (has_word(arch_cmdline(), "off"))
		arch_power_off();
	for (;;) {
		int input = arch_input();

		if (input == ARCH_BREAK)
			print("<break>\n");
		else if (input != ARCH_NO_INPUT)
			obey((uint8_t)input);
	}
}
