"""What a method takes, learned from the daemon's error messages.

A method that a later daemon adds is fuzzed without a grammar in grammar.py. Two messages tell what
it takes: "NAME takes 2 arguments ..." (or "2 or more"), and "... it has: ttl timeout" after a call
with an unknown option.
"""
import re

import pools

UNKNOWN_OPTION = "no-such-option"
# If a method takes "N or more" arguments, requests have up to so many more.
MORE_ARGUMENTS = 2

OPTION_VALUES = {
    "timeout": lambda context: context.rng.choice(pools.TIMEOUTS),
    "ttl": lambda context: context.rng.choice((1, 2, 60)),
    "consistency": lambda context: context.rng.choice(("direct", "leader", "cached")),
    "filter": lambda context: context.rng.choice(pools.FILTERS),
    "headers": lambda context: pools.headers(context.rng),
    "revision": lambda context: context.rng.choice((1, 2, 5)),
    "limit": lambda context: context.rng.choice((1, 10)),
    "after": lambda context: context.key(),
}

ARGUMENTS = (
    lambda context: context.key(),
    lambda context: context.value(),
    lambda context: pools.many_keys(context.rng),
    lambda context: dict.fromkeys(pools.many_keys(context.rng), "v"),
    lambda context: [[context.key(), context.rng.choice((0, 1, 5))] for _ in range(context.rng.randint(0, 5))],
    lambda context: [["put", context.key(), "v"] for _ in range(context.rng.randint(0, 5))],
    lambda context: context.rng.choice(pools.INTEGERS),
    lambda context: context.rng.choice(pools.FILTERS),
    lambda context: context.maybe(0.5),
    lambda context: pools.junk(context.rng),
)


class CannotLearn(Exception):
    """The daemon's messages do not tell what a method takes."""


class Method:
    """A method's name, its number of arguments and the names of its options."""

    def __init__(self, name, least, most, options):
        self.name = name
        self.least = least
        self.most = most
        self.options = options

    def request(self, context):
        """Return arguments and options of the right number and names. Of their types, some fit."""
        rng = context.rng
        arguments = [argument(context, position) for position in range(rng.randint(self.least, self.most))]
        options = {}
        for name in rng.sample(self.options, min(len(self.options), rng.choice((0, 0, 1, 1, 2, 3)))):
            known = OPTION_VALUES.get(name)
            options[name] = known(context) if known and context.maybe(0.8) else rng.choice(ARGUMENTS)(context)
        return arguments, options


def argument(context, position):
    """Return a value of some type. Buckets are likely in the first position, keys in the second."""
    if position == 0 and context.maybe(0.85):
        return context.bucket()
    if position == 1 and context.maybe(0.5):
        return context.key()
    return context.rng.choice(ARGUMENTS)(context)


def learn(call, name):
    """Ask the daemon what a method takes. call(name, params) returns the error and the result."""
    error, _ = call(name, [])
    least, has_more = 0, True
    if error and (told := re.search(r"\btakes (\d+)( or more)?\b", error["message"])):
        least, has_more = int(told[1]), bool(told[2])
    error, _ = call(name, [None] * least + [{UNKNOWN_OPTION: 1}])
    told = re.search(r"\bit has: *(.*)$", error["message"]) if error else None
    if not told:
        raise CannotLearn(f"{name} with an unknown option fails with {error}, which does not list its options")
    return Method(name, least, least + (MORE_ARGUMENTS if has_more else 0), re.findall(r"\w+", told[1]))
