#include "firmware-tables/fdt.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "firmware-tables/fdt_writer.h"

/*
 * The tree, in the order of the functions below:
 *
 *	/chosen			what to boot with
 *	/memory@, /cpus, /psci, /timer, /pmu
 *	/interrupt-controller@	the GIC; inside, who takes MSIs: the ITS or the v2m frame
 *	/clock-24000000		of the PrimeCells, for drivers that insist on one
 *	/serial@, /rtc@, /gpio@, /gpio-keys
 *	/virtio@		virtio-mmio devices; or /iommu@, if it is one
 *	/pcie@			the host bridge; inside, iommu@ if one is on PCI
 *
 * Who is behind which IOMMU: an MMIO device says so itself (iommus), for PCI
 * devices the host bridge has a map from requester IDs. As in VIOT, the ranges
 * leave out the IOMMU and what has iommu=off.
 *
 * Everything that does DMA is dma-coherent: guest and devices share the host's
 * caches.
 */

/* Nodes that others point to. */
enum phandle {
	PHANDLE_GIC = 1,
	PHANDLE_MSI,
	PHANDLE_CLOCK,
	PHANDLE_GPIO,
	PHANDLE_IOMMU, /* of iommu[0]; the others follow */
};

/* The first cell of an interrupt of the GIC, and the kinds in its third. */
#define GIC_SPI		0
#define GIC_PPI		1
#define IRQ_EDGE_RISING 1
#define IRQ_LEVEL_HIGH	4
/* GICv2: the CPUs that see a PPI are bits from here in the third cell. */
#define GIC_V2_PPI_CPUS 8
#define GIC_V2_MAX_CPUS 8

#define PRIMECELL_CLOCK_HZ 24000000
#define KEY_POWER	   116 /* linux/input-event-codes.h */
#define GPIO_ACTIVE_HIGH   0

/* The first cell of a PCI address: the space (PCI Bus Binding 2.1, 2.2.1.1). */
#define PCI_SPACE_CONFIG 0x00000000
#define PCI_SPACE_MEM32	 0x02000000
#define PCI_SPACE_MEM64	 0x03000000
#define PCI_ADDRESS_BDF	 8 /* where requester IDs are in it */

static void put_range(struct fdt_writer *w, const char *name, struct platform_range range)
{
	struct fdt_cells cells = { 0 };

	fdt_cell64(&cells, range.base);
	fdt_cell64(&cells, range.size);
	fdt_put_cells(w, name, &cells);
}

static void cells_spi(struct fdt_cells *cells, uint32_t gsi, uint32_t kind)
{
	fdt_cell(cells, GIC_SPI);
	fdt_cell(cells, gsi);
	fdt_cell(cells, kind);
}

static void put_spi(struct fdt_writer *w, uint32_t gsi, uint32_t kind)
{
	struct fdt_cells cells = { 0 };

	cells_spi(&cells, gsi, kind);
	fdt_put_cells(w, "interrupts", &cells);
}

static void cells_ppi(struct fdt_cells *cells, const struct platform *platform, uint8_t ppi)
{
	uint32_t kind = IRQ_LEVEL_HIGH;

	if (platform->gic.version == 2)
		kind |= ((1u << platform->num_cpus) - 1) << GIC_V2_PPI_CPUS;
	fdt_cell(cells, GIC_PPI);
	fdt_cell(cells, ppi);
	fdt_cell(cells, kind);
}

static bool has_msi(const struct platform_gic *gic)
{
	return gic->version == 3 ? gic->its.size : gic->v2m.size;
}

static void write_chosen(struct fdt_writer *w, const struct platform *platform,
			 const struct platform_boot *boot)
{
	char console[32];

	fdt_open(w, "chosen");
	if (platform->serial.size) {
		snprintf(console, sizeof(console), "/serial@%" PRIx64, platform->serial.base);
		fdt_put_string(w, "stdout-path", console);
	}
	if (boot && boot->cmdline)
		fdt_put_string(w, "bootargs", boot->cmdline);
	if (boot && boot->initrd.size) {
		fdt_put_u64(w, "linux,initrd-start", boot->initrd.base);
		fdt_put_u64(w, "linux,initrd-end", boot->initrd.base + boot->initrd.size);
	}
	if (boot && boot->has_seeds) {
		fdt_put_u64(w, "kaslr-seed", boot->kaslr_seed);
		fdt_put_bytes(w, "rng-seed", boot->rng_seed, sizeof(boot->rng_seed));
	}
	fdt_close(w);
}

