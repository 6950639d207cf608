/*
 * User-mode networking against the real passt: what a guest relies on is that
 * DHCP gives it 10.0.2.15 and that 10.0.2.2 is the host's loopback.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "devices/net/net.h"

#define ETH 14u

struct rig {
	struct loop *loop;
	struct net_backend *net;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned char frame[NET_MAX_FRAME]; /* the last one that `wanted` liked */
	ssize_t len;
	bool (*wanted)(const unsigned char *frame, ssize_t len);
	unsigned losses, writables;
	const void *out;
	size_t out_len;
	int sent;
};

static void on_readable(void *opaque)
{
	static unsigned char buf[NET_MAX_FRAME];
	struct rig *rig = opaque;
	struct iovec iov[2] = { { buf, 5 }, { buf + 5, sizeof(buf) - 5 } };
	ssize_t len;

	pthread_mutex_lock(&rig->lock);
	while ((len = rig->net->ops->receive(rig->net, iov, 2)) > 0) {
		if (rig->len || !rig->wanted || !rig->wanted(buf + NET_HDR_SIZE, len))
			continue;
		memcpy(rig->frame, buf, (size_t)len);
		rig->len = len;
		pthread_cond_signal(&rig->changed);
	}
	pthread_mutex_unlock(&rig->lock);
}

static void on_writable(void *opaque)
{
	((struct rig *)opaque)->writables++;
}

static void on_lost(void *opaque)
{
	struct rig *rig = opaque;

	/* Called from receive, with the lock held, or from the loop. */
	rig->losses++;
	pthread_cond_signal(&rig->changed);
}

static void start_watch(void *opaque)
{
	struct rig *rig = opaque;

	rig->net->ops->watch(rig->net, true);
}

static void rig_start(struct rig *rig)
{
	struct err err = { "" };
	int ret;

	memset(rig, 0, sizeof(*rig));
	pthread_mutex_init(&rig->lock, NULL);
	pthread_condattr_t monotonic;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&rig->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	cr_assert_eq(loop_create(&rig->loop, "test", &err), 0);
	ret = net_user_create(&rig->net, rig->loop, &err);
	if (ret == -ENOENT)
		cr_skip_test("passt isn't installed");
	cr_assert_eq(ret, 0, "%s", err.text);
	rig->net->readable = on_readable;
	rig->net->writable = on_writable;
	rig->net->lost = on_lost;
	rig->net->opaque = rig;
	loop_call(rig->loop, start_watch, rig);
}

static void rig_stop(struct rig *rig)
{
	rig->net->ops->destroy(rig->net);
	loop_destroy(rig->loop);
	/* No child of ours is left, dead or alive. */
	cr_assert_eq(waitpid(-1, NULL, WNOHANG), -1);
	cr_assert_eq(errno, ECHILD);
}

static void send_out(void *opaque)
{
	static unsigned char header[NET_HDR_SIZE];
	struct rig *rig = opaque;
	/* The header in two pieces, one of them shared with the frame. */
	unsigned char rest[4 + 2048];
	struct iovec iov[2] = { { header, 8 }, { rest, 4 + rig->out_len } };

	memset(rest, 0, 4);
	memcpy(rest + 4, rig->out, rig->out_len);
	rig->sent = rig->net->ops->send(rig->net, iov, 2);
}

/* Send @frame, and wait until one that @wanted likes comes back; its length without the header. */
static size_t ask(struct rig *rig, const void *frame, size_t len,
		  bool (*wanted)(const unsigned char *frame, ssize_t len))
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += 15;
	pthread_mutex_lock(&rig->lock);
	rig->wanted = wanted;
	rig->len = 0;
	pthread_mutex_unlock(&rig->lock);
	rig->out = frame;
	rig->out_len = len;
	loop_call(rig->loop, send_out, rig);
	cr_assert_eq(rig->sent, 0);
	pthread_mutex_lock(&rig->lock);
	while (!rig->len)
		if (pthread_cond_timedwait(&rig->changed, &rig->lock, &until))
			break;
	len = rig->len ? (size_t)rig->len - NET_HDR_SIZE : 0;
	pthread_mutex_unlock(&rig->lock);
	return len;
}

