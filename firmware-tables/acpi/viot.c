#include "firmware-tables/acpi/tables.h"

#include <assert.h>
#include "vmm/base/types.h"

/*
 * VIOT: which endpoint sits behind which virtio-iommu (ACPI 6.5, 5.2.35). After
 * the header come nodes of 16 or 24 bytes. IOMMUs first, since the endpoints'
 * nodes refer to them by their offset in the table:
 *
 *	 36 node_count u16 | 38 node_offset u16 = 48 | 40 reserved[8]
 *	 48 node 3 or 4 for each IOMMU, 16 bytes
 *	    node 1 for each run of PCI requester IDs, 24 bytes
 *	    node 2 for each virtio-mmio device, 24 bytes
 *
 * The IOMMU itself is no endpoint, nor is a device with iommu=off: whoever
 * fills in the platform leaves them out of the ranges.
 */

enum viot_node {
	VIOT_PCI_RANGE = 1,
	VIOT_MMIO_ENDPOINT = 2,
	VIOT_IOMMU_PCI = 3,
	VIOT_IOMMU_MMIO = 4,
};

#define VIOT_NODE_OFFSET   48
#define VIOT_IOMMU_SIZE	   16
#define VIOT_ENDPOINT_SIZE 24

static void node_begin(struct acpi_buf *buf, enum viot_node type, uint16_t length)
{
	acpi_put8(buf, (uint8_t)type);
	acpi_put8(buf, 0);
	acpi_put16(buf, length);
}

static uint16_t iommu_node_offset(const struct platform *platform, uint32_t index)
{
	assert(index < platform->num_iommus);
	return (uint16_t)(VIOT_NODE_OFFSET + index * VIOT_IOMMU_SIZE);
}

static void write_iommu(struct acpi_buf *buf, const struct platform_iommu *iommu)
{
	if (iommu->on_mmio) {
		node_begin(buf, VIOT_IOMMU_MMIO, VIOT_IOMMU_SIZE);
		acpi_put32(buf, 0);
		acpi_put64(buf, iommu->base);
	} else {
		node_begin(buf, VIOT_IOMMU_PCI, VIOT_IOMMU_SIZE);
		acpi_put16(buf, 0); /* segment */
		acpi_put16(buf, iommu->bdf);
		acpi_put64(buf, 0);
	}
}

static void write_pci_range(struct acpi_buf *buf, const struct platform *platform,
			    const struct platform_pci_range *range)
{
	assert(range->bdf_start <= range->bdf_end);
	node_begin(buf, VIOT_PCI_RANGE, VIOT_ENDPOINT_SIZE);
	acpi_put32(buf, range->bdf_start); /* endpoint IDs equal the BDFs */
	acpi_put16(buf, 0);		   /* first and last segment */
	acpi_put16(buf, 0);
	acpi_put16(buf, range->bdf_start);
	acpi_put16(buf, range->bdf_end);
	acpi_put16(buf, iommu_node_offset(platform, range->iommu));
	acpi_put_zeros(buf, 6);
}

static void write_mmio_endpoint(struct acpi_buf *buf, const struct platform *platform,
				const struct platform_mmio_dev *dev)
{
	node_begin(buf, VIOT_MMIO_ENDPOINT, VIOT_ENDPOINT_SIZE);
	acpi_put32(buf, dev->endpoint);
	acpi_put64(buf, dev->base);
	acpi_put16(buf, iommu_node_offset(platform, dev->iommu));
	acpi_put_zeros(buf, 6);
}

static bool is_endpoint(const struct platform_mmio_dev *dev)
{
	return !dev->is_iommu && dev->iommu != PLATFORM_NO_IOMMU;
}

void acpi_write_viot(struct acpi_buf *buf, const struct platform *platform)
{
	size_t table = acpi_table_begin(buf, "VIOT", 0);
	unsigned nodes = platform->num_iommus + platform->num_pci_ranges;

	for (unsigned i = 0; i < platform->num_mmio; i++)
		nodes += is_endpoint(&platform->mmio[i]);
	acpi_put16(buf, (uint16_t)nodes);
	acpi_put16(buf, VIOT_NODE_OFFSET);
	acpi_put64(buf, 0);

	for (unsigned i = 0; i < platform->num_iommus; i++)
		write_iommu(buf, &platform->iommu[i]);
	for (unsigned i = 0; i < platform->num_pci_ranges; i++)
		write_pci_range(buf, platform, &platform->pci_range[i]);
	for (unsigned i = 0; i < platform->num_mmio; i++)
		if (is_endpoint(&platform->mmio[i]))
			write_mmio_endpoint(buf, platform, &platform->mmio[i]);
	acpi_table_end(buf, table);
}
