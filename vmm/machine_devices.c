#include "vmm/machine_state.h"

#include <errno.h>
#include <string.h>

_Static_assert(CONFIG_MAX_DISK_QUEUES <= VIRTIO_MAX_QUEUES, "a disk's queues");
_Static_assert(CONFIG_MAX_QUEUE_SIZE <= VIRTQ_MAX_SIZE, "a disk's queue size");
_Static_assert(CONFIG_MAX_VIOMMUS <= PLATFORM_MAX_IOMMUS, "the tables have room for all");

/*
 * The devices of the machine: where each goes, what it is made of, and what the
 * tables say of it. Adding a kind is a line in list_devices and a case in
 * create_virtio and destroy_device; translation, transport and description are
 * the same for all.
 */

/*
 * The PCI slots, of which 0 is the host bridge:
 *
 *	1 ..   the virtio-iommus on PCI
 *	       a block for each IOMMU: the devices behind it, then its spares
 *	.. 31  the devices that no IOMMU translates
 *
 * Each device is function 0 of its slot, but for devices of the host that share an IOMMU
 * group there: a guest groups functions of a slot, too.
 *
 * The tables describe a whole block as endpoints of its IOMMU, spares included,
 * because VIOT can't grow later. What is left over is shared among the blocks.
 */

static bool is_translated(const struct machine_device *d)
{
	return d->iommu != CONFIG_NO_IOMMU;
}

static void add_device(struct machine *m, enum device_kind kind, unsigned index, const char *name,
		       enum config_bus bus, unsigned iommu)
{
	m->device[m->num_devices++] = (struct machine_device){
		.kind = kind, .index = index, .name = name, .bus = bus, .iommu = iommu
	};
}

static void list_devices(struct machine *m)
{
	const struct config *c = m->config;

	for (unsigned i = 0; i < c->num_viommus; i++)
		add_device(m, DEVICE_VIOMMU, i, c->viommu[i].name, c->viommu[i].bus,
			   CONFIG_NO_IOMMU);
	for (unsigned i = 0; i < c->num_disks; i++)
		add_device(m, DEVICE_DISK, i, c->disk[i].id, c->disk[i].bus, c->disk[i].iommu);
	for (unsigned i = 0; i < c->num_nets; i++)
		add_device(m, DEVICE_NET, i, c->net[i].id, c->net[i].bus, c->net[i].iommu);
	for (unsigned i = 0; i < c->num_vfios; i++)
		add_device(m, DEVICE_VFIO, i, c->vfio[i].id, CONFIG_BUS_PCI, c->vfio[i].iommu);
	if (c->rng)
		add_device(m, DEVICE_RNG, 0, CONFIG_RNG_NAME, CONFIG_BUS_PCI, c->rng_iommu);
}

/* The first device of the host's group that @d is in, in whose slot all of them are; may be @d. */
static const struct machine_device *first_of_group(const struct machine *m,
						   const struct machine_device *d)
{
	unsigned group = d->kind == DEVICE_VFIO ? m->vfio_group[d->index] : 0;
	const struct machine_device *first = m->device;

	if (!group)
		return d;
	while (first->kind != DEVICE_VFIO || m->vfio_group[first->index] != group)
		first++;
	return first;
}

/* How many devices on PCI are in the blocks: one per IOMMU, and those of their own. */
struct slot_demand {
	unsigned viommus, behind[CONFIG_MAX_VIOMMUS], own;
};

static int count_slots(const struct machine *m, struct slot_demand *demand, struct err *err)
{
	unsigned total = 0;

	*demand = (struct slot_demand){ 0 };
	for (unsigned i = 0; i < m->num_devices; i++) {
		const struct machine_device *d = &m->device[i];

		if (d->bus != CONFIG_BUS_PCI || first_of_group(m, d) != d)
			continue;
		if (++total == PCI_NUM_SLOTS)
			return err_set(err, ENOSPC,
				       "%s: too many devices with bus=pci: the root bus has %u "
				       "slots for them; put some on bus=mmio",
				       d->name, PCI_NUM_SLOTS - 1);
		if (d->kind == DEVICE_VIOMMU)
			demand->viommus++;
		else if (is_translated(d))
			demand->behind[d->iommu]++;
		else
			demand->own++;
	}
	return 0;
}

