/*
 * layout.c - which file stands where in a mount, and the words for what is not there.
 *
 * Files over one LUN that is reached by several ways are files over one block, that of one of its
 * disks; the others are its twins (SAFETY.md 22). It is one that can be written, where there is
 * one. When it goes, or a better one comes, the files of its twins are made anew, over another
 * block: who has one open gets EIO, as for any LUN that went.
 *
 * Invariant: disk->users counts the files over its block that are not released; it is dropped at
 * zero.
 */
#include "layout.h"

#include <string.h>

#include "disk.h"
#include "lunfs/log.h"
#include "names.h"

struct layout {
	struct fs *fs;
	const struct mount *mount;
	const GPtrArray *targets;
	GHashTable *directories; /* struct target to struct node */
	struct node *by_path, *by_id;
};

/* A file that was removed and is not released yet. */
struct leaving {
	struct layout *layout;
	struct disk *disk, *base; /* whose block it is over */
};

static const char by_path_name[] = "by-path", by_id_name[] = "by-id", own_name[] = ".lunfs";

static void layout_show(struct layout *layout, struct disk *disk);

/* ---- links ---- */

static void add_link(
    struct layout *layout, struct node *parent, struct disk *disk, const char *name)
{
	const char *directory = layout->mount->plan->several ? target_name(disk->target) : ".";
	g_autofree char *path = strcmp(directory, ".") == 0
	                            ? g_build_filename("..", disk->name, NULL)
	                            : g_build_filename("..", directory, disk->name, NULL);
	/* Two LUNs with one designator, or one target in two sections: neither hides the other. */
	g_autofree char *apart = fs_has_name(parent, name) ? names_apart(name, path) : NULL;

	if (apart == NULL || !fs_has_name(parent, apart))
		g_ptr_array_add(disk->links,
		    fs_add_link(layout->fs, parent, apart != NULL ? apart : name, path));
}

static void layout_add_links(struct layout *layout, struct disk *disk)
{
	const struct target_plan *plan = target_plan(disk->target);

	if (layout->by_path == NULL)
		return;
	disk->links = g_ptr_array_new();
	for (guint i = 0; i < plan->portals->len; i++) {
		const struct portal *portal = g_ptr_array_index(plan->portals, i);
		g_autofree char *name =
		    names_by_path(portal->host, portal->port, plan->iqn, disk->info.lun);

		add_link(layout, layout->by_path, disk, name);
	}
	g_auto(GStrv) ids = names_by_id(&disk->info);
	for (char **id = ids; *id != NULL && disk->twin == NULL; id++)
		add_link(layout, layout->by_id, disk, *id);
}

/* ---- disks that are one LUN ---- */

typedef void (*disk_fn)(struct layout *layout, struct disk *disk, struct disk *data);

static void each_shown(struct layout *layout, disk_fn fn, struct disk *data)
{
	for (guint i = 0; i < layout->targets->len; i++) {
		const GPtrArray *disks = target_disks(g_ptr_array_index(layout->targets, i));

		for (guint k = 0; k < disks->len; k++) {
			struct disk *disk = g_ptr_array_index(disks, k);

			if (disk->node != NULL)
				fn(layout, disk, data);
		}
	}
}

static struct disk *layout_find_base(const struct layout *layout, const struct disk *like)
{
	for (guint i = 0; i < layout->targets->len; i++) {
		const GPtrArray *disks = target_disks(g_ptr_array_index(layout->targets, i));

		for (guint k = 0; k < disks->len; k++) {
			struct disk *disk = g_ptr_array_index(disks, k);

			if (disk != like && disk->node != NULL && disk->twin == NULL &&
			    disk_is_same_lun(disk, like))
				return disk;
		}
	}
	return NULL;
}

/* ---- files that go ---- */

static void layout_released(void *data)
{
	struct leaving *leaving = data;
	struct layout *layout = leaving->layout;
	struct disk *disk = leaving->disk, *base = leaving->base;

	g_free(leaving);
	disk->leaving = false;
	base->users--;
	if (base->gone && base->users == 0 && !base->leaving) {
		target_drop_disk(base->target, base);
		if (disk == base)
			return;
	}
	if (!disk->gone && disk->again)
		layout_show(layout, disk);
	else if (disk->gone && disk != base && disk->users == 0)
		target_drop_disk(disk->target, disk);
}

