/* SPDX-License-Identifier: GPL-2.0 */
/* The kernel's log. */
#ifndef LIB_KLOG_H
#define LIB_KLOG_H

#include <stdbool.h>
#include <stddef.h>

/* Open it, to read it from here on; close() it. */
int log_open(void);

/* Read the next line; false if there is none yet. */
bool log_line(int fd, char *line, size_t size);

/* Does the line report DMA that the IOMMU has stopped, or suppressed reports of it? */
bool log_is_fault(const char *line);

/* Returns how often the IOMMU has stopped DMA since the last call. */
unsigned int log_faults(int fd);

#endif
