#include "arch/x86_64/x86.h"

/*
 * The state in which the first instruction of a kernel runs.
 *
 * 64-bit boot protocol: long mode, identity-mapped first 4 GiB, flat segments
 * with the selectors __BOOT_CS (0x10) and __BOOT_DS (0x18), RSI = boot_params.
 * PVH: 32-bit protected mode without paging, flat segments, EBX = start_info.
 * Both with interrupts off.
 */

#include <errno.h>
#include <string.h>

#define CR0_PE	 (1u << 0)
#define CR0_ET	 (1u << 4)
#define CR0_PG	 (1u << 31)
#define CR4_PAE	 (1u << 5)
#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)

#define PTE_PRESENT 0x1
#define PTE_WRITE   0x2
#define PTE_LARGE   0x80
#define PAGE	    0x1000

#define SELECTOR_CODE 0x10
#define SELECTOR_DATA 0x18
#define SELECTOR_TSS  0x20

/* Segment types (Intel SDM volume 3, 3.4.5.1 and 3.5): accessed, and a busy TSS. */
#define TYPE_CODE 0xb
#define TYPE_DATA 0x3
#define TYPE_TSS  0xb

static struct kvm_segment segment(uint16_t selector, uint8_t type, bool long_mode)
{
	return (struct kvm_segment){
		.base = 0,
		.limit = 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.s = 1,
		.g = 1,
		.l = long_mode,
		.db = !long_mode,
	};
}

/* The descriptor in memory that says the same as @s (SDM volume 3, figure 3-8). */
static uint64_t descriptor(const struct kvm_segment *s)
{
	uint64_t limit = s->g ? s->limit >> 12 : s->limit;
	uint64_t flags = (uint64_t)(s->type | s->s << 4 | s->dpl << 5 | s->present << 7 |
				    s->l << 13 | s->db << 14 | s->g << 15);

	return (limit & 0xffff) | (s->base & 0xffffff) << 16 | flags << 40 |
	       (limit & 0xf0000) << 32 | (s->base >> 24 & 0xff) << 56;
}

/* RAM below 1 MiB was checked by x86_boot_load. */
static void put64(struct ram *ram, uint64_t gpa, uint64_t value)
{
	le64 wire = le64_from(value);

	ram_write(ram, GPA(gpa), &wire, sizeof(wire));
}

void x86_entry_write_tables(struct ram *ram)
{
	const uint64_t pdpt = X86_PAGE_TABLES + PAGE, pd = pdpt + PAGE;
	struct kvm_segment code = segment(SELECTOR_CODE, TYPE_CODE, true);
	struct kvm_segment data = segment(SELECTOR_DATA, TYPE_DATA, false);

	put64(ram, X86_PAGE_TABLES, pdpt | PTE_PRESENT | PTE_WRITE);
	for (uint64_t i = 0; i < 4; i++)
		put64(ram, pdpt + i * 8, (pd + i * PAGE) | PTE_PRESENT | PTE_WRITE);
	for (uint64_t i = 0; i < 4 * 512; i++)
		put64(ram, pd + i * 8, i * MIB(2) | PTE_PRESENT | PTE_WRITE | PTE_LARGE);
	put64(ram, X86_GDT, 0);
	put64(ram, X86_GDT + 8, 0);
	put64(ram, X86_GDT + SELECTOR_CODE, descriptor(&code));
	put64(ram, X86_GDT + SELECTOR_DATA, descriptor(&data));
}

static void set_sregs(struct kvm_sregs *sregs, const struct x86_entry *entry)
{
	struct kvm_segment data = segment(SELECTOR_DATA, TYPE_DATA, false);

	sregs->cs = segment(SELECTOR_CODE, TYPE_CODE, entry->long_mode);
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
	sregs->tr = (struct kvm_segment){
		.limit = 0x67,
		.selector = SELECTOR_TSS,
		.type = TYPE_TSS,
		.present = 1,
	};
	sregs->gdt.base = X86_GDT;
	sregs->gdt.limit = SELECTOR_DATA + 7;
	sregs->idt.base = 0;
	sregs->idt.limit = 0;
	sregs->cr0 = CR0_PE | CR0_ET;
	sregs->cr4 = 0;
	sregs->efer = 0;
	if (entry->long_mode) {
		sregs->cr0 |= CR0_PG;
		sregs->cr3 = X86_PAGE_TABLES;
		sregs->cr4 = CR4_PAE;
		sregs->efer = EFER_LME | EFER_LMA;
	}
}

int x86_entry_set_regs(struct vcpu *vcpu, const struct x86_entry *entry, struct err *err)
{
	struct kvm_regs regs = { .rip = entry->rip, .rflags = 2 };
	struct kvm_sregs sregs;
	int r = vcpu_ioctl(vcpu, KVM_GET_SREGS, &sregs);

	if (entry->long_mode)
		regs.rsi = entry->argument;
	else
		regs.rbx = entry->argument;
	if (!r) {
		set_sregs(&sregs, entry);
		r = vcpu_ioctl(vcpu, KVM_SET_SREGS, &sregs);
	}
	if (!r)
		r = vcpu_ioctl(vcpu, KVM_SET_REGS, &regs);
	if (r < 0)
		return err_set(err, -r, "KVM refuses the entry state of the kernel: %s",
			       strerror(-r));
	return 0;
}
