#ifndef DEVICES_IOMMU_PROTO_H
#define DEVICES_IOMMU_PROTO_H

/*
 * virtio-iommu on the wire (virtio 1.3, section 5.13): structures and constants
 * only. Every request is a device-readable part, then a device-writable one
 * that ends in a tail with the status.
 */

#include "vmm/base/types.h"

/* Feature bits (5.13.3). BYPASS (3) is superseded and never offered. */
#define VIRTIO_IOMMU_F_INPUT_RANGE   (1ULL << 0)
#define VIRTIO_IOMMU_F_DOMAIN_RANGE  (1ULL << 1)
#define VIRTIO_IOMMU_F_MAP_UNMAP     (1ULL << 2)
#define VIRTIO_IOMMU_F_PROBE	     (1ULL << 4)
#define VIRTIO_IOMMU_F_MMIO	     (1ULL << 5)
#define VIRTIO_IOMMU_F_BYPASS_CONFIG (1ULL << 6)

enum viommu_queue { VIOMMU_QUEUE_REQUEST = 0, VIOMMU_QUEUE_EVENT = 1, VIOMMU_NUM_QUEUES };

/* Device configuration (5.13.4). */
struct virtio_iommu_config {
	le64 page_size_mask;
	le64 input_start, input_end; /* inclusive */
	le32 domain_start, domain_end;
	le32 probe_size;
	uint8_t bypass;
	uint8_t reserved[3];
};
_Static_assert(sizeof(struct virtio_iommu_config) == 40, "virtio 1.3, 5.13.4");

enum virtio_iommu_type {
	VIRTIO_IOMMU_T_ATTACH = 1,
	VIRTIO_IOMMU_T_DETACH = 2,
	VIRTIO_IOMMU_T_MAP = 3,
	VIRTIO_IOMMU_T_UNMAP = 4,
	VIRTIO_IOMMU_T_PROBE = 5,
};

enum virtio_iommu_status {
	VIRTIO_IOMMU_S_OK = 0,
	VIRTIO_IOMMU_S_IOERR = 1,
	VIRTIO_IOMMU_S_UNSUPP = 2,
	VIRTIO_IOMMU_S_DEVERR = 3,
	VIRTIO_IOMMU_S_INVAL = 4,
	VIRTIO_IOMMU_S_RANGE = 5,
	VIRTIO_IOMMU_S_NOENT = 6,
	VIRTIO_IOMMU_S_FAULT = 7,
	VIRTIO_IOMMU_S_NOMEM = 8,
};

struct virtio_iommu_head {
	uint8_t type;
	uint8_t reserved[3];
};
_Static_assert(sizeof(struct virtio_iommu_head) == 4, "virtio 1.3, 5.13.6");

struct virtio_iommu_tail {
	uint8_t status;
	uint8_t reserved[3];
};
_Static_assert(sizeof(struct virtio_iommu_tail) == 4, "virtio 1.3, 5.13.6");

#define VIRTIO_IOMMU_ATTACH_F_BYPASS 1u

/* The readable parts (5.13.6.3 to 5.13.6.7). */
struct virtio_iommu_attach {
	struct virtio_iommu_head head;
	le32 domain, endpoint, flags;
	uint8_t reserved[4];
};
_Static_assert(sizeof(struct virtio_iommu_attach) == 20, "virtio 1.3, 5.13.6.3");

struct virtio_iommu_detach {
	struct virtio_iommu_head head;
	le32 domain, endpoint;
	uint8_t reserved[8];
};
_Static_assert(sizeof(struct virtio_iommu_detach) == 20, "virtio 1.3, 5.13.6.4");

#define VIRTIO_IOMMU_MAP_F_READ	 1u
#define VIRTIO_IOMMU_MAP_F_WRITE 2u
#define VIRTIO_IOMMU_MAP_F_MMIO	 4u

struct virtio_iommu_map {
	struct virtio_iommu_head head;
	le32 domain;
	le64 virt_start, virt_end; /* inclusive */
	le64 phys_start;
	le32 flags;
};
_Static_assert(sizeof(struct virtio_iommu_map) == 36, "virtio 1.3, 5.13.6.5");

struct virtio_iommu_unmap {
	struct virtio_iommu_head head;
	le32 domain;
	le64 virt_start, virt_end; /* inclusive */
	uint8_t reserved[4];
};
_Static_assert(sizeof(struct virtio_iommu_unmap) == 28, "virtio 1.3, 5.13.6.6");

/* Answered by probe_size bytes of properties, then the tail. */
struct virtio_iommu_probe {
	struct virtio_iommu_head head;
	le32 endpoint;
	uint8_t reserved[64];
};
_Static_assert(sizeof(struct virtio_iommu_probe) == 72, "virtio 1.3, 5.13.6.7");

#define VIRTIO_IOMMU_PROBE_T_RESV_MEM 1

struct virtio_iommu_probe_resv_mem {
	le16 type;   /* the low 12 bits */
	le16 length; /* of what follows: 20 */
	uint8_t subtype;
	uint8_t reserved[3];
	le64 start, end; /* inclusive */
};
_Static_assert(sizeof(struct virtio_iommu_probe_resv_mem) == 24, "virtio 1.3, 5.13.6.7.3");

enum virtio_iommu_fault_reason {
	VIRTIO_IOMMU_FAULT_R_UNKNOWN = 0,
	VIRTIO_IOMMU_FAULT_R_DOMAIN = 1,
	VIRTIO_IOMMU_FAULT_R_MAPPING = 2,
};

#define VIRTIO_IOMMU_FAULT_F_READ    1u
#define VIRTIO_IOMMU_FAULT_F_WRITE   2u
#define VIRTIO_IOMMU_FAULT_F_ADDRESS 0x100u

struct virtio_iommu_fault {
	uint8_t reason;
	uint8_t reserved[3];
	le32 flags;
	le32 endpoint;
	le32 reserved1;
	le64 address;
};
_Static_assert(sizeof(struct virtio_iommu_fault) == 24, "virtio 1.3, 5.13.6.9");

#endif
