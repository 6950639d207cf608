#ifndef ARCH_AARCH64_IMAGE_H
#define ARCH_AARCH64_IMAGE_H

/* The kernel's file. Nothing here is KVM's, so any machine can try it. */

#include "arch/common.h"
#include "vmm/core/ram.h"

/* Sizes of pages, as bits. */
#define A64_PAGES_4K  1u
#define A64_PAGES_16K 2u
#define A64_PAGES_64K 4u

/* What is where after loading. */
struct a64_loaded {
	uint64_t entry;	     /* the kernel's first instruction */
	uint64_t kernel_end; /* the first byte that the kernel leaves free */
	uint64_t dtb;	     /* where the device tree shall be, A64_DTB_SIZE bytes at most */
	struct platform_range initrd; /* size 0: none */
};

/*
 * Load @file, an Image or a gzip of one, into @ram and set entry and
 * kernel_end. @page_sizes: A64_PAGES_ bits of the CPU. -ENOEXEC (not a kernel that
 * this machine can run), -EFBIG, -errno with words that name option and file.
 */
int a64_image_load(struct ram *ram, const struct boot_file *file, unsigned page_sizes,
		   struct a64_loaded *loaded, struct err *err);

#endif
