#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

/* The composition root: builds a machine from a config and runs it to its end. */

#include "vmm/config.h"

/* Exit statuses of `moat run`, a contract with scripts. */
enum moat_exit {
	MOAT_EXIT_POWEROFF = 0,
	MOAT_EXIT_FAILURE = 1, /* the host couldn't */
	MOAT_EXIT_USAGE = 2,
	MOAT_EXIT_RESET = 3, /* the guest reset itself */
};

/*
 * Run the machine of @config until the guest powers off, resets (unless
 * --on-reset reboot) or the host fails; the words were printed. Called once,
 * on the main thread, with @start_ns the time main began (CLOCK_MONOTONIC).
 */
enum moat_exit machine_run(const struct config *config, uint64_t start_ns);

#endif
