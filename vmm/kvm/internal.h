#ifndef VMM_KVM_INTERNAL_H
#define VMM_KVM_INTERNAL_H

/* What vm.c, irq.c and vcpu.c share; nobody else includes it. */

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include "vmm/kvm/device.h"
#include "vmm/kvm/vm.h"

struct vm_line;

/*
 * Interrupt routing. KVM has one table of routes, GSI -> pin or MSI message,
 * that is only ever replaced whole; `table` is our copy and the only place
 * where it is built.
 */
struct vm_irq {
	struct msi_sink sink;
	pthread_mutex_t lock;	       /* protects everything below */
	struct kvm_irq_routing *table; /* owns; room for `limit` entries, pins first */
	unsigned limit;		       /* KVM_CAP_IRQ_ROUTING: routes, and GSIs */
	unsigned num_pins;	       /* entries of the chips at the table's start */
	uint32_t first_msi_gsi;	       /* GSIs from here up belong to MSI vectors */
	struct msi_vector **vector;    /* owns; by GSI - first_msi_gsi, NULL = free */
	unsigned num_vectors;	       /* highest used slot + 1 */
	bool has_devid;		       /* messages carry the requester ID (GICv3 ITS) */
	uint32_t line_base;	       /* KVM_IRQ_LINE's number of GSI 0 */
	struct {		       /* vm_set_msi_pins; count 0: there is no such doorbell */
		gpa_t doorbell;
		uint32_t data_base, first_gsi, count;
	} msi_pins;
	struct vm_line *lines; /* owns; singly linked */
};

/* KVM's slots that aren't RAM: these numbers from RAM_MAX_REGIONS up. */
#define VM_MAX_SLOTS 256

struct vm_slots {
	struct mem_slots slots;
	pthread_mutex_t lock; /* protects `slot` */
	struct {
		uint64_t gpa, size; /* size 0: free */
		void *host;	    /* borrows */
	} slot[VM_MAX_SLOTS];
};

struct vm {
	int kvm_fd, fd;		/* own: /dev/kvm and the VM */
	struct ram *ram;	/* borrows */
	struct bus *mmio, *pio; /* borrow */
	struct power *power;	/* borrows */
	size_t run_size;	/* bytes of the shared struct kvm_run */
	_Atomic uint64_t first_run_ns;
	struct vm_irq irq;
	struct vm_slots slots;
	struct kvm_device vfio; /* owns; none until a device is passed through */
};

/* Set up the routing state of a new @vm. 0 or -errno with words in @err. */
int vm_irq_init(struct vm *vm, struct err *err);
/* Free lines and what vectors are left. Accepts a zeroed vm. */
void vm_irq_finish(struct vm *vm);

/* Set up the memory slots of a new @vm, and undo that. */
void vm_slots_init(struct vm *vm);
void vm_slots_finish(struct vm *vm);

/* Note the time of the first KVM_RUN; later calls change nothing. */
void vm_note_run(struct vm *vm);

/* ioctl that is retried when a signal interrupts it: the result or -errno. */
int kvm_fd_ioctl(int fd, unsigned long request, void *arg);

/* The signal that makes a vCPU thread leave KVM_RUN. */
int vcpu_kick_signal(void);

#endif
