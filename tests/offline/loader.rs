//! The loader, in a program that is no Dovecot: what it loads, what it refuses, and who goes on.
//!
//! Dovecot's part is played by a library `libdovecot.so.0` that names an ABI, and a program that
//! loads modules as `module-dir.c` does. [tests/hosts/loader.rs] has the loader in real Dovecots.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use uidl_keep::dovecot::guard::name_of_process;

use crate::shared::{is_root, lacking};

const ABI: &str = "2.3.ABIv19";
const CANARY: &str = "uidl-keep-guard-1794749402@example.com";

/// Dovecot's library, as far as the loader knows it.
const LIBRARY: &str = r#"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
const char *dovecot_abi(void) { return ABI; }
#ifndef NO_SERVICE
static int service;
void *master_service = &service;
void master_service_stop_new_connections(void *service) { puts(service ? "the last" : "whose?"); }
#endif
static void say(const char *word, const char *format, va_list args)
{
	fprintf(stderr, "%s: ", word);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
}
void i_warning(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	say("Warning", format, args);
	va_end(args);
}
void i_error(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	say("Error", format, args);
	va_end(args);
}
void i_fatal(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	say("Fatal", format, args);
	va_end(args);
	exit(89);
}
"#;

/// A program that loads modules, the last of which is the loader.
const PROGRAM: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
#ifdef SERVES_POP3
void *pop3_client_created_hook_set(void *hook) { return hook; }
#endif
int main(int argc, char **argv)
{
	void *module = NULL;
	void (*preinit)(void), (*init)(void *), (*deinit)(void);
	const char **deps;
	int i;
	setvbuf(stdout, NULL, _IONBF, 0);
	for (i = 1; i < argc; i++) {
		module = dlopen(argv[i], RTLD_GLOBAL | RTLD_NOW);
		if (module == NULL) {
			puts(dlerror());
			return 3;
		}
	}
	*(void **)&preinit = dlsym(module, "uidl_keep_plugin_preinit");
	*(void **)&init = dlsym(module, "uidl_keep_plugin_init");
	*(void **)&deinit = dlsym(module, "uidl_keep_plugin_deinit");
	if (dlsym(module, "uidl_keep_plugin_version") != NULL)
		puts("a version");
#ifndef NO_PREINIT
	preinit();
#endif
#ifndef NO_DEPENDENCIES
	for (deps = dlsym(module, "uidl_keep_plugin_dependencies"); deps && *deps; deps++) {
		puts("refused");
		return 75;
	}
#endif
	puts("on");
	init(&argc);
	deinit();
	return 0;
}
"#;

/// A plugin that says who calls it.
const PLUGIN: &str = r#"
#include <stdio.h>
void uidl_keep_plugin_preinit(void) { puts("preinit"); }
void uidl_keep_plugin_init(void *module) { puts(module ? "init" : "init of nothing"); }
void uidl_keep_plugin_deinit(void) { puts("deinit"); }
"#;

struct Bench {
    dir: tempfile::TempDir,
    /// Arguments of the compiler for the loader, and for what it meets.
    flags: &'static [&'static str],
}

/// Dovecot does not go on with the login.
const REFUSED: (Option<i32>, &str) = (Some(75), "refused\n");

/// Everybody goes on; a plugin does the work.
const SERVED: &str = "preinit\non\ninit\ndeinit\n";

impl Bench {
    /// A program with a plugin that fits, somebody on a roster, and no guard. `None`, having said
    /// why, if it cannot be made.
    fn new() -> Option<Self> {
        Self::with(&[])
    }

