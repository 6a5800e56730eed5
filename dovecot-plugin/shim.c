/* Makes Dovecot's macros, static inlines, varargs and bitfields callable from Rust. It makes no
   decisions and keeps no state. include/shim.h describes each function. */

#include "lib.h"
#include "array.h"
#include "istream.h"
#include "str.h"
#include "var-expand.h"
#include "mail-index.h"
#include "mail-user.h"
#include "mail-namespace.h"
#include "mail-storage-settings.h"
#include "maildir-storage.h"
#include "maildir-uidlist.h"
#include "shim.h"

#if DOVECOT_VERSION_MAJOR != 2 || DOVECOT_VERSION_MINOR < 3 || DOVECOT_VERSION_MINOR > 4
#  error uidl-keep knows the plugin interface of Dovecot 2.3 and 2.4; these headers are of neither
#endif

struct uidl_keep_user {
	union mail_user_module_context module_ctx;
	void *state;
};

struct uidl_keep_mail {
	union mail_module_context module_ctx;
	uidl_keep_get_special_t *get_special;
};

struct uidl_keep_mailbox {
	union mailbox_module_context module_ctx;
	void *state;
	struct mailbox_vfuncs *methods;
};

static MODULE_CONTEXT_DEFINE_INIT(uidl_keep_user_module, &mail_user_module_register);
static MODULE_CONTEXT_DEFINE_INIT(uidl_keep_mailbox_module, &mail_storage_module_register);
static MODULE_CONTEXT_DEFINE_INIT(uidl_keep_mail_module, &mail_module_register);

static struct event_category uidl_keep_category = { .name = "uidl-keep" };

struct event *uidl_keep_event_begin(struct event *parent)
{
	struct event *event = event_create(parent);

	event_add_category(event, &uidl_keep_category);
	event_set_append_log_prefix(event, "uidl-keep: ");
	return event;
}

void uidl_keep_event_add_count(struct event *event, const char *key, uint64_t count)
{
	event_add_int(event, key, count);
}

void uidl_keep_event_add_word(struct event *event, const char *key, const char *word)
{
	event_add_str(event, key, word);
}

void uidl_keep_event_send(struct event *event, const char *name, const char *line)
{
	event_set_name(event, name);
	e_debug(event, "%s", line);
}

void uidl_keep_event_end(struct event *event)
{
	event_unref(&event);
}

void uidl_keep_log(struct event *parent, enum uidl_keep_log_level level, const char *line)
{
	struct event *event = uidl_keep_event_begin(parent);

	switch (level) {
	case UIDL_KEEP_LOG_DEBUG:
		e_debug(event, "%s", line);
		break;
	case UIDL_KEEP_LOG_INFO:
		e_info(event, "%s", line);
		break;
	case UIDL_KEEP_LOG_WARNING:
		e_warning(event, "%s", line);
		break;
	case UIDL_KEEP_LOG_ERROR:
		e_error(event, "%s", line);
		break;
	}
	event_unref(&event);
}

void uidl_keep_die(const char *line)
{
	i_fatal("uidl-keep: %s", line);
}

void uidl_keep_die_of_memory(size_t octets)
{
	i_fatal_status(FATAL_OUTOFMEM, "uidl-keep: out of memory: cannot have %zu octets more; "
		       "raise vsz_limit of this service, or the machine's memory", octets);
}

unsigned int uidl_keep_frame_push(void)
{
	return t_push("uidl-keep");
}

void uidl_keep_frame_pop(unsigned int frame)
{
	data_stack_frame_t id = frame;

	if (!t_pop(&id))
		i_panic("uidl-keep: data stack frames out of order");
}

/* User */

struct mail_user_vfuncs *uidl_keep_user_attach(struct mail_user *user, void *state)
{
	struct mail_user_vfuncs *v = user->vlast;
	struct uidl_keep_user *ctx = p_new(user->pool, struct uidl_keep_user, 1);

	ctx->module_ctx.super = *v;
	user->vlast = &ctx->module_ctx.super;
	ctx->state = state;
	MODULE_CONTEXT_SET(user, uidl_keep_user_module, ctx);
	return v;
}

static struct uidl_keep_user *uidl_keep_user_ctx(struct mail_user *user)
{
	return MODULE_CONTEXT(user, uidl_keep_user_module);
}

const struct mail_user_vfuncs *uidl_keep_user_super(struct mail_user *user)
{
	return &uidl_keep_user_ctx(user)->module_ctx.super;
}

void *uidl_keep_user_state(struct mail_user *user)
{
	struct uidl_keep_user *ctx = uidl_keep_user_ctx(user);

	return ctx == NULL ? NULL : ctx->state;
}

