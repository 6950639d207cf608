/*
 * Kernel files are input from outside: good ones must land where the boot
 * protocols say, and no bad one may do more than produce a line that names it.
 */

#include <criterion/criterion.h>
#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "arch/x86_64/x86.h"

#define RAM_SIZE MIB(64)
#define RSDP	 0xe0000
#define PATH	 "kernel-under-test"

static struct arch_map map;
static struct ram *ram;
static struct err err;
static struct x86_entry entry;

static void setup(void)
{
	cr_assert_eq(arch_map_init(&map, RAM_SIZE, &err), 0);
	cr_assert_eq(ram_create(&ram, &map.ram, &err), 0);
}

static void teardown(void)
{
	ram_destroy(ram);
}

TestSuite(boot, .init = setup, .fini = teardown);

static int make_file(const void *data, size_t size)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	cr_assert(fd >= 0);
	cr_assert_eq(write(fd, data, size), (ssize_t)size);
	return fd;
}

static int load_with(const void *kernel, size_t size, const char *cmdline, const void *initrd,
		     size_t initrd_size)
{
	struct arch_boot boot = {
		.kernel_fd = make_file(kernel, size),
		.kernel_path = PATH,
		.initrd_fd = initrd ? make_file(initrd, initrd_size) : -1,
		.initrd_path = "initrd-under-test",
		.cmdline = cmdline,
	};

	err.text[0] = '\0';
	int r = x86_boot_load(ram, &map, &boot, RSDP, &entry, &err);

	close(boot.kernel_fd);
	if (initrd)
		close(boot.initrd_fd);
	return r;
}

static int load(const void *kernel, size_t size)
{
	return load_with(kernel, size, "quiet", NULL, 0);
}

/* It fails, with a line that names the file and contains @words. */
static void assert_refused(const void *kernel, size_t size, const char *words)
{
	cr_assert_lt(load(kernel, size), 0, "accepted, but expected: %s", words);
	cr_assert_not_null(strstr(err.text, "--kernel " PATH), "'%s'", err.text);
	cr_assert_not_null(strstr(err.text, words), "'%s' doesn't say '%s'", err.text, words);
	cr_assert_null(strchr(err.text, '\n'));
}

/* bzImage ----------------------------------------------------------------- */

#define SETUP_SECTS  2
#define SETUP_SIZE   ((SETUP_SECTS + 1) * 512)
#define PAYLOAD_SIZE 4096
#define BZ_SIZE	     (SETUP_SIZE + PAYLOAD_SIZE)

struct bz {
	uint8_t bytes[BZ_SIZE];
};

static struct setup_header *bz_hdr(struct bz *bz)
{
	return (struct setup_header *)(bz->bytes + 0x1f1);
}

static struct bz bz_make(void)
{
	struct bz bz = { 0 };

	memset(bz.bytes, 0xcc, 0x1f1);
	for (int i = 0; i < PAYLOAD_SIZE; i++)
		bz.bytes[SETUP_SIZE + i] = (uint8_t)(i * 7);
	*bz_hdr(&bz) = (struct setup_header){
		.setup_sects = SETUP_SECTS,
		.syssize = PAYLOAD_SIZE / 16,
		.boot_flag = 0xaa55,
		.jump = 0x6aeb, /* the header ends at 0x202 + 0x6a */
		.header = 0x53726448,
		.version = 0x020f,
		.loadflags = LOADED_HIGH,
		.initrd_addr_max = 0x7fffffff,
		.kernel_alignment = MIB(2),
		.relocatable_kernel = 1,
		.xloadflags = XLF_KERNEL_64,
		.cmdline_size = 2047,
		.pref_address = MIB(16),
		.init_size = MIB(8),
	};
	return bz;
}

Test(boot, bzimage_lands_as_the_protocol_says)
{
	struct bz bz = bz_make();
	static const char initrd[5000] = "the initrd";
	const char *cmdline = "console=ttyS0 root=/dev/vda";

	cr_assert_eq(load_with(&bz, sizeof(bz), cmdline, initrd, sizeof(initrd)), 0, "%s",
		     err.text);
	cr_assert(entry.long_mode);
	cr_assert_eq(entry.rip, MIB(16) + 0x200);
	cr_assert_eq(memcmp(ram_ptr(ram, GPA(MIB(16)), PAYLOAD_SIZE), bz.bytes + SETUP_SIZE,
			    PAYLOAD_SIZE),
		     0);
	const struct boot_params *bp = ram_ptr(ram, GPA(entry.argument), 4096);

	cr_assert_eq(bp->acpi_rsdp_addr, RSDP);
	cr_assert_eq(bp->hdr.header, 0x53726448);
	cr_assert_eq(bp->hdr.type_of_loader, 0xff);
	cr_assert_eq(bp->sentinel, 0, "the setup sector leaked into the zero page");
	cr_assert_str_eq(ram_ptr(ram, GPA(bp->hdr.cmd_line_ptr), 100), cmdline);
	cr_assert_eq(bp->hdr.ramdisk_size, sizeof(initrd));
	cr_assert_eq(bp->hdr.ramdisk_image % 4096, 0);
	cr_assert_geq(bp->hdr.ramdisk_image, MIB(16) + MIB(8));
	cr_assert_eq(memcmp(ram_ptr(ram, GPA(bp->hdr.ramdisk_image), sizeof(initrd)), initrd,
			    sizeof(initrd)),
		     0);
}

