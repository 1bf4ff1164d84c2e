/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests share. Memory under test is compared with a shadow of it that
 * never leaves the heap, so that no check has to trust the thing it checks.
 * Functions return 0 or a negative errno, unless they say otherwise.
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

/* A busy machine without virtualisation takes its time; hangs are for ever. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	120

/* How much longer things take on a kernel that checks itself. */
int slowness(void);

/*
 * A fault has a second to succeed, or else ends with -EBUSY. A slow machine needs
 * more: so may try again what has taken that long, and only that. Says so.
 */
bool is_out_of_patience(int err, double start);

/* All tests have that much more time. */
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

/* Anonymous memory, aligned to huge pages, and what should be in it. */
struct buffer {
	uint8_t *mem;
	uint8_t *shadow;
	size_t size;
};

/* @advice is MADV_HUGEPAGE or MADV_NOHUGEPAGE. Nothing is populated. */
int buffer_map(struct buffer *buf, size_t size, int advice);
void buffer_unmap(struct buffer *buf);

/* Write words to memory and shadow, with the CPU; no two calls write the same. */
void buffer_write(struct buffer *buf, size_t offset, size_t size);

/*
 * Move a part to VRAM, and let the GPU change each word there: after this, VRAM
 * is the only memory that has ever held what the shadow holds. Fails with
 * -ENOSPC if part of it stayed behind. Aligned to pages.
 */
int buffer_to_vram(struct buffer *buf, int gpu, size_t offset, size_t size);

/* Let the GPU change each word, wherever the memory is; aligned to words. */
int buffer_xor(struct buffer *buf, int gpu, size_t offset, size_t size);

/* Where the first difference is; -1 if there is none. Both use the CPU. */
ssize_t differs(const void *a, const void *b, size_t size);
ssize_t buffer_differs(const struct buffer *buf);

/* The same, but the GPU looks at each page, where it is; offset of a page. */
ssize_t buffer_differs_on_gpu(const struct buffer *buf, int gpu);

/* Pages, as residency has them; ~0 on errors. */
uint64_t pages_in_vram(int gpu, const void *addr, size_t size);
uint64_t huge_pages_in_vram(int gpu, const void *addr, size_t size);

/* Those that a range touches, aligned or not, and that are in VRAM of two GPUs. */
uint64_t pages_touched_in_vram(const int *gpu, const void *addr, size_t size);

/* The pieces of 2 MiB, each an allocation, that it touches there. */
uint64_t chunks_touched_in_vram(const int *gpu, const void *addr, size_t size);

/* Pages of other GPUs' memory that this one reaches; ~0 on errors. */
uint64_t pages_in_reach(int gpu, const void *addr, size_t size);

/* How many pages the GPU has moved to RAM since it was probed; ~0 on errors. */
uint64_t pages_evicted(int gpu);

/* In bytes; ~0 on errors. */
uint64_t vram_free(int gpu);
/* Wait for so much to be free, for some seconds. Returns what is missing. */
uint64_t vram_leaked(int gpu, uint64_t expected);

/* GPUs 0 and 1, and what is free of their VRAM. Returns how much of it is missing. */
int gpus_open(int gpu[2], uint64_t room[2]);
uint64_t gpus_close(const int gpu[2], const uint64_t room[2]);

/* Take all of VRAM for a buffer; -ENOSPC if not all was free. */
int vram_fill(int gpu, struct buffer *all, int advice);

/* What /proc/self/pagemap knows of a page: in RAM, or in swap or a device. */
bool page_is_present(const void *addr);
bool page_is_elsewhere(const void *addr);

/* To swap space, or at least on the way. -EBUSY: something keeps them. */
int pages_out(uint8_t *mem, size_t size);

/*
 * Memory whose pages do not come, as those of a file system whose daemon takes its
 * time: who touches them sleeps until held_release(), and then has zeroes there.
 */
struct held {
	int uffd;
	uint8_t *mem;
	size_t size;
};

int held_map(struct held *held, size_t size);
/* Somebody is asleep over a page, and where; -ETIMEDOUT. For each page once. */
int held_wait(struct held *held, void **addr);
int held_release(struct held *held);
void held_unmap(struct held *held);

/* What is in a file of the kernel, or behind "@name" in it; ~0 on errors. */
uint64_t number_read(const char *path);
uint64_t field_read(const char *path, const char *name);

/* How many pieces of memory for each CPU the kernel has; ~0 on errors. */
uint64_t percpu_allocations(void);

/* A counter of /sys/kernel/mm/hmm_p2pdma/stats; ~0 on errors. */
uint64_t stat_read(const char *name);
int aliases_enable(bool enable);

/* Does all that is mapped for DMA go through bounce buffers, as with swiotlb=force? */
bool dma_bounces(void);

