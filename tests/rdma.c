// SPDX-License-Identifier: GPL-2.0
/*
 * An importer works on the memory of a GPU. Each kind of RDMA operation reaches VRAM
 * in place, and nothing migrates because of it.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpu.h"
#include "measure.h"
#include "lib/child.h"
#include "lib/command.h"
#include "lib/harness.h"
#include "lib/raw_wqe.h"
#include "lib/rig.h"
#include "lib/stats.h"
#include "lib/vram.h"
#include "lib/waiting.h"
#include "lib/worker.h"

#define SIZE	MIB(4)
#define PAGES	(SIZE / PAGE)

static const struct piece {
	size_t offset;
	size_t size;
} odd_pieces[] = {
	{ 0, 1 },
	{ 1, 1 },
	{ PAGE - 1, 2 },
	{ PAGE - 1, PAGE + 2 },
	{ 3 * PAGE - 5, 3 * PAGE + 7 },
	{ 123457, 70001 },
	{ HUGE_PAGE / 2 + 3, 5 * PAGE - 1 },
	{ HUGE_PAGE - 3, 7 },
	{ HUGE_PAGE - PAGE - 1, 2 * PAGE + 9 },
	{ SIZE - PAGE - 1, PAGE + 1 },
	{ SIZE - 1, 1 },
};

FIXTURE(vram) {
	struct rig rig;
	uint64_t evicted;
	uint64_t aliases;
};

FIXTURE_VARIANTS_BY_ADVICE(vram);

/* All memory is in VRAM, with contents that were never in RAM, and has an MR. */
FIXTURE_SETUP(vram)
{
	ASSERT_EQ(0, rig_init_in_vram(&self->rig, SIZE, variant->advice));
	self->evicted = pages_evicted(self->rig.gpu);
	self->aliases = stat_read("alias_cpu");
}

/* CPU accesses come last, since they migrate the memory. */
FIXTURE_TEARDOWN(vram)
{
	EXPECT_EQ(-1, buffer_differs(&self->rig.buf));
	EXPECT_EQ(0, rig_fini(&self->rig));
}

/* Nothing has left VRAM so far. */
#define EXPECT_IN_VRAM() do {						\
	EXPECT_EQ(self->evicted, pages_evicted(self->rig.gpu));		\
	EXPECT_EQ(PAGES, pages_in_vram(self->rig.gpu,			\
				       self->rig.buf.mem, SIZE));	\
} while (0)

/* A device that is gone reads as ones, too. */
TEST_F(vram, rdma_transfers_pages_full_of_ones)
{
	struct rig *rig = &self->rig;

	memset(rig->buf.mem, 0xff, 3 * PAGE);
	memset(rig->buf.shadow, 0xff, 3 * PAGE);
	ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, MIB(2)));
	EXPECT_EQ(0, rig_read(rig, 0, 3 * PAGE));
	EXPECT_EQ(0, memcmp(rig->ram.mem, rig->buf.shadow, 3 * PAGE));
	EXPECT_EQ(0, rig_write(rig, PAGE, 2 * PAGE));
}

TEST_F(vram, rdma_read_returns_vram_data_in_place)
{
	EXPECT_EQ(-1, rig_differs(&self->rig));
	EXPECT_IN_VRAM();
}

TEST_F(vram, write_arrives_in_vram)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, rig_write_new(rig, 0, SIZE));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&rig->buf, rig->gpu));
	EXPECT_IN_VRAM();
}

TEST_F(vram, read_at_odd_offsets)
{
	struct rig *rig = &self->rig;
	struct buffer *ram = &rig->ram;
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(odd_pieces); i++) {
		const struct piece *p = &odd_pieces[i];

		ASSERT_EQ(0, rig_read(rig, p->offset, p->size));
		memcpy(ram->shadow + p->offset, rig->buf.shadow + p->offset,
		       p->size);
		EXPECT_EQ(-1, buffer_differs(ram)) {
			TH_LOG("%zu bytes at %zu", p->size, p->offset);
		}
	}
	EXPECT_IN_VRAM();
}

TEST_F(vram, write_at_odd_offsets)
{
	struct rig *rig = &self->rig;
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(odd_pieces); i++) {
		const struct piece *p = &odd_pieces[i];

		ASSERT_EQ(0, rig_write_new(rig, p->offset, p->size));
	}
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_IN_VRAM();
}

/* The same, with the memory on the side that makes the requests. */
TEST_F(vram, requester_reads_and_writes_local_vram)
{
	struct rig *rig = &self->rig;
	struct rdma *near = &rig->conn.near;
	struct ibv_mr *local, *remote;
	size_t offset = 3 * PAGE - 5, size = HUGE_PAGE + 11;

	local = rdma_reg_odp(near, rig->buf.mem, SIZE);
	remote = rdma_reg_odp(&rig->conn.far, rig->ram.mem, SIZE);
	ASSERT_NE(NULL, local);
	ASSERT_NE(NULL, remote);

	ASSERT_EQ(0, rdma_write(near, rig->buf.mem + offset, local->lkey,
				(uintptr_t)rig->ram.mem + offset,
				remote->rkey, size));
	memcpy(rig->ram.shadow + offset, rig->buf.shadow + offset, size);
	EXPECT_EQ(-1, buffer_differs(&rig->ram));

	buffer_write(&rig->ram, offset, size);
	ASSERT_EQ(0, rdma_read(near, rig->buf.mem + offset, local->lkey,
			       (uintptr_t)rig->ram.mem + offset,
			       remote->rkey, size));
	memcpy(rig->buf.shadow + offset, rig->ram.shadow + offset, size);
	EXPECT_EQ(-1, buffer_differs_on_gpu(&rig->buf, rig->gpu));
	EXPECT_IN_VRAM();

	ibv_dereg_mr(local);
	ibv_dereg_mr(remote);
}

