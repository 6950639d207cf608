/*
 * The root bus: how the guest's accesses find a function, by ECAM (PCIe 7.2.2)
 * and by ports 0xcf8 and 0xcfc (PCI 3.0, section 3.2.2.3), and where the BARs are
 * when the guest starts.
 *
 *	ECAM offset      27..20 bus   19..15 slot   14..12 function   11..0 register
 *	port 0xcf8       31 enable    23..16 bus    15..11 slot   10..8 fn   7..2 reg
 */
#include "devices/pci/internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/pci_regs.h>
#include <stdlib.h>

#define ECAM_SIZE	 MIB(1)
#define PORT_ADDRESS	 0xcf8
#define PORT_DATA	 0xcfc
#define ADDRESS_ENABLE	 (UINT32_C(1) << 31)
#define ADDRESS_WRITABLE (ADDRESS_ENABLE | 0xfffffc)

/* The generic PCI Express host of QEMU's vendor ID; no driver binds to it. */
#define BRIDGE_VENDOR	 0x1b36
#define BRIDGE_DEVICE	 0x0008
#define BRIDGE_CLASS	 0x060000 /* host bridge */
#define BRIDGE_SUBVENDOR 0x1af4
#define BRIDGE_SUBDEVICE 0x1100

#define HEADER_MULTI 0x80 /* in the header type: there are more functions in the slot */

/* BARs don't share pages, so that each can be mapped or trapped by itself. */
#define BAR_MIN_SPACING KIB(4)

static uint64_t ecam_read(void *opaque, uint64_t offset, unsigned size)
{
	return size > 4 ? UINT64_MAX
			: pci_config_read(opaque, (unsigned)(offset >> 12), offset & 0xfff, size);
}

static void ecam_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	if (size <= 4)
		pci_config_write(opaque, (unsigned)(offset >> 12), offset & 0xfff, size,
				 (uint32_t)value);
}

static const struct bus_ops ecam_ops = { .read = ecam_read, .write = ecam_write };

/* Port 0xcf8 is a register only for double words; narrower accesses are somebody else's. */
static uint64_t address_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pci_root *root = opaque;

	if (offset != 0 || size != 4)
		return UINT64_MAX;
	pci_root_lock(root);
	uint32_t value = root->config_address;

	pci_root_unlock(root);
	return value;
}

static void address_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct pci_root *root = opaque;

	if (offset != 0 || size != 4)
		return;
	pci_root_lock(root);
	root->config_address = (uint32_t)value & ADDRESS_WRITABLE;
	pci_root_unlock(root);
}

static const struct bus_ops address_ops = { .read = address_read, .write = address_write };

/* What the address register selects; false when it's disabled. */
static bool address_decode(struct pci_root *root, unsigned *ret_rid, unsigned *ret_register)
{
	uint32_t address = (uint32_t)address_read(root, 0, 4);

	*ret_rid = address >> 8 & 0xffff;
	*ret_register = address & 0xfc;
	return address & ADDRESS_ENABLE;
}

static uint64_t data_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pci_root *root = opaque;
	unsigned rid, reg;

	if (!address_decode(root, &rid, &reg))
		return UINT64_MAX;
	return pci_config_read(root, rid, reg + (unsigned)offset, size);
}

static void data_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct pci_root *root = opaque;
	unsigned rid, reg;

	if (address_decode(root, &rid, &reg))
		pci_config_write(root, rid, reg + (unsigned)offset, size, (uint32_t)value);
}

static const struct bus_ops data_ops = { .read = data_read, .write = data_write };

