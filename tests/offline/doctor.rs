//! `doctor` on machines that are made up: their `/etc`, `/proc` and `/sys` in a directory, and
//! programs in the place of Dovecot's. tests/hosts/doctor.rs has what a real Dovecot can show.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::shared::program::write_program;
use crate::support::cli::{ALICE, BOB, Here, Ran};

/// Answers with what the test has put into the directory `conf`.
const DOVECONF: &str = r#"#!/bin/sh
for last; do :; done
case "$*" in
*-n) exec cat HERE/conf/about ;;
"-x -f protocol=pop3 mail_plugins")
    [ -e HERE/conf/expanded ] && exec cat HERE/conf/expanded
    echo "doveconf: Fatal: Error in setting mail_plugins: Can't open file" >&2
    exit 89 ;;
"-x mail_plugins") exec cat HERE/conf/global ;;
"-f protocol=pop3 mail_plugins") exec cat HERE/conf/plugins ;;
"-f protocol=doveadm mail_plugins") [ -e HERE/conf/doveadm ] && exec cat HERE/conf/doveadm ;;
esac
name=$(echo "$last" | tr / _)
[ -e "HERE/conf/$name" ] && echo "$last = $(cat "HERE/conf/$name")" || echo "$last ="
"#;

/// Knows everybody, who has the ids of whoever runs it; lists whom `conf/users` names. The place of
/// a user's mail is in `conf/mail.USER`.
const DOVEADM: &str = r#"#!/bin/sh
case "$*" in
"user -f user -- "*) exit 0 ;;
'user -- *') [ -e HERE/conf/users ] && cat HERE/conf/users; exit 0 ;;
"user -f uid -- "*) shift 4; for user; do id -u; echo; done ;;
"user -f gid -- "*) shift 4; for user; do id -g; echo; done ;;
"user -- "*) printf 'field\tvalue\nuid\t%s\ngid\t%s\nhome\t/x\n' "$(id -u)" "$(id -g)" ;;
"-f json mailbox path -F "*)
    between='['
    while read -r user; do
        [ -e "HERE/conf/mail.$user" ] && path=$(cat "HERE/conf/mail.$user") || path=HERE/mail/$user
        printf '%s{"username":"%s","path":"%s"}' "$between" "$user" "$path"
        between=','
    done < "$6"
    echo ']' ;;
*) echo "what is $*?" >&2; exit 64 ;;
esac
"#;

/// The number of the process that the machine's Dovecot is said to be.
const MASTER: u32 = 4_242_424;

/// A machine, and the helper beside it.
struct MadeUp {
    here: Here,
}

impl MadeUp {
    /// One that has Dovecot 2.3, which runs and loads the plugin, and a site with two users.
    fn ready() -> Self {
        let here = Here::new();
        for dir in ["conf", "bin", "mail", "machine/etc/dovecot"] {
            fs::create_dir_all(here.path(dir)).unwrap();
        }
        here.write("one.listing", ALICE);
        here.write("two.listing", BOB);
        fs::create_dir_all(here.path("seen/var/lib")).unwrap();
        here.quiet("build -o seen/var/lib/uidl-keep one.listing two.listing");
        let dir = here.0.path().to_str().unwrap();
        write_program(&here.path("bin/doveconf"), &DOVECONF.replace("HERE", dir));
        write_program(&here.path("bin/doveadm"), &DOVEADM.replace("HERE", dir));
        let made = Self { here };
        made.here.write("conf/about", "# 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf\n");
        made.here.write("conf/plugins", "mail_plugins = quota uidl_keep\n");
        made.here.write("conf/global", "mail_plugins = quota\n");
        for (name, value) in [
            ("base_dir", "/run/dovecot"),
            ("pop3_uidl_format", "%08Xu%08Xv"),
            ("pop3_uidl_duplicates", "allow"),
            ("default_vsz_limit", "256 M"),
            ("mail_plugin_dir", "/usr/lib/dovecot/modules"),
        ] {
            made.here.write(&format!("conf/{name}"), value);
        }
        made.put("run/dovecot/master.pid", &format!("{MASTER}\n"));
        fs::create_dir_all(made.place(&format!("proc/{MASTER}"))).unwrap();
        // The site is where the plugin looks, below the root that Dovecot has.
        let root = made.place(&format!("proc/{MASTER}/root"));
        symlink(made.here.path("seen"), root).unwrap();
        made
    }

