// SPDX-License-Identifier: GPL-2.0
/*
 * The ioctls of vsvm: they do what they should, and refuse invalid input.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpu.h"
#include "lib/child.h"
#include "lib/file.h"
#include "lib/harness.h"
#include "lib/page.h"
#include "lib/rig.h"
#include "lib/vram.h"
#include "lib/worker.h"

#define SIZE	MIB(4)
#define PAGES	(SIZE / PAGE)

#define KEY	0xa5a5c3c30f0f1234

FIXTURE(uapi) {
	int gpu;
	uint64_t vram_free;
	struct buffer buf;
	struct buffer src;
	uint64_t sum;
	struct drm_vsvm_residency where;
};

FIXTURE_SETUP(uapi)
{
	self->gpu = gpu_open(0);
	ASSERT_LE(0, self->gpu);
	self->vram_free = vram_free(self->gpu);
	ASSERT_EQ(0, buffer_map(&self->buf, SIZE, MADV_HUGEPAGE));
	ASSERT_EQ(0, buffer_map(&self->src, SIZE, MADV_HUGEPAGE));
	buffer_write(&self->buf, 0, SIZE);
	buffer_write(&self->src, 0, SIZE);
}

/* Whatever the test has done, the data is as expected. */
FIXTURE_TEARDOWN(uapi)
{
	EXPECT_EQ(-1, buffer_differs(&self->buf));
	EXPECT_EQ(-1, buffer_differs(&self->src));
	buffer_unmap(&self->buf);
	buffer_unmap(&self->src);
	EXPECT_EQ(0, vram_leaked(self->gpu, self->vram_free));
	close(self->gpu);
}

/* Operations */

static const struct piece {
	size_t offset;
	size_t size;
} pieces[] = {
	{ 0, 8 },
	{ PAGE - 8, 16 },
	{ 3 * PAGE + 24, 5 * PAGE - 16 },
	{ HUGE_PAGE - 8, PAGE + 16 },
	{ 8, SIZE - 8 },
	{ 0, SIZE },
};

/*
 * Slab memory that cannot be reclaimed. KASAN keeps freed memory for a while, until
 * its cache is shrunk.
 */
static uint64_t slab_size(void)
{
	system("for f in /sys/kernel/slab/kmalloc-*/shrink; do echo 1 >$f; done");
	return KIB(field_read("/proc/meminfo", "SUnreclaim"));
}

static uint64_t sum_words(const void *words, size_t size)
{
	const uint64_t *p = words;
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < size / sizeof(*p); i++)
		sum += p[i];
	return sum;
}

TEST_F(uapi, op_sum_adds_up_words)
{
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(pieces); i++) {
		const struct piece *p = &pieces[i];

		ASSERT_EQ(0, gpu_sum(self->gpu, self->buf.mem + p->offset,
				     p->size, &self->sum));
		EXPECT_EQ(sum_words(self->buf.shadow + p->offset, p->size),
			  self->sum);
	}
}

TEST_F(uapi, op_xor_changes_words)
{
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(pieces); i++) {
		const struct piece *p = &pieces[i];

		ASSERT_EQ(0, buffer_xor(&self->buf, self->gpu, p->offset,
					p->size));
		EXPECT_EQ(-1, buffer_differs_on_gpu(&self->buf, self->gpu));
	}
}

TEST_F(uapi, op_fill_sets_words)
{
	unsigned int i;
	size_t pos;

	for (i = 0; i < ARRAY_LEN(pieces); i++) {
		const struct piece *p = &pieces[i];
		uint64_t value = KEY + i;

		ASSERT_EQ(0, gpu_fill(self->gpu, self->buf.mem + p->offset,
				      p->size, value));
		for (pos = 0; pos < p->size; pos += sizeof(value))
			memcpy(self->buf.shadow + p->offset + pos, &value,
			       sizeof(value));
		EXPECT_EQ(-1, buffer_differs(&self->buf));
	}
}

TEST_F(uapi, op_copy_copies_words)
{
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(pieces); i++) {
		const struct piece *p = &pieces[i];
		size_t from = (p->offset + 7 * PAGE + 8) % (SIZE - p->size + 8);

		ASSERT_EQ(0, buffer_xor(&self->src, self->gpu, from, p->size));
		ASSERT_EQ(0, gpu_copy(self->gpu, self->buf.mem + p->offset,
				      self->src.mem + from, p->size));
		memcpy(self->buf.shadow + p->offset, self->src.shadow + from,
		       p->size);
		EXPECT_EQ(-1, buffer_differs(&self->buf));
	}
}

TEST_F(uapi, op_copy_copies_to_adjacent_range)
{
	ASSERT_EQ(0, gpu_copy(self->gpu, self->buf.mem + HUGE_PAGE,
			      self->buf.mem, HUGE_PAGE));
	memcpy(self->buf.shadow + HUGE_PAGE, self->buf.shadow, HUGE_PAGE);
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->buf, self->gpu));
}

/* Memory that is in swap, not populated, split, or of two sizes at first. */
TEST_F(uapi, op_works_on_swapped_split_and_missing_pages)
{
	uint8_t *mem = self->buf.mem, *shadow = self->buf.shadow;
	size_t pos;

	ASSERT_EQ(0, gpu_to_vram(self->gpu, mem, HUGE_PAGE, NULL));
	for (pos = HUGE_PAGE / 2; pos < SIZE - PAGE; pos += 7 * PAGE) {
		ASSERT_EQ(0, madvise(mem + pos, PAGE, MADV_PAGEOUT));
		ASSERT_EQ(0, madvise(mem + pos + PAGE, PAGE, MADV_DONTNEED));
		memset(shadow + pos + PAGE, 0, PAGE);
	}
	ASSERT_EQ(0, buffer_xor(&self->buf, self->gpu, 8, SIZE - 16));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->buf, self->gpu));
}

TEST_F(uapi, results_are_zero_but_for_a_sum)
{
	struct drm_vsvm_op op = {
		.addr = (uintptr_t)self->buf.mem,
		.size = SIZE,
		.op = DRM_VSVM_OP_XOR,
		.operand = 0,
		.result = KEY,
	};

	ASSERT_EQ(0, ioctl(self->gpu, DRM_IOCTL_VSVM_OP, &op));
	EXPECT_EQ(0, op.result);
}

