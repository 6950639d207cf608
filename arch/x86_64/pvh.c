#include "arch/x86_64/x86.h"

/*
 * ELF files with a PVH note (Xen's x86/HVM direct boot ABI): vmlinux, and small
 * bare-metal guests. The note holds the 32-bit entry point; segments go to their
 * physical addresses. The entry finds in EBX
 *
 *	start_info -> module list (the initrd), command line, RSDP, memory map
 *
 * ELF64 and ELF32 differ only in the widths of their fields, so both are read
 * into one form of each header.
 */

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PVH_MAGIC	    0x336ec578
#define PVH_VERSION	    1
#define PVH_NOTE	    18 /* XEN_ELFNOTE_PHYS32_ENTRY */
#define MAX_PROGRAM_HEADERS 128
#define MAX_NOTES_SIZE	    KIB(64)

/* xen/include/public/arch-x86/hvm/start_info.h */
struct pvh_start_info {
	le32 magic, version, flags, nr_modules;
	le64 modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
	le32 memmap_entries, reserved;
};
_Static_assert(sizeof(struct pvh_start_info) == 56, "hvm_start_info");

struct pvh_module {
	le64 paddr, size, cmdline_paddr, reserved;
};
_Static_assert(sizeof(struct pvh_module) == 32, "hvm_modlist_entry");

struct pvh_memmap_entry {
	le64 addr, size;
	le32 type, reserved;
};
_Static_assert(sizeof(struct pvh_memmap_entry) == 24, "hvm_memmap_table_entry");

struct elf_image {
	bool is64;
	uint16_t machine;
	uint64_t phoff;
	uint16_t phentsize, phnum;
	bool has_entry;
	uint64_t entry; /* from the note */
};

struct elf_segment {
	uint32_t type;
	uint64_t offset, paddr, filesz, memsz, align;
};

bool x86_elf_probe(const uint8_t *head, size_t len)
{
	return len >= SELFMAG && !memcmp(head, ELFMAG, SELFMAG);
}

static int bad_elf(const struct x86_load *load, const char *what, struct err *err)
{
	return err_set(err, ENOEXEC, "%s %s: %s", load->kernel.option, load->kernel.path, what);
}

static int read_header(const struct x86_load *load, struct elf_image *elf, struct err *err)
{
	union {
		unsigned char ident[EI_NIDENT];
		Elf32_Ehdr e32;
		Elf64_Ehdr e64;
	} h;
	int r = boot_file_read(&load->kernel, &h, 0, sizeof(h.ident), err);

	if (r < 0)
		return r;
	*elf = (struct elf_image){ .is64 = h.ident[EI_CLASS] == ELFCLASS64 };
	if (!elf->is64 && h.ident[EI_CLASS] != ELFCLASS32)
		return bad_elf(load, "an ELF file of unknown class", err);
	r = boot_file_read(&load->kernel, &h, 0, elf->is64 ? sizeof(h.e64) : sizeof(h.e32), err);
	if (r < 0)
		return r;
	/* The fields before e_entry are the same in both. */
	elf->machine = h.e64.e_machine;
	if (h.ident[EI_DATA] != ELFDATA2LSB ||
	    (elf->machine != EM_X86_64 && elf->machine != EM_386))
		return err_set(err, ENOEXEC,
			       "%s %s: an ELF file for another machine (%s, e_machine %u), but "
			       "this moat runs x86_64 guests",
			       load->kernel.option, load->kernel.path,
			       elf->machine == EM_AARCH64 ? "arm64" : "not x86", elf->machine);
	elf->phoff = elf->is64 ? h.e64.e_phoff : h.e32.e_phoff;
	elf->phentsize = elf->is64 ? h.e64.e_phentsize : h.e32.e_phentsize;
	elf->phnum = elf->is64 ? h.e64.e_phnum : h.e32.e_phnum;
	if (elf->phentsize != (elf->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)))
		return bad_elf(load, "an ELF file without program headers", err);
	if (elf->phnum == 0 || elf->phnum > MAX_PROGRAM_HEADERS)
		return bad_elf(load, "an ELF file with no or too many program headers", err);
	return 0;
}

static int read_segment(const struct x86_load *load, const struct elf_image *elf, unsigned index,
			struct elf_segment *ret_segment, struct err *err)
{
	union {
		Elf32_Phdr p32;
		Elf64_Phdr p64;
	} p;
	uint64_t offset;

	if (__builtin_add_overflow(elf->phoff, (uint64_t)index * elf->phentsize, &offset))
		return bad_elf(load, "the file is truncated", err);
	int r = boot_file_read(&load->kernel, &p, offset, elf->phentsize, err);

	if (r < 0)
		return r;
	if (elf->is64)
		*ret_segment =
			(struct elf_segment){ p.p64.p_type,   p.p64.p_offset, p.p64.p_paddr,
					      p.p64.p_filesz, p.p64.p_memsz,  p.p64.p_align };
	else
		*ret_segment =
			(struct elf_segment){ p.p32.p_type,   p.p32.p_offset, p.p32.p_paddr,
					      p.p32.p_filesz, p.p32.p_memsz,  p.p32.p_align };
	return 0;
}

