// SPDX-License-Identifier: GPL-2.0
/*
 * A differential fuzzer: the place of memory makes no difference to the processes
 * that use it. A seed gives a sequence of operations of two processes, one after the
 * other: of GPUs, of importers, of memory management, and of trackers such as
 * userfaultfd. It runs with peer access on; with peer access off, so that pages
 * migrate; and in plain RAM, with VRAM full. Data, errors, events of userfaultfd and
 * reports of dirty pages must be the same. Some rules hold in every mode: pages that
 * were written are reported, secret memory stays secret, and a file that is mapped
 * read-only or privately does not change.
 *
 * A sequence that makes a difference is printed, and again without the operations
 * that the difference does not need.
 *
 *   FUZZ_S=60	how long, in seconds
 *   FUZZ_SEED=	the seed of the first sequence. Default: the time
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "differ.h"
#include "gpu.h"
#include "measure.h"
#include "lib/cgroup.h"
#include "lib/file.h"
#include "lib/harness.h"
#include "lib/stats.h"
#include "lib/vram.h"
#include "lib/vsvm.h"

enum mode { ON, OFF, RAM, MODES };

static const char * const mode_names[MODES] = { "on", "off", "ram" };

#define BATCH		8
#define MOST		3	/* differences that are reported */
#define ALWAYS		(1ULL << K_LOOK | 1ULL << K_TO_VRAM)
#define CGROUP		CGROUPS "differ/"
/* Limits, in seconds, for one operation and for making a sequence shorter */
#define PATIENCE	(40 * slowness())
#define SHRINK_S	(90 * slowness())

struct sequence {
	uint64_t seed;
	unsigned int n;
	struct op ops[MAX_STEPS];
	struct result results[MODES][MAX_STEPS];
};

/* Between two modes, or, if they are equal, between one mode and a rule. */
struct difference {
	enum mode mode;
	enum mode other;
	unsigned int step;
	const char *what;
};

struct stage *stage;

/* Sequences of operations */

static uint64_t rnd(uint64_t *rng, uint64_t n)
{
	*rng ^= *rng << 13;
	*rng ^= *rng >> 7;
	*rng ^= *rng << 17;
	return (*rng * 0x2545f4914f6cdd1dULL >> 11) % n;
}

/* The focus of a sequence: most operations are on one region. */
struct theme {
	uint64_t kinds;
	unsigned int region;
	unsigned int who;
};

static uint32_t some_place(uint64_t *rng, const struct theme *theme, unsigned int regions,
			   unsigned int align, uint32_t size)
{
	unsigned int region = rnd(rng, 4) ? theme->region : rnd(rng, REGIONS);
	uint64_t at;

	while (!(regions >> region & 1))
		region = rnd(rng, REGIONS);
	/* Most places are in the first pages of a region */
	at = rnd(rng, 3) ? rnd(rng, 12 * PAGE) : rnd(rng, HOT);
	if (rnd(rng, 2))
		at = at / PAGE * PAGE;
	if (at + size > HOT)
		at = HOT - size;
	return region * STRIDE + at / align * align;
}

static const struct kind *some_kind(uint64_t *rng, const struct theme *theme)
{
	unsigned int i, sum = 0;
	uint64_t at;

	for (i = 0; i < differ_kinds_nr; i++)
		sum += theme->kinds >> i & 1 ? differ_kinds[i].weight : 0;
	at = rnd(rng, sum);
	for (i = 0;; i++) {
		if (!(theme->kinds >> i & 1))
			continue;
		if (at < differ_kinds[i].weight)
			return &differ_kinds[i];
		at -= differ_kinds[i].weight;
	}
}

