#include "tests/fuzz/vfio_device.h"

#include <linux/pci_regs.h>
#include <string.h>

#define PAGE   UINT64_C(4096)
#define SECRET 0xa5 /* what the device has where nothing else is said */

static void put(struct fuzz_device *d, unsigned reg, unsigned size, uint64_t value)
{
	for (unsigned i = 0; i < size && reg + i < PCI_CONFIG_SIZE; i++)
		d->dev.config[reg + i] = (uint8_t)(value >> 8 * i);
}

static void build_areas(struct fuzz_device *d, struct vfio_region *region, uint8_t how)
{
	uint64_t at = 0;

	if (!(how & 3))
		return;
	if ((how & 3) == 1) {
		region->num_areas = 1;
		region->area[0].size = region->size;
		return;
	}
	for (unsigned n = how >> 2 & 7; n < VFIO_MAX_AREAS; n++) {
		uint8_t byte = (uint8_t)fuzz_take(&d->in, 1);
		uint64_t offset = at + (byte & 15) * PAGE, size = (1 + (byte >> 4)) * PAGE;

		if (offset + size > region->size)
			return;
		region->area[region->num_areas].offset = offset;
		region->area[region->num_areas++].size = size;
		at = offset + size;
	}
}

static void build_bars(struct fuzz_device *d)
{
	for (unsigned i = 0; i < PCI_NUM_BARS; i++) {
		struct vfio_region *region = &d->dev.region[i];
		uint8_t how = (uint8_t)fuzz_take(&d->in, 1);
		bool wide = how & 1 && how & 6;

		put(d, PCI_BASE_ADDRESS_0 + 4 * i, 4, 0);
		if (!(how & 7))
			continue;
		region->size = UINT64_C(1) << (4 + (how >> 3 & 15) + (how & 0x80 && wide ? 16 : 0));
		if ((how & 7) == 6)
			region->size += 16;
		put(d, PCI_BASE_ADDRESS_0 + 4 * i, 4,
		    (how & 7) == 1 ? PCI_BASE_ADDRESS_SPACE_IO
				   : (wide ? PCI_BAR_MEM64 : 0) | (how & 4 ? PCI_BAR_PREFETCH : 0));
		build_areas(d, region, (uint8_t)fuzz_take(&d->in, 1));
		i += wide;
	}
	uint8_t rom = (uint8_t)fuzz_take(&d->in, 1);

	if (rom)
		d->dev.region[PCI_ROM_BAR].size = (UINT64_C(1) << (10 + (rom & 7))) + (rom & 8);
}

/* @size bytes of the MSI-X structures somewhere in a BAR, mostly: where, as the register says. */
static uint32_t place_table(struct fuzz_device *d, uint64_t size)
{
	uint64_t place = fuzz_take(&d->in, 3);
	unsigned bir = place & 7;
	uint64_t offset = place >> 3 << 4;

	if (place < UINT64_C(0xf00000) && bir < PCI_NUM_BARS && d->dev.region[bir].size >= size)
		offset %= d->dev.region[bir].size - size + 8;
	return (uint32_t)((offset & ~UINT64_C(7)) | bir);
}

/* The body of capability @id at @at; its size. */
static unsigned build_body(struct fuzz_device *d, unsigned id, unsigned at)
{
	uint64_t body = id == PCI_CAP_ID_MSI || id == PCI_CAP_ID_MSIX || id == PCI_CAP_ID_EXP ||
					id == PCI_CAP_ID_AF
				? fuzz_take(&d->in, 1)
				: 0;

	switch (id) {
	case PCI_CAP_ID_PM:
		put(d, at + PCI_PM_CTRL, 4, 0);
		return PCI_PM_SIZEOF;
	case PCI_CAP_ID_MSI:
		body &= PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_QMASK | 0x30;
		put(d, at + PCI_MSI_FLAGS, 2, (body & 0x30 ? PCI_MSI_FLAGS_MASKBIT : 0) | body);
		return (body & PCI_MSI_FLAGS_64BIT ? 14 : 10) + (body & 0x30 ? 10 : 0);
	case PCI_CAP_ID_MSIX:
		put(d, at + PCI_MSIX_FLAGS, 2, body);
		put(d, at + PCI_MSIX_TABLE, 4, place_table(d, (body + 1) * PCI_MSIX_ENTRY_SIZE));
		put(d, at + PCI_MSIX_PBA, 4, place_table(d, ALIGN_UP(body + 1, UINT64_C(64)) / 8));
		return PCI_CAP_MSIX_SIZEOF;
	case PCI_CAP_ID_EXP:
		put(d, at + PCI_EXP_FLAGS, 2, body);
		put(d, at + PCI_EXP_DEVCAP, 4, body & 0x80 ? PCI_EXP_DEVCAP_FLR : 0);
		put(d, at + PCI_EXP_DEVCTL, 2, 0);
		return (body & PCI_EXP_FLAGS_VERS) > 1 ? 0x3c : PCI_EXP_SLTCAP;
	case PCI_CAP_ID_AF:
		put(d, at + PCI_AF_CAP, 3, body & (PCI_AF_CAP_TP | PCI_AF_CAP_FLR));
		return PCI_CAP_AF_SIZEOF;
	}
	return 8;
}

