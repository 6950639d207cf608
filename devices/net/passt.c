/*
 * Starting and ending passt.
 *
 * It gets one end of a socket pair (--fd), which is also what ties its life to
 * ours: passt ends when the socket closes, however moat ended. A parent-death
 * signal wouldn't do, for the kernel forgets it when passt drops its privileges.
 *
 * "-i lo -M ..." says where addresses come from and which station the gateway
 * is; without them passt asks the host's default route and refuses to start on
 * a host that has none. Connections to the outside go by the host's routes all
 * the same. Packets to the gateway reach the host's loopback: passt's default
 * (--map-gw, since 2024 --map-host-loopback).
 *
 * Questions to the resolver go on to the host's first one. passt looks for that
 * in /etc/resolv.conf, but (Debian 12's) only when --dns doesn't say which address
 * DHCP names. So DHCP would name the host's own resolver, which may be an address
 * that means something else in a guest (127.0.0.53): passt_fix_dhcp corrects it.
 *
 * The MTU is an ordinary network's, not passt's default of 65520: a frame then
 * fits into one buffer of the socket, which passt reads whole. It tries only once
 * to complete a longer one that arrives in pieces, then loses its place in the
 * stream, and resets the connections that it no longer understands.
 */
#include "devices/net/passt.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "vmm/base/types.h"

/* Where the child puts what it inherits. */
enum { CHILD_SOCK = 3, CHILD_STATUS = 4, CHILD_FDS };

#define END_TIMEOUT_MS 1000

/*
 * Bytes of frames that may wait for passt, which is what it takes from the
 * socket at once. The passt of Debian 12 (2023-03) resets TCP connections when a
 * long run of segments doesn't fit into the receiver's socket, so keep runs short.
 */
#define SEND_BUFFER 4096

/*
 * Bytes of frames that may wait for us: what passt can't send at once it drops (see
 * user.c). The host allows less (net.core.wmem_max) but for the privileged.
 */
#define RECEIVE_BUFFER MIB(4)

