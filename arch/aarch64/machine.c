#include "arch/aarch64/a64.h"

#include <errno.h>
#include <stdlib.h>

/* The arch object: what there is besides vCPUs and devices, and its description. */

int arch_create(struct arch **ret_arch, struct vm *vm, const struct arch_map *map, struct bus *mmio,
		struct bus *pio, struct power *power, struct err *err)
{
	struct arch *arch = calloc(1, sizeof(*arch));
	struct kvm_enable_cap nisv = { .cap = KVM_CAP_ARM_NISV_TO_USER };

	if (!arch)
		return err_set(err, ENOMEM, "out of memory");
	arch->vm = vm;
	arch->mmio = mmio;
	arch->map = *map;
	/* Without it a strange access ends moat instead of the guest's driver. */
	if (vm_extension(vm, KVM_CAP_ARM_NISV_TO_USER) > 0 &&
	    vm_extension(vm, KVM_CAP_ARM_INJECT_EXT_DABT) > 0)
		vm_ioctl(vm, KVM_ENABLE_CAP, &nisv);
	int r = a64_gic_create(arch, err);

	if (r < 0) {
		arch_destroy(arch);
		return r;
	}
	*ret_arch = arch;
	return 0;
}

void arch_destroy(struct arch *arch)
{
	if (!arch)
		return;
	a64_gic_finish(arch);
	free(arch);
}

int arch_reset(struct arch *arch, struct err *err)
{
	/* The rest is vCPU state: arch_boot resets it. */
	return a64_gic_restore(arch, err);
}

void arch_board(const struct arch *arch, struct arch_board *ret_board)
{
	*ret_board = (struct arch_board){
		.serial_kind = ARCH_SERIAL_PL011,
		.serial = { A64_PL011, A64_GSI_PL011 },
		.rtc = { A64_PL031, A64_GSI_PL031 },
		.gpio = { A64_PL061, A64_GSI_PL061 },
		.power_button = A64_POWER_BUTTON_LINE,
	};
}

void arch_describe(const struct arch *arch, struct platform *platform)
{
	const struct arch_map *map = &arch->map;

	platform->num_cpus = arch->num_cpus;
	for (unsigned i = 0; i < arch->num_cpus; i++)
		platform->cpu_ids[i] = (uint32_t)arch->mpidr[i];
	platform->num_ram = map->ram.count;
	platform->ram[0].base = map->ram.region[0].base.v;
	platform->ram[0].size = map->ram.region[0].size;
	platform->ecam = map->ecam;
	platform->pci_mem32 = map->pci_mem32;
	platform->pci_mem64 = map->pci_mem64;
	for (unsigned i = 0; i < PLATFORM_NUM_INTX; i++)
		platform->pci_intx_gsi[i] = A64_GSI_INTX + i;
	a64_gic_describe(arch, &platform->gic);
	platform->ppi = (struct platform_arm_ppis){
		.secure_timer = A64_PPI_SEC_TIMER,
		.physical_timer = A64_PPI_PHYS_TIMER,
		.virtual_timer = A64_PPI_VIRT_TIMER,
		.hypervisor_timer = A64_PPI_HYP_TIMER,
		.pmu = A64_PPI_PMU,
		.has_pmu = arch->has_pmu,
	};
	platform->serial = (struct platform_range){ A64_PL011, A64_PRIMECELL_SIZE };
	platform->serial_gsi = A64_GSI_PL011;
	platform->rtc.window = (struct platform_range){ A64_PL031, A64_PRIMECELL_SIZE };
	platform->rtc.gsi = A64_GSI_PL031;
	platform->gpio.window = (struct platform_range){ A64_PL061, A64_PRIMECELL_SIZE };
	platform->gpio.gsi = A64_GSI_PL061;
	platform->power_button_line = A64_POWER_BUTTON_LINE;
}
