// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of windows: their limits, the alias of each page, clients that reach
 * them, and DMA mappings.
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

#include "../hmm_internal.h"
#include "hmm_kunit.h"

/* Addresses that no machine has, of a BAR and of device-private memory */
#define BAR_START	BIT_ULL(43)
#define BAR_PAGES	64
#define VRAM_START	BIT_ULL(44)
#define VRAM_PFN	PHYS_PFN(VRAM_START)
#define VRAM_PAGES	128

/* A window in the middle of the BAR */
#define SKIP_BAR	3
#define WINDOW_PFN	(PHYS_PFN(BAR_START) + SKIP_BAR)
#define WINDOW_PAGES	40

/* Only the functions under test see this pagemap and this provider. */
struct exporter {
	struct pci_dev pdev;
	struct p2pdma_provider provider;
	struct iosys_map map;
	struct dev_pagemap pgmap;
};

static struct exporter *exporter(struct kunit *test)
{
	struct exporter *ex = kunit_kzalloc(test, sizeof(*ex), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, ex);
	ex->provider.owner = &ex->pdev.dev;
	ex->provider.range.start = BAR_START;
	ex->provider.range.end = BAR_START + BAR_PAGES * PAGE_SIZE - 1;
	ex->provider.bus_offset = SZ_1T;
	iosys_map_set_vaddr(&ex->map, ex);
	ex->pgmap.type = MEMORY_DEVICE_PRIVATE;
	ex->pgmap.range.start = VRAM_START;
	ex->pgmap.range.end = VRAM_START + VRAM_PAGES * PAGE_SIZE - 1;
	ex->pgmap.nr_range = 1;
	return ex;
}

static struct hmm_window window_of(struct exporter *ex)
{
	return (struct hmm_window) {
		.provider = &ex->provider,
		.phys = PFN_PHYS(WINDOW_PFN),
		.nr_pages = WINDOW_PAGES,
		.map = &ex->map,
	};
}

static struct device *client_device(struct kunit *test)
{
	struct device *dev = kunit_device_register(test, "hmm_p2pdma_kunit");

	KUNIT_ASSERT_FALSE(test, IS_ERR(dev));
	return dev;
}

/* The provider of a BAR of four pages or more, if the driver offers it. */
static struct p2pdma_provider *provider_of(struct pci_dev *pdev, int bar)
{
	struct p2pdma_provider *provider;

	if (!rcu_access_pointer(pdev->p2pdma) ||
	    pci_resource_len(pdev, bar) < 4 * PAGE_SIZE)
		return NULL;

	provider = pcim_p2pdma_provider(pdev, bar);
	return provider && provider->range.end ? provider : NULL;
}

KUNIT_DEFINE_ACTION_WRAPPER(put_device_of_bar, pci_dev_put, struct pci_dev *);

static struct pci_dev *find_bar(struct kunit *test, int *bar)
{
	struct pci_dev *pdev = NULL;

	for_each_pci_dev(pdev)
		for (*bar = 0; *bar < PCI_STD_NUM_BARS; ++*bar)
			if (provider_of(pdev, *bar))
				goto found;
	kunit_skip(test, "no PCI device offers a BAR");
found:
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, put_device_of_bar, pdev));
	return pdev;
}

