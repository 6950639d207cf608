#include "vmm/config_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "vmm/config_value.h"
#include "devices/iommu/iommu.h"

/*
 * --disk, --net, --vfio, --viommu: a table of keys each, and what can only be said when
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

static int disk_queues(struct config_parser *p, unsigned i, const char *value)
{
	return config_unsigned("--disk: queues=", value, 1, CONFIG_MAX_DISK_QUEUES,
			       &p->config->disk[i].queues, p->err);
}

static int disk_queue_size(struct config_parser *p, unsigned i, const char *value)
{
	unsigned *size = &p->config->disk[i].queue_size;
	struct config_quote quote;
	int r = config_unsigned("--disk: queue-size=", value, CONFIG_MIN_QUEUE_SIZE,
				CONFIG_MAX_QUEUE_SIZE, size, p->err);

	if (r == 0 && *size & (*size - 1))
		return err_set(p->err, EINVAL, "--disk: queue-size= takes a power of two, not %s",
			       config_quote(&quote, value));
	return r;
}

static int disk_bus(struct config_parser *p, unsigned i, const char *value)
{
	return config_set_bus(p, "--disk", value, &p->config->disk[i].bus);
}

static int disk_iommu(struct config_parser *p, unsigned i, const char *value)
{
	p->iommu_disk[i] = value;
	return 0;
}

static int disk_id(struct config_parser *p, unsigned i, const char *value)
{
	return config_set_name(p, "--disk", "id=", value, p->config->disk[i].id);
}

int config_parse_disk(struct config_parser *p, const char *value)
{
	static const struct config_key keys[] = {
		{ "path", "FILE", disk_path },	 { "readonly", "on|off", disk_readonly },
		{ "queues", "N", disk_queues },	 { "queue-size", "N", disk_queue_size },
		{ "bus", "pci|mmio", disk_bus }, { "iommu", "on|off|NAME", disk_iommu },
		{ "id", "NAME", disk_id },	 { 0 },
	};
	struct config *config = p->config;
	unsigned i = config->num_disks;

	if (i == CONFIG_MAX_DISKS)
		return err_set(p->err, EINVAL, "--disk: a machine has at most %d disks",
			       CONFIG_MAX_DISKS);

	config->disk[i].queues = CONFIG_DEFAULT_DISK_QUEUES;
	config->disk[i].queue_size = CONFIG_DEFAULT_QUEUE_SIZE;

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
	p->iommu_net[i] = value;
	return 0;
}

static int net_id(struct config_parser *p, unsigned i, const char *value)
{
	return config_set_name(p, "--net", "id=", value, p->config->net[i].id);
}

int config_parse_net(struct config_parser *p, const char *value)
{
	static const struct config_key keys[] = {
		{ "tap", "IFNAME", net_tap },
		{ "user", NULL, net_user, .bare = true },
		{ "mac", "ADDR", net_mac },
		{ "bus", "pci|mmio", net_bus },
		{ "iommu", "on|off|NAME", net_iommu },
		{ "id", "NAME", net_id },
		{ 0 },
	};
	struct config *config = p->config;
	unsigned i = config->num_nets;

	if (i == CONFIG_MAX_NETS)
		return err_set(p->err, EINVAL, "--net: a machine has at most %d network cards",
			       CONFIG_MAX_NETS);

	int r = config_parse_list(p, "--net", keys, i, value);

	if (r < 0)
		return r;
	if (config->net[i].user == (config->net[i].tap != NULL))
		return err_set(p->err, EINVAL, "--net needs %stap=IFNAME or user",
			       config->net[i].user ? "either " : "");
	config->num_nets++;
	return 0;
}

/* --vfio */

static int vfio_iommu(struct config_parser *p, unsigned i, const char *value)
{
	p->iommu_vfio[i] = value;
	return 0;
}

static int vfio_id(struct config_parser *p, unsigned i, const char *value)
{
	return config_set_name(p, "--vfio", "id=", value, p->config->vfio[i].id);
}

int config_parse_vfio(struct config_parser *p, const char *value)
{
	static const struct config_key keys[] = {
		{ "iommu", "on|off|NAME", vfio_iommu },
		{ "id", "NAME", vfio_id },
		{ 0 },
	};
	struct config *config = p->config;
	unsigned i = config->num_vfios;
	size_t len = strcspn(value, ",");

	if (i == CONFIG_MAX_VFIOS)
		return err_set(p->err, EINVAL,
			       "--vfio: a machine has at most %d devices of the host",
			       CONFIG_MAX_VFIOS);

	int r = config_bdf("--vfio", value, len, config->vfio[i].bdf, p->err);

	if (r == 0 && value[len])
		r = config_parse_list(p, "--vfio", keys, i, value + len + 1);
	if (r == 0)
		config->num_vfios++;
	return r;
}

