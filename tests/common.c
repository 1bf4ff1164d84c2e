// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include "common.h"
#include "measure.h"

#define STATS	"/sys/kernel/mm/hmm_p2pdma/"

/* Odd, with bits set throughout, so that all products differ and no byte is constant. */
#define MIX	0x9e3779b97f4a7c15ULL

int slowness(void)
{
	const char *debug = getenv("DEBUG");

	return debug && *debug ? 10 : 1;
}

bool is_out_of_patience(int err, double start)
{
	static unsigned int times;

	if (err != -EBUSY || now() < start + 0.9 || ++times > 20)
		return false;
	printf("# a fault took longer than a second; once more\n");
	return true;
}

static uint64_t new_seed(void)
{
	static uint64_t calls;

	return (++calls << 40) ^ ((uint64_t)getpid() << 24);
}

int buffer_map(struct buffer *buf, size_t size, int advice)
{
	size_t room = size + HUGE_PAGE, head;
	uint8_t *mem;

	mem = mmap(NULL, room, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return -errno;

	head = -(uintptr_t)mem % HUGE_PAGE;
	if (head)
		munmap(mem, head);
	munmap(mem + head + size, room - head - size);

	buf->mem = mem + head;
	buf->size = size;
	buf->shadow = calloc(1, size);
	if (!buf->shadow || madvise(buf->mem, size, advice)) {
		buffer_unmap(buf);
		return -ENOMEM;
	}

	return 0;
}

void buffer_unmap(struct buffer *buf)
{
	if (buf->mem)
		munmap(buf->mem, buf->size);
	free(buf->shadow);
	memset(buf, 0, sizeof(*buf));
}

void buffer_write(struct buffer *buf, size_t offset, size_t size)
{
	uint64_t seed = new_seed(), word;
	size_t pos, len;

	for (pos = 0; pos < size; pos += len) {
		len = size - pos < sizeof(word) ? size - pos : sizeof(word);
		word = (seed + offset + pos) * MIX;
		memcpy(buf->shadow + offset + pos, &word, len);
	}
	memcpy(buf->mem + offset, buf->shadow + offset, size);
}

int buffer_xor(struct buffer *buf, int gpu, size_t offset, size_t size)
{
	uint64_t *words = (uint64_t *)(buf->shadow + offset);
	uint64_t key = (new_seed() + 1) * MIX;
	size_t i;
	int err;

	err = gpu_xor(gpu, buf->mem + offset, size, key);
	if (err)
		return err;

	for (i = 0; i < size / sizeof(*words); i++)
		words[i] ^= key;
	return 0;
}

int buffer_to_vram(struct buffer *buf, int gpu, size_t offset, size_t size)
{
	int tries = slowness() > 1 ? 5 : 1, err;
	uint64_t pages;

	/* A page with an extra reference cannot migrate; a slow kernel holds it longer */
	do {
		err = gpu_to_vram(gpu, buf->mem + offset, size, &pages);
		if (err)
			return err;
		if (pages == size / PAGE)
			return buffer_xor(buf, gpu, offset, size);
		dprintf(STDOUT_FILENO, "# %lu of %zu pages are in VRAM\n", pages, size / PAGE);
		usleep(20000);
	} while (--tries);

	return -ENOSPC;
}

ssize_t differs(const void *a, const void *b, size_t size)
{
	const uint8_t *p = a, *q = b;
	size_t i;

	if (!memcmp(a, b, size))
		return -1;

	for (i = 0; p[i] == q[i]; i++)
		if (i == size - 1)
			return size;	/* it changed during the comparison */
	return i;
}

ssize_t buffer_differs(const struct buffer *buf)
{
	return differs(buf->mem, buf->shadow, buf->size);
}

ssize_t buffer_differs_on_gpu(const struct buffer *buf, int gpu)
{
	size_t pos, i;

	for (pos = 0; pos < buf->size; pos += PAGE) {
		const uint64_t *words = (uint64_t *)(buf->shadow + pos);
		uint64_t sum, want = 0;

		for (i = 0; i < PAGE / sizeof(*words); i++)
			want += words[i];
		if (gpu_sum(gpu, buf->mem + pos, PAGE, &sum) || sum != want)
			return pos;
	}

	return -1;
}

uint64_t pages_in_vram(int gpu, const void *addr, size_t size)
{
	struct drm_vsvm_residency where;

	return gpu_residency(gpu, addr, size, &where) ? ~0ULL : where.vram;
}

uint64_t huge_pages_in_vram(int gpu, const void *addr, size_t size)
{
	struct drm_vsvm_residency where;

	return gpu_residency(gpu, addr, size, &where) ? ~0ULL : where.huge;
}

uint64_t pages_touched_in_vram(const int *gpu, const void *addr, size_t size)
{
	size_t before = (uintptr_t)addr % PAGE;
	const uint8_t *first = (const uint8_t *)addr - before;

	size = (before + size + PAGE - 1) / PAGE * PAGE;
	return pages_in_vram(gpu[0], first, size) +
	       pages_in_vram(gpu[1], first, size);
}

uint64_t chunks_touched_in_vram(const int *gpu, const void *addr, size_t size)
{
	const uint8_t *pos = addr, *end = pos + size, *next;
	uint64_t chunks = 0;

	for (; pos < end; pos = next) {
		next = pos + HUGE_PAGE - (uintptr_t)pos % HUGE_PAGE;
		if (next > end)
			next = end;
		chunks += pages_touched_in_vram(gpu, pos, next - pos) != 0;
	}

	return chunks;
}

int gpus_open(int gpu[2], uint64_t room[2])
{
	int i;

	for (i = 0; i < 2; i++) {
		gpu[i] = gpu_open(i);
		if (gpu[i] < 0)
			return gpu[i];
		room[i] = vram_free(gpu[i]);
	}
	return 0;
}

uint64_t gpus_close(const int gpu[2], const uint64_t room[2])
{
	uint64_t leaked = 0;
	int i;

	for (i = 0; i < 2; i++) {
		leaked += vram_leaked(gpu[i], room[i]);
		close(gpu[i]);
	}
	return leaked;
}

int vram_fill(int gpu, struct buffer *all, int advice)
{
	struct drm_vsvm_info info;
	uint64_t pages;
	int err;

	err = gpu_info(gpu, &info);
	if (!err)
		err = buffer_map(all, info.vram_size, advice);
	if (!err && madvise(all->mem, all->size, MADV_POPULATE_WRITE))
		err = -errno;
	if (!err)
		err = gpu_to_vram(gpu, all->mem, all->size, &pages);
	return err || pages == all->size / PAGE ? err : -ENOSPC;
}

uint64_t pages_in_reach(int gpu, const void *addr, size_t size)
{
	struct drm_vsvm_residency where;

	return gpu_residency(gpu, addr, size, &where) ? ~0ULL : where.peer;
}

uint64_t pages_evicted(int gpu)
{
	struct drm_vsvm_counters counters;

	return gpu_counters(gpu, &counters) ? ~0ULL : counters.pages_to_ram;
}

uint64_t vram_free(int gpu)
{
	struct drm_vsvm_counters counters;

	return gpu_counters(gpu, &counters) ? ~0ULL : counters.vram_free;
}

uint64_t vram_leaked(int gpu, uint64_t expected)
{
	struct drm_vsvm_counters counters;
	int tries = 100;

	/* Address spaces go away some time after their last process. */
	while (tries--) {
		if (gpu_counters(gpu, &counters))
			return ~0ULL;
		if (counters.vram_free >= expected)
			return 0;
		usleep(50000);
	}

	return expected - counters.vram_free;
}

static uint64_t page_bits(const void *addr)
{
	off_t pos = (uintptr_t)addr / PAGE * sizeof(uint64_t);
	uint64_t bits = 0;
	int fd;

	fd = open("/proc/self/pagemap", O_RDONLY);
	if (fd < 0 || pread(fd, &bits, sizeof(bits), pos) != sizeof(bits))
		abort();
	close(fd);

	return bits;
}

bool page_is_present(const void *addr)
{
	return page_bits(addr) >> 63;
}

bool page_is_elsewhere(const void *addr)
{
	return page_bits(addr) >> 62 & 1;
}

/*
 * Reclaim may not take a recently used page at once. A new page is still on a list of
 * the CPU that touched it first, and only madvise() on that CPU drains the list.
 */
int pages_out(uint8_t *mem, size_t size)
{
	int tries = 0, cpus = sysconf(_SC_NPROCESSORS_ONLN);
	cpu_set_t home, one;
	size_t at = 0;

	if (sched_getaffinity(0, sizeof(home), &home))
		return -errno;
	while (at < size && tries < 50) {
		if (page_is_elsewhere(mem + at)) {
			at += PAGE;
			continue;
		}
		CPU_ZERO(&one);
		CPU_SET(tries % cpus, &one);
		sched_setaffinity(0, sizeof(one), &one);
		madvise(mem, size, MADV_PAGEOUT);
		if (!page_is_elsewhere(mem + at) && ++tries % cpus == 0)
			usleep(20000);
	}
	sched_setaffinity(0, sizeof(home), &home);

	return at < size ? -EBUSY : 0;
}

int held_map(struct held *held, size_t size)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int err = 0;

	memset(held, 0, sizeof(*held));
	held->mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (held->mem == MAP_FAILED) {
		held->mem = NULL;
		return -ENOMEM;
	}
	held->size = size;

	range.range.start = (uintptr_t)held->mem;
	range.range.len = size;
	held->uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (held->uffd < 0 || madvise(held->mem, size, MADV_NOHUGEPAGE) ||
	    ioctl(held->uffd, UFFDIO_API, &api) ||
	    ioctl(held->uffd, UFFDIO_REGISTER, &range)) {
		err = -errno;
		held_unmap(held);
	}
	return err;
}

