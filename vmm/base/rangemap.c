/*
 * Theory of operation
 *
 * A B+tree whose nodes are 1 KiB: up to 50 entries in a leaf, 63 children in an
 * inner node, so a million entries are four levels. It is ordered by the END
 * of the intervals, which makes one query serve all purposes: "the first entry
 * that ends at or after x" contains x if anything does, is the successor
 * otherwise, and tells an insertion whether it would overlap.
 *
 *	inner  key[0]      key[1]      (child 2 has no bound)
 *	  |    ends <= k0  k0 < ends <= k1   k1 < ends
 *	leaf   key[i]: the end of entry i, ptr[i]: its item, more[i]: its size
 *
 * A key bounds its child; it need not be an end that still exists. So the leaf
 * that a walk reaches may hold only smaller ends, and the answer is then the
 * first entry of the next leaf: a walk remembers the nearest subtree to its
 * right.
 *
 * Speed. Among a million entries the upper levels are in a cache, while the leaf
 * and the item are not: two dependent misses. To make it no more, a node is
 * fetched as a whole the moment its address is known (its cache lines then
 * travel together), and the search in it has no branch to mispredict. The size of
 * an interval takes four bytes in the leaf; that of a huge one is in the item.
 *
 * Concurrency. The writer makes `seq` odd, changes nodes, makes it even. A
 * reader checks that seq has not moved before it follows any pointer, and once
 * more before it believes the entry. Everything it reads is atomic; writer's
 * release stores pair with the reader's acquire loads, so that a reader that
 * saw any part of a change also sees that seq moved (this replaces the fences
 * of the usual seqlock, and thread sanitizers understand it; on x86 both are
 * plain moves). A walk has at most one step per level, as every step proves
 * that the tree was still the one it started in.
 *
 * Splitting. Half and half, except at the two edges of the tree: there the full
 * leaf is left full, as an ascending or descending series (how allocators of
 * addresses work) would otherwise leave every leaf half empty. Merging: with a
 * neighbour when both fill three quarters of a node or less, which leaves room
 * before the next split.
 */
#include "vmm/base/rangemap.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>

#define CACHE_LINE	   64
#define LEAF_CAP	   50
#define INNER_CAP	   63
#define MAX_LEVELS	   12 /* 24^12 entries don't fit in memory */
#define SPINS_BEFORE_YIELD 128
#define SEARCH_STEP	   8
#define MORE_IN_ITEM	   UINT32_MAX /* the start is only in the item */

struct rangemap_node {
	_Atomic uint32_t level; /* 0: leaf */
	_Atomic uint32_t count; /* entries or children */
	union {
		struct {
			_Atomic uint64_t key[LEAF_CAP];
			_Atomic(void *) ptr[LEAF_CAP];
			_Atomic uint32_t more[LEAF_CAP]; /* bytes after the first, MORE_IN_ITEM */
		} leaf;
		struct {
			_Atomic uint64_t key[INNER_CAP]; /* of children 0 .. count - 2 */
			_Atomic(struct rangemap_node *) child[INNER_CAP];
		} inner;
		/* All of it; the search looks past the last key, and ignores that. */
		_Atomic uint64_t word[RANGEMAP_NODE_BYTES / 8 - 1];
	};
};

_Static_assert(sizeof(struct rangemap_node) == RANGEMAP_NODE_BYTES, "a node is 1 KiB");

/* Where the writer's walk went: node[0] is the leaf, index[l] the child taken at level l. */
struct path {
	struct rangemap_node *node[MAX_LEVELS];
	unsigned index[MAX_LEVELS];
	unsigned levels;
	bool leftmost, rightmost;
};

/* The reader's loads pair with the writer's stores (see above). */
#define LOAD(p)	    atomic_load_explicit((p), memory_order_acquire)
#define STORE(p, v) atomic_store_explicit((p), (v), memory_order_release)
/* The writer's own view; nobody else stores. */
#define OWN(p) atomic_load_explicit((p), memory_order_relaxed)

