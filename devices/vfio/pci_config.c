/*
 * The configuration space of a function that is passed through.
 *
 * Each byte is either ours, emulated in pci.config (addresses, interrupts, what
 * the guest isn't meant to see), or the device's: read from it and written to it
 * each time. The host's kernel guards its own side again.
 *
 * Capabilities are shown by a list of those known to be harmless and useful. What
 * is hidden reads as zero. A PCI Express endpoint is shown as one integrated in
 * the root complex, as it is on the root bus, where there is no link.
 *
 * The device's own memory decoding stays on for good; only the guest's is
 * switched: its BARs are taken away from the guest. So the guest's vCPU can't
 * touch a mapped register of a function that doesn't decode, which the host would
 * answer with SIGBUS. The same goes for a function that sleeps in D3.
 */
#include "devices/vfio/pci_internal.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdlib.h>

#define MAX_CAPS	((PCI_CFG_SPACE_SIZE - PCI_STD_HEADER_SIZEOF) / 4)
#define MAX_EXT_CAPS	((PCI_CONFIG_SIZE - PCI_CFG_SPACE_SIZE) / 4)
#define EXT_CAP_NEXT(h) ((h) >> 20 & 0xffc)

static const uint8_t shown_caps[] = { PCI_CAP_ID_PM,   PCI_CAP_ID_VPD, PCI_CAP_ID_MSI,
				      PCI_CAP_ID_VNDR, PCI_CAP_ID_EXP, PCI_CAP_ID_MSIX,
				      PCI_CAP_ID_SATA, PCI_CAP_ID_AF };
static const uint16_t shown_ext_caps[] = { PCI_EXT_CAP_ID_DSN, PCI_EXT_CAP_ID_VNDR,
					   PCI_EXT_CAP_ID_DVSEC };

static struct vfio_pci *to_vfio(struct pci_dev *pci)
{
	return container_of(pci, struct vfio_pci, pci);
}

static bool host_read(struct vfio_pci *v, unsigned offset, unsigned size, void *buf)
{
	return v->host->ops->read(v->host, VFIO_PCI_CONFIG_REGION_INDEX, offset, buf, size) == 0;
}

static void host_write(struct vfio_pci *v, unsigned offset, unsigned size, uint32_t value)
{
	uint8_t buf[4];

	pci_config_put(buf, 0, size, value);
	int r = v->host->ops->write(v->host, VFIO_PCI_CONFIG_REGION_INDEX, offset, buf, size);

	if (r < 0)
		log_limited(&v->log, "%s: the host can't write configuration register 0x%x: %s",
			    v->name, offset, strerror(-r));
}

static bool touches(unsigned offset, unsigned size, unsigned reg, unsigned len)
{
	return offset < reg + len && reg < offset + size;
}

/* Emulate [@offset, @offset + @size), as it is in config[] now. */
static void make_ours(struct vfio_pci *v, unsigned offset, unsigned size)
{
	memset(&v->ours[offset], true, size);
}

static void hide(struct vfio_pci *v, unsigned offset, unsigned size)
{
	memset(&v->pci.config[offset], 0, size);
	make_ours(v, offset, size);
}

/* Accesses ----------------------------------------------------------------- */

static void config_reading(struct pci_dev *pci, unsigned offset, unsigned size)
{
	struct vfio_pci *v = to_vfio(pci);
	uint8_t now[4];
	unsigned theirs = 0;

	for (unsigned i = offset; i < offset + size; i++)
		theirs += !v->ours[i];
	if (!theirs)
		return;
	if (!host_read(v, offset, size, now))
		memset(now, 0xff, sizeof(now));
	pci_root_lock(pci->root);
	for (unsigned i = 0; i < size; i++) {
		if (!v->ours[offset + i])
			pci->config[offset + i] = now[i];
	}
	pci_root_unlock(pci->root);
}

/* What the guest wrote to bytes that are the device's, in as few writes as that takes. */
static void forward(struct vfio_pci *v, unsigned offset, unsigned size, uint32_t value)
{
	unsigned ours = 0;

	for (unsigned i = offset; i < offset + size; i++)
		ours += v->ours[i];
	if (!ours) {
		host_write(v, offset, size, value);
		return;
	}
	for (unsigned i = 0; i < size; i++) {
		if (!v->ours[offset + i])
			host_write(v, offset + i, 1, value >> 8 * i & 0xff);
	}
}

void vfio_config_command_locked(struct vfio_pci *v)
{
	uint32_t command = pci_config_get(v->pci.config, PCI_COMMAND, 2);

	host_write(v, PCI_COMMAND, 2, command | PCI_COMMAND_MEMORY);
}

static void set_asleep_locked(struct vfio_pci *v, bool asleep)
{
	v->pci.asleep = asleep;
	pci_root_remap_locked(v->pci.root);
}

