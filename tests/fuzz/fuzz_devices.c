/*
 * Every device on both transports, from a guest that writes registers, config
 * space, ECAM, BARs and rings as it likes: raw accesses to any window of the bus,
 * and, so that more than the transports is reached, sane activations with rings
 * and chains in RAM that are then changed at random. One endpoint's IOMMU view is
 * between the devices and memory, in bypass or as the guest's requests make it.
 *
 * Beyond what the sanitizers see: a transport keeps its identity, a disk is never
 * asked for what isn't on it, and every reset ends.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "devices/iommu/viommu.h"
#include "devices/net/net.h"
#include "devices/virtio/virtio_blk.h"
#include "devices/virtio/virtio_mmio.h"
#include "devices/virtio/virtio_net.h"
#include "devices/virtio/virtio_pci.h"
#include "devices/virtio/virtio_rng.h"
#include "tests/check.h"
#include "tests/fuzz/input.h"
#include "vmm/base/log.h"

#define PAGE	  4096ULL
#define RAM_PAGES 64
#define KINDS	  4
#define DEVICES	  (2 * KINDS) /* the first half on virtio-mmio */
#define MMIO	  0xd0000000ULL
#define ECAM	  0xe0000000ULL
#define QSIZE	  8
#define MAX_STEPS 128
#define DISK_SIZE MIB(1)
/* Queue q's rings; then headers, buffers. */
#define RING(q) ((1 + (q)) * PAGE)
#define DATA	(16 * PAGE)

static struct {
	struct ram ram;
	struct dma_view identity, *view[DEVICES];
	struct iommu *iommu;
	struct bus mmio, pio;
	struct msi_sink sink;
	struct irq_line irq;
	struct pci_root *root;
	struct loop *loop;
	struct virtio_dev *dev[DEVICES];
	struct virtio_mmio *vm[KINDS];
	struct virtio_pci *vp[KINDS];
	uint16_t avail[DEVICES][VIRTIO_MAX_QUEUES];
} e;

static struct fuzz_input input;

static uint64_t take(unsigned bytes)
{
	return fuzz_take(&input, bytes);
}

static uint8_t *at(uint64_t gpa)
{
	return (uint8_t *)e.ram.host + gpa;
}

/*
 * The host's side: interrupts that go nowhere, a disk and a network.
 */

static int sink_alloc(struct msi_sink *sink, uint32_t rid, struct msi_vector **ret_vector)
{
	*ret_vector = (struct msi_vector *)sink;
	return 0;
}

static void sink_free(struct msi_sink *sink, struct msi_vector *vector)
{
}

static int sink_update(struct msi_sink *sink, struct msi_vector *vector,
		       const struct msi_message *message, bool masked)
{
	return 0;
}

static const struct msi_sink_ops sink_ops = {
	.alloc = sink_alloc,
	.free = sink_free,
	.update = sink_update,
	.fire = sink_free,
};

static void irq_set(struct irq_line *line, bool level)
{
}

static void irq_pulse(struct irq_line *line)
{
}

static const struct irq_line_ops irq_ops = { irq_set, irq_pulse };

static void disk_submit(struct block *block, struct block_request *request)
{
	CHECK(request->op == BLOCK_FLUSH ||
	      (request->offset <= DISK_SIZE && request->len <= DISK_SIZE - request->offset));
	for (unsigned i = 0; request->op == BLOCK_READ && i < request->iovcnt; i++)
		memset(request->iov[i].iov_base, 0x77, request->iov[i].iov_len);
	request->done(request, 0);
}

static void disk_nothing(struct block *block)
{
}

static const struct block_ops disk_ops = { disk_submit, disk_nothing, disk_nothing };

static struct block disk[2] = {
	{ .ops = &disk_ops, .info = { DISK_SIZE, 512, 4096, false, true, true } },
	{ .ops = &disk_ops, .info = { DISK_SIZE, 512, 512, true, false, false } },
};

static int net_send(struct net_backend *net, const struct iovec *iov, unsigned iovcnt)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < iovcnt; i++) {
		for (size_t k = 0; k < iov[i].iov_len; k += 64)
			sum += ((volatile uint8_t *)iov[i].iov_base)[k];
	}
	return sum % 7 == 6 ? -EIO : 0;
}

