// SPDX-License-Identifier: GPL-2.0
/*
 * Race windows that are open for microseconds, held open.
 *
 * An importer walks the page table, takes its lock, and checks whether the walk is
 * still valid. A change between the first two steps must make it walk again. Here
 * another thread makes one each time: it waits for the mmap lock that the walk holds,
 * on the same CPU and with a higher priority, and so runs at once when the walk drops
 * the lock. To make it wait there,
 *
 * - the importer sleeps over a page in swap, whose read is held back,
 * - a disk fills a page of the process, and its transfer is held back,
 * - the other thread takes the mmap lock to change that page, and sleeps until the
 *   disk is done,
 * - the page in swap arrives: the importer wants the mmap lock,
 * - the disk is done: the other thread finishes its first change, and starts the
 *   second.
 *
 * Other tests are about DMA in flight, for which invalidation waits; the removal and the
 * reset of a GPU, which have to wait; and processes that end while they wait. hotplug.c
 * removes GPUs under traffic, iommu.c looks at the addresses that an engine is left with;
 * mm.c, fork.c and process.c make changes before or after a walk, but not during one.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
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
#include "lib/freezer.h"
#include "lib/harness.h"
#include "lib/page.h"
#include "lib/pci.h"
#include "lib/rig.h"
#include "lib/route.h"
#include "lib/stats.h"
#include "lib/swap.h"
#include "lib/vram.h"
#include "lib/vsvm.h"
#include "lib/worker.h"

#define PAGES	4
#define SIZE	(PAGES * PAGE)
#define LAST	(SIZE - PAGE)

enum importer { EDU, DISK, RXE };

/*
 * A transfer into the memory of @rig, from the same place of its RAM plus @ahead.
 * The part before @mark is done when the window opens.
 */
struct transfer {
	enum importer importer;
	size_t start;
	size_t mark;
	size_t end;
	size_t ahead;
};

struct race;

/* A thread that does one thing, and stays: if it exited, its child would be killed. */
struct racer {
	struct race *race;
	const struct transfer *transfer;
	int (*act)(struct racer *racer);
	int cpu;
	int priority;
	pthread_t thread;
	bool started;
	volatile pid_t tid;
	volatile bool done;
	volatile bool leave;
	volatile int err;
};

struct race {
	const struct transfer *transfer;
	struct rig rig;
	struct buffer stall;	/* a page that the disk fills, to stall others */
	int edu;
	int blk;
	int disk;
	volatile uint8_t *regs;
	struct racer importer;
	struct racer staller;
	struct racer changer;
	int (*change)(struct race *race);
	long slept;		/* how often the changer slept during its change */
	bool dma_goes_on;	/* after the change */
	struct child child;
	struct child releaser;
	volatile bool *disk_sleeps;
};

static void *racer_main(void *arg)
{
	struct racer *racer = arg;
	struct sched_param param = { .sched_priority = racer->priority };
	cpu_set_t cpu;

	CPU_ZERO(&cpu);
	CPU_SET(racer->cpu, &cpu);
	if (sched_setaffinity(0, sizeof(cpu), &cpu) ||
	    (racer->priority &&
	     sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &param)))
		racer->err = -errno;
	racer->tid = syscall(SYS_gettid);
	if (!racer->err)
		racer->err = racer->act(racer);
	racer->done = true;

	while (!racer->leave)
		usleep(5000);
	return NULL;
}

static int racer_start(struct racer *racer, struct race *race,
		       int (*act)(struct racer *racer), int cpu, int priority)
{
	memset(racer, 0, sizeof(*racer));
	racer->race = race;
	racer->transfer = race->transfer;
	racer->act = act;
	racer->cpu = cpu;
	racer->priority = priority;
	racer->started = !pthread_create(&racer->thread, NULL, racer_main, racer);
	return racer->started ? 0 : -EAGAIN;
}

static int racer_wait(struct racer *racer)
{
	double end = now() + PROMPT;

	while (!racer->done && now() < end)
		usleep(2000);
	return racer->done ? racer->err : -ETIMEDOUT;
}

static void racer_end(struct racer *racer)
{
	racer->leave = true;
	if (racer->started)
		pthread_join(racer->thread, NULL);
	racer->started = false;
}

/* The innermost frame. The kernel does not list the scheduler and locks. */
#define AT	"at [<0>] "

/* Is this function on the stack of a thread, a directory of /proc? Takes no memory. */
static bool thread_is_in(const char *thread, const char *function)
{
	char path[PATH_MAX], stack[8192] = "at ";
	size_t at = strlen(stack);
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "%s/stack", thread);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	len = read(fd, stack + at, sizeof(stack) - at - 1);
	close(fd);
	stack[len > 0 ? at + len : 0] = '\0';
	return strstr(stack, function);
}

static unsigned int threads_in(const char *pattern, const char *function)
{
	unsigned int n = 0;
	glob_t found;
	size_t i;

	if (glob(pattern, 0, NULL, &found))
		return 0;
	for (i = 0; i < found.gl_pathc; i++)
		n += thread_is_in(found.gl_pathv[i], function);
	globfree(&found);
	return n;
}

