#ifndef VMM_BASE_BARRIER_H
#define VMM_BASE_BARRIER_H

/*
 * Memory barriers of which one side pays for both. Two threads that each write a
 * word and then look at the other's need a full barrier in between, on both
 * sides. Where one side is taken a million times as often as the other, it has
 * barrier_light, which costs nothing, and the other barrier_heavy, a system call
 * that interrupts every CPU that runs a thread of this process (some 2 to 10 us).
 */

#include <stdatomic.h>

/* Needed before barrier_heavy. 0, or -errno where the host doesn't have it. Any thread. */
int barrier_prepare(void);

/*
 * Between the call and the return, every thread of the process passed a point
 * before which all of its earlier accesses are done, and after which are all of
 * its later ones. Any thread, not in a section of a dma_port.
 */
void barrier_heavy(void);

/* The light side: the compiler keeps the order, and barrier_heavy on another thread the CPU. */
static inline void barrier_light(void)
{
	atomic_signal_fence(memory_order_seq_cst);
}

#endif
