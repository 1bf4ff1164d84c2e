// SPDX-License-Identifier: GPL-2.0
/*
 * Processes that end, in any way, with everything still open: their VRAM is free
 * soon, and no other process can reach it through an MR that they left behind. Also
 * processes that get signals and live on.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpu.h"
#include "measure.h"
#include "lib/cgroup.h"
#include "lib/child.h"
#include "lib/command.h"
#include "lib/disk.h"
#include "lib/edu.h"
#include "lib/file.h"
#include "lib/harness.h"
#include "lib/page.h"
#include "lib/pci.h"
#include "lib/rig.h"
#include "lib/stats.h"
#include "lib/vram.h"
#include "lib/worker.h"

#define SIZE	MIB(4)

/* A page in the middle of a huge page. */
#define MIDDLE	(HUGE_PAGE / 2 + 3 * PAGE)

/* A number of mappings. Locking them for the first notifier takes milliseconds. */
#define MANY	20000

FIXTURE(process) {
	int gpu;
	uint64_t vram_free;
	volatile int *ready;
};

FIXTURE_SETUP(process)
{
	self->gpu = gpu_open(0);
	ASSERT_LE(0, self->gpu);
	self->vram_free = vram_free(self->gpu);
	self->ready = mmap(NULL, sizeof(*self->ready), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->ready);
}

FIXTURE_TEARDOWN(process)
{
	EXPECT_EQ(0, vram_leaked(self->gpu, self->vram_free));
	close(self->gpu);
}

/* Work until killed, or until the alarm. */
static void process_traffic(volatile int *ready)
{
	struct rig rig;

	alarm(20 * slowness());
	if (rig_init_in_vram(&rig, SIZE, MADV_HUGEPAGE))
		_exit(1);

	for (;;) {
		if (buffer_xor(&rig.buf, rig.gpu, 8, SIZE - 8) ||
		    rig_write_new(&rig, MIDDLE + 1, HUGE_PAGE) ||
		    rig_differs(&rig) != -1)
			_exit(2);
		*ready = 1;
		rig.buf.mem[0]++;
		rig.buf.shadow[0]++;
		if (buffer_to_vram(&rig.buf, rig.gpu, 0, SIZE))
			_exit(3);
	}
}

TEST_F(process, sigkill_under_traffic_frees_vram)
{
	int i, status;
	pid_t pid;

	for (i = 0; i < 5; i++) {
		*self->ready = 0;
		pid = fork();
		if (!pid)
			process_traffic(self->ready);
		ASSERT_LT(0, pid);

		EXPECT_EQ(0, wait_until(self->ready, 1));
		usleep(i * 17000);
		EXPECT_EQ(0, kill(pid, SIGKILL));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		EXPECT_EQ(0, vram_leaked(self->gpu, self->vram_free));
	}
}

TEST_F(process, exit_with_open_gpu_and_mr_frees_vram)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct rig rig;

		if (rig_init_in_vram(&rig, SIZE, MADV_HUGEPAGE))
			_exit(1);
		_exit(rig_differs(&rig) != -1);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

TEST_F(process, execve_with_open_gpu_and_mr_frees_vram)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct rig rig;

		if (rig_init_in_vram(&rig, SIZE, MADV_HUGEPAGE) ||
		    rig_differs(&rig) != -1)
			_exit(1);
		execl("/bin/true", "true", NULL);
		_exit(2);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

static int has_all_in_vram(void *arg)
{
	struct buffer *buf = arg;
	int gpu = gpu_open(0), err;

	err = buffer_map(buf, SIZE, MADV_HUGEPAGE);
	if (!err)
		err = buffer_to_vram(buf, gpu, 0, SIZE);
	return err;
}

