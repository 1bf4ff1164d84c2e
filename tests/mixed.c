// SPDX-License-Identifier: GPL-2.0
/*
 * One mapping has pages of all kinds next to each other, in every order: in VRAM
 * (V), in RAM (R), in swap (S), the zero page (Z), and a hole (H). Importers can
 * access all of them, and no page leaves VRAM because of its neighbours.
 */
#include <sys/mman.h>

#include "gpu.h"
#include "lib/harness.h"
#include "lib/rig.h"
#include "lib/swap.h"
#include "lib/vram.h"

#define SIZE	MIB(4)
#define PAGES	(SIZE / PAGE)

static const char kinds[] = "VVRVSVZVHRRSRZRHSSZSHZZHHV";

#define KINDS_NR	(ARRAY_LEN(kinds) - 1)
#define KINDS_AT	(HUGE_PAGE - 11 * PAGE)

FIXTURE(mixed) {
	struct rig rig;
	uint64_t evicted;
	uint64_t vram;
};

FIXTURE_VARIANTS_BY_ADVICE(mixed);

FIXTURE_SETUP(mixed)
{
	struct rig *rig = &self->rig;
	struct drm_vsvm_residency where;
	unsigned int i, count['Z' + 1] = {};

	ASSERT_EQ(0, rig_init_in_vram(rig, SIZE, variant->advice));

	for (i = 0; i < KINDS_NR; i++) {
		size_t offset = KINDS_AT + i * PAGE;
		uint8_t *page = rig->buf.mem + offset;

		count[(int)kinds[i]]++;
		if (kinds[i] == 'V')
			continue;

		ASSERT_EQ(0, madvise(page, PAGE, MADV_DONTNEED));
		memset(rig->buf.shadow + offset, 0, PAGE);
		if (kinds[i] == 'R' || kinds[i] == 'S')
			buffer_write(&rig->buf, offset, PAGE);
		if (kinds[i] == 'S')
			ASSERT_EQ(0, pages_out(page, PAGE));
		if (kinds[i] == 'Z')
			ASSERT_EQ(0, *(volatile uint8_t *)page);
	}

	/* Check that each page is where it should be. */
	self->evicted = pages_evicted(rig->gpu);
	self->vram = PAGES - KINDS_NR + count['V'];
	ASSERT_EQ(0, gpu_residency(rig->gpu, rig->buf.mem, SIZE, &where));
	ASSERT_EQ(self->vram, where.vram);
	ASSERT_EQ(count['R'] + count['Z'], where.ram);
	ASSERT_EQ(count['S'] + count['H'], where.none);
}

FIXTURE_TEARDOWN(mixed)
{
	struct rig *rig = &self->rig;

	EXPECT_EQ(self->evicted, pages_evicted(rig->gpu));
	EXPECT_EQ(self->vram, pages_in_vram(rig->gpu, rig->buf.mem, SIZE));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
	EXPECT_EQ(0, rig_fini(rig));
}

TEST_F(mixed, rdma_read_of_mixed_pages_keeps_vram_in_place)
{
	EXPECT_EQ(-1, rig_differs(&self->rig));
}

TEST_F(mixed, rdma_read_by_new_mr_keeps_vram_in_place)
{
	ASSERT_EQ(0, rig_register(&self->rig));
	EXPECT_EQ(-1, rig_differs(&self->rig));
}

TEST_F(mixed, rdma_write_to_mixed_pages_keeps_vram_in_place)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, rig_write_new(rig, KINDS_AT - PAGE - 3,
				   (KINDS_NR + 2) * PAGE + 5));
	EXPECT_EQ(-1, rig_differs(rig));
}

TEST_F(mixed, prefetch_read_of_mixed_pages_keeps_vram_in_place)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, rig_prefetch(rig, 0, SIZE, 0));
	EXPECT_EQ(-1, rig_differs(rig));
}

TEST_F(mixed, prefetch_write_of_mixed_pages_keeps_vram_in_place)
{
	struct rig *rig = &self->rig;

	ASSERT_EQ(0, rig_prefetch(rig, 0, SIZE, 1));
	EXPECT_EQ(-1, rig_differs(rig));
}

/* Each page is the first page of some walk, and the last page of another. */
TEST_F(mixed, prefetch_from_each_page_keeps_vram_in_place)
{
	struct rig *rig = &self->rig;
	unsigned int i;

	for (i = 0; i < KINDS_NR; i++) {
		size_t page = KINDS_AT + i * PAGE;

		ASSERT_EQ(0, rig_prefetch(rig, page, (KINDS_NR - i) * PAGE, 0));
		ASSERT_EQ(0, rig_prefetch(rig, page, 2 * PAGE, 1));
	}
	EXPECT_EQ(-1, rig_differs(rig));
}

TEST_HARNESS_MAIN