bool uidl_keep_user_is_autocreated(struct mail_user *user)
{
	return user->autocreated;
}

bool uidl_keep_user_is_dsyncing(struct mail_user *user)
{
	return user->dsyncing;
}

const char *uidl_keep_user_name(struct mail_user *user)
{
	return user->username;
}

const char *uidl_keep_user_plugin_setting(struct mail_user *user, const char *name)
{
#if UIDL_KEEP_DOVECOT_2_4
	const char *const *fields = user->userdb_fields;
	size_t len = strlen(name);

	for (; fields != NULL && *fields != NULL; fields++) {
		if (strncmp(*fields, name, len) == 0 && (*fields)[len] == '=')
			return *fields + len + 1;
	}
	return NULL;
#else
	return mail_user_plugin_getenv(user, name);
#endif
}

/* Mailbox */

struct mailbox_vfuncs *uidl_keep_mailbox_attach(struct mailbox *box, void *state)
{
	struct mailbox_vfuncs *v = box->vlast;
	struct uidl_keep_mailbox *ctx = p_new(box->pool, struct uidl_keep_mailbox, 1);

	ctx->module_ctx.super = *v;
	box->vlast = &ctx->module_ctx.super;
	ctx->state = state;
	ctx->methods = v;
	MODULE_CONTEXT_SET(box, uidl_keep_mailbox_module, ctx);
	return v;
}

static struct uidl_keep_mailbox *uidl_keep_mailbox_ctx(struct mailbox *box)
{
	return MODULE_CONTEXT(box, uidl_keep_mailbox_module);
}

const struct mailbox_vfuncs *uidl_keep_mailbox_super(struct mailbox *box)
{
	return &uidl_keep_mailbox_ctx(box)->module_ctx.super;
}

struct mailbox_vfuncs *uidl_keep_mailbox_methods(struct mailbox *box)
{
	return uidl_keep_mailbox_ctx(box)->methods;
}

void *uidl_keep_mailbox_state(struct mailbox *box)
{
	struct uidl_keep_mailbox *ctx = uidl_keep_mailbox_ctx(box);

	return ctx == NULL ? NULL : ctx->state;
}

struct mail_user *uidl_keep_mailbox_user(struct mailbox *box)
{
	return box->storage->user;
}

bool uidl_keep_mailbox_is_inbox(struct mailbox *box)
{
	return box->inbox_user;
}

bool uidl_keep_mailbox_is_pop3(struct mailbox *box)
{
	return (box->flags & MAILBOX_FLAG_POP3_SESSION) != 0;
}

struct event *uidl_keep_mailbox_event(struct mailbox *box)
{
	return box->event;
}

void uidl_keep_mailbox_fail(struct mailbox *box, const char *text)
{
	mail_storage_set_error(box->storage, MAIL_ERROR_TEMP, text);
}

const char *uidl_keep_mailbox_format(struct mailbox *box)
{
	return box->storage->set->pop3_uidl_format;
}

bool uidl_keep_mailbox_mmap_disabled(struct mailbox *box)
{
	return box->storage->set->mmap_disable;
}

uint32_t uidl_keep_mailbox_messages(struct mailbox *box)
{
	return mail_index_view_get_messages_count(box->view);
}

int uidl_keep_mailbox_raise_next_uid(struct mailbox *box, uint32_t next_uid)
{
	struct mailbox_update update;

	i_zero(&update);
	update.min_next_uid = next_uid;
	return mailbox_update(box, &update);
}

struct maildir_uidlist *uidl_keep_maildir_uidlist(struct mailbox *box)
{
	struct maildir_mailbox *mbox;

	if (strcmp(box->storage->name, MAILDIR_STORAGE_NAME) != 0)
		return NULL;
	mbox = MAILDIR_MAILBOX(box);
	return mbox->uidlist;
}

const char *uidl_keep_maildir_file_name(struct maildir_uidlist *uidlist, uint32_t uid)
{
	enum maildir_uidlist_rec_flag flags;
	const char *fname;

	return maildir_uidlist_lookup(uidlist, uid, &flags, &fname) > 0 ? fname : NULL;
}

struct mailbox *uidl_keep_transaction_mailbox(struct mailbox_transaction_context *t)
{
	return t->box;
}

void uidl_keep_transaction_view(struct mailbox_transaction_context *t,
				uint32_t *uidvalidity_r, uint32_t *next_uid_r,
				uint32_t *index_id_r, uint32_t *messages_r)
{
	const struct mail_index_header *hdr = mail_index_get_header(t->view);

	*uidvalidity_r = hdr->uid_validity;
	*next_uid_r = hdr->next_uid;
	*index_id_r = hdr->indexid;
	*messages_r = hdr->messages_count;
}

