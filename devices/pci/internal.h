#ifndef DEVICES_PCI_INTERNAL_H
#define DEVICES_PCI_INTERNAL_H

/* What the files of devices/pci share: the root, configuration accesses, MSI-X. */

#include <pthread.h>
#include "devices/pci/pci.h"
#include "vmm/base/log.h"

struct pci_root {
	struct pci_root_config config;
	/*
	 * Protects everything below, and config[], BARs and MSI-X tables of every
	 * function. Taken before the bus's lock and before whatever the MSI sink
	 * and the `moved` hooks take.
	 */
	pthread_mutex_t lock;
	/* By slot << 3 | function; borrows, but for slot 0. */
	struct pci_dev *fn[PCI_NUM_SLOTS * PCI_NUM_FNS];
	uint32_t config_address; /* the register at port 0xcf8 */
	struct log_limit log;
	struct pci_dev host_bridge; /* slot 0 */
};

/*
 * The guest reads or writes @size bytes at @offset of the configuration space of
 * the function @rid (bus 0). What isn't there, and an access that crosses a
 * double word, reads as all ones and ignores writes. Takes the root's lock.
 */
uint32_t pci_config_read(struct pci_root *root, unsigned rid, unsigned offset, unsigned size);
void pci_config_write(struct pci_root *root, unsigned rid, unsigned offset, unsigned size,
		      uint32_t value);

/*
 * Make the bus agree with the BARs and the memory-decode bits of all functions.
 * Root lock held.
 */
void pci_map_bars_locked(struct pci_root *root);

/* The register of BAR @index, or of the ROM. */
unsigned pci_bar_register(unsigned index);

/* Take the BARs of @dev off the bus. Root lock held. */
void pci_unmap_bars_locked(struct pci_dev *dev);

/* Reserve the vectors of @dev; 0 or -errno of the sink, with nothing kept. */
int pci_msix_alloc(struct pci_dev *dev);

/* Free the vectors; nothing fires any more. */
void pci_msix_free(struct pci_dev *dev);

/* Follow the capability's Message Control, which the guest wrote. Root lock held. */
void pci_msix_control_locked(struct pci_dev *dev);

/* Table and pending bits as after power-on; config[] already is. Root lock held. */
void pci_msix_reset_locked(struct pci_dev *dev);

#endif
