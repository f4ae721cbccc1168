/*
 * test_guard.c - what the guard lets libiscsi read, and what not.
 */
#undef _FORTIFY_SOURCE /* recv() itself is what is tested */
#include "support/guard_bench.h"

#include <pthread.h>

/* ---- what passes ---- */

static const struct pdu right[] = {
    {DATA_IN, .itt = READ_ITT, .data = 1001},
    {NOP_IN, .flags = 0x80, .itt = UINT32_MAX},
    {R2T, .flags = 0x80, .itt = WRITE_ITT, .offset = 4096, .wanted = 4096},
    {DATA_IN, .flags = 0x81, .itt = READ_ITT, .sn = 1, .offset = 1001, .data = READ_LENGTH - 1001},
    {ASYNC, .flags = 0x80, .itt = UINT32_MAX, .data = 18},
    {SCSI_RESPONSE, .flags = 0x80, .itt = WRITE_ITT},
    {SCSI_RESPONSE, .flags = 0x80, .itt = PLAIN_ITT, .data = 20},
    {TASK_RESPONSE, .flags = 0x80, .itt = NO_ITT},
    {LOGOUT_RESPONSE, .flags = 0x80, .itt = NO_ITT},
};

static GByteArray *right_bytes(bool digest)
{
	GByteArray *bytes = g_byte_array_new();

	for (unsigned i = 0; i < G_N_ELEMENTS(right); i++)
		pdu_append(bytes, &right[i], digest);
	return bytes;
}

static void passes_unchanged(bool digest)
{
	struct ends ends = ends_new(digest);
	g_autoptr(GByteArray) sent = right_bytes(digest), found = g_byte_array_new();

	must_send(&ends, sent);
	cr_assert_eq(read_all(&ends, found), EAGAIN, "%s", guard_finding(ends.guard));
	cr_assert_eq(found->len, sent->len);
	cr_assert_arr_eq(found->data, sent->data, sent->len);
	ends_free(&ends);
}

Test(guard, passes_what_answers_commands_as_it_is)
{
	passes_unchanged(false);
}

Test(guard, passes_what_answers_commands_as_it_is_with_header_digests)
{
	passes_unchanged(true);
}

Test(guard, learns_of_header_digests_from_the_first_read)
{
	for (int really = 0; really < 2; really++) {
		struct ends ends = ends_new(!really);
		g_autoptr(GByteArray) bytes = right_bytes(really);

		ends.digest = really;
		must_send(&ends, bytes);
		must_pass(&ends);
		ends_free(&ends);
	}
}

Test(guard, follows_the_login_without_digests)
{
	struct ends ends = ends_connected();

	send_pdu(&ends, &(struct pdu){LOGIN_RESPONSE, .flags = 0x87, .itt = NO_ITT, .data = 77});
	must_pass(&ends);
	guard_begin(ends.guard, &(struct guard_session){.header_digest = true});
	ends.digest = true;
	guard_expect(ends.guard, READ_ITT, SCSI_DATA_IN, READ_LENGTH, true);
	send_pdu(&ends, &right[0]);
	send_pdu(&ends, &(struct pdu){DATA_IN, .itt = NO_ITT});
	must_refuse(&ends, "the target broke the protocol: Data-In for no command");
	ends_free(&ends);
}

/* Reads pieces of size bytes, by recv() or readv(), until nothing is left; the errno. */
static int read_pieces(const struct ends *ends, size_t size, bool scattered)
{
	g_autofree uint8_t *buffer = g_malloc(size + 2);
	ssize_t n;

	do {
		n = scattered
		        ? readv(ends->user,
		              (struct iovec[]){{buffer, 1}, {buffer + 1, 0}, {buffer + 1, size}}, 3)
		        : recv(ends->user, buffer, size, 0);
	} while (n > 0);
	return errno;
}