static void build_caps(struct fuzz_device *d, unsigned count, bool scattered)
{
	static const uint8_t ids[] = {
		PCI_CAP_ID_PM,	 PCI_CAP_ID_MSI,  PCI_CAP_ID_MSIX, PCI_CAP_ID_EXP,
		PCI_CAP_ID_AF,	 PCI_CAP_ID_VNDR, PCI_CAP_ID_VPD,  PCI_CAP_ID_EA,
		PCI_CAP_ID_SATA, PCI_CAP_ID_HT,	  PCI_CAP_ID_PCIX, PCI_CAP_ID_DBG,
	};
	unsigned link = PCI_CAPABILITY_LIST, cursor = PCI_STD_HEADER_SIZEOF;

	put(d, link, 1, 0);
	put(d, PCI_STATUS, 2, count ? PCI_STATUS_CAP_LIST : 0);
	while (count--) {
		uint8_t which = (uint8_t)fuzz_take(&d->in, 1);
		unsigned id = ids[which % ARRAY_SIZE(ids)];
		unsigned at =
			scattered ? PCI_STD_HEADER_SIZEOF + (unsigned)fuzz_take(&d->in, 1) % 0xc0
				  : cursor;

		at &= ~3u;
		if (at >= PCI_CFG_SPACE_SIZE)
			break;
		put(d, at, 2, id);
		put(d, link, 1, at);
		link = at + PCI_CAP_LIST_NEXT;
		cursor = ALIGN_UP(at + build_body(d, id, at), 4u);
	}
	/* Mostly the end of the list. */
	if (scattered)
		put(d, link, 1, fuzz_take(&d->in, 1));
}

static void build_ext_caps(struct fuzz_device *d, unsigned count, bool scattered)
{
	static const uint16_t ids[] = { PCI_EXT_CAP_ID_DSN,   PCI_EXT_CAP_ID_VNDR,
					PCI_EXT_CAP_ID_DVSEC, PCI_EXT_CAP_ID_ERR,
					PCI_EXT_CAP_ID_SRIOV, PCI_EXT_CAP_ID_ATS,
					PCI_EXT_CAP_ID_PASID, PCI_EXT_CAP_ID_ACS };
	unsigned at = PCI_CFG_SPACE_SIZE;

	put(d, at, 4, 0);
	while (count--) {
		uint64_t what = fuzz_take(&d->in, 2);
		unsigned next = at + 16 + (unsigned)(what >> 8) * 4;

		if (scattered)
			next = PCI_CFG_SPACE_SIZE + (unsigned)(what >> 8) * 16;
		if (!count || next >= PCI_CONFIG_SIZE)
			next = scattered ? next % PCI_CONFIG_SIZE : 0;
		put(d, at, 4, ids[what % ARRAY_SIZE(ids)] | 1u << 16 | next << 20);
		if (next < PCI_CFG_SPACE_SIZE)
			return;
		at = next & ~3u;
		/* For a list that ends here. */
		if (!scattered)
			put(d, at, 4, 0);
	}
}

