#include "vmm/kvm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include "vmm/base/cleanup.h"
#include "vmm/kvm/internal.h"

#define KVM_DEVICE "/dev/kvm"

int kvm_fd_ioctl(int fd, unsigned long request, void *arg)
{
	int r;

	do {
		r = ioctl(fd, request, arg);
	} while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

static int kvm_open(struct err *err)
{
	int fd = open(KVM_DEVICE, O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	int code = errno;

	if (code == ENOENT || code == ENODEV || code == ENXIO)
		return err_set(err, code,
			       "no " KVM_DEVICE ": load the KVM module (kvm_intel or kvm_amd on "
			       "x86), or run on a host with virtualization");
	if (code == EACCES || code == EPERM)
		return err_set(err, code,
			       KVM_DEVICE ": permission denied: add yourself to group kvm");
	return err_set(err, code, KVM_DEVICE ": %s", strerror(code));
}

static int vm_check_kvm(int kvm_fd, struct err *err)
{
	static const struct {
		int cap;
		const char *name;
	} needed[] = {
		{ KVM_CAP_USER_MEMORY, "user memory" },
		{ KVM_CAP_IRQFD, "irqfd" },
		{ KVM_CAP_IOEVENTFD, "ioeventfd" },
		{ KVM_CAP_IMMEDIATE_EXIT, "immediate_exit" },
		{ KVM_CAP_IRQ_ROUTING, "IRQ routing" },
		{ KVM_CAP_MP_STATE, "MP state" },
	};
	int version = kvm_fd_ioctl(kvm_fd, KVM_GET_API_VERSION, NULL);

	if (version != KVM_API_VERSION)
		return err_set(err, ENODEV, KVM_DEVICE ": API version %d, need %d", version,
			       KVM_API_VERSION);
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		if (kvm_fd_ioctl(kvm_fd, KVM_CHECK_EXTENSION, (void *)(long)needed[i].cap) <= 0)
			return err_set(err, ENODEV, KVM_DEVICE ": this KVM has no %s",
				       needed[i].name);
	}
	return 0;
}

/* Show the guest each region of RAM; slot number = region number. */
static int vm_add_memory(struct vm *vm, struct err *err)
{
	for (unsigned i = 0; i < vm->ram->count; i++) {
		const struct ram_region *region = &vm->ram->region[i];
		struct kvm_userspace_memory_region slot = {
			.slot = i,
			.guest_phys_addr = region->base.v,
			.memory_size = region->size,
			.userspace_addr = (uintptr_t)region->host,
		};
		int r = kvm_fd_ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &slot);

		if (r < 0)
			return err_set(err, -r,
				       "KVM refuses guest memory at 0x%" PRIx64 ", %" PRIu64
				       " bytes: %s",
				       region->base.v, region->size, strerror(-r));
	}
	return 0;
}

static int vm_doorbell(struct vm *vm, bool port_io, const struct doorbell *bell, uint32_t flags)
{
	struct kvm_ioeventfd ioeventfd = {
		.addr = bell->addr,
		.len = bell->size,
		.fd = bell->eventfd,
		.datamatch = bell->match ? bell->value : 0,
		.flags = flags,
	};

	if (port_io)
		ioeventfd.flags |= KVM_IOEVENTFD_FLAG_PIO;
	if (bell->match)
		ioeventfd.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
	return kvm_fd_ioctl(vm->fd, KVM_IOEVENTFD, &ioeventfd);
}

static int vm_doorbell_attach(void *opaque, bool port_io, const struct doorbell *bell)
{
	return vm_doorbell(opaque, port_io, bell, 0);
}

static void vm_doorbell_detach(void *opaque, bool port_io, const struct doorbell *bell)
{
	vm_doorbell(opaque, port_io, bell, KVM_IOEVENTFD_FLAG_DEASSIGN);
}

static const struct doorbell_ops vm_doorbell_ops = {
	.attach = vm_doorbell_attach,
	.detach = vm_doorbell_detach,
};

int vcpu_kick_signal(void)
{
	return SIGRTMIN;
}

