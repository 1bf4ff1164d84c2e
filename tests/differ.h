/* SPDX-License-Identifier: GPL-2.0 */
/* Definitions for all parts of the differential fuzzer; see differ.c. */
#ifndef DIFFER_H
#define DIFFER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "rdma.h"
#include "lib/size.h"

#define PROCS		2
#define MAX_OPS		64
/* At the end, each process looks at all of its regions. */
#define MAX_STEPS	(MAX_OPS + PROCS * REGIONS)

/*
 * Both processes have their memory at the same addresses: the second one is a
 * child of the first. Operations use the first pages of each region.
 */
enum region { HUGE, SMALL, HUGETLB, SHARED, PRIVATE, READONLY, SECRET, REGIONS };

#define ARENA		(1UL << 44)
#define STRIDE		MIB(4)
#define HOT_PAGES	64
#define HOT		(HOT_PAGES * PAGE)
#define AWAY		(REGIONS * STRIDE)
#define SCRATCH		(2 * AWAY)
#define SPAN		(SCRATCH + HOT)

/* @at and @from are offsets into the arena. */
struct op {
	uint8_t kind;
	uint8_t who;
	uint8_t arg;
	uint32_t at;
	uint32_t size;
	uint32_t from;
	uint64_t value;
};

/* Faults that userfaultfd reports. In a mask, each bit is a hot page of a region. */
enum event { MISSING, WP, RWP, MINOR, EVENTS };

struct result {
	int err;
	int status;		/* of a work request */
	unsigned int layout;	/* mask of events about the address space */
	const char *wrong;	/* what is wrong in any mode */
	uint64_t data;		/* a hash of the data that was read */
	uint64_t report;	/* pages reported as dirty, or accessed */
	uint64_t events[REGIONS][EVENTS];
};

/* Trackers of dirty pages. */
enum { SOFT_DIRTY, SCAN, TRACKERS };

/* Shared by the processes and their parent, which tells them what to do. */
extern struct stage {
	struct op op;
	struct result result;
	struct rdma_addr addr[PROCS][2];	/* of near and far */
	uint32_t rkey[PROCS];
	pid_t pid[PROCS];
	int files[REGIONS];
	uint64_t wrote[PROCS][TRACKERS][REGIONS];
	uint64_t armed[PROCS][REGIONS];		/* by PAGEMAP_SCAN */
	uint64_t freed[PROCS][REGIONS];		/* by MADV_FREE, and perhaps gone */
	uint64_t retries;			/* of calls that failed with -EBUSY */
} *stage;

struct kind {
	const char *name;
	unsigned int weight;
	unsigned int regions;		/* a mask of the regions that it is used on */
	unsigned int align;
	unsigned int most;		/* bytes */
	int (*fn)(const struct op *op, struct result *result);
	bool device;			/* it may not access secret memory */
	bool from;			/* it sometimes has a source in the arena */
	unsigned int args;
	bool remote;			/* @at is the other process's memory */
};

enum { K_LOOK, K_TO_VRAM, K_FORK, K_SEND };
extern const struct kind differ_kinds[];
extern const unsigned int differ_kinds_nr;

static inline size_t region_size(enum region region)
{
	return region == HUGE || region == HUGETLB ? HUGE_PAGE : HOT;
}

void differ_print(const struct op *op, const struct result *result);

/* Commands to a process; OPERATE has it do its operation. */
enum tell { PREPARE = 'a', OPERATE, FINISH, WAIT_FOR_ERROR, CONNECT, SPAWN, QUIT };

/* The first process, which forks the second one. Neither of them returns. */
void differ_host(int (*pipes)[4]) __attribute__((noreturn));
void differ_pattern(void *buf, size_t size, uint64_t value);

#endif