static void write_memory(struct fdt_writer *w, const struct platform *platform)
{
	for (unsigned i = 0; i < platform->num_ram; i++) {
		fdt_open_at(w, "memory", platform->ram[i].base);
		fdt_put_string(w, "device_type", "memory");
		put_range(w, "reg", platform->ram[i]);
		fdt_close(w);
	}
}

/* CPUs are switched on, and the machine off, by calls that KVM takes (PSCI 1.0). */
static void write_cpus(struct fdt_writer *w, const struct platform *platform)
{
	fdt_open(w, "cpus");
	fdt_put_u32(w, "#address-cells", 1);
	fdt_put_u32(w, "#size-cells", 0);
	for (unsigned i = 0; i < platform->num_cpus; i++) {
		fdt_open_at(w, "cpu", platform->cpu_ids[i]);
		fdt_put_string(w, "device_type", "cpu");
		fdt_put_string(w, "compatible", "arm,armv8");
		fdt_put_u32(w, "reg", platform->cpu_ids[i]);
		fdt_put_string(w, "enable-method", "psci");
		fdt_close(w);
	}
	fdt_close(w);

	fdt_open(w, "psci");
	fdt_put_strings(w, "compatible", "arm,psci-1.0", "arm,psci-0.2");
	fdt_put_string(w, "method", "hvc");
	fdt_close(w);
}

static void write_timer_and_pmu(struct fdt_writer *w, const struct platform *platform)
{
	const struct platform_arm_ppis *ppi = &platform->ppi;
	struct fdt_cells timer = { 0 }, pmu = { 0 };

	cells_ppi(&timer, platform, ppi->secure_timer);
	cells_ppi(&timer, platform, ppi->physical_timer);
	cells_ppi(&timer, platform, ppi->virtual_timer);
	cells_ppi(&timer, platform, ppi->hypervisor_timer);
	fdt_open(w, "timer");
	fdt_put_string(w, "compatible", "arm,armv8-timer");
	fdt_put_cells(w, "interrupts", &timer);
	fdt_put_flag(w, "always-on");
	fdt_close(w);

	if (!ppi->has_pmu)
		return;
	cells_ppi(&pmu, platform, ppi->pmu);
	fdt_open(w, "pmu");
	fdt_put_string(w, "compatible", "arm,armv8-pmuv3");
	fdt_put_cells(w, "interrupts", &pmu);
	fdt_close(w);
}

static void write_its(struct fdt_writer *w, const struct platform_gic *gic)
{
	fdt_open_at(w, "msi-controller", gic->its.base);
	fdt_put_string(w, "compatible", "arm,gic-v3-its");
	put_range(w, "reg", gic->its);
	fdt_put_flag(w, "msi-controller");
	fdt_put_u32(w, "#msi-cells", 1);
	fdt_put_u32(w, "phandle", PHANDLE_MSI);
	fdt_close(w);
}

static void write_v2m(struct fdt_writer *w, const struct platform_gic *gic)
{
	fdt_open_at(w, "v2m", gic->v2m.base);
	fdt_put_string(w, "compatible", "arm,gic-v2m-frame");
	put_range(w, "reg", gic->v2m);
	fdt_put_flag(w, "msi-controller");
	/* Here the number counts from the first of all interrupts. */
	fdt_put_u32(w, "arm,msi-base-spi", 32 + gic->v2m_first_gsi);
	fdt_put_u32(w, "arm,msi-num-spis", gic->v2m_num_gsis);
	fdt_put_u32(w, "phandle", PHANDLE_MSI);
	fdt_close(w);
}

