/*
 * digest.c - the header digest, CRC32C, from both sides (RFC 7143, 7.7, 13.1).
 *
 * The scripted target checks it in each PDU that comes: a wrong one is a complaint.
 */
#include "full.h"

#include <string.h>

TestSuite(digest, .timeout = 120);

#define WANTED "header_digest=crc32c"
#define AGREED_ON                                                                                  \
	&(struct script_parameters)                                                                \
	{                                                                                          \
		.header_digest = true                                                              \
	}

static void must_say_key(struct full *full, const char *key, const char *value)
{
	unsigned times;
	g_autofree char *said = script_traffic_key(full->target, 0, key, &times);

	cr_assert_str_eq(said, value, "%s=%s", key, said);
	cr_assert_eq(times, 1);
}

static void read_and_write(struct full *full)
{
	static const size_t lengths[] = {512, 4096, PIECE, MIB(1)};

	for (unsigned i = 0; i < G_N_ELEMENTS(lengths); i++) {
		full_must_read(full, 0, lengths[i]);
		full_must_write(full, MIB(2), lengths[i], i);
	}
}

Test(digest, each_PDU_that_leaves_has_its_digest__rfc7143_13_1)
{
	struct full full = full_begin(AGREED_ON, WANTED ",noop_out_interval=1s");

	must_say_key(&full, "HeaderDigest", "CRC32C");
	read_and_write(&full);
	script_target_ping(full.target);
	full_await(&full, full.from, true, NOP_OUT, 2); /* the keepalive's, too */
	full_must_be_the_same_session(&full);
	full_end(&full);
}

Test(digest, data_out_in_small_pieces_has_its_digests__rfc7143_13_1)
{
	struct full full = full_begin(&(struct script_parameters){.header_digest = true,
	                                  .initial_r2t = true,
	                                  .no_immediate_data = true,
	                                  .max_burst = 4096,
	                                  .receive_segment = 1000,
	                                  .separate_status = true},
	    WANTED);

	read_and_write(&full);
	full_must_read_at_once(&full, 16);
	full_must_be_the_same_session(&full);
	full_end(&full);
}

Test(digest, a_session_that_begins_anew_has_its_digest_again__rfc7143_13_1)
{
	struct full full = full_begin(AGREED_ON, WANTED);

	script_target_drop(full.target, SCRIPT_RST);
	read_and_write(&full);
	full_must_be_begun_anew(&full, 1);
	full_end(&full);
}

Test(digest, without_being_asked_for_it_is_not_there__rfc7143_13_1)
{
	struct full full = full_begin(AGREED_ON, NULL);

	must_say_key(&full, "HeaderDigest", "None");
	read_and_write(&full);
	full_end(&full);
}

static bool give_it_a_LUN(struct script_hook *hook, GByteArray *pdu, void *own)
{
	(void)hook;
	(void)own;
	if ((pdu->data[0] & 0x3f) == NOP_IN)
		memcpy(pdu->data + 8, "\x41\x02\x03\x04\x05\x06\x07\x08", 8);
	return true;
}

/* What is made right on its way has the digest of what it has become. */
Test(digest, all_kinds_of_PDUs_have_theirs__rfc7143_13_1)
{
	struct full full = full_begin(AGREED_ON, WANTED);
	struct script_traffic pong;

	script_target_hook(full.target, &(struct script_hooks){.leaves = give_it_a_LUN});
	script_target_message(full.target, &(struct script_message){.event = 255});
	full_must_read(&full, 0, PIECE);
	full_ping(&full);
	pong = full_nth(&full, full.from, true, NOP_OUT, 0);
	cr_assert_arr_eq(pong.header + 8, "\x41\x02\x03\x04\x05\x06\x07\x08", 8, "another LUN");
	full_must_be_the_same_session(&full);
	script_target_message(full.target, &(struct script_message){.event = 1, .parameter3 = 3});
	full_await(&full, full.from, true, LOGOUT, 1);
	full_must_write(&full, 0, PIECE, 1);
	full_must_be_begun_anew(&full, 1);
	full_end(&full);
}

/* ---- a wrong one ---- */

struct spoiling {
	uint8_t opcode;
	unsigned times, done;
};

static bool spoil(struct script_hook *hook, GByteArray *pdu, void *own)
{
	struct spoiling *spoiling = own;

	if ((pdu->data[0] & 0x3f) == spoiling->opcode && spoiling->times > 0) {
		spoiling->times--;
		spoiling->done++;
		script_hook_spoil_digest(hook);
	}
	return true;
}

static void begins_anew_where_it_is_wrong(
    uint8_t opcode, const struct script_parameters *parameters, bool writes)
{
	struct full full = full_begin(parameters, WANTED);
	struct spoiling spoiling = {opcode, 1, 0};

	full_must_read(&full, MIB(1), PIECE);
	script_target_hook(full.target, &(struct script_hooks){.leaves = spoil, .own = &spoiling});
	if (writes)
		full_must_write(&full, 0, PIECE, 1);
	else
		full_must_read(&full, 0, PIECE);
	cr_assert_eq(spoiling.done, 1);
	full_must_be_begun_anew(&full, 1);
	full_must_read(&full, MIB(2), PIECE);
	full_end(&full);
}

