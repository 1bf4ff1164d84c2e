// SPDX-License-Identifier: GPL-2.0
/*
 * Failures in the middle of a call: of each allocation, one after the other, of each
 * copy from or to user space, and of callbacks of the exporter. The call returns
 * an error and harms no memory; then the same call works. kmemleak finds what leaks:
 * tests/run asks it at the end.
 *
 * /proc/thread-self/fail-nth makes the N-th of them fail in calls of this thread. It
 * does not affect work that the kernel does elsewhere for a call, such as that of
 * soft-RoCE. It is not used while drivers probe: ACPI, interrupts and memory hotplug
 * do not survive failures there.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gpu.h"
#include "lib/child.h"
#include "lib/disk.h"
#include "lib/edu.h"
#include "lib/file.h"
#include "lib/harness.h"
#include "lib/page.h"
#include "lib/pci.h"
#include "lib/rig.h"
#include "lib/route.h"
#include "lib/stats.h"
#include "lib/vram.h"
#include "lib/vsvm.h"

#define PAGES	3
#define SIZE	(PAGES * PAGE)
#define FILL	0x0f1e2d3c4b5a6978ULL

#define DEBUGFS		"/sys/kernel/debug/"
#define VSVM		"/sys/bus/pci/drivers/vsvm/"
#define FAIL_NTH	"/proc/thread-self/fail-nth"
#define FAIL_FUNCTION	DEBUGFS "fail_function/"

/* More than the number of operations of a call that can fail. */
#define MAX_NTH		5000

static int knob(const char *path, const char *name, const char *value)
{
	char file[PATH_MAX];

	snprintf(file, sizeof(file), "%s%s", path, name);
	return file_write(file, value);
}

/* Let all kinds of allocations fail, also those that may sleep, and log nothing. */
static int knobs_init(void)
{
	int err;

	err = knob(DEBUGFS, "failslab/ignore-gfp-wait", "N");
	err = knob(DEBUGFS, "failslab/verbose", "0") ?: err;
	err = knob(DEBUGFS, "fail_page_alloc/ignore-gfp-wait", "N") ?: err;
	err = knob(DEBUGFS, "fail_page_alloc/ignore-gfp-highmem", "N") ?: err;
	err = knob(DEBUGFS, "fail_page_alloc/min-order", "0") ?: err;
	err = knob(DEBUGFS, "fail_page_alloc/verbose", "0") ?: err;
	return knob(DEBUGFS, "fail_usercopy/verbose", "0") ?: err;
}

struct fault {
	int nth;
	struct rig rig;
	uint8_t *next;		/* the content of @rig.buf after the call */
	char node[64];		/* the GPU's */
	char idle_node[64];	/* that of a GPU that no process has open */
	char idle_pci[PCI_ADDR_LEN];
	int edu;
	int blk;
	int disk;
};

/*
 * Make the N-th operation that can fail do so. The read in nth_end() can fail, too: if
 * it does, no operation of the call has failed.
 */
static int nth_begin(struct fault *f, unsigned int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", n);

	return pwrite(f->nth, text, len, 0) == len ? 0 : -errno;
}

/* Has it failed? */
static bool nth_end(struct fault *f)
{
	char text[16] = "";
	ssize_t len = pread(f->nth, text, sizeof(text) - 1, 0);

	while (pwrite(f->nth, "0", 1, 0) != 1)
		;
	return len > 0 && !atoi(text);
}

static int node_of(int fd, char *node, size_t size)
{
	char link[64];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return readlink(link, node, size - 1) < 0 ? -errno : 0;
}

