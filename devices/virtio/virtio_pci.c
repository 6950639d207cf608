/*
 * The PCI transport, modern only (virtio 1.3, section 4.1).
 *
 *	BAR 0, 64 bit, 16 KiB               BAR 2: MSI-X table and PBA
 *	0x0000  common configuration
 *	0x1000  ISR status
 *	0x2000  device configuration
 *	0x3000  notifications: one 4-byte doorbell per queue
 *
 * Vendor capabilities tell the driver where each structure is. A fifth one,
 * VIRTIO_PCI_CAP_PCI_CFG, is a window through which configuration space alone
 * reaches BAR 0; it goes through the same handlers as a mapped access.
 *
 * The transport's own registers are independent words and therefore atomics.
 * Interrupts come from the device's loop while vCPUs write vectors; whoever
 * changes a vector while the device runs gets the old or the new one.
 *
 * Doorbells are KVM's: they are bound to absolute addresses, so they follow
 * BAR 0 as the guest moves it. The function has no interrupt pin: without MSI-X
 * the ISR status register must be polled. Every queue and the configuration have
 * a vector.
 *
 * The bus master bit isn't enforced: it would need a check on each access, and
 * all that a guest could gain is that its own device reaches its own memory
 * (behind an IOMMU, still only what the IOMMU lets through).
 */
#include "devices/virtio/virtio_pci.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#define PCI_VENDOR_VIRTIO 0x1af4
#define PCI_DEVICE_BASE	  0x1040 /* plus the virtio device ID (4.1.2) */

#define PCI_CAP_VENDOR	0x09
#define PCI_CAP_EXPRESS 0x10

#define BAR_REGISTERS 0
#define BAR_MSIX      2

#define BAR_SIZE      0x4000
#define COMMON_OFFSET 0x0000
#define ISR_OFFSET    0x1000
#define DEVICE_OFFSET 0x2000
#define NOTIFY_OFFSET 0x3000
#define AREA_SIZE     0x1000

#define NOTIFY_MULTIPLIER 4

#define NO_VECTOR 0xffff

#define ISR_QUEUE  1
#define ISR_CONFIG 2

/* struct virtio_pci_common_cfg (4.1.4.3); 64-bit fields are two halves. */
enum {
	COMMON_DEVICE_FEATURE_SELECT = 0x00,
	COMMON_DEVICE_FEATURE = 0x04,
	COMMON_DRIVER_FEATURE_SELECT = 0x08,
	COMMON_DRIVER_FEATURE = 0x0c,
	COMMON_CONFIG_VECTOR = 0x10,
	COMMON_NUM_QUEUES = 0x12,
	COMMON_STATUS = 0x14,
	COMMON_CONFIG_GENERATION = 0x15,
	COMMON_QUEUE_SELECT = 0x16,
	COMMON_QUEUE_SIZE = 0x18,
	COMMON_QUEUE_VECTOR = 0x1a,
	COMMON_QUEUE_ENABLE = 0x1c,
	COMMON_QUEUE_NOTIFY_OFF = 0x1e,
	COMMON_QUEUE_DESC = 0x20,
	COMMON_QUEUE_DRIVER = 0x28,
	COMMON_QUEUE_DEVICE = 0x30,
	COMMON_SIZE = 0x38,
};

/* The cfg_type of a vendor capability (4.1.4). */
enum {
	CAP_COMMON_CFG = 1,
	CAP_NOTIFY_CFG = 2,
	CAP_ISR_CFG = 3,
	CAP_DEVICE_CFG = 4,
	CAP_PCI_CFG = 5,
};

/* struct virtio_pci_cap without the two bytes that every capability begins with. */
struct wire_cap {
	uint8_t cap_len, cfg_type, bar, id;
	uint8_t padding[2];
	le32 offset, length;
	le32 extra; /* notify_off_multiplier, or pci_cfg_data */
};
_Static_assert(sizeof(struct wire_cap) == 18, "virtio 1.3, 4.1.4");

#define CAP_SIZE       16 /* without extra */
#define CAP_SIZE_EXTRA 20
/* Offsets from the capability's start. */
#define CAP_BAR	   4
#define CAP_OFFSET 8
#define CAP_LENGTH 12
#define CAP_DATA   16

