// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "p2pdma.h"

#define DIR	"/sys/kernel/mm/hmm_p2pdma/"

const char * const p2pdma_stat_names[P2PDMA_NR_STATS] = {
	[P2PDMA_ALIAS_CPU]		= "alias_cpu",
	[P2PDMA_ALIAS_BUS]		= "alias_bus",
	[P2PDMA_ALIAS_HOST_BRIDGE]	= "alias_host_bridge",
	[P2PDMA_FALLBACK_NO_WINDOW]	= "fallback_no_window",
	[P2PDMA_FALLBACK_OUTSIDE_WINDOW] = "fallback_outside_window",
	[P2PDMA_FALLBACK_CALLBACK]	= "fallback_callback",
	[P2PDMA_FALLBACK_UNREACHABLE]	= "fallback_unreachable",
	[P2PDMA_FALLBACK_READONLY]	= "fallback_readonly",
};

int p2pdma_enabled(int *enabled)
{
	FILE *file = fopen(DIR "enabled", "r");
	char line[64] = "";

	if (!file)
		return -errno;

	*enabled = fgets(line, sizeof(line), file) && strstr(line, "[always]");
	fclose(file);
	return 0;
}

int p2pdma_enable(int enabled)
{
	FILE *file = fopen(DIR "enabled", "w");

	if (!file)
		return -errno;

	fputs(enabled ? "always" : "never", file);
	return fclose(file) ? -errno : 0;
}

int p2pdma_read_stats(struct p2pdma_stats *stats)
{
	char path[128];
	FILE *file;
	int i, n;

	for (i = 0; i < P2PDMA_NR_STATS; i++) {
		snprintf(path, sizeof(path), DIR "stats/%s",
			 p2pdma_stat_names[i]);
		file = fopen(path, "r");
		if (!file)
			return -errno;
		n = fscanf(file, "%" SCNu64, &stats->pages[i]);
		fclose(file);
		if (n != 1)
			return -EIO;
	}

	return 0;
}
