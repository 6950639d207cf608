/*
 * BARs. What the host can map is shown to the guest as memory, wherever the guest
 * puts the BAR; the rest of it, and the pages with the MSI-X table and its pending
 * bits, trap. A BAR in port I/O isn't shown: PCI Express functions work without. The expansion
 * ROM can only be read, and traps.
 */
#include "devices/vfio/pci_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <unistd.h>

/* Also an access across the ends of the table: pci_msix_read and _write know that it isn't one. */
static bool is_msix(const struct vfio_bar *bar, uint64_t offset, unsigned size)
{
	return pci_msix_covers(&bar->vfio->pci, bar->index, offset) ||
	       pci_msix_covers(&bar->vfio->pci, bar->index, offset + size - 1);
}

static uint64_t bar_read(void *opaque, uint64_t offset, unsigned size)
{
	struct vfio_bar *bar = opaque;
	struct vfio_pci *v = bar->vfio;
	le64 buf = le64_from(UINT64_MAX);

	if (is_msix(bar, offset, size))
		return pci_msix_read(&v->pci, bar->index, offset, size);
	if (v->host->ops->read(v->host, bar->index, offset, &buf, size) < 0)
		return UINT64_MAX;
	return le64_get(buf);
}

static void bar_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct vfio_bar *bar = opaque;
	struct vfio_pci *v = bar->vfio;
	le64 buf = le64_from(value);

	if (is_msix(bar, offset, size)) {
		pci_msix_write(&v->pci, bar->index, offset, size, value);
		return;
	}
	int r = v->host->ops->write(v->host, bar->index, offset, &buf, size);

	if (r < 0)
		log_limited(&v->log, "%s: the host can't write BAR %u at 0x%" PRIx64 ": %s",
			    v->name, bar->index, offset, strerror(-r));
}

static const struct bus_ops bar_ops = { .read = bar_read, .write = bar_write };

static void show_area(struct vfio_bar *bar, struct vfio_area *area, uint64_t base)
{
	struct vfio_pci *v = bar->vfio;
	int r = v->slots->ops->add(v->slots, GPA(base + area->offset), area->size, area->host,
				   &area->slot);

	area->shown = r == 0;
	if (r < 0)
		log_limited(&v->log, "%s: BAR %u at 0x%" PRIx64 " can't be mapped (%s): it is slow",
			    v->name, bar->index, base, strerror(-r));
}

/* Root lock held. */
static void bar_moved(void *opaque, unsigned index, uint64_t base, bool mapped)
{
	struct vfio_bar *bar = opaque;

	for (unsigned i = 0; i < bar->num_areas; i++) {
		struct vfio_area *area = &bar->area[i];

		if (mapped) {
			show_area(bar, area, base);
		} else if (area->shown) {
			bar->vfio->slots->ops->remove(bar->vfio->slots, area->slot);
			area->shown = false;
		}
	}
}

/* Append [@first, @end) in whole pages. */
static void add_area(struct vfio_bar *bar, uint64_t first, uint64_t end, uint64_t page)
{
	first = ALIGN_UP(first, page);
	end = ALIGN_DOWN(end, page);
	if (first < end && bar->num_areas < VFIO_BAR_AREAS)
		bar->area[bar->num_areas++] =
			(struct vfio_area){ .offset = first, .size = end - first };
}

/* Take the pages of [@first, @end) out of the areas of @bar. */
static void cut_areas(struct vfio_bar *bar, uint64_t first, uint64_t end, uint64_t page)
{
	struct vfio_bar was = *bar;

	first = ALIGN_DOWN(first, page);
	end = ALIGN_UP(end, page);
	bar->num_areas = 0;
	for (unsigned i = 0; i < was.num_areas; i++) {
		uint64_t area_end = was.area[i].offset + was.area[i].size;

		add_area(bar, was.area[i].offset, MIN(area_end, first), page);
		add_area(bar, MAX(was.area[i].offset, end), area_end, page);
	}
}

static void find_areas(struct vfio_bar *bar, const struct vfio_region *region)
{
	const struct pci_msix *m = &bar->vfio->pci.msix;
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	for (unsigned i = 0; i < region->num_areas; i++)
		add_area(bar, region->area[i].offset,
			 MIN(region->area[i].offset + region->area[i].size, region->size), page);
	if (m->count && m->bar == bar->index)
		cut_areas(bar, m->table, m->table + (uint64_t)m->count * PCI_MSIX_ENTRY_SIZE, page);
	if (m->count && m->pba_bar == bar->index)
		cut_areas(bar, m->pba, m->pba + ALIGN_UP(m->count, 64u) / 8, page);
}

