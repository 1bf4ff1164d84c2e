// SPDX-License-Identifier: GPL-2.0
/*
 * Addresses that a peer chooses, or a process for its own side: the IOVA, offset,
 * length and key of each operation, on pinned and on-demand MRs, in RAM and in
 * VRAM, and through memory windows. An operation reaches the memory that it names,
 * and no other memory.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rdma/rdma_user_rxe.h>

#include "lib/cgroup.h"
#include "lib/child.h"
#include "lib/file.h"
#include "lib/harness.h"
#include "lib/raw_wqe.h"
#include "lib/rig.h"
#include "lib/waiting.h"

#define SIZE	MIB(2)

/* The MR is in the middle, so that it has neighbours. */
#define MR_AT	(KIB(512) + 3 * PAGE)
#define MR_SIZE	(MIB(1) + 5 * PAGE)

#define REMOTE	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |	\
		 IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC |	\
		 IBV_ACCESS_MW_BIND)

enum where {
	PINNED,
	IN_RAM,
	IN_VRAM,
};

enum iova {
	AT_ADDRESS,
	AT_ZERO,
	HALF_WAY,
	AT_THE_END,
};

/* All operations on memory: of a peer, and of a process with a key of its own. */
enum op {
	READ,
	WRITE,
	FETCH_ADD,
	CMP_SWAP,
	ATOMIC_WRITE,
	REMOTE_OPS,
	SEND = REMOTE_OPS,
	RECV,
	READ_INTO,
	WRITE_FROM,
	OPS,
};

static const char * const op_names[] = {
	[READ] = "read",
	[WRITE] = "write",
	[FETCH_ADD] = "fetch and add",
	[CMP_SWAP] = "compare and swap",
	[ATOMIC_WRITE] = "atomic write",
	[SEND] = "send",
	[RECV] = "receive",
	[READ_INTO] = "read into",
	[WRITE_FROM] = "write from",
};

/* An operation, with its key, address and size. Atomics always have eight bytes. */
struct attempt {
	enum op op;
	uint32_t key;
	uint64_t iova;
	size_t size;
};

static uint64_t iova_of(enum iova iova, uint64_t addr)
{
	switch (iova) {
	case AT_ZERO:
		return 0;
	case HALF_WAY:
		return addr + MR_SIZE / 2 / PAGE * PAGE;
	case AT_THE_END:
		return -MR_SIZE - PAGE;
	default:
		return addr;
	}
}

static struct ibv_mr *reg(struct ibv_pd *pd, void *mem, size_t size,
			  uint64_t iova, enum where where)
{
	int access = REMOTE | (where == PINNED ? 0 : IBV_ACCESS_ON_DEMAND);

	return ibv_reg_mr_iova(pd, mem, size, iova, access);
}

/* The far side's own requests, with memory of the near side as the other end. */
static int attempt_local(struct rig *rig, const struct attempt *a)
{
	struct rdma *far = &rig->conn.far, *near = &rig->conn.near;
	uint8_t *ram = rig->ram.mem;
	uint32_t key = rig->ram_mr->lkey;
	void *mem = (void *)a->iova;
	int err, err2;

	switch (a->op) {
	case READ_INTO:
		return rdma_read(far, mem, a->key, (uintptr_t)ram, key, a->size);
	case WRITE_FROM:
		return rdma_write(far, mem, a->key, (uintptr_t)ram, key, a->size);
	case SEND:
		err = rdma_post_recv(near, ram, key, a->size);
		err = err ?: rdma_send(far, mem, a->key, a->size);
		return err ?: rdma_wait(near);
	default:
		err = rdma_post_recv(far, mem, a->key, a->size);
		err = err ?: rdma_send(near, ram, key, a->size);
		err2 = rdma_wait(far);
		return err ?: err2;
	}
}

static int attempt(struct rig *rig, const struct attempt *a)
{
	struct rdma *near = &rig->conn.near;
	uint8_t *ram = rig->ram.mem;
	uint32_t key = rig->ram_mr->lkey;
	uint64_t *word = (uint64_t *)ram;

	switch (a->op) {
	case READ:
		return rdma_read(near, ram, key, a->iova, a->key, a->size);
	case WRITE:
		return rdma_write(near, ram, key, a->iova, a->key, a->size);
	case FETCH_ADD:
		return rdma_fetch_add(near, word, key, a->iova, a->key, 1);
	case CMP_SWAP:
		/* A compare that fails writes nothing, but tests the access as well */
		return rdma_cmp_swap(near, word, key, a->iova, a->key, 0, 1);
	case ATOMIC_WRITE:
		return raw_atomic_write(near, a->iova, a->key, 0x1122334455667788);
	default:
		return attempt_local(rig, a);
	}
}

/*
 * The operation was done at @at of the buffer: update the shadows, and compare both
 * buffers as a whole.
 */
static bool done_right(struct rig *rig, const struct attempt *a, size_t at)
{
	uint8_t *shadow = rig->buf.shadow + at, *ram = rig->ram.shadow;
	uint64_t word;

	switch (a->op) {
	case READ:
	case SEND:
	case WRITE_FROM:
		memcpy(ram, shadow, a->size);
		break;
	case WRITE:
	case RECV:
	case READ_INTO:
		memcpy(shadow, ram, a->size);
		break;
	case FETCH_ADD:
		memcpy(&word, shadow, sizeof(word));
		memcpy(ram, &word, sizeof(word));
		word++;
		memcpy(shadow, &word, sizeof(word));
		break;
	case CMP_SWAP:
		memcpy(ram, shadow, sizeof(word));
		break;
	default:
		word = 0x1122334455667788;
		memcpy(shadow, &word, sizeof(word));
		break;
	}

	return buffer_differs_on_gpu(&rig->buf, rig->gpu) == -1 &&
	       buffer_differs(&rig->ram) == -1;
}

/*
 * Connect again after a request that failed. If the request failed before it was sent,
 * the peer, @idle, does not notice: put its QP into the error state, which also flushes
 * its receives.
 */
static int revive(struct conn *conn, struct rdma *idle)
{
	struct ibv_cq *cqs[] = {
		conn->near.cq, conn->near.qp->recv_cq,
		conn->far.cq, conn->far.qp->recv_cq,
	};
	unsigned int i;
	struct ibv_wc wc;
	int err;

	if (idle)
		qp_to_error(idle->qp);
	err = conn_revive(conn);
	for (i = 0; i < ARRAY_LEN(cqs); i++)
		while (ibv_poll_cq(cqs[i], 1, &wc) > 0)
			;

	return err;
}

