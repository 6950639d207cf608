#include "vmm/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/log.h"
#include "vmm/machine_state.h"
#include "vmm/report.h"

/*
 * How a machine comes to be, in the order of the functions below:
 *
 *	machine_place_devices     config -> m->device[]: which slot or window, which endpoint
 *	create_platform           map, RAM, buses, VM, interrupt controllers, PCI root
 *	machine_create_board      what arch solders to it: the serial port, the console behind it
 *	machine_create_devices    loops, backends, virtio devices, transports
 *	machine_describe_devices  m->platform, from which arch builds the tables
 *	arch_boot                 kernel, initrd, tables, registers
 *
 * and how it ends: a vCPU or a signal posts an event to the main thread, which
 * stops the vCPUs, resets the devices and either boots again or tears down in
 * the reverse order.
 */

/* Events on m->event_fd besides the power events. */
#define EVENT_QUIT 0x100

static void post_event(struct machine *m, int event)
{
	int none = MACHINE_NO_EVENT;

	/*
	 * Of the guest's events the first decides: what follows it comes from vCPUs
	 * that are being stopped. A person's wish to quit goes before all of them.
	 */
	if (event == EVENT_QUIT)
		atomic_store(&m->event, event);
	else
		atomic_compare_exchange_strong(&m->event, &none, event);
	eventfd_write(m->event_fd, 1);
}

/* The guest's event was served, and its vCPUs, now stopped, can't ask for more. */
static void clear_event(struct machine *m)
{
	int event = atomic_load(&m->event);

	if (event != EVENT_QUIT)
		atomic_compare_exchange_strong(&m->event, &event, MACHINE_NO_EVENT);
}

static void machine_power(struct power *power, enum power_event event)
{
	struct machine *m = container_of(power, struct machine, power);

	post_event(m, (int)event);
	for (unsigned i = 0; i < m->num_vcpus; i++)
		vcpu_request_stop(m->vcpu[i]);
}

/*
 * The board: everything that devices plug into.
 */

static int create_platform(struct machine *m, struct err *err)
{
	struct bus *pio = m->map.has_port_io ? &m->pio : NULL;
	int r;

	r = ram_create(&m->ram, &m->map.ram, err);
	if (r < 0)
		return r;
	dma_view_init_identity(&m->identity, m->ram);
	bus_init(&m->mmio, false);
	bus_init(&m->pio, true);
	r = vm_create(&m->vm, m->map.vm_type, m->ram, &m->mmio, pio, &m->power, err);
	if (r < 0)
		return r;
	r = arch_create(&m->arch, m->vm, &m->map, &m->mmio, pio, &m->power, err);
	if (r < 0)
		return r;
	r = arch_create_vcpus(m->arch, m->vcpu, m->config->cpus, err);
	if (r < 0)
		return r;
	m->num_vcpus = m->config->cpus;

	struct pci_root_config root = {
		.mmio = &m->mmio,
		.pio = pio,
		.msi = vm_msi_sink(m->vm),
		.ecam_base = m->map.ecam.base,
		.mem32_base = m->map.pci_mem32.base,
		.mem32_size = m->map.pci_mem32.size,
		.mem64_base = m->map.pci_mem64.base,
		.mem64_size = m->map.pci_mem64.size,
	};
	return pci_root_create(&m->pci, &root, err);
}

void machine_quit(void *opaque)
{
	post_event(opaque, EVENT_QUIT);
}

static int open_file(const char *option, const char *path, struct err *err)
{
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
	struct stat st;
	/* Not to wait for who might write into a FIFO, with every signal blocked. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return err_set(err, errno, "%s %s: %s", option, path, strerror(errno));
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return err_set(err, EINVAL, "%s %s: not a regular file", option, path);
	}
	/* So that it isn't taken for a disk or the console's file as well; best effort. */
	fcntl(fd, F_OFD_SETLK, &lock);
	return fd;
}

static int prepare_boot(struct machine *m, struct err *err)
{
	const struct config *c = m->config;

	m->boot.kernel_path = c->kernel;
	m->boot.initrd_path = c->initrd;
	m->boot.kernel_fd = open_file("--kernel", c->kernel, err);
	if (m->boot.kernel_fd < 0)
		return m->boot.kernel_fd;
	if (c->initrd) {
		m->boot.initrd_fd = open_file("--initrd", c->initrd, err);
		if (m->boot.initrd_fd < 0)
			return m->boot.initrd_fd;
	}
	if (asprintf(&m->cmdline, "%s%s%s", arch_default_cmdline(), *c->cmdline ? " " : "",
		     c->cmdline) < 0) {
		m->cmdline = NULL;
		return err_set(err, ENOMEM, "out of memory");
	}
	m->boot.cmdline = m->cmdline;
	return 0;
}

