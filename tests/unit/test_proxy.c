/*
 * test_proxy.c - the fault-injecting proxy, before an echo server; and the scripts for it.
 */
#include "support/proxy.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/fault_script.h"

#define HEADER  48
#define QUIET   80    /* ms in which nothing comes */
#define SOON    3000  /* ms in which something does */
#define TOO_BIG 65536 /* for a PDU here */
#define MIB(n)  ((size_t)(n) << 20)

/* ---- an echo server, and clients of it through a proxy ---- */

struct echo {
	uint16_t port;
	int listener;
	bool reads;
};

static void *echo_serve(void *data)
{
	int fd = GPOINTER_TO_INT(data);
	char *bytes = malloc(MIB(1));
	ssize_t n;

	while ((n = recv(fd, bytes, MIB(1), 0)) > 0)
		if (send(fd, bytes, (size_t)n, MSG_NOSIGNAL) != n)
			break;
	free(bytes);
	close(fd);
	return NULL;
}

static void *echo_accept(void *data)
{
	const struct echo *echo = data;
	pthread_t thread;
	int fd;

	while ((fd = accept4(echo->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		if (!echo->reads)
			continue;
		pthread_create(&thread, NULL, echo_serve, GINT_TO_POINTER(fd));
		pthread_detach(thread);
	}
	return NULL;
}

static struct sockaddr_in loopback(uint16_t port)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
	    .sin_port = htons(port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* Serves until the test's process ends. */
static uint16_t echo_start(bool reads)
{
	static struct echo echo;
	struct sockaddr_in address = loopback(0);
	socklen_t length = sizeof(address);
	pthread_t thread;

	echo.reads = reads;
	echo.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(bind(echo.listener, (struct sockaddr *)&address, length), 0);
	cr_assert_eq(listen(echo.listener, 64), 0);
	getsockname(echo.listener, (struct sockaddr *)&address, &length);
	pthread_create(&thread, NULL, echo_accept, &echo);
	pthread_detach(thread);
	return ntohs(address.sin_port);
}

static struct proxy *proxied_echo(void)
{
	return proxy_start(echo_start(true));
}

static int connect_to(uint16_t port)
{
	struct sockaddr_in address = loopback(port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

static int client(const struct proxy *proxy)
{
	int fd = connect_to(proxy_port(proxy));

	cr_assert(fd >= 0);
	return fd;
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void say(int fd, const void *bytes, size_t size)
{
	cr_assert_eq(send(fd, bytes, size, MSG_NOSIGNAL), (ssize_t)size);
}

/* So many bytes; fewer when it ends or nothing comes for the ms. */
static size_t hear(int fd, void *bytes, size_t size, int ms)
{
	struct pollfd polled = {.fd = fd, .events = POLLIN};
	size_t heard = 0;

	while (heard < size && poll(&polled, 1, ms) == 1) {
		ssize_t n = recv(fd, (char *)bytes + heard, size - heard, 0);
		if (n <= 0)
			break;
		heard += (size_t)n;
	}
	return heard;
}

static void expect_echo(int fd, const void *said, size_t size)
{
	char *heard = malloc(size);

	cr_assert_eq(hear(fd, heard, size, SOON), size);
	cr_assert_arr_eq(heard, said, size);
	free(heard);
}

static void expect_silence(int fd)
{
	struct pollfd polled = {.fd = fd, .events = POLLIN};

	cr_assert_eq(poll(&polled, 1, QUIET), 0, "not silent: %d", polled.revents);
}

static void expect_works(int fd)
{
	unsigned char pdu[HEADER] = {0x40};

	say(fd, pdu, sizeof(pdu));
	expect_echo(fd, pdu, sizeof(pdu));
}

/* The connection ends by a RST or by a FIN, sooner or later. */
static void expect_end(int fd, enum proxy_cut how)
{
	struct pollfd polled = {.fd = fd, .events = POLLIN};
	char byte;

	ssize_t n;

	do {
		cr_assert_eq(poll(&polled, 1, SOON), 1, "it did not end");
		n = recv(fd, &byte, 1, 0);
	} while (n > 0); /* what came back before */
	if (how == PROXY_CUT_FIN)
		cr_assert_eq(n, 0, "no FIN: %zd, %d", n, errno);
	else
		cr_assert(n < 0 && errno == ECONNRESET, "no RST: %zd, %d", n, errno);
}

/* A PDU with data; returns its length. The data are a multiple of 4. */
static size_t pdu_of(unsigned char *pdu, unsigned char mark, size_t data)
{
	memset(pdu, mark, HEADER + data);
	pdu[0] = 0x00; /* NOP-Out */
	pdu[4] = 0;
	pdu[5] = (unsigned char)(data >> 16);
	pdu[6] = (unsigned char)(data >> 8);
	pdu[7] = (unsigned char)data;
	return HEADER + data;
}

/* One client more, and the end of it. */
static void expect_new_one_works(struct proxy *proxy)
{
	int fd = client(proxy);

	expect_works(fd);
	close(fd);
}

/* ---- latency and rate ---- */

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The median of round trips, and never less than the delay. */
static double round_trip(int fd, double delay)
{
	double took[15];

	for (int i = 0; i < 15; i++) {
		double start = seconds();
		expect_works(fd);
		took[i] = seconds() - start;
		cr_assert_geq(took[i], delay, "%f s, not %f s", took[i], delay);
	}
	qsort(took, 15, sizeof(took[0]), compare_doubles);
	return took[7];
}

Test(proxy, delays_each_direction_by_its_latency)
{
	struct proxy *proxy = proxied_echo();
	int fd = client(proxy);

	proxy_latency(proxy, PROXY_TO_TARGET, 1000);
	double took = round_trip(fd, 0.001);
	cr_assert_lt(took, 0.004, "%f s", took);
	proxy_latency(proxy, PROXY_TO_INITIATOR, 9000); /* 1 + 9 = 10 ms */
	took = round_trip(fd, 0.010);
	cr_assert_lt(took, 0.014, "%f s", took);
	proxy_latency(proxy, PROXY_BOTH, 0);
	took = round_trip(fd, 0);
	cr_assert_lt(took, 0.001, "%f s", took);
	close(fd);
	proxy_stop(proxy);
}

/* 20 messages, 2 ms apart, through 30 ms: in 20 * 2 + 30 ms, not in 20 * 30. */
Test(proxy, has_any_number_of_messages_under_way_in_order)
{
	struct proxy *proxy = proxied_echo();
	int fd = client(proxy);
	double said[20], start = seconds();
	unsigned char heard;

	proxy_latency(proxy, PROXY_TO_INITIATOR, 30000);
	for (unsigned char i = 0; i < 20; i++) {
		said[i] = seconds();
		say(fd, &i, 1);
		usleep(2000);
	}
	for (unsigned char i = 0; i < 20; i++) {
		cr_assert_eq(hear(fd, &heard, 1, SOON), 1);
		cr_assert_eq(heard, i);
		cr_assert_geq(seconds() - said[i], 0.030);
	}
	cr_assert_lt(seconds() - start, 0.3);
	close(fd);
	proxy_stop(proxy);
}

struct stream {
	int fd;
	size_t size;
};

static void *stream_say(void *data)
{
	const struct stream *stream = data;
	unsigned char *bytes = malloc(MIB(1));

	for (size_t said = 0; said < stream->size; said += MIB(1)) {
		for (size_t i = 0; i < MIB(1); i += 4096)
			memset(bytes + i, (int)((said + i) >> 12), 4096);
		if (send(stream->fd, bytes, MIB(1), MSG_NOSIGNAL) != (ssize_t)MIB(1))
			break;
	}
	shutdown(stream->fd, SHUT_WR);
	free(bytes);
	return NULL;
}

/* Says so much, ends, and hears all of it come back; returns the seconds. */
static double echo_stream(int fd, size_t size)
{
	struct stream stream = {fd, size};
	unsigned char *bytes = malloc(MIB(1));
	size_t heard = 0, n;
	pthread_t thread;
	double start = seconds();

	pthread_create(&thread, NULL, stream_say, &stream);
	for (; (n = hear(fd, bytes, MIB(1), SOON)) > 0; heard += n)
		for (size_t i = 0; i < n; i += 512)
			cr_assert_eq(bytes[i], (unsigned char)((heard + i) >> 12));
	cr_assert_eq(heard, size);
	pthread_join(thread, NULL);
	free(bytes);
	return seconds() - start;
}

/* 32 MiB, there and back, while a window of 4 MiB would make it 32 / 4 * 40 = 320 ms at least. */
Test(proxy, latency_does_not_limit_throughput, .timeout = 20)
{
	struct proxy *proxy = proxied_echo();

	proxy_latency(proxy, PROXY_BOTH, 20000);
	int fd = client(proxy);
	double took = echo_stream(fd, MIB(32));
	cr_assert_lt(took, 2, "%f s", took);
	close(fd);
	proxy_stop(proxy);
}

Test(proxy, limits_a_direction_to_its_rate_over_all_connections, .timeout = 20)
{
	struct proxy *proxy = proxied_echo();
	struct stream streams[2];
	pthread_t threads[2];
	unsigned char *bytes = malloc(MIB(2));

	proxy_limit(proxy, PROXY_TO_TARGET, MIB(8)); /* 2 * 2 MiB at 8 MiB/s: 0.5 s */
	double start = seconds();
	for (int i = 0; i < 2; i++) {
		streams[i] = (struct stream){client(proxy), MIB(2)};
		pthread_create(&threads[i], NULL, stream_say, &streams[i]);
	}
	for (int i = 0; i < 2; i++)
		cr_assert_eq(hear(streams[i].fd, bytes, MIB(2), SOON), MIB(2));
	double took = seconds() - start;
	cr_assert(took > 0.45 && took < 0.8, "%f s", took);
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		close(streams[i].fd);
	}
	free(bytes);
	proxy_stop(proxy);
}

/* ---- half-close and backpressure ---- */

static void half_closes(unsigned latency)
{
	struct proxy *proxy = proxied_echo();
	int fd = client(proxy);

	proxy_latency(proxy, PROXY_BOTH, latency);
	double start = seconds(), delay = 2e-6 * latency;
	echo_stream(fd, MIB(2)); /* hears after it has ended */
	cr_assert_geq(seconds() - start, delay);
	close(fd);

	fd = client(proxy);
	start = seconds();
	shutdown(fd, SHUT_WR);
	expect_end(fd, PROXY_CUT_FIN); /* the FIN is as late as bytes are */
	cr_assert_geq(seconds() - start, delay);
	close(fd);
	proxy_stop(proxy);
}

Test(proxy, passes_a_fin_behind_the_bytes_and_leaves_the_other_direction_open)
{
	half_closes(0);
}

Test(proxy, passes_a_fin_as_late_as_bytes)
{
	half_closes(25000);
}

/* How much a client can say to a server that does not read. */
static size_t say_to_the_deaf(unsigned latency)
{
	struct proxy *proxy = proxy_start(echo_start(false));
	int fd = client(proxy), small = 65536;
	char *bytes = calloc(1, MIB(1));
	struct pollfd polled = {.fd = fd, .events = POLLOUT};

	proxy_latency(proxy, PROXY_BOTH, latency);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	for (size_t n = 0; n < MIB(64) && poll(&polled, 1, 500) == 1;) {
		ssize_t sent = send(fd, bytes, MIB(1), MSG_DONTWAIT | MSG_NOSIGNAL);
		n += sent > 0 ? (size_t)sent : 0;
	}
	cr_assert_eq(poll(&polled, 1, 0), 0, "no backpressure");
	size_t taken = proxy_arrived(proxy, PROXY_TO_TARGET);
	free(bytes);
	close(fd);
	proxy_stop(proxy);
	return taken;
}

/* What the kernel takes for the deaf server, and 64 KiB; then 1 + 4 MiB for 1 ms more than that. */
Test(proxy, passes_backpressure_on, .timeout = 20)
{
	size_t plain = say_to_the_deaf(0), delayed = say_to_the_deaf(1000);

	cr_assert_lt(plain, MIB(16), "%zu", plain);
	cr_assert_lt(delayed, MIB(16), "%zu", delayed);
}

/* ---- drop, stall, cut ---- */

Test(proxy, drops_silently_until_healed)
{
	struct proxy *proxy = proxied_echo();
	int old = client(proxy);

	expect_works(old);
	proxy_drop(proxy, true);
	say(old, "lost", 4);
	int meanwhile = client(proxy);
	say(meanwhile, "unserved", 8);
	expect_silence(old);
	expect_silence(meanwhile);
	cr_assert(proxy_await_connections(proxy, 2, 3));
	cr_assert(proxy_await_arrived(proxy, PROXY_TO_TARGET, HEADER + 4 + 8, 3));
	cr_assert_eq(proxy_arrived(proxy, PROXY_TO_INITIATOR), HEADER);
	proxy_heal(proxy);
	say(old, "still", 5);
	expect_silence(old);
	expect_silence(meanwhile);
	expect_new_one_works(proxy);
	close(old);
	close(meanwhile);
	proxy_stop(proxy);
}

Test(proxy, drops_what_is_under_way)
{
	struct proxy *proxy = proxied_echo();
	int fd = client(proxy);

	proxy_latency(proxy, PROXY_TO_TARGET, 50000);
	say(fd, "under way", 9);
	cr_assert(proxy_await_arrived(proxy, PROXY_TO_TARGET, 9, 3));
	proxy_drop(proxy, true);
	proxy_drop(proxy, false);
	expect_silence(fd);
	cr_assert_eq(proxy_arrived(proxy, PROXY_TO_INITIATOR), 0);
	close(fd);
	proxy_stop(proxy);
}

/* Small ones pass; of the first of 200 bytes or more, 60 do. */
static void stalls_within(enum proxy_direction direction)
{
	struct proxy *proxy = proxied_echo();
	unsigned char pdus[3][TOO_BIG], heard[TOO_BIG];
	int fd = client(proxy);
	size_t sizes[] = {pdu_of(pdus[0], 1, 100), pdu_of(pdus[1], 2, 400), pdu_of(pdus[2], 3, 0)};

	expect_works(fd);
	proxy_stall_within(proxy, direction, 60, 200);
	for (int i = 0; i < 3; i++)
		say(fd, pdus[i], sizes[i]);
	expect_echo(fd, pdus[0], sizes[0]);
	cr_assert_eq(hear(fd, heard, TOO_BIG, QUIET), 60);
	cr_assert_arr_eq(heard, pdus[1], 60);
	proxy_resume(proxy);
	expect_echo(fd, pdus[1] + 60, sizes[1] - 60);
	expect_echo(fd, pdus[2], sizes[2]);
	close(fd);
	proxy_stop(proxy);
}

Test(proxy, stalls_within_a_pdu_to_the_target)
{
	stalls_within(PROXY_TO_TARGET);
}

Test(proxy, stalls_within_a_pdu_to_the_initiator)
{
	stalls_within(PROXY_TO_INITIATOR);
}

Test(proxy, stalls_within_a_header_or_half_way)
{
	struct proxy *proxy = proxied_echo();
	unsigned char pdu[TOO_BIG], heard[TOO_BIG];
	int fd = client(proxy);
	size_t size = pdu_of(pdu, 1, 1000);

	proxy_stall_within(proxy, PROXY_TO_TARGET, 10, 0);
	say(fd, pdu, size);
	cr_assert_eq(hear(fd, heard, size, QUIET), 10);
	proxy_resume(proxy);
	expect_echo(fd, pdu + 10, size - 10);
	proxy_stall_within(proxy, PROXY_TO_TARGET, PROXY_HALF, 0);
	say(fd, pdu, size);
	cr_assert_eq(hear(fd, heard, size, QUIET), size / 2);
	proxy_heal(proxy);
	expect_echo(fd, pdu + size / 2, size - size / 2);
	close(fd);
	proxy_stop(proxy);
}

/* A PDU that began before the command is not the next one. */
Test(proxy, leaves_a_pdu_alone_that_has_begun)
{
	struct proxy *proxy = proxied_echo();
	unsigned char pdu[TOO_BIG], heard[TOO_BIG];
	int fd = client(proxy);
	size_t size = pdu_of(pdu, 1, 100);

	say(fd, pdu, 20);
	expect_echo(fd, pdu, 20);
	proxy_stall_within(proxy, PROXY_TO_TARGET, 30, 0);
	proxy_corrupt(proxy, PROXY_TO_TARGET, PROXY_DATA, 1, 0);
	say(fd, pdu + 20, size - 20);
	expect_echo(fd, pdu + 20, size - 20);
	say(fd, pdu, size);
	cr_assert_eq(hear(fd, heard, size, QUIET), 30);
	proxy_resume(proxy);
	cr_assert_eq(hear(fd, heard + 30, size - 30, SOON), size - 30);
	pdu[HEADER] ^= 1;
	cr_assert_arr_eq(heard, pdu, size);
	close(fd);
	proxy_stop(proxy);
}

static void cuts_within(enum proxy_direction direction, enum proxy_cut how, unsigned latency)
{
	struct proxy *proxy = proxied_echo();
	unsigned char pdu[TOO_BIG], heard[TOO_BIG];
	size_t size = pdu_of(pdu, 1, 8000);
	int fd = client(proxy), other = client(proxy);

	expect_works(fd);
	expect_works(other);
	proxy_latency(proxy, PROXY_BOTH, latency);
	proxy_cut_within(proxy, direction, 100, 0, how);
	say(fd, pdu, size);
	if (direction == PROXY_TO_INITIATOR) {
		cr_assert_eq(hear(fd, heard, 100, SOON), 100);
		cr_assert_arr_eq(heard, pdu, 100);
	}
	expect_end(fd, how);
	expect_works(other);
	expect_new_one_works(proxy);
	close(fd);
	close(other);
	proxy_stop(proxy);
}

Test(proxy, cuts_within_a_pdu_to_the_initiator)
{
	cuts_within(PROXY_TO_INITIATOR, PROXY_CUT_RST, 0);
	cuts_within(PROXY_TO_INITIATOR, PROXY_CUT_FIN, 0);
	cuts_within(PROXY_TO_INITIATOR, PROXY_CUT_RST, 5000);
}

Test(proxy, cuts_within_a_pdu_to_the_target)
{
	cuts_within(PROXY_TO_TARGET, PROXY_CUT_RST, 0);
	cuts_within(PROXY_TO_TARGET, PROXY_CUT_RST, 5000);
}

Test(proxy, cuts_after_bytes)
{
	struct proxy *proxy = proxied_echo();
	unsigned char pdu[TOO_BIG], heard[TOO_BIG];
	int fd = client(proxy);

	proxy_cut_after_bytes(proxy, PROXY_TO_INITIATOR, 2 * HEADER + 1000, PROXY_CUT_FIN);
	expect_works(fd);
	expect_works(fd);
	memset(pdu, 7, sizeof(pdu));
	say(fd, pdu, 4000);
	cr_assert_eq(hear(fd, heard, 4000, SOON), 1000);
	expect_end(fd, PROXY_CUT_FIN);
	expect_new_one_works(proxy); /* once is enough */
	close(fd);
	proxy_stop(proxy);
}

Test(proxy, cuts_after_pdus)
{
	struct proxy *proxy = proxied_echo();
	unsigned char pdu[TOO_BIG], heard[TOO_BIG];
	size_t size = pdu_of(pdu, 1, 200);
	int fd = client(proxy);

	proxy_cut_after_pdus(proxy, PROXY_TO_INITIATOR, 3, PROXY_CUT_RST);
	for (int i = 0; i < 5; i++)
		say(fd, pdu, size);
	cr_assert_eq(hear(fd, heard, 3 * size, SOON), 3 * size);
	expect_end(fd, PROXY_CUT_RST);
	expect_new_one_works(proxy);
	close(fd);
	proxy_stop(proxy);
}

Test(proxy, cuts_after_a_time)
{
	struct proxy *proxy = proxied_echo();
	int fd = client(proxy);
	double start = seconds();

	expect_works(fd);
	proxy_cut_after_ms(proxy, 50, PROXY_CUT_RST);
	expect_works(fd);
	expect_end(fd, PROXY_CUT_RST);
	double took = seconds() - start;
	cr_assert(took >= 0.05 && took < 0.3, "%f s", took);
	close(fd);
	proxy_stop(proxy);
}

Test(proxy, corrupts_one_bit_of_the_nth_header_or_data)
{
	struct proxy *proxy = proxied_echo();
	unsigned char pdu[TOO_BIG], spoilt[TOO_BIG];
	size_t size = pdu_of(pdu, 1, 200);
	int fd = client(proxy);

	memcpy(spoilt, pdu, size);
	spoilt[6] ^= 1 << 3; /* of a length: the proxy itself is not deceived */
	proxy_corrupt(proxy, PROXY_TO_INITIATOR, PROXY_HEADER, 2, 6 * 8 + 3);
	for (int i = 0; i < 3; i++)
		say(fd, pdu, size);
	expect_echo(fd, pdu, size);
	expect_echo(fd, spoilt, size);
	expect_echo(fd, pdu, size);

	memcpy(spoilt, pdu, size);
	spoilt[HEADER + 5] ^= 1 << 7; /* byte 205 of 200 is the 5th */
	proxy_corrupt(proxy, PROXY_TO_TARGET, PROXY_DATA, 2, 205 * 8 + 7);
	say(fd, pdu, size);
	expect_echo(fd, pdu, size);
	expect_works(fd); /* has no data: not counted */
	say(fd, pdu, size);
	expect_echo(fd, spoilt, size);
	cr_assert_eq(proxy_corrupted(proxy), 2);
	close(fd);
	proxy_stop(proxy);
}

/* The echo of a Login Response to the full feature phase makes the proxy reckon with digests. */
Test(proxy, follows_digests)
{
	static const char keys[] = "HeaderDigest=CRC32C\0DataDigest=CRC32C\0\0"; /* 40 with its 0 */
	struct proxy *proxy = proxied_echo();
	unsigned char login[TOO_BIG], pdu[TOO_BIG], spoilt[TOO_BIG];
	size_t length = pdu_of(login, 0, 40), size = pdu_of(pdu, 1, 200) + 8;
	int fd = client(proxy);

	login[0] = 0x23;
	login[1] = 0x87;
	memcpy(login + HEADER, keys, 40);
	say(fd, login, length);
	expect_echo(fd, login, length);
	memset(pdu + size - 8, 2, 8);
	memcpy(spoilt, pdu, size);
	spoilt[HEADER + 4] ^= 1;
	proxy_corrupt(proxy, PROXY_TO_TARGET, PROXY_DATA, 3, 0);
	for (int i = 0; i < 3; i++)
		say(fd, pdu, size);
	expect_echo(fd, pdu, size);
	expect_echo(fd, pdu, size);
	expect_echo(fd, spoilt, size);
	close(fd);
	proxy_stop(proxy);
}

/* ---- counts, and the end of it all ---- */

Test(proxy, awaits_connections_and_bytes)
{
	struct proxy *proxy = proxied_echo();
	double start = seconds();

	cr_assert_not(proxy_await_connections(proxy, 1, 0.05));
	cr_assert_geq(seconds() - start, 0.05);
	int fd = client(proxy);
	cr_assert(proxy_await_connections(proxy, 1, 3));
	cr_assert_not(proxy_await_arrived(proxy, PROXY_BOTH, 1, 0.02));
	say(fd, "abc", 3);
	cr_assert(proxy_await_arrived(proxy, PROXY_TO_TARGET, 3, 3));
	cr_assert(proxy_await_arrived(proxy, PROXY_BOTH, 6, 3));
	cr_assert_not(proxy_await_arrived(proxy, PROXY_BOTH, 7, 0.02));
	close(fd);
	proxy_stop(proxy);
}

Test(proxy, heals_from_everything)
{
	struct proxy *proxy = proxied_echo();

	proxy_refuse(proxy, true);
	cr_assert_eq(connect_to(proxy_port(proxy)), -1);
	proxy_drop(proxy, true);
	proxy_stall(proxy, PROXY_BOTH);
	proxy_cut_within(proxy, PROXY_TO_TARGET, 1, 0, PROXY_CUT_RST);
	proxy_cut_after_bytes(proxy, PROXY_TO_INITIATOR, 1, PROXY_CUT_RST);
	proxy_corrupt(proxy, PROXY_BOTH, PROXY_HEADER, 1, 0);
	proxy_cut_after_ms(proxy, 20, PROXY_CUT_RST);
	proxy_heal(proxy);
	int fd = client(proxy);
	expect_works(fd);
	expect_silence(fd);
	expect_works(fd);
	close(fd);
	proxy_stop(proxy);
}

Test(proxy, says_when_it_cannot_listen)
{
	struct proxy *proxy = proxied_echo();
	struct sockaddr_in target = loopback(1);

	errno = 0;
	cr_assert_null(proxy_open(proxy_port(proxy), (struct sockaddr *)&target, sizeof(target)));
	cr_assert_eq(errno, EADDRINUSE);
	proxy_stop(proxy);
}

/* ---- scripts ---- */

static void script_line(struct fault_script *script, const char *line)
{
	char *error = NULL;

	cr_assert(fault_script_add(script, line, &error), "%s: %s", line, error);
}

/* Plays for so long, or to its end. */
static void play(struct fault_script *script, struct proxy *proxy, double length)
{
	double end = seconds() + length;

	while (seconds() < end && fault_script_play(script, proxy) >= 0)
		usleep(1000);
}

Test(fault_script, understands_its_language)
{
	static const char *const lines[] = {"", "  # nothing", "latency both 10ms # a comment",
	    "latency 1.5ms", "latency none", "limit to-target 10M", "limit none", "limit 4096 both",
	    "stall", "stall to-target 2s", "stall half 1s", "stall half 100/4K to-initiator 10us",
	    "every 1s random: stall half 1s, cut rst", "cut rst", "cut fin half",
	    "cut rst half 10/48 to-target", "cut fin after 10K bytes",
	    "cut rst after 3 pdus to-initiator", "drop", "drop 2s", "refuse 1min", "corrupt header",
	    "corrupt data nth 3 bit 17 to-target", "resume", "heal", "stop", "after 2s cut rst",
	    "at 1h quit", "every 1s cut fin", "every 1s: cut fin, drop 1s",
	    "every 500ms..3s random seed 42: cut rst, cut fin, drop 2s, refuse 1s, corrupt header"};
	struct fault_script *script = fault_script_new(NULL);

	for (size_t i = 0; i < G_N_ELEMENTS(lines); i++)
		script_line(script, lines[i]);
	fault_script_free(script);
}

Test(fault_script, tells_what_is_wrong)
{
	static const struct {
		const char *line, *error;
	} wrong[] = {
	    {"explode", "'explode' is no command"},
	    {"after cut", "'cut' is no time: 500ms, 2s"},
	    {"after 2s", "there is no command"},
	    {"after 2 cut rst", "'2' is no time: 500ms, 2s"},
	    {"every 3s..1s cut rst", "'3s..1s' is no time: 500ms, 2s, 500ms..3s"},
	    {"every 1s: cut rst,", "there is no command"},
	    {"every 1s: quit", "quit comes once only"},
	    {"every 1s random seed x: drop", "'x' is no number"},
	    {"cut", "cut wants rst or fin"},
	    {"cut rst to-target", "this cut has no direction"},
	    {"cut rst after 0 bytes", "'after' wants so many bytes or pdus"},
	    {"cut rst, cut fin", "only 'every' takes several commands"},
	    {"latency both", "latency wants a time, or none"},
	    {"latency 0x10s", "'0x10s' is nothing that latency knows"},
	    {"latency 3h", "latency is at most an hour"},
	    {"limit fast", "'fast' is nothing that limit knows"},
	    {"limit", "limit wants bytes per second, or none"},
	    {"stall half 1/x", "'1/x' is no part of a PDU: 100/512"},
	    {"drop 2s now", "'now' is nothing that drop knows"},
	    {"corrupt", "corrupt wants header or data"},
	    {"corrupt data nth 0", "nth counts from 1"},
	    {"heal both", "this heal has no direction"},
	};
	struct fault_script *script = fault_script_new(NULL);

	for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
		char *error = NULL;
		cr_assert_not(fault_script_add(script, wrong[i].line, &error), "%s", wrong[i].line);
		cr_assert_str_eq(error, wrong[i].error, "%s: %s", wrong[i].line, error);
		g_free(error);
	}
	fault_script_free(script);
}

Test(fault_script, does_things_at_their_time)
{
	struct proxy *proxy = proxied_echo();
	struct fault_script *script = fault_script_new(NULL);
	int fd = client(proxy);
	double start = seconds();

	expect_works(fd);
	script_line(script, "latency to-target 20ms");
	script_line(script, "after 100ms cut fin");
	script_line(script, "after 100ms quit");
	script_line(script, "after 1h refuse");
	play(script, proxy, 0.05);
	round_trip(fd, 0.020);
	play(script, proxy, 5);
	expect_end(fd, PROXY_CUT_FIN);
	double took = seconds() - start;
	cr_assert(took >= 0.2 && took < 1, "%f s", took);
	expect_new_one_works(proxy);
	close(fd);
	fault_script_free(script);
	proxy_stop(proxy);
}

Test(fault_script, ends_what_lasts_a_time)
{
	struct proxy *proxy = proxied_echo();
	struct fault_script *script = fault_script_new(NULL);
	int fd = client(proxy);

	expect_works(fd);
	script_line(script, "stall 60ms");
	script_line(script, "refuse 60ms");
	play(script, proxy, 0.02);
	cr_assert_eq(connect_to(proxy_port(proxy)), -1);
	say(fd, "later", 5);
	expect_silence(fd);
	play(script, proxy, 0.02);
	expect_echo(fd, "later", 5);
	expect_new_one_works(proxy);
	script_line(script, "drop 30ms");
	play(script, proxy, 0.05);
	say(fd, "never", 5);
	expect_silence(fd);
	expect_new_one_works(proxy);
	close(fd);
	fault_script_free(script);
	proxy_stop(proxy);
}

Test(fault_script, repeats_until_told_to_stop)
{
	struct proxy *proxy = proxied_echo();
	struct fault_script *script = fault_script_new(NULL);

	script_line(script, "every 20ms..40ms random seed 3: cut rst, cut fin");
	script_line(script, "after 250ms stop");
	for (int i = 0; i < 3; i++) {
		int fd = client(proxy);
		expect_works(fd);
		char byte;
		struct pollfd polled = {.fd = fd, .events = POLLIN};
		while (poll(&polled, 1, 0) == 0)
			play(script, proxy, 0.005);
		cr_assert_leq(recv(fd, &byte, 1, 0), 0);
		close(fd);
	}
	play(script, proxy, 0.3);
	int fd = client(proxy);
	expect_works(fd);
	play(script, proxy, 0.06);
	expect_works(fd);
	close(fd);
	fault_script_free(script);
	proxy_stop(proxy);
}

/* ---- the tool ---- */

/* Runs it, beside these tests, with a script on stdin; returns its port, or 0 when it said none. */
static uint16_t tool_start(uint16_t target, const char *script, pid_t *pid, int *input, int *errors)
{
	g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
	g_autofree char *folder = g_path_get_dirname(self);
	g_autofree char *tool = g_build_filename(folder, "tools", "faultproxy", NULL);
	g_autofree char *address = g_strdup_printf("127.0.0.1:%u", target);
	char *argv[] = {tool, address, NULL}, said[32] = "";
	char *environment[] = {NULL}; /* Criterion's would make a test of what is linked with it */
	unsigned port = 0;
	int output;

	if (!g_file_test(tool, G_FILE_TEST_IS_EXECUTABLE))
		cr_skip_test("%s is not there", tool);
	cr_assert(g_spawn_async_with_pipes(NULL, argv, environment, G_SPAWN_DO_NOT_REAP_CHILD, NULL,
	    NULL, pid, input, &output, errors, NULL));
	cr_assert_eq(write(*input, script, strlen(script)), (ssize_t)strlen(script));
	cr_assert_gt(read(output, said, sizeof(said) - 1), 0);
	cr_assert_eq(sscanf(said, "PORT %u\n", &port), 1, "%s", said);
	return (uint16_t)port;
}

static int tool_end(pid_t pid)
{
	int status;

	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

Test(faultproxy, plays_lines_as_they_come, .timeout = 10)
{
	pid_t pid;
	int input, errors;
	uint16_t port = tool_start(echo_start(true), "latency both 10ms\n", &pid, &input, &errors);
	int fd = connect_to(port);

	usleep(50000);
	round_trip(fd, 0.020);
	cr_assert_eq(write(input, "cut rst\n", 8), 8);
	expect_end(fd, PROXY_CUT_RST);
	cr_assert_eq(write(input, "quit", 4), 4);
	close(input);
	cr_assert_eq(tool_end(pid), 0);
	close(fd);
}

Test(faultproxy, ends_at_a_wrong_line, .timeout = 10)
{
	char said[200] = "";
	pid_t pid;
	int input, errors;

	tool_start(echo_start(true), "# fine\n\ndorp 2s\n", &pid, &input, &errors);
	cr_assert_eq(tool_end(pid), 2);
	cr_assert_gt(read(errors, said, sizeof(said) - 1), 0);
	cr_assert_str_eq(said, "faultproxy: stdin:3: 'dorp' is no command\n");
}

Test(faultproxy, ends_at_sigterm, .timeout = 10)
{
	pid_t pid;
	int input, errors;

	tool_start(echo_start(true), "", &pid, &input, &errors);
	kill(pid, SIGTERM);
	cr_assert_eq(tool_end(pid), 0);
}
