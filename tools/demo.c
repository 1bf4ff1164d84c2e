// SPDX-License-Identifier: GPL-2.0
/*
 * A buffer in a GPU's memory, which a second process reads and writes by RDMA.
 *
 * Each round of GPU and RDMA work runs in three modes, each with its own buffer:
 * with peer-to-peer access, without it (the kernel then migrates every page to
 * RAM, and the GPU migrates it back to VRAM), and in plain RAM, where the CPU
 * does the GPU's work. The modes take turns, so that other load on the machine
 * slows all of them alike.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "content.h"
#include "gpu.h"
#include "measure.h"
#include "must.h"
#include "p2pdma.h"
#include "peer.h"
#include "rdma.h"
#include "report.h"

#define MIB		(1UL << 20)
#define MAX_ROUNDS	100
#define PREFETCHES	5
#define PREFETCH_TIMEOUT_S	60

struct demo {
	size_t size;
	int rounds;
	const char *file;
	FILE *json;

	int gpu;
	struct rdma rdma;
	struct peer peer;
	struct buffer {
		char *addr;
		struct ibv_mr *mr;
	} buffers[NR_MODES];
	char *model;	/* the expected content of each buffer */

	struct report report;
};

struct round {
	double op_s;
	double rdma_s;
};

static int was_enabled;

static void restore_switch(void)
{
	p2pdma_enable(was_enabled);
}

static size_t npages(const struct demo *d)
{
	return d->size / sysconf(_SC_PAGESIZE);
}

static struct counters read_counters(const struct demo *d)
{
	struct drm_vsvm_counters gpu;
	struct counters c;

	must(gpu_counters(d->gpu, &gpu), "GPU counters");
	must(p2pdma_read_stats(&c.stats), P2PDMA_STATS);
	c.migrated_out = gpu.pages_to_ram;
	c.migrated_in = gpu.pages_to_vram;
	return c;
}

/* Add the counts since @since to @sum. */
static void count(const struct demo *d, struct counters *sum,
		  const struct counters *since)
{
	struct counters c = read_counters(d);
	int i;

	sum->migrated_out += c.migrated_out - since->migrated_out;
	sum->migrated_in += c.migrated_in - since->migrated_in;
	for (i = 0; i < P2PDMA_NR_STATS; i++)
		sum->stats.pages[i] += c.stats.pages[i] - since->stats.pages[i];
}

static void *map_memory(size_t size, int flags)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_ANONYMOUS | flags, -1, 0);

	if (p == MAP_FAILED)
		die("no memory for %zu MiB: give the machine more (MEM=)",
		    size / MIB);
	return p;
}

static void ask_peer(struct demo *d, const struct peer_request *request,
		     struct peer_answer *answer)
{
	int err;

	err = peer_ask(&d->peer, request);
	if (!err)
		err = peer_answer(&d->peer, answer);
	if (err == -EPIPE)
		die("the peer is gone; the kernel's log (dmesg) may tell why");
	if (err == -EREMOTEIO)
		die("the peer's RDMA failed (%s); the kernel's log (dmesg) may tell more",
		    ibv_wc_status_str(answer->status));
	must(err, "peer");
}

/* The peer reads or writes the MR; returns how long the RDMA took. */
static double run_rdma(struct demo *d, enum mode mode, enum peer_task task,
		       size_t offset, size_t size, uint64_t value)
{
	struct peer_request request = {
		.task = task,
		.rkey = d->buffers[mode].mr->rkey,
		.addr = (uintptr_t)d->buffers[mode].addr,
		.offset = offset,
		.size = size,
		.value = value,
	};
	struct peer_answer answer;

	ask_peer(d, &request, &answer);
	return answer.seconds;
}

static void set_switch(enum mode mode)
{
	must(p2pdma_enable(mode != OFF), "hmm_p2pdma/enabled");
}

/*
 * Load a real file into RAM, and then move it to VRAM, where every page becomes
 * device-private. The MR is an ordinary one.
 */
static void prepare(struct demo *d, enum mode mode)
{
	struct result *r = &d->report.results[mode];
	struct buffer *b = &d->buffers[mode];
	struct counters before;
	uint64_t pages;
	int err;

	set_switch(mode);

	b->addr = map_memory(d->size, MAP_PRIVATE);
	err = content_load(d->file, b->addr, d->size);
	if (err)
		die("%s: %s; name another file with --file", d->file,
		    strerror(-err));
	memcpy(d->model, b->addr, d->size);

	if (mode != RAM) {
		must(gpu_to_vram(d->gpu, b->addr, d->size, &pages),
		     "migration to VRAM");
		if (pages != npages(d))
			die("only %" PRIu64 " of %zu pages found room in VRAM: give the GPU more (VRAM=)",
			    pages, npages(d));
	}

	before = read_counters(d);
	b->mr = rdma_reg_odp(&d->rdma, b->addr, d->size);
	if (!b->mr)
		die("registration of the MR: %s; is it an RDMA device with on-demand paging?",
		    strerror(errno));
	count(d, &r->rounds, &before);
	r->data_ok = true;
}

