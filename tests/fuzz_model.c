// SPDX-License-Identifier: GPL-2.0
/*
 * The memory that the fuzzer passes to calls, and a model of it: which accesses are
 * allowed, and which calls should work. differ.c tests what they do to data.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"

/* The arena */

static bool in_arena(struct fuzzer *me, uint64_t addr, uint64_t size)
{
	uint64_t at = addr - (uintptr_t)me->mem;

	return at <= ARENA_SIZE && size <= ARENA_SIZE - at;
}

static enum access may_access(struct fuzzer *me, uint64_t addr, uint64_t size,
			      uint8_t want)
{
	uint64_t at = addr - (uintptr_t)me->mem, i;

	if (!in_arena(me, addr, size)) {
		if (addr < PAGE || addr >= TASK_END || size > TASK_END - addr)
			return NO;
		return addr < ARENA || addr >= COMMON ? PERHAPS : NO;
	}
	for (i = at / PAGE; i * PAGE < at + size; i++)
		if ((me->page[i] & want) != want)
			return NO;
	return YES;
}

static void page_flags(struct fuzzer *me, size_t at, size_t size, uint8_t flags)
{
	memset(me->page + at / PAGE, flags, size / PAGE);
}

static bool map_region(struct fuzzer *me, unsigned int region, int prot, int flags,
		       int fd)
{
	uint8_t *mem = me->mem + region_at(region);

	if (mmap(mem, region_size(region), prot, flags | MAP_FIXED, fd, 0) == mem)
		return true;
	munmap(mem, region_size(region));
	page_flags(me, region_at(region), region_size(region), 0);
	return false;
}

void fuzz_arena_init(struct fuzzer *me)
{
	int file = memfd_create("fuzz", MFD_CLOEXEC), exe = open("/proc/self/exe", O_RDONLY);
	const int rw = PROT_READ | PROT_WRITE;
	uint64_t pages;
	size_t i;

	munmap(me->mem, ARENA_SIZE);
	if (mmap(me->mem, ARENA_SIZE, rw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) != me->mem ||
	    ftruncate(file, SMALL - 4 * PAGE))
		fuzz_fail(me, "no arena: %m");
	page_flags(me, 0, ARENA_SIZE, MAPPED | R | W | ANON);
	madvise(me->mem + region_at(HUGE), HUGE_PAGE, MADV_HUGEPAGE);

	if (map_region(me, HUGETLB, rw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1))
		page_flags(me, region_at(HUGETLB), HUGE_PAGE, MAPPED | R | W);
	if (map_region(me, SHMEM, rw, MAP_SHARED | MAP_ANONYMOUS, -1))
		page_flags(me, region_at(SHMEM), SMALL, MAPPED | R | W);
	if (map_region(me, PRIVATE, rw, MAP_PRIVATE, exe))
		page_flags(me, region_at(PRIVATE), SMALL, MAPPED | R | W);
	if (map_region(me, FILE_END, rw, MAP_SHARED, file)) {
		page_flags(me, region_at(FILE_END), SMALL - 4 * PAGE, MAPPED | R | W);
		page_flags(me, region_at(FILE_END) + SMALL - 4 * PAGE, 4 * PAGE, 0);
	}
	munmap(me->mem + region_at(HOLE), SMALL);
	page_flags(me, region_at(HOLE), SMALL, 0);
	close(file);
	close(exe);

	for (i = 0; i < ARENA_PAGES; i++)
		if (me->page[i] && region_of(i * PAGE) != PRIVATE)
			memset(me->mem + i * PAGE, i, PAGE);

	mprotect(me->mem + region_at(READONLY), SMALL, PROT_READ);
	page_flags(me, region_at(READONLY), SMALL, MAPPED | R | ANON);
	mprotect(me->mem + region_at(NO_ACCESS), SMALL, PROT_NONE);
	page_flags(me, region_at(NO_ACCESS), SMALL, MAPPED | ANON);

	/* Best effort: there may be no room. */
	gpu_to_vram(me->fds[GPU0], me->mem + region_at(HUGE), HUGE_PAGE, &pages);
	gpu_to_vram(me->fds[GPU0], me->mem + region_at(VRAM0), SMALL, &pages);
	gpu_to_vram(me->fds[GPU1], me->mem + region_at(VRAM1), SMALL, &pages);
}

/* Should the call, as it was issued, work? */

static enum access range_is_good(uint64_t addr, uint64_t size, size_t align)
{
	return size && !((addr | size) % align) && addr < TASK_END &&
	       size <= TASK_END - addr ? YES : NO;
}

static enum access both(enum access a, enum access b)
{
	return a == NO || b == NO ? NO : a == YES ? b : a;
}

static enum access io_should_work(struct fuzzer *me, const struct hmm_blk_io *io)
{
	bool write = io->flags & HMM_BLK_WRITE;
	uint8_t want = write ? R : R | W;
	uint64_t size = io->size;

