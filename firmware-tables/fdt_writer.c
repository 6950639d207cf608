#include "firmware-tables/fdt_writer.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_SIZE 4096
#define NODE_NAME  64

static void give_up(struct fdt_writer *w)
{
	free(w->fdt);
	w->fdt = NULL;
	w->failed = true;
}

/*
 * Whether the call that returned @result is to be made again: it lacked room,
 * and there is more now. A failed writer calls no more.
 */
static bool again(struct fdt_writer *w, int result)
{
	if (result == 0)
		return false;
	assert(result == -FDT_ERR_NOSPACE);

	int size = w->size * 2;
	void *bigger = malloc((size_t)size);

	if (!bigger) {
		give_up(w);
		return false;
	}
	/* It keeps strings at the end of the buffer, so realloc wouldn't do. */
	int r = fdt_resize(w->fdt, bigger, size);

	assert(r == 0);
	(void)r;
	free(w->fdt);
	w->fdt = bigger;
	w->size = size;
	return true;
}

void fdt_writer_open(struct fdt_writer *w)
{
	*w = (struct fdt_writer){ .fdt = malloc(FIRST_SIZE), .size = FIRST_SIZE };
	if (!w->fdt || fdt_create(w->fdt, w->size) < 0 || fdt_finish_reservemap(w->fdt) < 0)
		give_up(w);
}

int fdt_writer_close(struct fdt_writer *w, void **ret_data, size_t *ret_size)
{
	while (!w->failed && again(w, fdt_finish(w->fdt)))
		;
	if (w->failed)
		return -ENOMEM;
	*ret_data = w->fdt;
	*ret_size = fdt_totalsize(w->fdt);
	return 0;
}

void fdt_open(struct fdt_writer *w, const char *name)
{
	while (!w->failed && again(w, fdt_begin_node(w->fdt, name)))
		;
}

void fdt_open_at(struct fdt_writer *w, const char *name, uint64_t unit)
{
	char full[NODE_NAME];
	int len = snprintf(full, sizeof(full), "%s@%" PRIx64, name, unit);

	assert(len < (int)sizeof(full));
	(void)len;
	fdt_open(w, full);
}

void fdt_close(struct fdt_writer *w)
{
	while (!w->failed && again(w, fdt_end_node(w->fdt)))
		;
}

void fdt_put_bytes(struct fdt_writer *w, const char *name, const void *bytes, size_t len)
{
	assert(len <= INT_MAX / 2);
	while (!w->failed && again(w, fdt_property(w->fdt, name, bytes, (int)len)))
		;
}

void fdt_put_flag(struct fdt_writer *w, const char *name)
{
	fdt_put_bytes(w, name, "", 0);
}

void fdt_put_string(struct fdt_writer *w, const char *name, const char *text)
{
	fdt_put_bytes(w, name, text, strlen(text) + 1);
}

void fdt_put_strings(struct fdt_writer *w, const char *name, const char *first, const char *second)
{
	char both[2 * NODE_NAME];
	/* snprintf writes the NUL in the middle as any other character. */
	int len = snprintf(both, sizeof(both), "%s%c%s", first, '\0', second);

	assert(len < (int)sizeof(both));
	fdt_put_bytes(w, name, both, (size_t)len + 1);
}

void fdt_put_u32(struct fdt_writer *w, const char *name, uint32_t value)
{
	fdt32_t cell = cpu_to_fdt32(value);

	fdt_put_bytes(w, name, &cell, sizeof(cell));
}

void fdt_put_u64(struct fdt_writer *w, const char *name, uint64_t value)
{
	fdt64_t cells = cpu_to_fdt64(value);

	fdt_put_bytes(w, name, &cells, sizeof(cells));
}

void fdt_cell(struct fdt_cells *cells, uint32_t value)
{
	assert(cells->count < FDT_MAX_CELLS);
	cells->cell[cells->count++] = cpu_to_fdt32(value);
}

void fdt_cell64(struct fdt_cells *cells, uint64_t value)
{
	fdt_cell(cells, (uint32_t)(value >> 32));
	fdt_cell(cells, (uint32_t)value);
}

void fdt_put_cells(struct fdt_writer *w, const char *name, const struct fdt_cells *cells)
{
	fdt_put_bytes(w, name, cells->cell, cells->count * sizeof(cells->cell[0]));
}
