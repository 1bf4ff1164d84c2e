/* SPDX-License-Identifier: GPL-2.0 */
/* The kernel's counters of aliases, and the switch that turns aliases off. */
#ifndef LIB_STATS_H
#define LIB_STATS_H

#include <stdbool.h>
#include <stdint.h>

/* Lists the windows that exist. */
#define WINDOWS	"/sys/kernel/debug/hmm_p2pdma/windows"

/* A counter of /sys/kernel/debug/hmm_p2pdma/stats; ~0 on errors. */
uint64_t stat_read(const char *name);
int aliases_enable(bool enable);

/*
 * All counters of two GPUs, to count the pages that a request moves or aliases. If
 * @_stay, the @_reached pages in VRAM stay there, each of them adds one to @_counter,
 * and no other counter changes. Otherwise the pages migrate, and @_counter, the reason,
 * grows by @_least to @_most: the first page that the request needs migrates its whole
 * allocation.
 */
#define COUNTERS_NR	8

extern const char * const counters[COUNTERS_NR];

struct tally {
	uint64_t evicted;
	uint64_t count[COUNTERS_NR];
};

struct tally tally_read(const int *gpu);

#define EXPECT_TALLY(_before, _after, _reached, _least, _most, _stay, _counter) do { \
	unsigned int _i;						\
									\
	for (_i = 0; _i < COUNTERS_NR; _i++) {				\
		uint64_t _moved = (_after).count[_i] - (_before).count[_i]; \
		uint64_t _lo = (_stay) ? (_reached) : (_least);		\
		uint64_t _hi = (_stay) ? (_reached) : (_most);		\
		uint64_t _want = _moved < _lo ? _lo : _moved > _hi ? _hi : _moved; \
									\
		if (strcmp(counters[_i], _counter))			\
			_want = 0;					\
		EXPECT_EQ(_want, _moved)				\
			TH_LOG("%s", counters[_i]);			\
	}								\
	if (_stay) {							\
		EXPECT_EQ((_before).evicted, (_after).evicted);		\
	} else {							\
		EXPECT_LE((_before).evicted + (_reached), (_after).evicted); \
	}								\
} while (0)

#endif
