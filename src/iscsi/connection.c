/*
 * connection.c - one TCP connection to one address, logged in.
 *
 *   CONNECTING --TCP stands--> LOGIN --answer--> ADMITTED --window open--> UP --fault--> DOWN
 *        \_______________________________________________________________________________/
 *
 * Owns the libiscsi context, the relay of the login, the guard, the watch on the socket, and the
 * timer over the attempt: libiscsi itself waits for ever. libiscsi's callbacks only note what
 * happened; the receiver is told when it has returned.
 */
#include "connection.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "context.h"
#include "guard.h"
#include "keys.h"
#include "login_status.h"
#include "lunfs/log.h"
#include "lunfs/loop.h"
#include "relay.h"

struct connection {
	struct loop *loop;
	const struct login *login;
	char *address;
	connection_fn fn;
	void *data;

	struct iscsi_context *context;
	struct relay *relay;
	struct guard *guard; /* from LOGIN on */
	enum { CONNECTING, LOGIN, ADMITTED, UP, DOWN } state;
	GSource *watch, *timer;
	void *watch_tag;
	int watched_fd;
	GIOCondition watched;
	struct loop_work sender, reporter;
	unsigned connect_ms, timeout_ms;
	int64_t deadline_ms; /* of the attempt */

	int login_status; /* class and detail, or -1 */
	int portal_group; /* or -1 */
	bool refused, tell_when_drained, told_blind;
	unsigned unsent; /* pieces that libiscsi may send by a call each */
	char *error, *redirect;
	char **keys;
	struct guard_notice notice;
};

static void connection_service(struct connection *connection, int revents);

/* ---- what went wrong, in words ---- */

/* The first counts; what the guard found comes before what libiscsi made of it. */
static void connection_set_error(struct connection *connection, char *error)
{
	const char *found = connection->guard != NULL ? guard_finding(connection->guard) : NULL;

	if (connection->error == NULL && found != NULL)
		connection->error = g_strdup_printf("%s: %s", connection->address, found);
	else if (connection->error == NULL)
		connection->error = g_strdelimit(g_steal_pointer(&error), "\n\r", ' ');
	g_free(error);
}

/* What the exchange found, to follow the target's name. */
static const char *connection_fault(const struct connection *connection)
{
	return connection->relay != NULL ? exchange_fault(relay_exchange(connection->relay)) : NULL;
}

/* What the target's status, the exchange's finding, or libiscsi's, means for the user. */
static char *connection_explain_login(struct connection *connection)
{
	const struct login *login = connection->login;
	const char *name = login->target != NULL ? login->target : connection->address;
	const char *found = iscsi_get_error(connection->context);
	char *refusal = login_status_explain(connection->login_status, login, connection->address);

	if (refusal != NULL)
		return refusal;
	if (connection_fault(connection) != NULL)
		return g_strdup_printf("%s %s", name, connection_fault(connection));
	if (strstr(found, "CHAP_R") != NULL || strstr(found, "CHAP_N") != NULL)
		return g_strdup_printf(
		    "%s could not prove its identity (mutual CHAP): check password_in_file and "
		    "that the target has the secret; nothing was read or written",
		    name);
	if (strstr(found, "CHAP targetname") != NULL)
		return g_strdup_printf(
		    "%s calls itself by another CHAP name than username_in=%s (mutual CHAP)", name,
		    login->username_in);
	/* Linux's target does so where it wants CHAP, and none was offered. */
	return g_strdup_printf(
	    "%s closed the connection during the login to %s: is this an iSCSI portal%s?",
	    connection->address, name,
	    login->username == NULL ? ", or does it want CHAP (-o username=USER,password_file=FILE)"
	                            : "");
}

/* libiscsi writes "... Connection refused(111) ..."; the number is what we want of it. */
static int connection_errno(struct connection *connection)
{
	const char *number = strrchr(iscsi_get_error(connection->context), '(');
	int error = number != NULL ? (int)strtol(number + 1, NULL, 10) : 0;

	return error > 0 ? error : EIO;
}