static void check_received(struct demo *d, enum mode mode, int i)
{
	struct peer_answer answer;

	ask_peer(d, &(struct peer_request){ PEER_COMPARE, .size = d->size },
		 &answer);
	if (answer.wrong == d->size)
		return;

	printf("[%s] round %d/%d: the peer received WRONG DATA, from byte %" PRIu64 " on\n",
	       mode_names[mode], i + 1, d->rounds, answer.wrong);
	d->report.results[mode].data_ok = false;
}

/* A new value for each round: the GPU uses it, and the peer its complement. */
static uint64_t round_value(int i)
{
	return 0x9e3779b97f4a7c15 * (i + 1);
}

static size_t part_size(const struct demo *d)
{
	return d->size / 8;
}

static size_t part_offset(const struct demo *d)
{
	return d->size / 2 - part_size(d) / 2;
}

/*
 * One round: the GPU changes all of the buffer, then the peer writes an eighth
 * of it, in the middle, and reads all of it.
 */
static struct round run_round(struct demo *d, enum mode mode, int i)
{
	char *addr = d->buffers[mode].addr;
	uint64_t value = round_value(i);
	double start = now(), op_s, write_s, read_s;

	if (mode == RAM)
		content_xor(addr, d->size, value);
	else
		must(gpu_xor(d->gpu, addr, d->size, value), "GPU operation");
	op_s = now() - start;

	write_s = run_rdma(d, mode, PEER_WRITE, part_offset(d), part_size(d),
			   ~value);
	read_s = run_rdma(d, mode, PEER_READ, 0, d->size, 0);

	printf("[%s] round %d/%d: %s %.3f s, rdma write %.3f s, rdma read %.3f s\n",
	       mode_names[mode], i + 1, d->rounds, mode == RAM ? "cpu" : "gpu",
	       op_s, write_s, read_s);
	fflush(stdout);

	return (struct round){ .op_s = op_s, .rdma_s = write_s + read_s };
}

static void run_model(struct demo *d, int i)
{
	content_xor(d->model, d->size, round_value(i));
	content_pattern(d->model + part_offset(d), part_size(d),
			~round_value(i));
}

static bool faster(const struct round *a, const struct round *b)
{
	return a->op_s + a->rdma_s < b->op_s + b->rdma_s;
}

static void run_rounds(struct demo *d)
{
	struct round round, best[NR_MODES] = { };
	struct counters before;
	int i, mode;

	for (i = 0; i < d->rounds; i++) {
		run_model(d, i);
		for (mode = 0; mode < NR_MODES; mode++) {
			set_switch(mode);
			before = read_counters(d);
			round = run_round(d, mode, i);
			count(d, &d->report.results[mode].rounds, &before);
			check_received(d, mode, i);

			/* The first round is a warm-up, if there are more */
			if (i < 2 || faster(&round, &best[mode]))
				best[mode] = round;
		}
	}

	for (mode = 0; mode < NR_MODES; mode++) {
		struct result *r = &d->report.results[mode];

		r->figures[MIGRATED_OUT] = r->rounds.migrated_out;
		r->figures[MIGRATED_IN] = r->rounds.migrated_in;
		r->figures[ALIASES] = count_aliases(&r->rounds);
		r->figures[ROUND] = best[mode].op_s + best[mode].rdma_s;
		r->figures[ROUND_OP] = best[mode].op_s;
		r->figures[ROUND_RDMA] = best[mode].rdma_s;
	}
}

/* The GPU computes the sum: a read by the CPU would migrate the memory. */
static void check_sum(struct demo *d, enum mode mode)
{
	uint64_t sum;

	must(gpu_sum(d->gpu, d->buffers[mode].addr, d->size, &sum),
	     "GPU operation");
	if (sum == content_sum(d->model, d->size))
		return;

	printf("[%s] the GPU holds WRONG DATA\n", mode_names[mode]);
	d->report.results[mode].data_ok = false;
}

