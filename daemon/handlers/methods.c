#include "daemon/handlers/methods.h"

#define METHODS_ROW(family, verb, fewest, most, flags, options)                                                        \
    {#family "." #verb, handle_##family##_##verb, fewest, most, flags, options},

const struct method methods[METHOD_COUNT] = {METHODS(METHODS_ROW)};
