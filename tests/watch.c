// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's reports about memory must not depend on where it is. A GPU and a peer
 * access memory in VRAM. Features that wait for accesses, count them, or merge,
 * reclaim or dump pages work as they do in RAM.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpu.h"
#include "measure.h"
#include "test_hmm_uapi.h"
#include "lib/child.h"
#include "lib/file.h"
#include "lib/harness.h"
#include "lib/page.h"
#include "lib/rig.h"
#include "lib/stats.h"
#include "lib/swap.h"
#include "lib/vram.h"

#define SIZE	HUGE_PAGE
#define PAGES	(SIZE / PAGE)

/* The part that is accessed. */
#define PART		KIB(64)
#define PART_PAGES	(PART / PAGE)

static size_t soft_dirty(const void *mem, size_t size)
{
	return pages_with_bit(mem, size, 55);
}

static int soft_dirty_clear(void)
{
	return file_write("/proc/self/clear_refs", "4");
}

/* Pages of a range in a category; ~0 on errors. Write-protects them if @protect. */
static size_t scan(const void *mem, size_t size, uint64_t category, bool protect)
{
	int fd = open("/proc/self/pagemap", O_RDONLY), i, found;
	struct page_region regions[PAGES];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = protect ? PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC : 0,
		.start = (uintptr_t)mem,
		.end = (uintptr_t)mem + size,
		.vec = (uintptr_t)regions,
		.vec_len = PAGES,
		.category_mask = category,
		.return_mask = category,
	};
	size_t pages = 0;

	found = ioctl(fd, PAGEMAP_SCAN, &arg);
	close(fd);
	if (found < 0)
		return ~0;
	for (i = 0; i < found; i++)
		pages += (regions[i].end - regions[i].start) / PAGE;

	return pages;
}

/* A userfaultfd over memory, and a thread that resolves each fault. */
struct watcher {
	int fd;
	bool rwp;
	bool wp;
	useconds_t delay;
	uint8_t *mem;
	pthread_t thread;
	volatile int events;
	volatile uint64_t flags;
};

static int watcher_open(struct watcher *watcher, void *mem, uint64_t features,
			uint64_t mode)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)mem, .len = SIZE },
		.mode = mode,
	};

	*watcher = (struct watcher){
		.fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK),
		.rwp = mode & UFFDIO_REGISTER_MODE_RWP,
		.wp = mode & UFFDIO_REGISTER_MODE_WP,
		.mem = mem,
	};
	if (watcher->fd < 0 || ioctl(watcher->fd, UFFDIO_API, &api) ||
	    ioctl(watcher->fd, UFFDIO_REGISTER, &reg))
		return -errno;

	return 0;
}

/* Accesses cause no event, but are recorded for PAGEMAP_SCAN. */
static int watcher_open_async(struct watcher *watcher, uint8_t *mem)
{
	return watcher_open(watcher, mem, UFFD_FEATURE_RWP | UFFD_FEATURE_RWP_ASYNC,
			    UFFDIO_REGISTER_MODE_RWP);
}

static int watcher_protect(struct watcher *watcher, void *mem, size_t size, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = (uintptr_t)mem, .len = size },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};
	struct uffdio_rwprotect rwp = {
		.range = { .start = (uintptr_t)mem, .len = size },
		.mode = on ? UFFDIO_RWPROTECT_MODE_RWP : 0,
	};
	int err;

	err = watcher->rwp ? ioctl(watcher->fd, UFFDIO_RWPROTECT, &rwp) :
			     ioctl(watcher->fd, UFFDIO_WRITEPROTECT, &wp);
	return err ? -errno : 0;
}