/* Wait until @n threads of a process, or of all if it is 0, are in @function. */
static bool wait_for_threads(pid_t pid, const char *function, unsigned int n)
{
	double end = now() + PROMPT;
	char pattern[64];

	snprintf(pattern, sizeof(pattern), pid ? "/proc/%d/task/*" : "/proc/*/task/*",
		 pid);
	while (threads_in(pattern, function) != n)
		if (now() > end || usleep(5000))
			return false;
	return true;
}

static int wait_until_in(struct racer *racer, const char *function)
{
	double end = now() + PROMPT;
	char thread[64];

	while (now() < end && !racer->done) {
		snprintf(thread, sizeof(thread), "/proc/self/task/%d", racer->tid);
		if (thread_is_in(thread, function))
			return 0;
		usleep(2000);
	}
	printf("# never seen in %s: %d\n", function, racer->err);
	return -ETIMEDOUT;
}

static long times_slept(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_nvcsw;
}

static int race_init(struct race *race, const struct transfer *transfer)
{
	struct rig *rig = &race->rig;
	int err;

	memset(race, 0, sizeof(*race));
	race->transfer = transfer;
	race->disk_sleeps = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (race->disk_sleeps == MAP_FAILED)
		return -ENOMEM;
	/* A disk can only use VRAM that has struct pages */
	err = vsvm_load("p2p_pages=1");
	if (!err)
		err = rig_init(rig, SIZE, MADV_NOHUGEPAGE);
	if (!err)
		err = buffer_map(&race->stall, PAGE, MADV_NOHUGEPAGE);
	if (err)
		return err;
	buffer_write(&race->stall, 0, PAGE);

	race->edu = edu_open();
	race->blk = open("/dev/hmm_blk", O_RDWR | O_CLOEXEC);
	race->disk = open("/dev/nvme0n1", O_RDWR | O_CLOEXEC);
	race->regs = edu_map_regs();
	if (race->edu < 0 || race->blk < 0 || race->disk < 0 || !race->regs)
		return -ENODEV;
	return disk_transfer(race->blk, race->disk, rig->ram.mem, 0, SIZE, true);
}

static int disk_sleep(struct race *race, bool sleep)
{
	int err;

	if (!sleep && !*race->disk_sleeps)
		return 0;
	*race->disk_sleeps = sleep;
	err = disk_throttle("disk", sleep);
	/* QEMU does not delay the first read */
	if (!err && sleep)
		err = disk_transfer(race->blk, race->disk, race->stall.mem, 0,
				    512, false);
	return err;
}

static void race_fini(struct race *race)
{
	disk_sleep(race, false);
	swap_sleep(false);
	if (race->child.pid)
		child_end(&race->child);
	if (race->releaser.pid)
		child_end(&race->releaser);
	racer_end(&race->importer);
	racer_end(&race->staller);
	racer_end(&race->changer);
	close(race->edu);
	close(race->blk);
	close(race->disk);
	buffer_unmap(&race->stall);
}

/* The importer's transfers. */

static int import(struct racer *racer)
{
	const struct transfer *transfer = racer->transfer;
	struct race *race = racer->race;
	size_t at = transfer->start, size = transfer->end - at;
	struct rig *rig = &race->rig;
	uint8_t *mem = rig->buf.mem + at;

	switch (transfer->importer) {
	case EDU:
		return edu_copy(race->edu, mem,
				rig->ram.mem + at + transfer->ahead, size);
	case DISK:
		return disk_transfer(race->blk, race->disk, mem, at, size, false);
	default:
		return rdma_prefetch(&rig->conn.far, rig->mr, mem, size, 1);
	}
}

/* Let the shadow follow a part of it. A prefetch has moved no data: write some now. */
static int update_shadow(struct race *race, size_t from, size_t to)
{
	struct rig *rig = &race->rig;

	if (race->transfer->importer == RXE)
		return from == to ? 0 : rig_write_new(rig, from, to - from);
	memcpy(rig->buf.shadow + from,
	       rig->ram.shadow + from + race->transfer->ahead, to - from);
	return 0;
}

/* The changes in between. */

static int migrate(struct race *race)
{
	/* gpu_to_ram() would not wait for the mmap lock; mprotect() does */
	if (mprotect(race->stall.mem, PAGE, PROT_READ | PROT_WRITE))
		return -errno;
	return gpu_to_ram(race->rig.gpu, race->rig.buf.mem, SIZE);
}

