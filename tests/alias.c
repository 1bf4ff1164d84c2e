// SPDX-License-Identifier: GPL-2.0
/*
 * The contract of hmm_range_fault(): which callers get private pages, which get
 * aliases, and for which the pages migrate; the counters; and that queries have no
 * side effects.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

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
#include "lib/worker.h"

#define SIZE	MIB(4)
#define PAGES	(SIZE / PAGE)

#define TRACE	"/sys/kernel/tracing/"

/* All counters, summed up where the tests need no more detail. */
struct stats {
	uint64_t cpu;
	uint64_t pci;
	uint64_t fallback;
};

static struct stats stats_read(void)
{
	return (struct stats) {
		.cpu = stat_read("alias_cpu"),
		.pci = stat_read("alias_bus") + stat_read("alias_host_bridge"),
		.fallback = stat_read("fallback_no_window") +
			    stat_read("fallback_outside_window") +
			    stat_read("fallback_unreachable") +
			    stat_read("fallback_revoked") +
			    stat_read("fallback_readonly"),
	};
}

FIXTURE(alias) {
	struct rig rig;
	int other;
	struct drm_vsvm_residency where;
	uint64_t evicted;
	uint64_t other_free;
	struct stats stats;
};

FIXTURE_VARIANTS_BY_ADVICE(alias);

FIXTURE_SETUP(alias)
{
	struct rig *rig = &self->rig;

	self->other = gpu_open(1);
	ASSERT_LE(0, self->other);
	self->other_free = vram_free(self->other);
	ASSERT_EQ(0, rig_init_in_vram(rig, SIZE, variant->advice));
	self->evicted = pages_evicted(rig->gpu);
	self->stats = stats_read();
}

FIXTURE_TEARDOWN(alias)
{
	EXPECT_EQ(-1, buffer_differs(&self->rig.buf));
	EXPECT_EQ(0, rig_fini(&self->rig));
	EXPECT_EQ(0, vram_leaked(self->other, self->other_free));
	close(self->other);
}

#define EXPECT_STATS(_cpu, _pci, _fallback) do {			\
	struct stats now = stats_read();				\
									\
	EXPECT_EQ(self->stats.cpu + (_cpu), now.cpu);			\
	EXPECT_EQ(self->stats.pci + (_pci), now.pci);			\
	EXPECT_EQ(self->stats.fallback + (_fallback), now.fallback);	\
} while (0)

/* A GPU could ask for aliases of its own memory, but gets the private pages. */
TEST_F(alias, own_gpu_gets_private_pages_not_aliases)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, gpu_residency(rig->gpu, rig->buf.mem, SIZE,
				   &self->where));
	EXPECT_EQ(PAGES, self->where.vram);
	EXPECT_EQ(variant->advice == MADV_HUGEPAGE ? PAGES : 0,
		  self->where.huge);
	EXPECT_EQ(0, self->where.peer);
	EXPECT_STATS(0, 0, 0);
}

TEST_F(alias, peer_gpu_gets_pci_alias_of_each_page_in_place)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, gpu_residency(self->other, rig->buf.mem, SIZE,
				   &self->where));
	EXPECT_EQ(PAGES, self->where.peer);
	EXPECT_EQ(variant->advice == MADV_HUGEPAGE ? PAGES : 0, self->where.huge);
	EXPECT_EQ(0, self->where.vram + self->where.ram + self->where.none);
	EXPECT_STATS(0, PAGES, 0);
	EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));
}

TEST_F(alias, enabled_never_hands_out_no_alias)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, aliases_enable(false));
	EXPECT_EQ(0, gpu_residency(self->other, rig->buf.mem, SIZE,
				   &self->where));
	EXPECT_EQ(PAGES, pages_in_vram(rig->gpu, rig->buf.mem, SIZE));
	EXPECT_EQ(0, aliases_enable(true));

	EXPECT_EQ(PAGES, self->where.none);
	EXPECT_STATS(0, 0, 0);
	EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));
}

