/* What a device that is passed through needs of the VM: memory slots, KVM's VFIO device. */
#include "vmm/kvm/vm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "vmm/base/log.h"
#include "vmm/kvm/internal.h"

static struct vm *slots_vm(struct mem_slots *slots)
{
	return container_of(slots, struct vm, slots.slots);
}

static int set_slot(struct vm *vm, unsigned slot, uint64_t gpa, uint64_t size, void *host)
{
	struct kvm_userspace_memory_region region = {
		.slot = RAM_MAX_REGIONS + slot,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)host,
	};

	return kvm_fd_ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

static void tell_changed(struct mem_slots *slots)
{
	if (slots->changed)
		slots->changed(slots->changed_opaque);
}

static int slots_add(struct mem_slots *slots, gpa_t gpa, uint64_t size, void *host,
		     unsigned *ret_slot)
{
	struct vm *vm = slots_vm(slots);
	unsigned slot = 0;
	int r = -ENOSPC;

	pthread_mutex_lock(&vm->slots.lock);
	while (slot < VM_MAX_SLOTS && vm->slots.slot[slot].size)
		slot++;
	if (slot < VM_MAX_SLOTS)
		r = set_slot(vm, slot, gpa.v, size, host);
	if (r == 0) {
		vm->slots.slot[slot].gpa = gpa.v;
		vm->slots.slot[slot].size = size;
		vm->slots.slot[slot].host = host;
		*ret_slot = slot;
	}
	pthread_mutex_unlock(&vm->slots.lock);
	if (r == 0)
		tell_changed(slots);
	return r;
}

static void slots_remove(struct mem_slots *slots, unsigned slot)
{
	struct vm *vm = slots_vm(slots);
	struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };
	int r;

	pthread_mutex_lock(&vm->slots.lock);
	/* The host may be short of memory for a moment. */
	for (unsigned i = 0; (r = set_slot(vm, slot, 0, 0, NULL)) == -ENOMEM && i < 100; i++)
		nanosleep(&pause, NULL);
	if (r < 0) {
		/* What takes this place in moat's memory next would be the guest's. */
		log_error("KVM can't take registers away from the guest, so moat stops: %s",
			  strerror(-r));
		abort();
	}
	vm->slots.slot[slot].size = 0;
	pthread_mutex_unlock(&vm->slots.lock);
	tell_changed(slots);
}

static void *slots_find(struct mem_slots *slots, gpa_t gpa, uint64_t size)
{
	struct vm *vm = slots_vm(slots);
	void *host = NULL;

	pthread_mutex_lock(&vm->slots.lock);
	for (unsigned i = 0; i < VM_MAX_SLOTS && !host; i++) {
		uint64_t offset = gpa.v - vm->slots.slot[i].gpa;

		if (size && gpa.v >= vm->slots.slot[i].gpa && size <= vm->slots.slot[i].size &&
		    offset <= vm->slots.slot[i].size - size)
			host = (char *)vm->slots.slot[i].host + offset;
	}
	pthread_mutex_unlock(&vm->slots.lock);
	return host;
}

static void slots_drop_file(struct mem_slots *slots, int fd)
{
	int32_t file = fd;

	kvm_device_set(&slots_vm(slots)->vfio, KVM_DEV_VFIO_GROUP, KVM_DEV_VFIO_GROUP_DEL, &file);
}

static const struct mem_slots_ops slots_ops = {
	.add = slots_add,
	.remove = slots_remove,
	.drop_file = slots_drop_file,
	.find = slots_find,
};

void vm_slots_init(struct vm *vm)
{
	vm->slots.slots.ops = &slots_ops;
	pthread_mutex_init(&vm->slots.lock, NULL);
}

void vm_slots_finish(struct vm *vm)
{
	kvm_device_finish(&vm->vfio);
	pthread_mutex_destroy(&vm->slots.lock);
}

struct mem_slots *vm_mem_slots(struct vm *vm)
{
	return &vm->slots.slots;
}

int vm_add_vfio(struct vm *vm, int fd, struct err *err)
{
	int32_t group = fd;
	int r = 0;

	if (vm->vfio.fd <= 0)
		r = kvm_device_create(&vm->vfio, vm, KVM_DEV_TYPE_VFIO);
	if (r == 0)
		r = kvm_device_set(&vm->vfio, KVM_DEV_VFIO_GROUP, KVM_DEV_VFIO_GROUP_ADD, &group);
	/* Several devices of a group are told of as the one group. */
	return r < 0 && r != -EEXIST
		       ? err_set(err, -r, "KVM refuses a VFIO device: %s", strerror(-r))
		       : 0;
}
