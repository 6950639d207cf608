#ifndef DEVICES_VFIO_SPACE_H
#define DEVICES_VFIO_SPACE_H

/*
 * An address space of the host's IOMMU, in which devices passed through live: a
 * Type1 container. It is a listener, so it follows a domain; how a mapping is
 * made is the backend's.
 */

#include "vmm/base/log.h"
#include "vmm/core/listener.h"
#include "vmm/core/ram.h"

struct vfio_space;

struct vfio_space_ops {
	/* Let devices reach @host at @iova; @perm are bits of enum dma_dir. 0 or -errno. */
	int (*map)(struct vfio_space *space, uint64_t iova, uint64_t size, void *host,
		   uint8_t perm);
	/* Take away one such mapping. 0 or -errno. */
	int (*unmap)(struct vfio_space *space, uint64_t iova, uint64_t size);
	/* Take away all of them. 0 or -errno. */
	int (*unmap_all)(struct vfio_space *space);
	/* For audits: is something mapped at @iova, a multiple of the granule? */
	bool (*holds)(struct vfio_space *space, uint64_t iova);
	/*
	 * For audits: is nothing mapped in the @size bytes at @iova, multiples of the granule?
	 * Mappings that lie in there as a whole are taken away.
	 */
	bool (*empty)(struct vfio_space *space, uint64_t iova, uint64_t size);
};

struct vfio_range {
	uint64_t first, last; /* inclusive */
};

#define VFIO_MAX_RANGES 16

struct vfio_space {
	struct dma_listener listener;
	const struct vfio_space_ops *ops;
	const char *name; /* borrows; for messages */
	struct ram *ram;  /* borrows */
	/* What the host's IOMMU can map: ascending, at least one; and the smallest page. */
	unsigned num_usable;
	struct vfio_range usable[VFIO_MAX_RANGES];
	uint64_t granule;
	uint64_t count;	 /* mappings there are */
	uint64_t limit;	 /* how many there can be, 0 = unknown */
	bool said_limit; /* the line about it was logged */
	struct log_limit log;
};

/*
 * Make the listener of @space, whose other members are set, ready. Its calls
 * come one at a time, as its caller promises (listener.h).
 */
void vfio_space_init(struct vfio_space *space);

/* dma_listener_ops.audit of a space (audit.c). */
uint64_t vfio_space_audit(struct dma_listener *listener, dma_listener_next_fn next, void *opaque);

/*
 * The part of all memory that identity maps in @space, number @index (0, 1, ...): its
 * addresses (inclusive), which RAM and host share, and where it is. False past the last.
 */
bool vfio_space_identity(const struct vfio_space *space, unsigned index,
			 struct vfio_range *ret_range, void **ret_host);

#endif