static int load_segment(struct x86_load *load, const struct elf_segment *s, struct err *err)
{
	if (s->memsz == 0)
		return 0;
	if (s->filesz > s->memsz)
		return bad_elf(load, "a segment is larger in the file than in memory", err);
	if (s->paddr < X86_KERNEL_MIN)
		return bad_elf(load, "a segment lies below 1 MiB", err);
	if (s->paddr > load->low_end || s->memsz > load->low_end - s->paddr)
		return err_set(err, EFBIG,
			       "%s %s: a segment of %" PRIu64 " KiB at 0x%" PRIx64
			       " doesn't fit into RAM, which ends at 0x%" PRIx64
			       "; give more --memory",
			       load->kernel.option, load->kernel.path, s->memsz >> 10, s->paddr,
			       load->low_end);
	uint8_t *to = ram_ptr(load->ram, GPA(s->paddr), s->memsz);
	int r = boot_file_read(&load->kernel, to, s->offset, s->filesz, err);

	if (r < 0)
		return r;
	/* Memory is kept over a machine reset, so it isn't zero by itself. */
	memset(to + s->filesz, 0, s->memsz - s->filesz);
	load->kernel_end = MAX(load->kernel_end, s->paddr + s->memsz);
	return 0;
}

/* Look for the PVH note in @notes; each is a header, a padded name, a padded body. */
static void scan_notes(struct elf_image *elf, const uint8_t *notes, uint64_t size, uint64_t align)
{
	uint64_t at = 0;

	while (size - at >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr n;

		memcpy(&n, notes + at, sizeof(n));
		at += sizeof(n);
		/* 32-bit lengths, so the sums can't overflow 64 bits. */
		uint64_t desc = at + ALIGN_UP((uint64_t)n.n_namesz, align);
		uint64_t next = desc + ALIGN_UP((uint64_t)n.n_descsz, align);

		if (desc + n.n_descsz > size)
			return;
		if (n.n_type == PVH_NOTE && n.n_namesz == sizeof("Xen") &&
		    !memcmp(notes + at, "Xen", sizeof("Xen")) &&
		    (n.n_descsz == 4 || n.n_descsz == 8)) {
			elf->entry = 0;
			memcpy(&elf->entry, notes + desc, n.n_descsz);
			elf->has_entry = true;
			return;
		}
		if (next > size)
			return;
		at = next;
	}
}

static int read_notes(const struct x86_load *load, struct elf_image *elf,
		      const struct elf_segment *s, struct err *err)
{
	uint8_t *notes;
	int r;

	if (s->filesz > MAX_NOTES_SIZE)
		return bad_elf(load, "its notes are too long", err);
	notes = malloc(s->filesz + 1);
	if (!notes)
		return err_set(err, ENOMEM, "out of memory");
	r = boot_file_read(&load->kernel, notes, s->offset, s->filesz, err);
	if (!r)
		scan_notes(elf, notes, s->filesz, s->align == 8 ? 8 : 4);
	free(notes);
	return r;
}

static int load_elf(struct x86_load *load, struct elf_image *elf, struct err *err)
{
	int r = read_header(load, elf, err);

	for (unsigned i = 0; !r && i < elf->phnum; i++) {
		struct elf_segment s = { 0 };

		r = read_segment(load, elf, i, &s, err);
		if (!r && s.type == PT_LOAD)
			r = load_segment(load, &s, err);
		else if (!r && s.type == PT_NOTE && !elf->has_entry)
			r = read_notes(load, elf, &s, err);
	}
	if (r < 0)
		return r;
	if (!elf->has_entry)
		return bad_elf(load,
			       "an ELF file without a PVH note (a kernel needs CONFIG_PVH; or "
			       "give its bzImage)",
			       err);
	if (elf->entry < X86_KERNEL_MIN || elf->entry >= load->kernel_end)
		return bad_elf(load, "its PVH entry point lies outside its segments", err);
	return 0;
}

static void write_start_info(const struct x86_load *load)
{
	const uint64_t modules = X86_PVH_INFO + sizeof(struct pvh_start_info);
	const uint64_t memmap = modules + sizeof(struct pvh_module);
	struct pvh_start_info info = {
		.magic = le32_from(PVH_MAGIC),
		.version = le32_from(PVH_VERSION),
		.cmdline_paddr = le64_from(X86_CMDLINE),
		.rsdp_paddr = le64_from(load->rsdp),
		.memmap_paddr = le64_from(memmap),
		.memmap_entries = le32_from(load->num_e820),
	};

	if (load->has_initrd) {
		struct pvh_module module = {
			.paddr = le64_from(load->initrd_base),
			.size = le64_from(load->initrd.size),
		};

		info.nr_modules = le32_from(1);
		info.modlist_paddr = le64_from(modules);
		ram_write(load->ram, GPA(modules), &module, sizeof(module));
	}
	for (unsigned i = 0; i < load->num_e820; i++) {
		struct pvh_memmap_entry entry = {
			.addr = le64_from(load->e820[i].base),
			.size = le64_from(load->e820[i].size),
			.type = le32_from(load->e820[i].type),
		};

		ram_write(load->ram, GPA(memmap + i * sizeof(entry)), &entry, sizeof(entry));
	}
	ram_write(load->ram, GPA(X86_PVH_INFO), &info, sizeof(info));
}

int x86_pvh_load(struct x86_load *load, struct x86_entry *ret_entry, struct err *err)
{
	struct elf_image elf;
	int r = load_elf(load, &elf, err);

	if (!r && load->has_initrd)
		r = x86_load_initrd(load, X86_LOW_RAM_END, err);
	if (!r)
		r = x86_load_cmdline(load, X86_CMDLINE_MAX, err);
	if (r < 0)
		return r;
	write_start_info(load);
	*ret_entry = (struct x86_entry){ .rip = elf.entry, .argument = X86_PVH_INFO };
	return 0;
}
