/*
 * edit_internal.h - a PDU while a script edits it.
 */
#pragma once

#include "edit.h"

struct draft {
	struct outbox *outbox;
	struct script *script;
	GByteArray *pdu;
	bool digest;
	bool bad_digest, no_padding, dropped, holds;
	uint32_t declared; /* a data length that is told instead of the true one, less 1; 0: none */
	unsigned copies, cut; /* cut: bytes that are sent, plus 1 */
};

uint8_t script_byte(struct script *script);
uint16_t script_word(struct script *script);
/* The header tells the length of the data that there is. */
void draft_set_length(struct draft *draft);

/* Of text: edit_text.c. */
void edit_continue(struct draft *draft);
void edit_stay(struct draft *draft);
void edit_offer(struct draft *draft);
void edit_forms(struct draft *draft);
void edit_value(struct draft *draft);
void edit_redirect(struct draft *draft);
void edit_reflect(struct draft *draft);
