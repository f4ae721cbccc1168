/*
 * login_rules.h - what every login of an initiator must keep, whatever the target says (RFC 7143,
 * 6, 11.12 and 13). Each looks at one connection's recorded PDUs and fails the test.
 */
#pragma once

#include "support/mount.h"

void rule_who_it_is(struct scene *scene, unsigned connection);
void rule_immediate(struct scene *scene, unsigned connection);
void rule_isid(struct scene *scene, unsigned connection);
void rule_tsih(struct scene *scene, unsigned connection);
void rule_cid(struct scene *scene, unsigned connection);
void rule_itt(struct scene *scene, unsigned connection);
void rule_cmdsn(struct scene *scene, unsigned connection);
void rule_first_cmdsn(struct scene *scene, unsigned connection);
void rule_expstatsn(struct scene *scene, unsigned connection);
void rule_stages(struct scene *scene, unsigned connection);
void rule_transit(struct scene *scene, unsigned connection);
void rule_versions(struct scene *scene, unsigned connection);
void rule_reserved(struct scene *scene, unsigned connection);
void rule_keys_once(struct scene *scene, unsigned connection);
void rule_keys_legal(struct scene *scene, unsigned connection);
void rule_keys_in_stage(struct scene *scene, unsigned connection);
void rule_text_ends(struct scene *scene, unsigned connection);
void rule_segment(struct scene *scene, unsigned connection);
/* All of them, of every connection. */
void login_rules_all(struct scene *scene);
