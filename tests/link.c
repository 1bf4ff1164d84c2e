// SPDX-License-Identifier: GPL-2.0
/*
 * Private links between GPUs: which GPU uses whose memory over them, where it is;
 * whether a link or PCI is used; that no memory is used over a link that is down;
 * memory that moves from GPU to GPU; and the driver's parameter that sets the links.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/fuse.h>

#include "gpu.h"
#include "lib/buffer.h"
#include "lib/child.h"
#include "lib/file.h"
#include "lib/harness.h"
#include "lib/route.h"
#include "lib/stats.h"
#include "lib/vram.h"

#define SIZE	MIB(4)
#define PAGES	(SIZE / PAGE)

#define NR_GPUS	4
#define DRIVER	"/sys/bus/pci/drivers/vsvm/"

static char links_before[256];

static int open_gpus(int *gpus)
{
	int i;

	for (i = 0; i < NR_GPUS; i++) {
		gpus[i] = gpu_open(i);
		if (gpus[i] < 0)
			return gpus[i];
	}
	return 0;
}

static void close_gpus(const int *gpus)
{
	int i;

	for (i = 0; i < NR_GPUS; i++)
		close(gpus[i]);
}

/* Counters of what happens to pages, to see what a request does to them. */
struct tracks {
	struct drm_vsvm_counters gpu[NR_GPUS];
	uint64_t aliases;	/* given to devices */
};

static struct tracks tracks_read(const int *gpus)
{
	struct tracks t = { };
	int i;

	for (i = 0; i < NR_GPUS; i++)
		if (gpu_counters(gpus[i], &t.gpu[i]))
			abort();
	t.aliases = stat_read("alias_bus") + stat_read("alias_host_bridge");
	return t;
}

#define EXPECT_COUNTED(_old, _new, _gpu, _vram, _ram, _peers) do {	\
	EXPECT_EQ((_old).gpu[_gpu].pages_to_vram + (_vram),		\
		  (_new).gpu[_gpu].pages_to_vram);			\
	EXPECT_EQ((_old).gpu[_gpu].pages_to_ram + (_ram),		\
		  (_new).gpu[_gpu].pages_to_ram);			\
	EXPECT_EQ((_old).gpu[_gpu].pages_to_peers + (_peers),		\
		  (_new).gpu[_gpu].pages_to_peers);			\
} while (0)

#define EXPECT_NOTHING_MOVED(_old, _new) do {				\
	int _i;								\
									\
	for (_i = 0; _i < NR_GPUS; _i++)				\
		EXPECT_COUNTED(_old, _new, _i, 0, 0, 0);		\
} while (0)

static uint64_t pages_linked(int gpu, const struct buffer *buf)
{
	struct drm_vsvm_residency where;

	return gpu_residency(gpu, buf->mem, buf->size, &where) ? ~0ULL : where.linked;
}

/*
 * Shapes of links. Each row is an importer, and each column an exporter: l if there
 * is a link, x if both are the same GPU.
 */

FIXTURE(shape) {
	int gpus[NR_GPUS];
	uint64_t vram_free[NR_GPUS];
	struct buffer buf;
};

FIXTURE_VARIANT(shape) {
	const char *links;
	const char *rows[NR_GPUS];
	int advice;
};

#define SHAPE(_name, _links, ...)					\
FIXTURE_VARIANT_ADD(shape, _name##_pages) {				\
	.links = _links, .rows = { __VA_ARGS__ }, .advice = MADV_NOHUGEPAGE, \
};									\
FIXTURE_VARIANT_ADD(shape, _name##_huge) {				\
	.links = _links, .rows = { __VA_ARGS__ }, .advice = MADV_HUGEPAGE, \
}

SHAPE(none, "", "x...", ".x..", "..x.", "...x");
SHAPE(line, "0-1,1-2", "xl..", "lxl.", ".lx.", "...x");
SHAPE(ring, "0-1,1-2,2-3,3-0", "xl.l", "lxl.", ".lxl", "l.lx");
SHAPE(mesh, "0-1,0-2,0-3,1-2,1-3,2-3", "xlll", "lxll", "llxl", "lllx");
SHAPE(split, "0-1,2-3", "xl..", "lx..", "..xl", "..lx");
SHAPE(one_way, "0>1,1>2,2>3,3>0", "xl..", ".xl.", "..xl", "l..x");

FIXTURE_SETUP(shape)
{
	int i;

	ASSERT_EQ(0, open_gpus(self->gpus));
	for (i = 0; i < NR_GPUS; i++)
		self->vram_free[i] = vram_free(self->gpus[i]);
	ASSERT_EQ(0, buffer_map(&self->buf, SIZE, variant->advice));
	buffer_write(&self->buf, 0, SIZE);
	ASSERT_EQ(0, gpu_links_set(variant->links));
}

FIXTURE_TEARDOWN(shape)
{
	int i;

	EXPECT_EQ(-1, buffer_differs(&self->buf));
	buffer_unmap(&self->buf);
	EXPECT_EQ(0, gpu_links_set(links_before));
	for (i = 0; i < NR_GPUS; i++)
		EXPECT_EQ(0, vram_leaked(self->gpus[i], self->vram_free[i]));
	close_gpus(self->gpus);
}

