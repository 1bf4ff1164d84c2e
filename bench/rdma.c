// SPDX-License-Identifier: GPL-2.0
/*
 * Measures RDMA on memory that a GPU has just worked on: with peer-to-peer
 * access, without it, where the kernel migrates the pages that the peer accesses,
 * and in plain RAM. The three modes take turns, and all data is checked.
 *
 *   sizes      one transfer, of 4 KiB to 64 MiB
 *   ranges     prefetch of a range, up to all of VRAM, of small and of huge pages,
 *              in instructions: run it with ICOUNT=1
 *   processes  rounds of GPU and RDMA work in many processes at a time
 */
#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "content.h"
#include "figures.h"
#include "gpu.h"
#include "measure.h"
#include "mode.h"
#include "must.h"
#include "p2pdma.h"
#include "peer.h"
#include "rdma.h"

#define KIB		((size_t)1 << 10)
#define MIB		((size_t)1 << 20)
#define HUGE_SIZE	(2 * MIB)
#define MAX_SIZE	(64 * MIB)
#define MAX_REPEATS	15
#define RANGE_REPEATS	3
#define SHARE		(4 * MIB)	/* memory of a process */
#define MAX_PROCESSES	8
#define ROUNDS_S	2.0
#define BUSY_S		60

static int was_enabled;

static void restore(void)
{
	p2pdma_enable(was_enabled);
}

static void set_switch(enum mode mode)
{
	must(p2pdma_enable(mode != OFF), "hmm_p2pdma/enabled");
}

