/* SPDX-License-Identifier: GPL-2.0 */
/* Declarations shared by the HMM files in mm/. */
#ifndef MM_HMM_INTERNAL_H
#define MM_HMM_INTERNAL_H

#include <linux/hmm.h>
#include <linux/jump_label.h>

struct dev_pagemap;

/*
 * The route by which a caller of hmm_range_fault() reaches a device-private
 * page, or the reason that there is none: then a fault migrates the page to
 * system memory.
 */
enum hmm_route {
	HMM_ROUTE_PRIVATE,		/* by its own PFN */
	HMM_ROUTE_CPU,			/* by an alias, its own PFN: the CPU copies */
	HMM_ROUTE_BUS,			/* by an alias, with its bus address */
	HMM_ROUTE_HOST_BRIDGE,		/* by an alias, mapped for DMA */
	HMM_FALLBACK_NO_CLIENT,		/* the caller takes no aliases */
	HMM_FALLBACK_NO_WINDOW,
	HMM_FALLBACK_OUTSIDE_WINDOW,
	HMM_FALLBACK_UNREACHABLE,
	HMM_FALLBACK_REVOKED,
	HMM_FALLBACK_READONLY,		/* the entry forbids the access */
	HMM_NR_ROUTES,
};

/*
 * How a caller reaches the @nr consecutive pages from PFN @first. If @route is
 * not a fallback, the entry of each page is its PFN plus @delta, with @flags.
 * Valid only in the RCU section in which it was found.
 */
struct hmm_reach {
	unsigned long first;
	unsigned long nr;
	unsigned long delta;
	unsigned long flags;
	enum hmm_route route;
};

static inline bool hmm_route_is_fallback(enum hmm_route route)
{
	return route > HMM_ROUTE_HOST_BRIDGE;
}

/* The caller ensures that @pfn >= reach->first. */
static inline bool hmm_reaches(const struct hmm_reach *reach,
			       unsigned long pfn, unsigned long npages)
{
	return !hmm_route_is_fallback(reach->route) &&
	       pfn - reach->first + npages <= reach->nr;
}

void hmm_invalidate_private(const struct dev_pagemap *pgmap,
			    unsigned long nr_pages);

#ifdef CONFIG_HMM_P2PDMA
DECLARE_STATIC_KEY_TRUE(hmm_p2pdma_key);

static inline bool hmm_wants_alias(const struct hmm_range *range)
{
	return static_branch_likely(&hmm_p2pdma_key) && range->client;
}

void hmm_find_alias(const struct hmm_range *range,
		    struct dev_pagemap *pgmap, unsigned long pfn,
		    struct hmm_reach *reach);
#else
static inline bool hmm_wants_alias(const struct hmm_range *range)
{
	return false;
}

static inline void hmm_find_alias(const struct hmm_range *range,
				  struct dev_pagemap *pgmap,
				  unsigned long pfn, struct hmm_reach *reach)
{
	reach->route = HMM_FALLBACK_NO_CLIENT;
}
#endif

#endif /* MM_HMM_INTERNAL_H */
