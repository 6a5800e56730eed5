/* What dovecot-plugin/shim.c offers Rust: macros, static inlines and bitfields made callable. No
   decisions and no state are here. Dovecot's manner: _r marks what is written on success. */
#ifndef UIDL_KEEP_SHIM_H
#define UIDL_KEEP_SHIM_H

#include "lib.h"
#include "mail-storage-private.h"
#include "mail-storage-hooks.h"
#include "mail-user.h"

/* DOVECOT_PREREQ() takes two arguments in older 2.3 and three in newer. */
#define UIDL_KEEP_DOVECOT_2_4 \
	(DOVECOT_VERSION_MAJOR == 2 && DOVECOT_VERSION_MINOR == 4)

struct maildir_uidlist;
struct module;

enum uidl_keep_log_level {
	UIDL_KEEP_LOG_DEBUG,
	UIDL_KEEP_LOG_INFO,
	UIDL_KEEP_LOG_WARNING,
	UIDL_KEEP_LOG_ERROR
};

/* Logging: one line through an event's own prefix. */
void uidl_keep_log(struct event *event, enum uidl_keep_log_level level, const char *line);
/* Named events, for Dovecot's statistics. An event counts when it is sent, and its duration is from
   begin to there; its line is logged for debugging. end frees it, sent or not. */
struct event *uidl_keep_event_begin(struct event *parent);
void uidl_keep_event_add_count(struct event *event, const char *key, uint64_t count);
void uidl_keep_event_add_word(struct event *event, const char *key, const char *word);
void uidl_keep_event_send(struct event *event, const char *name, const char *line);
void uidl_keep_event_end(struct event *event);
/* Ends the process by exit, after logging the line: never returns. */
void uidl_keep_die(const char *line);
/* The same with the exit status by which Dovecot's processes say that memory has run out. */
void uidl_keep_die_of_memory(size_t octets);

/* Data stack frame: everything t_*() allocated since the push is free after the pop. */
unsigned int uidl_keep_frame_push(void);
void uidl_keep_frame_pop(unsigned int frame);

/* User. attach: saves the methods and returns those to change; state is what Rust keeps with it. */
struct mail_user_vfuncs *uidl_keep_user_attach(struct mail_user *user, void *state);
const struct mail_user_vfuncs *uidl_keep_user_super(struct mail_user *user);
void *uidl_keep_user_state(struct mail_user *user);
bool uidl_keep_user_is_autocreated(struct mail_user *user);
/* Whether dsync copies its mail: doveadm backup, sync, dsync-server. */
bool uidl_keep_user_is_dsyncing(struct mail_user *user);
const char *uidl_keep_user_name(struct mail_user *user);
/* A setting of plugin {}, which 2.4 does not have, or of the user database; NULL if it is not set. */
const char *uidl_keep_user_plugin_setting(struct mail_user *user, const char *name);

/* Mailbox. */
struct mailbox_vfuncs *uidl_keep_mailbox_attach(struct mailbox *box, void *state);
struct mailbox_vfuncs *uidl_keep_mailbox_methods(struct mailbox *box);
const struct mailbox_vfuncs *uidl_keep_mailbox_super(struct mailbox *box);
void *uidl_keep_mailbox_state(struct mailbox *box);
struct mail_user *uidl_keep_mailbox_user(struct mailbox *box);
bool uidl_keep_mailbox_is_inbox(struct mailbox *box);
bool uidl_keep_mailbox_is_pop3(struct mailbox *box);
struct event *uidl_keep_mailbox_event(struct mailbox *box);
/* Fails the caller's operation on the mailbox with a temporary error that shows text to the client. */
void uidl_keep_mailbox_fail(struct mailbox *box, const char *text);
const char *uidl_keep_mailbox_format(struct mailbox *box);
/* The setting mmap_disable: files are to be read, not mapped. */
bool uidl_keep_mailbox_mmap_disabled(struct mailbox *box);
/* How many messages there are, as far as the mailbox was synced. */
uint32_t uidl_keep_mailbox_messages(struct mailbox *box);
/* Raises the UID that the next message will get. */
int uidl_keep_mailbox_raise_next_uid(struct mailbox *box, uint32_t next_uid);
/* NULL where the storage is not Maildir. */
struct maildir_uidlist *uidl_keep_maildir_uidlist(struct mailbox *box);
/* NULL where the list has not the UID: then it must not be told of it. */
const char *uidl_keep_maildir_file_name(struct maildir_uidlist *uidlist, uint32_t uid);
struct mailbox *uidl_keep_transaction_mailbox(struct mailbox_transaction_context *t);
void uidl_keep_transaction_view(struct mailbox_transaction_context *t,
				uint32_t *uidvalidity_r, uint32_t *next_uid_r,
				uint32_t *index_id_r, uint32_t *messages_r);
uint32_t uidl_keep_view_uid(struct mailbox_transaction_context *t, uint32_t seq);
struct mailbox_transaction_context *uidl_keep_search_transaction(struct mail_search_context *ctx);
/* Whether a search is one that POP3 lists by. */
bool uidl_keep_sorts_by_pop3_order(const enum mail_sort_type *sort_program);

/* Mail. */
typedef int uidl_keep_get_special_t(struct mail *mail, enum mail_fetch_field field,
				    const char **value_r);
/* Puts get_special in the place of the mail's own. */
void uidl_keep_mail_attach(struct mail *mail, uidl_keep_get_special_t *get_special);
/* The one in whose place ours is. */
uidl_keep_get_special_t *uidl_keep_mail_super_get_special(struct mail *mail);
/* Whether it is Maildir's own, and nobody but us stands before it. */
bool uidl_keep_mail_is_of_maildir(struct mail *mail);
struct mailbox *uidl_keep_mail_mailbox(struct mail *mail);
uint32_t uidl_keep_mail_uid(struct mail *mail);
bool uidl_keep_mail_is_expunged(struct mail *mail);
/* A copy of so many octets, closed by a NUL. It lives until the mail is closed or turns to another
   message. */
const char *uidl_keep_mail_strndup(struct mail *mail, const char *octets, size_t count);
/* What pop3_uidl_format gives for the message; NULL and error_r where it cannot be expanded. */
const char *uidl_keep_mail_native_uidl(struct mail *mail, uint32_t uidvalidity,
				       const char *filename, const char *guid,
				       const char *md5, const char **error_r);

/* Takes what is buffered or can be read. 1: data_r and size_r (it is skipped by the next call),
   0: end, -1: error. */
int uidl_keep_stream_next(struct istream *input, size_t *taken,
			  const unsigned char **data_r, size_t *size_r);
const char *uidl_keep_stream_error(struct istream *input);

#endif
