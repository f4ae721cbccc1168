/*
 * discover.c - lunfs discover PORTAL...: which targets portals offer, and what they hold.
 *
 * All portals are asked at once, each for at most login_timeout; with --luns the targets are asked
 * then, some at a time. Whoever does not answer becomes a line on stderr and the exit status, and
 * takes nothing from the others.
 */
#include "discover.h"

#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "lunfs/loop.h"
#include "lunfs/mount.h"
#include "lunfs/printable.h"

#define AT_ONCE    32u   /* sessions; each has file descriptors */
#define CONNECT_MS 5000u /* for TCP, where there are others to be asked */

enum format { LINES, JSON, CONFIG };

static const char usage[] =
    "usage: lunfs discover PORTAL... [--luns] [--json | --config] [-o OPTION,...]";

/* ---- which targets there are ---- */

static void asked_free(gpointer data)
{
	struct asked *asked = data;

	discovery_free(asked->discovery);
	g_clear_pointer(&asked->portals, g_ptr_array_unref);
	g_clear_pointer(&asked->targets, g_ptr_array_unref);
	source_free(asked->source);
	g_free(asked->error);
	g_free(asked);
}

static void found_free(gpointer data)
{
	struct found *found = data;

	luns_free(found->luns);
	g_ptr_array_unref(found->portals);
	g_free(found->name);
	g_free(found);
}

static struct found *discover_find(
    struct discover *discover, const struct asked *asked, const char *name)
{
	struct found *found = g_hash_table_lookup(discover->by_name, name);

	if (found != NULL)
		return found;
	found = g_new0(struct found, 1);
	found->name = g_strdup(name);
	found->asked = asked;
	found->portals = g_ptr_array_new_with_free_func(discovered_portal_free);
	g_ptr_array_add(discover->found, found);
	g_hash_table_insert(discover->by_name, found->name, found);
	return found;
}

static void found_add_portal(struct found *found, const struct discovered_portal *portal)
{
	struct discovered_portal *copy;

	for (unsigned i = 0; i < found->portals->len; i++) {
		struct discovered_portal *old = g_ptr_array_index(found->portals, i);

		if (strcmp(old->host, portal->host) == 0 && old->port == portal->port &&
		    old->tpgt == portal->tpgt) {
			old->asked |= portal->asked;
			return;
		}
	}
	copy = g_new(struct discovered_portal, 1);
	*copy = (struct discovered_portal){.host = g_strdup(portal->host),
	    .port = portal->port,
	    .tpgt = portal->tpgt,
	    .asked = portal->asked};
	g_ptr_array_add(found->portals, copy);
}

