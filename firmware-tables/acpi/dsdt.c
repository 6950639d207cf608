#include "firmware-tables/acpi/tables.h"

#include <stdio.h>
#include "firmware-tables/acpi/acpi.h"
#include "firmware-tables/acpi/aml.h"
#include "vmm/base/types.h"

/*
 * The namespace: what a guest can't find by asking PCI.
 *
 *	\_S5			the value that means "off" to the sleep register
 *	\_SB.PCI0		the host bridge, its windows
 *	\_SB.MBRD		addresses that nobody else may use: ECAM, power and reset
 *	\_SB.COM1		the serial port
 *	\_SB.VRnn		virtio-mmio devices, as Linux's LNRO0005
 *	\_SB.PWRB, .GED0	the power button, and the interrupt that says it was pressed
 *	\_SB.Cnnn		processors, matched to the MADT by _UID
 *
 * A device's window must lie in no other _CRS. Linux resolves the address in a
 * VIOT node to the first device whose _CRS contains it, and a host bridge's
 * windows count.
 */

/* Of a hardware-reduced machine's button: "pressed" (ACPI 6.3, 4.8.2.2.2). */
#define NOTIFY_PRESSED 0x80

#define PCI_SLOTS 32

/*
 * _OSC: the guest may control everything that it asks for (hot-plug, AER, PME,
 * capabilities); there is no firmware that would do it instead. Only an unknown
 * interface is refused, by bit 2 of the first dword (ACPI 6.3, 6.2.11).
 */
static void write_osc(struct acpi_buf *buf)
{
	size_t method = aml_open_method(buf, "_OSC", 4, true);

	aml_dword_field_of_arg(buf, 3, 0, "CDW1");

	size_t unknown = aml_open_if(buf);

	aml_not(buf);
	aml_equal(buf);
	aml_arg(buf, 0);
	aml_uuid(buf, "33DB4D5B-1FF7-401C-9657-7441C03DD766");
	aml_or(buf);
	aml_path(buf, "CDW1");
	aml_int(buf, 1 << 2);
	aml_path(buf, "CDW1");
	aml_close(buf, unknown);

	aml_return(buf);
	aml_arg(buf, 3);
	aml_close(buf, method);
}

/*
 * _PRT: which interrupt the pins of each slot are wired to (ACPI 6.3, 6.2.13).
 * Without a link device they are level-triggered and active low.
 */
static void write_routing(struct acpi_buf *buf, const struct platform *platform)
{
	if (!platform->pci_intx_gsi[0])
		return;
	aml_name(buf, "_PRT");

	size_t table = aml_open_package(buf, PCI_SLOTS * PLATFORM_NUM_INTX);

	for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
		for (unsigned pin = 0; pin < PLATFORM_NUM_INTX; pin++) {
			size_t route = aml_open_package(buf, 4);

			aml_int(buf, (uint64_t)slot << 16 | 0xffff);
			aml_int(buf, pin);
			aml_int(buf, 0);
			aml_int(buf, platform->pci_intx_gsi[(slot + pin) % PLATFORM_NUM_INTX]);
			aml_close(buf, route);
		}
	}
	aml_close(buf, table);
}

static void write_host_bridge(struct acpi_buf *buf, const struct platform *platform)
{
	size_t device = aml_open_device(buf, "PCI0");

	aml_name_eisa_id(buf, "_HID", "PNP0A08");
	aml_name_eisa_id(buf, "_CID", "PNP0A03");
	aml_name_int(buf, "_UID", 0);
	aml_name_int(buf, "_SEG", 0);
	aml_name_int(buf, "_BBN", 0);
	aml_name_int(buf, "_CBA", platform->ecam.base);
	aml_name_int(buf, "_CCA", 1);

	size_t crs = aml_open_resources(buf, "_CRS");

	aml_res_bus_window(buf, 0, 0);
	aml_res_io(buf, 0xcf8, 8);
	if (platform->pci_mem32.size)
		aml_res_memory_window(buf, platform->pci_mem32.base, platform->pci_mem32.size);
	if (platform->pci_mem64.size)
		aml_res_memory_window(buf, platform->pci_mem64.base, platform->pci_mem64.size);
	aml_close_resources(buf, crs);
	write_routing(buf, platform);
	write_osc(buf);
	aml_close(buf, device);
}

