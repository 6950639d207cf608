#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "firmware-tables/acpi/acpi.h"
#include "firmware-tables/acpi/aml.h"
#include "vmm/base/types.h"

#define BASE 0xe0000u

/* Reading back: offsets as the specification counts them. */

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) | (uint32_t)get16(p + 2) << 16;
}

static uint64_t get64(const uint8_t *p)
{
	return get32(p) | (uint64_t)get32(p + 4) << 32;
}

static uint8_t sum(const uint8_t *p, size_t len)
{
	uint8_t s = 0;

	while (len--)
		s = (uint8_t)(s + *p++);
	return s;
}

static const uint8_t *find(const struct acpi_blob *blob, const char *signature, size_t *ret_length)
{
	for (unsigned i = 0; i < blob->count; i++)
		if (!strcmp(blob->table[i].signature, signature)) {
			*ret_length = blob->table[i].length;
			return blob->data + blob->table[i].offset;
		}
	*ret_length = 0;
	return NULL;
}

/*
 * A machine with two disks on PCI (00:02.0, 00:03.0), two on MMIO, of which the
 * second says iommu=off, and a virtio-iommu on the bus that @iommu_on_mmio says.
 */
static struct platform make_platform(bool iommu_on_mmio, bool endpoints_on_mmio)
{
	struct platform p = {
		.num_cpus = 2,
		.cpu_ids = { 0, 1 },
		.ecam = { 0xe8000000, MIB(1) },
		.pci_mem32 = { 0xc0000000, 0x20000000 },
		.pci_mem64 = { 0x4000000000, 0x1000000000 },
		.lapic_base = 0xfee00000,
		.ioapic_base = 0xfec00000,
		.ioapic_id = 2,
		.serial = { 0x3f8, 8 },
		.serial_gsi = 4,
		.reset_port = 0x604,
		.reset_value = 1,
		.sleep_control_port = 0x600,
		.sleep_status_port = 0x601,
		.power_button_gsi = 5,
		.num_iommus = 1,
	};

	p.iommu[0] = (struct platform_iommu){ .on_mmio = iommu_on_mmio,
					      .bdf = iommu_on_mmio ? 0 : 0x0008,
					      .base = iommu_on_mmio ? 0xd0000000 : 0 };
	if (iommu_on_mmio)
		p.mmio[p.num_mmio++] =
			(struct platform_mmio_dev){ 0xd0000000,	       0x1000, 6, 0x10000,
						    PLATFORM_NO_IOMMU, true };
	if (endpoints_on_mmio) {
		p.mmio[p.num_mmio++] =
			(struct platform_mmio_dev){ 0xd0001000, 0x1000, 7, 0x10001, 0, false };
		p.mmio[p.num_mmio++] =
			(struct platform_mmio_dev){ 0xd0002000,	       0x1000, 8, 0x10002,
						    PLATFORM_NO_IOMMU, false };
	} else {
		p.pci_range[p.num_pci_ranges++] = (struct platform_pci_range){ 0x10, 0x18, 0 };
	}
	return p;
}

static struct acpi_blob build(const struct platform *p)
{
	struct acpi_blob blob;
	struct err err = { 0 };

	cr_assert_eq(acpi_build(&blob, p, BASE, &err), 0, "%s", err.text);
	return blob;
}

/* How a guest finds things: RSDP, XSDT, each table with a good checksum. */
Test(acpi, chain_is_whole)
{
	static const char *const expected[] = { "FACP", "APIC", "MCFG", "VIOT" };
	struct platform p = make_platform(false, false);
	struct acpi_blob blob = build(&p);
	const uint8_t *rsdp = blob.data;

	cr_assert_arr_eq(rsdp, "RSD PTR ", 8);
	cr_assert_eq(sum(rsdp, 20), 0);
	cr_assert_eq(sum(rsdp, 36), 0);
	cr_assert_eq(rsdp[15], 2);
	cr_assert_eq(get32(rsdp + 16), 0, "no RSDT");
	cr_assert_eq(get32(rsdp + 20), 36);

	const uint8_t *xsdt = blob.data + (get64(rsdp + 24) - BASE);

	cr_assert_arr_eq(xsdt, "XSDT", 4);
	cr_assert_eq(get32(xsdt + 4), 36 + 8 * 4);
	cr_assert_eq(sum(xsdt, get32(xsdt + 4)), 0);
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
		uint64_t address = get64(xsdt + 36 + 8 * i);
		const uint8_t *table = blob.data + (address - BASE);

		cr_assert_lt(address - BASE, blob.size);
		cr_assert_arr_eq(table, expected[i], 4);
		cr_assert_leq(address - BASE + get32(table + 4), blob.size);
		cr_assert_eq(sum(table, get32(table + 4)), 0, "%s", expected[i]);
	}
	acpi_blob_finish(&blob);
}

