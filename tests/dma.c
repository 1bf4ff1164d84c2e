// SPDX-License-Identifier: GPL-2.0
/*
 * A bus master at work on the memory of GPUs: what the fabric lets it reach
 * stays where it is, what it does not migrates, and the data is right either
 * way.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/hmm_edu.h>

#include "kselftest_harness.h"

#include "common.h"
#include "machine.h"

/* The device moves 4 KiB in 200 ms. */
#define SIZE	MIB(4)
#define PAGES	(SIZE / PAGE)

FIXTURE(dma) {
	int edu;
	int gpu[2];
	uint64_t vram_free[2];
	struct buffer a;
	struct buffer b;
};

FIXTURE_VARIANT(dma) {
	int advice;
	const char *params;
};

FIXTURE_VARIANT_ADD(dma, pages) {
	.advice = MADV_NOHUGEPAGE,
	.params = "",
};

FIXTURE_VARIANT_ADD(dma, huge) {
	.advice = MADV_HUGEPAGE,
	.params = "",
};

FIXTURE_VARIANT_ADD(dma, callback_pages) {
	.advice = MADV_NOHUGEPAGE,
	.params = "use_callback=1",
};

FIXTURE_VARIANT_ADD(dma, callback_huge) {
	.advice = MADV_HUGEPAGE,
	.params = "use_callback=1",
};

FIXTURE_SETUP(dma)
{
	int i;

	ASSERT_EQ(0, vsvm_load(variant->params));
	self->edu = edu_open();
	ASSERT_LE(0, self->edu);
	for (i = 0; i < 2; i++) {
		self->gpu[i] = gpu_open(i);
		ASSERT_LE(0, self->gpu[i]);
		self->vram_free[i] = vram_free(self->gpu[i]);
	}
	ASSERT_EQ(0, buffer_map(&self->a, SIZE, variant->advice));
	ASSERT_EQ(0, buffer_map(&self->b, SIZE, variant->advice));
	buffer_write(&self->a, 0, SIZE);
	buffer_write(&self->b, 0, SIZE);
}

FIXTURE_TEARDOWN(dma)
{
	int i;

	EXPECT_EQ(-1, buffer_differs(&self->a));
	EXPECT_EQ(-1, buffer_differs(&self->b));
	buffer_unmap(&self->a);
	buffer_unmap(&self->b);
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(0, vram_leaked(self->gpu[i], self->vram_free[i]));
		close(self->gpu[i]);
	}
	close(self->edu);
}

/* What the device can reach does not move, and the rest does. Shadows follow. */
static void copy(struct __test_metadata *_metadata, FIXTURE_DATA(dma) *self,
		 struct buffer *dst, size_t to, struct buffer *src, size_t from,
		 size_t size)
{
	const char *counter = reachable() ? alias_route() :
					    "fallback_unreachable";
	uint8_t *d = dst->mem + to, *s = src->mem + from;
	uint64_t reached = pages_touched_in_vram(self->gpu, d, size) +
			   pages_touched_in_vram(self->gpu, s, size);
	struct tally before = tally_read(self->gpu), after;

	ASSERT_EQ(0, edu_copy(self->edu, d, s, size));
	memcpy(dst->shadow + to, src->shadow + from, size);

	after = tally_read(self->gpu);
	EXPECT_TALLY(before, after, reached, reachable(), counter);
	EXPECT_EQ(reachable() ? reached : 0,
		  pages_touched_in_vram(self->gpu, d, size) +
		  pages_touched_in_vram(self->gpu, s, size));
}

#define COPY(dst, to, src, from, size)					\
	copy(_metadata, self, dst, to, src, from, size)

TEST_F(dma, reads_vram)
{
	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	COPY(&self->b, 7, &self->a, PAGE - 3, 2 * PAGE + 5);
	COPY(&self->b, PAGE + 1, &self->a, HUGE_PAGE - 9, 20);
	COPY(&self->b, HUGE_PAGE, &self->a, SIZE - PAGE, PAGE);
	EXPECT_EQ(-1, buffer_differs(&self->b));
}

TEST_F(dma, writes_vram)
{
	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	COPY(&self->a, 5 * PAGE - 1, &self->b, 100, PAGE + 2);
	COPY(&self->a, HUGE_PAGE - 11, &self->b, PAGE, 20);
	COPY(&self->a, 0, &self->b, HUGE_PAGE, PAGE);
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->a, self->gpu[0]));
}

