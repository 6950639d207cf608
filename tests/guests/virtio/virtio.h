#ifndef TESTS_GUESTS_VIRTIO_VIRTIO_H
#define TESTS_GUESTS_VIRTIO_VIRTIO_H

/*
 * A virtio device as a driver sees it (virtio 1.3, 2 to 4), the same on PCI and
 * on MMIO. The functions do what they are told, also what a proper driver
 * wouldn't do.
 */

#include "tests/guests/guest.h"

#define VIRTIO_ID_BLOCK 2
#define VIRTIO_ID_IOMMU 23

#define STATUS_ACKNOWLEDGE 1
#define STATUS_DRIVER	   2
#define STATUS_DRIVER_OK   4
#define STATUS_FEATURES_OK 8
#define STATUS_NEEDS_RESET 64
#define STATUS_FAILED	   128

#define F_INDIRECT_DESC	  (1ull << 28)
#define F_EVENT_IDX	  (1ull << 29)
#define F_VERSION_1	  (1ull << 32)
#define F_ACCESS_PLATFORM (1ull << 33)

#define VDEV_MAX_QUEUES 4

struct vdev;

/* Where a queue's three parts are, as the device sees it. */
struct queue_addr {
	uint64_t desc, avail, used;
};

struct vtransport {
	const char *name;
	uint8_t (*get_status)(struct vdev *dev);
	void (*set_status)(struct vdev *dev, uint8_t status);
	uint32_t (*device_features)(struct vdev *dev, unsigned word);
	void (*set_features)(struct vdev *dev, unsigned word, uint32_t bits);
	/* What was accepted, where the transport shows it (PCI). */
	bool (*get_features)(struct vdev *dev, unsigned word, uint32_t *ret_bits);
	uint16_t (*queue_max)(struct vdev *dev, unsigned queue);
	/* Size and addresses, without enabling it. */
	void (*queue_place)(struct vdev *dev, unsigned queue, uint16_t size,
			    const struct queue_addr *addr);
	void (*queue_enable)(struct vdev *dev, unsigned queue);
	bool (*queue_enabled)(struct vdev *dev, unsigned queue);
	void (*notify)(struct vdev *dev, unsigned queue);
	/* Where config space is. */
	uint64_t (*config)(struct vdev *dev);
};

struct vdev {
	const struct vtransport *transport;
	unsigned id;
	bool translated; /* behind an IOMMU, as @endpoint */
	uint32_t endpoint;
	/* PCI: structures in BARs; MMIO: the registers are @common. */
	uint16_t bdf;
	uint64_t common, notify, isr, device;
	uint32_t notify_multiplier;
	uint16_t notify_off[VDEV_MAX_QUEUES];
};

/*
 * All virtio devices with @id, those on PCI first, then those on MMIO that the
 * firmware's tables name. Returns how many of at most @max were filled in.
 */
unsigned vdev_find(unsigned id, struct vdev *ret_dev, unsigned max);

/* One transport's part of that: fill in @ret_dev if there is such a device there. */
bool vdev_init_pci(struct vdev *dev, uint16_t bdf);
bool vdev_init_mmio(struct vdev *dev, uint64_t base);

static inline uint8_t vdev_status(struct vdev *dev)
{
	return dev->transport->get_status(dev);
}

/* Add @bits to the status. */
void vdev_add_status(struct vdev *dev, uint8_t bits);
/* Reset and wait for it (2.4.2); false when it takes more than some seconds. */
bool vdev_reset(struct vdev *dev);
uint64_t vdev_offered(struct vdev *dev);
void vdev_accept(struct vdev *dev, uint64_t features);
/*
 * From reset to FEATURES_OK with exactly @features; false when the device
 * refuses them. Queues and DRIVER_OK are the caller's.
 */
bool vdev_negotiate(struct vdev *dev, uint64_t features);

uint8_t vdev_config8(struct vdev *dev, unsigned offset);
uint16_t vdev_config16(struct vdev *dev, unsigned offset);
uint32_t vdev_config32(struct vdev *dev, unsigned offset);
uint64_t vdev_config64(struct vdev *dev, unsigned offset);
void vdev_write_config8(struct vdev *dev, unsigned offset, uint8_t value);
void vdev_write_config32(struct vdev *dev, unsigned offset, uint32_t value);

#endif
