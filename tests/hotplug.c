// SPDX-License-Identifier: GPL-2.0
/*
 * Devices are removed and return, in every way that there is, while all importers
 * work on the memory of a GPU. When an exporter is removed, its memory migrates to
 * RAM, and the work goes on there. When an importer is removed, it fails at once,
 * and no other does. A device that returns works as before. When an exporter is reset,
 * its memory stays where it is, and the work waits.
 *
 * These are two suites: tests/run leaves the variants that unplug to the suite unplug.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gpu.h"
#include "measure.h"
#include "lib/child.h"
#include "lib/command.h"
#include "lib/disk.h"
#include "lib/edu.h"
#include "lib/file.h"
#include "lib/harness.h"
#include "lib/held.h"
#include "lib/klog.h"
#include "lib/page.h"
#include "lib/pci.h"
#include "lib/qmp.h"
#include "lib/rig.h"
#include "lib/route.h"
#include "lib/rxe.h"
#include "lib/stats.h"
#include "lib/swap.h"
#include "lib/vram.h"
#include "lib/vsvm.h"
#include "lib/worker.h"
#include "test_hmm_uapi.h"

#define SIZE	MIB(2)
#define PAGES	(SIZE / PAGE)
#define CHUNK	KIB(128)

/* The number of removals in a row. */
#define TIMES	3

/* Devices, and the ways to remove them. */

enum way { UNBIND, REMOVE, UNPLUG };

/* As lab/run creates them. */
struct part {
	const char *id;		/* QEMU's */
	const char *driver;	/* Linux's */
	const char *add;
	const char *memdev;
};

static const struct part gpus[] = {
	{
		.id = "gpu0", .driver = "vsvm", .memdev = "gpu0-vram",
		.add = "'driver':'ivshmem-plain','memdev':'gpu0-vram','bus':'port0'",
	}, {
		.id = "gpu1", .driver = "vsvm", .memdev = "gpu1-vram",
		.add = "'driver':'ivshmem-plain','memdev':'gpu1-vram','bus':'port1'",
	},
};

static const struct part edu = {
	.id = "edu", .driver = "hmm_edu",
	.add = "'driver':'edu','dma_mask':18446744073709551615,'bus':'port2'",
};

static const struct part nvme = {
	.id = "nvme", .driver = "nvme",
	.add = "'driver':'nvme','serial':'lab','drive':'disk','bus':'port3'",
};

/* A device, and its PCI address, also while it is gone. */
struct device {
	const struct part *part;
	char pci[PCI_ADDR_LEN];
};

static bool is_gone(const struct device *dev, enum way way)
{
	return way == UNBIND ? !pci_is_bound(dev->pci, dev->part->driver) :
			       !pci_exists(dev->pci);
}

static bool wait_for(bool (*condition)(const struct device *dev, enum way way),
		     const struct device *dev, enum way way)
{
	double end = now() + PROMPT;

	while (!condition(dev, way)) {
		if (now() > end)
			return false;
		usleep(2000);
	}
	return true;
}

/* Start a shell command that removes a device. */
static int removal_start(pid_t *pid, const struct device *dev, enum way way)
{
	switch (way) {
	case UNBIND:
		return command_start(pid, "echo %s >/sys/bus/pci/drivers/%s/unbind",
				     dev->pci, dev->part->driver);
	case REMOVE:
		return command_start(pid, "echo 1 >" PCI_DEVICES "%s/remove",
				     dev->pci);
	default:
		/*
		 * Do not wait while the button could be pressed again. On a slow
		 * machine that time may be over, and the slot off already
		 */
		return command_start(pid, "for slot in /sys/bus/pci/slots/*; do "
				     "[ $(cat $slot/address) != %.10s ] || echo 0 >$slot/power; done "
				     "2>/dev/null; true",
				     dev->pci);
	}
}

/* All at once. With @patience, wait until an unplugged slot switches itself off. */
static int take_away(const struct device *devs, int n, enum way way, bool patience)
{
	pid_t pids[2];
	int i, err;

	for (i = 0; i < n && way == UNPLUG; i++) {
		err = qmp("{'execute':'device_del','arguments':{'id':'%s'}}",
			  devs[i].part->id);
		if (err)
			return err;
	}
	if (way != UNPLUG || !patience) {
		usleep(way == UNPLUG ? 100000 : 0);
		for (i = 0; i < n; i++) {
			err = removal_start(&pids[i], &devs[i], way);
			if (err)
				return err;
		}
		for (i = 0; i < n; i++) {
			err = command_wait(pids[i], PROMPT);
			if (err)
				return err;
		}
	}
	for (i = 0; i < n; i++)
		if (!wait_for(is_gone, &devs[i], way))
			return -ETIMEDOUT;
	return 0;
}

static bool is_bound(const struct device *dev, enum way way)
{
	(void)way;
	return pci_is_bound(dev->pci, dev->part->driver);
}

/*
 * A GPU that is plugged in has other memory than the one that was pulled. QEMU would
 * crash if it were given the same memory again.
 */
static int plug(const struct part *part)
{
	const char *vram = getenv("VRAM");
	int err;

	if (part->memdev) {
		err = qmp("{'execute':'object-del','arguments':{'id':'%s'}}",
			  part->memdev);
		if (!err)
			err = qmp("{'execute':'object-add','arguments':{'id':'%s',"
				  "'qom-type':'memory-backend-memfd','share':true,'size':%llu}}",
				  part->memdev, atoi(vram ? vram : "256") * 1048576ULL);
		if (err)
			return err;
	}
	return qmp("{'execute':'device_add','arguments':{'id':'%s',%s}}",
		   part->id, part->add);
}

/* Does nothing if the device is there already. */
static int bring_back(const struct device *dev, enum way way)
{
	int tries = 100, err = 0;
	pid_t pid;

	if (pci_is_bound(dev->pci, dev->part->driver))
		return 0;

	switch (way) {
	case UNBIND:
		err = command_start(&pid, "echo %s >/sys/bus/pci/drivers/%s/bind",
				    dev->pci, dev->part->driver);
		if (!err)
			err = command_wait(pid, PROMPT);
		break;
	case REMOVE:
		err = command_start(&pid, "echo 1 >/sys/bus/pci/rescan");
		if (!err)
			err = command_wait(pid, PROMPT);
		break;
	case UNPLUG:
		/* QEMU may not be done with the removal yet */
		while ((err = plug(dev->part)) == -EBUSY && tries--)
			usleep(100000);
		break;
	}
	if (err)
		return err;
	return wait_for(is_bound, dev, way) ? 0 : -ETIMEDOUT;
}

/* Its file may appear a moment later than its driver. */
static int gpu_reopen(int *gpu, unsigned int index, const struct device *dev)
{
	double end = now() + PROMPT;
	char pci[PCI_ADDR_LEN];

	do {
		if (*gpu > 0)
			close(*gpu);
		*gpu = gpu_open(index);
		if (*gpu >= 0 && !gpu_pci_address(*gpu, pci, sizeof(pci)) &&
		    !strcmp(pci, dev->pci))
			return 0;
	} while (now() < end && !usleep(10000));

	return -ENODEV;
}

/* Importers at work: each has a buffer that can be in VRAM, and one in RAM. */

enum importer { EDU, NVME, RXE, NR_IMPORTERS };

static const char * const names[] = { "edu", "nvme", "rxe" };

