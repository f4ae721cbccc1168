/*
 * resolve.c - a portal's addresses, by GLib's resolver, whose blocking part has threads of its own.
 */
#include "resolve.h"

#include <gio/gio.h>

struct resolve {
	GCancellable *cancellable;
	char *host;
	uint16_t port;
	void (*done)(GPtrArray *addresses, const char *error, void *data);
	void *data;
};

static char *format_address(GInetAddress *address, uint16_t port)
{
	g_autofree char *text = g_inet_address_to_string(address);

	if (g_inet_address_get_family(address) == G_SOCKET_FAMILY_IPV6)
		return g_strdup_printf("[%s]:%u", text, (unsigned)port);
	return g_strdup_printf("%s:%u", text, (unsigned)port);
}

static void resolve_found(GObject *source, GAsyncResult *result, gpointer data)
{
	g_autoptr(GError) error = NULL;
	GList *found = g_resolver_lookup_by_name_finish(G_RESOLVER(source), result, &error);
	struct resolve *resolve = data;

	if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
		return; /* resolve is gone */
	if (found == NULL) {
		g_autofree char *text = g_strdup_printf(
		    "cannot resolve the name '%s': check it, or give an address", resolve->host);
		resolve->done(NULL, text, resolve->data);
		return;
	}
	GPtrArray *addresses = g_ptr_array_new_with_free_func(g_free);
	for (GList *item = found; item != NULL; item = item->next)
		g_ptr_array_add(addresses, format_address(item->data, resolve->port));
	g_resolver_free_addresses(found);
	resolve->done(addresses, NULL, resolve->data);
}

struct resolve *resolve_start(const struct portal *portal,
    void (*done)(GPtrArray *addresses, const char *error, void *data), void *data)
{
	g_autoptr(GResolver) resolver = g_resolver_get_default();
	struct resolve *resolve = g_new0(struct resolve, 1);

	*resolve = (struct resolve){
	    .cancellable = g_cancellable_new(),
	    .host = g_strdup(portal->host),
	    .port = portal->port,
	    .done = done,
	    .data = data,
	};
	/* A numeric address comes back by the same way, without a look-up. */
	g_resolver_lookup_by_name_async(
	    resolver, portal->host, resolve->cancellable, resolve_found, resolve);
	return resolve;
}

void resolve_free(struct resolve *resolve)
{
	if (resolve == NULL)
		return;
	g_cancellable_cancel(resolve->cancellable);
	g_object_unref(resolve->cancellable);
	g_free(resolve->host);
	g_free(resolve);
}
