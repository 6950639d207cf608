#include "vmm/console.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>
#include "vmm/base/log.h"
#include "vmm/base/types.h"
#include "vmm/core/loop.h"

/*
 * Bytes in both directions, and the terminal's modes.
 *
 * Input. The loop reads standard input and takes the escapes out; what is left
 * goes through a queue to the port, which takes as much as its FIFO holds and
 * calls console_room when it wants more:
 *
 *	stdin -> read_input -> escapes -> queue -> hooks.input -> port
 *	                                       <- console_room -
 *
 * When the queue is full a pipe or a file is simply not read any further. A
 * terminal is read on and what doesn't fit is dropped: else nobody could leave
 * a guest that has stopped listening with Ctrl-A X. For the same reason an
 * escape acts when it is typed and doesn't wait for its turn in the queue.
 *
 * Regular files and /dev/null can't be watched with epoll; they are always
 * readable, so reading them goes on whenever there is room.
 *
 * Output. The port writes on a vCPU's thread. A reader that pauses (less, a full
 * pipe) holds that vCPU up, as a slow line would, until console_hold raises an
 * eventfd that every waiting writer polls as well.
 */

#define QUEUE_SIZE 65536
#define ESCAPE	   0x01 /* Ctrl-A */

/* poll(2) promises this much room in a pipe, so that a blocking write doesn't block. */
#define WRITE_MAX 512

_Static_assert(WRITE_MAX <= PIPE_BUF, "a write after poll must not block");

struct console {
	struct chardev chardev;
	enum config_console kind;
	int out_fd;	     /* standard output (borrowed) or the file (owned); -1: none */
	int stop_fd;	     /* owned eventfd, readable once stopping */
	const char *created; /* borrowed path of the file when it is new and still unused */
	bool begun;
	atomic_bool out_gone;
	atomic_bool out_warned;

	struct loop *loop; /* borrowed, NULL before console_start */
	struct loop_work room;
	struct console_hooks hooks;
	void *opaque;

	/* The loop's thread only. */
	bool escaped;  /* the last byte was the escape */
	bool terminal; /* standard input is one */
	bool pollable; /* epoll takes standard input */
	bool watched;  /* it is in the loop's set now */
	bool ended;    /* end of file, or it can't be read */
	bool stopped;
	size_t head, used;
	uint8_t queue[QUEUE_SIZE];

	/*
	 * Set by the loop before it offers bytes that may not fit, cleared by
	 * console_room: one of the two sees the other (both are seq_cst), so a
	 * stalled queue is never forgotten.
	 */
	atomic_bool stalled;
};

/*
 * The terminal's modes. A process has one controlling terminal and signal
 * handlers take no argument: this is the state that can't live in a struct of
 * its owner. `raw` is written last when entering and read first when leaving,
 * with release and acquire, so a handler never sees half of `saved`.
 */
static struct {
	atomic_bool raw;
	struct termios saved, modes;
} tty;

/* A process in the background must not touch its terminal: the shell owns it. */
static bool in_foreground(void)
{
	pid_t group = tcgetpgrp(STDIN_FILENO);

	return group < 0 || group == getpgrp();
}

void console_restore_terminal(void)
{
	int saved_errno = errno;

	/* Acquire pairs with the release in tty_enter: `saved` is whole. */
	if (atomic_exchange_explicit(&tty.raw, false, memory_order_acquire)) {
		log_set_crlf(false);
		if (in_foreground())
			tcsetattr(STDIN_FILENO, TCSANOW, &tty.saved);
	}
	errno = saved_errno;
}

/* Restore, then let the signal do what it does by default. Async-signal-safe. */
static void on_fatal_signal(int sig)
{
	console_restore_terminal();
	/* SA_RESETHAND made the disposition the default one; SA_NODEFER doesn't block it. */
	raise(sig);
}

/*
 * Stopped by job control: give the shell its terminal, and take it again when
 * continued. SIGSTOP can't be caught, so raise returns after SIGCONT only.
 */
static void on_stop_signal(int sig)
{
	int saved_errno = errno;
	bool raw = atomic_load_explicit(&tty.raw, memory_order_acquire);

	console_restore_terminal();
	raise(SIGSTOP);
	if (raw && in_foreground()) {
		tcsetattr(STDIN_FILENO, TCSANOW, &tty.modes);
		log_set_crlf(true);
	}
	atomic_store_explicit(&tty.raw, raw, memory_order_release);
	errno = saved_errno;
}

