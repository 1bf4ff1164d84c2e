/* SPDX-License-Identifier: GPL-2.0 */
/* The state of pages in /proc/self/pagemap. */
#ifndef LIB_PAGE_H
#define LIB_PAGE_H

#include <stdbool.h>
#include <stddef.h>

/* The page is in RAM; the page is in swap space or in a device. */
bool page_is_present(const void *addr);
bool page_is_elsewhere(const void *addr);

/* The number of pages of a range whose entries have this bit set. */
size_t pages_with_bit(const void *addr, size_t size, unsigned int bit);

#endif
