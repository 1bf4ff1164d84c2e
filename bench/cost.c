// SPDX-License-Identifier: GPL-2.0
/*
 * Measures the cost of HMM for an importer, in instructions per page, by kind
 * of page. Run it with ICOUNT=1, on the patched and on the unpatched kernel.
 *
 * A figure is the cost of twice as many pages minus the cost of the pages, so
 * that fixed costs cancel out. Each cost is that of the cheapest of a few runs,
 * which had no interrupt. Figures go to stdout, one a line, see figures.h.
 *
 *   fault      hmm_range_fault(), all kinds of pages
 *   map        hmm_dma_map_pfn() and invalidation, on this topology
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <test_hmm_uapi.h>

#include "cost/hmm_cost.h"
#include "figures.h"
#include "gpu.h"
#include "p2pdma.h"

#define TEST_HMM	"/dev/hmm_dmirror0"
#define HUGE_SIZE	(2UL << 20)
#define SIZE		(2 * HUGE_SIZE)
#define RUNS		5

/* RAM; memory of test_hmm, which both kernels have; memory of vsvm */
enum memory { IN_RAM, IN_TEST_HMM, IN_VRAM };

struct kind {
	const char *name;
	enum memory memory;
	bool huge;
	bool owner;	/* the importer owns the pages */
	bool client;
	enum { PAGES, PRIVATE, ALIASES } expected;
};

static const struct kind kinds[] = {
	{ "ordinary", IN_RAM, .expected = PAGES },
	{ "ordinary, client", IN_RAM, .client = true, .expected = PAGES },
	{ "ordinary, huge", IN_RAM, .huge = true, .expected = PAGES },
	{ "private, owner", IN_TEST_HMM, .owner = true, .expected = PRIVATE },
	{ "private, owner, huge", IN_VRAM, .huge = true, .owner = true,
	  .expected = PRIVATE },
	{ "alias", IN_VRAM, .client = true, .expected = ALIASES },
	{ "alias, huge", IN_VRAM, .huge = true, .client = true,
	  .expected = ALIASES },
	{ "migrated, test_hmm", IN_TEST_HMM, .expected = PAGES },
	{ "migrated", IN_VRAM, .expected = PAGES },
	{ "migrated, huge", IN_VRAM, .huge = true, .expected = PAGES },
};

static int cost;
static bool have_gpu, have_test_hmm;

static const struct kind *kind_named(const char *name)
{
	const struct kind *kind = kinds;

	while (strcmp(kind->name, name))
		kind++;
	return kind;
}

