/*
 * The MMIO transport, version 2 (virtio 1.3, section 4.2).
 *
 * The registers below 0x100 are 32 bits wide and are accessed only so; config
 * space follows, with accesses of any width. Most registers are the core's
 * (virtio.h) seen through the selectors; what belongs to the transport is a
 * handful of independent words, so they are atomics and need no lock. Two vCPUs
 * that race for a selector confuse nobody but their own driver.
 *
 * QueueNotify is one register for all queues: a doorbell per queue matches the
 * value, and the handler serves what no doorbell caught.
 *
 * The interrupt is an edge: an event sets its bit in InterruptStatus, then
 * pulses the line. An event between the driver's read and its acknowledgement
 * pulses again, so none is lost.
 */
#include "devices/virtio/virtio_mmio.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

/* Register offsets (4.2.2). */
enum {
	REG_MAGIC = 0x000,
	REG_VERSION = 0x004,
	REG_DEVICE_ID = 0x008,
	REG_VENDOR_ID = 0x00c,
	REG_DEVICE_FEATURES = 0x010,
	REG_DEVICE_FEATURES_SEL = 0x014,
	REG_DRIVER_FEATURES = 0x020,
	REG_DRIVER_FEATURES_SEL = 0x024,
	REG_QUEUE_SEL = 0x030,
	REG_QUEUE_SIZE_MAX = 0x034,
	REG_QUEUE_SIZE = 0x038,
	REG_QUEUE_READY = 0x044,
	REG_QUEUE_NOTIFY = 0x050,
	REG_INTERRUPT_STATUS = 0x060,
	REG_INTERRUPT_ACK = 0x064,
	REG_STATUS = 0x070,
	REG_QUEUE_DESC_LOW = 0x080,
	REG_QUEUE_DESC_HIGH = 0x084,
	REG_QUEUE_DRIVER_LOW = 0x090,
	REG_QUEUE_DRIVER_HIGH = 0x094,
	REG_QUEUE_DEVICE_LOW = 0x0a0,
	REG_QUEUE_DEVICE_HIGH = 0x0a4,
	REG_SHM_LEN_LOW = 0x0b0,
	REG_SHM_BASE_HIGH = 0x0bc,
	REG_CONFIG_GENERATION = 0x0fc,
	REG_CONFIG = 0x100,
};

#define MAGIC	  0x74726976 /* "virt" */
#define VENDOR_ID 0x54414f4d /* "MOAT" */

#define INTERRUPT_QUEUE	 1
#define INTERRUPT_CONFIG 2

struct virtio_mmio {
	struct virtio_dev *dev; /* borrows */
	struct bus *bus;	/* borrows */
	struct irq_line *irq;	/* borrows */
	gpa_t base;
	_Atomic uint32_t device_features_sel, driver_features_sel, queue_sel;
	_Atomic uint32_t interrupt_status;
	bool bell[VIRTIO_MAX_QUEUES]; /* attached; control path */
};

static void interrupt(struct virtio_mmio *vm, uint32_t bit)
{
	atomic_fetch_or(&vm->interrupt_status, bit);
	irq_line_pulse(vm->irq);
}

static void notify_queue(void *transport, unsigned queue)
{
	interrupt(transport, INTERRUPT_QUEUE);
}

static void notify_config(void *transport)
{
	interrupt(transport, INTERRUPT_CONFIG);
}

static void reset_registers(void *transport)
{
	struct virtio_mmio *vm = transport;

	atomic_store(&vm->device_features_sel, 0);
	atomic_store(&vm->driver_features_sel, 0);
	atomic_store(&vm->queue_sel, 0);
	atomic_store(&vm->interrupt_status, 0);
}

static const struct virtio_transport_ops transport_ops = {
	.notify_queue = notify_queue,
	.notify_config = notify_config,
	.reset = reset_registers,
};

static uint32_t read_register(struct virtio_mmio *vm, uint64_t offset)
{
	struct virtio_dev *dev = vm->dev;

	switch (offset) {
	case REG_MAGIC:
		return MAGIC;
	case REG_VERSION:
		return 2;
	case REG_DEVICE_ID:
		return dev->id;
	case REG_VENDOR_ID:
		return VENDOR_ID;
	case REG_DEVICE_FEATURES:
		return virtio_get_device_features(dev, atomic_load(&vm->device_features_sel));
	case REG_QUEUE_SIZE_MAX:
		return virtio_queue_max_size(dev, atomic_load(&vm->queue_sel));
	case REG_QUEUE_READY:
		return virtio_get_queue(dev, atomic_load(&vm->queue_sel)).enabled;
	case REG_INTERRUPT_STATUS:
		return atomic_load(&vm->interrupt_status);
	case REG_STATUS:
		return virtio_get_status(dev);
	case REG_SHM_LEN_LOW ... REG_SHM_BASE_HIGH:
		/* No shared memory: a length of -1 says so for every SHMSel (4.2.2.1). */
		return UINT32_MAX;
	case REG_CONFIG_GENERATION:
		return atomic_load(&dev->config_generation);
	default:
		return 0;
	}
}

