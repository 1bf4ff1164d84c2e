// SPDX-License-Identifier: GPL-2.0
/*
 * An IOMMU knows which memory a device may still reach. It must have stopped nothing
 * in all tests that ran before, but it must stop DMA that comes too late, after the
 * kernel has removed the mapping. To test that, we start edu's engine ourselves, with
 * the addresses that its driver has left in its registers.
 *
 * Run this last: it checks the log of all tests before it.
 */
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gpu.h"
#include "measure.h"
#include "lib/buffer.h"
#include "lib/edu.h"
#include "lib/file.h"
#include "lib/harness.h"
#include "lib/klog.h"
#include "lib/pci.h"
#include "lib/route.h"
#include "lib/swap.h"

#define BEGIN	"iommu: faults on purpose begin"
#define END	"iommu: faults on purpose end"

TEST(console_log_has_no_dmar_fault)
{
	bool on_purpose = false, booted = false;
	unsigned int faults = 0;
	char path[PATH_MAX];
	char line[2048];
	FILE *file;

	ASSERT_TRUE(lab_route_is("iommu"));

	/* The whole log of the console: the kernel's buffer may have wrapped. */
	snprintf(path, sizeof(path), "%s", getenv("LAB_CONSOLE"));
	file = fopen(path, "r");
	ASSERT_NE(NULL, file);
	while (fgets(line, sizeof(line), file)) {
		if (strstr(line, "DMAR: Intel(R) Virtualization Technology"))
			booted = true;
		else if (strstr(line, BEGIN) || strstr(line, END))
			on_purpose = !!strstr(line, BEGIN);
		else if (!on_purpose && klog_is_fault(line) && faults++ < 5)
			printf("# %s", line);
	}
	fclose(file);
	EXPECT_TRUE(booted);
	EXPECT_EQ(0, faults);
}

/*
 * A copy of two pages that has copied the first one and sleeps in a fault on the
 * second one: it has mappings, and the engine is idle.
 */
FIXTURE(late) {
	char pci[PCI_ADDR_LEN];
	char gpu_pci[PCI_ADDR_LEN];
	volatile uint8_t *regs;
	int edu;
	int gpu;
	struct buffer to;
	struct buffer from;
	uint64_t to_iova;
	uint64_t from_iova;
	pthread_t thread;
	bool started;
	bool sleeps;
	volatile bool done;
	int err;
};

FIXTURE_VARIANT(late) {
	bool vram;
};

FIXTURE_VARIANT_ADD(late, vram) {
	.vram = true,
};

FIXTURE_VARIANT_ADD(late, ram) {
	.vram = false,
};

static void *copy_main(void *arg)
{
	FIXTURE_DATA(late) *self = arg;

	self->err = edu_copy(self->edu, self->to.mem, self->from.mem, 2 * PAGE);
	self->done = true;
	return NULL;
}

static int copy_end(FIXTURE_DATA(late) *self)
{
	if (self->sleeps)
		swap_sleep(false);
	self->sleeps = false;
	if (self->started)
		pthread_join(self->thread, NULL);
	self->started = false;
	return self->err;
}

/* Wait for an address in a register that is not of the engine's own buffer. */
static uint64_t wait_for_iova(FIXTURE_DATA(late) *self, int reg)
{
	double end = now() + 5;
	uint64_t iova = EDU_BUFFER;

	while (!self->done && now() < end && iova == EDU_BUFFER)
		if (edu_read(self->regs, EDU_DMA_CMD) & EDU_DMA_RUN)
			iova = edu_read(self->regs, reg);
	return iova;
}

static void engine_wait(FIXTURE_DATA(late) *self)
{
	double end = now() + 2;

	while (edu_read(self->regs, EDU_DMA_CMD) & EDU_DMA_RUN && now() < end)
		usleep(1000);
}

/* DMA between the device's buffer and memory, like the driver's but without an IRQ. */
static void engine_run(FIXTURE_DATA(late) *self, uint64_t iova, bool write)
{
	edu_write(self->regs, EDU_DMA_SRC, write ? EDU_BUFFER : iova);
	edu_write(self->regs, EDU_DMA_DST, write ? iova : EDU_BUFFER);
	edu_write(self->regs, EDU_DMA_COUNT, PAGE);
	edu_write(self->regs, EDU_DMA_CMD,
		  EDU_DMA_RUN | (write ? EDU_DMA_FROM_DEVICE : 0));
	engine_wait(self);
}

/* Change the content of the first page, and leave the page where it is. */
static int change(FIXTURE_DATA(late) *self, bool in_vram)
{
	if (in_vram)
		return buffer_xor(&self->to, self->gpu, 0, PAGE);
	buffer_write(&self->to, 0, PAGE);
	return 0;
}

static ssize_t differs_in_place(FIXTURE_DATA(late) *self, bool in_vram)
{
	return in_vram ? buffer_differs_on_gpu(&self->to, self->gpu) :
			 buffer_differs(&self->to);
}

/* A checksum of the whole BAR, to detect any change in it; 0 on errors. */
static uint64_t vram_sum(FIXTURE_DATA(late) *self)
{
	uint64_t *vram, sum = 0;
	size_t i, size;

	vram = pci_map_bar(self->gpu_pci, 2, &size);
	if (!vram)
		return 0;
	for (i = 0; i < size / sizeof(*vram); i++)
		sum = sum * 31 + vram[i];
	munmap(vram, size);
	return sum;
}

