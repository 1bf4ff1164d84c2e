// SPDX-License-Identifier: GPL-2.0
/*
 * Everything at once and at random, for STRESS_S seconds: processes and threads write
 * and read the same pages by every means, move them, and change the address space under
 * each other. At the same time links, the switch, devices and free memory come and go.
 * Each word identifies itself (words.h), so that its writer knows exactly which word it
 * has to find there.
 *
 * Hosts are processes with an arena of memory each. An arena consists of regions, a
 * region of units. A unit is written by one actor: a thread of the host, or of a
 * neighbouring process. Units of different actors lie side by side. stress_ops.c says
 * with which errors an operation may fail; any other error is a failure of the test.
 *
 *   STRESS_S=120       how long
 *   STRESS_SEED=n      for the choice of operations, as printed by another run
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "gpu.h"
#include "measure.h"
#include "stress.h"
#include "lib/file.h"
#include "lib/harness.h"
#include "lib/rxe.h"
#include "lib/stats.h"
#include "lib/vsvm.h"

static pthread_mutex_t region_lock[REGIONS];

static enum kind choose(struct actor *a)
{
	unsigned int kind, sum = 0, at;

	if (a->mem >= 0) {
		usleep(chance(a, 20000));
		return chance(a, 2) ? K_write_other : K_look_other;
	}
	for (kind = 0; kind < NR_KINDS; kind++)
		sum += operations[kind].weight;
	at = chance(a, sum);
	for (kind = 0; at >= operations[kind].weight; kind++)
		at -= operations[kind].weight;
	return kind;
}

static void target_unit(struct actor *a, struct target *t, unsigned int region,
			unsigned int index)
{
	struct unit *unit = &a->units[region][index];

	*t = (struct target) {
		.region = region,
		.index = index,
		.device = CPU,
		.mem = region_mem(a->host, region) + index * regions[region].unit,
		.size = regions[region].unit,
		.now = unit_words(a, region, index, unit->gen),
		.next = unit_words(a, region, index, unit->gen + 1),
	};
}

static size_t choose_room(struct actor *a, unsigned int region)
{
	return chance(a, 8) && HOT < regions[region].size ? HOT :
							    regions[region].size;
}

static void choose_unit(struct actor *a, struct target *t, bool small)
{
	unsigned int region, units;

	do {
		region = chance(a, REGIONS);
		units = choose_room(a, region) / regions[region].unit;
	} while (units < ACTORS || (small && regions[region].unit > PAGE));
	target_unit(a, t, region, chance(a, units / ACTORS) * ACTORS + a->index);
}

static void choose_pages(struct actor *a, struct target *t, bool wiped)
{
	static const size_t sizes[] = { PAGE, 4 * PAGE, HOT, HUGE_PAGE };
	unsigned int region;
	size_t size, room;

	do {
		region = chance(a, REGIONS);
		size = sizes[chance(a, ARRAY_LEN(sizes))];
		room = choose_room(a, region);
	} while (size > room || (wiped && !regions[region].wiped));
	*t = (struct target) {
		.region = region,
		.device = CPU,
		.mem = region_mem(a->host, region) +
		       chance(a, (room - size) / PAGE + 1) * PAGE,
		.size = size,
	};
}

/*
 * Give a unit known contents again, after an operation that failed half way or lost
 * them. Even then each word must be one of a few that are possible.
 */
static void rewrite_unit(struct actor *a, const struct target *t, enum kind kind)
{
	struct unit *unit = &a->units[t->region][t->index];
	double end = now() + 60;
	int err = -ETIMEDOUT;

	while (now() < end) {
		struct state before = look_around(a, t->region);

		err = before.wiped & 1 ? -EAGAIN : unit_peek(a, t, a->ram);
		if (!err) {
			check((uint64_t *)a->ram, &t->now,
			      unit->gen - unit->doubt,
			      before.wiped != unit->wiped, t->mem,
			      kind_names[kind]);
			err = unit_poke(a, t, &t->now);
		}
		if (!err && load(&shared->wiped[a->host][t->region]) == before.wiped) {
			unit->wiped = before.wiped;
			unit->doubt = false;
			return;
		}
		if (err && !is_allowed(a, CPU, t, &before, err))
			break;
		usleep(1000);
	}
	complain(a, kind, t, err);
}