int held_wait(struct held *held, void **addr)
{
	struct pollfd pfd = { .fd = held->uffd, .events = POLLIN };
	struct uffd_msg msg;

	if (poll(&pfd, 1, 30000 * slowness()) != 1)
		return -ETIMEDOUT;
	if (read(held->uffd, &msg, sizeof(msg)) != sizeof(msg) ||
	    msg.event != UFFD_EVENT_PAGEFAULT)
		return -EIO;
	if (addr)
		*addr = (void *)(uintptr_t)msg.arg.pagefault.address;
	return 0;
}

int held_release(struct held *held)
{
	int err = held->uffd < 0 || !close(held->uffd) ? 0 : -errno;

	held->uffd = -1;
	return err;
}

void held_unmap(struct held *held)
{
	if (!held->mem)
		return;
	held_release(held);
	munmap(held->mem, held->size);
	held->mem = NULL;
}

uint64_t number_read(const char *path)
{
	unsigned long long value = ~0ULL;
	FILE *file = fopen(path, "r");

	if (!file)
		return ~0ULL;
	if (fscanf(file, "%llu", &value) != 1)
		value = ~0ULL;
	fclose(file);

	return value;
}

uint64_t field_read(const char *path, const char *name)
{
	unsigned long long value, found = ~0ULL;
	FILE *file = fopen(path, "r");
	char line[256], field[64];

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, " %63[^: \t]%*[: \t]%llu", field, &value) == 2 &&
		    !strcmp(field, name)) {
			found = value;
			break;
		}
	}
	if (file)
		fclose(file);
	return found;
}