Test(acpi, fadt_is_hardware_reduced)
{
	struct platform p = make_platform(false, false);
	struct acpi_blob blob = build(&p);
	size_t length, dsdt_length = 0;
	const uint8_t *fadt = find(&blob, "FACP", &length);
	const uint8_t *dsdt = find(&blob, "DSDT", &dsdt_length);
	uint32_t flags = get32(fadt + 112);
	static const uint8_t reset[12] = { 1, 8, 0, 1, 0x04, 0x06 };
	static const uint8_t control[12] = { 1, 8, 0, 1, 0x00, 0x06 };
	static const uint8_t status[12] = { 1, 8, 0, 1, 0x01, 0x06 };
	static const uint8_t none[96];

	cr_assert_eq(length, 276);
	cr_assert_eq(fadt[8], 6);
	cr_assert(flags & 1 << 20, "HW_REDUCED_ACPI");
	cr_assert(flags & 1 << 10, "RESET_REG_SUP");
	cr_assert(flags & 1 << 4, "no fixed power button");
	cr_assert(flags & 1 << 5, "no fixed sleep button");
	cr_assert_eq(get16(fadt + 109), 1 << 2 | 1 << 5, "no VGA, no CMOS RTC, no 8042");
	cr_assert_arr_eq(fadt + 116, reset, 12);
	cr_assert_eq(fadt[128], 1);
	cr_assert_eq(get64(fadt + 132), 0, "no FACS");
	cr_assert_eq(get64(fadt + 140), BASE + (uint64_t)(dsdt - blob.data));
	cr_assert_arr_eq(fadt + 148, none, 96, "no PM registers");
	cr_assert_arr_eq(fadt + 244, control, 12);
	cr_assert_arr_eq(fadt + 256, status, 12);
	cr_assert_eq(sum(dsdt, dsdt_length), 0);
	cr_assert_eq(dsdt[8], 2, "64-bit integers");
	acpi_blob_finish(&blob);
}

Test(acpi, madt_names_each_cpu_once)
{
	struct platform p = make_platform(false, false);
	unsigned lapics = 0, ioapics = 0, nmis = 0;

	p.num_cpus = 2;
	p.cpu_ids[1] = 254;

	struct acpi_blob blob = build(&p);
	size_t length;
	const uint8_t *madt = find(&blob, "APIC", &length);

	cr_assert_eq(get32(madt + 36), 0xfee00000);
	cr_assert_eq(get32(madt + 40), 0, "no 8259");
	for (size_t at = 44; at < length; at += madt[at + 1]) {
		const uint8_t *entry = madt + at;

		cr_assert_geq(entry[1], 6);
		cr_assert_leq(at + entry[1], length);
		switch (entry[0]) {
		case 0:
			cr_assert_eq(entry[2], lapics);
			cr_assert_eq(entry[3], p.cpu_ids[lapics++]);
			cr_assert_eq(get32(entry + 4), 1);
			break;
		case 1:
			cr_assert_eq(entry[2], 2);
			cr_assert_eq(get32(entry + 4), 0xfec00000);
			cr_assert_eq(get32(entry + 8), 0);
			ioapics++;
			break;
		case 4:
			cr_assert_eq(entry[2], 255);
			cr_assert_eq(entry[5], 1, "LINT1");
			nmis++;
			break;
		default:
			cr_assert_fail("unexpected entry %u", entry[0]);
		}
	}
	cr_assert_eq(lapics, 2);
	cr_assert_eq(ioapics, 1);
	cr_assert_eq(nmis, 1);
	acpi_blob_finish(&blob);
}

