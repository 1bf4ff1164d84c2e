// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cgroup.h"
#include "file.h"

int cgroup_make(const char *path)
{
	if (access(CGROUPS "cgroup.procs", F_OK) &&
	    system("mount -t cgroup2 cgroup2 " CGROUPS))
		return -ENODEV;
	if (mkdir(path, 0700) && errno != EEXIST)
		return -errno;
	return file_write(CGROUPS "cgroup.subtree_control", "+memory");
}