struct user {
	struct worker worker;	/* must be first: round() casts it to struct user */
	enum importer importer;
	struct rig rig;
	int dev;
	int disk;
	bool working;
	size_t torn;		/* a part that a failed round may have half written */
	size_t torn_size;
};

static int disk_io(struct user *user, void *mem, uint64_t pos, size_t size,
		   bool write)
{
	return disk_transfer(user->dev, user->disk, mem, pos, size, write);
}

/* Rounds alternately write to VRAM and read it, and in time reach all of it. */
static size_t turn(struct worker *worker, size_t step, size_t room)
{
	return worker->rounds / 2 * step % room;
}

/* edu copies this in two pieces, which share a page of VRAM, and so a mapping. */
static int edu_round(struct worker *worker)
{
	struct user *user = (struct user *)worker;
	struct buffer *buf = &user->rig.buf, *ram = &user->rig.ram;
	size_t at = turn(worker, PAGE, SIZE - 2 * PAGE) + 1001;
	size_t there = at + PAGE / 2, size = PAGE / 2;
	int err;

	if (worker->rounds % 2) {
		memset(ram->mem + there, 0, size);
		err = edu_copy(user->dev, ram->mem + there, buf->mem + at, size);
		if (!err && differs(ram->mem + there, buf->shadow + at, size) != -1)
			err = -EILSEQ;
		return err;
	}

	buffer_write(ram, there, size);
	user->torn = at;
	user->torn_size = size;
	err = edu_copy(user->dev, buf->mem + at, ram->mem + there, size);
	if (err)
		return err;
	memcpy(buf->shadow + at, ram->shadow + there, size);
	user->torn_size = 0;
	return 0;
}

static int nvme_round(struct worker *worker)
{
	struct user *user = (struct user *)worker;
	struct buffer *buf = &user->rig.buf, *ram = &user->rig.ram;
	size_t at = turn(worker, CHUNK, SIZE);
	int err;

	if (worker->rounds % 2) {
		err = disk_io(user, buf->mem + at, SIZE + at, CHUNK, true);
		if (err)
			return err;
		memset(ram->mem + at, 0, CHUNK);
		err = disk_io(user, ram->mem + at, SIZE + at, CHUNK, false);
		if (!err && differs(ram->mem + at, buf->shadow + at, CHUNK) != -1)
			err = -EILSEQ;
		return err;
	}

	buffer_write(ram, at, CHUNK);
	err = disk_io(user, ram->mem + at, at, CHUNK, true);
	if (err)
		return err;
	user->torn = at;
	user->torn_size = CHUNK;
	err = disk_io(user, buf->mem + at, at, CHUNK, false);
	if (err)
		return err;
	memcpy(buf->shadow + at, ram->shadow + at, CHUNK);
	user->torn_size = 0;
	return 0;
}

static int rxe_round(struct worker *worker)
{
	struct user *user = (struct user *)worker;
	struct rig *rig = &user->rig;
	size_t at = turn(worker, 5 * PAGE, SIZE - 8 * PAGE) + 1;
	size_t size = 3 * PAGE + 5;
	int err;

	if (worker->rounds % 2) {
		memset(rig->ram.mem + at, 0, size);
		err = rig_read(rig, at, size);
		if (!err && differs(rig->ram.mem + at, rig->buf.shadow + at,
				    size) != -1)
			err = -EILSEQ;
		return err;
	}

	user->torn = at;
	user->torn_size = size;
	err = rig_write_new(rig, at, size);
	if (!err)
		user->torn_size = 0;
	return err;
}

static int (* const rounds[])(struct worker *worker) = {
	edu_round, nvme_round, rxe_round
};

static int rxe_open(struct rig *rig)
{
	double end = now() + PROMPT;
	int err;

	/* The device gets its addresses a moment after it appears */
	while ((err = conn_up(&rig->conn)) && now() < end)
		usleep(20000);
	if (err)
		return err;

	rig->mr = rdma_reg_odp(&rig->conn.far, rig->buf.mem, SIZE);
	rig->ram_mr = rdma_reg_odp(&rig->conn.near, rig->ram.mem, SIZE);
	return rig->mr && rig->ram_mr ? 0 : -EIO;
}

/* A device that is gone leaves objects to clean up, too. */
static void user_close(struct user *user)
{
	struct rig *rig = &user->rig;

	if (rig->mr)
		ibv_dereg_mr(rig->mr);
	if (rig->ram_mr)
		ibv_dereg_mr(rig->ram_mr);
	rig->mr = rig->ram_mr = NULL;
	conn_down(&rig->conn);
	if (user->dev > 0)
		close(user->dev);
	if (user->disk > 0)
		close(user->disk);
	user->dev = user->disk = 0;
}

static int user_open(struct user *user)
{
	double end = now() + PROMPT;

	switch (user->importer) {
	case EDU:
		/* Its file may appear late, as with disks */
		while ((user->dev = edu_open()) == -ENODEV && now() < end)
			usleep(10000);
		break;
	case NVME:
		user->dev = open("/dev/hmm_blk", O_RDWR | O_CLOEXEC);
		user->disk = disk_open();
		break;
	default:
		return rxe_open(&user->rig);
	}
	return user->dev < 0 || user->disk < 0 ? -ENODEV : 0;
}

static int user_init(struct user *user, enum importer importer)
{
	int advice = importer == EDU ? MADV_NOHUGEPAGE : MADV_HUGEPAGE, err;
	struct rig *rig = &user->rig;

	memset(user, 0, sizeof(*user));
	user->importer = importer;
	user->worker.rig = rig;
	err = buffer_map(&rig->buf, SIZE, advice);
	if (!err)
		err = buffer_map(&rig->ram, SIZE, MADV_NOHUGEPAGE);
	if (err)
		return err;
	buffer_write(&rig->buf, 0, SIZE);
	buffer_write(&rig->ram, 0, SIZE);
	return user_open(user);
}

static int work_start(struct user *user)
{
	user->worker.stop = false;
	user->worker.err = 0;
	user->working = true;
	return worker_start(&user->worker, rounds[user->importer]);
}

/* Returns the result of the last round. */
static int work_stop(struct user *user)
{
	user->working = false;
	return worker_stop(&user->worker);
}

static void user_fini(struct user *user)
{
	if (user->working)
		work_stop(user);
	user_close(user);
	buffer_unmap(&user->rig.buf);
	buffer_unmap(&user->rig.ram);
}

/* Give known contents to the part that may be half written. */
static void user_rewrite(struct user *user)
{
	if (user->torn_size)
		buffer_write(&user->rig.buf, user->torn, user->torn_size);
	user->torn_size = 0;
}

/*
 * Have the importer get aliases of pages for which it has none. Returns how many
 * more or fewer it got than expected, or a negative errno; 0 is right.
 */
static int64_t user_miscounts(struct user *user)
{
	struct buffer *buf = &user->rig.buf, *ram = &user->rig.ram;
	struct rig *rig = &user->rig;
	const char *counter = alias_route();
	uint64_t before;
	int pages, err;

	if (user->importer == RXE)
		counter = "alias_cpu";
	if (!counter)
		return 0;

	before = stat_read(counter);
	switch (user->importer) {
	case EDU:
		pages = 1;
		err = edu_copy(user->dev, ram->mem, buf->mem, 8);
		break;
	case NVME:
		pages = CHUNK / PAGE;
		err = disk_io(user, buf->mem, 0, CHUNK, true);
		break;
	default:
		pages = PAGES;
		err = rig_prefetch(rig, 0, SIZE, 1);
		break;
	}
	memcpy(ram->mem, ram->shadow, 8);
	return err ? err : (int64_t)(stat_read(counter) - before - pages);
}