/* Refused: nothing has changed on either side, and both can be connected again. */
static bool refused(struct rig *rig, const struct attempt *a)
{
	bool own = a->op == SEND || a->op == READ_INTO || a->op == WRITE_FROM;
	int err = attempt(rig, a);
	int err2 = revive(&rig->conn, own ? &rig->conn.near : NULL);
	ssize_t buf = buffer_differs_on_gpu(&rig->buf, rig->gpu);
	ssize_t ram = buffer_differs(&rig->ram);

	if (err == -EREMOTEIO && !err2 && buf == -1 && ram == -1)
		return true;
	printf("# %d, connected again: %d, changed at %zd, of the peer at %zd\n",
	       err, err2, buf, ram);
	return false;
}

FIXTURE(bounds) {
	struct rig rig;
	struct buffer others[2];
	struct ibv_mr *other_mrs[8];
	struct ibv_mr *mr;
	uint64_t iova;
};

FIXTURE_VARIANT(bounds) {
	enum where where;
	enum iova iova;
};

#define VARIANT(_name, _where, _iova)		\
FIXTURE_VARIANT_ADD(bounds, _name) {		\
	.where = _where,			\
	.iova = _iova,				\
}

VARIANT(pinned_at_address, PINNED, AT_ADDRESS);
VARIANT(pinned_at_zero, PINNED, AT_ZERO);
VARIANT(pinned_at_the_end, PINNED, AT_THE_END);
VARIANT(ram_at_address, IN_RAM, AT_ADDRESS);
VARIANT(ram_at_zero, IN_RAM, AT_ZERO);
VARIANT(ram_half_way, IN_RAM, HALF_WAY);
VARIANT(ram_at_the_end, IN_RAM, AT_THE_END);
VARIANT(vram_at_address, IN_VRAM, AT_ADDRESS);
VARIANT(vram_half_way, IN_VRAM, HALF_WAY);

/*
 * Other MRs are registered before and after the MR under test, so that their page
 * lists are next to its list in the kernel's memory.
 */
FIXTURE_SETUP(bounds)
{
	struct ibv_pd *pd;
	unsigned int i;
	uint8_t *mem;

	ASSERT_EQ(0, rig_init(&self->rig, SIZE, MADV_HUGEPAGE));
	pd = self->rig.conn.far.pd;
	buffer_write(&self->rig.buf, 0, SIZE);
	buffer_write(&self->rig.ram, 0, SIZE);
	if (variant->where == IN_VRAM)
		ASSERT_EQ(0, buffer_to_vram(&self->rig.buf, self->rig.gpu,
					    0, SIZE));

	for (i = 0; i < ARRAY_LEN(self->others); i++) {
		ASSERT_EQ(0, buffer_map(&self->others[i], SIZE, MADV_NOHUGEPAGE));
		buffer_write(&self->others[i], 0, SIZE);
	}
	mem = self->rig.buf.mem + MR_AT;
	self->iova = iova_of(variant->iova, (uintptr_t)mem);
	for (i = 0; i < ARRAY_LEN(self->other_mrs); i++) {
		struct buffer *other = &self->others[i % 2];

		if (i == ARRAY_LEN(self->other_mrs) / 2) {
			self->mr = reg(pd, mem, MR_SIZE, self->iova, variant->where);
			ASSERT_NE(NULL, self->mr);
		}
		self->other_mrs[i] = reg(self->rig.conn.near.pd, other->mem,
					 SIZE, (uintptr_t)other->mem, IN_RAM);
		ASSERT_NE(NULL, self->other_mrs[i]);
	}
}

FIXTURE_TEARDOWN(bounds)
{
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(self->other_mrs); i++)
		ibv_dereg_mr(self->other_mrs[i]);
	for (i = 0; i < ARRAY_LEN(self->others); i++) {
		EXPECT_EQ(-1, buffer_differs(&self->others[i]));
		buffer_unmap(&self->others[i]);
	}
	EXPECT_EQ(0, ibv_dereg_mr(self->mr));
	EXPECT_EQ(-1, buffer_differs(&self->rig.buf));
	EXPECT_EQ(0, rig_fini(&self->rig));
}

#define EXPECT_DONE(_a, _at) do {					\
	EXPECT_EQ(0, attempt(&self->rig, &(_a)));			\
	EXPECT_TRUE(done_right(&self->rig, &(_a), _at)) {		\
		TH_LOG("%s at %#lx", op_names[(_a).op], (_a).iova);	\
	}								\
} while (0)

#define EXPECT_REFUSED(_a) do {						\
	EXPECT_TRUE(refused(&self->rig, &(_a))) {			\
		TH_LOG("%s at %#lx, %zu bytes", op_names[(_a).op],	\
		       (_a).iova, (_a).size);				\
	}								\
} while (0)

TEST_F(bounds, access_inside_an_mr_works)
{
	static const size_t offsets[] = {
		0, PAGE - 8, MR_SIZE / 2 + 8, MR_SIZE - 5 * PAGE - 16,
	};
	struct attempt a = { .size = 4 * PAGE + 24 };
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(offsets); i++) {
		a.iova = self->iova + offsets[i];
		for (a.op = 0; a.op < OPS; a.op++) {
			a.key = a.op < REMOTE_OPS ? self->mr->rkey : self->mr->lkey;
			EXPECT_DONE(a, MR_AT + offsets[i]);
		}
	}

	/* And the very last bytes */
	a.size = 8;
	a.iova = self->iova + MR_SIZE - 8;
	for (a.op = 0; a.op < OPS; a.op++) {
		a.key = a.op < REMOTE_OPS ? self->mr->rkey : self->mr->lkey;
		EXPECT_DONE(a, MR_AT + MR_SIZE - 8);
	}
}

