// SPDX-License-Identifier: GPL-2.0
/*
 * Peer-to-peer access to device-private memory, for whoever runs the machine:
 * which device reaches which, how, and why not (topo); how much goes that way,
 * and how much does not (stat). As text, or as JSON.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "device.h"
#include "p2pdma.h"

#define EXIT_USAGE	2

#define MIN_INTERVAL	0.01	/* seconds */
#define MAX_INTERVAL	86400.0
#define MAX_COUNT	1000000000U
#define HEADING_EVERY	20	/* rows, on a terminal */

#define SYSFS_DIR	SYSFS "/kernel/mm/hmm_p2pdma"
#define DEBUGFS_DIR	DEBUGFS "/hmm_p2pdma"

#define ARRAY_LEN(a)	(sizeof(a) / sizeof((a)[0]))
#define for_each(item, items, nr)					\
	for ((item) = (items); (item) < (items) + (nr); (item)++)

struct options {
	bool all;
	bool json;
	double interval;	/* 0: none */
	unsigned long count;	/* 0: no end */
	bool per_device;
};

static void fail(int status, const char *format, ...)
	__attribute__((format(printf, 2, 3), noreturn));

static void fail(int status, const char *format, ...)
{
	va_list args;

	fputs("hmmp2p: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(status);
}

static void *allocated(void *memory)
{
	if (!memory)
		fail(EXIT_FAILURE, "no memory");
	return memory;
}

/* One write for all that was said, as the buffer is large: errno is of that. */
static void flush_output(void)
{
	if (!fflush(stdout) && !ferror(stdout))
		return;
	/* Whoever has gone away does not care */
	if (errno == EPIPE)
		exit(EXIT_FAILURE);
	fail(EXIT_FAILURE, "cannot write: %s", strerror(errno));
}

/* Why debugfs has not given what we need, and what would help. */
static const char *cure(int err)
{
	struct statfs fs;

	if (err == -EACCES || err == -EPERM)
		return "permission denied: run this as root";
	if (err == -EPROTO)
		return "unknown format: use the hmmp2p that came with this kernel";
	if (err != -ENOENT)
		return strerror(-err);
	if (!statfs(DEBUGFS, &fs) && fs.f_type != DEBUGFS_MAGIC)
		return "debugfs is not mounted: mount -t debugfs debugfs " DEBUGFS;
	return "not there: boot a kernel with CONFIG_DEBUG_FS and a newer HMM_P2PDMA";
}

static bool read_enabled(void)
{
	int enabled, err = p2pdma_enabled(&enabled);

	if (err)
		fail(EXIT_FAILURE, SYSFS_DIR ": %s: boot a kernel with CONFIG_HMM_P2PDMA",
		     strerror(-err));
	return enabled;
}

static void tell_if_disabled(bool enabled)
{
	if (!enabled)
		printf("Switched off; to switch it on: echo always >" SYSFS_DIR "/enabled\n\n");
}

static int compare_windows(const void *a, const void *b)
{
	const struct p2pdma_window *x = a, *y = b;
	int order = device_compare(x->exporter, y->exporter);

	return order ? order : (x->start > y->start) - (x->start < y->start);
}

/* The kernel has them in no particular order. */
static int read_windows(struct p2pdma_window **windows, size_t *nr)
{
	int err = p2pdma_read_windows(windows, nr);

	if (!err && *nr)
		qsort(*windows, *nr, sizeof(**windows), compare_windows);
	return err;
}

/* NULL is nowhere the same as a string */
static bool same(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

/* JSON, on a line. The key is NULL in an array. */

static const char *comma = "";

static void json_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			printf("\\%c", *s);
		else if ((unsigned char)*s < ' ')
			printf("\\u%04x", *s);
		else
			putchar(*s);
	}
	putchar('"');
}

static void json_key(const char *key)
{
	printf("%s", comma);
	comma = ", ";
	if (key) {
		json_string(key);
		printf(": ");
	}
}

static void json_open(const char *key, char bracket)
{
	json_key(key);
	putchar(bracket);
	comma = "";
}

