#include "client/lib/call_table.h"

#include <stdlib.h>

#define FIRST_SLOTS 16u

void call_table_init(struct call_table *table)
{
    *table = (struct call_table){.next_deadline_ms = INT64_MAX};
}

bool call_table_reserve(struct call_table *table, uint32_t max_slots)
{
    if (table->first_free < table->slot_count)
        return true;

    uint32_t slots = table->slot_count > 0 ? table->slot_count * 2 : FIRST_SLOTS;
    if (slots > max_slots)
        slots = max_slots;
    struct call *calls = realloc(table->calls, slots * sizeof(*calls));
    if (calls == NULL)
        return false;
    for (uint32_t i = table->slot_count; i < slots; i++)
        calls[i] = (struct call){.next_free = i + 1};
    table->calls = calls;
    table->first_free = table->slot_count;
    table->slot_count = slots;
    return true;
}

void call_table_take(struct call_table *table, const struct call *call)
{
    struct call *slot = &table->calls[table->first_free];

    table->first_free = slot->next_free;
    *slot = *call;
    if (table->in_flight == 0 || call->deadline_ms < table->next_deadline_ms)
        table->next_deadline_ms = call->deadline_ms;
    table->used_count++;
    table->in_flight++;
}

void call_table_release(struct call_table *table, uint32_t msgid)
{
    table->calls[msgid] = (struct call){.next_free = table->first_free};
    table->first_free = msgid;
    table->used_count--;
}
