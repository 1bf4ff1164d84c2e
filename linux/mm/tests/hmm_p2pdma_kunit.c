// SPDX-License-Identifier: GPL-2.0
/*
 * Windows: which ones can be declared, which pages show up in them, for whom, and
 * how their addresses are mapped.
 */
#include <kunit/device.h>
#include <kunit/test.h>
#include <linux/dma-direct.h>
#include <linux/dma-map-ops.h>
#include <linux/hmm-dma.h>
#include <linux/hmm_p2pdma.h>
#include <linux/memremap.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/sizes.h>
#include <linux/swiotlb.h>

#include "../hmm_p2pdma.h"

/* Beyond what any machine has, for BARs and for device-private memory */
#define BAR_START	BIT_ULL(43)
#define BAR_PAGES	64
#define VRAM_START	BIT_ULL(44)
#define VRAM_PFN	PHYS_PFN(VRAM_START)
#define VRAM_PAGES	128

/* A window in the middle of the BAR, for pages in the middle of the memory */
#define SKIP_BAR	3
#define SKIP_VRAM	5
#define WINDOW_PAGES	40
#define WINDOW_PFN	(PHYS_PFN(BAR_START) + SKIP_BAR)

struct exporter {
	struct pci_dev pdev;
	struct p2pdma_provider provider;
	struct dev_pagemap pgmap;
	struct hmm_window window;
};

static struct exporter *exporter(struct kunit *test, phys_addr_t bar)
{
	struct exporter *ex = kunit_kzalloc(test, sizeof(*ex), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, ex);
	ex->provider.owner = &ex->pdev.dev;
	ex->provider.range.start = bar;
	ex->provider.range.end = bar + BAR_PAGES * PAGE_SIZE - 1;
	ex->provider.bus_offset = SZ_1T;
	ex->pgmap.type = MEMORY_DEVICE_PRIVATE;
	ex->pgmap.range.start = VRAM_START;
	ex->pgmap.range.end = VRAM_START + VRAM_PAGES * PAGE_SIZE - 1;
	ex->pgmap.nr_range = 1;
	ex->window.provider = &ex->provider;
	ex->window.phys = bar + SKIP_BAR * PAGE_SIZE;
	ex->window.nr_pages = WINDOW_PAGES;
	ex->window.first_pfn = VRAM_PFN + SKIP_VRAM;
	return ex;
}

static void test_window_is_in_the_bar(struct kunit *test)
{
	static const struct {
		s64 offset;
		unsigned long nr_pages;
		int err;
	} windows[] = {
		{ 0, BAR_PAGES, 0 },
		{ 0, 1, 0 },
		{ PAGE_SIZE, BAR_PAGES - 1, 0 },
		{ (BAR_PAGES - 1) * PAGE_SIZE, 1, 0 },
		{ 0, 0, -EINVAL },
		{ 0, BAR_PAGES + 1, -EINVAL },
		{ PAGE_SIZE, BAR_PAGES, -EINVAL },
		{ -PAGE_SIZE, 1, -EINVAL },
		{ -PAGE_SIZE, BAR_PAGES, -EINVAL },
		{ BAR_PAGES * PAGE_SIZE, 1, -EINVAL },
		{ PAGE_SIZE, ULONG_MAX, -EINVAL },
		{ PAGE_SIZE, 1UL << (BITS_PER_LONG - PAGE_SHIFT), -EINVAL },
		{ 1, 1, -EINVAL },
		{ PAGE_SIZE - 1, 1, -EINVAL },
	};
	struct exporter *ex = exporter(test, BAR_START);
	int i;

	for (i = 0; i < ARRAY_SIZE(windows); i++) {
		ex->window.phys = BAR_START + windows[i].offset;
		ex->window.nr_pages = windows[i].nr_pages;
		KUNIT_EXPECT_EQ_MSG(test, windows[i].err,
				    hmm_window_register(&ex->pgmap, &ex->window),
				    "%lld, %lu pages", windows[i].offset,
				    windows[i].nr_pages);
		hmm_window_unregister(&ex->pgmap);
	}
}

static void test_window_is_of_private_memory_and_a_bar(struct kunit *test)
{
	struct exporter *ex = exporter(test, BAR_START);

	ex->pgmap.type = MEMORY_DEVICE_COHERENT;
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_window_register(&ex->pgmap, &ex->window));
	ex->pgmap.type = MEMORY_DEVICE_PRIVATE;
	ex->window.provider = NULL;
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_window_register(&ex->pgmap, &ex->window));
	KUNIT_EXPECT_NULL(test, rcu_access_pointer(ex->pgmap.window));
}

