//! `verify`: listings that a made-up server tells, compared with what clients know.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::cli::{ALICE, BOB, CAROL, DAVE, Here, Ran};

/// A POP3 server with these UIDLs by login name, and what it was told. It ends with the process.
struct Pop3Server {
    port: u16,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Pop3Server {
    fn with(maildrops: &[(&str, &[&str])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = |uidls: &[&str]| uidls.iter().map(|uidl| (*uidl).to_owned()).collect();
        let maildrops: HashMap<String, Vec<String>> =
            maildrops.iter().map(|(user, uidls)| ((*user).to_owned(), own(uidls))).collect();
        let (maildrops, heard) = (Arc::new(maildrops), Arc::new(Mutex::new(Vec::new())));
        let hears = Arc::clone(&heard);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (maildrops, hears) = (Arc::clone(&maildrops), Arc::clone(&hears));
                thread::spawn(move || serve(client.unwrap(), &maildrops, &hears));
            }
        });
        Self { port, heard }
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

fn serve(client: TcpStream, maildrops: &HashMap<String, Vec<String>>, heard: &Mutex<Vec<String>>) {
    let mut out = client.try_clone().unwrap();
    let mut user = String::new();
    out.write_all(b"+OK hello\r\n").unwrap();
    for line in BufReader::new(client).lines() {
        let Ok(line) = line else { return };
        let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
        heard.lock().unwrap().push(command.to_owned());
        let listed = |of: &dyn Fn(usize, &str) -> String| {
            let lines = maildrops[&user].iter().enumerate();
            let lines: String = lines.map(|(at, uidl)| of(at + 1, uidl) + "\r\n").collect();
            format!("+OK\r\n{lines}.\r\n")
        };
        let answer = match command {
            "CAPA" => "+OK\r\nUSER\r\nUIDL\r\n.\r\n".to_owned(),
            "USER" => {
                user = argument.to_owned();
                "+OK\r\n".to_owned()
            }
            "PASS" if maildrops.contains_key(&user) && argument == "secret" => "+OK\r\n".into(),
            "PASS" => "-ERR [AUTH] no\r\n".into(),
            "UIDL" => listed(&|number, uidl| format!("{number} {uidl}")),
            "LIST" => listed(&|number, _| format!("{number} 100")),
            "QUIT" => "+OK\r\n".into(),
            _ => "-ERR what?\r\n".into(),
        };
        if out.write_all(answer.as_bytes()).is_err() || command == "QUIT" {
            return;
        }
    }
}

/// A file of accounts that nobody else can read.
fn accounts(here: &Here, users: &[&str]) {
    let lines: String = users.iter().map(|user| format!("{user},secret\n")).collect();
    here.write("accounts.csv", &format!("user,password\n{lines}"));
    let private = Permissions::from_mode(0o600);
    fs::set_permissions(here.path("accounts.csv"), private).unwrap();
}

fn verify(here: &Here, new: &Pop3Server, more: &str) -> Ran {
    let host = new.host();
    here.run(&format!("verify --new {host} --clear --accounts accounts.csv {more}"))
}

const ALICES: &[&str] = &["UID1-1714990000", "UID2-1714990000"];

#[test]
fn each_sign_has_its_reason_and_the_worst_stands_first() {
    let here = Here::new();
    let eve = ALICE.replace("alice@", "eve@").replace("UID9-1714990000", "gone");
    let fay = ALICE.replace("alice@", "fay@");
    let gil = ALICE.replace("alice@", "gil@");
    here.write("all.listing", &[ALICE, BOB, CAROL, DAVE, &eve, &fay, &gil].concat());
    let new = Pop3Server::with(&[
        ("alice@example.com", ALICES),
        ("bob@example.com", &["n1"]),
        ("carol@example.com", &[]),
        ("dave@example.net", &[]),
        ("eve@example.com", &["UID1-1714990000", "UID2-1714990000", "gone"]),
        ("fay@example.com", &["UID2-1714990000", "UID1-1714990000"]),
        ("gil@example.com", &["UID1-1714990000", "UID2-1714990000", "UID12-1714990000"]),
        ("zoe@example.com", &[]),
    ]);
    let users = ["alice", "bob", "carol", "eve", "fay", "gil", "zoe"];
    let mut users: Vec<String> = users.iter().map(|user| format!("{user}@example.com")).collect();
    users.push("dave@example.net".to_owned());
    accounts(&here, &users.iter().map(String::as_str).collect::<Vec<_>>());
    let ran = verify(&here, &new, "all.listing");
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    let hidden = "1 listed by a UIDL that clients may hold for another message";
    let wanted = [
        "! carol@example.com: could not tell: its capture failed: nobody knows what its clients \
         know"
            .to_owned(),
        "! zoe@example.com: could not tell: no maildrop of that name in all.listing".to_owned(),
        format!("* eve@example.com: 2 of 2 kept, {hidden} (gone)"),
        "* fay@example.com: 2 of 2 kept, in another order (first at message 2)".to_owned(),
        format!("* gil@example.com: 2 of 2 kept, {hidden} (UID12-1714990000)"),
        "- dave@example.net: 0 of 1 kept, 1 missing (0000000155aa)".to_owned(),
        "+ bob@example.com: 0 of 0 kept, 1 new".to_owned(),
        "= alice@example.com: 2 of 2 kept".to_owned(),
        "total: 8 maildrops (2 !, 3 *, 1 -, 1 +, 1 =): 8 of 9 messages kept, 1 missing, 1 new"
            .to_owned(),
    ];
    assert_eq!(ran.stdout.lines().collect::<Vec<_>>(), wanted);
    // Nobody was asked who could not be compared, and nothing was asked but the listing.
    let heard = new.heard();
    assert_eq!(heard.iter().filter(|command| *command == "QUIT").count(), 6);
    let asked = |command: &String| {
        ["CAPA", "USER", "PASS", "UIDL", "LIST", "QUIT"].contains(&command.as_str())
    };
    assert!(heard.iter().all(asked), "{heard:?}");

    let json = verify(&here, &new, "--json all.listing").stdout;
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 9);
    assert_eq!((&lines[2]["sign"], &lines[2]["reused"][0]), (&"*".into(), &"gone".into()));
    assert_eq!((&lines[3]["out_of_order"], &lines[3]["kept"]), (&2.into(), &2.into()));
    assert_eq!(lines[5]["missing"][0], "0000000155aa");
    assert_eq!(lines[8]["total"]["maildrops"]["!"], 2);
}