static int fault_init(struct fault *f)
{
	struct rig *rig = &f->rig;
	int err, idle;

	memset(f, 0, sizeof(*f));
	err = knobs_init();
	if (!err)
		err = vsvm_load("p2p_pages=1");
	if (!err)
		err = rig_init(rig, SIZE, MADV_NOHUGEPAGE);
	if (err)
		return err;
	idle = gpu_open(1);
	if (idle < 0)
		return idle;
	err = node_of(rig->gpu, f->node, sizeof(f->node)) ?:
	      node_of(idle, f->idle_node, sizeof(f->idle_node)) ?:
	      gpu_pci_address(idle, f->idle_pci, sizeof(f->idle_pci));
	close(idle);
	if (err)
		return err;
	f->nth = open(FAIL_NTH, O_RDWR | O_CLOEXEC);
	f->next = malloc(SIZE);
	f->edu = edu_open();
	f->blk = open("/dev/hmm_blk", O_RDWR | O_CLOEXEC);
	f->disk = open("/dev/nvme0n1", O_RDWR | O_DIRECT | O_CLOEXEC);
	return f->nth < 0 || !f->next || f->edu < 0 || f->blk < 0 || f->disk < 0 ?
	       -ENODEV : 0;
}

static uint64_t fault_fini(struct fault *f)
{
	close(f->nth);
	close(f->edu);
	close(f->blk);
	close(f->disk);
	free(f->next);
	return rig_fini(&f->rig);
}

/* The place of memory before a call, and its content after the call. */

static int in_ram(struct fault *f)
{
	buffer_write(&f->rig.buf, 0, SIZE);
	memcpy(f->next, f->rig.buf.shadow, SIZE);
	return 0;
}

static int in_vram(struct fault *f)
{
	int err = in_ram(f);

	if (!err)
		err = buffer_to_vram(&f->rig.buf, f->rig.gpu, 0, SIZE);
	memcpy(f->next, f->rig.buf.shadow, SIZE);
	return err;
}

static int in_vram_filled(struct fault *f)
{
	uint64_t *next = (uint64_t *)f->next;
	int err = in_vram(f);
	size_t i;

	for (i = 0; i < SIZE / sizeof(*next); i++)
		next[i] = FILL;
	return err;
}

static int in_vram_copied(struct fault *f)
{
	int err = in_vram(f);

	buffer_write(&f->rig.ram, 0, SIZE);
	memcpy(f->next, f->rig.ram.shadow, SIZE);
	return err;
}

static int in_vram_a_page_copied(struct fault *f)
{
	int err = in_vram_copied(f);

	memcpy(f->next + PAGE, f->rig.buf.shadow + PAGE, SIZE - PAGE);
	return err;
}

static int in_vram_and_on_disk(struct fault *f)
{
	int err = in_vram_copied(f);

	if (!err)
		err = pwrite(f->disk, f->rig.ram.mem, SIZE, 0) == SIZE ? 0 : -EIO;
	return err;
}

static int in_vram_registered(struct fault *f)
{
	int err = in_vram(f);

	return err ? err : rig_register(&f->rig);
}

/* A GPU that has had links keeps memory for others: only a new GPU has to allocate it. */
static int in_vram_beside_a_new_gpu(struct fault *f)
{
	return in_vram(f) ?: gpu_links_set("") ?:
	       file_write(VSVM "unbind", f->idle_pci) ?:
	       file_write(VSVM "bind", f->idle_pci);
}

/* Each page must have its old content or its new content, as a whole. */
static bool harmed(struct fault *f)
{
	struct buffer *buf = &f->rig.buf;
	size_t at;

	for (at = 0; at < SIZE; at += PAGE)
		if (differs(buf->mem + at, buf->shadow + at, PAGE) != -1 &&
		    differs(buf->mem + at, f->next + at, PAGE) != -1)
			return true;
	return false;
}

/* The calls. They check their results themselves. */

static int opens(const char *node)
{
	int gpu = open(node, O_RDWR | O_CLOEXEC);

	if (gpu < 0)
		return -errno;
	close(gpu);
	return 0;
}

static int opens_gpu(struct fault *f)
{
	return opens(f->node);
}

static int opens_idle_gpu(struct fault *f)
{
	return opens(f->idle_node);
}

static int sets_links(struct fault *f)
{
	(void)f;
	return gpu_links_set("") ?: gpu_links_set("0-1");
}

