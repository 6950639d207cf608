/*
 * vCPUs and interrupts on the real /dev/kvm, with a few bytes of guest code.
 * Without a usable /dev/kvm these tests skip.
 */

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "arch/x86_64/x86.h"

#define CODE	  MIB(1)
#define PORT	  0x300
#define PORT_SIZE 8

struct machine {
	struct power power;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int event; /* -1: none yet */
	struct arch_map map;
	struct ram *ram;
	struct vm *vm;
	struct arch *arch;
	struct bus mmio, pio;
	struct vcpu *vcpu[4];
	/* The test port. */
	char out[256];
	unsigned num_out, num_in;
	bool stop_on_read;
};

static struct machine m;

static void request(struct power *power, enum power_event event)
{
	pthread_mutex_lock(&m.lock);
	m.event = (int)event;
	pthread_cond_broadcast(&m.changed);
	pthread_mutex_unlock(&m.lock);
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	m.num_in++;
	if (m.stop_on_read)
		vcpu_request_stop(m.vcpu[0]);
	return 0x5a;
}

static void port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	if (m.num_out < sizeof(m.out))
		m.out[m.num_out++] = (char)value;
}

static const struct bus_ops port_ops = { port_read, port_write };

static void setup(void)
{
	static const struct bus_window window = { PORT, PORT_SIZE, &port_ops, NULL, "test" };
	struct err err = { "" };

	if (access("/dev/kvm", R_OK | W_OK) < 0)
		cr_skip_test("no /dev/kvm");
	m = (struct machine){ .power = { request }, .event = -1 };
	pthread_mutex_init(&m.lock, NULL);
	pthread_cond_init(&m.changed, NULL);
	bus_init(&m.mmio, false);
	bus_init(&m.pio, true);
	cr_assert_eq(bus_add(&m.pio, &window), 0);
	cr_assert_eq(arch_map_init(&m.map, MIB(16), &err), 0);
	cr_assert_eq(ram_create(&m.ram, &m.map.ram, &err), 0);
	cr_assert_eq(vm_create(&m.vm, 0, m.ram, &m.mmio, &m.pio, &m.power, &err), 0, "%s",
		     err.text);
	cr_assert_eq(arch_create(&m.arch, m.vm, &m.map, &m.mmio, &m.pio, &m.power, &err), 0, "%s",
		     err.text);
	cr_assert_eq(arch_create_vcpus(m.arch, m.vcpu, ARRAY_SIZE(m.vcpu), &err), 0, "%s",
		     err.text);
}

static void teardown(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(m.vcpu); i++)
		vcpu_destroy(m.vcpu[i]);
	arch_destroy(m.arch);
	vm_destroy(m.vm);
	ram_destroy(m.ram);
	bus_finish(&m.mmio);
	bus_finish(&m.pio);
}

TestSuite(vcpu, .init = setup, .fini = teardown, .timeout = 60);

/* vCPU 0 will execute @code in 32-bit protected mode. */
static void set_code(const void *code, size_t size)
{
	struct x86_entry entry = { .rip = CODE };
	struct err err;

	cr_assert_eq(ram_write(m.ram, GPA(CODE), code, size), 0);
	cr_assert_eq(x86_entry_set_regs(m.vcpu[0], &entry, &err), 0);
}

static enum power_event wait_event(void)
{
	pthread_mutex_lock(&m.lock);
	while (m.event < 0)
		pthread_cond_wait(&m.changed, &m.lock);
	int event = m.event;

	m.event = -1;
	pthread_mutex_unlock(&m.lock);
	return (enum power_event)event;
}

Test(vcpu, starts_and_stops_while_the_guest_spins)
{
	static const uint8_t spin[] = { 0xeb, 0xfe }; /* jmp . */

	set_code(spin, sizeof(spin));
	cr_assert_eq(vm_first_run_ns(m.vm), 0);
	for (int round = 0; round < 200; round++) {
		for (size_t i = 0; i < ARRAY_SIZE(m.vcpu); i++)
			cr_assert_eq(vcpu_start(m.vcpu[i]), 0);
		if (round % 3 == 0)
			usleep(200);
		vcpu_request_stop(m.vcpu[round % 4]);
		for (size_t i = 0; i < ARRAY_SIZE(m.vcpu); i++)
			vcpu_stop(m.vcpu[i]);
	}
	cr_assert_neq(vm_first_run_ns(m.vm), 0);
	vcpu_stop(m.vcpu[0]); /* harmless when stopped */
}

