//! The files of a Dovecot's configuration, and which of them name the plugin: [`files`].
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::doctor::machine::Machine;
use crate::dovecot::PLUGIN;

/// More than any configuration has.
const MOST_FILES: usize = 1000;

/// The files that make up a configuration, in the order in which Dovecot reads them.
///
/// # Errors
///
/// What the system says of a file, or a pattern of names that is not understood.
pub fn files(machine: &Machine, conf: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    read(machine, conf, &mut found, &mut seen)?;
    Ok(found)
}

fn read(
    machine: &Machine,
    path: &Path,
    found: &mut Vec<PathBuf>,
    seen: &mut BTreeSet<PathBuf>,
) -> io::Result<()> {
    // A file may include itself by another name.
    let real = machine.path(path).canonicalize().unwrap_or_else(|_| path.to_owned());
    if found.len() >= MOST_FILES || !seen.insert(real) {
        return Ok(());
    }
    let Some(text) = machine.text(path)? else { return Ok(()) };
    found.push(path.to_owned());
    let dir = path.parent().unwrap_or(Path::new("/"));
    for line in text.lines().map(str::trim_start) {
        let named = ["!include_try", "!include"].iter().find_map(|word| line.strip_prefix(word));
        let Some(named) = named.filter(|rest| rest.starts_with([' ', '\t'])) else { continue };
        for file in expanded(machine, &dir.join(named.trim()))? {
            read(machine, &file, found, seen)?;
        }
    }
    Ok(())
}

/// The files that a name with `*` in its last part stands for.
fn expanded(machine: &Machine, pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let name = pattern.file_name().map(|name| name.to_string_lossy().into_owned());
    let dir = pattern.parent().unwrap_or(Path::new("/"));
    let name = name.unwrap_or_default();
    let Some((start, end)) = name.split_once('*') else { return Ok(vec![pattern.to_owned()]) };
    if end.contains(['*', '?', '[']) || start.contains(['?', '[']) || has_pattern(dir) {
        let what = format!("{}: only one * in a file name is understood", pattern.display());
        return Err(io::Error::other(what));
    }
    let names = machine.names(dir, end)?;
    let names = names.iter().filter(|name| name.starts_with(start));
    Ok(names.map(|name| dir.join(name)).collect())
}

fn has_pattern(dir: &Path) -> bool {
    dir.to_string_lossy().contains(['*', '?', '['])
}

/// Whether a line of a configuration names the plugin.
pub fn names_plugin(text: &str) -> bool {
    let code = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let is_of_name = |char: char| char.is_alphanumeric() || char == '_';
    code.flat_map(|line| line.split(|char| !is_of_name(char))).any(|word| word == PLUGIN)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_are_found_as_dovecot_reads_them_and_comments_name_nothing() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "etc/dovecot/dovecot.conf",
            "protocols = pop3\n!include conf.d/*.conf\n#!include no.conf\n\
             !include_try local.conf\n!include_try /srv/none.conf\n",
        );
        write("etc/dovecot/conf.d/20-pop3.conf", "!include ../dovecot.conf\n");
        write("etc/dovecot/conf.d/10-mail.conf", "mail_plugins = uidl_keep_not\n");
        write("etc/dovecot/conf.d/10-mail.conf.dpkg-old", "mail_plugins = uidl_keep\n");
        write("etc/dovecot/local.conf", "x\n");
        write("etc/dovecot/no.conf", "x\n");
        let machine = Machine::at(root.path());
        let conf = Path::new("/etc/dovecot/dovecot.conf");
        let names: Vec<String> = files(&machine, conf)
            .unwrap()
            .iter()
            .map(|path| path.display().to_string().replace("/etc/dovecot/", ""))
            .collect();
        let expected = ["dovecot.conf", "conf.d/10-mail.conf", "conf.d/20-pop3.conf", "local.conf"];
        assert_eq!(names, expected);

        assert!(names_plugin("protocol pop3 {\n  mail_plugins = $mail_plugins uidl_keep\n}\n"));
        assert!(names_plugin("mail_plugins {\n  uidl_keep=yes\n}\n"));
        assert!(!names_plugin("# mail_plugins = uidl_keep\nuidl_keep_dir = /x\n"));
    }
}