static void write_begin(struct rangemap *map)
{
	/* Ordered before the changes by their being release stores. */
	atomic_store_explicit(&map->seq, OWN(&map->seq) + 1, memory_order_relaxed);
}

static void write_end(struct rangemap *map)
{
	/* Pairs with the reader's first load of seq. */
	STORE(&map->seq, OWN(&map->seq) + 1);
}

static struct rangemap_node *child_of(const struct rangemap_node *node, unsigned i)
{
	return LOAD(&node->inner.child[i]);
}

static struct rangemap_node *node_take(struct rangemap *map, unsigned level)
{
	struct rangemap_node *node = slab_take(map->nodes);

	/* It was reserved; see rangemap_insert. */
	assert(node);
	STORE(&node->level, level);
	STORE(&node->count, 0);
	return node;
}

/*
 * Searching.
 */

/* Have @node's cache lines on their way, unless they are in a cache: upper levels are small. */
static void prefetch_node(const struct rangemap_node *node, unsigned level)
{
	if (level > 1)
		return;
	for (unsigned i = 0; i < sizeof(*node); i += CACHE_LINE)
		__builtin_prefetch((const char *)node + i);
}

/*
 * The first of the @count ascending keys of @node that is >= @at; @count when there
 * is none. Every eighth key, then the eight before that one: comparisons that
 * depend on nothing and are counted, without a branch to mispredict.
 */
static unsigned lower_bound(const struct rangemap_node *node, unsigned count, uint64_t at)
{
	unsigned base = 0, n = 0;

	for (unsigned i = SEARCH_STEP - 1; i < INNER_CAP; i += SEARCH_STEP)
		base += SEARCH_STEP * ((i < count) & (LOAD(&node->word[i]) < at));
	for (unsigned i = base; i < base + SEARCH_STEP; i++)
		n += (i < count) & (LOAD(&node->word[i]) < at);
	return base + n;
}

/* How many keys of @node a reader may look at, whatever the node is by now. */
static unsigned safe_keys(const struct rangemap_node *node, bool leaf)
{
	uint32_t count = LOAD(&node->count);

	if (leaf)
		return MIN(count, LEAF_CAP);
	return count ? MIN(count, INNER_CAP) - 1 : 0;
}

/* Did nothing change since @seq? After acquire loads of what was looked at. */
static bool still(const struct rangemap *map, uint64_t seq)
{
	return atomic_load_explicit(&map->seq, memory_order_relaxed) == seq;
}

/* One attempt of rangemap_next: 1 found, 0 there is none, -1 the writer interfered. */
static int try_next(const struct rangemap *map, uint64_t at, uint64_t seq,
		    struct rangemap_entry *ret_entry)
{
	const struct rangemap_node *node = LOAD(&map->root), *right = NULL;

	if (!still(map, seq))
		return -1;
	if (!node)
		return 0;
	for (unsigned level; (level = LOAD(&node->level)) > 0;) {
		unsigned keys = safe_keys(node, false);
		unsigned i = lower_bound(node, keys, at);
		const struct rangemap_node *child = child_of(node, i);

		if (i < keys)
			right = child_of(node, i + 1);
		if (!still(map, seq))
			return -1;
		prefetch_node(child, level - 1);
		node = child;
	}
	unsigned keys = safe_keys(node, true);
	unsigned i = lower_bound(node, keys, at);

	if (i == keys) {
		if (!still(map, seq))
			return -1;
		if (!right)
			return 0;
		for (node = right; LOAD(&node->level); node = right) {
			right = child_of(node, 0);
			if (!still(map, seq))
				return -1;
		}
		i = 0;
	}
	struct rangemap_entry entry = { .last = LOAD(&node->leaf.key[i]),
					.item = LOAD(&node->leaf.ptr[i]) };
	uint32_t more = LOAD(&node->leaf.more[i]);