static void write_gic(struct fdt_writer *w, const struct platform_gic *gic)
{
	bool v3 = gic->version == 3;
	const struct platform_range *second = v3 ? &gic->redistributor : &gic->cpu_interface;
	struct fdt_cells reg = { 0 };

	fdt_cell64(&reg, gic->distributor.base);
	fdt_cell64(&reg, gic->distributor.size);
	fdt_cell64(&reg, second->base);
	fdt_cell64(&reg, second->size);
	fdt_open_at(w, "interrupt-controller", gic->distributor.base);
	fdt_put_string(w, "compatible", v3 ? "arm,gic-v3" : "arm,cortex-a15-gic");
	fdt_put_cells(w, "reg", &reg);
	fdt_put_flag(w, "interrupt-controller");
	fdt_put_u32(w, "#interrupt-cells", 3);
	fdt_put_u32(w, "#address-cells", 2);
	fdt_put_u32(w, "#size-cells", 2);
	fdt_put_flag(w, "ranges");
	fdt_put_u32(w, "phandle", PHANDLE_GIC);
	if (has_msi(gic)) {
		if (v3)
			write_its(w, gic);
		else
			write_v2m(w, gic);
	}
	fdt_close(w);
}

/* Open the node of a PrimeCell. */
static void open_primecell(struct fdt_writer *w, const char *name, const char *compatible,
			   struct platform_range window, uint32_t gsi)
{
	fdt_open_at(w, name, window.base);
	fdt_put_strings(w, "compatible", compatible, "arm,primecell");
	put_range(w, "reg", window);
	put_spi(w, gsi, IRQ_LEVEL_HIGH);
}

static void write_serial(struct fdt_writer *w, const struct platform *platform)
{
	struct fdt_cells clocks = { 0 };

	if (!platform->serial.size)
		return;
	fdt_cell(&clocks, PHANDLE_CLOCK);
	fdt_cell(&clocks, PHANDLE_CLOCK);
	open_primecell(w, "serial", "arm,pl011", platform->serial, platform->serial_gsi);
	fdt_put_cells(w, "clocks", &clocks);
	fdt_put_strings(w, "clock-names", "uartclk", "apb_pclk");
	fdt_close(w);
}

static void put_bus_clock(struct fdt_writer *w)
{
	fdt_put_u32(w, "clocks", PHANDLE_CLOCK);
	fdt_put_string(w, "clock-names", "apb_pclk");
}

static void write_power_button(struct fdt_writer *w, const struct platform *platform)
{
	struct fdt_cells gpios = { 0 };

	fdt_cell(&gpios, PHANDLE_GPIO);
	fdt_cell(&gpios, platform->power_button_line);
	fdt_cell(&gpios, GPIO_ACTIVE_HIGH);
	open_primecell(w, "gpio", "arm,pl061", platform->gpio.window, platform->gpio.gsi);
	put_bus_clock(w);
	fdt_put_flag(w, "gpio-controller");
	fdt_put_u32(w, "#gpio-cells", 2);
	fdt_put_flag(w, "interrupt-controller");
	fdt_put_u32(w, "#interrupt-cells", 2);
	fdt_put_u32(w, "phandle", PHANDLE_GPIO);
	fdt_close(w);

	fdt_open(w, "gpio-keys");
	fdt_put_string(w, "compatible", "gpio-keys");
	fdt_open(w, "power-button");
	fdt_put_string(w, "label", "Power button");
	fdt_put_u32(w, "linux,code", KEY_POWER);
	fdt_put_cells(w, "gpios", &gpios);
	fdt_close(w);
	fdt_close(w);
}

static void write_primecells(struct fdt_writer *w, const struct platform *platform)
{
	fdt_open(w, "clock-24000000");
	fdt_put_string(w, "compatible", "fixed-clock");
	fdt_put_u32(w, "#clock-cells", 0);
	fdt_put_u32(w, "clock-frequency", PRIMECELL_CLOCK_HZ);
	fdt_put_u32(w, "phandle", PHANDLE_CLOCK);
	fdt_close(w);

	write_serial(w, platform);
	if (platform->rtc.window.size) {
		open_primecell(w, "rtc", "arm,pl031", platform->rtc.window, platform->rtc.gsi);
		put_bus_clock(w);
		fdt_close(w);
	}
	if (platform->gpio.window.size)
		write_power_button(w, platform);
}

/* The phandle of the IOMMU that is the virtio-mmio device at @base. */
static uint32_t mmio_iommu_phandle(const struct platform *platform, uint64_t base)
{
	for (unsigned i = 0; i < platform->num_iommus; i++)
		if (platform->iommu[i].on_mmio && platform->iommu[i].base == base)
			return PHANDLE_IOMMU + i;
	assert(!"an IOMMU on MMIO that isn't in iommu[]");
	return 0;
}

