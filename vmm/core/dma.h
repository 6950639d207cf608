#ifndef VMM_CORE_DMA_H
#define VMM_CORE_DMA_H

/*
 * The only way a device reaches guest memory.
 *
 * A dma_view is what one endpoint sees: either guest-physical memory as it is
 * (identity) or what an IOMMU lets through. A device can't tell which. A
 * dma_port is one thread's access to a view: it carries the translation cache
 * and the word by which a remover sees that the thread is inside a section.
 *
 *	device thread                         remover (UNMAP, DETACH, reset)
 *	dma_enter: active = epoch; fence      take the mapping out of the map
 *	  translate, copy, take references    epoch++; fence; dma_port_fence
 *	dma_leave: active = 0                 wait until no port's active <= old epoch
 *	  ... I/O on referenced mappings ...  and the mapping has no references;
 *	dma_unpin: drop references            then publish the reply
 *
 * A port that sees the same epoch for a while goes without its fence, and the
 * next remover makes up for it, once (dma_port_fence).
 *
 * A section never makes a system call and never blocks. Whatever outlives it
 * holds a reference to each mapping it touches (struct dma_list).
 */

#include <stdatomic.h>
#include <sys/uio.h>
#include "vmm/base/types.h"
#include "vmm/core/ram.h"

/* Direction as the device sees it; the values are permission bits. */
enum dma_dir {
	DMA_READ = 1,  /* the device reads guest memory */
	DMA_WRITE = 2, /* the device writes guest memory */
};

struct dma_port;
struct dma_view;

/* One piece of a translated range, contiguous in host memory. */
struct dma_piece {
	void *host;
	uint64_t len;
	void *mapping; /* the translator's; NULL: nothing to reference */
};

struct dma_view_ops {
	/*
	 * Translate the longest prefix of [@iova, @iova + @len) that is contiguous
	 * in host memory and lies in one mapping. @len > 0. Runs inside a section
	 * of @port. Returns 0 with *@ret_piece set (len <= @len), or -EFAULT: not
	 * mapped, no permission for @dir, or not RAM behind it. Never blocks, never
	 * logs, never makes a system call.
	 */
	int (*translate)(struct dma_port *port, iova_t iova, uint64_t len, enum dma_dir dir,
			 struct dma_piece *ret_piece);
	/* Take one more reference to a mapping that translate returned, in the same section. */
	void (*ref)(struct dma_port *port, void *mapping);
	/* Drop one reference; may complete a parked removal. Outside sections. */
	void (*unref)(struct dma_port *port, void *mapping);
	/*
	 * Report that an access at @iova was refused (fault event, counter,
	 * rate-limited log). Outside sections.
	 */
	void (*fault)(struct dma_port *port, iova_t iova, enum dma_dir dir);
	/* A port comes or goes; register its active word. May block, control path. */
	int (*attach_port)(struct dma_view *view, struct dma_port *port);
	void (*detach_port)(struct dma_view *view, struct dma_port *port);
};

struct dma_view {
	const struct dma_view_ops *ops;
	struct ram *ram;	       /* borrows */
	const _Atomic uint64_t *epoch; /* raised by every removal; a constant for identity */
};

/*
 * How many translations a port remembers: enough for the buffers of a deep queue.
 * Where one goes follows from the page that was asked for.
 */
#define DMA_CACHE_LINES 64

/* One remembered translation; valid while its epoch is the view's. */
struct dma_cache_line {
	uint64_t first, last; /* IOVA, inclusive */
	uint64_t epoch;	      /* 0: empty */
	unsigned char *host;  /* of first */
	void *mapping;
	uint8_t perm;
};

