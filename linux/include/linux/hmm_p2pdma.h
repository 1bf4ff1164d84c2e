/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Peer-to-peer access to device-private memory.
 *
 * An exporter, the driver behind a device-private pagemap, declares a window:
 * the piece of a PCI BAR through which its memory can be reached. An importer
 * names itself in &struct hmm_range.client and gets alias entries, which lead to
 * the window, from hmm_range_fault() instead of a migration.
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

#ifdef CONFIG_HMM_P2PDMA
int hmm_window_set(struct dev_pagemap *pgmap, struct pci_dev *pdev, int bar,
		   u64 offset, u64 size);
int hmm_window_set_map(struct dev_pagemap *pgmap, const struct iosys_map *map,
		       u64 size);
void hmm_window_revoke(struct dev_pagemap *pgmap);
void hmm_window_restore(struct dev_pagemap *pgmap);
void hmm_alias_to_iosys_map(unsigned long hmm_pfn, struct iosys_map *map);
int hmm_alias_sync(unsigned long hmm_pfn, struct iosys_map *map);
dma_addr_t hmm_alias_dma_map(struct device *dev, unsigned long hmm_pfn,
			     size_t size, enum dma_data_direction dir,
			     enum pci_p2pdma_map_type *type);
void hmm_alias_dma_unmap(struct device *dev, dma_addr_t addr, size_t size,
			 enum dma_data_direction dir,
			 enum pci_p2pdma_map_type type);
#else
static inline int hmm_window_set(struct dev_pagemap *pgmap,
				 struct pci_dev *pdev, int bar, u64 offset,
				 u64 size)
{
	return -EOPNOTSUPP;
}

static inline int hmm_window_set_map(struct dev_pagemap *pgmap,
				     const struct iosys_map *map, u64 size)
{
	return -EOPNOTSUPP;
}

static inline void hmm_window_revoke(struct dev_pagemap *pgmap)
{
}

static inline void hmm_window_restore(struct dev_pagemap *pgmap)
{
}

static inline void hmm_alias_to_iosys_map(unsigned long hmm_pfn,
					  struct iosys_map *map)
{
	iosys_map_clear(map);
}

static inline int hmm_alias_sync(unsigned long hmm_pfn, struct iosys_map *map)
{
	return -EIO;
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
 * For importers that copy with the CPU, see &struct hmm_client.
 *
 * Context: Any; the lock that makes the entry valid (the one that the interval
 * notifier's invalidate callback takes) is held until hmm_pfn_unmap_local().
 * As with kmap_local_page() mappings nest and belong to the current thread.
 * Return: 0 on success. -EFAULT if the CPU cannot reach the alias; @map is
 * cleared then. A client that copies with the CPU never gets such an alias.
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
 * Writes have reached the memory when this returns 0: all other users see them.
 * So an importer that serializes its accesses, as atomic operations do, unmaps
 * before it unlocks.
 *
 * Context: As hmm_pfn_map_local().
 * Return: 0, or -EIO if the device that has the memory no longer answers: do not
 * use what was read, and report writes as failed.
 */
static inline int __must_check hmm_pfn_unmap_local(unsigned long hmm_pfn,
						   struct iosys_map *map)
{
	if (hmm_pfn_is_alias(hmm_pfn))
		return hmm_alias_sync(hmm_pfn, map);

	kunmap_local(map->vaddr);
	return 0;
}

#endif /* _LINUX_HMM_P2PDMA_H */
