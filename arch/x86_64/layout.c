#include "arch/x86_64/x86.h"

#include <cpuid.h>
#include <errno.h>
#include <inttypes.h>

/*
 * How many address bits the guest may use. KVM shows the guest the host's
 * number; more than 46 aren't needed, and some hosts can't map all they have.
 */
static unsigned phys_bits(void)
{
	unsigned eax = 36, ebx, ecx, edx;

	if (!__get_cpuid(0x80000008, &eax, &ebx, &ecx, &edx))
		eax = 36;
	unsigned bits = eax & 0xff;

	return bits < 36 ? 36 : MIN(bits, 46u);
}

int arch_map_init(struct arch_map *map, uint64_t ram_size, struct err *err)
{
	uint64_t space = UINT64_C(1) << phys_bits(), ram_end = X86_HIGH_RAM;

	*map = (struct arch_map){
		.ecam = { X86_ECAM, X86_ECAM_SIZE },
		.pci_mem32 = { X86_PCI_MEM32, X86_PCI_MEM32_SIZE },
		.mmio_devices = { X86_VIRTIO_MMIO, X86_VIRTIO_MMIO_SIZE },
		.msi = { X86_LAPIC, X86_MSI_SIZE },
		.first_mmio_gsi = X86_GSI_VIRTIO_MMIO,
		.num_mmio_gsis = X86_GSI_PCI_INTX - X86_GSI_VIRTIO_MMIO,
		.has_port_io = true,
	};
	map->ram.count = 1;
	map->ram.region[0].base = GPA(0);
	map->ram.region[0].size = MIN(ram_size, X86_LOW_RAM_END);
	if (ram_size > X86_LOW_RAM_END) {
		map->ram.count = 2;
		map->ram.region[1].base = GPA(X86_HIGH_RAM);
		map->ram.region[1].size = ram_size - X86_LOW_RAM_END;
		if (ram_size <= space)
			ram_end += map->ram.region[1].size;
	}
	if (ram_size > space || !place_mem64(&map->pci_mem64, ram_end, space))
		return err_set(err, EINVAL,
			       "--memory: %" PRIu64 " MiB don't fit into this CPU's address space "
			       "of %" PRIu64 " GiB",
			       ram_size >> 20, space >> 30);
	return 0;
}
