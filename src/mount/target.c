/*
 * target.c - a target: its session, what the probe found, and a stack of blocks for each disk.
 *
 *   file -> align -> disk -> session
 *
 * The portals are tried in turn until the first login; from then on the session keeps to its own.
 * When it was lost and is back, each disk is proved to be the same before it goes on (SAFETY.md
 * 14).
 */
#include <string.h>

#include "lunfs/log.h"
#include "lunfs/loop.h"
#include "lunfs/mount.h"

/* How long a target that is back gets to show a disk, before it is asked again. */
#define RECHECK_MS 2000u

struct target {
	struct loop *loop;
	struct login login;
	char *name;
	GPtrArray *portals;
	unsigned next_portal;
	int lun;
	void (*probed)(struct target *target, const char *error, void *data);
	void (*closed)(void *data);
	void *data;

	struct session *session;
	struct probe *probe;
	GSource *recheck; /* disks that were not seen again */
	bool probed_again;
	struct loop_work retry; /* at the next portal: not from inside the session's event */
	GArray *luns;           /* of struct lun_info */
	GPtrArray *disks;
};

static void target_session_event(
    struct session *session, enum session_event event, const char *text, void *data);

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

static void target_try_portal(struct loop_work *work)
{
	struct target *target = (struct target *)((char *)work - offsetof(struct target, retry));
	const struct portal *portal = g_ptr_array_index(target->portals, target->next_portal++);

	session_free(target->session);
	target->login.portal = *portal;
	target->session = session_new(target->loop, &target->login, target_session_event, target);
}

static void target_first_probe_done(
    struct target *target, const struct lun_info *luns, unsigned count, const char *error)
{
	/* Another target's probe may take longer than this session lasts: it is asked again then.
	 */
	g_array_set_size(target->luns, 0);
	if (error == NULL)
		g_array_append_vals(target->luns, luns, count);
	target_tell(target, error);
}

static void target_probe_again(void *data);

/* After a loss: is each disk still the one it was? False while one is not seen to be. */
static bool target_verify_disks(struct target *target, const struct lun_info *luns, unsigned count)
{
	bool all = true;

	for (unsigned i = 0; i < target->disks->len; i++) {
		struct disk *disk = g_ptr_array_index(target->disks, i);
		bool same = false;

		for (unsigned k = 0; k < count && !disk->verified; k++)
			if (luns[k].lun == disk->info.lun && luns[k].fault[0] == '\0')
				same = disk_verify(disk->scsi, &luns[k]);
		disk->verified |= same;
		if (!disk->verified && !target->probed_again)
			log_warning("%s: %s is not there again yet", target->name, disk->name);
		all &= disk->verified;
	}
	return all;
}

static void target_probe_done(
    const struct lun_info *luns, unsigned count, const char *error, void *data)
{
	struct target *target = data;

	if (target->disks == NULL) {
		target_first_probe_done(target, luns, count, error);
		return;
	}
	if (error != NULL && !target->probed_again)
		log_warning("%s: %s", target->name, error);
	if (error == NULL && target_verify_disks(target, luns, count))
		return;
	/* A target that restarts shows its LUNs when it is ready to. */
	target->probed_again = true;
	loop_remove(&target->recheck);
	target->recheck = loop_timer(target->loop, RECHECK_MS, target_probe_again, target);
}

static void target_probe(struct target *target)
{
	loop_remove(&target->recheck);
	probe_free(target->probe);
	target->probe = probe_start(
	    session_port(target->session), target->loop, target->lun, target_probe_done, target);
}

static void target_probe_again(void *data)
{
	target_probe(data);
}

static void target_session_lost(struct target *target)
{
	loop_remove(&target->recheck);
	target->probed_again = false;
	for (unsigned i = 0; target->disks != NULL && i < target->disks->len; i++) {
		struct disk *disk = g_ptr_array_index(target->disks, i);

		disk->verified = false;
		disk_port_lost(disk->scsi);
	}
}

static void target_session_event(
    struct session *session, enum session_event event, const char *text, void *data)
{
	struct target *target = data;

	(void)session;
	switch (event) {
	case SESSION_READY:
		target_probe(target);
		break;
	case SESSION_LOST:
		target_session_lost(target);
		break;
	case SESSION_FAILED:
		if (target->next_portal < target->portals->len)
			loop_defer(target->loop, &target->retry);
		else
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
	    .retry.run = target_try_portal,
	    .luns = g_array_new(FALSE, FALSE, sizeof(struct lun_info)),
	};
	target_login_fill(login, &target->login);
	target->login.target = target->name;
	target->login.isid_qualifier = (uint16_t)number;
	target_try_portal(&target->retry);
	return target;
}

const char *target_name(const struct target *target)
{
	return target->name;
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

static void disk_free(gpointer data)
{
	struct disk *disk = data;

	block_free(disk->top);
	g_free(disk->name);
	g_free(disk);
}

GPtrArray *target_make_disks(struct target *target, struct pool *pool, bool read_only)
{
	target->disks = g_ptr_array_new_with_free_func(disk_free);
	for (unsigned i = 0; i < target->luns->len; i++) {
		const struct lun_info *info = &g_array_index(target->luns, struct lun_info, i);

		if (!scsi_type_is_block(info->type) || info->fault[0] != '\0')
			continue;
		struct disk *disk = g_new0(struct disk, 1);
		disk->info = *info;
		disk->name = g_strdup_printf(
		    "lun%u.%s", (unsigned)info->lun, info->type == SCSI_TYPE_CD ? "iso" : "img");
		disk->read_only = read_only || info->write_protected;
		disk->scsi = disk_new(
		    target->loop, session_port(target->session), info, disk->name, disk->read_only);
		disk->top = align_new(disk->scsi, target->loop, pool);
		g_ptr_array_add(target->disks, disk);
	}
	return target->disks;
}

const GPtrArray *target_disks(const struct target *target)
{
	return target->disks;
}

/* ---- the end ---- */

void target_close(
    struct target *target, unsigned timeout_ms, void (*closed)(void *data), void *data)
{
	target->closed = closed;
	target->data = data;
	loop_remove(&target->recheck);
	loop_cancel(target->loop, &target->retry);
	session_close(target->session, timeout_ms);
}

static void portal_clear(gpointer data, gpointer user_data)
{
	struct portal *portal = data;

	(void)user_data;
	g_free(portal->host);
	g_free(portal);
}

void target_free(struct target *target)
{
	if (target == NULL)
		return;
	loop_cancel(target->loop, &target->retry);
	loop_remove(&target->recheck);
	target->probed = NULL;
	session_free(target->session);
	probe_free(target->probe);
	if (target->disks != NULL)
		g_ptr_array_unref(target->disks);
	g_array_unref(target->luns);
	g_ptr_array_foreach(target->portals, portal_clear, NULL);
	g_ptr_array_unref(target->portals);
	g_free(target->name);
	g_free(target);
}