static char *connection_explain(struct connection *connection)
{
	int error;

	switch (connection->state) {
	case CONNECTING:
		error = connection_errno(connection);
		if (error == ECONNREFUSED)
			return g_strdup_printf(
			    "%s refused the connection: is a target running there, on this port?",
			    connection->address);
		return g_strdup_printf(
		    "%s cannot be reached: %s", connection->address, g_strerror(error));
	case LOGIN:
		return connection_explain_login(connection);
	default:
		if (connection_fault(connection) != NULL) /* of a discovery */
			return g_strdup_printf(
			    "%s %s", connection->address, connection_fault(connection));
		return g_strdup_printf("%s closed the connection", connection->address);
	}
}

/* ---- state ---- */

/* What the target said of the session since, one by one. */
static void connection_tell_notices(struct connection *connection)
{
	while (
	    connection->guard != NULL && guard_take_notice(connection->guard, &connection->notice))
		connection->fn(connection, CONNECTION_NOTICE, connection->data);
}

static void connection_report_down(struct loop_work *work)
{
	struct connection *connection =
	    (struct connection *)((char *)work - offsetof(struct connection, reporter));

	connection_tell_notices(connection);
	connection->fn(connection, CONNECTION_DOWN, connection->data);
}

/* Stops the socket and tells the receiver at the end of the turn. */
static void connection_down(struct connection *connection)
{
	if (connection->state == DOWN)
		return;
	if (connection->redirect == NULL)
		connection_set_error(connection, connection_explain(connection));
	/* Nor will it be another one next time. */
	connection->refused |= connection->state == LOGIN && connection_fault(connection) != NULL;
	connection->state = DOWN;
	loop_remove(&connection->watch);
	loop_remove(&connection->timer);
	loop_cancel(connection->loop, &connection->sender);
	loop_defer(connection->loop, &connection->reporter);
}

void connection_drop(struct connection *connection, const char *reason)
{
	connection_set_error(connection, g_strdup_printf("%s: %s", connection->address, reason));
	connection_down(connection);
}

static void connection_expired(void *data)
{
	struct connection *connection = data;
	unsigned ms =
	    connection->state == CONNECTING ? connection->connect_ms : connection->timeout_ms;
	g_autofree char *time =
	    ms < 1000 ? g_strdup_printf("%u ms", ms) : g_strdup_printf("%u s", (ms + 500) / 1000);

	loop_remove(&connection->timer);
	if (connection->state == CONNECTING)
		connection_set_error(
		    connection, g_strdup_printf("%s does not answer (no connection within %s): "
		                                "check the address, the port and "
		                                "firewalls",
		                    connection->address, time));
	else
		connection_set_error(connection,
		    g_strdup_printf(connection->state == ADMITTED
		                        ? "%s accepted the login, but gives no room for a command "
		                          "(MaxCmdSN; within %s)"
		                        : "%s accepted the connection, but does not answer the "
		                          "login (within %s)",
		        connection->address, time));
	connection_down(connection);
}

static void connection_set_timer(struct connection *connection, unsigned ms)
{
	loop_remove(&connection->timer);
	connection->timer = loop_timer(connection->loop, ms, connection_expired, connection);
}

/* ---- login ---- */

/* What is sent and not acknowledged by the other host's TCP ends the connection as soon as a
 * NOP-Out without answer would. */
