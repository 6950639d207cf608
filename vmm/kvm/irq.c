#include "vmm/kvm/vm.h"

/*
 * Interrupts into the guest, without a thread of ours in between.
 *
 *	device --write(2)--> eventfd --irqfd--> GSI --route--> pin or MSI message
 *
 * KVM knows the last three. Its routing table can only be replaced as a whole,
 * so one copy is kept here (vm_irq.table) and committed when a message changes;
 * masking and unmasking don't touch it, they only take the irqfd off the GSI and
 * put it back. An eventfd that is written while its irqfd is off keeps the count,
 * and KVM raises the interrupt when the irqfd returns: exactly a pending bit for
 * VFIO, which writes the eventfd from the kernel. Our own devices keep their
 * pending bits themselves and never write then.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "vmm/kvm/internal.h"

struct vm_line {
	struct irq_line line;
	struct vm *vm;
	int eventfd; /* owns; its irqfd pulses the line */
	struct vm_line *next;
};

struct msi_vector {
	uint32_t gsi;
	uint32_t rid;
	int eventfd; /* owns */
	bool routed; /* message is valid and in the table */
	struct msi_message message;
	/* The irqfd is on; read by msi_fire without the lock, stored under it. */
	_Atomic bool live;
};

static int vm_irqfd(struct vm *vm, int eventfd, uint32_t gsi, uint32_t flags)
{
	struct kvm_irqfd irqfd = { .fd = (uint32_t)eventfd, .gsi = gsi, .flags = flags };

	return kvm_fd_ioctl(vm->fd, KVM_IRQFD, &irqfd);
}

static void eventfd_ring(int fd)
{
	uint64_t one = 1;

	/* EAGAIN means that the count is at its limit: it has been rung, then. */
	if (write(fd, &one, sizeof(one)) < 0)
		return;
}

/* Lines ------------------------------------------------------------------- */

static void line_set(struct irq_line *line, bool level)
{
	struct vm_line *l = container_of(line, struct vm_line, line);
	struct vm *vm = l->vm;
	struct kvm_irq_level irq = { .irq = vm->irq.line_base + line->gsi, .level = level };

	kvm_fd_ioctl(vm->fd, KVM_IRQ_LINE, &irq);
}

static void line_pulse(struct irq_line *line)
{
	eventfd_ring(container_of(line, struct vm_line, line)->eventfd);
}

static int line_connect(struct irq_line *line, int trigger, int resample)
{
	struct kvm_irqfd irqfd = {
		.fd = (uint32_t)trigger,
		.gsi = line->gsi,
		.flags = KVM_IRQFD_FLAG_RESAMPLE,
		.resamplefd = (uint32_t)resample,
	};

	return kvm_fd_ioctl(container_of(line, struct vm_line, line)->vm->fd, KVM_IRQFD, &irqfd);
}

static void line_disconnect(struct irq_line *line, int trigger)
{
	vm_irqfd(container_of(line, struct vm_line, line)->vm, trigger, line->gsi,
		 KVM_IRQFD_FLAG_DEASSIGN);
}

static const struct irq_line_ops line_ops = {
	.set = line_set,
	.pulse = line_pulse,
	.connect = line_connect,
	.disconnect = line_disconnect,
};

static int line_create(struct vm *vm, uint32_t gsi, struct vm_line **ret_line)
{
	struct vm_line *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->line.ops = &line_ops;
	l->line.gsi = gsi;
	l->vm = vm;
	l->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r = l->eventfd < 0 ? -errno : vm_irqfd(vm, l->eventfd, gsi, 0);

	if (r < 0) {
		if (l->eventfd >= 0)
			close(l->eventfd);
		free(l);
		return r;
	}
	*ret_line = l;
	return 0;
}

int vm_irq_line(struct vm *vm, uint32_t gsi, struct irq_line **ret_line)
{
	struct vm_line *l;
	int r = 0;

	pthread_mutex_lock(&vm->irq.lock);
	for (l = vm->irq.lines; l; l = l->next) {
		if (l->line.gsi == gsi)
			break;
	}
	if (!l) {
		r = line_create(vm, gsi, &l);
		if (!r) {
			l->next = vm->irq.lines;
			vm->irq.lines = l;
		}
	}
	pthread_mutex_unlock(&vm->irq.lock);
	if (!r)
		*ret_line = &l->line;
	return r;
}

/* Routes ------------------------------------------------------------------ */

