#ifndef DEVICES_IOMMU_VIOMMU_H
#define DEVICES_IOMMU_VIOMMU_H

/*
 * virtio-iommu, the virtio device (virtio 1.3, section 5.13): parses the
 * request queue, answers from an iommu, and reports faults on the event queue.
 */

#include "devices/iommu/iommu.h"
#include "devices/virtio/virtio.h"

struct viommu;

/*
 * Make the device for @iommu (borrowed). @view is the identity view that its
 * own queues use; @loop is a loop of its own (the guest waits for it).
 * *@ret_viommu is owned by the caller. 0 or -errno with words in @err.
 */
int viommu_create(struct viommu **ret_viommu, const char *name, struct iommu *iommu,
		  struct dma_view *view, struct loop *loop, struct err *err);
/* After its transport; accepts NULL. */
void viommu_destroy(struct viommu *viommu);
/* The virtio device inside, for a transport; borrows. */
struct virtio_dev *viommu_virtio(struct viommu *viommu);

#endif
