#ifndef VMM_CONSOLE_H
#define VMM_CONSOLE_H

/*
 * The person's side of the serial port: `--console stdio|none|file=PATH`.
 *
 * Output goes out as the guest prints it, through a struct chardev. Input is
 * read on an event loop and offered to the port; what the port can't take yet
 * waits here. Ctrl-A is the escape: X quits, C sends a break, A (or Ctrl-A
 * again) is a literal Ctrl-A, H lists them. A terminal on standard input is in
 * raw mode from console_start until console_stop, or until the process ends in
 * whatever way, signals included.
 *
 * Order of use: create, give console_chardev to the port, start, begin, ..., stop,
 * stop the vCPUs, destroy the port, destroy.
 */

#include <stddef.h>
#include <stdint.h>
#include "vmm/base/err.h"
#include "vmm/config.h"
#include "devices/serial/chardev.h"

struct console;
struct loop;

/* What the console does to the machine. All run on the loop's thread. */
struct console_hooks {
	/* Take up to @len bytes typed by the person; returns how many (uart16550_input). */
	size_t (*input)(void *opaque, const uint8_t *bytes, size_t len);
	/* Ctrl-A C: put the line into break state (uart16550_break). */
	void (*brk)(void *opaque);
	/* Ctrl-A X: end moat. Must not call console_stop itself (it waits for the loop). */
	void (*quit)(void *opaque);
};

/*
 * Create the console. @path (borrowed until console_destroy) is the file of
 * CONFIG_CONSOLE_FILE, else ignored: a new one is created, and goes again unless
 * console_begin follows; one that is there keeps its contents until then.
 * Nothing is read and the terminal stays as it is until console_start. Ignores SIGPIPE for the
 * process: a closed standard output must not end the machine. *@ret_console is owned by the caller.
 * Returns 0 or -errno with words in @err that name --console.
 */
int console_create(struct console **ret_console, enum config_console kind, const char *path,
		   struct err *err);

/*
 * The guest is about to run: what an earlier run left in the file goes. Only the
 * first call does something. Main thread.
 */
void console_begin(struct console *console);

/* Stops it when it still runs, then frees. Accepts NULL. Not from the loop. */
void console_destroy(struct console *console);

/*
 * Where the port's output goes; lives as long as the console, NULL for
 * CONFIG_CONSOLE_NONE. Its write waits while the reader of standard output is
 * slow, but no longer than until console_stop or console_hold.
 */
struct chardev *console_chardev(struct console *console);

/*
 * Begin to read input on @loop (borrowed) and put a terminal on standard input
 * into raw mode. @hooks is copied, @opaque goes to each of them. From here
 * fatal signals whose disposition is the default one restore the terminal
 * before they end the process; SIGTERM and SIGINT are the machine's business
 * unless it left them at the default. With `none` and `file` this does nothing.
 * Not from the loop. Returns 0 or -errno with words in @err.
 */
int console_start(struct console *console, struct loop *loop, const struct console_hooks *hooks,
		  void *opaque, struct err *err);

/*
 * There is room for input again: fits uart16550_on_room(uart, console_room,
 * console). Cheap when nothing waits. Any thread, any lock.
 */
void console_room(void *console);

/*
 * Stop reading, restore the terminal, and let a write that waits for standard
 * output give up (later output is still tried, without waiting). No hook runs
 * after it returned. Accepts NULL; harmless when not started. Not from the loop.
 */
void console_stop(struct console *console);

/*
 * While @on, a write that finds no room on standard output gives up instead of
 * waiting for a reader: so that vCPUs can be stopped in bounded time. Main thread.
 */
void console_hold(struct console *console, bool on);

/*
 * Put the terminal back as it was before console_start; does nothing when it is
 * not raw. Async-signal-safe, any thread: for ways out that skip atexit
 * handlers (_exit).
 */
void console_restore_terminal(void);

#endif