static void generate_op(uint64_t *rng, const struct theme *theme, struct op *op)
{
	const struct kind *kind = some_kind(rng, theme);
	uint32_t align;

	align = kind->align;
	op->kind = kind - differ_kinds;
	op->who = op->kind != K_FORK && (rnd(rng, 4) ? theme->who ^ kind->remote : rnd(rng, PROCS));
	op->arg = kind->args ? rnd(rng, kind->args) : 0;
	op->size = rnd(rng, 2) ? kind->most : rnd(rng, 2) ? PAGE : 1 + rnd(rng, kind->most);
	if (op->size > kind->most)
		op->size = kind->most;
	op->size = (op->size + align - 1) / align * align;
	op->at = some_place(rng, theme, kind->regions, align, op->size);
	op->from = SCRATCH;
	if (kind->from && !rnd(rng, 3))
		op->from = some_place(rng, theme, ~0U, 8, op->size);
	op->value = rnd(rng, 4) ? 1 + rnd(rng, 1 << 20) : 0;
	/* The two sides of a copy do not overlap */
	if (op->from / STRIDE == op->at / STRIDE)
		op->from = SCRATCH;
}

static void generate(struct sequence *seq, uint64_t seed)
{
	uint64_t rng = (seed + 1) * 0x9e3779b97f4a7c15ULL;
	/* With few kinds of operations, each of them comes often */
	struct theme theme = {
		.kinds = (rnd(&rng, 1ULL << 52) & (rnd(&rng, 2) ? rnd(&rng, 1ULL << 52) : ~0ULL)) |
			 ALWAYS,
		.region = rnd(&rng, 8) ? rnd(&rng, 2) : rnd(&rng, REGIONS),
		.who = rnd(&rng, PROCS),
	};
	unsigned int i;

	memset(seq, 0, sizeof(*seq));
	seq->seed = seed;
	for (seq->n = 0; seq->n < MAX_OPS; seq->n++)
		generate_op(&rng, &theme, &seq->ops[seq->n]);
	for (i = 0; i < PROCS * REGIONS; i++)
		seq->ops[seq->n++] = (struct op) {
			.kind = K_LOOK, .who = i % PROCS, .from = SCRATCH,
			.at = i / PROCS * STRIDE, .size = region_size(i / PROCS),
		};
}

/* Processes */

struct run {
	int pipes[PROCS][4];
	pid_t pid;
};

static bool is_alive(pid_t pid)
{
	char path[64], state = 'Z';
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "r");
	if (!file)
		return false;
	if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
		state = 'Z';
	fclose(file);
	return state != 'Z' && state != 'X';
}

/* -ETIMEDOUT: the process hangs; -ECHILD: it died; -EIO: it reports a failure. */
static int wait_for(struct run *run, unsigned int who)
{
	struct pollfd pfd = { .fd = run->pipes[who][2], .events = POLLIN };
	double end = now() + PATIENCE;
	char answer, command[128];

	while (poll(&pfd, 1, 200) != 1) {
		if (stage->pid[who] && !is_alive(stage->pid[who]))
			return -ECHILD;
		if (now() > end) {
			snprintf(command, sizeof(command), "cd /proc/%d/task; "
				 "tail -n 50 */wchan */stack /proc/%d/stack | sed 's/^/# /'",
				 stage->pid[who], stage->pid[!who]);
			system(command);
			return -ETIMEDOUT;
		}
	}
	if (read(pfd.fd, &answer, 1) != 1)
		return -ECHILD;
	return answer == 'y' ? 0 : -EIO;
}

static int tell(struct run *run, unsigned int who, enum tell what)
{
	char c = what;

	if (write(run->pipes[who][1], &c, 1) != 1)
		return -ECHILD;
	return what == QUIT ? 0 : wait_for(run, who);
}

static int tell_both(struct run *run, enum tell what)
{
	return tell(run, 0, what) ?: tell(run, 1, what);
}

static int second_process(struct run *run)
{
	memset(stage->wrote[1], 0, sizeof(stage->wrote[1]));
	memset(stage->armed[1], 0, sizeof(stage->armed[1]));
	memcpy(stage->freed[1], stage->freed[0], sizeof(stage->freed[1]));
	stage->pid[1] = 0;
	return tell(run, 0, SPAWN) ?: wait_for(run, 1) ?: tell_both(run, CONNECT);
}

static void fill_file(int fd, unsigned int value)
{
	static uint8_t data[HOT] __attribute__((aligned(PAGE)));

	differ_pattern(data, HOT, value);
	if (pwrite(fd, data, HOT, (value % PROCS) * HOT * (value > REGIONS)) != (ssize_t)HOT)
		abort();
}

