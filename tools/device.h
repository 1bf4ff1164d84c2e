/* SPDX-License-Identifier: GPL-2.0 */
/* Facts from sysfs about a device that the kernel names by its PCI address. */
#ifndef DEVICE_H
#define DEVICE_H

#include <limits.h>
#include <stdbool.h>

struct device {
	const char *address;	/* the PCI address, or "cpu" */
	char driver[NAME_MAX + 1];
	char names[256];	/* "mlx5_0 mlx5_1"; all of these may be empty */
	char path[PATH_MAX];	/* "pci0000:00/0000:00:01.0", from the root */
	char title[512];	/* driver and names */
};

/* "cpu" is for RDMA devices that copy with the CPU and have no PCI device. */
bool device_is_cpu(const char *address);

/* For sorting: the CPU first, then PCI addresses in the order of lspci. */
int device_compare(const char *a, const char *b);

/* @address must stay valid as long as @device is in use. */
void device_describe(struct device *device, const char *address);

/* Is the device of a kind that accesses the memory of processes? */
bool device_may_import(const char *address);

#endif
