// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "buffer.h"
#include "gpu.h"
#include "patience.h"

/* Odd, with bits set throughout, so that all products differ and no byte is constant. */
#define MIX	0x9e3779b97f4a7c15ULL

static uint64_t new_seed(void)
{
	static uint64_t calls;

	return (++calls << 40) ^ ((uint64_t)getpid() << 24);
}

int buffer_map(struct buffer *buf, size_t size, int advice)
{
	size_t room = size + HUGE_PAGE, head;
	uint8_t *mem;

	mem = mmap(NULL, room, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return -errno;

	head = -(uintptr_t)mem % HUGE_PAGE;
	if (head)
		munmap(mem, head);
	munmap(mem + head + size, room - head - size);

	buf->mem = mem + head;
	buf->size = size;
	buf->shadow = calloc(1, size);
	if (!buf->shadow || madvise(buf->mem, size, advice)) {
		buffer_unmap(buf);
		return -ENOMEM;
	}

	return 0;
}

void buffer_unmap(struct buffer *buf)
{
	if (buf->mem)
		munmap(buf->mem, buf->size);
	free(buf->shadow);
	memset(buf, 0, sizeof(*buf));
}

void *secret_map(size_t size)
{
	int fd = syscall(SYS_memfd_secret, O_CLOEXEC);
	void *mem = MAP_FAILED;

	if (fd >= 0 && !ftruncate(fd, size))
		mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return mem == MAP_FAILED ? NULL : mem;
}

void buffer_write(struct buffer *buf, size_t offset, size_t size)
{
	uint64_t seed = new_seed(), word;
	size_t pos, len;

	for (pos = 0; pos < size; pos += len) {
		len = size - pos < sizeof(word) ? size - pos : sizeof(word);
		word = (seed + offset + pos) * MIX;
		memcpy(buf->shadow + offset + pos, &word, len);
	}
	memcpy(buf->mem + offset, buf->shadow + offset, size);
}

int buffer_xor(struct buffer *buf, int gpu, size_t offset, size_t size)
{
	uint64_t *words = (uint64_t *)(buf->shadow + offset);
	uint64_t key = (new_seed() + 1) * MIX;
	size_t i;
	int err;

	err = gpu_xor(gpu, buf->mem + offset, size, key);
	if (err)
		return err;

	for (i = 0; i < size / sizeof(*words); i++)
		words[i] ^= key;
	return 0;
}

int buffer_to_vram(struct buffer *buf, int gpu, size_t offset, size_t size)
{
	int tries = slowness() > 1 ? 5 : 1, err;
	uint64_t pages;

	/* A page with an extra reference cannot migrate; a slow kernel holds it longer */
	do {
		err = gpu_to_vram(gpu, buf->mem + offset, size, &pages);
		if (err)
			return err;
		if (pages == size / PAGE)
			return buffer_xor(buf, gpu, offset, size);
		dprintf(STDOUT_FILENO, "# %lu of %zu pages are in VRAM\n", pages, size / PAGE);
		usleep(20000);
	} while (--tries);

	return -ENOSPC;
}

ssize_t differs(const void *a, const void *b, size_t size)
{
	const uint8_t *p = a, *q = b;
	size_t i;

	if (!memcmp(a, b, size))
		return -1;

	for (i = 0; p[i] == q[i]; i++)
		if (i == size - 1)
			return size;	/* it changed during the comparison */
	return i;
}

ssize_t buffer_differs(const struct buffer *buf)
{
	return differs(buf->mem, buf->shadow, buf->size);
}

int buffer_compare(void *buf)
{
	return buffer_differs(buf) != -1;
}

ssize_t buffer_differs_on_gpu(const struct buffer *buf, int gpu)
{
	size_t pos, i;

	for (pos = 0; pos < buf->size; pos += PAGE) {
		const uint64_t *words = (uint64_t *)(buf->shadow + pos);
		uint64_t sum, want = 0;

		for (i = 0; i < PAGE / sizeof(*words); i++)
			want += words[i];
		if (gpu_sum(gpu, buf->mem + pos, PAGE, &sum) || sum != want)
			return pos;
	}

	return -1;
}
