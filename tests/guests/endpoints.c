#include "tests/guests/endpoints.h"

#define MAX_ENDPOINTS 32

static struct {
	uint32_t first, last, id;
} pci[MAX_ENDPOINTS];
static unsigned num_pci;

static struct {
	uint64_t base;
	uint32_t id;
} mmio[MAX_ENDPOINTS];
static unsigned num_mmio;

void endpoints_add_pci(uint32_t first, uint32_t last, uint32_t id)
{
	if (num_pci == MAX_ENDPOINTS)
		return;
	pci[num_pci].first = first;
	pci[num_pci].last = last;
	pci[num_pci++].id = id;
}

void endpoints_add_mmio(uint64_t base, uint32_t id)
{
	if (num_mmio == MAX_ENDPOINTS)
		return;
	mmio[num_mmio].base = base;
	mmio[num_mmio++].id = id;
}

bool endpoints_find_pci(uint16_t bdf, uint32_t *ret_id)
{
	for (unsigned i = 0; i < num_pci; i++) {
		if (bdf >= pci[i].first && bdf <= pci[i].last) {
			*ret_id = pci[i].id + bdf - pci[i].first;
			return true;
		}
	}
	return false;
}

bool endpoints_find_mmio(uint64_t base, uint32_t *ret_id)
{
	for (unsigned i = 0; i < num_mmio; i++) {
		if (mmio[i].base == base) {
			*ret_id = mmio[i].id;
			return true;
		}
	}
	return false;
}