/* The address has new memory now, and the old pages can be used again. */
static int remap(struct race *race)
{
	void *mem = mmap(race->rig.buf.mem, SIZE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	return mem == MAP_FAILED ? -errno : 0;
}

static int protect(struct race *race)
{
	return mprotect(race->rig.buf.mem, SIZE, PROT_READ) ? -errno : 0;
}

static int forks(struct race *race)
{
	return child_fork(&race->child, buffer_compare, &race->rig.buf);
}

static int change(struct racer *racer)
{
	struct race *race = racer->race;
	int err;

	race->slept = -times_slept();
	err = race->change(race);
	race->slept += times_slept();
	race->dma_goes_on = race->transfer->importer == EDU ?
			    edu_writes(race->regs) : *race->disk_sleeps;
	return err;
}

/* A change after the walk, and before the lock. */

FIXTURE(walk) {
	struct race race;
	uint8_t *swapped;
};

FIXTURE_VARIANT(walk) {
	struct transfer transfer;
};

/* The walk finds a page in RAM. */
FIXTURE_VARIANT_ADD(walk, edu) {
	.transfer = { .importer = EDU, .start = 2 * PAGE, .mark = LAST, .end = SIZE },
};

/* The first half has left a mapping of an alias. */
FIXTURE_VARIANT_ADD(walk, edu_second_half) {
	.transfer = { .importer = EDU, .mark = PAGE / 2, .end = PAGE, .ahead = PAGE / 2 },
};

/* The walk finds aliases, and a page in RAM. */
FIXTURE_VARIANT_ADD(walk, disk) {
	.transfer = { .importer = DISK, .end = SIZE },
};

FIXTURE_VARIANT_ADD(walk, prefetch) {
	.transfer = { .importer = RXE, .end = SIZE },
};

static int walk_begin(FIXTURE_DATA(walk) *self, const struct transfer *transfer)
{
	struct race *race = &self->race;
	struct rig *rig = &race->rig;
	int err;

	err = race_init(race, transfer);
	if (!err)
		err = buffer_to_vram(&rig->buf, rig->gpu, 0, LAST);
	if (!err)
		err = rig_register(rig);
	/* Memory in RAM is pinned, and changing it would not wait for the disk */
	if (!err)
		err = buffer_to_vram(&race->stall, rig->gpu, 0, PAGE);
	if (!err)
		err = update_shadow(race, transfer->start, transfer->mark);
	self->swapped = transfer->ahead ? rig->ram.mem + PAGE :
					  rig->buf.mem + LAST;
	return err ? err : page_swap_out(self->swapped);
}

static uint64_t walk_end(FIXTURE_DATA(walk) *self)
{
	race_fini(&self->race);
	return rig_fini(&self->race.rig);
}

FIXTURE_SETUP(walk)
{
	ASSERT_EQ(0, walk_begin(self, &variant->transfer));
}

FIXTURE_TEARDOWN(walk)
{
	EXPECT_EQ(0, walk_end(self));
}

static int stall(struct racer *racer)
{
	struct race *race = racer->race;

	return disk_transfer(race->blk, race->disk, race->stall.mem, 0, PAGE, false);
}

static int stall_and_change(struct racer *racer)
{
	if (mprotect(racer->race->stall.mem, PAGE, PROT_READ))
		return -errno;
	return change(racer);
}

/*
 * See the top of the file. While another thread holds the mmap lock, this thread
 * must not need it: it maps no new memory.
 */
static int hit(struct race *race, int (*change)(struct race *race))
{
	int err, err2;

	race->change = change;
	err = swap_sleep(true);
	if (!err)
		err = racer_start(&race->importer, race, import, 0, 0);
	if (!err)
		err = wait_until_in(&race->importer, "do_swap_page");
	if (!err)
		err = disk_sleep(race, true);
	if (!err)
		err = racer_start(&race->staller, race, stall, 1, 0);
	if (!err)
		err = wait_until_in(&race->staller, "submit_bio_wait");
	if (!err)
		err = racer_start(&race->changer, race, stall_and_change, 0, 1);
	if (!err)
		err = wait_until_in(&race->changer, "job_invalidate");

	err2 = swap_sleep(false);
	if (!err && !err2)
		err = wait_until_in(&race->importer, AT "hmm_range_fault_unlocked_timeout");
	err2 = disk_sleep(race, false) ?: err2;
	if (!err)
		err = racer_wait(&race->staller);
	if (!err)
		err = racer_wait(&race->changer);
	racer_wait(&race->importer);

	/* It should have slept once, for the mmap lock, not the importer's lock. */
	if (!err && race->slept != 1) {
		printf("# missed: slept %ld times\n", race->slept);
		err = -EAGAIN;
	}
	return err ? err : err2;
}

/* On a busy machine it may sleep for other reasons, too: try again. */
#define ASSERT_HIT(_change) do {					\
	int _tries = 5, _err;						\
									\
	while ((_err = hit(&self->race, _change)) == -EAGAIN && --_tries) { \
		EXPECT_EQ(0, walk_end(self));				\
		ASSERT_EQ(0, walk_begin(self, &variant->transfer));	\
	}								\
	ASSERT_EQ(0, _err);						\
} while (0)

/* The transfer goes on where the memory is now. */
#define EXPECT_DATA_ARRIVES() do {					\
	EXPECT_EQ(0, race->importer.err);				\
	EXPECT_EQ(0, update_shadow(race, variant->transfer.mark,	\
				   variant->transfer.end));		\
	EXPECT_EQ(-1, buffer_differs(&race->rig.buf));			\
} while (0)

TEST_F(walk, migration_after_walk_makes_importer_walk_again)
{
	struct race *race = &self->race;

	if (variant->transfer.start)
		SKIP(return, "the page is in RAM");
	ASSERT_HIT(migrate);
	EXPECT_EQ(0, pages_in_vram(race->rig.gpu, race->rig.buf.mem, SIZE));
	EXPECT_DATA_ARRIVES();
}

TEST_F(walk, mmap_fixed_after_walk_makes_importer_walk_again)
{
	struct race *race = &self->race;

	ASSERT_HIT(remap);
	memset(race->rig.buf.shadow, 0, SIZE);
	EXPECT_DATA_ARRIVES();
}

