#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/config.h"

/*
 * The command line, from hostile words. The input is cut into arguments at each
 * newline, so that mutations make and join words.
 *
 * What must hold for whatever is typed: a refused line has one line of words to
 * show; an accepted one keeps every promise that machine.c builds on.
 */

#define MAX_ARGS 64

static void check_iommu(const struct config *config, unsigned iommu, const char *id)
{
	assert(id[0] && strlen(id) <= CONFIG_ID_MAX);
	assert(iommu == CONFIG_NO_IOMMU || iommu < config->num_viommus);
}

static void check_accepted(const struct config *config)
{
	assert(config->kernel && config->kernel[0]);
	assert(config->cmdline);
	assert(config->cpus >= 1 && config->cpus <= CONFIG_MAX_CPUS);
	assert(config->memory >= CONFIG_MIN_MEMORY && config->memory <= CONFIG_MAX_MEMORY);
	assert(config->memory % CONFIG_MEMORY_STEP == 0);
	assert(config->max_mappings >= 1 && config->max_mappings <= CONFIG_MAX_MAPPINGS);
	assert(config->num_disks <= CONFIG_MAX_DISKS && config->num_nets <= CONFIG_MAX_NETS);
	assert(config->num_viommus <= CONFIG_MAX_VIOMMUS);
	assert((config->console == CONFIG_CONSOLE_FILE) == (config->console_file != NULL));
	check_iommu(config, config->rng_iommu, "rng");
	for (unsigned i = 0; i < config->num_viommus; i++) {
		const struct config_viommu *viommu = &config->viommu[i];

		check_iommu(config, CONFIG_NO_IOMMU, viommu->name);
		assert(viommu->address_width >= CONFIG_MIN_ADDRESS_WIDTH &&
		       viommu->address_width <= CONFIG_MAX_ADDRESS_WIDTH);
		assert(viommu->max_mappings >= 1 && viommu->max_mappings <= CONFIG_MAX_MAPPINGS);
		assert(viommu->granule >= CONFIG_MIN_GRANULE &&
		       viommu->granule <= CONFIG_MAX_GRANULE &&
		       !(viommu->granule & (viommu->granule - 1)));
	}
	for (unsigned i = 0; i < config->num_disks; i++) {
		assert(config->disk[i].path && config->disk[i].path[0]);
		check_iommu(config, config->disk[i].iommu, config->disk[i].id);
	}
	for (unsigned i = 0; i < config->num_nets; i++) {
		assert(config->net[i].user == (config->net[i].tap == NULL));
		assert(!(config->net[i].mac[0] & 1));
		check_iommu(config, config->net[i].iommu, config->net[i].id);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *rest = text, *word;
	char *argv[MAX_ARGS];
	int argc = 0;
	struct config config;
	struct err err = { 0 };

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	while (argc < MAX_ARGS && (word = strsep(&rest, "\n")))
		argv[argc++] = word;

	int r = config_parse(&config, argc, argv, &err);

	if (r == 0) {
		check_accepted(&config);
		config_finish(&config);
	} else if (r == CONFIG_HELP) {
		assert(!err.text[0]);
	} else {
		assert(err.text[0] && !strpbrk(err.text, "\r\n"));
		/* It wasn't cut off: the words fit. */
		assert(strlen(err.text) < sizeof(err.text) - 1);
	}
	free(text);
	return 0;
}