TEST_F(uapi, prefetch_moves_pages_to_vram_and_back)
{
	uint64_t pages;

	ASSERT_EQ(0, gpu_to_vram(self->gpu, self->buf.mem, SIZE, &pages));
	EXPECT_EQ(PAGES, pages);
	EXPECT_EQ(PAGES, pages_in_vram(self->gpu, self->buf.mem, SIZE));
	ASSERT_EQ(0, buffer_xor(&self->buf, self->gpu, 8, SIZE - 16));
	ASSERT_EQ(0, gpu_to_ram(self->gpu, self->buf.mem, SIZE));
	EXPECT_EQ(0, pages_in_vram(self->gpu, self->buf.mem, SIZE));
	EXPECT_TRUE(page_is_present(self->buf.mem + SIZE - PAGE));
}

#define FAIL	"/sys/kernel/debug/fail_page_alloc/"

/* Let RAM seem to have no huge page left. */
static int fail_huge_pages(bool fail)
{
	int err = file_write(FAIL "min-order", "9");

	if (!err)
		err = file_write(FAIL "times", "-1");
	if (!err)
		err = file_write(FAIL "ignore-gfp-wait", "0");
	if (!err)
		err = file_write(FAIL "ignore-gfp-highmem", "0");
	return err ? err : file_write(FAIL "probability", fail ? "100" : "0");
}

TEST_F(uapi, shared_thp_is_split_if_ram_has_no_huge_page)
{
	struct child child;

	if (slowness() == 1 && fail_huge_pages(false))
		SKIP(return, "no fail_page_alloc: needs DEBUG=1");
	ASSERT_EQ(0, buffer_to_vram(&self->buf, self->gpu, 0, SIZE));
	ASSERT_EQ(PAGES, huge_pages_in_vram(self->gpu, self->buf.mem, SIZE));
	ASSERT_EQ(0, child_fork(&child, buffer_compare, &self->buf));
	ASSERT_EQ(0, fail_huge_pages(true));
	EXPECT_EQ(-1, buffer_differs(&self->buf));
	EXPECT_EQ(0, child_do(&child));
	EXPECT_EQ(0, fail_huge_pages(false));
	EXPECT_EQ(0, child_end(&child));
}

TEST_F(uapi, thp_is_split_by_cpu_fault_if_ram_has_no_huge_page)
{
	volatile uint8_t *middle = self->buf.mem + 5 * PAGE + 7;

	if (slowness() == 1 && fail_huge_pages(false))
		SKIP(return, "no fail_page_alloc: needs DEBUG=1");
	ASSERT_EQ(0, buffer_to_vram(&self->buf, self->gpu, 0, SIZE));
	ASSERT_EQ(PAGES, huge_pages_in_vram(self->gpu, self->buf.mem, SIZE));
	ASSERT_EQ(0, fail_huge_pages(true));
	*middle = self->buf.shadow[5 * PAGE + 7];
	EXPECT_EQ(-1, buffer_differs(&self->buf));
	EXPECT_EQ(0, fail_huge_pages(false));
}

TEST_F(uapi, prefetch_of_unpopulated_range_fills_vram_with_zeroes)
{
	struct drm_vsvm_counters before, after;
	struct buffer hole;
	uint64_t pages;

	ASSERT_EQ(0, buffer_map(&hole, SIZE, MADV_HUGEPAGE));
	ASSERT_EQ(0, gpu_counters(self->gpu, &before));
	ASSERT_EQ(0, gpu_to_vram(self->gpu, hole.mem, SIZE, &pages));
	EXPECT_EQ(PAGES, pages);
	ASSERT_EQ(0, gpu_counters(self->gpu, &after));
	EXPECT_EQ(before.pages_to_vram + PAGES, after.pages_to_vram);
	EXPECT_EQ(before.pages_to_ram, after.pages_to_ram);
	EXPECT_EQ(-1, buffer_differs_on_gpu(&hole, self->gpu));
	EXPECT_EQ(-1, buffer_differs(&hole));
	buffer_unmap(&hole);
}

TEST_F(uapi, residency_counts_vram_ram_and_missing_pages)
{
	struct buffer buf;

	ASSERT_EQ(0, buffer_map(&buf, SIZE, MADV_NOHUGEPAGE));
	buffer_write(&buf, 0, HUGE_PAGE + 3 * PAGE);
	ASSERT_EQ(0, gpu_to_vram(self->gpu, buf.mem, HUGE_PAGE, NULL));
	ASSERT_EQ(0, gpu_residency(self->gpu, buf.mem, SIZE, &self->where));
	EXPECT_EQ(HUGE_PAGE_NR, self->where.vram);
	EXPECT_EQ(0, self->where.huge);
	EXPECT_EQ(0, self->where.peer);
	EXPECT_EQ(3, self->where.ram);
	EXPECT_EQ(HUGE_PAGE_NR - 3, self->where.none);
	buffer_unmap(&buf);
}

TEST_F(uapi, counters_count_pages)
{
	struct drm_vsvm_counters before, after;

	ASSERT_EQ(0, gpu_counters(self->gpu, &before));
	ASSERT_EQ(0, buffer_to_vram(&self->buf, self->gpu, 0, SIZE));
	ASSERT_EQ(0, gpu_counters(self->gpu, &after));
	EXPECT_EQ(before.pages_to_vram + PAGES, after.pages_to_vram);
	EXPECT_EQ(before.pages_to_ram, after.pages_to_ram);
	EXPECT_EQ(before.vram_free - SIZE, after.vram_free);

	ASSERT_EQ(0, gpu_to_ram(self->gpu, self->buf.mem, SIZE));
	ASSERT_EQ(0, gpu_counters(self->gpu, &after));
	EXPECT_EQ(before.pages_to_vram + PAGES, after.pages_to_vram);
	EXPECT_EQ(before.pages_to_ram + PAGES, after.pages_to_ram);
	EXPECT_EQ(before.vram_free, after.vram_free);
}

static int may_work_but_not_count(void *arg)
{
	struct drm_vsvm_counters counters;
	struct buffer *buf = arg;
	int gpu = gpu_open(0);

	if (setresuid(65534, 65534, 65534))
		return -errno;
	return buffer_to_vram(buf, gpu, 0, buf->size) ||
	       gpu_counters(gpu, &counters) != -EPERM;
}

/* The counters tell what other processes do. */
TEST_F(uapi, counters_ioctl_requires_cap_perfmon)
{
	struct child child;

	ASSERT_EQ(0, child_fork(&child, may_work_but_not_count, &self->buf));
	EXPECT_EQ(0, child_do(&child));
	EXPECT_EQ(0, child_end(&child));
}

