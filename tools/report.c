// SPDX-License-Identifier: GPL-2.0
#include <inttypes.h>
#include <stdarg.h>
#include <unistd.h>

#include "report.h"

/* Goals, relative to other modes of the same run */
#define GOAL_PREFETCH	10.0	/* at least, times the pages/s without p2pdma */
#define GOAL_ROUND	1.2	/* at most, times the time in plain RAM */

/* A row of the table, and the key in the JSON; counts have no decimals. */
static const struct {
	const char *label;
	const char *key;
	int digits;
	bool ratio;
} rows[NR_FIGURES] = {
	[MIGRATED_OUT]	= { "pages migrated to RAM", "pages_migrated_out" },
	[MIGRATED_IN]	= { "pages migrated back", "pages_migrated_in" },
	[ALIASES]	= { "aliases handed out", "aliases" },
	[PREFETCH]	= { "prefetch, pages/s", "prefetch_pages_per_s", 0, true },
	[ROUND]		= { "fastest round, s", "round_s", 4, true },
	[ROUND_OP]	= { "  of it GPU operation", "round_op_s", 4, true },
	[ROUND_RDMA]	= { "  of it RDMA", "round_rdma_s", 4, true },
};

uint64_t count_aliases(const struct counters *c)
{
	return c->stats.pages[P2PDMA_ALIAS_CPU] +
	       c->stats.pages[P2PDMA_ALIAS_BUS] +
	       c->stats.pages[P2PDMA_ALIAS_HOST_BRIDGE];
}

static double ratio(const struct report *report, enum figure figure,
		    enum mode to)
{
	return report->results[P2PDMA].figures[figure] /
	       report->results[to].figures[figure];
}

static void print_digest(FILE *out, const unsigned char *digest, int bytes)
{
	while (bytes--)
		fprintf(out, "%02x", *digest++);
}

static void print_digests(const char *label, const unsigned char *p2pdma,
			  const unsigned char *off, const unsigned char *ram)
{
	const unsigned char * const digests[] = { p2pdma, off, ram };
	int mode;

	printf("%-26s", label);
	for (mode = 0; mode < NR_MODES; mode++) {
		printf(" ");
		print_digest(stdout, digests[mode], 6);
	}
	printf("\n");
}

void report_table(const struct report *report)
{
	const struct result *results = report->results;
	char title[64];
	int row, mode;

	snprintf(title, sizeof(title), "rounds: %d, pages: %zu", report->rounds,
		 report->pages);
	printf("\n%-26s", title);
	for (mode = 0; mode < NR_MODES; mode++)
		printf(" %12s", mode_names[mode]);
	printf(" %11s %11s\n", "p2pdma/off", "p2pdma/ram");

	for (row = 0; row < NR_FIGURES; row++) {
		printf("%-26s", rows[row].label);
		for (mode = 0; mode < NR_MODES; mode++)
			printf(" %12.*f", rows[row].digits,
			       results[mode].figures[row]);
		if (rows[row].ratio)
			printf(" %11.2f %11.2f", ratio(report, row, OFF),
			       ratio(report, row, RAM));
		printf("\n");
	}
	print_digests("SHA-256 the peer received", results[P2PDMA].received,
		      results[OFF].received, results[RAM].received);
	print_digests("SHA-256 the GPU holds", results[P2PDMA].held,
		      results[OFF].held, results[RAM].held);

	printf("ram: the buffer stays in plain RAM, where the CPU does the GPU's work.\n"
	       "The first round is a warm-up. Prefetch makes the RDMA device ready for all of the\n"
	       "buffer, which has just moved; the median of %d.\n\n",
	       report->prefetches);
}

static bool all_data_ok(const struct report *report)
{
	int mode;

	for (mode = 0; mode < NR_MODES; mode++) {
		if (!report->results[mode].data_ok)
			return false;
	}
	return true;
}

static void write_mode(FILE *out, enum mode mode, const struct result *r)
{
	int row;

	fprintf(out, "  \"%s\": {", mode_names[mode]);
	for (row = 0; row < NR_FIGURES; row++)
		fprintf(out, "\"%s\": %.*f, ", rows[row].key, rows[row].digits,
			r->figures[row]);
	fprintf(out, "\"sha256_received\": \"");
	print_digest(out, r->received, SHA256_SIZE);
	fprintf(out, "\", \"sha256_held\": \"");
	print_digest(out, r->held, SHA256_SIZE);
	fprintf(out, "\"},\n");
}

