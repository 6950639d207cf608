/*
 * What the host has to tell of a device besides its interrupts.
 *
 * An error that the device reported (PCI Express AER): the guest doesn't see the
 * registers that describe it, as it wouldn't on a host bridge without AER; its
 * driver notices by what no longer works.
 *
 * A request to give the device back, because it is about to be unbound or was
 * pulled out. The guest has no hot-plug, so for it the function is pulled out
 * without notice, which a driver has to survive on hardware too: registers and
 * configuration space read as all ones, no interrupt comes.
 */
#include "devices/vfio/pci_internal.h"

#include <errno.h>
#include <linux/vfio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static const unsigned event_index[VFIO_NUM_EVENTS] = {
	[VFIO_EVENT_ERROR] = VFIO_PCI_ERR_IRQ_INDEX,
	[VFIO_EVENT_REQUEST] = VFIO_PCI_REQ_IRQ_INDEX,
};

static void on_error(void *opaque, uint32_t events)
{
	struct vfio_pci *v = opaque;
	eventfd_t count;

	eventfd_read(v->event_fd[VFIO_EVENT_ERROR], &count);
	log_limited(&v->log,
		    "%s: %s reports an uncorrectable error; the guest may have to reset it",
		    v->name, v->host->bdf);
}

static void events_off(struct vfio_pci *v)
{
	for (unsigned i = 0; i < VFIO_NUM_EVENTS; i++) {
		if (v->event_fd[i] >= 0)
			v->host->ops->set_irqs(v->host, event_index[i], 0, 0, NULL);
	}
}

static void on_request(void *opaque, uint32_t events)
{
	struct vfio_pci *v = opaque;
	eventfd_t count;

	eventfd_read(v->event_fd[VFIO_EVENT_REQUEST], &count);
	if (v->pci.gone)
		return;
	log_warn("%s: the host wants %s back: it is taken away from the guest", v->name,
		 v->host->bdf);
	pci_root_lock(v->pci.root);
	v->pci.gone = true;
	pci_root_remap_locked(v->pci.root);
	vfio_irqs_off(v);
	events_off(v);
	vfio_bars_finish(v);
	if (v->host->keeper_is_own)
		v->slots->ops->drop_file(v->slots, v->host->keeper_fd);
	v->host->ops->release(v->host);
	pci_root_unlock(v->pci.root);
}

static void watch(void *opaque)
{
	static const loop_fd_fn fn[VFIO_NUM_EVENTS] = {
		[VFIO_EVENT_ERROR] = on_error,
		[VFIO_EVENT_REQUEST] = on_request,
	};
	struct vfio_pci *v = opaque;

	for (unsigned i = 0; i < VFIO_NUM_EVENTS; i++) {
		int r = v->event_fd[i] < 0
				? 0
				: loop_add_fd(v->loop, v->event_fd[i], EPOLLIN, fn[i], v);

		if (r < 0)
			log_warn("%s: can't listen to what the host tells of %s: %s", v->name,
				 v->host->bdf, strerror(-r));
	}
}

static void unwatch(void *opaque)
{
	struct vfio_pci *v = opaque;

	for (unsigned i = 0; i < VFIO_NUM_EVENTS; i++) {
		if (v->event_fd[i] >= 0)
			loop_remove_fd(v->loop, v->event_fd[i]);
	}
}

int vfio_events_init(struct vfio_pci *v, struct err *err)
{
	for (unsigned i = 0; i < VFIO_NUM_EVENTS; i++) {
		bool grows;

		if (!v->host->ops->irqs(v->host, event_index[i], &grows))
			continue;
		v->event_fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (v->event_fd[i] < 0)
			return err_set(err, errno, "eventfd: %m");
		int r = v->host->ops->set_irqs(v->host, event_index[i], 0, 1, &v->event_fd[i]);

		if (r < 0)
			return err_set(err, -r, "%s: the host won't tell of its errors: %s",
				       v->host->bdf, strerror(-r));
	}
	loop_call(v->loop, watch, v);
	return 0;
}

void vfio_events_finish(struct vfio_pci *v)
{
	loop_call(v->loop, unwatch, v);
	events_off(v);
	for (unsigned i = 0; i < VFIO_NUM_EVENTS; i++) {
		if (v->event_fd[i] >= 0)
			close(v->event_fd[i]);
	}
}
