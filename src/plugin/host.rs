//! Safe handles over what Dovecot hands us.
//!
//! A handle is a copy of a pointer. It is made by an `unsafe fn from_raw` in a callback, whose
//! caller says who keeps the object alive, and it lives no longer than that callback; or, for what
//! we allocate ourselves ([`OwnMail`]), as long as its owner, and no longer than until that is
//! renewed.

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr;

use super::dovecot as sys;
use crate::ledger::Epoch;

/// How loud a log line is.
pub type Level = sys::uidl_keep_log_level;

/// Ends the process by exit after logging `line`.
pub fn die(line: &str) -> ! {
    let line = c_string(line);
    // SAFETY: the string is ours and closed by a NUL; i_fatal() copies it into the log.
    unsafe { sys::uidl_keep_die(line.as_ptr()) };
    // i_fatal() does not return, but its C declaration cannot say so here.
    std::process::abort()
}

/// Logs that so many octets could not be allocated, and ends the process by exit. It allocates
/// nothing of ours.
pub fn die_of_memory(octets: usize) -> ! {
    // SAFETY: takes a number.
    unsafe { sys::uidl_keep_die_of_memory(octets) };
    // As in `die`.
    std::process::abort()
}

/// Text for C. Octets that cannot be in a C string are left out.
fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "")).expect("no NUL is left")
}

/// # Safety
///
/// `string` is NULL or a C string that lives as long as the caller looks at the result.
unsafe fn bytes<'a>(string: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!string.is_null()).then(|| unsafe { CStr::from_ptr(string) }.to_bytes())
}

/// A frame of Dovecot's data stack. Memory that its functions allocate there is freed when the
/// frame goes.
pub struct Frame(u32);

impl Frame {
    /// Opens a frame.
    pub fn push() -> Self {
        // SAFETY: t_push() may be called at any time in a Dovecot process.
        Self(unsafe { sys::uidl_keep_frame_push() })
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: frames are dropped in the reverse order of their making, for they never move.
        unsafe { sys::uidl_keep_frame_pop(self.0) };
    }
}

/// `struct mail_user`.
#[derive(Clone, Copy)]
pub struct User(*mut sys::mail_user);

impl User {
    /// # Safety
    ///
    /// Dovecot keeps the user alive while the handle is used.
    pub unsafe fn from_raw(user: *mut sys::mail_user) -> Self {
        Self(user)
    }

    /// Says whether it is no login but made on the way, for a shared namespace or a delivery.
    pub fn is_autocreated(self) -> bool {
        // SAFETY: `from_raw`.
        unsafe { sys::uidl_keep_user_is_autocreated(self.0) }
    }

    /// Says whether dsync is copying its mail, from here or to here.
    pub fn is_dsyncing(self) -> bool {
        // SAFETY: `from_raw`.
        unsafe { sys::uidl_keep_user_is_dsyncing(self.0) }
    }

    /// The user name. Dovecot's names are UTF-8. A name that is not cannot be on a roster.
    pub fn name(self) -> Option<String> {
        // SAFETY: `from_raw`; the name lives as long as the user.
        let name = unsafe { bytes(sys::uidl_keep_user_name(self.0)) };
        Some(std::str::from_utf8(name?).ok()?.to_owned())
    }

    /// A setting of `plugin {}`, which Dovecot 2.4 does not have, or of that name in the user
    /// database. `None`: it is not set.
    pub fn plugin_setting(self, name: &CStr) -> Option<String> {
        // SAFETY: `from_raw`; what it returns is NULL or lives in the user's pool, longer than this
        // function.
        let value = unsafe { bytes(sys::uidl_keep_user_plugin_setting(self.0, name.as_ptr())) };
        value.map(|value| lossy(Some(value)))
    }

    /// Keeps `state` with the user and returns the methods to change.
    pub fn attach<T>(self, state: Box<T>) -> *mut sys::mail_user_vfuncs {
        // SAFETY: `from_raw`; the state is given back by `state` until `deinit` drops it.
        unsafe { sys::uidl_keep_user_attach(self.0, Box::into_raw(state).cast()) }
    }

    /// The state that was kept with the user, if any was.
    pub fn state<T>(self) -> *mut T {
        // SAFETY: `from_raw`.
        unsafe { sys::uidl_keep_user_state(self.0).cast() }
    }

    /// The method that ours replaced.
    pub fn super_deinit(self) {
        // SAFETY: called from our own `deinit`, which stands in for this one.
        unsafe {
            if let Some(deinit) = (*sys::uidl_keep_user_super(self.0)).deinit {
                deinit(self.0);
            }
        }
    }
}

/// `struct mailbox`.
#[derive(Clone, Copy)]
pub struct Mailbox(*mut sys::mailbox);

impl Mailbox {
    /// # Safety
    ///
    /// Dovecot keeps the mailbox alive while the handle is used.
    pub unsafe fn from_raw(mailbox: *mut sys::mailbox) -> Self {
        Self(mailbox)
    }

    /// The user that it was opened for.
    pub fn user(self) -> User {
        // SAFETY: `from_raw`; a storage keeps its user alive.
        unsafe { User::from_raw(sys::uidl_keep_mailbox_user(self.0)) }
    }

    /// Says whether it is the user's INBOX, which is the maildrop.
    pub fn is_inbox(self) -> bool {
        // SAFETY: `from_raw`.
        unsafe { sys::uidl_keep_mailbox_is_inbox(self.0) }
    }

    /// Says whether a POP3 session has it open.
    pub fn is_pop3(self) -> bool {
        // SAFETY: `from_raw`.
        unsafe { sys::uidl_keep_mailbox_is_pop3(self.0) }
    }

    /// Logs one line.
    pub fn log(self, level: Level, line: &str) {
        let line = c_string(line);
        // SAFETY: `from_raw`; the mailbox's event lives as long as the mailbox.
        unsafe { sys::uidl_keep_log(sys::uidl_keep_mailbox_event(self.0), level, line.as_ptr()) };
    }

    /// Begins an event of Dovecot's.
    pub fn begin_event(self) -> NamedEvent {
        // SAFETY: `from_raw`; an event keeps its parent alive.
        NamedEvent(unsafe { sys::uidl_keep_event_begin(sys::uidl_keep_mailbox_event(self.0)) })
    }

    /// Fails the operation under way with a temporary error. The client sees `text`.
    pub fn fail(self, text: &str) {
        let text = c_string(text);
        // SAFETY: `from_raw`; Dovecot copies the text.
        unsafe { sys::uidl_keep_mailbox_fail(self.0, text.as_ptr()) };
    }

    /// Why the last operation failed, for the log.
    pub fn last_error(self) -> String {
        // SAFETY: `from_raw`; the text lives until the next operation on the storage.
        lossy(unsafe { bytes(sys::mailbox_get_last_internal_error(self.0, ptr::null_mut())) })
    }

    /// Dovecot's control directory of the mailbox, where `dovecot-uidlist` lies on Maildir. `None`:
    /// the storage has none.
    ///
    /// # Errors
    ///
    /// Why Dovecot cannot tell.
    pub fn control_dir(self) -> Result<Option<PathBuf>, String> {
        let mut path = ptr::null();
        let control = sys::mailbox_list_path_type::MAILBOX_LIST_PATH_TYPE_CONTROL;
        // SAFETY: `from_raw`; the path lives in the data stack or the mailbox's pool, longer than
        // this function.
        unsafe {
            match sys::mailbox_get_path_to(self.0, control, &mut path) {
                0 => Ok(None),
                1.. => Ok(bytes(path).map(|p| PathBuf::from(std::ffi::OsStr::from_bytes(p)))),
                _ => Err(self.last_error()),
            }
        }
    }

    /// `pop3_uidl_format`.
    pub fn uidl_format(self) -> String {
        // SAFETY: `from_raw`; settings live as long as the storage.
        lossy(unsafe { bytes(sys::uidl_keep_mailbox_format(self.0)) })
    }

    /// Says whether `mmap_disable` is set. Then files are read and not mapped.
    pub fn is_mmap_disabled(self) -> bool {
        // SAFETY: `from_raw`; settings live as long as the storage.
        unsafe { sys::uidl_keep_mailbox_mmap_disabled(self.0) }
    }

    /// How many messages there are, as far as the mailbox was synced.
    pub fn messages(self) -> u32 {
        // SAFETY: `from_raw`; the mailbox is open.
        unsafe { sys::uidl_keep_mailbox_messages(self.0) }
    }

    /// Raises the UID that the next message will get.
    ///
    /// # Errors
    ///
    /// Why Dovecot could not.
    pub fn raise_next_uid(self, next_uid: u32) -> Result<(), String> {
        // SAFETY: `from_raw`; the mailbox is open.
        match unsafe { sys::uidl_keep_mailbox_raise_next_uid(self.0, next_uid) } {
            0.. => Ok(()),
            _ => Err(self.last_error()),
        }
    }

    /// Its `dovecot-uidlist`, where it is a Maildir.
    pub fn uidlist(self) -> Option<Uidlist> {
        // SAFETY: `from_raw`; the list lives as long as the mailbox is open.
        let uidlist = unsafe { sys::uidl_keep_maildir_uidlist(self.0) };
        (!uidlist.is_null()).then_some(Uidlist(uidlist))
    }

    /// Reads `dovecot-uidlist` of a Maildir, if the list in memory is not as on disk. Elsewhere
    /// there is none.
    ///
    /// # Errors
    ///
    /// Why Dovecot cannot read the list.
    pub fn refresh_names(self) -> Result<(), String> {
        let Some(Uidlist(uidlist)) = self.uidlist() else { return Ok(()) };
        // SAFETY: `uidlist`.
        match unsafe { sys::maildir_uidlist_refresh(uidlist) } {
            0.. => Ok(()),
            _ => Err(self.last_error()),
        }
    }

    /// Gives the base file name of every message of a Maildir to `take`, ascending by UID, after
    /// [`Mailbox::refresh_names`]: of a list that was not read an iterator would give none.
    ///
    /// # Errors
    ///
    /// As [`Mailbox::refresh_names`].
    pub fn for_each_name(self, mut take: impl FnMut(u32, &[u8])) -> Result<(), String> {
        let Some(Uidlist(uidlist)) = self.uidlist() else { return Ok(()) };
        self.refresh_names()?;
        let (mut uid, mut flags, mut name) = (0, sys::maildir_uidlist_rec_flag(0), ptr::null());
        // SAFETY: `uidlist`; the out-parameters are ours, and a name lives as long as the list is
        // not read anew, which nothing does in between.
        unsafe {
            let mut iter = sys::maildir_uidlist_iter_init(uidlist);
            while sys::maildir_uidlist_iter_next(iter, &mut uid, &mut flags, &mut name) {
                take(uid, bytes(name).unwrap_or_default());
            }
            sys::maildir_uidlist_iter_deinit(&mut iter);
        }
        Ok(())
    }

    /// Keeps `state` with the mailbox and returns the methods to change.
    pub fn attach<T>(self, state: Box<T>) -> *mut sys::mailbox_vfuncs {
        // SAFETY: `from_raw`; the state is given back by `state` until `free` drops it.
        unsafe { sys::uidl_keep_mailbox_attach(self.0, Box::into_raw(state).cast()) }
    }

    /// The state that was kept with the mailbox, if any was.
    pub fn state<T>(self) -> *mut T {
        // SAFETY: `from_raw`.
        unsafe { sys::uidl_keep_mailbox_state(self.0).cast() }
    }

    /// The methods that [`Mailbox::attach`] returned.
    pub fn methods(self) -> *mut sys::mailbox_vfuncs {
        // SAFETY: `from_raw`; the table lives as long as the mailbox.
        unsafe { sys::uidl_keep_mailbox_methods(self.0) }
    }

    /// The methods that ours replaced.
    pub fn super_methods(self) -> &'static sys::mailbox_vfuncs {
        // SAFETY: `from_raw`; the table lives in the mailbox's pool, and is used only in calls on
        // it.
        unsafe { &*sys::uidl_keep_mailbox_super(self.0) }
    }

    pub(super) fn as_raw(self) -> *mut sys::mailbox {
        self.0
    }
}

/// `struct event`: a named one, which Dovecot's statistics count once it is sent. Its duration is
/// from its making to there.
pub struct NamedEvent(*mut sys::event);

impl NamedEvent {
    /// Adds a number.
    pub fn add_count(&self, field: &CStr, count: u64) {
        // SAFETY: made by `begin_event`; Dovecot copies the field's name.
        unsafe { sys::uidl_keep_event_add_count(self.0, field.as_ptr(), count) };
    }

    /// Adds a word.
    pub fn add_word(&self, field: &CStr, word: &CStr) {
        // SAFETY: made by `begin_event`; Dovecot copies both strings.
        unsafe { sys::uidl_keep_event_add_word(self.0, field.as_ptr(), word.as_ptr()) };
    }

    /// Sends it under a name. `line` is what a log has that is asked for such events.
    pub fn send(self, name: &CStr, line: &CStr) {
        // SAFETY: made by `begin_event`; Dovecot copies the name, and formats the line at once.
        unsafe { sys::uidl_keep_event_send(self.0, name.as_ptr(), line.as_ptr()) };
    }
}

impl Drop for NamedEvent {
    fn drop(&mut self) {
        // SAFETY: made by `begin_event`, and not used again.
        unsafe { sys::uidl_keep_event_end(self.0) };
    }
}

/// `struct maildir_uidlist`: `dovecot-uidlist` of a Maildir.
#[derive(Clone, Copy)]
pub struct Uidlist(*mut sys::maildir_uidlist);

impl Uidlist {
    /// Runs `body` while the list is locked and fresh, then writes the list.
    ///
    /// Without the lock another process could recreate the file in between and drop what was set
    /// (`maildir_uidlist_reset` in `maildir-uidlist.c`).
    ///
    /// # Errors
    ///
    /// Which step failed. Dovecot has logged why.
    pub fn update_locked(self, body: impl FnOnce(Self)) -> Result<(), &'static str> {
        // SAFETY: `Mailbox::uidlist`; every lock taken is given back.
        unsafe {
            if sys::maildir_uidlist_lock(self.0) <= 0 {
                return Err("cannot lock dovecot-uidlist");
            }
            body(self);
            let written = sys::maildir_uidlist_update(self.0);
            sys::maildir_uidlist_unlock(self.0);
            if written < 0 { Err("cannot write dovecot-uidlist") } else { Ok(()) }
        }
    }

    /// The base file name that it has for a UID. It lives as long as the list is not read anew.
    pub fn file_name<'a>(self, uid: u32) -> Option<&'a [u8]> {
        // SAFETY: `Mailbox::uidlist`; NULL where it has none.
        unsafe { bytes(sys::uidl_keep_maildir_file_name(self.0, uid)) }
    }

    /// The UIDL that it has for a UID: `P`. It is empty where that is the base file name. As any
    /// other value it lives as long as the list is not written.
    pub fn uidl<'a>(self, uid: u32) -> Option<&'a [u8]> {
        self.value(uid, sys::maildir_uidlist_rec_ext_key::MAILDIR_UIDLIST_REC_EXT_POP3_UIDL)
    }

    /// The order number that it has for a UID: `O`.
    pub fn order<'a>(self, uid: u32) -> Option<&'a [u8]> {
        self.value(uid, sys::maildir_uidlist_rec_ext_key::MAILDIR_UIDLIST_REC_EXT_POP3_ORDER)
    }

    /// The GUID that it has for a UID: `G`. Without it, it is the base file name.
    pub fn guid<'a>(self, uid: u32) -> Option<&'a [u8]> {
        self.value(uid, sys::maildir_uidlist_rec_ext_key::MAILDIR_UIDLIST_REC_EXT_GUID)
    }

    fn value<'a>(self, uid: u32, key: sys::maildir_uidlist_rec_ext_key) -> Option<&'a [u8]> {
        // SAFETY: `Mailbox::uidlist`; NULL where it has none.
        unsafe { bytes(sys::maildir_uidlist_lookup_ext(self.0, uid, key)) }
    }

    /// Sets UIDL and, if there is one, order number of a UID that it has.
    pub fn set(self, uid: u32, uidl: &CStr, order: Option<u32>) {
        use sys::maildir_uidlist_rec_ext_key as key;
        // SAFETY: `Mailbox::uidlist`; values are copied.
        let set = |which, value: &CStr| unsafe {
            sys::maildir_uidlist_set_ext(self.0, uid, which, value.as_ptr());
        };
        set(key::MAILDIR_UIDLIST_REC_EXT_POP3_UIDL, uidl);
        if let Some(order) = order {
            set(
                key::MAILDIR_UIDLIST_REC_EXT_POP3_ORDER,
                &c_string(itoa::Buffer::new().format(order)),
            );
        }
    }
}

/// A mailbox as a transaction sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// What its UIDs go with.
    pub epoch: Epoch,
    /// How many messages there are.
    pub messages: u32,
}

/// `struct mailbox_transaction_context`.
#[derive(Clone, Copy)]
pub struct Transaction(*mut sys::mailbox_transaction_context);

impl Transaction {
    /// # Safety
    ///
    /// The transaction is open while the handle is used.
    pub unsafe fn from_raw(transaction: *mut sys::mailbox_transaction_context) -> Self {
        Self(transaction)
    }

    /// Its mailbox.
    pub fn mailbox(self) -> Mailbox {
        // SAFETY: `from_raw`; a transaction keeps its mailbox open.
        unsafe { Mailbox::from_raw(sys::uidl_keep_transaction_mailbox(self.0)) }
    }

    /// The mailbox as it sees it. While the mailbox is not synced, all transactions see the same.
    pub fn view(self) -> View {
        let mut view = View { epoch: Epoch::default(), messages: 0 };
        let View { epoch: Epoch { uidvalidity, next_uid, index_id }, messages } = &mut view;
        // SAFETY: `from_raw`; the out-parameters are ours.
        unsafe {
            sys::uidl_keep_transaction_view(self.0, uidvalidity, next_uid, index_id, messages);
        }
        view
    }

    /// The UID of every message, ascending.
    pub fn uids(self) -> impl DoubleEndedIterator<Item = u32> + ExactSizeIterator {
        // The view has sequence numbers from 1 to its count of messages.
        let count = self.view().messages as usize;
        (0..count).map(move |at| {
            // SAFETY: `from_raw`, and the number is one of the view's.
            unsafe { sys::uidl_keep_view_uid(self.0, at as u32 + 1) }
        })
    }
}

/// The special fields of a mail.
pub type MailField = sys::mail_fetch_field;

/// `struct mail`.
#[derive(Clone, Copy)]
pub struct Mail(*mut sys::mail);

impl Mail {
    /// # Safety
    ///
    /// Dovecot keeps the mail alive while the handle is used.
    pub unsafe fn from_raw(mail: *mut sys::mail) -> Self {
        Self(mail)
    }

    /// Its mailbox.
    pub fn mailbox(self) -> Mailbox {
        // SAFETY: `from_raw`; a mail's mailbox is open as long as the mail is allocated.
        unsafe { Mailbox::from_raw(sys::uidl_keep_mail_mailbox(self.0)) }
    }

    /// Its UID; 0 while it is being saved.
    pub fn uid(self) -> u32 {
        // SAFETY: `from_raw`.
        unsafe { sys::uidl_keep_mail_uid(self.0) }
    }

    /// Says whether it went while we looked.
    pub fn is_expunged(self) -> bool {
        // SAFETY: `from_raw`.
        unsafe { sys::uidl_keep_mail_is_expunged(self.0) || self.last_error_is_expunged() }
    }

    /// # Safety
    ///
    /// As `from_raw`.
    unsafe fn last_error_is_expunged(self) -> bool {
        let expunged = sys::mail_error::MAIL_ERROR_EXPUNGED;
        // SAFETY: `from_raw`.
        unsafe { sys::mailbox_get_last_mail_error(self.mailbox().as_raw()) == expunged }
    }

    /// Puts our `get_special` in the place of its own.
    pub fn attach(self, get_special: sys::uidl_keep_get_special_t) {
        // SAFETY: `from_raw`; called from the hook that Dovecot means for this.
        unsafe { sys::uidl_keep_mail_attach(self.0, get_special) };
    }

    /// The `get_special` that ours replaced.
    pub fn super_get_special(self, field: MailField, value_r: *mut *const c_char) -> c_int {
        // SAFETY: called from our own `get_special` with the caller's own out-parameter.
        unsafe {
            let get_special = sys::uidl_keep_mail_super_get_special(self.0);
            get_special.expect("every storage has it")(self.0, field, value_r)
        }
    }

    /// Copies `text`, which has no NUL, and closes it with one. The copy lives as long as the mail
    /// stays with this message.
    pub fn keep_text(self, text: &str) -> *const c_char {
        // SAFETY: `from_raw`; so many octets are there.
        unsafe { sys::uidl_keep_mail_strndup(self.0, text.as_ptr().cast(), text.len()) }
    }

    /// A special field's value. It is empty where the storage has none. The octets are on the data
    /// stack or in the mail's pool: copy them before the next call on the mail.
    ///
    /// # Errors
    ///
    /// `Failed`: the mailbox's last error says why.
    pub fn special(&mut self, field: MailField) -> Result<&[u8], Failed> {
        let mut value = ptr::null();
        // SAFETY: the mail is one that we allocated; the exclusive borrow ends before the next
        // call.
        unsafe {
            match sys::mail_get_special(self.0, field, &mut value) {
                0.. => Ok(bytes(value).unwrap_or_default()),
                _ => Err(Failed),
            }
        }
    }

    /// Its size with CRLF line ends, in octets.
    ///
    /// # Errors
    ///
    /// As [`Mail::special`].
    pub fn virtual_size(&mut self) -> Result<u64, Failed> {
        let mut size = 0;
        // SAFETY: the mail is one that we allocated.
        match unsafe { sys::mail_get_virtual_size(self.0, &mut size) } {
            0.. => Ok(size),
            _ => Err(Failed),
        }
    }

    /// Gives the message to `take`, piece by piece, until it says that it has enough.
    ///
    /// # Errors
    ///
    /// As [`Mail::special`], and where the message cannot be read to its end.
    pub fn read(&mut self, whole: bool, mut take: impl FnMut(&[u8]) -> bool) -> Result<(), Failed> {
        let mut input = ptr::null_mut();
        // SAFETY: the mail is one that we allocated, and owns the stream that it opens; each piece
        // is valid until the next call on the stream.
        unsafe {
            let opened = if whole {
                let reason = c"uidl-keep".as_ptr();
                let none = ptr::null_mut;
                sys::mail_get_stream_because(self.0, none(), none(), reason, &mut input)
            } else {
                sys::mail_get_hdr_stream(self.0, ptr::null_mut(), &mut input)
            };
            if opened < 0 {
                return Err(Failed);
            }
            let (mut taken, mut data, mut size) = (0, ptr::null(), 0);
            loop {
                match sys::uidl_keep_stream_next(input, &mut taken, &mut data, &mut size) {
                    0 => return Ok(()),
                    1.. if !take(std::slice::from_raw_parts(data, size)) => return Ok(()),
                    1.. => {}
                    _ => {
                        // The stream knows why. The mailbox, whose error is asked for, does not.
                        let why = lossy(bytes(sys::uidl_keep_stream_error(input)));
                        if !self.is_expunged() {
                            self.mailbox().fail(&why);
                        }
                        return Err(Failed);
                    }
                }
            }
        }
    }

    /// When the storage received it, in seconds since 1970.
    ///
    /// # Errors
    ///
    /// As [`Mail::special`].
    pub fn received(&mut self) -> Result<i64, Failed> {
        let mut at = 0;
        // SAFETY: the mail is one that we allocated.
        match unsafe { sys::mail_get_received_date(self.0, &mut at) } {
            0.. => Ok(at),
            _ => Err(Failed),
        }
    }

