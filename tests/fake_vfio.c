#include "tests/fake_vfio.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "tests/check.h"

/* The host. */

static struct fake_vfio *to_fake(struct vfio_host *host)
{
	return container_of(host, struct fake_vfio, host);
}

/* What every call begins with: 0 or what is refused. */
static int begin(const struct fake_vfio *d, enum fake_call call)
{
	return d->released ? -EIO : -d->refuse[call];
}

bool fake_vfio_sleeps(const struct fake_vfio *dev)
{
	return dev->pm_cap &&
	       (dev->config[dev->pm_cap + PCI_PM_CTRL] & PCI_PM_CTRL_STATE_MASK) == 3;
}

const struct fake_map *fake_vfio_find(const struct fake_vfio *dev, const void *host)
{
	for (unsigned i = 0; i < ARRAY_SIZE(dev->map); i++) {
		if (dev->map[i].host == host)
			return &dev->map[i];
	}
	return NULL;
}

unsigned fake_vfio_mapped(const struct fake_vfio *dev)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(dev->map); i++)
		n += dev->map[i].host != NULL;
	return n;
}

static int host_region(struct vfio_host *h, unsigned index, struct vfio_region *ret_region)
{
	struct fake_vfio *d = to_fake(h);
	int r = begin(d, FAKE_REGION);

	CHECK(index < ARRAY_SIZE(d->region));
	if (r == 0)
		*ret_region = d->region[index];
	return r;
}

static void check_guarded(const struct fake_vfio *d, unsigned index, uint64_t offset, uint64_t size)
{
	for (unsigned i = 0; i < ARRAY_SIZE(d->guarded); i++)
		CHECK(index != d->guarded[i].bar || offset >= d->guarded[i].end ||
		      offset + size <= d->guarded[i].first);
}

/* Is it an access that a region allows? */
static void check_access(const struct fake_vfio *d, unsigned index, uint64_t offset, unsigned size)
{
	CHECK(index < ARRAY_SIZE(d->region));
	CHECK(size == 1 || size == 2 || size == 4 || size == 8);
	CHECK(offset <= d->region[index].size && size <= d->region[index].size - offset);
	check_guarded(d, index, offset, size);
}

static bool decodes(const struct fake_vfio *d)
{
	return d->config[PCI_COMMAND] & PCI_COMMAND_MEMORY && !fake_vfio_sleeps(d);
}

static int host_read(struct vfio_host *h, unsigned index, uint64_t offset, void *buf, unsigned size)
{
	struct fake_vfio *d = to_fake(h);
	int r = begin(d, FAKE_READ);

	check_access(d, index, offset, size);
	if (r < 0)
		return r;
	if (index == VFIO_PCI_CONFIG_REGION_INDEX) {
		memcpy(buf, d->config + offset, size);
		return 0;
	}
	if (!decodes(d))
		return -EIO;
	for (unsigned i = 0; i < size; i++)
		((uint8_t *)buf)[i] =
			d->bytes[index] ? d->bytes[index][offset + i] : (uint8_t)(offset + i);
	return 0;
}

/* The kernel resets a function itself, when it can; what it decodes stays as it is. */
static void reset_function(struct fake_vfio *d)
{
	d->flrs++;
	if (d->pm_cap && !d->refuse[FAKE_RESET])
		d->config[d->pm_cap + PCI_PM_CTRL] &= (uint8_t)~PCI_PM_CTRL_STATE_MASK;
}

static void written_config(struct fake_vfio *d, unsigned offset, unsigned size)
{
	unsigned exp = d->exp_cap + PCI_EXP_DEVCTL + 1, af = d->af_cap + PCI_AF_CTRL;
	uint8_t af_needs = PCI_AF_CAP_TP | PCI_AF_CAP_FLR;

	if (d->exp_cap && offset <= exp && exp < offset + size &&
	    d->config[exp] & PCI_EXP_DEVCTL_BCR_FLR >> 8) {
		d->config[exp] &= (uint8_t) ~(PCI_EXP_DEVCTL_BCR_FLR >> 8);
		if (pci_config_get(d->config, d->exp_cap + PCI_EXP_DEVCAP, 4) & PCI_EXP_DEVCAP_FLR)
			reset_function(d);
	}
	if (d->af_cap && offset <= af && af < offset + size && d->config[af] & PCI_AF_CTRL_FLR) {
		d->config[af] &= (uint8_t)~PCI_AF_CTRL_FLR;
		if ((d->config[d->af_cap + PCI_AF_CAP] & af_needs) == af_needs)
			reset_function(d);
	}
}