/*
 * Frames by hand.
 */

static const unsigned char mac[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };

static uint16_t sum(const unsigned char *p, size_t len, uint32_t start)
{
	uint32_t s = start;

	for (size_t i = 0; i < len; i++)
		s += i % 2 ? p[i] : (uint32_t)p[i] << 8;
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return (uint16_t)~s;
}

static void put16(unsigned char *p, unsigned v)
{
	p[0] = (unsigned char)(v >> 8);
	p[1] = (unsigned char)v;
}

/* Ethernet and IPv4 in front of the @len bytes already at frame + 34. */
static size_t put_ip(unsigned char *frame, const char *from, const char *to, unsigned proto,
		     size_t len)
{
	unsigned char *ip = frame + ETH;

	memset(frame, 0xff, 6);
	memcpy(frame + 6, mac, 6);
	put16(frame + 12, 0x0800);
	memset(ip, 0, 20);
	ip[0] = 0x45;
	put16(ip + 2, (unsigned)(20 + len));
	ip[8] = 64;
	ip[9] = (unsigned char)proto;
	inet_pton(AF_INET, from, ip + 12);
	inet_pton(AF_INET, to, ip + 16);
	put16(ip + 10, sum(ip, 20, 0));
	return ETH + 20 + len;
}

static bool is_dhcp_reply(const unsigned char *f, ssize_t len)
{
	return len > 300 && f[12] == 8 && f[13] == 0 && f[23] == IPPROTO_UDP && f[37] == 68;
}

static bool is_tcp(const unsigned char *f, ssize_t len)
{
	return len >= 54 && f[12] == 8 && f[13] == 0 && f[23] == IPPROTO_TCP;
}

/* The value of DHCP option @code in the options at @p, or NULL. */
static const unsigned char *dhcp_option(const unsigned char *p, const unsigned char *end,
					unsigned code)
{
	while (p + 2 < end && *p != 0xff) {
		if (*p == code)
			return p + 2;
		p += *p ? 2 + p[1] : 1;
	}
	return NULL;
}

static void check_dhcp(bool needs_dns)
{
	static const unsigned char options[] = { 0x63, 0x82, 0x53, 0x63, 53, 1,	 1,
						 55,   3,    1,	   3,	 6,  255 };
	unsigned char frame[ETH + 20 + 8 + 300] = { 0 };
	unsigned char *udp = frame + ETH + 20, *boot = udp + 8;
	static struct rig rig;
	size_t len;

	rig_start(&rig);
	put16(udp, 68);
	put16(udp + 2, 67);
	put16(udp + 4, 8 + 300);
	memcpy(boot, (unsigned char[]){ 1, 1, 6, 0, 1, 2, 3, 4 }, 8);
	memcpy(boot + 28, mac, 6);
	memcpy(boot + 236, options, sizeof(options));
	len = put_ip(frame, "0.0.0.0", "255.255.255.255", IPPROTO_UDP, 8 + 300);
	len = ask(&rig, frame, len, is_dhcp_reply);
	cr_assert_gt(len, 282);

	const unsigned char *reply = rig.frame + NET_HDR_SIZE + ETH + 28, *value;
	const unsigned char *end = rig.frame + NET_HDR_SIZE + len;

	cr_assert_eq(memcmp(rig.frame, (char[NET_HDR_SIZE]){ 0 }, NET_HDR_SIZE), 0);
	cr_assert_eq(memcmp(reply + 16, (unsigned char[]){ 10, 0, 2, 15 }, 4), 0);
	value = dhcp_option(reply + 240, end, 3);
	cr_assert(value && !memcmp(value, (unsigned char[]){ 10, 0, 2, 2 }, 4), "gateway");
	/* A host without a resolver has none to offer. */
	value = dhcp_option(reply + 240, end, 6);
	cr_assert(!value || !memcmp(value, (unsigned char[]){ 10, 0, 2, 3 }, 4), "DNS");
	cr_assert(value || !needs_dns, "DNS");
	rig_stop(&rig);
}

