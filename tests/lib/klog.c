// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "klog.h"

int klog_open(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		lseek(fd, 0, SEEK_END);
	return fd;
}

bool klog_line(int fd, char *line, size_t size)
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

bool klog_is_fault(const char *line)
{
	return (strstr(line, "DMAR: ") && strstr(line, "fault")) ||
	       strstr(line, "dmar_fault");
}

unsigned int klog_faults(int fd)
{
	unsigned int faults = 0;
	char line[2048];

	while (klog_line(fd, line, sizeof(line))) {
		if (!klog_is_fault(line))
			continue;
		printf("# %s", strchr(line, ';') + 1);
		faults++;
	}
	return faults;
}
