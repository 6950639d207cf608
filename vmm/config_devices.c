#include "vmm/config_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "vmm/config_value.h"

/*
 * --disk, --net, --viommu: a table of keys each, and what can only be said when
 * all options are known.
 */

/* --disk */

static int disk_path(struct config_parser *p, unsigned i, const char *value)
{
	p->config->disk[i].path = value;
	return 0;
}

static int disk_readonly(struct config_parser *p, unsigned i, const char *value)
{
	return config_set_bool(p, "--disk", "readonly=", value, &p->config->disk[i].readonly);
}

static int disk_bus(struct config_parser *p, unsigned i, const char *value)
{
	return config_set_bus(p, "--disk", value, &p->config->disk[i].bus);
}

static int disk_iommu(struct config_parser *p, unsigned i, const char *value)
{
	return config_set_iommu(p, "--disk", value, &p->iommu_disk[i]);
}

static int disk_id(struct config_parser *p, unsigned i, const char *value)
{
	return config_set_id(p, "--disk", value, p->config->disk[i].id);
}

int config_parse_disk(struct config_parser *p, const char *value)
{
	static const struct config_key keys[] = {
		{ "path", "FILE", disk_path },	 { "readonly", "on|off", disk_readonly },
		{ "bus", "pci|mmio", disk_bus }, { "iommu", "on|off", disk_iommu },
		{ "id", "NAME", disk_id },	 { 0 },
	};
	struct config *config = p->config;
	unsigned i = config->num_disks;

	if (i == CONFIG_MAX_DISKS)
		return err_set(p->err, EINVAL, "--disk: a machine has at most %d disks",
			       CONFIG_MAX_DISKS);

	p->iommu_disk[i] = CONFIG_IOMMU_UNSAID;

	int r = config_parse_list(p, "--disk", keys, i, value);

	if (r < 0)
		return r;
	if (!config->disk[i].path)
		return err_set(p->err, EINVAL, "--disk needs path=FILE");
	config->num_disks++;
	return 0;
}

/* --net */

#define IFNAME_MAX 15 /* the kernel's IFNAMSIZ, less the NUL */

static int net_tap(struct config_parser *p, unsigned i, const char *value)
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

static int net_user(struct config_parser *p, unsigned i, const char *value)
{
	p->config->net[i].user = true;
	return 0;
}

static int net_mac(struct config_parser *p, unsigned i, const char *value)
{
	p->mac_said[i] = true;
	return config_mac("--net", value, p->config->net[i].mac, p->err);
}

static int net_bus(struct config_parser *p, unsigned i, const char *value)
{
	return config_set_bus(p, "--net", value, &p->config->net[i].bus);
}

static int net_iommu(struct config_parser *p, unsigned i, const char *value)
{
	return config_set_iommu(p, "--net", value, &p->iommu_net[i]);
}

static int net_id(struct config_parser *p, unsigned i, const char *value)
{
	return config_set_id(p, "--net", value, p->config->net[i].id);
}

int config_parse_net(struct config_parser *p, const char *value)
{
	static const struct config_key keys[] = {
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

	p->iommu_net[i] = CONFIG_IOMMU_UNSAID;

	int r = config_parse_list(p, "--net", keys, i, value);

	if (r < 0)
		return r;
	if (config->net[i].user == (config->net[i].tap != NULL))
		return err_set(p->err, EINVAL, "--net needs %stap=IFNAME or user",
			       config->net[i].user ? "either " : "");
	config->num_nets++;
	return 0;
}

/* --viommu */

static int viommu_bus(struct config_parser *p, unsigned i, const char *value)
{
	return config_set_bus(p, "--viommu", value, &p->config->viommu.bus);
}

static int viommu_bypass(struct config_parser *p, unsigned i, const char *value)
{
	return config_set_bool(p, "--viommu", "bypass=", value, &p->config->viommu.bypass);
}

static int viommu_width(struct config_parser *p, unsigned i, const char *value)
{
	uint64_t bits;
	int r = config_number("--viommu: address-width=", value, CONFIG_MIN_ADDRESS_WIDTH,
			      CONFIG_MAX_ADDRESS_WIDTH, &bits, p->err);

	if (r == 0)
		p->config->viommu.address_width = (unsigned)bits;
	return r;
}

int config_parse_viommu(struct config_parser *p, const char *value)
{
	static const struct config_key keys[] = {
		{ "bus", "pci|mmio", viommu_bus },
		{ "bypass", "on|off", viommu_bypass },
		{ "address-width", "BITS", viommu_width },
		{ 0 },
	};

	p->config->viommu.present = true;
	return value ? config_parse_list(p, "--viommu", keys, 0, value) : 0;
}

/* When all options are known. */

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

static int resolve_iommu(struct config_parser *p, const char *option, const char *id,
			 unsigned choice, bool *ret_iommu)
{
	bool present = p->config->viommu.present;

	if (choice == CONFIG_IOMMU_ON && !present)
		return err_set(p->err, EINVAL, "%s: iommu=on (of %s) needs --viommu", option, id);
	*ret_iommu = choice == CONFIG_IOMMU_UNSAID ? present : choice == CONFIG_IOMMU_ON;
	return 0;
}

static int resolve(struct config_parser *p)
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

static int check_ids(struct config_parser *p)
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

static int check_macs(struct config_parser *p)
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

int config_resolve_devices(struct config_parser *p)
{
	int r = resolve(p);

	if (r == 0)
		r = check_ids(p);
	if (r == 0)
		r = check_macs(p);
	return r;
}