TEST_F(vram, send_out_of_vram)
{
	struct rig *rig = &self->rig;
	size_t offset = PAGE - 1, size = HUGE_PAGE + PAGE + 3;

	/* The far side sends, since it has the MR. */
	ASSERT_EQ(0, rdma_post_recv(&rig->conn.near, rig->ram.mem + offset,
				    rig->ram_mr->lkey, size));
	ASSERT_EQ(0, rdma_send(&rig->conn.far, rig->buf.mem + offset,
			       rig->mr->lkey, size));
	ASSERT_EQ(0, rdma_wait(&rig->conn.near));

	memcpy(rig->ram.shadow + offset, rig->buf.shadow + offset, size);
	EXPECT_EQ(-1, buffer_differs(&rig->ram));
	EXPECT_IN_VRAM();
}

TEST_F(vram, recv_into_vram)
{
	struct rig *rig = &self->rig;
	size_t offset = PAGE - 1, size = HUGE_PAGE + PAGE + 3;

	ASSERT_EQ(0, rdma_post_recv(&rig->conn.far, rig->buf.mem + offset,
				    rig->mr->lkey, size));
	ASSERT_EQ(0, rdma_send(&rig->conn.near, rig->ram.mem + offset,
			       rig->ram_mr->lkey, size));
	ASSERT_EQ(0, rdma_wait(&rig->conn.far));

	memcpy(rig->buf.shadow + offset, rig->ram.shadow + offset, size);
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_IN_VRAM();
}

TEST_F(vram, fetch_add)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, rig_add(rig, HUGE_PAGE / 2 + 24, 0x123456789abcdef1));
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_IN_VRAM();
}

TEST_F(vram, cmp_swap_that_matches)
{
	struct rig *rig = &self->rig;
	size_t offset = HUGE_PAGE + 4088;
	uint64_t *word = (uint64_t *)(rig->buf.shadow + offset);
	uint64_t *old = (uint64_t *)rig->ram.mem;

	ASSERT_EQ(0, rdma_cmp_swap(&rig->conn.near, old, rig->ram_mr->lkey,
				   (uintptr_t)rig->buf.mem + offset,
				   rig->mr->rkey, *word, ~*word));
	EXPECT_EQ(*word, *old);
	*word = ~*word;
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_IN_VRAM();
}

TEST_F(vram, cmp_swap_that_does_not_match)
{
	struct rig *rig = &self->rig;
	size_t offset = HUGE_PAGE + 4088;
	uint64_t *word = (uint64_t *)(rig->buf.shadow + offset);
	uint64_t *old = (uint64_t *)rig->ram.mem;

	ASSERT_EQ(0, rdma_cmp_swap(&rig->conn.near, old, rig->ram_mr->lkey,
				   (uintptr_t)rig->buf.mem + offset,
				   rig->mr->rkey, *word + 1, ~*word));
	EXPECT_EQ(*word, *old);
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_IN_VRAM();
}

/* The verbs library knows neither this operation nor the next one. */
TEST_F(vram, atomic_write)
{
	struct rig *rig = &self->rig;
	size_t offset = 5 * PAGE + 8;
	uint64_t *word = (uint64_t *)(rig->buf.shadow + offset);

	ASSERT_EQ(0, raw_atomic_write(&rig->conn.near,
				      (uintptr_t)rig->buf.mem + offset,
				      rig->mr->rkey, 0xfedcba9876543210));
	*word = 0xfedcba9876543210;
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_IN_VRAM();
}

TEST_F(vram, flush_of_a_write_to_vram)
{
	struct rig *rig = &self->rig;
	size_t offset = PAGE - 1, size = 3 * PAGE + 2;
	struct ibv_mr *mr;

	mr = raw_reg_flushable(&rig->conn.far, rig->buf.mem, SIZE);
	ASSERT_NE(NULL, mr);
	ASSERT_EQ(0, rig_write_new(rig, offset, size));
	EXPECT_EQ(0, raw_flush(&rig->conn.near,
			       (uintptr_t)rig->buf.mem + offset, mr->rkey,
			       size, RAW_FLUSH_GLOBAL));
	EXPECT_EQ(0, raw_flush_all(&rig->conn.near, mr->rkey,
				   RAW_FLUSH_GLOBAL));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&rig->buf, rig->gpu));
	EXPECT_IN_VRAM();
	ibv_dereg_mr(mr);
}

