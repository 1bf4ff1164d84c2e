// SPDX-License-Identifier: GPL-2.0
/*
 * The operations of the stress test. allowed_errors[] says how they may fail, and why;
 * the table of operations is at the end.
 */
#include <errno.h>
#include <linux/mman.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gpu.h"
#include "stress.h"
#include "lib/disk.h"
#include "lib/edu.h"
#include "lib/file.h"

const struct region regions[REGIONS] = {
	{ HUGE_PAGE, KIB(1), false },
	{ HUGE_PAGE, KIB(64), false },
	{ HUGE_PAGE, KIB(1), true },
	{ KIB(64), KIB(1), false },
	{ KIB(64), KIB(4), false },
	{ KIB(64), KIB(1), true },
};

#define KIND(name) #name,
const char * const kind_names[NR_KINDS] = { KINDS };
#undef KIND

struct shared *shared;
unsigned int me;
struct actor actors[ACTORS];

static __thread unsigned int segv_tries;

uint8_t *arena(unsigned int host)
{
	/* Nothing else is ever mapped here, as long as there is room above */
	return (uint8_t *)(0x100000000000UL + host * 0x10000000000UL);
}

uint8_t *region_mem(unsigned int host, unsigned int region)
{
	return arena(host) + region * HUGE_PAGE;
}

unsigned int chance(struct actor *a, unsigned int n)
{
	return rand_r(&a->seed) / 7 % n;
}

static uint16_t writer_id(const struct actor *a)
{
	return (a->host + 1) << 8 | a->index;
}

struct words unit_words(const struct actor *a, unsigned int region,
			unsigned int index, uint32_t gen)
{
	return (struct words) {
		.addr = (region * HUGE_PAGE + index * regions[region].unit) / 8 + 1,
		.gen = gen,
		.writer = writer_id(a),
		.n = regions[region].unit / 8,
	};
}

/*
 * The errors of operations by a device, in three cases: at any time; if the mapping
 * of the region changed during the operation; if the device was removed.
 */
static const struct {
	int always[4];
	int remapped[4];
	int gone[6];
} allowed_errors[] = {
	/* Other threads keep changing the page tables; see vsvm_drm.h */
	[0 ... MAX_GPUS - 1] = {
		.always = { EBUSY },
		.remapped = { EFAULT, EACCES },
		.gone = { ENODEV },
	},
	[EDU] = {
		.always = { EBUSY },
		.remapped = { EFAULT, EPERM },
		.gone = { ENODEV },
	},
	/* A request under way ends with an I/O error, or in part */
	[NVME] = {
		.always = { EBUSY },
		.remapped = { EFAULT, ENODATA },
		.gone = { ENODEV, EIO, ENODATA },
	},
	/*
	 * EREMOTEIO: a fault failed, perhaps because other threads keep changing the
	 * page tables. EAGAIN: there is no MR at present
	 */
	[RXE] = {
		.always = { EREMOTEIO, EAGAIN, EBUSY },
		.remapped = { EFAULT, EPERM },
		.gone = { ENODEV, EIO, EINVAL, ENOSYS, EADDRNOTAVAIL, ETIMEDOUT },
	},
	/* madvise() and its like; files of /proc and debugfs */
	[CPU] = {
		.always = { EAGAIN, EBUSY },
		.remapped = { ENOMEM, EFAULT, EIO },
	},
	/* See madvise_collapse_errno() */
	[COLLAPSE] = {
		.always = { EAGAIN, EBUSY, EINVAL, ENOMEM },
	},
};

struct state look_around(const struct actor *a, unsigned int region)
{
	return (struct state) {
		.remap_seq = load(&shared->remap_seq[a->host][region]),
		.wiped = load(&shared->wiped[a->host][region]),
		.pressure = load(&shared->pressure),
	};
}

bool changed(uint32_t before, uint32_t now)
{
	return before != now || now & 1;
}

static bool is_among(const int *errs, size_t n, int err)
{
	while (n--)
		if (errs[n] && errs[n] == -err)
			return true;
	return false;
}

#define IS_AMONG(errs, err)	is_among(errs, ARRAY_LEN(errs), err)

