// SPDX-License-Identifier: GPL-2.0
/*
 * The calls that the fuzzer makes, as their headers define them: valid calls, perhaps
 * with random errors, and changed copies of calls that had a new kind of result
 * before.
 */
#include <errno.h>
#include <stdio.h>

#include "fuzz.h"

const struct kind fuzz_kinds[KINDS] = {
#define F(_struct, _name, _type, ...) { #_name, _type,			\
	offsetof(struct _struct, _name), sizeof(((struct _struct *)0)->_name), \
	##__VA_ARGS__ }
	[PREFETCH] = { "prefetch", DRM_IOCTL_VSVM_PREFETCH, GPU0, PAGE, {
		F(drm_vsvm_prefetch, addr, ADDR),
		F(drm_vsvm_prefetch, size, SIZE),
		F(drm_vsvm_prefetch, where, CHOICE, 2),
		F(drm_vsvm_prefetch, pad, PAD),
	}, { EINVAL, EFAULT, EBUSY, ENOMEM, EOPNOTSUPP } },
	[OP] = { "op", DRM_IOCTL_VSVM_OP, GPU0, 8, {
		F(drm_vsvm_op, addr, ADDR),
		F(drm_vsvm_op, size, SIZE),
		F(drm_vsvm_op, op, CHOICE, 4),
		F(drm_vsvm_op, pad, PAD),
		F(drm_vsvm_op, operand, ADDR),
	}, { EINVAL, EFAULT, EBUSY, ENOMEM, EACCES } },
	[RESIDENCY] = { "residency", DRM_IOCTL_VSVM_RESIDENCY, GPU0, PAGE, {
		F(drm_vsvm_residency, addr, ADDR),
		F(drm_vsvm_residency, size, SIZE),
	}, { EINVAL, EFAULT, EBUSY, ENOMEM } },
	[INFO] = { "info", DRM_IOCTL_VSVM_INFO, GPU0, 8, {}, { EINVAL, EFAULT } },
	[COUNTERS] = { "counters", DRM_IOCTL_VSVM_COUNTERS, GPU0, 8, {},
		       { EINVAL, EFAULT } },
	[COPY] = { "edu copy", HMM_EDU_COPY, EDU, 1, {
		F(hmm_edu_copy, dst, ADDR),
		F(hmm_edu_copy, src, ADDR),
		F(hmm_edu_copy, size, SIZE),
	}, { EINVAL, EFAULT, EPERM, EBUSY, ENOMEM } },
	[IO] = { "blk io", HMM_BLK_IO, BLK, 512, {
		F(hmm_blk_io, addr, ADDR),
		F(hmm_blk_io, size, SIZE),
		F(hmm_blk_io, fd, FD),
		F(hmm_blk_io, flags, CHOICE, 2),
		F(hmm_blk_io, offset, POS),
	}, { EBADF, ENOTBLK, EINVAL, EFAULT, ENOSPC, ETXTBSY, EBUSY, ENOMEM } },
};

/* Printing */

static const char * const region_names[] = {
	"huge", "hugetlb", "ram", "vram0", "vram1", "readonly", "no_access", "hole",
	"shmem", "file_end", "private",
};

static void print_addr(uint64_t addr)
{
	int region = region_of(addr - ARENA);

	if (addr - ARENA >= ARENA_SIZE)
		printf("%#lx", addr);
	else if (region < 0)
		printf("arena + %#lx", addr - ARENA);
	else
		printf("%s + %#lx", region_names[region],
		       addr - ARENA - region_at(region));
}

void fuzz_print(const struct call *call, int err)
{
	static const char * const names[] = { "page out", "drop", "protect", "unmap", "fork" };
	static const char * const fds[] = { "gpu0", "gpu1", "edu", "blk", "rw", "ro",
		"wo", "swap", "not a disk", "parent's gpu", "closed" };
	const struct field *field;

	if (call->kind >= KINDS) {
		printf("#   %s(", names[call->kind - KINDS]);
		print_addr(call->memory.addr);
		printf(", %#lx, %lu)\n", (long)call->memory.size, (long)call->memory.how);
		return;
	}

	printf("#   %s(%s, %#lx, arg %u", fuzz_kinds[call->kind].name, fds[call->fd],
	       call->cmd, call->arg);
	for (field = fuzz_kinds[call->kind].fields; field->type; field++) {
		uint64_t value = field_get(call, field);

		printf(", %s = ", field->name);
		if (field->type == ADDR)
			print_addr(value);
		else if (field->type == FD && value < FDS)
			printf("%s", fds[value]);
		else
			printf("%#lx", value);
	}
	printf(") = %d\n", err);
}

