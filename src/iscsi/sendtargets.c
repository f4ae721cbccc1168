/*
 * sendtargets.c - the text of an answer to SendTargets: see sendtargets.h.
 */
#include "sendtargets.h"

#include <string.h>

#include "dial.h"

#define NAME_KEY    "TargetName="
#define ADDRESS_KEY "TargetAddress="

void discovered_portal_free(gpointer data)
{
	struct discovered_portal *portal = data;

	g_free(portal->host);
	g_free(portal);
}

static void discovered_target_free(gpointer data)
{
	struct discovered_target *target = data;

	g_free(target->name);
	g_ptr_array_unref(target->portals);
	g_free(target);
}

void discovered_target_add(
    struct discovered_target *target, const struct portal *portal, uint16_t tpgt)
{
	struct discovered_portal *entry = g_new0(struct discovered_portal, 1);

	*entry = (struct discovered_portal){
	    .host = g_strdup(portal->host), .port = portal->port, .tpgt = tpgt};
	g_ptr_array_add(target->portals, entry);
}

static struct discovered_target *targets_add(GPtrArray *targets, const char *name)
{
	struct discovered_target *target = g_new0(struct discovered_target, 1);

	target->name = g_strdup(name);
	target->portals = g_ptr_array_new_with_free_func(discovered_portal_free);
	g_ptr_array_add(targets, target);
	return target;
}

static void target_take_address(struct discovered_target *target, const char *address)
{
	struct portal portal;
	uint16_t tpgt = 1;

	if (!portal_parse(address, &portal, &tpgt))
		return;
	discovered_target_add(target, &portal, tpgt);
	g_free(portal.host);
}

GPtrArray *sendtargets_read(const GString *text)
{
	g_autoptr(GPtrArray) targets = g_ptr_array_new_with_free_func(discovered_target_free);
	struct discovered_target *target = NULL;

	/* a GString ends with a NUL of its own */
	for (size_t at = 0; at < text->len; at += strlen(text->str + at) + 1) {
		const char *pair = text->str + at;

		if (g_str_has_prefix(pair, NAME_KEY)) {
			target = targets_add(targets, pair + strlen(NAME_KEY));
		} else if (g_str_has_prefix(pair, ADDRESS_KEY)) {
			if (target == NULL)
				return NULL;
			target_take_address(target, pair + strlen(ADDRESS_KEY));
		}
	}
	return g_steal_pointer(&targets);
}