Test(acpi, mcfg_covers_bus_0)
{
	struct platform p = make_platform(false, false);
	struct acpi_blob blob = build(&p);
	size_t length;
	const uint8_t *mcfg = find(&blob, "MCFG", &length);

	cr_assert_eq(length, 60);
	cr_assert_eq(get64(mcfg + 44), 0xe8000000);
	cr_assert_eq(get32(mcfg + 52), 0, "segment 0, bus 0 to 0");
	acpi_blob_finish(&blob);
}

/* The four combinations, byte for byte behind the header. */

#define VIOT_HEAD(nodes) nodes, 0, 48, 0, 0, 0, 0, 0, 0, 0, 0, 0
#define VIOT_IOMMU_PCI	 3, 0, 16, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0
#define VIOT_IOMMU_MMIO	 4, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0xd0, 0, 0, 0, 0
#define VIOT_PCI_RANGE \
	1, 0, 24, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0x18, 0, 48, 0, 0, 0, 0, 0, 0, 0
#define VIOT_MMIO_ENDPOINT \
	2, 0, 24, 0, 1, 0, 1, 0, 0, 0x10, 0, 0xd0, 0, 0, 0, 0, 48, 0, 0, 0, 0, 0, 0, 0

static void check_viot(bool iommu_on_mmio, bool endpoints_on_mmio, const uint8_t *bytes, size_t len)
{
	struct platform p = make_platform(iommu_on_mmio, endpoints_on_mmio);
	struct acpi_blob blob = build(&p);
	size_t length;
	const uint8_t *viot = find(&blob, "VIOT", &length);

	cr_assert_eq(viot[8], 0, "revision");
	cr_assert_eq(length, 36 + len);
	cr_assert_arr_eq(viot + 36, bytes, len);
	cr_assert_eq(sum(viot, length), 0);
	acpi_blob_finish(&blob);
}

Test(viot, iommu_pci_endpoints_pci)
{
	static const uint8_t bytes[] = { VIOT_HEAD(2), VIOT_IOMMU_PCI, VIOT_PCI_RANGE };

	check_viot(false, false, bytes, sizeof(bytes));
}

Test(viot, iommu_pci_endpoints_mmio)
{
	static const uint8_t bytes[] = { VIOT_HEAD(2), VIOT_IOMMU_PCI, VIOT_MMIO_ENDPOINT };

	check_viot(false, true, bytes, sizeof(bytes));
}

Test(viot, iommu_mmio_endpoints_pci)
{
	static const uint8_t bytes[] = { VIOT_HEAD(2), VIOT_IOMMU_MMIO, VIOT_PCI_RANGE };

	check_viot(true, false, bytes, sizeof(bytes));
}

Test(viot, iommu_mmio_endpoints_mmio)
{
	static const uint8_t bytes[] = { VIOT_HEAD(2), VIOT_IOMMU_MMIO, VIOT_MMIO_ENDPOINT };

	check_viot(true, true, bytes, sizeof(bytes));
}

Test(viot, output_node_names_the_right_iommu)
{
	struct platform p = make_platform(false, false);

	p.iommu[p.num_iommus++] = (struct platform_iommu){ .on_mmio = true, .base = 0xd0000000 };
	p.pci_range[p.num_pci_ranges++] = (struct platform_pci_range){ 0x20, 0x20, 1 };

	struct acpi_blob blob = build(&p);
	size_t length;
	const uint8_t *viot = find(&blob, "VIOT", &length);

	cr_assert_eq(get16(viot + 36), 4);
	cr_assert_eq(length, 48 + 2 * 16 + 2 * 24);
	cr_assert_eq(get16(viot + 80 + 16), 48);
	cr_assert_eq(get16(viot + 104 + 16), 64);
	cr_assert_eq(viot[64], 4, "a node 4 is at the second offset");
	acpi_blob_finish(&blob);
}

Test(viot, absent_without_iommu)
{
	struct platform p = make_platform(false, false);
	size_t length;

	p.num_iommus = 0;
	p.num_pci_ranges = 0;

	struct acpi_blob blob = build(&p);

	cr_assert_null(find(&blob, "VIOT", &length));
	cr_assert_eq(get32(find(&blob, "XSDT", &length) + 4), 36 + 8 * 3);
	acpi_blob_finish(&blob);
}

