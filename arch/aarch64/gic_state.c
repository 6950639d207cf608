#include "arch/aarch64/a64.h"

/*
 * A machine reset must put the interrupt controller back: KVM_ARM_VCPU_INIT resets
 * CPUs only, and Linux gives up on a redistributor whose LPIs are already enabled.
 * KVM has a reset command for the ITS alone; the rest is written register by
 * register (Documentation/virt/kvm/devices/arm-vgic-v3.rst, arm-vgic.rst), with what
 * was read right after creation, or, where a write is a command ("clear enable"),
 * with ones. What gives the interrupts their way goes first, so that nothing is
 * delivered in between.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* 32 interrupts each. */
#define SPI_WORDS (ALIGN_UP(A64_FIRST_SPI + A64_NUM_GSIS, 32) / 32 - 1)
#define AFFINITY  0xffffffu /* Aff2 to Aff0; KVM uses no Aff3 */

/* A run of registers, a step apart. */
struct run {
	uint32_t attr; /* offset, or encoding of a system register */
	uint16_t count, step;
	enum { KEEP, ZEROES, ONES } write;
};

#define SYSREG(op1, crn, crm, op2) (3 << 14 | (op1) << 11 | (crn) << 7 | (crm) << 3 | (op2))

/* GICv3. Once; shared interrupts only, as 0 to 31 are the redistributors'. */
static const struct run v3_distributor[] = {
	{ 0x0000, 1, 4, KEEP },			 /* GICD_CTLR */
	{ 0x0184, SPI_WORDS, 4, ONES },		 /* GICD_ICENABLER */
	{ 0x0204, SPI_WORDS, 4, ZEROES },	 /* GICD_ISPENDR: here KVM takes it as a value */
	{ 0x0384, SPI_WORDS, 4, ONES },		 /* GICD_ICACTIVER */
	{ 0x0084, SPI_WORDS, 4, KEEP },		 /* GICD_IGROUPR */
	{ 0x0420, 8 * SPI_WORDS, 4, KEEP },	 /* GICD_IPRIORITYR */
	{ 0x0c08, 2 * SPI_WORDS, 4, KEEP },	 /* GICD_ICFGR */
	{ 0x6100, 2 * 32 * SPI_WORDS, 4, KEEP }, /* GICD_IROUTER, in halves */
};

/* For each CPU; the second frame, of its own interrupts, begins at 0x10000. */
static const struct run v3_redistributor[] = {
	{ 0x00000, 1, 4, KEEP },   /* GICR_CTLR: LPIs off, before the next four can change */
	{ 0x00070, 2, 4, KEEP },   /* GICR_PROPBASER */
	{ 0x00078, 2, 4, KEEP },   /* GICR_PENDBASER */
	{ 0x10180, 1, 4, ONES },   /* GICR_ICENABLER0 */
	{ 0x10200, 1, 4, ZEROES }, /* GICR_ISPENDR0 */
	{ 0x10380, 1, 4, ONES },   /* GICR_ICACTIVER0 */
	{ 0x10080, 1, 4, KEEP },   /* GICR_IGROUPR0 */
	{ 0x10400, 8, 4, KEEP },   /* GICR_IPRIORITYR */
	{ 0x10c04, 1, 4, KEEP },   /* GICR_ICFGR1 */
};

static const struct run v3_cpu_interface[] = {
	{ SYSREG(0, 12, 12, 6), 2, 1, KEEP }, /* ICC_IGRPEN0_EL1, ICC_IGRPEN1_EL1 */
	{ SYSREG(0, 4, 6, 0), 1, 1, KEEP },   /* ICC_PMR_EL1 */
	{ SYSREG(0, 12, 12, 4), 1, 1, KEEP }, /* ICC_CTLR_EL1 */
	{ SYSREG(0, 12, 8, 3), 1, 1, KEEP },  /* ICC_BPR0_EL1 */
	{ SYSREG(0, 12, 12, 3), 1, 1, KEEP }, /* ICC_BPR1_EL1 */
	{ SYSREG(0, 12, 8, 4), 4, 1, KEEP },  /* ICC_AP0R0_EL1 and up: not all CPUs have all */
	{ SYSREG(0, 12, 9, 0), 4, 1, KEEP },  /* ICC_AP1R0_EL1 and up */
};

/* GICv2. For each CPU: the registers of interrupts 0 to 31 are banked. */
static const struct run v2_distributor[] = {
	{ 0x000, 1, 4, KEEP },			 /* GICD_CTLR */
	{ 0x180, SPI_WORDS + 1, 4, ONES },	 /* GICD_ICENABLER */
	{ 0x280, SPI_WORDS + 1, 4, ONES },	 /* GICD_ICPENDR */
	{ 0xf10, 4, 4, ONES },			 /* GICD_CPENDSGIR */
	{ 0x380, SPI_WORDS + 1, 4, ONES },	 /* GICD_ICACTIVER */
	{ 0x400, 8 * (SPI_WORDS + 1), 4, KEEP }, /* GICD_IPRIORITYR */
	{ 0x820, 8 * SPI_WORDS, 4, KEEP },	 /* GICD_ITARGETSR */
	{ 0xc00, 2 * (SPI_WORDS + 1), 4, KEEP }, /* GICD_ICFGR */
};

