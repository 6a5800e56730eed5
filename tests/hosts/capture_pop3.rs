//! Captures over POP3 from real servers: the answers agree with what lies on their disks.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::courier::Courier;
use crate::support::dovecot::{Config, Dovecot, passdb};
use crate::support::host::{Host, Line};
use crate::support::mail::{self, Message};
use crate::support::maildir::{Maildir, Naming};
use crate::support::peer::{replay, transcript};
use crate::support::tls::{certificates, certificates_in, fingerprint, shown_by_dovecot};
use crate::support::{PASSWORD, lacking};
use uidl_keep::capture;
use uidl_keep::capture::draft::Captured;
use uidl_keep::capture::find::source::Source;
use uidl_keep::capture::keys::Keys;
use uidl_keep::capture::pop3::{
    Account, CaptureOptions, Fault, Learnt, NoPace, Pin, Retrieve, Retry, Secret, Security, Server,
    Session, Trust, capture, capture_over, listing, log_in,
};
use uidl_keep::format::UidlFormat;
use uidl_keep::key::Fingerprint;
use uidl_keep::maildrop::{Maildrop, State};

const TIMEOUT: Duration = Duration::from_secs(60);

fn fill(maildir: &Maildir, messages: &[Message], naming: Naming) {
    for (message, seconds) in messages.iter().zip(1..) {
        maildir.deliver(message, naming, seconds);
    }
}

fn at(address: std::net::SocketAddr) -> Server {
    let (host, port) = (address.ip().to_string(), address.port());
    Server { host, port, security: Security::Clear, trust: Trust::System }
}

fn account(user: &str) -> Account {
    let password = Secret::new(PASSWORD);
    Account { user: user.into(), login: user.into(), authorize: None, credential: password.into() }
}

fn how() -> CaptureOptions<'static> {
    CaptureOptions { pause: Duration::from_millis(20), ..CaptureOptions::new(&NoPace, &|_| ()) }
}

fn uidls(captured: &Captured) -> Vec<String> {
    captured.maildrop.entries.iter().map(|entry| entry.uidl.to_string()).collect()
}

fn headers(captured: &Captured) -> Vec<Option<Fingerprint>> {
    captured.maildrop.entries.iter().map(|entry| entry.header).collect()
}

/// The keys of the messages except their file names, in the old order.
fn known_by(maildrop: &Maildrop) -> String {
    maildrop.entries.iter().fold(String::new(), |mut text, entry| {
        let _ = writeln!(text, "{} {:?} {:?}", entry.uidl, entry.header, entry.message);
        text
    })
}

/// Insists that the sizes told are those on disk, and that most are told.
fn sizes_are_right(told: &Maildrop, lies: &Maildrop) {
    let mut count = 0;
    for (told, lies) in told.entries.iter().zip(&lies.entries) {
        count += usize::from(told.octets.is_some());
        assert!(told.octets.is_none() || told.octets == lies.octets, "{told:?}: {:?}", lies.octets);
    }
    assert!(count > told.entries.len() / 2, "{count}");
}

/// The capture from the Maildir of a Dovecot with its default format.
fn on_disk(server: &Dovecot, user: &str) -> Maildrop {
    let format = UidlFormat::parse("%08Xu%08Xv").unwrap();
    let source = Source::named(user, server.mail(user));
    capture::disk::server::capture(
        &capture::disk::server::ServerKind::Dovecot { format },
        Keys::default(),
        &source,
    )
    .maildrop
}

#[test]
fn dovecot_tells_over_pop3_what_lies_on_its_disk() {
    for line in Line::asked() {
        let Some(host) = Host::dovecot(line) else { continue };
        let Some(dovecot) = Dovecot::start(&host, Config::default()) else { continue };
        let maildir = Maildir::create(dovecot.mail("alice"));
        fill(&maildir, &mail::maildrop(48), Naming::Dovecot);
        let listing = dovecot.uidl("alice");

        let told = capture(&at(dovecot.pop3()), &account("alice"), &how()).unwrap();
        assert_eq!(told.losses, [""; 0]);
        assert_eq!(uidls(&told), listing);
        let lies = on_disk(&dovecot, "alice");
        assert_eq!(known_by(&told.maildrop), known_by(&lies));
        assert!(lies.entries.iter().all(|entry| entry.header.is_some()));
        assert_eq!(
            (told.maildrop.uidvalidity, &told.maildrop.counter),
            (lies.uidvalidity, &lies.counter)
        );
        let always = CaptureOptions { retrieve: Retrieve::Always, ..how() };
        let told = capture(&at(dovecot.pop3()), &account("alice"), &always).unwrap();
        assert_eq!(known_by(&told.maildrop), known_by(&lies));
        // Their names say how long they are.
        sizes_are_right(&told.maildrop, &lies);
        assert_eq!(dovecot.uidl("alice"), listing, "nothing has changed there");
    }
}

