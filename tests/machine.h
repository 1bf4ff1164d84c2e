/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The machine that runs the tests: devices that come and go, PCI registers, and
 * QEMU's monitor, which is at ttyS2. For the few tests that remove devices while they
 * are in use. Functions return 0 or a negative errno, unless their comment says
 * otherwise.
 */
#ifndef MACHINE_H
#define MACHINE_H

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <poll.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <linux/fs.h>

#include "../linux/samples/hmm/hmm_blk.h"
#include "../linux/samples/hmm/hmm_edu.h"
#include "measure.h"

#define PCI_DEVICES	"/sys/bus/pci/devices/"
#define PCI_ADDR_LEN	16
#define MONITOR		"/dev/ttyS2"
#define WINDOWS		"/sys/kernel/debug/hmm_p2pdma/windows"

/* Limit in seconds for operations that take a moment: only a hang takes longer. */
#define PROMPT	(30 * slowness())

extern char **environ;

/*
 * Run a shell command in a process of its own, without the copy of our memory that
 * fork() makes. If it hangs, command_wait() returns -ETIMEDOUT and leaves it alone.
 */
static inline int command_start(pid_t *pid, const char *format, ...)
{
	char command[512];
	char *argv[] = { "sh", "-c", command, NULL };
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	return -posix_spawn(pid, "/bin/sh", NULL, NULL, argv, environ);
}

static inline int command_wait(pid_t pid, double seconds)
{
	double end = now() + seconds;
	int status;

	while (waitpid(pid, &status, WNOHANG) != pid) {
		if (now() > end)
			return -ETIMEDOUT;
		usleep(2000);
	}
	return status ? -EIO : 0;
}

/* The software RDMA device. */
static inline int rxe_delete(void)
{
	pid_t pid;
	int err = command_start(&pid, "rdma link delete rxe0");

	return err ? err : command_wait(pid, PROMPT);
}

static inline int rxe_add(void)
{
	pid_t pid;
	int err = command_start(&pid, "rdma link add rxe0 type rxe netdev d0");

	return err ? err : command_wait(pid, PROMPT);
}

/* Freeze and thaw all tasks but the current one; -EBUSY if one does not freeze. */
static inline int machine_freeze(void)
{
	int err, err2;

	err = file_write("/sys/power/pm_freeze_timeout", "5000");
	if (!err)
		err = file_write("/sys/module/suspend/parameters/pm_test_delay", "0");
	if (!err)
		err = file_write("/sys/power/pm_test", "freezer");
	if (err)
		return err;
	err = file_write("/sys/power/state", "freeze");
	err2 = file_write("/sys/power/pm_test", "none");
	return err ? err : err2;
}

/* Control groups: make one with the memory controller. */
#define CGROUPS	"/sys/fs/cgroup/"

static inline int cgroup_make(const char *path)
{
	if (access(CGROUPS "cgroup.procs", F_OK) &&
	    system("mount -t cgroup2 cgroup2 " CGROUPS))
		return -ENODEV;
	if (mkdir(path, 0700) && errno != EEXIST)
		return -errno;
	return file_write(CGROUPS "cgroup.subtree_control", "+memory");
}

/* Read a line from the monitor; false if nothing comes for @timeout_ms. */
static inline bool qmp_line(int fd, char *line, size_t size, int timeout_ms)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	size_t len = 0;
	char c;

	while (poll(&pfd, 1, timeout_ms) == 1 && read(fd, &c, 1) == 1) {
		if (c == '\n') {
			line[len] = '\0';
			return true;
		}
		if (len < size - 1)
			line[len++] = c;
	}
	return false;
}

