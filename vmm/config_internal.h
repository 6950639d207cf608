#ifndef VMM_CONFIG_INTERNAL_H
#define VMM_CONFIG_INTERNAL_H

/*
 * What the parts of config share: config.c (the options), config_list.c (lists
 * of KEY=VALUE), config_devices.c (the devices' keys, and what depends on several
 * of them). All functions return 0, -EINVAL with words in p->err, or -ENOMEM.
 */

#include "vmm/config.h"

/* A command line being parsed. */
struct config_parser {
	struct config *config;
	struct err *err;
	/* iommu= as it was typed, NULL where it wasn't: all IOMMUs are known at the end only. */
	const char *iommu_disk[CONFIG_MAX_DISKS], *iommu_net[CONFIG_MAX_NETS],
		*iommu_vfio[CONFIG_MAX_VFIOS];
	bool mac_said[CONFIG_MAX_NETS];
};

/* One key of a list, in a table that a NULL name ends. */
struct config_key {
	const char *name;
	const char *takes; /* for the error, "on|off" */
	/* Store @value for object number @index of its kind. */
	int (*set)(struct config_parser *p, unsigned index, const char *value);
	bool bare; /* "key" alone, no value */
};

/*
 * Parse the list @text of @option by @keys for object number @index. The
 * strings that setters are given live as long as the config (config_finish).
 */
int config_parse_list(struct config_parser *p, const char *option, const struct config_key *keys,
		      unsigned index, const char *text);

/*
 * Values that several kinds of devices have: bus=; a switch and a name, whose key
 * is @what, as "readonly=". @name has CONFIG_ID_MAX + 1 bytes.
 */
int config_set_bus(struct config_parser *p, const char *option, const char *value,
		   enum config_bus *bus);
int config_set_bool(struct config_parser *p, const char *option, const char *what,
		    const char *value, bool *flag);
int config_set_name(struct config_parser *p, const char *option, const char *what,
		    const char *value, char *name);

/* The devices' options, with their values; --viommu's may be NULL. */
int config_parse_disk(struct config_parser *p, const char *value);
int config_parse_net(struct config_parser *p, const char *value);
int config_parse_vfio(struct config_parser *p, const char *value);
int config_parse_viommu(struct config_parser *p, const char *value);

/*
 * After the last option: fill in names, addresses and who is behind which IOMMU,
 * and refuse what contradicts itself.
 */
int config_resolve_devices(struct config_parser *p);

#endif