/* It is killed but cannot exit yet. Then the OOM reaper can take its memory. */
TEST_F(process, process_mrelease_frees_vram_mapped_by_gpu)
{
	struct child child;
	struct buffer buf;
	int status, pidfd;

	ASSERT_EQ(0, child_fork(&child, has_all_in_vram, &buf));
	ASSERT_EQ(0, child_do(&child));
	ASSERT_EQ(self->vram_free - SIZE, vram_free(self->gpu));
	ASSERT_EQ(0, ptrace(PTRACE_SEIZE, child.pid, 0, PTRACE_O_TRACEEXIT));
	ASSERT_EQ(0, kill(child.pid, SIGKILL));
	ASSERT_EQ(child.pid, waitpid(child.pid, &status, 0));
	ASSERT_EQ(SIGTRAP | PTRACE_EVENT_EXIT << 8, status >> 8);
	EXPECT_EQ(self->vram_free - SIZE, vram_free(self->gpu));

	pidfd = syscall(SYS_pidfd_open, child.pid, 0);
	ASSERT_LE(0, pidfd);
	EXPECT_EQ(0, syscall(SYS_process_mrelease, pidfd, 0));
	EXPECT_EQ(0, vram_leaked(self->gpu, self->vram_free));

	close(pidfd);
	ptrace(PTRACE_CONT, child.pid, 0, 0);
	EXPECT_EQ(-EPIPE, child_end(&child));
}

/*
 * Memory in VRAM is charged to its process, and its memory cgroup cannot reclaim it.
 * There is never so much of it that the OOM killer has to run.
 */

#define CGROUP	CGROUPS "process/"
#define LIMIT	MIB(24)
#define MORE	(LIMIT / 3 * 4)

FIXTURE(limited) {
	struct child child;
};

FIXTURE_VARIANT(limited) {
	const char *limit;
	size_t gentle;
	int advice;
	bool aliases;
};

FIXTURE_VARIANT_ADD(limited, small) {
	.limit = CGROUP "memory.max",
	.gentle = MORE,
	.advice = MADV_NOHUGEPAGE,
	.aliases = true,
};

FIXTURE_VARIANT_ADD(limited, huge_off) {
	.limit = CGROUP "memory.max",
	.gentle = MORE,
	.advice = MADV_HUGEPAGE,
	.aliases = false,
};

FIXTURE_VARIANT_ADD(limited, huge_high) {
	.limit = CGROUP "memory.high",
	.gentle = LIMIT,
	.advice = MADV_HUGEPAGE,
	.aliases = true,
};

static int limit_set(const char *file, size_t bytes)
{
	char limit[32];

	snprintf(limit, sizeof(limit), "%zu", bytes);
	return file_write(file, limit);
}

FIXTURE_SETUP(limited)
{
	ASSERT_EQ(0, cgroup_make(CGROUP));
	ASSERT_EQ(0, limit_set(variant->limit, LIMIT));
}

FIXTURE_TEARDOWN(limited)
{
	EXPECT_EQ(0, child_do(&self->child));
	EXPECT_EQ(0, child_end(&self->child));
	EXPECT_EQ(0, aliases_enable(true));
	EXPECT_EQ(0, rmdir(CGROUP));
}

/* Part of the memory is in VRAM, and part of the limit is left. */
static bool fits(uint64_t pages)
{
	return pages >= LIMIT / 4 / PAGE && pages <= LIMIT / 4 * 3 / PAGE;
}