bool is_allowed(const struct actor *a, enum device device,
		const struct target *t, const struct state *before, int err)
{
	struct state now = look_around(a, t->region);

	if (IS_AMONG(allowed_errors[device].always, err))
		return true;
	if (changed(before->remap_seq, now.remap_seq) &&
	    IS_AMONG(allowed_errors[device].remapped, err))
		return true;
	if (changed(a->opened[device], load(&shared->away[device])) &&
	    IS_AMONG(allowed_errors[device].gone, err))
		return true;
	return err == -ENOMEM && changed(before->pressure, now.pressure);
}

void count(enum kind kind, int err)
{
	bump(err ? &shared->refused[kind] : &shared->done[kind]);
}

void complain(const struct actor *a, enum kind kind,
	      const struct target *t, int err)
{
	if (bump(&shared->wrong) <= 20)
		printf("# host %u, actor %u: %s: %s; region %u, %p, %zu bytes, device %d\n",
		       a->host, a->index, kind_names[kind], strerror(-err),
		       t->region, t->mem, t->size, t->device);
}

void judge(const struct actor *a, enum kind kind, const struct target *t,
	   const struct state *before, int err)
{
	struct state now = look_around(a, t->region);

	if (err && (changed(before->remap_seq, now.remap_seq) ||
		    changed(before->pressure, now.pressure) ||
		    changed(a->opened[t->device], load(&shared->away[t->device]))))
		bump(&shared->excused[kind]);
	else
		count(kind, err);
	if (err && !is_allowed(a, t->device, t, before, err))
		complain(a, kind, t, err);
}

bool check(const uint64_t *found, const struct words *words,
	   uint32_t oldest, bool zero, const void *addr, const char *how)
{
	if (words_check(found, words, oldest, zero, addr, how))
		return true;
	if (bump(&shared->corrupt) >= 10)
		shared->stop = true;
	return false;
}

void wait_for_mapping(int sig, siginfo_t *info, void *context)
{
	size_t offset = (uint8_t *)info->si_addr - arena(me);

	(void)context;
	if (offset >= ARENA ||
	    (!(load(&shared->remap_seq[me][offset / HUGE_PAGE]) & 1) &&
	     ++segv_tries > 1000)) {
		signal(sig, SIG_DFL);
		return;
	}
	usleep(1000);
}

int unit_peek(struct actor *a, const struct target *t, void *buf)
{
	ssize_t n;

	segv_tries = 0;
	if (a->mem < 0) {
		memcpy(buf, t->mem, t->size);
		return 0;
	}
	n = pread(a->mem, buf, t->size, (uintptr_t)t->mem);
	return n == (ssize_t)t->size ? 0 : n < 0 ? -errno : -EIO;
}

int unit_poke(struct actor *a, const struct target *t,
	      const struct words *words)
{
	ssize_t n;

	segv_tries = 0;
	if (a->mem < 0) {
		words_fill((uint64_t *)t->mem, words);
		return 0;
	}
	words_fill((uint64_t *)a->ram, words);
	n = pwrite(a->mem, a->ram, t->size, (uintptr_t)t->mem);
	return n == (ssize_t)t->size ? 0 : n < 0 ? -errno : -EIO;
}

/* Devices */

static void rdma_fini(struct actor *a)
{
	pthread_mutex_lock(&a->mr_lock);
	if (a->mr)
		ibv_dereg_mr(a->mr);
	if (a->ram_mr)
		ibv_dereg_mr(a->ram_mr);
	a->mr = a->ram_mr = NULL;
	conn_down(&a->conn);
	pthread_mutex_unlock(&a->mr_lock);
}

/* With the lock held. Returns 0 or a negative errno. */
static int rdma_register(struct actor *a)
{
	a->mr = rdma_reg_odp(&a->conn.far, arena(a->host), ARENA);
	if (!a->mr)
		return -errno;
	__atomic_store_n(&a->rkey, a->mr->rkey, __ATOMIC_SEQ_CST);
	return 0;
}

static int rdma_init(struct actor *a)
{
	int err = conn_up(&a->conn);

	if (err)
		return err;
	pthread_mutex_lock(&a->mr_lock);
	err = rdma_register(a);
	a->ram_mr = rdma_reg_odp(&a->conn.near, a->ram, LARGEST_UNIT);
	if (!a->ram_mr && !err)
		err = -errno;
	pthread_mutex_unlock(&a->mr_lock);
	if (err)
		rdma_fini(a);
	return err;
}

void device_close(struct actor *a, enum device device)
{
	if (a->fd[device] < 0)
		return;
	if (device == RXE)
		rdma_fini(a);
	else
		close(a->fd[device]);
	a->fd[device] = -1;
}

