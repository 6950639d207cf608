/*
 * MSI-X (PCI 3.0, section 6.8.2).
 *
 * A vector delivers when MSI-X is enabled, the function isn't masked and the
 * entry isn't masked. The sink is told only when that changes, or when the
 * message of a delivering entry changes: an update is a system call that waits
 * for the host's readers, and Linux writes each masked entry several times.
 *
 * Firing takes no lock, on no path, because devices fire with locks of theirs
 * held and from I/O threads that must not wait for a vCPU. It meets the guest's
 * masking in one word per entry: `state` says whether the sink delivers, and a
 * count in its upper bits changes with each change.
 *
 *	pci_msix_fire                        the guest masks or unmasks (root lock)
 *	  open:   sink.fire                    mask:   state = closed
 *	          fence                                fence
 *	          state unchanged? done                sink.update(masked)
 *	  closed: pending = true               unmask: sink.update(unmasked)
 *	          fence                                state = open
 *	          state unchanged? done                fence
 *	  otherwise again                              pending? clear it, sink.fire
 *
 * A firer that finds the state unchanged after its store or its fire came before
 * the change: an open one was delivered before the sink masked, a closed one is
 * seen by the unmasker. In doubt it fires twice; a message may be merged with
 * another or repeated, but never be lost. Each repetition needs a register write
 * of the guest in between, so the loop ends.
 */
#include "devices/pci/internal.h"

#include <assert.h>
#include <linux/pci_regs.h>
#include <poll.h>
#include <unistd.h>

#define MSIX_BAR_SIZE KIB(4)
#define MSIX_PBA      0x800
#define MSIX_CAP_LEN  12

#define STATE_OPEN UINT32_C(1)
#define STATE_STEP UINT32_C(2)

_Static_assert(PCI_MSIX_MAX *PCI_MSIX_ENTRY_SIZE <= MSIX_PBA, "the table ends before the PBA");

void pci_msix_fire(struct pci_dev *dev, unsigned index)
{
	if (index >= dev->msix.count || !pci_msix_enabled(dev))
		return;
	struct pci_msix_entry *e = &dev->msix.entry[index];
	struct msi_sink *sink = dev->root->config.msi;

	for (;;) {
		/* Acquire: pairs with entry_set_state, so that the sink has the message. */
		uint32_t state = atomic_load_explicit(&e->state, memory_order_acquire);
		bool open = state & STATE_OPEN;

		if (open)
			sink->ops->fire(sink, e->vector);
		else
			atomic_store_explicit(&e->pending, true, memory_order_relaxed);
		/* Pairs with the fence in entry_set_state. */
		atomic_thread_fence(memory_order_seq_cst);
		if (atomic_load_explicit(&e->state, memory_order_relaxed) == state)
			return;
		/* The unmasker may have seen the bit and fired already. */
		if (!open && !atomic_exchange_explicit(&e->pending, false, memory_order_relaxed))
			return;
	}
}

bool pci_msix_enabled(const struct pci_dev *dev)
{
	/* The guest's switch is no barrier: an interrupt beside it may go either way. */
	return atomic_load_explicit(&dev->msix.enabled, memory_order_relaxed);
}

static bool entry_open(const struct pci_msix_entry *e)
{
	return atomic_load_explicit(&e->state, memory_order_relaxed) & STATE_OPEN;
}

/* Root lock held, so there is one writer. */
static void entry_set_state(struct pci_msix_entry *e, bool open)
{
	uint32_t state = atomic_load_explicit(&e->state, memory_order_relaxed);

	state = ((state & ~STATE_OPEN) + STATE_STEP) | (open ? STATE_OPEN : 0);
	/* Release: pairs with the acquire in pci_msix_fire. */
	atomic_store_explicit(&e->state, state, memory_order_release);
	/* Pairs with the fence in pci_msix_fire. */
	atomic_thread_fence(memory_order_seq_cst);
}