Test(user, dhcp_gives_the_promised_addresses, .timeout = 60)
{
	check_dhcp(false);
}

/*
 * A network of our own, so that port 53 is free, where the host's resolver is at
 * 127.0.0.53, as systemd's is: the address that a guest must not be told.
 */
static bool become_host_with_resolver(void)
{
	static const char conf[] = "nameserver 127.0.0.53\n";
	char path[] = "/tmp/moat-resolv.XXXXXX";
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_LOOPBACK };
	int fd = mkstemp(path), sock;

	cr_assert(fd >= 0 && write(fd, conf, strlen(conf)) == (ssize_t)strlen(conf));
	fchmod(fd, 0644);
	close(fd);
	bool good = !unshare(CLONE_NEWNET | CLONE_NEWNS) &&
		    !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
		    !mount(path, "/etc/resolv.conf", NULL, MS_BIND, NULL);

	unlink(path);
	sock = socket(AF_INET, SOCK_DGRAM, 0);
	good = good && !ioctl(sock, SIOCSIFFLAGS, &lo);
	close(sock);
	return good;
}

static bool is_dns_answer(const unsigned char *f, ssize_t len)
{
	return len >= 42 && f[12] == 8 && f[13] == 0 && f[23] == IPPROTO_UDP && f[35] == 53;
}

struct resolver {
	pthread_t thread;
	int sock;
	ssize_t len; /* of the question */
	char question[512];
};

static void *resolve(void *opaque)
{
	struct resolver *r = opaque;
	struct sockaddr_in from;
	socklen_t len = sizeof(from);

	r->len = recvfrom(r->sock, r->question, sizeof(r->question), 0, (struct sockaddr *)&from,
			  &len);
	sendto(r->sock, "answer", 6, 0, (struct sockaddr *)&from, len);
	return NULL;
}

Test(user, dns_goes_to_the_hosts_resolver, .timeout = 60)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_port = htons(53),
				    .sin_addr = { htonl(0x7f000035) } };
	unsigned char frame[ETH + 20 + 8 + 8] = { 0 }, *udp = frame + ETH + 20;
	static struct rig rig;
	struct resolver r = { .len = -1 };
	size_t len;

	if (!become_host_with_resolver())
		cr_skip_test("needs the right to make namespaces");
	check_dhcp(true);
	r.sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(bind(r.sock, (struct sockaddr *)&addr, sizeof(addr)), 0);
	cr_assert_eq(pthread_create(&r.thread, NULL, resolve, &r), 0);
	rig_start(&rig);
	put16(udp, 4000);
	put16(udp + 2, 53);
	put16(udp + 4, 8 + 8);
	memcpy(udp + 8, "question", 8);
	len = put_ip(frame, "10.0.2.15", "10.0.2.3", IPPROTO_UDP, 8 + 8);
	len = ask(&rig, frame, len, is_dns_answer);
	cr_assert_eq(len, 42 + 6, "no answer");

	const unsigned char *answer = rig.frame + NET_HDR_SIZE + ETH;

	/* From whom it was asked: a guest drops it otherwise. */
	cr_expect_eq(memcmp(answer + 12, (unsigned char[]){ 10, 0, 2, 3 }, 4), 0);
	cr_expect_eq(memcmp(answer + 28, "answer", 6), 0);
	pthread_join(r.thread, NULL);
	cr_expect(r.len == 8 && !memcmp(r.question, "question", 8));
	close(r.sock);
	rig_stop(&rig);
}

