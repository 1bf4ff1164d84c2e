// SPDX-License-Identifier: GPL-2.0
/* Functions that map aliases, for the CPU and for DMA. */
#include <linux/dma-mapping.h>
#include <linux/export.h>
#include <linux/hmm_p2pdma.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>

#include "hmm_p2pdma_stats.h"
#include "internal.h"

/**
 * hmm_alias_to_iosys_map() - the kernel mapping of an alias
 * @hmm_pfn: an entry with HMM_PFN_ALIAS set, of a client that copies with the
 *	CPU
 * @map: where the mapping goes
 *
 * Most importers want hmm_pfn_map_local(), which takes system memory as well.
 *
 * Context: Any; the lock that makes the entry valid is held, and the mapping is
 * good for as long as the entry is. @map is cleared if @hmm_pfn is an alias for
 * another kind of client.
 */
void hmm_alias_to_iosys_map(unsigned long hmm_pfn, struct iosys_map *map)
{
	unsigned long pfn = hmm_pfn & ~HMM_PFN_FLAGS;
	/* The entry is valid, so the page is in use and keeps the pagemap */
	struct dev_pagemap *pgmap = find_dev_pagemap(pfn);

	if (!pgmap || !pgmap->window.map) {
		iosys_map_clear(map);
		return;
	}

	*map = *pgmap->window.map;
	iosys_map_incr(map, PFN_PHYS(pfn) - pgmap->range.start);
}
EXPORT_SYMBOL_GPL(hmm_alias_to_iosys_map);

static bool is_decoding_bars(struct pci_dev *pdev)
{
	u16 command;

	/* A VF has no bit of its own that enables its BARs */
	if (pdev->is_virtfn)
		return pci_device_is_present(pdev);

	return !pci_read_config_word(pdev, PCI_COMMAND, &command) &&
	       !PCI_POSSIBLE_ERROR(command) && command & PCI_COMMAND_MEMORY;
}

/**
 * hmm_alias_sync() - wait for accesses of the CPU to an alias
 * @hmm_pfn: the entry, as for hmm_alias_to_iosys_map()
 * @map: its mapping
 *
 * Most importers want hmm_pfn_unmap_local(), which takes system memory as well.
 *
 * Context: Any; the lock that makes the entry valid is held.
 * Return: 0 if the accesses have reached the memory. -EIO if the device no
 * longer answers, because it has been pulled, for example: nothing that was read
 * counts, and writes may be lost.
 */
int hmm_alias_sync(unsigned long hmm_pfn, struct iosys_map *map)
{
	struct dev_pagemap *pgmap = find_dev_pagemap(hmm_pfn & ~HMM_PFN_FLAGS);
	u64 word;

	/* The mapping may be write-combined: end what the caller has begun */
	mb();

	/*
	 * Writes are posted: read. A device that is gone reads as ones, or in a
	 * guest of QEMU as zeroes.
	 */
	word = iosys_map_rd(map, 0, u64);
	if ((word && word != U64_MAX) || !pgmap->window.provider ||
	    is_decoding_bars(to_pci_dev(pgmap->window.provider->owner)))
		return 0;

	return -EIO;
}
EXPORT_SYMBOL_GPL(hmm_alias_sync);

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
