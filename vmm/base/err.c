#include "vmm/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, int code, const char *fmt, ...)
{
	if (err) {
		va_list ap;

		va_start(ap, fmt);
		vsnprintf(err->text, sizeof(err->text), fmt, ap);
		va_end(ap);
	}
	return -code;
}

void err_prefix(struct err *err, const char *fmt, ...)
{
	char head[256], tail[sizeof(err->text)];
	va_list ap;

	if (!err)
		return;
	va_start(ap, fmt);
	vsnprintf(head, sizeof(head), fmt, ap);
	va_end(ap);
	memcpy(tail, err->text, sizeof(tail));
	/* A line that doesn't fit is cut at its end, never at what it is about. */
	int n = snprintf(err->text, sizeof(err->text), "%s: ", head);
	size_t room = sizeof(err->text) - (size_t)n;
	size_t len = strnlen(tail, room - 1);

	memcpy(err->text + n, tail, len);
	err->text[(size_t)n + len] = '\0';
}
