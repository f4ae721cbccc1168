/*
 * context.c - libiscsi's context, set up for a login.
 */
#include "context.h"

#include <glib.h>
#include <stdlib.h>
#include <sys/random.h>

#include <iscsi/iscsi.h>

#include "lunfs/iscsi.h"

/* libiscsi draws the challenge of mutual CHAP from rand(), and seeds it once with 32 bits. */
static void seed_challenges(void)
{
	unsigned seed = 0;

	if (getrandom(&seed, sizeof seed, 0) == sizeof seed)
		srand(seed);
}

static void context_set_session(struct iscsi_context *context, const struct login *login)
{
	iscsi_set_noautoreconnect(context, 1);
	iscsi_set_isid_random(context, login->isid_random, login->isid_qualifier);
	iscsi_set_session_type(
	    context, login->target != NULL ? ISCSI_SESSION_NORMAL : ISCSI_SESSION_DISCOVERY);
	/* The relay of a discovery does not know digests. */
	iscsi_set_header_digest(context, login->header_digest && login->target != NULL
	                                     ? ISCSI_HEADER_DIGEST_CRC32C
	                                     : ISCSI_HEADER_DIGEST_NONE);
	if (login->target != NULL)
		iscsi_set_targetname(context, login->target);
}

static void context_set_secrets(struct iscsi_context *context, const struct login *login)
{
	/* libiscsi takes over the first StatSN, whatever it is, only behind a security stage, and
	 * has one only where there is a user: exchange.c offers no CHAP for this one. */
	iscsi_set_initiator_username_pwd(context,
	    login->username != NULL ? login->username : "none",
	    login->username != NULL ? login->password : "none");
	if (login->username_in != NULL)
		iscsi_set_target_username_pwd(context, login->username_in, login->password_in);
}

struct iscsi_context *context_new(const struct login *login)
{
	struct iscsi_context *context = iscsi_create_context(login->initiator_name);

	if (context == NULL)
		g_error("out of memory");
	seed_challenges(); /* iscsi_create_context() has done so, too */
	context_set_session(context, login);
	context_set_secrets(context, login);
	return context;
}
