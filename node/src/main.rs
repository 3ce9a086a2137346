//! The `weft` binary: everything is in the library, under [`weft_node::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    weft_gpu::adapter::without_window_system();
    weft_node::cli::main()
}