#[test]
fn what_is_never_retrieved_comes_whole_by_top_where_its_header_says_too_little() {
    let Some(host) = Host::dovecot(Line::subject()) else { return };
    let Some(dovecot) = Dovecot::start(&host, Config::default()) else { return };
    fill(&Maildir::create(dovecot.mail("alice")), &mail::maildrop(24), Naming::Dovecot);
    dovecot.uidl("alice");
    let lies = on_disk(&dovecot, "alice");
    let never = CaptureOptions { retrieve: Retrieve::Never, ..how() };
    let told = capture(&at(dovecot.pop3()), &account("alice"), &never).unwrap();
    assert_eq!(known_by(&told.maildrop), known_by(&lies));
    // Two of them are equal, and one has no end of its header.
    let whole = told.maildrop.entries.iter().filter(|entry| entry.message.is_some());
    assert_eq!(whole.count(), 3);
    assert_eq!((told.maildrop.remarks, told.losses), (vec![], vec![]));

    let keys = Keys { message: true, header: false, ..Keys::default() };
    let told =
        capture(&at(dovecot.pop3()), &account("alice"), &CaptureOptions { keys, ..how() }).unwrap();
    assert!(told.maildrop.entries.iter().all(|e| e.message.is_some() && e.header.is_none()));
}

