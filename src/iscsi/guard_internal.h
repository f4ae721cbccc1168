/*
 * guard_internal.h - what the rooms of the guard share.
 *
 *   guard.c           the calls in place of libc's; the stream of PDUs in either direction
 *   guard_pdu.c       a header that has come, or is to leave: what concerns the session
 *   guard_commands.c  the commands, and the headers that belong to one
 */
#pragma once

#include <glib.h>
#include <stddef.h>

#include "digest.h"
#include "guard.h"

/* RFC 7143, 11.2.1.2 and the flags of 11.3 to 11.7 */
enum { NOP_OUT = 0x00, SCSI_COMMAND = 0x01, DATA_OUT = 0x05, IMMEDIATE = 0x40 };
enum {
	NOP_IN = 0x20,
	SCSI_RESPONSE = 0x21,
	TASK_RESPONSE = 0x22,
	TEXT_RESPONSE = 0x24,
	DATA_IN = 0x25,
	LOGOUT_RESPONSE = 0x26,
	R2T = 0x31,
	ASYNC_MESSAGE = 0x32,
	REJECT = 0x3f,
};
enum { FINAL = 0x80, OVERFLOW = 0x04, UNDERFLOW = 0x02, STATUS = 0x01 };
#define NO_TAG 0xffffffffu

struct expected {
	bool used, sent, answered, exact; /* sent: its own PDU is */
	uint8_t direction;
	uint32_t itt;
	uint32_t length; /* bytes: of data altogether, */
	uint32_t moved;  /* those that have come, or that R2Ts asked for, */
	uint32_t left;   /* and those that have left, from the beginning without a gap */
	uint32_t sn;     /* DataSN, or R2TSN, of the next */
	uint32_t bursts;
};

/*
 * One direction: have bytes of a header are here, and left bytes of its data, padding included, are
 * still to come. The header of what leaves is kept until all of the PDU has left.
 */
struct stream {
	size_t have, left;
	uint8_t header[HEADER_LENGTH + DIGEST_LENGTH];
};

struct ping {
	uint32_t ttt;
	uint8_t lun[8];
};

struct guard {
	int fd;
	bool seen, seen_out; /* reads, and writes, since guard_begin() */
	bool measured;       /* header_length is the one that libiscsi uses */
	bool begun;          /* the login is over */
	size_t header_length;
	struct stream in, out;
	size_t given;   /* of in.header: bytes that libiscsi has */
	unsigned turn;  /* PDUs that may still be read in this one */
	size_t padding; /* bytes at the end of the PDU that comes that are to be zeros */
	bool whole;     /* out.header is, though less of it may have left */
	bool edited;    /* and it leaves in place of libiscsi's */
	char finding[128];

	bool knows_status, knows_window; /* these are known: */
	uint32_t statsn;                 /* the last that came */
	uint32_t arrives;                /* the same when all of the PDU is here */
	uint32_t exp_cmdsn, max_cmdsn;
	uint32_t cmdsn; /* of the command that leaves next */
	uint32_t max_burst;
	GArray *pings; /* of struct ping: those whose answer has not left */
	struct guard_notice notices[4];
	unsigned noticed;

	unsigned count, bits; /* 1 << bits slots */
	struct expected *slots;
};

/* Notes why libiscsi is not to have it; false. */
bool guard_refuse(struct guard *guard, const char *why, ...) G_GNUC_PRINTF(2, 3);
/* The same, of what RFC 7143 forbids. */
#define guard_forbid(guard, ...) guard_refuse(guard, "the target broke the protocol: " __VA_ARGS__)

/* A header has come, whole; it may be edited. False: libiscsi is not to have it. */
bool guard_passes(struct guard *guard, uint8_t *header);
/* out.header is to leave. True: it was edited. */
bool guard_edits_sent(struct guard *guard);
/* The PDU of out.header has left, whole. */
void guard_note_sent(struct guard *guard);

void commands_init_table(struct guard *guard);
bool command_passes_data_in(struct guard *guard, const uint8_t *header);
bool command_passes_r2t(struct guard *guard, const uint8_t *header);
bool command_passes_response(struct guard *guard, const uint8_t *header);
void command_note_sent(struct guard *guard, const uint8_t *header);
