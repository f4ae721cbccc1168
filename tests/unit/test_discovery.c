/*
 * test_discovery.c - a discovery whose portal has a name, and a name server that is slow.
 */
#include <criterion/criterion.h>
#include <gio/gio.h>

#include "lunfs/iscsi.h"
#include "lunfs/loop.h"
#include "lunfs/portal.h"

TestSuite(discovery, .timeout = 10);

#define LOGIN_MS 50

/* Answers each question with 127.0.0.1, when the test lets it. */
typedef GResolver SlowResolver;
typedef GResolverClass SlowResolverClass;
static GType slow_resolver_get_type(void);
G_DEFINE_TYPE(SlowResolver, slow_resolver, G_TYPE_RESOLVER)

static GTask *question;

static void slow_ask(GResolver *resolver, const gchar *name, GCancellable *cancellable,
    GAsyncReadyCallback callback, gpointer data)
{
	(void)name;
	question = g_task_new(resolver, cancellable, callback, data);
}

static GList *slow_finish(GResolver *resolver, GAsyncResult *result, GError **error)
{
	(void)resolver;
	return g_task_propagate_pointer(G_TASK(result), error);
}

static void slow_resolver_class_init(SlowResolverClass *class)
{
	class->lookup_by_name_async = slow_ask;
	class->lookup_by_name_finish = slow_finish;
}

static void slow_resolver_init(SlowResolver *resolver)
{
	(void)resolver;
}

static void slow_answer(void)
{
	GList *addresses = g_list_append(NULL, g_inet_address_new_loopback(G_SOCKET_FAMILY_IPV4));

	g_task_return_pointer(question, addresses, (GDestroyNotify)g_resolver_free_addresses);
	g_clear_object(&question);
}

struct bench {
	struct loop *loop;
	unsigned answers;
	GSource *timer;
};

static void bench_answered(GPtrArray *targets, const char *error, void *data)
{
	struct bench *bench = data;

	cr_assert_null(targets);
	cr_assert(strstr(error, "the name server does not answer for 'nas'"), "%s", error);
	bench->answers++;
	loop_quit(bench->loop);
}

static void bench_over(void *data)
{
	struct bench *bench = data;

	loop_quit(bench->loop);
}

Test(discovery, fails_once_though_the_name_server_answers_later)
{
	g_autoptr(GResolver) resolver = g_object_new(slow_resolver_get_type(), NULL);
	struct bench bench = {.loop = loop_new()};
	struct login login = {.initiator_name = "iqn.i", .login_timeout_ms = LOGIN_MS};
	g_autoptr(GPtrArray) portals = portals_new();

	g_resolver_set_default(resolver);
	portals_add(portals, "nas", 3260);
	login.portals = portals;
	struct discovery *discovery = discovery_start(bench.loop, &login, bench_answered, &bench);
	loop_run(bench.loop);
	cr_assert_eq(bench.answers, 1);
	slow_answer();
	bench.timer = loop_timer(bench.loop, 2 * LOGIN_MS, bench_over, &bench);
	loop_run(bench.loop);
	cr_assert_eq(bench.answers, 1, "it is told %u times", bench.answers);
	loop_remove(&bench.timer);
	discovery_free(discovery);
	loop_free(bench.loop);
}