static ssize_t net_receive(struct net_backend *net, const struct iovec *iov, unsigned iovcnt)
{
	static unsigned calls;

	if (++calls % 4 == 0)
		return -EAGAIN;
	for (unsigned i = 0; i < iovcnt; i++)
		memset(iov[i].iov_base, 0, iov[i].iov_len);
	return iov[0].iov_len >= 64 ? 64 : -EMSGSIZE;
}

static void net_watch(struct net_backend *net, bool on)
{
}

static int net_set_offload(struct net_backend *net, unsigned flags)
{
	return 0;
}

static void net_destroy(struct net_backend *net)
{
}

static const struct net_backend_ops net_ops = { net_send, net_receive, net_watch, net_set_offload,
						net_destroy };
static struct net_backend net[2] = { { .ops = &net_ops, .offloads = true }, { .ops = &net_ops } };

/*
 * The machine.
 */

static struct virtio_dev *make_device(unsigned i)
{
	static const struct virtio_blk_config blk_config = { .name = "disk",
							     .num_queues = 2,
							     .queue_size = 256 };
	static const struct virtio_net_config net_config = { .name = "net",
							     .mac = { 0x52, 0x54, 0, 0, 0, 1 } };
	struct virtio_blk *blk;
	struct virtio_net *card;
	struct virtio_rng *rng;
	struct viommu *viommu;

	switch (i % KINDS) {
	case 0:
		CHECK(!virtio_blk_create(&blk, &blk_config, &disk[i / KINDS], e.view[i], e.loop,
					 NULL));
		return virtio_blk_virtio(blk);
	case 1:
		CHECK(!virtio_net_create(&card, &net_config, &net[i / KINDS], e.view[i], e.loop,
					 NULL));
		return virtio_net_virtio(card);
	case 2:
		CHECK(!virtio_rng_create(&rng, "rng", true, e.view[i], e.loop, NULL));
		return virtio_rng_virtio(rng);
	default:
		CHECK(!viommu_create(&viommu, "viommu", e.iommu, &e.identity, e.loop, NULL));
		return viommu_virtio(viommu);
	}
}

static void create(void)
{
	const struct pci_root_config config = {
		.mmio = &e.mmio,
		.pio = &e.pio,
		.msi = &e.sink,
		.ecam_base = ECAM,
		.mem32_base = 0xc0000000,
		.mem32_size = MIB(1),
		.mem64_base = GIB(64),
		.mem64_size = MIB(1),
	};
	const struct iommu_config iommu = { .granule = PAGE, .address_width = 48, .bypass = true };

	log_set_level(LOG_ERROR);
	e.ram.size = RAM_PAGES * PAGE;
	e.ram.host = aligned_alloc(PAGE, e.ram.size);
	CHECK(e.ram.host);
	e.ram.count = 1;
	e.ram.region[0] = (struct ram_region){ GPA(0), e.ram.size, 0, e.ram.host };
	dma_view_init_identity(&e.identity, &e.ram);
	e.sink.ops = &sink_ops;
	e.irq.ops = &irq_ops;
	bus_init(&e.mmio, false);
	bus_init(&e.pio, true);
	CHECK(!iommu_create(&e.iommu, &iommu, &e.ram, NULL));
	CHECK(!loop_create(&e.loop, "devices", NULL));
	CHECK(!pci_root_create(&e.root, &config, NULL));
	for (unsigned i = 0; i < DEVICES; i++) {
		CHECK(!iommu_add_endpoint(e.iommu, i, "fuzz", NULL, 0, &e.view[i], NULL));
		e.dev[i] = make_device(i);
		if (i < KINDS)
			CHECK(!virtio_mmio_create(&e.vm[i], e.dev[i], &e.mmio,
						  GPA(MMIO + i * VIRTIO_MMIO_SIZE), &e.irq, NULL));
		else
			CHECK(!virtio_pci_create(&e.vp[i - KINDS], e.dev[i], e.root, i - KINDS + 1,
						 NULL));
	}
	CHECK(!pci_root_assign(e.root, NULL));
}

/*
 * Steps.
 */

static void access(uint64_t addr)
{
	fuzz_access(&input, &e.mmio, addr, (uint8_t)take(1));
}

static void access_window(void)
{
	const struct bus_window *w = &e.mmio.windows[take(1) % e.mmio.count];

	access(w->base + take(2) % w->size);
}

