/*
 * command_list.h - commands in an order, linked by their own prev and next. A list begins as zeros.
 */
#pragma once

#include "lunfs/scsi.h"

struct command_list {
	struct scsi_command *first, *last;
};

/* before NULL: as the first. */
static inline void command_list_insert(
    struct command_list *list, struct scsi_command *before, struct scsi_command *command)
{
	command->prev = before;
	command->next = before != NULL ? before->next : list->first;
	if (command->next != NULL)
		command->next->prev = command;
	else
		list->last = command;
	if (before != NULL)
		before->next = command;
	else
		list->first = command;
}

static inline void command_list_append(struct command_list *list, struct scsi_command *command)
{
	command_list_insert(list, list->last, command);
}

static inline void command_list_remove(struct command_list *list, struct scsi_command *command)
{
	if (command->prev != NULL)
		command->prev->next = command->next;
	else
		list->first = command->next;
	if (command->next != NULL)
		command->next->prev = command->prev;
	else
		list->last = command->prev;
}
