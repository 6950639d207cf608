/* Guest memory: no address outside it becomes a pointer, and its size costs nothing. */
#include "vmm/core/ram.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sys/stat.h>

static const struct ram_layout split = {
	.count = 2,
	.region = { { { 0 }, MIB(1) }, { { GIB(4) }, MIB(2) } },
};

static struct ram *make(const struct ram_layout *layout)
{
	struct ram *ram = NULL;
	struct err err = { "" };

	cr_assert_eq(ram_create(&ram, layout, &err), 0, "%s", err.text);
	return ram;
}

Test(ram, pointers_stay_inside_one_region)
{
	struct ram *ram = make(&split);
	char *low = ram_ptr(ram, GPA(0), MIB(1));

	cr_assert_not_null(low);
	cr_expect_eq(ram_ptr(ram, GPA(MIB(1) - 1), 1), low + MIB(1) - 1);
	cr_expect_null(ram_ptr(ram, GPA(0), MIB(1) + 1));
	cr_expect_null(ram_ptr(ram, GPA(MIB(1) - 1), 2));
	cr_expect_null(ram_ptr(ram, GPA(MIB(1)), 1), "the hole has no pointer");
	cr_expect_null(ram_ptr(ram, GPA(GIB(4) - 1), 2), "nor has a range that starts in it");
	cr_expect_eq(ram_ptr(ram, GPA(GIB(4)), MIB(2)), low + MIB(1));
	cr_expect_null(ram_ptr(ram, GPA(GIB(4) + MIB(2)), 1));
	ram_destroy(ram);
}

Test(ram, lengths_and_addresses_that_overflow_are_refused)
{
	struct ram *ram = make(&split);
	char byte = 0;

	cr_expect_null(ram_ptr(ram, GPA(16), UINT64_MAX));
	cr_expect_null(ram_ptr(ram, GPA(16), UINT64_MAX - 15));
	cr_expect_null(ram_ptr(ram, GPA(UINT64_MAX), 1));
	cr_expect_null(ram_ptr(ram, GPA(UINT64_MAX), 2));
	cr_expect_eq(ram_write(ram, GPA(16), &byte, UINT64_MAX), -EFAULT);
	cr_expect_eq(ram_write(ram, GPA(UINT64_MAX), &byte, 1), -EFAULT);
	ram_destroy(ram);
}

Test(ram, an_empty_range_exists_only_where_memory_is)
{
	struct ram *ram = make(&split);

	cr_expect_not_null(ram_ptr(ram, GPA(MIB(1) - 1), 0));
	cr_expect_null(ram_ptr(ram, GPA(MIB(1)), 0));
	ram_destroy(ram);
}

Test(ram, span_stops_at_the_regions_end)
{
	struct ram *ram = make(&split);
	uint64_t len = 77;

	cr_expect_not_null(ram_span(ram, GPA(MIB(1) - 100), 4096, &len));
	cr_expect_eq(len, 100);
	len = 77;
	cr_expect_null(ram_span(ram, GPA(MIB(3)), 1, &len));
	cr_expect_eq(len, 77, "outputs are set on success only");
	ram_destroy(ram);
}

Test(ram, copies_cross_adjacent_regions_and_nothing_else)
{
	static const struct ram_layout adjacent = {
		.count = 3,
		.region = { { { 0 }, KIB(4) }, { { KIB(4) }, KIB(4) }, { { KIB(12) }, KIB(4) } },
	};
	struct ram *ram = make(&adjacent);
	unsigned char out[KIB(8)], in[4];

	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (unsigned char)(i * 7 + 1);
	cr_expect_eq(ram_write(ram, GPA(0), out, sizeof(out)), 0);
	cr_expect_arr_eq((unsigned char *)ram_ptr(ram, GPA(0), KIB(4)), out, KIB(4));
	cr_expect_arr_eq((unsigned char *)ram_ptr(ram, GPA(KIB(4)), KIB(4)), out + KIB(4), KIB(4));

	/* A write that would end in the hole changes nothing, not even its good part. */
	memset(in, 0xee, sizeof(in));
	cr_expect_eq(ram_write(ram, GPA(KIB(8) - 2), in, sizeof(in)), -EFAULT);
	cr_expect_arr_eq((unsigned char *)ram_ptr(ram, GPA(KIB(8) - 2), 2), out + KIB(8) - 2, 2);
	ram_destroy(ram);
}

Test(ram, half_a_terabyte_is_free_until_it_is_touched)
{
	static const struct ram_layout huge = {
		.count = 2,
		.region = { { { 0 }, GIB(3) }, { { GIB(4) }, GIB(509) } },
	};
	struct ram *ram = make(&huge);
	uint64_t last = GIB(4) + GIB(509) - 8, value = 42;
	struct stat st;

	cr_expect_eq(ram_write(ram, GPA(last), &value, sizeof(value)), 0);
	cr_expect_eq(*(uint64_t *)ram_ptr(ram, GPA(last), sizeof(value)), 42);
	cr_expect_eq(fstat(ram->fd, &st), 0);
	cr_expect_leq((uint64_t)st.st_blocks * 512, MIB(4), "one page, be it a huge one");
	ram_destroy(ram);
}

Test(ram, destroy_accepts_null)
{
	ram_destroy(NULL);
}
