#include "tests/guests/virtio/virtio.h"
#include "tests/guests/arch.h"
#include "tests/guests/virtio/pci.h"

#define RESET_MS 10000

unsigned vdev_find(unsigned id, struct vdev *ret_dev, unsigned max)
{
	const struct arch_platform *platform = arch_platform();
	unsigned count = 0;

	for (uint16_t bdf = 0; count < max && pci_next(&bdf); bdf++) {
		if (vdev_init_pci(&ret_dev[count], bdf) && ret_dev[count].id == id)
			count++;
	}
	for (unsigned i = 0; i < platform->num_mmio && count < max; i++) {
		if (vdev_init_mmio(&ret_dev[count], platform->mmio[i]) && ret_dev[count].id == id)
			count++;
	}
	return count;
}

void vdev_add_status(struct vdev *dev, uint8_t bits)
{
	dev->transport->set_status(dev, vdev_status(dev) | bits);
}

bool vdev_reset(struct vdev *dev)
{
	uint64_t deadline = deadline_in(RESET_MS);

	dev->transport->set_status(dev, 0);
	while (vdev_status(dev) != 0) {
		if (deadline_passed(deadline))
			return false;
		arch_relax();
	}
	return true;
}

uint64_t vdev_offered(struct vdev *dev)
{
	return dev->transport->device_features(dev, 0) |
	       (uint64_t)dev->transport->device_features(dev, 1) << 32;
}

void vdev_accept(struct vdev *dev, uint64_t features)
{
	dev->transport->set_features(dev, 0, (uint32_t)features);
	dev->transport->set_features(dev, 1, (uint32_t)(features >> 32));
}

bool vdev_negotiate(struct vdev *dev, uint64_t features)
{
	if (!vdev_reset(dev))
		return false;
	vdev_add_status(dev, STATUS_ACKNOWLEDGE);
	vdev_add_status(dev, STATUS_DRIVER);
	vdev_accept(dev, features);
	vdev_add_status(dev, STATUS_FEATURES_OK);
	return vdev_status(dev) & STATUS_FEATURES_OK;
}

uint8_t vdev_config8(struct vdev *dev, unsigned offset)
{
	return arch_read8(dev->transport->config(dev) + offset);
}

uint16_t vdev_config16(struct vdev *dev, unsigned offset)
{
	return arch_read16(dev->transport->config(dev) + offset);
}

uint32_t vdev_config32(struct vdev *dev, unsigned offset)
{
	return arch_read32(dev->transport->config(dev) + offset);
}

uint64_t vdev_config64(struct vdev *dev, unsigned offset)
{
	return vdev_config32(dev, offset) | (uint64_t)vdev_config32(dev, offset + 4) << 32;
}

void vdev_write_config8(struct vdev *dev, unsigned offset, uint8_t value)
{
	arch_write8(dev->transport->config(dev) + offset, value);
}

void vdev_write_config32(struct vdev *dev, unsigned offset, uint32_t value)
{
	arch_write32(dev->transport->config(dev) + offset, value);
}
