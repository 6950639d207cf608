#include "arch/common.h"

/*
 * Files that a machine starts with. Somebody else made them: what is read is
 * bounded by the file's size, and what isn't a kernel is called by its name.
 */

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int boot_file_init(struct boot_file *file, const char *option, int fd, const char *path,
		   struct err *err)
{
	struct stat st;

	*file = (struct boot_file){ .fd = fd, .option = option, .path = path };
	if (fstat(fd, &st) < 0)
		return err_set(err, errno, "%s %s: %s", option, path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "%s %s: not a regular file", option, path);
	if (st.st_size == 0)
		return err_set(err, ENOEXEC, "%s %s: the file is empty", option, path);
	file->size = (uint64_t)st.st_size;
	return 0;
}

int boot_file_read(const struct boot_file *file, void *buf, uint64_t offset, uint64_t len,
		   struct err *err)
{
	uint8_t *to = buf;

	if (offset > file->size || len > file->size - offset)
		goto truncated;
	while (len > 0) {
		ssize_t n = pread(file->fd, to, MIN(len, GIB(1)), (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, errno, "%s %s: %s", file->option, file->path,
				       strerror(errno));
		if (n == 0)
			goto truncated;
		to += n;
		offset += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
truncated:
	return err_set(err, ENOEXEC, "%s %s: the file is truncated", file->option, file->path);
}

struct format {
	size_t offset;
	const char *magic;
	size_t len;
	const char *machine; /* whose kernel it is; NULL: nobody's */
	const char *what;
};

static const struct format formats[] = {
	{ 0x38, "ARM\x64", 4, "aarch64", "an arm64 kernel" },
	{ 0x202, "HdrS", 4, "x86_64", "an x86 kernel (bzImage)" },
	{ 0x30, "RISCV", 5, "riscv64", "a RISC-V kernel" },
	{ 4, "zimg", 4, NULL, "an EFI zboot image: take the kernel inside it" },
	{ 0, "\x7f\x45LF", 4, NULL, "an ELF file: take the kernel image made from it" },
	{ 0, "\x1f\x8b", 2, NULL, "compressed with gzip: unpack it first" },
	{ 0, "\xfd\x37zXZ", 5, NULL, "compressed with xz: unpack it first" },
	{ 0, "\x28\xb5\x2f\xfd", 4, NULL, "compressed with zstd: unpack it first" },
	{ 0, "BZh", 3, NULL, "compressed with bzip2: unpack it first" },
	{ 0, "070701", 6, NULL, "a cpio archive: is it the initrd?" },
};

static bool has_format(const struct format *f, const uint8_t *head, size_t len)
{
	return f->offset + f->len <= len && !memcmp(head + f->offset, f->magic, f->len);
}

int boot_file_refuse(const struct boot_file *file, const uint8_t *head, size_t len,
		     const char *machine, const char *wanted, struct err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		const struct format *f = &formats[i];

		if (!has_format(f, head, len) || (f->machine && !strcmp(f->machine, machine)))
			continue;
		if (!f->machine)
			return err_set(err, ENOEXEC, "%s %s: %s", file->option, file->path,
				       f->what);
		return err_set(err, ENOEXEC, "%s %s: %s, but this moat runs %s guests",
			       file->option, file->path, f->what, machine);
	}
	return err_set(err, ENOEXEC, "%s %s: not a kernel (%s)", file->option, file->path, wanted);
}
