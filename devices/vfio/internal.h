#ifndef DEVICES_VFIO_INTERNAL_H
#define DEVICES_VFIO_INTERNAL_H

/* What the files that talk to the host share: vfio.c (what sysfs knows), type1.c, device.c. */

#include "devices/vfio/vfio.h"

/* ioctl that is retried when a signal interrupts it: the result or -errno. */
int vfio_ioctl(int fd, unsigned long request, void *arg);

/* The VFIO device @fd (owned from here on, also on failure) as a host. 0 or -errno with words. */
int vfio_device_create(struct vfio_host **ret_host, int fd, const char *bdf, struct err *err);

struct type1_group;

/* Open group @number, whose IOMMU programming gets a container of its own. */
int type1_open(struct type1_group **ret_group, unsigned number, struct ram *ram, struct err *err);
void type1_close(struct type1_group *group);
/* The file of device @bdf, owned by the caller; or -errno with words in @err. */
int type1_device_fd(struct type1_group *group, const char *bdf, struct err *err);
struct vfio_space *type1_space(struct type1_group *group);
/* The group's file, for KVM; borrows. */
int type1_keeper_fd(const struct type1_group *group);

#endif
