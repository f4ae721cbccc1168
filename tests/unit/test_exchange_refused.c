/*
 * test_exchange_refused.c - answers of a target that end the login at once.
 */
#include <stdlib.h>

#include "exchange_talk.h"

/* ---- what may not be said ---- */

static void operational_says(const char *said, bool passes)
{
	struct talk talk = talk_plain();

	come_to_operational(&talk);
	answer(&talk, TO_FULL, said);
	if (passes)
		must_be_over(&talk);
	else
		must_refuse(&talk, "was not offered, or RFC 7143 does not allow");
	talk_free(&talk);
}

Test(exchange_refused, refuses_values_that_were_not_offered_or_are_out_of_range)
{
	static const char *const passing[] = {"MaxRecvDataSegmentLength=512|",
	    "MaxRecvDataSegmentLength=16777215|", "X-MaxRecvDataSegmentLength=0|",
	    "MaxBurstLength=512|", "FirstBurstLength=16777215|", "DefaultTime2Wait=3600|",
	    "DefaultTime2Retain=0|", "ErrorRecoveryLevel=2|", "MaxConnections=65535|",
	    "MaxOutstandingR2T=1|", "InitialR2T=Yes|", "HeaderDigest=None|", "TargetAlias=|",
	    "TargetPortalGroupTag=65535|"};
	static const char *const others[] = {"MaxRecvDataSegmentLength=0|",
	    "MaxRecvDataSegmentLength=000000|", "MaxRecvDataSegmentLength=511|",
	    "MaxRecvDataSegmentLength=|", "MaxRecvDataSegmentLength=none|",
	    "MaxRecvDataSegmentLength=16777216|", "MaxRecvDataSegmentLength=-1|",
	    "HeaderDigest=None|MaxRecvDataSegmentLength=0|DataDigest=None|",
	    "MaxRecvDataSegmentLength=0", "MaxRecvDataSegmentLength=4096,512|",
	    "MaxBurstLength=511|", "FirstBurstLength=16777216|", "DefaultTime2Wait=3601|",
	    "DefaultTime2Retain=3601|", "ErrorRecoveryLevel=3|", "MaxConnections=0|",
	    "MaxOutstandingR2T=65536|", "InitialR2T=Maybe|", "ImmediateData=yes|",
	    "HeaderDigest=CRC32C|", "HeaderDigest=|", "DataDigest=None,CRC32C|",
	    "DataPDUInOrder=1|", "TargetPortalGroupTag=65536|", "TargetPortalGroupTag=one|"};

	for (unsigned i = 0; i < G_N_ELEMENTS(passing); i++)
		operational_says(passing[i], true);
	for (unsigned i = 0; i < G_N_ELEMENTS(others); i++)
		operational_says(others[i], false);
}

Test(exchange_refused, tells_of_a_value_without_its_control_characters)
{
	struct talk talk = talk_plain();

	come_to_operational(&talk);
	answer(&talk, TO_FULL, "InitialR2T=\033[2J\n|");
	must_refuse(&talk, "InitialR2T=\\033[2J\\n,");
	talk_free(&talk);
}

Test(exchange_refused, refuses_CHAP_where_there_is_no_user_and_methods_that_were_not_offered)
{
	struct talk plain = talk_plain(), chap = talk_chap();

	ask(&plain, TO_OPERATIONAL, "AuthMethod=CHAP,None|");
	answer(&plain, SECURITY, "AuthMethod=CHAP|");
	must_refuse(&plain, "wants CHAP: give -o username=USER,password_file=FILE");
	cr_assert(exchange_wants_proof(plain.exchange));
	talk_free(&plain);
	ask(&chap, TO_OPERATIONAL, "AuthMethod=CHAP,None|");
	answer(&chap, SECURITY, "AuthMethod=KRB5|");
	must_refuse(&chap, "answers AuthMethod=KRB5, which was not offered");
	cr_assert_not(exchange_wants_proof(chap.exchange));
	talk_free(&chap);
}

Test(exchange_refused, refuses_a_target_without_the_header_digests_that_were_asked_for)
{
	static const char *const answers[] = {"HeaderDigest=Reject|", "HeaderDigest=None|", ""};

	for (unsigned i = 0; i < G_N_ELEMENTS(answers); i++) {
		struct talk talk =
		    talk_new((struct login){.target = "iqn.t", .header_digest = true});

		ask(&talk, TO_FULL, "HeaderDigest=CRC32C|");
		answer(&talk, TO_FULL, answers[i]);
		must_refuse(&talk, "does not do header digests");
		cr_assert_not(exchange_is_over(talk.exchange));
		talk_free(&talk);
	}
	struct talk talk = talk_new((struct login){.target = "iqn.t", .header_digest = true});
	ask(&talk, TO_FULL, "HeaderDigest=CRC32C|");
	answer(&talk, TO_FULL, "HeaderDigest=CRC32C|");
	must_be_over(&talk);
	cr_assert(strstr((const char *)talk.out->data + PDU_HEADER_LENGTH, "HeaderDigest=CRC32C"));
	talk_free(&talk);
}

