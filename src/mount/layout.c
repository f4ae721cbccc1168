/*
 * layout.c - which file stands where in a mount, and the words for what is not there.
 */
#include "layout.h"

#include "lunfs/log.h"

static void layout_add_disk(
    struct fs *fs, struct node *directory, const struct target *target, const struct disk *disk)
{
	const struct lun_info *info = &disk->info;
	g_autofree char *identity =
	    g_strdup_printf("%s lun %u", target_name(target), (unsigned)info->lun);
	g_autofree char *block_size = g_strdup_printf("%u", (unsigned)info->block_size);
	const char *const attributes[] = {"vendor", info->vendor, "product", info->product,
	    "revision", info->revision, "serial", info->serial, "wwid", info->wwid, "block_size",
	    block_size, "target", target_name(target), "portal",
	    session_address(target_session(target)), NULL};

	/* Files over one LUN are files over one block: the kernel's pages of each follow what is
	 * written through the others. */
	struct block *top = disk->twin != NULL ? disk->twin->top : disk->top;
	fs_add_disk(fs, directory, disk->name, identity, top, disk->read_only, attributes);
}

void layout_build(struct fs *fs, const GPtrArray *targets, const struct mount *mount)
{
	bool one = mount->source->target != NULL;

	targets_find_twins(targets);
	for (unsigned i = 0; i < targets->len; i++) {
		const struct target *target = g_ptr_array_index(targets, i);
		const GPtrArray *disks = target_disks(target);
		struct node *directory = NULL;

		if (!mount->root_is_file)
			directory = one ? fs_root(fs)
			                : fs_add_directory(fs, fs_root(fs), target_name(target),
			                      target_name(target));
		for (unsigned k = 0; k < disks->len; k++)
			layout_add_disk(fs, directory, target, g_ptr_array_index(disks, k));
	}
}

char *layout_explain_empty(const GPtrArray *targets, const char *initiator_name)
{
	GString *text = g_string_new(NULL);

	for (unsigned i = 0; i < targets->len; i++) {
		const struct target *target = g_ptr_array_index(targets, i);
		unsigned count;
		const struct lun_info *luns = target_luns(target, &count);

		g_string_append_printf(text, "%s%s has no disk to show for %s",
		    text->len != 0 ? "; " : "", target_name(target), initiator_name);
		for (unsigned k = 0; k < count; k++)
			g_string_append_printf(text, "%s lun %u is a %s%s%s", k == 0 ? ":" : ",",
			    (unsigned)luns[k].lun, scsi_type_name(luns[k].type),
			    luns[k].fault[0] != '\0' ? ": " : " (not shown yet)", luns[k].fault);
	}
	return g_string_free(text, FALSE);
}

void layout_warn_of_faults(const struct target *target)
{
	unsigned count;
	const struct lun_info *luns = target_luns(target, &count);

	for (unsigned i = 0; i < count; i++)
		if (luns[i].fault[0] != '\0' && scsi_type_is_block(luns[i].type))
			log_warning("%s: lun %u is not shown: %s", target_name(target),
			    (unsigned)luns[i].lun, luns[i].fault);
}