#[test]
fn dovecot_is_logged_in_to_by_what_it_offers() {
    let Some(host) = Host::dovecot(Line::subject()) else { return };
    let master = passdb(Line::subject(), "static", "masters", "  master = yes\n");
    let config = Config { extra: master, ..Config::default() };
    let Some(mut dovecot) = Dovecot::start(&host, config) else { return };
    fill(&Maildir::create(dovecot.mail("alice")), &mail::maildrop(24)[..3], Naming::Dovecot);
    let listing = dovecot.uidl("alice");

    let for_alice = |password: &str| Account {
        user: "alice@new.example".into(),
        login: "postmaster".into(),
        authorize: Some("alice".into()),
        credential: Secret::new(password).into(),
    };
    let told = capture(&at(dovecot.pop3()), &for_alice("masters"), &how()).unwrap();
    assert_eq!((uidls(&told), told.maildrop.user.as_str()), (listing.clone(), "alice@new.example"));
    let source = format!("pop3 127.0.0.1:{} alice", dovecot.pop3().port());
    assert_eq!(told.maildrop.source, source);
    let refused = capture(&at(dovecot.pop3()), &for_alice("wrong"), &how()).unwrap_err();
    assert!(matches!(refused, Fault::Login(_)), "{refused}");
    assert_eq!(refused.next_step(), Retry::Never);
    // It is longer than a command line may be: it is sent when it is asked for.
    let long = Account { login: "p".repeat(200), ..for_alice("masters") };
    assert_eq!(uidls(&capture(&at(dovecot.pop3()), &long, &how()).unwrap()), listing);

    dovecot.restart_with("auth_mechanisms = login\n");
    assert_eq!(uidls(&capture(&at(dovecot.pop3()), &account("alice"), &how()).unwrap()), listing);
    assert!(matches!(
        capture(&at(dovecot.pop3()), &for_alice("masters"), &how()),
        Err(Fault::NoPlain)
    ));
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

#[test]
fn a_certificate_is_taken_that_is_trusted_or_pinned_and_no_other() {
    if let Ok(port) = std::env::var("UIDL_KEEP_TEST_TRUSTED_PORT") {
        // This part runs below, in a process that trusts the authority.
        return take_what_is_trusted(port.parse().unwrap());
    }
    let Some(host) = Host::dovecot(Line::subject()) else { return };
    let dir = certificates_in(&host);
    let of_old: Pin = fingerprint(dir.path()).parse().unwrap();
    let implicit = free_port();
    let extra = shown_by_dovecot(&host, &dir, implicit);
    let Some(dovecot) = Dovecot::start(&host, Config { extra, ..Config::default() }) else {
        return;
    };
    fill(&Maildir::create(dovecot.mail("alice")), &mail::maildrop(24)[..9], Naming::Dovecot);
    let listing = dovecot.uidl("alice");

    let ports = [(Security::Tls, implicit), (Security::StartTls, dovecot.pop3().port())];
    for (security, port) in ports {
        let with = |trust: Trust| {
            let server = Server { host: "127.0.0.1".into(), port, security, trust };
            capture(&server, &account("alice"), &how())
        };
        assert_eq!(uidls(&with(Trust::Pinned(of_old)).unwrap()), listing, "{security:?}");
        assert_eq!(uidls(&with(Trust::Anything).unwrap()), listing, "{security:?}");

        let untrusted = with(Trust::System).unwrap_err();
        assert!(matches!(&untrusted, Fault::Untrusted { pin, .. } if *pin == of_old));
        assert!(untrusted.to_string().contains(&of_old.to_string()), "{untrusted}");
        assert_eq!(untrusted.next_step(), Retry::Never);
        let other = Pin([7; 32]);
        assert!(matches!(
            with(Trust::Pinned(other)).unwrap_err(),
            Fault::OtherCertificate { found, pinned } if found == of_old && pinned == other
        ));
    }
    let trusting = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_certificate_is_taken_that_is_trusted_or_pinned_and_no_other"])
        .env("UIDL_KEEP_TEST_TRUSTED_PORT", implicit.to_string())
        .env("SSL_CERT_FILE", dir.path().join("ca.pem"))
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    assert!(trusting.status.success(), "{}", String::from_utf8_lossy(&trusting.stdout));

    // A port of the one kind is not one of the other.
    let clear = Server { security: Security::Tls, ..at(dovecot.pop3()) };
    let fault = capture(&clear, &account("alice"), &how()).unwrap_err();
    assert!(fault.to_string().contains("does not speak TLS from the first octet"), "{fault}");
}

fn take_what_is_trusted(port: u16) {
    let server = |host: &str| Server {
        host: host.into(),
        port,
        security: Security::Tls,
        trust: Trust::System,
    };
    for host in ["127.0.0.1", "localhost"] {
        assert_eq!(
            capture(&server(host), &account("alice"), &how()).unwrap().maildrop.entries.len(),
            9
        );
    }
    // The certificate is trusted, and is for another name.
    let fault = capture(&server("127.0.0.2"), &account("alice"), &how());
    assert!(
        fault.is_err_and(|fault| matches!(fault, Fault::Connect { .. } | Fault::Untrusted { .. }))
    );
}

#[test]
fn a_server_of_tls_1_0_is_called_that() {
    let dir = certificates();
    let port = free_port();
    let server = Command::new("openssl")
        .args(["s_server", "-quiet", "-tls1", "-cipher", "DEFAULT:@SECLEVEL=0", "-accept"])
        .arg(format!("127.0.0.1:{port}"))
        .args(["-cert", "cert.pem", "-key", "key.pem"])
        .current_dir(&dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut server) = server else { return lacking("there is no openssl") };
    let old =
        Server { host: "127.0.0.1".into(), port, security: Security::Tls, trust: Trust::Anything };
    let fault = loop {
        match capture(&old, &account("alice"), &how()).unwrap_err() {
            Fault::Connect { .. } => std::thread::sleep(Duration::from_millis(20)),
            fault => break fault,
        }
    };
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(matches!(fault, Fault::OldTls), "{fault:?}");
}

#[test]
fn courier_tells_over_pop3_what_lies_on_its_disk_8_bit_headers_too() {
    let Some(host) = Host::courier() else { return };
    let courier = Courier::new(&host);
    let maildir = courier.maildir("alice@example.com");
    fill(&maildir, &mail::maildrop(48), Naming::Courier);
    let listed = courier.uidl("alice@example.com");

    let source = Source::named("alice@example.com", maildir.path());
    let server = capture::disk::server::ServerKind::Courier;
    let whole = Keys { message: true, ..Keys::default() };
    let sizes = capture::disk::server::capture(&server, whole, &source).maildrop;
    let lies = capture::disk::server::capture(&server, Keys::default(), &source).maildrop;
    for retrieve in [Retrieve::Needed, Retrieve::Always] {
        let mut processes = Vec::new();
        let open = || {
            let (stream, process) = courier.process("alice@example.com");
            processes.push(process);
            stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            Session::join(stream, TIMEOUT)
        };
        let how = CaptureOptions { retrieve, ..how() };
        let told = capture_over(open, "alice@example.com", "Courier".into(), &how).unwrap();
        for mut process in processes {
            process.wait().unwrap();
        }
        assert_eq!(told.losses, [""; 0]);
        assert_eq!(uidls(&told), listed);
        assert_eq!(known_by(&told.maildrop), known_by(&lies));
        assert_eq!(told.maildrop.uidvalidity, lies.uidvalidity);
        assert_eq!(told.maildrop.counter, lies.counter);
        if retrieve == Retrieve::Always {
            sizes_are_right(&told.maildrop, &sizes);
        }
    }
}

#[test]
fn a_listing_can_be_had_of_a_session_alone() {
    let Some(host) = Host::dovecot(Line::subject()) else { return };
    let Some(dovecot) = Dovecot::start(&host, Config::default()) else { return };
    fill(&Maildir::create(dovecot.mail("alice")), &mail::maildrop(24), Naming::Dovecot);
    let listed = dovecot.uidl("alice");
    let mut session =
        log_in(&at(dovecot.pop3()), &account("alice"), TIMEOUT, &Learnt::default()).unwrap();
    let told: Vec<_> = listing(&mut session).unwrap();
    session.quit();
    let uidls: Vec<_> = told.iter().map(|one| String::from_utf8_lossy(&one.uidl)).collect();
    assert_eq!(uidls, listed);
    assert!((1..).zip(&told).all(|(number, one)| one.number == number && one.octets > 200));
}

#[test]
fn servers_that_are_not_here_are_understood_by_what_they_said() {
    let of = |name: &str| {
        let peer = replay(transcript(name));
        let captured = capture(&at(peer.address()), &account("u1"), &how()).unwrap();
        let heard = peer.heard().concat();
        assert!(heard.iter().all(|command| !command.starts_with("DELE")));
        (captured, heard)
    };
    let (dovecot, _) = of("dovecot");
    let headers_of_dovecot = headers(&dovecot);
    assert_eq!(headers_of_dovecot.len(), 12);
    assert_eq!(headers_of_dovecot[1], headers_of_dovecot[2]);
    assert!(headers_of_dovecot.iter().all(Option::is_some));
    for name in ["courier", "cyrus", "mailutils", "qmail-pop3d"] {
        let (captured, heard) = of(name);
        assert_eq!(captured.losses, [""; 0], "{name}");
        assert_eq!(captured.maildrop.state, State::Captured);
        let said = String::from_utf8(transcript(name).remove("UIDL").unwrap()).unwrap();
        let lines = said.lines().skip(1).take_while(|line| *line != ".");
        let listed: Vec<_> = lines.map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(uidls(&captured), listed, "{name}");
        for (at, (theirs, ours)) in headers(&captured).iter().zip(&headers_of_dovecot).enumerate() {
            // qmail-pop3d lists 5 and 6, which are of one second, the other way round. Courier was
            // not told UTF8 then, and wrapped 8; Cyrus makes each 8-bit octet an X when it stores a
            // message.
            let ours = match (name, at + 1) {
                ("qmail-pop3d", 5 | 6) => &headers_of_dovecot[9 - at],
                _ => ours,
            };
            let is_other = matches!((name, at + 1), ("courier" | "cyrus", 8));
            assert_eq!(theirs != ours, is_other, "{name}: message {}", at + 1);
        }
        // It retrieved the two equal ones, to see whether they are equal, and the one whose header
        // has no end.
        let retrieved: Vec<_> = heard.iter().filter(|line| line.starts_with("RETR")).collect();
        let wanted: &[&str] = match name {
            // These servers end a header that has no end.
            "qmail-pop3d" | "mailutils" => &["RETR 2", "RETR 3"],
            // A message that it wraps does not name itself.
            "courier" => &["RETR 2", "RETR 3", "RETR 8", "RETR 11"],
            _ => &["RETR 2", "RETR 3", "RETR 11"],
        };
        assert_eq!(retrieved, wanted, "{name}");
    }
}

#[test]
fn what_the_form_of_uidls_gives_away_is_taken() {
    let of = |name: &str| {
        let peer = replay(transcript(name));
        capture(&at(peer.address()), &account("u1"), &how()).unwrap().maildrop
    };
    let cyrus = of("cyrus");
    assert_eq!(cyrus.uidvalidity, Some(1_795_469_142));
    assert_eq!(cyrus.counter.as_ref().map(|counter| counter.next), Some(13));
    assert_eq!(cyrus.entries[11].uid, Some(12));
    let courier = of("courier");
    assert_eq!(courier.counter.map(|counter| counter.format.to_string()), Some("UID%u-%v".into()));
    // Its numbers are no IMAP UIDs.
    assert_eq!(courier.entries[11].uid, None);
    let qmail = of("qmail-pop3d");
    assert_eq!((qmail.uidvalidity, qmail.counter), (None, None));
    for entry in &qmail.entries {
        assert!(entry.file.as_ref().is_some_and(
            |file| file.key() == uidl_keep::key::FileKey::of_name(entry.uidl.as_bytes())
        ));
        // Its sizes are those of files, without CR.
        assert_eq!(entry.octets, None);
    }
    let mailutils = of("mailutils");
    assert_eq!((mailutils.uidvalidity, mailutils.counter), (None, None));
    assert!(mailutils.entries.iter().all(|entry| entry.file.is_none()));
}
