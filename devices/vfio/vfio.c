/*
 * From a device's address to an open device: what sysfs knows of it, so that each
 * missing step is told with the command for it, and which group it is in.
 */
#include "devices/vfio/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DEVICES "/sys/bus/pci/devices"
#define DRIVER	"vfio-pci"

int vfio_ioctl(int fd, unsigned long request, void *arg)
{
	int r;

	do {
		r = ioctl(fd, request, arg);
	} while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

int vfio_open_file(const char *path, const char *missing, struct err *err)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	int code = errno;

	if (code == ENOENT || code == ENODEV || code == ENXIO)
		return err_set(err, code, "%s isn't there: %s", path, missing);
	if (code == EACCES || code == EPERM)
		return err_set(err, code, "%s: permission denied: chown it to you (or run as root)",
			       path);
	if (code == EBUSY)
		return err_set(err, code, "%s is in use by another program", path);
	return err_set(err, code, "%s: %s", path, strerror(code));
}

void vfio_group_init(struct vfio_group *group, const struct vfio_group_ops *ops,
		     const struct vfio_space_ops *space_ops, unsigned number, const char *suffix,
		     struct ram *ram)
{
	group->ops = ops;
	group->number = number;
	group->keeper_fd = -1;
	snprintf(group->name, sizeof(group->name), "VFIO group %u%s", number, suffix);
	group->space.ops = space_ops;
	group->space.ram = ram;
	group->space.name = group->name;
	vfio_space_init(&group->space);
}

/* Registers of a device came or went. */
static void slots_changed(void *opaque)
{
	struct vfio *v = opaque;

	for (struct vfio_group *group = v->groups; group; group = group->next)
		vfio_peers_follow(&group->space);
}

int vfio_create(struct vfio **ret_vfio, enum vfio_backend backend, struct ram *ram,
		struct mem_slots *slots, struct err *err)
{
	struct vfio *v = calloc(1, sizeof(*v));

	if (!v)
		return err_set(err, ENOMEM, "out of memory");
	v->ram = ram;
	v->slots = slots;
	v->backend = backend;
	v->iommufd = -1;
	v->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (v->null_fd < 0) {
		int r = err_set(err, errno, "/dev/null: %m");

		free(v);
		return r;
	}
	slots->changed = slots_changed;
	slots->changed_opaque = v;
	*ret_vfio = v;
	return 0;
}

void vfio_destroy(struct vfio *vfio)
{
	if (!vfio)
		return;
	vfio->slots->changed = NULL;
	while (vfio->groups) {
		struct vfio_group *next = vfio->groups->next;

		vfio->groups->ops->close(vfio->groups);
		vfio->groups = next;
	}
	if (vfio->iommufd >= 0)
		close(vfio->iommufd);
	close(vfio->null_fd);
	free(vfio);
}

/* The last part of where the link @name of device @bdf points to; false without one. */
static bool device_link(const char *bdf, const char *name, char ret_target[NAME_MAX + 1])
{
	char path[128], target[PATH_MAX];

	snprintf(path, sizeof(path), DEVICES "/%s/%s", bdf, name);
	ssize_t n = readlink(path, target, sizeof(target) - 1);

	if (n < 0)
		return false;
	target[n] = '\0';
	const char *slash = strrchr(target, '/');
	const char *last = slash ? slash + 1 : target;
	size_t len = MIN(strlen(last), (size_t)NAME_MAX);

	memcpy(ret_target, last, len);
	ret_target[len] = '\0';
	return true;
}

bool vfio_is_bound(const char *bdf)
{
	char path[128], driver[NAME_MAX + 1];

	/* Every driver of VFIO makes this, from Linux 6.1 on. */
	snprintf(path, sizeof(path), DEVICES "/%s/vfio-dev", bdf);
	return access(path, F_OK) == 0 ||
	       (device_link(bdf, "driver", driver) && !strcmp(driver, DRIVER));
}

static int check_driver(const char *bdf, struct err *err)
{
	char driver[NAME_MAX + 1];

	if (vfio_is_bound(bdf))
		return 0;
	bool bound = device_link(bdf, "driver", driver);

	if (!bound)
		return err_set(
			err, ENODEV,
			"%s isn't bound to vfio-pci: modprobe vfio-pci; echo vfio-pci > " DEVICES
			"/%s/driver_override; echo %s > /sys/bus/pci/drivers_probe",
			bdf, bdf, bdf);
	return err_set(
		err, EBUSY,
		"%s isn't bound to vfio-pci but to %s: modprobe vfio-pci; echo vfio-pci > " DEVICES
		"/%s/driver_override; echo %s > " DEVICES
		"/%s/driver/unbind; echo %s > /sys/bus/pci/drivers_probe",
		bdf, driver, bdf, bdf, bdf, bdf);
}

