/*
 * Theory of operation
 *
 * The guest waits for every request with interrupts off, so the request queue is
 * served by a loop of its own. After activity it looks at the ring for a short
 * while before it asks for notifications and sleeps: a guest that issues
 * requests in a row then pays neither for a VM exit nor for waking a thread. The
 * while adapts between POLL_MIN_NS and POLL_MAX_NS: twice as long when a
 * notification comes so soon after the last request that looking out for longer
 * would have spared it, else half as long. Nothing is polled when nothing happened.
 *
 * Answers that have to wait. An operation that is pending (domain.h) keeps its
 * slot, in which there is all that the answer needs: the chain's head and where
 * the tail is. Its completion may come on any thread, so it goes through a
 * stack (`done`) and an eventfd to the loop, where it is published, or dropped
 * when a reset came first. Other requests go on meanwhile; a request is only
 * taken from the ring while a slot is free, and there are as many as the ring has
 * entries.
 *
 * Faults are queued by the iommu; its listener rings the same eventfd. A fault
 * waits for the driver's buffer; when the queue of faults is full, the
 * iommu drops and counts.
 *
 * Everything but config space and `done` belongs to the loop's thread.
 */
#include "devices/iommu/viommu.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include "devices/iommu/request.h"

#define REQUEST_QUEUE_SIZE 256
#define EVENT_QUEUE_SIZE   64

/* At most so many answers are collected before the guest sees them. */
#define BATCH 32
/* The loop's other work (completions, faults, a reset) waits no longer than this. */
#define TURN_NS	    1000000
#define POLL_MIN_NS 2000
#define POLL_MAX_NS 200000 /* what KVM, too, waits for a halted vCPU */

/* A reply needs at most one buffer for each byte of its tail. */
#define TAIL_BUFS sizeof(struct virtio_iommu_tail)

struct slot {
	struct iommu_op op;
	struct viommu *viommu;
	struct slot *next; /* free, or in `done` */
	uint16_t head;
	unsigned bufs;
	struct virtq_buf buf[TAIL_BUFS];
};

struct viommu {
	struct virtio_dev dev;
	struct iommu *iommu; /* borrows */
	int wake_fd;	     /* owns; an eventfd: `done` or a fault */
	bool watched;

	struct slot slot[REQUEST_QUEUE_SIZE];
	struct slot reset_slot; /* of the operation that a device reset is */
	struct slot *free;
	unsigned parked; /* operations whose done is to come, the reset's included */
	/* Completed operations, pushed by any thread; the loop takes all at once. */
	_Atomic(struct slot *) done;

	uint64_t poll_ns;   /* how long to look for requests after the last one */
	uint64_t served_ns; /* when that was */
	bool have_fault;    /* taken from the iommu, waiting for a buffer */
	struct iommu_fault fault;

	struct virtq_chain chain;
	struct virtq_buf buf[REQUEST_QUEUE_SIZE];
	struct request_answer answer;
};

static struct viommu *to_viommu(struct virtio_dev *dev)
{
	return container_of(dev, struct viommu, dev);
}

