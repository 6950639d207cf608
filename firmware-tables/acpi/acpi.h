#ifndef FIRMWARE_TABLES_ACPI_ACPI_H
#define FIRMWARE_TABLES_ACPI_ACPI_H

/*
 * All ACPI tables of a platform in one blob that is placed at a chosen
 * guest-physical address: RSDP first (the blob's first byte), then XSDT, FADT,
 * DSDT, MADT, MCFG, and VIOT when there is an IOMMU.
 */

#include "vmm/base/err.h"
#include "firmware-tables/platform.h"

/* A table inside the blob, for --dump-tables and the tests. */
struct acpi_table_ref {
	char signature[5]; /* NUL-terminated */
	size_t offset, length;
};

#define ACPI_MAX_TABLES 16

/*
 * SLP_TYP of "off" (S5): the guest writes this << 2 | 1 << 5 into the sleep
 * control register (ACPI 6.3, 4.8.3.7).
 */
#define ACPI_SLEEP_TYPE_S5 5

struct acpi_blob {
	uint8_t *data; /* owns */
	size_t size;
	unsigned count;
	struct acpi_table_ref table[ACPI_MAX_TABLES];
};

/*
 * Build the tables for @platform as they must look at guest-physical @base.
 * Returns 0, -ENOMEM, or -E2BIG with words in @err. acpi_blob_finish frees.
 */
int acpi_build(struct acpi_blob *blob, const struct platform *platform, uint64_t base,
	       struct err *err);
void acpi_blob_finish(struct acpi_blob *blob);

#endif
