/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers for all tests. Memory under test is compared with a shadow of it on the
 * heap, which never migrates, so that no check relies on the code that it checks.
 * Functions return 0 or a negative errno, unless their comment says otherwise.
 */
#ifndef COMMON_H
#define COMMON_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "gpu.h"
#include "rdma.h"

#define KIB(n)		((size_t)(n) << 10)
#define MIB(n)		((size_t)(n) << 20)
#define PAGE		KIB(4)
#define HUGE_PAGE	MIB(2)
#define HUGE_PAGE_NR	(HUGE_PAGE / PAGE)

/* A busy machine without virtualisation is slow: only a hang takes this long. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	120

/* The factor by which a kernel that checks itself is slower. */
int slowness(void);

/*
 * A fault fails with -EBUSY if it does not succeed within a second. On a slow machine
 * the caller may retry a call that took that long, and no other. Prints a message.
 */
bool is_out_of_patience(int err, double start);

/* Scale the timeouts of all tests. */
#define test_harness_run(argc, argv)	(scale_timeouts(), test_harness_run(argc, argv))
#define scale_timeouts() ({						\
	struct __fixture_metadata *_f;					\
	struct __test_metadata *_t;					\
									\
	for (_f = __fixture_list; _f; _f = _f->next)			\
		for (_t = _f->tests; _t; _t = _t->next)			\
			_t->timeout *= slowness();			\
})

#define ARRAY_LEN(a)	(sizeof(a) / sizeof((a)[0]))

/* Anonymous memory, aligned to huge pages, and its expected content. */
struct buffer {
	uint8_t *mem;
	uint8_t *shadow;
	size_t size;
};

/* @advice is MADV_HUGEPAGE or MADV_NOHUGEPAGE. Nothing is populated. */
int buffer_map(struct buffer *buf, size_t size, int advice);
void buffer_unmap(struct buffer *buf);

/* Write words to memory and shadow, with the CPU. Each call writes different words. */
void buffer_write(struct buffer *buf, size_t offset, size_t size);

/*
 * Move a part to VRAM, and let the GPU change each word there: apart from the
 * shadow, only VRAM has ever held the new content. Fails with -ENOSPC if some pages
 * do not migrate. Aligned to pages.
 */
int buffer_to_vram(struct buffer *buf, int gpu, size_t offset, size_t size);

/* Let the GPU change each word, wherever the memory is. Aligned to words. */
int buffer_xor(struct buffer *buf, int gpu, size_t offset, size_t size);

/* Return the offset of the first difference; -1 if there is none. Both use the CPU. */
ssize_t differs(const void *a, const void *b, size_t size);
ssize_t buffer_differs(const struct buffer *buf);

/* The same, but the GPU reads each page, where it is. Returns the offset of a page. */
ssize_t buffer_differs_on_gpu(const struct buffer *buf, int gpu);

/* Numbers of pages, from gpu_residency(); ~0 on errors. */
uint64_t pages_in_vram(int gpu, const void *addr, size_t size);
uint64_t huge_pages_in_vram(int gpu, const void *addr, size_t size);

/* Pages in VRAM of either GPU that a range touches; the range need not be aligned. */
uint64_t pages_touched_in_vram(const int *gpu, const void *addr, size_t size);

/* Allocations of 2 MiB in VRAM of either GPU that a range touches. */
uint64_t chunks_touched_in_vram(const int *gpu, const void *addr, size_t size);

/* Pages in the memory of other GPUs that this GPU reaches over PCI; ~0 on errors. */
uint64_t pages_in_reach(int gpu, const void *addr, size_t size);

/* How many pages the GPU has moved to RAM since it was probed; ~0 on errors. */
uint64_t pages_evicted(int gpu);

/* Free VRAM in bytes; ~0 on errors. */
uint64_t vram_free(int gpu);
/* Wait some seconds until @expected bytes are free. Returns how many are missing. */
uint64_t vram_leaked(int gpu, uint64_t expected);