static void *watcher_main(void *arg)
{
	struct watcher *watcher = arg;
	struct pollfd poll_fd = { .fd = watcher->fd, .events = POLLIN };
	struct uffd_msg msg;

	for (;;) {
		if (poll(&poll_fd, 1, -1) < 0 ||
		    read(watcher->fd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		usleep(watcher->delay);
		watcher->flags = msg.arg.pagefault.flags;
		watcher->events++;
		if (watcher->flags & (UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_RWP)) {
			watcher_protect(watcher,
					(void *)(uintptr_t)(msg.arg.pagefault.address & -PAGE),
					PAGE, false);
		} else {
			static const uint8_t zeroes[PAGE];
			struct uffdio_copy copy = {
				.dst = msg.arg.pagefault.address & -PAGE,
				.src = (uintptr_t)zeroes,
				.len = PAGE,
				.mode = watcher->wp ? UFFDIO_COPY_MODE_WP : 0,
			};

			ioctl(watcher->fd, UFFDIO_COPY, &copy);
		}
	}
	return NULL;
}

static int watcher_start(struct watcher *watcher)
{
	return -pthread_create(&watcher->thread, NULL, watcher_main, watcher);
}

static void watcher_close(struct watcher *watcher)
{
	if (watcher->thread) {
		pthread_cancel(watcher->thread);
		pthread_join(watcher->thread, NULL);
	}
	close(watcher->fd);
}

/* A value of the area in /proc/PID/smaps, in KiB; ~0 if there is none. */
static size_t smaps(pid_t pid, const void *mem, const char *key)
{
	unsigned long start, end;
	size_t value = ~0, kib;
	bool here = false;
	char line[256];
	FILE *file;

	snprintf(line, sizeof(line), "/proc/%d/smaps", pid);
	file = fopen(line, "r");
	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start <= (uintptr_t)mem && (uintptr_t)mem < end;
		else if (here && !strncmp(line, key, strlen(key)) &&
			 sscanf(line + strlen(key), ": %zu", &kib) == 1)
			value = kib;
	}
	if (file)
		fclose(file);

	return value;
}

FIXTURE(watch) {
	struct rig rig;
};

FIXTURE_VARIANT(watch) {
	int advice;
	bool off;
};

FIXTURE_VARIANT_ADD(watch, pages) {
	.advice = MADV_NOHUGEPAGE,
};

FIXTURE_VARIANT_ADD(watch, huge) {
	.advice = MADV_HUGEPAGE,
};

FIXTURE_VARIANT_ADD(watch, pages_off) {
	.advice = MADV_NOHUGEPAGE,
	.off = true,
};

FIXTURE_VARIANT_ADD(watch, huge_off) {
	.advice = MADV_HUGEPAGE,
	.off = true,
};

FIXTURE_SETUP(watch)
{
	ASSERT_EQ(0, rig_init_in_vram(&self->rig, SIZE, variant->advice));
	ASSERT_EQ(0, aliases_enable(!variant->off));
}

FIXTURE_TEARDOWN(watch)
{
	EXPECT_EQ(0, rig_fini(&self->rig));
}

/* All operations of a GPU that do not write. They must not count as writes. */
static int gpu_reads(struct rig *rig)
{
	uint8_t *mem = rig->buf.mem;
	uint64_t sum;

	memcpy(rig->ram.shadow, rig->buf.shadow, SIZE);
	return gpu_sum(rig->gpu, mem, SIZE, &sum) ?:
	       gpu_copy(rig->gpu, rig->ram.mem, mem, SIZE) ?:
	       gpu_to_vram(rig->gpu, mem, SIZE, NULL) ?:
	       buffer_differs(&rig->ram) != -1;
}

/* Soft-dirty */

TEST_F(watch, soft_dirty_sees_the_gpu_write)
{
	struct rig *rig = &self->rig;
	uint8_t *mem = rig->buf.mem;

	EXPECT_EQ(PAGES, soft_dirty(mem, SIZE));
	ASSERT_EQ(0, soft_dirty_clear());
	EXPECT_EQ(0, soft_dirty(mem, SIZE));
	ASSERT_EQ(0, gpu_reads(rig));
	EXPECT_EQ(0, soft_dirty(mem, SIZE));
	ASSERT_EQ(0, buffer_xor(&rig->buf, rig->gpu, 0, PART));
	EXPECT_EQ(PART_PAGES, soft_dirty(mem, PART));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
	EXPECT_EQ(PART_PAGES, soft_dirty(mem, PART));
}

TEST_F(watch, soft_dirty_sees_a_peer_write)
{
	struct rig *rig = &self->rig;
	uint8_t *mem = rig->buf.mem;

	/* Also through the pages that the peer has resolved before. */
	ASSERT_EQ(0, rig_write_new(rig, 0, SIZE));
	ASSERT_EQ(0, soft_dirty_clear());
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_EQ(0, soft_dirty(mem, SIZE));
	ASSERT_EQ(0, rig_write_new(rig, 0, PART));
	ASSERT_EQ(0, rig_add(rig, PART, 1));
	EXPECT_EQ(PART_PAGES + 1, soft_dirty(mem, PART + PAGE));
	EXPECT_EQ(-1, rig_differs(rig));
}

static int all_soft_dirty(void *arg)
{
	return soft_dirty(arg, SIZE) == PAGES ? 0 : -EINVAL;
}

TEST_F(watch, soft_dirty_survives_fork_and_mprotect)
{
	struct rig *rig = &self->rig;
	uint8_t *mem = rig->buf.mem;
	struct child child;

	ASSERT_EQ(0, soft_dirty_clear());
	ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
	ASSERT_EQ(0, gpu_to_vram(rig->gpu, mem, SIZE, NULL));
	EXPECT_EQ(PAGES, soft_dirty(mem, SIZE));
	ASSERT_EQ(0, mprotect(mem, SIZE, PROT_READ));
	EXPECT_EQ(PAGES, soft_dirty(mem, SIZE));
	ASSERT_EQ(0, mprotect(mem, SIZE, PROT_READ | PROT_WRITE));

	/* Writable again. Only a migration makes the entries writable. */
	ASSERT_EQ(0, gpu_to_ram(rig->gpu, mem, SIZE));
	buffer_write(&rig->buf, 0, SIZE);
	ASSERT_EQ(0, gpu_to_vram(rig->gpu, mem, SIZE, NULL));
	ASSERT_EQ(0, child_fork(&child, all_soft_dirty, mem));
	EXPECT_EQ(0, child_do(&child));
	EXPECT_EQ(PAGES, soft_dirty(mem, SIZE));
	EXPECT_EQ(0, child_end(&child));
}

TEST_F(watch, soft_dirty_is_set_by_mremap)
{
	/* mremap() marks no pages when it moves a page table as a whole. */
	size_t size = variant->advice == MADV_HUGEPAGE ? SIZE : SIZE - PAGE;
	struct rig *rig = &self->rig;
	uint8_t *mem = rig->buf.mem;
	struct buffer target;

	ASSERT_EQ(0, buffer_map(&target, SIZE, variant->advice));
	ASSERT_EQ(0, soft_dirty_clear());
	ASSERT_EQ(target.mem, mremap(mem, size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
				     target.mem));
	EXPECT_EQ(size / PAGE, soft_dirty(target.mem, size));
	EXPECT_EQ(size / PAGE, pages_in_vram(rig->gpu, target.mem, size));
	EXPECT_EQ(-1, differs(target.mem, rig->buf.shadow, size));
	buffer_unmap(&target);
}

TEST_F(watch, soft_dirty_sees_pages_populated_in_vram)
{
	struct rig *rig = &self->rig;
	struct buffer fresh;
	uint64_t pages;

	ASSERT_EQ(0, buffer_map(&fresh, SIZE, variant->advice));
	ASSERT_EQ(0, soft_dirty_clear());
	ASSERT_EQ(0, gpu_to_vram(rig->gpu, fresh.mem, SIZE, &pages));
	ASSERT_EQ(PAGES, pages);
	ASSERT_EQ(0, buffer_xor(&fresh, rig->gpu, 0, PART));
	EXPECT_EQ(PART_PAGES, soft_dirty(fresh.mem, PART));
	EXPECT_EQ(-1, buffer_differs(&fresh));
	buffer_unmap(&fresh);
}

/* PAGEMAP_SCAN with asynchronous write protection */

static int scan_start(struct watcher *watcher, void *mem)
{
	return watcher_open(watcher, mem,
			    UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED,
			    UFFDIO_REGISTER_MODE_WP);
}

TEST_F(watch, pagemap_scan_sees_the_gpu_write)
{
	struct rig *rig = &self->rig;
	uint8_t *mem = rig->buf.mem;
	struct watcher watcher;

	ASSERT_EQ(0, scan_start(&watcher, mem));
	EXPECT_EQ(PAGES, scan(mem, SIZE, PAGE_IS_WRITTEN, true));
	EXPECT_EQ(0, scan(mem, SIZE, PAGE_IS_WRITTEN, true));
	ASSERT_EQ(0, gpu_reads(rig));
	EXPECT_EQ(0, scan(mem, SIZE, PAGE_IS_WRITTEN, false));
	EXPECT_EQ(PAGES, pages_in_vram(rig->gpu, mem, SIZE));
	ASSERT_EQ(0, buffer_xor(&rig->buf, rig->gpu, 0, PART));
	EXPECT_EQ(PART_PAGES, scan(mem, PART, PAGE_IS_WRITTEN, false));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
	EXPECT_EQ(PART_PAGES, scan(mem, PART, PAGE_IS_WRITTEN, false));
	watcher_close(&watcher);
}

TEST_F(watch, pagemap_scan_sees_a_peer_write)
{
	struct rig *rig = &self->rig;
	uint8_t *mem = rig->buf.mem;
	struct watcher watcher;

	ASSERT_EQ(0, scan_start(&watcher, mem));
	ASSERT_EQ(0, rig_write_new(rig, 0, SIZE));
	EXPECT_EQ(PAGES, scan(mem, SIZE, PAGE_IS_WRITTEN, true));
	EXPECT_EQ(0, scan(mem, SIZE, PAGE_IS_WRITTEN, false));
	ASSERT_EQ(0, rig_write_new(rig, 0, PART));
	EXPECT_EQ(PART_PAGES, scan(mem, PART, PAGE_IS_WRITTEN, false));
	EXPECT_EQ(-1, rig_differs(rig));
	watcher_close(&watcher);
}

/* Userfaultfd */

TEST_F(watch, userfaultfd_wp_sees_writes)
{
	struct rig *rig = &self->rig;
	uint8_t *mem = rig->buf.mem;
	struct watcher watcher;

	ASSERT_EQ(0, watcher_open(&watcher, mem, UFFD_FEATURE_PAGEFAULT_FLAG_WP,
				  UFFDIO_REGISTER_MODE_WP));
	ASSERT_EQ(0, watcher_start(&watcher));

	ASSERT_EQ(0, watcher_protect(&watcher, mem, SIZE, true));
	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, gpu_reads(rig));
	EXPECT_EQ(0, watcher.events);
	ASSERT_EQ(0, rig_write_new(rig, 0, PART));
	EXPECT_LE(PART_PAGES, watcher.events);
	EXPECT_TRUE(watcher.flags & UFFD_PAGEFAULT_FLAG_WP);

	ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
	ASSERT_EQ(0, watcher_protect(&watcher, mem, SIZE, true));
	watcher.events = 0;
	ASSERT_EQ(0, buffer_xor(&rig->buf, rig->gpu, 0, PART));
	EXPECT_LE(PART_PAGES, watcher.events);
	watcher_close(&watcher);
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
}