/* Lay out the blocks. Without an IOMMU all slots are one block. */
static int divide_slots(struct machine *m, struct err *err)
{
	unsigned count = m->config->num_viommus, at = 1, spares = PCI_NUM_SLOTS - 1;
	struct slot_demand demand;
	int r = count_slots(m, &demand, err);

	if (r < 0)
		return r;
	at += demand.viommus;
	spares -= demand.viommus + demand.own;
	for (unsigned i = 0; i < count; i++)
		spares -= demand.behind[i];
	for (unsigned i = 0; i < count; i++) {
		/* The last block takes what the division leaves. */
		unsigned size = demand.behind[i] + spares / (count - i);

		spares -= spares / (count - i);
		m->iommu[i].slots = (struct slot_block){ at, at + size, at };
		at += size;
	}
	m->own_slots = (struct slot_block){ at, PCI_NUM_SLOTS, at };
	return 0;
}

static int place_on_mmio(struct machine *m, struct machine_device *d, struct err *err)
{
	if (m->num_mmio == m->map.num_mmio_gsis)
		return err_set(err, ENOSPC,
			       "%s: too many devices with bus=mmio: this machine has %u "
			       "interrupts for them; put some on bus=pci",
			       d->name, m->map.num_mmio_gsis);
	d->place = m->num_mmio++;
	d->endpoint = MACHINE_MMIO_ENDPOINT + d->place;
	return 0;
}

/* Beside @first, the first of its group. */
static int place_in_group(struct machine *m, const struct machine_device *first,
			  struct machine_device *d, struct err *err)
{
	for (const struct machine_device *other = first; other < d; other++)
		d->fn += first_of_group(m, other) == first;
	if (d->fn == PCI_NUM_FNS)
		return err_set(err, ENOSPC,
			       "%s: more than %u devices of one IOMMU group of the host", d->name,
			       PCI_NUM_FNS);
	if (d->iommu != first->iommu)
		return err_set(
			err, EINVAL,
			"--vfio: %s and %s are in one IOMMU group of the host: give them the "
			"same iommu=",
			first->name, d->name);
	d->place = first->place;
	return 0;
}

static int place_on_pci(struct machine *m, struct machine_device *d, unsigned *next_viommu,
			struct err *err)
{
	const struct machine_device *first = first_of_group(m, d);
	int r = 0;

	if (first != d)
		r = place_in_group(m, first, d, err);
	else if (d->kind == DEVICE_VIOMMU)
		d->place = (*next_viommu)++;
	else if (is_translated(d))
		d->place = m->iommu[d->iommu].slots.next++;
	else
		d->place = m->own_slots.next++;
	d->endpoint = d->place << 3 | d->fn;
	return r;
}

int machine_place_devices(struct machine *m, struct err *err)
{
	unsigned next_viommu = 1;

	list_devices(m);

	int r = divide_slots(m, err);

	for (unsigned i = 0; i < m->num_devices && r == 0; i++) {
		struct machine_device *d = &m->device[i];

		if (d->bus == CONFIG_BUS_MMIO)
			r = place_on_mmio(m, d, err);
		else
			r = place_on_pci(m, d, &next_viommu, err);
	}
	return r;
}

static int create_iommus(struct machine *m, struct err *err)
{
	int r = 0;

	m->mappings.max = m->config->max_mappings;
	for (unsigned i = 0; i < m->config->num_viommus && r == 0; i++) {
		const struct config_viommu *viommu = &m->config->viommu[i];
		struct iommu_config *config = &m->iommu[i].config;

		*config = (struct iommu_config){
			.granule = viommu->granule,
			.address_width = viommu->address_width,
			.bypass = viommu->bypass,
			.max_domain_mappings = viommu->max_mappings,
			.quota = &m->mappings,
			.audit = MACHINE_AUDIT,
		};

		r = machine_limit_iommu(m, i, config, err);
		if (r == 0)
			r = iommu_create(&m->iommu[i].iommu, config, m->ram, err);
	}
	return r;
}

