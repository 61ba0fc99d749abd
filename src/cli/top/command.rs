//! `tapio top`

use std::io::IsTerminal as _;
use std::process::ExitCode;

use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::feed::Feed;
use super::message::{Effect, Message, Request};
use super::screen::Screen;
use super::state::{Addresses, State, View};
use super::{input, keys, once};
use crate::cli::connection::ServerArgs;
use crate::cli::live;
use crate::cli::output::{Color, Outcome, OutputArgs, Style, Usage};

/// Messages and requests that wait at most.
const WAITING: usize = 64;
/// Port of a server's page.
const WEB_PORT: u16 = 7601;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tapio top --view stories\n  tapio top --once --view losses | head\n\nThe key ? lists the keys, q quits."
)]
pub(crate) struct Args {
    /// Print the content once as text, without a screen; all lists without --view
    #[arg(long)]
    once: bool,
    /// List to begin with
    #[arg(long, value_enum, value_name = "VIEW")]
    view: Option<View>,
    /// Address of the server's pages, for the key o; by default its host's port 7601
    #[arg(long, value_name = "URL")]
    web: Option<String>,
    /// Print times in UTC instead of the local time zone
    #[arg(long)]
    utc: bool,
    /// When to use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    color: Color,
    #[command(flatten)]
    at: ServerArgs,
}

pub(crate) fn run(args: &Args) -> Outcome {
    args.at.access()?;
    if !args.once {
        check_terminal()?;
    }
    let output = OutputArgs { utc: args.utc, color: args.color, ..OutputArgs::default() };
    let style = Style::new(&output);
    live::runtime()?.block_on(async {
        let (messages, received) = channel(WAITING);
        let (requests, requested) = channel(WAITING);
        let started =
            Feed::start(args.at.clone(), style.clone(), messages.clone(), requested).await;
        let feed = started.map_err(|status| live::failure(&args.at.server, &status))?;
        if args.once {
            drop((feed, messages));
            return print_once(args, received, &output).await;
        }
        tokio::spawn(feed.run());
        let view = args.view.unwrap_or(View::Stories);
        let (server, web) = (args.at.server.clone(), web(args));
        let size = ratatui::crossterm::terminal::size()?;
        let state = State::new(Addresses { server, web }, view, &style, size);
        let screen = Screen::enter()?;
        input::start(messages)?;
        interact(state, screen, received, requests).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Checks that there is a terminal on which a screen can be drawn.
fn check_terminal() -> Result<(), Usage> {
    let once = "`tapio top --once` prints its content as text";
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Usage(format!("standard input or output isn't a terminal; {once}")));
    }
    match std::env::var("TERM").unwrap_or_default().as_str() {
        "" => Err(Usage(format!("$TERM is not set: the terminal's kind isn't known; {once}"))),
        "dumb" => Err(Usage(format!("$TERM is dumb: a terminal without a screen; {once}"))),
        _ => Ok(()),
    }
}

/// The address of the server's pages.
fn web(args: &Args) -> String {
    match &args.web {
        Some(web) => web.trim_end_matches('/').to_owned(),
        None => web_of(&args.at.server),
    }
}

/// The address of the pages on the host of an endpoint.
fn web_of(server: &str) -> String {
    let (scheme, address) = server.split_once("://").unwrap_or(("http", server));
    let host = match address.rsplit_once(':') {
        // A socket of this machine.
        _ if server.starts_with("unix:") => "127.0.0.1",
        Some((host, _)) => host,
        None => address,
    };
    format!("{scheme}://{host}:{WEB_PORT}").replace("unix://", "http://")
}

async fn print_once(
    args: &Args,
    mut received: Receiver<Message>,
    output: &OutputArgs,
) -> anyhow::Result<()> {
    let mut content = once::Content::default();
    while let Some(message) = received.recv().await {
        content.take(message);
    }
    content.print(&args.at.server, args.view, output)
}

/// Draws the state after each message, and has its effects done, until one ends it.
async fn interact(
    mut state: State,
    mut screen: Screen,
    mut received: Receiver<Message>,
    requests: Sender<Request>,
) -> anyhow::Result<()> {
    loop {
        screen.draw(&state)?;
        let Some(first) = received.recv().await else { return Ok(()) };
        let mut next = Some(first);
        // All that wait, before the state is drawn again.
        while let Some(message) = next {
            for effect in keys::update(&mut state, message) {
                match effect {
                    Effect::Quit => return Ok(()),
                    Effect::Redraw => screen.redraw()?,
                    Effect::Suspend => screen.suspend()?,
                    Effect::Copy(text) => screen.copy(&text)?,
                    Effect::Request(request) => {
                        // Where so many wait, the next change of the story requests it again.
                        let _ = requests.try_send(request);
                    }
                }
            }
            next = received.try_recv().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_on_the_host_of_the_server() {
        for (server, expected) in [
            ("127.0.0.1:7600", "http://127.0.0.1:7601"),
            ("[::1]:7600", "http://[::1]:7601"),
            ("https://tapio.example:443", "https://tapio.example:7601"),
            ("unix:/run/tapio.sock", "http://127.0.0.1:7601"),
        ] {
            assert_eq!(web_of(server), expected);
        }
    }
}