TEST_F(walk, fork_cow_after_walk_makes_importer_walk_again)
{
	struct race *race = &self->race;

	ASSERT_HIT(forks);
	EXPECT_DATA_ARRIVES();
	EXPECT_EQ(0, child_do(&race->child));
}

TEST_F(walk, mprotect_after_walk_makes_importer_write_fail)
{
	struct race *race = &self->race;

	ASSERT_HIT(protect);
	EXPECT_EQ(variant->transfer.importer == DISK ? -EFAULT : -EPERM,
		  race->importer.err);
	EXPECT_EQ(-1, buffer_differs(&race->rig.buf));
}

/*
 * A walk that reaches the end of the mapping fails. Pages that it has found may be
 * gone, if they were being unmapped: the next request has to look them up again.
 */

static int prefetch_too_much(struct worker *worker)
{
	struct rig *rig = worker->rig;
	int err = rdma_prefetch(&rig->conn.far, rig->mr, rig->buf.mem,
				rig->buf.size, true);

	return err == -EFAULT || err == -EBUSY ? 0 : err ? err : -ENODATA;
}

TEST(failed_walk_keeps_no_stale_pfns)
{
	/* The walk is most likely to find the last pages to go */
	size_t size = MIB(16), hole = size - PAGE, tail = hole - MIB(1);
	struct worker worker;
	struct rig rig;
	int i;

	ASSERT_EQ(0, rig_init(&rig, size, MADV_NOHUGEPAGE));
	ASSERT_EQ(0, rig_register(&rig));
	ASSERT_EQ(0, mprotect(rig.buf.mem + hole, PAGE, PROT_NONE));

	for (i = 0; i < 30; i++) {
		worker = (struct worker) { .rig = &rig };
		ASSERT_EQ(0, worker_start(&worker, prefetch_too_much));
		while (!worker.rounds && !worker.err)
			usleep(1000);
		worker.stop = true;
		EXPECT_EQ(0, madvise(rig.buf.mem, hole, MADV_DONTNEED));
		EXPECT_EQ(0, worker_stop(&worker));

		buffer_write(&rig.buf, 0, hole);
		ASSERT_EQ(0, rig_read(&rig, tail, hole - tail));
		ASSERT_EQ(-1, differs(rig.ram.mem + tail, rig.buf.shadow + tail,
				      hole - tail));
	}
	EXPECT_EQ(0, rig_fini(&rig));
}

/* DMA in flight. */

FIXTURE(flight) {
	struct race race;
};

FIXTURE_VARIANT(flight) {
	struct transfer transfer;
};

FIXTURE_VARIANT_ADD(flight, edu) {
	.transfer = { .importer = EDU, .end = PAGE },
};

FIXTURE_VARIANT_ADD(flight, disk) {
	.transfer = { .importer = DISK, .end = SIZE },
};

/* In another process, which the change does not block. */
static int release_disk(void *arg)
{
	bool waits = wait_for_threads(getppid(), "job_invalidate", 1);

	return disk_sleep(arg, false) ?: waits ? 0 : -ETIMEDOUT;
}

FIXTURE_SETUP(flight)
{
	struct rig *rig = &self->race.rig;

	ASSERT_EQ(0, race_init(&self->race, &variant->transfer));
	ASSERT_EQ(0, child_fork(&self->race.releaser, release_disk, &self->race));
	/* After the fork, so that the child does not share it. */
	buffer_write(&rig->buf, 0, SIZE);
	ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
}

FIXTURE_TEARDOWN(flight)
{
	race_fini(&self->race);
	EXPECT_EQ(0, rig_fini(&self->race.rig));
}

/* edu's DMA takes 100 ms: do not miss it. */
static int change_in_flight(struct racer *racer)
{
	struct race *race = racer->race;

	while (race->transfer->importer == EDU && !edu_writes(race->regs))
		if (race->importer.done)
			return -EAGAIN;
	return change(racer);
}

static int run_with_dma_in_flight(struct race *race, int (*change)(struct race *race))
{
	bool disk = race->transfer->importer == DISK;
	int err = 0;

	race->change = change;
	if (disk)
		err = disk_sleep(race, true);
	if (!err)
		err = racer_start(&race->importer, race, import, 1, 0);
	if (!err && disk)
		err = wait_until_in(&race->importer, "submit_bio_wait");
	if (!err && disk)
		err = child_start(&race->releaser);
	if (!err)
		err = racer_start(&race->changer, race, change_in_flight, 0, 1);
	if (!err && disk)
		err = child_result(&race->releaser);
	if (!err)
		err = racer_wait(&race->importer);
	if (!err)
		err = racer_wait(&race->changer);
	return err;
}

#define EXPECT_WAITS() do {						\
	EXPECT_LT(0, race->slept);					\
	EXPECT_FALSE(race->dma_goes_on);				\
} while (0)

TEST_F(flight, migration_waits_for_dma_in_flight)
{
	struct race *race = &self->race;

	if (!reachable())
		SKIP(return, "the memory has migrated before");
	ASSERT_EQ(0, run_with_dma_in_flight(race, migrate));
	EXPECT_WAITS();
	EXPECT_EQ(0, update_shadow(race, 0, variant->transfer.end));
	EXPECT_EQ(0, pages_in_vram(race->rig.gpu, race->rig.buf.mem, SIZE));
	EXPECT_EQ(-1, buffer_differs(&race->rig.buf));
}