TEST_F(dma, from_gpu_to_gpu)
{
	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	ASSERT_EQ(0, buffer_to_vram(&self->b, self->gpu[1], 0, SIZE));
	COPY(&self->b, 3 * PAGE + 1, &self->a, SIZE / 2 - 9, PAGE + 20);
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->b, self->gpu[1]));
}

TEST_F(dma, from_place_to_place_on_one_gpu)
{
	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[1], 0, SIZE));
	COPY(&self->a, SIZE - PAGE - 3, &self->a, HUGE_PAGE - 7, PAGE);
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->a, self->gpu[1]));
}

TEST_F(dma, from_ram_to_ram)
{
	COPY(&self->a, 1, &self->b, PAGE - 1, PAGE + 1);
}

TEST_F(dma, range_in_ram_and_in_vram)
{
	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], HUGE_PAGE,
				    HUGE_PAGE));
	COPY(&self->b, 0, &self->a, HUGE_PAGE - PAGE / 2, PAGE);
	COPY(&self->a, HUGE_PAGE - PAGE / 2, &self->b, PAGE / 2, PAGE);
	EXPECT_EQ(-1, buffer_differs(&self->b));
}

/* Nobody but the device has written to it since it was last on disk. */
TEST_F(dma, writes_to_a_clean_page)
{
	volatile uint8_t *page = self->a.mem + HUGE_PAGE + PAGE;

	ASSERT_EQ(0, page_swap_out(page));
	(void)*page;
	COPY(&self->a, HUGE_PAGE + PAGE, &self->b, 100, PAGE);
	ASSERT_EQ(0, page_swap_out(page));
	EXPECT_EQ(-1, buffer_differs(&self->a));
}

TEST_F(dma, switched_off_the_memory_migrates)
{
	struct tally before, after;

	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	before = tally_read(self->gpu);
	ASSERT_EQ(0, aliases_enable(false));
	EXPECT_EQ(0, edu_copy(self->edu, self->b.mem, self->a.mem, PAGE));
	ASSERT_EQ(0, aliases_enable(true));
	memcpy(self->b.shadow, self->a.shadow, PAGE);
	after = tally_read(self->gpu);
	EXPECT_TALLY(before, after, 0, false, "");
	EXPECT_EQ(0, pages_touched_in_vram(self->gpu, self->a.mem, PAGE));
}

static int move_away(struct worker *worker)
{
	struct buffer *buf = &worker->bench->buf;
	int err = gpu_to_ram(worker->gpu, buf->mem, buf->size);

	return err ? err : gpu_to_vram(worker->gpu, buf->mem, buf->size, NULL);
}

TEST_F(dma, memory_moves_meanwhile)
{
	struct bench bench = { .buf = self->a };
	struct worker worker = { .bench = &bench, .gpu = self->gpu[0] };
	size_t at = HUGE_PAGE - PAGE - 1, size = 3 * PAGE;

	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	ASSERT_EQ(0, worker_start(&worker, move_away));
	EXPECT_EQ(0, edu_copy(self->edu, self->b.mem + 3, self->a.mem + at, size));
	memcpy(self->b.shadow + 3, self->a.shadow + at, size);
	EXPECT_EQ(0, edu_copy(self->edu, self->a.mem + PAGE, self->b.mem + 1, size));
	memcpy(self->a.shadow + PAGE, self->b.shadow + 1, size);
	EXPECT_EQ(0, worker_stop(&worker));
	EXPECT_LT(1, worker.rounds);
}

/*
 * There is no bounce buffering: the device would read and write the wrong one. An
 * IOMMU has addresses for it.
 */
TEST_F(dma, device_that_cannot_address_memory_is_refused)
{
	const char *topology = getenv("TOPOLOGY");
	int want = topology && !strcmp(topology, "iommu") ? 0 : -EOPNOTSUPP;

	close(self->edu);
	ASSERT_EQ(0, system("modprobe -r hmm_edu && modprobe hmm_edu dma_bits=32"));
	self->edu = edu_open();
	ASSERT_LE(0, self->edu);
	EXPECT_EQ(want, edu_copy(self->edu, self->a.mem, self->b.mem, 8));
	if (!want)
		memcpy(self->a.shadow, self->b.shadow, 8);
	close(self->edu);
	ASSERT_EQ(0, system("modprobe -r hmm_edu && modprobe hmm_edu dma_bits=64"));
	self->edu = edu_open();
}