#define for_each_pair(_importer, _exporter)				\
	for ((_exporter) = 0; (_exporter) < NR_GPUS; (_exporter)++)	\
		for ((_importer) = 0; (_importer) < NR_GPUS; (_importer)++)

TEST_F(shape, residency_reports_pages_reached_over_links)
{
	struct buffer *buf = &self->buf;
	int importer, exporter;

	for_each_pair(importer, exporter) {
		bool own = importer == exporter;
		bool link = variant->rows[importer][exporter] == 'l';
		int gpu = self->gpus[importer];
		struct drm_vsvm_residency where;
		struct tracks before, after;

		if (importer == 0)
			ASSERT_EQ(0, buffer_to_vram(buf, self->gpus[exporter],
						    0, SIZE));
		before = tracks_read(self->gpus);
		ASSERT_EQ(0, gpu_residency(gpu, buf->mem, SIZE, &where));
		EXPECT_EQ(own ? PAGES : 0, where.vram);
		EXPECT_EQ(link ? PAGES : 0, where.linked)
			TH_LOG("%d on memory of %d", importer, exporter);
		EXPECT_EQ(!own && !link && reachable() ? PAGES : 0, where.peer);
		EXPECT_EQ(!own && !link && !reachable() ? PAGES : 0, where.none);
		EXPECT_EQ(0, where.ram);

		after = tracks_read(self->gpus);
		EXPECT_NOTHING_MOVED(before, after);
		EXPECT_EQ(PAGES, pages_in_vram(self->gpus[exporter], buf->mem,
					       SIZE));
	}
}

TEST_F(shape, gpu_prefers_link_to_alias_and_alias_to_migration)
{
	struct buffer *buf = &self->buf;
	int importer, exporter;

	for_each_pair(importer, exporter) {
		bool link = variant->rows[importer][exporter] == 'l';
		int gpu = self->gpus[importer], owner = self->gpus[exporter];
		struct tracks before, after;

		if (importer == exporter)
			continue;
		ASSERT_EQ(0, buffer_to_vram(buf, owner, 0, SIZE));
		before = tracks_read(self->gpus);
		ASSERT_EQ(0, buffer_xor(buf, gpu, 8, SIZE - 16));
		EXPECT_EQ(-1, buffer_differs_on_gpu(buf, gpu));
		after = tracks_read(self->gpus);

		if (link) {
			EXPECT_EQ(before.aliases, after.aliases)
				TH_LOG("%d on memory of %d", importer, exporter);
		} else if (reachable()) {
			EXPECT_LE(before.aliases + PAGES, after.aliases);
		}
		if (link || reachable()) {
			EXPECT_NOTHING_MOVED(before, after);
			ASSERT_EQ(PAGES, pages_in_vram(owner, buf->mem, SIZE));
			EXPECT_EQ(-1, buffer_differs_on_gpu(buf, owner));
		} else {
			EXPECT_COUNTED(before, after, exporter, 0, PAGES, 0);
			EXPECT_COUNTED(before, after, importer, PAGES, 0, 0);
		}
	}
}

/* Needs a link both ways: the new owner asks for pages, and the old one writes them. */
TEST_F(shape, migration_between_gpus_uses_two_way_links)
{
	struct buffer *buf = &self->buf;
	int importer, exporter;

	for_each_pair(importer, exporter) {
		bool link = variant->rows[importer][exporter] == 'l' &&
			    variant->rows[exporter][importer] == 'l';
		int gpu = self->gpus[importer], owner = self->gpus[exporter];
		struct tracks before, after;
		uint64_t pages = 0;

		if (importer == exporter)
			continue;
		ASSERT_EQ(0, buffer_to_vram(buf, owner, 0, SIZE));
		before = tracks_read(self->gpus);
		EXPECT_EQ(0, gpu_to_vram(gpu, buf->mem, SIZE, &pages));
		EXPECT_EQ(PAGES, pages);
		EXPECT_EQ(-1, buffer_differs_on_gpu(buf, gpu));
		after = tracks_read(self->gpus);

		EXPECT_EQ(PAGES, pages_in_vram(gpu, buf->mem, SIZE));
		EXPECT_EQ(0, pages_in_vram(owner, buf->mem, SIZE));
		EXPECT_EQ(before.aliases, after.aliases);
		EXPECT_COUNTED(before, after, exporter, 0, link ? 0 : PAGES,
			       link ? PAGES : 0);
		if (!link)
			EXPECT_COUNTED(before, after, importer, PAGES, 0, 0);
	}
}