/* GPUs 0 and 1, and their free VRAM. gpus_close() returns how much of it is missing. */
int gpus_open(int gpu[2], uint64_t room[2]);
uint64_t gpus_close(const int gpu[2], const uint64_t room[2]);

/* Take all of VRAM for a buffer; -ENOSPC if not all was free. */
int vram_fill(int gpu, struct buffer *all, int advice);

/* The state of a page in /proc/self/pagemap: in RAM, or in swap space or a device. */
bool page_is_present(const void *addr);
bool page_is_elsewhere(const void *addr);

/* Swap pages out, or at least begin to. -EBUSY: some pages cannot be swapped out. */
int pages_out(uint8_t *mem, size_t size);

/*
 * Memory whose pages are not provided yet, like those of a file system with a slow
 * daemon: an access sleeps until held_release(), and then finds zeroes.
 */
struct held {
	int uffd;
	uint8_t *mem;
	size_t size;
};

int held_map(struct held *held, size_t size);
/*
 * Wait until a thread has faulted on a page that is not there yet, and say which page.
 * -ETIMEDOUT if none does. Reports each page once.
 */
int held_wait(struct held *held, void **addr);
int held_release(struct held *held);
void held_unmap(struct held *held);

/* The number in a file of the kernel, or the number after @name in it; ~0 on errors. */
uint64_t number_read(const char *path);
uint64_t field_read(const char *path, const char *name);

/* The number of per-CPU allocations in the kernel; ~0 on errors. */
uint64_t percpu_allocations(void);

/* A counter of /sys/kernel/debug/hmm_p2pdma/stats; ~0 on errors. */
uint64_t stat_read(const char *name);
int aliases_enable(bool enable);

/* Do devices reach each other by this route of lab/topologies? */
bool lab_route_is(const char *route);

/* Does all memory mapped for DMA go through bounce buffers, as with swiotlb=force? */
bool dma_bounces(void);

/*
 * The counter of the route from a device to the VRAM of a GPU, which depends on
 * TOPOLOGY; NULL if the device cannot reach it.
 */
const char *alias_route(void);
bool reachable(void);

/*
 * All counters of the pages of two GPUs, to see what a request does to them. If
 * @_stay, the @_reached pages in VRAM stay there, each of them adds one to @_counter,
 * and no other counter changes. Otherwise they migrate, and @_counter is the reason:
 * it grows by @_least to @_most only, because the first page that the request needs
 * takes its whole allocation with it.
 */
#define COUNTERS_NR	8

extern const char * const counters[COUNTERS_NR];

struct tally {
	uint64_t evicted;
	uint64_t count[COUNTERS_NR];
};

struct tally tally_read(const int *gpu);

#define EXPECT_TALLY(_before, _after, _reached, _least, _most, _stay, _counter) do { \
	unsigned int _i;						\
									\
	for (_i = 0; _i < COUNTERS_NR; _i++) {				\
		uint64_t _moved = (_after).count[_i] - (_before).count[_i]; \
		uint64_t _lo = (_stay) ? (_reached) : (_least);		\
		uint64_t _hi = (_stay) ? (_reached) : (_most);		\
		uint64_t _want = _moved < _lo ? _lo : _moved > _hi ? _hi : _moved; \
									\
		if (strcmp(counters[_i], _counter))			\
			_want = 0;					\
		EXPECT_EQ(_want, _moved)				\
			TH_LOG("%s", counters[_i]);			\
	}								\
	if (_stay) {							\
		EXPECT_EQ((_before).evicted, (_after).evicted);		\
	} else {							\
		EXPECT_LE((_before).evicted + (_reached), (_after).evicted); \
	}								\
} while (0)

/* One write to a file of proc or sysfs. */
int file_write(const char *path, const char *text);

