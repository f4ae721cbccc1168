/*
 * places.c - where a user's files are.
 */
#include "places.h"

#include <pwd.h>
#include <unistd.h>

char *place_home(void)
{
	const char *home = g_getenv("HOME");

	if (!home || !g_path_is_absolute(home)) {
		const struct passwd *entry = getpwuid(geteuid());
		home = entry ? entry->pw_dir : NULL;
	}
	return home && g_path_is_absolute(home) ? g_strdup(home) : NULL;
}

char *place_find(const char *variable, const char *below)
{
	const char *given = g_getenv(variable);
	g_autofree char *home = NULL;

	if (given && g_path_is_absolute(given))
		return g_strdup(given);
	home = place_home();
	return home ? g_build_filename(home, below, NULL) : NULL;
}
