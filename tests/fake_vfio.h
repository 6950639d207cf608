#ifndef TESTS_FAKE_VFIO_H
#define TESTS_FAKE_VFIO_H

/*
 * What a passed-through function has around it, made up: a device of the host with the rules
 * that the kernel's vfio-pci has for it, KVM's memory slots, interrupt vectors and a wire. Each
 * breach of these rules is a failed CHECK.
 */

#include <linux/vfio.h>
#include "devices/pci/pci.h"
#include "devices/vfio/host.h"
#include "vmm/core/memslot.h"

#define FAKE_VECTORS 256
#define FAKE_SLOTS   128

/* Kinds of interrupts, as VFIO counts them. */
enum { INTX, MSI, MSIX, ERR, REQ, FAKE_KINDS };

/* What may fail: see struct fake_vfio. */
enum fake_call {
	FAKE_REGION,
	FAKE_READ,
	FAKE_WRITE,
	FAKE_MAP,
	FAKE_SET_IRQS,
	FAKE_UNMASK_BY,
	FAKE_RESET,
	FAKE_NUM_CALLS
};

struct fake_slots {
	struct mem_slots slots;
	struct {
		uint64_t gpa, size; /* size 0: free */
		void *host;
	} slot[FAKE_SLOTS];
	int refuse;  /* errno, or 0 */
	int dropped; /* the file that KVM let go */
};

struct fake_map {
	unsigned index; /* of the region */
	uint64_t offset, size;
	void *host; /* NULL: free */
};

struct fake_vfio {
	struct vfio_host host;
	uint8_t config[PCI_CONFIG_SIZE];
	bool kept[PCI_CONFIG_SIZE]; /* nobody may write this byte */
	/* Where the device has them, 0 = it hasn't: what is written there has its effects. */
	unsigned pm_cap, exp_cap, af_cap;
	struct vfio_region region[VFIO_PCI_CONFIG_REGION_INDEX + 1];
	/* What is in a region; NULL: each byte reads as its offset, and what is mapped isn't there.
	 */
	uint8_t *bytes[VFIO_PCI_CONFIG_REGION_INDEX];
	/* Bytes of a BAR that may not be accessed: its MSI-X table and pending bits. */
	struct {
		unsigned bar;
		uint64_t first, end;
	} guarded[2];
	struct fake_map map[FAKE_SLOTS];
	struct fake_slots *slots;   /* borrows */
	int refuse[FAKE_NUM_CALLS]; /* errno, or 0 */

	bool grows;
	unsigned count[FAKE_KINDS];
	int irq[FAKE_KINDS][FAKE_VECTORS]; /* eventfds; -1 = off */
	unsigned room[FAKE_KINDS], set_calls;
	unsigned max_irqs; /* that the host can switch on at once, 0: any number */
	int unmask_fd;

	unsigned quiets, resets; /* that were asked for, and */
	unsigned flrs;		 /* function-level resets that the guest made */
	bool power_saw_slots;
	bool stays_asleep;     /* its power state can't be written */
	_Atomic bool released; /* on the loop, while a test waits */
};

struct msi_vector {
	bool used, masked;
	int eventfd;
	struct msi_message message;
};

struct fake_sink {
	struct msi_sink sink;
	struct msi_vector vector[FAKE_VECTORS];
	int refuse; /* errno of what updates a vector, or 0 */
	bool full;  /* there are no more vectors */
};

/* A wire to the interrupt controller. */
struct fake_wire {
	struct irq_line line;
	int trigger, resample; /* -1 = not connected */
	int refuse;	       /* errno, or 0 */
};

/* A device without registers and capabilities, with nothing switched on. */
void fake_vfio_init(struct fake_vfio *dev, struct fake_slots *slots);
void fake_slots_init(struct fake_slots *mem);
void fake_sink_init(struct fake_sink *sink);
void fake_wire_init(struct fake_wire *wire);

/* Does the device sleep, D3? Its registers then can't be accessed. */
bool fake_vfio_sleeps(const struct fake_vfio *dev);
/* The mapping of a region that has @host; NULL: none. */
const struct fake_map *fake_vfio_find(const struct fake_vfio *dev, const void *host);
/* How many mappings of regions there are. */
unsigned fake_vfio_mapped(const struct fake_vfio *dev);
/* Slots that the guest sees. */
unsigned fake_slots_shown(const struct fake_slots *mem);
/* Vectors that are in use. */
unsigned fake_sink_used(const struct fake_sink *sink);
/* The vector in use whose eventfd is @eventfd; NULL: none. */
struct msi_vector *fake_sink_find(struct fake_sink *sink, int eventfd);

#endif
