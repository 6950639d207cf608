/*
 * Theory of operation
 *
 * How a section and a removal see each other. Each side writes its own word,
 * then reads the other's, and all four accesses are sequentially consistent:
 *
 *	dma_enter                      remover
 *	active = epoch    (store)      take the mapping out
 *	port->epoch = epoch (load)     epoch++           (read-modify-write)
 *	                               look at active    (load)
 *
 * In the single order of these four, either the port's load comes after the
 * increment, and then the section sees the map without the mapping; or the
 * port's store comes before the remover's look, and then the remover sees an
 * old epoch in `active` and waits. A port whose `active` is older than what it
 * then read is waited for needlessly, and rarely.
 *
 * Leaving is the same handshake with the roles exchanged: active = 0, then look
 * at on_leave; the remover sets on_leave, then looks at active again. So the
 * last one to leave is always told, and no remover has to poll. A remover does
 * this only when it found a thread inside a section, which is rare, so the
 * fence is all on its side (barrier_heavy).
 *
 * Entering can't be treated alike without making every UNMAP a system call that
 * interrupts the vCPUs. But a guest that unmaps for every I/O needs removals to be
 * cheap, and one with mappings that stay needs sections to be cheap; hardly any
 * needs both at a time. So a port that entered CALM_SECTIONS sections in a row
 * without a removal leaves the fence out, and says so in `unfenced`. The next
 * remover clears that, then executes one heavy barrier: a section that began
 * without a fence is then visible in `active`, and later ones find `unfenced`
 * cleared. The store of `unfenced` is in the single order with the remover's
 * increment: a remover that doesn't see it has raised the epoch before, and the
 * unfenced sections that follow see the new one.
 *
 * So a section costs no locked instruction while the mappings stay, else one (9 ns
 * on the test machine); translations inside it cost none while the cache answers.
 * An identity view has nothing that could be removed.
 */
#include "vmm/core/dma.h"

#include <errno.h>
#include "vmm/base/barrier.h"

/* A heavy barrier costs as much as some hundred fences. */
#define CALM_SECTIONS 256

/* Translations of an identity view never end; 0 would mean "none" to those who remember one. */
static const _Atomic uint64_t identity_epoch = 1;

void dma_view_init_identity(struct dma_view *view, struct ram *ram)
{
	*view = (struct dma_view){ .ops = NULL, .ram = ram, .epoch = &identity_epoch };
}

static bool is_identity(const struct dma_port *port)
{
	return !port->view->ops;
}

int dma_port_init(struct dma_port *port, struct dma_view *view)
{
	*port = (struct dma_port){ .view = view };
	if (is_identity(port))
		return 0;
	int ret = view->ops->attach_port(view, port);

	if (ret)
		port->view = NULL;
	return ret;
}

void dma_port_finish(struct dma_port *port)
{
	if (port->view && !is_identity(port))
		port->view->ops->detach_port(port->view, port);
	port->view = NULL;
}

/* A section with a fence; after some calm, the last one for the time being. */
static void enter_fenced(struct dma_port *port, uint64_t epoch)
{
	/* Both seq_cst; pair with the remover's increment and its look at active. */
	atomic_store(&port->active, epoch);
	epoch = atomic_load(port->view->epoch);
	if (epoch != port->epoch) {
		port->epoch = epoch;
		port->calm = 0;
	} else if (++port->calm == CALM_SECTIONS) {
		port->calm = 0;
		/* seq_cst; pairs with the load in dma_port_fence. */
		atomic_store(&port->unfenced, true);
	}
}

/* dma_enter and dma_leave of a view that isn't identity. */
static inline void enter(struct dma_port *port)
{
	/* The value may be old by now, which only makes a remover wait; the order is what counts.
	 */
	uint64_t epoch = atomic_load_explicit(port->view->epoch, memory_order_relaxed);

	if (!atomic_load_explicit(&port->unfenced, memory_order_relaxed)) {
		enter_fenced(port, epoch);
		return;
	}
	atomic_store_explicit(&port->active, epoch, memory_order_relaxed);
	/* Pairs with barrier_heavy after dma_port_fence. */
	barrier_light();
	port->epoch = atomic_load(port->view->epoch);
}

