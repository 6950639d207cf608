#ifndef VMM_KVM_DEVICE_H
#define VMM_KVM_DEVICE_H

/*
 * Devices that KVM itself models (the interrupt controllers of arm): each is a
 * file with attributes, named by a group and a number.
 */

#include "vmm/kvm/vm.h"

struct kvm_device {
	int fd; /* owns; 0 or below: none */
};

/* Create @vm's device of @type (KVM_DEV_TYPE_...). 0 or -errno: -ENODEV, this KVM has none. */
int kvm_device_create(struct kvm_device *ret_device, struct vm *vm, uint32_t type);
/* Accepts a zeroed device. Its VM keeps the device itself. */
void kvm_device_finish(struct kvm_device *device);

/*
 * Write or read an attribute; @value is what KVM's documentation says, or NULL
 * where writing is the whole command. 0 or -errno. Any thread.
 */
int kvm_device_set(const struct kvm_device *device, uint32_t group, uint64_t attr,
		   const void *value);
int kvm_device_get(const struct kvm_device *device, uint32_t group, uint64_t attr, void *value);

#endif