/* What the list of capabilities is, whoever wrote over it last. */
static void list_caps(struct fuzz_device *d)
{
	const uint8_t *config = d->dev.config;
	unsigned at =
		config[PCI_STATUS] & PCI_STATUS_CAP_LIST ? config[PCI_CAPABILITY_LIST] & ~3u : 0;

	for (d->num_caps = 0; at >= PCI_STD_HEADER_SIZEOF && d->num_caps < FUZZ_MAX_CAPS;) {
		struct fuzz_cap *c = &d->cap[d->num_caps++];
		uint32_t flags = pci_config_get(config, at + 2, 2);

		*c = (struct fuzz_cap){ config[at], at, 4 };
		if (c->id == PCI_CAP_ID_PM)
			c->size = PCI_PM_SIZEOF;
		else if (c->id == PCI_CAP_ID_MSI)
			c->size = (flags & PCI_MSI_FLAGS_64BIT ? 14 : 10) +
				  (flags & PCI_MSI_FLAGS_MASKBIT ? 10 : 0);
		else if (c->id == PCI_CAP_ID_MSIX)
			c->size = PCI_CAP_MSIX_SIZEOF;
		else if (c->id == PCI_CAP_ID_EXP)
			c->size = PCI_EXP_SLTCAP;
		else if (c->id == PCI_CAP_ID_AF)
			c->size = PCI_CAP_AF_SIZEOF;
		at = config[at + PCI_CAP_LIST_NEXT] & ~3u;
	}
	d->disjoint = true;
	for (unsigned i = 0; i < d->num_caps; i++) {
		const struct fuzz_cap *c = &d->cap[i];

		d->disjoint &= c->at + c->size <= PCI_CFG_SPACE_SIZE;
		for (unsigned j = 0; j < i; j++)
			d->disjoint &=
				c->id != d->cap[j].id && (c->at >= d->cap[j].at + d->cap[j].size ||
							  d->cap[j].at >= c->at + c->size);
	}
}

/* Where the next one is, in address order. */
static unsigned end_of(struct fuzz_device *d, const struct fuzz_cap *c)
{
	unsigned end = PCI_CFG_SPACE_SIZE;

	for (unsigned i = 0; i < d->num_caps; i++) {
		if (d->cap[i].at > c->at)
			end = MIN(end, d->cap[i].at);
	}
	return end;
}

/* Of several with the same ID the first is the one, as the host's kernel has it; when it is whole.
 */
static unsigned find_cap(struct fuzz_device *d, unsigned id)
{
	for (unsigned i = 0; i < d->num_caps; i++) {
		if (d->cap[i].id == id)
			return d->cap[i].at + d->cap[i].size <= end_of(d, &d->cap[i]) ? d->cap[i].at
										      : 0;
	}
	return 0;
}

static void guard(struct fuzz_device *d, unsigned which, uint32_t place, uint64_t size)
{
	/* There is no such BAR: the function isn't taken. */
	if ((place & PCI_MSIX_TABLE_BIR) >= PCI_NUM_BARS)
		return;
	d->dev.guarded[which].bar = place & PCI_MSIX_TABLE_BIR;
	d->dev.guarded[which].first = place & PCI_MSIX_TABLE_OFFSET;
	d->dev.guarded[which].end = d->dev.guarded[which].first + size;
}

/* What the host's kernel makes of the device that was built. */
static void find_caps(struct fuzz_device *d)
{
	list_caps(d);
	d->msi = find_cap(d, PCI_CAP_ID_MSI);
	d->msix = find_cap(d, PCI_CAP_ID_MSIX);
	d->dev.pm_cap = find_cap(d, PCI_CAP_ID_PM);
	d->dev.exp_cap = find_cap(d, PCI_CAP_ID_EXP);
	d->dev.af_cap = find_cap(d, PCI_CAP_ID_AF);
	/* It opens a device awake. */
	if (d->dev.pm_cap)
		d->dev.config[d->dev.pm_cap + PCI_PM_CTRL] &= (uint8_t)~PCI_PM_CTRL_STATE_MASK;
	if (d->msi)
		d->dev.count[MSI] =
			MIN(1u << ((d->dev.config[d->msi + 2] & PCI_MSI_FLAGS_QMASK) >> 1), 32u);
	if (!d->msix)
		return;
	unsigned count = pci_msix_count(d->dev.config, d->msix);

	d->dev.count[MSIX] = MIN(count, (unsigned)FAKE_VECTORS);
	guard(d, 0, pci_config_get(d->dev.config, d->msix + PCI_MSIX_TABLE, 4),
	      (uint64_t)count * PCI_MSIX_ENTRY_SIZE);
	guard(d, 1, pci_config_get(d->dev.config, d->msix + PCI_MSIX_PBA, 4),
	      ALIGN_UP(count, 64u) / 8);
	d->disjoint &= d->dev.guarded[0].bar != d->dev.guarded[1].bar ||
		       d->dev.guarded[0].first >= d->dev.guarded[1].end ||
		       d->dev.guarded[1].first >= d->dev.guarded[0].end;
}

/* What is hidden, and what is emulated. */

static void keep(struct fuzz_device *d, unsigned at, unsigned size, bool zero)
{
	for (unsigned i = at; i < MIN(at + size, (unsigned)PCI_CONFIG_SIZE); i++) {
		d->dev.kept[i] = true;
		d->zero[i] |= zero;
	}
}