/* Continued, after `kill -STOP` or `bg` and `fg`: shells change the modes in between. */
static void on_continue_signal(int sig)
{
	int saved_errno = errno;

	if (atomic_load_explicit(&tty.raw, memory_order_acquire) && in_foreground()) {
		tcsetattr(STDIN_FILENO, TCSANOW, &tty.modes);
		log_set_crlf(true);
	}
	errno = saved_errno;
}

/* Take over @sig unless somebody has an idea of what to do with it already. */
static void handle_if_default(int sig, void (*handler)(int), int flags)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = flags };
	struct sigaction old;

	sigemptyset(&action.sa_mask);
	if (sigaction(sig, NULL, &old) == 0 && old.sa_handler == SIG_DFL)
		sigaction(sig, &action, NULL);
}

static void handle_signals(void)
{
	static const int fatal[] = { SIGTERM, SIGINT,  SIGHUP,	SIGQUIT, SIGABRT, SIGSEGV,
				     SIGBUS,  SIGILL,  SIGFPE,	SIGTRAP, SIGSYS,  SIGALRM,
				     SIGXCPU, SIGXFSZ, SIGUSR1, SIGUSR2 };

	for (size_t i = 0; i < ARRAY_SIZE(fatal); i++)
		handle_if_default(fatal[i], on_fatal_signal, SA_RESETHAND | SA_NODEFER);
	handle_if_default(SIGTSTP, on_stop_signal, SA_RESTART);
	handle_if_default(SIGCONT, on_continue_signal, SA_RESTART);
}

/* Raw: every key is the guest's, Ctrl-C included, and the guest does the line ends. */
static int tty_enter(struct err *err)
{
	static atomic_bool registered;

	if (tcgetattr(STDIN_FILENO, &tty.saved) < 0)
		return err_set(err, errno, "--console stdio: can't read the terminal's modes: %s",
			       strerror(errno));
	tty.modes = tty.saved;
	cfmakeraw(&tty.modes);
	if (!atomic_exchange(&registered, true))
		atexit(console_restore_terminal);
	handle_signals();
	/* Release pairs with the acquires above. Before the change: a signal in between restores.
	 */
	atomic_store_explicit(&tty.raw, true, memory_order_release);
	if (in_foreground() && tcsetattr(STDIN_FILENO, TCSANOW, &tty.modes) < 0) {
		int code = errno;

		atomic_store_explicit(&tty.raw, false, memory_order_release);
		return err_set(err, code, "--console stdio: can't set the terminal's modes: %s",
			       strerror(code));
	}
	log_set_crlf(true);
	return 0;
}

/* Output. */

/* Wait until the output takes bytes; false when the console stops instead. */
static bool wait_writable(struct console *console)
{
	struct pollfd fds[] = { { .fd = console->out_fd, .events = POLLOUT },
				{ .fd = console->stop_fd, .events = POLLIN } };

	while (poll(fds, ARRAY_SIZE(fds), -1) < 0)
		if (errno != EINTR)
			return false;
	/* When both are ready the output wins: what can be written still is. */
	return fds[0].revents != 0;
}

static void on_write_error(struct console *console, int code)
{
	/* Nobody will read it any more: stop trying. Other errors (no space) may pass. */
	if (code == EPIPE || code == EBADF || code == EIO)
		atomic_store_explicit(&console->out_gone, true, memory_order_relaxed);
	if (!atomic_exchange_explicit(&console->out_warned, true, memory_order_relaxed))
		log_warn("--console: the guest's output is lost: %s", strerror(code));
}

static void console_write(struct chardev *chardev, const uint8_t *bytes, size_t len)
{
	struct console *console = container_of(chardev, struct console, chardev);

	while (len && !atomic_load_explicit(&console->out_gone, memory_order_relaxed)) {
		if (!wait_writable(console))
			return;

		ssize_t n = write(console->out_fd, bytes, MIN(len, (size_t)WRITE_MAX));

		if (n >= 0) {
			bytes += n;
			len -= (size_t)n;
		} else if (errno != EINTR && errno != EAGAIN) {
			on_write_error(console, errno);
			return;
		}
	}
}

