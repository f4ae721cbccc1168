/*
 * target.c - a target: its session, what the probe found, and its disks.
 *
 * When the session was lost and is back, each disk is proved to be the same before it goes on, each
 * at its own pace (SAFETY.md 14, 18); when all have had their verdict the outage is over.
 */
#include "disk.h"
#include "lunfs/log.h"
#include "lunfs/loop.h"

/* A session that is taken away as soon as it stands, again and again, for replacement_timeout and
 * for so long at least, is of no use. */
#define FLEETING_MIN_MS 60000

struct target {
	struct loop *loop;
	struct login login;
	char *name;
	GPtrArray *portals;
	int lun;
	void (*probed)(struct target *target, const char *error, void *data);
	void (*closed)(void *data);
	void *data;

	struct session *session;
	struct probe *probe;
	GArray *luns; /* of struct lun_info */
	GPtrArray *disks;
	const struct options *options;
	uint64_t resent_before; /* the last outage */
	bool reported;          /* that it is over */
	struct log_limit log;
};

static void target_session_event(
    struct session *session, enum session_event event, const char *text, void *data);
static void target_session_up(struct target *target);

/* ---- log in and probe ---- */

void target_login_fill(const struct target_login *from, struct login *login)
{
	const struct options *options = from->options;

	login->initiator_name = from->initiator_name;
	login->isid_random = from->isid_random;
	login->username = from->credentials->username;
	login->password = from->credentials->password;
	login->username_in = from->credentials->username_in;
	login->password_in = from->credentials->password_in;
	login->header_digest = options->header_digest;
	login->login_timeout_ms = options->login_timeout;
	login->command_timeout_ms = options->command_timeout;
	login->noop_interval_ms = options->noop_out_interval;
	login->noop_timeout_ms = options->noop_out_timeout;
}

static void target_tell(struct target *target, const char *error)
{
	void (*probed)(struct target * target, const char *error, void *data) = target->probed;

	target->probed = NULL;
	if (probed != NULL)
		probed(target, error, target->data);
}

static void target_probed(
    const struct lun_info *luns, unsigned count, const char *error, void *data)
{
	struct target *target = data;

	if (target->disks != NULL) { /* they were made from what an earlier session showed */
		if (error == NULL)
			target_session_up(target);
		return;
	}
	/* Another target's probe may take longer than this session lasts: it is asked again then.
	 */
	g_array_set_size(target->luns, 0);
	if (error == NULL) {
		g_array_append_vals(target->luns, luns, count);
		session_verified(target->session);
	}
	target_tell(target, error);
}

static void target_probe(struct target *target)
{
	probe_free(target->probe);
	target->probe = probe_start(
	    session_port(target->session), target->loop, target->lun, target_probed, target);
}

/* ---- lost and back ---- */

uint64_t target_resent(const struct target *target, uint64_t *since_outage)
{
	uint64_t resent = 0;

	for (unsigned i = 0; target->disks != NULL && i < target->disks->len; i++) {
		const struct disk *disk = g_ptr_array_index(target->disks, i);

		resent += nexus_resent(disk->nexus) + retain_stats(disk->retain)->resent_writes;
	}
	if (since_outage != NULL)
		*since_outage = resent - target->resent_before;
	return resent;
}

bool target_is_idle(const struct target *target)
{
	for (unsigned i = 0; target->disks != NULL && i < target->disks->len; i++) {
		const struct disk *disk = g_ptr_array_index(target->disks, i);

		if ((disk->cache != NULL && !cache_is_idle(disk->cache)) ||
		    !retain_is_idle(disk->retain))
			return false;
	}
	return true;
}

static void target_tell_back(struct target *target)
{
	struct outage outage;
	uint64_t kept = 0;

	if (session_outages(target->session, &outage) == 0 || !outage.over || target->reported)
		return;
	target->reported = true;
	if (!log_limit_passes(&target->log, target->name))
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
	log_info("%s: logged in again at %s after %.1f s (attempt %u)%s", target->name,
	    session_address(target->session), (double)outage.lasted_ms / 1000, outage.attempts,
	    again);
}

void target_disk_answered(struct target *target)
{
	for (unsigned i = 0; i < target->disks->len; i++) {
		const struct disk *disk = g_ptr_array_index(target->disks, i);

		if (disk->state == DISK_AWAY || disk->state == DISK_ASKED)
			return;
	}
	session_verified(target->session);
	target_tell_back(target);
}

static void target_session_up(struct target *target)
{
	if (target->disks == NULL) {
		target_probe(target);
		return;
	}
	for (unsigned i = 0; i < target->disks->len; i++)
		disk_session_up(g_ptr_array_index(target->disks, i));
	if (target->disks->len == 0)
		session_verified(target->session);
}

static bool target_is_fleeting(const struct target *target)
{
	unsigned limit = target->options->replacement_timeout;

	return limit != OPTIONS_INFINITY &&
	       session_fleeting_ms(target->session) > MAX(limit, FLEETING_MIN_MS);
}