static void write_virtio_mmio(struct fdt_writer *w, const struct platform *platform)
{
	for (unsigned i = 0; i < platform->num_mmio; i++) {
		const struct platform_mmio_dev *dev = &platform->mmio[i];

		fdt_open_at(w, dev->is_iommu ? "iommu" : "virtio", dev->base);
		fdt_put_string(w, "compatible", "virtio,mmio");
		put_range(w, "reg", (struct platform_range){ dev->base, dev->size });
		put_spi(w, dev->gsi, IRQ_EDGE_RISING);
		fdt_put_flag(w, "dma-coherent");
		if (dev->is_iommu) {
			fdt_put_u32(w, "#iommu-cells", 1);
			fdt_put_u32(w, "phandle", mmio_iommu_phandle(platform, dev->base));
		} else if (dev->iommu != PLATFORM_NO_IOMMU) {
			struct fdt_cells iommus = { 0 };

			assert(dev->iommu < platform->num_iommus);
			fdt_cell(&iommus, PHANDLE_IOMMU + dev->iommu);
			fdt_cell(&iommus, dev->endpoint);
			fdt_put_cells(w, "iommus", &iommus);
		}
		fdt_close(w);
	}
}

/* A window of the bus, at the same addresses on both sides. */
static void cells_pci_window(struct fdt_cells *cells, uint32_t space, struct platform_range range)
{
	if (!range.size)
		return;
	fdt_cell(cells, space);
	fdt_cell64(cells, range.base);
	fdt_cell64(cells, range.base);
	fdt_cell64(cells, range.size);
}

/*
 * Wired interrupts: four of them, each slot's turned by one against the slot
 * below (PCI-to-PCI Bridge 1.2, 9.1), so only two bits of the slot count.
 */
static void put_interrupt_map(struct fdt_writer *w, const struct platform *platform)
{
	struct fdt_cells map = { 0 }, mask = { 0 };

	for (unsigned slot = 0; slot < PLATFORM_NUM_INTX; slot++) {
		for (unsigned pin = 0; pin < PLATFORM_NUM_INTX; pin++) {
			unsigned line = (slot + pin) % PLATFORM_NUM_INTX;

			fdt_cell(&map, PCI_SPACE_CONFIG | slot << 3 << PCI_ADDRESS_BDF);
			fdt_cell64(&map, 0);
			fdt_cell(&map, pin + 1);
			fdt_cell(&map, PHANDLE_GIC);
			fdt_cell64(&map, 0); /* the GIC's #address-cells: no address */
			cells_spi(&map, platform->pci_intx_gsi[line], IRQ_LEVEL_HIGH);
		}
	}
	fdt_cell(&mask, (PLATFORM_NUM_INTX - 1) << 3 << PCI_ADDRESS_BDF);
	fdt_cell64(&mask, 0);
	fdt_cell(&mask, 7);
	fdt_put_u32(w, "#interrupt-cells", 1);
	fdt_put_cells(w, "interrupt-map-mask", &mask);
	fdt_put_cells(w, "interrupt-map", &map);
}

static void put_iommu_map(struct fdt_writer *w, const struct platform *platform)
{
	struct fdt_cells map = { 0 };

	for (unsigned i = 0; i < platform->num_pci_ranges; i++) {
		const struct platform_pci_range *range = &platform->pci_range[i];

		assert(range->bdf_start <= range->bdf_end && range->iommu < platform->num_iommus);
		fdt_cell(&map, range->bdf_start);
		fdt_cell(&map, PHANDLE_IOMMU + range->iommu);
		fdt_cell(&map, range->bdf_start); /* endpoint IDs equal the BDFs */
		fdt_cell(&map, range->bdf_end - range->bdf_start + 1u);
	}
	if (map.count)
		fdt_put_cells(w, "iommu-map", &map);
}

static void put_msi_map(struct fdt_writer *w)
{
	struct fdt_cells map = { 0 };

	fdt_cell(&map, 0);
	fdt_cell(&map, PHANDLE_MSI);
	fdt_cell(&map, 0);
	fdt_cell(&map, 0x10000);
	fdt_put_cells(w, "msi-map", &map);
}

