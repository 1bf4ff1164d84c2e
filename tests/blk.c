// SPDX-License-Identifier: GPL-2.0
/*
 * A disk that reads and writes the memory of GPUs: memory that it can reach stays
 * where it is, other memory migrates. The data is right either way, and a request
 * behaves like pread() or pwrite() with O_DIRECT.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/blkpg.h>
#include <linux/fs.h>

#include "../linux/samples/hmm/hmm_blk.h"
#include "gpu.h"
#include "measure.h"
#include "lib/child.h"
#include "lib/file.h"
#include "lib/harness.h"
#include "lib/rig.h"
#include "lib/route.h"
#include "lib/stats.h"
#include "lib/swap.h"
#include "lib/vram.h"
#include "lib/vsvm.h"
#include "lib/worker.h"

#define DISK	"/dev/nvme0n1"
#define END	((off_t)MIB(512))
#define SECTOR	512

/* How much memory hmm_blk walks at once */
#define CHUNK	MIB(2)

/* Room for the longest request, of 8 MiB and a sector, which does not begin at 0. */
#define SIZE	MIB(10)
#define PAGES	(SIZE / PAGE)

static int blk_open(void)
{
	int fd = open("/dev/hmm_blk", O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* Returns the number of bytes transferred, or a negative errno. */
static ssize_t blk_io(int blk, uint32_t flags, int fd, const void *addr,
		      uint64_t size, off_t pos)
{
	struct hmm_blk_io io = {
		.fd = fd,
		.flags = flags,
		.addr = (uintptr_t)addr,
		.size = size,
		.offset = pos,
		.done = ~0ULL,
	};

	if (ioctl(blk, HMM_BLK_IO, &io))
		return io.done ? -EPROTO : -errno;
	return io.done;
}

/* The shadow of a buffer is the expected content of the beginning of the disk. */

static int disk_init(struct buffer *buf, int disk)
{
	int err = buffer_map(buf, SIZE, MADV_HUGEPAGE);

	if (err)
		return err;
	buffer_write(buf, 0, SIZE);
	return pwrite(disk, buf->mem, SIZE, 0) == SIZE ? 0 : -EIO;
}

static ssize_t disk_differs(struct buffer *buf, int disk)
{
	if (pread(disk, buf->mem, SIZE, 0) != SIZE)
		return -2;
	return buffer_differs(buf);
}

FIXTURE(blk) {
	int blk;
	int disk;
	int gpu[2];
	uint64_t vram_free[2];
	bool stays;
	const char *counter;
	struct buffer buf;
	struct buffer on_disk;
};

FIXTURE_VARIANT(blk) {
	int advice;
	bool has_pages;
};

FIXTURE_VARIANT_ADD(blk, pages) {
	.advice = MADV_NOHUGEPAGE,
	.has_pages = true,
};

FIXTURE_VARIANT_ADD(blk, huge) {
	.advice = MADV_HUGEPAGE,
	.has_pages = true,
};

FIXTURE_VARIANT_ADD(blk, pages_without_struct_pages) {
	.advice = MADV_NOHUGEPAGE,
};

FIXTURE_VARIANT_ADD(blk, huge_without_struct_pages) {
	.advice = MADV_HUGEPAGE,
};

FIXTURE_SETUP(blk)
{
	self->stays = variant->has_pages && reachable();
	self->counter = reachable() ? alias_route() : "fallback_unreachable";

	ASSERT_EQ(0, vsvm_load(variant->has_pages ? "p2p_pages=1" : "p2p_pages=0"));
	self->blk = blk_open();
	ASSERT_LE(0, self->blk);
	self->disk = open(DISK, O_RDWR | O_DIRECT | O_CLOEXEC);
	ASSERT_LE(0, self->disk);
	ASSERT_EQ(0, gpus_open(self->gpu, self->vram_free));
	ASSERT_EQ(0, disk_init(&self->on_disk, self->disk));
	ASSERT_EQ(0, buffer_map(&self->buf, SIZE, variant->advice));
	buffer_write(&self->buf, 0, SIZE);
	ASSERT_EQ(0, buffer_to_vram(&self->buf, self->gpu[0], 0, SIZE));
	ASSERT_EQ(variant->advice == MADV_HUGEPAGE ? PAGES : 0,
		  huge_pages_in_vram(self->gpu[0], self->buf.mem, SIZE));
}

FIXTURE_TEARDOWN(blk)
{
	aliases_enable(true);
	EXPECT_EQ(-1, disk_differs(&self->on_disk, self->disk));
	EXPECT_EQ(-1, buffer_differs(&self->buf));
	buffer_unmap(&self->buf);
	buffer_unmap(&self->on_disk);
	EXPECT_EQ(0, gpus_close(self->gpu, self->vram_free));
	close(self->disk);
	close(self->blk);
}

static uint64_t in_vram(FIXTURE_DATA(blk) *self, size_t at, size_t size)
{
	return pages_touched_in_vram(self->gpu, self->buf.mem + at, size);
}

/* Do a request, and update the shadows. */
static ssize_t transfer(FIXTURE_DATA(blk) *self, uint32_t flags, size_t at,
			size_t size, off_t pos)
{
	uint8_t *memory = self->buf.shadow + at;
	uint8_t *disk = self->on_disk.shadow + pos;
	ssize_t done;

	done = blk_io(self->blk, flags, self->disk, self->buf.mem + at, size,
		      pos);
	if (done > 0)
		memcpy(flags & HMM_BLK_WRITE ? disk : memory,
		       flags & HMM_BLK_WRITE ? memory : disk, done);
	return done;
}

/*
 * Do a request, and check which pages migrate. Without struct pages, hmm_blk finds out
 * that it cannot use aliases when its first walk, of a chunk, has given it some.
 */
static void request(struct __test_metadata *_metadata, FIXTURE_DATA(blk) *self,
		    uint32_t flags, size_t at, size_t size, off_t pos)
{
	uint64_t reached = in_vram(self, at, size), least, most = reached;
	struct tally before, after;

	least = chunks_touched_in_vram(self->gpu, self->buf.mem + at, size);
	if (!self->stays && reachable())
		least = most = in_vram(self, at, MIN(size, CHUNK - at % PAGE));
	/* The calls above count aliases, too */
	before = tally_read(self->gpu);
	EXPECT_EQ(size, transfer(self, flags, at, size, pos));
	after = tally_read(self->gpu);
	EXPECT_TALLY(before, after, reached, least, most, self->stays, self->counter);
	EXPECT_EQ(self->stays ? reached : 0, in_vram(self, at, size));

	if (_metadata->exit_code == KSFT_FAIL)
		TH_LOG("%s of %#zx, memory at %#zx, disk at %#lx",
		       flags & HMM_BLK_WRITE ? "write" : "read", size, at, pos);
}

#define READ(at, size, pos)	request(_metadata, self, 0, at, size, pos)
#define WRITE(at, size, pos)						\
	request(_metadata, self, HMM_BLK_WRITE, at, size, pos)

static const struct span {
	size_t at;
	size_t size;
	off_t pos;
} spans[] = {
	{ 0, SECTOR, 0 },
	{ PAGE - SECTOR, SECTOR, 7 * SECTOR },
	{ 3 * PAGE - SECTOR, 2 * SECTOR, PAGE },
	{ 5 * PAGE + SECTOR, 3 * PAGE, 3 * SECTOR },
	{ HUGE_PAGE - SECTOR, 2 * SECTOR, SECTOR },
	{ HUGE_PAGE, HUGE_PAGE, HUGE_PAGE },
	{ HUGE_PAGE - PAGE - SECTOR, 2 * PAGE + SECTOR, MIB(9) },
	{ PAGE, HUGE_PAGE, 17 * SECTOR },
	{ SECTOR, MIB(8) + SECTOR, 5 * SECTOR },
	{ MIB(2) - SECTOR, MIB(8) + SECTOR, 0 },
};

TEST_F(blk, reads_into_vram)
{
	const struct span *span;

	for (span = spans; span < spans + ARRAY_LEN(spans); span++) {
		ASSERT_EQ(0, buffer_to_vram(&self->buf, self->gpu[0], 0, SIZE));
		READ(span->at, span->size, span->pos);
		EXPECT_EQ(-1, buffer_differs_on_gpu(&self->buf, self->gpu[0]));
	}
}

TEST_F(blk, writes_from_vram)
{
	const struct span *span;

	for (span = spans; span < spans + ARRAY_LEN(spans); span++) {
		ASSERT_EQ(0, buffer_to_vram(&self->buf, self->gpu[0], 0, SIZE));
		WRITE(span->at, span->size, span->pos);
		EXPECT_EQ(-1, disk_differs(&self->on_disk, self->disk));
	}
}

TEST_F(blk, reads_into_ram_and_writes_from_it)
{
	ASSERT_EQ(0, gpu_to_ram(self->gpu[0], self->buf.mem, SIZE));
	READ(PAGE - SECTOR, HUGE_PAGE + SECTOR, PAGE);
	EXPECT_EQ(-1, buffer_differs(&self->buf));
	buffer_write(&self->buf, 0, SIZE);
	WRITE(HUGE_PAGE - SECTOR, PAGE, 0);
}

/* Pages just swapped in are clean: the kernel drops them unless the read dirties them. */
TEST_F(blk, disk_read_dirties_clean_pages_in_ram)
{
	size_t size = HUGE_PAGE, at;

	ASSERT_EQ(0, gpu_to_ram(self->gpu[0], self->buf.mem, SIZE));
	ASSERT_EQ(0, pages_out(self->buf.mem, size));
	for (at = 0; at < size; at += PAGE)
		*(volatile uint8_t *)(self->buf.mem + at);

	READ(0, size, MIB(1));
	EXPECT_EQ(0, pages_out(self->buf.mem, size));
}

/*
 * Pages of both GPUs and of RAM next to each other, in every order, around the end
 * of a huge page. All other pages are in VRAM of the first GPU.
 */
static const char kinds[] = "0R1010RR1100R0";

#define KINDS_NR	(ARRAY_LEN(kinds) - 1)
#define KINDS_AT	(HUGE_PAGE - 6 * PAGE)

/* A GPU migrates more than one page, but only in one VMA: give each page its own. */
static int mix(struct buffer *buf, int advice, const int *gpu)
{
	unsigned int i;
	int err;

	buffer_unmap(buf);
	err = buffer_map(buf, SIZE, advice);
	for (i = 0; i < KINDS_NR && !err; i += 2)
		err = madvise(buf->mem + KINDS_AT + i * PAGE, PAGE,
			      MADV_DONTFORK);
	if (!err) {
		buffer_write(buf, 0, SIZE);
		err = buffer_to_vram(buf, gpu[0], 0, SIZE);
	}

	for (i = 0; i < KINDS_NR && !err; i++) {
		size_t offset = KINDS_AT + i * PAGE;

		if (kinds[i] == '1')
			err = buffer_to_vram(buf, gpu[1], offset, PAGE);
		if (kinds[i] == 'R')
			err = gpu_to_ram(gpu[0], buf->mem + offset, PAGE);
	}

	for (i = 0; i < KINDS_NR && !err; i++) {
		uint8_t *page = buf->mem + KINDS_AT + i * PAGE;

		if (pages_in_vram(gpu[0], page, PAGE) != (kinds[i] == '0') ||
		    pages_in_vram(gpu[1], page, PAGE) != (kinds[i] == '1'))
			err = -ENOTUNIQ;
	}
	return err;
}

TEST_F(blk, disk_reads_into_mix_of_ram_and_vram_of_two_gpus)
{
	unsigned int i;

	ASSERT_EQ(0, mix(&self->buf, variant->advice, self->gpu));
	READ(SECTOR, MIB(8) + SECTOR, 0);
	for (i = 0; i < KINDS_NR; i++)
		READ(KINDS_AT + i * PAGE - SECTOR, 2 * PAGE + SECTOR, i * SECTOR);
}

TEST_F(blk, disk_writes_from_mix_of_ram_and_vram_of_two_gpus)
{
	unsigned int i;

	ASSERT_EQ(0, mix(&self->buf, variant->advice, self->gpu));
	WRITE(SECTOR, MIB(8) + SECTOR, 0);
	for (i = 0; i < KINDS_NR; i++)
		WRITE(KINDS_AT + i * PAGE - SECTOR, 2 * PAGE + SECTOR, i * PAGE);
}

TEST_F(blk, enabled_never_makes_vram_migrate_for_disk_io)
{
	struct tally before = tally_read(self->gpu), after;

	ASSERT_EQ(0, aliases_enable(false));
	EXPECT_EQ(PAGE, transfer(self, 0, HUGE_PAGE, PAGE, 0));
	EXPECT_EQ(PAGE, transfer(self, HMM_BLK_WRITE, 0, PAGE, PAGE));
	ASSERT_EQ(0, aliases_enable(true));

	after = tally_read(self->gpu);
	EXPECT_EQ(0, memcmp(before.count, after.count, sizeof(after.count)));
	EXPECT_EQ(0, in_vram(self, 0, PAGE) + in_vram(self, HUGE_PAGE, PAGE));
}

/* The first disk is a virtio disk, whose driver does not support such memory. */
TEST_F(blk, disk_without_pci_p2pdma_makes_vram_migrate)
{
	int disk = open("/dev/vda", O_RDONLY | O_DIRECT | O_CLOEXEC);
	struct tally before = tally_read(self->gpu), after;

	ASSERT_LE(0, disk);
	ASSERT_EQ(PAGE, pread(disk, self->on_disk.mem, PAGE, 0));
	ASSERT_EQ(0, memcmp("SWAPSPACE2", self->on_disk.mem + PAGE - 10, 10));
	EXPECT_EQ(PAGE, blk_io(self->blk, 0, disk, self->buf.mem, PAGE, 0));
	memcpy(self->buf.shadow, self->on_disk.mem, PAGE);
	close(disk);

	after = tally_read(self->gpu);
	EXPECT_EQ(0, memcmp(before.count, after.count, sizeof(after.count)));
	EXPECT_LT(before.evicted, after.evicted);
	EXPECT_EQ(0, in_vram(self, 0, PAGE));
}

/* Unless the user says that writes arrive in time, disks only read from VRAM. */
TEST_F(blk, disk_whose_writes_may_be_late_does_not_write_to_vram)
{
	struct tally before, after;

	close(self->blk);
	ASSERT_EQ(0, system("modprobe -r hmm_blk && modprobe hmm_blk"));
	self->blk = blk_open();
	ASSERT_LE(0, self->blk);

	WRITE(0, PAGE, PAGE);
	before = tally_read(self->gpu);
	EXPECT_EQ(PAGE, transfer(self, 0, HUGE_PAGE, PAGE, 0));
	after = tally_read(self->gpu);
	EXPECT_EQ(0, memcmp(before.count, after.count, sizeof(after.count)));
	EXPECT_LT(before.evicted, after.evicted);
	EXPECT_EQ(0, in_vram(self, HUGE_PAGE, PAGE));

	close(self->blk);
	ASSERT_EQ(0, system("modprobe -r hmm_blk && modprobe hmm_blk writes_arrive=1"));
	self->blk = blk_open();
	ASSERT_LE(0, self->blk);
}

TEST_F(blk, disk_io_is_coherent_with_page_cache)
{
	int cached = open(DISK, O_RDWR | O_CLOEXEC);
	size_t at = HUGE_PAGE - PAGE, size = 3 * PAGE + SECTOR;

	ASSERT_LE(0, cached);
	buffer_write(&self->on_disk, PAGE, size);
	ASSERT_EQ(size, pwrite(cached, self->on_disk.mem + PAGE, size, PAGE));
	READ(at, size, PAGE);
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->buf, self->gpu[0]));

	ASSERT_EQ(0, buffer_to_vram(&self->buf, self->gpu[0], 0, SIZE));
	ASSERT_EQ(size, pread(cached, self->on_disk.mem, size, MIB(1)));
	WRITE(at, size, MIB(1));
	ASSERT_EQ(size, pread(cached, self->on_disk.mem, size, MIB(1)));
	EXPECT_EQ(-1, differs(self->on_disk.mem, self->buf.shadow + at, size));
	close(cached);
}

