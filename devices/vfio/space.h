#ifndef DEVICES_VFIO_SPACE_H
#define DEVICES_VFIO_SPACE_H

/*
 * An address space of the host's IOMMU, in which devices passed through live: a
 * Type1 container, or an IOAS of iommufd. It is a listener, so it follows a domain;
 * how a mapping is made is the backend's.
 */

#include <pthread.h>

#include "vmm/base/log.h"
#include "vmm/core/listener.h"
#include "vmm/core/memslot.h"
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
	/* Registers of another device can be mapped, too. */
	bool maps_peers;
};

struct vfio_range {
	uint64_t first, last; /* inclusive */
};

#define VFIO_MAX_RANGES 16

/* A mapping of another device's registers (peers.c). */
struct vfio_peer {
	struct vfio_peer *next;
	uint64_t iova, size, phys;
	uint8_t perm;
	void *host; /* borrows; what the host has mapped there, NULL: nothing now */
};

/* How many of them a space has at most. */
#define VFIO_MAX_PEERS 1024

/*
 * How many times over the guest's memory may be mapped in a space. A GiB of it takes 2 MiB of the
 * host's page tables at each address where it is mapped, which no limit of the host counts, and
 * the number of mappings alone would allow a thousand times the guest's memory.
 */
#define VFIO_MAX_REPEATS 16

struct vfio_space {
	struct dma_listener listener;
	const struct vfio_space_ops *ops;
	const char *name; /* borrows; for messages */
	struct ram *ram;  /* borrows */
	/* Where other devices' registers are; borrows, NULL: nowhere. */
	struct mem_slots *slots;
	/* What the host's IOMMU can map: ascending, at least one; and the smallest page. */
	unsigned num_usable;
	struct vfio_range usable[VFIO_MAX_RANGES];
	uint64_t granule;

	pthread_mutex_t lock;	 /* protects what follows */
	struct vfio_peer *peers; /* owns */
	unsigned num_peers;
	uint64_t count;	 /* mappings there are */
	uint64_t mapped; /* bytes in them */
	bool said_limit; /* the line about it was logged */
	struct log_limit log;
};

/*
 * Make the listener of @space ready; its other members are set before it is used. Its calls come
 * one at a time, as its caller promises (listener.h); vfio_peers_follow comes at any time.
 */
void vfio_space_init(struct vfio_space *space);
/* Nobody tells the listener anything; the host's mappings go with their container or IOAS. */
void vfio_space_finish(struct vfio_space *space);

/* dma_listener_ops.audit of a space (audit.c). */
uint64_t vfio_space_audit(struct dma_listener *listener, dma_listener_next_fn next, void *opaque);

/*
 * Is there guest memory that @space can't map at its guest-physical addresses? Then *@ret_range
 * is the first such part, and identity is refused (-ENOTSUP). Any thread.
 */
bool vfio_space_misses(const struct vfio_space *space, struct vfio_range *ret_range);

/*
 * Make one mapping on the host and count it; a refusal is reported. 0; -ENOMEM also when the
 * guest's memory would be mapped more than VFIO_MAX_REPEATS times over; another -errno of the host.
 * The space's lock is held, as for all that follow but the last.
 */
int vfio_space_map_locked(struct vfio_space *space, uint64_t iova, uint64_t size, void *host,
			  uint8_t perm);
void vfio_space_unmap_locked(struct vfio_space *space, uint64_t iova, uint64_t size);

/*
 * Map what other devices have at @phys. 0; -EFAULT when nothing is there; -ENOTSUP when the host
 * can't; -ENOMEM; another -errno of the host.
 */
int vfio_peer_map_locked(struct vfio_space *space, uint64_t iova, uint64_t size, uint64_t phys,
			 uint8_t perm);
/* The mapping of another device's registers at @iova; NULL: what is there isn't one. */
struct vfio_peer *vfio_peer_find_locked(const struct vfio_space *space, uint64_t iova);
/* Take @peer away, and (@host) what the host has of it. */
void vfio_peer_remove_locked(struct vfio_space *space, struct vfio_peer *peer, bool host);
/* Registers came or went: map those that are there now, and no others. Any thread, no lock. */
void vfio_peers_follow(struct vfio_space *space);

#endif
