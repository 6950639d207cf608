/*
 * The iommufd backend, against a kernel that is made up: this program has an ioctl, an open,
 * an access and an opendir of its own, which answer for the files of one device and pass everything
 * else on.
 */
#include "devices/vfio/internal.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "devices/vfio/iommufd_abi.h"
#include "tests/fake_ioctl.h"
#include "vmm/core/dma.h"

#define G	 0x1000ULL
#define BDF	 "ffff:1f:00.0"
#define SYSFS	 "/sys/bus/pci/devices/" BDF "/vfio-dev"
#define IOMMUFD	 900
#define DEVICE	 901
#define IOAS	 77
#define MAX_MAPS 8

static char memory[16 * G];
static struct ram ram = { .count = 1, .region = { { { 0 }, sizeof(memory), 0, memory } } };

static struct {
	char sysfs[64]; /* what stands for SYSFS */
	bool no_file, no_iommufd, denied;
	unsigned num_ranges, num_maps, max_maps, bound, attached, destroyed;
	int refuse_alloc, refuse_bind, refuse_attach, refuse_map;
	struct abi_iova_range range[VFIO_MAX_RANGES + 2];
	struct abi_ioas_map map[MAX_MAPS];
	uint64_t lie; /* added to lengths of unmaps */
} kernel;

static struct vfio_group *group;
static struct err err;

static int kernel_map(const struct abi_ioas_map *map)
{
	cr_assert(map->size == sizeof(*map) && map->ioas_id == IOAS && !map->reserved);
	cr_assert(map->flags & ABI_IOAS_MAP_FIXED_IOVA);
	if (kernel.refuse_map)
		return fail(kernel.refuse_map);
	for (unsigned i = 0; i < kernel.num_maps; i++) {
		if (kernel.map[i].iova < map->iova + map->length &&
		    map->iova < kernel.map[i].iova + kernel.map[i].length)
			return fail(EEXIST);
	}
	cr_assert(kernel.num_maps < MAX_MAPS);
	kernel.map[kernel.num_maps++] = *map;
	return 0;
}

static int kernel_unmap(struct abi_ioas_unmap *unmap)
{
	uint64_t bytes = 0;

	cr_assert(unmap->size == sizeof(*unmap) && unmap->ioas_id == IOAS);
	for (unsigned i = kernel.num_maps; i-- > 0;) {
		const struct abi_ioas_map *map = &kernel.map[i];

		if (map->iova < unmap->iova ||
		    map->iova + map->length - 1 - unmap->iova >= unmap->length)
			continue;
		bytes += map->length;
		kernel.map[i] = kernel.map[--kernel.num_maps];
	}
	if (!bytes && unmap->length != UINT64_MAX)
		return fail(ENOENT);
	unmap->length = bytes + kernel.lie;
	return 0;
}

static int kernel_ranges(struct abi_ioas_iova_ranges *ranges)
{
	struct abi_iova_range *to = (void *)(uintptr_t)ranges->allowed_iovas;
	unsigned room = ranges->num_iovas;

	cr_assert(ranges->size == sizeof(*ranges) && ranges->ioas_id == IOAS);
	cr_assert(kernel.attached, "before that it isn't known");
	memcpy(to, kernel.range, MIN(room, kernel.num_ranges) * sizeof(*to));
	ranges->num_iovas = kernel.num_ranges;
	ranges->out_iova_alignment = 4 * G;
	return kernel.num_ranges > room ? fail(EMSGSIZE) : 0;
}

static int kernel_iommufd(unsigned long request, void *arg)
{
	switch (request) {
	case ABI_IOAS_ALLOC:
		if (kernel.refuse_alloc)
			return fail(kernel.refuse_alloc);
		((struct abi_ioas_alloc *)arg)->out_ioas_id = IOAS;
		return 0;
	case ABI_IOMMU_DESTROY:
		cr_assert_eq(((struct abi_iommu_destroy *)arg)->id, IOAS);
		kernel.destroyed++;
		return 0;
	case ABI_IOAS_MAP:
		return kernel_map(arg);
	case ABI_IOAS_UNMAP:
		return kernel_unmap(arg);
	case ABI_IOAS_IOVA_RANGES:
		return kernel_ranges(arg);
	}
	return fail(ENOTTY);
}

static int kernel_device(unsigned long request, void *arg)
{
	if (request == ABI_VFIO_BIND_IOMMUFD) {
		const struct abi_vfio_bind *bind = arg;

		cr_assert(bind->argsz == sizeof(*bind) && bind->iommufd == IOMMUFD);
		if (kernel.refuse_bind)
			return fail(kernel.refuse_bind);
		kernel.bound++;
		return 0;
	}
	if (request == ABI_VFIO_ATTACH_PT) {
		const struct abi_vfio_attach *attach = arg;

		cr_assert(kernel.bound && attach->argsz == sizeof(*attach));
		cr_assert_eq(attach->pt_id, IOAS);
		if (kernel.refuse_attach)
			return fail(kernel.refuse_attach);
		kernel.attached++;
		return 0;
	}
	return fail(ENOTTY);
}

