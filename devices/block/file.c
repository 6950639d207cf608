/*
 * A raw file or a block device, through io_uring.
 *
 *	submit()       turns a request into one submission entry, no system call
 *	flush_batch()  hands all of them to the kernel with one, then collects
 *	               what completed at once (reads from the page cache do)
 *	ring fd        becomes readable when more completes; the loop calls reap()
 *
 * One entry is in flight per request. A transfer that the kernel cut short goes
 * on where it stopped, and a way of zeroing that the file system doesn't know
 * is followed by the next one, so an owner sees a request done entirely or
 * failed. Requests beyond the ring's depth wait in a list, hence neither of the
 * kernel's queues can overflow.
 *
 * The page cache is used (no O_DIRECT): a completed write is in the host's
 * memory, and a flush is fdatasync, which covers every write completed before.
 *
 * Everything but create and destroy runs on the loop's thread.
 */
#include "devices/block/block.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "vmm/base/log.h"

#define SECTOR	   512u
#define RING_DEPTH 256u
/* Completions handled before the loop gets its turn. */
#define REAP_MAX 256u
/* How much the slow way of zeroing writes at a time. */
#define ZERO_CHUNK KIB(256)

/* The ways of WRITE_ZEROES, in the order in which they are tried. */
enum zero_stage { ZERO_PUNCH, ZERO_RANGE, ZERO_WRITE };

struct block_file {
	struct block block;
	struct loop *loop; /* borrows */
	int fd;		   /* owns */
	struct io_uring ring;
	bool ring_ready;
	unsigned inflight; /* entries in the ring or in the kernel */
	bool reaping;
	struct block_request *waiting, **waiting_end; /* for a free entry, oldest first */
	void *zeroes;				      /* owns; ZERO_CHUNK bytes */
	char *path;				      /* owns */
	struct log_limit log;
	int told; /* the last failure that was logged, an errno */
};

static struct block_file *to_file(struct block *block)
{
	return container_of(block, struct block_file, block);
}

/* The entry for what is left of a read or a write. */
static void prepare_transfer(struct block_file *file, struct block_request *request,
			     struct io_uring_sqe *sqe)
{
	const struct iovec *iov = request->iov;
	unsigned count = request->iovcnt;
	uint64_t skip = request->progress, offset = request->offset + request->progress;
	bool write = request->op == BLOCK_WRITE;

	while (count && skip >= iov->iov_len) {
		skip -= iov->iov_len;
		iov++;
		count--;
	}
	assert(count);
	if (skip || count == 1) {
		/* Inside a piece: finish this one alone; what follows is the next round. */
		char *base = (char *)iov->iov_base + skip;
		unsigned len = (unsigned)MIN(iov->iov_len - skip, (uint64_t)GIB(1));

		if (write)
			io_uring_prep_write(sqe, file->fd, base, len, offset);
		else
			io_uring_prep_read(sqe, file->fd, base, len, offset);
	} else if (write) {
		io_uring_prep_writev(sqe, file->fd, iov, MIN(count, (unsigned)IOV_MAX), offset);
	} else {
		io_uring_prep_readv(sqe, file->fd, iov, MIN(count, (unsigned)IOV_MAX), offset);
	}
}

static void prepare_zeroes(struct block_file *file, struct block_request *request,
			   struct io_uring_sqe *sqe)
{
	int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	int zero = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;

	if (request->stage == ZERO_WRITE)
		io_uring_prep_write(sqe, file->fd, file->zeroes,
				    (unsigned)MIN(request->len - request->progress, ZERO_CHUNK),
				    request->offset + request->progress);
	else
		io_uring_prep_fallocate(sqe, file->fd, request->stage == ZERO_PUNCH ? punch : zero,
					request->offset, request->len);
}

static void queue_entry(struct block_file *file, struct block_request *request)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&file->ring);

	assert(sqe); /* inflight < RING_DEPTH, the ring's size */
	file->inflight++;
	switch (request->op) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		prepare_transfer(file, request, sqe);
		break;
	case BLOCK_FLUSH:
		io_uring_prep_fsync(sqe, file->fd, IORING_FSYNC_DATASYNC);
		break;
	case BLOCK_DISCARD:
		io_uring_prep_fallocate(sqe, file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					request->offset, request->len);
		break;
	case BLOCK_WRITE_ZEROES:
		prepare_zeroes(file, request, sqe);
		break;
	}
	io_uring_sqe_set_data(sqe, request);
}

