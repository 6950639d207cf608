/*
 * The window table is a sorted array: a machine has some dozens of windows, they
 * change only when a guest moves a BAR, and a binary search over one array beats
 * any tree at that size. An access copies the window out under the read lock and
 * runs the handler without it (see bus.h for what that asks of a handler).
 */
#include "vmm/core/bus.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

void bus_init(struct bus *bus, bool port_io)
{
	*bus = (struct bus){ .port_io = port_io };
	int rc = pthread_rwlock_init(&bus->lock, NULL);

	assert(rc == 0); /* Can't fail with default attributes on Linux. */
	(void)rc;
}

void bus_finish(struct bus *bus)
{
	/* A zeroed lock is what PTHREAD_RWLOCK_INITIALIZER is, so this is fine for both. */
	pthread_rwlock_destroy(&bus->lock);
	free(bus->windows);
	bus->windows = NULL;
	bus->count = bus->capacity = 0;
}

void bus_set_doorbells(struct bus *bus, const struct doorbell_ops *ops, void *opaque)
{
	bus->doorbell_ops = ops;
	bus->doorbell_opaque = opaque;
}

/* Index of the first window whose base is above @addr; the one before it may cover @addr. */
static size_t bus_upper_bound(const struct bus *bus, uint64_t addr)
{
	size_t low = 0, high = bus->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (bus->windows[mid].base <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static int bus_reserve(struct bus *bus, size_t count)
{
	if (count <= bus->capacity)
		return 0;
	size_t capacity = bus->capacity ? bus->capacity * 2 : 16;
	struct bus_window *windows = reallocarray(bus->windows, capacity, sizeof(*windows));

	if (!windows)
		return -ENOMEM;
	bus->windows = windows;
	bus->capacity = capacity;
	return 0;
}

static int bus_add_locked(struct bus *bus, const struct bus_window *window)
{
	uint64_t last = window->base + (window->size - 1);
	size_t at = bus_upper_bound(bus, window->base);

	if (at > 0) {
		const struct bus_window *below = &bus->windows[at - 1];

		if (window->base - below->base < below->size)
			return -EEXIST;
	}
	if (at < bus->count && bus->windows[at].base <= last)
		return -EEXIST;

	int rc = bus_reserve(bus, bus->count + 1);

	if (rc < 0)
		return rc;
	memmove(&bus->windows[at + 1], &bus->windows[at],
		(bus->count - at) * sizeof(*bus->windows));
	bus->windows[at] = *window;
	bus->count++;
	return 0;
}

int bus_add(struct bus *bus, const struct bus_window *window)
{
	uint64_t last;

	/* The last byte may be the top of the address space, but no further. */
	if (window->size == 0 || __builtin_add_overflow(window->base, window->size - 1, &last))
		return -EINVAL;
	pthread_rwlock_wrlock(&bus->lock);
	int rc = bus_add_locked(bus, window);

	pthread_rwlock_unlock(&bus->lock);
	return rc;
}

int bus_remove(struct bus *bus, uint64_t base, const void *opaque)
{
	int rc = -ENOENT;

	pthread_rwlock_wrlock(&bus->lock);
	size_t at = bus_upper_bound(bus, base);

	if (at > 0 && bus->windows[at - 1].base == base && bus->windows[at - 1].opaque == opaque) {
		memmove(&bus->windows[at - 1], &bus->windows[at],
			(bus->count - at) * sizeof(*bus->windows));
		bus->count--;
		rc = 0;
	}
	pthread_rwlock_unlock(&bus->lock);
	return rc;
}

/* Copy the window that covers the whole access to *@ret_window. */
static bool bus_find(struct bus *bus, uint64_t addr, unsigned size, struct bus_window *ret_window)
{
	bool found = false;

	/* KVM may split an access that crosses a page into odd pieces; no register has such a size.
	 */
	if (size != 1 && size != 2 && size != 4 && size != 8)
		return false;
	pthread_rwlock_rdlock(&bus->lock);
	size_t at = bus_upper_bound(bus, addr);

	if (at > 0) {
		const struct bus_window *w = &bus->windows[at - 1];
		uint64_t offset = addr - w->base;

		if (offset < w->size && size <= w->size - offset) {
			*ret_window = *w;
			found = true;
		}
	}
	pthread_rwlock_unlock(&bus->lock);
	return found;
}

/* The lower @size bytes, all ones. */
static uint64_t size_mask(unsigned size)
{
	return size >= 8 ? UINT64_MAX : (UINT64_C(1) << size * 8) - 1;
}

bool bus_read(struct bus *bus, uint64_t addr, unsigned size, uint64_t *ret_value)
{
	struct bus_window w;

	if (!bus_find(bus, addr, size, &w)) {
		*ret_value = size_mask(size);
		return false;
	}
	*ret_value = w.ops->read(w.opaque, addr - w.base, size) & size_mask(size);
	return true;
}

bool bus_write(struct bus *bus, uint64_t addr, unsigned size, uint64_t value)
{
	struct bus_window w;

	if (!bus_find(bus, addr, size, &w))
		return false;
	w.ops->write(w.opaque, addr - w.base, size, value & size_mask(size));
	return true;
}

int bus_attach_doorbell(struct bus *bus, const struct doorbell *bell)
{
	if (!bus->doorbell_ops)
		return -ENOTSUP;
	return bus->doorbell_ops->attach(bus->doorbell_opaque, bus->port_io, bell);
}

void bus_detach_doorbell(struct bus *bus, const struct doorbell *bell)
{
	if (bus->doorbell_ops)
		bus->doorbell_ops->detach(bus->doorbell_opaque, bus->port_io, bell);
}