static void json_close(char bracket)
{
	putchar(bracket);
	comma = ", ";
}

static void json_end(void)
{
	json_close('}');
	putchar('\n');
	comma = "";
}

static void json_text(const char *key, const char *s)
{
	json_key(key);
	if (s)
		json_string(s);
	else
		printf("null");
}

static void json_bool(const char *key, bool value)
{
	json_key(key);
	printf(value ? "true" : "false");
}

static void json_number(const char *key, double value, int digits)
{
	json_key(key);
	printf("%.*f", digits, value);
}

static void json_integer(const char *key, uint64_t value)
{
	json_key(key);
	printf("%" PRIu64, value);
}

/* The parts of a string, as an array. */
static void json_split(const char *key, const char *s, const char *separator)
{
	char *copy = allocated(strdup(s ? s : "")), *rest = copy, *part;

	json_open(key, '[');
	while ((part = strsep(&rest, separator))) {
		if (*part)
			json_text(NULL, part);
	}
	json_close(']');
	free(copy);
}

static void json_device(const struct device *device)
{
	json_text("driver", *device->driver ? device->driver : NULL);
	json_split("names", device->names, " ");
}

static void json_window(const struct p2pdma_window *window)
{
	json_text("exporter", window->exporter);
	json_integer("start", window->start);
	json_integer("size_bytes", window->size);
}

/* topo */

struct topo {
	bool enabled;
	struct p2pdma_window *windows;
	struct p2pdma_route *routes;
	size_t nr_windows;
	size_t nr_routes;
	struct topo_device {
		struct device device;
		bool exporter;
		bool importer;
	} *devices;
	size_t nr_devices;
};

static const struct meaning {
	const char *route;
	const char *text;
	bool direct;
	int colour;
} meanings[] = {
	{ "cpu", "the CPU copies, by the kernel's mapping of the window",
	  true, 0 },
	{ "bus", "DMA by bus address, directly, below one switch", true, 0 },
	{ "host_bridge", "DMA through the host bridge", false, 33 },
	{ "iommu", "DMA through the host bridge, and the IOMMU translates",
	  false, 33 },
	{ "none", "out of reach: memory migrates to RAM", false, 31 },
};

static const char link_text[] =
	"and by a private link, which needs no PCI: an importer that knows its\n"
	"             links uses them first";

static const struct meaning *find_meaning(const struct p2pdma_route *route)
{
	static const struct meaning unknown;
	const struct meaning *meaning;

	for_each(meaning, meanings, ARRAY_LEN(meanings)) {
		if (same(meaning->route, route->route))
			return meaning;
	}
	return &unknown;
}

static struct topo_device *find_device(struct topo *topo, const char *address)
{
	struct topo_device *d;

	for_each(d, topo->devices, topo->nr_devices) {
		if (same(d->device.address, address))
			return d;
	}
	topo->nr_devices++;
	device_describe(&d->device, address);
	return d;
}

static int compare_devices(const void *a, const void *b)
{
	const struct topo_device *x = a, *y = b;

	return device_compare(x->device.address, y->device.address);
}

static int compare_routes(const void *a, const void *b)
{
	const struct p2pdma_route *x = a, *y = b;
	int order = device_compare(x->exporter, y->exporter);

	return order ? order : device_compare(x->importer, y->importer);
}

static const struct p2pdma_route *
find_route(const struct topo *topo, const char *exporter, const char *importer)
{
	const struct p2pdma_route *route;

	for_each(route, topo->routes, topo->nr_routes) {
		if (same(route->exporter, exporter) &&
		    same(route->importer, importer))
			return route;
	}
	return NULL;
}

/* Keep those that are to be shown, and each once. */
static void add_route(struct topo *topo, const struct p2pdma_route *route,
		      bool all)
{
	find_device(topo, route->exporter)->exporter = true;

	/* To its own memory a device does not go by the fabric */
	if (same(route->exporter, route->importer) ||
	    find_route(topo, route->exporter, route->importer))
		return;
	if (all || device_may_import(route->importer)) {
		find_device(topo, route->importer)->importer = true;
		topo->routes[topo->nr_routes++] = *route;
	}
}

