/*
 * portal.h - where a target is reached.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* A portal as written: host may be a name, an IPv4 or an IPv6 address without brackets. */
struct portal {
	char *host;
	uint16_t port; /* 3260 by default */
};

/* A list for portals, which owns them. */
GPtrArray *portals_new(void);
void portals_add(GPtrArray *portals, const char *host, uint16_t port);
GPtrArray *portals_copy(const GPtrArray *portals);
/* The same, in the same order? */
bool portals_equal(const GPtrArray *a, const GPtrArray *b);
/* "10.0.0.5:3260", "[::1]:3260". Free with g_free(). */
char *portal_format(const char *host, uint16_t port);
