#ifndef ARCH_X86_64_X86_H
#define ARCH_X86_64_X86_H

/* What the files of arch/x86_64 share; nobody else includes it, unit tests aside. */

#include <linux/kvm.h>
#include "arch/arch.h"
#include "arch/common.h"

/*
 * The guest-physical address space. RAM is split at X86_LOW_RAM_END; what is
 * between there and 4 GiB is devices.
 *
 *	0x00000000  RAM; boot data below 640 KiB, ACPI tables below 1 MiB
 *	0xc0000000  32-bit PCI window
 *	0xe0000000  ECAM of bus 0
 *	0xe1000000  virtio-mmio windows
 *	0xfec00000  IOAPIC
 *	0xfee00000  local APICs; writes by devices are MSIs
 *	0xfffbc000  KVM's own pages (Intel needs them for real mode)
 *	4 GiB       the rest of RAM, then the 64-bit PCI window
 */
#define X86_LOW_RAM_END	     GIB(3)
#define X86_HIGH_RAM	     GIB(4)
#define X86_PCI_MEM32	     0xc0000000u
#define X86_PCI_MEM32_SIZE   MIB(512)
#define X86_ECAM	     0xe0000000u
#define X86_ECAM_SIZE	     MIB(1)
#define X86_VIRTIO_MMIO	     0xe1000000u
#define X86_VIRTIO_MMIO_SIZE (PLATFORM_MAX_MMIO * KIB(4))
#define X86_IOAPIC	     0xfec00000u
#define X86_LAPIC	     0xfee00000u
#define X86_MSI_SIZE	     MIB(1)
#define X86_KVM_IDENTITY_MAP 0xfffbc000u
#define X86_KVM_TSS	     0xfffbd000u

/* Low memory. Everything at or above X86_KERNEL_MIN belongs to the kernel. */
#define X86_GDT		 0x500u
#define X86_PVH_INFO	 0x6000u /* start_info, then the module list, then the memory map */
#define X86_BOOT_PARAMS	 0x7000u
#define X86_PAGE_TABLES	 0x9000u /* PML4, PDPT, four page directories */
#define X86_CMDLINE	 0x20000u
#define X86_CMDLINE_MAX	 KIB(64) /* with the NUL */
#define X86_LOW_END	 0xa0000u
#define X86_TABLES	 0xe0000u /* RSDP first; e820 says reserved */
#define X86_TABLES_SIZE	 (KIB(128) - 16)
#define X86_RESET_VECTOR 0xffff0u /* F000:FFF0, the last 16 bytes below 1 MiB */
#define X86_KERNEL_MIN	 MIB(1)

/* Interrupts: GSI n is pin n of the one IOAPIC. */
#define X86_IOAPIC_PINS	     24
#define X86_GSI_COM1	     4
#define X86_GSI_POWER_BUTTON 5
#define X86_GSI_VIRTIO_MMIO  6	/* the first one */
#define X86_GSI_PCI_INTX     20 /* INTA of slot 0; four of them */

/* Ports. */
#define X86_PORT_KBD_STATUS    0x64
#define X86_PORT_COM1	       0x3f8
#define X86_PORT_POWER	       0x600 /* the base of the next three */
#define X86_PORT_SLEEP_CONTROL 0x600
#define X86_PORT_SLEEP_STATUS  0x601
#define X86_PORT_RESET	       0x602
#define X86_RESET_VALUE	       1

/* One entry of the BIOS memory map. */
#define X86_E820_RAM	  1
#define X86_E820_RESERVED 2
#define X86_E820_MAX	  8

struct x86_e820 {
	uint64_t base, size;
	uint32_t type;
};

/* A vCPU as it was right after creation; what a machine reset restores. */
struct x86_cpu_state {
	bool has_xcrs, has_xsave;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_fpu fpu;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debugregs;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp_state;
	struct kvm_lapic_state lapic;
	void *xsave;	       /* owns */
	struct kvm_msrs *msrs; /* owns */
};