TEST_F(alias, enabled_accepts_only_always_and_never)
{
	static const char path[] = "/sys/kernel/mm/hmm_p2pdma/enabled";

	EXPECT_EQ(-EINVAL, file_write(path, "maybe"));
	EXPECT_EQ(-EINVAL, file_write(path, "alwaysnever"));
	EXPECT_EQ(-EINVAL, file_write(path, "0"));
	EXPECT_EQ(0, file_write(path, "never\n"));
	EXPECT_EQ(0, file_write(path, "always\n"));
	EXPECT_EQ(-1, rig_differs(&self->rig));
	EXPECT_EQ(self->evicted, pages_evicted(self->rig.gpu));
}

TEST_F(alias, alias_cpu_counts_each_page_of_an_mr_once)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, rig_register(rig));
	EXPECT_STATS(PAGES, 0, 0);

	/* The MR has mapped all pages, so nothing faults or is counted again. */
	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, rig_write_new(rig, 1, SIZE - 1));
	EXPECT_STATS(PAGES, 0, 0);
}

/* Trace @event of this process; trace_stop() calls count() for each line. */
static int trace_start(const char *event)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", getpid());
	return file_write(TRACE "set_event_pid", pid) ?:
	       file_write(TRACE "trace", "") ?: file_write(event, "1");
}

static int trace_stop(const char *event, void (*count)(const char *line, void *arg),
		      void *arg)
{
	char line[512];
	FILE *trace;
	int err;

	err = file_write(event, "0") ?: file_write(TRACE "set_event_pid", "");
	trace = fopen(TRACE "trace", "r");
	if (err || !trace)
		return err ? err : -errno;
	while (fgets(line, sizeof(line), trace))
		if (line[0] != '#')
			count(line, arg);
	fclose(trace);
	return file_write(TRACE "trace", "");
}

/* Sums over the lines of either HMM event. */
struct traced {
	const uint8_t *mem;
	const char *tail;
	unsigned long events;
	unsigned long pages;
	unsigned long wrong;
};

static void count_pages(const char *line, void *arg)
{
	struct traced *t = arg;
	const char *addr = strstr(line, " addr="), *nr = strstr(line, " nr_pages=");
	unsigned long at, nr_pages;

	t->events++;
	if (!addr || !nr || sscanf(addr, " addr=%lx", &at) != 1 ||
	    sscanf(nr, " nr_pages=%lu", &nr_pages) != 1 || !strstr(line, t->tail) ||
	    at - (uintptr_t)t->mem + nr_pages * PAGE > SIZE || at % PAGE) {
		t->wrong++;
		printf("# %s", line);
		return;
	}
	t->pages += nr_pages;
}

#define ALIAS_EVENT	TRACE "events/hmm/hmm_alias/"
#define FALLBACK_EVENT	TRACE "events/hmm/hmm_alias_fallback/"

TEST_F(alias, hmm_alias_event_covers_one_page_table_entry)
{
	struct rig *rig = &self->rig;
	struct traced traced = { .mem = rig->buf.mem, .tail = " route=cpu\n" };

	ASSERT_EQ(0, trace_start(ALIAS_EVENT "enable"));
	EXPECT_EQ(0, rig_prefetch(rig, 0, SIZE, 1));
	ASSERT_EQ(0, trace_stop(ALIAS_EVENT "enable", count_pages, &traced));

	EXPECT_EQ(0, traced.wrong);
	EXPECT_EQ(PAGES, traced.pages);
	EXPECT_EQ(variant->advice == MADV_HUGEPAGE ? SIZE / HUGE_PAGE : PAGES,
		  traced.events);
}

