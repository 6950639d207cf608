#include "vmm/config_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/config_value.h"

/* A value that had to be copied, because its commas were unescaped. */
struct copy {
	struct copy *next;
	char text[];
};

static const char *const on_off[] = { "off", "on", NULL };
static const char *const bus_names[] = {
	[CONFIG_BUS_PCI] = "pci",
	[CONFIG_BUS_MMIO] = "mmio",
	NULL,
};

/* A copy of @text that lives as long as the config; NULL without memory. */
static char *keep(struct config_parser *p, const char *text)
{
	size_t size = strlen(text) + 1;
	struct copy *copy = malloc(sizeof(*copy) + size);

	if (!copy) {
		err_set(p->err, ENOMEM, "no memory for the command line");
		return NULL;
	}
	memcpy(copy->text, text, size);
	copy->next = p->config->storage;
	p->config->storage = copy;
	return copy->text;
}

#define MAX_KEYS 8

static const struct config_key *find_key(struct config_parser *p, const char *option,
					 const struct config_key *keys, const char *name)
{
	const char *names[MAX_KEYS + 1] = { NULL };
	struct config_quote quote;
	char list[128] = "";
	size_t len = 0;

	for (unsigned i = 0; keys[i].name; i++) {
		if (!strcmp(keys[i].name, name))
			return &keys[i];
		assert(i < MAX_KEYS);
		names[i] = keys[i].name;
		len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%s", i ? ", " : "",
					keys[i].name);
		assert(len < sizeof(list));
	}

	const char *nearest = config_nearest(name, names);

	err_set(p->err, EINVAL, "%s has no key %s%s%s%s; it takes %s", option,
		config_quote(&quote, name), nearest ? " (did you mean " : "",
		nearest ? nearest : "", nearest ? "?)" : "", list);
	return NULL;
}

int config_parse_list(struct config_parser *p, const char *option, const struct config_key *keys,
		      unsigned index, const char *text)
{
	char *list = keep(p, text), *name, *value;
	unsigned seen = 0;

	if (!list)
		return -ENOMEM;
	while (config_next_item(&list, &name, &value)) {
		const struct config_key *key = find_key(p, option, keys, name);

		if (!key)
			return -EINVAL;

		unsigned bit = 1u << (key - keys);

		if (seen & bit)
			return err_set(p->err, EINVAL, "%s: %s is given twice", option, key->name);
		seen |= bit;
		if (key->bare && value)
			return err_set(p->err, EINVAL, "%s: %s takes no value", option, key->name);
		if (!key->bare && (!value || !*value))
			return err_set(p->err, EINVAL, "%s: %s needs a value: %s=%s", option,
				       key->name, key->name, key->takes);

		int r = key->set(p, index, value);

		if (r < 0)
			return r;
	}
	return 0;
}

int config_set_bus(struct config_parser *p, const char *option, const char *value,
		   enum config_bus *bus)
{
	unsigned choice;
	int r = config_choice(option, "bus=", value, bus_names, &choice, p->err);

	if (r == 0)
		*bus = (enum config_bus)choice;
	return r;
}

int config_set_bool(struct config_parser *p, const char *option, const char *what,
		    const char *value, bool *flag)
{
	unsigned choice;
	int r = config_choice(option, what, value, on_off, &choice, p->err);

	if (r == 0)
		*flag = choice;
	return r;
}

int config_set_name(struct config_parser *p, const char *option, const char *what,
		    const char *value, char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789._-";
	struct config_quote quote;
	size_t len = strlen(value);

	if (len > CONFIG_ID_MAX || strspn(value, allowed) != len)
		return err_set(p->err, EINVAL,
			       "%s: %s takes up to %d letters, digits, '.', '_' or '-', not %s",
			       option, what, CONFIG_ID_MAX, config_quote(&quote, value));
	memcpy(name, value, len + 1);
	return 0;
}

void config_finish(struct config *config)
{
	if (!config)
		return;
	for (struct copy *copy = config->storage, *next; copy; copy = next) {
		next = copy->next;
		free(copy);
	}
	*config = (struct config){ 0 };
}
