/* The bus: an access reaches the one window that covers it, or nobody. */
#include "vmm/core/bus.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdatomic.h>

struct probe {
	unsigned reads, writes;
	uint64_t offset, value;
	unsigned size;
	uint64_t answer;
};

static uint64_t probe_read(void *opaque, uint64_t offset, unsigned size)
{
	struct probe *p = opaque;

	p->reads++;
	p->offset = offset;
	p->size = size;
	return p->answer;
}

static void probe_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct probe *p = opaque;

	p->writes++;
	p->offset = offset;
	p->size = size;
	p->value = value;
}

static const struct bus_ops probe_ops = { .read = probe_read, .write = probe_write };

static int add(struct bus *bus, uint64_t base, uint64_t size, struct probe *p)
{
	return bus_add(bus, &(struct bus_window){ base, size, &probe_ops, p, "probe" });
}

Test(bus, an_access_reaches_its_window_with_the_offset)
{
	struct probe a = { .answer = 0x1122334455667788 }, b = { .answer = 2 };
	struct bus bus;
	uint64_t value;

	bus_init(&bus, false);
	cr_assert_eq(add(&bus, 0x2000, 0x100, &b), 0);
	cr_assert_eq(add(&bus, 0x1000, 0x100, &a), 0);
	cr_expect(bus_read(&bus, 0x10fc, 4, &value));
	cr_expect_eq(value, 0x55667788, "the upper bytes of the answer are cut");
	cr_expect_eq(a.offset, 0xfc);
	cr_expect(bus_write(&bus, 0x2001, 1, 0x1234));
	cr_expect_eq(b.offset, 1);
	cr_expect_eq(b.value, 0x34);
	cr_expect_eq(a.writes, 0);
	bus_finish(&bus);
}

Test(bus, uncovered_accesses_read_all_ones_and_call_nobody)
{
	struct probe a = { 0 }, b = { 0 };
	struct bus bus;
	uint64_t value = 0;

	bus_init(&bus, false);
	add(&bus, 0x1000, 0x10, &a);
	add(&bus, 0x1010, 0x10, &b);
	cr_expect_not(bus_read(&bus, 0xfff, 1, &value));
	cr_expect_eq(value, 0xff);
	cr_expect_not(bus_read(&bus, 0x1020, 8, &value));
	cr_expect_eq(value, UINT64_MAX);
	/* Half in the first window and half in the second or before it. */
	cr_expect_not(bus_read(&bus, 0x100e, 4, &value));
	cr_expect_eq(value, 0xffffffff);
	cr_expect_not(bus_write(&bus, 0x100c, 8, 0));
	cr_expect_not(bus_write(&bus, 0xffe, 4, 0));
	cr_expect_not(bus_write(&bus, 0x101f, 2, 0));
	cr_expect_not(bus_read(&bus, UINT64_MAX, 8, &value), "the access itself wraps");
	cr_expect_eq(a.reads + a.writes + b.reads + b.writes, 0);
	bus_finish(&bus);
}

Test(bus, odd_sizes_reach_no_device)
{
	struct probe a = { 0 };
	struct bus bus;
	uint64_t value;

	bus_init(&bus, false);
	add(&bus, 0, 0x100, &a);
	for (unsigned size = 0; size <= 9; size++) {
		bool good = size == 1 || size == 2 || size == 4 || size == 8;

		cr_expect_eq(bus_read(&bus, 0, size, &value), good, "size %u", size);
		cr_expect_eq(bus_write(&bus, 0, size, 0), good, "size %u", size);
	}
	cr_expect_eq(a.reads, 4);
	bus_finish(&bus);
}

Test(bus, overlaps_and_nonsense_are_refused)
{
	struct probe a = { 0 }, b = { 0 };
	struct bus bus;

	bus_init(&bus, false);
	cr_assert_eq(add(&bus, 0x1000, 0x1000, &a), 0);
	cr_expect_eq(add(&bus, 0x1000, 0x1000, &b), -EEXIST);
	cr_expect_eq(add(&bus, 0x1fff, 1, &b), -EEXIST);
	cr_expect_eq(add(&bus, 0xfff, 2, &b), -EEXIST);
	cr_expect_eq(add(&bus, 0, UINT64_MAX, &b), -EEXIST, "one that contains it");
	cr_expect_eq(add(&bus, 0x1800, 0x10, &b), -EEXIST, "one that it contains");
	cr_expect_eq(add(&bus, 0x3000, 0, &b), -EINVAL);
	cr_expect_eq(add(&bus, UINT64_MAX, 2, &b), -EINVAL);
	cr_expect_eq(add(&bus, 0xfff, 1, &b), 0);
	cr_expect_eq(add(&bus, 0x2000, 1, &b), 0);
	bus_finish(&bus);
}

Test(bus, the_top_of_the_address_space_is_usable)
{
	struct probe a = { .answer = 7 };
	struct bus bus;
	uint64_t value;

	bus_init(&bus, false);
	cr_assert_eq(add(&bus, UINT64_MAX - 7, 8, &a), 0);
	cr_expect(bus_read(&bus, UINT64_MAX - 7, 8, &value));
	cr_expect_eq(value, 7);
	cr_expect_eq(add(&bus, UINT64_MAX, 1, &a), -EEXIST);
	bus_finish(&bus);
}