Test(vcpu, a_read_is_complete_when_the_vcpu_has_stopped)
{
	/* mov edx, PORT; in al, dx; mov dl, 1; jmp . */
	static const uint8_t code[] = { 0xba, 0x00, 0x03, 0, 0, 0xec, 0xb2, 0x01, 0xeb, 0xfe };
	struct kvm_regs regs;

	m.stop_on_read = true;
	set_code(code, sizeof(code));
	vcpu_start(m.vcpu[0]);
	while (!__atomic_load_n(&m.num_in, __ATOMIC_ACQUIRE))
		usleep(100);
	vcpu_stop(m.vcpu[0]);
	cr_assert_eq(vcpu_ioctl(m.vcpu[0], KVM_GET_REGS, &regs), 0);
	cr_assert_eq(regs.rax & 0xff, 0x5a, "the value didn't reach the register");
	cr_assert_eq(regs.rip, CODE + 6, "the instruction isn't finished, or more ran");
	cr_assert_eq(m.num_in, 1);
}

Test(vcpu, string_output_arrives_in_order)
{
	/* mov esi, CODE + 0x100; mov ecx, 11; mov edx, PORT; rep outsb; ud2 */
	static const uint8_t code[] = { 0xbe, 0x00, 0x01, 0x10, 0, 0xb9, 11,   0,    0,	  0,
					0xba, 0x00, 0x03, 0,	0, 0xf3, 0x6e, 0x0f, 0x0b };

	cr_assert_eq(ram_write(m.ram, GPA(CODE + 0x100), "hello world", 11), 0);
	set_code(code, sizeof(code));
	vcpu_start(m.vcpu[0]);
	cr_assert_eq(wait_event(), POWER_RESET, "ud2 without an IDT is a triple fault");
	vcpu_stop(m.vcpu[0]);
	cr_assert_eq(m.num_out, 11);
	cr_assert_eq(memcmp(m.out, "hello world", 11), 0);
}

static void assert_write_requests(uint8_t port_low, uint8_t port_high, uint8_t value,
				  enum power_event event)
{
	/* mov edx, port; mov al, value; out dx, al; jmp . */
	const uint8_t code[] = { 0xba, port_low, port_high, 0, 0, 0xb0, value, 0xee, 0xeb, 0xfe };

	set_code(code, sizeof(code));
	vcpu_start(m.vcpu[0]);
	cr_assert_eq(wait_event(), event);
	vcpu_stop(m.vcpu[0]);
}

Test(vcpu, power_registers)
{
	assert_write_requests(0x00, 0x06, 0x34, POWER_OFF);
	assert_write_requests(0x02, 0x06, 0x01, POWER_RESET);
	assert_write_requests(0x64, 0x00, 0xfe, POWER_RESET);

	/* Other sleep types, no SLP_EN, other commands: nothing happens. */
	bus_write(&m.pio, X86_PORT_SLEEP_CONTROL, 1, 0x14);
	bus_write(&m.pio, X86_PORT_SLEEP_CONTROL, 1, 0x24);
	bus_write(&m.pio, X86_PORT_RESET, 1, 0);
	bus_write(&m.pio, X86_PORT_KBD_STATUS, 1, 0xff);
	cr_assert_eq(m.event, -1);
}

/* Linux ends up here when ACPI is hardware-reduced and there is no EFI. */
Test(vcpu, a_jump_to_the_bios_reset_vector_resets)
{
	struct arch_boot boot = { .kernel_fd = open("/proc/self/exe", O_RDONLY),
				  .cmdline = "",
				  .kernel_path = "no kernel",
				  .initrd_fd = -1 };
	struct kvm_regs regs = { .rip = 0xfff0, .rflags = 2 };
	struct x86_entry entry;
	struct kvm_sregs sregs;

	/* The file has no PVH note, but what isn't the kernel's is in memory. */
	cr_assert_lt(x86_boot_load(m.ram, &m.map, &boot, X86_TABLES, &entry, NULL), 0);
	close(boot.kernel_fd);
	cr_assert_eq(vcpu_ioctl(m.vcpu[0], KVM_GET_SREGS, &sregs), 0);
	sregs.cs.base = 0xf0000;
	sregs.cs.selector = 0xf000;
	cr_assert_eq(vcpu_ioctl(m.vcpu[0], KVM_SET_SREGS, &sregs), 0);
	cr_assert_eq(vcpu_ioctl(m.vcpu[0], KVM_SET_REGS, &regs), 0);
	vcpu_start(m.vcpu[0]);
	cr_assert_eq(wait_event(), POWER_RESET);
	vcpu_stop(m.vcpu[0]);
}

