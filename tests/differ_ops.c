// SPDX-License-Identifier: GPL-2.0
/*
 * The operations of the differential fuzzer, and the processes that do them. The
 * result of an operation must not depend on where pages are.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/mman.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/fs.h>
#include <linux/userfaultfd.h>

#include "differ.h"
#include "gpu.h"
#include "lib/conn.h"
#include "lib/disk.h"
#include "lib/edu.h"
#include "lib/file.h"

#define MIX	0x9e3779b97f4a7c15ULL

/* A userfaultfd is synchronous or asynchronous. */
enum { SYNC, ASYNC, UFFDS };

static const uint64_t uffd_features[UFFDS] = {
	[SYNC] = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM |
		 UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
		 UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE |
		 UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_RWP,
	[ASYNC] = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED |
		  UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_RWP | UFFD_FEATURE_RWP_ASYNC,
};

static struct host {
	unsigned int me;
	int gpu[2];
	int edu;
	int blk;
	int disk;
	int pagemap;
	int uffd[UFFDS];
	pthread_mutex_t handling;
	struct rdma near;
	struct rdma far;
	struct ibv_mr *near_mr;
	struct ibv_mr *far_mr;
} host;

static sigjmp_buf *fault_exit;

static uint8_t *mem(uint64_t offset)
{
	return (uint8_t *)ARENA + offset;
}

void differ_pattern(void *buf, size_t size, uint64_t value)
{
	uint64_t *words = buf;
	size_t i;

	/* Pages with the same value are identical, for KSM */
	for (i = 0; i < size / sizeof(*words); i++)
		words[i] = value ? (value + i % (PAGE / sizeof(*words))) * MIX : 0;
}

static uint64_t hash(uint64_t seed, const void *buf, size_t size)
{
	const uint8_t *bytes = buf;
	uint64_t word = 0;

	for (; size; size -= size < 8 ? size : 8, bytes += 8) {
		memcpy(&word, bytes, size < 8 ? size : 8);
		seed = (seed ^ word) * MIX;
		seed ^= seed >> 29;
	}
	return seed;
}

/* A mask of the hot pages in a range, which is in one region. */
static uint64_t pages_of(uint64_t at, uint64_t size)
{
	uint64_t first = at % STRIDE / PAGE, last = (at + size - 1) % STRIDE / PAGE;

	if (first >= HOT_PAGES)
		return 0;
	if (last >= HOT_PAGES)
		last = HOT_PAGES - 1;
	return (~0ULL >> (63 - last)) & (~0ULL << first);
}

/*
 * Record which pages each tracker has to report; that is known only for private
 * anonymous memory. A call that takes several mappings one by one, and fails, may have
 * done a part: its caller has lost() forget the range all the same.
 */
static int wrote(unsigned int who, uint64_t at, uint64_t size, int err)
{
	unsigned int region = at / STRIDE;

	if (!err && region <= SMALL) {
		stage->wrote[who][SOFT_DIRTY][region] |= pages_of(at, size);
		stage->wrote[who][SCAN][region] |= pages_of(at, size) & stage->armed[who][region];
		stage->freed[who][region] &= ~pages_of(at, size);
	}
	return err;
}

static int lost(unsigned int who, uint64_t at, uint64_t size, int err)
{
	unsigned int i, region = at / STRIDE;

	for (i = 0; !err && i < TRACKERS; i++)
		stage->wrote[who][i][region] &= ~pages_of(at, size);
	if (!err)
		stage->armed[who][region] &= ~pages_of(at, size);
	return err;
}

/* The memory itself is gone, too, so reclaim cannot take it any more. */
static int gone(unsigned int who, uint64_t at, uint64_t size, int err)
{
	if (!err)
		stage->freed[who][at / STRIDE] &= ~pages_of(at, size);
	return lost(who, at, size, err);
}

/* Accesses by the CPU, page by page, as each page may fault. */

static void on_fault(int sig)
{
	if (!fault_exit) {
		signal(sig, SIG_DFL);
		return;
	}
	siglongjmp(*fault_exit, sig);
}

static int touch(uint64_t at, void *buf, size_t size, bool write)
{
	sigjmp_buf here;
	int err = 0;

	if (sigsetjmp(here, 0)) {
		err = -EFAULT;
	} else {
		fault_exit = &here;
		if (write)
			memcpy(mem(at), buf, size);
		else
			memcpy(buf, mem(at), size);
	}
	fault_exit = NULL;
	return err;
}

