/* SPDX-License-Identifier: GPL-2.0 */
/* Definitions for all parts of the fuzzer; see fuzz.c. */
#ifndef FUZZ_H
#define FUZZ_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#include "../linux/samples/hmm/hmm_blk.h"
#include "../linux/samples/hmm/hmm_edu.h"
#include "gpu.h"
#include "lib/size.h"

#define PROCESSES	2
#define THREADS		3
#define STEPS		24

/* Seconds after which a process that has been killed must be gone. */
#define PATIENCE	60

#define DISK		"/dev/nvme0n1"
#define DISK_END	MIB(512)
#define DISK_STRIDE	MIB(64)
#define TASK_END	((1UL << 47) - PAGE)

/* The first thread's arena, far from other mappings, and the distance of arenas. */
#define ARENA		(1UL << 44)
#define ARENA_STRIDE	(1UL << 32)

/* Regions of an arena, in this order, with an extra page before each small one. */
enum { HUGE, HUGETLB, RAM, VRAM0, VRAM1, READONLY, NO_ACCESS, HOLE, SHMEM, FILE_END,
       PRIVATE, REGIONS };

#define SMALL		(16 * PAGE)
#define ARENA_SIZE	(2 * HUGE_PAGE + (REGIONS - 2) * (PAGE + SMALL) + PAGE)
#define ARENA_PAGES	(ARENA_SIZE / PAGE)

/* Memory shared by all threads, with unknown content, and larger than VRAM. */
#define COMMON		(ARENA + THREADS * ARENA_STRIDE)
#define COMMON_SIZE	MIB(272)

/* Files */
enum { GPU0, GPU1, EDU, BLK, RW, RO, WO, SWAP, NOT_A_DISK, OF_PARENT, CLOSED, FDS };

/* Types of the fields of an argument. */
enum { FIELD_END, ADDR, SIZE, CHOICE, PAD, FD, POS };

struct field {
	const char *name;
	uint8_t type;
	uint8_t at;
	uint8_t size;
	uint8_t choices;
};

/* The calls, as their headers define them. */
enum { PREFETCH, OP, RESIDENCY, INFO, COUNTERS, COPY, IO, KINDS,
       PAGE_OUT = KINDS, DROP, PROTECT, UNMAP, FORK, STEP_KINDS };

extern const struct kind {
	const char *name;
	unsigned long cmd;
	unsigned int dev;
	size_t align;
	struct field fields[6];
	int errnos[12];
} fuzz_kinds[KINDS];

/* Room for the argument, larger than any argument. */
#define ARG_SIZE	(5 * PAGE)

enum { ARG_GOOD, ARG_NULL, ARG_KERNEL, ARG_AT_HOLE, ARG_READONLY, ARGS };

/* Addresses are those of the first thread. */
struct call {
	unsigned int kind;
	unsigned int fd;
	unsigned int arg;
	unsigned long cmd;
	union {
		struct drm_vsvm_prefetch prefetch;
		struct drm_vsvm_op op;
		struct drm_vsvm_residency residency;
		struct hmm_edu_copy copy;
		struct hmm_blk_io io;
		struct { uint64_t addr, size, how; } memory;
		uint8_t bytes[80];
	};
};

/* Shared by all processes. */
extern struct shared {
	uint64_t seed;
	uint64_t sequences;
	unsigned long calls;
	unsigned long worked[KINDS];
	pid_t failing;		/* the process that has found a violation */
	unsigned int corpus_nr;
	uint8_t seen[1 << 16];
	struct call corpus[256];
} *fuzz_shared;

/* Flags of a page in the arena */
enum { MAPPED = 1, R = 2, W = 4, ANON = 8 };

struct fuzzer {
	int fds[FDS];
	unsigned int slot;	/* of the disk */
	unsigned int thread;
	uint64_t seed;
	uint64_t rng;
	uint8_t *mem;
	uint8_t *arg;		/* ARG_SIZE bytes, and then a hole */
	uint8_t page[ARENA_PAGES];
	unsigned int steps;
	struct call calls[STEPS];
	int errs[STEPS];
};

/* May a range be accessed, or should a call work? PERHAPS if it is not known. */
enum access { NO, YES, PERHAPS };

static inline uint64_t rnd(struct fuzzer *me, uint64_t n)
{
	me->rng ^= me->rng << 13;
	me->rng ^= me->rng >> 7;
	me->rng ^= me->rng << 17;
	return (me->rng * 0x2545f4914f6cdd1dULL >> 11) % n;
}

static inline bool one_in(struct fuzzer *me, unsigned int n)
{
	return !rnd(me, n);
}

static inline uint64_t field_get(const struct call *call, const struct field *field)
{
	uint64_t value = 0;

	memcpy(&value, call->bytes + field->at, field->size);
	return value;
}

static inline void field_set(struct call *call, const struct field *field, uint64_t value)
{
	memcpy(call->bytes + field->at, &value, field->size);
}

static inline uint64_t call_size(const struct call *call)
{
	const struct field *field = fuzz_kinds[call->kind].fields;

	while (field->type && field->type != SIZE)
		field++;
	return field->type ? field_get(call, field) : 0;
}

static inline size_t region_size(unsigned int region)
{
	return region <= HUGETLB ? HUGE_PAGE : SMALL;
}

static inline size_t region_at(unsigned int region)
{
	return region <= HUGETLB ? region * HUGE_PAGE :
	       2 * HUGE_PAGE + (region - 2) * (PAGE + SMALL) + PAGE;
}

/* -1: between two regions */
static inline int region_of(size_t at)
{
	int i;

	for (i = 0; i < REGIONS; i++)
		if (at - region_at(i) < region_size(i))
			return i;
	return -1;
}

static inline uint64_t addr_at_home(struct fuzzer *me, uint64_t addr)
{
	return addr - ARENA < ARENA_STRIDE ? addr - ARENA + (uintptr_t)me->mem : addr;
}

/* fuzz.c. Does not return. */
void fuzz_fail(struct fuzzer *me, const char *format, ...)
	__attribute__((noreturn, format(printf, 2, 3)));

/* fuzz_calls.c: the calls, and how they are generated. */
void fuzz_generate(struct fuzzer *me, struct call *call);
/* Keep a call that had a new kind of result, as a base for other calls. */
void fuzz_learn(const struct call *call, int err);
void fuzz_print(const struct call *call, int err);

/* fuzz_model.c: the memory, and which calls should work on it. */
void fuzz_arena_init(struct fuzzer *me);
enum access fuzz_should_work(struct fuzzer *me, const struct call *call);
/* Check the output of a call to the right file, whether it worked or failed. */
void fuzz_call_done(struct fuzzer *me, const struct call *call, int err, enum access should);
/* Change memory by other means than an ioctl. */
void fuzz_meddle(struct fuzzer *me, const struct call *call);

#endif