static void connection_notice_silence(struct connection *connection)
{
	const struct login *login = connection->login;
	unsigned ms = login->noop_interval_ms != 0
	                  ? login->noop_interval_ms + login->noop_timeout_ms
	                  : login->command_timeout_ms;

	int fd = iscsi_get_fd(connection->context), on = 1;
	int seconds = MAX((int)(ms / 2000), 1);

	/* Without these the timers of the session find out, later. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof seconds);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof seconds);
}

static struct guard_session connection_agreement(const struct exchange *exchange)
{
	const struct keys *keys = exchange_keys(exchange);
	const uint8_t *request = exchange_last_request(exchange);
	const uint8_t *response = exchange_last_response(exchange);
	g_autofree char *digest = keys_agreed(keys, "HeaderDigest");
	g_autofree char *burst = keys_agreed(keys, "MaxBurstLength");

	return (struct guard_session){
	    .header_digest = strcmp(digest, "CRC32C") == 0,
	    .statsn = get_be32(response + 24),
	    .cmdsn = get_be32(request + 24),
	    .max_cmdsn = get_be32(response + 32),
	    .max_burst = (uint32_t)g_ascii_strtoull(burst, NULL, 10),
	};
}

static void connection_succeeded(struct connection *connection)
{
	const struct exchange *exchange = relay_exchange(connection->relay);
	struct guard_session session = connection_agreement(exchange);
	g_autofree char *group = keys_agreed(exchange_keys(exchange), "TargetPortalGroupTag");

	connection->portal_group = group != NULL ? atoi(group) : -1;
	connection->keys = keys_outcome(exchange_keys(exchange));
	if (connection->login->target != NULL) /* a discovery keeps it */
		relay_free(g_steal_pointer(&connection->relay));
	guard_begin(connection->guard, &session);
	connection->state = ADMITTED;
}

static void connection_logged_in(
    struct iscsi_context *context, int status, void *data, void *private_data)
{
	struct connection *connection = private_data;
	const struct exchange *exchange = relay_exchange(connection->relay);

	(void)context;
	(void)data;
	if (status == SCSI_STATUS_CANCELLED) /* connection_free() is at work */
		return;
	connection->login_status = exchange_status(exchange);
	if (status == SCSI_STATUS_GOOD) {
		connection_succeeded(connection);
		return;
	}
	/* Of any other status an address says nothing. */
	if (connection->login_status == LOGIN_MOVED_TEMPORARILY ||
	    connection->login_status == LOGIN_MOVED_PERMANENTLY)
		connection->redirect = g_strdup(exchange_redirect(exchange));
	/* A target that says nothing wrong and still is not believed failed to prove itself. */
	connection->refused =
	    login_is_refused(connection->login_status) || connection->login_status == 0;
	connection_down(connection);
}

static void connection_connected(
    struct iscsi_context *context, int status, void *data, void *private_data)
{
	struct connection *connection = private_data;

	(void)data;
	if (status != SCSI_STATUS_GOOD) {
		connection_down(connection);
		return;
	}
	connection->state = LOGIN;
	connection_set_timer(connection, (unsigned)MAX(connection->deadline_ms - clock_ms(), 1));
	connection_notice_silence(connection);
	connection->guard = guard_new(iscsi_get_fd(context));
	connection->relay = relay_new(connection->loop, iscsi_get_fd(context), connection->login);
	if (connection->relay == NULL) {
		connection_set_error(
		    connection, g_strdup_printf("cannot log in: %s", strerror(errno)));
		connection_down(connection);
	} else if (iscsi_login_async(context, connection_logged_in, connection) != 0) {
		connection_down(connection);
	}
}

/* ---- the socket on the loop ---- */

static void connection_ready(int fd, GIOCondition condition, void *data)
{
	int revents = 0;

	(void)fd;
	if (condition & G_IO_IN)
		revents |= POLLIN;
	if (condition & G_IO_OUT)
		revents |= POLLOUT;
	/* What was received before the end is read first. */
	if (!(condition & G_IO_IN))
		revents |=
		    (condition & G_IO_ERR ? POLLERR : 0) | (condition & G_IO_HUP ? POLLHUP : 0);
	connection_service(data, revents);
}

/* Asks libiscsi anew what it waits for. What this turn will send anyhow needs no waiting: changing
 * a watch costs. */
