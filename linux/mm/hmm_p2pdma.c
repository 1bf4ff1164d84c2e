// SPDX-License-Identifier: GPL-2.0
/*
 * Find the alias of a device-private page, and whether a client reaches it.
 *
 * A page table walk of mm/hmm.c comes here for device-private pages that its
 * caller does not reach privately. The answer needs no reference: it is good
 * until the interval notifier of the caller fires. Before an alias changes its
 * meaning, the exporter fires all notifiers of the page: by migrating the page,
 * or by hmm_window_revoke().
 */
#include <kunit/visibility.h>
#include <linux/cc_platform.h>
#include <linux/export.h>
#include <linux/hmm_p2pdma.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>

#include "hmm_internal.h"

DEFINE_STATIC_KEY_TRUE(hmm_p2pdma_key);

/**
 * hmm_window_set() - declare where device-private memory shows up on the bus
 * @pgmap: a pagemap of type MEMORY_DEVICE_PRIVATE with one range, which is set
 * @pdev: the PCI device, bound to the calling driver
 * @bar: the BAR through which the memory can be accessed
 * @offset: offset of the first page into the BAR, in bytes. The other pages
 *	follow in order
 * @size: length of the window in bytes. It may be shorter than the memory (a
 *	small BAR): pages beyond it have no alias
 *
 * From memremap_pages() on, hmm_range_fault() may hand out the pages of @pgmap
 * as aliases. The window stays as it is until the pagemap is gone, but the
 * exporter can forbid its use: see hmm_window_revoke().
 *
 * To let importers copy with the CPU, the exporter calls hmm_window_set_map()
 * as well. For importers that need struct pages, it calls
 * pci_p2pdma_add_resource() for the window, and then allocates all of that
 * memory with pci_alloc_p2pmem(), so that user space cannot allocate it.
 *
 * Context: May sleep. Before memremap_pages().
 * Return: 0 on success, or an error, with which the driver can go on: its pages
 * then migrate to system memory when another device wants them.
 *
 * -EINVAL: @pgmap is of another kind; the window is empty, not page aligned, or
 *	longer than the memory; or it reaches beyond the BAR.
 * -ENXIO: the BAR is no memory, or cannot be found by its address.
 * -EOPNOTSUPP: the memory of the guest is encrypted, so that devices cannot be
 *	trusted to reach each other; the BARs cannot be mapped; or the kernel
 *	was built without CONFIG_HMM_P2PDMA.
 * -ENOMEM: out of memory.
 */
int hmm_window_set(struct dev_pagemap *pgmap, struct pci_dev *pdev, int bar,
		   u64 offset, u64 size)
{
	struct p2pdma_provider *provider;
	phys_addr_t phys;
	int err;

	pgmap->window = (struct hmm_window) {};
	if (cc_platform_has(CC_ATTR_GUEST_MEM_ENCRYPT))
		return -EOPNOTSUPP;
	if (!(pci_resource_flags(pdev, bar) & IORESOURCE_MEM))
		return -ENXIO;
	if (pgmap->type != MEMORY_DEVICE_PRIVATE || pgmap->nr_range != 1 ||
	    !size || !PAGE_ALIGNED(offset | size) ||
	    size > range_len(&pgmap->range) ||
	    offset > pci_resource_len(pdev, bar) ||
	    size > pci_resource_len(pdev, bar) - offset)
		return -EINVAL;

	phys = pci_resource_start(pdev, bar) + offset;
	if (!PAGE_ALIGNED(phys))
		return -EINVAL;

	err = pcim_p2pdma_init(pdev);
	if (err)
		return err;

	/* An alias leads back to the provider by its address */
	provider = pcim_p2pdma_provider(pdev, bar);
	if (!provider || pci_p2pdma_find_provider(phys) != provider)
		return -ENXIO;

	pgmap->window = (struct hmm_window) {
		.provider = provider,
		.phys = phys,
		.nr_pages = size >> PAGE_SHIFT,
	};
	return 0;
}
EXPORT_SYMBOL_GPL(hmm_window_set);

/**
 * hmm_window_set_map() - let importers copy device-private memory with the CPU
 * @pgmap: a pagemap of type MEMORY_DEVICE_PRIVATE with one range, which is set
 * @map: a kernel mapping of the memory, from its first page on. It stays as it
 *	is until the pagemap is gone, or the window is revoked
 * @size: length of the mapping in bytes, not longer than the memory. If
 *	hmm_window_set() has set a window, the mapping is as long as that
 *
 * Without a window that hmm_window_set() has set, only importers that copy with
 * the CPU get aliases.
 *
 * Context: Any. After hmm_window_set(), before memremap_pages().
 * Return: 0 on success, or an error, with which the driver can go on.
 *
 * -EINVAL: @pgmap is of another kind, @map is NULL, or @size is not as above.
 * -EOPNOTSUPP: the kernel was built without CONFIG_HMM_P2PDMA.
 */
int hmm_window_set_map(struct dev_pagemap *pgmap, const struct iosys_map *map,
		       u64 size)
{
	struct hmm_window *window = &pgmap->window;

	if (pgmap->type != MEMORY_DEVICE_PRIVATE || pgmap->nr_range != 1 ||
	    iosys_map_is_null(map) || !size || !PAGE_ALIGNED(size) ||
	    size > range_len(&pgmap->range) ||
	    (window->provider && size >> PAGE_SHIFT != window->nr_pages))
		return -EINVAL;

	if (!window->provider)
		*window = (struct hmm_window) {};
	window->map = map;
	window->nr_pages = size >> PAGE_SHIFT;
	return 0;
}
EXPORT_SYMBOL_GPL(hmm_window_set_map);

