//! The `tapio` command.

fn main() {}