static int fills_vram(void *arg)
{
	volatile int *stage = arg;
	struct drm_vsvm_info info;
	int gpu = gpu_open(0), err;
	struct buffer buf;

	err = gpu_info(gpu, &info);
	if (!err)
		err = buffer_map(&buf, info.vram_size, MADV_NOHUGEPAGE);
	if (!err)
		err = buffer_to_vram(&buf, gpu, 0, buf.size);
	*stage = 1;
	return err ?: wait_until(stage, 2) ?: buffer_differs(&buf) != -1;
}

TEST_F(uapi, full_vram_evicts_memory_of_other_process)
{
	volatile int *stage = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct child child;

	ASSERT_NE(MAP_FAILED, stage);
	ASSERT_EQ(0, child_fork(&child, fills_vram, (void *)stage));
	ASSERT_EQ(0, child_start(&child));
	ASSERT_EQ(0, wait_until(stage, 1));
	EXPECT_EQ(0, vram_free(self->gpu));
	EXPECT_EQ(0, buffer_to_vram(&self->buf, self->gpu, 0, SIZE));
	EXPECT_EQ(PAGES, pages_in_vram(self->gpu, self->buf.mem, SIZE));
	*stage = 2;
	EXPECT_EQ(0, child_result(&child));
	EXPECT_EQ(0, child_end(&child));
}

/* The kernel keeps no memory for ranges in which nothing is mapped any more. */
TEST_F(uapi, driver_frees_ranges_without_mapping)
{
	const size_t size = MIB(2048);
	uint64_t before, after;
	uint8_t *mem;
	size_t pos;

	mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, mem);
	ASSERT_EQ(0, madvise(mem, size, MADV_HUGEPAGE));
	before = slab_size();
	for (pos = HUGE_PAGE - (uintptr_t)mem % HUGE_PAGE; pos < size - HUGE_PAGE;
	     pos += HUGE_PAGE) {
		ASSERT_EQ(0, gpu_sum(self->gpu, mem + pos, 8, &self->sum));
		ASSERT_EQ(0, madvise(mem + pos, HUGE_PAGE, MADV_DONTNEED));
	}
	after = slab_size();
	EXPECT_GT(before + MIB(4), after);
	munmap(mem, size);
}

TEST_F(uapi, all_of_vram_is_in_the_window)
{
	struct drm_vsvm_info info;

	ASSERT_EQ(0, gpu_info(self->gpu, &info));
	EXPECT_LT(SIZE, info.vram_size);
	EXPECT_EQ(info.vram_size, info.window_size);
	EXPECT_EQ(info.vram_size, self->vram_free);
}

TEST_F(uapi, op_works_on_more_memory_than_vram)
{
	struct drm_vsvm_info info;
	struct buffer big;
	uint64_t pages;

	ASSERT_EQ(0, gpu_info(self->gpu, &info));
	ASSERT_EQ(0, buffer_map(&big, info.vram_size + MIB(16), MADV_HUGEPAGE));
	buffer_write(&big, 0, big.size);
	ASSERT_EQ(0, gpu_to_vram(self->gpu, big.mem, big.size, &pages));
	EXPECT_LE(pages, info.vram_size / PAGE);
	EXPECT_GT(pages, info.vram_size / PAGE * 9 / 10);

	ASSERT_EQ(0, buffer_xor(&big, self->gpu, 8, big.size - 8));
	ASSERT_EQ(0, gpu_sum(self->gpu, big.mem, big.size, &self->sum));
	EXPECT_EQ(sum_words(big.shadow, big.size), self->sum);
	EXPECT_EQ(-1, buffer_differs(&big));
	buffer_unmap(&big);
}

/* Memory that cannot go to a device */

/* Prefetch is refused, and all operations work where the memory is. */
#define CHECK_STAYS(_mem, _size) do {					\
	struct buffer there = { .mem = _mem, .size = _size };		\
									\
	ASSERT_NE(MAP_FAILED, (void *)there.mem);			\
	there.shadow = malloc(there.size);				\
	ASSERT_NE(NULL, there.shadow);					\
	buffer_write(&there, 0, there.size);				\
	EXPECT_EQ(-EOPNOTSUPP, gpu_to_vram(self->gpu, there.mem,	\
					   there.size, NULL));		\
	EXPECT_EQ(0, buffer_xor(&there, self->gpu, 8, there.size - 16)); \
	EXPECT_EQ(-1, buffer_differs_on_gpu(&there, self->gpu));	\
	EXPECT_EQ(-1, buffer_differs(&there));				\
	EXPECT_EQ(0, gpu_copy(self->gpu, self->buf.mem + 8,		\
			      there.mem + 16, PAGE));			\
	memcpy(self->buf.shadow + 8, there.shadow + 16, PAGE);		\
	EXPECT_EQ(-1, buffer_differs(&self->buf));			\
	EXPECT_EQ(0, gpu_copy(self->gpu, there.mem + 16,		\
			      self->src.mem + 8, PAGE));		\
	memcpy(there.shadow + 16, self->src.shadow + 8, PAGE);		\
	EXPECT_EQ(-1, buffer_differs(&there));				\
	EXPECT_EQ(0, pages_in_vram(self->gpu, there.mem, there.size));	\
	free(there.shadow);						\
	munmap(there.mem, there.size);					\
} while (0)

TEST_F(uapi, file_memory_is_used_in_place)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, KIB(64)));
	CHECK_STAYS(mmap(NULL, KIB(64), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			 0), KIB(64));
	close(fd);
}

TEST_F(uapi, private_file_memory_is_used_in_place)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	ASSERT_LE(0, fd);
	CHECK_STAYS(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE,
			 fd, 0), 4 * PAGE);
	close(fd);
}

TEST_F(uapi, shared_memory_is_used_in_place)
{
	CHECK_STAYS(mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0), SIZE);
}

TEST_F(uapi, hugetlb_memory_is_used_in_place)
{
	void *mem;

	ASSERT_EQ(0, file_write("/proc/sys/vm/nr_hugepages", "2"));
	mem = mmap(NULL, 2 * HUGE_PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	ASSERT_NE(MAP_FAILED, mem);
	CHECK_STAYS(mem, 2 * HUGE_PAGE);
	EXPECT_EQ(0, file_write("/proc/sys/vm/nr_hugepages", "0"));
}

TEST_F(uapi, op_sum_reads_read_only_file_mapping)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	void *mem = mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, fd, 0);

	ASSERT_NE(MAP_FAILED, mem);
	ASSERT_EQ(0, gpu_sum(self->gpu, mem, 4 * PAGE, &self->sum));
	EXPECT_EQ(sum_words(mem, 4 * PAGE), self->sum);
	munmap(mem, 4 * PAGE);
	close(fd);
}

