/*
 * PVH entry of the bare-metal guests: from 32-bit protected mode to ring 3 of
 * long mode in a few dozen instructions, because some hosts interpret ring 0 and
 * run ring 3 at full speed. Hence the tables are assembled, not built at run time.
 *
 * What the C code finds: the first 4 GiB identity-mapped and accessible from
 * ring 3, every I/O port allowed by the TSS's bitmap (not by IOPL, which such
 * hosts don't honour), interrupts off. So it polls. The IDT's one entry is for a
 * HLT in ring 3; any other exception is a triple fault, which the VMM sees as a
 * reset.
 */
	.set CODE64, 0x08
	.set TSS, 0x10
	.set USER_DATA, 0x20 | 3
	.set USER_CODE, 0x28 | 3
	.set PAGE_TABLE, 0x007	/* present, writable, user */
	.set PAGE_2M, 0x087	/* the same, large */

	/* XEN_ELFNOTE_PHYS32_ENTRY: the address of the entry point. */
	.section .note.pvh, "a", @note
	.balign 4
	.long 4, 4, 18
	.asciz "Xen"
	.long pvh_entry

	.text
	.code32
	.globl pvh_entry
pvh_entry:
	movl	%ebx, %edi		/* start_info, x86_start's argument */
	movl	$tss, %eax		/* a descriptor's base is in pieces */
	movw	%ax, gdt_tss + 2
	shrl	$16, %eax
	movb	%al, gdt_tss + 4
	movb	%ah, gdt_tss + 7
	movl	$protection, %eax	/* and so is a gate's offset */
	movw	%ax, idt_protection
	shrl	$16, %eax
	movw	%ax, idt_protection + 6
	lgdtl	gdt_pointer
	lidtl	idt_pointer
	movl	$pml4, %eax
	movl	%eax, %cr3
	movl	%cr4, %eax
	orl	$0x20, %eax		/* PAE */
	movl	%eax, %cr4
	movl	$0xc0000080, %ecx	/* EFER */
	rdmsr
	orl	$0x100, %eax		/* LME */
	wrmsr
	movl	%cr0, %eax
	orl	$0x80000000, %eax	/* PG */
	movl	%eax, %cr0
	ljmpl	$CODE64, $long_mode

	.code64
long_mode:
	movw	$TSS, %ax
	ltr	%ax
	movl	$stack_end, %esp
	pushq	$USER_DATA
	pushq	$stack_end
	pushq	$2			/* RFLAGS: interrupts off */
	pushq	$USER_CODE
	pushq	$user
	iretq
user:
	xorl	%ebp, %ebp
	call	x86_start
1:	pause
	jmp	1b

protection:
	movq	8(%rsp), %rax		/* above the error code: where it was */
	cmpb	$0xf4, (%rax)
	jne	3f
2:	hlt				/* interrupts are off: for good */
	jmp	2b
3:	ud2

	.data
	.balign 8
gdt:
	.quad	0
	.quad	0x00209b0000000000	/* CODE64 */
gdt_tss:
	.word	tss_end - tss - 1, 0
	.byte	0, 0x89, 0, 0
	.quad	0
	.quad	0x00cff3000000ffff	/* USER_DATA */
	.quad	0x0020fb0000000000	/* USER_CODE */
gdt_end:
gdt_pointer:
	.word	gdt_end - gdt - 1
	.long	gdt

	.balign 8
idt:	.fill	2 * 13, 8, 0		/* not present */
idt_protection:
	.word	0, CODE64, 0x8e00, 0	/* an interrupt gate */
	.quad	0
idt_end:
idt_pointer:
	.word	idt_end - idt - 1
	.long	idt

	.balign 16
tss:
	.long	0
	.quad	stack_end, 0, 0		/* RSP0..2 */
	.quad	0
	.fill	7, 8, 0			/* IST1..7 */
	.quad	0
	.word	0
	.word	io_bitmap - tss
io_bitmap:
	.fill	8192, 1, 0		/* 0 = allowed */
	.byte	0xff			/* ends the bitmap */
tss_end:

	.balign 4096
pml4:	.quad	pdpt + PAGE_TABLE
	.fill	511, 8, 0
pdpt:	.quad	pd + PAGE_TABLE, pd + 4096 + PAGE_TABLE
	.quad	pd + 8192 + PAGE_TABLE, pd + 12288 + PAGE_TABLE
	.fill	508, 8, 0
pd:	.set	page, 0
	.rept	2048
	.quad	page + PAGE_2M
	.set	page, page + 0x200000
	.endr

	.bss
	.balign 16
	.skip	65536
stack_end:

	.section .note.GNU-stack, "", @progbits