static uint64_t aliases(void)
{
	return stat_read("alias_cpu") + stat_read("alias_bus") +
	       stat_read("alias_host_bridge");
}

/* To see whether edu's DMA accesses the addresses that are, or were, a GPU's BAR. */
struct watch {
	volatile uint8_t *regs;
	uint64_t start;
	uint64_t end;
};

static int watch_init(struct watch *watch, const char *pci)
{
	char path[PATH_MAX];
	FILE *file;
	int n = 0;

	snprintf(path, sizeof(path), PCI_DEVICES "%s/resource", pci);
	file = fopen(path, "r");
	if (!file)
		return -errno;
	/* The third line is BAR 2 */
	n = fscanf(file, "%*[^\n]\n%*[^\n]\n%" SCNx64 " %" SCNx64,
		   &watch->start, &watch->end);
	fclose(file);
	if (n != 2)
		return -EIO;
	watch->regs = edu_map_regs();
	return watch->regs ? 0 : -ENODEV;
}

static bool watch_sees_edu(const struct watch *watch)
{
	uint64_t addr[2];
	int i;

	if (!watch->regs || !(edu_read(watch->regs, EDU_DMA_CMD) & EDU_DMA_RUN))
		return false;
	addr[0] = edu_read(watch->regs, EDU_DMA_SRC);
	addr[1] = edu_read(watch->regs, EDU_DMA_DST);
	for (i = 0; i < 2; i++)
		if (addr[i] >= watch->start && addr[i] <= watch->end)
			return true;
	return false;
}

/* Wait for @more rounds of all that work. -EFAULT if edu was seen in the BAR. */
static int work(struct user *users, int n, unsigned long more,
		const struct watch *watch)
{
	unsigned long from[NR_IMPORTERS];
	double end = now() + 2 * PROMPT;
	bool busy;
	int i;

	for (i = 0; i < n; i++)
		from[i] = users[i].worker.rounds;
	do {
		busy = false;
		for (i = 0; i < n; i++)
			if (!users[i].worker.err)
				busy |= users[i].worker.rounds < from[i] + more;
		if (watch && watch_sees_edu(watch))
			return -EFAULT;
		usleep(2000);
	} while (busy && now() < end);
	return busy ? -ETIMEDOUT : 0;
}

static int wait_for_error(struct user *user)
{
	double end = now() + PROMPT;

	while (!user->worker.err && now() < end)
		usleep(2000);
	return user->worker.err ? 0 : -ETIMEDOUT;
}

/* A pattern for the VRAM of a GPU without a driver, which no importer may access. */
#define POISON	0x6b5a4b3c2d1e0ff0ULL

static int vram_poison(const char *pci)
{
	uint64_t *vram;
	size_t i, size;

	vram = pci_map_bar(pci, 2, &size);
	if (!vram)
		return -ENODEV;
	for (i = 0; i < size / sizeof(*vram); i++)
		vram[i] = POISON + i;
	munmap(vram, size);
	return 0;
}

static ssize_t vram_differs(const char *pci)
{
	ssize_t ret = -1;
	uint64_t *vram;
	size_t i, size;

	vram = pci_map_bar(pci, 2, &size);
	if (!vram)
		return 0;
	for (i = 0; i < size / sizeof(*vram) && ret == -1; i++)
		if (vram[i] != POISON + i)
			ret = i * sizeof(*vram);
	munmap(vram, size);
	return ret;
}

static int pages_elsewhere(const struct buffer *buf)
{
	int pages = 0;
	size_t pos;

	for (pos = 0; pos < buf->size; pos += PAGE)
		pages += page_is_elsewhere(buf->mem + pos);
	return pages;
}

/* Two GPUs that are removed, while each importer works. */

FIXTURE(gpu_hotplug) {
	struct device dev[2];
	int gpu[2];
	uint64_t vram_free;
	struct user user[NR_IMPORTERS];
	struct watch watch;
	int log;
};

FIXTURE_VARIANT(gpu_hotplug) {
	enum way way;
};

FIXTURE_VARIANT_ADD(gpu_hotplug, unbind) {
	.way = UNBIND,
};

FIXTURE_VARIANT_ADD(gpu_hotplug, remove) {
	.way = REMOVE,
};

FIXTURE_VARIANT_ADD(gpu_hotplug, unplug) {
	.way = UNPLUG,
};

FIXTURE_SETUP(gpu_hotplug)
{
	int i;

	self->log = klog_open();
	ASSERT_LE(0, self->log);
	for (i = 0; i < 2; i++) {
		self->gpu[i] = gpu_open(i);
		ASSERT_LE(0, self->gpu[i]);
		self->dev[i].part = &gpus[i];
		ASSERT_EQ(0, gpu_pci_address(self->gpu[i], self->dev[i].pci,
					     PCI_ADDR_LEN));
	}
	self->vram_free = vram_free(self->gpu[0]);
	ASSERT_EQ(0, watch_init(&self->watch, self->dev[0].pci));
	for (i = 0; i < NR_IMPORTERS; i++)
		ASSERT_EQ(0, user_init(&self->user[i], i));
}

FIXTURE_TEARDOWN(gpu_hotplug)
{
	int i;

	for (i = 0; i < NR_IMPORTERS; i++) {
		EXPECT_EQ(-1, buffer_differs(&self->user[i].rig.buf));
		user_fini(&self->user[i]);
	}
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(0, bring_back(&self->dev[i], variant->way));
		EXPECT_EQ(0, gpu_reopen(&self->gpu[i], i, &self->dev[i]));
		EXPECT_EQ(0, vram_leaked(self->gpu[i], self->vram_free));
		close(self->gpu[i]);
	}
	EXPECT_EQ(0, klog_faults(self->log));
	close(self->log);
}

/* All memory is in RAM, and no importer accesses its old place in VRAM. */
#define EXPECT_GONE() do {						\
	uint64_t __aliases;						\
	int __i;							\
									\
	if (variant->way == UNBIND)					\
		EXPECT_EQ(0, vram_poison(self->dev[0].pci));		\
	__aliases = aliases();						\
	EXPECT_EQ(0, work(self->user, NR_IMPORTERS, 2, &self->watch));	\
	EXPECT_EQ(__aliases, aliases());				\
	for (__i = 0; __i < NR_IMPORTERS; __i++) {			\
		EXPECT_EQ(0, work_stop(&self->user[__i])) {	\
			TH_LOG("%s", names[__i]);			\
		}							\
		EXPECT_EQ(0, pages_elsewhere(&self->user[__i].rig.buf));	\
		EXPECT_EQ(-1, buffer_differs(&self->user[__i].rig.buf));	\
	}								\
	if (variant->way == UNBIND)					\
		EXPECT_EQ(-1, vram_differs(self->dev[0].pci));		\
} while (0)

