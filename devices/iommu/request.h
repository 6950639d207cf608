#ifndef DEVICES_IOMMU_REQUEST_H
#define DEVICES_IOMMU_REQUEST_H

/*
 * One request of virtio-iommu as bytes: parse it, have the iommu do it, compose
 * the answer. Knows the wire format, but no queue.
 */

#include "devices/iommu/domain.h"

/* The longest readable part that has a meaning; what follows it is ignored. */
#define REQUEST_MAX_BYTES sizeof(struct virtio_iommu_probe)

/* What goes to the start of the writable part. */
struct request_answer {
	/* Bytes to write, and the used length; 0: write nothing (5.13.6.2). */
	uint32_t len;
	uint8_t bytes[IOMMU_PROBE_SIZE + sizeof(struct virtio_iommu_tail)];
};

/*
 * Do the request in the @len bytes at @bytes (a private copy), whose driver has
 * @room writable bytes and negotiated @features. True with *@ret_answer set; or
 * false when @op is pending, whose later answer is a tail with op->status. The
 * caller isn't inside a section of a dma_port.
 */
bool request_execute(struct iommu *iommu, uint64_t features, const void *bytes, size_t len,
		     uint64_t room, struct iommu_op *op, struct request_answer *ret_answer);

#endif
