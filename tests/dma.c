// SPDX-License-Identifier: GPL-2.0
/*
 * A bus master that reads and writes the memory of GPUs: memory that the fabric lets
 * it reach stays where it is, other memory migrates, and the data is right either
 * way.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../linux/samples/hmm/hmm_edu.h"
#include "gpu.h"
#include "lib/child.h"
#include "lib/command.h"
#include "lib/edu.h"
#include "lib/file.h"
#include "lib/freezer.h"
#include "lib/harness.h"
#include "lib/held.h"
#include "lib/pci.h"
#include "lib/rig.h"
#include "lib/route.h"
#include "lib/stats.h"
#include "lib/swap.h"
#include "lib/vram.h"
#include "lib/vsvm.h"
#include "lib/worker.h"

/* The device moves 4 KiB in 200 ms. */
#define SIZE	MIB(4)
#define PAGES	(SIZE / PAGE)

FIXTURE(dma) {
	int edu;
	int gpu[2];
	uint64_t vram_free[2];
	struct buffer a;
	struct buffer b;
};

FIXTURE_VARIANTS_BY_ADVICE(dma);

FIXTURE_SETUP(dma)
{
	ASSERT_EQ(0, vsvm_load(""));
	self->edu = edu_open();
	ASSERT_LE(0, self->edu);
	ASSERT_EQ(0, gpus_open(self->gpu, self->vram_free));
	ASSERT_EQ(0, buffer_map(&self->a, SIZE, variant->advice));
	ASSERT_EQ(0, buffer_map(&self->b, SIZE, variant->advice));
	buffer_write(&self->a, 0, SIZE);
	buffer_write(&self->b, 0, SIZE);
}

FIXTURE_TEARDOWN(dma)
{
	EXPECT_EQ(-1, buffer_differs(&self->a));
	EXPECT_EQ(-1, buffer_differs(&self->b));
	buffer_unmap(&self->a);
	buffer_unmap(&self->b);
	EXPECT_EQ(0, gpus_close(self->gpu, self->vram_free));
	close(self->edu);
}

/* Memory that the device can reach stays, other memory migrates. Updates the shadow. */
static void copy(struct __test_metadata *_metadata, FIXTURE_DATA(dma) *self,
		 struct buffer *dst, size_t to, struct buffer *src, size_t from,
		 size_t size)
{
	const char *counter = reachable() ? alias_route() :
					    "fallback_unreachable";
	uint8_t *d = dst->mem + to, *s = src->mem + from;
	uint64_t reached = pages_touched_in_vram(self->gpu, d, size) +
			   pages_touched_in_vram(self->gpu, s, size);
	/* A buffer has two chunks, so there are no others between the two places */
	uint64_t chunks = dst == src ?
			  chunks_touched_in_vram(self->gpu, src->mem + MIN(from, to),
						 MAX(from, to) - MIN(from, to) + size) :
			  chunks_touched_in_vram(self->gpu, d, size) +
			  chunks_touched_in_vram(self->gpu, s, size);
	struct tally before = tally_read(self->gpu), after;

	ASSERT_EQ(0, edu_copy(self->edu, d, s, size));
	memcpy(dst->shadow + to, src->shadow + from, size);

	after = tally_read(self->gpu);
	EXPECT_TALLY(before, after, reached, chunks, chunks, reachable(), counter);
	EXPECT_EQ(reachable() ? reached : 0,
		  pages_touched_in_vram(self->gpu, d, size) +
		  pages_touched_in_vram(self->gpu, s, size));
}

#define COPY(dst, to, src, from, size)					\
	copy(_metadata, self, dst, to, src, from, size)

TEST_F(dma, reads_vram)
{
	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	COPY(&self->b, 7, &self->a, PAGE - 3, 2 * PAGE + 5);
	COPY(&self->b, PAGE + 1, &self->a, HUGE_PAGE - 9, 20);
	COPY(&self->b, HUGE_PAGE, &self->a, SIZE - PAGE, PAGE);
	EXPECT_EQ(-1, buffer_differs(&self->b));
}

TEST_F(dma, writes_vram)
{
	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	COPY(&self->a, 5 * PAGE - 1, &self->b, 100, PAGE + 2);
	COPY(&self->a, HUGE_PAGE - 11, &self->b, PAGE, 20);
	COPY(&self->a, 0, &self->b, HUGE_PAGE, PAGE);
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->a, self->gpu[0]));
}