static void test_window_set_checks_bar_range(struct kunit *test)
{
	struct exporter *ex = exporter(test);
	struct hmm_window *window = &ex->pgmap.window;
	int i, bar;
	struct pci_dev *pdev = find_bar(test, &bar);
	const u64 page = PAGE_SIZE, len = pci_resource_len(pdev, bar);
	const struct {
		u64 offset;
		u64 size;
		int err;
	} windows[] = {
		{ 0, len, 0 },
		{ 0, page, 0 },
		{ page, len - page, 0 },
		{ len - page, page, 0 },
		{ 0, 0, -EINVAL },
		{ len, 0, -EINVAL },
		{ 0, len + page, -EINVAL },
		{ page, len, -EINVAL },
		{ len - page, 2 * page, -EINVAL },
		{ len, page, -EINVAL },
		{ len + page, page, -EINVAL },
		{ -page, page, -EINVAL },
		{ -page, 2 * page, -EINVAL },
		{ page, -page, -EINVAL },
		{ 1, page, -EINVAL },
		{ page - 1, page, -EINVAL },
		{ 0, 1, -EINVAL },
		{ 0, page + 1, -EINVAL },
	};

	/* The memory is longer than the BAR, so that only the BAR is a limit */
	ex->pgmap.range.end = VRAM_START + 2 * len - 1;

	for (i = 0; i < ARRAY_SIZE(windows); i++) {
		u64 offset = windows[i].offset, size = windows[i].size;

		*window = (struct hmm_window) {};
		KUNIT_EXPECT_EQ_MSG(test, windows[i].err,
				    hmm_window_set(&ex->pgmap, pdev, bar,
						   offset, size),
				    "%#llx bytes at %#llx", size, offset);
		if (windows[i].err) {
			KUNIT_EXPECT_NULL(test, window->provider);
			continue;
		}
		KUNIT_EXPECT_PTR_EQ(test, provider_of(pdev, bar),
				    window->provider);
		KUNIT_EXPECT_EQ(test, pci_resource_start(pdev, bar) + offset,
				window->phys);
		KUNIT_EXPECT_EQ(test, size >> PAGE_SHIFT, window->nr_pages);
		KUNIT_EXPECT_FALSE(test, window->revoked);
	}
}

static void test_window_set_checks_pagemap(struct kunit *test)
{
	struct exporter *ex = exporter(test);
	struct dev_pagemap *pgmap = &ex->pgmap;
	int bar;
	struct pci_dev *pdev = find_bar(test, &bar);

	pgmap->range.end = VRAM_START + 2 * PAGE_SIZE - 1;
	KUNIT_EXPECT_EQ(test, 0,
			hmm_window_set(pgmap, pdev, bar, 0, 2 * PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, -EINVAL,
			hmm_window_set(pgmap, pdev, bar, 0, 3 * PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, 0,
			hmm_window_set(pgmap, pdev, bar, PAGE_SIZE, 2 * PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, -EINVAL,
			hmm_window_set(pgmap, pdev, bar, PAGE_SIZE, 3 * PAGE_SIZE));

	pgmap->nr_range = 0;
	KUNIT_EXPECT_EQ(test, -EINVAL,
			hmm_window_set(pgmap, pdev, bar, 0, PAGE_SIZE));
	pgmap->nr_range = 2;
	KUNIT_EXPECT_EQ(test, -EINVAL,
			hmm_window_set(pgmap, pdev, bar, 0, PAGE_SIZE));
	pgmap->nr_range = 1;
	pgmap->type = MEMORY_DEVICE_COHERENT;
	KUNIT_EXPECT_EQ(test, -EINVAL,
			hmm_window_set(pgmap, pdev, bar, 0, PAGE_SIZE));

	/* After an error the window that was set before is gone, too */
	KUNIT_EXPECT_NULL(test, pgmap->window.provider);
}

static void test_window_set_requires_provider(struct kunit *test)
{
	struct exporter *ex = exporter(test);
	struct pci_dev *copy = kunit_kzalloc(test, sizeof(*copy), GFP_KERNEL);
	int bar;
	struct pci_dev *pdev = find_bar(test, &bar);
	struct resource *res;

	/* Break only the copy of the pci_dev, not the real BAR */
	KUNIT_ASSERT_NOT_NULL(test, copy);
	memcpy(copy, pdev, sizeof(*copy));
	res = pci_resource_n(copy, bar);
	KUNIT_EXPECT_EQ(test, 0,
			hmm_window_set(&ex->pgmap, copy, bar, 0, PAGE_SIZE));
	ex->pgmap.window.provider = NULL;

	/* An I/O BAR is shorter than a page */
	res->flags = IORESOURCE_IO;
	res->end = res->start + 3;
	KUNIT_EXPECT_EQ(test, -ENXIO,
			hmm_window_set(&ex->pgmap, copy, bar, 0, PAGE_SIZE));
	*res = *pci_resource_n(pdev, bar);

	res->start += pci_resource_len(pdev, bar);
	res->end += pci_resource_len(pdev, bar);
	KUNIT_EXPECT_EQ(test, -ENXIO,
			hmm_window_set(&ex->pgmap, copy, bar, 0, PAGE_SIZE));
	res->start = pci_resource_start(pdev, bar);
	res->end = pci_resource_end(pdev, bar);

	copy->non_mappable_bars = true;
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
			hmm_window_set(&ex->pgmap, copy, bar, 0, PAGE_SIZE));
	KUNIT_EXPECT_NULL(test, ex->pgmap.window.provider);
}

static void test_window_set_map_checks_size(struct kunit *test)
{
	struct exporter *ex = exporter(test);
	struct dev_pagemap *pgmap = &ex->pgmap;
	struct hmm_window *window = &pgmap->window;
	const struct iosys_map *map = &ex->map, none = {};
	const u64 len = VRAM_PAGES * PAGE_SIZE;

	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_window_set_map(pgmap, &none, len));
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_window_set_map(pgmap, map, 0));
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_window_set_map(pgmap, map, len - 1));
	KUNIT_EXPECT_EQ(test, -EINVAL,
			hmm_window_set_map(pgmap, map, len + PAGE_SIZE));
	pgmap->nr_range = 2;
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_window_set_map(pgmap, map, len));
	pgmap->nr_range = 1;
	pgmap->type = MEMORY_DEVICE_COHERENT;
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_window_set_map(pgmap, map, len));
	pgmap->type = MEMORY_DEVICE_PRIVATE;
	KUNIT_EXPECT_EQ(test, 0, window->nr_pages);
	KUNIT_EXPECT_NULL(test, window->map);

	KUNIT_EXPECT_EQ(test, 0, hmm_window_set_map(pgmap, map, len));
	KUNIT_EXPECT_EQ(test, VRAM_PAGES, window->nr_pages);
	KUNIT_EXPECT_PTR_EQ(test, map, window->map);

	/* A mapping does not make the window in a BAR longer or shorter */
	*window = window_of(ex);
	window->map = NULL;
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_window_set_map(pgmap, map, len));
	KUNIT_EXPECT_EQ(test, -EINVAL,
			hmm_window_set_map(pgmap, map,
					   (WINDOW_PAGES - 1) * PAGE_SIZE));
	KUNIT_EXPECT_NULL(test, window->map);
	KUNIT_EXPECT_EQ(test, 0,
			hmm_window_set_map(pgmap, map, WINDOW_PAGES * PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, WINDOW_PAGES, window->nr_pages);
}

