/* SPDX-License-Identifier: GPL-2.0 */
/* /dev/hmm_cost: an importer that reports the cost of the kernel's work. */
#ifndef HMM_COST_H
#define HMM_COST_H

#include <linux/ioctl.h>
#include <linux/types.h>

/*
 * @HMM_COST_CLIENT: name a client, which copies with the CPU
 * @HMM_COST_DMA: map the range for the edu device, which is the device of the
 *	client if there is one; then unmap the range from the process, which
 *	invalidates it
 */
#define HMM_COST_CLIENT	(1 << 0)
#define HMM_COST_DMA	(1 << 1)

/**
 * struct hmm_cost_run - resolve a range for writing, and measure the cost
 * @addr: start, in the calling process, page aligned
 * @size: length in bytes, page aligned
 * @flags: HMM_COST_*
 * @pad: zero
 * @owner_pfn: a device-private page that belongs to the importer's owner, or 0
 * @fault: out: ticks that hmm_range_fault() took
 * @map: out: ticks of hmm_dma_map_pfn(), for all pages
 * @unmap: out: ticks of the importer's part of the invalidation
 * @aliases: out: entries that are aliases
 * @private: out: entries that are device-private pages
 * @huge: out: entries that are part of a huge page
 * @bus: out: entries that were mapped by bus address
 */
struct hmm_cost_run {
	__u64 addr;
	__u64 size;
	__u32 flags;
	__u32 pad;
	__u64 owner_pfn;
	__u64 fault;
	__u64 map;
	__u64 unmap;
	__u64 aliases;
	__u64 private;
	__u64 huge;
	__u64 bus;
};

#define HMM_COST_RUN		_IOWR('H', 0x40, struct hmm_cost_run)

#endif
