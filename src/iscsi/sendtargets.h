/*
 * sendtargets.h - the text of an answer to SendTargets (RFC 7143, Appendix C).
 */
#pragma once

#include <glib.h>

#include "lunfs/iscsi.h"

/*
 * The targets it names, of struct discovered_target, in its order, each with the portals that can
 * be understood, in theirs. What is neither TargetName nor TargetAddress is passed over. NULL: an
 * address stands before the first target.
 */
GPtrArray *sendtargets_read(const GString *text);
/* Adds a portal at the end; its host is copied. */
void discovered_target_add(
    struct discovered_target *target, const struct portal *portal, uint16_t tpgt);
