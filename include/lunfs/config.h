/*
 * config.h - what the user asked for, as plain structs: SOURCE, options, secrets, the initiator's
 * name.
 *
 * Everything here may fail with a GError of LUNFS_ERROR whose message is one line for the user:
 * what is wrong, where, and what to do.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lunfs/portal.h"

#define LUNFS_ERROR (g_quark_from_static_string("lunfs"))
enum lunfs_error {
	LUNFS_ERROR_USAGE = 2,  /* the words on the command line are wrong: exit status 2 */
	LUNFS_ERROR_FAILED = 1, /* they are right and it did not work: exit status 1 */
	LUNFS_ERROR_SECRET = 3, /* the same, for want of the right secret */
};

/* ---- SOURCE as a URL ---- */

/* iscsi://[user@]host[:port][/iqn[/lun]] (the URL of libiscsi and QEMU) */
struct source {
	char *text; /* as the user wrote it */
	char *user; /* CHAP user, or NULL */
	char *host; /* without brackets */
	uint16_t port;
	char *target; /* IQN, percent-decoded; NULL: every target of the portal */
	int lun;      /* -1: every LUN */
};

/* NULL and an error for anything else; a '%secret' in the user part is refused, naming the ways. */
struct source *source_parse(const char *text, GError **error);
/* HOST[:PORT] or iscsi://[user@]HOST[:PORT], as 'lunfs discover' takes it. */
struct source *source_parse_portal(const char *text, GError **error);
void source_free(struct source *source);

/* ---- options ---- */

#define OPTIONS_INFINITY 0xffffffffu
#define OPTIONS_AUTO     UINT64_MAX

enum cache_mode { CACHE_WRITEBACK, CACHE_WRITETHROUGH, CACHE_NONE };

/*
 * -o and the keys of a configuration file; the defaults are those of the table in DESIGN.md.
 * Durations in milliseconds, sizes in bytes. Those of the mount as a whole are allow_other,
 * allow_root, cache_size, fuse_options and log_level; all others may differ from target to target.
 */
struct options {
	bool read_only, allow_other, allow_root;
	bool shared; /* other hosts write to the LUN too: nothing acknowledged is sent again, and
	                nothing is cached */
	enum cache_mode cache;
	uint64_t cache_size;   /* of all LUNs together: what is cached and what is kept */
	unsigned dirty_expire; /* at this age dirty data is written out */
	uint64_t readahead;    /* limit of its windows; 0: none; OPTIONS_AUTO */
	uid_t uid;             /* of the files; the mounter's by default */
	gid_t gid;
	mode_t umask; /* 077 */
	unsigned login_timeout, command_timeout, noop_out_interval, noop_out_timeout;
	unsigned replacement_timeout; /* OPTIONS_INFINITY: for ever */
	bool header_digest;
	char *initiator_name;
	char *username, *password_file, *username_in, *password_in_file;
	char *password,
	    *password_in;   /* only from a configuration file that is its owner's alone; wiped */
	bool weak_secrets;  /* below 12 characters, too */
	char *fuse_options; /* what the kernel or libfuse shall see: "nosuid,nodev,...", or NULL */
	enum { LOG_AS_EVER, LOG_ERRORS, LOG_WARNINGS, LOG_INFOS, LOG_DEBUGS } log_level;
};

struct options *options_new(void);
/* "writeback", as it is written in "-o cache=". */
const char *cache_mode_name(enum cache_mode mode);
void options_free(struct options *options);
/*
 * Adds one "-o" argument: KEY[=VALUE],... with '\\,' for a comma in a value. Later keys win.
 * Unknown keys are errors that suggest the nearest one; what fstab and mount(8) pass through (x-*,
 * _netdev, nofail, user, defaults, noauto, ...) is dropped; nosuid, nodev, noexec, noatime and
 * their opposites go to fuse_options. A 'password=' is refused, naming the ways. 'shared' makes the
 * cache none, and excludes any other that is given.
 */
bool options_parse(struct options *options, const char *text, GError **error);
/* What was given stays given: what is parsed into the copy comes later. */
struct options *options_copy(const struct options *options);
/* Do two targets' options mean the same? Those of the mount as a whole are not looked at, nor those
 * that credentials come from. */
bool options_equal(const struct options *a, const struct options *b);

/* ---- secrets ---- */

/*
 * CHAP credentials from files and from libiscsi's environment (LIBISCSI_CHAP_USERNAME, _PASSWORD,
 * LIBISCSI_CHAP_TARGET_USERNAME, _TARGET_PASSWORD). The names are NULL where there are none.
 */
struct credentials {
	char *username, *password, *username_in, *password_in;
};

/* Takes the secrets out of the environment, so that no child and no other target ever sees them. */
struct credentials *credentials_from_environment(void);
/*
 * Those for one login: options before the user of SOURCE before the environment; secrets from the
 * options or their files, else from $CREDENTIALS_DIRECTORY, else from the environment. Refuses: a
 * file that others can read, an empty secret, a user without secret or the reverse, mutual without
 * one-way CHAP, equal secrets for both directions, less than 12 characters but with weak_secrets.
 * Warns of secrets outside 12 to 16.
 */
struct credentials *credentials_resolve(const struct options *options, const char *url_user,
    const struct credentials *environment, GError **error);
/* Wipes the secrets. */
void credentials_free(struct credentials *credentials);

/*
 * The initiator's name: the given one (checked), else InitiatorName= of
 * /etc/iscsi/initiatorname.iscsi where readable, else one made once per user and machine and kept
 * in $XDG_STATE_HOME/lunfs. Free with g_free().
 */
