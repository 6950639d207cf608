#include "tests/guests/virtio/iommu.h"

#define QUEUE_MAX    256
#define EVENT_STRIDE 64u

#define PROBE_T_NONE	 0
#define PROBE_T_RESV_MEM 1
#define PROBE_TYPE_MASK	 0x0fff

struct iommu iommu;

bool iommu_find(void)
{
	struct vdev *dev = &iommu.dev;

	if (vdev_find(VIRTIO_ID_IOMMU, dev, 1) == 0)
		return false;
	iommu.page_mask = vdev_config64(dev, CONFIG_PAGE_SIZE_MASK);
	iommu.granule = iommu.page_mask & -iommu.page_mask;
	iommu.input_first = 0;
	iommu.input_last = UINT64_MAX;
	if (vdev_offered(dev) & F_INPUT_RANGE) {
		iommu.input_first = vdev_config64(dev, CONFIG_INPUT_START);
		iommu.input_last = vdev_config64(dev, CONFIG_INPUT_END);
	}
	if (vdev_offered(dev) & F_PROBE)
		iommu.probe_size = vdev_config32(dev, CONFIG_PROBE_SIZE);
	iommu.initial_bypass = iommu_get_bypass();
	return true;
}

static void place_ring(struct vring *ring, unsigned index)
{
	uint16_t size = iommu.dev.transport->queue_max(&iommu.dev, index);
	uint64_t at;

	if (size > QUEUE_MAX)
		size = QUEUE_MAX;
	at = pages(3);
	ring->desc = ring_part_at(at, at);
	ring->avail = ring_part_at(at + PAGE, at + PAGE);
	ring->used = ring_part_at(at + 2 * PAGE, at + 2 * PAGE);
	ring->event_idx = iommu.features & F_EVENT_IDX;
	vring_init(ring, &iommu.dev, index, size);
	vring_enable(ring);
}

bool iommu_start(uint64_t features)
{
	iommu.features = (features | F_VERSION_1) & vdev_offered(&iommu.dev);
	if (!vdev_negotiate(&iommu.dev, iommu.features))
		return false;
	iommu.request = phys(pages(1));
	iommu.reply = phys(pages(1));
	iommu.event = phys(pages(1));
	place_ring(&iommu.requests, REQUEST_QUEUE);
	place_ring(&iommu.events, EVENT_QUEUE);
	vdev_add_status(&iommu.dev, STATUS_DRIVER_OK);
	return true;
}

bool iommu_has(uint64_t feature)
{
	return iommu.features & feature;
}

void iommu_set_bypass(uint8_t bypass)
{
	vdev_write_config8(&iommu.dev, CONFIG_BYPASS, bypass);
}

uint8_t iommu_get_bypass(void)
{
	return vdev_config8(&iommu.dev, CONFIG_BYPASS);
}

unsigned fill_attach(uint8_t *to, uint32_t domain, uint32_t endpoint, uint32_t flags)
{
	memset(to, 0, ATTACH_SIZE);
	to[0] = T_ATTACH;
	put32(to + 4, domain);
	put32(to + 8, endpoint);
	put32(to + 12, flags);
	return ATTACH_SIZE;
}

unsigned fill_detach(uint8_t *to, uint32_t domain, uint32_t endpoint)
{
	memset(to, 0, DETACH_SIZE);
	to[0] = T_DETACH;
	put32(to + 4, domain);
	put32(to + 8, endpoint);
	return DETACH_SIZE;
}

unsigned fill_map(uint8_t *to, uint32_t domain, uint64_t first, uint64_t last, uint64_t to_phys,
		  uint32_t flags)
{
	memset(to, 0, MAP_SIZE);
	to[0] = T_MAP;
	put32(to + 4, domain);
	put64(to + 8, first);
	put64(to + 16, last);
	put64(to + 24, to_phys);
	put32(to + 32, flags);
	return MAP_SIZE;
}

unsigned fill_unmap(uint8_t *to, uint32_t domain, uint64_t first, uint64_t last)
{
	memset(to, 0, UNMAP_SIZE);
	to[0] = T_UNMAP;
	put32(to + 4, domain);
	put64(to + 8, first);
	put64(to + 16, last);
	return UNMAP_SIZE;
}

unsigned fill_probe(uint8_t *to, uint32_t endpoint)
{
	memset(to, 0, PROBE_SIZE);
	to[0] = T_PROBE;
	put32(to + 4, endpoint);
	return PROBE_SIZE;
}

