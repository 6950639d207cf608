#ifndef DEVICES_VIRTIO_VIRTIO_H
#define DEVICES_VIRTIO_VIRTIO_H

/*
 * The transport-independent half of a virtio device: status, feature
 * negotiation, queues, activation and reset (virtio 1.3, chapters 2 and 3). A
 * concrete device embeds struct virtio_dev and fills a virtio_dev_ops; a
 * transport (pci.c, mmio.c) embeds nothing and drives it through the functions
 * at the end.
 *
 *	vCPU thread                      the device's loop thread
 *	transport register write
 *	  virtio_set_status(DRIVER_OK) -> start queues, ops->activate
 *	  ioeventfd / doorbell        --> ops->kick(queue)
 *	  virtio_set_status(0)         -> ops->quiesce ... virtio_quiesced()
 *	                                  ops->reset, status becomes 0, waiters wake
 *
 * `lock` protects everything that registers show (status, features, queue
 * configs, isr). Queues themselves belong to the loop's thread.
 */

#include <pthread.h>
#include <stdatomic.h>
#include "vmm/base/log.h"
#include "vmm/core/loop.h"
#include "devices/virtio/virtq.h"

/* Device IDs (virtio 1.3, chapter 5). */
enum virtio_id {
	VIRTIO_ID_NET = 1,
	VIRTIO_ID_BLOCK = 2,
	VIRTIO_ID_RNG = 4,
	VIRTIO_ID_IOMMU = 23,
};

/* Device status bits (2.1). */
enum virtio_status {
	VIRTIO_STATUS_ACKNOWLEDGE = 1,
	VIRTIO_STATUS_DRIVER = 2,
	VIRTIO_STATUS_DRIVER_OK = 4,
	VIRTIO_STATUS_FEATURES_OK = 8,
	VIRTIO_STATUS_NEEDS_RESET = 64,
	VIRTIO_STATUS_FAILED = 128,
};

/* Device-independent feature bits (chapter 6). */
#define VIRTIO_F_INDIRECT_DESC	 (1ULL << 28)
#define VIRTIO_F_EVENT_IDX	 (1ULL << 29)
#define VIRTIO_F_VERSION_1	 (1ULL << 32)
#define VIRTIO_F_ACCESS_PLATFORM (1ULL << 33)

#define VIRTIO_MAX_QUEUES 16

struct virtio_dev;

/* NULL where a device has nothing to do, except for kick and quiesce. */
struct virtio_dev_ops {
	/*
	 * DRIVER_OK: the queues run. What they hold already follows as a kick. Loop
	 * thread.
	 */
	void (*activate)(struct virtio_dev *dev);
	/* The driver rang queue @queue (its eventfd is already drained). Loop thread. */
	void (*kick)(struct virtio_dev *dev, unsigned queue);
	/*
	 * Read or write @len bytes of device config space at @offset; the core has
	 * checked offset + len <= config_size. vCPU thread, dev->lock held.
	 * Without config_write, writes are ignored.
	 */
	void (*config_read)(struct virtio_dev *dev, unsigned offset, void *buf, unsigned len);
	void (*config_write)(struct virtio_dev *dev, unsigned offset, const void *buf,
			     unsigned len);
	/*
	 * Stop touching guest memory: let I/O in flight end, start no more, then
	 * call virtio_quiesced (at once or later, on the loop thread). Loop thread.
	 */
	void (*quiesce)(struct virtio_dev *dev);
	/* Back to the state before activation; nothing is in flight. Loop thread. */
	void (*reset)(struct virtio_dev *dev);
};

/* What the transport offers to the core. Any thread, without dev->lock unless it says so. */
struct virtio_transport_ops {
	/* Interrupt: queue @queue has used buffers. */
	void (*notify_queue)(void *transport, unsigned queue);
	/*
	 * Interrupt: the configuration or NEEDS_RESET changed. dev->lock may be
	 * held (a config_write that changes the configuration).
	 */
	void (*notify_config)(void *transport);
	/* A device reset ends: the transport's own registers too, before status reads as 0. */
	void (*reset)(void *transport);
};

struct virtio_queue {
	struct virtq vq;	    /* loop thread */
	struct dma_port port;	    /* loop thread */
	struct virtq_config config; /* as programmed; dev->lock */
	uint16_t max_size;
	int kick_fd; /* owns; an eventfd that doorbells ring */
	struct virtio_dev *dev;
};

struct virtio_dev {
	/* Set by the concrete device before virtio_init. */
	const struct virtio_dev_ops *ops;
	enum virtio_id id;
	const char *name;	  /* the id= of the command line; borrows */
	uint64_t device_features; /* without ACCESS_PLATFORM and VERSION_1, which the core adds */
	unsigned config_size;
	unsigned num_queues;
	uint16_t queue_max_size[VIRTIO_MAX_QUEUES];
	struct loop *loop;     /* borrows */
	struct dma_view *view; /* borrows */
	bool access_platform;  /* behind an IOMMU: offer and insist on VIRTIO_F_ACCESS_PLATFORM */

