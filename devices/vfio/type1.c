/*
 * VFIO's older interface: a container programs the IOMMU (Type1 v2) for the
 * groups in it. A group is what the host's IOMMU can tell from others. It gets a
 * container of its own for as long as it is open, as it can't leave one while a
 * device of it is; the container then mirrors whatever domain is attached.
 */
#include "devices/vfio/internal.h"

#include <errno.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "vmm/core/dma.h"

#define CONTAINER "/dev/vfio/vfio"
#define MODULES	  "modprobe vfio-pci vfio_iommu_type1 on the host"

struct type1_group {
	struct vfio_group group;
	int fd, container; /* own */
};

static int container_of_space(struct vfio_space *space)
{
	return container_of(space, struct type1_group, group.space)->container;
}

/*
 * Did the host take back the group's last device? The container has no IOMMU then: nothing is
 * mapped in it any more, and what the guest maps reaches nobody.
 */
static bool is_lost(struct vfio_space *space)
{
	struct vfio_iommu_type1_info info = { .argsz = sizeof(info) };

	return vfio_ioctl(container_of_space(space), VFIO_IOMMU_GET_INFO, &info) == -EINVAL;
}

/* @request of the container: 0 or -errno; 0, too, when it is lost. */
static int container_ioctl(struct vfio_space *space, unsigned long request, void *arg)
{
	int r = vfio_ioctl(container_of_space(space), request, arg);

	return r == -EINVAL && is_lost(space) ? 0 : MIN(r, 0);
}

static int type1_map(struct vfio_space *space, uint64_t iova, uint64_t size, void *host,
		     uint8_t perm)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = (perm & DMA_READ ? VFIO_DMA_MAP_FLAG_READ : 0) |
			 (perm & DMA_WRITE ? VFIO_DMA_MAP_FLAG_WRITE : 0),
		.vaddr = (uintptr_t)host,
		.iova = iova,
		.size = size,
	};

	return container_ioctl(space, VFIO_IOMMU_MAP_DMA, &map);
}

static int type1_unmap(struct vfio_space *space, uint64_t iova, uint64_t size)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = iova,
		.size = size,
	};
	int r = container_ioctl(space, VFIO_IOMMU_UNMAP_DMA, &unmap);

	/* What the host had isn't what was mapped. */
	return r < 0 ? r : unmap.size == size ? 0 : -ENXIO;
}

static int type1_unmap_all(struct vfio_space *space)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.flags = VFIO_DMA_UNMAP_FLAG_ALL,
	};

	return container_ioctl(space, VFIO_IOMMU_UNMAP_DMA, &unmap);
}

static bool type1_holds(struct vfio_space *space, uint64_t iova)
{
	/* EEXIST comes before everything else that could be wrong. */
	int r = type1_map(space, iova, space->granule, space->ram->region[0].host, DMA_READ);

	if (r == 0)
		type1_unmap(space, iova, space->granule);
	return r == -EEXIST || is_lost(space);
}

static bool type1_empty(struct vfio_space *space, uint64_t iova, uint64_t size)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = iova,
		.size = size,
	};

	/* Success of size 0 when there is nothing, EINVAL when a mapping reaches beyond. */
	return (vfio_ioctl(container_of_space(space), VFIO_IOMMU_UNMAP_DMA, &unmap) == 0 &&
		unmap.size == 0) ||
	       is_lost(space);
}

static const struct vfio_space_ops type1_ops = {
	.map = type1_map,
	.unmap = type1_unmap,
	.unmap_all = type1_unmap_all,
	.holds = type1_holds,
	.empty = type1_empty,
	.maps_peers = true,
};

/* What the container can map, from the capabilities in @info (@size bytes). */
static void parse_info(struct vfio_space *space, const struct vfio_iommu_type1_info *info,
		       size_t size)
{
	const char *bytes = (const char *)info;

	space->granule = KIB(4);
	if (info->flags & VFIO_IOMMU_INFO_PGSIZES && info->iova_pgsizes)
		space->granule = info->iova_pgsizes & -info->iova_pgsizes;
	for (size_t at = info->flags & VFIO_IOMMU_INFO_CAPS ? info->cap_offset : 0;
	     at && at + sizeof(struct vfio_info_cap_header) <= size;) {
		const struct vfio_info_cap_header *cap = (const void *)(bytes + at);
		const struct vfio_iommu_type1_info_cap_iova_range *ranges = (const void *)cap;

		if (cap->id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) {
			for (unsigned i = 0; i < MIN(ranges->nr_iovas, VFIO_MAX_RANGES); i++)
				space->usable[space->num_usable++] =
					(struct vfio_range){ ranges->iova_ranges[i].start,
							     ranges->iova_ranges[i].end };
		}
		at = cap->next;
	}
	/* An old kernel doesn't tell, and refuses what it can't do. */
	if (!space->num_usable)
		space->usable[space->num_usable++] = (struct vfio_range){ 0, UINT64_MAX };
}