static void do_unit(struct actor *a, struct target *t, enum kind kind)
{
	struct unit *unit = &a->units[t->region][t->index];
	bool write = operations[kind].class == WRITE, wiped;
	struct state before;
	int err;

	if (unit->doubt ||
	    unit->wiped != load(&shared->wiped[a->host][t->region]))
		rewrite_unit(a, t, kind);
	before = look_around(a, t->region);
	memset(a->ram, 0xee, t->size);
	err = operations[kind].fn(a, t);
	wiped = before.wiped != unit->wiped ||
		changed(before.wiped, load(&shared->wiped[a->host][t->region]));
	judge(a, kind, t, &before, err);
	if (write) {
		unit->gen++;
		unit->doubt = err || wiped;
	} else if (!err && !wiped) {
		check((uint64_t *)a->ram, &t->now, unit->gen, false, t->mem,
		      kind_names[kind]);
	}
}

/* Change the mapping, and tell all actors that the change is under way. */
static int do_shape(struct actor *a, struct target *t, enum kind kind)
{
	bool wipe = operations[kind].class == WIPE;
	int err;

	pthread_mutex_lock(&region_lock[t->region]);
	bump(&shared->remap_seq[me][t->region]);
	if (wipe)
		bump(&shared->wiped[me][t->region]);
	err = operations[kind].fn(a, t);
	if (wipe)
		bump(&shared->wiped[me][t->region]);
	bump(&shared->remap_seq[me][t->region]);
	pthread_mutex_unlock(&region_lock[t->region]);
	return err;
}

static void do_something(struct actor *a)
{
	enum kind kind = choose(a);
	const struct operation *op = &operations[kind];
	struct state before;
	struct target t;
	int err;

	switch (op->class) {
	case WRITE:
	case READ:
		choose_unit(a, &t, op->small);
		do_unit(a, &t, kind);
		return;
	case PAGES:
		choose_pages(a, &t, false);
		t.advice = op->advice;
		before = look_around(a, t.region);
		err = op->fn(a, &t);
		break;
	default:
		choose_pages(a, &t, op->class == WIPE);
		t.advice = op->advice;
		before = look_around(a, t.region);
		err = do_shape(a, &t, kind);
		/* Its own change of the mapping is no excuse */
		before.remap_seq = load(&shared->remap_seq[me][t.region]);
	}
	judge(a, kind, &t, &before, err);
}

/*
 * A child has a copy of its parent's memory from the time of the fork. It sees no
 * change that others make, and no other process sees what it writes. It opens
 * devices itself, and may be killed while it uses them.
 */

static void child_of_unit(struct actor *a, struct target *t)
{
	static const enum kind look[] = {
		K_look_cpu, K_sum_gpu, K_copy_from_gpu, K_look_edu, K_write_disk,
	};
	static const enum kind change[] = {
		K_write_cpu, K_write_gpu, K_copy_to_gpu, K_write_edu, K_read_disk,
	};
	enum kind kind = look[chance(a, ARRAY_LEN(look))];
	struct unit *unit = &a->units[t->region][t->index];
	uint32_t wiped = load(&shared->wiped[a->host][t->region]);

	if (unit->doubt || unit->wiped != wiped)
		return;
	if (!operations[kind].fn(a, t)) {
		check((uint64_t *)a->ram, &t->now, t->now.gen, false, t->mem,
		      "in a child");
		bump(&shared->looked);
	}

	kind = change[chance(a, ARRAY_LEN(change))];
	t->next.writer |= 0x8000;
	if (!operations[kind].fn(a, t) && !look_cpu(a, t))
		check((uint64_t *)a->ram, &t->next, t->next.gen, false, t->mem,
		      "written by a child");
	unit->doubt = true;
}

/* For units of other actors, only the address and the writer are known. */
static void child_sees_others(struct actor *a, unsigned int region)
{
	unsigned int i, units = HOT / regions[region].unit;
	struct actor other = *a;
	struct target t;

	for (i = 0; i < units; i++) {
		other.index = i % ACTORS;
		if (other.index == a->index)
			continue;
		target_unit(&other, &t, region, i);
		t.now.gen = WORD_FIELD;
		look_cpu(a, &t);
		check((uint64_t *)a->ram, &t.now, 0, regions[region].wiped,
		      t.mem, "others', in a child");
	}
}

