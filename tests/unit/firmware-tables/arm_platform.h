#ifndef TESTS_UNIT_FIRMWARE_TABLES_ARM_PLATFORM_H
#define TESTS_UNIT_FIRMWARE_TABLES_ARM_PLATFORM_H

/* An arm machine as data, for the tests of its tables and for samples. */

#include "firmware-tables/platform.h"

/* Slot 1 is the IOMMU's when it is on PCI; slots 2 to 29 are behind it, 30 and 31 aren't. */
#define ARM_IOMMU_BDF	 0x08
#define ARM_FIRST_BDF	 0x10
#define ARM_LAST_BDF	 0xef
#define ARM_IOMMU_BASE	 0x0a000000
#define ARM_ENDPOINT	 0x10001
#define ARM_UNTRANSLATED 0x0a002000

/*
 * Two CPUs, all devices, GIC version @gic, a virtio-iommu on the bus that
 * @iommu_on_mmio says; behind it PCI slots, and with @endpoint_on_mmio the
 * virtio-mmio device ARM_ENDPOINT. Another virtio-mmio device has iommu=off.
 */
static inline struct platform arm_platform(unsigned gic, bool iommu_on_mmio, bool endpoint_on_mmio)
{
	struct platform p = {
		.num_cpus = 2,
		.cpu_ids = { 0, 1 },
		.num_ram = 1,
		.ram = { { 0x40000000, MIB(512) } },
		.ecam = { 0x3f000000, MIB(1) },
		.pci_mem32 = { 0x10000000, MIB(512) },
		.pci_mem64 = { 0x8000000000, GIB(256) },
		.pci_intx_gsi = { 3, 4, 5, 6 },
		.gic = { .version = gic, .distributor = { 0x08000000, KIB(64) } },
		.ppi = { .secure_timer = 13,
			 .physical_timer = 14,
			 .virtual_timer = 11,
			 .hypervisor_timer = 10,
			 .pmu = 7,
			 .has_pmu = true },
		.serial = { 0x09000000, KIB(4) },
		.serial_gsi = 1,
		.rtc = { { 0x09010000, KIB(4) }, 2 },
		.gpio = { { 0x09030000, KIB(4) }, 7 },
		.power_button_line = 3,
		.num_iommus = 1,
		.iommu = { { .on_mmio = iommu_on_mmio,
			     .bdf = iommu_on_mmio ? 0 : ARM_IOMMU_BDF,
			     .base = iommu_on_mmio ? ARM_IOMMU_BASE : 0 } },
	};

	if (gic == 3) {
		p.gic.redistributor = (struct platform_range){ 0x080a0000, KIB(256) };
		p.gic.its = (struct platform_range){ 0x08080000, KIB(128) };
	} else {
		p.gic.cpu_interface = (struct platform_range){ 0x08010000, KIB(8) };
		p.gic.v2m = (struct platform_range){ 0x08020000, KIB(4) };
		p.gic.v2m_first_gsi = 48;
		p.gic.v2m_num_gsis = 64;
	}
	if (iommu_on_mmio)
		p.mmio[p.num_mmio++] =
			(struct platform_mmio_dev){ ARM_IOMMU_BASE,    KIB(4), 16, 0x10000,
						    PLATFORM_NO_IOMMU, true };
	if (endpoint_on_mmio)
		p.mmio[p.num_mmio++] = (struct platform_mmio_dev){ 0x0a001000,	 KIB(4), 17,
								   ARM_ENDPOINT, 0,	 false };
	p.mmio[p.num_mmio++] = (struct platform_mmio_dev){ ARM_UNTRANSLATED,  KIB(4), 18, 0x10002,
							   PLATFORM_NO_IOMMU, false };
	p.pci_range[p.num_pci_ranges++] =
		(struct platform_pci_range){ ARM_FIRST_BDF, ARM_LAST_BDF, 0 };
	return p;
}

#endif
