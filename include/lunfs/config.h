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

#define LUNFS_ERROR (g_quark_from_static_string("lunfs"))
enum lunfs_error {
	LUNFS_ERROR_USAGE = 2,  /* the words on the command line are wrong: exit status 2 */
	LUNFS_ERROR_FAILED = 1, /* they are right and it did not work: exit status 1 */
};

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

#define OPTIONS_INFINITY 0xffffffffu
#define OPTIONS_AUTO     UINT64_MAX

enum cache_mode { CACHE_WRITEBACK, CACHE_WRITETHROUGH, CACHE_NONE };

/* -o, by key; the defaults are those of the table in DESIGN.md. Durations in milliseconds, sizes in
 * bytes. */
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
 * files of the options, else from the environment. Refuses: a file that others can read, an empty
 * secret, a user without secret or the reverse, mutual without one-way CHAP, equal secrets for both
 * directions. Warns of secrets outside 12 to 16 characters.
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
