/*
 * lab.c - see lab.h.
 */
#include "conformance/lab.h"
#include "conformance/login_rules.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONTENT KIB(64) /* known, from the beginning */
#define WRITTEN MIB(1)  /* behind it */

/* ---- a target and a mount ---- */

static void put_content(struct script_target *target)
{
	g_autofree unsigned char *bytes = g_malloc(CONTENT);

	pattern_fill(bytes, CONTENT, 0, 11);
	cr_assert(script_target_write(target, 1, 0, bytes, CONTENT));
}

/* Stages last as long as the test, and are no leak though it forgot them. */
static void keep(struct stage *stage)
{
	static GPtrArray *volatile stages;

	if (!stages)
		stages = g_ptr_array_new();
	g_ptr_array_add(stages, stage);
}

struct scene lab_new(void)
{
	struct scene scene = scene_of_script(LAB_SIZE);

	keep(scene.stage);
	put_content(scene.script);
	must(scene.stage, "umask 077; echo " LAB_SECRET " > out; echo " LAB_SECRET_IN " > in");
	return scene;
}

struct script_target *lab_second(void)
{
	struct script_target *target = script_target_start(SCENE_IQN);

	script_target_add_lun(target, 1, LAB_SIZE, 512);
	put_content(target);
	return target;
}

struct scene lab_with_steps(const struct script_login_step *steps, unsigned count)
{
	struct scene scene = lab_new();

	script_target_login_steps(scene.script, steps, count);
	return scene;
}

char *lab_url_of(struct scene *scene, const struct script_target *target)
{
	return text(scene->stage, "iscsi://127.0.0.1:%u/" SCENE_IQN, script_target_port(target));
}

char *lab_url(struct scene *scene)
{
	return lab_url_of(scene, scene->script);
}

void lab_use(struct scene *scene)
{
	unsigned char *bytes = aligned_buffer(WRITTEN);
	int fd = must_open(scene->file, O_RDWR | O_DIRECT);

	pattern_fill(bytes, CONTENT, 0, 11);
	must_hold(scene->file, bytes, CONTENT, 0);
	pattern_fill(bytes, WRITTEN, CONTENT, 12);
	must_pwrite(fd, bytes, WRITTEN, CONTENT);
	cr_assert_eq(fsync(fd), 0);
	must_hold(scene->file, bytes, WRITTEN, CONTENT);
	script_scene_must_be(scene, SCRIPT_STABLE, bytes, WRITTEN, CONTENT);
	close(fd);
	free(bytes);
}

void lab_mount(struct scene *scene, const char *options)
{
	script_scene_mount(scene, options);
	lab_use(scene);
}

void lab_mount_source(struct scene *scene, const char *source, const char *options)
{
	scene_mount_as(scene, 0, source,
	    text(scene->stage, "replacement_timeout=infinity,login_timeout=3s%s%s",
	        options ? "," : "", options ? options : ""));
	lab_use(scene);
}

void lab_close(struct scene *scene)
{
	script_target_stop(scene->script);
}

void lab_end(struct scene *scene)
{
	script_scene_umount(scene);
	login_rules_all(scene);
	lab_close(scene);
}

void lab_logs_in(const struct script_login_step *steps, unsigned count, const char *options)
{
	struct scene scene = lab_with_steps(steps, count);

	lab_mount(&scene, options);
	cr_assert_eq(script_target_login_attempts(scene.script), 1);
	lab_end(&scene);
}

/* ---- refusals ---- */

struct result *lab_must_refuse_source(
    struct scene *scene, const char *source, const char *options, const char *words)
{
	char *mnt = stage_directory(scene->stage, "mnt", 0);
	g_auto(GStrv) wanted = g_strsplit(words, "|", -1);
	struct result *result = lunfs(scene->stage, "mount %s %s -o login_timeout=2s%s%s", source,
	    mnt, options ? "," : "", options ? options : "");
	const char *newline = strchr(result->err, '\n');

	cr_assert_eq(result->status, 1, "exit status %d: %s", result->status, result->err);
	cr_assert(newline && newline[1] == '\0', "not one line: '%s'", result->err);
	for (char **word = wanted; *word; word++)
		cr_assert(strcasestr(result->err, *word), "no '%s' in: %s", *word, result->err);
	cr_assert(
	    result->seconds < patience(6), "only after %.1f s: %s", result->seconds, result->err);
	cr_assert(!is_mounted(mnt));
	cr_assert_eq(lab_count(scene, true, PDU_COMMAND), 0, "a command was sent: %s", result->err);
	script_target_must_not_complain(scene->script);
	return result;
}

struct result *lab_must_refuse(struct scene *scene, const char *options, const char *words)
{
	return lab_must_refuse_source(scene, lab_url(scene), options, words);
}

void lab_is_refused(
    const struct script_login_step *steps, unsigned count, const char *options, const char *words)
{
	struct scene scene = lab_with_steps(steps, count);
	struct result *result = lab_must_refuse(&scene, options, words);

	cr_assert_eq(script_target_login_attempts(scene.script), 1, "tried again: %s", result->err);
	login_rules_all(&scene);
	lab_close(&scene);
}