static void connection_watch(struct connection *connection)
{
	int fd = iscsi_get_fd(connection->context);
	int events = iscsi_which_events(connection->context);
	GIOCondition wanted = events & POLLIN ? G_IO_IN : 0;

	if ((events & POLLOUT) && !connection->sender.queued)
		wanted |= G_IO_OUT;
	if (connection->watch != NULL && fd != connection->watched_fd)
		loop_remove(&connection->watch);
	if (connection->watch == NULL)
		connection->watch = loop_watch(connection->loop, fd, wanted, connection_ready,
		    connection, &connection->watch_tag);
	else if (wanted != connection->watched)
		g_source_modify_unix_fd(connection->watch, connection->watch_tag, wanted);
	connection->watched_fd = fd;
	connection->watched = wanted;
}

static void connection_cork(struct connection *connection, int on)
{
	/* Without it packets are smaller, no more. */
	(void)setsockopt(iscsi_get_fd(connection->context), IPPROTO_TCP, TCP_CORK, &on, sizeof on);
}

/* Has all that may leave left for the target? */
static bool connection_is_drained(struct connection *connection)
{
	/* What remains then are commands that the window (MaxCmdSN) keeps: nothing of them is at
	 * the target, and all that was queued for others is. */
	return !(iscsi_which_events(connection->context) & POLLOUT);
}

/*
 * libiscsi sends each PDU by a call, and its data by another: a packet each, and each wakes the
 * target. What leaves in one turn shares packets.
 */
static int connection_send_corked(struct connection *connection, int revents)
{
	bool cork = connection->unsent > 1;
	int result;

	if (cork)
		connection_cork(connection, 1);
	result = iscsi_service(connection->context, revents);
	if (cork)
		connection_cork(connection, 0);
	if (connection_is_drained(connection) && !connection_window_is_closed(connection))
		connection->unsent = 0;
	return result;
}

/* libiscsi says of most faults that all is well. */
static bool connection_let_work(struct connection *connection, int revents)
{
	int result;

	guard_watch(connection->guard);
	result = revents & POLLOUT ? connection_send_corked(connection, revents)
	                           : iscsi_service(connection->context, revents);
	guard_watch(NULL);
	if (connection->guard != NULL && guard_finding(connection->guard) != NULL)
		connection_down(connection);
	return result >= 0;
}

/* Before its first command libiscsi does not know of a command window that is closed. Discovery
 * sends none: its requests are immediate. */
static bool connection_may_send(const struct connection *connection)
{
	return connection->login->target == NULL || guard_window_is_open(connection->guard);
}

static void connection_service(struct connection *connection, int revents)
{
	bool was_connecting = connection->state == CONNECTING;

	if (!connection_let_work(connection, revents))
		connection_down(connection);
	if (was_connecting && connection->state == LOGIN)
		connection->fn(connection, CONNECTION_STANDS, connection->data);
	if (connection->state == DOWN)
		return;
	if (connection->state == ADMITTED && connection_may_send(connection)) {
		loop_remove(&connection->timer);
		connection->state = UP;
		connection->fn(connection, CONNECTION_UP, connection->data);
	}
	if (connection->state == UP)
		connection_tell_notices(connection);
	if (connection->state == DOWN)
		return;
	connection_watch(connection);
	if (connection->tell_when_drained && connection_is_drained(connection)) {
		connection->tell_when_drained = false;
		connection->fn(connection, CONNECTION_DRAINED, connection->data);
	}
}

static void connection_send_now(struct loop_work *work)
{
	struct connection *connection =
	    (struct connection *)((char *)work - offsetof(struct connection, sender));

	connection_service(connection, POLLOUT);
}

void connection_send(struct connection *connection, bool with_data)
{
	connection->unsent += with_data ? 2 : 1;
	loop_defer(connection->loop, &connection->sender);
}

bool connection_window_is_closed(const struct connection *connection)
{
	return iscsi_out_queue_length(connection->context) > 0 &&
	       !(iscsi_which_events(connection->context) & POLLOUT);
}