static void layout_hide(struct layout *layout, struct disk *disk, bool again)
{
	struct leaving *leaving = g_new(struct leaving, 1);
	struct node *node = disk->node;

	*leaving = (struct leaving){
	    .layout = layout, .disk = disk, .base = disk->twin != NULL ? disk->twin : disk};
	disk->node = NULL;
	disk->leaving = true;
	disk->again = again;
	disk->twin = NULL;
	for (guint i = 0; disk->links != NULL && i < disk->links->len; i++)
		fs_remove(layout->fs, g_ptr_array_index(disk->links, i), NULL, NULL);
	g_clear_pointer(&disk->links, g_ptr_array_unref);
	fs_remove(layout->fs, node, layout_released, leaving);
}

static void hide_twin(struct layout *layout, struct disk *disk, struct disk *base)
{
	if (disk->twin == base)
		layout_hide(layout, disk, true);
}

/* ---- files that come ---- */

static void layout_show(struct layout *layout, struct disk *disk)
{
	struct target *target = disk->target;
	const struct lun_info *info = &disk->info;
	struct disk *base = layout_find_base(layout, disk);
	g_autofree char *identity =
	    g_strdup_printf("%s lun %u", target_plan(target)->iqn, (unsigned)info->lun);
	g_autofree char *block_size = g_strdup_printf("%u", (unsigned)info->block_size);
	const char *const attributes[] = {"vendor", info->vendor, "product", info->product,
	    "revision", info->revision, "serial", info->serial, "wwid", info->wwid, "block_size",
	    block_size, "target", target_plan(target)->iqn, "portal",
	    session_address(target_session(target)), NULL};

	if (base != NULL && base->read_only && !disk->read_only) {
		/* what is written here would not be seen there */
		each_shown(layout, hide_twin, base);
		layout_hide(layout, base, true);
		base = NULL;
	}
	disk->twin = base;
	disk->again = false;
	if (base == NULL)
		base = disk;
	base->users++;
	disk->node = fs_add_disk(layout->fs,
	    layout->mount->root_is_file ? NULL : layout_directory(layout, target), disk->name,
	    identity, base->top, disk->read_only, attributes);
	layout_add_links(layout, disk);
}

void layout_add_disk(struct layout *layout, struct disk *disk)
{
	/* A file of that name may not be released yet: it is no name any more. */
	layout_show(layout, disk);
}

void layout_remove_disk(struct layout *layout, struct disk *disk)
{
	disk->gone = true;
	each_shown(layout, hide_twin, disk);
	if (disk->node != NULL)
		layout_hide(layout, disk, false);
	else if (!disk->leaving && disk->users == 0)
		target_drop_disk(disk->target, disk);
}

/* ---- targets ---- */

struct node *layout_directory(const struct layout *layout, struct target *target)
{
	return g_hash_table_lookup(layout->directories, target);
}

void layout_add_target(struct layout *layout, struct target *target)
{
	const struct options *options = target_options(target);
	const GPtrArray *disks = target_disks(target);
	const struct fs_owner owner = {
	    .uid = options->uid, .gid = options->gid, .umask = options->umask};
	struct node *directory = NULL;

	if (layout->mount->plan->several)
		directory = fs_add_directory(layout->fs, fs_root(layout->fs), target_name(target),
		    target_plan(target)->iqn, &owner);
	else if (!layout->mount->root_is_file)
		directory = fs_root(layout->fs);
	g_hash_table_insert(layout->directories, target, directory);
	for (guint i = 0; i < disks->len; i++)
		layout_add_disk(layout, g_ptr_array_index(disks, i));
}

void layout_remove_target(struct layout *layout, struct target *target)
{
	const GPtrArray *disks = target_disks(target);

	for (guint i = 0; i < disks->len; i++) {
		struct disk *disk = g_ptr_array_index(disks, i);

		each_shown(layout, hide_twin, disk);
		if (disk->node != NULL)
			layout_hide(layout, disk, false);
		disk->again = false;
	}
	if (layout->mount->plan->several)
		fs_remove(layout->fs, layout_directory(layout, target), NULL, NULL);
	g_hash_table_insert(layout->directories, target, NULL);
}

