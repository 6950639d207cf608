#include "vmm/config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "vmm/config_internal.h"
#include "vmm/config_value.h"
#include "devices/iommu/iommu.h"

/*
 * From words to struct config in three steps:
 *
 *	1. Each argument is looked up in the table of options, whose function
 *	   checks the value and stores it. Nothing here depends on another option.
 *	2. An option with a value list (--disk, --net, --vfio, --viommu) looks up each key
 *	   in a table of its own in the same way (config_devices.c, config_list.c).
 *	3. config_resolve_devices() fills in what depends on other options: names,
 *	   addresses, who is behind the IOMMU. Then it refuses what contradicts itself.
 */

/* The other options. */

static int parse_kernel(struct config_parser *p, const char *value)
{
	p->config->kernel = value;
	return 0;
}

static int parse_initrd(struct config_parser *p, const char *value)
{
	p->config->initrd = value;
	return 0;
}

static int parse_cmdline(struct config_parser *p, const char *value)
{
	p->config->cmdline = value;
	return 0;
}

static int parse_max_mappings(struct config_parser *p, const char *value)
{
	return config_number("--max-mappings", value, 1, CONFIG_MAX_MAPPINGS,
			     &p->config->max_mappings, p->err);
}

static int parse_cpus(struct config_parser *p, const char *value)
{
	return config_unsigned("--cpus", value, 1, CONFIG_MAX_CPUS, &p->config->cpus, p->err);
}

static int parse_memory(struct config_parser *p, const char *value)
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

static int parse_rng(struct config_parser *p, const char *value)
{
	p->config->rng = true;
	return 0;
}

static int parse_console(struct config_parser *p, const char *value)
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

static int parse_on_reset(struct config_parser *p, const char *value)
{
	static const char *const actions[] = { "exit", "reboot", NULL };
	unsigned action;
	int r = config_choice("--on-reset", "", value, actions, &action, p->err);

	if (r == 0)
		p->config->reboot = action;
	return r;
}

static int parse_vfio_backend(struct config_parser *p, const char *value)
{
	static const char *const backends[] = { [CONFIG_VFIO_AUTO] = "auto",
						[CONFIG_VFIO_IOMMUFD] = "iommufd",
						[CONFIG_VFIO_TYPE1] = "type1",
						NULL };
	unsigned backend;
	int r = config_choice("--vfio-backend", "", value, backends, &backend, p->err);

	if (r == 0)
		p->config->vfio_backend = backend;
	return r;
}

static int parse_dump_tables(struct config_parser *p, const char *value)
{
	p->config->dump_tables = value;
	return 0;
}

static int parse_verbose(struct config_parser *p, const char *value)
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
	int (*parse)(struct config_parser *p, const char *value);
	bool repeats;
	bool may_be_empty;
};

static const struct option options[] = {
	{ "--kernel", TAKES_VALUE, "FILE", parse_kernel },
	{ "--initrd", TAKES_VALUE, "FILE", parse_initrd },
	{ "--cmdline", TAKES_VALUE, "TEXT", parse_cmdline, .may_be_empty = true },
	{ "--cpus", TAKES_VALUE, "N", parse_cpus },
	{ "--memory", TAKES_VALUE, "SIZE", parse_memory },
	{ "--disk", TAKES_VALUE, "path=FILE", config_parse_disk, .repeats = true },
	{ "--net", TAKES_VALUE, "tap=IFNAME or user", config_parse_net, .repeats = true },
	{ "--vfio", TAKES_VALUE, "BDF", config_parse_vfio, .repeats = true },
	{ "--vfio-backend", TAKES_VALUE, "auto, iommufd or type1", parse_vfio_backend },
	{ "--viommu", TAKES_OPTIONAL,
	  "name=NAME, bus=pci|mmio, bypass=on|off, address-width=BITS, granule=SIZE, "
	  "max-mappings=N",
	  config_parse_viommu, .repeats = true },
	{ "--max-mappings", TAKES_VALUE, "N", parse_max_mappings },
	{ "--rng", TAKES_NOTHING, NULL, parse_rng },
	{ "--console", TAKES_VALUE, "stdio, none or file=PATH", parse_console },
	{ "--on-reset", TAKES_VALUE, "exit or reboot", parse_on_reset },
	{ "--dump-tables", TAKES_VALUE, "DIR", parse_dump_tables },
	{ "--verbose", TAKES_NOTHING, NULL, parse_verbose, .repeats = true },
};

static int unknown_option(struct config_parser *p, const char *arg, size_t len)
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

bool config_is_help(const char *arg)
{
	return !strcmp(arg, "--help") || !strcmp(arg, "-h");
}

/*
 * Parse the option at @argv[0]. Returns how many arguments it took, 1 or 2, or
 * -EINVAL, -ENOMEM.
 */
static int parse_option(struct config_parser *p, int argc, char *const argv[], unsigned *seen)
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

static int parse_all(struct config_parser *p, int argc, char *const argv[])
{
	unsigned seen = 0;
	int r;

	for (int i = 0; i < argc; i += r) {
		if (config_is_help(argv[i]))
			return CONFIG_HELP;
		r = parse_option(p, argc - i, argv + i, &seen);
		if (r < 0)
			return r;
	}
	if (!p->config->kernel)
		return err_set(p->err, EINVAL,
			       "--kernel FILE is missing; 'moat help run' shows how");
	return config_resolve_devices(p);
}

int config_parse(struct config *config, int argc, char *const argv[], struct err *err)
{
	struct config parsed = {
		.cmdline = "",
		.cpus = 1,
		.max_mappings = IOMMU_DEFAULT_TOTAL_MAPPINGS,
		.memory = MIB(512),
		.console = CONFIG_CONSOLE_STDIO,
	};
	struct config_parser p = { .config = &parsed, .err = err };
	int r = parse_all(&p, argc, argv);

	if (r) {
		config_finish(&parsed);
		return r;
	}
	*config = parsed;
	return 0;
}
