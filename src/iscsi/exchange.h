/*
 * exchange.h - what libiscsi and the target say to each other until the login is over, and in a
 * discovery, mended (RFC 7143, 6 and 11.10 to 11.13).
 *
 * It knows no sockets: whole PDUs come in, and what is to be sent comes out. What it mends, and
 * which libiscsi needs it:
 *
 *   libiscsi (1.19, and master of 2026 alike)              here
 *   takes pad bytes for text                               only the data segment counts
 *   ignores C=1 in an answer                               fetches the rest, hands over one answer
 *   offers keys again after T=0                            goes on by itself; says nothing twice
 *   does not answer keys that it does not know             NotUnderstood, or what the standard says
 *   takes Reject, Irrelevant, any word for a value         hands over numbers that were agreed on
 *   takes its own wish for agreed on without an answer     hands over the standard's default
 *   does not look at Version-active, stages, ITTs          refuses
 *   reads CHAP_C and CHAP_R in 0x form, CHAP_I in decimal  rewrites 0X, 0b and 0B; and 0x numbers
 *   takes any CHAP_A for its own (1.19)                    refuses what was not offered
 *   offers obsolete markers (RFC 7143, 13.25)              takes them out
 *   fails at a SendTargets answer in several PDUs          fetches the rest, keeps the whole text
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "lunfs/iscsi.h"

#define PDU_HEADER_LENGTH 48u

struct exchange;
struct keys;

/* A whole PDU without its padding. */
struct pdu {
	const uint8_t *header;
	const uint8_t *data;
	size_t length;
};

enum exchange_verdict {
	EXCHANGE_PASS,   /* out goes on, where the PDU was to go */
	EXCHANGE_ANSWER, /* out goes back, to where it came from */
	EXCHANGE_REFUSE, /* the end: see exchange_fault() */
};

/* login is borrowed. */
struct exchange *exchange_new(const struct login *login);
void exchange_free(struct exchange *exchange);
/* libiscsi's PDU, and the target's; out is empty, and gets a PDU with its padding. */
enum exchange_verdict exchange_request(
    struct exchange *exchange, const struct pdu *pdu, GByteArray *out);
enum exchange_verdict exchange_response(
    struct exchange *exchange, const struct pdu *pdu, GByteArray *out);
/* The last answer of the login has passed. */
bool exchange_is_over(const struct exchange *exchange);

/* Why it refused, to follow the target's name; NULL: it did not. */
const char *exchange_fault(const struct exchange *exchange);
/* Because it wants CHAP, and we have nobody to prove. */
bool exchange_wants_proof(const struct exchange *exchange);
/* What the two agreed on. */
const struct keys *exchange_keys(const struct exchange *exchange);
/* Status-Class and Status-Detail of the last Login Response (11.13.5); -1: there was none. */
int exchange_status(const struct exchange *exchange);
/* The header of the last Login Request and of the last Login Response; zeros where there was none.
 */
const uint8_t *exchange_last_request(const struct exchange *exchange);
const uint8_t *exchange_last_response(const struct exchange *exchange);
/* TargetAddress of a redirection (13.8); NULL: none. */
const char *exchange_redirect(const struct exchange *exchange);
/* The text of the answer to SendTargets, a NUL behind each pair; NULL: it is not whole. */
const GString *exchange_text(const struct exchange *exchange);