/**
 * hmm_window_revoke() - forbid the use of a window
 * @pgmap: a pagemap; it is fine if it has no window
 *
 * For an exporter that cannot migrate its pages first, or whose pages stay in
 * use: before a reset, or suspend. Every exporter calls this before the device
 * goes away, unless it has called memunmap_pages() by then. The pages stay where
 * they are. When this returns, no importer uses an alias of them, or gets one,
 * until hmm_window_restore(). Devices with the same &dev_pagemap.owner need no
 * alias: if they reach the pages through the BAR, the driver stops that itself.
 * The device may then stop decoding its BAR, and the BAR and its mapping may be
 * removed.
 *
 * Context: May sleep. Serialized with hmm_window_restore(), after
 * memremap_pages() and before memunmap_pages(). Takes the locks of the pages, and
 * calls all notifiers of the processes that have them mapped. Some wait until a
 * device has done what a process has asked for. The caller must not hold a page
 * lock, or a lock that a notifier or &dev_pagemap_ops.folio_free takes. A
 * thread that holds the lock of one of the pages must not wait for the caller.
 * So call this before migrations have to wait, for example for the end of a
 * reset. During the call, migration of the pages may fail. The event is
 * %MMU_NOTIFY_REVOKE, which the device of @pgmap can ignore. If aliases have
 * been given out, there is one invalidation for each folio in use and each
 * process that has it mapped.
 */
void hmm_window_revoke(struct dev_pagemap *pgmap)
{
	struct hmm_window *window = &pgmap->window;

	might_sleep();

	if (!window->nr_pages || window->revoked)
		return;

	WRITE_ONCE(window->revoked, true);
	synchronize_rcu();
	if (!READ_ONCE(window->used))
		return;

	hmm_invalidate_private(pgmap, window->nr_pages);
	window->used = false;
}
EXPORT_SYMBOL_GPL(hmm_window_revoke);

/**
 * hmm_window_restore() - undo hmm_window_revoke()
 * @pgmap: the pagemap; the device decodes its BAR again, at the same address
 *
 * If there are several reasons to revoke the window, such as a reset during
 * suspend, the driver calls this when the last one is gone.
 *
 * Context: Any in which calls of hmm_window_revoke() are kept out.
 */
void hmm_window_restore(struct dev_pagemap *pgmap)
{
	/*
	 * Pairs with smp_load_acquire() in hmm_find_alias(): a walk that sees
	 * the window restored also sees the current mapping of the BAR.
	 */
	smp_store_release(&pgmap->window.revoked, false);
}
EXPORT_SYMBOL_GPL(hmm_window_restore);

static enum hmm_route hmm_window_route(const struct hmm_window *window,
				       const struct hmm_client *client)
{
	if (client->cpu)
		return window->map ? HMM_ROUTE_CPU : HMM_FALLBACK_UNREACHABLE;
	if (!window->provider || WARN_ON_ONCE(!client->dma_dev))
		return HMM_FALLBACK_UNREACHABLE;

	switch (pci_p2pdma_range_map_type(window->provider, client->dma_dev,
					  window->phys,
					  PFN_PHYS(window->nr_pages))) {
	case PCI_P2PDMA_MAP_BUS_ADDR:
		return HMM_ROUTE_BUS;
	case PCI_P2PDMA_MAP_THRU_HOST_BRIDGE:
		return HMM_ROUTE_HOST_BRIDGE;
	default:
		return HMM_FALLBACK_UNREACHABLE;
	}
}

/*
 * Find out how the client of a walk reaches a device-private page. @reach holds
 * the range of @pgmap, and is narrowed to pages to which the answer applies.
 *
 * Under rcu_read_lock(), taken before the page table entry was read. Without it
 * neither @pgmap nor, in a window that is not revoked, the provider exists.
 */
void hmm_find_alias(const struct hmm_range *range,
		    struct dev_pagemap *pgmap, unsigned long pfn,
		    struct hmm_reach *reach)
{
	struct hmm_window *window = &pgmap->window;

	if (!hmm_wants_alias(range)) {
		reach->route = HMM_FALLBACK_NO_CLIENT;
	} else if (!window->nr_pages) {
		reach->route = HMM_FALLBACK_NO_WINDOW;
	/* Pairs with smp_store_release() in hmm_window_restore() */
	} else if (smp_load_acquire(&window->revoked)) {
		reach->route = HMM_FALLBACK_REVOKED;
	} else if (pfn - reach->first >= window->nr_pages) {
		reach->route = HMM_FALLBACK_OUTSIDE_WINDOW;
		reach->first += window->nr_pages;
		reach->nr -= window->nr_pages;
	} else {
		reach->route = hmm_window_route(window, range->client);
		reach->nr = window->nr_pages;
		/* For the CPU, the PFN of the page itself leads to the mapping */
		if (reach->route != HMM_ROUTE_CPU)
			reach->delta = PHYS_PFN(window->phys) - reach->first;
		reach->flags = HMM_PFN_ALIAS;
		/* Do not write to a cache line that all walks read */
		if (!hmm_route_is_fallback(reach->route) &&
		    !READ_ONCE(window->used))
			WRITE_ONCE(window->used, true);
	}
}
EXPORT_SYMBOL_IF_KUNIT(hmm_find_alias);
