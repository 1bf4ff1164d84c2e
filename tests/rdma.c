// SPDX-License-Identifier: GPL-2.0
/*
 * An importer at work on the memory of a GPU: each kind of RDMA operation
 * reaches VRAM where it is, and nothing moves because of it.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest_harness.h"

#include "common.h"
#include "raw_wqe.h"

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
	struct bench bench;
	uint64_t evicted;
	uint64_t aliases;
};

FIXTURE_VARIANT(vram) {
	int advice;
};

FIXTURE_VARIANT_ADD(vram, pages) {
	.advice = MADV_NOHUGEPAGE,
};

FIXTURE_VARIANT_ADD(vram, huge) {
	.advice = MADV_HUGEPAGE,
};

/* All of the memory is in VRAM, with contents that RAM never saw, and an MR. */
FIXTURE_SETUP(vram)
{
	ASSERT_EQ(0, bench_init_in_vram(&self->bench, SIZE, variant->advice));
	self->evicted = pages_evicted(self->bench.gpu);
	self->aliases = stat_read("alias_cpu");
}

/* CPU accesses come last: they are what migrates the memory. */
FIXTURE_TEARDOWN(vram)
{
	EXPECT_EQ(-1, buffer_differs(&self->bench.buf));
	EXPECT_EQ(0, bench_fini(&self->bench));
}

/* Nothing has left VRAM, up to now. */
#define EXPECT_IN_VRAM() do {						\
	EXPECT_EQ(self->evicted, pages_evicted(self->bench.gpu));	\
	EXPECT_EQ(PAGES, pages_in_vram(self->bench.gpu,			\
				       self->bench.buf.mem, SIZE));	\
} while (0)

TEST_F(vram, read_gets_what_only_vram_has)
{
	EXPECT_EQ(-1, bench_differs(&self->bench));
	EXPECT_IN_VRAM();
}

TEST_F(vram, write_arrives_in_vram)
{
	struct bench *bench = &self->bench;

	ASSERT_EQ(0, bench_write_new(bench, 0, SIZE));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&bench->buf, bench->gpu));
	EXPECT_IN_VRAM();
}

TEST_F(vram, read_at_odd_offsets)
{
	struct bench *bench = &self->bench;
	struct buffer *ram = &bench->ram;
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(odd_pieces); i++) {
		const struct piece *p = &odd_pieces[i];

		ASSERT_EQ(0, bench_read(bench, p->offset, p->size));
		memcpy(ram->shadow + p->offset, bench->buf.shadow + p->offset,
		       p->size);
		EXPECT_EQ(-1, buffer_differs(ram)) {
			TH_LOG("%zu bytes at %zu", p->size, p->offset);
		}
	}
	EXPECT_IN_VRAM();
}

TEST_F(vram, write_at_odd_offsets)
{
	struct bench *bench = &self->bench;
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(odd_pieces); i++) {
		const struct piece *p = &odd_pieces[i];

		ASSERT_EQ(0, bench_write_new(bench, p->offset, p->size));
	}
	EXPECT_EQ(-1, bench_differs(bench));
	EXPECT_IN_VRAM();
}

/* The same, with the memory on the side that makes the requests. */
TEST_F(vram, local_side_in_vram)
{
	struct bench *bench = &self->bench;
	struct rdma *near = &bench->link.near;
	struct ibv_mr *local, *remote;
	size_t offset = 3 * PAGE - 5, size = HUGE_PAGE + 11;

	local = rdma_reg_odp(near, bench->buf.mem, SIZE);
	remote = rdma_reg_odp(&bench->link.far, bench->ram.mem, SIZE);
	ASSERT_NE(NULL, local);
	ASSERT_NE(NULL, remote);

	ASSERT_EQ(0, rdma_write(near, bench->buf.mem + offset, local->lkey,
				(uintptr_t)bench->ram.mem + offset,
				remote->rkey, size));
	memcpy(bench->ram.shadow + offset, bench->buf.shadow + offset, size);
	EXPECT_EQ(-1, buffer_differs(&bench->ram));

	buffer_write(&bench->ram, offset, size);
	ASSERT_EQ(0, rdma_read(near, bench->buf.mem + offset, local->lkey,
			       (uintptr_t)bench->ram.mem + offset,
			       remote->rkey, size));
	memcpy(bench->buf.shadow + offset, bench->ram.shadow + offset, size);
	EXPECT_EQ(-1, buffer_differs_on_gpu(&bench->buf, bench->gpu));
	EXPECT_IN_VRAM();

	ibv_dereg_mr(local);
	ibv_dereg_mr(remote);
}