/* As a driver does it, with all or some of the features. */
static void activate(unsigned i)
{
	struct virtio_dev *dev = e.dev[i];
	uint64_t features = virtio_offered_features(dev) & ~(take(1) & 1 ? take(5) : 0);

	features |= VIRTIO_F_VERSION_1;
	virtio_host_reset(dev);
	virtio_set_status(dev, 3);
	virtio_set_driver_features(dev, 0, (uint32_t)features);
	virtio_set_driver_features(dev, 1, (uint32_t)(features >> 32));
	virtio_set_status(dev, 11);
	for (unsigned q = 0; q < dev->num_queues; q++) {
		memset(at(RING(q)), 0, PAGE);
		e.avail[i][q] = 0;
		virtio_set_queue_size(dev, q, QSIZE);
		for (unsigned part = 0; part < 3; part++)
			virtio_set_queue_addr(dev, q, part, false, RING(q) + 1024 * part);
		virtio_set_queue_enabled(dev, q, true);
	}
	virtio_set_status(dev, 15);
}

/* A chain of up to QSIZE buffers, readable before writable; the first one's bytes are the input's.
 */
static void offer(unsigned i)
{
	struct virtio_dev *dev = e.dev[i];
	unsigned q = (unsigned)take(1) % dev->num_queues, shape = (unsigned)take(1);
	unsigned out = shape % 4, in = shape / 4 % 4, n = out + in;
	uint16_t head = 0;

	for (unsigned k = 0; k < n; k++) {
		uint64_t addr = DATA + PAGE * (q + k);
		uint32_t len = (uint32_t)(k ? 1 + take(2) % 4096 : 16 + take(1) % 64);
		uint16_t flags = (uint16_t)((k >= out ? 2 : 0) | (k + 1 < n ? 1 : 0));
		uint16_t next = (uint16_t)(k + 1);
		uint8_t *d = at(RING(q)) + 16 * (size_t)k;

		memcpy(d, &addr, 8);
		memcpy(d + 8, &len, 4);
		memcpy(d + 12, &flags, 2);
		memcpy(d + 14, &next, 2);
	}
	for (unsigned k = 0; k < 16; k++)
		*at(DATA + PAGE * q + k) = (uint8_t)take(1);
	memcpy(at(RING(q) + 1024) + 4 + 2 * (e.avail[i][q] % QSIZE), &head, 2);
	atomic_store((_Atomic uint16_t *)(void *)at(RING(q) + 1024 + 2), ++e.avail[i][q]);
	virtio_kick(dev, q);
}

static void nothing(void *opaque)
{
}

static void step(void)
{
	unsigned what = (unsigned)take(1), i = what / 8 % DEVICES;

	switch (what % 8) {
	case 0:
		access_window();
		break;
	case 1:
		access(MMIO + i % KINDS * VIRTIO_MMIO_SIZE + take(2) % 0x200);
		break;
	case 2:
		access(ECAM + ((uint64_t)(i % KINDS + 1) << 15) + take(1));
		break;
	case 3:
		activate(i);
		break;
	case 4:
	case 5:
		offer(i);
		break;
	case 6:
		*at(RING(0) + take(2) % (8 * PAGE)) = (uint8_t)take(1);
		virtio_kick(e.dev[i], 0);
		break;
	default:
		loop_call(e.loop, nothing, NULL);
	}
}

static void check_identity(void)
{
	static const unsigned id[KINDS] = { 2, 1, 4, 23 };
	uint64_t value;

	for (unsigned i = 0; i < KINDS; i++) {
		CHECK(bus_read(&e.mmio, MMIO + i * VIRTIO_MMIO_SIZE, 4, &value));
		CHECK(value == 0x74726976);
		CHECK(bus_read(&e.mmio, MMIO + i * VIRTIO_MMIO_SIZE + 8, 4, &value));
		CHECK(value == id[i]);
		CHECK(bus_read(&e.mmio, ECAM + ((uint64_t)(i + 1) << 15), 4, &value));
		CHECK(value == ((0x1040u + id[i]) << 16 | 0x1af4));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!e.root)
		create();
	input = (struct fuzz_input){ data, size };
	memset(e.ram.host, 0, e.ram.size);
	for (unsigned n = 0; input.left && n < MAX_STEPS; n++)
		step();
	check_identity();
	for (unsigned i = 0; i < DEVICES; i++)
		virtio_host_reset(e.dev[i]);
	for (unsigned i = 0; i < KINDS; i++)
		virtio_pci_reset(e.vp[i]);
	iommu_system_reset(e.iommu);
	return 0;
}
