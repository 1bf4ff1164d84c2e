// SPDX-License-Identifier: GPL-2.0
/* How many pages are reached in place, and how many are not. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "hmmp2p.h"
#include "measure.h"

#define HEADING_EVERY	20	/* rows, on a terminal */

/* Pages since boot; on a window, since it was declared. */
struct sample {
	double time;
	struct p2pdma_stats total;
	struct p2pdma_window *windows;
	size_t nr_windows;
};

/* The pages counted between two samples. */
struct change {
	double elapsed;
	double seconds;		/* 0: since boot */
	struct p2pdma_stats total;
	struct p2pdma_stats no_window;
	struct p2pdma_stats gone;	/* on windows that are gone now */
	struct p2pdma_stats *windows;
};

static void sleep_until(double time)
{
	struct timespec t = { .tv_sec = time };

	t.tv_nsec = (time - t.tv_sec) * 1e9;
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) ==
	       EINTR)
		;
}

static void take_sample(struct sample *s, const struct options *o)
{
	int err;

	memset(s, 0, sizeof(*s));
	s->time = now();
	err = p2pdma_read_stats(&s->total);
	if (err)
		fail(EXIT_FAILURE, SYSFS_DIR "/stats: %s", strerror(-err));
	if (!o->per_device)
		return;
	err = read_windows(&s->windows, &s->nr_windows);
	if (err)
		fail(EXIT_FAILURE, DEBUGFS_DIR "/windows: %s", cure(err));
}

/* A driver that was loaded again has a new window, which counts from 0. */
static bool is_later(const struct p2pdma_window *w,
		     const struct p2pdma_window *old)
{
	int i;

	if (!same(w->exporter, old->exporter) || w->start != old->start ||
	    w->size != old->size)
		return false;
	for (i = 0; i < P2PDMA_NR_STATS; i++) {
		if (w->stats.pages[i] < old->stats.pages[i])
			return false;
	}
	return true;
}

/* NULL if the window is new: then it has counted all its pages after @old. */
static const struct p2pdma_window *find_earlier(const struct p2pdma_window *w,
						const struct sample *old)
{
	const struct p2pdma_window *earlier;

	for_each(earlier, old->windows, old->nr_windows) {
		if (is_later(w, earlier))
			return earlier;
	}
	return NULL;
}

static void compare_samples(struct change *c, const struct sample *s,
			    const struct sample *old)
{
	const struct p2pdma_window *earlier;
	struct p2pdma_stats sum = { };
	size_t i, found = 0;

	c->windows = allocated(calloc(s->nr_windows + 1, sizeof(*c->windows)));
	for (i = 0; i < s->nr_windows; i++) {
		c->windows[i] = s->windows[i].stats;
		earlier = find_earlier(&s->windows[i], old);
		if (earlier) {
			c->windows[i] = p2pdma_stats_since(&c->windows[i],
							   &earlier->stats);
			found++;
		}
		p2pdma_stats_add(&sum, &c->windows[i]);
	}

	c->total = p2pdma_stats_since(&s->total, &old->total);
	c->no_window.pages[P2PDMA_FALLBACK_NO_WINDOW] =
		c->total.pages[P2PDMA_FALLBACK_NO_WINDOW];
	p2pdma_stats_add(&sum, &c->no_window);

	/*
	 * The counters are not read all at once: while pages are being counted,
	 * the total may exceed the sum. A window need not be gone.
	 */
	if (!c->seconds || found < old->nr_windows)
		c->gone = p2pdma_stats_since(&c->total, &sum);
}

static const char *short_name(enum p2pdma_stat stat)
{
	return strchr(p2pdma_stat_names[stat], '_') + 1;
}

/* At least the width of 0000:03:00.0 and a name */
#define LABEL_WIDTH	24

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
	printf("%-*s", LABEL_WIDTH, o->interval ? "pages/s" : "pages since boot");
	for (i = 0; i < P2PDMA_FALLBACK_NO_WINDOW; i++)
		printf("%*s", number_width(short_name(i)), short_name(i));
	printf("%*s\n", number_width("fallback"), "fallback");
}

