// SPDX-License-Identifier: GPL-2.0
/*
 * A process changes its mappings while the memory is in VRAM and an importer uses
 * it. These tests look for stale aliases: after each change, a transfer through a
 * stale alias would read or write the wrong memory.
 */
#include <errno.h>
#include <linux/mman.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpu.h"
#include "lib/child.h"
#include "lib/harness.h"
#include "lib/rig.h"
#include "lib/stats.h"
#include "lib/swap.h"
#include "lib/vram.h"
#include "lib/worker.h"

#define SIZE	MIB(4)
#define PAGES	(SIZE / PAGE)

/* A page in the middle of a huge page. */
#define MIDDLE	(HUGE_PAGE / 2 + 3 * PAGE)

FIXTURE(mm) {
	struct rig rig;
	uint64_t evicted;
};

FIXTURE_VARIANT(mm) {
	int advice;
};

FIXTURE_VARIANT_ADD(mm, pages) {
	.advice = MADV_NOHUGEPAGE,
};

FIXTURE_VARIANT_ADD(mm, huge) {
	.advice = MADV_HUGEPAGE,
};

FIXTURE_SETUP(mm)
{
	ASSERT_EQ(0, rig_init_in_vram(&self->rig, SIZE, variant->advice));
	self->evicted = pages_evicted(self->rig.gpu);
}

FIXTURE_TEARDOWN(mm)
{
	EXPECT_EQ(0, rig_fini(&self->rig));
}

/* The request is refused for lack of permission. Then the connection works again. */
#define EXPECT_REFUSED(request) do {					\
	EXPECT_EQ(-EREMOTEIO, request);					\
	EXPECT_EQ(IBV_WC_REM_ACCESS_ERR,				\
		  rdma_status(&self->rig.conn.near));			\
	ASSERT_EQ(0, conn_revive(&self->rig.conn));			\
} while (0)

TEST_F(mm, cpu_reads_what_gpu_and_importer_wrote)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, rig_write_new(rig, MIDDLE - 3, HUGE_PAGE));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
	EXPECT_EQ(0, pages_in_vram(rig->gpu, rig->buf.mem, SIZE));
}

TEST_F(mm, importer_follows_to_ram_and_back)
{
	struct rig *rig = &self->rig;
	int i;

	for (i = 0; i < 3; i++) {
		EXPECT_EQ(-1, rig_differs(rig));
		/* CPU accesses, both reads and writes, move the memory to RAM. */
		EXPECT_EQ(-1, buffer_differs(&rig->buf));
		buffer_write(&rig->buf, MIDDLE - 5, 2 * PAGE + 7);
		EXPECT_EQ(-1, rig_differs(rig));
		ASSERT_EQ(0, rig_write_new(rig, MIDDLE + PAGE + 3, PAGE));

		ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
		EXPECT_EQ(-1, rig_differs(rig));
		ASSERT_EQ(0, rig_write_new(rig, MIDDLE + 1, PAGE));
		EXPECT_EQ(-1, rig_differs(rig));
		EXPECT_EQ(PAGES, pages_in_vram(rig->gpu, rig->buf.mem,
					       SIZE));
	}
}

TEST_F(mm, swapped_out_memory_goes_to_vram)
{
	struct rig *rig = &self->rig;
	uint8_t *mem = rig->buf.mem;

	ASSERT_EQ(0, gpu_to_ram(rig->gpu, mem, SIZE));
	ASSERT_EQ(0, pages_out(mem, SIZE));

	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, pages_out(mem, SIZE));

	ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_EQ(PAGES, pages_in_vram(rig->gpu, mem, SIZE));
}

TEST_F(mm, advice_loses_nothing)
{
	static const int advices[] = {
		MADV_COLD, MADV_PAGEOUT, MADV_WILLNEED, MADV_NOHUGEPAGE,
		MADV_HUGEPAGE, MADV_POPULATE_READ, MADV_POPULATE_WRITE,
		MADV_COLLAPSE,
	};
	struct rig *rig = &self->rig;
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(advices); i++) {
		ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
		/* The kernel may refuse the advice for memory in VRAM. */
		madvise(rig->buf.mem, SIZE, advices[i]);
		EXPECT_EQ(-1, rig_differs(rig)) {
			TH_LOG("advice %d", advices[i]);
		}
	}
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
}

/* Permissions */

TEST_F(mm, read_only_memory_is_read_in_place)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, mprotect(rig->buf.mem, SIZE, PROT_READ));
	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, rig_register(rig));
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));
	EXPECT_EQ(PAGES, pages_in_vram(rig->gpu, rig->buf.mem, SIZE));
}