static void write_register(struct virtio_mmio *vm, uint64_t offset, uint32_t value)
{
	struct virtio_dev *dev = vm->dev;
	uint32_t queue = atomic_load(&vm->queue_sel);

	switch (offset) {
	case REG_DEVICE_FEATURES_SEL:
		atomic_store(&vm->device_features_sel, value);
		break;
	case REG_DRIVER_FEATURES:
		virtio_set_driver_features(dev, atomic_load(&vm->driver_features_sel), value);
		break;
	case REG_DRIVER_FEATURES_SEL:
		atomic_store(&vm->driver_features_sel, value);
		break;
	case REG_QUEUE_SEL:
		atomic_store(&vm->queue_sel, value);
		break;
	case REG_QUEUE_SIZE:
		if (value <= UINT16_MAX)
			virtio_set_queue_size(dev, queue, (uint16_t)value);
		break;
	case REG_QUEUE_READY:
		virtio_set_queue_enabled(dev, queue, value & 1);
		break;
	case REG_QUEUE_NOTIFY:
		virtio_kick(dev, value);
		break;
	case REG_INTERRUPT_ACK:
		atomic_fetch_and(&vm->interrupt_status, ~value);
		break;
	case REG_STATUS:
		virtio_set_status(dev, (uint8_t)value);
		/* The driver takes the write for the whole reset and reads nothing back. */
		if ((uint8_t)value == 0)
			virtio_wait_reset(dev);
		break;
	case REG_QUEUE_DESC_LOW:
	case REG_QUEUE_DESC_HIGH:
		virtio_set_queue_addr(dev, queue, 0, offset == REG_QUEUE_DESC_HIGH, value);
		break;
	case REG_QUEUE_DRIVER_LOW:
	case REG_QUEUE_DRIVER_HIGH:
		virtio_set_queue_addr(dev, queue, 1, offset == REG_QUEUE_DRIVER_HIGH, value);
		break;
	case REG_QUEUE_DEVICE_LOW:
	case REG_QUEUE_DEVICE_HIGH:
		virtio_set_queue_addr(dev, queue, 2, offset == REG_QUEUE_DEVICE_HIGH, value);
		break;
	default:
		break;
	}
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
	struct virtio_mmio *vm = opaque;
	le64 value = { 0 };

	if (offset >= REG_CONFIG) {
		virtio_config_read(vm->dev, offset - REG_CONFIG, &value, MIN(size, 8U));
		return le64_get(value);
	}
	return size == 4 && offset % 4 == 0 ? read_register(vm, offset) : 0;
}

static void mmio_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct virtio_mmio *vm = opaque;

	if (offset >= REG_CONFIG) {
		le64 bytes = le64_from(value);

		virtio_config_write(vm->dev, offset - REG_CONFIG, &bytes, MIN(size, 8U));
		return;
	}
	if (size == 4 && offset % 4 == 0)
		write_register(vm, offset, (uint32_t)value);
}

static const struct bus_ops mmio_ops = {
	.read = mmio_read,
	.write = mmio_write,
};

static struct doorbell queue_bell(const struct virtio_mmio *vm, unsigned queue)
{
	return (struct doorbell){
		.addr = vm->base.v + REG_QUEUE_NOTIFY,
		.size = 4,
		.match = true,
		.value = queue,
		.eventfd = virtio_kick_fd(vm->dev, queue),
	};
}

int virtio_mmio_create(struct virtio_mmio **ret_vm, struct virtio_dev *dev, struct bus *bus,
		       gpa_t base, struct irq_line *irq, struct err *err)
{
	struct virtio_mmio *vm = calloc(1, sizeof(*vm));

	if (!vm)
		return err_set(err, ENOMEM, "%s: out of memory", dev->name);
	vm->dev = dev;
	vm->bus = bus;
	vm->base = base;
	vm->irq = irq;

	struct bus_window window = { base.v, VIRTIO_MMIO_SIZE, &mmio_ops, vm, dev->name };
	int result = bus_add(bus, &window);

	if (result < 0) {
		free(vm);
		return err_set(err, -result, "%s: no room for its registers at %#llx: %s",
			       dev->name, (unsigned long long)base.v, strerror(-result));
	}
	virtio_set_transport(dev, &transport_ops, vm);
	for (unsigned i = 0; i < dev->num_queues; i++) {
		struct doorbell bell = queue_bell(vm, i);

		/* Without a doorbell write_register rings: slower, but it works. */
		vm->bell[i] = bus_attach_doorbell(bus, &bell) == 0;
	}
	*ret_vm = vm;
	return 0;
}

void virtio_mmio_destroy(struct virtio_mmio *vm)
{
	if (!vm)
		return;
	for (unsigned i = 0; i < vm->dev->num_queues; i++) {
		struct doorbell bell = queue_bell(vm, i);

		if (vm->bell[i])
			bus_detach_doorbell(vm->bus, &bell);
	}
	bus_remove(vm->bus, vm->base.v, vm);
	virtio_set_transport(vm->dev, NULL, NULL);
	free(vm);
}

void virtio_mmio_reset(struct virtio_mmio *vm)
{
	reset_registers(vm);
}