static int partition(int disk, int op, off_t start, off_t size)
{
	struct blkpg_partition part = {
		.pno = 1,
		.start = start,
		.length = size,
	};
	struct blkpg_ioctl_arg arg = {
		.op = op,
		.datalen = sizeof(part),
		.data = &part,
	};

	return ioctl(disk, BLKPG, &arg) ? -errno : 0;
}

TEST_F(blk, partition_limits_disk_io_to_its_sectors)
{
	off_t start = MIB(1) + SECTOR, size = MIB(4);
	int disk = self->disk;

	ASSERT_EQ(0, partition(disk, BLKPG_ADD_PARTITION, start, size));
	self->disk = open(DISK "p1", O_RDWR | O_DIRECT | O_CLOEXEC);
	EXPECT_LE(0, self->disk);
	self->on_disk.shadow += start;

	READ(PAGE, MIB(3), SECTOR);
	WRITE(HUGE_PAGE - SECTOR, PAGE, 0);
	EXPECT_EQ(PAGE, transfer(self, 0, 0, MIB(1), size - PAGE));
	EXPECT_EQ(PAGE, transfer(self, HMM_BLK_WRITE, PAGE, MIB(1), size - PAGE));
	EXPECT_EQ(0, transfer(self, 0, 0, PAGE, size));
	EXPECT_EQ(-ENOSPC, transfer(self, HMM_BLK_WRITE, 0, PAGE, size));

	self->on_disk.shadow -= start;
	close(self->disk);
	self->disk = disk;
	EXPECT_EQ(0, partition(disk, BLKPG_DEL_PARTITION, 0, 0));
}

