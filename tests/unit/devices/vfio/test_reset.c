/*
 * Resets of functions with and without one of their own, against a kernel that is made up: this
 * program has an ioctl and a readlink of its own, which answer for a bus with three functions and
 * pass everything else on.
 */
#include "devices/vfio/internal.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>
#include "devices/vfio/iommufd_abi.h"
#include "tests/fake_ioctl.h"
#include "vmm/base/log.h"

#define FUNCTIONS 3
#define SYSFS	  "/sys/bus/pci/devices/fffe:1f:00."
#define DEVICE	  900 /* and on: the functions' files */
#define GROUP	  950 /* and on: the files of groups 0, 1, ... */

static struct {
	unsigned group[FUNCTIONS];     /* which each is in */
	const char *driver[FUNCTIONS]; /* NULL: none */
	uint32_t devid[FUNCTIONS];     /* what an iommufd knows it by */
	bool own_reset[FUNCTIONS];     /* it can be reset alone */
	bool by_iommufd, root_bus;
	int refuse;	/* the reset of the bus */
	unsigned count; /* functions there are */
	unsigned bus_resets, resets[FUNCTIONS];
	unsigned num_files; /* that proved ownership, last */
} kernel;

static struct vfio vfio;
static struct vfio_group groups[4];
static struct vfio_host *host[FUNCTIONS];
static struct err err;

static int kernel_info(struct vfio_pci_hot_reset_info *info)
{
	unsigned room = (unsigned)((info->argsz - sizeof(*info)) / sizeof(info->devices[0]));

	if (kernel.root_bus)
		return fail(ENODEV);
	info->count = kernel.count;
	if (room < kernel.count)
		return fail(ENOSPC);
	info->flags = kernel.by_iommufd ? ABI_VFIO_HOT_RESET_DEV_ID : 0;
	for (unsigned i = 0; i < kernel.count; i++) {
		info->devices[i].group_id = kernel.by_iommufd ? kernel.devid[i] : kernel.group[i];
		info->devices[i].segment = 0xfffe;
		info->devices[i].bus = 0x1f;
		info->devices[i].devfn = (uint8_t)i;
	}
	return 0;
}

/* Is the file of function @i's group in @arg? */
static bool proven(const struct vfio_pci_hot_reset *arg, unsigned i)
{
	for (unsigned j = 0; j < arg->count; j++) {
		if (arg->group_fds[j] == GROUP + (int)kernel.group[i])
			return true;
	}
	return false;
}

/* As strict as drivers/vfio/pci/vfio_pci_core.c of Linux 6.12, and more: no file is in vain. */
static int kernel_bus_reset(const struct vfio_pci_hot_reset *arg)
{
	cr_assert(arg->argsz >= sizeof(*arg) + arg->count * sizeof(arg->group_fds[0]));
	cr_assert_eq(arg->flags, 0);
	if (!arg->count != kernel.by_iommufd)
		return fail(EINVAL);
	for (unsigned i = 0; i < kernel.count; i++) {
		if (!kernel.driver[i] || strcmp(kernel.driver[i], "vfio-pci") ||
		    (!kernel.by_iommufd && !proven(arg, i)))
			return fail(EINVAL);
	}
	for (unsigned j = 0; j < arg->count; j++) {
		bool needed = false;

		for (unsigned i = 0; i < kernel.count; i++)
			needed |= arg->group_fds[j] == GROUP + (int)kernel.group[i];
		for (unsigned i = 0; i < j; i++)
			cr_assert_neq(arg->group_fds[i], arg->group_fds[j], "once each");
		cr_assert(needed, "file %d", arg->group_fds[j]);
	}
	if (kernel.refuse)
		return fail(kernel.refuse);
	kernel.num_files = arg->count;
	kernel.bus_resets++;
	return 0;
}

