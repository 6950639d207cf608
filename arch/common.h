#ifndef ARCH_COMMON_H
#define ARCH_COMMON_H

/* What the architectures share with one another, and with nobody else. */

#include "firmware-tables/platform.h"
#include "vmm/base/err.h"

/* An open file to be read into guest memory. */
struct boot_file {
	int fd; /* borrows */
	const char *option, *path;
	uint64_t size;
};

/*
 * boot_file.c: @file is @fd, which @option named by @path (all borrowed). 0;
 * -EINVAL (not a regular file), -ENOEXEC (empty) or the errno of fstat, with words
 * that name option and file.
 */
int boot_file_init(struct boot_file *file, const char *option, int fd, const char *path,
		   struct err *err);
/*
 * boot_file.c: @file's bytes [@offset, @offset + @len) into @buf. 0; -ENOEXEC
 * (truncated) or -errno of pread, with words that name option and file.
 */
int boot_file_read(const struct boot_file *file, void *buf, uint64_t offset, uint64_t len,
		   struct err *err);
/*
 * boot_file.c: say that @file, which begins with @head, isn't a kernel for guests
 * of @machine ("x86_64"), and what it is instead, if its format is known; else that
 * it is none of @wanted. Returns -ENOEXEC.
 */
int boot_file_refuse(const struct boot_file *file, const uint8_t *head, size_t len,
		     const char *machine, const char *wanted, struct err *err);

/*
 * place.c: where the 64-bit PCI window goes in an address space of @space bytes,
 * below which RAM ends at @ram_end. False when there is no room.
 */
bool place_mem64(struct platform_range *ret_window, uint64_t ram_end, uint64_t space);

#endif
