#ifndef DEVICES_VFIO_INTERNAL_H
#define DEVICES_VFIO_INTERNAL_H

/*
 * What the files that talk to the host share: vfio.c (what sysfs knows), type1.c and
 * iommufd.c (the two ways to program the host's IOMMU), device.c, reset.c.
 */

#include <linux/vfio.h>
#include "devices/vfio/vfio.h"

struct vfio_group;

/* Everything that is open. Control path. */
struct vfio {
	struct ram *ram;	 /* borrows */
	struct mem_slots *slots; /* borrows */
	enum vfio_backend backend;
	int iommufd;		     /* owns; -1 until it is needed */
	int null_fd;		     /* owns; what takes the place of a device that is let go */
	struct vfio_group *groups;   /* owns */
	struct vfio_device *devices; /* borrows; vfio_close takes them off */
};

/* A VFIO device's file. */
struct vfio_device {
	struct vfio_host host;
	struct vfio_device *next;
	struct vfio *vfio; /* borrows */
	int fd;		   /* owns */
	uint32_t flags;	   /* VFIO_DEVICE_FLAGS_... */
	/* A reset of another function's bus has reset it, in this round. */
	bool was_reset;
	/* Where each region is in the file; filled in on first use, vCPUs are stopped then. */
	uint64_t offset[VFIO_PCI_NUM_REGIONS];
};

/* ioctl that is retried when a signal interrupts it: the result or -errno. */
int vfio_ioctl(int fd, unsigned long request, void *arg);

/*
 * Open @path for reading and writing: the file, owned by the caller, or -errno with words in
 * @err, which for a file that isn't there say what to do: @missing.
 */
int vfio_open_file(const char *path, const char *missing, struct err *err);

/*
 * Is device @bdf of the host bound to vfio-pci, or to another driver of VFIO: some kinds of devices
 * have one of their own (mlx5_vfio_pci), which offers the same?
 */
bool vfio_is_bound(const char *bdf);

/*
 * The VFIO device @fd (owned from here on, also on failure), one of those of @vfio from now on, as
 * a host. 0 or -errno with words.
 */
int vfio_device_create(struct vfio_host **ret_host, struct vfio *vfio, int fd, const char *bdf,
		       struct err *err);

/*
 * Reset the bus (or hot-plug slot) of @device, and so every function on it, which must be quiet
 * and the caller's own: that is known of devices in groups that are open and of those bound to
 * the same iommufd. Those open here are marked (was_reset). Control path. 0; -ENOTTY when the bus
 * has no reset; -EPERM when a function on it isn't ours, which is named; another -errno of the
 * host; all with words. (PCI Local Bus 3.0, 4.3.2; VFIO_DEVICE_PCI_HOT_RESET in linux/vfio.h.)
 */
int vfio_reset_bus(struct vfio_device *device, struct err *err);

struct vfio_group_ops {
	/*
	 * The file of device @bdf of the group, whose DMA goes where group->space says from
	 * now on; it is owned by the caller. Or -errno with words in @err.
	 */
	int (*open_device)(struct vfio_group *group, const char *bdf, struct err *err);
	/* Every device of it is closed. */
	void (*close)(struct vfio_group *group);
};

/*
 * An IOMMU group: the devices that the host's IOMMU can't tell apart, so they have one address
 * space, for as long as the group is open. Embedded in its implementation.
 */
struct vfio_group {
	const struct vfio_group_ops *ops;
	struct vfio_group *next;
	struct vfio_space space; /* what it can map is known when a device is open */
	unsigned number;
	/* Its file, which KVM is told of and which proves ownership; -1: its devices' own do. */
	int keeper_fd; /* borrows */
	char name[32];
};

/*
 * Make the members of @group that every implementation has. In messages it is "VFIO group 7"
 * and @suffix, "" or " by ...".
 */
void vfio_group_init(struct vfio_group *group, const struct vfio_group_ops *ops,
		     const struct vfio_space_ops *space_ops, unsigned number, const char *suffix,
		     struct ram *ram);

/* Open group @number with a Type1 container of its own. 0 or -errno with words. */
int type1_open(struct vfio_group **ret_group, unsigned number, struct ram *ram, struct err *err);

/* May device @bdf be passed through by iommufd? */
bool iommufd_usable(const char *bdf);
/* The file of the host's iommufd, owned by the caller; or -errno with words. */
int iommufd_connect(struct err *err);
/* Open group @number with an address space of its own in @iommufd (borrowed). 0 or -errno. */
int iommufd_open(struct vfio_group **ret_group, unsigned number, struct ram *ram, int iommufd,
		 struct err *err);

#endif
