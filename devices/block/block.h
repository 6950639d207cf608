#ifndef DEVICES_BLOCK_BLOCK_H
#define DEVICES_BLOCK_BLOCK_H

/*
 * What a disk is, apart from how a guest sees it. A backend is bound to a loop:
 * submit on its thread, completions run there. Requests are embedded in their
 * owner, so that the data path allocates nothing.
 */

#include <sys/uio.h>
#include "vmm/base/err.h"
#include "vmm/base/types.h"
#include "vmm/core/loop.h"

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES };

struct block_request {
	enum block_op op;
	uint64_t offset, len;	 /* bytes; len is the sum of iov for reads and writes */
	const struct iovec *iov; /* borrows until done */
	unsigned iovcnt;
	bool unmap; /* WRITE_ZEROES may deallocate */
	/* Loop thread. @result: 0 (all of it was done) or -errno. */
	void (*done)(struct block_request *request, int result);
	/* The backend's. */
	uint64_t progress;
	unsigned stage; /* which way of doing it is being tried */
	struct block_request *next;
};

struct block_info {
	uint64_t size;				/* bytes, a multiple of 512 */
	uint32_t logical_block, physical_block; /* bytes */
	bool readonly, discard, write_zeroes;
};

struct block;

struct block_ops {
	/* Start @request. Loop thread; may complete before it returns. */
	void (*submit)(struct block *block, struct block_request *request);
	/* Hand what submit queued to the kernel; after a batch. Loop thread. */
	void (*flush_batch)(struct block *block);
	/* No request is in flight. Frees. */
	void (*destroy)(struct block *block);
};

struct block {
	const struct block_ops *ops;
	struct block_info info;
	/*
	 * Set by the owner: runs after a batch of done() calls, so that it can
	 * publish them together. It may submit. NULL: not wanted. Loop thread.
	 */
	void (*batch_done)(void *opaque);
	void *opaque;
};

/*
 * A raw file or a block device, by io_uring. The file is locked (OFD lock, or
 * shared when read-only) so that two VMs can't write one disk. *@ret_block is
 * owned by the caller. Returns 0, -EBUSY (locked), -errno of open, with words
 * that name @path in @err.
 */
int block_file_create(struct block **ret_block, const char *path, bool readonly, struct loop *loop,
		      struct err *err);

#endif
