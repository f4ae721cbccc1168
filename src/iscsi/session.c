/*
 * session.c - a session with one target, from login to login.
 *
 *   RESOLVING --> CONNECTING --> LOGGING_IN --> VERIFYING --session_verified()--> READY
 *      ^   ^          |              |              |                               |
 *      |   +--failed, and there is another portal   |                               |
 *      |              |              |              +------ fault, or LOGGING_OUT --+
 *      |              v              v              v   (LOST is told)
 *      |            WAITING <-------------------- WAITING
 *      +--pause over--+                      (FAILED, where it never stood)
 *
 * LOGGING_OUT is for the target that asks for a logout: it ends when that is answered (logout.c).
 *   any --session_close()--> CLOSING --logged out, or time is up--> CLOSED
 *
 * The first login is tried again only where the target puts it off (class 03h), up to
 * login_timeout; what is lost later, for ever. A target that names a time to wait (Time2Wait; RFC
 * 7143, 11.9.1 and 11.15.3) is not logged in at before it is over.
 *
 * A fault takes the commands back, in order, each ending with -ESTALE, after LOST was told; then it
 * logs in again, at once at first, later after pauses that grow with the outage. The ISID stays the
 * same: the target is to end the old session, with all that is alive in it, before it answers the
 * new login (RFC 7143, 6.3.5; SAFETY.md 11). libiscsi's own reconnection is off.
 */
#include "session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "guard.h"
#include "lunfs/log.h"

/* libiscsi offers FirstBurstLength and MaxBurstLength of 262144: a larger WRITE waits for the
 * target's R2T. */
#define WRITE_BURST (256u << 10)

#define TICK_MS              500u
#define PAUSE_MIN_MS         100u
#define PAUSE_MAX_MS         3000u
#define PUT_OFF_PAUSE_MAX_MS 1000u /* of the first login */
/* DefaultTime2Wait that is not waited for: the standard's default, which is what most targets
 * answer, whether they need it or not. An outage of TCP alone is to be over sooner. */
#define TIME2WAIT_DEFAULT     2
#define TIME2WAIT_MOST        3600 /* seconds; of the key's range (13.15): no message waits longer */
#define FLEETING_MS           1000 /* a session that is lost sooner is not dialed again in a hurry, */
#define FLEETING_FREE         3u   /* if that goes on */
#define FLEETING_PAUSE_MAX_MS 5000u
#define CONNECT_MS            5000u /* for TCP, once the target was reached: SYNs come faster again then */
#define ATTEMPT_MIN_MS        1000u

/* ---- state ---- */

static const char *const state_names[] = {
    [RESOLVING] = "resolving",
    [CONNECTING] = "connecting",
    [LOGGING_IN] = "logging in",
    [VERIFYING] = "verifying",
    [READY] = "ready",
    [LOGGING_OUT] = "logging out",
    [WAITING] = "waiting",
    [FAILED] = "failed",
    [CLOSING] = "closing",
    [CLOSED] = "closed",
};

static const char *session_title(const struct session *session)
{
	const struct login *login = session->login;

	return login->title != NULL ? login->title : login->target;
}

void session_set_state(struct session *session, enum session_state state)
{
	if (session->state == state)
		return;
	log_debug_of(
	    session_title(session), "%s -> %s", state_names[session->state], state_names[state]);
	session->state = state;
}

bool session_is_up(const struct session *session)
{
	return session->state == VERIFYING || session->state == READY;
}

static void session_set_error(struct session *session, const char *error)
{
	char *copy = g_strdup(error);

	g_free(session->last_error);
	session->last_error = copy;
}

/* ---- LOGICAL UNIT RESET ---- */

/* iscsi_task_mgmt_lun_reset_async() would take back all commands of the session, whatever their
 * LUN.
 */
#define NO_ITT 0xffffffffu

struct session_reset {
	struct session *session;
	struct session_reset *next;
	int64_t deadline_ms;
	void (*done)(bool ok, void *data);
	void *data;
};

static void session_reset_answered(
    struct iscsi_context *context, int status, void *data, void *private_data)
{
	struct session_reset *reset = private_data;

	(void)context;
	if (status == SCSI_STATUS_CANCELLED)
		return; /* session_forget_resets() frees it */
	struct session_reset **link = &reset->session->resets;
	while (*link != reset)
		link = &(*link)->next;
	*link = reset->next;
	if (reset->done != NULL)
		reset->done(status == SCSI_STATUS_GOOD && data != NULL && *(uint32_t *)data == 0,
		    reset->data);
	g_free(reset);
}

void session_forget_reset(struct session *session, const void *data)
{
	for (struct session_reset *reset = session->resets; reset != NULL; reset = reset->next)
		if (reset->data == data)
			reset->done = NULL;
}

