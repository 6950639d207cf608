#ifndef TESTS_UNIT_DEVICES_PRIMECELL_GUEST_H
#define TESTS_UNIT_DEVICES_PRIMECELL_GUEST_H

/* A guest in front of one PrimeCell: its bus, its interrupt wire, any access. */

#include <criterion/criterion.h>
#include <stdatomic.h>
#include "devices/primecell/primecell.h"
#include "vmm/base/types.h"

#define BASE 0x09000000

static struct bus bus;
static struct {
	struct irq_line line;
	_Atomic bool level; /* a clock's alarm comes on another thread */
	unsigned rises, repeats;
} wire;

static void wire_set(struct irq_line *line, bool level)
{
	wire.repeats += level == wire.level;
	wire.rises += level && !wire.level;
	wire.level = level;
}

static const struct irq_line_ops wire_ops = { .set = wire_set };

static void guest_init(void)
{
	bus_init(&bus, false);
	wire.line.ops = &wire_ops;
}

/* After the device is destroyed. */
static void guest_finish(void)
{
	cr_expect_not(wire.level, "a device that goes lets go of its wire");
	cr_expect_eq(wire.repeats, 0, "the wire is driven on changes only");
	cr_expect_eq(bus.count, 0);
	bus_finish(&bus);
}

static uint32_t in(unsigned reg)
{
	uint64_t value = 0;

	cr_assert(bus_read(&bus, BASE + reg, 4, &value));
	return (uint32_t)value;
}

static void out(unsigned reg, uint32_t value)
{
	cr_assert(bus_write(&bus, BASE + reg, 4, value));
}

/* The identity as Linux's AMBA bus puts it together. */
static void expect_identity(uint32_t id)
{
	uint32_t periph = 0, family = 0;

	for (unsigned i = 0; i < 4; i++) {
		periph |= (in(0xfe0 + 4 * i) & 0xff) << 8 * i;
		family |= (in(0xff0 + 4 * i) & 0xff) << 8 * i;
	}
	cr_expect_eq(periph, id, "%#x", periph);
	cr_expect_eq(family, 0xb105f00d);
}

/* Every offset with every size, read and written; the device must keep its identity. */
static void access_everything(uint32_t id)
{
	uint64_t value, seed = 1;

	for (unsigned round = 0; round < 3; round++) {
		for (unsigned offset = 0; offset < PRIMECELL_SIZE; offset++) {
			for (unsigned size = 1; size <= 8; size *= 2) {
				seed = seed * 6364136223846793005 + 1442695040888963407;
				bus_write(&bus, BASE + offset, size, seed >> 16);
				bus_read(&bus, BASE + offset, size, &value);
				if (offset % 4 || size == 8)
					cr_assert(value == 0 || offset + size > PRIMECELL_SIZE,
						  "%u bytes at %#x", size, offset);
			}
		}
	}
	expect_identity(id);
}

#endif