/* After fork() a page has no alias for writing. */
TEST_F(alias, readonly_fallback_after_fork_is_traced_and_counted)
{
	struct rig *rig = &self->rig;
	struct traced traced = { .mem = rig->buf.mem, .tail = " reason=readonly\n" };
	uint64_t readonly = stat_read("fallback_readonly");
	struct child child;

	ASSERT_EQ(0, child_fork(&child, NULL, NULL));
	ASSERT_EQ(0, trace_start(FALLBACK_EVENT "enable"));
	EXPECT_EQ(0, rig_prefetch(rig, 0, SIZE, 1));
	ASSERT_EQ(0, trace_stop(FALLBACK_EVENT "enable", count_pages, &traced));

	EXPECT_EQ(0, traced.wrong);
	EXPECT_EQ(PAGES, traced.pages);
	EXPECT_EQ(variant->advice == MADV_HUGEPAGE ? SIZE / HUGE_PAGE : PAGES,
		  traced.events);
	EXPECT_EQ(readonly + PAGES, stat_read("fallback_readonly"));
	EXPECT_STATS(0, 0, PAGES);
	EXPECT_EQ(0, child_end(&child));
	EXPECT_EQ(-1, rig_differs(rig));
}

/* Tools that parse the format file do not know the kernel's enum names. */
TEST_F(alias, trace_format_has_enum_values_as_numbers)
{
	EXPECT_EQ(0, system("grep -q 'host_bridge' " ALIAS_EVENT "format"));
	EXPECT_EQ(0, system("grep -q 'revoked' " FALLBACK_EVENT "format"));
	EXPECT_NE(0, system("grep HMM_ " ALIAS_EVENT "format " FALLBACK_EVENT "format"));
}

static void count_reads(const char *line, void *arg)
{
	*(unsigned long *)arg += !!strstr(line, "write=false");
}

#define MMAP_LOCK_EVENT	TRACE "events/mmap_lock/mmap_lock_acquire_returned/enable"

/*
 * How often does the walk start for memory that migrates page by page? There are only
 * 64 pages, so that a slow kernel migrates them within a second.
 */
static long walks_of_memory_without_a_window(struct rig *rig, int dmirror,
					     bool enable)
{
	const size_t size = 64 * PAGE;
	struct hmm_dmirror_cmd cmd = { .npages = size / PAGE };
	unsigned long walks = 0;
	struct buffer buf, copy;
	struct ibv_mr *mr;
	int err;

	err = buffer_map(&buf, size, MADV_NOHUGEPAGE) ?:
	      buffer_map(&copy, size, MADV_NOHUGEPAGE);
	if (err)
		return err;
	buffer_write(&buf, 0, size);
	cmd.addr = (uintptr_t)buf.mem;
	cmd.ptr = (uintptr_t)copy.mem;
	if (ioctl(dmirror, HMM_DMIRROR_MIGRATE_TO_DEV, &cmd) || cmd.cpages != cmd.npages)
		return -EIO;
	mr = rdma_reg_odp(&rig->conn.far, buf.mem, size);
	if (!mr)
		return -errno;

	err = aliases_enable(enable) ?: trace_start(MMAP_LOCK_EVENT) ?:
	      rdma_prefetch(&rig->conn.far, mr, buf.mem, size, 1) ?:
	      trace_stop(MMAP_LOCK_EVENT, count_reads, &walks) ?:
	      aliases_enable(true);
	if (!err && (!page_is_present(buf.mem) || buffer_differs(&buf) >= 0))
		err = -EILSEQ;
	ibv_dereg_mr(mr);
	buffer_unmap(&buf);
	buffer_unmap(&copy);
	return err ? err : (long)walks;
}

TEST_F(alias, client_without_window_causes_no_extra_walks)
{
	int dmirror = open("/dev/hmm_dmirror0", O_RDWR | O_CLOEXEC);
	long on, off;

	ASSERT_LE(0, dmirror);
	off = walks_of_memory_without_a_window(&self->rig, dmirror, false);
	on = walks_of_memory_without_a_window(&self->rig, dmirror, true);
	EXPECT_LT(0, off);
	EXPECT_LT(0, on);
	EXPECT_GE(off, on);
	close(dmirror);
}