static char *map_memory(size_t size, int flags, bool huge)
{
	char *p = mmap(NULL, size + HUGE_SIZE, PROT_READ | PROT_WRITE,
		       MAP_ANONYMOUS | flags, -1, 0);

	must(p == MAP_FAILED ? -errno : 0, "memory");
	p = (char *)(((uintptr_t)p + HUGE_SIZE - 1) & -HUGE_SIZE);
	madvise(p, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return p;
}

static int open_gpu(void)
{
	int gpu = gpu_open(0);

	must(gpu, "GPU");
	return gpu;
}

static void to_vram(int gpu, char *addr, size_t size)
{
	uint64_t pages;

	must(gpu_to_vram(gpu, addr, size, &pages), "migration to VRAM");
	must(pages == size / getpagesize() ? 0 : -ENOSPC, "VRAM");
}

static struct ibv_mr *register_mr(struct rdma *r, char *addr, size_t size)
{
	struct ibv_mr *mr = rdma_reg_odp(r, addr, size);

	must(mr ? 0 : -errno, "registration");
	return mr;
}

/* The operation of the GPU on a buffer; in RAM the CPU does it. */
static void operate(enum mode mode, int gpu, char *addr, size_t size,
		    uint64_t value)
{
	if (mode == RAM)
		content_xor(addr, size, value);
	else
		must(gpu_xor(gpu, addr, size, value), "GPU operation");
}

static uint64_t sum_of(enum mode mode, int gpu, char *addr, size_t size)
{
	uint64_t sum;

	if (mode == RAM)
		return content_sum(addr, size);
	must(gpu_sum(gpu, addr, size, &sum), "GPU operation");
	return sum;
}

static uint64_t migrated(int gpu)
{
	struct drm_vsvm_counters c;

	must(gpu_counters(gpu, &c), "GPU counters");
	return c.pages_to_ram;
}

/* With p2pdma no page may migrate; with OFF all pages must migrate. */
static void check_migrated(enum mode mode, uint64_t pages, size_t size)
{
	if (mode == OFF ? pages < size / getpagesize() : pages)
		errx(EXIT_FAILURE, "%s: %" PRIu64 " of %zu pages migrated",
		     mode_names[mode], pages, size / getpagesize());
}

struct sizes {
	int gpu;
	struct rdma rdma;
	struct peer peer;
	char *model;
	uint64_t value;
	struct {
		char *addr;
		struct ibv_mr *mr;
	} buffers[NR_MODES];
};

static double ask(struct sizes *s, const struct peer_request *request,
		  uint64_t *wrong)
{
	struct peer_answer answer;

	must(peer_ask(&s->peer, request), "peer");
	must(peer_answer(&s->peer, &answer), "peer");
	if (wrong)
		*wrong = answer.wrong;
	return answer.seconds;
}

/* One transfer of memory that the GPU has just changed, in seconds. */
static double transfer(struct sizes *s, enum mode mode, enum peer_task task,
		       size_t size)
{
	char *addr = s->buffers[mode].addr;
	struct peer_request request = {
		.task = task,
		.rkey = s->buffers[mode].mr->rkey,
		.addr = (uintptr_t)addr,
		.size = size,
		.value = ~s->value,
	};
	struct peer_request compare = { PEER_COMPARE, .size = size };
	uint64_t before, wrong = size;
	double seconds;

	set_switch(mode);
	operate(mode, s->gpu, addr, size, s->value);
	before = migrated(s->gpu);
	seconds = ask(s, &request, NULL);
	check_migrated(mode, migrated(s->gpu) - before, size);

	if (task == PEER_READ)
		ask(s, &compare, &wrong);
	if (wrong != size ||
	    sum_of(mode, s->gpu, addr, size) != content_sum(s->model, size))
		errx(EXIT_FAILURE, "%s: wrong data", mode_names[mode]);
	return seconds;
}

static void measure_size(struct sizes *s, enum peer_task task, size_t size)
{
	int i, mode, repeats = size < MIB ? MAX_REPEATS : size < MAX_SIZE ? 5 : 3;
	double seconds[NR_MODES][MAX_REPEATS];
	char name[32];

	for (i = 0; i < repeats; i++) {
		s->value += 0x9e3779b97f4a7c15;
		if (task == PEER_READ)
			content_xor(s->model, size, s->value);
		else
			content_pattern(s->model, size, ~s->value);
		for (mode = 0; mode < NR_MODES; mode++)
			seconds[mode][i] = transfer(s, mode, task, size);
	}

	snprintf(name, sizeof(name), "%zu", size / KIB);
	for (mode = 0; mode < NR_MODES; mode++)
		figure(task == PEER_READ ? "read" : "write", name,
		       mode_names[mode], "MiB/s",
		       (double)size / MIB / median(seconds[mode], repeats));
}

static void sizes(void)
{
	struct sizes s = { .model = map_memory(MAX_SIZE, MAP_SHARED, false) };
	size_t size;
	int mode;

	content_pattern(s.model, MAX_SIZE, 1);
	must(peer_start(&s.peer, MAX_SIZE, s.model), "peer");
	s.gpu = open_gpu();
	must(rdma_open(&s.rdma), "RDMA device");
	must(peer_connect(&s.peer, &s.rdma), "connection");

	for (mode = 0; mode < NR_MODES; mode++) {
		char *addr = map_memory(MAX_SIZE, MAP_PRIVATE, true);

		set_switch(mode);
		memcpy(addr, s.model, MAX_SIZE);
		if (mode != RAM)
			to_vram(s.gpu, addr, MAX_SIZE);
		s.buffers[mode].addr = addr;
		s.buffers[mode].mr = register_mr(&s.rdma, addr, MAX_SIZE);
	}

	for (size = 4 * KIB; size <= MAX_SIZE; size *= 4)
		measure_size(&s, PEER_READ, size);
	for (size = 4 * KIB; size <= MAX_SIZE; size *= 4)
		measure_size(&s, PEER_WRITE, size);

	for (mode = 0; mode < NR_MODES; mode++)
		ibv_dereg_mr(s.buffers[mode].mr);
	rdma_close(&s.rdma);
	peer_stop(&s.peer);
}

/*
 * As in the demo: the kernel gives up with -EBUSY if many pages migrate slowly.
 * Returns instructions per page.
 */
static double prefetch(struct rdma *r, struct ibv_mr *mr, char *addr,
		       size_t size)
{
	uint64_t ticks = __rdtsc();
	double start = now();
	int error;

	do {
		error = rdma_prefetch(r, mr, addr, size, true);
	} while (error == -EBUSY && now() - start < BUSY_S);
	must(error, "prefetch");
	return (double)(__rdtsc() - ticks) / (size / getpagesize());
}

static void check_huge(int gpu, const char *addr, size_t size, bool huge)
{
	struct drm_vsvm_residency where;

	must(gpu_residency(gpu, addr, size, &where), "GPU residency");
	if (where.huge != (huge ? size / getpagesize() : 0))
		errx(EXIT_FAILURE, "%llu of %zu pages are huge", where.huge,
		     size / getpagesize());
}

static void measure_range(int gpu, struct rdma *r, size_t size, bool huge)
{
	char *addr = map_memory(size, MAP_PRIVATE, huge);
	double cost[NR_MODES][RANGE_REPEATS];
	struct ibv_mr *mr;
	uint64_t before, sum;
	char name[32];
	int i, mode;

	content_pattern(addr, size, size);
	mr = register_mr(r, addr, size);
	for (i = 0; i < RANGE_REPEATS; i++) {
		for (mode = 0; mode < NR_MODES; mode++) {
			/* Migrate out and back, to invalidate the whole MR */
			set_switch(mode);
			must(gpu_to_ram(gpu, addr, size), "migration to RAM");
			to_vram(gpu, addr, size);
			check_huge(gpu, addr, size, huge);
			if (mode == RAM)
				must(gpu_to_ram(gpu, addr, size),
				     "migration to RAM");
			before = migrated(gpu);
			cost[mode][i] = prefetch(r, mr, addr, size);
			check_migrated(mode, migrated(gpu) - before, size);
		}
	}
	sum = sum_of(P2PDMA, gpu, addr, size);
	if (sum != content_sum(addr, size))
		errx(EXIT_FAILURE, "wrong data");

	ibv_dereg_mr(mr);
	munmap(addr, size);
	snprintf(name, sizeof(name), "%zu", size / MIB);
	for (mode = 0; mode < NR_MODES; mode++)
		figure(huge ? "prefetch, huge pages" : "prefetch, small pages",
		       name, mode_names[mode], "instructions/page",
		       median(cost[mode], RANGE_REPEATS));
}

static void ranges(void)
{
	struct drm_vsvm_counters c;
	struct rdma r;
	size_t size;
	int huge, gpu = open_gpu();

	must_count_instructions();
	must(rdma_open(&r), "RDMA device");
	must(gpu_counters(gpu, &c), "GPU counters");
	for (huge = 1; huge >= 0; huge--) {
		for (size = 4 * MIB; size < c.vram_free; size *= 4)
			measure_range(gpu, &r, size, huge);
		measure_range(gpu, &r, c.vram_free, huge);
	}
	rdma_close(&r);
}

/* In memory that all processes share */
struct race {
	volatile int ready;
	volatile double end;	/* 0: do not start yet */
	volatile uint64_t rounds[MAX_PROCESSES];
};

static void connect_both(struct rdma *a, struct rdma *b)
{
	struct rdma_addr addr;

	must(rdma_open(a), "RDMA device");
	must(rdma_open(b), "RDMA device");
	rdma_address(b, &addr);
	must(rdma_connect(a, &addr), "connection");
	rdma_address(a, &addr);
	must(rdma_connect(b, &addr), "connection");
}

/* In each round the GPU changes the buffer, and RDMA fetches it. */
static void run_rounds(struct race *race, int n, enum mode mode)
{
	char *addr = map_memory(SHARE, MAP_PRIVATE, true);
	char *copy = map_memory(SHARE, MAP_PRIVATE, true);
	char *model = map_memory(SHARE, MAP_PRIVATE, true);
	struct ibv_mr *mr, *copy_mr;
	struct rdma here, there;
	uint64_t i, value = n + 1;
	int gpu = open_gpu();

	content_pattern(addr, SHARE, value);
	content_pattern(model, SHARE, value);
	memset(copy, 0, SHARE);
	if (mode != RAM)
		to_vram(gpu, addr, SHARE);
	connect_both(&here, &there);
	mr = register_mr(&here, addr, SHARE);
	copy_mr = ibv_reg_mr(there.pd, copy, SHARE, IBV_ACCESS_LOCAL_WRITE);
	must(copy_mr ? 0 : -errno, "registration");

	__sync_fetch_and_add(&race->ready, 1);
	while (!race->end)
		sched_yield();
	for (i = 0; now() < race->end; i++) {
		value *= 0x9e3779b97f4a7c15;
		operate(mode, gpu, addr, SHARE, value);
		content_xor(model, SHARE, value);
		must(rdma_read(&there, copy, copy_mr->lkey, (uintptr_t)addr,
			       mr->rkey, SHARE), "RDMA read");
		if (memcmp(copy, model, SHARE))
			errx(EXIT_FAILURE, "%s: wrong data", mode_names[mode]);
	}
	race->rounds[n] = i;
}

static void measure_processes(int processes, enum mode mode)
{
	struct race *race = mmap(NULL, sizeof(*race), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int n, status, gpu = open_gpu();
	uint64_t rounds = 0, before;
	char name[32];
	double start;

	must(race == MAP_FAILED ? -errno : 0, "memory");
	before = migrated(gpu);
	set_switch(mode);
	for (n = 0; n < processes; n++) {
		pid_t pid = fork();

		must(pid < 0 ? -errno : 0, "process");
		if (!pid) {
			run_rounds(race, n, mode);
			_exit(EXIT_SUCCESS);
		}
	}
	while (race->ready < processes) {
		if (waitpid(-1, &status, WNOHANG) > 0)
			exit(EXIT_FAILURE);
		usleep(1000);
	}

	/* The time ends when the last process has ended its last round */
	start = now();
	race->end = start + ROUNDS_S;
	while (wait(&status) > 0)
		if (status)
			exit(EXIT_FAILURE);
	start = now() - start;

	for (n = 0; n < processes; n++)
		rounds += race->rounds[n];
	check_migrated(mode, migrated(gpu) - before, rounds * SHARE);
	close(gpu);
	munmap(race, sizeof(*race));
	snprintf(name, sizeof(name), "%d", processes);
	figure("processes", name, mode_names[mode], "MiB/s",
	       (double)rounds * SHARE / MIB / start);
}

static void processes(void)
{
	int n, mode;

	for (n = 1; n <= MAX_PROCESSES; n *= 2)
		for (mode = 0; mode < NR_MODES; mode++)
			measure_processes(n, mode);
}

int main(int argc, char **argv)
{
	must(p2pdma_enabled(&was_enabled), "hmm_p2pdma/enabled");
	atexit(restore);

	if (argc == 2 && !strcmp(argv[1], "sizes"))
		sizes();
	else if (argc == 2 && !strcmp(argv[1], "ranges"))
		ranges();
	else if (argc == 2 && !strcmp(argv[1], "processes"))
		processes();
	else
		errx(EXIT_FAILURE, "usage: bench-rdma sizes | ranges | processes");
	return 0;
}
