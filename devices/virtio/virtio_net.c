/*
 * virtio-net: one receive and one transmit queue onto a net backend.
 *
 * Transmit: a frame is mapped, handed to the backend in place, unpinned and
 * returned, all in one go. A backend that is full gets the frame again later
 * (virtq_unpop).
 *
 * Receive: a frame is read into a buffer of ours first and then copied into as
 * many of the driver's buffers as it needs. The copy buys three things: posted
 * buffers, which may wait for hours, hold no reference to guest memory; the
 * frame's length is known before buffers are chosen; and a frame that arrived
 * when buffers ran out is kept until the driver kicks. With mergeable buffers
 * (5.1.6.4) the buffers of a frame go back together, after their number is
 * known and written to the first.
 *
 *	backend readable -> receive(frame) -> copy to chains -> push all, publish
 *	no buffers       -> stop watching the backend -> kick -> go on
 *
 * Everything but create, destroy and config_read runs on the loop's thread.
 */
#include "devices/virtio/virtio_net.h"

#include <errno.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <sys/eventfd.h>

/* Feature bits (5.1.3). */
#define VIRTIO_NET_F_CSUM	(1ULL << 0)
#define VIRTIO_NET_F_GUEST_CSUM (1ULL << 1)
#define VIRTIO_NET_F_MTU	(1ULL << 3)
#define VIRTIO_NET_F_MAC	(1ULL << 5)
#define VIRTIO_NET_F_GUEST_TSO4 (1ULL << 7)
#define VIRTIO_NET_F_GUEST_TSO6 (1ULL << 8)
#define VIRTIO_NET_F_GUEST_ECN	(1ULL << 9)
#define VIRTIO_NET_F_HOST_TSO4	(1ULL << 11)
#define VIRTIO_NET_F_HOST_TSO6	(1ULL << 12)
#define VIRTIO_NET_F_HOST_ECN	(1ULL << 13)
#define VIRTIO_NET_F_MRG_RXBUF	(1ULL << 15)
#define VIRTIO_NET_F_STATUS	(1ULL << 16)

#define VIRTIO_NET_S_LINK_UP 1

enum { QUEUE_RX, QUEUE_TX, QUEUES };

#define QUEUE_SIZE 256
/* Frames at a time and direction, so that both get their share. */
#define BUDGET 64
/* Host ranges of one transmitted frame: every descriptor, each across a page, and its pages. */
#define PIECES_MAX (2 * QUEUE_SIZE + NET_MAX_FRAME / 4096 + 2)
#define ETH_HEADER 14

/* The header's flags and gso_type (5.1.6). */
#define HDR_F_NEEDS_CSUM 1
#define GSO_NONE	 0
#define GSO_TCPV4	 1
#define GSO_TCPV6	 4
#define GSO_ECN		 0x80

struct net_wire_config {
	uint8_t mac[6];
	le16 status, max_virtqueue_pairs, mtu;
};
_Static_assert(sizeof(struct net_wire_config) == 12, "5.1.4");

/* The header in front of every frame (5.1.6). */
struct net_wire_header {
	uint8_t flags, gso_type;
	le16 hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};
_Static_assert(sizeof(struct net_wire_header) == NET_HDR_SIZE, "5.1.6");

/* The received frame that is on its way to the driver. */
struct rx_frame {
	unsigned len;	/* with its header; 0: none */
	unsigned done;	/* bytes copied */
	unsigned count; /* buffers taken so far */
	unsigned slots; /* ... and the descriptors that they hold */
	bool bad;	/* drop it: its buffers go back empty */
	struct {
		uint16_t head;
		uint32_t len;
	} used[QUEUE_SIZE];	  /* of those buffers */
	struct virtq_chain first; /* where num_buffers goes */
	struct virtq_buf first_buf[QUEUE_SIZE];
	unsigned char data[NET_MAX_FRAME];
};

