/*
 * An epoll set and a queue of calls, served by one thread.
 *
 * epoll_wait returns a batch of events, and the callback of one may remove,
 * close or even replace the file descriptor of a later one in the same batch.
 * So an event carries not a pointer but a ticket: the fd, which indexes the
 * table of watches, and the generation that loop_add_fd gave to this watch. An
 * event whose generation isn't the table's any more is dropped.
 *
 * Other threads queue calls under the mutex and write the eventfd, which is a
 * watch like any other. A batch of calls ends where the queue ended when it
 * began, so that calls which post calls can't starve the descriptors.
 */
#include "vmm/core/loop.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "vmm/base/types.h"

#define LOOP_BATCH 32 /* events per epoll_wait */

struct watch {
	loop_fd_fn fn; /* NULL: the fd isn't watched */
	void *opaque;
	uint32_t generation;
};

struct loop {
	pthread_t thread;
	int epoll_fd; /* owns */
	int wake_fd;  /* owns; eventfd: the queue has calls, or stop is set */
	_Atomic bool stop;
	/* The loop's thread only: */
	struct watch *watches; /* owns; indexed by fd */
	size_t num_watches;
	uint32_t generation; /* of the newest watch */
	/* Any thread, under the mutex: */
	pthread_mutex_t mutex;
	pthread_cond_t done; /* some call that is waited for was done */
	struct list works;   /* struct loop_work.link */
};

static void loop_wake(struct loop *loop)
{
	uint64_t one = 1;

	/* It can only fail because the counter is full, and then the loop wakes anyway. */
	if (write(loop->wake_fd, &one, sizeof(one)) < 0)
		return;
}

/* Take the first work off the queue; NULL when it is empty. */
static struct loop_work *loop_pop(struct loop *loop)
{
	struct loop_work *work = NULL;

	pthread_mutex_lock(&loop->mutex);
	if (!list_empty(&loop->works)) {
		work = container_of(loop->works.next, struct loop_work, link);
		list_del(&work->link);
		work->queued = false;
	}
	pthread_mutex_unlock(&loop->mutex);
	return work;
}

/* The watch of the eventfd: do the works that are queued now. */
static void loop_run_works(void *opaque, uint32_t events)
{
	struct loop *loop = opaque;
	const struct list *last;
	uint64_t count;

	/* Empty the eventfd before looking at the queue, so that no later post goes unseen. */
	if (read(loop->wake_fd, &count, sizeof(count)) < 0)
		return;
	pthread_mutex_lock(&loop->mutex);
	last = loop->works.prev;
	pthread_mutex_unlock(&loop->mutex);

	bool was_last = last == &loop->works; /* The head: nothing is queued. */

	while (!was_last && !atomic_load_explicit(&loop->stop, memory_order_relaxed)) {
		struct loop_work *work = loop_pop(loop);

		if (!work)
			break;
		was_last = &work->link == last;
		/* It may free the work, or post it again. */
		work->fn(work->opaque);
	}
}

static void loop_dispatch(struct loop *loop, const struct epoll_event *event)
{
	size_t fd = (uint32_t)event->data.u64;
	uint32_t generation = (uint32_t)(event->data.u64 >> 32);

	if (fd >= loop->num_watches)
		return;
	/* A copy: the callback may add a watch, and so move the table. */
	struct watch watch = loop->watches[fd];

	if (watch.fn && watch.generation == generation)
		watch.fn(watch.opaque, event->events);
}

static void *loop_main(void *opaque)
{
	struct loop *loop = opaque;
	struct epoll_event events[LOOP_BATCH];

	while (!atomic_load_explicit(&loop->stop, memory_order_relaxed)) {
		int n = epoll_wait(loop->epoll_fd, events, LOOP_BATCH, -1);

		assert(n >= 0 || errno == EINTR);
		for (int i = 0; i < n; i++) {
			if (atomic_load_explicit(&loop->stop, memory_order_relaxed))
				break;
			loop_dispatch(loop, &events[i]);
		}
	}
	return NULL;
}

static int loop_reserve(struct loop *loop, size_t count)
{
	if (count <= loop->num_watches)
		return 0;
	count = MAX(count, loop->num_watches * 2);

	struct watch *watches = reallocarray(loop->watches, count, sizeof(*watches));

	if (!watches)
		return -ENOMEM;
	memset(&watches[loop->num_watches], 0, (count - loop->num_watches) * sizeof(*watches));
	loop->watches = watches;
	loop->num_watches = count;
	return 0;
}

static struct epoll_event loop_event(const struct loop *loop, int fd, uint32_t events)
{
	uint64_t generation = loop->watches[fd].generation;

	return (struct epoll_event){ .events = events,
				     .data.u64 = generation << 32 | (uint32_t)fd };
}

