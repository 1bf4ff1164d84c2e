// SPDX-License-Identifier: GPL-2.0
/*
 * GPUs use each other's memory: in place over a private link, in place over
 * PCI, or, where both are missing, by migration.
 *
 * First, each GPU works on memory of each other GPU. Then links go down and up
 * while a GPU works on memory of another one. Last, memory moves from one GPU
 * to another, over a link and by way of RAM.
 */
#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "content.h"
#include "gpu.h"
#include "measure.h"
#include "must.h"
#include "p2pdma.h"

#define MIB		(1UL << 20)
#define MAX_GPUS	8
#define ROUNDS		3
#define FLAP_S		3
#define FLAP_US		2000

enum way { LINK, PCI, MIGRATED, NR_WAYS };

static const char * const way_names[NR_WAYS] = { "link", "pci", "migrated" };

/* Work of GPU @importer on memory of GPU @exporter; times are the fastest. */
struct pair {
	int importer, exporter;
	const struct p2pdma_route *route;
	enum way expected;
	uint64_t pages[NR_WAYS];
	double first_s;		/* the first operation, a sum */
	double next_s;		/* the next operation, an xor */
	bool ok;
};

struct demo {
	size_t size;
	FILE *json;
	char links[256];
	int nr_gpus;
	int gpus[MAX_GPUS];
	char pci[MAX_GPUS][64];
	struct p2pdma_window *windows;
	size_t nr_windows;
	struct p2pdma_route *routes;
	size_t nr_routes;

	char *mem;
	char *model;	/* the expected content of @mem */
	uint64_t value;

	/* The sums over all pairs that should use that way */
	struct { int pairs; double first_s, next_s; } ways[NR_WAYS];

	int from, to;	/* the two ends of a link */
	volatile bool stop;
	unsigned long flaps, flap_rounds;
	double move_s, move_by_ram_s;

	bool data_ok, ways_ok, moves_ok;
};

static struct demo demo = {
	.size = 8 * MIB, .data_ok = true, .ways_ok = true, .moves_ok = true,
};

static int was_enabled;
static const char * const json_bool[] = { "false", "true" };

static double fastest(double a, double b)
{
	return !a || b < a ? b : a;
}

static double speed(const struct demo *d, double seconds)
{
	return seconds ? d->size / MIB / seconds : 0;
}

static uint64_t npages(const struct demo *d)
{
	return d->size / sysconf(_SC_PAGESIZE);
}

static struct drm_vsvm_counters counters(const struct demo *d, int gpu)
{
	struct drm_vsvm_counters c;

	must(gpu_counters(d->gpus[gpu], &c), "GPU counters");
	return c;
}

/* How many PCI addresses devices were given for pages of other devices. */
static uint64_t pci_aliases(void)
{
	struct p2pdma_stats stats;

	must(p2pdma_read_stats(&stats), P2PDMA_STATS);
	return stats.pages[P2PDMA_ALIAS_BUS] +
	       stats.pages[P2PDMA_ALIAS_HOST_BRIDGE];
}

static uint64_t new_value(struct demo *d)
{
	return d->value += 0x9e3779b97f4a7c15;
}

static void to_vram(struct demo *d, int gpu)
{
	uint64_t pages;

	must(gpu_to_vram(d->gpus[gpu], d->mem, d->size, &pages), "migration");
	must(pages == npages(d) ? 0 : -ENOSPC, "VRAM (VRAM=)");
}

static void xor(struct demo *d, int gpu)
{
	uint64_t value = new_value(d);

	must(gpu_xor(d->gpus[gpu], d->mem, d->size, value), "GPU operation");
	content_xor(d->model, d->size, value);
}

static bool sum_is_right(struct demo *d, int gpu)
{
	uint64_t sum;

	must(gpu_sum(d->gpus[gpu], d->mem, d->size, &sum), "GPU operation");
	return sum == content_sum(d->model, d->size);
}

/* The read by the CPU migrates the memory to RAM. */
static bool digest_is_right(const struct demo *d)
{
	unsigned char got[SHA256_SIZE], want[SHA256_SIZE];

	content_sha256(d->mem, d->size, got);
	content_sha256(d->model, d->size, want);
	return !memcmp(got, want, SHA256_SIZE);
}

