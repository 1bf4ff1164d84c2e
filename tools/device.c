// SPDX-License-Identifier: GPL-2.0
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "p2pdma.h"

#define PCI_DEVICES	SYSFS "/bus/pci/devices/"

/* RDMA devices without a parent, such as those of soft-RoCE */
#define CPU_NAMES	SYSFS "/devices/virtual/infiniband/*"

/* Below a PCI function: names that users know, and the names of importers */
#define PCI_NAMES	"{infiniband/*,nvme/nvme*,drm/card*,misc/*}"
#define IMPORTER_NAMES	"{infiniband/*,nvme/nvme*,drm/card*,misc/hmm_*}"

bool device_is_cpu(const char *address)
{
	return !strcmp(address, "cpu");
}

int device_compare(const char *a, const char *b)
{
	if (device_is_cpu(a) || device_is_cpu(b))
		return device_is_cpu(b) - device_is_cpu(a);
	return strverscmp(a, b);
}

static void find_names(const char *pattern, char *names, size_t size)
{
	size_t i, len = 0;
	glob_t found;

	if (glob(pattern, GLOB_BRACE, NULL, &found))
		return;

	for (i = 0; i < found.gl_pathc && len < size; i++)
		len += snprintf(names + len, size - len, "%s%s", i ? " " : "",
				strrchr(found.gl_pathv[i], '/') + 1);
	globfree(&found);
}

static void find_driver(struct device *device)
{
	char link[PATH_MAX], target[PATH_MAX];

	snprintf(link, sizeof(link), PCI_DEVICES "%s/driver", device->address);
	if (realpath(link, target))
		snprintf(device->driver, sizeof(device->driver), "%s",
			 strrchr(target, '/') + 1);
}

static void find_path(struct device *device)
{
	char link[PATH_MAX], target[PATH_MAX];
	const char *root;

	snprintf(link, sizeof(link), PCI_DEVICES "%s", device->address);
	if (!realpath(link, target))
		return;

	/* A host bridge may be at any depth below /sys/devices */
	root = strstr(target, "/pci");
	if (root)
		snprintf(device->path, sizeof(device->path), "%s", root + 1);
}

void device_describe(struct device *device, const char *address)
{
	char pattern[PATH_MAX] = CPU_NAMES;

	memset(device, 0, sizeof(*device));
	device->address = address;
	if (!device_is_cpu(address)) {
		find_driver(device);
		find_path(device);
		snprintf(pattern, sizeof(pattern), PCI_DEVICES "%s/" PCI_NAMES,
			 address);
	}
	find_names(pattern, device->names, sizeof(device->names));
	snprintf(device->title, sizeof(device->title), "%s%s%s",
		 device->driver, *device->driver && *device->names ? " " : "",
		 device->names);
}

bool device_may_import(const char *address)
{
	char pattern[PATH_MAX], names[256] = "";

	if (device_is_cpu(address))
		return true;
	snprintf(pattern, sizeof(pattern), PCI_DEVICES "%s/" IMPORTER_NAMES,
		 address);
	find_names(pattern, names, sizeof(names));
	return *names;
}