TEST_F(watch, userfaultfd_rwp_reports_device_reads)
{
	struct rig *rig = &self->rig;
	uint8_t *mem = rig->buf.mem;
	struct watcher watcher;
	uint64_t sum;

	ASSERT_EQ(0, watcher_open(&watcher, mem, UFFD_FEATURE_RWP,
				  UFFDIO_REGISTER_MODE_RWP));
	ASSERT_EQ(0, watcher_start(&watcher));

	ASSERT_EQ(0, watcher_protect(&watcher, mem, SIZE, true));
	ASSERT_EQ(0, rig_read(rig, 0, PART));
	EXPECT_LE(PART_PAGES, watcher.events);
	EXPECT_TRUE(watcher.flags & UFFD_PAGEFAULT_FLAG_RWP);

	ASSERT_EQ(0, watcher_protect(&watcher, mem, SIZE, false));
	ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
	ASSERT_EQ(0, watcher_protect(&watcher, mem, SIZE, true));
	watcher.events = 0;
	ASSERT_EQ(0, gpu_sum(rig->gpu, mem, PART, &sum));
	EXPECT_LE(PART_PAGES, watcher.events);
	watcher_close(&watcher);
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
}

TEST_F(watch, pagemap_scan_reports_device_reads_as_accessed)
{
	struct rig *rig = &self->rig;
	uint8_t *mem = rig->buf.mem;
	struct watcher watcher;
	uint64_t sum;

	ASSERT_EQ(0, watcher_open_async(&watcher, mem));

	ASSERT_EQ(0, watcher_protect(&watcher, mem, SIZE, true));
	EXPECT_EQ(0, scan(mem, SIZE, PAGE_IS_ACCESSED, false));
	ASSERT_EQ(0, rig_read(rig, 0, PART));
	EXPECT_EQ(PART_PAGES, scan(mem, PART, PAGE_IS_ACCESSED, false));

	ASSERT_EQ(0, watcher_protect(&watcher, mem, SIZE, false));
	ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
	ASSERT_EQ(0, watcher_protect(&watcher, mem, SIZE, true));
	EXPECT_EQ(0, scan(mem, SIZE, PAGE_IS_ACCESSED, false));
	ASSERT_EQ(0, gpu_sum(rig->gpu, mem, PART, &sum));
	EXPECT_EQ(PART_PAGES, scan(mem, PART, PAGE_IS_ACCESSED, false));
	watcher_close(&watcher);
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
}

TEST_F(watch, userfaultfd_missing_reports_device_faults)
{
	struct rig *rig = &self->rig;
	uint8_t *mem = rig->buf.mem;
	struct watcher watcher;
	uint64_t pages;

	ASSERT_EQ(0, watcher_open(&watcher, mem, 0, UFFDIO_REGISTER_MODE_MISSING));
	ASSERT_EQ(0, watcher_start(&watcher));
	ASSERT_EQ(0, madvise(mem, SIZE, MADV_DONTNEED));
	memset(rig->buf.shadow, 0, SIZE);
	gpu_to_vram(rig->gpu, mem, SIZE, &pages);
	ASSERT_EQ(0, rig_write_new(rig, 0, PART));
	EXPECT_LE(PART_PAGES, watcher.events);
	ASSERT_EQ(0, buffer_xor(&rig->buf, rig->gpu, 0, SIZE));
	EXPECT_LE(PAGES, watcher.events);
	watcher_close(&watcher);
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
}

/*
 * A fault that takes longer than a peer's timeout for pages that change still
 * succeeds, even if another fault on the same page follows.
 */
TEST_F(watch, slow_userfaultfd_does_not_fail_prefetch)
{
	struct rig *rig = &self->rig;
	uint8_t *mem = rig->buf.mem;
	struct watcher watcher;

	ASSERT_EQ(0, watcher_open(&watcher, mem, UFFD_FEATURE_PAGEFAULT_FLAG_WP,
				  UFFDIO_REGISTER_MODE_MISSING |
				  UFFDIO_REGISTER_MODE_WP));
	watcher.delay = 1500000;
	ASSERT_EQ(0, madvise(mem, SIZE, MADV_DONTNEED));
	memset(rig->buf.shadow, 0, SIZE);
	ASSERT_EQ(0, watcher_start(&watcher));
	EXPECT_EQ(0, rdma_prefetch(&rig->conn.far, rig->mr, mem, PAGE, 1));
	EXPECT_EQ(2, watcher.events);
	EXPECT_TRUE(watcher.flags & UFFD_PAGEFAULT_FLAG_WP);
	watcher.delay = 0;
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
	watcher_close(&watcher);
}

/* Returns how much of a range is moved; -errno if nothing is. */
static ssize_t watcher_move(struct watcher *watcher, void *dst, const void *src,
			    size_t size)
{
	struct uffdio_move move = {
		.dst = (uintptr_t)dst,
		.src = (uintptr_t)src,
		.len = size,
	};

	return ioctl(watcher->fd, UFFDIO_MOVE, &move) && !move.move ? -errno : move.move;
}

TEST_F(watch, uffdio_move_moves_vram_pages_in_place)
{
	bool huge = variant->advice == MADV_HUGEPAGE;
	struct rig *rig = &self->rig;
	uint8_t *mem = rig->buf.mem;
	struct watcher watcher;
	struct buffer target;
	uint64_t evicted;

	ASSERT_EQ(0, buffer_map(&target, SIZE, variant->advice));
	ASSERT_EQ(0, watcher_open(&watcher, target.mem, 0, UFFDIO_REGISTER_MODE_MISSING));
	/* Let the peer resolve the pages first. */
	ASSERT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
	evicted = pages_evicted(rig->gpu);
	ASSERT_EQ(0, soft_dirty_clear());

	ASSERT_EQ(SIZE, watcher_move(&watcher, target.mem, mem, SIZE));
	EXPECT_EQ(evicted, pages_evicted(rig->gpu));
	EXPECT_EQ(PAGES, pages_in_vram(rig->gpu, target.mem, SIZE));
	EXPECT_EQ(huge ? PAGES : 0, huge_pages_in_vram(rig->gpu, target.mem, SIZE));
	EXPECT_EQ(PAGES, soft_dirty(target.mem, SIZE));

	/* GPU and CPU can read and write the memory. */
	memcpy(target.shadow, rig->buf.shadow, SIZE);
	EXPECT_EQ(-1, buffer_differs_on_gpu(&target, rig->gpu));
	ASSERT_EQ(0, buffer_xor(&target, rig->gpu, 0, SIZE));
	EXPECT_EQ(evicted, pages_evicted(rig->gpu));
	ASSERT_EQ(0, gpu_to_ram(rig->gpu, target.mem, PART));
	EXPECT_EQ(-1, buffer_differs(&target));

	/* It is no longer at its old address. */
	memset(rig->buf.shadow, 0, SIZE);
	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, rig_write_new(rig, 0, PART));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
	EXPECT_EQ(-1, buffer_differs(&target));
	watcher_close(&watcher);
	buffer_unmap(&target);
}

