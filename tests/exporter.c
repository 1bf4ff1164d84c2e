// SPDX-License-Identifier: GPL-2.0
/*
 * Exporters that give only some aliases or none, and that go away.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpu.h"
#include "lib/child.h"
#include "lib/file.h"
#include "lib/harness.h"
#include "lib/page.h"
#include "lib/rig.h"
#include "lib/stats.h"
#include "lib/vram.h"
#include "lib/vsvm.h"
#include "lib/worker.h"
#include "measure.h"

#define SIZE	MIB(4)
#define PAGES	(SIZE / PAGE)

#define DRIVER	"/sys/bus/pci/drivers/vsvm/"

/* Exporters that give no aliases: everything is as without this feature. */

static const char * const fallbacks[] = {
	"fallback_no_window", "fallback_outside_window", "fallback_unreachable",
	"fallback_revoked", "fallback_readonly",
};

FIXTURE(no_alias) {
	struct rig rig;
	uint64_t evicted;
	uint64_t aliases;
	uint64_t fallbacks[ARRAY_LEN(fallbacks)];
	uint64_t asked;		/* pages for which the importer asked and got no alias */
};

FIXTURE_VARIANT(no_alias) {
	const char *params;
	const char *reason;
};

#define NO_ALIAS(_name, _params, _reason)				\
FIXTURE_VARIANT_ADD(no_alias, _name) {					\
	.params = _params,						\
	.reason = _reason,						\
}

NO_ALIAS(no_window, "window_mb=0", "fallback_no_window");
NO_ALIAS(no_cpu_mapping, "cpu_map=0", "fallback_unreachable");

FIXTURE_SETUP(no_alias)
{
	unsigned int i;

	ASSERT_EQ(0, vsvm_reload(variant->params));
	ASSERT_EQ(0, rig_init_in_vram(&self->rig, SIZE, MADV_HUGEPAGE));
	self->evicted = pages_evicted(self->rig.gpu);
	self->aliases = stat_read("alias_cpu");
	for (i = 0; i < ARRAY_LEN(fallbacks); i++)
		self->fallbacks[i] = stat_read(fallbacks[i]);
}

FIXTURE_TEARDOWN(no_alias)
{
	unsigned int i;

	/* Each page has migrated once, and for the expected reason. */
	EXPECT_EQ(self->evicted + PAGES, pages_evicted(self->rig.gpu));
	EXPECT_EQ(self->aliases, stat_read("alias_cpu"));
	for (i = 0; i < ARRAY_LEN(fallbacks); i++) {
		uint64_t moved = stat_read(fallbacks[i]) - self->fallbacks[i];

		EXPECT_EQ(strcmp(fallbacks[i], variant->reason) ? 0 : self->asked, moved)
			TH_LOG("%s", fallbacks[i]);
	}

	EXPECT_EQ(-1, buffer_differs(&self->rig.buf));
	EXPECT_EQ(0, rig_fini(&self->rig));
}

TEST_F(no_alias, importer_read_migrates_pages_without_alias)
{
	struct rig *rig = &self->rig;

	/* Registration does not make pages migrate. */
	EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));

	/* Only the first page of each huge page, as then the huge page is in RAM */
	self->asked = SIZE / HUGE_PAGE;
	EXPECT_EQ(-1, rig_differs(rig));
}

TEST_F(no_alias, importer_write_migrates_pages_without_alias)
{
	struct rig *rig = &self->rig;
	uint64_t before = stat_read(variant->reason);

	/* A request for a huge page counts all of its pages */
	self->asked = PAGES;
	ASSERT_EQ(0, rig_prefetch(rig, 0, SIZE, 1));
	EXPECT_EQ(before + PAGES, stat_read(variant->reason));
	ASSERT_EQ(0, rig_write_new(rig, PAGE - 1, HUGE_PAGE + 3));
}

/* A window over the first half of VRAM, with all of VRAM in use. */

FIXTURE(partial_window) {
	struct rig rig;
	struct drm_vsvm_info info;
	struct buffer all;
	struct ibv_mr *mr;
};

