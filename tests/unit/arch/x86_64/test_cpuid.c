/* What a guest computes from CPUID must be the same topology by every leaf. */

#include <criterion/criterion.h>
#include <stdlib.h>
#include "arch/x86_64/x86.h"

#define CAPACITY 64

static struct kvm_cpuid2 *make(uint32_t vendor_ebx)
{
	static const struct kvm_cpuid_entry2 host[] = {
		{ .function = 0, .eax = 0x1f },
		{ .function = 1, .ebx = 0xaabb0800, .edx = 0x1 },
		{ .function = 4, .index = 0, .eax = 0xfc004121 }, /* L1 data, shared by 2 */
		{ .function = 4, .index = 1, .eax = 0xfc03c163 }, /* L3, shared by 16 */
		{ .function = 4, .index = 2, .eax = 0 },
		{ .function = 0xb, .index = 0, .eax = 1, .ebx = 2, .ecx = 0x100, .edx = 77 },
		{ .function = 0xb, .index = 1, .eax = 6, .ebx = 48, .ecx = 0x201, .edx = 77 },
		{ .function = 0x40000000, .eax = 0x40000001 },
		{ .function = 0x80000001, .ecx = 0 },
		{ .function = 0x80000008, .eax = 0x302e, .ecx = 0x702f },
		{ .function = 0x8000001e, .eax = 77, .ebx = 0x110, .ecx = 0x300 },
		{ .function = 0x80000026, .index = 0, .eax = 1, .ebx = 2 },
	};
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + CAPACITY * sizeof(c->entries[0]));

	memcpy(c->entries, host, sizeof(host));
	c->nent = ARRAY_SIZE(host);
	c->entries[0].ebx = vendor_ebx;
	return c;
}

static const struct kvm_cpuid_entry2 *get(const struct kvm_cpuid2 *c, uint32_t function,
					  uint32_t index)
{
	const struct kvm_cpuid_entry2 *found = NULL;

	for (uint32_t i = 0; i < c->nent; i++) {
		if (c->entries[i].function == function && c->entries[i].index == index) {
			cr_assert_null(found, "leaf 0x%x.%u is there twice", function, index);
			found = &c->entries[i];
		}
	}
	return found;
}

Test(cpuid, every_leaf_tells_the_same_topology)
{
	static const unsigned counts[] = { 1, 2, 3, 4, 16, 17, 240 };

	for (size_t n = 0; n < ARRAY_SIZE(counts); n++) {
		unsigned count = counts[n], index = count - 1, shift = 0;
		struct kvm_cpuid2 *c = make(0x756e6547);

		while (1u << shift < count)
			shift++;
		x86_cpuid_set_topology(c, CAPACITY, index, count);
		cr_assert_eq(get(c, 1, 0)->ebx >> 24, index);
		cr_assert_eq(get(c, 1, 0)->ebx & 0xffff, 0x0800, "CLFLUSH size was lost");
		cr_assert_eq(get(c, 1, 0)->edx >> 28 & 1, count > 1);
		cr_assert_eq(get(c, 1, 0)->ecx >> 31, 1, "no hypervisor bit");
		cr_assert_eq(get(c, 4, 0)->eax >> 14 & 0xfff, 0, "L1 is private");
		cr_assert_eq(get(c, 4, 1)->eax >> 14 & 0xfff, (1u << shift) - 1, "L3 is shared");
		cr_assert_eq(get(c, 4, 1)->eax & 0x3fff, 0x163 & 0x3fff);
		cr_assert_eq(get(c, 4, 2)->eax, 0, "the end of the list was lost");
		for (uint32_t leaf = 0xb; leaf <= 0x1f; leaf += 0x1f - 0xb) {
			cr_assert_eq(get(c, leaf, 0)->eax, 0, "one thread per core");
			cr_assert_eq(get(c, leaf, 0)->ebx, 1);
			cr_assert_eq(get(c, leaf, 0)->ecx, 0x100);
			cr_assert_eq(get(c, leaf, 1)->eax, shift);
			cr_assert_eq(get(c, leaf, 1)->ebx, count);
			cr_assert_eq(get(c, leaf, 1)->ecx, 0x201);
			cr_assert_eq(get(c, leaf, 1)->edx, index);
			cr_assert_eq(get(c, leaf, 2)->ecx, 2, "the end");
		}
		cr_assert_eq(get(c, 0x80000008, 0)->eax, 0x302e, "address widths were lost");
		cr_assert_eq(get(c, 0x80000008, 0)->ecx & 0xff, count - 1);
		cr_assert_eq(get(c, 0x80000008, 0)->ecx >> 12 & 0xf, shift);
		cr_assert_eq(get(c, 0x8000001e, 0)->eax, index);
		cr_assert_eq(get(c, 0x8000001e, 0)->ebx >> 8, 0, "one thread per core");
		cr_assert_eq(get(c, 0x8000001e, 0)->ecx, 0, "one node");
		cr_assert_null(get(c, 0x80000026, 0), "the host's topology shows");
		cr_assert_eq(get(c, 0x40000000, 0)->eax, 0x40000001, "KVM's leaves were lost");
		free(c);
	}
}

Test(cpuid, amd_says_that_the_threads_are_cores)
{
	struct kvm_cpuid2 *c = make(0x68747541);

	x86_cpuid_set_topology(c, CAPACITY, 1, 4);
	cr_assert_eq(get(c, 0x80000001, 0)->ecx & 2, 2);
	free(c);
	c = make(0x68747541);
	x86_cpuid_set_topology(c, CAPACITY, 0, 1);
	cr_assert_eq(get(c, 0x80000001, 0)->ecx & 2, 0);
	free(c);
}

Test(cpuid, a_full_table_is_not_overrun)
{
	struct kvm_cpuid2 *c = make(0x756e6547);
	unsigned full = c->nent;

	x86_cpuid_set_topology(c, full, 0, 2);
	cr_assert_leq(c->nent, full);
	free(c);
}