/* Copy-on-write */

TEST_F(blk, cow_when_disk_is_read)
{
	struct tally before, after;
	struct child child;

	ASSERT_EQ(0, child_fork(&child, buffer_compare, &self->buf));
	before = tally_read(self->gpu);
	EXPECT_EQ(MIB(3), transfer(self, 0, PAGE - SECTOR, MIB(3), PAGE));
	after = tally_read(self->gpu);

	/* COW had to give the process pages of its own, in RAM. */
	EXPECT_LT(before.evicted, after.evicted);
	EXPECT_EQ(0, in_vram(self, PAGE - SECTOR, MIB(3)));
	EXPECT_EQ(-1, buffer_differs(&self->buf));
	EXPECT_EQ(0, child_do(&child));
	EXPECT_EQ(0, child_end(&child));
}

TEST_F(blk, no_cow_when_disk_is_written)
{
	struct child child;

	ASSERT_EQ(0, child_fork(&child, buffer_compare, &self->buf));
	WRITE(PAGE - SECTOR, MIB(3), PAGE);
	EXPECT_EQ(0, child_do(&child));
	EXPECT_EQ(0, child_end(&child));
}

static int child_reads_into_its_own(void *arg)
{
	FIXTURE_DATA(blk) *self = arg;

	if (transfer(self, 0, HUGE_PAGE - PAGE, MIB(3), 0) != MIB(3))
		return 2;
	return buffer_differs(&self->buf) != -1;
}