/* Best effort. */
static void set_buffer(int sock, int bytes)
{
	if (setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
		setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

/* Both ends of everything that the child needs. */
struct plumbing {
	int sock[2], words[2], status[2];
};

static void close_all(int *fds, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/*
 * Put @fd at @to, surviving exec or not. The descriptors may lie in the range
 * that we fill, so child() moves them above it first.
 */
static bool place(int fd, int to, bool keep)
{
	return dup3(fd, to, keep ? 0 : O_CLOEXEC) == to;
}

/* In the child, of a process with threads: async-signal-safe functions only. */
static void __attribute__((noreturn)) child(const struct plumbing *pipes)
{
	static char *const argv[] = {
		"passt",     "--foreground", "--quiet",	      "--ipv4-only", "--fd",
		"3",	     "--address",    PASST_GUEST,     "--netmask",   PASST_PREFIX,
		"--gateway", PASST_GATEWAY,  "--dns-forward", PASST_DNS,     "--interface",
		"lo",	     "--mac-addr",   PASST_MAC,	      "--mtu",	     PASST_MTU,
		NULL,
	};
	int sock = fcntl(pipes->sock[1], F_DUPFD, CHILD_FDS);
	int words = fcntl(pipes->words[1], F_DUPFD, CHILD_FDS);
	int status = fcntl(pipes->status[1], F_DUPFD, CHILD_FDS);
	int null = fcntl(open("/dev/null", O_RDWR), F_DUPFD, CHILD_FDS);
	sigset_t none;
	int code;

	/* Ctrl-C at the terminal is for moat, which then hangs up in its own time. */
	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (place(status, CHILD_STATUS, false) && place(sock, CHILD_SOCK, true) &&
	    place(null, 0, true) && place(null, 1, true) && place(words, 2, true)) {
		close_range(CHILD_FDS, ~0U, 0);
		execvp(argv[0], argv);
		status = CHILD_STATUS;
	}
	code = errno;
	/* A parent that is gone needs no answer. */
	if (write(status, &code, sizeof(code)) < 0)
		_exit(126);
	_exit(127);
}

/* The child's answer: 0 when it became passt (its end closed by exec), else -errno. */
static int exec_result(int fd)
{
	int code = 0;
	ssize_t n;

	do
		n = read(fd, &code, sizeof(code));
	while (n < 0 && errno == EINTR);
	return n == sizeof(code) ? -code : 0;
}

static int explain_start(struct err *err, int code)
{
	if (code == ENOENT)
		return err_set(err, code,
			       "--net user needs passt: apt install passt (or use tap=...)");
	return err_set(err, code, "--net user: can't start passt: %s", strerror(code));
}

int passt_start(struct passt *ret, struct err *err)
{
	struct plumbing pipes = { { -1, -1 }, { -1, -1 }, { -1, -1 } };
	pid_t pid = -1;
	int code = 0;

	/*
	 * Standard error doesn't block: if we don't listen, passt's words are
	 * lost, and the guest can make passt neither hang nor fill memory.
	 */
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pipes.sock) < 0 ||
	    pipe2(pipes.words, O_CLOEXEC | O_NONBLOCK) < 0 || pipe2(pipes.status, O_CLOEXEC) < 0) {
		code = errno;
		goto fail;
	}
	set_buffer(pipes.sock[0], SEND_BUFFER);
	set_buffer(pipes.sock[1], RECEIVE_BUFFER);
	pid = fork();
	if (pid == 0)
		child(&pipes);
	if (pid < 0) {
		code = errno;
		goto fail;
	}
	close(pipes.status[1]);
	pipes.status[1] = -1;
	code = -exec_result(pipes.status[0]);
	if (code) {
		waitpid(pid, NULL, 0);
		goto fail;
	}
	close(pipes.status[0]);
	close(pipes.sock[1]);
	close(pipes.words[1]);
	*ret = (struct passt){ .sock = pipes.sock[0], .words = pipes.words[0], .pid = pid };
	return 0;

fail:
	close_all(pipes.sock, 2);
	close_all(pipes.words, 2);
	close_all(pipes.status, 2);
	return explain_start(err, code);
}

void passt_stop(struct passt *passt)
{
	int pidfd = pidfd_open(passt->pid, 0);
	struct pollfd ended = { .fd = pidfd, .events = POLLIN };

	close(passt->sock);
	if (pidfd < 0 || poll(&ended, 1, END_TIMEOUT_MS) != 1)
		kill(passt->pid, SIGKILL);
	if (pidfd >= 0)
		close(pidfd);
	while (waitpid(passt->pid, NULL, 0) < 0 && errno == EINTR)
		;
	close(passt->words);
}

/* Ethernet, IPv4 without options, UDP, BOOTP up to its options (RFC 2131, 2). */
enum {
	FRAME_TYPE = 12,
	IP_START = 14,
	IP_PROTOCOL = 23,
	UDP_START = 34,
	UDP_CHECKSUM = 40,
	BOOTP_START = 42,
	BOOTP_COOKIE = BOOTP_START + 236,
	BOOTP_OPTIONS = BOOTP_COOKIE + 4,
};

static bool is_dhcp_reply(const unsigned char *frame, size_t len)
{
	static const unsigned char ipv4[] = { 0x08, 0x00, 0x45 };
	static const unsigned char ports[] = { 0, 67, 0, 68 };
	static const unsigned char cookie[] = { 99, 130, 83, 99 };

	return len > BOOTP_OPTIONS && !memcmp(frame + FRAME_TYPE, ipv4, sizeof(ipv4)) &&
	       frame[IP_PROTOCOL] == IPPROTO_UDP &&
	       !memcmp(frame + UDP_START, ports, sizeof(ports)) &&
	       !memcmp(frame + BOOTP_COOKIE, cookie, sizeof(cookie));
}

void passt_fix_dhcp(unsigned char *frame, size_t len)
{
	enum { PAD = 0, RESOLVERS = 6, END = 255 };
	struct in_addr dns;
	size_t at = BOOTP_OPTIONS;

	if (!is_dhcp_reply(frame, len))
		return;
	inet_pton(AF_INET, PASST_DNS, &dns);
	while (at + 2 <= len && frame[at] != END) {
		size_t body = at + 2, n = frame[at + 1];

		if (frame[at] == PAD) {
			at++;
			continue;
		}
		if (n > len - body)
			return;
		for (size_t i = 0; frame[at] == RESOLVERS && i + sizeof(dns) <= n; i += sizeof(dns))
			memcpy(frame + body + i, &dns, sizeof(dns));
		at = body + n;
	}
	/* Zero says that there is none (RFC 768). */
	memset(frame + UDP_CHECKSUM, 0, 2);
}

void passt_last_words(struct passt *passt, char *buf, unsigned size)
{
	char text[4096];
	char *line, *save = NULL;
	ssize_t n = read(passt->words, text, sizeof(text) - 1);

	*buf = '\0';
	if (n <= 0)
		return;
	text[n] = '\0';
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		/* It says these two to anyone who is root or has no system logger: no news. */
		if (!strncmp(line, "Failed to send ", 15) ||
		    !strncmp(line, "Don't run as root", 17))
			continue;
		size_t len = strnlen(line, size - 1);

		memcpy(buf, line, len);
		buf[len] = '\0';
	}
}