TEST_F(watch, uffdio_move_moves_part_of_vram_range_in_place)
{
	struct rig *rig = &self->rig;
	uint8_t *mem = rig->buf.mem;
	uint64_t evicted = pages_evicted(rig->gpu);
	struct watcher watcher;
	struct buffer target;

	ASSERT_EQ(0, buffer_map(&target, SIZE, variant->advice));
	ASSERT_EQ(0, watcher_open(&watcher, target.mem, 0, UFFDIO_REGISTER_MODE_MISSING));
	ASSERT_EQ(PART, watcher_move(&watcher, target.mem + PAGE, mem + PART, PART));
	EXPECT_EQ(evicted, pages_evicted(rig->gpu));
	EXPECT_EQ(PART_PAGES, pages_in_vram(rig->gpu, target.mem, SIZE));
	EXPECT_EQ(PAGES - PART_PAGES, pages_in_vram(rig->gpu, mem, SIZE));
	watcher_close(&watcher);

	memcpy(target.shadow + PAGE, rig->buf.shadow + PART, PART);
	memset(rig->buf.shadow + PART, 0, PART);
	ASSERT_EQ(0, buffer_xor(&target, rig->gpu, PAGE, PART));
	ASSERT_EQ(0, buffer_xor(&rig->buf, rig->gpu, 0, SIZE));
	EXPECT_EQ(-1, buffer_differs(&target));
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
	buffer_unmap(&target);
}

TEST_F(watch, uffdio_move_into_rwp_area_protects_vram_pages)
{
	struct rig *rig = &self->rig;
	uint8_t *mem = rig->buf.mem;
	struct watcher watcher;
	struct buffer target;
	uint64_t sum;

	ASSERT_EQ(0, buffer_map(&target, SIZE, variant->advice));
	ASSERT_EQ(0, watcher_open_async(&watcher, target.mem));
	ASSERT_EQ(SIZE, watcher_move(&watcher, target.mem, mem, SIZE));
	EXPECT_EQ(0, scan(target.mem, SIZE, PAGE_IS_ACCESSED, false));
	ASSERT_EQ(0, gpu_sum(rig->gpu, target.mem, PART, &sum));
	EXPECT_EQ(PART_PAGES, scan(target.mem, PART, PAGE_IS_ACCESSED, false));
	watcher_close(&watcher);
	memcpy(target.shadow, rig->buf.shadow, SIZE);
	EXPECT_EQ(-1, buffer_differs(&target));
	buffer_unmap(&target);
}

/* One page is touched, and its neighbours come back with it. */
TEST_F(watch, rwp_of_moved_vram_page_survives_migration_to_ram)
{
	bool huge = variant->advice == MADV_HUGEPAGE;
	struct rig *rig = &self->rig;
	struct watcher watcher;
	struct buffer target;
	uint64_t evicted;

	ASSERT_EQ(0, buffer_map(&target, SIZE, variant->advice));
	ASSERT_EQ(0, watcher_open_async(&watcher, target.mem));
	ASSERT_EQ(SIZE, watcher_move(&watcher, target.mem, rig->buf.mem, SIZE));
	evicted = pages_evicted(rig->gpu);
	EXPECT_EQ(rig->buf.shadow[PAGE], *(volatile uint8_t *)(target.mem + PAGE));
	EXPECT_EQ(evicted + PAGES, pages_evicted(rig->gpu));
	EXPECT_EQ(huge ? PAGES : 1, scan(target.mem, SIZE, PAGE_IS_ACCESSED, false));
	watcher_close(&watcher);
	memcpy(target.shadow, rig->buf.shadow, SIZE);
	EXPECT_EQ(-1, buffer_differs(&target));
	buffer_unmap(&target);
}

TEST_F(watch, uffdio_move_onto_vram_page_fails_with_eexist)
{
	struct rig *rig = &self->rig;
	uint8_t *mem = rig->buf.mem;
	struct watcher watcher;
	struct buffer source;

	ASSERT_EQ(0, buffer_map(&source, SIZE, variant->advice));
	buffer_write(&source, 0, SIZE);
	ASSERT_EQ(0, watcher_open(&watcher, mem, 0, UFFDIO_REGISTER_MODE_MISSING));
	EXPECT_EQ(-EEXIST, watcher_move(&watcher, mem, source.mem, SIZE));
	EXPECT_EQ(-EEXIST, watcher_move(&watcher, mem + PAGE, source.mem, PAGE));
	EXPECT_EQ(PAGES, pages_in_vram(rig->gpu, mem, SIZE));
	watcher_close(&watcher);
	EXPECT_EQ(-1, buffer_differs(&source));
	EXPECT_EQ(-1, rig_differs(rig));
	buffer_unmap(&source);
}

/* Reclaim */

/*
 * Memory that the kernel may free until it is written to goes to VRAM that had other
 * contents before. Then the GPU writes to it.
 */
static int write_to_freed(const struct rig *rig, struct buffer *fresh, int advice)
{
	uint64_t pages;
	int err;

	err = buffer_map(fresh, SIZE, advice);
	if (err)
		return err;
	buffer_write(fresh, 0, SIZE);
	if (madvise(fresh->mem, SIZE, MADV_FREE))
		return -errno;
	err = gpu_to_vram(rig->gpu, fresh->mem, SIZE, &pages);
	if (!err && pages != PAGES)
		err = -ENOSPC;
	if (!err)
		err = gpu_fill(rig->gpu, fresh->mem, SIZE, 0x5a5a5a5a5a5a5a5a);
	memset(fresh->shadow, 0x5a, SIZE);

	return err;
}

TEST_F(watch, madv_free_keeps_later_writes)
{
	struct rig *rig = &self->rig;
	struct buffer fresh;

	ASSERT_EQ(0, write_to_freed(rig, &fresh, variant->advice));
	ASSERT_EQ(0, gpu_to_ram(rig->gpu, fresh.mem, SIZE));
	EXPECT_EQ(0, pages_out(fresh.mem, SIZE));
	EXPECT_EQ(-1, buffer_differs(&fresh));
	buffer_unmap(&fresh);
}

TEST_F(watch, madv_free_keeps_later_writes_after_mprotect)
{
	struct rig *rig = &self->rig;
	struct buffer fresh;

	ASSERT_EQ(0, write_to_freed(rig, &fresh, variant->advice));
	ASSERT_EQ(0, mprotect(fresh.mem, SIZE, PROT_READ));
	ASSERT_EQ(0, gpu_to_ram(rig->gpu, fresh.mem, SIZE));
	EXPECT_EQ(0, pages_out(fresh.mem, SIZE));
	EXPECT_EQ(-1, buffer_differs(&fresh));
	buffer_unmap(&fresh);
}

/*
 * No process can write to this memory, so the kernel may still free it when it is
 * back. Returns how many KiB of it are swapped instead.
 */
