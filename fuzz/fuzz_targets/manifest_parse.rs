//! See [`vmdt_fuzz::manifest_parse`].
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| vmdt_fuzz::manifest_parse(data));

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    vmdt_fuzz::replay(vmdt_fuzz::manifest_parse)
}