/* BARs are far above RAM: memory there is not for a device that reaches just RAM. */
TEST_F(dma, device_that_cannot_address_the_window_reads_ram)
{
	const char *topology = getenv("TOPOLOGY");
	bool iommu = topology && !strcmp(topology, "iommu");
	uint64_t before;

	close(self->edu);
	ASSERT_EQ(0, system("modprobe -r hmm_edu && modprobe hmm_edu dma_bits=36"));
	self->edu = edu_open();
	ASSERT_LE(0, self->edu);
	ASSERT_EQ(0, buffer_to_vram(&self->b, self->gpu[0], 0, SIZE));
	before = stat_read(iommu ? alias_route() : "fallback_unreachable");
	EXPECT_EQ(0, edu_copy(self->edu, self->a.mem, self->b.mem, PAGE));
	memcpy(self->a.shadow, self->b.shadow, PAGE);
	EXPECT_LT(before, stat_read(iommu ? alias_route() : "fallback_unreachable"));
	EXPECT_EQ(iommu, pages_touched_in_vram(self->gpu, self->b.mem, PAGE));
	if (reachable() && !iommu)
		EXPECT_EQ(0, system("hmmp2p topo | grep -q 'beyond what the device can address'"));
	close(self->edu);
	ASSERT_EQ(0, system("modprobe -r hmm_edu && modprobe hmm_edu dma_bits=64"));
	self->edu = edu_open();
}

TEST_F(dma, nonsense_is_refused)
{
	uint8_t *mem = self->a.mem;
	int edu = self->edu;

	EXPECT_EQ(-EINVAL, edu_copy(edu, mem, mem + PAGE, 0));
	EXPECT_EQ(-EINVAL, edu_copy(edu, mem, mem, HMM_EDU_MAX_SIZE + 1));
	EXPECT_EQ(-EFAULT, edu_copy(edu, mem, (void *)-PAGE, PAGE));
	EXPECT_EQ(-EFAULT, edu_copy(edu, (void *)-16, mem, PAGE));
	EXPECT_EQ(-EFAULT, edu_copy(edu, mem, NULL, PAGE));
	EXPECT_EQ(-1, ioctl(edu, HMM_EDU_COPY + 1, mem));
	EXPECT_EQ(ENOTTY, errno);
	EXPECT_EQ(-1, ioctl(edu, HMM_EDU_COPY, NULL));
	EXPECT_EQ(EFAULT, errno);
	ASSERT_EQ(0, mprotect(mem, PAGE, PROT_READ));
	EXPECT_EQ(-EPERM, edu_copy(edu, mem, self->b.mem, 8));
	ASSERT_EQ(0, mprotect(mem, PAGE, PROT_READ | PROT_WRITE));
}

/* A window that ends in the middle of a huge page. All of VRAM is in use. */

FIXTURE(dma_window) {
	int edu;
	int gpu[2];
	struct buffer all;
	struct buffer ram;
};

FIXTURE_VARIANT(dma_window) {
	int advice;
	const char *params;
	const char *reason;
};

FIXTURE_VARIANT_ADD(dma_window, pages) {
	.advice = MADV_NOHUGEPAGE,
	.params = "window_mb=129",
	.reason = "fallback_outside_window",
};

FIXTURE_VARIANT_ADD(dma_window, huge) {
	.advice = MADV_HUGEPAGE,
	.params = "window_mb=129",
	.reason = "fallback_outside_window",
};

FIXTURE_VARIANT_ADD(dma_window, callback_pages) {
	.advice = MADV_NOHUGEPAGE,
	.params = "window_mb=129 use_callback=1",
	.reason = "fallback_callback",
};

FIXTURE_VARIANT_ADD(dma_window, callback_huge) {
	.advice = MADV_HUGEPAGE,
	.params = "window_mb=129 use_callback=1",
	.reason = "fallback_callback",
};