int device_get(struct actor *a, enum device device)
{
	uint32_t now = load(&shared->away[device]);
	int fd;

	if (a->fd[device] >= 0 && a->opened[device] == now)
		return a->fd[device];
	device_close(a, device);
	a->opened[device] = now;
	if (now & 1)
		return -ENODEV;
	switch (device) {
	case EDU:
		fd = edu_open();
		break;
	case NVME:
		fd = disk_open();
		break;
	case RXE:
		fd = rdma_init(a);
		break;
	default:
		fd = gpu_open_at(shared->pci[device]);
	}
	a->fd[device] = fd;
	return fd;
}

enum device any_gpu(struct actor *a)
{
	return chance(a, shared->gpus);
}

/* An RDMA connection has to be revived, or closed, after an error. */
static int rdma_done(struct actor *a, int err)
{
	if (err && (err != -EREMOTEIO || conn_revive(&a->conn)))
		device_close(a, RXE);
	return err;
}

/*
 * Writers: bring a unit to its next generation. They return 0 or a negative errno;
 * then each word has its old or its new value.
 */

static int write_cpu(struct actor *a, struct target *t)
{
	t->device = CPU;
	return unit_poke(a, t, &t->next);
}

static int write_gpu(struct actor *a, struct target *t)
{
	int gpu = device_get(a, t->device = any_gpu(a));

	return gpu < 0 ? gpu : gpu_xor(gpu, t->mem, t->size,
				       words_xor(&t->now, &t->next));
}

static int copy_to_gpu(struct actor *a, struct target *t)
{
	int gpu = device_get(a, t->device = any_gpu(a));

	words_fill((uint64_t *)a->ram, &t->next);
	return gpu < 0 ? gpu : gpu_copy(gpu, t->mem, a->ram, t->size);
}

static int write_rdma(struct actor *a, struct target *t)
{
	int err = device_get(a, t->device = RXE);

	words_fill((uint64_t *)a->ram, &t->next);
	if (err)
		return err;
	return rdma_done(a, rdma_write(&a->conn.near, a->ram, a->ram_mr->lkey,
				       (uintptr_t)t->mem, load(&a->rkey), t->size));
}

/* @old is the previous value that the other side reports. */
static int write_atomic(struct actor *a, struct target *t, bool swap)
{
	uint64_t add = 1ULL << WORD_GEN_SHIFT, *old = (uint64_t *)a->ram;
	int err = device_get(a, t->device = RXE);
	struct words word = { .n = 1, .writer = t->now.writer };
	size_t i;

	for (i = 0; i < t->now.n && !err; i++) {
		uint64_t addr = (uintptr_t)t->mem + i * 8;

		*old = ~0ULL;	/* in case no value arrives */
		if (swap)
			err = rdma_cmp_swap(&a->conn.near, old, a->ram_mr->lkey,
					    addr, load(&a->rkey),
					    words_at(&t->now, i),
					    words_at(&t->next, i));
		else
			err = rdma_fetch_add(&a->conn.near, old, a->ram_mr->lkey,
					     addr, load(&a->rkey), add);
		word.addr = t->now.addr + i;
		word.gen = t->now.gen;
		if (!err && !regions[t->region].wiped &&
		    !check(old, &word, word.gen, false, t->mem + i * 8,
			   swap ? kind_names[K_swap_rdma] : kind_names[K_add_rdma]))
			break;
	}
	return rdma_done(a, err);
}

static int add_rdma(struct actor *a, struct target *t)
{
	return write_atomic(a, t, false);
}

static int swap_rdma(struct actor *a, struct target *t)
{
	return write_atomic(a, t, true);
}

static int write_edu(struct actor *a, struct target *t)
{
	int edu = device_get(a, t->device = EDU);

	words_fill((uint64_t *)a->ram, &t->next);
	return edu < 0 ? edu : edu_copy(edu, t->mem, a->ram, t->size);
}

static uint64_t disk_pos(const struct actor *a)
{
	return (a->host * ACTORS + a->index) * LARGEST_UNIT;
}

static int read_disk(struct actor *a, struct target *t)
{
	int disk = device_get(a, t->device = NVME), err;

	words_fill((uint64_t *)a->ram, &t->next);
	if (disk < 0)
		return disk;
	err = disk_transfer(a->blk, disk, a->ram, disk_pos(a), t->size, true);
	return err ? err : disk_transfer(a->blk, disk, t->mem, disk_pos(a), t->size, false);
}

