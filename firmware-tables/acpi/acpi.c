#include "firmware-tables/acpi/acpi.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include "firmware-tables/acpi/tables.h"
#include "vmm/base/types.h"

/*
 * Tables refer to each other by address, so each is written where it will be
 * and its reference is patched in when that is known:
 *
 *	base ->	RSDP -> XSDT -> FADT -> DSDT
 *			     -> MADT, MCFG, VIOT
 *
 * The bytes depend on nothing but the platform and the base: two runs of the
 * same command line give the same tables.
 */

#define RSDP_SIZE	       36
#define RSDP_V1_SIZE	       20
#define RSDP_CHECKSUM	       8
#define RSDP_XSDT	       24
#define RSDP_EXTENDED_CHECKSUM 32

#define HEADER_LENGTH	4
#define HEADER_CHECKSUM 9

#define TABLE_ALIGNMENT 16

/* FADT, MADT, MCFG, VIOT. */
#define XSDT_MAX_ENTRIES 4

static const char oem_id[6] = { 'M', 'O', 'A', 'T', ' ', ' ' };
static const char oem_table_id[8] = { 'M', 'O', 'A', 'T', 'V', 'M', ' ', ' ' };
static const char creator_id[4] = { 'M', 'O', 'A', 'T' };

size_t acpi_table_begin(struct acpi_buf *buf, const char *signature, uint8_t revision)
{
	size_t start = buf->len;

	acpi_put_bytes(buf, signature, 4);
	acpi_put32(buf, 0); /* length */
	acpi_put8(buf, revision);
	acpi_put8(buf, 0); /* checksum */
	acpi_put_bytes(buf, oem_id, sizeof(oem_id));
	acpi_put_bytes(buf, oem_table_id, sizeof(oem_table_id));
	acpi_put32(buf, 1); /* OEM revision */
	acpi_put_bytes(buf, creator_id, sizeof(creator_id));
	acpi_put32(buf, 1); /* creator revision */
	assert(acpi_buf_failed(buf) || buf->len - start == ACPI_HEADER_SIZE);
	return start;
}

void acpi_table_seal(struct acpi_buf *buf, size_t start, size_t length)
{
	acpi_patch32(buf, start + HEADER_LENGTH, (uint32_t)length);
	acpi_patch8(buf, start + HEADER_CHECKSUM, acpi_buf_checksum(buf, start, length));
}

void acpi_table_end(struct acpi_buf *buf, size_t start)
{
	acpi_table_seal(buf, start, buf->len - start);
}

/* Note a table that was just written from @offset on, and align for the next. */
static void blob_add(struct acpi_blob *blob, struct acpi_buf *buf, const char *signature,
		     size_t offset)
{
	assert(blob->count < ACPI_MAX_TABLES);

	struct acpi_table_ref *ref = &blob->table[blob->count++];

	memcpy(ref->signature, signature, 4);
	ref->signature[4] = '\0';
	ref->offset = offset;
	ref->length = buf->len - offset;
	acpi_buf_align(buf, TABLE_ALIGNMENT);
}

/* RSDP (ACPI 6.3, 5.2.5) of revision 2, with an XSDT and no RSDT. */
static void write_rsdp(struct acpi_buf *buf)
{
	acpi_put_bytes(buf, "RSD PTR ", 8);
	acpi_put8(buf, 0); /* checksum of the first 20 bytes */
	acpi_put_bytes(buf, oem_id, sizeof(oem_id));
	acpi_put8(buf, 2);  /* revision */
	acpi_put32(buf, 0); /* RSDT */
	acpi_put32(buf, RSDP_SIZE);
	acpi_put64(buf, 0); /* XSDT */
	acpi_put8(buf, 0);  /* checksum of all */
	acpi_put_zeros(buf, 3);
}

static void finish_rsdp(struct acpi_buf *buf, uint64_t xsdt)
{
	acpi_patch64(buf, RSDP_XSDT, xsdt);
	acpi_patch8(buf, RSDP_CHECKSUM, acpi_buf_checksum(buf, 0, RSDP_V1_SIZE));
	acpi_patch8(buf, RSDP_EXTENDED_CHECKSUM, acpi_buf_checksum(buf, 0, RSDP_SIZE));
}

static void write_all(struct acpi_blob *blob, struct acpi_buf *buf, const struct platform *platform,
		      uint64_t base)
{
	unsigned entries = platform->num_iommus ? XSDT_MAX_ENTRIES : XSDT_MAX_ENTRIES - 1;
	size_t entry[XSDT_MAX_ENTRIES];
	unsigned n = 0;

	write_rsdp(buf);
	blob_add(blob, buf, "RSDP", 0);

	size_t xsdt = acpi_table_begin(buf, "XSDT", 1);

	acpi_put_zeros(buf, 8 * entries);
	blob_add(blob, buf, "XSDT", xsdt);

	/* The FADT's size is fixed, so the DSDT's place behind it is known. */
	entry[n] = buf->len;
	acpi_write_fadt(buf, platform, base + ALIGN_UP(buf->len + ACPI_FADT_SIZE, TABLE_ALIGNMENT));
	blob_add(blob, buf, "FACP", entry[n++]);

	size_t dsdt = buf->len;

	acpi_write_dsdt(buf, platform);
	blob_add(blob, buf, "DSDT", dsdt);

	entry[n] = buf->len;
	acpi_write_madt(buf, platform);
	blob_add(blob, buf, "APIC", entry[n++]);

	entry[n] = buf->len;
	acpi_write_mcfg(buf, platform);
	blob_add(blob, buf, "MCFG", entry[n++]);

	if (platform->num_iommus) {
		entry[n] = buf->len;
		acpi_write_viot(buf, platform);
		blob_add(blob, buf, "VIOT", entry[n++]);
	}
	assert(n == entries);

	for (unsigned i = 0; i < n; i++)
		acpi_patch64(buf, xsdt + ACPI_HEADER_SIZE + 8 * i, base + entry[i]);
	acpi_table_seal(buf, xsdt, ACPI_HEADER_SIZE + 8 * n);
	finish_rsdp(buf, base + xsdt);
}

int acpi_build(struct acpi_blob *blob, const struct platform *platform, uint64_t base,
	       struct err *err)
{
	struct acpi_blob built = { 0 };
	struct acpi_buf buf = { 0 };

	assert(base % TABLE_ALIGNMENT == 0);
	if (platform->num_cpus > PLATFORM_MAX_CPUS)
		return err_set(err, E2BIG, "the ACPI tables describe at most %d CPUs",
			       PLATFORM_MAX_CPUS);
	if (platform->num_mmio > PLATFORM_MAX_MMIO)
		return err_set(err, E2BIG,
			       "the ACPI tables describe at most %d virtio-mmio devices",
			       PLATFORM_MAX_MMIO);
	write_all(&built, &buf, platform, base);
	if (acpi_buf_failed(&buf)) {
		acpi_buf_finish(&buf);
		return err_set(err, ENOMEM, "no memory for the ACPI tables");
	}
	built.data = buf.data;
	built.size = buf.len;
	*blob = built;
	return 0;
}

void acpi_blob_finish(struct acpi_blob *blob)
{
	if (!blob)
		return;

	struct acpi_buf buf = { .data = blob->data };

	acpi_buf_finish(&buf);
	*blob = (struct acpi_blob){ 0 };
}
