//! Cuts the texts of an event that is too large for a record.

use super::record::{Event, Field, Value};
use super::well_known_names as names;
use crate::text_prefix::text_prefix;

/// Room for the mark behind a cut text.
const MARK_BYTES: usize = 40;

impl Event<'_> {
    /// Calls `read` with the event, its texts cut so that its archive has at most `max_bytes`: the
    /// longest texts, the message or attributes, to a common length. The mark behind each, `… [N
    /// bytes cut]`, has the bytes cut, `tapio.truncated_bytes` their sum. `None` where the event is
    /// too large without any text.
    pub fn truncated<R>(&self, max_bytes: usize, read: impl FnOnce(&Event<'_>) -> R) -> Option<R> {
        let texts = || self.fields.iter().map(|f| text(&f.value).len()).chain([self.message.len()]);
        let without = self.archive_bound_bytes() - texts().sum::<usize>();
        let with_count = Field { key: names::TAPIO_TRUNCATED_BYTES, value: Value::Int(0) };
        let one_field = Event { fields: &[with_count], message: "", ..*self }.archive_bound_bytes()
            - Event { fields: &[], message: "", ..*self }.archive_bound_bytes();
        let room = max_bytes.checked_sub(without + one_field)?;
        let fits = |length: usize| {
            let cut = |len: usize| if len > length { length + MARK_BYTES } else { len };
            texts().map(cut).sum::<usize>() <= room
        };
        if !fits(0) {
            return None;
        }
        // The greatest length that fits.
        let (mut length, mut too_long) = (0, room + 1);
        while too_long - length > 1 {
            let middle = length.midpoint(too_long);
            if fits(middle) { length = middle } else { too_long = middle }
        }
        let mut cut = Vec::new();
        let mut bytes = 0;
        let mut shorten = |text: &str| {
            let kept = text_prefix(text, length);
            let cut = text.len() - kept.len();
            bytes += cut;
            format!("{kept}… [{cut} bytes cut]")
        };
        for (at, field) in self.fields.iter().enumerate() {
            if text(&field.value).len() > length {
                cut.push((at, shorten(text(&field.value))));
            }
        }
        let message = (self.message.len() > length).then(|| shorten(self.message));
        let mut fields = self.fields.to_vec();
        for (at, text) in &cut {
            // Cut JSON is no JSON any more.
            fields[*at].value = Value::Str(text);
        }
        fields.push(Field { value: Value::Int(bytes as i64), ..with_count });
        let message = message.as_deref().unwrap_or(self.message);
        Some(read(&Event { fields: &fields, message, ..*self }))
    }
}

fn text<'a>(value: &Value<'a>) -> &'a str {
    match value {
        Value::Str(text) | Value::Json(text) => text,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{EventId, Name};

    #[test]
    fn longest_texts_are_cut_to_a_common_length() {
        let key = Name::intern("t.key").unwrap();
        let (long, longer) = ("ä".repeat(400), "b".repeat(2_000));
        let fields = [
            Field { key, value: Value::Str("short") },
            Field { key, value: Value::Json(&longer) },
            Field { key, value: Value::Int(7) },
        ];
        let event = Event::new(EventId([1; 16]), 1, key, key);
        let event = Event { fields: &fields, message: &long, entities: 1, ..event };
        let cut = event.truncated(1_000, |cut| {
            assert!(cut.archive_bound_bytes() <= 1_000);
            assert_eq!((cut.id, cut.entities, cut.fields.len()), (event.id, 1, 4));
            assert_eq!(cut.fields[0], fields[0]);
            assert_eq!(cut.fields[2], fields[2]);
            let Value::Str(json) = cut.fields[1].value else { panic!("cut JSON is text") };
            let (kept, mark) = json.split_once('…').unwrap();
            assert_eq!(mark, format!(" [{} bytes cut]", 2_000 - kept.len()));
            let (message, _) = cut.message.split_once('…').unwrap();
            assert!(message.len().abs_diff(kept.len()) <= 1, "{} {}", message.len(), kept.len());
            let bytes = (2_000 - kept.len() + 800 - message.len()) as i64;
            assert_eq!(cut.fields[3].value, Value::Int(bytes));
        });
        assert!(cut.is_some());
        assert_eq!(event.truncated(10, |_| ()), None);
    }

    proptest! {
        #[test]
        fn cut_event_fits_and_loses_no_field(
            texts in prop::collection::vec("[aä€]{0,300}", 0..20), message in ".{0,300}",
            max_bytes in 0usize..6_000,
        ) {
            let key = Name::intern("t.key").unwrap();
            let fields: Vec<_> =
                texts.iter().map(|text| Field { key, value: Value::Str(text) }).collect();
            let event = Event::new(EventId([1; 16]), 1, key, key);
            let event = Event { fields: &fields, message: &message, ..event };
            let empty: Vec<_> = fields.iter().map(|_| Field { key, value: Value::Null }).collect();
            let least = Event { fields: &empty, message: "", ..event }.archive_bound_bytes();
            let cut = event.truncated(max_bytes, |cut| {
                (cut.archive_bound_bytes(), cut.fields.len())
            });
            match cut {
                Some((bytes, count)) => {
                    prop_assert!(bytes <= max_bytes);
                    prop_assert_eq!(count, fields.len() + 1);
                }
                None => prop_assert!(max_bytes < least + (texts.len() + 3) * MARK_BYTES),
            }
        }
    }
}