/* Put new content, which was never used before, into memory of one GPU. */
static void prepare(struct demo *d, int gpu)
{
	content_pattern(d->mem, d->size, new_value(d));
	memcpy(d->model, d->mem, d->size);
	to_vram(d, gpu);
	xor(d, gpu);
}

/* The other BARs of a GPU have routes, too. */
static bool leads_to_window(const struct demo *d,
			    const struct p2pdma_route *route)
{
	size_t i;

	for (i = 0; i < d->nr_windows; i++)
		if (!d->windows[i].revoked &&
		    p2pdma_leads_to(route, &d->windows[i]))
			return true;
	return false;
}

static void expect(const struct demo *d, struct pair *p, bool pci)
{
	size_t i;

	for (i = 0; i < d->nr_routes; i++)
		if (!strcmp(d->routes[i].importer, d->pci[p->importer]) &&
		    !strcmp(d->routes[i].exporter, d->pci[p->exporter]) &&
		    leads_to_window(d, &d->routes[i]))
			p->route = &d->routes[i];
	if (!p->route)
		errx(EXIT_FAILURE, "debugfs has no route from GPU %d to a window of GPU %d: reload vsvm",
		     p->importer, p->exporter);

	pci &= !!strcmp(p->route->route, "none");
	p->expected = gpu_links_have(d->links, p->importer, p->exporter) ? LINK :
		      pci ? PCI : MIGRATED;
}

static void run_round(struct demo *d, struct pair *p)
{
	struct drm_vsvm_counters before, after;
	struct drm_vsvm_residency where;
	int gpu = d->gpus[p->importer];
	uint64_t sum, aliases, value = new_value(d);
	double start, middle;

	prepare(d, p->exporter);
	before = counters(d, p->exporter);
	aliases = pci_aliases();

	start = now();
	must(gpu_sum(gpu, d->mem, d->size, &sum), "GPU operation");
	middle = now();
	must(gpu_xor(gpu, d->mem, d->size, value), "GPU operation");
	p->next_s = fastest(p->next_s, now() - middle);
	p->first_s = fastest(p->first_s, middle - start);

	aliases = pci_aliases() - aliases;
	after = counters(d, p->exporter);
	must(gpu_residency(d->gpus[p->exporter], d->mem, d->size, &where),
	     "GPU residency");

	/* Count pages that stayed; aliases of a page may count several times */
	p->pages[PCI] = aliases < where.vram ? aliases : where.vram;
	p->pages[LINK] = where.vram - p->pages[PCI];
	p->pages[MIGRATED] = after.pages_to_ram - before.pages_to_ram +
			     after.pages_to_peers - before.pages_to_peers;

	p->ok &= p->pages[p->expected] == npages(d) &&
		 p->pages[LINK] + p->pages[PCI] + p->pages[MIGRATED] == npages(d);

	d->data_ok &= sum == content_sum(d->model, d->size);
	content_xor(d->model, d->size, value);
	d->data_ok &= sum_is_right(d, p->exporter);
}

static void write_pair(const struct demo *d, const struct pair *p, bool comma)
{
	fprintf(d->json, "%s\n    {\"importer\": \"%s\", \"exporter\": \"%s\", \"link\": %s, \"route\": \"%s\", \"expected\": \"%s\", ",
		comma ? "," : "", d->pci[p->importer], d->pci[p->exporter],
		json_bool[p->expected == LINK], p->route->route,
		way_names[p->expected]);
	fprintf(d->json, "\"link_pages\": %" PRIu64 ", \"pci_pages\": %" PRIu64 ", \"migrated_pages\": %" PRIu64 ", ",
		p->pages[LINK], p->pages[PCI], p->pages[MIGRATED]);
	fprintf(d->json, "\"first_mib_per_s\": %.1f, \"next_mib_per_s\": %.1f, \"ok\": %s}",
		speed(d, p->first_s), speed(d, p->next_s), json_bool[p->ok]);
}

