#include "tests/guests/aarch64/fdt.h"

#define MAGIC	   0xd00dfeed
#define STRUCT	   8 /* offsets in the header */
#define STRINGS	   12
#define BEGIN_NODE 1
#define END_NODE   2
#define PROPERTY   3
#define NOP	   4

uint32_t fdt_cell(const uint8_t *property, unsigned index)
{
	return __builtin_bswap32(get32(property + 4 * index));
}

uint64_t fdt_cell64(const uint8_t *property, unsigned index)
{
	return (uint64_t)fdt_cell(property, index) << 32 | fdt_cell(property, index + 1);
}

static uint32_t padded(size_t size)
{
	return (uint32_t)(size + 3) & ~3u;
}

/* Go on from @at, a token at depth @depth, to the next node. */
static bool find_node(struct fdt_node *node, const uint8_t *at, unsigned depth)
{
	for (;;) {
		switch (fdt_cell(at, 0)) {
		case BEGIN_NODE:
			node->name = (const char *)at + 4;
			node->depth = depth;
			node->properties = at + 4 + padded(length(node->name) + 1);
			return true;
		case END_NODE:
			depth--;
			at += 4;
			break;
		case PROPERTY:
			at += 12 + padded(fdt_cell(at, 1));
			break;
		case NOP:
			at += 4;
			break;
		default:
			return false;
		}
	}
}

bool fdt_first(struct fdt_node *ret_node, const void *tree)
{
	if (fdt_cell(tree, 0) != MAGIC)
		return false;
	ret_node->tree = tree;
	return find_node(ret_node, ret_node->tree + fdt_cell(tree, STRUCT / 4), 0);
}

bool fdt_next(struct fdt_node *node)
{
	return find_node(node, node->properties, node->depth + 1);
}

const uint8_t *fdt_property(const struct fdt_node *node, const char *name, uint32_t *ret_size)
{
	const char *strings = (const char *)node->tree + fdt_cell(node->tree, STRINGS / 4);
	const uint8_t *at = node->properties;

	while (fdt_cell(at, 0) == PROPERTY || fdt_cell(at, 0) == NOP) {
		if (fdt_cell(at, 0) == NOP) {
			at += 4;
			continue;
		}
		const char *found = strings + fdt_cell(at, 2);

		if (length(found) == length(name) && equal(found, name, length(name))) {
			*ret_size = fdt_cell(at, 1);
			return at + 12;
		}
		at += 12 + padded(fdt_cell(at, 1));
	}
	return NULL;
}

bool fdt_is(const struct fdt_node *node, const char *name)
{
	uint32_t size = 0;
	const char *at = (const char *)fdt_property(node, "compatible", &size);

	for (const char *end = at + size; at && at < end; at += length(at) + 1) {
		if (length(at) == length(name) && equal(at, name, length(name)))
			return true;
	}
	return false;
}
