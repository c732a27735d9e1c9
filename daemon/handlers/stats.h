/*
 * stats: packs the figures of the daemon for its answers.
 *
 * Used by the handlers of health.check and daemon.stats.
 */
#ifndef DAEMON_HANDLERS_STATS_H
#define DAEMON_HANDLERS_STATS_H

#include "daemon/monitor/figures.h"

#include <msgpack.h>

/* Pack a section as a member of a map: its name, and a map of its figures. Nothing if none of them is known. */
void stats_pack_section(msgpack_packer *packer, const struct figures *figures, const char *section);

#endif