static void load_topo(struct topo *topo, bool all)
{
	size_t i, nr = 0;
	int err;

	topo->enabled = read_enabled();
	err = read_windows(&topo->windows, &topo->nr_windows);
	if (!err)
		err = p2pdma_read_routes(&topo->routes, &nr);
	if (err)
		fail(EXIT_FAILURE, DEBUGFS_DIR ": %s", cure(err));

	topo->devices = allocated(calloc(2 * nr + 1, sizeof(*topo->devices)));
	for (i = 0; i < nr; i++)
		add_route(topo, &topo->routes[i], all);
	qsort(topo->devices, topo->nr_devices, sizeof(*topo->devices),
	      compare_devices);
	if (topo->nr_routes)
		qsort(topo->routes, topo->nr_routes, sizeof(*topo->routes),
		      compare_routes);
}

static int max(int a, int b)
{
	return a > b ? a : b;
}

static const char *route_text(const struct p2pdma_route *route)
{
	static char text[64];

	if (!route)
		return "-";
	snprintf(text, sizeof(text), "%s%s", route->link ? "link, " : "",
		 route->route);
	return text;
}

static int column_width(const struct topo *topo, const struct topo_device *d)
{
	int width = max(strlen(d->device.address), strlen(d->device.title));
	const struct p2pdma_route *route;

	for_each(route, topo->routes, topo->nr_routes) {
		if (same(route->exporter, d->device.address))
			width = max(width, strlen(route_text(route)));
	}
	return width;
}

/* Pad what takes no place on a terminal when it is coloured. */
static void print_cell(const struct p2pdma_route *route, int width)
{
	const char *text = route_text(route);
	int colour = route && !route->link ? find_meaning(route)->colour : 0;
	int pad = width - (int)strlen(text);

	if (colour && isatty(STDOUT_FILENO) && !getenv("NO_COLOR"))
		printf("  \033[%dm%s\033[0m", colour, text);
	else
		printf("  %s", text);
	printf("%*s", max(pad, 0), "");
}

/* A row for each importer, a column for each exporter. */
static void print_matrix(const struct topo *topo)
{
	const struct topo_device *row, *col;
	int address = strlen("importer"), title = 0;

	for_each(row, topo->devices, topo->nr_devices) {
		if (!row->importer)
			continue;
		address = max(address, strlen(row->device.address));
		title = max(title, strlen(row->device.title));
	}

	printf("%-*s  %*s", address, "importer", title, "");
	for_each(col, topo->devices, topo->nr_devices) {
		if (col->exporter)
			printf("  %-*s", column_width(topo, col), col->device.address);
	}
	printf("\n%*s", address + 2 + title, "");
	for_each(col, topo->devices, topo->nr_devices) {
		if (col->exporter)
			printf("  %-*s", column_width(topo, col), col->device.title);
	}
	printf("\n");

	for_each(row, topo->devices, topo->nr_devices) {
		if (!row->importer)
			continue;
		printf("%-*s  %-*s", address, row->device.address, title,
		       row->device.title);
		for_each(col, topo->devices, topo->nr_devices) {
			if (col->exporter)
				print_cell(find_route(topo, col->device.address,
						      row->device.address),
					   column_width(topo, col));
		}
		printf("\n");
	}
}

/* Links are rare: say what they are where there is one. */
static void print_legend(const struct topo *topo)
{
	const struct p2pdma_route *route;
	const struct meaning *meaning;
	bool links = false;

	printf("\n");
	for_each(meaning, meanings, ARRAY_LEN(meanings))
		printf("%-11s  %s\n", meaning->route, meaning->text);
	for_each(route, topo->routes, topo->nr_routes)
		links |= route->link;
	if (links)
		printf("%-11s  %s\n", "link", link_text);
}

