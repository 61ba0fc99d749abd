//! The `tapio` command: a thin door to `tapio::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tapio::cli::main()
}
