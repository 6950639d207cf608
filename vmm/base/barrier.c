#include "vmm/base/barrier.h"

#include <assert.h>
#include <errno.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

int barrier_prepare(void)
{
	return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) ? -errno
											: 0;
}

void barrier_heavy(void)
{
	long ret = syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);

	/* It can't fail once it is registered; going on without it would be a hole. */
	assert(ret == 0);
	(void)ret;
}