static void files_init(void)
{
	char path[64];
	int fd, disk = open("/dev/nvme0n1", O_RDWR | O_DIRECT | O_CLOEXEC);
	unsigned int i;

	for (i = 0; i < PROCS; i++)
		fill_file(disk, 1000 + i);
	close(disk);
	for (i = SHARED; i <= READONLY; i++) {
		fd = memfd_create("differ", 0);
		fill_file(fd, i);
		if (i == READONLY) {
			snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
			stage->files[i] = open(path, O_RDONLY);
			close(fd);
		} else {
			stage->files[i] = fd;
		}
	}
}

/* For a file that is mapped privately or read-only. */
static bool file_changed(enum region region)
{
	static uint64_t is[HOT / 8], was[HOT / 8];

	differ_pattern(was, HOT, region);
	return pread(stage->files[region], is, HOT, 0) != (ssize_t)HOT || memcmp(is, was, HOT);
}

static int run_begin(struct run *run)
{
	unsigned int i;

	memset(stage, 0, sizeof(*stage));
	files_init();
	for (i = 0; i < PROCS; i++)
		if (pipe2(run->pipes[i], O_CLOEXEC) || pipe2(run->pipes[i] + 2, O_CLOEXEC))
			abort();
	run->pid = fork();
	setpgid(run->pid, run->pid);
	if (!run->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		file_write(CGROUP "cgroup.procs", "0");
		differ_host(run->pipes);
	}
	stage->pid[0] = run->pid;
	return wait_for(run, 0) ?: second_process(run);
}

/* Kill the processes, whatever they are doing. */
static bool run_end(struct run *run)
{
	double end = now() + PATIENCE;
	unsigned int i, j;
	pid_t pid;

	do {
		kill(-run->pid, SIGKILL);
		pid = waitpid(-run->pid, NULL, WNOHANG);
		if (!pid)
			usleep(1000);
	} while (pid >= 0 && now() < end);
	for (i = 0; i < PROCS; i++)
		for (j = 0; j < 4; j++)
			close(run->pipes[i][j]);
	for (i = SHARED; i <= READONLY; i++)
		close(stage->files[i]);
	return pid < 0;
}

static int step(struct run *run, const struct op *op, struct result *result)
{
	const struct kind *kind = &differ_kinds[op->kind];
	bool send = op->kind == K_SEND;
	int err = 0;

	memset(&stage->result, 0, sizeof(stage->result));
	stage->op = *op;
	if (getenv("V"))
		differ_print(op, &stage->result);
	if (op->kind == K_FORK) {
		tell(run, 1, QUIT);
		err = second_process(run);
	} else {
		if (send)
			err = tell(run, !op->who, PREPARE);
		if (!err)
			err = tell(run, op->who, OPERATE);
		if (!err && send && !stage->result.err)
			err = tell(run, !op->who, FINISH);
	}
	if (!err && stage->result.status && stage->result.err == -EREMOTEIO)
		err = tell_both(run, WAIT_FOR_ERROR) ?: tell_both(run, CONNECT);
	*result = stage->result;
	if (err)
		result->wrong = err == -ETIMEDOUT ? "it hangs" : err == -ECHILD ? "a process died" :
				"it cannot go on";
	else if (!result->err && kind->device &&
		 (op->at / STRIDE == SECRET || op->from / STRIDE == SECRET))
		result->wrong = "secret memory was accessed";
	else if (file_changed(PRIVATE) || file_changed(READONLY))
		result->wrong = "a file has changed that may not be written";
	return result->wrong ? -EIO : 0;
}

/* If the kernel crashes, its log tells the seed and the mode. */
static void log_note(uint64_t seed, enum mode mode)
{
	char line[64];

	snprintf(line, sizeof(line), "<6>differ: FUZZ_SEED=%lu, %s", seed, mode_names[mode]);
	file_write("/dev/kmsg", line);
}

static void run_sequence(struct sequence *seq, enum mode mode)
{
	struct result *results = seq->results[mode];
	struct run run;
	unsigned int i;

	memset(results, 0, sizeof(seq->results[mode]));
	log_note(seq->seed, mode);
	if (run_begin(&run))
		results[0].wrong = "it cannot begin";
	else
		for (i = 0; i < seq->n && !step(&run, &seq->ops[i], &results[i]); i++)
			;
	if (!run_end(&run))
		results[0].wrong = "it does not end";
}

