/* SPDX-License-Identifier: GPL-2.0 */
/* Counters and trace events of peer-to-peer access to device-private memory. */
#ifndef MM_HMM_P2PDMA_STATS_H
#define MM_HMM_P2PDMA_STATS_H

#include <linux/percpu.h>
#include <linux/tracepoint-defs.h>

#include "hmm_internal.h"

#ifdef CONFIG_HMM_P2PDMA
/* Counters in pages: by route, and of DMA mappings made and removed. */
struct hmm_p2pdma_stats {
	unsigned long pages[HMM_NR_ROUTES];
	unsigned long dma_mapped;
	unsigned long dma_unmapped;
};

DECLARE_PER_CPU(struct hmm_p2pdma_stats, hmm_p2pdma_stats);
DECLARE_TRACEPOINT(hmm_alias);

void hmm_trace_alias(unsigned long addr, unsigned long pfn,
		     unsigned long nr_pages, enum hmm_route route);
void hmm_count_fallback(unsigned long addr, unsigned long nr_pages,
			enum hmm_route reason);
void hmm_count_dma(unsigned long nr_pages, bool mapped);

static inline void hmm_count_alias(unsigned long addr, unsigned long hmm_pfn,
				   unsigned long nr_pages, enum hmm_route route)
{
	this_cpu_add(hmm_p2pdma_stats.pages[route], nr_pages);
	if (tracepoint_enabled(hmm_alias))
		hmm_trace_alias(addr, hmm_pfn & ~HMM_PFN_FLAGS, nr_pages, route);
}
#else
static inline void hmm_count_alias(unsigned long addr, unsigned long hmm_pfn,
				   unsigned long nr_pages, enum hmm_route route)
{
}

static inline void hmm_count_fallback(unsigned long addr,
				      unsigned long nr_pages,
				      enum hmm_route reason)
{
}

static inline void hmm_count_dma(unsigned long nr_pages, bool mapped)
{
}
#endif

#endif /* MM_HMM_P2PDMA_STATS_H */