TEST_F(mm, read_only_memory_is_not_written)
{
	struct rig *rig = &self->rig;

	/* Through aliases from before, when the memory was writable. */
	ASSERT_EQ(0, rig_write_new(rig, MIDDLE, PAGE));
	ASSERT_EQ(0, mprotect(rig->buf.mem, SIZE, PROT_READ));
	EXPECT_REFUSED(rig_write(rig, MIDDLE, PAGE));

	/* And through a new MR. */
	ASSERT_EQ(0, rig_register(rig));
	EXPECT_REFUSED(rig_write(rig, MIDDLE, PAGE));

	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
}

TEST_F(mm, writable_again_memory_is_written)
{
	struct rig *rig = &self->rig;
	uint64_t readonly;

	ASSERT_EQ(0, mprotect(rig->buf.mem, SIZE, PROT_READ));
	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, mprotect(rig->buf.mem, SIZE, PROT_READ | PROT_WRITE));

	readonly = stat_read("fallback_readonly");
	ASSERT_EQ(0, rig_write_new(rig, MIDDLE - 1, PAGE + 2));
	/* The first packet meets two pages, small or huge; the third migrates too */
	EXPECT_EQ(readonly + 2, stat_read("fallback_readonly"));
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
}

TEST_F(mm, inaccessible_memory_is_out_of_reach)
{
	struct rig *rig = &self->rig;

	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, mprotect(rig->buf.mem, SIZE, PROT_NONE));
	EXPECT_REFUSED(rig_read(rig, MIDDLE, PAGE));
	EXPECT_REFUSED(rig_write(rig, MIDDLE, PAGE));

	ASSERT_EQ(0, mprotect(rig->buf.mem, SIZE, PROT_READ | PROT_WRITE));
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
}

TEST_F(mm, one_read_only_page_between_others)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, mprotect(rig->buf.mem + MIDDLE, PAGE, PROT_READ));
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_REFUSED(rig_write(rig, MIDDLE + 8, 8));
	ASSERT_EQ(0, rig_write_new(rig, MIDDLE - PAGE - 1, PAGE + 1));
	ASSERT_EQ(0, rig_write_new(rig, MIDDLE + PAGE, PAGE + 1));
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
}

/* Mappings that change */

TEST_F(mm, unmapped_memory_is_out_of_reach)
{
	struct rig *rig = &self->rig;

	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, munmap(rig->buf.mem, SIZE));

	/* An MR does not keep the memory allocated. */
	EXPECT_EQ(0, vram_leaked(rig->gpu, rig->vram_free));
	EXPECT_REFUSED(rig_read(rig, MIDDLE, PAGE));
	EXPECT_REFUSED(rig_write(rig, MIDDLE, PAGE));
}

TEST_F(mm, one_unmapped_page_between_others)
{
	struct rig *rig = &self->rig;

	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, munmap(rig->buf.mem + MIDDLE, PAGE));
	EXPECT_REFUSED(rig_read(rig, MIDDLE - 8, 16));
	EXPECT_REFUSED(rig_write(rig, MIDDLE + 8, 8));

	ASSERT_EQ(0, rig_read(rig, 0, MIDDLE));
	EXPECT_EQ(-1, differs(rig->ram.mem, rig->buf.shadow, MIDDLE));
	ASSERT_EQ(0, rig_write_new(rig, MIDDLE + PAGE, 3 * PAGE + 1));
	ASSERT_EQ(0, rig_read(rig, MIDDLE + PAGE, SIZE - MIDDLE - PAGE));
	EXPECT_EQ(-1, differs(rig->ram.mem + MIDDLE + PAGE,
			      rig->buf.shadow + MIDDLE + PAGE,
			      SIZE - MIDDLE - PAGE));
	EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));
	EXPECT_EQ(-1, differs(rig->buf.mem, rig->buf.shadow, MIDDLE));
	EXPECT_EQ(-1, differs(rig->buf.mem + MIDDLE + PAGE,
			      rig->buf.shadow + MIDDLE + PAGE,
			      SIZE - MIDDLE - PAGE));
}

