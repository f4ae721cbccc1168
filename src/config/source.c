/*
 * source.c - SOURCE and PORTAL, as the user writes them, into struct source.
 *
 * The URL is libiscsi's and QEMU's, where 'user%secret@' carries a CHAP secret. A command line,
 * /proc/mounts and the log are read by everybody, so such a URL is refused, and no message repeats
 * a text that might hold a secret: refuse() alone decides that. GUri is not used: it takes the '%'
 * of a secret for an escape and names it.
 */
#include "lunfs/config.h"

#include <arpa/inet.h>
#include <string.h>

#define DEFAULT_PORT 3260
#define LUN_MAX      16383
#define HOST_MAX     253
#define ZONE_MAX     15

static const char scheme[] = "iscsi://";

static bool has_control_characters(const char *text)
{
	for (; *text; text++) {
		if (g_ascii_iscntrl(*text))
			return true;
	}
	return false;
}

/* Returns false, for the caller to return. A text with an '@', a '%' or a '?' may hold a secret. */
static bool refuse(GError **error, const char *text, const char *reason)
{
	bool shown =
	    *text && !strpbrk(text, "@%?") && !has_control_characters(text) && strlen(text) < 512;

	if (shown)
		g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_USAGE, "'%s': %s", text, reason);
	else
		g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_USAGE, "the URL: %s", reason);
	return false;
}

/* Digits only: strtoul() alone would take blanks and signs. */
static bool number_parse(const char *text, guint64 min, guint64 max, guint64 *number)
{
	return g_ascii_string_to_unsigned(text, 10, min, max, number, NULL);
}

/*
 * 'user%secret@' is libiscsi's syntax, 'user:secret@' every other URL's; but an initiator's name is
 * a common CHAP user and has a ':'. The last '@' counts, as a secret may hold an '@' or a '/'
 * itself.
 */
static bool holds_secret(const char *authority_and_path)
{
	const char *at = strrchr(authority_and_path, '@');
	if (!at)
		return false;
	g_autofree char *user = g_strndup(authority_and_path, (gsize)(at - authority_and_path));
	return strchr(user, '%') || (strchr(user, ':') && !initiator_name_valid(user));
}

/* An address, or ADDRESS%ZONE where it is link-local. */
static bool ipv6_valid(const char *host)
{
	const char *percent = strchr(host, '%');
	g_autofree char *address =
	    percent ? g_strndup(host, (gsize)(percent - host)) : g_strdup(host);

	struct in6_addr ignored;
	if (inet_pton(AF_INET6, address, &ignored) != 1)
		return false;
	if (!percent)
		return true;
	const char *zone = percent + 1;
	size_t length = strlen(zone);
	return length > 0 && length <= ZONE_MAX &&
	       strspn(zone, G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "._-") == length;
}

static bool host_name_valid(const char *host)
{
	size_t length = strlen(host);
	if (length == 0 || length > HOST_MAX || !g_utf8_validate(host, -1, NULL))
		return false;
	for (; *host; host++) {
		bool international = (unsigned char)*host >= 0x80;
		if (!g_ascii_isalnum(*host) && !strchr("._-", *host) && !international)
			return false;
	}
	return true;
}

/* '[ADDRESS]' at the start of text: fills the host; *after is what follows the bracket. */
static bool parse_bracketed(
    struct source *source, const char *text, const char **after, GError **error)
{
	const char *end = strchr(text, ']');
	if (!end)
		return refuse(error, source->text, "the ']' after the IPv6 address is missing");

	source->host = g_strndup(text + 1, (gsize)(end - text - 1));
	/* RFC 6874: the '%' before a zone is itself escaped in a URL. */
	char *zone = strstr(source->host, "%25");
	if (zone && zone[3])
		memmove(zone + 1, zone + 3, strlen(zone + 3) + 1);
	if (!ipv6_valid(source->host))
		return refuse(
		    error, source->text, "what stands in brackets is not an IPv6 address");
	*after = end + 1;
	return true;
}

/* [user@]host[:port]; a bare IPv6 address only where no URL's scheme asks for brackets. */
static bool parse_authority(
    struct source *source, const char *authority, bool bare_ipv6, GError **error)
{
	const char *at = strrchr(authority, '@');
	if (at == authority)
		return refuse(error, source->text, "the user before the '@' is missing");
	if (at)
		source->user = g_strndup(authority, (gsize)(at - authority));

