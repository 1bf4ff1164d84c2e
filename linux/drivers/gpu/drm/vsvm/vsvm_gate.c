// SPDX-License-Identifier: GPL-2.0
/*
 * Gates: accesses to VRAM wait while a GPU is reset. One reset may concern
 * several GPUs, which are prepared one after the other, with the gates of the
 * first ones closed. So a thread must not wait at a gate while it holds a lock
 * that the preparation of another GPU needs: a lock that a notifier takes, or
 * the lock of a page of another GPU.
 */
#include "vsvm.h"

struct vsvm_gate vsvm_engines = {
	.lock = __SPIN_LOCK_UNLOCKED(vsvm_engines.lock),
	.wait = __WAIT_QUEUE_HEAD_INITIALIZER(vsvm_engines.wait),
};

void vsvm_gate_init(struct vsvm_gate *gate)
{
	spin_lock_init(&gate->lock);
	init_waitqueue_head(&gate->wait);
}

/**
 * vsvm_gate_enter() - begin an access, after resets that are going on
 * @gate: the gate
 *
 * Context: May sleep. Until vsvm_gate_leave(), no reset begins.
 */
void vsvm_gate_enter(struct vsvm_gate *gate)
{
	guard(spinlock_irq)(&gate->lock);
	wait_event_lock_irq(gate->wait, !gate->closed, gate->lock);
	gate->users++;
}

/**
 * vsvm_gate_try_enter() - begin an access, if no reset is going on
 * @gate: the gate
 *
 * Context: Process. See vsvm_gate_enter().
 * Return: true if the access may begin.
 */
bool vsvm_gate_try_enter(struct vsvm_gate *gate)
{
	guard(spinlock_irq)(&gate->lock);
	if (gate->closed)
		return false;
	gate->users++;
	return true;
}

/**
 * vsvm_gate_leave() - end an access
 * @gate: the gate
 *
 * Context: Process.
 */
void vsvm_gate_leave(struct vsvm_gate *gate)
{
	guard(spinlock_irq)(&gate->lock);
	if (!--gate->users)
		wake_up_all(&gate->wait);
}

/**
 * vsvm_gate_wait() - wait for the end of resets
 * @gate: the gate
 *
 * Context: May sleep, without a lock.
 */
void vsvm_gate_wait(struct vsvm_gate *gate)
{
	wait_event_killable(gate->wait, !READ_ONCE(gate->closed));
}

/**
 * vsvm_gate_close() - begin a reset
 * @gate: the gate
 *
 * Context: May sleep. When this returns, no access is going on.
 */
void vsvm_gate_close(struct vsvm_gate *gate)
{
	guard(spinlock_irq)(&gate->lock);
	gate->closed++;
	wait_event_lock_irq(gate->wait, !gate->users, gate->lock);
}

/**
 * vsvm_gate_open() - end a reset
 * @gate: the gate
 *
 * Context: Process.
 */
void vsvm_gate_open(struct vsvm_gate *gate)
{
	guard(spinlock_irq)(&gate->lock);
	if (!--gate->closed)
		wake_up_all(&gate->wait);
}