static int host_write(struct vfio_host *h, unsigned index, uint64_t offset, const void *buf,
		      unsigned size)
{
	struct fake_vfio *d = to_fake(h);
	int r = begin(d, FAKE_WRITE);

	check_access(d, index, offset, size);
	CHECK(index != VFIO_PCI_ROM_REGION_INDEX);
	if (index != VFIO_PCI_CONFIG_REGION_INDEX) {
		if (r == 0 && !decodes(d))
			return -EIO;
		if (r == 0 && d->bytes[index])
			memcpy(d->bytes[index] + offset, buf, size);
		return r;
	}
	for (unsigned i = 0; i < size; i++)
		CHECK(!d->kept[offset + i]);
	if (d->pm_cap && offset == d->pm_cap + PCI_PM_CTRL)
		d->power_saw_slots = fake_slots_shown(d->slots) != 0;
	if (r < 0 || (d->stays_asleep && d->pm_cap && offset == d->pm_cap + PCI_PM_CTRL))
		return r;
	memcpy(d->config + offset, buf, size);
	written_config(d, (unsigned)offset, size);
	return 0;
}

static void *host_map(struct vfio_host *h, unsigned index, uint64_t offset, uint64_t size)
{
	struct fake_vfio *d = to_fake(h);
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	const struct vfio_region *region = &d->region[index];
	bool inside = false;

	CHECK(index < PCI_NUM_BARS && size && !(offset % page) && !(size % page));
	for (unsigned i = 0; i < region->num_areas; i++)
		inside |= offset >= region->area[i].offset &&
			  offset + size <= region->area[i].offset + region->area[i].size;
	CHECK(inside && offset + size <= region->size);
	check_guarded(d, index, offset, size);
	errno = -begin(d, FAKE_MAP);
	if (errno)
		return NULL;
	for (unsigned i = 0; i < ARRAY_SIZE(d->map); i++) {
		if (d->map[i].host)
			continue;
		uintptr_t base =
			d->bytes[index] ? (uintptr_t)d->bytes[index] : (uintptr_t)(index + 1) << 56;

		d->map[i] = (struct fake_map){ index, offset, size, (void *)(base + offset) };
		return d->map[i].host;
	}
	errno = ENOMEM;
	return NULL;
}

static void host_unmap(struct vfio_host *h, void *address, uint64_t size)
{
	struct fake_vfio *d = to_fake(h);

	for (unsigned i = 0; i < ARRAY_SIZE(d->slots->slot); i++)
		CHECK(!d->slots->slot[i].size || d->slots->slot[i].host != address);
	for (unsigned i = 0; i < ARRAY_SIZE(d->map); i++) {
		if (d->map[i].host != address)
			continue;
		CHECK(d->map[i].size == size);
		d->map[i].host = NULL;
		return;
	}
	CHECK(!"this was mapped");
}

static unsigned host_irqs(struct vfio_host *h, unsigned index, bool *ret_grows)
{
	struct fake_vfio *d = to_fake(h);

	*ret_grows = d->grows;
	return d->count[index];
}

