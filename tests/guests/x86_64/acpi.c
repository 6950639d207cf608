#include "tests/guests/x86_64/x86.h"

/* Offsets in the FADT (ACPI 6.5, 5.2.9); registers are generic address structures. */
#define FADT_DSDT	   40
#define FADT_PM1A_CONTROL  64
#define FADT_FLAGS	   112
#define FADT_HW_REDUCED	   (1u << 20)
#define FADT_RESET_REG	   116
#define FADT_RESET_VALUE   128
#define FADT_X_DSDT	   140
#define FADT_SLEEP_CONTROL 244
#define FADT_SIZE	   276
#define FADT_SIZE_2	   132
#define GAS_ADDRESS	   4
#define GAS_PORT_IO	   1

#define XSDT_ENTRIES 36

static bool sums_to_zero(const uint8_t *data, size_t size)
{
	uint8_t sum = 0;

	while (size--)
		sum = (uint8_t)(sum + *data++);
	return sum == 0;
}

/* The root table and the size of its entries: the XSDT, or what came before it. */
static const uint8_t *find_root(unsigned *ret_entry)
{
	const uint8_t *rsdp = phys(x86_start_info()->rsdp);

	if (!rsdp || !equal(rsdp, "RSD PTR ", 8) || !sums_to_zero(rsdp, 20))
		return NULL;

	bool xsdt = rsdp[15] >= 2 && get64(rsdp + 24) && sums_to_zero(rsdp, 36);
	const uint8_t *root = phys(xsdt ? get64(rsdp + 24) : get32(rsdp + 16));

	*ret_entry = xsdt ? 8 : 4;
	if (!equal(root, xsdt ? "XSDT" : "RSDT", 4) || !sums_to_zero(root, get32(root + 4)))
		return NULL;
	return root;
}

const uint8_t *acpi_find(const char *signature)
{
	unsigned entry;
	const uint8_t *root = find_root(&entry);

	if (!root)
		return NULL;
	for (uint32_t at = XSDT_ENTRIES; at + entry <= get32(root + 4); at += entry) {
		const uint8_t *table = phys(entry == 8 ? get64(root + at) : get32(root + at));

		if (equal(table, signature, 4))
			return sums_to_zero(table, get32(table + 4)) ? table : NULL;
	}
	return NULL;
}

/* The port of the register at @offset of the FADT, or 0. */
static uint16_t fadt_port(const uint8_t *fadt, unsigned offset)
{
	uint64_t port = get64(fadt + offset + GAS_ADDRESS);

	return fadt[offset] == GAS_PORT_IO && port < 0x10000 ? (uint16_t)port : 0;
}

/*
 * The first element of _S5: NameOp "_S5_" PackageOp PkgLength NumElements, then
 * a byte constant or one of the opcodes Zero and One. -1 when there is none.
 */
static int sleep_type_s5(const uint8_t *dsdt)
{
	uint32_t size = get32(dsdt + 4);

	for (uint32_t at = 36; at + 9 <= size; at++) {
		if (!equal(dsdt + at, "_S5_\x12", 5) || dsdt[at + 5] >= 0x40)
			continue;
		const uint8_t *element = dsdt + at + 7;

		return element[0] == 0x0a ? element[1] : element[0] <= 1 ? element[0] : -1;
	}
	return -1;
}

bool acpi_find_power(struct acpi_power *ret_power)
{
	const uint8_t *fadt = acpi_find("FACP");
	uint32_t size = fadt ? get32(fadt + 4) : 0;

	*ret_power = (struct acpi_power){ 0 };
	if (size < FADT_SIZE_2)
		return false;

	bool reduced = size >= FADT_SIZE && get32(fadt + FADT_FLAGS) & FADT_HW_REDUCED;
	const uint8_t *dsdt = phys(reduced ? get64(fadt + FADT_X_DSDT) : get32(fadt + FADT_DSDT));
	int type = sleep_type_s5(dsdt);

	if (type < 0)
		return false;
	ret_power->off_word = !reduced;
	ret_power->off_port =
		reduced ? fadt_port(fadt, FADT_SLEEP_CONTROL) : get16(fadt + FADT_PM1A_CONTROL);
	/* SLP_TYP and SLP_EN, where each register has them. */
	ret_power->off_value = (uint16_t)(reduced ? type << 2 | 1 << 5 : type << 10 | 1 << 13);
	ret_power->reset_port = fadt_port(fadt, FADT_RESET_REG);
	ret_power->reset_value = fadt[FADT_RESET_VALUE];
	return ret_power->off_port && ret_power->reset_port;
}
