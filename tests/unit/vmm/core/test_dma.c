/* dma.c over identity and over a small translator of our own. */

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include "vmm/core/dma.h"

#define PAGE 4096ULL

static struct env {
	struct ram ram; /* [0, 4 pages), a hole, [8 pages, 12 pages) */
	struct dma_view view;
	struct dma_port port;
	_Atomic uint64_t epoch;
	/* The translator: IOVA page i is RAM page table[i], or -1; write_ok. */
	int table[16];
	bool write_ok;
	unsigned translations, refs, faults;
	uint64_t fault_iova;
	enum dma_dir fault_dir;
} env;

static int fake_translate(struct dma_port *port, iova_t iova, uint64_t len, enum dma_dir dir,
			  struct dma_piece *ret_piece)
{
	uint64_t page = iova.v / PAGE, in = iova.v % PAGE;

	env.translations++;
	cr_assert_neq(port->active, 0, "inside a section");
	if (page >= 16 || env.table[page] < 0 || (dir == DMA_WRITE && !env.write_ok))
		return -EFAULT;
	char *host = (char *)env.ram.host + (unsigned)env.table[page] * PAGE;

	dma_cache_fill(port, iova, iova.v - in, iova.v - in + PAGE - 1, host, &env.table[page],
		       env.write_ok ? DMA_READ | DMA_WRITE : DMA_READ);
	*ret_piece = (struct dma_piece){ host + in, MIN(len, PAGE - in), &env.table[page] };
	return 0;
}

static void fake_ref(struct dma_port *port, void *mapping)
{
	cr_assert_neq(port->active, 0);
	env.refs++;
}

static void fake_unref(struct dma_port *port, void *mapping)
{
	cr_assert_eq(port->active, 0);
	env.refs--;
}

static void fake_fault(struct dma_port *port, iova_t iova, enum dma_dir dir)
{
	cr_assert_eq(port->active, 0, "faults are reported outside sections");
	env.faults++;
	env.fault_iova = iova.v;
	env.fault_dir = dir;
}

static int fake_attach(struct dma_view *view, struct dma_port *port)
{
	return 0;
}

static void fake_detach(struct dma_view *view, struct dma_port *port)
{
}

static const struct dma_view_ops fake_ops = { fake_translate, fake_ref,	   fake_unref,
					      fake_fault,     fake_attach, fake_detach };

static void setup(void)
{
	env.ram.host = calloc(8, PAGE);
	env.ram.count = 2;
	env.ram.region[0] = (struct ram_region){ GPA(0), 4 * PAGE, 0, env.ram.host };
	env.ram.region[1] = (struct ram_region){ GPA(8 * PAGE), 4 * PAGE, 4 * PAGE,
						 (char *)env.ram.host + 4 * PAGE };
	env.epoch = 1;
	env.write_ok = true;
	for (int i = 0; i < 16; i++)
		env.table[i] = i < 8 ? 7 - i : -1;
	env.view = (struct dma_view){ &fake_ops, &env.ram, &env.epoch };
	cr_assert_eq(dma_port_init(&env.port, &env.view), 0);
}

static void teardown(void)
{
	dma_port_finish(&env.port);
	free(env.ram.host);
}

TestSuite(dma, .init = setup, .fini = teardown);

static void use_identity(void)
{
	dma_port_finish(&env.port);
	dma_view_init_identity(&env.view, &env.ram);
	cr_assert_eq(dma_port_init(&env.port, &env.view), 0);
}

static struct dma_list make_list(unsigned max)
{
	static struct iovec iov[16];
	static void *mapping[16];

	return (struct dma_list){ .iov = iov, .mapping = mapping, .max = max };
}

Test(dma, identity_reaches_ram_and_nothing_else)
{
	char buf[16] = "";

	use_identity();
	cr_assert_eq(dma_write(&env.port, IOVA(8 * PAGE), "hello", 6), 0);
	cr_assert_eq(dma_read(&env.port, IOVA(8 * PAGE), buf, 6), 0);
	cr_assert_str_eq(buf, "hello");
	cr_assert_eq(dma_read(&env.port, IOVA(4 * PAGE), buf, 1), -EFAULT);
	cr_assert_eq(dma_read(&env.port, IOVA(4 * PAGE - 1), buf, 2), -EFAULT);
	cr_assert_eq(dma_read(&env.port, IOVA(UINT64_MAX), buf, 2), -EFAULT);
	cr_assert_eq(dma_read(&env.port, IOVA(UINT64_MAX), buf, 0), 0);
}