TEST_F(blk, cow_when_child_reads_disk)
{
	struct child child;

	ASSERT_EQ(0, child_fork(&child, child_reads_into_its_own, self));
	EXPECT_EQ(0, child_do(&child));
	EXPECT_EQ(-1, buffer_differs(&self->buf));
	EXPECT_EQ(0, child_end(&child));
}

/* Concurrent changes */

static int move_away_and_back(struct worker *worker)
{
	struct buffer *buf = &worker->rig->buf;
	int err = gpu_to_ram(worker->gpu, buf->mem, buf->size);

	if (!err && worker->rounds % 2)
		err = madvise(buf->mem, HUGE_PAGE, MADV_PAGEOUT) ? -errno : 0;
	return err ? err : gpu_to_vram(worker->gpu, buf->mem, buf->size, NULL);
}

/* A request may be done only in part while the memory keeps moving. */
static int transfer_all(FIXTURE_DATA(blk) *self, uint32_t flags, size_t at,
			size_t size, off_t pos)
{
	ssize_t done;
	double start;

	for (; size; at += done, pos += done, size -= done) {
		do {
			start = now();
			done = transfer(self, flags, at, size, pos);
		} while (is_out_of_patience(done, start));
		if (done <= 0)
			return done ? done : -EIO;
	}
	return 0;
}

TEST_F(blk, disk_io_keeps_data_while_pages_migrate)
{
	struct rig rig = { .buf = self->buf };
	struct worker worker = { .rig = &rig, .gpu = self->gpu[0] };
	size_t size = MIB(3) + SECTOR, at, pos;
	int i;

	ASSERT_EQ(0, worker_start(&worker, move_away_and_back));
	for (i = 0; (i < 24 || worker.rounds < 4) && !worker.err; i++) {
		at = (i * 37 + 1) * (PAGE + SECTOR) % (SIZE - size);
		pos = (i * 41 + 3) * (PAGE - SECTOR) % (SIZE - size);
		EXPECT_EQ(0, transfer_all(self, i % 3 ? 0 : HMM_BLK_WRITE, at,
					  size, pos));
	}
	EXPECT_EQ(0, worker_stop(&worker));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->buf, self->gpu[0]));
}

/* Writes only to the end of the disk, which the disk's shadow does not cover. */
static void __attribute__((noreturn)) run_until_killed(volatile int *ready)
{
	int blk = blk_open(), disk = open(DISK, O_RDWR), gpu = gpu_open(0);
	struct buffer buf;

	if (buffer_map(&buf, MIB(8), MADV_HUGEPAGE))
		_exit(1);
	buffer_write(&buf, 0, buf.size);
	if (buffer_to_vram(&buf, gpu, 0, buf.size))
		_exit(2);

	*ready = 1;
	alarm(20 * slowness());
	while (blk_io(blk, 0, disk, buf.mem, buf.size, END - MIB(16)) > 0 &&
	       blk_io(blk, 1, disk, buf.mem, buf.size, END - MIB(8)) > 0)
		;
	_exit(3);
}

TEST_F(blk, sigkill_ends_process_during_disk_io)
{
	volatile int *ready = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int i, status;
	time_t start;
	pid_t pid;

	ASSERT_NE(MAP_FAILED, ready);
	for (i = 0; i < 4; i++) {
		*ready = 0;
		pid = fork();
		if (!pid)
			run_until_killed(ready);
		ASSERT_EQ(0, wait_until(ready, 1));
		usleep(i * 7000);
		start = time(NULL);
		EXPECT_EQ(0, kill(pid, SIGKILL));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_GT(start + 5, time(NULL));
		EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}

	ASSERT_EQ(0, buffer_to_vram(&self->buf, self->gpu[0], 0, SIZE));
	READ(0, MIB(1), MIB(1));
}

/*
 * A window over half of VRAM, with all of VRAM in use. A window with struct pages
 * cannot end in the middle of a huge page.
 */

FIXTURE(blk_window) {
	int blk;
	int disk;
	int gpu[2];
	uint64_t vram_free[2];
	struct buffer all;
	struct buffer data;
};

FIXTURE_VARIANTS_BY_ADVICE(blk_window);

FIXTURE_SETUP(blk_window)
{
	struct drm_vsvm_info info;

	ASSERT_EQ(0, vsvm_load("p2p_pages=1 window_mb=129"));
	self->blk = blk_open();
	ASSERT_LE(0, self->blk);
	self->disk = open(DISK, O_RDWR | O_DIRECT | O_CLOEXEC);
	ASSERT_LE(0, self->disk);
	ASSERT_EQ(0, buffer_map(&self->data, MIB(8) + SECTOR, MADV_HUGEPAGE));

	ASSERT_EQ(0, gpus_open(self->gpu, self->vram_free));
	ASSERT_EQ(0, gpu_info(self->gpu[0], &info));
	if (info.vram_size < MIB(256))
		SKIP(return, "VRAM is too small");
	ASSERT_EQ(MIB(128), info.window_size);
	ASSERT_EQ(0, vram_fill(self->gpu[0], &self->all, variant->advice));
}

