/*
 * lab.h - what tests of single rules of RFC 7143 share: a scripted target with a disk whose bytes
 * are known, lunfs above it, and rules that each login must keep.
 */
#pragma once

#include "support/data.h"
#include "support/mount.h"
#include "support/script_scene.h"
#include "support/script_traffic.h"

#include <criterion/criterion.h>

/* RFC 7143, 11.2.1.2 */
enum {
	PDU_NOP_OUT = 0x00,
	PDU_COMMAND = 0x01,
	PDU_LOGIN = 0x03,
	PDU_TEXT = 0x04,
	PDU_DATA_OUT = 0x05,
	PDU_LOGOUT = 0x06,
	PDU_LOGIN_RESPONSE = 0x23,
	PDU_TEXT_RESPONSE = 0x24,
	PDU_R2T = 0x31,
	PDU_REJECT = 0x3f,
};
#define LAB_NO_TAG 0xffffffffu
#define LAB_SIZE   MIB(4)

#define LAB_USER      "initiator"
#define LAB_SECRET    "initiators-1234"
#define LAB_USER_IN   "target"
#define LAB_SECRET_IN "targets-567890"
/* Options for these; lab_new() writes the files. */
#define LAB_ONE_WAY "username=" LAB_USER ",password_file=out"
#define LAB_MUTUAL  LAB_ONE_WAY ",username_in=" LAB_USER_IN ",password_in_file=in"

/* ---- a target and a mount ---- */

/* LUN 1 has LAB_SIZE bytes; not mounted yet. */
struct scene lab_new(void);
/* The same with a plan for its logins. */
struct scene lab_with_steps(const struct script_login_step *steps, unsigned count);
/* Mounts it with more options (NULL: none); what the disk holds, and what is written, is
 * compared. */
void lab_mount(struct scene *scene, const char *options);
/* The same of another source, which leads to the target of the scene. */
void lab_mount_source(struct scene *scene, const char *source, const char *options);
/* What was there is compared, then 1 MiB is written and compared. */
void lab_use(struct scene *scene);
/* Unmounts; neither the target nor login_rules_all() found a fault. The target ends. */
void lab_end(struct scene *scene);
/* All of it: the login comes to a good end. */
void lab_logs_in(const struct script_login_step *steps, unsigned count, const char *options);

/*
 * 'lunfs mount' with login_timeout=2s and more options (NULL: none) must end with status 1 and one
 * line that has these words, separated by '|'; nothing is mounted and no command came.
 */
struct result *lab_must_refuse(struct scene *scene, const char *options, const char *words);
/* The same of another source. */
struct result *lab_must_refuse_source(
    struct scene *scene, const char *source, const char *options, const char *words);
/* All of it: the login is refused, at the first attempt. */
void lab_is_refused(
    const struct script_login_step *steps, unsigned count, const char *options, const char *words);
/* Stops the target. */
void lab_close(struct scene *scene);
/* "iscsi://127.0.0.1:PORT/IQN" */
char *lab_url(struct scene *scene);
char *lab_url_of(struct scene *scene, const struct script_target *target);
/* A second target of the same name and with the same content; for the test to stop. */
struct script_target *lab_second(void);

/* ---- what the target says otherwise ---- */

/* value NULL: it says nothing of this key. The last has key NULL. They must last. */
struct lab_edit {
	const char *key, *value;
};
/* In Login Responses; it takes the place of other hooks. */
void lab_edit(struct scene *scene, const struct lab_edit *edits);

/* ---- what came ---- */

/* The PDUs of one kind in a connection; free the array. Elements: struct script_traffic. */
GArray *lab_pdus(struct scene *scene, unsigned connection, bool to_target, uint8_t opcode);
#define lab_pdu(array, i) (&g_array_index(array, struct script_traffic, i))
unsigned lab_count(struct scene *scene, bool to_target, uint8_t opcode);
/* How often the key was said in the connection, and what last ("" where never); the stage's. */
unsigned lab_times(struct scene *scene, unsigned connection, const char *key);
const char *lab_said(struct scene *scene, unsigned connection, const char *key);
/* The connections that there were. */
unsigned lab_connections(struct scene *scene);

/* What WRITEs must keep to (RFC 7143, 13.10 to 13.14): bytes, where they are no flags. */
struct lab_limits {
	bool initial_r2t, no_immediate_data;
	uint32_t first_burst, segment;
};
void lab_must_keep(struct scene *scene, unsigned connection, struct lab_limits limits);
