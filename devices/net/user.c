/*
 * User-mode networking: frames to and from a passt process over a stream socket.
 *
 * The stream is QEMU's: every frame has its length in front, 4 bytes,
 * big-endian. Both directions have one bounded buffer:
 *
 *	out   holds the tail of one frame that the socket took in part; until it
 *	      is gone send() says -EAGAIN
 *	in    takes what passt sends as soon as it comes, from the card's first watch()
 *	      on, whether the card wants frames now or not; receive() hands them out
 *
 * passt drops what it can't send at once, and the passt of Debian 12 (2023-03) makes
 * a storm of a lost segment: at every duplicate ACK it sends again all that is in
 * flight, and when such ACKs come together as a connection ends, it may loop for
 * ever. So `in` holds 4 to 8 MiB, more than the window of most connections. In the
 * nested lab 10 MiB take 1 to 3 s since, not 14 to 39.
 *
 * passt knows no virtio_net_hdr: it is skipped on the way out and made of zeroes
 * on the way in. Everything but create and destroy runs on the loop's thread.
 */
#include "devices/net/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "vmm/base/log.h"
#include "devices/net/passt.h"

#define PREFIX	   4u
#define FRAME_MAX  (NET_MAX_FRAME - NET_HDR_SIZE)
#define IN_SIZE	   MIB(8) /* memory only as far as it was ever filled; at least half can be used */
#define IOV_PIECES 1024	  /* what sendmsg takes (UIO_MAXIOV) */

/* passt answers within milliseconds; a loaded host gets a while. */
#define START_TIMEOUT_MS 5000

struct user {
	struct net_backend net;
	struct loop *loop; /* borrows */
	struct passt passt;
	uint32_t events; /* what the loop watches */
	bool watched;	 /* in the loop at all */
	bool receiving;	 /* the card wants frames */
	bool blocked;	 /* send() said -EAGAIN: writable() is owed */
	bool lost;
	size_t out_start, out_end; /* the tail in out */
	size_t in_start, in_end;   /* the unread part of in */
	struct iovec iov[IOV_PIECES];
	unsigned char out[PREFIX + FRAME_MAX];
	unsigned char in[IN_SIZE];
};

static struct user *to_user(struct net_backend *net)
{
	return container_of(net, struct user, net);
}

/*
 * The length of the frame at the head of `in`: 0 when it isn't complete yet, -EPROTO
 * when it can't be a frame.
 */
static int head_length(const struct user *user)
{
	size_t have = user->in_end - user->in_start;
	uint32_t len;

	if (have < PREFIX)
		return 0;
	memcpy(&len, user->in + user->in_start, PREFIX);
	len = ntohl(len);
	if (!len || len > FRAME_MAX)
		return -EPROTO;
	return have - PREFIX >= len ? (int)len : 0;
}

/*
 * Is there room in `in`, or does fill_in make some? It moves what is left only when
 * at least as much was handed out since the last time: a byte moves once at most.
 */
static bool has_room(const struct user *user)
{
	return user->in_end < IN_SIZE || user->in_start >= IN_SIZE / 2;
}

static void user_ready(void *opaque, uint32_t events);

/* Have the loop watch what is wanted now. */
static void update_watch(struct user *user)
{
	uint32_t events = 0;

	if (user->lost)
		return;
	if (user->receiving || has_room(user))
		events |= EPOLLIN;
	if (user->out_end || user->blocked)
		events |= EPOLLOUT;
	if (user->watched && events == user->events)
		return;
	user->events = events;
	if (user->watched)
		loop_set_events(user->loop, user->passt.sock, events);
	else
		user->watched =
			!loop_add_fd(user->loop, user->passt.sock, events, user_ready, user);
}

/* passt ended or talks nonsense: say so once, with its own words. What waits is dropped. */
static void user_lost(struct user *user)
{
	char words[160];

	if (user->lost)
		return;
	user->lost = true;
	if (user->watched)
		loop_remove_fd(user->loop, user->passt.sock);
	user->watched = false;
	passt_last_words(&user->passt, words, sizeof(words));
	log_warn("passt ended%s%s", *words ? ": " : "", words);
	if (user->net.lost)
		user->net.lost(user->net.opaque);
}

