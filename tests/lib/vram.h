/* SPDX-License-Identifier: GPL-2.0 */
/* Which pages are in the VRAM of a GPU, and how much of it is free. */
#ifndef LIB_VRAM_H
#define LIB_VRAM_H

#include <stddef.h>
#include <stdint.h>

struct buffer;

/* Numbers of pages, from gpu_residency(); ~0 on errors. */
uint64_t pages_in_vram(int gpu, const void *addr, size_t size);
uint64_t huge_pages_in_vram(int gpu, const void *addr, size_t size);

/* Pages in VRAM of either GPU that a range touches; the range need not be aligned. */
uint64_t pages_touched_in_vram(const int *gpu, const void *addr, size_t size);

/* Allocations of 2 MiB in VRAM of either GPU that a range touches. */
uint64_t chunks_touched_in_vram(const int *gpu, const void *addr, size_t size);

/* Pages in the memory of other GPUs that this GPU reaches over PCI; ~0 on errors. */
uint64_t pages_in_reach(int gpu, const void *addr, size_t size);

/* How many pages the GPU has moved to RAM since it was probed; ~0 on errors. */
uint64_t pages_evicted(int gpu);

/* Free VRAM in bytes; ~0 on errors. */
uint64_t vram_free(int gpu);
/* Wait some seconds until @expected bytes are free. Returns how many are missing. */
uint64_t vram_leaked(int gpu, uint64_t expected);

/* Open GPUs 0 and 1. gpus_close() returns how many bytes of VRAM are not free again. */
int gpus_open(int gpu[2], uint64_t room[2]);
uint64_t gpus_close(const int gpu[2], const uint64_t room[2]);

/* Take all of VRAM for a buffer; -ENOSPC if not all was free. */
int vram_fill(int gpu, struct buffer *all, int advice);

#endif
