/*
 * plan.c - what SOURCE, the configuration and -o mean all told: which targets, with what.
 *
 * A plan keeps what it was made from, so that it can be made again from files that changed: by then
 * the process is in the background, in another directory, and has neither terminal nor environment.
 */
#include "credentials.h"
#include "lunfs/log.h"
#include "nearest.h"
#include "option_keys.h"
#include "terminal.h"

#include <string.h>

/* ---- targets ---- */

void target_plan_free(gpointer data)
{
	struct target_plan *target = data;

	if (!target)
		return;
	g_free(target->name);
	g_free(target->iqn);
	g_clear_pointer(&target->portals, g_ptr_array_unref);
	g_clear_pointer(&target->luns, g_array_unref);
	options_free(target->options);
	credentials_free(target->credentials);
	g_free(target->initiator_name);
	g_free(target->fault);
	g_free(target);
}

static bool luns_equal(const GArray *a, const GArray *b)
{
	if (!a || !b)
		return a == b;
	return a->len == b->len && memcmp(a->data, b->data, a->len * sizeof(uint16_t)) == 0;
}

bool target_plan_equal(const struct target_plan *a, const struct target_plan *b)
{
	return g_strcmp0(a->name, b->name) == 0 && g_strcmp0(a->iqn, b->iqn) == 0 &&
	       portals_equal(a->portals, b->portals) && luns_equal(a->luns, b->luns) &&
	       options_equal(a->options, b->options) &&
	       credentials_equal(a->credentials, b->credentials) &&
	       g_strcmp0(a->initiator_name, b->initiator_name) == 0 &&
	       g_strcmp0(a->fault, b->fault) == 0;
}

/* ---- making ---- */

/* What a plan is made with. */
struct maker {
	struct plan *plan;
	struct config *config;
	const struct plan *old; /* which this one is to replace, or NULL */
	const char *url_user;
	bool ask;
};

