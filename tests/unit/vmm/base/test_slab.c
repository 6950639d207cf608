/* slab: objects that don't overlap, are recycled, and go back only all at once. */

#include <criterion/criterion.h>
#include <stdlib.h>
#include "vmm/base/slab.h"

Test(slab, objects_are_apart_and_aligned)
{
	static void *object[10000];
	struct slab slab = { .size = 32 };

	for (unsigned i = 0; i < ARRAY_SIZE(object); i++) {
		object[i] = slab_take(&slab);
		cr_assert_eq((uintptr_t)object[i] % 32, 0);
		memset(object[i], (int)(i % 251), 32);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(object); i++) {
		for (unsigned k = 0; k < 32; k++)
			cr_assert_eq(((uint8_t *)object[i])[k], i % 251);
	}
	slab_finish(&slab);
	cr_assert_eq(slab.bytes, 0);
}

Test(slab, what_is_given_back_is_used_again)
{
	static void *object[5000];
	struct slab slab = { .size = 1024 };

	for (unsigned i = 0; i < ARRAY_SIZE(object); i++)
		object[i] = slab_take(&slab);
	uint64_t bytes = slab.bytes;

	cr_assert_leq(bytes, 2 * sizeof(object) / sizeof(object[0]) * 1024);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < ARRAY_SIZE(object); i++) {
			/* All but the last pointer keeps its bytes for a late reader. */
			memset(object[i], 0x5a, 1024);
			slab_give(&slab, object[i]);
			cr_assert_eq(((uint8_t *)object[i])[1015], 0x5a);
		}
		for (unsigned i = 0; i < ARRAY_SIZE(object); i++)
			object[i] = slab_take(&slab);
	}
	cr_assert_eq(slab.bytes, bytes);
	slab_finish(&slab);
}

Test(slab, a_reservation_is_kept)
{
	struct slab slab = { .size = 1024 };

	for (unsigned i = 0; i < 1000; i++) {
		cr_assert_eq(slab_reserve(&slab, 13), 0);
		uint64_t bytes = slab.bytes;

		for (unsigned k = 0; k < 13; k++)
			cr_assert_not_null(slab_take(&slab));
		cr_assert_eq(slab.bytes, bytes, "no memory was asked for since the reservation");
	}
	slab_finish(&slab);
}
