/*
 * Kernel files are input from outside: good ones must land where the boot
 * protocol says, and no bad one may do more than produce a line that names it.
 */

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include "arch/aarch64/a64.h"

#define RAM_SIZE MIB(32)
#define PATH	 "kernel-under-test"

static struct arch_map map;
static struct ram *ram;
static struct err err;
static struct a64_loaded loaded;
static unsigned page_sizes;

static void setup(void)
{
	cr_assert_eq(arch_map_init(&map, RAM_SIZE, &err), 0);
	cr_assert_eq(ram_create(&ram, &map.ram, &err), 0);
	page_sizes = A64_PAGES_4K | A64_PAGES_64K;
}

static void teardown(void)
{
	ram_destroy(ram);
}

TestSuite(boot, .init = setup, .fini = teardown);

/* The header's fields, at the offsets of Documentation/arch/arm64/booting.rst. */
#define TEXT_OFFSET  8
#define IMAGE_SIZE   16
#define FLAGS	     24
#define MAGIC	     56
#define FILE_SIZE    KIB(300)
#define MEMORY_SIZE  KIB(400)
#define PAGES(which) ((uint64_t)(which) << 1)

static uint8_t image[FILE_SIZE], packed[FILE_SIZE + 1024];

static void put64(size_t offset, uint64_t value)
{
	le64 x = le64_from(value);

	memcpy(image + offset, &x, sizeof(x));
}

/* Content that doesn't compress, so that an archive spans several chunks. */
static void make_image(uint64_t text_offset, uint64_t image_size, uint64_t flags)
{
	uint32_t x = 1;

	for (size_t i = 0; i < sizeof(image); i++) {
		x = x * 1664525 + 1013904223;
		image[i] = (uint8_t)(x >> 24);
	}
	put64(TEXT_OFFSET, text_offset);
	put64(IMAGE_SIZE, image_size);
	put64(FLAGS, flags);
	memcpy(image + MAGIC, "ARM\x64", 4);
}

static size_t pack(const void *data, size_t size)
{
	z_stream z = { 0 };

	cr_assert_eq(deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 9, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = (Bytef *)data;
	z.avail_in = (uInt)size;
	z.next_out = packed;
	z.avail_out = sizeof(packed);
	cr_assert_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out;
}

static int make_file(const void *data, size_t size)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	cr_assert(fd >= 0);
	cr_assert_eq(write(fd, data, size), (ssize_t)size);
	return fd;
}

static int load_with(const void *kernel, size_t size, int initrd_fd)
{
	struct arch_boot boot = {
		.kernel_fd = make_file(kernel, size),
		.kernel_path = PATH,
		.initrd_fd = initrd_fd,
		.initrd_path = "initrd-under-test",
		.cmdline = "quiet",
	};

	err.text[0] = '\0';
	int r = a64_boot_load(ram, &boot, page_sizes, &loaded, &err);

	close(boot.kernel_fd);
	return r;
}

static int load(const void *kernel, size_t size)
{
	return load_with(kernel, size, -1);
}

/* It fails, with a line that names the file and contains @words. */
static void assert_refused(const void *kernel, size_t size, const char *words)
{
	cr_assert_lt(load(kernel, size), 0, "accepted, but expected: %s", words);
	cr_assert_not_null(strstr(err.text, "--kernel " PATH), "'%s'", err.text);
	cr_assert_not_null(strstr(err.text, words), "'%s' doesn't say '%s'", err.text, words);
	cr_assert_null(strchr(err.text, '\n'));
}

static void assert_loaded_at(uint64_t offset)
{
	cr_assert_eq(loaded.entry, A64_RAM + offset);
	cr_assert_eq(memcmp(ram_ptr(ram, GPA(loaded.entry), FILE_SIZE), image, FILE_SIZE), 0);
}

/* A PE header (offsets of PE/COFF, "COFF File Header") with one section to the file's end. */
static void add_pe_header(uint32_t at)
{
	le32 pe = le32_from(at), raw = le32_from(KIB(64)), size = le32_from(FILE_SIZE - KIB(64));
	le16 one = le16_from(1), optional = le16_from(160);
	size_t section = at + 24 + 160;

	memcpy(image + 60, &pe, sizeof(pe));
	memcpy(image + at, "PE\0", 4);
	memcpy(image + at + 6, &one, sizeof(one));
	memcpy(image + at + 20, &optional, sizeof(optional));
	memcpy(image + section + 16, &size, sizeof(size));
	memcpy(image + section + 20, &raw, sizeof(raw));
}

