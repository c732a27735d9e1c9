#include "tests/fault/chaos.h"

#include <stdlib.h>

static void chaos_kill_and_restart(struct deployment *deployment, const char *bucket)
{
    struct nats_server *victim =
        deployment->server_count > 1 ? deployment_leader(deployment, bucket) : &deployment->servers[0];

    nats_server_kill(victim);
    nats_server_run(victim);
    deployment_reconnect_nats(deployment);
}

static void chaos_hold_past_attempts(struct deployment *deployment)
{
    uint64_t retries = deployment_retries(deployment);

    proxy_hold(deployment->proxy);
    wait_until(deployment_retries(deployment) >= retries + 3, "retries");
    proxy_release(deployment->proxy);
}

/* After its restart the server does not know the ids of overwritten messages. */
static void chaos_lose_acks_and_restart(struct deployment *deployment, const char *bucket)
{
    proxy_arm(deployment->proxy,
              (struct proxy_fault){.kind = PROXY_DROP_ACK, .subject = format_text("$KV.%s.>", bucket), .count = 5});
    wait_until(proxy_strikes(deployment->proxy) == 5, "lost acks");
    chaos_kill_and_restart(deployment, bucket);
}

static void chaos_spoil(struct deployment *deployment, const char *bucket, unsigned number)
{
    struct proxy_fault fault = {.subject = format_text("$KV.%s.>", bucket), .count = 3};

    switch (number % CHAOS_KINDS) {
    case 0:
        fault.kind = PROXY_DROP_ACK;
        break;
    case 1:
        proxy_cut(deployment->proxy);
        return;
    case 2:
        fault.kind = PROXY_CUT_BEFORE_ACK;
        break;
    case 3:
        chaos_kill_and_restart(deployment, bucket);
        return;
    case 4:
        fault.kind = PROXY_DROP_PUBLISH;
        break;
    case 5:
        chaos_hold_past_attempts(deployment);
        return;
    case 6:
        chaos_lose_acks_and_restart(deployment, bucket);
        return;
    case 7:
        fault.kind = PROXY_CUT_AFTER_PUBLISH;
        break;
    default:
        fault.kind = PROXY_CUT_BEFORE_PUBLISH;
        break;
    }
    proxy_arm(deployment->proxy, fault);
    wait_until(proxy_strikes(deployment->proxy) == fault.count, "the fault to strike");
}

static unsigned chaos_factor(void)
{
    const char *text = getenv("CHAOS_ROUNDS");
    unsigned long factor = text != NULL ? strtoul(text, NULL, 10) : 1;

    return factor > 0 ? (unsigned)factor : 1;
}

void chaos_run(struct deployment *deployment, const char *bucket, const unsigned *progress, unsigned rounds)
{
    rounds *= chaos_factor();
    for (unsigned i = 0; i < rounds * CHAOS_KINDS; i++) {
        unsigned before = __atomic_load_n(progress, __ATOMIC_RELAXED);
        chaos_spoil(deployment, bucket, i);
        wait_until(__atomic_load_n(progress, __ATOMIC_RELAXED) >= before + 25, "calls that succeed again");
    }
    proxy_arm(deployment->proxy, (struct proxy_fault){.kind = PROXY_NO_FAULT});
}