TEST_F(dma, dma_copies_from_gpu_to_gpu)
{
	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	ASSERT_EQ(0, buffer_to_vram(&self->b, self->gpu[1], 0, SIZE));
	COPY(&self->b, 3 * PAGE + 1, &self->a, SIZE / 2 - 9, PAGE + 20);
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->b, self->gpu[1]));
}

TEST_F(dma, dma_copies_within_vram_of_one_gpu)
{
	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[1], 0, SIZE));
	COPY(&self->a, SIZE - PAGE - 3, &self->a, HUGE_PAGE - 7, PAGE);
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->a, self->gpu[1]));
}

TEST_F(dma, dma_copies_from_ram_to_ram)
{
	COPY(&self->a, 1, &self->b, PAGE - 1, PAGE + 1);
}

TEST_F(dma, dma_copies_range_across_ram_and_vram)
{
	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], HUGE_PAGE,
				    HUGE_PAGE));
	COPY(&self->b, 0, &self->a, HUGE_PAGE - PAGE / 2, PAGE);
	COPY(&self->a, HUGE_PAGE - PAGE / 2, &self->b, PAGE / 2, PAGE);
	EXPECT_EQ(-1, buffer_differs(&self->b));
}

/* Only the device has written to the page since it was last on disk. */
TEST_F(dma, dma_write_dirties_clean_page)
{
	volatile uint8_t *page = self->a.mem + HUGE_PAGE + PAGE;

	ASSERT_EQ(0, page_swap_out(page));
	(void)*page;
	COPY(&self->a, HUGE_PAGE + PAGE, &self->b, 100, PAGE);
	ASSERT_EQ(0, page_swap_out(page));
	EXPECT_EQ(-1, buffer_differs(&self->a));
}

TEST_F(dma, enabled_never_makes_vram_migrate_for_dma)
{
	struct tally before, after;

	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	before = tally_read(self->gpu);
	ASSERT_EQ(0, aliases_enable(false));
	EXPECT_EQ(0, edu_copy(self->edu, self->b.mem, self->a.mem, PAGE));
	ASSERT_EQ(0, aliases_enable(true));
	memcpy(self->b.shadow, self->a.shadow, PAGE);
	after = tally_read(self->gpu);
	EXPECT_TALLY(before, after, 0, 0, 0, false, "");
	EXPECT_EQ(0, pages_touched_in_vram(self->gpu, self->a.mem, PAGE));
}

static int move_away(struct worker *worker)
{
	struct buffer *buf = &worker->rig->buf;
	int err = gpu_to_ram(worker->gpu, buf->mem, buf->size);

	err = err ?: gpu_to_vram(worker->gpu, buf->mem, buf->size, NULL);
	/* Pages that do not migrate stay in RAM, which a GPU cannot use if it bounces */
	return err == -EOPNOTSUPP && dma_bounces() ? 0 : err;
}

TEST_F(dma, dma_keeps_data_while_pages_migrate)
{
	struct rig rig = { .buf = self->a };
	struct worker worker = { .rig = &rig, .gpu = self->gpu[0] };
	size_t at = HUGE_PAGE - PAGE - 1, size = 3 * PAGE;

	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	ASSERT_EQ(0, worker_start(&worker, move_away));
	EXPECT_EQ(0, edu_copy(self->edu, self->b.mem + 3, self->a.mem + at, size));
	memcpy(self->b.shadow + 3, self->a.shadow + at, size);
	EXPECT_EQ(0, edu_copy(self->edu, self->a.mem + PAGE, self->b.mem + 1, size));
	memcpy(self->a.shadow + PAGE, self->b.shadow + 1, size);
	EXPECT_EQ(0, worker_stop(&worker));
	EXPECT_LT(1, worker.rounds);
}

static int reset_edu(struct worker *worker)
{
	char pci[PCI_ADDR_LEN];

	(void)worker;
	/* The driver gives up a piece that meets a reset ten times */
	usleep(200000);
	return pci_find(0x1234, 0x11e8, pci) ?: pci_reset(pci);
}

TEST_F(dma, reset_of_importer_waits_for_transfer)
{
	struct worker worker = {};

	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	ASSERT_EQ(0, worker_start(&worker, reset_edu));
	EXPECT_EQ(0, edu_copy(self->edu, self->b.mem + 3, self->a.mem + 1, 3 * PAGE));
	memcpy(self->b.shadow + 3, self->a.shadow + 1, 3 * PAGE);
	EXPECT_EQ(0, worker_stop(&worker));
	EXPECT_LT(1, worker.rounds);
}