TEST_F(vram, send_out_of_vram)
{
	struct bench *bench = &self->bench;
	size_t offset = PAGE - 1, size = HUGE_PAGE + PAGE + 3;

	/* The far side sends, since it has the MR. */
	ASSERT_EQ(0, rdma_post_recv(&bench->link.near, bench->ram.mem + offset,
				    bench->ram_mr->lkey, size));
	ASSERT_EQ(0, rdma_send(&bench->link.far, bench->buf.mem + offset,
			       bench->mr->lkey, size));
	ASSERT_EQ(0, rdma_wait(&bench->link.near));

	memcpy(bench->ram.shadow + offset, bench->buf.shadow + offset, size);
	EXPECT_EQ(-1, buffer_differs(&bench->ram));
	EXPECT_IN_VRAM();
}

TEST_F(vram, recv_into_vram)
{
	struct bench *bench = &self->bench;
	size_t offset = PAGE - 1, size = HUGE_PAGE + PAGE + 3;

	ASSERT_EQ(0, rdma_post_recv(&bench->link.far, bench->buf.mem + offset,
				    bench->mr->lkey, size));
	ASSERT_EQ(0, rdma_send(&bench->link.near, bench->ram.mem + offset,
			       bench->ram_mr->lkey, size));
	ASSERT_EQ(0, rdma_wait(&bench->link.far));

	memcpy(bench->buf.shadow + offset, bench->ram.shadow + offset, size);
	EXPECT_EQ(-1, bench_differs(bench));
	EXPECT_IN_VRAM();
}

TEST_F(vram, fetch_add)
{
	struct bench *bench = &self->bench;

	ASSERT_EQ(0, bench_add(bench, HUGE_PAGE / 2 + 24, 0x123456789abcdef1));
	EXPECT_EQ(-1, bench_differs(bench));
	EXPECT_IN_VRAM();
}

TEST_F(vram, cmp_swap_that_matches)
{
	struct bench *bench = &self->bench;
	size_t offset = HUGE_PAGE + 4088;
	uint64_t *word = (uint64_t *)(bench->buf.shadow + offset);
	uint64_t *old = (uint64_t *)bench->ram.mem;

	ASSERT_EQ(0, rdma_cmp_swap(&bench->link.near, old, bench->ram_mr->lkey,
				   (uintptr_t)bench->buf.mem + offset,
				   bench->mr->rkey, *word, ~*word));
	EXPECT_EQ(*word, *old);
	*word = ~*word;
	EXPECT_EQ(-1, bench_differs(bench));
	EXPECT_IN_VRAM();
}

TEST_F(vram, cmp_swap_that_does_not_match)
{
	struct bench *bench = &self->bench;
	size_t offset = HUGE_PAGE + 4088;
	uint64_t *word = (uint64_t *)(bench->buf.shadow + offset);
	uint64_t *old = (uint64_t *)bench->ram.mem;

	ASSERT_EQ(0, rdma_cmp_swap(&bench->link.near, old, bench->ram_mr->lkey,
				   (uintptr_t)bench->buf.mem + offset,
				   bench->mr->rkey, *word + 1, ~*word));
	EXPECT_EQ(*word, *old);
	EXPECT_EQ(-1, bench_differs(bench));
	EXPECT_IN_VRAM();
}

