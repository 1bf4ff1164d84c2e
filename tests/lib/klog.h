/* SPDX-License-Identifier: GPL-2.0 */
/* The kernel's log. */
#ifndef LIB_KLOG_H
#define LIB_KLOG_H

#include <stdbool.h>
#include <stddef.h>

/* Open the log at its end. The caller close()s it. */
int klog_open(void);

/* Read the next line; false if there is none yet. */
bool klog_line(int fd, char *line, size_t size);

/* Does the line report DMA that the IOMMU has stopped, or suppressed reports of it? */
bool klog_is_fault(const char *line);

/* Returns how often the IOMMU has stopped DMA since the last call. */
unsigned int klog_faults(int fd);

#endif