static void print_windows(const struct topo *topo)
{
	const struct p2pdma_window *w;

	printf("\nWindows of exporters:\n");
	for_each(w, topo->windows, topo->nr_windows)
		printf("  %s  %" PRIu64 " MiB at %#" PRIx64 ", %s, %s, %s\n",
		       w->exporter, w->size >> 20, w->start, w->lookup,
		       w->cpu_map ? "mapped for the CPU" : "not mapped for the CPU",
		       w->pages ? "struct pages" : "no struct pages");
}

static void print_paths(const struct topo *topo)
{
	const struct topo_device *d;

	printf("\nPCI paths:\n");
	for_each(d, topo->devices, topo->nr_devices) {
		if (*d->device.path)
			printf("  %s  %s\n", d->device.address, d->device.path);
	}
}

/* What there is to be said of both is the same. */
static bool same_cause(const struct p2pdma_route *a,
		       const struct p2pdma_route *b)
{
	return same(a->route, b->route) && same(a->reason, b->reason) &&
	       same(a->host, b->host) && !a->redirect == !b->redirect;
}

/* "0000:03:00.0 from 0000:05:00.0, 0000:06:00.0", a line for each exporter. */
static void print_pairs(const struct topo *topo,
			const struct p2pdma_route *cause)
{
	const struct p2pdma_route *route;
	const struct topo_device *d;
	int n;

	for_each(d, topo->devices, topo->nr_devices) {
		n = 0;
		for_each(route, topo->routes, topo->nr_routes) {
			if (!same(route->exporter, d->device.address) ||
			    !same_cause(route, cause))
				continue;
			if (!n)
				printf("  %s from", d->device.address);
			printf("%s %s", n++ ? "," : "", route->importer);
		}
		if (n)
			printf(": %s\n", cause->route);
	}
}

/* The ports of all pairs with the same cause, and each once. */
static void print_ports(const struct topo *topo,
			const struct p2pdma_route *cause)
{
	const struct p2pdma_route *route;
	char **ports = NULL, *rest, *port;
	bool cut = false;
	size_t i, nr = 0;

	for_each(route, topo->routes, topo->nr_routes) {
		if (!same_cause(route, cause))
			continue;
		cut |= route->redirect_cut;
		rest = allocated(strdup(route->redirect));
		while ((port = strsep(&rest, ";"))) {
			for (i = 0; i < nr && strcmp(ports[i], port); i++)
				;
			if (i < nr)
				continue;
			ports = allocated(reallocarray(ports, nr + 1,
						       sizeof(*ports)));
			ports[nr++] = port;
		}
	}

	printf("    pci=disable_acs_redir=");
	for (i = 0; i < nr; i++)
		printf("%s%s", i ? ";" : "", ports[i]);
	printf("\n");
	if (cut)
		printf("    and more ports of these paths: the kernel has cut its list.\n");
	free(ports);
}

static void print_cause(const struct topo *topo,
			const struct p2pdma_route *cause)
{
	const char *reason = cause->reason;

	if (same(reason, "host_bridge"))
		printf("    The kernel does not trust the host bridge%s%s with peer-to-peer traffic.\n",
		       cause->host ? " " : "", cause->host ? cause->host : "");
	else if (same(reason, "no_cpu_map"))
		printf("    The exporter's driver has not mapped the window for the CPU.\n");
	else if (reason && !same(reason, "acs_redirect"))
		printf("    The kernel's reason: %s.\n", reason);
	else if (!cause->redirect)
		printf("    No switch is above both.\n");

	if (!cause->redirect) {
		printf("    No boot parameter changes that.\n");
		return;
	}
	printf("    Ports redirect peer-to-peer traffic upstream (ACS). This boot parameter makes\n"
	       "    it direct, and the devices less isolated from each other:\n");
	print_ports(topo, cause);
}