void session_forget_resets(struct session *session)
{
	struct session_reset *reset;

	while ((reset = session->resets) != NULL) {
		session->resets = reset->next;
		g_free(reset);
	}
}

bool session_has_writes(const struct session *session, uint16_t lun)
{
	const struct scsi_command *command = session->outstanding.first;

	while (command != NULL && (command->lun != lun || command->direction != SCSI_DATA_OUT))
		command = command->next;
	return command != NULL;
}

void session_reset_lun(
    struct session *session, uint16_t lun, void (*done)(bool ok, void *data), void *data)
{
	struct session_reset *reset = g_new(struct session_reset, 1);

	*reset = (struct session_reset){.session = session,
	    .next = session->resets,
	    .deadline_ms = clock_ms() + session->port.command_timeout_ms,
	    .done = done,
	    .data = data};
	session->resets = reset;
	if (!session_is_up(session) ||
	    iscsi_task_mgmt_async(connection_context(session->connection),
	        session_lun_field(session, lun), ISCSI_TM_LUN_RESET, NO_ITT, 0,
	        session_reset_answered, reset) != 0)
		return; /* it is lost, or will be: that ends the wait */
	connection_send(session->connection, false);
}

/* ---- going up and down ---- */

static void session_dial_next(struct session *session);

/* Not all initiators of a site in step. */
static unsigned shorten(unsigned ms)
{
	uint32_t jitter = 0;

	if (getrandom(&jitter, sizeof jitter, GRND_NONBLOCK) == sizeof jitter)
		ms -= jitter % (ms / 2);
	return ms;
}

/* Since when is there no steady session? Pauses are a tenth of the time that it lasts already. */
static unsigned session_pause(const struct session *session)
{
	int64_t away = clock_ms() - session->lost_ms;
	unsigned ms;

	if (!session->was_up)
		ms = MIN(PAUSE_MIN_MS << MIN(session->rounds, 10), PUT_OFF_PAUSE_MAX_MS);
	else if (session->fleeting > FLEETING_FREE)
		ms = MIN(PAUSE_MIN_MS << MIN(session->fleeting - FLEETING_FREE, 10),
		    FLEETING_PAUSE_MAX_MS);
	else if (session->last_outage.attempts == 0)
		return 0;
	else
		ms = (unsigned)CLAMP(away / 10, PAUSE_MIN_MS, PAUSE_MAX_MS);
	return shorten(ms);
}

static void session_pause_over(void *data)
{
	struct session *session = data;

	loop_remove(&session->pause);
	route_begin_round(session->route);
	session_dial_next(session);
}

static void session_wait(struct session *session)
{
	int64_t now = clock_ms(), due = MAX(route_due_ms(session->route), session->not_before_ms);

	session_set_state(session, WAITING);
	loop_remove(&session->pause);
	session->pause = loop_timer(session->loop,
	    (unsigned)MAX(due - now, (int64_t)session_pause(session)), session_pause_over, session);
}

/* What the target agreed on for this case (RFC 7143, 13.15); 0 where it told none. */
static int session_default_time2wait(const struct session *session)
{
	const char *const *keys = session_keys(session);

	for (; keys[0] != NULL; keys += 2)
		if (strcmp(keys[0], "DefaultTime2Wait") == 0)
			return (int)strtol(keys[1], NULL, 10);
	return 0;
}

/* The session ends now: when may the next begin? */
static void session_keep_time2wait(struct session *session)
{
	int seconds = session->time2wait_s;

	if (seconds < 0)
		seconds = session_default_time2wait(session);
	if (session->time2wait_s < 0 && seconds <= TIME2WAIT_DEFAULT)
		seconds = 0;
	seconds = MIN(seconds, TIME2WAIT_MOST);
	session->not_before_ms = clock_ms() + (int64_t)seconds * 1000;
	if (seconds == 0)
		return;
	g_autofree char *error = g_strdup_printf(
	    "%s; logs in again in %d s, as the target asked", session->last_error, seconds);
	session_set_error(session, error);
}

/* Where a session did not last it counts as the same outage going on. */
static void session_begin_outage(struct session *session)
{
	int64_t now = clock_ms();

	if (now - session->up_ms >= FLEETING_MS)
		session->fleeting = 0;
	else if (session->fleeting++ == 0)
		session->fleeting_since_ms = now;
	if (session->lost_ms != 0)
		return; /* it was not even verified */
	session->lost_ms = now;
	session->told_refusal = false;
	session->outages++;
	g_free(session->outage_reason);
	session->outage_reason = g_strdup(session->last_error);
	session->last_outage =
	    (struct outage){.began_us = g_get_real_time(), .reason = session->outage_reason};
}

