#ifndef DEVICES_VFIO_VFIO_PCI_H
#define DEVICES_VFIO_VFIO_PCI_H

/*
 * A PCI function of the host on the guest's root bus: registers mapped straight
 * into the guest, a filtered configuration space, interrupts by irqfd. Where its
 * DMA goes isn't known here; that is its space's.
 */

#include "devices/pci/pci.h"
#include "devices/vfio/host.h"
#include "vmm/core/irq.h"
#include "vmm/core/loop.h"
#include "vmm/core/memslot.h"

struct vfio_pci;

/* The pin, 1 for INTA to 4, that the wired interrupt of function @fn of a slot has. */
#define VFIO_PCI_PIN(fn) ((fn) % 4 + 1)

/*
 * Put @host (borrowed, as are @name, @slots and @intx) at function @fn of slot @slot of @root;
 * function 0 comes first. Its wired interrupt, if it has one, goes to @intx. On @loop (borrowed)
 * the host is listened to, which may want the device back: for the guest it is pulled out then.
 * Control path. *@ret_vfio is owned by the caller. 0 or -errno with words in @err.
 */
int vfio_pci_create(struct vfio_pci **ret_vfio, const char *name, struct vfio_host *host,
		    struct pci_root *root, unsigned slot, unsigned fn, struct mem_slots *slots,
		    struct irq_line *intx, struct loop *loop, struct err *err);
/* vCPUs stopped. Accepts NULL. */
void vfio_pci_destroy(struct vfio_pci *vfio);

/*
 * A reset of the machine, vCPUs stopped. First every function is made quiet: no DMA, no
 * interrupts, its registers out of the guest's reach. Then each is reset; that may take the
 * bus of several. Then each is as after power-on: awake, its wired interrupt connected.
 * Functions that the host took back stay away.
 */
void vfio_pci_quiet(struct vfio_pci *vfio);
void vfio_pci_reset(struct vfio_pci *vfio);
void vfio_pci_restart(struct vfio_pci *vfio);

#endif