/* --viommu */

static int viommu_name(struct config_parser *p, unsigned i, const char *value)
{
	if (!strcmp(value, "on") || !strcmp(value, "off"))
		return err_set(p->err, EINVAL,
			       "--viommu: name=%s would mean something else in a device's iommu=%s",
			       value, value);
	return config_set_name(p, "--viommu", "name=", value, p->config->viommu[i].name);
}

static int viommu_bus(struct config_parser *p, unsigned i, const char *value)
{
	return config_set_bus(p, "--viommu", value, &p->config->viommu[i].bus);
}

static int viommu_bypass(struct config_parser *p, unsigned i, const char *value)
{
	return config_set_bool(p, "--viommu", "bypass=", value, &p->config->viommu[i].bypass);
}

static int viommu_width(struct config_parser *p, unsigned i, const char *value)
{
	return config_unsigned("--viommu: address-width=", value, CONFIG_MIN_ADDRESS_WIDTH,
			       CONFIG_MAX_ADDRESS_WIDTH, &p->config->viommu[i].address_width,
			       p->err);
}

static int viommu_granule(struct config_parser *p, unsigned i, const char *value)
{
	struct config_quote quote;
	uint64_t bytes;
	int r = config_size("--viommu: granule=", value, &bytes, p->err);

	if (r < 0)
		return r;
	if (bytes < CONFIG_MIN_GRANULE || bytes > CONFIG_MAX_GRANULE || bytes & (bytes - 1))
		return err_set(
			p->err, EINVAL,
			"--viommu: granule= takes a power of two from %lluK to %lluG, not %s",
			(unsigned long long)(CONFIG_MIN_GRANULE >> 10),
			(unsigned long long)(CONFIG_MAX_GRANULE >> 30),
			config_quote(&quote, value));
	p->config->viommu[i].granule = bytes;
	return 0;
}

static int viommu_max_mappings(struct config_parser *p, unsigned i, const char *value)
{
	return config_number("--viommu: max-mappings=", value, 1, CONFIG_MAX_MAPPINGS,
			     &p->config->viommu[i].max_mappings, p->err);
}

