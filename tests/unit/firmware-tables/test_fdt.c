/* The device tree, read back with libfdt as a kernel reads it. */
#include "firmware-tables/fdt.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include "tests/unit/firmware-tables/arm_platform.h"
#include "vmm/base/types.h"

static struct fdt_blob blob;

static void build(const struct platform *p, const struct platform_boot *boot)
{
	struct err err = { "" };

	cr_assert_eq(fdt_build(&blob, p, boot, &err), 0, "%s", err.text);
	cr_assert_eq(fdt_check_full(blob.data, blob.size), 0);
}

static void teardown(void)
{
	fdt_blob_finish(&blob);
	cr_expect_null(blob.data);
}

TestSuite(fdt, .fini = teardown, .timeout = 60);

static int node(const char *path)
{
	int offset = fdt_path_offset(blob.data, path);

	cr_assert_geq(offset, 0, "no node %s: %s", path, fdt_strerror(offset));
	return offset;
}

static const void *property(const char *path, const char *name, int *ret_len)
{
	const void *value = fdt_getprop(blob.data, node(path), name, ret_len);

	cr_assert_not_null(value, "%s has no %s", path, name);
	return value;
}

static bool has(const char *path, const char *name)
{
	return fdt_getprop(blob.data, node(path), name, NULL) != NULL;
}

static uint64_t u64(const char *path, const char *name)
{
	int len;
	const fdt64_t *value = property(path, name, &len);

	cr_assert_eq(len, 8, "%s %s", path, name);
	return fdt64_ld(value);
}

/* The cells of @name are exactly the @count in @want. */
static void expect_cells(const char *path, const char *name, const uint32_t *want, unsigned count)
{
	int len;
	const fdt32_t *got = property(path, name, &len);

	cr_assert_eq((unsigned)len, count * 4, "%s %s has %d bytes", path, name, len);
	for (unsigned i = 0; i < count; i++)
		cr_expect_eq(fdt32_ld(&got[i]), want[i], "%s %s cell %u: %#x, not %#x", path, name,
			     i, fdt32_ld(&got[i]), want[i]);
}

#define CELLS(path, name, ...)                                      \
	expect_cells(path, name, (const uint32_t[]){ __VA_ARGS__ }, \
		     sizeof((const uint32_t[]){ __VA_ARGS__ }) / sizeof(uint32_t))

static void expect_string(const char *path, const char *name, const char *want)
{
	cr_expect_str_eq((const char *)property(path, name, NULL), want, "%s %s", path, name);
}

static void expect_compatible(const char *path, const char *want)
{
	cr_expect_eq(fdt_node_check_compatible(blob.data, node(path), want), 0, "%s isn't %s", path,
		     want);
}

static uint32_t phandle(const char *path)
{
	uint32_t handle = fdt_get_phandle(blob.data, node(path));

	cr_assert_neq(handle, 0, "%s has no phandle", path);
	/* It is this node's alone. */
	cr_assert_eq(fdt_node_offset_by_phandle(blob.data, handle), node(path));
	return handle;
}

Test(fdt, cpus_and_memory)
{
	struct platform p = arm_platform(3, false, false);

	p.cpu_ids[1] = 0x10002;
	p.num_ram = 2;
	p.ram[1] = (struct platform_range){ GIB(256), GIB(4) };
	build(&p, NULL);
	expect_string("/memory@40000000", "device_type", "memory");
	CELLS("/memory@40000000", "reg", 0, 0x40000000, 0, 0x20000000);
	CELLS("/memory@4000000000", "reg", 0x40, 0, 1, 0);
	CELLS("/cpus", "#address-cells", 1);
	CELLS("/cpus", "#size-cells", 0);
	CELLS("/cpus/cpu@0", "reg", 0);
	CELLS("/cpus/cpu@10002", "reg", 0x10002);
	expect_string("/cpus/cpu@10002", "device_type", "cpu");
	expect_string("/cpus/cpu@0", "enable-method", "psci");
	expect_compatible("/psci", "arm,psci-0.2");
	expect_compatible("/psci", "arm,psci-1.0");
	expect_string("/psci", "method", "hvc");
}

