#ifndef DEVICES_NET_NET_H
#define DEVICES_NET_NET_H

/*
 * Where a network card's frames go. A backend is bound to a loop. Frames carry
 * a 12-byte virtio_net_hdr_v1 in front, in both directions (a backend without
 * offloads gets and gives headers of zeroes).
 */

#include <sys/uio.h>
#include "vmm/base/err.h"
#include "vmm/base/types.h"
#include "vmm/core/loop.h"

#define NET_HDR_SIZE  12
#define NET_MAX_FRAME (65536 + NET_HDR_SIZE + 18)

struct net_backend;

struct net_backend_ops {
	/*
	 * Send one frame with its header. Loop thread. 0, -EAGAIN (call again when
	 * writable() ran), or -errno (frame dropped).
	 */
	int (*send)(struct net_backend *net, const struct iovec *iov, unsigned iovcnt);
	/*
	 * Receive one frame with its header. Returns its length, -EAGAIN, or
	 * -errno. A frame longer than the iovec is dropped (-EMSGSIZE). Loop thread.
	 */
	ssize_t (*receive)(struct net_backend *net, const struct iovec *iov, unsigned iovcnt);
	/*
	 * Call readable() when frames come (@on), or let them wait. For those that
	 * receive() left it may not be called again: so a card calls receive() until
	 * -EAGAIN, or comes back by itself. Loop thread.
	 */
	void (*watch)(struct net_backend *net, bool on);
	/*
	 * Offloads the guest can take on receive: TUN_F_* bits as in linux/if_tun.h.
	 * 0 or -errno. Loop thread.
	 */
	int (*set_offload)(struct net_backend *net, unsigned tun_flags);
	void (*destroy)(struct net_backend *net);
};

struct net_backend {
	const struct net_backend_ops *ops;
	bool offloads; /* checksum and TSO both ways */
	unsigned mtu;  /* 0 = unknown */
	/* Set by the card before watch(). Loop thread. */
	void (*readable)(void *opaque);
	void (*writable)(void *opaque);
	/* The backend is gone (tap removed, passt died): reported once. */
	void (*lost)(void *opaque);
	void *opaque;
};

/*
 * A tap interface that exists or can be created. *@ret_net is owned by the
 * caller. -ENODEV, -EPERM, -EBUSY ... with words that name @ifname and say what to do.
 */
int net_tap_create(struct net_backend **ret_net, const char *ifname, struct loop *loop,
		   struct err *err);

/*
 * User-mode networking by a passt process on a socket pair: no privileges,
 * guest 10.0.2.15/24, gateway 10.0.2.2 (the host's loopback), DNS 10.0.2.3. The
 * process ends with moat. -ENOENT when passt isn't installed, with words in @err.
 */
int net_user_create(struct net_backend **ret_net, struct loop *loop, struct err *err);

#endif
