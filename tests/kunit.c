// SPDX-License-Identifier: GPL-2.0
/*
 * Run the KUnit tests of mm/tests/, and take their results from the kernel log.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/file.h"
#include "lib/harness.h"

/* How many cases each module has */
#define P2PDMA_CASES	17
#define PEERS_CASES	4

static void run(struct __test_metadata *_metadata, const char *module, int want)
{
	int passed = 0, failed = 0, suite = 0;
	char line[512];
	FILE *log;

	ASSERT_EQ(0, system("modprobe kunit enable=1 autorun=1"));
	ASSERT_EQ(0, file_write("/dev/kmsg", "tests/kunit.c: begin"));
	snprintf(line, sizeof(line), "modprobe %s", module);
	ASSERT_EQ(0, system(line));
	log = popen("dmesg -t | tac | sed '/^tests.kunit.c: begin/q'", "r");
	ASSERT_NE(NULL, log);
	while (fgets(line, sizeof(line), log)) {
		passed += !strncmp(line, "    ok ", 7) && !strstr(line, "# SKIP");
		failed += !!strstr(line, "not ok");
		suite += !strncmp(line, "ok ", 3);
	}
	pclose(log);
	EXPECT_EQ(0, failed);
	EXPECT_EQ(want, passed);
	EXPECT_EQ(1, suite);
	snprintf(line, sizeof(line), "modprobe -r %s", module);
	EXPECT_EQ(0, system(line));
}

/* Windows and aliases; how aliases are mapped for DMA */
TEST(hmm_p2pdma)
{
	run(_metadata, "hmm_p2pdma_kunit", P2PDMA_CASES);
}

/* The pagemaps that an importer reaches over private links */
TEST(hmm_peers)
{
	run(_metadata, "hmm_peers_kunit", PEERS_CASES);
}

TEST_HARNESS_MAIN