    fn with(flags: &'static [&'static str]) -> Option<Self> {
        if !is_root() {
            lacking("only root has files that are root's");
            return None;
        }
        let bench = Self { dir: tempfile::tempdir().unwrap(), flags };
        for dir in ["dovecot", "bin", "lib/abi/2.3.ABIv19", "site/domain", "site/user", "site/auth"]
        {
            fs::create_dir_all(bench.path(dir)).unwrap();
        }
        fs::write(bench.path("site/domain/example.com.roster"), "").unwrap();
        // This process plays Dovecot's master, and its auth.
        bench.write("master.pid", &format!("{}\n", std::process::id()));
        bench.write("fstab", "");
        bench.library("2.3.ABIv19(2.3.19.1)");
        bench.program("pop3", &[]);
        bench.program("doveadm", &[]);
        bench.plugin(ABI, &["-DV=\"2.3.ABIv19(2.3.19)\""]);
        bench.loader();
        Some(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn compile(&self, to: &str, text: &str, args: &[String]) {
        let source = self.path("source.c");
        fs::write(&source, text).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-g", "-o"]).arg(self.path(to)).arg(&source).args(args);
        let output = cc.output().expect("a compiler");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Puts Dovecot's library in its place. It is never one that is checked itself: between its
    /// constants would be what nobody may read.
    fn library(&self, name: &str) {
        self.compile("dovecot/libdovecot.so.0", LIBRARY, &shared(&abi(name)));
    }

    fn program(&self, name: &str, args: &[&str]) {
        let dovecot = self.path("dovecot");
        let all = args.iter().chain(self.flags);
        let mut all: Vec<String> = all.map(|arg| (*arg).to_owned()).collect();
        all.extend(
            ["-rdynamic", "-Wl,--no-as-needed", "-l:libdovecot.so.0", "-ldl"].map(Into::into),
        );
        all.push(format!("-L{}", dovecot.display()));
        all.push(format!("-Wl,-rpath,{}", dovecot.display()));
        self.compile(&format!("bin/{name}"), PROGRAM, &all);
    }

    fn plugin_path(&self) -> PathBuf {
        self.path("lib/abi/2.3.ABIv19/lib95_uidl_keep_plugin.so")
    }

    /// Puts a plugin in the place of that ABI, with its version in `-DV=`, or without any.
    fn plugin(&self, place: &str, args: &[&str]) {
        fs::create_dir_all(self.path(&format!("lib/abi/{place}"))).unwrap();
        let version = "const char *uidl_keep_plugin_version = V;";
        let has = args.iter().any(|arg| arg.starts_with("-DV="));
        let text = if has { format!("{PLUGIN}{version}") } else { PLUGIN.to_owned() };
        let mut all = shared("");
        all.extend(args.iter().chain(self.flags).map(|arg| (*arg).to_owned()));
        self.compile(&format!("lib/abi/{place}/lib95_uidl_keep_plugin.so"), &text, &all);
    }

    /// Builds the loader as `make` does, for the places of this bench.
    fn loader(&self) {
        let path = |name: &str| self.path(name).display().to_string();
        let mut make = Command::new("make");
        make.args(["-s", "-C", env!("CARGO_MANIFEST_DIR"), "loader"]);
        make.arg(format!("LOADER={}", path("modules/lib95_uidl_keep_plugin.so")));
        make.arg(format!(
            r#"LOADER_PLACES=-DLIB=\"{}\" -DSITE=\"{}\" -DFSTAB=\"{}\" {}"#,
            path("lib"),
            path("site"),
            path("fstab"),
            self.flags.join(" ")
        ));
        let output = make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").output().expect("make");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn command(&self, program: &str, modules: &[&Path]) -> Command {
        let mut command = Command::new(self.path(&format!("bin/{program}")));
        command.args(modules).arg(self.path("modules/lib95_uidl_keep_plugin.so"));
        command
    }

    /// The same as Dovecot's master process starts it, for somebody whom auth has let in.
    fn of_master(&self, program: &str) -> Command {
        let mut command = self.command(program, &[]);
        command.env("DOVECOT_CHILD_PROCESS", "1");
        command
    }

    /// Insists that the program of that name is served by the plugin.
    #[track_caller]
    fn serves(&self, program: &str) {
        let ran = Ran::of(self.command(program, &[]).output().unwrap());
        assert_eq!((ran.status, ran.said.as_str(), ran.log.as_str()), (Some(0), SERVED, ""));
    }

    /// Insists that POP3 is refused, with one line that says this, and that another program goes on
    /// without a plugin, and says the same.
    #[track_caller]
    fn refuses(&self, words: &[&str]) {
        self.refuses_beside(&[], words);
    }

    #[track_caller]
    fn refuses_beside(&self, modules: &[&Path], words: &[&str]) {
        let mut pop3 = self.command("pop3", modules);
        let ran = Ran::of(pop3.env("DOVECOT_CHILD_PROCESS", "1").output().unwrap());
        assert_eq!((ran.status, ran.said.as_str()), REFUSED, "{}", ran.log);
        let every = ["Error: uidl-keep: ", "POP3 refuses everybody", "uidl-keep plugin status"];
        ran.logged(&[&every[..], words].concat());
        let ran = Ran::of(self.command("doveadm", modules).output().unwrap());
        assert_eq!((ran.status, ran.said.as_str()), (Some(0), "on\n"), "{}", ran.log);
        ran.logged(&[&["Warning: uidl-keep: ", "uidl-keep plugin status"][..], words].concat());
    }

    /// Insists that POP3 goes on without a plugin, for this login and no other.
    #[track_caller]
    fn goes_on(&self, words: &[&str]) {
        let ran = Ran::of(self.of_master("pop3").output().unwrap());
        assert_eq!((ran.status, ran.said.as_str()), (Some(0), "the last\non\n"), "{}", ran.log);
        ran.logged(&[&["Warning: uidl-keep: "][..], words].concat());
    }
}

struct Ran {
    status: Option<i32>,
    said: String,
    log: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |octets| String::from_utf8(octets).unwrap();
        Self { status: output.status.code(), said: text(output.stdout), log: text(output.stderr) }
    }

    /// Insists on one line that has all these words.
    #[track_caller]
    fn logged(&self, words: &[&str]) {
        assert_eq!(self.log.lines().count(), 1, "{}", self.log);
        for word in words {
            assert!(self.log.contains(word), "no {word:?} in {}", self.log);
        }
    }
}

fn shared(more: &str) -> Vec<String> {
    let args = ["-shared", "-fPIC", more].map(str::to_owned);
    args.into_iter().filter(|arg| !arg.is_empty()).collect()
}

fn abi(name: &str) -> String {
    format!("-DABI=\"{name}\"")
}

#[test]
fn the_plugin_of_the_abi_that_is_in_the_process_does_the_work() {
    let Some(bench) = Bench::new() else { return };
    bench.serves("pop3");
    bench.serves("doveadm");
    // It is chosen by the library that is there now.
    bench.library("2.4.ABIv1");
    bench.refuses(&["2.4.ABIv1", "/lib/abi/2.4.ABIv1: No such file"]);
    bench.plugin("2.4.ABIv1", &["-DV=\"2.4.ABIv1\""]);
    bench.serves("pop3");
    // A Dovecot that would not call preinit is served none the less.
    bench.program("pop3", &["-DNO_PREINIT"]);
    let ran = Ran::of(bench.command("pop3", &[]).output().unwrap());
    assert_eq!(ran.said, "on\npreinit\ninit\ndeinit\n", "{}", ran.log);
    // And where it goes on though it was told not to, it is ended.
    bench.library("2.3.ABIv19");
    fs::remove_file(bench.plugin_path()).unwrap();
    for way in ["-DNO_PREINIT", "-DNO_DEPENDENCIES"] {
        bench.program("pop3", &[way]);
        let ran = Ran::of(bench.command("pop3", &[]).output().unwrap());
        let is_told = ran.log.lines().last().unwrap().starts_with("Fatal: uidl-keep: ");
        assert!(ran.status == Some(89) && is_told, "{way}: {:?} {}", ran.status, ran.log);
    }
}

#[test]
fn what_does_not_fit_is_not_loaded() {
    let Some(bench) = Bench::new() else { return };
    for (version, word) in [
        (Some("2.3.ABIv21(2.3.21)"), "is for Dovecot 2.3.ABIv21(2.3.21)"),
        (Some("2.3.ABIv1"), "is for Dovecot 2.3.ABIv1 "),
        (Some("2.3.ABIv190"), "is for Dovecot 2.3.ABIv190"),
        (Some(""), "is for Dovecot  (this is"),
        (None, "lacks a symbol"),
    ] {
        let version = version.map(|version| format!("-DV=\"{version}\""));
        bench.plugin(ABI, &version.iter().map(String::as_str).collect::<Vec<_>>());
        bench.refuses(&[word, "2.3.ABIv19)", "lib95_uidl_keep_plugin.so"]);
    }
    let version = "-DV=\"2.3.ABIv19\"";
    bench.plugin(ABI, &[version, "-Duidl_keep_plugin_init=other"]);
    bench.refuses(&["lacks a symbol"]);
    bench.plugin(ABI, &[version, "-Duidl_keep_plugin_preinit=other"]);
    bench.refuses(&["lacks a symbol"]);
    // A function that this Dovecot does not have.
    bench.plugin(ABI, &[version, "-Dputs=mail_storage_of_the_future"]);
    bench.refuses(&["undefined symbol: mail_storage_of_the_future", ABI]);
    // The loader itself, which would load itself for ever.
    let loader = bench.path("modules/lib95_uidl_keep_plugin.so");
    fs::copy(&loader, bench.plugin_path()).unwrap();
    bench.refuses(&["lacks a symbol"]);
    fs::remove_file(bench.plugin_path()).unwrap();
    fs::hard_link(&loader, bench.plugin_path()).unwrap();
    bench.refuses(&["lacks a symbol"]);
    fs::remove_file(bench.plugin_path()).unwrap();
    bench.refuses(&["lib95_uidl_keep_plugin.so: No such file", ABI]);
    bench.plugin(ABI, &[version]);
    bench.serves("pop3");
}

#[test]
fn half_a_plugin_kills_no_program() {
    let Some(bench) = Bench::new() else { return };
    let whole = fs::read(bench.plugin_path()).unwrap();
    for len in [0, 1, 63, 64, 300, whole.len() / 4, whole.len() / 2] {
        fs::write(bench.plugin_path(), &whole[..len]).unwrap();
        bench.refuses(&["not a whole shared library", ABI]);
    }
    let mut other = whole.clone();
    other[..4].copy_from_slice(b"text");
    fs::write(bench.plugin_path(), &other).unwrap();
    bench.refuses(&["not a whole shared library"]);
    // Of another machine.
    let mut other = whole.clone();
    other[18] ^= 0x55;
    fs::write(bench.plugin_path(), &other).unwrap();
    bench.refuses(&["lib95_uidl_keep_plugin.so", ABI]);
    fs::write(bench.plugin_path(), &whole).unwrap();
    bench.serves("pop3");
}

#[test]
fn only_what_root_alone_can_have_put_there_is_loaded() {
    let Some(bench) = Bench::new() else { return };
    let plugin = bench.plugin_path();
    let away = bench.path("away");
    fs::rename(&plugin, &away).unwrap();
    symlink(&away, &plugin).unwrap();
    bench.refuses(&["lib95_uidl_keep_plugin.so: not a regular file"]);
    fs::remove_file(&plugin).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &plugin, 0o600.into()).unwrap();
    bench.refuses(&["not a regular file"]);
    fs::remove_file(&plugin).unwrap();
    fs::create_dir(&plugin).unwrap();
    bench.refuses(&["not a regular file"]);
    fs::remove_dir(&plugin).unwrap();
    fs::rename(&away, &plugin).unwrap();
    for place in ["lib", "lib/abi", "lib/abi/2.3.ABIv19"] {
        let (path, real) = (bench.path(place), bench.path("real"));
        fs::rename(&path, &real).unwrap();
        bench.refuses(&[place, ": No such file"]);
        symlink(&real, &path).unwrap();
        bench.refuses(&[place, ": not a directory"]);
        fs::remove_file(&path).unwrap();
        fs::rename(&real, &path).unwrap();
    }
    for place in
        ["lib", "lib/abi", "lib/abi/2.3.ABIv19", "lib/abi/2.3.ABIv19/lib95_uidl_keep_plugin.so"]
    {
        let path = bench.path(place);
        let mode = fs::metadata(&path).unwrap().permissions();
        for wrong in [0o775, 0o757] {
            fs::set_permissions(&path, Permissions::from_mode(wrong)).unwrap();
            bench.refuses(&[place, "not root's, or others may write it"]);
        }
        fs::set_permissions(&path, mode).unwrap();
        chown(&path, Some(5000), None).unwrap();
        bench.refuses(&[place, "not root's, or others may write it"]);
        chown(&path, Some(0), None).unwrap();
        bench.serves("pop3");
    }
}

