/* The checks of options that follow from the table of verbs, before the verb runs. */
#include "client/kvctl/kvctl.h"

#include <string.h>

static const struct verb_option *option_rules_find(const struct verb *verb, const char *name)
{
    const struct verb_option *option = verb->options;

    while (strcmp(option->name, name) != 0)
        option++;
    return option;
}

static bool option_rules_apply(const struct option_rule *rule, const struct invocation *invocation)
{
    return rule->verb == NULL || strcmp(rule->verb, invocation->verb->name) == 0;
}

static bool option_rules_may_repeat(const struct invocation *invocation, const char *name)
{
    for (const struct option_rule *rule = option_rules; rule->option != NULL; rule++) {
        if (rule->kind == OPTION_MAY_REPEAT && strcmp(rule->option, name) == 0 && option_rules_apply(rule, invocation))
            return true;
    }
    return false;
}

/* An option may be given twice with the same value, as by a script that adds options to those of its caller. */
static bool option_rules_check_repeated(const struct invocation *invocation, const struct argument_option *option)
{
    for (const struct argument_option *other = invocation->options; other < option; other++) {
        if (strcmp(other->name, option->name) != 0 || option->value == NULL ||
            strcmp(other->value, option->value) == 0 || option_rules_may_repeat(invocation, option->name))
            continue;
        report("--%s is given twice, as '%.100s' and '%.100s': give it once", option->name, other->value,
               option->value);
        return false;
    }
    return true;
}

/* A number N counts or names something, so it is at least 1. To the library, 0 means "not given". */
static bool option_rules_check_number(const struct invocation *invocation, const struct argument_option *option)
{
    const char *argument = option_rules_find(invocation->verb, option->name)->argument;
    uint64_t number = 1;

    if (argument == NULL || strcmp(argument, "N") != 0)
        return true;
    if (!arguments_number(invocation, option->name, &number))
        return false;
    if (number == 0)
        report("--%s must be at least 1, not 0", option->name);
    return number > 0;
}

static bool option_rules_check_pair(const struct option_rule *rule, const struct invocation *invocation)
{
    bool has_other = rule->other != NULL && arguments_flag(invocation, rule->other);

    if (!option_rules_apply(rule, invocation) || !arguments_flag(invocation, rule->option))
        return true;
    if (rule->kind == OPTION_EXCLUDES && has_other)
        report("--%s and --%s exclude each other: give one of them", rule->option, rule->other);
    else if (rule->kind == OPTION_NEEDS && !has_other)
        report("--%s needs --%s", rule->option, rule->other);
    else
        return true;
    return false;
}

bool option_rules_check(const struct invocation *invocation)
{
    for (size_t i = 0; i < invocation->option_count; i++) {
        if (!option_rules_check_repeated(invocation, &invocation->options[i]) ||
            !option_rules_check_number(invocation, &invocation->options[i]))
            return false;
    }
    for (const struct option_rule *rule = option_rules; rule->option != NULL; rule++) {
        if (!option_rules_check_pair(rule, invocation))
            return false;
    }
    return true;
}
