#ifndef DEVICES_VIRTIO_VIRTQ_H
#define DEVICES_VIRTIO_VIRTQ_H

/*
 * A split virtqueue as the device sees it (virtio 1.3, section 2.7): the only
 * ring parser of the program. Ring addresses are IOVAs; everything is read
 * through a dma_port, copied once, and checked before it is used.
 *
 * A queue belongs to one thread (its device's loop) from activation to reset.
 */

#include "vmm/core/dma.h"
#include "vmm/core/ram.h"

#define VIRTQ_MAX_SIZE 1024
/* Ring memory is translated in pieces; a 1024-entry ring spans at most this many 4 KiB pages. */
#define VIRTQ_MAX_SEGMENTS 8

/* One buffer of a chain, copied from its descriptor. */
struct virtq_buf {
	iova_t addr;
	uint32_t len;
};

/*
 * A descriptor chain: @out buffers that the device reads, then @in buffers that
 * it writes. The arrays live in the queue's owner (preallocated).
 */
struct virtq_chain {
	uint16_t head;	  /* index to hand back with virtq_push */
	unsigned out, in; /* counts; buf[0..out) readable, buf[out..out+in) writable */
	uint64_t out_bytes, in_bytes;
	unsigned slots; /* descriptors of the queue's own table that it holds */
	unsigned max;	/* capacity of buf */
	struct virtq_buf *buf;
};

/* What the transport programs before activation (virtio 1.3, 4.1.4.3). */
struct virtq_config {
	uint16_t size; /* a power of two, at most the device's maximum */
	bool enabled;
	iova_t desc, driver, device;
};

struct virtq_ring_part {
	iova_t base;
	uint64_t len;
	unsigned count;
	struct {
		uint64_t offset; /* in the part */
		uint64_t len;
		unsigned char *host;
	} segment[VIRTQ_MAX_SEGMENTS];
};

enum virtq_state {
	VIRTQ_STOPPED, /* not activated */
	VIRTQ_RUNNING,
	VIRTQ_BROKEN, /* the driver broke the ring: DEVICE_NEEDS_RESET, nothing is served */
};

struct virtq {
	struct dma_port *port; /* borrows */
	enum virtq_state state;
	struct virtq_config config;
	bool event_idx, indirect;
	uint64_t epoch; /* of the ring's translation; 0 = none */
	struct virtq_ring_part desc, avail, used;
	uint16_t next_avail;	 /* free-running: next avail entry to read */
	uint16_t next_used;	 /* free-running: next used entry to write */
	uint16_t published_used; /* what the driver sees in used.idx */
};

/*
 * Start serving @config through @port (borrowed until virtq_stop). The ring is
 * translated on first use. A size that isn't a power of two up to
 * VIRTQ_MAX_SIZE, a misaligned part (2.7: 16, 2 and 4 bytes) or one that wraps
 * around leaves the queue VIRTQ_BROKEN. Owner's thread.
 */
void virtq_start(struct virtq *vq, const struct virtq_config *config, struct dma_port *port,
		 bool event_idx, bool indirect);

/* Forget everything but the identity of the queue; state becomes VIRTQ_STOPPED. */
void virtq_stop(struct virtq *vq);

/*
 * Take the next chain. Returns 1 with *@chain filled; 0 when the ring is empty;
 * -EPROTO when the driver broke the ring (index or count out of range, loop,
 * nested indirect, readable after writable, a chain of no bytes or more than
 * 4 GiB, one longer than the queue or than @chain->max): the queue is then
 * VIRTQ_BROKEN and the caller reports DEVICE_NEEDS_RESET;
 * -EFAULT when the ring or an indirect table isn't reachable through the IOMMU
 * (reported as a fault; the queue stays RUNNING and a later kick tries again).
 * The order of the checks is virtio 1.3, 2.7.5 and 2.7.13.
 */
int virtq_pop(struct virtq *vq, struct virtq_chain *chain);

/*
 * Undo the last successful virtq_pop: the chain is popped (and read and checked)
 * again next time. Nothing may be pushed in between.
 */
void virtq_unpop(struct virtq *vq);

/*
 * Write a used element for @head with @len bytes written, without publishing
 * it. Returns 0, or -EFAULT (reported; the element is lost, as on hardware, and
 * takes no place in the ring). On a broken or stopped queue nothing happens.
 */
int virtq_push(struct virtq *vq, uint16_t head, uint32_t len);

/*
 * Publish all pushed elements at once (release store of used.idx; pairs with
 * the driver's acquire load) and say whether the driver wants an interrupt
 * (EVENT_IDX or the NO_INTERRUPT flag; 2.7.7, 2.7.10). Returns true when the
 * caller must notify.
 */
bool virtq_publish(struct virtq *vq);

/*
 * Ask the driver for kicks, or not to send them (2.7.10). virtq_enable_kicks
 * returns true when buffers arrived meanwhile: the caller must look again. With
 * EVENT_IDX an avail_event that isn't moved on suppresses by itself, after one
 * more kick at most, so disabling writes nothing.
 */
bool virtq_enable_kicks(struct virtq *vq);
void virtq_disable_kicks(struct virtq *vq);

/*
 * Copy between a chain and @buf, starting @offset bytes into the readable
 * (virtq_read) or writable (virtq_write) part. Returns 0, -ERANGE when the part
 * is shorter, or -EFAULT after a reported fault.
 */
int virtq_read(struct virtq *vq, const struct virtq_chain *chain, uint64_t offset, void *buf,
	       uint64_t len);
int virtq_write(struct virtq *vq, const struct virtq_chain *chain, uint64_t offset, const void *buf,
		uint64_t len);

/*
 * dma_map the bytes [@offset, @offset + @len) of the readable (@dir DMA_READ)
 * or writable (DMA_WRITE) part into @list. Returns 0, -ERANGE, -EFAULT (reported)
 * or -ENOBUFS; on failure @list is as it was.
 */
int virtq_map(struct virtq *vq, const struct virtq_chain *chain, uint64_t offset, uint64_t len,
	      enum dma_dir dir, struct dma_list *list);

#endif
