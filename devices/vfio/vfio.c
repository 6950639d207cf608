/*
 * From a device's address to an open device: what sysfs knows of it, so that each
 * missing step is told with the command for it, and which group it is in.
 */
#include "devices/vfio/internal.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define DEVICES "/sys/bus/pci/devices"
#define DRIVER	"vfio-pci"

struct group {
	struct group *next;
	unsigned number;
	struct type1_group *type1; /* owns */
	char bdf[16];		   /* the device of it that was opened */
};

struct vfio {
	struct ram *ram;      /* borrows */
	struct group *groups; /* owns */
};

int vfio_create(struct vfio **ret_vfio, struct ram *ram, struct err *err)
{
	struct vfio *v = calloc(1, sizeof(*v));

	if (!v)
		return err_set(err, ENOMEM, "out of memory");
	v->ram = ram;
	*ret_vfio = v;
	return 0;
}

void vfio_destroy(struct vfio *vfio)
{
	if (!vfio)
		return;
	while (vfio->groups) {
		struct group *next = vfio->groups->next;

		type1_close(vfio->groups->type1);
		free(vfio->groups);
		vfio->groups = next;
	}
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

static int check_driver(const char *bdf, struct err *err)
{
	char driver[NAME_MAX + 1];
	bool bound = device_link(bdf, "driver", driver);

	if (bound && !strcmp(driver, DRIVER))
		return 0;
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
		    !strcmp(driver, DRIVER) || !strcmp(driver, "pcieport"))
			continue;
		len += (size_t)snprintf(text + len, size - len, "%s%s (%s)", len ? ", " : "",
					e->d_name, driver);
	}
	closedir(dir);
}

/* Which group @bdf is in. 0 or -errno with words. */
static int find_group(const char *bdf, unsigned *ret_number, struct err *err)
{
	char path[64], name[NAME_MAX + 1], foreign[256];

	snprintf(path, sizeof(path), DEVICES "/%s", bdf);
	if (access(path, F_OK) < 0)
		return err_set(err, ENODEV, "the host has no PCI device %s (lspci -D lists them)",
			       bdf);
	if (!device_link(bdf, "iommu_group", name))
		return err_set(err, ENODEV,
			       "%s is behind no IOMMU of the host: switch it on in the firmware, "
			       "and boot the host with intel_iommu=on on an Intel processor",
			       bdf);
	int r = check_driver(bdf, err);

	if (r < 0)
		return r;
	*ret_number = (unsigned)strtoul(name, NULL, 10);
	list_foreign(*ret_number, foreign, sizeof(foreign));
	if (*foreign)
		return err_set(err, EBUSY,
			       "%s shares IOMMU group %u with devices that the host uses: bind "
			       "these to vfio-pci too, or to no driver: %s",
			       bdf, *ret_number, foreign);
	return 0;
}

static int open_group(struct vfio *v, const char *bdf, struct group **ret_group, struct err *err)
{
	unsigned number;
	int r = find_group(bdf, &number, err);

	if (r < 0)
		return r;
	for (struct group *g = v->groups; g; g = g->next) {
		if (g->number == number)
			return err_set(err, EBUSY,
				       "%s is in the same IOMMU group of the host as %s; one "
				       "device of a group can be passed through",
				       bdf, g->bdf);
	}
	struct group *g = calloc(1, sizeof(*g));

	if (!g)
		return err_set(err, ENOMEM, "out of memory");
	r = type1_open(&g->type1, number, v->ram, err);
	if (r < 0) {
		free(g);
		return r;
	}
	g->number = number;
	snprintf(g->bdf, sizeof(g->bdf), "%s", bdf);
	g->next = v->groups;
	v->groups = g;
	*ret_group = g;
	return 0;
}

int vfio_open(struct vfio *vfio, const char *bdf, struct vfio_host **ret_host, struct err *err)
{
	struct vfio_host *host = NULL;
	struct group *g = NULL;
	int r = open_group(vfio, bdf, &g, err);

	if (r < 0)
		return r;
	int fd = type1_device_fd(g->type1, bdf, err);

	if (fd < 0)
		return fd;
	r = vfio_device_create(&host, fd, bdf, err);
	if (r < 0)
		return r;
	host->space = type1_space(g->type1);
	host->keeper_fd = type1_keeper_fd(g->type1);
	*ret_host = host;
	return 0;
}
