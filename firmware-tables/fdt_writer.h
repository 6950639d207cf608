#ifndef FIRMWARE_TABLES_FDT_WRITER_H
#define FIRMWARE_TABLES_FDT_WRITER_H

/*
 * Writing a device tree front to back with libfdt into a buffer that grows.
 *
 * Running out of memory is remembered rather than returned: writers write on
 * into nothing, and fdt_writer_close says so once at the end. libfdt's other
 * errors mean a wrong order of calls: our bug, asserted. Owned by one thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fdt_writer {
	void *fdt; /* owns */
	int size;
	bool failed;
};

/* Begin the tree: an empty memory reservation block. The root node is the caller's to open. */
void fdt_writer_open(struct fdt_writer *w);

/*
 * End it, after the root node was closed. Returns 0, and *@ret_data is the
 * caller's to free; or -ENOMEM.
 */
int fdt_writer_close(struct fdt_writer *w, void **ret_data, size_t *ret_size);

/* Open a node "@name", or "@name@unit" with @unit in hexadecimal; close the innermost one. */
void fdt_open(struct fdt_writer *w, const char *name);
void fdt_open_at(struct fdt_writer *w, const char *name, uint64_t unit);
void fdt_close(struct fdt_writer *w);

/* Properties of the innermost node, before its first child. */
void fdt_put_bytes(struct fdt_writer *w, const char *name, const void *bytes, size_t len);
void fdt_put_flag(struct fdt_writer *w, const char *name);
void fdt_put_string(struct fdt_writer *w, const char *name, const char *text);
void fdt_put_u32(struct fdt_writer *w, const char *name, uint32_t value);
void fdt_put_u64(struct fdt_writer *w, const char *name, uint64_t value);
/* Two strings, as a compatible with its more general second. */
void fdt_put_strings(struct fdt_writer *w, const char *name, const char *first, const char *second);

/* The longest list of cells that fits: an interrupt-map's. */
#define FDT_MAX_CELLS 160

/* A list of 32-bit cells, collected and then put as one property. Zero-initialised = empty. */
struct fdt_cells {
	unsigned count;
	uint32_t cell[FDT_MAX_CELLS];
};

/* Append one cell, or two for a 64-bit number. More than FDT_MAX_CELLS is our bug. */
void fdt_cell(struct fdt_cells *cells, uint32_t value);
void fdt_cell64(struct fdt_cells *cells, uint64_t value);
void fdt_put_cells(struct fdt_writer *w, const char *name, const struct fdt_cells *cells);

#endif