struct virtio_net {
	struct virtio_dev dev;
	struct net_backend *net;       /* owns */
	struct net_wire_config config; /* constant but for the status */
	_Atomic bool link_down;	       /* written by the loop, read by config_read */
	bool tx_full;		       /* the backend takes no more; writable() follows */
	struct rx_frame rx;
	struct virtq_chain chain; /* the one in hand, of either queue */
	struct virtq_buf buf[QUEUE_SIZE];
	struct dma_list list; /* of a frame being sent */
	struct iovec iov[PIECES_MAX];
	void *mapping[PIECES_MAX];
};

static struct virtio_net *to_vnet(struct virtio_dev *dev)
{
	return container_of(dev, struct virtio_net, dev);
}

/* virtq_pop, with the report that a broken ring wants. */
static int pop(struct virtio_net *vnet, unsigned queue)
{
	int ret = virtq_pop(&vnet->dev.queue[queue].vq, &vnet->chain);

	if (ret == -EPROTO)
		virtio_needs_reset(&vnet->dev, "malformed ring");
	return ret;
}

/*
 * Receive.
 */

/* Remember the chain in hand as the first of the frame. */
static void rx_keep_first(struct virtio_net *vnet)
{
	unsigned count = vnet->chain.out + vnet->chain.in;

	vnet->rx.first = vnet->chain;
	vnet->rx.first.buf = vnet->rx.first_buf;
	memcpy(vnet->rx.first_buf, vnet->buf, count * sizeof(vnet->buf[0]));
}

/*
 * The frame is in guest memory, or can't get there: give its buffers back. An
 * empty used element is no frame to any driver, so a bad one leaves no trace.
 */
static void rx_finish(struct virtio_net *vnet)
{
	struct rx_frame *rx = &vnet->rx;
	struct virtq *vq = &vnet->dev.queue[QUEUE_RX].vq;
	le16 count = le16_from((uint16_t)rx->count);

	if (rx->count > 1 && !rx->bad &&
	    virtq_write(vq, &rx->first, offsetof(struct net_wire_header, num_buffers), &count,
			sizeof(count)))
		rx->bad = true;
	for (unsigned i = 0; i < rx->count; i++)
		virtq_push(vq, rx->used[i].head, rx->bad ? 0 : rx->used[i].len);
	rx->len = 0;
}

/*
 * May the driver be given a frame with this header (5.1.6.4.1)? The backend was
 * told what the driver takes, but a tap may hold frames of the driver before.
 */
static bool rx_allowed(const struct virtio_net *vnet, const struct net_wire_header *header)
{
	static const struct {
		uint8_t gso;
		uint64_t feature;
	} known[] = {
		{ GSO_TCPV4, VIRTIO_NET_F_GUEST_TSO4 },
		{ GSO_TCPV6, VIRTIO_NET_F_GUEST_TSO6 },
	};
	const struct virtio_dev *dev = &vnet->dev;
	uint8_t gso = header->gso_type & (uint8_t)~GSO_ECN;

	if ((header->flags & HDR_F_NEEDS_CSUM) && !virtio_has_feature(dev, VIRTIO_NET_F_GUEST_CSUM))
		return false;
	if (gso != header->gso_type && !virtio_has_feature(dev, VIRTIO_NET_F_GUEST_ECN))
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
		if (gso == known[i].gso)
			return virtio_has_feature(dev, known[i].feature);
	return gso == GSO_NONE;
}

/* Begin with a frame, or drop it: its header says one buffer until more are needed. */
static void rx_begin(struct virtio_net *vnet, unsigned len)
{
	struct net_wire_header header;

	memcpy(&header, vnet->rx.data, sizeof(header));
	if (!rx_allowed(vnet, &header))
		return;
	/* That a checksum was found good is nothing for this driver: flags must be 0. */
	if (!virtio_has_feature(&vnet->dev, VIRTIO_NET_F_GUEST_CSUM))
		header.flags = 0;
	header.num_buffers = le16_from(1);
	memcpy(vnet->rx.data, &header, sizeof(header));
	vnet->rx.len = len;
	vnet->rx.done = vnet->rx.count = vnet->rx.slots = 0;
	vnet->rx.bad = false;
}