/* @driver does no DMA with its devices, so that their group is viable with them. */
static bool drives_nothing(const char *driver)
{
	return !strcmp(driver, "pcieport") || !strcmp(driver, "pci-stub");
}

/* The members of group @number that keep it from being viable: bound to something else. */
static void list_foreign(unsigned number, char *text, size_t size)
{
	char path[64], driver[NAME_MAX + 1];
	size_t len = 0;

	*text = '\0';
	snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%u/devices", number);
	DIR *dir = opendir(path);

	if (!dir)
		return;
	for (struct dirent *e = readdir(dir); e && len < size; e = readdir(dir)) {
		if (e->d_name[0] == '.' || !device_link(e->d_name, "driver", driver) ||
		    drives_nothing(driver) || vfio_is_bound(e->d_name))
			continue;
		len += (size_t)snprintf(text + len, size - len, "%s%s (%s)", len ? ", " : "",
					e->d_name, driver);
	}
	closedir(dir);
}

bool vfio_group_of(const char *bdf, unsigned *ret_number)
{
	char name[NAME_MAX + 1];

	if (!device_link(bdf, "iommu_group", name))
		return false;
	*ret_number = (unsigned)strtoul(name, NULL, 10);
	return true;
}

/* Which group @bdf is in. 0 or -errno with words. */
static int find_group(const char *bdf, unsigned *ret_number, struct err *err)
{
	char path[64], foreign[256];

	snprintf(path, sizeof(path), DEVICES "/%s", bdf);
	if (access(path, F_OK) < 0)
		return err_set(err, ENODEV, "the host has no PCI device %s (lspci -D lists them)",
			       bdf);
	if (!vfio_group_of(bdf, ret_number))
		return err_set(err, ENODEV,
			       "%s is behind no IOMMU of the host: switch it on in the firmware, "
			       "and boot the host with intel_iommu=on on an Intel processor",
			       bdf);
	int r = check_driver(bdf, err);

	if (r < 0)
		return r;
	list_foreign(*ret_number, foreign, sizeof(foreign));
	if (*foreign)
		return err_set(err, EBUSY,
			       "%s shares IOMMU group %u with devices that the host uses: bind "
			       "these to vfio-pci too, or to no driver: %s",
			       bdf, *ret_number, foreign);
	return 0;
}

/* Open group @number, which @bdf is in, with the backend that was asked for. */
static int open_backend(struct vfio *v, unsigned number, const char *bdf,
			struct vfio_group **ret_group, struct err *err)
{
	if (v->backend == VFIO_BACKEND_TYPE1 ||
	    (v->backend == VFIO_BACKEND_AUTO && !iommufd_usable(bdf)))
		return type1_open(ret_group, number, v->ram, err);
	if (v->iommufd < 0)
		v->iommufd = iommufd_connect(err);
	if (v->iommufd < 0)
		return v->iommufd;
	return iommufd_open(ret_group, number, v->ram, v->iommufd, err);
}

static int open_group(struct vfio *v, const char *bdf, struct vfio_group **ret_group,
		      struct err *err)
{
	unsigned number;
	int r = find_group(bdf, &number, err);

	if (r < 0)
		return r;
	for (struct vfio_group *group = v->groups; group; group = group->next) {
		if (group->number == number) {
			*ret_group = group;
			return 0;
		}
	}
	r = open_backend(v, number, bdf, ret_group, err);
	if (r < 0)
		return r;
	(*ret_group)->space.slots = v->slots;
	(*ret_group)->next = v->groups;
	v->groups = *ret_group;
	return 0;
}

int vfio_open(struct vfio *vfio, const char *bdf, struct vfio_host **ret_host, struct err *err)
{
	struct vfio_host *host = NULL;
	struct vfio_group *group = NULL;
	int r = open_group(vfio, bdf, &group, err);

	if (r < 0)
		return r;
	int fd = group->ops->open_device(group, bdf, err);

	if (fd < 0)
		return fd;
	r = vfio_device_create(&host, vfio, fd, bdf, err);
	if (r < 0)
		return r;
	host->space = &group->space;
	host->keeper_is_own = group->keeper_fd < 0;
	host->keeper_fd = host->keeper_is_own ? fd : group->keeper_fd;
	*ret_host = host;
	return 0;
}