/* Steps from nothing to a machine whose vCPUs can be started; machine_finish undoes any prefix. */
static int machine_init(struct machine *m, struct err *err)
{
	int r;

	m->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->event_fd < 0)
		return err_set(err, errno, "eventfd: %s", strerror(errno));
	r = arch_map_init(&m->map, m->config->memory, err);
	if (r < 0)
		return r;
	machine_find_groups(m);
	r = machine_place_devices(m, err);
	if (r < 0)
		return r;
	r = prepare_boot(m, err);
	if (r < 0)
		return r;
	r = create_platform(m, err);
	if (r < 0)
		return r;
	r = machine_create_board(m, err);
	if (r < 0)
		return r;
	arch_describe(m->arch, &m->platform);
	r = machine_create_devices(m, err);
	if (r < 0)
		return r;
	machine_describe_devices(m);
	return 0;
}

static void machine_finish(struct machine *m)
{
	/* The terminal first: whatever follows may print. */
	console_stop(m->console);
	machine_destroy_devices(m);
	machine_destroy_board(m);
	pci_root_destroy(m->pci);
	for (unsigned i = 0; i < m->num_vcpus; i++)
		vcpu_destroy(m->vcpu[i]);
	arch_destroy(m->arch);
	vm_destroy(m->vm);
	bus_finish(&m->pio);
	bus_finish(&m->mmio);
	ram_destroy(m->ram);
	free(m->cmdline);
	if (m->boot.initrd_fd >= 0)
		close(m->boot.initrd_fd);
	if (m->boot.kernel_fd >= 0)
		close(m->boot.kernel_fd);
	if (m->event_fd >= 0)
		close(m->event_fd);
}

/*
 * Life.
 */

static void stop_vcpus(struct machine *m)
{
	for (unsigned i = 0; i < m->num_vcpus; i++)
		vcpu_request_stop(m->vcpu[i]);
	for (unsigned i = 0; i < m->num_vcpus; i++)
		vcpu_stop(m->vcpu[i]);
}

static int boot_and_start(struct machine *m, struct err *err)
{
	int r;

	r = arch_boot(m->arch, &m->boot, &m->platform, m->vcpu, m->num_vcpus, err);
	if (r < 0)
		return r;
	console_begin(m->console);
	for (unsigned i = 0; i < m->num_vcpus; i++) {
		r = vcpu_start(m->vcpu[i]);
		if (r < 0)
			return err_set(err, -r, "vCPU %u: can't start its thread: %s", i,
				       strerror(-r));
	}
	return 0;
}

/* No DMA after this: the vCPUs are stopped, each device drains, then the IOMMU forgets. */
static void quiet_devices(struct machine *m)
{
	for (unsigned i = m->num_devices; i-- > 0;) {
		if (m->device[i].virtio)
			virtio_host_reset(m->device[i].virtio);
		if (m->device[i].vfio)
			vfio_pci_quiet(m->device[i].vfio);
	}
	/* When all are quiet: functions of the host may have only one reset, of their bus. */
	for (unsigned i = m->num_devices; i-- > 0;) {
		if (m->device[i].vfio)
			vfio_pci_reset(m->device[i].vfio);
	}
	for (unsigned i = m->num_devices; i-- > 0;) {
		if (m->device[i].vfio)
			vfio_pci_restart(m->device[i].vfio);
	}
}

/* Start again in place; guest memory keeps its contents, as on a warm reset. */
static int machine_reset(struct machine *m, struct err *err)
{
	/* Else a vCPU that waits for a reader of its output would keep us from our signals. */
	console_hold(m->console, true);
	stop_vcpus(m);
	console_hold(m->console, false);
	clear_event(m);
	quiet_devices(m);
	for (unsigned i = 0; i < m->config->num_viommus; i++)
		iommu_system_reset(m->iommu[i].iommu);
	for (unsigned i = 0; i < m->num_devices; i++) {
		if (m->device[i].pci)
			virtio_pci_reset(m->device[i].pci);
		else if (m->device[i].mmio)
			virtio_mmio_reset(m->device[i].mmio);
	}
	machine_reset_board(m);
	int r = arch_reset(m->arch, err);

	return r < 0 ? r : boot_and_start(m, err);
}

/* Raise the soft limit on @resource to the hard one. Returns what it is then. */
static unsigned long long raise_limit(int resource)
{
	struct rlimit limit;

	if (getrlimit(resource, &limit) < 0)
		return 0;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(resource, &limit);
	getrlimit(resource, &limit);
	return limit.rlim_cur;
}

/*
 * The signals that ask moat to end, and SIGUSR2, which asks for an audit; blocked in every
 * thread, read by the main one. A SIGHUP that whoever started us ignores stays so, for nohup. A
 * SIGINT doesn't: a script's shell ignores it for what it starts in the background, but sends it to
 * press the power button.
 */
static int open_signals(sigset_t *ret_old)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGUSR2 };
	struct sigaction action;
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < ARRAY_SIZE(signals); i++) {
		/* A blocked signal is kept even when it is ignored: it must not be in the set. */
		if (signals[i] == SIGHUP && sigaction(SIGHUP, NULL, &action) == 0 &&
		    action.sa_handler == SIG_IGN)
			continue;
		sigaddset(&set, signals[i]);
	}
	sigprocmask(SIG_BLOCK, &set, ret_old);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* A first SIGINT or SIGTERM presses the power button; everything after it ends moat. */