static void __attribute__((noreturn))
child_main(struct actor *a, const struct state *before)
{
	unsigned int i, region;
	struct target t;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (i = 0; i < NR_DEVICES; i++)
		a->fd[i] = -1;
	for (i = 0; i < 6; i++) {
		struct state now;

		choose_unit(a, &t, true);
		region = t.region;
		now = look_around(a, region);
		/* The fork may have found the mapping in the middle of a change */
		if (changed(before[region].remap_seq, now.remap_seq) ||
		    changed(before[region].wiped, now.wiped))
			continue;
		child_of_unit(a, &t);
		child_sees_others(a, region);
	}
	_exit(0);
}

int child(struct actor *a, struct target *t)
{
	bool killed = !chance(a, 4);
	struct state before[REGIONS];
	unsigned int i;
	int status;
	pid_t pid;

	t->device = CPU;
	for (i = 0; i < REGIONS; i++)
		before[i] = look_around(a, i);
	pid = fork();
	if (pid < 0)
		return -errno;
	a->seed++;
	if (!pid)
		child_main(a, before);
	if (killed) {
		usleep(chance(a, 200000));
		kill(pid, SIGKILL);
	}
	if (waitpid(pid, &status, 0) != pid)
		return -errno;
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && killed)
		return 0;
	return status ? -ECHILD : 0;
}

/* Actors and hosts */

static void for_each_unit(struct actor *a, enum kind kind, bool all)
{
	unsigned int region, index;
	struct target t;

	for (region = 0; region < REGIONS; region++) {
		for (index = a->index;
		     index < regions[region].size / regions[region].unit;
		     index += ACTORS) {
			struct unit *unit = &a->units[region][index];

			target_unit(a, &t, region, index);
			if (all || unit->doubt)
				rewrite_unit(a, &t, kind);
			else
				do_unit(a, &t, kind);
		}
	}
}

static void wait_for(const unsigned int *var, unsigned int value)
{
	while (load(var) < value)
		usleep(10000);
}

static void *actor_main(void *arg)
{
	struct actor *a = arg;
	bool neighbour = a->index == NEIGHBOUR;
	char path[64];

	if (neighbour) {
		a->host = (me + 1) % HOSTS;
		snprintf(path, sizeof(path), "/proc/%d/mem",
			 shared->pid[a->host]);
		a->mem = open(path, O_RDWR | O_CLOEXEC);
		if (a->mem < 0)
			abort();
	}
	for_each_unit(a, neighbour ? K_write_other : K_write_cpu, true);
	bump(&shared->ready);
	wait_for(&shared->ready, HOSTS + HOSTS * ACTORS);
	while (!load(&shared->stop))
		do_something(a);
	bump(&shared->verified);
	wait_for(&shared->verified, HOSTS * ACTORS);

	/* No actor changes anything any more */
	for_each_unit(a, neighbour ? K_look_other : K_look_cpu, false);
	bump(&shared->verified);
	wait_for(&shared->verified, 2 * HOSTS * ACTORS);
	return NULL;
}