static int read_info(struct type1_group *g, struct err *err)
{
	struct vfio_iommu_type1_info head = { .argsz = sizeof(head) };
	int r = vfio_ioctl(g->container, VFIO_IOMMU_GET_INFO, &head);

	if (r < 0)
		return err_set(err, -r, "VFIO group %u: no information about its IOMMU: %s",
			       g->group.number, strerror(-r));
	size_t size = MAX(head.argsz, sizeof(head));
	struct vfio_iommu_type1_info *info = calloc(1, size);

	if (!info)
		return err_set(err, ENOMEM, "out of memory");
	info->argsz = (uint32_t)size;
	r = vfio_ioctl(g->container, VFIO_IOMMU_GET_INFO, info);
	if (r < 0)
		err_set(err, -r, "VFIO group %u: no information about its IOMMU: %s",
			g->group.number, strerror(-r));
	else
		parse_info(&g->group.space, info, size);
	free(info);
	return r < 0 ? r : 0;
}

static int open_container(struct type1_group *g, struct err *err)
{
	g->container = vfio_open_file(CONTAINER, MODULES, err);
	if (g->container < 0)
		return g->container;
	if (vfio_ioctl(g->container, VFIO_GET_API_VERSION, NULL) != VFIO_API_VERSION ||
	    vfio_ioctl(g->container, VFIO_CHECK_EXTENSION, (void *)VFIO_TYPE1v2_IOMMU) <= 0 ||
	    vfio_ioctl(g->container, VFIO_CHECK_EXTENSION, (void *)VFIO_UNMAP_ALL) <= 0)
		return err_set(err, ENOTSUP,
			       CONTAINER
			       " has no Type1 v2 IOMMU with unmap-all: "
			       "modprobe vfio_iommu_type1; Linux 5.12 or later is needed");
	int r = vfio_ioctl(g->fd, VFIO_GROUP_SET_CONTAINER, &g->container);

	if (r < 0)
		return err_set(err, -r, "VFIO group %u can't join a container: %s", g->group.number,
			       strerror(-r));
	r = vfio_ioctl(g->container, VFIO_SET_IOMMU, (void *)VFIO_TYPE1v2_IOMMU);
	if (r == -EPERM)
		return err_set(err, EPERM,
			       "VFIO group %u: the host's IOMMU has no interrupt remapping, so the "
			       "device could forge interrupts; to accept that: modprobe "
			       "vfio_iommu_type1 allow_unsafe_interrupts=1",
			       g->group.number);
	if (r < 0)
		return err_set(err, -r, "VFIO group %u: the host can't program its IOMMU: %s",
			       g->group.number, strerror(-r));
	return read_info(g, err);
}

static int open_group(struct type1_group *g, struct err *err)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	char path[64];

	snprintf(path, sizeof(path), "/dev/vfio/%u", g->group.number);
	g->fd = vfio_open_file(path, MODULES, err);
	if (g->fd < 0)
		return g->fd;
	int r = vfio_ioctl(g->fd, VFIO_GROUP_GET_STATUS, &status);

	if (r < 0)
		return err_set(err, -r, "%s: %s", path, strerror(-r));
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return err_set(err, EPERM, "VFIO group %u isn't viable", g->group.number);
	return open_container(g, err);
}

static int type1_open_device(struct vfio_group *group, const char *bdf, struct err *err)
{
	struct type1_group *g = container_of(group, struct type1_group, group);
	int fd = vfio_ioctl(g->fd, VFIO_GROUP_GET_DEVICE_FD, (void *)bdf);

	if (fd < 0)
		return err_set(err, -fd, "%s: VFIO can't open it: %s", bdf, strerror(-fd));
	return fd;
}

static void type1_close(struct vfio_group *group)
{
	struct type1_group *g = container_of(group, struct type1_group, group);

	if (g->fd >= 0)
		close(g->fd);
	if (g->container >= 0)
		close(g->container);
	vfio_space_finish(&group->space);
	free(g);
}

static const struct vfio_group_ops group_ops = {
	.open_device = type1_open_device,
	.close = type1_close,
};

int type1_open(struct vfio_group **ret_group, unsigned number, struct ram *ram, struct err *err)
{
	struct type1_group *g = calloc(1, sizeof(*g));

	if (!g)
		return err_set(err, ENOMEM, "out of memory");
	vfio_group_init(&g->group, &group_ops, &type1_ops, number, "", ram);
	g->fd = g->container = -1;
	int r = open_group(g, err);

	if (r < 0) {
		type1_close(&g->group);
		return r;
	}
	g->group.keeper_fd = g->fd;
	*ret_group = &g->group;
	return 0;
}
