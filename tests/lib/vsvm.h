/* SPDX-License-Identifier: GPL-2.0 */
/* The GPU's driver as a module, with parameters. Functions return 0 or a negative errno. */
#ifndef LIB_VSVM_H
#define LIB_VSVM_H

#include <stdlib.h>

/* Call this when the last users of vsvm are gone or exit. */
int vsvm_unload(void);
/* Load vsvm with parameters; unload it first if it is loaded. */
int vsvm_reload(const char *params);
/* As vsvm_reload(), but do nothing if vsvm is loaded with these parameters. */
int vsvm_load(const char *params);
/* Load vsvm with its default parameters again; for atexit(). */
void vsvm_restore(void);

/* In place of TEST_HARNESS_MAIN, for tests that load vsvm with parameters. */
#define VSVM_HARNESS_MAIN						\
int main(int argc, char **argv)						\
{									\
	atexit(vsvm_restore);						\
	return test_harness_run(argc, argv);				\
}

#endif