/* The GSI that @message raises; -ENOENT: it is an ordinary MSI; -EINVAL: no such pin. */
static int pin_of_message(const struct vm_irq *irq, const struct msi_message *message)
{
	uint32_t gsi = message->data - irq->msi_pins.data_base;

	if (!irq->msi_pins.count || message->address != irq->msi_pins.doorbell.v)
		return -ENOENT;
	return gsi - irq->msi_pins.first_gsi < irq->msi_pins.count ? (int)gsi : -EINVAL;
}

static struct kvm_irq_routing_entry route_of(const struct vm_irq *irq, const struct msi_vector *v)
{
	struct kvm_irq_routing_entry e = { .gsi = v->gsi };
	int pin = pin_of_message(irq, &v->message);

	if (pin >= 0) {
		e.type = KVM_IRQ_ROUTING_IRQCHIP;
		e.u.irqchip.pin = (uint32_t)pin;
		return e;
	}
	e.type = KVM_IRQ_ROUTING_MSI;
	e.u.msi.address_lo = (uint32_t)v->message.address;
	e.u.msi.address_hi = (uint32_t)(v->message.address >> 32);
	e.u.msi.data = v->message.data;
	if (irq->has_devid) {
		e.flags = KVM_MSI_VALID_DEVID;
		e.u.msi.devid = v->rid;
	}
	return e;
}

static int routes_commit_locked(struct vm *vm)
{
	struct vm_irq *irq = &vm->irq;
	unsigned n = irq->num_pins;

	for (unsigned i = 0; i < irq->num_vectors; i++) {
		const struct msi_vector *v = irq->vector[i];

		if (!v || !v->routed)
			continue;
		irq->table->entries[n++] = route_of(irq, v);
	}
	irq->table->nr = n;
	irq->table->flags = 0;
	return kvm_fd_ioctl(vm->fd, KVM_SET_GSI_ROUTING, irq->table);
}

int vm_add_chip_routes(struct vm *vm, uint32_t irqchip, uint32_t first_gsi, uint32_t count,
		       uint32_t line_base)
{
	struct vm_irq *irq = &vm->irq;
	int r = -ENOSPC;

	pthread_mutex_lock(&irq->lock);
	irq->line_base = line_base;
	irq->has_devid = vm_extension(vm, KVM_CAP_MSI_DEVID) > 0;
	if (irq->num_vectors) {
		r = -EBUSY;
	} else if (count <= irq->limit - irq->num_pins && first_gsi <= irq->limit - count) {
		for (uint32_t pin = 0; pin < count; pin++) {
			irq->table->entries[irq->num_pins++] = (struct kvm_irq_routing_entry){
				.gsi = first_gsi + pin,
				.type = KVM_IRQ_ROUTING_IRQCHIP,
				.u.irqchip = { .irqchip = irqchip, .pin = pin },
			};
		}
		irq->first_msi_gsi = MAX(irq->first_msi_gsi, first_gsi + count);
		r = routes_commit_locked(vm);
	}
	pthread_mutex_unlock(&irq->lock);
	return r;
}

void vm_set_msi_pins(struct vm *vm, gpa_t doorbell, uint32_t data_base, uint32_t first_gsi,
		     uint32_t count)
{
	struct vm_irq *irq = &vm->irq;

	pthread_mutex_lock(&irq->lock);
	irq->msi_pins.doorbell = doorbell;
	irq->msi_pins.data_base = data_base;
	irq->msi_pins.first_gsi = first_gsi;
	irq->msi_pins.count = count;
	pthread_mutex_unlock(&irq->lock);
}

/* Message-signalled interrupts -------------------------------------------- */

static struct vm *sink_vm(struct msi_sink *sink)
{
	return container_of(sink, struct vm, irq.sink);
}

/* The lowest free slot, or -ENOSPC: routes and GSIs both count up to the limit. */
static int msi_free_slot_locked(const struct vm_irq *irq)
{
	unsigned i = 0;

	while (i < irq->num_vectors && irq->vector[i])
		i++;
	if (irq->first_msi_gsi + i >= irq->limit || irq->num_pins + i >= irq->limit)
		return -ENOSPC;
	return (int)i;
}

static int msi_alloc(struct msi_sink *sink, uint32_t rid, struct msi_vector **ret_vector)
{
	struct vm_irq *irq = &sink_vm(sink)->irq;
	struct msi_vector *v = calloc(1, sizeof(*v));

	if (!v)
		return -ENOMEM;
	v->rid = rid;
	v->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (v->eventfd < 0) {
		int r = -errno;

		free(v);
		return r;
	}
	pthread_mutex_lock(&irq->lock);
	int slot = msi_free_slot_locked(irq);

	if (slot >= 0) {
		v->gsi = irq->first_msi_gsi + (uint32_t)slot;
		irq->vector[slot] = v;
		irq->num_vectors = MAX(irq->num_vectors, (unsigned)slot + 1);
	}
	pthread_mutex_unlock(&irq->lock);
	if (slot < 0) {
		close(v->eventfd);
		free(v);
		return slot;
	}
	*ret_vector = v;
	return 0;
}

