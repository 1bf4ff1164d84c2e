// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "p2pdma.h"

#define DIR	SYSFS "/kernel/mm/hmm_p2pdma/"

const char * const p2pdma_stat_names[P2PDMA_NR_STATS] = {
	[P2PDMA_ALIAS_CPU]		= "alias_cpu",
	[P2PDMA_ALIAS_BUS]		= "alias_bus",
	[P2PDMA_ALIAS_HOST_BRIDGE]	= "alias_host_bridge",
	[P2PDMA_FALLBACK_NO_WINDOW]	= "fallback_no_window",
	[P2PDMA_FALLBACK_OUTSIDE_WINDOW] = "fallback_outside_window",
	[P2PDMA_FALLBACK_UNREACHABLE]	= "fallback_unreachable",
	[P2PDMA_FALLBACK_REVOKED]	= "fallback_revoked",
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

static void set_stat(struct p2pdma_stats *stats, const char *name,
		     uint64_t pages)
{
	int i;

	for (i = 0; i < P2PDMA_NR_STATS; i++) {
		if (!strcmp(name, p2pdma_stat_names[i]))
			stats->pages[i] = pages;
	}
}

/* Kernels may have more counters, and other reasons of fallbacks. */
int p2pdma_read_stats(struct p2pdma_stats *stats)
{
	FILE *file = fopen(P2PDMA_STATS, "r");
	char line[128], name[64];
	uint64_t pages;
	int err = 0;

	memset(stats, 0, sizeof(*stats));
	if (!file)
		return -errno;

	while (!err && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%63s %" SCNu64, name, &pages) == 2)
			set_stat(stats, name, pages);
		else
			err = -EPROTO;
	}
	if (ferror(file))
		err = -EIO;
	fclose(file);
	return err;
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

static int parse_window(void *row, char *line)
{
	struct p2pdma_window *w = row;
	char *key, *value;

	*w = (struct p2pdma_window){ };
	while (next_pair(&line, &key, &value)) {
		if (!strcmp(key, "exporter"))
			w->exporter = value;
		else if (!strcmp(key, "start"))
			w->start = strtoull(value, NULL, 0);
		else if (!strcmp(key, "size"))
			w->size = strtoull(value, NULL, 0);
		else if (!strcmp(key, "cpu_map"))
			w->cpu_map = atoi(value);
		else if (!strcmp(key, "pages"))
			w->pages = atoi(value);
		else if (!strcmp(key, "revoked"))
			w->revoked = atoi(value);
	}

	return w->size && (w->exporter || w->revoked) ? 0 : -EPROTO;
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

	*r = (struct p2pdma_route){ };
	while (next_pair(&line, &key, &value)) {
		if (!strcmp(key, "provider"))
			r->exporter = value;
		else if (!strcmp(key, "client"))
			r->importer = value;
		else if (!strcmp(key, "start"))
			r->start = strtoull(value, NULL, 0);
		else if (!strcmp(key, "size"))
			r->size = strtoull(value, NULL, 0);
		else if (!strcmp(key, "route"))
			r->route = value;
		else if (!strcmp(key, "reason"))
			r->reason = value;
		else if (!strcmp(key, "redirect"))
			parse_redirect(r, value);
	}

	return r->exporter && r->importer && r->size && r->route ? 0 : -EPROTO;
}

/* Reads one row from each line. The row points into the line, which stays. */
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
	return read_rows(P2PDMA_WINDOWS, parse_window, sizeof(**windows),
			 (void **)windows, nr);
}

int p2pdma_read_routes(struct p2pdma_route **routes, size_t *nr)
{
	return read_rows(P2PDMA_ROUTES, parse_route, sizeof(**routes),
			 (void **)routes, nr);
}

bool p2pdma_leads_to(const struct p2pdma_route *route,
		     const struct p2pdma_window *window)
{
	return (!window->exporter ||
		!strcmp(route->exporter, window->exporter)) &&
	       window->start >= route->start &&
	       window->start - route->start < route->size;
}
