//! Messages and keys change the state.

use super::list::Row;
use super::message::{Effect, Key, Message, Request};
use super::state::{State, View};

/// Longest text of a search.
const MAX_SEARCH: usize = 200;

/// Changes the state by a message; returns the effects that it demands.
pub(super) fn update(state: &mut State, message: Message) -> Vec<Effect> {
    let effects = match message {
        Message::Key(key) => press(state, key),
        Message::Paste(text) => {
            if state.prompt.is_some() {
                text.chars().for_each(|c| type_character(state, c));
            }
            Vec::new()
        }
        Message::Resize(columns, rows) => {
            state.resize(columns, rows);
            Vec::new()
        }
        Message::Stories(rows) => {
            let effects = changed_documents(state, &rows);
            state.list_mut(View::Stories).set_rows(rows);
            effects
        }
        Message::Agents { agents, losses } => {
            state.list_mut(View::Agents).set_rows(agents);
            state.list_mut(View::Losses).set_rows(losses);
            let requests = state.documents.iter().map(|document| &document.request);
            let agents = requests.filter(|request| matches!(request, Request::Agent(_)));
            agents.cloned().map(Effect::Request).collect()
        }
        Message::Answer(request, answer) => {
            let mut all = state.documents.iter_mut();
            // A document that was closed meanwhile doesn't need its answer.
            if let Some(document) = all.find(|document| document.request == request) {
                document.set_answer(answer);
            }
            Vec::new()
        }
        Message::Away { since_ns, cause } => {
            state.away = Some((since_ns, cause));
            Vec::new()
        }
        Message::Back => {
            state.away = None;
            let incomplete = state.documents.iter().filter(|document| !document.is_complete());
            incomplete.map(|document| Effect::Request(document.request.clone())).collect()
        }
        Message::Quit => vec![Effect::Quit],
    };
    state.fit();
    effects
}

/// Requests for the open documents about stories that have changed.
fn changed_documents(state: &State, rows: &[Row]) -> Vec<Effect> {
    let before = state.list(View::Stories).rows();
    let row = |rows: &[Row], id: &str| rows.iter().find(|row| row.key == id).cloned();
    let is_changed = |request: &&Request| {
        request
            .story()
            .is_some_and(|id| row(rows, id).is_some() && row(rows, id) != row(before, id))
    };
    let requests = state.documents.iter().map(|document| &document.request);
    requests.filter(is_changed).cloned().map(Effect::Request).collect()
}

fn press(state: &mut State, key: Key) -> Vec<Effect> {
    match key {
        Key::Interrupt => return vec![Effect::Quit],
        Key::Suspend => return vec![Effect::Suspend],
        Key::Redraw => return vec![Effect::Redraw],
        _ => {}
    }
    state.notice = None;
    if state.prompt.is_some() {
        press_in_prompt(state, key);
        return Vec::new();
    }
    if state.is_help {
        state.is_help = false;
        return if key == Key::Char('q') { vec![Effect::Quit] } else { Vec::new() };
    }
    match key {
        Key::Char('q') => vec![Effect::Quit],
        Key::Char('?') => {
            state.is_help = true;
            Vec::new()
        }
        Key::Char('/') => {
            state.prompt = Some(String::new());
            Vec::new()
        }
        Key::Char(digit @ '1'..='3') => show(state, View::ALL[usize::from(digit as u8 - b'1')]),
        Key::Tab => show(state, next(state.view, 1)),
        Key::BackTab => show(state, next(state.view, 2)),
        Key::Char('e') => open_of_story(state, Request::Events),
        Key::Char('x') => open_of_story(state, Request::Explanation),
        Key::Char('y') => copy(state),
        Key::Char('o') => print_url(state),
        _ if state.documents.is_empty() => press_in_list(state, key),
        _ => {
            press_in_document(state, key);
            Vec::new()
        }
    }
}