    fn site(&self) -> PathBuf {
        self.here.path("seen/var/lib/uidl-keep")
    }

    fn place(&self, path: &str) -> PathBuf {
        self.here.path("machine").join(path)
    }

    /// Writes a file of the machine.
    fn put(&self, path: &str, text: &str) {
        let path = self.place(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Puts a site of these listings in the place of the one that is there.
    fn rebuild(&self, listings: &str) {
        let ran = self.here.run(&format!("build -o anew {listings}"));
        assert_ne!(ran.status, 2, "{}", ran.stderr);
        fs::remove_dir_all(self.site()).unwrap();
        fs::rename(self.here.path("anew"), self.site()).unwrap();
    }

    fn args(&self, more: &str) -> String {
        let (site, doveadm) = (self.site(), self.here.path("bin/doveadm"));
        let (site, doveadm) = (site.display(), doveadm.display());
        format!("doctor --site {site} --machine machine --doveadm {doveadm} {more}")
    }

    fn run(&self, more: &str) -> Ran {
        self.here.run(&self.args(more))
    }

    /// What is found about one thing: the level, and all that is said.
    #[track_caller]
    fn finds(&self, about: &str, level: &str, words: &[&str]) {
        let ran = self.run("--json");
        let objects: Vec<Value> =
            ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let ours = objects.iter().filter(|object| object["about"] == about);
        let of_level: Vec<String> =
            ours.clone().filter(|it| it["level"] == level).map(Value::to_string).collect();
        let said = of_level.iter().any(|said| words.iter().all(|word| said.contains(word)));
        let all: Vec<String> = ours.map(Value::to_string).collect();
        assert!(said, "no {level} with {words:?}: {all:?} {}", ran.stderr);
        if level != "fine" && level != "notice" {
            assert_eq!(ran.status, 2, "{}", ran.stdout);
        }
    }

    /// Insists that nothing is found about it.
    #[track_caller]
    fn is_silent_of(&self, about: &str) {
        let ran = self.run("--json");
        assert!(!ran.stdout.contains(&format!("\"about\":\"{about}\"")), "{}", ran.stdout);
    }
}

#[test]
fn a_machine_without_dovecot_could_not_be_told_of() {
    let here = Here::new();
    let ran = here.run("doctor --site site --doveadm bin/nothing");
    assert_eq!(ran.status, 2);
    assert!(ran.stdout.starts_with("no Dovecot, site site, 1 findings\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("\ncould not tell: dovecot: bin/doveconf: "), "{}", ran.stdout);
    assert!(ran.stderr.starts_with("uidl-keep: doctor: 1 findings are trouble"), "{}", ran.stderr);
}

#[test]
fn the_first_line_says_where_things_stand_and_json_has_an_object_a_finding() {
    let made = MadeUp::ready();
    let ran = made.run("");
    let first = ran.stdout.lines().next().unwrap();
    assert!(first.starts_with("Dovecot 2.3.19.1 ("), "{first}");
    let site = made.site();
    let rest = format!("uidl_keep and cannot, site {}: 1 domains, 2 migrated, ", site.display());
    assert!(first.contains(&rest), "{first}");
    assert!(!ran.stdout.contains("\nfine: "), "{}", ran.stdout);
    assert!(ran.stdout.contains("\ntrouble: plugin_file: /usr/lib/dovecot/modules: no lib95"));
    assert!(ran.stdout.contains("\n    run: uidl-keep plugin status\n"), "{}", ran.stdout);

    let all = made.run("--verbose").stdout;
    assert!(all.contains("\nfine: access: roster and index were opened for 2 of 2 users"), "{all}");
    let objects = made.run("--json").stdout;
    let objects: Vec<Value> =
        objects.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects[0]["worst"], "trouble");
    assert_eq!(objects[0]["stands"], first);
    assert!(objects.len() > 10, "{objects:?}");
    for object in &objects[1..] {
        let is_text = |name: &str| object[name].is_string();
        assert!(["about", "level", "what", "why", "run"].into_iter().all(is_text), "{object}");
        let is_fine = object["level"] == "fine";
        assert_eq!(object["run"] == "", is_fine, "{object}");
        assert_eq!(object["why"] == "", is_fine, "{object}");
    }
    // Each line of it stays one, whatever a name has in it.
    made.here.write("conf/pop3_uidl_format", "%u\u{1b}[31m");
    assert!(!made.run("--verbose").stdout.contains('\u{1b}'));
}

#[test]
fn mailcows_list_of_plugins_is_a_file_and_swallows_what_stands_behind_it() {
    let made = MadeUp::ready();
    made.here.write("conf/plugins", "mail_plugins = </etc/dovecot/mail_plugins uidl_keep\n");
    made.here.write("conf/global", "mail_plugins = quota acl\n zlib\n");
    made.put("etc/dovecot/auth/mailcowauth.php", "");
    let run = "mail_plugins = quota acl zlib uidl_keep";
    let words = ["taken for the name of a file", run, "extra.conf", "2 of 2 maildrops depend"];
    made.finds("mail_plugins", "trouble", &words);
    // The file has all of it.
    made.here.write("conf/plugins", "mail_plugins = </etc/dovecot/mail_plugins_pop3\n");
    made.here.write("conf/expanded", "mail_plugins = quota\n uidl_keep\n");
    made.finds("mail_plugins", "fine", &["POP3 loads uidl_keep"]);
    made.here.write("conf/expanded", "mail_plugins = quota\n uidl_keep_not\n");
    made.finds("mail_plugins", "trouble", &["does not load uidl_keep"]);
}

#[test]
fn doveadm_that_loads_the_plugin_and_settings_that_nobody_reads_are_found() {
    let made = MadeUp::ready();
    made.finds("mail_plugins", "fine", &["nothing but POP3"]);
    made.here.write("conf/doveadm", "mail_plugins = quota uidl_keep\n");
    made.finds("mail_plugins", "notice", &["doveadm load uidl_keep, too", "every doveadm"]);
    let about =
        "# 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf\nplugin {\n  uidl_keep_dir = /x\n}\n";
    made.here.write("conf/about", about);
    made.finds("mail_plugins", "trouble", &["uidl_keep_dir = /x", "take it out"]);
}

#[test]
fn lines_that_a_panel_writes_anew_are_named_and_those_that_stay_are_not() {
    let made = MadeUp::ready();
    made.put("etc/os-release", "PRETTY_NAME=\"Some Linux 1\"\n");
    made.put("etc/dovecot/dovecot.conf", "!include conf.d/*.conf\nmail_plugins = x uidl_keep\n");
    made.finds("panel", "fine", &["Some Linux 1", "/etc/dovecot/dovecot.conf names"]);

    made.put("usr/local/cpanel/version", "11.132.0\n");
    let words = ["cPanel: /etc/dovecot/dovecot.conf names", "writes it anew", "builddovecotconf"];
    made.finds("panel", "notice", &words);
    made.put("var/cpanel/templates/dovecot/main.local", "#uidl_keep\n");
    made.finds("panel", "notice", &words);
    made.put("var/cpanel/templates/dovecot/main.local", "mail_plugins = x uidl_keep\n");
    made.finds("panel", "fine", &["main.local names the plugin, and comes back"]);

    fs::remove_dir_all(made.place("usr/local/cpanel")).unwrap();
    made.put("usr/local/psa/version", "18.0.73\n");
    made.finds("panel", "notice", &["Plesk: /etc/dovecot/dovecot.conf", "99-uidl-keep.conf"]);
    made.put("etc/dovecot/dovecot.conf", "!include conf.d/*.conf\n");
    made.finds("panel", "fine", &["Plesk: no file names the plugin yet"]);
    made.put("etc/dovecot/conf.d/99-uidl-keep.conf", "mail_plugins = x uidl_keep\n");
    made.finds("panel", "fine", &["99-uidl-keep.conf names the plugin, and updates leave it"]);

    fs::remove_dir_all(made.place("usr/local/psa")).unwrap();
    fs::remove_dir_all(made.place("etc/dovecot/conf.d")).unwrap();
    made.put("etc/iredmail-release", "1.8.1\n");
    made.put("etc/dovecot/dovecot.conf", "mail_plugins = x uidl_keep\n");
    made.finds("panel", "notice", &["iRedMail: /etc/dovecot/dovecot.conf"]);
    made.here.write("conf/about", "# 2.4.1-4 (7d8c0e5759): /etc/dovecot/dovecot.conf\n");
    made.finds("panel", "fine", &["updates leave it alone"]);
}

#[test]
fn the_running_dovecot_must_see_the_same_site() {
    let made = MadeUp::ready();
    let root = made.place(&format!("proc/{MASTER}/root"));
    made.finds("mounts", "fine", &["the running Dovecot finds", "as /var/lib/uidl-keep"]);
    fs::remove_file(&root).unwrap();
    let other = made.here.path("other");
    fs::create_dir_all(&other).unwrap();
    symlink(&other, &root).unwrap();
    made.finds("mounts", "trouble", &["sees no /var/lib/uidl-keep"]);
    fs::create_dir_all(other.join("var/lib/uidl-keep")).unwrap();
    made.finds("mounts", "trouble", &["is another directory"]);
    // It costs nobody anything while POP3 does not load the plugin.
    made.here.write("conf/plugins", "mail_plugins = quota\n");
    made.finds("mounts", "notice", &["is another directory", "does not load the plugin now"]);
    made.here.write("conf/plugins", "mail_plugins = quota uidl_keep\n");
    fs::remove_file(&root).unwrap();
    made.finds("mounts", "could_not_tell", &["No such file"]);

    fs::remove_dir_all(made.place("proc")).unwrap();
    made.finds("dovecot", "could_not_tell", &["Dovecot does not run"]);
    made.is_silent_of("access");
}

/// A process that sees a directory on a read-only mount. It ends with the test.
struct ReadOnlyView(std::process::Child);

impl ReadOnlyView {
    /// `None`, having said why, if nothing can be mounted for one process alone.
    fn of(dir: &std::path::Path) -> Option<Self> {
        let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" || exit; \
                      echo ready; exec sleep 600";
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private", "sh", "-c", script, "-"]).arg(dir);
        let mut child = unshare.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().ok()?;
        let mut said = String::new();
        BufReader::new(child.stdout.take()?).read_line(&mut said).unwrap();
        let view = Self(child);
        if said != "ready\n" {
            crate::shared::lacking("nothing can be mounted here for one process alone");
            return None;
        }
        Some(view)
    }
}

impl Drop for ReadOnlyView {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_mount_that_is_read_only_for_dovecot_alone_leaves_no_place_for_ledgers() {
    let made = MadeUp::ready();
    made.is_silent_of("ledger");
    let mail = made.here.path("mail").canonicalize().unwrap();
    let Some(view) = ReadOnlyView::of(&mail) else { return };
    let root = made.place(&format!("proc/{MASTER}/root"));
    fs::remove_file(&root).unwrap();
    symlink(format!("/proc/{}/root", view.0.id()), &root).unwrap();
    made.finds("ledger", "notice", &["read-only for the running Dovecot", "ReadWritePaths"]);
}

#[test]
fn headers_of_another_dovecot_and_one_that_was_upgraded_are_named() {
    let made = MadeUp::ready();
    made.is_silent_of("headers");
    made.put("usr/include/dovecot/config.h", "#define DOVECOT_ABI_VERSION \"2.2.ABIv1(2.2.1)\"\n");
    let is_told = made.run("--verbose").stdout.contains("fine: abi: Dovecot 2.3.19.1 has ");
    if !is_told {
        return crate::shared::lacking("no Dovecot is installed: run `make deps`");
    }
    made.finds("headers", "notice", &["/usr/include/dovecot is of 2.2.ABIv1, and Dovecot has"]);
    made.put("usr/local/include/dovecot/config.h", "\n");
    made.finds("headers", "notice", &["/usr/local/include/dovecot: names no ABI"]);
    let maps = format!("proc/{MASTER}/maps");
    made.put(&maps, "7f r-xp 0 fe:00 9 /usr/lib/dovecot/libdovecot.so.0.0.0\n");
    let told = |ran: Ran| ran.stdout.contains("notice: abi: Dovecot was upgraded");
    assert!(!told(made.run("")));
    made.put(&maps, "7f r-xp 0 fe:00 9 /usr/lib/dovecot/libdovecot.so.0.0.0 (deleted)\n");
    assert!(told(made.run("")));
}

#[test]
fn a_unit_that_hides_the_site_is_trouble_unless_something_else_started_dovecot() {
    let made = MadeUp::ready();
    made.is_silent_of("systemd");
    let dir = made.here.0.path().canonicalize().unwrap();
    made.put("lib/systemd/system/dovecot.service", "[Service]\nPrivateDevices=true\n");
    made.finds("systemd", "fine", &["hides nothing"]);
    let drop_in = "etc/systemd/system/dovecot.service.d/10.conf";
    made.put(drop_in, &format!("[Service]\nInaccessiblePaths=-{}\n", dir.display()));
    made.finds("systemd", "trouble", &["InaccessiblePaths of dovecot.service hides"]);
    made.put(&format!("proc/{MASTER}/cgroup"), "0::/system.slice/dovecot.service\n");
    made.finds("systemd", "trouble", &["InaccessiblePaths"]);
    made.put(&format!("proc/{MASTER}/cgroup"), "0::/docker/0123\n");
    made.finds("systemd", "fine", &["no unit of systemd has started"]);
    fs::remove_file(made.place(&format!("proc/{MASTER}/cgroup"))).unwrap();
    made.put(drop_in, "[Service]\nInaccessiblePaths=/nowhere\nPrivateTmp=no\n");
    made.finds("systemd", "fine", &["hides nothing"]);
    if dir.starts_with("/tmp") {
        made.put(drop_in, "[Service]\nPrivateTmp=yes\n");
        made.finds("systemd", "trouble", &["PrivateTmp of dovecot.service hides /tmp"]);
    }
}

#[test]
fn selinux_lets_dovecot_map_files_of_its_own_types_and_read_some_others() {
    let made = MadeUp::ready();
    made.is_silent_of("selinux");
    made.put("sys/fs/selinux/enforce", "0");
    made.is_silent_of("selinux");
    made.put("sys/fs/selinux/enforce", "1");
    let label = |kind: &str| {
        let context = format!("system_u:object_r:{kind}:s0\0");
        let flags = rustix::fs::XattrFlags::empty();
        let site = made.site();
        rustix::fs::setxattr(&site, "security.selinux", context.as_bytes(), flags)
    };
    if let Err(error) = label("var_lib_t") {
        return crate::shared::lacking(&format!("no file can be labelled here: {error}"));
    }
    made.finds("selinux", "notice", &["is var_lib_t", "not map", "restorecon -R"]);
    label("dovecot_spool_t").unwrap();
    made.finds("selinux", "fine", &["is dovecot_spool_t"]);
    label("default_t").unwrap();
    made.finds("selinux", "trouble", &["may not read such files"]);
    label("own_t").unwrap();
    made.finds("selinux", "could_not_tell", &["own_t", "sesearch"]);
    rustix::fs::removexattr(made.site(), "security.selinux").unwrap();
    made.finds("selinux", "could_not_tell", &["context of"]);
}

#[test]
fn apparmor_confines_pop3_only_by_a_profile_that_is_enforced() {
    let made = MadeUp::ready();
    made.is_silent_of("apparmor");
    let profiles = "sys/kernel/security/apparmor/profiles";
    made.put(profiles, "/usr/lib/dovecot/pop3 (complain)\ndovecot-pop3-login (enforce)\n");
    made.finds("apparmor", "fine", &["no profile confines Dovecot's pop3"]);
    made.put(profiles, "dovecot-imap (enforce)\ndovecot-pop3 (enforce)\n");
    let words = ["dovecot-pop3 (enforce) confines Dovecot's pop3", "apparmor_parser -r"];
    made.finds("apparmor", "trouble", &words);
    let site = made.site().canonicalize().unwrap();
    let local = "etc/apparmor.d/local/usr.lib.dovecot.pop3";
    let rule = format!("  {0}/ r,\n  {0}/** r,\n", site.display());
    made.put(local, &rule.replace("  ", "#"));
    made.finds("apparmor", "trouble", &words);
    made.put(local, &rule);
    made.finds("apparmor", "fine", &["it may read"]);
    fs::remove_file(made.place(local)).unwrap();
    made.put("etc/apparmor.d/usr.lib.dovecot.pop3", &rule);
    made.finds("apparmor", "fine", &["it may read"]);
    // Auth reads only what is there to be read.
    made.put(profiles, "/usr/lib/dovecot/auth (enforce)\n");
    assert!(!made.run("").stdout.contains("apparmor"));
    fs::create_dir(site.join("auth")).unwrap();
    made.finds("apparmor", "trouble", &["Dovecot's auth, and has no rule", "who is held"]);
    let rule = format!("{}/auth/** r,\n", site.display());
    made.put("etc/apparmor.d/local/usr.lib.dovecot.auth", &rule);
    made.finds("apparmor", "fine", &["dovecot/auth (enforce): it may read"]);
}

#[test]
fn who_is_over_his_quota_is_named_by_the_systems_own_program() {
    let made = MadeUp::ready();
    made.is_silent_of("quota");
    let device = made.here.0.path().metadata().unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let mount = |options: &str| {
        let line = format!("36 35 {major}:{minor} / /x rw,relatime - ext4 /dev/x {options}\n");
        made.put("proc/self/mountinfo", &line);
    };
    mount("rw,quotaless");
    made.is_silent_of("quota");
    mount("rw,usrjquota=aquota.user,jqfmt=vfsv1");
    let quota = |script: &str| write_program(&made.here.path("bin/quota"), script);
    let level = || {
        let path = format!("{}:/usr/bin:/bin", made.here.path("bin").display());
        let mut command = made.here.command(&made.args("--json"));
        let output = command.env("PATH", path).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let line = said.lines().find(|line| line.contains("\"about\":\"quota\""));
        line.unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    quota("#!/bin/sh\nexit 0\n");
    assert!(level().contains("nobody of the sample is over"), "{}", level());
    quota("#!/bin/sh\n[ \"$1 $2\" = '-q -u' ] || exit 0\necho 'Disk quotas: over'\nexit 1\n");
    assert!(level().contains("1 accounts are over their quota"), "{}", level());
    assert!(level().contains("alice@example.com"), "{}", level());
}

#[test]
fn settings_that_change_uidls_are_named() {
    let made = MadeUp::ready();
    let set = |name: &str, value: &str| made.here.write(&format!("conf/{name}"), value);
    made.finds("pop3_uidl_duplicates", "fine", &["allow"]);
    set("pop3_uidl_duplicates", "rename");
    made.finds("pop3_uidl_duplicates", "notice", &["downloaded again"]);
    made.here.write(
        "three.listing",
        "uidl-keep-listing 1\nmaildrop eve@example.com\nstate captured\n\
         1 a file=1\n2 a file=2\n.\n",
    );
    made.rebuild("one.listing three.listing");
    let words = ["repeated 1 UIDLs of eve@example.com"];
    made.finds("pop3_uidl_duplicates", "trouble", &words);
    set("pop3_reuse_xuidl", "yes");
    made.finds("pop3_reuse_xuidl", "notice", &["X-UIDL"]);
    set("maildir_very_dirty_syncs", "yes");
    made.finds("maildir_very_dirty_syncs", "notice", &["cur/"]);
    set("maildir_very_dirty_syncs", "no");
    made.finds("maildir_very_dirty_syncs", "fine", &["= no"]);

    set("pop3_uidl_format", "%{uid | hex(8)}-%{uidvalidity}");
    made.finds("pop3_uidl_format", "trouble", &["write: pop3_uidl_format = %08Xu-%v"]);
    made.here.write("conf/about", "# 2.4.1-4 (7d8c0e5759): /etc/dovecot/dovecot.conf\n");
    made.finds("pop3_uidl_format", "fine", &["%{uid | hex(8)}"]);
    set("pop3_uidl_format", "UID%u-%v");
    let words = ["does not start", "write: pop3_uidl_format = UID%{uid}-%{uidvalidity}"];
    made.finds("pop3_uidl_format", "trouble", &words);
}

#[test]
fn the_largest_maildrop_must_fit_into_the_address_space_of_pop3() {
    let made = MadeUp::ready();
    made.finds("vsz_limit", "fine", &["256 MB; alice@example.com has 2 messages"]);
    made.here.write("conf/service_pop3_vsz_limit", "18446744073709551615 B");
    made.finds("vsz_limit", "fine", &["256 MB"]);
    made.here.write("conf/service_pop3_vsz_limit", "20 M");
    made.finds("vsz_limit", "trouble", &["20 MB", "the login fails", "vsz_limit = 37 M"]);
    made.here.write("conf/service_pop3_vsz_limit", "0");
    made.finds("vsz_limit", "fine", &["no limit"]);
}

#[test]
fn a_capture_of_tomorrow_is_trouble() {
    let made = MadeUp::ready();
    made.finds("clock", "fine", &["the clock says"]);
    made.here.write(
        "late.listing",
        "uidl-keep-listing 1\nmaildrop bob@example.com\nstate captured\ntaken 9000000000\n\
         1 a file=1\n.\n",
    );
    made.rebuild("one.listing late.listing");
    made.finds("clock", "trouble", &["bob@example.com was captured at 2255-"]);
}

#[test]
fn a_second_name_of_a_migrated_maildrop_is_found_among_all_users() {
    let made = MadeUp::ready();
    made.finds("second_names", "notice", &["the user database lists nobody"]);
    made.here.write("conf/users", "alice@example.com\nbob@example.com\nbob@alias.example\n");
    made.finds("second_names", "fine", &["nobody reads"]);
    let mail = made.here.path("mail/bob@example.com").display().to_string();
    made.here.write("conf/mail.bob@alias.example", &mail);
    let words = ["bob@alias.example reads that of bob@example.com"];
    made.finds("second_names", "trouble", &words);
    // Another name in the same domain is looked for only among all.
    made.here.write("conf/users", "alice@example.com\nbob@example.com\ninfo@example.com\n");
    made.here.write("conf/mail.info@example.com", &mail);
    made.finds("second_names", "fine", &["nobody reads"]);
    let all = made.run("--all");
    assert!(
        all.stdout.contains("info@example.com reads that of bob@example.com"),
        "{}",
        all.stdout
    );
}

#[test]
fn a_file_of_the_site_that_is_missing_or_not_safe_is_named() {
    let made = MadeUp::ready();
    let site = made.site();
    made.finds("site", "fine", &["1 domains, 2 users"]);
    let index = site.join("domain/example.com.idx");
    fs::rename(&index, made.here.path("idx")).unwrap();
    made.finds("site", "trouble", &["example.com.idx: not there", "build and install it again"]);
    made.finds("access", "trouble", &["alice@example.com", "example.com.idx"]);
    fs::rename(made.here.path("idx"), &index).unwrap();
    fs::write(site.join("settings"), "uidl-keep-settings 1\nbake perhaps\n").unwrap();
    made.finds("access", "trouble", &["2 of 2 users", "settings", "perhaps"]);
    fs::remove_file(site.join("settings")).unwrap();
    fs::remove_file(site.join("domain/example.com.roster")).unwrap();
    made.finds("site", "trouble", &["example.com.roster: not there, but its index is"]);
    fs::remove_dir_all(&site).unwrap();
    made.finds("site", "trouble", &["POP3 refuses everybody"]);
    // Nobody is refused for it while POP3 does not load the plugin.
    made.here.write("conf/plugins", "mail_plugins = quota\n");
    made.finds("site", "notice", &["mount it, or make it"]);
    made.finds("mail_plugins", "notice", &["nobody was migrated yet"]);
}

#[test]
fn a_failed_capture_is_counted_and_a_sample_is_no_more_than_it_says() {
    let made = MadeUp::ready();
    made.here.write(
        "failed.listing",
        "uidl-keep-listing 1\nmaildrop carol@example.com\nstate failed\nremark x\n.\n",
    );
    made.rebuild("one.listing two.listing failed.listing");
    made.finds("site", "notice", &["capture of 1 maildrops failed; the first: carol@example.com"]);
    let some = made.run("--verbose --sample 1");
    assert!(some.stdout.contains("opened for 1 of 3 users"), "{}", some.stdout);
}

#[test]
fn cron_says_nothing_but_trouble() {
    let made = MadeUp::ready();
    made.here.write("conf/pop3_reuse_xuidl", "yes");
    // No plugin lies there, which is trouble.
    let ran = made.run("--cron");
    assert_eq!(ran.status, 2);
    assert!(ran.stdout.contains("trouble: plugin_file: "), "{}", ran.stdout);
    assert!(!ran.stdout.contains("notice") && !ran.stdout.contains("fine"), "{}", ran.stdout);
    // POP3 no longer loads it, and two maildrops were listed by nobody.
    made.here.write("conf/plugins", "mail_plugins = quota\n");
    let ran = made.run("--cron");
    assert_eq!(ran.status, 2, "{}", ran.stdout);
    assert!(ran.stdout.contains("2 of 2 maildrops depend on it"), "{}", ran.stdout);
    let downloads =
        made.here.run("release --site seen/var/lib/uidl-keep --redownload --no-check example.com");
    assert_eq!(downloads.status, 0, "{}", downloads.stderr);
    let ran = made.run("--cron");
    assert!(!ran.stdout.contains("mail_plugins"), "{}", ran.stdout);
}