/* Migrate all of the buffer away and back, which invalidates the whole MR. */
static void move(struct demo *d, enum mode mode)
{
	char *addr = d->buffers[mode].addr;

	if (mode == RAM) {
		must(gpu_to_vram(d->gpu, addr, d->size, NULL),
		     "migration to VRAM");
		must(gpu_to_ram(d->gpu, addr, d->size), "migration to RAM");
	} else {
		must(gpu_to_ram(d->gpu, addr, d->size), "migration to RAM");
		must(gpu_to_vram(d->gpu, addr, d->size, NULL),
		     "migration to VRAM");
	}
}

/*
 * If many pages migrate on a slow machine, the kernel gives up after a second
 * with -EBUSY: the range was invalidated again and again. The kernel's own
 * migrations did that, and the next call goes on where this one stopped.
 */
static double prefetch(struct demo *d, enum mode mode)
{
	struct buffer *b = &d->buffers[mode];
	double start = now();
	int err;

	do {
		err = rdma_prefetch(&d->rdma, b->mr, b->addr, d->size, true);
	} while (err == -EBUSY && now() - start < PREFETCH_TIMEOUT_S);
	must(err, "prefetch (ibv_advise_mr)");

	return now() - start;
}

/* How long until the device can access memory? Each time from an empty MR. */
static void run_prefetches(struct demo *d, enum mode mode)
{
	struct result *r = &d->report.results[mode];
	double seconds[PREFETCHES];
	struct counters before;
	int i;

	for (i = 0; i < PREFETCHES; i++) {
		move(d, mode);

		before = read_counters(d);
		seconds[i] = prefetch(d, mode);
		count(d, &r->rest, &before);
	}

	r->figures[PREFETCH] = npages(d) / median(seconds, PREFETCHES);
	printf("[%s] prefetch: %.0f pages/s\n", mode_names[mode],
	       r->figures[PREFETCH]);
	fflush(stdout);
}

/*
 * At the end, after all measurements, the peer fetches the buffer again, and
 * the CPU reads the GPU's data. Both hash their data at the same time.
 */
static void check_digests(struct demo *d, enum mode mode,
			  const unsigned char *expected)
{
	struct peer_request request = { PEER_HASH, .size = d->size };
	struct result *r = &d->report.results[mode];
	struct counters before = read_counters(d);
	struct peer_answer answer;

	run_rdma(d, mode, PEER_READ, 0, d->size, 0);
	count(d, &r->rest, &before);

	must(peer_ask(&d->peer, &request), "peer");
	content_sha256(d->buffers[mode].addr, d->size, r->held);
	must(peer_answer(&d->peer, &answer), "peer");
	memcpy(r->received, answer.sha256, SHA256_SIZE);

	if (memcmp(r->received, expected, SHA256_SIZE) ||
	    memcmp(r->held, expected, SHA256_SIZE)) {
		printf("[%s] WRONG DATA: the SHA-256 sums differ\n",
		       mode_names[mode]);
		r->data_ok = false;
	}
}

static void finish(struct demo *d, enum mode mode,
		   const unsigned char *expected)
{
	struct buffer *b = &d->buffers[mode];

	set_switch(mode);
	if (mode != RAM)
		check_sum(d, mode);
	run_prefetches(d, mode);
	check_digests(d, mode, expected);

	ibv_dereg_mr(b->mr);
	munmap(b->addr, d->size);
}

static void run(struct demo *d)
{
	unsigned char expected[SHA256_SIZE];
	int mode;

	for (mode = 0; mode < NR_MODES; mode++)
		prepare(d, mode);

	run_rounds(d);

	content_sha256(d->model, d->size, expected);
	for (mode = 0; mode < NR_MODES; mode++)
		finish(d, mode, expected);
}

static void open_devices(struct demo *d)
{
	struct drm_vsvm_info info;
	int err;

	err = p2pdma_enabled(&was_enabled);
	if (err)
		die("/sys/kernel/mm/hmm_p2pdma: %s; this kernel has no CONFIG_HMM_P2PDMA, use that of make demo",
		    strerror(-err));
	err = p2pdma_enable(was_enabled);
	if (err)
		die("/sys/kernel/mm/hmm_p2pdma/enabled: %s; run this as root",
		    strerror(-err));
	atexit(restore_switch);

	d->gpu = gpu_open(0);
	if (d->gpu < 0)
		die("no GPU: %s; load the vsvm module, or use make demo",
		    strerror(-d->gpu));
	must(gpu_info(d->gpu, &info), "GPU information");
	if (info.vram_size < 2 * d->size)
		die("two buffers of %zu MiB do not fit into the GPU's %llu: give it more (VRAM=), or make them smaller (SIZE=)",
		    d->size / MIB, info.vram_size / MIB);

	err = rdma_open(&d->rdma);
	if (err)
		die("no RDMA device: %s; add one with rdma link add, or use make demo",
		    strerror(-err));
	must(peer_connect(&d->peer, &d->rdma), "connection to the peer");
}

