#include <criterion/criterion.h>

#include <errno.h>
#include <string.h>
#include "vmm/machine_state.h"

/*
 * Where devices go and what the platform says of it, for command lines as a
 * person types them. No device is created.
 */

#define GSIS 14

static struct config config;
static struct machine machine;
static unsigned groups[CONFIG_MAX_VFIOS]; /* struct machine.vfio_group */

static int place(struct err *err, char *const words[])
{
	int argc = 0;

	while (words[argc])
		argc++;
	*err = (struct err){ 0 };
	cr_assert_eq(config_parse(&config, argc, words, err), 0, "%s", err->text);
	machine = (struct machine){ .config = &config };
	machine.map.num_mmio_gsis = GSIS;
	memcpy(machine.vfio_group, groups, sizeof(groups));

	int r = machine_place_devices(&machine, err);

	if (r == 0)
		machine_describe_devices(&machine);
	return r;
}

#define PLACE(...)                                                                              \
	do {                                                                                    \
		struct err err_;                                                                \
		cr_assert_eq(place(&err_, (char *[]){ "--kernel", "k", __VA_ARGS__, NULL }), 0, \
			     "%s", err_.text);                                                  \
	} while (0)

static void finish(void)
{
	config_finish(&config);
}

TestSuite(placement, .fini = finish);

static const struct machine_device *device(const char *name)
{
	for (unsigned i = 0; i < machine.num_devices; i++)
		if (!strcmp(machine.device[i].name, name))
			return &machine.device[i];
	cr_assert_fail("no %s", name);
	return NULL;
}

/* The IOMMU that the tables name for a PCI slot, or PLATFORM_NO_IOMMU. */
static uint32_t table_iommu(unsigned slot)
{
	uint32_t found = PLATFORM_NO_IOMMU;

	for (unsigned i = 0; i < machine.platform.num_pci_ranges; i++) {
		const struct platform_pci_range *range = &machine.platform.pci_range[i];

		if (range->bdf_start > slot << 3 || range->bdf_end < (slot << 3 | 7))
			continue;
		cr_assert_eq(found, PLATFORM_NO_IOMMU, "slot %u is in two ranges", slot);
		found = range->iommu;
	}
	return found;
}

/* Every device has a place and an endpoint ID of its own, and the tables say the truth. */
static void check_all(void)
{
	for (unsigned i = 0; i < machine.num_devices; i++) {
		const struct machine_device *d = &machine.device[i];

		for (unsigned j = 0; j < i; j++)
			cr_assert_neq(d->endpoint, machine.device[j].endpoint, "%s and %s", d->name,
				      machine.device[j].name);
		if (d->bus == CONFIG_BUS_PCI) {
			cr_assert(d->place >= 1 && d->place < PCI_NUM_SLOTS);
			cr_assert_eq(table_iommu(d->place), d->iommu, "%s", d->name);
		} else {
			const struct platform_mmio_dev *dev = &machine.platform.mmio[d->place];

			cr_assert_eq(dev->iommu, d->iommu, "%s", d->name);
			cr_assert_eq(dev->endpoint, d->endpoint);
			cr_assert_eq(dev->is_iommu, d->kind == DEVICE_VIOMMU);
		}
	}
	cr_assert_eq(machine.platform.num_iommus, config.num_viommus);
}

Test(placement, without_an_iommu)
{
	PLACE("--disk", "path=d", "--net", "user");
	check_all();
	cr_assert_eq(machine.platform.num_pci_ranges, 0);
	cr_assert_eq(device("disk0")->place, 1);
	cr_assert_eq(device("net0")->place, 2);
}

Test(placement, one_iommu_has_all_spares)
{
	PLACE("--viommu", "--disk", "path=d", "--net", "user,iommu=off");
	check_all();
	cr_assert_eq(device("viommu")->place, 1);
	cr_assert_eq(device("disk0")->place, 2);
	cr_assert_eq(device("net0")->place, 31);
	cr_assert_eq(machine.platform.num_pci_ranges, 1);
	cr_assert_eq(machine.platform.pci_range[0].bdf_start, 2 << 3);
	cr_assert_eq(machine.platform.pci_range[0].bdf_end, 30 << 3 | 7);
}

Test(placement, each_iommu_has_a_block_with_spares)
{
	PLACE("--viommu=name=a", "--viommu=name=b,bus=mmio", "--viommu=name=c", "--disk",
	      "path=d,iommu=b", "--disk", "path=d,iommu=c", "--disk", "path=d,iommu=b", "--disk",
	      "path=d,iommu=off", "--net", "user,iommu=a,bus=mmio", "--rng");
	check_all();
	cr_assert_eq(device("a")->place, 1);
	cr_assert_eq(device("c")->place, 2);
	cr_assert_eq(device("b")->endpoint, MACHINE_MMIO_ENDPOINT);
	cr_assert_eq(device("net0")->endpoint, MACHINE_MMIO_ENDPOINT + 1);
	cr_assert_eq(device("disk3")->place, 31);
	cr_assert_eq(machine.platform.num_pci_ranges, 3);

	/* 28 slots for 4 devices and 24 spares, the blocks side by side. */
	const struct platform_pci_range *range = machine.platform.pci_range;

	cr_assert_eq(range[0].bdf_start, 3 << 3);
	cr_assert_eq(range[0].bdf_end, 11 << 3 | 7, "the rng and 8 spares");
	cr_assert_eq(range[1].bdf_start, 12 << 3);
	cr_assert_eq(range[1].bdf_end, 21 << 3 | 7, "two disks and 8 spares");
	cr_assert_eq(range[2].bdf_start, 22 << 3);
	cr_assert_eq(range[2].bdf_end, 30 << 3 | 7, "a disk and 8 spares");
}

