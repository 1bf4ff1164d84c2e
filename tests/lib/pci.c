// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "pci.h"

int pci_find(unsigned int vendor, unsigned int device, char *pci)
{
	unsigned int v, d;
	int err = -ENODEV;
	glob_t found;
	size_t i;

	if (glob(PCI_DEVICES "*", 0, NULL, &found))
		return -ENODEV;
	for (i = 0; i < found.gl_pathc; i++) {
		char path[PATH_MAX], text[16] = "";
		int fd;

		snprintf(path, sizeof(path), "%s/modalias", found.gl_pathv[i]);
		fd = open(path, O_RDONLY);
		if (fd < 0)
			continue;
		/* pci:v00001234d000011E8sv... */
		if (pread(fd, path, 23, 0) == 23 &&
		    sscanf(path, "pci:v%8xd%8x", &v, &d) == 2 &&
		    v == vendor && d == device) {
			snprintf(text, sizeof(text), "%s",
				 strrchr(found.gl_pathv[i], '/') + 1);
			strcpy(pci, text);
			err = 0;
		}
		close(fd);
	}
	globfree(&found);
	return err;
}

bool pci_exists(const char *pci)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), PCI_DEVICES "%s", pci);
	return !access(path, F_OK);
}

bool pci_is_bound(const char *pci, const char *driver)
{
	char path[PATH_MAX], link[PATH_MAX] = "";

	snprintf(path, sizeof(path), PCI_DEVICES "%s/driver", pci);
	return readlink(path, link, sizeof(link) - 1) > 0 &&
	       !strcmp(strrchr(link, '/') + 1, driver);
}

int pci_port(const char *pci, char *port)
{
	char path[PATH_MAX], real[PATH_MAX];

	snprintf(path, sizeof(path), PCI_DEVICES "%s", pci);
	if (!realpath(path, real))
		return -ENODEV;
	*strrchr(real, '/') = '\0';
	snprintf(port, PCI_ADDR_LEN, "%.15s", strrchr(real, '/') + 1);
	return 0;
}

int pci_reset(const char *pci)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), PCI_DEVICES "%s/reset", pci);
	return file_write(path, "1");
}

void *pci_map_bar(const char *pci, int bar, size_t *size)
{
	char path[PATH_MAX];
	void *map = NULL;
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), PCI_DEVICES "%s/resource%d", pci, bar);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	if (!fstat(fd, &st)) {
		map = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE,
			   MAP_SHARED, fd, 0);
		*size = st.st_size;
	}
	close(fd);
	return map == MAP_FAILED ? NULL : map;
}
