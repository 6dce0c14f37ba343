//! Nothing but a place for `cargo bench -p vmdt-benches`: see `pipeline.rs`.
