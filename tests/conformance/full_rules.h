/*
 * full_rules.h - the rules of RFC 7143 that every PDU of an initiator keeps, judged by what passed.
 *
 * Each fails the test with the first PDU that does not. All connections of the target are looked
 * at, from their first PDU on.
 */
#pragma once

#include "support/script_traffic.h"

/* CmdSN: the login's at first, one more behind each that is not immediate (4.2.2.1). */
void rule_commands_are_numbered(struct script_target *target);
/* Nothing that is not immediate has a CmdSN above MaxCmdSN, as told up to then (4.2.2.1). */
void rule_windows_are_kept(struct script_target *target);
/* ExpStatSN is never above what was sent (4.2.2.2). */
void rule_nothing_is_acknowledged_ahead(struct script_target *target);
/* And of PDUs from that one on it is exactly behind what was sent: only where the target sends
 * nothing by itself, and one command is under way at a time. */
void rule_all_is_acknowledged(struct script_target *target, unsigned from);
/* No Initiator Task Tag is ffffffff, but in answers to NOP-In, or in use twice (11.2.1.8). */
void rule_tags_are_unique(struct script_target *target);
/* What is reserved is 0; no additional headers, as no CDB needs one; no SNACK (11.1, 11.2, 11.16).
 */
void rule_reserved_fields_are_zero(struct script_target *target);
/* F, R, W, the LUN, the Expected Data Transfer Length as the CDB has it, and its padding (11.3). */
void rule_commands_are_framed(struct script_target *target);

/* What the target declared. */
struct rule_limits {
	uint32_t first_burst, max_burst, receive_segment; /* bytes */
	bool initial_r2t, no_immediate_data;
};
/*
 * Data-Out: no more by itself than allowed, then what R2Ts ask for, in order; F, DataSN, Buffer
 * Offset, Target Transfer Tag, LUN (11.7, 11.8, 13.13, 13.14).
 */
void rule_data_out_is_framed(struct script_target *target, const struct rule_limits *limits);