/* Make the sink agree with what the guest wrote. Root lock held. */
static void entry_sync_locked(struct pci_dev *dev, struct pci_msix_entry *e)
{
	struct msi_sink *sink = dev->root->config.msi;
	bool open = pci_msix_enabled(dev) && !dev->msix.function_masked && !e->masked;
	bool was_open = entry_open(e);

	if (!open) {
		if (was_open) {
			entry_set_state(e, false);
			sink->ops->update(sink, e->vector, &e->message, true);
		}
		return;
	}
	bool first = !e->vector;

	if (first && sink->ops->alloc(sink, dev->rid, &e->vector) < 0) {
		log_limited(&dev->root->log,
			    "PCI 00:%02x.%u: no interrupt vector left for entry %u", dev->rid >> 3,
			    dev->rid & 7u, (unsigned)(e - dev->msix.entry));
		return;
	}
	if (was_open && e->told.address == e->message.address && e->told.data == e->message.data)
		return;
	if (sink->ops->update(sink, e->vector, &e->message, false) < 0) {
		log_limited(&dev->root->log,
			    "PCI 00:%02x.%u: the host refuses the message of interrupt vector %u",
			    dev->rid >> 3, dev->rid & 7u, (unsigned)(e - dev->msix.entry));
		if (was_open)
			entry_set_state(e, false);
		/* The next message is its first again, for who is told of that. */
		if (first && dev->msix.changed) {
			sink->ops->free(sink, e->vector);
			e->vector = NULL;
		}
		return;
	}
	e->told = e->message;
	if (was_open)
		return;
	entry_set_state(e, true);
	if (atomic_exchange_explicit(&e->pending, false, memory_order_relaxed))
		sink->ops->fire(sink, e->vector);
	if (first && dev->msix.changed)
		dev->msix.changed(dev);
}

int pci_msix_eventfd(const struct pci_dev *dev, unsigned index)
{
	struct msi_sink *sink = dev->root->config.msi;
	struct msi_vector *vector = dev->msix.entry[index].vector;

	return vector ? sink->ops->eventfd(sink, vector) : -1;
}

static bool entry_pending(const struct pci_dev *dev, unsigned index)
{
	struct pollfd rung = { .fd = -1, .events = POLLIN };

	if (dev->msix.changed)
		rung.fd = pci_msix_eventfd(dev, index);
	return atomic_load_explicit(&dev->msix.entry[index].pending, memory_order_relaxed) ||
	       (rung.fd >= 0 && poll(&rung, 1, 0) > 0);
}

/* Forget an interrupt that never reached the guest. */
static void entry_clear_pending(struct pci_dev *dev, unsigned index)
{
	int fd = dev->msix.changed ? pci_msix_eventfd(dev, index) : -1;
	uint64_t count;

	atomic_store_explicit(&dev->msix.entry[index].pending, false, memory_order_relaxed);
	/* EAGAIN: it wasn't rung. */
	if (fd >= 0 && read(fd, &count, sizeof(count)) < 0)
		return;
}

void pci_msix_control_locked(struct pci_dev *dev)
{
	struct pci_msix *m = &dev->msix;
	uint32_t control = pci_config_get(dev->config, m->cap + PCI_MSIX_FLAGS, 2);
	bool enabled = control & PCI_MSIX_FLAGS_ENABLE;

	atomic_store_explicit(&m->enabled, enabled, memory_order_relaxed);
	m->function_masked = control & PCI_MSIX_FLAGS_MASKALL;
	for (unsigned i = 0; i < m->count; i++)
		entry_sync_locked(dev, &m->entry[i]);
	if (m->changed)
		m->changed(dev);
	/* After the host was told to ring no more. */
	for (unsigned i = 0; !enabled && i < m->count; i++)
		entry_clear_pending(dev, i);
}

void pci_msix_reset_locked(struct pci_dev *dev)
{
	struct pci_msix *m = &dev->msix;

	for (unsigned i = 0; i < m->count; i++) {
		m->entry[i].message = (struct msi_message){ 0 };
		m->entry[i].masked = true;
	}
	if (m->count)
		pci_msix_control_locked(dev);
}