/*
 * Copy the next part of the frame into the chain in hand. A frame is bad when
 * its first buffer is too small for what must be in one piece, when the guest
 * unmapped a buffer, and when it takes more buffers than the driver can have
 * available at a time.
 */
static void rx_fill(struct virtio_net *vnet)
{
	struct rx_frame *rx = &vnet->rx;
	bool mergeable = virtio_has_feature(&vnet->dev, VIRTIO_NET_F_MRG_RXBUF);
	uint64_t room = vnet->chain.in_bytes;
	unsigned n = (unsigned)MIN(room, (uint64_t)(rx->len - rx->done));

	if (!rx->count)
		rx_keep_first(vnet);
	rx->used[rx->count].head = vnet->chain.head;
	rx->used[rx->count].len = n;
	rx->count++;
	rx->slots += vnet->chain.slots;
	if (room < (rx->count > 1 ? 1 : mergeable ? NET_HDR_SIZE : rx->len)) {
		log_limited(&vnet->dev.log, "%s: a receive buffer of %llu bytes is too small",
			    vnet->dev.name, (unsigned long long)room);
		rx->bad = true;
	} else if (virtq_write(&vnet->dev.queue[QUEUE_RX].vq, &vnet->chain, 0, rx->data + rx->done,
			       n)) {
		rx->bad = true;
	}
	rx->done += n;
	if (rx->slots >= vnet->dev.queue[QUEUE_RX].vq.config.size && rx->done < rx->len)
		rx->bad = true;
}

/*
 * Bring the frame to the driver. Returns 1 when it is through (delivered or
 * dropped), 0 when buffers are missing, or what virtq_pop said.
 */
static int rx_deliver(struct virtio_net *vnet)
{
	while (vnet->rx.done < vnet->rx.len && !vnet->rx.bad) {
		int ret = pop(vnet, QUEUE_RX);

		if (ret <= 0)
			return ret;
		rx_fill(vnet);
	}
	rx_finish(vnet);
	return 1;
}

/* Get the next frame from the backend into rx; false when there is none. */
static bool rx_next(struct virtio_net *vnet)
{
	struct iovec iov = { .iov_base = vnet->rx.data, .iov_len = sizeof(vnet->rx.data) };
	ssize_t len = vnet->net->ops->receive(vnet->net, &iov, 1);

	if (len < 0)
		return len == -EMSGSIZE;
	if (len >= NET_HDR_SIZE + ETH_HEADER)
		rx_begin(vnet, (unsigned)len);
	return true;
}

static void rx_run(struct virtio_net *vnet)
{
	struct virtio_queue *queue = &vnet->dev.queue[QUEUE_RX];
	bool pushed = false, starved = false;
	unsigned budget = BUDGET;

	if (queue->vq.state != VIRTQ_RUNNING)
		return;
	virtq_disable_kicks(&queue->vq);
	for (; budget && !starved; budget--) {
		int ret;

		if (!vnet->rx.len && !rx_next(vnet))
			break;
		/* It was dropped. */
		if (!vnet->rx.len)
			continue;
		ret = rx_deliver(vnet);
		if (ret > 0)
			pushed = true;
		else
			starved = !virtq_enable_kicks(&queue->vq) || ret < 0;
	}
	if (pushed)
		virtio_publish(&vnet->dev, QUEUE_RX);
	/* When buffers are missing, the driver's kick comes; when frames may be left, our own. */
	vnet->net->ops->watch(vnet->net, !starved && !atomic_load(&vnet->link_down));
	if (!starved && !budget)
		eventfd_write(queue->kick_fd, 1);
}

/*
 * Transmit.
 */

