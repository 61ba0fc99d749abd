//! `tapio man`: a manual page for each command.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Command;

use super::super::output::Outcome;

#[derive(clap::Args)]
#[command(after_help = "Example:\n  tapio man man1")]
pub(crate) struct ManArgs {
    /// Folder for the pages, tapio.1 and others; created if missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) fn man(args: &ManArgs, command: Command) -> Outcome {
    let in_dir = || args.dir.display().to_string();
    std::fs::create_dir_all(&args.dir).with_context(in_dir)?;
    clap_mangen::generate_to(command, &args.dir).with_context(in_dir)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_visible_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let hidden = Command::new("secret-command").hide(true);
        let rules = Command::new("rules").about("about rules").subcommand(Command::new("check"));
        let command = Command::new("tapio").version("1").subcommands([rules, hidden]);
        let args = ManArgs { dir: dir.path().join("man1") };
        man(&args, command).unwrap();
        let mut names: Vec<String> = std::fs::read_dir(&args.dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["tapio-rules-check.1", "tapio-rules.1", "tapio.1"]);
        let page = std::fs::read_to_string(args.dir.join("tapio-rules.1")).unwrap();
        assert!(page.contains("about rules"), "{page}");
    }
}
