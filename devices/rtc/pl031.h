#ifndef DEVICES_RTC_PL031_H
#define DEVICES_RTC_PL031_H

/* A PL031 real-time clock (Arm DDI 0224C): seconds since 1970, and an alarm. One page. */

#include "vmm/base/err.h"
#include "vmm/core/bus.h"
#include "vmm/core/irq.h"
#include "vmm/core/loop.h"

struct pl031;

/*
 * Put a clock on @bus at @base, running and set to the host's. Alarms go off on
 * @loop's thread. @irq and @loop are borrowed; *@ret_rtc is owned by the caller.
 * Not from the loop. 0 or -errno with words in @err.
 */
int pl031_create(struct pl031 **ret_rtc, struct bus *bus, uint64_t base, struct irq_line *irq,
		 struct loop *loop, struct err *err);

/* Take it off the bus and free; accepts NULL. vCPUs stopped. Not from the loop. */
void pl031_destroy(struct pl031 *rtc);

/* No alarm, no interrupt; what the guest set the clock to survives, as on a battery. Any thread. */
void pl031_reset(struct pl031 *rtc);

#endif
