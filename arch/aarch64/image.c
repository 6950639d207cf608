#include "arch/aarch64/image.h"

/*
 * The kernel, as Documentation/arch/arm64/booting.rst has it: a raw image behind a
 * header of 64 bytes, to be copied text_offset bytes above a 2 MiB boundary and
 * entered at its first byte.
 *
 *	RAM   | text_offset | the file ... | zeroes up to image_size |
 *	      ^ 2 MiB boundary             the kernel's own, bss and early tables
 *
 * That boundary is the start of RAM, the lowest there is: the header's flag for
 * "anywhere" asks for nothing else. The file may be a gzip of the image, as the
 * kernel's makefile installs it; it is unpacked straight into guest memory. Debian's
 * vmlinuz is the raw image, with a signature behind it that may reach past image_size.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include "vmm/base/cleanup.h"

struct image_header {
	le32 code[2];
	le64 text_offset, image_size, flags;
	le64 reserved[3];
	le32 magic, pe_offset;
};
_Static_assert(sizeof(struct image_header) == 64, "arm64 image header");

/* The same file's header for EFI (PE/COFF, "COFF File Header" and "Section Table"). */
struct pe_header {
	uint8_t signature[4];
	le16 machine, num_sections;
	le32 timestamp, symbols, num_symbols;
	le16 optional_size, characteristics;
};
_Static_assert(sizeof(struct pe_header) == 24, "PE signature and COFF header");

struct pe_section {
	uint8_t name[8];
	le32 virtual_size, virtual_address, raw_size, raw, relocations, line_numbers;
	le16 num_relocations, num_line_numbers;
	le32 characteristics;
};
_Static_assert(sizeof(struct pe_section) == 40, "COFF section header");

#define HEAD_SIZE		1024	   /* enough to tell what kind of file it is */
#define IMAGE_MAGIC		0x644d5241 /* "ARM\x64" */
#define FLAG_BIG_ENDIAN		0x1
#define FLAG_PAGE_SIZE_SHIFT	1
#define FLAG_PAGE_SIZE_MASK	0x3
#define TEXT_OFFSET_BEFORE_3_17 0x80000 /* what an image_size of 0 means */

#define GZIP_CHUNK KIB(64)
#define GZIP_FLAGS (16 + MAX_WBITS) /* expect gzip's own header and checksum */

/* The image's bytes from first to last, however they are stored. */
struct image_source {
	const struct boot_file *file; /* borrows */
	uint64_t offset;	      /* in the file: what has been read */
	bool gzip, ended;
	z_stream stream;
	uint8_t *chunk; /* owns; of the compressed file */
};

static void source_finish(struct image_source *s)
{
	if (s->gzip)
		inflateEnd(&s->stream);
	free(s->chunk);
}

static int source_init(struct image_source *s, const struct boot_file *file, struct err *err)
{
	uint8_t magic[2] = { 0 };
	int r = boot_file_read(file, magic, 0, MIN(file->size, sizeof(magic)), err);

	*s = (struct image_source){ .file = file };
	if (r < 0)
		return r;
	if (magic[0] != 0x1f || magic[1] != 0x8b)
		return 0;
	s->chunk = malloc(GZIP_CHUNK);
	if (!s->chunk || inflateInit2(&s->stream, GZIP_FLAGS) != Z_OK)
		return err_set(err, ENOMEM, "out of memory");
	s->gzip = true;
	return 0;
}

/* One step of unpacking into what stream.next_out has room for. */
static int source_inflate(struct image_source *s, struct err *err)
{
	const struct boot_file *file = s->file;

	if (s->stream.avail_in == 0) {
		uint64_t len = MIN(file->size - s->offset, GZIP_CHUNK);

		if (len == 0)
			return err_set(err, ENOEXEC, "%s %s: the file is truncated", file->option,
				       file->path);
		int r = boot_file_read(file, s->chunk, s->offset, len, err);

		if (r < 0)
			return r;
		s->offset += len;
		s->stream.next_in = s->chunk;
		s->stream.avail_in = (uInt)len;
	}
	int z = inflate(&s->stream, Z_NO_FLUSH);

	if (z == Z_STREAM_END)
		s->ended = true;
	else if (z == Z_MEM_ERROR)
		return err_set(err, ENOMEM, "out of memory");
	else if (z != Z_OK && z != Z_BUF_ERROR)
		return err_set(err, ENOEXEC, "%s %s: the compressed file is damaged: %s",
			       file->option, file->path, s->stream.msg ? s->stream.msg : "zlib");
	return 0;
}

/* The next @len bytes into @buf; fewer, *@ret_got of them, only where the image ends. */
static int source_read(struct image_source *s, void *buf, uint64_t len, uint64_t *ret_got,
		       struct err *err)
{
	uint64_t got = 0;

	if (!s->gzip) {
		got = MIN(len, s->file->size - s->offset);
		int r = boot_file_read(s->file, buf, s->offset, got, err);

		if (r < 0)
			return r;
		s->offset += got;
	}
	while (s->gzip && !s->ended && got < len) {
		uInt room = (uInt)MIN(len - got, MIB(64));

		s->stream.next_out = (Bytef *)buf + got;
		s->stream.avail_out = room;
		int r = source_inflate(s, err);

		if (r < 0)
			return r;
		got += room - s->stream.avail_out;
	}
	*ret_got = got;
	return 0;
}

