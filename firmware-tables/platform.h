#ifndef FIRMWARE_TABLES_PLATFORM_H
#define FIRMWARE_TABLES_PLATFORM_H

/*
 * What the machine contains, as plain data: the one input of every table
 * builder (acpi/, fdt.c). machine.c and arch fill it; nothing here knows KVM or
 * a device's code.
 *
 * A "gsi" is the number that the machine gives a wire: an IOAPIC's pin on x86,
 * the number of a shared peripheral interrupt (INTID - 32) on arm. A "ppi" is an
 * arm core's private one (INTID - 16).
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
#define PLATFORM_NUM_INTX   4
#define PLATFORM_RNG_SEED   64

/* A window of addresses; size 0 = absent. */
struct platform_range {
	uint64_t base, size;
};

/* A virtio-mmio device. */
struct platform_mmio_dev {
	uint64_t base, size;
	uint32_t gsi;	   /* edge-triggered, active high */
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

/* The interrupt controller of an arm machine. */
struct platform_gic {
	unsigned version;		     /* 2 or 3; 0: there is none */
	struct platform_range distributor;   /* both */
	struct platform_range redistributor; /* 3: of all CPUs, one after the other */
	struct platform_range its;	     /* 3: MSIs; size 0: none */
	struct platform_range cpu_interface; /* 2 */
	struct platform_range v2m;	     /* 2: MSIs, one page; size 0: none */
	uint32_t v2m_first_gsi, v2m_num_gsis;
};

/* Each core's own interrupts on arm, level-triggered, active high. */
struct platform_arm_ppis {
	uint8_t secure_timer, physical_timer, virtual_timer, hypervisor_timer;
	uint8_t pmu;
	bool has_pmu;
};

/* One of Arm's PrimeCells; its interrupt is level-triggered, active high. */
struct platform_primecell {
	struct platform_range window; /* size 0: absent */
	uint32_t gsi;
};

struct platform {
	unsigned num_cpus;
	/* x86: APIC IDs; arm: the affinity fields of MPIDR_EL1, Aff2 to Aff0 */
	uint32_t cpu_ids[PLATFORM_MAX_CPUS];

	unsigned num_ram;
	struct platform_range ram[PLATFORM_MAX_RAM];

	/* PCI Express root bus, segment 0, bus 0 only. */
	struct platform_range ecam;
	struct platform_range pci_mem32, pci_mem64;
	/* INTA to INTD of device 0, level-triggered; device n is turned on by n. 0: none. */
	uint32_t pci_intx_gsi[PLATFORM_NUM_INTX];

	/* Interrupt controllers (x86). */
	uint64_t lapic_base, ioapic_base;
	uint8_t ioapic_id;

	/* Interrupt controller, timers and performance counters (arm). */
	struct platform_gic gic;
	struct platform_arm_ppis ppi;

	/* The console: x86: COM1, a 16550A in port I/O; arm: a PL011. */
	struct platform_range serial;
	uint32_t serial_gsi;

	/* arm: a PL031 real-time clock, and a PL061 with the power button on one line. */
	struct platform_primecell rtc, gpio;
	uint8_t power_button_line; /* 0 to 7, high while pressed */

	/* x86: fixed hardware of hardware-reduced ACPI, byte registers in port I/O. */
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

/* What one boot of the machine is given, for the tables that say so (/chosen). */
struct platform_boot {
	const char *cmdline;	      /* borrows; NULL: none */
	struct platform_range initrd; /* size 0: none */
	bool has_seeds;		      /* the next two are random bytes, different each time */
	uint64_t kaslr_seed;
	uint8_t rng_seed[PLATFORM_RNG_SEED];
};

#endif