	if (io->flags & ~HMM_BLK_WRITE || io->addr > TASK_END || size > TASK_END - io->addr)
		return NO;
	if (io->fd != me->fds[RW] && io->fd != me->fds[SWAP] &&
	    io->fd != me->fds[write ? WO : RO])
		return NO;
	if (write && io->fd == me->fds[SWAP])
		return NO;
	if ((int64_t)io->offset < 0 || !size)
		return size ? NO : PERHAPS;
	if (io->offset >= DISK_END)
		return write ? NO : PERHAPS;
	if (size > DISK_END - io->offset)
		size = DISK_END - io->offset;
	if ((io->addr | size | io->offset) % 512)
		return NO;
	/* The request is done up to the end of the valid memory, or of the disk. */
	if (may_access(me, io->addr, 512, want) == NO)
		return NO;
	return size == io->size && may_access(me, io->addr, size, want) == YES ? YES : PERHAPS;
}

enum access fuzz_should_work(struct fuzzer *me, const struct call *call)
{
	const struct drm_vsvm_prefetch *prefetch = &call->prefetch;
	const struct drm_vsvm_residency *residency = &call->residency;
	const struct drm_vsvm_op *op = &call->op;
	const struct hmm_edu_copy *copy = &call->copy;
	enum access range;

	switch (call->kind) {
	case PREFETCH:
		if (prefetch->pad || prefetch->where > DRM_VSVM_TO_VRAM)
			return NO;
		range = range_is_good(prefetch->addr, prefetch->size, PAGE);
		return both(range, may_access(me, prefetch->addr, prefetch->size,
					      prefetch->where ? R | ANON : R));
	case OP:
		if (op->pad || op->op > DRM_VSVM_OP_COPY)
			return NO;
		range = range_is_good(op->addr, op->size, 8);
		range = both(range, may_access(me, op->addr, op->size,
					       op->op == DRM_VSVM_OP_SUM ? R : R | W));
		if (op->op != DRM_VSVM_OP_COPY)
			return range;
		if (op->operand < op->addr + op->size && op->addr < op->operand + op->size)
			return NO;
		range = both(range, range_is_good(op->operand, op->size, 8));
		return both(range, may_access(me, op->operand, op->size, R));
	case RESIDENCY:
		return range_is_good(residency->addr, residency->size, PAGE);
	case COPY:
		if (copy->size > HMM_EDU_MAX_SIZE)
			return NO;
		range = both(range_is_good(copy->dst, copy->size, 1),
			     range_is_good(copy->src, copy->size, 1));
		range = both(range, may_access(me, copy->src, copy->size, R));
		return both(range, may_access(me, copy->dst, copy->size, R | W));
	case IO:
		return io_should_work(me, &call->io);
	default:
		return YES;
	}
}

/* Checks of the output of a call */

static void edu_done(struct fuzzer *me, const struct hmm_edu_copy *copy, int err)
{
	uint64_t done = copy->copied;

	if (err ? done && done >= copy->size : done != copy->size)
		fuzz_fail(me, "copied %lu", (long)done);
}

static void blk_done(struct fuzzer *me, const struct hmm_blk_io *io, int err,
		     enum access should)
{
	uint64_t size = io->size, done = io->done;

	if (done > size || (err && done))
		fuzz_fail(me, "did %lu", (long)done);
	if (should == YES && !err && done != size)
		fuzz_fail(me, "did only %lu", (long)done);
	if (done && may_access(me, io->addr, done, io->flags ? R : R | W) == NO)
		fuzz_fail(me, "did %lu, too much", (long)done);
}

void fuzz_call_done(struct fuzzer *me, const struct call *call, int err,
		      enum access should)
{
	const struct drm_vsvm_residency *where = &call->residency;

	switch (call->kind) {
	case PREFETCH:
		if (!err && call->prefetch.pages > call->prefetch.size / PAGE)
			fuzz_fail(me, "%lu pages", (long)call->prefetch.pages);
		break;
	case OP:
		if (!err && call->op.op != DRM_VSVM_OP_SUM && call->op.result)
			fuzz_fail(me, "the result is not zero");
		break;
	case RESIDENCY:
		if (!err && (where->huge > where->vram + where->peer ||
			     where->vram + where->linked + where->peer + where->ram +
			     where->none != where->size / PAGE))
			fuzz_fail(me, "pages are missing, or too many");
		break;
	case COPY:
		edu_done(me, &call->copy, err);
		break;
	case IO:
		blk_done(me, &call->io, err, should);
		break;
	}
}

/* In arenas, change only the thread's own anonymous pages, which the model follows. */
void fuzz_meddle(struct fuzzer *me, const struct call *call)
{
	static const int prots[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE };
	static const uint8_t flags[] = { MAPPED | ANON, MAPPED | ANON | R, MAPPED | ANON | R | W };
	uint64_t addr = addr_at_home(me, call->memory.addr), size = call->memory.size;
	bool ours = in_arena(me, addr, size);
	size_t at = addr - (uintptr_t)me->mem;
	uint8_t *mem = (uint8_t *)addr;

	if (may_access(me, addr, size, MAPPED | ANON) == NO)
		return;
	switch (call->kind) {
	case PAGE_OUT:
		madvise(mem, size, MADV_PAGEOUT);
		break;
	case DROP:
		madvise(mem, size, MADV_DONTNEED);
		break;
	case PROTECT:
		mprotect(mem, size, prots[call->memory.how]);
		if (ours)
			page_flags(me, at, size, flags[call->memory.how]);
		break;
	case UNMAP:
		munmap(mem, size);
		if (ours)
			page_flags(me, at, size, 0);
		break;
	case FORK:
		if (!fork()) {
			usleep(call->memory.how * 5000);
			_exit(0);
		}
		break;
	}
}

