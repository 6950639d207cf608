/* The file backend on real files: refusals in words, data, and every way of not being done at once.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "devices/block/block.h"

static struct loop *loop;
static char path[64];
static int fd; /* the host's view */

static void setup(void)
{
	struct err err = { "" };

	strcpy(path, "/tmp/moat-test-XXXXXX");
	fd = mkostemp(path, O_CLOEXEC);
	cr_assert_geq(fd, 0);
	cr_assert_eq(ftruncate(fd, MIB(4)), 0);
	cr_assert_eq(loop_create(&loop, "test", &err), 0);
}

static void teardown(void)
{
	loop_destroy(loop);
	close(fd);
	unlink(path);
}

TestSuite(file, .init = setup, .fini = teardown, .timeout = 60);

static int open_disk(struct block **ret, const char *name, bool readonly, struct err *err)
{
	err->text[0] = '\0';
	return block_file_create(ret, name, readonly, loop, err);
}

static struct block *must_open(bool readonly)
{
	struct block *block = NULL;
	struct err err;

	cr_assert_eq(open_disk(&block, path, readonly, &err), 0, "%s", err.text);
	return block;
}

static void expect_refusal(const char *name, int code, const char *words)
{
	struct block *block = NULL;
	struct err err;

	cr_assert_eq(open_disk(&block, name, false, &err), -code, "%s: %s", name, err.text);
	cr_assert_null(block);
	cr_assert(strstr(err.text, name), "%s", err.text);
	cr_assert(strstr(err.text, words), "%s", err.text);
}

