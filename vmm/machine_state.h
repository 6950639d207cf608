#ifndef VMM_MACHINE_STATE_H
#define VMM_MACHINE_STATE_H

/*
 * The machine as machine.c (its life), machine_board.c (what is soldered to it),
 * machine_devices.c (what is plugged into it) and report.c (what the person sees) share it.
 * Everything here belongs to the main thread; vCPUs and loops see only what they were given.
 */

#include <stdatomic.h>

#include "arch/arch.h"
#include "devices/iommu/viommu.h"
#include "devices/pci/pci.h"
#include "devices/gpio/pl061.h"
#include "devices/rtc/pl031.h"
#include "devices/serial/pl011.h"
#include "devices/serial/uart16550.h"
#include "devices/vfio/vfio.h"
#include "devices/vfio/vfio_pci.h"
#include "devices/virtio/virtio_blk.h"
#include "devices/virtio/virtio_mmio.h"
#include "devices/virtio/virtio_net.h"
#include "devices/virtio/virtio_pci.h"
#include "devices/virtio/virtio_rng.h"
#include "vmm/config.h"
#include "vmm/console.h"

enum device_kind { DEVICE_VIOMMU, DEVICE_DISK, DEVICE_NET, DEVICE_RNG, DEVICE_VFIO };

#define MACHINE_MAX_DEVICES \
	(CONFIG_MAX_VIOMMUS + CONFIG_MAX_DISKS + CONFIG_MAX_NETS + CONFIG_MAX_VFIOS + 1)
#define MACHINE_MMIO_ENDPOINT                                               \
	0x10000 /* endpoint IDs of MMIO devices start here, above every BDF \
		 */
#define MACHINE_NO_EVENT (-1)

/* A debug build asks the host after each request whether its books equal ours. */
#ifdef MOAT_DEBUG
#define MACHINE_AUDIT true
#else
#define MACHINE_AUDIT false
#endif

struct machine_device {
	enum device_kind kind;
	unsigned index; /* among its kind, in the config */
	const char *name;
	enum config_bus bus;
	unsigned iommu;	   /* number of the IOMMU it is behind, or CONFIG_NO_IOMMU */
	unsigned place;	   /* PCI slot, or number of its virtio-mmio window */
	unsigned fn;	   /* function of that slot */
	uint32_t endpoint; /* endpoint ID: the BDF, or MACHINE_MMIO_ENDPOINT and up */
	uint64_t base;	   /* virtio-mmio: its window and interrupt */
	uint32_t gsi;
	struct loop *loop; /* owns; so the rest */
	struct viommu *viommu;
	struct virtio_blk *blk;
	struct virtio_net *net;
	struct virtio_rng *rng;
	struct vfio_host *host; /* the device of the host, and its function here */
	struct vfio_pci *vfio;
	struct virtio_dev *virtio; /* the one inside; borrows */
	struct virtio_pci *pci;	   /* its transport, one of the two */
	struct virtio_mmio *mmio;
};

/* PCI slots from @first to before @end; @next is the first free one. */
struct slot_block {
	unsigned first, end, next;
};

struct machine_iommu {
	struct iommu *iommu;	    /* owns */
	struct iommu_config config; /* as asked for, within what the host's IOMMU can do */
	struct slot_block slots;    /* of the devices behind it */
};

struct machine {
	const struct config *config;
	struct arch_map map;
	struct platform platform;

	struct ram *ram;
	struct dma_view identity; /* for devices that no IOMMU translates */
	struct bus mmio, pio;
	struct vm *vm;
	struct arch *arch;
	struct vcpu *vcpu[CONFIG_MAX_CPUS];
	unsigned num_vcpus;
	struct pci_root *pci;

	/* The board's own devices; NULL where this architecture has none. */
	struct loop *board_loop;
	struct console *console;
	struct uart16550 *uart; /* one of the two */
	struct pl011 *pl011;
	struct pl031 *rtc;
	struct pl061 *gpio;
	struct irq_line *power_button; /* without a gpio; the VM's */
	unsigned power_button_line;    /* with one */

	struct machine_iommu iommu[CONFIG_MAX_VIOMMUS]; /* as config->viommu[] */
	struct iommu_quota mappings;			/* of all IOMMUs */

	struct vfio *vfio; /* NULL without --vfio */
	/* Of config->vfio[]: one more than its IOMMU group on the host; 0: it has none. */
	unsigned vfio_group[CONFIG_MAX_VFIOS];

	unsigned num_devices, num_mmio;
	struct slot_block own_slots; /* free ones of devices that no IOMMU translates */
	struct machine_device device[MACHINE_MAX_DEVICES];

	struct arch_boot boot;
	char *cmdline;

	struct power power;
	int event_fd;	   /* wakes the main thread */
	_Atomic int event; /* what ends this boot: an enum power_event or EVENT_QUIT */
};

/*
 * Create the console and the devices that arch_board names. VM and arch exist. 0
 * or -errno with words in @err; machine_destroy_board frees any prefix.
 */
int machine_create_board(struct machine *m, struct err *err);
void machine_destroy_board(struct machine *m);
/* As after power-on. The vCPUs are stopped. */
void machine_reset_board(struct machine *m);
/* The guest's power button. Any thread. */
void machine_press_power_button(struct machine *m);
/* The person at the console wants moat to end; @opaque is the machine. Any thread. */
void machine_quit(void *opaque);

/* Fill m->vfio_group from what the host says (machine_vfio.c). */
void machine_find_groups(struct machine *m);

/*
 * Fill m->device from the config and give each its slot or window and its
 * endpoint ID; touches nothing but @m. Devices of one group of the host, which the
 * guest's IOMMU can't tell apart either, are functions of one slot. 0, or -ENOSPC with the limit in
 * @err, or -EINVAL for devices of one group that can't be behind different IOMMUs.
 */
int machine_place_devices(struct machine *m, struct err *err);

/*
 * Create what was placed: the IOMMU, loops, backends, devices, transports; then
 * BAR addresses. The board exists. 0 or -errno with words in @err;
 * machine_destroy_devices frees any prefix.
 */
int machine_create_devices(struct machine *m, struct err *err);
void machine_destroy_devices(struct machine *m);

/*
 * Open the host's devices, before anything depends on what their IOMMU can do
 * (machine_vfio.c). 0 or -errno with words in @err.
 */
int machine_open_vfio(struct machine *m, struct err *err);
/*
 * Narrow @config, of IOMMU number @index, to what the host can do for the devices
 * behind it. 0, or -EINVAL with words in @err.
 */
int machine_limit_iommu(const struct machine *m, unsigned index, struct iommu_config *config,
			struct err *err);
/* Plug in @d, a device of the host. 0 or -errno with words in @err. */
int machine_create_vfio(struct machine *m, struct machine_device *d, struct err *err);

/* Add the devices and the IOMMU topology to m->platform. */
void machine_describe_devices(struct machine *m);

#endif