static void test_windows_are_apart(struct kunit *test)
{
	struct exporter *ex = exporter(test, BAR_START);
	struct exporter *other = exporter(test, BAR_START);
	struct hmm_window second = ex->window;

	KUNIT_ASSERT_EQ(test, 0, hmm_window_register(&ex->pgmap, &ex->window));

	/* One for a pagemap, wherever it is */
	KUNIT_EXPECT_EQ(test, -EBUSY, hmm_window_register(&ex->pgmap, &second));
	second.phys += ex->window.nr_pages * PAGE_SIZE;
	second.nr_pages = 1;
	KUNIT_EXPECT_EQ(test, -EBUSY, hmm_window_register(&ex->pgmap, &second));
	KUNIT_EXPECT_PTR_EQ(test, &ex->window, rcu_access_pointer(ex->pgmap.window));

	/* And one for a place in the BAR */
	KUNIT_EXPECT_EQ(test, -EEXIST,
			hmm_window_register(&other->pgmap, &other->window));
	other->window.phys = BAR_START;
	other->window.nr_pages = SKIP_BAR + 1;
	KUNIT_EXPECT_EQ(test, -EEXIST,
			hmm_window_register(&other->pgmap, &other->window));
	KUNIT_EXPECT_NULL(test, rcu_access_pointer(other->pgmap.window));
	other->window.nr_pages = SKIP_BAR;
	KUNIT_EXPECT_EQ(test, 0, hmm_window_register(&other->pgmap, &other->window));

	hmm_window_unregister(&ex->pgmap);
	hmm_window_unregister(&ex->pgmap);
	KUNIT_EXPECT_EQ(test, 0, hmm_window_register(&ex->pgmap, &second));
	hmm_window_unregister(&ex->pgmap);
	hmm_window_unregister(&other->pgmap);
}

/* As a walk does, but for one page after the other. */
static enum hmm_fallback find(struct exporter *ex, const struct hmm_client *client,
			      unsigned long private_pfn, unsigned long nr_pages,
			      unsigned long *pfn)
{
	struct hmm_range range = { .client = client };
	struct hmm_alias_cache cache = {};
	enum hmm_fallback reason;
	unsigned long next = 0;

	guard(rcu)();
	reason = hmm_alias_pfn(&range, &cache, &ex->pgmap, private_pfn, nr_pages,
			       pfn);
	/* What is remembered is the same as what is found */
	if (reason == HMM_NO_FALLBACK && hmm_alias_next(&cache, private_pfn, &next) &&
	    next != *pfn)
		return HMM_NR_FALLBACKS;
	return reason;
}

static void test_each_page_has_its_place(struct kunit *test)
{
	struct exporter *ex = exporter(test, BAR_START);
	struct hmm_client cpu = {};
	unsigned long i, n, pfn;
	struct iosys_map map;
	char kernel[1];

	iosys_map_set_vaddr(&ex->window.map, kernel);
	KUNIT_ASSERT_EQ(test, 0, hmm_window_register(&ex->pgmap, &ex->window));

	for (i = 0; i < VRAM_PAGES; i++) {
		for (n = 1; n <= 16; n *= 2) {
			bool inside = i >= SKIP_VRAM &&
				      i + n <= SKIP_VRAM + WINDOW_PAGES;

			pfn = 0;
			KUNIT_EXPECT_EQ(test,
					inside ? HMM_NO_FALLBACK :
						 HMM_FALLBACK_OUTSIDE_WINDOW,
					find(ex, &cpu, VRAM_PFN + i, n, &pfn));
			KUNIT_EXPECT_EQ(test, inside ? WINDOW_PFN + i - SKIP_VRAM : 0,
					pfn);
		}
	}

	/* And each place leads back to the window */
	for (i = 0; i < BAR_PAGES; i++) {
		bool inside = i >= SKIP_BAR && i < SKIP_BAR + WINDOW_PAGES;

		pfn = (PHYS_PFN(BAR_START) + i) | HMM_PFN_VALID | HMM_PFN_ALIAS;
		KUNIT_EXPECT_PTR_EQ(test, inside ? &ex->provider : NULL,
				    hmm_pfn_to_provider(pfn));
		KUNIT_EXPECT_EQ(test, inside ? 0 : -EFAULT,
				hmm_pfn_map_local(pfn, &map));
		KUNIT_EXPECT_PTR_EQ(test,
				    inside ? (void *)kernel + (i - SKIP_BAR) * PAGE_SIZE :
					     NULL, map.vaddr);
	}
	KUNIT_EXPECT_NULL(test, hmm_pfn_to_provider(WINDOW_PFN | HMM_PFN_VALID));

	hmm_window_unregister(&ex->pgmap);
}