/* Call hmm_find_alias() as a walk does. */
static struct hmm_reach find_alias(struct exporter *ex,
				   const struct hmm_client *client,
				   unsigned long pfn)
{
	struct hmm_range range = { .client = client };
	struct hmm_reach reach = {
		.first = VRAM_PFN,
		.nr = VRAM_PAGES,
		.route = HMM_ROUTE_PRIVATE,
	};

	guard(rcu)();
	hmm_find_alias(&range, &ex->pgmap, pfn, &reach);
	return reach;
}

static void test_find_alias_maps_each_pfn(struct kunit *test)
{
	static const unsigned long sizes[] = {
		1, WINDOW_PAGES, VRAM_PAGES - 1, VRAM_PAGES
	};
	struct exporter *ex = exporter(test);
	struct hmm_client cpu = { .cpu = true };
	unsigned long i, j;

	ex->pgmap.window = window_of(ex);
	for (j = 0; j < ARRAY_SIZE(sizes); j++) {
		ex->pgmap.window.nr_pages = sizes[j];
		for (i = 0; i < VRAM_PAGES; i++) {
			struct hmm_reach reach = find_alias(ex, &cpu, VRAM_PFN + i);

			if (i >= sizes[j]) {
				KUNIT_EXPECT_EQ(test, HMM_FALLBACK_OUTSIDE_WINDOW,
						reach.route);
				KUNIT_EXPECT_EQ(test, VRAM_PFN + sizes[j],
						reach.first);
				KUNIT_EXPECT_EQ(test, VRAM_PAGES - sizes[j],
						reach.nr);
				continue;
			}
			KUNIT_EXPECT_EQ(test, HMM_ROUTE_CPU, reach.route);
			KUNIT_EXPECT_EQ(test, VRAM_PFN, reach.first);
			KUNIT_EXPECT_EQ(test, sizes[j], reach.nr);
			/* The alias for the CPU is the PFN of the page */
			KUNIT_EXPECT_EQ(test, 0, reach.delta);
			KUNIT_EXPECT_EQ(test, HMM_PFN_ALIAS, reach.flags);
		}
	}
}

