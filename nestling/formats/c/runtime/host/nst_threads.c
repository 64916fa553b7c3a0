/* A pool of threads, and how a layer is divided among them.
 *
 * Every worker has a state that says who may touch its order: WAITING or ASLEEP, then whoever gives it work; GIVEN, then whoever is the
 * first to take it; TAKEN, then the worker. Whoever gave the work takes back what no worker has begun when its own share is done. So
 * nobody waits for a thread that the system does not let run: with more threads than processors, or while it is still waking up. */
#include <pthread.h>
#include <sched.h>

#include "nst_crew.h"

/* Turns that are waited before a processor is offered to others, and how often that is done before going to sleep: some 100 us, longer
 * than a layer that one thread computes alone. */
enum { TURNS = 64, OFFERS = 40 };

enum { WAITING, ASLEEP, GIVEN, TAKEN, END };

typedef struct {
    int32_t state;
    nst_work *work;
    const void *job;
    int32_t first, end;
    pthread_t thread;
    pthread_mutex_t asleep;
    pthread_cond_t wake;
} nst_worker; /* its scratch lies behind it */

struct nst_pool {
    int32_t threads;
    uint64_t step; /* bytes from a worker to the next */
};

static uint64_t lines(uint64_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static nst_worker *worker_of(nst_pool *pool, int32_t i)
{
    return (nst_worker *)((uint8_t *)pool + lines(sizeof *pool) + (uint64_t)i * pool->step);
}

static int32_t state_of(const nst_worker *worker)
{
    return __atomic_load_n(&worker->state, __ATOMIC_ACQUIRE);
}

static int changed(nst_worker *worker, int32_t from, int32_t to)
{
    return __atomic_compare_exchange_n(&worker->state, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

static void turn(int32_t i)
{
    if (i % TURNS == TURNS - 1) {
        sched_yield();
        return;
    }
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

static void sleep_till_called(nst_worker *worker)
{
    pthread_mutex_lock(&worker->asleep);
    if (changed(worker, WAITING, ASLEEP))
        while (state_of(worker) == ASLEEP)
            pthread_cond_wait(&worker->wake, &worker->asleep);
    pthread_mutex_unlock(&worker->asleep);
}

static void call(nst_worker *worker, int32_t state)
{
    if (__atomic_exchange_n(&worker->state, state, __ATOMIC_ACQ_REL) != ASLEEP)
        return;
    pthread_mutex_lock(&worker->asleep);
    pthread_cond_signal(&worker->wake);
    pthread_mutex_unlock(&worker->asleep);
}

static void take(nst_worker *worker, void *scratch)
{
    worker->work(worker->job, worker->first, worker->end, scratch);
    __atomic_store_n(&worker->state, WAITING, __ATOMIC_RELEASE);
}

static void *wait_and_work(void *given)
{
    nst_worker *worker = given;
    for (int32_t i = 0; state_of(worker) != END; i++) {
        if (changed(worker, GIVEN, TAKEN)) {
            take(worker, (uint8_t *)worker + lines(sizeof *worker));
            i = 0;
        } else if (i < TURNS * OFFERS) {
            turn(i);
        } else {
            sleep_till_called(worker);
            i = 0;
        }
    }
    return 0;
}

uint64_t nst_pool_bytes(int32_t threads, uint32_t scratch)
{
    return lines(sizeof(nst_pool)) + (uint64_t)(threads - 1) * (lines(sizeof(nst_worker)) + lines(scratch));
}

nst_pool *nst_pool_open(void *memory, int32_t threads, uint32_t scratch)
{
    nst_pool *pool = memory;
    pool->threads = 1;
    pool->step = lines(sizeof(nst_worker)) + lines(scratch);
    for (; pool->threads < threads; pool->threads++) {
        nst_worker *worker = worker_of(pool, pool->threads - 1);
        worker->state = WAITING;
        pthread_mutex_init(&worker->asleep, 0);
        pthread_cond_init(&worker->wake, 0);
        if (pthread_create(&worker->thread, 0, wait_and_work, worker)) {
            nst_pool_close(pool);
            return 0;
        }
    }
    return pool;
}

void nst_pool_close(nst_pool *pool)
{
    for (int32_t i = 0; i < pool->threads - 1; i++) {
        nst_worker *worker = worker_of(pool, i);
        call(worker, END);
        pthread_join(worker->thread, 0);
        pthread_cond_destroy(&worker->wake);
        pthread_mutex_destroy(&worker->asleep);
    }
}

typedef struct {
    int64_t pieces;
    int32_t n, count, step;
} nst_shares;

/* Where the i-th of n shares begins. */
static int32_t begin(const nst_shares *shares, int32_t i)
{
    const int64_t at = shares->pieces * i / shares->n * shares->step;
    return at < shares->count ? (int32_t)at : shares->count;
}

void nst_share(const nst_crew *crew, nst_work *work, const void *job, int32_t count, int32_t step, void *scratch)
{
    const int32_t threads = crew->pool ? crew->pool->threads : 1;
    const int64_t pieces = ((int64_t)count + step - 1) / step;
    const nst_shares shares = {pieces, pieces < threads ? (int32_t)pieces : threads, count, step};
    if (shares.n < 2) {
        work(job, 0, count, scratch);
        return;
    }
    for (int32_t i = 1; i < shares.n; i++) {
        nst_worker *worker = worker_of(crew->pool, i - 1);
        worker->work = work;
        worker->job = job;
        worker->first = begin(&shares, i);
        worker->end = begin(&shares, i + 1);
        call(worker, GIVEN);
    }
    work(job, 0, begin(&shares, 1), scratch);
    for (int32_t i = 1; i < shares.n; i++) {
        nst_worker *worker = worker_of(crew->pool, i - 1);
        if (changed(worker, GIVEN, TAKEN))
            take(worker, scratch);
        for (int32_t k = 0; state_of(worker) == TAKEN; k++)
            turn(k);
    }
}