static void session_lost(struct session *session, const char *reason)
{
	session_set_error(session, reason);
	if (session->state == CLOSING) {
		session_end(session);
		return;
	}
	loop_remove(&session->farewell);
	session_begin_outage(session);
	session_keep_time2wait(session);
	session_wait(session);
	connection_free(g_steal_pointer(&session->connection));
	session_forget_resets(session);
	if (log_limit_passes(&session->log, session_title(session)))
		log_warning_of(session_title(session), "session lost: %s", session->last_error);
	session->fn(session, SESSION_LOST, session->last_error, session->data);
	commands_return(session, -ESTALE);
}

/* RFC 7143, 11.9.1 and 11.15.3 */
static void session_take_notice(struct session *session, const struct guard_notice *notice)
{
	switch (notice->event) {
	case GUARD_LOGOUT_REQUESTED:
		session_obey_logout(session, notice->within_s);
		break;
	case GUARD_SCSI_EVENT:
		if (session_is_up(session))
			session->fn(session, SESSION_TOLD, NULL, session->data);
		break;
	default:
		session->time2wait_s = notice->time2wait;
	}
}

static void session_connection_event(
    struct connection *connection, enum connection_event event, void *data)
{
	struct session *session = data;

	if (event == CONNECTION_NOTICE)
		session_take_notice(session, connection_notice(connection));
	else if (event == CONNECTION_DRAINED)
		commands_drained(session);
	else if (event == CONNECTION_DOWN && session->state == LOGGING_OUT)
		session_lost(session, SESSION_LOGOUT_REASON);
	else if (event == CONNECTION_DOWN)
		session_lost(session, connection_error(connection));
}

static void session_up(struct session *session, struct connection *connection)
{
	int group = connection_portal_group(connection);

	session->connection = connection;
	connection_hand_over(connection, session_connection_event, session);
	session->heard_ms = session->up_ms = clock_ms();
	session->since_us = g_get_real_time();
	g_strfreev(session->keys);
	session->keys = g_strdupv(connection_keys(connection));
	session->noop_sent_ms = 0;
	session->time2wait_s = -1;
	session->changed_group = session->was_up && group >= 0 && session->portal_group >= 0 &&
	                         group != session->portal_group;
	session->portal_group = group >= 0 ? group : session->portal_group;
	session->reconnects += session->was_up;
	session->was_up = true;
	session_set_state(session, VERIFYING);
	session->fn(session, SESSION_UP, NULL, session->data);
}

/* The first login was put off: is there time for one more round? */
static bool session_may_try_again(const struct session *session)
{
	int64_t end = session->born_ms + session->login->login_timeout_ms;

	return route_due_ms(session->route) != INT64_MAX &&
	       clock_ms() + session_pause(session) < end;
}

static void session_round_is_over(struct session *session)
{
	session->rounds++;
	if (session->was_up || session_may_try_again(session)) {
		session_wait(session);
		return;
	}
	session_set_state(session, FAILED);
	session->fn(session, SESSION_FAILED, session->last_error, session->data);
}

static void session_note_refusal(struct session *session)
{
	log_debug_of(session_title(session), "%s", session->last_error);
	if (!session->refused || !session->was_up || session->told_refusal)
		return;
	session->told_refusal = true;
	log_warning_of(session_title(session),
	    "%s; this is tried again, after pauses that grow to a minute", session->last_error);
}

static void session_dialed(const struct dial_result *result, void *data)
{
	struct session *session = data;
	struct connection *connection = result->connection;

	if (connection == NULL)
		session_set_error(session, result->error);
	session->wants_secret = result->wants_secret;
	session->refused = dial_was_refused_for_long(result);
	route_note(session->route, result, !session->was_up);
	dial_free(g_steal_pointer(&session->dial));
	if (connection != NULL) {
		session_up(session, connection);
		return;
	}
	session_note_refusal(session);
	session_dial_next(session);
}

static void session_dial_stage(enum dial_stage stage, void *data)
{
	struct session *session = data;
	enum session_state state = stage == DIAL_RESOLVING    ? RESOLVING
	                           : stage == DIAL_CONNECTING ? CONNECTING
	                                                      : LOGGING_IN;

	/* From address to address it does not get on, nor when it is put off again and again. */
	if ((session->was_up || session->rounds == 0) &&
	    (stage == DIAL_LOGGING_IN || (stage == DIAL_CONNECTING && session->state == RESOLVING)))
		session->progress_ms = clock_ms();
	session_set_state(session, state);
}

