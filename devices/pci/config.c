/*
 * The configuration space of a function (PCI 3.0, chapter 6): an array of bytes
 * with a mask of the bits that the guest may write. Sizing a BAR needs no code:
 * the address bits below its size aren't writable, so that all ones read back as
 * the size mask.
 *
 * BARs follow the guest. After each write that may move one, the wanted address
 * of every BAR of the root is compared with where it is on the bus, in two
 * passes: first everything that must leave leaves, then everything that isn't
 * mapped and should be is tried. So a BAR that the guest put on top of another
 * window isn't decoded, harms nobody, and appears when that window moves away.
 */
#include "devices/pci/internal.h"

#include <assert.h>
#include <inttypes.h>
#include <linux/pci_regs.h>

#define COMMAND_WMASK (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE)

uint32_t pci_config_get(const uint8_t *config, unsigned offset, unsigned size)
{
	uint32_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (uint32_t)config[offset + i] << 8 * i;
	return value;
}

void pci_config_put(uint8_t *config, unsigned offset, unsigned size, uint32_t value)
{
	for (unsigned i = 0; i < size; i++)
		config[offset + i] = (uint8_t)(value >> 8 * i);
}

void pci_dev_init(struct pci_dev *dev, uint16_t vendor, uint16_t device, uint8_t revision,
		  uint32_t class_code, uint16_t subsys_vendor, uint16_t subsys)
{
	memset(dev, 0, sizeof(*dev));
	pci_config_put(dev->config, PCI_VENDOR_ID, 2, vendor);
	pci_config_put(dev->config, PCI_DEVICE_ID, 2, device);
	pci_config_put(dev->config, PCI_CLASS_REVISION, 4, class_code << 8 | revision);
	pci_config_put(dev->config, PCI_SUBSYSTEM_VENDOR_ID, 2, subsys_vendor);
	pci_config_put(dev->config, PCI_SUBSYSTEM_ID, 2, subsys);
	pci_config_put(dev->wmask, PCI_COMMAND, 2, COMMAND_WMASK);
	pci_config_put(dev->wmask, PCI_INTERRUPT_LINE, 1, 0xff);
	dev->next_cap = PCI_STD_HEADER_SIZEOF;
	memcpy(dev->initial, dev->config, sizeof(dev->initial));
}

unsigned pci_bar_register(unsigned index)
{
	return index == PCI_ROM_BAR ? PCI_ROM_ADDRESS : PCI_BASE_ADDRESS_0 + 4 * index;
}

void pci_dev_set_bar(struct pci_dev *dev, unsigned index, uint64_t size, uint32_t flags,
		     const struct bus_ops *ops, void *opaque)
{
	unsigned reg = pci_bar_register(index);
	uint64_t mask = ~(size - 1);
	bool wide = flags & PCI_BAR_MEM64, rom = index == PCI_ROM_BAR;

	assert(index + wide < PCI_NUM_BARS || (rom && !flags && size >= KIB(2)));
	assert(dev->bar[index].size == 0 && !dev->root);
	assert(size >= 16 && (size & (size - 1)) == 0 && (wide || size <= GIB(2)));
	dev->bar[index] =
		(struct pci_bar){ .size = size, .flags = flags, .ops = ops, .opaque = opaque };
	pci_config_put(dev->config, reg, 4, flags);
	pci_config_put(dev->wmask, reg, 4, (uint32_t)mask | (rom ? PCI_ROM_ADDRESS_ENABLE : 0));
	if (wide)
		pci_config_put(dev->wmask, reg + 4, 4, (uint32_t)(mask >> 32));
	memcpy(dev->initial, dev->config, sizeof(dev->initial));
}

unsigned pci_dev_add_cap(struct pci_dev *dev, uint8_t id, const void *body, unsigned len)
{
	unsigned offset = dev->next_cap;

	assert(len >= 2 && offset + len <= PCI_CFG_SPACE_SIZE);
	dev->config[offset] = id;
	dev->config[offset + PCI_CAP_LIST_NEXT] = 0;
	memcpy(&dev->config[offset + 2], body, len - 2);
	if (dev->last_cap) {
		dev->config[dev->last_cap + PCI_CAP_LIST_NEXT] = (uint8_t)offset;
	} else {
		dev->config[PCI_CAPABILITY_LIST] = (uint8_t)offset;
		dev->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	}
	dev->last_cap = offset;
	dev->next_cap = ALIGN_UP(offset + len, 4u);
	memcpy(dev->initial, dev->config, sizeof(dev->initial));
	return offset;
}

/* Where the guest wants the BAR; 0 = nowhere. */
static uint64_t bar_wanted(const struct pci_dev *dev, unsigned index)
{
	unsigned reg = pci_bar_register(index);
	const struct pci_bar *bar = &dev->bar[index];

	if (bar->size == 0 || dev->asleep || dev->gone ||
	    !(dev->config[PCI_COMMAND] & PCI_COMMAND_MEMORY))
		return 0;
	uint64_t base = pci_config_get(dev->config, reg, 4);

	if (index == PCI_ROM_BAR)
		return base & PCI_ROM_ADDRESS_ENABLE ? base & PCI_ROM_ADDRESS_MASK : 0;
	base &= PCI_BASE_ADDRESS_MEM_MASK;
	if (bar->flags & PCI_BAR_MEM64)
		base |= (uint64_t)pci_config_get(dev->config, reg + 4, 4) << 32;
	return base;
}