uint64_t percpu_allocations(void)
{
	return field_read("/sys/kernel/debug/percpu_stats", "nr_cur_alloc");
}

uint64_t stat_read(const char *name)
{
	return field_read("/sys/kernel/debug/hmm_p2pdma/stats", name);
}

const char * const counters[COUNTERS_NR] = {
	"alias_cpu", "alias_bus", "alias_host_bridge", "fallback_no_window",
	"fallback_outside_window", "fallback_unreachable", "fallback_revoked",
	"fallback_readonly",
};

struct tally tally_read(const int *gpu)
{
	struct tally tally;
	unsigned int i;

	tally.evicted = pages_evicted(gpu[0]) + pages_evicted(gpu[1]);
	for (i = 0; i < COUNTERS_NR; i++)
		tally.count[i] = stat_read(counters[i]);
	return tally;
}

int aliases_enable(bool enable)
{
	return file_write(STATS "enabled", enable ? "always" : "never");
}

bool lab_route_is(const char *route)
{
	return !strcmp(getenv("LAB_ROUTE") ?: "", route);
}

bool dma_bounces(void)
{
	return !lab_route_is("iommu") &&
	       !system("grep -qw swiotlb=force /proc/cmdline");
}

const char *alias_route(void)
{
	if (lab_route_is("bus"))
		return "alias_bus";
	/* DMA through the host bridge needs mapped addresses, and mappings bounce */
	if (lab_route_is("iommu") || (lab_route_is("host_bridge") && !dma_bounces()))
		return "alias_host_bridge";
	return NULL;
}

