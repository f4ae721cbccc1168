/*
 * requests.c - what a mount is asked, over its control socket and through .lunfs/.
 */
#include <string.h>

#include "control.h"
#include "daemon.h"
#include "flush.h"
#include "status.h"

static struct status_view daemon_view(const struct daemon *daemon)
{
	const struct mount *mount = daemon->mount;

	return (struct status_view){
	    .source = mount->plan->source,
	    .mountpoint = mount->mountpoint,
	    .cache_size = mount->plan->options->cache_size,
	    .targets = daemon->targets,
	};
}

char *daemon_status_file(void *data)
{
	const struct status_view view = daemon_view(data);
	g_autofree char *json = status_json(&view);

	return g_strconcat(json, "\n", NULL);
}

char *daemon_metrics_file(void *data)
{
	const struct status_view view = daemon_view(data);

	return metrics_text(&view);
}

/* Whoever comes late hears how it ended. */
static void answer_at_the_end(
    const struct daemon *daemon, struct control_client *client, const char *command)
{
	if (strcmp(command, "abort") != 0)
		control_reply(client, "done", "error", daemon->end, NULL);
	control_reply(client, "end", "error", daemon->end, NULL);
}

void daemon_request(struct control_client *client, const char *command, void *data)
{
	struct daemon *daemon = data;
	bool running = daemon->state == RUNNING;
	const struct status_view view = daemon_view(daemon);

	if (status_answer(&view, command, client))
		return;
	if (daemon->end != NULL)
		answer_at_the_end(daemon, client, command);
	else if (strcmp(command, "flush") == 0 && (running || daemon->state == FLUSHING))
		flush_for_client(daemon->loop, daemon->fs, daemon->targets, client);
	else if (strcmp(command, "abort") == 0 && daemon->state >= RUNNING)
		daemon_abort(daemon);
	else if (strcmp(command, "rescan") == 0 && running)
		targets_rescan(daemon, client);
	else if (strcmp(command, "reload") == 0 && running)
		targets_reload(daemon, client);
	else
		control_reply(client, "done", "error", "no such command, or not now", NULL);
}
