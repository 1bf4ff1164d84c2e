/* SPDX-License-Identifier: GPL-2.0 */
/* Sizes of memory. */
#ifndef LIB_SIZE_H
#define LIB_SIZE_H

#include <stddef.h>

#define KIB(n)		((size_t)(n) << 10)
#define MIB(n)		((size_t)(n) << 20)
#define PAGE		KIB(4)
#define HUGE_PAGE	MIB(2)
#define HUGE_PAGE_NR	(HUGE_PAGE / PAGE)

#define ARRAY_LEN(a)	(sizeof(a) / sizeof((a)[0]))

#endif
