/*
 * A tap interface of the host: one read or write is one frame with its
 * virtio_net_hdr, so checksums and segmentation are the host kernel's business.
 *
 * The interface and its configuration (address, bridge, up or down) are the
 * person's: one that isn't there is never made, not even by root, for a mistyped
 * name would leave a guest without a network and no word why. Everything but create and destroy
 * runs on the loop's thread.
 */
#include "devices/net/net.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "vmm/base/cleanup.h"

struct tap {
	struct net_backend net;
	struct loop *loop; /* borrows */
	int fd;		   /* owns */
	uint32_t events;   /* what the loop watches */
	bool watched;	   /* in the loop at all */
	bool lost;
};

static struct tap *to_tap(struct net_backend *net)
{
	return container_of(net, struct tap, net);
}

/* The interface was deleted under us: say so once, and stay off the loop. */
static void tap_lost(struct tap *tap)
{
	if (tap->lost)
		return;
	tap->lost = true;
	loop_remove_fd(tap->loop, tap->fd);
	tap->watched = false;
	if (tap->net.lost)
		tap->net.lost(tap->net.opaque);
}

static void tap_ready(void *opaque, uint32_t events);

static void tap_set_events(struct tap *tap, uint32_t events)
{
	if (tap->lost || events == tap->events)
		return;
	tap->events = events;
	if (tap->watched)
		loop_set_events(tap->loop, tap->fd, events);
	else
		tap->watched = !loop_add_fd(tap->loop, tap->fd, events, tap_ready, tap);
}

static void tap_ready(void *opaque, uint32_t events)
{
	struct tap *tap = opaque;

	if (events & (EPOLLERR | EPOLLHUP)) {
		tap_lost(tap);
		return;
	}
	if (events & EPOLLOUT) {
		tap_set_events(tap, tap->events & ~(uint32_t)EPOLLOUT);
		tap->net.writable(tap->net.opaque);
	}
	if (events & EPOLLIN & tap->events)
		tap->net.readable(tap->net.opaque);
}

static int tap_send(struct net_backend *net, const struct iovec *iov, unsigned iovcnt)
{
	struct tap *tap = to_tap(net);
	ssize_t n;

	do
		n = writev(tap->fd, iov, (int)iovcnt);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return 0;
	if (errno == EAGAIN)
		tap_set_events(tap, tap->events | EPOLLOUT);
	return -errno;
}