/* The GPU makes no access for a thread that the thread may not make itself. */
TEST_F(uapi, protection_keys_bind_the_gpu)
{
	uint8_t *deny = self->buf.mem, *read = deny + HUGE_PAGE;
	int deny_key = pkey_alloc(0, PKEY_DISABLE_ACCESS);
	int read_key = pkey_alloc(0, PKEY_DISABLE_WRITE), i;

	ASSERT_LE(0, deny_key);
	ASSERT_LE(0, read_key);
	ASSERT_EQ(0, pkey_mprotect(deny, HUGE_PAGE, PROT_READ | PROT_WRITE, deny_key));
	ASSERT_EQ(0, pkey_mprotect(read, HUGE_PAGE, PROT_READ | PROT_WRITE, read_key));

	/* The second time, the GPU has a mapping of the memory. */
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(-EFAULT, gpu_sum(self->gpu, deny, PAGE, &self->sum));
		EXPECT_EQ(0, self->sum);
		EXPECT_EQ(-EFAULT, gpu_copy(self->gpu, self->src.mem, deny, PAGE));
		EXPECT_EQ(-EFAULT, gpu_fill(self->gpu, deny, PAGE, KEY));
		EXPECT_EQ(0, gpu_sum(self->gpu, read, PAGE, &self->sum));
		EXPECT_EQ(-EFAULT, gpu_xor(self->gpu, read, PAGE, KEY));
		EXPECT_EQ(-EFAULT, gpu_copy(self->gpu, read, self->src.mem, PAGE));
		self->sum = 0;
		ASSERT_EQ(0, gpu_to_vram(self->gpu, deny, SIZE, NULL));
		EXPECT_EQ(PAGES, pages_in_vram(self->gpu, deny, SIZE));
	}

	ASSERT_EQ(0, pkey_set(deny_key, 0));
	ASSERT_EQ(0, pkey_set(read_key, 0));
	EXPECT_EQ(0, buffer_xor(&self->buf, self->gpu, 0, SIZE));
	ASSERT_EQ(0, pkey_mprotect(deny, SIZE, PROT_READ | PROT_WRITE, 0));
	EXPECT_EQ(0, pkey_free(deny_key));
	EXPECT_EQ(0, pkey_free(read_key));
}

/* Bad input. It must not change the memory, which the teardown checks. */

#define GPU_OPS(_check, _mem, _size) do {				\
	_check(gpu_fill(self->gpu, _mem, _size, KEY));			\
	_check(gpu_xor(self->gpu, _mem, _size, KEY));			\
	_check(gpu_sum(self->gpu, _mem, _size, &self->sum));		\
	_check(gpu_copy(self->gpu, _mem, self->src.mem, _size));	\
	_check(gpu_copy(self->gpu, self->src.mem, _mem, _size));	\
} while (0)

#define PAGE_OPS(_check, _mem, _size) do {				\
	_check(gpu_to_vram(self->gpu, _mem, _size, NULL));		\
	_check(gpu_to_ram(self->gpu, _mem, _size));			\
	_check(gpu_residency(self->gpu, _mem, _size, &self->where));	\
} while (0)

#define EXPECT_EINVAL(_call)	EXPECT_EQ(-EINVAL, _call)
#define EXPECT_EFAULT(_call)	EXPECT_EQ(-EFAULT, _call)

TEST_F(uapi, op_rejects_unaligned_words)
{
	int i;

	for (i = 1; i < 8; i++) {
		GPU_OPS(EXPECT_EINVAL, self->buf.mem + i, 64);
		GPU_OPS(EXPECT_EINVAL, self->buf.mem, 64 + i);
	}
	EXPECT_EINVAL(gpu_copy(self->gpu, self->buf.mem, self->src.mem + 4,
			       64));
}

TEST_F(uapi, prefetch_and_residency_reject_unaligned_pages)
{
	PAGE_OPS(EXPECT_EINVAL, self->buf.mem + 8, PAGE);
	PAGE_OPS(EXPECT_EINVAL, self->buf.mem + PAGE / 2, PAGE);
	PAGE_OPS(EXPECT_EINVAL, self->buf.mem, PAGE + 8);
	PAGE_OPS(EXPECT_EINVAL, self->buf.mem, PAGE - 1);
}

TEST_F(uapi, ioctls_reject_size_zero)
{
	GPU_OPS(EXPECT_EINVAL, self->buf.mem, 0);
	PAGE_OPS(EXPECT_EINVAL, self->buf.mem, 0);
	GPU_OPS(EXPECT_EINVAL, (void *)0, 0);
}

TEST_F(uapi, ioctls_reject_wrapping_range)
{
	uint8_t *mem = self->buf.mem;

	EXPECT_EINVAL(gpu_fill(self->gpu, mem, -(size_t)mem, KEY));
	PAGE_OPS(EXPECT_EINVAL, mem, -(size_t)mem);
	GPU_OPS(EXPECT_EINVAL, self->buf.mem, (size_t)-8);
	PAGE_OPS(EXPECT_EINVAL, self->buf.mem, -PAGE);
	GPU_OPS(EXPECT_EINVAL, (void *)-8UL, 16);
	PAGE_OPS(EXPECT_EINVAL, (void *)-PAGE, 2 * PAGE);
}

TEST_F(uapi, ioctls_reject_range_beyond_user_space)
{
	void *last = (void *)((1UL << 47) - 2 * PAGE);
	void *hole = (void *)(1UL << 50);
	void *kernel = (void *)0xffff888000000000;
	void *end = (void *)-(2 * PAGE);

	GPU_OPS(EXPECT_EFAULT, hole, PAGE);
	PAGE_OPS(EXPECT_EFAULT, hole, PAGE);
	GPU_OPS(EXPECT_EFAULT, kernel, PAGE);
	PAGE_OPS(EXPECT_EFAULT, kernel, PAGE);
	GPU_OPS(EXPECT_EFAULT, end, PAGE);
	PAGE_OPS(EXPECT_EFAULT, end, PAGE);
	GPU_OPS(EXPECT_EFAULT, last, 4 * PAGE);
	PAGE_OPS(EXPECT_EFAULT, last, 4 * PAGE);
	GPU_OPS(EXPECT_EFAULT, (void *)0, PAGE);
}