TEST_F(shape, links_parameter_can_be_read_and_set_again)
{
	char links[256], again[256];

	ASSERT_EQ(0, gpu_links_get(links, sizeof(links)));
	EXPECT_EQ(0, gpu_links_set(""));
	ASSERT_EQ(0, gpu_links_get(again, sizeof(again)));
	EXPECT_STREQ("", again);
	EXPECT_EQ(0, gpu_links_set(links));
	ASSERT_EQ(0, gpu_links_get(again, sizeof(again)));
	EXPECT_STREQ(links, again);

	/* The links that were read back have an effect */
	ASSERT_EQ(0, buffer_to_vram(&self->buf, self->gpus[1], 0, SIZE));
	EXPECT_EQ(variant->rows[0][1] == 'l' ? PAGES : 0,
		  pages_linked(self->gpus[0], &self->buf));
}

/* Three GPUs in a line, and a fourth without links. The memory is in the middle GPU. */

FIXTURE(link) {
	int gpus[NR_GPUS];
	struct buffer buf;
	struct tracks before;
};

FIXTURE_VARIANTS_BY_ADVICE(link);

#define LINE	"0-1,1-2"
#define MIDDLE	1

FIXTURE_SETUP(link)
{
	ASSERT_EQ(0, open_gpus(self->gpus));
	ASSERT_EQ(0, gpu_links_set(LINE));
	ASSERT_EQ(0, buffer_map(&self->buf, SIZE, variant->advice));
	buffer_write(&self->buf, 0, SIZE);
	ASSERT_EQ(0, buffer_to_vram(&self->buf, self->gpus[MIDDLE], 0, SIZE));
	ASSERT_EQ(variant->advice == MADV_HUGEPAGE ? PAGES : 0,
		  huge_pages_in_vram(self->gpus[MIDDLE], self->buf.mem, SIZE));
	self->before = tracks_read(self->gpus);
}

FIXTURE_TEARDOWN(link)
{
	EXPECT_EQ(-1, buffer_differs(&self->buf));
	buffer_unmap(&self->buf);
	EXPECT_EQ(0, gpu_links_set(links_before));
	close_gpus(self->gpus);
}

TEST_F(link, writes_of_both_gpus_over_link_are_visible)
{
	struct buffer *buf = &self->buf;
	struct tracks after;
	int i;

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, buffer_xor(buf, self->gpus[0], PAGE - 8, HUGE_PAGE));
		ASSERT_EQ(0, buffer_xor(buf, self->gpus[1], 8, SIZE - 8));
		ASSERT_EQ(0, buffer_xor(buf, self->gpus[2], HUGE_PAGE - 8, 16));
		EXPECT_EQ(-1, buffer_differs_on_gpu(buf, self->gpus[i]));
	}
	after = tracks_read(self->gpus);
	EXPECT_NOTHING_MOVED(self->before, after);
	EXPECT_EQ(self->before.aliases, after.aliases);
}

TEST_F(link, gpu_copies_over_link_without_migration)
{
	struct buffer *buf = &self->buf, other;
	struct tracks before, after;

	ASSERT_EQ(0, buffer_map(&other, SIZE, variant->advice));
	buffer_write(&other, 0, SIZE);
	ASSERT_EQ(0, buffer_to_vram(&other, self->gpus[0], 0, SIZE));

	/* By GPU 0, between its own memory and memory that it reaches over a link */
	before = tracks_read(self->gpus);
	ASSERT_EQ(0, gpu_copy(self->gpus[0], other.mem + 8,
			      buf->mem + PAGE - 8, HUGE_PAGE));
	memcpy(other.shadow + 8, buf->shadow + PAGE - 8, HUGE_PAGE);
	ASSERT_EQ(0, gpu_copy(self->gpus[0], buf->mem + HUGE_PAGE,
			      other.mem + PAGE, PAGE + 8));
	memcpy(buf->shadow + HUGE_PAGE, other.shadow + PAGE, PAGE + 8);
	after = tracks_read(self->gpus);
	EXPECT_NOTHING_MOVED(before, after);

	EXPECT_EQ(-1, buffer_differs(&other));
	buffer_unmap(&other);
}

/* Memory in three places at once, one of which is RAM. */
TEST_F(link, gpu_accesses_link_pci_and_ram_pages_of_one_range)
{
	struct buffer *buf = &self->buf;
	uint64_t pages;

	ASSERT_EQ(0, buffer_to_vram(buf, self->gpus[3], 0, MIB(1)));
	ASSERT_EQ(0, gpu_to_ram(self->gpus[1], buf->mem + MIB(1), MIB(1)));
	ASSERT_EQ(0, buffer_xor(buf, self->gpus[0], 0, SIZE));
	EXPECT_EQ(-1, buffer_differs_on_gpu(buf, self->gpus[2]));

	ASSERT_EQ(0, buffer_to_vram(buf, self->gpus[3], 0, MIB(1)));
	ASSERT_EQ(0, gpu_to_ram(self->gpus[1], buf->mem + MIB(1), MIB(1)));
	EXPECT_EQ(0, gpu_to_vram(self->gpus[0], buf->mem, SIZE, &pages));
	EXPECT_EQ(PAGES, pages);
	EXPECT_EQ(-1, buffer_differs_on_gpu(buf, self->gpus[0]));
}

/* A child shares our pages until one of us writes. */