Test(boot, an_image_that_is_cut_anywhere_is_refused)
{
	make_image(0, MEMORY_SIZE, 0);
	add_pe_header(64);
	cr_assert_eq(load(image, sizeof(image)), 0, "%s", err.text);
	assert_loaded_at(0);
	for (size_t size = 512; size < sizeof(image); size += 4096)
		assert_refused(image, size, "truncated");
	assert_refused(image, sizeof(image) - 1, "truncated");
	/* One that ends past what is looked at says nothing. */
	add_pe_header(1023);
	cr_assert_eq(load(image, sizeof(image)), 0, "%s", err.text);
}

Test(boot, image_lands_as_the_protocol_says)
{
	static const uint64_t offsets[] = { 0, 0x80000, MIB(3) + KIB(64) };

	for (size_t i = 0; i < ARRAY_SIZE(offsets); i++) {
		make_image(offsets[i], MEMORY_SIZE, 0);
		cr_assert_eq(load(image, sizeof(image)), 0, "%s", err.text);
		assert_loaded_at(offsets[i]);
		cr_assert_eq(loaded.kernel_end, loaded.entry + MEMORY_SIZE);
	}
}

Test(boot, tree_and_initrd_keep_clear_of_the_kernel_and_of_each_other)
{
	static const char initrd[5000] = "the initrd";
	int fd = make_file(initrd, sizeof(initrd));

	make_image(0x80000, MEMORY_SIZE, 0);
	cr_assert_eq(load_with(image, sizeof(image), fd), 0, "%s", err.text);
	close(fd);
	cr_assert_geq(loaded.dtb, loaded.kernel_end);
	cr_assert_eq(loaded.dtb % MIB(2), 0, "it must not cross a 2 MiB boundary");
	cr_assert_geq(loaded.initrd.base, loaded.dtb + A64_DTB_SIZE);
	cr_assert_eq(loaded.initrd.size, sizeof(initrd));
	cr_assert_eq(memcmp(ram_ptr(ram, GPA(loaded.initrd.base), sizeof(initrd)), initrd,
			    sizeof(initrd)),
		     0);
}

Test(boot, kernels_before_3_17_have_no_size)
{
	make_image(0x1234, 0, 0);
	cr_assert_eq(load(image, sizeof(image)), 0, "%s", err.text);
	assert_loaded_at(0x80000);
	cr_assert_eq(loaded.kernel_end, loaded.entry + FILE_SIZE);
}

Test(boot, a_signature_behind_the_image_is_not_loaded)
{
	make_image(0, FILE_SIZE - 5000, 0);
	cr_assert_eq(load(image, sizeof(image)), 0, "%s", err.text);
	cr_assert_eq(*(uint64_t *)ram_ptr(ram, GPA(loaded.kernel_end), 8), 0);
}

Test(boot, gzip_is_unpacked)
{
	make_image(0x80000, MEMORY_SIZE, 0);
	size_t size = pack(image, sizeof(image));

	cr_assert_eq(load(packed, size), 0, "%s", err.text);
	assert_loaded_at(0x80000);
	cr_assert_eq(loaded.kernel_end, loaded.entry + MEMORY_SIZE);
}

Test(boot, damaged_gzip)
{
	make_image(0, MEMORY_SIZE, 0);
	size_t size = pack(image, sizeof(image));

	for (size_t cut = 2; cut < size; cut += size / 7)
		assert_refused(packed, cut, "truncated");
	packed[size - 6] ^= 1; /* the checksum, behind the last byte that is loaded */
	assert_refused(packed, size, "damaged");
	packed[size - 6] ^= 1;
	packed[size / 2] ^= 0x55;
	assert_refused(packed, size, "damaged");
}

Test(boot, what_this_cpu_cannot_run)
{
	make_image(0, MEMORY_SIZE, 1);
	assert_refused(image, sizeof(image), "big-endian");
	make_image(0, MEMORY_SIZE, PAGES(2));
	assert_refused(image, sizeof(image), "16 KiB pages");
	make_image(0, MEMORY_SIZE, PAGES(3) | 8);
	cr_assert_eq(load(image, sizeof(image)), 0, "%s", err.text);
	page_sizes = A64_PAGES_16K;
	assert_refused(image, sizeof(image), "64 KiB pages");
	make_image(0, MEMORY_SIZE, PAGES(1));
	assert_refused(image, sizeof(image), "4 KiB pages");
	make_image(0, MEMORY_SIZE, PAGES(2));
	cr_assert_eq(load(image, sizeof(image)), 0, "%s", err.text);
}

