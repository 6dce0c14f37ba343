//! Writes the seeds of every target into its corpus, `corpus/<target>/seed-<number>`.

use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    for target in vmdt_fuzz::TARGETS {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(target.name);
        fs::create_dir_all(&corpus)?;
        let seeds = (target.seeds)();
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(corpus.join(format!("seed-{number:03}")), seed)?;
        }
        println!("{}: {} seeds", target.name, seeds.len());
    }
    Ok(())
}
