#include "firmware-tables/acpi/buf.h"

#include <stdlib.h>
#include <string.h>
#include "vmm/base/types.h"

void acpi_buf_finish(struct acpi_buf *buf)
{
	if (!buf)
		return;
	free(buf->data);
	*buf = (struct acpi_buf){ 0 };
}

bool acpi_buf_failed(const struct acpi_buf *buf)
{
	return buf->failed;
}

/* Make room for @len more bytes; false (and failed for good) without memory. */
static bool buf_reserve(struct acpi_buf *buf, size_t len)
{
	if (buf->failed)
		return false;
	if (len <= buf->capacity - buf->len)
		return true;

	size_t capacity = MAX(buf->capacity * 2, ALIGN_UP(buf->len + len, (size_t)4096));
	uint8_t *data = realloc(buf->data, capacity);

	if (!data) {
		buf->failed = true;
		return false;
	}
	buf->data = data;
	buf->capacity = capacity;
	return true;
}

void acpi_put_bytes(struct acpi_buf *buf, const void *bytes, size_t len)
{
	if (!len || !buf_reserve(buf, len))
		return;
	memcpy(buf->data + buf->len, bytes, len);
	buf->len += len;
}

void acpi_put_zeros(struct acpi_buf *buf, size_t len)
{
	if (!len || !buf_reserve(buf, len))
		return;
	memset(buf->data + buf->len, 0, len);
	buf->len += len;
}

void acpi_put8(struct acpi_buf *buf, uint8_t v)
{
	acpi_put_bytes(buf, &v, 1);
}

void acpi_put16(struct acpi_buf *buf, uint16_t v)
{
	le16 wire = le16_from(v);

	acpi_put_bytes(buf, &wire, sizeof(wire));
}

void acpi_put32(struct acpi_buf *buf, uint32_t v)
{
	le32 wire = le32_from(v);

	acpi_put_bytes(buf, &wire, sizeof(wire));
}

void acpi_put64(struct acpi_buf *buf, uint64_t v)
{
	le64 wire = le64_from(v);

	acpi_put_bytes(buf, &wire, sizeof(wire));
}

void acpi_buf_align(struct acpi_buf *buf, size_t alignment)
{
	acpi_put_zeros(buf, ALIGN_UP(buf->len, alignment) - buf->len);
}

void acpi_buf_insert(struct acpi_buf *buf, size_t offset, const void *bytes, size_t len)
{
	if (!len || !buf_reserve(buf, len))
		return;
	memmove(buf->data + offset + len, buf->data + offset, buf->len - offset);
	memcpy(buf->data + offset, bytes, len);
	buf->len += len;
}

static void buf_patch(struct acpi_buf *buf, size_t offset, const void *bytes, size_t len)
{
	if (!buf->failed)
		memcpy(buf->data + offset, bytes, len);
}

void acpi_patch8(struct acpi_buf *buf, size_t offset, uint8_t v)
{
	buf_patch(buf, offset, &v, 1);
}

void acpi_patch32(struct acpi_buf *buf, size_t offset, uint32_t v)
{
	le32 wire = le32_from(v);

	buf_patch(buf, offset, &wire, sizeof(wire));
}

void acpi_patch64(struct acpi_buf *buf, size_t offset, uint64_t v)
{
	le64 wire = le64_from(v);

	buf_patch(buf, offset, &wire, sizeof(wire));
}

uint8_t acpi_buf_checksum(const struct acpi_buf *buf, size_t offset, size_t len)
{
	uint8_t sum = 0;

	if (buf->failed)
		return 0;
	for (size_t i = 0; i < len; i++)
		sum = (uint8_t)(sum + buf->data[offset + i]);
	return (uint8_t)-sum;
}