static bool in_table(const struct pci_msix *m, unsigned bar, uint64_t offset)
{
	return bar == m->bar && offset >= m->table &&
	       offset - m->table < (uint64_t)m->count * PCI_MSIX_ENTRY_SIZE;
}

/* The pending bits are whole quad words. */
static bool in_pba(const struct pci_msix *m, unsigned bar, uint64_t offset)
{
	return bar == m->pba_bar && offset >= m->pba &&
	       offset - m->pba < ALIGN_UP(m->count, 64u) / 8;
}

/* One double word of the table or of the pending bits. Root lock held. */
static uint32_t msix_get(const struct pci_dev *dev, unsigned bar, uint64_t offset)
{
	const struct pci_msix *m = &dev->msix;
	uint32_t bits = 0;

	if (in_pba(m, bar, offset)) {
		unsigned first = (unsigned)(offset - m->pba) * 8;

		for (unsigned i = first; i < MIN(m->count, first + 32); i++) {
			if (entry_pending(dev, i))
				bits |= UINT32_C(1) << (i - first);
		}
		return bits;
	}
	if (!in_table(m, bar, offset))
		return 0;
	offset -= m->table;
	const struct pci_msix_entry *e = &m->entry[offset / PCI_MSIX_ENTRY_SIZE];

	switch (offset % PCI_MSIX_ENTRY_SIZE) {
	case PCI_MSIX_ENTRY_LOWER_ADDR:
		return (uint32_t)e->message.address;
	case PCI_MSIX_ENTRY_UPPER_ADDR:
		return (uint32_t)(e->message.address >> 32);
	case PCI_MSIX_ENTRY_DATA:
		return e->message.data;
	default:
		return e->masked ? PCI_MSIX_ENTRY_CTRL_MASKBIT : 0;
	}
}

/* Store one double word of the table; the pending bits are read-only. Root lock held. */
static void msix_put(struct pci_msix_entry *e, uint64_t offset, uint32_t value)
{
	uint64_t address = e->message.address;

	switch (offset % PCI_MSIX_ENTRY_SIZE) {
	case PCI_MSIX_ENTRY_LOWER_ADDR:
		/* Bits 1:0 are zero by specification. */
		e->message.address = (address & ~UINT64_C(0xffffffff)) | (value & ~3u);
		break;
	case PCI_MSIX_ENTRY_UPPER_ADDR:
		e->message.address = (address & 0xffffffff) | (uint64_t)value << 32;
		break;
	case PCI_MSIX_ENTRY_DATA:
		e->message.data = value;
		break;
	default:
		e->masked = value & PCI_MSIX_ENTRY_CTRL_MASKBIT;
	}
}

/* Only aligned double and quad words are defined (section 6.8.2). */
static bool msix_width_ok(uint64_t offset, unsigned size)
{
	return (size == 4 || size == 8) && offset % size == 0;
}

bool pci_msix_covers(const struct pci_dev *dev, unsigned bar, uint64_t offset)
{
	return in_table(&dev->msix, bar, offset) || in_pba(&dev->msix, bar, offset);
}

uint64_t pci_msix_read(struct pci_dev *dev, unsigned bar, uint64_t offset, unsigned size)
{
	if (!msix_width_ok(offset, size))
		return 0;
	pci_root_lock(dev->root);
	uint64_t value = msix_get(dev, bar, offset);

	if (size == 8)
		value |= (uint64_t)msix_get(dev, bar, offset + 4) << 32;
	pci_root_unlock(dev->root);
	return value;
}

