/* SPDX-License-Identifier: GPL-2.0 */
/* What the page table walk of mm/hmm.c asks of mm/hmm_p2pdma.c. */
#ifndef MM_HMM_P2PDMA_H
#define MM_HMM_P2PDMA_H

#include <linux/hmm.h>
#include <linux/jump_label.h>

struct dev_pagemap;
struct hmm_window;

/* How a client reaches a window. Trace events print the names. */
enum hmm_route {
	HMM_ROUTE_NONE,
	HMM_ROUTE_CPU,
	HMM_ROUTE_BUS,
	HMM_ROUTE_HOST_BRIDGE,
	HMM_NR_ROUTES,
};

/* Why a device-private page is migrated although the caller has a client. */
enum hmm_fallback {
	HMM_NO_FALLBACK,
	HMM_FALLBACK_NO_WINDOW,
	HMM_FALLBACK_OUTSIDE_WINDOW,
	HMM_FALLBACK_CALLBACK,
	HMM_FALLBACK_UNREACHABLE,
	HMM_FALLBACK_READONLY,
	HMM_FALLBACK_NO_PAGES,
	HMM_NR_FALLBACKS,
};

/*
 * The last window that a walk has seen within an RCU section, how the client
 * reaches it, and how many pages of it have been found, which hmm_alias_end()
 * counts. Of a linear one also where its pages show up.
 */
struct hmm_alias_cache {
	struct hmm_window *window;
	enum hmm_route route;
	unsigned long first_pfn;
	unsigned long nr_pages;
	unsigned long alias_pfn;
	unsigned long found;
};

#ifdef CONFIG_HMM_P2PDMA
DECLARE_STATIC_KEY_TRUE(hmm_p2pdma_key);

static inline bool hmm_wants_alias(const struct hmm_range *range)
{
	return static_branch_likely(&hmm_p2pdma_key) && range->client;
}

enum hmm_fallback hmm_alias_pfn(const struct hmm_range *range,
				struct hmm_alias_cache *cache,
				struct dev_pagemap *pgmap,
				unsigned long private_pfn,
				unsigned long nr_pages, unsigned long *pfn);
void hmm_alias_found(struct hmm_alias_cache *cache, unsigned long addr,
		     unsigned long pfn, unsigned long nr_pages);
void hmm_alias_fallback(struct dev_pagemap *pgmap, unsigned long addr,
			unsigned long nr_pages, enum hmm_fallback reason);
void hmm_alias_account(unsigned long nr_pages, bool mapped);
void __hmm_alias_end(struct hmm_alias_cache *cache);

/* One more page of the window that the last one was in? */
static inline bool hmm_alias_next(struct hmm_alias_cache *cache,
				  unsigned long private_pfn, unsigned long *pfn)
{
	unsigned long offset = private_pfn - cache->first_pfn;

	if (offset >= cache->nr_pages)
		return false;

	*pfn = cache->alias_pfn + offset;
	cache->found++;
	return true;
}

/* Before the RCU section ends in which hmm_alias_pfn() was called. */
static inline void hmm_alias_end(struct hmm_alias_cache *cache)
{
	if (cache->window)
		__hmm_alias_end(cache);
}
#else
static inline bool hmm_wants_alias(const struct hmm_range *range)
{
	return false;
}

static inline enum hmm_fallback
hmm_alias_pfn(const struct hmm_range *range, struct hmm_alias_cache *cache,
	      struct dev_pagemap *pgmap, unsigned long private_pfn,
	      unsigned long nr_pages, unsigned long *pfn)
{
	return HMM_FALLBACK_NO_WINDOW;
}

static inline void hmm_alias_found(struct hmm_alias_cache *cache,
				   unsigned long addr, unsigned long pfn,
				   unsigned long nr_pages)
{
}

static inline void hmm_alias_fallback(struct dev_pagemap *pgmap,
				      unsigned long addr,
				      unsigned long nr_pages,
				      enum hmm_fallback reason)
{
}

static inline void hmm_alias_account(unsigned long nr_pages, bool mapped)
{
}

static inline bool hmm_alias_next(struct hmm_alias_cache *cache,
				  unsigned long private_pfn, unsigned long *pfn)
{
	return false;
}

static inline void hmm_alias_end(struct hmm_alias_cache *cache)
{
}
#endif

#endif /* MM_HMM_P2PDMA_H */
