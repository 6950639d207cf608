/* Virtio over PCI, modern (virtio 1.3, 4.1). */
#include "tests/guests/virtio/virtio.h"
#include "tests/guests/arch.h"
#include "tests/guests/endpoints.h"
#include "tests/guests/virtio/pci.h"

#define VENDOR	    0x1af4
#define DEVICE_BASE 0x1040

/* Offsets in a virtio vendor capability (4.1.4). */
#define CAP_TYPE       3
#define CAP_BAR	       4
#define CAP_OFFSET     8
#define CAP_MULTIPLIER 16

#define TYPE_COMMON 1
#define TYPE_NOTIFY 2
#define TYPE_ISR    3
#define TYPE_DEVICE 4

/* The common configuration structure (4.1.4.3). */
#define COMMON_DEVICE_FEATURE_SELECT 0x00
#define COMMON_DEVICE_FEATURE	     0x04
#define COMMON_DRIVER_FEATURE_SELECT 0x08
#define COMMON_DRIVER_FEATURE	     0x0c
#define COMMON_DEVICE_STATUS	     0x14
#define COMMON_QUEUE_SELECT	     0x16
#define COMMON_QUEUE_SIZE	     0x18
#define COMMON_QUEUE_ENABLE	     0x1c
#define COMMON_QUEUE_NOTIFY_OFF	     0x1e
#define COMMON_QUEUE_DESC	     0x20
#define COMMON_QUEUE_DRIVER	     0x28
#define COMMON_QUEUE_DEVICE	     0x30

static uint8_t get_status(struct vdev *dev)
{
	return arch_read8(dev->common + COMMON_DEVICE_STATUS);
}

static void set_status(struct vdev *dev, uint8_t status)
{
	arch_write8(dev->common + COMMON_DEVICE_STATUS, status);
}

static uint32_t device_features(struct vdev *dev, unsigned word)
{
	arch_write32(dev->common + COMMON_DEVICE_FEATURE_SELECT, word);
	return arch_read32(dev->common + COMMON_DEVICE_FEATURE);
}

static void set_features(struct vdev *dev, unsigned word, uint32_t bits)
{
	arch_write32(dev->common + COMMON_DRIVER_FEATURE_SELECT, word);
	arch_write32(dev->common + COMMON_DRIVER_FEATURE, bits);
}

static bool get_features(struct vdev *dev, unsigned word, uint32_t *ret_bits)
{
	arch_write32(dev->common + COMMON_DRIVER_FEATURE_SELECT, word);
	*ret_bits = arch_read32(dev->common + COMMON_DRIVER_FEATURE);
	return true;
}

static void select(struct vdev *dev, unsigned queue)
{
	arch_write16(dev->common + COMMON_QUEUE_SELECT, (uint16_t)queue);
}

static uint16_t queue_max(struct vdev *dev, unsigned queue)
{
	select(dev, queue);
	return arch_read16(dev->common + COMMON_QUEUE_SIZE);
}

/* 64-bit fields are two 32-bit ones (4.1.3.1). */
static void write64(uint64_t addr, uint64_t value)
{
	arch_write32(addr, (uint32_t)value);
	arch_write32(addr + 4, (uint32_t)(value >> 32));
}

static void queue_place(struct vdev *dev, unsigned queue, uint16_t size,
			const struct queue_addr *addr)
{
	select(dev, queue);
	arch_write16(dev->common + COMMON_QUEUE_SIZE, size);
	write64(dev->common + COMMON_QUEUE_DESC, addr->desc);
	write64(dev->common + COMMON_QUEUE_DRIVER, addr->avail);
	write64(dev->common + COMMON_QUEUE_DEVICE, addr->used);
	if (queue < VDEV_MAX_QUEUES)
		dev->notify_off[queue] = arch_read16(dev->common + COMMON_QUEUE_NOTIFY_OFF);
}

static void queue_enable(struct vdev *dev, unsigned queue)
{
	select(dev, queue);
	arch_write16(dev->common + COMMON_QUEUE_ENABLE, 1);
}

static bool queue_enabled(struct vdev *dev, unsigned queue)
{
	select(dev, queue);
	return arch_read16(dev->common + COMMON_QUEUE_ENABLE);
}

static void notify(struct vdev *dev, unsigned queue)
{
	arch_write16(dev->notify + (uint64_t)dev->notify_off[queue] * dev->notify_multiplier,
		     (uint16_t)queue);
}

static uint64_t config(struct vdev *dev)
{
	return dev->device;
}

static const struct vtransport transport = {
	.name = "PCI",
	.get_status = get_status,
	.set_status = set_status,
	.device_features = device_features,
	.set_features = set_features,
	.get_features = get_features,
	.queue_max = queue_max,
	.queue_place = queue_place,
	.queue_enable = queue_enable,
	.queue_enabled = queue_enabled,
	.notify = notify,
	.config = config,
};

/* The first capability of each type counts (4.1.4). */
static void read_cap(struct vdev *dev, unsigned cap)
{
	uint8_t bar = pci_read8(dev->bdf, cap + CAP_BAR);
	uint64_t at;

	if (bar >= PCI_NUM_BARS)
		return;
	at = pci_bar(dev->bdf, bar) + pci_read32(dev->bdf, cap + CAP_OFFSET);
	switch (pci_read8(dev->bdf, cap + CAP_TYPE)) {
	case TYPE_COMMON:
		dev->common = dev->common ? dev->common : at;
		break;
	case TYPE_NOTIFY:
		if (dev->notify)
			break;
		dev->notify = at;
		dev->notify_multiplier = pci_read32(dev->bdf, cap + CAP_MULTIPLIER);
		break;
	case TYPE_ISR:
		dev->isr = dev->isr ? dev->isr : at;
		break;
	case TYPE_DEVICE:
		dev->device = dev->device ? dev->device : at;
		break;
	default:
		break;
	}
}

bool vdev_init_pci(struct vdev *dev, uint16_t bdf)
{
	uint16_t id = pci_read16(bdf, PCI_DEVICE_ID);

	if (pci_read16(bdf, PCI_VENDOR_ID) != VENDOR || id < DEVICE_BASE || id > DEVICE_BASE + 0x3f)
		return false;
	*dev = (struct vdev){ .transport = &transport, .id = id - DEVICE_BASE, .bdf = bdf };
	dev->translated = endpoints_find_pci(bdf, &dev->endpoint);
	pci_enable(bdf);
	for (unsigned cap = 0; (cap = pci_next_cap(bdf, PCI_CAP_VENDOR, cap));)
		read_cap(dev, cap);
	return dev->common && dev->notify && dev->isr;
}
