//! Stories whose first cause was marked: of a server, or of a file of exported stories.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value as Json;

use super::label::Mark;
use crate::cli::connection::ServerArgs;
use crate::cli::live;
use crate::cli::output::Progress;
use crate::cli::query::annotated::Annotated;
use crate::cli::query::annotations::{PAGE_ENTRIES, for_each_annotation};
use tapio_core::event::{Story, TraceId};
use tapio_wire::proto::annotation_entry::Action;
use tapio_wire::proto::query_client::QueryClient;
use tapio_wire::{AuthorizedChannel, proto};

/// A mark and its story; `None`: the story isn't stored any more.
pub(super) type Marked = (Mark, Option<Story>);

/// The time range of marks, nanoseconds since the Unix epoch; 0: any.
#[derive(Clone, Copy, Debug)]
pub(super) struct MarkedIn {
    pub(super) since_ns: u64,
    pub(super) until_ns: u64,
}

impl MarkedIn {
    fn contains(self, time_ns: u64) -> bool {
        time_ns >= self.since_ns && (self.until_ns == 0 || time_ns < self.until_ns)
    }
}

/// The marks of a server, with their stories.
///
/// # Errors
/// Those of the server.
pub(super) fn from_server(at: &ServerArgs, times: MarkedIn) -> anyhow::Result<Vec<Marked>> {
    let access = at.access()?;
    live::runtime()?.block_on(async {
        let client = live::connect(&at.server, &access).await;
        let mut client = client.map_err(anyhow::Error::msg)?;
        let request = proto::ListAnnotationsRequest {
            limit: PAGE_ENTRIES,
            actions: vec!["wrong_cause".into(), "right_cause".into()],
            since: times.since_ns,
            until: times.until_ns,
            ..Default::default()
        };
        let mut marks = Vec::new();
        for_each_annotation(&mut client, &at.server, request, |entry| {
            marks.extend(mark_of(entry));
            Ok(())
        })
        .await?;
        let progress = Progress::of_items("reading", "stories", Some(marks.len() as u64));
        let mut marked = Vec::new();
        for (id, mark) in marks {
            marked.push((mark, story(&mut client, &at.server, id).await?));
            progress.add(1);
        }
        Ok(marked)
    })
}

fn mark_of(entry: proto::AnnotationEntry) -> Option<(TraceId, Mark)> {
    let id = TraceId(entry.story_id.as_slice().try_into().ok()?);
    let (is_right, real_cause) = match entry.action? {
        Action::RightCause(_) => (true, String::new()),
        Action::WrongCause(cause) => (false, cause),
        _ => return None,
    };
    Some((id, Mark { is_right, real_cause, first_cause: entry.first_cause }))
}

async fn story(
    client: &mut QueryClient<AuthorizedChannel>,
    server: &str,
    id: TraceId,
) -> anyhow::Result<Option<Story>> {
    let request =
        proto::ListStoriesRequest { limit: 1, id_prefix: id.to_string(), ..Default::default() };
    let response = client.list_stories(request).await;
    let response = response.map_err(|status| live::failure(server, &status))?;
    let found = response.into_inner().stories.into_iter().next();
    Ok(found.and_then(Annotated::from_proto).map(|found| found.linked.story))
}

/// The marks in a file of stories as `tapio stories -o jsonl` or `-o json` prints them. Of a story
/// that is there several times, the last one counts.
///
/// # Errors
/// When the file can't be read, or has something else.
pub(super) fn from_file(path: &Path, times: MarkedIn) -> anyhow::Result<Vec<Marked>> {
    let name = path.display().to_string();
    let mut text = String::new();
    let mut source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).with_context(|| name.clone())?)
    };
    source.read_to_string(&mut text).with_context(|| name.clone())?;
    marks_in(&text, times).with_context(|| name)
}

fn marks_in(text: &str, times: MarkedIn) -> anyhow::Result<Vec<Marked>> {
    let mut stories: Vec<Json> = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Json>() {
        match value? {
            Json::Array(list) => stories.extend(list),
            one => stories.push(one),
        }
    }
    let mut marked = BTreeMap::new();
    for (number, json) in (1..).zip(&stories) {
        let story = Story::from_json(&json.to_string());
        let story =
            story.map_err(|e| anyhow::anyhow!("item {number} isn't a story: {}", e.cause))?;
        if let Some(mark) = mark_in(&json["annotations"], times) {
            marked.insert(story.id, (mark, Some(story)));
        }
    }
    Ok(marked.into_values().collect())
}

fn mark_in(annotations: &Json, times: MarkedIn) -> Option<Mark> {
    let (is_right, json) = match (&annotations["right_cause"], &annotations["wrong_cause"]) {
        (Json::Object(right), _) => (true, right),
        (_, Json::Object(wrong)) => (false, wrong),
        _ => return None,
    };
    let text = |key: &str| json.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
    let time: Option<jiff::Timestamp> = text("time").parse().ok();
    let time_ns = time.map_or(0, |time| u64::try_from(time.as_nanosecond()).unwrap_or(0));
    let mark = Mark { is_right, real_cause: text("cause"), first_cause: text("first_cause") };
    times.contains(time_ns).then_some(mark)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ANY: MarkedIn = MarkedIn { since_ns: 0, until_ns: 0 };

    fn exported(id: u8, annotations: Json) -> Json {
        let mut json = Story { id: TraceId([id; 16]), ..Story::default() }.json();
        json["annotations"] = annotations;
        json
    }

    #[test]
    fn each_form_of_export_has_the_same_marks() {
        let time = "2026-01-01T00:00:00Z";
        let wrong = json!({"wrong_cause": {"time": time, "by": "", "cause": "the disk"}});
        let right = json!({"right_cause": {"time": time, "by": "", "first_cause": "a"}});
        let noted = json!({"notes": [{"time": time, "by": "", "text": "wrong_cause"}]});
        let all = [exported(1, wrong.clone()), exported(2, right), exported(3, noted)];
        let lines: Vec<String> = all.iter().map(Json::to_string).collect();
        let pretty = serde_json::to_string_pretty(&all).unwrap();
        let expected = [
            Mark { real_cause: "the disk".into(), ..Mark::default() },
            Mark { is_right: true, first_cause: "a".into(), ..Mark::default() },
        ];
        for text in [lines.join("\n"), pretty, json!(all).to_string()] {
            let marks = marks_in(&text, ANY).unwrap();
            let marks: Vec<&Mark> = marks.iter().map(|(mark, _)| mark).collect();
            assert_eq!(marks, expected.iter().collect::<Vec<_>>());
        }
        // The mark was removed later.
        let later = [exported(1, wrong), exported(1, json!({}))];
        let text = later.map(|one| one.to_string()).join("\n");
        assert_eq!(marks_in(&text, ANY).unwrap().len(), 1);
        let before = MarkedIn { since_ns: 0, until_ns: 1_000_000_000_000_000_000 };
        assert_eq!(marks_in(&lines.join("\n"), before).unwrap().len(), 0);
    }

    #[test]
    fn other_files_are_refused() {
        for (text, cause) in [
            ("{\"id\": 7}", "item 1 isn't a story"),
            ("[[1]]", "item 1 isn't a story"),
            ("{\"id\": ", "EOF"),
            ("story", "expected value"),
        ] {
            let error = format!("{:#}", marks_in(text, ANY).unwrap_err());
            assert!(error.contains(cause), "{text}: {error}");
        }
        assert!(marks_in("", ANY).unwrap().is_empty());
    }
}