/* vsvm has no GEM objects. Each of these ioctls would use locks of GEM. */
TEST_F(uapi, prime_is_refused)
{
	struct drm_prime_handle prime = { .handle = 1 };

	EXPECT_EQ(-1, ioctl(self->gpu, DRM_IOCTL_PRIME_HANDLE_TO_FD, &prime));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EQ(-1, ioctl(self->gpu, DRM_IOCTL_PRIME_FD_TO_HANDLE, &prime));
	EXPECT_EQ(EOPNOTSUPP, errno);
}

/* In a separate process, since these ranges contain all of its memory. */
static int work_on_huge_ranges(void *arg)
{
	uint8_t *mem = arg;
	size_t most = (1UL << 47) - 2 * PAGE - (size_t)mem;
	int gpu = gpu_open(0);
	uint64_t sum;

	return gpu_to_vram(gpu, mem, most, NULL) != -EFAULT ||
	       gpu_sum(gpu, mem, most, &sum) != -EFAULT ||
	       gpu_to_ram(gpu, mem, most) != -EFAULT;
}

TEST_F(uapi, ioctls_fail_on_range_with_unmapped_parts)
{
	struct child child;

	ASSERT_EQ(0, child_fork(&child, work_on_huge_ranges, self->buf.mem));
	EXPECT_EQ(0, child_do(&child));
	EXPECT_EQ(0, child_end(&child));
}

TEST_F(uapi, ioctls_fail_on_hole_but_residency_counts_it)
{
	uint8_t *mem = self->src.mem;

	ASSERT_EQ(0, munmap(mem + PAGE, PAGE));
	GPU_OPS(EXPECT_EFAULT, mem + PAGE, 64);
	EXPECT_EFAULT(gpu_to_vram(self->gpu, mem + PAGE, PAGE, NULL));
	EXPECT_EFAULT(gpu_to_ram(self->gpu, mem + PAGE, PAGE));
	EXPECT_EFAULT(gpu_to_vram(self->gpu, mem, 4 * PAGE, NULL));
	EXPECT_EFAULT(gpu_to_ram(self->gpu, mem, 4 * PAGE));
	EXPECT_EFAULT(gpu_sum(self->gpu, mem, 4 * PAGE, &self->sum));
	EXPECT_EFAULT(gpu_sum(self->gpu, mem + 2 * PAGE - 8, 16, &self->sum));

	/* gpu_residency() reports holes instead of failing. */
	ASSERT_EQ(0, gpu_residency(self->gpu, mem, 4 * PAGE, &self->where));
	EXPECT_EQ(1, self->where.none);

	ASSERT_EQ(mem + PAGE, mmap(mem + PAGE, PAGE, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
				   0));
	memset(self->src.shadow + PAGE, 0, PAGE);
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->src, self->gpu));
}

TEST_F(uapi, op_on_prot_none_memory_fails)
{
	ASSERT_EQ(0, mprotect(self->buf.mem, SIZE, PROT_NONE));
	EXPECT_EFAULT(gpu_sum(self->gpu, self->buf.mem, PAGE, &self->sum));
	ASSERT_EQ(0, mprotect(self->buf.mem, SIZE, PROT_READ | PROT_WRITE));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->buf, self->gpu));
}

TEST_F(uapi, op_write_to_read_only_ram_fails_with_eacces)
{
	ASSERT_EQ(0, mprotect(self->buf.mem, SIZE, PROT_READ));
	EXPECT_EQ(-EACCES, gpu_fill(self->gpu, self->buf.mem, PAGE, KEY));
	EXPECT_EQ(-EACCES, gpu_xor(self->gpu, self->buf.mem + 8, PAGE, KEY));
	EXPECT_EQ(-EACCES, gpu_copy(self->gpu, self->buf.mem, self->src.mem,
				    PAGE));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->buf, self->gpu));
	EXPECT_EQ(0, gpu_copy(self->gpu, self->src.mem, self->buf.mem, PAGE));
	memcpy(self->src.shadow, self->buf.shadow, PAGE);
}

TEST_F(uapi, op_write_to_read_only_vram_fails_with_eacces)
{
	ASSERT_EQ(0, buffer_to_vram(&self->buf, self->gpu, 0, SIZE));
	ASSERT_EQ(0, mprotect(self->buf.mem, SIZE, PROT_READ));
	EXPECT_EQ(-EACCES, gpu_fill(self->gpu, self->buf.mem, PAGE, KEY));
	EXPECT_EQ(-EACCES, gpu_xor(self->gpu, self->buf.mem + 8, PAGE, KEY));
	EXPECT_EQ(-EACCES, gpu_copy(self->gpu, self->buf.mem, self->src.mem,
				    PAGE));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->buf, self->gpu));
	EXPECT_EQ(PAGES, pages_in_vram(self->gpu, self->buf.mem, SIZE));

	ASSERT_EQ(0, mprotect(self->buf.mem, SIZE, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, buffer_xor(&self->buf, self->gpu, 8, SIZE - 8));
}

/* Even if the GPU has mapped all of it before. */
TEST_F(uapi, protection_of_other_pages_does_not_matter)
{
	uint8_t *mem = self->buf.mem;

	ASSERT_EQ(0, buffer_to_vram(&self->buf, self->gpu, 0, SIZE));
	ASSERT_EQ(0, mprotect(mem + PAGE, PAGE, PROT_NONE));
	EXPECT_EQ(0, buffer_xor(&self->buf, self->gpu, 0, PAGE));
	EXPECT_EFAULT(gpu_sum(self->gpu, mem, 2 * PAGE, &self->sum));

	ASSERT_EQ(0, mprotect(mem + HUGE_PAGE, PAGE, PROT_READ));
	EXPECT_EQ(0, gpu_sum(self->gpu, mem + SIZE - 8, 8, &self->sum));
	EXPECT_EQ(0, buffer_xor(&self->buf, self->gpu, HUGE_PAGE + PAGE, PAGE));
	EXPECT_EQ(-EACCES, gpu_fill(self->gpu, mem + HUGE_PAGE, PAGE, KEY));

	ASSERT_EQ(0, mprotect(mem, SIZE, PROT_READ | PROT_WRITE));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->buf, self->gpu));
}

/*
 * The process may write to the first half of this memory. The GPU has read the
 * second half, and so has mapped all of it as it was then, with pages that others
 * use as well.
 */

enum others { FILE_PAGES, ZERO_PAGES, CHILDS_PAGES, CHILDS_PAGES_IN_VRAM };

FIXTURE(half) {
	int gpu;
	uint64_t vram_free;
	struct buffer buf;
	struct child child;
	int fd;
	uint64_t sum;
};

