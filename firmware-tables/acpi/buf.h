#ifndef FIRMWARE_TABLES_ACPI_BUF_H
#define FIRMWARE_TABLES_ACPI_BUF_H

/*
 * A growing byte buffer, little-endian, that the tables are written into.
 *
 * Running out of memory is remembered rather than returned: writers write on
 * into nothing, and the one who began checks acpi_buf_failed once at the end.
 * A builder then reads as the list of fields that it is. Owned by one thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct acpi_buf {
	uint8_t *data; /* owns */
	size_t len, capacity;
	bool failed;
};

/* Free the memory and be empty again. A zeroed struct is a valid empty buffer. */
void acpi_buf_finish(struct acpi_buf *buf);

/* True when memory ran out; the contents are then incomplete. */
bool acpi_buf_failed(const struct acpi_buf *buf);

/* Append a number of 1, 2, 4 or 8 bytes, or @len bytes, or @len zeros. */
void acpi_put8(struct acpi_buf *buf, uint8_t v);
void acpi_put16(struct acpi_buf *buf, uint16_t v);
void acpi_put32(struct acpi_buf *buf, uint32_t v);
void acpi_put64(struct acpi_buf *buf, uint64_t v);
void acpi_put_bytes(struct acpi_buf *buf, const void *bytes, size_t len);
void acpi_put_zeros(struct acpi_buf *buf, size_t len);

/* Pad with zeros until the length is a multiple of @alignment, a power of two. */
void acpi_buf_align(struct acpi_buf *buf, size_t alignment);

/* Insert @len bytes at @offset, which is at most the length; what follows moves up. */
void acpi_buf_insert(struct acpi_buf *buf, size_t offset, const void *bytes, size_t len);

/* Overwrite 4 or 8 bytes (or one) that were written before, at @offset. */
void acpi_patch8(struct acpi_buf *buf, size_t offset, uint8_t v);
void acpi_patch32(struct acpi_buf *buf, size_t offset, uint32_t v);
void acpi_patch64(struct acpi_buf *buf, size_t offset, uint64_t v);

/* The byte that makes @len bytes from @offset sum to 0 modulo 256. */
uint8_t acpi_buf_checksum(const struct acpi_buf *buf, size_t offset, size_t len);

#endif
