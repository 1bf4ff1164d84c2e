// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/fs.h>

#include "../../linux/samples/hmm/hmm_blk.h"
#include "disk.h"
#include "measure.h"
#include "patience.h"
#include "qmp.h"

int disk_open(void)
{
	double end = now() + PROMPT;
	uint64_t size;
	glob_t found;
	int fd = -1;
	size_t i;

	do {
		/* An old disk that a process holds open keeps its name from a new one */
		if (!glob("/dev/nvme[0-9]*n[0-9]*", 0, NULL, &found)) {
			for (i = 0; i < found.gl_pathc && fd < 0; i++) {
				fd = open(found.gl_pathv[i], O_RDWR | O_CLOEXEC);
				if (fd >= 0 &&
				    (ioctl(fd, BLKGETSIZE64, &size) || !size)) {
					close(fd);
					fd = -1;
				}
			}
			globfree(&found);
		}
	} while (fd < 0 && now() < end && !usleep(10000));

	return fd < 0 ? -ENODEV : fd;
}

int disk_transfer(int blk, int disk, void *mem, uint64_t pos, size_t size, bool write)
{
	struct hmm_blk_io io = {
		.fd = disk,
		.flags = write ? HMM_BLK_WRITE : 0,
		.addr = (uintptr_t)mem,
		.size = size,
		.offset = pos,
	};

	if (ioctl(blk, HMM_BLK_IO, &io))
		return -errno;
	return io.done == size ? 0 : -ENODATA;
}

int disk_throttle(const char *drive, unsigned int bytes_per_second)
{
	return qmp("{'execute':'block_set_io_throttle','arguments':{'device':'%s',"
		   "'bps':0,'bps_rd':%u,'bps_wr':0,'iops':0,'iops_rd':0,'iops_wr':0}}",
		   drive, bytes_per_second);
}
