// SPDX-License-Identifier: GPL-2.0
/*
 * Processes that go, in whatever way, with all that they have open: their VRAM is
 * free soon, and nobody can reach it by what they left behind. And those that get
 * signals, and live on.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"

#include "common.h"
#include "machine.h"

#define SIZE	MIB(4)

/* A page in the middle of a huge one. */
#define MIDDLE	(HUGE_PAGE / 2 + 3 * PAGE)

/* Of mappings: the first notifier of a process locks each, for milliseconds. */
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

/* Work until killed, but not for ever. */
static void process_traffic(volatile int *ready)
{
	struct bench bench;

	alarm(20 * slowness());
	if (bench_init_in_vram(&bench, SIZE, MADV_HUGEPAGE))
		_exit(1);

	for (;;) {
		if (buffer_xor(&bench.buf, bench.gpu, 8, SIZE - 8) ||
		    bench_write_new(&bench, MIDDLE + 1, HUGE_PAGE) ||
		    bench_differs(&bench) != -1)
			_exit(2);
		*ready = 1;
		bench.buf.mem[0]++;
		bench.buf.shadow[0]++;
		if (buffer_to_vram(&bench.buf, bench.gpu, 0, SIZE))
			_exit(3);
	}
}

TEST_F(process, killed_under_traffic)
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

TEST_F(process, exits_with_all_of_it_open)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct bench bench;

		if (bench_init_in_vram(&bench, SIZE, MADV_HUGEPAGE))
			_exit(1);
		_exit(bench_differs(&bench) != -1);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

TEST_F(process, executes_with_all_of_it_open)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct bench bench;

		if (bench_init_in_vram(&bench, SIZE, MADV_HUGEPAGE) ||
		    bench_differs(&bench) != -1)
			_exit(1);
		execl("/bin/true", "true", NULL);
		_exit(2);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

/*
 * An MR over VRAM whose process is gone, by exit or by exec, but for a child of
 * it that keeps the MR: nobody may read or write what is in that VRAM by then.
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

	/* The memory itself is not the child's. */
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

	/* While its process lives it works. */
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

TEST_F(orphan, mr_is_not_read)
{
	EXPECT_EQ(-EREMOTEIO, rdma_read(&self->near, self->ram.mem,
					self->ram_mr->lkey,
					self->orphan->raddr,
					self->orphan->rkey, PAGE));
}

TEST_F(orphan, mr_is_not_written)
{
	EXPECT_EQ(-EREMOTEIO, rdma_write(&self->near, self->ram.mem,
					 self->ram_mr->lkey,
					 self->orphan->raddr,
					 self->orphan->rkey, PAGE));
}

/* Calls of a process that has not used a device yet, and is about to get a signal */

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

	self->gpu = gpu_open(0);
	self->edu = edu_open();
	self->blk = open("/dev/hmm_blk", O_RDWR);
	self->disk = disk_open();
	self->mem = mmap(NULL, 2 * MANY * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, self->mem);
	/* A slow kernel makes fewer, and takes as long to look at them */
	for (i = 1; i < MANY && now() < end; i++)
		ASSERT_EQ(0, mprotect(self->mem + (2 * i - 1) * PAGE, PAGE,
				      PROT_READ));
}

FIXTURE_TEARDOWN(signals)
{
	close(self->disk);
	close(self->blk);
	close(self->edu);
	close(self->gpu);
}

static volatile sig_atomic_t signals;

static void count_signal(int signal __attribute__((unused)))
{
	signals++;
}

TEST_F(signals, do_not_interrupt)
{
	struct sigaction action = { .sa_handler = count_signal };
	struct itimerval timer = { .it_value.tv_usec = 2000 };

	ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &timer, NULL));
	EXPECT_EQ(0, variant->call(self));
	if (!signals)
		SKIP(return, "it was over before the signal came");
}

TEST_HARNESS_MAIN
