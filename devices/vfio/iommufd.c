/*
 * iommufd, the kernel's newer interface to the IOMMU: a group gets an address space (IOAS) of
 * its own, to which each of its devices is attached when its file is opened. The space then
 * mirrors whatever domain the guest attaches, as a Type1 container does: so what is above
 * needn't know which of the two it has.
 *
 * Devices have files of their own, /dev/vfio/devices/vfioN. Before it is bound to an iommufd
 * such a file can do nothing.
 */
#include "devices/vfio/internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "devices/vfio/iommufd_abi.h"
#include "vmm/core/dma.h"

#define IOMMUFD "/dev/iommu"

struct iommufd_group {
	struct vfio_group group;
	int iommufd; /* borrows */
	uint32_t ioas;
};

static struct iommufd_group *to_iommufd(struct vfio_group *group)
{
	return container_of(group, struct iommufd_group, group);
}

static struct iommufd_group *group_of(struct vfio_space *space)
{
	return container_of(space, struct iommufd_group, group.space);
}

static int ioas_map(struct vfio_space *space, uint64_t iova, uint64_t size, void *host,
		    uint8_t perm)
{
	struct iommufd_group *g = group_of(space);
	struct abi_ioas_map map = {
		.size = sizeof(map),
		.flags = ABI_IOAS_MAP_FIXED_IOVA | (perm & DMA_READ ? ABI_IOAS_MAP_READABLE : 0) |
			 (perm & DMA_WRITE ? ABI_IOAS_MAP_WRITEABLE : 0),
		.ioas_id = g->ioas,
		.user_va = (uintptr_t)host,
		.length = size,
		.iova = iova,
	};

	return vfio_ioctl(g->iommufd, ABI_IOAS_MAP, &map);
}

/* Take away all mappings that lie in the *@length bytes at @iova: 0 with their sum, or -errno. */
static int unmap_range(struct vfio_space *space, uint64_t iova, uint64_t *length)
{
	struct iommufd_group *g = group_of(space);
	struct abi_ioas_unmap unmap = {
		.size = sizeof(unmap),
		.ioas_id = g->ioas,
		.iova = iova,
		.length = *length,
	};
	int r = vfio_ioctl(g->iommufd, ABI_IOAS_UNMAP, &unmap);

	*length = unmap.length;
	return r;
}

static int ioas_unmap(struct vfio_space *space, uint64_t iova, uint64_t size)
{
	uint64_t had = size;
	int r = unmap_range(space, iova, &had);

	/* What the host had isn't what was mapped. */
	return r < 0 ? r : had == size ? 0 : -ENXIO;
}

static int ioas_unmap_all(struct vfio_space *space)
{
	uint64_t all = UINT64_MAX;

	return unmap_range(space, 0, &all);
}

static bool ioas_holds(struct vfio_space *space, uint64_t iova)
{
	int r = ioas_map(space, iova, space->granule, space->ram->region[0].host, DMA_READ);

	if (r == 0)
		ioas_unmap(space, iova, space->granule);
	return r == -EEXIST;
}

static bool ioas_empty(struct vfio_space *space, uint64_t iova, uint64_t size)
{
	/* Also when a mapping reaches in: its end is asked for with holds. */
	return unmap_range(space, iova, &size) == -ENOENT;
}

static const struct vfio_space_ops ioas_ops = {
	.map = ioas_map,
	.unmap = ioas_unmap,
	.unmap_all = ioas_unmap_all,
	.holds = ioas_holds,
	.empty = ioas_empty,
};

/* What the address space can map, for all devices that are attached to it. */
static int read_ranges(struct iommufd_group *g)
{
	struct vfio_space *space = &g->group.space;
	struct abi_iova_range range[VFIO_MAX_RANGES];
	struct abi_ioas_iova_ranges ranges = {
		.size = sizeof(ranges),
		.ioas_id = g->ioas,
		.num_iovas = VFIO_MAX_RANGES,
		.allowed_iovas = (uintptr_t)range,
	};
	int r = vfio_ioctl(g->iommufd, ABI_IOAS_IOVA_RANGES, &ranges);

	/* Of too many the first are used. */
	if (r < 0 && r != -EMSGSIZE)
		return r;
	space->num_usable = MIN(ranges.num_iovas, VFIO_MAX_RANGES);
	for (unsigned i = 0; i < space->num_usable; i++)
		space->usable[i] = (struct vfio_range){ range[i].start, range[i].last };
	space->granule = ranges.out_iova_alignment;
	return space->num_usable ? 0 : -ENOSPC;
}

