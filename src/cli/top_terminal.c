/*
 * top_terminal.c - a terminal that is taken over for a while: see top_terminal.h.
 */
#include "top_terminal.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <termios.h>
#include <unistd.h>

/* The alternate screen, no cursor, no wrapping at the last column; and back. */
#define ENTER "\033[?1049h\033[?25l\033[?7l\033[H\033[2J"
#define LEAVE "\033[0m\033[?7h\033[?25h\033[?1049l"

struct terminal {
	struct termios before;
	atomic_bool entered;
};

struct terminal *terminal_new(void)
{
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		return NULL;
	struct terminal *terminal =
	    mmap(NULL, sizeof *terminal, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return terminal == MAP_FAILED ? NULL : terminal;
}

void terminal_free(struct terminal *terminal)
{
	munmap(terminal, sizeof *terminal);
}

void terminal_enter(struct terminal *terminal)
{
	struct termios keys;

	if (atomic_load(&terminal->entered) || tcgetattr(STDIN_FILENO, &terminal->before) != 0)
		return;
	keys = terminal->before;
	keys.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ECHONL | IEXTEN);
	keys.c_iflag &= ~(tcflag_t)IXON; /* a stopped terminal could not be given back */
	keys.c_cc[VMIN] = 1;
	keys.c_cc[VTIME] = 0;
	/* First: who is killed behind it leaves something to be given back. */
	atomic_store(&terminal->entered, true);
	tcsetattr(STDIN_FILENO, TCSANOW, &keys);
	terminal_write(ENTER, strlen(ENTER));
}

void terminal_leave(struct terminal *terminal)
{
	if (!atomic_load(&terminal->entered))
		return;
	terminal_write(LEAVE, strlen(LEAVE));
	tcsetattr(STDIN_FILENO, TCSANOW, &terminal->before);
	atomic_store(&terminal->entered, false);
}

void terminal_size(unsigned *lines, unsigned *columns)
{
	struct winsize size;
	bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0;

	*lines = known && size.ws_row > 0 ? size.ws_row : 24;
	*columns = known && size.ws_col > 0 ? size.ws_col : 80;
}

bool terminal_write(const char *bytes, size_t length)
{
	while (length > 0) {
		ssize_t n = write(STDOUT_FILENO, bytes, length);

		if (n < 0 && errno == EAGAIN) {
			struct pollfd ready = {.fd = STDOUT_FILENO, .events = POLLOUT};
			(void)poll(&ready, 1, 1000);
		} else if (n < 0 && errno != EINTR) {
			return false;
		} else if (n > 0) {
			bytes += n;
			length -= (size_t)n;
		}
	}
	return true;
}