static void rom_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
}

static const struct bus_ops rom_ops = { .read = bar_read, .write = rom_write };

/* A ROM that the host can't tell of, or of an odd size, isn't shown: nothing depends on it. */
static void init_rom(struct vfio_pci *v)
{
	struct vfio_bar *rom = &v->bar[PCI_ROM_BAR];
	struct vfio_region region;

	_Static_assert(PCI_ROM_BAR == VFIO_PCI_ROM_REGION_INDEX, "VFIO counts like us");
	if (v->host->ops->region(v->host, PCI_ROM_BAR, &region) < 0 || region.size < KIB(2) ||
	    region.size > MIB(16) || region.size & (region.size - 1))
		return;
	rom->vfio = v;
	rom->index = PCI_ROM_BAR;
	pci_dev_set_bar(&v->pci, PCI_ROM_BAR, region.size, 0, &rom_ops, rom);
}

static int init_bar(struct vfio_pci *v, unsigned index, struct err *err)
{
	struct vfio_bar *bar = &v->bar[index];
	struct vfio_region region;
	uint8_t reg[4];
	int r = v->host->ops->region(v->host, index, &region);

	if (r == 0 && region.size)
		r = v->host->ops->read(v->host, VFIO_PCI_CONFIG_REGION_INDEX,
				       PCI_BASE_ADDRESS_0 + 4 * index, reg, sizeof(reg));
	if (r < 0)
		return err_set(err, -r, "%s: can't tell what BAR %u is: %s", v->host->bdf, index,
			       strerror(-r));
	if (!region.size || reg[0] & PCI_BASE_ADDRESS_SPACE_IO)
		return 0;
	uint32_t flags = reg[0] & (PCI_BAR_MEM64 | PCI_BAR_PREFETCH);
	bool wide = flags & PCI_BAR_MEM64;

	if (region.size < 16 || region.size & (region.size - 1) || index + wide >= PCI_NUM_BARS ||
	    (!wide && region.size > GIB(2)))
		return err_set(err, EINVAL, "%s: BAR %u has an impossible size", v->host->bdf,
			       index);
	bar->vfio = v;
	bar->index = index;
	pci_dev_set_bar(&v->pci, index, region.size, flags, &bar_ops, bar);
	v->pci.bar[index].moved = bar_moved;
	find_areas(bar, &region);
	for (unsigned i = 0; i < bar->num_areas; i++) {
		struct vfio_area *area = &bar->area[i];

		area->host = v->host->ops->map(v->host, index, area->offset, area->size);
		if (!area->host)
			return err_set(err, errno, "%s: can't map BAR %u: %s", v->host->bdf, index,
				       strerror(errno));
	}
	return wide;
}

/* Is [@offset, @offset + @size) inside of BAR @index? */
static bool inside(const struct vfio_pci *v, unsigned index, uint64_t offset, uint64_t size)
{
	return index < PCI_NUM_BARS && offset + size <= v->pci.bar[index].size;
}

int vfio_bars_init(struct vfio_pci *v, struct err *err)
{
	for (unsigned i = 0; i < PCI_NUM_BARS; i++) {
		int r = init_bar(v, i, err);

		if (r < 0)
			return r;
		/* A 64-bit BAR takes two registers. */
		i += (unsigned)r;
	}
	init_rom(v);
	const struct pci_msix *m = &v->pci.msix;

	if (m->count && !(inside(v, m->bar, m->table, m->count * (uint64_t)PCI_MSIX_ENTRY_SIZE) &&
			  inside(v, m->pba_bar, m->pba, ALIGN_UP(m->count, 64u) / 8)))
		return err_set(err, EINVAL, "%s: its MSI-X table lies outside of its BARs",
			       v->host->bdf);
	return 0;
}

void vfio_bars_finish(struct vfio_pci *v)
{
	for (unsigned i = 0; i < PCI_NUM_BARS; i++) {
		for (unsigned j = 0; j < v->bar[i].num_areas; j++) {
			struct vfio_area *area = &v->bar[i].area[j];

			if (area->host)
				v->host->ops->unmap(v->host, area->host, area->size);
		}
		v->bar[i].num_areas = 0;
	}
}