static bool kernel_ioctl(int fd, unsigned long request, void *arg, int *ret_result)
{
	if (fd == IOMMUFD)
		*ret_result = kernel_iommufd(request, arg);
	else if (fd == DEVICE)
		*ret_result = kernel_device(request, arg);
	return fd == IOMMUFD || fd == DEVICE;
}

int open(const char *path, int flags, ...)
{
	int (*next)(const char *, int, mode_t);
	va_list args;

	va_start(args, flags);
	mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;

	va_end(args);
	if (!strcmp(path, "/dev/iommu"))
		return kernel.no_iommufd ? fail(ENOENT) : IOMMUFD;
	if (!strcmp(path, "/dev/vfio/devices/vfio9"))
		return kernel.denied ? fail(EACCES) : DEVICE;
	*(void **)&next = dlsym(RTLD_NEXT, "open");
	return next(path, flags, mode);
}

int access(const char *path, int mode)
{
	int (*next)(const char *, int);

	if (!strcmp(path, "/dev/iommu"))
		return kernel.no_iommufd ? fail(ENOENT) : 0;
	if (!strcmp(path, "/dev/vfio/devices/vfio9"))
		return kernel.denied ? fail(EACCES) : 0;
	if (!strcmp(path, SYSFS "/vfio9/dev"))
		return kernel.no_file ? fail(ENOENT) : 0;
	*(void **)&next = dlsym(RTLD_NEXT, "access");
	return next(path, mode);
}

DIR *opendir(const char *path)
{
	DIR *(*next)(const char *);

	*(void **)&next = dlsym(RTLD_NEXT, "opendir");
	return next(strcmp(path, SYSFS) ? path : kernel.sysfs);
}

static void setup(void)
{
	char dir[128];

	strcpy(kernel.sysfs, "/tmp/test_iommufd.XXXXXX");
	cr_assert(mkdtemp(kernel.sysfs));
	snprintf(dir, sizeof(dir), "%s/vfio9", kernel.sysfs);
	cr_assert_eq(mkdir(dir, 0700), 0);
	kernel.num_ranges = 2;
	kernel.range[0] = (struct abi_iova_range){ 0, 0xfedfffff };
	kernel.range[1] = (struct abi_iova_range){ 0xfef00000, GIB(512) - 1 };
	cr_assert_eq(iommufd_open(&group, 12, &ram, IOMMUFD, &err), 0);
	log_set_level(LOG_ERROR);
}

static void teardown(void)
{
	char dir[128];

	group->ops->close(group);
	cr_assert_eq(kernel.destroyed, 1, "the address space doesn't stay behind");
	snprintf(dir, sizeof(dir), "%s/vfio9", kernel.sysfs);
	rmdir(dir);
	rmdir(kernel.sysfs);
}

TestSuite(iommufd, .init = setup, .fini = teardown);

static int open_device(void)
{
	return group->ops->open_device(group, BDF, &err);
}

static void refused(int error, const char *words)
{
	cr_assert_eq(open_device(), -error);
	cr_assert(strstr(err.text, words), "%s", err.text);
	cr_assert(strstr(err.text, BDF) || strstr(err.text, "vfio9"), "%s", err.text);
}

Test(iommufd, a_device_is_attached_before_it_is_used)
{
	cr_assert_eq(open_device(), DEVICE);
	cr_assert(kernel.bound == 1 && kernel.attached == 1);
	cr_assert_eq(group->keeper_fd, -1, "KVM is told of the device itself");
}

Test(iommufd, what_the_host_can_map_is_known_then)
{
	cr_assert_eq(open_device(), DEVICE);
	cr_assert_eq(group->space.num_usable, 2);
	cr_assert(group->space.usable[1].first == 0xfef00000 &&
		  group->space.usable[1].last == GIB(512) - 1);
	cr_assert_eq(group->space.granule, 4 * G);
}

Test(iommufd, of_too_many_ranges_the_first_are_used)
{
	kernel.num_ranges = VFIO_MAX_RANGES + 2;
	for (unsigned i = 0; i < kernel.num_ranges; i++)
		kernel.range[i] = (struct abi_iova_range){ i * GIB(1), i * GIB(1) + G - 1 };
	cr_assert_eq(open_device(), DEVICE);
	cr_assert_eq(group->space.num_usable, VFIO_MAX_RANGES);
	cr_assert_eq(group->space.usable[VFIO_MAX_RANGES - 1].first,
		     (VFIO_MAX_RANGES - 1) * GIB(1));
}

