#ifndef DEVICES_VFIO_PCI_INTERNAL_H
#define DEVICES_VFIO_PCI_INTERNAL_H

/* What the parts of a passed-through function share. */

#include "devices/vfio/vfio_pci.h"

/* Areas of a BAR: what the host can map, less up to two holes for MSI-X. */
#define VFIO_BAR_AREAS (VFIO_MAX_AREAS + 2)
#define VFIO_MAX_MSI   32

/* What the host has to tell, besides interrupts (pci_event.c). */
enum { VFIO_EVENT_ERROR, VFIO_EVENT_REQUEST, VFIO_NUM_EVENTS };

/* A part of a BAR that the guest reaches without an exit. */
struct vfio_area {
	uint64_t offset, size;
	void *host; /* owns the mapping */
	bool shown;
	unsigned slot; /* while shown */
};

struct vfio_bar {
	struct vfio_pci *vfio; /* borrows */
	unsigned index, num_areas;
	struct vfio_area area[VFIO_BAR_AREAS];
};

/* The root's lock protects everything that changes. */
struct vfio_pci {
	struct pci_dev pci;
	const char *name;	 /* borrows */
	unsigned fn;		 /* of its slot */
	struct vfio_host *host;	 /* borrows */
	struct mem_slots *slots; /* borrows */
	struct log_limit log;
	struct loop *loop;	       /* borrows */
	int event_fd[VFIO_NUM_EVENTS]; /* own; -1 or what the host rings for VFIO_EVENT_... */

	/* pci_config.c. Offsets of capabilities, 0 = none. */
	unsigned config_size;
	bool ours[PCI_CONFIG_SIZE]; /* the byte is emulated, in pci.config */
	unsigned pm_cap, exp_cap, af_cap;

	struct vfio_bar bar[PCI_NUM_WINDOWS];

	/* pci_irq.c */
	struct pci_msix_entry *msix_entry; /* owns */
	bool *msix_live;		   /* owns; the host rings this entry's eventfd */
	unsigned msix_room;		   /* entries that the host has switched on */
	bool msix_grows;
	struct irq_line *intx_line; /* borrows */
	int intx_fd, unmask_fd;	    /* own; -1 = there is no wired interrupt */
	bool intx_on;
	unsigned msi_cap, msi_max;
	unsigned msi_on; /* vectors that the host has switched on */
	struct msi_vector *msi[VFIO_MAX_MSI];
};

/*
 * Read the device's configuration space and make the guest's of it. The hooks
 * for the guest's accesses are set. 0 or -errno with words.
 */
int vfio_config_init(struct vfio_pci *v, struct err *err);
/*
 * The device's command register, from the guest's: memory always on (pci_config.c says why). With
 * the root's lock once the guest can write it, so that the last writer's is the one that stays.
 */
void vfio_config_command_locked(struct vfio_pci *v);
/* Have the device awake (D0), as after power-on; it may refuse. Not under the root's lock. */
void vfio_config_wake(struct vfio_pci *v);

/* Declare the BARs and map what can be; after the configuration space. 0 or -errno with words. */
int vfio_bars_init(struct vfio_pci *v, struct err *err);
void vfio_bars_finish(struct vfio_pci *v);

/* Listen to what the host tells. Not on the loop. 0 or -errno with words. */
int vfio_events_init(struct vfio_pci *v, struct err *err);
void vfio_events_finish(struct vfio_pci *v);

/* MSI-X at capability @msix, MSI at @msi (0 = none). 0 or -ENOMEM with words. */
int vfio_irqs_init(struct vfio_pci *v, unsigned msix, unsigned msi, struct err *err);
/* The host rings nothing any more. */
void vfio_irqs_off(struct vfio_pci *v);
/* Bytes of the MSI capability with Message Control @control. */
unsigned vfio_msi_size(uint32_t control);
/*
 * The wired interrupt is on while MSI and MSI-X are off: make it so. Root lock held.
 */
void vfio_intx_sync_locked(struct vfio_pci *v);
/* Follow the MSI capability, which the guest wrote. Root lock held. */
void vfio_msi_sync_locked(struct vfio_pci *v);

#endif