/* Tell of each cause where it comes first. */
static void print_indirect(const struct topo *topo)
{
	const struct p2pdma_route *route, *first;
	int n = 0;

	for_each(route, topo->routes, topo->nr_routes) {
		for (first = topo->routes; !same_cause(first, route); first++)
			;
		if (first != route || find_meaning(route)->direct)
			continue;
		printf(n++ ? "\n" : "\nNot direct:\n");
		print_pairs(topo, route);
		print_cause(topo, route);
	}
}

static void print_topo(const struct topo *topo)
{
	tell_if_disabled(topo->enabled);
	if (!topo->nr_devices) {
		printf("No exporter: no driver has declared a window of device-private memory.\n");
		return;
	}
	print_matrix(topo);
	print_legend(topo);
	print_windows(topo);
	print_paths(topo);
	print_indirect(topo);
}

static void json_devices(const struct topo *topo, const char *key,
			 bool exporters)
{
	const struct topo_device *d;

	json_open(key, '[');
	for_each(d, topo->devices, topo->nr_devices) {
		if (!(exporters ? d->exporter : d->importer))
			continue;
		json_open(NULL, '{');
		json_text("address", d->device.address);
		json_device(&d->device);
		json_split("path", d->device.path, "/");
		json_close('}');
	}
	json_close(']');
}

static void json_topo(const struct topo *topo)
{
	const struct p2pdma_window *window;
	const struct p2pdma_route *route;

	json_open(NULL, '{');
	json_bool("enabled", topo->enabled);
	json_devices(topo, "exporters", true);
	json_devices(topo, "importers", false);

	json_open("windows", '[');
	for_each(window, topo->windows, topo->nr_windows) {
		json_open(NULL, '{');
		json_window(window);
		json_text("lookup", window->lookup);
		json_bool("cpu_map", window->cpu_map);
		json_bool("struct_pages", window->pages);
		json_close('}');
	}
	json_close(']');

	json_open("routes", '[');
	for_each(route, topo->routes, topo->nr_routes) {
		json_open(NULL, '{');
		json_text("exporter", route->exporter);
		json_text("importer", route->importer);
		json_text("route", route->route);
		json_text("reason", route->reason);
		json_text("host", route->host);
		json_split("redirect", route->redirect, ";");
		json_bool("redirect_cut", route->redirect_cut);
		json_bool("link", route->link);
		json_close('}');
	}
	json_close(']');
	json_end();
}

static void run_topo(struct options *o)
{
	struct topo topo = { };

	load_topo(&topo, o->all);
	if (o->json)
		json_topo(&topo);
	else
		print_topo(&topo);
	flush_output();
}

/* stat */

/* Pages since boot, and of a window since it is there. */
struct sample {
	double time;
	struct p2pdma_stats total;
	struct p2pdma_window *windows;
	size_t nr_windows;
};

/* What has been counted between two samples, in pages. */
struct change {
	double elapsed;
	double seconds;		/* 0: since boot */
	struct p2pdma_stats total;
	struct p2pdma_stats no_window;
	struct p2pdma_stats gone;	/* on windows that are not there now */
	struct p2pdma_stats *windows;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

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

/* NULL if it is new: what it has counted was all after @old. */
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
	 * A rest is normal while pages are being counted, since not all is read
	 * at once; it is no proof of a window that has gone.
	 */
	if (!c->seconds || found < old->nr_windows)
		c->gone = p2pdma_stats_since(&c->total, &sum);
}

static const char *short_name(enum p2pdma_stat stat)
{
	return strchr(p2pdma_stat_names[stat], '_') + 1;
}

/* Not less than 0000:03:00.0 and a name */
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

/* The reasons of fallbacks follow, those that there are. */
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

/* From one sample to another, or from boot. */
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
		/* Having been stopped, say, do not make up for it */
		if (next < now())
			next = now() + o->interval;
		sleep_until(next);
		take_sample(&s, o);
		show_change(&s, &old, s.time - start, o);
		p2pdma_free_windows(old.windows, old.nr_windows);
		old = s;
	}
}

