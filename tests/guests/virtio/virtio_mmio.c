/* Virtio over MMIO, version 2 (virtio 1.3, 4.2). */
#include "tests/guests/virtio/virtio.h"
#include "tests/guests/arch.h"
#include "tests/guests/endpoints.h"

#define MAGIC 0x74726976

#define REG_MAGIC		0x000
#define REG_VERSION		0x004
#define REG_DEVICE_ID		0x008
#define REG_DEVICE_FEATURES	0x010
#define REG_DEVICE_FEATURES_SEL 0x014
#define REG_DRIVER_FEATURES	0x020
#define REG_DRIVER_FEATURES_SEL 0x024
#define REG_QUEUE_SEL		0x030
#define REG_QUEUE_SIZE_MAX	0x034
#define REG_QUEUE_SIZE		0x038
#define REG_QUEUE_READY		0x044
#define REG_QUEUE_NOTIFY	0x050
#define REG_STATUS		0x070
#define REG_QUEUE_DESC		0x080
#define REG_QUEUE_DRIVER	0x090
#define REG_QUEUE_DEVICE	0x0a0
#define REG_CONFIG		0x100

static uint8_t get_status(struct vdev *dev)
{
	return (uint8_t)arch_read32(dev->common + REG_STATUS);
}

static void set_status(struct vdev *dev, uint8_t status)
{
	arch_write32(dev->common + REG_STATUS, status);
}

static uint32_t device_features(struct vdev *dev, unsigned word)
{
	arch_write32(dev->common + REG_DEVICE_FEATURES_SEL, word);
	return arch_read32(dev->common + REG_DEVICE_FEATURES);
}

static void set_features(struct vdev *dev, unsigned word, uint32_t bits)
{
	arch_write32(dev->common + REG_DRIVER_FEATURES_SEL, word);
	arch_write32(dev->common + REG_DRIVER_FEATURES, bits);
}

/* The register is write-only. */
static bool get_features(struct vdev *dev, unsigned word, uint32_t *ret_bits)
{
	(void)dev;
	(void)word;
	(void)ret_bits;
	return false;
}

static void select(struct vdev *dev, unsigned queue)
{
	arch_write32(dev->common + REG_QUEUE_SEL, queue);
}

static uint16_t queue_max(struct vdev *dev, unsigned queue)
{
	select(dev, queue);
	return (uint16_t)arch_read32(dev->common + REG_QUEUE_SIZE_MAX);
}

static void write64(uint64_t addr, uint64_t value)
{
	arch_write32(addr, (uint32_t)value);
	arch_write32(addr + 4, (uint32_t)(value >> 32));
}

static void queue_place(struct vdev *dev, unsigned queue, uint16_t size,
			const struct queue_addr *addr)
{
	select(dev, queue);
	arch_write32(dev->common + REG_QUEUE_SIZE, size);
	write64(dev->common + REG_QUEUE_DESC, addr->desc);
	write64(dev->common + REG_QUEUE_DRIVER, addr->avail);
	write64(dev->common + REG_QUEUE_DEVICE, addr->used);
}

static void queue_enable(struct vdev *dev, unsigned queue)
{
	select(dev, queue);
	arch_write32(dev->common + REG_QUEUE_READY, 1);
}

static bool queue_enabled(struct vdev *dev, unsigned queue)
{
	select(dev, queue);
	return arch_read32(dev->common + REG_QUEUE_READY);
}

static void notify(struct vdev *dev, unsigned queue)
{
	arch_write32(dev->common + REG_QUEUE_NOTIFY, queue);
}

static uint64_t config(struct vdev *dev)
{
	return dev->common + REG_CONFIG;
}

static const struct vtransport transport = {
	.name = "MMIO",
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

bool vdev_init_mmio(struct vdev *dev, uint64_t base)
{
	if (arch_read32(base + REG_MAGIC) != MAGIC || arch_read32(base + REG_VERSION) != 2)
		return false;
	*dev = (struct vdev){
		.transport = &transport,
		.id = arch_read32(base + REG_DEVICE_ID),
		.common = base,
	};
	dev->translated = endpoints_find_mmio(base, &dev->endpoint);
	return dev->id != 0;
}