static int reset(struct race *race)
{
	char pci[PCI_ADDR_LEN];

	return gpu_pci_address(race->rig.gpu, pci, sizeof(pci)) ?: pci_reset(pci);
}

TEST_F(flight, gpu_reset_waits_for_dma_in_flight)
{
	struct race *race = &self->race;

	if (!reachable())
		SKIP(return, "the memory has migrated before");
	ASSERT_EQ(0, run_with_dma_in_flight(race, reset));
	EXPECT_WAITS();
	EXPECT_EQ(0, update_shadow(race, 0, variant->transfer.end));
	EXPECT_EQ(PAGES, pages_in_vram(race->rig.gpu, race->rig.buf.mem, SIZE));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&race->rig.buf, race->rig.gpu));
}

TEST_F(flight, mmap_fixed_waits_for_dma_in_flight)
{
	struct race *race = &self->race;

	ASSERT_EQ(0, run_with_dma_in_flight(race, remap));
	EXPECT_WAITS();
	memset(race->rig.buf.shadow, 0, SIZE);
	EXPECT_EQ(-1, buffer_differs(&race->rig.buf));
}

TEST_F(flight, fork_cow_waits_for_dma_in_flight)
{
	struct race *race = &self->race;

	/* Before the fork: the child compares with this shadow, too. */
	EXPECT_EQ(0, update_shadow(race, 0, variant->transfer.end));
	ASSERT_EQ(0, run_with_dma_in_flight(race, forks));
	EXPECT_WAITS();
	EXPECT_EQ(-1, buffer_differs(&race->rig.buf));
	EXPECT_EQ(0, child_do(&race->child));
}

/* The page does not change, but its notifiers are called. */
static int touch_mapping(uint8_t *page)
{
	if (mprotect(page, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC) ||
	    mprotect(page, PAGE, PROT_READ | PROT_WRITE))
		return -errno;
	return 0;
}

static int touch_last_page(struct race *race)
{
	return touch_mapping(race->rig.buf.mem + race->transfer->end - PAGE);
}

TEST_F(flight, invalidation_of_last_page_waits_for_dma_in_flight)
{
	struct race *race = &self->race;

	ASSERT_EQ(0, run_with_dma_in_flight(race, touch_last_page));
	EXPECT_WAITS();
	EXPECT_EQ(0, update_shadow(race, 0, variant->transfer.end));
	EXPECT_EQ(-1, buffer_differs(&race->rig.buf));
}

static const struct transfer two_pages = { .importer = EDU, .end = 2 * PAGE };

TEST(invalidation_of_other_page_does_not_wait_for_dma)
{
	bool goes_on = false;
	struct rig *rig;
	struct race race;
	uint64_t addr;
	int tries;

	ASSERT_EQ(0, race_init(&race, &two_pages));
	rig = &race.rig;
	buffer_write(&rig->buf, 0, SIZE);

	/* The transfer takes 100 ms, which a busy machine may miss. */
	for (tries = 0; tries < 50 && !goes_on; tries++) {
		ASSERT_EQ(0, racer_start(&race.importer, &race, import, 1, 0));
		while (!edu_writes(race.regs) && !race.importer.done)
			;
		addr = edu_read(race.regs, EDU_DMA_DST);
		ASSERT_EQ(0, touch_mapping(rig->buf.mem + PAGE));
		goes_on = edu_writes(race.regs) &&
			  edu_read(race.regs, EDU_DMA_DST) == addr;
		EXPECT_EQ(0, racer_wait(&race.importer));
		racer_end(&race.importer);
	}
	EXPECT_TRUE(goes_on);
	EXPECT_EQ(0, update_shadow(&race, 0, 2 * PAGE));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
	race_fini(&race);
	EXPECT_EQ(0, rig_fini(rig));
}

/* A window can be used, and stays, until the last transfer through it ends. */

static const struct transfer disk_fills = { .importer = DISK, .end = SIZE };