fn next(view: View, distance: usize) -> View {
    View::ALL[(view as usize + distance) % View::ALL.len()]
}

fn show(state: &mut State, view: View) -> Vec<Effect> {
    state.view = view;
    state.documents.clear();
    Vec::new()
}

fn open_of_story(state: &mut State, request: fn(String) -> Request) -> Vec<Effect> {
    match state.story() {
        Some(id) => state.open(request(id)),
        None => Vec::new(),
    }
}

/// Opens the selected story, or the agent of the selected row.
fn open_selected(state: &mut State) -> Vec<Effect> {
    let Some(key) = state.selected_key() else { return Vec::new() };
    let node = || key.split('\0').next().unwrap_or_default().to_owned();
    state.open(match state.view {
        View::Stories => Request::Story(key),
        View::Agents | View::Losses => Request::Agent(node()),
    })
}

fn copy(state: &mut State) -> Vec<Effect> {
    let Some(id) = state.story() else {
        state.notice = Some("no story is selected".into());
        return Vec::new();
    };
    state.notice = Some(format!("sent to the terminal's clipboard: {id}"));
    vec![Effect::Copy(id)]
}

fn print_url(state: &mut State) -> Vec<Effect> {
    state.notice = Some(match state.story() {
        Some(id) => format!("{}/stories/{id}", state.addresses.web),
        None => "no story is selected".into(),
    });
    Vec::new()
}

fn press_in_list(state: &mut State, key: Key) -> Vec<Effect> {
    if key == Key::Enter {
        return open_selected(state);
    }
    let list = state.list_mut(state.view);
    match key {
        Key::Char('j') | Key::Down => list.move_by(1),
        Key::Char('k') | Key::Up => list.move_by(-1),
        Key::Char(' ') | Key::PageDown => list.move_by_pages(1),
        Key::Char('b') | Key::PageUp => list.move_by_pages(-1),
        Key::Char('g') | Key::Home => list.select_first(),
        Key::Char('G') | Key::End => list.select_last(),
        Key::Char('s') => list.sort_by_next(),
        Key::Char('r') => list.reverse(),
        Key::Escape => list.set_search(""),
        _ => {}
    }
    Vec::new()
}

fn press_in_document(state: &mut State, key: Key) {
    if matches!(key, Key::Escape | Key::Backspace) {
        state.documents.pop();
        return;
    }
    if key == Key::Char('n') {
        find(state);
    }
    let Some(document) = state.document_mut() else { return };
    match key {
        Key::Char('j') | Key::Down | Key::Enter => document.scroll_by(1),
        Key::Char('k') | Key::Up => document.scroll_by(-1),
        Key::Char(' ') | Key::PageDown => document.scroll_by_pages(1),
        Key::Char('b') | Key::PageUp => document.scroll_by_pages(-1),
        Key::Char('g') | Key::Home => document.scroll_by(isize::MIN),
        Key::Char('G') | Key::End => document.scroll_by(isize::MAX),
        _ => {}
    }
}

/// Scrolls the document to the next line with the text that was searched.
fn find(state: &mut State) {
    let text = state.sought.clone();
    let Some(document) = state.document_mut() else { return };
    if text.is_empty() {
        state.notice = Some("nothing was searched yet: /".into());
    } else if !document.find(&text) {
        state.notice = Some(format!("not found: {text}"));
    }
}

/// A search in a list takes effect with each character, that in a document at its end.
fn press_in_prompt(state: &mut State, key: Key) {
    match key {
        Key::Char(c) => type_character(state, c),
        Key::Backspace => {
            let is_empty = state.prompt.as_mut().is_some_and(|text| text.pop().is_none());
            if is_empty {
                state.prompt = None;
            }
            search_list(state);
        }
        Key::Escape => {
            state.prompt = None;
            if state.documents.is_empty() {
                state.list_mut(state.view).set_search("");
            }
        }
        Key::Enter => {
            let text = state.prompt.take().unwrap_or_default();
            if !state.documents.is_empty() && !text.is_empty() {
                state.sought = text;
                find(state);
            }
        }
        _ => {}
    }
}

