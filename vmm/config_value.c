#include "vmm/config_value.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "vmm/config.h"
#include "vmm/base/types.h"

const char *config_quote(struct config_quote *quote, const char *text)
{
	size_t room = sizeof(quote->text) - sizeof("'...'");
	size_t len = strnlen(text, room + 1), shown = MIN(len, room), at = 0;

	quote->text[at++] = '\'';
	for (size_t i = 0; i < shown; i++)
		quote->text[at++] = (char)(iscntrl((unsigned char)text[i]) ? '?' : text[i]);
	memcpy(quote->text + at, len > room ? "...'" : "'", len > room ? 5 : 2);
	return quote->text;
}

/*
 * Read decimal digits from *@text on. Saturates at UINT64_MAX, which every
 * caller's limit refuses. False when there is no digit.
 */
static bool read_digits(const char **text, uint64_t *ret_number)
{
	const char *p = *text;
	uint64_t n = 0;
	bool overflow = false;

	for (; *p >= '0' && *p <= '9'; p++)
		overflow |= __builtin_mul_overflow(n, 10, &n) ||
			    __builtin_add_overflow(n, (uint64_t)(*p - '0'), &n);
	if (p == *text)
		return false;
	*text = p;
	*ret_number = overflow ? UINT64_MAX : n;
	return true;
}

int config_number(const char *option, const char *text, uint64_t min, uint64_t max,
		  uint64_t *ret_number, struct err *err)
{
	struct config_quote quote;
	const char *end = text;
	uint64_t n;

	if (!read_digits(&end, &n) || *end || n < min || n > max)
		return err_set(err, EINVAL, "%s takes a number from %llu to %llu, not %s", option,
			       (unsigned long long)min, (unsigned long long)max,
			       config_quote(&quote, text));
	*ret_number = n;
	return 0;
}

int config_unsigned(const char *option, const char *text, unsigned min, unsigned max,
		    unsigned *ret_number, struct err *err)
{
	uint64_t n;
	int r = config_number(option, text, min, max, &n, err);

	if (r == 0)
		*ret_number = (unsigned)n;
	return r;
}

int config_size(const char *option, const char *text, uint64_t *ret_bytes, struct err *err)
{
	struct config_quote quote;
	const char *end = text;
	uint64_t n = 0;
	unsigned shift = 0;
	bool good = read_digits(&end, &n);

	switch (*end) {
	case 'K':
	case 'k':
		shift = 10;
		break;
	case 'M':
	case 'm':
		shift = 20;
		break;
	case 'G':
	case 'g':
		shift = 30;
		break;
	}
	if (shift)
		end++;
	if (!good || *end)
		return err_set(err, EINVAL,
			       "%s takes a size such as 512M or 4G (K, M and G count in 1024s), "
			       "not %s",
			       option, config_quote(&quote, text));
	if (n > UINT64_MAX >> shift)
		return err_set(err, EINVAL, "%s %s: too large", option, config_quote(&quote, text));
	*ret_bytes = n << shift;
	return 0;
}

int config_choice(const char *option, const char *what, const char *text,
		  const char *const choices[], unsigned *ret_index, struct err *err)
{
	struct config_quote quote;
	char list[128] = "";
	size_t len = 0;

	for (unsigned i = 0; choices[i]; i++) {
		if (!strcmp(text, choices[i])) {
			*ret_index = i;
			return 0;
		}
		if (len < sizeof(list))
			len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%s%s",
						i == 0		 ? ""
						: choices[i + 1] ? ", "
								 : " or ",
						what, choices[i]);
	}
	return err_set(err, EINVAL, "%s takes %s, not %s", option, list,
		       config_quote(&quote, text));
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int config_mac(const char *option, const char *text, uint8_t ret_mac[6], struct err *err)
{
	static const uint8_t zero[6];
	struct config_quote quote;
	uint8_t mac[6];
	const char *p = text;

	for (unsigned i = 0; i < 6; i++, p += 3) {
		/* Each test stops at the string's end before the next would look behind it. */
		if (hex_value(p[0]) < 0 || hex_value(p[1]) < 0 || p[2] != (i < 5 ? ':' : '\0'))
			return err_set(
				err, EINVAL,
				"%s: mac= takes an address such as 52:54:00:12:34:56, not %s",
				option, config_quote(&quote, text));
		mac[i] = (uint8_t)(hex_value(p[0]) << 4 | hex_value(p[1]));
	}
	if (mac[0] & 1)
		return err_set(err, EINVAL,
			       "%s: mac=%s is a multicast address; the first byte must be even",
			       option, text);
	if (!memcmp(mac, zero, sizeof(mac)))
		return err_set(err, EINVAL, "%s: mac= can't be all zero", option);
	memcpy(ret_mac, mac, sizeof(mac));
	return 0;
}