/* 0.0.0.0 and ::, which some targets report when they listen everywhere. */
static bool is_no_address(const char *host)
{
	return strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

static bool portals_have(const GPtrArray *portals, const char *host, uint16_t port)
{
	for (unsigned i = 0; i < portals->len; i++) {
		const struct portal *portal = g_ptr_array_index(portals, i);

		if (strcmp(portal->host, host) == 0 && portal->port == port)
			return true;
	}
	return false;
}

GPtrArray *found_portals(const struct found *found)
{
	const struct source *asked = found->asked->source;
	GPtrArray *portals = portals_new();
	bool within_reach = false;

	for (unsigned i = 0; i < found->portals->len; i++) {
		const struct discovered_portal *portal = g_ptr_array_index(found->portals, i);
		const char *host = portal->host;

		if (is_no_address(host) && portal->port != asked->port)
			continue;
		if (is_no_address(host))
			host = asked->host;
		if (!portals_have(portals, host, portal->port))
			portals_add(portals, host, portal->port);
		within_reach |= portal->asked;
	}
	if (!within_reach && !portals_have(portals, asked->host, asked->port))
		portals_add(portals, asked->host, asked->port);
	return portals;
}

static void discover_ask_luns(struct discover *discover);

/* In the order in which they were asked, whoever answered first. */
static void discover_merge(struct discover *discover, const struct asked *asked)
{
	for (unsigned i = 0; i < asked->count; i++) {
		const struct discovered_target *target = g_ptr_array_index(asked->targets, i);
		struct found *found = discover_find(discover, asked, target->name);

		for (unsigned k = 0; k < target->portals->len; k++)
			found_add_portal(found, g_ptr_array_index(target->portals, k));
	}
}

static void discover_answered(GPtrArray *targets, const char *error, void *data)
{
	struct asked *asked = data;
	struct discover *discover = asked->discover;

	asked->error = g_strdup(error);
	asked->targets = targets != NULL ? g_ptr_array_ref(targets) : NULL;
	asked->count = targets != NULL ? targets->len : 0;
	if (--discover->unanswered > 0)
		return;
	for (unsigned i = 0; i < discover->asked->len; i++)
		discover_merge(discover, g_ptr_array_index(discover->asked, i));
	if (discover->with_luns)
		discover_ask_luns(discover);
	if (discover->unfinished == 0)
		loop_quit(discover->loop);
}

static void discover_ask_portal(struct discover *discover, struct asked *asked)
{
	const struct target_plan *plan = asked->plan->portal;

	asked->portals = portals_new();
	portals_add(asked->portals, asked->source->host, asked->source->port);
	target_login_fill(plan, &asked->login);
	asked->login.portals = asked->portals;
	asked->login.isid_qualifier = (uint16_t)discover->unanswered;
	if (discover->asked->len > 1)
		asked->login.connect_ms = MIN(asked->login.login_timeout_ms, CONNECT_MS);
	discover->unanswered++;
	asked->discovery = discovery_start(discover->loop, &asked->login, discover_answered, asked);
}

/* ---- what LUNs they have ---- */

static void discover_finished(void *data)
{
	struct discover *discover = data;

	discover->unfinished--;
	discover_ask_luns(discover);
	if (discover->unfinished == 0)
		loop_quit(discover->loop);
}

static void discover_give_up(void *data)
{
	struct discover *discover = data;

	loop_remove(&discover->timer);
	discover->late = true;
	for (unsigned i = 0; i < discover->next; i++) {
		struct found *found = g_ptr_array_index(discover->found, i);

		luns_give_up(found->luns);
	}
}

/* A target logs in within login_timeout, if at all; its answers take up to command_timeout. */
static void discover_ask_luns(struct discover *discover)
{
	const struct asked *first = g_ptr_array_index(discover->asked, 0);
	const struct options *options = first->plan->portal->options;

	if (discover->timer == NULL && !discover->late)
		discover->timer = loop_timer(discover->loop,
		    options->login_timeout + options->command_timeout, discover_give_up, discover);
	while (!discover->late && discover->unfinished < AT_ONCE &&
	       discover->next < discover->found->len) {
		struct found *found = g_ptr_array_index(discover->found, discover->next++);

		discover->unfinished++;
		found->luns = luns_ask(discover, found, discover_finished, discover);
	}
}

/* ---- what went wrong ---- */

/* A portal that offers nothing hides something, as a rule. */
static void discover_name_empty(struct discover *discover)
{
	for (unsigned i = 0; i < discover->asked->len; i++) {
		struct asked *asked = g_ptr_array_index(discover->asked, i);
		g_autofree char *address = portal_format(asked->source->host, asked->source->port);

		if (asked->error == NULL && asked->count == 0)
			asked->error = g_strdup_printf(
			    "%s offers no targets to the initiator name %s: allow it there, or "
			    "this machine's address",
			    address, asked->plan->portal->initiator_name);
	}
}

/* A line each; true where there was anything. */
static bool discover_tell_errors(const struct discover *discover)
{
	bool failed = false;

	for (unsigned i = 0; i < discover->asked->len; i++) {
		const struct asked *asked = g_ptr_array_index(discover->asked, i);

		if (asked->error == NULL)
			continue;
		g_autofree char *error = printable(asked->error);
		fprintf(stderr, "lunfs: %s\n", error);
		failed = true;
	}
	for (unsigned i = 0; i < discover->found->len; i++) {
		const struct found *found = g_ptr_array_index(discover->found, i);

		if (!discover->with_luns ||
		    (found->luns != NULL && luns_error(found->luns) == NULL))
			continue;
		g_autofree char *error = found->luns != NULL ? printable(luns_error(found->luns))
		                                             : printable(found->name);
		fprintf(stderr, "lunfs: %s%s\n", error,
		    found->luns != NULL ? "" : " was not asked, as the others took too long");
		failed = true;
	}
	return failed;
}

/* ---- the command ---- */

static int discover_run(struct discover *discover, enum format format)
{
	discover->loop = loop_new();
	for (unsigned i = 0; i < discover->asked->len; i++)
		discover_ask_portal(discover, g_ptr_array_index(discover->asked, i));
	loop_run(discover->loop);
	loop_remove(&discover->timer);
	discover_name_empty(discover);
	g_autofree char *text = format == JSON     ? discover_format_json(discover)
	                        : format == CONFIG ? discover_format_config(discover)
	                                           : discover_format_lines(discover);
	fputs(text, stdout);
	bool failed = discover_tell_errors(discover);
	g_ptr_array_set_size(discover->found, 0);
	g_ptr_array_set_size(discover->asked, 0);
	loop_free(discover->loop);
	return failed ? LUNFS_ERROR_FAILED : 0;
}

static bool discover_add_portal(struct discover *discover, const char *text, GError **error)
{
	struct source *source = source_parse_portal(text, error);
	struct asked *asked;

	if (source == NULL)
		return false;
	asked = g_new0(struct asked, 1);
	asked->discover = discover;
	asked->source = source;
	g_ptr_array_add(discover->asked, asked);
	return true;
}

static bool fail_usage(GError **error, const char *text)
{
	g_set_error_literal(error, LUNFS_ERROR, LUNFS_ERROR_USAGE, text);
	return false;
}

/* texts gets the arguments of -o. */
static bool discover_parse(struct discover *discover, GPtrArray *texts, enum format *format,
    int argc, char **argv, GError **error)
{
	bool json = false, config = false;

	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "--luns") == 0)
			discover->with_luns = true;
		else if (strcmp(argv[i], "--json") == 0)
			json = true;
		else if (strcmp(argv[i], "--config") == 0)
			config = true;
		else if (strcmp(argv[i], "-o") == 0 && i + 1 < argc)
			g_ptr_array_add(texts, argv[++i]);
		else if (argv[i][0] == '-')
			return fail_usage(error, usage);
		else if (!discover_add_portal(discover, argv[i], error))
			return false;
	}
	if (json && config)
		return fail_usage(error, "--json and --config exclude each other: leave one out");
	if (discover->asked->len == 0)
		return fail_usage(error, "PORTAL is missing: lunfs discover HOST[:PORT]... "
		                         "[--luns] [--json | --config]");
	*format = json ? JSON : config ? CONFIG : LINES;
	return true;
}