	if (!still(map, seq))
		return -1;
	entry.first = entry.last - more;
	if (more == MORE_IN_ITEM) {
		entry.first = LOAD(&entry.item->first);
		if (!still(map, seq))
			return -1;
	}
	*ret_entry = entry;
	return 1;
}

bool rangemap_next(const struct rangemap *map, uint64_t at, struct rangemap_entry *ret_entry)
{
	for (unsigned spins = 1;; spins++) {
		uint64_t seq = LOAD(&map->seq);

		if (!(seq & 1)) {
			int ret = try_next(map, at, seq, ret_entry);

			if (ret >= 0)
				return ret;
		}
		/*
		 * A change takes well under a microsecond, so this means that the
		 * writer lost its CPU in the middle of one: lend it ours. It waits
		 * for nobody, so this ends.
		 */
		if (spins % SPINS_BEFORE_YIELD == 0)
			sched_yield();
	}
}

bool rangemap_find(const struct rangemap *map, uint64_t at, struct rangemap_entry *ret_entry)
{
	struct rangemap_entry entry;

	if (!rangemap_next(map, at, &entry) || entry.first > at)
		return false;
	*ret_entry = entry;
	return true;
}

/* The writer's walk to the leaf where an entry that ends at @last belongs. */
static void walk(const struct rangemap *map, uint64_t last, struct path *path)
{
	struct rangemap_node *node = OWN(&map->root);

	path->levels = OWN(&node->level) + 1;
	path->leftmost = path->rightmost = true;
	for (unsigned level = path->levels - 1; level > 0; level--) {
		unsigned count = OWN(&node->count);
		unsigned i = lower_bound(node, count - 1, last);

		path->node[level] = node;
		path->index[level] = i;
		path->leftmost &= i == 0;
		path->rightmost &= i == count - 1;
		node = OWN(&node->inner.child[i]);
		prefetch_node(node, level - 1);
	}
	path->node[0] = node;
	path->index[0] = lower_bound(node, OWN(&node->count), last);
}

/* Where entry @i of @leaf starts. */
static uint64_t leaf_first(const struct rangemap_node *leaf, unsigned i)
{
	const struct rangemap_item *item = OWN(&leaf->leaf.ptr[i]);
	uint32_t more = OWN(&leaf->leaf.more[i]);

	return more == MORE_IN_ITEM ? OWN(&item->first) : OWN(&leaf->leaf.key[i]) - more;
}

/*
 * Changing nodes. All of these run between write_begin and write_end.
 */

static void leaf_copy(struct rangemap_node *to, unsigned at, struct rangemap_node *from, unsigned i)
{
	STORE(&to->leaf.key[at], OWN(&from->leaf.key[i]));
	STORE(&to->leaf.ptr[at], OWN(&from->leaf.ptr[i]));
	STORE(&to->leaf.more[at], OWN(&from->leaf.more[i]));
}

static void leaf_insert(struct rangemap_node *leaf, unsigned at, const struct rangemap_entry *entry)
{
	unsigned count = OWN(&leaf->count);

	for (unsigned i = count; i > at; i--)
		leaf_copy(leaf, i, leaf, i - 1);
	STORE(&leaf->leaf.key[at], entry->last);
	STORE(&leaf->leaf.ptr[at], (void *)entry->item);
	STORE(&leaf->leaf.more[at], (uint32_t)MIN(entry->last - entry->first, MORE_IN_ITEM));
	STORE(&leaf->count, count + 1);
}

static void leaf_delete(struct rangemap_node *leaf, unsigned at, unsigned n)
{
	unsigned count = OWN(&leaf->count) - n;

	for (unsigned i = at; i < count; i++)
		leaf_copy(leaf, i, leaf, i + n);
	STORE(&leaf->count, count);
}

/* Child @at was split: @right comes after it and @key is now the bound between them. */
static void inner_insert(struct rangemap_node *node, unsigned at, uint64_t key,
			 struct rangemap_node *right)
{
	unsigned count = OWN(&node->count);

