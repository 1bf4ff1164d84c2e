/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For KUnit tests of HMM: a process with device-private pages, and an importer
 * that follows its page table.
 */
#ifndef MM_TESTS_HMM_KUNIT_H
#define MM_TESTS_HMM_KUNIT_H

#include <kunit/test.h>
#include <linux/hmm.h>
#include <linux/ioport.h>
#include <linux/kthread.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/mmu_notifier.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/sizes.h>

/*
 * The process has pages 0, 2, 4 and 6 of the device mapped, in this order.
 * Page 1 is in use, but not mapped. All others are free.
 */
#define HMM_KUNIT_PAGES		4
#define HMM_KUNIT_PAGE(i)	(2 * (i))

struct hmm_kunit {
	struct page *unmapped;
	struct dev_pagemap pgmap;	/* its address is not that of the owner */
	int migrations;			/* tried, by faults */

	unsigned long addr;
	unsigned long pfns[HMM_KUNIT_PAGES];	/* the result of a walk */

	struct mmu_interval_notifier notifier;
	int invalidations;
	unsigned long invalidated;	/* bitmap of pages */
	enum mmu_notifier_event event;
	void *event_owner;
	/* Would a walk during an invalidation still get the page? */
	bool (*reachable)(struct hmm_kunit *hk);
	const void *data;
	bool was_reachable;
};

static inline void hmm_kunit_folio_free(struct folio *folio)
{
}

static inline vm_fault_t hmm_kunit_migrate_to_ram(struct vm_fault *vmf)
{
	container_of(page_pgmap(vmf->page), struct hmm_kunit, pgmap)->migrations++;
	return VM_FAULT_SIGBUS;
}

static const struct dev_pagemap_ops hmm_kunit_pgmap_ops = {
	.folio_free	= hmm_kunit_folio_free,
	.migrate_to_ram	= hmm_kunit_migrate_to_ram,
};

static inline bool hmm_kunit_invalidate(struct mmu_interval_notifier *notifier,
					const struct mmu_notifier_range *range,
					unsigned long seq)
{
	struct hmm_kunit *hk = container_of(notifier, struct hmm_kunit, notifier);
	int i;

	mmu_interval_set_seq(notifier, seq);
	hk->invalidations++;
	hk->event = range->event;
	hk->event_owner = range->owner;
	for (i = 0; i < HMM_KUNIT_PAGES; i++)
		if (hk->addr + i * PAGE_SIZE >= range->start &&
		    hk->addr + i * PAGE_SIZE < range->end)
			hk->invalidated |= BIT(i);
	hk->was_reachable |= hk->reachable(hk);
	return true;
}

static const struct mmu_interval_notifier_ops hmm_kunit_notifier_ops = {
	.invalidate = hmm_kunit_invalidate,
};

static inline void hmm_kunit_release_region(void *data)
{
	struct resource *res = data;

	release_mem_region(res->start, resource_size(res));
}

/* A pagemap that has no pages yet. The test may add to it. */
static inline struct hmm_kunit *hmm_kunit_alloc(struct kunit *test)
{
	struct hmm_kunit *hk = kunit_kzalloc(test, sizeof(*hk), GFP_KERNEL);
	struct resource *res;

	KUNIT_ASSERT_NOT_NULL(test, hk);
	res = request_free_mem_region(&iomem_resource, SZ_128M, "hmm_kunit");
	KUNIT_ASSERT_FALSE(test, IS_ERR(res));
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, hmm_kunit_release_region,
						  res));
	hk->pgmap.type = MEMORY_DEVICE_PRIVATE;
	hk->pgmap.range.start = res->start;
	hk->pgmap.range.end = res->end;
	hk->pgmap.nr_range = 1;
	hk->pgmap.ops = &hmm_kunit_pgmap_ops;
	hk->pgmap.owner = hk;
	return hk;
}

static inline unsigned long hmm_kunit_pfn(struct hmm_kunit *hk, int i)
{
	return PHYS_PFN(hk->pgmap.range.start) + HMM_KUNIT_PAGE(i);
}

/* Waits for the end of the process, if the test has failed early. */
static inline void hmm_kunit_remove_pages(void *data)
{
	struct hmm_kunit *hk = data;

	if (hk->unmapped)
		put_page(hk->unmapped);
	memunmap_pages(&hk->pgmap);
}

