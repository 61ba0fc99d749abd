//! Takes as many items of a list as an answer has room for.

use std::time::Duration;

use serde_json::Value;

use super::answer::{Answer, MAX_DATA_BYTES, escaped, fitted, truncated};
use super::bounds::{Bounds, LEVELS};
use super::listing::Listing;
use super::source::{Source, SourceError};
use tapio_core::clock;
use tapio_core::event::rfc3339;

/// Pages that are fetched for an answer at most: a page may have no item although there are more.
const MAX_PAGES: usize = 8;
/// Time after which no further page is fetched.
const MAX_TIME: Duration = Duration::from_secs(4);

/// Items of an answer.
struct Items {
    limit: usize,
    /// Items as text.
    texts: Vec<String>,
    bytes: usize,
    /// The narrowest bounds by which one was shortened.
    cut: Option<Bounds>,
}

impl Items {
    /// Adds an item. `false`: there is no room for it.
    fn add(&mut self, mut item: Value) -> bool {
        if self.texts.len() >= self.limit {
            return false;
        }
        let original = self.texts.is_empty().then(|| item.clone());
        let mut cut = LEVELS[0].apply(&mut item).then_some(LEVELS[0]);
        let mut text = escaped(&item);
        if let Some(original) = original.filter(|_| text.len() > MAX_DATA_BYTES) {
            // One item is in every answer: otherwise the next one would begin with it as well.
            let fitted = fitted(&original, MAX_DATA_BYTES);
            let (shorter, bounds) = fitted.unwrap_or_else(|| ("\"…\"".into(), LEVELS.last()));
            (text, cut) = (shorter, bounds.copied().or(cut));
        }
        if !self.texts.is_empty() && self.bytes + text.len() > MAX_DATA_BYTES {
            return false;
        }
        self.bytes += text.len() + 1;
        self.texts.push(text);
        if let Some(bounds) = cut {
            let narrowest = self.cut.get_or_insert(bounds);
            if bounds.chars < narrowest.chars {
                *narrowest = bounds;
            }
        }
        true
    }
}

/// The end of the part of a list that an answer has.
struct End {
    /// Empty: the list ends here.
    token: String,
    complete_since_ns: u64,
}

/// The answer with a list's items. `noun`: their name; `tool`: the tool to call again.
///
/// # Errors
/// Those of the source.
pub(super) async fn list(
    source: &impl Source,
    listing: &Listing,
    limit: u32,
    page_token: String,
    (noun, tool): (&str, &str),
) -> Result<Answer, SourceError> {
    let mut items = Items { limit: limit as usize, texts: Vec::new(), bytes: 0, cut: None };
    let end = fill(source, listing, page_token, &mut items).await?;
    let mut notes = vec![match items.texts.len() {
        0 if end.token.is_empty() => format!("{noun}: none"),
        n => format!("{noun}: {n}"),
    }];
    if let Some(bounds) = &items.cut {
        notes.push(truncated(bounds));
    }
    if !end.token.is_empty() {
        notes.push(format!(
            "more: there may be more; call {tool} again with the same arguments and page_token \
             \"{}\"",
            end.token
        ));
    } else if end.complete_since_ns > 0 {
        notes.push(format!(
            "missing: {noun} received before {} may be missing: the server doesn't keep them any \
             more, or they are damaged",
            rfc3339(end.complete_since_ns)
        ));
    }
    let data = format!("{{\"{noun}\":[{}]}}", items.texts.join(","));
    Ok(Answer { notes, data: (!items.texts.is_empty()).then_some(data) })
}

/// Fetches pages until there is no room for another item.
async fn fill(
    source: &impl Source,
    listing: &Listing,
    mut token: String,
    items: &mut Items,
) -> Result<End, SourceError> {
    let began = clock::instant();
    let mut complete_since_ns = 0;
    for _ in 0..MAX_PAGES {
        let left = items.limit - items.texts.len();
        let page = listing.page(source, left as u32, token.clone()).await?;
        complete_since_ns = page.complete_since_ns;
        for (at, item) in page.items.into_iter().enumerate() {
            let Some(item) = item else { continue };
            if !items.add(item) {
                let token = listing.token_behind(source, at as u32, token).await?;
                return Ok(End { token, complete_since_ns });
            }
        }
        token = page.next_page_token;
        let is_late = clock::instant().saturating_duration_since(began) > MAX_TIME;
        if token.is_empty() || items.texts.len() == items.limit || is_late {
            break;
        }
    }
    Ok(End { token, complete_since_ns })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn items_stay_within_limit_and_bytes() {
        let mut items = Items { limit: 3, texts: Vec::new(), bytes: 0, cut: None };
        assert!((0..3).all(|_| items.add(json!("x"))) && !items.add(json!("x")));
        assert_eq!(items.cut, None);
        let many = |n: usize| json!(vec!["x".repeat(900); n]);
        let mut items = Items { limit: 50, texts: Vec::new(), bytes: 0, cut: None };
        assert!(items.add(many(30)) && !items.add(many(30)) && items.add(many(20)));
        assert!(items.bytes <= MAX_DATA_BYTES + 50);
        let mut items = Items { limit: 50, texts: Vec::new(), bytes: 0, cut: None };
        assert!(items.add(many(100)), "the first one is shortened");
        assert!(items.cut.is_some_and(|bounds| bounds.chars < 900));
        assert!(items.texts[0].len() <= MAX_DATA_BYTES);
    }
}
