/*
 * context.h - libiscsi's context, set up for a login.
 */
#pragma once

struct iscsi_context;
struct login;

/* For one connection; its owner is the caller, who calls iscsi_destroy_context(). */
struct iscsi_context *context_new(const struct login *login);
