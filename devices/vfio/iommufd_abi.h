#ifndef DEVICES_VFIO_IOMMUFD_ABI_H
#define DEVICES_VFIO_IOMMUFD_ABI_H

/*
 * The kernel's interface of iommufd and of VFIO's device files, Linux 6.6 and later, as far
 * as it is used: the headers that moat is built with may be older. Documentation/userspace-api/
 * iommufd.rst of the kernel describes it. Native byte order: it never leaves this machine.
 */

#include <linux/ioctl.h>
#include <stdint.h>

#define ABI_IOMMU_DESTROY     _IO(';', 0x80)
#define ABI_IOAS_ALLOC	      _IO(';', 0x81)
#define ABI_IOAS_IOVA_RANGES  _IO(';', 0x84)
#define ABI_IOAS_MAP	      _IO(';', 0x85)
#define ABI_IOAS_UNMAP	      _IO(';', 0x86)
#define ABI_VFIO_BIND_IOMMUFD _IO(';', 118)
#define ABI_VFIO_ATTACH_PT    _IO(';', 119)

/* Free an object: an address space, for one. */
struct abi_iommu_destroy {
	uint32_t size; /* of this, as in all of these */
	uint32_t id;
};
_Static_assert(sizeof(struct abi_iommu_destroy) == 8, "as the kernel has it");

struct abi_ioas_alloc {
	uint32_t size, flags;
	uint32_t out_ioas_id;
};
_Static_assert(sizeof(struct abi_ioas_alloc) == 12, "as the kernel has it");

struct abi_iova_range {
	uint64_t start, last; /* inclusive */
};

/* EMSGSIZE when there are more than @num_iovas; what fits is written then too. */
struct abi_ioas_iova_ranges {
	uint32_t size, ioas_id;
	uint32_t num_iovas; /* room in @allowed_iovas; then how many there are */
	uint32_t reserved;
	uint64_t allowed_iovas; /* address of struct abi_iova_range[] */
	uint64_t out_iova_alignment;
};
_Static_assert(sizeof(struct abi_ioas_iova_ranges) == 32, "as the kernel has it");

#define ABI_IOAS_MAP_FIXED_IOVA (1 << 0)
#define ABI_IOAS_MAP_WRITEABLE	(1 << 1)
#define ABI_IOAS_MAP_READABLE	(1 << 2)

struct abi_ioas_map {
	uint32_t size, flags, ioas_id, reserved;
	uint64_t user_va, length, iova;
};
_Static_assert(sizeof(struct abi_ioas_map) == 40, "as the kernel has it");

/* @iova 0, @length UINT64_MAX: everything. ENOENT: nothing is there, or more than that. */
struct abi_ioas_unmap {
	uint32_t size, ioas_id;
	uint64_t iova;
	uint64_t length; /* then how many bytes were unmapped */
};
_Static_assert(sizeof(struct abi_ioas_unmap) == 24, "as the kernel has it");

struct abi_vfio_bind {
	uint32_t argsz, flags;
	int32_t iommufd;
	uint32_t out_devid;
};
_Static_assert(sizeof(struct abi_vfio_bind) == 16, "as the kernel has it");

/*
 * In the flags of struct vfio_pci_hot_reset_info: for each device there is, in the place of its
 * group, what the asking device's iommufd knows it by.
 */
#define ABI_VFIO_HOT_RESET_DEV_ID (1 << 0)
#define ABI_VFIO_DEVID_NOT_OWNED  UINT32_MAX

struct abi_vfio_attach {
	uint32_t argsz, flags;
	uint32_t pt_id;
};
_Static_assert(sizeof(struct abi_vfio_attach) == 12, "as the kernel has it");

#endif
