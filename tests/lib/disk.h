/* SPDX-License-Identifier: GPL-2.0 */
/* The NVMe disk, and hmm_blk, which transfers between a disk and memory. */
#ifndef LIB_DISK_H
#define LIB_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Wait until an NVMe disk exists. Returns a file descriptor of it. */
int disk_open(void);

/* Transfer through hmm_blk, from the disk to memory, or from memory with @write. */
int disk_transfer(int blk, int disk, void *mem, uint64_t pos, size_t size, bool write);

/* Delay all reads of a disk but the first; zero: stop delaying. */
int disk_throttle(const char *drive, unsigned int bytes_per_second);

#endif