/* Queries have no side effects */

TEST_F(alias, residency_populates_nothing)
{
	struct buffer hole;
	size_t pos;

	ASSERT_EQ(0, buffer_map(&hole, SIZE, variant->advice));
	ASSERT_EQ(0, gpu_residency(self->rig.gpu, hole.mem, SIZE,
				   &self->where));
	EXPECT_EQ(PAGES, self->where.none);
	for (pos = 0; pos < SIZE; pos += PAGE) {
		EXPECT_FALSE(page_is_present(hole.mem + pos));
		EXPECT_FALSE(page_is_elsewhere(hole.mem + pos));
	}
	buffer_unmap(&hole);
}

TEST_F(alias, odp_mr_registration_populates_no_page)
{
	struct buffer hole;
	struct ibv_mr *mr;
	size_t pos;

	ASSERT_EQ(0, buffer_map(&hole, SIZE, variant->advice));
	mr = rdma_reg_odp(&self->rig.conn.far, hole.mem, SIZE);
	ASSERT_NE(NULL, mr);
	for (pos = 0; pos < SIZE; pos += PAGE) {
		EXPECT_FALSE(page_is_present(hole.mem + pos));
		EXPECT_FALSE(page_is_elsewhere(hole.mem + pos));
	}
	ibv_dereg_mr(mr);
	buffer_unmap(&hole);
}

TEST_F(alias, odp_mr_registration_leaves_pages_in_swap)
{
	struct rig *rig = &self->rig;
	size_t pos;

	ASSERT_EQ(0, gpu_to_ram(rig->gpu, rig->buf.mem, SIZE));
	ASSERT_EQ(0, pages_out(rig->buf.mem, SIZE));
	ASSERT_EQ(0, rig_register(rig));
	for (pos = 0; pos < SIZE; pos += PAGE)
		EXPECT_FALSE(page_is_present(rig->buf.mem + pos));
}

/* Memory that userfaultfd protects against any access is reported to no device. */
TEST_F(alias, uffd_rwp_hides_private_pages_and_aliases)
{
	struct rig *rig = &self->rig;
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_RWP };
	struct uffdio_register reg = {
		.range = { (uintptr_t)rig->buf.mem, SIZE },
		.mode = UFFDIO_REGISTER_MODE_RWP,
	};
	struct uffdio_rwprotect protect = {
		.range = reg.range, .mode = UFFDIO_RWPROTECT_MODE_RWP,
	};
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC);

	ASSERT_LE(0, uffd);
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_API, &api));
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_REGISTER, &reg));
	EXPECT_EQ(PAGES, pages_in_reach(self->other, rig->buf.mem, SIZE));
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_RWPROTECT, &protect));
	EXPECT_EQ(0, pages_in_reach(self->other, rig->buf.mem, SIZE));
	EXPECT_EQ(0, pages_in_vram(rig->gpu, rig->buf.mem, SIZE));
	protect.mode = 0;
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_RWPROTECT, &protect));
	EXPECT_EQ(PAGES, pages_in_reach(self->other, rig->buf.mem, SIZE));
	EXPECT_EQ(PAGES, pages_in_vram(rig->gpu, rig->buf.mem, SIZE));
	EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));
	close(uffd);
}

/* A fault could provide the memory, so the snapshot does not fail. */
TEST_F(alias, snapshot_of_a_caller_without_a_client_is_empty)
{
	struct rig *rig = &self->rig;
	struct hmm_dmirror_cmd cmd = {
		.addr = (uintptr_t)rig->buf.mem,
		.npages = PAGES,
	};
	int fd = open("/dev/hmm_dmirror0", O_RDWR | O_CLOEXEC);
	uint8_t found[PAGES], none[PAGES];

	ASSERT_LE(0, fd);
	memset(none, HMM_DMIRROR_PROT_NONE, sizeof(none));
	cmd.ptr = (uintptr_t)found;
	ASSERT_EQ(0, ioctl(fd, HMM_DMIRROR_SNAPSHOT, &cmd));
	EXPECT_EQ(PAGES, cmd.cpages);
	EXPECT_EQ(-1, differs(found, none, PAGES));
	EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));
	EXPECT_STATS(0, 0, 0);
	close(fd);
}