TEST_F(link, cow_when_gpu_writes)
{
	struct buffer *buf = &self->buf;
	struct child child;

	/* The GPU has mapped the memory, for writing */
	ASSERT_EQ(0, buffer_xor(buf, self->gpus[0], 0, SIZE));
	ASSERT_EQ(0, child_fork(&child, buffer_compare, buf));
	ASSERT_EQ(0, buffer_xor(buf, self->gpus[0], PAGE, HUGE_PAGE));
	EXPECT_EQ(-1, buffer_differs_on_gpu(buf, self->gpus[2]));
	EXPECT_EQ(0, child_do(&child));
	EXPECT_EQ(-1, buffer_differs_on_gpu(buf, self->gpus[0]));
	EXPECT_EQ(0, child_end(&child));
}

TEST_F(link, cow_when_gpu_first_reads_and_writes)
{
	struct buffer *buf = &self->buf;
	struct child child;

	ASSERT_EQ(0, child_fork(&child, buffer_compare, buf));
	EXPECT_EQ(-1, buffer_differs_on_gpu(buf, self->gpus[0]));
	ASSERT_EQ(0, buffer_xor(buf, self->gpus[0], PAGE, HUGE_PAGE));
	EXPECT_EQ(0, child_do(&child));
	EXPECT_EQ(0, child_end(&child));
}

TEST_F(link, gpu_write_over_link_to_read_only_page_is_rejected)
{
	struct buffer *buf = &self->buf;
	struct tracks after;

	ASSERT_EQ(0, mprotect(buf->mem, SIZE, PROT_READ));
	EXPECT_EQ(-EACCES, gpu_xor(self->gpus[0], buf->mem, SIZE, 1));
	EXPECT_EQ(-1, buffer_differs_on_gpu(buf, self->gpus[0]));
	EXPECT_EQ(-EACCES, gpu_fill(self->gpus[0], buf->mem + PAGE, 8, 1));
	after = tracks_read(self->gpus);
	EXPECT_NOTHING_MOVED(self->before, after);
	EXPECT_EQ(PAGES, pages_linked(self->gpus[0], buf));
}

/* Links that go down: memory mapped over them is not used any more. */

/* Are all pages looked up again? */
#define EXPECT_LOOKED_UP(_before, _after) do {				\
	if (reachable()) {						\
		EXPECT_LE((_before).aliases + PAGES, (_after).aliases);	\
		EXPECT_NOTHING_MOVED(_before, _after);			\
	} else {							\
		EXPECT_COUNTED(_before, _after, MIDDLE, 0, PAGES, 0);	\
	}								\
} while (0)

TEST_F(link, link_down_invalidates_mappings_over_link)
{
	struct buffer *buf = &self->buf;
	struct tracks before, after;

	EXPECT_EQ(-1, buffer_differs_on_gpu(buf, self->gpus[0]));
	before = tracks_read(self->gpus);
	EXPECT_EQ(self->before.aliases, before.aliases);
	ASSERT_EQ(0, gpu_links_set("1-2"));
	ASSERT_EQ(0, buffer_xor(buf, self->gpus[0], 0, SIZE));
	after = tracks_read(self->gpus);
	EXPECT_LOOKED_UP(before, after);
}

TEST_F(link, link_down_keeps_mappings_over_other_links)
{
	struct buffer *buf = &self->buf;
	struct tracks after;

	EXPECT_EQ(-1, buffer_differs_on_gpu(buf, self->gpus[0]));
	EXPECT_EQ(-1, buffer_differs_on_gpu(buf, self->gpus[2]));
	ASSERT_EQ(0, gpu_links_set("1-2"));
	ASSERT_EQ(0, buffer_xor(buf, self->gpus[2], 0, SIZE));
	after = tracks_read(self->gpus);
	EXPECT_EQ(self->before.aliases, after.aliases);
	EXPECT_NOTHING_MOVED(self->before, after);
	EXPECT_EQ(PAGES, pages_linked(self->gpus[2], buf));
	EXPECT_EQ(0, pages_linked(self->gpus[0], buf));
}

/* Only the memory behind the link is looked up again, and no other of the process. */
TEST_F(link, link_down_keeps_mappings_of_other_gpus)
{
	struct tracks before, after;
	struct buffer far;

	ASSERT_EQ(0, buffer_map(&far, SIZE, variant->advice));
	buffer_write(&far, 0, SIZE);
	ASSERT_EQ(0, buffer_to_vram(&far, self->gpus[3], 0, SIZE));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&far, self->gpus[0]));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->buf, self->gpus[0]));
	before = tracks_read(self->gpus);
	ASSERT_EQ(0, gpu_links_set("1-2"));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&far, self->gpus[0]));
	after = tracks_read(self->gpus);
	EXPECT_EQ(before.aliases, after.aliases);
	EXPECT_NOTHING_MOVED(before, after);
	buffer_unmap(&far);
}