static void write_ratio(FILE *out, const char *key, const struct report *report,
			enum mode to)
{
	const char *comma = "";
	int row;

	fprintf(out, "  \"%s\": {", key);
	for (row = 0; row < NR_FIGURES; row++) {
		if (!rows[row].ratio)
			continue;
		fprintf(out, "%s\"%s\": %.3f", comma, rows[row].key,
			ratio(report, row, to));
		comma = ", ";
	}
	fprintf(out, "},\n");
}

void report_json(const struct report *report, FILE *out)
{
	int mode;

	fprintf(out, "{\n  \"machine\": \"%s\",\n", report->machine);
	fprintf(out, "  \"pages\": %zu,\n  \"rounds\": %d,\n", report->pages,
		report->rounds);
	for (mode = 0; mode < NR_MODES; mode++)
		write_mode(out, mode, &report->results[mode]);
	write_ratio(out, "ratio", report, OFF);
	write_ratio(out, "ratio_to_ram", report, RAM);
	fprintf(out, "  \"sha256_ok\": %s\n}\n",
		all_data_ok(report) ? "true" : "false");
}

static void say(bool ok, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void say(bool ok, const char *format, ...)
{
	bool colour = isatty(STDOUT_FILENO);
	va_list args;

	if (colour)
		printf("\033[%sm", ok ? "32" : "31");
	printf("%s", ok ? "ok: " : "FAILED: ");
	if (colour)
		printf("\033[0m");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
}

static void print_fallbacks(const struct result *r)
{
	uint64_t pages;
	int i;

	for (i = P2PDMA_FALLBACK_NO_WINDOW; i < P2PDMA_NR_STATS; i++) {
		pages = r->rounds.stats.pages[i] + r->rest.stats.pages[i];
		if (pages)
			printf("  %s: %" PRIu64 " pages\n",
			       p2pdma_stat_names[i], pages);
	}
}

static bool check_p2pdma(const struct report *report)
{
	const struct result *r = &report->results[P2PDMA];
	uint64_t out = r->rounds.migrated_out + r->rest.migrated_out;
	uint64_t in = r->rounds.migrated_in + r->rest.migrated_in;
	uint64_t in_rounds = count_aliases(&r->rounds);
	uint64_t in_rest = count_aliases(&r->rest);

	if (!out && !in && in_rounds >= report->pages &&
	    in_rest >= report->pages * report->prefetches) {
		say(true, "with p2pdma no page migrated");
		return true;
	}

	say(false, "with p2pdma %" PRIu64 " pages migrated to RAM, %" PRIu64 " back; %" PRIu64 " aliases in the rounds, %" PRIu64 " in the prefetches",
	    out, in, in_rounds, in_rest);
	print_fallbacks(r);
	return false;
}

/* The demo shows something only if all pages migrate without p2pdma. */
static bool check_off(const struct report *report)
{
	const struct result *r = &report->results[OFF];
	uint64_t aliases = count_aliases(&r->rounds) +
			   count_aliases(&r->rest);

	if (!aliases &&
	    r->rounds.migrated_out >= report->pages * report->rounds &&
	    r->rest.migrated_out >= report->pages * report->prefetches)
		return true;

	say(false, "without p2pdma %" PRIu64 " pages migrated to RAM in the rounds, %" PRIu64 " in the prefetches; %" PRIu64 " aliases",
	    r->rounds.migrated_out, r->rest.migrated_out, aliases);
	return false;
}

/* Timings depend on the machine, too: they never fail the run. */
static void check_goals(const struct report *report)
{
	double prefetch = ratio(report, PREFETCH, OFF);
	double round = ratio(report, ROUND, RAM);

	if (prefetch < GOAL_PREFETCH)
		printf("warning: prefetch was %.1f times as fast as without p2pdma; the goal is %.0f\n",
		       prefetch, GOAL_PREFETCH);
	if (round > GOAL_ROUND)
		printf("warning: a round took %.2f times as long as in plain RAM; the goal is %.1f at most\n",
		       round, GOAL_ROUND);
}

bool report_verdict(const struct report *report)
{
	bool ok = all_data_ok(report);

	if (ok)
		say(true, "the peer received, and the GPU holds, the right data");
	else
		say(false, "wrong data; see above");

	ok &= check_p2pdma(report);
	ok &= check_off(report);
	check_goals(report);
	return ok;
}
