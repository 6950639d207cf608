#include "arch/x86_64/x86.h"

/*
 * Loading what the guest starts with. A kernel is a file somebody else made:
 * every number in it is checked against the file's size and the guest's RAM
 * before it is used, and file contents go straight into guest memory.
 *
 * x86_boot_load touches only memory, so unit tests can feed it hostile files
 * without a KVM; arch_boot adds the tables and the registers.
 */

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "firmware-tables/acpi/acpi.h"

#define HEAD_SIZE 1024 /* enough to tell what kind of file it is */

const char *arch_default_cmdline(void)
{
	return "console=ttyS0 panic=-1";
}

/* Files ------------------------------------------------------------------- */

int x86_load_initrd(struct x86_load *load, uint64_t limit, struct err *err)
{
	const struct boot_file *file = &load->initrd;
	uint64_t end = MIN(limit, load->low_end), room = 0;

	if (end > load->kernel_end)
		room = end - load->kernel_end;
	if (file->size > room || ALIGN_DOWN(end - file->size, KIB(4)) < load->kernel_end)
		return err_set(err, EFBIG,
			       "%s %s: its %" PRIu64 " KiB don't fit into the %" PRIu64
			       " KiB that the kernel leaves free%s",
			       file->option, file->path, (file->size + 1023) >> 10, room >> 10,
			       load->low_end < X86_LOW_RAM_END ? "; give more --memory" : "");
	load->initrd_base = ALIGN_DOWN(end - file->size, KIB(4));
	return boot_file_read(file, ram_ptr(load->ram, GPA(load->initrd_base), file->size), 0,
			      file->size, err);
}

int x86_load_cmdline(struct x86_load *load, uint64_t max, struct err *err)
{
	size_t len = strlen(load->cmdline);

	max = MIN(max, X86_CMDLINE_MAX - 1);
	if (len > max)
		return err_set(err, E2BIG,
			       "--cmdline: %zu characters, but this kernel takes at most %" PRIu64,
			       len, max);
	return ram_write(load->ram, GPA(X86_CMDLINE), load->cmdline, len + 1);
}

static int load_kernel(struct x86_load *load, struct x86_entry *ret_entry, struct err *err)
{
	uint8_t head[HEAD_SIZE];
	size_t len = (size_t)MIN(load->kernel.size, sizeof(head));
	int r = boot_file_read(&load->kernel, head, 0, len, err);

	if (r < 0)
		return r;
	if (x86_bzimage_probe(head, len))
		return x86_bzimage_load(load, ret_entry, err);
	if (x86_elf_probe(head, len))
		return x86_pvh_load(load, ret_entry, err);
	return boot_file_refuse(&load->kernel, head, len, "x86_64",
				"neither a bzImage nor an ELF file with a PVH note", err);
}

/* Memory ------------------------------------------------------------------ */

static void add_e820(struct x86_load *load, uint64_t base, uint64_t end, uint32_t type)
{
	if (end > base)
		load->e820[load->num_e820++] = (struct x86_e820){ base, end - base, type };
}

static void build_e820(struct x86_load *load, const struct arch_map *map)
{
	add_e820(load, 0, X86_LOW_END, X86_E820_RAM);
	add_e820(load, X86_TABLES, X86_KERNEL_MIN, X86_E820_RESERVED);
	add_e820(load, X86_KERNEL_MIN, load->low_end, X86_E820_RAM);
	add_e820(load, map->ecam.base, map->ecam.base + map->ecam.size, X86_E820_RESERVED);
	for (unsigned i = 1; i < map->ram.count; i++)
		add_e820(load, map->ram.region[i].base.v,
			 map->ram.region[i].base.v + map->ram.region[i].size, X86_E820_RAM);
}

/*
 * What a PC's firmware has at F000:FFF0: code that resets the machine. Linux
 * jumps there, in real mode, to reboot: it sees hardware-reduced ACPI, expects EFI
 * to do it (efi_reboot_required), and without EFI the BIOS is next, long before
 * the reset register and the keyboard controller.
 */