/* A bounce buffer is a copy, and stale as soon as the CPU writes to the memory. */
TEST_F(dma, gpu_rejects_ram_that_it_could_only_bounce)
{
	bool bounced = dma_bounces();
	uint64_t *mem, sum = 1;

	/* Shared memory stays in RAM. */
	mem = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, mem);
	EXPECT_EQ(bounced ? -EOPNOTSUPP : 0, gpu_sum(self->gpu[0], mem, PAGE, &sum));
	mem[1] = 0x1234;
	EXPECT_EQ(bounced ? -EOPNOTSUPP : 0, gpu_sum(self->gpu[0], mem, PAGE, &sum));
	if (!bounced)
		EXPECT_EQ(0x1234, sum);
	EXPECT_EQ(0x1234, mem[1]);
	munmap(mem, PAGE);
}

/* Memory that the device cannot address bounces, or has a low address with an IOMMU. */
TEST_F(dma, dma_with_32_bit_mask_copies_vram_and_ram)
{
	close(self->edu);
	ASSERT_EQ(0, system("modprobe -r hmm_edu && modprobe hmm_edu dma_bits=32"));
	self->edu = edu_open();
	ASSERT_LE(0, self->edu);
	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	EXPECT_EQ(0, edu_copy(self->edu, self->a.mem + 3, self->b.mem + PAGE - 5, 10));
	memcpy(self->a.shadow + 3, self->b.shadow + PAGE - 5, 10);
	EXPECT_EQ(0, edu_copy(self->edu, self->b.mem + HUGE_PAGE, self->a.mem + PAGE, PAGE));
	memcpy(self->b.shadow + HUGE_PAGE, self->a.shadow + PAGE, PAGE);
	close(self->edu);
	ASSERT_EQ(0, system("modprobe -r hmm_edu && modprobe hmm_edu dma_bits=64"));
	self->edu = edu_open();
}

/* BARs are far above RAM: a device that can address only RAM cannot reach them. */
TEST_F(dma, window_above_dma_mask_is_unreachable)
{
	bool iommu = lab_route_is("iommu");
	uint64_t before;

	close(self->edu);
	ASSERT_EQ(0, system("modprobe -r hmm_edu && modprobe hmm_edu dma_bits=36"));
	self->edu = edu_open();
	ASSERT_LE(0, self->edu);
	ASSERT_EQ(0, buffer_to_vram(&self->b, self->gpu[0], 0, SIZE));
	before = stat_read(iommu ? alias_route() : "fallback_unreachable");
	EXPECT_EQ(0, edu_copy(self->edu, self->a.mem, self->b.mem, PAGE));
	memcpy(self->a.shadow, self->b.shadow, PAGE);
	EXPECT_EQ(before + 1, stat_read(iommu ? alias_route() : "fallback_unreachable"));
	EXPECT_EQ(iommu, pages_touched_in_vram(self->gpu, self->b.mem, PAGE));
	if (reachable() && !iommu)
		EXPECT_EQ(0, system("hmmp2p topo | grep -q 'beyond what the device can address'"));
	close(self->edu);
	ASSERT_EQ(0, system("modprobe -r hmm_edu && modprobe hmm_edu dma_bits=64"));
	self->edu = edu_open();
}

/* Set whether all ports that can do so redirect peers' traffic up to the host bridge. */
static int ports_redirect(bool on)
{
	char script[512];

	snprintf(script, sizeof(script),
		 "for p in $(lspci -D -d ::0604 | cut -d' ' -f1); do"
		 " setpci -s $p ECAP_ACS+6.w >/dev/null 2>&1 || continue;"
		 " setpci -s $p ECAP_ACS+6.w=%s || exit; done", on ? "000c:000c" : "0000:000c");
	return system(script) ? -EIO : 0;
}

