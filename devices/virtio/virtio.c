/*
 * The transport-independent half of a virtio device.
 *
 * Two threads meet here. Register accesses run on vCPU threads and change
 * nothing but the register file, under dev->lock. What touches queues runs on
 * the loop's thread. They are tied together by three things only: loop_post
 * (activation and reset, in the order in which the driver asked), the kick
 * eventfds, and `resetting` with its condition variable.
 *
 *	         DRIVER_OK                      status = 0
 *	 idle ---------------> DRIVER_OK ---------------------> resetting
 *	   ^    post activate             post reset                |
 *	   |                                                        |
 *	   +--- status 0, waiters wake <-- ops->reset <-- quiesced -+
 *
 * Since the posts are in order, activate_on_loop runs before reset_on_loop even
 * when the driver resets at once. While `resetting`, writes to the status are
 * ignored: the driver must wait until it reads 0 (2.4.2, 4.1.4.3.2). A device
 * that never reached DRIVER_OK has nothing running, so it is reset on the spot.
 */
#include "devices/virtio/virtio.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* What a driver may set; NEEDS_RESET is ours. */
#define DRIVER_STATUS_BITS                                                            \
	(VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_DRIVER_OK | \
	 VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_FAILED)

/*
 * The register file after a reset: queues disabled and of full size, no
 * features. Under lock, or before the device is shared.
 */
static void reset_registers_locked(struct virtio_dev *dev)
{
	dev->driver_features = 0;
	for (unsigned i = 0; i < dev->num_queues; i++) {
		struct virtio_queue *queue = &dev->queue[i];

		queue->config = (struct virtq_config){ .size = queue->max_size };
	}
	atomic_store(&dev->status, 0);
}

static int queue_init(struct virtio_dev *dev, unsigned index, struct err *err)
{
	struct virtio_queue *queue = &dev->queue[index];
	int result;

	queue->dev = dev;
	queue->max_size = dev->queue_max_size[index];
	assert(queue->max_size && queue->max_size <= VIRTQ_MAX_SIZE &&
	       !(queue->max_size & (queue->max_size - 1)));
	queue->kick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (queue->kick_fd < 0)
		return err_set(err, errno, "%s: no eventfd for queue %u: %s", dev->name, index,
			       strerror(errno));
	result = dma_port_init(&queue->port, dev->view);
	if (result < 0) {
		close(queue->kick_fd);
		return err_set(err, -result, "%s: no DMA port for queue %u: %s", dev->name, index,
			       strerror(-result));
	}
	return 0;
}

static void queue_finish(struct virtio_queue *queue)
{
	dma_port_finish(&queue->port);
	close(queue->kick_fd);
}

static void activate_on_loop(void *opaque);
static void reset_on_loop(void *opaque);

int virtio_init(struct virtio_dev *dev, struct err *err)
{
	assert(dev->num_queues <= VIRTIO_MAX_QUEUES);
	for (unsigned i = 0; i < dev->num_queues; i++) {
		int result = queue_init(dev, i, err);

		if (result < 0) {
			while (i-- > 0)
				queue_finish(&dev->queue[i]);
			return result;
		}
	}
	pthread_mutex_init(&dev->lock, NULL);
	pthread_cond_init(&dev->reset_done, NULL);
	reset_registers_locked(dev);
	dev->activation = (struct loop_work){ .fn = activate_on_loop, .opaque = dev };
	dev->reset = (struct loop_work){ .fn = reset_on_loop, .opaque = dev };
	dev->initialised = true;
	return 0;
}

void virtio_finish(struct virtio_dev *dev)
{
	if (!dev->initialised)
		return;
	for (unsigned i = 0; i < dev->num_queues; i++)
		queue_finish(&dev->queue[i]);
	pthread_cond_destroy(&dev->reset_done);
	pthread_mutex_destroy(&dev->lock);
	dev->initialised = false;
}

void virtio_set_transport(struct virtio_dev *dev, const struct virtio_transport_ops *ops,
			  void *transport)
{
	dev->transport_ops = ops;
	dev->transport = transport;
}

/*
 * Notifications to the driver.
 */

static void notify_config(struct virtio_dev *dev)
{
	if (dev->transport_ops)
		dev->transport_ops->notify_config(dev->transport);
}

