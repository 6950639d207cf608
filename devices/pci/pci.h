#ifndef DEVICES_PCI_PCI_H
#define DEVICES_PCI_PCI_H

/*
 * A PCI Express root bus (bus 0 of segment 0) with ECAM and, where the machine
 * has port I/O, the 0xcf8/0xcfc mechanism; and what an emulated function needs:
 * configuration space with write masks, BARs that follow the guest, MSI-X.
 *
 * The root has one lock: it protects the configuration space of every function
 * and the mapping of BARs. MSI-X tables have the same lock. bus.h handlers of
 * BARs run without it.
 */

#include <stdatomic.h>
#include "vmm/base/err.h"
#include "vmm/core/bus.h"
#include "vmm/core/irq.h"

#define PCI_CONFIG_SIZE 4096
#define PCI_NUM_BARS	6
#define PCI_ROM_BAR	6 /* the expansion ROM, as a seventh BAR; its register is elsewhere */
#define PCI_NUM_WINDOWS 7
#define PCI_NUM_SLOTS	32
#define PCI_NUM_FNS	8  /* functions of a slot */
#define PCI_MSIX_MAX	32 /* vectors of one emulated function */

struct pci_root;
struct pci_dev;

/* Bits of a BAR's flags, as the register holds them. */
#define PCI_BAR_MEM32	 0x0
#define PCI_BAR_MEM64	 0x4
#define PCI_BAR_PREFETCH 0x8

struct pci_bar {
	uint64_t size; /* bytes, a power of two; 0 = no BAR */
	uint32_t flags;
	const struct bus_ops *ops;
	void *opaque;
	uint64_t mapped_at;  /* where it is on the bus now; 0 = nowhere */
	uint64_t refused_at; /* where the bus had no room for it, to report that once */
	/* The BAR was mapped at (or moved away from) @base; root lock held. NULL = don't care. */
	void (*moved)(void *opaque, unsigned bar, uint64_t base, bool mapped);
};

/* How pci_msix_fire reads `state` and `pending` without the lock: see msix.c. */
struct pci_msix_entry {
	struct msi_message message; /* as the guest wrote it */
	struct msi_message told;    /* as the sink has it, while it delivers */
	bool masked;		    /* the guest's bit in Vector Control */
	_Atomic bool pending;
	_Atomic uint32_t state;	   /* bit 0: the sink delivers; above: counts the changes */
	struct msi_vector *vector; /* owns, while on the root */
};

struct pci_msix {
	unsigned count; /* 0 = none */
	unsigned cap;	/* offset of the capability */
	unsigned bar, pba_bar;
	uint32_t table, pba; /* their offsets in these BARs */
	_Atomic bool enabled;
	bool function_masked;
	struct pci_msix_entry *entry; /* `own`, or borrows */
	/*
	 * Set where the vectors' eventfds are rung by the host (VFIO) and not by
	 * pci_msix_fire: called when the guest switched MSI-X on or off, or when
	 * it used an entry for the first time, which then has its vector; root lock
	 * held.
	 */
	void (*changed)(struct pci_dev *dev);
	struct pci_msix_entry own[PCI_MSIX_MAX];
};

struct pci_dev {
	struct pci_root *root;
	uint16_t rid; /* bus << 8 | slot << 3 | function */
	uint8_t config[PCI_CONFIG_SIZE];
	uint8_t initial[PCI_CONFIG_SIZE]; /* as after power-on */
	uint8_t wmask[PCI_CONFIG_SIZE];	  /* 1 = the guest may write the bit */
	unsigned next_cap;		  /* next free byte for a capability */
	unsigned last_cap;		  /* offset of the last one's header, 0 = none */
	struct pci_bar bar[PCI_NUM_WINDOWS];
	struct pci_msix msix;
	/*
	 * Hooks for registers with behaviour (VIRTIO_PCI_CAP_PCI_CFG, VFIO); NULL =
	 * plain. Called on a vCPU thread without the root lock: before a read
	 * (so that the function can refresh config[]) and after a write was applied,
	 * with the value that the guest wrote.
	 */
	void (*config_reading)(struct pci_dev *dev, unsigned offset, unsigned size);
	void (*config_written)(struct pci_dev *dev, unsigned offset, unsigned size, uint32_t value);
	/* It sleeps (D3): it decodes nothing, whatever its command register says. */
	bool asleep;
	/* It was pulled out: its configuration space reads as all ones too. Root lock. */
	bool gone;
};

/* Everything the root needs to know of its place in the machine. */
struct pci_root_config {
	struct bus *mmio;
	struct bus *pio;      /* NULL: no 0xcf8/0xcfc */
	struct msi_sink *msi; /* borrows */
	uint64_t ecam_base;   /* 1 MiB for bus 0 */
	uint64_t mem32_base, mem32_size;
	uint64_t mem64_base, mem64_size;
};

/* *@ret_root is owned by the caller. 0 or -errno with words in @err. */
int pci_root_create(struct pci_root **ret_root, const struct pci_root_config *config,
		    struct err *err);

/* All functions must be gone. Accepts NULL. */
void pci_root_destroy(struct pci_root *root);

/* The sink of message-signalled interrupts; borrowed from the root. */
struct msi_sink *pci_root_msi(struct pci_root *root);

/*
 * Make the bus agree with the BARs after dev->asleep or config[] was changed by
 * another way than a guest's write. Root lock held.
 */
