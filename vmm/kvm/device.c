#include "vmm/kvm/device.h"

#include <unistd.h>
#include "vmm/kvm/internal.h"

int kvm_device_create(struct kvm_device *ret_device, struct vm *vm, uint32_t type)
{
	struct kvm_create_device create = { .type = type };
	int r = kvm_fd_ioctl(vm->fd, KVM_CREATE_DEVICE, &create);

	if (r < 0)
		return r;
	ret_device->fd = (int)create.fd;
	return 0;
}

void kvm_device_finish(struct kvm_device *device)
{
	if (device->fd > 0)
		close(device->fd);
	device->fd = 0;
}

static int device_attr(const struct kvm_device *device, unsigned long request, uint32_t group,
		       uint64_t attr, const void *value)
{
	struct kvm_device_attr a = {
		.group = group,
		.attr = attr,
		.addr = (uintptr_t)value,
	};

	return kvm_fd_ioctl(device->fd, request, &a);
}

int kvm_device_set(const struct kvm_device *device, uint32_t group, uint64_t attr,
		   const void *value)
{
	return device_attr(device, KVM_SET_DEVICE_ATTR, group, attr, value);
}

int kvm_device_get(const struct kvm_device *device, uint32_t group, uint64_t attr, void *value)
{
	return device_attr(device, KVM_GET_DEVICE_ATTR, group, attr, value);
}
