/*
 * script_traffic.h - what passed between the scripted target and its initiators, PDU by PDU, hooks
 * that change it, and logins that follow a plan (RFC 7143, 6, 11 and 12.1).
 */
#pragma once

#include "support/script_target.h"

#include <glib.h>

/* ---- what passed ---- */

/*
 * A PDU as it was on the wire, before what the target makes of it. The first 200,000 are kept.
 * What script_target_send() sends is not among them, nor is what a hook kept from leaving.
 */
struct script_traffic {
	int64_t at_ms;       /* since the start of the target */
	unsigned connection; /* 0, 1, ... in the order of accept() */
	bool to_target;
	uint8_t header[48];
	const uint8_t *data; /* the target's until its stop; of SCSI data the first 64 bytes only,
	                        of text all */
	uint32_t length;     /* DataSegmentLength */
};
unsigned script_traffic_count(struct script_target *target);
bool script_traffic_get(struct script_target *target, unsigned i, struct script_traffic *pdu);
/* Finds the next from *i on with that opcode and direction; *i is behind it then. */
bool script_traffic_find(struct script_target *target, unsigned *i, bool to_target, uint8_t opcode,
    struct script_traffic *pdu);
/* Waits until count of them passed; false if they did not within the seconds. */
bool script_traffic_await(
    struct script_target *target, bool to_target, uint8_t opcode, unsigned count, double seconds);
/*
 * The value of a key in the text of login or text PDUs that went to the target in the connection,
 * as it was said last; NULL: never. *times (unless NULL): how often. Free it.
 */
char *script_traffic_key(
    struct script_target *target, unsigned connection, const char *key, unsigned *times);

/* ---- hooks ---- */

/*
 * Called under the target's lock, most by its thread: no script_target_...() from inside,
 * script_hook_...() only. Of the full feature phase they see what has the right CmdSN, and it
 * counts as taken.
 */
struct script_hook;
struct script_hooks {
	/* A PDU came. True: it is dealt with, the target does not look at it. */
	bool (*came)(struct script_hook *hook, const uint8_t *header, const uint8_t *data,
	    uint32_t length, void *own);
	/*
	 * A PDU is about to leave: header and data, without padding; may be changed in place,
	 * lengths are put right afterwards. False: it does not leave. Answers that a rule spoils
	 * in their length, or cuts, do not pass here.
	 */
	bool (*leaves)(struct script_hook *hook, GByteArray *pdu, void *own);
	void *own;
};
/* NULL: none any more. */
void script_target_hook(struct script_target *target, const struct script_hooks *hooks);
/* Sends this PDU (header[48], data), past the hooks; the lengths are filled in. */
void script_hook_send(struct script_hook *hook, uint8_t *header, const void *data, uint32_t length);
/* Makes a header: final bit, ITT, StatSN (of which it takes one, or not), ExpCmdSN, MaxCmdSN. */
void script_hook_header(
    struct script_hook *hook, uint8_t *header, uint8_t opcode, uint32_t itt, bool takes_statsn);
unsigned script_hook_connection(const struct script_hook *hook);
/* What fills up PDUs that leave by this connection from now on, in place of zeros. */
void script_hook_pad(struct script_hook *hook, uint8_t byte);
/* The next PDU with a header digest leaves with a wrong one. */
void script_hook_spoil_digest(struct script_hook *hook);
/* Ends the connection at once. */
void script_hook_cut(struct script_hook *hook);
/*
 * From outside: sends the PDU in every normal session, past the hooks. Lengths, StatSN (taken or
 * not), ExpCmdSN and MaxCmdSN are filled in.
 */
void script_target_send_pdu(struct script_target *target, const uint8_t *header, const void *data,
    uint32_t length, bool takes_statsn);

/* ---- logins that follow a plan ---- in force from the next PDU on */

/* One answer of the target; it may take several PDUs. */
struct script_login_step {
	const char *keys; /* "A=1&B=2"; NULL: what it would say by itself; "": nothing */
	const char *more; /* follows what it says by itself */
	unsigned cut;     /* != 0: in PDUs of at most so many bytes, all but the last with C=1, each
	                     fetched by an empty request */
	bool stay;        /* T=0: another round before the stage changes */
	uint8_t version_active, version_max;
	uint8_t padding;                           /* byte in the pad bytes */
	uint16_t status;                           /* class << 8 | detail; 0: success */
	const uint32_t *statsn, *max_cmdsn_offset; /* NULL: as usual; MaxCmdSN = CmdSN + this */
};
/*
 * The i-th answer of each login follows steps[i]; behind count all is as usual. An empty answer to
 * a request with C=1 does not count. The strings must last until the target's stop.
 */
void script_target_login_steps(
    struct script_target *target, const struct script_login_step *steps, unsigned count);

enum script_chap_form {
	SCRIPT_CHAP_HEX,
	SCRIPT_CHAP_HEX_UPPER, /* 0X, and digits in upper case */
	SCRIPT_CHAP_BASE64,    /* 0b */
};
enum script_chap_fault {
	SCRIPT_CHAP_RIGHT,
	SCRIPT_CHAP_WRONG,
	SCRIPT_CHAP_REFLECTED, /* the initiator's own CHAP_R */
	SCRIPT_CHAP_ABSENT,    /* neither CHAP_N nor CHAP_R */
	SCRIPT_CHAP_WRONG_NAME,
	SCRIPT_CHAP_OTHER_ALGORITHM, /* CHAP_A=7, whatever was offered */
};
/*
 * It wants CHAP (RFC 7143, 12.1) with MD5 of this user, and proves itself by the second pair where
 * it is asked to and that is not NULL. Without CHAP, or with a wrong proof, a login is refused with
 * 0201h. The strings must last.
 */
struct script_chap {
	const char *user, *secret, *user_in, *secret_in;
	enum script_chap_form form;
	enum script_chap_fault fault;
	unsigned challenge_length; /* bytes; 0: 16 */
	uint8_t identifier;
};
/* NULL: no more. */
void script_target_chap(struct script_target *target, const struct script_chap *chap);