Test(bus, only_the_owner_of_a_base_is_removed)
{
	struct probe a = { 0 }, b = { 0 };
	struct bus bus;

	bus_init(&bus, false);
	add(&bus, 0x1000, 0x10, &a);
	add(&bus, 0x2000, 0x10, &b);
	cr_expect_eq(bus_remove(&bus, 0x1008, &a), -ENOENT);
	cr_expect_eq(bus_remove(&bus, 0x1000, &b), -ENOENT);
	cr_expect_eq(bus_remove(&bus, 0x1000, &a), 0);
	cr_expect_eq(bus_remove(&bus, 0x1000, &a), -ENOENT);
	cr_expect_not(bus_write(&bus, 0x1000, 1, 0));
	cr_expect(bus_write(&bus, 0x2000, 1, 0));
	bus_finish(&bus);
}

Test(bus, many_windows_in_any_order_are_all_found)
{
	static struct probe probes[257];
	struct bus bus;

	bus_init(&bus, true);
	for (unsigned i = 0; i < 257; i++) {
		unsigned at = i * 101 % 257; /* 101 and 257 are coprime: each once. */

		cr_assert_eq(add(&bus, at * 8, 8, &probes[at]), 0);
	}
	for (unsigned i = 0; i < 257; i++)
		cr_expect(bus_write(&bus, i * 8 + 7, 1, i));
	for (unsigned i = 0; i < 257; i++)
		cr_expect(probes[i].writes == 1 && probes[i].offset == 7);
	bus_finish(&bus);
}

struct mover {
	struct bus *bus;
	uint64_t at;
};

static void mover_write(void *opaque, uint64_t offset, unsigned size, uint64_t value);

static const struct bus_ops mover_ops = { .read = probe_read, .write = mover_write };

/* A register that moves its own window, as a BAR does. */
static void mover_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct mover *m = opaque;

	cr_expect_eq(bus_remove(m->bus, m->at, m), 0);
	m->at = value;
	cr_expect_eq(bus_add(m->bus, &(struct bus_window){ value, 8, &mover_ops, m, "m" }), 0);
}

Test(bus, a_handler_may_move_its_own_window, .timeout = 60)
{
	struct bus bus;
	struct mover m = { .bus = &bus, .at = 0x100 };

	bus_init(&bus, false);
	bus_add(&bus, &(struct bus_window){ 0x100, 8, &mover_ops, &m, "m" });
	cr_expect(bus_write(&bus, 0x100, 4, 0x200));
	cr_expect_not(bus_write(&bus, 0x100, 4, 0x300));
	cr_expect(bus_write(&bus, 0x200, 4, 0x300));
	bus_finish(&bus);
}

struct race {
	struct bus bus;
	_Atomic bool stop;
	unsigned wrong;
};

static uint64_t constant_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0x5a;
}

static const struct bus_ops constant_ops = { .read = constant_read, .write = probe_write };

static void *reader(void *opaque)
{
	struct race *r = opaque;

	while (!atomic_load(&r->stop)) {
		uint64_t value;
		bool found = bus_read(&r->bus, 0x1000, 1, &value);

		if (value != (found ? 0x5a : 0xff))
			r->wrong++;
		if (!bus_read(&r->bus, 0x5000, 1, &value))
			r->wrong++;
	}
	return NULL;
}

Test(bus, a_window_that_moves_disturbs_no_other_vcpu, .timeout = 60)
{
	struct race r = { 0 };
	pthread_t thread;
	int key;

	bus_init(&r.bus, false);
	bus_add(&r.bus, &(struct bus_window){ 0x5000, 16, &constant_ops, &key, "stays" });
	cr_assert_eq(pthread_create(&thread, NULL, reader, &r), 0);
	for (unsigned i = 0; i < 20000; i++) {
		bus_add(&r.bus, &(struct bus_window){ 0x1000, 16, &constant_ops, &r, "moves" });
		bus_remove(&r.bus, 0x1000, &r);
	}
	atomic_store(&r.stop, true);
	pthread_join(thread, NULL);
	cr_expect_eq(r.wrong, 0);
	bus_finish(&r.bus);
}

struct bells {
	unsigned attached, detached;
	bool port_io;
};

static int bell_attach(void *opaque, bool port_io, const struct doorbell *bell)
{
	struct bells *b = opaque;

	b->attached++;
	b->port_io = port_io;
	return bell->addr == 0xbad ? -ENOSPC : 0;
}

static void bell_detach(void *opaque, bool port_io, const struct doorbell *bell)
{
	((struct bells *)opaque)->detached++;
}

Test(bus, doorbells_are_the_implementations_business)
{
	static const struct doorbell_ops ops = { .attach = bell_attach, .detach = bell_detach };
	struct doorbell bell = { .addr = 0x10, .size = 2, .eventfd = 3 };
	struct bells bells = { 0 };
	struct bus bus;

	bus_init(&bus, true);
	cr_expect_eq(bus_attach_doorbell(&bus, &bell), -ENOTSUP);
	bus_detach_doorbell(&bus, &bell);
	bus_set_doorbells(&bus, &ops, &bells);
	cr_expect_eq(bus_attach_doorbell(&bus, &bell), 0);
	cr_expect(bells.port_io);
	bell.addr = 0xbad;
	cr_expect_eq(bus_attach_doorbell(&bus, &bell), -ENOSPC);
	bus_detach_doorbell(&bus, &bell);
	cr_expect_eq(bells.detached, 1);
	bus_finish(&bus);
}

Test(bus, finish_accepts_a_zeroed_bus)
{
	struct bus bus = { 0 };

	bus_finish(&bus);
}