static int host_set_irqs(struct vfio_host *h, unsigned index, unsigned first, unsigned count,
			 const int *eventfd)
{
	struct fake_vfio *d = to_fake(h);
	int r = begin(d, FAKE_SET_IRQS);

	d->set_calls++;
	if (!count) {
		memset(d->irq[index], 0xff, sizeof(d->irq[index]));
		d->room[index] = 0;
		return 0;
	}
	if (r < 0)
		return r;
	/* What the kernel insists on: one kind of a function's interrupts at a time. */
	for (unsigned other = 0; other <= VFIO_PCI_MSIX_IRQ_INDEX; other++) {
		if (index <= VFIO_PCI_MSIX_IRQ_INDEX && other != index && d->room[other])
			return -EINVAL;
	}
	if (d->max_irqs && first + count > d->max_irqs)
		return (int)d->max_irqs;
	if (first > d->count[index] || count > d->count[index] - first)
		return -EINVAL;
	CHECK(!d->room[index] || d->grows || first + count <= d->room[index]);
	memcpy(&d->irq[index][first], eventfd, count * sizeof(int));
	d->room[index] = MAX(d->room[index], first + count);
	return 0;
}

static int host_unmask_by(struct vfio_host *h, unsigned index, int eventfd)
{
	struct fake_vfio *d = to_fake(h);
	int r = begin(d, FAKE_UNMASK_BY);

	CHECK(index == VFIO_PCI_INTX_IRQ_INDEX && d->room[index]);
	if (r == 0)
		d->unmask_fd = eventfd;
	return r;
}

static void host_release(struct vfio_host *h)
{
	struct fake_vfio *d = to_fake(h);

	CHECK(fake_slots_shown(d->slots) == 0 && fake_vfio_mapped(d) == 0);
	for (unsigned i = 0; i < ARRAY_SIZE(d->room); i++)
		CHECK(d->room[i] == 0);
	d->released = true;
}

static void host_quiet(struct vfio_host *h)
{
	to_fake(h)->quiets++;
}

static int host_reset(struct vfio_host *h, struct err *err)
{
	struct fake_vfio *d = to_fake(h);

	/* No register is in the guest's reach, and no interrupt is on. */
	CHECK(fake_slots_shown(d->slots) == 0);
	for (unsigned i = 0; i <= VFIO_PCI_MSIX_IRQ_INDEX; i++)
		CHECK(!d->room[i]);
	CHECK(d->quiets == ++d->resets);
	if (d->refuse[FAKE_RESET])
		return err_set(err, d->refuse[FAKE_RESET], "its bus is busy");
	if (d->pm_cap)
		d->config[d->pm_cap + PCI_PM_CTRL] &= (uint8_t)~PCI_PM_CTRL_STATE_MASK;
	return 0;
}

static const struct vfio_host_ops host_ops = {
	.region = host_region,
	.read = host_read,
	.write = host_write,
	.map = host_map,
	.unmap = host_unmap,
	.irqs = host_irqs,
	.set_irqs = host_set_irqs,
	.unmask_by = host_unmask_by,
	.release = host_release,
	.quiet = host_quiet,
	.reset = host_reset,
};

void fake_vfio_init(struct fake_vfio *dev, struct fake_slots *slots)
{
	memset(dev, 0, sizeof(*dev));
	memset(dev->irq, 0xff, sizeof(dev->irq));
	dev->host.ops = &host_ops;
	dev->slots = slots;
	strcpy(dev->host.bdf, "0000:01:00.0");
	for (unsigned i = 0; i < ARRAY_SIZE(dev->guarded); i++)
		dev->guarded[i].bar = UINT32_MAX;
}

/* KVM's memory slots. */

static struct fake_slots *to_mem(struct mem_slots *slots)
{
	return container_of(slots, struct fake_slots, slots);
}

unsigned fake_slots_shown(const struct fake_slots *mem)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(mem->slot); i++)
		n += mem->slot[i].size != 0;
	return n;
}

static int slot_add(struct mem_slots *s, gpa_t gpa, uint64_t size, void *host, unsigned *ret_slot)
{
	struct fake_slots *mem = to_mem(s);
	unsigned free = ARRAY_SIZE(mem->slot);

	CHECK(size && host);
	if (mem->refuse)
		return -mem->refuse;
	for (unsigned i = ARRAY_SIZE(mem->slot); i-- > 0;) {
		if (!mem->slot[i].size)
			free = i;
		else
			CHECK(gpa.v >= mem->slot[i].gpa + mem->slot[i].size ||
			      mem->slot[i].gpa >= gpa.v + size);
	}
	if (free == ARRAY_SIZE(mem->slot))
		return -ENOSPC;
	mem->slot[free].gpa = gpa.v;
	mem->slot[free].size = size;
	mem->slot[free].host = host;
	*ret_slot = free;
	return 0;
}