/* Returns a file descriptor of the monitor, which takes commands now; close() it. */
static inline int qmp_open(void)
{
	static const char hello[] = "\xff\n{\"execute\":\"qmp_capabilities\"}\n";
	struct termios raw;
	char line[4096];
	int fd;

	fd = open(MONITOR, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (tcgetattr(fd, &raw)) {
		close(fd);
		return -ENODEV;
	}
	cfmakeraw(&raw);
	cfsetspeed(&raw, B115200);
	tcsetattr(fd, TCSANOW, &raw);

	/* The monitor may have received half a command, or take commands already. */
	if (write(fd, hello, sizeof(hello) - 1) != sizeof(hello) - 1) {
		close(fd);
		return -EIO;
	}
	while (qmp_line(fd, line, sizeof(line), 50))
		;
	return fd;
}

/*
 * Send a command to the monitor, written with single quotes for readability. -EBUSY
 * if the monitor refuses.
 */
static inline int qmp(const char *format, ...)
{
	char command[1024], line[4096], id[32];
	static unsigned int ids;
	size_t i, len;
	va_list args;
	int fd, err;

	snprintf(id, sizeof(id), "\"id\": \"%d-%u\"", getpid(), ++ids);
	va_start(args, format);
	len = vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	for (i = 0; i < len; i++)
		if (command[i] == '\'')
			command[i] = '"';
	len--;		/* the closing brace */
	len += snprintf(command + len, sizeof(command) - len, ", %s}\n", id);

	fd = qmp_open();
	if (fd < 0)
		return fd;
	err = write(fd, command, len) == (ssize_t)len ? -ETIMEDOUT : -EIO;
	while (err == -ETIMEDOUT && qmp_line(fd, line, sizeof(line), 5000))
		if (strstr(line, id))
			err = strstr(line, "\"error\"") ? -EBUSY : 0;
	if (err == -ETIMEDOUT)
		printf("# the monitor does not answer\n");
	close(fd);
	return err;
}

/* Delay all reads of a disk but the first; zero: stop delaying. */
static inline int disk_throttle(const char *drive, unsigned int bytes_per_second)
{
	return qmp("{'execute':'block_set_io_throttle','arguments':{'device':'%s',"
		   "'bps':0,'bps_rd':%u,'bps_wr':0,'iops':0,'iops_rd':0,'iops_wr':0}}",
		   drive, bytes_per_second);
}

/* Swap a page out to disk, not only to the swap cache. It must not be all zeroes. */
static inline int page_swap_out(volatile uint8_t *page)
{
	unsigned char cached;
	int tries, err;

	for (tries = 0; tries < 100; tries++) {
		err = pages_out((uint8_t *)page, PAGE);
		if (err)
			return err;
		if (mincore((void *)page, PAGE, &cached))
			return -errno;
		if (!(cached & 1))
			return 0;
		/* In the swap cache only. Soon it is on disk and clean: try again */
		usleep(5000);
		(void)*page;
	}
	return -EBUSY;
}

/*
 * Delay reads of swap space until swap_sleep(false). The first read, which QEMU does
 * not delay, is done here.
 */
static inline int swap_sleep(bool sleep)
{
	volatile uint8_t *page;
	int fd, err;

	if (!sleep)
		return disk_throttle("swap", 0);

	/* No page is read ahead with another one */
	fd = open("/proc/sys/vm/page-cluster", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1)
		return -EIO;
	close(fd);

	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return -ENOMEM;
	page[1] = 1;
	err = page_swap_out(page);
	if (!err)
		err = disk_throttle("swap", 1);
	if (!err)
		(void)page[0];
	munmap((void *)page, 4096);
	return err;
}

/* The PCI address of the only device with these IDs. */
static inline int pci_find(unsigned int vendor, unsigned int device, char *pci)
{
	unsigned int v, d;
	int err = -ENODEV;
	glob_t found;
	size_t i;

	if (glob(PCI_DEVICES "*", 0, NULL, &found))
		return -ENODEV;
	for (i = 0; i < found.gl_pathc; i++) {
		char path[PATH_MAX], text[16] = "";
		int fd;

		snprintf(path, sizeof(path), "%s/modalias", found.gl_pathv[i]);
		fd = open(path, O_RDONLY);
		if (fd < 0)
			continue;
		/* pci:v00001234d000011E8sv... */
		if (pread(fd, path, 23, 0) == 23 &&
		    sscanf(path, "pci:v%8xd%8x", &v, &d) == 2 &&
		    v == vendor && d == device) {
			snprintf(text, sizeof(text), "%s",
				 strrchr(found.gl_pathv[i], '/') + 1);
			strcpy(pci, text);
			err = 0;
		}
		close(fd);
	}
	globfree(&found);
	return err;
}

static inline bool pci_exists(const char *pci)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), PCI_DEVICES "%s", pci);
	return !access(path, F_OK);
}

/* Is the device bound to this driver, or about to be? */
static inline bool pci_is_bound(const char *pci, const char *driver)
{
	char path[PATH_MAX], link[PATH_MAX] = "";

	snprintf(path, sizeof(path), PCI_DEVICES "%s/driver", pci);
	return readlink(path, link, sizeof(link) - 1) > 0 &&
	       !strcmp(strrchr(link, '/') + 1, driver);
}

/* The port above a device. */
static inline int pci_port(const char *pci, char *port)
{
	char path[PATH_MAX], real[PATH_MAX];

	snprintf(path, sizeof(path), PCI_DEVICES "%s", pci);
	if (!realpath(path, real))
		return -ENODEV;
	*strrchr(real, '/') = '\0';
	snprintf(port, PCI_ADDR_LEN, "%.15s", strrchr(real, '/') + 1);
	return 0;
}

/* Reset a device, which keeps its driver. */
static inline int pci_reset(const char *pci)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), PCI_DEVICES "%s/reset", pci);
	return file_write(path, "1");
}

/* Does a line of a file contain this text? */
static inline bool file_says(const char *path, const char *text)
{
	FILE *file = fopen(path, "r");
	bool found = false;
	char line[512];

	while (file && fgets(line, sizeof(line), file))
		found |= !!strstr(line, text);
	if (file)
		fclose(file);
	return found;
}