/* A request and the wait for it. */
struct job {
	struct block_request request;
	struct block *block;
	int result;
	bool finished;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static void job_done(struct block_request *request, int result)
{
	struct job *job = container_of(request, struct job, request);

	pthread_mutex_lock(&lock);
	cr_assert(!job->finished, "completed twice");
	job->result = result;
	job->finished = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static void job_submit(void *opaque)
{
	struct job *job = opaque;

	job->block->ops->submit(job->block, &job->request);
	job->block->ops->flush_batch(job->block);
}

static void jobs_submit(void *opaque)
{
	struct job *job = opaque;
	struct block *block = job->block;

	for (; job->block; job++)
		block->ops->submit(block, &job->request);
	block->ops->flush_batch(block);
}

static int job_wait(struct job *job)
{
	pthread_mutex_lock(&lock);
	while (!job->finished)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	return job->result;
}

static int run(struct block *block, enum block_op op, uint64_t offset, const struct iovec *iov,
	       unsigned iovcnt, uint64_t len, bool unmap)
{
	struct job job = { .block = block };

	job.request = (struct block_request){ .op = op,
					      .offset = offset,
					      .len = len,
					      .iov = iov,
					      .iovcnt = iovcnt,
					      .unmap = unmap,
					      .done = job_done };
	loop_call(loop, job_submit, &job);
	return job_wait(&job);
}

static int transfer(struct block *block, enum block_op op, uint64_t offset, void *buf, size_t len)
{
	struct iovec iov = { buf, len };

	return run(block, op, offset, &iov, 1, len, false);
}

Test(file, refusals_say_what_and_why)
{
	struct err err;
	struct block *block;
	char fifo[80];

	expect_refusal("/tmp/moat-no-such-disk", ENOENT, "no such file");
	expect_refusal("/tmp", EISDIR, "directory");
	expect_refusal("/dev/null", EINVAL, "neither");
	snprintf(fifo, sizeof(fifo), "%s.fifo", path);
	cr_assert_eq(mkfifo(fifo, 0600), 0);
	expect_refusal(fifo, EINVAL, "neither"); /* and doesn't wait for a writer */
	unlink(fifo);
	cr_assert_eq(ftruncate(fd, 0), 0);
	expect_refusal(path, EINVAL, "empty");
	cr_assert_eq(ftruncate(fd, 1000), 0);
	expect_refusal(path, EINVAL, "multiple of 512");
	cr_assert_eq(ftruncate(fd, 1024), 0);
	bool root = geteuid() == 0;

	cr_assert(!root || !seteuid(65534));
	cr_assert_eq(open_disk(&block, path, false, &err), -EACCES);
	cr_assert(!root || !seteuid(0));
	cr_assert(strstr(err.text, "readonly=on"), "%s", err.text);
}

/* io_uring would end a transfer that has to wait with EAGAIN, and the next, and the next. */
Test(file, the_disk_is_open_for_transfers_that_wait)
{
	struct block *block = must_open(false);
	unsigned found = 0;

	for (int other = 3; other < 256; other++) {
		char link[64], target[128] = "";

		snprintf(link, sizeof(link), "/proc/self/fd/%d", other);
		if (other == fd || readlink(link, target, sizeof(target) - 1) < 0 ||
		    strcmp(target, path))
			continue;
		cr_expect_eq(fcntl(other, F_GETFL) & O_NONBLOCK, 0);
		found++;
	}
	cr_assert_eq(found, 1);
	block->ops->destroy(block);
}

/* Another process holds the disk: the lock must work between processes and within one. */
Test(file, second_writer_is_refused)
{
	int ready[2], quit[2], code;
	struct block *block = NULL;
	struct err err;
	char byte;
	pid_t pid;

	cr_assert_eq(pipe(ready) | pipe(quit), 0);
	pid = fork();
	if (pid == 0) {
		struct loop *mine;

		close(quit[1]);
		if (loop_create(&mine, "child", &err) ||
		    block_file_create(&block, path, false, mine, &err))
			_exit(1);
		if (write(ready[1], "x", 1) != 1 || read(quit[0], &byte, 1) != 0)
			_exit(2);
		_exit(0);
	}
	close(quit[0]);
	cr_assert_eq(read(ready[0], &byte, 1), 1);
	expect_refusal(path, EBUSY, "in use, by another process");
	cr_assert_eq(open_disk(&block, path, true, &err), -EBUSY, "a reader beside a writer");
	close(quit[1]);
	waitpid(pid, &code, 0);
	cr_assert_eq(code, 0);
	block = must_open(false); /* the lock ended with its holder */
	expect_refusal(path, EBUSY, "in use");
	block->ops->destroy(block);
}

Test(file, readers_share)
{
	struct block *one = must_open(true), *two = must_open(true);

	expect_refusal(path, EBUSY, "in use");
	one->ops->destroy(one);
	two->ops->destroy(two);
	one = must_open(false);
	one->ops->destroy(one);
}

Test(file, what_is_written_is_read)
{
	struct block *block = must_open(false);
	unsigned char out[3000], in[3000];
	struct iovec scattered[] = {
		{ out, 1 }, { out + 1, 2000 }, { NULL, 0 }, { out + 2001, 559 }
	};

	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (unsigned char)(i * 13);
	cr_assert_eq(run(block, BLOCK_WRITE, 1024, scattered, 4, 2560, false), 0);
	cr_assert_eq(run(block, BLOCK_FLUSH, 0, NULL, 0, 0, false), 0);
	cr_assert_eq(pread(fd, in, 2560, 1024), 2560);
	cr_assert_eq(memcmp(in, out, 2560), 0);
	memset(in, 0, sizeof(in));
	cr_assert_eq(transfer(block, BLOCK_READ, 1024, in, 2560), 0);
	cr_assert_eq(memcmp(in, out, 2560), 0);
	block->ops->destroy(block);
}

/* The kernel takes 1,024 pieces at a time; the rest must follow from the right place. */
Test(file, more_pieces_than_one_call_takes)
{
	enum { COUNT = 2500 };
	struct block *block = must_open(false);
	static unsigned char data[COUNT * 512], back[COUNT * 512];
	static struct iovec iov[COUNT];

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (unsigned char)(i / 512 + i);
	for (unsigned i = 0; i < COUNT; i++)
		iov[i] = (struct iovec){ data + 512UL * i, 512 };
	cr_assert_eq(run(block, BLOCK_WRITE, 512, iov, COUNT, sizeof(data), false), 0);
	cr_assert_eq(pread(fd, back, sizeof(back), 512), (ssize_t)sizeof(back));
	cr_assert_eq(memcmp(data, back, sizeof(data)), 0);
	memset(data, 0, sizeof(data));
	cr_assert_eq(run(block, BLOCK_READ, 512, iov, COUNT, sizeof(data), false), 0);
	cr_assert_eq(memcmp(data, back, sizeof(data)), 0);
	block->ops->destroy(block);
}

/* A file-size limit cuts a write inside a piece; the rest is tried and its error reported. */
Test(file, short_write_goes_on_and_reports_the_error)
{
	struct rlimit limit = { 5000, 5000 };
	struct block *block = must_open(false);
	unsigned char data[8192], back[5000];
	struct iovec iov[] = { { data, 4096 }, { data + 4096, 4096 } };

	memset(data, 'x', sizeof(data));
	signal(SIGXFSZ, SIG_IGN);
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	cr_assert_eq(run(block, BLOCK_WRITE, 0, iov, 2, 8192, false), -EFBIG);
	cr_assert_eq(pread(fd, back, 5000, 0), 5000);
	cr_assert_eq(memcmp(data, back, 5000), 0, "what fitted is there");
	block->ops->destroy(block);
}

/* Somebody truncates the image under us: an error, not zeroes that the disk never held. */
Test(file, truncated_file_is_an_error)
{
	struct block *block = must_open(false);
	unsigned char data[4096];

	cr_assert_eq(ftruncate(fd, 2048), 0);
	cr_assert_eq(transfer(block, BLOCK_READ, 0, data, 2048), 0);
	cr_assert_eq(transfer(block, BLOCK_READ, 0, data, 4096), -EIO);
	cr_assert_eq(transfer(block, BLOCK_READ, MIB(1), data, 512), -EIO);
	block->ops->destroy(block);
}

/* What is logged from here on goes into a pipe. */
static int catch_log(void)
{
	int pipe[2];

	cr_assert_eq(pipe2(pipe, O_CLOEXEC | O_NONBLOCK), 0);
	cr_assert_eq(dup2(pipe[1], STDERR_FILENO), STDERR_FILENO);
	close(pipe[1]);
	return pipe[0];
}

/* Every write fails, one line says so; with room again the disk works as before. */
Test(file, full_file_system_is_an_error_said_once)
{
	char log[4096] = "";
	unsigned char data[65536] = { 'x' };
	struct block *block;
	struct err err;
	int words, other;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("moat-test", "/mnt", "tmpfs", 0, "size=1m") < 0)
		cr_skip_test("no right to mount a small file system");
	other = open("/mnt/filler", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	cr_assert_eq(posix_fallocate(other, 0, KIB(960)), 0);
	cr_assert_eq(close(open("/mnt/disk", O_CREAT | O_RDWR | O_CLOEXEC, 0600)), 0);
	cr_assert_eq(truncate("/mnt/disk", MIB(8)), 0);
	cr_assert_eq(open_disk(&block, "/mnt/disk", false, &err), 0, "%s", err.text);
	words = catch_log();
	for (unsigned i = 0; i < 20; i++)
		cr_assert_eq(transfer(block, BLOCK_WRITE, MIB(1) + i * KIB(64), data, KIB(64)),
			     i ? -ENOSPC : 0, "write %u", i);
	cr_assert_eq(transfer(block, BLOCK_READ, MIB(1), data, 512), 0);
	cr_assert_gt(read(words, log, sizeof(log) - 1), 0);
	cr_assert_not_null(strstr(log, "disk /mnt/disk: a write failed at byte 1114112: No space"));
	cr_assert_eq(strchr(log, '\n')[1], '\0', "more than a line: %s", log);
	cr_assert_eq(ftruncate(other, 0), 0);
	cr_assert_eq(transfer(block, BLOCK_WRITE, MIB(2), data, KIB(64)), 0);
	block->ops->destroy(block);
	close(other);
}

Test(file, guards_its_bounds_and_its_mode)
{
	struct block *block = must_open(true);
	unsigned char data[1024] = { 'x' };
	struct stat st;

	cr_assert_eq(transfer(block, BLOCK_WRITE, 0, data, 512), -EROFS);
	cr_assert_eq(run(block, BLOCK_DISCARD, 0, NULL, 0, 4096, false), -EROFS);
	cr_assert_eq(run(block, BLOCK_WRITE_ZEROES, 0, NULL, 0, 4096, true), -EROFS);
	block->ops->destroy(block);
	block = must_open(false);
	cr_assert_eq(transfer(block, BLOCK_WRITE, MIB(4) - 512, data, 1024), -EINVAL);
	cr_assert_eq(transfer(block, BLOCK_WRITE, UINT64_MAX - 511, data, 1024), -EINVAL);
	fstat(fd, &st);
	cr_assert_eq(st.st_size, MIB(4));
	block->ops->destroy(block);
}

static bool all_are(uint64_t offset, uint64_t len, unsigned char want)
{
	unsigned char byte;

	for (uint64_t i = 0; i < len; i += 61)
		if (pread(fd, &byte, 1, (off_t)(offset + i)) != 1 || byte != want)
			return false;
	return true;
}

Test(file, zeroes_and_discards)
{
	static unsigned char ones[MIB(4)];
	struct block *block = must_open(false);
	struct stat before, after;

	memset(ones, 1, sizeof(ones));
	cr_assert_eq(transfer(block, BLOCK_WRITE, 0, ones, sizeof(ones)), 0);
	/* Not at block boundaries: the neighbours must survive. */
	cr_assert_eq(run(block, BLOCK_WRITE_ZEROES, 512, NULL, 0, MIB(1), false), 0);
	cr_assert(all_are(0, 512, 1) && all_are(512, MIB(1), 0) && all_are(512 + MIB(1), 4096, 1));
	cr_assert_eq(run(block, BLOCK_WRITE_ZEROES, MIB(2), NULL, 0, 1536, true), 0);
	cr_assert(all_are(MIB(2), 1536, 0) && all_are(MIB(2) + 1536, 4096, 1));
	fsync(fd);
	fstat(fd, &before);
	cr_assert_eq(run(block, BLOCK_DISCARD, MIB(3), NULL, 0, MIB(1), false), 0);
	fstat(fd, &after);
	cr_assert_eq(after.st_size, before.st_size);
	if (block->info.discard)
		cr_assert_lt(after.st_blocks, before.st_blocks);
	block->ops->destroy(block);
}

/* Far more requests than the ring is deep, submitted in one batch. */
Test(file, requests_beyond_the_ring_wait)
{
	enum { COUNT = 1500 };
	static struct job job[COUNT + 1]; /* ends with an empty one */
	static unsigned char data[COUNT][512];
	static struct iovec iov[COUNT];
	struct block *block = must_open(false);

	for (unsigned i = 0; i < COUNT; i++) {
		memset(data[i], (int)(i % 255 + 1), 512);
		iov[i] = (struct iovec){ data[i], 512 };
		job[i] = (struct job){ .block = block };
		job[i].request = (struct block_request){ .op = BLOCK_WRITE,
							 .offset = 512ULL * i,
							 .len = 512,
							 .iov = &iov[i],
							 .iovcnt = 1,
							 .done = job_done };
	}
	loop_call(loop, jobs_submit, job);
	for (unsigned i = 0; i < COUNT; i++)
		cr_assert_eq(job_wait(&job[i]), 0);
	for (unsigned i = 0; i < COUNT; i++)
		cr_assert(all_are(512ULL * i, 512, (unsigned char)(i % 255 + 1)), "request %u", i);
	block->ops->destroy(block);
}
