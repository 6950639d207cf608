#include "firmware-tables/acpi/aml.h"

#include <assert.h>
#include <ctype.h>
#include <string.h>
#include "vmm/base/types.h"

/*
 * Encoding in short. A term is an opcode (0x5b announces a two-byte one) and
 * its operands. A package is an opcode, PkgLength, contents; PkgLength counts
 * itself, and its first byte says in bits 7:6 how many bytes follow:
 *
 *	one byte:   00 LLLLLL                   length up to 63
 *	more:       NN 00 LLLL, LLLLLLLL ...    4 + 8 * NN bits, low bits first
 *
 * All names and numbers come from moat itself, so what can't be encoded is our
 * bug and asserted.
 */

enum aml_op {
	AML_ZERO = 0x00,
	AML_ONE = 0x01,
	AML_NAME = 0x08,
	AML_BYTE = 0x0a,
	AML_WORD = 0x0b,
	AML_DWORD = 0x0c,
	AML_STRING = 0x0d,
	AML_QWORD = 0x0e,
	AML_SCOPE = 0x10,
	AML_BUFFER = 0x11,
	AML_PACKAGE = 0x12,
	AML_METHOD = 0x14,
	AML_DUAL_NAME = 0x2e,
	AML_MULTI_NAME = 0x2f,
	AML_EXT = 0x5b,
	AML_EXT_DEVICE = 0x82,
	AML_ARG0 = 0x68,
	AML_OR = 0x7d,
	AML_NOTIFY = 0x86,
	AML_CREATE_DWORD_FIELD = 0x8a,
	AML_LNOT = 0x92,
	AML_LEQUAL = 0x93,
	AML_IF = 0xa0,
	AML_RETURN = 0xa4,
};

#define AML_METHOD_SERIALIZED (1 << 3)

/* Names. */

static void put_segment(struct acpi_buf *buf, const char *segment, size_t len)
{
	char padded[4] = { '_', '_', '_', '_' };

	assert(len >= 1 && len <= sizeof(padded));
	memcpy(padded, segment, len);
	acpi_put_bytes(buf, padded, sizeof(padded));
}

void aml_path(struct acpi_buf *buf, const char *path)
{
	unsigned count = 1;

	if (*path == '\\') {
		acpi_put8(buf, '\\');
		path++;
	}
	for (const char *p = path; *p; p++)
		count += *p == '.';
	assert(count <= UINT8_MAX);
	if (count == 2) {
		acpi_put8(buf, AML_DUAL_NAME);
	} else if (count > 2) {
		acpi_put8(buf, AML_MULTI_NAME);
		acpi_put8(buf, (uint8_t)count);
	}
	for (; count; count--) {
		size_t len = strcspn(path, ".");

		put_segment(buf, path, len);
		path += len + 1;
	}
}

void aml_name(struct acpi_buf *buf, const char *name)
{
	acpi_put8(buf, AML_NAME);
	aml_path(buf, name);
}

/* Packages. */

size_t aml_open_scope(struct acpi_buf *buf, const char *path)
{
	acpi_put8(buf, AML_SCOPE);

	size_t mark = buf->len;

	aml_path(buf, path);
	return mark;
}

size_t aml_open_device(struct acpi_buf *buf, const char *name)
{
	acpi_put8(buf, AML_EXT);
	acpi_put8(buf, AML_EXT_DEVICE);

	size_t mark = buf->len;

	aml_path(buf, name);
	return mark;
}

size_t aml_open_method(struct acpi_buf *buf, const char *name, unsigned num_args, bool serialized)
{
	assert(num_args <= 7);
	acpi_put8(buf, AML_METHOD);

	size_t mark = buf->len;

	aml_path(buf, name);
	acpi_put8(buf, (uint8_t)(num_args | (serialized ? AML_METHOD_SERIALIZED : 0)));
	return mark;
}

size_t aml_open_package(struct acpi_buf *buf, uint8_t num_elements)
{
	acpi_put8(buf, AML_PACKAGE);

	size_t mark = buf->len;

	acpi_put8(buf, num_elements);
	return mark;
}

size_t aml_open_buffer(struct acpi_buf *buf)
{
	acpi_put8(buf, AML_BUFFER);
	return buf->len;
}

size_t aml_open_if(struct acpi_buf *buf)
{
	acpi_put8(buf, AML_IF);
	return buf->len;
}

