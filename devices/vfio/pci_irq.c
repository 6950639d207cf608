/*
 * Interrupts of a passed-through function, without a thread of ours: the host's handler rings an
 * eventfd, which is an irqfd of the guest.
 *
 * The guest's masks only take the irqfd off (msix.c); an eventfd keeps what was
 * rung meanwhile. On the host an MSI-X entry is switched on when the guest first
 * unmasks it, as each costs the host an interrupt vector. A host that can't add
 * entries while some are on gets them all anew; as an interrupt may be lost
 * then, each is rung once: a driver bears one too many.
 */
#include "devices/vfio/pci_internal.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

static int set_irqs(struct vfio_pci *v, unsigned index, unsigned first, unsigned count,
		    const int *eventfds)
{
	int r = v->host->ops->set_irqs(v->host, index, first, count, eventfds);

	if (r < 0)
		log_limited(&v->log, "%s: the host can't switch %u interrupts %s: %s", v->name,
			    count, count ? "on" : "off", strerror(-r));
	else if (r > 0)
		log_limited(&v->log, "%s: the host has vectors for %d of %u interrupts", v->name, r,
			    count);
	return r;
}

static void msix_off(struct vfio_pci *v)
{
	if (v->msix_room)
		set_irqs(v, VFIO_PCI_MSIX_IRQ_INDEX, 0, 0, NULL);
	memset(v->msix_live, 0, v->pci.msix.count);
	v->msix_room = 0;
}

/*
 * Have the host switch on entries 0 to @count - 1, those with an eventfd ringing it; when it hasn't
 * as many vectors, as many as it has.
 */
static void msix_all(struct vfio_pci *v, unsigned count)
{
	int *eventfds = calloc(count, sizeof(int));
	unsigned before = v->msix_room;

	msix_off(v);
	if (!eventfds)
		return;
	for (unsigned i = 0; i < count; i++)
		eventfds[i] = pci_msix_eventfd(&v->pci, i);
	int r = set_irqs(v, VFIO_PCI_MSIX_IRQ_INDEX, 0, count, eventfds);

	if (r) {
		count = r > 0 ? (unsigned)r : before;
		r = count ? set_irqs(v, VFIO_PCI_MSIX_IRQ_INDEX, 0, count, eventfds) : r;
	}
	if (r == 0) {
		v->msix_room = count;
		for (unsigned i = 0; i < count; i++) {
			v->msix_live[i] = eventfds[i] >= 0;
			if (before && eventfds[i] >= 0)
				eventfd_write(eventfds[i], 1);
		}
	}
	free(eventfds);
}

/*
 * INTx. The host masks the interrupt when it comes, KVM raises the guest's wire;
 * when the guest is done with it KVM lowers the wire and has the host unmask it,
 * which brings it again if the device still asks for it.
 */

static void intx_off(struct vfio_pci *v)
{
	if (!v->intx_on)
		return;
	v->intx_on = false;
	set_irqs(v, VFIO_PCI_INTX_IRQ_INDEX, 0, 0, NULL);
	v->intx_line->ops->disconnect(v->intx_line, v->intx_fd);
}

static void intx_switch_on(struct vfio_pci *v)
{
	int r = v->intx_line->ops->connect(v->intx_line, v->intx_fd, v->unmask_fd);

	if (r < 0) {
		log_limited(&v->log, "%s: KVM can't connect its wired interrupt: %s", v->name,
			    strerror(-r));
		return;
	}
	v->intx_on = true;
	if (set_irqs(v, VFIO_PCI_INTX_IRQ_INDEX, 0, 1, &v->intx_fd) == 0 &&
	    v->host->ops->unmask_by(v->host, VFIO_PCI_INTX_IRQ_INDEX, v->unmask_fd) == 0)
		return;
	log_limited(&v->log, "%s: the host can't switch its wired interrupt on", v->name);
	intx_off(v);
}

void vfio_intx_sync_locked(struct vfio_pci *v)
{
	if (v->intx_fd < 0)
		return;
	if (v->msi_on || pci_msix_enabled(&v->pci))
		intx_off(v);
	else if (!v->intx_on)
		intx_switch_on(v);
}

