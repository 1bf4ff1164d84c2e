// SPDX-License-Identifier: GPL-2.0
#include <fcntl.h>
#include <glob.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "file.h"
#include "gpu.h"
#include "leaks.h"
#include "size.h"
#include "vram.h"

/*
 * The kernel caches some freed objects, and files leave objects behind when they are
 * read. Growth within the slack cannot be told from a leak; a leak that happens each
 * time an operation is done grows beyond it. Records of processes have no slack, as
 * all of the processes are gone.
 */
#define SLAB_SLACK	256
#define SLAB_PERCENT	5
#define RAM_SLACK_KIB	8192
#define PERCPU_SLACK	64

static void add(struct figures *figures, const char *kind, const char *name,
		long long value, long long slack)
{
	struct figure *figure = &figures->figure[figures->n];

	if (figures->n == ARRAY_LEN(figures->figure))
		abort();
	snprintf(figure->name, sizeof(figure->name), "%s/%s", kind, name);
	figure->value = value;
	figure->slack = slack;
	figures->n++;
}

static void read_vram(struct figures *figures)
{
	struct drm_vsvm_info info;
	char pci[32];
	int i, gpu;

	for (i = 0; (gpu = gpu_open(i)) >= 0; i++) {
		if (!gpu_info(gpu, &info) &&
		    !gpu_pci_address(gpu, pci, sizeof(pci)))
			add(figures, "vram", pci,
			    (info.vram_size - vram_free(gpu)) / PAGE, 0);
		close(gpu);
	}
}

#define KHUGEPAGED	"/sys/kernel/mm/transparent_hugepage/khugepaged/"

/*
 * Free memory may be in per-CPU caches, and an idle CPU goes on using the page tables
 * of a process that is gone: so this function runs on each CPU once. khugepaged may
 * hold a process that it has been scanning while it sleeps, up to a minute: let it
 * sleep for less.
 */
static void shrink_caches(void)
{
	int cpu, cpus = sysconf(_SC_NPROCESSORS_ONLN);
	cpu_set_t home, one;
	glob_t found;
	size_t i;

	sched_getaffinity(0, sizeof(home), &home);
	for (cpu = 0; cpu < cpus; cpu++) {
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		sched_setaffinity(0, sizeof(one), &one);
		usleep(100000);
	}
	sched_setaffinity(0, sizeof(home), &home);

	file_write(KHUGEPAGED "alloc_sleep_millisecs", "100");
	file_write(KHUGEPAGED "scan_sleep_millisecs", "100");
	file_write("/proc/sys/vm/drop_caches", "3");
	if (glob("/sys/kernel/slab/*/shrink", 0, NULL, &found))
		return;
	for (i = 0; i < found.gl_pathc; i++)
		file_write(found.gl_pathv[i], "1");
	globfree(&found);
}

static void read_slab(struct figures *figures)
{
	char line[512], name[64];
	long long objects;
	FILE *file;

	file = fopen("/proc/slabinfo", "r");
	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%63s %lld", name, &objects) != 2)
			continue;
		/* These caches track objects of other caches */
		if (!strncmp(name, "debug_objects", 13) || !strncmp(name, "kmemleak", 8))
			continue;
		if (!strcmp(name, "mm_struct"))
			add(figures, "process", name, objects, 0);
		else
			add(figures, "slab", name, objects,
			    SLAB_SLACK + objects * SLAB_PERCENT / 100);
	}
	if (file)
		fclose(file);
}

/*
 * In KiB: memory that was allocated page by page, for each function that allocates.
 * Memory for the code of modules comes in huge pages.
 */
static void read_vmalloc(struct figures *figures)
{
	char line[512], caller[64], name[80];
	const char *pages;
	size_t i;
	FILE *file;

	file = fopen("/proc/vmallocinfo", "r");
	while (file && fgets(line, sizeof(line), file)) {
		pages = strstr(line, " pages=");
		if (!pages || sscanf(line, "%*s %*s %63[^+ ]", caller) != 1)
			continue;
		snprintf(name, sizeof(name), "ram/vmalloc/%s", caller);
		for (i = 0; i < figures->n; i++)
			if (!strcmp(figures->figure[i].name, name))
				break;
		if (i == figures->n)
			add(figures, "ram/vmalloc", caller, 0,
			    strcmp(caller, "execmem_alloc") ? RAM_SLACK_KIB / 8 :
							      2 * HUGE_PAGE / 1024);
		figures->figure[i].value += atoi(pages + 7) * (PAGE / 1024);
	}
	if (file)
		fclose(file);
}

/* In KiB: free memory that each CPU keeps for itself. */
static long long free_on_cpus(void)
{
	long long pages = 0, count;
	char line[128];
	FILE *file;

	file = fopen("/proc/zoneinfo", "r");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, " count: %lld", &count) == 1)
			pages += count;
	if (file)
		fclose(file);
	return pages * (PAGE / 1024);
}

