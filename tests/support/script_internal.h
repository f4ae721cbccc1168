/*
 * script_internal.h - what the rooms of the scripted target share.
 *
 *   script_target.c   the thread, connections, power       script_login.c  logins
 *   script_control.c  what tests set and ask               script_keys.c   what their keys say
 *   script_wire.c     PDUs in and out                      script_chap.c   their proofs
 *   script_traffic.c  what passed, and hooks into it       script_text.c   text, discovery
 *   script_task.c     commands and their data              script_answer.c how commands end
 *   script_digest.c   CRC32C                               script_disk.c   what disks hold and do
 *
 * The target's thread holds the lock but while it polls; a command of the test takes it, changes
 * what there is, and wakes the thread. Connections are freed by the thread alone, sessions with the
 * target. A task is in target->tasks from its PDU to its end, and nowhere else.
 */
#pragma once

#include "support/script_target.h"
#include "support/script_traffic.h"

#include <glib.h>
#include <poll.h>
#include <pthread.h>

#define BHS_SIZE     48 /* basic header segment */
#define NO_TAG       0xffffffffu
#define DUE_NEVER    INT64_MAX
#define LOGIN_DATA   65536u   /* of one login or text PDU */
#define LIMIT_BEHIND 4194304u /* bytes that wait to be parsed */

enum {
	OP_NOP_OUT = 0x00,
	OP_COMMAND = 0x01,
	OP_MANAGEMENT = 0x02,
	OP_LOGIN = 0x03,
	OP_TEXT = 0x04,
	OP_DATA_OUT = 0x05,
	OP_LOGOUT = 0x06,
	OP_SNACK = 0x10,
	OP_NOP_IN = 0x20,
	OP_RESPONSE = 0x21,
	OP_MANAGED = 0x22,
	OP_LOGIN_RESPONSE = 0x23,
	OP_TEXT_RESPONSE = 0x24,
	OP_DATA_IN = 0x25,
	OP_LOGOUT_RESPONSE = 0x26,
	OP_R2T = 0x31,
	OP_ASYNC = 0x32,
	OP_REJECT = 0x3f,
};

struct script_attention {
	unsigned lun;
	uint8_t asc, ascq;
};

/* An I_T nexus, in use or over. */
struct script_session {
	unsigned number; /* from 1; also its TSIH */
	char *initiator;
	uint8_t isid[6];
	uint16_t tag;
	bool discovery;
	struct script_connection *connection; /* NULL: over */
	uint32_t expected_cmdsn, max_cmdsn;   /* the latter as told */
	GArray *attentions;                   /* of struct script_attention */
	bool aborted; /* a task was: Data-Out for an unknown one is no fault */
};

/* An answer in several PDUs; text: NULL where none is under way. */
struct script_parts {
	GByteArray *text;
	guint sent;
	uint32_t cut, ttt, itt;
	bool stay; /* of a login: T=0 at its end, too */
};

enum script_stage { STAGE_SECURITY = 0, STAGE_OPERATIONAL = 1, STAGE_FULL = 3 };

struct script_connection {
	struct script_target *target;
	struct script_connection *next;
	unsigned index; /* in the order of accept() */
	int fd;
	bool dead;     /* to be freed by the thread */
	bool silent;   /* neither read nor written any more */
	bool hang_up;  /* ends with its login */
	bool ruled;    /* a login rule was looked for */
	bool recorded; /* a login PDU came */
	bool began;    /* its keys were whole */
	bool again;    /* the PDU is to be parsed once more, after the pause */
	bool noted;    /* it was recorded already */
	bool declared; /* our keys went out */
	bool told_tag;
	int64_t paused_until; /* nothing is parsed before */
	enum script_stage stage;
	struct script_session *session; /* from the end of the login */
	unsigned attempt;               /* index of its struct script_login */
	GByteArray *in;
	GQueue out;    /* of struct script_leaving */
	GString *keys; /* of login PDUs with C=1 */
	char *initiator;
	uint8_t isid[6];
	bool discovery;
	uint32_t statsn, expected_cmdsn;
	uint32_t max_cmdsn; /* as told by answers of the login */
	uint8_t padding;    /* what fills PDUs up */
	unsigned answers;   /* of this login, up to now */
	struct script_parts parts;
	struct chap_state *chap; /* NULL: nothing was proved yet */
	bool proved;
	/* negotiated */
	uint32_t send_segment, first_burst, max_burst;
	bool initial_r2t, immediate_data, digest;
	bool digest_on; /* in force: the login is over */
	bool spoil_digest;
};

