/*
 * A PL031 (Arm DDI 0224C). Its counter is the host's clock plus an offset that
 * the guest chooses by loading a time, modulo 2^32 seconds. The alarm is a timer
 * of the host on the same clock, so it follows when that is set, and fires when
 * a step jumps over it.
 */
#include "devices/rtc/pl031.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include "devices/primecell/primecell.h"
#include "vmm/base/types.h"

/* Registers (3.3). */
#define REG_DR	 0x00
#define REG_MR	 0x04
#define REG_LR	 0x08
#define REG_CR	 0x0c
#define REG_IMSC 0x10
#define REG_RIS	 0x14
#define REG_MIS	 0x18
#define REG_ICR	 0x1c

#define CR_RUNNING 1
#define INT_ALARM  1

#define PL031_ID 0x00041031

struct pl031 {
	struct primecell cell; /* its lock protects what follows the timer */
	struct loop *loop;     /* borrows */
	int timer;	       /* owns; a timerfd on CLOCK_REALTIME */
	uint32_t offset;       /* counter minus the host's clock */
	uint32_t match, load;
	bool enabled, raised; /* IMSC and RIS, of one bit each */
};

static int64_t host_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec;
}

static uint32_t counter(const struct pl031 *rtc)
{
	return (uint32_t)host_seconds() + rtc->offset;
}

/* Wait for the host's second, @now or later, in which the counter is equal to the match register.
 */
static void arm(struct pl031 *rtc, int64_t now)
{
	uint32_t ahead = rtc->match - ((uint32_t)now + rtc->offset);
	struct itimerspec when = { .it_value.tv_sec = now + ahead };

	timerfd_settime(rtc->timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void disarm(struct pl031 *rtc)
{
	struct itimerspec never = { 0 };

	timerfd_settime(rtc->timer, 0, &never, NULL);
}

static void on_timer(void *opaque, uint32_t events)
{
	struct pl031 *rtc = opaque;
	uint64_t expirations;

	/* Under the lock, so that a timer that was set again meanwhile reads as not expired. */
	primecell_lock(&rtc->cell);
	if (read(rtc->timer, &expirations, sizeof(expirations)) == sizeof(expirations))
		rtc->raised = true;
	primecell_unlock(&rtc->cell);
}

static uint32_t pl031_read(struct primecell *cell, unsigned reg)
{
	const struct pl031 *rtc = container_of(cell, struct pl031, cell);

	switch (reg) {
	case REG_DR:
		return counter(rtc);
	case REG_MR:
		return rtc->match;
	case REG_LR:
		return rtc->load;
	case REG_CR:
		return CR_RUNNING;
	case REG_IMSC:
		return rtc->enabled;
	case REG_RIS:
		return rtc->raised;
	case REG_MIS:
		return rtc->raised && rtc->enabled;
	default:
		return 0;
	}
}

static void pl031_write(struct primecell *cell, unsigned reg, uint32_t value)
{
	struct pl031 *rtc = container_of(cell, struct pl031, cell);
	int64_t now = host_seconds();

	switch (reg) {
	case REG_MR:
		rtc->match = value;
		arm(rtc, now);
		break;
	case REG_LR:
		rtc->load = value;
		rtc->offset = value - (uint32_t)now;
		arm(rtc, now);
		break;
	case REG_IMSC:
		rtc->enabled = value & INT_ALARM;
		break;
	case REG_ICR:
		if (value & INT_ALARM)
			rtc->raised = false;
		break;
	default: /* CR: it runs already, and can't be stopped (3.3.4). */
		break;
	}
}

static bool pl031_interrupt(const struct primecell *cell)
{
	const struct pl031 *rtc = container_of(cell, struct pl031, cell);

	return rtc->raised && rtc->enabled;
}

static const struct primecell_ops pl031_ops = {
	.name = "PL031",
	.id = PL031_ID,
	.read = pl031_read,
	.write = pl031_write,
	.interrupt = pl031_interrupt,
};

/* Watching and not watching the timer, on the loop's thread. */
struct watch {
	struct pl031 *rtc;
	int result;
};

static void watch(void *opaque)
{
	struct watch *w = opaque;

	w->result = loop_add_fd(w->rtc->loop, w->rtc->timer, EPOLLIN, on_timer, w->rtc);
}

static void unwatch(void *opaque)
{
	struct pl031 *rtc = opaque;

	loop_remove_fd(rtc->loop, rtc->timer);
}

int pl031_create(struct pl031 **ret_rtc, struct bus *bus, uint64_t base, struct irq_line *irq,
		 struct loop *loop, struct err *err)
{
	struct pl031 *rtc = calloc(1, sizeof(*rtc));
	int rc;

	if (!rtc)
		return err_set(err, ENOMEM, "PL031: out of host memory");
	rtc->loop = loop;
	rtc->timer = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (rtc->timer < 0) {
		rc = err_set(err, errno, "PL031: timerfd: %s", strerror(errno));
		goto free_rtc;
	}
	rc = primecell_init(&rtc->cell, &pl031_ops, bus, base, irq, err);
	if (rc < 0)
		goto close_timer;

	struct watch w = { .rtc = rtc };

	loop_call(loop, watch, &w);
	if (w.result < 0) {
		rc = err_set(err, -w.result, "PL031: can't watch its timer: %s",
			     strerror(-w.result));
		goto finish_cell;
	}
	*ret_rtc = rtc;
	return 0;

finish_cell:
	primecell_finish(&rtc->cell);
close_timer:
	close(rtc->timer);
free_rtc:
	free(rtc);
	return rc;
}

void pl031_destroy(struct pl031 *rtc)
{
	if (!rtc)
		return;
	loop_call(rtc->loop, unwatch, rtc);
	primecell_finish(&rtc->cell);
	close(rtc->timer);
	free(rtc);
}

void pl031_reset(struct pl031 *rtc)
{
	primecell_lock(&rtc->cell);
	disarm(rtc);
	rtc->match = rtc->load = 0;
	rtc->enabled = rtc->raised = false;
	primecell_unlock(&rtc->cell);
}