TEST_F(gpu_hotplug, gpu_removal_under_traffic_migrates_vram_to_ram)
{
	int i, times;

	for (times = 0; times < TIMES; times++) {
		for (i = 0; i < NR_IMPORTERS; i++) {
			struct user *user = &self->user[i];

			ASSERT_EQ(0, buffer_to_vram(&user->rig.buf,
						    self->gpu[0], 0, SIZE));
			EXPECT_EQ(0, user_miscounts(user)) {
				TH_LOG("%s", names[i]);
			}
		}
		/* Only now, since the counter does not tell importers apart. */
		for (i = 0; i < NR_IMPORTERS; i++)
			ASSERT_EQ(0, work_start(&self->user[i]));
		EXPECT_EQ(0, work(self->user, NR_IMPORTERS, 1, NULL));

		ASSERT_EQ(0, take_away(self->dev, 1, variant->way, !times));
		EXPECT_GONE();

		ASSERT_EQ(0, bring_back(&self->dev[0], variant->way));
		ASSERT_EQ(0, gpu_reopen(&self->gpu[0], 0, &self->dev[0]));
		ASSERT_EQ(0, gpu_reopen(&self->gpu[1], 1, &self->dev[1]));
	}
}

TEST_F(gpu_hotplug, removal_of_both_gpus_migrates_vram_to_ram)
{
	int i;

	for (i = 0; i < NR_IMPORTERS; i++) {
		struct user *user = &self->user[i];

		ASSERT_EQ(0, buffer_to_vram(&user->rig.buf, self->gpu[0], 0,
					    SIZE / 2));
		ASSERT_EQ(0, buffer_to_vram(&user->rig.buf, self->gpu[1],
					    SIZE / 2, SIZE / 2));
		ASSERT_EQ(0, work_start(user));
	}
	EXPECT_EQ(0, work(self->user, NR_IMPORTERS, 1, NULL));

	ASSERT_EQ(0, take_away(self->dev, 2, variant->way, false));
	EXPECT_GONE();
}

/* Importers that are removed, one at a time. The others stay. */

FIXTURE(importer_hotplug) {
	struct device dev;
	int gpu;
	uint64_t vram_free;
	struct user user[NR_IMPORTERS];
	int log;
};

FIXTURE_VARIANT(importer_hotplug) {
	enum importer importer;
	enum way way;
};

#define IMPORTER(_name, _importer, _way)				\
FIXTURE_VARIANT_ADD(importer_hotplug, _name) {				\
	.importer = _importer,						\
	.way = _way,							\
}

IMPORTER(edu_unbind, EDU, UNBIND);
IMPORTER(edu_remove, EDU, REMOVE);
IMPORTER(edu_unplug, EDU, UNPLUG);
IMPORTER(nvme_unbind, NVME, UNBIND);
IMPORTER(nvme_remove, NVME, REMOVE);
IMPORTER(nvme_unplug, NVME, UNPLUG);
IMPORTER(rxe_delete, RXE, REMOVE);

FIXTURE_SETUP(importer_hotplug)
{
	int i;

	self->log = klog_open();
	ASSERT_LE(0, self->log);
	self->gpu = gpu_open(0);
	ASSERT_LE(0, self->gpu);
	self->vram_free = vram_free(self->gpu);
	for (i = 0; i < NR_IMPORTERS; i++)
		ASSERT_EQ(0, user_init(&self->user[i], i));
	if (variant->importer == RXE)
		return;
	self->dev.part = variant->importer == EDU ? &edu : &nvme;
	ASSERT_EQ(0, variant->importer == EDU ?
		     pci_find(0x1234, 0x11e8, self->dev.pci) :
		     pci_find(0x1b36, 0x0010, self->dev.pci));
}

FIXTURE_TEARDOWN(importer_hotplug)
{
	int i;

	for (i = 0; i < NR_IMPORTERS; i++) {
		EXPECT_EQ(-1, buffer_differs(&self->user[i].rig.buf));
		user_fini(&self->user[i]);
	}
	if (self->dev.part)
		EXPECT_EQ(0, bring_back(&self->dev, variant->way));
	EXPECT_EQ(0, vram_leaked(self->gpu, self->vram_free));
	close(self->gpu);
	EXPECT_EQ(0, klog_faults(self->log));
	close(self->log);
}

static int importer_go(const struct device *dev, enum way way)
{
	if (dev->part)
		return take_away(dev, 1, way, false);
	return rxe_delete();
}

static int importer_come(const struct device *dev, enum way way)
{
	if (dev->part)
		return bring_back(dev, way);
	return rxe_add();
}

/* Is this the error for an importer whose device is gone, perhaps during a request? */
static bool is_precise(enum importer importer, int err)
{
	switch (importer) {
	case EDU:
		return err == -ENODEV;
	case NVME:
		return err == -ENODEV || err == -EIO;
	default:
		/* From the device, or from the last completion that it sent */
		return err == -EIO || err == -EREMOTEIO;
	}
}

/* Does the kernel list a route from the device to a GPU? */
static bool has_route(const char *pci)
{
	char client[64];

	snprintf(client, sizeof(client), " client=%s ", pci);
	return file_says("/sys/kernel/debug/pci_p2pdma_routes", client);
}

/* The file leaves out a device as long as its driver is busy to begin. */
static bool route_comes(const char *pci)
{
	int ms;

	for (ms = 0; ms < 5000 && !has_route(pci); ms += 10)
		usleep(10000);
	return ms < 5000;
}

TEST_F(importer_hotplug, importer_removal_fails_only_its_own_requests)
{
	struct user *victim = &self->user[variant->importer];
	int i, times, err;

	for (times = 0; times < TIMES; times++) {
		uint64_t evicted;

		for (i = 0; i < NR_IMPORTERS; i++) {
			struct user *user = &self->user[i];

			ASSERT_EQ(0, buffer_to_vram(&user->rig.buf, self->gpu,
						    0, SIZE));
			EXPECT_EQ(0, user_miscounts(user)) {
				TH_LOG("%s", names[i]);
			}
		}
		evicted = pages_evicted(self->gpu);
		for (i = 0; i < NR_IMPORTERS; i++)
			ASSERT_EQ(0, work_start(&self->user[i]));
		EXPECT_EQ(0, work(self->user, NR_IMPORTERS, 1, NULL));

		ASSERT_EQ(0, importer_go(&self->dev, variant->way));

		/* The victim gets an error, and no other user does. */
		EXPECT_EQ(0, wait_for_error(victim));
		EXPECT_EQ(0, work(self->user, NR_IMPORTERS, 1, NULL));
		for (i = 0; i < NR_IMPORTERS; i++) {
			err = work_stop(&self->user[i]);
			if (&self->user[i] == victim) {
				EXPECT_TRUE(is_precise(i, err)) {
					TH_LOG("%s: %s", names[i], strerror(-err));
				}
				if (err == -EREMOTEIO) {
					TH_LOG("completion: %s",
					       ibv_wc_status_str(rdma_status(&victim->rig.conn.near)));
				}
			} else {
				EXPECT_EQ(0, err) {
					TH_LOG("%s", names[i]);
				}
			}
		}
		if (self->dev.part)
			EXPECT_FALSE(has_route(self->dev.pci));

		/* The GPU is not affected. */
		if (reachable())
			EXPECT_EQ(evicted, pages_evicted(self->gpu));
		user_rewrite(victim);
		for (i = 0; i < NR_IMPORTERS; i++)
			EXPECT_EQ(-1, buffer_differs_on_gpu(&self->user[i].rig.buf,
							    self->gpu));

		ASSERT_EQ(0, importer_come(&self->dev, variant->way));
		user_close(victim);
		ASSERT_EQ(0, user_open(victim));
		if (self->dev.part)
			EXPECT_TRUE(route_comes(self->dev.pci));
	}
}