/* The first response on the new connection is not one that the read waited for. */
TEST_F(mm, atomic_after_a_read_that_fails_half_way)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, munmap(rig->buf.mem + MIDDLE, PAGE));
	EXPECT_REFUSED(rig_read(rig, MIDDLE - PAGE, 2 * PAGE));
	EXPECT_EQ(0, rig_add(rig, MIDDLE + PAGE, 0x123456789abcdef1));
	ASSERT_EQ(0, rig_read(rig, MIDDLE + PAGE, PAGE));
	EXPECT_EQ(-1, differs(rig->ram.mem + MIDDLE + PAGE,
			      rig->buf.shadow + MIDDLE + PAGE, PAGE));
}

TEST_F(mm, new_memory_at_the_same_place)
{
	struct rig *rig = &self->rig;

	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(rig->buf.mem, mmap(rig->buf.mem, SIZE,
				     PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
				     -1, 0));
	EXPECT_EQ(0, vram_leaked(rig->gpu, rig->vram_free));
	memset(rig->buf.shadow, 0, SIZE);
	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, rig_write_new(rig, MIDDLE + 1, HUGE_PAGE));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));

	ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
	EXPECT_EQ(-1, rig_differs(rig));
}

TEST_F(mm, dropped_memory_is_zero)
{
	struct rig *rig = &self->rig;

	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, madvise(rig->buf.mem, SIZE, MADV_DONTNEED));
	EXPECT_EQ(0, vram_leaked(rig->gpu, rig->vram_free));
	memset(rig->buf.shadow, 0, SIZE);
	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, rig_write_new(rig, MIDDLE - 1, 2 * PAGE));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
}

TEST_F(mm, one_dropped_page_between_others)
{
	struct rig *rig = &self->rig;

	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, madvise(rig->buf.mem + MIDDLE, PAGE, MADV_DONTNEED));
	memset(rig->buf.shadow + MIDDLE, 0, PAGE);
	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, rig_write_new(rig, MIDDLE - 1, PAGE + 2));
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_EQ(PAGES - 1, pages_in_vram(rig->gpu, rig->buf.mem, SIZE));
	EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
}

/* A fault on a hole must not extend to the pages in VRAM that follow it. */
TEST_F(mm, hole_before_and_after_vram)
{
	struct rig *rig = &self->rig;
	int first;

	for (first = 0; first < 2; first++) {
		size_t hole = first ? 0 : HUGE_PAGE;

		ASSERT_EQ(0, madvise(rig->buf.mem + hole, HUGE_PAGE,
				     MADV_DONTNEED));
		memset(rig->buf.shadow + hole, 0, HUGE_PAGE);
		ASSERT_EQ(0, rig_prefetch(rig, 0, SIZE, 1));
		EXPECT_EQ(PAGES / 2, pages_in_vram(rig->gpu, rig->buf.mem,
						   SIZE));
		EXPECT_EQ(-1, rig_differs(rig));
		EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));

		ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
	}
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
}

TEST_F(mm, file_between_memory_in_vram)
{
	struct rig *rig = &self->rig;
	size_t size = 5 * PAGE;
	int fd = memfd_create("test", MFD_CLOEXEC);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, size));
	ASSERT_EQ(rig->buf.mem + MIDDLE,
		  mmap(rig->buf.mem + MIDDLE, size, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_FIXED, fd, 0));
	buffer_write(&rig->buf, MIDDLE, size);

	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, rig_write_new(rig, MIDDLE - 3, size + 7));
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_EQ(PAGES - size / PAGE,
		  pages_in_vram(rig->gpu, rig->buf.mem, SIZE));
	EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
	close(fd);
}

TEST_F(mm, memory_moved_away)
{
	struct rig *rig = &self->rig;
	struct buffer to;
	struct ibv_mr *mr;

	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, buffer_map(&to, SIZE, variant->advice));
	ASSERT_EQ(to.mem, mremap(rig->buf.mem, SIZE, SIZE,
				 MREMAP_MAYMOVE | MREMAP_FIXED, to.mem));

	EXPECT_REFUSED(rig_read(rig, MIDDLE, PAGE));
	EXPECT_REFUSED(rig_write(rig, MIDDLE, PAGE));

	mr = rdma_reg_odp(&rig->conn.far, to.mem, SIZE);
	ASSERT_NE(NULL, mr);
	EXPECT_EQ(0, rdma_read(&rig->conn.near, rig->ram.mem,
			       rig->ram_mr->lkey, (uintptr_t)to.mem,
			       mr->rkey, SIZE));
	EXPECT_EQ(-1, differs(rig->ram.mem, rig->buf.shadow, SIZE));
	EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));
	EXPECT_EQ(-1, differs(to.mem, rig->buf.shadow, SIZE));
	ibv_dereg_mr(mr);
	buffer_unmap(&to);
}