static void msi_disconnect_locked(struct vm *vm, struct msi_vector *v)
{
	if (!atomic_load_explicit(&v->live, memory_order_relaxed))
		return;
	atomic_store_explicit(&v->live, false, memory_order_release);
	vm_irqfd(vm, v->eventfd, v->gsi, KVM_IRQFD_FLAG_DEASSIGN);
}

static void msi_free(struct msi_sink *sink, struct msi_vector *v)
{
	struct vm *vm = sink_vm(sink);

	if (!v)
		return;
	pthread_mutex_lock(&vm->irq.lock);
	msi_disconnect_locked(vm, v);
	/* A route without an irqfd does nothing: it leaves with the next commit. */
	vm->irq.vector[v->gsi - vm->irq.first_msi_gsi] = NULL;
	while (vm->irq.num_vectors && !vm->irq.vector[vm->irq.num_vectors - 1])
		vm->irq.num_vectors--;
	pthread_mutex_unlock(&vm->irq.lock);
	close(v->eventfd);
	free(v);
}

static int msi_connect_locked(struct vm *vm, struct msi_vector *v,
			      const struct msi_message *message)
{
	int r;

	if (!v->routed || v->message.address != message->address ||
	    v->message.data != message->data) {
		v->message = *message;
		v->routed = true;
		r = pin_of_message(&vm->irq, message);
		if (r != -EINVAL)
			r = routes_commit_locked(vm);
		if (r < 0) {
			/* KVM, or we, refused the guest's message; the old table is kept. */
			v->routed = false;
			msi_disconnect_locked(vm, v);
			return r;
		}
	}
	if (atomic_load_explicit(&v->live, memory_order_relaxed))
		return 0;
	r = vm_irqfd(vm, v->eventfd, v->gsi, 0);
	if (!r)
		atomic_store_explicit(&v->live, true, memory_order_release);
	return r;
}

static int msi_update(struct msi_sink *sink, struct msi_vector *v,
		      const struct msi_message *message, bool masked)
{
	struct vm *vm = sink_vm(sink);
	int r = 0;

	pthread_mutex_lock(&vm->irq.lock);
	if (masked)
		msi_disconnect_locked(vm, v);
	else
		r = msi_connect_locked(vm, v, message);
	pthread_mutex_unlock(&vm->irq.lock);
	return r;
}

static void msi_fire(struct msi_sink *sink, struct msi_vector *v)
{
	/* Pairs with the stores in msi_connect_locked and msi_disconnect_locked. */
	if (atomic_load_explicit(&v->live, memory_order_acquire))
		eventfd_ring(v->eventfd);
}

static int msi_eventfd(struct msi_sink *sink, struct msi_vector *v)
{
	return v->eventfd;
}

static const struct msi_sink_ops vm_msi_ops = {
	.alloc = msi_alloc,
	.free = msi_free,
	.update = msi_update,
	.fire = msi_fire,
	.eventfd = msi_eventfd,
};

struct msi_sink *vm_msi_sink(struct vm *vm)
{
	return &vm->irq.sink;
}

int vm_irq_init(struct vm *vm, struct err *err)
{
	struct vm_irq *irq = &vm->irq;
	int limit = vm_extension(vm, KVM_CAP_IRQ_ROUTING);

	pthread_mutex_init(&irq->lock, NULL);
	irq->sink.ops = &vm_msi_ops;
	/* A KVM that says just "yes" has had 1024 entries since there was a table. */
	irq->limit = limit > 1 ? (unsigned)limit : 1024;
	irq->table = calloc(1, sizeof(*irq->table) + irq->limit * sizeof(irq->table->entries[0]));
	irq->vector = calloc(irq->limit, sizeof(struct msi_vector *));
	if (!irq->table || !irq->vector)
		return err_set(err, ENOMEM, "out of memory");
	return 0;
}

void vm_irq_finish(struct vm *vm)
{
	struct vm_irq *irq = &vm->irq;

	for (unsigned i = irq->num_vectors; i-- > 0;)
		msi_free(&irq->sink, irq->vector[i]);
	while (irq->lines) {
		struct vm_line *l = irq->lines;

		irq->lines = l->next;
		close(l->eventfd);
		free(l);
	}
	free(irq->table);
	free(irq->vector);
	if (irq->sink.ops)
		pthread_mutex_destroy(&irq->lock);
}
