#include "guest.h"

#define COM1	  0x3f8
#define COM1_LSR  (COM1 + 5)
#define LSR_EMPTY 0x20

/* Offsets in the FADT (ACPI 6.5, 5.2.9); registers are generic address structures. */
#define FADT_FLAGS	   112
#define FADT_HW_REDUCED	   (1u << 20)
#define FADT_RESET_REG	   116
#define FADT_RESET_VALUE   128
#define FADT_X_DSDT	   140
#define FADT_SLEEP_CONTROL 244
#define FADT_SIZE	   276
#define GAS_ADDRESS	   4
#define GAS_PORT_IO	   1

static unsigned checks, failures;

/* GCC may call these for copies and loops it recognises. */
void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);

void *memcpy(void *to, const void *from, size_t size)
{
	void *result = to;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
	return result;
}

void *memset(void *to, int byte, size_t size)
{
	void *result = to;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(byte) : "memory");
	return result;
}

void print(const char *text)
{
	for (; *text; text++) {
		while (!(inb(COM1_LSR) & LSR_EMPTY))
			;
		outb(COM1, (uint8_t)*text);
	}
}

void print_hex(uint64_t value)
{
	char text[19] = "0x";

	for (int i = 0; i < 16; i++, value <<= 4)
		text[2 + i] = "0123456789abcdef"[value >> 60];
	text[18] = '\0';
	print(text);
}

static void print_unsigned(unsigned value)
{
	char text[11];
	char *at = text + 10;

	*at = '\0';
	do {
		*--at = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	print(at);
}

bool check(bool good, const char *what)
{
	if (!good) {
		failures++;
		print("not ");
	}
	print("ok ");
	print_unsigned(++checks);
	print(" - ");
	print(what);
	print("\n");
	return good;
}

bool checks_done(void)
{
	print("1..");
	print_unsigned(checks);
	print("\n");
	return failures == 0;
}

size_t length(const char *text)
{
	size_t n = 0;

	while (text[n])
		n++;
	return n;
}

bool equal(const void *a, const void *b, size_t size)
{
	const uint8_t *x = a, *y = b;

	while (size--) {
		if (*x++ != *y++)
			return false;
	}
	return true;
}

bool has_word(const char *line, const char *word)
{
	size_t n = length(word);

	while (*line) {
		size_t i = 0;

		while (line[i] && line[i] != ' ')
			i++;
		if (i == n && equal(line, word, n))
			return true;
		line += i;
		while (*line == ' ')
			line++;
	}
	return false;
}

uint32_t get32(const uint8_t *at)
{
	uint32_t value;

	__builtin_memcpy(&value, at, sizeof(value));
	return value;
}

uint64_t get64(const uint8_t *at)
{
	uint64_t value;

	__builtin_memcpy(&value, at, sizeof(value));
	return value;
}

static bool sums_to_zero(const uint8_t *data, size_t size)
{
	uint8_t sum = 0;

	while (size--)
		sum = (uint8_t)(sum + *data++);
	return sum == 0;
}

const uint8_t *acpi_find(uint64_t rsdp_addr, const char *signature)
{
	const uint8_t *rsdp = phys(rsdp_addr);

	if (!rsdp || !equal(rsdp, "RSD PTR ", 8) || !sums_to_zero(rsdp, 20) ||
	    !sums_to_zero(rsdp, 36))
		return NULL;
	const uint8_t *xsdt = phys(get64(rsdp + 24));

	if (!equal(xsdt, "XSDT", 4) || !sums_to_zero(xsdt, get32(xsdt + 4)))
		return NULL;
	for (uint32_t at = 36; at + 8 <= get32(xsdt + 4); at += 8) {
		const uint8_t *table = phys(get64(xsdt + at));

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

static const uint8_t *find_fadt(uint64_t rsdp)
{
	const uint8_t *fadt = acpi_find(rsdp, "FACP");

	if (!fadt || get32(fadt + 4) < FADT_SIZE || !(get32(fadt + FADT_FLAGS) & FADT_HW_REDUCED))
		return NULL;
	return fadt;
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

bool acpi_power_off(uint64_t rsdp)
{
	const uint8_t *fadt = find_fadt(rsdp);

	if (!fadt)
		return false;
	const uint8_t *dsdt = phys(get64(fadt + FADT_X_DSDT));
	uint16_t port = fadt_port(fadt, FADT_SLEEP_CONTROL);
	int type = sleep_type_s5(dsdt);

	if (!port || type < 0)
		return false;
	outb(port, (uint8_t)(type << 2 | 0x20)); /* SLP_TYP, SLP_EN */
	return true;
}

bool acpi_reset(uint64_t rsdp)
{
	const uint8_t *fadt = find_fadt(rsdp);
	uint16_t port = fadt ? fadt_port(fadt, FADT_RESET_REG) : 0;

	if (!port)
		return false;
	outb(port, fadt[FADT_RESET_VALUE]);
	return true;
}