static int root_add_windows(struct pci_root *root, struct err *err)
{
	const struct pci_root_config *c = &root->config;
	int rc = bus_add(c->mmio, &(struct bus_window){ .base = c->ecam_base,
							.size = ECAM_SIZE,
							.ops = &ecam_ops,
							.opaque = root,
							.name = "PCI ECAM" });

	if (rc == 0 && c->pio)
		rc = bus_add(c->pio, &(struct bus_window){ .base = PORT_ADDRESS,
							   .size = 4,
							   .ops = &address_ops,
							   .opaque = root,
							   .name = "PCI address" });
	if (rc == 0 && c->pio)
		rc = bus_add(c->pio, &(struct bus_window){ .base = PORT_DATA,
							   .size = 4,
							   .ops = &data_ops,
							   .opaque = root,
							   .name = "PCI data" });
	if (rc < 0)
		err_set(err, -rc, "PCI root bus: its windows: %s", strerror(-rc));
	return rc;
}

int pci_root_create(struct pci_root **ret_root, const struct pci_root_config *config,
		    struct err *err)
{
	struct pci_root *root = calloc(1, sizeof(*root));

	if (!root)
		return err_set(err, ENOMEM, "PCI root bus: out of host memory");
	root->config = *config;
	pthread_mutex_init(&root->lock, NULL);
	pci_dev_init(&root->host_bridge, BRIDGE_VENDOR, BRIDGE_DEVICE, 0, BRIDGE_CLASS,
		     BRIDGE_SUBVENDOR, BRIDGE_SUBDEVICE);
	int rc = pci_root_add(root, &root->host_bridge, 0, err);

	if (rc == 0)
		rc = root_add_windows(root, err);
	if (rc < 0) {
		pci_root_destroy(root);
		return rc;
	}
	*ret_root = root;
	return 0;
}

void pci_root_destroy(struct pci_root *root)
{
	if (!root)
		return;
	pci_root_remove(root, &root->host_bridge);
	for (unsigned i = 0; i < ARRAY_SIZE(root->fn); i++)
		assert(!root->fn[i]);
	/* A window that was never added isn't found; that's as good. */
	bus_remove(root->config.mmio, root->config.ecam_base, root);
	if (root->config.pio) {
		bus_remove(root->config.pio, PORT_ADDRESS, root);
		bus_remove(root->config.pio, PORT_DATA, root);
	}
	pthread_mutex_destroy(&root->lock);
	free(root);
}

void pci_root_lock(struct pci_root *root)
{
	pthread_mutex_lock(&root->lock);
}

void pci_root_unlock(struct pci_root *root)
{
	pthread_mutex_unlock(&root->lock);
}

struct msi_sink *pci_root_msi(struct pci_root *root)
{
	return root->config.msi;
}

void pci_root_remap_locked(struct pci_root *root)
{
	pci_map_bars_locked(root);
}

struct bus *pci_root_mmio(struct pci_root *root)
{
	return root->config.mmio;
}

int pci_root_add_function(struct pci_root *root, struct pci_dev *dev, unsigned slot, unsigned fn,
			  struct err *err)
{
	unsigned rid = slot << 3 | fn, first = slot << 3;

	if (slot >= PCI_NUM_SLOTS || fn >= PCI_NUM_FNS)
		return err_set(err, EBUSY, "PCI slot %u.%u: the bus has slots 1 to %u", slot, fn,
			       PCI_NUM_SLOTS - 1);
	pci_root_lock(root);
	assert(!fn || root->fn[first]);
	int rc = root->fn[rid] ? -EBUSY : 0;

	if (rc < 0) {
		err_set(err, EBUSY, "PCI slot %u.%u is taken", slot, fn);
	} else {
		dev->root = root;
		dev->rid = (uint16_t)rid;
		rc = pci_msix_alloc(dev);
		if (rc < 0) {
			dev->root = NULL;
			err_set(err, -rc, "PCI slot %u.%u: can't get %u interrupt vectors: %s",
				slot, fn, dev->msix.count, strerror(-rc));
		}
	}
	if (rc == 0) {
		memcpy(dev->initial, dev->config, sizeof(dev->initial));
		root->fn[rid] = dev;
		if (fn) {
			root->fn[first]->config[PCI_HEADER_TYPE] |= HEADER_MULTI;
			root->fn[first]->initial[PCI_HEADER_TYPE] |= HEADER_MULTI;
		}
	}
	pci_root_unlock(root);
	return rc;
}