/* Callers that do not ask for aliases get the same as without this feature */

TEST_F(alias, migration_to_other_gpu_uses_no_alias)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, buffer_to_vram(&rig->buf, self->other, 0, SIZE));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&rig->buf, self->other));
	EXPECT_EQ(self->evicted + PAGES, pages_evicted(rig->gpu));
	EXPECT_STATS(0, 0, 0);

	/* The importer's mapping was invalidated. */
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_EQ(PAGES, pages_in_vram(self->other, rig->buf.mem, SIZE));
}

TEST_F(alias, read_without_client_migrates_pages_to_ram)
{
	struct rig *rig = &self->rig;
	struct hmm_dmirror_cmd cmd = {
		.addr = (uintptr_t)rig->buf.mem,
		.ptr = (uintptr_t)rig->ram.mem,
		.npages = PAGES,
	};
	int fd = open("/dev/hmm_dmirror0", O_RDWR | O_CLOEXEC);
	double start;
	int err;

	ASSERT_LE(0, fd);
	do {
		start = now();
		err = ioctl(fd, HMM_DMIRROR_READ, &cmd) ? -errno : 0;
	} while (is_out_of_patience(err, start));
	ASSERT_EQ(0, err);
	EXPECT_EQ(PAGES, cmd.cpages);
	EXPECT_EQ(-1, differs(rig->ram.mem, rig->buf.shadow, SIZE));
	EXPECT_EQ(self->evicted + PAGES, pages_evicted(rig->gpu));
	EXPECT_STATS(0, 0, 0);
	close(fd);
}

/* Such an MR is not on-demand: it pins its pages for as long as it lives. */
TEST_F(alias, pinned_mr_migrates_pages_to_ram)
{
	struct rig *rig = &self->rig;
	uint64_t pages;
	struct ibv_mr *mr;

	mr = ibv_reg_mr(rig->conn.far.pd, rig->buf.mem, SIZE,
			IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	ASSERT_NE(NULL, mr);
	EXPECT_EQ(self->evicted + PAGES, pages_evicted(rig->gpu));
	EXPECT_STATS(0, 0, 0);

	/* The GPU has to use the pinned pages in RAM. */
	ASSERT_EQ(0, gpu_to_vram(rig->gpu, rig->buf.mem, SIZE, &pages));
	EXPECT_EQ(0, pages);
	ASSERT_EQ(0, buffer_xor(&rig->buf, rig->gpu, 8, SIZE - 8));
	ASSERT_EQ(0, rdma_write(&rig->conn.near, rig->ram.mem + 1,
				rig->ram_mr->lkey,
				(uintptr_t)rig->buf.mem + 1, mr->rkey,
				HUGE_PAGE));
	memcpy(rig->buf.shadow + 1, rig->ram.shadow + 1, HUGE_PAGE);
	EXPECT_EQ(-1, buffer_differs_on_gpu(&rig->buf, rig->gpu));
	ibv_dereg_mr(mr);

	/* Pages that the GPU has mapped stay in RAM until they are prefetched. */
	EXPECT_EQ(-1, buffer_differs_on_gpu(&rig->buf, rig->gpu));
	EXPECT_EQ(0, pages_in_vram(rig->gpu, rig->buf.mem, SIZE));
	ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
	EXPECT_EQ(-1, rig_differs(rig));
}

/* Two GPUs */

TEST_F(alias, mr_accesses_vram_of_two_gpus_in_place)
{
	struct rig *rig = &self->rig;
	uint64_t other_evicted;

	ASSERT_EQ(0, buffer_to_vram(&rig->buf, self->other, HUGE_PAGE,
				    HUGE_PAGE));
	EXPECT_EQ(self->evicted + PAGES / 2, pages_evicted(rig->gpu));
	other_evicted = pages_evicted(self->other);

	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, rig_write_new(rig, PAGE + 1, SIZE - 2 * PAGE));
	EXPECT_EQ(-1, rig_differs(rig));

	ASSERT_EQ(0, rig_prefetch(rig, 0, SIZE, 1));
	ASSERT_EQ(0, rig_write_new(rig, HUGE_PAGE - 3, 7));
	EXPECT_EQ(-1, rig_differs(rig));

	EXPECT_EQ(PAGES / 2, pages_in_vram(rig->gpu, rig->buf.mem, SIZE));
	EXPECT_EQ(PAGES / 2, pages_in_vram(self->other, rig->buf.mem, SIZE));
	EXPECT_EQ(self->evicted + PAGES / 2, pages_evicted(rig->gpu));
	EXPECT_EQ(other_evicted, pages_evicted(self->other));
}