	/* The old bound of child @at becomes the bound of @right; the last child has none. */
	for (unsigned i = count - 1; i > at; i--)
		STORE(&node->inner.key[i], OWN(&node->inner.key[i - 1]));
	for (unsigned i = count; i > at + 1; i--)
		STORE(&node->inner.child[i], OWN(&node->inner.child[i - 1]));
	STORE(&node->inner.key[at], key);
	STORE(&node->inner.child[at + 1], right);
	STORE(&node->count, count + 1);
}

/* Forget child @at; its neighbour to the left (for child 0: to the right) inherits its range. */
static void inner_delete(struct rangemap_node *node, unsigned at)
{
	unsigned count = OWN(&node->count) - 1;

	for (unsigned i = at ? at - 1 : 0; i + 1 < count; i++)
		STORE(&node->inner.key[i], OWN(&node->inner.key[i + 1]));
	for (unsigned i = at; i < count; i++)
		STORE(&node->inner.child[i], OWN(&node->inner.child[i + 1]));
	STORE(&node->count, count);
}

/* Move what follows the first @keep entries of @leaf to @right. */
static void leaf_split(struct rangemap_node *leaf, unsigned keep, struct rangemap_node *right)
{
	unsigned count = OWN(&leaf->count);

	for (unsigned i = keep; i < count; i++)
		leaf_copy(right, i - keep, leaf, i);
	STORE(&right->count, count - keep);
	STORE(&leaf->count, keep);
}

/* Move what follows the first @keep children to @right; returns the bound between the two. */
static uint64_t inner_split(struct rangemap_node *node, unsigned keep, struct rangemap_node *right)
{
	unsigned count = OWN(&node->count);

	for (unsigned i = keep; i < count; i++) {
		STORE(&right->inner.child[i - keep], OWN(&node->inner.child[i]));
		if (i + 1 < count)
			STORE(&right->inner.key[i - keep], OWN(&node->inner.key[i]));
	}
	STORE(&right->count, count - keep);
	STORE(&node->count, keep);
	return OWN(&node->inner.key[keep - 1]);
}

/* Append all of @right to @left; @key is the bound between them (inner nodes only). */
static void node_merge(struct rangemap_node *left, uint64_t key, struct rangemap_node *right)
{
	unsigned have = OWN(&left->count), more = OWN(&right->count);

	if (!OWN(&left->level)) {
		for (unsigned i = 0; i < more; i++)
			leaf_copy(left, have + i, right, i);
	} else {
		STORE(&left->inner.key[have - 1], key);
		for (unsigned i = 0; i < more; i++) {
			STORE(&left->inner.child[have + i], OWN(&right->inner.child[i]));
			if (i + 1 < more)
				STORE(&left->inner.key[have + i], OWN(&right->inner.key[i]));
		}
	}
	STORE(&left->count, have + more);
}

/*
 * Inserting.
 */

/* Split the full leaf of @path around its insertion point; returns the bound of the left part. */
static uint64_t split_for(struct path *path, struct rangemap_node *right,
			  const struct rangemap_entry *entry)
{
	struct rangemap_node *leaf = path->node[0];
	unsigned at = path->index[0], keep = LEAF_CAP / 2;

	if (path->rightmost && at == LEAF_CAP)
		keep = LEAF_CAP;
	else if (path->leftmost && at == 0)
		keep = 0;
	leaf_split(leaf, keep, right);
	if (at > keep || keep == LEAF_CAP)
		leaf_insert(right, at - keep, entry);
	else
		leaf_insert(leaf, at, entry);
	return OWN(&leaf->leaf.key[OWN(&leaf->count) - 1]);
}

