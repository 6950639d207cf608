#ifndef TESTS_GUESTS_GUEST_H
#define TESTS_GUESTS_GUEST_H

/*
 * What every bare-metal guest needs and no architecture changes: text on the
 * console, TAP, words of the command line, pages. Nothing here is shared with
 * the VMM: a guest that tests a device mustn't inherit its mistakes. There is no
 * libc, one CPU, no interrupts: guests poll.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE 4096u

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* Each guest has one; when it returns, the guest spins. Called by the architecture's entry. */
void guest_main(void);

/* GCC calls these for copies and initialisers too; each architecture has its own. */
void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);

void print(const char *text);
void print_hex(uint64_t value);
void print_unsigned(uint64_t value);

/* "ok N - @what" or "not ok N - @what"; TAP's numbers count from 1. Returns @good. */
bool check(bool good, const char *what);
/* "ok N - @what # SKIP @why". */
void check_skip(const char *what, const char *why);
/* The plan line at the end, "1..N". True when every check was good. */
bool checks_done(void);
/* What was counted so far, and how to go on counting from there after a reboot. */
void checks_get(unsigned *checks, unsigned *failures);
void checks_set(unsigned checks, unsigned failures);

/* True when @word is one of the words of @line. */
bool has_word(const char *line, const char *word);
/* The number behind @prefix ("name=") in the first word that begins with it, or 0. */
uint64_t word_value(const char *line, const char *prefix);
size_t length(const char *text);
bool equal(const void *a, const void *b, size_t size);
/* True when all @size bytes at @at are @byte. */
bool all_bytes(const void *at, uint8_t byte, size_t size);

/* Little-endian values that may be unaligned, as in tables and wire structures. */
uint16_t get16(const void *at);
uint32_t get32(const void *at);
uint64_t get64(const void *at);
void put16(void *at, uint16_t value);
void put32(void *at, uint32_t value);
void put64(void *at, uint64_t value);

/* Guest-physical address as a pointer: memory is identity-mapped. */
static inline void *phys(uint64_t addr)
{
	return (void *)(uintptr_t)addr;
}

/*
 * Free RAM: @count contiguous zeroed pages, aligned to a page, from a pool that
 * pages_reset empties. Ends the guest when there are none left.
 */
uint64_t pages(unsigned count);
void pages_reset(void);
/* @count single pages, no two of them adjacent, in descending order. */
void scattered_pages(uint64_t *ret_page, unsigned count);
/* A page that neither pages() nor a reboot touches: zero when the machine is switched on. */
uint64_t kept_page(void);

/* Whether @ms milliseconds (at least) have gone since the deadline was made. */
uint64_t deadline_in(unsigned ms);
bool deadline_passed(uint64_t deadline);
void delay(unsigned ms);

/* Say @why in TAP's words and stop. */
_Noreturn void bail_out(const char *why);

#endif