bool iommu_send(unsigned out, unsigned in, uint32_t *ret_len)
{
	const struct seg seg[] = {
		{ (uintptr_t)iommu.request, out, false },
		{ (uintptr_t)iommu.reply, in, true },
	};
	uint32_t id;

	memset(iommu.reply, UNTOUCHED, MAX_REPLY);
	/* No descriptor of length 0: a part that is empty isn't there. */
	uint16_t head = vring_add(&iommu.requests, out ? seg : seg + 1, !!out + !!in);

	vring_kick(&iommu.requests);
	return vring_wait(&iommu.requests, PATIENCE_MS, &id, ret_len) && id == head;
}

enum status iommu_verdict(bool sent, uint32_t used, unsigned in)
{
	const uint8_t *tail = iommu.reply + in - TAIL_SIZE;

	if (!sent)
		return S_LOST;
	if (!all_bytes(iommu.reply + in, UNTOUCHED, MAX_REPLY - in))
		return S_ODD;
	if (used == 0)
		return all_bytes(iommu.reply, UNTOUCHED, in) ? S_UNWRITTEN : S_ODD;
	if (used != in || in < TAIL_SIZE || !all_bytes(tail + 1, 0, TAIL_SIZE - 1))
		return S_ODD;
	return (enum status)tail[0];
}

enum status iommu_request(unsigned out)
{
	uint32_t used = 0;
	bool sent = iommu_send(out, TAIL_SIZE, &used);

	return iommu_verdict(sent, used, TAIL_SIZE);
}

enum status iommu_attach(uint32_t domain, uint32_t endpoint, uint32_t flags)
{
	return iommu_request(fill_attach(iommu.request, domain, endpoint, flags));
}

enum status iommu_detach(uint32_t domain, uint32_t endpoint)
{
	return iommu_request(fill_detach(iommu.request, domain, endpoint));
}

enum status iommu_map(uint32_t domain, uint64_t first, uint64_t last, uint64_t to_phys,
		      uint32_t flags)
{
	return iommu_request(fill_map(iommu.request, domain, first, last, to_phys, flags));
}

enum status iommu_unmap(uint32_t domain, uint64_t first, uint64_t last)
{
	return iommu_request(fill_unmap(iommu.request, domain, first, last));
}

enum status iommu_map_pages(uint32_t domain, uint64_t iova, uint64_t to_phys, unsigned n,
			    uint32_t flags)
{
	return iommu_map(domain, iova, iova + (uint64_t)n * PAGE - 1, to_phys, flags);
}

enum status iommu_unmap_pages(uint32_t domain, uint64_t iova, unsigned n)
{
	return iommu_unmap(domain, iova, iova + (uint64_t)n * PAGE - 1);
}

enum status iommu_probe(uint32_t endpoint)
{
	unsigned out = fill_probe(iommu.request, endpoint), in = iommu.probe_size + TAIL_SIZE;
	uint32_t used = 0;
	bool sent = iommu_send(out, in, &used);

	return iommu_verdict(sent, used, in);
}

unsigned iommu_reserved(struct resv *ret_resv, unsigned max)
{
	unsigned count = 0;
	uint32_t at = 0;

	while (at + 4 <= iommu.probe_size && count < max) {
		const uint8_t *property = iommu.reply + at;
		uint16_t type = get16(property) & PROBE_TYPE_MASK, len = get16(property + 2);

		if (type == PROBE_T_NONE)
			break;
		if (type == PROBE_T_RESV_MEM)
			ret_resv[count++] = (struct resv){
				.subtype = property[4],
				.first = get64(property + 8),
				.last = get64(property + 16),
			};
		at += 4u + len;
	}
	return count;
}

void iommu_post_events(unsigned count, uint32_t size)
{
	iommu.event_size = size;
	for (unsigned i = 0; i < count; i++) {
		uint8_t *buffer = iommu.event + i * EVENT_STRIDE;
		const struct seg seg = { (uintptr_t)buffer, size, true };

		memset(buffer, UNTOUCHED, EVENT_STRIDE);
		iommu.events.next_desc = (uint16_t)i;
		vring_add(&iommu.events, &seg, 1);
	}
	vring_kick(&iommu.events);
}

bool iommu_next_fault(unsigned ms, struct fault *ret_fault)
{
	uint32_t id, used;

	if (!vring_wait(&iommu.events, ms, &id, &used) || id >= NUM_EVENTS)
		return false;

	const uint8_t *raw = iommu.event + id * EVENT_STRIDE;

	*ret_fault = (struct fault){
		.reason = raw[0],
		.flags = get32(raw + 4),
		.endpoint = get32(raw + 8),
		.address = get64(raw + 16),
		.used = used,
		.raw = raw,
	};
	return true;
}

void iommu_repost(const struct fault *fault)
{
	unsigned index = (unsigned)(fault->raw - iommu.event) / EVENT_STRIDE;

	memset(iommu.event + index * EVENT_STRIDE, UNTOUCHED, EVENT_STRIDE);
	vring_offer(&iommu.events, (uint16_t)index);
	vring_kick(&iommu.events);
}
