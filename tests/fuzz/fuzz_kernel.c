/*
 * Kernel files: the input is one, or, as a second form, a list of changes to a
 * valid bzImage or PVH ELF, so that the fuzzer gets past the magic numbers. A file
 * may be refused with one line that names it, or accepted: then the entry point
 * and everything that was loaded lie in RAM.
 */
#include <asm/bootparam.h>
#include <assert.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "arch/x86_64/x86.h"

#define RAM_SIZE MIB(64)
#define RSDP	 0xe0000
#define MAX_FILE KIB(32)

static struct arch_map map;
static struct ram *ram;
static uint8_t file[MAX_FILE];

/* Four setup sectors and 4 KiB of kernel, by the boot protocol 2.15. */
static size_t make_bzimage(void)
{
	struct setup_header hdr = {
		.setup_sects = 4,
		.syssize = KIB(4) / 16,
		.boot_flag = 0xaa55,
		.jump = 0x6aeb,
		.header = 0x53726448,
		.version = 0x020f,
		.loadflags = LOADED_HIGH,
		.initrd_addr_max = 0x7fffffff,
		.kernel_alignment = MIB(2),
		.relocatable_kernel = 1,
		.cmdline_size = 2047,
		.xloadflags = XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G,
		.pref_address = MIB(16),
		.init_size = MIB(1),
	};

	memset(file, 0, sizeof(file));
	memcpy(file + 0x1f1, &hdr, sizeof(hdr));
	return (size_t)(5 * 512 + KIB(4));
}

/* One segment at 1 MiB and the note with the entry point. */
static size_t make_elf(void)
{
	Elf64_Ehdr eh = {
		.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, 1 },
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_version = 1,
		.e_phoff = sizeof(eh),
		.e_ehsize = sizeof(eh),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 2,
	};
	Elf64_Phdr ph[2] = {
		{ PT_LOAD, PF_R | PF_X, KIB(1), MIB(1), MIB(1), KIB(1), KIB(8), KIB(4) },
		{ PT_NOTE, PF_R, 512, 0, 0, 20, 20, 4 },
	};
	const uint32_t note[5] = { 4, 4, 18, 0x006e6558, MIB(1) };

	memset(file, 0, sizeof(file));
	memcpy(file, &eh, sizeof(eh));
	memcpy(file + sizeof(eh), ph, sizeof(ph));
	memcpy(file + 512, note, sizeof(note));
	return (size_t)KIB(2);
}

/* Changes: an offset among the headers, a length, that many bytes; a new size at last. */
static size_t change(size_t size, const uint8_t *data, size_t left)
{
	while (left > 3) {
		size_t at = (data[0] | data[1] << 8) % 1024, len = 1 + data[2] % 8;

		data += 3;
		left -= 3;
		len = MIN(len, left);
		memcpy(file + at, data, len);
		data += len;
		left -= len;
	}
	if (left == 3)
		size = (data[0] | data[1] << 8) % sizeof(file);
	return size;
}

static void check_accepted(const struct x86_entry *entry)
{
	assert(ram_ptr(ram, GPA(entry->rip), 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err err = { "" };
	struct x86_entry entry;

	if (!ram) {
		assert(arch_map_init(&map, RAM_SIZE, &err) == 0);
		assert(ram_create(&ram, &map.ram, &err) == 0);
	}
	if (!size)
		return 0;
	size_t len = MIN(size - 1, sizeof(file));

	if (data[0] % 4 == 1)
		len = change(make_bzimage(), data + 1, size - 1);
	else if (data[0] % 4 == 2)
		len = change(make_elf(), data + 1, size - 1);
	else
		memcpy(file, data + 1, len);
	int fd = memfd_create("kernel", MFD_CLOEXEC);

	assert(fd >= 0 && write(fd, file, len) == (ssize_t)len);
	struct arch_boot boot = {
		.kernel_fd = fd,
		.kernel_path = "KERNEL",
		.initrd_fd = data[0] & 4 ? fd : -1,
		.initrd_path = "INITRD",
		.cmdline = "quiet",
	};

	if (x86_boot_load(ram, &map, &boot, RSDP, &entry, &err) == 0) {
		check_accepted(&entry);
	} else {
		assert(strstr(err.text, "KERNEL") || strstr(err.text, "INITRD") ||
		       !strncmp(err.text, "--cmdline", strlen("--cmdline")));
		assert(!strchr(err.text, '\n'));
	}
	close(fd);
	return 0;
}