static int cpu_put(const struct op *op)
{
	size_t done, len;
	int err = 0;

	differ_pattern(mem(SCRATCH), op->size, op->value);
	for (done = 0; done < op->size && !err; done += len) {
		len = PAGE - (op->at + done) % PAGE;
		if (len > op->size - done)
			len = op->size - done;
		err = touch(op->at + done, mem(SCRATCH + done), len, true);
	}
	return err;
}

static int cpu_write(const struct op *op, struct result *result)
{
	(void)result;
	return wrote(host.me, op->at, op->size, cpu_put(op));
}

static int cpu_look(const struct op *op, struct result *result)
{
	static uint8_t page[PAGE];
	size_t done, len;

	for (done = 0; done < op->size; done += len) {
		len = PAGE - (op->at + done) % PAGE;
		if (len > op->size - done)
			len = op->size - done;
		if (touch(op->at + done, page, len, false))
			memset(page, 0xbd, len);
		result->data = hash(result->data, page, len);
	}
	return 0;
}

/* GPUs. Retry on -EBUSY, which means that page tables kept changing. */
#define PERSIST(_call) ({						\
	int _tries = 20, _err;						\
									\
	do {								\
		_err = _call;						\
	} while (_err == -EBUSY && --_tries && ++stage->retries);	\
	_err;								\
})

static int to_vram(const struct op *op, struct result *result)
{
	(void)result;
	return PERSIST(gpu_to_vram(host.gpu[op->arg], mem(op->at), op->size, NULL));
}

static int to_ram(const struct op *op, struct result *result)
{
	(void)result;
	return PERSIST(gpu_to_ram(host.gpu[op->arg], mem(op->at), op->size));
}

static int gpu_write(const struct op *op, struct result *result)
{
	(void)result;
	return wrote(host.me, op->at, op->size,
		     PERSIST(gpu_fill(host.gpu[op->arg], mem(op->at), op->size, op->value)));
}

static int gpu_move(const struct op *op, struct result *result)
{
	(void)result;
	if (op->from == SCRATCH)
		differ_pattern(mem(SCRATCH), op->size, op->value);
	return wrote(host.me, op->at, op->size,
		     PERSIST(gpu_copy(host.gpu[op->arg], mem(op->at), mem(op->from), op->size)));
}

static int gpu_look(const struct op *op, struct result *result)
{
	int err;

	err = PERSIST(gpu_copy(host.gpu[op->arg], mem(SCRATCH), mem(op->at), op->size));
	if (!err)
		result->data = hash(0, mem(SCRATCH), op->size);
	return err;
}

/* RDMA: the memory at @at is the other process's. */

/* If both ends may be wrong, ignore the status: either error may be found first. */
static int rdma_end(struct result *result, uint64_t near, int err)
{
	result->status = 0;
	if (err == -EREMOTEIO)
		result->status = near == SCRATCH ? (int)rdma_status(&host.near) : -1;
	return err;
}

static int rdma_look(const struct op *op, struct result *result)
{
	unsigned int peer = !host.me;
	int err;

	err = rdma_read(&host.near, mem(op->from), host.near_mr->lkey, ARENA + op->at,
			stage->rkey[peer], op->size);
	if (!err && op->from == SCRATCH)
		result->data = hash(0, mem(SCRATCH), op->size);
	return rdma_end(result, op->from, wrote(host.me, op->from, op->size, err));
}

static int rdma_put(const struct op *op, struct result *result)
{
	unsigned int peer = !host.me;
	int err;

	if (op->from == SCRATCH)
		differ_pattern(mem(SCRATCH), op->size, op->value);
	err = rdma_write(&host.near, mem(op->from), host.near_mr->lkey, ARENA + op->at,
			 stage->rkey[peer], op->size);
	return rdma_end(result, op->from, wrote(peer, op->at, op->size, err));
}

static int rdma_atomic(const struct op *op, struct result *result)
{
	uint64_t *old = (uint64_t *)mem(SCRATCH);
	unsigned int peer = !host.me;
	int err;

	*old = ~0ULL;
	if (op->arg)
		err = rdma_cmp_swap(&host.near, old, host.near_mr->lkey, ARENA + op->at,
				    stage->rkey[peer], 0, op->value);
	else
		err = rdma_fetch_add(&host.near, old, host.near_mr->lkey, ARENA + op->at,
				     stage->rkey[peer], op->value | 1);
	result->data = *old;
	if (!err && *old == ~0ULL)
		result->wrong = "an atomic has no result";
	/* A swap whose compare failed has written nothing that must be reported */
	if (!err && (!op->arg || !*old))
		wrote(peer, op->at, 8, 0);
	return rdma_end(result, SCRATCH, err);
}