/* Queue @request, or let it wait behind those that wait already. */
static void start_request(struct block_file *file, struct block_request *request)
{
	if (file->inflight < RING_DEPTH && !file->waiting) {
		queue_entry(file, request);
		return;
	}
	request->next = NULL;
	*file->waiting_end = request;
	file->waiting_end = &request->next;
}

static void start_waiting(struct block_file *file)
{
	while (file->waiting && file->inflight < RING_DEPTH) {
		struct block_request *request = file->waiting;

		file->waiting = request->next;
		if (!file->waiting)
			file->waiting_end = &file->waiting;
		queue_entry(file, request);
	}
}

/* What the owner promises not to ask is refused here all the same: this guards a disk. */
static int check_request(const struct block_info *info, const struct block_request *request)
{
	uint64_t end;

	if (request->op == BLOCK_FLUSH)
		return 0;
	if (__builtin_add_overflow(request->offset, request->len, &end) || end > info->size)
		return -EINVAL;
	if (request->op != BLOCK_READ && info->readonly)
		return -EROFS;
	return 0;
}

static void file_submit(struct block *block, struct block_request *request)
{
	struct block_file *file = to_file(block);
	int ret = check_request(&block->info, request);

	request->progress = 0;
	request->stage = request->unmap ? ZERO_PUNCH : ZERO_RANGE;
	if (ret || (!request->len && request->op != BLOCK_FLUSH))
		request->done(request, ret);
	else
		start_request(file, request);
}

/*
 * Hand the queued entries to the kernel. It refuses only while it has no memory
 * for them; they can't be taken back then, so wait for it to recover.
 */
