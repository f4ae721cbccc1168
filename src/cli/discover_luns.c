/*
 * discover_luns.c - logs in to a target, lists its LUNs, and logs out.
 *
 * All that 'lunfs discover' wants of struct target is here.
 */
#include "discover.h"
#include "lunfs/loop.h"
#include "lunfs/mount.h"

#define LOGOUT_MS 1000u

struct luns {
	const struct found *found;
	void (*done)(void *data);
	void *data;
	struct target_environment environment;
	struct target_plan *plan;
	struct target *target;
	char *error;
	bool closing;
};

static void luns_close(struct luns *luns)
{
	if (luns->closing)
		return;
	luns->closing = true;
	target_close(luns->target, LOGOUT_MS);
}

static void luns_event(
    struct target *target, enum target_event event, struct disk *disk, void *data)
{
	struct luns *luns = data;

	(void)disk;
	if (event == TARGET_CLOSED) {
		luns->done(luns->data);
	} else if (event == TARGET_SETTLED) {
		if (luns->error == NULL)
			luns->error = g_strdup(target_trouble(target));
		luns_close(luns);
	}
}

void luns_give_up(struct luns *luns)
{
	if (luns->closing)
		return;
	luns->error = g_strdup_printf(
	    "%s does not tell its LUNs in time: see -o login_timeout=", luns->found->name);
	luns_close(luns);
}

struct luns *luns_ask(const struct discover *discover, const struct found *found,
    void (*done)(void *data), void *data)
{
	g_autoptr(GPtrArray) portals = found_portals(found);
	struct luns *luns = g_new0(struct luns, 1);

	*luns = (struct luns){
	    .found = found,
	    .done = done,
	    .data = data,
	    .environment = {.loop = discover->loop},
	    .plan = plan_add_reported(found->asked->plan, found->name, portals),
	};
	luns->target = target_new(&luns->environment, luns->plan, luns_event, luns);
	return luns;
}

const struct lun_info *luns_list(const struct luns *luns, unsigned *count)
{
	*count = 0;
	return luns->error == NULL ? target_luns(luns->target, count) : NULL;
}

const char *luns_error(const struct luns *luns)
{
	return luns->error;
}

void luns_free(struct luns *luns)
{
	if (luns == NULL)
		return;
	target_free(luns->target);
	target_plan_free(luns->plan);
	g_free(luns->error);
	g_free(luns);
}