/* To the other process, which handles PREPARE before this and FINISH after it. */
static int rdma_message(const struct op *op, struct result *result)
{
	if (op->from == SCRATCH)
		differ_pattern(mem(SCRATCH), op->size, op->value);
	return rdma_end(result, op->from,
			rdma_send(&host.near, mem(op->from), host.near_mr->lkey, op->size));
}

static int rdma_ready(const struct op *op, struct result *result)
{
	(void)result;
	return PERSIST(rdma_prefetch(&host.far, host.far_mr, mem(op->at), op->size, op->arg));
}

/* Other importers, and users that pin */

static int edu_move(const struct op *op, struct result *result)
{
	int err;

	(void)result;
	if (op->from == SCRATCH)
		differ_pattern(mem(SCRATCH), op->size, op->value);
	err = edu_copy(host.edu, mem(op->at), mem(op->from), op->size);
	return wrote(host.me, op->at, op->size, err);
}

static int edu_look(const struct op *op, struct result *result)
{
	int err = edu_copy(host.edu, mem(SCRATCH), mem(op->at), op->size);

	if (!err)
		result->data = hash(0, mem(SCRATCH), op->size);
	return err;
}

static int disk_read(const struct op *op, struct result *result)
{
	uint64_t pos = host.me * HOT + op->at % HOT / 512 * 512;

	(void)result;
	return wrote(host.me, op->at, op->size,
		     PERSIST(disk_transfer(host.blk, host.disk, mem(op->at), pos, op->size, false)));
}

static int disk_write(const struct op *op, struct result *result)
{
	uint64_t pos = host.me * HOT + op->at % HOT / 512 * 512;
	int err;

	err = PERSIST(disk_transfer(host.blk, host.disk, mem(op->at), pos, op->size, true));
	if (!err && pread(host.disk, mem(SCRATCH), op->size, pos) == op->size)
		result->data = hash(0, mem(SCRATCH), op->size);
	return err;
}

static int direct_io(const struct op *op, struct result *result)
{
	uint64_t pos = host.me * HOT + op->at % HOT / 512 * 512;
	ssize_t n;

	if (!op->arg) {
		n = pread(host.disk, mem(op->at), op->size, pos);
		result->status = n;
		return wrote(host.me, op->at, op->size, n < 0 ? -errno : n < op->size ? -ENODATA : 0);
	}
	n = pwrite(host.disk, mem(op->at), op->size, pos);
	result->status = n;
	if (n > 0 && pread(host.disk, mem(SCRATCH), n, pos) == n)
		result->data = hash(0, mem(SCRATCH), n);
	return n < 0 ? -errno : 0;
}

/* The memory at @at is the other process's. */
static int vm_access(const struct op *op, struct result *result)
{
	struct { void *base; size_t len; } local = { mem(SCRATCH), op->size },
					   remote = { mem(op->at), op->size };
	pid_t pid = stage->pid[!host.me];
	ssize_t n;

	differ_pattern(mem(SCRATCH), op->size, op->value);
	n = syscall(op->arg ? SYS_process_vm_writev : SYS_process_vm_readv, pid, &local, 1,
		    &remote, 1, 0);
	result->status = n;
	if (n > 0 && !op->arg)
		result->data = hash(0, mem(SCRATCH), n);
	if (n > 0 && op->arg)
		wrote(!host.me, op->at, n, 0);
	return n < 0 ? -errno : 0;
}

/* Memory management */

static int protect(const struct op *op, struct result *result)
{
	static const int prots[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE };

	(void)result;
	return mprotect(mem(op->at), op->size, prots[op->arg % 3]) ? -errno : 0;
}

/* Move a mapping away and back, and perhaps migrate it while it is away. */
static int remap(const struct op *op, struct result *result)
{
	const int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
	int err;

	if (mremap(mem(op->at), op->size, op->size, flags, mem(AWAY + op->at)) == MAP_FAILED) {
		err = -errno;
		lost(host.me, op->at, op->size, 0);
		return err;
	}
	if (op->arg)
		result->status = PERSIST(gpu_to_vram(host.gpu[0], mem(AWAY + op->at), op->size, NULL));
	if (mremap(mem(AWAY + op->at), op->size, op->size, flags, mem(op->at)) == MAP_FAILED)
		abort();
	return lost(host.me, op->at, op->size, 0);
}