/* Send the chain in hand. 0 when it is through (sent or dropped), -EAGAIN. */
static int tx_frame(struct virtio_net *vnet)
{
	struct virtio_queue *queue = &vnet->dev.queue[QUEUE_TX];
	uint64_t len = vnet->chain.out_bytes;
	int ret;

	if (len < NET_HDR_SIZE + ETH_HEADER || len > NET_MAX_FRAME) {
		log_limited(&vnet->dev.log, "%s: a frame of %llu bytes was dropped", vnet->dev.name,
			    (unsigned long long)len);
		return 0;
	}
	if (atomic_load(&vnet->link_down))
		return 0;
	if (virtq_map(&queue->vq, &vnet->chain, 0, len, DMA_READ, &vnet->list))
		return 0;
	ret = vnet->net->ops->send(vnet->net, vnet->iov, vnet->list.count);
	dma_unpin(&queue->port, &vnet->list);
	return ret == -EAGAIN ? ret : 0;
}

/*
 * Send until the ring is empty or *@budget is used up. Returns true when the
 * ring looked empty, false when there is no point in looking again now.
 */
static bool tx_take(struct virtio_net *vnet, unsigned *budget)
{
	struct virtq *vq = &vnet->dev.queue[QUEUE_TX].vq;

	for (; *budget; --*budget) {
		int ret = pop(vnet, QUEUE_TX);

		if (ret == -EFAULT)
			virtq_enable_kicks(vq);
		if (ret <= 0)
			return ret == 0;
		if (tx_frame(vnet) == -EAGAIN) {
			virtq_unpop(vq);
			vnet->tx_full = true;
			return false;
		}
		virtq_push(vq, vnet->chain.head, 0);
	}
	return false;
}

static void tx_run(struct virtio_net *vnet)
{
	struct virtio_queue *queue = &vnet->dev.queue[QUEUE_TX];
	unsigned budget = BUDGET;

	if (vnet->tx_full || queue->vq.state != VIRTQ_RUNNING)
		return;
	do {
		virtq_disable_kicks(&queue->vq);
	} while (tx_take(vnet, &budget) && virtq_enable_kicks(&queue->vq));
	if (!budget)
		eventfd_write(queue->kick_fd, 1);
	if (budget < BUDGET)
		virtio_publish(&vnet->dev, QUEUE_TX);
}

/*
 * The backend's side.
 */

static void net_readable(void *opaque)
{
	rx_run(opaque);
}

static void net_writable(void *opaque)
{
	struct virtio_net *vnet = opaque;

	vnet->tx_full = false;
	tx_run(vnet);
}

/* The cable is pulled: frames are dropped from now on, and the driver is told. */
static void net_lost(void *opaque)
{
	struct virtio_net *vnet = opaque;

	log_warn("%s: the network behind it is gone; its link is down", vnet->dev.name);
	atomic_store(&vnet->link_down, true);
	virtio_config_changed(&vnet->dev);
	net_writable(vnet);
}

/*
 * The device's side.
 */

static void net_kick(struct virtio_dev *dev, unsigned queue)
{
	struct virtio_net *vnet = to_vnet(dev);

	if (queue == QUEUE_RX)
		rx_run(vnet);
	else
		tx_run(vnet);
}

static void net_activate(struct virtio_dev *dev)
{
	static const struct {
		uint64_t feature;
		unsigned tun;
	} map[] = {
		{ VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4 },
		{ VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6 },
		{ VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN },
	};
	struct virtio_net *vnet = to_vnet(dev);
	unsigned tun = 0;

	/* Segments need checksums (5.1.3.1); a driver that forgot gets neither. */
	if (virtio_has_feature(dev, VIRTIO_NET_F_GUEST_CSUM)) {
		tun = TUN_F_CSUM;
		for (unsigned i = 0; i < ARRAY_SIZE(map); i++)
			if (virtio_has_feature(dev, map[i].feature))
				tun |= map[i].tun;
	}
	vnet->net->ops->set_offload(vnet->net, tun);
}

/* Nothing is ever in flight between two turns of the loop. */
static void net_quiesce(struct virtio_dev *dev)
{
	struct virtio_net *vnet = to_vnet(dev);

	vnet->net->ops->watch(vnet->net, false);
	virtio_quiesced(dev);
}

