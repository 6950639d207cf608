#include "devices/vfio/pci_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

int vfio_pci_create(struct vfio_pci **ret_vfio, const char *name, struct vfio_host *host,
		    struct pci_root *root, unsigned slot, unsigned fn, struct mem_slots *slots,
		    struct irq_line *intx, struct loop *loop, struct err *err)
{
	struct vfio_pci *v = calloc(1, sizeof(*v));

	if (!v)
		return err_set(err, ENOMEM, "out of memory");
	v->name = name;
	v->host = host;
	v->fn = fn;
	v->slots = slots;
	v->intx_line = intx;
	v->intx_fd = v->unmask_fd = -1;
	v->loop = loop;
	for (unsigned i = 0; i < VFIO_NUM_EVENTS; i++)
		v->event_fd[i] = -1;
	int r = vfio_config_init(v, err);

	if (r == 0)
		r = vfio_bars_init(v, err);
	if (r == 0)
		r = pci_root_add_function(root, &v->pci, slot, fn, err);
	if (r == 0)
		r = vfio_events_init(v, err);
	if (r < 0) {
		vfio_pci_destroy(v);
		return r;
	}
	pci_root_lock(root);
	vfio_intx_sync_locked(v);
	pci_root_unlock(root);
	*ret_vfio = v;
	return 0;
}

void vfio_pci_destroy(struct vfio_pci *vfio)
{
	if (!vfio)
		return;
	vfio_events_finish(vfio);
	vfio_irqs_off(vfio);
	pci_root_remove(vfio->pci.root, &vfio->pci);
	vfio_bars_finish(vfio);
	if (vfio->intx_fd >= 0)
		close(vfio->intx_fd);
	if (vfio->unmask_fd >= 0)
		close(vfio->unmask_fd);
	free(vfio->msix_live);
	free(vfio->msix_entry);
	free(vfio);
}

void vfio_pci_quiet(struct vfio_pci *vfio)
{
	struct pci_dev *pci = &vfio->pci;

	if (pci->gone)
		return;
	pci_dev_reset(pci);
	pci_root_lock(pci->root);
	vfio_irqs_off(vfio);
	vfio_config_command_locked(vfio);
	pci_root_unlock(pci->root);
	vfio->host->ops->quiet(vfio->host);
}

void vfio_pci_reset(struct vfio_pci *vfio)
{
	struct pci_dev *pci = &vfio->pci;
	struct err err = { "" };

	if (pci->gone)
		return;
	if (vfio->host->ops->reset(vfio->host, &err) < 0)
		log_limited(&vfio->log, "%s: %s can't be reset: %s", vfio->name, vfio->host->bdf,
			    err.text);
}

void vfio_pci_restart(struct vfio_pci *vfio)
{
	struct pci_dev *pci = &vfio->pci;

	if (pci->gone)
		return;
	/* Also one that the host couldn't reset. */
	vfio_config_wake(vfio);
	/* Anew: one that the guest hadn't answered would stay masked on the host. */
	pci_root_lock(pci->root);
	if (!pci->gone)
		vfio_intx_sync_locked(vfio);
	pci_root_unlock(pci->root);
}
