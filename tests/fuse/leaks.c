/*
 * leaks.c - where the leak checker of the address sanitizer does not look: at the test programs
 * themselves, whose processes are short. This is not linked into the daemon, whose leaks matter.
 */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}