static void net_reset(struct virtio_dev *dev)
{
	struct virtio_net *vnet = to_vnet(dev);

	vnet->tx_full = false;
	vnet->rx.len = 0;
}

static void net_config_read(struct virtio_dev *dev, unsigned offset, void *buf, unsigned len)
{
	struct virtio_net *vnet = to_vnet(dev);
	struct net_wire_config config = vnet->config;

	config.status = le16_from(atomic_load(&vnet->link_down) ? 0 : VIRTIO_NET_S_LINK_UP);
	memcpy(buf, (const char *)&config + offset, len);
}

static const struct virtio_dev_ops net_ops = {
	.activate = net_activate,
	.kick = net_kick,
	.config_read = net_config_read,
	.quiesce = net_quiesce,
	.reset = net_reset,
};

static void net_describe(struct virtio_net *vnet, const struct virtio_net_config *config)
{
	struct virtio_dev *dev = &vnet->dev;

	dev->device_features = VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_NET_F_MAC |
			       VIRTIO_NET_F_STATUS | VIRTIO_NET_F_MRG_RXBUF;
	if (vnet->net->offloads)
		dev->device_features |= VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GUEST_CSUM |
					VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6 |
					VIRTIO_NET_F_GUEST_ECN | VIRTIO_NET_F_HOST_TSO4 |
					VIRTIO_NET_F_HOST_TSO6 | VIRTIO_NET_F_HOST_ECN;
	/* A device must not offer less than 68 bytes (5.1.4.1). */
	if (vnet->net->mtu >= 68 && vnet->net->mtu <= UINT16_MAX) {
		dev->device_features |= VIRTIO_NET_F_MTU;
		vnet->config.mtu = le16_from((uint16_t)vnet->net->mtu);
	}
	memcpy(vnet->config.mac, config->mac, sizeof(vnet->config.mac));
	vnet->config.max_virtqueue_pairs = le16_from(1);
}

static int net_init(struct virtio_net *vnet, const struct virtio_net_config *config,
		    struct dma_view *view, struct loop *loop, struct err *err)
{
	struct virtio_dev *dev = &vnet->dev;

	vnet->chain.buf = vnet->buf;
	vnet->chain.max = QUEUE_SIZE;
	vnet->list.iov = vnet->iov;
	vnet->list.mapping = vnet->mapping;
	vnet->list.max = PIECES_MAX;
	vnet->net->readable = net_readable;
	vnet->net->writable = net_writable;
	vnet->net->lost = net_lost;
	vnet->net->opaque = vnet;

	dev->ops = &net_ops;
	dev->id = VIRTIO_ID_NET;
	dev->name = config->name;
	dev->config_size = sizeof(vnet->config);
	dev->num_queues = QUEUES;
	dev->queue_max_size[QUEUE_RX] = dev->queue_max_size[QUEUE_TX] = QUEUE_SIZE;
	dev->loop = loop;
	dev->view = view;
	dev->access_platform = config->access_platform;
	net_describe(vnet, config);
	return virtio_init(dev, err);
}

int virtio_net_create(struct virtio_net **ret_vnet, const struct virtio_net_config *config,
		      struct net_backend *net, struct dma_view *view, struct loop *loop,
		      struct err *err)
{
	struct virtio_net *vnet = calloc(1, sizeof(*vnet));
	int ret;

	if (!vnet) {
		net->ops->destroy(net);
		return err_set(err, ENOMEM, "network card %s: out of memory", config->name);
	}
	vnet->net = net;
	ret = net_init(vnet, config, view, loop, err);
	if (ret) {
		virtio_net_destroy(vnet);
		return ret;
	}
	*ret_vnet = vnet;
	return 0;
}

void virtio_net_destroy(struct virtio_net *vnet)
{
	if (!vnet)
		return;
	/* The backend first: it calls back into the card. */
	vnet->net->ops->destroy(vnet->net);
	virtio_finish(&vnet->dev);
	free(vnet);
}

struct virtio_dev *virtio_net_virtio(struct virtio_net *vnet)
{
	return &vnet->dev;
}