	const char *host = at ? at + 1 : authority;
	const char *after = host + strcspn(host, ":");
	if (*host == '[') {
		if (!parse_bracketed(source, host, &after, error))
			return false;
	} else if (bare_ipv6 && ipv6_valid(host)) {
		source->host = g_strdup(host);
		after = host + strlen(host);
	} else if (*after && strchr(after + 1, ':')) {
		return refuse(error, source->text,
		    "an IPv6 address with a port, or in a URL, stands in brackets: [ADDRESS]:PORT");
	} else {
		source->host = g_strndup(host, (gsize)(after - host));
		if (after == host)
			return refuse(error, source->text, "the host is missing");
		if (!host_name_valid(source->host))
			return refuse(
			    error, source->text, "the host is neither a name nor an address");
	}

	guint64 port = DEFAULT_PORT;
	if (*after && (*after != ':' || !number_parse(after + 1, 1, UINT16_MAX, &port)))
		return refuse(error, source->text,
		    "after the host comes nothing, or ':' and a port from 1 to 65535");
	source->port = (uint16_t)port;
	return true;
}

/* iqn[/lun], without the '/' before it. */
static bool parse_path(struct source *source, const char *path, GError **error)
{
	size_t length = strcspn(path, "/");
	g_autofree char *escaped = g_strndup(path, length);
	source->target = g_uri_unescape_string(escaped, NULL);
	if (!source->target)
		return refuse(error, source->text,
		    "the target's name has a '%' that is not followed by two hex digits");
	if (!initiator_name_valid(source->target))
		return refuse(error, source->text,
		    "the target's name must be like iqn.2026-11.org.example:disk, "
		    "eui.0123456789abcdef or naa.0123456789abcdef (see 'lunfs discover')");
	if (path[length] == '\0')
		return true;

	guint64 lun;
	if (!number_parse(path + length + 1, 0, LUN_MAX, &lun))
		return refuse(error, source->text,
		    "after the target's name comes nothing, or '/' and a LUN from 0 to 16383");
	source->lun = (int)lun;
	return true;
}

static bool parse_rest(struct source *source, const char *rest, bool bare_ipv6, GError **error)
{
	if (has_control_characters(rest))
		return refuse(
		    error, source->text, "it holds a control character: check its quoting");
	if (holds_secret(rest))
		return refuse(error, source->text,
		    "a secret in it would be seen by everybody: leave only 'user@' and give the "
		    "secret with "
		    "-o password_file=FILE or the environment variable LIBISCSI_CHAP_PASSWORD");
	if (strpbrk(rest, "?#"))
		return refuse(error, source->text,
		    "a part after '?' or '#' is not understood: leave it out and give options with "
		    "-o");

	size_t length = strcspn(rest, "/");
	g_autofree char *authority = g_strndup(rest, length);
	if (!parse_authority(source, authority, bare_ipv6, error))
		return false;
	const char *path = rest + length;
	return *path == '\0' || path[1] == '\0' || parse_path(source, path + 1, error);
}

static bool is_url(const char *text)
{
	return g_ascii_strncasecmp(text, scheme, strlen(scheme)) == 0;
}

static struct source *source_new(const char *text)
{
	struct source *source = g_new0(struct source, 1);
	source->text = g_strdup(text);
	source->lun = -1;
	return source;
}

struct source *source_parse(const char *text, GError **error)
{
	if (!is_url(text)) {
		refuse(error, text, "SOURCE must be iscsi://[USER@]HOST[:PORT][/IQN[/LUN]]");
		return NULL;
	}
	struct source *source = source_new(text);
	if (parse_rest(source, text + strlen(scheme), false, error))
		return source;
	source_free(source);
	return NULL;
}

struct source *source_parse_portal(const char *text, GError **error)
{
	struct source *source = source_new(text);
	bool parsed = is_url(text) ? parse_rest(source, text + strlen(scheme), false, error)
	                           : parse_rest(source, text, true, error);
	if (parsed && source->target)
		parsed = refuse(error, text,
		    "a portal is HOST[:PORT] or iscsi://[USER@]HOST[:PORT]: leave out the target");
	if (parsed)
		return source;
	source_free(source);
	return NULL;
}

void source_free(struct source *source)
{
	if (!source)
		return;
	g_free(source->text);
	g_free(source->user);
	g_free(source->host);
	g_free(source->target);
	g_free(source);
}
