#include "tests/guests/virtio/pci.h"
#include "tests/guests/arch.h"

#define COMMAND_MEMORY 0x0002
#define COMMAND_MASTER 0x0004
#define STATUS_CAPS    0x0010
#define HEADER_MULTI   0x80

#define BAR_IO	      0x1
#define BAR_TYPE_MASK 0x6
#define BAR_64	      0x4
#define BAR_ADDR_MASK 0xfffffff0u

/* More links than a list can have that fits configuration space: it is a loop. */
#define MAX_CAPS 48

static uint64_t next_bar;

static uint64_t config(uint16_t bdf, unsigned offset)
{
	return arch_platform()->ecam + ((uint64_t)bdf << 12) + offset;
}

uint8_t pci_read8(uint16_t bdf, unsigned offset)
{
	return arch_read8(config(bdf, offset));
}

uint16_t pci_read16(uint16_t bdf, unsigned offset)
{
	return arch_read16(config(bdf, offset));
}

uint32_t pci_read32(uint16_t bdf, unsigned offset)
{
	return arch_read32(config(bdf, offset));
}

void pci_write16(uint16_t bdf, unsigned offset, uint16_t value)
{
	arch_write16(config(bdf, offset), value);
}

void pci_write32(uint16_t bdf, unsigned offset, uint32_t value)
{
	arch_write32(config(bdf, offset), value);
}

bool pci_next(uint16_t *bdf)
{
	if (!arch_platform()->ecam)
		return false;
	for (uint16_t at = *bdf; at < PCI_SLOTS * PCI_FUNCTIONS; at++) {
		uint16_t first = at & (uint16_t) ~(PCI_FUNCTIONS - 1);

		if (at != first && !(pci_read8(first, PCI_HEADER) & HEADER_MULTI)) {
			at = first + PCI_FUNCTIONS - 1;
			continue;
		}
		if (pci_read16(at, PCI_VENDOR_ID) != 0xffff) {
			*bdf = at;
			return true;
		}
	}
	return false;
}

/* Place one BAR; returns how many registers it takes. */
static unsigned place_bar(uint16_t bdf, unsigned offset)
{
	uint32_t old = pci_read32(bdf, offset);

	pci_write32(bdf, offset, 0xffffffff);

	uint32_t mask = pci_read32(bdf, offset);

	if (!mask || mask & BAR_IO) {
		pci_write32(bdf, offset, old);
		return 1;
	}

	uint64_t size = ~(mask & BAR_ADDR_MASK) + 1u;
	uint64_t base = (next_bar + size - 1) & ~(size - 1);

	next_bar = base + size;
	pci_write32(bdf, offset, (uint32_t)base);
	if ((mask & BAR_TYPE_MASK) != BAR_64)
		return 1;
	pci_write32(bdf, offset + 4, (uint32_t)(base >> 32));
	return 2;
}

void pci_enable(uint16_t bdf)
{
	uint16_t command = pci_read16(bdf, PCI_COMMAND);

	/* Firmware, or an earlier call, has placed them. */
	if (command & COMMAND_MEMORY)
		return;
	if (!next_bar)
		next_bar = arch_platform()->pci_mem;
	for (unsigned bar = 0; bar < PCI_NUM_BARS;)
		bar += place_bar(bdf, PCI_BAR0 + 4 * bar);
	pci_write16(bdf, PCI_COMMAND, command | COMMAND_MEMORY | COMMAND_MASTER);
}

uint64_t pci_bar(uint16_t bdf, unsigned bar)
{
	uint32_t low = pci_read32(bdf, PCI_BAR0 + 4 * bar);
	uint64_t addr = low & BAR_ADDR_MASK;

	if (low & BAR_IO)
		return 0;
	if ((low & BAR_TYPE_MASK) == BAR_64)
		addr |= (uint64_t)pci_read32(bdf, PCI_BAR0 + 4 * (bar + 1)) << 32;
	return addr;
}

unsigned pci_next_cap(uint16_t bdf, uint8_t id, unsigned after)
{
	unsigned at;

	if (!(pci_read16(bdf, PCI_STATUS) & STATUS_CAPS))
		return 0;
	at = pci_read8(bdf, after ? after + 1 : PCI_CAP_LIST) & 0xfc;
	for (unsigned i = 0; at && i < MAX_CAPS; i++) {
		if (pci_read8(bdf, at) == id)
			return at;
		at = pci_read8(bdf, at + 1) & 0xfc;
	}
	return 0;
}