TEST_F(mm, one_page_moved_away)
{
	struct rig *rig = &self->rig;
	struct buffer to;

	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, buffer_map(&to, HUGE_PAGE, variant->advice));
	ASSERT_EQ(to.mem, mremap(rig->buf.mem + MIDDLE, PAGE, PAGE,
				 MREMAP_MAYMOVE | MREMAP_FIXED, to.mem));
	EXPECT_REFUSED(rig_read(rig, MIDDLE, PAGE));
	ASSERT_EQ(0, rig_write_new(rig, MIDDLE - 5, 5));
	ASSERT_EQ(0, rig_write_new(rig, MIDDLE + PAGE, 5));
	EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));

	EXPECT_EQ(-1, differs(to.mem, rig->buf.shadow + MIDDLE, PAGE));
	EXPECT_EQ(-1, differs(rig->buf.mem, rig->buf.shadow, MIDDLE));
	EXPECT_EQ(-1, differs(rig->buf.mem + MIDDLE + PAGE,
			      rig->buf.shadow + MIDDLE + PAGE,
			      SIZE - MIDDLE - PAGE));
	buffer_unmap(&to);
}

TEST_F(mm, other_memory_moved_into_its_place)
{
	struct rig *rig = &self->rig;
	struct buffer other;

	ASSERT_EQ(0, buffer_map(&other, SIZE, variant->advice));
	buffer_write(&other, 0, SIZE);
	ASSERT_EQ(0, buffer_to_vram(&other, rig->gpu, 0, SIZE));

	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(rig->buf.mem, mremap(other.mem, SIZE, SIZE,
				       MREMAP_MAYMOVE | MREMAP_FIXED,
				       rig->buf.mem));
	memcpy(rig->buf.shadow, other.shadow, SIZE);
	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, rig_write_new(rig, MIDDLE + 3, PAGE));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&rig->buf, rig->gpu));
	EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
	buffer_unmap(&other);
}

/* Fork: neither side sees the other's writes, by CPU, GPU or importer. */

/* Compares with the shadow at the time of the fork, plus the child's own writes. */
static int child_sees_its_own(void *arg)
{
	struct rig *rig = arg;

	return buffer_differs(&rig->buf) != -1;
}

static int child_writes_with_cpu(void *arg)
{
	struct rig *rig = arg;

	buffer_write(&rig->buf, MIDDLE - 7, HUGE_PAGE);
	return child_sees_its_own(rig);
}

static int child_writes_with_gpu(void *arg)
{
	struct rig *rig = arg;
	int gpu = gpu_open(0), err;

	if (gpu < 0)
		return gpu;
	err = buffer_xor(&rig->buf, gpu, MIDDLE - 8, HUGE_PAGE);
	if (!err && buffer_differs_on_gpu(&rig->buf, gpu) != -1)
		err = -EILSEQ;
	close(gpu);
	return err ? err : child_sees_its_own(rig);
}

#define FORK(_fn)							\
	struct rig *rig = &self->rig;					\
	struct child child;						\
									\
	ASSERT_EQ(-1, rig_differs(rig));				\
	ASSERT_EQ(0, rig_write_new(rig, PAGE + 1, PAGE));		\
	ASSERT_EQ(0, child_fork(&child, _fn, rig))

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

TEST_F(mm, fork_then_importer_writes)
{
	FORK(child_sees_its_own);

	/* The first write faults, the second does not. */
	EXPECT_EQ(0, rig_write_new(rig, MIDDLE - 3, HUGE_PAGE + 7));
	EXPECT_EQ(0, rig_write_new(rig, MIDDLE - 3, PAGE));
	CHECK_FORK();
}

TEST_F(mm, fork_then_importer_writes_by_a_new_mr)
{
	FORK(child_sees_its_own);

	EXPECT_EQ(0, rig_register(rig));
	EXPECT_EQ(0, rig_write_new(rig, MIDDLE - 3, HUGE_PAGE + 7));
	CHECK_FORK();
}

TEST_F(mm, fork_then_importer_prefetches_for_writing)
{
	FORK(child_sees_its_own);

	EXPECT_EQ(0, rig_prefetch(rig, 0, SIZE, 1));
	EXPECT_EQ(0, rig_write_new(rig, MIDDLE - 3, HUGE_PAGE + 7));
	CHECK_FORK();
}