Test(boot, hostile_headers)
{
	static const uint64_t huge[] = { RAM_SIZE + 1, UINT64_MAX, UINT64_MAX - 4096, INT64_MAX };

	for (size_t i = 0; i < ARRAY_SIZE(huge); i++) {
		make_image(0, huge[i], 0);
		assert_refused(image, sizeof(image), "give more --memory");
		make_image(huge[i], MEMORY_SIZE, 0);
		assert_refused(image, sizeof(image), "give more --memory");
		make_image(huge[i], huge[i], 0);
		assert_refused(image, sizeof(image), "give more --memory");
	}
	make_image(0, 63, 0);
	assert_refused(image, sizeof(image), "smaller than its own header");
	make_image(0, MEMORY_SIZE, 0);
	assert_refused(image, 63, "not a kernel");
	assert_refused(image, 1, "not a kernel");
	assert_refused(image, 0, "empty");
}

Test(boot, kernels_that_leave_no_room)
{
	static uint8_t initrd[MIB(2)];
	int fd = make_file(initrd, sizeof(initrd));

	make_image(0, RAM_SIZE - MIB(1), 0);
	assert_refused(image, sizeof(image), "device tree");
	make_image(0, RAM_SIZE - MIB(3), 0);
	cr_assert_eq(load_with(image, sizeof(image), fd), -EFBIG);
	cr_assert_not_null(strstr(err.text, "--initrd initrd-under-test"), "'%s'", err.text);
	close(fd);
}

Test(boot, other_files_are_called_by_their_name)
{
	static const struct {
		size_t offset;
		const char *magic;
		size_t len;
		const char *words;
	} files[] = {
		{ 0x202, "HdrS", 4, "an x86 kernel (bzImage), but this moat runs aarch64 guests" },
		{ 0x30, "RISCV", 5, "RISC-V" },
		{ 0, "\x7f\x45LF", 4, "ELF" },
		{ 0, "\x28\xb5\x2f\xfd", 4, "zstd" },
		{ 4, "zimg", 4, "EFI zboot" },
		{ 0, "070701", 6, "is it the initrd?" },
		{ 0, "", 0, "not a kernel" },
	};
	static uint8_t file[4096];

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		memset(file, 0, sizeof(file));
		memcpy(file + files[i].offset, files[i].magic, files[i].len);
		assert_refused(file, sizeof(file), files[i].words);
		assert_refused(packed, pack(file, sizeof(file)), files[i].words);
	}
}

static bool overlap(struct platform_range a, struct platform_range b)
{
	return a.size && b.size && a.base < b.base + b.size && b.base < a.base + a.size;
}

Test(map, windows_keep_clear_of_each_other)
{
	static const uint64_t sizes[] = { MIB(32), GIB(1), GIB(200) };

	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		cr_assert_eq(arch_map_init(&map, sizes[s], &err), 0, "%s", err.text);
		const struct platform_range range[] = {
			{ map.ram.region[0].base.v, map.ram.region[0].size },
			map.ecam,
			map.pci_mem32,
			map.pci_mem64,
			map.mmio_devices,
			{ A64_ITS, A64_ITS_SIZE },
			{ A64_GIC_DIST, A64_GIC_DIST_SIZE },
			{ A64_GIC_CPU, A64_GIC_CPU_SIZE },
			{ A64_GIC_REDIST, A64_MAX_CPUS * A64_GIC_REDIST_SIZE },
			{ A64_PL011, A64_PRIMECELL_SIZE },
			{ A64_PL031, A64_PRIMECELL_SIZE },
			{ A64_PL061, A64_PRIMECELL_SIZE },
		};

		for (size_t i = 0; i < ARRAY_SIZE(range); i++)
			for (size_t j = i + 1; j < ARRAY_SIZE(range); j++)
				cr_assert_not(overlap(range[i], range[j]), "%zu and %zu", i, j);
		/* The doorbells are the ITS's second frame. */
		cr_assert_eq(map.msi.base, A64_ITS + KIB(64));
		cr_assert_eq(map.msi.base + map.msi.size, A64_ITS + A64_ITS_SIZE);
	}
}

Test(map, too_much_memory)
{
	static const uint64_t sizes[] = { UINT64_C(1) << 60, UINT64_MAX - 4095 };

	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		cr_assert_eq(arch_map_init(&map, sizes[s], &err), -EINVAL);
		cr_assert_not_null(strstr(err.text, "--memory"));
	}
}