void connection_tell_when_drained(struct connection *connection)
{
	connection->tell_when_drained = true;
}

void connection_expect(struct connection *connection, uint32_t itt, enum scsi_direction direction,
    uint32_t length, bool exact)
{
	guard_expect(connection->guard, itt, direction, length, exact);
}

uint32_t connection_moved(const struct connection *connection, uint32_t itt)
{
	return guard_moved(connection->guard, itt);
}

bool connection_is_blind(const struct connection *connection)
{
	return guard_is_blind(connection->guard);
}

bool connection_settle(struct connection *connection, uint32_t itt)
{
	if (guard_is_blind(connection->guard) && !connection->told_blind) {
		connection->told_blind = true;
		log_warning("%s: this libiscsi reads by calls that lunfs does not see: what the "
		            "target sends is not checked",
		    connection->address);
	}
	return guard_settle(connection->guard, itt) || connection_is_drained(connection);
}

/* ---- life ---- */

struct connection *connection_new(struct loop *loop, const struct login *login, const char *address,
    unsigned connect_ms, unsigned timeout_ms, connection_fn fn, void *data)
{
	struct connection *connection = g_new0(struct connection, 1);

	connection->loop = loop;
	connection->login = login;
	connection->address = g_strdup(address);
	connection->fn = fn;
	connection->data = data;
	connection->login_status = -1;
	connection->portal_group = -1;
	connection->timeout_ms = timeout_ms;
	connection->connect_ms = MIN(connect_ms, timeout_ms);
	connection->deadline_ms = clock_ms() + timeout_ms;
	connection->sender.run = connection_send_now;
	connection->reporter.run = connection_report_down;
	connection_set_timer(connection, connection->connect_ms);
	connection->context = context_new(login);
	if (iscsi_connect_async(connection->context, address, connection_connected, connection) !=
	    0)
		connection_down(connection);
	else
		connection_watch(connection);
	return connection;
}

void connection_free(struct connection *connection)
{
	if (connection == NULL)
		return;
	connection->state = DOWN;
	loop_remove(&connection->watch);
	loop_remove(&connection->timer);
	loop_cancel(connection->loop, &connection->sender);
	loop_cancel(connection->loop, &connection->reporter);
	relay_free(g_steal_pointer(&connection->relay));
	iscsi_destroy_context(connection->context);
	guard_free(connection->guard);
	g_free(connection->address);
	g_strfreev(connection->keys);
	g_free(connection->error);
	g_free(connection->redirect);
	g_free(connection);
}

void connection_hand_over(struct connection *connection, connection_fn fn, void *data)
{
	connection->fn = fn;
	connection->data = data;
}

int connection_portal_group(const struct connection *connection)
{
	return connection->portal_group;
}

char **connection_keys(const struct connection *connection)
{
	return connection->keys;
}

bool connection_wants_secret(const struct connection *connection)
{
	return connection->login_status == LOGIN_AUTHENTICATION_FAILED ||
	       (connection->relay != NULL &&
	           exchange_wants_proof(relay_exchange(connection->relay)));
}

const char *connection_address(const struct connection *connection)
{
	return connection->address;
}

struct iscsi_context *connection_context(struct connection *connection)
{
	return connection->context;
}

const char *connection_error(const struct connection *connection)
{
	return connection->error != NULL ? connection->error : "";
}

bool connection_was_refused(const struct connection *connection)
{
	return connection->refused;
}

const struct guard_notice *connection_notice(const struct connection *connection)
{
	return &connection->notice;
}

const char *connection_redirect(const struct connection *connection)
{
	return connection->redirect;
}

int connection_login_status(const struct connection *connection)
{
	return connection->login_status;
}

const GString *connection_text(const struct connection *connection)
{
	return connection->relay != NULL ? exchange_text(relay_exchange(connection->relay)) : NULL;
}
