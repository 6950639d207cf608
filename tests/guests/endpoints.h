#ifndef TESTS_GUESTS_ENDPOINTS_H
#define TESTS_GUESTS_ENDPOINTS_H

/*
 * Which endpoint a device is: what the tables of either architecture say, VIOT
 * (ACPI 6.5, 5.2.35) or iommu-map and iommus (the device tree's PCI and IOMMU
 * bindings), kept for the drivers to ask.
 */

#include <stdbool.h>
#include <stdint.h>

/* The PCI functions @first to @last, as bus, device and function, are endpoints from @id on. */
void endpoints_add_pci(uint32_t first, uint32_t last, uint32_t id);
/* The virtio-mmio device with registers at @base is endpoint @id. */
void endpoints_add_mmio(uint64_t base, uint32_t id);

/* False when the device is not behind an IOMMU. */
bool endpoints_find_pci(uint16_t bdf, uint32_t *ret_id);
bool endpoints_find_mmio(uint64_t base, uint32_t *ret_id);

#endif