/* Owned by one thread; only `active` is read by others. */
struct dma_port {
	struct dma_view *view; /* borrows */
	_Atomic uint64_t
		active; /* epoch at entry, 0 outside sections; pairs with the remover's scan */
	uint64_t epoch; /* the epoch seen at entry */
	/* dma_enter goes without a fence. Set by the port's thread, cleared by removers. */
	_Atomic bool unfenced;
	unsigned calm; /* sections in a row with the same epoch, while fenced */
	/*
	 * Set by a remover that saw this port inside an old section. dma_leave
	 * takes it out again and calls it, once, outside the section.
	 */
	_Atomic(void (*)(struct dma_port *)) on_leave;
	void *translator; /* the translator's data about this port */
	unsigned recent;  /* the line that answered last */
	struct dma_cache_line cache[DMA_CACHE_LINES];
	/* Counters: written by the port's thread, read by any. */
	_Atomic uint64_t translated; /* bytes */
	_Atomic uint64_t hits, misses;
};

/*
 * A list of host ranges for one request with the references that keep them
 * valid. The arrays are the caller's (a preallocated request slot).
 */
struct dma_list {
	struct iovec *iov; /* borrows */
	void **mapping;	   /* borrows; parallel to iov: the mapping each piece references */
	unsigned count, max;
	uint64_t bytes;
};

/* The identity view: IOVA = guest-physical address, every access allowed, RAM only. */
void dma_view_init_identity(struct dma_view *view, struct ram *ram);

/*
 * Make @port ready for @view (borrowed until dma_port_finish). Control path.
 * Returns 0 or -ENOMEM.
 */
int dma_port_init(struct dma_port *port, struct dma_view *view);

/* The port's thread no longer uses it; accepts a zeroed port. */
void dma_port_finish(struct dma_port *port);

/*
 * Enter and leave a section. Not recursive. After dma_enter, port->epoch is the
 * generation: translations remembered under another one are stale. dma_leave
 * may run a remover's completion, so the caller holds no lock that it takes.
 */
void dma_enter(struct dma_port *port);
void dma_leave(struct dma_port *port);

/*
 * For removers, after the epoch was raised and before `active` is looked at: make
 * @port's sections fenced. True when it was not: then barrier_heavy is needed,
 * once for all ports. The remover's lock.
 */
bool dma_port_fence(struct dma_port *port);

/*
 * Inside a section: the longest contiguous piece at @iova, through the port's
 * cache. The pointer is valid until dma_leave. 0 or -EFAULT (no report made).
 */
int dma_translate(struct dma_port *port, iova_t iova, uint64_t len, enum dma_dir dir,
		  struct dma_piece *ret_piece);

/*
 * Translate [@iova, @iova + @len) and append its pieces to @list, with a
 * reference to every mapping crossed. Enters its own section. @len 0 appends
 * nothing. Returns 0; -EFAULT after reporting the fault; -ENOBUFS when the list
 * is full; in both cases @list is as it was before the call.
 */
int dma_map(struct dma_port *port, iova_t iova, uint64_t len, enum dma_dir dir,
	    struct dma_list *list);

/* Drop all references of @list and empty it. On the port's thread, outside sections. */
void dma_unpin(struct dma_port *port, struct dma_list *list);

/*
 * Copy @len bytes from or to the guest; no reference survives the call. Returns
 * 0, or -EFAULT after reporting the fault (bytes before the hole may have been
 * copied).
 */
int dma_read(struct dma_port *port, iova_t iova, void *buf, uint64_t len);
int dma_write(struct dma_port *port, iova_t iova, const void *buf, uint64_t len);

/* Report a refused access that dma_translate found; outside sections. */
void dma_fault(struct dma_port *port, iova_t iova, enum dma_dir dir);

/*
 * For translators, inside translate of @iova: remember that the IOVAs @first to
 * @last (inclusive, around @iova) are the host memory at @host, with the
 * permissions @perm (bits of enum dma_dir) and @mapping for ref and unref. Valid
 * until the epoch is raised.
 */
void dma_cache_fill(struct dma_port *port, iova_t iova, uint64_t first, uint64_t last, void *host,
		    void *mapping, uint8_t perm);

#endif
