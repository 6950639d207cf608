/*
 * Guest memory.
 *
 *	memfd    0 ............ low ............ size
 *	         |               |                |
 *	guest    0 ............ low    4 GiB .... 4 GiB + high
 *	           region[0]      hole   region[1]
 *
 * The memfd has no holes and is mapped once, shared: a vhost-user process or a
 * snapshot that opens the same memfd sees the bytes the guest sees. Pages come
 * into being when somebody touches them (MAP_NORESERVE), so that creating
 * hundreds of GiB costs neither time nor memory.
 */
#include "vmm/core/ram.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Check the layout, which is ours and not a guest's, and return the sum of its sizes. */
static uint64_t layout_size(const struct ram_layout *layout)
{
	uint64_t total = 0, end = 0;

	assert(layout->count <= RAM_MAX_REGIONS);
	for (unsigned i = 0; i < layout->count; i++) {
		uint64_t base = layout->region[i].base.v, size = layout->region[i].size;

		assert(size > 0 && size % KIB(4) == 0 && base % KIB(4) == 0);
		assert(base >= end && size < UINT64_MAX - base);
		end = base + size;
		total += size; /* The regions are disjoint, so the sum can't overflow. */
	}
	return total;
}

static int ram_map(struct ram *ram, struct err *err)
{
	ram->fd = memfd_create("moat-ram", MFD_CLOEXEC);
	if (ram->fd < 0)
		return err_set(err, errno, "guest memory: memfd_create: %m");
	if (ftruncate(ram->fd, (off_t)ram->size) < 0)
		return err_set(err, errno, "guest memory: can't size it to %" PRIu64 " MiB: %m",
			       ram->size >> 20);
	ram->host = mmap(NULL, ram->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
			 ram->fd, 0);
	if (ram->host == MAP_FAILED)
		return err_set(err, errno, "guest memory: can't map %" PRIu64 " MiB: %m",
			       ram->size >> 20);
	/*
	 * Wishes, not needs: huge pages where the host gives them to those who ask,
	 * and no secrets of the guest in moat's core dump.
	 */
	(void)madvise(ram->host, ram->size, MADV_HUGEPAGE);
	(void)madvise(ram->host, ram->size, MADV_DONTDUMP);
	return 0;
}

int ram_create(struct ram **ret_ram, const struct ram_layout *layout, struct err *err)
{
	struct ram *ram = calloc(1, sizeof(*ram));

	if (!ram)
		return err_set(err, ENOMEM, "guest memory: out of host memory");
	ram->fd = -1;
	ram->host = MAP_FAILED;
	ram->size = layout_size(layout);

	int rc = ram_map(ram, err);

	if (rc < 0) {
		ram_destroy(ram);
		return rc;
	}
	uint64_t offset = 0;

	for (unsigned i = 0; i < layout->count; i++) {
		ram->region[i] = (struct ram_region){
			.base = layout->region[i].base,
			.size = layout->region[i].size,
			.offset = offset,
			.host = (char *)ram->host + offset,
		};
		offset += layout->region[i].size;
	}
	ram->count = layout->count;
	*ret_ram = ram;
	return 0;
}

void ram_destroy(struct ram *ram)
{
	if (!ram)
		return;
	if (ram->host != MAP_FAILED)
		munmap(ram->host, ram->size);
	if (ram->fd >= 0)
		close(ram->fd);
	free(ram);
}

void *ram_span(const struct ram *ram, gpa_t gpa, uint64_t len, uint64_t *ret_len)
{
	for (unsigned i = 0; i < ram->count; i++) {
		const struct ram_region *r = &ram->region[i];
		/* Below the region the difference wraps to more than any size. */
		uint64_t offset = gpa.v - r->base.v;

		if (offset < r->size) {
			*ret_len = MIN(len, r->size - offset);
			return (char *)r->host + offset;
		}
	}
	return NULL;
}

void *ram_ptr(const struct ram *ram, gpa_t gpa, uint64_t len)
{
	uint64_t got;
	void *host = ram_span(ram, gpa, len, &got);

	return host && got == len ? host : NULL;
}

/* True when every byte of [@gpa, @gpa + @len) is RAM. */
static bool ram_covers(const struct ram *ram, gpa_t gpa, uint64_t len)
{
	while (len > 0) {
		uint64_t got;

		if (!ram_span(ram, gpa, len, &got))
			return false;
		/* Regions don't wrap, so neither does the sum while bytes are left. */
		gpa.v += got;
		len -= got;
	}
	return true;
}

int ram_write(const struct ram *ram, gpa_t gpa, const void *buf, uint64_t len)
{
	const char *from = buf;

	if (!ram_covers(ram, gpa, len))
		return -EFAULT;
	while (len > 0) {
		uint64_t got;
		char *host = ram_span(ram, gpa, len, &got);

		assert(host); /* ram_covers saw it */
		memcpy(host, from, got);
		from += got;
		gpa.v += got;
		len -= got;
	}
	return 0;
}
