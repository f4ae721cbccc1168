/*
 * target.c - a target: its session, which LUNs it has, and its disks.
 *
 *              session fails                        session lost, and back: each disk proves itself
 *   TRYING -----------------> FAILED                +------+
 *     ^  |                      |                   v      |
 *     |  +--- LUNs known -------|----------------> KNOWN --+
 *     +------- after a pause ---+
 *
 *   any --target_close()--> CLOSING --> CLOSED
 *
 * TRYING lasts from the first dial to the first list of LUNs, over as many sessions as that takes.
 * Where a session was never had it is tried again after pauses that grow. In KNOWN the list is
 * asked for again when the target says that it has changed, after each loss, and now and then
 * (target_luns.c).
 *
 * When the session was lost and is back, each disk is proved to be the same before it goes on, each
 * at its own pace (SAFETY.md 14, 18); when all have had their verdict the outage is over.
 */
#include "target.h"

#include <string.h>
#include <sys/random.h>

#include "isid.h"
#include "lunfs/loop.h"

/* A session that is taken away as soon as it stands, again and again, for replacement_timeout and
 * for so long at least, is of no use. */
#define FLEETING_MIN_MS 60000u
/* Between tries: of who could not be reached, or takes no login now, and of who said no to us,
 * which might lock us out. */
#define RETRY_MIN_MS         500u
#define RETRY_MAX_MS         10000u
#define RETRY_REFUSED_MIN_MS 10000u
#define RETRY_REFUSED_MAX_MS 60000u

static void target_session_event(
    struct session *session, enum session_event event, const char *text, void *data);

void target_tell(struct target *target, enum target_event event, struct disk *disk)
{
	target->fn(target, event, disk, target->data);
}

void target_set_trouble(struct target *target, const char *trouble)
{
	char *copy = g_strdup(trouble);

	g_free(target->trouble);
	target->trouble = copy;
}

void target_settle(struct target *target)
{
	target->settled = true;
	target_tell(target, TARGET_SETTLED, NULL);
}

/* ---- log in ---- */

static void target_dial(struct target *target)
{
	target->state = TARGET_TRYING;
	target->session =
	    session_new(target->environment->loop, &target->login, target_session_event, target);
}

void target_try_again(struct target *target)
{
	loop_remove(&target->retry);
	session_free(g_steal_pointer(&target->session));
	target_dial(target);
}

static void target_pause_over(void *data)
{
	target_try_again(data);
}

static void target_failed(struct target *target, const char *text)
{
	bool refused = session_was_refused(target->session);
	unsigned least = refused ? RETRY_REFUSED_MIN_MS : RETRY_MIN_MS;
	unsigned most = refused ? RETRY_REFUSED_MAX_MS : RETRY_MAX_MS;
	uint32_t jitter = 0;

	target->state = TARGET_FAILED;
	target->wants_secret = session_wants_secret(target->session);
	target_set_trouble(target, text);
	target->pause_ms = CLAMP(target->pause_ms + target->pause_ms / 2, least, most);
	/* not all of them in step */
	if (getrandom(&jitter, sizeof jitter, GRND_NONBLOCK) < 0)
		jitter = 0;
	target->retry = loop_timer(target->environment->loop,
	    target->pause_ms - jitter % (target->pause_ms / 4), target_pause_over, target);
	target_settle(target);
}

/* ---- lost and back ---- */

static void target_tell_back(struct target *target)
{
	struct outage outage;
	uint64_t kept = 0;

	if (session_outages(target->session, &outage) == 0 || !outage.over || target->reported)
		return;
	target->reported = true;
	if (!log_limit_passes(&target->log, target_name(target)))
		return;
	for (unsigned i = 0; i < target->disks->len; i++) {
		const struct disk *disk = g_ptr_array_index(target->disks, i);

		kept += retain_stats(disk->retain)->kept;
	}
	g_autofree char *size = g_format_size_full(kept, G_FORMAT_SIZE_IEC_UNITS);
	g_autofree char *again =
	    kept > 0 ? g_strdup_printf(
	                   "; %s that were not yet on stable storage are written again", size)
	             : g_strdup("");
	log_info_of(target_name(target), "logged in again at %s after %.1f s (attempt %u)%s",
	    session_address(target->session), (double)outage.lasted_ms / 1000, outage.attempts,
	    again);
}

