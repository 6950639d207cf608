#ifndef FIRMWARE_TABLES_ACPI_AML_H
#define FIRMWARE_TABLES_ACPI_AML_H

/*
 * A writer for the part of AML that moat's DSDT needs (ACPI 6.3, chapter 20),
 * appending to a struct acpi_buf.
 *
 * What encloses other terms is opened and closed: aml_open_X returns a mark
 * that aml_close takes. The length of such a package stands before its contents
 * in one to four bytes, so it is inserted when the package closes; marks of the
 * packages around it stay valid, since they lie before it.
 *
 * Paths are written as in ASL ("\\_SB.PCI0", "_CRS"), absolute or relative, without
 * "^". Each segment has one to four characters and is padded with underscores.
 */

#include <stdbool.h>
#include <stdint.h>
#include "firmware-tables/acpi/buf.h"

/* Packages. Close each with aml_close and the mark that its opening returned. */
size_t aml_open_scope(struct acpi_buf *buf, const char *path);
size_t aml_open_device(struct acpi_buf *buf, const char *name);
size_t aml_open_method(struct acpi_buf *buf, const char *name, unsigned num_args, bool serialized);
size_t aml_open_package(struct acpi_buf *buf, uint8_t num_elements);
size_t aml_open_buffer(struct acpi_buf *buf); /* its size follows, then the bytes */
size_t aml_open_if(struct acpi_buf *buf);     /* the predicate follows, then the body */
void aml_close(struct acpi_buf *buf, size_t mark);

/* Name (@name, ...): the object follows. */
void aml_name(struct acpi_buf *buf, const char *name);
void aml_path(struct acpi_buf *buf, const char *path);

/* Objects. */
void aml_int(struct acpi_buf *buf, uint64_t v);
void aml_string(struct acpi_buf *buf, const char *text);
void aml_buffer(struct acpi_buf *buf, const void *bytes, size_t len);
/* @id: three capital letters and four hexadecimal digits, as "PNP0A08". */
void aml_eisa_id(struct acpi_buf *buf, const char *id);
/* @uuid: "33DB4D5B-1FF7-401C-9657-7441C03DD766", as the bytes of ToUUID. */
void aml_uuid(struct acpi_buf *buf, const char *uuid);

/* Shorthands for Name (@name, object). */
void aml_name_int(struct acpi_buf *buf, const char *name, uint64_t v);
void aml_name_string(struct acpi_buf *buf, const char *name, const char *text);
void aml_name_eisa_id(struct acpi_buf *buf, const char *name, const char *id);

/* Terms of a method; operands follow each in the order of ASL. */
void aml_arg(struct acpi_buf *buf, unsigned n); /* ArgN, 0 to 6 */
void aml_equal(struct acpi_buf *buf);		/* LEqual (a, b) */
void aml_or(struct acpi_buf *buf);		/* Or (a, b, target) */
void aml_not(struct acpi_buf *buf);		/* LNot (a) */
void aml_return(struct acpi_buf *buf);		/* Return (a) */
void aml_notify(struct acpi_buf *buf, const char *path, uint8_t value);
/* CreateDWordField (ArgN, @offset, @name) */
void aml_dword_field_of_arg(struct acpi_buf *buf, unsigned n, unsigned offset, const char *name);

/*
 * Name (@name, ResourceTemplate () {...}): descriptors follow (ACPI 6.3, 6.4).
 * Close it with aml_close_resources.
 */
size_t aml_open_resources(struct acpi_buf *buf, const char *name);
void aml_close_resources(struct acpi_buf *buf, size_t mark);

/* @len I/O ports from @port that the device decodes itself. */
void aml_res_io(struct acpi_buf *buf, uint16_t port, uint8_t len);
/* Memory that the device occupies: Memory32Fixed below 4 GiB, else QWordMemory. */
void aml_res_memory(struct acpi_buf *buf, uint64_t base, uint64_t size);
/* One edge-triggered, active-high, unshared interrupt. */
void aml_res_interrupt(struct acpi_buf *buf, uint32_t gsi);
/* What a host bridge hands on to its bus: bus numbers and a memory window. */
void aml_res_bus_window(struct acpi_buf *buf, uint16_t first, uint16_t last);
void aml_res_memory_window(struct acpi_buf *buf, uint64_t base, uint64_t size);

#endif