static int intx_init(struct vfio_pci *v, struct err *err)
{
	uint8_t *pin = &v->pci.config[PCI_INTERRUPT_PIN];
	bool grows;

	if (!*pin || !v->host->ops->irqs(v->host, VFIO_PCI_INTX_IRQ_INDEX, &grows)) {
		*pin = 0;
		return 0;
	}
	*pin = VFIO_PCI_PIN(v->fn);
	v->intx_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	v->unmask_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return v->intx_fd < 0 || v->unmask_fd < 0 ? err_set(err, errno, "eventfd: %m") : 0;
}

/* MSI-X -------------------------------------------------------------------- */

/* Does the guest use entry @i, which the host doesn't ring? */
static bool msix_wanted(struct vfio_pci *v, unsigned i)
{
	return !v->msix_live[i] && pci_msix_eventfd(&v->pci, i) >= 0;
}

/* struct pci_msix says when. Root lock held. */
static void msix_changed(struct pci_dev *pci)
{
	struct vfio_pci *v = container_of(pci, struct vfio_pci, pci);

	if (!pci_msix_enabled(pci)) {
		msix_off(v);
		vfio_intx_sync_locked(v);
		return;
	}
	vfio_intx_sync_locked(v);
	unsigned end = pci->msix.count;

	while (end && !msix_wanted(v, end - 1))
		end--;
	if (end && (!v->msix_room || (end > v->msix_room && !v->msix_grows))) {
		msix_all(v, end);
		return;
	}
	for (unsigned i = 0; i < end; i++) {
		int eventfd = pci_msix_eventfd(pci, i);

		if (!msix_wanted(v, i))
			continue;
		/* One refusal for each change: the guest may have used thousands. */
		if (set_irqs(v, VFIO_PCI_MSIX_IRQ_INDEX, i, 1, &eventfd) != 0)
			break;
		v->msix_live[i] = true;
	}
}

/* MSI ---------------------------------------------------------------------- */

unsigned vfio_msi_size(uint32_t control)
{
	return (control & PCI_MSI_FLAGS_64BIT ? 14 : 10) +
	       (control & PCI_MSI_FLAGS_MASKBIT ? 10 : 0);
}

static bool msi_wide(const struct vfio_pci *v)
{
	return pci_config_get(v->pci.config, v->msi_cap + PCI_MSI_FLAGS, 2) & PCI_MSI_FLAGS_64BIT;
}

/* The message of vector @index, and whether it is masked. */
static bool msi_message(const struct vfio_pci *v, unsigned index, struct msi_message *message)
{
	const uint8_t *config = v->pci.config;
	unsigned cap = v->msi_cap;
	bool wide = msi_wide(v);
	uint32_t control = pci_config_get(config, cap + PCI_MSI_FLAGS, 2);

	message->address = pci_config_get(config, cap + PCI_MSI_ADDRESS_LO, 4);
	if (wide)
		message->address |= (uint64_t)pci_config_get(config, cap + PCI_MSI_ADDRESS_HI, 4)
				    << 32;
	message->data = pci_config_get(config, cap + (wide ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32), 2);
	/* The function puts its vector's number into the low bits (PCI 3.0, 6.8.1.6). */
	message->data = (message->data & ~(v->msi_on - 1)) | index;
	return control & PCI_MSI_FLAGS_MASKBIT &&
	       pci_config_get(config, cap + (wide ? PCI_MSI_MASK_64 : PCI_MSI_MASK_32), 4) >>
			       index &
		       1;
}

static void msi_off(struct vfio_pci *v)
{
	if (!v->msi_on)
		return;
	struct msi_sink *sink = pci_root_msi(v->pci.root);

	set_irqs(v, VFIO_PCI_MSI_IRQ_INDEX, 0, 0, NULL);
	for (unsigned i = 0; i < v->msi_on; i++) {
		sink->ops->free(sink, v->msi[i]);
		v->msi[i] = NULL;
	}
	v->msi_on = 0;
}

