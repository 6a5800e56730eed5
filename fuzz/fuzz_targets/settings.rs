#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| uidl_keep_fuzz::settings::check(octets));