static char *map_memory(size_t size, bool huge)
{
	char *p = mmap(NULL, size + HUGE_SIZE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *start = (char *)(((uintptr_t)p + HUGE_SIZE - 1) & -HUGE_SIZE);

	if (p == MAP_FAILED)
		err(EXIT_FAILURE, "memory");
	munmap(p, start - p);
	munmap(start + size, p + HUGE_SIZE - start);
	if (madvise(start, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		err(EXIT_FAILURE, "madvise");
	memset(start, 1, size);
	return start;
}

/*
 * Returns a file of the driver, which watches the process while the file is
 * open: close it before measuring pages of other drivers.
 */
static int migrate(char *p, size_t size, enum memory memory)
{
	struct hmm_dmirror_cmd cmd = {
		.addr = (uintptr_t)p,
		.npages = size / getpagesize(),
	};
	uint64_t pages = cmd.npages;
	int fd = -1;

	if (memory == IN_TEST_HMM) {
		fd = open(TEST_HMM, O_RDWR | O_CLOEXEC);
		cmd.ptr = (uintptr_t)malloc(size);
		if (ioctl(fd, HMM_DMIRROR_MIGRATE_TO_DEV, &cmd))
			err(EXIT_FAILURE, "migration to test_hmm");
		free((void *)(uintptr_t)cmd.ptr);
	} else if (memory == IN_VRAM) {
		fd = gpu_open(0);
		if (gpu_to_vram(fd, p, size, &pages))
			errx(EXIT_FAILURE, "migration to VRAM");
	}
	if (pages != cmd.npages)
		errx(EXIT_FAILURE, "only %" PRIu64 " pages went to VRAM", pages);
	return fd;
}

/* The PFN of a device-private page: bits 0 to 4 of its entry are a type */
static uint64_t pfn_of(const char *p)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry;

	if (pread(fd, &entry, sizeof(entry),
		  (uintptr_t)p / getpagesize() * sizeof(entry)) != sizeof(entry))
		err(EXIT_FAILURE, "pagemap");
	close(fd);
	return (entry & ((1ULL << 55) - 1)) >> 5;
}

/* The figures mean nothing unless all pages were of the expected kind. */
static void check(const struct kind *kind, const struct hmm_cost_run *run)
{
	uint64_t n = run->size / getpagesize();
	/* Huge pages that have migrated to RAM may be small pages there */
	bool huge = kind->huge && !(run->size % HUGE_SIZE) &&
		    (kind->expected != PAGES || kind->memory == IN_RAM);

	if (run->aliases != (kind->expected == ALIASES ? n : 0) ||
	    run->private != (kind->expected == PRIVATE ? n : 0) ||
	    (huge && run->huge != n) || (!kind->huge && run->huge))
		errx(EXIT_FAILURE, "%s: of %" PRIu64 " pages %llu were aliases, %llu private, %llu huge",
		     kind->name, n, run->aliases, run->private, run->huge);
}

/* Measure the first @size bytes of a mapping that always has the same size */
static struct hmm_cost_run run_once(const struct kind *kind, size_t size,
				    bool dma)
{
	struct hmm_cost_run run = { .size = size };
	char *p = map_memory(2 * SIZE, kind->huge);
	int fd = migrate(p, 2 * SIZE, kind->memory);

	run.addr = (uintptr_t)p;
	if (kind->client)
		run.flags |= HMM_COST_CLIENT;
	if (dma)
		run.flags |= HMM_COST_DMA;
	if (kind->owner)
		run.owner_pfn = pfn_of(p);
	if (ioctl(cost, HMM_COST_RUN, &run))
		err(EXIT_FAILURE, "%s: /dev/hmm_cost", kind->name);

	munmap(p, 2 * SIZE);
	close(fd);
	check(kind, &run);
	return run;
}

static void keep_less(__u64 *least, __u64 value)
{
	if (!*least || value < *least)
		*least = value;
}

static struct hmm_cost_run cheapest(const struct kind *kind, size_t size,
				    bool dma)
{
	struct hmm_cost_run best = { .size = size }, run;
	int i;

	for (i = 0; i < RUNS; i++) {
		run = run_once(kind, size, dma);
		keep_less(&best.fault, run.fault);
		keep_less(&best.map, run.map);
		keep_less(&best.unmap, run.unmap);
		best.bus = run.bus;
	}
	return best;
}

static double slope(__u64 one, __u64 two)
{
	return (double)(int64_t)(two - one) / (SIZE / getpagesize());
}

static bool exists(const struct kind *kind)
{
	return kind->memory == IN_TEST_HMM ? have_test_hmm :
	       have_gpu || (kind->memory == IN_RAM && !kind->client);
}

static void fault(const struct kind *kind, const char *mode)
{
	struct hmm_cost_run one = cheapest(kind, SIZE, false);
	struct hmm_cost_run two = cheapest(kind, 2 * SIZE, false);

	figure("fault", kind->name, mode, "instructions/page",
	       slope(one.fault, two.fault));
}

static void faults(const char *mode, bool aliases)
{
	const struct kind *kind;

	for (kind = kinds; kind < kinds + sizeof(kinds) / sizeof(*kinds); kind++)
		if (exists(kind) && (aliases || kind->expected != ALIASES))
			fault(kind, mode);
}

/*
 * The cost of resolving a huge page, without writing its 512 entries. Half a
 * page more costs its entries; a whole page more costs its entries and resolving.
 */
static void resolved(const struct kind *kind, const char *name)
{
	__u64 half = cheapest(kind, HUGE_SIZE / 2, false).fault;
	__u64 one = cheapest(kind, HUGE_SIZE, false).fault;
	__u64 two = cheapest(kind, 2 * HUGE_SIZE, false).fault;

	figure("fault", name, "on", "instructions/page",
	       ((double)(two - one) - 2.0 * (one - half)) /
	       (HUGE_SIZE / getpagesize()));
}

static void maps(const struct kind *kind, const char *mode)
{
	struct hmm_cost_run one = cheapest(kind, SIZE, true);
	struct hmm_cost_run two = cheapest(kind, 2 * SIZE, true);
	const char *topology = getenv("TOPOLOGY") ?: "?";
	bool bus = kind->expected == ALIASES && !strcmp(topology, "switch");
	char name[64];

	if (two.bus != (bus ? 2 * SIZE / getpagesize() : 0))
		errx(EXIT_FAILURE, "%s, %s: %llu pages were mapped by bus address",
		     kind->name, topology, two.bus);

	snprintf(name, sizeof(name), "%s, %s", kind->name, topology);
	figure("map", name, mode, "instructions/page", slope(one.map, two.map));
	figure("invalidate", name, mode, "instructions/page",
	       slope(one.unmap, two.unmap));
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	int gpu, enabled;

	cost = open("/dev/hmm_cost", O_RDWR | O_CLOEXEC);
	if (cost < 0)
		err(EXIT_FAILURE, "/dev/hmm_cost");
	have_test_hmm = !access(TEST_HMM, F_OK);
	gpu = gpu_open(0);
	have_gpu = gpu >= 0;
	close(gpu);
	must_count_instructions();

	if (p2pdma_enabled(&enabled)) {
		if (!strcmp(what, "fault"))
			faults("unpatched", false);
		else
			maps(kind_named("ordinary"), "unpatched");
	} else if (!strcmp(what, "fault")) {
		p2pdma_enable(false);
		faults("off", false);
		p2pdma_enable(true);
		faults("on", true);
		resolved(kind_named("alias, huge"), "alias, huge, resolved");
		p2pdma_enable(enabled);
	} else {
		maps(kind_named("ordinary"), "on");
		maps(kind_named("alias"), "on");
	}
	return 0;
}