/* Only the other direction of the link is left, which GPU 0 cannot use. */
TEST_F(link, one_way_link_down_invalidates_that_direction)
{
	struct buffer *buf = &self->buf;
	struct tracks before, after;

	EXPECT_EQ(-1, buffer_differs_on_gpu(buf, self->gpus[0]));
	before = tracks_read(self->gpus);
	ASSERT_EQ(0, gpu_links_set("1>0,1-2"));
	ASSERT_EQ(0, buffer_xor(buf, self->gpus[0], 0, SIZE));
	after = tracks_read(self->gpus);
	EXPECT_LOOKED_UP(before, after);
}

static struct {
	int gpus[NR_GPUS];
	struct buffer buf;
} other;

static int use_memory_of_ones_own(void *arg)
{
	const int *advice = arg;
	int err = open_gpus(other.gpus);

	if (!err)
		err = buffer_map(&other.buf, SIZE, *advice);
	if (err)
		return err;
	buffer_write(&other.buf, 0, SIZE);
	err = buffer_to_vram(&other.buf, other.gpus[MIDDLE], 0, SIZE);
	return err ? err : buffer_xor(&other.buf, other.gpus[0], 0, SIZE);
}

/* In the child: another process takes the link down, and the GPU uses memory again. */
static int lose_the_link(void *arg)
{
	struct tracks before, after;
	int err = use_memory_of_ones_own(arg);

	if (err)
		return err;
	err = system("echo 2-3 >/sys/module/vsvm/parameters/links");
	if (err)
		return -EIO;
	before = tracks_read(other.gpus);
	err = buffer_xor(&other.buf, other.gpus[0], 0, SIZE);
	after = tracks_read(other.gpus);
	if (err)
		return err;
	if (reachable() ? after.aliases < before.aliases + PAGES :
			  after.gpu[MIDDLE].pages_to_ram <
			  before.gpu[MIDDLE].pages_to_ram + PAGES)
		return 1;
	return buffer_differs(&other.buf) != -1;
}

TEST_F(link, link_down_invalidates_mappings_of_all_processes)
{
	struct buffer *buf = &self->buf;
	struct tracks before, after;
	struct child child;
	int advice = variant->advice;

	ASSERT_EQ(0, child_fork(&child, lose_the_link, &advice));
	ASSERT_EQ(0, buffer_to_vram(buf, self->gpus[MIDDLE], 0, SIZE));
	EXPECT_EQ(-1, buffer_differs_on_gpu(buf, self->gpus[0]));
	EXPECT_EQ(0, child_do(&child));
	EXPECT_EQ(0, child_end(&child));

	before = tracks_read(self->gpus);
	ASSERT_EQ(0, buffer_xor(buf, self->gpus[0], 0, SIZE));
	after = tracks_read(self->gpus);
	EXPECT_LOOKED_UP(before, after);
}

/* Existing mappings over PCI are still valid, and stay. */
TEST_F(link, link_up_is_used_by_next_mapping)
{
	struct buffer *buf = &self->buf;
	struct tracks before, after;

	ASSERT_EQ(0, gpu_links_set(""));
	EXPECT_EQ(0, pages_linked(self->gpus[0], buf));
	ASSERT_EQ(0, gpu_links_set(LINE));
	EXPECT_EQ(PAGES, pages_linked(self->gpus[0], buf));
	before = tracks_read(self->gpus);
	ASSERT_EQ(0, buffer_xor(buf, self->gpus[0], 0, SIZE));
	after = tracks_read(self->gpus);
	EXPECT_EQ(before.aliases, after.aliases);
	EXPECT_NOTHING_MOVED(before, after);
}

struct flaps {
	pthread_t thread;
	const int *gpus;
	struct buffer *buf;
	volatile bool stop;
	volatile unsigned long count;
	volatile int err;
};

static void *flap(void *arg)
{
	static const char * const states[] = {
		"0-1,1-2", "", "0>1", "1>0,1-2", "0-1,1-2", "2-3", "1>2", "0-3",
	};
	struct flaps *f = arg;

	while (!f->stop && !f->err) {
		f->err = gpu_links_set(states[f->count % ARRAY_LEN(states)]);
		f->count++;
	}
	return NULL;
}

static void *move_about(void *arg)
{
	struct flaps *f = arg;

	while (!f->stop && !f->err) {
		f->err = gpu_to_vram(f->gpus[f->count % 3], f->buf->mem, SIZE,
				     NULL);
		f->count++;
	}
	return NULL;
}

/* Sum all words in one operation, as others use the memory. Places are checked later. */
static int sum_is_wrong(int gpu, const struct buffer *buf)
{
	const uint64_t *words = (uint64_t *)buf->shadow;
	uint64_t sum, want = 0;
	size_t i;
	int err;

	err = gpu_sum(gpu, buf->mem, buf->size, &sum);
	for (i = 0; i < buf->size / sizeof(*words); i++)
		want += words[i];
	return err ? err : sum == want ? 0 : -EILSEQ;
}

#define MIN_ROUNDS	3
#define MIN_FLAPS	200