TEST_F(bounds, access_outside_an_mr_is_refused)
{
	uint64_t iova = self->iova, addr = (uintptr_t)self->rig.buf.mem + MR_AT;
	const struct { uint64_t iova; size_t size; } outside[] = {
		{ iova - 8, 8 },
		{ iova - 8, 2 * PAGE },
		{ iova + MR_SIZE, 8 },
		{ iova + MR_SIZE - 8, 16 },
		{ iova + MR_SIZE - PAGE, 2 * PAGE },
		{ iova + MIB(64), PAGE },
		{ iova - MIB(64), PAGE },
		{ iova + (1UL << 31), 8 },
		{ iova + (1UL << 43), 8 },
		{ iova + (1UL << 44), PAGE },
		{ -8UL, 8 },
		{ -8UL, MIB(1) },
		{ addr + PAGE, PAGE },
	};
	struct attempt a;
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(outside); i++) {
		a.iova = outside[i].iova;
		a.size = outside[i].size;
		if (variant->iova == AT_ADDRESS && a.iova == addr + PAGE)
			continue;
		if (variant->iova == AT_THE_END && a.iova + PAGE > iova &&
		    a.iova + a.size <= iova + MR_SIZE)
			continue;
		for (a.op = 0; a.op < OPS; a.op++) {
			/*
			 * An atomic has eight bytes whatever its size here, and a
			 * process's own request is done up to the end of the MR
			 */
			if (a.op >= FETCH_ADD && a.iova - iova < MR_SIZE &&
			    (a.op < REMOTE_OPS || a.size > PAGE))
				continue;
			a.key = a.op < REMOTE_OPS ? self->mr->rkey : self->mr->lkey;
			EXPECT_REFUSED(a);
		}
	}
}

/* A process prefetches its own memory, but reaches no further than its peers. */
TEST_F(bounds, advise_mr_prefetch_checks_mr_bounds)
{
	struct ibv_pd *pd = self->rig.conn.far.pd;
	uint64_t iova = self->iova;
	unsigned int i, flags;
	const struct { uint64_t iova; uint32_t size; int ok; } ranges[] = {
		{ iova, MR_SIZE, 1 },
		{ iova + PAGE + 1, 17, 1 },
		{ iova + MR_SIZE - 1, 1, 1 },
		{ iova + PAGE, 0, 1 },
		{ iova - 1, 2, 0 },
		{ iova + 1, MR_SIZE, 0 },
		{ iova + MR_SIZE, 1, 0 },
		{ iova, 0xfffff000, 0 },
		{ iova + MIB(64), PAGE, 0 },
		{ iova + (1UL << 43), PAGE, 0 },
		{ -2 * PAGE, 4 * PAGE, 0 },
	};

	for (flags = 0; flags <= IBV_ADVISE_MR_FLAG_FLUSH; flags++) {
		for (i = 0; i < 3 * ARRAY_LEN(ranges); i++) {
			struct ibv_sge sge = {
				.addr = ranges[i / 3].iova,
				.length = ranges[i / 3].size,
				.lkey = self->mr->lkey,
			};
			int want = ranges[i / 3].ok ? 0 : -EFAULT;

			if (variant->where == PINNED)
				want = -EINVAL;
			EXPECT_EQ(want, rdma_advise(pd, i % 3, flags, &sge)) {
				TH_LOG("advice %u at %#lx, %u bytes", i % 3,
				       sge.addr, sge.length);
			}
		}
	}
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->rig.buf, self->rig.gpu));
}

/* Keys that do not exist, or do not allow a prefetch */
TEST_F(bounds, advise_mr_prefetch_checks_lkey_pd_and_access)
{
	struct ibv_pd *pd = self->rig.conn.far.pd, *pd2;
	struct ibv_mr *ro, *pinned, *foreign;
	struct ibv_mw *mw;
	struct ibv_sge sge = {
		.addr = self->iova, .length = MR_SIZE,
	};
	unsigned int i;

	pd2 = ibv_alloc_pd(self->rig.conn.far.ctx);
	ASSERT_NE(NULL, pd2);
	mw = ibv_alloc_mw(pd, IBV_MW_TYPE_2);
	ASSERT_NE(NULL, mw);
	foreign = reg(pd2, self->rig.buf.mem + MR_AT, MR_SIZE, self->iova, IN_RAM);
	pinned = reg(pd, self->rig.ram.mem, MR_SIZE, self->iova, PINNED);
	ro = ibv_reg_mr_iova(pd, self->rig.buf.mem + MR_AT, MR_SIZE, self->iova,
			     IBV_ACCESS_ON_DEMAND | IBV_ACCESS_REMOTE_READ);
	ASSERT_NE(NULL, foreign);
	ASSERT_NE(NULL, pinned);
	ASSERT_NE(NULL, ro);

	for (i = 0; i < 2 * 3; i++) {
		int advice = i % 3, flags = i / 3;

		sge.lkey = foreign->lkey;
		EXPECT_EQ(-EINVAL, rdma_advise(pd, advice, flags, &sge));
		sge.lkey = pinned->lkey;
		EXPECT_EQ(-EINVAL, rdma_advise(pd, advice, flags, &sge));
		sge.lkey = mw->rkey;
		EXPECT_EQ(-EINVAL, rdma_advise(pd, advice, flags, &sge));
		sge.lkey = self->mr->lkey ^ 1;
		EXPECT_EQ(-EINVAL, rdma_advise(pd, advice, flags, &sge));
		sge.lkey = 0;
		EXPECT_EQ(-EINVAL, rdma_advise(pd, advice, flags, &sge));
		sge.lkey = ro->lkey;
		EXPECT_EQ(advice == IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE ? -EPERM : 0,
			  rdma_advise(pd, advice, flags, &sge));
	}

	sge.lkey = foreign->lkey;
	ASSERT_EQ(0, ibv_dereg_mr(foreign));
	EXPECT_EQ(-EINVAL, rdma_advise(pd2, 0, IBV_ADVISE_MR_FLAG_FLUSH, &sge));

	EXPECT_EQ(0, ibv_dereg_mr(ro));
	EXPECT_EQ(0, ibv_dereg_mr(pinned));
	EXPECT_EQ(0, ibv_dealloc_mw(mw));
	EXPECT_EQ(0, ibv_dealloc_pd(pd2));
}

/*
 * A window onto a part of the MR. With its key, peers reach only that part.
 */
#define WINDOW_AT	(KIB(512) + 5 * PAGE + 8)
#define WINDOW_SIZE	(3 * PAGE + 16)