#[test]
fn whoever_has_no_account_or_is_not_let_in_is_said_and_not_taken_for_well() {
    let here = Here::new();
    here.write("all.listing", &[ALICE, BOB].concat());
    let new = Pop3Server::with(&[("alice@example.com", ALICES)]);
    accounts(&here, &["alice@example.com"]);
    let ran = verify(&here, &new, "all.listing");
    assert_eq!(ran.status, 1);
    let unasked =
        "1 maildrops have no account here and are not verified (the first: bob@example.com)";
    assert!(ran.stderr.contains(unasked), "{}", ran.stderr);
    accounts(&here, &["alice@example.com", "bob@example.com"]);
    let ran = verify(&here, &new, "all.listing");
    assert_eq!(ran.status, 1);
    assert!(ran.stdout.starts_with("! bob@example.com: could not tell: "), "{}", ran.stdout);
    // One account is asked for alone.
    here.write("password", "secret\n");
    fs::set_permissions(here.path("password"), Permissions::from_mode(0o600)).unwrap();
    let one = format!(
        "verify --new {} --clear --user alice@example.com --password-file password all.listing",
        new.host()
    );
    let ran = here.run(&one);
    assert_eq!((ran.status, &*ran.stderr), (0, ""), "{}", ran.stdout);
    assert!(ran.stdout.starts_with("= alice@example.com: 2 of 2 kept\n"), "{}", ran.stdout);

    for (args, said) in [
        ("cut.listing", "cut.listing:"),
        ("nowhere.listing", "nowhere.listing: No such"),
        ("--site nowhere", "nowhere/domain: No such"),
        ("twice.listing", "twice.listing: bob@example.com is there twice; keep the later one"),
    ] {
        here.write("cut.listing", &ALICE[..ALICE.len() - 2]);
        here.write("twice.listing", &[BOB, BOB].concat());
        let ran = verify(&here, &new, args);
        assert_eq!((ran.status, &*ran.stdout), (2, ""), "{args}");
        assert!(ran.stderr.contains(said), "{args}: {}", ran.stderr);
    }
    assert_eq!(verify(&here, &new, "").status, 2, "there is nothing to compare with");
}