void virtio_publish(struct virtio_dev *dev, unsigned queue)
{
	if (virtq_publish(&dev->queue[queue].vq) && dev->transport_ops)
		dev->transport_ops->notify_queue(dev->transport, queue);
}

void virtio_needs_reset(struct virtio_dev *dev, const char *why)
{
	pthread_mutex_lock(&dev->lock);

	uint8_t status = atomic_load(&dev->status);
	bool news = (status & VIRTIO_STATUS_DRIVER_OK) && !dev->resetting &&
		    !(status & VIRTIO_STATUS_NEEDS_RESET);

	if (news)
		atomic_store(&dev->status, status | VIRTIO_STATUS_NEEDS_RESET);
	pthread_mutex_unlock(&dev->lock);
	if (!news)
		return;
	log_limited(&dev->log, "%s: the driver must reset the device: %s", dev->name, why);
	notify_config(dev);
}

void virtio_config_changed(struct virtio_dev *dev)
{
	atomic_fetch_add(&dev->config_generation, 1);
	/* Before DRIVER_OK the driver reads it all anyway, and must not be interrupted (2.3). */
	if (atomic_load(&dev->status) & VIRTIO_STATUS_DRIVER_OK)
		notify_config(dev);
}

/*
 * Features.
 */

uint64_t virtio_offered_features(const struct virtio_dev *dev)
{
	return dev->device_features | VIRTIO_F_VERSION_1 |
	       (dev->access_platform ? VIRTIO_F_ACCESS_PLATFORM : 0);
}

bool virtio_has_feature(const struct virtio_dev *dev, uint64_t feature)
{
	return dev->driver_features & feature;
}

void virtio_set_driver_features(struct virtio_dev *dev, unsigned word, uint32_t bits)
{
	if (word > 1)
		return;
	pthread_mutex_lock(&dev->lock);
	if (!dev->resetting && !(atomic_load(&dev->status) & VIRTIO_STATUS_FEATURES_OK)) {
		unsigned shift = word * 32;

		dev->driver_features &= ~((uint64_t)UINT32_MAX << shift);
		dev->driver_features |= (uint64_t)bits << shift;
	}
	pthread_mutex_unlock(&dev->lock);
}

uint32_t virtio_get_driver_features(struct virtio_dev *dev, unsigned word)
{
	if (word > 1)
		return 0;
	pthread_mutex_lock(&dev->lock);

	uint32_t bits = (uint32_t)(dev->driver_features >> (word * 32));

	pthread_mutex_unlock(&dev->lock);
	return bits;
}

uint32_t virtio_get_device_features(const struct virtio_dev *dev, unsigned word)
{
	return word > 1 ? 0 : (uint32_t)(virtio_offered_features(dev) >> (word * 32));
}

/* May the driver's choice become FEATURES_OK (2.2.2)? */
static bool features_acceptable_locked(const struct virtio_dev *dev)
{
	uint64_t offered = virtio_offered_features(dev);
	uint64_t required = VIRTIO_F_VERSION_1;

	/* A driver that doesn't translate its addresses could only cause faults. */
	if (dev->access_platform)
		required |= VIRTIO_F_ACCESS_PLATFORM;
	return !(dev->driver_features & ~offered) && !(required & ~dev->driver_features);
}

/*
 * Activation and kicks: on the loop's thread.
 */

static void drain(const struct virtio_queue *queue)
{
	uint64_t count;

	/* EAGAIN, nothing to drain, is fine; there are no other errors. */
	if (read(queue->kick_fd, &count, sizeof(count)) < 0)
		return;
}

static void kicked(void *opaque, uint32_t events)
{
	struct virtio_queue *queue = opaque;
	struct virtio_dev *dev = queue->dev;

	/* Before looking at the ring: a kick that comes later must wake us again. */
	drain(queue);
	/* The watch exists only from activation to reset, so only a broken ring is left out. */
	if (queue->vq.state == VIRTQ_RUNNING)
		dev->ops->kick(dev, (unsigned)(queue - dev->queue));
}

