// SPDX-License-Identifier: GPL-2.0
/*
 * A fuzzer for the ioctls of vsvm, hmm_edu and hmm_blk. Processes of a few threads
 * each make sequences of calls, until they exit or are killed in the middle of a
 * call. A call is a valid one, perhaps with random errors, or a changed copy of a call
 * that had a new kind of result before.
 *
 * A thread passes memory in its arena, for which the fuzzer knows which accesses are
 * allowed. A valid call must work. An invalid call must fail with an error that its
 * header documents. A violation is printed with all calls of the sequence, so that it
 * can become a test of its own. See differ.c for the effect of calls on data and on
 * trackers.
 *
 *   FUZZ_S=60	how long, in seconds; up to ten times as long, until each kind of
 *		call has worked once
 *   FUZZ_SEED=	the seed of the random numbers, which does not determine how threads
 *		run in parallel. Default: the time
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"
#include "measure.h"
#include "lib/buffer.h"
#include "lib/edu.h"
#include "lib/file.h"
#include "lib/harness.h"
#include "lib/vram.h"
#include "lib/vsvm.h"

struct shared *fuzz_shared;

/* Print only the first violation, with all calls that came before it. */
void fuzz_fail(struct fuzzer *me, const char *format, ...)
{
	va_list args;
	unsigned int i;

	while (!__sync_bool_compare_and_swap(&fuzz_shared->failing, 0, getpid()))
		pause();
	printf("# seed %lu, thread %u:\n", me->seed, me->thread);
	for (i = 0; i < me->steps; i++)
		fuzz_print(&me->calls[i], me->errs[i]);
	printf("# ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	_exit(1);
}

/* Further errors of a call on another file than its device, and of an unknown call. */
static const int wrong_call[] = { EBADF, ENOTTY, EPERM, EINVAL, EACCES, EOPNOTSUPP };

static bool has_errno(const int *errnos, size_t n, int err)
{
	while (n--)
		if (errnos[n] && errnos[n] == -err)
			return true;
	return false;
}

/* Translate addresses, disk offsets and files in a call to those of a thread. */

/* The last part of the disk belongs to no thread. */
static uint64_t pos_at_home(struct fuzzer *me, uint64_t pos, uint64_t size)
{
	if (pos >= DISK_END - DISK_STRIDE)
		return pos;
	if (size > DISK_STRIDE / 2)
		return DISK_END - DISK_STRIDE + pos % DISK_STRIDE;
	return me->slot * DISK_STRIDE + pos % (DISK_STRIDE / 2);
}

static void call_at_home(struct fuzzer *me, struct call *call)
{
	const struct field *field;
	uint64_t size = call_size(call);

	for (field = fuzz_kinds[call->kind].fields; field->type; field++) {
		uint64_t value = field_get(call, field);

		if (field->type == ADDR)
			value = addr_at_home(me, value);
		if (field->type == FD && value < FDS)
			value = me->fds[value];
		if (field->type == POS)
			value = pos_at_home(me, value, size);
		field_set(call, field, value);
	}
}

static void argument_done(struct fuzzer *me, struct call *was)
{
	const struct kind *kind = &fuzz_kinds[was->kind];
	size_t size = _IOC_SIZE(was->cmd), i;
	const struct field *field;
	struct call is = *was;

	/* Generic calls, such as FIGETBSZ, do not encode a size, but write an argument */
	for (i = size; size && i < ARG_SIZE; i++)
		if (me->arg[i] != (i < sizeof(was->bytes) ? was->bytes[i] : 0x5a))
			fuzz_fail(me, "%#x behind the argument, at %#zx", me->arg[i], i);
	memcpy(is.bytes, me->arg, sizeof(is.bytes));
	for (field = kind->fields; was->cmd == kind->cmd && field->type; field++)
		if (field_get(&is, field) != field_get(was, field))
			fuzz_fail(me, "%s is %#lx now", field->name, field_get(&is, field));
	*was = is;
}

static int issue(struct fuzzer *me, const struct call *call)
{
	uint8_t * const args[] = {
		[ARG_GOOD] = me->arg,
		[ARG_READONLY] = me->arg,
		[ARG_KERNEL] = (uint8_t *)0xffff888000000000,
		[ARG_AT_HOLE] = me->arg + ARG_SIZE - 8,
	};
	int err;

	memset(me->arg, 0x5a, ARG_SIZE);
	memcpy(me->arg, call->bytes, sizeof(call->bytes));
	if (call->arg == ARG_READONLY)
		mprotect(me->arg, ARG_SIZE, PROT_READ);
	err = ioctl(me->fds[call->fd], call->cmd, args[call->arg]) ? -errno : 0;
	if (call->arg == ARG_READONLY)
		mprotect(me->arg, ARG_SIZE, PROT_READ | PROT_WRITE);
	return err;
}

static void make_call(struct fuzzer *me, struct call call, int *result)
{
	const struct kind *kind = &fuzz_kinds[call.kind];
	enum access should;
	bool right;
	int err;

	call_at_home(me, &call);
	right = call.cmd == kind->cmd && call.arg == ARG_GOOD &&
		(call.fd == kind->dev || (call.fd == GPU1 && kind->dev == GPU0));
	should = right ? fuzz_should_work(me, &call) : PERHAPS;

	err = issue(me, &call);
	*result = err;
	if (call.arg == ARG_GOOD)
		argument_done(me, &call);
	__sync_fetch_and_add(&fuzz_shared->calls, 1);
	if (!err && right)
		__sync_fetch_and_add(&fuzz_shared->worked[call.kind], 1);
	if (err && !has_errno(kind->errnos, ARRAY_LEN(kind->errnos), err) &&
	    (right || !has_errno(wrong_call, ARRAY_LEN(wrong_call), err)))
		fuzz_fail(me, "error %d is not documented", err);
	if (should == NO && !err)
		fuzz_fail(me, "it should not work");
	if (should == YES && err && err != -EBUSY && err != -ENOMEM)
		fuzz_fail(me, "it should work");
	if (right)
		fuzz_call_done(me, &call, err, should);
}

static void *thread_main(void *arg)
{
	struct fuzzer *me = arg;

	for (;;) {
		me->seed = fuzz_shared->seed + __sync_fetch_and_add(&fuzz_shared->sequences, 1);
		me->rng = (me->seed + 1) * 0x9e3779b97f4a7c15ULL;
		me->steps = 0;
		fuzz_arena_init(me);
		while (me->steps < STEPS) {
			struct call *call = &me->calls[me->steps];
			int *err = &me->errs[me->steps++];

			fuzz_generate(me, call);
			if (call->kind >= KINDS) {
				fuzz_meddle(me, call);
				continue;
			}
			make_call(me, *call, err);
			fuzz_learn(call, *err);
		}
	}
	return NULL;
}

/* Processes */

static void nothing(int signal __attribute__((unused)))
{
}

static void fuzzer_init(struct fuzzer *me, unsigned int process, unsigned int thread,
			int of_parent)
{
	me->fds[GPU0] = gpu_open(0);
	me->fds[GPU1] = gpu_open(1);
	me->fds[EDU] = edu_open();
	me->fds[BLK] = open("/dev/hmm_blk", O_RDWR | O_CLOEXEC);
	me->fds[RW] = open(DISK, O_RDWR | O_DIRECT | O_CLOEXEC);
	me->fds[RO] = open(DISK, O_RDONLY | O_DIRECT | O_CLOEXEC);
	me->fds[WO] = open(DISK, O_WRONLY | O_DIRECT | O_CLOEXEC);
	me->fds[SWAP] = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);
	me->fds[NOT_A_DISK] = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	me->fds[OF_PARENT] = of_parent;
	me->fds[CLOSED] = 1 << 20;

	me->slot = process * THREADS + thread;
	me->thread = thread;
	me->mem = (uint8_t *)(ARENA + thread * ARENA_STRIDE);
	me->arg = mmap(me->mem + ARENA_STRIDE / 2, ARG_SIZE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (me->arg == MAP_FAILED)
		fuzz_fail(me, "no memory");
}

/* Run until killed, or for @ms, whatever the threads are doing then. */
static void __attribute__((noreturn))
process_main(unsigned int process, unsigned int threads, unsigned int ms, int of_parent)
{
	static struct fuzzer fuzzers[THREADS];
	struct sigaction action = { .sa_handler = nothing };
	struct itimerval timer = { .it_interval.tv_usec = 1000 + ms };
	struct timespec rest = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };
	pthread_t thread;
	unsigned int i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGCHLD, SIG_IGN);
	sigaction(SIGALRM, &action, NULL);
	if (mmap((void *)COMMON, COMMON_SIZE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
		_exit(2);
	for (i = 0; i < threads; i++) {
		fuzzer_init(&fuzzers[i], process, i, of_parent);
		if (pthread_create(&thread, NULL, thread_main, &fuzzers[i]))
			_exit(3);
	}
	timer.it_value = timer.it_interval;
	setitimer(ITIMER_REAL, &timer, NULL);
	while (nanosleep(&rest, &rest) || fuzz_shared->failing == getpid())
		;
	_exit(0);
}

/* Counters of references that must be the same before and after. */
static const char * const in_use[] = {
	"/proc/sys/fs/file-nr", "/sys/module/vsvm/refcnt", "/sys/module/hmm_edu/refcnt",
	"/sys/module/hmm_blk/refcnt", "/sys/module/nvme/refcnt",
};

/*
 * Read the smallest values within a second. First stop lab/init's heartbeat for two
 * seconds, since its programs come and go.
 */
static void in_use_read(uint64_t *least)
{
	pid_t heart = access("/run/heart", R_OK) ? 0 : number_read("/run/heart");
	unsigned int i, tries;
	uint64_t now;

	if (heart)
		kill(heart, SIGSTOP);
	sleep(2 * slowness());
	for (tries = 0; tries < 20; tries++, usleep(50000)) {
		for (i = 0; i < ARRAY_LEN(in_use); i++) {
			now = number_read(in_use[i]);
			least[i] = tries && least[i] < now ? least[i] : now;
		}
	}
	if (heart)
		kill(heart, SIGCONT);
}

FIXTURE(fuzz) {
	int gpu[2];
	int edu;
	uint64_t vram_free[2];
	uint64_t in_use[ARRAY_LEN(in_use)];
	struct buffer a;
	struct buffer b;
};

FIXTURE_VARIANT(fuzz) {
	const char *params;
};

FIXTURE_VARIANT_ADD(fuzz, struct_pages) {
	.params = "p2p_pages=1",
};

FIXTURE_VARIANT_ADD(fuzz, small_window) {
	.params = "window_mb=129",
};

FIXTURE_SETUP(fuzz)
{
	const char *seed = getenv("FUZZ_SEED");

	ASSERT_EQ(0, vsvm_load(variant->params));
	ASSERT_EQ(0, file_write("/proc/sys/vm/nr_hugepages", "12"));
	fuzz_shared = mmap(NULL, sizeof(*fuzz_shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, fuzz_shared);
	fuzz_shared->seed = seed ? strtoul(seed, NULL, 0) : (uint64_t)time(NULL) << 20;

	self->edu = edu_open();
	ASSERT_LE(0, self->edu);
	ASSERT_EQ(0, gpus_open(self->gpu, self->vram_free));
	ASSERT_EQ(0, buffer_map(&self->a, HUGE_PAGE, MADV_HUGEPAGE));
	ASSERT_EQ(0, buffer_map(&self->b, HUGE_PAGE, MADV_HUGEPAGE));
	in_use_read(self->in_use);
}

/* Everything is free again, and works. */
FIXTURE_TEARDOWN(fuzz)
{
	uint64_t left[ARRAY_LEN(in_use)];
	unsigned int i, tries;
	int disk;

	/* A call on memory that processes share since fork() moves it for all of them */
	EXPECT_EQ(0, mlockall(MCL_CURRENT));
	munlockall();
	for (i = 0; i < 2; i++)
		EXPECT_EQ(0, vram_leaked(self->gpu[i], self->vram_free[i]));
	/* The references of a process may go later than the process */
	for (tries = 0; tries < 5; tries++) {
		in_use_read(left);
		if (!memcmp(left, self->in_use, sizeof(left)))
			break;
	}
	for (i = 0; i < ARRAY_LEN(in_use); i++) {
		EXPECT_EQ(self->in_use[i], left[i])
			TH_LOG("%s: %lu, %lu", in_use[i], self->in_use[i], left[i]);
	}

	for (i = 0; i < 2; i++) {
		buffer_write(&self->a, 0, HUGE_PAGE);
		EXPECT_EQ(0, buffer_to_vram(&self->a, self->gpu[i], 0, HUGE_PAGE));
		EXPECT_EQ(0, edu_copy(self->edu, self->b.mem + 5, self->a.mem + 3, PAGE));
		EXPECT_EQ(-1, differs(self->b.mem + 5, self->a.shadow + 3, PAGE));
	}
	disk = open(DISK, O_RDWR | O_DIRECT | O_CLOEXEC);
	EXPECT_EQ(HUGE_PAGE, pwrite(disk, self->a.mem, HUGE_PAGE, 0));
	EXPECT_EQ(HUGE_PAGE, pread(disk, self->b.mem, HUGE_PAGE, 0));
	EXPECT_EQ(-1, differs(self->b.mem, self->a.shadow, HUGE_PAGE));
	close(disk);

	buffer_unmap(&self->a);
	buffer_unmap(&self->b);
	for (i = 0; i < 2; i++)
		close(self->gpu[i]);
	close(self->edu);
	munmap(fuzz_shared, sizeof(*fuzz_shared));
	file_write("/proc/sys/vm/nr_hugepages", "0");
}

struct process {
	pid_t pid;
	double end;
};

/* Wait until a process ends, and kill it after its time. Returns its status, or -1. */
static int process_end(struct process *process, bool at_once)
{
	double end = now() + PATIENCE;
	char command[128];
	pid_t pid;
	int status;

	do {
		pid = waitpid(process->pid, &status, WNOHANG);
		if (pid == process->pid)
			return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? 0 : status;
		if ((at_once || now() > process->end) &&
		    fuzz_shared->failing != process->pid)
			kill(process->pid, SIGKILL);
		usleep(5000);
	} while (now() < end);

	snprintf(command, sizeof(command), "cd /proc/%d/task; tail -n 50 */wchan */stack */syscall",
		 process->pid);
	system(command);
	return -1;
}

static bool all_have_worked(void)
{
	unsigned int i;

	for (i = 0; i < KINDS; i++)
		if (!fuzz_shared->worked[i])
			return false;
	return true;
}

/* The harness's limit is only a backup for the test's own limit, FUZZ_S. */
TEST_F_TIMEOUT(fuzz, ioctls_return_only_documented_results, 7200)
{
	const char *seconds = getenv("FUZZ_S");
	struct fuzzer parent = { .rng = fuzz_shared->seed + 1 };
	struct process processes[PROCESSES] = {};
	double length = (seconds ? atof(seconds) : 60) / 2, start;
	unsigned int i;

	TH_LOG("FUZZ_SEED=%lu", fuzz_shared->seed);
	/* On a slow kernel, not all kinds of calls may have worked by then */
	start = now();
	for (i = 0; !fuzz_shared->failing &&
		    now() < start + (all_have_worked() ? 1 : 10) * length;
	     i = (i + 1) % PROCESSES) {
		struct process *process = &processes[i];
		/* Until all kinds work, let processes live longer, with fewer signals */
		double slow = all_have_worked() ? 1 : 1 + (now() - start) / length;
		unsigned int threads = 1 + rnd(&parent, THREADS);
		unsigned int ms = slow * (200 + rnd(&parent, 4000));
		bool killed = one_in(&parent, 2);

		if (process->pid && now() < process->end) {
			usleep(5000);
			continue;
		}
		if (process->pid)
			ASSERT_EQ(0, process_end(process, false));

		process->end = now() + ms / 1000.0 + (killed ? 0 : 2 * slow);
		process->pid = fork();
		ASSERT_LE(0, process->pid);
		if (!process->pid)
			process_main(i, threads, ms, self->gpu[0]);
	}
	for (i = 0; i < PROCESSES; i++)
		if (processes[i].pid)
			EXPECT_EQ(0, process_end(&processes[i], true));

	TH_LOG("%lu sequences of %lu calls, %u of them new", fuzz_shared->sequences,
	       fuzz_shared->calls, fuzz_shared->corpus_nr);
	EXPECT_EQ(0, fuzz_shared->failing);
	for (i = 0; i < KINDS && !fuzz_shared->failing; i++) {
		EXPECT_LT(0, fuzz_shared->worked[i])
			TH_LOG("%s never worked", fuzz_kinds[i].name);
	}
}

VSVM_HARNESS_MAIN
