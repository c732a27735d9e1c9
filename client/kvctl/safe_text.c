#include "client/kvctl/safe_text.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#define COLUMNS_UNKNOWN 80u /* of a terminal that does not report its size */

/* The longest text of one character or byte, with its NUL. */
#define CHARACTER_BYTES 5u

size_t safe_text_terminal_columns(void)
{
    struct winsize size;

    if (isatty(STDOUT_FILENO) != 1)
        return SIZE_MAX;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : COLUMNS_UNKNOWN;
}

/* Read the UTF-8 character at bytes. Return its size, or 0 if there is none. */
static size_t safe_text_read(const unsigned char *bytes, size_t left, uint32_t *character)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char first = bytes[0];
    size_t size = first < 0x80 ? 1 : first >= 0xf0 && first < 0xf8 ? 4 : first >= 0xe0 ? 3 : 2;

    if (size > left || (first >= 0x80 && first < 0xc0) || first >= 0xf8)
        return 0;
    *character = size == 1 ? first : first & (0x7fu >> size);
    for (size_t i = 1; i < size; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
        *character = *character << 6 | (bytes[i] & 0x3f);
    }
    bool is_surrogate = *character >= 0xd800 && *character <= 0xdfff;
    return *character >= smallest[size] && *character <= 0x10ffff && !is_surrogate ? size : 0;
}

/* Return whether a character controls the terminal: control characters, and marks that change the text's direction. */
static bool safe_text_is_active(uint32_t character)
{
    return character < 0x20 || (character >= 0x7f && character < 0xa0) || character == 0x61c || character == 0x200e ||
           character == 0x200f || (character >= 0x2028 && character <= 0x202e) ||
           (character >= 0x2066 && character <= 0x2069);
}

/* Write the text of the first character, or byte, with a NUL. Return its columns; *taken is the bytes that it shows. */
static size_t safe_text_write(const char *bytes, size_t left, bool is_text, char written[CHARACTER_BYTES],
                              size_t *taken)
{
    static const char letters[] = "\n\r\t\\", names[] = "nrt\\";
    uint32_t character;
    size_t size = safe_text_read((const unsigned char *)bytes, left, &character);
    const char *letter = *bytes != '\0' && !(is_text && *bytes == '\\') ? strchr(letters, *bytes) : NULL;

    *taken = size > 0 ? size : 1;
    if (letter != NULL)
        return (size_t)snprintf(written, CHARACTER_BYTES, "\\%c", names[letter - letters]);
    if (size > 0 && !safe_text_is_active(character)) {
        memcpy(written, bytes, size);
        written[size] = '\0';
        int columns = character < 0x80 ? 1 : wcwidth((wchar_t)character);
        return columns >= 0 ? (size_t)columns : 1;
    }
    *taken = 1;
    return (size_t)snprintf(written, CHARACTER_BYTES, "\\x%02x", (unsigned)(unsigned char)*bytes);
}

static char *safe_text_make(const char *bytes, size_t size, bool is_text, size_t columns)
{
    size_t taken, width = 0, length = 0, end = 0, capacity = 64;
    char *text = malloc(capacity), written[CHARACTER_BYTES];

    for (size_t i = 0; i < size && width <= columns && text != NULL; i += taken) {
        if (columns >= 3 && width <= columns - 3) /* the last place at which the dots fit */
            end = length;
        width += safe_text_write(bytes + i, size - i, is_text, written, &taken);
        if (length + CHARACTER_BYTES + 4 > capacity) {
            char *larger = realloc(text, capacity * 2);
            if (larger == NULL) {
                free(text);
                return NULL;
            }
            text = larger;
            capacity *= 2;
        }
        length = (size_t)(stpcpy(text + length, written) - text);
    }
    if (text != NULL)
        strcpy(text + (width > columns ? end : length), width > columns ? "..." : "");
    return text;
}

char *safe_text_of_bytes(const char *bytes, size_t size, size_t columns)
{
    return safe_text_make(bytes, size, false, columns);
}

char *safe_text_of_text(const char *text, size_t columns)
{
    return safe_text_make(text, strlen(text), true, columns);
}

size_t safe_text_columns(const char *text, size_t size)
{
    char written[CHARACTER_BYTES];
    size_t columns = 0, taken;

    for (; size > 0; text += taken, size -= taken)
        columns += safe_text_write(text, size, true, written, &taken);
    return columns;
}

size_t safe_text_fit(const char *text, size_t columns)
{
    char written[CHARACTER_BYTES];
    size_t length = 0, size = strlen(text), used = 0, taken;

    for (; length < size; length += taken) {
        used += safe_text_write(text + length, size - length, true, written, &taken);
        if (used > columns)
            break;
    }
    return length;
}

void safe_text_write_json(FILE *file, const char *text)
{
    uint32_t character;

    putc('"', file);
    for (size_t left = strlen(text), size; left > 0; text += size, left -= size) {
        size = safe_text_read((const unsigned char *)text, left, &character);
        if (size == 0) {
            fputs("\\ufffd", file);
            size = 1;
        } else if (safe_text_is_active(character) || character == '"' || character == '\\') {
            fprintf(file, "\\u%04x", (unsigned)character);
        } else {
            fwrite(text, 1, size, file);
        }
    }
    putc('"', file);
}
