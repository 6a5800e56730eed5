//! `look`: what clients will see, asked of a doveadm that does not load the plugin by itself.

use std::fs;

use crate::support::dovecot::{Config, Store};
use crate::support::host::{Line, Unfit};
use crate::support::mail::Message;
use crate::support::scenario::{Listing, Scenario, USER, by_header, uidl, uidl_of};

#[derive(Debug)]
struct Looked {
    status: i32,
    lines: Vec<String>,
    said: String,
}

impl Looked {
    /// The UIDLs that were shown.
    fn uidls(&self) -> Vec<&str> {
        self.lines.iter().map(|line| line.split(' ').nth(1).unwrap()).collect()
    }
}

fn look(server: &Scenario, more: &[&str]) -> Looked {
    let conf = server.dovecot.inside(&server.dovecot.conf());
    let mut helper = server.dovecot.helper();
    helper.args(["look", USER, "--doveadm-args"]).arg(format!("-c {}", conf.display())).args(more);
    let ran = helper.output().expect("the helper");
    let text = |octets| String::from_utf8(octets).expect("text");
    Looked {
        status: ran.status.code().expect("not killed"),
        lines: text(ran.stdout).lines().map(str::to_owned).collect(),
        said: text(ran.stderr),
    }
}

/// The lines by which doveadm loads another plugin of Dovecot's.
fn beside(line: Line) -> String {
    match line {
        Line::V23 => "protocol doveadm {\n  mail_plugins = $mail_plugins acl\n}\n".into(),
        Line::V24 => "protocol doveadm {\n  mail_plugins {\n    acl = yes\n  }\n}\n".into(),
    }
}

#[test]
fn what_clients_will_see_is_shown_before_they_come_and_after() {
    for line in [Line::V23, Line::V24] {
        for store in [Store::Maildir, Store::Mdbox] {
            let config = Config { extra: beside(line), ..Config::default() };
            let Some(server) = Scenario::begin_with(line, config.store(store).with_plugin()) else {
                continue;
            };
            let way = format!("{line:?} {store:?}");
            let order = [3, 1, 2];
            let listing = order.into_iter().fold(Listing::new(), |listing, number| {
                listing.message(&uidl(number), &by_header(&Message::plain(number)))
            });
            (1..=4).for_each(|number| server.receive(&Message::plain(number)));
            server.capture(&listing);

            let before = look(&server, &[]);
            assert_eq!(before.status, 0, "{way}: {}", before.said);
            let kept = uidl_of(order);
            assert_eq!(before.uidls()[..3], kept, "{way}: {:?}", before.lines);
            assert_eq!(before.uidls()[3], "-", "{way}");
            assert!(before.lines[0].starts_with("1 UID3-17 uid=3 order=1048576"), "{before:?}");
            assert_eq!(before.lines[3], "4 - uid=4", "{way}");
            assert!(before.said.contains("1 messages of alice@example.com have no UIDL yet"));
            assert!(!server.ledger().exists(), "{way}: to look is no login");

            let told = server.dovecot.uidl(USER);
            let after = look(&server, &[]);
            assert_eq!(after.uidls(), told, "{way}");
            let summary = "uidl-keep: look: 4 messages, 0 of them without a UIDL\n";
            assert_eq!((after.status, &*after.said), (0, summary), "{way}");
            let first = look(&server, &["--json", "-q"]).lines.remove(0);
            let first: serde_json::Value = serde_json::from_str(&first).expect("JSON");
            let expected = serde_json::json!({
                "number": 1, "uidl": "UID3-17", "uid": 3, "order": 1_048_576
            });
            assert_eq!(first, expected, "{way}");

            // Where POP3 would refuse him, nobody knows.
            fs::write(server.index(), "damaged").unwrap();
            fs::remove_file(server.ledger()).unwrap();
            let refused = look(&server, &[]);
            assert_eq!((refused.status, &*refused.lines), (2, &[][..]), "{way}");
            assert!(refused.said.contains("example.com.idx"), "{way}: {}", refused.said);
        }
    }
}

/// mailcow has its list in a file. On 2.4 a list is no text.
#[test]
fn a_list_of_plugins_that_is_a_file_is_added_to() {
    if Unfit::Spelling.is_asked() {
        return;
    }
    let Some(mut server) = Scenario::migrated(3) else { return };
    let list = server.dovecot.dir().join("mail_plugins");
    fs::write(&list, "acl").unwrap();
    server.dovecot.restart_with(&format!(
        "mail_plugins = <{}\nprotocol pop3 {{\n  mail_plugins = acl uidl_keep\n}}\n",
        list.display()
    ));
    let looked = look(&server, &[]);
    assert_eq!((looked.status, looked.uidls().len()), (0, 3), "{looked:?}");
    assert_eq!(looked.uidls(), uidl_of(1..=3));
}
