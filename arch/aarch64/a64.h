#ifndef ARCH_AARCH64_A64_H
#define ARCH_AARCH64_A64_H

/* What the files of arch/aarch64 share; nobody else includes it, unit tests aside. */

#include <linux/kvm.h>
#include "arch/aarch64/image.h"
#include "arch/arch.h"
#include "arch/common.h"
#include "vmm/kvm/device.h"

/*
 * The guest-physical address space: devices, RAM from 1 GiB up, the 64-bit PCI
 * window. What a guest maps separately is 64 KiB apart, the largest page there is.
 *
 *	0x08000000  GIC distributor
 *	0x08010000  GICv2: CPU interfaces
 *	0x08040000  GICv3: the ITS's registers
 *	0x08050000  doorbells: the ITS's translater page (GICv3), the v2m frame (GICv2)
 *	0x08100000  GICv3: redistributors
 *	0x0c000000  PL011, PL031, PL061
 *	0x0c100000  virtio-mmio windows
 *	0x10000000  32-bit PCI window
 *	0x3f000000  ECAM of bus 0
 *	0x40000000  RAM
 */
#define A64_GIC_DIST	     0x08000000u
#define A64_GIC_DIST_SIZE    KIB(64)
#define A64_GIC_CPU	     0x08010000u
#define A64_GIC_CPU_SIZE     KIB(8)
#define A64_ITS		     0x08040000u
#define A64_ITS_SIZE	     KIB(128)
#define A64_MSI		     0x08050000u
#define A64_MSI_SIZE	     KIB(64)
#define A64_V2M_SIZE	     KIB(4)
#define A64_GIC_REDIST	     0x08100000u
#define A64_GIC_REDIST_SIZE  KIB(128) /* of each CPU */
#define A64_PL011	     0x0c000000u
#define A64_PL031	     0x0c010000u
#define A64_PL061	     0x0c020000u
#define A64_PRIMECELL_SIZE   KIB(4)
#define A64_VIRTIO_MMIO	     0x0c100000u
#define A64_VIRTIO_MMIO_SIZE (PLATFORM_MAX_MMIO * KIB(4))
#define A64_PCI_MEM32	     0x10000000u
#define A64_PCI_MEM32_SIZE   0x2f000000u
#define A64_ECAM	     0x3f000000u
#define A64_ECAM_SIZE	     MIB(1)
#define A64_RAM		     GIB(1)
#define A64_MAX_CPUS	     240

/* Interrupts: GSI n is shared peripheral interrupt n, INTID 32 + n. */
#define A64_FIRST_SPI	    32
#define A64_GSI_PL011	    0
#define A64_GSI_PL031	    1
#define A64_GSI_PL061	    2
#define A64_GSI_INTX	    4 /* the first of four */
#define A64_GSI_VIRTIO_MMIO 8 /* the first of PLATFORM_MAX_MMIO */
#define A64_GSI_V2M	    64
#define A64_NUM_V2M_GSIS    128
#define A64_NUM_GSIS	    (A64_GSI_V2M + A64_NUM_V2M_GSIS)

/* Each CPU's own: PPI n is INTID 16 + n. KVM's timers have these. */
#define A64_FIRST_PPI	   16
#define A64_PPI_PMU	   7
#define A64_PPI_HYP_TIMER  10
#define A64_PPI_VIRT_TIMER 11
#define A64_PPI_SEC_TIMER  13
#define A64_PPI_PHYS_TIMER 14

/* The line of the PL061 that the power button drives. */
#define A64_POWER_BUTTON_LINE 3

/* One KVM register of the interrupt controller and what it held after power-on. */
struct a64_gic_reg {
	uint32_t group;
	uint64_t attr, value;
};

struct a64_gic {
	unsigned version;	 /* 2 or 3 */
	struct kvm_device chip;	 /* distributor, redistributors or CPU interfaces */
	struct kvm_device its;	 /* version 3 */
	struct a64_gic_reg *reg; /* owns; what a reset writes, in this order */
	unsigned num_regs;
};

struct arch {
	struct vm *vm;	  /* borrows */
	struct bus *mmio; /* borrows */
	struct arch_map map;
	struct a64_gic gic;
	struct kvm_vcpu_init init; /* target and features of every vCPU */
	bool has_pmu, has_sve;
	unsigned num_cpus;
	uint64_t mpidr[A64_MAX_CPUS]; /* affinity fields */
	unsigned page_sizes;	      /* A64_PAGES_ bits: what the CPU's MMU can */
};

/*
 * gic.c: create the interrupt controller: GICv3 with its ITS, or, where the host
 * has none, GICv2 with an MSI frame. -ENODEV ... with words in @err.
 */
int a64_gic_create(struct arch *arch, struct err *err);
/* gic.c: place and start it, now that all vCPUs exist; set up interrupt routes. */
int a64_gic_start(struct arch *arch, struct err *err);
void a64_gic_finish(struct arch *arch);
/* gic.c: fill in @platform's gic. */
void a64_gic_describe(const struct arch *arch, struct platform_gic *gic);

/* gic_state.c: note what the registers hold after power-on, and put that back. */
int a64_gic_save(struct arch *arch, struct err *err);
int a64_gic_restore(struct arch *arch, struct err *err);

/* v2m.c: the MSI frame that comes with a GICv2; its window on the bus. 0 or -errno. */
int a64_v2m_create(struct arch *arch, struct err *err);
void a64_v2m_destroy(struct arch *arch);

/*
 * cpu.c: one of @vcpu's registers, an ID as KVM_GET_ONE_REG takes it, all 64-bit.
 * 0 or -errno. The vCPU is stopped or the caller's own.
 */
int a64_get_reg(struct vcpu *vcpu, uint64_t id, uint64_t *ret_value);
/*
 * cpu.c: @vcpu as after power-on, number 0 switched on and about to run @pc with @x0
 * in its first register, the others off until PSCI's CPU_ON. 0 or -errno, words in @err.
 */
int a64_cpu_reset(struct arch *arch, struct vcpu *vcpu, uint64_t pc, uint64_t x0, struct err *err);

/* exits.c: exits other than MMIO and system events. */
extern const struct vcpu_arch_ops a64_vcpu_ops;

#define A64_DTB_SIZE MIB(2)

/*
 * boot.c: load kernel and initrd of @boot into @ram. The memory is the only thing
 * touched. As a64_image_load.
 */
int a64_boot_load(struct ram *ram, const struct arch_boot *boot, unsigned page_sizes,
		  struct a64_loaded *ret_loaded, struct err *err);

#endif
