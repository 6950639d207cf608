#ifndef TESTS_GUESTS_IOMMU_TEST_H
#define TESTS_GUESTS_IOMMU_TEST_H

/*
 * Tests of the virtio-iommu, grouped in tables by file. Before each one the
 * disks are reset, then the IOMMU starts afresh with all features, bypass off
 * and NUM_EVENTS event buffers. A test named "spec N" shows item N of the
 * checklist (HACKING.md); one named "moat" a decision of this product that the
 * specification leaves open; one named "core" a rule of virtio's core.
 */

#include "tests/guests/virtio/disk.h"
#include "tests/guests/virtio/iommu.h"

struct test {
	const char *name;
	void (*run)(void);
};

extern const struct test config_tests[], request_tests[], attach_tests[], map_tests[],
	unmap_tests[], probe_tests[], dma_tests[], fault_tests[], core_tests[], feature_tests[];
/* For the second boot of the machine: what a system reset left. */
extern const struct test reset_tests[];

/* Leave the machine as reset_tests wants to find it, then reset it. */
void prepare_system_reset(void);

/* The state described above; also in the middle of a test. */
bool fresh(void);

/* Why the rest of this test can't be run here. */
void skip(const char *why);

/* Note a failure and go on; REQUIRE leaves the test. */
void expect_failed(const char *file, int line, const char *what);
bool expect_equal(const char *file, int line, const char *what, int64_t got, int64_t wanted);

#define EXPECT(condition)                                                   \
	do {                                                                \
		if (!(condition))                                           \
			expect_failed(__FILE_NAME__, __LINE__, #condition); \
	} while (0)
#define EXPECT_EQ(got, wanted) \
	expect_equal(__FILE_NAME__, __LINE__, #got, (int64_t)(got), (int64_t)(wanted))
#define REQUIRE(condition)                                                  \
	do {                                                                \
		if (!(condition)) {                                         \
			expect_failed(__FILE_NAME__, __LINE__, #condition); \
			return;                                             \
		}                                                           \
	} while (0)

/* IOVAs that no identity mapping of a ring covers: all our memory is below. */
#define DATA 0xa0000000ull
#define FAR  0xb0000000ull

/* How long to wait for what shall not happen. */
#define QUIET_MS 50
/* ... and for a fault that shall. */
#define FAULT_MS 10000

/*
 * The next fault must be about @disk's access to @address: @reason, and
 * FAULT_F_READ or FAULT_F_WRITE for what the device tried.
 */
#define EXPECT_FAULT(disk, reason, direction, address) \
	expect_fault_in(__FILE_NAME__, __LINE__, disk, reason, direction, address, 1)
/* The same where the device may choose with which byte of a page it begins. */
#define EXPECT_FAULT_IN_PAGE(disk, reason, direction, page) \
	expect_fault_in(__FILE_NAME__, __LINE__, disk, reason, direction, page, PAGE)
void expect_fault_in(const char *file, int line, const struct disk *disk, uint8_t reason,
		     uint32_t direction, uint64_t address, uint64_t size);
#define EXPECT_NO_FAULT() EXPECT(!any_fault())
bool any_fault(void);

/* @disk can load its sector @sector to @iova, and it arrives at @memory, one page. */
#define EXPECT_LOADS(disk, iova, memory) EXPECT(loads(disk, iova, memory))
bool loads(struct disk *disk, uint64_t iova, uint64_t memory);
/* An I/O that touched what isn't accessible has failed. */
#define EXPECT_REFUSED(outcome) EXPECT(refused(outcome))
bool refused(enum outcome outcome);
/* @disk can't write to @iova; a fault says so, and @memory (a page, or 0) stays as it was. */
#define EXPECT_REFUSES(disk, reason, iova, memory) \
	expect_refuses(__FILE_NAME__, __LINE__, disk, reason, iova, memory)
void expect_refuses(const char *file, int line, struct disk *disk, uint8_t reason, uint64_t iova,
		    uint64_t memory);

/* An endpoint ID that doesn't exist. */
uint32_t no_endpoint(void);

#endif