fn type_character(state: &mut State, c: char) {
    if let Some(text) = &mut state.prompt
        && text.chars().count() < MAX_SEARCH
        && !c.is_control()
    {
        text.push(c);
        search_list(state);
    }
}

fn search_list(state: &mut State) {
    if state.documents.is_empty() {
        let text = state.prompt.clone().unwrap_or_default();
        state.list_mut(state.view).set_search(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::list::Cell;
    use super::super::message::Content;
    use super::*;

    fn story(id: &str, name: &str) -> Row {
        let texts = ["error", "open", "2026-11-30 10:00:00Z", "12", "n", name];
        Row { key: id.to_owned(), cells: texts.into_iter().map(Cell::text).collect() }
    }

    fn state() -> State {
        let mut state = State::fixture(80, 24);
        let rows = vec![story("aa", "first"), story("bb", "second"), story("cc", "third")];
        assert_eq!(update(&mut state, Message::Stories(rows)), []);
        state
    }

    fn type_keys(state: &mut State, keys: &str) -> Vec<Effect> {
        let keys = keys.chars().map(|c| match c {
            '\n' => Key::Enter,
            '\u{1b}' => Key::Escape,
            '\t' => Key::Tab,
            c => Key::Char(c),
        });
        keys.flat_map(|key| update(state, Message::Key(key))).collect()
    }

    fn events() -> Result<Content, String> {
        Ok(Content::Events { events: Vec::new(), has_more: false })
    }

    #[test]
    fn enter_opens_the_selected_story_and_escape_closes_it() {
        let mut state = state();
        let request = Request::Story("bb".into());
        assert_eq!(type_keys(&mut state, "j\n"), [Effect::Request(request.clone())]);
        assert!(!state.document().unwrap().is_complete());
        assert_eq!(
            type_keys(&mut state, "e"),
            [Effect::Request(Request::Events("bb".into()))],
            "of the open story"
        );
        update(&mut state, Message::Answer(Request::Events("bb".into()), events()));
        assert!(state.document().unwrap().is_complete());
        type_keys(&mut state, "\u{1b}");
        assert_eq!(state.document().unwrap().request, request);
        type_keys(&mut state, "\u{1b}\u{1b}");
        assert!(state.document().is_none());
        update(&mut state, Message::Answer(request, Err("late".into())));
        assert!(state.document().is_none(), "a late answer opens nothing");
        assert_eq!(state.selected_key().as_deref(), Some("bb"));
    }

    #[test]
    fn open_story_is_requested_again_when_it_changes() {
        let mut state = state();
        type_keys(&mut state, "x");
        let rows = vec![story("bb", "renamed"), story("aa", "first")];
        assert_eq!(update(&mut state, Message::Stories(rows)), [], "another one");
        let rows = vec![story("aa", "renamed")];
        let request = Effect::Request(Request::Explanation("aa".into()));
        assert_eq!(update(&mut state, Message::Stories(rows)), [request]);
        assert_eq!(update(&mut state, Message::Stories(Vec::new())), [], "it isn't kept any more");
    }

    #[test]
    fn documents_without_content_are_requested_when_the_server_is_back() {
        let mut state = state();
        type_keys(&mut state, "\n");
        update(&mut state, Message::Away { since_ns: 1, cause: "gone".into() });
        let request = Request::Story("aa".into());
        update(&mut state, Message::Answer(request.clone(), Err("away".into())));
        assert_eq!(update(&mut state, Message::Back), [Effect::Request(request)]);
        assert!(state.away.is_none());
    }

    #[test]
    fn search_in_a_list_takes_effect_at_once_and_escape_ends_it() {
        let mut state = state();
        type_keys(&mut state, "/sec");
        assert_eq!((state.list(View::Stories).len(), state.selected_key()), (1, Some("bb".into())));
        assert_eq!(type_keys(&mut state, "q"), [], "a character, not a command");
        assert_eq!(state.list(View::Stories).len(), 0);
        update(&mut state, Message::Key(Key::Backspace));
        update(&mut state, Message::Paste("o\u{1b}[2J\nnd".into()));
        assert_eq!(state.prompt.as_deref(), Some("seco[2Jnd"));
        type_keys(&mut state, "\u{1b}");
        assert_eq!((state.list(View::Stories).len(), state.prompt.as_deref()), (3, None));
        type_keys(&mut state, "/third\n");
        assert_eq!((state.list(View::Stories).len(), state.prompt.as_deref()), (1, None));
        assert_eq!(type_keys(&mut state, "y"), [Effect::Copy("cc".into())]);
        type_keys(&mut state, "\u{1b}");
        assert_eq!(state.list(View::Stories).len(), 3);
        type_keys(&mut state, "/");
        update(&mut state, Message::Key(Key::Backspace));
        assert!(state.prompt.is_none());
        update(&mut state, Message::Paste("qqq".into()));
        assert!(state.prompt.is_none(), "pasted text isn't keys");
    }

    #[test]
    fn views_are_selected_by_tab_and_digits() {
        let mut state = state();
        type_keys(&mut state, "\t");
        assert_eq!(state.view, View::Agents);
        assert_eq!(type_keys(&mut state, "\nexyo"), [], "no agent is selected");
        assert_eq!(state.notice.as_deref(), Some("no story is selected"));
        let row = Row { key: "n\u{1b}\0jsonl\0a/b".into(), cells: Vec::new() };
        update(&mut state, Message::Agents { agents: Vec::new(), losses: vec![row] });
        let request = Request::Agent("n\u{1b}".into());
        assert_eq!(type_keys(&mut state, "3\n"), [Effect::Request(request.clone())]);
        let again = Message::Agents { agents: Vec::new(), losses: Vec::new() };
        assert_eq!(update(&mut state, again), [Effect::Request(request)]);
        update(&mut state, Message::Key(Key::BackTab));
        assert_eq!((state.view, state.documents.len()), (View::Agents, 0));
        type_keys(&mut state, "1o");
        assert_eq!(state.notice.as_deref(), Some("http://127.0.0.1:7601/stories/aa"));
    }

    #[test]
    fn quit_is_a_key_everywhere_but_in_a_search() {
        for keys in ["q", "?q", "\nq", "/q\n\u{1b}q"] {
            let effects = type_keys(&mut state(), keys);
            assert_eq!(effects.last(), Some(&Effect::Quit), "{keys:?}");
        }
        let mut state = state();
        type_keys(&mut state, "/");
        assert_eq!(update(&mut state, Message::Key(Key::Interrupt)), [Effect::Quit]);
        assert_eq!(update(&mut state, Message::Quit), [Effect::Quit]);
    }

    #[test]
    fn search_in_a_document_goes_from_line_to_line() {
        let mut state = state();
        type_keys(&mut state, "e");
        let event = |n| serde_json::json!({"message": format!("line {n}"), "kind": "log"});
        let content = Content::Events { events: (0..60).map(event).collect(), has_more: true };
        update(&mut state, Message::Answer(Request::Events("aa".into()), Ok(content)));
        type_keys(&mut state, "/LINE 3\n");
        assert!(state.document().unwrap().place().starts_with("5-"), "below the note");
        type_keys(&mut state, "n");
        assert!(state.document().unwrap().place().starts_with("32-"), "line 30");
        type_keys(&mut state, "/absent\n");
        assert_eq!(state.notice.as_deref(), Some("not found: absent"));
        type_keys(&mut state, "G");
        assert!(state.document().unwrap().place().ends_with("-61/61"));
    }
}
