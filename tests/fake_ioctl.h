#ifndef TESTS_FAKE_IOCTL_H
#define TESTS_FAKE_IOCTL_H

/*
 * A kernel that is made up: the one program that includes this asks itself first what an ioctl
 * does, and the true kernel about files that aren't its own.
 */

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/ioctl.h>

/* Is @fd one of the program's? Then in *@ret_result what ioctl() returns, with errno set. */
static bool kernel_ioctl(int fd, unsigned long request, void *arg, int *ret_result);

/* A system call that fails. */
static inline int fail(int error)
{
	errno = error;
	return -1;
}

int ioctl(int fd, unsigned long request, ...)
{
	int (*next)(int, unsigned long, void *), result;
	va_list args;

	va_start(args, request);
	void *arg = va_arg(args, void *);

	va_end(args);
	if (kernel_ioctl(fd, request, arg, &result))
		return result;
	*(void **)&next = dlsym(RTLD_NEXT, "ioctl");
	return next(fd, request, arg);
}

#endif