FIXTURE_TEARDOWN(blk_window)
{
	buffer_unmap(&self->all);
	buffer_unmap(&self->data);
	EXPECT_EQ(0, gpus_close(self->gpu, self->vram_free));
	close(self->disk);
	close(self->blk);
}

static bool in_window(FIXTURE_DATA(blk_window) *self, size_t at)
{
	return pages_in_reach(self->gpu[1], self->all.mem + at, HUGE_PAGE);
}

/* Pages in the window stay where they are, and the others migrate. */
static void request_at_end(struct __test_metadata *_metadata,
			   FIXTURE_DATA(blk_window) *self,
			   const char *reason, uint32_t flags, size_t at)
{
	size_t first = at / HUGE_PAGE * HUGE_PAGE, pos;
	uint64_t stay = 0, go = 0, fallback, evicted;

	for (pos = first; pos < at + self->data.size; pos += HUGE_PAGE)
		*(in_window(self, pos) ? &stay : &go) += HUGE_PAGE_NR;
	ASSERT_LT(0, go);
	ASSERT_EQ(reachable(), stay != 0);

	evicted = pages_evicted(self->gpu[0]);
	fallback = stat_read(reason);
	EXPECT_EQ(self->data.size,
		  blk_io(self->blk, flags, self->disk, self->all.mem + at,
			 self->data.size, SECTOR));
	EXPECT_LE(fallback + go / HUGE_PAGE_NR, stat_read(reason));
	EXPECT_EQ(evicted + go, pages_evicted(self->gpu[0]));
	EXPECT_EQ(stay, pages_in_vram(self->gpu[0], self->all.mem + first,
				      (stay + go) * PAGE));
}

TEST_F(blk_window, disk_io_across_window_end_migrates_pages_outside)
{
	const char *reason = reachable() ? "fallback_outside_window" :
					   "fallback_unreachable";
	struct buffer *data = &self->data;
	size_t at = 0;

	EXPECT_EQ(reachable() ? MIB(128) / PAGE : 0,
		  pages_in_reach(self->gpu[1], self->all.mem, self->all.size));

	/* Find two neighbouring huge pages, of which only one is in the window. */
	if (reachable()) {
		while (in_window(self, at) == in_window(self, at + HUGE_PAGE))
			at += HUGE_PAGE;
	}
	at = at < MIB(4) ? SECTOR : at - MIB(4) + SECTOR;

	buffer_write(data, 0, data->size);
	ASSERT_EQ(data->size, pwrite(self->disk, data->mem, data->size, SECTOR));
	request_at_end(_metadata, self, reason, 0, at);
	EXPECT_EQ(-1, differs(self->all.mem + at, data->shadow, data->size));

	ASSERT_EQ(0, gpu_xor(self->gpu[0], self->all.mem + at, data->size, ~0));
	request_at_end(_metadata, self, reason, HMM_BLK_WRITE, at);
	ASSERT_EQ(data->size, pread(self->disk, data->mem, data->size, SECTOR));
	EXPECT_EQ(-1, differs(self->all.mem + at, data->mem, data->size));
	EXPECT_EQ(0xff, data->mem[0] ^ data->shadow[0]);
	EXPECT_EQ(0xff, data->mem[data->size - 1] ^ data->shadow[data->size - 1]);
}

/* Compare each call: O_DIRECT with memory in RAM, and ours with memory in RAM or VRAM. */

FIXTURE(o_direct) {
	int blk;
	int gpu;
	int fds[6];
	struct buffer ram;
	struct buffer buf;
	struct buffer seen;
};

FIXTURE_VARIANT(o_direct) {
	bool in_vram;
};

FIXTURE_VARIANT_ADD(o_direct, ram) {
	.in_vram = false,
};

FIXTURE_VARIANT_ADD(o_direct, vram) {
	.in_vram = true,
};

enum { RW, RO, WO, NAME_ONLY, SWAP, CLOSED };

/* Offsets, in both buffers, of pages that are not like the others. */
#define HOLE		MIB(1)
#define READONLY	MIB(2)
#define NO_ACCESS	MIB(3)
#define KEY		(MIB(3) + KIB(512))

static int spoil(struct buffer *buf)
{
	static int key;

	if (!key)
		key = pkey_alloc(0, PKEY_DISABLE_ACCESS);
	if (key < 0 || munmap(buf->mem + HOLE, PAGE) ||
	    mprotect(buf->mem + READONLY, PAGE, PROT_READ) ||
	    mprotect(buf->mem + NO_ACCESS, PAGE, PROT_NONE) ||
	    pkey_mprotect(buf->mem + KEY, PAGE, PROT_READ | PROT_WRITE, key))
		return -errno;
	return 0;
}

FIXTURE_SETUP(o_direct)
{
	static const int flags[] = { O_RDWR, O_RDONLY, O_WRONLY, O_PATH };
	off_t end;
	int i;

	ASSERT_EQ(0, vsvm_load("p2p_pages=1"));
	self->blk = blk_open();
	ASSERT_LE(0, self->blk);
	self->gpu = gpu_open(0);
	ASSERT_LE(0, self->gpu);
	for (i = 0; i < 4; i++) {
		self->fds[i] = open(DISK, flags[i] | O_DIRECT | O_CLOEXEC);
		ASSERT_LE(0, self->fds[i]);
	}
	self->fds[SWAP] = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);
	ASSERT_LE(0, self->fds[SWAP]);
	self->fds[CLOSED] = dup(self->fds[RW]);
	close(self->fds[CLOSED]);

	ASSERT_EQ(0, ioctl(self->fds[RW], BLKGETSIZE64, &end));
	ASSERT_EQ(END, end);

	ASSERT_EQ(0, buffer_map(&self->ram, MIB(4), MADV_NOHUGEPAGE));
	ASSERT_EQ(0, buffer_map(&self->buf, MIB(4), MADV_NOHUGEPAGE));
	ASSERT_EQ(0, buffer_map(&self->seen, MIB(4), MADV_NOHUGEPAGE));
	buffer_write(&self->buf, 0, MIB(4));
	if (variant->in_vram)
		ASSERT_EQ(0, buffer_to_vram(&self->buf, self->gpu, 0, MIB(4)));
	memcpy(self->ram.mem, self->buf.shadow, MIB(4));
	ASSERT_EQ(0, spoil(&self->ram));
	ASSERT_EQ(0, spoil(&self->buf));
}

