#include "vmm/kvm/vm.h"

/*
 * One thread per vCPU, and how it is stopped.
 *
 *	               vcpu_start                    vcpu_stop, vcpu_request_stop
 *	wanted = true, immediate_exit = 0      wanted = false, immediate_exit = 1, signal
 *	  parked ------------------> running: KVM_RUN, exit, KVM_RUN, ...
 *	     ^                                     |
 *	     +------ KVM_RUN says EINTR and not wanted
 *
 * The signal ends a KVM_RUN that is under way; immediate_exit ends one that is
 * about to begin, so no kick is lost between the look at `wanted` and the
 * system call. `wanted` is looked at only after EINTR: an exit that was served is
 * always followed by one more KVM_RUN, because only that call completes the
 * guest's instruction (it takes the value of a read, and advances past a write).
 * With immediate_exit set it completes it, runs no guest code, and says EINTR. A
 * parked vCPU therefore has consistent registers, and nothing pending that would
 * be written over the registers of a machine reset.
 */

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "vmm/base/log.h"
#include "vmm/kvm/internal.h"

struct vcpu {
	struct vm *vm; /* borrows */
	unsigned index;
	int fd;		     /* owns */
	struct kvm_run *run; /* owns; the pages shared with KVM */
	const struct vcpu_arch_ops *ops;
	pthread_t thread;
	pthread_mutex_t lock;	/* protects what follows */
	pthread_cond_t changed; /* of wanted, running or quit */
	bool has_thread;
	bool wanted;  /* it shall run guest code */
	bool running; /* it is between leaving and entering the parked state */
	bool quit;    /* the thread shall end */
};

/* Exits ------------------------------------------------------------------- */

static void exit_mmio(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	uint64_t addr = run->mmio.phys_addr, value = 0;
	unsigned len = MIN(run->mmio.len, sizeof(run->mmio.data));

	if (run->mmio.is_write) {
		memcpy(&value, run->mmio.data, len);
		bus_write(vcpu->vm->mmio, addr, len, value);
	} else {
		value = UINT64_MAX;
		bus_read(vcpu->vm->mmio, addr, len, &value);
		memcpy(run->mmio.data, &value, len);
	}
}

/* A string instruction arrives as one exit with a count of accesses to one port. */
static void exit_io(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	unsigned size = run->io.size;

	for (uint32_t i = 0; i < run->io.count; i++, data += size) {
		uint64_t value = 0;

		if (run->io.direction == KVM_EXIT_IO_OUT) {
			memcpy(&value, data, size);
			if (vcpu->vm->pio)
				bus_write(vcpu->vm->pio, run->io.port, size, value);
		} else {
			value = UINT64_MAX;
			if (vcpu->vm->pio)
				bus_read(vcpu->vm->pio, run->io.port, size, &value);
			memcpy(data, &value, size);
		}
	}
}

static void vcpu_crash(struct vcpu *vcpu, const struct err *err)
{
	log_error("vCPU %u: %s", vcpu->index, err->text);
	vcpu_request_stop(vcpu);
	power_request(vcpu->vm->power, POWER_CRASH);
}

/* The guest asked the firmware that KVM models (PSCI on arm) to end it all. */
static int exit_system_event(struct vcpu *vcpu, struct err *err)
{
	const struct kvm_run *run = vcpu->run;
	enum power_event event;

	switch (run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		event = POWER_OFF;
		break;
	case KVM_SYSTEM_EVENT_RESET:
		event = POWER_RESET;
		break;
	default:
		return err_set(err, EIO, "KVM system event %u", run->system_event.type);
	}
	vcpu_request_stop(vcpu);
	power_request(vcpu->vm->power, event);
	return 0;
}

static void vcpu_serve_exit(struct vcpu *vcpu)
{
	struct err err = { "" };
	int r = 0;

	switch (vcpu->run->exit_reason) {
	case KVM_EXIT_MMIO:
		exit_mmio(vcpu);
		break;
	case KVM_EXIT_IO:
		exit_io(vcpu);
		break;
	case KVM_EXIT_INTR:
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		r = exit_system_event(vcpu, &err);
		break;
	default:
		r = vcpu->ops->exit(vcpu, vcpu->run, vcpu->vm->power, &err);
	}
	if (r < 0)
		vcpu_crash(vcpu, &err);
}

/* The thread -------------------------------------------------------------- */

static bool vcpu_is_wanted(struct vcpu *vcpu)
{
	pthread_mutex_lock(&vcpu->lock);
	bool wanted = vcpu->wanted;

	pthread_mutex_unlock(&vcpu->lock);
	return wanted;
}

static void vcpu_run(struct vcpu *vcpu)
{
	vm_note_run(vcpu->vm);
	for (;;) {
		struct err err;

		if (ioctl(vcpu->fd, KVM_RUN, NULL) == 0) {
			vcpu_serve_exit(vcpu);
			continue;
		}
		switch (errno) {
		case EINTR:
			if (!vcpu_is_wanted(vcpu))
				return;
			break;
		case EAGAIN: /* a waiting AP got its INIT or SIPI */
			break;
		default:
			err_set(&err, errno, "KVM_RUN: %s (exit reason %u)", strerror(errno),
				vcpu->run->exit_reason);
			vcpu_crash(vcpu, &err);
			return;
		}
	}
}