static inline void leave(struct dma_port *port)
{
	/* Release: what was done inside is done. */
	atomic_store_explicit(&port->active, 0, memory_order_release);
	/* Pairs with barrier_heavy between a remover's store of on_leave and its look at active. */
	barrier_light();
	if (atomic_load_explicit(&port->on_leave, memory_order_relaxed)) {
		void (*fn)(struct dma_port *) = atomic_exchange(&port->on_leave, NULL);

		if (fn)
			fn(port);
	}
}

void dma_enter(struct dma_port *port)
{
	if (is_identity(port))
		port->epoch = 1;
	else
		enter(port);
}

void dma_leave(struct dma_port *port)
{
	if (!is_identity(port))
		leave(port);
}

bool dma_port_fence(struct dma_port *port)
{
	if (!atomic_load(&port->unfenced))
		return false;
	atomic_store(&port->unfenced, false);
	return true;
}

/* A counter with one writer: no locked instruction. */
static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

/* Granules are 4 KiB or more, so no two mappings of neighbouring buffers share a line. */
static unsigned line_of(uint64_t iova)
{
	return (iova >> 12) % DMA_CACHE_LINES;
}

void dma_cache_fill(struct dma_port *port, iova_t iova, uint64_t first, uint64_t last, void *host,
		    void *mapping, uint8_t perm)
{
	port->recent = line_of(iova.v);
	port->cache[port->recent] = (struct dma_cache_line){
		.first = first,
		.last = last,
		.epoch = port->epoch,
		.host = host,
		.mapping = mapping,
		.perm = perm,
	};
}

static bool line_covers(const struct dma_port *port, const struct dma_cache_line *line,
			uint64_t iova, enum dma_dir dir)
{
	return line->epoch == port->epoch && iova >= line->first && iova <= line->last &&
	       line->perm & dir;
}

/* The line that translates @iova, or NULL. */
static inline const struct dma_cache_line *cache_find(struct dma_port *port, uint64_t iova,
						      enum dma_dir dir)
{
	/* A mapping of many pages, once asked for, answers for all of them. */
	if (!line_covers(port, &port->cache[port->recent], iova, dir)) {
		unsigned line = line_of(iova);

		if (!line_covers(port, &port->cache[line], iova, dir))
			return NULL;
		port->recent = line;
	}
	return &port->cache[port->recent];
}

int dma_translate(struct dma_port *port, iova_t iova, uint64_t len, enum dma_dir dir,
		  struct dma_piece *ret_piece)
{
	if (!len)
		return -EFAULT;
	if (is_identity(port)) {
		uint64_t got;
		void *host = ram_span(port->view->ram, GPA(iova.v), len, &got);

		if (!host)
			return -EFAULT;
		*ret_piece = (struct dma_piece){ .host = host, .len = got };
		return 0;
	}
	const struct dma_cache_line *line = cache_find(port, iova.v, dir);

	if (line) {
		/* Compared as "bytes minus one", which can't overflow. */
		uint64_t more = line->last - iova.v;

		ret_piece->host = line->host + (iova.v - line->first);
		ret_piece->len = len - 1 <= more ? len : more + 1;
		ret_piece->mapping = line->mapping;
		count(&port->hits, 1);
	} else {
		int ret = port->view->ops->translate(port, iova, len, dir, ret_piece);

		if (ret)
			return ret;
		count(&port->misses, 1);
	}
	count(&port->translated, ret_piece->len);
	return 0;
}

/* Step over @piece; false when the next address doesn't exist. */
static bool advance(uint64_t *iova, uint64_t *len, uint64_t done)
{
	*len -= done;
	return !__builtin_add_overflow(*iova, done, iova) || !*len;
}

/* Append one piece. References are taken inside the section that translated it. */
static int list_add(struct dma_port *port, struct dma_list *list, const struct dma_piece *piece)
{
	struct iovec *prev = list->count ? &list->iov[list->count - 1] : NULL;

	/* Neighbours without a reference of their own become one. */
	if (prev && !piece->mapping && !list->mapping[list->count - 1] &&
	    (char *)prev->iov_base + prev->iov_len == piece->host) {
		prev->iov_len += piece->len;
		list->bytes += piece->len;
		return 0;
	}
	if (list->count == list->max)
		return -ENOBUFS;
	if (piece->mapping)
		port->view->ops->ref(port, piece->mapping);
	list->iov[list->count] = (struct iovec){ .iov_base = piece->host, .iov_len = piece->len };
	list->mapping[list->count++] = piece->mapping;
	list->bytes += piece->len;
	return 0;
}