/* -o alone, for --config: what is not of the configuration already. */
static bool discover_take_options(struct discover *discover, const GPtrArray *texts, GError **error)
{
	discover->given = options_new();
	for (unsigned i = 0; i < texts->len; i++)
		if (!options_parse(discover->given, g_ptr_array_index(texts, i), error))
			return false;
	return true;
}

static struct plan *discover_make_plan(const struct source *source, const GPtrArray *texts,
    const struct credentials *environment, GError **error)
{
	g_autofree char *address = portal_format(source->host, source->port);
	g_autofree char *url = g_strdup_printf("iscsi://%s%s%s",
	    source->user != NULL ? source->user : "", source->user != NULL ? "@" : "", address);
	g_autoptr(GPtrArray) list = g_ptr_array_new();

	for (unsigned i = 0; i < texts->len; i++)
		g_ptr_array_add(list, g_ptr_array_index(texts, i));
	g_ptr_array_add(list, NULL);
	return plan_make(url, (const char *const *)list->pdata, environment, true, error);
}

/* Once for each user, so that a secret is asked for, and warned of, once. */
static bool discover_make_plans(struct discover *discover, const GPtrArray *texts,
    const struct credentials *environment, GError **error)
{
	for (unsigned i = 0; i < discover->asked->len; i++) {
		struct asked *asked = g_ptr_array_index(discover->asked, i);

		for (unsigned k = 0; k < i && asked->plan == NULL; k++) {
			const struct asked *other = g_ptr_array_index(discover->asked, k);

			if (g_strcmp0(asked->source->user, other->source->user) == 0)
				asked->plan = other->plan;
		}
		if (asked->plan != NULL)
			continue;
		struct plan *plan = discover_make_plan(asked->source, texts, environment, error);
		if (plan == NULL)
			return false;
		g_ptr_array_add(discover->plans, plan);
		asked->plan = plan;
	}
	return true;
}

static void plan_destroy(gpointer data)
{
	plan_free(data);
}

int cli_discover(int argc, char **argv)
{
	struct credentials *environment = credentials_from_environment();
	struct discover discover = {.with_luns = false};
	g_autoptr(GPtrArray) texts = g_ptr_array_new();
	enum format format = LINES;
	GError *error = NULL;
	int status;

	discover.asked = g_ptr_array_new_with_free_func(asked_free);
	discover.found = g_ptr_array_new_with_free_func(found_free);
	discover.by_name = g_hash_table_new(g_str_hash, g_str_equal);
	discover.plans = g_ptr_array_new_with_free_func(plan_destroy);
	discover.secret_of_environment = environment->password != NULL;
	discover.secret_in_of_environment = environment->password_in != NULL;
	if (discover_parse(&discover, texts, &format, argc, argv, &error) &&
	    discover_take_options(&discover, texts, &error) &&
	    discover_make_plans(&discover, texts, environment, &error))
		status = discover_run(&discover, format);
	else
		status = cli_fail(error);
	g_hash_table_unref(discover.by_name);
	g_ptr_array_unref(discover.found);
	g_ptr_array_unref(discover.asked);
	g_ptr_array_unref(discover.plans);
	credentials_free(environment);
	options_free(discover.given);
	return status;
}
