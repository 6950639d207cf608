/*
 * arm64 kernels, on any machine: the input is a file; or changes to the headers of a
 * valid Image; or such an Image, packed, and changes to the archive. A file may be
 * refused with one line that names it, or accepted: then it lies in RAM as a whole,
 * nothing of what follows was written, and its bytes are the file's.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include "arch/aarch64/image.h"

#define RAM_BASE   GIB(1)
#define RAM_SIZE   MIB(4)
#define IMAGE_SIZE KIB(8)
#define MAX_FILE   (IMAGE_SIZE + KIB(1))
#define HEADERS	   512 /* of an Image: the kernel's and EFI's */

enum { RAW, CHANGED, PACKED, NUM_FORMS };

static struct ram *ram;
static uint8_t image[IMAGE_SIZE], file[MAX_FILE];

static void put(size_t offset, uint64_t value, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		image[offset + i] = (uint8_t)(value >> 8 * i);
}

/* booting.rst's header, and one for EFI with two sections that end where the file does. */
static void make_image(void)
{
	memset(image, 0x5a, sizeof(image));
	memset(image, 0, HEADERS);
	put(16, KIB(16), 8);	  /* image_size, with bss */
	put(24, 1 << 1, 8);	  /* flags: 4 KiB pages */
	put(56, 0x644d5241, 4);	  /* magic */
	put(60, 64, 4);		  /* PE header's offset */
	put(64, 0x4550, 4);	  /* "PE" */
	put(64 + 4, 0xaa64, 2);	  /* machine */
	put(64 + 6, 2, 2);	  /* sections */
	put(64 + 20, 16, 2);	  /* optional header's size */
	put(104 + 16, KIB(4), 4); /* raw size and offset of the first */
	put(104 + 20, 512, 4);
	put(144 + 16, IMAGE_SIZE - KIB(4) - 512, 4);
	put(144 + 20, KIB(4) + 512, 4);
}

/* Changes: an offset, a length, that many bytes. Returns what is left of the input. */
static size_t change(uint8_t *bytes, size_t size, const uint8_t **data, size_t left, unsigned count)
{
	for (unsigned i = 0; i < count && left > 3; i++) {
		const uint8_t *d = *data;
		size_t at = (size_t)(d[0] | d[1] << 8) % size;
		size_t len = MIN(MIN(1 + d[2] % 8u, left - 3), size - at);

		memcpy(bytes + at, d + 3, len);
		*data += 3 + len;
		left -= 3 + len;
	}
	return left;
}

/* A gzip of the image into the file; its size. */
static size_t pack(void)
{
	z_stream stream = { .next_in = image,
			    .avail_in = sizeof(image),
			    .next_out = file,
			    .avail_out = sizeof(file) };

	assert(deflateInit2(&stream, 1, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
	assert(deflate(&stream, Z_FINISH) == Z_STREAM_END);
	deflateEnd(&stream);
	return stream.total_out;
}

/* The file that @data asks for; its size. */
static size_t make_file(const uint8_t *data, size_t left)
{
	unsigned form = data[0] % NUM_FORMS, count = data[0] / NUM_FORMS % 8;
	size_t size = MIN(left - 1, sizeof(file));

	data++;
	left--;
	if (form == RAW) {
		memcpy(file, data, size);
		return size;
	}
	make_image();
	left = change(image, HEADERS, &data, left, count);
	if (form == PACKED) {
		size = pack();
		left = change(file, size, &data, left, 8);
	} else {
		memcpy(file, image, sizeof(image));
		size = sizeof(image);
	}
	/* Cut off, maybe. */
	return left >= 2 ? 1 + (size_t)(data[0] | data[1] << 8) % size : size;
}

static void check_accepted(const struct a64_loaded *loaded, size_t size, bool packed)
{
	const uint8_t *ours = ram->host;
	uint64_t at = loaded->entry - RAM_BASE, end = loaded->kernel_end - RAM_BASE;

	assert(loaded->entry >= RAM_BASE && end <= RAM_SIZE && at < end);
	assert(packed || !memcmp(ours + at, file, MIN(size, end - at)));
	for (uint64_t i = 0; i < 16 && end + i < RAM_SIZE; i++)
		assert(!ours[end + i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct ram_layout layout = { 1, { { { RAM_BASE }, RAM_SIZE } } };
	struct a64_loaded loaded = { 0 };
	struct boot_file kernel;
	struct err err = { "" };

	if (!ram)
		assert(ram_create(&ram, &layout, &err) == 0);
	if (!size)
		return 0;
	size_t len = make_file(data, size);
	int fd = memfd_create("kernel", MFD_CLOEXEC);

	assert(fd >= 0 && write(fd, file, len) == (ssize_t)len);
	/* What was there before would hide what is written too much. */
	assert(madvise(ram->host, RAM_SIZE, MADV_REMOVE) == 0);
	int r = boot_file_init(&kernel, "--kernel", fd, "KERNEL", &err);

	if (!r)
		r = a64_image_load(ram, &kernel, A64_PAGES_4K | A64_PAGES_64K, &loaded, &err);
	if (!r)
		check_accepted(&loaded, len, len > 1 && file[0] == 0x1f && file[1] == 0x8b);
	else
		assert(strstr(err.text, "KERNEL") && !strchr(err.text, '\n'));
	close(fd);
	return 0;
}
