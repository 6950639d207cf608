/*
 * The bytes of a chain: what a device reads and writes once virtq_pop has
 * checked the descriptors. Nothing here touches the ring.
 *
 * A device sees each half of a chain as one string of bytes (virtio 1.3, 2.7.4:
 * it must not depend on how the driver cut it into descriptors).
 */
#include "devices/virtio/virtq.h"

#include <errno.h>

/* A walk over the pieces of a range of one half of a chain. */
struct cursor {
	const struct virtq_buf *buf, *end;
	uint64_t skip; /* bytes of *buf that lie before the range */
	uint64_t left;
};

/* False when the half is shorter than @offset + @len. */
static bool cursor_init(struct cursor *cur, const struct virtq_chain *chain, enum dma_dir dir,
			uint64_t offset, uint64_t len)
{
	uint64_t total = dir == DMA_READ ? chain->out_bytes : chain->in_bytes;

	if (offset > total || len > total - offset)
		return false;
	cur->buf = chain->buf + (dir == DMA_READ ? 0 : chain->out);
	cur->end = cur->buf + (dir == DMA_READ ? chain->out : chain->in);
	cur->skip = offset;
	cur->left = len;
	return true;
}

/* The next piece; false at the end of the range. */
static bool cursor_next(struct cursor *cur, iova_t *ret_addr, uint64_t *ret_len)
{
	while (cur->left && cur->buf < cur->end && cur->skip >= cur->buf->len)
		cur->skip -= cur->buf++->len;
	if (!cur->left || cur->buf == cur->end)
		return false;
	*ret_addr = IOVA(cur->buf->addr.v + cur->skip);
	*ret_len = MIN(cur->buf->len - cur->skip, cur->left);
	cur->left -= *ret_len;
	cur->skip = 0;
	cur->buf++;
	return true;
}

int virtq_read(struct virtq *vq, const struct virtq_chain *chain, uint64_t offset, void *buf,
	       uint64_t len)
{
	unsigned char *to = buf;
	struct cursor cur;
	iova_t addr;
	uint64_t n;

	if (!cursor_init(&cur, chain, DMA_READ, offset, len))
		return -ERANGE;
	for (; cursor_next(&cur, &addr, &n); to += n) {
		if (dma_read(vq->port, addr, to, n) < 0)
			return -EFAULT;
	}
	return 0;
}

int virtq_write(struct virtq *vq, const struct virtq_chain *chain, uint64_t offset, const void *buf,
		uint64_t len)
{
	const unsigned char *from = buf;
	struct cursor cur;
	iova_t addr;
	uint64_t n;

	if (!cursor_init(&cur, chain, DMA_WRITE, offset, len))
		return -ERANGE;
	for (; cursor_next(&cur, &addr, &n); from += n) {
		if (dma_write(vq->port, addr, from, n) < 0)
			return -EFAULT;
	}
	return 0;
}

int virtq_map(struct virtq *vq, const struct virtq_chain *chain, uint64_t offset, uint64_t len,
	      enum dma_dir dir, struct dma_list *list)
{
	unsigned count = list->count;
	uint64_t bytes = list->bytes;
	size_t tail = count ? list->iov[count - 1].iov_len : 0;
	struct cursor cur;
	iova_t addr;
	uint64_t n;

	if (!cursor_init(&cur, chain, dir, offset, len))
		return -ERANGE;
	while (cursor_next(&cur, &addr, &n)) {
		int result = dma_map(vq->port, addr, n, dir, list);

		if (result == 0)
			continue;

		/* Give back what this call added, and only that. */
		struct dma_list added = {
			.iov = list->iov + count,
			.mapping = list->mapping + count,
			.count = list->count - count,
			.max = list->max - count,
			.bytes = list->bytes - bytes,
		};

		dma_unpin(vq->port, &added);
		list->count = count;
		list->bytes = bytes;
		/* The first added piece may have been merged into the last older one. */
		if (count)
			list->iov[count - 1].iov_len = tail;
		return result;
	}
	return 0;
}
