// SPDX-License-Identifier: GPL-2.0
/* Which device reaches the memory of which, how, and why not. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hmmp2p.h"

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

/* Windows that are in use come first, and those of unknown exporters last. */
static int compare_windows(const void *a, const void *b)
{
	const struct p2pdma_window *x = a, *y = b;
	int order = !x->exporter - !y->exporter;

	if (!order && x->exporter)
		order = device_compare(x->exporter, y->exporter);
	if (!order)
		order = x->revoked - y->revoked;
	return order ? order : (x->start > y->start) - (x->start < y->start);
}

/* Keep the route to a window, if it is the first one between these devices. */
static void add_route(struct topo *topo, struct p2pdma_route route,
		      const struct p2pdma_window *window, bool all)
{
	if (find_route(topo, route.exporter, route.importer))
		return;
	if (!all && !device_may_import(route.importer))
		return;

	if (window->revoked)
		route = (struct p2pdma_route){
			.exporter = route.exporter,
			.importer = route.importer,
			.route = "none",
			.reason = "revoked",
		};
	find_device(topo, route.exporter)->exporter = true;
	find_device(topo, route.importer)->importer = true;
	topo->routes[topo->nr_routes++] = route;
}

static void add_cpu_route(struct topo *topo, const struct p2pdma_window *window,
			  bool all)
{
	struct p2pdma_route route = {
		.exporter = window->exporter,
		.importer = "cpu",
		.route = window->cpu_map ? "cpu" : "none",
		.reason = window->cpu_map ? NULL : "no_cpu_map",
	};

	add_route(topo, route, window, all);
}

/* A revoked window belongs to the device at its address, if there is one. */
static void find_exporters(struct topo *topo, const struct p2pdma_route *routes,
			   size_t nr)
{
	const struct p2pdma_route *route;
	struct p2pdma_window *w;

	for_each(w, topo->windows, topo->nr_windows) {
		for_each(route, routes, nr) {
			if (!w->exporter && p2pdma_leads_to(route, w))
				w->exporter = route->exporter;
		}
	}
}

static void load_topo(struct topo *topo, bool all)
{
	const struct p2pdma_window *w;
	struct p2pdma_route *routes, *route;
	size_t nr;

	topo->enabled = read_enabled();
	must_read(P2PDMA_WINDOWS,
		  p2pdma_read_windows(&topo->windows, &topo->nr_windows));
	must_read(P2PDMA_ROUTES, p2pdma_read_routes(&routes, &nr));

	find_exporters(topo, routes, nr);
	if (topo->nr_windows)
		qsort(topo->windows, topo->nr_windows, sizeof(*topo->windows),
		      compare_windows);

	topo->routes = allocated(calloc(nr + topo->nr_windows + 1,
					sizeof(*topo->routes)));
	topo->devices = allocated(calloc(2 * (nr + topo->nr_windows) + 1,
					 sizeof(*topo->devices)));
	for_each(w, topo->windows, topo->nr_windows) {
		if (!w->exporter)
			continue;
		add_cpu_route(topo, w, all);
		for_each(route, routes, nr) {
			if (p2pdma_leads_to(route, w))
				add_route(topo, *route, w, all);
		}
	}

	qsort(topo->devices, topo->nr_devices, sizeof(*topo->devices),
	      compare_devices);
	qsort(topo->routes, topo->nr_routes, sizeof(*topo->routes),
	      compare_routes);
}

static const char *route_text(const struct p2pdma_route *route)
{
	return route ? route->route : "-";
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

/* Pad by the width of the text: colour codes take no place on a terminal. */
static void print_cell(const struct p2pdma_route *route, int width)
{
	const char *text = route_text(route);
	int colour = route ? find_meaning(route)->colour : 0;
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

static void print_legend(void)
{
	const struct meaning *meaning;

	printf("\n");
	for_each(meaning, meanings, ARRAY_LEN(meanings))
		printf("%-11s  %s\n", meaning->route, meaning->text);
}

static void print_windows(const struct topo *topo)
{
	const struct p2pdma_window *w;

	printf("\nWindows of exporters:\n");
	for_each(w, topo->windows, topo->nr_windows) {
		printf("  %-12s  %" PRIu64 " MiB at %#" PRIx64 ", ",
		       w->exporter ? w->exporter : "(gone)", w->size >> 20,
		       w->start);
		if (w->revoked)
			printf("revoked\n");
		else
			printf("%s, %s\n",
			       w->cpu_map ? "mapped for the CPU" : "not mapped for the CPU",
			       w->pages ? "struct pages" : "no struct pages");
	}
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

/* Does the same explanation apply to both routes? */
static bool same_cause(const struct p2pdma_route *a,
		       const struct p2pdma_route *b)
{
	return same(a->route, b->route) && same(a->reason, b->reason) &&
	       !a->redirect == !b->redirect;
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

/* Print the ports of all pairs with the same cause, each once. */
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
		printf("    The kernel does not trust the host bridge with peer-to-peer traffic.\n");
	else if (same(reason, "no_cpu_map"))
		printf("    The exporter's driver has not mapped the window for the CPU.\n");
	else if (same(reason, "revoked"))
		printf("    The exporter's driver has revoked the window, as it does during a reset.\n");
	else if (same(reason, "dma_mask"))
		printf("    The BAR of the window goes beyond what the device can address.\n");
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

/* Print each cause once, at its first route. */
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
		printf("No exporter: no driver has a window of device-private memory.\n");
		if (topo->nr_windows)
			print_windows(topo);
		return;
	}
	print_matrix(topo);
	print_legend();
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
		json_text("driver",
			  *d->device.driver ? d->device.driver : NULL);
		json_split("names", d->device.names, " ");
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
		json_text("exporter", window->exporter);
		json_integer("start", window->start);
		json_integer("size_bytes", window->size);
		json_bool("revoked", window->revoked);
		if (!window->revoked) {
			json_bool("cpu_map", window->cpu_map);
			json_bool("struct_pages", window->pages);
		}
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
		json_split("redirect", route->redirect, ";");
		json_bool("redirect_cut", route->redirect_cut);
		json_close('}');
	}
	json_close(']');
	json_end();
}

void run_topo(struct options *o)
{
	struct topo topo = { };

	load_topo(&topo, o->all);
	if (o->json)
		json_topo(&topo);
	else
		print_topo(&topo);
	flush_output();
}