Test(boot, memory_map_hides_the_tables)
{
	struct bz bz = bz_make();
	bool reserved = false;
	uint64_t usable = 0;

	cr_assert_eq(load(&bz, sizeof(bz)), 0);
	const struct boot_params *bp = ram_ptr(ram, GPA(entry.argument), 4096);

	for (int i = 0; i < bp->e820_entries; i++) {
		const struct boot_e820_entry *e = &bp->e820_table[i];

		if (e->type == X86_E820_RAM) {
			usable += e->size;
			cr_assert(e->addr + e->size <= 0xa0000 || e->addr >= MIB(1));
		}
		reserved = reserved || (e->type == X86_E820_RESERVED && e->addr <= RSDP &&
					e->addr + e->size == MIB(1));
	}
	cr_assert(reserved);
	cr_assert_eq(usable, RAM_SIZE - 0x60000);
}

Test(boot, bzimage_moves_down_when_its_address_is_not_ram)
{
	struct bz bz = bz_make();

	bz_hdr(&bz)->pref_address = MIB(60);
	cr_assert_eq(load(&bz, sizeof(bz)), 0, "%s", err.text);
	cr_assert_eq(entry.rip, MIB(2) + 0x200);
	bz_hdr(&bz)->relocatable_kernel = 0;
	assert_refused(&bz, sizeof(bz), "give more --memory");
}

Test(boot, bzimage_hostile_headers)
{
	struct bz bz;

#define REFUSED_WITH(field, value, words)               \
	do {                                            \
		bz = bz_make();                         \
		bz_hdr(&bz)->relocatable_kernel = 0;    \
		bz_hdr(&bz)->field = value;             \
		assert_refused(&bz, sizeof(bz), words); \
	} while (0)

	REFUSED_WITH(version, 0x020b, "2.12");
	REFUSED_WITH(loadflags, 0, "zImage");
	REFUSED_WITH(xloadflags, 0, "32-bit");
	REFUSED_WITH(kernel_alignment, 0, "alignment");
	REFUSED_WITH(kernel_alignment, 3, "alignment");
	REFUSED_WITH(init_size, 0, "less memory");
	REFUSED_WITH(init_size, 4095, "less memory");
	REFUSED_WITH(init_size, UINT32_MAX, "give more --memory");
	REFUSED_WITH(pref_address, 0, "needs");
	REFUSED_WITH(pref_address, 0x7000, "needs");
	REFUSED_WITH(pref_address, UINT64_MAX, "needs");
	REFUSED_WITH(pref_address, UINT64_MAX - MIB(8) + 1, "needs");
	REFUSED_WITH(syssize, UINT32_MAX, "less memory");
	REFUSED_WITH(syssize, MIB(8) / 16, "truncated");
	REFUSED_WITH(syssize, 0, "no kernel");
	REFUSED_WITH(setup_sects, 255, "truncated");
	REFUSED_WITH(header, 0, "not a kernel");
}

Test(boot, bzimage_truncated_anywhere)
{
	struct bz bz = bz_make();

	for (size_t size = 1; size < BZ_SIZE; size += size < 0x300 ? 1 : 97)
		cr_assert_lt(load(&bz, size), 0, "%zu bytes were accepted", size);
	assert_refused(&bz, BZ_SIZE - 1, "truncated");
	assert_refused(&bz, 0, "empty");
}

Test(boot, command_line_limit_is_the_kernels)
{
	struct bz bz = bz_make();
	char line[2049];

	memset(line, 'x', sizeof(line));
	line[2047] = '\0';
	cr_assert_eq(load_with(&bz, sizeof(bz), line, NULL, 0), 0);
	line[2047] = 'x';
	line[2048] = '\0';
	cr_assert_eq(load_with(&bz, sizeof(bz), line, NULL, 0), -E2BIG);
	cr_assert_not_null(strstr(err.text, "2048 characters"), "%s", err.text);
	cr_assert_not_null(strstr(err.text, "at most 2047"), "%s", err.text);
}