/* Map a BAR through sysfs; NULL on errors. */
static inline void *pci_map_bar(const char *pci, int bar, size_t *size)
{
	char path[PATH_MAX];
	void *map = NULL;
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), PCI_DEVICES "%s/resource%d", pci, bar);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	if (!fstat(fd, &st)) {
		map = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE,
			   MAP_SHARED, fd, 0);
		*size = st.st_size;
	}
	close(fd);
	return map == MAP_FAILED ? NULL : map;
}

/* Open the kernel's log, to read it from here on; close() it. */
static inline int log_open(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		lseek(fd, 0, SEEK_END);
	return fd;
}

/* Read the next line; false if there is none yet. */
static inline bool log_line(int fd, char *line, size_t size)
{
	ssize_t n;

	do {
		n = read(fd, line, size - 1);
	} while (n < 0 && errno == EPIPE);
	if (n < 0)
		return false;
	line[n] = '\0';
	return true;
}

/* Does the line report DMA that the IOMMU has stopped, or suppressed reports of it? */
static inline bool log_is_fault(const char *line)
{
	return (strstr(line, "DMAR: ") && strstr(line, "fault")) ||
	       strstr(line, "dmar_fault");
}

/* Returns how often the IOMMU has stopped DMA since the last call. */
static inline unsigned int log_faults(int fd)
{
	unsigned int faults = 0;
	char line[2048];

	while (log_line(fd, line, sizeof(line))) {
		if (!log_is_fault(line))
			continue;
		printf("# %s", strchr(line, ';') + 1);
		faults++;
	}
	return faults;
}

/* Importers */

static inline int edu_open(void)
{
	glob_t found;
	int fd;

	if (glob("/dev/hmm_edu-*", 0, NULL, &found))
		return -ENODEV;
	fd = open(found.gl_pathv[0], O_RDWR | O_CLOEXEC);
	globfree(&found);
	return fd < 0 ? -errno : fd;
}

static inline int edu_copy(int edu, void *dst, const void *src, size_t size)
{
	struct hmm_edu_copy copy = {
		.dst = (uintptr_t)dst,
		.src = (uintptr_t)src,
		.size = size,
	};
	double start = now();

	while (ioctl(edu, HMM_EDU_COPY, &copy)) {
		int err = -errno;

		if (!is_out_of_patience(err, start))
			return err;
		copy.dst += copy.copied;
		copy.src += copy.copied;
		copy.size -= copy.copied;
		start = now();
	}
	return copy.copied == copy.size ? 0 : -EIO;
}

static inline int disk_open(void)
{
	double end = now() + PROMPT;
	uint64_t size;
	glob_t found;
	int fd = -1;
	size_t i;

	do {
		/* An old disk that a process holds open keeps its name from a new one */
		if (!glob("/dev/nvme[0-9]*n[0-9]*", 0, NULL, &found)) {
			for (i = 0; i < found.gl_pathc && fd < 0; i++) {
				fd = open(found.gl_pathv[i], O_RDWR | O_CLOEXEC);
				if (fd >= 0 &&
				    (ioctl(fd, BLKGETSIZE64, &size) || !size)) {
					close(fd);
					fd = -1;
				}
			}
			globfree(&found);
		}
	} while (fd < 0 && now() < end && !usleep(10000));

	return fd < 0 ? -ENODEV : fd;
}

/* Transfer through hmm_blk, from the disk to memory, or from memory with @write. */
static inline int disk_transfer(int blk, int disk, void *mem, uint64_t pos,
				size_t size, bool write)
{
	struct hmm_blk_io io = {
		.fd = disk,
		.flags = write ? HMM_BLK_WRITE : 0,
		.addr = (uintptr_t)mem,
		.size = size,
		.offset = pos,
	};

	if (ioctl(blk, HMM_BLK_IO, &io))
		return -errno;
	return io.done == size ? 0 : -ENODATA;
}

/* edu's registers, in BAR 0 */
#define EDU_DMA_SRC		0x80
#define EDU_DMA_DST		0x88
#define EDU_DMA_COUNT		0x90
#define EDU_DMA_CMD		0x98
#define EDU_DMA_RUN		1
#define EDU_DMA_FROM_DEVICE	2
#define EDU_BUFFER		0x40000

static inline volatile uint8_t *edu_map_regs(void)
{
	char pci[PCI_ADDR_LEN];
	size_t size;

	return pci_find(0x1234, 0x11e8, pci) ? NULL : pci_map_bar(pci, 0, &size);
}

static inline uint64_t edu_read(volatile uint8_t *regs, int reg)
{
	return *(volatile uint64_t *)(regs + reg);
}

static inline void edu_write(volatile uint8_t *regs, int reg, uint64_t value)
{
	*(volatile uint64_t *)(regs + reg) = value;
}

/* Is the device writing to memory? */
static inline bool edu_writes(volatile uint8_t *regs)
{
	return edu_read(regs, EDU_DMA_CMD) & EDU_DMA_RUN &&
	       edu_read(regs, EDU_DMA_DST) != EDU_BUFFER;
}

#endif
