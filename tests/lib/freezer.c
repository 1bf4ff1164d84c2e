// SPDX-License-Identifier: GPL-2.0
#include "file.h"
#include "freezer.h"

int machine_freeze(void)
{
	int err, err2;

	err = file_write("/sys/power/pm_freeze_timeout", "5000");
	if (!err)
		err = file_write("/sys/module/suspend/parameters/pm_test_delay", "0");
	if (!err)
		err = file_write("/sys/power/pm_test", "freezer");
	if (err)
		return err;
	err = file_write("/sys/power/state", "freeze");
	err2 = file_write("/sys/power/pm_test", "none");
	return err ? err : err2;
}