/* Pages the other way round, with one that the callback gets wrong at each end */
static int backwards(struct hmm_window *window, struct page *page,
		     unsigned long nr_pages, phys_addr_t *phys)
{
	unsigned long i = page_to_pfn(page) - VRAM_PFN;

	if (nr_pages > 1)
		return -ENXIO;
	*phys = window->phys + (WINDOW_PAGES - i) * PAGE_SIZE;
	if (i == 7)
		*phys += 1;
	return 0;
}

static void test_callback_finds_pages(struct kunit *test)
{
	struct exporter *ex = exporter(test, BAR_START);
	struct hmm_client cpu = {};
	unsigned long i, pfn;
	char kernel[1];

	iosys_map_set_vaddr(&ex->window.map, kernel);
	ex->window.get_alias = backwards;
	KUNIT_ASSERT_EQ(test, 0, hmm_window_register(&ex->pgmap, &ex->window));

	for (i = 0; i < VRAM_PAGES; i++) {
		bool inside = i > 0 && i <= WINDOW_PAGES && i != 7;

		pfn = 0;
		KUNIT_EXPECT_EQ(test, inside ? HMM_NO_FALLBACK : HMM_FALLBACK_CALLBACK,
				find(ex, &cpu, VRAM_PFN + i, 1, &pfn));
		KUNIT_EXPECT_EQ(test, inside ? WINDOW_PFN + WINDOW_PAGES - i : 0, pfn);
	}
	KUNIT_EXPECT_EQ(test, HMM_FALLBACK_CALLBACK,
			find(ex, &cpu, VRAM_PFN + 10, 2, &pfn));
	hmm_window_unregister(&ex->pgmap);
}

static void test_reasons(struct kunit *test)
{
	struct exporter *ex = exporter(test, BAR_START);
	struct hmm_client cpu = {}, pages = { .need_pages = true };
	struct hmm_client dma = {
		.dma_dev = kunit_device_register(test, "hmm_p2pdma_kunit"),
	};
	unsigned long pfn;
	char kernel[1];

	KUNIT_ASSERT_FALSE(test, IS_ERR(dma.dma_dev));
	KUNIT_EXPECT_EQ(test, HMM_FALLBACK_NO_WINDOW,
			find(ex, &cpu, VRAM_PFN + SKIP_VRAM, 1, &pfn));

	KUNIT_ASSERT_EQ(test, 0, hmm_window_register(&ex->pgmap, &ex->window));
	KUNIT_EXPECT_EQ(test, HMM_FALLBACK_UNREACHABLE,
			find(ex, &cpu, VRAM_PFN + SKIP_VRAM, 1, &pfn));
	KUNIT_EXPECT_EQ(test, HMM_FALLBACK_UNREACHABLE,
			find(ex, &dma, VRAM_PFN + SKIP_VRAM, 1, &pfn));
	hmm_window_unregister(&ex->pgmap);

	iosys_map_set_vaddr(&ex->window.map, kernel);
	KUNIT_ASSERT_EQ(test, 0, hmm_window_register(&ex->pgmap, &ex->window));
	KUNIT_EXPECT_EQ(test, HMM_FALLBACK_NO_PAGES,
			find(ex, &pages, VRAM_PFN + SKIP_VRAM, 1, &pfn));
	KUNIT_EXPECT_EQ(test, HMM_NO_FALLBACK,
			find(ex, &cpu, VRAM_PFN + SKIP_VRAM, 1, &pfn));
	hmm_window_unregister(&ex->pgmap);
}