bool reachable(void)
{
	return alias_route();
}

int file_write(const char *path, const char *text)
{
	int fd, err = 0;

	fd = open(path, O_WRONLY | O_TRUNC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);

	return err;
}

int vsvm_unload(void)
{
	int tries = 100, err;

	/* Address spaces, and the references that they hold, go away with some delay. */
	do {
		err = syscall(SYS_delete_module, "vsvm", O_NONBLOCK) ?
		      -errno : 0;
	} while (err == -EAGAIN && tries-- && !usleep(50000));

	return err == -ENOENT ? 0 : err;
}

int vsvm_reload(const char *params)
{
	char command[256];
	int err = vsvm_unload();

	if (err)
		return err;

	/* MODPROBE_OPTIONS tells modprobe where our modules are. */
	snprintf(command, sizeof(command), "modprobe vsvm %s", params);
	return system(command) ? -ENODEV : 0;
}

/* The module's directory in sysfs has a new inode each time the module is loaded. */
int vsvm_load(const char *params)
{
	static const char marker[] = "/run/vsvm.loaded";
	char want[256], have[256] = "";
	struct stat st = {};
	FILE *file;
	int err;

	stat("/sys/module/vsvm", &st);
	snprintf(want, sizeof(want), "%lu %s", (unsigned long)st.st_ino, params);
	file = fopen(marker, "r");
	if (file) {
		if (!fgets(have, sizeof(have), file))
			have[0] = 0;
		fclose(file);
	}
	if (!strcmp(want, have))
		return 0;

	err = vsvm_reload(params);
	if (err || stat("/sys/module/vsvm", &st))
		return err ? err : -errno;

	file = fopen(marker, "w");
	if (file) {
		fprintf(file, "%lu %s", (unsigned long)st.st_ino, params);
		fclose(file);
	}
	return 0;
}

void vsvm_restore(void)
{
	if (vsvm_reload(""))
		printf("# vsvm is not as it was\n");
}

static int link_connect(struct link *link)
{
	struct rdma_addr near, far;
	int err;

	rdma_address(&link->near, &near);
	rdma_address(&link->far, &far);
	err = rdma_connect(&link->near, &far);
	return err ? err : rdma_connect(&link->far, &near);
}

int link_up(struct link *link)
{
	int err;

	memset(link, 0, sizeof(*link));
	err = rdma_open(&link->near);
	if (!err)
		err = rdma_open(&link->far);
	if (!err)
		err = link_connect(link);
	if (err)
		link_down(link);

	return err;
}

void link_down(struct link *link)
{
	rdma_close(&link->far);
	rdma_close(&link->near);
}

/* rdma_connect() expects a QP in INIT: bring it back there. */
int qp_restart(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RESET,
		.port_num = 1,
		.qp_access_flags = IBV_ACCESS_LOCAL_WRITE |
				   IBV_ACCESS_REMOTE_READ |
				   IBV_ACCESS_REMOTE_WRITE |
				   IBV_ACCESS_REMOTE_ATOMIC,
	};
	int err;

	err = ibv_modify_qp(qp, &attr, IBV_QP_STATE);
	if (err)
		return -err;

	attr.qp_state = IBV_QPS_INIT;
	return -ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX |
			      IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
}

/* A completion with an error may arrive before the QP's state changes. */
void qp_wait_for_error(struct ibv_qp *qp, int ms)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;

	while (!ibv_query_qp(qp, &attr, IBV_QP_STATE, &init) &&
	       attr.qp_state != IBV_QPS_ERR && ms--)
		usleep(1000);
}

int link_revive(struct link *link)
{
	int err;

	qp_wait_for_error(link->near.qp, 1000);
	qp_wait_for_error(link->far.qp, 1000);
	err = qp_restart(link->near.qp);
	if (!err)
		err = qp_restart(link->far.qp);
	return err ? err : link_connect(link);
}

