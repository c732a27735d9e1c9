#include "proto/utf8.h"

#include <stdint.h>
#include <string.h>

/* RFC 3629, section 4: shortest forms only, no surrogates, nothing above U+10FFFF. */
size_t utf8_character(const char *bytes, size_t length)
{
    const unsigned char *at = (const unsigned char *)bytes;
    unsigned char first = at[0], low = 0x80, high = 0xbf;
    size_t count;

    if (first < 0x80)
        return 1;
    if (first < 0xc2 || first > 0xf4)
        return 0;
    count = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (first == 0xe0)
        low = 0xa0;
    else if (first == 0xed)
        high = 0x9f;
    else if (first == 0xf0)
        low = 0x90;
    else if (first == 0xf4)
        high = 0x8f;
    if (length < count || at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < count; i++) {
        if (at[i] < 0x80 || at[i] > 0xbf)
            return 0;
    }
    return count;
}

bool utf8_is_valid(const char *bytes, size_t length)
{
    size_t at = 0;

    while (at < length) {
        uint64_t word;
        /* Eight ASCII characters at a time. */
        if (length - at >= sizeof(word)) {
            memcpy(&word, bytes + at, sizeof(word));
            if ((word & 0x8080808080808080u) == 0) {
                at += sizeof(word);
                continue;
            }
        }
        size_t count = utf8_character(bytes + at, length - at);
        if (count == 0)
            return false;
        at += count;
    }
    return true;
}
