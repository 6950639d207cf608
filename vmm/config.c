#include "vmm/config.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/config_value.h"

/*
 * From words to struct config in three steps:
 *
 *	1. Each argument is looked up in the table of options, whose function
 *	   checks the value and stores it. Nothing here depends on another option.
 *	2. An option with a value list (--disk, --net, --viommu) looks up each key
 *	   in a table of its own in the same way.
 *	3. resolve() fills in what depends on other options: names, addresses, who
 *	   is behind the IOMMU. Then check_X() refuses what contradicts itself.
 *
 * iommu= is therefore kept as "on", "off" or "not said" until step 3.
 */

enum iommu_choice { IOMMU_OFF, IOMMU_ON, IOMMU_UNSAID };

/* A value that had to be copied, because its commas were unescaped. */
struct copy {
	struct copy *next;
	char text[];
};

struct parser {
	struct config *config;
	struct err *err;
	unsigned iommu_disk[CONFIG_MAX_DISKS], iommu_net[CONFIG_MAX_NETS]; /* enum iommu_choice */
	bool mac_said[CONFIG_MAX_NETS];
};

static const char *const on_off[] = { "off", "on", NULL };
static const char *const bus_names[] = {
	[CONFIG_BUS_PCI] = "pci",
	[CONFIG_BUS_MMIO] = "mmio",
	NULL,
};

/* A copy of @text that lives as long as the config; NULL without memory. */
static char *keep(struct parser *p, const char *text)
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

/* Value lists. */

struct key {
	const char *name;
	const char *takes; /* for the error, "on|off" */
	/* Store @value for object number @index of its kind. 0 or -EINVAL with words. */
	int (*set)(struct parser *p, unsigned index, const char *value);
	bool bare; /* "key" alone, no value */
};

#define MAX_KEYS 8

static const struct key *find_key(struct parser *p, const char *option, const struct key *keys,
				  const char *name)
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