/* Readers: fetch a unit to @ram. */

int look_cpu(struct actor *a, struct target *t)
{
	t->device = CPU;
	return unit_peek(a, t, a->ram);
}

/* The GPU returns no words: fill in the expected ones, but the sum if it is wrong. */
static int sum_gpu(struct actor *a, struct target *t)
{
	int gpu = device_get(a, t->device = any_gpu(a)), err;
	uint64_t sum;

	if (gpu < 0)
		return gpu;
	err = gpu_sum(gpu, t->mem, t->size, &sum);
	if (err)
		return err;
	words_fill((uint64_t *)a->ram, &t->now);
	if (sum != words_sum(&t->now))
		*(uint64_t *)a->ram = sum;
	return 0;
}

static int copy_from_gpu(struct actor *a, struct target *t)
{
	int gpu = device_get(a, t->device = any_gpu(a));

	return gpu < 0 ? gpu : gpu_copy(gpu, a->ram, t->mem, t->size);
}

static int look_rdma(struct actor *a, struct target *t)
{
	int err = device_get(a, t->device = RXE);

	if (err)
		return err;
	return rdma_done(a, rdma_read(&a->conn.near, a->ram, a->ram_mr->lkey,
				      (uintptr_t)t->mem, load(&a->rkey), t->size));
}

static int look_edu(struct actor *a, struct target *t)
{
	int edu = device_get(a, t->device = EDU);

	return edu < 0 ? edu : edu_copy(edu, a->ram, t->mem, t->size);
}

static int write_disk(struct actor *a, struct target *t)
{
	int disk = device_get(a, t->device = NVME), err;

	if (disk < 0)
		return disk;
	err = disk_transfer(a->blk, disk, t->mem, disk_pos(a), t->size, true);
	return err ? err : disk_transfer(a->blk, disk, a->ram, disk_pos(a), t->size, false);
}

/* Operations that move pages, which changes no contents */

static int to_vram(struct actor *a, struct target *t)
{
	int gpu = device_get(a, t->device = any_gpu(a));

	return gpu < 0 ? gpu : gpu_to_vram(gpu, t->mem, t->size, NULL);
}

static int to_ram(struct actor *a, struct target *t)
{
	int gpu = device_get(a, t->device = any_gpu(a));

	return gpu < 0 ? gpu : gpu_to_ram(gpu, t->mem, t->size);
}

static int residency(struct actor *a, struct target *t)
{
	int gpu = device_get(a, t->device = any_gpu(a));
	struct drm_vsvm_residency where;

	return gpu < 0 ? gpu : gpu_residency(gpu, t->mem, t->size, &where);
}

static int prefetch(struct actor *a, struct target *t)
{
	int err = device_get(a, t->device = RXE);

	if (err)
		return err;
	pthread_mutex_lock(&a->mr_lock);
	err = a->mr ? rdma_prefetch(&a->conn.far, a->mr, t->mem, t->size,
				    chance(a, 2)) : -EAGAIN;
	pthread_mutex_unlock(&a->mr_lock);
	return err;
}

static int advise(struct actor *a, struct target *t)
{
	(void)a;
	t->device = CPU;
	return madvise(t->mem, t->size, t->advice) ? -errno : 0;
}

static int collapse(struct actor *a, struct target *t)
{
	int err;

	t->region %= 3;		/* the huge regions */
	t->mem = region_mem(a->host, t->region);
	t->size = HUGE_PAGE;
	err = advise(a, t);
	t->device = COLLAPSE;
	return err;
}

static int split(struct actor *a, struct target *t)
{
	char range[64];

	(void)a;
	t->device = CPU;
	snprintf(range, sizeof(range), "%d,0x%lx,0x%lx", getpid(),
		 (unsigned long)t->mem, (unsigned long)t->mem + t->size);
	return file_write("/sys/kernel/debug/split_huge_pages", range);
}

/* Operations that change the mapping. One at a time for each region. */

static int protect(struct actor *a, struct target *t)
{
	int gpu = device_get(a, any_gpu(a)), err = 0;
	uint64_t sum;

	if (mprotect(t->mem, t->size, chance(a, 2) ? PROT_READ : PROT_NONE))
		err = -errno;
	if (!err && gpu >= 0)
		gpu_sum(gpu, t->mem, t->size, &sum);
	if (mprotect(t->mem, t->size, PROT_READ | PROT_WRITE))
		err = -errno;
	return err;
}