/*
 * The counter of the route by which a device finds the VRAM of a GPU, which is
 * TOPOLOGY's to say; NULL if it is out of its reach.
 */
const char *alias_route(void);
bool reachable(void);

/* Pages of both sizes whose aliases are in a window, or are found by a callback. */
#define VARIANTS_OF_ALIASES(_fixture, _params, ...)			\
	VARIANT_OF_ALIASES(_fixture, pages, MADV_NOHUGEPAGE, _params, ##__VA_ARGS__); \
	VARIANT_OF_ALIASES(_fixture, huge, MADV_HUGEPAGE, _params, ##__VA_ARGS__); \
	VARIANT_OF_ALIASES(_fixture, callback_pages, MADV_NOHUGEPAGE,	\
			   _params " use_callback=1", ##__VA_ARGS__);	\
	VARIANT_OF_ALIASES(_fixture, callback_huge, MADV_HUGEPAGE,	\
			   _params " use_callback=1", ##__VA_ARGS__)

#define VARIANT_OF_ALIASES(_fixture, _name, _advice, _params, ...)	\
	FIXTURE_VARIANT_ADD(_fixture, _name) {				\
		.advice = _advice,					\
		.params = _params,					\
		__VA_ARGS__						\
	}

/* The counter of those that have none, with such parameters of vsvm's. */
const char *reason_outside(const char *params);

/*
 * All that is counted of two GPUs' pages, to see what a request does to them. Of
 * @reached pages in VRAM that stay there, each moves @counter by one, and nothing
 * else moves. Otherwise @counter says why they have migrated, @least times, as the
 * first page that is wanted takes all of its allocation with it, to @most.
 */
#define COUNTERS_NR	9

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

/* Nobody uses vsvm, or not for much longer. */
int vsvm_unload(void);
/* Load it, anew if it is loaded, with parameters. */
int vsvm_reload(const char *params);
/* The same, unless it has just these already. */
int vsvm_load(const char *params);
/* As it was, or nearly; for atexit(). */
void vsvm_restore(void);

/* Two connected sides, of which @near makes the requests. */
struct link {
	struct rdma near;
	struct rdma far;
};

int link_up(struct link *link);
void link_down(struct link *link);
/* After a request that failed. MRs stay. */
int link_revive(struct link *link);
/* Its parts: a QP has failed, or is about to; and it is ready to be connected. */
void qp_wait_for_error(struct ibv_qp *qp, int ms);
int qp_restart(struct ibv_qp *qp);

/* A request for eight bytes of a peer's page that does not come. */
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
/* The page comes. Returns the request's status; -1 if it is another's, or does not end. */
int waiting_end(struct waiting *waiting);
void waiting_fini(struct waiting *waiting);

/*
 * What most tests need: memory of a process that can go to GPU 0, with an MR of
 * the far side over it, and memory in RAM to transfer from and to, with an MR
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
/* ... and all of it is in VRAM, by huge pages if so advised, and registered. */
int bench_init_in_vram(struct bench *bench, size_t size, int advice);
/* Returns how much VRAM is still in use that was free before. */
uint64_t bench_fini(struct bench *bench);
/* Register the memory only now, or once more. */
int bench_register(struct bench *bench);

/* Transfer a part of @buf to or from the same place of @ram. */
int bench_read(struct bench *bench, size_t offset, size_t size);
int bench_write(struct bench *bench, size_t offset, size_t size);
/* Write a new pattern with RDMA; the shadow of @buf follows. */
int bench_write_new(struct bench *bench, size_t offset, size_t size);
/*
 * Add to a word with RDMA; the shadow follows. -EILSEQ if the word was not what
 * it should be.
 */
int bench_add(struct bench *bench, size_t offset, uint64_t add);
/* Have the RDMA device make pages ready to be read, or written too. */
int bench_prefetch(struct bench *bench, size_t offset, size_t size, int write);
/* Read all with RDMA, and compare with the shadow; -2 if that failed. */
ssize_t bench_differs(struct bench *bench);

/*
 * A thread that does something, round after round, until told to stop or until
 * it fails.
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
/* Returns what the last round did. */
int worker_stop(struct worker *worker);

/* Another process has set a variable that is shared with it; -ETIMEDOUT. */
int wait_until(const volatile int *var, int value);

/*
 * A child that does one thing when told, and stays until it is told to go. What
 * it does returns 0 on success. It never returns to the test.
 */
struct child {
	pid_t pid;
	int sock;
};

int child_fork(struct child *child, int (*fn)(void *arg), void *arg);
/* Returns what the function did; -EPIPE if the child died. */
int child_do(struct child *child);
/* The same in two steps. */
int child_start(struct child *child);
int child_result(struct child *child);
int child_end(struct child *child);

#endif
