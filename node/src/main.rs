//! The `weft` binary: everything is in the library, under [`weft_node::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    weft_node::cli::main()
}
