/*
 * truncate.c - programs believe that O_TRUNC made a file empty: the mark that makes what they copy
 * right.
 */
#include "support/data.h"
#include "support/mount.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(truncate, .timeout = 120);

#define SIZE MIB(8)

/* A LUN full of 0xFF. */
static struct scene scene_with_full_disk(void)
{
	struct scene scene = {.stage = stage_new(), .size = SIZE};

	scene.tgt = tgt_start(scene.stage);
	tgt_add_target(scene.tgt, 1, SCENE_IQN);
	scene.backing = tgt_add_lun(scene.tgt, 1, .lun = 1, .size = SIZE);
	fill_file(scene.backing, 0xff, SIZE);
	scene.mnt = must_mount_lunfs(scene.stage, tgt_url(scene.tgt, SCENE_IQN, -1), NULL);
	scene.file = text(scene.stage, "%s/lun1.img", scene.mnt);
	return scene;
}

/* An image of 6 MiB and some with holes at its start, in its middle and at its end. */
#define IMAGE_SIZE (MIB(6) + 1536)
static char *image_with_holes(struct scene *scene)
{
	char *image = text(scene->stage, "%s/image", scene->stage->dir);
	static unsigned char bytes[200000];
	int fd = must_open(image, O_RDWR | O_CREAT);

	cr_assert(ftruncate(fd, IMAGE_SIZE) == 0);
	pattern_fill(bytes, sizeof(bytes), 0, 9);
	must_pwrite(fd, bytes, sizeof(bytes), KIB(300));
	must_pwrite(fd, bytes, 5000, MIB(3) + 4096);
	must_pwrite(fd, bytes, sizeof(bytes), MIB(5) - 100);
	close(fd);
	return image;
}

static unsigned char *content_of(const char *path, size_t length)
{
	unsigned char *content = aligned_buffer(length);
	int fd = must_open(path, O_RDONLY);

	must_pread(fd, content, length, 0);
	close(fd);
	return content;
}

/* The image, exactly; what lies behind it is as it was. */
static void must_hold_image(struct scene *scene, const char *image)
{
	unsigned char *expected = content_of(image, IMAGE_SIZE);
	static unsigned char rest[SIZE - IMAGE_SIZE];

	memset(rest, 0xff, sizeof(rest));
	must_hold(scene->file, expected, IMAGE_SIZE, 0);
	scene_umount(scene);
	must_hold(scene->backing, expected, IMAGE_SIZE, 0);
	must_hold(scene->backing, rest, sizeof(rest), IMAGE_SIZE);
}

static void copied_by(const char *command_with_image_and_file)
{
	struct scene scene = scene_with_full_disk();
	char *image = image_with_holes(&scene);

	must(scene.stage, "image=%s; file=%s; %s", image, scene.file, command_with_image_and_file);
	must_hold_image(&scene, image);
}

Test(truncate, cp_of_an_image_with_holes_leaves_exactly_the_image)
{
	copied_by("cp $image $file");
}

Test(truncate, cp_sparse_always_leaves_exactly_the_image)
{
	copied_by("cp --sparse=always $image $file");
}

Test(truncate, dd_leaves_exactly_the_image)
{
	copied_by("dd if=$image of=$file bs=64k conv=notrunc status=none");
}

/*
 * dd makes a hole at the very end known only where the file is too short for it, which a LUN never
 * is: so the image gets an end. (cp and qemu-img tell with ftruncate.)
 */
Test(truncate, dd_that_truncates_and_makes_holes_leaves_exactly_the_image)
{
	copied_by("printf end | dd of=$image bs=1 seek=6292989 conv=notrunc status=none && "
	          "dd if=$image of=$file bs=512 conv=sparse status=none");
}

Test(truncate, qemu_img_convert_leaves_exactly_the_image)
{
	copied_by("qemu-img convert -f raw -O raw $image $file");
}

Test(truncate, qemu_img_convert_without_creating_leaves_exactly_the_image)
{
	copied_by("qemu-img convert -n -f raw -O raw $image $file");
}