/* Each pin of each slot is in _PRT; the slots take turns. */
Test(acpi, pci_interrupts_are_routed)
{
	struct platform p = make_platform(false, false);
	/* Package (4) { 0x0002ffff, 0, 0, 22 }: INTA of slot 2, and INTD of slot 31. */
	static const uint8_t slot2[] = { 0x12, 0x0b, 4, 0x0c, 0xff, 0xff, 2, 0, 0, 0, 0x0a, 22 };
	static const uint8_t slot31[] = { 0x12, 0x0c, 4, 0x0c, 0xff, 0xff, 31,
					  0,	0x0a, 3, 0,    0x0a, 22 };
	size_t len;

	for (unsigned i = 0; i < PLATFORM_NUM_INTX; i++)
		p.pci_intx_gsi[i] = 20 + i;

	struct acpi_blob blob = build(&p);
	const uint8_t *dsdt = find(&blob, "DSDT", &len);

	cr_assert(memmem(dsdt, len, "_PRT", 4));
	cr_expect(memmem(dsdt, len, slot2, sizeof(slot2)));
	cr_expect(memmem(dsdt, len, slot31, sizeof(slot31)));
	acpi_blob_finish(&blob);
}

Test(acpi, same_input_same_bytes)
{
	struct platform p = make_platform(true, true);
	struct acpi_blob a = build(&p), b = build(&p);

	cr_assert_eq(a.size, b.size);
	cr_assert_arr_eq(a.data, b.data, a.size);
	acpi_blob_finish(&a);
	acpi_blob_finish(&b);
}

Test(acpi, too_many_cpus_is_an_error_not_a_crash)
{
	struct platform p = make_platform(false, false);
	struct acpi_blob blob;
	struct err err = { 0 };

	p.num_cpus = PLATFORM_MAX_CPUS + 1;
	cr_assert_lt(acpi_build(&blob, &p, BASE, &err), 0);
	cr_assert_neq(err.text[0], '\0');
}

/* The AML writer. */

static void check_aml(struct acpi_buf *buf, const uint8_t *bytes, size_t len)
{
	cr_assert_not(acpi_buf_failed(buf));
	cr_assert_eq(buf->len, len);
	cr_assert_arr_eq(buf->data, bytes, len);
	acpi_buf_finish(buf);
}

Test(aml, names)
{
	static const uint8_t bytes[] = "\\_SB_"
				       "\\\x2e_SB_PCI0"
				       "\x2f\x03"
				       "A___BC__DEF_";
	struct acpi_buf buf = { 0 };

	aml_path(&buf, "\\_SB");
	aml_path(&buf, "\\_SB.PCI0");
	aml_path(&buf, "A.BC.DEF");
	check_aml(&buf, bytes, sizeof(bytes) - 1);
}

Test(aml, integers_are_shortest)
{
	static const uint8_t bytes[] = { 0,    1,    0x0a, 2,	 0x0a, 0xff, 0x0b, 0, 1,
					 0x0b, 0xff, 0xff, 0x0c, 0,    0,    1,	   0, 0x0e,
					 0,    0,    0,	   0,	 1,    0,    0,	   0 };
	static const uint64_t values[] = { 0, 1, 2, 0xff, 0x100, 0xffff, 0x10000, 0x100000000 };
	struct acpi_buf buf = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(values); i++)
		aml_int(&buf, values[i]);
	check_aml(&buf, bytes, sizeof(bytes));
}

Test(aml, ids_and_uuids)
{
	static const uint8_t bytes[] = { 0x0c, 0x41, 0xd0, 0x0a, 0x08, 0x11, 0x13, 0x0a, 0x10,
					 0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f, 0x1c, 0x40, 0x96,
					 0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66 };
	struct acpi_buf buf = { 0 };

	aml_eisa_id(&buf, "PNP0A08");
	aml_uuid(&buf, "33DB4D5B-1FF7-401C-9657-7441C03DD766");
	check_aml(&buf, bytes, sizeof(bytes));
}