FIXTURE_VARIANT(half) {
	enum others others;
	size_t size;
	int advice;
};

#define HALF(_name, _others, _size, _advice)				\
FIXTURE_VARIANT_ADD(half, _name) {					\
	.others = _others,						\
	.size = _size,							\
	.advice = _advice,						\
}

HALF(of_a_file, FILE_PAGES, KIB(64), 0);
HALF(of_a_large_file, FILE_PAGES, HUGE_PAGE, 0);
HALF(never_touched, ZERO_PAGES, KIB(64), MADV_NOHUGEPAGE);
HALF(never_touched_huge, ZERO_PAGES, HUGE_PAGE, MADV_HUGEPAGE);
HALF(shared_by_fork, CHILDS_PAGES, HUGE_PAGE, MADV_NOHUGEPAGE);
HALF(shared_by_fork_huge, CHILDS_PAGES, HUGE_PAGE, MADV_HUGEPAGE);
HALF(in_vram, CHILDS_PAGES_IN_VRAM, HUGE_PAGE, MADV_NOHUGEPAGE);
HALF(in_vram_huge, CHILDS_PAGES_IN_VRAM, HUGE_PAGE, MADV_HUGEPAGE);

#define FILE_NAME	"/tmp/test-uapi"

/* Map pages that others use as well at the address of the buffer. */
static int half_get(FIXTURE_DATA(half) *self, enum others others)
{
	struct buffer *buf = &self->buf;
	int err = 0;

	switch (others) {
	case FILE_PAGES:
		buffer_write(buf, 0, buf->size);
		self->fd = open(FILE_NAME, O_RDWR | O_CREAT | O_TRUNC, 0444);
		if (write(self->fd, buf->shadow, buf->size) != (ssize_t)buf->size)
			return -EIO;
		close(self->fd);
		self->fd = open(FILE_NAME, O_RDONLY | O_CLOEXEC);
		if (mmap(buf->mem, buf->size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_FIXED, self->fd, 0) != buf->mem)
			return -errno;
		break;
	case ZERO_PAGES:
		break;
	case CHILDS_PAGES_IN_VRAM:
		err = buffer_to_vram(buf, self->gpu, 0, buf->size);
		break;
	default:
		buffer_write(buf, 0, buf->size);
		break;
	}
	if (err)
		return err;

	/* The GPU already has a range for this memory before its halves differ */
	if (buffer_differs_on_gpu(buf, self->gpu) != -1)
		return -EILSEQ;
	if ((others == FILE_PAGES || others == ZERO_PAGES) &&
	    madvise(buf->mem, buf->size, MADV_DONTNEED))
		return -errno;
	return child_fork(&self->child, buffer_compare, buf);
}

FIXTURE_SETUP(half)
{
	self->gpu = gpu_open(0);
	ASSERT_LE(0, self->gpu);
	self->vram_free = vram_free(self->gpu);
	ASSERT_EQ(0, buffer_map(&self->buf, HUGE_PAGE,
				variant->advice ?: MADV_NOHUGEPAGE));
	self->buf.size = variant->size;
	ASSERT_EQ(0, half_get(self, variant->others));

	ASSERT_EQ(0, mprotect(self->buf.mem + variant->size / 2,
			      variant->size / 2, PROT_READ));
	ASSERT_EQ(0, gpu_sum(self->gpu, self->buf.mem + variant->size / 2,
			     variant->size / 2, &self->sum));
	EXPECT_EQ(sum_words(self->buf.shadow + variant->size / 2,
			    variant->size / 2), self->sum);
}

/* Neither the other users nor the second half have seen any of the writes. */
FIXTURE_TEARDOWN(half)
{
	static uint8_t now[HUGE_PAGE], none[HUGE_PAGE];
	struct buffer fresh;

	EXPECT_EQ(0, child_do(&self->child));
	EXPECT_EQ(0, child_end(&self->child));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->buf, self->gpu));
	EXPECT_EQ(-1, buffer_differs(&self->buf));
	if (variant->others == FILE_PAGES) {
		struct buffer file = { .size = variant->size };

		/* The child has seen the old data. The file still has it, too */
		EXPECT_EQ((ssize_t)file.size, pread(self->fd, now, file.size, 0));
		EXPECT_EQ(-1, differs(now + file.size / 2,
				      self->buf.shadow + file.size / 2,
				      file.size / 2));
		EXPECT_NE(0, memcmp(now, self->buf.shadow, PAGE));
		close(self->fd);
		unlink(FILE_NAME);
	}
	ASSERT_EQ(0, buffer_map(&fresh, HUGE_PAGE, MADV_HUGEPAGE));
	EXPECT_EQ(-1, differs(fresh.mem, none, HUGE_PAGE));
	buffer_unmap(&fresh);
	self->buf.size = HUGE_PAGE;
	buffer_unmap(&self->buf);
	EXPECT_EQ(0, vram_leaked(self->gpu, self->vram_free));
	close(self->gpu);
}

TEST_F(half, op_fill_of_writable_half_keeps_shared_pages)
{
	uint64_t key = KEY;
	size_t pos;

	ASSERT_EQ(0, gpu_fill(self->gpu, self->buf.mem, PAGE, key));
	for (pos = 0; pos < PAGE; pos += sizeof(key))
		memcpy(self->buf.shadow + pos, &key, sizeof(key));
	EXPECT_EQ(-EACCES, gpu_fill(self->gpu, self->buf.mem + variant->size / 2,
				    PAGE, key));
}

TEST_F(half, op_xor_of_writable_half_keeps_shared_pages)
{
	ASSERT_EQ(0, buffer_xor(&self->buf, self->gpu, 0, variant->size / 2));
	EXPECT_EQ(-EACCES, gpu_xor(self->gpu, self->buf.mem,
				   variant->size / 2 + PAGE, 0));
}

TEST_F(half, op_copy_to_writable_half_keeps_shared_pages)
{
	struct buffer from;

	ASSERT_EQ(0, buffer_map(&from, HUGE_PAGE, MADV_HUGEPAGE));
	buffer_write(&from, 0, HUGE_PAGE);
	ASSERT_EQ(0, gpu_copy(self->gpu, self->buf.mem + 8, from.mem, PAGE));
	memcpy(self->buf.shadow + 8, from.shadow, PAGE);
	EXPECT_EQ(-EACCES, gpu_copy(self->gpu, self->buf.mem + variant->size / 2,
				    from.mem, PAGE));
	buffer_unmap(&from);
}

