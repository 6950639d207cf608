#include "arch/x86_64/x86.h"

#include <errno.h>
#include <string.h>

/*
 * Power registers: the sleep and reset registers of hardware-reduced ACPI
 * (ACPI 6.5, 4.8.3.6 and 4.8.3.7), and of the keyboard controller only its reset
 * pulse, the way that kernels without ACPI take. The power button is a generic
 * event device: an edge on its interrupt, and AML notifies the button.
 */

#define SLEEP_ENABLE	 0x20 /* SLP_EN */
#define SLEEP_TYPE_SHIFT 2
#define SLEEP_TYPE_MASK	 0x07
#define SLEEP_TYPE_OFF	 5 /* what _S5 says */
#define KBD_PULSE_RESET	 0xfe

static uint64_t zero_read(void *opaque, uint64_t offset, unsigned size)
{
	/* No wake status; and the keyboard controller is always ready for a command. */
	return 0;
}

static void power_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct arch *arch = opaque;
	uint8_t byte = (uint8_t)value;

	switch (X86_PORT_POWER + offset) {
	case X86_PORT_SLEEP_CONTROL:
		if ((byte & SLEEP_ENABLE) &&
		    (byte >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK) == SLEEP_TYPE_OFF)
			power_request(arch->power, POWER_OFF);
		break;
	case X86_PORT_RESET:
		if (byte == X86_RESET_VALUE)
			power_request(arch->power, POWER_RESET);
		break;
	}
}

static void kbd_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct arch *arch = opaque;

	if ((uint8_t)value == KBD_PULSE_RESET)
		power_request(arch->power, POWER_RESET);
}

static const struct bus_ops power_ops = { .read = zero_read, .write = power_write };
static const struct bus_ops kbd_ops = { .read = zero_read, .write = kbd_write };

int x86_power_create(struct arch *arch, struct err *err)
{
	const struct bus_window windows[] = {
		{ X86_PORT_POWER, 3, &power_ops, arch, "power" },
		{ X86_PORT_KBD_STATUS, 1, &kbd_ops, arch, "keyboard reset" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(windows); i++) {
		int r = bus_add(arch->pio, &windows[i]);

		if (r < 0)
			return err_set(err, -r, "ports of %s: %s", windows[i].name, strerror(-r));
	}
	return 0;
}

void x86_power_destroy(struct arch *arch)
{
	bus_remove(arch->pio, X86_PORT_POWER, arch);
	bus_remove(arch->pio, X86_PORT_KBD_STATUS, arch);
}
