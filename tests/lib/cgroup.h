/* SPDX-License-Identifier: GPL-2.0 */
/* Control groups. */
#ifndef LIB_CGROUP_H
#define LIB_CGROUP_H

#define CGROUPS	"/sys/fs/cgroup/"

/* Create the cgroup @path, with the memory controller. */
int cgroup_make(const char *path);

#endif