/* Removal while requests are under way, or sleep. */

FIXTURE(busy_unbind) {
	struct device dev;
	int gpu;
	uint64_t vram_free;
	struct watch watch;
	int log;
};

FIXTURE_SETUP(busy_unbind)
{
	self->log = klog_open();
	ASSERT_LE(0, self->log);
	self->gpu = gpu_open(0);
	ASSERT_LE(0, self->gpu);
	self->vram_free = vram_free(self->gpu);
	self->dev.part = &gpus[0];
	ASSERT_EQ(0, gpu_pci_address(self->gpu, self->dev.pci, PCI_ADDR_LEN));
	ASSERT_EQ(0, watch_init(&self->watch, self->dev.pci));
}

FIXTURE_TEARDOWN(busy_unbind)
{
	EXPECT_EQ(0, bring_back(&self->dev, UNBIND));
	EXPECT_EQ(0, gpu_reopen(&self->gpu, 0, &self->dev));
	EXPECT_EQ(0, vram_leaked(self->gpu, self->vram_free));
	close(self->gpu);
	EXPECT_EQ(0, klog_faults(self->log));
	close(self->log);
}

/* One request of a user, in a thread. */
struct request {
	struct user *user;
	int (*fn)(struct user *user);
	pthread_t thread;
	volatile bool done;
	int err;
};

static void *request_main(void *arg)
{
	struct request *request = arg;

	request->err = request->fn(request->user);
	request->done = true;
	return NULL;
}

static int request_start(struct request *request, int (*fn)(struct user *user),
			 struct user *user)
{
	memset(request, 0, sizeof(*request));
	request->fn = fn;
	request->user = user;
	return -pthread_create(&request->thread, NULL, request_main, request);
}

static int request_end(struct request *request)
{
	double end = now() + PROMPT;

	while (!request->done && now() < end)
		usleep(2000);
	if (!request->done)
		return -ETIMEDOUT;
	pthread_join(request->thread, NULL);
	return request->err;
}

/* In two pieces. The second must not use the mapping of the first, which is gone. */
static int edu_fills_page(struct user *user)
{
	return edu_copy(user->dev, user->rig.buf.mem,
			user->rig.ram.mem + PAGE / 2, PAGE);
}

TEST_F(busy_unbind, unbind_waits_for_edu_dma_to_vram)
{
	struct request copy;
	struct user user;
	uint64_t addr;
	int times;

	ASSERT_EQ(0, user_init(&user, EDU));
	for (times = 0; times < TIMES; times++) {
		struct buffer *buf = &user.rig.buf;

		ASSERT_EQ(0, buffer_to_vram(buf, self->gpu, 0, PAGE));
		buffer_write(&user.rig.ram, 0, 2 * PAGE);
		ASSERT_EQ(0, request_start(&copy, edu_fills_page, &user));
		while (!edu_writes(self->watch.regs) && !copy.done)
			;
		addr = edu_read(self->watch.regs, EDU_DMA_DST);
		ASSERT_EQ(0, file_write("/sys/bus/pci/drivers/vsvm/unbind",
					self->dev.pci));

		/* The piece that was under way has ended. */
		EXPECT_FALSE(reachable() && edu_writes(self->watch.regs) &&
			     edu_read(self->watch.regs, EDU_DMA_DST) == addr);
		EXPECT_FALSE(watch_sees_edu(&self->watch));
		EXPECT_EQ(0, vram_poison(self->dev.pci));
		EXPECT_EQ(0, request_end(&copy));
		memcpy(buf->shadow, user.rig.ram.shadow + PAGE / 2, PAGE);
		EXPECT_EQ(-1, buffer_differs(buf));
		EXPECT_EQ(-1, vram_differs(self->dev.pci));
		ASSERT_EQ(0, bring_back(&self->dev, UNBIND));
		ASSERT_EQ(0, gpu_reopen(&self->gpu, 0, &self->dev));
	}
	user_fini(&user);
}

static int disk_fills_chunk(struct user *user)
{
	return disk_io(user, user->rig.buf.mem, 0, CHUNK, false);
}

TEST_F(busy_unbind, unbind_waits_for_disk_io_to_vram)
{
	struct request request;
	struct user user;
	pid_t pid;

	if (!reachable())
		SKIP(return, "the disk does not reach VRAM");
	ASSERT_EQ(0, user_init(&user, NVME));
	buffer_write(&user.rig.ram, 0, SIZE);
	ASSERT_EQ(0, disk_io(&user, user.rig.ram.mem, 0, CHUNK, true));
	ASSERT_EQ(0, buffer_to_vram(&user.rig.buf, self->gpu, 0, SIZE));

	ASSERT_EQ(0, disk_throttle("disk", 1));
	EXPECT_EQ(0, disk_io(&user, user.rig.ram.mem, 0, 512, false));
	EXPECT_EQ(0, request_start(&request, disk_fills_chunk, &user));
	usleep(200000);
	EXPECT_EQ(0, removal_start(&pid, &self->dev, UNBIND));
	EXPECT_EQ(-ETIMEDOUT, command_wait(pid, 1));
	EXPECT_FALSE(request.done);

	EXPECT_EQ(0, disk_throttle("disk", 0));
	EXPECT_EQ(0, request_end(&request));
	EXPECT_EQ(0, command_wait(pid, PROMPT));
	EXPECT_EQ(0, vram_poison(self->dev.pci));
	memcpy(user.rig.buf.shadow, user.rig.ram.shadow, CHUNK);
	EXPECT_EQ(-1, buffer_differs(&user.rig.buf));
	user_fini(&user);
}

/* The first page of RAM is there, the second one in swap. */
static int edu_fills_two_pages(struct user *user)
{
	return edu_copy(user->dev, user->rig.buf.mem, user->rig.ram.mem,
			2 * PAGE);
}

static int rxe_fills_two_pages(struct user *user)
{
	return rig_write(&user->rig, 0, 2 * PAGE);
}

TEST_F(busy_unbind, unbind_does_not_wait_for_importer_page_faults)
{
	int (* const fns[])(struct user *user) = {
		edu_fills_two_pages, rxe_fills_two_pages
	};
	struct request request[2];
	struct user user[2];
	pid_t pid;
	int i;

	ASSERT_EQ(0, user_init(&user[0], EDU));
	ASSERT_EQ(0, user_init(&user[1], RXE));
	for (i = 0; i < 2; i++) {
		buffer_write(&user[i].rig.ram, 0, 2 * PAGE);
		ASSERT_EQ(0, buffer_to_vram(&user[i].rig.buf, self->gpu, 0, SIZE));
		ASSERT_EQ(0, page_swap_out(user[i].rig.ram.mem + PAGE));
	}
	EXPECT_EQ(0, swap_sleep(true));
	for (i = 0; i < 2; i++)
		EXPECT_EQ(0, request_start(&request[i], fns[i], &user[i]));

	/* edu has done one page when it sleeps over the next one */
	usleep(500000);
	EXPECT_EQ(0, removal_start(&pid, &self->dev, UNBIND));
	EXPECT_EQ(0, command_wait(pid, PROMPT));
	for (i = 0; i < 2; i++)
		EXPECT_FALSE(request[i].done);
	EXPECT_EQ(0, vram_poison(self->dev.pci));

	EXPECT_EQ(0, swap_sleep(false));
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(0, request_end(&request[i]));
		memcpy(user[i].rig.buf.shadow, user[i].rig.ram.shadow,
		       2 * PAGE);
		EXPECT_EQ(-1, buffer_differs(&user[i].rig.buf));
		user_fini(&user[i]);
	}
	EXPECT_EQ(-1, vram_differs(self->dev.pci));
}