int pci_root_add(struct pci_root *root, struct pci_dev *dev, unsigned slot, struct err *err)
{
	return pci_root_add_function(root, dev, slot, 0, err);
}

void pci_root_remove(struct pci_root *root, struct pci_dev *dev)
{
	if (!root || dev->root != root)
		return;
	pci_root_lock(root);
	pci_unmap_bars_locked(dev);
	pci_msix_free(dev);
	root->fn[dev->rid] = NULL;
	/* Something that this function's BARs kept off the bus may now have its place. */
	pci_map_bars_locked(root);
	pci_root_unlock(root);
	dev->root = NULL;
}

/* A window from which BARs are cut, in ascending order. */
struct bar_space {
	uint64_t next, end;
};

/* Cut @size bytes, aligned to their size; 0 = no room. */
static uint64_t space_take(struct bar_space *space, uint64_t size)
{
	uint64_t base, end;

	size = MAX(size, BAR_MIN_SPACING);
	if (__builtin_add_overflow(space->next, size - 1, &base))
		return 0;
	base &= ~(size - 1);
	if (__builtin_add_overflow(base, size, &end) || end > space->end)
		return 0;
	space->next = end;
	return base;
}

static int assign_bar(struct pci_dev *dev, unsigned index, struct bar_space *mem32,
		      struct bar_space *mem64, struct err *err)
{
	const struct pci_bar *bar = &dev->bar[index];
	unsigned reg = pci_bar_register(index);
	bool wide = bar->flags & PCI_BAR_MEM64;
	uint64_t base = wide ? space_take(mem64, bar->size) : 0;

	if (!base)
		base = space_take(mem32, bar->size);
	if (!base)
		return err_set(err, ENOSPC,
			       "PCI 00:%02x.%u: no room for BAR %u of %" PRIu64 " KiB in the %s",
			       dev->rid >> 3, dev->rid & 7, index,
			       ALIGN_UP(bar->size, KIB(1)) >> 10,
			       wide ? "memory windows" : "32-bit memory window");
	pci_config_put(dev->config, reg, 4, (uint32_t)base | bar->flags);
	if (wide)
		pci_config_put(dev->config, reg + 4, 4, (uint32_t)(base >> 32));
	return 0;
}

/* The BARs of @dev that have @size bytes. */
static int assign_bars(struct pci_dev *dev, uint64_t size, struct bar_space *mem32,
		       struct bar_space *mem64, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < PCI_NUM_WINDOWS && rc == 0; i++) {
		if (dev->bar[i].size == size)
			rc = assign_bar(dev, i, mem32, mem64, err);
	}
	return rc;
}

int pci_root_assign(struct pci_root *root, struct err *err)
{
	const struct pci_root_config *c = &root->config;
	struct bar_space mem32 = { c->mem32_base, c->mem32_base + c->mem32_size };
	struct bar_space mem64 = { c->mem64_base, c->mem64_base + c->mem64_size };
	int rc = 0;

	pci_root_lock(root);
	/* From the largest to the smallest, so that alignment wastes nothing in between. */
	for (uint64_t size = UINT64_C(1) << 63; size && rc == 0; size >>= 1) {
		for (unsigned i = 0; i < ARRAY_SIZE(root->fn) && rc == 0; i++) {
			if (root->fn[i])
				rc = assign_bars(root->fn[i], size, &mem32, &mem64, err);
		}
	}
	for (unsigned i = 0; i < ARRAY_SIZE(root->fn); i++) {
		struct pci_dev *dev = root->fn[i];

		if (dev)
			memcpy(dev->initial, dev->config, sizeof(dev->initial));
	}
	pci_root_unlock(root);
	return rc;
}
