#include "arch/x86_64/x86.h"

/*
 * bzImage by the 64-bit boot protocol (Documentation/arch/x86/boot.rst).
 *
 *	file:   boot sector + setup (setup_sects + 1 sectors) | protected-mode kernel
 *	memory: boot_params at X86_BOOT_PARAMS                | at pref_address
 *
 * The setup code is for BIOSes and isn't loaded; only its header, at 0x1f1, is
 * copied into boot_params. The kernel unpacks itself inside the init_size bytes
 * from its load address, which must therefore all be free RAM.
 */

#include <asm/bootparam.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#define SECTOR		   512
#define HEADER_OFFSET	   0x1f1
#define HEADER_JUMP	   0x201      /* offset byte of the jump at 0x200: the header's end */
#define HEADER_MAGIC	   0x53726448 /* "HdrS" */
#define BOOT_FLAG	   0xaa55
#define VERSION_MIN	   0x020c /* the first with xloadflags */
#define ENTRY_64	   0x200
#define LOADER_UNDEFINED   0xff
#define VID_MODE_NORMAL	   0xffff
#define OLDEST_SETUP_SECTS 4 /* what 0 means */

_Static_assert(sizeof(struct boot_params) == 4096, "the zero page is a page");
_Static_assert(offsetof(struct boot_params, hdr) == HEADER_OFFSET, "setup header");
_Static_assert(offsetof(struct boot_params, acpi_rsdp_addr) == 0x70, "RSDP address");

bool x86_bzimage_probe(const uint8_t *head, size_t len)
{
	struct setup_header hdr;

	if (len < HEADER_OFFSET + sizeof(hdr))
		return false;
	memcpy(&hdr, head + HEADER_OFFSET, sizeof(hdr));
	return hdr.boot_flag == BOOT_FLAG && hdr.header == HEADER_MAGIC;
}

static int check_header(const struct boot_file *file, const struct setup_header *hdr,
			struct err *err)
{
	const char *what = NULL;

	if (hdr->version < VERSION_MIN)
		what = "its boot protocol is older than 2.12 (Linux 3.8)";
	else if (!(hdr->loadflags & LOADED_HIGH))
		what = "a zImage, which loads below 1 MiB";
	else if (!(hdr->xloadflags & XLF_KERNEL_64))
		what = "a 32-bit kernel, without a 64-bit entry point";
	else if (!hdr->kernel_alignment || hdr->kernel_alignment & (hdr->kernel_alignment - 1))
		what = "its alignment isn't a power of two";
	else if (!hdr->init_size || hdr->init_size < (uint64_t)hdr->syssize * 16)
		what = "it says that it needs less memory than its own size";
	if (what)
		return err_set(err, ENOEXEC, "%s %s: %s", file->option, file->path, what);
	return 0;
}

/* Where it wants to be, or, when that isn't RAM and it can move, as low as it may. */
static int choose_address(const struct x86_load *load, const struct setup_header *hdr,
			  uint64_t *ret_base, struct err *err)
{
	const uint64_t candidates[] = {
		hdr->pref_address,
		ALIGN_UP(X86_KERNEL_MIN, (uint64_t)hdr->kernel_alignment),
	};
	unsigned count = hdr->relocatable_kernel ? 2 : 1;

	for (unsigned i = 0; i < count; i++) {
		uint64_t base = candidates[i];

		if (base >= X86_KERNEL_MIN && base <= load->low_end &&
		    hdr->init_size <= load->low_end - base) {
			*ret_base = base;
			return 0;
		}
	}
	return err_set(err, EFBIG,
		       "%s %s: it needs %u KiB at 0x%" PRIx64 ", but RAM ends at 0x%" PRIx64
		       "; give more --memory",
		       load->kernel.option, load->kernel.path, hdr->init_size >> 10,
		       (uint64_t)hdr->pref_address, load->low_end);
}

static int load_image(struct x86_load *load, const struct setup_header *hdr, uint64_t base,
		      struct err *err)
{
	unsigned sects = hdr->setup_sects ? hdr->setup_sects : OLDEST_SETUP_SECTS;
	uint64_t start = (uint64_t)(sects + 1) * SECTOR, size = (uint64_t)hdr->syssize * 16;

	if (size <= ENTRY_64)
		return err_set(err, ENOEXEC, "%s %s: it holds no kernel after its setup code",
			       load->kernel.option, load->kernel.path);
	return boot_file_read(&load->kernel, ram_ptr(load->ram, GPA(base), size), start, size, err);
}

static void fill_boot_params(struct boot_params *bp, const struct x86_load *load, uint64_t base)
{
	bp->hdr.type_of_loader = LOADER_UNDEFINED;
	bp->hdr.vid_mode = VID_MODE_NORMAL;
	bp->hdr.code32_start = (uint32_t)base;
	bp->hdr.cmd_line_ptr = X86_CMDLINE;
	bp->hdr.setup_data = 0;
	bp->acpi_rsdp_addr = load->rsdp;
	if (load->has_initrd) {
		bp->hdr.ramdisk_image = (uint32_t)load->initrd_base;
		bp->hdr.ramdisk_size = (uint32_t)load->initrd.size;
	}
	bp->e820_entries = (uint8_t)load->num_e820;
	for (unsigned i = 0; i < load->num_e820; i++) {
		bp->e820_table[i] = (struct boot_e820_entry){
			.addr = load->e820[i].base,
			.size = load->e820[i].size,
			.type = load->e820[i].type,
		};
	}
}

int x86_bzimage_load(struct x86_load *load, struct x86_entry *ret_entry, struct err *err)
{
	struct boot_params bp = { 0 };
	uint8_t head[HEADER_OFFSET + sizeof(bp.hdr)];
	uint64_t base = 0;
	int r = boot_file_read(&load->kernel, head, 0, sizeof(head), err);

	if (r < 0)
		return r;
	/* The kernel says how long its header is; what we don't know stays zero. */
	size_t len = (size_t)(HEADER_JUMP + 1 - HEADER_OFFSET) + head[HEADER_JUMP];

	memcpy(&bp.hdr, head + HEADER_OFFSET, MIN(len, sizeof(bp.hdr)));
	r = check_header(&load->kernel, &bp.hdr, err);
	if (!r)
		r = choose_address(load, &bp.hdr, &base, err);
	if (!r)
		r = load_image(load, &bp.hdr, base, err);
	if (r < 0)
		return r;
	load->kernel_end = base + bp.hdr.init_size;
	if (load->has_initrd) {
		r = x86_load_initrd(load, (uint64_t)bp.hdr.initrd_addr_max + 1, err);
		if (r < 0)
			return r;
	}
	r = x86_load_cmdline(load, bp.hdr.cmdline_size, err);
	if (r < 0)
		return r;
	fill_boot_params(&bp, load, base);
	x86_entry_write_tables(load->ram);
	*ret_entry = (struct x86_entry){
		.long_mode = true,
		.rip = base + ENTRY_64,
		.argument = X86_BOOT_PARAMS,
	};
	return ram_write(load->ram, GPA(X86_BOOT_PARAMS), &bp, sizeof(bp));
}
