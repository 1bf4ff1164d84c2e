/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's files on peer-to-peer access to device-private memory: a switch
 * in sysfs and, only for root, counters in sysfs, and the windows of exporters
 * and the routes to them in debugfs. Functions return 0 or a negative errno.
 */
#ifndef P2PDMA_H
#define P2PDMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef SYSFS
#define SYSFS	"/sys"
#endif
#define DEBUGFS	SYSFS "/kernel/debug"

enum p2pdma_stat {
	P2PDMA_ALIAS_CPU,
	P2PDMA_ALIAS_BUS,
	P2PDMA_ALIAS_HOST_BRIDGE,
	P2PDMA_FALLBACK_NO_WINDOW,
	P2PDMA_FALLBACK_OUTSIDE_WINDOW,
	P2PDMA_FALLBACK_CALLBACK,
	P2PDMA_FALLBACK_UNREACHABLE,
	P2PDMA_FALLBACK_READONLY,
	P2PDMA_FALLBACK_NO_PAGES,
	P2PDMA_NR_STATS,
};

/* Pages since boot. */
struct p2pdma_stats {
	uint64_t pages[P2PDMA_NR_STATS];
};

/* A window, and the pages counted on it since it was declared. */
struct p2pdma_window {
	char *line;		/* holds the strings */
	const char *exporter;	/* PCI address */
	uint64_t start;
	uint64_t size;
	const char *lookup;
	bool cpu_map;
	bool pages;		/* it has struct pages */
	struct p2pdma_stats stats;
};

/* How an importer reaches an exporter; strings that the kernel left out are NULL. */
struct p2pdma_route {
	char *line;		/* holds the strings */
	const char *exporter;
	const char *importer;	/* PCI address, or "cpu" */
	const char *route;
	const char *reason;
	const char *host;	/* vendor:device of the host bridge */
	const char *redirect;	/* ports, with semicolons between them */
	bool redirect_cut;	/* there are more ports */
	bool link;		/* there is a private link, too */
};

extern const char * const p2pdma_stat_names[P2PDMA_NR_STATS];

int p2pdma_enabled(int *enabled);
int p2pdma_enable(int enabled);
int p2pdma_read_stats(struct p2pdma_stats *stats);
void p2pdma_stats_add(struct p2pdma_stats *sum,
		      const struct p2pdma_stats *stats);
/* Differences of counters; never negative. */
struct p2pdma_stats p2pdma_stats_since(const struct p2pdma_stats *stats,
				       const struct p2pdma_stats *old);

/* Free the result of both after an error, too. */
int p2pdma_read_windows(struct p2pdma_window **windows, size_t *nr);
int p2pdma_read_routes(struct p2pdma_route **routes, size_t *nr);
void p2pdma_free_windows(struct p2pdma_window *windows, size_t nr);

#endif