/* Several portals share the time: a dead one costs less then. */
static unsigned session_dial_time(const struct session *session)
{
	const struct login *login = session->login;
	unsigned least = MIN(ATTEMPT_MIN_MS, login->login_timeout_ms);
	unsigned ms = MAX(login->login_timeout_ms / login->portals->len, least);

	/* One timer over the first login and what is tried again of it. */
	if (session->rounds > 0 && !session->was_up) {
		int64_t left = session->born_ms + login->login_timeout_ms - clock_ms();

		ms = (unsigned)CLAMP(left, (int64_t)least, (int64_t)ms);
	}
	return ms;
}

/* One attempt, at the portal whose turn it is; or the round is over. */
static void session_dial_next(struct session *session)
{
	const struct portal *portal = route_next(session->route);
	unsigned ms = session_dial_time(session);

	if (portal == NULL) {
		session_round_is_over(session);
		return;
	}
	session->last_outage.attempts++;
	session->dial = dial_start(&(struct dial_request){
	    .loop = session->loop,
	    .login = session->login,
	    .portal = portal,
	    .timeout_ms = ms,
	    .connect_ms = session->was_up ? CONNECT_MS : ms,
	    .stage = session_dial_stage,
	    .done = session_dialed,
	    .data = session,
	});
}

void session_verified(struct session *session)
{
	if (session->state != VERIFYING)
		return;
	session_set_state(session, READY);
	if (session->lost_ms == 0)
		return;
	session->last_outage.lasted_ms = clock_ms() - session->lost_ms;
	session->last_outage.over = true;
	session->lost_ms = 0;
}

/* ---- life ---- */

static void session_tick(void *data)
{
	struct session *session = data;

	if (!session_is_up(session))
		return;
	for (const struct session_reset *reset = session->resets; reset; reset = reset->next)
		if (clock_ms() >= reset->deadline_ms)
			connection_drop(session->connection, "no answer to LOGICAL UNIT RESET");
	commands_watch(session);
}

struct session *session_new(
    struct loop *loop, const struct login *login, session_event_fn fn, void *data)
{
	static const struct scsi_port_ops ops = {.execute = commands_execute};
	struct session *session = g_new0(struct session, 1);

	*session = (struct session){
	    .port = {.ops = &ops,
	        .write_burst = WRITE_BURST,
	        .command_timeout_ms = login->command_timeout_ms},
	    .loop = loop,
	    .login = login,
	    .fn = fn,
	    .data = data,
	    .route = route_new(login->portals),
	    .portal_group = -1,
	    .born_ms = clock_ms(),
	    .time2wait_s = -1,
	    .progress_ms = clock_ms(),
	    .tick = loop_ticker(loop, TICK_MS, session_tick, session),
	};
	commands_init(session);
	session_dial_next(session);
	return session;
}

struct scsi_port *session_port(struct session *session)
{
	return &session->port;
}

void session_free(struct session *session)
{
	if (session == NULL)
		return;
	session_set_state(session, CLOSED);
	loop_remove(&session->pause);
	loop_remove(&session->tick);
	loop_remove(&session->farewell);
	dial_free(session->dial);
	connection_free(g_steal_pointer(&session->connection));
	session_forget_resets(session);
	do /* what ends with this may bring more, and there will be no other turn */
		commands_return(session, -EIO);
	while (session->ended.first != NULL);
	commands_free(session);
	route_free(session->route);
	g_strfreev(session->keys);
	g_free(session->last_error);
	g_free(session->outage_reason);
	g_free(session);
}

/* ---- what it tells ---- */

bool session_is_ready(const struct session *session)
{
	return session->state == READY;
}

unsigned session_reconnects(const struct session *session)
{
	return session->reconnects;
}

bool session_changed_group(const struct session *session)
{
	return session->changed_group;
}

const char *session_state_name(const struct session *session)
{
	return state_names[session->state];
}

const char *session_address(const struct session *session)
{
	return session->connection != NULL ? connection_address(session->connection) : "";
}

const char *session_last_error(const struct session *session)
{
	return session->last_error != NULL ? session->last_error : "";
}

int64_t session_since_us(const struct session *session)
{
	return session->since_us;
}

const char *const *session_keys(const struct session *session)
{
	static const char *const none[] = {NULL};

	return session->keys != NULL ? (const char *const *)session->keys : none;
}

int64_t session_progress_ms(const struct session *session)
{
	return MAX(session->progress_ms, session->heard_ms);
}

bool session_was_refused(const struct session *session)
{
	return session->refused;
}

bool session_wants_secret(const struct session *session)
{
	return session->wants_secret;
}

unsigned session_outages(const struct session *session, struct outage *last)
{
	if (session->outages == 0)
		return 0;
	*last = session->last_outage;
	if (!last->over)
		last->lasted_ms = clock_ms() - session->lost_ms;
	return session->outages;
}

int64_t session_fleeting_ms(const struct session *session)
{
	return session->fleeting > 0 ? clock_ms() - session->fleeting_since_ms : 0;
}
