#include "arch/x86_64/x86.h"

#include <string.h>

/*
 * KVM models IOAPIC, local APICs and a pair of PICs. The tables don't mention
 * the PICs (hardware-reduced ACPI has none) and no route leads to them. There
 * is no PIT: Linux takes its ticks from the TSC deadline timer.
 */

static int chip_ioctl(struct arch *arch, unsigned long request, const char *what, struct err *err)
{
	for (uint32_t i = 0; i < ARRAY_SIZE(arch->chip); i++) {
		arch->chip[i].chip_id = i;
		int r = vm_ioctl(arch->vm, request, &arch->chip[i]);

		if (r < 0)
			return err_set(err, -r, "KVM: %s interrupt controller %u: %s", what, i,
				       strerror(-r));
	}
	return 0;
}

int x86_irqchip_create(struct arch *arch, struct err *err)
{
	uint64_t identity = X86_KVM_IDENTITY_MAP;
	int r = vm_ioctl(arch->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);

	if (r < 0 && vm_extension(arch->vm, KVM_CAP_SET_IDENTITY_MAP_ADDR))
		return err_set(err, -r, "KVM_SET_IDENTITY_MAP_ADDR: %s", strerror(-r));
	r = vm_ioctl(arch->vm, KVM_SET_TSS_ADDR, (void *)(uintptr_t)X86_KVM_TSS);
	if (r < 0 && vm_extension(arch->vm, KVM_CAP_SET_TSS_ADDR))
		return err_set(err, -r, "KVM_SET_TSS_ADDR: %s", strerror(-r));
	r = vm_ioctl(arch->vm, KVM_CREATE_IRQCHIP, NULL);
	if (r < 0)
		return err_set(err, -r, "KVM can't create the interrupt controllers: %s",
			       strerror(-r));
	r = vm_add_chip_routes(arch->vm, KVM_IRQCHIP_IOAPIC, 0, X86_IOAPIC_PINS, 0);
	if (r < 0)
		return err_set(err, -r, "KVM refuses the interrupt routes: %s", strerror(-r));
	return chip_ioctl(arch, KVM_GET_IRQCHIP, "read", err);
}

int x86_irqchip_reset(struct arch *arch, struct err *err)
{
	return chip_ioctl(arch, KVM_SET_IRQCHIP, "reset", err);
}
