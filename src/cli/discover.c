/*
 * discover.c - lunfs discover PORTAL [--luns]: which targets a portal offers, and what they hold.
 *
 *   10.0.0.5:3260,1 iqn.2003-01.org.example:disk1
 *     lun 1    disk      64.0 MiB  IET VIRTUAL-DISK
 */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "cli.h"
#include "lunfs/log.h"
#include "lunfs/loop.h"
#include "lunfs/mount.h"

struct discover {
	struct loop *loop;
	struct target_login login;
	struct login discovery_login;
	const struct source *portal;
	bool luns, failed;
	char *error;
	GPtrArray *targets; /* of struct target, in the order of the lines */
	GPtrArray *lines;
	unsigned unfinished;
};

/* ---- what is printed ---- */

static char *format_portal(
    const struct discovered_target *target, const struct discovered_portal *portal)
{
	bool v6 = strchr(portal->host, ':') != NULL;

	return g_strdup_printf("%s%s%s:%u,%u %s", v6 ? "[" : "", portal->host, v6 ? "]" : "",
	    (unsigned)portal->port, (unsigned)portal->tpgt, target->name);
}

static void print_luns(const struct target *target)
{
	unsigned count;
	const struct lun_info *luns = target_luns(target, &count);

	for (unsigned i = 0; i < count; i++) {
		const struct lun_info *info = &luns[i];
		g_autofree char *size =
		    g_format_size_full(info->blocks * info->block_size, G_FORMAT_SIZE_IEC_UNITS);
		bool shown = scsi_type_is_block(info->type) && info->fault[0] == '\0';

		printf("  lun %-4u %-8s %10s  %-8s %-16s %s%s%s\n", (unsigned)info->lun,
		    scsi_type_name(info->type), shown ? size : "-", info->vendor, info->product,
		    info->serial, info->write_protected && shown ? "  write-protected" : "",
		    shown                    ? ""
		    : info->fault[0] != '\0' ? "  fault"
		                             : "  not shown yet");
		if (info->fault[0] != '\0')
			printf("           %s\n", info->fault);
	}
}

/* ---- asking ---- */

static void discover_closed(void *data)
{
	struct discover *discover = data;

	if (--discover->unfinished == 0)
		loop_quit(discover->loop);
}

static void discover_probed(struct target *target, const char *error, void *data)
{
	struct discover *discover = data;

	if (error != NULL) {
		log_error("%s", error);
		discover->failed = true;
	}
	target_close(target, 1000, discover_closed, discover);
}

static void discover_ask_target(struct discover *discover, const struct discovered_target *found)
{
	const struct source *at = discover->portal;
	GPtrArray *portals = portals_new();

	portals_add(portals, at->host, at->port);
	discover->unfinished++;
	g_ptr_array_add(
	    discover->targets, target_new(discover->loop, &discover->login, found->name, portals,
	                           discover->targets->len + 1, -1, discover_probed, discover));
}

static void discover_done(GPtrArray *targets, const char *error, void *data)
{
	struct discover *discover = data;

	if (targets == NULL) {
		discover->error = g_strdup(error);
		loop_quit(discover->loop);
		return;
	}
	for (unsigned i = 0; i < targets->len; i++) {
		const struct discovered_target *target = g_ptr_array_index(targets, i);
		GString *lines = g_string_new(NULL);

		for (unsigned k = 0; k < target->portals->len; k++) {
			g_autofree char *line =
			    format_portal(target, g_ptr_array_index(target->portals, k));
			g_string_append_printf(lines, "%s\n", line);
		}
		g_ptr_array_add(discover->lines, g_string_free(lines, FALSE));
		if (discover->luns)
			discover_ask_target(discover, target);
	}
	if (discover->unfinished == 0)
		loop_quit(discover->loop);
}

static int discover_run(struct discover *discover)
{
	struct discovery *discovery;

	discover->loop = loop_new();
	if (getrandom(&discover->login.isid_random, sizeof discover->login.isid_random, 0) < 0)
		discover->login.isid_random = (uint32_t)clock_us();
	discover->login.isid_random &= 0xffffff;
	discover->targets = g_ptr_array_new();
	discover->lines = g_ptr_array_new_with_free_func(g_free);
	target_login_fill(&discover->login, &discover->discovery_login);
	g_autoptr(GPtrArray) portals = portals_new();
	portals_add(portals, discover->portal->host, discover->portal->port);
	discover->discovery_login.portals = portals;
	discovery =
	    discovery_start(discover->loop, &discover->discovery_login, discover_done, discover);
	loop_run(discover->loop);
	for (unsigned i = 0; i < discover->lines->len; i++) {
		fputs(g_ptr_array_index(discover->lines, i), stdout);
		if (discover->luns)
			print_luns(g_ptr_array_index(discover->targets, i));
	}
	discovery_free(discovery);
	for (unsigned i = 0; i < discover->targets->len; i++)
		target_free(g_ptr_array_index(discover->targets, i));
	g_ptr_array_unref(discover->targets);
	g_ptr_array_unref(discover->lines);
	loop_free(discover->loop);
	if (discover->error != NULL) {
		fprintf(stderr, "lunfs: %s\n", discover->error);
		g_free(discover->error);
		return LUNFS_ERROR_FAILED;
	}
	return discover->failed ? LUNFS_ERROR_FAILED : 0;
}

/* ---- the command ---- */

static bool discover_parse(struct discover *discover, struct options *options, int argc,
    char **argv, struct source **portal, GError **error)
{
	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "--luns") == 0) {
			discover->luns = true;
		} else if (strcmp(argv[i], "-o") == 0 && i + 1 < argc) {
			if (!options_parse(options, argv[++i], error))
				return false;
		} else if (argv[i][0] == '-' || *portal != NULL) {
			g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_USAGE,
			    "usage: lunfs discover PORTAL [--luns] [-o OPTION,...]");
			return false;
		} else {
			*portal = source_parse_portal(argv[i], error);
			if (*portal == NULL)
				return false;
		}
	}
	if (*portal == NULL)
		g_set_error(error, LUNFS_ERROR, LUNFS_ERROR_USAGE,
		    "PORTAL is missing: lunfs discover HOST[:PORT] [--luns]");
	return *portal != NULL;
}

int cli_discover(int argc, char **argv)
{
	struct credentials *environment = credentials_from_environment(), *credentials = NULL;
	struct options *options = options_new();
	struct discover discover = {.luns = false};
	struct source *portal = NULL;
	g_autofree char *initiator_name = NULL;
	GError *error = NULL;
	int status;

	if (discover_parse(&discover, options, argc, argv, &portal, &error))
		credentials = credentials_resolve(options, portal->user, environment, &error);
	if (credentials != NULL)
		initiator_name = initiator_name_get(options->initiator_name, &error);
	if (initiator_name != NULL) {
		discover.portal = portal;
		discover.login = (struct target_login){.options = options,
		    .credentials = credentials,
		    .initiator_name = initiator_name};
		status = discover_run(&discover);
	} else {
		status = cli_fail(error);
	}
	credentials_free(environment);
	credentials_free(credentials);
	options_free(options);
	source_free(portal);
	return status;
}