struct virtio_pci {
	struct pci_dev pci;
	struct virtio_dev *dev; /* borrows */
	struct bus *bus;	/* borrows; where BARs appear */
	struct pci_root *root;	/* borrows */
	unsigned window;	/* offset of the PCI_CFG capability */
	unsigned num_vectors;
	_Atomic uint32_t device_feature_select, driver_feature_select;
	_Atomic uint16_t queue_select;
	_Atomic uint16_t config_vector, queue_vector[VIRTIO_MAX_QUEUES];
	_Atomic uint8_t isr;
	bool bell[VIRTIO_MAX_QUEUES]; /* attached; root lock */
};

/*
 * Interrupts.
 */

static void interrupt(struct virtio_pci *vp, unsigned vector, uint8_t isr)
{
	/* With MSI-X enabled the ISR status isn't used (4.1.5.1.3, 4.1.5.3). */
	if (!pci_msix_enabled(&vp->pci))
		atomic_fetch_or(&vp->isr, isr);
	else if (vector != NO_VECTOR)
		pci_msix_fire(&vp->pci, vector);
}

static void notify_queue(void *transport, unsigned queue)
{
	struct virtio_pci *vp = transport;

	interrupt(vp, atomic_load(&vp->queue_vector[queue]), ISR_QUEUE);
}

static void notify_config(void *transport)
{
	struct virtio_pci *vp = transport;

	interrupt(vp, atomic_load(&vp->config_vector), ISR_CONFIG);
}

static void reset_registers(void *transport)
{
	struct virtio_pci *vp = transport;

	atomic_store(&vp->device_feature_select, 0);
	atomic_store(&vp->driver_feature_select, 0);
	atomic_store(&vp->queue_select, 0);
	atomic_store(&vp->config_vector, NO_VECTOR);
	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
		atomic_store(&vp->queue_vector[i], NO_VECTOR);
	atomic_store(&vp->isr, 0);
}

static const struct virtio_transport_ops transport_ops = {
	.notify_queue = notify_queue,
	.notify_config = notify_config,
	.reset = reset_registers,
};

/*
 * The common configuration structure.
 */

/* The field that byte @offset (below COMMON_SIZE) lies in: its start, and *@ret_size. */
static unsigned common_field(unsigned offset, unsigned *ret_size)
{
	if (offset == COMMON_STATUS || offset == COMMON_CONFIG_GENERATION) {
		*ret_size = 1;
		return offset;
	}
	*ret_size = offset >= COMMON_CONFIG_VECTOR && offset < COMMON_QUEUE_DESC ? 2 : 4;
	return ALIGN_DOWN(offset, *ret_size);
}

static uint32_t queue_addr_half(struct virtio_pci *vp, unsigned field)
{
	struct virtq_config config = virtio_get_queue(vp->dev, atomic_load(&vp->queue_select));
	iova_t addr = field < COMMON_QUEUE_DRIVER   ? config.desc
		      : field < COMMON_QUEUE_DEVICE ? config.driver
						    : config.device;

	return (uint32_t)(field & 4 ? addr.v >> 32 : addr.v);
}

static uint32_t common_read(struct virtio_pci *vp, unsigned field)
{
	struct virtio_dev *dev = vp->dev;
	unsigned queue = atomic_load(&vp->queue_select);
	bool exists = queue < dev->num_queues;

	switch (field) {
	case COMMON_DEVICE_FEATURE_SELECT:
		return atomic_load(&vp->device_feature_select);
	case COMMON_DEVICE_FEATURE:
		return virtio_get_device_features(dev, atomic_load(&vp->device_feature_select));
	case COMMON_DRIVER_FEATURE_SELECT:
		return atomic_load(&vp->driver_feature_select);
	case COMMON_DRIVER_FEATURE:
		return virtio_get_driver_features(dev, atomic_load(&vp->driver_feature_select));
	case COMMON_CONFIG_VECTOR:
		return atomic_load(&vp->config_vector);
	case COMMON_NUM_QUEUES:
		return dev->num_queues;
	case COMMON_STATUS:
		return virtio_get_status(dev);
	case COMMON_CONFIG_GENERATION:
		return atomic_load(&dev->config_generation) & 0xff;
	case COMMON_QUEUE_SELECT:
		return queue;
	case COMMON_QUEUE_SIZE:
		return virtio_get_queue(dev, queue).size;
	case COMMON_QUEUE_VECTOR:
		return exists ? atomic_load(&vp->queue_vector[queue]) : NO_VECTOR;
	case COMMON_QUEUE_ENABLE:
		return virtio_get_queue(dev, queue).enabled;
	case COMMON_QUEUE_NOTIFY_OFF:
		return exists ? queue : 0;
	default:
		return queue_addr_half(vp, field);
	}
}

