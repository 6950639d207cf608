#ifndef VMM_CONFIG_VALUE_H
#define VMM_CONFIG_VALUE_H

/*
 * Inside config: the values of options. All text comes from the command line
 * and appears in errors only through config_quote, so that an error stays one
 * readable line whatever was typed. Functions return 0 or -EINVAL with words in
 * @err that begin with @option, as "--memory".
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "vmm/base/err.h"

/* A printable, shortened copy of what the person typed. */
struct config_quote {
	char text[72];
};
const char *config_quote(struct config_quote *quote, const char *text);

/* A whole number in decimal from @min to @max. */
int config_number(const char *option, const char *text, uint64_t min, uint64_t max,
		  uint64_t *ret_number, struct err *err);
int config_unsigned(const char *option, const char *text, unsigned min, unsigned max,
		    unsigned *ret_number, struct err *err);

/* Bytes: a whole number, times 1024, 1024^2 or 1024^3 with K, M or G behind it. */
int config_size(const char *option, const char *text, uint64_t *ret_bytes, struct err *err);

/*
 * One of @choices (ended by NULL); *@ret_index says which. @what names the
 * thing before its value in the error: "bus=" for a key, "" for the option's own.
 */
int config_choice(const char *option, const char *what, const char *text,
		  const char *const choices[], unsigned *ret_index, struct err *err);

/* Six hexadecimal bytes with colons, neither a group's address nor all zero. */
int config_mac(const char *option, const char *text, uint8_t ret_mac[6], struct err *err);

/*
 * The one of @names (ended by NULL) that @typed was probably meant to be, or
 * NULL when none is near.
 */
const char *config_nearest(const char *typed, const char *const names[]);

/*
 * Cut the next item off the comma-separated list at *@list, in place, and turn
 * ",," into a comma. An item is "key=value" or a bare key, whose *@ret_value is
 * NULL. False at the end of the list.
 */
bool config_next_item(char **list, char **ret_key, char **ret_value);

/*
 * The PCI address in the first @len characters of @text, as "0000:00:00.0" or
 * without the domain. Returns 0 with its full form in @bdf (CONFIG_BDF_SIZE), -EINVAL.
 */
int config_bdf(const char *option, const char *text, size_t len, char *bdf, struct err *err);

#endif
