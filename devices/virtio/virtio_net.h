#ifndef DEVICES_VIRTIO_VIRTIO_NET_H
#define DEVICES_VIRTIO_VIRTIO_NET_H

/* virtio-net (virtio 1.3, section 5.1), one queue pair. */

#include "devices/net/net.h"
#include "devices/virtio/virtio.h"

struct virtio_net;

struct virtio_net_config {
	const char *name; /* borrows */
	uint8_t mac[6];
	bool access_platform;
};

/* As virtio_blk_create; owns @net from here on, also on failure. */
int virtio_net_create(struct virtio_net **ret_vnet, const struct virtio_net_config *config,
		      struct net_backend *net, struct dma_view *view, struct loop *loop,
		      struct err *err);
void virtio_net_destroy(struct virtio_net *vnet);
struct virtio_dev *virtio_net_virtio(struct virtio_net *vnet);

#endif