static int run_under_flaps(const int *gpus, struct buffer *buf, bool moves)
{
	struct flaps flaps = { }, mover = { .gpus = gpus, .buf = buf };
	time_t start = time(NULL);
	int i, err = 0;

	if (pthread_create(&flaps.thread, NULL, flap, &flaps))
		return -ENOMEM;
	if (moves && pthread_create(&mover.thread, NULL, move_about, &mover))
		return -ENOMEM;
	/* A slow kernel may not have done enough rounds in 10 s */
	for (i = 0; !err && (i < 100 || flaps.count < MIN_FLAPS) &&
	     time(NULL) - start < (i < MIN_ROUNDS || flaps.count < MIN_FLAPS ? 100 : 10);
	     i++) {
		err = buffer_xor(buf, gpus[i % 3], 8 * (i % 3), SIZE - 16);
		if (!err)
			err = sum_is_wrong(gpus[(i + 1) % 3], buf);
		/* The memory may have migrated to the GPU that used it */
		if (!err && !moves)
			err = gpu_to_vram(gpus[MIDDLE], buf->mem, SIZE, NULL);
	}
	flaps.stop = mover.stop = true;
	pthread_join(flaps.thread, NULL);
	if (moves)
		pthread_join(mover.thread, NULL);
	printf("# %d rounds, links changed %lu times, memory moved %lu times\n",
	       i, flaps.count, mover.count);
	if (!err && (i < MIN_ROUNDS || flaps.count < MIN_FLAPS))
		err = -ETIMEDOUT;
	return err ? err : flaps.err ? flaps.err : mover.err;
}

TEST_F(link, link_flaps_under_load_keep_data)
{
	EXPECT_EQ(0, run_under_flaps(self->gpus, &self->buf, false));
}

TEST_F(link, link_flaps_during_migration_keep_data)
{
	EXPECT_EQ(0, run_under_flaps(self->gpus, &self->buf, true));
}

/* The GPU at the other end is unbound, and bound again. */

struct reader {
	pthread_t thread;
	int gpu;
	const struct buffer *buf;
	volatile bool stop;
	volatile unsigned long rounds;
	volatile int err;
};

static void *reader_main(void *arg)
{
	struct reader *r = arg;

	while (!r->stop && !r->err) {
		if (buffer_differs_on_gpu(r->buf, r->gpu) != -1)
			r->err = -EILSEQ;
		r->rounds++;
	}
	return NULL;
}

TEST_F(link, unbind_of_the_far_gpu_keeps_data)
{
	struct buffer *buf = &self->buf;
	struct reader readers[] = {
		{ .gpu = self->gpus[0], .buf = buf },
		{ .gpu = self->gpus[2], .buf = buf },
	};
	struct tracks before, after;
	char pci[64], links[256];
	unsigned int i, round;

	ASSERT_EQ(0, gpu_pci_address(self->gpus[MIDDLE], pci, sizeof(pci)));
	for (round = 0; round < 2; round++) {
		for (i = 0; i < ARRAY_LEN(readers); i++) {
			readers[i].stop = false;
			readers[i].rounds = 0;
			ASSERT_EQ(0, pthread_create(&readers[i].thread, NULL, reader_main,
						    &readers[i]));
			while (!readers[i].rounds && !readers[i].err)
				usleep(1000);
		}
		EXPECT_EQ(0, file_write(DRIVER "unbind", pci));
		for (i = 0; i < ARRAY_LEN(readers); i++) {
			unsigned long rounds = readers[i].rounds;

			while (readers[i].rounds < rounds + 2 && !readers[i].err)
				usleep(1000);
			readers[i].stop = true;
			pthread_join(readers[i].thread, NULL);
			EXPECT_EQ(0, readers[i].err);
		}
		EXPECT_EQ(0, gpu_links_get(links, sizeof(links)));
		EXPECT_STREQ(LINE, links);
		EXPECT_EQ(-1, buffer_differs(buf));

		/* The links come back with the GPU. */
		ASSERT_EQ(0, file_write(DRIVER "bind", pci));
		close(self->gpus[MIDDLE]);
		self->gpus[MIDDLE] = gpu_open(MIDDLE);
		ASSERT_LE(0, self->gpus[MIDDLE]);
		ASSERT_EQ(0, buffer_to_vram(buf, self->gpus[MIDDLE], 0, SIZE));
		EXPECT_EQ(PAGES, pages_linked(self->gpus[0], buf));
		EXPECT_EQ(PAGES, pages_linked(self->gpus[2], buf));
		EXPECT_EQ(0, pages_linked(self->gpus[3], buf));

		before = tracks_read(self->gpus);
		ASSERT_EQ(0, buffer_xor(buf, self->gpus[0], 0, SIZE));
		ASSERT_EQ(0, buffer_xor(buf, self->gpus[2], 0, SIZE));
		after = tracks_read(self->gpus);
		EXPECT_NOTHING_MOVED(before, after);
		EXPECT_EQ(before.aliases, after.aliases);
	}
}