/* Check the route in topo and in use: "bus", "host_bridge", "iommu" or "none". */
static void reads_by(struct __test_metadata *_metadata, FIXTURE_DATA(dma) *self,
		    const char *route)
{
	static const struct {
		const char *route;
		const char *counter;
	} ways[] = {
		{ "bus", "alias_bus" },
		{ "host_bridge", "alias_host_bridge" },
		{ "iommu", "alias_host_bridge" },
		{ "none", "fallback_unreachable" },
	};
	struct tally before, after;
	char script[128];
	size_t i = 0;

	snprintf(script, sizeof(script), "hmmp2p topo | grep -qE '^[0-9a-f:.]+ +hmm_edu .* %s +%s *$'",
		 route, route);
	EXPECT_EQ(0, system(script))
		TH_LOG("%s", route);

	while (i < ARRAY_LEN(ways) - 1 && strcmp(ways[i].route, route))
		i++;
	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	before = tally_read(self->gpu);
	ASSERT_EQ(0, edu_copy(self->edu, self->b.mem, self->a.mem, PAGE));
	memcpy(self->b.shadow, self->a.shadow, PAGE);
	after = tally_read(self->gpu);
	EXPECT_TALLY(before, after, 1, 1, 1, strcmp(route, "none"), ways[i].counter);
}

/* An administrator changes the ports while the devices are in use. */
TEST_F(dma, acs_change_changes_the_route)
{
	/* Here a switch has a direct route, which redirecting ports block */
	bool acs = !strcmp(getenv("LAB_REASON") ?: "", "acs_redirect");
	const char *usual = reachable() ? getenv("LAB_ROUTE") : "none";

	reads_by(_metadata, self, usual);
	ASSERT_EQ(0, ports_redirect(false));
	reads_by(_metadata, self, acs ? "bus" : usual);
	ASSERT_EQ(0, ports_redirect(true));
	reads_by(_metadata, self, usual);
	/* Restore the kernel's setting: with an IOMMU it redirects, for small groups */
	ASSERT_EQ(0, ports_redirect(acs || lab_route_is("iommu")));
}

#define EVENTS	"/sys/kernel/tracing/events/"
#define TRACE	"/sys/kernel/tracing/trace"

/* The number of traced events of a device with this name and text; ~0 on errors. */
static unsigned long traced(const char *event, const char *pci, const char *says)
{
	unsigned long count = 0;
	FILE *trace = fopen(TRACE, "r");
	char line[512];

	if (!trace)
		return ~0UL;
	while (fgets(line, sizeof(line), trace))
		count += strstr(line, event) && strstr(line, pci) && strstr(line, says);
	fclose(trace);
	return count;
}

/* A GPU maps another GPU's memory only if the route needs it, and unmaps all of it. */
TEST_F(dma, gpu_unmaps_each_dma_mapping_of_peer_vram)
{
	unsigned long mapped, unmapped;
	char pci[32];

	ASSERT_EQ(0, gpu_pci_address(self->gpu[1], pci, sizeof(pci)));
	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	ASSERT_EQ(0, file_write(TRACE, ""));
	ASSERT_EQ(0, file_write(EVENTS "dma/dma_map_phys/enable", "1"));
	ASSERT_EQ(0, file_write(EVENTS "dma/dma_unmap_phys/enable", "1"));
	EXPECT_EQ(-1, buffer_differs_on_gpu(&self->a, self->gpu[1]));
	EXPECT_EQ(0, gpu_to_ram(self->gpu[0], self->a.mem, SIZE));
	EXPECT_EQ(0, file_write(EVENTS "dma/enable", "0"));
	mapped = traced("dma_map_phys:", pci, "MMIO");
	unmapped = traced("dma_unmap_phys:", pci, "MMIO");
	EXPECT_EQ(0, file_write(TRACE, ""));

	EXPECT_EQ(mapped, unmapped);
	if (alias_route() && !strcmp(alias_route(), "alias_host_bridge")) {
		EXPECT_LT(0, mapped);
	} else {
		EXPECT_EQ(0, mapped);
	}
}

/* With swiotlb=force, both ends of a copy bounce, except memory at a bus address. */
TEST_F(dma, swiotlb_force_bounces_all_but_bus_addresses)
{
	char pci[PCI_ADDR_LEN];

	ASSERT_EQ(0, pci_find(0x1234, 0x11e8, pci));
	ASSERT_EQ(0, buffer_to_vram(&self->a, self->gpu[0], 0, SIZE));
	ASSERT_EQ(0, file_write(TRACE, ""));
	ASSERT_EQ(0, file_write(EVENTS "swiotlb/enable", "1"));
	COPY(&self->b, 0, &self->a, 0, PAGE);
	EXPECT_EQ(0, file_write(EVENTS "swiotlb/enable", "0"));
	EXPECT_EQ(!dma_bounces() ? 0 : reachable() ? 1 : 2,
		  traced("swiotlb_bounced:", pci, "FORCE"));
	EXPECT_EQ(0, file_write(TRACE, ""));
}

