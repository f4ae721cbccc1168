/*
 * login_status.h - Status-Class and Status-Detail of a Login Response (RFC 7143, 11.13.5), class
 * << 8 | detail, and what they mean for who asked.
 */
#pragma once

#include <stdbool.h>

struct login;

enum login_status {
	LOGIN_MOVED_TEMPORARILY = 0x0101,
	LOGIN_MOVED_PERMANENTLY = 0x0102,
	LOGIN_AUTHENTICATION_FAILED = 0x0201,
	LOGIN_FORBIDDEN = 0x0202,
	LOGIN_NOT_FOUND = 0x0203,
	LOGIN_REMOVED = 0x0204,
	LOGIN_TOO_MANY = 0x0206,
	LOGIN_SERVICE_UNAVAILABLE = 0x0301,
	LOGIN_OUT_OF_RESOURCES = 0x0302,
};

/* Its class: is it the initiator's fault (02h)? Or does the target take no login now, but will
 * (03h)? */
bool login_is_refused(int status);
bool login_is_put_off(int status);
/* Does a target say so for a moment when it starts, before it knows whom it serves? */
bool login_may_pass(int status);
/*
 * One sentence that says what the target at address refused and what to do; free with g_free().
 * NULL: success, or -1.
 */
char *login_status_explain(int status, const struct login *login, const char *address);