Test(digest, a_Data_In_with_a_wrong_one_begins_the_session_anew__rfc7143_7_7)
{
	begins_anew_where_it_is_wrong(DATA_IN, AGREED_ON, false);
}

Test(digest, a_response_with_a_wrong_one_begins_the_session_anew__rfc7143_7_7)
{
	begins_anew_where_it_is_wrong(SCSI_RESPONSE, AGREED_ON, true);
}

Test(digest, an_R2T_with_a_wrong_one_begins_the_session_anew__rfc7143_7_7)
{
	begins_anew_where_it_is_wrong(R2T,
	    &(struct script_parameters){
	        .header_digest = true, .initial_r2t = true, .no_immediate_data = true},
	    true);
}

Test(digest, a_status_apart_with_a_wrong_one_begins_the_session_anew__rfc7143_7_7)
{
	begins_anew_where_it_is_wrong(SCSI_RESPONSE,
	    &(struct script_parameters){.header_digest = true, .separate_status = true}, false);
}

Test(digest, a_NOP_In_with_a_wrong_one_is_not_answered__rfc7143_7_7)
{
	struct full full = full_begin(AGREED_ON, WANTED);
	struct spoiling spoiling = {NOP_IN, 1, 0};

	script_target_hook(full.target, &(struct script_hooks){.leaves = spoil, .own = &spoiling});
	script_target_ping(full.target);
	script_scene_await_login(&full.scene, full.logins + 1);
	full_must_read(&full, 0, PIECE);
	cr_assert_eq(full_count(&full, full.from, true, NOP_OUT), 0, "it was answered");
	full_must_be_begun_anew(&full, 1);
	full_end(&full);
}

/* ---- no agreement ---- */

/* The mount fails, and says so in one line with these words. */
static void is_refused(struct full *full, const char *options, const char *words)
{
	char *mnt = stage_directory(full->scene.stage, "refused", 0);
	struct result *result = lunfs(full->scene.stage,
	    "mount iscsi://127.0.0.1:%u/" SCENE_IQN " %s -o login_timeout=5s%s",
	    script_target_port(full->target), mnt, options);

	cr_assert_neq(result->status, 0, "it was mounted");
	cr_assert(!is_mounted(mnt));
	cr_assert_eq(count_words(result->err, "\n"), 1, "not one line: %s", result->err);
	cr_assert(strcasestr(result->err, words), "nothing of %s: %s", words, result->err);
	cr_assert_eq(full_count(full, 0, true, SCSI_COMMAND), 0, "a command was sent");
	script_target_stop(full->target);
}

Test(digest, who_wants_it_and_gets_None_is_told_in_one_line__rfc7143_13_1)
{
	struct full full = full_target(NULL);

	is_refused(&full, "," WANTED, "digest");
}

/* The target's answer becomes another one. */
static bool answer_otherwise(struct script_hook *hook, GByteArray *pdu, void *own)
{
	static const char none[] = "HeaderDigest=None";
	const char *other = own;
	g_autoptr(GByteArray) text = g_byte_array_new();

	(void)hook;
	if ((pdu->data[0] & 0x3f) != LOGIN_RESPONSE || pdu->len <= 48 || pdu->data[pdu->len - 1])
		return true;
	for (guint at = 48; at < pdu->len;) {
		const char *pair = (const char *)pdu->data + at;
		const char *said = strcmp(pair, none) == 0 ? other : pair;

		g_byte_array_append(text, (const uint8_t *)said, (guint)strlen(said) + 1);
		at += (guint)strlen(pair) + 1;
	}
	g_byte_array_set_size(pdu, 48);
	g_byte_array_append(pdu, text->data, text->len);
	return true;
}

static void is_refused_at(const char *answer, const char *options)
{
	struct full full = full_target(NULL);
	char said[32];

	g_strlcpy(said, answer, sizeof(said));
	script_target_hook(
	    full.target, &(struct script_hooks){.leaves = answer_otherwise, .own = said});
	is_refused(&full, options, "digest");
}

Test(digest, who_wants_it_and_gets_Reject_is_told_in_one_line__rfc7143_6_2)
{
	is_refused_at("HeaderDigest=Reject", "," WANTED);
}

Test(digest, a_digest_that_nobody_offered_is_refused_in_one_line__rfc7143_6_2)
{
	is_refused_at("HeaderDigest=CRC32C", "");
}

Test(digest, who_does_not_want_it_is_told_in_one_line_of_a_target_that_insists__rfc7143_13_1)
{
	struct full full = full_target(&(struct script_parameters){.header_digest_only = true});

	/* of the reason it says nothing: 0200h, "initiator error" */
	is_refused(&full, "", "refused the login");
}

/* Of a rejected key the default stays: None. */
Test(digest, who_does_not_want_it_goes_on_behind_a_Reject__rfc7143_6_2)
{
	struct full full = full_target(NULL);
	char said[] = "HeaderDigest=Reject";

	script_target_hook(
	    full.target, &(struct script_hooks){.leaves = answer_otherwise, .own = said});
	full_mount(&full, NULL);
	read_and_write(&full);
	full_must_be_the_same_session(&full);
	full_end(&full);
}