/* The GPU that goes has mapped memory of the other one, not the other way round. */
TEST_F(link, unbind_of_importing_gpu_keeps_pages_of_peer)
{
	struct buffer *buf = &self->buf;
	char pci[64];

	ASSERT_EQ(0, buffer_to_vram(buf, self->gpus[2], 0, SIZE));
	EXPECT_EQ(-1, buffer_differs_on_gpu(buf, self->gpus[MIDDLE]));
	ASSERT_EQ(0, gpu_pci_address(self->gpus[MIDDLE], pci, sizeof(pci)));
	EXPECT_EQ(0, file_write(DRIVER "unbind", pci));
	EXPECT_EQ(-ENODEV, gpu_xor(self->gpus[MIDDLE], buf->mem, SIZE, 1));
	EXPECT_EQ(PAGES, pages_in_vram(self->gpus[2], buf->mem, SIZE));
	EXPECT_EQ(0, gpu_links_set(""));
	EXPECT_EQ(0, gpu_links_set(LINE));
	ASSERT_EQ(0, file_write(DRIVER "bind", pci));
	close(self->gpus[MIDDLE]);
	self->gpus[MIDDLE] = gpu_open(MIDDLE);
	EXPECT_EQ(PAGES, pages_linked(self->gpus[MIDDLE], buf));
}

/* The parameter */

FIXTURE(parameter) {
	int gpus[NR_GPUS];
};

FIXTURE_SETUP(parameter)
{
	ASSERT_EQ(0, open_gpus(self->gpus));
	ASSERT_EQ(0, gpu_links_set("0-1"));
}

FIXTURE_TEARDOWN(parameter)
{
	EXPECT_EQ(0, gpu_links_set(links_before));
	close_gpus(self->gpus);
}

TEST_F(parameter, links_parameter_rejects_invalid_text)
{
	static const char * const bad[] = {
		"0", "0-", "-1", "0-0", "0-8", "8>0", "0+1", "0=1", "0-1,",
		",0-1", "0-1,,1-2", "0-1;1-2", "0-1 1-2", "0-1x", "a-b", "2-3,x",
		"0>1>2", "0--1", "0x0-1", "4294967296-1", "2>3,0-99", "none",
	};
	struct buffer buf;
	char links[256];
	size_t i;

	ASSERT_EQ(0, buffer_map(&buf, HUGE_PAGE, MADV_HUGEPAGE));
	buffer_write(&buf, 0, HUGE_PAGE);
	ASSERT_EQ(0, buffer_to_vram(&buf, self->gpus[1], 0, HUGE_PAGE));
	for (i = 0; i < ARRAY_LEN(bad); i++) {
		EXPECT_EQ(-EINVAL, gpu_links_set(bad[i]))
			TH_LOG("'%s'", bad[i]);
		ASSERT_EQ(0, gpu_links_get(links, sizeof(links)));
		EXPECT_STREQ("0-1", links);
		EXPECT_EQ(HUGE_PAGE_NR, pages_linked(self->gpus[0], &buf));
	}
	buffer_unmap(&buf);
}

TEST_F(parameter, links_parameter_reads_back_in_canonical_form)
{
	static const char * const pairs[][2] = {
		{ "", "" },
		{ "0-1", "0-1" },
		{ "1-0", "0-1" },
		{ "0>1", "0>1" },
		{ "1>0", "1>0" },
		{ "1>0,0>1", "0-1" },
		{ "0-1,1>0", "0-1" },
		{ "1>2,0-1", "0-1,1>2" },
		{ "3>0,2>3,1>2,0>1", "0>1,1>2,2>3,3>0" },
		{ "6-7,0-7", "0-7,6-7" },
		{ " 0-1 ", "0-1" },
	};
	char links[256];
	size_t i;

	for (i = 0; i < ARRAY_LEN(pairs); i++) {
		EXPECT_EQ(0, gpu_links_set(pairs[i][0]))
			TH_LOG("'%s'", pairs[i][0]);
		ASSERT_EQ(0, gpu_links_get(links, sizeof(links)));
		EXPECT_STREQ(pairs[i][1], links);
	}
}

/*
 * A process that holds its mmap lock: it faults on a page of a file in a FUSE file
 * system, whose daemon fails the first read of the page and does not answer the second
 * one. The fault holds the lock for reading while it waits for the second read, and
 * another thread waits to take the lock for writing.
 */
struct keeper {
	int reads;
	pid_t writer;
	const char *path;
};

static void fuse_reply(int fuse, const struct fuse_in_header *in, int error,
		       const void *data, size_t size)
{
	struct fuse_out_header out = {
		.len = sizeof(out) + size, .error = error, .unique = in->unique,
	};
	struct iovec iov[] = { { &out, sizeof(out) }, { (void *)data, size } };

	if (writev(fuse, iov, size ? 2 : 1) < 0)
		perror("fuse");
}