#[test]
fn a_dovecot_that_names_no_abi_or_two_fits_nothing() {
    let Some(bench) = Bench::new() else { return };
    for odd in
        ["2.3.19", "2.3.ABIv", "2.3.ABIv19x", ".3.ABIv19", "2.3.ABIv19999999999999999999999999"]
    {
        bench.library(odd);
        bench.refuses(
            &["no ABI of Dovecot"].map(|word| if odd.len() > 30 { "ABI of Dovecot" } else { word }),
        );
    }
    bench.library("2.3.ABIv19");
    bench.serves("pop3");
    // The same twice is one name.
    fs::create_dir(bench.path("other")).unwrap();
    let other = bench.path("other/libdovecot.so.0");
    bench.compile("other/libdovecot.so.0", LIBRARY, &shared(&abi("2.3.ABIv19(2.3.19.1)")));
    let ran = Ran::of(bench.command("pop3", &[&other]).output().unwrap());
    assert_eq!(ran.said, SERVED, "{}", ran.log);
    bench.compile("other/libdovecot.so.0", LIBRARY, &shared(&abi("2.4.ABIv1")));
    bench.refuses_beside(&[&other], &["more than one ABI of Dovecot", ABI]);
    // A library of another name says nothing of Dovecot.
    let beside = bench.path("other/libdovecot-storage.so.0");
    fs::copy(&other, &beside).unwrap();
    let ran = Ran::of(bench.command("pop3", &[&beside]).output().unwrap());
    assert_eq!(ran.said, SERVED, "{}", ran.log);
    // Its text is in the program, and there is no libdovecot.
    let alone = bench.path("bin/pop3");
    bench.compile(
        "bin/pop3",
        &format!("{LIBRARY}{PROGRAM}"),
        &[abi("2.3.ABIv19(2.3.19.1)"), "-rdynamic".into(), "-ldl".into()],
    );
    let mut command = Command::new(alone);
    let ran =
        Ran::of(command.arg(bench.path("modules/lib95_uidl_keep_plugin.so")).output().unwrap());
    assert_eq!((ran.status, ran.said.as_str()), REFUSED, "{}", ran.log);
    ran.logged(&["Error: ", "no ABI of Dovecot"]);
}

