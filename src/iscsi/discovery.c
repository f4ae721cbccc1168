/*
 * discovery.c - SendTargets (RFC 7143, Appendix C): which targets a portal offers, and where.
 *
 *   dial --logged in--> SendTargets=All --its text is whole--> Logout --answered--> done()
 *
 * libiscsi sends the requests; the text of the answer, of any length, is collected by the relay
 * (exchange.h), and read in sendtargets.c.
 */
#include <string.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "connection.h"
#include "dial.h"
#include "lunfs/iscsi.h"
#include "lunfs/loop.h"
#include "sendtargets.h"

/* Of a target that was asked, and has said all, no more is wanted: its answer to the logout is not
 * waited for any longer. */
#define LOGOUT_MS 1000u

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

/* What names no portal is where it was asked for (Appendix C). */
static void discovery_complete(struct discovery *discovery)
{
	const struct portal *asked = g_ptr_array_index(discovery->login->portals, 0);

	for (unsigned i = 0; i < discovery->targets->len; i++) {
		struct discovered_target *target = g_ptr_array_index(discovery->targets, i);

		if (target->portals->len == 0)
			discovered_target_add(
			    target, &(struct portal){.host = asked->host, .port = asked->port}, 1);
		discovery_put_asked_first(discovery, target->portals);
	}
}

static void discovery_logged_out(struct iscsi_context *context, int status, void *none, void *data)
{
	struct discovery *discovery = data;

	(void)context;
	(void)none;
	if (status != SCSI_STATUS_CANCELLED)
		loop_defer(discovery->loop, &discovery->reporter);
}

static void discovery_logout_expired(void *data)
{
	struct discovery *discovery = data;

	loop_remove(&discovery->timer);
	loop_defer(discovery->loop, &discovery->reporter);
}

static void discovery_log_out(struct discovery *discovery)
{
	loop_remove(&discovery->timer);
	discovery->timer =
	    loop_timer(discovery->loop, LOGOUT_MS, discovery_logout_expired, discovery);
	if (iscsi_logout_async(
	        connection_context(discovery->connection), discovery_logged_out, discovery) == 0)
		connection_send(discovery->connection, false);
	else
		loop_defer(discovery->loop, &discovery->reporter);
}

static void discovery_answered(struct iscsi_context *context, int status, void *answer, void *data)
{
	struct discovery *discovery = data;

	(void)answer;
	if (status == SCSI_STATUS_CANCELLED) /* discovery_report() is at work */
		return;
	const char *address = connection_address(discovery->connection);
	const GString *text = connection_text(discovery->connection);
	if (status != SCSI_STATUS_GOOD || text == NULL) {
		discovery_fail(discovery,
		    g_strdup_printf("%s: discovery failed: %s", address, iscsi_get_error(context)));
		return;
	}
	discovery->targets = sendtargets_read(text);
	if (discovery->targets == NULL) {
		discovery_fail(discovery,
		    g_strdup_printf("%s: discovery failed: an address without a target", address));
		return;
	}
	discovery_complete(discovery);
	discovery_log_out(discovery);
}

static void discovery_connection_event(
    struct connection *connection, enum connection_event event, void *data)
{
	/* Behind the answer that is the end of the logout. */
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

	if (result->connection == NULL)
		discovery_fail(discovery, g_strdup(result->error));
	discovery->connection = result->connection;
	dial_free(g_steal_pointer(&discovery->dial)); /* a name server may still be asked */
	if (discovery->connection == NULL)
		return;
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