/* ---- PDUs that do not belong here ---- */

/* An answer to an operational request of which one byte is another. */
static void altered(struct talk *talk, unsigned at, uint8_t value, int flags)
{
	uint8_t header[PDU_HEADER_LENGTH];

	*talk = talk_plain();
	come_to_operational(talk);
	login_response(header, talk, flags);
	header[at] = value;
	talk_response(talk, header, NULL, 0);
}

Test(exchange_refused, refuses_answers_that_are_none_to_its_request)
{
	struct talk talk;

	altered(&talk, 0, 0x24, TO_FULL);
	must_refuse(&talk, "answers the login with a PDU of opcode 24h");
	talk_free(&talk);
	altered(&talk, 19, 0x05, TO_FULL);
	must_refuse(&talk, "answers a login that is not ours (ITT)");
	talk_free(&talk);
	altered(&talk, 16, 0x00, TO_FULL);
	must_refuse(&talk, "answers a login that is not ours (ITT)");
	talk_free(&talk);
	altered(&talk, 3, 1, TO_FULL);
	must_refuse(&talk, "speaks version 1 of iSCSI");
	talk_free(&talk);
	altered(&talk, 1, TO_OPERATIONAL, TO_FULL);
	must_refuse(&talk, "is in another stage of the login than asked for");
	talk_free(&talk);
	altered(&talk, 1, TO_FULL | MORE, TO_FULL);
	must_refuse(&talk, "ends a stage of the login in the middle of its text");
	talk_free(&talk);
	altered(&talk, 1, 0x85, TO_FULL); /* from operational to operational */
	must_refuse(&talk, "leaves a stage of the login for one that was not asked for");
	talk_free(&talk);
	/* what is reserved, and versions that it could speak too, are not looked at */
	altered(&talk, 2, 1, TO_FULL);
	must_be_over(&talk);
	talk_free(&talk);
}

Test(exchange_refused, tells_why_a_login_was_rejected)
{
	uint8_t header[PDU_HEADER_LENGTH] = {0x3f, 0x80, 0x04};
	struct talk talk = talk_plain();

	come_to_operational(&talk);
	memset(header + 16, 0xff, 4);
	talk_response(&talk, header, "", 0);
	must_refuse(&talk, "rejects the login (Reject, reason 04h)");
	talk_free(&talk);
}

Test(exchange_refused, refuses_the_end_of_a_stage_that_it_did_not_ask_for)
{
	struct talk talk = talk_plain();

	/* to the full feature phase at once */
	ask(&talk, TO_OPERATIONAL, "AuthMethod=None|");
	answer(&talk, 0x83, "AuthMethod=None|");
	must_refuse(&talk, "leaves a stage of the login for one that was not asked for");
	talk_free(&talk);
	/* libiscsi has not said that it is done */
	talk = talk_chap();
	ask(&talk, SECURITY, "CHAP_A=5|");
	answer(&talk, TO_OPERATIONAL, "");
	must_refuse(&talk, "leaves a stage of the login for one that was not asked for");
	talk_free(&talk);
	talk = talk_chap();
	ask(&talk, SECURITY, "CHAP_A=5|");
	answer(&talk, 0x80, ""); /* to the stage that it is in */
	must_refuse(&talk, "leaves a stage of the login for one that was not asked for");
	talk_free(&talk);
}

Test(exchange_refused, refuses_answers_that_nobody_asked_for)
{
	struct talk talk = talk_plain();

	answer(&talk, SECURITY, ""); /* before the first request */
	cr_assert_eq(talk.verdict, EXCHANGE_REFUSE);
	cr_assert_eq(talk.out->len, 0);
	talk_free(&talk);
	talk = talk_plain();
	ask(&talk, TO_OPERATIONAL, "AuthMethod=None|");
	answer(&talk, TO_OPERATIONAL, "AuthMethod=None|");
	must_tell(&talk, TO_OPERATIONAL, "");
	answer(&talk, SECURITY, "X-A=1|"); /* before libiscsi spoke again */
	must_refuse(&talk, "that nobody asked for");
	talk_free(&talk);
}
