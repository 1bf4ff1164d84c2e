// SPDX-License-Identifier: GPL-2.0
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "page.h"
#include "size.h"

static uint64_t page_bits(const void *addr)
{
	off_t pos = (uintptr_t)addr / PAGE * sizeof(uint64_t);
	uint64_t bits = 0;
	int fd;

	fd = open("/proc/self/pagemap", O_RDONLY);
	if (fd < 0 || pread(fd, &bits, sizeof(bits), pos) != sizeof(bits))
		abort();
	close(fd);

	return bits;
}

bool page_is_present(const void *addr)
{
	return page_bits(addr) >> 63;
}

bool page_is_elsewhere(const void *addr)
{
	return page_bits(addr) >> 62 & 1;
}