static struct virtq *request_vq(struct viommu *v)
{
	return &v->dev.queue[VIOMMU_QUEUE_REQUEST].vq;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void wake(void *opaque)
{
	struct viommu *v = opaque;
	const uint64_t one = 1;

	/* EAGAIN: it is full of wake-ups already. */
	if (write(v->wake_fd, &one, sizeof(one)) < 0)
		return;
}

/* An iommu_op's done: any thread. */
static void slot_done(struct iommu_op *op)
{
	struct slot *slot = container_of(op, struct slot, op);
	struct viommu *v = slot->viommu;
	struct slot *top = atomic_load_explicit(&v->done, memory_order_relaxed);

	do {
		slot->next = top;
		/* Release: pairs with the exchange in finish_parked. */
	} while (!atomic_compare_exchange_weak_explicit(&v->done, &top, slot, memory_order_release,
							memory_order_relaxed));
	wake(v);
}

static void give_slot(struct viommu *v, struct slot *slot)
{
	slot->next = v->free;
	v->free = slot;
}

/* Remember in @slot where the answer to v->chain goes. */
static void park(struct viommu *v, struct slot *slot)
{
	uint64_t left = sizeof(struct virtio_iommu_tail);

	slot->head = v->chain.head;
	slot->bufs = 0;
	for (unsigned i = 0; left; i++) {
		const struct virtq_buf *buf = &v->chain.buf[v->chain.out + i];
		uint32_t len = (uint32_t)MIN(buf->len, left);

		if (!len)
			continue;
		slot->buf[slot->bufs++] = (struct virtq_buf){ .addr = buf->addr, .len = len };
		left -= len;
	}
	v->parked++;
}

static void answer_slot(struct viommu *v, struct slot *slot)
{
	const struct virtio_iommu_tail tail = { .status = (uint8_t)slot->op.status };
	const struct virtq_chain chain = {
		.head = slot->head,
		.in = slot->bufs,
		.in_bytes = sizeof(tail),
		.buf = slot->buf,
	};
	uint32_t len = sizeof(tail);

	if (virtq_write(request_vq(v), &chain, 0, &tail, len))
		len = 0;
	virtq_push(request_vq(v), slot->head, len);
}

/* Answer what was completed. True when a slot became free. */
static bool finish_parked(struct viommu *v)
{
	/* Acquire: pairs with slot_done. */
	struct slot *slot = atomic_exchange_explicit(&v->done, NULL, memory_order_acquire);
	bool any = slot;

	while (slot) {
		struct slot *next = slot->next;

		v->parked--;
		if (slot != &v->reset_slot) {
			/* A reset drops parked replies. */
			if (!v->dev.quiescing)
				answer_slot(v, slot);
			give_slot(v, slot);
		}
		slot = next;
	}
	if (any && !v->dev.quiescing)
		virtio_publish(&v->dev, VIOMMU_QUEUE_REQUEST);
	return any;
}

/*
 * The request queue.
 */

/* One request: 1 done or parked, 0 none or no slot for one, -EPROTO or -EFAULT. */
static int serve_one(struct viommu *v)
{
	struct virtq *vq = request_vq(v);
	uint8_t bytes[REQUEST_MAX_BYTES];
	struct slot *slot = v->free;

	if (!slot)
		return 0;
	v->chain.buf = v->buf;
	v->chain.max = ARRAY_SIZE(v->buf);
	int ret = virtq_pop(vq, &v->chain);

	if (ret <= 0)
		return ret;
	size_t len = MIN(v->chain.out_bytes, sizeof(bytes));
	struct request_answer *answer = &v->answer;

	/* Out of the list first: its done may be called before request_execute returns. */
	v->free = slot->next;
	if (virtq_read(vq, &v->chain, 0, bytes, len)) {
		answer->len = 0;
	} else if (!request_execute(v->iommu, v->dev.driver_features, bytes, len, v->chain.in_bytes,
				    &slot->op, answer)) {
		park(v, slot);
		return 1;
	}
	give_slot(v, slot);
	if (answer->len && virtq_write(vq, &v->chain, 0, answer->bytes, answer->len))
		answer->len = 0;
	virtq_push(vq, v->chain.head, answer->len);
	return 1;
}

/* All requests there are, up to a batch; published at once. 1 when there were any, else as above.
 */
static int serve_batch(struct viommu *v)
{
	int ret = 0;
	unsigned n;

	for (n = 0; n < BATCH; n++) {
		ret = serve_one(v);
		if (ret <= 0)
			break;
	}
	if (n)
		virtio_publish(&v->dev, VIOMMU_QUEUE_REQUEST);
	if (ret == -EPROTO)
		virtio_needs_reset(&v->dev, "the request queue is broken");
	return ret < 0 ? ret : n > 0;
}

/*
 * Serve, then look out for more. Returns 0 when nothing came for a while, 1 at
 * @turn_end, -EPROTO or -EFAULT.
 */
static int serve_and_poll(struct viommu *v, uint64_t turn_end)
{
	uint64_t now;

	do {
		bool finished = finish_parked(v);
		int ret = serve_batch(v);

		if (ret < 0)
			return ret;
		now = now_ns();
		if (ret || finished)
			v->served_ns = now;
		if (now >= turn_end)
			return 1;
	} while (now - v->served_ns < v->poll_ns);
	return 0;
}

static void serve_requests(struct viommu *v)
{
	struct virtq *vq = request_vq(v);
	uint64_t now = now_ns(), turn_end = now + TURN_NS;
	int ret;

	if (v->dev.quiescing || vq->state != VIRTQ_RUNNING)
		return;
	/* Would looking for longer have found this? */
	if (now - v->served_ns < POLL_MAX_NS)
		v->poll_ns = MIN(v->poll_ns * 2, POLL_MAX_NS);
	else
		v->poll_ns = MAX(v->poll_ns / 2, POLL_MIN_NS);
	virtq_disable_kicks(vq);
	do {
		ret = serve_and_poll(v, turn_end);
		/* Without a slot nothing can be taken; the next completion continues. */
	} while (!ret && v->free && virtq_enable_kicks(vq));
	if (ret > 0)
		virtio_kick(&v->dev, VIOMMU_QUEUE_REQUEST);
	else if (ret < 0)
		virtq_enable_kicks(vq);
}

/*
 * The event queue.
 */

static void drop_faults(struct viommu *v)
{
	while (v->have_fault || iommu_take_fault(v->iommu, &v->fault)) {
		v->have_fault = false;
		iommu_drop_fault(v->iommu, &v->fault);
	}
}

/* Write v->fault into v->chain; returns the used length, 0 when it didn't fit. */
static uint32_t write_fault(struct viommu *v, struct virtq *vq)
{
	struct virtio_iommu_fault wire = {
		.reason = (uint8_t)v->fault.reason,
		.flags = le32_from(v->fault.flags),
		.endpoint = le32_from(v->fault.endpoint),
		.address = le64_from(v->fault.address),
	};
	uint32_t len = sizeof(wire);

	if (v->chain.in_bytes < len) {
		/* The shorter form, without the address. A report is never split. */
		len = offsetof(struct virtio_iommu_fault, address);
		wire.flags = le32_from(v->fault.flags & ~VIRTIO_IOMMU_FAULT_F_ADDRESS);
	}
	if (v->chain.in_bytes < len || virtq_write(vq, &v->chain, 0, &wire, len))
		return 0;
	return len;
}

static void serve_events(struct viommu *v)
{
	struct virtq *vq = &v->dev.queue[VIOMMU_QUEUE_EVENT].vq;
	/* A driver that returns unusable buffers at once can't hold us here. */
	unsigned budget = EVENT_QUEUE_SIZE, pushed = 0;
	int ret = 1;

	if (v->dev.quiescing)
		return;
	if (vq->state != VIRTQ_RUNNING) {
		drop_faults(v);
		return;
	}
	while (budget-- && (v->have_fault || iommu_take_fault(v->iommu, &v->fault))) {
		v->have_fault = true;
		v->chain.buf = v->buf;
		v->chain.max = ARRAY_SIZE(v->buf);
		ret = virtq_pop(vq, &v->chain);
		if (!ret && virtq_enable_kicks(vq))
			ret = virtq_pop(vq, &v->chain);
		if (ret <= 0)
			break;
		uint32_t len = write_fault(v, vq);

		v->have_fault = !len;
		virtq_push(vq, v->chain.head, len);
		pushed++;
	}
	if (pushed)
		virtio_publish(&v->dev, VIOMMU_QUEUE_EVENT);
	if (ret == -EPROTO)
		virtio_needs_reset(&v->dev, "the event queue is broken");
	else if (ret > 0 && pushed == EVENT_QUEUE_SIZE)
		wake(v);
}

/*
 * The device.
 */

static void quiesced_when_idle(struct viommu *v)
{
	if (v->dev.quiescing && !v->parked)
		virtio_quiesced(&v->dev);
}

static void woken(void *opaque, uint32_t events)
{
	struct viommu *v = opaque;
	uint64_t count;

	if (read(v->wake_fd, &count, sizeof(count)) < 0)
		return;
	/* A free slot may be what the queue waited for. */
	if (finish_parked(v))
		serve_requests(v);
	serve_events(v);
	quiesced_when_idle(v);
}

static void viommu_activate(struct virtio_dev *dev)
{
	struct viommu *v = to_viommu(dev);

	/*
	 * Faults that are queued now may be younger than DRIVER_OK, as this is called
	 * some time after it. So the driver sees them; older ones were dropped.
	 */
	v->poll_ns = POLL_MIN_NS;
}

static void viommu_kick(struct virtio_dev *dev, unsigned queue)
{
	if (queue == VIOMMU_QUEUE_REQUEST)
		serve_requests(to_viommu(dev));
	else
		serve_events(to_viommu(dev));
}

static void viommu_config_read(struct virtio_dev *dev, unsigned offset, void *buf, unsigned len)
{
	struct viommu *v = to_viommu(dev);
	const struct virtio_iommu_config config = {
		.page_size_mask = le64_from(iommu_page_size_mask(v->iommu)),
		.input_start = le64_from(0),
		.input_end = le64_from(iommu_input_last(v->iommu)),
		.domain_start = le32_from(0),
		.domain_end = le32_from(UINT32_MAX),
		.probe_size = le32_from(IOMMU_PROBE_SIZE),
		.bypass = iommu_get_bypass(v->iommu),
	};

	memcpy(buf, (const char *)&config + offset, len);
}

static void viommu_config_write(struct virtio_dev *dev, unsigned offset, const void *buf,
				unsigned len)
{
	unsigned at = offsetof(struct virtio_iommu_config, bypass);

	/* The only writable field, and only for who negotiated it (5.13.4.1). */
	if (offset > at || offset + len <= at ||
	    !virtio_has_feature(dev, VIRTIO_IOMMU_F_BYPASS_CONFIG))
		return;
	uint8_t bypass = ((const uint8_t *)buf)[at - offset];

	/* Other values are a driver's mistake, and must never be read back. */
	if (bypass <= 1)
		iommu_set_bypass(to_viommu(dev)->iommu, bypass);
}

static void viommu_quiesce(struct virtio_dev *dev)
{
	struct viommu *v = to_viommu(dev);

	if (iommu_reset(v->iommu, &v->reset_slot.op) == IOMMU_PENDING)
		v->parked++;
	quiesced_when_idle(v);
}

static void viommu_reset(struct virtio_dev *dev)
{
	drop_faults(to_viommu(dev));
}

static const struct virtio_dev_ops viommu_ops = {
	.activate = viommu_activate,
	.kick = viommu_kick,
	.config_read = viommu_config_read,
	.config_write = viommu_config_write,
	.quiesce = viommu_quiesce,
	.reset = viommu_reset,
};

static void watch(void *opaque)
{
	struct viommu *v = opaque;

	v->watched = !loop_add_fd(v->dev.loop, v->wake_fd, EPOLLIN, woken, v);
}

static void unwatch(void *opaque)
{
	struct viommu *v = opaque;

	loop_remove_fd(v->dev.loop, v->wake_fd);
}

static struct viommu *make_viommu(const char *name, struct iommu *iommu, struct dma_view *view,
				  struct loop *loop)
{
	struct viommu *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	v->iommu = iommu;
	v->dev = (struct virtio_dev){
		.ops = &viommu_ops,
		.id = VIRTIO_ID_IOMMU,
		.name = name,
		.device_features = VIRTIO_IOMMU_F_INPUT_RANGE | VIRTIO_IOMMU_F_DOMAIN_RANGE |
				   VIRTIO_IOMMU_F_MAP_UNMAP | VIRTIO_IOMMU_F_PROBE |
				   VIRTIO_IOMMU_F_MMIO | VIRTIO_IOMMU_F_BYPASS_CONFIG |
				   VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX,
		.config_size = sizeof(struct virtio_iommu_config),
		.num_queues = VIOMMU_NUM_QUEUES,
		.queue_max_size = { REQUEST_QUEUE_SIZE, EVENT_QUEUE_SIZE },
		.loop = loop,
		.view = view,
	};
	for (unsigned i = 0; i < REQUEST_QUEUE_SIZE; i++) {
		v->slot[i].viommu = v;
		v->slot[i].op.done = slot_done;
		give_slot(v, &v->slot[i]);
	}
	v->reset_slot.viommu = v;
	v->reset_slot.op.done = slot_done;
	return v;
}

int viommu_create(struct viommu **ret_viommu, const char *name, struct iommu *iommu,
		  struct dma_view *view, struct loop *loop, struct err *err)
{
	struct viommu *v = make_viommu(name, iommu, view, loop);

	if (!v)
		return err_set(err, ENOMEM, "%s: out of memory", name);
	v->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	int ret = v->wake_fd < 0 ? -errno : 0;

	if (ret) {
		err_set(err, -ret, "%s: no eventfd: %s", name, strerror(-ret));
		goto free_viommu;
	}
	ret = virtio_init(&v->dev, err);
	if (ret)
		goto close_wake;
	loop_call(loop, watch, v);
	if (!v->watched) {
		ret = err_set(err, EIO, "%s: can't use its event loop", name);
		goto finish_virtio;
	}
	iommu_set_fault_listener(iommu, wake, v);
	*ret_viommu = v;
	return 0;
finish_virtio:
	virtio_finish(&v->dev);
close_wake:
	close(v->wake_fd);
free_viommu:
	free(v);
	return ret;
}

void viommu_destroy(struct viommu *v)
{
	if (!v)
		return;
	virtio_host_reset(&v->dev);
	iommu_set_fault_listener(v->iommu, NULL, NULL);
	loop_call(v->dev.loop, unwatch, v);
	virtio_finish(&v->dev);
	close(v->wake_fd);
	free(v);
}

struct virtio_dev *viommu_virtio(struct viommu *v)
{
	return &v->dev;
}