static int asks_gpu(struct fault *f)
{
	struct drm_vsvm_counters counters;
	struct drm_vsvm_residency where;
	struct drm_vsvm_info info;
	int err;

	err = gpu_info(f->rig.gpu, &info);
	if (!err)
		err = gpu_counters(f->rig.gpu, &counters);
	if (!err)
		err = gpu_residency(f->rig.gpu, f->rig.buf.mem, SIZE, &where);
	return err || where.vram + where.ram == PAGES ? err : -EILSEQ;
}

/* Pages that stay behind are not an error. */
static int moves_to_vram(struct fault *f)
{
	return gpu_to_vram(f->rig.gpu, f->rig.buf.mem, SIZE, NULL);
}

static int moves_to_ram(struct fault *f)
{
	return gpu_to_ram(f->rig.gpu, f->rig.buf.mem, SIZE);
}

static int fills(struct fault *f)
{
	return gpu_fill(f->rig.gpu, f->rig.buf.mem, SIZE, FILL);
}

static int copies_on_gpu(struct fault *f)
{
	return gpu_copy(f->rig.gpu, f->rig.buf.mem, f->rig.ram.mem, SIZE);
}

static int sums(struct fault *f)
{
	const uint64_t *words = (uint64_t *)f->rig.buf.shadow;
	uint64_t sum, want = 0;
	size_t i;
	int err;

	err = gpu_sum(f->rig.gpu, f->rig.buf.mem, SIZE, &sum);
	for (i = 0; i < SIZE / sizeof(*words); i++)
		want += words[i];
	return err || sum == want ? err : -EILSEQ;
}

static int copies_by_edu(struct fault *f)
{
	return edu_copy(f->edu, f->rig.buf.mem, f->rig.ram.mem, PAGE);
}

static int reads_disk(struct fault *f)
{
	return disk_transfer(f->blk, f->disk, f->rig.buf.mem, 0, SIZE, false);
}

static int writes_disk(struct fault *f)
{
	return disk_transfer(f->blk, f->disk, f->rig.buf.mem, 0, SIZE, true);
}

static int registers(struct fault *f)
{
	struct rdma *far = &f->rig.conn.far;
	struct ibv_mr *mr;

	errno = 0;
	mr = rdma_reg_odp(far, f->rig.buf.mem, SIZE);
	if (!mr)
		return errno ? -errno : -EILSEQ;
	return -ibv_dereg_mr(mr);
}

static int prefetches(struct fault *f)
{
	return rdma_prefetch(&f->rig.conn.far, f->rig.mr, f->rig.buf.mem,
			     SIZE, 1);
}

/* Read back from the disk, to check what has been written. */
static int disk_holds(struct fault *f)
{
	struct buffer *ram = &f->rig.ram;

	if (pread(f->disk, ram->mem, SIZE, 0) != SIZE)
		return -EIO;
	return differs(ram->mem, f->next, SIZE) == -1 ? 0 : -EILSEQ;
}

/* Does a GPU reach memory over a link that is on another one? Moves it there. */
static bool is_linked(int from, int to, struct buffer *buf)
{
	struct drm_vsvm_residency where;

	return !buffer_to_vram(buf, to, 0, SIZE) &&
	       !gpu_residency(from, buf->mem, SIZE, &where) && where.linked == PAGES;
}

static int links_are_up(struct fault *f)
{
	int gpu = f->rig.gpu, idle = gpu_open_at(f->idle_pci);
	bool up = is_linked(gpu, idle, &f->rig.ram) && is_linked(idle, gpu, &f->rig.ram);

	close(idle);
	return up ? 0 : -EILSEQ;
}

static int is_in_ram(struct fault *f)
{
	return page_is_present(f->rig.buf.mem) ? 0 : -EILSEQ;
}

FIXTURE(nth) {
	struct fault f;
};

FIXTURE_VARIANT(nth) {
	int (*prepare)(struct fault *f);
	int (*call)(struct fault *f);
	int (*after)(struct fault *f);
	int errnos[4];
};