uint32_t uidl_keep_view_uid(struct mailbox_transaction_context *t, uint32_t seq)
{
	uint32_t uid;

	mail_index_lookup_uid(t->view, seq, &uid);
	return uid;
}

struct mailbox_transaction_context *uidl_keep_search_transaction(struct mail_search_context *ctx)
{
	return ctx->transaction;
}

bool uidl_keep_sorts_by_pop3_order(const enum mail_sort_type *sort_program)
{
	return sort_program != NULL && sort_program[0] == MAIL_SORT_POP3_ORDER;
}

/* Mail */

void uidl_keep_mail_attach(struct mail *_mail, uidl_keep_get_special_t *get_special)
{
	struct mail_private *mail = container_of(_mail, struct mail_private, mail);
	struct mail_vfuncs *v = mail->vlast;
	struct uidl_keep_mail *ctx = p_new(mail->pool, struct uidl_keep_mail, 1);

	ctx->module_ctx.super = *v;
	ctx->get_special = get_special;
	mail->vlast = &ctx->module_ctx.super;
	MODULE_CONTEXT_SET(mail, uidl_keep_mail_module, ctx);
	v->get_special = get_special;
}

static struct uidl_keep_mail *uidl_keep_mail(struct mail_private *mail)
{
	return MODULE_CONTEXT_REQUIRE(mail, uidl_keep_mail_module);
}

uidl_keep_get_special_t *uidl_keep_mail_super_get_special(struct mail *_mail)
{
	struct mail_private *mail = container_of(_mail, struct mail_private, mail);

	return uidl_keep_mail(mail)->module_ctx.super.get_special;
}

bool uidl_keep_mail_is_of_maildir(struct mail *_mail)
{
	struct mail_private *mail = container_of(_mail, struct mail_private, mail);
	struct uidl_keep_mail *ctx = uidl_keep_mail(mail);

	return mail->v.get_special == ctx->get_special &&
		ctx->module_ctx.super.get_special == maildir_mail_vfuncs.get_special;
}

struct mailbox *uidl_keep_mail_mailbox(struct mail *mail)
{
	return mail->box;
}

uint32_t uidl_keep_mail_uid(struct mail *mail)
{
	return mail->uid;
}

bool uidl_keep_mail_is_expunged(struct mail *mail)
{
	return mail->expunged;
}

const char *uidl_keep_mail_strndup(struct mail *_mail, const char *octets,
				   size_t count)
{
	struct mail_private *mail = container_of(_mail, struct mail_private, mail);

	return p_strndup(mail->data_pool, octets, count);
}

const char *uidl_keep_mail_native_uidl(struct mail *mail, uint32_t uidvalidity,
				       const char *filename, const char *guid,
				       const char *md5, const char **error_r)
{
	const char *format = mail->box->storage->set->pop3_uidl_format;
	string_t *str = t_str_new(128);
	int ret;

#if UIDL_KEEP_DOVECOT_2_4
	const struct var_expand_params params = {
		.table = (const struct var_expand_table[]) {
			{ .key = "uidvalidity", .value = dec2str(uidvalidity) },
			{ .key = "uid", .value = dec2str(mail->uid) },
			{ .key = "md5", .value = md5 },
			{ .key = "filename", .value = filename },
			{ .key = "guid", .value = guid },
			VAR_EXPAND_TABLE_END
		},
		.event = mail->box->event,
	};

	ret = var_expand(str, format, &params, error_r) < 0 ? -1 : 1;
#else
	const struct var_expand_table table[] = {
		{ 'v', dec2str(uidvalidity), "uidvalidity" },
		{ 'u', dec2str(mail->uid), "uid" },
		{ 'm', md5, "md5" },
		{ 'f', filename, "filename" },
		{ 'g', guid, "guid" },
		{ '\0', NULL, NULL }
	};

	ret = var_expand(str, format, table, error_r);
#endif
	return ret <= 0 ? NULL : str_c(str);
}

/* Streams */

int uidl_keep_stream_next(struct istream *input, size_t *taken,
			  const unsigned char **data_r, size_t *size_r)
{
	i_stream_skip(input, *taken);
	*taken = 0;
	if (i_stream_read_more(input, data_r, size_r) > 0) {
		*taken = *size_r;
		return 1;
	}
	return input->stream_errno != 0 ? -1 : 0;
}

const char *uidl_keep_stream_error(struct istream *input)
{
	return i_stream_get_error(input);
}