/* In KiB: memory that processes leave behind, and memory without any counter. */
static void read_ram(struct figures *figures)
{
	static const char * const theirs[] = {
		"AnonPages", "PageTables", "Unevictable", "KernelStack",
		"Percpu",
	};
	static const char * const accounted[] = {
		"MemFree", "Buffers", "Cached", "SwapCached", "AnonPages", "Slab",
		"KernelStack", "PageTables", "VmallocUsed", "Percpu",
	};
	long long kib, rest = -free_on_cpus(), swap = 0;
	char line[128], name[32];
	size_t i;
	FILE *file;

	file = fopen("/proc/meminfo", "r");
	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%31[^:]: %lld", name, &kib) != 2)
			continue;
		for (i = 0; i < ARRAY_LEN(theirs); i++)
			if (!strcmp(name, theirs[i]))
				add(figures, "ram", name, kib,
				    RAM_SLACK_KIB / 4);
		for (i = 0; i < ARRAY_LEN(accounted); i++)
			if (!strcmp(name, accounted[i]))
				rest -= kib;
		if (!strcmp(name, "MemTotal"))
			rest += kib;
		if (!strcmp(name, "SwapTotal"))
			swap += kib;
		/* Swap space of pages in the swap cache may have no other user */
		if (!strcmp(name, "SwapFree") || !strcmp(name, "SwapCached"))
			swap -= kib;
	}
	if (file)
		fclose(file);
	add(figures, "ram", "rest", rest, RAM_SLACK_KIB);
	add(figures, "ram", "pieces for each CPU",
	    field_read("/sys/kernel/debug/percpu_stats", "nr_cur_alloc"), PERCPU_SLACK);
	/* Other processes are swapped out as well, and stay there until they run */
	add(figures, "ram", "swap", swap, RAM_SLACK_KIB);
}

static void read_modules(struct figures *figures)
{
	char line[512], name[64];
	long long size, users;
	FILE *file;

	file = fopen("/proc/modules", "r");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "%63s %lld %lld", name, &size, &users) == 3)
			add(figures, "module", name, users, 0);
	if (file)
		fclose(file);
}

/* DMA mappings of the drivers that map memory of processes. */
static void read_dma(struct figures *figures)
{
	static const char * const drivers[] = { "vsvm", "hmm_edu", "nvme" };
	long long count[ARRAY_LEN(drivers)] = { };
	char line[512], driver[64];
	size_t i;
	FILE *file;

	file = fopen("/sys/kernel/debug/dma-api/dump", "r");
	if (!file)
		return;
	while (fgets(line, sizeof(line), file))
		for (i = 0; i < ARRAY_LEN(drivers); i++)
			if (sscanf(line, "%63s", driver) == 1 &&
			    !strcmp(driver, drivers[i]))
				count[i]++;
	fclose(file);
	for (i = 0; i < ARRAY_LEN(drivers); i++)
		add(figures, "dma", drivers[i], count[i], 0);
}

/* "0: rxe0: pd 1 cq 1 qp 1 cm_id 0 mr 0 ctx 0 srq 0" */
static void read_rdma(struct figures *figures)
{
	char name[32];
	long long count;
	FILE *file;

	file = popen("rdma resource show 2>/dev/null | sed 's/.*rxe0: *//'", "r");
	while (file && fscanf(file, "%31s %lld", name, &count) == 2)
		add(figures, "rdma", name, count, 0);
	if (file)
		pclose(file);
}

void figures_read(struct figures *figures)
{
	figures->n = 0;
	read_rdma(figures);
	read_modules(figures);
	read_vram(figures);
	read_dma(figures);
	shrink_caches();
	read_slab(figures);
	read_ram(figures);
	read_vmalloc(figures);
}

static const struct figure *find(const struct figures *figures, const char *name)
{
	size_t i;

	for (i = 0; i < figures->n; i++)
		if (!strcmp(figures->figure[i].name, name))
			return &figures->figure[i];
	return NULL;
}

static int compare(const struct figures *before, const struct figures *after,
		   const char *prefix, bool print)
{
	int grown = 0, seen = 0;
	size_t i;

	for (i = 0; i < after->n; i++) {
		const struct figure *now = &after->figure[i];
		const struct figure *old = find(before, now->name);

		if (strncmp(now->name, prefix, strlen(prefix)))
			continue;
		seen++;
		if (old && now->value <= old->value + old->slack)
			continue;
		if (!old && now->value <= now->slack)
			continue;
		grown++;
		if (print)
			printf("# %s: %lld, was %lld\n", now->name, now->value,
			       old ? old->value : 0);
	}
	return seen ? grown : -1;
}

int figures_grown(const struct figures *before, const char *prefix,
		  double seconds)
{
	static struct figures after;
	time_t end = time(NULL) + seconds;
	int grown;

	for (;;) {
		figures_read(&after);
		grown = compare(before, &after, prefix, false);
		if (grown <= 0 || time(NULL) >= end)
			break;
		usleep(200000);
	}
	return compare(before, &after, prefix, true);
}