Test(fdt, gicv3_takes_msis_by_its)
{
	struct platform p = arm_platform(3, false, false);

	build(&p, NULL);
	expect_compatible("/interrupt-controller@8000000", "arm,gic-v3");
	CELLS("/interrupt-controller@8000000", "reg", 0, 0x08000000, 0, 0x10000, 0, 0x080a0000, 0,
	      0x40000);
	CELLS("/", "interrupt-parent", phandle("/interrupt-controller@8000000"));

	const char *its = "/interrupt-controller@8000000/msi-controller@8080000";

	expect_compatible(its, "arm,gic-v3-its");
	CELLS(its, "reg", 0, 0x08080000, 0, 0x20000);
	cr_expect(has(its, "msi-controller"));
	CELLS("/pcie@3f000000", "msi-map", 0, phandle(its), 0, 0x10000);
	CELLS("/timer", "interrupts", 1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4);
	CELLS("/pmu", "interrupts", 1, 7, 4);
	fdt_blob_finish(&blob);

	/* Without an ITS (a host may lack one) nothing points to it. */
	p.gic.its.size = 0;
	p.ppi.has_pmu = false;
	build(&p, NULL);
	cr_expect_lt(fdt_path_offset(blob.data, its), 0);
	cr_expect_not(has("/pcie@3f000000", "msi-map"));
	cr_expect_lt(fdt_path_offset(blob.data, "/pmu"), 0);
}

Test(fdt, gicv2_takes_msis_by_v2m)
{
	struct platform p = arm_platform(2, false, false);

	build(&p, NULL);
	expect_compatible("/interrupt-controller@8000000", "arm,cortex-a15-gic");
	CELLS("/interrupt-controller@8000000", "reg", 0, 0x08000000, 0, 0x10000, 0, 0x08010000, 0,
	      0x2000);

	const char *v2m = "/interrupt-controller@8000000/v2m@8020000";

	expect_compatible(v2m, "arm,gic-v2m-frame");
	CELLS(v2m, "arm,msi-base-spi", 80);
	CELLS(v2m, "arm,msi-num-spis", 64);
	CELLS("/pcie@3f000000", "msi-map", 0, phandle(v2m), 0, 0x10000);
	/* Private interrupts name the CPUs that see them. */
	CELLS("/timer", "interrupts", 1, 13, 0x304, 1, 14, 0x304, 1, 11, 0x304, 1, 10, 0x304);

	struct fdt_blob none = { 0 };
	struct err err = { "" };

	p.num_cpus = 9;
	cr_expect_eq(fdt_build(&none, &p, NULL, &err), -E2BIG);
	cr_expect(strstr(err.text, "8 CPUs"), "%s", err.text);
}

Test(fdt, primecells_and_the_power_button)
{
	struct platform p = arm_platform(3, false, false);

	build(&p, NULL);
	expect_string("/chosen", "stdout-path", "/serial@9000000");
	expect_compatible("/serial@9000000", "arm,pl011");
	CELLS("/serial@9000000", "interrupts", 0, 1, 4);
	expect_compatible("/rtc@9010000", "arm,pl031");
	CELLS("/rtc@9010000", "interrupts", 0, 2, 4);
	expect_compatible("/gpio@9030000", "arm,pl061");
	CELLS("/gpio@9030000", "interrupts", 0, 7, 4);
	CELLS("/gpio-keys/power-button", "gpios", phandle("/gpio@9030000"), 3, 0);
	CELLS("/gpio-keys/power-button", "linux,code", 116);

	uint32_t clock = phandle("/clock-24000000");

	CELLS("/serial@9000000", "clocks", clock, clock);
	CELLS("/rtc@9010000", "clocks", clock);
	fdt_blob_finish(&blob);

	p.serial.size = p.rtc.window.size = p.gpio.window.size = 0;
	build(&p, NULL);
	cr_expect_not(has("/chosen", "stdout-path"));
	cr_expect_lt(fdt_path_offset(blob.data, "/rtc@9010000"), 0);
	cr_expect_lt(fdt_path_offset(blob.data, "/gpio-keys"), 0);
}