FIXTURE_TEARDOWN(o_direct)
{
	int i;

	for (i = 0; i < CLOSED; i++)
		close(self->fds[i]);
	buffer_unmap(&self->seen);
	buffer_unmap(&self->buf);
	buffer_unmap(&self->ram);
	close(self->gpu);
	close(self->blk);
}

struct call {
	const char *what;
	ssize_t want;
	size_t size;
	off_t pos;
	ssize_t at;	/* offset in the memory, or, if @absolute, an address */
	bool absolute;
	bool write;
	int fd;
};

#define READS(_what, _want, _size, ...)					\
	{ .what = _what, .want = _want, .size = _size, __VA_ARGS__ }
#define WRITES(_what, _want, _size, ...)				\
	READS(_what, _want, _size, .write = true, __VA_ARGS__)

static const struct call calls[] = {
	READS("nothing special", KIB(64), KIB(64)),
	WRITES("nothing special", KIB(64), KIB(64)),
	READS("one sector", SECTOR, SECTOR, .pos = 3 * SECTOR,
	      .at = 5 * SECTOR),
	WRITES("one sector", SECTOR, SECTOR, .pos = 3 * SECTOR,
	       .at = 5 * SECTOR),

	READS("up to the end", PAGE, PAGE, .pos = END - PAGE),
	WRITES("up to the end", PAGE, PAGE, .pos = END - PAGE),
	READS("across the end", PAGE, KIB(64), .pos = END - PAGE),
	WRITES("across the end", PAGE, KIB(64), .pos = END - PAGE),
	READS("at the end", 0, PAGE, .pos = END),
	WRITES("at the end", -ENOSPC, PAGE, .pos = END),
	READS("behind the end", 0, PAGE, .pos = END + MIB(1)),
	WRITES("behind the end", -ENOSPC, PAGE, .pos = END + MIB(1)),
	READS("misaligned, but not once cut off", PAGE, PAGE + 1,
	      .pos = END - PAGE),
	WRITES("misaligned, but not once cut off", PAGE, PAGE + 1,
	       .pos = END - PAGE),
	READS("misaligned behind the end", 0, PAGE, .pos = END + 1),
	WRITES("misaligned behind the end", -ENOSPC, PAGE, .pos = END + 1),

	READS("nothing", 0, 0),
	WRITES("nothing", 0, 0),
	READS("nothing, misaligned", 0, 0, .pos = 1),
	WRITES("nothing, misaligned", 0, 0, .pos = 1),
	WRITES("nothing, behind the end", 0, 0, .pos = END),
	READS("nothing, at a hole", 0, 0, .at = HOLE),

	READS("offset of 1", -EINVAL, PAGE, .pos = 1),
	WRITES("offset of 1", -EINVAL, PAGE, .pos = 1),
	READS("offset of half a sector", -EINVAL, PAGE, .pos = SECTOR / 2),
	READS("size of 1", -EINVAL, 1),
	WRITES("size of 1", -EINVAL, 1),
	READS("size of a sector less 1", -EINVAL, SECTOR - 1),
	READS("size of a page and 1", -EINVAL, PAGE + 1),
	READS("address of 1", -EINVAL, PAGE, .at = 1),
	WRITES("address of 1", -EINVAL, PAGE, .at = 1),
	READS("address of a page less 1", -EINVAL, PAGE, .at = PAGE - 1),

	READS("offset of -1", -EINVAL, PAGE, .pos = -1),
	WRITES("offset of -1", -EINVAL, PAGE, .pos = -1),
	READS("offset of minus a page", -EINVAL, PAGE, .pos = -(off_t)PAGE),
	READS("smallest offset", -EINVAL, PAGE, .pos = LONG_MIN),
	READS("largest offset", -EINVAL, PAGE, .pos = LONG_MAX - SECTOR + 1),
	WRITES("largest offset", -EINVAL, PAGE, .pos = LONG_MAX - SECTOR + 1),
	READS("large offset", 0, PAGE, .pos = 1L << 60),
	WRITES("large offset", -ENOSPC, PAGE, .pos = 1L << 60),

	READS("size of 3 GiB", PAGE, 3UL << 30, .pos = END - PAGE),
	WRITES("size of 3 GiB", PAGE, 3UL << 30, .pos = END - PAGE),
	READS("size of 3 GiB and 1", PAGE, (3UL << 30) + 1, .pos = END - PAGE),
	READS("largest size", -EFAULT, SIZE_MAX, .pos = END - PAGE),
	WRITES("largest size", -EFAULT, SIZE_MAX, .pos = END - PAGE),
	READS("largest signed size", -EFAULT, SSIZE_MAX, .pos = END - PAGE),
	READS("largest size, behind the end", -EFAULT, SIZE_MAX, .pos = END),

	READS("fd that is not open", -EBADF, PAGE, .fd = CLOSED),
	WRITES("fd that is not open", -EBADF, PAGE, .fd = CLOSED),
	READS("fd that is not open, nothing", -EBADF, 0, .fd = CLOSED),
	READS("fd of a name", -EBADF, PAGE, .fd = NAME_ONLY),
	READS("fd for writing", -EBADF, PAGE, .fd = WO),
	READS("fd for writing, nothing", -EBADF, 0, .fd = WO),
	WRITES("fd for writing", PAGE, PAGE, .fd = WO),
	WRITES("fd for reading", -EBADF, PAGE, .fd = RO),
	READS("fd for reading", PAGE, PAGE, .fd = RO),

	WRITES("swap", -ETXTBSY, PAGE, .fd = SWAP),
	WRITES("swap, nothing", -ETXTBSY, 0, .fd = SWAP),
	READS("swap", PAGE, PAGE, .fd = SWAP),

	READS("across a hole", KIB(32), KIB(64), .at = HOLE - KIB(32)),
	WRITES("across a hole", KIB(32), KIB(64), .at = HOLE - KIB(32)),
	READS("across a hole, by sectors", KIB(32) + SECTOR, KIB(64),
	      .pos = SECTOR, .at = HOLE - KIB(32) - SECTOR),
	READS("sector before a hole", SECTOR, 2 * SECTOR, .at = HOLE - SECTOR),
	READS("hole", -EFAULT, KIB(64), .at = HOLE),
	WRITES("hole", -EFAULT, KIB(64), .at = HOLE),
	READS("read-only memory", -EFAULT, PAGE, .at = READONLY),
	WRITES("read-only memory", PAGE, PAGE, .at = READONLY),
	READS("across read-only memory", KIB(32), KIB(64),
	      .at = READONLY - KIB(32)),
	WRITES("across read-only memory", KIB(64), KIB(64),
	       .at = READONLY - KIB(32)),
	READS("no access", -EFAULT, PAGE, .at = NO_ACCESS),
	WRITES("no access", -EFAULT, PAGE, .at = NO_ACCESS),
	WRITES("across no access", KIB(4), KIB(64), .at = NO_ACCESS - KIB(4)),
	READS("protection key", -EFAULT, PAGE, .at = KEY),
	WRITES("protection key", -EFAULT, PAGE, .at = KEY),
	READS("across a protection key", KIB(32), KIB(64), .at = KEY - KIB(32)),
	WRITES("across a protection key", KIB(32), KIB(64), .at = KEY - KIB(32)),
	READS("null", -EFAULT, PAGE, .absolute = true),
	WRITES("null", -EFAULT, PAGE, .absolute = true),
	READS("address of the kernel", -EFAULT, PAGE, .at = -(ssize_t)MIB(16),
	      .absolute = true),
	READS("last address", -EFAULT, PAGE, .at = -(ssize_t)PAGE,
	      .absolute = true),
};

