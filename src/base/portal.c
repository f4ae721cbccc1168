/*
 * portal.c - where a target is reached.
 */
#include "lunfs/portal.h"

#include <string.h>

static void portal_free(gpointer data)
{
	struct portal *portal = data;

	g_free(portal->host);
	g_free(portal);
}

GPtrArray *portals_new(void)
{
	return g_ptr_array_new_with_free_func(portal_free);
}

void portals_add(GPtrArray *portals, const char *host, uint16_t port)
{
	struct portal *portal = g_new(struct portal, 1);

	*portal = (struct portal){.host = g_strdup(host), .port = port};
	g_ptr_array_add(portals, portal);
}

GPtrArray *portals_copy(const GPtrArray *portals)
{
	GPtrArray *copy = portals_new();

	for (unsigned i = 0; i < portals->len; i++) {
		const struct portal *portal = g_ptr_array_index(portals, i);

		portals_add(copy, portal->host, portal->port);
	}
	return copy;
}

bool portals_equal(const GPtrArray *a, const GPtrArray *b)
{
	if (a->len != b->len)
		return false;
	for (unsigned i = 0; i < a->len; i++) {
		const struct portal *one = g_ptr_array_index(a, i);
		const struct portal *other = g_ptr_array_index(b, i);

		if (one->port != other->port || strcmp(one->host, other->host) != 0)
			return false;
	}
	return true;
}

char *portal_format(const char *host, uint16_t port)
{
	bool v6 = strchr(host, ':') != NULL;

	return g_strdup_printf("%s%s%s:%u", v6 ? "[" : "", host, v6 ? "]" : "", (unsigned)port);
}
