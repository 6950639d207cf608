#ifndef VMM_CORE_LOOP_H
#define VMM_CORE_LOOP_H

/*
 * An event loop on a thread of its own: file descriptors (level-triggered) and
 * calls from other threads. What is bound to a loop runs on its thread only, so
 * it needs no lock against itself.
 */

#include <stdbool.h>
#include <stdint.h>
#include "vmm/base/err.h"
#include "vmm/base/list.h"

struct loop;

/* @events: EPOLLIN, EPOLLOUT, ... as epoll reports them. Runs on the loop's thread. */
typedef void (*loop_fd_fn)(void *opaque, uint32_t events);
typedef void (*loop_call_fn)(void *opaque);

/*
 * Create a loop and start its thread, named @name (at most 15 characters).
 * *@ret_loop is owned by the caller. Returns 0 or -errno with words in @err.
 */
int loop_create(struct loop **ret_loop, const char *name, struct err *err);

/* Stop the thread after its current callback, join it, free. Accepts NULL. Not from the loop. */
void loop_destroy(struct loop *loop);

/* True on the loop's own thread. */
bool loop_is_current(const struct loop *loop);

/*
 * Watch @fd (borrowed) for @events. One watch per fd. Returns 0, -EEXIST or
 * -errno of epoll_ctl. On the loop's thread.
 */
int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn fn, void *opaque);

/* Change the events of a watched fd. 0 or -ENOENT. On the loop's thread. */
int loop_set_events(struct loop *loop, int fd, uint32_t events);

/* Stop watching; harmless when it isn't watched. No callback for @fd follows. On the loop's thread.
 */
void loop_remove_fd(struct loop *loop, int fd);

/*
 * A call that a loop is to make. Embedded in whatever it is about, so that posting
 * it can't fail; the owner sets @fn and @opaque and zeroes the rest.
 */
struct loop_work {
	loop_call_fn fn;
	void *opaque;
	/* The loop's, under its mutex. */
	struct list link;
	bool queued;
};

/*
 * Have @work done on the loop's thread, once, soon, in order of the calls; one that
 * waits for its turn already keeps it. @work must stay until then, or until the
 * loop is destroyed; it may be posted again from @fn. Any thread.
 */
void loop_post(struct loop *loop, struct loop_work *work);

/*
 * Run @fn(@opaque) on the loop's thread in the same order, and return when it ran;
 * on the loop's own thread it runs at once. Never call it while holding a lock that
 * @fn takes.
 */
void loop_call(struct loop *loop, loop_call_fn fn, void *opaque);

#endif