/* A vector that doesn't exist reads back as NO_VECTOR: the driver then knows (4.1.5.1.2). */
static uint16_t checked_vector(const struct virtio_pci *vp, uint32_t value)
{
	return value < vp->num_vectors ? (uint16_t)value : NO_VECTOR;
}

static void common_write(struct virtio_pci *vp, unsigned field, uint32_t value)
{
	struct virtio_dev *dev = vp->dev;
	unsigned queue = atomic_load(&vp->queue_select);

	switch (field) {
	case COMMON_DEVICE_FEATURE_SELECT:
		atomic_store(&vp->device_feature_select, value);
		break;
	case COMMON_DRIVER_FEATURE_SELECT:
		atomic_store(&vp->driver_feature_select, value);
		break;
	case COMMON_DRIVER_FEATURE:
		virtio_set_driver_features(dev, atomic_load(&vp->driver_feature_select), value);
		break;
	case COMMON_CONFIG_VECTOR:
		atomic_store(&vp->config_vector, checked_vector(vp, value));
		break;
	case COMMON_STATUS:
		virtio_set_status(dev, (uint8_t)value);
		break;
	case COMMON_QUEUE_SELECT:
		atomic_store(&vp->queue_select, (uint16_t)value);
		break;
	case COMMON_QUEUE_SIZE:
		virtio_set_queue_size(dev, queue, (uint16_t)value);
		break;
	case COMMON_QUEUE_VECTOR:
		if (queue < dev->num_queues)
			atomic_store(&vp->queue_vector[queue], checked_vector(vp, value));
		break;
	case COMMON_QUEUE_ENABLE:
		/* Only a reset disables a queue; a driver must not write 0 (4.1.4.3.2). */
		if (value == 1)
			virtio_set_queue_enabled(dev, queue, true);
		break;
	case COMMON_DEVICE_FEATURE:
	case COMMON_NUM_QUEUES:
	case COMMON_CONFIG_GENERATION:
	case COMMON_QUEUE_NOTIFY_OFF:
		break;
	default:
		virtio_set_queue_addr(dev, queue, (field - COMMON_QUEUE_DESC) / 8, field & 4,
				      value);
		break;
	}
}

/*
 * Drivers access each field in its own width (4.1.3.1), 64-bit ones also in
 * halves. Reads of any width and alignment are put together from the fields
 * they touch, none of which has side effects; a write takes effect on the
 * fields that it covers entirely.
 */
static uint64_t common_read_any(struct virtio_pci *vp, unsigned offset, unsigned size)
{
	uint64_t value = 0;

	for (unsigned done = 0, n; done < size && offset + done < COMMON_SIZE; done += n) {
		unsigned width, field = common_field(offset + done, &width);
		unsigned skip = offset + done - field;

		n = width - skip;
		value |= (uint64_t)(common_read(vp, field) >> (8 * skip)) << (8 * done);
	}
	return value;
}

static void common_write_any(struct virtio_pci *vp, unsigned offset, unsigned size, uint64_t value)
{
	for (unsigned done = 0, n; done < size && offset + done < COMMON_SIZE; done += n) {
		unsigned width, field = common_field(offset + done, &width);
		unsigned skip = offset + done - field;

		n = width - skip;
		if (skip == 0 && n <= size - done) {
			uint64_t mask = (1ULL << (8 * width)) - 1;

			common_write(vp, field, (uint32_t)(value >> (8 * done) & mask));
		}
	}
}

/*
 * BAR 0.
 */

static uint64_t bar_read(void *opaque, uint64_t offset, unsigned size)
{
	struct virtio_pci *vp = opaque;
	unsigned in = (unsigned)(offset % AREA_SIZE);
	le64 bytes = { 0 };

	size = MIN(size, 8U);
	switch (offset - in) {
	case COMMON_OFFSET:
		return common_read_any(vp, in, size);
	case ISR_OFFSET:
		/* Reading clears it (4.1.4.5). */
		return in == 0 ? atomic_exchange(&vp->isr, 0) : 0;
	case DEVICE_OFFSET:
		virtio_config_read(vp->dev, in, &bytes, size);
		return le64_get(bytes);
	default:
		return 0;
	}
}