static void write_reset_vector(struct ram *ram)
{
	static const uint8_t code[] = {
		0xba,
		X86_PORT_RESET & 0xff,
		X86_PORT_RESET >> 8, /* mov dx, port */
		0xb0,
		X86_RESET_VALUE, /* mov al, value */
		0xee,		 /* out dx, al */
		0xf4,		 /* 1: hlt */
		0xeb,
		0xfd, /* jmp 1b */
	};

	ram_write(ram, GPA(X86_RESET_VECTOR), code, sizeof(code));
}

int x86_boot_load(struct ram *ram, const struct arch_map *map, const struct arch_boot *boot,
		  uint64_t rsdp, struct x86_entry *ret_entry, struct err *err)
{
	struct x86_load load = {
		.ram = ram,
		.low_end = map->ram.region[0].size,
		.cmdline = boot->cmdline,
		.rsdp = rsdp,
		.has_initrd = boot->initrd_fd >= 0,
	};
	int r = boot_file_init(&load.kernel, "--kernel", boot->kernel_fd, boot->kernel_path, err);

	if (r < 0)
		return r;
	if (load.has_initrd) {
		r = boot_file_init(&load.initrd, "--initrd", boot->initrd_fd, boot->initrd_path,
				   err);
		if (r < 0)
			return r;
	}
	/* From here on everything below X86_KERNEL_MIN is known to be RAM. */
	if (!ram_ptr(ram, GPA(0), load.low_end) || load.low_end < 2 * X86_KERNEL_MIN)
		return err_set(err, EINVAL, "--memory: a PC needs 2 MiB at least");
	write_reset_vector(ram);
	build_e820(&load, map);
	return load_kernel(&load, ret_entry, err);
}

static int load_tables(struct arch *arch, const struct platform *platform, struct err *err)
{
	struct acpi_blob blob = { 0 };
	int r = acpi_build(&blob, platform, X86_TABLES, err);

	if (r < 0)
		return r;
	if (blob.size > X86_TABLES_SIZE)
		r = err_set(err, E2BIG, "the ACPI tables need %zu bytes, there is room for %u",
			    blob.size, (unsigned)X86_TABLES_SIZE);
	else if (ram_write(vm_ram(arch->vm), GPA(X86_TABLES), blob.data, blob.size) < 0)
		r = err_set(err, EINVAL, "--memory: a PC needs 2 MiB at least");
	acpi_blob_finish(&blob);
	return r;
}

int arch_boot(struct arch *arch, const struct arch_boot *boot, const struct platform *platform,
	      struct vcpu **vcpus, unsigned count, struct err *err)
{
	struct x86_entry entry;
	int r = load_tables(arch, platform, err);

	if (!r)
		r = x86_boot_load(vm_ram(arch->vm), &arch->map, boot, X86_TABLES, &entry, err);
	for (unsigned i = 0; !r && i < count; i++)
		r = x86_state_restore(&arch->cpu[i], vcpus[i], err);
	if (r < 0)
		return r;
	/* The others wait for the first one's INIT and SIPI. */
	return x86_entry_set_regs(vcpus[0], &entry, err);
}

int arch_dump_tables(const struct platform *platform,
		     int (*emit)(void *opaque, const char *file, const void *data, size_t size),
		     void *opaque, struct err *err)
{
	struct acpi_blob blob = { 0 };
	int r = acpi_build(&blob, platform, X86_TABLES, err);

	for (unsigned i = 0; !r && i < blob.count; i++) {
		const struct acpi_table_ref *table = &blob.table[i];
		char file[16];
		size_t n = 0;

		/* "DSDT" becomes dsdt.dat, which iasl takes; "RSD PTR" loses its space. */
		for (const char *c = table->signature; *c; c++) {
			if (*c != ' ')
				file[n++] = (char)(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c);
		}
		memcpy(file + n, ".dat", sizeof(".dat"));
		r = emit(opaque, file, blob.data + table->offset, table->length);
	}
	acpi_blob_finish(&blob);
	return r;
}