static void target_session_lost(struct target *target)
{
	target->resent_before = target_resent(target, NULL);
	target->reported = false;
	probe_session_lost(target->probe);
	if (target->disks == NULL && target->probe != NULL && !probe_is_busy(target->probe))
		target_tell(target, session_last_error(target->session));
	for (unsigned i = 0; target->disks != NULL && i < target->disks->len; i++) {
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
		target_tell(target, text);
		break;
	case SESSION_CLOSED:
		target->closed(target->data);
		break;
	}
}

struct target *target_new(struct loop *loop, const struct target_login *login, const char *name,
    GPtrArray *portals, unsigned number, int lun,
    void (*probed)(struct target *target, const char *error, void *data), void *data)
{
	struct target *target = g_new0(struct target, 1);

	*target = (struct target){
	    .loop = loop,
	    .name = g_strdup(name),
	    .portals = portals,
	    .lun = lun,
	    .probed = probed,
	    .data = data,
	    .options = login->options,
	    .luns = g_array_new(FALSE, FALSE, sizeof(struct lun_info)),
	};
	target_login_fill(login, &target->login);
	target->login.target = target->name;
	target->login.isid_qualifier = (uint16_t)number;
	target->login.portals = portals;
	target->session = session_new(loop, &target->login, target_session_event, target);
	return target;
}

const char *target_name(const struct target *target)
{
	return target->name;
}

struct loop *target_loop(const struct target *target)
{
	return target->loop;
}

struct session *target_session(const struct target *target)
{
	return target->session;
}

const struct lun_info *target_luns(const struct target *target, unsigned *count)
{
	*count = target->luns->len;
	return (const struct lun_info *)(void *)target->luns->data;
}

/* ---- disks ---- */

GPtrArray *target_make_disks(struct target *target, struct pool *pool, struct retain_memory *memory,
    struct cache_memory *cache_memory, const struct options *options)
{
	const struct disk_environment environment = {
	    .loop = target->loop,
	    .pool = pool,
	    .memory = memory,
	    .cache_memory = cache_memory,
	    .options = options,
	    .session = target->session,
	};

	target->disks = g_ptr_array_new_with_free_func(disk_destroy);
	for (unsigned i = 0; i < target->luns->len; i++) {
		const struct lun_info *info = &g_array_index(target->luns, struct lun_info, i);

		if (scsi_type_is_block(info->type) && info->fault[0] == '\0')
			g_ptr_array_add(target->disks, disk_make(target, &environment, info));
	}
	/* It may have been lost since the probe; they are proved when it is back. */
	for (unsigned i = 0; !session_is_ready(target->session) && i < target->disks->len; i++)
		disk_session_lost(g_ptr_array_index(target->disks, i));
	return target->disks;
}

const GPtrArray *target_disks(const struct target *target)
{
	return target->disks;
}

/* ---- disks that are one LUN ---- */

/* The first disk that is the same LUN and can be written, or where none can, the first. */
static struct disk *find_first(const GPtrArray *targets, const struct disk *like)
{
	struct disk *first = NULL;

	for (unsigned i = 0; i < targets->len; i++) {
		const GPtrArray *disks = target_disks(g_ptr_array_index(targets, i));

		for (unsigned k = 0; disks != NULL && k < disks->len; k++) {
			struct disk *disk = g_ptr_array_index(disks, k);

			if (!disk_is_same_lun(disk, like))
				continue;
			if (!disk->read_only)
				return disk;
			if (first == NULL)
				first = disk;
		}
	}
	return first;
}

void targets_find_twins(const GPtrArray *targets)
{
	for (unsigned i = 0; i < targets->len; i++) {
		const GPtrArray *disks = target_disks(g_ptr_array_index(targets, i));

		for (unsigned k = 0; disks != NULL && k < disks->len; k++) {
			struct disk *disk = g_ptr_array_index(disks, k);
			struct disk *first = find_first(targets, disk);

			if (first == NULL || first == disk)
				continue;
			disk->twin = first;
			g_autofree char *name = disk_full_name(first);
			log_info("%s of %s is the same LUN as %s, and goes its way", disk->name,
			    target_name(disk->target), name);
		}
	}
}

/* ---- the end ---- */

void target_close(
    struct target *target, unsigned timeout_ms, void (*closed)(void *data), void *data)
{
	target->closed = closed;
	target->data = data;
	for (unsigned i = 0; target->disks != NULL && i < target->disks->len; i++)
		disk_close(g_ptr_array_index(target->disks, i));
	session_close(target->session, timeout_ms);
}

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

void target_free(struct target *target)
{
	if (target == NULL)
		return;
	target->probed = NULL;
	session_free(target->session);
	probe_free(target->probe);
	if (target->disks != NULL)
		g_ptr_array_unref(target->disks);
	g_array_unref(target->luns);
	g_ptr_array_unref(target->portals);
	g_free(target->name);
	g_free(target);
}