static void vcpu_kicked(int signal)
{
	/* Nothing to do: the signal's arrival is what ends KVM_RUN. */
}

/* Without SA_RESTART, so that a kick also ends a handler's blocking call. */
static int vm_install_kick(struct err *err)
{
	struct sigaction action = { .sa_handler = vcpu_kicked };

	sigemptyset(&action.sa_mask);
	if (sigaction(vcpu_kick_signal(), &action, NULL) < 0)
		return err_set(err, errno, "sigaction: %s", strerror(errno));
	return 0;
}

static int vm_init(struct vm *vm, unsigned long type, struct err *err)
{
	vm->kvm_fd = kvm_open(err);
	if (vm->kvm_fd < 0)
		return vm->kvm_fd;
	int r = vm_check_kvm(vm->kvm_fd, err);

	if (r < 0)
		return r;
	r = kvm_fd_ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, NULL);
	if (r < (int)sizeof(struct kvm_run))
		return err_set(err, ENODEV, KVM_DEVICE ": no room for struct kvm_run");
	vm->run_size = (size_t)r;
	vm->fd = kvm_fd_ioctl(vm->kvm_fd, KVM_CREATE_VM, (void *)type);
	if (vm->fd < 0)
		return err_set(err, -vm->fd, "KVM can't create a virtual machine: %s",
			       strerror(-vm->fd));
	r = vm_install_kick(err);
	if (r < 0)
		return r;
	r = vm_irq_init(vm, err);
	if (r < 0)
		return r;
	return vm_add_memory(vm, err);
}

int vm_create(struct vm **ret_vm, unsigned long type, struct ram *ram, struct bus *mmio,
	      struct bus *pio, struct power *power, struct err *err)
{
	struct vm *vm = calloc(1, sizeof(*vm));

	if (!vm)
		return err_set(err, ENOMEM, "out of memory");
	vm->kvm_fd = vm->fd = -1;
	vm_slots_init(vm);
	vm->ram = ram;
	vm->mmio = mmio;
	vm->pio = pio;
	vm->power = power;
	int r = vm_init(vm, type, err);

	if (r < 0) {
		vm_destroy(vm);
		return r;
	}
	bus_set_doorbells(mmio, &vm_doorbell_ops, vm);
	if (pio)
		bus_set_doorbells(pio, &vm_doorbell_ops, vm);
	*ret_vm = vm;
	return 0;
}

void vm_destroy(struct vm *vm)
{
	if (!vm)
		return;
	vm_irq_finish(vm);
	vm_slots_finish(vm);
	if (vm->fd >= 0)
		close(vm->fd);
	if (vm->kvm_fd >= 0)
		close(vm->kvm_fd);
	free(vm);
}

int vm_ioctl(struct vm *vm, unsigned long request, void *arg)
{
	return kvm_fd_ioctl(vm->fd, request, arg);
}

int vm_kvm_ioctl(struct vm *vm, unsigned long request, void *arg)
{
	return kvm_fd_ioctl(vm->kvm_fd, request, arg);
}

int vm_extension(struct vm *vm, int capability)
{
	int r = kvm_fd_ioctl(vm->fd, KVM_CHECK_EXTENSION, (void *)(long)capability);

	return r < 0 ? 0 : r;
}

int kvm_host_extension(int capability)
{
	int fd = open(KVM_DEVICE, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return 0;
	int r = kvm_fd_ioctl(fd, KVM_CHECK_EXTENSION, (void *)(long)capability);

	close(fd);
	return r < 0 ? 0 : r;
}

struct ram *vm_ram(const struct vm *vm)
{
	return vm->ram;
}

void vm_note_run(struct vm *vm)
{
	uint64_t unset = 0;
	struct timespec ts;

	if (atomic_load_explicit(&vm->first_run_ns, memory_order_relaxed))
		return;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	atomic_compare_exchange_strong(&vm->first_run_ns, &unset,
				       (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec);
}

uint64_t vm_first_run_ns(const struct vm *vm)
{
	return atomic_load_explicit(&vm->first_run_ns, memory_order_relaxed);
}
