/* A VFIO device's file, as vfio_host_ops: the same behind every backend. */
#include "devices/vfio/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static struct vfio_device *to_device(struct vfio_host *host)
{
	return container_of(host, struct vfio_device, host);
}

/* VFIO's information about region @index with its capabilities; the caller frees it. */
static struct vfio_region_info *region_info(struct vfio_device *d, unsigned index)
{
	size_t size = sizeof(struct vfio_region_info);

	for (;;) {
		struct vfio_region_info *info = calloc(1, size);

		if (!info)
			return NULL;
		info->argsz = (uint32_t)size;
		info->index = index;
		int r = vfio_ioctl(d->fd, VFIO_DEVICE_GET_REGION_INFO, info);

		if (r == 0 && info->argsz <= size)
			return info;
		size = info->argsz;
		free(info);
		if (r < 0) {
			errno = -r;
			return NULL;
		}
	}
}

static void sparse_areas(struct vfio_region *region, const struct vfio_region_info *info)
{
	const char *bytes = (const char *)info;

	region->num_areas = 1;
	region->area[0].offset = 0;
	region->area[0].size = info->size;
	for (size_t at = info->flags & VFIO_REGION_INFO_FLAG_CAPS ? info->cap_offset : 0;
	     at && at + sizeof(struct vfio_info_cap_header) <= info->argsz;) {
		const struct vfio_region_info_cap_sparse_mmap *cap = (const void *)(bytes + at);

		if (cap->header.id == VFIO_REGION_INFO_CAP_SPARSE_MMAP) {
			region->num_areas = 0;
			for (unsigned i = 0; i < MIN(cap->nr_areas, VFIO_MAX_AREAS); i++) {
				region->area[region->num_areas].offset = cap->areas[i].offset;
				region->area[region->num_areas++].size = cap->areas[i].size;
			}
		}
		at = cap->header.next;
	}
}

static int device_region(struct vfio_host *host, unsigned index, struct vfio_region *ret_region)
{
	struct vfio_device *d = to_device(host);
	struct vfio_region_info *info = region_info(d, index);

	if (!info)
		return -errno;
	d->offset[index] = info->offset;
	*ret_region = (struct vfio_region){ .size = info->size };
	if (info->flags & VFIO_REGION_INFO_FLAG_MMAP)
		sparse_areas(ret_region, info);
	free(info);
	return 0;
}

static int device_read(struct vfio_host *host, unsigned index, uint64_t offset, void *buf,
		       unsigned size)
{
	struct vfio_device *d = to_device(host);
	ssize_t n = pread(d->fd, buf, size, (off_t)(d->offset[index] + offset));

	return n == size ? 0 : n < 0 ? -errno : -EIO;
}

static int device_write(struct vfio_host *host, unsigned index, uint64_t offset, const void *buf,
			unsigned size)
{
	struct vfio_device *d = to_device(host);
	ssize_t n = pwrite(d->fd, buf, size, (off_t)(d->offset[index] + offset));

	return n == size ? 0 : n < 0 ? -errno : -EIO;
}

static void *device_map(struct vfio_host *host, unsigned index, uint64_t offset, uint64_t size)
{
	struct vfio_device *d = to_device(host);
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, d->fd,
		       (off_t)(d->offset[index] + offset));

	return p == MAP_FAILED ? NULL : p;
}

static void device_unmap(struct vfio_host *host, void *address, uint64_t size)
{
	munmap(address, size);
}

static unsigned device_irqs(struct vfio_host *host, unsigned index, bool *ret_grows)
{
	struct vfio_irq_info info = { .argsz = sizeof(info), .index = index };

	/* An older kernel doesn't know the newer kinds. */
	if (vfio_ioctl(to_device(host)->fd, VFIO_DEVICE_GET_IRQ_INFO, &info) < 0)
		return 0;
	*ret_grows = !(info.flags & VFIO_IRQ_INFO_NORESIZE);
	return info.count;
}

/* VFIO_DEVICE_SET_IRQS with @count eventfds, or none of them, for @action. */
static int set_irqs(struct vfio_host *host, unsigned index, unsigned first, unsigned count,
		    const int *eventfd, uint32_t action)
{
	size_t bytes = count * sizeof(int32_t), size = sizeof(struct vfio_irq_set) + bytes;
	struct vfio_irq_set *set = calloc(1, size);

	if (!set)
		return -ENOMEM;
	set->argsz = (uint32_t)size;
	set->flags = action | (count ? VFIO_IRQ_SET_DATA_EVENTFD : VFIO_IRQ_SET_DATA_NONE);
	set->index = index;
	set->start = first;
	set->count = count;
	if (count)
		memcpy(set->data, eventfd, bytes);
	int r = vfio_ioctl(to_device(host)->fd, VFIO_DEVICE_SET_IRQS, set);

	free(set);
	return r;
}

static int device_set_irqs(struct vfio_host *host, unsigned index, unsigned first, unsigned count,
			   const int *eventfd)
{
	return set_irqs(host, index, first, count, eventfd, VFIO_IRQ_SET_ACTION_TRIGGER);
}

static int device_unmask_by(struct vfio_host *host, unsigned index, int eventfd)
{
	return set_irqs(host, index, 0, 1, &eventfd, VFIO_IRQ_SET_ACTION_UNMASK);
}

static void device_release(struct vfio_host *host)
{
	struct vfio_device *d = to_device(host);

	/* The number stays taken, as another thread may be about to use it. */
	dup3(d->vfio->null_fd, d->fd, O_CLOEXEC);
}

static void device_quiet(struct vfio_host *host)
{
	to_device(host)->was_reset = false;
}

static int device_reset(struct vfio_host *host, struct err *err)
{
	struct vfio_device *d = to_device(host);

	if (!(d->flags & VFIO_DEVICE_FLAGS_RESET))
		return d->was_reset ? 0 : vfio_reset_bus(d, err);
	int r = vfio_ioctl(d->fd, VFIO_DEVICE_RESET, NULL);

	return r < 0 ? err_set(err, -r, "%s", strerror(-r)) : 0;
}

static const struct vfio_host_ops device_ops = {
	.region = device_region,
	.read = device_read,
	.write = device_write,
	.map = device_map,
	.unmap = device_unmap,
	.irqs = device_irqs,
	.set_irqs = device_set_irqs,
	.unmask_by = device_unmask_by,
	.release = device_release,
	.quiet = device_quiet,
	.reset = device_reset,
};

int vfio_device_create(struct vfio_host **ret_host, struct vfio *vfio, int fd, const char *bdf,
		       struct err *err)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };
	struct vfio_device *d = calloc(1, sizeof(*d));
	int r = vfio_ioctl(fd, VFIO_DEVICE_GET_INFO, &info);

	if (!d || r < 0 || !(info.flags & VFIO_DEVICE_FLAGS_PCI)) {
		free(d);
		close(fd);
		return err_set(err, ENODEV, "%s: not a VFIO PCI device", bdf);
	}
	d->host.ops = &device_ops;
	d->fd = fd;
	d->flags = info.flags;
	snprintf(d->host.bdf, sizeof(d->host.bdf), "%s", bdf);
	d->vfio = vfio;
	d->next = vfio->devices;
	vfio->devices = d;
	*ret_host = &d->host;
	return 0;
}

void vfio_close(struct vfio_host *host)
{
	if (!host)
		return;
	struct vfio_device *d = to_device(host), **at = &d->vfio->devices;

	while (*at != d)
		at = &(*at)->next;
	*at = d->next;
	close(d->fd);
	free(d);
}