static long freed_and_swapped(const struct rig *rig, int advice)
{
	struct buffer fresh;
	uint64_t pages;
	long swapped;
	int err;

	err = buffer_map(&fresh, SIZE, advice);
	if (err)
		return err;
	buffer_write(&fresh, 0, SIZE);
	if (madvise(fresh.mem, SIZE, MADV_FREE) || mprotect(fresh.mem, SIZE, PROT_READ))
		return -errno;
	/* The VRAM had other contents before. */
	err = gpu_to_vram(rig->gpu, rig->buf.mem, SIZE, NULL) ?:
	      gpu_to_ram(rig->gpu, rig->buf.mem, SIZE) ?:
	      gpu_to_vram(rig->gpu, fresh.mem, SIZE, &pages) ?:
	      gpu_to_ram(rig->gpu, fresh.mem, SIZE);
	pages_out(fresh.mem, SIZE);
	swapped = smaps(getpid(), fresh.mem, "Swap");
	buffer_unmap(&fresh);
	return err ?: pages != PAGES ? -EAGAIN : swapped;
}

/* A page that is in use just when it should be freed is swapped: try again. */
TEST_F(watch, madv_free_memory_is_not_swapped)
{
	long swapped = 0;
	int tries;

	for (tries = 0; tries < 5; tries++) {
		swapped = freed_and_swapped(&self->rig, variant->advice);
		if (!swapped)
			break;
	}
	EXPECT_EQ(0, swapped);
}

/* NUMA balancing */

/* How often it has scanned the process's memory; -1 if the kernel does not say. */
static long numa_scans(void)
{
	return field_read("/proc/self/sched", "mm->numa_scan_seq");
}

TEST_F(watch, numa_balancing_leaves_vram_alone)
{
	struct rig *rig = &self->rig;
	uint64_t evicted = pages_evicted(rig->gpu);
	double end = now() + 60 * slowness();
	volatile unsigned long spin;
	long scans;

	ASSERT_EQ(0, file_write("/proc/sys/kernel/numa_balancing", "1"));
	scans = numa_scans();
	ASSERT_LE(0, scans);
	/* Scans depend on the CPU time that the process uses. */
	while (numa_scans() < scans + 2 && now() < end)
		for (spin = 0; spin < 10000000; spin++)
			;
	EXPECT_LE(scans + 2, numa_scans());
	ASSERT_EQ(0, file_write("/proc/sys/kernel/numa_balancing", "0"));

	ASSERT_EQ(0, buffer_xor(&rig->buf, rig->gpu, 0, SIZE));
	EXPECT_EQ(evicted, pages_evicted(rig->gpu));
	EXPECT_EQ(PAGES, pages_in_vram(rig->gpu, rig->buf.mem, SIZE));
}

/* Accounting */

TEST_F(watch, uffdio_move_of_shared_vram_page_fails_with_ebusy)
{
	struct rig *rig = &self->rig;
	uint8_t *mem = rig->buf.mem;
	struct watcher watcher;
	struct buffer target;
	struct child child;
	uint64_t huge;

	ASSERT_EQ(0, buffer_map(&target, SIZE, variant->advice));
	ASSERT_EQ(0, watcher_open(&watcher, target.mem, 0, UFFDIO_REGISTER_MODE_MISSING));
	ASSERT_EQ(0, child_fork(&child, NULL, NULL));
	huge = huge_pages_in_vram(rig->gpu, mem, SIZE);
	EXPECT_EQ(-EBUSY, watcher_move(&watcher, target.mem, mem, SIZE));
	EXPECT_EQ(PAGES, pages_in_vram(rig->gpu, mem, SIZE));

	/* The attempt splits no huge page, either. */
	EXPECT_EQ(-EBUSY, watcher_move(&watcher, target.mem + PAGE, mem + PART, PART));
	EXPECT_EQ(huge, huge_pages_in_vram(rig->gpu, mem, SIZE));
	EXPECT_EQ(0, child_end(&child));
	watcher_close(&watcher);
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
	buffer_unmap(&target);
}

TEST_F(watch, smaps_counts_vram_pages_as_private_or_shared)
{
	struct rig *rig = &self->rig;
	const uint8_t *mem = rig->buf.mem;
	struct child child;

	EXPECT_EQ(SIZE / 1024, smaps(getpid(), mem, "Rss"));
	EXPECT_EQ(SIZE / 1024, smaps(getpid(), mem, "Pss"));
	EXPECT_EQ(SIZE / 1024, smaps(getpid(), mem, "Private_Dirty"));
	EXPECT_EQ(SIZE / 1024, smaps(getpid(), mem, "Anonymous"));
	EXPECT_EQ(0, smaps(getpid(), mem, "Shared_Dirty"));

	ASSERT_EQ(0, child_fork(&child, NULL, NULL));
	EXPECT_EQ(SIZE / 2048, smaps(getpid(), mem, "Pss"));
	EXPECT_EQ(SIZE / 2048, smaps(child.pid, mem, "Pss"));
	EXPECT_EQ(SIZE / 1024, smaps(getpid(), mem, "Shared_Dirty"));
	EXPECT_EQ(0, smaps(getpid(), mem, "Private_Dirty"));
	EXPECT_EQ(PAGES, pages_in_vram(rig->gpu, mem, SIZE));
	EXPECT_EQ(0, child_end(&child));
	EXPECT_EQ(SIZE / 1024, smaps(getpid(), mem, "Pss"));
}

/* The kernel with DEBUG_VM looks whether somebody is given too much. */
TEST_F(watch, pages_shared_by_fork_migrate_to_vram)
{
	struct rig *rig = &self->rig;
	uint8_t *mem = rig->buf.mem;
	struct child child;
	uint64_t pages;

	ASSERT_EQ(0, gpu_to_ram(rig->gpu, mem, SIZE));
	ASSERT_EQ(0, child_fork(&child, NULL, NULL));
	ASSERT_EQ(0, gpu_to_vram(rig->gpu, mem, SIZE, &pages));
	EXPECT_EQ(PAGES, pages);
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_EQ(0, child_end(&child));
}

/* Core dumps */

#define PATTERN	"/proc/sys/kernel/core_pattern"
#define CORE	"/tmp/watch.core"

/* A process whose memory is in VRAM dies. */
static int die(const struct buffer *buf)
{
	struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };
	int gpu = gpu_open(0);
	uint64_t pages;

	if (gpu < 0 || setrlimit(RLIMIT_CORE, &limit) ||
	    gpu_to_vram(gpu, buf->mem, buf->size, &pages) ||
	    pages != buf->size / PAGE ||
	    gpu_fill(gpu, buf->mem, buf->size, 0xa5a5a5a5a5a5a5a5))
		_exit(1);
	abort();
}

/* The offset of this memory in the core file; 0 if the core does not have it. */
static off_t core_offset(int fd, const void *mem, size_t size)
{
	Elf64_Ehdr header;
	Elf64_Phdr part;
	int i;

	if (pread(fd, &header, sizeof(header), 0) != sizeof(header))
		return 0;
	for (i = 0; i < header.e_phnum; i++) {
		if (pread(fd, &part, sizeof(part), header.e_phoff + i * sizeof(part)) !=
		    sizeof(part))
			return 0;
		if (part.p_type == PT_LOAD && part.p_vaddr <= (uintptr_t)mem &&
		    (uintptr_t)mem + size <= part.p_vaddr + part.p_filesz)
			return part.p_offset + (uintptr_t)mem - part.p_vaddr;
	}

	return 0;
}