#define CALL(_name, _call, _prepare, ...)				\
FIXTURE_VARIANT_ADD(nth, _name) {					\
	.prepare = _prepare,						\
	.call = _call,							\
	__VA_ARGS__							\
}

CALL(gpu_open, opens_gpu, in_ram, .errnos = { ENOMEM, EFAULT });
CALL(gpu_open_idle, opens_idle_gpu, in_ram, .errnos = { ENOMEM, EFAULT });
CALL(gpu_links, sets_links, in_vram_beside_a_new_gpu, .errnos = { ENOMEM, EFAULT },
     .after = links_are_up);
CALL(gpu_info, asks_gpu, in_vram, .errnos = { ENOMEM, EFAULT });
CALL(gpu_to_vram, moves_to_vram, in_ram, .errnos = { ENOMEM, EFAULT });
CALL(gpu_to_ram, moves_to_ram, in_vram, .errnos = { ENOMEM, EFAULT },
     .after = is_in_ram);
CALL(gpu_fill, fills, in_vram_filled, .errnos = { ENOMEM, EFAULT });
CALL(gpu_copy, copies_on_gpu, in_vram_copied, .errnos = { ENOMEM, EFAULT });
CALL(gpu_sum, sums, in_vram, .errnos = { ENOMEM, EFAULT });
CALL(edu_copy, copies_by_edu, in_vram_a_page_copied, .errnos = { ENOMEM, EFAULT });
CALL(disk_read, reads_disk, in_vram_and_on_disk, .errnos = { ENOMEM, EFAULT, ENODATA });
CALL(disk_write, writes_disk, in_vram, .errnos = { ENOMEM, EFAULT, ENODATA },
     .after = disk_holds);
CALL(mr, registers, in_vram, .errnos = { ENOMEM, EFAULT });
CALL(mr_prefetch, prefetches, in_vram_registered, .errnos = { ENOMEM, EFAULT });

FIXTURE_SETUP(nth)
{
	ASSERT_EQ(0, fault_init(&self->f));
}

FIXTURE_TEARDOWN(nth)
{
	gpu_links_set("");
	EXPECT_EQ(0, fault_fini(&self->f));
}

static bool is_expected(const int *errnos, int err)
{
	int i;

	for (i = 0; i < 4; i++)
		if (errnos[i] && err == -errnos[i])
			return true;
	return !err;
}

TEST_F(nth, each_injected_failure_is_returned_and_keeps_data)
{
	struct fault *f = &self->f;
	unsigned int n, told = 0;
	bool failed = true;
	int err;

	for (n = 1; failed && n < MAX_NTH; n++) {
		ASSERT_EQ(0, variant->prepare(f));
		ASSERT_EQ(0, nth_begin(f, n));
		err = variant->call(f);
		failed = nth_end(f);
		told += !!err;

		EXPECT_TRUE(failed || !err);
		EXPECT_TRUE(is_expected(variant->errnos, err)) {
			TH_LOG("%u: %s", n, strerror(-err));
		}
		if (err) {
			EXPECT_FALSE(harmed(f));
		} else {
			EXPECT_EQ(0, variant->after ? variant->after(f) : 0);
			ASSERT_EQ(-1, differs(f->rig.buf.mem, f->next, SIZE)) {
				TH_LOG("%u: nobody was told", n);
			}
		}
		/* The same call works now. */
		EXPECT_EQ(0, variant->call(f)) {
			TH_LOG("after %u: %s", n, strerror(-err));
		}
		EXPECT_EQ(0, variant->after ? variant->after(f) : 0);
		ASSERT_EQ(-1, differs(f->rig.buf.mem, f->next, SIZE)) {
			TH_LOG("after %u: %s", n, strerror(-err));
		}
	}
	EXPECT_FALSE(failed);
	EXPECT_LT(2, n);
	printf("# %u failures, %u of them told\n", n - 2, told);
}

