//! The terminal: entered, drawn on, restored.

use std::io::{self, BufWriter, Stdout, Write as _};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use signal_hook::consts::SIGTSTP;

use super::state::State;
use super::view;

/// Whether the terminal has to be restored.
static IS_ENTERED: AtomicBool = AtomicBool::new(false);

/// The terminal, with a screen of its own until this is dropped, or a thread panics.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
}

impl Screen {
    /// Switches the terminal to a screen of its own.
    ///
    /// # Errors
    /// When standard output isn't a terminal.
    pub(super) fn enter() -> io::Result<Self> {
        restore_at_panic();
        enter()?;
        match Terminal::new(CrosstermBackend::new(BufWriter::new(io::stdout()))) {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    /// Draws what has changed.
    ///
    /// # Errors
    /// When the terminal is closed.
    pub(super) fn draw(&mut self, state: &State) -> io::Result<()> {
        let draw = |frame: &mut ratatui::Frame<'_>| {
            let area = frame.area();
            view::render(state, area, frame.buffer_mut());
        };
        self.terminal.draw(draw).map(|_| ())
    }

    /// Draws everything at the next time.
    ///
    /// # Errors
    /// When the terminal is closed.
    pub(super) fn redraw(&mut self) -> io::Result<()> {
        // `clear` would ask the terminal for the place of the cursor; the answer is read as keys.
        let size = self.terminal.size()?;
        self.terminal.resize(size.into())
    }

    /// Sends text to the clipboard of the terminal (OSC 52).
    ///
    /// # Errors
    /// When the terminal is closed.
    pub(super) fn copy(&mut self, text: &str) -> io::Result<()> {
        let writer = self.terminal.backend_mut();
        write!(writer, "\u{1b}]52;c;{}\u{7}", STANDARD.encode(text))?;
        io::Write::flush(writer)
    }

    /// Suspends the process, as the terminal does without a screen of its own, until it is
    /// continued.
    ///
    /// # Errors
    /// When the terminal is closed.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        restore();
        signal_hook::low_level::raise(SIGTSTP)?;
        enter()?;
        self.redraw()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    // Relaxed, as in `restore`: no other data depends on it.
    IS_ENTERED.store(true, Ordering::Relaxed);
    execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste, Hide)
}

/// Gives the terminal back as it was, once.
fn restore() {
    if IS_ENTERED.swap(false, Ordering::Relaxed) {
        // A terminal that is closed has nothing to restore.
        let _ = execute!(io::stdout(), Show, DisableBracketedPaste, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// Restores the terminal before the message of a panic is printed.
fn restore_at_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
    });
}