FIXTURE_SETUP(partial_window)
{
	struct rig *rig = &self->rig;
	uint64_t pages;
	size_t pos;

	ASSERT_EQ(0, vsvm_reload("window_mb=128"));
	ASSERT_EQ(0, rig_init(rig, SIZE, MADV_HUGEPAGE));
	ASSERT_EQ(0, gpu_info(rig->gpu, &self->info));
	if (self->info.vram_size < MIB(256))
		SKIP(return, "VRAM is too small");
	ASSERT_EQ(MIB(128), self->info.window_size);

	ASSERT_EQ(0, buffer_map(&self->all, self->info.vram_size,
				MADV_HUGEPAGE));
	ASSERT_EQ(0, gpu_to_vram(rig->gpu, self->all.mem, self->all.size,
				 &pages));
	ASSERT_EQ(self->all.size / PAGE, pages);

	/* Each huge page has its own pattern, to notice a read of a wrong one. */
	for (pos = 0; pos < self->all.size; pos += HUGE_PAGE)
		ASSERT_EQ(0, gpu_fill(rig->gpu, self->all.mem + pos,
				      HUGE_PAGE, ~pos * 0x9e3779b97f4a7c15));
	self->mr = rdma_reg_odp(&rig->conn.far, self->all.mem,
				self->all.size);
	ASSERT_NE(NULL, self->mr);
}

FIXTURE_TEARDOWN(partial_window)
{
	if (self->mr)
		ibv_dereg_mr(self->mr);
	buffer_unmap(&self->all);
	EXPECT_EQ(0, rig_fini(&self->rig));
}

TEST_F(partial_window, rdma_read_migrates_only_pages_outside_window)
{
	struct rig *rig = &self->rig;
	uint64_t inside = self->info.window_size / PAGE;
	uint64_t outside = self->all.size / PAGE - inside;
	uint64_t evicted = pages_evicted(rig->gpu);
	uint64_t fallback = stat_read("fallback_outside_window");
	uint64_t *got = (uint64_t *)rig->ram.mem;
	size_t pos;

	for (pos = 0; pos < self->all.size; pos += HUGE_PAGE) {
		uint64_t want = ~pos * 0x9e3779b97f4a7c15;

		memset(got, 0, 16);
		ASSERT_EQ(0, rdma_read(&rig->conn.near, got,
				       rig->ram_mr->lkey,
				       (uintptr_t)self->all.mem + pos +
				       17 * PAGE - 8, self->mr->rkey, 16));
		EXPECT_EQ(want, got[0]);
		EXPECT_EQ(want, got[1]);
	}

	EXPECT_EQ(inside, pages_in_vram(rig->gpu, self->all.mem,
					self->all.size));
	EXPECT_EQ(evicted + outside, pages_evicted(rig->gpu));
	/* Each read needs two pages of an allocation: one or both of them are counted */
	fallback = stat_read("fallback_outside_window") - fallback;
	EXPECT_LE(outside / HUGE_PAGE_NR, fallback);
	EXPECT_GE(2 * outside / HUGE_PAGE_NR, fallback);
}

/* VRAM in the window is allocated first, even if there is room elsewhere. */
TEST(vram_in_window_is_allocated_first)
{
	struct rig rig;
	uint64_t evicted, before;

	ASSERT_EQ(0, vsvm_reload("window_mb=64"));
	ASSERT_EQ(0, rig_init_in_vram(&rig, MIB(32), MADV_HUGEPAGE));
	evicted = pages_evicted(rig.gpu);
	before = stat_read("alias_cpu");
	ASSERT_EQ(0, rig_prefetch(&rig, 0, MIB(32), 1));
	EXPECT_EQ(before + MIB(32) / PAGE, stat_read("alias_cpu"));
	EXPECT_EQ(evicted, pages_evicted(rig.gpu));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&rig.buf, rig.gpu));
	EXPECT_EQ(0, rig_fini(&rig));
}

/* A GPU that is unbound from its driver */

FIXTURE(gpu_unbind) {
	struct rig rig;
	char pci[32];
};

FIXTURE_VARIANTS_BY_ADVICE(gpu_unbind);

FIXTURE_SETUP(gpu_unbind)
{
	ASSERT_EQ(0, vsvm_reload(""));
	ASSERT_EQ(0, rig_init_in_vram(&self->rig, SIZE, variant->advice));
	ASSERT_EQ(0, gpu_pci_address(self->rig.gpu, self->pci,
				     sizeof(self->pci)));
}

FIXTURE_TEARDOWN(gpu_unbind)
{
	EXPECT_EQ(-1, buffer_differs(&self->rig.buf));
	EXPECT_EQ(0, rig_fini(&self->rig));
}