/* The class of a value: another value of the same class is not a new one. */
static unsigned int class_of(const struct field *field, uint64_t value, size_t align)
{
	static const uint64_t limits[] = {
		1, PAGE, PAGE + 1, SMALL, HUGE_PAGE, COMMON_SIZE, DISK_END, TASK_END, 1UL << 63,
	};
	unsigned int n = 0;

	if (field->type == ADDR && value - ARENA < ARENA_SIZE)
		return 16 + region_of(value - ARENA);
	if (field->type == FD || field->type == CHOICE)
		return value < 16 ? value : 16;
	while (n < ARRAY_LEN(limits) && value >= limits[n])
		n++;
	return value % align ? n + 32 : n;
}

void fuzz_learn(const struct call *call, int err)
{
	const struct kind *kind = &fuzz_kinds[call->kind];
	const struct field *field;
	uint64_t hash = call->kind * 256 + call->fd * 16 + call->arg;
	unsigned int nr;

	hash = hash * 256 - err;
	for (field = kind->fields; field->type; field++)
		hash = (hash ^ class_of(field, field_get(call, field), kind->align)) *
		       0x9e3779b97f4a7c15ULL;
	hash >>= 48;
	if (fuzz_shared->seen[hash])
		return;
	fuzz_shared->seen[hash] = 1;
	nr = __sync_fetch_and_add(&fuzz_shared->corpus_nr, 1);
	fuzz_shared->corpus[nr % ARRAY_LEN(fuzz_shared->corpus)] = *call;
}

/* The grammar: a valid call */

static uint64_t some_addr(struct fuzzer *me, size_t align)
{
	unsigned int region = rnd(me, REGIONS + 1);
	size_t size = region < REGIONS ? region_size(region) : MIB(4);
	uint64_t addr = region < REGIONS ? ARENA + region_at(region) : COMMON;

	switch (rnd(me, 4)) {
	case 0:
		return addr;
	case 1:
		return addr + size - align * (1 + rnd(me, 3));
	case 2:
		return addr + rnd(me, size / PAGE) * PAGE;
	default:
		return addr + rnd(me, size / align) * align;
	}
}

static uint64_t some_size(struct fuzzer *me, unsigned int kind)
{
	size_t align = fuzz_kinds[kind].align;
	size_t most = align == PAGE ? SMALL : 3 * PAGE;

	if (kind != COPY && one_in(me, 8))
		return HUGE_PAGE;
	return one_in(me, 2) ? align * (1 + rnd(me, 4)) : align * (1 + rnd(me, most / align));
}

static uint64_t some_value(struct fuzzer *me, const struct field *field, unsigned int kind)
{
	switch (field->type) {
	case ADDR:
		return some_addr(me, fuzz_kinds[kind].align);
	case SIZE:
		return some_size(me, kind);
	case CHOICE:
		return rnd(me, field->choices);
	case FD:
		return RW;
	case POS:
		return rnd(me, 512) * 512;
	default:
		return 0;
	}
}

/* Random errors in a call */

static uint64_t wild_number(struct fuzzer *me)
{
	static const uint64_t numbers[] = {
		0, 1, 2, 4, 5, 7, 8, 511, 512, PAGE - 1, PAGE, PAGE + 1, PAGE + 8, SMALL + PAGE,
		HUGE_PAGE - PAGE, HUGE_PAGE + PAGE, HMM_EDU_MAX_SIZE, HMM_EDU_MAX_SIZE + 1,
		ARENA_SIZE, MIB(256), COMMON_SIZE, INT32_MAX, 1ULL << 31, UINT32_MAX,
		1ULL << 32, 1ULL << 40, 1ULL << 47, INT64_MAX, 1ULL << 63, -PAGE, -8ULL, ~0ULL,
	};

	return one_in(me, 8) ? rnd(me, ~0ULL) >> rnd(me, 54) : numbers[rnd(me, ARRAY_LEN(numbers))];
}

