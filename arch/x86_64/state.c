#include "arch/x86_64/x86.h"

/*
 * A vCPU's power-on state. KVM has no "reset this vCPU", so everything that a
 * guest can change is read once after creation and written back on a reset. The
 * lists of MSRs come from KVM; what a particular KVM can't read is left out, and
 * what it refuses to take back is skipped: such an MSR is a constant there.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/base/cleanup.h"

#define MSR_TSC	      0x10
#define MSRS_PER_CALL 256 /* KVM takes fewer than this in one call */

/* KVM's list of MSRs to save leaves out the memory types. */
static const uint32_t mtrrs[] = {
	0x2ff, 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d,
	0x26e, 0x26f, 0x200, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x207,
	0x208, 0x209, 0x20a, 0x20b, 0x20c, 0x20d, 0x20e, 0x20f,
};

/* Run KVM_GET_MSRS or KVM_SET_MSRS over @msrs, leaving out what KVM refuses. */
static int msrs_transfer(struct vcpu *vcpu, unsigned long request, struct kvm_msrs *msrs)
{
	_cleanup_free_ struct kvm_msrs *part =
		malloc(sizeof(*part) + MSRS_PER_CALL * sizeof(part->entries[0]));
	uint32_t kept = 0, done = 0;

	if (!part)
		return -ENOMEM;
	while (done < msrs->nmsrs) {
		uint32_t n = MIN(msrs->nmsrs - done, MSRS_PER_CALL - 1u);

		part->nmsrs = n;
		part->pad = 0;
		memcpy(part->entries, &msrs->entries[done], n * sizeof(part->entries[0]));
		int r = vcpu_ioctl(vcpu, request, part);

		if (r < 0)
			return r;
		/* KVM stops at the first that it refuses: the one after @r good ones. */
		uint32_t good = MIN((uint32_t)r, n);

		memmove(&msrs->entries[kept], part->entries, good * sizeof(part->entries[0]));
		kept += good;
		done += good < n ? good + 1 : n;
	}
	msrs->nmsrs = kept;
	return 0;
}

static int msrs_save(struct x86_cpu_state *state, struct vcpu *vcpu)
{
	struct kvm_msr_list probe = { .nmsrs = 0 };
	int r = vm_kvm_ioctl(vcpu_vm(vcpu), KVM_GET_MSR_INDEX_LIST, &probe);

	if (r < 0 && r != -E2BIG)
		return r;
	_cleanup_free_ struct kvm_msr_list *list =
		malloc(sizeof(*list) + probe.nmsrs * sizeof(list->indices[0]));
	uint32_t total = probe.nmsrs + ARRAY_SIZE(mtrrs);

	state->msrs = calloc(1, sizeof(*state->msrs) + total * sizeof(struct kvm_msr_entry));
	if (!list || !state->msrs)
		return -ENOMEM;
	list->nmsrs = probe.nmsrs;
	r = vm_kvm_ioctl(vcpu_vm(vcpu), KVM_GET_MSR_INDEX_LIST, list);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < list->nmsrs; i++)
		state->msrs->entries[state->msrs->nmsrs++].index = list->indices[i];
	for (uint32_t i = 0; i < ARRAY_SIZE(mtrrs); i++)
		state->msrs->entries[state->msrs->nmsrs++].index = mtrrs[i];
	r = msrs_transfer(vcpu, KVM_GET_MSRS, state->msrs);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < state->msrs->nmsrs; i++) {
		/*
		 * Writing 0 is KVM's way of saying "in step with the other vCPUs";
		 * the values read here differ by the time between two reads.
		 */
		if (state->msrs->entries[i].index == MSR_TSC)
			state->msrs->entries[i].data = 0;
	}
	return 0;
}

/* FPU and vector registers; XSAVE covers all of them, where there is XSAVE. */
static int xsave_save(struct x86_cpu_state *state, struct vcpu *vcpu)
{
	int size = vm_extension(vcpu_vm(vcpu), KVM_CAP_XSAVE2);
	unsigned long request = KVM_GET_XSAVE;

	if (size > (int)sizeof(struct kvm_xsave))
		request = KVM_GET_XSAVE2;
	else
		size = sizeof(struct kvm_xsave);
	state->xsave = calloc(1, (size_t)size);
	if (!state->xsave)
		return -ENOMEM;
	state->has_xsave = vcpu_ioctl(vcpu, request, state->xsave) >= 0;
	return 0;
}