/* Input: all on the loop's thread. */

static void update_watch(struct console *console);

/* Offer what waits to the port, in order. */
static void drain(struct console *console)
{
	while (console->used) {
		size_t run = MIN(console->used, QUEUE_SIZE - console->head);

		/* Before offering: room that appears right after must find it set. */
		atomic_store(&console->stalled, true);

		size_t taken =
			console->hooks.input(console->opaque, console->queue + console->head, run);

		console->head = (console->head + taken) % QUEUE_SIZE;
		console->used -= taken;
		if (taken < run)
			return;
	}
	atomic_store(&console->stalled, false);
}

static void enqueue(struct console *console, uint8_t byte)
{
	if (console->used == QUEUE_SIZE)
		return;
	console->queue[(console->head + console->used++) % QUEUE_SIZE] = byte;
}

/* The byte after Ctrl-A. */
static void on_escape(struct console *console, uint8_t byte)
{
	switch (byte) {
	case 'x':
	case 'X':
		console->hooks.quit(console->opaque);
		break;
	case 'c':
	case 'C':
		/* What was typed before it comes first, as far as the guest listens. */
		drain(console);
		console->hooks.brk(console->opaque);
		break;
	case 'a':
	case 'A':
	case ESCAPE:
		enqueue(console, ESCAPE);
		break;
	case 'h':
	case 'H':
	case '?':
		log_warn("Ctrl-A X quits, Ctrl-A C sends a break, Ctrl-A A a Ctrl-A");
		break;
	}
}

static void on_bytes(struct console *console, const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (console->escaped)
			on_escape(console, bytes[i]);
		else if (bytes[i] != ESCAPE)
			enqueue(console, bytes[i]);
		console->escaped = !console->escaped && bytes[i] == ESCAPE;
	}
	drain(console);
}

/* A read is worth it: bytes would find room, or may be dropped. */
static bool wants_input(const struct console *console)
{
	return !console->stopped && !console->ended &&
	       (console->terminal || console->used < QUEUE_SIZE);
}

/* Read once. False when there is nothing more for now, or ever. */
static bool read_input(struct console *console)
{
	uint8_t bytes[4096];
	size_t room = console->terminal ? sizeof(bytes) : QUEUE_SIZE - console->used;
	ssize_t n = read(STDIN_FILENO, bytes, MIN(room, sizeof(bytes)));

	if (n > 0) {
		on_bytes(console, bytes, (size_t)n);
		return true;
	}
	if (n < 0 && errno == EINTR)
		return true;
	if (n < 0 && errno == EAGAIN)
		return false;
	console->ended = true;
	return false;
}

static void on_readable(void *opaque, uint32_t events)
{
	struct console *console = opaque;

	if (wants_input(console))
		read_input(console);
	update_watch(console);
}

/*
 * Watch standard input exactly while a read is wanted. An unwanted descriptor
 * must leave the set: epoll reports a hangup whether one asks or not.
 */
static void update_watch(struct console *console)
{
	bool want = wants_input(console);

	if (!console->pollable) {
		while (wants_input(console) && read_input(console))
			;
	} else if (want && !console->watched) {
		console->watched = loop_add_fd(console->loop, STDIN_FILENO, EPOLLIN, on_readable,
					       console) == 0;
	} else if (!want && console->watched) {
		loop_remove_fd(console->loop, STDIN_FILENO);
		console->watched = false;
	}
}

static void on_room(void *opaque)
{
	struct console *console = opaque;

	if (console->stopped)
		return;
	drain(console);
	update_watch(console);
}

void console_room(void *opaque)
{
	struct console *console = opaque;

	/* Only the first of many bytes that the guest reads has to wake the loop. */
	if (atomic_exchange(&console->stalled, false))
		loop_post(console->loop, &console->room);
}

static void start_input(void *opaque)
{
	struct console *console = opaque;
	int r = loop_add_fd(console->loop, STDIN_FILENO, EPOLLIN, on_readable, console);

	console->watched = console->pollable = r == 0;
	/* EPERM: a regular file or /dev/null. Anything else (closed) reads as ended. */
	update_watch(console);
}

