//! Whether the plugin that POP3 loads is for the Dovecot of this machine: [`Fit`].

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Dovecot, DovecotError, PLUGIN, Pop3Plugins, plugins_in};
use crate::abi::{self, Abi, AbiError, LIBRARY, Module};

/// A plugin that is at hand for one ABI, and what keeps the loader from it, if anything does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtHand {
    /// The ABI that its directory is named for.
    pub abi: Abi,
    /// Why it would not be loaded.
    pub fault: Option<String>,
}

/// What lies where Dovecot looks for its plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lying {
    /// No file that Dovecot would take for ours.
    Nothing,
    /// One that Dovecot can load.
    Module(PathBuf, Module),
    /// Something that Dovecot cannot load, and why.
    Fault(PathBuf, String),
}

/// Dovecot, the plugins there are, and what POP3 loads.
#[derive(Debug)]
pub struct Fit {
    /// Dovecot's own library, which says for which ABI a plugin must be.
    pub library: Option<PathBuf>,
    /// The ABI of that library, or why it is not known.
    pub server: Result<Abi, String>,
    /// The plugins at hand for the loader.
    pub at_hand: Vec<AtHand>,
    /// The directory in which POP3 looks for plugins.
    pub module_dir: PathBuf,
    /// What lies there.
    pub lying: Lying,
    /// The plugins that POP3 loads, as Dovecot's configuration names them.
    pub mail_plugins: Vec<String>,
}

/// Whether POP3 loads a plugin that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FitVerdict {
    /// It does.
    Fits,
    /// There is one that fits, and POP3 does not load it.
    NotLoaded,
    /// None that fits is where it must be, for this reason.
    DoesNotFit(String),
    /// It cannot be told, for this reason.
    CouldNotTell(String),
}

impl Fit {
    /// The plugin at hand for this server.
    pub fn at_hand_for_server(&self) -> Option<&AtHand> {
        let server = self.server.as_ref().ok()?;
        self.at_hand.iter().find(|at_hand| at_hand.abi == *server)
    }

    /// Whether POP3 loads us, by Dovecot's configuration.
    pub fn is_loaded(&self) -> bool {
        self.mail_plugins.iter().any(|name| name == PLUGIN)
    }

    /// Whether POP3 loads a plugin that fits, and if not, why.
    pub fn verdict(&self) -> FitVerdict {
        let server = match &self.server {
            Ok(server) => server,
            Err(why) => return FitVerdict::CouldNotTell(why.clone()),
        };
        let does_not = match &self.lying {
            Lying::Nothing => {
                Some(format!("{}: no {} there", self.module_dir.display(), abi::PLUGIN_FILE))
            }
            Lying::Fault(path, why) => Some(format!("{}: {why}", path.display())),
            Lying::Module(_, Module::Plugin(abi)) if abi == server => None,
            Lying::Module(path, Module::Plugin(abi)) => {
                Some(format!("{}: it is for Dovecot {abi}, and this is {server}", path.display()))
            }
            Lying::Module(_, Module::Loader) => match self.at_hand_for_server() {
                None => Some(format!(
                    "{}: there is none, and this is Dovecot {server}",
                    server.plugin_at_hand().display()
                )),
                Some(at_hand) => at_hand.fault.clone(),
            },
        };
        match does_not {
            Some(why) => FitVerdict::DoesNotFit(why),
            None if self.is_loaded() => FitVerdict::Fits,
            None => FitVerdict::NotLoaded,
        }
    }
}

impl Dovecot {
    /// Looks at Dovecot's library, at the plugins there are, and at what POP3 loads. Cost: two runs
    /// of `doveconf`; each library and plugin is read.
    ///
    /// # Errors
    ///
    /// [`DovecotError`], when `doveconf` gives no answer. A library or a plugin that says nothing
    /// is no error here.
    pub fn fit(&self) -> Result<Fit, DovecotError> {
        let program = in_path(&self.doveadm);
        let (library, server) = match abi::library_of(&program) {
            Ok(Some(library)) => {
                let abi = Abi::of_library(&library);
                let server = abi.map_err(|error| format!("{}: {error}", library.display()));
                (Some(library), server)
            }
            Ok(None) => {
                let why = "no such file beside it: name this Dovecot's doveadm with --doveadm";
                (None, Err(format!("{LIBRARY} of {}: {why}", program.display())))
            }
            Err(error) => (None, Err(format!("{}: {error}", program.display()))),
        };
        let said = self.doveconf(&["-f", "protocol=pop3", "mail_plugins"])?;
        let others = plugins_in(&said).into_iter().filter(|&name| name != PLUGIN);
        let ours = matches!(self.pop3_loads()?, Pop3Plugins::Loaded).then_some(PLUGIN);
        let mail_plugins = others.chain(ours).map(str::to_owned).collect();
        let setting = "mail_plugin_dir";
        let module_dir = self.setting(&["-f", "protocol=pop3", setting], setting)?;
        let module_dir = PathBuf::from(module_dir.unwrap_or_default());
        let lying = lying_in(&module_dir);
        let at_hand = at_hand_in(Path::new(abi::AT_HAND));
        Ok(Fit { library, server, at_hand, module_dir, lying, mail_plugins })
    }
}

