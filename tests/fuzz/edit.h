/*
 * edit.h - how the script of an input changes the PDUs of a target, and their way out.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PDU_HEADER 48u

struct script {
	const uint8_t *at, *end;
	unsigned passes;      /* PDUs that go as they are */
	bool edited;          /* something was changed */
	GByteArray *held;     /* a PDU that waits for the next */
	GByteArray *rest;     /* of a text that goes on in the next answer */
	bool keeps_open;      /* the PDU was to end a stage of the login, and does not */
	unsigned stays;       /* how often that was so without a reason */
	unsigned redirects;   /* how often it sent lunfs elsewhere */
	char proof[64];       /* the initiator's CHAP_R */
	uint32_t itt, length; /* of the last request */
	uint32_t ttt, statsn; /* of the last answer */
};

/* What leaves next: bytes, when, in which pieces, and whether that is the end. */
struct outbox {
	GByteArray *bytes;
	int64_t due_us;
	unsigned piece; /* bytes at a time; 0: all */
	bool closes;
};

void outbox_init(struct outbox *outbox);
void outbox_clear(struct outbox *outbox);
/* Takes the PDU, without padding and digest, and what the script makes of it. */
void outbox_add(struct outbox *outbox, struct script *script, GByteArray *pdu, bool digest);
/* True: something left. */
bool outbox_send(struct outbox *outbox, int fd, int64_t now_us);

/* Notes the request that is answered next. */
void script_heard(struct script *script, const uint8_t *request);
void script_clear(struct script *script);