/* Signals for the process are the main thread's; faults and the kick are ours. */
static void vcpu_mask_signals(void)
{
	const int ours[] = { vcpu_kick_signal(), SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGSYS, SIGABRT };
	sigset_t set;

	sigfillset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		sigdelset(&set, ours[i]);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
}

static void *vcpu_thread(void *opaque)
{
	struct vcpu *vcpu = opaque;
	char name[16];

	snprintf(name, sizeof(name), "vcpu%u", vcpu->index);
	pthread_setname_np(pthread_self(), name);
	vcpu_mask_signals();
	pthread_mutex_lock(&vcpu->lock);
	while (!vcpu->quit) {
		if (!vcpu->wanted) {
			pthread_cond_wait(&vcpu->changed, &vcpu->lock);
			continue;
		}
		vcpu->running = true;
		pthread_mutex_unlock(&vcpu->lock);
		vcpu_run(vcpu);
		pthread_mutex_lock(&vcpu->lock);
		vcpu->running = false;
		pthread_cond_broadcast(&vcpu->changed);
	}
	pthread_mutex_unlock(&vcpu->lock);
	return NULL;
}

/* Control ----------------------------------------------------------------- */

int vcpu_create(struct vcpu **ret_vcpu, struct vm *vm, unsigned index, unsigned long id,
		const struct vcpu_arch_ops *ops, struct err *err)
{
	struct vcpu *vcpu = calloc(1, sizeof(*vcpu));

	if (!vcpu)
		return err_set(err, ENOMEM, "out of memory");
	vcpu->vm = vm;
	vcpu->index = index;
	vcpu->ops = ops;
	pthread_mutex_init(&vcpu->lock, NULL);
	pthread_cond_init(&vcpu->changed, NULL);
	vcpu->fd = kvm_fd_ioctl(vm->fd, KVM_CREATE_VCPU, (void *)id);
	if (vcpu->fd < 0) {
		int code = -vcpu->fd;

		vcpu_destroy(vcpu);
		return err_set(err, code, "KVM can't create vCPU %u: %s", index, strerror(code));
	}
	void *run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);

	if (run == MAP_FAILED) {
		int code = errno;

		vcpu_destroy(vcpu);
		return err_set(err, code, "mmap of vCPU %u: %s", index, strerror(code));
	}
	vcpu->run = run;
	*ret_vcpu = vcpu;
	return 0;
}

int vcpu_ioctl(struct vcpu *vcpu, unsigned long request, void *arg)
{
	return kvm_fd_ioctl(vcpu->fd, request, arg);
}

unsigned vcpu_index(const struct vcpu *vcpu)
{
	return vcpu->index;
}

struct vm *vcpu_vm(const struct vcpu *vcpu)
{
	return vcpu->vm;
}

int vcpu_start(struct vcpu *vcpu)
{
	int r = 0;

	pthread_mutex_lock(&vcpu->lock);
	if (!vcpu->has_thread) {
		r = -pthread_create(&vcpu->thread, NULL, vcpu_thread, vcpu);
		vcpu->has_thread = !r;
	}
	if (!r) {
		__atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_RELAXED);
		vcpu->wanted = true;
		pthread_cond_broadcast(&vcpu->changed);
	}
	pthread_mutex_unlock(&vcpu->lock);
	return r;
}

/*
 * The lock makes the two words one: a vcpu_start in between can't leave a
 * wanted vCPU with immediate_exit set.
 */
static void vcpu_kick_locked(struct vcpu *vcpu)
{
	vcpu->wanted = false;
	__atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_RELAXED);
	if (vcpu->has_thread && !pthread_equal(vcpu->thread, pthread_self()))
		pthread_kill(vcpu->thread, vcpu_kick_signal());
}

void vcpu_request_stop(struct vcpu *vcpu)
{
	pthread_mutex_lock(&vcpu->lock);
	vcpu_kick_locked(vcpu);
	pthread_mutex_unlock(&vcpu->lock);
}

void vcpu_stop(struct vcpu *vcpu)
{
	pthread_mutex_lock(&vcpu->lock);
	vcpu_kick_locked(vcpu);
	while (vcpu->running)
		pthread_cond_wait(&vcpu->changed, &vcpu->lock);
	pthread_mutex_unlock(&vcpu->lock);
}

void vcpu_destroy(struct vcpu *vcpu)
{
	if (!vcpu)
		return;
	if (vcpu->has_thread) {
		pthread_mutex_lock(&vcpu->lock);
		vcpu_kick_locked(vcpu);
		vcpu->quit = true;
		pthread_cond_broadcast(&vcpu->changed);
		pthread_mutex_unlock(&vcpu->lock);
		pthread_join(vcpu->thread, NULL);
	}
	if (vcpu->run)
		munmap(vcpu->run, vcpu->vm->run_size);
	if (vcpu->fd >= 0)
		close(vcpu->fd);
	pthread_cond_destroy(&vcpu->changed);
	pthread_mutex_destroy(&vcpu->lock);
	free(vcpu);
}
