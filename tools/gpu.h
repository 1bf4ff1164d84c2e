/* SPDX-License-Identifier: GPL-2.0 */
/* Thin wrappers of a vsvm GPU's ioctls. They return 0 or a negative errno. */
#ifndef GPU_H
#define GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <drm/vsvm_drm.h>

/* Open GPU @index, in the order of PCI addresses. Returns a file descriptor. */
int gpu_open(unsigned int index);

/* Open the GPU that has a PCI address. */
int gpu_open_at(const char *pci);

/* The PCI address of an open GPU, such as 0000:03:00.0. */
int gpu_pci_address(int gpu, char *buf, size_t size);

int gpu_info(int gpu, struct drm_vsvm_info *info);
int gpu_counters(int gpu, struct drm_vsvm_counters *counters);
int gpu_residency(int gpu, const void *addr, size_t size,
		  struct drm_vsvm_residency *where);

/* @pages: how many pages are in VRAM afterwards; may be NULL. */
int gpu_to_vram(int gpu, void *addr, size_t size, uint64_t *pages);
int gpu_to_ram(int gpu, void *addr, size_t size);

int gpu_fill(int gpu, void *addr, size_t size, uint64_t value);
int gpu_xor(int gpu, void *addr, size_t size, uint64_t value);
int gpu_sum(int gpu, const void *addr, size_t size, uint64_t *sum);
int gpu_copy(int gpu, void *dst, const void *src, size_t size);

/*
 * Private links between all GPUs, such as "0-1,1>2": 0 and 1 reach the memory
 * of each other, and 1 reaches the memory of 2. Indices are those of gpu_open(),
 * as long as all GPUs of the machine have this driver.
 */
int gpu_links_get(char *links, size_t size);
int gpu_links_set(const char *links);
bool gpu_links_have(const char *links, unsigned int from, unsigned int to);

#endif
