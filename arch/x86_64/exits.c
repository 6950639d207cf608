#include "arch/x86_64/x86.h"

#include <errno.h>
#include <inttypes.h>

static uint64_t vcpu_rip(struct vcpu *vcpu)
{
	struct kvm_regs regs = { 0 };

	vcpu_ioctl(vcpu, KVM_GET_REGS, &regs);
	return regs.rip;
}

static int exit_internal_error(struct vcpu *vcpu, const struct kvm_run *run, struct err *err)
{
	static const char *const what[] = {
		[0] = "unknown",
		[KVM_INTERNAL_ERROR_EMULATION] = "it can't emulate the guest's instruction",
		[KVM_INTERNAL_ERROR_SIMUL_EX] = "simultaneous exceptions",
		[KVM_INTERNAL_ERROR_DELIVERY_EV] = "exit while an event was delivered",
		[KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] = "unexpected exit of the hardware",
	};
	uint32_t suberror = run->internal.suberror;

	return err_set(err, EIO, "KVM internal error %u (%s) at rip 0x%" PRIx64, suberror,
		       suberror < ARRAY_SIZE(what) && what[suberror] ? what[suberror] : "unknown",
		       vcpu_rip(vcpu));
}

static int x86_exit(struct vcpu *vcpu, void *opaque, struct power *power, struct err *err)
{
	const struct kvm_run *run = opaque;

	switch (run->exit_reason) {
	case KVM_EXIT_SHUTDOWN: /* a triple fault: a reset on every PC */
		vcpu_request_stop(vcpu);
		power_request(power, POWER_RESET);
		return 0;
	case KVM_EXIT_INTERNAL_ERROR:
		return exit_internal_error(vcpu, run, err);
	case KVM_EXIT_FAIL_ENTRY:
		return err_set(err, EIO,
			       "the hardware refuses to enter the guest, reason 0x%" PRIx64
			       ", rip 0x%" PRIx64,
			       (uint64_t)run->fail_entry.hardware_entry_failure_reason,
			       vcpu_rip(vcpu));
	default:
		return err_set(err, EIO, "unexpected KVM exit %u at rip 0x%" PRIx64,
			       run->exit_reason, vcpu_rip(vcpu));
	}
}

const struct vcpu_arch_ops x86_vcpu_ops = { .exit = x86_exit };