/* Nor is RAM persistent: neither keeps its contents without power. */
TEST_F(vram, persistent_flush_of_vram_is_rejected)
{
	struct rig *rig = &self->rig;
	uint64_t addr = (uintptr_t)rig->buf.mem;
	struct ibv_mr *mr;

	mr = raw_reg_flushable(&rig->conn.far, rig->buf.mem, SIZE);
	ASSERT_NE(NULL, mr);
	EXPECT_EQ(-EREMOTEIO, raw_flush(&rig->conn.near, addr + PAGE, mr->rkey,
					PAGE, RAW_FLUSH_PERSISTENT));
	EXPECT_EQ(IBV_WC_REM_ACCESS_ERR, rdma_status(&rig->conn.near));
	ASSERT_EQ(0, conn_revive(&rig->conn));
	EXPECT_IN_VRAM();

	ibv_dereg_mr(mr);
	mr = raw_reg_flushable(&rig->conn.far, rig->ram.mem, SIZE);
	ASSERT_NE(NULL, mr);
	EXPECT_EQ(-EREMOTEIO, raw_flush_all(&rig->conn.near, mr->rkey,
					    RAW_FLUSH_PERSISTENT));
	EXPECT_EQ(IBV_WC_REM_ACCESS_ERR, rdma_status(&rig->conn.near));
	ASSERT_EQ(0, conn_revive(&rig->conn));
	ibv_dereg_mr(mr);
}

TEST_F(vram, prefetch_counts_one_alias_per_page)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, rig_prefetch(rig, 0, SIZE, 1));
	EXPECT_EQ(self->aliases + PAGES, stat_read("alias_cpu"));
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_IN_VRAM();
}

TEST_F(vram, gpu_and_importer_see_writes_of_each_other)
{
	struct rig *rig = &self->rig;
	int i;

	for (i = 0; i < 10; i++) {
		size_t offset = (i * 7 + 1) * PAGE - 8;

		ASSERT_EQ(0, buffer_xor(&rig->buf, rig->gpu, offset,
					2 * PAGE + 16));
		ASSERT_EQ(0, rig_write_new(rig, offset + PAGE, PAGE + 1));
		EXPECT_EQ(-1, rig_differs(rig));
	}
	EXPECT_EQ(-1, buffer_differs_on_gpu(&rig->buf, rig->gpu));
	EXPECT_IN_VRAM();
}

TEST_F(vram, enabled_never_makes_all_pages_migrate)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, aliases_enable(false));
	EXPECT_EQ(0, rig_register(rig));
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_EQ(0, aliases_enable(true));

	EXPECT_EQ(self->aliases, stat_read("alias_cpu"));
	EXPECT_EQ(self->evicted + PAGES, pages_evicted(rig->gpu));
	EXPECT_EQ(0, pages_in_vram(rig->gpu, rig->buf.mem, SIZE));
}

TEST_F(vram, enabled_always_again_keeps_pages_in_vram)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, aliases_enable(false));
	EXPECT_EQ(0, rig_register(rig));
	EXPECT_EQ(0, aliases_enable(true));
	EXPECT_EQ(-1, rig_differs(rig));
	EXPECT_IN_VRAM();
}

TEST_F(vram, odp_mr_registration_migrates_no_page)
{
	EXPECT_EQ(0, rig_register(&self->rig));
	EXPECT_IN_VRAM();
}

/* The first accesses begin in the middle of the memory, of an MR, of a folio. */
TEST_F(vram, mr_from_inside_a_huge_page_is_accessed_in_place)
{
	struct rig *rig = &self->rig;
	size_t offset = HUGE_PAGE / 2 + 5 * PAGE + 123, size = HUGE_PAGE;
	struct ibv_mr *mr;

	ASSERT_EQ(0, aliases_enable(false));
	mr = rdma_reg_odp(&rig->conn.far, rig->buf.mem + offset, size);
	ASSERT_EQ(0, aliases_enable(true));
	ASSERT_NE(NULL, mr);

	ASSERT_EQ(0, rdma_read(&rig->conn.near, rig->ram.mem + 1,
			       rig->ram_mr->lkey,
			       (uintptr_t)rig->buf.mem + offset + PAGE,
			       mr->rkey, size - PAGE));
	EXPECT_EQ(-1, differs(rig->ram.mem + 1,
			      rig->buf.shadow + offset + PAGE, size - PAGE));

	ASSERT_EQ(0, rdma_write(&rig->conn.near, rig->ram.mem + HUGE_PAGE,
				rig->ram_mr->lkey,
				(uintptr_t)rig->buf.mem + offset + PAGE + 1,
				mr->rkey, PAGE + 77));
	memcpy(rig->buf.shadow + offset + PAGE + 1,
	       rig->ram.mem + HUGE_PAGE, PAGE + 77);
	EXPECT_EQ(-1, buffer_differs_on_gpu(&rig->buf, rig->gpu));
	EXPECT_IN_VRAM();
	ibv_dereg_mr(mr);
}

/* Another thread works on the memory at the same time. */

static int move_to_and_fro(struct worker *worker)
{
	struct rig *rig = worker->rig;
	volatile uint8_t *touch = rig->buf.mem;
	int err;

	err = gpu_to_vram(rig->gpu, rig->buf.mem, SIZE, NULL);
	if (!err && worker->rounds % 2)
		err = gpu_to_ram(rig->gpu, rig->buf.mem, HUGE_PAGE);
	touch[HUGE_PAGE - 1];
	touch[HUGE_PAGE + PAGE];

	return err;
}

static int switch_on_and_off(struct worker *worker)
{
	struct rig *rig = worker->rig;
	int err;

	/* For memory in RAM, the importer would not ask for an alias. */
	err = aliases_enable(worker->rounds % 2);
	return err ? err : gpu_to_vram(rig->gpu, rig->buf.mem, SIZE, NULL);
}

