#include "vmm/machine_state.h"

#include <errno.h>
#include <inttypes.h>

#include "vmm/base/log.h"

/*
 * Devices of the host. What the host's IOMMU can't do shapes the virtio-iommu
 * before it, so they are opened first: address bits above what it translates
 * leave input_range, other gaps are reserved regions, and a granule too small for
 * it is refused.
 */

void machine_find_groups(struct machine *m)
{
	unsigned number;

	for (unsigned i = 0; i < m->config->num_vfios; i++) {
		if (vfio_group_of(m->config->vfio[i].bdf, &number))
			m->vfio_group[i] = number + 1;
	}
}

int machine_open_vfio(struct machine *m, struct err *err)
{
	static const enum vfio_backend backend[] = {
		[CONFIG_VFIO_AUTO] = VFIO_BACKEND_AUTO,
		[CONFIG_VFIO_IOMMUFD] = VFIO_BACKEND_IOMMUFD,
		[CONFIG_VFIO_TYPE1] = VFIO_BACKEND_TYPE1,
	};
	int r = 0;

	if (m->config->num_vfios)
		r = vfio_create(&m->vfio, backend[m->config->vfio_backend], m->ram,
				vm_mem_slots(m->vm), err);
	for (unsigned i = 0; i < m->num_devices && r == 0; i++) {
		struct machine_device *d = &m->device[i];

		if (d->kind != DEVICE_VFIO)
			continue;
		r = vfio_open(m->vfio, m->config->vfio[d->index].bdf, &d->host, err);
		if (r < 0)
			err_prefix(err, "--vfio");
		else
			log_info("%s: the host's %s, in %s", d->name, d->host->bdf,
				 d->host->space->name);
	}
	return r;
}

static unsigned bits_of(uint64_t number)
{
	return number ? 64 - (unsigned)__builtin_clzll(number) : 0;
}

int machine_limit_iommu(const struct machine *m, unsigned index, struct iommu_config *config,
			struct err *err)
{
	for (unsigned i = 0; i < m->num_devices; i++) {
		const struct machine_device *d = &m->device[i];

		if (d->kind != DEVICE_VFIO || d->iommu != index)
			continue;
		const struct vfio_space *space = d->host->space;
		unsigned width = bits_of(space->usable[space->num_usable - 1].last);

		if (config->granule < space->granule)
			return err_set(err, EINVAL,
				       "--vfio: %s needs an IOMMU with the granule of the host's: "
				       "--viommu=name=NAME,granule=%" PRIu64 "K, and iommu=NAME",
				       d->name, space->granule >> 10);
		config->address_width = MIN(config->address_width, width);
	}
	if (config->address_width < CONFIG_MIN_ADDRESS_WIDTH)
		return err_set(err, EINVAL, "--vfio: the host's IOMMU translates only %u bits",
			       config->address_width);
	return 0;
}

/*
 * The regions where a device in @space can't have mappings: @msi, and what the host
 * can't map, less @msi. False when there are too many.
 */
static bool reserved_regions(const struct vfio_space *space, const struct iommu_resv *msi,
			     struct iommu_resv resv[IOMMU_MAX_RESV], unsigned *ret_count)
{
	unsigned count = 0;
	uint64_t at = 0;

	resv[count++] = *msi;
	for (unsigned i = 0; i <= space->num_usable; i++) {
		bool end = i == space->num_usable;
		struct iommu_resv gap = { IOMMU_RESV_RESERVED, at,
					  end ? UINT64_MAX : space->usable[i].first - 1 };
		struct iommu_resv below = gap, above = gap;

		at = end ? 0 : space->usable[i].last + 1;
		/* Nothing before the first byte, or after the last one. */
		if (end ? space->usable[i - 1].last == UINT64_MAX : gap.last + 1 == gap.first)
			continue;
		below.last = MIN(gap.last, msi->first - 1);
		above.first = MAX(gap.first, msi->last + 1);
		if (count + 2 > IOMMU_MAX_RESV)
			return false;
		if (below.first <= below.last)
			resv[count++] = below;
		if (above.first <= above.last)
			resv[count++] = above;
	}
	*ret_count = count;
	return true;
}

/* @d is to reach all of the guest's memory. -ENOTSUP with words when the host's IOMMU can't. */
static int check_reach(const struct machine_device *d, struct err *err)
{
	struct vfio_range missed;

	if (!vfio_space_misses(d->host->space, &missed))
		return 0;
	return err_set(err, ENOTSUP,
		       "%s: the host's IOMMU can't map the guest's memory at 0x%" PRIx64
		       "-0x%" PRIx64 ", so the device would lose data there: put it behind "
		       "--viommu, without bypass=on, or give less --memory",
		       d->name, missed.first, missed.last);
}

static int add_endpoint(struct machine *m, struct machine_device *d, struct err *err)
{
	const struct iommu_resv msi = {
		.subtype = IOMMU_RESV_MSI,
		.first = m->map.msi.base,
		.last = m->map.msi.base + m->map.msi.size - 1,
	};
	struct iommu *iommu = m->iommu[d->iommu].iommu;
	struct iommu_resv resv[IOMMU_MAX_RESV];
	struct dma_view *view;
	unsigned count;
	int r = m->config->viommu[d->iommu].bypass ? check_reach(d, err) : 0;

	if (r < 0)
		return r;
	if (!reserved_regions(d->host->space, &msi, resv, &count))
		return err_set(err, ENOSPC, "%s: the host's IOMMU has too many reserved regions",
			       d->name);
	r = iommu_add_endpoint(iommu, d->endpoint, d->name, resv, count, &view, err);

	if (r < 0)
		return r;
	r = iommu_set_listener(iommu, d->endpoint, &d->host->space->listener);
	return r < 0 ? err_set(err, -r, "%s: the host can't map the guest's memory (bypass=on)",
			       d->name)
		     : 0;
}

/* Without an IOMMU of the guest's the device reaches all of its memory. */
static int map_all(struct machine_device *d, struct err *err)
{
	struct dma_listener *listener = &d->host->space->listener;
	int r = check_reach(d, err);

	if (r < 0)
		return r;
	/* Once for all devices of a group. */
	r = d->fn ? 0 : listener->ops->identity(listener);
	return r < 0 ? err_set(err, -r, "%s: the host can't map the guest's memory: %s", d->name,
			       strerror(-r))
		     : 0;
}

int machine_create_vfio(struct machine *m, struct machine_device *d, struct err *err)
{
	unsigned pin = VFIO_PCI_PIN(d->fn) - 1;
	uint32_t gsi = m->platform.pci_intx_gsi[(d->place + pin) % PLATFORM_NUM_INTX];
	struct irq_line *intx;
	int r = d->iommu == CONFIG_NO_IOMMU ? map_all(d, err) : add_endpoint(m, d, err);

	if (r == 0)
		r = loop_create(&d->loop, d->name, err);
	if (r == 0) {
		r = vm_irq_line(m->vm, gsi, &intx);
		if (r < 0)
			err_set(err, -r, "%s: no interrupt line %u: %s", d->name, gsi,
				strerror(-r));
	}
	if (r == 0)
		r = vm_add_vfio(m->vm, d->host->keeper_fd, err);
	if (r == 0)
		r = vfio_pci_create(&d->vfio, d->name, d->host, m->pci, d->place, d->fn,
				    vm_mem_slots(m->vm), intx, d->loop, err);
	return r;
}