static void slot_remove(struct mem_slots *s, unsigned slot)
{
	struct fake_slots *mem = to_mem(s);

	CHECK(slot < ARRAY_SIZE(mem->slot) && mem->slot[slot].size);
	mem->slot[slot].size = 0;
}

static void slot_drop_file(struct mem_slots *s, int fd)
{
	struct fake_slots *mem = to_mem(s);

	CHECK(fake_slots_shown(mem) == 0);
	mem->dropped = fd;
}

static const struct mem_slots_ops slot_ops = { slot_add, slot_remove, slot_drop_file };

void fake_slots_init(struct fake_slots *mem)
{
	*mem = (struct fake_slots){ .slots.ops = &slot_ops };
}

/* Interrupts. */

static struct fake_sink *to_sink(struct msi_sink *sink)
{
	return container_of(sink, struct fake_sink, sink);
}

unsigned fake_sink_used(const struct fake_sink *sink)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(sink->vector); i++)
		n += sink->vector[i].used;
	return n;
}

struct msi_vector *fake_sink_find(struct fake_sink *sink, int eventfd)
{
	for (unsigned i = 0; i < ARRAY_SIZE(sink->vector); i++) {
		if (sink->vector[i].used && sink->vector[i].eventfd == eventfd)
			return &sink->vector[i];
	}
	return NULL;
}

static int vector_alloc(struct msi_sink *s, uint32_t rid, struct msi_vector **ret_vector)
{
	struct fake_sink *sink = to_sink(s);

	for (unsigned i = 0; i < ARRAY_SIZE(sink->vector) && !sink->full; i++) {
		struct msi_vector *v = &sink->vector[i];

		if (v->used)
			continue;
		*v = (struct msi_vector){ .used = true, .masked = true };
		v->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		CHECK(v->eventfd >= 0);
		*ret_vector = v;
		return 0;
	}
	return -ENOSPC;
}

static void vector_free(struct msi_sink *s, struct msi_vector *v)
{
	CHECK(v->used);
	close(v->eventfd);
	v->used = false;
}

static int vector_update(struct msi_sink *s, struct msi_vector *v, const struct msi_message *m,
			 bool masked)
{
	struct fake_sink *sink = to_sink(s);

	CHECK(v->used);
	v->message = *m;
	v->masked = masked || sink->refuse;
	return masked ? 0 : -sink->refuse;
}

static int vector_eventfd(struct msi_sink *s, struct msi_vector *v)
{
	CHECK(v->used);
	return v->eventfd;
}

static const struct msi_sink_ops sink_ops = {
	.alloc = vector_alloc,
	.free = vector_free,
	.update = vector_update,
	.eventfd = vector_eventfd,
};

void fake_sink_init(struct fake_sink *sink)
{
	*sink = (struct fake_sink){ .sink.ops = &sink_ops };
}

static int wire_connect(struct irq_line *line, int trigger, int resample)
{
	struct fake_wire *w = container_of(line, struct fake_wire, line);

	CHECK(w->trigger == -1 && trigger >= 0 && resample >= 0);
	if (w->refuse)
		return -w->refuse;
	w->trigger = trigger;
	w->resample = resample;
	return 0;
}

static void wire_disconnect(struct irq_line *line, int trigger)
{
	struct fake_wire *w = container_of(line, struct fake_wire, line);

	CHECK(w->trigger == trigger);
	w->trigger = w->resample = -1;
}

static const struct irq_line_ops wire_ops = {
	.connect = wire_connect,
	.disconnect = wire_disconnect,
};

void fake_wire_init(struct fake_wire *wire)
{
	*wire = (struct fake_wire){ .line.ops = &wire_ops, .trigger = -1, .resample = -1 };
}