Test(vcpu, a_reset_restores_everything)
{
	static const uint8_t spin[] = { 0xeb, 0xfe };
	struct err err = { "" };
	struct x86_cpu_state after = { 0 };
	const struct x86_cpu_state *before = &m.arch->cpu[0];

	set_code(spin, sizeof(spin));
	vcpu_start(m.vcpu[0]);
	usleep(1000);
	vcpu_stop(m.vcpu[0]);
	cr_assert_eq(x86_state_restore(before, m.vcpu[0], &err), 0, "%s", err.text);
	cr_assert_eq(x86_state_save(&after, m.vcpu[0], &err), 0, "%s", err.text);
	cr_assert_eq(memcmp(&after.regs, &before->regs, sizeof(after.regs)), 0);
	cr_assert_eq(memcmp(&after.sregs, &before->sregs, sizeof(after.sregs)), 0);
	cr_assert_eq(memcmp(&after.lapic, &before->lapic, sizeof(after.lapic)), 0);
	cr_assert_eq(after.mp_state.mp_state, before->mp_state.mp_state);
	cr_assert_eq(arch_reset(m.arch, &err), 0, "%s", err.text);
	x86_state_finish(&after);
}

Test(vcpu, other_cpus_wait)
{
	for (size_t i = 1; i < ARRAY_SIZE(m.vcpu); i++)
		cr_assert_eq(m.arch->cpu[i].mp_state.mp_state, KVM_MP_STATE_UNINITIALIZED);
}

/* Interrupts -------------------------------------------------------------- */

static bool readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

Test(vcpu, msi_vectors_end_with_an_error_and_come_back)
{
	struct msi_sink *sink = vm_msi_sink(m.vm);
	int limit = vm_extension(m.vm, KVM_CAP_IRQ_ROUTING), count = 0, r;
	struct msi_vector **v = calloc((size_t)limit, sizeof(*v)), *again;

	/* Each one costs a descriptor, so that limit may come first. */
	do {
		r = sink->ops->alloc(sink, 8, &v[count]);
	} while (!r && ++count < limit);
	cr_assert(r == -ENOSPC || r == -EMFILE, "%d after %d", r, count);
	cr_assert_geq(count, 500);
	sink->ops->free(sink, v[7]);
	cr_assert_eq(sink->ops->alloc(sink, 8, &again), 0);
	v[7] = again;
	for (int i = 0; i < count; i++)
		sink->ops->free(sink, v[i]);
	sink->ops->free(sink, NULL);
	free(v);
}

Test(vcpu, a_masked_msi_is_lost_and_an_unmasked_one_is_taken)
{
	struct msi_sink *sink = vm_msi_sink(m.vm);
	const struct msi_message message = { 0xfee00000, 0x41 };
	struct msi_vector *v;

	cr_assert_eq(sink->ops->alloc(sink, 8, &v), 0);
	int fd = sink->ops->eventfd(sink, v);

	sink->ops->fire(sink, v);
	cr_assert_not(readable(fd), "fired before it was programmed");
	for (int round = 0; round < 3; round++) {
		cr_assert_eq(sink->ops->update(sink, v, &message, false), 0);
		sink->ops->fire(sink, v);
		cr_assert_not(readable(fd), "KVM didn't take it");
		cr_assert_eq(sink->ops->update(sink, v, &message, true), 0);
		sink->ops->fire(sink, v);
		cr_assert_not(readable(fd), "fired while masked");
	}
	sink->ops->free(sink, v);
}

Test(vcpu, lines_are_shared_by_number)
{
	struct irq_line *a, *b;

	cr_assert_eq(vm_irq_line(m.vm, 10, &a), 0);
	cr_assert_eq(vm_irq_line(m.vm, 10, &b), 0);
	cr_assert_eq(a, b);
	cr_assert_eq(a->gsi, 10);
	irq_line_set(a, true);
	irq_line_set(a, false);
	irq_line_pulse(a);
}

Test(vcpu, doorbells_need_no_exit)
{
	/* mov edx, PORT + 4; mov eax, 7; out dx, eax; mov edx, PORT; out dx, al; jmp . */
	static const uint8_t code[] = { 0xba, 0x04, 0x03, 0,	0, 0xb8, 7,    0,    0,	  0,
					0xef, 0xba, 0x00, 0x03, 0, 0,	 0xee, 0xeb, 0xfe };
	int fd = eventfd(0, EFD_CLOEXEC);
	struct doorbell bell = {
		.addr = PORT + 4, .size = 4, .match = true, .value = 7, .eventfd = fd
	};

	cr_assert_eq(bus_attach_doorbell(&m.pio, &bell), 0);
	set_code(code, sizeof(code));
	vcpu_start(m.vcpu[0]);
	while (!__atomic_load_n(&m.num_out, __ATOMIC_ACQUIRE))
		usleep(100);
	vcpu_stop(m.vcpu[0]);
	cr_assert_eq(m.num_out, 1, "the doorbell's store left the kernel");
	cr_assert(readable(fd));
	bus_detach_doorbell(&m.pio, &bell);
	close(fd);
}