    /// Its native UIDL, by `pop3_uidl_format`.
    ///
    /// # Errors
    ///
    /// Why it could not be expanded.
    pub fn native_uidl(
        &mut self,
        uidvalidity: u32,
        filename: &[u8],
        guid: &[u8],
        md5: &[u8],
    ) -> Result<&[u8], String> {
        let [filename, guid, md5] =
            [filename, guid, md5].map(|text| CString::new(text).unwrap_or_default());
        let mut error = ptr::null();
        // SAFETY: the mail is one that we allocated; the result is on the data stack, in the
        // caller's frame.
        unsafe {
            let native = sys::uidl_keep_mail_native_uidl(
                self.0,
                uidvalidity,
                filename.as_ptr(),
                guid.as_ptr(),
                md5.as_ptr(),
                &mut error,
            );
            bytes(native).ok_or_else(|| lossy(bytes(error)))
        }
    }
}

/// An operation on a mail failed. The mailbox knows why.
#[derive(Debug, Clone, Copy)]
pub struct Failed;

/// A transaction and a mail of our own. The caller's mail is never touched, for dsync may be about
/// to send its stream.
pub struct OwnMail {
    mailbox: Mailbox,
    transaction: *mut sys::mailbox_transaction_context,
    mail: *mut sys::mail,
    /// How often the mail was turned in this transaction.
    turns: u32,
}

impl OwnMail {
    /// Dovecot looks for what it has cached of a message among all that it caches in a transaction.
    /// So the mail is turned no more often in one.
    const MOST_TURNS: u32 = 256;

    /// Opens both on a mailbox that is open.
    pub fn open(mailbox: Mailbox) -> Self {
        let (transaction, mail) = Self::begin(mailbox);
        Self { mailbox, transaction, mail, turns: 0 }
    }

    fn begin(mailbox: Mailbox) -> (*mut sys::mailbox_transaction_context, *mut sys::mail) {
        let none = sys::mailbox_transaction_flags(0);
        // SAFETY: the mailbox is open: we are in a search on it, or in a lookup in one of its
        // mails.
        unsafe {
            let reason = c"uidl-keep".as_ptr();
            let transaction = sys::mailbox_transaction_begin(mailbox.as_raw(), none, reason);
            let mail = sys::mail_alloc(transaction, sys::mail_fetch_field(0), ptr::null_mut());
            (transaction, mail)
        }
    }

    /// Frees the mail before its transaction commits: Dovecot asserts that. The commit saves the
    /// sizes that were found on the way. If it fails, they are found again.
    fn end(&mut self) {
        // SAFETY: both are ours, and are not used again.
        unsafe {
            sys::mail_free(&mut self.mail);
            sys::mailbox_transaction_commit(&mut self.transaction);
        }
    }

    /// Begins another transaction where the mail was turned often enough in this one. It sees the
    /// same messages. Nothing of the one before may be used any more: neither [`Transaction`] nor
    /// [`Mail`].
    pub fn renew_if_full(&mut self) {
        if self.turns >= Self::MOST_TURNS {
            self.end();
            (self.transaction, self.mail) = Self::begin(self.mailbox);
            self.turns = 0;
        }
    }

    /// The transaction.
    pub fn transaction(&self) -> Transaction {
        // SAFETY: it is open until `renew_if_full`, or as long as `self` lives.
        unsafe { Transaction::from_raw(self.transaction) }
    }

    /// Says whether Maildir itself answers for the mail, and no other plugin. Then
    /// `dovecot-uidlist` has its special fields.
    pub fn is_of_maildir(&self) -> bool {
        // SAFETY: ours, and as every mail of this mailbox it was attached to when it was made.
        unsafe { sys::uidl_keep_mail_is_of_maildir(self.mail) }
    }

    /// Turns the mail to the message with this sequence number, from 1.
    pub fn turn_to(&mut self, seq: u32) -> Mail {
        self.turns += 1;
        // SAFETY: ours, and the number is one of the view's.
        unsafe {
            sys::mail_set_seq(self.mail, seq);
            Mail::from_raw(self.mail)
        }
    }
}

impl Drop for OwnMail {
    fn drop(&mut self) {
        self.end();
    }
}

fn lossy(text: Option<&[u8]>) -> String {
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}
