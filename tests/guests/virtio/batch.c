#include "tests/guests/virtio/batch.h"
#include "tests/guests/arch.h"

#define SLOT_SIZE 64u
#define REPLY_AT  48u

static uint64_t slots;

void batch_init(void)
{
	slots = pages(BATCH_MAX * SLOT_SIZE / PAGE);
}

void batch_map(unsigned slot, uint32_t domain, uint64_t iova, uint64_t to_phys)
{
	fill_map(phys(slots + slot * SLOT_SIZE), domain, iova, iova + PAGE - 1, to_phys, MAP_RW);
}

void batch_unmap(unsigned slot, uint32_t domain, uint64_t iova, uint64_t npages)
{
	fill_unmap(phys(slots + slot * SLOT_SIZE), domain, iova, iova + npages * PAGE - 1);
}

uint64_t batch_send(unsigned n)
{
	uint32_t id, len;

	for (unsigned i = 0; i < n; i++)
		put32(phys(slots + i * SLOT_SIZE + REPLY_AT), UINT32_MAX);
	uint64_t start = arch_ticks();

	for (unsigned i = 0; i < n; i++) {
		uint64_t at = slots + i * SLOT_SIZE;
		uint8_t type = *(uint8_t *)phys(at);
		const struct seg seg[] = {
			{ at, type == T_MAP ? MAP_SIZE : UNMAP_SIZE, false },
			{ at + REPLY_AT, TAIL_SIZE, true },
		};

		vring_add(&iommu.requests, seg, 2);
	}
	vring_kick(&iommu.requests);
	for (unsigned i = 0; i < n; i++) {
		while (!vring_poll(&iommu.requests, &id, &len))
			arch_relax();
	}
	return arch_ticks() - start;
}

unsigned batch_count(unsigned n, enum status status)
{
	unsigned count = 0;

	for (unsigned i = 0; i < n; i++)
		count += get32(phys(slots + i * SLOT_SIZE + REPLY_AT)) == (uint32_t)status;
	return count;
}
