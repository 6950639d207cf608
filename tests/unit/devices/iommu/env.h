#ifndef TESTS_UNIT_DEVICES_IOMMU_ENV_H
#define TESTS_UNIT_DEVICES_IOMMU_ENV_H

/* An IOMMU with two endpoints and a port each, and short names for what is asked of it. */

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include "devices/iommu/domain.h"
#include "vmm/base/log.h"

#define OK     VIRTIO_IOMMU_S_OK
#define INVAL  VIRTIO_IOMMU_S_INVAL
#define RANGE  VIRTIO_IOMMU_S_RANGE
#define NOENT  VIRTIO_IOMMU_S_NOENT
#define UNSUPP VIRTIO_IOMMU_S_UNSUPP
#define NOMEM  VIRTIO_IOMMU_S_NOMEM

#define R	VIRTIO_IOMMU_MAP_F_READ
#define W	VIRTIO_IOMMU_MAP_F_WRITE
#define RW	(R | W)
#define MMIO	VIRTIO_IOMMU_MAP_F_MMIO
#define ALL_MAP (RW | MMIO)
#define BYPASS	VIRTIO_IOMMU_ATTACH_F_BYPASS

#define G	  0x1000ULL
#define RAM_PAGES 64
#define MSI_FIRST 0xfee00000ULL
#define MSI_LAST  0xfeefffffULL

struct env {
	struct ram ram; /* two regions with a hole: [0, 32 pages) and [1 MiB, + 32 pages) */
	struct iommu *iommu;
	struct dma_view *view[2]; /* endpoints 8 and 9 */
	struct dma_port port[2];
	struct iommu_op op;
	_Atomic unsigned done;
};

static struct env env;

static inline void op_done(struct iommu_op *op)
{
	atomic_fetch_add(&env.done, 1);
}

static inline void setup_with(const struct iommu_config *config)
{
	static const struct iommu_resv msi = { IOMMU_RESV_MSI, MSI_FIRST, MSI_LAST };

	env.ram.host = aligned_alloc(G, RAM_PAGES * G);
	for (unsigned i = 0; i < RAM_PAGES; i++)
		memset((char *)env.ram.host + i * G, (int)i + 1, G);
	env.ram.size = RAM_PAGES * G;
	env.ram.count = 2;
	env.ram.region[0] = (struct ram_region){ GPA(0), 32 * G, 0, env.ram.host };
	env.ram.region[1] =
		(struct ram_region){ GPA(MIB(1)), 32 * G, 32 * G, (char *)env.ram.host + 32 * G };
	cr_assert_eq(iommu_create(&env.iommu, config, &env.ram, NULL), 0);
	cr_assert_eq(iommu_add_endpoint(env.iommu, 8, "disk0", &msi, 1, &env.view[0], NULL), 0);
	cr_assert_eq(iommu_add_endpoint(env.iommu, 9, "net0", NULL, 0, &env.view[1], NULL), 0);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(dma_port_init(&env.port[i], env.view[i]), 0);
	env.op.done = op_done;
	log_set_level(LOG_ERROR);
}

static inline void setup(void)
{
	setup_with(&(struct iommu_config){ .granule = G, .address_width = 48 });
}

static inline void teardown(void)
{
	for (int i = 0; i < 2; i++)
		dma_port_finish(&env.port[i]);
	iommu_destroy(env.iommu);
	free(env.ram.host);
}

static inline int attach(uint32_t domain, uint32_t endpoint, uint32_t flags)
{
	return iommu_attach(env.iommu, domain, endpoint, flags, BYPASS, &env.op);
}

static inline int detach(uint32_t domain, uint32_t endpoint)
{
	return iommu_detach(env.iommu, domain, endpoint, &env.op);
}

static inline int map(uint32_t domain, uint64_t first, uint64_t last, uint64_t phys, uint32_t flags)
{
	return iommu_map(env.iommu, domain, first, last, phys, flags, ALL_MAP);
}

static inline int unmap(uint32_t domain, uint64_t first, uint64_t last)
{
	return iommu_unmap(env.iommu, domain, first, last, &env.op);
}

/* What endpoint 8 + @i reads at @iova: the byte, or -1 when refused. */
static inline int peek(int i, uint64_t iova)
{
	uint8_t byte;

	return dma_read(&env.port[i], IOVA(iova), &byte, 1) ? -1 : byte;
}

static inline bool poke(int i, uint64_t iova)
{
	uint8_t byte = 0xee;

	return !dma_write(&env.port[i], IOVA(iova), &byte, 1);
}

/* Pins held for an "I/O in flight". */
struct io {
	struct iovec iov[8];
	void *mapping[8];
	struct dma_list list;
};

static inline int io_start(struct io *io, int i, uint64_t iova, uint64_t len, enum dma_dir dir)
{
	io->list = (struct dma_list){ .iov = io->iov, .mapping = io->mapping, .max = 8 };
	return dma_map(&env.port[i], IOVA(iova), len, dir, &io->list);
}

#endif