static int gpu_sums_page(struct user *user)
{
	uint64_t sum;

	return gpu_sum(user->dev, user->rig.ram.mem, PAGE, &sum);
}

/* A fault may sleep for as long as the daemon of a file system likes. */
TEST_F(busy_unbind, unbind_does_not_wait_for_gpu_page_fault)
{
	struct user user = { .dev = self->gpu };
	struct request request;
	struct held held;
	pid_t pid;

	ASSERT_EQ(0, held_map(&held, PAGE));
	user.rig.ram.mem = held.mem;
	ASSERT_EQ(0, request_start(&request, gpu_sums_page, &user));
	EXPECT_EQ(0, held_wait(&held, NULL));
	EXPECT_EQ(0, removal_start(&pid, &self->dev, UNBIND));
	EXPECT_EQ(0, command_wait(pid, PROMPT));
	EXPECT_FALSE(request.done);
	EXPECT_EQ(0, vram_poison(self->dev.pci));

	EXPECT_EQ(0, held_release(&held));
	EXPECT_EQ(-ENODEV, request_end(&request));
	EXPECT_EQ(-1, vram_differs(self->dev.pci));
	held_unmap(&held);
}

TEST_F(busy_unbind, unbind_clears_vram)
{
	struct buffer buf;
	size_t i, size;
	uint64_t *vram;

	ASSERT_EQ(0, buffer_map(&buf, SIZE, MADV_HUGEPAGE));
	ASSERT_EQ(0, buffer_to_vram(&buf, self->gpu, 0, SIZE));
	ASSERT_EQ(0, take_away(&self->dev, 1, UNBIND, false));
	vram = pci_map_bar(self->dev.pci, 2, &size);
	ASSERT_NE(NULL, vram);
	for (i = 0; i < size / sizeof(*vram) && !vram[i]; i++)
		;
	EXPECT_EQ(size / sizeof(*vram), i);
	munmap(vram, size);
	EXPECT_EQ(-1, buffer_differs(&buf));
	buffer_unmap(&buf);
}

/*
 * A GPU that is pulled without notice: its BAR reads as 0xff from then on. No
 * process may take that for the contents of its memory.
 */

FIXTURE(gpu_pulled) {
	struct device dev;
	int gpu;
	uint64_t vram_free;
	struct rig rig;
};

FIXTURE_VARIANTS_BY_ADVICE(gpu_pulled);

#define PCI_COMMAND		4
#define PCI_COMMAND_MEMORY	2

static int pull(const char *pci)
{
	uint16_t command;
	char path[PATH_MAX];
	int fd, err = -EIO;

	snprintf(path, sizeof(path), PCI_DEVICES "%s/config", pci);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (pread(fd, &command, 2, PCI_COMMAND) == 2) {
		command &= ~PCI_COMMAND_MEMORY;
		err = pwrite(fd, &command, 2, PCI_COMMAND) == 2 ? 0 : -EIO;
	}
	close(fd);
	return err;
}

static int reads_a_byte(void *arg)
{
	return *(volatile uint8_t *)arg == 0xff;
}

/* Returns 0 if a process that reads the memory is killed. */
static int is_lost(uint8_t *mem)
{
	struct child child;
	int err = child_fork(&child, reads_a_byte, mem);

	if (err)
		return err;
	err = child_do(&child);
	child_end(&child);
	return err == -EPIPE ? 0 : -EILSEQ;
}

FIXTURE_SETUP(gpu_pulled)
{
	self->dev.part = &gpus[0];
	ASSERT_EQ(0, rig_init_in_vram(&self->rig, SIZE, variant->advice));
	ASSERT_EQ(0, gpu_pci_address(self->rig.gpu, self->dev.pci, PCI_ADDR_LEN));
	ASSERT_EQ(0, rig_prefetch(&self->rig, 0, SIZE, 1));
	ASSERT_EQ(0, pull(self->dev.pci));
}

FIXTURE_TEARDOWN(gpu_pulled)
{
	EXPECT_EQ(0, bring_back(&self->dev, UNBIND));
	EXPECT_EQ(0, gpu_reopen(&self->rig.gpu, 0, &self->dev));
	/* The GPU works as before */
	buffer_write(&self->rig.ram, 0, SIZE);
	EXPECT_EQ(0, buffer_to_vram(&self->rig.ram, self->rig.gpu, 0, SIZE));
	EXPECT_EQ(-1, buffer_differs(&self->rig.ram));
	EXPECT_EQ(0, rig_fini(&self->rig));
	/* ... and so does the driver, without the memory that was lost */
	EXPECT_EQ(0, vsvm_reload("p2p_pages=1"));
}

TEST_F(gpu_pulled, access_to_vram_of_pulled_gpu_raises_sigbus)
{
	struct buffer *buf = &self->rig.buf;
	uint64_t sum;

	EXPECT_EQ(-ENODEV, gpu_sum(self->rig.gpu, buf->mem, PAGE, &sum));
	EXPECT_EQ(0, is_lost(buf->mem));
	EXPECT_EQ(0, is_lost(buf->mem + SIZE - PAGE));
	EXPECT_EQ(-EFAULT, gpu_to_ram(self->rig.gpu, buf->mem, SIZE));
	ASSERT_EQ(0, take_away(&self->dev, 1, UNBIND, false));
}

/* The driver has not noticed yet, and RDMA copies from an alias. */
TEST_F(gpu_pulled, rdma_on_vram_of_pulled_gpu_fails)
{
	struct rig *rig = &self->rig;

	EXPECT_EQ(-EREMOTEIO, rig_read(rig, 0, PAGE));
	EXPECT_EQ(0, conn_revive(&rig->conn));
	EXPECT_EQ(-EREMOTEIO, rig_write(rig, 0, PAGE));
	EXPECT_EQ(0, conn_revive(&rig->conn));
	ASSERT_EQ(0, take_away(&self->dev, 1, UNBIND, false));
}

TEST_F(gpu_pulled, access_after_unbind_of_pulled_gpu_raises_sigbus)
{
	struct rig *rig = &self->rig;
	struct buffer *buf = &rig->buf;
	uint64_t aliases_before, revoked = stat_read("fallback_revoked");
	struct child child;

	/* A child shares the memory */
	ASSERT_EQ(0, child_fork(&child, reads_a_byte, buf->mem));
	EXPECT_FALSE(file_says(WINDOWS, " revoked=1"));
	ASSERT_EQ(0, take_away(&self->dev, 1, UNBIND, false));
	EXPECT_TRUE(file_says(WINDOWS, " revoked=1"));
	EXPECT_FALSE(file_says(WINDOWS, self->dev.pci));

	aliases_before = aliases();
	EXPECT_EQ(-EPIPE, child_do(&child));
	child_end(&child);
	EXPECT_EQ(0, is_lost(buf->mem));
	EXPECT_EQ(0, is_lost(buf->mem + SIZE - PAGE));
	EXPECT_EQ(revoked, stat_read("fallback_revoked"));
	EXPECT_EQ(-EREMOTEIO, rig_read(rig, 0, 2 * PAGE));
	EXPECT_LT(revoked, stat_read("fallback_revoked"));
	EXPECT_EQ(aliases_before, aliases());
	EXPECT_EQ(0, conn_revive(&rig->conn));

	/* The process drops the lost memory, and goes on */
	ASSERT_EQ(0, madvise(buf->mem, SIZE, MADV_DONTNEED));
	memset(buf->shadow, 0, SIZE);
	EXPECT_EQ(-1, buffer_differs(buf));
	EXPECT_EQ(-1, rig_differs(rig));
}

