/* SPDX-License-Identifier: GPL-2.0 */
/* What sysfs knows of a device that the kernel calls by its PCI address. */
#ifndef DEVICE_H
#define DEVICE_H

#include <limits.h>
#include <stdbool.h>

struct device {
	const char *address;	/* on PCI, or "cpu" */
	char driver[NAME_MAX + 1];
	char names[256];	/* "mlx5_0 mlx5_1"; may be empty, as the others */
	char path[PATH_MAX];	/* "pci0000:00/0000:00:01.0", from the root */
	char title[512];	/* driver and names */
};

/* "cpu" is for RDMA devices that copy, as they have no device of their own. */
bool device_is_cpu(const char *address);

/* For sorting: the CPU first, then as lspci does. */
int device_compare(const char *a, const char *b);

/* @address has to stay. */
void device_describe(struct device *device, const char *address);

/* Is it of a kind that reaches memory of processes? */
bool device_may_import(const char *address);

#endif