void pci_msix_write(struct pci_dev *dev, unsigned bar, uint64_t offset, unsigned size,
		    uint64_t value)
{
	const struct pci_msix *m = &dev->msix;

	if (!msix_width_ok(offset, size) || !in_table(m, bar, offset))
		return;
	offset -= m->table;
	struct pci_msix_entry *e = &m->entry[offset / PCI_MSIX_ENTRY_SIZE];

	pci_root_lock(dev->root);
	msix_put(e, offset, (uint32_t)value);
	if (size == 8)
		msix_put(e, offset + 4, (uint32_t)(value >> 32));
	entry_sync_locked(dev, e);
	pci_root_unlock(dev->root);
}

static uint64_t msix_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pci_dev *dev = opaque;

	return pci_msix_read(dev, dev->msix.bar, offset, size);
}

static void msix_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct pci_dev *dev = opaque;

	pci_msix_write(dev, dev->msix.bar, offset, size, value);
}

static const struct bus_ops msix_ops = { .read = msix_read, .write = msix_write };

/* As the capability at @cap says. */
static void msix_init(struct pci_dev *dev, unsigned cap, struct pci_msix_entry *entry)
{
	struct pci_msix *m = &dev->msix;
	uint32_t table = pci_config_get(dev->config, cap + PCI_MSIX_TABLE, 4);
	uint32_t pba = pci_config_get(dev->config, cap + PCI_MSIX_PBA, 4);

	m->cap = cap;
	m->count = pci_msix_count(dev->config, cap);
	m->bar = table & PCI_MSIX_TABLE_BIR;
	m->table = table & PCI_MSIX_TABLE_OFFSET;
	m->pba_bar = pba & PCI_MSIX_PBA_BIR;
	m->pba = pba & PCI_MSIX_PBA_OFFSET;
	m->entry = entry;
	for (unsigned i = 0; i < m->count; i++)
		entry[i].masked = true;
	pci_config_put(dev->wmask, cap + PCI_MSIX_FLAGS, 2,
		       PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
}

unsigned pci_msix_count(const uint8_t *config, unsigned cap)
{
	return (pci_config_get(config, cap + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_QSIZE) + 1;
}

void pci_dev_set_msix(struct pci_dev *dev, unsigned bar, unsigned count)
{
	struct {
		le16 control;
		le32 table, pba;
	} body = {
		.control = le16_from((uint16_t)(count - 1)),
		.table = le32_from(bar),
		.pba = le32_from(MSIX_PBA | bar),
	};

	_Static_assert(sizeof(body) == MSIX_CAP_LEN - 2, "the capability's body");
	assert(count >= 1 && count <= PCI_MSIX_MAX && dev->msix.count == 0);
	pci_dev_set_bar(dev, bar, MSIX_BAR_SIZE, PCI_BAR_MEM32, &msix_ops, dev);
	msix_init(dev, pci_dev_add_cap(dev, PCI_CAP_ID_MSIX, &body, MSIX_CAP_LEN), dev->msix.own);
}

void pci_dev_place_msix(struct pci_dev *dev, unsigned cap, struct pci_msix_entry *entry,
			void (*changed)(struct pci_dev *dev))
{
	assert(dev->msix.count == 0);
	msix_init(dev, cap, entry);
	dev->msix.changed = changed;
}

int pci_msix_alloc(struct pci_dev *dev)
{
	struct msi_sink *sink = dev->root->config.msi;

	/* Those of a device of the host come when they are used. */
	for (unsigned i = 0; !dev->msix.changed && i < dev->msix.count; i++) {
		int rc = sink->ops->alloc(sink, dev->rid, &dev->msix.entry[i].vector);

		if (rc < 0) {
			pci_msix_free(dev);
			return rc;
		}
	}
	return 0;
}

void pci_msix_free(struct pci_dev *dev)
{
	struct msi_sink *sink = dev->root->config.msi;

	atomic_store_explicit(&dev->msix.enabled, false, memory_order_relaxed);
	for (unsigned i = 0; i < dev->msix.count; i++) {
		struct pci_msix_entry *e = &dev->msix.entry[i];

		if (!e->vector)
			continue;
		entry_set_state(e, false);
		sink->ops->free(sink, e->vector);
		e->vector = NULL;
	}
}