/* Processes, each of which has memory in VRAM and an importer at work. */
struct crowd {
	volatile int working;
	volatile int stop;
	volatile unsigned long rounds[NR_IMPORTERS];
};

struct member {
	struct crowd *crowd;
	enum importer importer;
};

static int member_main(void *arg)
{
	struct member *member = arg;
	struct crowd *crowd = member->crowd;
	int gpu = gpu_open(0), err;
	struct user user;

	alarm(60 * slowness());
	err = user_init(&user, member->importer);
	if (!err)
		err = buffer_to_vram(&user.rig.buf, gpu, 0, SIZE);
	__atomic_add_fetch(&crowd->working, 1, __ATOMIC_SEQ_CST);
	while (!err && !crowd->stop) {
		err = rounds[member->importer](&user.worker);
		user.worker.rounds++;
		crowd->rounds[member->importer]++;
	}
	if (!err && buffer_differs(&user.rig.buf) != -1)
		err = -EILSEQ;
	user_fini(&user);
	return err;
}

TEST_F(busy_unbind, unbind_migrates_vram_of_several_processes)
{
	struct member member[NR_IMPORTERS];
	struct child child[NR_IMPORTERS];
	unsigned long before;
	struct crowd *crowd;
	int i;

	crowd = mmap(NULL, sizeof(*crowd), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, crowd);
	for (i = 0; i < NR_IMPORTERS; i++) {
		member[i].crowd = crowd;
		member[i].importer = i;
		ASSERT_EQ(0, child_fork(&child[i], member_main, &member[i]));
	}
	for (i = 0; i < NR_IMPORTERS; i++)
		EXPECT_EQ(0, child_start(&child[i]));
	EXPECT_EQ(0, wait_until(&crowd->working, NR_IMPORTERS));

	EXPECT_EQ(0, take_away(&self->dev, 1, UNBIND, false));
	EXPECT_EQ(0, vram_poison(self->dev.pci));
	for (i = 0; i < NR_IMPORTERS; i++) {
		double end = now() + PROMPT;

		before = crowd->rounds[i];
		while (crowd->rounds[i] < before + 2 && now() < end)
			usleep(2000);
		EXPECT_LE(before + 2, crowd->rounds[i]);
	}
	crowd->stop = 1;
	for (i = 0; i < NR_IMPORTERS; i++) {
		EXPECT_EQ(0, child_result(&child[i]));
		EXPECT_EQ(0, child_end(&child[i]));
	}
	EXPECT_EQ(-1, vram_differs(self->dev.pci));
}

/* Two GPUs that are reset. Their driver stays, and VRAM keeps its contents. */

FIXTURE(gpu_reset) {
	char pci[2][PCI_ADDR_LEN];
	int gpu[2];
	uint64_t vram_free[2];
	struct user user[NR_IMPORTERS];
	int log;
};

FIXTURE_SETUP(gpu_reset)
{
	int i;

	self->log = klog_open();
	ASSERT_LE(0, self->log);
	ASSERT_EQ(0, gpus_open(self->gpu, self->vram_free));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, gpu_pci_address(self->gpu[i], self->pci[i], PCI_ADDR_LEN));
	for (i = 0; i < NR_IMPORTERS; i++) {
		ASSERT_EQ(0, user_init(&self->user[i], i));
		ASSERT_EQ(0, buffer_to_vram(&self->user[i].rig.buf, self->gpu[0],
					    0, SIZE));
	}
}

FIXTURE_TEARDOWN(gpu_reset)
{
	int i;

	EXPECT_FALSE(file_says(WINDOWS, " revoked=1"));
	for (i = 0; i < NR_IMPORTERS; i++) {
		EXPECT_EQ(-1, buffer_differs(&self->user[i].rig.buf));
		user_fini(&self->user[i]);
	}
	EXPECT_EQ(0, gpus_close(self->gpu, self->vram_free));
	EXPECT_EQ(0, klog_faults(self->log));
	close(self->log);
}

/* Each importer that reaches the memory gets new aliases. */
#define EXPECT_NEW_ALIASES() do {					\
	uint64_t __before;						\
	int __i;							\
									\
	for (__i = 0; __i < NR_IMPORTERS; __i++) {			\
		EXPECT_EQ(0, user_miscounts(&self->user[__i])) {	\
			TH_LOG("%s", names[__i]);			\
		}							\
		if (!reachable())					\
			continue;					\
		__before = aliases();					\
		EXPECT_EQ(-1, buffer_differs_on_gpu(&self->user[__i].rig.buf,	\
						    self->gpu[1]));	\
		EXPECT_LE(__before + PAGES, aliases());			\
	}								\
} while (0)

TEST_F(gpu_reset, reset_keeps_pages_and_data_in_vram)
{
	uint64_t evicted = pages_evicted(self->gpu[0]);
	int i, times;

	EXPECT_NEW_ALIASES();
	for (times = 0; times < TIMES; times++) {
		ASSERT_EQ(0, pci_reset(self->pci[0]));
		EXPECT_NEW_ALIASES();
		for (i = 0; i < NR_IMPORTERS; i++) {
			struct user *user = &self->user[i];

			EXPECT_EQ(PAGES, pages_in_vram(self->gpu[0], user->rig.buf.mem,
						       SIZE));
			EXPECT_EQ(-1, buffer_differs_on_gpu(&user->rig.buf,
							    self->gpu[0]));
			if (i != RXE && !reachable())
				continue;
			/* Read what was there before, and write for the next time */
			user->worker.rounds = 2 * times + 1;
			EXPECT_EQ(0, rounds[i](&user->worker)) {
				TH_LOG("%s", names[i]);
			}
			user->worker.rounds++;
			EXPECT_EQ(0, rounds[i](&user->worker)) {
				TH_LOG("%s", names[i]);
			}
		}
	}
	EXPECT_EQ(-1, rig_differs(&self->user[RXE].rig));
	EXPECT_EQ(evicted, pages_evicted(self->gpu[0]));
}

/* Read a page by a device of test_hmm. Returns how many faults that took. */
static int dmirror_reads(int dmirror, void *mem)
{
	static uint8_t copy[PAGE];
	struct hmm_dmirror_cmd cmd = {
		.addr = (uintptr_t)mem, .ptr = (uintptr_t)copy, .npages = 1,
	};

	if (ioctl(dmirror, HMM_DMIRROR_READ, &cmd))
		return -errno;
	return memcmp(mem, copy, PAGE) ? -EILSEQ : (int)cmd.faults;
}

/*
 * A child keeps the page in VRAM. Its parent gets another page at that address, which is
 * not in the window, and which a device maps.
 */
