// SPDX-License-Identifier: GPL-2.0
/*
 * Invalidate device-private pages that stay where they are, because importers
 * lose the window or the link through which they reach them.
 */
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/rmap.h>

#include "hmm_internal.h"
#include "internal.h"

static bool hmm_invalidate_one(struct folio *folio, struct vm_area_struct *vma,
			       unsigned long addr, void *pgmap)
{
	DEFINE_FOLIO_VMA_WALK(pvmw, folio, vma, addr, PVMW_SYNC);
	unsigned long end = vma_address_end(&pvmw);
	struct mmu_notifier_range range;

	/* After a fork, the area may have another page there */
	if (!page_vma_mapped_walk(&pvmw))
		return true;
	page_vma_mapped_walk_done(&pvmw);

	mmu_notifier_range_init_owner(&range, MMU_NOTIFY_REVOKE, 0, vma->vm_mm,
				      addr, end, pgmap);
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	return true;
}

/*
 * Call the notifiers of all processes that may have the first @nr_pages of a
 * device-private pagemap mapped, for these pages. The pages stay where they
 * are. The caller has just changed the result of hmm_find_reach() for them, and
 * has then called synchronize_rcu(). When this returns, no importer uses the
 * old result:
 *
 * - A walk that has not seen the change has ended with the grace period. Its
 *   caller uses the result only if mmu_interval_read_retry() finds that no
 *   notifier has been called since, and that is done below.
 * - A page that is free when this function looks at it is used later only by
 *   walks that see the change.
 * - A page whose entry has been moved or removed needs no call: the code that
 *   moved or removed the entry has called the notifiers.
 *
 * May sleep. See hmm_window_revoke() for what the caller must not hold.
 */
void hmm_invalidate_private(const struct dev_pagemap *pgmap,
			    unsigned long nr_pages)
{
	unsigned long pfn = PHYS_PFN(pgmap->range.start), end = pfn + nr_pages;
	struct rmap_walk_control rwc = {
		.arg = (void *)pgmap,
		.rmap_one = hmm_invalidate_one,
		.anon_lock = folio_lock_anon_vma_read,
	};

	while (pfn < end) {
		struct page *page = pfn_to_page(pfn);
		struct folio *folio = page_folio(page);

		cond_resched();
		/* A reference makes migration fail: take none of a locked folio */
		if (folio_ref_count(folio) && folio_test_locked(folio)) {
			schedule_timeout_uninterruptible(1);
			continue;
		}
		if (!folio_try_get(folio)) {
			/* It is frozen for a moment, to be split, or free */
			if (!folio_test_anon(folio))
				pfn++;
			continue;
		}
		if (!folio_trylock(folio)) {
			folio_put(folio);
			continue;
		}
		if (folio != page_folio(page)) {
			/* It has been split or freed: look again */
		} else if (folio_page_idx(folio, page) >= folio_nr_pages(folio)) {
			/* A free page may still refer to its former head */
			pfn++;
		} else {
			if (folio_test_anon(folio))
				rmap_walk(folio, &rwc);
			pfn += folio_nr_pages(folio) -
			       folio_page_idx(folio, page);
		}
		folio_unlock(folio);
		folio_put(folio);
	}
}
