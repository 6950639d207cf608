#ifndef TESTS_GUESTS_VIRTIO_BATCH_H
#define TESTS_GUESTS_VIRTIO_BATCH_H

/*
 * Up to BATCH_MAX requests to the virtio-iommu, prepared one by one in slots, then
 * sent together: one kick, and done when all are answered. Without the care that
 * iommu_request takes, so as fast as a driver can be.
 */

#include "tests/guests/virtio/iommu.h"

#define BATCH_MAX 64

/* Needs pages(); once after each pages_reset. */
void batch_init(void);
/* The page at @iova of @domain becomes the one at @to_phys. */
void batch_map(unsigned slot, uint32_t domain, uint64_t iova, uint64_t to_phys);
void batch_unmap(unsigned slot, uint32_t domain, uint64_t iova, uint64_t npages);
/* Send slots 0 to @n - 1; returns the ticks from before the first descriptor to the last answer. */
uint64_t batch_send(unsigned n);
/* How many of the slots 0 to @n - 1 were answered with @status, the tail's other bytes zero. */
unsigned batch_count(unsigned n, enum status status);

#endif