struct arch {
	struct vm *vm;	     /* borrows */
	struct bus *pio;     /* borrows */
	struct power *power; /* borrows */
	struct arch_map map;
	struct kvm_irqchip chip[3]; /* PIC master, PIC slave, IOAPIC after power-on */
	unsigned num_cpus;
	struct x86_cpu_state *cpu; /* owns; one per vCPU */
};

/* irqchip.c: create KVM's controllers and their routes; put them back to power-on state. */
int x86_irqchip_create(struct arch *arch, struct err *err);
int x86_irqchip_reset(struct arch *arch, struct err *err);

/* power.c: the windows of the power, reset and keyboard controller registers. */
int x86_power_create(struct arch *arch, struct err *err);
void x86_power_destroy(struct arch *arch);

/* exits.c: exits other than MMIO and port I/O. */
extern const struct vcpu_arch_ops x86_vcpu_ops;

/*
 * cpuid.c: the CPUID leaves of CPU @index of @count, one socket of one-thread
 * cores, changed in place in @cpuid, which holds what KVM supports and has room
 * for @capacity entries. Pure.
 */
void x86_cpuid_set_topology(struct kvm_cpuid2 *cpuid, unsigned capacity, unsigned index,
			    unsigned count);

/* state.c: read all of @vcpu's registers into @state, to be freed by x86_state_finish. */
int x86_state_save(struct x86_cpu_state *state, struct vcpu *vcpu, struct err *err);
/* Put them back. The vCPU is stopped. 0 or -errno with words in @err. */
int x86_state_restore(const struct x86_cpu_state *state, struct vcpu *vcpu, struct err *err);
void x86_state_finish(struct x86_cpu_state *state);

/* Where the first instruction is and what it finds in its registers. */
struct x86_entry {
	bool long_mode; /* the 64-bit boot protocol; else PVH, 32-bit protected mode */
	uint64_t rip;
	uint64_t argument; /* RSI (boot_params) or EBX (start_info) */
};

/* entry.c: the identity page tables and the GDT that the 64-bit protocol asks for. */
void x86_entry_write_tables(struct ram *ram);
/* Set @vcpu's registers for @entry. It has its power-on state otherwise. */
int x86_entry_set_regs(struct vcpu *vcpu, const struct x86_entry *entry, struct err *err);

/* What loading needs and finds out. */
struct x86_load {
	struct ram *ram;
	uint64_t low_end; /* end of RAM below 4 GiB */
	struct boot_file kernel, initrd;
	bool has_initrd;
	const char *cmdline;
	uint64_t rsdp;
	unsigned num_e820;
	struct x86_e820 e820[X86_E820_MAX];
	uint64_t kernel_end;  /* the first byte that the kernel leaves free */
	uint64_t initrd_base; /* set by x86_load_initrd */
};

/*
 * boot.c: put the initrd as high as @limit (exclusive) and RAM below 4 GiB
 * permit, above the kernel. -EFBIG with sizes in @err when it doesn't fit.
 */
int x86_load_initrd(struct x86_load *load, uint64_t limit, struct err *err);
/* boot.c: copy the command line to X86_CMDLINE; at most @max characters. -E2BIG. */
int x86_load_cmdline(struct x86_load *load, uint64_t max, struct err *err);

/*
 * boot.c: load kernel, initrd and command line of @boot into @ram, whose map is
 * @map; the tables are at @rsdp. The memory is the only thing touched. 0, or
 * -ENOEXEC (not a kernel for this machine), -EFBIG, -E2BIG, -EIO ... with words
 * that name the option and the file in @err.
 */
int x86_boot_load(struct ram *ram, const struct arch_map *map, const struct arch_boot *boot,
		  uint64_t rsdp, struct x86_entry *ret_entry, struct err *err);

/* bzimage.c, pvh.c: the two formats; @head is the file's first @len bytes. */
bool x86_bzimage_probe(const uint8_t *head, size_t len);
int x86_bzimage_load(struct x86_load *load, struct x86_entry *ret_entry, struct err *err);
bool x86_elf_probe(const uint8_t *head, size_t len);
int x86_pvh_load(struct x86_load *load, struct x86_entry *ret_entry, struct err *err);

#endif
