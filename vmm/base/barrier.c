#include "vmm/base/barrier.h"

#include <assert.h>
#include <errno.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

int barrier_prepare(void)
{
	return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) ? -errno
											: 0;
}

void barrier_heavy(void)
{
	/* A host short of memory may refuse for a moment; going on without it would be a hole. */
	while (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0)) {
		assert(errno == ENOMEM); /* all else was seen to by barrier_prepare */
		sched_yield();
	}
}
