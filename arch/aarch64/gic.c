#include "arch/aarch64/a64.h"

/*
 * KVM models the interrupt controller; here it gets its addresses and is started.
 *
 *	GICv3   distributor, a redistributor for each CPU, an ITS for MSIs
 *	GICv2   distributor, CPU interfaces, and our own MSI frame (v2m.c)
 *
 * GICv2 is for hosts that have nothing else: it serves eight CPUs and fewer MSIs.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int set_attr(const struct kvm_device *device, uint32_t group, uint64_t attr,
		    const void *value, const char *what, struct err *err)
{
	int r = kvm_device_set(device, group, attr, value);

	if (r < 0)
		return err_set(err, -r, "KVM: interrupt controller: %s: %s", what, strerror(-r));
	return 0;
}

static int set_address(const struct kvm_device *device, uint64_t type, uint64_t address,
		       const char *what, struct err *err)
{
	return set_attr(device, KVM_DEV_ARM_VGIC_GRP_ADDR, type, &address, what, err);
}

int a64_gic_create(struct arch *arch, struct err *err)
{
	struct a64_gic *gic = &arch->gic;
	const uint32_t num_irqs = ALIGN_UP(A64_FIRST_SPI + A64_NUM_GSIS, 32);
	int r = kvm_device_create(&gic->chip, arch->vm, KVM_DEV_TYPE_ARM_VGIC_V3);

	gic->version = 3;
	if (r == -ENODEV) {
		gic->version = 2;
		r = kvm_device_create(&gic->chip, arch->vm, KVM_DEV_TYPE_ARM_VGIC_V2);
	}
	if (r < 0)
		return err_set(err, -r, "KVM can model neither a GICv3 nor a GICv2 here: %s",
			       strerror(-r));
	return set_attr(&gic->chip, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, &num_irqs,
			"number of interrupts", err);
}

static int place_v2(struct arch *arch, struct err *err)
{
	struct a64_gic *gic = &arch->gic;
	int r = set_address(&gic->chip, KVM_VGIC_V2_ADDR_TYPE_DIST, A64_GIC_DIST, "distributor",
			    err);

	if (!r)
		r = set_address(&gic->chip, KVM_VGIC_V2_ADDR_TYPE_CPU, A64_GIC_CPU, "CPU interface",
				err);
	return r;
}

static int place_v3(struct arch *arch, struct err *err)
{
	struct a64_gic *gic = &arch->gic;
	int r = set_address(&gic->chip, KVM_VGIC_V3_ADDR_TYPE_DIST, A64_GIC_DIST, "distributor",
			    err);

	if (!r)
		r = set_address(&gic->chip, KVM_VGIC_V3_ADDR_TYPE_REDIST, A64_GIC_REDIST,
				"redistributors", err);
	return r;
}

static int start_its(struct arch *arch, struct err *err)
{
	struct a64_gic *gic = &arch->gic;
	int r = kvm_device_create(&gic->its, arch->vm, KVM_DEV_TYPE_ARM_VGIC_ITS);

	if (r < 0)
		return err_set(err, -r, "KVM can't create an ITS for the GICv3: %s", strerror(-r));
	r = set_address(&gic->its, KVM_VGIC_ITS_ADDR_TYPE, A64_ITS, "ITS", err);
	if (!r)
		r = set_attr(&gic->its, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, NULL,
			     "start of the ITS", err);
	return r;
}

int a64_gic_start(struct arch *arch, struct err *err)
{
	struct a64_gic *gic = &arch->gic;
	int r = gic->version == 3 ? place_v3(arch, err) : place_v2(arch, err);

	if (!r)
		r = set_attr(&gic->chip, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT,
			     NULL, "start", err);
	if (!r && gic->version == 3)
		r = start_its(arch, err);
	if (r < 0)
		return r;
	r = vm_add_chip_routes(arch->vm, 0, 0, A64_NUM_GSIS,
			       KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT | A64_FIRST_SPI);
	if (r < 0)
		return err_set(err, -r, "KVM refuses the interrupt routes: %s", strerror(-r));
	r = gic->version == 2 ? a64_v2m_create(arch, err) : 0;
	return r < 0 ? r : a64_gic_save(arch, err);
}

void a64_gic_finish(struct arch *arch)
{
	struct a64_gic *gic = &arch->gic;

	if (gic->version == 2)
		a64_v2m_destroy(arch);
	kvm_device_finish(&gic->its);
	kvm_device_finish(&gic->chip);
	free(gic->reg);
}

void a64_gic_describe(const struct arch *arch, struct platform_gic *gic)
{
	*gic = (struct platform_gic){
		.version = arch->gic.version,
		.distributor = { A64_GIC_DIST, A64_GIC_DIST_SIZE },
	};
	if (gic->version == 3) {
		gic->redistributor.base = A64_GIC_REDIST;
		gic->redistributor.size = arch->num_cpus * A64_GIC_REDIST_SIZE;
		gic->its = (struct platform_range){ A64_ITS, A64_ITS_SIZE };
	} else {
		gic->cpu_interface = (struct platform_range){ A64_GIC_CPU, A64_GIC_CPU_SIZE };
		gic->v2m = (struct platform_range){ A64_MSI, A64_V2M_SIZE };
		gic->v2m_first_gsi = A64_GSI_V2M;
		gic->v2m_num_gsis = A64_NUM_V2M_GSIS;
	}
}
