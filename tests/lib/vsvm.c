// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vsvm.h"

int vsvm_unload(void)
{
	int tries = 100, err;

	/* Address spaces, and the references that they hold, go away with some delay. */
	do {
		err = syscall(SYS_delete_module, "vsvm", O_NONBLOCK) ?
		      -errno : 0;
	} while (err == -EAGAIN && tries-- && !usleep(50000));

	return err == -ENOENT ? 0 : err;
}

int vsvm_reload(const char *params)
{
	char command[256];
	int err = vsvm_unload();

	if (err)
		return err;

	/* MODPROBE_OPTIONS tells modprobe where our modules are. */
	snprintf(command, sizeof(command), "modprobe vsvm %s", params);
	return system(command) ? -ENODEV : 0;
}

/* The module's directory in sysfs has a new inode each time the module is loaded. */
int vsvm_load(const char *params)
{
	static const char marker[] = "/run/vsvm.loaded";
	char want[256], have[256] = "";
	struct stat st = {};
	FILE *file;
	int err;

	stat("/sys/module/vsvm", &st);
	snprintf(want, sizeof(want), "%lu %s", (unsigned long)st.st_ino, params);
	file = fopen(marker, "r");
	if (file) {
		if (!fgets(have, sizeof(have), file))
			have[0] = 0;
		fclose(file);
	}
	if (!strcmp(want, have))
		return 0;

	err = vsvm_reload(params);
	if (err || stat("/sys/module/vsvm", &st))
		return err ? err : -errno;

	file = fopen(marker, "w");
	if (file) {
		fprintf(file, "%lu %s", (unsigned long)st.st_ino, params);
		fclose(file);
	}
	return 0;
}

void vsvm_restore(void)
{
	if (vsvm_reload(""))
		printf("# vsvm is not as it was\n");
}