/* The contents stay the same, wherever they are mapped. */
static int remap(struct actor *a, struct target *t)
{
	uint8_t *away = arena(a->host) + 2 * ARENA + t->region * HUGE_PAGE;
	int gpu = device_get(a, any_gpu(a));

	away += t->mem - region_mem(a->host, t->region);
	if (mremap(t->mem, t->size, t->size, MREMAP_MAYMOVE | MREMAP_FIXED,
		   away) == MAP_FAILED)
		return -errno;
	if (gpu >= 0)
		gpu_to_vram(gpu, away, t->size, NULL);
	if (mremap(away, t->size, t->size, MREMAP_MAYMOVE | MREMAP_FIXED,
		   t->mem) == MAP_FAILED)
		abort();
	return 0;
}

static int unmap(struct actor *a, struct target *t)
{
	if (munmap(t->mem, t->size))
		return -errno;
	usleep(chance(a, 3000));
	if (mmap(t->mem, t->size, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != t->mem)
		abort();
	return 0;
}

/* Register the MR of any actor of the host again, even while it is in use. */
static int reregister(struct actor *a, struct target *t)
{
	struct actor *other = &actors[chance(a, NEIGHBOUR)];
	int err = -EAGAIN;

	t->device = RXE;
	pthread_mutex_lock(&other->mr_lock);
	if (other->conn.far.pd) {
		err = other->mr ? -ibv_dereg_mr(other->mr) : 0;
		other->mr = NULL;
		if (!err)
			err = rdma_register(other);
		if (err && changed(other->opened[RXE], load(&shared->away[RXE])))
			err = -EAGAIN;
	}
	pthread_mutex_unlock(&other->mr_lock);
	return err;
}

const struct operation operations[NR_KINDS] = {
	[K_write_cpu]	  = { WRITE, 20, write_cpu },
	[K_write_gpu]	  = { WRITE, 30, write_gpu },
	[K_copy_to_gpu]	  = { WRITE, 15, copy_to_gpu },
	[K_write_rdma]	  = { WRITE, 30, write_rdma },
	[K_add_rdma]	  = { WRITE, 4, add_rdma, true },
	[K_swap_rdma]	  = { WRITE, 4, swap_rdma, true },
	[K_write_edu]	  = { WRITE, 3, write_edu, true },
	[K_read_disk]	  = { WRITE, 15, read_disk },
	[K_look_cpu]	  = { READ, 15, look_cpu },
	[K_sum_gpu]	  = { READ, 15, sum_gpu },
	[K_copy_from_gpu] = { READ, 10, copy_from_gpu },
	[K_look_rdma]	  = { READ, 20, look_rdma },
	[K_look_edu]	  = { READ, 2, look_edu, true },
	[K_write_disk]	  = { READ, 15, write_disk },
	[K_to_vram]	  = { PAGES, 30, to_vram },
	[K_to_ram]	  = { PAGES, 10, to_ram },
	[K_prefetch]	  = { PAGES, 10, prefetch },
	[K_residency]	  = { PAGES, 5, residency },
	[K_pageout]	  = { PAGES, 15, advise, false, MADV_PAGEOUT },
	[K_cold]	  = { PAGES, 3, advise, false, MADV_COLD },
	[K_willneed]	  = { PAGES, 3, advise, false, MADV_WILLNEED },
	[K_hugepage]	  = { PAGES, 4, advise, false, MADV_HUGEPAGE },
	[K_nohugepage]	  = { PAGES, 2, advise, false, MADV_NOHUGEPAGE },
	[K_collapse]	  = { PAGES, 4, collapse, false, MADV_COLLAPSE },
	[K_split]	  = { PAGES, 6, split },
	[K_protect]	  = { SHAPE, 5, protect },
	[K_remap]	  = { SHAPE, 5, remap },
	[K_unmap]	  = { WIPE, 8, unmap },
	[K_dontneed]	  = { WIPE, 8, advise, false, MADV_DONTNEED },
	[K_lazyfree]	  = { WIPE, 8, advise, false, MADV_FREE },
	[K_child]	  = { PAGES, 4, child },
	[K_reregister]	  = { PAGES, 8, reregister },
	/* Operations of a neighbour */
	[K_write_other]	  = { WRITE, 0, write_cpu },
	[K_look_other]	  = { READ, 0, look_cpu },
};