/* Modes */

static int gpus[2];
static uint64_t vram[2];
static pid_t ballast;

/* All of VRAM belongs to another process, and the RAM of its pages is free again. */
static void __attribute__((noreturn)) ballast_main(int ready)
{
	static const size_t sizes[] = { HUGE_PAGE, KIB(64), PAGE };
	unsigned int i, j;
	uint64_t pages;
	uint8_t *mem;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (i = 0; i < 2; i++) {
		int gpu = gpu_open(i);

		for (j = 0; j < ARRAY_LEN(sizes); j++) {
			mem = mmap(NULL, vram[i] + HUGE_PAGE, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
			mem += -(uintptr_t)mem % HUGE_PAGE;
			if (j)
				madvise(mem, vram[i], MADV_NOHUGEPAGE);
			else
				madvise(mem, vram[i], MADV_HUGEPAGE);
			while (vram_free(gpu) >= sizes[j] &&
			       !gpu_to_vram(gpu, mem, sizes[j], &pages) && pages == sizes[j] / PAGE)
				mem += sizes[j];
		}
	}
	if (write(ready, "", 1) == 1)
		pause();
	_exit(0);
}

static int mode_set(enum mode mode)
{
	int ready[2], i;
	char c;

	if (aliases_enable(mode == ON))
		return -EIO;
	if (mode == RAM && !ballast) {
		if (pipe2(ready, O_CLOEXEC))
			return -errno;
		ballast = fork();
		if (!ballast)
			ballast_main(ready[1]);
		close(ready[1]);
		if (read(ready[0], &c, 1) != 1)
			return -EIO;
		close(ready[0]);
		return vram_free(gpus[0]) + vram_free(gpus[1]) ? -ENOSPC : 0;
	}
	if (mode != RAM && ballast) {
		kill(ballast, SIGKILL);
		waitpid(ballast, NULL, 0);
		ballast = 0;
		for (i = 0; i < 2; i++)
			if (vram_leaked(gpus[i], vram[i]))
				return -EBUSY;
	}
	return 0;
}

/* Differences */

static bool same_events(const struct result *a, const struct result *b)
{
	return !memcmp(a->events, b->events, sizeof(a->events)) && a->layout == b->layout;
}

static const char *compare(const struct op *op, const struct result *a, const struct result *b)
{
	if (a->err != b->err || a->status != b->status)
		return "errors";
	if (a->data != b->data)
		return "data";
	if (!same_events(a, b))
		return "events";
	/* A huge page table entry reports all of its pages at once */
	if (a->report != b->report && op->at / STRIDE != HUGE)
		return "reports";
	return NULL;
}

static bool differs_in(const struct sequence *seq, enum mode a, enum mode b,
		       struct difference *diff)
{
	unsigned int i, j;

	*diff = (struct difference) { .mode = a, .other = b };
	for (i = 0; i < seq->n; i++) {
		diff->step = i;
		for (j = 0; j < 2; j++) {
			const struct result *result = &seq->results[j ? b : a][i];

			if (!result->wrong)
				continue;
			diff->mode = diff->other = j ? b : a;
			diff->what = result->wrong;
			return true;
		}
		if (a != b)
			diff->what = compare(&seq->ops[i], &seq->results[a][i], &seq->results[b][i]);
		if (diff->what)
			return true;
	}
	return false;
}

static bool find_difference(const struct sequence *seq, struct difference *diff)
{
	return differs_in(seq, ON, OFF, diff) || differs_in(seq, OFF, RAM, diff);
}

static bool differs_again(struct sequence *seq, const struct difference *diff,
			  struct difference *found)
{
	if (mode_set(diff->mode))
		return false;
	run_sequence(seq, diff->mode);
	if (diff->other != diff->mode) {
		if (mode_set(diff->other))
			return false;
		run_sequence(seq, diff->other);
	}
	return differs_in(seq, diff->mode, diff->other, found) && found->what == diff->what;
}

static void print(const struct sequence *seq, const struct difference *diff)
{
	unsigned int i;

	printf("# seed %lu: %s with %s", seq->seed, diff->what, mode_names[diff->mode]);
	if (diff->other != diff->mode)
		printf(" are not those with %s", mode_names[diff->other]);
	printf(", in the last of\n");
	for (i = 0; i <= diff->step; i++) {
		differ_print(&seq->ops[i], &seq->results[diff->mode][i]);
		if (diff->other != diff->mode &&
		    (i == diff->step || compare(&seq->ops[i], &seq->results[diff->mode][i],
						&seq->results[diff->other][i])))
			differ_print(&seq->ops[i], &seq->results[diff->other][i]);
	}
	fflush(stdout);
}

/* Leave out operations that the difference does not need. */
static void shorten(struct sequence *seq, struct difference *diff)
{
	static struct sequence less;
	double end = now() + SHRINK_S;
	struct difference found;
	unsigned int size, at;

	seq->n = diff->step + 1;
	for (size = seq->n / 2; size; size /= 2) {
		for (at = 0; at + size < seq->n && now() < end; ) {
			less = *seq;
			memmove(&less.ops[at], &less.ops[at + size],
				(less.n - at - size) * sizeof(less.ops[0]));
			less.n -= size;
			if (!differs_again(&less, diff, &found)) {
				at += size;
				continue;
			}
			*seq = less;
			*diff = found;
			seq->n = diff->step + 1;
		}
	}
}

FIXTURE(differ) {
	uint64_t seed;
};

FIXTURE_SETUP(differ)
{
	const char *seed = getenv("FUZZ_SEED");

	self->seed = seed ? strtoul(seed, NULL, 0) : (uint64_t)time(NULL) << 20;
	ASSERT_EQ(0, vsvm_load("p2p_pages=1"));
	ASSERT_EQ(0, file_write("/proc/sys/vm/nr_hugepages", "16"));
	ASSERT_EQ(0, cgroup_make(CGROUP));
	ASSERT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 1));
	stage = mmap(NULL, sizeof(*stage), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, stage);
	ASSERT_EQ(0, gpus_open(gpus, vram));
}

