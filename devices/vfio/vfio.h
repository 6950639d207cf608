#ifndef DEVICES_VFIO_VFIO_H
#define DEVICES_VFIO_VFIO_H

/*
 * Devices of the host passed through to the guest, by VFIO. struct vfio is what
 * they share: the files through which the host's IOMMU is programmed. Control
 * path; the loops and vCPUs see only what vfio_pci.h makes.
 */

#include "devices/vfio/host.h"
#include "vmm/base/err.h"

struct vfio;

/* How the host's IOMMU is programmed. AUTO: by iommufd where the host has it, else by Type1. */
enum vfio_backend { VFIO_BACKEND_AUTO, VFIO_BACKEND_IOMMUFD, VFIO_BACKEND_TYPE1 };

/*
 * *@ret_vfio is owned by the caller; @ram and @slots, in which devices' registers are shown and
 * whose changes it follows, are borrowed. 0 or -errno with words in @err.
 */
int vfio_create(struct vfio **ret_vfio, enum vfio_backend backend, struct ram *ram,
		struct mem_slots *slots, struct err *err);
/* Every device is closed and nobody tells the listeners anything. Accepts NULL. */
void vfio_destroy(struct vfio *vfio);

/*
 * Which IOMMU group of the host device @bdf is in: devices that share one can't be told apart.
 * False when there is no such device, or no IOMMU before it.
 */
bool vfio_group_of(const char *bdf, unsigned *ret_number);

/*
 * Open device @bdf (0000:00:00.0). *@ret_host is the caller's to close; its
 * space, which is empty, lives as long as @vfio. -errno with words in @err that
 * name the step that is missing and the command for it.
 */
int vfio_open(struct vfio *vfio, const char *bdf, struct vfio_host **ret_host, struct err *err);
/* The host resets the device and keeps its space. Accepts NULL. */
void vfio_close(struct vfio_host *host);

#endif