static void submit_entries(struct block_file *file)
{
	while (io_uring_sq_ready(&file->ring)) {
		int ret = io_uring_submit(&file->ring);

		if (ret >= 0 || ret == -EINTR)
			continue;
		assert(ret == -EAGAIN || ret == -EBUSY || ret == -ENOMEM);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
}

/*
 * What @result of an entry means for its request: 1 when it must be queued
 * again, 0 when it is done, or -errno when it failed.
 */
static int judge(struct block_request *request, int result)
{
	bool zeroes = request->op == BLOCK_WRITE_ZEROES;

	if (result == -EINTR || result == -EAGAIN)
		return 1;
	if (zeroes && request->stage != ZERO_WRITE) {
		/* Not here, or not at this alignment: the next way. */
		if (result == -EOPNOTSUPP || result == -EINVAL || result == -ENOSYS) {
			request->stage++;
			return 1;
		}
		return result;
	}
	/* A discard is a hint; a file that can't forget has done its best. */
	if (request->op == BLOCK_DISCARD && (result == -EOPNOTSUPP || result == -EINVAL))
		return 0;
	if (result < 0 || request->op == BLOCK_FLUSH || request->op == BLOCK_DISCARD)
		return result;
	/* The size was checked: an early end means that somebody truncated the file. */
	if (result == 0)
		return -EIO;
	request->progress += (uint32_t)result;
	return request->progress < request->len;
}

/*
 * A host failure: the guest gets an error, whoever runs the machine a line. A full
 * file system fails many requests; it is said again when the reason changes.
 */
static void report_failure(struct block_file *file, const struct block_request *request, int code,
			   bool ended)
{
	static const char *const names[] = {
		[BLOCK_READ] = "a read",	  [BLOCK_WRITE] = "a write",
		[BLOCK_FLUSH] = "a flush",	  [BLOCK_DISCARD] = "a discard",
		[BLOCK_WRITE_ZEROES] = "zeroing",
	};

	if (code == file->told)
		return;
	file->told = code;
	log_limited(&file->log, "disk %s: %s failed at byte %" PRIu64 ": %s", file->path,
		    names[request->op], request->offset + request->progress,
		    ended ? "the file ends there, somebody truncated it" : strerror(code));
}

/* Collect completions, at most REAP_MAX; the ring fd stays readable when more are left. */
static void reap(struct block_file *file)
{
	struct io_uring_cqe *cqe;
	unsigned seen = 0;

	file->reaping = true;
	while (seen < REAP_MAX && !io_uring_peek_cqe(&file->ring, &cqe)) {
		struct block_request *request = io_uring_cqe_get_data(cqe);
		int ret = judge(request, cqe->res);
		bool ended = cqe->res == 0;

		io_uring_cqe_seen(&file->ring, cqe);
		file->inflight--;
		seen++;
		if (ret < 0)
			report_failure(file, request, -ret, ended);
		if (ret == 1)
			start_request(file, request);
		else
			request->done(request, ret);
		start_waiting(file);
	}
	if (seen && file->block.batch_done)
		file->block.batch_done(file->block.opaque);
	file->reaping = false;
	submit_entries(file);
}

static void file_flush_batch(struct block *block)
{
	struct block_file *file = to_file(block);

	/* In a batch of completions: reap() submits when it is through. */
	if (file->reaping || !io_uring_sq_ready(&file->ring))
		return;
	submit_entries(file);
	reap(file);
}

static void ring_readable(void *opaque, uint32_t events)
{
	(void)events;
	reap(opaque);
}

static void unwatch_ring(void *opaque)
{
	struct block_file *file = opaque;

	assert(!file->inflight && !file->waiting);
	loop_remove_fd(file->loop, file->ring.ring_fd);
}

static void file_free(struct block_file *file)
{
	if (file->ring_ready)
		io_uring_queue_exit(&file->ring);
	if (file->fd >= 0)
		close(file->fd);
	free(file->zeroes);
	free(file->path);
	free(file);
}

static void file_destroy(struct block *block)
{
	struct block_file *file = to_file(block);

	loop_call(file->loop, unwatch_ring, file);
	file_free(file);
}

static const struct block_ops file_ops = {
	.submit = file_submit,
	.flush_batch = file_flush_batch,
	.destroy = file_destroy,
};

static int explain_open(struct err *err, int code, const char *path, bool readonly)
{
	switch (code) {
	case ENOENT:
		return err_set(err, code, "disk %s: no such file", path);
	case EACCES:
	case EPERM:
		return err_set(err, code, "disk %s: no permission to %s it%s", path,
			       readonly ? "read" : "write",
			       readonly ? "" : "; use readonly=on if reading is enough");
	case EROFS:
		return err_set(err, code, "disk %s: on a read-only file system; use readonly=on",
			       path);
	case EISDIR:
		return err_set(err, code, "disk %s: is a directory, not a disk image", path);
	case EBUSY:
		return err_set(err, code,
			       "disk %s is in use by the host (mounted?); release it or use "
			       "readonly=on",
			       path);
	case ETXTBSY:
		return err_set(err, code, "disk %s: the host uses it as swap or runs it", path);
	default:
		return err_set(err, code, "disk %s: can't open it: %s", path, strerror(code));
	}
}

/* Open and classify; nothing that isn't a disk is opened for longer than it takes to see that. */
static int open_path(struct block_file *file, const char *path, bool readonly, struct stat *st,
		     struct err *err)
{
	int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (readonly ? O_RDONLY : O_RDWR);

	if (stat(path, st) < 0)
		return explain_open(err, errno, path, readonly);
	if (S_ISDIR(st->st_mode))
		return explain_open(err, EISDIR, path, readonly);
	if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
		return err_set(err, EINVAL, "disk %s: neither a regular file nor a block device",
			       path);
	/* On a block device O_EXCL refuses what is mounted or part of a RAID. */
	if (S_ISBLK(st->st_mode) && !readonly)
		flags |= O_EXCL;
	file->fd = open(path, flags);
	if (file->fd < 0)
		return explain_open(err, errno, path, readonly);
	/* The name may lead elsewhere by now; only what was opened counts. */
	if (fstat(file->fd, st) < 0)
		return explain_open(err, errno, path, readonly);
	if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
		return err_set(err, EINVAL, "disk %s: neither a regular file nor a block device",
			       path);
	/*
	 * It was there for what isn't a disk. io_uring takes it for a wish never to
	 * wait: where the device below can't promise that, each transfer ends with
	 * EAGAIN for ever (io_rw_init_file of Linux 6.1).
	 */
	if (fcntl(file->fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
		return explain_open(err, errno, path, readonly);
	return 0;
}

/* Open file description locks: they live as long as the descriptor and exclude our threads too. */
static int lock_file(struct block_file *file, const char *path, bool readonly, struct err *err)
{
	struct flock lock = { .l_type = readonly ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET };

	if (!fcntl(file->fd, F_OFD_SETLK, &lock))
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return err_set(err, EBUSY,
			       "disk %s is in use, by another process or as another --disk or the "
			       "--console of this one; stop that, or use a copy (readonly=on on "
			       "every use shares it)",
			       path);
	log_warn("disk %s: its file system has no locks (%s); nothing keeps a second machine off "
		 "it",
		 path, strerror(errno));
	return 0;
}

static int read_geometry(struct block_file *file, const char *path, const struct stat *st,
			 struct err *err)
{
	struct block_info *info = &file->block.info;
	int logical = SECTOR;
	unsigned physical = 4096;

	info->size = (uint64_t)st->st_size;
	if (S_ISBLK(st->st_mode)) {
		if (ioctl(file->fd, BLKGETSIZE64, &info->size) < 0 ||
		    ioctl(file->fd, BLKSSZGET, &logical) < 0 ||
		    ioctl(file->fd, BLKPBSZGET, &physical) < 0)
			return err_set(err, errno, "disk %s: can't read its size: %s", path,
				       strerror(errno));
	}
	if (!info->size)
		return err_set(err, EINVAL, "disk %s is empty: give it a size (truncate -s 8G %s)",
			       path, path);
	if (info->size % SECTOR)
		return err_set(err, EINVAL,
			       "disk %s: its size, %" PRIu64 " bytes, isn't a multiple of 512 "
			       "(truncate -s %%512 %s pads it)",
			       path, info->size, path);
	info->logical_block = (uint32_t)logical;
	info->physical_block = MAX(physical, info->logical_block);
	return 0;
}

/* Punching a hole behind the end changes nothing, and says whether the file system can. */
static bool can_discard(const struct block_file *file, const struct stat *st)
{
	if (S_ISBLK(st->st_mode))
		return true;
	return !fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  (off_t)file->block.info.size, 4096);
}

static int open_ring(struct block_file *file, const char *path, struct err *err)
{
	int ret = io_uring_queue_init(RING_DEPTH, &file->ring, IORING_SETUP_CLAMP);

	if (ret == -ENOSYS || ret == -EPERM || ret == -EACCES)
		return err_set(err, -ret,
			       "disk %s: the host doesn't allow io_uring (%s); see sysctl "
			       "kernel.io_uring_disabled, or the container's seccomp profile",
			       path, strerror(-ret));
	if (ret < 0)
		return err_set(err, -ret, "disk %s: can't set up io_uring: %s", path,
			       strerror(-ret));
	file->ring_ready = true;
	return 0;
}

struct watch_call {
	struct block_file *file;
	int ret;
};

static void watch_ring(void *opaque)
{
	struct watch_call *call = opaque;

	call->ret = loop_add_fd(call->file->loop, call->file->ring.ring_fd, EPOLLIN, ring_readable,
				call->file);
}

static int file_open(struct block_file *file, const char *path, bool readonly, struct err *err)
{
	struct watch_call call = { .file = file };
	struct stat st;
	int ret = open_path(file, path, readonly, &st, err);

	if (ret)
		return ret;
	ret = lock_file(file, path, readonly, err);
	if (ret)
		return ret;
	ret = read_geometry(file, path, &st, err);
	if (ret)
		return ret;
	file->block.info.readonly = readonly;
	file->block.info.discard = !readonly && can_discard(file, &st);
	file->block.info.write_zeroes = !readonly;
	ret = open_ring(file, path, err);
	if (ret)
		return ret;
	loop_call(file->loop, watch_ring, &call);
	if (call.ret)
		return err_set(err, -call.ret, "disk %s: can't watch its ring: %s", path,
			       strerror(-call.ret));
	return 0;
}

int block_file_create(struct block **ret_block, const char *path, bool readonly, struct loop *loop,
		      struct err *err)
{
	struct block_file *file = calloc(1, sizeof(*file));
	int ret;

	if (!file)
		return err_set(err, ENOMEM, "disk %s: out of memory", path);
	file->block.ops = &file_ops;
	file->loop = loop;
	file->fd = -1;
	file->waiting_end = &file->waiting;
	file->zeroes = calloc(1, ZERO_CHUNK);
	file->path = strdup(path);
	if (file->zeroes && file->path)
		ret = file_open(file, path, readonly, err);
	else
		ret = err_set(err, ENOMEM, "disk %s: out of memory", path);
	if (ret) {
		file_free(file);
		return ret;
	}
	*ret_block = &file->block;
	return 0;
}