/*
 * Does the device sleep, so that the host lets nobody touch its registers? One that can't tell
 * isn't touched either.
 */
static bool in_d3(struct vfio_pci *v)
{
	uint8_t now;

	return v->pm_cap && (!host_read(v, v->pm_cap + PCI_PM_CTRL, 1, &now) ||
			     (now & PCI_PM_CTRL_STATE_MASK) == PCI_PM_CTRL_STATE_MASK);
}

void vfio_config_wake(struct vfio_pci *v)
{
	if (in_d3(v))
		host_write(v, v->pm_cap + PCI_PM_CTRL, 2, 0);
	pci_root_lock(v->pci.root);
	set_asleep_locked(v, in_d3(v));
	pci_root_unlock(v->pci.root);
}

/*
 * The guest writes the power state: the BARs leave before the device falls asleep.
 * Under the lock as a whole, else another vCPU's write could bring them back in
 * between.
 */
static void write_power(struct vfio_pci *v, unsigned offset, unsigned size, uint32_t value)
{
	pci_root_lock(v->pci.root);
	set_asleep_locked(v, true);
	forward(v, offset, size, value);
	set_asleep_locked(v, in_d3(v));
	pci_root_unlock(v->pci.root);
}

/*
 * Did the guest ask for a function-level reset by this write, which the host has done? It does
 * that only for a function that says it can.
 */
static bool wrote_reset(const struct vfio_pci *v, unsigned offset, unsigned size, uint32_t value)
{
	const uint8_t *config = v->pci.initial;
	unsigned high = v->exp_cap + PCI_EXP_DEVCTL + 1, af = v->af_cap + PCI_AF_CTRL;

	if (v->exp_cap && touches(offset, size, high, 1))
		return value >> 8 * (high - offset) & PCI_EXP_DEVCTL_BCR_FLR >> 8 &&
		       pci_config_get(config, v->exp_cap + PCI_EXP_DEVCAP, 4) & PCI_EXP_DEVCAP_FLR;
	if (v->af_cap && touches(offset, size, af, 1))
		return value >> 8 * (af - offset) & PCI_AF_CTRL_FLR &&
		       !(~config[v->af_cap + PCI_AF_CAP] & (PCI_AF_CAP_TP | PCI_AF_CAP_FLR));
	return false;
}

static void config_written(struct pci_dev *pci, unsigned offset, unsigned size, uint32_t value)
{
	struct vfio_pci *v = to_vfio(pci);

	if (v->pm_cap && touches(offset, size, v->pm_cap + PCI_PM_CTRL, 1))
		write_power(v, offset, size, value);
	else
		forward(v, offset, size, value);
	bool was_reset = wrote_reset(v, offset, size, value);

	if (was_reset)
		pci_dev_reset(pci);
	pci_root_lock(pci->root);
	/* Where the host couldn't reset it after all, it sleeps on. */
	if (was_reset)
		set_asleep_locked(v, in_d3(v));
	if (was_reset || touches(offset, size, PCI_COMMAND, 2))
		vfio_config_command_locked(v);
	if (was_reset ||
	    (v->msi_cap && touches(offset, size, v->msi_cap, vfio_msi_size(UINT32_MAX))))
		vfio_msi_sync_locked(v);
	pci_root_unlock(pci->root);
}

/* Making it ---------------------------------------------------------------- */

static bool is_listed(const uint16_t *pos, unsigned count, unsigned at)
{
	for (unsigned i = 0; i < count; i++) {
		if (pos[i] == at)
			return true;
	}
	return false;
}

/* Where the capabilities of the device's list are, each once, in its order. */
static unsigned list_caps(const uint8_t *config, uint16_t pos[MAX_CAPS])
{
	unsigned count = 0;
	unsigned at = config[PCI_CAPABILITY_LIST] & ~3u;

	if (!(config[PCI_STATUS] & PCI_STATUS_CAP_LIST))
		return 0;
	while (at >= PCI_STD_HEADER_SIZEOF && !is_listed(pos, count, at)) {
		pos[count++] = (uint16_t)at;
		at = config[at + PCI_CAP_LIST_NEXT] & ~3u;
	}
	return count;
}

/* Where the next capability is, in address order, after the one at @at; @end without one. */
static unsigned cap_end(const uint16_t *pos, unsigned count, unsigned at, unsigned end)
{
	for (unsigned i = 0; i < count; i++) {
		if (pos[i] > at)
			end = MIN(end, pos[i]);
	}
	return end;
}