TEST_F(watch, core_dump_contains_vram_pages)
{
	uint8_t *found = malloc(SIZE), *want = malloc(SIZE);
	struct buffer buf;
	int fd, status;
	off_t offset;
	pid_t pid;

	ASSERT_EQ(0, file_write(PATTERN, CORE));
	ASSERT_EQ(0, buffer_map(&buf, SIZE, variant->advice));
	pid = fork();
	if (!pid)
		die(&buf);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status) && WCOREDUMP(status));
	EXPECT_EQ(0, file_write(PATTERN, "core"));

	fd = open(CORE, O_RDONLY);
	ASSERT_LE(0, fd);
	offset = core_offset(fd, buf.mem, SIZE);
	ASSERT_NE(0, offset);
	ASSERT_EQ(SIZE, pread(fd, found, SIZE, offset));
	memset(want, 0xa5, SIZE);
	EXPECT_EQ(-1, differs(found, want, SIZE));
	close(fd);
	unlink(CORE);
	buffer_unmap(&buf);
}

/* Secret memory */

TEST(devices_do_not_read_secret_memory)
{
	struct rig rig;
	uint64_t sum = 0;
	uint8_t *secret;

	ASSERT_EQ(0, rig_init(&rig, PAGE, MADV_NOHUGEPAGE));
	secret = secret_map(PAGE);
	ASSERT_NE(NULL, secret);
	memset(secret, 0x5e, PAGE);

	EXPECT_EQ(-EFAULT, gpu_sum(rig.gpu, secret, PAGE, &sum));
	EXPECT_EQ(0, sum);
	EXPECT_EQ(-EFAULT, gpu_fill(rig.gpu, secret, PAGE, 1));

	rig.mr = rdma_reg_odp(&rig.conn.far, secret, PAGE);
	ASSERT_NE(NULL, rig.mr);
	EXPECT_EQ(-EREMOTEIO, rdma_read(&rig.conn.near, rig.ram.mem,
					rig.ram_mr->lkey, (uintptr_t)secret,
					rig.mr->rkey, PAGE));
	EXPECT_EQ(IBV_WC_REM_ACCESS_ERR, rdma_status(&rig.conn.near));
	EXPECT_EQ(-1, buffer_differs(&rig.ram));
	EXPECT_EQ(0x5e, secret[PAGE / 2]);

	munmap(secret, PAGE);
	EXPECT_EQ(0, rig_fini(&rig));
}

/*
 * The kernel's own test device migrates only the memory that it is told to, and
 * touches only the memory that it reads or writes.
 */

FIXTURE(device) {
	int fd;
	struct buffer buf;
	struct buffer copy;
};

FIXTURE_VARIANTS_BY_ADVICE(device);

FIXTURE_SETUP(device)
{
	self->fd = open("/dev/hmm_dmirror0", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, buffer_map(&self->buf, SIZE, variant->advice));
	ASSERT_EQ(0, buffer_map(&self->copy, SIZE, MADV_HUGEPAGE));
}

FIXTURE_TEARDOWN(device)
{
	buffer_unmap(&self->copy);
	buffer_unmap(&self->buf);
	close(self->fd);
}

static int device_do(FIXTURE_DATA(device) *self, unsigned long request, size_t size)
{
	struct hmm_dmirror_cmd cmd = {
		.addr = (uintptr_t)self->buf.mem,
		.ptr = (uintptr_t)self->copy.mem,
		.npages = size / PAGE,
	};

	return ioctl(self->fd, request, &cmd) ? -errno : 0;
}

/* The number of pages in RAM. */
static size_t present(const struct buffer *buf)
{
	return pages_with_bit(buf->mem, buf->size, 63);
}

TEST_F(device, soft_dirty_bit_survives_migration)
{
	uint8_t *mem = self->buf.mem;

	buffer_write(&self->buf, 0, SIZE);
	ASSERT_EQ(0, soft_dirty_clear());
	ASSERT_EQ(0, device_do(self, HMM_DMIRROR_MIGRATE_TO_DEV, SIZE));
	EXPECT_EQ(0, present(&self->buf));
	EXPECT_EQ(0, soft_dirty(mem, SIZE));
	ASSERT_EQ(0, device_do(self, HMM_DMIRROR_READ, SIZE));
	EXPECT_EQ(0, soft_dirty(mem, SIZE));
	ASSERT_EQ(0, device_do(self, HMM_DMIRROR_MIGRATE_TO_SYS, SIZE));
	EXPECT_EQ(PAGES, present(&self->buf));
	EXPECT_EQ(0, soft_dirty(mem, SIZE));
	buffer_write(&self->buf, 0, SIZE);
	ASSERT_EQ(0, device_do(self, HMM_DMIRROR_MIGRATE_TO_DEV, SIZE));
	EXPECT_EQ(PAGES, soft_dirty(mem, SIZE));
	/* The bit is cleared on the device, and the migration back does not set it. */
	ASSERT_EQ(0, soft_dirty_clear());
	EXPECT_EQ(0, soft_dirty(mem, SIZE));
	ASSERT_EQ(0, device_do(self, HMM_DMIRROR_MIGRATE_TO_SYS, SIZE));
	EXPECT_EQ(0, soft_dirty(mem, SIZE));
	/* The next write still faults. */
	buffer_write(&self->buf, 0, PART);
	EXPECT_EQ(PART_PAGES, soft_dirty(mem, PART));
}

/* Write protection survives a migration, either way. */
TEST_F(device, uffd_wp_bit_survives_migration)
{
	uint8_t *mem = self->buf.mem;
	struct watcher watcher;

	buffer_write(&self->buf, 0, SIZE);
	ASSERT_EQ(0, scan_start(&watcher, mem));
	EXPECT_EQ(PAGES, scan(mem, SIZE, PAGE_IS_WRITTEN, true));
	ASSERT_EQ(0, device_do(self, HMM_DMIRROR_MIGRATE_TO_DEV, SIZE));
	EXPECT_EQ(0, present(&self->buf));
	ASSERT_EQ(0, device_do(self, HMM_DMIRROR_READ, SIZE));
	EXPECT_EQ(0, scan(mem, SIZE, PAGE_IS_WRITTEN, false));
	ASSERT_EQ(0, device_do(self, HMM_DMIRROR_MIGRATE_TO_SYS, SIZE));
	EXPECT_EQ(0, scan(mem, SIZE, PAGE_IS_WRITTEN, false));
	buffer_write(&self->buf, 0, SIZE);
	ASSERT_EQ(0, device_do(self, HMM_DMIRROR_MIGRATE_TO_DEV, SIZE));
	EXPECT_EQ(PAGES, scan(mem, SIZE, PAGE_IS_WRITTEN, true));
	EXPECT_EQ(0, scan(mem, SIZE, PAGE_IS_WRITTEN, false));
	ASSERT_EQ(0, device_do(self, HMM_DMIRROR_WRITE, PART));
	EXPECT_EQ(PART_PAGES, scan(mem, PART, PAGE_IS_WRITTEN, false));
	EXPECT_EQ(-1, differs(mem, self->copy.mem, PART));
	watcher_close(&watcher);
}

/* A read populates it with zero pages, and the scan protects them. */
TEST_F(device, write_protected_zero_pages_do_not_migrate)
{
	uint8_t *mem = self->buf.mem;
	struct watcher watcher;

	EXPECT_EQ(-1, buffer_differs(&self->buf));
	ASSERT_EQ(0, scan_start(&watcher, mem));
	EXPECT_EQ(PAGES, scan(mem, SIZE, PAGE_IS_WRITTEN, true));
	device_do(self, HMM_DMIRROR_MIGRATE_TO_DEV, SIZE);
	EXPECT_EQ(0, scan(mem, SIZE, PAGE_IS_WRITTEN, false));
	ASSERT_EQ(0, device_do(self, HMM_DMIRROR_WRITE, PART));
	EXPECT_EQ(PART_PAGES, scan(mem, PART, PAGE_IS_WRITTEN, false));
	watcher_close(&watcher);
}

