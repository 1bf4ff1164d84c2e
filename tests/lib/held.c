// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include "held.h"
#include "patience.h"

int held_map(struct held *held, size_t size)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int err = 0;

	memset(held, 0, sizeof(*held));
	held->mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (held->mem == MAP_FAILED) {
		held->mem = NULL;
		return -ENOMEM;
	}
	held->size = size;

	range.range.start = (uintptr_t)held->mem;
	range.range.len = size;
	held->uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (held->uffd < 0 || madvise(held->mem, size, MADV_NOHUGEPAGE) ||
	    ioctl(held->uffd, UFFDIO_API, &api) ||
	    ioctl(held->uffd, UFFDIO_REGISTER, &range)) {
		err = -errno;
		held_unmap(held);
	}
	return err;
}

int held_wait(struct held *held, void **addr)
{
	struct pollfd pfd = { .fd = held->uffd, .events = POLLIN };
	struct uffd_msg msg;

	if (poll(&pfd, 1, 30000 * slowness()) != 1)
		return -ETIMEDOUT;
	if (read(held->uffd, &msg, sizeof(msg)) != sizeof(msg) ||
	    msg.event != UFFD_EVENT_PAGEFAULT)
		return -EIO;
	if (addr)
		*addr = (void *)(uintptr_t)msg.arg.pagefault.address;
	return 0;
}

int held_release(struct held *held)
{
	int err = held->uffd < 0 || !close(held->uffd) ? 0 : -errno;

	held->uffd = -1;
	return err;
}

void held_unmap(struct held *held)
{
	if (!held->mem)
		return;
	held_release(held);
	munmap(held->mem, held->size);
	held->mem = NULL;
}