static int unmap(const struct op *op, struct result *result)
{
	(void)result;
	return gone(host.me, op->at, op->size, munmap(mem(op->at), op->size) ? -errno : 0);
}

static int map(const struct op *op, struct result *result)
{
	(void)result;
	if (mmap(mem(op->at), op->size, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		return -errno;
	return gone(host.me, op->at, op->size, 0);
}

static int advise(const struct op *op, struct result *result)
{
	static const int advices[] = {
		MADV_PAGEOUT, MADV_COLD, MADV_WILLNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE,
		MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_POPULATE_READ, MADV_POPULATE_WRITE,
		MADV_DONTNEED,
	};
	int err;

	(void)result;
	err = madvise(mem(op->at), op->size, advices[op->arg]) ? -errno : 0;
	if (advices[op->arg] == MADV_DONTNEED)
		gone(host.me, op->at, op->size, 0);
	return err;
}

/* Ignore errors: whether this works depends on where the pages are. */
static int collapse(const struct op *op, struct result *result)
{
	(void)result;
	madvise(mem(op->at / STRIDE * STRIDE), HUGE_PAGE, MADV_COLLAPSE);
	return 0;
}

/* Write zeroes first, so that pages read as zero whether they have been freed or not. */
static int lazyfree(const struct op *op, struct result *result)
{
	struct op zero = *op;
	int err;

	zero.value = 0;
	err = op->arg ? gpu_write(&zero, result) : cpu_write(&zero, result);
	if (!err && madvise(mem(op->at), op->size, MADV_FREE))
		err = -errno;
	lost(host.me, op->at, op->size, err);
	if (!err)
		stage->freed[host.me][op->at / STRIDE] |= pages_of(op->at, op->size);
	return err;
}

static int lock(const struct op *op, struct result *result)
{
	(void)result;
	return op->arg ? munlock(mem(op->at), op->size) ? -errno : 0 :
			 mlock2(mem(op->at), op->size, MLOCK_ONFAULT) ? -errno : 0;
}

#define KSM	"/sys/kernel/mm/ksm/"

static int merge(const struct op *op, struct result *result)
{
	uint64_t scans = number_read(KSM "full_scans");
	int tries = 100;

	(void)result;
	file_write(KSM "sleep_millisecs", "1");
	file_write(KSM "pages_to_scan", "2000");
	if (op->arg) {
		file_write(KSM "run", "2");
		return 0;
	}
	file_write(KSM "run", "1");
	while (number_read(KSM "full_scans") < scans + 3 && --tries)
		usleep(5000);
	file_write(KSM "run", "0");
	return 0;
}

/* Reclaim as much as possible: everything has to work as before. */
static int reclaim(const struct op *op, struct result *result)
{
	(void)result;
	(void)op;
	file_write("/sys/fs/cgroup/differ/memory.reclaim", "16M");
	return 0;
}

/* A child that changes its copy. */
static int child(const struct op *op, struct result *result)
{
	int status, gpu;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (!pid) {
		gpu = op->arg ? gpu_open(0) : -1;
		result->status = op->arg ? PERSIST(gpu_fill(gpu, mem(op->at), op->size, op->value)) :
					   cpu_put(op);
		cpu_look(op, result);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		return -ECHILD;
	return 0;
}

/* Write to the mapped file by a system call, not through the mapping. */
static int file_io(const struct op *op, struct result *result)
{
	ssize_t n;

	(void)result;
	differ_pattern(mem(SCRATCH), op->size, op->value);
	n = pwrite(stage->files[op->at / STRIDE], mem(SCRATCH), op->size, op->at % STRIDE);
	return n == op->size ? 0 : -errno;
}

/* Trackers */

static void uffd_resolve(int uffd, uint64_t addr, enum event event, bool freed)
{
	static uint8_t page[PAGE] __attribute__((aligned(PAGE)));
	struct uffdio_writeprotect wp = { .range = { addr, PAGE } };
	struct uffdio_rwprotect rwp = { .range = { addr, PAGE } };
	struct uffdio_continue cont = { .range = { addr, PAGE } };
	struct uffdio_copy copy = { .dst = addr, .src = (uintptr_t)page, .len = PAGE };
	struct uffdio_range wake = { addr, PAGE };
	int err, tries = 1000;

	differ_pattern(page, PAGE, freed ? 0 : addr | 1);
	do {
		copy.copy = 0;
		cont.mapped = 0;
		err = event == WP ? ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) :
		      event == RWP ? ioctl(uffd, UFFDIO_RWPROTECT, &rwp) :
		      event == MINOR ? ioctl(uffd, UFFDIO_CONTINUE, &cont) :
				       ioctl(uffd, UFFDIO_COPY, &copy);
	} while (err && errno == EAGAIN && --tries);
	if (err)
		ioctl(uffd, UFFDIO_WAKE, &wake);
}

static void uffd_handle(int uffd, const struct uffd_msg *msg)
{
	uint64_t addr = msg->arg.pagefault.address / PAGE * PAGE;
	uint64_t flags = msg->arg.pagefault.flags, at = addr - ARENA;
	enum event event;
	bool freed = false;

	if (msg->event != UFFD_EVENT_PAGEFAULT) {
		stage->result.layout |= 1U << (msg->event & 31);
		return;
	}
	event = flags & UFFD_PAGEFAULT_FLAG_WP ? WP : flags & UFFD_PAGEFAULT_FLAG_RWP ? RWP :
		flags & UFFD_PAGEFAULT_FLAG_MINOR ? MINOR : MISSING;
	/* Reclaim decides whether a page after MADV_FREE is missing: do not record it */
	if (at < AWAY)
		freed = event == MISSING && stage->freed[host.me][at / STRIDE] & pages_of(at, 1);
	if (at < AWAY && !freed)
		stage->result.events[at / STRIDE][event] |= pages_of(at, 1);
	uffd_resolve(uffd, addr, event, freed);
}

static void *uffd_main(void *arg)
{
	struct pollfd pfd = { .fd = host.uffd[SYNC], .events = POLLIN };
	struct uffd_msg msg;

	(void)arg;
	for (;;) {
		poll(&pfd, 1, -1);
		pthread_mutex_lock(&host.handling);
		if (read(pfd.fd, &msg, sizeof(msg)) == sizeof(msg))
			uffd_handle(pfd.fd, &msg);
		pthread_mutex_unlock(&host.handling);
	}
	return NULL;
}

static void uffd_init(void)
{
	unsigned int i;
	pthread_t thread;

	pthread_mutex_init(&host.handling, NULL);
	for (i = 0; i < UFFDS; i++) {
		struct uffdio_api api = { .api = UFFD_API, .features = uffd_features[i] };

		host.uffd[i] = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
		if (host.uffd[i] < 0 || ioctl(host.uffd[i], UFFDIO_API, &api))
			abort();
	}
	if (pthread_create(&thread, NULL, uffd_main, NULL))
		abort();
}

static int uffd_register(const struct op *op, struct result *result)
{
	static const struct { unsigned int uffd; uint64_t mode; } how[] = {
		{ SYNC, UFFDIO_REGISTER_MODE_WP }, { SYNC, UFFDIO_REGISTER_MODE_RWP },
		{ SYNC, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP },
		{ SYNC, UFFDIO_REGISTER_MODE_MINOR },
		{ ASYNC, UFFDIO_REGISTER_MODE_WP }, { ASYNC, UFFDIO_REGISTER_MODE_WP },
		{ ASYNC, UFFDIO_REGISTER_MODE_RWP }, { ASYNC, UFFDIO_REGISTER_MODE_RWP },
	};
	struct uffdio_register reg = {
		.range = { ARENA + op->at, op->size },
		.mode = how[op->arg].mode,
	};

	(void)result;
	return ioctl(host.uffd[how[op->arg].uffd], UFFDIO_REGISTER, &reg) ? -errno : 0;
}

static int uffd_unregister(const struct op *op, struct result *result)
{
	struct uffdio_range range = { ARENA + op->at, op->size };
	int err;

	(void)result;
	err = ioctl(host.uffd[op->arg], UFFDIO_UNREGISTER, &range) ? -errno : 0;
	lost(host.me, op->at, op->size, 0);
	return err;
}

/* In the mode in which the range is registered. */
static int uffd_protect(const struct op *op, struct result *result)
{
	struct uffdio_writeprotect wp = { { ARENA + op->at, op->size }, !!op->arg };
	struct uffdio_rwprotect rwp = { { ARENA + op->at, op->size }, !!op->arg };
	int err = -1, i;

	for (i = 0; err && i < UFFDS; i++) {
		do {
			err = ioctl(host.uffd[i], UFFDIO_WRITEPROTECT, &wp);
		} while (err && errno == EAGAIN);
		if (!err)
			break;
		do {
			err = ioctl(host.uffd[i], UFFDIO_RWPROTECT, &rwp);
		} while (err && errno == EAGAIN);
	}
	err = err ? -errno : 0;
	result->status = i;
	lost(host.me, op->at, op->size, 0);
	return err;
}

/* All pages that were written must be in the report. */
static void report(const struct op *op, struct result *result, unsigned int tracker,
		   uint64_t pages)
{
	uint64_t want = op->at / STRIDE < REGIONS ?
			stage->wrote[host.me][tracker][op->at / STRIDE] : 0;

	result->report = pages & pages_of(op->at, op->size);
	if (want & pages_of(op->at, op->size) & ~pages)
		result->wrong = "pages that were written are not reported";
}

static int pagemap_scan(const struct op *op, struct result *result)
{
	static struct page_region out[HOT_PAGES];
	uint64_t category = op->arg == 2 ? PAGE_IS_ACCESSED : PAGE_IS_WRITTEN, pages = 0;
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.flags = op->arg == 1 ? PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC : 0,
		.start = ARENA + op->at, .end = ARENA + op->at + op->size,
		.vec = (uintptr_t)out, .vec_len = HOT_PAGES,
		.category_mask = category, .return_mask = category,
	};
	int i, n, err;

	n = ioctl(host.pagemap, PAGEMAP_SCAN, &scan);
	if (n < 0) {
		err = -errno;
		if (op->arg == 1)
			lost(host.me, op->at, op->size, 0);
		return err;
	}
	for (i = 0; i < n; i++)
		pages |= pages_of(out[i].start - ARENA, out[i].end - out[i].start);
	if (op->arg == 2)
		result->report = pages;
	else
		report(op, result, SCAN, pages);
	if (op->arg == 1) {
		stage->wrote[host.me][SCAN][op->at / STRIDE] &= ~pages_of(op->at, op->size);
		stage->armed[host.me][op->at / STRIDE] |= pages_of(op->at, op->size);
	}
	return 0;
}

static int soft_dirty(const struct op *op, struct result *result)
{
	uint64_t bits[HOT_PAGES], first = op->at / PAGE, n = op->size / PAGE, pages = 0, i;

	if (pread(host.pagemap, bits, n * 8, (ARENA / PAGE + first) * 8) != (ssize_t)n * 8)
		return -errno;
	for (i = 0; i < n; i++)
		if (bits[i] >> 55 & 1)
			pages |= 1ULL << (op->at % STRIDE / PAGE + i);
	report(op, result, SOFT_DIRTY, pages);
	return 0;
}

static int clear_refs(const struct op *op, struct result *result)
{
	int err = file_write("/proc/self/clear_refs", op->arg ? "1" : "4");

	(void)result;
	if (!op->arg && !err)
		memset(stage->wrote[host.me][SOFT_DIRTY], 0, sizeof(stage->wrote[0][0]));
	return err;
}

#define ONE(region)	(1U << (region))
#define ALL		(ONE(REGIONS) - 1)
#define ANON		(ONE(HUGE) | ONE(SMALL))
#define BASE		(ALL & ~ONE(HUGETLB))
#define SOME		(8 * PAGE)

const struct kind differ_kinds[] = {
	[K_LOOK] = { "look", 6, ALL, 1, SOME, cpu_look },
	[K_TO_VRAM] = { "to_vram", 20, ALL, PAGE, HOT, to_vram, false, false, 2 },
	[K_FORK] = { "fork", 4, ANON, PAGE, PAGE },
	[K_SEND] = { "send", 6, ALL, 1, SOME, rdma_message, true, true, .remote = true },
	{ "write", 12, ALL & ~ONE(READONLY), 1, SOME, cpu_write },
	{ "to_ram", 4, ALL, PAGE, HOT, to_ram, false, false, 2 },
	{ "gpu_write", 24, ALL, 8, SOME, gpu_write, true, false, 2 },
	{ "gpu_copy", 10, ALL, 8, SOME, gpu_move, true, true, 2 },
	{ "gpu_look", 12, ALL, 8, SOME, gpu_look, true, false, 2 },
	{ "rdma_read", 24, ALL, 1, SOME, rdma_look, true, true, .remote = true },
	{ "rdma_write", 30, ALL, 1, SOME, rdma_put, true, true, .remote = true },
	{ "rdma_atomic", 12, ALL, 8, 8, rdma_atomic, true, false, 2, .remote = true },
	{ "rdma_prefetch", 12, ALL, PAGE, HOT, rdma_ready, false, false, 2 },
	{ "edu_copy", 3, ALL, 1, PAGE, edu_move, true, true },
	{ "edu_look", 2, ALL, 1, PAGE, edu_look, true },
	{ "blk_read", 10, ALL, 512, SOME, disk_read, true },
	{ "blk_write", 10, ALL, 512, SOME, disk_write, true },
	{ "direct_io", 4, ALL, 512, SOME, direct_io, true, false, 2 },
	{ "vm_access", 6, ALL, 1, SOME, vm_access, true, false, 2, .remote = true },
	{ "mprotect", 12, ALL & ~ONE(HUGETLB), PAGE, HOT, protect, false, false, 4 },
	{ "mremap", 5, ANON, PAGE, HOT, remap, false, false, 2 },
	{ "munmap", 2, ANON, PAGE, SOME, unmap },
	{ "mmap", 2, ANON, PAGE, SOME, map },
	{ "madvise", 24, BASE, PAGE, HOT, advise, false, false, 10 },
	{ "collapse", 3, ONE(HUGE), PAGE, PAGE, collapse },
	{ "lazyfree", 5, ANON, PAGE, SOME, lazyfree, false, false, 2 },
	{ "mlock", 3, BASE, PAGE, SOME, lock, false, false, 2 },
	{ "ksm", 2, ANON, PAGE, PAGE, merge, false, false, 2 },
	{ "reclaim", 4, ANON, PAGE, PAGE, reclaim },
	{ "child", 4, ANON, 8, SOME, child, false, false, 2 },
	{ "file_write", 3, ONE(SHARED), 1, SOME, file_io },
	{ "uffd_register", 20, BASE, PAGE, HOT, uffd_register, .args = 8 },
	{ "uffd_unregister", 3, BASE, PAGE, HOT, uffd_unregister, false, false, 2 },
	{ "uffd_protect", 24, BASE, PAGE, HOT, uffd_protect, .args = 4 },
	{ "pagemap_scan", 24, BASE, PAGE, HOT, pagemap_scan, false, false, 3 },
	{ "soft_dirty", 14, BASE, PAGE, HOT, soft_dirty },
	{ "clear_refs", 10, ANON, PAGE, PAGE, clear_refs, false, false, 2 },
};
const unsigned int differ_kinds_nr = ARRAY_LEN(differ_kinds);

static void print_at(uint32_t at)
{
	static const char * const names[] = {
		"huge", "small", "hugetlb", "shared", "private", "readonly", "secret",
	};

	if (at == SCRATCH)
		printf("scratch");
	else
		printf("%s + %#lx", names[at / STRIDE], at % STRIDE);
}

void differ_print(const struct op *op, const struct result *result)
{
	const struct kind *kind = &differ_kinds[op->kind];
	unsigned int i, j;

	printf("#   %u: %s(", op->who, kind->name);
	print_at(op->at);
	printf(", %#x, arg %u, value %#lx", op->size, op->arg, op->value);
	if (kind->from) {
		printf(", from ");
		print_at(op->from);
	}
	printf(") = %d", result->err);
	if (result->status)
		printf(", status %d", result->status);
	if (result->data)
		printf(", data %016lx", result->data);
	if (result->report)
		printf(", report %016lx", result->report);
	if (result->layout)
		printf(", layout %#x", result->layout);
	for (i = 0; i < REGIONS; i++)
		for (j = 0; j < EVENTS; j++)
			if (result->events[i][j])
				printf(", event %u in region %u: %016lx", j, i, result->events[i][j]);
	printf("%s%s\n", result->wrong ? ": " : "", result->wrong ?: "");
}

/* The processes */

static void mem_init(void)
{
	const int rw = PROT_READ | PROT_WRITE, anon = MAP_PRIVATE | MAP_ANONYMOUS;
	const struct { int prot, flags; } how[REGIONS] = {
		[HUGE] = { rw, anon }, [SMALL] = { rw, anon },
		[HUGETLB] = { rw, anon | MAP_HUGETLB }, [SHARED] = { rw, MAP_SHARED },
		[PRIVATE] = { rw, MAP_PRIVATE }, [READONLY] = { PROT_READ, MAP_SHARED },
		[SECRET] = { rw, MAP_SHARED },
	};
	unsigned int i;

	stage->files[SECRET] = syscall(SYS_memfd_secret, O_CLOEXEC);
	if (stage->files[SECRET] < 0 || ftruncate(stage->files[SECRET], HOT))
		abort();
	for (i = 0; i < REGIONS; i++) {
		uint8_t *at = mem(i * STRIDE);

		if (mmap(at, region_size(i), how[i].prot, how[i].flags | MAP_FIXED,
			 how[i].flags & MAP_ANONYMOUS ? -1 : stage->files[i], 0) != at)
			abort();
		if (i == HUGE)
			madvise(at, HUGE_PAGE, MADV_HUGEPAGE);
		/* The rest is not populated */
		if (i < SHARED || i == SECRET)
			differ_pattern(at, HOT / 2, i + 1);
	}
	if (mmap(mem(SCRATCH), HOT, rw, anon | MAP_FIXED, -1, 0) != mem(SCRATCH))
		abort();
	memset(mem(SCRATCH), 0, HOT);
}

static int conn_init(void)
{
	int err;

	err = rdma_open(&host.near);
	if (!err)
		err = rdma_open(&host.far);
	if (err)
		return err;
	host.near_mr = rdma_reg_odp(&host.near, mem(0), SPAN);
	host.far_mr = rdma_reg_odp(&host.far, mem(0), SPAN);
	if (!host.near_mr || !host.far_mr)
		return -errno;
	rdma_address(&host.near, &stage->addr[host.me][0]);
	rdma_address(&host.far, &stage->addr[host.me][1]);
	stage->rkey[host.me] = host.far_mr->rkey;
	return 0;
}

static void host_init(unsigned int me)
{
	host.me = me;
	stage->pid[me] = getpid();
	host.gpu[0] = gpu_open(0);
	host.gpu[1] = gpu_open(1);
	host.edu = edu_open();
	host.blk = open("/dev/hmm_blk", O_RDWR | O_CLOEXEC);
	host.disk = open("/dev/nvme0n1", O_RDWR | O_DIRECT | O_CLOEXEC);
	host.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (host.gpu[0] < 0 || host.gpu[1] < 0 || host.edu < 0 || host.blk < 0 ||
	    host.disk < 0 || host.pagemap < 0 || conn_init())
		abort();
	uffd_init();
}

/* Connect, or connect again. */
static int conn_connect(void)
{
	struct ibv_wc wc;

	while (ibv_poll_cq(host.far.qp->recv_cq, 1, &wc) > 0)
		;
	return qp_restart(host.near.qp) ?: qp_restart(host.far.qp) ?:
	       rdma_connect(&host.near, &stage->addr[!host.me][1]) ?:
	       rdma_connect(&host.far, &stage->addr[!host.me][0]);
}

static int do_tell(enum tell what)
{
	const struct op *op = &stage->op;
	struct result *result = &stage->result;
	struct ibv_wc wc;

	switch (what) {
	case PREPARE:
		return rdma_post_recv(&host.far, mem(op->at), host.far_mr->lkey, op->size);
	case OPERATE:
		if (ibv_poll_cq(host.near.cq, 1, &wc) > 0)
			result->wrong = "a request has completed twice";
		result->err = differ_kinds[op->kind].fn(op, result);
		/* Wait until the events of the operation have been recorded */
		pthread_mutex_lock(&host.handling);
		pthread_mutex_unlock(&host.handling);
		return 0;
	case FINISH:
		return wrote(host.me, op->at, op->size, rdma_wait(&host.far));
	case WAIT_FOR_ERROR:
		qp_wait_for_error(op->who == host.me ? host.near.qp : host.far.qp, 50);
		return 0;
	case CONNECT:
		return conn_connect();
	default:
		_exit(0);
	}
}

static void __attribute__((noreturn)) host_main(unsigned int me, int (*pipes)[4])
{
	char what, ok;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	host_init(me);
	for (what = 0;;) {
		ok = what && what != SPAWN && do_tell(what) ? 'n' : 'y';
		if (write(pipes[me][3], &ok, 1) != 1 || read(pipes[me][0], &what, 1) != 1)
			_exit(1);
		if (what == SPAWN) {
			while (waitpid(-1, NULL, 0) > 0)
				;
			if (!fork())
				host_main(!me, pipes);
		}
	}
}

void differ_host(int (*pipes)[4])
{
	const struct sigaction action = { .sa_handler = on_fault, .sa_flags = SA_NODEFER };

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	mem_init();
	host_main(0, pipes);
}