static void run_pair(struct demo *d, struct pair *p, bool pci)
{
	int i;

	expect(d, p, pci);
	for (i = 0; i < ROUNDS; i++)
		run_round(d, p);
	d->data_ok &= digest_is_right(d);
	d->ways_ok &= p->ok;

	d->ways[p->expected].pairs++;
	d->ways[p->expected].first_s += p->first_s;
	d->ways[p->expected].next_s += p->next_s;
}

static void run_table(struct demo *d, bool pci)
{
	int importer, exporter;
	char cell[64];

	must(p2pdma_enable(pci), "hmm_p2pdma/enabled");
	fprintf(d->json, "  \"%s\": [", pci ? "p2pdma" : "off");
	printf("\n%-22s", pci ? "links and PCI" : "links, PCI off");
	for (exporter = 0; exporter < d->nr_gpus; exporter++)
		printf(" memory of %-6d", exporter);

	for (importer = 0; importer < d->nr_gpus; importer++) {
		printf("\nGPU %d, %s ", importer, d->pci[importer]);
		for (exporter = 0; exporter < d->nr_gpus; exporter++) {
			struct pair p = { importer, exporter, .ok = true };

			if (importer == exporter) {
				printf("%-17s", " -");
				continue;
			}
			run_pair(d, &p, pci);
			write_pair(d, &p, importer || exporter > 1);
			snprintf(cell, sizeof(cell), "%c%s %" PRIu64,
				 p.ok ? ' ' : '!', way_names[p.expected],
				 p.pages[p.expected]);
			printf("%-17s", cell);
			fflush(stdout);
		}
	}
	printf("\n");
	fprintf(d->json, "\n  ],\n");
	must(p2pdma_enable(was_enabled), "hmm_p2pdma/enabled");
}

static void *work(void *arg)
{
	struct demo *d = arg;

	while (!d->stop) {
		xor(d, d->to);
		d->data_ok &= sum_is_right(d, d->to);

		/* Migrated memory needs no link: move it back */
		if (++d->flap_rounds % 4 == 0)
			to_vram(d, d->from);
	}
	return NULL;
}

static void flap(struct demo *d, const char *links)
{
	double end = now() + FLAP_S;
	pthread_t thread;

	prepare(d, d->from);
	must(-pthread_create(&thread, NULL, work, d), "thread");
	for (; now() < end; d->flaps++) {
		must(gpu_links_set(""), "links");
		usleep(FLAP_US);
		must(gpu_links_set(links), "links");
		usleep(FLAP_US);
	}
	d->stop = true;
	pthread_join(thread, NULL);
	d->data_ok &= digest_is_right(d);
	printf("\nlinks went down and up %lu times in %d s, under %lu rounds of GPU %d on memory of GPU %d\n",
	       d->flaps, FLAP_S, d->flap_rounds, d->to, d->from);
	fflush(stdout);
}

/* The move is direct if there are links both ways. */
static void move(struct demo *d, const char *links, double *best)
{
	bool direct = gpu_links_have(links, d->from, d->to) &&
		      gpu_links_have(links, d->to, d->from);
	struct drm_vsvm_counters before, after;
	double start;

	must(gpu_links_set(links), "links");
	prepare(d, d->from);
	before = counters(d, d->from);
	start = now();
	to_vram(d, d->to);
	*best = fastest(*best, now() - start);
	after = counters(d, d->from);

	d->moves_ok &= after.pages_to_peers - before.pages_to_peers ==
		       (direct ? npages(d) : 0);
	d->moves_ok &= after.pages_to_ram - before.pages_to_ram ==
		       (direct ? 0 : npages(d));
	d->data_ok &= sum_is_right(d, d->to) && digest_is_right(d);
}

static void restore(void)
{
	p2pdma_enable(was_enabled);
	gpu_links_set(demo.links);
}

static void open_gpus(struct demo *d)
{
	int gpu;

	must(p2pdma_enabled(&was_enabled), "no CONFIG_HMM_P2PDMA");
	must(gpu_links_get(d->links, sizeof(d->links)), "no GPUs with links");
	must(gpu_links_set(d->links), "links: run this as root");
	must(p2pdma_read_windows(&d->windows, &d->nr_windows), P2PDMA_WINDOWS);
	must(p2pdma_read_routes(&d->routes, &d->nr_routes), P2PDMA_ROUTES);
	atexit(restore);

	for (; d->nr_gpus < MAX_GPUS; d->nr_gpus++) {
		gpu = d->gpus[d->nr_gpus] = gpu_open(d->nr_gpus);
		if (gpu < 0)
			break;
		must(gpu_pci_address(gpu, d->pci[d->nr_gpus], sizeof(d->pci[0])),
		     "GPU information");
	}
	must(d->nr_gpus < 2 ? -ENODEV : 0, "a second GPU (GPUS=)");
}