/* Hang @right, the new neighbour of path->node[0], into the tree; split upwards. */
static void insert_upwards(struct rangemap *map, struct path *path, uint64_t key,
			   struct rangemap_node *right)
{
	for (unsigned level = 1; level < path->levels; level++) {
		struct rangemap_node *node = path->node[level];
		unsigned at = path->index[level];

		if (OWN(&node->count) < INNER_CAP) {
			inner_insert(node, at, key, right);
			return;
		}
		/* The edges stay full, as in split_for; an inner node keeps at least one child. */
		unsigned keep = INNER_CAP / 2;
		struct rangemap_node *sibling = node_take(map, level);

		if (path->rightmost)
			keep = INNER_CAP - 1;
		else if (path->leftmost)
			keep = 1;
		/* Read before inner_insert may put a key of its own in that place. */
		uint64_t bound = inner_split(node, keep, sibling);

		if (at >= keep)
			inner_insert(sibling, at - keep, key, right);
		else
			inner_insert(node, at, key, right);
		key = bound;
		right = sibling;
	}
	struct rangemap_node *root = node_take(map, path->levels);

	STORE(&root->inner.key[0], key);
	STORE(&root->inner.child[0], path->node[path->levels - 1]);
	STORE(&root->inner.child[1], right);
	STORE(&root->count, 2);
	STORE(&map->root, root);
}

/* Would [@first, @last], whose place @path is, overlap an entry? */
static bool overlaps(const struct rangemap *map, const struct path *path, uint64_t first,
		     uint64_t last)
{
	struct rangemap_node *leaf = path->node[0];
	unsigned at = path->index[0], count = OWN(&leaf->count);
	struct rangemap_entry next;

	/* At the ends of a leaf a neighbour is in another one. */
	if ((at == 0 && !path->leftmost) || (at == count && !path->rightmost))
		return rangemap_next(map, first, &next) && next.first <= last;
	if (at > 0 && OWN(&leaf->leaf.key[at - 1]) >= first)
		return true;
	return at < count && leaf_first(leaf, at) <= last;
}

int rangemap_insert(struct rangemap *map, uint64_t first, uint64_t last, struct rangemap_item *item)
{
	const struct rangemap_entry entry = { first, last, item };
	struct rangemap_node *root = OWN(&map->root);
	struct path path;

	if (first > last)
		return -EINVAL;
	if (root) {
		walk(map, last, &path);
		if (overlaps(map, &path, first, last))
			return -EEXIST;
	}
	bool full = root && OWN(&path.node[0]->count) == LEAF_CAP;

	/* A split may go up to the root and add a level above it. */
	if (!root || full) {
		unsigned need = root ? OWN(&root->level) + 2 : 1;

		if (need > MAX_LEVELS || slab_reserve(map->nodes, need))
			return -ENOMEM;
	}
	STORE(&item->first, first);
	write_begin(map);
	if (!root) {
		root = node_take(map, 0);
		leaf_insert(root, 0, &entry);
		STORE(&map->root, root);
	} else if (!full) {
		leaf_insert(path.node[0], path.index[0], &entry);
	} else {
		struct rangemap_node *right = node_take(map, 0);
		uint64_t key = split_for(&path, right, &entry);

		insert_upwards(map, &path, key, right);
	}
	write_end(map);
	map->count++;
	return 0;
}

/*
 * Removing.
 */

/* Merge child @at of @parent with a neighbour if both are sparse. True when it did. */
static bool merge_child(struct rangemap *map, struct rangemap_node *parent, unsigned at)
{
	struct rangemap_node *node = OWN(&parent->inner.child[at]);
	unsigned room = (OWN(&node->level) ? INNER_CAP : LEAF_CAP) * 3 / 4;

	for (unsigned left = at ? at - 1 : at; left <= at; left++) {
		if (left + 1 >= OWN(&parent->count))
			continue;
		struct rangemap_node *a = OWN(&parent->inner.child[left]);
		struct rangemap_node *b = OWN(&parent->inner.child[left + 1]);

		if (OWN(&a->count) + OWN(&b->count) > room)
			continue;
		node_merge(a, OWN(&parent->inner.key[left]), b);
		inner_delete(parent, left + 1);
		slab_give(map->nodes, b);
		return true;
	}
	return false;
}