/* Only the importer writes, to a word here and there. */
static int add_during(struct rig *rig, int (*work)(struct worker *worker))
{
	static const size_t offsets[] = {
		0, PAGE + 8, HUGE_PAGE - 8, HUGE_PAGE + PAGE, SIZE - 8,
	};
	struct worker worker = { .rig = rig };
	int i, err;

	err = worker_start(&worker, work);
	if (err)
		return err;

	for (i = 0; (i < 200 || worker.rounds < 6) && !err && !worker.err; i++)
		err = rig_add(rig, offsets[i % ARRAY_LEN(offsets)], i + 1);

	return worker_stop(&worker) ?: err;
}

/*
 * An update through an alias of a page that has been migrated already would be lost,
 * and a read through one would return an old value.
 */
TEST_F(vram, no_fetch_add_is_lost_during_migration)
{
	EXPECT_EQ(0, add_during(&self->rig, move_to_and_fro));
}

TEST_F(vram, no_fetch_add_is_lost_while_enabled_toggles)
{
	EXPECT_EQ(0, add_during(&self->rig, switch_on_and_off));
	EXPECT_EQ(0, aliases_enable(true));
}

TEST_F(vram, no_write_is_lost_to_migration)
{
	struct rig *rig = &self->rig;
	struct worker worker = { .rig = rig };
	int i, err = 0;

	ASSERT_EQ(0, worker_start(&worker, move_to_and_fro));
	for (i = 0; (i < 40 || worker.rounds < 6) && !err && !worker.err; i++) {
		size_t offset = (i * 13 * PAGE + 8 * i + 1) % (SIZE / 2);

		err = rig_write_new(rig, offset, 20 * PAGE + i);
		if (!err && !(i % 8) && rig_differs(rig) != -1)
			err = -EILSEQ;
	}
	EXPECT_EQ(0, worker_stop(&worker));
	EXPECT_EQ(0, err);
}

/*
 * A page fault of an on-demand MR times out after a second. That includes the wait
 * for the mmap lock, which another thread holds for longer here. The peer must wait,
 * and its connection must last. On a machine that is so fast that the lock is held
 * for less than a second, this tests nothing.
 */
#define VAST	((size_t)12 << 30)

struct vast {
	uint8_t *mem;
	volatile bool stop;
	pthread_t thread;
};

static void *protect_to_and_fro(void *arg)
{
	struct vast *vast = arg;

	while (!vast->stop) {
		mprotect(vast->mem, VAST, PROT_NONE);
		mprotect(vast->mem, VAST, PROT_READ);
	}
	return NULL;
}

static int vast_start(struct vast *vast)
{
	vast->stop = false;
	vast->mem = mmap(NULL, VAST, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS |
			 MAP_NORESERVE, -1, 0);
	if (vast->mem == MAP_FAILED)
		return -ENOMEM;
	if (madvise(vast->mem, VAST, MADV_NOHUGEPAGE) ||
	    madvise(vast->mem, VAST, MADV_POPULATE_READ))
		return -errno;
	return -pthread_create(&vast->thread, NULL, protect_to_and_fro, vast);
}

static void vast_stop(struct vast *vast)
{
	vast->stop = true;
	pthread_join(vast->thread, NULL);
	munmap(vast->mem, VAST);
}

/* Both sides have to fault each time. */
static void forget(struct rig *rig)
{
	buffer_write(&rig->ram, 0, PAGE);
	madvise(rig->buf.mem, 4 * PAGE, MADV_DONTNEED);
	memset(rig->buf.shadow, 0, 4 * PAGE);
}

TEST(odp_fault_beyond_timeout_does_not_fail_request)
{
	struct rig rig;
	struct vast vast;
	uint8_t *ram;

	ASSERT_EQ(0, rig_init(&rig, MIB(2), MADV_NOHUGEPAGE));
	ASSERT_EQ(0, rig_register(&rig));
	ram = rig.ram.mem;
	ASSERT_EQ(0, vast_start(&vast));

	forget(&rig);
	EXPECT_EQ(0, rig_read(&rig, 0, 4 * PAGE));
	memset(rig.ram.shadow, 0, 4 * PAGE);
	EXPECT_EQ(-1, buffer_differs(&rig.ram));
	forget(&rig);
	EXPECT_EQ(0, rig_write_new(&rig, 0, 2 * PAGE));
	EXPECT_EQ(-1, buffer_differs(&rig.buf));
	forget(&rig);
	EXPECT_EQ(0, rig_add(&rig, 8, 1));
	EXPECT_EQ(0, rig_add(&rig, 8, 1));
	EXPECT_EQ(-1, buffer_differs(&rig.buf));
	memcpy(rig.ram.shadow, ram, 8);

	/* The far side's own requests: a read, a write, and a receive */
	forget(&rig);
	EXPECT_EQ(0, rdma_read(&rig.conn.far, rig.buf.mem, rig.mr->lkey,
			       (uintptr_t)ram, rig.ram_mr->rkey, PAGE));
	memcpy(rig.buf.shadow, rig.ram.shadow, PAGE);
	EXPECT_EQ(-1, buffer_differs(&rig.buf));
	forget(&rig);
	EXPECT_EQ(0, rdma_write(&rig.conn.far, rig.buf.mem, rig.mr->lkey,
				(uintptr_t)ram, rig.ram_mr->rkey, PAGE));
	memset(rig.ram.shadow, 0, PAGE);
	EXPECT_EQ(-1, buffer_differs(&rig.ram));
	forget(&rig);
	ASSERT_EQ(0, rdma_post_recv(&rig.conn.far, rig.buf.mem,
				    rig.mr->lkey, PAGE));
	EXPECT_EQ(0, rdma_send(&rig.conn.near, ram, rig.ram_mr->lkey,
			       PAGE));
	EXPECT_EQ(0, rdma_wait(&rig.conn.far));
	memcpy(rig.buf.shadow, rig.ram.shadow, PAGE);
	EXPECT_EQ(-1, buffer_differs(&rig.buf));

	vast_stop(&vast);
	EXPECT_EQ(0, rig_fini(&rig));
}