static const struct run v2_cpu_interface[] = {
	{ 0x00, 3, 4, KEEP }, /* GICC_CTLR, GICC_PMR, GICC_BPR */
	{ 0x1c, 1, 4, KEEP }, /* GICC_ABPR */
	{ 0xd0, 4, 4, KEEP }, /* GICC_APR */
};

static const struct table {
	unsigned version;
	bool per_cpu;
	uint32_t group;
	const struct run *run;
	size_t num_runs;
} tables[] = {
	{ 3, false, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, v3_distributor, ARRAY_SIZE(v3_distributor) },
	{ 3, true, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, v3_redistributor,
	  ARRAY_SIZE(v3_redistributor) },
	{ 3, true, KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, v3_cpu_interface,
	  ARRAY_SIZE(v3_cpu_interface) },
	{ 2, true, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, v2_distributor, ARRAY_SIZE(v2_distributor) },
	{ 2, true, KVM_DEV_ARM_VGIC_GRP_CPU_REGS, v2_cpu_interface, ARRAY_SIZE(v2_cpu_interface) },
};

/* Whose register: GICv3 names a CPU by its affinity, GICv2 by its number. */
static uint64_t cpu_attr(const struct arch *arch, unsigned cpu)
{
	if (arch->gic.version == 3)
		return (arch->mpidr[cpu] & AFFINITY) << KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT;
	return (uint64_t)cpu << KVM_DEV_ARM_VGIC_CPUID_SHIFT;
}

static int save_run(struct a64_gic *gic, const struct table *table, const struct run *run,
		    uint64_t cpu)
{
	for (unsigned i = 0; i < run->count; i++) {
		struct a64_gic_reg *reg = &gic->reg[gic->num_regs];
		int r = 0;

		reg->group = table->group;
		reg->attr = cpu | (run->attr + i * run->step);
		reg->value = run->write == ONES ? UINT32_MAX : 0;
		if (run->write == KEEP)
			r = kvm_device_get(&gic->chip, reg->group, reg->attr, &reg->value);
		/* Not every CPU has all priority registers; KVM says either. */
		if (r == -ENXIO || r == -EINVAL)
			continue;
		if (r < 0)
			return r;
		gic->num_regs++;
	}
	return 0;
}

static unsigned count_regs(const struct arch *arch)
{
	unsigned n = 0;

	for (size_t t = 0; t < ARRAY_SIZE(tables); t++) {
		if (tables[t].version != arch->gic.version)
			continue;
		for (size_t i = 0; i < tables[t].num_runs; i++)
			n += tables[t].run[i].count * (tables[t].per_cpu ? arch->num_cpus : 1);
	}
	return n;
}

int a64_gic_save(struct arch *arch, struct err *err)
{
	struct a64_gic *gic = &arch->gic;

	gic->reg = calloc(count_regs(arch), sizeof(*gic->reg));
	if (!gic->reg)
		return err_set(err, ENOMEM, "out of memory");
	for (size_t t = 0; t < ARRAY_SIZE(tables); t++) {
		const struct table *table = &tables[t];
		unsigned cpus = table->per_cpu ? arch->num_cpus : 1;

		if (table->version != gic->version)
			continue;
		for (size_t i = 0; i < cpus * table->num_runs; i++) {
			const struct run *run = &table->run[i % table->num_runs];
			uint64_t cpu = 0;

			if (table->per_cpu)
				cpu = cpu_attr(arch, (unsigned)(i / table->num_runs));
			int r = save_run(gic, table, run, cpu);

			if (r < 0)
				return err_set(err, -r,
					       "KVM: interrupt controller: can't read register "
					       "0x%x: %s",
					       run->attr, strerror(-r));
		}
	}
	return 0;
}

int a64_gic_restore(struct arch *arch, struct err *err)
{
	struct a64_gic *gic = &arch->gic;
	int r = 0;

	if (gic->version == 3)
		r = kvm_device_set(&gic->its, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_ITS_CTRL_RESET,
				   NULL);
	if (r < 0)
		return err_set(err, -r, "KVM can't reset the ITS: %s", strerror(-r));
	for (unsigned i = 0; i < gic->num_regs; i++) {
		const struct a64_gic_reg *reg = &gic->reg[i];

		r = kvm_device_set(&gic->chip, reg->group, reg->attr, &reg->value);
		if (r < 0)
			return err_set(err, -r,
				       "KVM: interrupt controller: can't reset register 0x%" PRIx64
				       ": %s",
				       reg->attr, strerror(-r));
	}
	return 0;
}