bool fuzz_may_show(unsigned id)
{
	static const uint8_t ids[] = { PCI_CAP_ID_PM,	PCI_CAP_ID_VPD, PCI_CAP_ID_MSI,
				       PCI_CAP_ID_VNDR, PCI_CAP_ID_EXP, PCI_CAP_ID_MSIX,
				       PCI_CAP_ID_SATA, PCI_CAP_ID_AF };

	return memchr(ids, (int)id, sizeof(ids));
}

static void keep_caps(struct fuzz_device *d)
{
	for (unsigned i = 0; i < d->num_caps; i++) {
		const struct fuzz_cap *c = &d->cap[i];
		unsigned end = end_of(d, c);

		if (!fuzz_may_show(c->id) || c->at + c->size > end)
			keep(d, c->at, end - c->at, true);
		else if (c->id == PCI_CAP_ID_MSI || c->id == PCI_CAP_ID_MSIX)
			keep(d, c->at, c->size, false);
		else if (c->id == PCI_CAP_ID_EXP)
			keep(d, c->at + PCI_EXP_LNKCAP, PCI_EXP_SLTCAP - PCI_EXP_LNKCAP, true);
		keep(d, c->at, 2, false);
	}
	/* What the guest writes to these is remembered for it, whatever else is there. */
	for (unsigned i = 0; i < d->num_caps; i++) {
		if (d->cap[i].id == PCI_CAP_ID_MSI || d->cap[i].id == PCI_CAP_ID_MSIX)
			memset(&d->zero[d->cap[i].at], false, 24);
	}
}

bool fuzz_may_show_ext(unsigned id)
{
	return id == PCI_EXT_CAP_ID_DSN || id == PCI_EXT_CAP_ID_VNDR || id == PCI_EXT_CAP_ID_DVSEC;
}

/* All of the extended space but the bodies of what may be shown. */
static void keep_ext_caps(struct fuzz_device *d)
{
	const uint8_t *config = d->dev.config;
	bool listed[PCI_CONFIG_SIZE] = { false }, shown = false;
	unsigned at = PCI_CFG_SPACE_SIZE, header;

	keep(d, at, PCI_CONFIG_SIZE - at, true);
	if (d->dev.region[VFIO_PCI_CONFIG_REGION_INDEX].size < PCI_CONFIG_SIZE)
		return;
	while (at >= PCI_CFG_SPACE_SIZE && !listed[at] &&
	       (header = pci_config_get(config, at, 4)) != 0) {
		listed[at] = true;
		at = header >> 20 & 0xffc;
	}
	for (at = PCI_CFG_SPACE_SIZE; at < PCI_CONFIG_SIZE; at += 4) {
		if (listed[at])
			shown = fuzz_may_show_ext(pci_config_get(config, at, 2));
		if (shown) {
			memset(&d->zero[at], false, 4);
			memset(&d->dev.kept[at], listed[at], 4);
		}
	}
	/* The list begins here, also when nothing is shown there. */
	memset(&d->zero[PCI_CFG_SPACE_SIZE], false, 4);
}

bool fuzz_device_build(struct fuzz_device *d, struct fake_slots *slots)
{
	uint64_t flags = fuzz_take(&d->in, 2), caps = fuzz_take(&d->in, 1);

	fake_vfio_init(&d->dev, slots);
	memset(d->dev.config, SECRET, sizeof(d->dev.config));
	put(d, PCI_VENDOR_ID, 4, 0x56781234);
	put(d, PCI_COMMAND, 2, 0);
	put(d, PCI_HEADER_TYPE, 1, (flags & 0x300) == 0x300 ? PCI_HEADER_TYPE_BRIDGE : 0x80);
	put(d, PCI_INTERRUPT_PIN, 1, flags & 3);
	d->dev.grows = flags & 4;
	d->dev.count[INTX] = !(flags & 8);
	d->dev.count[ERR] = flags >> 4 & 1;
	d->dev.count[REQ] = flags >> 5 & 1;
	d->dev.host.keeper_is_own = flags & 0x40;
	d->dev.host.keeper_fd = FUZZ_KEEPER;
	d->dev.region[VFIO_PCI_CONFIG_REGION_INDEX].size =
		flags & 0x80 ? PCI_CONFIG_SIZE : PCI_CFG_SPACE_SIZE;
	build_bars(d);
	build_caps(d, caps & 15, flags & 0x400);
	build_ext_caps(d, caps >> 4, flags & 0x800);
	find_caps(d);
	/* The command register is the one that is ours and is written nevertheless. */
	keep(d, 0, PCI_STD_HEADER_SIZEOF, false);
	memset(&d->dev.kept[PCI_COMMAND], false, 4);
	keep_caps(d);
	keep_ext_caps(d);
	return (flags & 0xf000) == 0xf000;
}