static int bind_window(struct rig *rig, struct ibv_mw *mw, struct ibv_mr *mr,
		       uint64_t iova, uint64_t size, int access, uint32_t *rkey)
{
	struct rdma *far = &rig->conn.far;
	struct ibv_mw_bind_info info = {
		.mr = mr, .addr = iova, .length = size, .mw_access_flags = access,
	};

	return rdma_bind_mw(far, mw, &info, rkey);
}

static void windows(struct __test_metadata *_metadata, FIXTURE_DATA(bounds) *self,
		    enum ibv_mw_type type, bool zero_based)
{
	int access = REMOTE & ~(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND);
	uint64_t start = zero_based ? 0 : self->iova + WINDOW_AT;
	const struct { uint64_t iova; size_t size; } outside[] = {
		{ start - 8, 8 },
		{ start - 8, 16 },
		{ start + WINDOW_SIZE, 8 },
		{ start + WINDOW_SIZE - 8, 16 },
		{ start + KIB(256), PAGE },
		{ start - KIB(256), PAGE },
		{ -8UL, 16 },
		{ start + 8, KIB(256) },
	};
	struct ibv_mw *mw = ibv_alloc_mw(self->rig.conn.far.pd, type);
	struct attempt a;
	unsigned int i;

	ASSERT_NE(NULL, mw);
	ASSERT_EQ(0, bind_window(&self->rig, mw, self->mr, self->iova + WINDOW_AT,
				 WINDOW_SIZE,
				 access | (zero_based ? IBV_ACCESS_ZERO_BASED : 0),
				 &a.key));

	for (a.op = 0; a.op < REMOTE_OPS; a.op++) {
		a.iova = start;
		a.size = WINDOW_SIZE;
		EXPECT_DONE(a, MR_AT + WINDOW_AT);
		a.iova = start + WINDOW_SIZE - 8;
		a.size = 8;
		EXPECT_DONE(a, MR_AT + WINDOW_AT + WINDOW_SIZE - 8);
	}

	for (i = 0; i < ARRAY_LEN(outside); i++) {
		a.iova = outside[i].iova;
		a.size = outside[i].size;
		for (a.op = 0; a.op < REMOTE_OPS; a.op++) {
			if (a.op >= FETCH_ADD && a.iova - start < WINDOW_SIZE)
				continue;
			EXPECT_REFUSED(a);
		}
	}

	EXPECT_EQ(0, ibv_dealloc_mw(mw));
}

TEST_F(bounds, mw_type_1_bounds_remote_access)
{
	windows(_metadata, self, IBV_MW_TYPE_1, false);
}

TEST_F(bounds, mw_type_2_bounds_remote_access)
{
	windows(_metadata, self, IBV_MW_TYPE_2, false);
}

TEST_F(bounds, zero_based_mw_bounds_remote_access)
{
	windows(_metadata, self, IBV_MW_TYPE_2, true);
}

/* The memory is visible to all devices already, so a flush only succeeds or fails. */
TEST_F(bounds, flush_checks_mr_bounds_mw_bounds_and_type)
{
	struct rig *rig = &self->rig;
	struct rdma *near = &rig->conn.near, *far = &rig->conn.far;
	uint64_t iova = self->iova, start = iova + WINDOW_AT;
	const struct { uint64_t iova, size; bool mr, window; } ranges[] = {
		{ iova, MR_SIZE, true, false },
		{ start, WINDOW_SIZE, true, true },
		{ start + WINDOW_SIZE - 1, 1, true, true },
		{ start + WINDOW_SIZE - 1, 2, true, false },
		{ start - 1, 2, true, false },
		{ iova - 1, 2, false, false },
		{ iova + MR_SIZE - 1, 2, false, false },
		{ iova + (1UL << 43), 1, false, false },
		{ -1UL, 2, false, false },
	};
	const enum raw_flush unknown[] = { 0, 4, 4 | RAW_FLUSH_GLOBAL };
	struct ibv_mw *mw = ibv_alloc_mw(far->pd, IBV_MW_TYPE_2);
	struct ibv_mr *mr;
	unsigned int i;
	uint32_t rkey;

	mr = ibv_reg_mr_iova(far->pd, rig->buf.mem + MR_AT, MR_SIZE, iova,
			     RAW_ACCESS_FLUSH_GLOBAL | IBV_ACCESS_MW_BIND |
			     (variant->where == PINNED ? 0 : IBV_ACCESS_ON_DEMAND));
	ASSERT_NE(NULL, mr);
	ASSERT_NE(NULL, mw);

	/* A window cannot allow flushes if its MR does not */
	EXPECT_EQ(-EREMOTEIO, bind_window(rig, mw, self->mr, start, WINDOW_SIZE,
					  RAW_ACCESS_FLUSH_GLOBAL, &rkey));
	ASSERT_EQ(0, revive(&rig->conn, &rig->conn.near));
	ASSERT_EQ(0, bind_window(rig, mw, mr, start, WINDOW_SIZE,
				 RAW_ACCESS_FLUSH_GLOBAL, &rkey));

	for (i = 0; i < 2 * ARRAY_LEN(ranges); i++) {
		bool ok = i % 2 ? ranges[i / 2].window : ranges[i / 2].mr;

		ASSERT_EQ(0, raw_allow_flush(far));
		EXPECT_EQ(ok ? 0 : -EREMOTEIO,
			  raw_flush(near, ranges[i / 2].iova, i % 2 ? rkey : mr->rkey,
				    ranges[i / 2].size, RAW_FLUSH_GLOBAL)) {
			TH_LOG("%s, %#lx bytes at %#lx", i % 2 ? "window" : "MR",
			       ranges[i / 2].size, ranges[i / 2].iova);
		}
		if (!ok)
			ASSERT_EQ(0, revive(&rig->conn, NULL));
	}

	/* Unknown types of flushes */
	for (i = 0; i < ARRAY_LEN(unknown); i++) {
		ASSERT_EQ(0, raw_allow_flush(far));
		EXPECT_EQ(-EREMOTEIO, raw_flush(near, iova, mr->rkey, 8, unknown[i]));
		ASSERT_EQ(0, revive(&rig->conn, NULL));
	}

	ASSERT_EQ(0, raw_allow_flush(far));
	EXPECT_EQ(0, raw_flush_all(near, mr->rkey, RAW_FLUSH_GLOBAL));
	EXPECT_EQ(0, raw_flush_all(near, rkey, RAW_FLUSH_GLOBAL));

	EXPECT_EQ(0, ibv_dealloc_mw(mw));
	EXPECT_EQ(0, ibv_dereg_mr(mr));
}

