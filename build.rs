//! With the `plugin` feature, finds Dovecot's headers, makes bindings for them, and compiles the
//! shim.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "plugin")]
    plugin::build();
}

#[cfg(feature = "plugin")]
mod plugin {
    use std::path::{Path, PathBuf};
    use std::{env, fs, process};

    /// Names the directory that holds Dovecot's headers, as Debian's dovecot-dev installs them.
    const INCDIR: &str = "DOVECOT_INCDIR";
    /// A shell script of assignments, which Dovecot's build writes.
    const CONFIG: &[&str] = &[
        "/usr/lib/dovecot/dovecot-config",
        "/usr/lib64/dovecot/dovecot-config",
        "/usr/local/lib/dovecot/dovecot-config",
    ];
    const USUAL: &[&str] = &["/usr/include/dovecot", "/usr/local/include/dovecot"];
    /// The files that are read here. cc prints a `rerun-if-env-changed`, which turns off cargo's
    /// own watch.
    const INPUTS: &[&str] = &["include/wrapper.h", "include/shim.h", "dovecot-plugin/shim.c"];
    /// The header that shows that a directory is Dovecot's.
    const WANTED: &str = "config.h";

    pub fn build() {
        for input in INPUTS {
            println!("cargo::rerun-if-changed={input}");
        }
        println!("cargo::rerun-if-env-changed={INCDIR}");
        let headers = find_headers();
        println!("cargo::rerun-if-changed={}", headers.join(WANTED).display());
        let includes = include_dirs(&headers);
        bind(&includes);
        compile(&includes);
    }

    fn find_headers() -> PathBuf {
        if let Some(named) = env::var_os(INCDIR) {
            let named = PathBuf::from(named);
            if named.join(WANTED).is_file() {
                return named;
            }
            stop(&format!("{INCDIR}={} has no {WANTED}", named.display()));
        }
        let from_config = CONFIG.iter().filter_map(|config| {
            println!("cargo::rerun-if-changed={config}");
            let text = fs::read_to_string(config).ok()?;
            let line = text.lines().find_map(|l| l.strip_prefix("dovecot_pkgincludedir="))?;
            Some(PathBuf::from(line.trim_matches('"')))
        });
        let mut candidates = from_config.chain(USUAL.iter().map(PathBuf::from));
        candidates.find(|dir| dir.join(WANTED).is_file()).unwrap_or_else(|| {
            stop(&format!(
                "no Dovecot headers: {INCDIR} is not set, no dovecot-config at {}, and no {WANTED} \
                 in {}; install dovecot-dev, or build the helper alone without --features plugin",
                CONFIG.join(" or "),
                USUAL.join(" or "),
            ))
        })
    }

    /// Debian installs the headers in one directory; 2.4 by itself installs them in the folders of
    /// its source tree.
    fn include_dirs(headers: &Path) -> Vec<PathBuf> {
        let mut dirs = vec![headers.to_owned()];
        let mut next = vec![headers.join("src")];
        while let Some(dir) = next.pop() {
            let Ok(entries) = fs::read_dir(&dir) else { continue };
            let mut below: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
            below.sort();
            next.extend(below.into_iter().filter(|path| path.is_dir()));
            dirs.push(dir);
        }
        dirs.push(PathBuf::from("include"));
        dirs
    }

    fn bind(includes: &[PathBuf]) {
        let functions = [
            "uidl_keep_.*",
            "mail_storage_hooks_(add|remove)",
            "mailbox_get_path_to",
            "mailbox_get_last_(mail_error|internal_error)",
            "mailbox_transaction_(begin|commit)",
            "mail_(alloc|free|set_seq|get_special|get_stream_because|get_hdr_stream)",
            "mail_get_(virtual_size|received_date)",
            "maildir_uidlist_(refresh|lock|unlock|lookup_ext|set_ext|update)",
            "maildir_uidlist_iter_(init|next|deinit)",
        ];
        let types = ["mailbox_vfuncs", "mail_vfuncs", "mail_user_vfuncs", "mail_storage_hooks"];
        // Only the shim looks into these.
        let opaque = [
            "mail",
            "mailbox",
            "mail_user",
            "mail_storage",
            "mailbox_list",
            "mail_namespace",
            "module",
            "event",
            "istream",
            "mail_search_context",
            "mailbox_transaction_context",
            "mail_save_context",
            "mailbox_status",
            "mailbox_metadata",
            "maildir_uidlist",
            "mail_search_args",
            "mail_attribute_value",
            "mailbox_update",
            "array",
            "pool",
        ];
        let mut builder = bindgen::builder()
            .header("include/wrapper.h")
            .clang_args(includes.iter().map(|dir| format!("-I{}", dir.display())))
            .clang_arg("-DHAVE_CONFIG_H")
            .allowlist_var("DOVECOT_ABI_VERSION")
            .default_enum_style(bindgen::EnumVariation::NewType {
                is_bitfield: false,
                is_global: false,
            })
            .prepend_enum_name(false)
            .layout_tests(true)
            // Nobody reads them, and it would take another crate to set them well.
            .formatter(bindgen::Formatter::None)
            .rust_target(bindgen::RustTarget::stable(85, 0).unwrap_or_default())
            .rust_edition(bindgen::RustEdition::Edition2024);
        for function in functions {
            builder = builder.allowlist_function(function);
        }
        for kept in types {
            builder = builder.allowlist_type(kept);
        }
        for name in opaque {
            builder = builder.opaque_type(name);
        }
        let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        match builder.generate() {
            Ok(bindings) => {
                bindings.write_to_file(out.join("dovecot.rs")).expect("OUT_DIR is writable");
            }
            Err(error) => stop(&format!("bindgen cannot read Dovecot's headers: {error}")),
        }
    }

    fn compile(includes: &[PathBuf]) {
        let mut shim = cc::Build::new();
        shim.file("dovecot-plugin/shim.c");
        shim.includes(includes).define("HAVE_CONFIG_H", None);
        // Dovecot itself is compiled so, and its headers need both.
        shim.flag("-std=gnu11").flag_if_supported("-Wno-unused-parameter");
        shim.compile("uidl_keep_shim");
    }

    fn stop(sentence: &str) -> ! {
        println!("cargo::error={sentence}");
        process::exit(1);
    }
}