TEST(unbind_keeps_window_until_dma_ends)
{
	char pci[PCI_ADDR_LEN];
	struct rig *rig;
	struct race race;
	pid_t pid;
	int i;

	if (!reachable())
		SKIP(return, "the disk does not reach VRAM");
	ASSERT_EQ(0, race_init(&race, &disk_fills));
	rig = &race.rig;
	ASSERT_EQ(0, gpu_pci_address(rig->gpu, pci, sizeof(pci)));
	ASSERT_TRUE(file_says(WINDOWS, pci));

	/* The GPU evicts older memory first. */
	ASSERT_EQ(0, buffer_to_vram(&race.stall, rig->gpu, 0, PAGE));
	ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
	ASSERT_EQ(0, rig_register(rig));

	EXPECT_EQ(0, disk_sleep(&race, true));
	EXPECT_EQ(0, racer_start(&race.staller, &race, stall, 1, 0));
	EXPECT_EQ(0, wait_until_in(&race.staller, "submit_bio_wait"));
	ASSERT_EQ(0, command_start(&pid, "echo %s >/sys/bus/pci/drivers/vsvm/unbind",
				   pci));
	EXPECT_TRUE(wait_for_threads(pid, "job_invalidate", 1));

	EXPECT_EQ(0, rig_write_new(rig, 0, SIZE));
	EXPECT_EQ(-1, rig_differs(rig));
	for (i = 0; i < PAGES; i++)
		EXPECT_TRUE(page_is_elsewhere(rig->buf.mem + i * PAGE));

	EXPECT_EQ(0, disk_sleep(&race, false));
	EXPECT_EQ(0, racer_wait(&race.staller));
	EXPECT_EQ(0, command_wait(pid, PROMPT));
	EXPECT_FALSE(file_says(WINDOWS, pci));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
	EXPECT_EQ(0, disk_transfer(race.blk, race.disk, rig->ram.mem, 0, PAGE,
				   false));
	EXPECT_EQ(-1, differs(rig->ram.mem, race.stall.mem, PAGE));
	race_fini(&race);
	/* The GPU is gone and cannot say how much is free */
	EXPECT_EQ(~0ULL, rig_fini(rig));
	EXPECT_EQ(0, vsvm_reload("p2p_pages=1"));
}

/*
 * Let the disk fill the second page of a huge page. In another process, since a change of
 * ours would wait for this one, too.
 */
static int stall_elsewhere(void *arg)
{
	int gpu = gpu_open(0), err;
	struct race *race = arg;
	struct buffer huge;

	err = buffer_map(&huge, HUGE_PAGE, MADV_HUGEPAGE);
	if (err)
		return err;
	buffer_write(&huge, 0, HUGE_PAGE);
	err = buffer_to_vram(&huge, gpu, 0, HUGE_PAGE);
	if (!err && huge_pages_in_vram(gpu, huge.mem, HUGE_PAGE) != HUGE_PAGE_NR)
		err = -ENOSPC;
	if (!err)
		err = disk_transfer(race->blk, race->disk, huge.mem + PAGE, 0, PAGE, false);
	if (!err && (huge_pages_in_vram(gpu, huge.mem, HUGE_PAGE) != HUGE_PAGE_NR ||
		     differs(huge.mem + PAGE, race->rig.ram.shadow, PAGE) != -1))
		err = -EILSEQ;
	buffer_unmap(&huge);
	return err;
}

/* The reset waits for the disk. Until it is over, there are no new aliases. */
TEST(window_gives_no_alias_during_gpu_reset)
{
	uint64_t revoked = stat_read("fallback_revoked"), before;
	char pci[PCI_ADDR_LEN];
	struct rig *rig;
	struct child child;
	struct race race;
	pid_t pid;

	if (!reachable())
		SKIP(return, "the disk does not reach VRAM");
	ASSERT_EQ(0, race_init(&race, &disk_fills));
	rig = &race.rig;
	ASSERT_EQ(0, gpu_pci_address(rig->gpu, pci, sizeof(pci)));
	ASSERT_EQ(0, child_fork(&child, stall_elsewhere, &race));
	buffer_write(&rig->buf, 0, SIZE);
	ASSERT_EQ(0, rig_register(rig));
	ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));

	EXPECT_EQ(0, disk_sleep(&race, true));
	EXPECT_EQ(0, child_start(&child));
	EXPECT_TRUE(wait_for_threads(child.pid, "submit_bio_wait", 1));
	ASSERT_EQ(0, command_start(&pid, "echo 1 >" PCI_DEVICES "%s/reset", pci));
	EXPECT_TRUE(wait_for_threads(pid, "job_invalidate", 1));

	EXPECT_TRUE(file_says(WINDOWS, " revoked=1"));
	EXPECT_FALSE(file_says(WINDOWS, pci));
	before = stat_read("alias_cpu");
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_EQ(before, stat_read("alias_cpu"));
	EXPECT_LT(revoked, stat_read("fallback_revoked"));
	EXPECT_EQ(0, pages_in_vram(rig->gpu, rig->buf.mem, SIZE));

	EXPECT_EQ(0, disk_sleep(&race, false));
	EXPECT_EQ(0, child_result(&child));
	EXPECT_EQ(0, child_end(&child));
	EXPECT_EQ(0, command_wait(pid, PROMPT));
	EXPECT_TRUE(file_says(WINDOWS, pci));
	EXPECT_FALSE(file_says(WINDOWS, " revoked=1"));
	ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
	EXPECT_EQ(0, rig_prefetch(rig, 0, SIZE, 1));
	EXPECT_EQ(before + PAGES, stat_read("alias_cpu"));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&rig->buf, rig->gpu));
	race_fini(&race);
	EXPECT_EQ(0, rig_fini(rig));
}

/* The disk waits, and nothing else has to. */

#define CGROUP	CGROUPS "race/"

FIXTURE(alone) {
	struct race race;
	struct buffer big;
	uint8_t *victim;
};

static int cgroup_enter(void)
{
	return cgroup_make(CGROUP) ?: file_write(CGROUP "cgroup.procs", "0");
}

static void cgroup_leave(void)
{
	file_write(CGROUPS "cgroup.procs", "0");
	rmdir(CGROUP);
	file_write(CGROUPS "cgroup.subtree_control", "-memory -io");
}