Test(user, gateway_is_the_hosts_loopback, .timeout = 60)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	unsigned char frame[ETH + 20 + 20] = { 0 }, *tcp = frame + ETH + 20;
	socklen_t addrlen = sizeof(addr);
	static struct rig rig;
	uint32_t pseudo;
	size_t len;

	cr_assert_eq(bind(server, (struct sockaddr *)&addr, sizeof(addr)), 0);
	cr_assert_eq(listen(server, 1), 0);
	getsockname(server, (struct sockaddr *)&addr, &addrlen);
	rig_start(&rig);
	put16(tcp, 1000);
	put16(tcp + 2, ntohs(addr.sin_port));
	tcp[7] = 100;		 /* sequence number */
	put16(tcp + 12, 0x5002); /* five words, SYN */
	put16(tcp + 14, 65535);
	pseudo = 0x0a00 + 0x020f + 0x0a00 + 0x0202 + IPPROTO_TCP + 20;
	put16(tcp + 16, sum(tcp, 20, pseudo));
	len = put_ip(frame, "10.0.2.15", "10.0.2.2", IPPROTO_TCP, 20);
	len = ask(&rig, frame, len, is_tcp);
	cr_assert_geq(len, 54);
	cr_assert_eq(rig.frame[NET_HDR_SIZE + ETH + 20 + 13], 0x12, "SYN and ACK");
	/* The last ACK may still be on its way. */
	cr_assert_eq(poll(&(struct pollfd){ .fd = server, .events = POLLIN }, 1, 10000), 1);
	cr_assert_geq(accept(server, NULL, NULL), 0);
	rig_stop(&rig);
	close(server);
}

/* The pid of the passt that is our child, by looking at /proc. */
static pid_t find_child(void)
{
	char path[64], line[256];
	pid_t found = -1;
	DIR *proc = opendir("/proc");
	struct dirent *entry;

	while (proc && (entry = readdir(proc))) {
		int pid = atoi(entry->d_name), parent = 0;
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%d/stat", pid);
		f = pid ? fopen(path, "r") : NULL;
		if (!f)
			continue;
		if (fgets(line, sizeof(line), f) && strstr(line, "(passt") &&
		    sscanf(strrchr(line, ')') + 4, "%d", &parent) == 1 && parent == getpid())
			found = pid;
		fclose(f);
	}
	if (proc)
		closedir(proc);
	return found;
}

static int count_fds(pid_t pid)
{
	char path[64];
	int count = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	DIR *dir = opendir(path);
	while (dir && readdir(dir))
		count++;
	if (dir)
		closedir(dir);
	return count;
}

Test(user, death_of_passt_is_reported_once, .timeout = 60)
{
	static const unsigned char blank[60];
	static struct rig rig;
	pid_t pid;

	rig_start(&rig);
	pid = find_child();
	cr_assert_gt(pid, 0);
	cr_assert_neq(getsid(pid), getsid(0), "Ctrl-C would reach it");
	kill(pid, SIGKILL);
	for (int i = 0; i < 2000 && !rig.losses; i++)
		usleep(10000);
	usleep(20000);
	cr_assert_eq(rig.losses, 1);
	rig.out_len = 60;
	rig.out = blank;
	loop_call(rig.loop, send_out, &rig);
	cr_assert_lt(rig.sent, 0);
	cr_assert_neq(rig.sent, -EAGAIN, "nobody would ever call again");
	rig_stop(&rig);
}

Test(user, inherits_no_descriptor, .timeout = 60)
{
	static struct rig rig;
	int base, with;

	rig_start(&rig);
	base = count_fds(find_child());
	rig_stop(&rig);
	/* Descriptors without close-on-exec, as a careless library would leave. */
	for (int i = 0; i < 20; i++)
		cr_assert_geq(dup(0), 0);
	rig_start(&rig);
	with = count_fds(find_child());
	cr_assert_eq(base, with);
	rig_stop(&rig);
}

