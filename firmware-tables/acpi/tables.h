#ifndef FIRMWARE_TABLES_ACPI_TABLES_H
#define FIRMWARE_TABLES_ACPI_TABLES_H

/* Inside acpi/: one function for each table, appending it to the blob. */

#include "firmware-tables/acpi/buf.h"
#include "firmware-tables/platform.h"

#define ACPI_HEADER_SIZE 36
#define ACPI_FADT_SIZE	 276

/*
 * Begin a table with the standard header (ACPI 6.3, 5.2.6); returns its offset.
 * acpi_table_end fills in length and checksum.
 */
size_t acpi_table_begin(struct acpi_buf *buf, const char *signature, uint8_t revision);
void acpi_table_end(struct acpi_buf *buf, size_t start);
/* The same for a table of @length bytes that others already follow. */
void acpi_table_seal(struct acpi_buf *buf, size_t start, size_t length);

/* fixed.c; @dsdt is the DSDT's guest-physical address. */
void acpi_write_fadt(struct acpi_buf *buf, const struct platform *platform, uint64_t dsdt);
void acpi_write_madt(struct acpi_buf *buf, const struct platform *platform);
void acpi_write_mcfg(struct acpi_buf *buf, const struct platform *platform);

/* dsdt.c */
void acpi_write_dsdt(struct acpi_buf *buf, const struct platform *platform);

/* viot.c; the platform has at least one IOMMU. */
void acpi_write_viot(struct acpi_buf *buf, const struct platform *platform);

#endif