static int unbind_gpu(const char *pci)
{
	return file_write(DRIVER "unbind", pci);
}

/* Also open it again, as the first GPU. */
static int rebind_gpu(struct rig *rig, const char *pci)
{
	int err;

	err = file_write(DRIVER "bind", pci);
	if (err)
		return err;

	close(rig->gpu);
	rig->gpu = gpu_open(0);
	if (rig->gpu < 0)
		return rig->gpu;
	rig->vram_free = vram_free(rig->gpu);
	return 0;
}

TEST_F(gpu_unbind, unbind_migrates_vram_to_ram)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, rig_write_new(rig, PAGE + 1, HUGE_PAGE));
	ASSERT_EQ(0, unbind_gpu(self->pci));
	EXPECT_TRUE(page_is_present(rig->buf.mem));
	EXPECT_TRUE(page_is_present(rig->buf.mem + SIZE - PAGE));
	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, rig_write_new(rig, PAGE - 1, HUGE_PAGE));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
	ASSERT_EQ(0, rebind_gpu(rig, self->pci));
}

TEST_F(gpu_unbind, open_files_return_enodev_after_unbind)
{
	struct rig *rig = &self->rig;
	uint8_t *mem = rig->buf.mem;
	struct drm_vsvm_residency where;
	struct drm_vsvm_counters counters;
	struct drm_vsvm_info info;
	uint64_t sum;
	int old;

	ASSERT_EQ(0, unbind_gpu(self->pci));
	EXPECT_EQ(-ENODEV, gpu_info(rig->gpu, &info));
	EXPECT_EQ(-ENODEV, gpu_counters(rig->gpu, &counters));
	EXPECT_EQ(-ENODEV, gpu_residency(rig->gpu, mem, PAGE, &where));
	EXPECT_EQ(-ENODEV, gpu_to_vram(rig->gpu, mem, PAGE, NULL));
	EXPECT_EQ(-ENODEV, gpu_sum(rig->gpu, mem, PAGE, &sum));

	/* A new device does not make old files work again. */
	old = dup(rig->gpu);
	ASSERT_EQ(0, rebind_gpu(rig, self->pci));
	EXPECT_EQ(-ENODEV, gpu_to_vram(old, mem, PAGE, NULL));
	close(old);
}

TEST_F(gpu_unbind, old_mr_gets_aliases_of_rebound_gpu)
{
	struct rig *rig = &self->rig;
	uint64_t evicted;

	ASSERT_EQ(0, unbind_gpu(self->pci));
	ASSERT_EQ(0, rebind_gpu(rig, self->pci));

	/* The MR is still the old one. */
	ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
	evicted = pages_evicted(rig->gpu);
	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, rig_write_new(rig, PAGE - 1, HUGE_PAGE));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&rig->buf, rig->gpu));
	EXPECT_EQ(evicted, pages_evicted(rig->gpu));
}

TEST_F(gpu_unbind, unbind_keeps_pages_of_other_gpu_in_vram)
{
	struct rig *rig = &self->rig;
	int other = gpu_open(1);
	uint64_t evicted;

	ASSERT_LE(0, other);
	ASSERT_EQ(0, buffer_to_vram(&rig->buf, other, HUGE_PAGE, HUGE_PAGE));
	evicted = pages_evicted(other);

	ASSERT_EQ(0, unbind_gpu(self->pci));
	EXPECT_EQ(-1, rig_differs(rig));
	ASSERT_EQ(0, rig_write_new(rig, HUGE_PAGE - 3, 7));
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_EQ(PAGES / 2, pages_in_vram(other, rig->buf.mem, SIZE));
	EXPECT_EQ(evicted, pages_evicted(other));
	ASSERT_EQ(0, rebind_gpu(rig, self->pci));
	close(other);
}

TEST_F(gpu_unbind, unbind_migrates_pages_shared_by_fork)
{
	struct rig *rig = &self->rig;
	struct child child;

	ASSERT_EQ(0, child_fork(&child, buffer_compare, &rig->buf));
	ASSERT_EQ(0, unbind_gpu(self->pci));
	ASSERT_EQ(0, rig_write_new(rig, PAGE - 1, HUGE_PAGE));
	EXPECT_EQ(0, child_do(&child));
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_EQ(0, child_end(&child));
	ASSERT_EQ(0, rebind_gpu(rig, self->pci));
}

