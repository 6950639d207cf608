#ifndef DEVICES_VIRTIO_VIRTIO_MMIO_H
#define DEVICES_VIRTIO_VIRTIO_MMIO_H

/* virtio over MMIO, version 2 (virtio 1.3, section 4.2). */

#include "vmm/core/bus.h"
#include "vmm/core/irq.h"
#include "devices/virtio/virtio.h"

/* The register window; config space starts at 0x100 (4.2.2). */
#define VIRTIO_MMIO_SIZE 0x1000

struct virtio_mmio;

/*
 * Put @dev (borrowed) on @bus at @base with interrupt @irq (borrowed, used as
 * edge). *@ret_vm is owned by the caller. Returns 0 or -errno with words in @err.
 */
int virtio_mmio_create(struct virtio_mmio **ret_vm, struct virtio_dev *dev, struct bus *bus,
		       gpa_t base, struct irq_line *irq, struct err *err);
/* Take it off the bus and free; accepts NULL. vCPUs stopped, device reset. */
void virtio_mmio_destroy(struct virtio_mmio *vm);
/* Registers as after power-on; the device was reset before. */
void virtio_mmio_reset(struct virtio_mmio *vm);

#endif
