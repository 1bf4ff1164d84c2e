// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "content.h"

int content_load(const char *file, void *buf, size_t size)
{
	FILE *in = fopen(file, "r");
	size_t got, len;
	int err = 0;

	if (!in)
		return -errno;

	got = fread(buf, 1, size, in);
	if (ferror(in))
		err = -EIO;
	else if (!got)
		err = -ENODATA;
	fclose(in);
	if (err)
		return err;

	/* Each copy doubles the filled part of the buffer */
	for (; got < size; got += len) {
		len = size - got < got ? size - got : got;
		memcpy((char *)buf + got, buf, len);
	}

	return 0;
}

void content_xor(void *buf, size_t size, uint64_t value)
{
	uint64_t *word = buf, *end = word + size / sizeof(*word);

	while (word < end)
		*word++ ^= value;
}

uint64_t content_sum(const void *buf, size_t size)
{
	const uint64_t *word = buf, *end = word + size / sizeof(*word);
	uint64_t sum = 0;

	while (word < end)
		sum += *word++;
	return sum;
}

void content_pattern(void *buf, size_t size, uint64_t value)
{
	uint64_t *word = buf, *end = word + size / sizeof(*word);

	while (word < end)
		*word++ = value++;
}

void content_sha256(const void *buf, size_t size,
		    unsigned char digest[SHA256_SIZE])
{
	/* This fails only without memory */
	if (!EVP_Digest(buf, size, digest, NULL, EVP_sha256(), NULL))
		abort();
}
