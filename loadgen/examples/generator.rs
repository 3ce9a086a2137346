//! How fast this machine's generator is by itself: builds and signs for the null target and prints the report.
//!
//! Arguments: seconds (default 3), devices (default 10,000), threads (default 1), signer (default serial).
//!
//! ```text
//! cargo run --release -p weft-loadgen --example generator -- 3 20000000000 1 serial
//! ```
//!
//! A population that fits the key cache shows the price of a signature; one of 20 billion that of a key derivation on top.

use std::time::Duration;

use weft_loadgen::{NullTarget, RunConfig, Stop, Target, run};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |index: usize, default: &'static str| arguments.get(index).map_or(default, String::as_str);
    let config = RunConfig {
        duration: Duration::from_secs_f64(argument(0, "3").parse()?),
        warm_up: Duration::from_secs(1),
        devices: argument(1, "10000").parse()?,
        generator_threads: argument(2, "1").parse()?,
        signer: argument(3, "serial").parse()?,
        ..RunConfig::new(Target::Null(NullTarget::default()))
    };
    let outcome = run(&config, &Stop::new(), &mut |progress| println!("{progress}"))?;
    print!("\n{}", outcome.report.table());
    Ok(())
}