/* Start one enabled queue. Returns NULL or why it can't be served. */
static const char *queue_start(struct virtio_queue *queue, const struct virtq_config *config,
			       uint64_t features)
{
	virtq_start(&queue->vq, config, &queue->port, features & VIRTIO_F_EVENT_IDX,
		    features & VIRTIO_F_INDIRECT_DESC);
	if (queue->vq.state != VIRTQ_RUNNING)
		return "misaligned or impossible ring address";
	if (loop_add_fd(queue->dev->loop, queue->kick_fd, EPOLLIN, kicked, queue) < 0)
		return "the host can't watch its doorbell";
	/* What was made available before DRIVER_OK has no kick of its own. */
	virtio_kick(queue->dev, (unsigned)(queue - queue->dev->queue));
	return NULL;
}

static void activate_on_loop(void *opaque)
{
	struct virtq_config config[VIRTIO_MAX_QUEUES];
	struct virtio_dev *dev = opaque;
	const char *trouble = NULL;

	pthread_mutex_lock(&dev->lock);
	/* From here to the end of a reset neither can change: DRIVER_OK freezes them. */
	for (unsigned i = 0; i < dev->num_queues; i++)
		config[i] = dev->queue[i].config;
	uint64_t features = dev->driver_features;
	pthread_mutex_unlock(&dev->lock);

	for (unsigned i = 0; i < dev->num_queues; i++) {
		const char *why = NULL;

		if (config[i].enabled)
			why = queue_start(&dev->queue[i], &config[i], features);
		if (why)
			trouble = why;
	}
	if (dev->ops->activate)
		dev->ops->activate(dev);
	if (trouble)
		virtio_needs_reset(dev, trouble);
}

int virtio_kick_fd(const struct virtio_dev *dev, unsigned queue)
{
	return dev->queue[queue].kick_fd;
}

void virtio_kick(struct virtio_dev *dev, unsigned queue)
{
	const uint64_t one = 1;

	if (queue >= dev->num_queues)
		return;
	/* EAGAIN: 2^64 - 2 kicks are pending already, one more adds nothing. */
	if (write(dev->queue[queue].kick_fd, &one, sizeof(one)) < 0)
		return;
}

/*
 * Reset.
 */

/* Nothing runs any more: clear what registers show and let the waiters go. Any thread. */
static void finish_reset(struct virtio_dev *dev)
{
	if (dev->transport_ops && dev->transport_ops->reset)
		dev->transport_ops->reset(dev->transport);
	pthread_mutex_lock(&dev->lock);
	reset_registers_locked(dev);
	dev->resetting = false;
	pthread_cond_broadcast(&dev->reset_done);
	pthread_mutex_unlock(&dev->lock);
}

static void reset_on_loop(void *opaque)
{
	struct virtio_dev *dev = opaque;

	for (unsigned i = 0; i < dev->num_queues; i++)
		loop_remove_fd(dev->loop, dev->queue[i].kick_fd);
	dev->quiescing = true;
	dev->ops->quiesce(dev);
}

void virtio_quiesced(struct virtio_dev *dev)
{
	assert(dev->quiescing);
	dev->quiescing = false;
	if (dev->ops->reset)
		dev->ops->reset(dev);
	for (unsigned i = 0; i < dev->num_queues; i++)
		virtq_stop(&dev->queue[i].vq);
	finish_reset(dev);
}

/* Begin a reset, or join the one under way. */
static void begin_reset(struct virtio_dev *dev)
{
	pthread_mutex_lock(&dev->lock);
	if (dev->resetting) {
		pthread_mutex_unlock(&dev->lock);
		return;
	}
	dev->resetting = true;

	bool ran = atomic_load(&dev->status) & VIRTIO_STATUS_DRIVER_OK;

	pthread_mutex_unlock(&dev->lock);
	if (ran)
		loop_post(dev->loop, &dev->reset);
	else
		finish_reset(dev);
}

void virtio_wait_reset(struct virtio_dev *dev)
{
	assert(!loop_is_current(dev->loop));
	pthread_mutex_lock(&dev->lock);
	while (dev->resetting)
		pthread_cond_wait(&dev->reset_done, &dev->lock);
	pthread_mutex_unlock(&dev->lock);
}

void virtio_host_reset(struct virtio_dev *dev)
{
	begin_reset(dev);
	virtio_wait_reset(dev);
}

/*
 * The status register.
 */

uint8_t virtio_get_status(struct virtio_dev *dev)
{
	return atomic_load(&dev->status);
}