#define NEAREST_MAX 24 /* longer words aren't typing errors of ours */

/* Insertions, deletions and substitutions between @a and @b (Levenshtein). */
static unsigned edit_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
	unsigned row[NEAREST_MAX + 1];

	for (unsigned j = 0; j <= b_len; j++)
		row[j] = j;
	for (unsigned i = 1; i <= a_len; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= b_len; j++) {
			unsigned substitute = diagonal + (a[i - 1] != b[j - 1]);

			diagonal = row[j];
			row[j] = MIN(MIN(row[j], row[j - 1]) + 1, substitute);
		}
	}
	return row[b_len];
}

const char *config_nearest(const char *typed, const char *const names[])
{
	size_t len = strnlen(typed, NEAREST_MAX + 1);
	const char *nearest = NULL;
	unsigned best = UINT32_MAX;

	if (!len || len > NEAREST_MAX)
		return NULL;
	for (; *names; names++) {
		size_t name_len = strlen(*names);
		unsigned distance;

		if (name_len > NEAREST_MAX)
			continue;
		/* An abbreviation is as good as one wrong letter. */
		if (!strncmp(*names, typed, len))
			distance = 1;
		else
			distance = edit_distance(typed, len, *names, name_len);
		if (distance < best && distance <= MAX(name_len / 3, (size_t)1)) {
			best = distance;
			nearest = *names;
		}
	}
	return nearest;
}

bool config_next_item(char **list, char **ret_key, char **ret_value)
{
	char *in = *list, *out = *list;

	if (!in)
		return false;
	*ret_key = in;
	*ret_value = NULL;
	*list = NULL;
	for (; *in; in++) {
		if (*in == ',') {
			if (in[1] != ',') {
				*list = in + 1;
				break;
			}
			in++;
		} else if (*in == '=' && !*ret_value) {
			*out++ = '\0';
			*ret_value = out;
			continue;
		}
		*out++ = *in;
	}
	*out = '\0';
	return true;
}

/* @count hexadecimal digits at *@text, which is moved behind them; -1 when they aren't there. */
static int hex_digits(const char **text, unsigned count)
{
	unsigned value = 0;

	while (count--) {
		int c = tolower((unsigned char)*(*text)++);

		if (!isxdigit(c))
			return -1;
		value = value << 4 | (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
	}
	return (int)value;
}

int config_bdf(const char *option, const char *text, size_t len, char *bdf, struct err *err)
{
	int domain = 0, bus, device, function;
	char copy[32] = "";
	struct config_quote quote;

	snprintf(copy, sizeof(copy), "%.*s", (int)MIN(len, sizeof(copy)), text);

	const char *at = copy;
	size_t first = strcspn(copy, ":");

	/* A domain has four digits, or five where the firmware has invented it. */
	if (first == 4 || first == 5) {
		domain = hex_digits(&at, (unsigned)first);
		at++;
	}
	bus = hex_digits(&at, 2);
	if (domain >= 0 && bus >= 0 && *at++ == ':') {
		device = hex_digits(&at, 2);
		if (device >= 0 && device < 32 && *at++ == '.') {
			function = hex_digits(&at, 1);
			if (function >= 0 && function < 8 && !*at) {
				snprintf(bdf, CONFIG_BDF_SIZE, "%04x:%02x:%02x.%x",
					 (unsigned)domain & 0xfffff, (unsigned)bus & 0xff,
					 (unsigned)device & 31, (unsigned)function & 7);
				return 0;
			}
		}
	}
	return err_set(err, EINVAL, "%s takes a PCI address such as 0000:01:00.0, not %s", option,
		       config_quote(&quote, copy));
}
