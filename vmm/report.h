#ifndef VMM_REPORT_H
#define VMM_REPORT_H

/* What --verbose tells the person who runs the machine. All but the audit print nothing without it.
 */

#include "vmm/machine_state.h"

/* The memory map, the devices with their addresses, the endpoints and the IOMMU. */
void report_machine(const struct machine *m);
/* The time from @start_ns (CLOCK_MONOTONIC) to the first guest instruction. */
void report_start(const struct machine *m, uint64_t start_ns);
/* The IOMMU's counters, one line per endpoint. */
void report_end(const struct machine *m);
/*
 * Whether the IOMMU of the host holds what the guest mapped, one line per IOMMU and per device
 * that has none; nothing when no device of the host is passed through. Requests wait meanwhile.
 */
void report_audit(const struct machine *m);

#endif
