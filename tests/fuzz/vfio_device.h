#ifndef TESTS_FUZZ_VFIO_DEVICE_H
#define TESTS_FUZZ_VFIO_DEVICE_H

/* A device for a fuzzer, as its input says, and what of it the guest may see. */

#include "tests/fake_vfio.h"
#include "tests/fuzz/input.h"

#define FUZZ_MAX_CAPS 48
#define FUZZ_KEEPER   999 /* the file that KVM is told of */

struct fuzz_cap {
	unsigned id, at, size;
};

struct fuzz_device {
	struct fake_vfio dev;
	struct fuzz_input in; /* the rest of it */
	/* The capabilities as the device lists them, and where MSI and MSI-X are, 0 = nowhere. */
	struct fuzz_cap cap[FUZZ_MAX_CAPS];
	unsigned num_caps, msi, msix;
	/* It isn't broken: no capability is twice, and nothing lies on anything else. */
	bool disjoint;
	bool zero[PCI_CONFIG_SIZE]; /* the guest must read this byte as zero */
};

/*
 * Build the device that the input describes; all else of @d is zeroed. True when the host is to
 * refuse something from the beginning.
 */
bool fuzz_device_build(struct fuzz_device *d, struct fake_slots *slots);

/* May the guest see capability @id, or extended capability @id? */
bool fuzz_may_show(unsigned id);
bool fuzz_may_show_ext(unsigned id);

#endif
