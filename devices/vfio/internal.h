#ifndef DEVICES_VFIO_INTERNAL_H
#define DEVICES_VFIO_INTERNAL_H

/*
 * What the files that talk to the host share: vfio.c (what sysfs knows), type1.c and
 * iommufd.c (the two ways to program the host's IOMMU), device.c.
 */

#include "devices/vfio/vfio.h"

/* ioctl that is retried when a signal interrupts it: the result or -errno. */
int vfio_ioctl(int fd, unsigned long request, void *arg);

/*
 * Open @path for reading and writing: the file, owned by the caller, or -errno with words in
 * @err, which for a file that isn't there say what to do: @missing.
 */
int vfio_open_file(const char *path, const char *missing, struct err *err);

/* The VFIO device @fd (owned from here on, also on failure) as a host. 0 or -errno with words. */
int vfio_device_create(struct vfio_host **ret_host, int fd, const char *bdf, struct err *err);

struct vfio_group;

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
	struct vfio_space space; /* what it can map is known when a device is open */
	unsigned number;
	int keeper_fd; /* borrows; what KVM is told of its devices, -1: their own files */
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