/* The row ends with the reasons of fallbacks that have counted pages. */
static void print_row(const struct change *c, const char *label,
		      const struct p2pdma_stats *stats)
{
	const char *separator = "  ";
	uint64_t fallbacks = 0;
	int i;

	rows++;
	if (c->seconds)
		printf("%9.3f  ", c->elapsed);
	printf("%-*s", LABEL_WIDTH, label);
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

static void print_stat(const struct sample *s, const struct change *c,
		       const struct options *o)
{
	static const struct p2pdma_stats zero;
	struct device device;
	char label[640];
	size_t i;

	if (rows >= HEADING_EVERY && isatty(STDOUT_FILENO))
		print_heading(o);
	for (i = 0; i < s->nr_windows; i++) {
		device_describe(&device, s->windows[i].exporter);
		snprintf(label, sizeof(label), "%s %s", device.address,
			 device.title);
		print_row(c, label, &c->windows[i]);
	}
	if (o->per_device && memcmp(&c->gone, &zero, sizeof(zero)))
		print_row(c, "(window gone)", &c->gone);
	print_row(c, "(no window)", &c->no_window);
	print_row(c, "total", &c->total);
}

static void json_stats(const struct change *c, const struct p2pdma_stats *stats)
{
	char key[64];
	int i;

	for (i = 0; i < P2PDMA_NR_STATS; i++) {
		snprintf(key, sizeof(key), "%s_pages%s", p2pdma_stat_names[i],
			 c->seconds ? "_per_s" : "");
		if (c->seconds)
			json_number(key, stats->pages[i] / c->seconds, 3);
		else
			json_integer(key, stats->pages[i]);
	}
}

static void json_stats_of(const char *key, const struct change *c,
			  const struct p2pdma_stats *stats)
{
	json_open(key, '{');
	json_stats(c, stats);
	json_close('}');
}

static void json_stat(const struct sample *s, const struct change *c,
		      const struct options *o)
{
	struct device device;
	size_t i;

	json_open(NULL, '{');
	json_bool("enabled", read_enabled());
	if (c->seconds) {
		json_number("elapsed_seconds", c->elapsed, 6);
		json_number("seconds", c->seconds, 6);
	}
	if (o->per_device) {
		json_open("windows", '[');
		for (i = 0; i < s->nr_windows; i++) {
			json_open(NULL, '{');
			json_window(&s->windows[i]);
			device_describe(&device, s->windows[i].exporter);
			json_device(&device);
			json_stats(c, &c->windows[i]);
			json_close('}');
		}
		json_close(']');
		json_stats_of("gone", c, &c->gone);
	}
	json_stats_of("no_window", c, &c->no_window);
	json_stats_of("total", c, &c->total);
	json_end();
}

/* Show the change from @old to @s, or since boot if @old is NULL. */
static void show_change(const struct sample *s, const struct sample *old,
			double elapsed, const struct options *o)
{
	static const struct sample boot;
	struct change c = { .elapsed = elapsed };

	if (old)
		c.seconds = s->time - old->time;
	compare_samples(&c, s, old ? old : &boot);
	if (o->json)
		json_stat(s, &c, o);
	else
		print_stat(s, &c, o);
	flush_output();
	free(c.windows);
}

static void watch(const struct options *o)
{
	struct sample old, s;
	double start, next;
	unsigned long i;

	flush_output();
	take_sample(&old, o);
	start = next = old.time;
	for (i = 0; i < o->count || !o->count; i++) {
		next += o->interval;
		/* Do not catch up if the program was stopped, for example */
		if (next < now())
			next = now() + o->interval;
		sleep_until(next);
		take_sample(&s, o);
		show_change(&s, &old, s.time - start, o);
		p2pdma_free_windows(old.windows, old.nr_windows);
		old = s;
	}
}

void run_stat(struct options *o)
{
	struct p2pdma_window *windows;
	bool enabled = read_enabled();
	struct sample s;
	size_t nr;
	int err;

	err = read_windows(&windows, &nr);
	if (err == -EACCES)
		fail(EXIT_FAILURE, DEBUGFS_DIR ": %s", cure(err));
	if (err)
		fprintf(stderr, "hmmp2p: nothing by device: " DEBUGFS_DIR ": %s\n",
			cure(err));
	o->per_device = !err;
	p2pdma_free_windows(windows, nr);

	if (!o->json) {
		tell_if_disabled(enabled);
		print_heading(o);
	}
	if (o->interval) {
		watch(o);
		return;
	}
	take_sample(&s, o);
	show_change(&s, NULL, 0, o);
}