static int kernel_device(unsigned i, unsigned long request, void *arg)
{
	switch (request) {
	case VFIO_DEVICE_GET_INFO:
		((struct vfio_device_info *)arg)->flags =
			VFIO_DEVICE_FLAGS_PCI | (kernel.own_reset[i] ? VFIO_DEVICE_FLAGS_RESET : 0);
		return 0;
	case VFIO_DEVICE_RESET:
		kernel.resets[i]++;
		return kernel.own_reset[i] ? 0 : fail(ENOTTY);
	case VFIO_DEVICE_GET_PCI_HOT_RESET_INFO:
		return kernel_info(arg);
	case VFIO_DEVICE_PCI_HOT_RESET:
		return kernel_bus_reset(arg);
	}
	return fail(ENOTTY);
}

static bool kernel_ioctl(int fd, unsigned long request, void *arg, int *ret_result)
{
	if (fd < DEVICE || fd >= DEVICE + FUNCTIONS)
		return false;
	*ret_result = kernel_device((unsigned)(fd - DEVICE), request, arg);
	return true;
}

ssize_t readlink(const char *path, char *buf, size_t size)
{
	ssize_t (*next)(const char *, char *, size_t);
	size_t len = strlen(SYSFS);

	*(void **)&next = dlsym(RTLD_NEXT, "readlink");
	if (strncmp(path, SYSFS, len) || strcmp(path + len + 1, "/driver"))
		return next(path, buf, size);
	const char *driver = kernel.driver[path[len] - '0'];

	return driver ? snprintf(buf, size, "../../../bus/pci/drivers/%s", driver) : fail(ENOENT);
}

/* Function @i is passed through. */
static void pass(unsigned i)
{
	char bdf[16];

	snprintf(bdf, sizeof(bdf), "fffe:1f:00.%u", i);
	cr_assert_eq(vfio_device_create(&host[i], &vfio, DEVICE + (int)i, bdf, &err), 0);
}

/* Group @number is open. */
static void open_group(unsigned number)
{
	groups[number].number = number;
	groups[number].keeper_fd = kernel.by_iommufd ? -1 : GROUP + (int)number;
	groups[number].next = vfio.groups;
	vfio.groups = &groups[number];
}

static int reset(unsigned i)
{
	err.text[0] = '\0';
	return host[i]->ops->reset(host[i], &err);
}

static void new_round(void)
{
	for (unsigned i = 0; i < FUNCTIONS; i++) {
		if (host[i])
			host[i]->ops->quiet(host[i]);
	}
}

/* Two functions of group 1, nothing passed through yet. */
static void setup(void)
{
	log_set_level(LOG_ERROR);
	kernel.count = 2;
	for (unsigned i = 0; i < FUNCTIONS; i++) {
		kernel.group[i] = 1;
		kernel.driver[i] = "vfio-pci";
		kernel.devid[i] = i + 1;
	}
}

static void teardown(void)
{
	for (unsigned i = 0; i < FUNCTIONS; i++)
		vfio_close(host[i]);
	cr_assert_null(vfio.devices);
}

TestSuite(reset, .init = setup, .fini = teardown);

Test(reset, one_reset_of_the_bus_serves_all_on_it)
{
	open_group(1);
	pass(0);
	pass(1);
	for (unsigned round = 1; round <= 3; round++) {
		new_round();
		cr_assert_eq(reset(1), 0, "%s", err.text);
		cr_assert_eq(kernel.bus_resets, round);
		cr_assert_eq(reset(0), 0);
		cr_assert_eq(kernel.bus_resets, round, "it was reset already");
	}
	cr_assert(kernel.num_files == 1 && !kernel.resets[0] && !kernel.resets[1]);
}

Test(reset, each_affected_group_proves_itself_and_no_other)
{
	kernel.count = 3;
	kernel.group[2] = 2;
	for (unsigned i = 1; i <= 3; i++)
		open_group(i);
	for (unsigned i = 0; i < 3; i++)
		pass(i);
	cr_assert_eq(reset(0), 0, "%s", err.text);
	cr_assert(kernel.bus_resets == 1 && kernel.num_files == 2);
}