void virtio_set_status(struct virtio_dev *dev, uint8_t status)
{
	if (status == 0) {
		begin_reset(dev);
		return;
	}
	pthread_mutex_lock(&dev->lock);

	uint8_t old = atomic_load(&dev->status);
	uint8_t wanted = old | (status & DRIVER_STATUS_BITS);

	if (dev->resetting) {
		pthread_mutex_unlock(&dev->lock);
		return;
	}
	if (!(old & VIRTIO_STATUS_FEATURES_OK) && !features_acceptable_locked(dev))
		wanted &= (uint8_t)~VIRTIO_STATUS_FEATURES_OK;
	if (!(wanted & VIRTIO_STATUS_FEATURES_OK))
		wanted &= (uint8_t)~VIRTIO_STATUS_DRIVER_OK;
	atomic_store(&dev->status, wanted);

	/* Posted under the lock, so that no reset can be posted before it. */
	if (wanted & ~old & VIRTIO_STATUS_DRIVER_OK)
		loop_post(dev->loop, &dev->activation);
	pthread_mutex_unlock(&dev->lock);
}

/*
 * Queue registers.
 */

uint16_t virtio_queue_max_size(const struct virtio_dev *dev, unsigned queue)
{
	return queue < dev->num_queues ? dev->queue[queue].max_size : 0;
}

struct virtq_config virtio_get_queue(struct virtio_dev *dev, unsigned queue)
{
	struct virtq_config config = { 0 };

	if (queue >= dev->num_queues)
		return config;
	pthread_mutex_lock(&dev->lock);
	config = dev->queue[queue].config;
	pthread_mutex_unlock(&dev->lock);
	return config;
}

/*
 * The registers of queue @queue with the lock taken, or NULL without it when
 * the driver may not change them now.
 */
static struct virtq_config *lock_queue(struct virtio_dev *dev, unsigned queue)
{
	if (queue >= dev->num_queues)
		return NULL;
	pthread_mutex_lock(&dev->lock);
	if (!dev->resetting && !(atomic_load(&dev->status) & VIRTIO_STATUS_DRIVER_OK))
		return &dev->queue[queue].config;
	pthread_mutex_unlock(&dev->lock);
	return NULL;
}

void virtio_set_queue_size(struct virtio_dev *dev, unsigned queue, uint16_t size)
{
	struct virtq_config *config = lock_queue(dev, queue);

	if (!config)
		return;
	if (!config->enabled && size && !(size & (size - 1)) && size <= dev->queue[queue].max_size)
		config->size = size;
	pthread_mutex_unlock(&dev->lock);
}

void virtio_set_queue_enabled(struct virtio_dev *dev, unsigned queue, bool enabled)
{
	struct virtq_config *config = lock_queue(dev, queue);

	if (!config)
		return;
	config->enabled = enabled;
	pthread_mutex_unlock(&dev->lock);
}

void virtio_set_queue_addr(struct virtio_dev *dev, unsigned queue, unsigned which, bool high,
			   uint32_t value)
{
	struct virtq_config *config = lock_queue(dev, queue);

	if (!config)
		return;
	if (!config->enabled) {
		iova_t *addr = which == 0   ? &config->desc
			       : which == 1 ? &config->driver
					    : &config->device;
		unsigned shift = high ? 32 : 0;

		addr->v &= ~((uint64_t)UINT32_MAX << shift);
		addr->v |= (uint64_t)value << shift;
	}
	pthread_mutex_unlock(&dev->lock);
}

/*
 * Device configuration space.
 */

void virtio_config_read(struct virtio_dev *dev, uint64_t offset, void *buf, unsigned len)
{
	memset(buf, 0, len);
	if (offset >= dev->config_size)
		return;
	len = MIN(len, dev->config_size - (unsigned)offset);
	pthread_mutex_lock(&dev->lock);
	dev->ops->config_read(dev, (unsigned)offset, buf, len);
	pthread_mutex_unlock(&dev->lock);
}

void virtio_config_write(struct virtio_dev *dev, uint64_t offset, const void *buf, unsigned len)
{
	if (!dev->ops->config_write || offset >= dev->config_size ||
	    len > dev->config_size - offset)
		return;
	pthread_mutex_lock(&dev->lock);
	dev->ops->config_write(dev, (unsigned)offset, buf, len);
	pthread_mutex_unlock(&dev->lock);
}