TEST_F(mm, fork_then_importer_adds)
{
	FORK(child_sees_its_own);

	EXPECT_EQ(0, rig_add(rig, MIDDLE + 8, 1));
	CHECK_FORK();
}

TEST_F(mm, fork_then_importer_receives)
{
	FORK(child_sees_its_own);

	EXPECT_EQ(0, rdma_post_recv(&rig->conn.far, rig->buf.mem + MIDDLE,
				    rig->mr->lkey, PAGE + 1));
	EXPECT_EQ(0, rdma_send(&rig->conn.near, rig->ram.mem,
			       rig->ram_mr->lkey, PAGE + 1));
	EXPECT_EQ(0, rdma_wait(&rig->conn.far));
	memcpy(rig->buf.shadow + MIDDLE, rig->ram.mem, PAGE + 1);
	CHECK_FORK();
}

TEST_F(mm, fork_then_gpu_writes)
{
	FORK(child_sees_its_own);

	EXPECT_EQ(0, buffer_xor(&rig->buf, rig->gpu, MIDDLE - 8,
				HUGE_PAGE));
	CHECK_FORK();
}

TEST_F(mm, fork_then_all_write)
{
	FORK(child_writes_with_cpu);

	EXPECT_EQ(0, rig_write_new(rig, MIDDLE - 3, PAGE));
	EXPECT_EQ(0, buffer_xor(&rig->buf, rig->gpu, MIDDLE - 8, PAGE));
	EXPECT_EQ(0, rig_write_new(rig, MIDDLE - 3, PAGE));
	CHECK_FORK();
}

TEST_F(mm, fork_then_child_writes)
{
	FORK(child_writes_with_cpu);

	/* This read may use pages that parent and child share. */
	EXPECT_EQ(-1, rig_differs(rig));
	CHECK_FORK();
}

TEST_F(mm, fork_then_gpu_of_child_writes)
{
	FORK(child_writes_with_gpu);

	EXPECT_EQ(-1, rig_differs(rig));
	CHECK_FORK();
}

TEST_F(mm, fork_then_importer_reads_in_place)
{
	FORK(child_sees_its_own);

	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));
	EXPECT_EQ(PAGES, pages_in_vram(rig->gpu, rig->buf.mem, SIZE));
	CHECK_FORK();
}

/* Traffic, while another thread changes the page tables. */

static int change_protection(struct worker *worker)
{
	uint8_t *mem = worker->rig->buf.mem;

	return mprotect(mem, SIZE, PROT_READ) ||
	       mprotect(mem + MIDDLE, PAGE, PROT_READ | PROT_WRITE) ||
	       mprotect(mem, SIZE, PROT_READ | PROT_WRITE) ? -errno : 0;
}

TEST_F(mm, reads_while_protection_changes)
{
	struct rig *rig = &self->rig;
	struct worker worker = { .rig = rig };
	bool right = true;
	int i;

	ASSERT_EQ(0, worker_start(&worker, change_protection));
	for (i = 0; (i < 5 || worker.rounds < 5) && right && !worker.err; i++) {
		if (i % 2)
			right = !rig_register(rig);
		if (right)
			right = rig_differs(rig) == -1;
	}
	EXPECT_EQ(0, worker_stop(&worker));
	EXPECT_TRUE(right);
	EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));
}

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

TEST_F(mm, writes_while_children_are_forked)
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

/* Only the importer has written to the page since it was last on disk. */
TEST_F(mm, importer_writes_to_a_clean_page)
{
	struct rig *rig = &self->rig;
	volatile uint8_t *page = rig->buf.mem + MIDDLE;

	EXPECT_EQ(-1, buffer_differs(&rig->buf));
	ASSERT_EQ(0, page_swap_out(page));
	(void)*page;
	ASSERT_EQ(0, rig_write_new(rig, MIDDLE, PAGE));
	ASSERT_EQ(0, page_swap_out(page));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
}

/* Registering the MR looks up the page while it is clean. */
TEST_F(mm, importer_writes_to_what_was_clean_when_it_registered)
{
	struct rig *rig = &self->rig;
	volatile uint8_t *page = rig->buf.mem + MIDDLE;

	EXPECT_EQ(-1, buffer_differs(&rig->buf));
	ASSERT_EQ(0, page_swap_out(page));
	(void)*page;
	ASSERT_EQ(0, rig_register(rig));
	ASSERT_EQ(0, rig_write_new(rig, MIDDLE, PAGE));
	ASSERT_EQ(0, page_swap_out(page));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
}

TEST_HARNESS_MAIN
