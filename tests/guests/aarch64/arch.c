/*
 * The aarch64 side of the seam: a PL011, PSCI, the generic timer. What the machine
 * contains comes from the device tree.
 */
#include "tests/guests/arch.h"
#include "tests/guests/endpoints.h"
#include "tests/guests/aarch64/fdt.h"

#define PL011_DATA    0x00
#define PL011_FLAGS   0x18
#define PL011_LINE    0x2c
#define PL011_CONTROL 0x30
#define DATA_BREAK    (1u << 10)
#define FLAG_EMPTY    (1u << 4) /* nothing received */
#define FLAG_FULL     (1u << 5) /* no room to send */
#define LINE_8_BITS   0x70	/* with FIFOs */
#define CONTROL_ON    0x301	/* both directions */

#define PSCI_SYSTEM_OFF	  0x84000008
#define PSCI_SYSTEM_RESET 0x84000009

/* Above the guest and its device tree, which are at the start of RAM. */
#define FREE_RAM_OFFSET 0x1000000u

/* The space in the first cell of a PCI address. */
#define PCI_SPACE	0x03000000u
#define PCI_SPACE_MEM32 0x02000000u

static struct arch_platform platform;
static const char *cmdline = "";
static uint64_t uart;

/* Called by start.S. */
void a64_start(const void *tree);

/* Plain loops, which the compiler must not turn into calls of these very functions. */
#define NO_CALLS __attribute__((optimize("no-tree-loop-distribute-patterns")))

NO_CALLS void *memcpy(void *to, const void *from, size_t size)
{
	uint8_t *d = to;
	const uint8_t *s = from;

	while (size--)
		*d++ = *s++;
	return to;
}

NO_CALLS void *memset(void *to, int byte, size_t size)
{
	uint8_t *d = to;

	while (size--)
		*d++ = (uint8_t)byte;
	return to;
}

static void read_memory(const struct fdt_node *node)
{
	uint32_t size;
	const uint8_t *reg = fdt_property(node, "reg", &size);
	const uint8_t *type = fdt_property(node, "device_type", &size);

	if (!reg || !type || !equal(type, "memory", 7))
		return;
	platform.ram_start = fdt_cell64(reg, 0) + FREE_RAM_OFFSET;
	platform.ram_end = fdt_cell64(reg, 0) + fdt_cell64(reg, 2);
}

static void read_pci(const struct fdt_node *node)
{
	uint32_t size;
	const uint8_t *reg = fdt_property(node, "reg", &size);
	const uint8_t *ranges = fdt_property(node, "ranges", &size);

	if (reg)
		platform.ecam = fdt_cell64(reg, 0);
	/* Three cells of PCI address, two of ours, two of size. */
	for (unsigned i = 0; ranges && 4 * (i + 7) <= size; i += 7) {
		if ((fdt_cell(ranges, i) & PCI_SPACE) != PCI_SPACE_MEM32)
			continue;
		platform.pci_mem = fdt_cell64(ranges, i + 3);
		platform.pci_mem_size = fdt_cell64(ranges, i + 5);
	}
	const uint8_t *map = fdt_property(node, "iommu-map", &size);

	/* Requester ID, phandle, endpoint ID, and how many. */
	for (unsigned i = 0; map && 4 * (i + 4) <= size; i += 4) {
		uint32_t first = fdt_cell(map, i), count = fdt_cell(map, i + 3);

		if (count)
			endpoints_add_pci(first, first + count - 1, fdt_cell(map, i + 2));
	}
}

static void read_virtio(const struct fdt_node *node)
{
	uint32_t size;
	const uint8_t *reg = fdt_property(node, "reg", &size);
	const uint8_t *iommus = fdt_property(node, "iommus", &size);

	if (reg && platform.num_mmio < ARCH_MAX_MMIO)
		platform.mmio[platform.num_mmio++] = fdt_cell64(reg, 0);
	if (reg && iommus)
		endpoints_add_mmio(fdt_cell64(reg, 0), fdt_cell(iommus, 1));
}

