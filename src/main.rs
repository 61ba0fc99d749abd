//! The `tapio` command. The command line is in `tapio::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tapio::cli::main()
}