char *initiator_name_get(const char *given, GError **error);
/* Is it a name of RFC 7143, 4.2.7: iqn., eui. or naa.; at most 223 bytes. */
bool initiator_name_valid(const char *name);

/* ---- lunfs.conf ---- */

/* What is wrong in a configuration file. */
struct config_fault {
	char *file;
	unsigned line; /* 0: the file as a whole */
	char *key;     /* or NULL */
	char *text;    /* a sentence, with a suggestion where there is one */
};
/* "FILE:LINE: KEY: TEXT". Free with g_free(). */
char *config_fault_describe(const struct config_fault *fault);

struct config_section {
	char *name; /* of [target NAME] */
	char *file;
	unsigned line;
	GPtrArray *portals; /* of struct portal */
	char *iqn;
	GArray *luns;            /* of uint16_t, ascending; NULL: all there are */
	struct options *options; /* built in, [defaults] and the section's own */
	GHashTable *places;      /* private to src/config: where each of its keys is */
};
struct config {
	struct options *defaults; /* built in, and [defaults] */
	GPtrArray *sections;      /* of struct config_section, in order; names are unique */
	GPtrArray *unreadable;    /* of char *: files that there are but may not be read */
	GPtrArray *files;         /* of char *: those that were read */
	GHashTable *places;       /* private to src/config: where each key of defaults is */
};
/*
 * Reads files, ended by NULL, the most particular first: a section in one hides those of its name
 * in those after it, and its [defaults] go before theirs. A file that is not there is none. All
 * faults of all files are appended to faults (of struct config_fault), and if there are any the
 * result is NULL.
 */
struct config *config_read(const char *const *files, GPtrArray *faults);
void config_free(struct config *config);
/*
 * What else can be told without a network, appended as config_fault: files of secrets that are
 * missing, open to others or hold none that will do; and what is allowed but may not be meant: one
 * target in two sections, secrets of unusual length.
 */
void config_check(const struct config *config, GPtrArray *faults, GPtrArray *warnings);
/* For g_ptr_array_new_with_free_func(). */
void config_fault_free(gpointer fault);
/* $XDG_CONFIG_HOME/lunfs/lunfs.conf (else ~/.config's), /etc/lunfs/lunfs.conf. Free with
 * g_strfreev(). */
char **config_files(void);
/*
 * May it be a section's name, and so a directory's: not empty, no '/', ':', '[', ']', control
 * character or blank at an end, no leading '.' or '-', none of "all", "by-path", "by-id" and the
 * commands' names, at most 128 bytes of UTF-8? The sentence that says what is wrong, or NULL. Free
 * with g_free().
 */
char *config_name_fault(const char *name);
/*
 * As it is to stand in a file: "[target NAME]", its portals and iqn; extra are keys and values in
 * turn, ended by NULL, or NULL: "#" is a comment line above it. Free with g_free().
 */
char *config_format_section(
    const char *name, const GPtrArray *portals, const char *iqn, const char *const *extra);
/* A section's name for a target: its part behind the last ':' where that will do and is not in
 * taken (a set of names, to which it is added), else one made from all of it. Free with g_free().
 */
char *config_suggest_name(const char *iqn, GHashTable *taken);

/* ---- what to mount ---- */

/* One target of a mount: a section, a URL's, or one that a portal reported. */
struct target_plan {
	char *name; /* of its directory: the section's, or the IQN */
	char *iqn;
	GPtrArray *portals; /* of struct portal; at least one */
	GArray *luns;       /* of uint16_t, ascending; NULL: all there are */
	struct options *options;
	struct credentials *credentials; /* NULL: see fault */
	char *initiator_name;
	char *fault; /* why it cannot be logged in to: its secret's file is missing; or NULL */
	bool asked;  /* credentials hold what was typed: plan_again() keeps it */
};
/* Of what was ended by a newer plan, too. */
void target_plan_free(gpointer target);
bool target_plan_equal(const struct target_plan *a, const struct target_plan *b);

/* What SOURCE and -o mean, all told. */
struct plan {
	char *source;            /* as the user wrote it: the mount's fsname */
	struct options *options; /* of the mount as a whole */
	GPtrArray *targets;      /* of struct target_plan; empty where portal is set */
	/* Its targets are to be asked for: a target_plan without name, iqn and with the one portal,
	 * for each of them to be made after; or NULL. */
	struct target_plan *portal;
	bool several; /* each target has a directory of its own */
	bool all;     /* 'all': one that cannot be reached does not stop the others */
	bool one_lun; /* it may be mounted on a file */
	char **texts; /* the -o arguments, for plan_again() */

	/* private to plan.c: where the files are, and what a mount's process does not have any more
	 */
	char **files;
	char *directory;                 /* for relative paths in texts */
	struct credentials *environment; /* a copy, or NULL */
};
/*
 * SOURCE is a URL, a section's name or "all"; texts are the -o arguments, ended by NULL, or NULL.
 * Secrets are resolved here: from -o, the section, $CREDENTIALS_DIRECTORY, the environment (where
 * SOURCE means one target or portal), and the terminal where ask is set. Fails with all faults of
 * the configuration, a line each, or one sentence.
 */
struct plan *plan_make(const char *source, const char *const *texts,
    const struct credentials *environment, bool ask, GError **error);
/* The same, from what the files say now; secrets that came from the environment or the terminal
 * stay. */
struct plan *plan_again(const struct plan *plan, GError **error);
/* A target that the plan's portal reported; portals are copied. It is the caller's. */
struct target_plan *plan_add_reported(
    const struct plan *plan, const char *iqn, const GPtrArray *portals);
/* Asks for what a login was refused for: the user where none is known, and the secret; false where
 * there is no terminal or none is given. */
bool plan_ask_credentials(struct target_plan *target);
void plan_free(struct plan *plan);
