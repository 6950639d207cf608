#ifndef DEVICES_VIRTIO_VIRTIO_RNG_H
#define DEVICES_VIRTIO_VIRTIO_RNG_H

/* virtio-rng, the entropy device (virtio 1.3, section 5.4), fed by getrandom. */

#include "devices/virtio/virtio.h"

struct virtio_rng;

/* *@ret_rng is owned by the caller. 0 or -errno with words in @err. */
int virtio_rng_create(struct virtio_rng **ret_rng, const char *name, bool access_platform,
		      struct dma_view *view, struct loop *loop, struct err *err);
void virtio_rng_destroy(struct virtio_rng *rng);
struct virtio_dev *virtio_rng_virtio(struct virtio_rng *rng);

#endif