static void is_cut_by_readers(bool digest)
{
	static const struct pdu wrong = {DATA_IN, .itt = NO_ITT, .data = 5};
	static const size_t sizes[] = {
	    1, 2, 3, 5, 7, 17, 31, 47, 49, 50, 51, 53, 63, 100, 997, MOST};

	for (unsigned i = 0; i < 2 * G_N_ELEMENTS(sizes); i++) {
		struct ends ends = ends_new(digest);
		g_autoptr(GByteArray) bytes = right_bytes(digest);

		must_send(&ends, bytes);
		cr_assert_eq(read_pieces(&ends, sizes[i / 2], i % 2), EAGAIN, "size %zu: %s",
		    sizes[i / 2], guard_finding(ends.guard));
		send_pdu(&ends, &wrong);
		cr_assert_eq(read_pieces(&ends, sizes[i / 2], i % 2), EPROTO);
		cr_assert(g_str_has_suffix(guard_finding(ends.guard), "Data-In for no command"));
		ends_free(&ends);
	}
}

Test(guard, does_not_mind_how_the_bytes_are_cut)
{
	is_cut_by_readers(false);
}

Test(guard, does_not_mind_how_the_bytes_are_cut_with_header_digests)
{
	is_cut_by_readers(true);
}

Test(guard, gives_a_header_when_it_is_whole)
{
	static const struct pdu nop = {NOP_IN, .flags = 0x80, .itt = UINT32_MAX};

	for (int digest = 0; digest < 2; digest++) {
		struct ends ends = ends_new(digest);
		g_autoptr(GByteArray) bytes = g_byte_array_new();
		uint8_t buffer[HEADER + DIGEST];

		pdu_append(bytes, &nop, digest);
		for (guint at = 0; at < bytes->len; at++) {
			cr_assert_eq(recv(ends.user, buffer, bytes->len, 0), -1, "%u bytes", at);
			cr_assert_eq(errno, EAGAIN);
			cr_assert_eq(send(ends.target, bytes->data + at, 1, 0), 1);
		}
		cr_assert_eq(recv(ends.user, buffer, bytes->len, 0), (ssize_t)bytes->len);
		cr_assert_arr_eq(buffer, bytes->data, bytes->len);
		ends_free(&ends);
	}
}

Test(guard, tells_of_the_end_in_the_middle_of_a_header)
{
	struct ends ends = ends_new(false);
	uint8_t buffer[HEADER] = {NOP_IN};

	cr_assert_eq(send(ends.target, buffer, 20, 0), 20);
	cr_assert_eq(shutdown(ends.target, SHUT_WR), 0);
	cr_assert_eq(recv(ends.user, buffer, HEADER, 0), -1);
	cr_assert_eq(errno, EAGAIN);
	cr_assert_eq(recv(ends.user, buffer, HEADER, 0), 0);
	ends_free(&ends);
}

/* ---- what is refused ---- */

static void refuses(const struct pdu *pdu, const char *what)
{
	for (int digest = 0; digest < 2; digest++) {
		struct ends ends = ends_new(digest);
		g_autofree char *finding =
		    g_strconcat("the target broke the protocol: ", what, NULL);

		send_pdu(&ends, pdu);
		must_refuse(&ends, finding);
		ends_free(&ends);
	}
}

Test(guard, refuses_data_for_a_request_that_is_no_command)
{
	refuses(&(struct pdu){DATA_IN, .itt = NO_ITT, .data = 4}, "Data-In for no command");
	refuses(&(struct pdu){DATA_IN, .itt = UINT32_MAX}, "Data-In for no command");
}

Test(guard, refuses_data_for_a_command_that_reads_nothing)
{
	refuses(&(struct pdu){DATA_IN, .flags = 0x81, .itt = WRITE_ITT},
	    "Data-In for a command that reads nothing");
	refuses(&(struct pdu){DATA_IN, .flags = 0x81, .itt = PLAIN_ITT},
	    "Data-In for a command that reads nothing");
}