/* The verbs library knows neither this operation nor the next one. */
TEST_F(vram, atomic_write)
{
	struct bench *bench = &self->bench;
	size_t offset = 5 * PAGE + 8;
	uint64_t *word = (uint64_t *)(bench->buf.shadow + offset);

	ASSERT_EQ(0, raw_atomic_write(&bench->link.near,
				      (uintptr_t)bench->buf.mem + offset,
				      bench->mr->rkey, 0xfedcba9876543210));
	*word = 0xfedcba9876543210;
	EXPECT_EQ(-1, bench_differs(bench));
	EXPECT_IN_VRAM();
}

TEST_F(vram, flush_of_a_write_to_vram)
{
	struct bench *bench = &self->bench;
	size_t offset = PAGE - 1, size = 3 * PAGE + 2;
	struct ibv_mr *mr;

	mr = raw_reg_flushable(&bench->link.far, bench->buf.mem, SIZE);
	ASSERT_NE(NULL, mr);
	ASSERT_EQ(0, bench_write_new(bench, offset, size));
	EXPECT_EQ(0, raw_flush(&bench->link.near,
			       (uintptr_t)bench->buf.mem + offset, mr->rkey,
			       size));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&bench->buf, bench->gpu));
	EXPECT_IN_VRAM();
	ibv_dereg_mr(mr);
}

TEST_F(vram, prefetch_takes_each_page_as_one_alias)
{
	struct bench *bench = &self->bench;

	ASSERT_EQ(0, bench_prefetch(bench, 0, SIZE, 1));
	EXPECT_EQ(self->aliases + PAGES, stat_read("alias_cpu"));
	EXPECT_EQ(-1, bench_differs(bench));
	EXPECT_IN_VRAM();
}

TEST_F(vram, gpu_and_importer_see_each_other_at_once)
{
	struct bench *bench = &self->bench;
	int i;

	for (i = 0; i < 10; i++) {
		size_t offset = (i * 7 + 1) * PAGE - 8;

		ASSERT_EQ(0, buffer_xor(&bench->buf, bench->gpu, offset,
					2 * PAGE + 16));
		ASSERT_EQ(0, bench_write_new(bench, offset + PAGE, PAGE + 1));
		EXPECT_EQ(-1, bench_differs(bench));
	}
	EXPECT_EQ(-1, buffer_differs_on_gpu(&bench->buf, bench->gpu));
	EXPECT_IN_VRAM();
}

TEST_F(vram, switched_off_all_of_it_migrates)
{
	struct bench *bench = &self->bench;

	ASSERT_EQ(0, aliases_enable(false));
	EXPECT_EQ(0, bench_register(bench));
	EXPECT_EQ(-1, bench_differs(bench));
	EXPECT_EQ(0, aliases_enable(true));

	EXPECT_EQ(self->aliases, stat_read("alias_cpu"));
	EXPECT_EQ(self->evicted + PAGES, pages_evicted(bench->gpu));
	EXPECT_EQ(0, pages_in_vram(bench->gpu, bench->buf.mem, SIZE));
}

TEST_F(vram, switched_off_and_on_again_nothing_migrates)
{
	struct bench *bench = &self->bench;

	ASSERT_EQ(0, aliases_enable(false));
	EXPECT_EQ(0, bench_register(bench));
	EXPECT_EQ(0, aliases_enable(true));
	EXPECT_EQ(-1, bench_differs(bench));
	EXPECT_IN_VRAM();
}

TEST_F(vram, registration_moves_nothing)
{
	EXPECT_EQ(0, bench_register(&self->bench));
	EXPECT_IN_VRAM();
}

