#include "vmm/machine_state.h"

#include <errno.h>
#include <string.h>

/*
 * The devices of the machine: where each goes, what it is made of, and what the
 * tables say of it. Adding a kind is a line in machine_place_devices and a case
 * in create_virtio; translation, transport and description are the same for all.
 */

/*
 * PCI slot 0 is the host bridge. A virtio-iommu on PCI takes slot 1,
 * the devices behind it the slots from 2 up, the others (iommu=off) the slots
 * from 31 down; everything between the first translated and the first untranslated
 * slot is the IOMMU's block, spares included, because VIOT can't grow later.
 */

static struct machine_device *add_device(struct machine *m, enum device_kind kind, unsigned index,
					 const char *name, enum config_bus bus, bool translated)
{
	struct machine_device *d = &m->device[m->num_devices++];

	*d = (struct machine_device){
		.kind = kind, .index = index, .name = name, .bus = bus, .translated = translated
	};
	return d;
}

static int place_device(struct machine *m, struct machine_device *d, struct err *err)
{
	if (d->bus == CONFIG_BUS_MMIO) {
		if (m->num_mmio == m->map.num_mmio_gsis)
			return err_set(err, ENOSPC,
				       "%s: too many devices with bus=mmio: this machine has %u "
				       "interrupts for them; put some on bus=pci",
				       d->name, m->map.num_mmio_gsis);
		d->place = m->num_mmio++;
		d->endpoint = MACHINE_MMIO_ENDPOINT + d->place;
		return 0;
	}
	if (m->first_free_slot > m->last_free_slot)
		return err_set(err, ENOSPC,
			       "%s: too many devices with bus=pci: the root bus has %u slots for "
			       "them; put some on bus=mmio",
			       d->name, PCI_NUM_SLOTS - 1);
	if (m->config->viommu.present && !d->translated && d->kind != DEVICE_VIOMMU)
		d->place = m->last_free_slot--;
	else
		d->place = m->first_free_slot++;
	d->endpoint = d->place << 3;
	return 0;
}

int machine_place_devices(struct machine *m, struct err *err)
{
	const struct config *c = m->config;

	m->first_free_slot = 1;
	m->last_free_slot = PCI_NUM_SLOTS - 1;
	if (c->viommu.present)
		add_device(m, DEVICE_VIOMMU, 0, "viommu", c->viommu.bus, false);
	for (unsigned i = 0; i < c->num_disks; i++)
		add_device(m, DEVICE_DISK, i, c->disk[i].id, c->disk[i].bus, c->disk[i].iommu);
	for (unsigned i = 0; i < c->num_nets; i++)
		add_device(m, DEVICE_NET, i, c->net[i].id, c->net[i].bus, c->net[i].iommu);
	if (c->rng)
		add_device(m, DEVICE_RNG, 0, "rng", CONFIG_BUS_PCI, c->rng_iommu);

	for (unsigned i = 0; i < m->num_devices; i++) {
		int r = place_device(m, &m->device[i], err);

		if (r < 0)
			return r;
	}
	return 0;
}

static int create_iommu(struct machine *m, struct err *err)
{
	struct iommu_config config = {
		.granule = KIB(4),
		.address_width = m->config->viommu.address_width,
		.bypass = m->config->viommu.bypass,
	};

	if (!m->config->viommu.present)
		return 0;
	return iommu_create(&m->iommu, &config, m->ram, err);
}

static int choose_view(struct machine *m, struct machine_device *d, struct dma_view **ret_view,
		       struct err *err)
{
	struct iommu_resv msi = {
		.subtype = IOMMU_RESV_MSI,
		.first = m->map.msi.base,
		.last = m->map.msi.base + m->map.msi.size - 1,
	};

	if (!d->translated) {
		*ret_view = &m->identity;
		return 0;
	}
	return iommu_add_endpoint(m->iommu, d->endpoint, d->name, &msi, 1, ret_view, err);
}

static int create_disk(struct machine *m, struct machine_device *d, struct dma_view *view,
		       struct err *err)
{
	const struct config_disk *disk = &m->config->disk[d->index];
	struct virtio_blk_config config = { .name = d->name, .access_platform = d->translated };
	struct block *block;
	int r;

	r = block_file_create(&block, disk->path, disk->readonly, d->loop, err);
	if (r < 0) {
		err_prefix(err, "--disk");
		return r;
	}
	r = virtio_blk_create(&d->blk, &config, block, view, d->loop, err);
	if (r == 0)
		d->virtio = virtio_blk_virtio(d->blk);
	return r;
}

static int create_net(struct machine *m, struct machine_device *d, struct dma_view *view,
		      struct err *err)
{
	const struct config_net *net = &m->config->net[d->index];
	struct virtio_net_config config = { .name = d->name, .access_platform = d->translated };
	struct net_backend *backend;
	int r;