Test(boot, initrd_limits)
{
	struct bz bz = bz_make();
	size_t size = MIB(40) + 1;
	char *initrd = calloc(1, size);

	/* RAM 64 MiB, kernel in 16 to 24: exactly 40 MiB are free above it. */
	cr_assert_eq(load_with(&bz, sizeof(bz), "", initrd, size - 1), 0, "%s", err.text);
	cr_assert_eq(load_with(&bz, sizeof(bz), "", initrd, size), -EFBIG);
	cr_assert_not_null(strstr(err.text, "--initrd initrd-under-test"), "%s", err.text);
	cr_assert_not_null(strstr(err.text, "40961 KiB"), "%s", err.text);
	cr_assert_not_null(strstr(err.text, "40960 KiB"), "%s", err.text);

	bz_hdr(&bz)->initrd_addr_max = MIB(32) - 1;
	cr_assert_eq(load_with(&bz, sizeof(bz), "", initrd, 4097), 0);
	const struct boot_params *bp = ram_ptr(ram, GPA(entry.argument), 4096);

	cr_assert_eq(bp->hdr.ramdisk_image, MIB(32) - 8192);
	bz_hdr(&bz)->initrd_addr_max = MIB(20);
	cr_assert_eq(load_with(&bz, sizeof(bz), "", initrd, 1), -EFBIG);
	cr_assert_eq(load_with(&bz, sizeof(bz), "", initrd, 0), -ENOEXEC);
	free(initrd);
}

/* ELF with a PVH note ----------------------------------------------------- */

struct elf64 {
	Elf64_Ehdr eh;
	Elf64_Phdr ph[2]; /* the code, the note */
	struct {
		Elf64_Nhdr nh;
		char name[4];
		uint64_t entry;
	} note;
	uint8_t code[256];
};

static struct elf64 elf_make(void)
{
	struct elf64 elf = {
		.eh = {
			.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB },
			.e_machine = EM_X86_64,
			.e_phoff = offsetof(struct elf64, ph),
			.e_phentsize = sizeof(Elf64_Phdr),
			.e_phnum = 2,
		},
		.ph = {
			{
				.p_type = PT_LOAD,
				.p_offset = offsetof(struct elf64, code),
				.p_paddr = MIB(1),
				.p_filesz = sizeof(elf.code),
				.p_memsz = 8192,
			},
			{
				.p_type = PT_NOTE,
				.p_offset = offsetof(struct elf64, note),
				.p_filesz = sizeof(elf.note),
				.p_align = 4,
			},
		},
		.note = { { 4, 8, 18 }, "Xen", MIB(1) + 0x40 },
	};

	for (size_t i = 0; i < sizeof(elf.code); i++)
		elf.code[i] = (uint8_t)(i ^ 0x5a);
	return elf;
}

Test(boot, pvh_lands_as_the_abi_says)
{
	struct elf64 elf = elf_make();
	uint8_t *memory = ram_ptr(ram, GPA(MIB(1)), 8192);

	/* As after a reset with memory kept: what .bss covers must be zero again. */
	memset(memory, 0xee, 8192);
	cr_assert_eq(load_with(&elf, sizeof(elf), "hello", "initrd", 6), 0, "%s", err.text);
	cr_assert_not(entry.long_mode);
	cr_assert_eq(entry.rip, MIB(1) + 0x40);
	cr_assert_eq(memcmp(memory, elf.code, sizeof(elf.code)), 0);
	for (size_t i = sizeof(elf.code); i < 8192; i++)
		cr_assert_eq(memory[i], 0);

	const uint8_t *info = ram_ptr(ram, GPA(entry.argument), 56);
	uint32_t magic, modules;
	uint64_t list, cmdline, rsdp, module[2];

	memcpy(&magic, info, 4);
	memcpy(&modules, info + 12, 4);
	memcpy(&list, info + 16, 8);
	memcpy(&cmdline, info + 24, 8);
	memcpy(&rsdp, info + 32, 8);
	cr_assert_eq(magic, 0x336ec578);
	cr_assert_eq(modules, 1);
	cr_assert_str_eq(ram_ptr(ram, GPA(cmdline), 6), "hello");
	cr_assert_eq(rsdp, RSDP);
	memcpy(module, ram_ptr(ram, GPA(list), 32), sizeof(module));
	cr_assert_eq(module[1], 6);
	cr_assert_eq(memcmp(ram_ptr(ram, GPA(module[0]), 6), "initrd", 6), 0);
}