static void msi_switch_on(struct vfio_pci *v, unsigned count)
{
	struct msi_sink *sink = pci_root_msi(v->pci.root);
	int eventfds[VFIO_MAX_MSI];

	/* VFIO has one kind at a time. */
	intx_off(v);
	for (v->msi_on = 0; v->msi_on < count; v->msi_on++) {
		if (sink->ops->alloc(sink, v->pci.rid, &v->msi[v->msi_on]) < 0) {
			log_limited(&v->log, "%s: no interrupt vector left", v->name);
			msi_off(v);
			return;
		}
		eventfds[v->msi_on] = sink->ops->eventfd(sink, v->msi[v->msi_on]);
	}
	int r = set_irqs(v, VFIO_PCI_MSI_IRQ_INDEX, 0, count, eventfds);

	/* The function then makes do with the first of them (PCI 3.0, 6.8.1.3). */
	if (r > 0)
		set_irqs(v, VFIO_PCI_MSI_IRQ_INDEX, 0, (unsigned)r, eventfds);
}

void vfio_msi_sync_locked(struct vfio_pci *v)
{
	struct msi_sink *sink = pci_root_msi(v->pci.root);
	uint32_t control =
		v->msi_cap ? pci_config_get(v->pci.config, v->msi_cap + PCI_MSI_FLAGS, 2) : 0;
	unsigned count = 0;

	if (control & PCI_MSI_FLAGS_ENABLE)
		count = MIN(1u << ((control & PCI_MSI_FLAGS_QSIZE) >> 4), v->msi_max);
	if (count != v->msi_on) {
		msi_off(v);
		if (count)
			msi_switch_on(v, count);
		vfio_intx_sync_locked(v);
	}
	for (unsigned i = 0; i < v->msi_on; i++) {
		struct msi_message message;
		bool masked = msi_message(v, i, &message);

		if (sink->ops->update(sink, v->msi[i], &message, masked) < 0)
			log_limited(&v->log, "%s: the host refuses the message of an interrupt",
				    v->name);
	}
}

static void msi_init(struct vfio_pci *v, unsigned cap)
{
	uint8_t *wmask = v->pci.wmask;
	uint32_t control = pci_config_get(v->pci.config, cap + PCI_MSI_FLAGS, 2);
	bool wide = control & PCI_MSI_FLAGS_64BIT, grows;

	v->msi_cap = cap;
	v->msi_max = MIN(v->host->ops->irqs(v->host, VFIO_PCI_MSI_IRQ_INDEX, &grows), VFIO_MAX_MSI);
	pci_config_put(v->pci.config, cap + PCI_MSI_FLAGS, 2,
		       control & ~(uint32_t)(PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE));
	pci_config_put(wmask, cap + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE);
	pci_config_put(wmask, cap + PCI_MSI_ADDRESS_LO, 4, 0xfffffffc);
	if (wide)
		pci_config_put(wmask, cap + PCI_MSI_ADDRESS_HI, 4, UINT32_MAX);
	pci_config_put(wmask, cap + (wide ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32), 2, 0xffff);
	if (control & PCI_MSI_FLAGS_MASKBIT)
		pci_config_put(wmask, cap + (wide ? PCI_MSI_MASK_64 : PCI_MSI_MASK_32), 4,
			       UINT32_MAX);
}

int vfio_irqs_init(struct vfio_pci *v, unsigned msix, unsigned msi, struct err *err)
{
	int r = intx_init(v, err);

	if (r < 0)
		return r;
	if (msi)
		msi_init(v, msi);
	if (!msix)
		return 0;
	unsigned count = pci_msix_count(v->pci.config, msix);

	v->msix_entry = calloc(count, sizeof(struct pci_msix_entry));
	v->msix_live = calloc(count, sizeof(bool));
	if (!v->msix_entry || !v->msix_live)
		return err_set(err, ENOMEM, "out of memory");
	pci_config_put(v->pci.config, msix + PCI_MSIX_FLAGS, 2, count - 1);
	v->host->ops->irqs(v->host, VFIO_PCI_MSIX_IRQ_INDEX, &v->msix_grows);
	pci_dev_place_msix(&v->pci, msix, v->msix_entry, msix_changed);
	return 0;
}

void vfio_irqs_off(struct vfio_pci *v)
{
	intx_off(v);
	msi_off(v);
	if (v->msix_live)
		msix_off(v);
}