/* IOMMUs that are PCI devices: children of the bridge, so that others can point to them. */
static void write_pci_iommus(struct fdt_writer *w, const struct platform *platform)
{
	for (unsigned i = 0; i < platform->num_iommus; i++) {
		struct fdt_cells reg = { 0 };
		char name[32];

		if (platform->iommu[i].on_mmio)
			continue;
		uint16_t bdf = platform->iommu[i].bdf;

		fdt_cell(&reg, PCI_SPACE_CONFIG | (uint32_t)bdf << PCI_ADDRESS_BDF);
		fdt_cell64(&reg, 0);
		fdt_cell64(&reg, 0);
		/* A PCI unit address is slot and function (PCI Bus Binding 2.1, 2.2.1.3). */
		snprintf(name, sizeof(name), "iommu@%x,%x", bdf >> 3 & 0x1f, bdf & 7);
		fdt_open(w, name);
		fdt_put_strings(w, "compatible", "virtio,pci-iommu", "pci1af4,1057");
		fdt_put_cells(w, "reg", &reg);
		fdt_put_u32(w, "#iommu-cells", 1);
		fdt_put_u32(w, "phandle", PHANDLE_IOMMU + i);
		fdt_close(w);
	}
}

static void write_pci(struct fdt_writer *w, const struct platform *platform)
{
	struct fdt_cells buses = { 0 }, ranges = { 0 };

	fdt_cell(&buses, 0);
	fdt_cell(&buses, (uint32_t)(platform->ecam.size >> 20) - 1); /* 1 MiB for each bus */
	cells_pci_window(&ranges, PCI_SPACE_MEM32, platform->pci_mem32);
	cells_pci_window(&ranges, PCI_SPACE_MEM64, platform->pci_mem64);

	fdt_open_at(w, "pcie", platform->ecam.base);
	fdt_put_string(w, "compatible", "pci-host-ecam-generic");
	fdt_put_string(w, "device_type", "pci");
	put_range(w, "reg", platform->ecam);
	fdt_put_u32(w, "#address-cells", 3);
	fdt_put_u32(w, "#size-cells", 2);
	fdt_put_u32(w, "linux,pci-domain", 0);
	fdt_put_cells(w, "bus-range", &buses);
	fdt_put_cells(w, "ranges", &ranges);
	fdt_put_flag(w, "dma-coherent");
	put_interrupt_map(w, platform);
	put_iommu_map(w, platform);
	if (has_msi(&platform->gic))
		put_msi_map(w);
	write_pci_iommus(w, platform);
	fdt_close(w);
}

static void write_tree(struct fdt_writer *w, const struct platform *platform,
		       const struct platform_boot *boot)
{
	fdt_open(w, "");
	fdt_put_string(w, "compatible", "linux,dummy-virt");
	fdt_put_string(w, "model", "moat");
	fdt_put_u32(w, "#address-cells", 2);
	fdt_put_u32(w, "#size-cells", 2);
	fdt_put_u32(w, "interrupt-parent", PHANDLE_GIC);
	write_chosen(w, platform, boot);
	write_memory(w, platform);
	write_cpus(w, platform);
	write_timer_and_pmu(w, platform);
	write_gic(w, &platform->gic);
	write_primecells(w, platform);
	write_virtio_mmio(w, platform);
	write_pci(w, platform);
	fdt_close(w);
}

int fdt_build(struct fdt_blob *blob, const struct platform *platform,
	      const struct platform_boot *boot, struct err *err)
{
	const struct platform_gic *gic = &platform->gic;
	struct fdt_writer w;
	void *data;
	size_t size;

	assert(gic->version == 2 || gic->version == 3);
	if (platform->num_cpus > (gic->version == 2 ? GIC_V2_MAX_CPUS : PLATFORM_MAX_CPUS))
		return err_set(err, E2BIG, "a GICv%u serves at most %u CPUs", gic->version,
			       gic->version == 2 ? GIC_V2_MAX_CPUS : PLATFORM_MAX_CPUS);
	fdt_writer_open(&w);
	write_tree(&w, platform, boot);
	if (fdt_writer_close(&w, &data, &size) < 0)
		return err_set(err, ENOMEM, "no memory for the device tree");
	blob->data = data;
	blob->size = size;
	return 0;
}

void fdt_blob_finish(struct fdt_blob *blob)
{
	if (!blob)
		return;
	free(blob->data);
	*blob = (struct fdt_blob){ 0 };
}