Test(fdt, chosen_is_what_boots)
{
	struct platform p = arm_platform(3, false, false);
	struct platform_boot boot = {
		.cmdline = "console=ttyAMA0 quiet",
		.initrd = { 0x148000000, 0x123456 },
		.has_seeds = true,
		.kaslr_seed = 0x1122334455667788,
	};
	int len;

	memset(boot.rng_seed, 0xa5, sizeof(boot.rng_seed));
	build(&p, &boot);
	expect_string("/chosen", "bootargs", boot.cmdline);
	cr_expect_eq(u64("/chosen", "linux,initrd-start"), 0x148000000);
	cr_expect_eq(u64("/chosen", "linux,initrd-end"), 0x148123456);
	cr_expect_eq(u64("/chosen", "kaslr-seed"), boot.kaslr_seed);
	cr_expect_arr_eq(property("/chosen", "rng-seed", &len), boot.rng_seed, PLATFORM_RNG_SEED);
	cr_expect_eq(len, PLATFORM_RNG_SEED);
	fdt_blob_finish(&blob);

	build(&p, &(struct platform_boot){ .cmdline = "" });
	expect_string("/chosen", "bootargs", "");
	cr_expect_not(has("/chosen", "linux,initrd-start"));
	cr_expect_not(has("/chosen", "kaslr-seed"));
	cr_expect_not(has("/chosen", "rng-seed"));
}

Test(fdt, host_bridge)
{
	const char *pci = "/pcie@3f000000";
	struct platform p = arm_platform(3, false, false);

	build(&p, NULL);
	expect_compatible(pci, "pci-host-ecam-generic");
	CELLS(pci, "reg", 0, 0x3f000000, 0, 0x100000);
	CELLS(pci, "bus-range", 0, 0);
	CELLS(pci, "ranges", 0x02000000, 0, 0x10000000, 0, 0x10000000, 0, 0x20000000, 0x03000000,
	      0x80, 0, 0x80, 0, 0x40, 0);
	cr_expect(has(pci, "dma-coherent"));
	CELLS(pci, "interrupt-map-mask", 0x1800, 0, 0, 7);

	int len;
	const fdt32_t *map = property(pci, "interrupt-map", &len);

	cr_assert_eq(len, 16 * 10 * 4);
	for (unsigned i = 0; i < 16; i++, map += 10) {
		unsigned slot = i / 4, pin = i % 4;

		cr_expect_eq(fdt32_ld(&map[0]), slot << 11);
		cr_expect_eq(fdt32_ld(&map[3]), pin + 1);
		cr_expect_eq(fdt32_ld(&map[4]), phandle("/interrupt-controller@8000000"));
		cr_expect_eq(fdt32_ld(&map[8]), 3 + (slot + pin) % 4);
		cr_expect_eq(fdt32_ld(&map[9]), 4);
	}
}

/* Whom the guest believes to be behind which IOMMU, for both buses of each. */
static void expect_topology(unsigned gic, bool iommu_on_mmio, bool endpoint_on_mmio)
{
	const char *iommu = iommu_on_mmio ? "/iommu@a000000" : "/pcie@3f000000/iommu@1,0";
	struct platform p = arm_platform(gic, iommu_on_mmio, endpoint_on_mmio);

	build(&p, NULL);
	CELLS(iommu, "#iommu-cells", 1);
	cr_expect_not(has(iommu, "iommus"), "an IOMMU isn't behind itself");
	if (iommu_on_mmio) {
		expect_compatible(iommu, "virtio,mmio");
		CELLS(iommu, "reg", 0, ARM_IOMMU_BASE, 0, 0x1000);
		CELLS(iommu, "interrupts", 0, 16, 1);
		cr_expect(has(iommu, "dma-coherent"));
	} else {
		expect_compatible(iommu, "virtio,pci-iommu");
		expect_compatible(iommu, "pci1af4,1057");
		CELLS(iommu, "reg", ARM_IOMMU_BDF << 8, 0, 0, 0, 0);
	}
	CELLS("/pcie@3f000000", "iommu-map", ARM_FIRST_BDF, phandle(iommu), ARM_FIRST_BDF,
	      ARM_LAST_BDF - ARM_FIRST_BDF + 1);
	if (endpoint_on_mmio) {
		CELLS("/virtio@a001000", "iommus", phandle(iommu), ARM_ENDPOINT);
		CELLS("/virtio@a001000", "interrupts", 0, 17, 1);
		cr_expect(has("/virtio@a001000", "dma-coherent"));
	}
	cr_expect_not(has("/virtio@a002000", "iommus"), "iommu=off");
	fdt_blob_finish(&blob);
}

