// SPDX-License-Identifier: GPL-2.0
/*
 * A process forks while its memory is in VRAM and an importer uses it. After that,
 * parent and child share the pages, and a write has to copy them (copy-on-write, cow):
 * neither side sees the other's writes, by CPU, GPU or importer.
 *
 * More tests of copy-on-write are where they need other devices or another machine:
 * grep for cow in blk.c, dma.c, link.c and race.c.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpu.h"
#include "lib/child.h"
#include "lib/harness.h"
#include "lib/rig.h"
#include "lib/vram.h"
#include "lib/worker.h"

#define SIZE	MIB(4)
#define PAGES	(SIZE / PAGE)

/* A page in the middle of a huge page. */
#define MIDDLE	(HUGE_PAGE / 2 + 3 * PAGE)

FIXTURE(fork) {
	struct rig rig;
	uint64_t evicted;
};

FIXTURE_VARIANTS_BY_ADVICE(fork);

FIXTURE_SETUP(fork)
{
	ASSERT_EQ(0, rig_init_in_vram(&self->rig, SIZE, variant->advice));
	self->evicted = pages_evicted(self->rig.gpu);
}

FIXTURE_TEARDOWN(fork)
{
	EXPECT_EQ(0, rig_fini(&self->rig));
}

/* The child compares with the shadow at the time of the fork, plus its own writes. */
static int child_writes_with_cpu(void *buf)
{
	buffer_write(buf, MIDDLE - 7, HUGE_PAGE);
	return buffer_compare(buf);
}

static int child_writes_with_gpu(void *buf)
{
	int gpu = gpu_open(0), err;

	if (gpu < 0)
		return gpu;
	err = buffer_xor(buf, gpu, MIDDLE - 8, HUGE_PAGE);
	if (!err && buffer_differs_on_gpu(buf, gpu) != -1)
		err = -EILSEQ;
	close(gpu);
	return err ? err : buffer_compare(buf);
}

#define FORK(_fn)							\
	struct rig *rig = &self->rig;					\
	struct child child;						\
									\
	ASSERT_EQ(-1, rig_differs(rig));				\
	ASSERT_EQ(0, rig_write_new(rig, PAGE + 1, PAGE));		\
	ASSERT_EQ(0, child_fork(&child, _fn, &rig->buf))

/* Run the child. The parent's memory is right while the child lives, and after it. */
#define CHECK_FORK() do {						\
	EXPECT_EQ(0, child_do(&child));					\
	EXPECT_EQ(-1, rig_differs(rig));				\
	EXPECT_EQ(-1, buffer_differs(&rig->buf));			\
	EXPECT_EQ(0, child_end(&child));				\
	ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));	\
	ASSERT_EQ(0, rig_write_new(rig, MIDDLE, PAGE));			\
	EXPECT_EQ(-1, rig_differs(rig));				\
	EXPECT_EQ(-1, buffer_differs(&rig->buf));			\
} while (0)

TEST_F(fork, cow_when_importer_writes)
{
	FORK(buffer_compare);

	/* The first write faults, the second does not. */
	EXPECT_EQ(0, rig_write_new(rig, MIDDLE - 3, HUGE_PAGE + 7));
	EXPECT_EQ(0, rig_write_new(rig, MIDDLE - 3, PAGE));
	CHECK_FORK();
}

TEST_F(fork, cow_when_importer_writes_by_a_new_mr)
{
	FORK(buffer_compare);

	EXPECT_EQ(0, rig_register(rig));
	EXPECT_EQ(0, rig_write_new(rig, MIDDLE - 3, HUGE_PAGE + 7));
	CHECK_FORK();
}

TEST_F(fork, cow_when_importer_prefetches_for_writing)
{
	FORK(buffer_compare);

	EXPECT_EQ(0, rig_prefetch(rig, 0, SIZE, 1));
	EXPECT_EQ(0, rig_write_new(rig, MIDDLE - 3, HUGE_PAGE + 7));
	CHECK_FORK();
}

TEST_F(fork, cow_when_importer_does_fetch_add)
{
	FORK(buffer_compare);

	EXPECT_EQ(0, rig_add(rig, MIDDLE + 8, 1));
	CHECK_FORK();
}

TEST_F(fork, cow_when_importer_receives)
{
	FORK(buffer_compare);

	EXPECT_EQ(0, rdma_post_recv(&rig->conn.far, rig->buf.mem + MIDDLE,
				    rig->mr->lkey, PAGE + 1));
	EXPECT_EQ(0, rdma_send(&rig->conn.near, rig->ram.mem,
			       rig->ram_mr->lkey, PAGE + 1));
	EXPECT_EQ(0, rdma_wait(&rig->conn.far));
	memcpy(rig->buf.shadow + MIDDLE, rig->ram.mem, PAGE + 1);
	CHECK_FORK();
}

TEST_F(fork, cow_when_gpu_writes)
{
	FORK(buffer_compare);

	EXPECT_EQ(0, buffer_xor(&rig->buf, rig->gpu, MIDDLE - 8,
				HUGE_PAGE));
	CHECK_FORK();
}

TEST_F(fork, cow_when_child_gpu_and_importer_write)
{
	FORK(child_writes_with_cpu);

	EXPECT_EQ(0, rig_write_new(rig, MIDDLE - 3, PAGE));
	EXPECT_EQ(0, buffer_xor(&rig->buf, rig->gpu, MIDDLE - 8, PAGE));
	EXPECT_EQ(0, rig_write_new(rig, MIDDLE - 3, PAGE));
	CHECK_FORK();
}

TEST_F(fork, cow_when_child_writes)
{
	FORK(child_writes_with_cpu);

	/* This read may use pages that parent and child share. */
	EXPECT_EQ(-1, rig_differs(rig));
	CHECK_FORK();
}

TEST_F(fork, cow_when_gpu_of_child_writes)
{
	FORK(child_writes_with_gpu);

	EXPECT_EQ(-1, rig_differs(rig));
	CHECK_FORK();
}

TEST_F(fork, importer_reads_shared_pages_without_migration)
{
	FORK(buffer_compare);

	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));
	EXPECT_EQ(PAGES, pages_in_vram(rig->gpu, rig->buf.mem, SIZE));
	CHECK_FORK();
}

/* Children are forked while an importer adds to the memory. */

/* The child's memory must not change, whatever happens to the parent's. */
static int child_keeps_its_own(const uint8_t *mem)
{
	static uint8_t before[PAGE];

	memcpy(before, mem + MIDDLE, PAGE);
	usleep(5000);
	return memcmp(before, mem + MIDDLE, PAGE) != 0;
}

static int fork_child(struct worker *worker)
{
	struct rig *rig = worker->rig;
	int status;
	pid_t pid;

	pid = fork();
	if (!pid)
		_exit(child_keeps_its_own(rig->buf.mem));
	if (waitpid(pid, &status, 0) != pid || status)
		return -EILSEQ;

	return worker->rounds % 2 ?
	       gpu_to_vram(rig->gpu, rig->buf.mem, SIZE, NULL) : 0;
}

TEST_F(fork, cow_while_importer_does_fetch_add)
{
	struct rig *rig = &self->rig;
	struct worker worker = { .rig = rig };
	int i, err = 0;

	ASSERT_EQ(0, worker_start(&worker, fork_child));
	for (i = 0; (i < 100 || worker.rounds < 6) && !err && !worker.err; i++)
		err = rig_add(rig, MIDDLE + i * 8 % PAGE, i + 1);
	EXPECT_EQ(0, worker_stop(&worker));
	EXPECT_EQ(0, err);
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
}

TEST_HARNESS_MAIN