TEST_F(dma, hmm_edu_ioctl_rejects_invalid_arguments)
{
	uint8_t *mem = self->a.mem;
	int edu = self->edu;

	EXPECT_EQ(-EINVAL, edu_copy(edu, mem, mem + PAGE, 0));
	EXPECT_EQ(-EINVAL, edu_copy(edu, mem, mem, HMM_EDU_MAX_SIZE + 1));
	EXPECT_EQ(-EFAULT, edu_copy(edu, mem, (void *)-PAGE, PAGE));
	EXPECT_EQ(-EFAULT, edu_copy(edu, (void *)-16, mem, PAGE));
	EXPECT_EQ(-EFAULT, edu_copy(edu, mem, NULL, PAGE));
	EXPECT_EQ(-1, ioctl(edu, HMM_EDU_COPY + 1, mem));
	EXPECT_EQ(ENOTTY, errno);
	EXPECT_EQ(-1, ioctl(edu, HMM_EDU_COPY, NULL));
	EXPECT_EQ(EFAULT, errno);
	ASSERT_EQ(0, mprotect(mem, PAGE, PROT_READ));
	EXPECT_EQ(-EPERM, edu_copy(edu, mem, self->b.mem, 8));
	ASSERT_EQ(0, mprotect(mem, PAGE, PROT_READ | PROT_WRITE));
}

/* A device does nothing for a process that the process may not do itself. */

FIXTURE(access) {
	int edu;
	int gpu;
	struct buffer buf;
	struct buffer ram;
};

FIXTURE_VARIANT(access) {
	bool in_vram;
};

FIXTURE_VARIANT_ADD(access, ram) {
	.in_vram = false,
};

FIXTURE_VARIANT_ADD(access, vram) {
	.in_vram = true,
};

FIXTURE_SETUP(access)
{
	ASSERT_EQ(0, vsvm_load(""));
	self->edu = edu_open();
	ASSERT_LE(0, self->edu);
	self->gpu = gpu_open(0);
	ASSERT_LE(0, self->gpu);
	ASSERT_EQ(0, buffer_map(&self->buf, 4 * PAGE, MADV_NOHUGEPAGE));
	ASSERT_EQ(0, buffer_map(&self->ram, PAGE, MADV_NOHUGEPAGE));
	buffer_write(&self->buf, 0, self->buf.size);
	buffer_write(&self->ram, 0, self->ram.size);
	if (variant->in_vram)
		ASSERT_EQ(0, buffer_to_vram(&self->buf, self->gpu, 0, self->buf.size));
}

FIXTURE_TEARDOWN(access)
{
	EXPECT_EQ(-1, buffer_differs(&self->buf));
	EXPECT_EQ(-1, buffer_differs(&self->ram));
	buffer_unmap(&self->ram);
	buffer_unmap(&self->buf);
	close(self->gpu);
	close(self->edu);
}

/* The rest of the page must not change. */
static int copy_in(FIXTURE_DATA(access) *self, size_t to)
{
	int err = edu_copy(self->edu, self->buf.mem + to, self->ram.mem, 100);

	if (!err)
		memcpy(self->buf.shadow + to, self->ram.shadow, 100);
	return err;
}

static int copy_out(FIXTURE_DATA(access) *self, size_t from)
{
	int err = edu_copy(self->edu, self->ram.mem, self->buf.mem + from, 100);

	if (!err)
		memcpy(self->ram.shadow, self->buf.shadow + from, 100);
	return err;
}

TEST_F(access, protection_keys_bind_the_device)
{
	int deny = pkey_alloc(0, PKEY_DISABLE_ACCESS);
	int read = pkey_alloc(0, PKEY_DISABLE_WRITE);

	ASSERT_LE(0, deny);
	ASSERT_LE(0, read);
	ASSERT_EQ(0, pkey_mprotect(self->buf.mem, PAGE, PROT_READ | PROT_WRITE, deny));
	ASSERT_EQ(0, pkey_mprotect(self->buf.mem + PAGE, PAGE,
				   PROT_READ | PROT_WRITE, read));
	EXPECT_EQ(-EFAULT, copy_out(self, 0));
	EXPECT_EQ(-EFAULT, copy_in(self, 0));
	EXPECT_EQ(0, copy_out(self, PAGE));
	EXPECT_EQ(-EFAULT, copy_in(self, PAGE));

	ASSERT_EQ(0, pkey_set(deny, 0));
	ASSERT_EQ(0, pkey_set(read, 0));
	EXPECT_EQ(0, copy_out(self, 0));
	EXPECT_EQ(0, copy_in(self, 0));
	EXPECT_EQ(0, copy_in(self, PAGE));
	ASSERT_EQ(0, pkey_mprotect(self->buf.mem, 2 * PAGE,
				   PROT_READ | PROT_WRITE, 0));
	EXPECT_EQ(0, pkey_free(deny));
	EXPECT_EQ(0, pkey_free(read));
}

