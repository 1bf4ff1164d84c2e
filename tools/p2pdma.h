/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's files on peer-to-peer access to device-private memory: a switch
 * in sysfs and, in debugfs and only for root, counters, the windows of exporters
 * and routes between PCI devices. Functions return 0 or a negative errno.
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

#define P2PDMA_STATS	DEBUGFS "/hmm_p2pdma/stats"
#define P2PDMA_WINDOWS	DEBUGFS "/hmm_p2pdma/windows"
#define P2PDMA_ROUTES	DEBUGFS "/pci_p2pdma_routes"

enum p2pdma_stat {
	P2PDMA_ALIAS_CPU,
	P2PDMA_ALIAS_BUS,
	P2PDMA_ALIAS_HOST_BRIDGE,
	P2PDMA_FALLBACK_NO_WINDOW,
	P2PDMA_FALLBACK_OUTSIDE_WINDOW,
	P2PDMA_FALLBACK_UNREACHABLE,
	P2PDMA_FALLBACK_REVOKED,
	P2PDMA_FALLBACK_READONLY,
	P2PDMA_NR_STATS,
};

/* Pages since boot. */
struct p2pdma_stats {
	uint64_t pages[P2PDMA_NR_STATS];
};

/* Of a revoked window the kernel only tells where it is. */
struct p2pdma_window {
	const char *exporter;	/* PCI address, or NULL */
	uint64_t start;
	uint64_t size;
	bool cpu_map;
	bool pages;		/* it has struct pages */
	bool revoked;
};

/*
 * How a device reaches a BAR of another one; strings that the kernel left out are
 * NULL. The kernel says provider and client, because the BAR need not have a window.
 */
struct p2pdma_route {
	const char *exporter;
	const char *importer;
	uint64_t start;		/* of the BAR */
	uint64_t size;
	const char *route;
	const char *reason;
	const char *redirect;	/* ports, with semicolons between them */
	bool redirect_cut;	/* there are more ports */
};

extern const char * const p2pdma_stat_names[P2PDMA_NR_STATS];

int p2pdma_enabled(int *enabled);
int p2pdma_enable(int enabled);
int p2pdma_read_stats(struct p2pdma_stats *stats);

/* Programs read these once, and keep the result until they end. */
int p2pdma_read_windows(struct p2pdma_window **windows, size_t *nr);
int p2pdma_read_routes(struct p2pdma_route **routes, size_t *nr);

/* Is the window in the BAR that the route leads to? */
bool p2pdma_leads_to(const struct p2pdma_route *route,
		     const struct p2pdma_window *window);

#endif