static int gpu_works_beyond_limit(void *arg)
{
	const FIXTURE_VARIANT(limited) *variant = arg;
	uint64_t pages, sum, want = 0;
	struct rig rig;
	struct buffer buf;
	size_t i;
	int err;

	/* Swapping takes time: let the process wait before it is killed */
	err = limit_set(CGROUP "memory.high", LIMIT) ?:
	      limit_set(variant->limit, variant->gentle) ?:
	      file_write(CGROUP "cgroup.procs", "0") ?:
	      rig_init(&rig, HUGE_PAGE, variant->advice) ?:
	      aliases_enable(variant->aliases);
	if (err)
		return err;
	buffer_unmap(&rig.buf);
	err = buffer_map(&rig.buf, MORE, variant->advice);
	if (err)
		return err;
	buf = rig.buf;
	buffer_write(&buf, 0, MORE);
	err = rig_register(&rig) ?: gpu_to_vram(rig.gpu, buf.mem, MORE, &pages);
	if (err)
		return err;
	if (!fits(pages))
		return -ERANGE;

	err = buffer_xor(&buf, rig.gpu, 0, MORE) ?: rig_read(&rig, 0, HUGE_PAGE) ?:
	      gpu_sum(rig.gpu, buf.mem, MORE, &sum);
	if (err)
		return err;
	for (i = 0; i < MORE / sizeof(want); i++)
		want += ((uint64_t *)buf.shadow)[i];
	if (sum != want || differs(rig.ram.mem, buf.shadow, HUGE_PAGE) != -1 ||
	    buffer_differs(&buf) != -1)
		return -EILSEQ;

	/* With a higher limit all of it goes to VRAM, also the part mapped in RAM */
	err = limit_set(CGROUP "memory.high", 4 * MORE) ?:
	      limit_set(variant->limit, 4 * MORE);
	if (err)
		return err;
	if (buffer_differs(&buf) != -1)
		return -EILSEQ;
	err = gpu_to_vram(rig.gpu, buf.mem, MORE, &pages);
	if (err)
		return err;
	return pages == MORE / PAGE ? 0 : -ENOSPC;
}

TEST_F(limited, gpu_works_on_more_memory_than_memcg_limit)
{
	ASSERT_EQ(0, child_fork(&self->child, gpu_works_beyond_limit,
				(void *)variant));
}

struct request {
	int advice;
	const char *swap;
};

static int prefetch_beyond_limit(void *arg)
{
	const struct request *request = arg;
	int gpu = gpu_open(0), err;
	uint8_t *ram, *rest;
	uint64_t pages, sum;

	err = file_write(CGROUP "memory.swap.max", request->swap) ?:
	      file_write(CGROUP "cgroup.procs", "0");
	if (err)
		return err;

	/* Populate only half of what the limit allows */
	ram = mmap(NULL, 2 * LIMIT, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ram == MAP_FAILED || madvise(ram, 2 * LIMIT, request->advice))
		return -errno;
	rest = ram + LIMIT;
	if (madvise(ram, LIMIT / 2, MADV_POPULATE_WRITE))
		return -errno;

	err = gpu_to_vram(gpu, rest, LIMIT, &pages) ?:
	      gpu_sum(gpu, rest, LIMIT, &sum);
	if (err)
		return err;
	return pages && pages < LIMIT / 2 / PAGE && !sum ? 0 : -ERANGE;
}

TEST_F(limited, prefetch_beyond_memcg_limit_without_swap_is_partial)
{
	struct request request = { variant->advice, "0" };

	ASSERT_EQ(0, child_fork(&self->child, prefetch_beyond_limit, &request));
}

TEST_F(limited, prefetch_beyond_memcg_and_swap_limit_is_partial)
{
	struct request request = { variant->advice, "65536" };

	ASSERT_EQ(0, child_fork(&self->child, prefetch_beyond_limit, &request));
}

static int prefetch_within_limit(void *arg)
{
	const FIXTURE_VARIANT(limited) *variant = arg;
	int gpu = gpu_open(0), err;
	uint64_t pages;
	uint8_t *mem;

	err = file_write(CGROUP "memory.swap.max", "0") ?:
	      file_write(CGROUP "cgroup.procs", "0");
	if (err)
		return err;

	/* Without swap, its memory in RAM cannot be reclaimed, either */
	mem = mmap(NULL, LIMIT, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED || madvise(mem, LIMIT, variant->advice) ||
	    madvise(mem, LIMIT / 3 * 2, MADV_POPULATE_WRITE))
		return -errno;

	err = gpu_to_vram(gpu, mem, LIMIT / 3 * 2, &pages);
	if (err)
		return err;
	return pages == LIMIT / 3 * 2 / PAGE ? 0 : -ERANGE;
}

