// SPDX-License-Identifier: GPL-2.0
/*
 * How fast a disk gets its contents into VRAM: straight there, through hmm_blk,
 * or with read() into RAM and a migration, the only way that Linux has today. A
 * third figure, the read() alone, tells what the disk can do. The ways take
 * turns, and the GPU checks in VRAM what has come of each.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <linux/hmm_blk.h>

#include "content.h"
#include "gpu.h"

#define DISK	"/dev/nvme0n1"
#define MIB	((size_t)1 << 20)
#define SIZE	(64 * MIB)
#define ROUNDS	9

#define GOAL	2.0	/* times the read and migration */

enum way { DIRECT, MIGRATE, READ, NR_WAYS };

static const struct {
	const char *key;
	const char *label;
} ways[NR_WAYS] = {
	[DIRECT]	= { "direct", "from disk to VRAM, directly" },
	[MIGRATE]	= { "migrate", "read() into RAM, then migrate" },
	[READ]		= { "read", "the read() alone" },
};

static __attribute__((noreturn, format(printf, 1, 2)))
void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "bench-nvme: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(1);
}

static void check(const char *what, int err)
{
	if (err)
		die("%s: %s", what, strerror(-err));
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void read_to_ram(int disk, uint8_t *buf)
{
	size_t done = 0;
	ssize_t n;

	while (done < SIZE) {
		n = pread(disk, buf + done, SIZE - done, done);
		if (n <= 0)
			die("read of " DISK ": %s", n ? strerror(errno) : "it ends early");
		done += n;
	}
}

static void read_directly(int blk, int disk, uint8_t *buf)
{
	struct hmm_blk_io io = {
		.fd = disk,
		.addr = (uintptr_t)buf,
		.size = SIZE,
	};

	if (ioctl(blk, HMM_BLK_IO, &io))
		die("/dev/hmm_blk: %s", strerror(errno));
	if (io.done != SIZE)
		die("/dev/hmm_blk: it stopped after %" PRIu64 " bytes", (uint64_t)io.done);
}

static void to_vram(int gpu, uint8_t *buf)
{
	uint64_t pages;

	check("migration to VRAM", gpu_to_vram(gpu, buf, SIZE, &pages));
	if (pages != SIZE / getpagesize())
		die("only %" PRIu64 " pages fit into VRAM", pages);
}

/* One way, in seconds. What is in the buffer before is never what comes. */
static double measure(enum way way, int gpu, int blk, int disk, uint8_t *buf,
		      uint64_t expected)
{
	struct drm_vsvm_counters before, after;
	double start;
	uint64_t sum;

	check("fill", gpu_fill(gpu, buf, SIZE, way));
	if (way == DIRECT)
		to_vram(gpu, buf);
	else
		check("migration to RAM", gpu_to_ram(gpu, buf, SIZE));

	check("counters", gpu_counters(gpu, &before));
	start = now();
	if (way == DIRECT)
		read_directly(blk, disk, buf);
	else
		read_to_ram(disk, buf);
	if (way == MIGRATE)
		to_vram(gpu, buf);
	start = now() - start;
	check("counters", gpu_counters(gpu, &after));

	if (way == DIRECT && after.pages_to_ram != before.pages_to_ram)
		die("%" PRIu64 " pages migrated to RAM: is vsvm loaded with p2p_pages=1, and the disk able to reach it? see hmmp2p topo",
		    (uint64_t)(after.pages_to_ram - before.pages_to_ram));
	check("sum", gpu_sum(gpu, buf, SIZE, &sum));
	if (sum != expected)
		die("%s: wrong data", ways[way].label);

	return start;
}

static int compare(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void json(const char *file, double rate[NR_WAYS][ROUNDS])
{
	const char *accel = getenv("LAB_ACCEL"), *topology = getenv("TOPOLOGY");
	FILE *out = fopen(file, "w");
	time_t t = time(NULL);
	struct utsname uts;
	char date[32];
	int way;

	if (!out)
		die("%s: %s", file, strerror(errno));

	uname(&uts);
	strftime(date, sizeof(date), "%FT%TZ", gmtime(&t));
	fprintf(out, "{\n  \"date\": \"%s\",\n  \"kernel\": \"%s\",\n  \"accel\": \"%s\",\n  \"cpus\": %ld,\n  \"topology\": \"%s\",\n",
		date, uts.release, accel ? accel : "", sysconf(_SC_NPROCESSORS_ONLN),
		topology ? topology : "");
	fprintf(out, "  \"nvme_to_vram\": {\n    \"bytes\": %zu,\n    \"rounds\": %d,\n",
		SIZE, ROUNDS);
	for (way = 0; way < NR_WAYS; way++)
		fprintf(out, "    \"%s_mib_per_s\": { \"min\": %.1f, \"median\": %.1f, \"max\": %.1f },\n",
			ways[way].key, rate[way][0], rate[way][ROUNDS / 2],
			rate[way][ROUNDS - 1]);
	fprintf(out, "    \"direct_over_migrate\": %.2f\n  }\n}\n",
		rate[DIRECT][ROUNDS / 2] / rate[MIGRATE][ROUNDS / 2]);
	if (fclose(out))
		die("%s: %s", file, strerror(errno));
}

int main(int argc, char **argv)
{
	double rate[NR_WAYS][ROUNDS], ratio;
	int gpu, blk, disk, round, way;
	uint64_t expected;
	uint8_t *buf;

	if (argc > 2)
		die("usage: bench-nvme [JSON-FILE]");

	gpu = gpu_open(0);
	blk = open("/dev/hmm_blk", O_RDWR | O_CLOEXEC);
	disk = open(DISK, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (gpu < 0 || blk < 0 || disk < 0)
		die("no GPU, no /dev/hmm_blk or no " DISK ": run this in the lab, make bench");

	buf = mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buf == MAP_FAILED)
		die("no memory");
	madvise(buf, SIZE, MADV_HUGEPAGE);

	content_pattern(buf, SIZE, time(NULL));
	expected = content_sum(buf, SIZE);
	if (pwrite(disk, buf, SIZE, 0) != (ssize_t)SIZE)
		die("write to " DISK ": %s", strerror(errno));

	for (round = 0; round < ROUNDS; round++)
		for (way = 0; way < NR_WAYS; way++)
			rate[way][round] = SIZE / MIB /
				measure(way, gpu, blk, disk, buf, expected);

	printf("%zu MiB from an NVMe disk, %d rounds    MiB/s:    min  median     max\n",
	       SIZE / MIB, ROUNDS);
	for (way = 0; way < NR_WAYS; way++) {
		qsort(rate[way], ROUNDS, sizeof(rate[way][0]), compare);
		printf("  %-40s %10.1f %7.1f %7.1f\n", ways[way].label, rate[way][0],
		       rate[way][ROUNDS / 2], rate[way][ROUNDS - 1]);
	}
	ratio = rate[DIRECT][ROUNDS / 2] / rate[MIGRATE][ROUNDS / 2];
	printf("  directly, it is %.2f times as fast as with a migration\n", ratio);
	if (ratio < GOAL)
		printf("warning: the goal is %.1f times\n", GOAL);

	if (argc == 2)
		json(argv[1], rate);
	return 0;
}