/* After deletions in path->node[0]: no empty node stays, sparse neighbours become one. */
static void shrink(struct rangemap *map, struct path *path)
{
	for (unsigned level = 0; level + 1 < path->levels; level++) {
		struct rangemap_node *node = path->node[level], *parent = path->node[level + 1];
		unsigned at = path->index[level + 1];

		if (!OWN(&node->count)) {
			inner_delete(parent, at);
			slab_give(map->nodes, node);
		} else if (!merge_child(map, parent, at)) {
			break;
		}
	}
	for (;;) {
		struct rangemap_node *root = OWN(&map->root);

		if (!OWN(&root->count)) {
			STORE(&map->root, NULL);
			slab_give(map->nodes, root);
			return;
		}
		if (!OWN(&root->level) || OWN(&root->count) > 1)
			return;
		STORE(&map->root, OWN(&root->inner.child[0]));
		slab_give(map->nodes, root);
	}
}

/* Take out @n entries of the leaf that @path leads to, from its index on. */
static void remove_at(struct rangemap *map, struct path *path, unsigned n)
{
	write_begin(map);
	leaf_delete(path->node[0], path->index[0], n);
	shrink(map, path);
	write_end(map);
	map->count -= n;
}

struct rangemap_item *rangemap_remove(struct rangemap *map, uint64_t first, uint64_t last)
{
	struct path path;

	if (!OWN(&map->root))
		return NULL;
	walk(map, last, &path);
	struct rangemap_node *leaf = path.node[0];
	unsigned at = path.index[0];

	if (at == OWN(&leaf->count) || OWN(&leaf->leaf.key[at]) != last)
		return NULL;
	struct rangemap_item *item = OWN(&leaf->leaf.ptr[at]);

	if (leaf_first(leaf, at) != first)
		return NULL;
	/* On its way while the leaf is changed. */
	__builtin_prefetch(item, 1);
	remove_at(map, &path, 1);
	return item;
}

unsigned rangemap_remove_range(struct rangemap *map, uint64_t first, uint64_t last,
			       struct rangemap_entry *ret_entry, unsigned max)
{
	struct rangemap_entry next;
	struct path path;
	unsigned n = 0;

	if (!max || !rangemap_next(map, first, &next) || next.last > last)
		return 0;
	walk(map, next.last, &path);
	const struct rangemap_node *leaf = path.node[0];
	unsigned at = path.index[0];

	for (; n < max && at + n < OWN(&leaf->count); n++) {
		uint64_t key = OWN(&leaf->leaf.key[at + n]);

		if (key > last)
			break;
		ret_entry[n] = (struct rangemap_entry){
			.first = leaf_first(leaf, at + n),
			.last = key,
			.item = OWN(&leaf->leaf.ptr[at + n]),
		};
		__builtin_prefetch(ret_entry[n].item, 1);
	}
	remove_at(map, &path, n);
	return n;
}

static void clear_node(struct rangemap *map, struct rangemap_node *node,
		       void (*fn)(struct rangemap_item *item, void *opaque), void *opaque)
{
	for (unsigned i = 0; i < OWN(&node->count); i++) {
		/* As deep as the tree has levels, MAX_LEVELS at most. */
		if (OWN(&node->level))
			clear_node(map, OWN(&node->inner.child[i]), fn, opaque);
		else if (fn)
			fn(OWN(&node->leaf.ptr[i]), opaque);
	}
	slab_give(map->nodes, node);
}

void rangemap_clear(struct rangemap *map, void (*fn)(struct rangemap_item *item, void *opaque),
		    void *opaque)
{
	struct rangemap_node *root = OWN(&map->root);

	write_begin(map);
	STORE(&map->root, NULL);
	if (root)
		clear_node(map, root, fn, opaque);
	write_end(map);
	map->count = 0;
}