static void wrong(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void wrong(GError **error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	if (error)
		*error = g_error_new_valist(LUNFS_ERROR, LUNFS_ERROR_USAGE, format, arguments);
	va_end(arguments);
}

/* A layer of -o above these. */
static struct options *options_for(
    const struct maker *maker, const struct options *below, GError **error)
{
	struct options *options = options_copy(below);

	for (char **text = maker->plan->texts; text && *text; text++) {
		if (!options_parse(options, *text, error)) {
			options_free(options);
			return NULL;
		}
	}
	options_anchor_paths(options, maker->plan->directory);
	return options;
}

/* The target of the older plan that this one takes the place of. */
static const struct target_plan *find_old(
    const struct maker *maker, const struct target_plan *target)
{
	const struct plan *old = maker->old;

	if (!old || !target->name)
		return old ? old->portal : NULL;
	for (unsigned i = 0; i < old->targets->len; i++) {
		const struct target_plan *other = g_ptr_array_index(old->targets, i);

		if (strcmp(other->name, target->name) == 0)
			return other;
	}
	return NULL;
}

/* What was typed for a target stands in for the environment, as long as it is the same user's. */
static const struct credentials *given_before(
    const struct maker *maker, const struct target_plan *target)
{
	const struct target_plan *old = find_old(maker, target);
	const char *user = target->options->username ? target->options->username : maker->url_user;

	if (old && old->asked && old->credentials &&
	    (!user || g_strcmp0(user, old->credentials->username) == 0))
		return old->credentials;
	return maker->plan->all ? NULL : maker->plan->environment;
}

/* Its options are there; false with an error. */
static bool find_credentials(const struct maker *maker, struct target_plan *target, GError **error)
{
	const struct credentials *before = given_before(maker, target);
	struct plan *plan = maker->plan;
	const struct credentials_request request = {
	    .options = target->options,
	    .url_user = maker->url_user,
	    .environment = before,
	    .target = target->name,
	    .directory = g_getenv("CREDENTIALS_DIRECTORY"),
	    .ask = maker->ask,
	    .asked = &target->asked,
	};
	GError *reason = NULL;

	target->asked = before && before != plan->environment;
	target->credentials = credentials_find(&request, &reason);
	if (target->credentials)
		return true;
	if (!plan->all) {
		g_propagate_error(error, reason);
		return false;
	}
	target->fault = g_strdup(reason->message);
	g_error_free(reason);
	return true;
}

/* name, iqn and luns are left to the caller to set before, as options; owns target in any case. */
static struct target_plan *finish_target(
    const struct maker *maker, struct target_plan *target, GError **error)
{
	target->initiator_name = initiator_name_get(target->options->initiator_name, error);
	if (target->initiator_name && find_credentials(maker, target, error))
		return target;
	target_plan_free(target);
	return NULL;
}

static struct target_plan *make_of_section(
    const struct maker *maker, const struct config_section *section, GError **error)
{
	struct options *options = options_for(maker, section->options, error);

	if (!options) {
		g_prefix_error(error, "target '%s': ", section->name);
		return NULL;
	}
	struct target_plan *target = g_new(struct target_plan, 1);
	*target = (struct target_plan){
	    .name = g_strdup(section->name),
	    .iqn = g_strdup(section->iqn),
	    .portals = portals_copy(section->portals),
	    .luns = section->luns ? g_array_copy(section->luns) : NULL,
	    .options = options,
	};
	return finish_target(maker, target, error);
}

/* The files where it was looked for, and those where it could not be. */
static char *describe_files(const struct maker *maker)
{
	g_autofree char *files = g_strjoinv(" and ", maker->plan->files);
	g_autoptr(GString) text = g_string_new(NULL);
	const GPtrArray *unreadable = maker->config->unreadable;

	g_string_append_printf(text, "looked for in %s", files);
	for (unsigned i = 0; i < unreadable->len; i++)
		g_string_append_printf(text, ", but %s may not be read by this user",
		    (const char *)g_ptr_array_index(unreadable, i));
	return g_strdup(text->str);
}

static bool plan_all(const struct maker *maker, GError **error)
{
	struct plan *plan = maker->plan;
	const GPtrArray *sections = maker->config->sections;

	plan->all = plan->several = true;
	plan->options = options_for(maker, maker->config->defaults, error);
	if (!plan->options)
		return false;
	if (sections->len == 0) {
		g_autofree char *files = describe_files(maker);
		wrong(error,
		    "no target is configured (%s): 'lunfs discover --config PORTAL' prints "
		    "sections for it",
		    files);
		return false;
	}
	for (unsigned i = 0; i < sections->len; i++) {
		struct target_plan *target =
		    make_of_section(maker, g_ptr_array_index(sections, i), error);

		if (!target)
			return false;
		g_ptr_array_add(plan->targets, target);
	}
	return true;
}

static void fail_unknown(const struct maker *maker, GError **error)
{
	const char *source = maker->plan->source;
	const GPtrArray *sections = maker->config->sections;
	struct nearest nearest = nearest_to(source);
	g_autofree char *name_fault = config_name_fault(source);
	g_autofree char *files = describe_files(maker);

	for (unsigned i = 0; i < sections->len; i++) {
		const struct config_section *section = g_ptr_array_index(sections, i);
		nearest_offer(&nearest, section->name);
	}
	nearest_offer(&nearest, "all");
	if (name_fault || strpbrk(source, "@%?"))
		/* It says what a URL is, and repeats no secret. */
		source_free(source_parse(source, error));
	else if (nearest.found)
		wrong(error, "no target '%s' is configured: did you mean '%s'? (%s)", source,
		    nearest.found, files);
	else
		wrong(error,
		    "no target '%s' is configured: name one, or give a URL: iscsi://HOST/IQN (%s)",
		    source, files);
}

static bool plan_section(const struct maker *maker, GError **error)
{
	struct plan *plan = maker->plan;
	const struct config_section *section = NULL;
	struct target_plan *target;

	for (unsigned i = 0; i < maker->config->sections->len && !section; i++) {
		const struct config_section *each = g_ptr_array_index(maker->config->sections, i);

		if (strcmp(each->name, plan->source) == 0)
			section = each;
	}
	if (!section) {
		fail_unknown(maker, error);
		return false;
	}
	target = make_of_section(maker, section, error);
	if (!target)
		return false;
	g_ptr_array_add(plan->targets, target);
	plan->options = options_copy(target->options);
	plan->one_lun = target->luns && target->luns->len == 1;
	return true;
}

static bool plan_source(struct maker *maker, const struct source *source, GError **error)
{
	struct plan *plan = maker->plan;
	struct options *options = options_for(maker, maker->config->defaults, error);
	struct target_plan *target;

	if (!options)
		return false;
	target = g_new(struct target_plan, 1);
	*target = (struct target_plan){
	    .name = g_strdup(source->target),
	    .iqn = g_strdup(source->target),
	    .portals = portals_new(),
	    .options = options,
	};
	portals_add(target->portals, source->host, source->port);
	if (source->lun >= 0) {
		uint16_t lun = (uint16_t)source->lun;

		target->luns = g_array_new(FALSE, FALSE, sizeof lun);
		g_array_append_val(target->luns, lun);
	}
	maker->url_user = source->user;
	target = finish_target(maker, target, error);
	maker->url_user = NULL;
	if (!target)
		return false;
	plan->options = options_copy(target->options);
	plan->one_lun = source->lun >= 0;
	plan->several = !source->target;
	if (source->target)
		g_ptr_array_add(plan->targets, target);
	else
		plan->portal = target;
	return true;
}

static bool plan_url(struct maker *maker, GError **error)
{
	struct source *source = source_parse(maker->plan->source, error);
	bool done = source && plan_source(maker, source, error);

	source_free(source);
	return done;
}

/* All of them, a line each. */
static void fail_faults(const GPtrArray *faults, GError **error)
{
	g_autoptr(GString) text = g_string_new(NULL);

	for (unsigned i = 0; i < faults->len; i++) {
		g_autofree char *line = config_fault_describe(g_ptr_array_index(faults, i));
		g_string_append_printf(text, "%s%s", i > 0 ? "\n" : "", line);
	}
	g_set_error_literal(error, LUNFS_ERROR, LUNFS_ERROR_FAILED, text->str);
}

/* Owns plan, which has all that it is made from. */
static struct plan *make(struct plan *plan, const struct plan *old, bool ask, GError **error)
{
	g_autoptr(GPtrArray) faults = g_ptr_array_new_with_free_func(config_fault_free);
	struct maker maker = {.plan = plan, .old = old, .ask = ask};
	bool done = false;

	plan->targets = g_ptr_array_new_with_free_func(target_plan_free);
	maker.config = config_read((const char *const *)plan->files, faults);
	if (!maker.config)
		fail_faults(faults, error);
	else if (strstr(plan->source, "://"))
		done = plan_url(&maker, error);
	else if (strcmp(plan->source, "all") == 0)
		done = plan_all(&maker, error);
	else
		done = plan_section(&maker, error);
	config_free(maker.config);
	if (done)
		return plan;
	plan_free(plan);
	return NULL;
}

struct plan *plan_make(const char *source, const char *const *texts,
    const struct credentials *environment, bool ask, GError **error)
{
	struct plan *plan = g_new(struct plan, 1);

	*plan = (struct plan){
	    .source = g_strdup(source),
	    .texts = g_strdupv((char **)texts),
	    .files = config_files(),
	    .directory = g_get_current_dir(),
	    .environment = credentials_copy(environment),
	};
	return make(plan, NULL, ask, error);
}

struct plan *plan_again(const struct plan *old, GError **error)
{
	struct plan *plan = g_new(struct plan, 1);

	*plan = (struct plan){
	    .source = g_strdup(old->source),
	    .texts = g_strdupv(old->texts),
	    .files = g_strdupv(old->files),
	    .directory = g_strdup(old->directory),
	    .environment = credentials_copy(old->environment),
	};
	return make(plan, old, false, error);
}

struct target_plan *plan_add_reported(
    const struct plan *plan, const char *iqn, const GPtrArray *portals)
{
	const struct target_plan *portal = plan->portal;
	struct target_plan *target = g_new(struct target_plan, 1);

	*target = (struct target_plan){
	    .name = g_strdup(iqn),
	    .iqn = g_strdup(iqn),
	    .portals = portals_copy(portals),
	    .options = options_copy(portal->options),
	    .credentials = credentials_copy(portal->credentials),
	    .initiator_name = g_strdup(portal->initiator_name),
	    .fault = g_strdup(portal->fault),
	    .asked = portal->asked,
	};
	return target;
}

void plan_free(struct plan *plan)
{
	if (!plan)
		return;
	g_free(plan->source);
	options_free(plan->options);
	g_clear_pointer(&plan->targets, g_ptr_array_unref);
	target_plan_free(plan->portal);
	g_strfreev(plan->texts);
	g_strfreev(plan->files);
	g_free(plan->directory);
	credentials_free(plan->environment);
	g_free(plan);
}

/* ---- asking ---- */

bool plan_ask_credentials(struct target_plan *target)
{
	const char *name = target->name ? target->name : "discovery";
	const struct credentials *known = target->credentials;
	g_autoptr(GError) error = NULL;

	if (!terminal_is_there())
		return false;
	struct credentials *given = g_new0(struct credentials, 1);
	given->username = g_strdup(known ? known->username : target->options->username);
	if (known) {
		given->username_in = g_strdup(known->username_in);
		given->password_in = g_strdup(known->password_in);
	}
	if (!given->username) {
		g_autofree char *prompt = g_strdup_printf("CHAP user for %s: ", name);
		given->username = terminal_ask(prompt, true);
	}
	if (given->username) {
		g_autofree char *prompt =
		    g_strdup_printf("CHAP secret of '%s' for %s: ", given->username, name);
		given->password = terminal_ask(prompt, false);
	}
	if (!given->password || !credentials_check(given, target->options->weak_secrets, &error)) {
		if (error)
			log_error("%s", error->message);
		credentials_free(given);
		return false;
	}
	credentials_free(target->credentials);
	target->credentials = given;
	target->asked = true;
	g_clear_pointer(&target->fault, g_free);
	return true;
}
