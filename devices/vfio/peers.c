/*
 * Peer to peer: a guest that maps another device's registers for a device's DMA.
 *
 * Only registers that the guest reaches without an exit are memory of the host, and only while
 * the guest has them on its bus: a BAR is moved, switched off, or its device is taken back
 * by the host while the mapping stays in the guest's books. So these mappings are kept in a
 * list, and each time registers come or go the host gets those that are there. Nobody may be
 * left with access to registers that aren't the guest's any more: the host's IOMMU doesn't hold
 * on to them as it does to memory.
 *
 * Locks nest: the root bus's or the IOMMU's, a space's, the slots'.
 */
#include "devices/vfio/space.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static void *registers_at(const struct vfio_space *s, uint64_t phys, uint64_t size)
{
	return s->slots ? s->slots->ops->find(s->slots, GPA(phys), size) : NULL;
}

int vfio_peer_map_locked(struct vfio_space *s, uint64_t iova, uint64_t size, uint64_t phys,
			 uint8_t perm)
{
	void *host = registers_at(s, phys, size);

	if (!host) {
		log_limited(&s->log,
			    "%s: the guest maps 0x%" PRIx64 ", %" PRIu64 " KiB, to 0x%" PRIx64
			    ", which is neither memory nor a device's registers: refused",
			    s->name, iova, size >> 10, phys);
		return -EFAULT;
	}
	if (!s->ops->maps_peers) {
		log_limited(&s->log,
			    "%s: the guest maps another device's registers (0x%" PRIx64
			    "), which iommufd can't: refused; --vfio-backend type1 can",
			    s->name, phys);
		return -ENOTSUP;
	}
	if (s->num_peers >= VFIO_MAX_PEERS) {
		log_limited(&s->log,
			    "%s: the guest maps other devices' registers more than %u times: "
			    "refused",
			    s->name, VFIO_MAX_PEERS);
		return -ENOMEM;
	}
	struct vfio_peer *peer = malloc(sizeof(*peer));

	if (!peer)
		return -ENOMEM;
	*peer = (struct vfio_peer){ s->peers, iova, size, phys, perm, host };
	int r = vfio_space_map_locked(s, iova, size, host, perm);

	if (r < 0) {
		free(peer);
		return r;
	}
	s->peers = peer;
	s->num_peers++;
	return 0;
}

struct vfio_peer *vfio_peer_find_locked(const struct vfio_space *s, uint64_t iova)
{
	struct vfio_peer *peer = s->peers;

	while (peer && peer->iova != iova)
		peer = peer->next;
	return peer;
}

void vfio_peer_remove_locked(struct vfio_space *s, struct vfio_peer *peer, bool host)
{
	struct vfio_peer **link = &s->peers;

	while (*link != peer)
		link = &(*link)->next;
	*link = peer->next;
	s->num_peers--;
	if (host && peer->host)
		vfio_space_unmap_locked(s, peer->iova, peer->size);
	free(peer);
}

void vfio_peers_follow(struct vfio_space *s)
{
	pthread_mutex_lock(&s->lock);
	for (struct vfio_peer *p = s->peers; p; p = p->next) {
		void *host = registers_at(s, p->phys, p->size);

		if (host == p->host)
			continue;
		if (p->host)
			vfio_space_unmap_locked(s, p->iova, p->size);
		/* A failure was reported; the device then meets the host's IOMMU. */
		if (host && vfio_space_map_locked(s, p->iova, p->size, host, p->perm) < 0)
			host = NULL;
		p->host = host;
	}
	pthread_mutex_unlock(&s->lock);
}