/* Callbacks of the exporter. */

/* Make a function fail @times times, -1 for always. -ENOENT if it cannot fail. */
static int callback_fails(const char *function, int err, int times)
{
	char dir[128], text[32];
	int ret;

	if (file_write(FAIL_FUNCTION "inject", function))
		return -ENOENT;
	snprintf(dir, sizeof(dir), FAIL_FUNCTION "%s/", function);
	snprintf(text, sizeof(text), "%#lx", (long)err);
	ret = knob(dir, "retval", text);
	snprintf(text, sizeof(text), "%d", times);
	ret = knob(FAIL_FUNCTION, "times", text) ?: ret;
	ret = knob(FAIL_FUNCTION, "interval", "1") ?: ret;
	ret = knob(FAIL_FUNCTION, "verbose", "0") ?: ret;
	return knob(FAIL_FUNCTION, "probability", "100") ?: ret;
}

/* Returns how many failures are left. */
static int callback_works(void)
{
	FILE *file = fopen(FAIL_FUNCTION "times", "r");
	int left = -1;

	if (file && fscanf(file, "%d", &left) != 1)
		left = -1;
	if (file)
		fclose(file);
	file_write(FAIL_FUNCTION "inject", " ");
	return left;
}

FIXTURE(callback) {
	struct fault f;
};

FIXTURE_SETUP(callback)
{
	struct fault *f = &self->f;

	ASSERT_EQ(0, vsvm_load("p2p_pages=1"));
	memset(f, 0, sizeof(*f));
	ASSERT_EQ(0, rig_init(&f->rig, SIZE, MADV_NOHUGEPAGE));
	f->edu = edu_open();
	ASSERT_LE(0, f->edu);
	f->next = malloc(SIZE);
}

FIXTURE_TEARDOWN(callback)
{
	callback_works();
	close(self->f.edu);
	free(self->f.next);
	EXPECT_EQ(0, rig_fini(&self->f.rig));
}

TEST_F(callback, failed_migration_to_vram_leaves_pages_in_ram)
{
	static const char * const functions[] = {
		"vsvm_populate_mm", "populate_devmem_pfn", "copy_to_devmem"
	};
	static const int errnos[] = { ENOMEM, EBUSY, EIO };
	struct rig *rig = &self->f.rig;
	uint64_t pages;
	size_t i, j;

	for (i = 0; i < ARRAY_LEN(functions); i++) {
		for (j = 0; j < ARRAY_LEN(errnos); j++) {
			buffer_write(&rig->buf, 0, SIZE);
			ASSERT_EQ(0, callback_fails(functions[i], -errnos[j], -1));
			EXPECT_EQ(0, gpu_to_vram(rig->gpu, rig->buf.mem, SIZE,
						 &pages));
			callback_works();
			EXPECT_EQ(0, pages);
			EXPECT_EQ(-1, buffer_differs(&rig->buf)) {
				TH_LOG("%s: %s", functions[i], strerror(errnos[j]));
			}
			EXPECT_EQ(0, vram_leaked(rig->gpu, rig->vram_free));
			ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
			EXPECT_EQ(-1, buffer_differs(&rig->buf));
		}
	}
}

static int child_touches(void *arg)
{
	return *(volatile uint8_t *)arg;
}

TEST_F(callback, failed_copy_to_ram_leaves_pages_in_vram)
{
	struct rig *rig = &self->f.rig;
	struct child child;
	int err;

	ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
	ASSERT_EQ(0, aliases_enable(false));
	ASSERT_EQ(0, child_fork(&child, child_touches, rig->buf.mem));
	ASSERT_EQ(0, callback_fails("copy_to_ram", -EIO, -1));

	err = gpu_to_ram(rig->gpu, rig->buf.mem, SIZE);
	EXPECT_EQ(-EFAULT, err);
	err = edu_copy(self->f.edu, rig->ram.mem, rig->buf.mem, PAGE);
	EXPECT_EQ(-EFAULT, err);
	/* An access by the CPU kills the process */
	EXPECT_EQ(-EPIPE, child_do(&child));
	EXPECT_EQ(-EPIPE, child_end(&child));
	EXPECT_EQ(-1, buffer_differs(&rig->ram));
	callback_works();

	EXPECT_EQ(PAGES, pages_in_vram(rig->gpu, rig->buf.mem, SIZE));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&rig->buf, rig->gpu));
	ASSERT_EQ(0, gpu_to_ram(rig->gpu, rig->buf.mem, SIZE));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
}

