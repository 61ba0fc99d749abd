//! Values as YAML text.

use serde_json::Value as Json;

/// Longest line of a list that is written in one.
const LINE: usize = 96;

/// A document of a value.
#[must_use]
pub fn yaml_text(value: &Json) -> String {
    match value {
        Json::Object(map) if !map.is_empty() => {
            let mut out = String::new();
            map.iter().for_each(|(key, value)| entry(key, value, 0, &mut out));
            out
        }
        other => format!("{}\n", flow(other)),
    }
}

/// Writes a key with its value, which may take several lines.
pub(super) fn entry(key: &str, value: &Json, indent: usize, out: &mut String) {
    let start = format!("{:indent$}{}:", "", scalar(key));
    match value {
        Json::Object(map) if !map.is_empty() => {
            out.push_str(&format!("{start}\n"));
            map.iter().for_each(|(key, value)| entry(key, value, indent + 2, out));
        }
        Json::Array(list) => {
            let line = format!("{start} {}", flow(value));
            if line.chars().count() <= LINE {
                out.push_str(&format!("{line}\n"));
                return;
            }
            out.push_str(&format!("{start}\n"));
            list.iter().for_each(|value| element(value, indent + 2, out));
        }
        other => out.push_str(&format!("{start} {}\n", flow(other))),
    }
}

fn element(value: &Json, indent: usize, out: &mut String) {
    match value {
        Json::Object(map) if !map.is_empty() => {
            let mut below = String::new();
            map.iter().for_each(|(key, value)| entry(key, value, indent + 2, &mut below));
            out.push_str(&format!("{:indent$}- {}", "", below.trim_start()));
        }
        other => out.push_str(&format!("{:indent$}- {}\n", "", flow(other))),
    }
}

/// A value on one line.
pub(super) fn flow(value: &Json) -> String {
    match value {
        Json::String(text) => scalar(text),
        Json::Array(list) => format!("[{}]", list.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Json::Object(map) if map.is_empty() => "{}".into(),
        Json::Object(map) => {
            let pair = |(key, value): (&String, &Json)| format!("{}: {}", scalar(key), flow(value));
            format!("{{ {} }}", map.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A text as a scalar: quoted unless it can't be taken for anything else. A dollar sign is doubled:
/// the text of a value has no variables.
fn scalar(text: &str) -> String {
    let is_word = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_./-".contains(&b))
    };
    let (digits, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let is_amount = !digits.is_empty()
        && ["us", "ms", "s", "m", "h", "d", "B", "KiB", "MiB", "GiB"].contains(&unit);
    let lower = text.to_ascii_lowercase();
    let is_other = matches!(
        lower.as_str(),
        "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n" | "inf" | "nan"
    );
    if (is_word(text) && !is_other) || is_amount {
        return text.to_owned();
    }
    // A string of JSON is one of YAML, except for characters that YAML doesn't print.
    let quoted = Json::from(text.replace('$', "$$")).to_string();
    let escaped = |c: char| match u32::from(c) {
        code @ (0x7f..=0x9f | 0x2028 | 0x2029 | 0xfeff) => format!("\\u{code:04x}"),
        _ => c.to_string(),
    };
    quoted.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn values_have_the_form_that_a_person_writes() {
        let long = vec!["a-name-of-some-length"; 6];
        let value = json!({
            "text": "info", "path": "/etc/tapio", "size": "64MiB", "flag": true, "word": "true",
            "empty": {}, "list": [], "section": {"number": 5, "none": null},
            "sinks": [{"endpoint": "http://a:4317", "headers": {"a b": "c"}}, "$HOME"],
            "long": long,
        });
        let text = yaml_text(&value);
        let expected = "text: info\npath: /etc/tapio\nsize: 64MiB\nflag: true\nword: \"true\"\n\
            empty: {}\nlist: []\nsection:\n  number: 5\n  none: null\nsinks: [{ endpoint: \
            \"http://a:4317\", headers: { \"a b\": c } }, \"$$HOME\"]\nlong:\n  - a-name-of-";
        assert!(text.starts_with(expected), "{text}");
    }

    proptest! {
        #[test]
        fn every_text_is_read_again(text in "[^$]{0,40}", key in "[ -#%-~]{1,9}") {
            let value = json!({"k": {key: [text.clone(), {"x": text}]}});
            let read: Json = serde_saphyr::from_str(&yaml_text(&value)).unwrap();
            prop_assert_eq!(read, value);
        }
    }
}