/* Cut @list back to its first @keep pieces. Outside sections. */
static void list_cut(struct dma_port *port, struct dma_list *list, unsigned keep)
{
	while (list->count > keep) {
		void *mapping = list->mapping[--list->count];

		if (mapping)
			port->view->ops->unref(port, mapping);
	}
}

/* dma_map, when one line of the cache doesn't have it all. In a section, which it leaves. */
static __attribute__((noinline)) int map_pieces(struct dma_port *port, iova_t iova, uint64_t len,
						enum dma_dir dir, struct dma_list *list)
{
	unsigned had = list->count;
	uint64_t had_bytes = list->bytes, at = iova.v;
	size_t had_tail = had ? list->iov[had - 1].iov_len : 0;
	struct dma_piece piece;
	int ret = 0;

	while (len && !ret) {
		ret = dma_translate(port, IOVA(at), len, dir, &piece);
		if (!ret)
			ret = list_add(port, list, &piece);
		if (!ret && !advance(&at, &len, piece.len))
			ret = -EFAULT;
	}
	dma_leave(port);
	if (!ret)
		return 0;
	list_cut(port, list, had);
	list->bytes = had_bytes;
	if (had)
		list->iov[had - 1].iov_len = had_tail;
	if (ret == -EFAULT)
		dma_fault(port, IOVA(at), dir);
	return ret;
}

/* The most frequent case by far. In a section; false when it isn't that. */
static bool map_cached(struct dma_port *port, uint64_t iova, uint64_t len, enum dma_dir dir,
		       struct dma_list *list)
{
	const struct dma_cache_line *line = cache_find(port, iova, dir);

	if (!line || len - 1 > line->last - iova || !line->mapping || list->count == list->max)
		return false;
	port->view->ops->ref(port, line->mapping);
	list->iov[list->count] =
		(struct iovec){ .iov_base = line->host + (iova - line->first), .iov_len = len };
	list->mapping[list->count++] = line->mapping;
	list->bytes += len;
	count(&port->hits, 1);
	count(&port->translated, len);
	return true;
}

int dma_map(struct dma_port *port, iova_t iova, uint64_t len, enum dma_dir dir,
	    struct dma_list *list)
{
	if (!len)
		return 0;
	dma_enter(port);
	if (is_identity(port) || !map_cached(port, iova.v, len, dir, list))
		return map_pieces(port, iova, len, dir, list);
	leave(port);
	return 0;
}

void dma_unpin(struct dma_port *port, struct dma_list *list)
{
	list_cut(port, list, 0);
	list->bytes = 0;
}

static int copy(struct dma_port *port, iova_t iova, void *buf, uint64_t len, enum dma_dir dir)
{
	uint64_t at = iova.v;
	struct dma_piece piece;
	char *p = buf;

	while (len) {
		/*
		 * A section per piece, so that a long copy delays no remover. It
		 * holds the page for this piece only.
		 */
		dma_enter(port);
		int ret = dma_translate(port, IOVA(at), len, dir, &piece);

		if (!ret && dir == DMA_READ)
			memcpy(p, piece.host, piece.len);
		else if (!ret)
			memcpy(piece.host, p, piece.len);
		dma_leave(port);
		if (ret || !advance(&at, &len, piece.len)) {
			dma_fault(port, IOVA(at), dir);
			return -EFAULT;
		}
		p += piece.len;
	}
	return 0;
}

int dma_read(struct dma_port *port, iova_t iova, void *buf, uint64_t len)
{
	return copy(port, iova, buf, len, DMA_READ);
}

int dma_write(struct dma_port *port, iova_t iova, const void *buf, uint64_t len)
{
	/* Only read from with DMA_WRITE. */
	return copy(port, iova, (void *)buf, len, DMA_WRITE);
}

void dma_fault(struct dma_port *port, iova_t iova, enum dma_dir dir)
{
	if (!is_identity(port))
		port->view->ops->fault(port, iova, dir);
}
