#include "arch/x86_64/x86.h"

#include <errno.h>
#include <stdlib.h>

/* The arch object: what there is besides vCPUs and devices, and its description. */

int arch_create(struct arch **ret_arch, struct vm *vm, const struct arch_map *map, struct bus *mmio,
		struct bus *pio, struct power *power, struct err *err)
{
	struct arch *arch = calloc(1, sizeof(*arch));

	if (!arch)
		return err_set(err, ENOMEM, "out of memory");
	arch->vm = vm;
	arch->map = *map;
	arch->power = power;
	int r = x86_irqchip_create(arch, err);

	if (!r) {
		arch->pio = pio;
		r = x86_power_create(arch, err);
	}
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
	if (arch->pio)
		x86_power_destroy(arch);
	for (unsigned i = 0; i < arch->num_cpus; i++)
		x86_state_finish(&arch->cpu[i]);
	free(arch->cpu);
	free(arch);
}

int arch_reset(struct arch *arch, struct err *err)
{
	/* The local APICs are vCPU state: arch_boot restores them. */
	return x86_irqchip_reset(arch, err);
}

void arch_board(const struct arch *arch, struct arch_board *ret_board)
{
	*ret_board = (struct arch_board){
		.serial_kind = ARCH_SERIAL_16550,
		.serial = { X86_PORT_COM1, X86_GSI_COM1 },
		.power_button = X86_GSI_POWER_BUTTON,
	};
}

void arch_describe(const struct arch *arch, struct platform *platform)
{
	const struct arch_map *map = &arch->map;

	platform->num_cpus = arch->num_cpus;
	for (unsigned i = 0; i < arch->num_cpus; i++)
		platform->cpu_ids[i] = i;
	platform->num_ram = map->ram.count;
	for (unsigned i = 0; i < map->ram.count; i++) {
		platform->ram[i].base = map->ram.region[i].base.v;
		platform->ram[i].size = map->ram.region[i].size;
	}
	platform->ecam = map->ecam;
	platform->pci_mem32 = map->pci_mem32;
	platform->pci_mem64 = map->pci_mem64;
	for (unsigned i = 0; i < PLATFORM_NUM_INTX; i++)
		platform->pci_intx_gsi[i] = X86_GSI_PCI_INTX + i;
	platform->lapic_base = X86_LAPIC;
	platform->ioapic_base = X86_IOAPIC;
	platform->ioapic_id = 0;
	platform->serial = (struct platform_range){ X86_PORT_COM1, 8 };
	platform->serial_gsi = X86_GSI_COM1;
	platform->reset_port = X86_PORT_RESET;
	platform->reset_value = X86_RESET_VALUE;
	platform->sleep_control_port = X86_PORT_SLEEP_CONTROL;
	platform->sleep_status_port = X86_PORT_SLEEP_STATUS;
	platform->power_button_gsi = X86_GSI_POWER_BUTTON;
}
