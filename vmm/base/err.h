#ifndef VMM_BASE_ERR_H
#define VMM_BASE_ERR_H

/*
 * A host failure on its way to the person at the terminal.
 *
 * Functions that can fail on the host return 0 or -errno. Those that know more
 * than the number (which file, which option, what to do) take a struct err and
 * leave one line of plain words in it; main and machine print it once.
 */

struct err {
	char text[512]; /* "" or one line without a newline */
};

/*
 * Format the line of @err and return -@code, so that a caller can write
 * `return err_set(err, ENOENT, "--disk: ...")`. @err may be NULL (the words are
 * dropped). @code is a positive errno. Any thread; @err is the caller's.
 */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/*
 * Put "@fmt: " in front of the line that @err already has (used to add the
 * option or the device that a lower layer can't know).
 */
void err_prefix(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
