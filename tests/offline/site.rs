//! Opening the files of a site: what is there, what is not, and what cannot be told.

use std::fs::{self, Permissions};

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use uidl_keep::site::{OpenError, Root, Settings, Site};

/// A site with one roster, `example.com`.
fn site() -> (tempfile::TempDir, Site) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["domain", "user"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let site = Site::new(dir.path());
    let roster = site.paths("alice@example.com").unwrap().roster;
    fs::write(&roster, "a roster").unwrap();
    set_mode(&roster, 0o640);
    (dir, site)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Holds a root as a plugin holds it: for as long as the process lives.
fn held(root: Root) -> &'static Root {
    Box::leak(Box::new(root))
}

#[test]
fn a_user_without_a_roster_was_never_migrated() {
    let (_dir, site) = site();
    assert!(site.open_roster("alice@example.com").unwrap().is_some());
    for user in ["alice@example.net", "alice", "", "/", "a@..", "x@a/b"] {
        assert!(site.open_roster(user).unwrap().is_none(), "{user:?}");
        assert!(site.open_index(user).unwrap().is_none(), "{user:?}");
    }
}

#[test]
fn a_site_that_is_not_mounted_is_not_taken_for_one_without_the_user() {
    let (dir, site) = site();
    fs::rename(dir.path().join("domain"), dir.path().join("elsewhere")).unwrap();
    let unmounted = Site::new(dir.path().join("not made"));
    for (site, user) in [
        (&site, "alice@example.com"),
        (&site, "alice@example.net"),
        (&unmounted, "alice@example.com"),
        (&unmounted, "alice"),
    ] {
        let opened = site.open_roster(user);
        assert!(matches!(opened, Err(OpenError::NoSite { .. })), "{user}: {opened:?}");
    }
    assert!(site.open_roster("alice").unwrap().is_none());

    // Something else stands in the place of the directory.
    fs::write(dir.path().join("domain"), "").unwrap();
    let opened = site.open_roster("alice@example.com");
    assert!(matches!(opened, Err(OpenError::Io(_))), "{opened:?}");
}

#[test]
fn a_roster_that_was_lost_is_not_taken_for_one_that_never_was() {
    let (_dir, site) = site();
    let paths = site.paths("alice@example.com").unwrap();
    fs::rename(&paths.roster, &paths.index).unwrap();
    let opened = site.open_roster("alice@example.com");
    assert!(matches!(opened, Err(OpenError::NoRoster { .. })), "{opened:?}");
    fs::remove_file(&paths.index).unwrap();
    assert!(site.open_roster("alice@example.com").unwrap().is_none());
}

#[test]
fn what_is_no_file_of_roots_is_refused_and_not_waited_for() {
    let (_dir, site) = site();
    let path = |user: &str| site.paths(user).unwrap().roster;
    let roster = path("alice@example.com");

    symlink(&roster, path("a@link")).unwrap();
    let opened = site.open_roster("a@link");
    assert!(matches!(opened, Err(OpenError::Link)), "{opened:?}");

    mknodat(CWD, path("a@fifo"), FileType::Fifo, Mode::from(0o600), 0).unwrap();
    assert!(matches!(site.open_roster("a@fifo"), Err(OpenError::NotAFile)));
    fs::create_dir(path("a@dir")).unwrap();
    assert!(matches!(site.open_roster("a@dir"), Err(OpenError::NotAFile)));

    for mode in [0o660, 0o602, 0o666] {
        set_mode(&roster, mode);
        let opened = site.open_roster("alice@example.com");
        assert!(matches!(opened, Err(OpenError::Writable { mode: m }) if m == mode), "{opened:?}");
    }
    set_mode(&roster, 0o640);

    let file = fs::File::options().write(true).open(&roster).unwrap();
    file.set_len((1 << 32) + 1).unwrap();
    let opened = site.open_roster("alice@example.com");
    assert!(matches!(opened, Err(OpenError::TooLarge { .. })), "{opened:?}");
}

#[test]
fn a_file_of_another_user_is_refused() {
    let (_dir, site) = site();
    let roster = site.paths("alice@example.com").unwrap().roster;
    if roster.metadata().unwrap().uid() != 0 {
        eprintln!("skipped: only root can give a file away");
        return;
    }
    std::os::unix::fs::chown(&roster, Some(65_534), None).unwrap();
    let opened = site.open_roster("alice@example.com");
    assert!(matches!(opened, Err(OpenError::Owner { uid: 65_534 })), "{opened:?}");
}

