/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory under test, with a shadow of it on the heap. The shadow never migrates, so that
 * no check relies on the code that it checks. Functions return 0 or a negative errno,
 * unless their comment says otherwise.
 */
#ifndef LIB_BUFFER_H
#define LIB_BUFFER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "size.h"

/* Anonymous memory, aligned to huge pages, and its expected content. */
struct buffer {
	uint8_t *mem;
	uint8_t *shadow;
	size_t size;
};

/* @advice is MADV_HUGEPAGE or MADV_NOHUGEPAGE. Nothing is populated. */
int buffer_map(struct buffer *buf, size_t size, int advice);
void buffer_unmap(struct buffer *buf);

/* Map memory of memfd_secret(), and munmap() it later; NULL on errors. */
void *secret_map(size_t size);

/* Write words to memory and shadow, with the CPU. Each call writes different words. */
void buffer_write(struct buffer *buf, size_t offset, size_t size);

/*
 * Move a part to VRAM, and let the GPU change each word there: apart from the
 * shadow, only VRAM has ever held the new content. Fails with -ENOSPC if some pages
 * do not migrate. Aligned to pages.
 */
int buffer_to_vram(struct buffer *buf, int gpu, size_t offset, size_t size);

/* Let the GPU change each word, wherever the memory is. Aligned to words. */
int buffer_xor(struct buffer *buf, int gpu, size_t offset, size_t size);

/* Return the offset of the first difference; -1 if there is none. Both use the CPU. */
ssize_t differs(const void *a, const void *b, size_t size);
ssize_t buffer_differs(const struct buffer *buf);
/* As buffer_differs(), for child_fork(): 1 if there is a difference, else 0. */
int buffer_compare(void *buf);

/* As buffer_differs(), but the GPU reads each page in place. Returns the offset of a page. */
ssize_t buffer_differs_on_gpu(const struct buffer *buf, int gpu);

#endif