/* The window still holds its MR after the QP is gone. */
TEST_F(bounds, bound_mw_pins_mr_after_qp_is_destroyed)
{
	struct ibv_mw *mw;
	struct conn conn;
	uint32_t rkey;
	struct ibv_mw_bind_info info = {
		.mr = self->mr, .addr = self->iova, .length = PAGE,
		.mw_access_flags = IBV_ACCESS_REMOTE_READ,
	};
	struct ibv_pd *pd;
	struct ibv_mr *mr;

	ASSERT_EQ(0, conn_up(&conn));
	pd = conn.far.pd;
	mr = reg(pd, self->rig.buf.mem + MR_AT, MR_SIZE, self->iova, variant->where);
	mw = ibv_alloc_mw(pd, IBV_MW_TYPE_2);
	ASSERT_NE(NULL, mr);
	ASSERT_NE(NULL, mw);
	info.mr = mr;
	ASSERT_EQ(0, rdma_bind_mw(&conn.far, mw, &info, &rkey));

	EXPECT_EQ(0, ibv_destroy_qp(conn.far.qp));
	conn.far.qp = NULL;
	EXPECT_EQ(EINVAL, ibv_dereg_mr(mr));
	EXPECT_EQ(0, ibv_dealloc_mw(mw));
	EXPECT_EQ(0, ibv_dereg_mr(mr));
	conn_down(&conn);
}

TEST_F(bounds, bind_mw_rejects_range_outside_mr)
{
	struct rig *rig = &self->rig;
	uint64_t iova = self->iova;
	const struct { uint64_t iova, size; } outside[] = {
		{ iova - 1, 8 },
		{ iova, MR_SIZE + 1 },
		{ iova + MR_SIZE, 1 },
		{ iova + 8, -8UL },
		{ iova + PAGE, -PAGE },
		{ -8UL, 16 },
	};
	unsigned int i, zero;

	for (i = 0; i < 2 * ARRAY_LEN(outside); i++) {
		struct ibv_mw *mw = ibv_alloc_mw(rig->conn.far.pd, IBV_MW_TYPE_2);
		uint32_t rkey;

		zero = i % 2;
		ASSERT_NE(NULL, mw);
		EXPECT_EQ(-EREMOTEIO,
			  bind_window(rig, mw, self->mr, outside[i / 2].iova,
				      outside[i / 2].size, IBV_ACCESS_REMOTE_READ |
				      (zero ? IBV_ACCESS_ZERO_BASED : 0), &rkey)) {
			TH_LOG("at %#lx, %#lx bytes", outside[i / 2].iova,
			       outside[i / 2].size);
		}
		ASSERT_EQ(0, revive(&rig->conn, &rig->conn.near));
		EXPECT_EQ(0, ibv_dealloc_mw(mw));
	}
}

/* Local invalidate requests of the far side, and of a stranger, with the window's key. */
TEST_F(bounds, local_invalidate_rejects_unbound_and_foreign_mw)
{
	struct rig *rig = &self->rig;
	struct ibv_mw *mw = ibv_alloc_mw(rig->conn.far.pd, IBV_MW_TYPE_2);
	struct attempt a = { .op = READ, .size = PAGE };
	struct conn stranger;

	ASSERT_NE(NULL, mw);
	ASSERT_EQ(0, conn_up(&stranger));

	/* A window that has never been bound */
	EXPECT_EQ(-EREMOTEIO, rdma_invalidate(&rig->conn.far, mw->rkey));
	ASSERT_EQ(0, revive(&rig->conn, &rig->conn.near));

	a.iova = self->iova + WINDOW_AT;
	ASSERT_EQ(0, bind_window(rig, mw, self->mr, a.iova, PAGE,
				 IBV_ACCESS_REMOTE_READ, &a.key));
	EXPECT_DONE(a, MR_AT + WINDOW_AT);

	EXPECT_EQ(-EREMOTEIO, rdma_invalidate(&stranger.far, a.key));
	EXPECT_DONE(a, MR_AT + WINDOW_AT);

	EXPECT_EQ(0, rdma_invalidate(&rig->conn.far, a.key));
	EXPECT_REFUSED(a);
	EXPECT_EQ(-EREMOTEIO, rdma_invalidate(&rig->conn.far, a.key));
	ASSERT_EQ(0, revive(&rig->conn, &rig->conn.near));

	conn_down(&stranger);
	EXPECT_EQ(0, ibv_dealloc_mw(mw));
}

/*
 * Requests that the test writes into a send queue itself.
 */
TEST(user_wqe_with_fast_reg_opcode_is_rejected)
{
	struct conn conn;

	ASSERT_EQ(0, conn_up(&conn));
	/* A fast registration names its MR by a kernel pointer */
	EXPECT_EQ(-EREMOTEIO, raw_fast_reg(&conn.near, 0x4141414141414141));
	ASSERT_EQ(0, revive(&conn, &conn.far));
	conn_down(&conn);
}

TEST(user_wqe_with_inline_data_outside_it_is_rejected)
{
	struct buffer buf;
	struct ibv_mr *mr;
	struct conn conn;

	ASSERT_EQ(0, conn_up(&conn));
	ASSERT_EQ(0, buffer_map(&buf, MIB(2), MADV_HUGEPAGE));
	buffer_write(&buf, 0, MIB(2));
	mr = rdma_reg_odp(&conn.far, buf.mem, MIB(2));
	ASSERT_NE(NULL, mr);

	EXPECT_EQ(-EREMOTEIO, raw_inline_write(&conn.near, (uintptr_t)buf.mem,
					       mr->rkey, 0, PAGE / 2));
	ASSERT_EQ(0, revive(&conn, &conn.far));
	EXPECT_EQ(-EREMOTEIO, raw_inline_write(&conn.near, (uintptr_t)buf.mem,
					       mr->rkey, MIB(64), 8));
	ASSERT_EQ(0, revive(&conn, &conn.far));
	EXPECT_EQ(-1, buffer_differs(&buf));

	ibv_dereg_mr(mr);
	buffer_unmap(&buf);
	conn_down(&conn);
}

#define WR_ID	0x5a5a5a5a12345678