/* Not even by one copy that both reads a read-only page and writes to it. */
TEST_F(access, mprotect_read_only_page_is_not_written_to)
{
	uint8_t *buf = self->buf.mem;

	ASSERT_EQ(0, mprotect(buf, 2 * PAGE, PROT_READ));
	EXPECT_EQ(0, copy_out(self, 0));
	EXPECT_EQ(-EPERM, edu_copy(self->edu, buf + PAGE / 2, buf, 100));
	EXPECT_EQ(-EPERM, edu_copy(self->edu, buf + PAGE, buf, PAGE));
	EXPECT_EQ(-EPERM, copy_in(self, PAGE));
	ASSERT_EQ(0, mprotect(buf, 2 * PAGE, PROT_READ | PROT_WRITE));
}

TEST_F(access, cow_when_device_writes)
{
	uint8_t *buf = self->buf.mem;
	struct child child;

	ASSERT_EQ(0, child_fork(&child, buffer_compare, &self->buf));
	EXPECT_EQ(0, copy_out(self, 0));
	EXPECT_EQ(0, edu_copy(self->edu, buf + PAGE / 2, buf, 100));
	memcpy(self->buf.shadow + PAGE / 2, self->buf.shadow, 100);
	EXPECT_EQ(0, copy_in(self, PAGE));
	EXPECT_EQ(0, child_do(&child));
	EXPECT_EQ(0, child_end(&child));
}

/* Kinds of pages that exist only in system memory. */

TEST(dma_write_breaks_cow_of_zero_page_and_file_page)
{
	static const uint8_t zeroes[2 * PAGE];
	uint8_t *mem, data[100], seen[8];
	int edu = edu_open(), file;

	ASSERT_LE(0, edu);
	memset(data, 0x5a, sizeof(data));
	mem = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, mem);
	EXPECT_EQ(0, edu_copy(edu, seen, mem, 8));
	EXPECT_EQ(-1, differs(seen, zeroes, 8));
	EXPECT_EQ(0, edu_copy(edu, mem + 100, mem, 8));
	EXPECT_EQ(0, edu_copy(edu, mem + PAGE - 50, data, 100));
	EXPECT_EQ(-1, differs(mem, zeroes, PAGE - 50));
	EXPECT_EQ(-1, differs(mem + PAGE - 50, data, 100));
	munmap(mem, 2 * PAGE);
	mem = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	EXPECT_EQ(-1, differs(mem, zeroes, PAGE));
	munmap(mem, PAGE);

	file = memfd_create("test", 0);
	ASSERT_EQ(PAGE, write(file, zeroes, PAGE));
	mem = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
	EXPECT_EQ(0, edu_copy(edu, mem + 100, mem, 8));
	EXPECT_EQ(0, edu_copy(edu, mem, data, 100));
	EXPECT_EQ(-1, differs(mem, data, 100));
	munmap(mem, PAGE);
	mem = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, file, 0);
	EXPECT_EQ(0, edu_copy(edu, seen, mem, 8));
	EXPECT_EQ(-EPERM, edu_copy(edu, mem, data, 100));
	EXPECT_EQ(-1, differs(mem, zeroes, PAGE));
	munmap(mem, PAGE);
	close(file);
	close(edu);
}

TEST(dma_on_memfd_secret_fails_with_efault)
{
	uint8_t *mem = secret_map(PAGE), data[8] = "nothing";
	int edu = edu_open();

	ASSERT_LE(0, edu);
	ASSERT_NE(NULL, mem);
	memcpy(mem, "secret", 7);
	EXPECT_EQ(-EFAULT, edu_copy(edu, data, mem, 8));
	EXPECT_EQ(-EFAULT, edu_copy(edu, mem, data, 8));
	EXPECT_EQ(0, strcmp((char *)data, "nothing"));
	EXPECT_EQ(0, strcmp((char *)mem, "secret"));
	munmap(mem, PAGE);
	close(edu);
}

/* A copy that waits for a page does not keep others waiting. */