/// The program that a shell would run by that name.
fn in_path(program: &Path) -> PathBuf {
    if program.components().count() > 1 {
        return program.to_owned();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program));
    found.into_iter().find(|program| program.is_file()).unwrap_or_else(|| program.to_owned())
}

/// What Dovecot would take for our plugin in a directory: it leaves `lib` and a number out of
/// account (`module_file_get_name` of `module-dir.c`).
fn lying_in(dir: &Path) -> Lying {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => return Lying::Fault(dir.to_owned(), error.to_string()),
    };
    let is_ours = |name: &str| {
        let name = name.strip_prefix("lib").unwrap_or(name);
        let name = name.trim_start_matches(|char: char| char.is_ascii_digit());
        name.strip_prefix('_').unwrap_or(name) == "uidl_keep_plugin.so"
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut ours: Vec<PathBuf> = names
        .filter(|name| name.to_str().is_some_and(is_ours))
        .map(|name| dir.join(name))
        .collect();
    ours.sort();
    match &ours[..] {
        [] => Lying::Nothing,
        [module] => match Module::of(module) {
            Ok(is) => Lying::Module(module.clone(), is),
            Err(error) => Lying::Fault(module.clone(), error.to_string()),
        },
        [first, second, ..] => {
            let why = format!("beside {}, and Dovecot loads neither of two", first.display());
            Lying::Fault(second.clone(), why)
        }
    }
}

/// The plugins at hand, by the rules of the loader.
fn at_hand_in(dir: &Path) -> Vec<AtHand> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| Abi::parse(entry.file_name().to_str()?));
    let mut at_hand: Vec<AtHand> = named
        .map(|abi| {
            let fault = fault_at_hand(dir, &abi).err();
            AtHand { abi, fault }
        })
        .collect();
    at_hand.sort_by(|one, other| one.abi.cmp(&other.abi));
    at_hand
}

fn fault_at_hand(dir: &Path, abi: &Abi) -> Result<(), String> {
    let place = dir.join(abi.as_str());
    let plugin = place.join(abi::PLUGIN_FILE);
    let above = dir.parent().unwrap_or(dir);
    for dir in [above, dir, &place] {
        is_roots(dir, true)?;
    }
    is_roots(&plugin, false)?;
    let at = |why: String| format!("{}: {why}", plugin.display());
    match Abi::of_plugin(&plugin) {
        Ok(its) if its == *abi => Ok(()),
        Ok(its) => Err(at(format!("it is for Dovecot {its}"))),
        Err(error) => Err(at(describe(error))),
    }
}

fn describe(error: AbiError) -> String {
    match error {
        AbiError::Nameless => "its uidl_keep_plugin_version names no ABI of Dovecot".to_owned(),
        error => error.to_string(),
    }
}

