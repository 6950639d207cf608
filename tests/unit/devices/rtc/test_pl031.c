/* The real-time clock as Linux's rtc-pl031 uses it. Alarms take real seconds. */
#include "devices/rtc/pl031.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>
#include "tests/unit/devices/primecell/guest.h"

#define DR   0x00
#define MR   0x04
#define LR   0x08
#define CR   0x0c
#define IMSC 0x10
#define RIS  0x14
#define MIS  0x18
#define ICR  0x1c

static struct loop *loop;
static struct pl031 *rtc;

static void setup(void)
{
	struct err err = { "" };

	guest_init();
	cr_assert_eq(loop_create(&loop, "test", &err), 0, "%s", err.text);
	cr_assert_eq(pl031_create(&rtc, &bus, BASE, &wire.line, loop, &err), 0, "%s", err.text);
}

static void teardown(void)
{
	pl031_destroy(rtc);
	loop_destroy(loop);
	guest_finish();
}

TestSuite(pl031, .init = setup, .fini = teardown, .timeout = 60);

/* Wait up to @ms for the wire to be high. */
static bool rings(unsigned ms)
{
	for (; !wire.level && ms; ms--)
		usleep(1000);
	return wire.level;
}

/* Seconds by the clock that the device reads; time()'s lags by up to a tick. */
static uint32_t host_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint32_t)now.tv_sec;
}

Test(pl031, it_shows_the_hosts_time)
{
	uint32_t before = host_seconds();
	uint32_t now = in(DR);

	expect_identity(0x00041031);
	cr_expect_geq(now, before);
	cr_expect_leq(now, host_seconds());
	cr_expect_eq(in(CR), 1, "it runs");
	out(CR, 0);
	cr_expect_eq(in(CR), 1, "and can't be stopped");
	cr_expect_eq(in(RIS), 0);
}

Test(pl031, it_can_be_set)
{
	out(LR, 1000);
	cr_expect_eq(in(LR), 1000);
	cr_expect_geq(in(DR), 1000);
	cr_expect_leq(in(DR), 1030);
	usleep(1100 * 1000);
	cr_expect_geq(in(DR), 1001, "it goes on from there");
	/* It wraps as 32 bits do. */
	out(LR, UINT32_MAX);
	usleep(1100 * 1000);
	cr_expect_leq(in(DR), 100);
}

Test(pl031, the_alarm_goes_off_when_its_second_comes)
{
	uint32_t now = in(DR);

	out(IMSC, 1);
	out(MR, now + 3);
	cr_expect_eq(in(MR), now + 3);
	cr_expect_eq(in(RIS), 0, "not yet");
	cr_expect(rings(6000));
	cr_expect_geq(in(DR), now + 3, "not early");
	cr_expect_eq(in(MIS), 1);
	out(ICR, 1);
	cr_expect_not(wire.level);
	cr_expect_eq(in(RIS), 0);
}

Test(pl031, a_match_that_is_now_rings_at_once)
{
	out(MR, 5000);
	out(LR, 5000);
	out(IMSC, 1);
	cr_expect(rings(3000));
	out(IMSC, 0);
	cr_expect_not(wire.level, "masked");
	cr_expect_eq(in(RIS), 1);
	cr_expect_eq(in(MIS), 0);
}

Test(pl031, setting_the_clock_moves_the_alarm)
{
	out(IMSC, 1);
	out(LR, 100);
	out(MR, 1000);
	cr_expect_not(rings(50));
	out(LR, 999);
	cr_expect(rings(3000));
}

Test(pl031, an_alarm_in_the_past_waits_for_136_years)
{
	out(IMSC, 1);
	out(LR, 5000);
	out(MR, 4990);
	cr_expect_not(rings(1500));
}

Test(pl031, a_reset_keeps_the_time_and_drops_the_alarm)
{
	out(IMSC, 1);
	out(MR, 5000);
	out(LR, 5000);
	cr_expect(rings(3000));
	out(LR, 4999);
	pl031_reset(rtc);
	cr_expect_not(wire.level);
	cr_expect_eq(in(IMSC), 0);
	cr_expect_eq(in(MR), 0);
	cr_expect_geq(in(DR), 4999);
	cr_expect_leq(in(DR), 5100);
	out(IMSC, 1);
	cr_expect_not(rings(1500));
}

Test(pl031, any_access_is_harmless)
{
	access_everything(0x00041031);
}

Test(pl031, an_occupied_address_is_an_error_with_words)
{
	struct pl031 *second = NULL;
	struct err err = { "" };

	cr_expect_eq(pl031_create(&second, &bus, BASE, &wire.line, loop, &err), -EEXIST);
	cr_expect_null(second);
	cr_expect_neq(err.text[0], '\0');
	pl031_destroy(NULL);
}
