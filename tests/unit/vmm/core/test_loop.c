/* The loop: order, no stale callback, and an end that neither hangs nor leaks. */
#include "vmm/base/types.h"
#include "vmm/core/loop.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static struct loop *make(void)
{
	struct loop *loop = NULL;
	struct err err = { "" };

	cr_assert_eq(loop_create(&loop, "test", &err), 0, "%s", err.text);
	return loop;
}

static void ring(int fd)
{
	uint64_t one = 1;

	cr_assert_eq(write(fd, &one, sizeof(one)), 8);
}

static int make_eventfd(unsigned value)
{
	int fd = eventfd(value, EFD_NONBLOCK | EFD_CLOEXEC);

	cr_assert_geq(fd, 0);
	return fd;
}

struct trace {
	struct loop *loop;
	unsigned n;
	unsigned seen[1000];
	unsigned outside; /* callbacks that weren't on the loop's thread */
};

struct step {
	struct loop_work work;
	struct trace *trace;
	unsigned number;
};

static void on_step(void *opaque)
{
	struct step *s = opaque;

	s->trace->seen[s->trace->n++] = s->number;
	s->trace->outside += !loop_is_current(s->trace->loop);
}

Test(loop, posts_run_in_order_and_before_a_later_call, .timeout = 60)
{
	static struct step steps[1000];
	static struct trace t;

	t.loop = make();
	for (unsigned i = 0; i < 999; i++) {
		steps[i] = (struct step){ { .fn = on_step, .opaque = &steps[i] }, &t, i };
		loop_post(t.loop, &steps[i].work);
	}
	steps[999] = (struct step){ .trace = &t, .number = 999 };
	loop_call(t.loop, on_step, &steps[999]);
	/* loop_call has returned: everything before it is visible without a lock. */
	cr_assert_eq(t.n, 1000);
	for (unsigned i = 0; i < 1000; i++)
		cr_assert_eq(t.seen[i], i);
	cr_expect_eq(t.outside, 0);
	cr_expect_not(loop_is_current(t.loop));
	loop_destroy(t.loop);
}

struct nested {
	struct loop *loop;
	bool inner_first;
	bool inner;
};

static void on_inner(void *opaque)
{
	((struct nested *)opaque)->inner = true;
}

static void on_outer(void *opaque)
{
	struct nested *n = opaque;

	loop_call(n->loop, on_inner, n);
	n->inner_first = n->inner;
}

Test(loop, call_on_the_own_thread_runs_at_once, .timeout = 60)
{
	struct nested n = { .loop = make() };

	loop_call(n.loop, on_outer, &n);
	cr_expect(n.inner_first);
	loop_destroy(n.loop);
}

static void add_one(void *opaque)
{
	(*(unsigned *)opaque)++;
}

struct caller {
	struct loop *loop;
	unsigned *counter;
};

static void *calls(void *opaque)
{
	struct caller *c = opaque;

	for (unsigned i = 0; i < 2000; i++)
		loop_call(c->loop, add_one, c->counter);
	return NULL;
}

Test(loop, calls_from_many_threads_all_return_and_never_overlap, .timeout = 60)
{
	unsigned counter = 0;
	struct caller c = { .loop = make(), .counter = &counter };
	pthread_t thread[4];

	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, calls, &c), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	/* Not atomic: only right when one thread did all of it. */
	cr_expect_eq(counter, 8000);
	loop_destroy(c.loop);
}

/*
 * Two descriptors are ready in one batch; whichever callback is first removes
 * the other's watch, or replaces it by another file with the same number.
 */
struct pair {
	struct loop *loop;
	int fd[2];
	bool replace;
	unsigned fired, stale;
};

static void on_replaced(void *opaque, uint32_t events)
{
	((struct pair *)opaque)->stale++;
}

static void on_either(struct pair *p, unsigned me)
{
	int other = p->fd[!me];

	p->fired++;
	loop_remove_fd(p->loop, p->fd[me]);
	loop_remove_fd(p->loop, other);
	if (p->replace) {
		int fresh = make_eventfd(0);

		/* As close and open would, but sure to reuse the number. */
		cr_assert_eq(dup2(fresh, other), other);
		close(fresh);
		cr_assert_eq(loop_add_fd(p->loop, other, EPOLLIN, on_replaced, p), 0);
	}
}

static void on_first(void *opaque, uint32_t events)
{
	on_either(opaque, 0);
}

static void on_second(void *opaque, uint32_t events)
{
	on_either(opaque, 1);
}

static void watch_pair(void *opaque)
{
	struct pair *p = opaque;

	/* Both are ready already and we are on the loop: the next epoll_wait has both. */
	cr_assert_eq(loop_add_fd(p->loop, p->fd[0], EPOLLIN, on_first, p), 0);
	cr_assert_eq(loop_add_fd(p->loop, p->fd[1], EPOLLIN, on_second, p), 0);
}

static void nothing(void *opaque)
{
}

static void run_pair(bool replace)
{
	struct pair p = { .loop = make(), .replace = replace };

	for (unsigned i = 0; i < 2; i++)
		p.fd[i] = make_eventfd(1);
	loop_call(p.loop, watch_pair, &p);
	usleep(20000);
	loop_call(p.loop, nothing, NULL);
	cr_expect_eq(p.fired, 1);
	cr_expect_eq(p.stale, 0);
	loop_destroy(p.loop);
	close(p.fd[0]);
	close(p.fd[1]);
}

