//! Keys, resizes and signals as messages.

use std::io;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc::Sender;

use super::message::{Key, Message};
use crate::cli::signals::Signals;

/// Starts a thread that reads the terminal, and one that waits for signals. Both end with the
/// process.
///
/// # Errors
/// When a thread can't be started, or a handler of a signal can't be registered.
pub(super) fn start(messages: Sender<Message>) -> io::Result<()> {
    // The end of the terminal is a signal, too.
    let signals = Signals::of_shutdown()?.and_reload()?;
    let ended = messages.clone();
    let wait = move || {
        while !signals.is_shutdown() && !signals.take_reload() {
            signals.wait(Duration::MAX);
        }
        let _ = ended.blocking_send(Message::Quit);
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait)?;
    let read = move || {
        loop {
            let all = event::read().map_or_else(|_| vec![Message::Quit], of_event);
            for message in all {
                if messages.blocking_send(message).is_err() {
                    return;
                }
            }
        }
    };
    std::thread::Builder::new().name("keys".into()).spawn(read)?;
    Ok(())
}

fn of_event(event: Event) -> Vec<Message> {
    match event {
        Event::Key(event) if event.kind != KeyEventKind::Release => {
            // Escape and a key that arrive at once can't be distinguished from one with Alt.
            let is_both = event.modifiers.contains(KeyModifiers::ALT);
            let escape = is_both.then_some(Key::Escape);
            escape.into_iter().chain(key(event)).map(Message::Key).collect()
        }
        Event::Paste(text) => vec![Message::Paste(text)],
        Event::Resize(columns, rows) => vec![Message::Resize(columns, rows)],
        _ => Vec::new(),
    }
}

fn key(event: KeyEvent) -> Option<Key> {
    if event.modifiers.contains(KeyModifiers::CONTROL) {
        return match event.code {
            KeyCode::Char('c') => Some(Key::Interrupt),
            KeyCode::Char('z') => Some(Key::Suspend),
            KeyCode::Char('l') => Some(Key::Redraw),
            KeyCode::Char('f') => Some(Key::PageDown),
            KeyCode::Char('b') => Some(Key::PageUp),
            // Some terminals send it for the backspace key.
            KeyCode::Char('h') => Some(Key::Backspace),
            _ => None,
        };
    }
    Some(match event.code {
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Backspace => Key::Backspace,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(event: KeyEvent) -> Vec<Key> {
        let key = |message| match message {
            Message::Key(key) => key,
            other => panic!("{other:?}"),
        };
        of_event(Event::Key(event)).into_iter().map(key).collect()
    }

    #[test]
    fn keys_with_control_are_not_characters() {
        let of = |code, modifiers| keys(KeyEvent::new(code, modifiers));
        assert_eq!(of(KeyCode::Char('c'), KeyModifiers::CONTROL), [Key::Interrupt]);
        assert_eq!(of(KeyCode::Char('c'), KeyModifiers::NONE), [Key::Char('c')]);
        assert_eq!(of(KeyCode::Char('G'), KeyModifiers::SHIFT), [Key::Char('G')]);
        assert_eq!(of(KeyCode::Char('q'), KeyModifiers::ALT), [Key::Escape, Key::Char('q')]);
        assert_eq!(of(KeyCode::Char('q'), KeyModifiers::CONTROL), []);
        assert_eq!(of(KeyCode::F(1), KeyModifiers::NONE), []);
        let mut released = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        released.kind = KeyEventKind::Release;
        assert_eq!(keys(released), []);
    }
}
