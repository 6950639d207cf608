#ifndef DEVICES_VFIO_HOST_H
#define DEVICES_VFIO_HOST_H

/*
 * What a PCI function needs of the device behind it: its regions, interrupts and
 * reset. The operations are those of a VFIO device's file; tests have their own.
 */

#include "devices/vfio/space.h"
#include "vmm/base/err.h"

struct vfio_host;

#define VFIO_MAX_AREAS 8

/* A BAR, the ROM or the configuration space. */
struct vfio_region {
	uint64_t size; /* bytes; 0 = there is none */
	/* What of it can be mapped: ascending, in multiples of the page size. */
	unsigned num_areas;
	struct {
		uint64_t offset, size;
	} area[VFIO_MAX_AREAS];
};

struct vfio_host_ops {
	/* Describe region @index (VFIO_PCI_*_REGION_INDEX). 0 or -errno. */
	int (*region)(struct vfio_host *host, unsigned index, struct vfio_region *ret_region);
	/* Access @size bytes (1, 2, 4, 8) at @offset of region @index. 0 or -errno. */
	int (*read)(struct vfio_host *host, unsigned index, uint64_t offset, void *buf,
		    unsigned size);
	int (*write)(struct vfio_host *host, unsigned index, uint64_t offset, const void *buf,
		     unsigned size);
	/* Map part of a region, an area or less of one; NULL with errno when it can't. */
	void *(*map)(struct vfio_host *host, unsigned index, uint64_t offset, uint64_t size);
	void (*unmap)(struct vfio_host *host, void *address, uint64_t size);
	/*
	 * How many interrupts of kind @index (VFIO_PCI_*_IRQ_INDEX) there are, 0 =
	 * none. *@ret_grows: more can be switched on while some are.
	 */
	unsigned (*irqs)(struct vfio_host *host, unsigned index, bool *ret_grows);
	/*
	 * Switch interrupts @first and on of kind @index on: number @first + i rings
	 * @eventfd[i], or nothing when that is -1. @count 0: all of the kind off.
	 * 0; -errno; or, when the host has too few vectors, how many it has: none of
	 * the kind is on then that wasn't before.
	 */
	int (*set_irqs)(struct vfio_host *host, unsigned index, unsigned first, unsigned count,
			const int *eventfd);
	/*
	 * Have the eventfd @eventfd (-1: none any more) unmask the interrupt of kind
	 * @index, which masks itself each time it comes. 0 or -errno.
	 */
	int (*unmask_by)(struct vfio_host *host, unsigned index, int eventfd);
	/*
	 * Let the device go, for good: no call reaches it from now on. Nothing of it is
	 * mapped and no interrupt is on. Any thread.
	 */
	void (*release)(struct vfio_host *host);
	/* A round of resets begins: every function is told before the first is reset. */
	void (*quiet)(struct vfio_host *host);
	/*
	 * Reset the function. One without a reset of its own is reset with its bus, with
	 * everything on it: so all functions are quiet, and each is asked for. 0 or -errno with
	 * words in @err.
	 */
	int (*reset)(struct vfio_host *host, struct err *err);
};

/* Embedded in its implementation. */
struct vfio_host {
	const struct vfio_host_ops *ops;
	struct vfio_space *space; /* borrows; where its DMA goes */
	int keeper_fd;		  /* what KVM is told of it, and keeps open; borrows */
	bool keeper_is_own;	  /* that is the device's file, not its group's */
	char bdf[16];
};

#endif