Test(placement, spares_that_do_not_divide_are_not_lost)
{
	PLACE("--viommu=name=a", "--viommu=name=b", "--rng");
	check_all();
	cr_assert_eq(machine.platform.pci_range[0].bdf_start, 3 << 3);
	cr_assert_eq(machine.platform.pci_range[1].bdf_end, 31 << 3 | 7);
}

#define D(iommu)  "--disk", "path=d,iommu=" #iommu
#define D8(iommu) D(iommu), D(iommu), D(iommu), D(iommu), D(iommu), D(iommu), D(iommu), D(iommu)
#define N(iommu)  "--net", "user,iommu=" #iommu

/* The last slot is used, and an IOMMU without a slot for its devices has no range. */
Test(placement, a_full_bus)
{
	PLACE("--viommu=name=a", "--viommu=name=b", D8(a), D8(a), D8(a), N(a), N(a), N(off), N(off),
	      N(off));
	check_all();
	cr_assert_eq(machine.num_devices, 31);
	cr_assert_eq(machine.platform.num_pci_ranges, 1);
}

Test(placement, too_many)
{
	struct err err;
	char *const pci[] = { "--kernel",
			      "k",
			      "--viommu=name=a",
			      "--viommu=name=b",
			      D8(a),
			      D8(b),
			      D8(off),
			      N(a),
			      N(a),
			      N(a),
			      N(a),
			      N(a),
			      N(b),
			      NULL };
	char *const mmio[] = { "--kernel",	  "k",	    "--viommu=bus=mmio", "--disk",
			       "path=d,bus=mmio", "--disk", "path=d,bus=mmio",	 "--disk",
			       "path=d,bus=mmio", "--disk", "path=d,bus=mmio",	 "--disk",
			       "path=d,bus=mmio", "--disk", "path=d,bus=mmio",	 "--disk",
			       "path=d,bus=mmio", "--disk", "path=d,bus=mmio",	 "--disk",
			       "path=d,bus=mmio", "--disk", "path=d,bus=mmio",	 "--disk",
			       "path=d,bus=mmio", "--disk", "path=d,bus=mmio",	 "--disk",
			       "path=d,bus=mmio", "--disk", "path=d,bus=mmio",	 NULL };

	cr_assert_eq(place(&err, pci), -ENOSPC);
	cr_assert_str_eq(err.text, "net5: too many devices with bus=pci: the root bus has 31 "
				   "slots for them; put some on bus=mmio");
	config_finish(&config);
	cr_assert_eq(place(&err, mmio), -ENOSPC);
	cr_assert_str_eq(err.text, "disk13: too many devices with bus=mmio: this machine has 14 "
				   "interrupts for them; put some on bus=pci");
}

/* The host's IOMMU can't tell devices of a group apart, so the guest's has to know. */
Test(placement, devices_of_a_group_of_the_host_share_a_slot)
{
	struct err err;

	groups[0] = 8;
	groups[2] = groups[4] = 8;
	groups[3] = 9;
	PLACE("--viommu", "--vfio", "01:00.0", "--vfio", "02:00.0", "--vfio", "01:00.1", "--vfio",
	      "03:00.0", "--vfio", "01:00.2", "--rng");
	const struct machine_device *a = device("vfio0");

	cr_assert_eq(a->fn, 0);
	cr_assert(device("vfio2")->place == a->place && device("vfio2")->fn == 1);
	cr_assert(device("vfio4")->place == a->place && device("vfio4")->fn == 2);
	cr_assert_eq(device("vfio4")->endpoint, a->place << 3 | 2);
	cr_assert(device("vfio1")->place != a->place && device("vfio3")->place != a->place);
	cr_assert_neq(device("vfio1")->place, device("vfio3")->place, "without a group: alone");
	cr_assert(device("vfio1")->fn == 0 && device("vfio3")->fn == 0);
	cr_assert_eq(table_iommu(a->place), 0);
	config_finish(&config);
	cr_assert_eq(
		place(&err, (char *[]){ "--kernel", "k", "--viommu", "--vfio", "01:00.0", "--vfio",
					"02:00.0", "--vfio", "01:00.1,iommu=off", NULL }),
		-EINVAL);
	cr_assert(strstr(err.text, "vfio0 and vfio2 are in one IOMMU group"), "%s", err.text);
}