Test(user, missing_passt_names_the_remedy)
{
	struct net_backend *net;
	struct loop *loop;
	struct err err = { "" };

	cr_assert_eq(loop_create(&loop, "test", &err), 0);
	setenv("PATH", "/nonexistent", 1);
	cr_assert_eq(net_user_create(&net, loop, &err), -ENOENT);
	cr_assert(strstr(err.text, "apt install passt"), "%s", err.text);
	cr_assert_eq(waitpid(-1, NULL, WNOHANG), -1);
	loop_destroy(loop);
}

/* Put a script in passt's place, which runs @body in @dir; that is made here. */
static void fake_passt(char *dir, const char *body)
{
	char path[64];
	FILE *f;

	cr_assert(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/passt", dir);
	f = fopen(path, "w");
	fprintf(f, "#!/bin/sh\nPATH=/usr/bin:/bin\ncd %s\n%s", dir, body);
	fclose(f);
	chmod(path, 0755);
	setenv("PATH", dir, 1);
}

static void remove_files(const char *dir, const char *const *names)
{
	char path[64];

	for (; *names; names++) {
		snprintf(path, sizeof(path), "%s/%s", dir, *names);
		unlink(path);
	}
	rmdir(dir);
}

/* A passt that can't work on this host must be an error of ours at once, in its words. */
Test(user, passt_that_gives_up_is_quoted, .timeout = 60)
{
	char dir[] = "/tmp/moat-test-XXXXXX";
	struct net_backend *net;
	struct loop *loop;
	struct err err = { "" };

	fake_passt(dir, "echo 'No namespaces today' >&2\nexit 1\n");
	cr_assert_eq(loop_create(&loop, "test", &err), 0);
	cr_assert_lt(net_user_create(&net, loop, &err), 0);
	cr_assert(strstr(err.text, "No namespaces today"), "%s", err.text);
	loop_destroy(loop);
	remove_files(dir, (const char *const[]){ "passt", NULL });
}

/*
 * Frames that come while the card wants none: passt would drop what its socket
 * doesn't take, so we take a connection's window, though not without end.
 */

#define FLOOD_FRAME  1514u
#define FLOOD_WINDOW 2800u  /* frames, of 4 MB */
#define FLOOD_FRAMES 14000u /* 20 MB */

struct flood {
	struct net_backend *net;
	_Atomic unsigned count;
	unsigned held; /* of them, those that were there when the card wanted frames */
	_Atomic bool wrong;
	unsigned losses;
};

static void flood_frame(unsigned char *frame, unsigned number)
{
	memset(frame, (int)(number % 251), FLOOD_FRAME);
	memcpy(frame, &number, sizeof(number));
}

static void flood_readable(void *opaque)
{
	static unsigned char got[NET_MAX_FRAME], want[FLOOD_FRAME];
	struct flood *flood = opaque;

	for (;;) {
		struct iovec iov = { got, sizeof(got) };
		ssize_t len = flood->net->ops->receive(flood->net, &iov, 1);

		if (len < 0)
			return;
		flood_frame(want, flood->count);
		if (len != NET_HDR_SIZE + FLOOD_FRAME ||
		    memcmp(got + NET_HDR_SIZE, want, FLOOD_FRAME) != 0)
			flood->wrong = true;
		flood->count++;
	}
}

static void flood_writable(void *opaque)
{
	(void)opaque;
}

static void flood_lost(void *opaque)
{
	struct flood *flood = opaque;

	flood->losses++;
	flood->wrong = true;
}

static void flood_want(void *opaque)
{
	struct flood *flood = opaque;

	flood->net->ops->watch(flood->net, true);
	flood_readable(flood);
	flood->held = flood->count;
}

static void flood_not_now(void *opaque)
{
	struct flood *flood = opaque;

	flood->net->ops->watch(flood->net, false);
}

/* @dir/@name: frames @first to @end, each with its length in front. */
static void flood_file(const char *dir, const char *name, unsigned first, unsigned end)
{
	unsigned char frame[FLOOD_FRAME];
	uint32_t prefix = htonl(FLOOD_FRAME);
	char path[64];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	FILE *f = fopen(path, "w");

	for (unsigned i = first; i < end; i++) {
		flood_frame(frame, i);
		cr_assert(fwrite(&prefix, sizeof(prefix), 1, f) == 1 &&
			  fwrite(frame, sizeof(frame), 1, f) == 1);
	}
	cr_assert_eq(fclose(f), 0);
}

static bool exists(const char *dir, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return access(path, F_OK) == 0;
}

static void flood_start(struct flood *flood, struct loop **ret_loop)
{
	struct err err = { "" };

	cr_assert_eq(loop_create(ret_loop, "test", &err), 0);
	cr_assert_eq(net_user_create(&flood->net, *ret_loop, &err), 0, "%s", err.text);
	flood->net->readable = flood_readable;
	flood->net->writable = flood_writable;
	flood->net->lost = flood_lost;
	flood->net->opaque = flood;
	loop_call(*ret_loop, flood_not_now, flood);
}

static void flood_stop(struct flood *flood, struct loop *loop)
{
	flood->net->ops->destroy(flood->net);
	loop_destroy(loop);
}

Test(user, takes_a_window_of_frames_for_a_card_that_wants_none, .timeout = 60)
{
	char dir[] = "/tmp/moat-test-XXXXXX";
	static struct flood flood;
	struct loop *loop;

	fake_passt(dir, "cat greeting >&3\n"
			"until [ -e go ]; do sleep 0.01; done\n"
			"cat window >&3; : > taken\n"
			"cat rest >&3; : > done\n"
			"exec cat <&3 >/dev/null\n");
	/* The answer to the greeting may be any frame. */
	flood_file(dir, "greeting", 0, 1);
	flood_file(dir, "window", 0, FLOOD_WINDOW);
	flood_file(dir, "rest", FLOOD_WINDOW, FLOOD_FRAMES);
	flood_start(&flood, &loop);
	flood_file(dir, "go", 0, 0);
	while (!exists(dir, "taken") && !flood.wrong)
		usleep(10000);
	/* The loop looks at the socket once more at least. */
	for (int i = 0; i < 3; i++)
		loop_call(loop, flood_not_now, &flood);
	usleep(100000);
	cr_expect_not(exists(dir, "done"), "it takes frames without end");
	cr_expect_eq(flood.count, 0, "the card wanted none");
	loop_call(loop, flood_want, &flood);
	cr_expect_geq(flood.held, FLOOD_WINDOW, "%u were taken", flood.held);
	while (flood.count < FLOOD_FRAMES && !flood.wrong)
		usleep(10000);
	cr_expect_not(flood.wrong, "at frame %u", flood.count);
	flood_stop(&flood, loop);
	remove_files(dir, (const char *const[]){ "passt", "greeting", "window", "rest", "go",
						 "taken", "done", NULL });
}

/* A length that no frame has: the stream can't be followed any further. */
Test(user, nonsense_from_passt_is_reported_once, .timeout = 60)
{
	char dir[] = "/tmp/moat-test-XXXXXX";
	static struct flood flood;
	struct loop *loop;

	fake_passt(dir, "cat greeting >&3\n"
			"printf '\\377\\377\\377\\377' >&3\n"
			"exec cat <&3 >/dev/null\n");
	flood_file(dir, "greeting", 0, 1);
	flood_start(&flood, &loop);
	loop_call(loop, flood_want, &flood);
	while (!flood.losses)
		usleep(10000);
	loop_call(loop, flood_want, &flood);
	cr_expect_eq(flood.losses, 1);
	cr_expect_eq(flood.count, 0);
	flood_stop(&flood, loop);
	remove_files(dir, (const char *const[]){ "passt", "greeting", NULL });
}