TEST_F(limited, prefetch_within_memcg_limit_without_swap_moves_all)
{
	ASSERT_EQ(0, child_fork(&self->child, prefetch_within_limit,
				(void *)variant));
}

/* System sleep, or as many of its steps as pm_test says */

static int machine_sleeps(const char *how_far)
{
	int err = file_write("/sys/power/pm_test", how_far);

	if (!err)
		err = file_write("/sys/power/state", "freeze");
	file_write("/sys/power/pm_test", "none");
	return err;
}

static int works_for_hours(void *arg)
{
	struct drm_vsvm_residency where;

	return gpu_residency(*(int *)arg, NULL, (1UL << 47) - 2 * PAGE, &where);
}

static int sums_for_hours(void *arg)
{
	int gpu = gpu_open(0);
	size_t size = 1UL << 40;
	uint64_t sum;
	void *mem;

	(void)arg;
	mem = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		   -1, 0);
	return mem == MAP_FAILED ? -ENOMEM : gpu_sum(gpu, mem, size, &sum);
}

static int looks_for_hours(void *arg)
{
	int gpu = gpu_open(0);

	(void)arg;
	return works_for_hours(&gpu);
}

TEST_F(process, long_gpu_ioctls_freeze_for_suspend)
{
	struct child child[2];
	int i;

	ASSERT_EQ(0, child_fork(&child[0], looks_for_hours, NULL));
	ASSERT_EQ(0, child_fork(&child[1], sums_for_hours, NULL));
	for (i = 0; i < 2; i++)
		EXPECT_EQ(0, child_start(&child[i]));
	usleep(200000);
	EXPECT_EQ(0, machine_sleeps("freezer"));
	for (i = 0; i < 2; i++) {
		EXPECT_FALSE(child_has_result(&child[i]));
		EXPECT_EQ(0, kill(child[i].pid, SIGKILL));
		child_end(&child[i]);
	}
}

/* Let a GPU answer at its BARs, or not. */
static int gpu_decodes(const char *pci, bool on)
{
	pid_t pid;

	return command_start(&pid, "setpci -s %s COMMAND=%d:2", pci, on ? 2 : 0) ?:
	       command_wait(pid, PROMPT);
}

/*
 * Devices suspend one after the other, the latest first, and resume if one of them
 * cannot. Here the first GPU cannot, since its VRAM does not answer. So the kernel
 * does not get to devices that would not resume, such as the virtio-9p of the root.
 */
static int devices_sleep(int gpu)
{
	char pci[PCI_ADDR_LEN];
	struct buffer buf;
	int err, err2;

	err = gpu_pci_address(gpu, pci, sizeof(pci)) ?:
	      buffer_map(&buf, PAGE, MADV_NOHUGEPAGE);
	if (err)
		return err;
	buffer_write(&buf, 0, PAGE);
	err = buffer_to_vram(&buf, gpu, 0, PAGE) ?:
	      file_write("/sys/power/pm_async", "0") ?:
	      gpu_decodes(pci, false);
	if (!err) {
		err = file_write("/sys/power/state", "freeze");
		err2 = gpu_decodes(pci, true);
		err = err2 ? err2 : err == -EIO ? 0 : -EPROTO;
	}
	file_write("/sys/power/pm_async", "1");
	if (!err && (pages_in_vram(gpu, buf.mem, PAGE) != 1 || buffer_differs(&buf) != -1))
		err = -EILSEQ;
	buffer_unmap(&buf);
	return err;
}

/* Threads of the kernel go on with a read while processes are frozen. */
static int importer_reads(struct worker *worker)
{
	return rig_differs(worker->rig) == -1 ? 0 : -EILSEQ;
}

