/*
 * hole.c - listening sockets that nobody serves; they live until the test's process ends.
 */
#include "support/hole.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <poll.h>
#include <sys/socket.h>

static int socket_on_loopback(struct sockaddr_in *address, int backlog)
{
	socklen_t length = sizeof(*address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*address =
	    (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	cr_assert(bind(fd, (struct sockaddr *)address, length) == 0);
	cr_assert(listen(fd, backlog) == 0);
	cr_assert(getsockname(fd, (struct sockaddr *)address, &length) == 0);
	return fd;
}

uint16_t hole_that_drops(void)
{
	struct sockaddr_in address;

	socket_on_loopback(&address, 0);
	/* connect until one is not answered within 300 ms: from there on all SYNs are dropped */
	for (int i = 0; i < 16; i++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		struct pollfd polled = {.fd = fd, .events = POLLOUT};

		connect(fd, (struct sockaddr *)&address, sizeof(address));
		if (poll(&polled, 1, 300) == 0)
			return ntohs(address.sin_port);
	}
	cr_assert_fail("the kernel takes connections without end");
	return 0;
}

uint16_t hole_that_is_silent(void)
{
	struct sockaddr_in address;

	socket_on_loopback(&address, 64);
	return ntohs(address.sin_port);
}