Test(guard, refuses_data_beyond_the_end_of_a_command)
{
	static const char what[] = "Data-In beyond the command's data";

	refuses(&(struct pdu){DATA_IN, .itt = READ_ITT, .data = READ_LENGTH + 1}, what);
	refuses(&(struct pdu){DATA_IN, .itt = READ_ITT, .data = 1, .offset = READ_LENGTH}, what);
	refuses(&(struct pdu){DATA_IN, .itt = READ_ITT, .data = 1, .offset = UINT32_MAX}, what);
}

Test(guard, refuses_an_R2T_for_a_request_that_is_no_command)
{
	refuses(&(struct pdu){R2T, .itt = NO_ITT, .wanted = 512}, "R2T for no command");
}

Test(guard, refuses_an_R2T_for_a_command_that_writes_nothing)
{
	refuses(&(struct pdu){R2T, .itt = READ_ITT, .wanted = 512},
	    "R2T for a command that writes nothing");
	refuses(&(struct pdu){R2T, .itt = PLAIN_ITT, .wanted = 512},
	    "R2T for a command that writes nothing");
}

Test(guard, refuses_an_R2T_beyond_the_end_of_a_command)
{
	static const char what[] = "R2T beyond the command's data";

	refuses(&(struct pdu){R2T, .itt = WRITE_ITT, .wanted = WRITE_LENGTH + 1}, what);
	refuses(&(struct pdu){R2T, .itt = WRITE_ITT, .wanted = 1, .offset = WRITE_LENGTH}, what);
	refuses(
	    &(struct pdu){R2T, .itt = WRITE_ITT, .wanted = UINT32_MAX, .offset = UINT32_MAX}, what);
}

Test(guard, refuses_an_R2T_for_nothing_and_one_with_data)
{
	refuses(&(struct pdu){R2T, .itt = WRITE_ITT}, "R2T for 0 bytes");
	refuses(&(struct pdu){R2T, .itt = WRITE_ITT, .wanted = 4, .data = 4}, "R2T with data");
}

Test(guard, refuses_R2Ts_for_more_than_there_is_in_all)
{
	struct ends ends = ends_new(false);
	struct pdu half = {R2T, .itt = WRITE_ITT, .wanted = WRITE_LENGTH / 2};

	send_pdu(&ends, &half);
	half.sn++;
	send_pdu(&ends, &half);
	must_pass(&ends);
	send_pdu(&ends, &(struct pdu){R2T, .itt = WRITE_ITT, .wanted = 1});
	must_refuse(&ends, "the target broke the protocol: R2Ts for more than the command's data");
	ends_free(&ends);
}

Test(guard, refuses_a_response_for_a_request_that_is_no_command)
{
	refuses(&(struct pdu){SCSI_RESPONSE, .flags = 0x80, .itt = NO_ITT},
	    "SCSI Response for no command");
}

Test(guard, refuses_a_second_answer_to_a_command)
{
	static const struct pdu answers[] = {
	    {SCSI_RESPONSE, .flags = 0x80, .itt = INQUIRY_ITT},
	    {DATA_IN, .flags = 0x81, .itt = INQUIRY_ITT, .data = 36},
	};

	for (unsigned i = 0; i < 4; i++) {
		struct ends ends = ends_new(false);

		send_pdu(&ends, &answers[i / 2]);
		must_pass(&ends);
		send_pdu(&ends, &answers[i % 2]);
		must_refuse(&ends,
		    i % 2 ? BROKE "Data-In for no command" : BROKE "SCSI Response for no command");
		ends_free(&ends);
	}
}

Test(guard, refuses_a_response_that_says_the_target_failed)
{
	struct ends ends = ends_new(false);

	send_pdu(
	    &ends, &(struct pdu){SCSI_RESPONSE, .flags = 0x80, .byte2 = 0x01, .itt = WRITE_ITT});
	must_refuse(&ends, "the target failed at a command (iSCSI response code 01h)");
	ends_free(&ends);
}

