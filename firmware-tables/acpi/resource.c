#include "firmware-tables/acpi/aml.h"

#include <assert.h>
#include "vmm/base/types.h"

/*
 * Resource templates: a buffer of descriptors (ACPI 6.3, 6.4). Small ones have
 * their length in the tag's low bits, large ones as 16 bits after the tag,
 * tag and length not counted.
 */

enum {
	RES_IO = 0x47,	/* small, 7 bytes */
	RES_END = 0x79, /* small, 1 byte */
	RES_MEMORY32_FIXED = 0x86,
	RES_DWORD_SPACE = 0x87,
	RES_WORD_SPACE = 0x88,
	RES_EXTENDED_INTERRUPT = 0x89,
	RES_QWORD_SPACE = 0x8a,
};

enum {
	SPACE_MEMORY = 0,
	SPACE_BUS = 2,
};

/* Address space descriptors' general flags; bit 0 clear: the bridge produces the range. */
#define SPACE_CONSUMER	(1 << 0)
#define SPACE_MIN_FIXED (1 << 2)
#define SPACE_MAX_FIXED (1 << 3)
#define SPACE_FIXED	(SPACE_MIN_FIXED | SPACE_MAX_FIXED)
#define MEMORY_WRITABLE (1 << 0)

/* Extended interrupt's flags; level, active low and shared would be bits 1, 2, 3 each off or on. */
#define INTERRUPT_CONSUMER (1 << 0)
#define INTERRUPT_EDGE	   (1 << 1)

size_t aml_open_resources(struct acpi_buf *buf, const char *name)
{
	aml_name(buf, name);
	return aml_open_buffer(buf);
}

void aml_close_resources(struct acpi_buf *buf, size_t mark)
{
	struct acpi_buf size = { 0 };

	acpi_put8(buf, RES_END);
	acpi_put8(buf, 0); /* a checksum of 0 means "don't check" */

	/* The buffer's size is the first thing in the package, known only now. */
	aml_int(&size, buf->len - mark);
	buf->failed |= acpi_buf_failed(&size);
	acpi_buf_insert(buf, mark, size.data, size.len);
	acpi_buf_finish(&size);
	aml_close(buf, mark);
}

void aml_res_io(struct acpi_buf *buf, uint16_t port, uint8_t len)
{
	acpi_put8(buf, RES_IO);
	acpi_put8(buf, 1); /* decodes 16 bits */
	acpi_put16(buf, port);
	acpi_put16(buf, port);
	acpi_put8(buf, 1); /* alignment */
	acpi_put8(buf, len);
}

/* A word, dword or qword address space descriptor without translation; @width in bytes. */
static void put_space(struct acpi_buf *buf, uint8_t tag, unsigned width, uint8_t type,
		      uint8_t general_flags, uint8_t type_flags, uint64_t base, uint64_t size)
{
	const uint64_t fields[] = { 0 /* granularity */, base, base + size - 1, 0 /* offset */,
				    size };

	assert(size && base + size - 1 >= base);
	acpi_put8(buf, tag);
	acpi_put16(buf, (uint16_t)(3 + ARRAY_SIZE(fields) * width));
	acpi_put8(buf, type);
	acpi_put8(buf, general_flags);
	acpi_put8(buf, type_flags);
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		le64 wire = le64_from(fields[i]);

		assert(width == 8 || fields[i] >> (8 * width) == 0);
		acpi_put_bytes(buf, &wire, width);
	}
}

void aml_res_memory(struct acpi_buf *buf, uint64_t base, uint64_t size)
{
	if (base + size > UINT32_MAX) {
		put_space(buf, RES_QWORD_SPACE, 8, SPACE_MEMORY, SPACE_FIXED | SPACE_CONSUMER,
			  MEMORY_WRITABLE, base, size);
		return;
	}
	acpi_put8(buf, RES_MEMORY32_FIXED);
	acpi_put16(buf, 9);
	acpi_put8(buf, MEMORY_WRITABLE);
	acpi_put32(buf, (uint32_t)base);
	acpi_put32(buf, (uint32_t)size);
}

void aml_res_interrupt(struct acpi_buf *buf, uint32_t gsi)
{
	acpi_put8(buf, RES_EXTENDED_INTERRUPT);
	acpi_put16(buf, 6);
	acpi_put8(buf, INTERRUPT_CONSUMER | INTERRUPT_EDGE);
	acpi_put8(buf, 1); /* how many */
	acpi_put32(buf, gsi);
}

void aml_res_bus_window(struct acpi_buf *buf, uint16_t first, uint16_t last)
{
	put_space(buf, RES_WORD_SPACE, 2, SPACE_BUS, SPACE_FIXED, 0, first, last - first + 1u);
}

void aml_res_memory_window(struct acpi_buf *buf, uint64_t base, uint64_t size)
{
	bool low = base + size - 1 <= UINT32_MAX;

	put_space(buf, low ? RES_DWORD_SPACE : RES_QWORD_SPACE, low ? 4 : 8, SPACE_MEMORY,
		  SPACE_FIXED, MEMORY_WRITABLE, base, size);
}