int waiting_init(struct waiting *waiting, enum ibv_wr_opcode opcode, uint64_t id)
{
	struct ibv_sge sge = { .addr = (uintptr_t)&waiting->data, .length = 8 };
	struct ibv_send_wr *bad, wr = {
		.wr_id = id, .opcode = opcode, .sg_list = &sge, .num_sge = 1,
	};
	int err;

	memset(waiting, 0, sizeof(*waiting));
	waiting->id = id;
	err = link_up(&waiting->link);
	if (!err)
		err = held_map(&waiting->held, PAGE);
	if (err)
		return err;

	waiting->mr = rdma_reg_odp(&waiting->link.far, waiting->held.mem, PAGE);
	waiting->ram_mr = rdma_reg_odp(&waiting->link.near, &waiting->data, 8);
	if (!waiting->mr || !waiting->ram_mr)
		return -EINVAL;

	sge.lkey = waiting->ram_mr->lkey;
	if (opcode == IBV_WR_RDMA_READ) {
		wr.wr.rdma.remote_addr = (uintptr_t)waiting->held.mem;
		wr.wr.rdma.rkey = waiting->mr->rkey;
	} else {
		wr.wr.atomic.remote_addr = (uintptr_t)waiting->held.mem;
		wr.wr.atomic.rkey = waiting->mr->rkey;
	}
	err = -ibv_post_send(waiting->link.near.qp, &wr, &bad);
	return err ? err : held_wait(&waiting->held, NULL);
}

int waiting_end(struct waiting *waiting)
{
	int tries = 2000 * slowness();
	struct ibv_wc wc = {};

	if (held_release(&waiting->held))
		return -1;
	while (ibv_poll_cq(waiting->link.near.cq, 1, &wc) != 1)
		if (!tries-- || usleep(10000))
			return -1;
	return wc.wr_id == waiting->id ? (int)wc.status : -1;
}

void waiting_fini(struct waiting *waiting)
{
	ibv_dereg_mr(waiting->mr);
	ibv_dereg_mr(waiting->ram_mr);
	held_unmap(&waiting->held);
	link_down(&waiting->link);
}

int bench_init(struct bench *bench, size_t size, int advice)
{
	int err;

	memset(bench, 0, sizeof(*bench));

	bench->gpu = gpu_open(0);
	if (bench->gpu < 0)
		return bench->gpu;
	bench->vram_free = vram_free(bench->gpu);

	err = link_up(&bench->link);
	if (!err)
		err = buffer_map(&bench->buf, size, advice);
	if (!err)
		err = buffer_map(&bench->ram, size, MADV_HUGEPAGE);
	if (err)
		goto err;

	buffer_write(&bench->buf, 0, size);
	buffer_write(&bench->ram, 0, size);

	bench->ram_mr = rdma_reg_odp(&bench->link.near, bench->ram.mem, size);
	if (bench->ram_mr)
		return 0;
	err = -errno;
err:
	bench_fini(bench);
	return err;
}

int bench_init_in_vram(struct bench *bench, size_t size, int advice)
{
	uint64_t huge = advice == MADV_HUGEPAGE ? size / PAGE : 0;
	int err;

	err = bench_init(bench, size, advice);
	if (err)
		return err;

	err = buffer_to_vram(&bench->buf, bench->gpu, 0, size);
	if (!err && huge_pages_in_vram(bench->gpu, bench->buf.mem, size) != huge)
		err = -EAGAIN;
	if (!err)
		err = bench_register(bench);
	if (err)
		bench_fini(bench);

	return err;
}

uint64_t bench_fini(struct bench *bench)
{
	uint64_t leaked;

	aliases_enable(true);
	if (bench->mr)
		ibv_dereg_mr(bench->mr);
	if (bench->ram_mr)
		ibv_dereg_mr(bench->ram_mr);
	link_down(&bench->link);
	buffer_unmap(&bench->buf);
	buffer_unmap(&bench->ram);
	leaked = vram_leaked(bench->gpu, bench->vram_free);
	close(bench->gpu);
	return leaked;
}

int bench_register(struct bench *bench)
{
	if (bench->mr && ibv_dereg_mr(bench->mr))
		return -EBUSY;

	bench->mr = rdma_reg_odp(&bench->link.far, bench->buf.mem,
				 bench->buf.size);
	return bench->mr ? 0 : -errno;
}

