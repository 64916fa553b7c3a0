/* Who computes a network on a computer: with which instructions, in how many threads.
 *
 * A kit is a set of instructions: what the kernels of nst_host.h leave to a processor's own. All kits give the same bytes. Which one
 * there is is asked as the program runs, so that one program serves every processor of its kind.
 */
#ifndef NST_CREW_H
#define NST_CREW_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct nst_kit nst_kit;   /* see nst_kit.h */
typedef struct nst_pool nst_pool; /* see nst_threads.c */

/* Passed to every kernel; kept by whoever calls. */
typedef struct {
    const nst_kit *kit;
    nst_pool *pool; /* 0: whoever calls computes alone */
} nst_crew;

/* The best kit that this processor has, unless the environment's NESTLING_ISA names another one that it has; one thread. */
nst_crew nst_alone(void);

/* A kit by its name: portable, avx2, avxvnni, avx512vnni, neon, dotprod. 0 where there is none of that name, or not on this processor. */
const nst_kit *nst_kit_named(const char *name);

/* What it is called. */
const char *nst_kit_name(const nst_kit *kit);

/* The i-th kit that this processor has, the best first; 0 after the last, which is portable. */
const nst_kit *nst_kit_number(int32_t i);

/* Threads that wait for work: threads - 1 of them, whoever calls being one more. They are made once, spin for a moment between two
 * layers, and sleep between two images. memory: nst_pool_bytes, aligned to 64, yours until nst_pool_close. scratch: PREFIX_SCRATCH_BYTES
 * of the network, the largest where there are several. Returns 0 where the threads could not be made. One network at a time may use a
 * pool. */
uint64_t nst_pool_bytes(int32_t threads, uint32_t scratch);
nst_pool *nst_pool_open(void *memory, int32_t threads, uint32_t scratch);
void nst_pool_close(nst_pool *pool);

/* Numbers first .. end - 1 of a job that was divided; scratch: the thread's own. */
typedef void nst_work(const void *job, int32_t first, int32_t end, void *scratch);

/* Divides the numbers 0 .. count - 1 of a job among the crew's threads, in pieces that begin at multiples of `step`, and returns when
 * all are done. scratch: of whoever calls. */
void nst_share(const nst_crew *crew, nst_work *work, const void *job, int32_t count, int32_t step, void *scratch);

#ifdef __cplusplus
}
#endif
#endif
