/* SPDX-License-Identifier: GPL-2.0 */
/* Pages that are swapped out, and swap space that is slow. */
#ifndef LIB_SWAP_H
#define LIB_SWAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reclaim pages: they are in the swap cache or on disk then. -EBUSY: some stay. */
int pages_out(uint8_t *mem, size_t size);

/* Swap a page out to disk, not only to the swap cache. It must not be all zeroes. */
int page_swap_out(volatile uint8_t *page);

/*
 * Delay reads of swap space until swap_sleep(false). The first read, which QEMU does
 * not delay, is done here.
 */
int swap_sleep(bool sleep);

#endif
