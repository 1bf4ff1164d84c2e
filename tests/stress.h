/* SPDX-License-Identifier: GPL-2.0 */
/* The stress test: stress.c describes it, stress_ops.c has its operations. */
#ifndef STRESS_H
#define STRESS_H

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/conn.h"
#include "lib/leaks.h"
#include "lib/pci.h"
#include "lib/size.h"
#include "lib/words.h"

#define HOSTS		3
#define ACTORS		4
#define NEIGHBOUR	(ACTORS - 1)	/* the actor of another process */

/*
 * In a large region more can be torn apart; in a small one, more happens to each
 * page. Some lose their contents now and then.
 */
struct region {
	size_t size;
	size_t unit;
	bool wiped;
};

#define REGIONS		6
#define ARENA		(REGIONS * HUGE_PAGE)
#define LARGEST_UNIT	KIB(64)

/* Most operations work on the first pages of a region. */
#define HOT		KIB(64)

#define MAX_GPUS	4
enum device { EDU = MAX_GPUS, NVME, RXE, CPU, COLLAPSE, NR_DEVICES };

/* The kinds of operations that are counted. */
#define KINDS								\
	KIND(write_cpu) KIND(write_gpu) KIND(copy_to_gpu) KIND(write_rdma) \
	KIND(add_rdma) KIND(swap_rdma) KIND(write_edu) KIND(read_disk)	\
	KIND(write_other) KIND(look_cpu) KIND(sum_gpu) KIND(copy_from_gpu) \
	KIND(look_rdma) KIND(look_edu) KIND(write_disk) KIND(look_other) \
	KIND(to_vram) KIND(to_ram) KIND(prefetch) KIND(residency)	\
	KIND(pageout) KIND(cold) KIND(willneed) KIND(hugepage)		\
	KIND(nohugepage) KIND(collapse) KIND(split) KIND(protect)	\
	KIND(remap) KIND(unmap) KIND(dontneed) KIND(lazyfree) KIND(child) \
	KIND(reregister) KIND(links) KIND(off_switch) KIND(pressure)	\
	KIND(unbind_gpu) KIND(unbind_edu) KIND(unbind_nvme) KIND(delete_rxe) \
	KIND(reset_gpu)

#define KIND(name) K_##name,
enum kind { KINDS NR_KINDS };
#undef KIND

/*
 * Data that all processes share. Sequence numbers are odd during a change: @remap_seq:
 * a region's mapping changes; @wiped: its contents get lost; @away: a device is gone;
 * @pressure: memory is short.
 */
struct shared {
	bool stop;
	unsigned int corrupt;
	unsigned int wrong;	/* errors that are not allowed */
	unsigned int hung;
	unsigned int ready;
	unsigned int verified;
	pid_t pid[HOSTS];
	uint32_t remap_seq[HOSTS][REGIONS];
	uint32_t wiped[HOSTS][REGIONS];
	uint32_t away[NR_DEVICES];
	uint32_t pressure;
	unsigned long done[NR_KINDS];
	unsigned long excused[NR_KINDS];
	unsigned long refused[NR_KINDS];
	unsigned long looked;	/* units checked by children */
	char pci[NR_DEVICES][PCI_ADDR_LEN];
	unsigned int gpus;
	unsigned int seed;
	struct figures before;
};

#define load(p)		__atomic_load_n(p, __ATOMIC_SEQ_CST)
#define bump(p)		__atomic_add_fetch(p, 1, __ATOMIC_SEQ_CST)

/* A unit, as its actor has left it. */
struct unit {
	uint32_t gen;
	uint32_t wiped;		/* the region's number when it was written */
	bool doubt;		/* may be of this generation or the one before */
};

struct actor {
	unsigned int host;	/* whose memory it works on */
	unsigned int index;
	unsigned int seed;
	pthread_t thread;
	struct unit *units[REGIONS];
	uint8_t *ram;		/* scratch */
	int mem;		/* /proc/PID/mem of another process, or -1 */
	int blk;
	int fd[NR_DEVICES];
	uint32_t opened[NR_DEVICES];	/* @away when it was opened */
	pthread_mutex_t mr_lock;	/* other threads may register it again */
	struct conn conn;
	struct ibv_mr *mr;
	struct ibv_mr *ram_mr;
	uint32_t rkey;
};

/* The target of an operation. */
struct target {
	unsigned int region;
	unsigned int index;	/* of the unit */
	enum device device;
	int advice;
	uint8_t *mem;
	size_t size;
	struct words now;
	struct words next;
};

/* The sequence numbers when an operation began. */
struct state {
	uint32_t remap_seq;
	uint32_t wiped;
	uint32_t pressure;
};

/*
 * An operation's object: a unit, pages, the mapping; and how often it is chosen.
 * DISTURB is for devices, links and free memory: other processes change these.
 */
enum class { DISTURB, WRITE, READ, PAGES, SHAPE, WIPE };

struct operation {
	enum class class;
	unsigned int weight;
	int (*fn)(struct actor *a, struct target *t);
	bool small;		/* takes long for large units */
	int advice;		/* for advise() */
};

extern const struct region regions[REGIONS];
extern const char * const kind_names[NR_KINDS];
extern const struct operation operations[NR_KINDS];
extern struct shared *shared;
extern unsigned int me;		/* the host */
extern struct actor actors[ACTORS];

uint8_t *arena(unsigned int host);
uint8_t *region_mem(unsigned int host, unsigned int region);
struct words unit_words(const struct actor *a, unsigned int region,
			unsigned int index, uint32_t gen);
unsigned int chance(struct actor *a, unsigned int n);

/*
 * Note the present state. Has it changed since, or is it changing? May an operation
 * by a device fail with this error, then?
 */
struct state look_around(const struct actor *a, unsigned int region);
bool changed(uint32_t before, uint32_t now);
bool is_allowed(const struct actor *a, enum device device,
		const struct target *t, const struct state *before, int err);

/*
 * Count a result, and print an error that is not allowed. A failure is excused if
 * its target changed during the operation: how often that is depends on the machine.
 */
void count(enum kind kind, int err);
void judge(const struct actor *a, enum kind kind, const struct target *t,
	   const struct state *before, int err);
void complain(const struct actor *a, enum kind kind,
	      const struct target *t, int err);
bool check(const uint64_t *found, const struct words *words,
	   uint32_t oldest, bool zero, const void *addr, const char *how);

/*
 * CPU accesses. An access to a region whose mapping is being changed waits in a
 * signal handler until the mapping is there again.
 */
void wait_for_mapping(int sig, siginfo_t *info, void *context);
int unit_peek(struct actor *a, const struct target *t, void *buf);
int unit_poke(struct actor *a, const struct target *t,
	      const struct words *words);
int look_cpu(struct actor *a, struct target *t);

/* Returns a file descriptor; -ENODEV while the device is away. */
int device_get(struct actor *a, enum device device);
void device_close(struct actor *a, enum device device);
enum device any_gpu(struct actor *a);

/* In stress.c */
int child(struct actor *a, struct target *t);

#endif