static void bar_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct virtio_pci *vp = opaque;
	unsigned in = (unsigned)(offset % AREA_SIZE);
	le64 bytes = le64_from(value);

	size = MIN(size, 8U);
	switch (offset - in) {
	case COMMON_OFFSET:
		common_write_any(vp, in, size, value);
		break;
	case DEVICE_OFFSET:
		virtio_config_write(vp->dev, in, &bytes, size);
		break;
	case NOTIFY_OFFSET:
		/* The address says which queue, as it does for the doorbell. */
		if (in % NOTIFY_MULTIPLIER == 0)
			virtio_kick(vp->dev, in / NOTIFY_MULTIPLIER);
		break;
	default:
		break;
	}
}

static const struct bus_ops bar_ops = {
	.read = bar_read,
	.write = bar_write,
};

/*
 * BAR 0 came to or left @base; root lock held. A queue whose doorbell the host
 * refuses is rung by bar_write.
 */
static void bar_moved(void *opaque, unsigned bar, uint64_t base, bool mapped)
{
	struct virtio_pci *vp = opaque;

	for (unsigned i = 0; i < vp->dev->num_queues; i++) {
		struct doorbell bell = {
			.addr = base + NOTIFY_OFFSET + NOTIFY_MULTIPLIER * i,
			.size = 0, /* any: KVM's fastest way, and what the driver writes says
				      nothing */
			.eventfd = virtio_kick_fd(vp->dev, i),
		};

		if (mapped) {
			vp->bell[i] = bus_attach_doorbell(vp->bus, &bell) == 0;
		} else if (vp->bell[i]) {
			bus_detach_doorbell(vp->bus, &bell);
			vp->bell[i] = false;
		}
	}
}

/*
 * The window from configuration space into BAR 0 (4.1.4.9).
 */

/* Where the window points: false unless that is a sane access to BAR 0. Root lock held. */
static bool window_target(const struct virtio_pci *vp, uint32_t *ret_offset, uint32_t *ret_length)
{
	const uint8_t *cap = vp->pci.config + vp->window;
	le32 wire_offset, wire_length;

	memcpy(&wire_offset, cap + CAP_OFFSET, sizeof(wire_offset));
	memcpy(&wire_length, cap + CAP_LENGTH, sizeof(wire_length));

	uint32_t offset = le32_get(wire_offset), length = le32_get(wire_length);

	if (cap[CAP_BAR] != BAR_REGISTERS || (length != 1 && length != 2 && length != 4) ||
	    offset % length != 0 || offset > BAR_SIZE - length)
		return false;
	*ret_offset = offset;
	*ret_length = length;
	return true;
}

static bool hits_window_data(const struct virtio_pci *vp, unsigned offset, unsigned size)
{
	unsigned data = vp->window + CAP_DATA;

	return offset < data + 4 && offset + size > data;
}

static void config_reading(struct pci_dev *pci, unsigned offset, unsigned size)
{
	struct virtio_pci *vp = container_of(pci, struct virtio_pci, pci);
	uint32_t at, length;

	if (!hits_window_data(vp, offset, size))
		return;
	pci_root_lock(vp->root);

	bool good = window_target(vp, &at, &length);

	pci_root_unlock(vp->root);
	if (!good)
		return;

	/* Handlers run without the root lock. */
	le32 data = le32_from((uint32_t)bar_read(vp, at, length));

	pci_root_lock(vp->root);
	memcpy(pci->config + vp->window + CAP_DATA, &data, length);
	pci_root_unlock(vp->root);
}

static void config_written(struct pci_dev *pci, unsigned offset, unsigned size, uint32_t value)
{
	struct virtio_pci *vp = container_of(pci, struct virtio_pci, pci);
	uint32_t at, length;
	le32 data = { 0 };

	if (!hits_window_data(vp, offset, size))
		return;
	pci_root_lock(vp->root);

	bool good = window_target(vp, &at, &length);

	if (good)
		memcpy(&data, pci->config + vp->window + CAP_DATA, length);
	pci_root_unlock(vp->root);
	if (good)
		bar_write(vp, at, length, le32_get(data));
}

/*
 * Construction.
 */

static uint32_t class_code(enum virtio_id id)
{
	switch (id) {
	case VIRTIO_ID_NET:
		return 0x020000; /* Ethernet controller */
	case VIRTIO_ID_BLOCK:
		return 0x018000; /* other mass storage */
	case VIRTIO_ID_IOMMU:
		return 0x080600; /* IOMMU */
	default:
		return 0x00ff00; /* nothing that the class codes know */
	}
}

