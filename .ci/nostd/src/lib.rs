//! Builds only if neither of these crates, nor anything below them, links std: std brings a panic
//! handler of its own, and a second one is an error (E0152).
#![no_std]

use vmdt_ssms as _;
use vmdt_wire as _;

#[panic_handler]
fn on_panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
