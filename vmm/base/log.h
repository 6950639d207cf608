#ifndef VMM_BASE_LOG_H
#define VMM_BASE_LOG_H

/*
 * One line per event on standard error, prefixed with "moat: ". The level is
 * the only global of the program. All functions may be called on any thread; a
 * line is written with one write(2), so lines never interleave.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level {
	LOG_ERROR, /* moat can't do what it was asked */
	LOG_WARN,  /* the guest or the host misbehaves; moat goes on */
	LOG_INFO,  /* what --verbose adds */
};

/* Show lines up to @level; the default is LOG_WARN. */
void log_set_level(enum log_level level);

/* True when lines of @level are shown. */
bool log_enabled(enum log_level level);

/*
 * Write one line. The text needs no newline; on a terminal in raw mode the
 * line ends in CR LF (see log_set_crlf).
 */
void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* End lines in CR LF (@on) while the terminal is in raw mode, or in LF. */
void log_set_crlf(bool on);

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_INFO, __VA_ARGS__)

/*
 * A budget for lines that a guest can provoke: LOG_LIMIT_BURST lines, then one
 * every LOG_LIMIT_MS milliseconds, and none while standard error takes none.
 * Zero-initialised is valid.
 */
#define LOG_LIMIT_BURST 8
#define LOG_LIMIT_MS	1000

struct log_limit {
	_Atomic uint64_t next_ms;    /* CLOCK_MONOTONIC, when the next token comes */
	_Atomic uint32_t spent;	     /* lines of the burst already used */
	_Atomic uint64_t suppressed; /* lines dropped since the last one shown */
};

/*
 * True when a line may be written now; *@ret_suppressed then says how many were
 * dropped since the last one. Doesn't wait: no lock, and past the budget no system
 * call beyond the vDSO clock.
 */
bool log_limit_ok(struct log_limit *limit, uint64_t *ret_suppressed);

/* log_warn under @limit; appends "(N similar lines dropped)" when there were. */
void log_limited(struct log_limit *limit, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif
