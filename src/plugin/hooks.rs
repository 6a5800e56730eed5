//! The doors through which Dovecot comes in: the loader's three symbols, the hooks, and the methods
//! that ours replace.
//!
//! Every door is the same: [`boundary`], handles, one safe call, one match.

use std::ffi::{c_char, c_int};
use std::ptr;
use std::rc::Rc;

use super::dovecot as sys;
use super::host::{Mail, Mailbox, Transaction, User};
use super::panic::boundary;
use super::session::{AnsweredField, FieldReply, Inbox};
use super::standing::Standing;
use super::survey::Sizes;

/// A `const char *` that the loader reads.
#[repr(transparent)]
pub struct Version(*const c_char);

// SAFETY: it points at a constant.
unsafe impl Sync for Version {}

/// The ABI that this was built for. Dovecot's loader compares it with its own up to the first `(`
/// (`versions_equal` in `module-dir.c`), and refuses another.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static uidl_keep_plugin_version: Version = Version(sys::DOVECOT_ABI_VERSION.as_ptr().cast());

/// Dovecot calls it once a process, when the file was loaded, as root and outside of any chroot.
#[unsafe(no_mangle)]
pub extern "C" fn uidl_keep_plugin_preinit() {
    boundary(|| {
        super::settings::hold_root();
        super::settings::note_rehearsal();
    });
}

/// Dovecot calls it once a process, after the file was loaded and privileges were dropped.
///
/// # Safety
///
/// Only Dovecot's loader calls it, with the module that it loaded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uidl_keep_plugin_init(module: *mut sys::module) {
    // SAFETY: the loader's module; the table lives as long as the process.
    boundary(|| unsafe { sys::mail_storage_hooks_add(module, &raw const HOOKS) });
}

/// Dovecot calls it once a process, before the file is unloaded.
///
/// # Safety
///
/// Only Dovecot's loader calls it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uidl_keep_plugin_deinit() {
    // SAFETY: added by `uidl_keep_plugin_init`.
    boundary(|| unsafe { sys::mail_storage_hooks_remove(&raw const HOOKS) });
}

static HOOKS: sys::mail_storage_hooks = sys::mail_storage_hooks {
    mail_user_created: Some(mail_user_created),
    mail_namespace_storage_added: None,
    mail_namespaces_created: None,
    mail_namespaces_added: None,
    mail_storage_created: None,
    mailbox_list_created: None,
    mailbox_allocated: Some(mailbox_allocated),
    mailbox_opened: None,
    mail_allocated: Some(mail_allocated),
};

unsafe extern "C" fn mail_user_created(user: *mut sys::mail_user) {
    boundary(|| {
        #[cfg(debug_assertions)]
        super::fault::at("mail_user_created");
        // SAFETY: Dovecot calls this with a user that it is making.
        let user = unsafe { User::from_raw(user) };
        // It was made on the way to a shared mailbox or a delivery: nobody lists it by POP3.
        if user.is_autocreated() {
            return;
        }
        let standing = Standing::of(user);
        if let Standing::Inert = standing {
            return;
        }
        let methods = user.attach(Box::new(Rc::new(standing)));
        // SAFETY: the user's own table, which `attach` saved before.
        unsafe { (*methods).deinit = Some(user_deinit) };
    });
}

unsafe extern "C" fn user_deinit(user: *mut sys::mail_user) {
    boundary(|| {
        // SAFETY: Dovecot calls this with a user that we attached to, for the last time.
        let user = unsafe { User::from_raw(user) };
        let standing: *mut Rc<Standing> = user.state();
        user.super_deinit();
        // SAFETY: made by `attach` from a box, and nobody asks for it after `deinit`.
        drop(unsafe { Box::from_raw(standing) });
    });
}

unsafe extern "C" fn mailbox_allocated(mailbox: *mut sys::mailbox) {
    boundary(|| {
        // SAFETY: Dovecot calls this with a mailbox that it is making.
        let mailbox = unsafe { Mailbox::from_raw(mailbox) };
        let standing: *mut Rc<Standing> = mailbox.user().state();
        if standing.is_null() || !mailbox.is_inbox() {
            return;
        }
        // SAFETY: the state of a live user, which only `user_deinit` takes away.
        let standing = unsafe { (*standing).clone() };
        let methods = mailbox.attach(Box::new(Inbox::new(standing)));
        // SAFETY: the mailbox's own table, which `attach` saved before.
        unsafe {
            (*methods).close = Some(mailbox_close);
            (*methods).free = Some(mailbox_free);
            (*methods).search_init = Some(search_init);
            (*methods).search_deinit = Some(search_deinit);
        }
    });
}

/// # Safety
///
/// Dovecot keeps the mailbox alive for the call that this is used in.
unsafe fn inbox<'a>(mailbox: Mailbox) -> Option<&'a Inbox> {
    // SAFETY: made by `attach` from a box; only `mailbox_free` takes it away. All access is shared.
    unsafe { mailbox.state::<Inbox>().as_ref() }
}

unsafe extern "C" fn mailbox_close(mailbox: *mut sys::mailbox) {
    boundary(|| {
        // SAFETY: Dovecot calls this with a mailbox that we attached to, which is still open.
        let handle = unsafe { Mailbox::from_raw(mailbox) };
        // SAFETY: as above.
        if let (Some(inbox), true) = (unsafe { inbox(handle) }, handle.is_pop3()) {
            inbox.close(handle);
        }
        let close = handle.super_methods().close.expect("every storage has it");
        // SAFETY: the caller's own argument, to the method that ours replaced.
        unsafe { close(mailbox) };
    });
}

unsafe extern "C" fn mailbox_free(mailbox: *mut sys::mailbox) {
    boundary(|| {
        // SAFETY: Dovecot calls this with a mailbox that we attached to, for the last time.
        let handle = unsafe { Mailbox::from_raw(mailbox) };
        let state: *mut Inbox = handle.state();
        // SAFETY: made by `attach` from a box, which goes below.
        if let Some(inbox) = unsafe { inbox(handle) } {
            inbox.end(handle);
        }
        let free = handle.super_methods().free.expect("every storage has it");
        // SAFETY: stands in for the method that ours replaced; the box was made by `attach`, and no
        // mail is left that could ask for it.
        unsafe {
            free(mailbox);
            drop(Box::from_raw(state));
        }
    });
}

unsafe extern "C" fn search_init(
    transaction: *mut sys::mailbox_transaction_context,
    args: *mut sys::mail_search_args,
    sort_program: *const sys::mail_sort_type,
    wanted_fields: sys::mail_fetch_field,
    wanted_headers: *mut sys::mailbox_header_lookup_ctx,
) -> *mut sys::mail_search_context {
    boundary(|| {
        // SAFETY: Dovecot calls this with an open transaction on a mailbox that we attached to.
        let (handle, inbox) = unsafe {
            let handle = Transaction::from_raw(transaction);
            (handle, inbox(handle.mailbox()))
        };
        // SAFETY: NULL or an array closed by MAIL_SORT_END, Dovecot's own.
        let sorts = unsafe { sys::uidl_keep_sorts_by_pop3_order(sort_program) };
        if let (Some(inbox), true, true) = (inbox, sorts, handle.mailbox().is_pop3()) {
            #[cfg(debug_assertions)]
            super::fault::at("search_init");
            inbox.prepare_listing(handle, Sizes::of(wanted_fields));
            if inbox.why_not().is_some() {
                // Only a search that will fail is one that ours must end: it is called for each
                // message. SAFETY: the mailbox's own table, which `attach` saved before.
                unsafe {
                    (*handle.mailbox().methods()).search_next_nonblock = Some(search_next_nonblock);
                }
            }
        }
        let search_init = handle.mailbox().super_methods().search_init;
        // SAFETY: the caller's own arguments, to the method that ours replaced.
        unsafe {
            let search_init = search_init.expect("every storage has it");
            search_init(transaction, args, sort_program, wanted_fields, wanted_headers)
        }
    })
}

unsafe extern "C" fn search_next_nonblock(
    search: *mut sys::mail_search_context,
    mail_r: *mut *mut sys::mail,
    tryagain_r: *mut bool,
) -> bool {
    boundary(|| {
        // SAFETY: Dovecot calls this with a search on a mailbox that we attached to.
        let (mailbox, inbox) = unsafe {
            let transaction = Transaction::from_raw(sys::uidl_keep_search_transaction(search));
            (transaction.mailbox(), inbox(transaction.mailbox()))
        };
        // A search that will fail need not look at every message first.
        if mailbox.is_pop3() && inbox.is_some_and(|inbox| inbox.why_not().is_some()) {
            // SAFETY: the caller's own out-parameters.
            unsafe {
                *mail_r = ptr::null_mut();
                *tryagain_r = false;
            }
            return false;
        }
        let next = mailbox.super_methods().search_next_nonblock;
        // SAFETY: the caller's own arguments, to the method that ours replaced.
        unsafe { next.expect("every storage has it")(search, mail_r, tryagain_r) }
    })
}

unsafe extern "C" fn search_deinit(search: *mut sys::mail_search_context) -> c_int {
    boundary(|| {
        // SAFETY: Dovecot calls this with a search on a mailbox that we attached to.
        let (mailbox, inbox) = unsafe {
            let transaction = Transaction::from_raw(sys::uidl_keep_search_transaction(search));
            (transaction.mailbox(), inbox(transaction.mailbox()))
        };
        let deinit = mailbox.super_methods().search_deinit;
        // SAFETY: the caller's own argument, to the method that ours replaced.
        let ended = unsafe { deinit.expect("every storage has it")(search) };
        match inbox.filter(|_| mailbox.is_pop3()).and_then(Inbox::why_not) {
            Some(text) => {
                mailbox.fail(text);
                -1
            }
            None => ended,
        }
    })
}

unsafe extern "C" fn mail_allocated(mail: *mut sys::mail) {
    boundary(|| {
        // SAFETY: Dovecot calls this with a mail that it is making, in an open mailbox.
        let mail = unsafe { Mail::from_raw(mail) };
        // SAFETY: as above: the mail's mailbox is alive.
        if unsafe { inbox(mail.mailbox()) }.is_some() {
            mail.attach(Some(get_special));
        }
    });
}

unsafe extern "C" fn get_special(
    mail: *mut sys::mail,
    field: sys::mail_fetch_field,
    value_r: *mut *const c_char,
) -> c_int {
    boundary(|| {
        // SAFETY: Dovecot calls this on mails that `mail_allocated` installed it on, in a mailbox
        // that we attached to, and keeps both alive for the call.
        let (mail, inbox) = unsafe {
            let mail = Mail::from_raw(mail);
            (mail, inbox(mail.mailbox()))
        };
        #[cfg(debug_assertions)]
        if AnsweredField::of(field) == Some(AnsweredField::Uidl) {
            super::fault::at(&format!("uidl {}", mail.uid()));
        }
        let reply = match (inbox, AnsweredField::of(field)) {
            (Some(inbox), Some(wanted)) => inbox.reply(mail, wanted),
            _ => FieldReply::AskStorage,
        };
        match reply {
            FieldReply::Value(value) => {
                // SAFETY: Dovecot's own out-parameter.
                unsafe { *value_r = value };
                0
            }
            FieldReply::AskStorage => mail.super_get_special(field, value_r),
            FieldReply::Fail => {
                mail.mailbox().fail(super::standing::LATER);
                -1
            }
        }
    })
}

impl AnsweredField {
    fn of(field: sys::mail_fetch_field) -> Option<Self> {
        match field {
            sys::mail_fetch_field::MAIL_FETCH_UIDL_BACKEND => Some(Self::Uidl),
            sys::mail_fetch_field::MAIL_FETCH_POP3_ORDER => Some(Self::Order),
            sys::mail_fetch_field::MAIL_FETCH_GUID => Some(Self::Guid),
            _ => None,
        }
    }
}

impl Sizes {
    fn of(wanted: sys::mail_fetch_field) -> Self {
        if wanted.0 & sys::mail_fetch_field::MAIL_FETCH_VIRTUAL_SIZE.0 == 0 {
            Self::NotWanted
        } else {
            Self::Wanted
        }
    }
}