static void run_stat(struct options *o)
{
	struct p2pdma_window *windows;
	bool enabled = read_enabled();
	struct sample s;
	size_t nr;
	int err;

	err = read_windows(&windows, &nr);
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

/* The command line */

static const char usage[] =
	"Usage: hmmp2p topo [-a] [-j]\n"
	"       hmmp2p stat [-i SECONDS [-c COUNT]] [-j]\n"
	"\n"
	"Peer-to-peer access to device-private memory, such as the VRAM of GPUs.\n"
	"\n"
	"topo: which device reaches the memory of which, how, and why not\n"
	"  -a, --all               all PCI functions, not only kinds that can import\n"
	"  -j, --json              a JSON object\n"
	"\n"
	"stat: pages that were reached in place, and that were not, since boot\n"
	"  -i, --interval SECONDS  pages/s instead, every so many seconds\n"
	"  -c, --count COUNT       so many times; else until Ctrl-C\n"
	"  -j, --json              a JSON object in each line\n"
	"\n"
	"  -h, --help              this\n";

static const struct option long_options[] = {
	{ "all",	no_argument,		NULL, 'a' },
	{ "count",	required_argument,	NULL, 'c' },
	{ "help",	no_argument,		NULL, 'h' },
	{ "interval",	required_argument,	NULL, 'i' },
	{ "json",	no_argument,		NULL, 'j' },
	{ }
};

static const struct command {
	const char *name;
	const char *options;
	void (*run)(struct options *o);
} commands[] = {
	{ "topo", "ahj", run_topo },
	{ "stat", "c:hi:j", run_stat },
};

static void help(void)
{
	fputs(usage, stdout);
	flush_output();
	exit(EXIT_SUCCESS);
}

static double parse_interval(const char *arg)
{
	char *end;
	double seconds = strtod(arg, &end);

	/* NaN is neither less nor more */
	if (*end || !(seconds >= MIN_INTERVAL && seconds <= MAX_INTERVAL))
		fail(EXIT_USAGE, "-i %s: give seconds, from %g to %.0f", arg,
		     MIN_INTERVAL, MAX_INTERVAL);
	return seconds;
}

static unsigned long parse_count(const char *arg)
{
	char *end;
	unsigned long count = strtoul(arg, &end, 10);

	if (*end || *arg == '-' || !count || count > MAX_COUNT)
		fail(EXIT_USAGE, "-c %s: give a number from 1 to %u", arg,
		     MAX_COUNT);
	return count;
}

static void parse_options(struct options *o, const struct command *command,
			  int argc, char **argv)
{
	int option;

	while ((option = getopt_long(argc, argv, command->options, long_options,
				     NULL)) != -1) {
		/* The long options are of all commands */
		if (option != '?' && !strchr(command->options, option))
			fail(EXIT_USAGE, "%s has no option -%c; see hmmp2p --help",
			     command->name, option);
		switch (option) {
		case 'a':
			o->all = true;
			break;
		case 'c':
			o->count = parse_count(optarg);
			break;
		case 'h':
			help();
			break;
		case 'i':
			o->interval = parse_interval(optarg);
			break;
		case 'j':
			o->json = true;
			break;
		default:
			exit(EXIT_USAGE);
		}
	}
	if (optind < argc)
		fail(EXIT_USAGE, "%s: unexpected; see hmmp2p --help",
		     argv[optind]);
	if (o->count && !o->interval)
		fail(EXIT_USAGE, "-c is for -i; see hmmp2p --help");
}

int main(int argc, char **argv)
{
	static char name[] = "hmmp2p";
	const struct command *command;
	struct options o = { };

	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOFBF, 1 << 20);

	if (argc < 2) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	if (same(argv[1], "-h") || same(argv[1], "--help"))
		help();
	for_each(command, commands, ARRAY_LEN(commands)) {
		if (!same(argv[1], command->name))
			continue;
		/* It is what getopt calls us */
		argv[1] = name;
		parse_options(&o, command, argc - 1, argv + 1);
		command->run(&o);
		return EXIT_SUCCESS;
	}
	fail(EXIT_USAGE, "%s: no such command; see hmmp2p --help", argv[1]);
}
