#include "arch/aarch64/a64.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#define REG_PC (KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(regs.pc))

static uint64_t vcpu_pc(struct vcpu *vcpu)
{
	uint64_t pc = 0;

	a64_get_reg(vcpu, REG_PC, &pc);
	return pc;
}

/*
 * The guest accessed a device with an instruction that the hardware doesn't take
 * apart (a pair, a vector, write-back). No driver does that on purpose. It gets
 * what a bus without a device there would give: an external abort.
 */
static int exit_strange_access(struct vcpu *vcpu, struct err *err)
{
	struct kvm_vcpu_events events = { .exception.ext_dabt_pending = 1 };
	int r = vcpu_ioctl(vcpu, KVM_SET_VCPU_EVENTS, &events);

	if (r < 0)
		return err_set(err, -r,
			       "KVM can't abort the guest's access at pc 0x%" PRIx64 ": %s",
			       vcpu_pc(vcpu), strerror(-r));
	return 0;
}

static int a64_exit(struct vcpu *vcpu, void *opaque, struct power *power, struct err *err)
{
	const struct kvm_run *run = opaque;

	switch (run->exit_reason) {
	case KVM_EXIT_ARM_NISV:
		return exit_strange_access(vcpu, err);
	case KVM_EXIT_INTERNAL_ERROR:
		return err_set(err, EIO, "KVM internal error %u at pc 0x%" PRIx64,
			       run->internal.suberror, vcpu_pc(vcpu));
	case KVM_EXIT_FAIL_ENTRY:
		return err_set(err, EIO,
			       "the hardware refuses to enter the guest, reason 0x%" PRIx64
			       ", pc 0x%" PRIx64,
			       (uint64_t)run->fail_entry.hardware_entry_failure_reason,
			       vcpu_pc(vcpu));
	default:
		return err_set(err, EIO, "unexpected KVM exit %u at pc 0x%" PRIx64,
			       run->exit_reason, vcpu_pc(vcpu));
	}
}

const struct vcpu_arch_ops a64_vcpu_ops = { .exit = a64_exit };