/* The kernel ignores the progress that a process writes into a receive request. */
TEST(receive_ignores_dma_state_in_user_wqe)
{
	static const uint32_t begins[] = { 1, 0x7fffffff, ~0U };
	struct rxe_recv_wqe *wqe;
	struct rig rig;
	unsigned int i;

	ASSERT_EQ(0, rig_init(&rig, MIB(2), MADV_HUGEPAGE));
	ASSERT_EQ(0, rig_register(&rig));
	for (i = 0; i < ARRAY_LEN(begins); i++) {
		struct ibv_sge sge = {
			.addr = (uintptr_t)rig.buf.mem,
			.length = PAGE,
			.lkey = rig.mr->lkey,
		};
		struct ibv_recv_wr *bad, wr = {
			.wr_id = WR_ID + i, .sg_list = &sge, .num_sge = 1,
		};

		buffer_write(&rig.ram, 0, PAGE);
		ASSERT_EQ(0, ibv_post_recv(rig.conn.far.qp, &wr, &bad));
		wqe = raw_find_wqe(wr.wr_id);
		ASSERT_NE(NULL, wqe);
		wqe->dma.cur_sge = begins[i];
		wqe->dma.sge_offset = 8;
		wqe->dma.resid = ~0;
		wqe->dma.length = 0;

		ASSERT_EQ(0, rdma_send(&rig.conn.near, rig.ram.mem,
				       rig.ram_mr->lkey, PAGE));
		ASSERT_EQ(0, rdma_wait(&rig.conn.far));
		memcpy(rig.buf.shadow, rig.ram.shadow, PAGE);
		EXPECT_EQ(-1, buffer_differs(&rig.buf));
	}

	EXPECT_EQ(0, rig_fini(&rig));
}

/* The kernel checks the elements of a request again when the response arrives. */
TEST(read_response_revalidates_sges_of_user_wqe)
{
	struct waiting waiting;
	struct rxe_send_wqe *wqe;

	ASSERT_EQ(0, waiting_init(&waiting, IBV_WR_RDMA_READ, WR_ID));
	wqe = raw_find_wqe(WR_ID);
	ASSERT_NE(NULL, wqe);
	wqe->dma.num_sge = ~0;
	wqe->dma.cur_sge = 0x7fffffff;
	EXPECT_EQ(IBV_WC_LOC_PROT_ERR, waiting_end(&waiting));
	waiting_fini(&waiting);
}

struct endless {
	struct rxe_queue_buf *queues[2];
	volatile int begun;
	volatile bool stop;
};

static void *post_on(void *arg)
{
	struct endless *endless = arg;
	unsigned int i;

	for (i = 0; !endless->stop; i ^= 1) {
		struct rxe_queue_buf *queue = endless->queues[i];

		*(volatile uint32_t *)&queue->producer_index =
			*(volatile uint32_t *)&queue->consumer_index - 1;
		endless->begun = 1;
	}
	return NULL;
}

/* A thread posts as fast as the kernel flushes the queues of a QP that has failed. */
TEST(qp_error_flush_ends_while_a_thread_posts)
{
	struct endless endless = {};
	struct conn conn;
	pthread_t thread;

	ASSERT_EQ(0, conn_up(&conn));
	endless.queues[0] = raw_send_queue(&conn.near);
	endless.queues[1] = raw_recv_queue(&conn.near);
	ASSERT_NE(NULL, endless.queues[0]);
	ASSERT_NE(NULL, endless.queues[1]);

	ASSERT_EQ(0, pthread_create(&thread, NULL, post_on, &endless));
	EXPECT_EQ(0, wait_until(&endless.begun, 1));
	EXPECT_EQ(0, qp_to_error(conn.near.qp));
	usleep(10000);
	endless.stop = true;
	EXPECT_EQ(0, pthread_join(thread, NULL));
	conn_down(&conn);
}

/* Connect the QPs again, with room for @answers responses on the far side. */
static int connect_again(struct conn *conn, unsigned int answers)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;
	struct rdma_addr far;
	int err;

	err = -ibv_query_qp(conn->far.qp, &attr, IBV_QP_AV, &init);
	err = err ?: qp_restart(conn->near.qp);
	err = err ?: qp_restart(conn->far.qp);
	if (err)
		return err;

	rdma_address(&conn->far, &far);
	attr.qp_state = IBV_QPS_RTR;
	attr.rq_psn = 0;
	attr.max_dest_rd_atomic = answers;
	attr.qp_access_flags = RAW_ACCESS_FLUSH_GLOBAL | IBV_ACCESS_REMOTE_WRITE;
	err = -ibv_modify_qp(conn->far.qp, &attr, IBV_QP_STATE | IBV_QP_AV |
			     IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
			     IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER |
			     IBV_QP_ACCESS_FLAGS);
	return err ?: rdma_connect(&conn->near, &far);
}

TEST(flush_without_responder_resources_is_rejected)
{
	struct buffer buf;
	struct ibv_mr *mr;
	struct conn conn;

	ASSERT_EQ(0, conn_up(&conn));
	ASSERT_EQ(0, buffer_map(&buf, MIB(2), MADV_HUGEPAGE));
	mr = raw_reg_flushable(&conn.far, buf.mem, MIB(2));
	ASSERT_NE(NULL, mr);

	ASSERT_EQ(0, connect_again(&conn, 1));
	EXPECT_EQ(0, raw_flush(&conn.near, (uintptr_t)buf.mem, mr->rkey, PAGE,
			       RAW_FLUSH_GLOBAL));
	ASSERT_EQ(0, connect_again(&conn, 0));
	EXPECT_EQ(-EREMOTEIO, raw_flush(&conn.near, (uintptr_t)buf.mem, mr->rkey,
					PAGE, RAW_FLUSH_GLOBAL));

	ibv_dereg_mr(mr);
	buffer_unmap(&buf);
	conn_down(&conn);
}