/* Write the tail of the last frame. True when nothing of it is left. */
static bool flush_out(struct user *user)
{
	while (user->out_end) {
		ssize_t n = send(user->passt.sock, user->out + user->out_start,
				 user->out_end - user->out_start, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		user->out_start += (size_t)n;
		if (user->out_start == user->out_end)
			user->out_start = user->out_end = 0;
	}
	return true;
}

/*
 * iov[1..] = the frame in @iov without its header. Returns its length, or 0 when
 * there is nothing after the header or it is too long.
 */
static size_t skip_header(struct user *user, const struct iovec *iov, unsigned iovcnt,
			  unsigned *ret_count)
{
	size_t skip = NET_HDR_SIZE, len = 0;
	unsigned count = 1;

	for (unsigned i = 0; i < iovcnt; i++) {
		size_t n = MIN(skip, iov[i].iov_len);

		skip -= n;
		if (n == iov[i].iov_len)
			continue;
		if (count == IOV_PIECES)
			return 0;
		user->iov[count].iov_base = (char *)iov[i].iov_base + n;
		user->iov[count++].iov_len = iov[i].iov_len - n;
		len += iov[i].iov_len - n;
	}
	*ret_count = count;
	return len > FRAME_MAX ? 0 : len;
}

/* Keep what the socket didn't take of @count pieces, of which @sent bytes are through. */
static void keep_tail(struct user *user, unsigned count, size_t sent)
{
	user->out_start = user->out_end = 0;
	for (unsigned i = 0; i < count; i++) {
		size_t n = MIN(sent, user->iov[i].iov_len);

		sent -= n;
		memcpy(user->out + user->out_end, (char *)user->iov[i].iov_base + n,
		       user->iov[i].iov_len - n);
		user->out_end += user->iov[i].iov_len - n;
	}
}

static int wait_writable(struct user *user)
{
	user->blocked = true;
	update_watch(user);
	return -EAGAIN;
}

static int user_send(struct net_backend *net, const struct iovec *iov, unsigned iovcnt)
{
	struct user *user = to_user(net);
	unsigned count;
	size_t len = skip_header(user, iov, iovcnt, &count);
	uint32_t prefix = htonl((uint32_t)len);
	struct msghdr msg = { .msg_iov = user->iov };
	ssize_t n;

	if (user->lost)
		return -EPIPE;
	if (!len)
		return -EMSGSIZE;
	if (!flush_out(user))
		return wait_writable(user);
	user->iov[0] = (struct iovec){ .iov_base = &prefix, .iov_len = PREFIX };
	msg.msg_iovlen = count;
	do
		n = sendmsg(user->passt.sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? wait_writable(user) : -errno;
	if ((size_t)n < PREFIX + len) {
		keep_tail(user, count, (size_t)n);
		update_watch(user);
	}
	return 0;
}

/* Read what there is and fits. Returns 0, -EAGAIN, or -EPIPE when passt is gone. */
static int fill_in(struct user *user)
{
	ssize_t n;

	if (!has_room(user))
		return -EAGAIN;
	if (user->in_start == user->in_end || user->in_start >= IN_SIZE / 2) {
		memmove(user->in, user->in + user->in_start, user->in_end - user->in_start);
		user->in_end -= user->in_start;
		user->in_start = 0;
	}
	do
		n = recv(user->passt.sock, user->in + user->in_end, IN_SIZE - user->in_end,
			 MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return -EAGAIN;
	if (n <= 0)
		return -EPIPE;
	user->in_end += (size_t)n;
	return 0;
}

/* A header of zeroes and @len bytes at @frame into @iov; false when they don't fit. */
static bool scatter(const struct iovec *iov, unsigned iovcnt, const unsigned char *frame,
		    size_t len)
{
	static const unsigned char header[NET_HDR_SIZE];
	size_t at = 0, total = NET_HDR_SIZE + len;

	for (unsigned i = 0; i < iovcnt && at < total; i++) {
		unsigned char *to = iov[i].iov_base;
		size_t room = MIN(iov[i].iov_len, total - at);
		size_t n = at < NET_HDR_SIZE ? MIN(room, NET_HDR_SIZE - at) : 0;

		memcpy(to, header, n);
		at += n;
		memcpy(to + n, frame + (at - NET_HDR_SIZE) * (at >= NET_HDR_SIZE), room - n);
		at += room - n;
	}
	return at == total;
}

static ssize_t user_receive(struct net_backend *net, const struct iovec *iov, unsigned iovcnt)
{
	struct user *user = to_user(net);
	int len = head_length(user);
	bool fits;

	if (len < 0)
		user_lost(user);
	if (user->lost)
		return -EPIPE;
	if (!len)
		return -EAGAIN;
	passt_fix_dhcp(user->in + user->in_start + PREFIX, (size_t)len);
	fits = scatter(iov, iovcnt, user->in + user->in_start + PREFIX, (size_t)len);
	user->in_start += PREFIX + (size_t)len;
	return fits ? NET_HDR_SIZE + len : -EMSGSIZE;
}

static void user_watch(struct net_backend *net, bool on)
{
	struct user *user = to_user(net);

	user->receiving = on;
	update_watch(user);
}

/* No offloads: the driver can't have negotiated any. */
static int user_set_offload(struct net_backend *net, unsigned tun_flags)
{
	(void)net;
	return tun_flags ? -EOPNOTSUPP : 0;
}

static void user_ready(void *opaque, uint32_t events)
{
	struct user *user = opaque;

	if (events & EPOLLIN ? fill_in(user) == -EPIPE : events & (EPOLLERR | EPOLLHUP)) {
		user_lost(user);
		return;
	}
	if (flush_out(user) && user->blocked) {
		user->blocked = false;
		user->net.writable(user->net.opaque);
	}
	if (user->receiving)
		user->net.readable(user->net.opaque);
	update_watch(user);
}

static void user_unwatch(void *opaque)
{
	struct user *user = opaque;

	if (user->watched)
		loop_remove_fd(user->loop, user->passt.sock);
}

static void user_destroy(struct net_backend *net)
{
	struct user *user = to_user(net);

	loop_call(user->loop, user_unwatch, user);
	passt_stop(&user->passt);
	free(user);
}

static const struct net_backend_ops user_ops = {
	.send = user_send,
	.receive = user_receive,
	.watch = user_watch,
	.set_offload = user_set_offload,
	.destroy = user_destroy,
};

/*
 * Ask who has the gateway's address, as a station without one (RFC 5227), and
 * wait for the answer: passt that can't work on this host says so here and not
 * to a guest that boots without a network.
 */
static int greet(struct user *user, struct err *err)
{
	static const unsigned char probe[] = {
		0x00, 0x00, 0x00, 0x2a,		    /* the frame's length */
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, /* to everyone */
		0x52, 0x54, 0x00, 0x00, 0x00, 0x01, 0x08, 0x06, 0x00, 0x01,
		0x08, 0x00, 0x06, 0x04, 0x00, 0x01, /* who has ... */
		0x52, 0x54, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00,
		0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0a, 0x00, 0x02, 0x02,
	};
	struct pollfd answer = { .fd = user->passt.sock, .events = POLLIN };
	char words[160];
	int len = 0;

	if (send(user->passt.sock, probe, sizeof(probe), MSG_NOSIGNAL) != sizeof(probe))
		len = -EPIPE;
	/* It may come in pieces; what follows it stays for the guest. */
	while (!len) {
		int ret = poll(&answer, 1, START_TIMEOUT_MS);

		if (ret == 0)
			return err_set(err, ETIMEDOUT, "--net user: passt doesn't answer");
		if (ret > 0)
			len = fill_in(user);
		if (!len || len == -EAGAIN)
			len = head_length(user);
	}
	if (len > 0) {
		user->in_start += PREFIX + (size_t)len;
		return 0;
	}
	passt_last_words(&user->passt, words, sizeof(words));
	return err_set(err, EPIPE, "--net user: passt ended at once: %s",
		       *words ? words : "it gave no reason");
}

int net_user_create(struct net_backend **ret_net, struct loop *loop, struct err *err)
{
	struct user *user = calloc(1, sizeof(*user));
	int ret;

	if (!user)
		return err_set(err, ENOMEM, "--net user: out of memory");
	user->net.ops = &user_ops;
	user->loop = loop;
	ret = passt_start(&user->passt, err);
	if (ret) {
		free(user);
		return ret;
	}
	ret = greet(user, err);
	if (ret) {
		passt_stop(&user->passt);
		free(user);
		return ret;
	}
	*ret_net = &user->net;
	return 0;
}