/* Choose a link to flap and to move memory over; returns links with it. */
static const char *choose_link(struct demo *d)
{
	for (d->to = 0; d->to < d->nr_gpus; d->to++)
		for (d->from = 0; d->from < d->nr_gpus; d->from++)
			if (gpu_links_have(d->links, d->to, d->from))
				return d->links;
	d->to = 1;
	d->from = 0;
	return "0-1";
}

static void report(const struct demo *d)
{
	int way;

	printf("\n          pairs  first operation, MiB/s  next one, MiB/s\n");
	for (way = 0; way < NR_WAYS; way++)
		printf("%-8s %6d  %22.0f  %15.0f\n", way_names[way],
		       d->ways[way].pairs,
		       d->ways[way].pairs * speed(d, d->ways[way].first_s),
		       d->ways[way].pairs * speed(d, d->ways[way].next_s));
	printf("VRAM of GPU %d to that of GPU %d: %.0f MiB/s with links, %.0f by way of RAM, ratio %.2f\n\n",
	       d->from, d->to, speed(d, d->move_s),
	       speed(d, d->move_by_ram_s), d->move_by_ram_s / d->move_s);
	printf("%s: all GPUs saw, and wrote, the right data\n",
	       d->data_ok ? "ok" : "FAILED");
	printf("%s: each pair used the fastest way that its links and the PCI fabric allow\n",
	       d->ways_ok ? "ok" : "FAILED");
	printf("%s: memory moved directly if the GPUs have links in both directions, and only then\n",
	       d->moves_ok ? "ok" : "FAILED");

	fprintf(d->json, "  \"flaps\": %lu, \"flap_s\": %d, \"flap_rounds\": %lu,\n",
		d->flaps, FLAP_S, d->flap_rounds);
	fprintf(d->json, "  \"move_with_links_mib_per_s\": %.1f, \"move_by_ram_mib_per_s\": %.1f,\n",
		speed(d, d->move_s), speed(d, d->move_by_ram_s));
	fprintf(d->json, "  \"data_ok\": %s, \"ways_ok\": %s, \"moves_ok\": %s\n}\n",
		json_bool[d->data_ok], json_bool[d->ways_ok],
		json_bool[d->moves_ok]);
}

int main(int argc, char **argv)
{
	struct demo *d = &demo;
	const char *links;
	int i;

	if (argc > 1)
		d->json = fopen(argv[1], "w");
	if (argc > 2)
		d->size = strtoul(argv[2], NULL, 0) * MIB;
	if (!d->json || !d->size || argc > 3)
		errx(EXIT_FAILURE, "usage: hmmp2p-gpus JSON [MIB]: figures go to a file; GPUs share so much memory (8)");

	open_gpus(d);
	d->mem = aligned_alloc(2 * MIB, d->size);
	d->model = malloc(d->size);
	must(d->mem && d->model ? 0 : -ENOMEM, "buffers (MEM=)");
	printf("%d GPUs, links %s; %" PRIu64 " pages in VRAM of each, and how the others used them:\n",
	       d->nr_gpus, *d->links ? d->links : "none", npages(d));
	fprintf(d->json, "{\n  \"links\": \"%s\", \"gpus\": %d, \"pages\": %" PRIu64 ", \"rounds\": %d,\n",
		d->links, d->nr_gpus, npages(d), ROUNDS);

	run_table(d, true);
	run_table(d, false);
	links = choose_link(d);
	flap(d, links);
	for (i = 0; i < ROUNDS; i++) {
		move(d, links, &d->move_s);
		move(d, "", &d->move_by_ram_s);
	}
	report(d);

	must(fclose(d->json) ? -errno : 0, argv[1]);
	return !(d->data_ok && d->ways_ok && d->moves_ok);
}