/* The figures mean nothing without this description. */
static void describe_machine(struct demo *d)
{
	const char *topology = getenv("TOPOLOGY"), *accel = getenv("LAB_ACCEL");
	struct drm_vsvm_info info;
	struct utsname uts;
	char pci[64];

	must(gpu_info(d->gpu, &info), "GPU information");
	must(gpu_pci_address(d->gpu, pci, sizeof(pci)), "GPU information");
	uname(&uts);

	snprintf(d->report.machine, sizeof(d->report.machine),
		 "Linux %s, %ld CPUs%s%s%s%s; GPU %s with %llu MiB of VRAM, %llu in the window; RDMA device %s",
		 uts.release, sysconf(_SC_NPROCESSORS_ONLN),
		 accel ? ", " : "", accel ? accel : "",
		 topology ? ", topology " : "", topology ? topology : "",
		 pci, info.vram_size / MIB, info.window_size / MIB,
		 ibv_get_device_name(d->rdma.ctx->device));
}

/* RAM must hold two buffers, their model and the peer's copy. */
static void check_memory(const struct demo *d)
{
	size_t need = 4 * d->size + 128 * MIB;
	struct sysinfo info;

	if (!sysinfo(&info) && (uint64_t)info.totalram * info.mem_unit < need)
		die("this takes %zu MiB of RAM: give the machine more (MEM=), or make the buffers smaller (SIZE=)",
		    need / MIB);
}

static unsigned long number(const char *name, const char *arg,
			    unsigned long max)
{
	char *end;
	unsigned long n = strtoul(arg, &end, 0);

	if (*end || !n || n > max)
		die("%s %s: give a number from 1 to %lu", name, arg, max);
	return n;
}

static void usage(void)
{
	printf("Usage: hmmp2p-demo [OPTION ...]\n"
	       "A process hands a buffer to a GPU; a second process reads and writes it over\n"
	       "RDMA: with peer-to-peer access, without it, and in plain RAM.\n\n"
	       "  --size MIB     of the buffer (64)\n"
	       "  --rounds N     of GPU and RDMA work, in each mode (6)\n"
	       "  --file PATH    what goes into the buffer, repeated to its size (this program)\n"
	       "  --json PATH    where the figures go as well\n"
	       "  --help         this\n\n"
	       "Exit status: 0 if all data was right and no page migrated with peer-to-peer\n"
	       "access, else 1. Timings are only reported.\n");
	exit(EXIT_SUCCESS);
}

static void parse_options(struct demo *d, int argc, char **argv)
{
	static const struct option options[] = {
		{ "size",	required_argument,	NULL, 's' },
		{ "rounds",	required_argument,	NULL, 'r' },
		{ "file",	required_argument,	NULL, 'f' },
		{ "json",	required_argument,	NULL, 'j' },
		{ "help",	no_argument,		NULL, 'h' },
		{ }
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 's':
			d->size = number("--size", optarg, 1 << 20) * MIB;
			break;
		case 'r':
			d->rounds = number("--rounds", optarg, MAX_ROUNDS);
			break;
		case 'f':
			d->file = optarg;
			break;
		case 'j':
			d->json = fopen(optarg, "w");
			if (!d->json)
				die("%s: %s; name another file with --json",
				    optarg, strerror(errno));
			break;
		case 'h':
			usage();
			break;
		default:
			exit(EXIT_FAILURE);
		}
	}
	if (optind != argc)
		die("%s: unexpected; see --help", argv[optind]);
}

int main(int argc, char **argv)
{
	struct demo d = { .size = 64 * MIB, .rounds = 6, .file = "/proc/self/exe" };
	bool ok;

	parse_options(&d, argc, argv);
	check_memory(&d);
	d.model = map_memory(d.size, MAP_SHARED);
	must(peer_start(&d.peer, d.size, d.model), "peer");
	open_devices(&d);

	d.report.pages = npages(&d);
	d.report.rounds = d.rounds;
	d.report.prefetches = PREFETCHES;
	describe_machine(&d);
	printf("%s\n%zu MiB of %s; rounds in each mode: %d\n",
	       d.report.machine, d.size / MIB, d.file, d.rounds);

	run(&d);

	report_table(&d.report);
	if (d.json) {
		report_json(&d.report, d.json);
		if (fclose(d.json))
			die("the JSON file: %s", strerror(errno));
	}
	ok = report_verdict(&d.report);

	rdma_close(&d.rdma);
	close(d.gpu);
	peer_stop(&d.peer);
	return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
