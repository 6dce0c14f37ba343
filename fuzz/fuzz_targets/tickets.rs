//! See [`vmdt_fuzz::tickets`].
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| vmdt_fuzz::tickets(data));

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    vmdt_fuzz::replay(vmdt_fuzz::tickets)
}