Test(dma, identity_map_is_one_piece)
{
	struct dma_list list = make_list(2);

	use_identity();
	cr_assert_eq(dma_map(&env.port, IOVA(0), 2 * PAGE, DMA_WRITE, &list), 0);
	/* Adjacent ranges continue the piece. */
	cr_assert_eq(dma_map(&env.port, IOVA(2 * PAGE), PAGE, DMA_WRITE, &list), 0);
	cr_assert_eq(list.count, 1);
	cr_assert_eq(list.bytes, 3 * PAGE);
	/* A failure puts the continued piece back. */
	cr_assert_eq(dma_map(&env.port, IOVA(3 * PAGE), 2 * PAGE, DMA_WRITE, &list), -EFAULT);
	cr_assert_eq(list.count, 1);
	cr_assert_eq(list.iov[0].iov_len, 3 * PAGE);
	cr_assert_eq(list.bytes, 3 * PAGE);
	dma_unpin(&env.port, &list);
	cr_assert_eq(list.bytes, 0);
}

Test(dma, scattered_pages_are_pieces_with_references)
{
	struct dma_list list = make_list(16);

	cr_assert_eq(dma_map(&env.port, IOVA(PAGE - 100), PAGE + 200, DMA_READ, &list), 0);
	cr_assert_eq(list.count, 3);
	cr_assert_eq(env.refs, 3);
	cr_assert_eq(list.iov[0].iov_len, 100);
	cr_assert_eq(list.iov[1].iov_base, (char *)env.ram.host + 6 * PAGE);
	cr_assert_eq(list.iov[2].iov_len, 100);
	dma_unpin(&env.port, &list);
	cr_assert_eq(env.refs, 0);
}

Test(dma, failure_leaves_the_list_and_no_reference)
{
	struct dma_list list = make_list(16);

	cr_assert_eq(dma_map(&env.port, IOVA(0), 10, DMA_READ, &list), 0);
	cr_assert_eq(dma_map(&env.port, IOVA(6 * PAGE), 4 * PAGE, DMA_READ, &list), -EFAULT);
	cr_assert_eq(list.count, 1);
	cr_assert_eq(list.bytes, 10);
	cr_assert_eq(env.refs, 1);
	cr_assert_eq(env.faults, 1);
	cr_assert_eq(env.fault_iova, 8 * PAGE, "where the hole is");
	cr_assert_eq(env.fault_dir, DMA_READ);
	dma_unpin(&env.port, &list);
}

Test(dma, a_full_list_is_no_fault)
{
	struct dma_list list = make_list(2);

	cr_assert_eq(dma_map(&env.port, IOVA(0), 3 * PAGE, DMA_READ, &list), -ENOBUFS);
	cr_assert_eq(list.count, 0);
	cr_assert_eq(env.refs, 0);
	cr_assert_eq(env.faults, 0);
}

Test(dma, cache_answers_until_the_epoch_is_raised)
{
	char c;

	for (int i = 0; i < 10; i++)
		cr_assert_eq(dma_read(&env.port, IOVA(5), &c, 1), 0);
	cr_assert_eq(env.translations, 1);
	env.table[0] = -1;
	atomic_fetch_add(&env.epoch, 1);
	cr_assert_eq(dma_read(&env.port, IOVA(5), &c, 1), -EFAULT);
	/* What was refused isn't remembered. */
	env.table[0] = 3;
	cr_assert_eq(dma_read(&env.port, IOVA(5), &c, 1), 0);
	cr_assert_eq(env.port.hits, 9);
}

Test(dma, cache_keeps_permissions_apart)
{
	char c = 0;

	env.write_ok = false;
	cr_assert_eq(dma_read(&env.port, IOVA(5), &c, 1), 0);
	cr_assert_eq(dma_write(&env.port, IOVA(5), &c, 1), -EFAULT);
	cr_assert_eq(env.fault_dir, DMA_WRITE);
}

static unsigned left;

static void on_leave(struct dma_port *port)
{
	cr_assert_eq(port->active, 0);
	left++;
}

Test(dma, leave_tells_a_waiting_remover_once)
{
	dma_enter(&env.port);
	cr_assert_eq(env.port.active, 1);
	atomic_store(&env.port.on_leave, on_leave);
	dma_leave(&env.port);
	dma_enter(&env.port);
	dma_leave(&env.port);
	cr_assert_eq(left, 1);
}

Test(dma, wrap_around_is_a_fault)
{
	char buf[2];

	cr_assert_eq(dma_read(&env.port, IOVA(UINT64_MAX), buf, 2), -EFAULT);
	cr_assert_eq(dma_read(&env.port, IOVA(16 * PAGE), buf, UINT64_MAX), -EFAULT);
}
