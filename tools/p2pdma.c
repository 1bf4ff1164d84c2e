// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "p2pdma.h"

#define DIR	SYSFS "/kernel/mm/hmm_p2pdma/"
#define DEBUG_DIR	DEBUGFS "/hmm_p2pdma/"

const char * const p2pdma_stat_names[P2PDMA_NR_STATS] = {
	[P2PDMA_ALIAS_CPU]		= "alias_cpu",
	[P2PDMA_ALIAS_BUS]		= "alias_bus",
	[P2PDMA_ALIAS_HOST_BRIDGE]	= "alias_host_bridge",
	[P2PDMA_FALLBACK_NO_WINDOW]	= "fallback_no_window",
	[P2PDMA_FALLBACK_OUTSIDE_WINDOW] = "fallback_outside_window",
	[P2PDMA_FALLBACK_CALLBACK]	= "fallback_callback",
	[P2PDMA_FALLBACK_UNREACHABLE]	= "fallback_unreachable",
	[P2PDMA_FALLBACK_READONLY]	= "fallback_readonly",
	[P2PDMA_FALLBACK_NO_PAGES]	= "fallback_no_pages",
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
		if (!file && errno == ENOENT) {
			/* This kernel does not have this counter */
			stats->pages[i] = 0;
			continue;
		}
		if (!file)
			return -errno;
		n = fscanf(file, "%" SCNu64, &stats->pages[i]);
		fclose(file);
		if (n != 1)
			return -EIO;
	}

	return 0;
}

void p2pdma_stats_add(struct p2pdma_stats *sum, const struct p2pdma_stats *stats)
{
	int i;

	for (i = 0; i < P2PDMA_NR_STATS; i++)
		sum->pages[i] += stats->pages[i];
}

struct p2pdma_stats p2pdma_stats_since(const struct p2pdma_stats *stats,
				       const struct p2pdma_stats *old)
{
	struct p2pdma_stats d = { };
	int i;

	for (i = 0; i < P2PDMA_NR_STATS; i++) {
		if (stats->pages[i] > old->pages[i])
			d.pages[i] = stats->pages[i] - old->pages[i];
	}
	return d;
}

/* Take the next key=value off a line; false at its end. */
static bool next_pair(char **line, char **key, char **value)
{
	while ((*key = strsep(line, " \n"))) {
		*value = strchr(*key, '=');
		if (*value) {
			*(*value)++ = '\0';
			return true;
		}
	}
	return false;
}

static void parse_stat(struct p2pdma_stats *stats, const char *key,
		       const char *value)
{
	int i;

	for (i = 0; i < P2PDMA_NR_STATS; i++) {
		if (!strcmp(key, p2pdma_stat_names[i]))
			stats->pages[i] = strtoull(value, NULL, 0);
	}
}

static int parse_window(void *row, char *line)
{
	struct p2pdma_window *w = row;
	char *key, *value;

	*w = (struct p2pdma_window){ .line = line, .lookup = "" };
	while (next_pair(&line, &key, &value)) {
		if (!strcmp(key, "exporter"))
			w->exporter = value;
		else if (!strcmp(key, "start"))
			w->start = strtoull(value, NULL, 0);
		else if (!strcmp(key, "size"))
			w->size = strtoull(value, NULL, 0);
		else if (!strcmp(key, "lookup"))
			w->lookup = value;
		else if (!strcmp(key, "cpu_map"))
			w->cpu_map = atoi(value);
		else if (!strcmp(key, "pages"))
			w->pages = atoi(value);
		else
			parse_stat(&w->stats, key, value);
	}

	return w->exporter ? 0 : -EPROTO;
}

/* "..." marks where the kernel has cut the list, maybe within a port. */
static void parse_redirect(struct p2pdma_route *r, char *list)
{
	char *end = strstr(list, "...");

	r->redirect = list;
	if (!end)
		return;

	r->redirect_cut = true;
	*end = '\0';
	end = strrchr(list, ';');
	if (end)
		*end = '\0';
}

static int parse_route(void *row, char *line)
{
	struct p2pdma_route *r = row;
	char *key, *value;

	*r = (struct p2pdma_route){ .line = line };
	while (next_pair(&line, &key, &value)) {
		if (!strcmp(key, "exporter"))
			r->exporter = value;
		else if (!strcmp(key, "importer"))
			r->importer = value;
		else if (!strcmp(key, "route"))
			r->route = value;
		else if (!strcmp(key, "reason"))
			r->reason = value;
		else if (!strcmp(key, "host"))
			r->host = value;
		else if (!strcmp(key, "redirect"))
			parse_redirect(r, value);
		else if (!strcmp(key, "link"))
			r->link = atoi(value);
	}

	return r->exporter && r->importer && r->route ? 0 : -EPROTO;
}

/* Reads one row from each line. The row keeps the line. */
static int read_rows(const char *path, int (*parse)(void *row, char *line),
		     size_t row_size, void **rows, size_t *nr)
{
	FILE *file = fopen(path, "r");
	char *line = NULL;
	size_t size = 0;
	int err = 0;
	void *grown;

	*rows = NULL;
	*nr = 0;
	if (!file)
		return -errno;

	while (!err && getline(&line, &size, file) > 0) {
		grown = reallocarray(*rows, *nr + 1, row_size);
		if (!grown) {
			err = -ENOMEM;
			break;
		}
		*rows = grown;
		err = parse((char *)grown + (*nr)++ * row_size, line);
		line = NULL;
	}
	if (ferror(file))
		err = -EIO;
	free(line);
	fclose(file);
	return err;
}

int p2pdma_read_windows(struct p2pdma_window **windows, size_t *nr)
{
	return read_rows(DEBUG_DIR "windows", parse_window, sizeof(**windows),
			 (void **)windows, nr);
}

int p2pdma_read_routes(struct p2pdma_route **routes, size_t *nr)
{
	return read_rows(DEBUG_DIR "topology", parse_route, sizeof(**routes),
			 (void **)routes, nr);
}

void p2pdma_free_windows(struct p2pdma_window *windows, size_t nr)
{
	while (nr)
		free(windows[--nr].line);
	free(windows);
}
