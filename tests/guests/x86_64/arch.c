/*
 * The x86_64 side of the seam. What the machine contains comes from ACPI: MCFG
 * says where configuration space is, VIOT which devices an IOMMU translates and
 * where those on virtio-mmio are.
 */
#include "tests/guests/arch.h"
#include "tests/guests/endpoints.h"
#include "tests/guests/x86_64/x86.h"

#define COM1	  0x3f8
#define COM1_FCR  (COM1 + 2)
#define COM1_LSR  (COM1 + 5)
#define FCR_FIFO  0x01
#define LSR_DATA  0x01
#define LSR_BREAK 0x10
#define LSR_EMPTY 0x20
#define FIFO_SIZE 16

/* Above the guest and what firmware leaves in low memory. */
#define FREE_RAM 0x1000000u

/* Between RAM and the interrupt controllers, beside every ECAM that we have seen. */
#define PCI_MEM	     0xc0000000u
#define PCI_MEM_SIZE 0x10000000u

/* VIOT (ACPI 6.5, 5.2.35). */
#define VIOT_NODES	   36
#define VIOT_FIRST	   38
#define VIOT_PCI_RANGE	   1
#define VIOT_MMIO_ENDPOINT 2
#define VIOT_IOMMU_MMIO	   4

#define MCFG_BASE 44

static const struct start_info *start_info;
static struct arch_platform platform;
static struct acpi_power power;

/* Called by start.S. */
void x86_start(const struct start_info *info);

void *memcpy(void *to, const void *from, size_t size)
{
	void *result = to;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
	return result;
}

void *memset(void *to, int byte, size_t size)
{
	void *result = to;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(byte) : "memory");
	return result;
}

const struct start_info *x86_start_info(void)
{
	return start_info;
}

static void add_mmio(uint64_t base)
{
	if (platform.num_mmio < ARCH_MAX_MMIO)
		platform.mmio[platform.num_mmio++] = base;
}

static void read_viot_node(const uint8_t *node)
{
	switch (node[0]) {
	case VIOT_PCI_RANGE:
		endpoints_add_pci(get16(node + 12), get16(node + 14), get32(node + 4));
		break;
	case VIOT_MMIO_ENDPOINT:
		add_mmio(get64(node + 8));
		endpoints_add_mmio(get64(node + 8), get32(node + 4));
		break;
	case VIOT_IOMMU_MMIO:
		add_mmio(get64(node + 8));
		break;
	default:
		break;
	}
}

static void read_tables(void)
{
	const uint8_t *mcfg = acpi_find("MCFG");
	const uint8_t *viot = acpi_find("VIOT");

	if (mcfg && get32(mcfg + 4) >= MCFG_BASE + 8)
		platform.ecam = get64(mcfg + MCFG_BASE);
	acpi_find_power(&power);
	if (!viot)
		return;

	const uint8_t *node = viot + get16(viot + VIOT_FIRST);

	for (unsigned i = 0; i < get16(viot + VIOT_NODES); i++, node += get16(node + 2))
		read_viot_node(node);
}

static void read_memory(void)
{
	const struct start_memmap *map = phys(start_info->memmap);

	for (uint32_t i = 0; i < start_info->memmap_entries; i++) {
		uint64_t end = map[i].addr + map[i].size;

		if (map[i].type == MEMMAP_RAM && map[i].addr <= FREE_RAM && end > FREE_RAM) {
			platform.ram_start = FREE_RAM;
			/* The tail is where firmware puts its tables. */
			platform.ram_end = FREE_RAM + (end - FREE_RAM) / 4 * 3 / PAGE * PAGE;
		}
	}
}

void x86_start(const struct start_info *info)
{
	start_info = info;
	outb(COM1_FCR, FCR_FIFO);
	platform.pci_mem = PCI_MEM;
	platform.pci_mem_size = PCI_MEM_SIZE;
	read_memory();
	read_tables();
	guest_main();
}

const struct arch_platform *arch_platform(void)
{
	return &platform;
}

const char *arch_cmdline(void)
{
	return phys(start_info->cmdline);
}

/* An empty transmitter takes as many bytes as its FIFO has. */
void arch_print(const char *text, size_t len)
{
	while (len) {
		size_t n = len < FIFO_SIZE ? len : FIFO_SIZE;

		while (!(inb(COM1_LSR) & LSR_EMPTY))
			;
		outsb(COM1, text, n);
		text += n;
		len -= n;
	}
}

int arch_input(void)
{
	uint8_t status = inb(COM1_LSR);

	if (!(status & LSR_DATA))
		return ARCH_NO_INPUT;
	uint8_t byte = inb(COM1);

	return status & LSR_BREAK ? ARCH_BREAK : byte;
}

void arch_power_off(void)
{
	if (power.off_word)
		outw(power.off_port, power.off_value);
	else if (power.off_port)
		outb(power.off_port, (uint8_t)power.off_value);
}

void arch_reset(void)
{
	if (power.reset_port)
		outb(power.reset_port, power.reset_value);
}

/* Only ring 0 may; its handler does, for good (start.S). */
void arch_idle(void)
{
	for (;;)
		__asm__ volatile("hlt");
}

uint64_t arch_ticks(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

/* No TSC is faster; on a slower one, a deadline is only later. */
uint64_t arch_ticks_per_ms(void)
{
	return 4000000;
}

void arch_relax(void)
{
	__asm__ volatile("pause");
}

uint8_t arch_read8(uint64_t addr)
{
	return *(volatile uint8_t *)phys(addr);
}

uint16_t arch_read16(uint64_t addr)
{
	return *(volatile uint16_t *)phys(addr);
}

uint32_t arch_read32(uint64_t addr)
{
	return *(volatile uint32_t *)phys(addr);
}

void arch_write8(uint64_t addr, uint8_t value)
{
	*(volatile uint8_t *)phys(addr) = value;
}

void arch_write16(uint64_t addr, uint16_t value)
{
	*(volatile uint16_t *)phys(addr) = value;
}

void arch_write32(uint64_t addr, uint32_t value)
{
	*(volatile uint32_t *)phys(addr) = value;
}
