#include "firmware-tables/acpi/tables.h"

#include <assert.h>
#include "vmm/base/types.h"

/*
 * The tables without AML: FADT, MADT and MCFG.
 *
 * The machine is hardware-reduced (ACPI 6.3, 4.1): no PM timer, no PM1
 * registers, no SCI, no FACS, no PIC and no PIT. What is left of the fixed
 * hardware are three byte registers in port I/O: reset, sleep control and sleep
 * status.
 */

/* FADT (5.2.9), revision 6.3. */
#define FADT_REVISION	    6
#define FADT_MINOR_REVISION 3

/* IAPC_BOOT_ARCH (table 5-36); "8042" and "legacy devices" stay clear. */
#define FADT_NO_VGA	 (1 << 2)
#define FADT_NO_CMOS_RTC (1 << 5)

/* Flags (table 5-35). */
#define FADT_WBINVD		  (1 << 0)
#define FADT_PROC_C1		  (1 << 2)
#define FADT_PWR_BUTTON_IS_DEVICE (1 << 4) /* so there is no fixed-hardware power button */
#define FADT_SLP_BUTTON_IS_DEVICE (1 << 5) /* and no fixed-hardware sleep button */
#define FADT_RTC_WAKE_NOT_FIXED	  (1 << 6)
#define FADT_RESET_REG_SUPPORTED  (1 << 10)
#define FADT_HW_REDUCED		  (1 << 20)

#define MADT_LAPIC     0
#define MADT_IOAPIC    1
#define MADT_LAPIC_NMI 4

#define MADT_ENABLED (1 << 0)
#define NMI_LINT     1

/* xAPIC IDs have 8 bits, and 255 is the broadcast. */
#define XAPIC_MAX_ID 254

/* A generic address: one byte register in port I/O (5.2.3.2). */
static void put_port_register(struct acpi_buf *buf, uint64_t port)
{
	acpi_put8(buf, 1); /* system I/O */
	acpi_put8(buf, 8); /* bits */
	acpi_put8(buf, 0); /* bit offset */
	acpi_put8(buf, 1); /* accessed bytewise */
	acpi_put64(buf, port);
}

/* Fields in the table's order; the number in a comment is the offset of what follows. */
void acpi_write_fadt(struct acpi_buf *buf, const struct platform *platform, uint64_t dsdt)
{
	size_t table = acpi_table_begin(buf, "FACP", FADT_REVISION);

	acpi_put_zeros(buf, 109 - 36); /* 36: PM registers and their 32-bit addresses: none */
	acpi_put16(buf, FADT_NO_VGA | FADT_NO_CMOS_RTC);
	acpi_put8(buf, 0);
	acpi_put32(buf, FADT_WBINVD | FADT_PROC_C1 | FADT_PWR_BUTTON_IS_DEVICE |
				FADT_SLP_BUTTON_IS_DEVICE | FADT_RTC_WAKE_NOT_FIXED |
				FADT_RESET_REG_SUPPORTED | FADT_HW_REDUCED);
	put_port_register(buf, platform->reset_port); /* 116 */
	acpi_put8(buf, platform->reset_value);
	acpi_put16(buf, 0); /* 129: ARM_BOOT_ARCH */
	acpi_put8(buf, FADT_MINOR_REVISION);
	acpi_put64(buf, 0); /* 132: X_FIRMWARE_CTRL: no FACS */
	acpi_put64(buf, dsdt);
	acpi_put_zeros(buf, 244 - 148); /* 148: PM and GPE blocks: none */
	put_port_register(buf, platform->sleep_control_port);
	put_port_register(buf, platform->sleep_status_port);
	acpi_put64(buf, 0); /* 268: hypervisor vendor */
	assert(acpi_buf_failed(buf) || buf->len - table == ACPI_FADT_SIZE);
	acpi_table_end(buf, table);
}

static void write_cpu(struct acpi_buf *buf, uint32_t uid, uint32_t apic_id)
{
	/* Others would need x2APIC entries, and interrupt remapping to be reached by MSIs. */
	assert(apic_id <= XAPIC_MAX_ID && uid <= XAPIC_MAX_ID);
	acpi_put8(buf, MADT_LAPIC);
	acpi_put8(buf, 8);
	acpi_put8(buf, (uint8_t)uid);
	acpi_put8(buf, (uint8_t)apic_id);
	acpi_put32(buf, MADT_ENABLED);
}

/*
 * MADT (5.2.12). No interrupt source overrides: every GSI is the I/O APIC's pin
 * of the same number, and COM1's has the ISA default, edge and active high.
 */
void acpi_write_madt(struct acpi_buf *buf, const struct platform *platform)
{
	size_t table = acpi_table_begin(buf, "APIC", 5);

	acpi_put32(buf, (uint32_t)platform->lapic_base);
	acpi_put32(buf, 0); /* flags: no dual 8259 */

	for (unsigned i = 0; i < platform->num_cpus; i++)
		write_cpu(buf, i, platform->cpu_ids[i]);

	acpi_put8(buf, MADT_IOAPIC);
	acpi_put8(buf, 12);
	acpi_put8(buf, platform->ioapic_id);
	acpi_put8(buf, 0);
	acpi_put32(buf, (uint32_t)platform->ioapic_base);
	acpi_put32(buf, 0); /* its first GSI */

	/* NMIs arrive at LINT1 of every processor (UID of all ones). */
	acpi_put8(buf, MADT_LAPIC_NMI);
	acpi_put8(buf, 6);
	acpi_put8(buf, UINT8_MAX);
	acpi_put16(buf, 0); /* polarity and trigger as the bus has them */
	acpi_put8(buf, NMI_LINT);
	acpi_table_end(buf, table);
}

/* MCFG (PCI Firmware Specification 3.2, 4.1.2): segment 0, bus 0 to 0. */
void acpi_write_mcfg(struct acpi_buf *buf, const struct platform *platform)
{
	size_t table = acpi_table_begin(buf, "MCFG", 1);

	acpi_put64(buf, 0);
	acpi_put64(buf, platform->ecam.base);
	acpi_put16(buf, 0); /* segment */
	acpi_put8(buf, 0);  /* first bus */
	acpi_put8(buf, 0);  /* last bus */
	acpi_put32(buf, 0);
	acpi_table_end(buf, table);
}