/* A device that reaches all of a BAR; on some machines there is none. */
static struct pci_dev *find_peer(struct kunit *test, struct pci_dev *pdev,
				 int bar)
{
	struct pci_dev *peer = NULL;

	for_each_pci_dev(peer)
		if (peer->dev.driver && !pci_is_bridge(peer) &&
		    pci_p2pdma_range_map_type(provider_of(pdev, bar), &peer->dev,
					      pci_resource_start(pdev, bar),
					      pci_resource_len(pdev, bar)) !=
		    PCI_P2PDMA_MAP_NOT_SUPPORTED)
			break;
	if (!peer)
		kunit_skip(test, "no PCI device reaches the BAR");
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, put_device_of_bar, peer));
	return peer;
}

static void test_alias_for_dma_is_in_window(struct kunit *test)
{
	struct exporter *ex = exporter(test);
	int bar;
	struct pci_dev *pdev = find_bar(test, &bar);
	struct hmm_client client = { .dma_dev = &find_peer(test, pdev, bar)->dev };
	unsigned long pfn = PHYS_PFN(pci_resource_start(pdev, bar));
	unsigned long pages = pci_resource_len(pdev, bar) / PAGE_SIZE, i;
	struct hmm_reach reach;

	/* The memory is longer than the BAR, and the window begins at page 1 */
	ex->pgmap.range.end = VRAM_START + 2 * pci_resource_len(pdev, bar) - 1;
	KUNIT_ASSERT_EQ(test, 0,
			hmm_window_set(&ex->pgmap, pdev, bar, PAGE_SIZE,
				       (pages - 1) * PAGE_SIZE));

	for (i = 0; i < pages - 1; i += pages / 4) {
		reach = find_alias(ex, &client, VRAM_PFN + i);
		KUNIT_EXPECT_FALSE(test, hmm_route_is_fallback(reach.route));
		KUNIT_EXPECT_EQ(test, pfn + 1 + i, VRAM_PFN + i + reach.delta);
		KUNIT_EXPECT_EQ(test, HMM_PFN_ALIAS, reach.flags);
	}
	KUNIT_EXPECT_EQ(test, HMM_FALLBACK_OUTSIDE_WINDOW,
			find_alias(ex, &client, VRAM_PFN + pages - 1).route);
}

static void test_reaches_needs_whole_run_in_window(struct kunit *test)
{
	struct exporter *ex = exporter(test);
	struct hmm_client cpu = { .cpu = true };
	struct hmm_reach reach;
	unsigned long i, n;

	ex->pgmap.window = window_of(ex);
	for (i = 0; i < VRAM_PAGES; i++) {
		reach = find_alias(ex, &cpu, VRAM_PFN + i);
		for (n = 1; i + n <= VRAM_PAGES; n++)
			KUNIT_EXPECT_EQ_MSG(test, i + n <= WINDOW_PAGES,
					    hmm_reaches(&reach, VRAM_PFN + i, n),
					    "%lu pages at %lu", n, i);
	}

	reach = (struct hmm_reach) { .first = VRAM_PFN, .nr = VRAM_PAGES };
	for (reach.route = 0; reach.route < HMM_NR_ROUTES; reach.route++) {
		bool private = reach.route == HMM_ROUTE_PRIVATE;
		bool alias = reach.route == HMM_ROUTE_CPU ||
			     reach.route == HMM_ROUTE_BUS ||
			     reach.route == HMM_ROUTE_HOST_BRIDGE;

		KUNIT_EXPECT_EQ(test, private || alias,
				hmm_reaches(&reach, VRAM_PFN, VRAM_PAGES));
	}
}