int config_parse_viommu(struct config_parser *p, const char *value)
{
	static const struct config_key keys[] = {
		{ "name", "NAME", viommu_name },
		{ "bus", "pci|mmio", viommu_bus },
		{ "bypass", "on|off", viommu_bypass },
		{ "address-width", "BITS", viommu_width },
		{ "granule", "SIZE", viommu_granule },
		{ "max-mappings", "N", viommu_max_mappings },
		{ 0 },
	};
	struct config *config = p->config;
	unsigned i = config->num_viommus;

	if (i == CONFIG_MAX_VIOMMUS)
		return err_set(p->err, EINVAL, "--viommu: a machine has at most %d IOMMUs",
			       CONFIG_MAX_VIOMMUS);
	config->viommu[i].address_width = 48;
	config->viommu[i].granule = CONFIG_MIN_GRANULE;
	config->viommu[i].max_mappings = IOMMU_DEFAULT_DOMAIN_MAPPINGS;

	int r = value ? config_parse_list(p, "--viommu", keys, i, value) : 0;

	if (r == 0)
		config->num_viommus++;
	return r;
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

/* Name the IOMMUs. *@ret_default is the one of devices that name none. */
static int resolve_viommus(struct config_parser *p, unsigned *ret_default)
{
	struct config *config = p->config;
	unsigned unnamed = CONFIG_NO_IOMMU;

	for (unsigned i = 0; i < config->num_viommus; i++) {
		struct config_viommu *viommu = &config->viommu[i];

		if (viommu->name[0])
			continue;
		if (unnamed != CONFIG_NO_IOMMU)
			return err_set(p->err, EINVAL,
				       "--viommu is given twice without a name; tell them apart "
				       "with name=NAME");
		unnamed = i;
		snprintf(viommu->name, sizeof(viommu->name), "viommu");
	}
	*ret_default = unnamed != CONFIG_NO_IOMMU ? unnamed
		       : config->num_viommus	  ? 0
						  : CONFIG_NO_IOMMU;
	return 0;
}

/* Which IOMMU @choice means, what device @id said after iommu= (NULL: nothing). */
static int resolve_iommu(struct config_parser *p, const char *option, const char *id,
			 const char *choice, unsigned default_iommu, unsigned *ret_iommu)
{
	const struct config *config = p->config;
	const char *names[CONFIG_MAX_VIOMMUS + 1] = { NULL };
	struct config_quote quote;
	bool on = choice && !strcmp(choice, "on");

	if (on && default_iommu == CONFIG_NO_IOMMU)
		return err_set(p->err, EINVAL, "%s: iommu=on (of %s) needs --viommu", option, id);
	if (!choice || on || !strcmp(choice, "off")) {
		*ret_iommu = choice && !on ? CONFIG_NO_IOMMU : default_iommu;
		return 0;
	}
	for (unsigned i = 0; i < config->num_viommus; i++) {
		names[i] = config->viommu[i].name;
		if (!strcmp(choice, names[i])) {
			*ret_iommu = i;
			return 0;
		}
	}

	const char *nearest = config_nearest(choice, names);

	return err_set(p->err, EINVAL,
		       "%s: iommu= of %s takes on, off or the name of a --viommu, not %s%s%s%s",
		       option, id, config_quote(&quote, choice), nearest ? "; did you mean " : "",
		       nearest ? nearest : "", nearest ? "?" : "");
}

static int resolve(struct config_parser *p)
{
	struct config *config = p->config;
	unsigned default_iommu = CONFIG_NO_IOMMU;
	int r = resolve_viommus(p, &default_iommu);

	for (unsigned i = 0; i < config->num_disks && r == 0; i++) {
		struct config_disk *disk = &config->disk[i];

		if (!disk->id[0])
			snprintf(disk->id, sizeof(disk->id), "disk%u", i);
		r = resolve_iommu(p, "--disk", disk->id, p->iommu_disk[i], default_iommu,
				  &disk->iommu);
	}
	for (unsigned i = 0; i < config->num_nets && r == 0; i++) {
		struct config_net *net = &config->net[i];

		if (!net->id[0])
			snprintf(net->id, sizeof(net->id), "net%u", i);
		if (!p->mac_said[i])
			default_mac(net->id, net->mac);
		r = resolve_iommu(p, "--net", net->id, p->iommu_net[i], default_iommu, &net->iommu);
	}
	for (unsigned i = 0; i < config->num_vfios && r == 0; i++) {
		struct config_vfio *vfio = &config->vfio[i];

		if (!vfio->id[0])
			snprintf(vfio->id, sizeof(vfio->id), "vfio%u", i);
		r = resolve_iommu(p, "--vfio", vfio->id, p->iommu_vfio[i], default_iommu,
				  &vfio->iommu);
	}
	if (r == 0)
		config->rng_iommu = config->rng ? default_iommu : CONFIG_NO_IOMMU;
	return r;
}

/* The name and option of object @i: rng, IOMMUs, disks, networks, VFIO. NULL past the last. */
static const char *object_name(const struct config *config, unsigned i, const char **ret_option)
{
	if (config->rng && i-- == 0) {
		*ret_option = "--rng";
		return CONFIG_RNG_NAME;
	}
	if (i < config->num_viommus) {
		*ret_option = "--viommu";
		return config->viommu[i].name;
	}
	i -= config->num_viommus;
	if (i < config->num_disks) {
		*ret_option = "--disk";
		return config->disk[i].id;
	}
	i -= config->num_disks;
	if (i < config->num_nets) {
		*ret_option = "--net";
		return config->net[i].id;
	}
	i -= config->num_nets;
	*ret_option = "--vfio";
	return i < config->num_vfios ? config->vfio[i].id : NULL;
}

/* One name space: names stand alone in messages. */
static int check_names(struct config_parser *p)
{
	const struct config *config = p->config;
	const char *option, *other, *name;

	for (unsigned i = 0; (name = object_name(config, i, &option)); i++) {
		const char *key = strcmp(option, "--viommu") ? "id" : "name";

		for (unsigned j = 0; j < i; j++)
			if (!strcmp(name, object_name(config, j, &other)))
				return err_set(p->err, EINVAL,
					       "%s: the %s %s is already taken by a %s; give each "
					       "its own with %s=NAME",
					       option, key, name, other, key);
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

static int check_bdfs(struct config_parser *p)
{
	const struct config *config = p->config;

	for (unsigned i = 0; i < config->num_vfios; i++)
		for (unsigned j = 0; j < i; j++)
			if (!strcmp(config->vfio[i].bdf, config->vfio[j].bdf))
				return err_set(p->err, EINVAL, "--vfio: %s is given twice",
					       config->vfio[i].bdf);
	return 0;
}

int config_resolve_devices(struct config_parser *p)
{
	int r = resolve(p);

	if (r == 0)
		r = check_names(p);
	if (r == 0)
		r = check_macs(p);
	if (r == 0)
		r = check_bdfs(p);
	return r;
}