static void must_be_untouched(struct scene *scene)
{
	unsigned char *full = aligned_buffer(SIZE);
	struct stat st;

	memset(full, 0xff, SIZE);
	cr_assert(stat(scene->file, &st) == 0);
	cr_assert_eq(st.st_size, (off_t)SIZE);
	must_hold(scene->file, full, SIZE, 0);
	must_hold(scene->backing, full, SIZE, 0);
	free(full);
}

Test(truncate, truncating_alone_harms_nobody)
{
	struct scene scene = scene_with_full_disk();

	must(scene.stage, ": > %s", scene.file);
	must_be_untouched(&scene);
	must(scene.stage, "dd if=/dev/null of=%s status=none", scene.file);
	must_be_untouched(&scene);
	scene_umount(&scene);
}

Test(truncate, the_size_stays_whatever_ftruncate_says)
{
	struct scene scene = scene_with_full_disk();
	int fd = must_open(scene.file, O_RDWR);
	struct stat st;

	cr_assert(ftruncate(fd, 1000) == 0, "%s", strerror(errno));
	cr_assert(fstat(fd, &st) == 0);
	cr_assert_eq(st.st_size, (off_t)SIZE);
	cr_assert(ftruncate(fd, SIZE) == 0);
	cr_assert_eq(ftruncate(fd, SIZE + 1), -1);
	cr_assert_eq(errno, ENOSPC);
	cr_assert_eq(ftruncate(fd, TIB(4)), -1);
	cr_assert_eq(errno, ENOSPC);
	cr_assert(fstat(fd, &st) == 0);
	cr_assert_eq(st.st_size, (off_t)SIZE);
	close(fd);
	scene_umount(&scene);
}