/* The last users of vsvm must be gone, or about to go. */
int vsvm_unload(void);
/* Load vsvm with parameters; unload it first if it is loaded. */
int vsvm_reload(const char *params);
/* The same, unless it is loaded with these parameters already. */
int vsvm_load(const char *params);
/* Load vsvm with its default parameters again; for atexit(). */
void vsvm_restore(void);

/* Two connected sides, of which @near makes the requests. */
struct link {
	struct rdma near;
	struct rdma far;
};

int link_up(struct link *link);
void link_down(struct link *link);
/* Connect again after a request that failed. MRs stay valid. */
int link_revive(struct link *link);
/* Its parts: wait for a QP that fails, and make it ready to be connected. */
void qp_wait_for_error(struct ibv_qp *qp, int ms);
int qp_restart(struct ibv_qp *qp);

/* A request for eight bytes of a peer's page that is not provided until waiting_end(). */
struct waiting {
	struct link link;
	struct held held;
	struct ibv_mr *mr;
	struct ibv_mr *ram_mr;
	uint64_t data;
	uint64_t id;
};

/* @opcode: of a read, or of an atomic. */
int waiting_init(struct waiting *waiting, enum ibv_wr_opcode opcode, uint64_t id);
/* Provide the page. Returns the request's status; -1 if another or none completes. */
int waiting_end(struct waiting *waiting);
void waiting_fini(struct waiting *waiting);

/*
 * A setup for most tests: memory of a process that can migrate to GPU 0, with an MR
 * of the far side over it, and memory in RAM to transfer from and to, with an MR
 * of the near side.
 */
struct bench {
	int gpu;
	uint64_t vram_free;
	struct link link;
	struct buffer buf;
	struct buffer ram;
	struct ibv_mr *mr;
	struct ibv_mr *ram_mr;
};

int bench_init(struct bench *bench, size_t size, int advice);
/* The same, with all of @buf registered and in VRAM, in huge pages if so advised. */
int bench_init_in_vram(struct bench *bench, size_t size, int advice);
/* Returns how much VRAM is still in use that was free before. */
uint64_t bench_fini(struct bench *bench);
/* Register @buf, or register it again. */
int bench_register(struct bench *bench);

/* Transfer a part of @buf to or from the same place of @ram. */
int bench_read(struct bench *bench, size_t offset, size_t size);
int bench_write(struct bench *bench, size_t offset, size_t size);
/* Write a new pattern with RDMA, and update the shadow of @buf. */
int bench_write_new(struct bench *bench, size_t offset, size_t size);
/*
 * Add to a word with RDMA, and update the shadow. -EILSEQ if the old value was
 * wrong.
 */
int bench_add(struct bench *bench, size_t offset, uint64_t add);
/* Prefetch pages for the RDMA device, for reading or for writing. */
int bench_prefetch(struct bench *bench, size_t offset, size_t size, int write);
/* Read all of @buf with RDMA, and compare with the shadow; -2 if the read failed. */
ssize_t bench_differs(struct bench *bench);

/*
 * A thread that does round after round, until it is told to stop or a round
 * fails.
 */
struct worker {
	struct bench *bench;
	int gpu;
	int (*round)(struct worker *worker);
	pthread_t thread;
	volatile bool stop;
	volatile unsigned long rounds;
	volatile int err;
};

int worker_start(struct worker *worker, int (*round)(struct worker *worker));
/* Returns the result of the last round. */
int worker_stop(struct worker *worker);

/* Wait until another process sets a shared variable to @value; -ETIMEDOUT. */
int wait_until(const volatile int *var, int value);

/*
 * A child that calls a function when told to, and stays until it is told to exit.
 * The function returns 0 on success. The child never returns to the test.
 */
struct child {
	pid_t pid;
	int sock;
};

int child_fork(struct child *child, int (*fn)(void *arg), void *arg);
/* Returns the result of the function; -EPIPE if the child died. */
int child_do(struct child *child);
/* The same in two steps. */
int child_start(struct child *child);
int child_result(struct child *child);
int child_end(struct child *child);

#endif