TEST_F(callback, unbind_retries_failed_copy_to_ram)
{
	struct rig *rig = &self->f.rig;
	char pci[PCI_ADDR_LEN];

	ASSERT_EQ(0, gpu_pci_address(rig->gpu, pci, sizeof(pci)));
	ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
	ASSERT_EQ(0, callback_fails("copy_to_ram", -EIO, 3));
	EXPECT_EQ(0, file_write(VSVM "unbind", pci));
	EXPECT_EQ(0, callback_works());
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
	EXPECT_EQ(0, file_write(VSVM "bind", pci));
	close(rig->gpu);
	rig->gpu = gpu_open(0);
	EXPECT_LE(0, rig->gpu);
}

/* The driver retries for some time, then drops the memory. No process gets wrong data. */
TEST_F(callback, unbind_drops_vram_if_copy_to_ram_keeps_failing)
{
	struct rig *rig = &self->f.rig;
	char pci[PCI_ADDR_LEN];
	struct child child;

	ASSERT_EQ(0, gpu_pci_address(rig->gpu, pci, sizeof(pci)));
	ASSERT_EQ(0, buffer_to_vram(&rig->buf, rig->gpu, 0, SIZE));
	ASSERT_EQ(0, child_fork(&child, child_touches, rig->buf.mem));
	ASSERT_EQ(0, callback_fails("copy_to_ram", -ENOMEM, -1));
	EXPECT_EQ(0, file_write(VSVM "unbind", pci));
	callback_works();
	EXPECT_EQ(-EPIPE, child_do(&child));
	EXPECT_EQ(-EPIPE, child_end(&child));
	ASSERT_EQ(0, madvise(rig->buf.mem, SIZE, MADV_DONTNEED));
	memset(rig->buf.shadow, 0, SIZE);
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
	EXPECT_EQ(0, file_write(VSVM "bind", pci));
	close(rig->gpu);
	rig->gpu = gpu_open(0);
	EXPECT_LE(0, rig->gpu);
}

/* Mapping another GPU's memory fails, as it does if the IOMMU has no room for it. */
TEST_F(callback, failed_dma_map_of_alias_makes_page_migrate)
{
	struct rig *rig = &self->f.rig;
	int other = gpu_open(1);
	uint64_t evicted;

	if (!reachable())
		SKIP(return, "nobody asks for aliases");
	ASSERT_LE(0, other);
	ASSERT_EQ(0, buffer_to_vram(&rig->buf, other, 0, SIZE));
	evicted = pages_evicted(other);
	ASSERT_EQ(0, callback_fails("drm_gpusvm_map_alias", -EFAULT, -1));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&rig->buf, rig->gpu));
	callback_works();
	EXPECT_EQ(evicted + PAGES, pages_evicted(other));
	EXPECT_EQ(-1, buffer_differs(&rig->buf));
	close(other);
}

/* Only a kernel built with DEBUG=1 can make operations fail. */
static int main_skips(void)
{
	bool debug = slowness() > 1;

	printf("TAP version 13\n1..1\n%sok 1 fault%s nothing fails on demand in this kernel%s\n",
	       debug ? "not " : "", debug ? ":" : " # SKIP",
	       debug ? "" : ": DEBUG=1");
	return debug;
}

int main(int argc, char **argv)
{
	if (access(FAIL_NTH, F_OK))
		return main_skips();
	atexit(vsvm_restore);
	return test_harness_run(argc, argv);
}