static const uint8_t *call_mem(const struct call *call, struct buffer *buf)
{
	return (call->absolute ? NULL : buf->mem) + call->at;
}

static ssize_t call_direct(const struct call *call, int fd, const void *mem)
{
	ssize_t done = call->write ? pwrite(fd, mem, call->size, call->pos) :
				     pread(fd, (void *)mem, call->size, call->pos);

	return done < 0 ? -errno : done;
}

TEST_F(o_direct, hmm_blk_returns_the_same_as_o_direct)
{
	const struct call *call;
	ssize_t direct, ours;

	for (call = calls; call < calls + ARRAY_LEN(calls); call++) {
		const uint8_t *ram = call_mem(call, &self->ram);
		const uint8_t *mem = call_mem(call, &self->buf);
		int fd = self->fds[call->fd];
		bool wrote = call->write && call->want > 0;

		direct = call_direct(call, fd, ram);
		if (wrote) {
			EXPECT_EQ(direct, pread(self->fds[RW], self->seen.mem,
						direct, call->pos));
			EXPECT_EQ(-1, differs(self->seen.mem, ram, direct));
			memset(self->seen.mem, 0, direct);
			EXPECT_EQ(direct, pwrite(self->fds[RW], self->seen.mem,
						 direct, call->pos));
		}

		ours = blk_io(self->blk, call->write ? HMM_BLK_WRITE : 0, fd,
			      mem, call->size, call->pos);
		EXPECT_EQ(call->want, direct);
		EXPECT_EQ(call->want, ours);
		if (direct != call->want || ours != call->want) {
			TH_LOG("%s: %s", call->write ? "write" : "read",
			       call->what);
			continue;
		}

		if (wrote)
			EXPECT_EQ(ours, pread(self->fds[RW], self->seen.mem,
					      ours, call->pos));
		if (call->want > 0) {
			EXPECT_EQ(-1, differs(ram, wrote ? self->seen.mem : mem,
					      ours));
		}
	}
}

/* O_DIRECT returns no short count if the pages before the hole need more than one bio. */
TEST_F(o_direct, hmm_blk_returns_short_count_before_hole)
{
	uint8_t *mem = self->buf.mem;

	EXPECT_EQ(HOLE, blk_io(self->blk, 0, self->fds[RW], mem, MIB(3), 0));
	EXPECT_EQ(READONLY - HOLE - PAGE,
		  blk_io(self->blk, 0, self->fds[RW], mem + HOLE + PAGE, MIB(3),
			 SECTOR));
	EXPECT_EQ(NO_ACCESS - HOLE - PAGE,
		  blk_io(self->blk, HMM_BLK_WRITE, self->fds[RW],
			 mem + HOLE + PAGE, MIB(3), SECTOR));
}

TEST(disk_io_on_memfd_secret_fails_with_efault)
{
	int blk = blk_open(), disk = open(DISK, O_RDWR | O_DIRECT | O_CLOEXEC);
	uint8_t *mem = secret_map(PAGE);

	ASSERT_NE(NULL, mem);
	memcpy(mem, "secret", 7);
	EXPECT_EQ(-EFAULT, blk_io(blk, 0, disk, mem, PAGE, 0));
	EXPECT_EQ(-EFAULT, blk_io(blk, HMM_BLK_WRITE, disk, mem, PAGE, 0));
	EXPECT_EQ(0, strcmp((char *)mem, "secret"));
	munmap(mem, PAGE);
	close(disk);
	close(blk);
}

TEST_F(o_direct, disk_write_to_read_only_disk_fails_with_eperm)
{
	struct call call = { .size = PAGE, .write = true };
	int fd = self->fds[RW], on = 1, off = 0;
	ssize_t direct, ours, nothing;

	ASSERT_EQ(0, ioctl(fd, BLKROSET, &on));
	direct = call_direct(&call, fd, self->ram.mem);
	ours = blk_io(self->blk, HMM_BLK_WRITE, fd, self->buf.mem, PAGE, 0);
	nothing = blk_io(self->blk, HMM_BLK_WRITE, fd, self->buf.mem, 0, 0);
	EXPECT_EQ(PAGE, blk_io(self->blk, 0, fd, self->buf.mem, PAGE, 0));
	ASSERT_EQ(0, ioctl(fd, BLKROSET, &off));
	EXPECT_EQ(-EPERM, direct);
	EXPECT_EQ(-EPERM, ours);
	EXPECT_EQ(-EPERM, nothing);
	EXPECT_EQ(PAGE, blk_io(self->blk, HMM_BLK_WRITE, fd, self->buf.mem,
			       PAGE, 0));
}

