//! `tapio mcp`: the Model Context Protocol over standard input and output, one message a line.

use std::future::Future;
use std::io::{self, BufRead, IsTerminal as _, Read as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tonic::{Response, Status};

use super::connection::ServerArgs;
use super::live;
use super::output::{Outcome, message, print};
use crate::server::{MAX_MESSAGE_BYTES, Source, SourceError, reply, too_long};
use tapio_wire::proto::query_client::QueryClient;
use tapio_wire::{AuthorizedChannel, ClientAccess, proto};

/// Time limit for a query, with its connection: the assistant waits for it.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tapio mcp\n  tapio mcp --server unix:/run/tapio/server.sock\n\nAn assistant starts it: its configuration has the command `tapio` with the argument `mcp`."
)]
pub(super) struct Args {
    #[command(flatten)]
    at: ServerArgs,
}

/// A server, with a connection for each query: between two of them may be hours.
struct Server {
    address: String,
    access: ClientAccess,
}

/// A line of standard input.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Message(Vec<u8>),
    TooLong,
    End,
}

pub(super) fn run(args: &Args) -> Outcome {
    let server = Server { address: args.at.server.clone(), access: args.at.access()? };
    let runtime = live::runtime()?;
    let mut input = io::stdin().lock();
    if io::stdin().is_terminal() {
        message("tapio: an assistant starts this command; it reads messages from standard input");
    }
    loop {
        let line = next_line(&mut input).context("can't read standard input")?;
        let answer = match line {
            Line::Message(message) => runtime.block_on(reply(&server, &message)),
            Line::TooLong => Some(too_long()),
            Line::End => return Ok(ExitCode::SUCCESS),
        };
        if let Some(answer) = answer {
            print(&answer)?;
        }
    }
}

/// Reads a line that isn't empty, without its end.
fn next_line(input: &mut impl BufRead) -> io::Result<Line> {
    loop {
        let mut line = Vec::new();
        // One byte more than a message has, for the end of the line.
        let limit = MAX_MESSAGE_BYTES as u64 + 1;
        let read = input.by_ref().take(limit).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(Line::End);
        }
        if line.last() != Some(&b'\n') && line.len() > MAX_MESSAGE_BYTES {
            input.skip_until(b'\n')?;
            return Ok(Line::TooLong);
        }
        let message = line.trim_ascii();
        if !message.is_empty() {
            return Ok(Line::Message(message.to_vec()));
        }
    }
}

impl Server {
    /// Connects and queries.
    async fn query<T, F>(
        &self,
        query: impl FnOnce(QueryClient<AuthorizedChannel>) -> F + Send,
    ) -> Result<T, SourceError>
    where
        T: Send,
        F: Future<Output = Result<Response<T>, Status>> + Send,
    {
        let address = &self.address;
        let answered = tokio::time::timeout(TIMEOUT, async {
            let client = live::connect(address, &self.access).await.map_err(SourceError)?;
            query(client).await.map(Response::into_inner).map_err(|status| match status.code() {
                // It names the parameter.
                tonic::Code::InvalidArgument => SourceError::from(status),
                _ => SourceError(format!("{address}: {}", live::status_text(&status))),
            })
        });
        let late = |_| SourceError(format!("{address}: no answer within {TIMEOUT:?}"));
        answered.await.map_err(late)?
    }
}

impl Source for Server {
    async fn list_stories(
        &self,
        request: proto::ListStoriesRequest,
    ) -> Result<proto::ListStoriesResponse, SourceError> {
        self.query(|mut client| async move { client.list_stories(request).await }).await
    }

    async fn list_events(
        &self,
        request: proto::ListEventsRequest,
    ) -> Result<proto::ListEventsResponse, SourceError> {
        self.query(|mut client| async move { client.list_events(request).await }).await
    }

    async fn list_agents(
        &self,
        request: proto::ListAgentsRequest,
    ) -> Result<proto::ListAgentsResponse, SourceError> {
        self.query(|mut client| async move { client.list_agents(request).await }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_the_next_one_is_read() {
        let long = "x".repeat(MAX_MESSAGE_BYTES + 1);
        let fits = "y".repeat(MAX_MESSAGE_BYTES);
        let input = format!("{{}}\r\n\n \n{long}\n{fits}\nlast");
        let mut input = input.as_bytes();
        let mut next = || next_line(&mut input).unwrap();
        assert_eq!(next(), Line::Message(b"{}".to_vec()));
        assert_eq!(next(), Line::TooLong);
        assert_eq!(next(), Line::Message(fits.into_bytes()));
        assert_eq!(next(), Line::Message(b"last".to_vec()));
        assert_eq!(next(), Line::End);
    }
}