/* Decode a PkgLength as the specification says, not as the writer does. */
static size_t pkg_length(const uint8_t *p, size_t *ret_width)
{
	unsigned more = p[0] >> 6;
	size_t length = more ? p[0] & 0xf : p[0] & 0x3f;

	for (unsigned i = 0; i < more; i++)
		length |= (size_t)p[1 + i] << (4 + 8 * i);
	*ret_width = 1 + more;
	return length;
}

/* Every size around the places where the length's own width changes. */
Test(aml, package_lengths)
{
	static const size_t edges[] = { 0, 0x3e, 0xffd, 0xffffc };

	for (size_t e = 0; e < ARRAY_SIZE(edges); e++) {
		for (size_t len = edges[e]; len < edges[e] + 4; len++) {
			struct acpi_buf buf = { 0 };
			size_t mark = aml_open_buffer(&buf), width;

			acpi_put_zeros(&buf, len);
			aml_close(&buf, mark);
			cr_assert_eq(pkg_length(buf.data + 1, &width), buf.len - 1, "%zu", len);
			cr_assert_eq(buf.len, 1 + width + len, "%zu", len);
			acpi_buf_finish(&buf);
		}
	}
}

/* Intel's compiler as the judge. */

static bool have_iasl(void)
{
	if (system("iasl -v >/dev/null 2>&1") == 0)
		return true;
	fprintf(stderr, "SKIPPED: iasl isn't installed (package acpica-tools), "
			"so nobody judged the tables\n");
	return false;
}

/*
 * Disassemble every table and compile it again; complaints fail the test. Not
 * the RSDP, which has no table header and which iasl refuses to read alone. An
 * iasl from before 2021-12 doesn't know VIOT: that one complaint is let pass
 * then, for the other tests look at its bytes.
 */
static void judge(const struct platform *p)
{
	struct acpi_blob blob = build(p);
	char dir[] = "/tmp/test-acpi-XXXXXX", command[512];

	cr_assert_not_null(mkdtemp(dir));
	for (unsigned i = 1; i < blob.count; i++) {
		char path[64];

		snprintf(path, sizeof(path), "%s/%s.dat", dir, blob.table[i].signature);

		FILE *file = fopen(path, "wb");

		cr_assert_not_null(file);
		fwrite(blob.data + blob.table[i].offset, 1, blob.table[i].length, file);
		cr_assert_eq(fclose(file), 0);
	}
	snprintf(command, sizeof(command),
		 "cd %s && for t in *.dat; do iasl -d $t >>log 2>&1 || exit 1; done; "
		 "! grep -v 'signature .VIOT., decoding' log | "
		 "grep -iE 'error|warning|invalid|unknown|incorrect checksum' || exit 1; "
		 "for t in *.dsl; do iasl -p again $t >>compile 2>&1 || exit 1; done; "
		 "! grep -E '[1-9][0-9]* (Errors|Warnings)|^(Error|Warning)' compile",
		 dir);

	int status = system(command);

	if (status != 0) {
		snprintf(command, sizeof(command), "cat %s/log %s/compile >&2", dir, dir);
		(void)!system(command);
	}
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	(void)!system(command);
	cr_assert_eq(status, 0, "iasl complains");
	acpi_blob_finish(&blob);
}

Test(iasl, pci_machine, .timeout = 60)
{
	struct platform p = make_platform(false, false);

	if (have_iasl())
		judge(&p);
}

Test(iasl, mmio_machine, .timeout = 60)
{
	struct platform p = make_platform(true, true);

	if (have_iasl())
		judge(&p);
}

Test(iasl, largest_machine, .timeout = 60)
{
	struct platform p = make_platform(false, false);

	p.num_cpus = 240;
	for (unsigned i = 0; i < p.num_cpus; i++)
		p.cpu_ids[i] = i;
	p.num_mmio = PLATFORM_MAX_MMIO;
	for (unsigned i = 0; i < p.num_mmio; i++)
		p.mmio[i] = (struct platform_mmio_dev){
			0xd0000000 + 0x1000 * i, 0x1000, 24 + i, 0x10000 + i, 0, false
		};
	if (have_iasl())
		judge(&p);
}
