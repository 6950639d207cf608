/*
 * The reset of a function that has none of its own: its whole bus is reset (or its hot-plug
 * slot, if the host has that), with every other function on it. VFIO calls it a hot reset.
 *
 * The host does it only for who owns every function that it reaches. With Type1 the files of
 * these functions' groups prove that, and it refuses files of any other group; with iommufd it
 * looks at what is bound to the device's iommufd. In both cases each function, passed through or
 * not, must be bound to vfio-pci or another driver of VFIO. The host saves and restores the
 * configuration space of all of them, so BARs still decode afterwards.
 */
#include "devices/vfio/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "devices/vfio/iommufd_abi.h"
#include "vmm/base/log.h"

/* What a reset of the bus of @d reaches; the caller frees it. NULL with errno. */
static struct vfio_pci_hot_reset_info *affected_by(const struct vfio_device *d)
{
	size_t count = 0;

	for (;;) {
		size_t size = sizeof(struct vfio_pci_hot_reset_info) +
			      count * sizeof(struct vfio_pci_dependent_device);
		struct vfio_pci_hot_reset_info *info = calloc(1, size);

		if (!info)
			return NULL;
		info->argsz = (uint32_t)size;
		int r = vfio_ioctl(d->fd, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, info);

		if (r == 0)
			return info;
		count = info->count;
		free(info);
		if (r != -ENOSPC) {
			errno = -r;
			return NULL;
		}
	}
}

/* The address of @function as sysfs writes it. */
static void name_of(const struct vfio_pci_dependent_device *function, char name[16])
{
	snprintf(name, 16, "%04x:%02x:%02x.%x", function->segment, function->bus,
		 function->devfn >> 3, function->devfn & 7u);
}

/* The file of open group @number; -1: there is none. */
static int file_of_group(const struct vfio *v, unsigned number)
{
	for (const struct vfio_group *group = v->groups; group; group = group->next) {
		if (group->number == number)
			return group->keeper_fd;
	}
	return -1;
}

static bool is_ours(const struct vfio *v, const struct vfio_pci_hot_reset_info *info,
		    const struct vfio_pci_dependent_device *function, const char *name)
{
	if (info->flags & ABI_VFIO_HOT_RESET_DEV_ID)
		return function->group_id != ABI_VFIO_DEVID_NOT_OWNED;
	return file_of_group(v, function->group_id) >= 0 && vfio_is_bound(name);
}

static int check_owner(const struct vfio_device *d, const struct vfio_pci_hot_reset_info *info,
		       struct err *err)
{
	char name[16];

	for (unsigned i = 0; i < info->count; i++) {
		name_of(&info->devices[i], name);
		if (!is_ours(d->vfio, info, &info->devices[i], name))
			return err_set(err, EPERM,
				       "it has no reset of its own, and a reset of its bus would "
				       "reach %s, which isn't passed through: pass it through, too",
				       name);
	}
	return 0;
}

/* The groups that @info names, each once. How many. */
static unsigned list_groups(const struct vfio *v, const struct vfio_pci_hot_reset_info *info,
			    int32_t *fds)
{
	unsigned count = 0;

	if (info->flags & ABI_VFIO_HOT_RESET_DEV_ID)
		return 0;
	for (unsigned i = 0; i < info->count; i++) {
		int fd = file_of_group(v, info->devices[i].group_id);
		unsigned at = 0;

		while (at < count && fds[at] != fd)
			at++;
		fds[at] = fd;
		count = MAX(count, at + 1);
	}
	return count;
}

/* Those of @info that are open, other than @d, need no reset of their own in this round. */
static void mark_reset(const struct vfio_device *d, const struct vfio_pci_hot_reset_info *info)
{
	char name[16];

	for (unsigned i = 0; i < info->count; i++) {
		name_of(&info->devices[i], name);
		for (struct vfio_device *o = d->vfio->devices; o; o = o->next)
			o->was_reset |= o != d && !strcmp(o->host.bdf, name);
	}
}

static int reset(const struct vfio_device *d, const struct vfio_pci_hot_reset_info *info,
		 struct err *err)
{
	size_t size = sizeof(struct vfio_pci_hot_reset) + info->count * sizeof(int32_t);
	struct vfio_pci_hot_reset *arg = calloc(1, size);

	if (!arg)
		return err_set(err, ENOMEM, "out of memory");
	arg->argsz = (uint32_t)size;
	arg->count = list_groups(d->vfio, info, arg->group_fds);
	int r = vfio_ioctl(d->fd, VFIO_DEVICE_PCI_HOT_RESET, arg);

	free(arg);
	/* A bus that can't be reset at all is known by now. */
	return r < 0 ? err_set(err, -r, "the host can't reset its bus: %s",
			       r == -ENOTTY ? "after that it didn't come back" : strerror(-r))
		     : 0;
}

int vfio_reset_bus(struct vfio_device *device, struct err *err)
{
	struct vfio_pci_hot_reset_info *info = affected_by(device);

	if (!info && errno == ENODEV)
		return err_set(err, ENOTTY, "neither it nor its bus has a reset");
	if (!info)
		return err_set(err, errno, "the host can't tell what is on its bus: %s",
			       strerror(errno));
	int r = check_owner(device, info, err);

	if (r == 0)
		r = reset(device, info, err);
	if (r == 0) {
		mark_reset(device, info);
		log_info("%s was reset with its bus, on which are %u functions", device->host.bdf,
			 info->count);
	}
	free(info);
	return r;
}