static uint64_t wild_addr(struct fuzzer *me, size_t align)
{
	const uint64_t addrs[] = {
		0, PAGE, TASK_END - PAGE, TASK_END - 8, TASK_END, 1ULL << 47, 1ULL << 50,
		0xffff888000000000, -PAGE, -HUGE_PAGE, -8ULL, -1ULL, ARENA - PAGE,
		ARENA + ARENA_SIZE - align, ARENA + ARENA_SIZE, COMMON,
		(uintptr_t)fuzz_kinds, (uintptr_t)wild_number / PAGE * PAGE,
	};

	return one_in(me, 4) ? wild_number(me) : one_in(me, 3) ?
	       some_addr(me, 1) + rnd(me, 9) : addrs[rnd(me, ARRAY_LEN(addrs))];
}

static void mutate_field(struct fuzzer *me, struct call *call, const struct field *field)
{
	uint64_t value;

	switch (field->type) {
	case ADDR:
		value = wild_addr(me, fuzz_kinds[call->kind].align);
		break;
	case SIZE:
		/* A range that ends at or near address 0 */
		value = one_in(me, 4) ? -field_get(call, fuzz_kinds[call->kind].fields) :
					wild_number(me);
		value += one_in(me, 8) ? rnd(me, 3) * 8 : 0;
		break;
	case FD:
		value = one_in(me, 8) ? wild_number(me) | 1 << 20 : rnd(me, FDS);
		break;
	case POS:
		value = one_in(me, 2) ? wild_number(me) :
			DISK_END - 512 * (rnd(me, 18) - 1) + one_in(me, 4);
		break;
	default:
		value = one_in(me, 2) ? 1ULL << rnd(me, field->size * 8) : wild_number(me);
	}
	field_set(call, field, value);
}

static void mutate(struct fuzzer *me, struct call *call)
{
	const struct field *fields = fuzz_kinds[call->kind].fields;
	unsigned int n = 0;

	while (fields[n].type)
		n++;
	switch (n ? rnd(me, 12) : 9 + rnd(me, 3)) {
	case 9:
		call->fd = rnd(me, FDS);
		break;
	case 10:
		call->arg = rnd(me, ARGS);
		break;
	case 11:
		call->cmd ^= one_in(me, 2) ? 1UL << rnd(me, 4) : 1UL << (16 + rnd(me, 16));
		break;
	case 8:
		fields += rnd(me, n);
		field_set(call, fields, some_value(me, fields, call->kind));
		break;
	default:
		mutate_field(me, call, &fields[rnd(me, n)]);
	}
}

static void generate_call(struct fuzzer *me, struct call *call)
{
	const struct field *field;
	unsigned int n = fuzz_shared->corpus_nr;

	if (n && one_in(me, 3)) {
		*call = fuzz_shared->corpus[rnd(me, n) % ARRAY_LEN(fuzz_shared->corpus)];
		mutate(me, call);
		return;
	}

	memset(call, 0, sizeof(*call));
	call->kind = rnd(me, KINDS);
	call->cmd = fuzz_kinds[call->kind].cmd;
	call->fd = fuzz_kinds[call->kind].dev;
	if (call->fd == GPU0)
		call->fd += rnd(me, 2);
	for (field = fuzz_kinds[call->kind].fields; field->type; field++)
		field_set(call, field, some_value(me, field, call->kind));
	while (one_in(me, 2))
		mutate(me, call);
}

void fuzz_generate(struct fuzzer *me, struct call *call)
{
	if (one_in(me, 8)) {
		call->kind = KINDS + rnd(me, STEP_KINDS - KINDS);
		call->memory.addr = some_addr(me, PAGE);
		call->memory.size = PAGE * (1 + rnd(me, 4));
		call->memory.how = rnd(me, 3);
		return;
	}

	/* edu takes 200 ms for each piece while others wait: make fewer copies. */
	do
		generate_call(me, call);
	while (call->kind == COPY && !one_in(me, 4));
}