Test(boot, pvh_takes_32_bit_files)
{
	struct {
		Elf32_Ehdr eh;
		Elf32_Phdr ph[2];
		struct {
			Elf32_Nhdr nh;
			char name[4];
			uint32_t entry;
		} note;
	} elf = {
		.eh = {
			.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS32, ELFDATA2LSB },
			.e_machine = EM_386,
			.e_phoff = sizeof(Elf32_Ehdr),
			.e_phentsize = sizeof(Elf32_Phdr),
			.e_phnum = 2,
		},
		.ph = {
			{ .p_type = PT_LOAD, .p_paddr = MIB(2), .p_filesz = 64, .p_memsz = 64 },
			{
				.p_type = PT_NOTE,
				.p_offset = sizeof(Elf32_Ehdr) + 2 * sizeof(Elf32_Phdr),
				.p_filesz = sizeof(elf.note),
			},
		},
		.note = { { 4, 4, 18 }, "Xen", MIB(2) + 4 },
	};

	cr_assert_eq(load(&elf, sizeof(elf)), 0, "%s", err.text);
	cr_assert_eq(entry.rip, MIB(2) + 4);
	cr_assert_eq(memcmp(ram_ptr(ram, GPA(MIB(2)), 64), &elf, 64), 0);
}

Test(boot, elf_hostile_headers)
{
	struct elf64 elf;

#define ELF_REFUSED_WITH(field, value, words)             \
	do {                                              \
		elf = elf_make();                         \
		elf.field = value;                        \
		assert_refused(&elf, sizeof(elf), words); \
	} while (0)

	ELF_REFUSED_WITH(eh.e_ident[EI_CLASS], 3, "class");
	ELF_REFUSED_WITH(eh.e_ident[EI_DATA], ELFDATA2MSB, "another machine");
	ELF_REFUSED_WITH(eh.e_machine, EM_AARCH64, "arm64");
	ELF_REFUSED_WITH(eh.e_phentsize, 0, "program headers");
	ELF_REFUSED_WITH(eh.e_phnum, 0, "program headers");
	ELF_REFUSED_WITH(eh.e_phnum, 65535, "program headers");
	ELF_REFUSED_WITH(eh.e_phoff, UINT64_MAX, "truncated");
	ELF_REFUSED_WITH(eh.e_phoff, UINT64_MAX - 56, "truncated");
	ELF_REFUSED_WITH(ph[0].p_offset, UINT64_MAX, "truncated");
	ELF_REFUSED_WITH(ph[0].p_paddr, 0, "below 1 MiB");
	ELF_REFUSED_WITH(ph[0].p_paddr, X86_BOOT_PARAMS, "below 1 MiB");
	ELF_REFUSED_WITH(ph[0].p_paddr, RAM_SIZE, "give more --memory");
	ELF_REFUSED_WITH(ph[0].p_paddr, UINT64_MAX, "give more --memory");
	ELF_REFUSED_WITH(ph[0].p_memsz, UINT64_MAX, "give more --memory");
	ELF_REFUSED_WITH(ph[0].p_memsz, RAM_SIZE - MIB(1) + 1, "give more --memory");
	ELF_REFUSED_WITH(ph[0].p_memsz, 255, "larger in the file");
	ELF_REFUSED_WITH(ph[0].p_type, PT_NULL, "outside its segments");
	ELF_REFUSED_WITH(ph[1].p_filesz, UINT64_MAX, "too long");
	ELF_REFUSED_WITH(ph[1].p_filesz, 11, "PVH note");
	ELF_REFUSED_WITH(ph[1].p_filesz, 20, "PVH note");
	ELF_REFUSED_WITH(ph[1].p_type, PT_NULL, "CONFIG_PVH");
	ELF_REFUSED_WITH(note.nh.n_namesz, UINT32_MAX, "PVH note");
	ELF_REFUSED_WITH(note.nh.n_descsz, UINT32_MAX, "PVH note");
	ELF_REFUSED_WITH(note.nh.n_descsz, 0, "PVH note");
	ELF_REFUSED_WITH(note.nh.n_type, 1, "PVH note");
	ELF_REFUSED_WITH(note.entry, UINT64_MAX, "outside");
	ELF_REFUSED_WITH(note.entry, MIB(1) + 8192, "outside");
	ELF_REFUSED_WITH(note.entry, MIB(1) - 1, "outside");
}

Test(boot, elf_truncated_anywhere)
{
	struct elf64 elf = elf_make();

	for (size_t size = 1; size < sizeof(elf); size++)
		cr_assert_lt(load(&elf, size), 0, "%zu bytes were accepted", size);
}

