#ifndef VMM_KVM_VM_H
#define VMM_KVM_VM_H

/*
 * A KVM virtual machine: memory slots, interrupt routing, doorbells. This
 * folder is the only one that calls ioctl on KVM; what differs between
 * architectures (interrupt controllers, registers) is done by arch/ through
 * vm_ioctl and vcpu_ioctl.
 */

#include "vmm/base/err.h"
#include "vmm/core/bus.h"
#include "vmm/core/irq.h"
#include "vmm/core/memslot.h"
#include "vmm/core/power.h"
#include "vmm/core/ram.h"

struct vm;

/*
 * Open /dev/kvm and create a VM of KVM's machine type @type over @ram (borrowed;
 * every region becomes a memory slot). @mmio and @pio (NULL where there are no ports) are borrowed:
 * vCPU exits are served from them, and the VM becomes their doorbell_ops.
 * *@ret_vm is owned by the caller. -ENOENT, -EACCES, -ENODEV ... with words
 * that say what to do in @err.
 */
int vm_create(struct vm **ret_vm, unsigned long type, struct ram *ram, struct bus *mmio,
	      struct bus *pio, struct power *power, struct err *err);
/* All vCPUs are destroyed. Accepts NULL. */
void vm_destroy(struct vm *vm);

/* ioctl on the VM or on /dev/kvm itself: the result, or -errno. */
int vm_ioctl(struct vm *vm, unsigned long request, void *arg);
int vm_kvm_ioctl(struct vm *vm, unsigned long request, void *arg);
/* KVM_CHECK_EXTENSION on the VM: its value, 0 when absent. */
int vm_extension(struct vm *vm, int capability);
/*
 * KVM_CHECK_EXTENSION before there is a VM; 0 also when /dev/kvm can't be opened,
 * which vm_create will tell.
 */
int kvm_host_extension(int capability);
/* The guest memory that @vm was created with. */
struct ram *vm_ram(const struct vm *vm);

/* Memory slots besides the RAM's. Owned by the VM. */
struct mem_slots *vm_mem_slots(struct vm *vm);

/*
 * Tell KVM of the VFIO group or device whose file is @fd (borrowed), so that it
 * honours what the device's caches need. 0 or -errno with words in @err.
 */
int vm_add_vfio(struct vm *vm, int fd, struct err *err);

/*
 * An interrupt line for @gsi, by irqfd (pulse) and KVM_IRQ_LINE (set). Owned by
 * the VM, lives as long. After the in-kernel controller was created. 0 or -errno.
 */
int vm_irq_line(struct vm *vm, uint32_t gsi, struct irq_line **ret_line);

/*
 * The MSI sink: routes from the first GSI that arch leaves free (vm_add_chip_routes).
 * Owned by the VM.
 */
struct msi_sink *vm_msi_sink(struct vm *vm);

/*
 * Start with the routes that the interrupt controller's pins need: @count pins
 * of chip @irqchip, pin n = GSI n; MSI vectors get GSIs from @count up. What
 * KVM_IRQ_LINE calls GSI n is @line_base + n. Called once by arch, for each chip,
 * when all interrupt controllers exist. 0 or -errno.
 */
int vm_add_chip_routes(struct vm *vm, uint32_t irqchip, uint32_t first_gsi, uint32_t count,
		       uint32_t line_base);

/*
 * A doorbell that stands for pins: a message to @doorbell raises the pin whose GSI
 * is the message's data - @data_base, if that is one of the @count GSIs from
 * @first_gsi up, and is refused otherwise. At most one; after vm_add_chip_routes,
 * before the first vector.
 */
void vm_set_msi_pins(struct vm *vm, gpa_t doorbell, uint32_t data_base, uint32_t first_gsi,
		     uint32_t count);

struct vcpu;

/* What arch does with a stopped vCPU; called on the vCPU's thread. */
struct vcpu_arch_ops {
	/*
	 * Serve an exit that isn't MMIO, port I/O or a system event. @run is the vCPU's struct
	 * kvm_run. Returns 0 to go on, or -errno with words in @err when the
	 * vCPU can't.
	 */
	int (*exit)(struct vcpu *vcpu, void *run, struct power *power, struct err *err);
};

/*
 * Create vCPU number @index with its thread stopped. KVM_CREATE_VCPU is called
 * with @id. *@ret_vcpu is owned by the caller. 0 or -errno with words in @err.
 */
int vcpu_create(struct vcpu **ret_vcpu, struct vm *vm, unsigned index, unsigned long id,
		const struct vcpu_arch_ops *ops, struct err *err);
/* Stopped. Accepts NULL. */
void vcpu_destroy(struct vcpu *vcpu);

/* ioctl on a stopped vCPU, or on its own thread: the result or -errno. */
int vcpu_ioctl(struct vcpu *vcpu, unsigned long request, void *arg);
unsigned vcpu_index(const struct vcpu *vcpu);
struct vm *vcpu_vm(const struct vcpu *vcpu);

/* Let it run guest code (starts the thread the first time). 0 or -errno. */
int vcpu_start(struct vcpu *vcpu);
/*
 * Make it leave the guest and wait until it runs no guest code and no device
 * handler; harmless when stopped. Not from a vCPU thread. A handler that waits
 * (virtio-mmio reset) ends first.
 */
void vcpu_stop(struct vcpu *vcpu);
/* Ask without waiting, safe from any thread, its own included. */
void vcpu_request_stop(struct vcpu *vcpu);

/* CLOCK_MONOTONIC in ns just before the first KVM_RUN of any vCPU; 0 = not yet. */
uint64_t vm_first_run_ns(const struct vm *vm);

#endif
