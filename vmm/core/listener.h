#ifndef VMM_CORE_LISTENER_H
#define VMM_CORE_LISTENER_H

/*
 * How a translator outside of moat (the host's IOMMU, for a device passed
 * through) follows what an endpoint may see. It never looks at the IOMMU's
 * books: it is told each change, and holds what it was told.
 *
 * It starts out empty. All calls come under one lock of who calls, one at a
 * time, from any thread; they may take as long as the host does, and must not
 * call back.
 */

#include "vmm/base/types.h"

/*
 * The removal that an answer waits for. A listener that can't finish a removal
 * at once keeps the pointer and has another thread call dma_ticket_done on it,
 * once, without locks of its own; that may be before the listener returns.
 */
struct dma_ticket {
	void (*done)(struct dma_ticket *ticket);
};

#define DMA_LISTENER_PENDING 1

struct dma_listener;

struct dma_listener_ops {
	/*
	 * The device may from now on reach guest-physical @phys and what follows at
	 * the IOVAs @first to @last (inclusive), which hold nothing yet; @perm are
	 * bits of enum dma_dir, at least one. 0; -ENOMEM or -ENOSPC for lack of
	 * some resource; another -errno. On failure nothing of it is mapped.
	 */
	int (*map)(struct dma_listener *listener, iova_t first, iova_t last, gpa_t phys,
		   uint8_t perm);
	/*
	 * Take away what one call of map gave. 0, or DMA_LISTENER_PENDING when
	 * @ticket will tell. With @ticket NULL it must be done on return. A host
	 * that fails is the listener's to report: the caller's books follow anyway.
	 */
	int (*unmap)(struct dma_listener *listener, iova_t first, iova_t last,
		     struct dma_ticket *ticket);
	/* Take away everything, identity included. Returns as unmap. */
	int (*clear)(struct dma_listener *listener, struct dma_ticket *ticket);
	/*
	 * All of guest memory that the device can address, at its guest-physical
	 * addresses; the listener is empty. 0 or -errno; it is empty then.
	 */
	int (*identity)(struct dma_listener *listener);
};

/* Embedded in its implementation. */
struct dma_listener {
	const struct dma_listener_ops *ops;
};

static inline void dma_ticket_done(struct dma_ticket *ticket)
{
	ticket->done(ticket);
}

#endif
