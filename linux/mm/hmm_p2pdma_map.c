// SPDX-License-Identifier: GPL-2.0
/* Functions that map aliases, for the CPU and for DMA. */
#include <linux/dma-mapping.h>
#include <linux/export.h>
#include <linux/hmm_p2pdma.h>
#include <linux/mm.h>
#include <linux/pci-p2pdma.h>

#include "hmm_p2pdma_stats.h"

/**
 * hmm_alias_to_iosys_map() - the kernel mapping of an alias
 * @hmm_pfn: an entry with HMM_PFN_ALIAS set
 * @map: where the mapping goes
 *
 * Most importers want hmm_pfn_map_local(), which takes system memory as well.
 *
 * Context: Any; the lock that makes the entry valid is held, and the mapping is
 * good for as long as the entry is. @map is cleared if @hmm_pfn is not a valid
 * alias, or if the exporter has no kernel mapping.
 */
void hmm_alias_to_iosys_map(unsigned long hmm_pfn, struct iosys_map *map)
{
	phys_addr_t phys = hmm_pfn_to_phys(hmm_pfn);
	struct p2pdma_provider *provider = pci_p2pdma_find_provider(phys);

	if (!provider || iosys_map_is_null(&provider->map)) {
		iosys_map_clear(map);
		return;
	}

	*map = provider->map;
	iosys_map_incr(map, phys - provider->range.start);
}
EXPORT_SYMBOL_GPL(hmm_alias_to_iosys_map);

/**
 * hmm_alias_dma_map() - map contiguous aliases for DMA, in one piece
 * @dev: the device of the client that the entries were resolved for
 * @hmm_pfn: the first entry, with HMM_PFN_ALIAS set
 * @size: in bytes. Aliases with an order, see hmm_pfn_to_map_order(), are in a
 *	block of 2^order contiguous aliases, which is aligned to its size
 * @dir: direction of the DMA
 * @type: the kind of mapping is stored here, for hmm_alias_dma_unmap()
 *
 * For importers that keep their own addresses, in pieces larger than a page.
 * Those with a &struct hmm_dma_map use hmm_dma_map_pfn().
 *
 * Context: Any; the lock that makes the entries valid is held, and they are
 * unmapped before they are not valid any more.
 * Return: the DMA address; check it with dma_mapping_error(). It is an error if
 * @hmm_pfn is not a valid alias, if @dev does not reach it, or if resources are
 * short.
 */
dma_addr_t hmm_alias_dma_map(struct device *dev, unsigned long hmm_pfn,
			     size_t size, enum dma_data_direction dir,
			     enum pci_p2pdma_map_type *type)
{
	phys_addr_t phys = hmm_pfn_to_phys(hmm_pfn);
	struct p2pdma_provider *provider = pci_p2pdma_find_provider(phys);
	dma_addr_t addr;

	*type = PCI_P2PDMA_MAP_NOT_SUPPORTED;
	if (!hmm_pfn_is_alias(hmm_pfn) || !provider)
		return DMA_MAPPING_ERROR;

	*type = pci_p2pdma_range_map_type(provider, dev, phys, size);
	switch (*type) {
	case PCI_P2PDMA_MAP_BUS_ADDR:
		addr = pci_p2pdma_bus_addr_map(provider, phys);
		break;
	case PCI_P2PDMA_MAP_THRU_HOST_BRIDGE:
		addr = dma_map_phys(dev, phys, size, dir, DMA_ATTR_MMIO);
		if (dma_mapping_error(dev, addr))
			return DMA_MAPPING_ERROR;
		break;
	default:
		return DMA_MAPPING_ERROR;
	}

	hmm_count_dma(size >> PAGE_SHIFT, true);
	return addr;
}
EXPORT_SYMBOL_GPL(hmm_alias_dma_map);

/**
 * hmm_alias_dma_unmap() - undo hmm_alias_dma_map()
 * @dev: the device of the mapping
 * @addr: the address that hmm_alias_dma_map() returned
 * @size: the size of the mapping, in bytes
 * @dir: the direction of the mapping
 * @type: the kind of mapping that hmm_alias_dma_map() stored
 *
 * Context: Any.
 */
void hmm_alias_dma_unmap(struct device *dev, dma_addr_t addr, size_t size,
			 enum dma_data_direction dir,
			 enum pci_p2pdma_map_type type)
{
	if (type == PCI_P2PDMA_MAP_THRU_HOST_BRIDGE)
		dma_unmap_phys(dev, addr, size, dir, DMA_ATTR_MMIO);
	hmm_count_dma(size >> PAGE_SHIFT, false);
}
EXPORT_SYMBOL_GPL(hmm_alias_dma_unmap);