static int loop_watch(struct loop *loop, int fd, uint32_t events, loop_fd_fn fn, void *opaque)
{
	if (fd < 0)
		return -EBADF;
	int rc = loop_reserve(loop, (size_t)fd + 1);

	if (rc < 0)
		return rc;
	if (loop->watches[fd].fn)
		return -EEXIST;
	loop->watches[fd].generation = ++loop->generation;

	struct epoll_event event = loop_event(loop, fd, events);

	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return -errno;
	loop->watches[fd].fn = fn;
	loop->watches[fd].opaque = opaque;
	return 0;
}

int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn fn, void *opaque)
{
	assert(loop_is_current(loop));
	return loop_watch(loop, fd, events, fn, opaque);
}

/* True when @fd is watched by this loop. */
static bool loop_watches(const struct loop *loop, int fd)
{
	return fd >= 0 && (size_t)fd < loop->num_watches && loop->watches[fd].fn;
}

int loop_set_events(struct loop *loop, int fd, uint32_t events)
{
	assert(loop_is_current(loop));
	if (!loop_watches(loop, fd))
		return -ENOENT;
	struct epoll_event event = loop_event(loop, fd, events);

	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, fd, &event) < 0 ? -errno : 0;
}

void loop_remove_fd(struct loop *loop, int fd)
{
	assert(loop_is_current(loop));
	if (!loop_watches(loop, fd))
		return;
	/* Who closed the fd first took it out of the epoll set by that; the failure is harmless. */
	(void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	loop->watches[fd].fn = NULL;
}

bool loop_is_current(const struct loop *loop)
{
	return pthread_equal(loop->thread, pthread_self());
}

void loop_post(struct loop *loop, struct loop_work *work)
{
	pthread_mutex_lock(&loop->mutex);

	bool fresh = !work->queued;

	if (fresh) {
		work->queued = true;
		list_add_tail(&loop->works, &work->link);
	}
	pthread_mutex_unlock(&loop->mutex);
	if (fresh)
		loop_wake(loop);
}

/* A call that somebody waits for. */
struct waited {
	struct loop_work work;
	struct loop *loop;
	loop_call_fn fn;
	void *opaque;
	bool done; /* under the loop's mutex */
};

static void run_waited(void *opaque)
{
	struct waited *call = opaque;
	struct loop *loop = call->loop;

	call->fn(call->opaque);
	/* The waiter's stack frame, and @call with it, may be gone after the unlock. */
	pthread_mutex_lock(&loop->mutex);
	call->done = true;
	pthread_cond_broadcast(&loop->done);
	pthread_mutex_unlock(&loop->mutex);
}

void loop_call(struct loop *loop, loop_call_fn fn, void *opaque)
{
	struct waited call = { .loop = loop, .fn = fn, .opaque = opaque };

	if (loop_is_current(loop)) {
		fn(opaque);
		return;
	}
	call.work = (struct loop_work){ .fn = run_waited, .opaque = &call };
	loop_post(loop, &call.work);
	pthread_mutex_lock(&loop->mutex);
	while (!call.done)
		pthread_cond_wait(&loop->done, &loop->mutex);
	pthread_mutex_unlock(&loop->mutex);
}

/* Start the thread with every signal blocked: they are for the main thread alone. */
static int loop_start(struct loop *loop, const char *name)
{
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	int rc = pthread_create(&loop->thread, NULL, loop_main, loop);

	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc == 0)
		(void)pthread_setname_np(loop->thread, name);
	return rc;
}

/* Free a loop whose thread doesn't run. */
static void loop_free(struct loop *loop)
{
	struct loop_work *work;

	/* A waiter would wait for ever: nobody may call a loop that is being destroyed. */
	while ((work = loop_pop(loop)))
		assert(work->fn != run_waited);
	if (loop->wake_fd >= 0)
		close(loop->wake_fd);
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	pthread_cond_destroy(&loop->done);
	pthread_mutex_destroy(&loop->mutex);
	free(loop->watches);
	free(loop);
}

int loop_create(struct loop **ret_loop, const char *name, struct err *err)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	int rc;

	if (!loop)
		return err_set(err, ENOMEM, "event loop %s: out of host memory", name);
	pthread_mutex_init(&loop->mutex, NULL);
	pthread_cond_init(&loop->done, NULL);
	list_init(&loop->works);
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->epoll_fd < 0 || loop->wake_fd < 0) {
		rc = err_set(err, errno, "event loop %s: %m", name);
		goto fail;
	}
	rc = loop_watch(loop, loop->wake_fd, EPOLLIN, loop_run_works, loop);
	if (rc < 0) {
		err_set(err, -rc, "event loop %s: %s", name, strerror(-rc));
		goto fail;
	}
	rc = -loop_start(loop, name);
	if (rc < 0) {
		err_set(err, -rc, "event loop %s: can't start its thread: %s", name, strerror(-rc));
		goto fail;
	}
	*ret_loop = loop;
	return 0;
fail:
	loop_free(loop);
	return rc;
}

void loop_destroy(struct loop *loop)
{
	if (!loop)
		return;
	assert(!loop_is_current(loop));
	atomic_store_explicit(&loop->stop, true, memory_order_relaxed);
	loop_wake(loop);
	pthread_join(loop->thread, NULL);
	loop_free(loop);
}