static void actor_init(struct actor *a, unsigned int index)
{
	unsigned int i, region;

	a->host = me;
	a->index = index;
	a->seed = shared->seed + me * ACTORS + index;
	a->mem = -1;
	a->blk = open("/dev/hmm_blk", O_RDWR | O_CLOEXEC);
	pthread_mutex_init(&a->mr_lock, NULL);
	for (i = 0; i < NR_DEVICES; i++)
		a->fd[i] = -1;
	a->ram = mmap(NULL, LARGEST_UNIT, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (region = 0; region < REGIONS; region++) {
		unsigned int units = regions[region].size / regions[region].unit;

		a->units[region] = calloc(units, sizeof(struct unit));
		for (i = 0; i < units; i++)
			a->units[region][i] = (struct unit) {
				.gen = 1, .wiped = ~0U,
			};
	}
}

/* A host exits without closing anything. */
static void __attribute__((noreturn)) host_main(unsigned int host)
{
	struct sigaction segv = {
		.sa_sigaction = wait_for_mapping,
		.sa_flags = SA_SIGINFO | SA_NODEFER,
	};
	unsigned int i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	me = host;
	sigaction(SIGSEGV, &segv, NULL);
	for (i = 0; i < REGIONS; i++)
		if (mmap(region_mem(me, i), regions[i].size,
			 PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS |
			 MAP_FIXED_NOREPLACE, -1, 0) != region_mem(me, i))
			abort();
	bump(&shared->ready);
	wait_for(&shared->ready, HOSTS);
	for (i = 0; i < ACTORS; i++) {
		actor_init(&actors[i], i);
		if (pthread_create(&actors[i].thread, NULL, actor_main, &actors[i]))
			abort();
	}
	for (i = 0; i < ACTORS; i++)
		pthread_join(actors[i].thread, NULL);
	_exit(0);
}

/* Disturbances: devices that come and go */

static const char * const drivers[] = {
	[0 ... MAX_GPUS - 1] = "vsvm", [EDU] = "hmm_edu", [NVME] = "nvme",
};

static int driver_write(enum device device, const char *file)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/drivers/%s/%s",
		 drivers[device], file);
	return file_write(path, shared->pci[device]);
}

/* The driver's file may appear a moment later than the driver. */
static int wait_for_device(struct actor *a, enum device device)
{
	double end = now() + PROMPT;
	int fd;

	while ((fd = device_get(a, device)) < 0 && now() < end)
		usleep(10000);
	device_close(a, device);
	return fd < 0 ? fd : 0;
}

static void device_goes(struct actor *a, enum device device, enum kind kind)
{
	struct target t = { .device = device };
	int err;

	bump(&shared->away[device]);
	err = device == RXE ? rxe_delete() : driver_write(device, "unbind");
	usleep(chance(a, 300000));
	if (!err)
		err = device == RXE ? rxe_add() : driver_write(device, "bind");
	/* The number with which other actors will open it */
	a->opened[device] = bump(&shared->away[device]);
	if (!err)
		err = wait_for_device(a, device);
	count(kind, err);
	if (err)
		complain(a, kind, &t, err);
}

/* No operation fails because of a reset. */
static void gpu_is_reset(struct actor *a)
{
	struct target t = { .device = any_gpu(a) };
	int err = pci_reset(shared->pci[t.device]);

	count(K_reset_gpu, err);
	if (err)
		complain(a, K_reset_gpu, &t, err);
}

static void devices_main(struct actor *a)
{
	unsigned int n;

	for (n = 0; !load(&shared->stop); n++) {
		usleep(300000 + chance(a, 1000000));
		switch (n % 8) {
		case 0:
			device_goes(a, EDU, K_unbind_edu);
			break;
		case 2:
			device_goes(a, NVME, K_unbind_nvme);
			break;
		case 4:
			device_goes(a, RXE, K_delete_rxe);
			break;
		case 6:
			gpu_is_reset(a);
			break;
		default:
			device_goes(a, any_gpu(a), K_unbind_gpu);
		}
	}
}

/* ... links, the switch, and free memory */

static long meminfo(const char *field)
{
	return field_read("/proc/meminfo", field);
}

/* Use memory until other memory is swapped out. */
static int pressure(void)
{
	long swap = meminfo("SwapFree");
	size_t pos, size = meminfo("MemTotal") / 4096 * MIB(4);
	double end = now() + 20 * slowness();
	bool done = false;
	uint8_t *mem;

	mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return -errno;
	bump(&shared->pressure);
	for (pos = 0; pos < size && !done && now() < end; pos += MIB(4)) {
		memset(mem + pos, 0x5a, MIB(4));
		done = meminfo("SwapFree") < swap - 32 * 1024;
	}
	munmap(mem, size);
	bump(&shared->pressure);
	return done ? 0 : -EAGAIN;
}