#[test]
fn a_site_tells_what_clients_know_and_who_is_given_up() {
    let here = Here::new();
    let later = ALICE
        .replace("2 UID2-1714990000 uid=2", "2 UID14-1714990000 uid=14")
        .replace("counter 13", "counter 15");
    here.write("first.listing", &[ALICE, BOB, DAVE].concat());
    here.write("later.listing", &later);
    here.run("build -o site first.listing");
    let built = here.run("build -o site --base site --final later.listing");
    assert_eq!(built.status, 0, "{}", built.stderr);
    here.run("release --redownload --site site dave@example.net");
    accounts(&here, &["alice@example.com", "bob@example.com", "dave@example.net"]);
    // A client that was told the earlier UIDL goes on being told it.
    for second in ["UID14-1714990000", "UID2-1714990000"] {
        let new = Pop3Server::with(&[
            ("alice@example.com", &["UID1-1714990000", second]),
            ("bob@example.com", &[]),
        ]);
        let ran = verify(&here, &new, "--site site");
        assert_eq!((ran.status, &*ran.stderr), (0, ""), "{}", ran.stdout);
        let total = "total: 2 maildrops (0 !, 0 *, 0 -, 0 +, 2 =): 2 of 2 messages kept, 0 \
                     missing, 0 new; left out: 1 set to redownload\n";
        assert!(ran.stdout.ends_with(total), "{}", ran.stdout);
    }
    // Nobody logs in for a user who is held: he would be refused, and tried again.
    here.run("hold --site site alice@example.com");
    let new = Pop3Server::with(&[("bob@example.com", &[])]);
    let ran = verify(&here, &new, "--site site");
    let held = "! alice@example.com: could not tell: it is held, and POP3 refuses it: release it";
    assert!(ran.status == 1 && ran.stdout.starts_with(held), "{} {}", ran.stdout, ran.stderr);
    assert_eq!(new.heard().iter().filter(|command| *command == "PASS").count(), 1);
    here.run("release --site site alice@example.com");
    here.run("forget --site site bob@example.com");
    fs::remove_file(here.path("site/domain/example.com.idx")).unwrap();
    let new = Pop3Server::with(&[("alice@example.com", ALICES), ("bob@example.com", &[])]);
    let ran = verify(&here, &new, "--site site");
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    assert!(ran.stdout.contains("! alice@example.com: could not tell: "), "{}", ran.stdout);
    let forgotten = "! bob@example.com: could not tell: it was forgotten, and is refused";
    assert!(ran.stdout.contains(forgotten), "{}", ran.stdout);
}

#[test]
fn two_servers_are_compared_as_they_list_now() {
    let here = Here::new();
    let old = Pop3Server::with(&[("alice", ALICES), ("bob", &["a", "b", "b"]), ("carol", &["x"])]);
    let new = Pop3Server::with(&[
        ("alice@example.com", ALICES),
        ("bob@example.com", &["a", "b"]),
        ("carol@example.com", &["x"]),
        ("dave@example.com", &[]),
    ]);
    let users = ["alice", "bob", "carol", "dave"];
    let lines: String =
        users.iter().map(|user| format!("{user},secret,{user}@example.com\n")).collect();
    here.write("accounts.csv", &format!("user,password,new_user\n{lines}"));
    fs::set_permissions(here.path("accounts.csv"), Permissions::from_mode(0o600)).unwrap();
    let ran = verify(&here, &new, &format!("--old {}", old.host()));
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines[0].starts_with("! dave@example.com: could not tell: at the old server: "));
    assert_eq!(lines[1], "- bob@example.com: 2 of 3 kept, 1 missing (b)");
    assert_eq!(
        lines[2..4],
        ["= alice@example.com: 2 of 2 kept", "= carol@example.com: 1 of 1 kept"]
    );
    assert!(new.heard().iter().all(|command| command != "RETR" && command != "TOP"));

    // A master user of each, with a password of its own.
    let old = Pop3Server::with(&[("alice*root", ALICES)]);
    let new = Pop3Server::with(&[("alice@example.com*master", ALICES)]);
    here.write("users", "alice alice@example.com\n");
    for file in ["password", "old-password"] {
        here.write(file, "secret\n");
        fs::set_permissions(here.path(file), Permissions::from_mode(0o600)).unwrap();
    }
    let ran = here.run(&format!(
        "verify --new {} --old {} --clear --users users --password-file password \
         --login-template {{user}}*master --old-login-template {{user}}*root \
         --old-password-file old-password",
        new.host(),
        old.host()
    ));
    assert_eq!((ran.status, &*ran.stderr), (0, ""), "{}", ran.stdout);
}

#[test]
fn one_account_is_work_that_ends_as_much_as_many_are() {
    let here = Here::new();
    here.write("bob.listing", BOB);
    here.write("password", "secret\n");
    fs::set_permissions(here.path("password"), Permissions::from_mode(0o600)).unwrap();
    let new = Pop3Server::with(&[("bob@example.com", &[])]);
    let who = "--clear --user bob@example.com --password-file password --progress json";
    for command in [
        format!("verify --new {} {who} bob.listing", new.host()),
        format!("capture pop3 --host {} {who}", new.host()),
    ] {
        let ran = here.run(&command);
        assert_eq!(ran.status, 0, "{command}: {}", ran.stderr);
        let last = ran.stderr.lines().last().unwrap_or_default();
        let last: serde_json::Value = serde_json::from_str(last).expect("JSON");
        assert_eq!((&last["done"], &last["total"]), (&1.into(), &1.into()), "{command}");
    }
}
