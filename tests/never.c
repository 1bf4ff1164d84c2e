// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel command line says hmm_p2pdma=never, after =always and =nonsense. Linux
 * behaves as it does without aliases, until they are switched on.
 */
#include <stdio.h>
#include <string.h>

#include "lib/file.h"
#include "lib/harness.h"
#include "lib/rig.h"
#include "lib/stats.h"
#include "lib/vram.h"

#define SIZE	MIB(4)
#define PAGES	(SIZE / PAGE)

FIXTURE(never) {
	struct rig rig;
	uint64_t evicted;
	uint64_t count[COUNTERS_NR];
};

FIXTURE_SETUP(never)
{
	unsigned int i;

	ASSERT_EQ(0, rig_init_in_vram(&self->rig, SIZE, MADV_HUGEPAGE));
	self->evicted = pages_evicted(self->rig.gpu);
	for (i = 0; i < COUNTERS_NR; i++)
		self->count[i] = stat_read(counters[i]);
}

FIXTURE_TEARDOWN(never)
{
	EXPECT_EQ(-1, buffer_differs(&self->rig.buf));
	EXPECT_EQ(0, rig_fini(&self->rig));
	EXPECT_EQ(0, aliases_enable(false));
}

TEST_F(never, boot_parameter_never_disables_aliases)
{
	char line[32] = "";
	FILE *file;
	int i;

	file = fopen("/sys/kernel/mm/hmm_p2pdma/enabled", "r");
	ASSERT_NE(NULL, file);
	ASSERT_NE(NULL, fgets(line, sizeof(line), file));
	fclose(file);
	EXPECT_STREQ("always [never]\n", line);
	for (i = 0; i < COUNTERS_NR; i++)
		EXPECT_EQ(0, self->count[i]);
}

/* No importer asks for an alias, so the kernel counts no refusal either. */
TEST_F(never, boot_parameter_never_makes_pages_migrate)
{
	int i;

	EXPECT_EQ(-1, rig_differs(&self->rig));
	EXPECT_EQ(self->evicted + PAGES, pages_evicted(self->rig.gpu));
	EXPECT_EQ(0, pages_in_vram(self->rig.gpu, self->rig.buf.mem, SIZE));
	for (i = 0; i < COUNTERS_NR; i++)
		EXPECT_EQ(self->count[i], stat_read(counters[i]))
			TH_LOG("counter %d", i);
}

TEST_F(never, enabled_always_overrides_boot_parameter)
{
	ASSERT_EQ(0, aliases_enable(true));
	EXPECT_EQ(-1, rig_differs(&self->rig));
	EXPECT_EQ(self->evicted, pages_evicted(self->rig.gpu));
	EXPECT_EQ(PAGES, pages_in_vram(self->rig.gpu, self->rig.buf.mem, SIZE));
}

TEST_F(never, invalid_boot_parameter_is_reported_and_ignored)
{
	EXPECT_EQ(0, system("grep -qa \"hmm_p2pdma= takes 'always' or 'never', ignored\" $LAB_CONSOLE"));
	EXPECT_EQ(-EINVAL, file_write("/sys/kernel/mm/hmm_p2pdma/enabled", "nonsense"));
}

TEST_HARNESS_MAIN
