#ifndef VMM_BASE_CLEANUP_H
#define VMM_BASE_CLEANUP_H

/* Scope-bound cleanup for short functions: `_cleanup_fd_ int fd = open(...)`. */

#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_fd(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

#define _cleanup_fd_   __attribute__((cleanup(cleanup_fd)))
#define _cleanup_free_ __attribute__((cleanup(cleanup_free)))

#endif