/*
 * A response that does not fit the request: to an atomic whose opcode in the queue
 * becomes a write before the response arrives.
 */
TEST(mismatched_response_completes_with_bad_resp_err)
{
	struct waiting waiting;

	ASSERT_EQ(0, waiting_init(&waiting, IBV_WR_ATOMIC_FETCH_AND_ADD, 0));
	ASSERT_EQ(0, raw_change_opcode(IBV_WR_RDMA_WRITE));
	EXPECT_EQ(IBV_WC_BAD_RESP_ERR, waiting_end(&waiting));
	waiting_fini(&waiting);
}

/*
 * Pages that never arrive: only the process that owns the memory waits for them, and
 * only for as long as it likes.
 */

#define CONTEXTS	9
#define PREFETCHES	256	/* that a context may have under way */
#define STALLED_QPS	300

/* A QP, its own peer, that faults on a page to write it, or to read it if @own. */
static struct ibv_qp *stall_qp(struct rdma *r, struct ibv_mr *mr, bool own)
{
	struct ibv_qp_init_attr init = {
		.qp_type = IBV_QPT_RC,
		.send_cq = r->cq,
		.recv_cq = r->cq,
		.cap = { .max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1,
			 .max_recv_sge = 1, .max_inline_data = 8 },
	};
	struct ibv_sge sge = { .length = 8, .lkey = mr->lkey };
	struct ibv_send_wr *bad, wr = {
		.opcode = IBV_WR_RDMA_WRITE, .sg_list = &sge, .num_sge = 1,
		.send_flags = own ? 0 : IBV_SEND_INLINE,
	};
	struct rdma side = *r;
	struct rdma_addr addr;
	uint64_t word = 0;

	side.qp = ibv_create_qp(r->pd, &init);
	if (!side.qp)
		return NULL;
	rdma_address(&side, &addr);
	sge.addr = own ? (uintptr_t)mr->addr : (uintptr_t)&word;
	wr.wr.rdma.remote_addr = (uintptr_t)mr->addr;
	wr.wr.rdma.rkey = mr->rkey;
	errno = -qp_restart(side.qp) ?: -rdma_connect(&side, &addr) ?:
		ibv_post_send(side.qp, &wr, &bad);
	return errno ? NULL : side.qp;
}

static int stall_prefetches(struct rdma *r, struct ibv_mr *mr)
{
	struct ibv_sge sge = {
		.addr = (uintptr_t)mr->addr, .length = PAGE, .lkey = mr->lkey,
	};
	int i, err = 0;

	for (i = 0; i < PREFETCHES && !err; i++)
		err = rdma_advise(r->pd, IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, 0, &sge);
	return err;
}

/*
 * More of both than one work queue of the kernel runs at a time. The files of the
 * device are opened after that of the userfaultfd.
 */
static int stall_all(void *arg)
{
	static struct rdma r[CONTEXTS];
	static struct held held;
	struct ibv_mr *mr;
	int i, err;

	err = held_map(&held, PAGE);
	for (i = 0; i < CONTEXTS && !err; i++) {
		err = rdma_open(&r[i]);
		if (err)
			break;
		mr = rdma_reg_odp(&r[i], held.mem, PAGE);
		err = mr ? stall_prefetches(&r[i], mr) : -errno;
	}
	mr = err ? NULL : rdma_reg_odp(&r[0], held.mem, PAGE);
	if (!err && !mr)
		err = -errno;
	for (i = 0; i < STALLED_QPS && !err; i++)
		if (!stall_qp(&r[0], mr, i % 2))
			err = -errno;

	return err ?: held_wait(&held, arg);
}

/* The child's result; -ETIMEDOUT if it does not report one in time. */
static int result_in_time(struct child *child)
{
	struct pollfd pfd = { .fd = child->sock, .events = POLLIN };

	return poll(&pfd, 1, 1000 * PROMPT) == 1 ? child_result(child) : -ETIMEDOUT;
}

/* A child that cannot die is left alone. */
static bool killed_in_time(struct child *child)
{
	kill(child->pid, SIGKILL);
	if (command_wait(child->pid, PROMPT) == -ETIMEDOUT)
		return false;
	close(child->sock);
	return true;
}

TEST(odp_faults_of_other_process_do_not_block_requests)
{
	struct rig rig;
	struct child child;

	ASSERT_EQ(0, child_fork(&child, stall_all, NULL));
	ASSERT_EQ(0, child_do(&child));

	ASSERT_EQ(0, rig_init(&rig, MIB(2), MADV_NOHUGEPAGE));
	ASSERT_EQ(0, rig_register(&rig));
	EXPECT_EQ(0, rig_write_new(&rig, 0, MIB(1)));
	EXPECT_EQ(-1, rig_differs(&rig));

	EXPECT_TRUE(killed_in_time(&child));
	EXPECT_EQ(0, rig_fini(&rig));
}