#[test]
fn pop3_is_known_by_what_it_has_under_any_name() {
    let Some(bench) = Bench::new() else { return };
    fs::remove_file(bench.plugin_path()).unwrap();
    bench.program("renamed", &["-DSERVES_POP3"]);
    let ran = Ran::of(bench.command("renamed", &[]).output().unwrap());
    assert_eq!((ran.status, ran.said.as_str()), REFUSED, "{}", ran.log);
    for other in ["imap", "lmtp", "notpop3"] {
        bench.program(other, &[]);
        let ran = Ran::of(bench.command(other, &[]).output().unwrap());
        assert_eq!((ran.status, ran.said.as_str()), (Some(0), "on\n"), "{other}: {}", ran.log);
        ran.logged(&["Warning: ", "No such file"]);
    }
}

#[test]
fn pop3_goes_on_without_a_plugin_where_nobody_is_on_a_roster_for_certain() {
    let Some(bench) = Bench::new() else { return };
    fs::remove_file(bench.plugin_path()).unwrap();
    let roster = bench.path("site/domain/example.com.roster");
    fs::remove_file(&roster).unwrap();
    bench.goes_on(&["nobody is on a roster", "No such file", "uidl-keep plugin status"]);
    // Who runs the program himself gets a process of his own.
    let ran = Ran::of(bench.command("pop3", &[]).output().unwrap());
    assert_eq!((ran.status, ran.said.as_str()), (Some(0), "on\n"), "{}", ran.log);
    // One that would go on to serve others serves nobody.
    let alone = [shared(&abi("2.3.ABIv19")), vec!["-DNO_SERVICE".to_owned()]].concat();
    bench.compile("dovecot/libdovecot.so.0", LIBRARY, &alone);
    bench.refuses(&[]);
    bench.library(ABI);
    for left in ["domain/example.com.idx", "user/alice.roster", "user/alice.idx"] {
        let left = bench.path("site").join(left);
        fs::write(&left, "").unwrap();
        bench.refuses(&[]);
        fs::remove_file(&left).unwrap();
    }
    bench.goes_on(&[]);
    for part in ["site/domain", "site/user", "site"] {
        fs::rename(bench.path(part), bench.path("away")).unwrap();
        bench.refuses(&[]);
        fs::rename(bench.path("away"), bench.path(part)).unwrap();
    }
    bench.goes_on(&[]);
}

/// A process that is not this one, and lives as long.
fn another() -> u32 {
    std::os::unix::process::parent_id()
}

#[test]
fn a_site_whose_file_system_is_not_mounted_is_no_empty_site() {
    let Some(bench) = Bench::new() else { return };
    fs::remove_file(bench.plugin_path()).unwrap();
    fs::remove_file(bench.path("site/domain/example.com.roster")).unwrap();
    let dir = bench.path("").display().to_string();
    let dir = dir.trim_end_matches('/');
    for place in [format!("{dir}/site"), format!("{dir}/site/"), dir.to_owned()] {
        bench.write("fstab", &format!("# a file system\nnas:/site\t{place} nfs defaults 0 0\n"));
        bench.refuses(&[]);
        bench.write("fstab", &format!("#nas:/site {place} nfs defaults 0 0\n"));
        bench.goes_on(&["nobody is on a roster"]);
    }
    // It lies elsewhere.
    fs::rename(bench.path("site"), bench.path("el se")).unwrap();
    symlink(bench.path("el se"), bench.path("site")).unwrap();
    bench.goes_on(&[]);
    bench.write("fstab", &format!("/dev/sdb1 {dir}/el\\040se ext4 defaults 0 0\n"));
    bench.refuses(&[]);
    // Others, and the root itself, say nothing of it.
    let others = format!("/dev/sda1 / ext4 defaults 0 0\n/dev/sdb1 {dir}/el ext4 defaults 0 0\n");
    bench.write("fstab", &others);
    bench.goes_on(&[]);
    fs::remove_file(bench.path("fstab")).unwrap();
    bench.goes_on(&[]);
    fs::remove_file(bench.path("site")).unwrap();
    fs::rename(bench.path("el se"), bench.path("site")).unwrap();
    // What is mounted is the site, also where it is a part of the same file system.
    let elsewhere = bench.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let elsewhere = elsewhere.display().to_string();
    for (words, options) in [(["-t", "tmpfs", "none"], "x"), (["--bind", "--", &elsewhere], "bind")]
    {
        let mut mount = Command::new("mount");
        mount.args(words).arg(bench.path("site"));
        if !mount.status().is_ok_and(|status| status.success()) {
            lacking("nothing can be mounted");
            return;
        }
        bench.write("fstab", &format!("/dev/sdb1 {dir}/site ext4 {options} 0 0\n"));
        bench.refuses(&[]);
        for part in ["site/domain", "site/user"] {
            fs::create_dir(bench.path(part)).unwrap();
        }
        bench.goes_on(&[]);
        let mut umount = Command::new("umount");
        assert!(umount.arg("-l").arg(bench.path("site")).status().unwrap().success());
    }
}

