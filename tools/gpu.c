// SPDX-License-Identifier: GPL-2.0
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "gpu.h"

#define DRIVER	"/sys/bus/pci/drivers/vsvm"
#define LINKS	"/sys/module/vsvm/parameters/links"

static int is_pci_address(const struct dirent *entry)
{
	return !!strchr(entry->d_name, ':');
}

static int is_render_node(const struct dirent *entry)
{
	return !strncmp(entry->d_name, "renderD", strlen("renderD"));
}

/* Find the name of matching entry number @index, in alphabetical order. */
static int find_entry(const char *dir, int (*match)(const struct dirent *),
		      unsigned int index, char *name, size_t size)
{
	struct dirent **list;
	int i, n, err = -ENODEV;

	n = scandir(dir, &list, match, alphasort);
	if (n < 0)
		return -ENODEV;

	for (i = 0; i < n; i++) {
		if ((unsigned int)i == index) {
			snprintf(name, size, "%s", list[i]->d_name);
			err = 0;
		}
		free(list[i]);
	}
	free(list);
	return err;
}

int gpu_open_at(const char *pci)
{
	char node[NAME_MAX + 1], path[PATH_MAX];
	int fd, err;

	snprintf(path, sizeof(path), DRIVER "/%s/drm", pci);
	err = find_entry(path, is_render_node, 0, node, sizeof(node));
	if (err)
		return err;

	snprintf(path, sizeof(path), "/dev/dri/%s", node);
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int gpu_open(unsigned int index)
{
	char pci[NAME_MAX + 1];
	int err;

	err = find_entry(DRIVER, is_pci_address, index, pci, sizeof(pci));
	return err ? err : gpu_open_at(pci);
}

int gpu_pci_address(int gpu, char *buf, size_t size)
{
	char link[64], path[PATH_MAX];
	struct stat st;

	if (fstat(gpu, &st))
		return -errno;

	snprintf(link, sizeof(link), "/sys/dev/char/%u:%u/device",
		 major(st.st_rdev), minor(st.st_rdev));
	if (!realpath(link, path))
		return -ENODEV;

	snprintf(buf, size, "%s", strrchr(path, '/') + 1);
	return 0;
}

static int gpu_ioctl(int gpu, unsigned long request, void *arg)
{
	return ioctl(gpu, request, arg) ? -errno : 0;
}

int gpu_info(int gpu, struct drm_vsvm_info *info)
{
	return gpu_ioctl(gpu, DRM_IOCTL_VSVM_INFO, info);
}

int gpu_counters(int gpu, struct drm_vsvm_counters *counters)
{
	return gpu_ioctl(gpu, DRM_IOCTL_VSVM_COUNTERS, counters);
}

int gpu_residency(int gpu, const void *addr, size_t size,
		  struct drm_vsvm_residency *where)
{
	memset(where, 0, sizeof(*where));
	where->addr = (uintptr_t)addr;
	where->size = size;
	return gpu_ioctl(gpu, DRM_IOCTL_VSVM_RESIDENCY, where);
}

static int prefetch(int gpu, void *addr, size_t size, uint32_t where,
		    uint64_t *pages)
{
	struct drm_vsvm_prefetch args = {
		.addr = (uintptr_t)addr,
		.size = size,
		.where = where,
	};
	int err;

	err = gpu_ioctl(gpu, DRM_IOCTL_VSVM_PREFETCH, &args);
	if (!err && pages)
		*pages = args.pages;
	return err;
}

int gpu_to_vram(int gpu, void *addr, size_t size, uint64_t *pages)
{
	return prefetch(gpu, addr, size, DRM_VSVM_TO_VRAM, pages);
}

int gpu_to_ram(int gpu, void *addr, size_t size)
{
	return prefetch(gpu, addr, size, DRM_VSVM_TO_RAM, NULL);
}

static int run_op(int gpu, const void *addr, size_t size, uint32_t op,
		  uint64_t operand, uint64_t *result)
{
	struct drm_vsvm_op args = {
		.addr = (uintptr_t)addr,
		.size = size,
		.op = op,
		.operand = operand,
	};
	int err;

	err = gpu_ioctl(gpu, DRM_IOCTL_VSVM_OP, &args);
	if (!err && result)
		*result = args.result;
	return err;
}

int gpu_fill(int gpu, void *addr, size_t size, uint64_t value)
{
	return run_op(gpu, addr, size, DRM_VSVM_OP_FILL, value, NULL);
}

int gpu_xor(int gpu, void *addr, size_t size, uint64_t value)
{
	return run_op(gpu, addr, size, DRM_VSVM_OP_XOR, value, NULL);
}

int gpu_sum(int gpu, const void *addr, size_t size, uint64_t *sum)
{
	return run_op(gpu, addr, size, DRM_VSVM_OP_SUM, 0, sum);
}

int gpu_copy(int gpu, void *dst, const void *src, size_t size)
{
	return run_op(gpu, dst, size, DRM_VSVM_OP_COPY, (uintptr_t)src, NULL);
}

int gpu_links_get(char *links, size_t size)
{
	ssize_t len;
	int fd;

	fd = open(LINKS, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	len = read(fd, links, size - 1);
	if (len < 0)
		len = -errno;
	close(fd);
	if (len < 0)
		return len;

	links[len] = '\0';
	links[strcspn(links, "\n")] = '\0';
	return 0;
}

int gpu_links_set(const char *links)
{
	char line[256];
	int fd, len, err = 0;

	/* The newline is for an empty list: an empty write changes nothing */
	len = snprintf(line, sizeof(line), "%s\n", links);
	if (len >= (int)sizeof(line))
		return -EINVAL;

	fd = open(LINKS, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, line, len) != len)
		err = -errno;
	close(fd);
	return err;
}

bool gpu_links_have(const char *links, unsigned int from, unsigned int to)
{
	unsigned int a, b;
	char way;
	int n;

	while (sscanf(links, "%u%c%u%n", &a, &way, &b, &n) == 3) {
		if ((a == from && b == to) ||
		    (way == '-' && a == to && b == from))
			return true;
		links += n + (links[n] == ',');
	}
	return false;
}