static void stop_input(void *opaque)
{
	struct console *console = opaque;

	console->stopped = true;
	update_watch(console);
}

int console_start(struct console *console, struct loop *loop, const struct console_hooks *hooks,
		  void *opaque, struct err *err)
{
	if (console->kind != CONFIG_CONSOLE_STDIO)
		return 0;
	console->terminal = isatty(STDIN_FILENO);
	if (console->terminal) {
		int r = tty_enter(err);

		if (r < 0)
			return r;
	}
	console->hooks = *hooks;
	console->opaque = opaque;
	console->loop = loop;

	console->room = (struct loop_work){ .fn = on_room, .opaque = console };
	loop_call(loop, start_input, console);
	return 0;
}

void console_hold(struct console *console, bool on)
{
	eventfd_t drained;

	/* Any number of times: the counter of an eventfd only grows. */
	if (on ? eventfd_write(console->stop_fd, 1) < 0
	       : eventfd_read(console->stop_fd, &drained) < 0)
		log_warn("--console: can't stop: %s", strerror(errno));
}

void console_stop(struct console *console)
{
	if (!console)
		return;
	console_hold(console, true);
	if (console->loop)
		loop_call(console->loop, stop_input, console);
	if (console->terminal)
		console_restore_terminal();
}

/* Creation. */

/* What is in it stays until console_begin: the machine may still fail to start. */
static int open_file(struct console *console, const char *path, struct err *err)
{
	/* A FIFO isn't waited for; a write that would block is (wait_writable). */
	const int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	struct stat st;

	console->out_fd = open(path, flags | O_EXCL, 0666);
	if (console->out_fd >= 0)
		console->created = path;
	else if (errno == EEXIST)
		console->out_fd = open(path, flags, 0666);
	if (console->out_fd < 0 && errno == ENXIO)
		return err_set(err, ENXIO,
			       "--console file=%s: nobody reads from it; start its reader first",
			       path);
	if (console->out_fd < 0)
		return err_set(err, errno, "--console file=%s: can't open it: %s", path,
			       strerror(errno));
	/* Kernels and disks are locked too: none of them is taken for a log, nor a log for one. */
	if (fstat(console->out_fd, &st) == 0 && S_ISREG(st.st_mode) &&
	    fcntl(console->out_fd, F_OFD_SETLK, &lock) < 0 && (errno == EAGAIN || errno == EACCES))
		return err_set(err, EBUSY,
			       "--console file=%s: it is in use, by another process or as this "
			       "machine's kernel or initrd; give another file",
			       path);
	return 0;
}

int console_create(struct console **ret_console, enum config_console kind, const char *path,
		   struct err *err)
{
	struct console *console = calloc(1, sizeof(*console));
	int r = 0;

	if (!console)
		return err_set(err, ENOMEM, "--console: no memory");
	console->chardev.write = console_write;
	console->kind = kind;
	console->out_fd = kind == CONFIG_CONSOLE_STDIO ? STDOUT_FILENO : -1;
	console->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (console->stop_fd < 0) {
		r = err_set(err, errno, "--console: no eventfd: %s", strerror(errno));
		free(console);
		return r;
	}
	if (kind == CONFIG_CONSOLE_FILE)
		r = open_file(console, path, err);
	if (r < 0) {
		console_destroy(console);
		return r;
	}
	signal(SIGPIPE, SIG_IGN);
	*ret_console = console;
	return 0;
}

void console_begin(struct console *console)
{
	struct stat st;

	if (console->begun)
		return;
	console->begun = true;
	console->created = NULL;
	if (console->kind == CONFIG_CONSOLE_FILE && fstat(console->out_fd, &st) == 0 &&
	    S_ISREG(st.st_mode) && ftruncate(console->out_fd, 0) < 0)
		log_warn("--console: can't empty the file: %s", strerror(errno));
}

void console_destroy(struct console *console)
{
	if (!console)
		return;
	console_stop(console);
	if (console->created)
		unlink(console->created);
	if (console->kind == CONFIG_CONSOLE_FILE && console->out_fd >= 0)
		close(console->out_fd);
	close(console->stop_fd);
	free(console);
}

struct chardev *console_chardev(struct console *console)
{
	return console->kind == CONFIG_CONSOLE_NONE ? NULL : &console->chardev;
}
