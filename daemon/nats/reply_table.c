#include "daemon/nats/reply_table.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_SLOTS  64u
#define TOKEN_LENGTH (REPLY_TOKEN_BYTES - 1u)
#define ACK_PREFIX   "$JS.ACK."

static int grow_table(struct reply_table *table)
{
    uint32_t count = table->slot_count > 0 ? table->slot_count * 2 : FIRST_SLOTS;
    struct reply_slot *slots = realloc(table->slots, count * sizeof(*slots));

    if (slots == NULL)
        return -1;
    for (uint32_t i = table->slot_count; i < count; i++)
        slots[i] = (struct reply_slot){.request = NULL, .generation = 1, .next_free = i + 1};
    slots[count - 1].next_free = table->first_free;
    table->first_free = table->slot_count;
    table->slots = slots;
    table->slot_count = count;
    return 0;
}

int reply_table_init(struct reply_table *table)
{
    *table = (struct reply_table){.first_free = REPLY_NO_SLOT};
    return grow_table(table);
}

void reply_table_free(struct reply_table *table)
{
    free(table->slots);
    *table = (struct reply_table){.first_free = REPLY_NO_SLOT};
}

uint32_t reply_table_acquire(struct reply_table *table, void *request)
{
    if (table->first_free == REPLY_NO_SLOT && grow_table(table) != 0)
        return REPLY_NO_SLOT;
    uint32_t slot = table->first_free;
    table->first_free = table->slots[slot].next_free;
    table->slots[slot].request = request;
    return slot;
}

void reply_table_replace(struct reply_table *table, uint32_t slot, void *request)
{
    table->slots[slot].request = request;
}

void reply_table_release(struct reply_table *table, uint32_t slot, bool keeps_generation)
{
    table->slots[slot].request = NULL;
    if (!keeps_generation)
        table->slots[slot].generation++;
    table->slots[slot].next_free = table->first_free;
    table->first_free = slot;
}

/* --- Tokens ---------------------------------------------------------------------------------------- */

static bool parse_hex(const char *digits, unsigned count, uint32_t *value)
{
    *value = 0;
    for (unsigned i = 0; i < count; i++) {
        char digit = digits[i];
        if (digit >= '0' && digit <= '9')
            *value = *value << 4 | (uint32_t)(digit - '0');
        else if (digit >= 'a' && digit <= 'f')
            *value = *value << 4 | (uint32_t)(digit - 'a' + 10);
        else
            return false;
    }
    return true;
}

static void write_hex(char *digits, unsigned count, uint32_t value)
{
    while (count-- > 0) {
        digits[count] = "0123456789abcdef"[value & 15u];
        value >>= 4;
    }
}

void reply_table_write_token(const struct reply_table *table, uint32_t slot, unsigned attempt,
                             char token[REPLY_TOKEN_BYTES])
{
    write_hex(token, 8, slot);
    write_hex(token + 8, 8, table->slots[slot].generation);
    write_hex(token + 16, 4, attempt);
    token[TOKEN_LENGTH] = '\0';
}

/*
 * Return the token at the end of a consumer's name in the reply subject of a message that the consumer delivered; NULL:
 * there is none. The forms (ADR-15): $JS.ACK.<stream>.<consumer>.<5 numbers>, or
 * $JS.ACK.<domain>.<account>.<stream>.<consumer>.<5 numbers>[.<random>].
 */
static const char *find_delivery_token(const char *reply)
{
    const char *dots[12]; /* dots[i] is the end of token number i */
    unsigned count = 0;

    for (const char *at = reply; (at = strchr(at, '.')) != NULL && count < 12; at++)
        dots[count++] = at;
    unsigned consumer = count < 10 ? 3 : 5;
    if (count < 8 || dots[consumer] - dots[consumer - 1] - 1 < (ptrdiff_t)TOKEN_LENGTH)
        return NULL;
    return dots[consumer] - TOKEN_LENGTH;
}

static const char *find_token(const char *inbox, const struct message *message)
{
    size_t inbox_length = strlen(inbox);

    if (strncmp(message->subject, inbox, inbox_length) == 0)
        return strlen(message->subject + inbox_length) == TOKEN_LENGTH ? message->subject + inbox_length : NULL;
    if (message->reply != NULL && strncmp(message->reply, ACK_PREFIX, strlen(ACK_PREFIX)) == 0)
        return find_delivery_token(message->reply);
    return NULL;
}

void *reply_table_find(const struct reply_table *table, const char *inbox, const struct message *message,
                       uint32_t *attempt)
{
    const char *token = find_token(inbox, message);
    uint32_t slot, generation;

    if (token == NULL || !parse_hex(token, 8, &slot) || !parse_hex(token + 8, 8, &generation) ||
        !parse_hex(token + 16, 4, attempt))
        return NULL;
    if (slot >= table->slot_count || table->slots[slot].generation != generation)
        return NULL;
    return table->slots[slot].request;
}
