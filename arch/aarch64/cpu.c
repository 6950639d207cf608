#include "arch/aarch64/a64.h"

/*
 * Creating vCPUs: as the host's CPU is, with all that KVM can give a guest of it.
 * KVM_ARM_VCPU_INIT is also how a vCPU is reset: registers, timers, power state.
 */

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#define CORE_REG(name) \
	(KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | (uint64_t)KVM_REG_ARM_CORE_REG(name))

#define REG_MPIDR    ARM64_SYS_REG(3, 0, 0, 0, 5)
#define REG_MMFR0    ARM64_SYS_REG(3, 0, 0, 7, 0)
#define MPIDR_FIELDS UINT64_C(0xff00ffffff) /* Aff3 to Aff0 */

/* Fields of ID_AA64MMFR0_EL1: which page sizes there are, and what says that one is. */
#define MMFR0_TGRAN16 20 /* 0: not there */
#define MMFR0_TGRAN64 24 /* 15: not there */
#define MMFR0_TGRAN4  28 /* 15: not there */

int a64_get_reg(struct vcpu *vcpu, uint64_t id, uint64_t *ret_value)
{
	struct kvm_one_reg reg = { .id = id, .addr = (uintptr_t)ret_value };

	return vcpu_ioctl(vcpu, KVM_GET_ONE_REG, &reg);
}

static int set_reg(struct vcpu *vcpu, uint64_t id, uint64_t value)
{
	struct kvm_one_reg reg = { .id = id, .addr = (uintptr_t)&value };

	return vcpu_ioctl(vcpu, KVM_SET_ONE_REG, &reg);
}

static unsigned page_sizes_of(uint64_t mmfr0)
{
	unsigned sizes = 0;

	if ((mmfr0 >> MMFR0_TGRAN4 & 0xf) != 0xf)
		sizes |= A64_PAGES_4K;
	if ((mmfr0 >> MMFR0_TGRAN16 & 0xf) != 0)
		sizes |= A64_PAGES_16K;
	if ((mmfr0 >> MMFR0_TGRAN64 & 0xf) != 0xf)
		sizes |= A64_PAGES_64K;
	return sizes;
}

/* The host's kind of CPU, and every feature of it that this KVM lets a guest use. */
static int choose_features(struct arch *arch, struct err *err)
{
	struct kvm_vcpu_init *init = &arch->init;
	int r = vm_ioctl(arch->vm, KVM_ARM_PREFERRED_TARGET, init);

	if (r < 0)
		return err_set(err, -r, "KVM knows no kind of vCPU for this host: %s",
			       strerror(-r));
	arch->has_pmu = vm_extension(arch->vm, KVM_CAP_ARM_PMU_V3) > 0;
	arch->has_sve = vm_extension(arch->vm, KVM_CAP_ARM_SVE) > 0;
	init->features[0] |= 1u << KVM_ARM_VCPU_PSCI_0_2;
	if (arch->has_pmu)
		init->features[0] |= 1u << KVM_ARM_VCPU_PMU_V3;
	if (arch->has_sve)
		init->features[0] |= 1u << KVM_ARM_VCPU_SVE;
	/* KVM takes both kinds of pointer authentication or none. */
	if (vm_extension(arch->vm, KVM_CAP_ARM_PTRAUTH_ADDRESS) > 0 &&
	    vm_extension(arch->vm, KVM_CAP_ARM_PTRAUTH_GENERIC) > 0)
		init->features[0] |=
			1u << KVM_ARM_VCPU_PTRAUTH_ADDRESS | 1u << KVM_ARM_VCPU_PTRAUTH_GENERIC;
	return 0;
}

/* Power on, or reset. All but the first are off until PSCI's CPU_ON. */
static int cpu_init(struct arch *arch, struct vcpu *vcpu)
{
	struct kvm_vcpu_init init = arch->init;

	if (vcpu_index(vcpu) > 0)
		init.features[0] |= 1u << KVM_ARM_VCPU_POWER_OFF;
	return vcpu_ioctl(vcpu, KVM_ARM_VCPU_INIT, &init);
}