#define KSM	"/sys/kernel/mm/ksm/"

static int pages_shared(uint64_t want)
{
	int tries = 600 * slowness();

	while (number_read(KSM "pages_sharing") < want && --tries)
		usleep(100000);
	return tries ? 0 : -ETIMEDOUT;
}

static void ignore(int signal __attribute__((unused)))
{
}

/* Signals that need not disturb a thread that waits for a device. */
static int alarm_every(unsigned int us)
{
	struct itimerval timer = { { .tv_usec = us }, { .tv_usec = us } };
	struct sigaction action = { .sa_handler = ignore, .sa_flags = SA_RESTART };

	return sigaction(SIGALRM, &action, NULL) || setitimer(ITIMER_REAL, &timer, NULL) ?
	       -errno : 0;
}

TEST_F(device, migration_unshares_ksm_pages)
{
	struct buffer other;

	memset(self->buf.mem, 0x77, SIZE);
	memset(self->buf.shadow, 0x77, SIZE);
	ASSERT_EQ(0, buffer_map(&other, SIZE, variant->advice));
	memset(other.mem, 0x77, SIZE);

	/* At first all pages are unmerged, and there are no other users of KSM. */
	ASSERT_EQ(0, file_write(KSM "run", "2"));
	ASSERT_EQ(0, file_write(KSM "sleep_millisecs", "10"));
	ASSERT_EQ(0, file_write(KSM "pages_to_scan", "5000"));
	ASSERT_EQ(0, file_write(KSM "run", "1"));
	ASSERT_EQ(0, madvise(self->buf.mem, SIZE, MADV_MERGEABLE));
	/* A KSM page takes 256 sharers; the first one is not counted. */
	ASSERT_EQ(0, pages_shared(PAGES - 8));

	/* Stop ksmd, which could merge them again before they have migrated. */
	ASSERT_EQ(0, file_write(KSM "run", "0"));
	ASSERT_EQ(0, alarm_every(1000));
	EXPECT_EQ(0, device_do(self, HMM_DMIRROR_MIGRATE_TO_DEV, SIZE));
	ASSERT_EQ(0, alarm_every(0));
	EXPECT_EQ(0, present(&self->buf));
	EXPECT_EQ(-1, differs(self->copy.mem, self->buf.shadow, SIZE));

	/* ksmd compares with the pages that it has merged. */
	ASSERT_EQ(0, file_write(KSM "run", "1"));
	ASSERT_EQ(0, madvise(other.mem, SIZE, MADV_MERGEABLE));
	EXPECT_EQ(0, pages_shared(PAGES - 8));
	EXPECT_EQ(0, file_write(KSM "run", "2"));
	EXPECT_EQ(-1, buffer_differs(&self->buf));
	buffer_unmap(&other);
}

/* Page faults of this process, including those that a device has on its behalf. */
static long faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

/* The zero pages that KSM has put in the place of pages full of zeroes. */
static long zero_pages(void)
{
	FILE *file = fopen("/proc/self/ksm_stat", "r");
	char line[64];
	long pages = -1;

	while (file && fgets(line, sizeof(line), file))
		sscanf(line, "ksm_zero_pages %ld", &pages);
	if (file)
		fclose(file);

	return pages;
}

/* Huge pages would be split first, which maps zero pages and leaves none to KSM. */
TEST(migration_decrements_ksm_zero_pages)
{
	uint64_t others = number_read(KSM "ksm_zero_pages");
	int tries = 600 * slowness();
	FIXTURE_DATA(device) self = {};
	long before;

	self.fd = open("/dev/hmm_dmirror0", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self.fd);
	ASSERT_EQ(0, buffer_map(&self.buf, SIZE, MADV_NOHUGEPAGE));
	ASSERT_EQ(0, buffer_map(&self.copy, SIZE, MADV_HUGEPAGE));
	memset(self.buf.mem, 0, SIZE);
	ASSERT_EQ(0, file_write(KSM "use_zero_pages", "1"));
	ASSERT_EQ(0, file_write(KSM "sleep_millisecs", "10"));
	ASSERT_EQ(0, file_write(KSM "pages_to_scan", "5000"));
	ASSERT_EQ(0, file_write(KSM "run", "1"));
	ASSERT_EQ(0, madvise(self.buf.mem, SIZE, MADV_MERGEABLE));
	while (zero_pages() < (long)PAGES && --tries)
		usleep(100000);
	EXPECT_EQ(PAGES, zero_pages());
	ASSERT_EQ(0, file_write(KSM "run", "0"));
	ASSERT_EQ(0, file_write(KSM "use_zero_pages", "0"));

	/* The device clears its own pages: none is allocated in RAM to be copied. */
	memset(self.copy.mem, 1, SIZE);
	before = faults();
	EXPECT_EQ(0, device_do(&self, HMM_DMIRROR_MIGRATE_TO_DEV, SIZE));
	EXPECT_GE(8, faults() - before);
	EXPECT_EQ(0, present(&self.buf));
	EXPECT_EQ(0, zero_pages());
	EXPECT_EQ(others, number_read(KSM "ksm_zero_pages"));
	EXPECT_EQ(-1, buffer_differs(&self.buf));
	EXPECT_EQ(0, file_write(KSM "run", "2"));

	buffer_unmap(&self.copy);
	buffer_unmap(&self.buf);
	close(self.fd);
}

/* A clean page may be freed: a write through a snapshot would be lost. */
TEST_F(device, madv_free_pages_are_not_writable_in_a_snapshot)
{
	const uint8_t *prot = self->copy.mem;
	size_t i, writable = 0;

	buffer_write(&self->buf, 0, SIZE);
	ASSERT_EQ(0, device_do(self, HMM_DMIRROR_SNAPSHOT, SIZE));
	for (i = 0; i < PAGES; i++)
		writable += !!(prot[i] & HMM_DMIRROR_PROT_WRITE);
	EXPECT_EQ(PAGES, writable);

	ASSERT_EQ(0, madvise(self->buf.mem, SIZE, MADV_FREE));
	ASSERT_EQ(0, device_do(self, HMM_DMIRROR_SNAPSHOT, SIZE));
	for (i = 0, writable = 0; i < PAGES; i++)
		writable += !!(prot[i] & HMM_DMIRROR_PROT_WRITE);
	EXPECT_EQ(0, writable);
}

TEST_F(device, a_clean_huge_page_takes_one_fault)
{
	long before, took;

	memset(self->copy.mem, 0x33, SIZE);
	buffer_write(&self->buf, 0, SIZE);
	ASSERT_EQ(0, madvise(self->buf.mem, SIZE, MADV_FREE));
	before = faults();
	ASSERT_EQ(0, device_do(self, HMM_DMIRROR_WRITE, SIZE));
	took = faults() - before;
	if (variant->advice == MADV_HUGEPAGE) {
		EXPECT_GE(8, took);
	} else {
		EXPECT_LE(PAGES, took);
	}
	EXPECT_EQ(-1, differs(self->buf.mem, self->copy.mem, SIZE));
}