static int xor_half(void *arg)
{
	struct buffer *buf = arg;
	int gpu = gpu_open(0);

	return buffer_xor(buf, gpu, 0, buf->size / 2);
}

/* Nor have they seen the writes of a child that inherits the memory. */
TEST_F(half, op_xor_by_child_keeps_pages_of_parent)
{
	struct child child;

	ASSERT_EQ(0, child_fork(&child, xor_half, &self->buf));
	EXPECT_EQ(0, child_do(&child));
	EXPECT_EQ(0, child_end(&child));
	if (variant->others == FILE_PAGES)
		EXPECT_EQ(0, buffer_xor(&self->buf, self->gpu, 0, PAGE));
}

TEST_F(uapi, op_copy_rejects_overlapping_ranges)
{
	uint8_t *mem = self->buf.mem;

	EXPECT_EINVAL(gpu_copy(self->gpu, mem, mem, PAGE));
	EXPECT_EINVAL(gpu_copy(self->gpu, mem, mem + PAGE - 8, PAGE));
	EXPECT_EINVAL(gpu_copy(self->gpu, mem + PAGE - 8, mem, PAGE));
	EXPECT_EINVAL(gpu_copy(self->gpu, mem + 8, mem, HUGE_PAGE));
	EXPECT_EINVAL(gpu_copy(self->gpu, mem, mem + PAGE, 3 * PAGE));
}

TEST_F(uapi, op_rejects_unknown_operation)
{
	static const uint32_t ops[] = { 4, 5, 0x80000000, 0xffffffff };
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(ops); i++) {
		struct drm_vsvm_op op = {
			.addr = (uintptr_t)self->buf.mem,
			.size = PAGE,
			.op = ops[i],
		};

		EXPECT_EQ(-1, ioctl(self->gpu, DRM_IOCTL_VSVM_OP, &op));
		EXPECT_EQ(EINVAL, errno);
	}
}

TEST_F(uapi, prefetch_rejects_unknown_place)
{
	static const uint32_t places[] = { 2, 3, 0x80000001, 0xffffffff };
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(places); i++) {
		struct drm_vsvm_prefetch prefetch = {
			.addr = (uintptr_t)self->buf.mem,
			.size = PAGE,
			.where = places[i],
		};

		EXPECT_EQ(-1, ioctl(self->gpu, DRM_IOCTL_VSVM_PREFETCH,
				    &prefetch));
		EXPECT_EQ(EINVAL, errno);
	}
	EXPECT_EQ(0, pages_in_vram(self->gpu, self->buf.mem, SIZE));
}

TEST_F(uapi, ioctls_reject_nonzero_reserved_field)
{
	struct drm_vsvm_op op = {
		.addr = (uintptr_t)self->buf.mem,
		.size = PAGE,
		.op = DRM_VSVM_OP_FILL,
		.pad = 1,
	};
	struct drm_vsvm_prefetch prefetch = {
		.addr = (uintptr_t)self->buf.mem,
		.size = PAGE,
		.where = DRM_VSVM_TO_VRAM,
		.pad = 0x80000000,
	};

	EXPECT_EQ(-1, ioctl(self->gpu, DRM_IOCTL_VSVM_OP, &op));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, ioctl(self->gpu, DRM_IOCTL_VSVM_PREFETCH, &prefetch));
	EXPECT_EQ(EINVAL, errno);
}

TEST_F(uapi, unknown_ioctl_is_rejected)
{
	char arg[1 << _IOC_SIZEBITS] = {};
	unsigned int nr, dir;

	for (nr = DRM_COMMAND_BASE + DRM_VSVM_COUNTERS + 1;
	     nr < DRM_COMMAND_END; nr++) {
		for (dir = 0; dir < 4; dir++) {
			EXPECT_EQ(-1, ioctl(self->gpu,
					    _IOC(dir, DRM_IOCTL_BASE, nr, 64),
					    arg));
			EXPECT_EQ(EINVAL, errno);
		}
	}

	EXPECT_EQ(-1, ioctl(self->gpu, _IOC(_IOC_READ, 'D', 1, 64), arg));
	EXPECT_EQ(ENOTTY, errno);
}

/*
 * An argument of another size is another version of the structure: missing fields
 * are zero, and make the range invalid; extra bytes are left alone.
 */
TEST_F(uapi, ioctls_accept_other_argument_sizes)
{
	static const unsigned int nrs[] = {
		DRM_VSVM_PREFETCH, DRM_VSVM_OP, DRM_VSVM_RESIDENCY,
	};
	static uint8_t arg[1 << _IOC_SIZEBITS];
	struct drm_vsvm_op *op = (struct drm_vsvm_op *)arg;
	unsigned int i;

	memset(arg, 0xff, sizeof(arg));
	for (i = 0; i < ARRAY_LEN(nrs); i++) {
		unsigned int nr = DRM_COMMAND_BASE + nrs[i];

		EXPECT_EQ(-1, ioctl(self->gpu, DRM_IOWR(nr, uint8_t[0]), arg));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(-1, ioctl(self->gpu, DRM_IOWR(nr, uint8_t[1]), arg));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(-1, ioctl(self->gpu, DRM_IOWR(nr, uint8_t[15]), arg));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(-1, ioctl(self->gpu, DRM_IOWR(nr, uint8_t[16383]),
				    arg));
		EXPECT_EQ(EINVAL, errno);
	}

	*op = (struct drm_vsvm_op) {
		.addr = (uintptr_t)self->buf.mem,
		.size = PAGE,
		.op = DRM_VSVM_OP_SUM,
	};
	EXPECT_EQ(0, ioctl(self->gpu, DRM_IOWR(DRM_COMMAND_BASE + DRM_VSVM_OP,
					       uint8_t[16383]), arg));
	EXPECT_EQ(sum_words(self->buf.shadow, PAGE), op->result);
	EXPECT_EQ(0xff, arg[sizeof(*op) + PAGE]);
}

TEST_F(uapi, ioctls_reject_bad_argument_pointer)
{
	static const unsigned long requests[] = {
		DRM_IOCTL_VSVM_INFO, DRM_IOCTL_VSVM_PREFETCH, DRM_IOCTL_VSVM_OP,
		DRM_IOCTL_VSVM_RESIDENCY, DRM_IOCTL_VSVM_COUNTERS,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(requests); i++) {
		EXPECT_EQ(-1, ioctl(self->gpu, requests[i], NULL));
		EXPECT_EQ(EFAULT, errno);
		EXPECT_EQ(-1, ioctl(self->gpu, requests[i],
				    0xffff888000000000));
		EXPECT_EQ(EFAULT, errno);
	}
}

