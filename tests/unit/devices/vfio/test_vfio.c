/*
 * What is said of a device that can't be passed through yet, by a sysfs that is made up: this
 * program has a readlink, an access and an opendir of its own, which look for the devices of one
 * bus and for one group in a directory. Past sysfs, the group's file is missing.
 */
#include "devices/vfio/internal.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "vmm/core/memslot.h"

#define BUS	"/sys/bus/pci/devices/fffe:1f:00."
#define GROUP	"/sys/kernel/iommu_groups/424242"
#define FIRST	"fffe:1f:00.0"
#define MISSING "/dev/vfio/424242 isn't there"

static char root[64];
static struct mem_slots slots;
static struct vfio *vfio;
static struct err err;

/* Where @path is in the made up sysfs; @path itself when it isn't. */
static const char *real_path(const char *path, char text[512])
{
	if (!*root || (strncmp(path, BUS, strlen(BUS)) && strncmp(path, GROUP, strlen(GROUP))))
		return path;
	snprintf(text, 512, "%s%s", root, path);
	return text;
}

ssize_t readlink(const char *path, char *buf, size_t size)
{
	ssize_t (*next)(const char *, char *, size_t);
	char text[512];

	*(void **)&next = dlsym(RTLD_NEXT, "readlink");
	return next(real_path(path, text), buf, size);
}

int access(const char *path, int mode)
{
	int (*next)(const char *, int);
	char text[512];

	*(void **)&next = dlsym(RTLD_NEXT, "access");
	return next(real_path(path, text), mode);
}

DIR *opendir(const char *path)
{
	DIR *(*next)(const char *);
	char text[512];

	*(void **)&next = dlsym(RTLD_NEXT, "opendir");
	return next(real_path(path, text));
}

static void make_dir(const char *path)
{
	char command[600];

	snprintf(command, sizeof(command), "mkdir -p '%s%s'", root, path);
	cr_assert_eq(system(command), 0);
}

/* Function @fn, in the group, with @driver; NULL: without one. */
static void add_function(char fn, const char *driver, bool vfio_dev)
{
	char path[128], link[512];

	snprintf(path, sizeof(path), BUS "%c%s", fn, vfio_dev ? "/vfio-dev" : "");
	make_dir(path);
	snprintf(path, sizeof(path), GROUP "/devices/fffe:1f:00.%c", fn);
	make_dir(path);
	snprintf(link, sizeof(link), "%s" BUS "%c/iommu_group", root, fn);
	cr_assert_eq(symlink("../../../../kernel/iommu_groups/424242", link), 0);
	if (!driver)
		return;
	snprintf(path, sizeof(path), "../../../../bus/pci/drivers/%s", driver);
	snprintf(link, sizeof(link), "%s" BUS "%c/driver", root, fn);
	cr_assert_eq(symlink(path, link), 0);
}

static void setup(void)
{
	strcpy(root, "/tmp/test_vfio.XXXXXX");
	cr_assert(mkdtemp(root));
	cr_assert_eq(vfio_create(&vfio, VFIO_BACKEND_TYPE1, NULL, &slots, &err), 0);
}

static void teardown(void)
{
	char command[128];

	vfio_destroy(vfio);
	snprintf(command, sizeof(command), "rm -r '%s'", root);
	cr_assert_eq(system(command), 0);
}

TestSuite(vfio, .init = setup, .fini = teardown);

/* What is said of FIRST, which can't be opened in any case. */
static const char *refusal(void)
{
	struct vfio_host *host;

	err.text[0] = '\0';
	cr_assert_lt(vfio_open(vfio, FIRST, &host, &err), 0);
	return err.text;
}

Test(vfio, a_device_without_a_driver_or_with_another)
{
	add_function('0', NULL, false);
	cr_assert(strstr(refusal(), FIRST " isn't bound to vfio-pci: modprobe"), "%s", err.text);
	add_function('1', "nvme", false);
	add_function('2', "igb", false);
	cr_assert(strstr(refusal(), FIRST " isn't bound to vfio-pci: modprobe"), "%s", err.text);
}

Test(vfio, a_device_that_a_driver_of_the_host_has)
{
	add_function('0', "nvme", false);
	cr_assert(strstr(refusal(), "isn't bound to vfio-pci but to nvme"), "%s", err.text);
}

Test(vfio, drivers_of_vfio_are_as_good_as_vfio_pci)
{
	add_function('0', "mlx5_vfio_pci", true);
	add_function('1', "vfio-pci", false);
	add_function('2', "nvgrace_gpu_vfio_pci", true);
	cr_assert(strstr(refusal(), MISSING), "%s", err.text);
}

Test(vfio, members_that_the_host_uses_are_named)
{
	add_function('0', "vfio-pci", true);
	add_function('1', "igb", false);
	add_function('2', "mlx5_vfio_pci", true);
	add_function('3', "e1000e", false);
	cr_assert(strstr(refusal(), "fffe:1f:00.1 (igb)"), "%s", err.text);
	cr_assert(strstr(err.text, "fffe:1f:00.3 (e1000e)"), "%s", err.text);
	cr_assert_not(strstr(err.text, "mlx5"), "%s", err.text);
}

Test(vfio, members_that_do_no_dma_are_no_hindrance)
{
	add_function('0', "vfio-pci", true);
	add_function('1', "pcieport", false);
	add_function('2', "pci-stub", false);
	add_function('3', NULL, false);
	cr_assert(strstr(refusal(), MISSING), "%s", err.text);
}
