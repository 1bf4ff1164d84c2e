// SPDX-License-Identifier: GPL-2.0
/*
 * A bus master at work on the memory of GPUs: what the fabric lets it reach
 * stays where it is, what it does not migrates, and the data is right either
 * way.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <sys/ioctl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/hmm_edu.h>

#include "kselftest_harness.h"

#include "common.h"

/* The device moves 4 KiB in 200 ms. */
#define SIZE	HUGE_PAGE
#define PAGES	(SIZE / PAGE)

static int edu_open(void)
{
	glob_t found;
	int fd;

	if (glob("/dev/hmm_edu-*", 0, NULL, &found))
		return -ENODEV;
	fd = open(found.gl_pathv[0], O_RDWR | O_CLOEXEC);
	globfree(&found);
	return fd < 0 ? -errno : fd;
}

static int edu_copy(int edu, void *dst, const void *src, size_t size)
{
	struct hmm_edu_copy copy = {
		.dst = (uintptr_t)dst,
		.src = (uintptr_t)src,
		.size = size,
	};

	if (ioctl(edu, HMM_EDU_COPY, &copy))
		return -errno;
	return copy.copied == size ? 0 : -EIO;
}

/* The topology says whether the device can reach a GPU's BAR. */
static bool reachable(void)
{
	const char *topology = getenv("TOPOLOGY");

	return !topology || strcmp(topology, "blocked");
}

FIXTURE(dma) {
	int edu;
	int gpu[2];
	uint64_t vram_free[2];
	uint64_t evicted[2];
	struct buffer a;
	struct buffer b;
};

FIXTURE_VARIANT(dma) {
	int advice;
};

FIXTURE_VARIANT_ADD(dma, pages) {
	.advice = MADV_NOHUGEPAGE,
};

FIXTURE_VARIANT_ADD(dma, huge) {
	.advice = MADV_HUGEPAGE,
};

FIXTURE_SETUP(dma)
{
	int i;

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
	for (i = 0; i < 2; i++)
		self->evicted[i] = pages_evicted(self->gpu[i]);
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

/* What the device can reach does not move, and the rest does. */
#define EXPECT_UNMOVED(i)						\
	EXPECT_EQ(reachable(), self->evicted[i] == pages_evicted(self->gpu[i]))

/* Copy, in memory and shadows; pieces end in the middle of pages. */
#define COPY(dst, to, src, from, size) do {				\
	ASSERT_EQ(0, edu_copy(self->edu, (dst)->mem + (to),		\
			      (src)->mem + (from), size));		\
	memcpy((dst)->shadow + (to), (src)->shadow + (from), size);	\
} while (0)

TEST_F(dma, reads_vram)
{
	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	COPY(&self->b, 7, &self->a, PAGE - 3, 2 * PAGE + 5);
	EXPECT_UNMOVED(0);
	EXPECT_EQ(-1, buffer_differs(&self->b));
}

TEST_F(dma, writes_vram)
{
	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	COPY(&self->a, 5 * PAGE - 1, &self->b, 100, PAGE + 2);
	EXPECT_UNMOVED(0);
}

TEST_F(dma, from_gpu_to_gpu)
{
	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	ASSERT_EQ(0, buffer_to_vram(&self->b, self->gpu[1], 0, SIZE));
	COPY(&self->b, 3 * PAGE + 1, &self->a, SIZE / 2 - 9, PAGE + 20);
	EXPECT_UNMOVED(0);
	EXPECT_UNMOVED(1);
}

TEST_F(dma, from_ram_to_ram)
{
	COPY(&self->a, 1, &self->b, PAGE - 1, PAGE + 1);
	EXPECT_EQ(self->evicted[0], pages_evicted(self->gpu[0]));
}

TEST_F(dma, range_in_ram_and_in_vram)
{
	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], PAGE, PAGE));
	COPY(&self->b, 0, &self->a, PAGE / 2, 2 * PAGE);
	EXPECT_UNMOVED(0);
	EXPECT_EQ(-1, buffer_differs(&self->b));
}

TEST_F(dma, counts_the_route)
{
	uint64_t unreachable = stat_read("fallback_unreachable");
	uint64_t bus, bridge;

	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	bus = stat_read("alias_bus");
	bridge = stat_read("alias_host_bridge");
	COPY(&self->b, 0, &self->a, 0, 8);
	if (reachable()) {
		EXPECT_EQ(1, stat_read("alias_bus") - bus +
			     stat_read("alias_host_bridge") - bridge);
		EXPECT_EQ(unreachable, stat_read("fallback_unreachable"));
	} else {
		EXPECT_LT(unreachable, stat_read("fallback_unreachable"));
	}
}

TEST_F(dma, switched_off_the_memory_migrates)
{
	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	ASSERT_EQ(0, aliases_enable(false));
	EXPECT_EQ(0, edu_copy(self->edu, self->b.mem, self->a.mem, PAGE));
	ASSERT_EQ(0, aliases_enable(true));
	memcpy(self->b.shadow, self->a.shadow, PAGE);
	EXPECT_NE(self->evicted[0], pages_evicted(self->gpu[0]));
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

	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	ASSERT_EQ(0, worker_start(&worker, move_away));
	COPY(&self->b, 3, &self->a, PAGE - 1, 4 * PAGE);
	COPY(&self->a, 9 * PAGE, &self->b, 1, 4 * PAGE);
	EXPECT_EQ(0, worker_stop(&worker));
	EXPECT_LT(1, worker.rounds);
}

/* There is no bounce buffering: the device would read and write the wrong one. */
TEST_F(dma, device_that_cannot_address_memory_is_refused)
{
	close(self->edu);
	ASSERT_EQ(0, system("modprobe -r hmm_edu && modprobe hmm_edu dma_bits=32"));
	self->edu = edu_open();
	ASSERT_LE(0, self->edu);
	EXPECT_EQ(-EOPNOTSUPP, edu_copy(self->edu, self->a.mem, self->b.mem, 8));
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

TEST_HARNESS_MAIN