/* O_DIRECT has no counterpart of these calls. */
TEST_F(o_direct, hmm_blk_ioctl_rejects_invalid_arguments)
{
	int blk = self->blk, disk = self->fds[RW];
	uint8_t *mem = self->buf.mem;
	int null = open("/dev/null", O_RDWR), file = open("/proc/self/exe", 0);

	EXPECT_EQ(-ENOTBLK, blk_io(blk, 0, null, mem, PAGE, 0));
	EXPECT_EQ(-ENOTBLK, blk_io(blk, HMM_BLK_WRITE, null, mem, PAGE, 0));
	EXPECT_EQ(-ENOTBLK, blk_io(blk, 0, file, mem, PAGE, 0));
	EXPECT_EQ(-ENOTBLK, blk_io(blk, 0, blk, mem, PAGE, 0));
	EXPECT_EQ(-EBADF, blk_io(blk, 0, -1, mem, PAGE, 0));
	EXPECT_EQ(-EINVAL, blk_io(blk, 2, disk, mem, PAGE, 0));
	EXPECT_EQ(-EINVAL, blk_io(blk, HMM_BLK_WRITE | 1U << 31, disk, mem,
				  PAGE, 0));
	/* The disk itself would accept this alignment. */
	EXPECT_EQ(-EINVAL, blk_io(blk, 0, disk, mem + 4, PAGE, 0));

	EXPECT_EQ(-1, ioctl(blk, HMM_BLK_IO + 1, mem));
	EXPECT_EQ(ENOTTY, errno);
	EXPECT_EQ(-1, ioctl(blk, HMM_BLK_IO, NULL));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, ioctl(blk, HMM_BLK_IO, mem + HOLE));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, ioctl(blk, HMM_BLK_IO, mem + HOLE - 8));
	EXPECT_EQ(EFAULT, errno);
	close(null);
	close(file);
}

TEST_F(o_direct, hmm_blk_ioctl_writes_only_the_done_field)
{
	struct hmm_blk_io io = {
		.fd = self->fds[RW],
		.addr = (uintptr_t)self->buf.mem,
		.size = 3UL << 30,
		.offset = END - PAGE,
	};
	struct hmm_blk_io want = io;

	want.done = PAGE;
	EXPECT_EQ(0, ioctl(self->blk, HMM_BLK_IO, &io));
	EXPECT_EQ(0, memcmp(&io, &want, sizeof(io)));
}

/* The struct pages come with an allocator that user space can use as well. */

static void p2pmem_path(char *path, size_t size, unsigned int index,
			const char *name)
{
	int gpu = gpu_open(index);
	char pci[32] = "";

	gpu_pci_address(gpu, pci, sizeof(pci));
	close(gpu);
	snprintf(path, size, "/sys/bus/pci/devices/%s/p2pmem/%s", pci, name);
}

static uint64_t p2pmem_read(unsigned int index, const char *name)
{
	unsigned long long value;
	char path[128];
	FILE *file;

	p2pmem_path(path, sizeof(path), index, name);
	file = fopen(path, "r");
	if (!file || fscanf(file, "%llu", &value) != 1)
		value = ~0ULL;
	if (file)
		fclose(file);
	return value;
}

static int p2pmem_allocate(unsigned int index, size_t size)
{
	char path[128];
	void *mem;
	int fd;

	p2pmem_path(path, sizeof(path), index, "allocate");
	fd = open(path, O_RDWR);
	if (fd < 0)
		return -errno;
	mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return mem == MAP_FAILED ? -errno : 0;
}

static uint64_t mem_available(void)
{
	return KIB(field_read("/proc/meminfo", "MemAvailable"));
}

static int vram_is_used_by_disk(void)
{
	int blk = blk_open(), disk = open(DISK, O_RDWR | O_DIRECT);
	int gpu = gpu_open(0), err;
	struct buffer buf;

	err = buffer_map(&buf, MIB(4), MADV_HUGEPAGE);
	if (!err)
		err = buffer_to_vram(&buf, gpu, 0, buf.size);
	if (!err && blk_io(blk, 0, disk, buf.mem, buf.size, 0) != MIB(4))
		err = -EIO;
	buffer_unmap(&buf);
	close(gpu);
	close(disk);
	close(blk);
	return err;
}

TEST(p2pmem_allocate_gives_user_space_no_vram)
{
	struct drm_vsvm_info info;
	unsigned int i;

	ASSERT_EQ(0, vsvm_reload("p2p_pages=1"));
	for (i = 0; i < 2; i++) {
		int gpu = gpu_open(i);

		ASSERT_EQ(0, gpu_info(gpu, &info));
		close(gpu);
		EXPECT_EQ(info.window_size, p2pmem_read(i, "size"));
		EXPECT_EQ(0, p2pmem_read(i, "available"));
		EXPECT_EQ(0, p2pmem_read(i, "published"));
		EXPECT_EQ(-ENOMEM, p2pmem_allocate(i, PAGE));
		EXPECT_EQ(-ENOMEM, p2pmem_allocate(i, HUGE_PAGE));
	}

	ASSERT_EQ(0, vsvm_reload("p2p_pages=0"));
	EXPECT_EQ(~0ULL, p2pmem_read(0, "size"));
	EXPECT_EQ(-ENOENT, p2pmem_allocate(0, PAGE));
}

/* Each time the module is loaded, struct pages of both GPUs take 8 MiB. */
TEST(module_reload_leaks_no_p2pdma_struct_pages)
{
	uint64_t available;
	int i;

	ASSERT_EQ(0, vsvm_reload("p2p_pages=1"));
	ASSERT_EQ(0, vram_is_used_by_disk());
	available = mem_available();
	for (i = 0; i < 6; i++) {
		ASSERT_EQ(0, vsvm_reload("p2p_pages=1"));
		ASSERT_EQ(0, vram_is_used_by_disk());
		EXPECT_EQ(0, p2pmem_read(0, "available"));
	}
	EXPECT_LT(available, mem_available() + MIB(32));
}

VSVM_HARNESS_MAIN
