#include "arch/aarch64/a64.h"

#include <errno.h>
#include <inttypes.h>

/*
 * How many address bits the guest gets: 40, which every KVM gives unless the CPU
 * has fewer, and more when its memory needs them. A wider space costs the host a
 * deeper stage 2 table.
 */
static unsigned address_bits(uint64_t ram_end)
{
	int limit = kvm_host_extension(KVM_CAP_ARM_VM_IPA_SIZE);
	unsigned most = limit > 0 ? (unsigned)limit : 40, bits = MIN(most, 40u);

	/* Room for the 64-bit PCI window too: at most half of the space is RAM. */
	while (bits < most && ram_end > (UINT64_C(1) << bits) / 2)
		bits++;
	return bits;
}

int arch_map_init(struct arch_map *map, uint64_t ram_size, struct err *err)
{
	uint64_t ram_end = A64_RAM + ram_size, space;
	unsigned bits;

	if (ram_end < ram_size)
		ram_end = UINT64_MAX;
	bits = address_bits(ram_end);
	space = UINT64_C(1) << bits;
	*map = (struct arch_map){
		.vm_type = kvm_host_extension(KVM_CAP_ARM_VM_IPA_SIZE) > 0
				   ? KVM_VM_TYPE_ARM_IPA_SIZE(bits)
				   : 0,
		.ram = { .count = 1, .region = { { GPA(A64_RAM), ram_size } } },
		.ecam = { A64_ECAM, A64_ECAM_SIZE },
		.pci_mem32 = { A64_PCI_MEM32, A64_PCI_MEM32_SIZE },
		.mmio_devices = { A64_VIRTIO_MMIO, A64_VIRTIO_MMIO_SIZE },
		.msi = { A64_MSI, A64_MSI_SIZE },
		.first_mmio_gsi = A64_GSI_VIRTIO_MMIO,
		.num_mmio_gsis = PLATFORM_MAX_MMIO,
	};
	if (ram_end > space || !place_mem64(&map->pci_mem64, ram_end, space))
		return err_set(err, EINVAL,
			       "--memory: %" PRIu64 " MiB don't fit into this CPU's address space "
			       "of %" PRIu64 " GiB",
			       ram_size >> 20, space >> 30);
	return 0;
}
