#ifndef VMM_CORE_LISTENER_H
#define VMM_CORE_LISTENER_H

/*
 * How a translator outside of moat (the host's IOMMU, for a device passed
 * through) follows what an endpoint may see. It never looks at the IOMMU's
 * books: it is told each change, and holds what it was told.
 *
 * It starts out empty. All calls come under one lock of who calls, one at a
 * time, from any thread; they may take as long as the host does (whoever removes
 * or maps next waits for that, devices in their sections don't), and must not call
 * back: dma_ticket_done takes the same lock.
 */

#include "vmm/base/types.h"

/*
 * The removal that an answer waits for. A listener that can't finish a removal
 * at once keeps the pointer and has another thread call dma_ticket_done on it,
 * once, without locks of its own; that may be before the listener returns. It
 * never calls it itself, in the callback, nor waits there for the thread that does:
 * either is a deadlock.
 */
struct dma_ticket {
	void (*done)(struct dma_ticket *ticket);
};

#define DMA_LISTENER_PENDING 1

struct dma_listener;

typedef bool (*dma_listener_next_fn)(void *opaque, iova_t *ret_first, iova_t *ret_last);

struct dma_listener_ops {
	/*
	 * The device may from now on reach guest-physical @phys and what follows at
	 * the IOVAs @first to @last (inclusive), which hold nothing yet; @perm are
	 * bits of enum dma_dir, at least one. 0; -ENOMEM or -ENOSPC for lack of
	 * some resource; -ENOTSUP when the host can't map what is at @phys; another -errno. On
	 * failure nothing of it is mapped.
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
	 * All of guest memory, at its guest-physical addresses; the listener is
	 * empty. 0; -ENOTSUP when the host can't map some of it there; another
	 * -errno; it is empty then.
	 */
	int (*identity)(struct dma_listener *listener);
	/*
	 * Ask the host whether it holds what the listener was told and nothing else.
	 * @next gives that, mapping by mapping with ascending addresses, and false past
	 * the last; @next is NULL after identity. Returns how many differences there are;
	 * each (or the first ones of many) was reported.
	 */
	uint64_t (*audit)(struct dma_listener *listener, dma_listener_next_fn next, void *opaque);
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
