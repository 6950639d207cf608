/* The entropy device: fills what it may, no more, and survives what it may not. */
#include "driver.h"

#include "devices/virtio/virtio_rng.h"

#define BUFFER (DATA + 4 * PAGE)

struct rig {
	struct driver d;
	struct virtio_rng *rng;
};

static void rig_start(struct rig *rig)
{
	struct err err = { "" };

	driver_init(&rig->d);
	cr_assert_eq(virtio_rng_create(&rig->rng, "rng", true, &rig->d.w.view, rig->d.loop, &err),
		     0, "%s", err.text);
	driver_start(&rig->d, virtio_rng_virtio(rig->rng), 0);
}

static void rig_stop(struct rig *rig)
{
	virtio_host_reset(rig->d.dev);
	virtio_rng_destroy(rig->rng);
	driver_finish(&rig->d);
}

Test(virtio_rng, fills_the_buffer_and_nothing_else, .timeout = 60)
{
	struct part part = { BUFFER + 10, 100, true };
	unsigned char got[120], again[120];
	unsigned zeroes = 0;
	static struct rig rig;

	rig_start(&rig);
	cr_assert_eq(driver_do(&rig.d, 0, &part, 1), 100);
	peek(&rig.d.w, BUFFER, got, sizeof(got));
	for (unsigned i = 0; i < 10; i++)
		cr_assert(got[i] == 0 && got[110 + i] == 0);
	for (unsigned i = 10; i < 110; i++)
		zeroes += got[i] == 0;
	cr_assert_lt(zeroes, 20);
	cr_assert_eq(driver_do(&rig.d, 0, &part, 1), 100);
	peek(&rig.d.w, BUFFER, again, sizeof(again));
	cr_assert_neq(memcmp(got, again, sizeof(got)), 0);
	rig_stop(&rig);
}

Test(virtio_rng, bounded_and_robust, .timeout = 60)
{
	struct part large = { BUFFER, 20 * 4096, true };
	struct part readable = { BUFFER, 64, false };
	struct part hole = { WORLD_BASE - 4096, 64, true };
	struct part part = { BUFFER, 1, true };
	static struct rig rig;

	rig_start(&rig);
	cr_assert_eq(driver_do(&rig.d, 0, &large, 1), 4096);
	cr_assert_eq(driver_do(&rig.d, 0, &readable, 1), 0);
	cr_assert_eq(driver_do(&rig.d, 0, &hole, 1), 0);
	cr_assert_eq(rig.d.w.faults, 1);
	cr_assert_eq(driver_do(&rig.d, 0, &part, 1), 1);
	rig_stop(&rig);
}

/* More than one turn's worth is served after a single kick. */
Test(virtio_rng, many_requests_one_kick, .timeout = 60)
{
	struct part part = { BUFFER, 1, true };
	static struct rig rig;

	rig_start(&rig);
	for (unsigned i = 0; i < 60; i++)
		driver_offer(&rig.d, 0, &part, 1);
	virtio_kick(rig.d.dev, 0);
	driver_wait(&rig.d, 0, 60);
	rig_stop(&rig);
}