Test(guard, refuses_more_data_in_a_PDU_than_was_agreed)
{
	static const char what[] = "a PDU with more data than agreed";

	refuses(&(struct pdu){NOP_IN, .itt = UINT32_MAX, .declared = (256u << 10) + 1}, what);
	refuses(&(struct pdu){DATA_IN, .itt = READ_ITT, .declared = 0xffffff}, what);
}

Test(guard, refuses_what_is_of_an_unknown_kind)
{
	refuses(&(struct pdu){LOGIN_RESPONSE, .flags = 0x87, .itt = NO_ITT},
	    "a PDU of an unknown kind (opcode 23h)");
	refuses(&(struct pdu){0x3c, .itt = UINT32_MAX}, "a PDU of an unknown kind (opcode 3Ch)");
}

Test(guard, refuses_a_damaged_header)
{
	struct ends ends = ends_new(true);

	send_pdu(&ends, &right[0]);
	must_pass(&ends);
	send_pdu(&ends, &(struct pdu){NOP_IN, .itt = UINT32_MAX, .damaged = true});
	must_refuse(&ends, "a header came damaged (its digest is wrong)");
	ends_free(&ends);
}

/* RFC 3720, B.4: the digest of an iSCSI - SCSI Read (10) command */
Test(guard, computes_the_digest_of_the_standard)
{
	uint8_t header[HEADER + DIGEST] = {0x01,
	    0xc0, [16] = 0x14, [22] = 0x04, [27] = 0x14, [31] = 0x18, [32] = 0x28, [40] = 0x02};
	const uint8_t digest[] = {0x56, 0x3a, 0x96, 0xd9};

	digest_put(header);
	cr_assert_arr_eq(header + HEADER, digest, sizeof digest);
	cr_assert(digest_is_right(header));
	header[5] ^= 0x10;
	cr_assert_not(digest_is_right(header));
}

Test(guard, refuses_additional_headers)
{
	refuses(&(struct pdu){SCSI_RESPONSE, .flags = 0x80, .itt = READ_ITT, .ahs = 1},
	    "additional headers");
}

/* ---- padding ---- */

Test(guard, zeroes_the_padding_of_text)
{
	static const size_t sizes[] = {1, 2, 3, 48, 50, MOST};

	for (unsigned i = 0; i < 8 * G_N_ELEMENTS(sizes); i++) {
		struct ends ends = ends_new(false);
		uint32_t length = 100 + i % 4;
		uint8_t buffer[400] = {0};
		size_t size = MIN(sizes[i / 8], 200), at = 0;
		ssize_t n;

		send_pdu(&ends, &(struct pdu){TEXT_RESPONSE, .itt = NO_ITT, .data = length});
		while ((n = i & 4 ? readv(ends.user, &(struct iovec){buffer + at, size}, 1)
		                  : recv(ends.user, buffer + at, size, 0)) > 0)
			at += (size_t)n;
		cr_assert_eq(at, HEADER + ((length + 3) & ~3u));
		for (size_t k = HEADER; k < at; k++)
			cr_assert_eq(buffer[k], k < HEADER + length ? 0xa5 : 0, "byte %zu", k);
		ends_free(&ends);
	}
}

/* ---- whom it concerns ---- */

Test(guard, leaves_other_descriptors_alone)
{
	struct ends ends = ends_new(false), others = ends_new(false);
	struct iovec halves[2];
	uint8_t buffer[HEADER];

	guard_watch(ends.guard);
	halves[0] = (struct iovec){buffer, 20};
	halves[1] = (struct iovec){buffer + 20, 28};
	send_pdu(&others, &(struct pdu){R2T, .itt = NO_ITT});
	send_pdu(&others, &(struct pdu){R2T, .itt = NO_ITT});
	cr_assert_eq(recv(others.user, buffer, HEADER, 0), HEADER);
	cr_assert_eq(readv(others.user, halves, 2), HEADER);
	cr_assert_eq(recv(-1, buffer, HEADER, 0), -1);
	cr_assert_eq(errno, EBADF);
	cr_assert_eq(readv(-1, halves, 2), -1);
	cr_assert_eq(errno, EBADF);
	cr_assert(guard_is_blind(ends.guard));
	cr_assert(guard_is_blind(others.guard));
	ends_free(&others);
	ends_free(&ends);
}

