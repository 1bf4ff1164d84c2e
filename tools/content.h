/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Contents of buffers, in plain C: the CPU repeats what the GPU and the peer do
 * to their buffers, to check the data. Sizes are multiples of 8.
 */
#ifndef CONTENT_H
#define CONTENT_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE	32

/* Fill a buffer with a file, repeated to its size. 0 or a negative errno. */
int content_load(const char *file, void *buf, size_t size);

void content_xor(void *buf, size_t size, uint64_t value);
uint64_t content_sum(const void *buf, size_t size);

/* Fill a buffer with words that count up from @value. */
void content_pattern(void *buf, size_t size, uint64_t value);

void content_sha256(const void *buf, size_t size,
		    unsigned char digest[SHA256_SIZE]);

#endif
