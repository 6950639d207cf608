#ifndef VMM_BASE_TYPES_H
#define VMM_BASE_TYPES_H

/*
 * The value types that every layer shares.
 *
 * Addresses are one-member structs, so that handing an I/O virtual address to a
 * function that wants a guest-physical one doesn't compile. Little-endian wire
 * fields are byte arrays: they have alignment 1, need no packed attribute, and
 * compilers turn the accessors into a single load or store.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Guest-physical address. */
typedef struct {
	uint64_t v;
} gpa_t;

/* Address as a device issues it: guest-physical unless an IOMMU translates. */
typedef struct {
	uint64_t v;
} iova_t;

#define GPA(x)	((gpa_t){ (x) })
#define IOVA(x) ((iova_t){ (x) })

typedef struct {
	uint8_t b[2];
} le16;

typedef struct {
	uint8_t b[4];
} le32;

typedef struct {
	uint8_t b[8];
} le64;

static inline uint16_t le16_get(le16 x)
{
	return (uint16_t)(x.b[0] | x.b[1] << 8);
}

static inline uint32_t le32_get(le32 x)
{
	return (uint32_t)x.b[0] | (uint32_t)x.b[1] << 8 | (uint32_t)x.b[2] << 16 |
	       (uint32_t)x.b[3] << 24;
}

static inline uint64_t le64_get(le64 x)
{
	uint64_t v = 0;

	for (int i = 7; i >= 0; i--)
		v = v << 8 | x.b[i];
	return v;
}

static inline le16 le16_from(uint16_t v)
{
	return (le16){ { (uint8_t)v, (uint8_t)(v >> 8) } };
}

static inline le32 le32_from(uint32_t v)
{
	return (le32){ { (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24) } };
}

static inline le64 le64_from(uint64_t v)
{
	le64 x;

	for (int i = 0; i < 8; i++, v >>= 8)
		x.b[i] = (uint8_t)v;
	return x;
}

#define ARRAY_SIZE(a)	 (sizeof(a) / sizeof((a)[0]))
#define ALIGN_UP(x, a)	 (((x) + ((a)-1)) & ~((a)-1))
#define ALIGN_DOWN(x, a) ((x) & ~((a)-1))
#define MIN(a, b)	 ((a) < (b) ? (a) : (b))
#define MAX(a, b)	 ((a) > (b) ? (a) : (b))
#define KIB(n)		 ((uint64_t)(n) << 10)
#define MIB(n)		 ((uint64_t)(n) << 20)
#define GIB(n)		 ((uint64_t)(n) << 30)

/* The structure of type @type whose member @member @ptr points to. */
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#endif
