//! Log records and spans, encoded by hand.

use proptest::prelude::*;

use super::*;

/// A length-delimited field.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | LEN];
    let mut len = bytes.len();
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(bytes);
    out
}

fn pair(key: &str, value: &[u8]) -> Vec<u8> {
    [field(1, key.as_bytes()), field(2, value)].concat()
}

fn text(text: &str) -> Vec<u8> {
    field(1, text.as_bytes())
}

fn fixed(number: u8, n: u64) -> Vec<u8> {
    [vec![number << 3 | FIXED64], n.to_le_bytes().to_vec()].concat()
}

/// A request with one resource.
fn request(records: &[Vec<u8>]) -> Vec<u8> {
    let resource = field(1, &field(1, &pair("service.name", &text("shop"))));
    let scope: Vec<u8> = records.iter().flat_map(|r| field(2, r)).collect();
    field(1, &[field(2, &scope), resource].concat())
}

#[test]
fn log_record_is_decoded_with_its_resource() {
    let list = field(5, &[field(1, &text("a")), field(1, &[3 << 3, 7])].concat());
    let log = [
        fixed(1, 1_000),
        vec![2 << 3, 17],
        field(5, &text("it broke")),
        field(6, &pair("n", &[3 << 3, 42])),
        field(6, &pair("l", &list)),
        field(6, &pair("not text", &field(1, &[0xff]))),
        field(9, &[1; 16]),
        field(10, &[2; 8]),
        field(12, b"app.broke"),
    ]
    .concat();
    let mut seen = 0;
    let invalid = otlp_logs(&request(&[log, vec![0xff]]), |resource, _, r| {
        seen += 1;
        assert!(matches!(resource.list[..], [("service.name", OtlpValue::Text("shop"))]));
        assert_eq!((r.time_ns, r.severity, r.name), (1_000, 17, "app.broke"));
        assert!(matches!(r.body, OtlpValue::Text("it broke")));
        assert_eq!((r.trace_id, r.span_id), ([1; 16], [2; 8]));
        let json: Vec<String> =
            r.attributes.list.iter().map(|(k, v)| format!("{k}={}", v.json())).collect();
        assert_eq!(json, ["n=42", r#"l=["a",7]"#]);
        assert_eq!(r.attributes.dropped, 1);
    });
    assert_eq!((invalid, seen), (Ok(1), 1));
}

#[test]
fn span_is_decoded() {
    let exception = field(3, &pair("exception.type", &text("E")));
    let span = [
        field(1, &[3; 16]),
        field(2, &[4; 8]),
        field(5, b"GET /"),
        fixed(7, 5),
        fixed(8, 9),
        field(4, &[6; 8]),
        vec![6 << 3, 3],
        field(11, &[fixed(1, 8), field(2, b"exception"), exception].concat()),
        vec![12 << 3, 2],
        field(13, &[field(1, &[7; 16]), field(2, &[8; 8])].concat()),
        field(15, &[field(2, b"no"), vec![3 << 3, 2]].concat()),
    ]
    .concat();
    let mut seen = 0;
    let invalid = otlp_spans(&request(&[span]), |_, _, r| {
        seen += 1;
        assert_eq!((r.name, r.time_ns, r.end_ns, r.failed), ("GET /", 5, 9, true));
        assert_eq!((r.parent_span_id, r.span_kind), ([6; 8], 3));
        let [event] = &r.events.events().collect::<Vec<_>>()[..] else { panic!("one event") };
        assert_eq!((event.name, event.time_ns), ("exception", 8));
        let [("exception.type", OtlpValue::Text("E"))] = event.attributes.list[..] else {
            panic!("{event:?}")
        };
        let [link] = &r.links.links().collect::<Vec<_>>()[..] else { panic!("one link") };
        assert_eq!((link.trace_id, link.span_id), ([7; 16], [8; 8]));
        assert_eq!((r.events.dropped, r.links.dropped), (2, 0));
    });
    assert_eq!((invalid, seen), (Ok(0), 1));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_decoded_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        // As a request, as a record, and as a field of a record.
        for bytes in [bytes.clone(), request(std::slice::from_ref(&bytes)), request(&[field(5, &bytes)])] {
            let read = |r: &OtlpRecord<'_>| {
                let _ = r.body.json();
                r.attributes.list.iter().for_each(|(_, v)| drop(v.json()));
            };
            let _ = otlp_logs(&bytes, |_, _, r| read(r));
            let _ = otlp_spans(&bytes, |_, _, r| read(r));
        }
    }
}