static void fuse_serve(int fuse, struct keeper *keeper)
{
	struct fuse_init_out init = {
		.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION,
		.max_write = PAGE,
	};
	struct fuse_entry_out entry = {
		.nodeid = 2,
		.attr = { .ino = 2, .mode = S_IFREG | 0400, .nlink = 1, .size = PAGE },
	};
	struct fuse_attr_out attr = { .attr = entry.attr };
	struct fuse_open_out open = { };
	union {
		struct fuse_in_header in;
		char buf[4 * FUSE_MIN_READ_BUFFER];
	} request;

	while (read(fuse, &request, sizeof(request)) > 0) {
		switch (request.in.opcode) {
		case FUSE_INIT:
			fuse_reply(fuse, &request.in, 0, &init, sizeof(init));
			break;
		case FUSE_LOOKUP:
			fuse_reply(fuse, &request.in, 0, &entry, sizeof(entry));
			break;
		case FUSE_GETATTR:
			attr.attr.ino = request.in.nodeid;
			attr.attr.mode = request.in.nodeid == FUSE_ROOT_ID ?
					 S_IFDIR | 0500 : S_IFREG | 0400;
			fuse_reply(fuse, &request.in, 0, &attr, sizeof(attr));
			break;
		case FUSE_OPEN:
			fuse_reply(fuse, &request.in, 0, &open, sizeof(open));
			break;
		case FUSE_READ:
			if (!__atomic_fetch_add(&keeper->reads, 1, __ATOMIC_SEQ_CST))
				fuse_reply(fuse, &request.in, -EIO, NULL, 0);
			break;
		case FUSE_FORGET:
		case FUSE_BATCH_FORGET:
		case FUSE_INTERRUPT:
			break;
		default:
			fuse_reply(fuse, &request.in, -ENOSYS, NULL, 0);
		}
	}
}

static void *keeper_read(void *arg)
{
	struct keeper *keeper = arg;
	int fd = open(keeper->path, O_RDONLY);
	volatile char *page = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);

	if (page != MAP_FAILED)
		(void)*page;
	_exit(1);
}

static void *keeper_write(void *arg)
{
	struct keeper *keeper = arg;

	__atomic_store_n(&keeper->writer, gettid(), __ATOMIC_SEQ_CST);
	mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	_exit(1);
}

/* It also has memory that GPU 0 uses over the link. */
static void keep(struct keeper *keeper)
{
	int from = gpu_open(0), to = gpu_open(1);
	struct buffer buf;
	pthread_t thread;

	if (buffer_map(&buf, PAGE, MADV_NOHUGEPAGE))
		_exit(1);
	buffer_write(&buf, 0, PAGE);
	if (buffer_to_vram(&buf, to, 0, PAGE) || buffer_differs_on_gpu(&buf, from) != -1 ||
	    pages_linked(from, &buf) != 1 ||
	    pthread_create(&thread, NULL, keeper_read, keeper))
		_exit(1);
	while (__atomic_load_n(&keeper->reads, __ATOMIC_SEQ_CST) < 2)
		usleep(1000);
	keeper_write(keeper);
}

static char task_state(pid_t pid, pid_t tid)
{
	char path[64], stat[512], *state;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
	file = fopen(path, "r");
	if (!file)
		return 0;
	state = fgets(stat, sizeof(stat), file) ? strrchr(stat, ')') : NULL;
	fclose(file);
	return state ? state[2] : 0;
}

TEST(link_down_does_not_wait_for_mmap_lock)
{
	char dir[] = "/tmp/link-XXXXXX", path[64], options[128];
	struct keeper *keeper;
	pid_t server, pid;
	int fuse;

	keeper = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	ASSERT_NE(MAP_FAILED, keeper);
	ASSERT_NE(NULL, mkdtemp(dir));
	fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fuse);
	snprintf(options, sizeof(options),
		 "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
	ASSERT_EQ(0, mount("link", dir, "fuse", 0, options));
	snprintf(path, sizeof(path), "%s/file", dir);
	keeper->path = path;
	EXPECT_EQ(0, gpu_links_set("0-1"));

	server = fork();
	if (!server) {
		fuse_serve(fuse, keeper);
		_exit(0);
	}
	close(fuse);
	pid = fork();
	if (!pid)
		keep(keeper);
	while (!__atomic_load_n(&keeper->writer, __ATOMIC_SEQ_CST) ||
	       task_state(pid, keeper->writer) != 'D') {
		ASSERT_EQ(0, waitpid(pid, NULL, WNOHANG));
		usleep(1000);
	}

	EXPECT_EQ(0, gpu_links_set(""));
	EXPECT_EQ('D', task_state(pid, keeper->writer));

	kill(pid, SIGKILL);
	kill(server, SIGKILL);
	EXPECT_EQ(pid, waitpid(pid, NULL, 0));
	EXPECT_EQ(server, waitpid(server, NULL, 0));
	EXPECT_EQ(0, umount2(dir, MNT_DETACH));
	rmdir(dir);
	munmap(keeper, PAGE);
	EXPECT_EQ(0, gpu_links_set(links_before));
}

int main(int argc, char **argv)
{
	int ret;

	gpu_links_get(links_before, sizeof(links_before));
	ret = test_harness_run(argc, argv);
	gpu_links_set(links_before);
	return ret;
}