FIXTURE_TEARDOWN(differ)
{
	EXPECT_EQ(0, mode_set(ON));
	EXPECT_EQ(0, gpus_close(gpus, vram));
	munmap(stage, sizeof(*stage));
	file_write("/proc/sys/vm/nr_hugepages", "0");
	rmdir(CGROUP);
}

TEST_F_TIMEOUT(differ, aliases_migration_and_ram_give_same_results, 14400)
{
	static struct sequence batch[BATCH];
	const char *seconds = getenv("FUZZ_S");
	double end = now() + (seconds ? atof(seconds) : 60);
	unsigned int i, mode, found = 0, done = 0;
	uint64_t steps = 0, retries[MODES] = {};
	struct difference diff;

	TH_LOG("FUZZ_SEED=%lu", self->seed);
	do {
		for (i = 0; i < BATCH; i++)
			generate(&batch[i], self->seed + done + i);
		for (mode = 0; mode < MODES; mode++) {
			ASSERT_EQ(0, mode_set(mode));
			for (i = 0; i < BATCH; i++) {
				run_sequence(&batch[i], mode);
				retries[mode] += stage->retries;
			}
		}
		for (i = 0; i < BATCH; i++)
			steps += batch[i].n;
		for (i = 0; i < BATCH && found < MOST; i++) {
			if (!find_difference(&batch[i], &diff))
				continue;
			found++;
			print(&batch[i], &diff);
			shorten(&batch[i], &diff);
			printf("# or shorter:\n");
			print(&batch[i], &diff);
		}
		done += BATCH;
	} while (now() < end && found < MOST);

	TH_LOG("%u sequences; of %lu steps, retries: %lu with p2pdma, %lu off, %lu ram", done,
	       steps, retries[ON], retries[OFF], retries[RAM]);
	EXPECT_EQ(0, found);
	/* An alias is no reason for a call to be busy */
	EXPECT_GE(retries[OFF] + steps / 100, retries[ON]);
}

VSVM_HARNESS_MAIN
