#include "vmm/base/log.h"

#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static _Atomic int log_level = LOG_WARN;
static _Atomic bool log_crlf;

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&log_level, (int)level, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
	return (int)level <= atomic_load_explicit(&log_level, memory_order_relaxed);
}

void log_set_crlf(bool on)
{
	atomic_store_explicit(&log_crlf, on, memory_order_relaxed);
}

static void log_vline(enum log_level level, const char *fmt, va_list ap, uint64_t suppressed)
{
	static const char prefix[] = "moat: ";
	char line[1024];
	size_t len = sizeof(prefix) - 1;

	if (!log_enabled(level))
		return;
	memcpy(line, prefix, len);
	int n = vsnprintf(line + len, sizeof(line) - len, fmt, ap);

	if (n > 0)
		len += (size_t)n < sizeof(line) - len ? (size_t)n : sizeof(line) - len - 1;
	if (suppressed) {
		n = snprintf(line + len, sizeof(line) - len, " (%" PRIu64 " similar lines dropped)",
			     suppressed);
		len += (size_t)n < sizeof(line) - len ? (size_t)n : sizeof(line) - len - 1;
	}
	if (len > sizeof(line) - 3)
		len = sizeof(line) - 3;
	if (atomic_load_explicit(&log_crlf, memory_order_relaxed))
		line[len++] = '\r';
	line[len++] = '\n';
	/* Nothing can be done about a standard error that is gone. */
	if (write(STDERR_FILENO, line, len) < 0)
		return;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_vline(level, fmt, ap, 0);
	va_end(ap);
}

/*
 * Whether a line can be written without a wait: who reads may have stopped to (a full pipe, a
 * terminal on hold), which is no reason for the guest to stand still. What was asked for of moat
 * itself waits: it isn't to be lost.
 */
static bool has_room(void)
{
	struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };

	return poll(&p, 1, 0) != 0;
}

bool log_limit_ok(struct log_limit *limit, uint64_t *ret_suppressed)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	uint64_t now = (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
	uint32_t spent = atomic_load_explicit(&limit->spent, memory_order_relaxed);

	if (spent < LOG_LIMIT_BURST) {
		atomic_store_explicit(&limit->spent, spent + 1, memory_order_relaxed);
	} else {
		uint64_t next = atomic_load_explicit(&limit->next_ms, memory_order_relaxed);

		/* Only one of the threads that race for a token gets it. */
		if (now < next ||
		    !atomic_compare_exchange_strong(&limit->next_ms, &next, now + LOG_LIMIT_MS)) {
			atomic_fetch_add_explicit(&limit->suppressed, 1, memory_order_relaxed);
			return false;
		}
	}
	if (!has_room()) {
		atomic_fetch_add_explicit(&limit->suppressed, 1, memory_order_relaxed);
		return false;
	}
	*ret_suppressed = atomic_exchange_explicit(&limit->suppressed, 0, memory_order_relaxed);
	return true;
}

void log_limited(struct log_limit *limit, const char *fmt, ...)
{
	uint64_t suppressed;
	va_list ap;

	if (!log_limit_ok(limit, &suppressed))
		return;
	va_start(ap, fmt);
	log_vline(LOG_WARN, fmt, ap, suppressed);
	va_end(ap);
}