/* A request that was lost goes to the same address when it is sent again. */
TEST(retried_atomic_write_keeps_remote_address)
{
	struct rxe_queue_buf *queue;
	struct rdma_addr near, far;
	struct buffer buf;
	struct ibv_mr *mr;
	struct conn conn;

	ASSERT_EQ(0, conn_up(&conn));
	ASSERT_EQ(0, buffer_map(&buf, MIB(2), MADV_HUGEPAGE));
	buffer_write(&buf, 0, MIB(2));
	/* With an IOVA of 0, a wrong address is valid too, and shows in the buffer */
	mr = reg(conn.far.pd, buf.mem, MIB(2), 0, IN_RAM);
	ASSERT_NE(NULL, mr);
	queue = raw_send_queue(&conn.near);
	ASSERT_NE(NULL, queue);

	rdma_address(&conn.near, &near);
	rdma_address(&conn.far, &far);
	ASSERT_EQ(0, qp_restart(conn.near.qp));
	ASSERT_EQ(0, qp_restart(conn.far.qp));
	ASSERT_EQ(0, rdma_connect(&conn.near, &far));
	ASSERT_EQ(0, raw_atomic_write_begin(&conn.near, queue, PAGE, mr->rkey,
					    0x1122334455667788));
	usleep(100000);
	ASSERT_EQ(0, rdma_connect(&conn.far, &near));
	EXPECT_EQ(0, raw_atomic_write_end(&conn.near));
	*(uint64_t *)(buf.shadow + PAGE) = 0x1122334455667788;
	EXPECT_EQ(-1, buffer_differs(&buf));

	ibv_dereg_mr(mr);
	buffer_unmap(&buf);
	conn_down(&conn);
}

/* The number of prefetches that a process has under way is limited. */
TEST(process_has_limit_of_pending_prefetches)
{
	struct ibv_sge sge;
	struct ibv_mr *mr;
	struct held held;
	struct rdma r;
	int i, err = 0;

	ASSERT_EQ(0, rdma_open(&r));
	ASSERT_EQ(0, held_map(&held, PAGE));
	mr = rdma_reg_odp(&r, held.mem, PAGE);
	ASSERT_NE(NULL, mr);

	sge = (struct ibv_sge) {
		.addr = (uintptr_t)held.mem, .length = PAGE, .lkey = mr->lkey,
	};
	for (i = 0; i < 1000 && !err; i++)
		err = rdma_advise(r.pd, IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, 0, &sge);
	EXPECT_EQ(-EBUSY, err);
	ASSERT_EQ(0, held_release(&held));

	EXPECT_EQ(0, ibv_dereg_mr(mr));
	held_unmap(&held);
	rdma_close(&r);
}

/*
 * MRs of up to more memory than the machine has. Data is at the beginning, in the
 * middle and at the end.
 */
static void big(struct __test_metadata *_metadata, size_t size)
{
	size_t at[3] = { 0, size / 2 - PAGE - 1, size - MIB(1) };
	struct rig rig;
	struct ibv_mr *mr;
	unsigned int i;
	uint8_t *mem;

	ASSERT_EQ(0, rig_init(&rig, MIB(2), MADV_HUGEPAGE));
	mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS |
		   MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, mem);
	mr = reg(rig.conn.far.pd, mem, size, 0, IN_RAM);
	ASSERT_NE(NULL, mr);

	for (i = 0; i < ARRAY_LEN(at); i++) {
		struct ibv_sge sge = {
			.addr = at[i], .length = MIB(1), .lkey = mr->lkey,
		};

		buffer_write(&rig.ram, 0, MIB(2));
		EXPECT_EQ(0, rdma_write(&rig.conn.near, rig.ram.mem,
					rig.ram_mr->lkey, at[i], mr->rkey, MIB(1)));
		EXPECT_EQ(-1, differs(mem + at[i], rig.ram.shadow, MIB(1)));
		EXPECT_EQ(0, rdma_read(&rig.conn.near, rig.ram.mem + MIB(1),
				       rig.ram_mr->lkey, at[i], mr->rkey, MIB(1)));
		EXPECT_EQ(-1, differs(rig.ram.mem + MIB(1), rig.ram.shadow, MIB(1)));
		EXPECT_EQ(0, rdma_advise(rig.conn.far.pd,
					 IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE,
					 IBV_ADVISE_MR_FLAG_FLUSH, &sge));

		/* All of the MR, or as much as the length of an element can hold */
		sge.addr = 0;
		sge.length = size < 0xfffff000 ? size : 0xfffff000;
		EXPECT_EQ(0, rdma_advise(rig.conn.far.pd,
					 IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT,
					 IBV_ADVISE_MR_FLAG_FLUSH, &sge));
	}

	EXPECT_EQ(0, ibv_dereg_mr(mr));
	munmap(mem, size);
	EXPECT_EQ(0, rig_fini(&rig));
}

#define GIB(n)	((size_t)(n) << 30)

TEST(rdma_reaches_all_of_mr_of_2_gib)
{
	big(_metadata, GIB(2));
}

TEST(rdma_reaches_all_of_mr_of_4_gib)
{
	big(_metadata, GIB(4));
}

TEST(rdma_reaches_all_of_mr_of_5_gib)
{
	big(_metadata, GIB(5) + PAGE);
}

TEST(rdma_reaches_all_of_mr_of_64_gib)
{
	big(_metadata, GIB(64));
}

/* The range need not be mapped: there is not enough memory for the page list. */
TEST(oversized_mr_fails_with_enomem)
{
	static const size_t sizes[] = { GIB(1024), GIB(8192), GIB(64 * 1024) };
	struct rdma r;
	unsigned int i;

	ASSERT_EQ(0, rdma_open(&r));
	for (i = 0; i < ARRAY_LEN(sizes); i++) {
		errno = 0;
		EXPECT_EQ(NULL, reg(r.pd, (void *)MIB(1), sizes[i], 0, IN_RAM));
		EXPECT_EQ(ENOMEM, errno);
	}
	rdma_close(&r);
}

/*
 * A request to unmapped memory fails halfway, after all checks of the request itself.
 * The next request, on a new connection of the same QPs, must not see its state.
 */
