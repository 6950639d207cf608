#ifndef DEVICES_VIRTIO_VIRTIO_PCI_H
#define DEVICES_VIRTIO_VIRTIO_PCI_H

/*
 * virtio over PCI (virtio 1.3, section 4.1), modern only: one 64-bit-capable
 * memory BAR with the common, ISR, device-specific and notification structures,
 * a second one with the MSI-X table, and all five capability structures
 * (VIRTIO_PCI_CAP_PCI_CFG included).
 */

#include "devices/pci/pci.h"
#include "devices/virtio/virtio.h"

struct virtio_pci;

/*
 * Put @dev (borrowed) on @root at @slot, function 0. *@ret_vp is owned by the
 * caller. Returns 0, -ENOSPC (interrupt vectors), -EBUSY (slot) or -errno, with
 * words in @err.
 */
int virtio_pci_create(struct virtio_pci **ret_vp, struct virtio_dev *dev, struct pci_root *root,
		      unsigned slot, struct err *err);
/* Take it off the bus and free; accepts NULL. vCPUs stopped, device reset. */
void virtio_pci_destroy(struct virtio_pci *vp);
/* Config space, BARs and MSI-X as after power-on (machine reset); the device was reset before. */
void virtio_pci_reset(struct virtio_pci *vp);

#endif
