/*
 * resolve.h - a portal's addresses, found without stopping the loop.
 */
#pragma once

#include <glib.h>

#include "lunfs/iscsi.h"

struct resolve;

/*
 * done() gets the addresses as "10.0.0.5:3260" or "[::1]:3260", in the resolver's order, or NULL
 * and a sentence; never from inside. The receiver owns the array (its strings are freed with it).
 */
struct resolve *resolve_start(const struct portal *portal,
    void (*done)(GPtrArray *addresses, const char *error, void *data), void *data);
/* Ends it, or frees it after done(); done() is not called any more. */
void resolve_free(struct resolve *resolve);