/* The file of device @bdf in /dev/vfio/devices. False when it has none. */
static bool device_path(const char *bdf, char path[64])
{
	char dir_path[64], dev_path[384];
	bool found = false;

	snprintf(dir_path, sizeof(dir_path), "/sys/bus/pci/devices/%s/vfio-dev", bdf);
	DIR *dir = opendir(dir_path);

	if (!dir)
		return false;
	for (struct dirent *e = readdir(dir); e && !found; e = readdir(dir)) {
		if (e->d_name[0] == '.')
			continue;
		/* A kernel that offers no such files has the directory, without a number in it. */
		snprintf(dev_path, sizeof(dev_path), "%s/%s/dev", dir_path, e->d_name);
		snprintf(path, 64, "/dev/vfio/devices/%.40s", e->d_name);
		found = access(dev_path, F_OK) == 0;
	}
	closedir(dir);
	return found;
}

bool iommufd_usable(const char *bdf)
{
	char path[64];

	return access(IOMMUFD, R_OK | W_OK) == 0 && device_path(bdf, path) &&
	       access(path, R_OK | W_OK) == 0;
}

int iommufd_connect(struct err *err)
{
	return vfio_open_file(IOMMUFD, "modprobe iommufd on the host, or --vfio-backend type1",
			      err);
}

static int bind_device(struct iommufd_group *g, int fd, const char *bdf, struct err *err)
{
	struct abi_vfio_bind bind = { .argsz = sizeof(bind), .iommufd = g->iommufd };
	struct abi_vfio_attach attach = { .argsz = sizeof(attach), .pt_id = g->ioas };
	int r = vfio_ioctl(fd, ABI_VFIO_BIND_IOMMUFD, &bind);

	if (r == -EPERM)
		return err_set(err, EPERM,
			       "%s: the host's IOMMU has no interrupt remapping, so the device "
			       "could forge interrupts; to accept that: modprobe iommufd "
			       "allow_unsafe_interrupts=1",
			       bdf);
	if (r == -EBUSY)
		return err_set(err, EBUSY,
			       "%s or another device of %s is in use by another program", bdf,
			       g->group.name);
	if (r < 0)
		return err_set(err, -r, "%s can't be bound to the host's iommufd: %s", bdf,
			       strerror(-r));
	r = vfio_ioctl(fd, ABI_VFIO_ATTACH_PT, &attach);
	if (r < 0)
		return err_set(err, -r, "%s can't be attached to an address space of the host: %s",
			       bdf, strerror(-r));
	r = read_ranges(g);
	if (r < 0)
		return err_set(err, -r, "%s: no information about its IOMMU: %s", bdf,
			       strerror(-r));
	return 0;
}

static int iommufd_open_device(struct vfio_group *group, const char *bdf, struct err *err)
{
	char path[64];

	if (!device_path(bdf, path))
		return err_set(err, ENOTSUP,
			       "%s has no file in /dev/vfio/devices: the host's kernel needs "
			       "CONFIG_VFIO_DEVICE_CDEV (Linux 6.6 or later); or --vfio-backend "
			       "type1",
			       bdf);
	int fd = vfio_open_file(path, "modprobe vfio-pci on the host", err);

	if (fd < 0)
		return fd;
	int r = bind_device(to_iommufd(group), fd, bdf, err);

	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

static void iommufd_close(struct vfio_group *group)
{
	struct iommufd_group *g = to_iommufd(group);
	struct abi_iommu_destroy destroy = { .size = sizeof(destroy), .id = g->ioas };

	/* A device whose file KVM still holds keeps it; then it goes with the last of these. */
	vfio_ioctl(g->iommufd, ABI_IOMMU_DESTROY, &destroy);
	vfio_space_finish(&group->space);
	free(g);
}

static const struct vfio_group_ops group_ops = {
	.open_device = iommufd_open_device,
	.close = iommufd_close,
};

int iommufd_open(struct vfio_group **ret_group, unsigned number, struct ram *ram, int iommufd,
		 struct err *err)
{
	struct abi_ioas_alloc alloc = { .size = sizeof(alloc) };
	struct iommufd_group *g = calloc(1, sizeof(*g));

	if (!g)
		return err_set(err, ENOMEM, "out of memory");
	int r = vfio_ioctl(iommufd, ABI_IOAS_ALLOC, &alloc);

	if (r < 0) {
		free(g);
		return err_set(err, -r, "the host's iommufd gives no address space: %s",
			       strerror(-r));
	}
	vfio_group_init(&g->group, &group_ops, &ioas_ops, number, " by iommufd", ram);
	g->iommufd = iommufd;
	g->ioas = alloc.out_ioas_id;
	*ret_group = &g->group;
	return 0;
}
