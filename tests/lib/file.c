// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "file.h"

int file_write(const char *path, const char *text)
{
	int fd, err = 0;

	fd = open(path, O_WRONLY | O_TRUNC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);

	return err;
}

bool file_says(const char *path, const char *text)
{
	FILE *file = fopen(path, "r");
	bool found = false;
	char line[512];

	while (file && fgets(line, sizeof(line), file))
		found |= !!strstr(line, text);
	if (file)
		fclose(file);
	return found;
}

uint64_t number_read(const char *path)
{
	unsigned long long value = ~0ULL;
	FILE *file = fopen(path, "r");

	if (!file)
		return ~0ULL;
	if (fscanf(file, "%llu", &value) != 1)
		value = ~0ULL;
	fclose(file);

	return value;
}

uint64_t field_read(const char *path, const char *name)
{
	unsigned long long value, found = ~0ULL;
	FILE *file = fopen(path, "r");
	char line[256], field[64];

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, " %63[^: \t]%*[: \t]%llu", field, &value) == 2 &&
		    !strcmp(field, name)) {
			found = value;
			break;
		}
	}
	if (file)
		fclose(file);
	return found;
}
