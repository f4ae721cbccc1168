/*
 * login_status.c - what the status of a Login Response means: see login_status.h.
 */
#include "login_status.h"

#include <glib.h>

#include "lunfs/iscsi.h"

bool login_is_refused(int status)
{
	return status >> 8 == 2;
}

bool login_is_put_off(int status)
{
	return status >> 8 == 3;
}

bool login_may_pass(int status)
{
	return status == LOGIN_NOT_FOUND || status == LOGIN_REMOVED || status == LOGIN_TOO_MANY;
}

/* Those that no user can do much about have the standard's words. */
static const char *status_words(int status)
{
	static const struct {
		int status;
		const char *words;
	} all[] = {
	    {0x0200, "initiator error"},
	    {0x0205, "unsupported version of iSCSI"},
	    {0x0207, "missing parameter"},
	    {0x0208, "cannot include in session"},
	    {0x0209, "session type not supported"},
	    {0x020a, "session does not exist"},
	    {0x020b, "invalid request during login"},
	    {0x0300, "target error"},
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(all); i++)
		if (all[i].status == status)
			return all[i].words;
	return "unknown status";
}

char *login_status_explain(int status, const struct login *login, const char *address)
{
	const char *name = login->target != NULL ? login->target : address;

	switch (status) {
	case LOGIN_AUTHENTICATION_FAILED:
		if (login->username == NULL)
			return g_strdup_printf(
			    "%s wants CHAP: give -o username=USER,password_file=FILE", name);
		return g_strdup_printf(
		    "%s refused CHAP user '%s': check the user name and the password "
		    "(initiator name: %s)",
		    name, login->username, login->initiator_name);
	case LOGIN_FORBIDDEN:
		return g_strdup_printf(
		    "%s does not allow this initiator: allow the initiator name %s at the target",
		    name, login->initiator_name);
	case LOGIN_NOT_FOUND:
	case LOGIN_REMOVED:
		return g_strdup_printf(
		    "%s: no target %s here for the initiator name %s: "
		    "'lunfs discover %s' lists the targets; else allow this name there",
		    address, name, login->initiator_name, address);
	case LOGIN_SERVICE_UNAVAILABLE: /* Linux's says so of a name that it does not know, too */
		return g_strdup_printf("%s takes no login now (status 0301h): try again later, and "
		                       "check that it is there and enabled",
		    name);
	case LOGIN_TOO_MANY:
	case LOGIN_OUT_OF_RESOURCES:
		return g_strdup_printf("%s takes no login now (status %04Xh): try again later",
		    name, (unsigned)status);
	default:
		return status <= 0 ? NULL
		                   : g_strdup_printf("%s refused the login: %s (status %04Xh)",
		                         name, status_words(status), (unsigned)status);
	}
}
