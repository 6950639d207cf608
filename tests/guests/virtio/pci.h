#ifndef TESTS_GUESTS_VIRTIO_PCI_H
#define TESTS_GUESTS_VIRTIO_PCI_H

/*
 * Configuration space of bus 0 by ECAM, and BARs, which nobody places for a
 * guest that boots without firmware. All functions are called with the BDF of a
 * function on bus 0.
 */

#include <stdbool.h>
#include <stdint.h>

#define PCI_SLOTS     32
#define PCI_FUNCTIONS 8
#define PCI_NUM_BARS  6

#define PCI_VENDOR_ID  0x00
#define PCI_DEVICE_ID  0x02
#define PCI_COMMAND    0x04
#define PCI_STATUS     0x06
#define PCI_HEADER     0x0e
#define PCI_BAR0       0x10
#define PCI_CAP_LIST   0x34
#define PCI_CAP_VENDOR 0x09

uint8_t pci_read8(uint16_t bdf, unsigned offset);
uint16_t pci_read16(uint16_t bdf, unsigned offset);
uint32_t pci_read32(uint16_t bdf, unsigned offset);
void pci_write16(uint16_t bdf, unsigned offset, uint16_t value);
void pci_write32(uint16_t bdf, unsigned offset, uint32_t value);

/* The next function of bus 0 at *@bdf or above: sets it; false at the end of the bus. */
bool pci_next(uint16_t *bdf);
/* Place all memory BARs of @bdf, let it decode them and do DMA; unless that was done before. */
void pci_enable(uint16_t bdf);
/* Where a memory BAR is, or 0. */
uint64_t pci_bar(uint16_t bdf, unsigned bar);
/* The first capability with @id after the one at @after (0: from the start); 0 at the end. */
unsigned pci_next_cap(uint16_t bdf, uint8_t id, unsigned after);

#endif