Test(fdt, iommu_topology)
{
	for (unsigned gic = 2; gic <= 3; gic++)
		for (unsigned i = 0; i < 4; i++)
			expect_topology(gic, i & 1, i & 2);
}

Test(fdt, several_iommus)
{
	struct platform p = arm_platform(3, true, true);

	p.iommu[1] = (struct platform_iommu){ .bdf = ARM_IOMMU_BDF };
	p.num_iommus = 2;
	/* One on PCI between two runs of slots; an MMIO device behind it as well. */
	p.pci_range[0] = (struct platform_pci_range){ 0x00, 0x07, 0 };
	p.pci_range[1] = (struct platform_pci_range){ 0x09, 0xffff, 1 };
	p.num_pci_ranges = 2;
	p.mmio[2].iommu = 1;
	build(&p, NULL);

	uint32_t first = phandle("/iommu@a000000"), second = phandle("/pcie@3f000000/iommu@1,0");

	cr_expect_neq(first, second);
	CELLS("/pcie@3f000000", "iommu-map", 0, first, 0, 8, 9, second, 9, 0xfff7);
	CELLS("/virtio@a001000", "iommus", first, ARM_ENDPOINT);
	CELLS("/virtio@a002000", "iommus", second, 0x10002);
}

Test(fdt, without_an_iommu_there_is_no_trace_of_one)
{
	struct platform p = arm_platform(3, false, false);

	p.num_iommus = p.num_pci_ranges = 0;
	build(&p, NULL);
	cr_expect_not(has("/pcie@3f000000", "iommu-map"));
	cr_expect_lt(fdt_path_offset(blob.data, "/pcie@3f000000/iommu@1,0"), 0);
}

/* Larger than the first buffer many times over; Linux takes 2 MiB. */
Test(fdt, the_largest_machine)
{
	static char cmdline[65536];
	struct platform p = arm_platform(3, true, true);

	memset(cmdline, 'x', sizeof(cmdline) - 1);
	p.num_cpus = PLATFORM_MAX_CPUS;
	for (unsigned i = 0; i < p.num_cpus; i++)
		p.cpu_ids[i] = i / 16 << 8 | i % 16;
	while (p.num_mmio < PLATFORM_MAX_MMIO) {
		p.mmio[p.num_mmio] = p.mmio[1];
		p.mmio[p.num_mmio].base = ARM_IOMMU_BASE + p.num_mmio * KIB(4);
		p.num_mmio++;
	}
	while (p.num_pci_ranges < PLATFORM_MAX_MMIO) {
		p.pci_range[p.num_pci_ranges] =
			(struct platform_pci_range){ (uint16_t)(p.num_pci_ranges << 8),
						     (uint16_t)(p.num_pci_ranges << 8 | 0xff), 0 };
		p.num_pci_ranges++;
	}
	build(&p, &(struct platform_boot){ .cmdline = cmdline });
	expect_string("/chosen", "bootargs", cmdline);
	expect_string("/cpus/cpu@f0e", "enable-method", "psci");
	CELLS("/virtio@a01f000", "iommus", phandle("/iommu@a000000"), ARM_ENDPOINT);
	cr_expect_lt(blob.size, MIB(2));
}
