/* Shares toy jobs among two pools' threads, again and again: is every number of a job done once, in pieces that begin at a step? Opens and
 * closes pools. Prints nothing; status 1 where something was wrong. */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "nst_crew.h"

enum { MOST = 512, SCRATCH = 100, ROUNDS = 400, THREADS = 6 };

typedef struct {
    uint8_t *done; /* how often, of each number */
    int32_t step, count;
    int32_t *wrong;
} toy;

static void work(const void *given, int32_t first, int32_t end, void *scratch)
{
    const toy *job = given;
    if (first % job->step || (end % job->step && end != job->count) || end < first)
        __atomic_store_n(job->wrong, 1, __ATOMIC_RELAXED);
    memset(scratch, 1, SCRATCH); /* another thread's would be seen as a race */
    for (int32_t i = first; i < end; i++)
        job->done[i] = (uint8_t)(job->done[i] + ((uint8_t *)scratch)[i % SCRATCH]);
}

static int rounds(int32_t threads)
{
    void *memory = aligned_alloc(64, nst_pool_bytes(threads, SCRATCH)), *others = aligned_alloc(64, nst_pool_bytes(3, SCRATCH));
    const nst_crew crews[2] = {{0, nst_pool_open(memory, threads, SCRATCH)}, {0, nst_pool_open(others, 3, SCRATCH)}};
    uint8_t scratch[SCRATCH], done[MOST];
    int32_t wrong = !crews[0].pool || !crews[1].pool;
    for (int32_t r = 0; r < ROUNDS && !wrong; r++) {
        const toy job = {done, 1 + r % 9, r % MOST, &wrong};
        memset(done, 0, sizeof done);
        nst_share(crews + r % 2, work, &job, job.count, job.step, scratch);
        for (int32_t i = 0; i < MOST; i++)
            wrong |= done[i] != (i < job.count);
        if (r % 100 == 99)
            nanosleep(&(struct timespec){0, 2000000}, 0); /* so that they go to sleep */
    }
    nst_pool_close(crews[0].pool);
    nst_pool_close(crews[1].pool);
    free(memory);
    free(others);
    return wrong;
}

int main(void)
{
    int wrong = 0;
    for (int32_t threads = 1; threads <= THREADS; threads++)
        wrong |= rounds(threads);
    for (int32_t i = 0; i < 50; i++) {
        void *memory = aligned_alloc(64, nst_pool_bytes(4, 0));
        nst_pool_close(nst_pool_open(memory, 4, 0));
        free(memory);
    }
    return wrong;
}
