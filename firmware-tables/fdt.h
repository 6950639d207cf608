#ifndef FIRMWARE_TABLES_FDT_H
#define FIRMWARE_TABLES_FDT_H

/*
 * The flattened device tree of an arm machine (Devicetree Specification 0.4),
 * in the bindings that Linux documents.
 */

#include "vmm/base/err.h"
#include "firmware-tables/platform.h"

struct fdt_blob {
	uint8_t *data; /* owns */
	size_t size;
};

/*
 * Build the tree of @platform, which has a GIC. @boot is what /chosen tells the
 * kernel; NULL: only where its console is. Any thread; both are read only.
 * Returns 0, -ENOMEM, or -E2BIG with words in @err. fdt_blob_finish frees.
 */
int fdt_build(struct fdt_blob *blob, const struct platform *platform,
	      const struct platform_boot *boot, struct err *err);

/* Free @blob's memory and zero it; accepts NULL and a zeroed blob. */
void fdt_blob_finish(struct fdt_blob *blob);

#endif