Test(iommufd, each_missing_step_is_named)
{
	kernel.refuse_bind = EPERM;
	refused(EPERM, "modprobe iommufd allow_unsafe_interrupts=1");
	kernel.refuse_bind = EBUSY;
	refused(EBUSY, "in use");
	kernel.refuse_bind = ENODEV;
	refused(ENODEV, "can't be bound");
	kernel.refuse_bind = 0;
	kernel.refuse_attach = EINVAL;
	refused(EINVAL, "can't be attached");
	kernel.denied = true;
	refused(EACCES, "permission denied");
	kernel.no_file = true;
	refused(ENOTSUP, "CONFIG_VFIO_DEVICE_CDEV");
	kernel.no_iommufd = true;
	cr_assert_eq(iommufd_connect(&err), -ENOENT);
	cr_assert(strstr(err.text, "modprobe iommufd"), "%s", err.text);
}

Test(iommufd, without_an_address_space_there_is_no_group)
{
	struct vfio_group *none = NULL;

	kernel.refuse_alloc = ENOMEM;
	cr_assert_eq(iommufd_open(&none, 13, &ram, IOMMUFD, &err), -ENOMEM);
	cr_assert_null(none);
}

Test(iommufd, auto_takes_it_where_everything_is_there)
{
	cr_assert(iommufd_usable(BDF));
	cr_assert_not(iommufd_usable("fffe:1f:00.0"), "a device without such files");
	kernel.denied = true;
	cr_assert_not(iommufd_usable(BDF));
	kernel.denied = false;
	kernel.no_file = true;
	cr_assert_not(iommufd_usable(BDF), "a kernel without them");
	kernel.no_file = false;
	kernel.no_iommufd = true;
	cr_assert_not(iommufd_usable(BDF));
}

static int map(uint64_t iova, uint64_t size, uint64_t phys, uint8_t perm)
{
	struct dma_listener *l = &group->space.listener;

	return l->ops->map(l, IOVA(iova), IOVA(iova + size - 1), GPA(phys), perm);
}

Test(iommufd, a_mapping_has_its_address_and_its_permissions)
{
	cr_assert_eq(map(GIB(3), 2 * G, 5 * G, DMA_READ), 0);
	cr_assert_eq(map(GIB(4), G, 0, DMA_WRITE), 0);
	const struct abi_ioas_map *m = kernel.map;

	cr_assert(m[0].iova == GIB(3) && m[0].length == 2 * G);
	cr_assert_eq(m[0].user_va, (uintptr_t)memory + 5 * G);
	cr_assert_eq(m[0].flags, ABI_IOAS_MAP_FIXED_IOVA | ABI_IOAS_MAP_READABLE);
	cr_assert_eq(m[1].flags, ABI_IOAS_MAP_FIXED_IOVA | ABI_IOAS_MAP_WRITEABLE);
}

Test(iommufd, unmapping_takes_one_or_all)
{
	struct dma_listener *l = &group->space.listener;

	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(map(i * 2 * G, G, 0, DMA_READ), 0);
	cr_assert_eq(l->ops->unmap(l, IOVA(2 * G), IOVA(3 * G - 1), NULL), 0);
	cr_assert_eq(kernel.num_maps, 3);
	cr_assert_eq(l->ops->clear(l, NULL), 0);
	cr_assert(kernel.num_maps == 0 && group->space.count == 0);
}

Test(iommufd, a_host_that_unmaps_something_else_is_noticed)
{
	cr_assert_eq(map(0, G, 0, DMA_READ), 0);
	kernel.lie = G;
	cr_assert_eq(group->space.ops->unmap(&group->space, 0, G), -ENXIO);
	cr_assert_eq(group->space.ops->unmap(&group->space, 0, G), -ENOENT, "there is nothing");
}

Test(iommufd, the_limit_of_locked_memory_is_an_answer)
{
	kernel.refuse_map = ENOMEM;
	cr_assert_eq(map(0, G, 0, DMA_READ), -ENOMEM);
	cr_assert(group->space.said_limit && group->space.count == 0);
	kernel.refuse_map = 0;
	cr_assert_eq(map(0, G, 0, DMA_READ), 0);
}

Test(iommufd, an_audit_asks_the_host)
{
	const struct vfio_space_ops *ops = group->space.ops;

	cr_assert_eq(open_device(), DEVICE);
	cr_assert_eq(map(GIB(3), 8 * G, 0, DMA_READ), 0);
	cr_assert(ops->holds(&group->space, GIB(3)) && ops->holds(&group->space, GIB(3) + 4 * G));
	cr_assert_not(ops->holds(&group->space, GIB(3) + 8 * G));
	cr_assert_eq(kernel.num_maps, 1, "asking leaves nothing");
	cr_assert(ops->empty(&group->space, 0, GIB(3)));
	cr_assert_not(ops->empty(&group->space, GIB(3), 8 * G));
	cr_assert_eq(kernel.num_maps, 0);
}