/// Plays Dovecot's auth for as many connections as there are answers, each of which is given to
/// whoever asks in the right way.
fn auth(path: &Path, answers: Vec<&'static str>) -> thread::JoinHandle<Vec<String>> {
    auth_of(std::process::id(), path, answers)
}

/// The same, as that process.
fn auth_of(pid: u32, path: &Path, answers: Vec<&'static str>) -> thread::JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            assert_eq!(lines.next().unwrap().unwrap(), "VERSION\t1\t1");
            assert!(lines.next().unwrap().unwrap().starts_with("CPID\t"));
            let greeting =
                format!("VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t{pid}\nCUID\t1\nDO");
            let _ = stream.write_all(greeting.as_bytes());
            let _ = stream.write_all(b"NE\n");
            // Who is told of another process asks for nothing.
            let Some(Ok(line)) = lines.next() else { continue };
            asked.push(line);
            // It may have gone away, of an answer that is too long.
            let _ = stream.write_all(answer.as_bytes());
        }
        asked
    })
}

#[test]
fn pop3_goes_on_without_a_plugin_where_auth_says_that_it_refuses_the_migrated() {
    let Some(bench) = Bench::new() else { return };
    fs::remove_file(bench.plugin_path()).unwrap();
    let (stop, socket) = (bench.path("site/auth/stop-pop3"), bench.path("auth-client"));
    let head = |text: &str| {
        fs::write(&stop, text.replace("SOCKET", socket.to_str().unwrap())).unwrap();
    };
    let process = name_of_process(std::process::id()).unwrap();
    let on = format!("# uidl-keep-guard 1 SOCKET {process} {CANARY}\n");
    // Nobody is there to be asked.
    head(&on);
    bench.refuses(&[]);
    let yes = "OK\t1\tuser=uidl-keep-guard@example.com\tnologin\treason=[SYS/TEMP]\n";
    let late = "CONT\t1\t\nOK\t2\tuser=x\tnologin\treason=[SYS/TEMP]\nFAIL\t1\tuser=x\n";
    let long: &'static str = "x".repeat(100_000).leak();
    let answers = vec![
        yes,
        "FAIL\t1\tuser=x\n",
        "OK\t1\tuser=x\n",
        "OK\t1\tuser=x\tnologin\n",
        "OK\t1\tuser=x\treason=[SYS/TEMP]\n",
        "OK\t1\tuser=x\tnologin\treason=[SYS/TEMP]",
        late,
        "",
        long,
    ];
    let count = answers.len();
    let auth = auth(&socket, answers);
    bench.goes_on(&["auth refuses the migrated at POP3", "uidl-keep plugin status"]);
    for _ in 1..count {
        let ran = Ran::of(bench.of_master("pop3").output().unwrap());
        assert_eq!((ran.status, ran.said.as_str()), REFUSED, "{}", ran.log);
    }
    let asked = auth.join().unwrap();
    assert_eq!(asked.len(), count);
    // PLAIN's response: a NUL, the user, a NUL, and a password.
    let wanted = "resp=AHVpZGwta2VlcC1ndWFyZC0xNzk0NzQ5NDAyQGV4YW1wbGUuY29tAHg=";
    assert!(asked.iter().all(|line| line.ends_with(wanted)), "{asked:?}");
    assert!(asked[0].starts_with("AUTH\t1\tPLAIN\tservice=pop3\tprotocol=pop3\t"), "{asked:?}");

    fs::remove_file(&socket).unwrap();
    // None of these is a guard, and auth is not asked: it would have no answer left.
    let auth = self::auth(&socket, vec![yes]);
    for odd in [
        String::new(),
        format!("# uidl-keep-guard 0 SOCKET {process} {CANARY}\n"),
        format!("# uidl-keep-guard 1 SOCKET {process} {CANARY}"),
        format!("# uidl-keep-guard 1 SOCKET {process} {CANARY} more\n"),
        format!("# uidl-keep-guard 1 SOCKET {process}\n"),
        format!("# uidl-keep-guard 1 SOCKET {CANARY}\n"),
        "# uidl-keep-guard 1 SOCKET\n".to_owned(),
        format!("\n{on}"),
        format!("# uidl-keep-guard 1 SOCKET {process} {}\n", "x".repeat(300)),
        format!("# uidl-keep-guard 1 SOCKET {} {CANARY}\n", "x".repeat(300)),
    ] {
        head(&odd);
        bench.refuses(&[]);
    }
    head(&on);
    fs::set_permissions(&stop, Permissions::from_mode(0o660)).unwrap();
    bench.refuses(&[]);
    fs::set_permissions(&stop, Permissions::from_mode(0o640)).unwrap();
    chown(&stop, Some(5000), None).unwrap();
    bench.refuses(&[]);
    chown(&stop, Some(0), None).unwrap();
    fs::rename(&stop, bench.path("away")).unwrap();
    symlink(bench.path("away"), &stop).unwrap();
    bench.refuses(&[]);
    fs::rename(bench.path("away"), &stop).unwrap();
    // Nobody has asked auth about the user of a program that he runs himself.
    let ran = Ran::of(bench.command("pop3", &[]).output().unwrap());
    assert_eq!((ran.status, ran.said.as_str()), REFUSED, "{}", ran.log);
    // Another master has let in who comes here.
    for other in [format!("{}\n", another()), format!("{}0\n", std::process::id()), String::new()] {
        bench.write("master.pid", &other);
        bench.refuses(&[]);
    }
    fs::remove_file(bench.path("master.pid")).unwrap();
    bench.refuses(&[]);
    bench.write("master.pid", &format!("{}\n", std::process::id()));
    bench.goes_on(&["auth refuses the migrated"]);
    auth.join().unwrap();
}

