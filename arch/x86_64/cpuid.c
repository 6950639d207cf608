#include "arch/x86_64/x86.h"

/*
 * CPU topology in CPUID: one socket of @count cores with one thread each, APIC
 * ID = CPU number. Every leaf that says something about it must agree, or Linux
 * warns and groups the CPUs wrongly; everything else stays what KVM supports.
 */

#define LEAF1_ECX_HYPERVISOR (1u << 31)
#define LEAF1_EDX_HTT	     (1u << 28) /* more than one logical CPU in the package */
#define EXT1_ECX_CMP_LEGACY  (1u << 1)
#define TOPOLOGY_SMT	     1
#define TOPOLOGY_CORE	     2

/* Bits that number @count things. */
static unsigned id_bits(unsigned count)
{
	unsigned bits = 0;

	while ((1u << bits) < count)
		bits++;
	return bits;
}

static struct kvm_cpuid_entry2 *find(struct kvm_cpuid2 *cpuid, uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		if (e->function == function && e->index == index)
			return e;
	}
	return NULL;
}

static void remove_leaf(struct kvm_cpuid2 *cpuid, uint32_t function)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < cpuid->nent; i++) {
		if (cpuid->entries[i].function != function)
			cpuid->entries[n++] = cpuid->entries[i];
	}
	cpuid->nent = n;
}

/* Caches (leaf 4, AMD: 0x8000001d): all cores share the third level, none the others. */
static void set_cache(struct kvm_cpuid_entry2 *e, unsigned count, bool intel)
{
	unsigned type = e->eax & 0x1f, level = e->eax >> 5 & 7;

	if (!type)
		return;
	unsigned sharing = level >= 3 ? (1u << id_bits(count)) - 1 : 0;

	e->eax &= 0x3fff;
	e->eax |= sharing << 14;
	if (intel)
		e->eax |= MIN((1u << id_bits(count)) - 1, 63u) << 26;
}

/* Leaves 0xb and 0x1f: threads of a core, cores of the package, end. */
static void add_extended_topology(struct kvm_cpuid2 *cpuid, unsigned capacity, uint32_t function,
				  unsigned index, unsigned count)
{
	const struct kvm_cpuid_entry2 levels[] = {
		{ .eax = 0, .ebx = 1, .ecx = TOPOLOGY_SMT << 8 },
		{ .eax = id_bits(count), .ebx = count, .ecx = TOPOLOGY_CORE << 8 },
		{ 0 },
	};

	remove_leaf(cpuid, function);
	for (uint32_t i = 0; i < ARRAY_SIZE(levels) && cpuid->nent < capacity; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid->entries[cpuid->nent++];

		*e = levels[i];
		e->function = function;
		e->index = i;
		e->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
		e->ecx |= i;
		e->edx = index;
	}
}

static void set_leaf(struct kvm_cpuid_entry2 *e, unsigned index, unsigned count)
{
	switch (e->function) {
	case 1:
		e->ebx &= 0xffff;
		e->ebx |= index << 24 | MIN(1u << id_bits(count), 255u) << 16;
		e->ecx |= LEAF1_ECX_HYPERVISOR;
		e->edx &= ~LEAF1_EDX_HTT;
		e->edx |= count > 1 ? LEAF1_EDX_HTT : 0;
		break;
	case 4:
		set_cache(e, count, true);
		break;
	case 0x80000008:
		e->ecx &= ~0xf0ffu;
		e->ecx |= (count - 1) | id_bits(count) << 12;
		break;
	case 0x8000001d:
		set_cache(e, count, false);
		break;
	case 0x8000001e:
		e->eax = index;
		e->ebx = index & 0xff; /* core; one thread each */
		e->ecx = 0;	       /* node 0 of one */
		e->edx = 0;
		break;
	}
}

void x86_cpuid_set_topology(struct kvm_cpuid2 *cpuid, unsigned capacity, unsigned index,
			    unsigned count)
{
	const struct kvm_cpuid_entry2 *basic = find(cpuid, 0, 0);
	uint32_t max_basic = basic ? basic->eax : 0;
	bool amd = basic && basic->ebx == 0x68747541; /* "Auth"enticAMD */

	for (uint32_t i = 0; i < cpuid->nent; i++)
		set_leaf(&cpuid->entries[i], index, count);

	struct kvm_cpuid_entry2 *ext1 = find(cpuid, 0x80000001, 0);

	if (ext1 && amd) {
		ext1->ecx &= ~EXT1_ECX_CMP_LEGACY;
		ext1->ecx |= count > 1 ? EXT1_ECX_CMP_LEGACY : 0;
	}
	/* AMD's newer form of leaf 0xb would describe the host. */
	remove_leaf(cpuid, 0x80000026);
	if (max_basic >= 0xb)
		add_extended_topology(cpuid, capacity, 0xb, index, count);
	if (max_basic >= 0x1f)
		add_extended_topology(cpuid, capacity, 0x1f, index, count);
}