TEST(a_page_of_hugetlb_takes_one_fault)
{
	FIXTURE_DATA(device) self = {};
	struct buffer pages = { .size = HUGE_PAGE };
	long before;

	ASSERT_EQ(0, file_write("/proc/sys/vm/nr_hugepages", "4"));
	self.fd = open("/dev/hmm_dmirror0", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self.fd);
	ASSERT_EQ(0, buffer_map(&self.copy, HUGE_PAGE, MADV_HUGEPAGE));
	memset(self.copy.mem, 0x33, HUGE_PAGE);
	pages.mem = mmap(NULL, HUGE_PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	ASSERT_NE(MAP_FAILED, pages.mem);
	self.buf = pages;

	/* The page is present, but not writable. */
	ASSERT_EQ(0, *(volatile uint8_t *)pages.mem);
	before = faults();
	ASSERT_EQ(0, device_do(&self, HMM_DMIRROR_WRITE, HUGE_PAGE));
	EXPECT_GE(8, faults() - before);
	EXPECT_EQ(-1, differs(pages.mem, self.copy.mem, HUGE_PAGE));

	munmap(pages.mem, HUGE_PAGE);
	buffer_unmap(&self.copy);
	close(self.fd);
	EXPECT_EQ(0, file_write("/proc/sys/vm/nr_hugepages", "0"));
}

/* Memory that comes back is dirty, as before: the next write needs no fault. */
TEST_F(device, page_migrated_back_stays_dirty)
{
	long before;

	buffer_write(&self->buf, 0, SIZE);
	ASSERT_EQ(0, device_do(self, HMM_DMIRROR_MIGRATE_TO_DEV, SIZE));
	EXPECT_EQ(0, present(&self->buf));
	ASSERT_EQ(0, device_do(self, HMM_DMIRROR_MIGRATE_TO_SYS, SIZE));
	EXPECT_EQ(PAGES, present(&self->buf));
	before = faults();
	ASSERT_EQ(0, device_do(self, HMM_DMIRROR_WRITE, SIZE));
	EXPECT_GE(8, faults() - before);
	EXPECT_EQ(-1, buffer_differs(&self->buf));
}

/* The device maps the pages that it has migrated, and would not fault any more. */
TEST_F(device, rwp_protected_pages_do_not_migrate)
{
	uint8_t *mem = self->buf.mem;
	struct watcher watcher;

	buffer_write(&self->buf, 0, SIZE);
	ASSERT_EQ(0, watcher_open_async(&watcher, mem));
	ASSERT_EQ(0, watcher_protect(&watcher, mem, SIZE, true));
	device_do(self, HMM_DMIRROR_MIGRATE_TO_DEV, SIZE);
	EXPECT_EQ(PAGES, present(&self->buf));
	EXPECT_EQ(0, scan(mem, SIZE, PAGE_IS_ACCESSED, false));
	ASSERT_EQ(0, device_do(self, HMM_DMIRROR_READ, PART));
	EXPECT_EQ(PART_PAGES, scan(mem, PART, PAGE_IS_ACCESSED, false));
	EXPECT_EQ(-1, differs(self->copy.mem, self->buf.shadow, PART));

	/* They migrate once the access has been recorded. */
	ASSERT_EQ(0, device_do(self, HMM_DMIRROR_READ, SIZE));
	ASSERT_EQ(0, device_do(self, HMM_DMIRROR_MIGRATE_TO_DEV, SIZE));
	EXPECT_EQ(0, present(&self->buf));
	watcher_close(&watcher);
	EXPECT_EQ(-1, buffer_differs(&self->buf));
}

/* Merged pages would have to be unmerged by an access, which no thread has made. */
TEST_F(device, rwp_protected_ksm_pages_do_not_migrate)
{
	uint8_t *mem = self->buf.mem;
	struct watcher watcher;
	uint64_t shared;

	memset(mem, 0x77, SIZE);
	memset(self->buf.shadow, 0x77, SIZE);
	ASSERT_EQ(0, file_write(KSM "run", "2"));
	ASSERT_EQ(0, file_write(KSM "sleep_millisecs", "10"));
	ASSERT_EQ(0, file_write(KSM "pages_to_scan", "5000"));
	ASSERT_EQ(0, file_write(KSM "run", "1"));
	ASSERT_EQ(0, madvise(mem, SIZE, MADV_MERGEABLE));
	ASSERT_EQ(0, pages_shared(PAGES - 8));
	ASSERT_EQ(0, file_write(KSM "run", "0"));
	shared = number_read(KSM "pages_sharing");

	ASSERT_EQ(0, watcher_open_async(&watcher, mem));
	ASSERT_EQ(0, watcher_protect(&watcher, mem, SIZE, true));
	device_do(self, HMM_DMIRROR_MIGRATE_TO_DEV, SIZE);
	EXPECT_EQ(PAGES, present(&self->buf));
	EXPECT_EQ(0, scan(mem, SIZE, PAGE_IS_ACCESSED, false));
	EXPECT_EQ(shared, number_read(KSM "pages_sharing"));
	watcher_close(&watcher);
	EXPECT_EQ(0, file_write(KSM "run", "2"));
	EXPECT_EQ(-1, buffer_differs(&self->buf));
}

TEST(secret_memory_does_not_migrate)
{
	struct hmm_dmirror_cmd cmd = { .npages = 1 };
	uint8_t copy[PAGE], *secret;
	int device;

	device = open("/dev/hmm_dmirror0", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, device);
	secret = secret_map(PAGE);
	ASSERT_NE(NULL, secret);
	memset(secret, 0x5e, PAGE);

	cmd.addr = (uintptr_t)secret;
	cmd.ptr = (uintptr_t)copy;
	EXPECT_EQ(-1, ioctl(device, HMM_DMIRROR_MIGRATE_TO_DEV, &cmd));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0x5e, secret[PAGE / 2]);

	munmap(secret, PAGE);
	close(device);
}

/* The CPU faults on a huge page, and no huge page is free in RAM. */
TEST(cpu_fault_splits_thp_if_ram_has_no_huge_page)
{
	struct hmm_dmirror_cmd cmd = { .npages = HMM_DMIRROR_FLAG_FAIL_ALLOC };
	FIXTURE_DATA(device) self = {};

	self.fd = open("/dev/hmm_dmirror0", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self.fd);
	ASSERT_EQ(0, buffer_map(&self.buf, SIZE, MADV_HUGEPAGE));
	ASSERT_EQ(0, buffer_map(&self.copy, SIZE, MADV_HUGEPAGE));
	buffer_write(&self.buf, 0, SIZE);
	ASSERT_EQ(SIZE / 1024, smaps(getpid(), self.buf.mem, "AnonHugePages"));
	ASSERT_EQ(0, device_do(&self, HMM_DMIRROR_MIGRATE_TO_DEV, SIZE));
	EXPECT_EQ(0, present(&self.buf));

	/* Only the first allocation fails: a second fault would get a huge page. */
	ASSERT_EQ(0, ioctl(self.fd, HMM_DMIRROR_FLAGS, &cmd));
	EXPECT_EQ(-1, buffer_differs(&self.buf));
	EXPECT_EQ(0, smaps(getpid(), self.buf.mem, "AnonHugePages"));

	buffer_unmap(&self.copy);
	buffer_unmap(&self.buf);
	close(self.fd);
}

TEST_HARNESS_MAIN
