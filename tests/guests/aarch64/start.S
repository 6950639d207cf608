/*
 * The arm64 boot protocol (Documentation/arch/arm64/booting.rst): the header, then
 * EL1 with MMU and caches off and the device tree's address in x0. Here memory
 * gets mapped, one to one, so that caches are on and the guest sees what devices
 * write: the first GiB as device registers, the next three as RAM.
 */
#define BLOCK	    0x1		/* a level 1 block, 1 GiB */
#define ACCESSED    (1 << 10)
#define INNER_SHARE (3 << 8)
#define INDEX_RAM   (1 << 2)	/* of MAIR's fields; 0: device registers */
#define NO_EXECUTE  (3 << 53)
#define GIB	    0x40000000

#define MAIR	    0xff00	/* 0: Device-nGnRnE, 1: write-back */
/* 39 bits of address, 4 KiB granule, tables write-back and shared, no upper half. */
#define TCR	    ((64 - 39) | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32)
#define SCTLR_ON    (1 << 0 | 1 << 2 | 1 << 12)	/* MMU, data and instruction caches */

	.section .head, "ax"
	.global image
image:	b	start
	.long	0
	.quad	0			/* text offset */
	.quad	image_end - image
	.quad	0x2			/* little-endian, 4 KiB pages */
	.quad	0, 0, 0
	.ascii	"ARM\x64"
	.long	0

	.text
start:	mov	x19, x0
	adrp	x0, bss_start
	add	x0, x0, :lo12:bss_start
	adrp	x1, bss_end
	add	x1, x1, :lo12:bss_end
1:	cmp	x0, x1			/* a reboot leaves memory as it was */
	b.hs	2f
	stp	xzr, xzr, [x0], #16
	b	1b
2:	adrp	x0, table
	ldr	x1, =(BLOCK | ACCESSED | NO_EXECUTE)
	str	x1, [x0]
	ldr	x1, =(BLOCK | ACCESSED | INNER_SHARE | INDEX_RAM | GIB)
	ldr	x2, =GIB
	str	x1, [x0, #8]
	add	x1, x1, x2
	str	x1, [x0, #16]
	add	x1, x1, x2
	str	x1, [x0, #24]
	dsb	sy
	ldr	x1, =MAIR
	msr	mair_el1, x1
	ldr	x1, =TCR
	msr	tcr_el1, x1
	msr	ttbr0_el1, x0
	isb
	tlbi	vmalle1
	ic	iallu
	dsb	sy
	isb
	mrs	x1, sctlr_el1
	ldr	x2, =SCTLR_ON
	orr	x1, x1, x2
	msr	sctlr_el1, x1
	isb
	adrp	x0, stack_top
	mov	sp, x0
	mov	x0, x19
	bl	a64_start
3:	wfi
	b	3b

	.bss
	.balign	4096
table:	.skip	4096
	.skip	65536
	.balign	4096
stack_top:
	.skip	16
