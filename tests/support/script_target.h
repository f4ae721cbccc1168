/*
 * script_target.h - an iSCSI target that plays scripts (RFC 7143).
 *
 * Disks in memory with a volatile write cache, served on 127.0.0.1 by a thread of its own. A test
 * tells it how to answer chosen commands and logins, cuts its power, and looks at what survived.
 * All commands below are in force when they return, and may come from any thread. Any number of
 * connections and sessions; one connection a session, no data digests. What passed, CHAP, and hands
 * in every PDU: script_traffic.h.
 *
 * What the initiator does against the protocol closes its connection and counts as a complaint.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lunfs/scsi.h" /* struct sense, status codes */

struct script_target;

/* A time without end, in milliseconds. */
#define SCRIPT_NEVER UINT32_MAX

/* Listens on a port of its choice, outside the range for outgoing connections; or on that one. */
struct script_target *script_target_start(const char *iqn);
struct script_target *script_target_start_at(const char *iqn, uint16_t port);
uint16_t script_target_port(const struct script_target *target);
void script_target_stop(struct script_target *target);
/* A disk in memory, zeros, WCE=1. Only what is written takes memory. LUN numbers below 16384. */
void script_target_add_lun(
    struct script_target *target, unsigned lun, uint64_t size, unsigned block_size);
/* The same with what is stable in a file, which is made as long as needed. */
void script_target_add_lun_file(struct script_target *target, unsigned lun, uint64_t size,
    unsigned block_size, const char *path);

/* ---- what it is ---- */

/*
 * What it negotiates is read at each login, the rest is in force at once. Zero is the default where
 * one is named.
 */
struct script_parameters {
	uint16_t tag;             /* TargetPortalGroupTag; 1. Also part of a nexus' identity */
	uint32_t first_burst;     /* 262144 */
	uint32_t max_burst;       /* 262144 */
	uint32_t receive_segment; /* MaxRecvDataSegmentLength; 262144 */
	uint32_t r2t_length;      /* bytes that one R2T asks for; max_burst */
	uint32_t window;          /* commands from ExpCmdSN to MaxCmdSN; 128 */
	uint16_t time2wait;       /* DefaultTime2Wait, at least */
	bool initial_r2t;         /* InitialR2T=Yes: no unsolicited Data-Out */
	bool no_immediate_data;
	uint32_t first_statsn;     /* 1 */
	bool separate_status;      /* never in the last Data-In */
	bool no_attention;         /* no unit attention 29h at a new session */
	bool ignore_nops;          /* NOP-Out stays without answer */
	bool header_digest;        /* CRC32C where it is offered; else None */
	bool header_digest_only;   /* without it the login is refused */
	uint32_t text_cut;         /* SendTargets in PDUs of at most so many bytes, F=0; 0: whole */
	bool text_cut_c;           /* cut anywhere, C=1; else behind a key */
	uint8_t logout_response;   /* of the Logout Response (RFC 7143, 11.15.1) */
	uint16_t logout_time2wait; /* its Time2Wait, seconds */
	char alias[64];            /* TargetAlias, whatever bytes; "": none */
};
void script_target_set(struct script_target *target, const struct script_parameters *parameters);
/* One more TargetAddress for discovery, "HOST:PORT,TAG". */
void script_target_add_address(struct script_target *target, const char *address);
/* Another target for discovery, at its own port. */
void script_target_add_neighbour(
    struct script_target *target, const struct script_target *neighbour);

/* What SendTargets is answered with from now on, each key with its NUL; NULL: what there is. */
void script_target_list(struct script_target *target, const void *text, size_t length);

/* What a LUN says of itself: zero, or "", stays as it is. A new block size forgets nothing. */
struct script_identity {
	uint64_t naa;
	char serial[32];
	unsigned block_size;
};
/* At once, or when the next session has logged in. */
void script_target_identity(struct script_target *target, unsigned lun,
    const struct script_identity *identity, bool at_next_login);
/* told: with a unit attention, 2Ah/09h; of WCE 2Ah/01h. */
void script_target_capacity(struct script_target *target, unsigned lun, uint64_t size, bool told);
void script_target_wce(struct script_target *target, unsigned lun, bool wce, bool told);
/* Write protected (WP, DATA PROTECT). */
void script_target_read_only(struct script_target *target, unsigned lun, bool read_only);
/* Not there (not in REPORT LUNS either), or back with its content. */
void script_target_present(struct script_target *target, unsigned lun, bool present);
/* Queues a unit attention for every nexus there is. */
void script_target_attention(struct script_target *target, unsigned lun, uint8_t asc, uint8_t ascq);

/* ---- scripts for commands ---- */

/* In place of an opcode. */
enum { SCRIPT_ANY = -1, SCRIPT_READ = -2, SCRIPT_WRITE = -3, SCRIPT_SYNC = -4 };

