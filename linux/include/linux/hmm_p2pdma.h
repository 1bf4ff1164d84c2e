/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Peer-to-peer access to device-private memory.
 *
 * An exporter, the driver behind a device-private pagemap, declares a window:
 * the piece of a PCI BAR through which its memory can be reached. An importer
 * names itself in &struct hmm_range.client and gets alias entries (physical
 * addresses inside a window) from hmm_range_fault() instead of a migration.
 *
 * See Documentation/mm/hmm_p2pdma.rst.
 */
#ifndef _LINUX_HMM_P2PDMA_H
#define _LINUX_HMM_P2PDMA_H

#include <linux/dma-mapping.h>
#include <linux/err.h>
#include <linux/highmem.h>
#include <linux/hmm.h>
#include <linux/iosys-map.h>
#include <linux/pci-p2pdma.h>
#include <linux/types.h>

struct dev_pagemap;
struct hmm_p2pdma_stats;
struct page;

/**
 * struct hmm_window - the piece of a PCI BAR that shows device-private memory
 * @provider: the BAR, as pcim_p2pdma_provider() returns it
 * @phys: physical address of the window, page aligned
 * @nr_pages: length of the window in pages
 * @first_pfn: for a linear window, the private PFN that shows up at @phys; the
 *	PFNs that follow show up in order. Not used if @get_alias is set.
 * @map: kernel mapping of the whole window, for importers that copy with the
 *	CPU; they cannot reach the window where it is not set
 * @get_alias: for memory that is not mapped linearly: find the place of
 *	@nr_pages pages, beginning with @page, in the window. Returns 0 and the
 *	physical address in @phys, or a negative errno where these pages have
 *	no alias that is contiguous. Called under rcu_read_lock() and without a
 *	reference on @page, so that it must not sleep, nor look at anything
 *	whose lifetime is the page's. Before an address that was returned may
 *	change its meaning the exporter invalidates it, by migrating the pages
 *	or through the mmu notifiers of their users.
 *
 * A window may cover only part of the memory (a small BAR): pages outside have
 * no alias. Importers that need a struct page are served if the exporter has
 * called pci_p2pdma_add_resource() for all of the window before. It has then
 * allocated all of it, too, with pci_alloc_p2pmem(), so that nobody else can.
 *
 * The exporter fills in the structure and keeps it, unchanged, from
 * hmm_window_register() until hmm_window_unregister() has returned.
 */
struct hmm_window {
	struct p2pdma_provider *provider;
	phys_addr_t phys;
	unsigned long nr_pages;
	unsigned long first_pfn;
	struct iosys_map map;
	int (*get_alias)(struct hmm_window *window, struct page *page,
			 unsigned long nr_pages, phys_addr_t *phys);

	/* private: of mm/hmm_p2pdma.c */
	struct dev_pagemap *pgmap;
	bool has_pages;
	struct hmm_p2pdma_stats __percpu *stats;
};

#ifdef CONFIG_HMM_P2PDMA
int hmm_window_register(struct dev_pagemap *pgmap, struct hmm_window *window);
void hmm_window_unregister(struct dev_pagemap *pgmap);
struct p2pdma_provider *hmm_pfn_to_provider(unsigned long hmm_pfn);
void hmm_alias_to_iosys_map(unsigned long hmm_pfn, struct iosys_map *map);
dma_addr_t hmm_alias_dma_map(struct device *dev, unsigned long hmm_pfn,
			     size_t size, enum dma_data_direction dir,
			     enum pci_p2pdma_map_type *type);
void hmm_alias_dma_unmap(struct device *dev, dma_addr_t addr, size_t size,
			 enum dma_data_direction dir,
			 enum pci_p2pdma_map_type type);
#else
static inline int hmm_window_register(struct dev_pagemap *pgmap,
				      struct hmm_window *window)
{
	return -EOPNOTSUPP;
}

static inline void hmm_window_unregister(struct dev_pagemap *pgmap)
{
}

static inline struct p2pdma_provider *hmm_pfn_to_provider(unsigned long hmm_pfn)
{
	return NULL;
}

static inline void hmm_alias_to_iosys_map(unsigned long hmm_pfn,
					  struct iosys_map *map)
{
	iosys_map_clear(map);
}

static inline dma_addr_t hmm_alias_dma_map(struct device *dev,
					   unsigned long hmm_pfn, size_t size,
					   enum dma_data_direction dir,
					   enum pci_p2pdma_map_type *type)
{
	return DMA_MAPPING_ERROR;
}

static inline void hmm_alias_dma_unmap(struct device *dev, dma_addr_t addr,
				       size_t size, enum dma_data_direction dir,
				       enum pci_p2pdma_map_type type)
{
}
#endif

/**
 * hmm_pfn_map_local() - map one page of a valid HMM entry for the CPU
 * @hmm_pfn: an entry with HMM_PFN_VALID set, of system memory or an alias
 * @map: where the mapping goes; it covers PAGE_SIZE bytes
 *
 * For importers that copy with the CPU, that is, whose &struct hmm_client has
 * no DMA device.
 *
 * Context: Any; the lock that makes the entry valid (the one that the interval
 * notifier's invalidate callback takes) is held until hmm_pfn_unmap_local().
 * As with kmap_local_page() mappings nest and belong to the current thread.
 * Return: 0 on success. -EFAULT if @hmm_pfn is an alias that the CPU cannot reach,
 * which no client without a DMA device is given; @map is cleared then.
 */
static inline int hmm_pfn_map_local(unsigned long hmm_pfn,
				    struct iosys_map *map)
{
	if (hmm_pfn_is_alias(hmm_pfn)) {
		hmm_alias_to_iosys_map(hmm_pfn, map);
		return iosys_map_is_null(map) ? -EFAULT : 0;
	}

	iosys_map_set_vaddr(map, kmap_local_page(hmm_pfn_to_page(hmm_pfn)));
	return 0;
}

/**
 * hmm_pfn_unmap_local() - undo hmm_pfn_map_local()
 * @hmm_pfn: the entry that was mapped
 * @map: the mapping
 *
 * What was written is on its way when this returns: it arrives before anything that
 * is written afterwards, by this CPU or by one that is told by it. So an importer
 * that serializes its accesses, as atomic operations do, unmaps before it unlocks.
 *
 * Context: As hmm_pfn_map_local().
 */
static inline void hmm_pfn_unmap_local(unsigned long hmm_pfn,
				       struct iosys_map *map)
{
	if (hmm_pfn_is_alias(hmm_pfn))
		wmb();	/* the mapping of a window may be write-combined */
	else
		kunmap_local(map->vaddr);
}

#endif /* _LINUX_HMM_P2PDMA_H */
