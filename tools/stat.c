// SPDX-License-Identifier: GPL-2.0
/* How many pages are reached in place, and how many are not. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "hmmp2p.h"
#include "measure.h"

#define HEADING_EVERY	20	/* rows, on a terminal */

struct sample {
	double time;
	struct p2pdma_stats stats;
};

/* The pages counted between two samples. */
struct change {
	double elapsed;
	double seconds;		/* 0: since boot */
	struct p2pdma_stats stats;
};

static void sleep_until(double time)
{
	struct timespec t = { .tv_sec = time };

	t.tv_nsec = (time - t.tv_sec) * 1e9;
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) ==
	       EINTR)
		;
}

static void take_sample(struct sample *s)
{
	s->time = now();
	must_read(P2PDMA_STATS, p2pdma_read_stats(&s->stats));
}

static const char *short_name(enum p2pdma_stat stat)
{
	return strchr(p2pdma_stat_names[stat], '_') + 1;
}

static const char *unit(const struct options *o)
{
	return o->interval ? "pages/s" : "pages since boot";
}

static int number_width(const char *heading)
{
	return max(10, strlen(heading)) + 1;
}

static void print_number(const struct change *c, uint64_t pages, int width)
{
	double rate = c->seconds ? pages / c->seconds : pages;

	printf("%*.*f", width, c->seconds && rate > 0 && rate < 10, rate);
}

static int rows;	/* below the heading */

static void print_heading(const struct options *o)
{
	int i;

	rows = 0;
	if (o->interval)
		printf("%9s  ", "seconds");
	printf("%s", unit(o));
	for (i = 0; i < P2PDMA_FALLBACK_NO_WINDOW; i++)
		printf("%*s", number_width(short_name(i)), short_name(i));
	printf("%*s\n", number_width("fallback"), "fallback");
}

/* The row ends with the reasons of fallbacks that have counted pages. */
static void print_stat(const struct change *c, const struct options *o)
{
	const struct p2pdma_stats *stats = &c->stats;
	const char *separator = "  ";
	uint64_t fallbacks = 0;
	int i;

	if (rows >= HEADING_EVERY && isatty(STDOUT_FILENO))
		print_heading(o);
	rows++;
	if (o->interval)
		printf("%9.3f  ", c->elapsed);
	printf("%*s", (int)strlen(unit(o)), "");
	for (i = 0; i < P2PDMA_FALLBACK_NO_WINDOW; i++)
		print_number(c, stats->pages[i], number_width(short_name(i)));
	for (; i < P2PDMA_NR_STATS; i++)
		fallbacks += stats->pages[i];
	print_number(c, fallbacks, number_width("fallback"));

	for (i = P2PDMA_FALLBACK_NO_WINDOW; i < P2PDMA_NR_STATS; i++) {
		if (!stats->pages[i])
			continue;
		printf("%s%s ", separator, short_name(i));
		print_number(c, stats->pages[i], 0);
		separator = ", ";
	}
	printf("\n");
}

static void json_stat(const struct change *c)
{
	char key[64];
	int i;

	json_open(NULL, '{');
	json_bool("enabled", read_enabled());
	if (c->seconds) {
		json_number("elapsed_seconds", c->elapsed, 6);
		json_number("seconds", c->seconds, 6);
	}
	for (i = 0; i < P2PDMA_NR_STATS; i++) {
		snprintf(key, sizeof(key), "%s_pages%s", p2pdma_stat_names[i],
			 c->seconds ? "_per_s" : "");
		if (c->seconds)
			json_number(key, c->stats.pages[i] / c->seconds, 3);
		else
			json_integer(key, c->stats.pages[i]);
	}
	json_end();
}

static void show_change(const struct change *c, const struct options *o)
{
	if (o->json)
		json_stat(c);
	else
		print_stat(c, o);
	flush_output();
}

static void watch(struct sample old, const struct options *o)
{
	double start = old.time, next = start;
	struct change c;
	struct sample s;
	unsigned long i;
	int stat;

	flush_output();
	for (i = 0; i < o->count || !o->count; i++) {
		next += o->interval;
		/* Do not catch up if the program was stopped, for example */
		if (next < now())
			next = now() + o->interval;
		sleep_until(next);
		take_sample(&s);
		c.elapsed = s.time - start;
		c.seconds = s.time - old.time;
		for (stat = 0; stat < P2PDMA_NR_STATS; stat++)
			c.stats.pages[stat] = s.stats.pages[stat] -
					      old.stats.pages[stat];
		show_change(&c, o);
		old = s;
	}
}

void run_stat(struct options *o)
{
	bool enabled = read_enabled();
	struct sample s;

	take_sample(&s);
	if (!o->json) {
		tell_if_disabled(enabled);
		print_heading(o);
	}
	if (o->interval)
		watch(s, o);
	else
		show_change(&(struct change){ .stats = s.stats }, o);
}