static ssize_t tap_receive(struct net_backend *net, const struct iovec *iov, unsigned iovcnt)
{
	struct tap *tap = to_tap(net);
	ssize_t n;

	do
		n = readv(tap->fd, iov, (int)iovcnt);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static void tap_watch(struct net_backend *net, bool on)
{
	struct tap *tap = to_tap(net);
	uint32_t rest = tap->events & ~(uint32_t)EPOLLIN;

	tap_set_events(tap, on ? rest | EPOLLIN : rest);
}

static int tap_set_offload(struct net_backend *net, unsigned tun_flags)
{
	if (ioctl(to_tap(net)->fd, TUNSETOFFLOAD, (unsigned long)tun_flags) < 0)
		return -errno;
	return 0;
}

static void tap_unwatch(void *opaque)
{
	struct tap *tap = opaque;

	if (tap->watched)
		loop_remove_fd(tap->loop, tap->fd);
}

static void tap_destroy(struct net_backend *net)
{
	struct tap *tap = to_tap(net);

	loop_call(tap->loop, tap_unwatch, tap);
	close(tap->fd);
	free(tap);
}

static const struct net_backend_ops tap_ops = {
	.send = tap_send,
	.receive = tap_receive,
	.watch = tap_watch,
	.set_offload = tap_set_offload,
	.destroy = tap_destroy,
};

static int explain_open(struct err *err, int code, const char *ifname)
{
	if (code == ENOENT || code == ENODEV)
		return err_set(err, code,
			       "tap %s: the host has no /dev/net/tun; as root: modprobe tun",
			       ifname);
	if (code == EACCES || code == EPERM)
		return err_set(err, code,
			       "tap %s: no right to open /dev/net/tun; run as root or use --net "
			       "user",
			       ifname);
	return err_set(err, code, "tap %s: can't open /dev/net/tun: %s", ifname, strerror(code));
}

static int explain_attach(struct err *err, int code, const char *ifname)
{
	switch (code) {
	case EPERM:
	case EACCES:
		return err_set(err, EPERM,
			       "tap %s belongs to another user; as root: ip tuntap del dev %s mode "
			       "tap; ip tuntap add dev %s mode tap user $USER",
			       ifname, ifname, ifname);
	case EBUSY:
		return err_set(err, code, "tap %s is in use by another process", ifname);
	case EINVAL:
		return err_set(err, code, "%s isn't a tap interface; choose another name", ifname);
	default:
		return err_set(err, code, "can't attach to tap %s: %s", ifname, strerror(code));
	}
}

/* Make @fd the other end of the interface. */
static int attach(int fd, const char *ifname, struct err *err)
{
	struct ifreq req = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };

	if (!*ifname || strlen(ifname) >= sizeof(req.ifr_name))
		return err_set(err, EINVAL, "tap %s: an interface name has 1 to %zu characters",
			       ifname, sizeof(req.ifr_name) - 1);
	memcpy(req.ifr_name, ifname, strlen(ifname));
	if (!if_nametoindex(ifname))
		return err_set(err, ENODEV,
			       "there is no tap %s; as root: ip tuntap add dev %s mode tap user "
			       "$USER (or use --net user)",
			       ifname, ifname);
	if (!ioctl(fd, TUNSETIFF, &req))
		return 0;
	/* One made with multi_queue insists on the flag, and works with one queue. */
	if (errno == EINVAL) {
		req.ifr_flags |= IFF_MULTI_QUEUE;
		if (!ioctl(fd, TUNSETIFF, &req))
			return 0;
	}
	return explain_attach(err, errno, ifname);
}

static unsigned read_mtu(const char *ifname)
{
	_cleanup_fd_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq req = { 0 };

	memcpy(req.ifr_name, ifname, strnlen(ifname, sizeof(req.ifr_name) - 1));
	if (fd < 0 || ioctl(fd, SIOCGIFMTU, &req) < 0 || req.ifr_mtu < 0)
		return 0;
	return (unsigned)req.ifr_mtu;
}

static int tap_open(struct tap *tap, const char *ifname, struct err *err)
{
	unsigned long all = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
	int header = NET_HDR_SIZE, little_endian = 1;
	int ret;

	tap->fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (tap->fd < 0)
		return explain_open(err, errno, ifname);
	ret = attach(tap->fd, ifname, err);
	if (ret)
		return ret;
	/* virtio 1.x: 12 bytes of header, little-endian on every host. */
	if (ioctl(tap->fd, TUNSETVNETHDRSZ, &header) < 0 ||
	    ioctl(tap->fd, TUNSETVNETLE, &little_endian) < 0)
		return err_set(err, errno, "tap %s: the host's tun driver is too old: %s", ifname,
			       strerror(errno));
	tap->net.offloads = !ioctl(tap->fd, TUNSETOFFLOAD, all);
	ioctl(tap->fd, TUNSETOFFLOAD, 0UL);
	tap->net.mtu = read_mtu(ifname);
	return 0;
}

int net_tap_create(struct net_backend **ret_net, const char *ifname, struct loop *loop,
		   struct err *err)
{
	struct tap *tap = calloc(1, sizeof(*tap));
	int ret;

	if (!tap)
		return err_set(err, ENOMEM, "tap %s: out of memory", ifname);
	tap->net.ops = &tap_ops;
	tap->loop = loop;
	ret = tap_open(tap, ifname, err);
	if (ret) {
		if (tap->fd >= 0)
			close(tap->fd);
		free(tap);
		return ret;
	}
	*ret_net = &tap->net;
	return 0;
}
