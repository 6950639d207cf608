#ifndef VMM_CONFIG_H
#define VMM_CONFIG_H

/*
 * The command line as data. Parsing has no effects: no file is opened, nothing
 * is created; every error names the option and says what it takes.
 */

#include "vmm/base/err.h"
#include "vmm/base/types.h"

#define CONFIG_MAX_DISKS   24
#define CONFIG_MAX_NETS	   8
#define CONFIG_MAX_VFIOS   16
#define CONFIG_MAX_VIOMMUS 4
#define CONFIG_MAX_CPUS	   240
#define CONFIG_ID_MAX	   20 /* characters of an id= or name=, also the disk's serial number */

/* Limits of sizes and numbers; what the host and the guest really take may be less. */
#define CONFIG_MIN_MEMORY	 MIB(16)
#define CONFIG_MAX_MEMORY	 GIB(64 * 1024)
#define CONFIG_MEMORY_STEP	 MIB(2)
#define CONFIG_MIN_ADDRESS_WIDTH 32
/* An IOMMU's mappings take 96 bytes each at most. */
#define CONFIG_MAX_MAPPINGS	 (1ULL << 32)
#define CONFIG_MAX_ADDRESS_WIDTH 64
#define CONFIG_MIN_GRANULE	 KIB(4)
#define CONFIG_MAX_GRANULE	 GIB(1)

#define CONFIG_DEFAULT_DISK_QUEUES 1
#define CONFIG_MAX_DISK_QUEUES	   16
#define CONFIG_DEFAULT_QUEUE_SIZE  256
#define CONFIG_MIN_QUEUE_SIZE	   4
#define CONFIG_MAX_QUEUE_SIZE	   1024

#define CONFIG_RNG_NAME "rng"
#define CONFIG_NO_IOMMU UINT32_MAX
#define CONFIG_BDF_SIZE sizeof("00000:00:00.0")

enum config_bus { CONFIG_BUS_PCI, CONFIG_BUS_MMIO };

struct config_disk {
	char id[CONFIG_ID_MAX + 1]; /* default "disk0", "disk1", ... */
	const char *path;	    /* borrows from argv or config_finish frees */
	bool readonly;
	unsigned queues, queue_size; /* defaults 1 and 256; the size is a power of two */
	enum config_bus bus;
	unsigned iommu; /* index into viommu[] or CONFIG_NO_IOMMU; resolved */
};

struct config_net {
	char id[CONFIG_ID_MAX + 1]; /* default "net0", ... */
	bool user;
	const char *tap; /* NULL with user */
	uint8_t mac[6];	 /* default: 52:54:00 and a stable hash of the id */
	enum config_bus bus;
	unsigned iommu; /* as a disk's */
};

struct config_vfio {
	char id[CONFIG_ID_MAX + 1]; /* default "vfio0", ... */
	char bdf[CONFIG_BDF_SIZE];  /* 0000:00:00.0, in this form */
	unsigned iommu;		    /* as a disk's */
};

struct config_viommu {
	char name[CONFIG_ID_MAX + 1]; /* default "viommu", for at most one */
	enum config_bus bus;
	bool bypass;
	unsigned address_width; /* bits; default 48 */
	uint64_t granule;	/* bytes, a power of two; default 4 KiB */
	uint64_t max_mappings;	/* a domain; default 2^20 */
};

enum config_vfio_backend { CONFIG_VFIO_AUTO, CONFIG_VFIO_IOMMUFD, CONFIG_VFIO_TYPE1 };

enum config_console { CONFIG_CONSOLE_STDIO, CONFIG_CONSOLE_NONE, CONFIG_CONSOLE_FILE };

struct config {
	const char *kernel, *initrd, *cmdline; /* cmdline: what --cmdline added, "" by default */
	unsigned cpus;			       /* default 1 */
	uint64_t max_mappings;		       /* of all IOMMUs together; default 2^22 */
	uint64_t memory;		       /* bytes, default 512 MiB, a multiple of 2 MiB */
	unsigned num_disks, num_nets, num_vfios, num_viommus;
	struct config_disk disk[CONFIG_MAX_DISKS];
	struct config_net net[CONFIG_MAX_NETS];
	struct config_vfio vfio[CONFIG_MAX_VFIOS];
	struct config_viommu viommu[CONFIG_MAX_VIOMMUS];
	enum config_vfio_backend vfio_backend; /* default auto */
	bool rng;
	unsigned rng_iommu;	     /* as a disk's */
	enum config_console console; /* default stdio */
	const char *console_file;
	bool reboot; /* --on-reset reboot */
	bool verbose;
	const char *dump_tables; /* --dump-tables DIR, or NULL */
	void *storage;		 /* owns what the borrowed strings point to */
};

#define CONFIG_HELP 1

/* True for the two ways to ask for help, -h and --help. */
bool config_is_help(const char *arg);

/*
 * Parse the arguments after `moat run` (@argc of them). On success the caller
 * calls config_finish. Returns 0; CONFIG_HELP when one of them asks for help
 * (*@config is untouched); -EINVAL with one line in @err that names the option
 * and what to do; -ENOMEM.
 */
int config_parse(struct config *config, int argc, char *const argv[], struct err *err);
void config_finish(struct config *config);

/* The text of `moat help` (@command NULL) or `moat help COMMAND`; NULL = no such command. */
const char *config_help(const char *command);

#endif