static void read_tree(const void *tree)
{
	struct fdt_node node;
	uint32_t size;

	for (bool more = fdt_first(&node, tree); more; more = fdt_next(&node)) {
		const uint8_t *bootargs = fdt_property(&node, "bootargs", &size);
		const uint8_t *reg = fdt_property(&node, "reg", &size);

		if (bootargs)
			cmdline = (const char *)bootargs;
		read_memory(&node);
		if (fdt_is(&node, "arm,pl011") && reg)
			uart = fdt_cell64(reg, 0);
		if (fdt_is(&node, "pci-host-ecam-generic"))
			read_pci(&node);
		if (fdt_is(&node, "virtio,mmio"))
			read_virtio(&node);
	}
}

void a64_start(const void *tree)
{
	read_tree(tree);
	arch_write32(uart + PL011_LINE, LINE_8_BITS);
	arch_write32(uart + PL011_CONTROL, CONTROL_ON);
	guest_main();
}

const struct arch_platform *arch_platform(void)
{
	return &platform;
}

const char *arch_cmdline(void)
{
	return cmdline;
}

void arch_print(const char *text, size_t len)
{
	while (len--) {
		while (arch_read32(uart + PL011_FLAGS) & FLAG_FULL)
			;
		arch_write32(uart + PL011_DATA, (uint8_t)*text++);
	}
}

int arch_input(void)
{
	if (arch_read32(uart + PL011_FLAGS) & FLAG_EMPTY)
		return ARCH_NO_INPUT;
	uint32_t data = arch_read32(uart + PL011_DATA);

	return data & DATA_BREAK ? ARCH_BREAK : (uint8_t)data;
}

static void psci(uint32_t function)
{
	register uint64_t x0 __asm__("x0") = function;

	__asm__ volatile("hvc #0" : "+r"(x0) : : "x1", "x2", "x3", "memory");
}

void arch_power_off(void)
{
	psci(PSCI_SYSTEM_OFF);
}

void arch_reset(void)
{
	psci(PSCI_SYSTEM_RESET);
}

void arch_idle(void)
{
	for (;;)
		__asm__ volatile("wfi");
}

uint64_t arch_ticks(void)
{
	uint64_t ticks;

	__asm__ volatile("isb; mrs %0, cntvct_el0" : "=r"(ticks) : : "memory");
	return ticks;
}

uint64_t arch_ticks_per_ms(void)
{
	uint64_t hz;

	__asm__("mrs %0, cntfrq_el0" : "=r"(hz));
	return hz / 1000 + 1;
}

void arch_relax(void)
{
	__asm__ volatile("yield");
}

/*
 * In assembly, because only a plain load or store is one that the hardware takes
 * apart for the hypervisor.
 */
uint8_t arch_read8(uint64_t addr)
{
	uint32_t value;

	__asm__ volatile("ldrb %w0, [%1]" : "=r"(value) : "r"(addr) : "memory");
	return (uint8_t)value;
}

uint16_t arch_read16(uint64_t addr)
{
	uint32_t value;

	__asm__ volatile("ldrh %w0, [%1]" : "=r"(value) : "r"(addr) : "memory");
	return (uint16_t)value;
}

uint32_t arch_read32(uint64_t addr)
{
	uint32_t value;

	__asm__ volatile("ldr %w0, [%1]" : "=r"(value) : "r"(addr) : "memory");
	return value;
}

void arch_write8(uint64_t addr, uint8_t value)
{
	__asm__ volatile("strb %w0, [%1]" : : "r"(value), "r"(addr) : "memory");
}

void arch_write16(uint64_t addr, uint16_t value)
{
	__asm__ volatile("strh %w0, [%1]" : : "r"(value), "r"(addr) : "memory");
}

void arch_write32(uint64_t addr, uint32_t value)
{
	__asm__ volatile("str %w0, [%1]" : : "r"(value), "r"(addr) : "memory");
}
