/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The results of the demo, as a table, as JSON and as a verdict.
 */
#ifndef REPORT_H
#define REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "content.h"
#include "mode.h"
#include "p2pdma.h"

enum figure {
	MIGRATED_OUT,
	MIGRATED_IN,
	ALIASES,
	PREFETCH,
	ROUND,
	ROUND_OP,
	ROUND_RDMA,
	NR_FIGURES,
};

struct counters {
	uint64_t migrated_out;
	uint64_t migrated_in;
	struct p2pdma_stats stats;
};

/* @rest: the counters of the prefetches and of the reads at the end. */
struct result {
	double figures[NR_FIGURES];
	struct counters rounds;
	struct counters rest;
	unsigned char received[SHA256_SIZE];
	unsigned char held[SHA256_SIZE];
	bool data_ok;
};

struct report {
	char machine[256];
	size_t pages;
	int rounds;
	int prefetches;
	struct result results[NR_MODES];
};

uint64_t count_aliases(const struct counters *c);

void report_table(const struct report *report);
void report_json(const struct report *report, FILE *out);

/* Is the data right, and did pages migrate only in the modes that expect it? */
bool report_verdict(const struct report *report);

#endif