static void target_verified(struct target *target)
{
	session_verified(target->session);
	target_tell_back(target);
	target_luns_ask(target);
}

void target_disk_answered(struct target *target)
{
	if (target->verified)
		return;
	for (unsigned i = 0; i < target->disks->len; i++) {
		const struct disk *disk = g_ptr_array_index(target->disks, i);

		if (disk->state == DISK_AWAY || disk->state == DISK_ASKED)
			return;
	}
	target->verified = true;
	target_verified(target);
}

static void target_session_up(struct target *target)
{
	target->up = true;
	if (target->state == TARGET_TRYING) {
		target_luns_ask(target);
		return;
	}
	for (unsigned i = 0; i < target->disks->len; i++)
		disk_session_up(g_ptr_array_index(target->disks, i));
	if (target->disks->len == 0)
		target_disk_answered(target);
}

static bool target_is_fleeting(const struct target *target)
{
	unsigned limit = target_options(target)->replacement_timeout;

	return limit != OPTIONS_INFINITY &&
	       session_fleeting_ms(target->session) > MAX(limit, FLEETING_MIN_MS);
}

static void target_session_lost(struct target *target)
{
	target->resent_before = target_resent(target, NULL);
	target->reported = target->verified = target->up = false;
	target_luns_session_lost(target);
	for (unsigned i = 0; i < target->disks->len; i++) {
		struct disk *disk = g_ptr_array_index(target->disks, i);

		disk_session_lost(disk);
		if (target_is_fleeting(target))
			disk_give_up(disk,
			    "the session is taken away again and again: does another initiator use "
			    "this name and ISID? I/O fails until it stands");
	}
}

static void target_session_event(
    struct session *session, enum session_event event, const char *text, void *data)
{
	struct target *target = data;

	(void)session;
	switch (event) {
	case SESSION_UP:
		target_session_up(target);
		break;
	case SESSION_LOST:
		target_session_lost(target);
		break;
	case SESSION_FAILED:
		target_failed(target, text);
		break;
	case SESSION_TOLD:
		target_luns_ask(target);
		break;
	case SESSION_CLOSED:
		target->state = TARGET_CLOSED_ALREADY;
		target_tell(target, TARGET_CLOSED, NULL);
		break;
	}
}

/* ---- life ---- */

static void target_fill_login(struct target *target)
{
	const struct target_environment *environment = target->environment;
	const struct target_plan *plan = target->plan;
	struct login *login = &target->login;

	target_login_fill(plan, login);
	login->target = plan->iqn;
	login->title = plan->name;
	login->portals = plan->portals;
	if (environment->isid != NULL) {
		login->isid_random = isid_random(environment->isid, plan->name);
		login->isid_qualifier = isid_qualifier(environment->isid, plan->name);
	}
}

void target_login_fill(const struct target_plan *plan, struct login *login)
{
	const struct options *options = plan->options;
	const struct credentials *credentials = plan->credentials;

	*login = (struct login){
	    .initiator_name = plan->initiator_name,
	    .username = credentials->username,
	    .password = credentials->password,
	    .username_in = credentials->username_in,
	    .password_in = credentials->password_in,
	    .header_digest = options->header_digest,
	    .login_timeout_ms = options->login_timeout,
	    .command_timeout_ms = options->command_timeout,
	    .noop_interval_ms = options->noop_out_interval,
	    .noop_timeout_ms = options->noop_out_timeout,
	};
	if (getrandom(&login->isid_random, sizeof login->isid_random, 0) < 0)
		login->isid_random = (uint32_t)clock_us();
	login->isid_random &= 0xffffff;
}

/* The configuration says already that it cannot be used. */
static void target_faulty(void *data)
{
	struct target *target = data;

	loop_remove(&target->retry);
	target_settle(target);
}