int x86_state_save(struct x86_cpu_state *state, struct vcpu *vcpu, struct err *err)
{
	const struct {
		unsigned long request;
		void *data;
		const char *name;
	} parts[] = {
		{ KVM_GET_MP_STATE, &state->mp_state, "MP state" },
		{ KVM_GET_REGS, &state->regs, "registers" },
		{ KVM_GET_SREGS, &state->sregs, "system registers" },
		{ KVM_GET_FPU, &state->fpu, "FPU" },
		{ KVM_GET_DEBUGREGS, &state->debugregs, "debug registers" },
		{ KVM_GET_VCPU_EVENTS, &state->events, "events" },
		{ KVM_GET_LAPIC, &state->lapic, "local APIC" },
	};
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		r = vcpu_ioctl(vcpu, parts[i].request, parts[i].data);
		if (r < 0)
			return err_set(err, -r, "vCPU %u: KVM can't read the %s: %s",
				       vcpu_index(vcpu), parts[i].name, strerror(-r));
	}
	/* Also clear what the flags of the read leave as it is. */
	state->events.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
			       KVM_VCPUEVENT_VALID_SHADOW;
	state->has_xcrs = vcpu_ioctl(vcpu, KVM_GET_XCRS, &state->xcrs) >= 0;
	r = xsave_save(state, vcpu);
	if (!r)
		r = msrs_save(state, vcpu);
	if (r < 0)
		return err_set(err, -r, "vCPU %u: KVM can't read its state: %s", vcpu_index(vcpu),
			       strerror(-r));
	return 0;
}

static int msrs_restore(const struct x86_cpu_state *state, struct vcpu *vcpu)
{
	size_t size = sizeof(*state->msrs) + state->msrs->nmsrs * sizeof(struct kvm_msr_entry);
	_cleanup_free_ struct kvm_msrs *copy = malloc(size);

	if (!copy)
		return -ENOMEM;
	memcpy(copy, state->msrs, size);
	return msrs_transfer(vcpu, KVM_SET_MSRS, copy);
}

int x86_state_restore(const struct x86_cpu_state *state, struct vcpu *vcpu, struct err *err)
{
	/*
	 * The order matters: the system registers decide what the MSRs and the
	 * local APIC accept (APIC mode), and XCR0 what XSAVE may hold.
	 */
	const struct {
		unsigned long request;
		const void *data;
		const char *name;
	} parts[] = {
		{ KVM_SET_SREGS, &state->sregs, "system registers" },
		{ KVM_SET_REGS, &state->regs, "registers" },
		{ KVM_SET_XCRS, state->has_xcrs ? &state->xcrs : NULL, "XCR0" },
		{ KVM_SET_FPU, state->has_xsave ? NULL : &state->fpu, "FPU" },
		{ KVM_SET_XSAVE, state->has_xsave ? state->xsave : NULL, "vector registers" },
		{ KVM_SET_DEBUGREGS, &state->debugregs, "debug registers" },
		{ KVM_SET_LAPIC, &state->lapic, "local APIC" },
		{ KVM_SET_VCPU_EVENTS, &state->events, "events" },
		{ KVM_SET_MP_STATE, &state->mp_state, "MP state" },
	};
	struct kvm_mp_state now;
	int r;

	/* Reading the MP state makes KVM take in an INIT or SIPI that is still pending. */
	vcpu_ioctl(vcpu, KVM_GET_MP_STATE, &now);
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (!parts[i].data)
			continue;
		r = vcpu_ioctl(vcpu, parts[i].request, (void *)parts[i].data);
		if (r < 0)
			return err_set(err, -r, "vCPU %u: KVM can't reset the %s: %s",
				       vcpu_index(vcpu), parts[i].name, strerror(-r));
		if (i == 0) {
			r = msrs_restore(state, vcpu);
			if (r < 0)
				return err_set(err, -r, "vCPU %u: KVM can't reset the MSRs: %s",
					       vcpu_index(vcpu), strerror(-r));
		}
	}
	return 0;
}

void x86_state_finish(struct x86_cpu_state *state)
{
	free(state->xsave);
	free(state->msrs);
}
