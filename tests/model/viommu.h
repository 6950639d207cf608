#ifndef TESTS_MODEL_VIOMMU_H
#define TESTS_MODEL_VIOMMU_H

/*
 * A naive model of virtio-iommu (an array of pages for each domain) beside the
 * real one. Bytes choose requests over a small space of IDs and pages, so that
 * they meet; the model predicts every status and what each endpoint can reach.
 * Who supplies the bytes (a fuzzer, random numbers) and how requests travel (a
 * ring, or straight into request.c) is the caller's.
 */

#include <stdio.h>
#include <stdlib.h>
#include "devices/iommu/domain.h"
#include "tests/check.h"

#define MODEL_PAGE	4096ULL
#define MODEL_RAM_PAGES 32
#define MODEL_ENDPOINTS 3

/* The iommu under test with its memory; the thread that drives it is also its devices. */
struct model_subject {
	struct ram ram;
	struct iommu *iommu;
	struct dma_view *view[MODEL_ENDPOINTS];
	struct dma_port port[MODEL_ENDPOINTS];
	/*
	 * Send the @len bytes at @req with @room writable bytes; @cut is a hint where
	 * to divide it. Wait for the answer; when it is late, call model_release and
	 * wait on. Returns the used length, with the writable bytes, which were 0xaa,
	 * and one after them at @out.
	 */
	uint32_t (*send)(const void *req, uint32_t len, uint32_t room, uint32_t cut);
	const uint8_t *out;
	/* Write and read config.bypass. */
	uint8_t (*bypass)(uint8_t value);
	uint64_t features; /* negotiated */
};

extern struct model_subject model_subject;

/* Make the iommu and its endpoints; once. The caller sets the rest of model_subject. */
void model_create(void);

/* The device was reset and is driven again: no domain, no attachment. bypass stays. */
void model_restart(void);

/* The input: *@left bytes at *@data, consumed from the front; zeroes when they are used up. */
void model_input(const uint8_t *data, size_t size);
bool model_has_input(void);
unsigned model_take(unsigned limit);

/* One step that the input chooses: a request, I/O that begins or ends. */
void model_step(void);

/* End all I/O in flight. True when there was any. */
bool model_release(void);

/* What @count random addresses (0: all pages) of all endpoints translate to is the model's. */
void model_compare(unsigned count);

#endif