struct script_leaving {
	GByteArray *bytes;
	size_t sent;
	int64_t due;
	bool last; /* the connection ends behind it */
};

struct script_lun {
	bool present, wce, read_only, has_file;
	uint64_t size, mapped;
	unsigned block_size;
	uint64_t naa;
	char serial[32];
	uint8_t *live, *stable; /* what a READ sees, what survives */
	GHashTable *dirty;      /* numbers of 512-byte sectors that differ, or may */
	struct script_identity next;
	bool has_next;
};

enum script_step {
	STEP_COLLECT, /* data is to come */
	STEP_EXECUTE, /* at due */
	STEP_ANSWER,  /* at due */
	STEP_STUCK,   /* a spoiled R2T went out: only an abort ends it */
};

struct script_task {
	struct script_target *target;
	struct script_session *session;
	struct script_connection *connection; /* NULL: a ghost */
	enum script_step step;
	int64_t due;
	unsigned record; /* index */
	uint8_t header[BHS_SIZE];
	uint8_t cdb[16];
	unsigned lun;
	uint32_t itt, length; /* expected data transfer length */
	bool reads, writes;
	struct script_rule rule;
	/* STEP_COLLECT */
	GByteArray *data; /* Data-Out so far */
	bool unsolicited; /* more comes by itself */
	uint32_t r2t_end, r2t_tag, r2tsn, datasn;
	/* executed */
	uint8_t status;
	struct sense sense;
	GByteArray *result; /* Data-In */
};

struct script_target {
	pthread_mutex_t lock;
	pthread_cond_t came; /* a command was recorded */
	pthread_t thread;
	char *iqn;
	uint16_t port;
	int listener, reserve, wake;
	bool stop, frozen;
	int64_t began_ms, open_at; /* DUE_NEVER: not by itself */
	struct script_connection *connections;
	GPtrArray *sessions; /* of struct script_session */
	GPtrArray *tasks;    /* of struct script_task, oldest first */
	GHashTable *luns;    /* number -> struct script_lun */
	GPtrArray *addresses;
	const struct script_target *neighbour;
	struct script_parameters parameters;
	GArray *rules, *login_rules;
	GArray *records, *logins; /* of struct script_record, script_login */
	unsigned managed[16];
	int management;
	uint32_t latency, next_tag;
	enum script_ghosts ghosts;
	uint32_t ghost_ms;
	unsigned pongs, complaints;
	char complaint[160];
	bool rebooted, untold;
	GHashTable *seen; /* nexuses that logged in since the reboot */
	GArray *traffic;  /* of struct script_traffic, its data owned */
	struct script_hooks hooks;
	GArray *steps; /* of struct script_login_step */
	struct script_chap chap;
	bool wants_chap;
	unsigned accepted;  /* connections */
	GByteArray *listed; /* what SendTargets is answered with; NULL: what there is */
};

/* ---- script_target.c ---- */
int64_t script_now(void);
/* Now plus ms; DUE_NEVER after SCRIPT_NEVER. */
int64_t script_due(uint32_t ms);
void script_begin(struct script_target *target);
void script_end(struct script_target *target);
/* Ends it at once; its commands become ghosts or die. */
void connection_cut(struct script_connection *connection, enum script_cut how);
/* The initiator broke the protocol: recorded, and the connection ends. */
void connection_complain(struct script_connection *connection, const char *format, ...)
    G_GNUC_PRINTF(2, 3);
void target_listen(struct script_target *target, bool listen);

/* ---- script_wire.c ---- */
struct script_pdu {
	const uint8_t *header, *data;
	uint32_t length; /* of data */
};
/* A header with final bit, ITT, ExpCmdSN and MaxCmdSN; StatSN where it has one of its own. */
void header_fill(struct script_connection *connection, uint8_t *header, uint8_t opcode,
    uint32_t itt, bool takes_statsn);