/* Whoever owns its pages: it does not reach itself through the fabric. */
static void test_device_is_not_its_own_peer(struct kunit *test)
{
	struct exporter *ex = exporter(test, BAR_START);
	struct hmm_client client = {};
	struct pci_dev *pdev = NULL;
	unsigned long pfn;
	int bar;

	for_each_pci_dev(pdev)
		if (rcu_access_pointer(pdev->p2pdma))
			break;
	if (!pdev)
		kunit_skip(test, "no PCI device is an exporter");

	for (bar = 0; bar < PCI_STD_NUM_BARS; bar++)
		if (pci_resource_len(pdev, bar) >= PAGE_SIZE &&
		    pcim_p2pdma_provider(pdev, bar))
			break;
	KUNIT_ASSERT_LT(test, bar, PCI_STD_NUM_BARS);

	/* Its driver may have a window there: ours is known to nobody */
	client.dma_dev = &pdev->dev;
	ex->window.provider = pcim_p2pdma_provider(pdev, bar);
	ex->window.phys = pci_resource_start(pdev, bar);
	ex->window.nr_pages = 1;
	rcu_assign_pointer(ex->pgmap.window, &ex->window);
	KUNIT_EXPECT_EQ(test, HMM_FALLBACK_UNREACHABLE,
			find(ex, &client, VRAM_PFN + SKIP_VRAM, 1, &pfn));
	pci_dev_put(pdev);
}

/* An address is mapped by its own BAR, whichever the one before was in. */
static void test_map_state_is_of_one_bar(struct kunit *test)
{
	struct exporter *ex = exporter(test, BAR_START);
	struct exporter *other = exporter(test, 2 * BAR_START);
	struct device *dev = kunit_device_register(test, "hmm_p2pdma_kunit");
	unsigned long pfns[2] = {
		WINDOW_PFN | HMM_PFN_VALID | HMM_PFN_ALIAS,
		(WINDOW_PFN + PHYS_PFN(BAR_START)) | HMM_PFN_VALID | HMM_PFN_ALIAS,
	};
	struct hmm_dma_map map = { .pfn_list = pfns, .dma_entry_size = PAGE_SIZE };
	struct pci_p2pdma_map_state state = {
		.mem = &ex->provider, .map = PCI_P2PDMA_MAP_BUS_ADDR,
	};

	KUNIT_ASSERT_FALSE(test, IS_ERR(dev));
	KUNIT_ASSERT_EQ(test, 0, hmm_window_register(&ex->pgmap, &ex->window));
	KUNIT_ASSERT_EQ(test, 0, hmm_window_register(&other->pgmap, &other->window));

	KUNIT_EXPECT_EQ(test, PFN_PHYS(WINDOW_PFN) + SZ_1T,
			hmm_dma_map_pfn(dev, &map, 0, &state));
	KUNIT_EXPECT_TRUE(test, pfns[0] & HMM_PFN_DMA_MAPPED);

	/* Not reachable, as nobody has made it a provider */
	KUNIT_EXPECT_EQ(test, DMA_MAPPING_ERROR,
			hmm_dma_map_pfn(dev, &map, 1, &state));
	KUNIT_EXPECT_FALSE(test, pfns[1] & HMM_PFN_DMA_MAPPED);

	KUNIT_EXPECT_TRUE(test, hmm_dma_unmap_pfn(dev, &map, 0));
	KUNIT_EXPECT_FALSE(test, hmm_dma_unmap_pfn(dev, &map, 1));
	hmm_window_unregister(&ex->pgmap);
	hmm_window_unregister(&other->pgmap);
}

/* Whichever way traffic goes by now: it is unmapped as it was mapped. */
static void test_mapped_stays_as_it_is(struct kunit *test)
{
	struct exporter *ex = exporter(test, BAR_START);
	struct device *dev = kunit_device_register(test, "hmm_p2pdma_kunit");
	unsigned long pfn = WINDOW_PFN | HMM_PFN_VALID | HMM_PFN_ALIAS;
	struct hmm_dma_map map = { .pfn_list = &pfn, .dma_entry_size = PAGE_SIZE };
	struct pci_p2pdma_map_state state = {
		.mem = &ex->provider, .map = PCI_P2PDMA_MAP_BUS_ADDR,
	};

	KUNIT_ASSERT_FALSE(test, IS_ERR(dev));
	KUNIT_ASSERT_EQ(test, 0, hmm_window_register(&ex->pgmap, &ex->window));

	KUNIT_EXPECT_EQ(test, PFN_PHYS(WINDOW_PFN) + SZ_1T,
			hmm_dma_map_pfn(dev, &map, 0, &state));
	state.map = PCI_P2PDMA_MAP_THRU_HOST_BRIDGE;
	KUNIT_EXPECT_EQ(test, PFN_PHYS(WINDOW_PFN) + SZ_1T,
			hmm_dma_map_pfn(dev, &map, 0, &state));
	/* No way at all: a neighbour that is mapped again finds it none the less */
	state.map = PCI_P2PDMA_MAP_NOT_SUPPORTED;
	KUNIT_EXPECT_EQ(test, PFN_PHYS(WINDOW_PFN) + SZ_1T,
			hmm_dma_map_pfn(dev, &map, 0, &state));
	KUNIT_EXPECT_TRUE(test, pfn & HMM_PFN_P2PDMA_BUS);
	KUNIT_EXPECT_FALSE(test, pfn & HMM_PFN_P2PDMA);

	KUNIT_EXPECT_TRUE(test, hmm_dma_unmap_pfn(dev, &map, 0));
	KUNIT_EXPECT_FALSE(test, hmm_dma_unmap_pfn(dev, &map, 0));
	hmm_window_unregister(&ex->pgmap);
}

