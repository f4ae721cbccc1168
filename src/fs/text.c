/*
 * text.c - files whose text is made when somebody looks: status, metrics.
 *
 * Who opens one gets the text as it is then, and reads that to its end. Programs ask for the size
 * first, and some read no more than that: so a text that was made for a stat is the one for an open
 * that comes at once, and who has it open is told the length of what he has.
 */
#include <string.h>

#include "internal.h"
#include "lunfs/loop.h"

#define FRESH_MS 200

static void text_set(struct node *node, GBytes *text)
{
	if (node->text == NULL || !g_bytes_equal(node->text, text))
		node_touch(node);
	if (node->text != NULL)
		g_bytes_unref(node->text);
	node->text = text;
	node->text_ms = clock_ms();
}

static bool text_is_fresh(const struct node *node)
{
	return node->text != NULL && clock_ms() - node->text_ms < FRESH_MS;
}

static void text_refresh(struct node *node)
{
	/* Who made it may be gone with the name. */
	if (node->removed || text_is_fresh(node))
		return;
	char *made = node->make(node->make_data);
	text_set(node, g_bytes_new_take(made, made != NULL ? strlen(made) : 0));
}

static const struct handle *handle_of_thread(const struct node *node, pid_t thread)
{
	const struct handle *handle = node->handles;

	while (handle != NULL && handle->opener != thread)
		handle = handle->next;
	return handle;
}

void text_look(struct node *node, pid_t thread)
{
	const struct handle *handle = handle_of_thread(node, thread);

	text_refresh(node);
	if (handle != NULL)
		node->size = g_bytes_get_size(handle->text);
	else if (node->text != NULL)
		node->size = g_bytes_get_size(node->text);
}

GBytes *text_open(struct node *node)
{
	text_refresh(node);
	return g_bytes_ref(node->text);
}

void text_reply(fuse_req_t req, const struct handle *handle, size_t size, off_t offset)
{
	size_t length;
	const char *text = g_bytes_get_data(handle->text, &length);
	size_t start = MIN((uint64_t)offset, length);

	fuse_reply_buf(req, length > start ? text + start : NULL, MIN(size, length - start));
}
