/* The part of net_runner that an integrator may replace. */
#ifndef NET_RUNNER_H
#define NET_RUNNER_H

/* Called before every step of a training; 0 ends it, and what was learned is saved. hooks.c says always 1: put another file in its
 * place to train only at night, or only on power. */
int should_continue(void);

#endif
