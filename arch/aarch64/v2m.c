#include "arch/aarch64/a64.h"

/*
 * The MSI frame that stands beside a GICv2 (Server Base System Architecture 2.3,
 * appendix E): a device writes the number of a shared interrupt to SETSPI_NS, and
 * that interrupt is raised. KVM has no model of it. The devices' messages don't come
 * here either: the MSI sink makes routes to the interrupts out of them
 * (vm_set_msi_pins). What is left is what the guest's driver reads.
 */

#include <errno.h>
#include <string.h>

#define V2M_TYPER	   0x008 /* first interrupt << 16 | how many */
#define V2M_TYPER_BASE	   16
#define V2M_SETSPI	   0x040
#define V2M_IIDR	   0xfcc
#define V2M_IIDR_NO_VENDOR 0

static uint64_t v2m_read(void *opaque, uint64_t offset, unsigned size)
{
	switch (offset) {
	case V2M_TYPER:
		return (A64_FIRST_SPI + A64_GSI_V2M) << V2M_TYPER_BASE | A64_NUM_V2M_GSIS;
	case V2M_IIDR:
		return V2M_IIDR_NO_VENDOR;
	default:
		return 0;
	}
}

static void v2m_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	/* A CPU's own write to the doorbell: Linux never does that. */
}

static const struct bus_ops v2m_ops = { .read = v2m_read, .write = v2m_write };

int a64_v2m_create(struct arch *arch, struct err *err)
{
	const struct bus_window window = { A64_MSI, A64_V2M_SIZE, &v2m_ops, arch, "v2m" };
	int r = bus_add(arch->mmio, &window);

	if (r < 0)
		return err_set(err, -r, "the MSI frame's window: %s", strerror(-r));
	vm_set_msi_pins(arch->vm, GPA(A64_MSI + V2M_SETSPI), A64_FIRST_SPI, A64_GSI_V2M,
			A64_NUM_V2M_GSIS);
	return 0;
}

void a64_v2m_destroy(struct arch *arch)
{
	bus_remove(arch->mmio, A64_MSI, arch);
}
