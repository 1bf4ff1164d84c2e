// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "qmp.h"

#define MONITOR	"/dev/ttyS2"

/* Read a line from the monitor; false if nothing comes for @timeout_ms. */
static bool qmp_line(int fd, char *line, size_t size, int timeout_ms)
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
static int qmp_open(void)
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

int qmp(const char *format, ...)
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
