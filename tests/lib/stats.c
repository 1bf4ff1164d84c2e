// SPDX-License-Identifier: GPL-2.0
#include "file.h"
#include "stats.h"
#include "vram.h"

uint64_t stat_read(const char *name)
{
	return field_read("/sys/kernel/debug/hmm_p2pdma/stats", name);
}

int aliases_enable(bool enable)
{
	return file_write("/sys/kernel/mm/hmm_p2pdma/enabled", enable ? "always" : "never");
}

const char * const counters[COUNTERS_NR] = {
	"alias_cpu", "alias_bus", "alias_host_bridge", "fallback_no_window",
	"fallback_outside_window", "fallback_unreachable", "fallback_revoked",
	"fallback_readonly",
};

struct tally tally_read(const int *gpu)
{
	struct tally tally;
	unsigned int i;

	tally.evicted = pages_evicted(gpu[0]) + pages_evicted(gpu[1]);
	for (i = 0; i < COUNTERS_NR; i++)
		tally.count[i] = stat_read(counters[i]);
	return tally;
}