static void bar_unmap(struct pci_dev *dev, unsigned index)
{
	struct pci_bar *bar = &dev->bar[index];
	uint64_t base = bar->mapped_at;

	if (bar->moved)
		bar->moved(bar->opaque, index, base, false);
	bus_remove(dev->root->config.mmio, base, bar->opaque);
	bar->mapped_at = 0;
}

static void bar_map(struct pci_dev *dev, unsigned index, uint64_t base)
{
	struct pci_bar *bar = &dev->bar[index];
	struct bus_window window = { .base = base,
				     .size = bar->size,
				     .ops = bar->ops,
				     .opaque = bar->opaque,
				     .name = "PCI BAR" };

	if (bus_add(dev->root->config.mmio, &window) < 0) {
		if (bar->refused_at != base)
			log_limited(&dev->root->log,
				    "PCI 00:%02x.%u: BAR %u at 0x%" PRIx64
				    " overlaps something else and isn't decoded",
				    dev->rid >> 3, dev->rid & 7, index, base);
		bar->refused_at = base;
		return;
	}
	bar->refused_at = 0;
	bar->mapped_at = base;
	if (bar->moved)
		bar->moved(bar->opaque, index, base, true);
}

void pci_unmap_bars_locked(struct pci_dev *dev)
{
	for (unsigned i = 0; i < PCI_NUM_WINDOWS; i++) {
		if (dev->bar[i].mapped_at)
			bar_unmap(dev, i);
	}
}

/* One of the two passes: what must leave (@appear false), or what may come. */
static void dev_follow_locked(struct pci_dev *dev, bool appear)
{
	for (unsigned i = 0; i < PCI_NUM_WINDOWS; i++) {
		uint64_t wanted = bar_wanted(dev, i), mapped = dev->bar[i].mapped_at;

		if (!appear && mapped && mapped != wanted)
			bar_unmap(dev, i);
		else if (appear && !mapped && wanted)
			bar_map(dev, i, wanted);
	}
}

void pci_map_bars_locked(struct pci_root *root)
{
	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < ARRAY_SIZE(root->fn); i++) {
			if (root->fn[i])
				dev_follow_locked(root->fn[i], pass == 1);
		}
	}
}

/* The function @rid when the access is one it serves, else NULL. Root lock held. */
static struct pci_dev *config_find(struct pci_root *root, unsigned rid, unsigned offset,
				   unsigned size)
{
	/* PCI carries byte enables of one double word; ECAM needs no more (PCIe 7.2.2). */
	if (size == 0 || (offset & 3) + size > 4 || offset >= PCI_CONFIG_SIZE)
		return NULL;
	if (rid >= ARRAY_SIZE(root->fn))
		return NULL;
	struct pci_dev *dev = root->fn[rid];

	return dev && !dev->gone ? dev : NULL;
}

uint32_t pci_config_read(struct pci_root *root, unsigned rid, unsigned offset, unsigned size)
{
	uint32_t value = UINT32_MAX;

	pci_root_lock(root);
	struct pci_dev *dev = config_find(root, rid, offset, size);

	if (dev && dev->config_reading) {
		/* The function outlives the vCPUs, so the pointer stays good without the lock. */
		pci_root_unlock(root);
		dev->config_reading(dev, offset, size);
		pci_root_lock(root);
	}
	if (dev)
		value = pci_config_get(dev->config, offset, size);
	pci_root_unlock(root);
	return value;
}

/* True when [@offset, @offset + @size) touches [@reg, @reg + @len). */
static bool touches(unsigned offset, unsigned size, unsigned reg, unsigned len)
{
	return offset < reg + len && reg < offset + size;
}

static void config_apply_locked(struct pci_dev *dev, unsigned offset, unsigned size, uint32_t value)
{
	for (unsigned i = offset; i < offset + size; i++, value >>= 8) {
		uint8_t mask = dev->wmask[i];

		dev->config[i] = (uint8_t)((dev->config[i] & ~mask) | (value & mask));
	}
	if (touches(offset, size, PCI_COMMAND, 2) ||
	    touches(offset, size, PCI_BASE_ADDRESS_0, 4 * PCI_NUM_BARS) ||
	    touches(offset, size, PCI_ROM_ADDRESS, 4))
		pci_map_bars_locked(dev->root);
	if (dev->msix.count && touches(offset, size, dev->msix.cap + PCI_MSIX_FLAGS, 2))
		pci_msix_control_locked(dev);
}

void pci_config_write(struct pci_root *root, unsigned rid, unsigned offset, unsigned size,
		      uint32_t value)
{
	pci_root_lock(root);
	struct pci_dev *dev = config_find(root, rid, offset, size);

	if (dev)
		config_apply_locked(dev, offset, size, value);
	pci_root_unlock(root);
	if (dev && dev->config_written)
		dev->config_written(dev, offset, size, value);
}

void pci_dev_reset(struct pci_dev *dev)
{
	if (dev->root)
		pci_root_lock(dev->root);
	memcpy(dev->config, dev->initial, sizeof(dev->config));
	if (dev->root) {
		pci_map_bars_locked(dev->root);
		pci_msix_reset_locked(dev);
		pci_root_unlock(dev->root);
	}
}
