#ifndef VMM_CORE_POWER_H
#define VMM_CORE_POWER_H

/* What a register can ask of the whole machine; machine.c implements it. */

enum power_event {
	POWER_OFF,   /* the guest switched itself off */
	POWER_RESET, /* the guest reset itself (reset register, 8042, triple fault, PSCI) */
	POWER_CRASH, /* the guest or KVM can't go on: a host failure towards the person */
};

struct power {
	/* Takes effect soon; the calling vCPU is stopped before it runs guest code again. Any
	 * thread. */
	void (*request)(struct power *power, enum power_event event);
};

static inline void power_request(struct power *power, enum power_event event)
{
	power->request(power, event);
}

#endif
