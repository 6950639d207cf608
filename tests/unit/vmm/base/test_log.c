/* Lines for the person at the terminal, and the budget for those a guest can provoke. */
#include "vmm/base/log.h"
#include "vmm/base/err.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int captured; /* the reading end of a pipe that is standard error */
static int real_stderr;

/* Criterion runs each test in a process of its own, so this disturbs nobody. */
static void capture(void)
{
	int fd[2];

	cr_assert_eq(pipe2(fd, O_NONBLOCK), 0);
	real_stderr = dup(STDERR_FILENO);
	dup2(fd[1], STDERR_FILENO);
	close(fd[1]);
	captured = fd[0];
}

static void release(void)
{
	dup2(real_stderr, STDERR_FILENO);
}

/* What was written since the last call; *@ret_len bytes and a NUL. */
static const char *taken(void)
{
	static char text[8192];
	ssize_t n = read(captured, text, sizeof(text) - 1);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

Test(log, a_line_has_prefix_and_newline, .init = capture, .fini = release)
{
	log_warn("disk %d is %s", 3, "slow");
	cr_expect_str_eq(taken(), "moat: disk 3 is slow\n");
	log_set_crlf(true);
	log_error("raw");
	cr_expect_str_eq(taken(), "moat: raw\r\n");
}

Test(log, levels_select, .init = capture, .fini = release)
{
	cr_expect(log_enabled(LOG_WARN));
	cr_expect_not(log_enabled(LOG_INFO));
	log_info("hidden");
	cr_expect_str_eq(taken(), "");
	log_set_level(LOG_INFO);
	log_info("shown");
	cr_expect_str_eq(taken(), "moat: shown\n");
	log_set_level(LOG_ERROR);
	log_warn("hidden");
	cr_expect_str_eq(taken(), "");
}

Test(log, a_line_that_is_too_long_is_cut_but_still_a_line, .init = capture, .fini = release)
{
	char text[4000];
	const char *line;

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	log_set_crlf(true);
	log_warn("%s", text);
	line = taken();
	cr_expect_leq(strlen(line), 1024);
	cr_expect_geq(strlen(line), 1000);
	cr_expect_str_eq(line + strlen(line) - 2, "\r\n");
	cr_expect_null(memchr(line, '\n', strlen(line) - 1));
}

Test(log, a_guest_cant_flood_the_terminal, .init = capture, .fini = release)
{
	struct log_limit limit = { 0 };
	unsigned lines = 0;

	for (unsigned i = 0; i < 100000; i++)
		log_limited(&limit, "guest nonsense");
	for (const char *p = taken(); *p; p++)
		lines += *p == '\n';
	/* The burst, and one for each second that this may have taken. */
	cr_expect_geq(lines, LOG_LIMIT_BURST);
	cr_expect_leq(lines, LOG_LIMIT_BURST + 5);
}

Test(log, dropped_lines_are_counted, .init = capture, .fini = release, .timeout = 60)
{
	struct log_limit limit = { 0 };
	unsigned shown = 0;

	/* Spend the burst and the first token, then provoke what must be dropped. */
	for (unsigned i = 0; i < LOG_LIMIT_BURST + 51; i++)
		log_limited(&limit, "nonsense");
	for (const char *p = taken(); *p; p++)
		shown += *p == '\n';
	usleep(LOG_LIMIT_MS * 1000 + 100000);
	log_limited(&limit, "nonsense");

	char want[128];

	snprintf(want, sizeof(want), "moat: nonsense (%u similar lines dropped)\n",
		 LOG_LIMIT_BURST + 51 - shown);
	cr_expect_str_eq(taken(), want);
}

/* moat ... 2>&1 | less: who reads pauses, and the guest provokes lines. */
Test(log, a_full_pipe_doesnt_hold_up_the_guest, .init = capture, .fini = release, .timeout = 10)
{
	static const char filler[4096];
	struct log_limit limit = { 0 };
	int flags = fcntl(STDERR_FILENO, F_GETFL);

	fcntl(STDERR_FILENO, F_SETFL, flags | O_NONBLOCK);
	while (write(STDERR_FILENO, filler, sizeof(filler)) > 0)
		;
	fcntl(STDERR_FILENO, F_SETFL, flags & ~O_NONBLOCK);
	for (unsigned i = 0; i < 3; i++)
		log_limited(&limit, "nonsense");
	while (*taken() || read(captured, (char[4096]){ 0 }, 4096) > 0)
		;
	log_limited(&limit, "nonsense");
	cr_expect_str_eq(taken(), "moat: nonsense (3 similar lines dropped)\n");
}

Test(err, keeps_the_words_and_returns_the_code)
{
	struct err err = { "" };

	cr_expect_eq(err_set(&err, ENOENT, "%s: not there", "a.img"), -ENOENT);
	err_prefix(&err, "--disk %d", 2);
	cr_expect_str_eq(err.text, "--disk 2: a.img: not there");
	cr_expect_eq(err_set(NULL, EINVAL, "nobody listens"), -EINVAL);
	err_prefix(NULL, "nobody");
}

Test(err, a_prefix_that_doesnt_fit_cuts_the_end)
{
	struct err err = { "" };
	char text[600];

	memset(text, 'y', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	err_set(&err, EIO, "%s", text);
	err_prefix(&err, "%s", text);
	cr_expect_eq(strlen(err.text), sizeof(err.text) - 1);
	cr_expect_not_null(strstr(err.text, ": y"));
}