FIXTURE(wait) {
	int edu;
	char pci[PCI_ADDR_LEN];
	struct held held;
	struct buffer buf;
	pthread_t thread;
	bool started;
	volatile int err;
};

FIXTURE_VARIANT(wait) {
	bool reads;
};

FIXTURE_VARIANT_ADD(wait, reads) {
	.reads = true,
};

FIXTURE_VARIANT_ADD(wait, writes) {
	.reads = false,
};

struct wait_job {
	FIXTURE_DATA(wait) *self;
	bool reads;
};

static void *wait_main(void *arg)
{
	struct wait_job *job = arg;
	FIXTURE_DATA(wait) *self = job->self;
	uint8_t *to = job->reads ? self->buf.mem : self->held.mem;
	uint8_t *from = job->reads ? self->held.mem : self->buf.mem;

	self->err = edu_copy(self->edu, to, from, PAGE);
	return NULL;
}

FIXTURE_SETUP(wait)
{
	static struct wait_job job;

	ASSERT_EQ(0, pci_find(0x1234, 0x11e8, self->pci));
	self->edu = edu_open();
	ASSERT_LE(0, self->edu);
	ASSERT_EQ(0, buffer_map(&self->buf, 3 * PAGE, MADV_NOHUGEPAGE));
	buffer_write(&self->buf, 0, self->buf.size);
	ASSERT_EQ(0, held_map(&self->held, PAGE));
	job.self = self;
	job.reads = variant->reads;
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, wait_main, &job));
	self->started = true;
	ASSERT_EQ(0, held_wait(&self->held, NULL));
}

static int wait_end(FIXTURE_DATA(wait) *self)
{
	held_release(&self->held);
	if (self->started)
		pthread_join(self->thread, NULL);
	self->started = false;
	return self->err;
}

FIXTURE_TEARDOWN(wait)
{
	wait_end(self);
	EXPECT_EQ(-1, buffer_differs(&self->buf));
	held_unmap(&self->held);
	buffer_unmap(&self->buf);
	close(self->edu);
}

TEST_F(wait, faulting_copy_lets_other_copies_run)
{
	static const uint8_t zeroes[PAGE];

	EXPECT_EQ(0, edu_copy(self->edu, self->buf.mem + PAGE,
			      self->buf.mem + 2 * PAGE, 100));
	memcpy(self->buf.shadow + PAGE, self->buf.shadow + 2 * PAGE, 100);
	EXPECT_EQ(0, wait_end(self));
	if (variant->reads)
		memset(self->buf.shadow, 0, PAGE);
	EXPECT_EQ(-1, differs(self->held.mem, variant->reads ? zeroes :
			      self->buf.shadow, PAGE));
}

TEST_F(wait, unbind_does_not_wait_for_faulting_copy)
{
	pid_t pid;

	ASSERT_EQ(0, command_start(&pid, "echo %s >/sys/bus/pci/drivers/hmm_edu/unbind",
				   self->pci));
	EXPECT_EQ(0, command_wait(pid, PROMPT));
	EXPECT_EQ(-ENODEV, edu_copy(self->edu, self->buf.mem,
				    self->buf.mem + PAGE, 100));
	EXPECT_EQ(-ENODEV, wait_end(self));
	EXPECT_EQ(0, file_write("/sys/bus/pci/drivers/hmm_edu/bind", self->pci));
}

/* The copy takes about a minute if nothing stops it. */
TEST(long_dma_copy_freezes_for_suspend)
{
	int edu = edu_open(), status;
	struct buffer buf;
	pid_t pid;

	ASSERT_LE(0, edu);
	ASSERT_EQ(0, buffer_map(&buf, MIB(1), MADV_NOHUGEPAGE));
	pid = fork();
	if (!pid)
		_exit(edu_copy(edu, buf.mem, buf.mem, MIB(1)) ? 1 : 0);
	ASSERT_LT(0, pid);
	usleep(300000);
	EXPECT_EQ(0, machine_freeze());
	EXPECT_EQ(0, waitpid(pid, &status, WNOHANG));
	EXPECT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
	buffer_unmap(&buf);
	close(edu);
}

/* A window that ends in the middle of a huge page. All of VRAM is in use. */

FIXTURE(dma_window) {
	int edu;
	int gpu[2];
	uint64_t vram_free[2];
	struct buffer all;
	struct buffer ram;
};

FIXTURE_VARIANTS_BY_ADVICE(dma_window);