Test(truncate, truncating_by_path_is_EINVAL_unless_to_the_same_size)
{
	struct scene scene = scene_with_full_disk();

	cr_assert_eq(truncate(scene.file, 1000), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(truncate(scene.file, 0), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert(truncate(scene.file, SIZE) == 0, "%s", strerror(errno));
	must_be_untouched(&scene);
	scene_umount(&scene);
}

Test(truncate, a_write_beyond_the_mark_zeroes_what_lies_between)
{
	struct scene scene = scene_with_full_disk();
	unsigned char *expected = aligned_buffer(SIZE);
	int fd = must_open(scene.file, O_RDWR | O_TRUNC);

	memset(expected, 0xff, SIZE);
	must_pwrite(fd, "head", 4, 0);
	must_pwrite(fd, "tail", 4, 1000003);
	memset(expected, 0, 1000003);
	memcpy(expected, "head", 4);
	memcpy(expected + 1000003, "tail", 4);
	/* before the mark nothing is zeroed any more */
	must_pwrite(fd, "midst", 5, 5000);
	memcpy(expected + 5000, "midst", 5);
	must_hold(scene.file, expected, SIZE, 0);
	/* ftruncate upwards zeroes too, and from the mark on */
	cr_assert(ftruncate(fd, MIB(2) + 77) == 0);
	memset(expected + 1000007, 0, MIB(2) + 77 - 1000007);
	must_hold(scene.file, expected, SIZE, 0);
	/* downwards it only moves the mark */
	cr_assert(ftruncate(fd, 4096) == 0);
	must_hold(scene.file, expected, SIZE, 0);
	must_pwrite(fd, "end", 3, 10000);
	memset(expected + 4096, 0, 10000 - 4096);
	memcpy(expected + 10000, "end", 3);
	close(fd);
	must_hold(scene.file, expected, SIZE, 0);
	scene_umount(&scene);
	must_hold(scene.backing, expected, SIZE, 0);
}

Test(truncate, the_mark_belongs_to_the_handle_that_was_truncated)
{
	struct scene scene = scene_with_full_disk();
	unsigned char *expected = aligned_buffer(SIZE);
	int plain = must_open(scene.file, O_RDWR), marked = must_open(scene.file, O_RDWR | O_TRUNC);

	memset(expected, 0xff, SIZE);
	must_pwrite(plain, "x", 1, MIB(4));
	expected[MIB(4)] = 'x';
	must_hold(scene.file, expected, SIZE, 0);
	must_pwrite(marked, "y", 1, 600);
	memset(expected, 0, 600);
	expected[600] = 'y';
	close(marked);
	close(plain);
	must_hold(scene.file, expected, SIZE, 0);
	scene_umount(&scene);
}

/* ---- two writers behind one mark ---- */

struct page_writer {
	int fd;
	off_t offset;
	const void *page;
};

static void *write_page(void *data)
{
	const struct page_writer *writer = data;

	return (void *)(intptr_t)(pwrite(writer->fd, writer->page, 4096, writer->offset) != 4096);
}

/*
 * The one writes far behind the mark, and so zeros go before; the other into what is to be zero.
 * Whichever comes first, its page stays. The disk is read before, so that the kernel has pages to
 * drop, which takes its time.
 */
Test(truncate, zeros_of_a_gap_never_land_on_a_write_that_came_after)
{
	struct scene scene = scene_with_full_disk();
	unsigned char *page = aligned_buffer(4096), *found = aligned_buffer(SIZE);

	memset(page, 0x5a, 4096);
	for (int round = 0; round < 60; round++) {
		int fd = must_open(scene.file, O_WRONLY | O_DIRECT | O_TRUNC);
		int reader = must_open(scene.file, O_RDONLY);
		struct page_writer far = {fd, MIB(3), page}, near = {fd, MIB(1), page};
		pthread_t threads[2];
		void *failed;

		must_pread(reader, found, SIZE, 0);
		close(reader);
		cr_assert(pthread_create(&threads[0], NULL, write_page, &far) == 0);
		/* now and then just behind it, now and then in front */
		usleep((useconds_t)(round % 6) * 100);
		cr_assert(pthread_create(&threads[1], NULL, write_page, &near) == 0);
		for (int i = 0; i < 2; i++) {
			pthread_join(threads[i], &failed);
			cr_assert_null(failed, "round %d", round);
		}
		close(fd);
		must_hold(scene.file, page, 4096, MIB(1));
		must_hold(scene.file, page, 4096, MIB(3));
		must_hold(scene.backing, page, 4096, MIB(1));
	}
	free(page);
	free(found);
	scene_umount(&scene);
}

/* ---- one process has it mapped, another truncates ---- */

struct mapping {
	const char *path;
	int go, ready; /* ends of pipes */
};

static int dirty_a_page_and_wait(void *data)
{
	struct mapping *mapping = data;
	char byte = 0;
	int fd = open(mapping->path, O_RDWR);
	unsigned char *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return 1;
	memset(map + MIB(1), 0x42, 4096);
	if (write(mapping->ready, &byte, 1) != 1 || read(mapping->go, &byte, 1) != 1)
		return 2;
	if (map[MIB(1)] != 0x42)
		return 3; /* gone from under the mapping */
	return msync(map, SIZE, MS_SYNC) == 0 ? 0 : 4;
}

Test(truncate, a_dirty_mapped_page_survives_another_process_that_truncates)
{
	struct scene scene = scene_with_full_disk();
	unsigned char expected[4096];
	int go[2], ready[2];
	char byte = 0;

	cr_assert(pipe(go) == 0 && pipe(ready) == 0);
	struct mapping mapping = {.path = scene.file, .go = go[0], .ready = ready[1]};
	pid_t mapper = call_start(0, dirty_a_page_and_wait, &mapping);
	cr_assert_eq(read(ready[0], &byte, 1), 1);
	must(scene.stage, "printf 'short' > %s", scene.file);
	cr_assert_eq(write(go[1], &byte, 1), 1);
	cr_assert_eq(call_end(mapper, 30), 0);
	memset(expected, 0x42, sizeof(expected));
	must_hold(scene.file, expected, sizeof(expected), MIB(1));
	must_hold(scene.file, "short", 5, 0);
	scene_umount(&scene);
	must_hold(scene.backing, expected, sizeof(expected), MIB(1));
}
