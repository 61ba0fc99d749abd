//! Generator and sink of OTLP in a process of their own, which the benchmark orders by lines of
//! JSON: its CPU time isn't the benchmark's, and it ends when the benchmark does.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::super::output::{Outcome, print};
use super::group::{CpuTime, Group};
use crate::load::otlp::{Counts, OtlpHarness, OtlpLoad, Progress, RunTimes, Sent};

#[derive(clap::Args)]
pub(super) struct Args {}

/// An order to the process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    Load(OtlpLoad),
    Progress,
    Counts,
    Finish,
    SinkUp(bool),
}

/// Its answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Port(u16),
    Started(RunTimes),
    Progress(Progress),
    Counts(Counts),
    Sent(Option<Sent>),
    Done,
    Failed(String),
}

/// Runs the process: answers orders until standard input ends.
pub(super) fn run(_: &Args) -> Outcome {
    let mut harness = OtlpHarness::start().context("start the sink")?;
    print(&serde_json::to_string(&Answer::Port(harness.sink_port()))?)?;
    for line in std::io::stdin().lines() {
        let order = serde_json::from_str(&line?).context("an order on standard input")?;
        let answer = obey(&mut harness, order).unwrap_or_else(|e| Answer::Failed(e.to_string()));
        print(&serde_json::to_string(&answer)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn obey(harness: &mut OtlpHarness, order: Order) -> std::io::Result<Answer> {
    Ok(match order {
        Order::Load(load) => Answer::Started(harness.load(&load)?),
        Order::Progress => Answer::Progress(harness.progress()),
        Order::Counts => Answer::Counts(harness.counts()),
        Order::Finish => Answer::Sent(harness.finish()?),
        Order::SinkUp(is_up) => {
            harness.set_sink_up(is_up)?;
            Answer::Done
        }
    })
}

/// The process, from the benchmark's side.
pub(super) struct Harness {
    group: Group,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    sink_port: u16,
}

impl Harness {
    pub(super) fn start() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "harness"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut group = Group::start(command, "the load generator")?;
        let orders = group.process().stdin.take().context("standard input isn't piped")?;
        let answers = group.process().stdout.take().context("standard output isn't piped")?;
        let mut harness = Self { group, orders, answers: BufReader::new(answers), sink_port: 0 };
        let Answer::Port(port) = harness.answer()? else { bail!("the sink's port is missing") };
        harness.sink_port = port;
        Ok(harness)
    }

    pub(super) fn sink_port(&self) -> u16 {
        self.sink_port
    }

    pub(super) fn cpu_time(&self) -> CpuTime {
        self.group.cpu_time()
    }

    fn answer(&mut self) -> anyhow::Result<Answer> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the load generator ended");
        }
        match serde_json::from_str(&line).context("an answer of the load generator")? {
            Answer::Failed(cause) => bail!("load generator: {cause}"),
            answer => Ok(answer),
        }
    }

    fn ask(&mut self, order: &Order) -> anyhow::Result<Answer> {
        let line = serde_json::to_string(order)? + "\n";
        // A broken pipe is that of this process, not of a reader of the report that has left.
        let sent = self.orders.write_all(line.as_bytes());
        sent.map_err(|e| anyhow!("the load generator ended: {e}"))?;
        self.answer()
    }

    /// Starts a load.
    pub(super) fn load(&mut self, load: &OtlpLoad) -> anyhow::Result<RunTimes> {
        match self.ask(&Order::Load(load.clone()))? {
            Answer::Started(times) => Ok(times),
            other => bail!("unexpected answer of the load generator: {other:?}"),
        }
    }

    pub(super) fn progress(&mut self) -> anyhow::Result<Progress> {
        match self.ask(&Order::Progress)? {
            Answer::Progress(progress) => Ok(progress),
            other => bail!("unexpected answer of the load generator: {other:?}"),
        }
    }

    pub(super) fn counts(&mut self) -> anyhow::Result<Counts> {
        match self.ask(&Order::Counts)? {
            Answer::Counts(counts) => Ok(counts),
            other => bail!("unexpected answer of the load generator: {other:?}"),
        }
    }

    /// Waits until the generator has sent everything.
    pub(super) fn finish(&mut self) -> anyhow::Result<Sent> {
        match self.ask(&Order::Finish)? {
            Answer::Sent(sent) => sent.context("no load was started"),
            other => bail!("unexpected answer of the load generator: {other:?}"),
        }
    }

    /// Takes the sink away, or brings it back.
    pub(super) fn set_sink_up(&mut self, is_up: bool) -> anyhow::Result<()> {
        self.ask(&Order::SinkUp(is_up)).map(drop)
    }
}