/* A child inherits memory in VRAM from a process that has exited. */
struct heir {
	volatile int stage;
	volatile ssize_t differs;
};

static void __attribute__((noreturn))
leave_heir(struct heir *heir, int advice)
{
	int gpu = gpu_open(0);
	struct buffer buf;

	if (buffer_map(&buf, SIZE, advice))
		_exit(1);
	buffer_write(&buf, 0, SIZE);
	if (buffer_to_vram(&buf, gpu, 0, SIZE))
		_exit(2);
	close(gpu);

	if (fork())
		_exit(0);

	heir->stage = 1;
	wait_until(&heir->stage, 2);
	heir->differs = buffer_differs(&buf);
	heir->stage = 3;
	_exit(0);
}

TEST_F(gpu_unbind, unbind_migrates_pages_inherited_from_exited_process)
{
	struct rig *rig = &self->rig;
	struct heir *heir;
	int status;
	pid_t pid;

	heir = mmap(NULL, sizeof(*heir), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, heir);

	pid = fork();
	if (!pid)
		leave_heir(heir, variant->advice);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(0, status);
	ASSERT_EQ(0, wait_until(&heir->stage, 1));

	ASSERT_EQ(0, unbind_gpu(self->pci));
	heir->stage = 2;
	EXPECT_EQ(0, wait_until(&heir->stage, 3));
	EXPECT_EQ(-1, heir->differs);
	ASSERT_EQ(0, rebind_gpu(rig, self->pci));
}

/* Another thread is at work while the device goes. */

static int importer_adds(struct worker *worker)
{
	return rig_add(worker->rig,
		       (worker->rounds % 5 * 101 * PAGE + 8) % SIZE, 3);
}

static int gpu_sums_up(struct worker *worker)
{
	struct buffer *buf = &worker->rig->buf;
	const uint64_t *words = (uint64_t *)buf->shadow;
	uint64_t sum, want = 0;
	size_t i;
	int err;

	for (i = 0; i < SIZE / sizeof(*words); i++)
		want += words[i];
	err = gpu_sum(worker->gpu, buf->mem, SIZE, &sum);
	return err ? err : sum == want ? 0 : -EILSEQ;
}

static int memory_moves(struct worker *worker)
{
	struct buffer *buf = &worker->rig->buf;
	int err;

	err = gpu_to_vram(worker->gpu, buf->mem, SIZE, NULL);
	return err ? err : buffer_differs(buf) == -1 ? 0 : -EILSEQ;
}

/* Returns the error of the worker. @ends: it cannot go on without the device. */
static int remove_under(struct rig *rig, const char *pci,
			int (*work)(struct worker *worker), bool ends)
{
	struct worker worker = { .rig = rig, .gpu = dup(rig->gpu) };
	double end = now() + PROMPT;
	int err, work_err;

	err = worker_start(&worker, work);
	if (err)
		return err;
	while (worker.rounds < 3 && !worker.err)
		usleep(1000);
	err = unbind_gpu(pci);
	usleep(20000);
	while (ends && !worker.err && now() < end)
		usleep(1000);
	work_err = worker_stop(&worker);
	close(worker.gpu);

	if (!err)
		err = rebind_gpu(rig, pci);
	return err ? err : work_err;
}

TEST_F(gpu_unbind, rdma_atomics_succeed_during_unbind)
{
	struct rig *rig = &self->rig;
	int i;

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, remove_under(rig, self->pci, importer_adds, false));
		EXPECT_EQ(-1, rig_differs(rig));
		ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
	}
}

TEST_F(gpu_unbind, gpu_op_returns_enodev_during_unbind)
{
	EXPECT_EQ(-ENODEV, remove_under(&self->rig, self->pci, gpu_sums_up, true));
	EXPECT_EQ(-1, rig_differs(&self->rig));
}

TEST_F(gpu_unbind, migration_returns_enodev_during_unbind)
{
	EXPECT_EQ(-ENODEV, remove_under(&self->rig, self->pci, memory_moves, true));
	EXPECT_EQ(-1, rig_differs(&self->rig));
}

