/* SPDX-License-Identifier: GPL-2.0 */
/* The GPU's driver as a module, with parameters. Functions return 0 or a negative errno. */
#ifndef LIB_VSVM_H
#define LIB_VSVM_H

#include <stdlib.h>

/* The last users of vsvm must be gone, or about to go. */
int vsvm_unload(void);
/* Load vsvm with parameters; unload it first if it is loaded. */
int vsvm_reload(const char *params);
/* The same, unless it is loaded with these parameters already. */
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