/// Whether only root can have put there what is there.
fn is_roots(path: &Path, is_dir: bool) -> Result<(), String> {
    let at = |why: &str| format!("{}: {why}", path.display());
    let metadata = fs::symlink_metadata(path).map_err(|error: io::Error| at(&error.to_string()))?;
    let is_right = if is_dir { metadata.is_dir() } else { metadata.is_file() };
    if !is_right {
        return Err(at(if is_dir { "not a directory" } else { "not a regular file" }));
    }
    if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
        return Err(at("not root's, or others may write it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    /// Compiles what Dovecot would take for a plugin of that ABI, or for the loader.
    fn compile(to: &Path, version: Option<&str>) {
        let source = to.with_extension("c");
        let version =
            version.map(|abi| format!("const char *uidl_keep_plugin_version = \"{abi}\";"));
        let text = "void uidl_keep_plugin_preinit(void) {} void uidl_keep_plugin_init(void) {}
            void uidl_keep_plugin_deinit(void) {}";
        fs::write(&source, format!("{text} {}", version.unwrap_or_default())).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).arg(to).arg(&source);
        assert!(cc.status().expect("a compiler").success());
        fs::remove_file(source).unwrap();
    }

    fn fit(lying: Lying, at_hand: Vec<AtHand>) -> Fit {
        Fit {
            library: None,
            server: Ok(Abi::parse("2.3.ABIv19").unwrap()),
            at_hand,
            module_dir: "/modules".into(),
            lying,
            mail_plugins: vec!["quota".into(), "uidl_keep".into()],
        }
    }

    #[test]
    fn what_dovecot_would_load_is_found_by_its_name_and_told_by_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(lying_in(dir.path()), Lying::Nothing);
        fs::write(dir.path().join("lib10_quota_plugin.so"), "").unwrap();
        assert_eq!(lying_in(dir.path()), Lying::Nothing);
        let module = dir.path().join("lib95_uidl_keep_plugin.so");
        compile(&module, Some("2.4.ABIv1"));
        let plugin = Module::Plugin(Abi::parse("2.4.ABIv1").unwrap());
        assert_eq!(lying_in(dir.path()), Lying::Module(module.clone(), plugin));
        compile(&module, None);
        assert_eq!(lying_in(dir.path()), Lying::Module(module.clone(), Module::Loader));
        let second = dir.path().join("lib20_uidl_keep_plugin.so");
        fs::copy(&module, &second).unwrap();
        assert!(matches!(lying_in(dir.path()), Lying::Fault(path, _) if path == module));
        fs::remove_file(&second).unwrap();
        fs::write(&module, "text").unwrap();
        assert!(matches!(lying_in(dir.path()), Lying::Fault(path, _) if path == module));
        assert!(matches!(lying_in(&dir.path().join("none")), Lying::Fault(..)));
    }

    #[test]
    fn the_plugins_at_hand_are_those_that_the_loader_would_take() {
        if fs::metadata("/proc/self").is_ok_and(|process| process.uid() != 0) {
            eprintln!("skipped: only root has files that are root's");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let hand = dir.path().join("abi");
        assert_eq!(at_hand_in(&hand), []);
        for place in ["2.3.ABIv19", "2.3.ABIv21", "2.4.ABIv1", "2.4.ABIv2", "notes"] {
            fs::create_dir_all(hand.join(place)).unwrap();
        }
        let file = |abi: &str| hand.join(abi).join(abi::PLUGIN_FILE);
        compile(&file("2.3.ABIv19"), Some("2.3.ABIv19(2.3.19)"));
        compile(&file("2.3.ABIv21"), Some("2.3.ABIv19(2.3.19)"));
        symlink(file("2.3.ABIv19"), file("2.4.ABIv1")).unwrap();
        let found = at_hand_in(&hand);
        let faults: Vec<(&str, Option<&str>)> =
            found.iter().map(|at_hand| (at_hand.abi.as_str(), at_hand.fault.as_deref())).collect();
        let has = |place: usize, name: &str, word: &str| {
            let (abi, fault) = faults[place];
            assert_eq!(abi, name);
            assert!(fault.unwrap_or_default().contains(word), "{faults:?}");
        };
        assert_eq!(faults[0], ("2.3.ABIv19", None));
        has(1, "2.3.ABIv21", "it is for Dovecot 2.3.ABIv19");
        has(2, "2.4.ABIv1", "not a regular file");
        has(3, "2.4.ABIv2", "No such file");
        assert_eq!(faults.len(), 4);
    }

    #[test]
    fn a_verdict_says_whether_pop3_loads_what_fits() {
        let abi = |name| Abi::parse(name).unwrap();
        let module = |is| Lying::Module("/modules/x.so".into(), is);
        let hand =
            |name, fault: Option<&str>| AtHand { abi: abi(name), fault: fault.map(Into::into) };
        let own = abi("2.3.ABIv19");
        assert_eq!(fit(module(Module::Plugin(own.clone())), vec![]).verdict(), FitVerdict::Fits);
        let loader = fit(module(Module::Loader), vec![hand("2.3.ABIv19", None)]);
        assert_eq!(loader.verdict(), FitVerdict::Fits);
        let away = Fit { mail_plugins: vec!["quota".into()], ..loader };
        assert_eq!(away.verdict(), FitVerdict::NotLoaded);
        for (lying, at_hand, word) in [
            (Lying::Nothing, vec![hand("2.3.ABIv19", None)], "no lib95_uidl_keep_plugin.so there"),
            (Lying::Fault("/modules/x.so".into(), "odd".into()), vec![], "/modules/x.so: odd"),
            (
                module(Module::Plugin(abi("2.4.ABIv1"))),
                vec![],
                "for Dovecot 2.4.ABIv1, and this is 2.3",
            ),
            (module(Module::Loader), vec![hand("2.4.ABIv1", None)], "there is none, and this is"),
            (module(Module::Loader), vec![hand("2.3.ABIv19", Some("cut"))], "cut"),
        ] {
            let FitVerdict::DoesNotFit(why) = fit(lying, at_hand).verdict() else {
                panic!("{word}")
            };
            assert!(why.contains(word), "{why}");
        }
        let unknown = Fit { server: Err("no library".into()), ..fit(Lying::Nothing, vec![]) };
        assert_eq!(unknown.verdict(), FitVerdict::CouldNotTell("no library".into()));
    }
}
