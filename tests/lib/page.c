// SPDX-License-Identifier: GPL-2.0
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "page.h"
#include "size.h"

size_t pages_with_bit(const void *addr, size_t size, unsigned int bit)
{
	off_t pos = (uintptr_t)addr / PAGE * sizeof(uint64_t);
	off_t end = pos + size / PAGE * sizeof(uint64_t);
	int fd = open("/proc/self/pagemap", O_RDONLY);
	size_t pages = 0;
	uint64_t bits;

	for (; pos < end; pos += sizeof(bits)) {
		if (pread(fd, &bits, sizeof(bits), pos) != sizeof(bits))
			abort();
		pages += bits >> bit & 1;
	}
	close(fd);

	return pages;
}

bool page_is_present(const void *addr)
{
	return pages_with_bit(addr, PAGE, 63);
}

bool page_is_elsewhere(const void *addr)
{
	return pages_with_bit(addr, PAGE, 62);
}
