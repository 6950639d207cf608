#include "tests/guests/guest.h"
#include "tests/guests/arch.h"

static unsigned checks, failures;
static uint64_t next_page;

void print(const char *text)
{
	arch_print(text, length(text));
}

void print_hex(uint64_t value)
{
	char text[19] = "0x";
	char *to = text + 2;
	int digits = 16;

	while (digits > 1 && !(value >> 60)) {
		value <<= 4;
		digits--;
	}
	while (digits--) {
		*to++ = "0123456789abcdef"[value >> 60];
		value <<= 4;
	}
	*to = '\0';
	print(text);
}

void print_unsigned(uint64_t value)
{
	char text[21];
	char *at = text + 20;

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

void check_skip(const char *what, const char *why)
{
	print("ok ");
	print_unsigned(++checks);
	print(" - ");
	print(what);
	print(" # SKIP ");
	print(why);
	print("\n");
}

bool checks_done(void)
{
	print("1..");
	print_unsigned(checks);
	print("\n");
	return failures == 0;
}

void checks_get(unsigned *ret_checks, unsigned *ret_failures)
{
	*ret_checks = checks;
	*ret_failures = failures;
}

void checks_set(unsigned new_checks, unsigned new_failures)
{
	checks = new_checks;
	failures = new_failures;
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

bool all_bytes(const void *at, uint8_t byte, size_t size)
{
	const uint8_t *x = at;

	while (size--) {
		if (*x++ != byte)
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

uint64_t word_value(const char *line, const char *prefix)
{
	size_t n = length(prefix);
	uint64_t value = 0;

	while (length(line) >= n && !equal(line, prefix, n)) {
		while (*line && *line != ' ')
			line++;
		while (*line == ' ')
			line++;
	}
	if (length(line) < n)
		return 0;
	for (line += n; *line >= '0' && *line <= '9'; line++)
		value = value * 10 + (uint64_t)(*line - '0');
	return value;
}

/* Every architecture of ours is little-endian. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are copied as they are");

uint16_t get16(const void *at)
{
	uint16_t value;

	__builtin_memcpy(&value, at, sizeof(value));
	return value;
}

uint32_t get32(const void *at)
{
	uint32_t value;

	__builtin_memcpy(&value, at, sizeof(value));
	return value;
}

uint64_t get64(const void *at)
{
	uint64_t value;

	__builtin_memcpy(&value, at, sizeof(value));
	return value;
}

void put16(void *at, uint16_t value)
{
	__builtin_memcpy(at, &value, sizeof(value));
}

void put32(void *at, uint32_t value)
{
	__builtin_memcpy(at, &value, sizeof(value));
}

void put64(void *at, uint64_t value)
{
	__builtin_memcpy(at, &value, sizeof(value));
}

uint64_t kept_page(void)
{
	return arch_platform()->ram_start;
}

void pages_reset(void)
{
	next_page = kept_page() + PAGE;
}

uint64_t pages(unsigned count)
{
	if (!next_page)
		pages_reset();

	uint64_t page = next_page;

	next_page += (uint64_t)count * PAGE;
	if (next_page > arch_platform()->ram_end)
		bail_out("a test needs more memory than there is");
	memset(phys(page), 0, (size_t)count * PAGE);
	return page;
}

void scattered_pages(uint64_t *ret_page, unsigned count)
{
	uint64_t first = pages(2 * count);

	for (unsigned i = 0; i < count; i++)
		ret_page[i] = first + 2 * PAGE * (uint64_t)(count - 1 - i);
}

uint64_t deadline_in(unsigned ms)
{
	return arch_ticks() + ms * arch_ticks_per_ms();
}

bool deadline_passed(uint64_t deadline)
{
	return (int64_t)(arch_ticks() - deadline) >= 0;
}

void delay(unsigned ms)
{
	uint64_t deadline = deadline_in(ms);

	while (!deadline_passed(deadline))
		arch_relax();
}

_Noreturn void bail_out(const char *why)
{
	print("Bail out! ");
	print(why);
	print("\n");
	arch_power_off();
	for (;;)
		arch_relax();
}