static void disturb_main(struct actor *a)
{
	static const char * const links[] = {
		"", "0-1,1>2", "0-1", "0>1,2>0", "0-1,1-2,0-2", "1>2",
	};
	double next = now() + 5;

	while (!load(&shared->stop)) {
		usleep(20000 + chance(a, 200000));
		if (now() > next) {
			count(K_pressure, pressure());
			next = now() + 5 + chance(a, 10);
		} else if (chance(a, 3)) {
			count(K_links, gpu_links_set(links[chance(a, ARRAY_LEN(links))]));
		} else {
			count(K_off_switch, aliases_enable(false));
			usleep(chance(a, 200000));
			aliases_enable(true);
		}
	}
}

static void __attribute__((noreturn))
disturb_start(void (*fn)(struct actor *a), unsigned int index)
{
	struct actor *a = &actors[0];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	actor_init(a, index);
	fn(a);
	_exit(0);
}

/* Run everything for some seconds, or until a slow machine has done each kind once. */

static bool wait_for_exit(pid_t pid, double end)
{
	int status;

	while (waitpid(pid, &status, WNOHANG) != pid) {
		if (now() > end) {
			printf("# process %d is stuck\n", pid);
			file_write("/proc/sysrq-trigger", "w");
			kill(pid, SIGKILL);
			return false;
		}
		usleep(20000);
	}
	if (status) {
		printf("# process %d: status %#x\n", pid, status);
		bump(&shared->wrong);
		/* No other process should wait for it */
		shared->ready = shared->verified = INT_MAX;
	}
	return true;
}

static bool one_has_died(void)
{
	siginfo_t info = { };

	return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) ||
	       info.si_pid;
}

static enum kind first_that_is_missing(void)
{
	enum kind kind = 0;

	while (kind < NR_KINDS && load(&shared->done[kind]))
		kind++;
	return kind;
}

static void run_stress(double seconds)
{
	double start = now(), patience = 120 * slowness() + seconds;
	pid_t disturbers[2];
	int i;

	shared->stop = false;
	shared->ready = shared->verified = 0;
	memset(shared->done, 0, sizeof(shared->done));
	memset(shared->excused, 0, sizeof(shared->excused));
	memset(shared->refused, 0, sizeof(shared->refused));
	shared->looked = 0;
	for (i = 0; i < HOSTS; i++) {
		pid_t pid = fork();

		if (!pid)
			host_main(i);
		shared->pid[i] = pid;
	}
	while (load(&shared->ready) < HOSTS + HOSTS * ACTORS &&
	       now() < start + patience && !one_has_died())
		usleep(10000);
	for (i = 0; i < 2; i++) {
		disturbers[i] = fork();
		if (!disturbers[i])
			disturb_start(i ? disturb_main : devices_main, 100 + i);
	}
	start = now();
	while (!shared->stop && !one_has_died() &&
	       (now() < start + seconds ||
		(first_that_is_missing() < NR_KINDS && now() < start + 4 * slowness() * seconds)))
		usleep(100000);
	seconds = now() - start;
	shared->stop = true;
	for (i = 0; i < 2; i++)
		shared->hung += !wait_for_exit(disturbers[i], now() + patience);
	for (i = 0; i < HOSTS; i++)
		shared->hung += !wait_for_exit(shared->pid[i], now() + patience);
	printf("# %.0f s, and %.0f s to verify\n", seconds, now() - start - seconds);
}

/* The results */

TEST(no_word_is_corrupt)
{
	EXPECT_EQ(0, shared->corrupt);
}

TEST(no_operation_fails_with_unexpected_error)
{
	EXPECT_EQ(0, shared->wrong);
}

TEST(no_process_hangs)
{
	EXPECT_EQ(0, shared->hung);
}

#define SPLIT	"/sys/kernel/mm/transparent_hugepage/hugepages-2048kB/stats/split"

/* Counts of events whose absence no other test would notice. */
static uint64_t splits_before, copies_before;

/* Another actor may use the same pages sometimes, but not most of the time. */
#define MAY_BE_REFUSED(done)	(4 * (done) + 10)

