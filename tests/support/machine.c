#include "tests/support/machine.h"

#include "tests/support/text.h"

#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

/*
 * Page faults of a turn: those of the largest message, in the buffer that receives it and in the one that sends it.
 * With AddressSanitizer freed memory is not used again soon, and what it notes about memory has pages, too.
 */
#ifdef __SANITIZE_ADDRESS__
#define FAULTS_OF_TURN 32768u
#else
#define FAULTS_OF_TURN 8192u
#endif

/* What a page fault costs at most on a machine of its own, or on a virtual one with the processor's page tables. */
#define QUICK_FAULT_NS 1500.0

/* The sample, which is taken several times: another program may have the processor. */
#define SAMPLE_PAGES  512u
#define SAMPLE_ROUNDS 5u
#define PAGE_BYTES    4096u

static uint64_t thread_cpu_ns(void)
{
    struct timespec used;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

/* Return the processor time of SAMPLE_PAGES page faults. */
static uint64_t take_sample_ns(void)
{
    size_t bytes = (size_t)SAMPLE_PAGES * PAGE_BYTES;
    volatile char *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    ck_assert_ptr_ne((void *)pages, MAP_FAILED);
    uint64_t begin_ns = thread_cpu_ns();
    for (size_t i = 0; i < bytes; i += PAGE_BYTES)
        pages[i] = 1;
    uint64_t took_ns = thread_cpu_ns() - begin_ns;
    munmap((void *)pages, bytes);
    return took_ns;
}

/* Return the processor time of a page fault: the best of some samples. */
static double fault_ns(void)
{
    static uint64_t sample_ns;

    for (unsigned i = 0; sample_ns == 0 || i < SAMPLE_ROUNDS; i++) {
        uint64_t took_ns = take_sample_ns();
        if (sample_ns == 0 || took_ns < sample_ns)
            sample_ns = took_ns;
    }
    return (double)sample_ns / SAMPLE_PAGES;
}

const char *machine_log_section(unsigned compute_ms)
{
    return format_text("log:\n  slow_turn: %.3f\n", compute_ms / 1000.0 + fault_ns() * FAULTS_OF_TURN / 1e9);
}

double machine_slowness(void)
{
    double times = fault_ns() / QUICK_FAULT_NS;

    return times < 1 ? 1 : times > MACHINE_SLOWNESS_MAX ? MACHINE_SLOWNESS_MAX : times;
}

struct machine_share machine_share_of(pid_t pid)
{
    unsigned long long ran_ns = 0, waited_ns = 0;
    FILE *file = fopen(format_text("/proc/%d/schedstat", (int)pid), "r");

    /* A kernel without this file counts nothing: then nobody waits. */
    if (file != NULL && fscanf(file, "%llu %llu", &ran_ns, &waited_ns) != 2) // NOLINT(cert-err34-c)
        ran_ns = waited_ns = 0;
    if (file != NULL)
        fclose(file);
    return (struct machine_share){ran_ns, waited_ns};
}

double machine_contention(pid_t pid, const struct machine_share *since)
{
    struct machine_share now = machine_share_of(pid);
    double ran_ns = (double)(now.ran_ns - since->ran_ns), waited_ns = (double)(now.waited_ns - since->waited_ns);

    return ran_ns > 0 ? (ran_ns + waited_ns) / ran_ns : 1;
}