Test(loop, no_callback_after_remove_in_the_same_batch, .timeout = 60)
{
	run_pair(false);
}

Test(loop, an_old_event_doesnt_reach_a_new_watch_of_the_same_number, .timeout = 60)
{
	run_pair(true);
}

struct rules {
	struct loop *loop;
	int fd;
	_Atomic unsigned in, out;
};

static void on_rules(void *opaque, uint32_t events)
{
	struct rules *r = opaque;

	if (events & EPOLLOUT) {
		r->out++;
		cr_expect_eq(loop_set_events(r->loop, r->fd, EPOLLIN), 0);
	}
	if (events & EPOLLIN) {
		uint64_t count;

		r->in++;
		cr_expect_eq(read(r->fd, &count, sizeof(count)), 8);
	}
}

static void check_rules(void *opaque)
{
	struct rules *r = opaque;

	cr_expect_eq(loop_set_events(r->loop, r->fd, EPOLLIN), -ENOENT);
	cr_expect_eq(loop_set_events(r->loop, 100000, EPOLLIN), -ENOENT);
	cr_expect_eq(loop_set_events(r->loop, -1, EPOLLIN), -ENOENT);
	loop_remove_fd(r->loop, r->fd);
	loop_remove_fd(r->loop, 100000);
	loop_remove_fd(r->loop, -1);
	cr_expect_eq(loop_add_fd(r->loop, -1, EPOLLIN, on_rules, r), -EBADF);
	cr_expect_eq(loop_add_fd(r->loop, r->fd, EPOLLOUT, on_rules, r), 0);
	cr_expect_eq(loop_add_fd(r->loop, r->fd, EPOLLOUT, on_rules, r), -EEXIST);
}

Test(loop, one_watch_per_fd_whose_events_can_change, .timeout = 60)
{
	struct rules r = { .loop = make(), .fd = make_eventfd(0) };

	loop_call(r.loop, check_rules, &r);
	while (!r.out)
		usleep(1000);
	cr_expect_eq(r.in, 0);
	ring(r.fd);
	while (!r.in)
		usleep(1000);
	cr_expect_eq(r.out, 1, "EPOLLOUT was switched off, yet the fd stayed writable");
	loop_destroy(r.loop);
	close(r.fd);
}

/* A call that waits for its turn isn't queued again; one that had it is. */
struct posted_often {
	struct loop *loop;
	struct loop_work work;
	unsigned runs;
};

static void count_run(void *opaque)
{
	((struct posted_often *)opaque)->runs++;
}

static void post_often(void *opaque)
{
	struct posted_often *p = opaque;

	for (int i = 0; i < 5; i++)
		loop_post(p->loop, &p->work);
}

Test(loop, a_post_that_waits_is_one_call, .timeout = 60)
{
	struct posted_often p = { .loop = make(), .work = { .fn = count_run, .opaque = &p } };

	for (unsigned round = 1; round <= 3; round++) {
		loop_call(p.loop, post_often, &p);
		loop_call(p.loop, nothing, NULL);
		cr_assert_eq(p.runs, round);
	}
	loop_destroy(p.loop);
}

struct busy {
	struct loop_work work;
	struct loop *loop;
	int fd;
	_Atomic bool served;
};

static void repost(void *opaque)
{
	struct busy *b = opaque;

	if (!b->served)
		loop_post(b->loop, &b->work);
}

static void on_served(void *opaque, uint32_t events)
{
	struct busy *b = opaque;

	b->served = true;
	loop_remove_fd(b->loop, b->fd);
}

static void watch_busy(void *opaque)
{
	struct busy *b = opaque;

	loop_add_fd(b->loop, b->fd, EPOLLIN, on_served, b);
}

Test(loop, a_call_that_posts_itself_starves_no_descriptor, .timeout = 60)
{
	struct busy b = { { .fn = repost, .opaque = &b }, .loop = make(), .fd = make_eventfd(0) };

	loop_call(b.loop, watch_busy, &b);
	loop_post(b.loop, &b.work);
	ring(b.fd);
	while (!b.served)
		usleep(1000);
	loop_destroy(b.loop);
	close(b.fd);
}

static void spin_forever(void *opaque)
{
	struct busy *b = opaque;

	loop_post(b->loop, &b->work);
}

Test(loop, destroy_ends_a_busy_loop, .timeout = 60)
{
	static struct busy b[100];
	struct loop *loop = make();

	for (unsigned i = 0; i < ARRAY_SIZE(b); i++) {
		b[i] = (struct busy){ { .fn = spin_forever, .opaque = &b[i] }, .loop = loop };
		loop_post(loop, &b[i].work);
	}
	loop_destroy(loop);
	loop_destroy(NULL);
}

static void get_mask(void *opaque)
{
	pthread_sigmask(SIG_SETMASK, NULL, opaque);
}

static void get_name(void *opaque)
{
	pthread_getname_np(pthread_self(), opaque, 16);
}

Test(loop, the_thread_has_its_name_and_takes_no_signals, .timeout = 60)
{
	struct loop *loop = make();
	char name[16] = "";
	sigset_t theirs, ours;

	loop_call(loop, get_mask, &theirs);
	loop_call(loop, get_name, name);
	pthread_sigmask(SIG_SETMASK, NULL, &ours);
	cr_expect(sigismember(&theirs, SIGTERM) && sigismember(&theirs, SIGINT));
	cr_expect_not(sigismember(&ours, SIGTERM), "the creator's mask is as it was");
	cr_expect_str_eq(name, "test");
	loop_destroy(loop);
}
