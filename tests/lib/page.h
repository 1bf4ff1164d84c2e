/* SPDX-License-Identifier: GPL-2.0 */
/* The state of a page in /proc/self/pagemap. */
#ifndef LIB_PAGE_H
#define LIB_PAGE_H

#include <stdbool.h>

/* It is in RAM, or in swap space or a device. */
bool page_is_present(const void *addr);
bool page_is_elsewhere(const void *addr);

#endif