#[test]
fn pop3_refuses_where_auth_is_not_the_process_for_which_the_guard_was_proven() {
    let Some(bench) = Bench::new() else { return };
    fs::remove_file(bench.plugin_path()).unwrap();
    let (stop, socket) = (bench.path("site/auth/stop-pop3"), bench.path("auth-client"));
    let yes = "OK\t1\tuser=uidl-keep-guard@example.com\tnologin\treason=[SYS/TEMP]\n";
    let own = name_of_process(std::process::id()).unwrap();
    let other = name_of_process(another()).unwrap();
    let words: Vec<&str> = own.split(':').collect();
    let earlier = format!("{}:{}:{}", words[0], words[1].parse::<u64>().unwrap() - 1, words[2]);
    let boot = format!("{}:{}:{}", words[0], words[1], "0".repeat(36));
    for (pid, proven) in [
        (another(), &own),
        (std::process::id(), &other),
        (std::process::id(), &earlier),
        (std::process::id(), &boot),
        (u32::MAX, &own),
    ] {
        let auth = auth_of(pid, &socket, vec![yes]);
        fs::write(&stop, format!("# uidl-keep-guard 1 {} {proven} {CANARY}\n", socket.display()))
            .unwrap();
        let ran = Ran::of(bench.of_master("pop3").output().unwrap());
        assert_eq!((ran.status, ran.said.as_str()), REFUSED, "{pid} {proven}: {}", ran.log);
        assert_eq!(auth.join().unwrap(), [""; 0], "{pid} {proven}");
        fs::remove_file(&socket).unwrap();
    }
    for (pid, proven) in [(another(), &other), (std::process::id(), &own)] {
        let auth = auth_of(pid, &socket, vec![yes]);
        fs::write(&stop, format!("# uidl-keep-guard 1 {} {proven} {CANARY}\n", socket.display()))
            .unwrap();
        bench.goes_on(&["auth refuses the migrated"]);
        auth.join().unwrap();
        fs::remove_file(&socket).unwrap();
    }
}