static void test_find_alias_returns_fallback_reasons(struct kunit *test)
{
	struct exporter *ex = exporter(test);
	struct hmm_client cpu = { .cpu = true }, dma = { .dma_dev = client_device(test) };

	KUNIT_EXPECT_EQ(test, HMM_FALLBACK_NO_WINDOW,
			find_alias(ex, &cpu, VRAM_PFN).route);
	KUNIT_EXPECT_EQ(test, HMM_FALLBACK_NO_CLIENT,
			find_alias(ex, NULL, VRAM_PFN).route);

	ex->pgmap.window = window_of(ex);
	KUNIT_EXPECT_EQ(test, HMM_FALLBACK_NO_CLIENT,
			find_alias(ex, NULL, VRAM_PFN).route);
	KUNIT_EXPECT_EQ(test, HMM_ROUTE_CPU, find_alias(ex, &cpu, VRAM_PFN).route);
	KUNIT_EXPECT_EQ(test, HMM_FALLBACK_OUTSIDE_WINDOW,
			find_alias(ex, &cpu, VRAM_PFN + WINDOW_PAGES).route);
	KUNIT_EXPECT_EQ(test, HMM_FALLBACK_UNREACHABLE,
			find_alias(ex, &dma, VRAM_PFN).route);
	ex->pgmap.window.map = NULL;
	KUNIT_EXPECT_EQ(test, HMM_FALLBACK_UNREACHABLE,
			find_alias(ex, &cpu, VRAM_PFN).route);
	ex->pgmap.window.map = &ex->map;

	/* This window is in no BAR */
	ex->pgmap.window.provider = NULL;
	KUNIT_EXPECT_EQ(test, HMM_ROUTE_CPU, find_alias(ex, &cpu, VRAM_PFN).route);
	KUNIT_EXPECT_EQ(test, HMM_FALLBACK_UNREACHABLE,
			find_alias(ex, &dma, VRAM_PFN).route);

	/* A revoked window has no provider that could be asked */
	ex->pgmap.window.revoked = true;
	ex->pgmap.window.provider = ERR_PTR(-ENODEV);
	KUNIT_EXPECT_EQ(test, HMM_FALLBACK_REVOKED,
			find_alias(ex, &cpu, VRAM_PFN).route);
	KUNIT_EXPECT_EQ(test, HMM_FALLBACK_REVOKED,
			find_alias(ex, &dma, VRAM_PFN + WINDOW_PAGES - 1).route);
	KUNIT_EXPECT_EQ(test, HMM_FALLBACK_NO_CLIENT,
			find_alias(ex, NULL, VRAM_PFN).route);

	ex->pgmap.window.provider = &ex->provider;
	hmm_window_restore(&ex->pgmap);
	KUNIT_EXPECT_EQ(test, HMM_ROUTE_CPU, find_alias(ex, &cpu, VRAM_PFN).route);
}

/* Of the four pages of a process, this window shows three. */
#define SHOWN		3

static void expect_aliases(struct kunit *test, struct hmm_kunit *hk,
			   struct hmm_range *range, int shown)
{
	int i;

	KUNIT_EXPECT_EQ(test, 0, hmm_kunit_walk(hk, range, HMM_KUNIT_PAGES));
	for (i = 0; i < HMM_KUNIT_PAGES; i++)
		KUNIT_EXPECT_EQ(test,
				i < shown ? hmm_kunit_pfn(hk, i) |
					    HMM_PFN_ALIAS | HMM_PFN_VALID |
					    HMM_PFN_WRITE : 0,
				hk->pfns[i]);
}

static bool is_not_revoked(struct hmm_kunit *hk)
{
	return !READ_ONCE(hk->pgmap.window.revoked);
}

static void test_window_is_revoked_and_restored(struct kunit *test)
{
	struct exporter *ex = exporter(test);
	struct hmm_kunit *hk = hmm_kunit_alloc(test);
	struct hmm_client cpu = { .cpu = true };
	struct hmm_range range = { .client = &cpu };

	hk->reachable = is_not_revoked;
	hk->pgmap.window = window_of(ex);
	hk->pgmap.window.nr_pages = HMM_KUNIT_PAGE(SHOWN) - 1;
	hmm_kunit_start(test, hk);

	/* Nobody has an alias yet */
	hmm_window_revoke(&hk->pgmap);
	KUNIT_EXPECT_EQ(test, 0, hk->invalidations);
	hmm_window_restore(&hk->pgmap);

	expect_aliases(test, hk, &range, SHOWN);
	KUNIT_EXPECT_EQ(test, 0, hk->invalidations);

	hmm_window_revoke(&hk->pgmap);
	KUNIT_EXPECT_EQ(test, SHOWN, hk->invalidations);
	KUNIT_EXPECT_EQ(test, BIT(SHOWN) - 1, hk->invalidated);
	KUNIT_EXPECT_EQ(test, (int)MMU_NOTIFY_REVOKE, (int)hk->event);
	KUNIT_EXPECT_PTR_EQ(test, &hk->pgmap, hk->event_owner);
	KUNIT_EXPECT_FALSE(test, hk->was_reachable);
	KUNIT_EXPECT_TRUE(test, mmu_interval_read_retry(&hk->notifier,
							range.notifier_seq));
	expect_aliases(test, hk, &range, 0);

	/* The owner still has the pages, and a fault tries to migrate them */
	range.dev_private_owner = hk->pgmap.owner;
	hmm_kunit_expect_private(test, hk, &range, true);
	range.dev_private_owner = NULL;
	range.default_flags = HMM_PFN_REQ_FAULT;
	KUNIT_EXPECT_EQ(test, -EFAULT, hmm_kunit_walk(hk, &range, SHOWN));
	KUNIT_EXPECT_EQ(test, 1, hk->migrations);
	range.default_flags = 0;

	hmm_window_restore(&hk->pgmap);
	expect_aliases(test, hk, &range, SHOWN);
	range.default_flags = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE;
	KUNIT_EXPECT_EQ(test, 0, hmm_kunit_walk(hk, &range, SHOWN));
	KUNIT_EXPECT_EQ(test, 1, hk->migrations);
	KUNIT_EXPECT_EQ(test, SHOWN, hk->invalidations);

	hmm_window_revoke(&hk->pgmap);
	KUNIT_EXPECT_EQ(test, 2 * SHOWN, hk->invalidations);

	hmm_kunit_exit();
}