/* What dma_map_phys() would refuse is refused, and no more. */
static void test_mmio_that_can_be_mapped(struct kunit *test)
{
	struct device *dev = kunit_device_register(test, "hmm_p2pdma_kunit");
	static const struct bus_dma_region regions[] = {
		{ .cpu_start = BAR_START, .dma_start = SZ_1G, .size = SZ_1M },
		{ .cpu_start = BAR_START + SZ_1M, .dma_start = SZ_2G, .size = SZ_1M },
		{ }
	};
	struct io_tlb_mem *tlb;
	u64 mask = DMA_BIT_MASK(64);

	KUNIT_ASSERT_FALSE(test, IS_ERR(dev));
	tlb = kunit_kzalloc(test, sizeof(*tlb), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, tlb);

	dev->dma_mask = NULL;
	KUNIT_EXPECT_FALSE(test, dma_can_map_mmio(dev, BAR_START, SZ_1M));
	dev->dma_mask = &mask;
	KUNIT_EXPECT_TRUE(test, dma_can_map_mmio(dev, BAR_START, SZ_1M));

	mask = BAR_START + SZ_1M - 1;
	KUNIT_EXPECT_TRUE(test, dma_can_map_mmio(dev, BAR_START, SZ_1M));
	mask--;
	KUNIT_EXPECT_FALSE(test, dma_can_map_mmio(dev, BAR_START, SZ_1M));
	mask = DMA_BIT_MASK(64);

	dev->bus_dma_limit = BAR_START + SZ_1M - 1;
	KUNIT_EXPECT_TRUE(test, dma_can_map_mmio(dev, BAR_START, SZ_1M));
	dev->bus_dma_limit--;
	KUNIT_EXPECT_FALSE(test, dma_can_map_mmio(dev, BAR_START, SZ_1M));

	/* The bus has other addresses, lower than its limit, but not for all */
	dev->dma_range_map = regions;
	KUNIT_EXPECT_TRUE(test, dma_can_map_mmio(dev, BAR_START, SZ_1M));
	KUNIT_EXPECT_FALSE(test, dma_can_map_mmio(dev, BAR_START, SZ_2M));
	KUNIT_EXPECT_FALSE(test, dma_can_map_mmio(dev, BAR_START + SZ_2M, SZ_1M));
	KUNIT_EXPECT_FALSE(test, dma_can_map_mmio(dev, BAR_START - SZ_1M, SZ_1M));
	dev->dma_range_map = NULL;
	dev->bus_dma_limit = 0;

	/* Everything is bounced, as in a guest with encrypted memory */
	tlb->force_bounce = true;
	swap(dev->dma_io_tlb_mem, tlb);
	KUNIT_EXPECT_FALSE(test, dma_can_map_mmio(dev, BAR_START, SZ_1M));
	swap(dev->dma_io_tlb_mem, tlb);
	dev->dma_mask = NULL;
}

static struct kunit_case hmm_p2pdma_cases[] = {
	KUNIT_CASE(test_window_is_in_the_bar),
	KUNIT_CASE(test_window_is_of_private_memory_and_a_bar),
	KUNIT_CASE(test_windows_are_apart),
	KUNIT_CASE(test_each_page_has_its_place),
	KUNIT_CASE(test_callback_finds_pages),
	KUNIT_CASE(test_reasons),
	KUNIT_CASE(test_device_is_not_its_own_peer),
	KUNIT_CASE(test_map_state_is_of_one_bar),
	KUNIT_CASE(test_mapped_stays_as_it_is),
	KUNIT_CASE(test_mmio_that_can_be_mapped),
	{ }
};

static struct kunit_suite hmm_p2pdma_suite = {
	.name = "hmm_p2pdma",
	.test_cases = hmm_p2pdma_cases,
};

kunit_test_suite(hmm_p2pdma_suite);

MODULE_DESCRIPTION("KUnit tests for peer-to-peer access to device-private memory");
MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
MODULE_LICENSE("GPL");