Test(guard, leaves_its_own_alone_while_libiscsi_does_not_work)
{
	struct ends ends = ends_new(false);
	uint8_t buffer[HEADER];

	send_pdu(&ends, &(struct pdu){R2T, .itt = NO_ITT});
	cr_assert_eq(recv(ends.user, buffer, HEADER, MSG_PEEK), HEADER);
	guard_watch(NULL);
	cr_assert_eq(recv(ends.user, buffer, HEADER, 0), HEADER);
	cr_assert(guard_is_blind(ends.guard));
	ends_free(&ends);
}

static void *read_elsewhere(void *data)
{
	uint8_t buffer[HEADER];

	cr_assert_eq(recv(*(int *)data, buffer, HEADER, 0), HEADER);
	return NULL;
}

Test(guard, is_not_on_other_threads)
{
	struct ends ends = ends_new(false);
	pthread_t thread;

	send_pdu(&ends, &(struct pdu){R2T, .itt = NO_ITT});
	cr_assert_eq(pthread_create(&thread, NULL, read_elsewhere, &ends.user), 0);
	pthread_join(thread, NULL);
	cr_assert(guard_is_blind(ends.guard));
	ends_free(&ends);
}

/* ---- many commands ---- */

static bool is_expected(struct ends *ends, uint32_t itt)
{
	uint8_t buffer[HEADER];

	guard_watch(ends->guard); /* another turn */
	send_pdu(ends, &(struct pdu){DATA_IN, .itt = itt});
	return recv(ends->user, buffer, HEADER, 0) == HEADER;
}

/* Against an array of those that are outstanding; ITTs wrap around, and stay away for long. */
Test(guard, finds_each_of_many_commands)
{
	struct ends ends = ends_new(false);
	g_autoptr(GRand) random = g_rand_new_with_seed(1);
	g_autoptr(GArray) there = g_array_new(FALSE, FALSE, sizeof(uint32_t));
	uint32_t next = UINT32_MAX - 5000;

	for (unsigned i = 0; i < 20000; i++) {
		guint want = 700 + 600 * (i / 1000 % 2);

		if (there->len < want) {
			guard_expect(ends.guard, next, SCSI_DATA_IN, 512, true);
			g_array_append_val(there, next);
			next += next + 1 == UINT32_MAX ? 2 : 1;
		} else {
			guint at = (guint)g_rand_int(random) % there->len;
			uint32_t itt = g_array_index(there, uint32_t, at);

			cr_assert(is_expected(&ends, itt), "step %u", i);
			cr_assert(guard_settle(ends.guard, itt), "step %u", i);
			g_array_remove_index_fast(there, at);
		}
	}
	for (guint i = 0; i < there->len; i++)
		cr_assert(is_expected(&ends, g_array_index(there, uint32_t, i)));
	cr_assert_not(is_expected(&ends, next));
	ends_free(&ends);
}

/* ---- many PDUs ---- */

/* Who sends faster than libiscsi reads does not keep the loop from all else. */
Test(guard, hands_over_so_many_PDUs_in_one_turn)
{
	struct ends ends = ends_new(true);
	struct pdu bare = {NOP_IN, .itt = UINT32_MAX, .ttt = UINT32_MAX, .data = 3};
	g_autoptr(GByteArray) found = g_byte_array_new();

	for (unsigned i = 0; i < 3000; i++)
		send_pdu(&ends, &bare);
	for (unsigned turn = 0; turn < 3; turn++) {
		guard_watch(ends.guard);
		g_byte_array_set_size(found, 0);
		cr_assert_eq(read_all(&ends, found), EAGAIN);
		cr_assert_eq(found->len / (HEADER + DIGEST + 4), turn < 2 ? 1024 : 952);
	}
	ends_free(&ends);
}
