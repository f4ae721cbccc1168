/*
 * replay.c - the fuzz target without libFuzzer, for any compiler: each file, and a number of
 * mutations of it, the same ones each time.
 *
 *   replay MUTATIONS FILE...
 *
 * What fails leaves its input in the file that LUNFS_FUZZ_CRASH names (by default crash-replay).
 */
#include <fcntl.h>
#include <glib.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST 4096u

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

static const uint8_t *current;
static size_t current_size;

/* Called from a signal handler, or by a sanitizer before it ends the process. */
static void keep_input(void)
{
	const char *name = getenv("LUNFS_FUZZ_CRASH");
	int fd = open(name ? name : "crash-replay", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd >= 0 && current && write(fd, current, current_size) < 0)
		close(fd);
}

static void on_signal(int number)
{
	keep_input();
	signal(number, SIG_DFL);
	raise(number);
}

void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

/* Its own copy, so that a read beyond its end is seen. */
static void run(const uint8_t *input, size_t size)
{
	uint8_t *copy = malloc(size + !size);

	memcpy(copy, input, size);
	current = copy;
	current_size = size;
	LLVMFuzzerTestOneInput(copy, size);
	current = NULL;
	free(copy);
}

static size_t mutate(GRand *random, uint8_t *input, size_t size)
{
	for (int changes = g_rand_int_range(random, 1, 5); changes > 0; changes--) {
		size_t at = size ? g_rand_int(random) % size : 0;

		switch (g_rand_int(random) % 4) {
		case 0:
			if (size > 0)
				input[at] = (uint8_t)g_rand_int(random);
			break;
		case 1:
			if (size > 0)
				input[at] ^= (uint8_t)(1u << g_rand_int(random) % 8);
			break;
		case 2:
			if (size < MOST) {
				memmove(input + at + 1, input + at, size - at);
				input[at] = (uint8_t)g_rand_int(random);
				size++;
			}
			break;
		default:
			if (size > 0) {
				memmove(input + at, input + at + 1, size - at - 1);
				size--;
			}
			break;
		}
	}
	return size;
}

int main(int argc, char **argv)
{
	long mutations = argc > 1 ? strtol(argv[1], NULL, 10) : 0;
	unsigned long runs = 0;

	for (int i = 0; i < 2; i++)
		signal((int[]){SIGABRT, SIGSEGV}[i], on_signal);
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(keep_input);
	LLVMFuzzerInitialize(&argc, &argv);
	for (int i = 2; i < argc; i++) {
		g_autofree char *bytes = NULL;
		g_autoptr(GRand) random = g_rand_new_with_seed((guint32)i);
		uint8_t input[MOST + 1];
		gsize size;

		if (!g_file_get_contents(argv[i], &bytes, &size, NULL)) {
			fprintf(stderr, "replay: cannot read %s\n", argv[i]);
			return 1;
		}
		size = MIN(size, MOST);
		run((const uint8_t *)bytes, size);
		for (long k = 0; k < mutations; k++) {
			memcpy(input, bytes, size);
			run(input, mutate(random, input, size));
		}
		runs += 1 + (unsigned long)mutations;
	}
	printf("fuzz: %lu inputs passed\n", runs);
	return 0;
}
