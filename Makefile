# SPDX-License-Identifier: GPL-2.0
# All output goes to build/, except downloaded packages and the cache of ccache.
# The scripts in lab/ do the work; they can be run by hand as well.

# Do not let make expand $ in CMD: the shell gets the text unchanged
override CMD := $(value CMD)
export CMD

help: ## Show this
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile
	@sed -n 's/^## /  /p' Makefile

## 
## KERNEL_SRC=/path   a kernel tree of your own; it is only read
## UNPATCHED=1        the kernel without our series
## DEBUG=1            a kernel that checks itself: KASAN, lockdep and others; slow
## GPUS=2 VRAM=256    how many GPUs, and MiB of each; MEM=3G of RAM
## LINKS='0-1,1>2'    private links between GPUs: both ways, or one way
## TOPOLOGY=switch    how the devices are wired; or host-bridge, iommu, blocked, acs
## DEMO=gpus          a demo of GPUs that reach each other; SIZE= in MiB
## TESTS='mm uapi'    only those suites of tests/suites
## FULL=1             make test: everything, on all topologies
## JOBS=1             make test: machines that run at a time; default: processors
## STRESS_S=120 FUZZ_S=60   how long those tests go on, in seconds
## FORCE=1            drop edits made in build/linux
## V=1                name each file that is built

# Each of these steps returns at once when it has nothing to do
source:
	@lab/deps
	@lab/qemu
	@lab/fetch
	@lab/graft

ready: source
	@lab/build
	@lab/programs

demo: ready ## Build all, boot, and show a NIC reading a GPU's memory
	@lab/run lab/demo

ifeq ($(DEMO),gpus)
export GPUS ?= 4
export LINKS ?= 0-1,1-2
endif

test: ready ## Build all, boot, and run the tests
	@lab/test

bench: ready ## Build all and Linux without it, measure, make build/bench.html
	@UNPATCHED=1 lab/fetch
	@UNPATCHED=1 lab/graft
	@UNPATCHED=1 lab/build
	@UNPATCHED=1 lab/programs
	@lab/bench

shell: ready ## Boot to a shell; CMD='...' runs that and exits
	@if [ -n "$$CMD" ]; then lab/run "$$CMD"; else lab/run; fi

series: source ## Write each topic series, as mails, to build/series
	@lab/series

check: ready ## Check the style of all patches, and compile each by itself
	@lab/check
	@lab/compile-each

mutants: ready ## Plant small faults in the kernel, and see that tests fail: hours
	@lab/mutants

clean: ## Remove build/
	rm -rf build

.PHONY: help source ready demo test bench shell series check mutants clean