/* ---- what the target says otherwise ---- */

static const struct lab_edit *find_edit(const struct lab_edit *edits, const char *pair)
{
	for (; edits->key; edits++)
		if (strncmp(pair, edits->key, strlen(edits->key)) == 0 &&
		    pair[strlen(edits->key)] == '=')
			return edits;
	return NULL;
}

static bool edit_leaving(struct script_hook *hook, GByteArray *pdu, void *own)
{
	g_autoptr(GString) text = g_string_new(NULL);

	(void)hook;
	if ((pdu->data[0] & 0x3f) != PDU_LOGIN_RESPONSE)
		return true;
	for (guint at = 48; at < pdu->len;) {
		g_autofree char *pair =
		    g_strndup((const char *)pdu->data + at, pdu->len - at); /* up to a NUL */
		const struct lab_edit *edit = find_edit(own, pair);

		if (!edit)
			g_string_append_len(text, pair, (gssize)strlen(pair) + 1);
		else if (edit->value)
			g_string_append_printf(text, "%s=%s%c", edit->key, edit->value, '\0');
		at += (guint)strlen(pair) + 1;
	}
	g_byte_array_set_size(pdu, 48);
	g_byte_array_append(pdu, (const guint8 *)text->str, (guint)text->len);
	return true;
}

void lab_edit(struct scene *scene, const struct lab_edit *edits)
{
	union {
		const struct lab_edit *edits;
		void *own;
	} own = {edits};

	script_target_hook(
	    scene->script, &(struct script_hooks){.leaves = edit_leaving, .own = own.own});
}

/* ---- what came ---- */

GArray *lab_pdus(struct scene *scene, unsigned connection, bool to_target, uint8_t opcode)
{
	GArray *found = g_array_new(FALSE, FALSE, sizeof(struct script_traffic));
	struct script_traffic pdu;
	unsigned i = 0;

	while (script_traffic_find(scene->script, &i, to_target, opcode, &pdu))
		if (pdu.connection == connection)
			g_array_append_val(found, pdu);
	return found;
}

unsigned lab_count(struct scene *scene, bool to_target, uint8_t opcode)
{
	struct script_traffic pdu;
	unsigned i = 0, count = 0;

	while (script_traffic_find(scene->script, &i, to_target, opcode, &pdu))
		count++;
	return count;
}

unsigned lab_times(struct scene *scene, unsigned connection, const char *key)
{
	unsigned times;

	g_free(script_traffic_key(scene->script, connection, key, &times));
	return times;
}

const char *lab_said(struct scene *scene, unsigned connection, const char *key)
{
	g_autofree char *value = script_traffic_key(scene->script, connection, key, NULL);

	return text(scene->stage, "%s", value ? value : "");
}

unsigned lab_connections(struct scene *scene)
{
	struct script_traffic pdu;
	unsigned count = 0;

	for (unsigned i = 0; script_traffic_get(scene->script, i, &pdu); i++)
		count = MAX(count, pdu.connection + 1);
	return count;
}

/* ---- WRITEs ---- */

static bool is_unsolicited(const struct script_traffic *pdu)
{
	return (pdu->header[0] & 0x3f) == PDU_DATA_OUT && get_be32(pdu->header + 20) == LAB_NO_TAG;
}

void lab_must_keep(struct scene *scene, unsigned connection, struct lab_limits limits)
{
	g_autoptr(GHashTable) sent = g_hash_table_new(NULL, NULL); /* unsolicited bytes, by tag */
	struct script_traffic pdu;
	unsigned writes = 0;

	for (unsigned i = 0; script_traffic_get(scene->script, i, &pdu); i++) {
		bool command = (pdu.header[0] & 0x3f) == PDU_COMMAND && (pdu.header[1] & 0x20);
		gpointer tag = GUINT_TO_POINTER(get_be32(pdu.header + 16));

		if (!pdu.to_target || pdu.connection != connection)
			continue;
		cr_assert(pdu.length <= limits.segment, "a segment of %u bytes", pdu.length);
		if (command) {
			writes++;
			g_hash_table_remove(sent, tag);
			cr_assert(!limits.no_immediate_data || pdu.length == 0,
			    "%u bytes of immediate data", pdu.length);
			cr_assert(!limits.initial_r2t || (pdu.header[1] & 0x80),
			    "unsolicited data is announced");
		}
		if (is_unsolicited(&pdu))
			cr_assert(!limits.initial_r2t, "unsolicited data");
		if (!command && !is_unsolicited(&pdu))
			continue;
		uint32_t all = GPOINTER_TO_UINT(g_hash_table_lookup(sent, tag)) + pdu.length;
		g_hash_table_insert(sent, tag, GUINT_TO_POINTER(all));
		cr_assert(all <= limits.first_burst, "a first burst of %u bytes", all);
	}
	cr_assert(writes > 0, "nothing was written");
}