/* Files and processes */

/* A process may do nothing with the file of another process. */
static int all_refused(int gpu, void *mem)
{
	struct drm_vsvm_residency where;
	uint64_t sum;

	return gpu_to_vram(gpu, mem, PAGE, NULL) != -EPERM ||
	       gpu_to_ram(gpu, mem, PAGE) != -EPERM ||
	       gpu_residency(gpu, mem, PAGE, &where) != -EPERM ||
	       gpu_fill(gpu, mem, PAGE, 0) != -EPERM ||
	       gpu_xor(gpu, mem, PAGE, KEY) != -EPERM ||
	       gpu_sum(gpu, mem, PAGE, &sum) != -EPERM ||
	       gpu_copy(gpu, mem, (char *)mem + PAGE, PAGE) != -EPERM;
}

TEST_F(uapi, child_gets_eperm_on_file_of_parent)
{
	int status;
	pid_t pid;

	ASSERT_EQ(0, buffer_to_vram(&self->buf, self->gpu, 0, HUGE_PAGE));
	pid = fork();
	if (!pid)
		_exit(all_refused(self->gpu, self->buf.mem));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

/* The other half of this test is in main(). */
TEST_F(uapi, process_gets_eperm_on_file_after_execve)
{
	char fd[16];
	int status;
	pid_t pid;

	pid = fork();
	if (!pid) {
		int gpu = gpu_open(0);

		snprintf(fd, sizeof(fd), "%d", gpu);
		fcntl(gpu, F_SETFD, 0);
		execl("/proc/self/exe", "test-uapi", "--refused", fd, NULL);
		_exit(2);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

TEST_F(uapi, two_files_of_a_process_share_memory)
{
	int second = gpu_open(0);

	ASSERT_LE(0, second);
	ASSERT_EQ(0, buffer_to_vram(&self->buf, self->gpu, 0, SIZE));
	EXPECT_EQ(PAGES, pages_in_vram(second, self->buf.mem, SIZE));
	ASSERT_EQ(0, buffer_xor(&self->buf, second, 8, SIZE - 8));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->buf, self->gpu));
	close(second);
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->buf, self->gpu));
}

TEST_F(uapi, pages_stay_in_vram_after_close)
{
	int second = gpu_open(0);

	ASSERT_LE(0, second);
	ASSERT_EQ(0, buffer_to_vram(&self->buf, second, 0, SIZE));
	close(second);
	EXPECT_EQ(PAGES, pages_in_vram(self->gpu, self->buf.mem, SIZE));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->buf, self->gpu));
}

static int xor_with_nothing(struct worker *worker)
{
	struct buffer *buf = &worker->rig->buf;

	return gpu_xor(worker->gpu, buf->mem, buf->size, 0);
}

TEST_F(uapi, close_during_operation_keeps_data)
{
	struct rig rig = { .buf = self->buf };
	struct worker worker = { .rig = &rig, .gpu = gpu_open(0) };

	ASSERT_EQ(0, worker_start(&worker, xor_with_nothing));
	while (worker.rounds < 3 && !worker.err)
		usleep(1000);
	close(worker.gpu);
	while (!worker.err)
		usleep(1000);
	EXPECT_EQ(-EBADF, worker_stop(&worker));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->buf, self->gpu));
}

/* Both kinds of work, again and again. */
static void work_until_killed(volatile int *ready)
{
	struct buffer buf = {}, src = {};
	int gpu = gpu_open(0);

	alarm(20 * slowness());
	if (buffer_map(&buf, MIB(16), MADV_HUGEPAGE) ||
	    buffer_map(&src, MIB(16), MADV_NOHUGEPAGE))
		_exit(1);
	buffer_write(&buf, 0, buf.size);

	for (;;) {
		if (gpu_xor(gpu, buf.mem, buf.size, KEY) ||
		    gpu_copy(gpu, src.mem, buf.mem, buf.size))
			_exit(2);
		*ready = 1;
		gpu_to_ram(gpu, buf.mem, buf.size);
	}
}

TEST_F(uapi, sigkill_during_operation_frees_vram)
{
	volatile int *ready = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int i, status;
	pid_t pid;

	ASSERT_NE(MAP_FAILED, ready);
	for (i = 0; i < 5; i++) {
		*ready = 0;
		pid = fork();
		if (!pid)
			work_until_killed(ready);
		while (!*ready && !waitpid(pid, &status, WNOHANG))
			usleep(1000);
		usleep(i * 13000);
		kill(pid, SIGKILL);
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		EXPECT_EQ(0, vram_leaked(self->gpu, self->vram_free));
	}
}

/* The range takes hours. */
TEST_F(uapi, sigkill_ends_residency_of_huge_range)
{
	struct drm_vsvm_residency where;
	int gpu, status;
	pid_t pid;

	pid = fork();
	if (!pid) {
		gpu = gpu_open(0);
		_exit(gpu_residency(gpu, NULL, (1UL << 47) - 2 * PAGE,
				    &where));
	}
	usleep(200000);
	EXPECT_EQ(0, waitpid(pid, &status, WNOHANG));
	kill(pid, SIGKILL);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static int work_on_ones_own(void *arg)
{
	struct buffer *buf = arg;
	int gpu = gpu_open(0), i, err = 0;

	if (buffer_map(buf, SIZE, MADV_HUGEPAGE))
		return -ENOMEM;
	buffer_write(buf, 0, SIZE);
	for (i = 0; i < 5 && !err; i++) {
		err = buffer_to_vram(buf, gpu, 0, SIZE);
		if (!err && buffer_differs_on_gpu(buf, gpu) != -1)
			err = -EILSEQ;
		if (!err && buffer_differs(buf) != -1)
			err = -EILSEQ;
	}
	buffer_unmap(buf);

	return err;
}

TEST_F(uapi, processes_do_not_see_each_other)
{
	struct child child[2];
	struct buffer buf;
	int i;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, child_fork(&child[i], work_on_ones_own, &buf));
		ASSERT_EQ(0, child_start(&child[i]));
	}
	EXPECT_EQ(0, work_on_ones_own(&buf));
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(0, child_result(&child[i]));
		EXPECT_EQ(0, child_end(&child[i]));
	}
}

int main(int argc, char **argv)
{
	static uint8_t mem[2 * PAGE] __attribute__((aligned(4096)));

	if (argc == 3 && !strcmp(argv[1], "--refused"))
		return all_refused(atoi(argv[2]), mem);
	return test_harness_run(argc, argv);
}