/* Each call ends requests that wait for a page. Some still queue behind others. */
static int end_one_by_one(void *arg __attribute__((unused)))
{
	struct ibv_qp *qps[STALLED_QPS];
	struct ibv_cq *cq, *small;
	struct ibv_mr *mr, *other;
	struct ibv_wc wc;
	struct held held;
	struct rdma r;
	int i, err;

	err = rdma_open(&r) ?: held_map(&held, 2 * PAGE);
	if (err)
		return err;
	cq = ibv_create_cq(r.ctx, 2 * STALLED_QPS, NULL, NULL, 0);
	if (!cq)
		return -errno;
	small = r.cq;
	r.cq = cq;
	mr = rdma_reg_odp(&r, held.mem, PAGE);
	other = rdma_reg_odp(&r, held.mem + PAGE, PAGE);
	err = mr && other ? stall_prefetches(&r, mr) : -errno;
	for (i = 0; i < STALLED_QPS && !err; i++) {
		qps[i] = stall_qp(&r, i % 4 < 2 ? mr : other, i % 2);
		if (!qps[i])
			err = -errno;
	}
	err = err ?: held_wait(&held, NULL);

	/* The last one waits behind all others */
	err = err ?: -ibv_destroy_qp(qps[--i]);
	err = err ?: qp_restart(qps[--i]);
	err = err ?: qp_to_error(qps[0]);
	while (!err && !(err = ibv_poll_cq(r.cq, 1, &wc)))
		usleep(1000);
	if (err > 0)
		err = wc.status == IBV_WC_WR_FLUSH_ERR ? 0 : -EPROTO;
	err = err ?: -ibv_dereg_mr(mr);
	while (!err && i >= 0)
		err = -ibv_destroy_qp(qps[i--]);
	err = err ?: -ibv_dereg_mr(other);
	err = err ?: -ibv_destroy_cq(cq);
	if (err)
		return err;

	r.cq = small;
	rdma_close(&r);
	held_unmap(&held);
	return 0;
}

TEST(destroy_qp_and_mr_do_not_wait_for_odp_faults)
{
	struct child child;

	ASSERT_EQ(0, child_fork(&child, end_one_by_one, NULL));
	ASSERT_EQ(0, child_start(&child));
	ASSERT_EQ(0, result_in_time(&child));
	EXPECT_EQ(0, child_end(&child));
}

/* A request of the QP itself makes it fail, while one of its peer waits. */
static int fail_while_stalled(void *arg __attribute__((unused)))
{
	uint64_t word = 0;
	struct ibv_sge sge = { .addr = (uintptr_t)&word, .length = 8 };
	struct ibv_send_wr *bad, wr = {
		.opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_INLINE,
		.sg_list = &sge, .num_sge = 1,
	};
	struct ibv_wc wc = {};
	struct ibv_mr *mr;
	struct held held;
	struct conn conn;
	int err;

	err = held_map(&held, PAGE) ?: conn_up(&conn);
	if (err)
		return err;
	mr = rdma_reg_odp(&conn.far, held.mem, PAGE);
	if (!mr)
		return -errno;
	wr.wr.rdma.remote_addr = (uintptr_t)held.mem;
	wr.wr.rdma.rkey = mr->rkey;
	err = rdma_post_recv(&conn.far, held.mem, mr->lkey, 8) ?:
	      -ibv_post_send(conn.near.qp, &wr, &bad) ?: held_wait(&held, NULL);

	/* No MR has this key */
	wr.send_flags = 0;
	err = err ?: -ibv_post_send(conn.far.qp, &wr, &bad);
	while (!err && !(err = ibv_poll_cq(conn.far.qp->recv_cq, 1, &wc)))
		usleep(1000);
	if (err < 0)
		return err;
	return wc.status == IBV_WC_WR_FLUSH_ERR ? 0 : -EPROTO;
}

TEST(qp_error_flush_does_not_wait_for_odp_fault)
{
	struct child child;

	ASSERT_EQ(0, child_fork(&child, fail_while_stalled, NULL));
	ASSERT_EQ(0, child_start(&child));
	EXPECT_EQ(0, result_in_time(&child));
	EXPECT_TRUE(killed_in_time(&child));
}

/* Both contexts share the work queue that waits for pages. */
static int close_behind_another(void *arg __attribute__((unused)))
{
	struct rdma busy, idle;
	struct ibv_mr *mr;
	struct held held;
	int err;

	err = rdma_open(&busy) ?: rdma_open(&idle) ?: held_map(&held, PAGE);
	if (err)
		return err;
	mr = rdma_reg_odp(&busy, held.mem, PAGE);
	err = mr ? stall_prefetches(&busy, mr) : -errno;
	mr = err ? NULL : rdma_reg_odp(&idle, held.mem, PAGE);
	if (!mr)
		return err ?: -errno;
	err = rdma_advise(idle.pd, IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, 0,
			  &(struct ibv_sge) { (uintptr_t)held.mem, PAGE, mr->lkey }) ?:
	      held_wait(&held, NULL) ?: -ibv_dereg_mr(mr);
	rdma_close(&idle);
	return err;
}

TEST(context_close_does_not_wait_for_other_context)
{
	struct child child;

	ASSERT_EQ(0, child_fork(&child, close_behind_another, NULL));
	ASSERT_EQ(0, child_start(&child));
	ASSERT_EQ(0, result_in_time(&child));
	EXPECT_TRUE(killed_in_time(&child));
}