/* Parse @text, consumed in the course, by @keys (ended by a NULL name). */
static int parse_list(struct parser *p, const char *option, const struct key *keys, unsigned index,
		      char *text)
{
	char *name, *value;
	unsigned seen = 0;

	while (config_next_item(&text, &name, &value)) {
		const struct key *key = find_key(p, option, keys, name);

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

static int set_bus(struct parser *p, const char *option, const char *value, enum config_bus *bus)
{
	unsigned choice;
	int r = config_choice(option, "bus=", value, bus_names, &choice, p->err);

	if (r == 0)
		*bus = (enum config_bus)choice;
	return r;
}

static int set_bool(struct parser *p, const char *option, const char *what, const char *value,
		    bool *flag)
{
	unsigned choice;
	int r = config_choice(option, what, value, on_off, &choice, p->err);

	if (r == 0)
		*flag = choice;
	return r;
}

static int set_id(struct parser *p, const char *option, const char *value, char *id)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789._-";
	struct config_quote quote;
	size_t len = strlen(value);

	if (len > CONFIG_ID_MAX || strspn(value, allowed) != len)
		return err_set(p->err, EINVAL,
			       "%s: id= takes up to %d letters, digits, '.', '_' or '-', not %s",
			       option, CONFIG_ID_MAX, config_quote(&quote, value));
	memcpy(id, value, len + 1);
	return 0;
}

/* --disk */

static int disk_path(struct parser *p, unsigned i, const char *value)
{
	p->config->disk[i].path = value;
	return 0;
}

static int disk_readonly(struct parser *p, unsigned i, const char *value)
{
	return set_bool(p, "--disk", "readonly=", value, &p->config->disk[i].readonly);
}

static int disk_bus(struct parser *p, unsigned i, const char *value)
{
	return set_bus(p, "--disk", value, &p->config->disk[i].bus);
}

static int disk_iommu(struct parser *p, unsigned i, const char *value)
{
	return config_choice("--disk", "iommu=", value, on_off, &p->iommu_disk[i], p->err);
}

static int disk_id(struct parser *p, unsigned i, const char *value)
{
	return set_id(p, "--disk", value, p->config->disk[i].id);
}

static int parse_disk(struct parser *p, const char *value)
{
	static const struct key keys[] = {
		{ "path", "FILE", disk_path },	 { "readonly", "on|off", disk_readonly },
		{ "bus", "pci|mmio", disk_bus }, { "iommu", "on|off", disk_iommu },
		{ "id", "NAME", disk_id },	 { 0 },
	};
	struct config *config = p->config;
	unsigned i = config->num_disks;

	if (i == CONFIG_MAX_DISKS)
		return err_set(p->err, EINVAL, "--disk: a machine has at most %d disks",
			       CONFIG_MAX_DISKS);

	char *text = keep(p, value);

	if (!text)
		return -ENOMEM;
	p->iommu_disk[i] = IOMMU_UNSAID;

	int r = parse_list(p, "--disk", keys, i, text);

	if (r < 0)
		return r;
	if (!config->disk[i].path)
		return err_set(p->err, EINVAL, "--disk needs path=FILE");
	config->num_disks++;
	return 0;
}

/* --net */

#define IFNAME_MAX 15 /* the kernel's IFNAMSIZ, less the NUL */

static int net_tap(struct parser *p, unsigned i, const char *value)
{
	struct config_quote quote;

	if (strlen(value) > IFNAME_MAX || strpbrk(value, "/ \t\n:") || !strcmp(value, ".") ||
	    !strcmp(value, ".."))
		return err_set(p->err, EINVAL,
			       "--net: tap= takes an interface's name of up to %d characters, "
			       "not %s",
			       IFNAME_MAX, config_quote(&quote, value));
	p->config->net[i].tap = value;
	return 0;
}

static int net_user(struct parser *p, unsigned i, const char *value)
{
	p->config->net[i].user = true;
	return 0;
}

static int net_mac(struct parser *p, unsigned i, const char *value)
{
	p->mac_said[i] = true;
	return config_mac("--net", value, p->config->net[i].mac, p->err);
}

static int net_bus(struct parser *p, unsigned i, const char *value)
{
	return set_bus(p, "--net", value, &p->config->net[i].bus);
}

static int net_iommu(struct parser *p, unsigned i, const char *value)
{
	return config_choice("--net", "iommu=", value, on_off, &p->iommu_net[i], p->err);
}

static int net_id(struct parser *p, unsigned i, const char *value)
{
	return set_id(p, "--net", value, p->config->net[i].id);
}

static int parse_net(struct parser *p, const char *value)
{
	static const struct key keys[] = {
		{ "tap", "IFNAME", net_tap },
		{ "user", NULL, net_user, .bare = true },
		{ "mac", "ADDR", net_mac },
		{ "bus", "pci|mmio", net_bus },
		{ "iommu", "on|off", net_iommu },
		{ "id", "NAME", net_id },
		{ 0 },
	};
	struct config *config = p->config;
	unsigned i = config->num_nets;

	if (i == CONFIG_MAX_NETS)
		return err_set(p->err, EINVAL, "--net: a machine has at most %d network cards",
			       CONFIG_MAX_NETS);

	char *text = keep(p, value);

	if (!text)
		return -ENOMEM;
	p->iommu_net[i] = IOMMU_UNSAID;

	int r = parse_list(p, "--net", keys, i, text);

	if (r < 0)
		return r;
	if (config->net[i].user == (config->net[i].tap != NULL))
		return err_set(p->err, EINVAL, "--net needs %stap=IFNAME or user",
			       config->net[i].user ? "either " : "");
	config->num_nets++;
	return 0;
}

/* --viommu */

static int viommu_bus(struct parser *p, unsigned i, const char *value)
{
	return set_bus(p, "--viommu", value, &p->config->viommu.bus);
}

static int viommu_bypass(struct parser *p, unsigned i, const char *value)
{
	return set_bool(p, "--viommu", "bypass=", value, &p->config->viommu.bypass);
}

static int viommu_width(struct parser *p, unsigned i, const char *value)
{
	uint64_t bits;
	int r = config_number("--viommu: address-width=", value, CONFIG_MIN_ADDRESS_WIDTH,
			      CONFIG_MAX_ADDRESS_WIDTH, &bits, p->err);

	if (r == 0)
		p->config->viommu.address_width = (unsigned)bits;
	return r;
}

static int parse_viommu(struct parser *p, const char *value)
{
	static const struct key keys[] = {
		{ "bus", "pci|mmio", viommu_bus },
		{ "bypass", "on|off", viommu_bypass },
		{ "address-width", "BITS", viommu_width },
		{ 0 },
	};

	p->config->viommu.present = true;
	if (!value)
		return 0;

	char *text = keep(p, value);

	return text ? parse_list(p, "--viommu", keys, 0, text) : -ENOMEM;
}

/* The other options. */

static int parse_kernel(struct parser *p, const char *value)
{
	p->config->kernel = value;
	return 0;
}

static int parse_initrd(struct parser *p, const char *value)
{
	p->config->initrd = value;
	return 0;
}

static int parse_cmdline(struct parser *p, const char *value)
{
	p->config->cmdline = value;
	return 0;
}

static int parse_cpus(struct parser *p, const char *value)
{
	uint64_t n;
	int r = config_number("--cpus", value, 1, CONFIG_MAX_CPUS, &n, p->err);

	if (r == 0)
		p->config->cpus = (unsigned)n;
	return r;
}

static int parse_memory(struct parser *p, const char *value)
{
	uint64_t bytes;
	int r = config_size("--memory", value, &bytes, p->err);

	if (r < 0)
		return r;

	const char *last = value + strlen(value) - 1;

	/* Who writes 512 means what other tools mean by it, which isn't what it says. */
	if (bytes < CONFIG_MIN_MEMORY && *last >= '0' && *last <= '9' && bytes)
		return err_set(p->err, EINVAL,
			       "--memory %llu: that is %llu bytes; did you mean %lluM?",
			       (unsigned long long)bytes, (unsigned long long)bytes,
			       (unsigned long long)bytes);
	if (bytes < CONFIG_MIN_MEMORY || bytes > CONFIG_MAX_MEMORY)
		return err_set(p->err, EINVAL, "--memory takes a size from %lluM to %lluG",
			       (unsigned long long)(CONFIG_MIN_MEMORY >> 20),
			       (unsigned long long)(CONFIG_MAX_MEMORY >> 30));
	if (bytes % CONFIG_MEMORY_STEP)
		return err_set(p->err, EINVAL,
			       "--memory takes a multiple of %lluM; the next one is %lluM",
			       (unsigned long long)(CONFIG_MEMORY_STEP >> 20),
			       (unsigned long long)(ALIGN_UP(bytes, CONFIG_MEMORY_STEP) >> 20));
	p->config->memory = bytes;
	return 0;
}

static int parse_rng(struct parser *p, const char *value)
{
	p->config->rng = true;
	return 0;
}

static int parse_console(struct parser *p, const char *value)
{
	static const char file[] = "file=";
	static const char *const kinds[] = {
		[CONFIG_CONSOLE_STDIO] = "stdio",
		[CONFIG_CONSOLE_NONE] = "none",
		[CONFIG_CONSOLE_FILE] = "file=PATH",
		NULL,
	};
	unsigned kind;

	if (!strncmp(value, file, strlen(file)) && value[strlen(file)]) {
		p->config->console = CONFIG_CONSOLE_FILE;
		p->config->console_file = value + strlen(file);
		return 0;
	}

	int r = config_choice("--console", "", value, kinds, &kind, p->err);

	if (r < 0)
		return r;
	/* Somebody typed the placeholder: a file of that name is surely not meant. */
	if (kind == CONFIG_CONSOLE_FILE)
		return err_set(p->err, EINVAL, "--console file=PATH: give a file's name for PATH");
	p->config->console = (enum config_console)kind;
	return 0;
}

static int parse_on_reset(struct parser *p, const char *value)
{
	static const char *const actions[] = { "exit", "reboot", NULL };
	unsigned action;
	int r = config_choice("--on-reset", "", value, actions, &action, p->err);

	if (r == 0)
		p->config->reboot = action;
	return r;
}

static int parse_dump_tables(struct parser *p, const char *value)
{
	p->config->dump_tables = value;
	return 0;
}

static int parse_verbose(struct parser *p, const char *value)
{
	p->config->verbose = true;
	return 0;
}

/* The table of options. */

enum takes { TAKES_VALUE, TAKES_OPTIONAL, TAKES_NOTHING };

struct option {
	const char *name;
	enum takes takes;
	const char *value; /* for the error: what it takes */
	int (*parse)(struct parser *p, const char *value);
	bool repeats;
	bool may_be_empty;
};

static const struct option options[] = {
	{ "--kernel", TAKES_VALUE, "FILE", parse_kernel },
	{ "--initrd", TAKES_VALUE, "FILE", parse_initrd },
	{ "--cmdline", TAKES_VALUE, "TEXT", parse_cmdline, .may_be_empty = true },
	{ "--cpus", TAKES_VALUE, "N", parse_cpus },
	{ "--memory", TAKES_VALUE, "SIZE", parse_memory },
	{ "--disk", TAKES_VALUE, "path=FILE", parse_disk, .repeats = true },
	{ "--net", TAKES_VALUE, "tap=IFNAME or user", parse_net, .repeats = true },
	{ "--viommu", TAKES_OPTIONAL, "bus=pci|mmio, bypass=on|off, address-width=BITS",
	  parse_viommu },
	{ "--rng", TAKES_NOTHING, NULL, parse_rng },
	{ "--console", TAKES_VALUE, "stdio, none or file=PATH", parse_console },
	{ "--on-reset", TAKES_VALUE, "exit or reboot", parse_on_reset },
	{ "--dump-tables", TAKES_VALUE, "DIR", parse_dump_tables },
	{ "--verbose", TAKES_NOTHING, NULL, parse_verbose, .repeats = true },
};

static int unknown_option(struct parser *p, const char *arg, size_t len)
{
	const char *names[ARRAY_SIZE(options) + 1] = { NULL };
	char typed[64], near[ARRAY_SIZE(typed) + 2];
	struct config_quote quote;

	for (unsigned i = 0; i < ARRAY_SIZE(options); i++)
		names[i] = options[i].name;
	/* Without the value; "-memory" and "-m" are typing errors too. */
	snprintf(typed, sizeof(typed), "%.*s", (int)MIN(len, sizeof(typed)), arg);

	const char *bare = typed + strspn(typed, "-");

	snprintf(near, sizeof(near), "--%s", bare);

	const char *nearest = *bare ? config_nearest(near, names) : NULL;

	if (nearest)
		return err_set(p->err, EINVAL, "unknown option %s; did you mean %s?",
			       config_quote(&quote, typed), nearest);
	return err_set(p->err, EINVAL, "unknown option %s; 'moat help run' lists them",
		       config_quote(&quote, typed));
}

static const struct option *find_option(const char *arg, size_t len)
{
	for (unsigned i = 0; i < ARRAY_SIZE(options); i++)
		if (strlen(options[i].name) == len && !memcmp(options[i].name, arg, len))
			return &options[i];
	return NULL;
}

/*
 * Parse the option at @argv[0]. Returns how many arguments it took, 1 or 2, or
 * -EINVAL, -ENOMEM.
 */
static int parse_option(struct parser *p, int argc, char *const argv[], unsigned *seen)
{
	const char *arg = argv[0];
	size_t len = strcspn(arg, "=");
	const char *value = arg[len] ? arg + len + 1 : NULL;
	const struct option *option = find_option(arg, len);
	struct config_quote quote;
	int took = 1;

	if (arg[0] != '-')
		return err_set(p->err, EINVAL, "unexpected argument %s; 'moat help run' shows how",
			       config_quote(&quote, arg));
	if (!option)
		return unknown_option(p, arg, len);

	unsigned bit = 1u << (option - options);

	if (*seen & bit && !option->repeats)
		return err_set(p->err, EINVAL, "%s is given twice", option->name);
	*seen |= bit;
	if (option->takes == TAKES_NOTHING && value)
		return err_set(p->err, EINVAL, "%s takes no value", option->name);
	if (option->takes == TAKES_VALUE && !value) {
		/* A value that looks like an option is more often one that was forgotten. */
		if (argc < 2 || !strncmp(argv[1], "--", 2))
			return err_set(p->err, EINVAL, "%s needs a value: %s%s", option->name,
				       option->value,
				       argc < 2 ? "" : " (one that begins with -- after a '=')");
		value = argv[1];
		took = 2;
	}
	if (value && !*value && !option->may_be_empty)
		return err_set(p->err, EINVAL, "%s needs a value: %s", option->name, option->value);
	/* "--viommu bus=mmio" reads well but the value would be a stray argument. */
	if (option->takes == TAKES_OPTIONAL && !value && argc > 1 && argv[1][0] != '-')
		return err_set(p->err, EINVAL,
			       "unexpected argument %s; a value of %s comes after a '=': %s=...",
			       config_quote(&quote, argv[1]), option->name, option->name);

	int r = option->parse(p, value);

	return r < 0 ? r : took;
}

/* Step 3. */

/*
 * 52:54:00 and 24 bits of the id's FNV-1a hash: the same in every run, so that
 * a guest recognises its card.
 */
static void default_mac(const char *id, uint8_t mac[6])
{
	uint32_t hash = 2166136261u;

	for (; *id; id++)
		hash = (hash ^ (uint8_t)*id) * 16777619u;
	hash ^= hash >> 24;
	mac[0] = 0x52;
	mac[1] = 0x54;
	mac[2] = 0x00;
	mac[3] = (uint8_t)(hash >> 16);
	mac[4] = (uint8_t)(hash >> 8);
	mac[5] = (uint8_t)hash;
}

static int resolve_iommu(struct parser *p, const char *option, const char *id, unsigned choice,
			 bool *ret_iommu)
{
	bool present = p->config->viommu.present;

	if (choice == IOMMU_ON && !present)
		return err_set(p->err, EINVAL, "%s: iommu=on (of %s) needs --viommu", option, id);
	*ret_iommu = choice == IOMMU_UNSAID ? present : choice == IOMMU_ON;
	return 0;
}

static int resolve(struct parser *p)
{
	struct config *config = p->config;
	int r = 0;

	for (unsigned i = 0; i < config->num_disks && r == 0; i++) {
		struct config_disk *disk = &config->disk[i];

		if (!disk->id[0])
			snprintf(disk->id, sizeof(disk->id), "disk%u", i);
		r = resolve_iommu(p, "--disk", disk->id, p->iommu_disk[i], &disk->iommu);
	}
	for (unsigned i = 0; i < config->num_nets && r == 0; i++) {
		struct config_net *net = &config->net[i];

		if (!net->id[0])
			snprintf(net->id, sizeof(net->id), "net%u", i);
		if (!p->mac_said[i])
			default_mac(net->id, net->mac);
		r = resolve_iommu(p, "--net", net->id, p->iommu_net[i], &net->iommu);
	}
	config->rng_iommu = config->rng && config->viommu.present;
	return r;
}

/* The id and option of device @i, disks first. */
static const char *device_id(const struct config *config, unsigned i, const char **ret_option)
{
	*ret_option = i < config->num_disks ? "--disk" : "--net";
	return i < config->num_disks ? config->disk[i].id : config->net[i - config->num_disks].id;
}

static int check_ids(struct parser *p)
{
	const struct config *config = p->config;
	unsigned count = config->num_disks + config->num_nets;
	const char *option, *other;

	for (unsigned i = 0; i < count; i++) {
		const char *id = device_id(config, i, &option);

		for (unsigned j = 0; j < i; j++)
			if (!strcmp(id, device_id(config, j, &other)))
				return err_set(p->err, EINVAL,
					       "%s: the id %s is already taken by a %s; give each "
					       "its own with id=NAME",
					       option, id, other);
	}
	return 0;
}

static int check_macs(struct parser *p)
{
	const struct config *config = p->config;

	for (unsigned i = 0; i < config->num_nets; i++)
		for (unsigned j = 0; j < i; j++)
			if (!memcmp(config->net[i].mac, config->net[j].mac, 6))
				return err_set(p->err, EINVAL,
					       "--net: %s and %s have the same mac=; give each its "
					       "own",
					       config->net[j].id, config->net[i].id);
	return 0;
}

static int parse_all(struct parser *p, int argc, char *const argv[])
{
	unsigned seen = 0;
	int r;

	for (int i = 0; i < argc; i += r) {
		r = parse_option(p, argc - i, argv + i, &seen);
		if (r < 0)
			return r;
	}
	if (!p->config->kernel)
		return err_set(p->err, EINVAL,
			       "--kernel FILE is missing; 'moat help run' shows how");
	r = resolve(p);
	if (r < 0)
		return r;
	r = check_ids(p);
	if (r < 0)
		return r;
	return check_macs(p);
}

int config_parse(struct config *config, int argc, char *const argv[], struct err *err)
{
	struct config parsed = {
		.cmdline = "",
		.cpus = 1,
		.memory = MIB(512),
		.viommu = { .address_width = 48 },
		.console = CONFIG_CONSOLE_STDIO,
	};
	struct parser p = { .config = &parsed, .err = err };
	int r = parse_all(&p, argc, argv);

	if (r < 0) {
		config_finish(&parsed);
		return r;
	}
	*config = parsed;
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