/* Is a file open that stands elsewhere, but is over the block of a disk of the target? */
static bool twins_are_open(const struct layout *layout, const struct target *target)
{
	for (guint i = 0; i < layout->targets->len; i++) {
		const GPtrArray *disks = target_disks(g_ptr_array_index(layout->targets, i));

		for (guint k = 0; k < disks->len; k++) {
			const struct disk *disk = g_ptr_array_index(disks, k);

			if (disk->node != NULL && disk->twin != NULL &&
			    disk->twin->target == target && fs_is_open(layout->fs, disk->node))
				return true;
		}
	}
	return false;
}

bool layout_is_open(const struct layout *layout, struct target *target)
{
	return fs_is_open(layout->fs, layout_directory(layout, target)) ||
	       twins_are_open(layout, target);
}

bool layout_uses_target(const struct target *target)
{
	const GPtrArray *disks = target_disks(target);

	for (guint i = 0; i < disks->len; i++) {
		const struct disk *disk = g_ptr_array_index(disks, i);

		if (disk->users > 0 || disk->leaving)
			return true;
	}
	return target_is_dropping(target);
}

void layout_forget_target(struct layout *layout, struct target *target)
{
	g_hash_table_remove(layout->directories, target);
}

/* ---- life ---- */

struct layout *layout_new(struct fs *fs, const struct mount *mount, const GPtrArray *targets,
    const struct layout_texts *texts)
{
	struct layout *layout = g_new0(struct layout, 1);

	*layout = (struct layout){
	    .fs = fs,
	    .mount = mount,
	    .targets = targets,
	    .directories = g_hash_table_new(NULL, NULL),
	};
	if (mount->root_is_file)
		return layout;
	struct node *root = fs_root(fs);
	layout->by_path = fs_add_directory(fs, root, by_path_name, by_path_name, NULL);
	layout->by_id = fs_add_directory(fs, root, by_id_name, by_id_name, NULL);
	struct node *own = fs_add_directory(fs, root, own_name, own_name, NULL);
	fs_add_text(fs, own, "status.json", texts->status, texts->data);
	fs_add_text(fs, own, "metrics", texts->metrics, texts->data);
	return layout;
}

void layout_free(struct layout *layout)
{
	if (layout == NULL)
		return;
	g_hash_table_unref(layout->directories);
	g_free(layout);
}

/* ---- nothing to show ---- */

/* "lun 1 of nas: in use for writing by ..."; nothing where no LUN has such a trouble. */
static void explain_troubles(GString *text, const struct target *target)
{
	unsigned count;
	const struct lun_info *luns = target_luns(target, &count);

	for (unsigned i = 0; i < count; i++) {
		const char *trouble = target_lun_trouble(target, luns[i].lun);

		if (trouble != NULL)
			g_string_append_printf(text, "%slun %u of %s: %s",
			    text->len != 0 ? "; " : "", (unsigned)luns[i].lun, target_name(target),
			    trouble);
	}
}

static void explain_types(GString *text, const struct target *target)
{
	unsigned count;
	const struct lun_info *luns = target_luns(target, &count);
	const char *comma = ":";

	g_string_append_printf(text, "%s%s has no disk to show for %s", text->len != 0 ? "; " : "",
	    target_name(target), target_plan(target)->initiator_name);
	for (unsigned i = 0; i < count; i++) {
		if (luns[i].type == SCSI_TYPE_ARRAY && count > 1)
			continue; /* a controller is never a file, and nobody expects it */
		g_string_append_printf(text, "%s lun %u is a %s (not shown yet)", comma,
		    (unsigned)luns[i].lun, scsi_type_name(luns[i].type));
		comma = ",";
	}
}

char *layout_explain_empty(const GPtrArray *targets)
{
	GString *text = g_string_new(NULL);

	for (unsigned i = 0; i < targets->len; i++) {
		const struct target *target = g_ptr_array_index(targets, i);
		gsize before = text->len;
		unsigned count;

		(void)target_luns(target, &count);
		explain_troubles(text, target);
		if (text->len == before && count == 0 && target_trouble(target) != NULL)
			g_string_append_printf(
			    text, "%s%s", before != 0 ? "; " : "", target_trouble(target));
		else if (text->len == before)
			explain_types(text, target);
	}
	return g_string_free(text, FALSE);
}