TEST(each_kind_of_operation_has_succeeded)
{
	int kind;

	EXPECT_LT(splits_before, number_read(SPLIT));
	EXPECT_LT(copies_before, stat_read("alias_cpu"));
	for (kind = 0; kind < NR_KINDS; kind++) {
		printf("# %-14s %6lu, refused %lu, excused %lu\n",
		       kind_names[kind], shared->done[kind],
		       shared->refused[kind], shared->excused[kind]);
		EXPECT_LT(0, shared->done[kind])
			TH_LOG("%s", kind_names[kind]);
		EXPECT_GE(MAY_BE_REFUSED(shared->done[kind]), shared->refused[kind])
			TH_LOG("%s", kind_names[kind]);
	}
	printf("# children looked at %lu units\n", shared->looked);
	EXPECT_LT(0, shared->looked);
}

/* Resources may go away some seconds later than their last user. */
#define LEAVE_S	30

#define NOTHING_LEAKED(_kind, _prefix)					\
TEST(no_##_kind##_leaked)						\
{									\
	int grown = figures_grown(&shared->before, _prefix, LEAVE_S);	\
									\
	EXPECT_EQ(0, grown);						\
}

NOTHING_LEAKED(vram, "vram/")
NOTHING_LEAKED(reference_to_a_process, "process/")
NOTHING_LEAKED(kernel_object, "slab/")
NOTHING_LEAKED(page, "ram/")
NOTHING_LEAKED(reference_to_a_module, "module/")
NOTHING_LEAKED(rdma_resource, "rdma/")
NOTHING_LEAKED(dma_mapping, "dma/")

/*
 * Devices have mapped for DMA the aliases that they got, except where requests
 * failed. In the end none of them is mapped.
 */
TEST(dma_mapped_equals_dma_unmapped_at_end)
{
	double end = now() + LEAVE_S;
	uint64_t mapped, unmapped;

	do {
		mapped = stat_read("dma_mapped");
		unmapped = stat_read("dma_unmapped");
	} while (mapped != unmapped && now() < end && !usleep(100000));
	printf("# handed out %llu, mapped %llu, unmapped %llu\n",
	       (unsigned long long)(stat_read("alias_bus") +
				    stat_read("alias_host_bridge")),
	       (unsigned long long)mapped, (unsigned long long)unmapped);
	EXPECT_EQ(mapped, unmapped);
	EXPECT_LT(0, mapped);
	EXPECT_LE(mapped, stat_read("alias_bus") + stat_read("alias_host_bridge"));
}

static int stress_init(void)
{
	int i, gpu;

	setvbuf(stdout, NULL, _IOLBF, 0);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return -errno;
	shared->seed = getenv("STRESS_SEED") ? atoi(getenv("STRESS_SEED")) :
					       time(NULL);
	printf("# STRESS_SEED=%u\n", shared->seed);

	/* A disk can only use VRAM that has struct pages */
	if (vsvm_reload("p2p_pages=1"))
		return -ENODEV;
	atexit(vsvm_restore);
	for (i = 0; i < MAX_GPUS && (gpu = gpu_open(i)) >= 0; i++) {
		gpu_pci_address(gpu, shared->pci[i], PCI_ADDR_LEN);
		close(gpu);
	}
	shared->gpus = i;
	if (i < 2 || pci_find(0x1234, 0x11e8, shared->pci[EDU]) ||
	    pci_find(0x1b36, 0x0010, shared->pci[NVME]))
		return -ENODEV;
	return 0;
}

/* In a separate process, as tests are. */
static void count_before(void)
{
	pid_t pid = fork();

	if (!pid) {
		figures_read(&shared->before);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

int main(int argc, char **argv)
{
	double seconds = getenv("STRESS_S") ? atof(getenv("STRESS_S")) : 120;
	char links[256] = "";

	gpu_links_get(links, sizeof(links));
	if (stress_init()) {
		printf("1..1\nnot ok 1 stress: no devices\n");
		return 1;
	}

	/* After this, everything that is allocated only once has been allocated */
	gpu_links_set(links);
	run_stress(seconds / 5);
	gpu_links_set(links);
	aliases_enable(true);
	sleep(5);
	count_before();
	splits_before = number_read(SPLIT);
	copies_before = stat_read("alias_cpu");

	run_stress(seconds * 4 / 5);
	gpu_links_set(links);
	aliases_enable(true);
	return test_harness_run(argc, argv);
}