	memcpy(config.mac, net->mac, sizeof(config.mac));
	if (net->user)
		r = net_user_create(&backend, d->loop, err);
	else
		r = net_tap_create(&backend, net->tap, d->loop, err);
	if (r < 0) {
		err_prefix(err, "--net");
		return r;
	}
	r = virtio_net_create(&d->net, &config, backend, view, d->loop, err);
	if (r == 0)
		d->virtio = virtio_net_virtio(d->net);
	return r;
}

static int create_virtio(struct machine *m, struct machine_device *d, struct dma_view *view,
			 struct err *err)
{
	int r = -EINVAL;

	switch (d->kind) {
	case DEVICE_VIOMMU:
		r = viommu_create(&d->viommu, d->name, m->iommu, view, d->loop, err);
		if (r == 0)
			d->virtio = viommu_virtio(d->viommu);
		break;
	case DEVICE_DISK:
		r = create_disk(m, d, view, err);
		break;
	case DEVICE_NET:
		r = create_net(m, d, view, err);
		break;
	case DEVICE_RNG:
		r = virtio_rng_create(&d->rng, d->name, d->translated, view, d->loop, err);
		if (r == 0)
			d->virtio = virtio_rng_virtio(d->rng);
		break;
	}
	return r;
}

static int create_transport(struct machine *m, struct machine_device *d, struct err *err)
{
	struct irq_line *irq;
	int r;

	if (d->bus == CONFIG_BUS_PCI)
		return virtio_pci_create(&d->pci, d->virtio, m->pci, d->place, err);
	d->base = m->map.mmio_devices.base + d->place * VIRTIO_MMIO_SIZE;
	d->gsi = m->map.first_mmio_gsi + d->place;
	r = vm_irq_line(m->vm, d->gsi, &irq);
	if (r < 0)
		return err_set(err, -r, "%s: no interrupt line %u: %s", d->name, d->gsi,
			       strerror(-r));
	return virtio_mmio_create(&d->mmio, d->virtio, &m->mmio, GPA(d->base), irq, err);
}

int machine_create_devices(struct machine *m, struct err *err)
{
	int r = create_iommu(m, err);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < m->num_devices; i++) {
		struct machine_device *d = &m->device[i];
		struct dma_view *view;

		r = loop_create(&d->loop, d->name, err);
		if (r < 0)
			return r;
		r = choose_view(m, d, &view, err);
		if (r < 0)
			return r;
		r = create_virtio(m, d, view, err);
		if (r < 0)
			return r;
		r = create_transport(m, d, err);
		if (r < 0)
			return r;
	}
	return pci_root_assign(m->pci, err);
}

void machine_describe_devices(struct machine *m)
{
	struct platform *p = &m->platform;
	const struct machine_device *viommu = NULL;

	for (unsigned i = 0; i < m->num_devices; i++) {
		const struct machine_device *d = &m->device[i];

		if (d->kind == DEVICE_VIOMMU)
			viommu = d;
		if (d->bus == CONFIG_BUS_MMIO)
			p->mmio[p->num_mmio++] = (struct platform_mmio_dev){
				.base = d->base,
				.size = VIRTIO_MMIO_SIZE,
				.gsi = d->gsi,
				.endpoint = d->endpoint,
				.iommu = d->translated ? 0 : PLATFORM_NO_IOMMU,
				.is_iommu = d->kind == DEVICE_VIOMMU,
			};
	}
	if (!viommu)
		return;
	p->iommu[p->num_iommus++] = (struct platform_iommu){
		.on_mmio = viommu->bus == CONFIG_BUS_MMIO,
		.bdf = (uint16_t)viommu->endpoint,
		.base = viommu->base,
	};

	unsigned first = viommu->bus == CONFIG_BUS_PCI ? viommu->place + 1 : 1;

	if (first <= m->last_free_slot)
		p->pci_range[p->num_pci_ranges++] = (struct platform_pci_range){
			.bdf_start = (uint16_t)(first << 3),
			.bdf_end = (uint16_t)(m->last_free_slot << 3 | 7),
			.iommu = 0,
		};
}

static void destroy_device(struct machine_device *d)
{
	virtio_pci_destroy(d->pci);
	virtio_mmio_destroy(d->mmio);
	viommu_destroy(d->viommu);
	virtio_blk_destroy(d->blk);
	virtio_net_destroy(d->net);
	virtio_rng_destroy(d->rng);
	loop_destroy(d->loop);
}

void machine_destroy_devices(struct machine *m)
{
	for (unsigned i = m->num_devices; i-- > 0;)
		destroy_device(&m->device[i]);
	iommu_destroy(m->iommu);
}