static unsigned add_cap(struct virtio_pci *vp, uint8_t type, uint32_t offset, uint32_t length,
			unsigned cap_size, uint32_t extra)
{
	struct wire_cap cap = {
		.cap_len = (uint8_t)cap_size,
		.cfg_type = type,
		.bar = BAR_REGISTERS,
		.offset = le32_from(offset),
		.length = le32_from(length),
		.extra = le32_from(extra),
	};

	return pci_dev_add_cap(&vp->pci, PCI_CAP_VENDOR, &cap, cap_size);
}

static void add_virtio_caps(struct virtio_pci *vp)
{
	struct virtio_dev *dev = vp->dev;

	add_cap(vp, CAP_COMMON_CFG, COMMON_OFFSET, COMMON_SIZE, CAP_SIZE, 0);
	add_cap(vp, CAP_NOTIFY_CFG, NOTIFY_OFFSET, NOTIFY_MULTIPLIER * dev->num_queues,
		CAP_SIZE_EXTRA, NOTIFY_MULTIPLIER);
	add_cap(vp, CAP_ISR_CFG, ISR_OFFSET, 1, CAP_SIZE, 0);
	if (dev->config_size)
		add_cap(vp, CAP_DEVICE_CFG, DEVICE_OFFSET, dev->config_size, CAP_SIZE, 0);
	vp->window = add_cap(vp, CAP_PCI_CFG, 0, 0, CAP_SIZE_EXTRA, 0);

	uint8_t *wmask = vp->pci.wmask + vp->window;

	wmask[CAP_BAR] = 0xff;
	memset(wmask + CAP_OFFSET, 0xff, CAP_SIZE_EXTRA - CAP_OFFSET);
}

/*
 * A PCI Express capability (PCIe 4.0, 7.5.3): the function sits on the root bus
 * itself, so it is a root complex integrated endpoint and has no link. Extended
 * configuration space is then what Linux expects of it.
 */
static void add_express_cap(struct virtio_pci *vp)
{
	uint8_t body[0x3c - 2] = {
		[0] = 9 << 4 | 2, /* RCiEP, version 2 */
		[3] = 0x80,	  /* device capabilities: role-based error reporting */
	};
	unsigned cap = pci_dev_add_cap(&vp->pci, PCI_CAP_EXPRESS, body, sizeof(body) + 2);

	/* Device control: what has no effect here may still be written. */
	vp->pci.wmask[cap + 8] = 0xff;
	vp->pci.wmask[cap + 9] = 0x78;
}

int virtio_pci_create(struct virtio_pci **ret_vp, struct virtio_dev *dev, struct pci_root *root,
		      unsigned slot, struct err *err)
{
	struct virtio_pci *vp = calloc(1, sizeof(*vp));
	uint16_t id = (uint16_t)(PCI_DEVICE_BASE + dev->id);

	if (!vp)
		return err_set(err, ENOMEM, "%s: out of memory", dev->name);
	vp->dev = dev;
	vp->root = root;
	vp->bus = pci_root_mmio(root);
	vp->num_vectors = dev->num_queues + 1;
	reset_registers(vp);

	pci_dev_init(&vp->pci, PCI_VENDOR_VIRTIO, id, 1, class_code(dev->id), PCI_VENDOR_VIRTIO,
		     id);
	pci_dev_set_bar(&vp->pci, BAR_REGISTERS, BAR_SIZE, PCI_BAR_MEM64, &bar_ops, vp);
	vp->pci.bar[BAR_REGISTERS].moved = bar_moved;
	add_express_cap(vp);
	add_virtio_caps(vp);
	pci_dev_set_msix(&vp->pci, BAR_MSIX, vp->num_vectors);
	vp->pci.config_reading = config_reading;
	vp->pci.config_written = config_written;

	int result = pci_root_add(root, &vp->pci, slot, err);

	if (result < 0) {
		err_prefix(err, "%s", dev->name);
		free(vp);
		return result;
	}
	virtio_set_transport(dev, &transport_ops, vp);
	*ret_vp = vp;
	return 0;
}

void virtio_pci_destroy(struct virtio_pci *vp)
{
	if (!vp)
		return;
	virtio_set_transport(vp->dev, NULL, NULL);
	pci_root_remove(vp->root, &vp->pci);
	free(vp);
}

void virtio_pci_reset(struct virtio_pci *vp)
{
	pci_dev_reset(&vp->pci);
	reset_registers(vp);
}
