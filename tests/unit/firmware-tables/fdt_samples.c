/*
 * fdt-samples DIR: writes the device trees of an arm machine with either GIC and
 * all four buses of IOMMU and endpoint, for tests/cli/check-fdt to judge on any
 * host.
 */
#include <stdio.h>
#include "firmware-tables/fdt.h"
#include "tests/unit/firmware-tables/arm_platform.h"
#include "vmm/base/types.h"

static int write_sample(const char *dir, unsigned gic, bool iommu_on_mmio, bool endpoint_on_mmio)
{
	struct platform platform = arm_platform(gic, iommu_on_mmio, endpoint_on_mmio);
	struct platform_boot boot = {
		.cmdline = "console=ttyAMA0 panic=-1",
		.initrd = { 0x48000000, MIB(8) },
		.has_seeds = true,
		.kaslr_seed = 0x0123456789abcdef,
	};
	struct fdt_blob blob;
	struct err err = { "" };
	char path[4096];

	if (fdt_build(&blob, &platform, &boot, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	snprintf(path, sizeof(path), "%s/gicv%u-iommu-%s-endpoint-%s.dtb", dir, gic,
		 iommu_on_mmio ? "mmio" : "pci", endpoint_on_mmio ? "mmio" : "pci");

	FILE *f = fopen(path, "w");
	bool good = f && fwrite(blob.data, 1, blob.size, f) == blob.size;

	if (f && fclose(f) != 0)
		good = false;
	if (!good)
		perror(path);
	fdt_blob_finish(&blob);
	return !good;
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fputs("usage: fdt-samples DIR\n", stderr);
		return 2;
	}
	for (unsigned i = 0; i < 8; i++)
		if (write_sample(argv[1], i & 4 ? 2 : 3, i & 1, i & 2))
			return 1;
	return 0;
}