void aml_close(struct acpi_buf *buf, size_t mark)
{
	size_t contents = buf->len - mark;
	uint8_t encoded[4];
	size_t width;

	if (contents + 1 < 1 << 6) {
		width = 1;
		encoded[0] = (uint8_t)(contents + 1);
	} else {
		/* The fewest bytes whose 4 + 8 * n bits hold the length, themselves included. */
		for (width = 2; contents + width >= (size_t)1 << (8 * width - 4); width++)
			;
		assert(width <= sizeof(encoded));

		size_t total = contents + width;

		encoded[0] = (uint8_t)((width - 1) << 6 | (total & 0xf));
		for (size_t i = 1; i < width; i++)
			encoded[i] = (uint8_t)(total >> (8 * i - 4));
	}
	acpi_buf_insert(buf, mark, encoded, width);
}

/* Objects. */

void aml_int(struct acpi_buf *buf, uint64_t v)
{
	if (v <= 1) {
		acpi_put8(buf, v ? AML_ONE : AML_ZERO);
	} else if (v <= UINT8_MAX) {
		acpi_put8(buf, AML_BYTE);
		acpi_put8(buf, (uint8_t)v);
	} else if (v <= UINT16_MAX) {
		acpi_put8(buf, AML_WORD);
		acpi_put16(buf, (uint16_t)v);
	} else if (v <= UINT32_MAX) {
		acpi_put8(buf, AML_DWORD);
		acpi_put32(buf, (uint32_t)v);
	} else {
		acpi_put8(buf, AML_QWORD);
		acpi_put64(buf, v);
	}
}

void aml_string(struct acpi_buf *buf, const char *text)
{
	acpi_put8(buf, AML_STRING);
	acpi_put_bytes(buf, text, strlen(text) + 1);
}

void aml_buffer(struct acpi_buf *buf, const void *bytes, size_t len)
{
	size_t mark = aml_open_buffer(buf);

	aml_int(buf, len);
	acpi_put_bytes(buf, bytes, len);
	aml_close(buf, mark);
}

static unsigned hex_digit(char c)
{
	assert(isxdigit((unsigned char)c));
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)((c | 0x20) - 'a' + 10);
}

/* Five bits a letter, four a digit, most significant byte first (ACPI 6.3, 19.3.4). */
void aml_eisa_id(struct acpi_buf *buf, const char *id)
{
	uint32_t v = 0;

	assert(strlen(id) == 7);
	for (int i = 0; i < 3; i++)
		v = v << 5 | (uint32_t)(id[i] - '@');
	for (int i = 3; i < 7; i++)
		v = v << 4 | hex_digit(id[i]);
	acpi_put8(buf, AML_DWORD);
	acpi_put32(buf, __builtin_bswap32(v));
}

/* Bytes of the first three groups are swapped (ACPI 6.3, 19.6.142). */
void aml_uuid(struct acpi_buf *buf, const char *uuid)
{
	static const uint8_t offset_of_byte[16] = { 6,	4,  2,	0,  11, 9,  16, 14,
						    19, 21, 24, 26, 28, 30, 32, 34 };
	uint8_t bytes[16];

	assert(strlen(uuid) == 36);
	for (size_t i = 0; i < sizeof(bytes); i++) {
		const char *digits = uuid + offset_of_byte[i];

		bytes[i] = (uint8_t)(hex_digit(digits[0]) << 4 | hex_digit(digits[1]));
	}
	aml_buffer(buf, bytes, sizeof(bytes));
}

void aml_name_int(struct acpi_buf *buf, const char *name, uint64_t v)
{
	aml_name(buf, name);
	aml_int(buf, v);
}

void aml_name_string(struct acpi_buf *buf, const char *name, const char *text)
{
	aml_name(buf, name);
	aml_string(buf, text);
}

void aml_name_eisa_id(struct acpi_buf *buf, const char *name, const char *id)
{
	aml_name(buf, name);
	aml_eisa_id(buf, id);
}

/* Terms. */

void aml_arg(struct acpi_buf *buf, unsigned n)
{
	assert(n <= 6);
	acpi_put8(buf, (uint8_t)(AML_ARG0 + n));
}

void aml_equal(struct acpi_buf *buf)
{
	acpi_put8(buf, AML_LEQUAL);
}

void aml_or(struct acpi_buf *buf)
{
	acpi_put8(buf, AML_OR);
}

void aml_not(struct acpi_buf *buf)
{
	acpi_put8(buf, AML_LNOT);
}

void aml_return(struct acpi_buf *buf)
{
	acpi_put8(buf, AML_RETURN);
}

void aml_notify(struct acpi_buf *buf, const char *path, uint8_t value)
{
	acpi_put8(buf, AML_NOTIFY);
	aml_path(buf, path);
	aml_int(buf, value);
}

void aml_dword_field_of_arg(struct acpi_buf *buf, unsigned n, unsigned offset, const char *name)
{
	acpi_put8(buf, AML_CREATE_DWORD_FIELD);
	aml_arg(buf, n);
	aml_int(buf, offset);
	aml_path(buf, name);
}
