// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"
#include "measure.h"

extern char **environ;

int command_start(pid_t *pid, const char *format, ...)
{
	char command[512];
	char *argv[] = { "sh", "-c", command, NULL };
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	return -posix_spawn(pid, "/bin/sh", NULL, NULL, argv, environ);
}

int command_wait(pid_t pid, double seconds)
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