/* Linux trusts MCFG only when a motherboard device reserves what it describes. */
static void write_motherboard(struct acpi_buf *buf, const struct platform *platform)
{
	size_t device = aml_open_device(buf, "MBRD");

	aml_name_eisa_id(buf, "_HID", "PNP0C02");
	aml_name_int(buf, "_UID", 0);

	size_t crs = aml_open_resources(buf, "_CRS");

	if (platform->ecam.size)
		aml_res_memory(buf, platform->ecam.base, platform->ecam.size);
	aml_res_io(buf, (uint16_t)platform->reset_port, 1);
	aml_res_io(buf, (uint16_t)platform->sleep_control_port, 1);
	if (platform->sleep_status_port != platform->sleep_control_port)
		aml_res_io(buf, (uint16_t)platform->sleep_status_port, 1);
	aml_close_resources(buf, crs);
	aml_close(buf, device);
}

static void write_serial(struct acpi_buf *buf, const struct platform *platform)
{
	if (!platform->serial.size)
		return;

	size_t device = aml_open_device(buf, "COM1");

	aml_name_eisa_id(buf, "_HID", "PNP0501");
	aml_name_int(buf, "_UID", 1);
	aml_name_string(buf, "_DDN", "COM1");

	size_t crs = aml_open_resources(buf, "_CRS");

	aml_res_io(buf, (uint16_t)platform->serial.base, (uint8_t)platform->serial.size);
	aml_res_interrupt(buf, platform->serial_gsi);
	aml_close_resources(buf, crs);
	aml_close(buf, device);
}

static void write_virtio_mmio(struct acpi_buf *buf, const struct platform *platform)
{
	for (unsigned i = 0; i < platform->num_mmio; i++) {
		const struct platform_mmio_dev *dev = &platform->mmio[i];
		char name[5];

		snprintf(name, sizeof(name), "VR%02X", i & 0xff);

		size_t device = aml_open_device(buf, name);

		aml_name_string(buf, "_HID", "LNRO0005");
		aml_name_int(buf, "_UID", i);
		aml_name_int(buf, "_CCA", 1);

		size_t crs = aml_open_resources(buf, "_CRS");

		aml_res_memory(buf, dev->base, dev->size);
		aml_res_interrupt(buf, dev->gsi);
		aml_close_resources(buf, crs);
		aml_close(buf, device);
	}
}

static void write_power_button(struct acpi_buf *buf, const struct platform *platform)
{
	size_t button = aml_open_device(buf, "PWRB");

	aml_name_eisa_id(buf, "_HID", "PNP0C0C");
	aml_name_int(buf, "_UID", 0);
	aml_close(buf, button);

	size_t ged = aml_open_device(buf, "GED0");

	aml_name_string(buf, "_HID", "ACPI0013");
	aml_name_int(buf, "_UID", 0);

	size_t crs = aml_open_resources(buf, "_CRS");

	aml_res_interrupt(buf, platform->power_button_gsi);
	aml_close_resources(buf, crs);

	/* The guest calls it with the number of the interrupt that fired. */
	size_t method = aml_open_method(buf, "_EVT", 1, true);
	size_t pressed = aml_open_if(buf);

	aml_equal(buf);
	aml_arg(buf, 0);
	aml_int(buf, platform->power_button_gsi);
	aml_notify(buf, "\\_SB.PWRB", NOTIFY_PRESSED);
	aml_close(buf, pressed);
	aml_close(buf, method);
	aml_close(buf, ged);
}

static void write_cpus(struct acpi_buf *buf, const struct platform *platform)
{
	for (unsigned i = 0; i < platform->num_cpus; i++) {
		char name[5];

		snprintf(name, sizeof(name), "C%03X", i & 0xfff);

		size_t device = aml_open_device(buf, name);

		aml_name_string(buf, "_HID", "ACPI0007");
		aml_name_int(buf, "_UID", i);
		aml_close(buf, device);
	}
}

/* _S5's first element goes into SLP_TYP; the rest is unused (ACPI 6.3, 7.4.2). */
static void write_sleep_states(struct acpi_buf *buf)
{
	aml_name(buf, "\\_S5");

	size_t package = aml_open_package(buf, 4);

	aml_int(buf, ACPI_SLEEP_TYPE_S5);
	aml_int(buf, 0);
	aml_int(buf, 0);
	aml_int(buf, 0);
	aml_close(buf, package);
}

void acpi_write_dsdt(struct acpi_buf *buf, const struct platform *platform)
{
	/* Revision 2: integers have 64 bits. */
	size_t table = acpi_table_begin(buf, "DSDT", 2);

	write_sleep_states(buf);

	size_t scope = aml_open_scope(buf, "\\_SB");

	write_host_bridge(buf, platform);
	write_motherboard(buf, platform);
	write_serial(buf, platform);
	write_virtio_mmio(buf, platform);
	write_power_button(buf, platform);
	write_cpus(buf, platform);
	aml_close(buf, scope);
	acpi_table_end(buf, table);
}