TEST_F(process, suspend_evicts_vram_and_resume_restores_aliases)
{
	struct rig rig;
	struct worker worker = { .rig = &rig };
	uint64_t aliases, evicted;
	size_t page;

	ASSERT_EQ(0, rig_init(&rig, SIZE, MADV_HUGEPAGE));
	close(rig.gpu);
	rig.gpu = gpu_open(1);
	ASSERT_LE(0, rig.gpu);
	rig.vram_free = vram_free(rig.gpu);
	ASSERT_EQ(0, buffer_to_vram(&rig.buf, rig.gpu, 0, SIZE));
	ASSERT_EQ(0, rig_register(&rig));
	EXPECT_EQ(0, rig_write_new(&rig, MIDDLE + 1, HUGE_PAGE));
	EXPECT_EQ(SIZE / PAGE, pages_in_vram(rig.gpu, rig.buf.mem, SIZE));

	ASSERT_EQ(0, worker_start(&worker, importer_reads));
	EXPECT_EQ(0, devices_sleep(self->gpu));
	EXPECT_EQ(0, worker_stop(&worker));
	EXPECT_EQ(rig.vram_free, vram_free(rig.gpu));
	for (page = 0; page < SIZE; page += PAGE)
		EXPECT_TRUE(page_is_present(rig.buf.mem + page));

	/* Neither the RDMA device nor the GPU uses its old mappings of the VRAM */
	EXPECT_EQ(0, rig_write_new(&rig, MIDDLE + 1, HUGE_PAGE));
	EXPECT_EQ(0, buffer_xor(&rig.buf, rig.gpu, 8, SIZE - 8));
	EXPECT_EQ(-1, rig_differs(&rig));
	EXPECT_EQ(-1, buffer_differs(&rig.buf));

	/* It gets new ones. The GPU that could not sleep gives aliases, too */
	EXPECT_FALSE(file_says(WINDOWS, " revoked=1"));
	ASSERT_EQ(0, buffer_to_vram(&rig.buf, rig.gpu, 0, SIZE));
	aliases = stat_read("alias_cpu");
	evicted = pages_evicted(rig.gpu);
	EXPECT_EQ(0, rig_prefetch(&rig, 0, SIZE, 1));
	EXPECT_EQ(aliases + SIZE / PAGE, stat_read("alias_cpu"));
	EXPECT_EQ(-1, rig_differs(&rig));
	EXPECT_EQ(evicted, pages_evicted(rig.gpu));
	EXPECT_EQ(0, rig_fini(&rig));
}

/*
 * An MR over VRAM whose process is gone, by exit or by exec, but a child keeps the
 * MR: no peer may use it to read or write the new contents of that VRAM.
 */
struct orphan {
	volatile int stage;
	struct rdma_addr near;
	struct rdma_addr far;
	uint64_t raddr;
	uint32_t rkey;
	pid_t keeper;
	uint8_t page[PAGE];
};

FIXTURE(orphan) {
	int gpu;
	uint64_t vram_free;
	struct orphan *orphan;
	struct rdma near;
	struct buffer ram;
	struct buffer other;
	struct ibv_mr *ram_mr;
};

FIXTURE_VARIANT(orphan) {
	bool exec;
};

FIXTURE_VARIANT_ADD(orphan, exit) {
	.exec = false,
};

FIXTURE_VARIANT_ADD(orphan, exec) {
	.exec = true,
};

static int orphan_mr(struct orphan *orphan)
{
	int gpu = gpu_open(0), err;
	struct buffer buf;
	struct ibv_mr *mr;
	struct rdma far;

	err = rdma_open(&far);
	if (!err)
		err = rdma_connect(&far, &orphan->near);
	if (!err)
		err = buffer_map(&buf, SIZE, MADV_HUGEPAGE);
	if (err)
		return err;

	/* The child does not inherit the memory itself. */
	if (madvise(buf.mem, SIZE, MADV_DONTFORK))
		return -errno;
	buffer_write(&buf, 0, SIZE);
	err = buffer_to_vram(&buf, gpu, 0, SIZE);
	if (err)
		return err;

	mr = rdma_reg_odp(&far, buf.mem, SIZE);
	if (!mr)
		return -errno;

	rdma_address(&far, &orphan->far);
	orphan->raddr = (uintptr_t)buf.mem + MIDDLE;
	orphan->rkey = mr->rkey;
	memcpy(orphan->page, buf.shadow + MIDDLE, PAGE);
	return 0;
}

