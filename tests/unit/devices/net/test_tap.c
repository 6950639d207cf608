/*
 * Taps. Attaching needs CAP_NET_ADMIN, so the tests make a network namespace of
 * their own and are skipped where that isn't allowed.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <arpa/inet.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "devices/net/net.h"

static struct loop *loop;
static struct net_backend *tap;
static _Atomic unsigned frames, losses;
static unsigned char last[NET_MAX_FRAME];
static _Atomic ssize_t last_len;

static void setup(void)
{
	struct err err = { "" };

	/* Before the loop's thread exists, which is then in the namespace too. */
	if (unshare(CLONE_NEWNET) < 0 || access("/dev/net/tun", R_OK | W_OK) < 0)
		cr_skip_test("no right to make network interfaces");
	cr_assert_eq(loop_create(&loop, "test", &err), 0);
}

TestSuite(tap, .init = setup, .timeout = 60);

static void on_readable(void *opaque)
{
	static unsigned char frame[sizeof(last)];
	struct iovec iov = { frame, sizeof(frame) };
	ssize_t len;

	(void)opaque;
	while ((len = tap->ops->receive(tap, &iov, 1)) > 0) {
		/* IPv6 announces itself on any new interface; only our type counts. */
		if (frame[NET_HDR_SIZE + 12] != 0x88 || frame[NET_HDR_SIZE + 13] != 0xb5)
			continue;
		memcpy(last, frame, (size_t)len);
		last_len = len;
		frames++;
		return;
	}
}

static void on_writable(void *opaque)
{
	(void)opaque;
}

static void on_lost(void *opaque)
{
	(void)opaque;
	losses++;
}

static void watch(void *opaque)
{
	(void)opaque;
	tap->ops->watch(tap, true);
}

/* As `ip tuntap add dev NAME mode tap` does. */
static void make_interface(const char *name)
{
	struct ifreq req = { .ifr_flags = IFF_TAP | IFF_NO_PI };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	strcpy(req.ifr_name, name);
	cr_assert_eq(ioctl(fd, TUNSETIFF, &req), 0);
	cr_assert_eq(ioctl(fd, TUNSETPERSIST, 1), 0);
	close(fd);
}

static void open_tap(const char *name)
{
	struct err err = { "" };

	make_interface(name);
	cr_assert_eq(net_tap_create(&tap, name, loop, &err), 0, "%s", err.text);
	tap->readable = on_readable;
	tap->writable = on_writable;
	tap->lost = on_lost;
}

/* A packet socket on the host's side of the interface, which it brings up. */
static int host_side(const char *name)
{
	int sock = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(0x88b5));
	struct ifreq req = { 0 };
	struct sockaddr_ll addr = { .sll_family = AF_PACKET, .sll_protocol = htons(0x88b5) };

	strcpy(req.ifr_name, name);
	cr_assert_eq(ioctl(sock, SIOCGIFFLAGS, &req), 0);
	cr_assert(!(req.ifr_flags & IFF_UP), "its configuration is the person's");
	req.ifr_flags |= IFF_UP;
	cr_assert_eq(ioctl(sock, SIOCSIFFLAGS, &req), 0);
	addr.sll_ifindex = (int)if_nametoindex(name);
	cr_assert_eq(bind(sock, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return sock;
}

Test(tap, frames_pass_both_ways)
{
	unsigned char frame[NET_HDR_SIZE + 100] = { 0 }, *eth = frame + NET_HDR_SIZE, got[200];
	struct iovec iov[] = { { frame, 20 }, { frame + 20, sizeof(frame) - 20 } };
	int sock;

	open_tap("moat0");
	cr_assert(tap->offloads);
	cr_assert_eq(tap->mtu, 1500);
	sock = host_side("moat0");
	memset(eth, 0xff, 6);
	memcpy(eth + 6, "\x52\x54\0\1\2\3\x88\xb5hello", 13);
	cr_assert_eq(tap->ops->send(tap, iov, 2), 0);
	cr_assert_eq(recv(sock, got, sizeof(got), 0), 100);
	cr_assert_eq(memcmp(got, eth, 100), 0);
	loop_call(loop, watch, NULL);
	cr_assert_eq(send(sock, eth, 100, 0), 100);
	for (int i = 0; i < 10000 && !frames; i++)
		usleep(1000);
	cr_assert_eq(frames, 1);
	cr_assert_eq(last_len, (ssize_t)sizeof(frame));
	cr_assert_eq(memcmp(last + NET_HDR_SIZE, eth, 100), 0);
	tap->ops->destroy(tap);
	loop_destroy(loop);
	close(sock);
	cr_assert_neq(if_nametoindex("moat0"), 0, "it is the person's");
}

static void delete_interface(const char *name)
{
	char command[64];

	snprintf(command, sizeof(command), "ip link del %s", name);
	if (system(command) != 0)
		cr_skip_test("no ip(8)");
}

Test(tap, deleted_interface_is_reported_once)
{
	open_tap("moat0");
	loop_call(loop, watch, NULL);
	delete_interface("moat0");
	for (int i = 0; i < 10000 && !losses; i++)
		usleep(1000);
	usleep(20000);
	cr_assert_eq(losses, 1);
	tap->ops->destroy(tap);
	loop_destroy(loop);
}

static void expect_refusal(const char *name, int code, const char *words)
{
	struct net_backend *net = NULL;
	struct err err = { "" };

	cr_assert_eq(net_tap_create(&net, name, loop, &err), -code, "%s: %s", name, err.text);
	cr_assert_null(net);
	cr_assert(strstr(err.text, words), "%s", err.text);
}

Test(tap, refusals_say_what_to_do)
{
	open_tap("moat0");
	expect_refusal("moat0", EBUSY, "in use");
	expect_refusal("lo", EINVAL, "isn't a tap");
	expect_refusal("a-name-that-is-too-long", EINVAL, "1 to 15");
	expect_refusal("", EINVAL, "1 to 15");
	tap->ops->destroy(tap);
	/* Also for root, who could make one. */
	expect_refusal("moat1", ENODEV, "ip tuntap add dev moat1 mode tap");
	cr_assert_eq(if_nametoindex("moat1"), 0);
	cr_assert_eq(seteuid(65534), 0);
	/* The usual host lets everyone open the device, and asks for rights later. */
	if (faccessat(AT_FDCWD, "/dev/net/tun", R_OK | W_OK, AT_EACCESS) == 0) {
		expect_refusal("moat0", EPERM, "belongs to another user");
		expect_refusal("moat1", ENODEV, "ip tuntap add dev moat1 mode tap");
	} else {
		expect_refusal("moat1", EACCES, "no right to open /dev/net/tun");
	}
	cr_assert_eq(seteuid(0), 0);
	loop_destroy(loop);
}