TEST_F(alias, rdma_transfers_between_vram_of_two_gpus_in_place)
{
	struct rig *rig = &self->rig;
	uint64_t other_evicted;

	ASSERT_EQ(0, buffer_to_vram(&rig->ram, self->other, 0, SIZE));
	other_evicted = pages_evicted(self->other);

	ASSERT_EQ(0, rig_write(rig, PAGE - 1, HUGE_PAGE));
	memcpy(rig->buf.shadow + PAGE - 1, rig->ram.shadow + PAGE - 1,
	       HUGE_PAGE);
	EXPECT_EQ(-1, buffer_differs_on_gpu(&rig->buf, rig->gpu));
	ASSERT_EQ(0, rig_read(rig, HUGE_PAGE, HUGE_PAGE));
	memcpy(rig->ram.shadow + HUGE_PAGE, rig->buf.shadow + HUGE_PAGE,
	       HUGE_PAGE);
	EXPECT_EQ(-1, buffer_differs_on_gpu(&rig->ram, self->other));

	EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));
	EXPECT_EQ(other_evicted, pages_evicted(self->other));
	EXPECT_EQ(-1, buffer_differs(&rig->ram));
}

TEST_F(alias, gpu_copies_from_the_memory_of_another)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, buffer_to_vram(&rig->ram, self->other, 0, SIZE));
	ASSERT_EQ(0, gpu_copy(rig->gpu, rig->buf.mem + 8,
			      rig->ram.mem + PAGE - 8, HUGE_PAGE));
	memcpy(rig->buf.shadow + 8, rig->ram.shadow + PAGE - 8, HUGE_PAGE);
	EXPECT_EQ(-1, rig_differs(rig));
}

static int move_to_one_or_the_other(struct worker *worker)
{
	int gpu = worker->rounds % 2 ? worker->rig->gpu : worker->gpu;

	return gpu_to_vram(gpu, worker->rig->buf.mem, SIZE, NULL);
}

TEST_F(alias, rdma_atomics_follow_pages_that_move_between_gpus)
{
	struct rig *rig = &self->rig;
	struct worker worker = { .rig = rig, .gpu = self->other };
	int i, err = 0;

	ASSERT_EQ(0, worker_start(&worker, move_to_one_or_the_other));
	for (i = 0; (i < 200 || worker.rounds < 4) && !err && !worker.err; i++)
		err = rig_add(rig, (i % 5 * 97 * PAGE + 16) % SIZE, i + 1);
	EXPECT_EQ(0, worker_stop(&worker));
	EXPECT_EQ(0, err);
	EXPECT_EQ(-1, rig_differs(rig));
}

TEST_HARNESS_MAIN
