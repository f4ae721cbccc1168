/*
 * route.h - where a session logs in next (RFC 7143, 11.13.5).
 *
 * It goes round by round: each configured portal once, beginning with the last one that was used.
 * Before them comes the portal that the target has moved to for good (0102h), until it cannot be
 * reached there; a move for a while (0101h) is none of the route's business. A portal that said no
 * is left out for pauses that grow, lest it locks us out. Until a session stands for the first time
 * each portal is left that failed and did not only put us off (class 02h is not tried again); from
 * then on all of them count.
 */
#pragma once

#include "dial.h"

struct route;

/* Of struct portal, at least one; borrowed. The first round begins. */
struct route *route_new(const GPtrArray *portals);
void route_free(struct route *route);
/* The next round begins. */
void route_begin_round(struct route *route);
/* Where to dial now, or NULL: the round is over. What came of it is to be noted then. */
const struct portal *route_next(struct route *route);
/* first: the session has never stood. */
void route_note(struct route *route, const struct dial_result *result, bool first);
/* A round that begins before, by clock_ms(), would have no portal; INT64_MAX: none will. */
int64_t route_due_ms(const struct route *route);