/* Returns how many pages have been mapped. */
static inline int hmm_kunit_map(struct hmm_kunit *hk)
{
	unsigned long src[HMM_KUNIT_PAGES], dst[HMM_KUNIT_PAGES];
	struct migrate_vma args = {
		.src = src,
		.dst = dst,
		.start = hk->addr,
		.end = hk->addr + HMM_KUNIT_PAGES * PAGE_SIZE,
		.pgmap_owner = hk,
		.flags = MIGRATE_VMA_SELECT_SYSTEM,
	};
	int i, mapped = 0;

	mmap_read_lock(current->mm);
	args.vma = vma_lookup(current->mm, hk->addr);
	if (!migrate_vma_setup(&args)) {
		for (i = 0; i < HMM_KUNIT_PAGES; i++) {
			unsigned long pfn = hmm_kunit_pfn(hk, i);

			zone_device_page_init(pfn_to_page(pfn), &hk->pgmap, 0);
			dst[i] = migrate_pfn(pfn);
		}
		migrate_vma_pages(&args);
		for (i = 0; i < HMM_KUNIT_PAGES; i++)
			mapped += !!(src[i] & MIGRATE_PFN_MIGRATE);
		migrate_vma_finalize(&args);
	}
	mmap_read_unlock(current->mm);

	return mapped;
}

static inline void hmm_kunit_remove_notifier(void *data)
{
	struct hmm_kunit *hk = data;

	mmu_interval_notifier_remove(&hk->notifier);
}

/* Begin the process. hmm_kunit_exit() ends it, at the end of the test. */
static inline void hmm_kunit_start(struct kunit *test, struct hmm_kunit *hk)
{
	KUNIT_ASSERT_FALSE(test, IS_ERR(memremap_pages(&hk->pgmap, NUMA_NO_NODE)));
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, hmm_kunit_remove_pages,
						  hk));
	hk->unmapped = pfn_to_page(PHYS_PFN(hk->pgmap.range.start) + 1);
	zone_device_page_init(hk->unmapped, &hk->pgmap, 0);
	unlock_page(hk->unmapped);

	hk->addr = kunit_vm_mmap(test, NULL, 0, HMM_KUNIT_PAGES * PAGE_SIZE,
				 PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, 0);
	KUNIT_ASSERT_NE(test, 0, hk->addr);
	KUNIT_ASSERT_FALSE(test, IS_ERR_VALUE(hk->addr));
	KUNIT_ASSERT_EQ(test, HMM_KUNIT_PAGES, hmm_kunit_map(hk));

	KUNIT_ASSERT_EQ(test, 0,
			mmu_interval_notifier_insert(&hk->notifier, current->mm,
						     hk->addr,
						     HMM_KUNIT_PAGES * PAGE_SIZE,
						     &hmm_kunit_notifier_ops));
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, hmm_kunit_remove_notifier,
						  hk));
}

/* KUnit takes two references on the mm, but a thread that exits drops one. */
static inline void hmm_kunit_exit(void)
{
	struct mm_struct *mm = current->mm;

	kthread_unuse_mm(mm);
	mmput(mm);
}

/* Walk the page table of the first @npages. @range says how. */
static inline int hmm_kunit_walk(struct hmm_kunit *hk, struct hmm_range *range,
				 unsigned long npages)
{
	int err;

	memset(hk->pfns, 0, sizeof(hk->pfns));
	range->notifier = &hk->notifier;
	range->start = hk->addr;
	range->end = hk->addr + npages * PAGE_SIZE;
	range->hmm_pfns = hk->pfns;
	range->notifier_seq = mmu_interval_read_begin(&hk->notifier);
	mmap_read_lock(current->mm);
	err = hmm_range_fault(range);
	mmap_read_unlock(current->mm);

	return err;
}

/* The walk of all pages gets them as they are, or not at all. */
static inline void hmm_kunit_expect_private(struct kunit *test,
					    struct hmm_kunit *hk,
					    struct hmm_range *range, bool private)
{
	int i;

	KUNIT_EXPECT_EQ(test, 0, hmm_kunit_walk(hk, range, HMM_KUNIT_PAGES));
	for (i = 0; i < HMM_KUNIT_PAGES; i++)
		KUNIT_EXPECT_EQ(test,
				private ? hmm_kunit_pfn(hk, i) | HMM_PFN_VALID |
					  HMM_PFN_WRITE : 0,
				hk->pfns[i]);
}

#endif /* MM_TESTS_HMM_KUNIT_H */
