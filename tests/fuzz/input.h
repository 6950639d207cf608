#ifndef TESTS_FUZZ_INPUT_H
#define TESTS_FUZZ_INPUT_H

/* The fuzzer's bytes, of which a target takes what it needs, one thing after the other. */

#include "vmm/core/bus.h"

struct fuzz_input {
	const uint8_t *data; /* borrows */
	size_t left;	     /* bytes */
};

/* The next @bytes (up to 8) as a number, the first one highest; fewer when that's all there is. */
static inline uint64_t fuzz_take(struct fuzz_input *in, unsigned bytes)
{
	uint64_t value = 0;

	for (; bytes && in->left; bytes--, in->left--)
		value = value << 8 | *in->data++;
	return value;
}

/* An access at @addr of @bus: @how's low two bits say its size, the next one that it writes @in. */
static inline void fuzz_access(struct fuzz_input *in, struct bus *bus, uint64_t addr, uint8_t how)
{
	unsigned size = 1u << (how & 3);
	uint64_t value;

	if (how & 4)
		bus_write(bus, addr, size, fuzz_take(in, size));
	else
		bus_read(bus, addr, size, &value);
}

#endif
