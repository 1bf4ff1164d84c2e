// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <sys/ioctl.h>

#include "../../linux/samples/hmm/hmm_edu.h"
#include "edu.h"
#include "measure.h"
#include "patience.h"
#include "pci.h"

int edu_open(void)
{
	glob_t found;
	int fd;

	if (glob("/dev/hmm_edu-*", 0, NULL, &found))
		return -ENODEV;
	fd = open(found.gl_pathv[0], O_RDWR | O_CLOEXEC);
	globfree(&found);
	return fd < 0 ? -errno : fd;
}

int edu_copy(int edu, void *dst, const void *src, size_t size)
{
	struct hmm_edu_copy copy = {
		.dst = (uintptr_t)dst,
		.src = (uintptr_t)src,
		.size = size,
	};
	double start = now();

	while (ioctl(edu, HMM_EDU_COPY, &copy)) {
		int err = -errno;

		if (!is_out_of_patience(err, start))
			return err;
		copy.dst += copy.copied;
		copy.src += copy.copied;
		copy.size -= copy.copied;
		start = now();
	}
	return copy.copied == copy.size ? 0 : -EIO;
}

volatile uint8_t *edu_map_regs(void)
{
	char pci[PCI_ADDR_LEN];
	size_t size;

	return pci_find(0x1234, 0x11e8, pci) ? NULL : pci_map_bar(pci, 0, &size);
}

uint64_t edu_read(volatile uint8_t *regs, int reg)
{
	return *(volatile uint64_t *)(regs + reg);
}

void edu_write(volatile uint8_t *regs, int reg, uint64_t value)
{
	*(volatile uint64_t *)(regs + reg) = value;
}

bool edu_writes(volatile uint8_t *regs)
{
	return edu_read(regs, EDU_DMA_CMD) & EDU_DMA_RUN &&
	       edu_read(regs, EDU_DMA_DST) != EDU_BUFFER;
}
