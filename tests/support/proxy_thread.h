/*
 * proxy_thread.h - the proxy's state, and the thread that passes bytes; proxy.c gives it commands.
 *
 *   connecting -> passing -> dead (freed at the next turn)
 *        `-----------`----> lost (dropped: swallows until its ends have left) -> dead
 */
#pragma once

#include <pthread.h>

#include "support/proxy_lane.h"

struct connection {
	struct connection *next;
	int client, server; /* -1: that end of a lost one has left, or never was */
	struct lane up, down;
	bool connecting, lost, dead;
};

struct proxy {
	pthread_mutex_t lock;
	pthread_cond_t counted;
	pthread_t thread;
	uint16_t port;
	struct sockaddr_storage target;
	socklen_t target_length;
	int listener, wake;
	bool stop, dropping;
	struct link up, down;
	int64_t cut_at, accept_at;
	int64_t lateness; /* ns that timers are mostly late by; the thread's own */
	enum proxy_cut cut_how;
	unsigned taken;
	struct connection *connections;
	unsigned char chunk[LANE_CHUNK];
};

/* A listening socket of 127.0.0.1, or -1 and errno. */
int proxy_listen(uint16_t port);
/* Ends all connections but lost ones. */
void proxy_cut_all(struct proxy *proxy, enum proxy_cut how);
/* Frees connections that are dead; only in the thread, or when it has ended. */
void proxy_free_dead(struct proxy *proxy);
/* It takes the proxy, and runs until told to stop. */
void *proxy_thread(void *data);