struct target *target_new(const struct target_environment *environment,
    const struct target_plan *plan, target_event_fn fn, void *data)
{
	struct target *target = g_new0(struct target, 1);

	*target = (struct target){
	    .environment = environment,
	    .plan = plan,
	    .fn = fn,
	    .data = data,
	    .born_ms = clock_ms(),
	    .disks = g_ptr_array_new(),
	    .going = g_ptr_array_new(),
	};
	target_luns_init(target);
	if (plan->credentials != NULL) {
		target_fill_login(target);
		target_dial(target);
	} else {
		target->state = TARGET_FAILED;
		target_set_trouble(target, plan->fault);
		target->retry = loop_timer(environment->loop, 0, target_faulty, target);
	}
	return target;
}

static void target_closed_without_session(void *data)
{
	struct target *target = data;

	loop_remove(&target->retry);
	target->state = TARGET_CLOSED_ALREADY;
	target_tell(target, TARGET_CLOSED, NULL);
}

void target_close(struct target *target, unsigned timeout_ms)
{
	bool without_session =
	    target->state == TARGET_FAILED || target->state == TARGET_CLOSED_ALREADY;

	if (target->state == TARGET_CLOSING)
		return; /* CLOSED is to come */
	loop_remove(&target->retry);
	target_luns_stop(target);
	target->state = TARGET_CLOSING;
	for (unsigned i = 0; i < target->disks->len; i++)
		disk_close(g_ptr_array_index(target->disks, i));
	if (!without_session)
		session_close(target->session, timeout_ms);
	else
		target->retry =
		    loop_timer(target->environment->loop, 0, target_closed_without_session, target);
}

bool target_is_idle(const struct target *target)
{
	for (unsigned i = 0; i < target->disks->len; i++)
		if (!disk_is_idle(g_ptr_array_index(target->disks, i)))
			return false;
	for (unsigned i = 0; i < target->going->len; i++)
		if (!disk_is_idle(g_ptr_array_index(target->going, i)))
			return false;
	return true;
}

void target_free(struct target *target)
{
	if (target == NULL)
		return;
	loop_remove(&target->retry);
	target_luns_stop(target);
	session_free(target->session);
	target_luns_free(target);
	g_ptr_array_set_free_func(target->disks, disk_destroy);
	g_ptr_array_unref(target->disks);
	g_ptr_array_set_free_func(target->going, disk_destroy);
	g_ptr_array_unref(target->going);
	g_free(target->trouble);
	g_free(target);
}

/* ---- what it tells ---- */

const struct target_plan *target_plan(const struct target *target)
{
	return target->plan;
}

const struct options *target_options(const struct target *target)
{
	return target->plan->options;
}

const char *target_name(const struct target *target)
{
	return target->plan->name;
}

struct session *target_session(const struct target *target)
{
	return target->state == TARGET_FAILED ? NULL : target->session;
}

const char *target_state(const struct target *target)
{
	const struct session *session = target_session(target);

	return session != NULL ? session_state_name(session) : "failed";
}

const char *target_trouble(const struct target *target)
{
	return target->trouble;
}

bool target_wants_secret(const struct target *target)
{
	return target->wants_secret;
}

bool target_is_settled(const struct target *target)
{
	return target->settled;
}

int64_t target_progress_ms(const struct target *target)
{
	return target->session != NULL ? session_progress_ms(target->session) : target->born_ms;
}

const GPtrArray *target_disks(const struct target *target)
{
	return target->disks;
}

struct loop *target_loop(const struct target *target)
{
	return target->environment->loop;
}

uint64_t target_resent(const struct target *target, uint64_t *since_outage)
{
	uint64_t resent = 0;

	for (unsigned i = 0; i < target->disks->len; i++) {
		const struct disk *disk = g_ptr_array_index(target->disks, i);

		resent += nexus_resent(disk->nexus) + retain_stats(disk->retain)->resent_writes;
	}
	if (since_outage != NULL)
		*since_outage = resent - target->resent_before;
	return resent;
}
