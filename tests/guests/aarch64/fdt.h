#ifndef TESTS_GUESTS_AARCH64_FDT_H
#define TESTS_GUESTS_AARCH64_FDT_H

/* The device tree as the guest's own reader sees it (Devicetree Specification 0.4, 5). */

#include "tests/guests/guest.h"

/* A node, and its properties, which are found by name. */
struct fdt_node {
	const uint8_t *tree, *properties;
	const char *name;
	unsigned depth; /* the root's is 0 */
};

/* The root of the tree at @tree, or the node after @node, a parent before its children. */
bool fdt_first(struct fdt_node *ret_node, const void *tree);
bool fdt_next(struct fdt_node *node);

/* Property @name: its bytes and their number, or NULL. */
const uint8_t *fdt_property(const struct fdt_node *node, const char *name, uint32_t *ret_size);

/* One of @node's compatible strings is @name. */
bool fdt_is(const struct fdt_node *node, const char *name);

/* Cell @index of a property, and the two from there as one number. */
uint32_t fdt_cell(const uint8_t *property, unsigned index);
uint64_t fdt_cell64(const uint8_t *property, unsigned index);

#endif
