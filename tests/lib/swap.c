// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include "disk.h"
#include "page.h"
#include "size.h"
#include "swap.h"

/*
 * Reclaim may not take a recently used page at once. A new page is still on a list of
 * the CPU that touched it first, and only madvise() on that CPU drains the list.
 */
int pages_out(uint8_t *mem, size_t size)
{
	int tries = 0, cpus = sysconf(_SC_NPROCESSORS_ONLN);
	cpu_set_t home, one;
	size_t at = 0;

	if (sched_getaffinity(0, sizeof(home), &home))
		return -errno;
	while (at < size && tries < 50) {
		if (page_is_elsewhere(mem + at)) {
			at += PAGE;
			continue;
		}
		CPU_ZERO(&one);
		CPU_SET(tries % cpus, &one);
		sched_setaffinity(0, sizeof(one), &one);
		madvise(mem, size, MADV_PAGEOUT);
		if (!page_is_elsewhere(mem + at) && ++tries % cpus == 0)
			usleep(20000);
	}
	sched_setaffinity(0, sizeof(home), &home);

	return at < size ? -EBUSY : 0;
}

int page_swap_out(volatile uint8_t *page)
{
	unsigned char cached;
	int tries, err;

	for (tries = 0; tries < 100; tries++) {
		err = pages_out((uint8_t *)page, PAGE);
		if (err)
			return err;
		if (mincore((void *)page, PAGE, &cached))
			return -errno;
		if (!(cached & 1))
			return 0;
		/* In the swap cache only. Soon it is on disk and clean: try again */
		usleep(5000);
		(void)*page;
	}
	return -EBUSY;
}

int swap_sleep(bool sleep)
{
	volatile uint8_t *page;
	int fd, err;

	if (!sleep)
		return disk_throttle("swap", 0);

	/* No page is read ahead with another one */
	fd = open("/proc/sys/vm/page-cluster", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1)
		return -EIO;
	close(fd);

	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return -ENOMEM;
	page[1] = 1;
	err = page_swap_out(page);
	if (!err)
		err = disk_throttle("swap", 1);
	if (!err)
		(void)page[0];
	munmap((void *)page, 4096);
	return err;
}