void pci_root_remap_locked(struct pci_root *root);

/* Lock and unlock the root, for hooks that look at config[] or BARs. */
void pci_root_lock(struct pci_root *root);
void pci_root_unlock(struct pci_root *root);

/* The MMIO bus on which BARs appear: for doorbells inside a BAR. Borrowed from the root. */
struct bus *pci_root_mmio(struct pci_root *root);

/* Bytes @offset to @offset + @size - 1 (1 to 4) of a configuration space, as a number. */
uint32_t pci_config_get(const uint8_t *config, unsigned offset, unsigned size);
void pci_config_put(uint8_t *config, unsigned offset, unsigned size, uint32_t value);

/*
 * Initialise @dev as an endpoint with a type 0 header. @class_code is 24 bits.
 * Vendor, device, subsystem and revision as given.
 */
void pci_dev_init(struct pci_dev *dev, uint16_t vendor, uint16_t device, uint8_t revision,
		  uint32_t class_code, uint16_t subsys_vendor, uint16_t subsys);

/*
 * Declare BAR @index (and @index + 1 for MEM64) of @size bytes, a power of two of
 * at least 16, served by @ops with @opaque (borrowed); or the expansion ROM, PCI_ROM_BAR, of at
 * least 2 KiB, which has no flags. Before pci_root_add; set
 * dev->bar[@index].moved afterwards where it is needed.
 */
void pci_dev_set_bar(struct pci_dev *dev, unsigned index, uint64_t size, uint32_t flags,
		     const struct bus_ops *ops, void *opaque);

/*
 * Append a capability of @len bytes (header included) with ID @id; the body
 * after the two header bytes is copied from @body (@len - 2 bytes). Returns its
 * offset (config[offset] is the ID). Space is known to suffice: emulated
 * functions are fixed at build time.
 */
unsigned pci_dev_add_cap(struct pci_dev *dev, uint8_t id, const void *body, unsigned len);

/*
 * MSI-X with @count vectors (1 to PCI_MSIX_MAX). Claims the 32-bit BAR @bar of
 * 4 KiB for the table (at 0) and the pending bits (at 0x800). Before pci_root_add.
 */
void pci_dev_set_msix(struct pci_dev *dev, unsigned bar, unsigned count);

/*
 * MSI-X of a device of the host, as the capability at @cap of config[] says, with
 * its pci_msix_count entries in @entry (borrowed, zeroed). Its BARs' handlers pass
 * what pci_msix_covers says to pci_msix_read and pci_msix_write. @changed: see
 * struct pci_msix. Before pci_root_add.
 */
void pci_dev_place_msix(struct pci_dev *dev, unsigned cap, struct pci_msix_entry *entry,
			void (*changed)(struct pci_dev *dev));

/* How many vectors the MSI-X capability at @cap of @config has. */
unsigned pci_msix_count(const uint8_t *config, unsigned cap);

/* True when byte @offset of BAR @bar belongs to the table or the pending bits. */
bool pci_msix_covers(const struct pci_dev *dev, unsigned bar, uint64_t offset);

/* The guest's access to them. On a vCPU thread, without the root lock. */
uint64_t pci_msix_read(struct pci_dev *dev, unsigned bar, uint64_t offset, unsigned size);
void pci_msix_write(struct pci_dev *dev, unsigned bar, uint64_t offset, unsigned size,
		    uint64_t value);

/* The eventfd of vector @index (borrowed), or -1 while the guest hasn't used it. Root lock held. */
int pci_msix_eventfd(const struct pci_dev *dev, unsigned index);

/*
 * Raise vector @index: at once, or pending while masked. Nothing when MSI-X is
 * off or @index is out of range. Any thread, with any lock held: it takes none.
 */
void pci_msix_fire(struct pci_dev *dev, unsigned index);

/* True when the guest switched MSI-X on. Any thread. */
bool pci_msix_enabled(const struct pci_dev *dev);

/*
 * Put @dev (borrowed) at @slot, function 0; reserves its interrupt vectors.
 * Returns 0, -EBUSY (slot taken), -ENOSPC (no vectors), with words in @err.
 */
int pci_root_add(struct pci_root *root, struct pci_dev *dev, unsigned slot, struct err *err);

/*
 * The same for function @fn of a slot. When it isn't function 0, that one, which is there
 * already, tells the guest that it isn't alone (PCI 3.0, 6.2.1).
 */
int pci_root_add_function(struct pci_root *root, struct pci_dev *dev, unsigned slot, unsigned fn,
			  struct err *err);

/* Unmap its BARs, free its vectors; harmless when it isn't on the bus. vCPUs stopped. */
void pci_root_remove(struct pci_root *root, struct pci_dev *dev);

/*
 * Give every BAR an address, as firmware would (there is none): 64-bit BARs in
 * the 64-bit window while there is room, the others in the 32-bit one, none
 * sharing a page with another; the ROMs, which are off, in the 32-bit one. Memory decoding and bus
 * mastering stay off until the guest's driver switches them on. The result is what pci_dev_reset
 * restores. Called once, after all functions were added and before the vCPUs
 * run. Returns 0 or -ENOSPC naming the function in @err.
 */
int pci_root_assign(struct pci_root *root, struct err *err);

/*
 * Configuration space, BARs and MSI-X as after pci_root_assign (before it: as
 * after pci_root_add). The function's interrupts must have stopped.
 */
void pci_dev_reset(struct pci_dev *dev);

#endif