/* A device does not reach its own BAR through the fabric. */
static void test_device_is_not_its_own_peer(struct kunit *test)
{
	struct exporter *ex = exporter(test);
	int bar;
	struct pci_dev *pdev = find_bar(test, &bar);
	struct hmm_client client = { .dma_dev = &pdev->dev };

	KUNIT_EXPECT_EQ(test, PCI_P2PDMA_MAP_NOT_SUPPORTED,
			pci_p2pdma_range_map_type(provider_of(pdev, bar),
						  &pdev->dev,
						  pci_resource_start(pdev, bar),
						  PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, 0,
			hmm_window_set(&ex->pgmap, pdev, bar, 0, PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, HMM_FALLBACK_UNREACHABLE,
			find_alias(ex, &client, VRAM_PFN).route);
}

static void test_provider_is_found_by_address(struct kunit *test)
{
	int bar;
	struct pci_dev *pdev = find_bar(test, &bar);
	struct p2pdma_provider *provider = provider_of(pdev, bar);
	phys_addr_t start = pci_resource_start(pdev, bar);
	phys_addr_t end = pci_resource_end(pdev, bar);

	KUNIT_EXPECT_PTR_EQ(test, provider, pci_p2pdma_find_provider(start));
	KUNIT_EXPECT_PTR_EQ(test, provider, pci_p2pdma_find_provider(end));
	KUNIT_EXPECT_PTR_NE(test, provider, pci_p2pdma_find_provider(start - 1));
	KUNIT_EXPECT_PTR_NE(test, provider, pci_p2pdma_find_provider(end + 1));
	KUNIT_EXPECT_NULL(test, pci_p2pdma_find_provider(BAR_START));
}

static void test_alias_is_mapped_for_the_cpu(struct kunit *test)
{
	struct hmm_kunit *hk = hmm_kunit_alloc(test);
	unsigned long len = 4, i, pfn;
	void *mem = kunit_kzalloc(test, len * PAGE_SIZE, GFP_KERNEL);
	struct iosys_map window = IOSYS_MAP_INIT_VADDR(mem), page, map;

	KUNIT_ASSERT_NOT_NULL(test, mem);
	KUNIT_ASSERT_EQ(test, 0,
			hmm_window_set_map(&hk->pgmap, &window, len * PAGE_SIZE));
	hk->reachable = is_not_revoked;
	hmm_kunit_start(test, hk);

	for (i = 0; i < len; i++) {
		pfn = (PHYS_PFN(hk->pgmap.range.start) + i) | HMM_PFN_ALIAS |
		      HMM_PFN_VALID;
		page = window;
		iosys_map_incr(&page, i * PAGE_SIZE);
		iosys_map_clear(&map);
		KUNIT_EXPECT_EQ(test, 0, hmm_pfn_map_local(pfn, &map));
		KUNIT_EXPECT_TRUE_MSG(test, iosys_map_is_equal(&page, &map),
				      "page %lu", i);
		KUNIT_EXPECT_EQ(test, 0, hmm_pfn_unmap_local(pfn, &map));
	}

	hk->pgmap.window.map = NULL;
	KUNIT_EXPECT_EQ(test, -EFAULT, hmm_pfn_map_local(pfn, &map));
	KUNIT_EXPECT_TRUE(test, iosys_map_is_null(&map));

	/* This alias is for a device */
	map = window;
	KUNIT_EXPECT_EQ(test, -EFAULT,
			hmm_pfn_map_local(WINDOW_PFN | HMM_PFN_ALIAS |
					  HMM_PFN_VALID, &map));
	KUNIT_EXPECT_TRUE(test, iosys_map_is_null(&map));

	hmm_kunit_exit();
}

/* An alias for which there is no route gets no address. */
static void test_alias_is_not_mapped_for_dma(struct kunit *test)
{
	struct device *dev = client_device(test);
	int i, bar;
	struct pci_dev *pdev = find_bar(test, &bar);
	unsigned long pfn = PHYS_PFN(pci_resource_start(pdev, bar));
	unsigned long pfns[] = {
		/* The client is no PCI device */
		pfn | HMM_PFN_VALID | HMM_PFN_ALIAS,
		/* This is not an alias */
		pfn | HMM_PFN_VALID,
		/* This is in no BAR */
		WINDOW_PFN | HMM_PFN_VALID | HMM_PFN_ALIAS,
	};
	enum pci_p2pdma_map_type type;

	for (i = 0; i < ARRAY_SIZE(pfns); i++) {
		type = PCI_P2PDMA_MAP_BUS_ADDR;
		KUNIT_EXPECT_EQ(test, DMA_MAPPING_ERROR,
				hmm_alias_dma_map(dev, pfns[i], PAGE_SIZE,
						  DMA_BIDIRECTIONAL, &type));
		KUNIT_EXPECT_EQ(test, PCI_P2PDMA_MAP_NOT_SUPPORTED, type);
	}
}

static void test_alias_is_mapped_for_dma(struct kunit *test)
{
	int bar;
	struct pci_dev *pdev = find_bar(test, &bar);
	struct device *dev = &find_peer(test, pdev, bar)->dev;
	unsigned long pfn = PHYS_PFN(pci_resource_start(pdev, bar)) | HMM_PFN_VALID;
	enum pci_p2pdma_map_type type;
	dma_addr_t addr;

	addr = hmm_alias_dma_map(dev, pfn | HMM_PFN_ALIAS, 2 * PAGE_SIZE,
				 DMA_BIDIRECTIONAL, &type);
	KUNIT_ASSERT_FALSE(test, dma_mapping_error(dev, addr));
	KUNIT_EXPECT_NE(test, PCI_P2PDMA_MAP_NOT_SUPPORTED, type);
	hmm_alias_dma_unmap(dev, addr, 2 * PAGE_SIZE, DMA_BIDIRECTIONAL, type);

	/* This is not an alias */
	KUNIT_EXPECT_EQ(test, DMA_MAPPING_ERROR,
			hmm_alias_dma_map(dev, pfn, PAGE_SIZE,
					  DMA_BIDIRECTIONAL, &type));
	KUNIT_EXPECT_EQ(test, PCI_P2PDMA_MAP_NOT_SUPPORTED, type);
}

/* The map state of one BAR does not apply to other BARs. */
static void test_p2pdma_map_state_covers_one_bar(struct kunit *test)
{
	static const struct {
		long page;
		bool inside;
	} entries[] = {
		{ 0, true },
		{ 1, true },
		{ BAR_PAGES - 1, true },
		{ -1, false },
		{ BAR_PAGES, false },
	};
	struct exporter *ex = exporter(test);
	struct device *dev = client_device(test);
	int i;

	for (i = 0; i < ARRAY_SIZE(entries); i++) {
		phys_addr_t phys = BAR_START + entries[i].page * PAGE_SIZE;
		unsigned long pfn = PHYS_PFN(phys) | HMM_PFN_VALID | HMM_PFN_ALIAS;
		struct hmm_dma_map map = {
			.pfn_list = &pfn, .dma_entry_size = PAGE_SIZE,
		};
		struct pci_p2pdma_map_state state = {
			.mem = &ex->provider, .map = PCI_P2PDMA_MAP_BUS_ADDR,
		};
		bool inside = entries[i].inside;

		KUNIT_EXPECT_EQ(test, inside ? phys + SZ_1T : DMA_MAPPING_ERROR,
				hmm_dma_map_pfn(dev, &map, 0, &state));
		KUNIT_EXPECT_PTR_EQ(test, inside ? &ex->provider : NULL,
				    state.mem);
		KUNIT_EXPECT_EQ(test, inside, !!(pfn & HMM_PFN_DMA_MAPPED));
		KUNIT_EXPECT_EQ(test, inside, hmm_dma_unmap_pfn(dev, &map, 0));
	}
}

/* An entry is unmapped as it was mapped, even if the route has changed. */
static void test_dma_map_pfn_keeps_existing_mapping(struct kunit *test)
{
	static const enum pci_p2pdma_map_type types[] = {
		PCI_P2PDMA_MAP_BUS_ADDR,
		PCI_P2PDMA_MAP_THRU_HOST_BRIDGE,
		PCI_P2PDMA_MAP_NOT_SUPPORTED,
	};
	struct exporter *ex = exporter(test);
	struct device *dev = client_device(test);
	unsigned long pfn = WINDOW_PFN | HMM_PFN_VALID | HMM_PFN_ALIAS;
	struct hmm_dma_map map = { .pfn_list = &pfn, .dma_entry_size = PAGE_SIZE };
	struct pci_p2pdma_map_state state = { .mem = &ex->provider };
	int i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		state.map = types[i];
		KUNIT_EXPECT_EQ(test, PFN_PHYS(WINDOW_PFN) + SZ_1T,
				hmm_dma_map_pfn(dev, &map, 0, &state));
		KUNIT_EXPECT_TRUE(test, pfn & HMM_PFN_DMA_MAPPED);
		KUNIT_EXPECT_TRUE(test, pfn & HMM_PFN_P2PDMA_BUS);
		KUNIT_EXPECT_FALSE(test, pfn & HMM_PFN_P2PDMA);
	}

	KUNIT_EXPECT_TRUE(test, hmm_dma_unmap_pfn(dev, &map, 0));
	KUNIT_EXPECT_EQ(test, WINDOW_PFN | HMM_PFN_VALID | HMM_PFN_ALIAS, pfn);
	KUNIT_EXPECT_FALSE(test, hmm_dma_unmap_pfn(dev, &map, 0));
}

/* dma_can_map_mmio() refuses what dma_map_phys() refuses, and no more. */
static void test_dma_can_map_mmio_checks_limits(struct kunit *test)
{
	struct device *dev = client_device(test);
	static const struct bus_dma_region regions[] = {
		{ .cpu_start = BAR_START, .dma_start = SZ_1G, .size = SZ_1M },
		{ .cpu_start = BAR_START + SZ_1M, .dma_start = SZ_2G, .size = SZ_1M },
		{ }
	};
	struct io_tlb_mem *tlb;
	u64 mask = DMA_BIT_MASK(64);

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

	/*
	 * The bus addresses in dma_range_map are below the bus limit. But some
	 * addresses are not in dma_range_map.
	 */
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
	KUNIT_CASE(test_window_set_checks_bar_range),
	KUNIT_CASE(test_window_set_checks_pagemap),
	KUNIT_CASE(test_window_set_requires_provider),
	KUNIT_CASE(test_window_set_map_checks_size),
	KUNIT_CASE(test_find_alias_maps_each_pfn),
	KUNIT_CASE(test_alias_for_dma_is_in_window),
	KUNIT_CASE(test_reaches_needs_whole_run_in_window),
	KUNIT_CASE(test_find_alias_returns_fallback_reasons),
	KUNIT_CASE(test_window_is_revoked_and_restored),
	KUNIT_CASE(test_device_is_not_its_own_peer),
	KUNIT_CASE(test_provider_is_found_by_address),
	KUNIT_CASE(test_alias_is_mapped_for_the_cpu),
	KUNIT_CASE(test_alias_is_not_mapped_for_dma),
	KUNIT_CASE(test_alias_is_mapped_for_dma),
	KUNIT_CASE(test_p2pdma_map_state_covers_one_bar),
	KUNIT_CASE(test_dma_map_pfn_keeps_existing_mapping),
	KUNIT_CASE(test_dma_can_map_mmio_checks_limits),
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