FIXTURE_SETUP(alone)
{
	struct rig *rig = &self->race.rig;

	if (!reachable())
		SKIP(return, "the memory has migrated before");
	ASSERT_EQ(0, cgroup_enter());
	ASSERT_EQ(0, race_init(&self->race, &disk_fills));
	ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, LAST));
}

FIXTURE_TEARDOWN(alone)
{
	race_fini(&self->race);
	buffer_unmap(&self->big);
	EXPECT_EQ(0, rig_fini(&self->race.rig));
	cgroup_leave();
}

static FIXTURE_DATA(alone) *alone;

/* Reclaim until a page has gone. */
static int reclaim(struct racer *racer __attribute__((unused)))
{
	int tries;

	for (tries = 0; tries < 100; tries++) {
		file_write(CGROUP "memory.reclaim", "64M swappiness=max");
		if (page_is_elsewhere(alone->victim))
			return 0;
	}
	return -EAGAIN;
}

static int fill_page_in_vram(struct racer *racer)
{
	struct race *race = racer->race;

	return disk_transfer(race->blk, race->disk, alone->victim + PAGE, 0, PAGE,
			     false);
}

#define EXPECT_RECLAIM(_import) do {					\
	struct race *_race = &self->race;				\
									\
	alone = self;							\
	ASSERT_EQ(0, disk_sleep(_race, true));				\
	ASSERT_EQ(0, racer_start(&_race->importer, _race, _import, 1, 0));	\
	ASSERT_EQ(0, wait_until_in(&_race->importer, "submit_bio_wait")); \
	ASSERT_EQ(0, racer_start(&_race->changer, _race, reclaim, 0, 0));	\
	EXPECT_EQ(0, racer_wait(&_race->changer));			\
	EXPECT_FALSE(_race->importer.done);				\
	EXPECT_EQ(0, disk_sleep(_race, false));				\
	EXPECT_EQ(0, racer_wait(&_race->importer));			\
} while (0)

TEST_F(alone, reclaim_of_adjacent_ram_does_not_wait_for_disk_io)
{
	struct rig *rig = &self->race.rig;

	self->victim = rig->buf.mem + LAST;
	EXPECT_RECLAIM(import);
	EXPECT_EQ(0, update_shadow(&self->race, 0, SIZE));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
}

static uint64_t huge_kib(void)
{
	return field_read("/proc/self/smaps_rollup", "AnonHugePages");
}

/* A huge page, with another page mapped in the middle of it. */
TEST_F(alone, reclaim_of_thp_around_vram_does_not_wait_for_disk_io)
{
	size_t at = HUGE_PAGE / 2;
	struct buffer *big = &self->big;
	uint64_t huge;

	ASSERT_EQ(0, buffer_map(big, HUGE_PAGE, MADV_HUGEPAGE));
	huge = huge_kib();
	ASSERT_EQ(0, madvise(big->mem, HUGE_PAGE, MADV_POPULATE_WRITE));
	ASSERT_EQ(huge + HUGE_PAGE / KIB(1), huge_kib());
	buffer_write(big, 0, HUGE_PAGE);
	ASSERT_EQ(0, madvise(big->mem + at, PAGE, MADV_DONTNEED));
	ASSERT_EQ(0, madvise(big->mem + at, PAGE, MADV_DONTFORK));
	buffer_write(big, at, PAGE);
	ASSERT_EQ(0, buffer_to_vram(big, self->race.rig.gpu, at, PAGE));
	ASSERT_EQ(0, madvise(big->mem + at, PAGE, MADV_DOFORK));
	ASSERT_EQ(1, pages_in_vram(self->race.rig.gpu, big->mem, HUGE_PAGE));

	self->victim = big->mem + at - PAGE;
	EXPECT_RECLAIM(fill_page_in_vram);
	memcpy(big->shadow + at, self->race.rig.ram.shadow, PAGE);
	EXPECT_EQ(-1, buffer_differs(big));
}

static int unmap(struct racer *racer)
{
	return remap(racer->race);
}

/* The limits of its cgroup may delay a transfer for any time, but not a change. */
TEST_F(alone, mmap_does_not_wait_for_disk_io_throttled_by_io_max)
{
	struct race *race = &self->race;
	char limit[64];
	struct stat st;

	ASSERT_EQ(0, fstat(race->disk, &st));
	ASSERT_EQ(0, file_write(CGROUPS "cgroup.subtree_control", "+io"));
	snprintf(limit, sizeof(limit), "%u:%u rbps=1", major(st.st_rdev),
		 minor(st.st_rdev));
	ASSERT_EQ(0, file_write(CGROUP "io.max", limit));
	ASSERT_EQ(0, racer_start(&race->importer, race, import, 1, 0));
	ASSERT_EQ(0, wait_until_in(&race->importer, "submit_bio_wait"));
	ASSERT_EQ(0, racer_start(&race->changer, race, unmap, 0, 0));
	EXPECT_EQ(0, racer_wait(&race->changer));
	EXPECT_FALSE(race->importer.done);

	strcpy(strchr(limit, '=') + 1, "max");
	EXPECT_EQ(0, file_write(CGROUP "io.max", limit));
	EXPECT_EQ(0, racer_wait(&race->importer));
	memset(race->rig.buf.shadow, 0, SIZE);
	EXPECT_EQ(-1, buffer_differs(&race->rig.buf));
}