static int cpu_setup(struct arch *arch, struct vcpu *vcpu, struct err *err)
{
	unsigned index = vcpu_index(vcpu);
	int sve = KVM_ARM_VCPU_SVE;
	uint64_t mmfr0 = 0;
	int r = cpu_init(arch, vcpu);

	/* The vector length is the longest that all host CPUs have. */
	if (!r && arch->has_sve)
		r = vcpu_ioctl(vcpu, KVM_ARM_VCPU_FINALIZE, &sve);
	if (!r)
		r = a64_get_reg(vcpu, REG_MPIDR, &arch->mpidr[index]);
	if (!r)
		r = a64_get_reg(vcpu, REG_MMFR0, &mmfr0);
	if (r < 0)
		return err_set(err, -r, "vCPU %u: KVM can't set it up: %s", index, strerror(-r));
	arch->mpidr[index] &= MPIDR_FIELDS;
	arch->page_sizes = page_sizes_of(mmfr0);
	return 0;
}

/* The performance counters' interrupt; KVM wants the interrupt controller to be there. */
static int start_pmu(struct vcpu *vcpu, struct err *err)
{
	int intid = A64_FIRST_PPI + A64_PPI_PMU;
	struct kvm_device_attr irq = {
		.group = KVM_ARM_VCPU_PMU_V3_CTRL,
		.attr = KVM_ARM_VCPU_PMU_V3_IRQ,
		.addr = (uintptr_t)&intid,
	};
	struct kvm_device_attr start = {
		.group = KVM_ARM_VCPU_PMU_V3_CTRL,
		.attr = KVM_ARM_VCPU_PMU_V3_INIT,
	};
	int r = vcpu_ioctl(vcpu, KVM_SET_DEVICE_ATTR, &irq);

	if (!r)
		r = vcpu_ioctl(vcpu, KVM_SET_DEVICE_ATTR, &start);
	if (r < 0)
		return err_set(err, -r, "vCPU %u: KVM can't start its performance counters: %s",
			       vcpu_index(vcpu), strerror(-r));
	return 0;
}

static int create_all(struct arch *arch, struct vcpu **vcpus, unsigned count, unsigned *done,
		      struct err *err)
{
	int r = choose_features(arch, err);

	while (!r && *done < count) {
		unsigned i = *done;

		r = vcpu_create(&vcpus[i], arch->vm, i, i, &a64_vcpu_ops, err);
		if (!r) {
			++*done;
			r = cpu_setup(arch, vcpus[i], err);
		}
	}
	arch->num_cpus = *done;
	if (!r)
		r = a64_gic_start(arch, err);
	for (unsigned i = 0; !r && arch->has_pmu && i < count; i++)
		r = start_pmu(vcpus[i], err);
	return r;
}

int arch_create_vcpus(struct arch *arch, struct vcpu **vcpus, unsigned count, struct err *err)
{
	int max = vm_extension(arch->vm, KVM_CAP_MAX_VCPUS);
	unsigned done = 0;

	if (max > 0 && count > (unsigned)max)
		return err_set(err, EINVAL, "--cpus: %u, but this KVM has at most %d with a GICv%u",
			       count, max, arch->gic.version);
	int r = create_all(arch, vcpus, count, &done, err);

	if (r < 0) {
		while (done > 0) {
			vcpu_destroy(vcpus[--done]);
			vcpus[done] = NULL;
		}
	}
	return r;
}

int a64_cpu_reset(struct arch *arch, struct vcpu *vcpu, uint64_t pc, uint64_t x0, struct err *err)
{
	int r = cpu_init(arch, vcpu);

	/* EL1 with interrupts masked, MMU and caches off: as KVM leaves it. */
	if (!r && vcpu_index(vcpu) == 0) {
		r = set_reg(vcpu, CORE_REG(regs.regs[0]), x0);
		if (!r)
			r = set_reg(vcpu, CORE_REG(regs.pc), pc);
	}
	if (r < 0)
		return err_set(err, -r, "vCPU %u: KVM can't reset it: %s", vcpu_index(vcpu),
			       strerror(-r));
	return 0;
}
