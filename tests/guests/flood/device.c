/* What needs no DMA: kicks, resets, writes to configuration spaces. */
#include "tests/guests/arch.h"
#include "tests/guests/flood/flood.h"
#include "tests/guests/virtio/pci.h"

#define KICKS 16u

/* Some are so much slower than all else that one counts as so many rounds. */
#define ROUNDS_PER_RESET  2u
#define ROUNDS_PER_CONFIG 10u
#define ROUNDS_PER_SWEEP  100u

/* Of virtio's configuration spaces; more than any of ours has. */
#define CONFIG_SIZE 64u

/* Of PCI's what the guest may change: the rest of it isn't there. */
#define PCI_CONFIG_SIZE 256u

#define BREAK_MS 10000

static bool each_device(bool (*fn)(struct vdev *dev))
{
	bool good = fn(&iommu.dev);

	for (unsigned i = 0; i < num_disks; i++)
		good = fn(&disks[i].dev) && good;
	return good;
}

/* Queues that there are, and one that there isn't. */
static bool kick_all(struct vdev *dev)
{
	unsigned queues = 0;

	while (queues < VDEV_MAX_QUEUES - 1 && dev->transport->queue_max(dev, queues))
		queues++;
	for (unsigned i = 0; i < KICKS; i++) {
		for (unsigned queue = 0; queue <= queues; queue++)
			dev->transport->notify(dev, queue);
	}
	return !(vdev_status(dev) & STATUS_NEEDS_RESET);
}

static bool kicks(unsigned rounds)
{
	bool good = true;

	while (rounds--)
		good = each_device(kick_all) && good;
	return good;
}

/* A head that doesn't exist: the device gives up, and moat says so. */
static bool break_ring(struct vring *ring)
{
	uint64_t deadline = deadline_in(BREAK_MS);

	vring_offer(ring, ring->size);
	vring_publish(ring);
	ring->dev->transport->notify(ring->dev, ring->index);
	while (!(vdev_status(ring->dev) & STATUS_NEEDS_RESET)) {
		if (deadline_passed(deadline))
			return false;
	}
	return true;
}

static bool break_rings(void)
{
	bool good = break_ring(&iommu.requests);

	for (unsigned i = 0; i < num_disks; i++)
		good = break_ring(&disks[i].ring) && good;
	return good;
}

/* Devices that are idle, that have something to do, and that have given up, in turn. */
static bool resets(unsigned rounds)
{
	for (unsigned n = 0; n <= rounds / ROUNDS_PER_RESET; n++) {
		if (n % 3 == 1) {
			const struct seg seg = { .addr = DATA, .len = PAGE };

			for (unsigned i = 0; i < num_disks; i++)
				disk_submit(&disks[i], DISK_LOAD, 0, &seg, 1);
		} else if (n % 3 == 2 && !break_rings()) {
			return false;
		}
		if (!up())
			return false;
	}
	return true;
}

static bool write_config(struct vdev *dev)
{
	for (unsigned at = 0; at < CONFIG_SIZE; at += 4) {
		vdev_write_config32(dev, at, ~0u);
		vdev_write_config8(dev, at + 1, 0);
	}
	return true;
}

static bool virtio_config(unsigned rounds)
{
	for (unsigned n = 0; n <= rounds / ROUNDS_PER_CONFIG; n++) {
		each_device(write_config);
		/* The one byte that counts; 2 and 3 do nothing. */
		for (unsigned i = 0; i < CONFIG_SIZE; i++)
			iommu_set_bypass(i % 4);
		iommu_set_bypass(0);
	}
	return true;
}

/* Each register all ones, zero, and as it was: BARs and MSI-X come and go. */
static void sweep(uint16_t bdf)
{
	for (unsigned at = 0; at < PCI_CONFIG_SIZE; at += 4) {
		uint32_t old = pci_read32(bdf, at);

		pci_write32(bdf, at, ~0u);
		pci_write32(bdf, at, 0);
		pci_write32(bdf, at, old);
	}
}

/* Put the first BAR of @bdf where @other's is, which moat refuses to, and back again. */
static void overlap(uint16_t bdf, uint16_t other)
{
	uint32_t old = pci_read32(bdf, PCI_BAR0);

	pci_write32(bdf, PCI_BAR0, pci_read32(other, PCI_BAR0));
	pci_write32(bdf, PCI_BAR0, old);
}

static bool pci_config(unsigned rounds)
{
	for (unsigned n = 0; n <= rounds / ROUNDS_PER_SWEEP; n++) {
		uint16_t last = 0;

		for (uint16_t bdf = 0; pci_next(&bdf); last = bdf++) {
			sweep(bdf);
			if (last)
				overlap(bdf, last);
		}
	}
	return true;
}

const struct flood device_floods[] = {
	{ "kicks", "kicks without work", kicks },
	{ "resets", "resets of devices", resets },
	{ "config", "writes to virtio's configuration", virtio_config },
	{ "config", "writes to PCI's configuration", pci_config },
	{ NULL, NULL, NULL },
};