/* What follows the image: nothing to load, but a damaged archive shall be told. */
static int source_drain(struct image_source *s, struct err *err)
{
	_cleanup_free_ uint8_t *waste = malloc(GZIP_CHUNK);
	uint64_t got = 0;
	int r = 0;

	if (!waste)
		return err_set(err, ENOMEM, "out of memory");
	while (!r && s->gzip && !s->ended)
		r = source_read(s, waste, GZIP_CHUNK, &got, err);
	return r;
}

static int check_header(const struct boot_file *file, const struct image_header *hdr,
			unsigned page_sizes, struct err *err)
{
	static const struct {
		unsigned bit;
		const char *name;
	} pages[] = { [1] = { A64_PAGES_4K, "4" },
		      [2] = { A64_PAGES_16K, "16" },
		      [3] = { A64_PAGES_64K, "64" } };
	uint64_t flags = le64_get(hdr->flags);
	uint64_t size = le64_get(hdr->image_size);
	unsigned page = flags >> FLAG_PAGE_SIZE_SHIFT & FLAG_PAGE_SIZE_MASK;

	if (flags & FLAG_BIG_ENDIAN)
		return err_set(err, ENOEXEC,
			       "%s %s: a big-endian kernel, but moat runs little-endian guests",
			       file->option, file->path);
	if (size && size < sizeof(*hdr))
		return err_set(err, ENOEXEC,
			       "%s %s: it says that it is smaller than its own header",
			       file->option, file->path);
	if (page && !(page_sizes & pages[page].bit))
		return err_set(err, ENOEXEC,
			       "%s %s: a kernel with %s KiB pages, which this CPU doesn't have",
			       file->option, file->path, pages[page].name);
	return 0;
}

/*
 * What the file must hold. Its own header tells only what it takes in memory, bss
 * included; the sections of its header for EFI tell what is in the file. 0 when it
 * has none.
 */
static uint64_t image_file_size(const uint8_t *head, uint64_t len)
{
	uint64_t at = le32_get(((const struct image_header *)head)->pe_offset), end = 0;
	struct pe_header pe;
	struct pe_section section;

	if (at > len || len - at < sizeof(pe) || memcmp(head + at, "PE\0", 4))
		return 0;
	memcpy(&pe, head + at, sizeof(pe));
	at += sizeof(pe) + le16_get(pe.optional_size);
	for (unsigned i = le16_get(pe.num_sections); i--; at += sizeof(section)) {
		if (at > len || len - at < sizeof(section))
			return 0;
		memcpy(&section, head + at, sizeof(section));
		end = MAX(end, (uint64_t)le32_get(section.raw) + le32_get(section.raw_size));
	}
	return end;
}

static int too_big(const struct boot_file *file, uint64_t offset, uint64_t size, uint64_t room,
		   struct err *err)
{
	return err_set(err, EFBIG,
		       "%s %s: it needs %" PRIu64 " KiB from offset %" PRIu64
		       " KiB up, but the guest has %" PRIu64 " KiB; give more --memory",
		       file->option, file->path, size / 1024 + (size % 1024 != 0), offset >> 10,
		       room >> 10);
}

/* Put the image, whose first @len bytes are in @head, in its place. */
static int image_load(struct ram *ram, struct image_source *s, const uint8_t *head, uint64_t len,
		      struct a64_loaded *loaded, struct err *err)
{
	const struct ram_region *region = &ram->region[0];
	const struct image_header *hdr = (const void *)head;
	uint64_t offset = le64_get(hdr->text_offset), size = le64_get(hdr->image_size), got, end;
	bool sized = size != 0;

	if (!sized) {
		offset = TEXT_OFFSET_BEFORE_3_17;
		size = offset < region->size ? region->size - offset : 0;
	}
	if (__builtin_add_overflow(offset, size, &end) || end > region->size || size == 0)
		return too_big(s->file, offset, MAX(size, len), region->size, err);
	len = MIN(len, size);
	uint8_t *to = (uint8_t *)region->host + offset;

	memcpy(to, head, len);
	int r = source_read(s, to + len, size - len, &got, err);

	if (!r)
		r = source_drain(s, err);
	if (r < 0)
		return r;
	loaded->entry = region->base.v + offset;
	loaded->kernel_end = loaded->entry + (sized ? size : len + got);
	return 0;
}

int a64_image_load(struct ram *ram, const struct boot_file *file, unsigned page_sizes,
		   struct a64_loaded *loaded, struct err *err)
{
	uint8_t head[HEAD_SIZE] = { 0 };
	const struct image_header *hdr = (const void *)head;
	struct image_source source;
	uint64_t len = 0;
	int r = source_init(&source, file, err);

	if (!r)
		r = source_read(&source, head, sizeof(head), &len, err);
	if (r < 0)
		goto finish;
	if (len < sizeof(*hdr) || le32_get(hdr->magic) != IMAGE_MAGIC) {
		r = boot_file_refuse(file, head, len, "aarch64",
				     "neither an arm64 Image nor an Image.gz", err);
		goto finish;
	}
	r = check_header(file, hdr, page_sizes, err);
	if (!r && !source.gzip && file->size < image_file_size(head, len))
		r = err_set(err, ENOEXEC, "%s %s: the file is truncated", file->option, file->path);
	if (!r)
		r = image_load(ram, &source, head, len, loaded, err);
finish:
	source_finish(&source);
	return r;
}