Test(boot, elf_with_any_byte_changed_is_served_or_refused)
{
	static const uint8_t values[] = { 0x00, 0x01, 0x7f, 0x80, 0xff };

	for (size_t at = 0; at < offsetof(struct elf64, code); at++) {
		for (size_t v = 0; v < ARRAY_SIZE(values); v++) {
			struct elf64 elf = elf_make();

			((uint8_t *)&elf)[at] = values[v];
			if (load(&elf, sizeof(elf)) < 0)
				cr_assert_neq(err.text[0], '\0', "no words for byte %zu", at);
			else
				cr_assert_lt(entry.rip, RAM_SIZE);
		}
	}
}

Test(boot, a_note_that_is_not_the_first_is_found)
{
	struct elf64 elf = elf_make();
	/* A note with a name that needs padding and an empty body before the real one. */
	struct {
		struct elf64 elf;
		uint32_t other[5];
		uint32_t real[6];
	} file = { elf, { 6, 0, 1, 0x41414141, 0x00004141 }, { 4, 8, 18, 0x006e6558 } };
	uint64_t target = MIB(1) + 0x44;

	memcpy(&file.real[4], &target, 8);
	file.elf.ph[1].p_offset = offsetof(__typeof__(file), other);
	file.elf.ph[1].p_filesz = sizeof(file.other) + sizeof(file.real);
	cr_assert_eq(load(&file, sizeof(file)), 0, "%s", err.text);
	cr_assert_eq(entry.rip, target);
}

/* Other files ------------------------------------------------------------- */

Test(boot, files_that_are_no_kernel_say_what_they_are)
{
	uint8_t file[1024] = { 0 };

	assert_refused(file, sizeof(file), "not a kernel");
	memcpy(file + 0x38, "ARM\x64", 4);
	assert_refused(file, sizeof(file), "arm64");
	memset(file, 0, sizeof(file));
	memcpy(file, "\x1f\x8b\x08", 3);
	assert_refused(file, sizeof(file), "gzip");
	memcpy(file, "070701", 6);
	assert_refused(file, sizeof(file), "cpio");
	assert_refused("x", 1, "not a kernel");
	assert_refused("\x7f"
		       "ELF",
		       4, "truncated");
}

Test(boot, a_pipe_is_not_a_kernel)
{
	int pipes[2];

	cr_assert_eq(pipe(pipes), 0);
	struct arch_boot boot = {
		.kernel_fd = pipes[0], .kernel_path = PATH, .initrd_fd = -1, .cmdline = ""
	};

	cr_assert_eq(x86_boot_load(ram, &map, &boot, RSDP, &entry, &err), -EINVAL);
	cr_assert_not_null(strstr(err.text, "not a regular file"));
}

/* The map ----------------------------------------------------------------- */

Test(layout, nothing_overlaps_at_any_size)
{
	for (uint64_t size = MIB(2); size <= GIB(512); size *= 2) {
		struct arch_map m;

		cr_assert_eq(arch_map_init(&m, size, &err), 0, "%s", err.text);
		struct platform_range r[] = {
			{ m.ram.region[0].base.v, m.ram.region[0].size },
			m.pci_mem32,
			m.ecam,
			m.mmio_devices,
			{ X86_IOAPIC, KIB(4) },
			m.msi,
			{ X86_KVM_IDENTITY_MAP, KIB(16) },
			{ X86_HIGH_RAM, m.ram.count > 1 ? m.ram.region[1].size : 0 },
			m.pci_mem64,
		};
		uint64_t total = 0;

		for (unsigned i = 0; i < m.ram.count; i++)
			total += m.ram.region[i].size;
		cr_assert_eq(total, size);
		for (size_t i = 1; i < ARRAY_SIZE(r); i++)
			cr_assert_geq(r[i].base, r[i - 1].base + r[i - 1].size, "range %zu", i);
		cr_assert_geq(m.pci_mem64.size, GIB(1));
		cr_assert_eq(m.pci_mem64.base % m.pci_mem64.size, 0);
		cr_assert_leq(m.first_mmio_gsi + m.num_mmio_gsis, 24);
	}
}

Test(layout, too_much_memory_is_refused)
{
	struct arch_map m;

	cr_assert_eq(arch_map_init(&m, UINT64_C(1) << 60, &err), -EINVAL);
	cr_assert_not_null(strstr(err.text, "--memory"));
	cr_assert_eq(arch_map_init(&m, UINT64_MAX, &err), -EINVAL);
}