static void __attribute__((noreturn))
orphan_main(struct orphan *orphan, bool exec)
{
	pid_t keeper;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (orphan_mr(orphan))
		_exit(1);
	orphan->stage = 1;
	if (wait_until(&orphan->stage, 2))
		_exit(2);

	keeper = fork();
	if (!keeper) {
		alarm(20 * slowness());
		pause();
		_exit(0);
	}
	orphan->keeper = keeper;
	if (exec)
		execl("/bin/true", "true", NULL);
	_exit(exec ? 3 : 0);
}

FIXTURE_SETUP(orphan)
{
	int status;
	pid_t pid;

	self->gpu = gpu_open(0);
	ASSERT_LE(0, self->gpu);
	self->vram_free = vram_free(self->gpu);
	self->orphan = mmap(NULL, sizeof(*self->orphan),
			    PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->orphan);

	ASSERT_EQ(0, rdma_open(&self->near));
	rdma_address(&self->near, &self->orphan->near);
	ASSERT_EQ(0, buffer_map(&self->ram, HUGE_PAGE, MADV_HUGEPAGE));
	buffer_write(&self->ram, 0, HUGE_PAGE);
	self->ram_mr = rdma_reg_odp(&self->near, self->ram.mem, HUGE_PAGE);
	ASSERT_NE(NULL, self->ram_mr);

	pid = fork();
	if (!pid)
		orphan_main(self->orphan, variant->exec);
	ASSERT_EQ(0, wait_until(&self->orphan->stage, 1));

	/* The MR works while its process lives. */
	ASSERT_EQ(0, rdma_connect(&self->near, &self->orphan->far));
	ASSERT_EQ(0, rdma_read(&self->near, self->ram.mem, self->ram_mr->lkey,
			       self->orphan->raddr, self->orphan->rkey, PAGE));
	ASSERT_EQ(-1, differs(self->ram.mem, self->orphan->page, PAGE));
	buffer_write(&self->ram, 0, HUGE_PAGE);

	self->orphan->stage = 2;
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(0, status);
	ASSERT_EQ(0, vram_leaked(self->gpu, self->vram_free));

	/* The VRAM is ours now. */
	ASSERT_EQ(0, buffer_map(&self->other, SIZE, MADV_HUGEPAGE));
	buffer_write(&self->other, 0, SIZE);
	ASSERT_EQ(0, buffer_to_vram(&self->other, self->gpu, 0, SIZE));
}

FIXTURE_TEARDOWN(orphan)
{
	EXPECT_EQ(IBV_WC_REM_ACCESS_ERR, rdma_status(&self->near));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->other, self->gpu));
	EXPECT_EQ(-1, buffer_differs(&self->other));
	EXPECT_EQ(-1, buffer_differs(&self->ram));

	EXPECT_EQ(0, kill(self->orphan->keeper, SIGKILL));
	ibv_dereg_mr(self->ram_mr);
	rdma_close(&self->near);
	buffer_unmap(&self->ram);
	buffer_unmap(&self->other);
	EXPECT_EQ(0, vram_leaked(self->gpu, self->vram_free));
	close(self->gpu);
}

TEST_F(orphan, rdma_read_by_mr_of_gone_process_fails)
{
	EXPECT_EQ(-EREMOTEIO, rdma_read(&self->near, self->ram.mem,
					self->ram_mr->lkey,
					self->orphan->raddr,
					self->orphan->rkey, PAGE));
}

