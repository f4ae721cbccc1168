/*
 * discover.h - what 'lunfs discover' finds out, and how it is told; private to src/cli.
 *
 *   discover.c         the command: asks the portals, then the targets
 *   discover_luns.c    logs in to a target and lists its LUNs
 *   discover_print.c   lines and table, --json, --config
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "lunfs/config.h"
#include "lunfs/iscsi.h"
#include "lunfs/scsi.h"

struct discover;
struct loop;
struct luns;

/* A portal on the command line. */
struct asked {
	struct discover *discover;
	struct source *source;
	const struct plan *plan; /* its portal: what to log in with; shared by those of one user */
	GPtrArray *portals;      /* itself, for the login */
	struct login login;
	struct discovery *discovery;
	char *error;        /* why there is no answer, or NULL */
	GPtrArray *targets; /* of struct discovered_target: what it reported, or NULL */
	unsigned count;     /* of these */
};

/* A target, as all portals that were asked report it. */
struct found {
	char *name;
	GPtrArray *portals;        /* of struct discovered_portal; each HOST:PORT,TPGT once */
	const struct asked *asked; /* the first that reported it */
	struct luns *luns;         /* NULL: they were not asked for */
};

struct discover {
	struct loop *loop;
	GPtrArray *asked, *found;
	GHashTable *by_name; /* the same as found */
	bool with_luns;
	GPtrArray *plans;      /* of struct plan */
	struct options *given; /* -o alone */
	/* Where secrets came from, if any was used. */
	bool secret_of_environment, secret_in_of_environment;

	unsigned unanswered; /* portals */
	unsigned next;       /* of found: whose LUNs are to be asked for */
	unsigned unfinished; /* targets that are being asked */
	GSource *timer;      /* over those */
	bool late;           /* no more are to be begun */
};

/* The portals to log in to, of struct portal: that which was asked first where the target lists it,
 * else last; without those that name no address. */
GPtrArray *found_portals(const struct found *found);

/* ---- LUNs (discover_luns.c) ---- */

/*
 * Logs in to found and lists its LUNs; done() is called once
 * when there is nothing more to come and it has logged out, never from inside.
 */
struct luns *luns_ask(const struct discover *discover, const struct found *found,
    void (*done)(void *data), void *data);
/* It takes too long: done() follows. */
void luns_give_up(struct luns *luns);
/* NULL and the sentence that says why, after done(). */
const struct lun_info *luns_list(const struct luns *luns, unsigned *count);
const char *luns_error(const struct luns *luns);
void luns_free(struct luns *luns);

/* ---- output (discover_print.c) ---- */

char *discover_format_lines(const struct discover *discover);
char *discover_format_json(const struct discover *discover);
char *discover_format_config(const struct discover *discover);