/* To modify the QP, the kernel first has to wait for the requests under way. */
static int change_while_stalled(void *arg)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_SQD, .max_dest_rd_atomic = 1 };
	volatile int *begins = arg;
	struct ibv_mr *mr;
	struct held held;
	struct rdma r;
	int err;

	err = held_map(&held, PAGE) ?: rdma_open(&r);
	if (err)
		return err;
	mr = rdma_reg_odp(&r, held.mem, PAGE);
	r.qp = mr ? stall_qp(&r, mr, false) : NULL;
	err = r.qp ? held_wait(&held, NULL) : -errno;
	err = err ?: -ibv_modify_qp(r.qp, &attr, IBV_QP_STATE);
	if (err)
		return err;
	*begins = 1;
	return -ibv_modify_qp(r.qp, &attr, IBV_QP_MAX_DEST_RD_ATOMIC);
}

TEST(sigkill_ends_modify_qp_behind_odp_fault)
{
	volatile int *begins = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
				    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct child child;

	ASSERT_NE(MAP_FAILED, begins);
	ASSERT_EQ(0, child_fork(&child, change_while_stalled, (void *)begins));
	ASSERT_EQ(0, child_start(&child));
	ASSERT_EQ(0, wait_until(begins, 1));
	usleep(100000);
	EXPECT_FALSE(child_has_result(&child));
	EXPECT_TRUE(killed_in_time(&child));
	munmap((void *)begins, PAGE);
}

/* The peer still has packets of the QP, and never gets to them. */
static int go_before_packets(void *arg __attribute__((unused)))
{
	struct ibv_send_wr *bad, wr = {
		.opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_INLINE,
		.num_sge = 1,
	};
	uint64_t word = 0;
	struct ibv_sge sge = { .addr = (uintptr_t)&word, .length = 8 };
	struct ibv_mr *mr;
	struct held held;
	struct conn conn;
	int i, err;

	err = held_map(&held, PAGE) ?: conn_up(&conn);
	if (err)
		return err;
	mr = rdma_reg_odp(&conn.far, held.mem, PAGE);
	wr.sg_list = &sge;
	wr.wr.rdma.remote_addr = (uintptr_t)held.mem;
	wr.wr.rdma.rkey = mr ? mr->rkey : 0;
	for (i = 0; i < 3 && !err; i++)
		err = -ibv_post_send(conn.near.qp, &wr, &bad);
	err = err ?: held_wait(&held, NULL);
	err = err ?: -ibv_destroy_qp(conn.near.qp);
	if (err)
		return err;

	conn.near.qp = NULL;
	ibv_dereg_mr(mr);
	conn_down(&conn);
	held_unmap(&held);
	return 0;
}

TEST(destroy_qp_does_not_wait_for_packets_at_peer)
{
	struct child child;

	ASSERT_EQ(0, child_fork(&child, go_before_packets, NULL));
	ASSERT_EQ(0, child_start(&child));
	ASSERT_EQ(0, result_in_time(&child));
	EXPECT_EQ(0, child_end(&child));
}

/* Connect again, without a timeout that would repeat a request. */
static int connect_without_timer(struct conn *conn)
{
	const int rtr = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU |
			IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
			IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
	const int rts = IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
			IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC;
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;
	struct rdma_addr near;
	int err;

	rdma_address(&conn->near, &near);
	err = -ibv_query_qp(conn->near.qp, &attr, rtr | rts, &init);
	err = err ?: qp_restart(conn->far.qp) ?: rdma_connect(&conn->far, &near);
	err = err ?: qp_restart(conn->near.qp);
	attr.qp_state = IBV_QPS_RTR;
	attr.rq_psn = 0;
	err = err ?: -ibv_modify_qp(conn->near.qp, &attr, rtr);
	attr.qp_state = IBV_QPS_RTS;
	attr.sq_psn = 0;
	attr.timeout = 0;
	return err ?: -ibv_modify_qp(conn->near.qp, &attr, rts);
}

/* Post the first request of a connection, and wait until it is sent. */
static int post_first(struct rdma *r)
{
	struct ibv_send_wr *bad, wr = { .opcode = IBV_WR_RDMA_WRITE };
	struct ibv_qp_attr attr = {};
	struct ibv_qp_init_attr init;
	double end = now() + PROMPT;
	int err = -ibv_post_send(r->qp, &wr, &bad);

	while (!err && !attr.sq_psn && now() < end && !usleep(1000))
		err = -ibv_query_qp(r->qp, &attr, IBV_QP_SQ_PSN, &init);
	return err ?: attr.sq_psn ? 0 : -ETIMEDOUT;
}

/*
 * The peer of a connection does not answer: first with a timeout of a second, and
 * then without one. Without it, only a later request reveals that one got lost.
 */
TEST(qp_reset_stops_retransmit_timer)
{
	struct ibv_send_wr *bad, wr = { .opcode = IBV_WR_RDMA_WRITE };
	struct rdma_addr near;
	struct ibv_wc wc;
	struct conn conn;

	ASSERT_EQ(0, conn_up(&conn));
	ASSERT_EQ(0, qp_restart(conn.far.qp));
	ASSERT_EQ(0, post_first(&conn.near));
	ASSERT_EQ(0, connect_without_timer(&conn));
	ASSERT_EQ(0, qp_restart(conn.far.qp));
	ASSERT_EQ(0, post_first(&conn.near));
	rdma_address(&conn.near, &near);
	ASSERT_EQ(0, rdma_connect(&conn.far, &near));

	sleep(3);
	EXPECT_EQ(0, ibv_poll_cq(conn.near.cq, 1, &wc));
	ASSERT_EQ(0, ibv_post_send(conn.near.qp, &wr, &bad));
	EXPECT_EQ(0, raw_wait(&conn.near));
	EXPECT_EQ(0, raw_wait(&conn.near));
	conn_down(&conn);
}