/* A known one that is all there, before @end. */
static bool is_shown(const uint8_t *config, unsigned at, unsigned end)
{
	unsigned size = 4;

	switch (config[at]) {
	case PCI_CAP_ID_PM:
		size = PCI_PM_SIZEOF;
		break;
	case PCI_CAP_ID_AF:
		size = PCI_CAP_AF_SIZEOF;
		break;
	case PCI_CAP_ID_EXP:
		size = PCI_EXP_SLTCAP;
		break;
	case PCI_CAP_ID_MSIX:
		size = PCI_CAP_MSIX_SIZEOF;
		break;
	case PCI_CAP_ID_MSI:
		size = vfio_msi_size(pci_config_get(config, at + PCI_MSI_FLAGS, 2));
		break;
	}
	return at + size <= end && memchr(shown_caps, config[at], sizeof(shown_caps));
}

/*
 * Is there one of its kind before number @i? The guest and the host would take the first, which
 * has then to be the one that is emulated. Only of vendors' there may be several.
 */
static bool is_another(const uint8_t *config, const uint16_t *pos, unsigned i)
{
	for (unsigned j = 0; j < i; j++) {
		if (config[pos[j]] == config[pos[i]] && config[pos[i]] != PCI_CAP_ID_VNDR)
			return true;
	}
	return false;
}

static void make_express(struct vfio_pci *v, unsigned at, unsigned end)
{
	uint8_t *config = v->pci.config;
	uint32_t flags = pci_config_get(config, at + PCI_EXP_FLAGS, 2);
	uint32_t type = (flags & PCI_EXP_FLAGS_TYPE) >> 4;

	v->exp_cap = at;
	if (type == PCI_EXP_TYPE_ENDPOINT || type == PCI_EXP_TYPE_LEG_END)
		flags = (flags & ~(uint32_t)PCI_EXP_FLAGS_TYPE) | PCI_EXP_TYPE_RC_END << 4;
	pci_config_put(config, at + PCI_EXP_FLAGS, 2, flags);
	make_ours(v, at, PCI_EXP_DEVCAP);
	hide(v, at + PCI_EXP_LNKCAP, PCI_EXP_SLTCAP - PCI_EXP_LNKCAP);
	if ((flags & PCI_EXP_FLAGS_VERS) > 1 && at + PCI_EXP_SLTCAP2 <= end)
		hide(v, at + PCI_EXP_LNKCAP2, PCI_EXP_SLTCAP2 - PCI_EXP_LNKCAP2);
}

/* Capabilities that aren't simply the device's. */
static void make_cap(struct vfio_pci *v, unsigned at, unsigned end, unsigned *ret_msix,
		     unsigned *ret_msi)
{
	switch (v->pci.config[at]) {
	case PCI_CAP_ID_PM:
		v->pm_cap = at;
		break;
	case PCI_CAP_ID_AF:
		v->af_cap = at;
		break;
	case PCI_CAP_ID_EXP:
		make_express(v, at, end);
		break;
	case PCI_CAP_ID_MSIX:
		*ret_msix = at;
		make_ours(v, at, PCI_CAP_MSIX_SIZEOF);
		break;
	case PCI_CAP_ID_MSI:
		*ret_msi = at;
		make_ours(v, at,
			  vfio_msi_size(pci_config_get(v->pci.config, at + PCI_MSI_FLAGS, 2)));
		break;
	}
}

static void make_caps(struct vfio_pci *v, unsigned *ret_msix, unsigned *ret_msi)
{
	uint8_t *config = v->pci.config;
	uint16_t pos[MAX_CAPS];
	unsigned count = list_caps(config, pos), link = PCI_CAPABILITY_LIST;

	*ret_msix = *ret_msi = 0;
	for (unsigned i = 0; i < count; i++) {
		unsigned end = cap_end(pos, count, pos[i], PCI_CFG_SPACE_SIZE);

		/* What else lies behind it isn't shown either. */
		if (!is_shown(config, pos[i], end) || is_another(config, pos, i))
			hide(v, pos[i], end - pos[i]);
	}
	for (unsigned i = 0; i < count; i++) {
		/* Zero: hidden. */
		if (!config[pos[i]])
			continue;
		config[link] = (uint8_t)pos[i];
		link = pos[i] + PCI_CAP_LIST_NEXT;
		make_ours(v, pos[i], 2);
		make_cap(v, pos[i], cap_end(pos, count, pos[i], PCI_CFG_SPACE_SIZE), ret_msix,
			 ret_msi);
	}
	config[link] = 0;
	make_ours(v, PCI_CAPABILITY_LIST, 1);
}

/* Where the extended capabilities of @config are, each once, in the list's order. */
static unsigned list_ext_caps(const uint8_t *config, unsigned size, uint16_t pos[MAX_EXT_CAPS])
{
	unsigned at = PCI_CFG_SPACE_SIZE, count = 0;

	while (at >= PCI_CFG_SPACE_SIZE && at < size && count < MAX_EXT_CAPS &&
	       !is_listed(pos, count, at)) {
		uint32_t header = pci_config_get(config, at, 4);

		if (header == 0 || header == UINT32_MAX)
			break;
		pos[count++] = (uint16_t)at;
		at = EXT_CAP_NEXT(header);
	}
	return count;
}