static void on_signal(struct machine *m, int signal_fd, bool *pressed)
{
	struct signalfd_siginfo info;

	while (read(signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGUSR2) {
			report_audit(m);
			continue;
		}
		if (*pressed || info.ssi_signo == SIGHUP) {
			log_warn("ended by signal %u before the guest powered off", info.ssi_signo);
			post_event(m, EVENT_QUIT);
			return;
		}
		*pressed = true;
		log_info("signal %u: pressing the guest's power button", info.ssi_signo);
		machine_press_power_button(m);
	}
}

/* Wait until something ends this boot of the guest; returns the event. */
static int wait_event(struct machine *m, int signal_fd, bool *pressed)
{
	struct pollfd fds[] = { { .fd = m->event_fd, .events = POLLIN },
				{ .fd = signal_fd, .events = POLLIN } };
	eventfd_t drained;

	for (;;) {
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
			continue;
		if (fds[1].revents)
			on_signal(m, signal_fd, pressed);
		if (eventfd_read(m->event_fd, &drained) < 0)
			continue;
		int event = atomic_load(&m->event);

		if (event != MACHINE_NO_EVENT)
			return event;
	}
}

static enum moat_exit live(struct machine *m, int signal_fd, struct err *err)
{
	bool pressed = false;

	for (;;) {
		switch (wait_event(m, signal_fd, &pressed)) {
		case POWER_OFF:
			return MOAT_EXIT_POWEROFF;
		case POWER_RESET:
			if (!m->config->reboot)
				return MOAT_EXIT_RESET;
			log_info("the guest reset itself: starting it again");
			if (machine_reset(m, err) < 0)
				return MOAT_EXIT_FAILURE;
			break;
		default: /* POWER_CRASH, EVENT_QUIT: the words were logged where it happened */
			return MOAT_EXIT_FAILURE;
		}
	}
}

/* Where tables are dumped, and where a failure is told. */
struct dump {
	const char *dir;
	struct err *err;
};

static int dump_file(void *opaque, const char *file, const void *data, size_t size)
{
	struct dump *dump = opaque;
	char path[4096];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dump->dir, file);
	f = fopen(path, "we");
	if (!f)
		return err_set(dump->err, errno, "%s: %s", path, strerror(errno));
	/* What is buffered fails when it is flushed. */
	bool written = fwrite(data, 1, size, f) == size && fflush(f) == 0;
	int code = errno;

	fclose(f);
	return written ? 0 : err_set(dump->err, code, "%s: %s", path, strerror(code));
}

static int dump_tables(struct machine *m, struct err *err)
{
	struct dump dump = { m->config->dump_tables, err };
	int r = arch_dump_tables(&m->platform, dump_file, &dump, err);

	if (r < 0)
		err_prefix(err, "--dump-tables");
	return r;
}

static enum moat_exit run(struct machine *m, int signal_fd, uint64_t start_ns, struct err *err)
{
	enum moat_exit status = MOAT_EXIT_FAILURE;

	/*
	 * Every queue and interrupt vector has a file descriptor, and the usual soft
	 * limit of 1024 is meant for select(2).
	 */
	unsigned long long files = raise_limit(RLIMIT_NOFILE);

	/* What the host pins for devices passed through counts as locked memory. */
	if (m->config->num_vfios)
		raise_limit(RLIMIT_MEMLOCK);
	int r = machine_init(m, err);

	if (r == -EMFILE)
		err_prefix(err, "the limit of %llu open files (ulimit -Hn) is too low", files);
	if (r < 0)
		return status;
	if (m->config->dump_tables && dump_tables(m, err) < 0)
		return status;
	report_machine(m);
	if (boot_and_start(m, err) == 0) {
		report_start(m, start_ns);
		status = live(m, signal_fd, err);
	}
	/* First, as it lets a vCPU go that waits for the reader of our output. */
	console_stop(m->console);
	stop_vcpus(m);
	/* Before the reset, which takes the mappings with it. */
	report_end(m);
	quiet_devices(m);
	return status;
}

enum moat_exit machine_run(const struct config *config, uint64_t start_ns)
{
	struct machine *m = calloc(1, sizeof(*m));
	struct err err = { "" };
	enum moat_exit status;
	sigset_t old;

	if (!m) {
		log_error("out of memory");
		return MOAT_EXIT_FAILURE;
	}
	m->config = config;
	m->power.request = machine_power;
	m->event_fd = m->boot.kernel_fd = m->boot.initrd_fd = -1;
	atomic_init(&m->event, MACHINE_NO_EVENT);

	int signal_fd = open_signals(&old);

	/* A file that may not grow (ulimit -f) is an error of that write, not our end. */
	signal(SIGXFSZ, SIG_IGN);
	status = run(m, signal_fd, start_ns, &err);
	machine_finish(m);
	free(m);
	if (err.text[0])
		log_error("%s", err.text);
	if (signal_fd >= 0)
		close(signal_fd);
	sigprocmask(SIG_SETMASK, &old, NULL);
	return status;
}
