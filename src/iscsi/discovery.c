/*
 * discovery.c - SendTargets (RFC 7143, Appendix C): which targets a portal offers, and where.
 */
#include <string.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "connection.h"
#include "dial.h"
#include "lunfs/iscsi.h"
#include "lunfs/loop.h"

struct discovery {
	struct loop *loop;
	const struct login *login;
	void (*done)(GPtrArray *targets, const char *error, void *data);
	void *data;

	struct dial *dial;
	struct connection *connection;
	GSource *timer;
	struct loop_work reporter;
	GPtrArray *targets; /* the answer */
	char *error;
};

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

/* done() is for the loop, not for libiscsi's stack. */
static void discovery_report(struct loop_work *work)
{
	struct discovery *discovery =
	    (struct discovery *)((char *)work - offsetof(struct discovery, reporter));

	loop_remove(&discovery->timer);
	connection_free(g_steal_pointer(&discovery->connection)); /* nothing more is to come */
	discovery->done(discovery->targets, discovery->error, discovery->data);
}

static void discovery_fail(struct discovery *discovery, char *error)
{
	if (discovery->error == NULL && discovery->targets == NULL)
		discovery->error = error;
	else
		g_free(error);
	loop_defer(discovery->loop, &discovery->reporter);
}

static void add_portal(GPtrArray *portals, const struct portal *portal, uint16_t tpgt)
{
	struct discovered_portal *entry = g_new0(struct discovered_portal, 1);

	*entry =
	    (struct discovered_portal){.host = portal->host, .port = portal->port, .tpgt = tpgt};
	g_ptr_array_insert(portals, 0, entry); /* libiscsi has the last one first */
}

/* Is it the portal that was asked: as it was named, or as it was reached? */
static bool discovery_asked(
    const struct discovery *discovery, const struct discovered_portal *portal)
{
	const struct portal *asked = g_ptr_array_index(discovery->login->portals, 0);
	g_autofree char *address = portal_format(portal->host, portal->port);

	return (portal->port == asked->port &&
	           g_ascii_strcasecmp(portal->host, asked->host) == 0) ||
	       strcmp(address, connection_address(discovery->connection)) == 0;
}

/* It is within reach; of what else a target lists nobody knows. */
static void discovery_put_asked_first(const struct discovery *discovery, GPtrArray *portals)
{
	for (unsigned i = 0; i < portals->len; i++) {
		struct discovered_portal *portal = g_ptr_array_index(portals, i);

		if (discovery_asked(discovery, portal)) {
			portal->asked = true;
			g_ptr_array_insert(portals, 0, g_ptr_array_steal_index(portals, i));
			return;
		}
	}
}

static struct discovered_target *discovery_target(
    struct discovery *discovery, const struct iscsi_discovery_address *found)
{
	struct discovered_target *target = g_new0(struct discovered_target, 1);

	target->name = g_strdup(found->target_name);
	target->portals = g_ptr_array_new_with_free_func(discovered_portal_free);
	for (const struct iscsi_target_portal *item = found->portals; item != NULL;
	     item = item->next) {
		struct portal portal;
		uint16_t tpgt = 1;

		if (item->portal != NULL && portal_parse(item->portal, &portal, &tpgt))
			add_portal(target->portals, &portal, tpgt);
	}
	if (target->portals->len == 0) {
		const struct portal *asked = g_ptr_array_index(discovery->login->portals, 0);

		add_portal(target->portals,
		    &(struct portal){.host = g_strdup(asked->host), .port = asked->port}, 1);
	}
	discovery_put_asked_first(discovery, target->portals);
	return target;
}

static void discovery_answered(struct iscsi_context *context, int status, void *answer, void *data)
{
	struct discovery *discovery = data;

	if (status == SCSI_STATUS_CANCELLED)
		return;
	if (status != SCSI_STATUS_GOOD) {
		discovery_fail(discovery,
		    g_strdup_printf("%s: discovery failed: %s",
		        connection_address(discovery->connection), iscsi_get_error(context)));
		return;
	}
	discovery->targets = g_ptr_array_new_with_free_func(discovered_target_free);
	for (const struct iscsi_discovery_address *item = answer; item != NULL; item = item->next)
		if (item->target_name != NULL)
			g_ptr_array_add(discovery->targets, discovery_target(discovery, item));
	loop_defer(discovery->loop, &discovery->reporter);
}

static void discovery_connection_event(
    struct connection *connection, enum connection_event event, void *data)
{
	if (event == CONNECTION_DOWN)
		discovery_fail(data, g_strdup(connection_error(connection)));
}

static void discovery_expired(void *data)
{
	struct discovery *discovery = data;

	discovery_fail(
	    discovery, g_strdup_printf("%s logged us in, but does not answer SendTargets",
	                   connection_address(discovery->connection)));
}

static void discovery_dialed(const struct dial_result *result, void *data)
{
	struct discovery *discovery = data;

	if (result->connection == NULL) {
		discovery_fail(discovery, g_strdup(result->error));
		return;
	}
	discovery->connection = result->connection;
	connection_hand_over(discovery->connection, discovery_connection_event, discovery);
	discovery->timer = loop_timer(
	    discovery->loop, discovery->login->login_timeout_ms, discovery_expired, discovery);
	if (iscsi_discovery_async(
	        connection_context(discovery->connection), discovery_answered, discovery) != 0)
		discovery_fail(discovery, g_strdup("out of memory"));
	connection_send(discovery->connection, false);
}

struct discovery *discovery_start(struct loop *loop, const struct login *login,
    void (*done)(GPtrArray *targets, const char *error, void *data), void *data)
{
	struct discovery *discovery = g_new0(struct discovery, 1);

	*discovery = (struct discovery){
	    .loop = loop,
	    .login = login,
	    .done = done,
	    .data = data,
	    .reporter.run = discovery_report,
	};
	discovery->dial = dial_start(&(struct dial_request){
	    .loop = loop,
	    .login = login,
	    .portal = g_ptr_array_index(login->portals, 0),
	    .timeout_ms = login->login_timeout_ms,
	    .connect_ms = login->connect_ms != 0 ? login->connect_ms : login->login_timeout_ms,
	    .done = discovery_dialed,
	    .data = discovery,
	});
	return discovery;
}

void discovery_free(struct discovery *discovery)
{
	if (discovery == NULL)
		return;
	loop_remove(&discovery->timer);
	loop_cancel(discovery->loop, &discovery->reporter);
	dial_free(discovery->dial);
	connection_free(discovery->connection);
	g_clear_pointer(&discovery->targets, g_ptr_array_unref);
	g_free(discovery->error);
	g_free(discovery);
}