/* First accesses begin in the middle: of the memory, of an MR, of a folio. */
TEST_F(vram, mr_in_the_middle_of_it)
{
	struct bench *bench = &self->bench;
	size_t offset = HUGE_PAGE / 2 + 5 * PAGE + 123, size = HUGE_PAGE;
	struct ibv_mr *mr;

	ASSERT_EQ(0, aliases_enable(false));
	mr = rdma_reg_odp(&bench->link.far, bench->buf.mem + offset, size);
	ASSERT_EQ(0, aliases_enable(true));
	ASSERT_NE(NULL, mr);

	ASSERT_EQ(0, rdma_read(&bench->link.near, bench->ram.mem + 1,
			       bench->ram_mr->lkey,
			       (uintptr_t)bench->buf.mem + offset + PAGE,
			       mr->rkey, size - PAGE));
	EXPECT_EQ(-1, differs(bench->ram.mem + 1,
			      bench->buf.shadow + offset + PAGE, size - PAGE));

	ASSERT_EQ(0, rdma_write(&bench->link.near, bench->ram.mem + HUGE_PAGE,
				bench->ram_mr->lkey,
				(uintptr_t)bench->buf.mem + offset + PAGE + 1,
				mr->rkey, PAGE + 77));
	memcpy(bench->buf.shadow + offset + PAGE + 1,
	       bench->ram.mem + HUGE_PAGE, PAGE + 77);
	EXPECT_EQ(-1, buffer_differs_on_gpu(&bench->buf, bench->gpu));
	EXPECT_IN_VRAM();
	ibv_dereg_mr(mr);
}

/* Somebody is at work on the memory at the same time. */

static int move_to_and_fro(struct worker *worker)
{
	struct bench *bench = worker->bench;
	volatile uint8_t *touch = bench->buf.mem;
	int err;

	err = gpu_to_vram(bench->gpu, bench->buf.mem, SIZE, NULL);
	if (!err && worker->rounds % 2)
		err = gpu_to_ram(bench->gpu, bench->buf.mem, HUGE_PAGE);
	touch[HUGE_PAGE - 1];
	touch[HUGE_PAGE + PAGE];

	return err;
}

static int switch_on_and_off(struct worker *worker)
{
	struct bench *bench = worker->bench;
	int err;

	/* From RAM nobody would ask for an alias. */
	err = aliases_enable(worker->rounds % 2);
	return err ? err : gpu_to_vram(bench->gpu, bench->buf.mem, SIZE, NULL);
}

/* Only the importer writes, to a word here and there. */
static int add_during(struct bench *bench, int (*work)(struct worker *worker))
{
	static const size_t offsets[] = {
		0, PAGE + 8, HUGE_PAGE - 8, HUGE_PAGE + PAGE, SIZE - 8,
	};
	struct worker worker = { .bench = bench };
	int i, err;

	err = worker_start(&worker, work);
	if (err)
		return err;

	for (i = 0; (i < 200 || worker.rounds < 6) && !err && !worker.err; i++)
		err = bench_add(bench, offsets[i % ARRAY_LEN(offsets)], i + 1);

	return worker_stop(&worker) ?: err;
}

/*
 * An update through an alias that migration has already passed by would be
 * lost, and a read through one would get an old value.
 */
TEST_F(vram, no_update_is_lost_to_migration)
{
	EXPECT_EQ(0, add_during(&self->bench, move_to_and_fro));
}

TEST_F(vram, no_update_is_lost_to_the_switch)
{
	EXPECT_EQ(0, add_during(&self->bench, switch_on_and_off));
	EXPECT_EQ(0, aliases_enable(true));
}

TEST_F(vram, no_write_is_lost_to_migration)
{
	struct bench *bench = &self->bench;
	struct worker worker = { .bench = bench };
	int i, err = 0;

	ASSERT_EQ(0, worker_start(&worker, move_to_and_fro));
	for (i = 0; (i < 40 || worker.rounds < 6) && !err && !worker.err; i++) {
		size_t offset = (i * 13 * PAGE + 8 * i + 1) % (SIZE / 2);

		err = bench_write_new(bench, offset, 20 * PAGE + i);
		if (!err && !(i % 8) && bench_differs(bench) != -1)
			err = -EILSEQ;
	}
	EXPECT_EQ(0, worker_stop(&worker));
	EXPECT_EQ(0, err);
}

TEST_HARNESS_MAIN
