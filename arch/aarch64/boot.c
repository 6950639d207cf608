#include "arch/aarch64/a64.h"

/*
 * What the guest starts with, from the start of RAM up:
 *
 *	kernel | up to a 2 MiB boundary | device tree, 2 MiB at most | initrd
 *
 * The protocol wants the tree within 2 MiB that one mapping covers, and the initrd
 * within 32 GiB of the kernel.
 */

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <sys/random.h>
#include "firmware-tables/fdt.h"

#define INITRD_REACH GIB(32)
#define INITRD_ALIGN KIB(64) /* the largest page */
#define CMDLINE_MAX  2048    /* COMMAND_LINE_SIZE, with the NUL; the kernel cuts off the rest */

const char *arch_default_cmdline(void)
{
	return "console=ttyAMA0 panic=-1";
}

static int load_initrd(struct ram *ram, const struct boot_file *file, struct a64_loaded *loaded,
		       struct err *err)
{
	const struct ram_region *region = &ram->region[0];
	uint64_t base = ALIGN_UP(loaded->dtb + A64_DTB_SIZE, INITRD_ALIGN);
	uint64_t end = region->base.v + MIN(region->size, INITRD_REACH);
	uint64_t room = end > base ? end - base : 0;

	if (file->size > room)
		return err_set(err, EFBIG,
			       "%s %s: its %" PRIu64 " KiB don't fit into the %" PRIu64
			       " KiB that the kernel leaves free%s",
			       file->option, file->path, (file->size + 1023) >> 10, room >> 10,
			       region->size < INITRD_REACH ? "; give more --memory" : "");
	loaded->initrd = (struct platform_range){ base, file->size };
	return boot_file_read(file, ram_ptr(ram, GPA(base), file->size), 0, file->size, err);
}

int a64_boot_load(struct ram *ram, const struct arch_boot *boot, unsigned page_sizes,
		  struct a64_loaded *ret_loaded, struct err *err)
{
	struct a64_loaded loaded = { 0 };
	struct boot_file kernel, initrd;
	int r = boot_file_init(&kernel, "--kernel", boot->kernel_fd, boot->kernel_path, err);

	if (!r && boot->initrd_fd >= 0)
		r = boot_file_init(&initrd, "--initrd", boot->initrd_fd, boot->initrd_path, err);
	if (!r)
		r = a64_image_load(ram, &kernel, page_sizes, &loaded, err);
	if (r < 0)
		return r;
	loaded.dtb = ALIGN_UP(loaded.kernel_end, A64_DTB_SIZE);
	if (!ram_ptr(ram, GPA(loaded.dtb), A64_DTB_SIZE))
		return err_set(err, EFBIG,
			       "%s %s: it leaves no room for the device tree; give more --memory",
			       kernel.option, kernel.path);
	if (boot->initrd_fd >= 0)
		r = load_initrd(ram, &initrd, &loaded, err);
	if (!r)
		*ret_loaded = loaded;
	return r;
}

static int load_tree(struct arch *arch, const struct arch_boot *boot,
		     const struct platform *platform, const struct a64_loaded *loaded,
		     struct err *err)
{
	struct platform_boot chosen = {
		.cmdline = boot->cmdline,
		.initrd = loaded->initrd,
		.has_seeds = true,
	};
	struct fdt_blob blob = { 0 };
	size_t len = strlen(boot->cmdline);

	if (len >= CMDLINE_MAX)
		return err_set(err, E2BIG,
			       "--cmdline: %zu characters, but an arm64 kernel takes at most %u",
			       len, CMDLINE_MAX - 1);
	/* Without them the kernel would boot as well, at an address that is no secret. */
	if (getrandom(&chosen.kaslr_seed, sizeof(chosen.kaslr_seed), 0) < 0 ||
	    getrandom(chosen.rng_seed, sizeof(chosen.rng_seed), 0) < 0)
		chosen.has_seeds = false;
	int r = fdt_build(&blob, platform, &chosen, err);

	if (r < 0)
		return r;
	/* At most so many CPUs and devices of a few hundred bytes each. */
	assert(blob.size <= A64_DTB_SIZE);
	r = ram_write(vm_ram(arch->vm), GPA(loaded->dtb), blob.data, blob.size);
	fdt_blob_finish(&blob);
	return r;
}

int arch_boot(struct arch *arch, const struct arch_boot *boot, const struct platform *platform,
	      struct vcpu **vcpus, unsigned count, struct err *err)
{
	struct a64_loaded loaded;
	int r = a64_boot_load(vm_ram(arch->vm), boot, arch->page_sizes, &loaded, err);

	if (!r)
		r = load_tree(arch, boot, platform, &loaded, err);
	for (unsigned i = 0; !r && i < count; i++)
		r = a64_cpu_reset(arch, vcpus[i], loaded.entry, loaded.dtb, err);
	return r;
}

int arch_dump_tables(const struct platform *platform,
		     int (*emit)(void *opaque, const char *file, const void *data, size_t size),
		     void *opaque, struct err *err)
{
	struct fdt_blob blob = { 0 };
	int r = fdt_build(&blob, platform, NULL, err);

	if (!r)
		r = emit(opaque, "machine.dtb", blob.data, blob.size);
	fdt_blob_finish(&blob);
	return r;
}
