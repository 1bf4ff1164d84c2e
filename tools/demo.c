// SPDX-License-Identifier: GPL-2.0
/*
 * A buffer in a GPU's memory, which a second process reads and writes by RDMA.
 *
 * The same rounds of GPU and RDMA work are done three times: with peer-to-peer
 * access, without it (the kernel then migrates every page to RAM, and the GPU
 * back to VRAM), and in plain RAM, where the CPU does the GPU's work.
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
#include "p2pdma.h"
#include "peer.h"
#include "rdma.h"

#define MIB		(1UL << 20)
#define MAX_ROUNDS	100
#define PREFETCHES	5

/* What is to be reached, in the same run */
#define GOAL_PREFETCH	10.0	/* times the pages/s of the kernel without it */
#define GOAL_ROUND	1.2	/* times the time in plain RAM, at most */

enum mode { P2PDMA, OFF, RAM, NR_MODES };

static const char * const mode_names[NR_MODES] = { "p2pdma", "off", "ram" };

struct counters {
	uint64_t migrated_out;
	uint64_t migrated_in;
	struct p2pdma_stats stats;
};

enum figure {
	MIGRATED_OUT,
	MIGRATED_IN,
	ALIASES,
	PREFETCH,
	ROUND,
	ROUND_OP,
	ROUND_RDMA,
	NR_FIGURES,
};

/* A row of the table, and the key in the JSON; counts have no digits. */
static const struct {
	const char *label;
	const char *key;
	int digits;
	bool ratio;
} rows[NR_FIGURES] = {
	[MIGRATED_OUT]	= { "pages migrated to RAM", "pages_migrated_out" },
	[MIGRATED_IN]	= { "pages migrated back", "pages_migrated_in" },
	[ALIASES]	= { "aliases handed out", "aliases" },
	[PREFETCH]	= { "prefetch, pages/s", "prefetch_pages_per_s", 0, true },
	[ROUND]		= { "a round, s (median)", "round_s", 4, true },
	[ROUND_OP]	= { "  of it GPU operation", "round_op_s", 4, true },
	[ROUND_RDMA]	= { "  of it RDMA", "round_rdma_s", 4, true },
};

struct result {
	double figures[NR_FIGURES];
	struct counters rounds;
	struct counters prefetches;
	unsigned char received[SHA256_SIZE];
	unsigned char held[SHA256_SIZE];
	bool data_ok;
};

struct demo {
	size_t size;
	int rounds;
	const char *file;
	FILE *json;

	int gpu;
	struct rdma rdma;
	struct peer peer;
	char *buf;
	char *model;
	struct ibv_mr *mr;
};

static int was_enabled;

static void die(const char *format, ...) __attribute__((format(printf, 1, 2),
							noreturn));

static void die(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fputs("hmmp2p-demo: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(EXIT_FAILURE);
}

static void must(int err, const char *what)
{
	if (err < 0)
		die("%s: %s; the kernel's log (dmesg) may tell more", what,
		    strerror(-err));
}

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
	must(p2pdma_read_stats(&c.stats), "hmm_p2pdma/stats");
	c.migrated_out = gpu.pages_to_ram;
	c.migrated_in = gpu.pages_to_vram;
	return c;
}

/* Add what has happened since @since. */
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

