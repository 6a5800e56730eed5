//! Maildirs in which Dovecot compressed or encrypted the messages: the remarks of their capture.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::PASSWORD;
use crate::support::dovecot::{Config, Dovecot};
use crate::support::host::{Host, Line, unix_mode};
use crate::support::imap;
use crate::support::mail::{self, Message};
use uidl_keep::capture;
use uidl_keep::capture::draft::Captured;
use uidl_keep::capture::find::source::Source;
use uidl_keep::capture::keys::Keys;
use uidl_keep::capture::pop3::{self, Account, CaptureOptions, NoPace, Secret, Security, Trust};
use uidl_keep::format::UidlFormat;

const USER: &str = "alice";

fn from_disk(server: &Dovecot, keys: Keys) -> Captured {
    let format = UidlFormat::parse("%08Xu%08Xv").expect("a format");
    let source = Source::named(USER, server.mail(USER));
    capture::disk::server::capture(
        &capture::disk::server::ServerKind::Dovecot { format },
        keys,
        &source,
    )
}

fn over_pop3(server: &Dovecot) -> Captured {
    let address = server.pop3();
    let (host, port) = (address.ip().to_string(), address.port());
    let at = pop3::Server { host, port, security: Security::Clear, trust: Trust::System };
    let password = Secret::new(PASSWORD);
    let account = Account {
        user: USER.into(),
        login: USER.into(),
        authorize: None,
        credential: password.into(),
    };
    let how = CaptureOptions {
        pause: Duration::from_millis(20),
        ..CaptureOptions::new(&NoPace, &|_| ())
    };
    pop3::capture(&at, &account, &how).expect("it answers")
}

/// Stores one message as it is, then others as these lines of dovecot.conf store them.
fn is_told(line: Line, what: &str, settings: impl FnOnce(&Dovecot) -> String) {
    let Some(host) = Host::dovecot(line) else { return };
    let Some(mut server) = Dovecot::start(&host, Config::default()) else { return };
    let wire: Vec<Vec<u8>> = mail::maildrop(24).iter().map(Message::on_the_wire).collect();
    imap::append(server.imap(), USER, wire[..1].iter().map(Vec::as_slice));
    let settings = settings(&server);
    server.restart_with(&settings);
    imap::append(server.imap(), USER, wire[1..].iter().map(Vec::as_slice));
    let listed = server.uidl(USER);
    assert_eq!(listed.len(), 24);

    let told = over_pop3(&server);
    assert_eq!(told.losses, [""; 0]);
    let lies = from_disk(&server, Keys::default());
    let entries = || lies.maildrop.entries.iter().zip(&told.maildrop.entries);
    assert_eq!(lies.maildrop.entries.len(), 24);
    for (at, (lies, told)) in entries().enumerate() {
        assert_eq!(lies.uidl, told.uidl);
        assert!(lies.file.is_some() && told.header.is_some());
        let header = told.header.filter(|_| at == 0);
        assert_eq!(lies.header, header, "message {} of {settings}", at + 1);
        assert!(lies.octets.is_none() || told.octets.is_none() || lies.octets == told.octets);
    }
    let [loss] = &lies.losses[..] else { panic!("{:?}", lies.losses) };
    let said = format!("23 messages have no fingerprints, for their files are {what} (first: ");
    assert!(loss.starts_with(&said), "{loss}");
    let names = from_disk(&server, Keys { header: false, ..Keys::default() });
    assert_eq!((names.maildrop.entries.len(), names.losses.len()), (24, 0));
}

#[test]
fn compressed_messages_are_counted_in_every_format_that_dovecot_writes() {
    for line in Line::asked() {
        for format in ["gz", "bz2", "lz4", "zstd"] {
            is_told(line, "compressed (zlib)", |_| match line {
                Line::V23 => {
                    format!("mail_plugins = zlib\nplugin {{\n  zlib_save = {format}\n}}\n")
                }
                Line::V24 => format!(
                    "mail_plugins {{\n  mail_compress = yes\n}}\n\
                     mail_compress_write_method = {format}\n"
                ),
            });
        }
    }
}

#[test]
fn encrypted_messages_are_counted() {
    is_told(Line::V23, "encrypted (mail_crypt)", |server| {
        let (private, public) = (server.dir().join("private.pem"), server.dir().join("public.pem"));
        let openssl = |args: &[&str], out: &Path| {
            let made = Command::new("openssl").args(args).arg("-out").arg(out).output();
            assert!(made.expect("openssl").status.success());
            fs::set_permissions(out, unix_mode(0o644)).expect("our file");
        };
        let curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
        openssl(&[&["genpkey"], &curve[..]].concat(), &private);
        openssl(&["pkey", "-pubout", "-in", private.to_str().expect("UTF-8")], &public);
        format!(
            "mail_plugins = mail_crypt\nplugin {{\n  mail_crypt_global_private_key = <{}\n  \
             mail_crypt_global_public_key = <{}\n  mail_crypt_save_version = 2\n}}\n",
            server.inside(&private).display(),
            server.inside(&public).display()
        )
    });
}
