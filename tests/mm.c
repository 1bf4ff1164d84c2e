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
#include <unistd.h>

#include "gpu.h"
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

FIXTURE_VARIANTS_BY_ADVICE(mm);

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

TEST_F(mm, importer_follows_pages_to_ram_and_back)
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

TEST_F(mm, madvise_on_vram_keeps_data)
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

TEST_F(mm, mprotect_read_only_memory_is_read_in_place)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, mprotect(rig->buf.mem, SIZE, PROT_READ));
	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, rig_register(rig));
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));
	EXPECT_EQ(PAGES, pages_in_vram(rig->gpu, rig->buf.mem, SIZE));
}

TEST_F(mm, mprotect_read_only_memory_is_not_written)
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

TEST_F(mm, mprotect_to_writable_lets_importer_write_again)
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

TEST_F(mm, mprotect_none_is_out_of_reach)
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

TEST_F(mm, mprotect_of_one_page_refuses_writes_only_there)
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

TEST_F(mm, munmap_takes_memory_out_of_reach)
{
	struct rig *rig = &self->rig;

	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, munmap(rig->buf.mem, SIZE));

	/* An MR does not keep the memory allocated. */
	EXPECT_EQ(0, vram_leaked(rig->gpu, rig->vram_free));
	EXPECT_REFUSED(rig_read(rig, MIDDLE, PAGE));
	EXPECT_REFUSED(rig_write(rig, MIDDLE, PAGE));
}

TEST_F(mm, munmap_of_one_page_refuses_access_only_there)
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
TEST_F(mm, atomic_after_failed_read_gets_its_own_response)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, munmap(rig->buf.mem + MIDDLE, PAGE));
	EXPECT_REFUSED(rig_read(rig, MIDDLE - PAGE, 2 * PAGE));
	EXPECT_EQ(0, rig_add(rig, MIDDLE + PAGE, 0x123456789abcdef1));
	ASSERT_EQ(0, rig_read(rig, MIDDLE + PAGE, PAGE));
	EXPECT_EQ(-1, differs(rig->ram.mem + MIDDLE + PAGE,
			      rig->buf.shadow + MIDDLE + PAGE, PAGE));
}

TEST_F(mm, mmap_fixed_over_vram_drops_stale_aliases)
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

TEST_F(mm, madv_dontneed_leaves_zeroes)
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

TEST_F(mm, madv_dontneed_of_one_page_zeroes_only_that_page)
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
TEST_F(mm, fault_on_hole_does_not_migrate_adjacent_vram)
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

TEST_F(mm, importer_accesses_file_pages_between_vram_pages)
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

TEST_F(mm, mremap_drops_aliases_of_old_address)
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

TEST_F(mm, mremap_of_one_page_drops_only_its_alias)
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

TEST_F(mm, mremap_onto_mr_replaces_its_aliases)
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

/* Traffic, while another thread changes the page tables. */

static int change_protection(struct worker *worker)
{
	uint8_t *mem = worker->rig->buf.mem;

	return mprotect(mem, SIZE, PROT_READ) ||
	       mprotect(mem + MIDDLE, PAGE, PROT_READ | PROT_WRITE) ||
	       mprotect(mem, SIZE, PROT_READ | PROT_WRITE) ? -errno : 0;
}

TEST_F(mm, importer_reads_right_data_during_mprotect)
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

/* Only the importer has written to the page since it was last on disk. */
TEST_F(mm, importer_write_dirties_clean_page)
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
TEST_F(mm, importer_write_dirties_page_clean_at_reg_mr)
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
