// SPDX-License-Identifier: GPL-2.0
/*
 * Measures how fast data gets from a disk into VRAM: directly, through hmm_blk,
 * or with read() into RAM and a migration, the only way that Linux has today. A
 * third figure, the read() alone, shows the speed of the disk. The ways take
 * turns, and the GPU checks the data of each. Figures go to stdout.
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
#include <time.h>
#include <unistd.h>

#include "../linux/samples/hmm/hmm_blk.h"
#include "content.h"
#include "figures.h"
#include "gpu.h"
#include "measure.h"
#include "mode.h"
#include "must.h"

#define DISK	"/dev/nvme0n1"
#define MIB	((size_t)1 << 20)
#define SIZE	(64 * MIB)
#define ROUNDS	9

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

	must(gpu_to_vram(gpu, buf, SIZE, &pages), "migration to VRAM");
	if (pages != SIZE / getpagesize())
		die("only %" PRIu64 " pages fit into VRAM", pages);
}

/* One mode, in seconds. The old data in the buffer is never that of the disk. */
static double measure(enum mode mode, int gpu, int blk, int disk, uint8_t *buf,
		      uint64_t expected)
{
	struct drm_vsvm_counters before, after;
	double start;
	uint64_t sum;

	must(gpu_fill(gpu, buf, SIZE, mode), "fill");
	if (mode == P2PDMA)
		to_vram(gpu, buf);
	else
		must(gpu_to_ram(gpu, buf, SIZE), "migration to RAM");

	must(gpu_counters(gpu, &before), "counters");
	start = now();
	if (mode == P2PDMA)
		read_directly(blk, disk, buf);
	else
		read_to_ram(disk, buf);
	if (mode == OFF)
		to_vram(gpu, buf);
	start = now() - start;
	must(gpu_counters(gpu, &after), "counters");

	if (mode == P2PDMA && after.pages_to_ram != before.pages_to_ram)
		die("%" PRIu64 " pages migrated to RAM: is vsvm loaded with p2p_pages=1, and the disk able to reach it? see hmmp2p topo",
		    (uint64_t)(after.pages_to_ram - before.pages_to_ram));
	must(gpu_sum(gpu, buf, SIZE, &sum), "sum");
	if (sum != expected)
		die("%s: wrong data", mode_names[mode]);

	return start;
}

int main(void)
{
	double rate[NR_MODES][ROUNDS];
	int gpu, blk, disk, round, mode;
	uint64_t expected;
	uint8_t *buf;

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
		for (mode = 0; mode < NR_MODES; mode++)
			rate[mode][round] = SIZE / MIB /
				measure(mode, gpu, blk, disk, buf, expected);

	for (mode = 0; mode < NR_MODES; mode++)
		figure("disk to VRAM", "64 MiB", mode_names[mode], "MiB/s",
		       median(rate[mode], ROUNDS));
	return 0;
}
