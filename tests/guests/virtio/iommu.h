#ifndef TESTS_GUESTS_VIRTIO_IOMMU_H
#define TESTS_GUESTS_VIRTIO_IOMMU_H

/*
 * The virtio-iommu as its driver sees it (virtio 1.3, 5.13), for tests: every
 * request can be well-formed, or bytes of any length in any layout.
 */

#include "tests/guests/virtio/vring.h"

#define F_INPUT_RANGE	(1ull << 0)
#define F_DOMAIN_RANGE	(1ull << 1)
#define F_MAP_UNMAP	(1ull << 2)
#define F_BYPASS	(1ull << 3)
#define F_PROBE		(1ull << 4)
#define F_MMIO		(1ull << 5)
#define F_BYPASS_CONFIG (1ull << 6)

/* Offsets in config space. */
#define CONFIG_PAGE_SIZE_MASK 0
#define CONFIG_INPUT_START    8
#define CONFIG_INPUT_END      16
#define CONFIG_DOMAIN_START   24
#define CONFIG_DOMAIN_END     28
#define CONFIG_PROBE_SIZE     32
#define CONFIG_BYPASS	      36

enum request_type { T_ATTACH = 1, T_DETACH = 2, T_MAP = 3, T_UNMAP = 4, T_PROBE = 5 };

enum status {
	S_OK = 0,
	S_IOERR = 1,
	S_UNSUPP = 2,
	S_DEVERR = 3,
	S_INVAL = 4,
	S_RANGE = 5,
	S_NOENT = 6,
	S_FAULT = 7,
	S_NOMEM = 8,
	/* Not statuses: what else may come of a request. */
	S_UNWRITTEN = -1, /* returned with a used length of 0, nothing written */
	S_LOST = -2,	  /* not returned */
	S_ODD = -3,	  /* returned with another length, or with rubbish in the tail */
};

#define MAP_READ  1u
#define MAP_WRITE 2u
#define MAP_MMIO  4u
#define MAP_RW	  (MAP_READ | MAP_WRITE)

#define ATTACH_BYPASS 1u

/* Readable bytes of each request, and of the tail that all have. */
#define ATTACH_SIZE 20u
#define DETACH_SIZE 20u
#define MAP_SIZE    36u
#define UNMAP_SIZE  28u
#define PROBE_SIZE  72u
#define TAIL_SIZE   4u

#define MAX_REQUEST 128u
#define MAX_REPLY   2048u

/* Longer than any request takes, also of a host that stands still for a while. */
#define PATIENCE_MS 10000

/* What buffers are filled with before the device gets them. */
#define UNTOUCHED 0xa5

enum { REQUEST_QUEUE, EVENT_QUEUE };

/* Event buffers that iommu_post_events puts up, and the size of a whole report. */
#define NUM_EVENTS 16u
#define FAULT_SIZE 24u

struct iommu {
	struct vdev dev;
	struct vring requests, events;
	uint64_t features;  /* negotiated */
	uint64_t page_mask; /* page_size_mask */
	uint64_t granule, input_first, input_last;
	uint32_t probe_size;
	uint8_t initial_bypass;
	uint8_t *request, *reply; /* pages of their own */
	uint8_t *event;		  /* NUM_EVENTS buffers, EVENT_STRIDE apart */
	uint32_t event_size;	  /* as they were posted */
};

extern struct iommu iommu;

/* Find it and read what doesn't change. False when there is none. */
bool iommu_find(void);
/*
 * Reset, negotiate @features (what isn't offered is left out, VERSION_1 added),
 * fresh queues, DRIVER_OK. No event buffers. Needs pages().
 */
bool iommu_start(uint64_t features);
bool iommu_has(uint64_t feature);
void iommu_set_bypass(uint8_t bypass);
uint8_t iommu_get_bypass(void);

/* A request's bytes, with zeroes where nothing was asked for. Returns how many. */
unsigned fill_attach(uint8_t *to, uint32_t domain, uint32_t endpoint, uint32_t flags);
unsigned fill_detach(uint8_t *to, uint32_t domain, uint32_t endpoint);
unsigned fill_map(uint8_t *to, uint32_t domain, uint64_t first, uint64_t last, uint64_t to_phys,
		  uint32_t flags);
unsigned fill_unmap(uint8_t *to, uint32_t domain, uint64_t first, uint64_t last);
unsigned fill_probe(uint8_t *to, uint32_t endpoint);

/*
 * Send iommu.request's first @out bytes with @in bytes of room in iommu.reply,
 * which is filled with UNTOUCHED before, and wait. True with the used length.
 */
bool iommu_send(unsigned out, unsigned in, uint32_t *ret_len);
/* What came of it: a status when exactly a good tail was written at the end of @in bytes. */
enum status iommu_verdict(bool sent, uint32_t used, unsigned in);
/* iommu_send with a tail's room, and the verdict. */
enum status iommu_request(unsigned out);

enum status iommu_attach(uint32_t domain, uint32_t endpoint, uint32_t flags);
enum status iommu_detach(uint32_t domain, uint32_t endpoint);
/* [@first, @last], both inclusive. */
enum status iommu_map(uint32_t domain, uint64_t first, uint64_t last, uint64_t to_phys,
		      uint32_t flags);
enum status iommu_unmap(uint32_t domain, uint64_t first, uint64_t last);
/* @n pages from @iova. */
enum status iommu_map_pages(uint32_t domain, uint64_t iova, uint64_t to_phys, unsigned n,
			    uint32_t flags);
enum status iommu_unmap_pages(uint32_t domain, uint64_t iova, unsigned n);
/* The properties are then in iommu.reply, iommu.probe_size bytes. */
enum status iommu_probe(uint32_t endpoint);

struct resv {
	uint8_t subtype;
	uint64_t first, last;
};

#define RESV_RESERVED 0
#define RESV_MSI      1

/* The reserved regions in iommu.reply after a PROBE; returns how many of at most @max. */
unsigned iommu_reserved(struct resv *ret_resv, unsigned max);

/*
 * Events.
 */

#define FAULT_UNKNOWN 0
#define FAULT_DOMAIN  1
#define FAULT_MAPPING 2

#define FAULT_F_READ	0x001u
#define FAULT_F_WRITE	0x002u
#define FAULT_F_ADDRESS 0x100u

struct fault {
	uint8_t reason;
	uint32_t flags, endpoint;
	uint64_t address;
	uint32_t used;	    /* length that the device reported */
	const uint8_t *raw; /* the buffer: iommu.event_size bytes, UNTOUCHED before */
};

/* Put up @count buffers of @size bytes, each one descriptor. */
void iommu_post_events(unsigned count, uint32_t size);
/* The next report. False when none comes within @ms. */
bool iommu_next_fault(unsigned ms, struct fault *ret_fault);
/* Post the buffer of @fault again. */
void iommu_repost(const struct fault *fault);

#endif