static int fill_slowly(void *arg)
{
	struct race *race = arg;
	struct buffer buf;

	return buffer_map(&buf, MIB(64), MADV_NOHUGEPAGE) ?:
	       disk_transfer(race->blk, race->disk, buf.mem, 0, buf.size, false);
}

/* The transfer takes a minute at that speed. */
TEST_F(alone, suspend_waits_only_for_disk_io_in_flight)
{
	struct race *race = &self->race;
	struct child child;

	ASSERT_EQ(0, child_fork(&child, fill_slowly, race));
	*race->disk_sleeps = true;
	ASSERT_EQ(0, disk_throttle("disk", MIB(1)));
	EXPECT_EQ(0, child_start(&child));
	EXPECT_TRUE(wait_for_threads(child.pid, "blk_fop_ioctl", 1));
	EXPECT_EQ(0, machine_freeze());
	EXPECT_EQ(0, kill(child.pid, SIGKILL));
	EXPECT_EQ(0, disk_sleep(race, false));
	child_end(&child);
}

/* Processes that end while they wait for a page. */

static const struct transfer transfers[] = {
	{ .importer = EDU, .start = LAST, .end = SIZE },
	{ .importer = DISK, .end = SIZE },
	{ .importer = RXE, .end = SIZE },
};

#define SLEEPERS	(ARRAY_LEN(transfers) + 1)

FIXTURE(leaving) {
	int gpu;
	uint64_t vram_free;
	volatile int *stage;
	pid_t pid;
};

FIXTURE_VARIANT(leaving) {
	bool exec;
	bool queued;
};

FIXTURE_VARIANT_ADD(leaving, killed) {
	.exec = false,
};

FIXTURE_VARIANT_ADD(leaving, executes) {
	.exec = true,
};

FIXTURE_VARIANT_ADD(leaving, killed_while_others_work_for_it) {
	.queued = true,
};

static int gpu_fetches(struct racer *racer)
{
	struct rig *rig = &racer->race->rig;

	return gpu_to_vram(rig->gpu, rig->buf.mem + LAST, PAGE, NULL);
}

static void __attribute__((noreturn))
leaving_main(volatile int *stage, bool queued)
{
	struct racer sleepers[SLEEPERS];
	struct rig *rig;
	struct race race;
	size_t i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(60 * slowness());
	rig = &race.rig;
	if (race_init(&race, &disk_fills) ||
	    buffer_to_vram(&rig->buf, rig->gpu, 0, LAST) ||
	    rig_register(rig) || page_swap_out(rig->buf.mem + LAST))
		_exit(1);
	*stage = 1;
	if (wait_until(stage, 2))
		_exit(2);

	if (queued && rdma_prefetch_begin(&rig->conn.far, rig->mr,
					  rig->buf.mem, SIZE))
		_exit(3);
	for (i = 0; i < SLEEPERS && !queued; i++) {
		race.transfer = &transfers[i % ARRAY_LEN(transfers)];
		racer_start(&sleepers[i], &race,
			    i < ARRAY_LEN(transfers) ? import : gpu_fetches,
			    i % 2, 0);
	}
	*stage = 3;
	wait_until(stage, 4);
	execl("/bin/true", "true", NULL);
	_exit(4);
}

FIXTURE_SETUP(leaving)
{
	ASSERT_EQ(0, vsvm_load("p2p_pages=1"));
	self->gpu = gpu_open(0);
	ASSERT_LE(0, self->gpu);
	self->vram_free = vram_free(self->gpu);
	self->stage = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->stage);

	self->pid = fork();
	if (!self->pid)
		leaving_main(self->stage, variant->queued);
	ASSERT_EQ(0, wait_until(self->stage, 1));
	ASSERT_EQ(0, swap_sleep(true));
	*self->stage = 2;
	ASSERT_EQ(0, wait_until(self->stage, 3));
}

FIXTURE_TEARDOWN(leaving)
{
	swap_sleep(false);
	EXPECT_EQ(0, vram_leaked(self->gpu, self->vram_free));
	close(self->gpu);
}

TEST_F(leaving, exit_and_execve_do_not_wait_for_swapin)
{
	double end = now() + PROMPT;
	int status;
	pid_t pid;

	ASSERT_TRUE(variant->queued ?
		    wait_for_threads(0, "rxe_ib_prefetch_mr_work", 1) :
		    wait_for_threads(self->pid, "do_swap_page", SLEEPERS));
	*self->stage = 4;
	if (!variant->exec)
		ASSERT_EQ(0, kill(self->pid, SIGKILL));

	do {
		pid = waitpid(self->pid, &status, WNOHANG);
	} while (!pid && now() < end && !usleep(5000));
	ASSERT_EQ(self->pid, pid);
	EXPECT_EQ(variant->exec ? 0 : SIGKILL, status);
	if (variant->queued) {
		/* The kernel worker still has the memory. */
		EXPECT_GT(self->vram_free, vram_free(self->gpu));
		EXPECT_EQ(0, swap_sleep(false));
	}
	EXPECT_EQ(0, vram_leaked(self->gpu, self->vram_free));
}

VSVM_HARNESS_MAIN
