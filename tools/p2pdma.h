/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's switch and counters for peer-to-peer access to device-private
 * memory, in /sys/kernel/mm/hmm_p2pdma. Functions return 0 or a negative errno.
 */
#ifndef P2PDMA_H
#define P2PDMA_H

#include <stddef.h>
#include <stdint.h>

enum p2pdma_stat {
	P2PDMA_ALIAS_CPU,
	P2PDMA_ALIAS_BUS,
	P2PDMA_ALIAS_HOST_BRIDGE,
	P2PDMA_FALLBACK_NO_WINDOW,
	P2PDMA_FALLBACK_OUTSIDE_WINDOW,
	P2PDMA_FALLBACK_CALLBACK,
	P2PDMA_FALLBACK_UNREACHABLE,
	P2PDMA_FALLBACK_READONLY,
	P2PDMA_NR_STATS,
};

/* Pages since boot. */
struct p2pdma_stats {
	uint64_t pages[P2PDMA_NR_STATS];
};

extern const char * const p2pdma_stat_names[P2PDMA_NR_STATS];

int p2pdma_enabled(int *enabled);
int p2pdma_enable(int enabled);
int p2pdma_read_stats(struct p2pdma_stats *stats);

#endif