TEST(failed_request_leaves_no_state_for_next_request)
{
	struct attempt hole = { .size = 64 }, a = { .size = 64 };
	struct rig rig;
	struct ibv_mr *mr;
	uint8_t *mem;

	ASSERT_EQ(0, rig_init(&rig, MIB(2), MADV_HUGEPAGE));
	mem = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, mem);
	ASSERT_EQ(0, munmap(mem + PAGE, PAGE));
	mr = reg(rig.conn.far.pd, mem, 2 * PAGE, (uintptr_t)mem, IN_RAM);
	ASSERT_NE(NULL, mr);
	ASSERT_EQ(0, rig_register(&rig));

	hole.iova = (uintptr_t)mem + PAGE;
	a.iova = (uintptr_t)rig.buf.mem + PAGE;
	for (hole.op = 0; hole.op < OPS; hole.op++) {
		hole.key = hole.op < REMOTE_OPS ? mr->rkey : mr->lkey;
		for (a.op = 0; a.op < OPS; a.op++) {
			a.key = a.op < REMOTE_OPS ? rig.mr->rkey : rig.mr->lkey;
			EXPECT_TRUE(refused(&rig, &hole));
			EXPECT_EQ(0, attempt(&rig, &a)) {
				TH_LOG("%s after %s", op_names[a.op],
				       op_names[hole.op]);
			}
			EXPECT_TRUE(done_right(&rig, &a, PAGE));
		}
	}

	ibv_dereg_mr(mr);
	munmap(mem, PAGE);
	EXPECT_EQ(0, rig_fini(&rig));
}

#define CGROUP	CGROUPS "bounds/"

/* MRs of unmapped memory, with page lists of 2 MiB. */
static int reg_nothing(struct rdma *r)
{
	return reg(r->pd, (void *)MIB(1), GIB(1), 0, IN_RAM) ? 0 : -errno;
}

/* Idle QPs, with queues of 4 MiB or more. */
static int create_idle_qp(struct rdma *r)
{
	struct ibv_qp_init_attr attr = {
		.qp_type = IBV_QPT_RC,
		.send_cq = r->cq,
		.recv_cq = r->cq,
		.cap = {
			.max_send_wr = 16383,
			.max_recv_wr = 1,
			.max_send_sge = 1,
			.max_recv_sge = 1,
		},
	};

	return ibv_create_qp(r->pd, &attr) ? 0 : -errno;
}

/*
 * A worker faults in a page of each of 512 page tables. The pages are the zero page, and
 * cost nothing.
 */
static int prefetch_sparsely(struct rdma *r)
{
	uint64_t mine = field_read("/proc/self/status", "VmPTE");
	struct ibv_sge sge[512];
	struct ibv_mr *mr;
	uint8_t *mem;
	int i;

	mem = mmap(NULL, GIB(1), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED || madvise(mem, GIB(1), MADV_NOHUGEPAGE))
		return -errno;
	mr = reg(r->pd, mem, GIB(1), (uintptr_t)mem, IN_RAM);
	if (!mr)
		return -errno;
	for (i = 0; i < 512; i++)
		sge[i] = (struct ibv_sge){
			.addr = (uintptr_t)mem + i * MIB(2), .length = PAGE, .lkey = mr->lkey,
		};
	i = rdma_advise_list(r->pd, IBV_ADVISE_MR_ADVICE_PREFETCH, 0, sge, 512);
	if (i)
		return i;

	/* The statistics of a cgroup may be two seconds old */
	for (i = 0; i < 10000; i++, usleep(1000))
		if (field_read("/proc/self/status", "VmPTE") >= mine + 2048 &&
		    field_read(CGROUP "memory.stat", "pagetables") >= MIB(2))
			return 1;
	return -EDQUOT;
}

/* Create objects in a cgroup with a limit of 64 MiB. */
static int create_in_cgroup(void *arg)
{
	int (*create)(struct rdma *r) = arg;
	struct rdma r;
	int i, err;

	err = file_write(CGROUP "cgroup.procs", "0");
	err = err ?: rdma_open(&r);
	for (i = 0; i < 100 && !err; i++)
		err = create(&r);
	return err;
}

static void pays_for(struct __test_metadata *_metadata, int (*create)(struct rdma *r),
		     int expected)
{
	struct child child;

	ASSERT_EQ(0, cgroup_make(CGROUP));
	ASSERT_EQ(0, file_write(CGROUP "memory.max", "67108864"));

	ASSERT_EQ(0, child_fork(&child, create_in_cgroup, create));
	EXPECT_EQ(expected, child_do(&child));
	EXPECT_EQ(0, child_end(&child));

	EXPECT_EQ(0, rmdir(CGROUP));
}

TEST(memcg_is_charged_for_mr_page_lists)
{
	pays_for(_metadata, reg_nothing, -ENOMEM);
}

TEST(memcg_is_charged_for_qp_queues)
{
	pays_for(_metadata, create_idle_qp, -ENOMEM);
}

TEST(memcg_is_charged_for_page_tables_of_prefetch)
{
	pays_for(_metadata, prefetch_sparsely, 1);
}

/* Not even the kernel has a mapping of secret memory. */
TEST(rdma_on_memfd_secret_fails)
{
	static const char secret[] = "that nobody is told";
	struct attempt a = { .size = 64 };
	struct rig rig;
	struct ibv_mr *mr;
	uint8_t *mem;

	ASSERT_EQ(0, rig_init(&rig, MIB(2), MADV_HUGEPAGE));
	buffer_write(&rig.ram, 0, MIB(2));
	buffer_write(&rig.buf, 0, MIB(2));

	mem = secret_map(2 * PAGE);
	ASSERT_NE(NULL, mem);
	memcpy(mem, secret, sizeof(secret));

	EXPECT_EQ(NULL, reg(rig.conn.far.pd, mem, 2 * PAGE, 0, PINNED));
	mr = reg(rig.conn.far.pd, mem, 2 * PAGE, (uintptr_t)mem, IN_RAM);
	ASSERT_NE(NULL, mr);
	for (a.iova = (uintptr_t)mem; a.iova <= (uintptr_t)mem + PAGE; a.iova += PAGE) {
		struct ibv_sge sge = { .addr = a.iova, .length = PAGE, .lkey = mr->lkey };

		for (a.op = 0; a.op < OPS; a.op++) {
			a.key = a.op < REMOTE_OPS ? mr->rkey : mr->lkey;
			EXPECT_TRUE(refused(&rig, &a)) {
				TH_LOG("%s", op_names[a.op]);
			}
		}
		EXPECT_EQ(-EFAULT, rdma_advise(rig.conn.far.pd,
					       IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE,
					       IBV_ADVISE_MR_FLAG_FLUSH, &sge));
	}
	EXPECT_EQ(0, memcmp(mem, secret, sizeof(secret)));

	ibv_dereg_mr(mr);
	munmap(mem, 2 * PAGE);
	EXPECT_EQ(0, rig_fini(&rig));
}

TEST_HARNESS_MAIN
