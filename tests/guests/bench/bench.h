#ifndef TESTS_GUESTS_BENCH_BENCH_H
#define TESTS_GUESTS_BENCH_BENCH_H

/*
 * What the two halves of the benchmark share: requests without the care that
 * tests take, and lines of results. All times are ticks of arch_ticks.
 */

#include "tests/guests/virtio/batch.h"
#include "tests/guests/virtio/disk.h"

/* A result: "NAME NUMBER...", one line on the console. */
void report(const char *name, const uint64_t *value, unsigned n);

/* A random number below @limit, the same series at each boot. */
uint64_t random_below(uint64_t limit);

/* batch_send; a status other than OK ends the guest. */
uint64_t request_send(unsigned n);

/*
 * MAP and UNMAP alone, in batches and over many mappings, among 1 to a million
 * others. @disk is attached to the domain that they are made in, and idle.
 *
 *	request NAME LIVE P50 P99 SAMPLES	NAME: map, unmap, map64, unmap64 or unmap1000
 *	gaveup LIVE MADE			no time for more mappings than MADE
 */
void bench_requests(struct disk *disk);

/*
 * Random reads of 4 KiB, at depth 1 and 32, from @plain, which isn't translated,
 * and from @translated, in turns. Each 4 KiB of both begin with their number.
 *
 *	reads MODE DEPTH ROUND COUNT TICKS	MODE: none, static or dynamic
 */
void bench_reads(struct disk *plain, struct disk *translated);

#endif