/* The memory of the process is freed while the device goes. */
TEST_F(gpu_unbind, unbind_succeeds_while_process_is_killed)
{
	struct rig *rig = &self->rig;
	volatile int *ready = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int i, status;
	pid_t pid;

	ASSERT_NE(MAP_FAILED, ready);
	for (i = 0; i < 4; i++) {
		*ready = 0;
		pid = fork();
		if (!pid) {
			struct rig own;

			if (rig_init_in_vram(&own, SIZE, variant->advice))
				_exit(1);
			*ready = 1;
			alarm(20 * slowness());
			for (;;)
				rig_differs(&own);
		}
		ASSERT_EQ(0, wait_until(ready, 1));
		EXPECT_EQ(0, kill(pid, SIGKILL));
		usleep(i * 1000);
		ASSERT_EQ(0, unbind_gpu(self->pci));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_EQ(0, rebind_gpu(rig, self->pci));
		ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
	}
	EXPECT_EQ(-1, rig_differs(rig));
}

/* The module. Users keep it from being unloaded, or work as before after a reload. */

static int module_try_unload(void)
{
	return syscall(SYS_delete_module, "vsvm", O_NONBLOCK) ? -errno : 0;
}

TEST_F(gpu_unbind, module_stays_while_a_file_is_open)
{
	ASSERT_EQ(0, gpu_to_ram(self->rig.gpu, self->rig.buf.mem, SIZE));
	EXPECT_EQ(-EAGAIN, module_try_unload());
}

TEST_F(gpu_unbind, module_stays_while_file_of_unbound_gpu_is_open)
{
	int old = dup(self->rig.gpu);

	ASSERT_EQ(0, unbind_gpu(self->pci));
	ASSERT_EQ(0, rebind_gpu(&self->rig, self->pci));
	close(self->rig.gpu);
	EXPECT_EQ(-EAGAIN, module_try_unload());
	close(old);
	EXPECT_EQ(0, vsvm_reload(""));
	self->rig.gpu = gpu_open(0);
}

TEST_F(gpu_unbind, module_stays_while_memory_is_in_use)
{
	struct rig *rig = &self->rig;

	close(rig->gpu);
	EXPECT_EQ(-EAGAIN, module_try_unload());
	EXPECT_EQ(-1, rig_differs(rig));
	rig->gpu = gpu_open(0);
	EXPECT_EQ(PAGES, pages_in_vram(rig->gpu, rig->buf.mem, SIZE));
}

TEST_F(gpu_unbind, reloaded_module_gives_aliases_to_old_mr)
{
	struct rig *rig = &self->rig;
	uint64_t evicted;
	int i;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, gpu_to_ram(rig->gpu, rig->buf.mem, SIZE));
		close(rig->gpu);
		ASSERT_EQ(0, vsvm_unload());
		EXPECT_EQ(-1, rig_differs(rig));
		ASSERT_EQ(0, vsvm_reload(""));
		rig->gpu = gpu_open(0);

		ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
		evicted = pages_evicted(rig->gpu);
		EXPECT_EQ(-1, rig_differs(rig));
		EXPECT_EQ(evicted, pages_evicted(rig->gpu));
	}
}

/* The driver binds only devices that it is told to: ivshmem devices may be anything. */
TEST(driver_binds_only_by_override_or_parameter)
{
	char pci[2][32], command[256];
	int i, gpu;

	ASSERT_EQ(0, vsvm_reload(""));
	for (i = 0; i < 2; i++) {
		gpu = gpu_open(i);
		ASSERT_LE(0, gpu);
		ASSERT_EQ(0, gpu_pci_address(gpu, pci[i], sizeof(pci[i])));
		close(gpu);
	}
	EXPECT_EQ(0, system("[ -z \"$(modinfo -b $LAB_MODULES -F alias vsvm)\" ]"));
	ASSERT_EQ(0, vsvm_reload("all_ivshmem=0"));
	EXPECT_GT(0, gpu_open(0));

	snprintf(command, sizeof(command),
		 "cd /sys/bus/pci; echo vsvm >devices/%s/driver_override && echo %s >drivers_probe; "
		 "echo >devices/%s/driver_override", pci[1], pci[1], pci[1]);
	EXPECT_EQ(0, system(command));
	gpu = gpu_open(0);
	EXPECT_LE(0, gpu);
	EXPECT_EQ(0, gpu_pci_address(gpu, pci[0], sizeof(pci[0])));
	EXPECT_STREQ(pci[1], pci[0]);
	close(gpu);
	EXPECT_GT(0, gpu_open(1));
	EXPECT_EQ(0, vsvm_reload(""));
}

VSVM_HARNESS_MAIN