FIXTURE_SETUP(dma_window)
{
	struct drm_vsvm_info info;
	uint64_t pages;
	int i;

	ASSERT_EQ(0, vsvm_load(variant->params));
	self->edu = edu_open();
	ASSERT_LE(0, self->edu);
	for (i = 0; i < 2; i++) {
		self->gpu[i] = gpu_open(i);
		ASSERT_LE(0, self->gpu[i]);
	}
	ASSERT_EQ(0, buffer_map(&self->ram, HUGE_PAGE, MADV_HUGEPAGE));

	ASSERT_EQ(0, gpu_info(self->gpu[0], &info));
	if (info.window_size == info.vram_size)
		SKIP(return, "VRAM is too small");
	ASSERT_EQ(MIB(129), info.window_size);
	ASSERT_EQ(0, buffer_map(&self->all, info.vram_size, variant->advice));
	ASSERT_EQ(0, madvise(self->all.mem, self->all.size,
			     MADV_POPULATE_WRITE));
	ASSERT_EQ(0, gpu_to_vram(self->gpu[0], self->all.mem, self->all.size,
				 &pages));
	ASSERT_EQ(self->all.size / PAGE, pages);
}

FIXTURE_TEARDOWN(dma_window)
{
	buffer_unmap(&self->all);
	buffer_unmap(&self->ram);
	close(self->gpu[1]);
	close(self->gpu[0]);
	close(self->edu);
}

static uint64_t in_window(FIXTURE_DATA(dma_window) *self, size_t at,
			  size_t size)
{
	return pages_in_reach(self->gpu[1], self->all.mem + at, size);
}

/*
 * Before it, pages are in the window; behind it, they are not. If none can be
 * reached, any place is as good.
 */
static size_t find_end(FIXTURE_DATA(dma_window) *self)
{
	size_t at;

	if (!reachable())
		return HUGE_PAGE / 2;

	for (at = 0; at < self->all.size; at += HUGE_PAGE)
		if (in_window(self, at, PAGE) &&
		    !in_window(self, at + HUGE_PAGE - PAGE, PAGE))
			return at + HUGE_PAGE / 2;
	return 0;
}

TEST_F(dma_window, ends_in_the_middle_of_a_huge_page)
{
	size_t end = find_end(self);
	bool huge = variant->advice == MADV_HUGEPAGE;

	if (!reachable()) {
		EXPECT_EQ(0, in_window(self, 0, self->all.size));
		return;
	}

	ASSERT_NE(0, end);
	EXPECT_EQ(1, in_window(self, end - PAGE, PAGE));
	EXPECT_EQ(0, in_window(self, end, PAGE));

	/* Who asks for all of it gets one answer. */
	EXPECT_EQ(huge ? 0 : HUGE_PAGE_NR / 2,
		  in_window(self, end - HUGE_PAGE / 2, HUGE_PAGE));
	EXPECT_EQ((huge ? MIB(128) : MIB(129)) / PAGE,
		  in_window(self, 0, self->all.size));
}

/* What has no alias migrates, and the rest of its allocation with it. */
TEST_F(dma_window, ends_in_the_middle_of_a_copy)
{
	const char *route = reachable() ? alias_route() : "alias_bus";
	const char *reason = reachable() ? variant->reason :
					   "fallback_unreachable";
	uint64_t evicted = pages_evicted(self->gpu[0]);
	uint64_t fallback = stat_read(reason), aliases;
	size_t end = find_end(self), size = 1000;
	uint8_t *mem = self->all.mem + end - 300;
	uint8_t *data = self->ram.mem + 1;

	ASSERT_NE(0, end);
	ASSERT_EQ(0, gpu_fill(self->gpu[0], self->all.mem + end - PAGE,
			      2 * PAGE, 0x0123456789abcdef));
	buffer_write(&self->ram, 0, HUGE_PAGE);
	aliases = stat_read(route);

	ASSERT_EQ(0, edu_copy(self->edu, data, mem, size));
	EXPECT_EQ(aliases + reachable(), stat_read(route));
	EXPECT_LT(fallback, stat_read(reason));
	EXPECT_EQ(evicted + HUGE_PAGE_NR, pages_evicted(self->gpu[0]));
	EXPECT_EQ(0, pages_in_vram(self->gpu[0], self->all.mem + end - PAGE,
				   2 * PAGE));
	EXPECT_EQ(-1, differs(data, mem, size));

	/* The other way, once more from VRAM */
	buffer_write(&self->ram, 0, HUGE_PAGE);
	ASSERT_EQ(0, gpu_to_vram(self->gpu[0], self->all.mem, self->all.size,
				 NULL));
	ASSERT_EQ(0, edu_copy(self->edu, mem, data, size));
	EXPECT_EQ(-1, differs(data, mem, size));
}

int main(int argc, char **argv)
{
	atexit(vsvm_restore);
	return test_harness_run(argc, argv);
}
