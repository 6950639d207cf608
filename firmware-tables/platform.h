#ifndef FIRMWARE_TABLES_PLATFORM_H
#define FIRMWARE_TABLES_PLATFORM_H

/*
 * What the machine contains, as plain data: the one input of every table
 * builder (acpi/, fdt.c). machine.c and arch fill it; nothing here knows KVM or
 * a device's code.
 */

#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>
#include "vmm/base/types.h"

#define PLATFORM_MAX_CPUS   255
#define PLATFORM_MAX_MMIO   32
#define PLATFORM_MAX_IOMMUS 4
#define PLATFORM_MAX_RAM    4
#define PLATFORM_NO_IOMMU   UINT32_MAX

/* A window of addresses; size 0 = absent. */
struct platform_range {
	uint64_t base, size;
};

/* A virtio-mmio device. */
struct platform_mmio_dev {
	uint64_t base, size;
	uint32_t gsi;	   /* interrupt number, edge-triggered, active high */
	uint32_t endpoint; /* its endpoint ID */
	uint32_t iommu;	   /* index into iommu[], or PLATFORM_NO_IOMMU */
	bool is_iommu;	   /* it is iommu[]'s device itself: never a VIOT endpoint */
};

/* A virtio-iommu: on PCI (bdf) or on MMIO (base). */
struct platform_iommu {
	bool on_mmio;
	uint16_t bdf;
	uint64_t base;
};

/* A run of PCI requester IDs behind an IOMMU; endpoint IDs equal the BDFs. */
struct platform_pci_range {
	uint16_t bdf_start, bdf_end; /* inclusive */
	uint32_t iommu;		     /* index into iommu[] */
};

struct platform {
	unsigned num_cpus;
	uint32_t cpu_ids[PLATFORM_MAX_CPUS]; /* x86: APIC IDs */

	unsigned num_ram;
	struct platform_range ram[PLATFORM_MAX_RAM];

	/* PCI Express root bus, segment 0, bus 0 only. */
	struct platform_range ecam;
	struct platform_range pci_mem32, pci_mem64;

	/* Interrupt controllers (x86). */
	uint64_t lapic_base, ioapic_base;
	uint8_t ioapic_id;

	/* COM1. */
	struct platform_range serial; /* x86: ports */
	uint32_t serial_gsi;

	/* Fixed hardware of hardware-reduced ACPI: byte registers in port I/O. */
	uint64_t reset_port;
	uint8_t reset_value;
	uint64_t sleep_control_port, sleep_status_port;
	uint32_t power_button_gsi; /* the generic event device's interrupt, edge */

	unsigned num_mmio;
	struct platform_mmio_dev mmio[PLATFORM_MAX_MMIO];
	unsigned num_iommus;
	struct platform_iommu iommu[PLATFORM_MAX_IOMMUS];
	unsigned num_pci_ranges;
	struct platform_pci_range pci_range[PLATFORM_MAX_MMIO];
};

#endif