/* A known one, with the word that tells its length. */
static bool is_shown_ext(const uint8_t *config, unsigned size, unsigned at)
{
	uint32_t id = PCI_EXT_CAP_ID(pci_config_get(config, at, 4));

	for (unsigned i = 0; i < ARRAY_SIZE(shown_ext_caps); i++) {
		if (id == shown_ext_caps[i])
			return at + PCI_VNDR_HEADER + 4 <= size;
	}
	return false;
}

/* Where the one at @at, which is shown, ends: by its own length, before any other begins. */
static unsigned ext_cap_end(const uint8_t *config, unsigned size, const uint16_t *pos,
			    unsigned count, unsigned at)
{
	unsigned end = MIN(at + PCI_EXT_CAP_DSN_SIZEOF, size);

	/* VSEC and DVSEC have it in the same place. */
	if (PCI_EXT_CAP_ID(pci_config_get(config, at, 4)) != PCI_EXT_CAP_ID_DSN)
		end = MIN(at + (pci_config_get(config, at + PCI_VNDR_HEADER, 4) >> 20), size);
	return MAX(cap_end(pos, count, at, end), at + 4);
}

/*
 * The extended list begins at a fixed place, so a hidden first one stays as a null
 * capability. Everything that no shown one covers is hidden.
 */
static void make_ext_caps(struct vfio_pci *v)
{
	uint8_t was[PCI_CONFIG_SIZE], *config = v->pci.config;
	uint16_t pos[MAX_EXT_CAPS];
	unsigned last = PCI_CFG_SPACE_SIZE;
	unsigned count = list_ext_caps(config, v->config_size, pos);

	memcpy(was, config, sizeof(was));
	hide(v, PCI_CFG_SPACE_SIZE, PCI_CONFIG_SIZE - PCI_CFG_SPACE_SIZE);
	for (unsigned i = 0; i < count; i++) {
		unsigned at = pos[i];

		if (!is_shown_ext(was, v->config_size, at))
			continue;
		unsigned end = ext_cap_end(was, v->config_size, pos, count, at);

		memset(&v->ours[at], false, end - at);
		make_ours(v, at, 4);
		pci_config_put(config, at, 4, pci_config_get(was, at, 4) & 0xfffff);
		if (at != last)
			pci_config_put(config, last, 4, pci_config_get(config, last, 4) | at << 20);
		last = at;
	}
}

static int read_config(struct vfio_pci *v, struct err *err)
{
	struct vfio_region region;
	uint8_t *config = v->pci.config;
	int r = v->host->ops->region(v->host, VFIO_PCI_CONFIG_REGION_INDEX, &region);

	if (r < 0 || region.size < PCI_CFG_SPACE_SIZE)
		return err_set(err, EIO, "%s: the host shows no configuration space", v->host->bdf);
	v->config_size = (unsigned)MIN(region.size, PCI_CONFIG_SIZE);
	for (unsigned i = 0; i < v->config_size; i += 4) {
		if (!host_read(v, i, 4, &config[i]))
			return err_set(err, EIO, "%s: can't read its configuration space",
				       v->host->bdf);
	}
	if ((config[PCI_HEADER_TYPE] & 0x7f) != PCI_HEADER_TYPE_NORMAL)
		return err_set(err, EINVAL, "%s is a bridge; only endpoints are passed through",
			       v->host->bdf);
	return 0;
}

int vfio_config_init(struct vfio_pci *v, struct err *err)
{
	struct pci_dev *pci = &v->pci;
	uint8_t *config = pci->config;
	unsigned msix, msi;

	/* Sets the write masks of the header; the device's bytes come over it. */
	pci_dev_init(pci, 0, 0, 0, 0, 0, 0);
	int r = read_config(v, err);

	if (r < 0)
		return r;
	make_ours(v, 0, PCI_STD_HEADER_SIZEOF);
	memset(&v->ours[PCI_STATUS], false, 2);
	memset(&config[PCI_COMMAND], 0, 2);
	memset(&config[PCI_BASE_ADDRESS_0], 0, 4 * PCI_NUM_BARS);
	memset(&config[PCI_ROM_ADDRESS], 0, 4);
	config[PCI_HEADER_TYPE] = PCI_HEADER_TYPE_NORMAL;
	config[PCI_BIST] = 0;
	config[PCI_INTERRUPT_LINE] = 0;
	pci_config_put(pci->wmask, PCI_CACHE_LINE_SIZE, 2, 0xffff);
	make_caps(v, &msix, &msi);
	make_ext_caps(v);
	pci->config_reading = config_reading;
	pci->config_written = config_written;
	vfio_config_command_locked(v);
	return vfio_irqs_init(v, msix, msi, err);
}
