/*
 * credentials.h - all the ways to a secret; private to src/config and its tests.
 */
#pragma once

#include "lunfs/config.h"

struct credentials_request {
	const struct options *options;         /* their paths are absolute */
	const char *url_user;                  /* or NULL */
	const struct credentials *environment; /* or NULL */
	const char *target;    /* its name, for a prompt and for "lunfs.NAME.password"; or NULL */
	const char *directory; /* $CREDENTIALS_DIRECTORY, or NULL */
	bool ask;              /* on the terminal, for a secret that is missing */
	bool *asked;           /* set where something was asked for; or NULL */
};

/* As credentials_resolve(); a secret is from the options, systemd's credentials, the environment,
 * the terminal. */
struct credentials *credentials_find(const struct credentials_request *request, GError **error);
/* The rules about names, lengths and equal secrets. */
bool credentials_check(const struct credentials *credentials, bool weak, GError **error);
/* Whom it will not please: of secrets that the rules allow; or NULL. Free with g_free(). */
char *credentials_warning(const struct credentials *credentials);
/* The secret of a file as password_file names it; key is for messages. Free with secret_free(). */
char *credentials_read_file(const char *path, const char *key, GError **error);
struct credentials *credentials_copy(const struct credentials *credentials);
bool credentials_equal(const struct credentials *a, const struct credentials *b);