#[test]
fn the_loader_makes_no_memory_error() {
    let Some(bench) = Bench::with(&["-fsanitize=address,undefined"]) else { return };
    bench.serves("pop3");
    let whole = fs::read(bench.plugin_path()).unwrap();
    for len in [0, 64, whole.len() / 2] {
        fs::write(bench.plugin_path(), &whole[..len]).unwrap();
        bench.refuses(&["not a whole shared library"]);
    }
    fs::write(bench.plugin_path(), &whole).unwrap();
    bench.plugin(ABI, &["-DV=\"2.4.ABIv1\""]);
    bench.refuses(&["is for Dovecot 2.4.ABIv1"]);
    let (stop, socket) = (bench.path("site/auth/stop-pop3"), bench.path("auth-client"));
    let long = "OK\t1\tuser=x\tnologin\treason=[SYS/TEMP]\n";
    let (user, process) = ("u".repeat(255), name_of_process(std::process::id()).unwrap());
    let auth = auth(&socket, vec![long]);
    fs::write(&stop, format!("# uidl-keep-guard 1 {} {process} {user}\n", socket.display()))
        .unwrap();
    bench.goes_on(&["auth refuses the migrated"]);
    auth.join().unwrap();
}

#[test]
fn the_loader_that_is_built_looks_into_the_places_of_the_packages() {
    let dir = tempfile::tempdir().unwrap();
    let loader = dir.path().join("loader.so");
    let mut make = Command::new("make");
    make.args(["-s", "-C", env!("CARGO_MANIFEST_DIR"), "loader"]);
    make.arg(format!("LOADER={}", loader.display()));
    assert!(make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").status().unwrap().success());
    let octets = fs::read(&loader).unwrap();
    for place in [
        format!("{}\0", uidl_keep::abi::AT_HAND),
        format!("{}/auth/stop-pop3\0", uidl_keep::site::Site::DEFAULT_DIR),
    ] {
        assert!(memchr::memmem::find(&octets, place.as_bytes()).is_some(), "{place}");
    }
    let module = uidl_keep::abi::Module::of(&loader).unwrap();
    assert_eq!(module, uidl_keep::abi::Module::Loader);
}
