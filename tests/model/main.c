/*
 * Random sequences of requests against the model, compared after every step:
 *
 *	model_viommu [SEQUENCES [SEED]]
 *
 * Each begins with a device reset and a random subset of the features. The same
 * seed makes the same sequences.
 */
#include "tests/model/viommu.h"

#include "devices/iommu/request.h"
#include "vmm/base/log.h"

#define MAX_STEPS 60
#define STEP_MAX  96 /* more bytes than any step consumes but for raw ones */

struct waited {
	struct iommu_op op;
	bool done;
};

static uint8_t out[IOMMU_PROBE_SIZE + 16];
static uint64_t rng, parked;

static uint64_t rnd(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static void op_done(struct iommu_op *op)
{
	container_of(op, struct waited, op)->done = true;
}

/* A late answer needs I/O in flight, and comes with its end, not before. */
static void wait_late(struct waited *w)
{
	parked++;
	CHECK(!w->done);
	CHECK(model_release());
	CHECK(w->done);
}

static uint32_t send(const void *req, uint32_t len, uint32_t room, uint32_t cut)
{
	struct waited w = { .op.done = op_done };
	struct request_answer answer;

	memset(out, 0xaa, sizeof(out));
	if (!request_execute(model_subject.iommu, model_subject.features, req, len, room, &w.op,
			     &answer)) {
		wait_late(&w);
		const struct virtio_iommu_tail tail = { .status = (uint8_t)w.op.status };

		memcpy(out, &tail, sizeof(tail));
		return sizeof(tail);
	}
	memcpy(out, answer.bytes, answer.len);
	return answer.len;
}

static uint8_t bypass(uint8_t value)
{
	if (value <= 1 && model_subject.features & VIRTIO_IOMMU_F_BYPASS_CONFIG)
		iommu_set_bypass(model_subject.iommu, value);
	return iommu_get_bypass(model_subject.iommu);
}

static void reset(void)
{
	struct waited w = { .op.done = op_done };

	if (iommu_reset(model_subject.iommu, &w.op) == IOMMU_PENDING)
		wait_late(&w);
	model_restart();
	model_compare(0);
}

static uint64_t random_features(void)
{
	const uint64_t optional[] = { VIRTIO_IOMMU_F_PROBE, VIRTIO_IOMMU_F_MMIO,
				      VIRTIO_IOMMU_F_BYPASS_CONFIG };
	uint64_t features = VIRTIO_IOMMU_F_MAP_UNMAP;

	for (unsigned i = 0; i < ARRAY_SIZE(optional); i++)
		features |= rnd() & 2 ? optional[i] : 0;
	return features;
}

static uint64_t run_sequence(void)
{
	unsigned steps = 1 + (unsigned)(rnd() % MAX_STEPS);
	uint8_t bytes[STEP_MAX];

	reset();
	model_subject.features = random_features();
	for (unsigned i = 0; i < steps; i++) {
		for (unsigned k = 0; k < sizeof(bytes); k += 8) {
			/* The low bits of xorshift are as good as any. */
			uint64_t word = rnd();

			memcpy(bytes + k, &word, 8);
		}
		model_input(bytes, sizeof(bytes));
		model_step();
		model_input(bytes, sizeof(bytes));
		model_compare(2);
	}
	model_compare(0);
	return steps;
}

int main(int argc, char **argv)
{
	uint64_t sequences = argc > 1 && argv[1][0] ? strtoull(argv[1], NULL, 10) : 50000,
		 steps = 0;

	rng = (argc > 2 ? strtoull(argv[2], NULL, 10) : 1) * 0x9e3779b97f4a7c15 | 1;
	log_set_level(LOG_ERROR);
	model_create();
	model_subject.send = send;
	model_subject.out = out;
	model_subject.bypass = bypass;
	for (uint64_t i = 0; i < sequences; i++)
		steps += run_sequence();
	printf("%lu sequences, %lu steps, %lu late answers\n", (unsigned long)sequences,
	       (unsigned long)steps, (unsigned long)parked);
	model_release();
	return 0;
}