FIXTURE_SETUP(dma_window)
{
	struct drm_vsvm_info info;

	ASSERT_EQ(0, vsvm_load("window_mb=129"));
	self->edu = edu_open();
	ASSERT_LE(0, self->edu);
	ASSERT_EQ(0, buffer_map(&self->ram, HUGE_PAGE, MADV_HUGEPAGE));

	ASSERT_EQ(0, gpus_open(self->gpu, self->vram_free));
	ASSERT_EQ(0, gpu_info(self->gpu[0], &info));
	if (info.vram_size < MIB(256))
		SKIP(return, "VRAM is too small");
	ASSERT_EQ(MIB(129), info.window_size);
	ASSERT_EQ(0, vram_fill(self->gpu[0], &self->all, variant->advice));
}

FIXTURE_TEARDOWN(dma_window)
{
	buffer_unmap(&self->all);
	buffer_unmap(&self->ram);
	EXPECT_EQ(0, gpus_close(self->gpu, self->vram_free));
	close(self->edu);
}

static uint64_t in_window(FIXTURE_DATA(dma_window) *self, size_t at,
			  size_t size)
{
	return pages_in_reach(self->gpu[1], self->all.mem + at, size);
}

/*
 * Pages before the end are in the window, and pages behind it are not. If no page can
 * be reached, any place will do.
 */
static size_t find_end(FIXTURE_DATA(dma_window) *self)
{
	size_t at;

	if (!reachable())
		return HUGE_PAGE / 2;

	for (at = 0; at < self->all.size; at += HUGE_PAGE)
		if (in_window(self, at, PAGE) &&
		    !in_window(self, at + HUGE_PAGE - PAGE, PAGE))
			return at + HUGE_PAGE / 2;
	return 0;
}

TEST_F(dma_window, huge_page_across_window_end_has_no_alias)
{
	size_t end = find_end(self);
	bool huge = variant->advice == MADV_HUGEPAGE;

	if (!reachable()) {
		EXPECT_EQ(0, in_window(self, 0, self->all.size));
		return;
	}

	ASSERT_NE(0, end);
	EXPECT_EQ(1, in_window(self, end - PAGE, PAGE));
	EXPECT_EQ(0, in_window(self, end, PAGE));

	/* A query for a whole huge page gets one answer for all of it. */
	EXPECT_EQ(huge ? 0 : HUGE_PAGE_NR / 2,
		  in_window(self, end - HUGE_PAGE / 2, HUGE_PAGE));
	EXPECT_EQ((huge ? MIB(128) : MIB(129)) / PAGE,
		  in_window(self, 0, self->all.size));
}

/* A page without an alias migrates, and the rest of its allocation with it. */
TEST_F(dma_window, dma_across_window_end_migrates_pages_outside)
{
	const char *route = reachable() ? alias_route() : "alias_bus";
	const char *reason = reachable() ? "fallback_outside_window" :
					   "fallback_unreachable";
	uint64_t evicted = pages_evicted(self->gpu[0]);
	uint64_t fallback = stat_read(reason), aliases;
	size_t end = find_end(self), size = 1000;
	uint8_t *mem = self->all.mem + end - 300;
	uint8_t *data = self->ram.mem + 1;

	ASSERT_NE(0, end);
	ASSERT_EQ(0, gpu_fill(self->gpu[0], self->all.mem + end - PAGE,
			      2 * PAGE, 0x0123456789abcdef));
	buffer_write(&self->ram, 0, HUGE_PAGE);
	aliases = stat_read(route);

	ASSERT_EQ(0, edu_copy(self->edu, data, mem, size));
	EXPECT_EQ(aliases + reachable(), stat_read(route));
	EXPECT_EQ(fallback + 1, stat_read(reason));
	EXPECT_EQ(evicted + HUGE_PAGE_NR, pages_evicted(self->gpu[0]));
	EXPECT_EQ(0, pages_in_vram(self->gpu[0], self->all.mem + end - PAGE,
				   2 * PAGE));
	EXPECT_EQ(-1, differs(data, mem, size));

	/* In the other direction, with the memory in VRAM again */
	buffer_write(&self->ram, 0, HUGE_PAGE);
	ASSERT_EQ(0, gpu_to_vram(self->gpu[0], self->all.mem, self->all.size,
				 NULL));
	ASSERT_EQ(0, edu_copy(self->edu, mem, data, size));
	EXPECT_EQ(-1, differs(data, mem, size));
}

VSVM_HARNESS_MAIN
