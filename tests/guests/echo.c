/*
 * A guest to type at: it names each byte that arrives on COM1, and does what some
 * of them ask: o powers off, r resets, l prints lines for ever.
 */

#include "guest.h"

#define COM1	  0x3f8
#define COM1_FCR  (COM1 + 2)
#define COM1_LSR  (COM1 + 5)
#define FCR_FIFO  0x01
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

static void obey(uint8_t byte, const struct start_info *info)
{
	print_byte(byte);
	switch (byte) {
	case 'o':
		acpi_power_off(info->rsdp);
		break;
	case 'r':
		acpi_reset(info->rsdp);
		break;
	case 'l':
		for (;;)
			print("moat guest: one line of many\n");
	}
}

void guest_main(const struct start_info *info)
{
	outb(COM1_FCR, FCR_FIFO);
	print("moat guest: listening\n");
	for (;;) {
		uint8_t status = inb(COM1_LSR);

		if (!(status & LSR_DATA))
			continue;
		uint8_t byte = inb(COM1);

		if (status & LSR_BREAK)
			print("<break>\n");
		else
			obey(byte, info);
	}
}