/// A root directory with a site in it, as a process in a chroot has left it. The plugin follows
/// links of root's alone: `None`, having said so, for anybody else.
fn outside() -> Option<(tempfile::TempDir, Site)> {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    for name in ["srv/site/domain", "srv/site/user", "etc", "var/lib"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    fs::write(at("srv/site/domain/example.com.roster"), "a roster").unwrap();
    set_mode(&at("srv/site/domain/example.com.roster"), 0o640);
    symlink("/srv/site", at("var/lib/uidl-keep")).unwrap();
    if dir.path().metadata().unwrap().uid() != 0 {
        eprintln!("skipped: only root makes links that the plugin follows");
        return None;
    }
    let root = Root::hold(dir.path()).unwrap();
    Some((dir, Site::below(held(root), "/var/lib/uidl-keep")))
}

#[test]
fn a_site_is_found_from_the_root_that_was_left_by_its_links_too() {
    let Some((dir, site)) = outside() else { return };
    assert!(site.open_roster("alice@example.com").unwrap().is_some());
    assert!(site.open_roster("alice@example.net").unwrap().is_none());
    assert!(site.open_index("alice@example.com").unwrap().is_none());
    // Files of his own go first, one of them alone as well.
    let own = dir.path().join("srv/site/user/alice@example.com.idx");
    fs::write(&own, "an index").unwrap();
    let opened = site.open_roster("alice@example.com");
    assert!(matches!(opened, Err(OpenError::NoRoster { .. })), "{opened:?}");
    assert!(site.open_roster("bob@example.com").unwrap().is_some());
    fs::remove_file(&own).unwrap();
    let roster = dir.path().join("srv/site/domain/example.com.roster");
    fs::rename(&roster, dir.path().join("srv/site/domain/example.com.idx")).unwrap();
    let opened = site.open_roster("alice@example.com");
    assert!(matches!(opened, Err(OpenError::NoRoster { .. })), "{opened:?}");
    // The site is found by its name each time, not by what was there once.
    fs::rename(dir.path().join("srv/site"), dir.path().join("srv/away")).unwrap();
    let opened = site.open_roster("alice@example.com");
    assert!(matches!(opened, Err(OpenError::NoSite { .. })), "{opened:?}");
}

#[test]
fn a_bare_directory_is_an_empty_site_unless_something_is_to_be_mounted_there() {
    let Some((dir, _)) = outside() else { return };
    let place = dir.path().join("srv/site");
    fs::remove_dir_all(&place).unwrap();
    fs::create_dir(&place).unwrap();
    let site = Site::below(held(Root::hold(dir.path()).unwrap()), "/srv/site");
    for user in ["alice@example.com", "alice"] {
        assert!(site.open_roster(user).unwrap().is_none(), "{user}");
    }
    let fstab = dir.path().join("etc/fstab");
    // Nothing was put in it; an installation made it, and empty; it was used.
    for content in [&[][..], &["domain", "user"], &["domain", "user", ".lock", "changes.log"]] {
        content.iter().for_each(|name| fs::create_dir(place.join(name)).unwrap());
        for (line, awaits) in [
            ("host:/x /srv/site nfs defaults 0 0", Some("/srv/site")),
            ("# a comment\nhost:/x\t/srv/site/  nfs", Some("/srv/site")),
            ("UUID=1 / ext4\nhost:/x /srv nfs", Some("/srv")),
            ("host:/x /\\163rv nfs", Some("/srv")),
            ("UUID=1 / ext4\nUUID=2 none swap sw 0 0", None),
            ("#host:/x /srv/site nfs", None),
            ("host:/x /srv/site2 nfs\nhost:/x /elsewhere nfs\n\n\n", None),
        ] {
            fs::write(&fstab, line).unwrap();
            for user in ["alice@example.com", "alice"] {
                match (site.open_roster(user), awaits) {
                    (Ok(None), None) => {}
                    (Err(OpenError::NotMounted { place }), Some(named)) => {
                        assert_eq!(place, Path::new(named), "{line}");
                    }
                    (opened, _) => panic!("{content:?}, {line}, {user}: {opened:?}"),
                }
            }
        }
        content.iter().for_each(|name| fs::remove_dir(place.join(name)).unwrap());
    }
    fs::remove_file(&fstab).unwrap();
    let linked = Site::below(held(Root::hold(dir.path()).unwrap()), "/var/lib/uidl-keep");
    let opened = linked.open_roster("alice@example.com");
    assert!(matches!(opened, Err(OpenError::NoSite { .. })), "by a link: {opened:?}");
    for content in ["domain", "user", ".lock", "changes.log", "settings"] {
        fs::create_dir(place.join(content)).unwrap();
        let user = if content == "domain" { "alice" } else { "alice@example.com" };
        let opened = site.open_roster(user);
        assert!(matches!(opened, Err(OpenError::NoSite { .. })), "{content}: {opened:?}");
        fs::remove_dir(place.join(content)).unwrap();
    }
}

/// A link leads to a mount point, and `/etc/fstab` names that by its own name, or by the link's.
#[test]
fn a_mount_that_is_missing_behind_a_link_refuses_whoever_is_on_no_roster() {
    let Some((dir, site)) = outside() else { return };
    let fstab = dir.path().join("etc/fstab");
    for line in ["host:/x /srv/site nfs", "host:/x /srv nfs", "host:/x /var/lib/uidl-keep nfs"] {
        fs::write(&fstab, line).unwrap();
        let opened = site.open_roster("alice@example.net");
        assert!(matches!(opened, Err(OpenError::NotMounted { .. })), "{line}: {opened:?}");
        assert!(site.open_roster("alice@example.com").unwrap().is_some(), "he is on the roster");
    }
    // It is not known what fstab has: that is enough for a site that was never used.
    fs::remove_file(&fstab).unwrap();
    symlink("fstab", &fstab).unwrap();
    let opened = site.open_roster("alice@example.net");
    assert!(matches!(opened, Err(OpenError::Fstab(_))), "{opened:?}");
    fs::write(dir.path().join("srv/site/changes.log"), "").unwrap();
    assert!(site.open_roster("alice@example.net").unwrap().is_none());
}

/// A part of the same file system is mounted there: its device is no other.
#[test]
fn a_site_that_is_mounted_by_bind_is_mounted() {
    const NAME: &str = "a_site_that_is_mounted_by_bind_is_mounted";
    if std::env::var_os("UIDL_KEEP_TEST_MOUNTS").is_none() {
        let mut alone = Command::new("unshare");
        alone.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
        alone
            .args(["--exact", &format!("{}::{NAME}", module_path!().rsplit("::").next().unwrap())]);
        let ran = alone.arg("--nocapture").env("UIDL_KEEP_TEST_MOUNTS", "1").output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
        if said.contains("unshare failed") || said.contains("cannot change root filesystem") {
            eprintln!("skipped: no mounts of one's own here: {said}");
            return;
        }
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let Some((dir, site)) = outside() else { return };
    fs::write(dir.path().join("etc/fstab"), "/other /srv none bind 0 0\n").unwrap();
    fs::create_dir(dir.path().join("other")).unwrap();
    let place = dir.path().join("srv");
    assert!(matches!(site.open_roster("bob@example.net"), Err(OpenError::NotMounted { .. })));
    fs::create_dir_all(dir.path().join("other/site/domain")).unwrap();
    fs::create_dir_all(dir.path().join("other/site/user")).unwrap();
    let mount = |args: &[&Path]| Command::new("mount").arg("--bind").args(args).status().unwrap();
    assert!(mount(&[&dir.path().join("other"), &place]).success());
    let opened = site.open_roster("bob@example.net");
    assert!(Command::new("umount").arg(&place).status().unwrap().success());
    assert!(opened.unwrap().is_none());
}

#[test]
fn a_site_behind_a_link_that_is_not_roots_is_refused() {
    let Some((dir, site)) = outside() else { return };
    let (state, link) = (dir.path().join("var/lib"), dir.path().join("var/lib/uidl-keep"));
    fs::remove_file(&link).unwrap();
    symlink("../../srv/site", &link).unwrap();
    let give = |path: &Path, uid| std::os::unix::fs::lchown(path, Some(uid), None).unwrap();
    // The helper follows the same ones, by another name.
    let named = Site::new(&link);
    for path in [&link, &state] {
        give(path, 65_534);
        for (site, place) in [(&site, Path::new("/var/lib/uidl-keep")), (&named, &link)] {
            let opened = site.open_roster("alice@example.com").unwrap_err();
            match &opened {
                OpenError::ForeignLink { link, uid } => {
                    assert_eq!((&**link, *uid), (place, 65_534), "{opened}");
                }
                _ => panic!("{opened:?}"),
            }
            assert!(site.settings().unwrap_err().contains("uid 65534 could put another there"));
        }
        give(path, 0);
    }
    set_mode(&state, 0o777);
    let opened = site.open_roster("bob@example.com");
    assert!(matches!(opened, Err(OpenError::OpenLink { .. })), "{opened:?}");
    set_mode(&state, 0o755);
    for site in [&site, &named] {
        assert!(site.open_roster("alice@example.com").unwrap().is_some());
    }
    // It leads nowhere, as before its file system is mounted.
    fs::remove_file(&link).unwrap();
    symlink("/srv/elsewhere", &link).unwrap();
    let opened = site.open_roster("alice@example.com");
    assert!(matches!(opened, Err(OpenError::NoSite { .. })), "{opened:?}");
}

#[test]
fn settings_are_those_of_the_file_or_the_defaults_and_never_a_guess() {
    let (dir, site) = site();
    let path = dir.path().join("settings");
    assert_eq!(site.settings().unwrap().of("alice@example.com"), Settings::default());
    fs::write(&path, "uidl-keep-settings 1\n@example.com order no\n").unwrap();
    let settings = site.settings().unwrap();
    assert!(!settings.of("alice@example.com").order && settings.of("alice@example.net").order);

    let refused = |why: &str| {
        let said = site.settings().unwrap_err();
        let place = path.display().to_string();
        assert!(said.starts_with(&place) && said.contains(why) && said.contains("; "), "{said}");
    };
    set_mode(&path, 0o664);
    refused("mode 0664");
    set_mode(&path, 0o644);
    fs::write(&path, "uidl-keep-settings 1\norder maybe\n").unwrap();
    refused("line 2: order takes yes or no, and not \"maybe\"; correct it");
    fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    refused("octets, more than");
    fs::rename(&path, dir.path().join("elsewhere")).unwrap();
    symlink(dir.path().join("elsewhere"), &path).unwrap();
    refused("a symbolic link");
    fs::remove_dir_all(dir.path()).unwrap();
    refused("no directory");
}
