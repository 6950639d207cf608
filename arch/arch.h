#ifndef ARCH_ARCH_H
#define ARCH_ARCH_H

/*
 * The seam between the machine and a CPU architecture. Meson builds exactly one
 * arch/<cpu family>; machine.c calls only this.
 */

#include "firmware-tables/platform.h"
#include "vmm/base/err.h"
#include "vmm/core/bus.h"
#include "vmm/core/power.h"
#include "vmm/core/ram.h"
#include "vmm/kvm/vm.h"

/* Where things are in the guest-physical address space. */
struct arch_map {
	unsigned long vm_type; /* KVM_CREATE_VM's */
	struct ram_layout ram;
	struct platform_range ecam, pci_mem32, pci_mem64;
	struct platform_range
		mmio_devices;	   /* virtio-mmio windows, 4 KiB each, none inside a PCI window */
	struct platform_range msi; /* doorbells: the MSI reserved region of every endpoint */
	unsigned first_mmio_gsi, num_mmio_gsis; /* interrupts for virtio-mmio devices */
	bool has_port_io;
};

/*
 * Decide the map for @ram_size bytes. The 64-bit PCI window lies inside the
 * guest's physical address width. Returns 0 or -EINVAL with words in @err
 * (too much memory).
 */
int arch_map_init(struct arch_map *map, uint64_t ram_size, struct err *err);

struct arch;

/*
 * Create the interrupt controllers and the fixed devices (power, reset and
 * sleep registers) on @vm and its buses. *@ret_arch is owned by the caller.
 */
int arch_create(struct arch **ret_arch, struct vm *vm, const struct arch_map *map, struct bus *mmio,
		struct bus *pio, struct power *power, struct err *err);
/* Before vm_destroy, after the vCPUs. Accepts NULL. */
void arch_destroy(struct arch *arch);

/* Create @count vCPUs with features and topology set, into @vcpus. 0 or -errno, words in @err. */
int arch_create_vcpus(struct arch *arch, struct vcpu **vcpus, unsigned count, struct err *err);

/* A device with one window (of the bus that its kind implies) and one interrupt; base 0 = absent.
 */
struct arch_wired {
	uint64_t base;
	uint32_t gsi;
};

/* Devices that are neither the processor's nor plugged in; machine_board.c creates them. */
struct arch_board {
	enum arch_serial_kind {
		ARCH_SERIAL_16550, /* in port I/O */
		ARCH_SERIAL_PL011, /* in MMIO */
	} serial_kind;
	struct arch_wired serial;
	struct arch_wired rtc;	/* a PL031 */
	struct arch_wired gpio; /* a PL061 */
	unsigned power_button;	/* the gpio's line for it, or, without a gpio, the GSI to pulse */
};
void arch_board(const struct arch *arch, struct arch_board *ret_board);

/* Fill in what arch knows of @platform: cpus, RAM, controllers, serial, power, PCI windows. */
void arch_describe(const struct arch *arch, struct platform *platform);

/* What to boot; files are open, borrowed. */
struct arch_boot {
	int kernel_fd;
	const char *kernel_path;
	int initrd_fd; /* -1: none */
	const char *initrd_path;
	const char *cmdline; /* the whole line */
};

/*
 * Load kernel, initrd, command line and firmware tables for @platform into
 * guest memory and set the vCPUs' registers for entry: used at start and after
 * every machine reset. The vCPUs are stopped. -ENOEXEC, -EFBIG, ... with words
 * that name the file in @err.
 */
int arch_boot(struct arch *arch, const struct arch_boot *boot, const struct platform *platform,
	      struct vcpu **vcpus, unsigned count, struct err *err);

/* Interrupt controllers, timers and fixed devices as after power-on. vCPUs stopped. */
int arch_reset(struct arch *arch, struct err *err);

/* The default kernel command line of this architecture, e.g. "console=ttyS0 panic=-1". */
const char *arch_default_cmdline(void);

/* Tables for --dump-tables: called for each blob with its file name. */
int arch_dump_tables(const struct platform *platform,
		     int (*emit)(void *opaque, const char *file, const void *data, size_t size),
		     void *opaque, struct err *err);

#endif
