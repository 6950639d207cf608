#include "arch/x86_64/x86.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

/* Creating vCPUs: CPUID, the few registers that firmware would have set, a snapshot. */

#define CPUID_MAX 256 /* KVM's own limit */

#define LEAF1_ECX_DEADLINE (1u << 24)

#define MSR_MISC_ENABLE	     0x1a0
#define MISC_FAST_STRINGS    0x1
#define MSR_MTRR_DEF_TYPE    0x2ff
#define MTRR_ENABLE_WB	     0x806 /* E, default type write-back */
#define APIC_LVT0	     0x350
#define APIC_LVT1	     0x360
#define APIC_DELIVERY_NMI    0x400
#define APIC_DELIVERY_EXTINT 0x700

static int cpuid_supported(struct arch *arch, struct kvm_cpuid2 *cpuid, struct err *err)
{
	cpuid->nent = CPUID_MAX;
	int r = vm_kvm_ioctl(arch->vm, KVM_GET_SUPPORTED_CPUID, cpuid);

	if (r < 0)
		return err_set(err, -r, "KVM_GET_SUPPORTED_CPUID: %s", strerror(-r));
	/* Before Linux 6.11 the set leaves out the timer that KVM itself provides. */
	for (uint32_t i = 0; i < cpuid->nent; i++) {
		if (cpuid->entries[i].function == 1 &&
		    vm_extension(arch->vm, KVM_CAP_TSC_DEADLINE_TIMER))
			cpuid->entries[i].ecx |= LEAF1_ECX_DEADLINE;
	}
	return 0;
}

static void set_msr(struct vcpu *vcpu, uint32_t index, uint64_t set_bits)
{
	_cleanup_free_ struct kvm_msrs *msr = calloc(1, sizeof(*msr) + sizeof(msr->entries[0]));

	if (!msr)
		return;
	msr->nmsrs = 1;
	msr->entries[0].index = index;
	if (vcpu_ioctl(vcpu, KVM_GET_MSRS, msr) != 1)
		msr->entries[0].data = 0;
	msr->entries[0].data |= set_bits;
	/* Not every KVM takes every MSR; a guest runs without these, if slower. */
	if (vcpu_ioctl(vcpu, KVM_SET_MSRS, msr) != 1 && vcpu_index(vcpu) == 0)
		log_info("KVM refuses MSR 0x%x", index);
}

/* The usual wiring of a PC: LINT0 the (absent) PIC, LINT1 NMI. */
static int set_lapic(struct vcpu *vcpu, struct err *err)
{
	struct kvm_lapic_state lapic;
	const uint32_t lvt0 = APIC_DELIVERY_EXTINT, lvt1 = APIC_DELIVERY_NMI;
	int r = vcpu_ioctl(vcpu, KVM_GET_LAPIC, &lapic);

	if (!r) {
		memcpy(lapic.regs + APIC_LVT0, &lvt0, sizeof(lvt0));
		memcpy(lapic.regs + APIC_LVT1, &lvt1, sizeof(lvt1));
		r = vcpu_ioctl(vcpu, KVM_SET_LAPIC, &lapic);
	}
	if (r < 0)
		return err_set(err, -r, "vCPU %u: local APIC: %s", vcpu_index(vcpu), strerror(-r));
	return 0;
}

static int cpu_setup(struct arch *arch, struct vcpu *vcpu, const struct kvm_cpuid2 *supported,
		     unsigned count, struct err *err)
{
	size_t size = sizeof(*supported) + CPUID_MAX * sizeof(supported->entries[0]);
	_cleanup_free_ struct kvm_cpuid2 *cpuid = malloc(size);
	unsigned index = vcpu_index(vcpu);

	if (!cpuid)
		return err_set(err, ENOMEM, "out of memory");
	memcpy(cpuid, supported, size);
	x86_cpuid_set_topology(cpuid, CPUID_MAX, index, count);
	int r = vcpu_ioctl(vcpu, KVM_SET_CPUID2, cpuid);

	if (r < 0)
		return err_set(err, -r, "vCPU %u: KVM_SET_CPUID2: %s", index, strerror(-r));
	set_msr(vcpu, MSR_MISC_ENABLE, MISC_FAST_STRINGS);
	set_msr(vcpu, MSR_MTRR_DEF_TYPE, MTRR_ENABLE_WB);
	r = set_lapic(vcpu, err);
	return r < 0 ? r : x86_state_save(&arch->cpu[index], vcpu, err);
}

int arch_create_vcpus(struct arch *arch, struct vcpu **vcpus, unsigned count, struct err *err)
{
	_cleanup_free_ struct kvm_cpuid2 *cpuid =
		calloc(1, sizeof(*cpuid) + CPUID_MAX * sizeof(cpuid->entries[0]));
	int max = vm_extension(arch->vm, KVM_CAP_MAX_VCPUS);
	unsigned done = 0;

	/* cppcheck doesn't know that cleanup attributes free. */
	if (max > 0 && count > (unsigned)max)
		/* cppcheck-suppress memleak */
		return err_set(err, EINVAL, "--cpus: %u, but this KVM has at most %d", count, max);
	arch->cpu = calloc(count, sizeof(*arch->cpu));
	if (!cpuid || !arch->cpu)
		return err_set(err, ENOMEM, "out of memory");
	arch->num_cpus = count;
	int r = cpuid_supported(arch, cpuid, err);

	while (!r && done < count) {
		r = vcpu_create(&vcpus[done], arch->vm, done, done, &x86_vcpu_ops, err);
		if (!r)
			r = cpu_setup(arch, vcpus[done++], cpuid, count, err);
	}
	if (r < 0) {
		while (done > 0) {
			vcpu_destroy(vcpus[--done]);
			vcpus[done] = NULL;
		}
		return r;
	}
	return 0;
}