Test(reset, with_iommufd_there_is_no_file_to_prove_it)
{
	kernel.by_iommufd = true;
	/* Of the same group, and used by nobody. */
	kernel.devid[1] = 0;
	open_group(1);
	pass(0);
	cr_assert_eq(reset(0), 0, "%s", err.text);
	cr_assert(kernel.bus_resets == 1 && kernel.num_files == 0);
}

static void refused(unsigned i, int error, const char *words)
{
	cr_assert_eq(reset(i), -error);
	cr_assert(strstr(err.text, words), "%s", err.text);
	cr_assert_eq(kernel.bus_resets, 0);
}

Test(reset, a_function_that_is_not_ours_is_named)
{
	open_group(1);
	pass(0);
	kernel.group[1] = 2;
	refused(0, EPERM, "reach fffe:1f:00.1, which");
	open_group(2);
	kernel.driver[1] = NULL;
	refused(0, EPERM, "reach fffe:1f:00.1, which");
	kernel.driver[1] = "e1000";
	refused(0, EPERM, "reach fffe:1f:00.1, which");
	kernel.by_iommufd = true;
	kernel.devid[1] = ABI_VFIO_DEVID_NOT_OWNED;
	refused(0, EPERM, "reach fffe:1f:00.1, which");
}

Test(reset, a_bus_without_a_reset)
{
	open_group(1);
	pass(0);
	kernel.root_bus = true;
	refused(0, ENOTTY, "neither it nor its bus has a reset");
}

Test(reset, one_that_failed_serves_nobody)
{
	open_group(1);
	pass(0);
	pass(1);
	kernel.refuse = EAGAIN;
	refused(1, EAGAIN, "the host can't reset its bus");
	kernel.refuse = ENOTTY;
	refused(1, ENOTTY, "it didn't come back");
	kernel.refuse = 0;
	cr_assert_eq(reset(0), 0);
	cr_assert_eq(kernel.bus_resets, 1);
}

/* In the next round nobody was reset yet, whatever came late in the last one. */
Test(reset, a_round_knows_nothing_of_the_last_one)
{
	open_group(1);
	pass(0);
	pass(1);
	kernel.refuse = EAGAIN;
	refused(1, EAGAIN, "the host can't reset its bus");
	kernel.refuse = 0;
	cr_assert_eq(reset(0), 0);
	new_round();
	cr_assert_eq(reset(1), 0);
	cr_assert_eq(kernel.bus_resets, 2);
}

Test(reset, who_has_a_reset_of_its_own_uses_that)
{
	kernel.own_reset[0] = true;
	open_group(1);
	pass(0);
	pass(1);
	cr_assert_eq(reset(1), 0);
	cr_assert_eq(reset(0), 0);
	cr_assert(kernel.bus_resets == 1 && kernel.resets[0] == 1);
}

Test(reset, who_was_closed_is_forgotten)
{
	open_group(1);
	pass(0);
	pass(1);
	vfio_close(host[1]);
	host[1] = NULL;
	cr_assert_eq(reset(0), 0);
	cr_assert_eq(reset(0), 0);
	cr_assert_eq(kernel.bus_resets, 2);
}

/* Its end is what the host waits for that wants it back. */
Test(reset, one_that_is_released_is_closed_with_no_file_left_to_open)
{
	struct rlimit limit;
	int ends[2], last;
	char byte;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = DEVICE + FUNCTIONS + 1;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	cr_assert_eq(pipe2(ends, O_NONBLOCK), 0);
	cr_assert_eq(dup2(ends[1], DEVICE), DEVICE);
	close(ends[1]);
	vfio.null_fd = open("/dev/null", O_RDWR);
	pass(0);
	while ((last = open("/dev/null", O_RDWR)) >= 0)
		cr_assert_neq(last, DEVICE);
	cr_assert_eq(errno, EMFILE);
	host[0]->ops->release(host[0]);
	cr_expect_eq(read(ends[0], &byte, 1), 0);
}