/* How an answer is spoiled. Those of Data-In have no effect where there is none. */
enum script_spoil {
	SCRIPT_SOUND,
	SCRIPT_WRONG_ITT,       /* of the first Data-In or of the response */
	SCRIPT_DATASN_GAP,      /* the last Data-In has a DataSN too high */
	SCRIPT_MISSING_SEGMENT, /* the first Data-In is missing, all else is as if it was sent */
	SCRIPT_BEYOND_LENGTH,   /* the last Data-In lies behind the expected length */
	SCRIPT_BAD_AHS,         /* a TotalAHSLength of 255 words, and nothing there */
	SCRIPT_LONG_SEGMENT,    /* a DataSegmentLength of 16 MiB - 1, and nothing there */
	SCRIPT_UNKNOWN_OPCODE,  /* 3Bh */
	SCRIPT_UNDERFLOW,       /* all is there, with a residual of one block */
	SCRIPT_OVERFLOW,        /* the same, O */
	SCRIPT_RESPONSE_CODE,   /* response code 01h, target failure, status GOOD */
	SCRIPT_NO_DATA,         /* a READ ends with GOOD, and no Data-In came */
	SCRIPT_TRUNCATED,       /* half the PDU, then the connection ends */
	SCRIPT_REJECT,          /* a Reject PDU in place of the answer */
	SCRIPT_R2T_BEYOND,      /* asks for data behind the expected length; holds the command */
	SCRIPT_R2T_WRONG_ITT,   /* asks for a command that is not there; holds the command */
	SCRIPT_R2T_EMPTY,       /* asks for 0 bytes; holds the command */
	SCRIPT_R2T_WITH_READ,   /* asks for data of a READ; holds the command */
};

/*
 * The first rule that matches a command and has times left decides over it. All data of a WRITE is
 * collected before; what is said here happens in the order of the fields.
 */
struct script_rule {
	int opcode;     /* or one of the above */
	bool one_lun;   /* lun counts */
	unsigned lun;   /* */
	unsigned skip;  /* lets so many pass first */
	unsigned times; /* 0: without end */

	bool hang;          /* stays before its execution until script_target_release() */
	uint32_t delay_ms;  /* is executed later */
	uint8_t status;     /* is not executed but answered so */
	struct sense sense; /* a key makes it CHECK CONDITION */
	bool lie;           /* is not executed, and answered with GOOD (a READ with zeros) */
	bool mute;          /* is executed and not answered before script_target_release() */
	uint32_t answer_delay_ms;
	enum script_spoil spoil;
};
void script_target_rule(struct script_target *target, struct script_rule rule);
/* CHECK CONDITION for the next times commands. */
void script_target_sense(
    struct script_target *target, int opcode, unsigned times, struct sense sense);
void script_target_forget_rules(struct script_target *target);
/* Lets all commands that hang, wait or are mute go on now. */
void script_target_release(struct script_target *target);
/* Every PDU leaves so much later. */
void script_target_latency(struct script_target *target, uint32_t milliseconds);
/* Neither reads nor writes, as a process that is stopped; false: goes on. */
void script_target_freeze(struct script_target *target, bool freeze);

/* What is answered to task management from now on. */
enum { SCRIPT_TASKS_MANAGED = -1, SCRIPT_TASKS_SILENT = -2 };
/* One of the above, or a response code (RFC 7143, 11.6.1) and nothing done. */
void script_target_task_management(struct script_target *target, int response);

/* ---- scripts for logins ---- */

enum script_login_deed {
	SCRIPT_LOGIN_REFUSE,   /* with status_class and status_detail */
	SCRIPT_LOGIN_REDIRECT, /* with class 1, status_detail 1 or 2, and the address */
	SCRIPT_LOGIN_CLOSE,    /* closes in place of an answer */
	SCRIPT_LOGIN_HANG,     /* never answers */
	SCRIPT_LOGIN_DELAY,    /* answers after delay_ms */
	SCRIPT_LOGIN_HANG_UP,  /* logs in, then closes behind the last answer */
};
struct script_login_rule {
	enum script_login_deed deed;
	bool discovery; /* for discovery sessions; else for normal ones */
	unsigned skip, times;
	uint8_t status_class, status_detail;
	uint32_t delay_ms;
	char address[128]; /* "HOST:PORT" or "HOST:PORT,TAG" */
};
void script_target_login_rule(struct script_target *target, struct script_login_rule rule);

/* ---- messages ---- */

/*
 * An Asynchronous Message (RFC 7143, 11.9) in every normal session. With event 0 the sense goes
 * along, for the LUN. Events 2 and 3 close the connections behind it.
 */