static uint64_t aliases(const struct counters *c)
{
	return c->stats.pages[P2PDMA_ALIAS_CPU] +
	       c->stats.pages[P2PDMA_ALIAS_BUS] +
	       c->stats.pages[P2PDMA_ALIAS_HOST_BRIDGE];
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, int n)
{
	qsort(values, n, sizeof(*values), compare_doubles);
	return (values[(n - 1) / 2] + values[n / 2]) / 2;
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

/* The peer reaches into the MR; returns how long that took. */
static double run_rdma(struct demo *d, enum peer_task task, size_t offset,
		       size_t size, uint64_t value)
{
	struct peer_request request = {
		.task = task,
		.rkey = d->mr->rkey,
		.addr = (uintptr_t)d->buf,
		.offset = offset,
		.size = size,
		.value = value,
	};
	struct peer_answer answer;

	ask_peer(d, &request, &answer);
	return answer.seconds;
}

static void check_received(struct demo *d, enum mode mode, int round,
			   struct result *r)
{
	struct peer_answer answer;

	ask_peer(d, &(struct peer_request){ PEER_COMPARE, .size = d->size },
		 &answer);
	if (answer.wrong == d->size)
		return;

	printf("[%s] round %d/%d: the peer received WRONG DATA, from byte %" PRIu64 " on\n",
	       mode_names[mode], round + 1, d->rounds, answer.wrong);
	r->data_ok = false;
}

/* A real file, in RAM, and then in VRAM, where every page becomes private. */
static void prepare_buffer(struct demo *d, enum mode mode)
{
	uint64_t pages;
	int err;

	d->buf = map_memory(d->size, MAP_PRIVATE);
	err = content_load(d->file, d->buf, d->size);
	if (err)
		die("%s: %s; name another file with --file", d->file,
		    strerror(-err));
	memcpy(d->model, d->buf, d->size);
	if (mode == RAM)
		return;

	must(gpu_to_vram(d->gpu, d->buf, d->size, &pages), "migration to VRAM");
	if (pages != npages(d))
		die("only %" PRIu64 " of %zu pages found room in VRAM: give the GPU more (VRAM=)",
		    pages, npages(d));
}

/*
 * One round: the GPU changes all of the buffer, the peer writes an eighth in
 * the middle of it and reads it all.
 */
static void run_round(struct demo *d, enum mode mode, int round, double *op_s,
		      double *rdma_s)
{
	size_t part = d->size / 8, middle = d->size / 2 - part / 2;
	uint64_t value = 0x9e3779b97f4a7c15 * (round + 1);
	double start = now(), write_s, read_s;

	if (mode == RAM)
		content_xor(d->buf, d->size, value);
	else
		must(gpu_xor(d->gpu, d->buf, d->size, value), "GPU operation");
	*op_s = now() - start;

	write_s = run_rdma(d, PEER_WRITE, middle, part, ~value);
	read_s = run_rdma(d, PEER_READ, 0, d->size, 0);
	*rdma_s = write_s + read_s;

	printf("[%s] round %d/%d: %s %.3f s, rdma write %.3f s, rdma read %.3f s\n",
	       mode_names[mode], round + 1, d->rounds,
	       mode == RAM ? "cpu" : "gpu", *op_s, write_s, read_s);
	fflush(stdout);

	content_xor(d->model, d->size, value);
	content_pattern(d->model + middle, part, ~value);
}

static void run_rounds(struct demo *d, enum mode mode, struct result *r)
{
	double total[MAX_ROUNDS], op[MAX_ROUNDS], rdma[MAX_ROUNDS];
	struct counters before;
	int i;

	before = read_counters(d);
	d->mr = rdma_reg_odp(&d->rdma, d->buf, d->size);
	if (!d->mr)
		die("registration of the MR: %s; is it an RDMA device with on-demand paging?",
		    strerror(errno));
	count(d, &r->rounds, &before);

	for (i = 0; i < d->rounds; i++) {
		before = read_counters(d);
		run_round(d, mode, i, &op[i], &rdma[i]);
		count(d, &r->rounds, &before);
		total[i] = op[i] + rdma[i];
		check_received(d, mode, i, r);
	}

	r->figures[MIGRATED_OUT] = r->rounds.migrated_out;
	r->figures[MIGRATED_IN] = r->rounds.migrated_in;
	r->figures[ALIASES] = aliases(&r->rounds);
	r->figures[ROUND] = median(total, d->rounds);
	r->figures[ROUND_OP] = median(op, d->rounds);
	r->figures[ROUND_RDMA] = median(rdma, d->rounds);
}

/* By the GPU itself: reading the memory any other way would move it. */
static void check_sum(struct demo *d, enum mode mode, struct result *r)
{
	uint64_t sum;

	must(gpu_sum(d->gpu, d->buf, d->size, &sum), "GPU operation");
	if (sum == content_sum(d->model, d->size))
		return;

	printf("[%s] the GPU holds WRONG DATA\n", mode_names[mode]);
	r->data_ok = false;
}

/*
 * How long until the memory can be reached? In each mode from the same state:
 * the pages have just moved, which has emptied the MR.
 */
static void run_prefetches(struct demo *d, enum mode mode, struct result *r)
{
	double seconds[PREFETCHES], start;
	struct counters before;
	int i;

	for (i = 0; i < PREFETCHES; i++) {
		if (mode == RAM)
			must(gpu_to_vram(d->gpu, d->buf, d->size, NULL),
			     "migration to VRAM");
		must(gpu_to_ram(d->gpu, d->buf, d->size), "migration to RAM");
		if (mode != RAM)
			must(gpu_to_vram(d->gpu, d->buf, d->size, NULL),
			     "migration to VRAM");

		before = read_counters(d);
		start = now();
		must(rdma_prefetch(&d->rdma, d->mr, d->buf, d->size, true),
		     "prefetch (ibv_advise_mr)");
		seconds[i] = now() - start;
		count(d, &r->prefetches, &before);
	}

	r->figures[PREFETCH] = npages(d) / median(seconds, PREFETCHES);
	printf("[%s] prefetch: %.0f pages/s\n", mode_names[mode],
	       r->figures[PREFETCH]);
	fflush(stdout);
}

/*
 * At last, with all figures taken, the CPU fetches what the GPU holds. That is
 * what the peer received in the last round, and what the model has become.
 */
static void check_digests(struct demo *d, enum mode mode, struct result *r)
{
	unsigned char expected[SHA256_SIZE];
	struct peer_answer answer;

	ask_peer(d, &(struct peer_request){ PEER_HASH, .size = d->size },
		 &answer);
	memcpy(r->received, answer.sha256, SHA256_SIZE);
	content_sha256(d->buf, d->size, r->held);
	content_sha256(d->model, d->size, expected);

	if (memcmp(r->received, expected, SHA256_SIZE) ||
	    memcmp(r->held, expected, SHA256_SIZE)) {
		printf("[%s] WRONG DATA: the SHA-256 sums differ\n",
		       mode_names[mode]);
		r->data_ok = false;
	}
}

static void run_mode(struct demo *d, enum mode mode, struct result *r)
{
	must(p2pdma_enable(mode != OFF), "hmm_p2pdma/enabled");

	prepare_buffer(d, mode);
	r->data_ok = true;
	run_rounds(d, mode, r);
	if (mode != RAM)
		check_sum(d, mode, r);
	run_prefetches(d, mode, r);
	check_digests(d, mode, r);

	ibv_dereg_mr(d->mr);
	munmap(d->buf, d->size);
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
	if (info.vram_size < d->size)
		die("%zu MiB do not fit into the GPU's %llu: give it more (VRAM=), or make the buffer smaller (SIZE=)",
		    d->size / MIB, info.vram_size / MIB);

	err = rdma_open(&d->rdma);
	if (err)
		die("no RDMA device: %s; add one with rdma link add, or use make demo",
		    strerror(-err));
	must(peer_connect(&d->peer, &d->rdma), "connection to the peer");
}

/* The buffer, the model of it and the peer's copy. */
static void check_memory(const struct demo *d)
{
	size_t need = 3 * d->size + 128 * MIB;
	struct sysinfo info;

	if (!sysinfo(&info) && (uint64_t)info.totalram * info.mem_unit < need)
		die("this takes %zu MiB of RAM: give the machine more (MEM=), or make the buffer smaller (SIZE=)",
		    need / MIB);
}

/* The machine, as far as it is known: figures mean nothing without. */
static void print_machine(const struct demo *d, FILE *out)
{
	const char *topology = getenv("TOPOLOGY"), *accel = getenv("LAB_ACCEL");
	struct drm_vsvm_info info;
	struct utsname uts;
	char pci[64];

	must(gpu_info(d->gpu, &info), "GPU information");
	must(gpu_pci_address(d->gpu, pci, sizeof(pci)), "GPU information");
	uname(&uts);

	fprintf(out, "Linux %s%s%s%s%s, %ld CPUs; GPU %s: %llu MiB of VRAM, %llu of them in the window; RDMA: %s",
		uts.release, accel ? ", " : "", accel ? accel : "",
		topology ? ", topology " : "", topology ? topology : "",
		sysconf(_SC_NPROCESSORS_ONLN), pci, info.vram_size / MIB,
		info.window_size / MIB,
		ibv_get_device_name(d->rdma.ctx->device));
}

static void print_digest(FILE *out, const unsigned char *digest, int bytes)
{
	while (bytes--)
		fprintf(out, "%02x", *digest++);
}

static void print_digests(const char *label, const unsigned char *p2pdma,
			  const unsigned char *off, const unsigned char *ram)
{
	const unsigned char * const digests[] = { p2pdma, off, ram };
	int mode;

	printf("%-26s", label);
	for (mode = 0; mode < NR_MODES; mode++) {
		printf(" ");
		print_digest(stdout, digests[mode], 6);
	}
	printf("\n");
}

static double ratio(const struct result *results, int figure, enum mode to)
{
	return results[P2PDMA].figures[figure] / results[to].figures[figure];
}

static void print_table(const struct demo *d, const struct result *results)
{
	char title[64];
	int row, mode;

	snprintf(title, sizeof(title), "rounds: %d, pages: %zu", d->rounds,
		 npages(d));
	printf("\n%-26s", title);
	for (mode = 0; mode < NR_MODES; mode++)
		printf(" %12s", mode_names[mode]);
	printf(" %11s %11s\n", "p2pdma/off", "p2pdma/ram");

	for (row = 0; row < NR_FIGURES; row++) {
		printf("%-26s", rows[row].label);
		for (mode = 0; mode < NR_MODES; mode++)
			printf(" %12.*f", rows[row].digits,
			       results[mode].figures[row]);
		if (rows[row].ratio)
			printf(" %11.2f %11.2f", ratio(results, row, OFF),
			       ratio(results, row, RAM));
		printf("\n");
	}
	print_digests("SHA-256 the peer received", results[P2PDMA].received,
		      results[OFF].received, results[RAM].received);
	print_digests("SHA-256 the GPU holds", results[P2PDMA].held,
		      results[OFF].held, results[RAM].held);
	printf("ram: the buffer stays in plain RAM, where the CPU does the GPU's work\n");
}

static bool all_data_ok(const struct result *results)
{
	int mode;

	for (mode = 0; mode < NR_MODES; mode++) {
		if (!results[mode].data_ok)
			return false;
	}
	return true;
}

static void write_json_mode(FILE *out, enum mode mode, const struct result *r)
{
	int row;

	fprintf(out, "  \"%s\": {", mode_names[mode]);
	for (row = 0; row < NR_FIGURES; row++)
		fprintf(out, "\"%s\": %.*f, ", rows[row].key, rows[row].digits,
			r->figures[row]);
	fprintf(out, "\"sha256_received\": \"");
	print_digest(out, r->received, SHA256_SIZE);
	fprintf(out, "\", \"sha256_held\": \"");
	print_digest(out, r->held, SHA256_SIZE);
	fprintf(out, "\"},\n");
}

static void write_json_ratio(FILE *out, const char *key,
			     const struct result *results, enum mode to)
{
	const char *comma = "";
	int row;

	fprintf(out, "  \"%s\": {", key);
	for (row = 0; row < NR_FIGURES; row++) {
		if (!rows[row].ratio)
			continue;
		fprintf(out, "%s\"%s\": %.3f", comma, rows[row].key,
			ratio(results, row, to));
		comma = ", ";
	}
	fprintf(out, "},\n");
}

static void write_json(const struct demo *d, const struct result *results)
{
	FILE *out = d->json;
	int mode;

	fprintf(out, "{\n  \"machine\": \"");
	print_machine(d, out);
	fprintf(out, "\",\n  \"size_mib\": %zu,\n  \"rounds\": %d,\n",
		d->size / MIB, d->rounds);
	for (mode = 0; mode < NR_MODES; mode++)
		write_json_mode(out, mode, &results[mode]);
	write_json_ratio(out, "ratio", results, OFF);
	write_json_ratio(out, "ratio_to_ram", results, RAM);
	fprintf(out, "  \"sha256_ok\": %s\n}\n",
		all_data_ok(results) ? "true" : "false");
	if (fclose(out))
		die("the JSON file: %s", strerror(errno));
}

static void colour(const char *code)
{
	if (isatty(STDOUT_FILENO))
		printf("\033[%sm", code);
}

static void verdict(bool ok, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void verdict(bool ok, const char *format, ...)
{
	va_list args;

	colour(ok ? "32" : "31");
	printf("%s", ok ? "ok: " : "FAILED: ");
	colour("0");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
}

/* Timings are the machine's as well as ours: they never fail the run. */
static void check_goals(const struct result *results)
{
	double prefetch = ratio(results, PREFETCH, OFF);
	double round = ratio(results, ROUND, RAM);

	if (prefetch < GOAL_PREFETCH)
		printf("warning: prefetch was %.1f times as fast as without p2pdma; the goal is %.0f\n",
		       prefetch, GOAL_PREFETCH);
	if (round > GOAL_ROUND)
		printf("warning: a round took %.2f times as long as in plain RAM; the goal is %.1f at most\n",
		       round, GOAL_ROUND);
}

static bool check_aliased(const struct demo *d, const struct result *r)
{
	uint64_t out = r->rounds.migrated_out + r->prefetches.migrated_out;
	uint64_t in = r->rounds.migrated_in + r->prefetches.migrated_in;
	uint64_t n;
	int i;

	if (!out && !in && aliases(&r->rounds) >= npages(d) &&
	    aliases(&r->prefetches) >= npages(d) * PREFETCHES) {
		verdict(true, "with p2pdma no page migrated");
		return true;
	}

	verdict(false, "with p2pdma %" PRIu64 " pages migrated to RAM, %" PRIu64 " back; %" PRIu64 " aliases in the rounds, %" PRIu64 " in the prefetches",
		out, in, aliases(&r->rounds), aliases(&r->prefetches));
	for (i = P2PDMA_FALLBACK_NO_WINDOW; i < P2PDMA_NR_STATS; i++) {
		n = r->rounds.stats.pages[i] + r->prefetches.stats.pages[i];
		if (n)
			printf("  %s: %" PRIu64 " pages\n",
			       p2pdma_stat_names[i], n);
	}
	return false;
}

/* Without p2pdma the demo shows something only if all pages do migrate. */
static bool check_off(const struct demo *d, const struct result *r)
{
	uint64_t given = aliases(&r->rounds) + aliases(&r->prefetches);
	bool ok = !given && r->rounds.migrated_out >= npages(d) * d->rounds &&
		  r->prefetches.migrated_out >= npages(d) * PREFETCHES;

	if (!ok)
		verdict(false, "without p2pdma %" PRIu64 " pages migrated to RAM in the rounds, %" PRIu64 " in the prefetches; %" PRIu64 " aliases",
			r->rounds.migrated_out, r->prefetches.migrated_out,
			given);
	return ok;
}

static bool check_results(const struct demo *d, const struct result *results)
{
	bool data_ok = all_data_ok(results);
	bool ok = data_ok;

	verdict(data_ok, data_ok ? "the peer received, and the GPU holds, the right data" :
				   "wrong data; see above");
	ok &= check_aliased(d, &results[P2PDMA]);
	ok &= check_off(d, &results[OFF]);
	check_goals(results);
	return ok;
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
	       "  --rounds N     of GPU and RDMA work, in each mode (5)\n"
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
	struct demo d = { .size = 64 * MIB, .rounds = 5, .file = "/proc/self/exe" };
	struct result results[NR_MODES] = { };
	int mode;
	bool ok;

	parse_options(&d, argc, argv);
	check_memory(&d);
	d.model = map_memory(d.size, MAP_SHARED);
	must(peer_start(&d.peer, d.size, d.model), "peer");
	open_devices(&d);

	print_machine(&d, stdout);
	printf("\n%zu MiB of %s; rounds in each mode: %d\n", d.size / MIB, d.file,
	       d.rounds);
	for (mode = 0; mode < NR_MODES; mode++)
		run_mode(&d, mode, &results[mode]);

	print_table(&d, results);
	if (d.json)
		write_json(&d, results);
	ok = check_results(&d, results);

	rdma_close(&d.rdma);
	close(d.gpu);
	peer_stop(&d.peer);
	return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