TEST_F(orphan, rdma_write_by_mr_of_gone_process_fails)
{
	EXPECT_EQ(-EREMOTEIO, rdma_write(&self->near, self->ram.mem,
					 self->ram_mr->lkey,
					 self->orphan->raddr,
					 self->orphan->rkey, PAGE));
}

/* The first call of a process to a device, while a signal arrives */

FIXTURE(signals) {
	int gpu;
	int edu;
	int blk;
	int disk;
	uint8_t *mem;
};

static int first_sum(FIXTURE_DATA(signals) *self)
{
	uint64_t sum;

	return gpu_sum(self->gpu, self->mem, PAGE, &sum);
}

static int first_residency(FIXTURE_DATA(signals) *self)
{
	struct drm_vsvm_residency where;

	return gpu_residency(self->gpu, self->mem, PAGE, &where);
}

static int first_to_vram(FIXTURE_DATA(signals) *self)
{
	uint64_t pages;

	return gpu_to_vram(self->gpu, self->mem, PAGE, &pages);
}

static int first_to_ram(FIXTURE_DATA(signals) *self)
{
	return gpu_to_ram(self->gpu, self->mem, PAGE);
}

static int first_edu_copy(FIXTURE_DATA(signals) *self)
{
	return edu_copy(self->edu, self->mem, self->mem + PAGE / 2, PAGE / 2);
}

static int first_disk_read(FIXTURE_DATA(signals) *self)
{
	return disk_transfer(self->blk, self->disk, self->mem, 0, PAGE, false);
}

FIXTURE_VARIANT(signals) {
	int (*call)(FIXTURE_DATA(signals) *self);
};

#define SIGNALS(name)	FIXTURE_VARIANT_ADD(signals, name) { .call = first_##name }

SIGNALS(sum);
SIGNALS(residency);
SIGNALS(to_vram);
SIGNALS(to_ram);
SIGNALS(edu_copy);
SIGNALS(disk_read);

FIXTURE_SETUP(signals)
{
	double end = now() + 3;
	size_t i;

	self->mem = mmap(NULL, 2 * MANY * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, self->mem);
	/* A slow kernel makes fewer mappings, but takes as long to lock them */
	for (i = 1; i < MANY && now() < end; i++)
		ASSERT_EQ(0, mprotect(self->mem + (2 * i - 1) * PAGE, PAGE,
				      PROT_READ));
}

FIXTURE_TEARDOWN(signals)
{
}

static volatile sig_atomic_t calling, signals;

static void count_signal(int signal __attribute__((unused)))
{
	signals += calling;
}

/* In a separate process. Returns 1 if a signal came during the call, or else 0. */
static int call_with_signal(FIXTURE_DATA(signals) *self,
			    int (*call)(FIXTURE_DATA(signals) *self),
			    unsigned int delay_us)
{
	struct itimerval timer = { .it_value.tv_usec = delay_us };
	struct sigaction action = { .sa_handler = count_signal };
	int err;

	self->gpu = gpu_open(0);
	self->edu = edu_open();
	self->blk = open("/dev/hmm_blk", O_RDWR);
	self->disk = disk_open();
	if (sigaction(SIGALRM, &action, NULL) ||
	    setitimer(ITIMER_REAL, &timer, NULL))
		return -errno;
	calling = true;
	err = call(self);
	calling = false;
	return err ? err : !!signals;
}

TEST_F(signals, signal_does_not_fail_first_device_call)
{
	unsigned int delay = 2000;
	int status = 0;

	/* Until a signal has come during a call */
	while (!status && delay) {
		pid_t pid = fork();

		if (!pid)
			_exit(-call_with_signal(self, variant->call, delay));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		delay = delay * 3 / 4;
	}
	EXPECT_EQ(-1, (int8_t)WEXITSTATUS(status));
}

TEST_HARNESS_MAIN
