// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "buffer.h"
#include "gpu.h"
#include "vram.h"

uint64_t pages_in_vram(int gpu, const void *addr, size_t size)
{
	struct drm_vsvm_residency where;

	return gpu_residency(gpu, addr, size, &where) ? ~0ULL : where.vram;
}

uint64_t huge_pages_in_vram(int gpu, const void *addr, size_t size)
{
	struct drm_vsvm_residency where;

	return gpu_residency(gpu, addr, size, &where) ? ~0ULL : where.huge;
}

uint64_t pages_touched_in_vram(const int *gpu, const void *addr, size_t size)
{
	size_t before = (uintptr_t)addr % PAGE;
	const uint8_t *first = (const uint8_t *)addr - before;

	size = (before + size + PAGE - 1) / PAGE * PAGE;
	return pages_in_vram(gpu[0], first, size) +
	       pages_in_vram(gpu[1], first, size);
}

uint64_t chunks_touched_in_vram(const int *gpu, const void *addr, size_t size)
{
	const uint8_t *pos = addr, *end = pos + size, *next;
	uint64_t chunks = 0;

	for (; pos < end; pos = next) {
		next = pos + HUGE_PAGE - (uintptr_t)pos % HUGE_PAGE;
		if (next > end)
			next = end;
		chunks += pages_touched_in_vram(gpu, pos, next - pos) != 0;
	}

	return chunks;
}

uint64_t pages_in_reach(int gpu, const void *addr, size_t size)
{
	struct drm_vsvm_residency where;

	return gpu_residency(gpu, addr, size, &where) ? ~0ULL : where.peer;
}

uint64_t pages_evicted(int gpu)
{
	struct drm_vsvm_counters counters;

	return gpu_counters(gpu, &counters) ? ~0ULL : counters.pages_to_ram;
}

uint64_t vram_free(int gpu)
{
	struct drm_vsvm_counters counters;

	return gpu_counters(gpu, &counters) ? ~0ULL : counters.vram_free;
}

uint64_t vram_leaked(int gpu, uint64_t expected)
{
	struct drm_vsvm_counters counters;
	int tries = 100;

	/* Address spaces go away some time after their last process. */
	while (tries--) {
		if (gpu_counters(gpu, &counters))
			return ~0ULL;
		if (counters.vram_free >= expected)
			return 0;
		usleep(50000);
	}

	return expected - counters.vram_free;
}

int gpus_open(int gpu[2], uint64_t room[2])
{
	int i;

	for (i = 0; i < 2; i++) {
		gpu[i] = gpu_open(i);
		if (gpu[i] < 0)
			return gpu[i];
		room[i] = vram_free(gpu[i]);
	}
	return 0;
}

uint64_t gpus_close(const int gpu[2], const uint64_t room[2])
{
	uint64_t leaked = 0;
	int i;

	for (i = 0; i < 2; i++) {
		leaked += vram_leaked(gpu[i], room[i]);
		close(gpu[i]);
	}
	return leaked;
}

int vram_fill(int gpu, struct buffer *all, int advice)
{
	struct drm_vsvm_info info;
	uint64_t pages;
	int err;

	err = gpu_info(gpu, &info);
	if (!err)
		err = buffer_map(all, info.vram_size, advice);
	if (!err && madvise(all->mem, all->size, MADV_POPULATE_WRITE))
		err = -errno;
	if (!err)
		err = gpu_to_vram(gpu, all->mem, all->size, &pages);
	return err || pages == all->size / PAGE ? err : -ENOSPC;
}