static int set_device(const char *state)
{
	pid_t pid;
	int err = command_start(&pid, "ip link set d0 %s", state);

	return err ? err : command_wait(pid, PROMPT);
}

/*
 * The second packet of a response cannot be sent after the first. The requester
 * loses nothing: its next request makes it ask again.
 */
TEST(requester_retries_after_response_is_not_sent)
{
	struct ibv_send_wr *bad, wr = { .opcode = IBV_WR_RDMA_READ, .num_sge = 1 };
	static uint8_t nothing[2 * PAGE], data[2][2 * PAGE];
	int n, tries = 2000 * slowness();
	struct ibv_qp_attr attr = {};
	struct ibv_qp_init_attr init;
	struct ibv_mr *mr, *ram_mr;
	double end;
	struct ibv_wc wc;
	struct held held;
	struct ibv_sge sge;
	struct conn conn;

	ASSERT_EQ(0, conn_up(&conn));
	ASSERT_EQ(0, connect_without_timer(&conn));
	ASSERT_EQ(0, held_map(&held, 2 * PAGE));
	mr = rdma_reg_odp(&conn.far, held.mem, 2 * PAGE);
	ram_mr = rdma_reg_odp(&conn.near, data, sizeof(data));
	ASSERT_NE(NULL, mr);
	ASSERT_NE(NULL, ram_mr);

	memset(data, 1, sizeof(data));
	sge = (struct ibv_sge) {
		.addr = (uintptr_t)data[0], .length = 2 * PAGE, .lkey = ram_mr->lkey,
	};
	wr.sg_list = &sge;
	wr.wr.rdma.remote_addr = (uintptr_t)held.mem;
	wr.wr.rdma.rkey = mr->rkey;
	ASSERT_EQ(0, ibv_post_send(conn.near.qp, &wr, &bad));
	ASSERT_EQ(0, held_wait(&held, NULL));

	ASSERT_EQ(0, set_device("down"));
	EXPECT_EQ(0, held_release(&held));
	end = now() + PROMPT;
	while (!attr.rq_psn && now() < end && !usleep(1000))
		ASSERT_EQ(0, ibv_query_qp(conn.far.qp, &attr, IBV_QP_RQ_PSN, &init));
	ASSERT_EQ(0, set_device("up"));
	EXPECT_NE(0, attr.rq_psn);

	sge.addr = (uintptr_t)data[1];
	ASSERT_EQ(0, ibv_post_send(conn.near.qp, &wr, &bad));
	for (n = 0; n < 2 && tries--; ) {
		if (!ibv_poll_cq(conn.near.cq, 1, &wc)) {
			usleep(10000);
			continue;
		}
		EXPECT_EQ(IBV_WC_SUCCESS, wc.status);
		n++;
	}
	EXPECT_EQ(2, n);
	EXPECT_EQ(-1, differs(data[0], nothing, 2 * PAGE));
	EXPECT_EQ(-1, differs(data[1], nothing, 2 * PAGE));

	ibv_dereg_mr(mr);
	ibv_dereg_mr(ram_mr);
	held_unmap(&held);
	conn_down(&conn);
}

static void __attribute__((noreturn)) be_killed(void)
{
	struct buffer buf;
	struct rdma r;

	if (rdma_open(&r) || buffer_map(&buf, SIZE, MADV_NOHUGEPAGE))
		_exit(1);
	buffer_write(&buf, 0, SIZE);
	if (!rdma_reg_odp(&r, buf.mem, SIZE))
		_exit(1);
	raise(SIGSTOP);
	_exit(1);
}

/* As the OOM reaper does with a process that takes long to die. */
TEST(oom_reaper_takes_odp_memory)
{
	int status, pidfd;
	pid_t pid;

	pid = fork();
	if (!pid)
		be_killed();
	ASSERT_LT(0, pid);
	pidfd = syscall(SYS_pidfd_open, pid, 0);
	ASSERT_LE(0, pidfd);
	ASSERT_EQ(pid, waitpid(pid, &status, WUNTRACED));
	ASSERT_TRUE(WIFSTOPPED(status));

	ASSERT_EQ(0, ptrace(PTRACE_SEIZE, pid, NULL, PTRACE_O_TRACEEXIT));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	do {
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_TRUE(WIFSTOPPED(status));
		if (status >> 8 != (SIGTRAP | PTRACE_EVENT_EXIT << 8))
			ptrace(PTRACE_CONT, pid, NULL, 0);
	} while (status >> 8 != (SIGTRAP | PTRACE_EVENT_EXIT << 8));

	EXPECT_EQ(0, syscall(SYS_process_mrelease, pidfd, 0)) {
		TH_LOG("errno %d", errno);
	}

	ptrace(PTRACE_CONT, pid, NULL, 0);
	EXPECT_EQ(pid, waitpid(pid, &status, 0));
	close(pidfd);
}

TEST_HARNESS_MAIN