/* Queues it with data, padded; the latter takes header and data, and puts the lengths right. */
void connection_put(
    struct script_connection *connection, const uint8_t *header, const void *data, uint32_t length);
void connection_put_pdu(struct script_connection *connection, GByteArray *pdu, bool past_hooks);
void connection_send_bytes(
    struct script_connection *connection, const void *bytes, size_t length, bool last);
void connection_send_last(struct script_connection *connection);
void connection_reject(struct script_connection *connection, const uint8_t *header, uint8_t reason);
bool connection_read(struct script_connection *connection);
bool connection_write(struct script_connection *connection);
/* Takes the whole PDUs that came. */
void connection_parse(struct script_connection *connection);

/* ---- script_traffic.c ---- */
void traffic_note(struct script_connection *connection, bool to_target, const uint8_t *header,
    const uint8_t *data, uint32_t length);
void traffic_free(GArray *traffic);
/* True where a hook dealt with it. */
bool hook_came(struct script_connection *connection, const struct script_pdu *pdu);
/* False where it is not to leave. */
bool hook_leaves(struct script_connection *connection, GByteArray *pdu);

/* ---- script_digest.c ---- */
/* CRC32C as it stands on the wire (RFC 7143, 13.1). */
void digest_of(const uint8_t *bytes, size_t length, uint8_t digest[4]);

/* ---- script_keys.c ---- */
void put_key(GString *keys, const char *key, const char *value);
void put_number(GString *keys, const char *key, unsigned value);
/* The value; NULL: it is not there. */
const char *find_key(const GString *keys, const char *wanted);
bool offers(const char *list, const char *wanted);
/* "A=1&B=2" and a NUL for each. */
void put_list(GString *keys, const char *list);
void answer_keys(struct script_connection *connection, const GString *keys, GString *answer);

/* ---- script_chap.c ---- */
enum chap_outcome { CHAP_GOES_ON, CHAP_DONE, CHAP_REFUSED };
/* What the security stage says next. */
enum chap_outcome chap_answer(
    struct script_connection *connection, const GString *keys, GString *answer);
void chap_free(struct chap_state *state);

/* ---- script_login.c ---- */
void login_take(struct script_connection *connection, const struct script_pdu *pdu);

/* ---- script_text.c ---- */
/* The next part of a text in PDUs of at most cut bytes; whole: at a key's end, where that can be.
 * */
guint parts_next(const struct script_parts *parts, bool whole);
void parts_end(struct script_parts *parts);
void text_take(struct script_connection *connection, const struct script_pdu *pdu);

/* ---- script_task.c ---- */
void command_take(struct script_connection *connection, const struct script_pdu *pdu);
void data_out_take(struct script_connection *connection, const struct script_pdu *pdu);
void management_take(struct script_connection *connection, const struct script_pdu *pdu);
struct script_record *task_record(const struct script_task *task);
void script_task_free(void *task);
/* Runs what is due; the time of the next. */
int64_t tasks_run(struct script_target *target);
void tasks_lose_connection(struct script_connection *connection);
/* A login of the initiator begins. */
void tasks_login_begins(struct script_target *target, const char *initiator);
/* Aborts them, ghosts included. */
void tasks_end_session(struct script_target *target, const struct script_session *session);
unsigned lun_of(const uint8_t *field);
bool opcode_matches(int wanted, uint8_t opcode);

/* ---- script_answer.c ---- */
/* Sends data, status and sense, or what the rule makes of them. */
void task_answer(struct script_task *task);
void task_spoil_r2t(struct script_task *task);

/* ---- script_disk.c ---- */
struct script_lun *lun_new(uint64_t size, unsigned block_size, unsigned number, const char *path);
void lun_free(void *lun);
void lun_resize(struct script_lun *lun, uint64_t size);
/* Which dirty sectors survive is up to dice; NULL: none. */
void lun_lose_power(struct script_lun *lun, GRand *dice);
void lun_take_identity(struct script_lun *lun, const struct script_identity *identity);
/* Sets status, sense and result. */
void disk_execute(struct script_task *task);
void session_attention(struct script_session *session, unsigned lun, uint8_t asc, uint8_t ascq);