static bool wait_for_fault(FIXTURE_DATA(late) *self, int log, uint64_t iova,
			   bool write)
{
	char line[2048], what[128], where[128];
	double end = now() + 0.5;

	snprintf(what, sizeof(what), "[DMA %s", write ? "Write" : "Read");
	snprintf(where, sizeof(where), "[%s] fault addr 0x%llx ", self->pci,
		 (unsigned long long)iova);
	do {
		while (klog_line(log, line, sizeof(line)))
			if (strstr(line, what) && strstr(line, where))
				return true;
	} while (now() < end && !usleep(5000));
	return false;
}

/* Start DMA, and wait for the IOMMU to report that it has stopped it. */
static bool is_stopped(FIXTURE_DATA(late) *self, uint64_t iova, bool write)
{
	int tries, log = klog_open();
	bool stopped = false;

	/* The log is rate-limited to a few faults in five seconds */
	for (tries = 0; tries < 8 && !stopped; tries++) {
		if (tries)
			sleep(1);
		engine_run(self, iova, write);
		stopped = wait_for_fault(self, log, iova, write);
	}
	close(log);
	return stopped;
}

FIXTURE_SETUP(late)
{
	ASSERT_TRUE(lab_route_is("iommu"));

	ASSERT_EQ(0, file_write("/dev/kmsg", BEGIN));
	ASSERT_EQ(0, pci_find(0x1234, 0x11e8, self->pci));
	self->regs = edu_map_regs();
	ASSERT_NE(NULL, self->regs);
	self->edu = edu_open();
	ASSERT_LE(0, self->edu);
	self->gpu = gpu_open(0);
	ASSERT_LE(0, self->gpu);
	ASSERT_EQ(0, gpu_pci_address(self->gpu, self->gpu_pci, PCI_ADDR_LEN));

	ASSERT_EQ(0, buffer_map(&self->to, 2 * PAGE, MADV_NOHUGEPAGE));
	ASSERT_EQ(0, buffer_map(&self->from, 2 * PAGE, MADV_NOHUGEPAGE));
	buffer_write(&self->to, 0, 2 * PAGE);
	buffer_write(&self->from, 0, 2 * PAGE);
	if (variant->vram)
		ASSERT_EQ(0, buffer_to_vram(&self->to, self->gpu, 0, 2 * PAGE));
	ASSERT_EQ(0, page_swap_out(self->from.mem + PAGE));

	self->sleeps = true;
	ASSERT_EQ(0, swap_sleep(true));
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, copy_main, self));
	self->started = true;
	self->from_iova = wait_for_iova(self, EDU_DMA_SRC);
	ASSERT_NE(EDU_BUFFER, self->from_iova);
	self->to_iova = wait_for_iova(self, EDU_DMA_DST);
	ASSERT_NE(EDU_BUFFER, self->to_iova);
	engine_wait(self);
	usleep(50000);
	ASSERT_FALSE(self->done);
	memcpy(self->to.shadow, self->from.shadow, PAGE);
	ASSERT_EQ(-1, differs_in_place(self, variant->vram));
}

FIXTURE_TEARDOWN(late)
{
	copy_end(self);
	buffer_unmap(&self->to);
	buffer_unmap(&self->from);
	close(self->gpu);
	close(self->edu);
	file_write("/dev/kmsg", END);
}

/*
 * While there is a mapping, our DMA works, from the memory to the device's buffer and
 * back. The memory stays where it is.
 */
#define EXPECT_REACHES_MEMORY() do {					\
	uint8_t __page[PAGE];						\
									\
	ASSERT_EQ(0, change(self, variant->vram));			\
	memcpy(__page, self->to.shadow, PAGE);				\
	engine_run(self, self->to_iova, false);				\
	ASSERT_EQ(0, change(self, variant->vram));			\
	engine_run(self, self->to_iova, true);				\
	memcpy(self->to.shadow, __page, PAGE);				\
	ASSERT_EQ(-1, differs_in_place(self, variant->vram));		\
} while (0)

/* DMA is stopped in both directions. */
#define EXPECT_IS_STOPPED(_in_vram) do {				\
	uint64_t __sum;							\
									\
	ASSERT_EQ(0, change(self, _in_vram));				\
	__sum = vram_sum(self);						\
	ASSERT_NE(0, __sum);						\
	EXPECT_TRUE(is_stopped(self, self->to_iova, true));		\
	EXPECT_TRUE(is_stopped(self, self->to_iova, false));		\
	EXPECT_EQ(__sum, vram_sum(self));				\
	EXPECT_EQ(-1, differs_in_place(self, _in_vram));		\
} while (0)

TEST_F(late, dma_after_end_of_request_faults_in_iommu)
{
	EXPECT_REACHES_MEMORY();
	ASSERT_EQ(0, copy_end(self));
	memcpy(self->to.shadow + PAGE, self->from.shadow + PAGE, PAGE);
	EXPECT_IS_STOPPED(variant->vram);
	EXPECT_EQ(-1, buffer_differs(&self->from));
}

TEST_F(late, dma_after_migration_faults_in_iommu)
{
	EXPECT_REACHES_MEMORY();
	ASSERT_EQ(0, variant->vram ?
		     gpu_to_ram(self->gpu, self->to.mem, PAGE) :
		     gpu_to_vram(self->gpu, self->to.mem, PAGE, NULL));
	EXPECT_IS_STOPPED(!variant->vram);

	/* The device has not read the current content. */
	engine_run(self, self->from_iova, true);
	EXPECT_NE(-1, differs(self->from.mem, self->to.shadow, PAGE));
	ASSERT_FALSE(self->done);

	/* The rest of the copy uses a mapping of its own. */
	ASSERT_EQ(0, copy_end(self));
	memcpy(self->to.shadow + PAGE, self->from.shadow + PAGE, PAGE);
	EXPECT_EQ(-1, buffer_differs(&self->to));
}

TEST_HARNESS_MAIN
