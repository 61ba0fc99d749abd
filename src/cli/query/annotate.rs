//! `tapio annotate`

use std::process::ExitCode;

use super::explain::{story_id, story_of_server};
use super::view::annotation_lines;
use crate::cli::connection::ServerArgs;
use crate::cli::live;
use crate::cli::output::{Outcome, OutputArgs, Printer, plain};
use tapio_wire::proto::annotate_request::Action;
use tapio_wire::{annotations_json, proto};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tapio annotate 1b4f6f2a --ack\n  tapio annotate 1b4f6f2a --note 'restarted it'\n  tapio annotate 1b4f6f2a --wrong-cause 'the disk was full'\n  tapio annotate 1b4f6f2a --right-cause\n  tapio annotate 1b4f6f2a --unack",
    group = clap::ArgGroup::new("mark").required(true).multiple(true)
)]
pub(crate) struct Args {
    /// The story's id, or its first digits
    #[arg(value_name = "STORY")]
    story: String,
    /// Somebody works on it
    #[arg(long, group = "mark")]
    ack: bool,
    /// Nobody works on it any more
    #[arg(long, group = "mark", conflicts_with = "ack")]
    unack: bool,
    /// Add a note
    #[arg(long, group = "mark", value_name = "TEXT")]
    note: Option<String>,
    /// Its first root cause isn't the real one, which is given if it is known
    #[arg(long, group = "mark", value_name = "CAUSE", num_args = 0..=1, default_missing_value = "")]
    wrong_cause: Option<String>,
    /// Its first root cause is the real one
    #[arg(long, group = "mark", conflicts_with = "wrong_cause")]
    right_cause: bool,
    /// Its first root cause is marked neither as wrong nor as right any more
    #[arg(long, group = "mark", conflicts_with_all = ["wrong_cause", "right_cause"])]
    unmark_cause: bool,
    #[command(flatten)]
    by: ByArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    at: ServerArgs,
}

/// Parameters of the API, and the options that set them.
const OPTIONS: &[(&str, &str)] = &[("text", "--note"), ("cause", "--wrong-cause"), ("by", "--by")];

/// The operator.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct ByArgs {
    /// Your name, where the server doesn't know it from a token or a certificate; by default $USER
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

impl ByArgs {
    pub(super) fn name(&self) -> String {
        let of_user = || std::env::var("USER").unwrap_or_default();
        self.by.clone().unwrap_or_else(of_user)
    }
}

impl Args {
    fn actions(&self) -> Vec<Action> {
        let flag = |is_set: bool, action: Action| is_set.then_some(action);
        [
            flag(self.ack, Action::Acknowledged(true)),
            flag(self.unack, Action::Acknowledged(false)),
            self.note.clone().map(Action::Note),
            self.wrong_cause.clone().map(Action::WrongCause),
            flag(self.right_cause, Action::RightCause(true)),
            flag(self.unmark_cause, Action::RightCause(false)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let found = story_of_server(&args.at, &story_id(&args.story)?)?;
    let story = &found.linked.story;
    let access = args.at.access()?;
    let annotations = live::runtime()?.block_on(async {
        let client = live::connect_operate(&args.at.server, &access).await;
        let mut client = client.map_err(anyhow::Error::msg)?;
        let mut annotations = proto::Annotations::default();
        for action in args.actions() {
            let request = proto::AnnotateRequest {
                story_id: story.id.0.to_vec(),
                by: args.by.name(),
                action: Some(action),
            };
            let response = client.annotate(request).await;
            let refusal = |status| live::refusal(&args.at.server, &status, OPTIONS);
            annotations = response.map_err(refusal)?.into_inner();
        }
        anyhow::Ok(annotations)
    })?;
    let mut printer = Printer::list(&args.output);
    if printer.format.is_data() {
        printer.single(&annotations_json(&annotations))?;
        return Ok(ExitCode::SUCCESS);
    }
    printer.line(&format!("{}  {}", story.id, plain(&story.name)))?;
    for line in annotation_lines(&annotations, &printer.style) {
        printer.line(&format!("  {line}"))?;
    }
    printer.finish()?;
    Ok(ExitCode::SUCCESS)
}
