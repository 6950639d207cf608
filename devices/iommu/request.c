/*
 * Requests (virtio 1.3, 5.13.6). Two kinds of trouble are kept apart. A request
 * that isn't one, because it is too short, has no room for a tail or is of an
 * unknown type, is returned unwritten: there is no place of which the driver and
 * we agree that it is the status. Everything else gets a status and its full
 * length, as Linux takes the status only from an answer of the expected length.
 */
#include "devices/iommu/request.h"

static bool is_zero(const uint8_t *bytes, size_t len)
{
	uint8_t any = 0;

	while (len--)
		any |= *bytes++;
	return !any;
}

static int do_attach(struct iommu *iommu, uint64_t features, const struct virtio_iommu_attach *req,
		     struct iommu_op *op)
{
	/* Bypass domains are part of the feature (5.13.3). */
	uint32_t known = features & VIRTIO_IOMMU_F_BYPASS_CONFIG ? VIRTIO_IOMMU_ATTACH_F_BYPASS : 0;

	if (!is_zero(req->reserved, sizeof(req->reserved)))
		return VIRTIO_IOMMU_S_INVAL;
	return iommu_attach(iommu, le32_get(req->domain), le32_get(req->endpoint),
			    le32_get(req->flags), known, op);
}

static int do_map(struct iommu *iommu, uint64_t features, const struct virtio_iommu_map *req)
{
	uint32_t known = VIRTIO_IOMMU_MAP_F_READ | VIRTIO_IOMMU_MAP_F_WRITE;

	if (features & VIRTIO_IOMMU_F_MMIO)
		known |= VIRTIO_IOMMU_MAP_F_MMIO;
	return iommu_map(iommu, le32_get(req->domain), le64_get(req->virt_start),
			 le64_get(req->virt_end), le64_get(req->phys_start), le32_get(req->flags),
			 known);
}

static int do_unmap(struct iommu *iommu, const struct virtio_iommu_unmap *req, struct iommu_op *op)
{
	if (!is_zero(req->reserved, sizeof(req->reserved)))
		return VIRTIO_IOMMU_S_INVAL;
	return iommu_unmap(iommu, le32_get(req->domain), le64_get(req->virt_start),
			   le64_get(req->virt_end), op);
}

static void set_answer(struct request_answer *answer, uint32_t len, int status)
{
	struct virtio_iommu_tail tail = { .status = (uint8_t)status };

	answer->len = len;
	memcpy(answer->bytes + len - sizeof(tail), &tail, sizeof(tail));
}

static void do_probe(struct iommu *iommu, const struct virtio_iommu_probe *req, uint64_t room,
		     struct request_answer *answer)
{
	/* Zeroes are no property; they also fill what an error leaves unanswered. */
	memset(answer->bytes, 0, sizeof(answer->bytes));
	if (room < sizeof(answer->bytes)) {
		/* The tail is where the driver's own, shorter structure ends. */
		set_answer(answer, (uint32_t)room, VIRTIO_IOMMU_S_INVAL);
		return;
	}
	set_answer(answer, sizeof(answer->bytes),
		   iommu_probe(iommu, le32_get(req->endpoint), answer->bytes));
}

/*
 * The readable length of a request of @type; SIZE_MAX when there is no such type,
 * or none without a feature (5.13.6.5 to 5.13.6.7).
 */
static size_t request_size(uint8_t type, uint64_t features)
{
	switch (type) {
	case VIRTIO_IOMMU_T_ATTACH:
		return sizeof(struct virtio_iommu_attach);
	case VIRTIO_IOMMU_T_DETACH:
		return sizeof(struct virtio_iommu_detach);
	case VIRTIO_IOMMU_T_MAP:
		return features & VIRTIO_IOMMU_F_MAP_UNMAP ? sizeof(struct virtio_iommu_map)
							   : SIZE_MAX;
	case VIRTIO_IOMMU_T_UNMAP:
		return features & VIRTIO_IOMMU_F_MAP_UNMAP ? sizeof(struct virtio_iommu_unmap)
							   : SIZE_MAX;
	case VIRTIO_IOMMU_T_PROBE:
		return features & VIRTIO_IOMMU_F_PROBE ? sizeof(struct virtio_iommu_probe)
						       : SIZE_MAX;
	default:
		return SIZE_MAX;
	}
}

bool request_execute(struct iommu *iommu, uint64_t features, const void *bytes, size_t len,
		     uint64_t room, struct iommu_op *op, struct request_answer *ret_answer)
{
	union {
		struct virtio_iommu_head head;
		struct virtio_iommu_attach attach;
		struct virtio_iommu_detach detach;
		struct virtio_iommu_map map;
		struct virtio_iommu_unmap unmap;
		struct virtio_iommu_probe probe;
	} req = { 0 };
	int status;

	ret_answer->len = 0;
	if (len < sizeof(req.head) || room < sizeof(struct virtio_iommu_tail))
		return true;
	memcpy(&req, bytes, MIN(len, sizeof(req)));
	if (len < request_size(req.head.type, features))
		return true;
	switch (req.head.type) {
	case VIRTIO_IOMMU_T_ATTACH:
		status = do_attach(iommu, features, &req.attach, op);
		break;
	case VIRTIO_IOMMU_T_DETACH:
		status = iommu_detach(iommu, le32_get(req.detach.domain),
				      le32_get(req.detach.endpoint), op);
		break;
	case VIRTIO_IOMMU_T_MAP:
		status = do_map(iommu, features, &req.map);
		break;
	case VIRTIO_IOMMU_T_UNMAP:
		status = do_unmap(iommu, &req.unmap, op);
		break;
	default:
		do_probe(iommu, &req.probe, room, ret_answer);
		return true;
	}
	iommu_audit_request(iommu);
	if (status == IOMMU_PENDING)
		return false;
	set_answer(ret_answer, sizeof(struct virtio_iommu_tail), status);
	return true;
}
