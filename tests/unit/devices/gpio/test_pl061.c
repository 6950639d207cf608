/* The GPIO controller as Linux's gpio-pl061 and gpio-keys use it. */
#include "devices/gpio/pl061.h"

#include <errno.h>
#include "tests/unit/devices/primecell/guest.h"

#define DATA(mask) ((mask) << 2)
#define DIR	   0x400
#define IS	   0x404
#define IBE	   0x408
#define IEV	   0x40c
#define IE	   0x410
#define RIS	   0x414
#define MIS	   0x418
#define IC	   0x41c

#define LINE   3
#define BUTTON (1u << LINE)

static struct pl061 *gpio;

static void setup(void)
{
	struct err err = { "" };

	guest_init();
	cr_assert_eq(pl061_create(&gpio, &bus, BASE, &wire.line, &err), 0);
}

static void teardown(void)
{
	pl061_destroy(gpio);
	guest_finish();
}

TestSuite(pl061, .init = setup, .fini = teardown, .timeout = 60);

Test(pl061, after_power_on_all_lines_are_low_inputs)
{
	expect_identity(0x00041061);
	cr_expect_eq(in(DATA(0xff)), 0);
	cr_expect_eq(in(DIR), 0);
	cr_expect_eq(in(IE), 0);
	cr_expect_eq(in(RIS), 0);
	cr_expect_not(wire.level);
}

/* gpio-keys: both edges; an interrupt, a pause, a look at the line; and again for the release. */
Test(pl061, a_press_is_seen_and_released)
{
	out(IBE, BUTTON);
	out(IC, 0xff);
	out(IE, BUTTON);
	pl061_press(gpio, LINE);
	cr_expect(wire.level);
	cr_expect_eq(in(MIS), BUTTON);
	out(IC, BUTTON);
	cr_expect_not(wire.level);

	/* Other lines don't end it, however often they are read. */
	cr_expect_eq(in(DATA(0xff & ~BUTTON)), 0);
	cr_expect_not(wire.level);
	cr_expect_eq(in(DATA(BUTTON)), BUTTON, "still down when the driver looks");
	cr_expect(wire.level, "the release is an edge");
	out(IC, BUTTON);
	cr_expect_not(wire.level);
	cr_expect_eq(in(DATA(BUTTON)), 0);

	pl061_press(gpio, LINE);
	cr_expect(wire.level, "it can be pressed again");
	cr_expect_eq(wire.rises, 3);
}

Test(pl061, a_press_waits_for_its_driver)
{
	pl061_press(gpio, LINE);
	pl061_press(gpio, LINE);
	cr_expect_not(wire.level, "masked");
	out(IBE, BUTTON);
	out(IE, BUTTON);
	/* What gpio-keys does when it is opened. */
	cr_expect_eq(in(DATA(BUTTON)), BUTTON);
	out(IC, BUTTON);
	cr_expect_eq(in(DATA(BUTTON)), 0, "two presses, never released between, are one");
}

Test(pl061, one_edge_of_two)
{
	out(IEV, BUTTON);
	out(IE, BUTTON);
	pl061_press(gpio, LINE);
	cr_expect(wire.level, "rising");
	out(IC, BUTTON);
	in(DATA(BUTTON));
	cr_expect_not(wire.level, "not falling");

	out(IEV, 0);
	pl061_press(gpio, LINE);
	cr_expect_not(wire.level, "not rising");
	in(DATA(BUTTON));
	cr_expect(wire.level, "falling");
}

Test(pl061, levels_last_as_long_as_the_line)
{
	out(IS, BUTTON);
	out(IEV, BUTTON);
	out(IE, BUTTON);
	pl061_press(gpio, LINE);
	cr_expect(wire.level);
	out(IC, 0xff);
	cr_expect(wire.level, "a level isn't cleared");
	in(DATA(BUTTON));
	cr_expect_not(wire.level);
	out(IEV, 0);
	cr_expect(wire.level, "low is a level as well");
	cr_expect_eq(in(MIS), BUTTON);
	/* Back to edges: none was seen. */
	out(IS, 0);
	cr_expect_eq(in(RIS), 0);
}

Test(pl061, outputs_read_back_and_cover_the_button)
{
	out(DIR, 0x0f);
	out(DATA(0x05), 0xff);
	cr_expect_eq(in(DATA(0xff)), 0x05, "only what the address selects");
	out(DATA(0xff), 0xf2);
	cr_expect_eq(in(DATA(0xff)), 0x02, "inputs aren't written");
	out(IC, 0xff);
	out(IBE, 0xff);
	out(IE, 0xff);
	pl061_press(gpio, LINE);
	cr_expect_eq(in(DATA(BUTTON)), 0);
	cr_expect_not(wire.level);
	out(DIR, 0);
	cr_expect_eq(in(DATA(BUTTON)), BUTTON, "an input again");
}

Test(pl061, any_access_is_harmless)
{
	access_everything(0x00041061);
	for (unsigned line = 0; line < PL061_NUM_LINES; line++)
		pl061_press(gpio, line);
	access_everything(0x00041061);
}

Test(pl061, a_reset_is_as_power_on)
{
	out(IBE, 0xff);
	out(IE, 0xff);
	out(DIR, 0x01);
	pl061_press(gpio, LINE);
	cr_expect(wire.level);
	pl061_reset(gpio);
	cr_expect_not(wire.level);
	cr_expect_eq(in(DATA(0xff)), 0);
	cr_expect_eq(in(DIR), 0);
	cr_expect_eq(in(RIS), 0);
}

Test(pl061, an_occupied_address_is_an_error_with_words)
{
	struct pl061 *second = NULL;
	struct err err = { "" };

	cr_expect_eq(pl061_create(&second, &bus, BASE + 0x800, &wire.line, &err), -EEXIST);
	cr_expect_null(second);
	cr_expect_neq(err.text[0], '\0');
	pl061_destroy(NULL);
}