	/* The core's. */
	bool initialised;
	pthread_mutex_t lock;
	pthread_cond_t reset_done;
	_Atomic uint8_t status;	  /* changed under lock */
	bool resetting;		  /* lock */
	bool quiescing;		  /* loop thread: from quiesce to virtio_quiesced; start nothing */
	uint64_t driver_features; /* lock; constant from FEATURES_OK to the end of a reset */
	_Atomic uint32_t config_generation;
	struct loop_work activation, reset; /* what each does on the loop's thread */
	struct virtio_queue queue[VIRTIO_MAX_QUEUES];
	const struct virtio_transport_ops *transport_ops;
	void *transport; /* borrows */
	struct log_limit log;
};

/*
 * For concrete devices.
 */

/*
 * Make the queues and locks; the part of @dev that the concrete device doesn't
 * set must be zeroed. Control path. Returns 0 or -errno with words in @err (and
 * nothing to undo).
 */
int virtio_init(struct virtio_dev *dev, struct err *err);
/*
 * Undo virtio_init. The device was reset (virtio_host_reset), so that its loop
 * doesn't know it any more. Accepts a zeroed dev.
 */
void virtio_finish(struct virtio_dev *dev);
/*
 * True when both sides agreed on @feature (one bit). Stable while active. Loop
 * thread while active, or in a config callback.
 */
bool virtio_has_feature(const struct virtio_dev *dev, uint64_t feature);
/* Publish queue @queue's pushed elements and interrupt if the driver wants it. Loop thread. */
void virtio_publish(struct virtio_dev *dev, unsigned queue);
/* The quiesce that the core asked for is complete. Once per quiesce. Loop thread. */
void virtio_quiesced(struct virtio_dev *dev);
/*
 * The driver broke the protocol: set DEVICE_NEEDS_RESET and notify (2.1.2), log
 * @why; nothing when it is set already or a reset is under way. Any thread,
 * dev->lock not held.
 */
void virtio_needs_reset(struct virtio_dev *dev, const char *why);
/* Config space changed: bump the generation and notify a live driver. Any thread. */
void virtio_config_changed(struct virtio_dev *dev);

/*
 * For transports (vCPU threads).
 */

/* Who raises interrupts for @dev; before the guest runs. */
void virtio_set_transport(struct virtio_dev *dev, const struct virtio_transport_ops *ops,
			  void *transport);
/* All feature bits that the device offers. */
uint64_t virtio_offered_features(const struct virtio_dev *dev);
/* The driver writes 32 feature bits at @word (0, 1; others ignored). Ignored after FEATURES_OK. */
void virtio_set_driver_features(struct virtio_dev *dev, unsigned word, uint32_t bits);
/* Those bits as last written; 0 for another @word. */
uint32_t virtio_get_driver_features(struct virtio_dev *dev, unsigned word);
/* Word @word of virtio_offered_features; 0 for another @word. */
uint32_t virtio_get_device_features(const struct virtio_dev *dev, unsigned word);
/* The status register. No lock. */
uint8_t virtio_get_status(struct virtio_dev *dev);
/*
 * The driver writes the status register. 0 begins a reset, which ends later:
 * virtio_get_status shows the old status until then (4.1.4.3.1); a transport
 * whose driver doesn't read it back calls virtio_wait_reset. FEATURES_OK is
 * refused unless the driver's bits are a subset of the offered ones and contain
 * VERSION_1, and ACCESS_PLATFORM where it is offered. DRIVER_OK is refused
 * without FEATURES_OK. Bits can't be cleared but by a reset, and a write during
 * one is ignored.
 */
void virtio_set_status(struct virtio_dev *dev, uint8_t status);
/* Wait until no reset is under way. Must not be called on the loop thread. */
void virtio_wait_reset(struct virtio_dev *dev);
/*
 * Queue registers. Setting has no effect on an enabled queue (but to disable
 * it), after DRIVER_OK or for a queue that doesn't exist; a size that isn't a
 * power of two or is too large is ignored. virtio_get_queue returns zeroes for
 * a queue that doesn't exist, and so does virtio_queue_max_size.
 */
struct virtq_config virtio_get_queue(struct virtio_dev *dev, unsigned queue);
uint16_t virtio_queue_max_size(const struct virtio_dev *dev, unsigned queue);
void virtio_set_queue_size(struct virtio_dev *dev, unsigned queue, uint16_t size);
void virtio_set_queue_enabled(struct virtio_dev *dev, unsigned queue, bool enabled);
/* @which: 0 descriptor table, 1 driver area, 2 device area; @high: the upper 32 bits. */
void virtio_set_queue_addr(struct virtio_dev *dev, unsigned queue, unsigned which, bool high,
			   uint32_t value);
/* Config space with bounds: out-of-range reads give zeroes, writes are ignored. */
void virtio_config_read(struct virtio_dev *dev, uint64_t offset, void *buf, unsigned len);
void virtio_config_write(struct virtio_dev *dev, uint64_t offset, const void *buf, unsigned len);
/* The eventfd that rings queue @queue (borrowed), for a doorbell. The queue exists. */
int virtio_kick_fd(const struct virtio_dev *dev, unsigned queue);
/* Ring a queue from a handler (no doorbell matched); nothing when it doesn't exist. */
void virtio_kick(struct virtio_dev *dev, unsigned queue);

/*
 * Reset from the host side and wait (machine reset, shutdown). As
 * virtio_set_status(dev, 0) and virtio_wait_reset. Not on the loop thread.
 */
void virtio_host_reset(struct virtio_dev *dev);

#endif