struct script_message {
	uint8_t event, vendor_code;
	uint16_t parameter1, parameter2, parameter3;
	unsigned lun;
	struct sense sense;
};
void script_target_message(struct script_target *target, const struct script_message *message);
/* A NOP-In that wants an answer, in every normal session; and how many answers came. */
void script_target_ping(struct script_target *target);
unsigned script_target_pongs(struct script_target *target);
/* These bytes, in every normal session. */
void script_target_send(struct script_target *target, const void *bytes, size_t length);

/* ---- ends ---- */

enum script_cut { SCRIPT_RST, SCRIPT_FIN, SCRIPT_SILENTLY };
/* Ends the connections there are. SILENTLY: they stay, and nothing comes or goes any more. */
void script_target_drop(struct script_target *target, enum script_cut how);
/* Opens or closes the port for new connections. */
void script_target_listen(struct script_target *target, bool listen);

struct script_reboot {
	enum script_cut how;
	bool some_survive;  /* of the dirty blocks a random subset, by seed, survives; else none */
	uint32_t seed;      /* */
	uint32_t closed_ms; /* the port is closed so long; SCRIPT_NEVER: until it is opened */
	bool untold;        /* the first session of each nexus gets no 29h; else it does */
};
/* All commands are gone, and what was not stable. */
void script_target_reboot(struct script_target *target, struct script_reboot how);
/*
 * The LUN alone was reset, by another initiator say, and lost its cache: every session stands, and
 * is told with 29h/03h. Commands under way go on behind that.
 */
void script_target_forget(struct script_target *target, unsigned lun);

/* What becomes of commands that were not executed when their connection was lost. */
enum script_ghosts {
	SCRIPT_GHOSTS_DIE,      /* with the connection */
	SCRIPT_GHOSTS_LIVE,     /* executed ms later, unless their nexus is reinstated before */
	SCRIPT_GHOSTS_AT_LOGIN, /* executed when a login of the initiator begins, before it ends */
	SCRIPT_GHOSTS_BROKEN,   /* executed ms later; reinstatement, against the standard, does not
	                           abort them, nor commands of a connection that still stands */
};
void script_target_ghosts(struct script_target *target, enum script_ghosts how, uint32_t ms);

/* ---- what happened ---- */

struct script_record {
	int64_t at_ms; /* since the start; when it came */
	unsigned session, lun;
	uint8_t cdb[16];
	bool executed, answered;
	bool ghost;   /* outlived its connection */
	bool aborted; /* by task management, reinstatement or logout */
	uint8_t status;
	int64_t executed_ms, answered_ms;
};
/* The i-th command, in order of arrival; false where there are fewer. */
bool script_target_record(struct script_target *target, unsigned i, struct script_record *record);
unsigned script_target_records(struct script_target *target);
/* Commands that came with the opcode, or of SCRIPT_READ and the like. */
unsigned script_target_command_count(struct script_target *target, int opcode);
/* Waits until at least so many came; false if they did not within the seconds. */
bool script_target_await(struct script_target *target, int opcode, unsigned count, double seconds);
/* Task management requests with this function (5: LOGICAL UNIT RESET). */
unsigned script_target_management_count(struct script_target *target, unsigned function);

struct script_login {
	int64_t at_ms;
	char initiator[224];
	uint8_t isid[6];
	uint16_t tsih; /* given; 0 where none */
	uint16_t tag;
	char address[64]; /* of the initiator, "127.0.0.1:PORT" */
	bool discovery;
	bool reinstated; /* it ended an older session */
	bool done;
	uint16_t status; /* class << 8 | detail of the last answer */
};
/* Sessions that logged in, discovery not counted; and all attempts, in order. */
unsigned script_target_logins(struct script_target *target);
unsigned script_target_login_attempts(struct script_target *target);
bool script_target_login_attempt(
    struct script_target *target, unsigned i, struct script_login *login);
/* Of the last login that was done, discovery not counted; zeros where there was none. */
void script_target_last_isid(struct script_target *target, uint8_t isid[6]);
/* Connections that are not gone; how often the initiator broke the protocol, and how, last. */
unsigned script_target_connections(struct script_target *target);
unsigned script_target_complaints(struct script_target *target, char *last, size_t size);

enum script_image { SCRIPT_VOLATILE, SCRIPT_STABLE };
/* What a READ would see, or what a power failure would leave. False: beyond the end, or no such
 * LUN. */
bool script_target_read(struct script_target *target, unsigned lun, uint64_t offset, void *buffer,
    size_t length, enum script_image image);
/* Changes both. */
bool script_target_write(
    struct script_target *target, unsigned lun, uint64_t offset, const void *bytes, size_t length);
/* Bytes that are volatile only. */
uint64_t script_target_dirty(struct script_target *target, unsigned lun);
/* script_target_read() of what is stable. */
#define script_target_stable(target, lun, offset, buffer, length)                                  \
	script_target_read(target, lun, offset, buffer, length, SCRIPT_STABLE)