TEST_F(gpu_reset, reset_keeps_mappings_of_pages_in_ram)
{
	int dmirror = open("/dev/hmm_dmirror0", O_RDWR | O_CLOEXEC);
	struct child child;
	struct buffer buf;

	ASSERT_LE(0, dmirror);
	ASSERT_EQ(0, buffer_map(&buf, SIZE, MADV_NOHUGEPAGE));
	buffer_write(&buf, 0, SIZE);
	ASSERT_EQ(0, buffer_to_vram(&buf, self->gpu[0], 0, SIZE));
	ASSERT_EQ(0, child_fork(&child, NULL, NULL));
	ASSERT_EQ(0, madvise(buf.mem, SIZE, MADV_DONTNEED));
	buffer_write(&buf, 0, SIZE);
	EXPECT_EQ(1, dmirror_reads(dmirror, buf.mem));
	EXPECT_EQ(0, dmirror_reads(dmirror, buf.mem));

	EXPECT_EQ(-1, rig_differs(&self->user[RXE].rig));	/* it uses the window */
	EXPECT_EQ(0, pci_reset(self->pci[0]));
	EXPECT_EQ(0, dmirror_reads(dmirror, buf.mem));
	EXPECT_EQ(0, child_end(&child));
	close(dmirror);
	buffer_unmap(&buf);
}

static int other_gpu_reads(struct worker *worker)
{
	return buffer_differs_on_gpu(&worker->rig->buf, worker->gpu) == -1 ? 0 : -EILSEQ;
}

TEST_F(gpu_reset, repeated_resets_under_traffic_keep_data)
{
	struct rig rig = {};
	struct worker reader = { .rig = &rig, .gpu = self->gpu[1] };
	int i, times;

	ASSERT_EQ(0, buffer_map(&rig.buf, SIZE, MADV_HUGEPAGE));
	buffer_write(&rig.buf, 0, SIZE);
	ASSERT_EQ(0, buffer_to_vram(&rig.buf, self->gpu[0], 0, SIZE));
	ASSERT_EQ(0, worker_start(&reader, other_gpu_reads));
	for (i = 0; i < NR_IMPORTERS; i++)
		ASSERT_EQ(0, work_start(&self->user[i]));

	for (times = 0; times < 5 * TIMES; times++) {
		EXPECT_EQ(0, work(self->user, NR_IMPORTERS, 1, NULL));
		EXPECT_EQ(0, pci_reset(self->pci[times % 2]));
		/* A page for which an importer asks during a reset migrates */
		for (i = 0; i < NR_IMPORTERS; i++)
			EXPECT_EQ(0, gpu_to_vram(self->gpu[0], self->user[i].rig.buf.mem,
						 SIZE, NULL));
		EXPECT_EQ(0, gpu_to_vram(self->gpu[0], rig.buf.mem, SIZE, NULL));
	}
	for (i = 0; i < NR_IMPORTERS; i++) {
		EXPECT_EQ(0, work_stop(&self->user[i])) {
			TH_LOG("%s", names[i]);
		}
	}
	EXPECT_EQ(0, worker_stop(&reader));
	EXPECT_LT(0, reader.rounds);
	EXPECT_EQ(-1, buffer_differs(&rig.buf));
	buffer_unmap(&rig.buf);
}

/*
 * The kernel remembers, by a device's PCI address, whether it reaches a GPU. Below
 * ports that redirect, it does not. If they stop redirecting, a device that returns
 * to the same address does, and the other way round.
 */
FIXTURE(route) {
	struct device dev;
	int gpu;
	char port[2][PCI_ADDR_LEN];
	uint16_t control[2];
	struct user user;
};

FIXTURE_VARIANT(route) {
	enum way way;
};

FIXTURE_VARIANT_ADD(route, remove) {
	.way = REMOVE,
};

FIXTURE_VARIANT_ADD(route, unplug) {
	.way = UNPLUG,
};

#define ACS_REDIRECT	0x2c	/* requests, completions, and egress control */

static int acs_control(const char *port, uint16_t *value, bool write)
{
	char path[PATH_MAX];
	uint32_t header;
	int pos, fd, err = -ENODEV;

	snprintf(path, sizeof(path), PCI_DEVICES "%s/config", port);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	for (pos = 0x100; pos && pread(fd, &header, 4, pos) == 4; pos = header >> 20) {
		if ((header & 0xffff) != 0x0d)
			continue;
		if (write)
			err = pwrite(fd, value, 2, pos + 6) == 2 ? 0 : -EIO;
		else
			err = pread(fd, value, 2, pos + 6) == 2 ? 0 : -EIO;
		break;
	}
	close(fd);
	return err;
}

FIXTURE_SETUP(route)
{
	int i;

	ASSERT_STREQ("acs_redirect", getenv("LAB_REASON") ?: "");
	ASSERT_FALSE(reachable());
	self->gpu = gpu_open(0);
	ASSERT_LE(0, self->gpu);
	self->dev.part = &edu;
	ASSERT_EQ(0, pci_find(0x1234, 0x11e8, self->dev.pci));
	ASSERT_EQ(0, pci_port(self->dev.pci, self->port[0]));
	ASSERT_EQ(0, gpu_pci_address(self->gpu, self->port[1], PCI_ADDR_LEN));
	ASSERT_EQ(0, pci_port(self->port[1], self->port[1]));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, acs_control(self->port[i], &self->control[i], false));
	ASSERT_EQ(0, user_init(&self->user, EDU));
}

FIXTURE_TEARDOWN(route)
{
	int i;

	for (i = 0; i < 2; i++)
		EXPECT_EQ(0, acs_control(self->port[i], &self->control[i], true));
	user_fini(&self->user);
	close(self->gpu);
}

TEST_F(route, returning_device_gets_new_p2pdma_map_type)
{
	static const bool redirected[] = { true, false, true };
	struct buffer *buf = &self->user.rig.buf, *ram = &self->user.rig.ram;
	unsigned int i, j;

	for (i = 0; i < ARRAY_LEN(redirected); i++) {
		uint64_t bus, unreachable, evicted;

		if (i)
			ASSERT_EQ(0, take_away(&self->dev, 1, variant->way, false));
		for (j = 0; j < 2; j++) {
			uint16_t control = self->control[j];

			if (!redirected[i])
				control &= ~ACS_REDIRECT;
			ASSERT_EQ(0, acs_control(self->port[j], &control, true));
		}
		if (i) {
			ASSERT_EQ(0, bring_back(&self->dev, variant->way));
			user_close(&self->user);
			ASSERT_EQ(0, user_open(&self->user));
		}

		ASSERT_EQ(0, buffer_to_vram(buf, self->gpu, 0, PAGE));
		evicted = pages_evicted(self->gpu);
		bus = stat_read("alias_bus");
		unreachable = stat_read("fallback_unreachable");
		ASSERT_EQ(0, edu_copy(self->user.dev, ram->mem, buf->mem, PAGE));
		EXPECT_EQ(-1, differs(ram->mem, buf->shadow, PAGE));
		EXPECT_EQ(!redirected[i], stat_read("alias_bus") - bus);
		EXPECT_EQ(redirected[i], pages_evicted(self->gpu) != evicted);
		EXPECT_EQ(redirected[i],
			  stat_read("fallback_unreachable") != unreachable);
	}
}

int main(int argc, char **argv)
{
	/* A disk can only use VRAM that has struct pages. */
	if (vsvm_reload("p2p_pages=1"))
		printf("# vsvm does not load\n");
	atexit(vsvm_restore);
	return test_harness_run(argc, argv);
}