static int choose_view(struct machine *m, struct machine_device *d, struct dma_view **ret_view,
		       struct err *err)
{
	struct iommu_resv msi = {
		.subtype = IOMMU_RESV_MSI,
		.first = m->map.msi.base,
		.last = m->map.msi.base + m->map.msi.size - 1,
	};

	if (!is_translated(d)) {
		*ret_view = &m->identity;
		return 0;
	}
	return iommu_add_endpoint(m->iommu[d->iommu].iommu, d->endpoint, d->name, &msi, 1, ret_view,
				  err);
}

static int create_disk(struct machine *m, struct machine_device *d, struct dma_view *view,
		       struct err *err)
{
	const struct config_disk *disk = &m->config->disk[d->index];
	struct virtio_blk_config config = {
		.name = d->name,
		.num_queues = disk->queues,
		.queue_size = (uint16_t)disk->queue_size,
		.access_platform = is_translated(d),
	};
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
	struct virtio_net_config config = { .name = d->name, .access_platform = is_translated(d) };
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
		r = viommu_create(&d->viommu, d->name, m->iommu[d->index].iommu, view, d->loop,
				  err);
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
		r = virtio_rng_create(&d->rng, d->name, is_translated(d), view, d->loop, err);
		if (r == 0)
			d->virtio = virtio_rng_virtio(d->rng);
		break;
	case DEVICE_VFIO: /* not virtio */
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
	int r = machine_open_vfio(m, err);

	if (r < 0)
		return r;
	r = create_iommus(m, err);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < m->num_devices; i++) {
		struct machine_device *d = &m->device[i];
		struct dma_view *view;

		if (d->kind == DEVICE_VFIO) {
			r = machine_create_vfio(m, d, err);
			if (r < 0)
				return r;
			continue;
		}
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

/* The block of @slots is all endpoints of IOMMU number @iommu. */
static void describe_slots(struct platform *p, const struct slot_block *slots, unsigned iommu)
{
	if (slots->first == slots->end)
		return;
	p->pci_range[p->num_pci_ranges++] = (struct platform_pci_range){
		.bdf_start = (uint16_t)(slots->first << 3),
		.bdf_end = (uint16_t)((slots->end << 3) - 1),
		.iommu = iommu,
	};
}

void machine_describe_devices(struct machine *m)
{
	struct platform *p = &m->platform;

	for (unsigned i = 0; i < m->num_devices; i++) {
		const struct machine_device *d = &m->device[i];

		if (d->bus == CONFIG_BUS_MMIO)
			p->mmio[p->num_mmio++] = (struct platform_mmio_dev){
				.base = d->base,
				.size = VIRTIO_MMIO_SIZE,
				.gsi = d->gsi,
				.endpoint = d->endpoint,
				.iommu = is_translated(d) ? d->iommu : PLATFORM_NO_IOMMU,
				.is_iommu = d->kind == DEVICE_VIOMMU,
			};
		/* The devices list them in the order of their numbers. */
		if (d->kind == DEVICE_VIOMMU)
			p->iommu[p->num_iommus++] = (struct platform_iommu){
				.on_mmio = d->bus == CONFIG_BUS_MMIO,
				.bdf = (uint16_t)d->endpoint,
				.base = d->base,
			};
	}
	for (unsigned i = 0; i < m->config->num_viommus; i++)
		describe_slots(p, &m->iommu[i].slots, i);
}

static void destroy_device(struct machine_device *d)
{
	vfio_pci_destroy(d->vfio);
	vfio_close(d->host);
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
	for (unsigned i = 0; i < m->config->num_viommus; i++)
		iommu_destroy(m->iommu[i].iommu);
	/* After those who tell it what to map. */
	vfio_destroy(m->vfio);
}