int bench_read(struct bench *bench, size_t offset, size_t size)
{
	return rdma_read(&bench->link.near, bench->ram.mem + offset,
			 bench->ram_mr->lkey,
			 (uintptr_t)bench->buf.mem + offset, bench->mr->rkey,
			 size);
}

int bench_write(struct bench *bench, size_t offset, size_t size)
{
	return rdma_write(&bench->link.near, bench->ram.mem + offset,
			  bench->ram_mr->lkey,
			  (uintptr_t)bench->buf.mem + offset, bench->mr->rkey,
			  size);
}

int bench_write_new(struct bench *bench, size_t offset, size_t size)
{
	int err;

	buffer_write(&bench->ram, offset, size);
	err = bench_write(bench, offset, size);
	if (!err)
		memcpy(bench->buf.shadow + offset, bench->ram.shadow + offset,
		       size);
	return err;
}

int bench_add(struct bench *bench, size_t offset, uint64_t add)
{
	uint64_t *word = (uint64_t *)(bench->buf.shadow + offset);
	uint64_t *old = (uint64_t *)bench->ram.mem;
	uint64_t was = *word;
	int err;

	err = rdma_fetch_add(&bench->link.near, old, bench->ram_mr->lkey,
			     (uintptr_t)bench->buf.mem + offset,
			     bench->mr->rkey, add);
	if (err)
		return err;

	*word += add;
	return *old == was ? 0 : -EILSEQ;
}

int bench_prefetch(struct bench *bench, size_t offset, size_t size, int write)
{
	double start;
	int err;

	do {
		start = now();
		err = rdma_prefetch(&bench->link.far, bench->mr,
				    bench->buf.mem + offset, size, write);
	} while (is_out_of_patience(err, start));

	return err;
}

ssize_t bench_differs(struct bench *bench)
{
	size_t size = bench->buf.size;

	/* Old data at the destination must not pass for the data that is read. */
	buffer_write(&bench->ram, 0, size);
	if (bench_read(bench, 0, size))
		return -2;

	return differs(bench->ram.mem, bench->buf.shadow, size);
}

static void *worker_main(void *arg)
{
	struct worker *worker = arg;
	double start;

	while (!worker->stop && !worker->err) {
		start = now();
		worker->err = worker->round(worker);
		if (is_out_of_patience(worker->err, start))
			worker->err = 0;
		else
			worker->rounds++;
	}

	return NULL;
}

int worker_start(struct worker *worker, int (*round)(struct worker *worker))
{
	worker->round = round;
	return -pthread_create(&worker->thread, NULL, worker_main, worker);
}

int worker_stop(struct worker *worker)
{
	worker->stop = true;
	pthread_join(worker->thread, NULL);
	return worker->err;
}

int wait_until(const volatile int *var, int value)
{
	int tries = 2000 * slowness();

	while (*var != value && tries--)
		usleep(10000);
	return *var == value ? 0 : -ETIMEDOUT;
}

static void __attribute__((noreturn))
child_main(int sock, int (*fn)(void *arg), void *arg)
{
	char told;
	int ret;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (read(sock, &told, 1) == 1) {
		ret = fn(arg);
		if (write(sock, &ret, sizeof(ret)) == sizeof(ret))
			ret = read(sock, &told, 1);
	}
	_exit(0);
}

int child_fork(struct child *child, int (*fn)(void *arg), void *arg)
{
	int sock[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock))
		return -errno;

	child->pid = fork();
	if (child->pid < 0)
		return -errno;
	if (!child->pid) {
		close(sock[0]);
		child_main(sock[1], fn, arg);
	}

	close(sock[1]);
	child->sock = sock[0];
	return 0;
}

int child_start(struct child *child)
{
	return send(child->sock, "", 1, MSG_NOSIGNAL) == 1 ? 0 : -EPIPE;
}

int child_result(struct child *child)
{
	int ret;

	if (recv(child->sock, &ret, sizeof(ret), MSG_WAITALL) != sizeof(ret))
		return -EPIPE;
	return ret;
}

int child_do(struct child *child)
{
	int err = child_start(child);

	return err ? err : child_result(child);
}

int child_end(struct child *child)
{
	int status;

	/* Other children may have inherited the socket, so close() is not enough. */
	shutdown(child->sock, SHUT_RDWR);
	close(child->sock);
	if (waitpid(child->pid, &status, 0) != child->pid)
		return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -EPIPE;
}
